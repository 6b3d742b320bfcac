"""The one table of config.py's keys: default, what a key accepts, and the guide's value before and after.

Each key is a line of config.py and a field of `Settings` (settings.py) as well; tests hold the three together.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from vaultvec.errors import SettingsError

AUTO = "auto"
MIXED = "mixed"  # EMBEDDING_MODEL: what "auto" takes for notes in English and in other languages, whatever they are in
WORDS = (AUTO, MIXED)  # of EMBEDDING_MODEL, those that name no model
SERVERS = ("ollama", "openai")  # of the engines, those that ask a server
WINDOWS_HINT = 'write a Windows path with "/", as in "C:/Notes"'


@dataclass(frozen=True, slots=True)
class Check:
    """What a key accepts. `expected` ends the sentence "…, expected"; `convert` makes the value a Settings field."""

    expected: str
    accepts: Callable[[Any], bool]
    convert: Callable[[Any], Any] = lambda value: value


def _whole(low: int, high: int, *, auto: bool = False) -> Check:
    def accepts(value: Any) -> bool:
        return (auto and value == AUTO) or (type(value) is int and low <= value <= high)

    return Check(
        f"{low} to {high}" + (f' or "{AUTO}"' if auto else ""), accepts, lambda v: None if v == AUTO else v
    )  # fmt: skip


def _number(low: float, high: float) -> Check:
    return Check(f"{low} to {high}", lambda v: type(v) in (int, float) and low <= v <= high, float)


def _one_of(*choices: str) -> Check:
    return Check("one of " + ", ".join(f'"{c}"' for c in choices), lambda v: type(v) is str and v in choices)


def _is_folder(value: Any) -> bool:
    return type(value) is str and not any(unicodedata.category(c) == "Cc" for c in value)


def _is_model(value: Any) -> bool:
    """A word such as "Auto" would be looked for on the model hub."""
    return _is_folder(value) and value.strip() != "" and (value in WORDS or value.strip().lower() not in WORDS)


def _is_url(value: Any) -> bool:
    if type(value) is not str or not value.startswith(("http://", "https://")):
        return False
    try:
        parts = urlsplit(value)
        return bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # a port beyond 65535, a bracket left open
        return False


def _are_patterns(value: Any) -> bool:
    import pathspec

    if type(value) not in (list, tuple) or not all(type(item) is str for item in value):
        return False
    try:
        pathspec.GitIgnoreSpec.from_lines(value)
    except (ValueError, re.error):  # such as the range [z-a]
        return False
    return True


FLAG = Check("True or False", lambda v: type(v) is bool)
FOLDER = Check(f'a folder between quotes ("" = none; {WINDOWS_HINT})', _is_folder)
MODEL = Check('"auto", "mixed", a model name or a folder, between quotes', _is_model)
URL = Check("an address that begins with http:// or https://", _is_url)
PATTERNS = Check(
    'a list of .gitignore patterns, such as ["Templates/"]',
    _are_patterns,
    tuple,
)


@dataclass(frozen=True, slots=True)
class Key:
    """One key of config.py. `before` and `after` are the guide's values, None where it names none."""

    name: str
    default: Any
    check: Check
    before: Any = None
    after: Any = None


_ROWS = (
    Key("VAULT_PATH", "", FOLDER),
    Key("DATA_DIR", "", FOLDER),
    Key("EXCLUDE", [], PATTERNS),
    Key("EMBEDDING_MODEL", AUTO, MODEL),
    Key("ENGINE", AUTO, _one_of(AUTO, "openvino", "torch", *SERVERS)),
    Key("PRECISION", AUTO, _one_of(AUTO, "fp32", "bf16", "fp16", "int8")),
    Key("OLLAMA_URL", "http://127.0.0.1:11434", URL),
    Key("OPENAI_URL", "http://127.0.0.1:8080/v1", URL),
    Key("EMBEDDING_BATCH_SIZE", 32, _whole(1, 100_000), before=32, after=2000),
    Key("BATCH_SIZE", 64, _whole(1, 100_000), before=64, after=2000),
    Key("MAX_TOKENS_PER_BATCH", AUTO, _whole(256, 1_048_576, auto=True)),
    Key("STREAMS", AUTO, _whole(1, 64, auto=True)),
    Key("THREADS", AUTO, _whole(1, 1024, auto=True)),
    Key("WORKERS", AUTO, _whole(0, 64, auto=True)),
    Key("GPU_MEMORY_FRACTION", 0.7, _number(0.1, 1.0), before=0.7, after=0.95),
    Key("MEMORY_CHECK_INTERVAL", 2, _number(0.1, 3600), before=2, after=30),
    Key("DISABLE_COMPLEX_GPU_OPTIMIZATION", False, FLAG, after=True),
    Key("FAST_MODE", False, FLAG, after=True),
    Key("TORCH_COMPILE", False, FLAG),
    Key("CHUNK_TOKENS", 200, _whole(32, 8192)),
    Key("MIN_CHUNK_TOKENS", 64, _whole(0, 4096)),
    Key("SEARCH_BACKEND", AUTO, _one_of(AUTO, "exact", "chroma")),
)
KEYS: dict[str, Key] = {row.name: row for row in _ROWS}
GUIDE_VALUES: dict[str, Any] = {row.name: row.after for row in _ROWS if row.after is not None}


def check_value(key: str, value: Any, where: str = "") -> None:
    """Raise SettingsError unless `key` accepts `value`; `where` begins the message."""
    check = KEYS[key].check
    if check.accepts(value):
        return
    whole = ", a whole number" if type(value) is float and type(KEYS[key].default) is int else ""
    raise SettingsError(f"{where}{key} is {show_value(value)}, expected {check.expected}{whole}")


def show_value(value: Any) -> str:
    """A value as people write it in config.py, cut at 60 characters."""
    return shorten(json.dumps(value, ensure_ascii=False) if type(value) is str else repr(value))


def shorten(text: str) -> str:
    """At most 60 characters of a text, the last one an ellipsis where there were more."""
    return text if len(text) <= 60 else text[:59] + "…"
