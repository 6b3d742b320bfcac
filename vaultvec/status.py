"""What is stored for a vault, and how far that is behind its notes."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vaultvec.datatypes import NoteFile
from vaultvec.errors import LedgerError, VaultError, VaultvecError
from vaultvec.fitting import difference_line, excluded_line
from vaultvec.index import current_index, exclusions_of
from vaultvec.ledger import Ledger, StoredNote
from vaultvec.models import class_of
from vaultvec.note_file import digest, read_bytes
from vaultvec.settings import Settings
from vaultvec.stages.changes import find_changes
from vaultvec.vault import open_vault, walk


@dataclass(frozen=True, slots=True)
class OtherIndex:
    """An index of the same vault that does not answer now: of other models, chunk sizes or precision, or the baseline's."""

    name: str  # of its folder
    bytes: int
    models: str  # whose vectors it holds, and "int8" where they are; "" where its ledger cannot be read

    def as_dict(self) -> dict[str, Any]:
        """An entry of `status --json`."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Status:
    """What is stored for a vault, and how far it is behind the notes."""

    vault: str
    notes: int
    not_read: int  # notes that the last run saw and did not come to
    chunks: int
    distinct: int  # texts among them
    embedded: int
    pending: int
    failed: list[tuple[str, str]]  # (path, reason), those of `unread` among them
    unread: list[str]  # paths of the notes that could not be read and of which nothing is stored
    models: list[str]
    fingerprints: list[str]
    reason: str
    stale_notes: int | None  # changed, new or deleted since; None when the vault cannot be read
    unchanged: int | None  # notes that are in the vault as they are stored
    gone: int | None  # notes that are stored and no longer in the vault
    index_bytes: int
    folder: str
    other_indexes: list[OtherIndex]
    remarks: list[str]  # how the index differs from what config.py asks for

    @property
    def coverage(self) -> float:
        """Share of the vault that semantic search can find: of the chunks, and of the notes that a run has come to."""
        read = self.notes / (self.notes + self.not_read) if self.not_read else 1.0
        return read * (self.embedded / self.chunks if self.chunks else 1.0)

    @property
    def total(self) -> int:
        """Notes that the last run saw, those that it could not read among them, as `index --json` counts them."""
        return self.notes + self.not_read + len(self.unread)

    def as_dict(self) -> dict[str, Any]:
        """`status --json`."""
        return {
            "vault": self.vault,
            "notes_total": self.total,
            "notes_indexed": self.notes,
            "notes_not_read_yet": self.not_read,
            "notes_unchanged": self.unchanged,
            "notes_deleted": self.gone,
            "chunks_total": self.chunks,
            "chunks_embedded": self.embedded,
            "chunks_reused": self.chunks - self.distinct,
            "chunks_pending": self.chunks - self.embedded,
            "notes_failed": [{"path": path, "reason": reason} for path, reason in self.failed],
            "model": " + ".join(self.models),
            "fingerprint": " + ".join(self.fingerprints),
            "reason": self.reason,
            "coverage": round(self.coverage, 4),
            "stale_notes": self.stale_notes,
            "index_bytes": self.index_bytes,
            "folder": self.folder,
            "other_indexes": [other.as_dict() for other in self.other_indexes],
            "remarks": self.remarks,
        }


def read_status(settings: Settings, vault: Path) -> Status:
    """What is stored. Raises LedgerError when the vault was never indexed."""
    folder = current_index(settings, vault)
    with Ledger(folder / "ledger.sqlite3", readonly=True) as ledger:
        counts, models, stored = ledger.counts(), ledger.models(), ledger.notes()
        stale, unchanged, gone, away = _stale(settings, vault, ledger, stored)
        remarks = [difference_line(settings, vault, ledger), excluded_line(settings, vault, stored), away]
        return Status(
            vault=ledger.meta("vault"), notes=counts.notes, not_read=ledger.not_read_yet(),
            chunks=counts.chunks, distinct=ledger.distinct_texts(), embedded=counts.embedded, pending=counts.pending,
            failed=_failed(ledger), unread=[path for path in ledger.unread() if path not in stored],
            models=[m[2] for m in models], fingerprints=[m[1] for m in models], reason=ledger.meta("reason"),
            stale_notes=stale, unchanged=unchanged, gone=gone, index_bytes=_size(folder), folder=str(folder),
            other_indexes=[
                OtherIndex(path.name, _size(path), _models(path))
                for path in sorted(folder.parent.iterdir()) if path.is_dir() and path != folder
            ],
            remarks=[line for line in remarks if line],
        )  # fmt: skip


def _stale(
    settings: Settings, vault: Path, ledger: Ledger, stored: dict[str, StoredNote]
) -> tuple[int | None, int | None, int | None, str]:
    """How many notes are stale, unchanged and gone, and ""; None for each and why, where the vault cannot be read."""
    try:
        walked = walk(open_vault(vault), exclusions_of(settings, vault))
    except (VaultvecError, OSError) as error:
        return None, None, None, f"how many notes have changed is not known: {error}"
    unread = ledger.unread()
    changes = find_changes(walked.files, walked.unreadable, stored, False, None)
    changed = [file for file in changes.files if unread.get(file.path, ())[1:] != (file.size, file.mtime_ns)]
    differing = [file for file in changed if not _same_content(file, stored.get(file.path))]
    gone = len(changes.gone)
    edited = sum(file.path in stored for file in differing) + sum(path in stored for path in unread)
    return len(differing) + gone, len(stored) - gone - edited, gone, ""


def _failed(ledger: Ledger) -> list[tuple[str, str]]:
    """(path, reason) of notes that could not be read, and of those with a text that no model took."""
    return [(path, reason) for path, (reason, _, _) in ledger.unread().items()] + ledger.failures()


def _same_content(file: NoteFile, known: StoredNote | None) -> bool:
    """Whether a note only looks changed because it was indexed right after it was written (`reading.settled`)."""
    if known is None or known.ctime_ns or (known.size, known.mtime_ns) != (file.size, file.mtime_ns):
        return False
    try:
        return digest(read_bytes(file)) == known.digest
    except VaultError:
        return False


def _models(folder: Path) -> str:
    try:
        with Ledger(folder / "ledger.sqlite3", readonly=True) as ledger:
            models = ledger.models()
    except LedgerError:
        return ""
    return " + ".join(f"{name} int8" if class_of(fingerprint) == "int8" else name for _, fingerprint, name, _ in models)


def _size(folder: Path) -> int:
    """Bytes on disk, holes of sparse files not counted. What a run removes meanwhile counts nothing."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                stat = os.stat(os.path.join(parent, name))
                total += getattr(stat, "st_blocks", 0) * 512 or stat.st_size
    return total
