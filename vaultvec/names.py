"""Notes by what people call them: path, file name, title, alias; and the nearest names to one that does not exist."""

from __future__ import annotations

import difflib
import os
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from vaultvec.errors import QueryError
from vaultvec.lookup import NoteRow

MOST_COMPARED = 20_000  # names; difflib looks at about 50,000 a second


def find_note(notes: Collection[NoteRow], name: str) -> NoteRow:
    """A note by path, file name, title or alias, case ignored. Raises QueryError naming the nearest ones."""
    wanted = folded(name).replace("\\", "/").removeprefix("./")
    if not wanted:
        raise QueryError("the note's name is empty; give its path, title or alias")
    exact = unicodedata.normalize("NFC", name).strip().replace("\\", "/").removeprefix("./")
    for note in notes:
        if note.path == exact:  # of two that differ in case only, this one
            return note
    for names in (note_paths, note_titles):
        found = [note for note in notes if wanted in names(note)]
        if len(found) == 1:
            return found[0]
        if found:
            paths = ", ".join(note.path for note in found[:5])
            raise QueryError(f"{name!r} names {len(found)} notes; give the path: {paths}")
    known = {
        known: note.path
        for note in notes
        for known in (note.path, PurePosixPath(note.path).stem, note.title, *note.aliases)
    }
    raise QueryError(f"there is no note {name!r} in the index{nearest_names(name, known)}")


def named_note(vault: Path, name: str) -> str:
    """What a person means by a name: of a file that lies in the vault its path there, of a [[link]] its target; else the
    name itself."""
    text = name.strip()
    if text.startswith("[[") and text.endswith("]]"):
        return text[2:-2].partition("|")[0].partition("#")[0]
    try:
        file = Path(text).expanduser()
        return file.resolve().relative_to(vault.resolve()).as_posix() if file.is_file() else name
    except (OSError, ValueError, RuntimeError):  # not below the vault; too long for a path; no such home
        return name


def named_folder(vault: Path, name: str) -> str:
    """A folder of the vault by its path there, or in the file system as a shell completes it; else the name itself."""
    try:
        folder = Path(name).expanduser()
        if folder.is_dir() and (folder.is_absolute() or not (vault / name).is_dir()):
            return folder.resolve().relative_to(vault.resolve()).as_posix()
    except (OSError, ValueError, RuntimeError):  # as above
        pass
    return name


def note_paths(note: NoteRow) -> set[str]:
    """The path with and without its ending, case folded."""
    path = note.path.casefold()
    return {path, path.removesuffix(".md")}


def note_titles(note: NoteRow) -> set[str]:
    """Title, file name and aliases, case folded."""
    path = PurePosixPath(note.path)
    return {folded(name) for name in (note.title, path.stem, path.name, *note.aliases)}


def folded(name: str) -> str:
    """A name as it is compared: NFC, no space around it, case folded."""
    return unicodedata.normalize("NFC", name).strip().casefold()


def nearest_names(name: str, known: Mapping[str, str] | Iterable[str]) -> str:
    """ "; nearest: a, b, c", or "" when nothing is near. Names that hold the wanted one come before similar ones; of several
    that a mapping says are of one note, the nearest."""
    wanted = folded(name).strip("/")
    owners = known if isinstance(known, Mapping) else {}
    by_fold = {folded(text): text for text in known}
    holding = sorted((fold for fold in by_fold if wanted and wanted in fold), key=len)
    similar = difflib.get_close_matches(wanted, list(by_fold)[:MOST_COMPARED], n=3, cutoff=0.5)
    near: dict[str, str] = {}
    for text in (by_fold[fold] for fold in [*holding, *similar]):
        near.setdefault(owners.get(text, text), text)
    return f"; nearest: {', '.join(list(near.values())[:3])}" if near else ""


def vault_root(folder: Path) -> tuple[Path, str]:
    """(what Obsidian knows as the vault, path of `folder` below it, "" or ending in "/"): an indexed folder may be part of it."""
    for parent in (folder, *folder.parents):
        if os.path.isdir(parent / ".obsidian"):  # Path.is_dir raises where a folder above may not be entered
            below = folder.relative_to(parent).as_posix()
            return parent, "" if below == "." else f"{below}/"
    return folder, ""


def obsidian_uri(vault: Path, path: str) -> str:
    """The link that opens a note in Obsidian (help.obsidian.md, "Obsidian URI").

    `#`, `^` and `|` in a file name would be taken for a heading, a block and an alias: such notes go by their absolute path.
    """
    if any(sign in path for sign in "#^|"):
        return f"obsidian://open?path={quote(str(vault / path), safe='')}"
    stem = path.removesuffix(".md")
    # Without ".md" Obsidian would look for "v1.2" as a file ".2".
    shown = path if "." in PurePosixPath(stem).name and path != stem else stem
    return f"obsidian://open?vault={quote(vault.name, safe='')}&file={quote(shown, safe='')}"
