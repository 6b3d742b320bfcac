"""Walk a vault: which files become notes, and which are left out. Reads names and sizes only, never a note."""

from __future__ import annotations

import json
import os
import re
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pathspec

from vaultvec.datatypes import NoteFile
from vaultvec.errors import SettingsError, VaultError

NOTE_SUFFIXES = (".md", ".canvas")
# Tools leave these without a dot; every dot folder (.obsidian, .trash, .git) is out anyway.
NEVER = frozenset({"node_modules"})
MOST_NS = 2**63 - 1  # of SQLite's integers


def open_vault(path: Path, instead: str = "check the path, or name another with --vault") -> Path:
    """The vault's resolved folder. Raises VaultError if it is missing, not a folder, or cannot be listed; its
    text says what to do `instead`."""
    try:
        vault = path.expanduser().resolve(strict=True)
        with os.scandir(vault) as entries:
            next(entries, None)
    except FileNotFoundError:
        raise VaultError(f"vault not found: {path}; {instead}") from None
    except NotADirectoryError:
        raise VaultError(f"vault is not a folder: {path}; {instead}") from None
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a loop of links, or no home folder
        raise VaultError(f"vault cannot be read: {path} ({_reason(error)}); check its permissions") from None
    return vault


@dataclass(frozen=True, slots=True)
class Exclusions:
    """What is left out besides dot files and node_modules: config.py's patterns, and Obsidian's "Excluded files"."""

    spec: pathspec.GitIgnoreSpec | None = None  # config.py, gitignore rules
    prefixes: tuple[str, ...] = ()  # Obsidian, lower case
    regexes: tuple[re.Pattern[str], ...] = ()  # Obsidian, /.../
    warnings: tuple[str, ...] = ()
    listed: tuple[str, ...] | None = None  # Obsidian's list as it stands; None when it cannot be read just now

    def excludes(self, path: str, is_folder: bool) -> bool:
        """Whether a vault-relative path is out. A folder that is out takes all below it along."""
        if path.startswith(".") or "/." in path or not NEVER.isdisjoint(path.split("/")):
            return True
        full = f"{path}/" if is_folder else path
        if self.spec is not None and self.spec.match_file(full):
            return True
        if self.prefixes and full.lower().startswith(self.prefixes):
            return True
        # A regular expression may need the file's name to match, so it never prunes a folder.
        return not is_folder and any(regex.search(path) for regex in self.regexes)


def load_exclusions(vault: Path, patterns: Sequence[str], kept: Sequence[str] | None = None) -> Exclusions:
    """Join `patterns` (gitignore rules) with the vault's own `userIgnoreFilters` in .obsidian/app.json.

    An app.json that cannot be read (half written by a sync tool, say) becomes a line in `.warnings`, and `kept` is used in its
    place; so does a broken expression. Raises SettingsError for a broken pattern of ours.
    """
    spec = None
    if patterns:
        try:
            spec = pathspec.GitIgnoreSpec.from_lines(unicodedata.normalize("NFC", line) for line in patterns)
        except ValueError as error:
            raise SettingsError(f"EXCLUDE holds what is no .gitignore pattern: {error}") from None
    listed, warnings = _obsidian_filters(vault / ".obsidian" / "app.json")
    if listed is None and kept is not None:
        warnings[0] += "; those of the last run are left out"
    filters = listed if listed is not None else kept or []
    prefixes: list[str] = []
    regexes: list[re.Pattern[str]] = []
    for text in filters:
        if len(text) > 2 and text.startswith("/") and text.endswith("/"):
            try:
                # JavaScript writes a named group (?<name>; Python (?P<name>.
                regexes.append(re.compile(re.sub(r"\(\?<(?![=!])", "(?P<", text[1:-1]), re.IGNORECASE))
            except (re.error, OverflowError, RecursionError) as error:
                warnings.append(f"Obsidian's excluded files: {text} is not a regular expression ({error}); ignored")
        elif text:
            prefixes.append(unicodedata.normalize("NFC", text).lower())
    seen = None if listed is None else tuple(listed)
    return Exclusions(spec, tuple(prefixes), tuple(regexes), tuple(warnings), seen)


def _obsidian_filters(path: Path) -> tuple[list[str] | None, list[str]]:
    """(filters, warnings) of app.json; no file is no filter, None one that cannot be read."""
    try:
        settings = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return [], []
    except (OSError, ValueError, RecursionError) as error:
        return None, [f".obsidian/app.json cannot be read ({_reason(error)}); Obsidian's excluded files are not known"]
    filters = settings.get("userIgnoreFilters") if isinstance(settings, dict) else None
    if filters is None:
        return [], []
    if not isinstance(filters, list) or not all(isinstance(item, str) for item in filters):
        return [], [".obsidian/app.json: userIgnoreFilters is not a list of strings; ignored"]
    return filters, []


@dataclass(frozen=True, slots=True)
class WalkResult:
    """What a walk found. Notes below an `unreadable` folder are not known to be gone."""

    files: list[NoteFile]  # newest first, then by path
    unreadable: list[tuple[str, str]]  # (path, reason)
    warnings: list[tuple[str, str]]  # (path, reason): left out on purpose, but the user may wonder


def walk(vault: Path, exclusions: Exclusions) -> WalkResult:
    """List the notes of a vault (as `open_vault` returns it).

    Symbolic links are not followed: inside the vault they would count a note twice or loop, outside is not the vault.
    Raises VaultError when the vault itself vanishes, so that an unmounted vault never looks like an empty one.
    """
    identity = _identity(vault)
    unreadable: list[tuple[str, str]] = []
    warnings: list[tuple[str, str]] = []
    found: list[NoteFile] = []
    folders = [(str(vault), "")]
    while folders:
        folder, relative = folders.pop()
        try:
            for entry in _entries(folder):
                path = relative + entry.name
                nfc = path if path.isascii() else unicodedata.normalize("NFC", path)
                if entry.is_symlink():
                    _report_link(entry, vault, nfc, exclusions, warnings)
                elif entry.is_dir(follow_symlinks=False):
                    if not exclusions.excludes(nfc, True):
                        folders.append((entry.path, f"{path}/"))
                elif _is_note(entry) and not exclusions.excludes(nfc, False):
                    _add_file(path, entry, found, unreadable)
        except FileNotFoundError:
            continue  # deleted since its parent was listed; the root is checked below
        except OSError as error:
            unreadable.append((_named(relative.rstrip("/")) or ".", _reason(error)))
    if _identity(vault) != identity:
        raise VaultError(f"vault vanished while it was read: {vault}; mount it again and rerun")
    files = _name_files(found)
    files.sort(key=lambda file: (-file.mtime_ns, file.path))
    return WalkResult(files, sorted(unreadable), sorted(warnings))


def spread(files: Sequence[NoteFile], most: int) -> list[NoteFile]:
    """At most so many of the files, evenly over all of them."""
    n = min(most, len(files))
    return [files[i * len(files) // n] for i in range(n)]


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    """Entries of a folder whose name does not begin with a dot."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith("."):
                yield entry


def _is_note(entry: os.DirEntry[str]) -> bool:
    """A regular file with a note's suffix; pipes, sockets and devices are not."""
    return entry.name.lower().endswith(NOTE_SUFFIXES) and entry.is_file(follow_symlinks=False)


def _add_file(
    path: str,
    entry: os.DirEntry[str],
    found: list[NoteFile],
    unreadable: list[tuple[str, str]],
) -> None:
    """Stat one note into `found`, under the path as the file system spells it, or say why not."""
    if _printable(path) != path:
        unreadable.append((_printable(path), "the file name is not valid UTF-8; rename it"))
        return
    try:
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return  # deleted since it was listed
    except OSError as error:
        unreadable.append((_named(path), _reason(error)))
    else:
        times = (storable(status.st_mtime_ns), storable(status.st_ctime_ns))
        found.append(NoteFile(path, entry.path, status.st_size, *times))


def _report_link(
    entry: os.DirEntry[str], vault: Path, path: str, exclusions: Exclusions, warnings: list[tuple[str, str]]
) -> None:
    """A link out of the vault to a folder or note is worth a word; one within it is not."""
    try:
        is_folder = entry.is_dir()
        target = os.path.realpath(entry.path)
    except OSError:
        return
    if not is_folder and not entry.name.lower().endswith(NOTE_SUFFIXES):
        return
    if exclusions.excludes(path, is_folder) or Path(target).is_relative_to(vault):
        return
    warnings.append((_printable(path), "a symbolic link that leaves the vault; not followed"))


def _name_files(found: list[NoteFile]) -> list[NoteFile]:
    """The files under NFC paths. Of two names that differ only in normalisation, the other one keeps its own form."""
    taken = {file.path for file in found if unicodedata.is_normalized("NFC", file.path)}
    files = []
    for file in sorted(found, key=lambda file: file.path):
        nfc = unicodedata.normalize("NFC", file.path)
        if nfc != file.path and nfc not in taken:
            taken.add(nfc)
            file = replace(file, path=nfc)
        files.append(file)
    return files


def storable(nanoseconds: int) -> int:
    """A time as SQLite can keep it, up to the year 2262: a broken clock or archive writes later ones."""
    return max(-MOST_NS, min(MOST_NS, nanoseconds))


def _identity(vault: Path) -> tuple[int, int]:
    """(device, inode) of the vault: it changes when another file system appears in its place."""
    try:
        status = os.stat(vault)
    except OSError as error:
        raise VaultError(f"vault vanished: {vault} ({_reason(error)}); mount it again and rerun") from None
    if not stat.S_ISDIR(status.st_mode):
        raise VaultError(f"vault is no longer a folder: {vault}")
    return status.st_dev, status.st_ino


def _named(path: str) -> str:
    """A path as notes are named: NFC, and with nothing in it that cannot be encoded."""
    return unicodedata.normalize("NFC", _printable(path))


def _printable(path: str) -> str:
    """A path that can be encoded: bytes that are not UTF-8 show as U+FFFD."""
    return path.encode("utf-8", "replace").decode("utf-8") if not path.isascii() else path


def _reason(error: BaseException) -> str:
    """One short line."""
    return (error.strerror if isinstance(error, OSError) and error.strerror else str(error)).splitlines()[0].lower()
