"""config.py as text: read, never run. Every value is a literal, checked against config_keys.KEYS."""

from __future__ import annotations

import ast
import difflib
import io
import tokenize
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaultvec.config_keys import KEYS, WINDOWS_HINT, check_value, shorten
from vaultvec.errors import SettingsError

_RESTORE_HINT = (
    "mend the line, or delete it and its default holds; where a backup is kept: python config_optimizer.py 3"
)
_UNREADABLE_HINT = (
    "an empty config.py will do, every setting has a default; where a backup is kept: python config_optimizer.py 3"
)


@dataclass(frozen=True, slots=True)
class ConfigText:
    """config.py as it lies on disk."""

    path: Path
    data: bytes
    text: str  # byte order mark removed, line ends kept
    encoding: str

    def encode(self, text: str) -> bytes:
        """`text` in the file's own encoding, byte order mark included. Raises SettingsError when it cannot be."""
        try:
            return text.encode(self.encoding)
        except UnicodeEncodeError as error:
            raise SettingsError(
                f"{self.path.name} is {self.encoding}, which has no {error.object[error.start]!r}; save it as UTF-8"
            ) from error


@dataclass(frozen=True, slots=True)
class Assignment:
    """One `KEY = value` of config.py. `node` spans the value's text."""

    value: Any
    line: int
    node: ast.expr


def read_text(path: Path) -> ConfigText:
    """The file's bytes and text: byte order mark or coding line, else UTF-8. Raises SettingsError when it is missing or is
    not text."""
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = error.strerror or error
        raise SettingsError(f"{path} cannot be read ({reason}); {_UNREADABLE_HINT}") from error
    try:
        # From Python 3.14 on it refuses a zero byte, which read_values tells better.
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data.replace(b"\0", b" ")).readline)
        return ConfigText(path, data, data.decode(encoding), encoding)
    except (SyntaxError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path.name} is not UTF-8 text ({error}); save it as UTF-8, or {_RESTORE_HINT}") from error


def read_values(text: str, name: str = "config.py") -> dict[str, Any]:
    """Every key's value, defaults for missing keys. Raises SettingsError with the line of a mistake."""
    rows = read_rows(text, name)
    return {key: rows[key].value if key in rows else KEYS[key].default for key in KEYS}


def read_rows(text: str, name: str = "config.py") -> dict[str, Assignment]:
    """The keys that are set, their values checked.

    Raises SettingsError with the line for anything that is not `KEY = value`, an unknown key, and a value that its key
    does not accept.
    """
    rows = _parse(text, name)
    _check(rows, name)
    return rows


def _parse(text: str, name: str) -> dict[str, Assignment]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an odd escape in a path is told by its own check
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None) or 1
        if "\0" in text:  # Python says that there is one, and not where
            line = text.count("\n", 0, text.index("\0")) + 1
        reason = getattr(error, "msg", None) or str(error)
        hint = f"{WINDOWS_HINT}; " if "unicodeescape" in reason else ""
        raise SettingsError(f"{name} line {line}: {reason}; {hint}{_RESTORE_HINT}") from error
    rows: dict[str, Assignment] = {}
    for statement in tree.body:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            continue  # the docstring
        key, node = _target(statement, name)
        if key in rows:
            raise SettingsError(
                f"{name} line {statement.lineno}: {key} is set again (first on line {rows[key].line}); keep one"
            )
        rows[key] = Assignment(_literal(node, key, name), statement.lineno, node)
    return rows


def _target(statement: ast.stmt, name: str) -> tuple[str, ast.expr]:
    targets: list[ast.expr] = []
    value: ast.expr | None = None
    if isinstance(statement, ast.Assign):
        targets, value = statement.targets, statement.value
    elif isinstance(statement, ast.AnnAssign):
        targets, value = [statement.target], statement.value
    if len(targets) == 1 and isinstance(targets[0], ast.Name) and value is not None:
        return targets[0].id, value
    first = ast.unparse(statement).splitlines()[0]
    raise SettingsError(
        f'{name} line {statement.lineno}: found "{shorten(first)}", expected KEY = value; the file is read, never run'
    )


def _literal(node: ast.expr, key: str, name: str) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError) as error:
        expected = "a plain value; the file is read, never run"
        if isinstance(node, ast.Name) and key in KEYS and node.id.lower() in ("true", "false", "none"):
            expected = KEYS[key].check.expected
        raise SettingsError(
            f"{name} line {node.lineno}: {key} is {shorten(ast.unparse(node))}, expected {expected}"
        ) from error


def _check(rows: Mapping[str, Assignment], name: str) -> None:
    for key, row in rows.items():
        if key not in KEYS:
            near = difflib.get_close_matches(key.upper(), KEYS, n=1)
            hint = f"did you mean {near[0]}?" if near else "remove the line"
            raise SettingsError(f"{name} line {row.line}: {key} is no key of this program; {hint}")
        check_value(key, row.value, f"{name} line {row.line}: ")
    least, most = rows.get("MIN_CHUNK_TOKENS"), rows.get("CHUNK_TOKENS")
    low = least.value if least else KEYS["MIN_CHUNK_TOKENS"].default
    high = most.value if most else KEYS["CHUNK_TOKENS"].default
    if low > high:
        line = (least or most or next(iter(rows.values()))).line
        raise SettingsError(f"{name} line {line}: MIN_CHUNK_TOKENS is {low}, expected at most CHUNK_TOKENS ({high})")
