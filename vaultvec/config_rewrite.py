"""Rewriting config.py: values are spliced into the text, so that all else stays as it was; every state is kept.

Backups lie beside the file. `config_backup.py` is the original: what config.py was when it was first changed, byte for
byte. It is made once and stays until the user deletes it. Whatever config.py was before each later change or restore is
kept as `config_backup_YYYYMMDD_HHMMSS.py`, unless the same bytes are kept already.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from vaultvec.config_file import ConfigText, read_rows, read_text, read_values
from vaultvec.config_keys import KEYS, check_value, show_value
from vaultvec.errors import SettingsError


def plan_changes(text: str, changes: Mapping[str, Any], name: str = "config.py") -> str:
    """The text with these values in place. Comments, order, spacing, annotations and line ends stay; a missing key is
    appended. Equal text when nothing changes.

    Raises SettingsError for a file that does not parse, an unknown key, or a value that the key does not accept.
    """
    rows = read_rows(text, name)
    present = read_values(text, name)
    for key, value in changes.items():
        if key not in KEYS:
            raise SettingsError(f"{key} is no key of {name}, so it cannot be changed")
        check_value(key, value)
    wanted = {key: value for key, value in changes.items() if present[key] != value}
    spans = sorted(((_span(text, rows[key].node), wanted[key]) for key in wanted if key in rows), reverse=True)
    planned = text
    for (start, end), value in spans:
        planned = planned[:start] + _source(value) + planned[end:]
    planned = _append(planned, {key: value for key, value in wanted.items() if key not in rows})
    if read_values(planned, name) != present | wanted:
        raise SettingsError(f"{name} would not read back as planned; nothing was changed; simplify its unusual lines")
    return planned


def _source(value: Any) -> str:
    """A value as Python source, strings in double quotes as in config.py."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_source(item) for item in value) + "]"
    return repr(value)


def _span(text: str, node: ast.expr) -> tuple[int, int]:
    """Character positions of a node. ast counts lines at CR, LF and CRLF, and columns in UTF-8 bytes."""
    starts = [0, *(match.end() for match in re.finditer(r"\r\n|\r|\n", text))]

    def position(line: int, column: int) -> int:
        start = starts[line - 1]
        ahead = text[start : start + column].encode()[:column]  # never more characters than bytes
        return start + len(ahead.decode())

    end_line, end_column = node.end_lineno or node.lineno, node.end_col_offset or node.col_offset
    return position(node.lineno, node.col_offset), position(end_line, end_column)


def _append(text: str, missing: Mapping[str, Any]) -> str:
    """`text` with the missing keys at its end, each under a comment, in the file's own line ends."""
    if not missing:
        return text
    newline = "\r\n" if text.count("\r\n") * 2 > text.count("\n") else "\n"
    lines = [] if not text or text.endswith(("\n", "\r")) else [""]
    for key, value in missing.items():
        lines += [f"# Added by config_optimizer.py. Expected: {KEYS[key].check.expected}.", f"{key} = {_source(value)}"]
    return text + newline.join(lines) + newline


def diff(old: str, new: str, name: str = "config.py") -> str:
    """Unified diff with one line of context, "" for equal texts."""
    return "\n".join(
        difflib.unified_diff(old.splitlines(), new.splitlines(), f"{name} (now)", f"{name} (new)", n=1, lineterm="")
    )


def changed_lines(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One line for each key that differs, as `KEY  32 → 2000`."""
    return [f"{k}  {show_value(old[k])} → {show_value(new[k])}" for k in KEYS if old[k] != new[k]]


def write_config(path: Path, data: bytes) -> bool:
    """Replace the file in one step, its permissions kept; a link keeps pointing. False when it holds `data` already.

    Raises SettingsError when the folder cannot be written; the file is then as it was.
    """
    target = path.resolve()
    if _content(target) == data:
        return False
    temporary = ""
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{target.stem}-", suffix=".tmp", dir=target.parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, temporary)
        else:
            os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except OSError as error:
        reason = error.strerror or error
        raise SettingsError(f"{target} cannot be written ({reason}); nothing was changed") from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
    return True


def check_writable(path: Path) -> None:
    """Raise SettingsError where the user has write-protected the file: it could be replaced, but that is not wanted."""
    target = path.resolve()
    try:
        protected = not target.stat().st_mode & stat.S_IWUSR
    except OSError:
        return  # a missing file may be written
    if protected:
        how = f'attrib -r "{target}"' if os.name == "nt" else f"chmod u+w '{target}'"
        raise SettingsError(f"{path.name} is write-protected; nothing was written; run first: {how}")


def save(before: ConfigText, new_text: str) -> Path | None:
    """Back up `before`, then write `new_text`. The backup that holds the old state, or None when nothing changes.

    Raises SettingsError when config.py is write-protected, or no longer what `before` was read from.
    """
    data = before.encode(new_text)
    if data == before.data:
        return None
    check_writable(before.path)
    if read_text(before.path).data != before.data:
        raise SettingsError(f"{before.path.name} was edited meanwhile; nothing was written; run the command again")
    kept = keep(before.path, before.data)
    write_config(before.path, data)
    return kept


@dataclass(frozen=True, slots=True)
class Backup:
    """One kept state of config.py."""

    path: Path
    made: datetime
    original: bool


def _original_path(path: Path) -> Path:
    return path.with_name(f"{path.stem}_backup{path.suffix}")


def list_backups(path: Path) -> list[Backup]:
    """The original first, then the others, newest first."""
    pattern = re.compile(re.escape(f"{path.stem}_backup") + r"(_\d{8}_\d{6}(_\d+)?)?" + re.escape(path.suffix))
    folder = path.absolute().parent
    files = (
        [row for row in folder.iterdir() if pattern.fullmatch(row.name) and row.is_file()] if folder.is_dir() else []
    )
    original = _original_path(path).name
    rows = [Backup(row, datetime.fromtimestamp(row.stat().st_mtime), row.name == original) for row in files]
    return sorted(rows, key=lambda row: (not row.original, -row.made.timestamp(), row.path.name))


def keep(path: Path, data: bytes) -> Path:
    """The backup that holds `data`: one that is there already, else the original, else a dated one."""
    for backup in list_backups(path):
        if _content(backup.path) == data:
            return backup.path
    place = _original_path(path)
    stamp = datetime.now().strftime("%Y%m%d_%H%M%S")
    count = 0
    while place.exists():
        count += 1
        tail = stamp if count == 1 else f"{stamp}_{count}"
        place = path.with_name(f"{path.stem}_backup_{tail}{path.suffix}")
    write_config(place, data)
    return place


def _content(path: Path) -> bytes | None:
    """A file's bytes; None where there is none, or it cannot be read."""
    try:
        return path.read_bytes()
    except OSError:
        return None


@dataclass(frozen=True, slots=True)
class Restored:
    """What was written back, and where the state before it is kept; None: there was none that could be read."""

    backup: Backup
    kept: Path | None


def restore(path: Path, backup: Path | None = None) -> Restored | None:
    """Write a backup back, byte for byte; what was there is kept first. Unnamed: the original, else the newest.

    Works on a broken or missing config.py. None when it is that state already. Raises SettingsError without backups,
    and for a write-protected config.py.
    """
    chosen = next((row for row in list_backups(path) if backup in (None, row.path)), None)
    if chosen is None:
        found = f"no {_original_path(path).name}" if backup is None else f"no backup {backup.name}"
        raise SettingsError(f"nothing to restore: there is {found} beside {path.name}; choice 2 makes one")
    data = _content(chosen.path)
    if data is None:
        raise SettingsError(f"{chosen.path} cannot be read; mend its permissions, or choose another backup")
    present = _content(path)  # one that cannot be read cannot be kept either
    if present == data:
        return None
    check_writable(path)
    kept = None if present is None else keep(path, present)
    write_config(path, data)
    return Restored(chosen, kept)
