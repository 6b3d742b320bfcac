"""What differs between the vault on disk and what the ledger knows of it, and when that is too much to believe."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from vaultvec.advice import quoted
from vaultvec.datatypes import NoteFile
from vaultvec.errors import VaultError
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


def forbid_mass_deletion(stored: int, gone: Collection[str], arrived: int, vault: Path) -> None:
    """An unmounted or half-synced vault must not look like one whose notes were deleted. Raises VaultError.

    Notes that only moved leave as many that `arrived`; those that are excluded now still lie there.
    """

    def suspicious(missing: int) -> bool:
        return missing >= 20 and missing * 2 > stored

    if suspicious(len(gone) - arrived):
        missing = sum(not os.path.lexists(vault / path) for path in gone) - arrived
        if suspicious(missing):
            raise VaultError(
                f"{missing} of {stored} indexed notes are gone from {vault}; nothing was changed. Is the drive mounted, "
                "the sync done? If you did delete them, run: "
                f"python main.py index --vault {quoted(str(vault))} --accept-deletions"
            )
