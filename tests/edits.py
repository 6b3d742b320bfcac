"""What people and sync tools do to a vault between two runs, each edit chosen by three numbers."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

from made_vault import made_text

Edit = tuple[str, int, int]  # name, which note, which other note or seed


class VaultEdits:
    """A vault and what was deleted from it."""

    def __init__(self, vault: Path) -> None:
        self.vault = vault
        self._trash: list[tuple[Path, bytes]] = []
        self._made = 0

    def apply(self, edit: Edit) -> None:
        """One edit; it does nothing when the vault has no note that it could be done to."""
        name, which, other = edit
        notes = sorted(self.vault.rglob("*.md"))
        if name in ("create", "restore"):
            _WITHOUT_NOTE[name](self, other)
        elif notes:
            _WITH_NOTE[name](self, notes[which % len(notes)], notes[other % len(notes)], other)

    def create(self, seed: int) -> None:
        """A new note, in a folder that may be new."""
        self._made += 1
        folder = self.vault / ("", "Ideas", "Ideas/Later")[seed % 3]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"Made {self._made}.md").write_text(made_text(random.Random(seed), 1 + seed % 3), encoding="utf-8")

    def restore(self, seed: int) -> None:
        """A deleted note comes back, as it was."""
        if self._trash:
            path, data = self._trash.pop(seed % len(self._trash))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def edit(self, note: Path, _: Path, seed: int) -> None:
        """Another text."""
        note.write_text(made_text(random.Random(seed)), encoding="utf-8")

    def append(self, note: Path, _: Path, seed: int) -> None:
        """A section more."""
        note.write_bytes(note.read_bytes() + ("\n" + made_text(random.Random(seed), 1)).encode())

    def shrink(self, note: Path, _: Path, seed: int) -> None:
        """Only the beginning stays, or nothing."""
        text = note.read_text(encoding="utf-8")
        note.write_text(text[: len(text) // (1 + seed % 4)] if seed % 5 else "", encoding="utf-8")

    def swap(self, note: Path, other: Path, _: int) -> None:
        """Two notes exchange their texts."""
        first, second = note.read_bytes(), other.read_bytes()
        note.write_bytes(second)
        other.write_bytes(first)

    def exchange(self, note: Path, other: Path, _: int) -> None:
        """Two notes exchange their names: sizes, mtimes and texts travel along."""
        if note != other:
            aside = self.vault / "aside.tmp"
            note.rename(aside)
            other.rename(note)
            aside.rename(other)

    def copy(self, note: Path, _: Path, seed: int) -> None:
        """A second note with the same text."""
        note.with_name(f"{note.stem[:20]} copy {seed % 4}.md").write_bytes(note.read_bytes())

    def rename(self, note: Path, _: Path, seed: int) -> None:
        """Another name in the same folder."""
        target = note.with_name(f"Renamed {seed % 50}.md")
        if not target.exists():
            note.rename(target)

    def move(self, note: Path, _: Path, seed: int) -> None:
        """The same name in another folder."""
        target = self.vault / ("Archive", "Archive/Old")[seed % 2] / note.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            note.rename(target)

    def recase(self, note: Path, _: Path, __: int) -> None:
        """A rename that changes nothing but the case."""
        note.rename(note.with_name(note.stem.swapcase() + ".md"))

    def delete(self, note: Path, _: Path, __: int) -> None:
        """The note goes; it may be restored."""
        self._trash.append((note, note.read_bytes()))
        note.unlink()

    def touch(self, note: Path, _: Path, __: int) -> None:
        """A new mtime on the same content."""
        os.utime(note)

    def rewrite(self, note: Path, _: Path, __: int) -> None:
        """The same bytes, written anew by way of a temporary file, as sync tools do."""
        part = note.with_suffix(".part")
        part.write_bytes(note.read_bytes())
        part.replace(note)

    def backdate(self, note: Path, _: Path, seed: int) -> None:
        """Another text of the same size, under the mtime of the text before."""
        status = note.stat()
        data = bytearray(note.read_bytes())
        positions = [i for i, byte in enumerate(data) if 97 <= byte <= 122]
        if positions:
            place = positions[seed % len(positions)]
            data[place] = 97 + (data[place] - 97 + 1 + seed % 25) % 26
        note.write_bytes(data)
        os.utime(note, ns=(status.st_atime_ns, status.st_mtime_ns))

    def garble(self, note: Path, _: Path, __: int) -> None:
        """A binary file under a note's name."""
        note.write_bytes(b"\x00\x01\x02 no text")


_WITHOUT_NOTE: dict[str, Callable[[VaultEdits, int], None]] = {
    "create": VaultEdits.create,
    "restore": VaultEdits.restore,
}
_WITH_NOTE: dict[str, Callable[[VaultEdits, Path, Path, int], None]] = {
    method.__name__: method
    for method in (
        VaultEdits.edit, VaultEdits.append, VaultEdits.shrink, VaultEdits.swap, VaultEdits.exchange, VaultEdits.copy,
        VaultEdits.rename, VaultEdits.move, VaultEdits.recase, VaultEdits.delete, VaultEdits.touch,
        VaultEdits.rewrite, VaultEdits.backdate, VaultEdits.garble,
    )
}  # fmt: skip
EDITS = (*_WITHOUT_NOTE, *_WITH_NOTE)
