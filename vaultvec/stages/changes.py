"""What differs between the vault on disk and what the ledger knows of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vaultvec.datatypes import NoteFile
from vaultvec.ledger import StoredNote


@dataclass(frozen=True, slots=True)
class Changes:
    """What differs between the vault and the ledger."""

    files: tuple[NoteFile, ...]  # to read, newest first
    gone: tuple[str, ...]
    arrived: int  # notes that the ledger does not know
    total: int
    unchanged: int
    unreadable: tuple[tuple[str, str], ...]

    @property
    def complete(self) -> bool:
        """Whether every change is among the files to read, not only the newest ones."""
        return len(self.files) + self.unchanged == self.total


def find_changes(
    files: Sequence[NoteFile],
    unreadable: Sequence[tuple[str, str]],
    stored: dict[str, StoredNote],
    full: bool,
    limit: int | None,
) -> Changes:
    """Which files to read and which notes are gone. Notes below a folder that could not be read are not gone."""
    present = {file.path for file in files}
    hidden = tuple("" if path == "." else f"{path}/" for path, _ in unreadable)
    missing = [path for path in stored if path not in present]
    named = dict(unreadable)
    gone = tuple(path for path in missing if not path.startswith(hidden) and path not in named)
    changed = [file for file in files if full or file.path not in stored or not stored[file.path].unchanged(file)]
    picked = changed if limit is None else changed[:limit]
    unchanged = len(files) - len(changed)
    arrived = sum(file.path not in stored for file in files)
    return Changes(tuple(picked), gone, arrived, len(files), unchanged, tuple(unreadable))
