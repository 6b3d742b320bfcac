"""Opening what is there: the index that answers for a vault, for searching, for its status and for its upkeep."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from vaultvec.datatypes import NoteFile
from vaultvec.engines import SERVERS, create_engine, resolve_model
from vaultvec.engines.base import Engine
from vaultvec.errors import LedgerDamaged, LedgerError, VaultError
from vaultvec.fitting import difference_line, excluded_line, made_by_server
from vaultvec.index import current_index, exclusions_of, writer_lock
from vaultvec.ledger import Ledger, StoredNote
from vaultvec.models import ModelSpec, resolve
from vaultvec.notes import digest, read_bytes
from vaultvec.ranking.semantic import ModelSlot
from vaultvec.search import Searcher
from vaultvec.settings import Settings
from vaultvec.stages.changes import find_changes
from vaultvec.vault import open_vault, walk

Notify = Callable[[str], None]


def open_searcher(settings: Settings, vault: Path, notify: Notify = lambda _: None) -> Searcher:
    """A searcher over the index that answers for a vault. No model is loaded before the first query needs one."""
    folder = current_index(settings, vault)
    ledger = Ledger(folder / "ledger.sqlite3", readonly=True)
    with ledger.errors_told():
        made_by, models = made_by_server(settings, ledger), ledger.models()
    if models and made_by != (settings.engine if settings.engine in SERVERS else ""):
        said = f'with ENGINE = "{made_by}"' if made_by else "here, without a server"
        raise LedgerError(
            f'this index was made {said}, config.py says ENGINE = "{settings.engine}"; set it back, or run: '
            "python main.py index"
        )
    slots = [_slot(settings, row, notify) for row in models]
    return Searcher(ledger, slots, vault, backend=settings.search_backend, chroma=folder / "chroma")


def _slot(settings: Settings, row: tuple[int, str, str, int], notify: Notify) -> ModelSlot:
    number, fingerprint, name, dim = row
    spec = resolve(name)

    def load() -> Engine:
        model = spec if settings.engine in SERVERS else resolve_model(spec, settings.models_dir)
        engine = query_engine(settings, model, notify)
        if fingerprint not in (engine.model.fingerprint("full"), engine.model.fingerprint("int8")):
            engine.close()
            raise LedgerError(
                f"the index was made by another version of {name} ({fingerprint}, {dim} dimensions) than "
                f"{engine.name} has "
                f"now ({engine.fingerprint}); run: python main.py index"
            )
        return engine

    return ModelSlot(number, spec, dim, load)


def query_engine(settings: Settings, model: ModelSpec, notify: Notify) -> Engine:
    """The engine for queries. A query is one text: with a stream for each two cores it would have but some of them (two cores:
    10.1 ms with two streams, 5.7 ms with one)."""
    alone = settings.streams is None and settings.engine not in SERVERS
    return create_engine(replace(settings, streams=1) if alone else settings, model, settings.models_dir, notify)


def coverage_remark(searcher: Searcher) -> str:
    """A line when semantic search cannot find everything yet; "" when it can."""
    if not searcher.ledger.has_pending():
        return ""
    counts = searcher.ledger.counts()
    return (
        f"{counts.embedded:,} of {counts.chunks:,} chunks are embedded so far; the others are found by their words. "
        "To finish: python main.py index"
    )


@dataclass(frozen=True, slots=True)
class Status:
    """What is stored for a vault, and how far it is behind the notes."""

    vault: str
    notes: int
    chunks: int
    embedded: int
    pending: int
    failed: list[tuple[str, str]]
    models: list[str]
    fingerprints: list[str]
    reason: str
    stale_notes: int | None  # changed, new or deleted since; None when the vault cannot be read
    index_bytes: int
    folder: str
    other_indexes: list[tuple[str, int]]  # (name, bytes) of this vault's other indexes
    remarks: list[str]  # how the index differs from what config.py asks for

    @property
    def coverage(self) -> float:
        """Share of chunks that semantic search can find."""
        return self.embedded / self.chunks if self.chunks else 1.0

    def as_dict(self) -> dict[str, Any]:
        """`status --json`."""
        return {
            "vault": self.vault,
            "notes_total": self.notes,
            "chunks_total": self.chunks,
            "chunks_embedded": self.embedded,
            "chunks_pending": self.chunks - self.embedded,
            "notes_failed": [{"path": path, "reason": reason} for path, reason in self.failed],
            "model": " + ".join(self.models),
            "fingerprint": " + ".join(self.fingerprints),
            "reason": self.reason,
            "coverage": round(self.coverage, 4),
            "stale_notes": self.stale_notes,
            "index_bytes": self.index_bytes,
            "folder": self.folder,
            "other_indexes": [{"name": name, "bytes": size} for name, size in self.other_indexes],
            "remarks": self.remarks,
        }


def read_status(settings: Settings, vault: Path) -> Status:
    """What is stored. Raises LedgerError when the vault was never indexed."""
    folder = current_index(settings, vault)
    with Ledger(folder / "ledger.sqlite3", readonly=True) as ledger:
        counts = ledger.counts()
        models = ledger.models()
        return Status(
            vault=ledger.meta("vault"), notes=counts.notes, chunks=counts.chunks, embedded=counts.embedded,
            pending=counts.pending, failed=_failed(ledger), models=[m[2] for m in models],
            fingerprints=[m[1] for m in models], reason=ledger.meta("reason"),
            stale_notes=_stale(settings, vault, ledger), index_bytes=_size(folder), folder=str(folder),
            other_indexes=[
                (path.name, _size(path)) for path in sorted(folder.parent.iterdir()) if path.is_dir() and path != folder
            ],
            remarks=[line for line in (
                difference_line(settings, vault, ledger), excluded_line(settings, vault, ledger.notes())
            ) if line],
        )  # fmt: skip


def _stale(settings: Settings, vault: Path, ledger: Ledger) -> int | None:
    try:
        walked = walk(open_vault(vault), exclusions_of(settings, vault))
    except Exception:
        return None
    stored, unread = ledger.notes(), ledger.unread()
    changes = find_changes(walked.files, walked.unreadable, stored, False, None)
    changed = [file for file in changes.files if unread.get(file.path, ())[1:] != (file.size, file.mtime_ns)]
    return sum(not _same_content(file, stored.get(file.path)) for file in changed) + len(changes.gone)


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


def _size(folder: Path) -> int:
    """Bytes on disk, holes of sparse files not counted. What a run removes meanwhile counts nothing."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                stat = os.stat(os.path.join(parent, name))
                total += getattr(stat, "st_blocks", 0) * 512 or stat.st_size
    return total


def rebuild(settings: Settings, vault: Path, notify: Notify = lambda _: None) -> int:
    """Make Chroma and the keyword index anew from the ledger, without a model. Returns rows written to Chroma.

    A ledger that is damaged or of an unknown schema is put aside, in whichever of the vault's indexes it lies; the
    next index run takes from it every vector that can still be read.
    """
    vault_dir = settings.vault_dir(vault)
    if not any(vault_dir.glob("*/ledger.sqlite3")):
        current_index(settings, vault)  # says that there is none
    with writer_lock(vault_dir):
        aside = 0
        for path in sorted(vault_dir.glob("*/ledger.sqlite3")):
            damage = _damage(path)
            if damage:
                _put_aside(path.parent, damage, notify)
                aside += 1
        if aside:
            notify("now run: python main.py index")
            return 0
        folder = current_index(settings, vault)
        try:
            return _rebuild_index(folder, notify)
        except LedgerDamaged as error:  # what SQLite's quick check did not see
            _put_aside(folder, str(error.__cause__ or error), notify)
            notify("now run: python main.py index")
            return 0


def _rebuild_index(folder: Path, notify: Notify) -> int:
    from vaultvec.store import ChromaStore, discard, due_anew, exists, put_stamp, writing_store

    written = 0
    with Ledger(folder / "ledger.sqlite3") as ledger:
        notify(f"{ledger.rebuild_keywords()} keyword rows written")
        damaged = ledger.drop_damaged_vectors()
        if damaged:
            notify(f"{damaged} vectors were damaged; their texts are embedded again by: python main.py index")
        due_anew(ledger)  # first: a kill after this leaves the work to the next index run
        with writing_store(folder / "chroma"):
            discard(folder / "chroma")
            for number, fingerprint, name, dim in ledger.models():
                store = ChromaStore(folder / "chroma", fingerprint, name, dim)
                try:
                    written += store.sync(ledger, number, store.max_batch)
                finally:
                    store.close()
            if exists(folder / "chroma"):
                put_stamp(ledger, folder / "chroma")
    return written


def _damage(path: Path) -> str:
    """What is wrong with a ledger's content, "" when nothing is. Raises LedgerError when it cannot be opened at all."""
    try:
        with Ledger(path) as ledger:
            return ledger.check()
    except LedgerDamaged as error:
        return str(error.__cause__ or error)
    except LedgerError as error:
        if "schema" in str(error):
            return "its schema is not this program's"
        raise


def _put_aside(folder: Path, damage: str, notify: Notify) -> None:
    """Move a ledger out of the way; `sibling_ledgers` finds it there."""
    from vaultvec.store import discard

    number = next(n for n in count(1) if not (folder / f"ledger-aside-{n}.sqlite3").exists())
    target = folder / f"ledger-aside-{number}.sqlite3"
    try:
        for suffix in ("-wal", "-shm", ""):  # the log first: a ledger without its log is merely older
            part = folder / f"ledger.sqlite3{suffix}"
            if part.exists():
                part.rename(f"{target}{suffix}")
    except OSError as error:
        raise LedgerError(f"{folder} cannot be written ({error.strerror}); mend its permissions") from error
    discard(folder / "chroma")
    notify(f"a ledger could not be used ({damage}); it lies aside as {target}")
