"""config.py → Settings. The file is read as text and never run; the environment is read here and nowhere else.

What a key is, stands in config_keys.KEYS.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import io
import os
import tokenize
import unicodedata
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from platformdirs import user_data_dir

from vaultvec.config_keys import AUTO, KEYS, WINDOWS_HINT, check_value, shorten
from vaultvec.errors import SettingsError
from vaultvec.models import resolve

SERVER_ENGINES = ("ollama", "openai")
NO_VAULT = 'no vault is set; add --vault DIR, set VAULTVEC_VAULT, or write VAULT_PATH = "..." in config.py'
RESTORE_HINT = "mend the line, or delete it and its default holds; where a backup is kept: python config_optimizer.py 3"
UNREADABLE_HINT = (
    "an empty config.py will do, every setting has a default; where a backup is kept: python config_optimizer.py 3"
)


def _default_data_dir() -> Path:
    return Path(user_data_dir("vaultvec", appauthor=False))


@dataclass(frozen=True, slots=True)
class Settings:
    """config.py's keys in lower case. None stands for "auto" where a number is meant, and for no vault."""

    vault_path: Path | None = None
    data_dir: Path = field(default_factory=_default_data_dir)
    exclude: tuple[str, ...] = ()
    embedding_model: str = AUTO
    engine: str = AUTO
    precision: str = AUTO
    ollama_url: str = "http://127.0.0.1:11434"
    openai_url: str = "http://127.0.0.1:8080/v1"
    embedding_batch_size: int = 32
    batch_size: int = 64
    max_tokens_per_batch: int | None = None
    streams: int | None = None
    threads: int | None = None
    workers: int | None = None
    gpu_memory_fraction: float = 0.7
    memory_check_interval: float = 2.0  # seconds
    disable_complex_gpu_optimization: bool = False
    fast_mode: bool = False
    torch_compile: bool = False
    chunk_tokens: int = 200
    min_chunk_tokens: int = 64
    search_backend: str = AUTO
    openai_api_key: str = field(default="", repr=False)  # from OPENAI_API_KEY alone, never from config.py

    @property
    def models_dir(self) -> Path:
        """Converted and compiled models."""
        return self.data_dir / "models"

    @property
    def reports_dir(self) -> Path:
        """Benchmark results, JSON and HTML."""
        return self.data_dir / "reports"

    def vault(self) -> Path:
        """The vault's folder. Raises SettingsError when none is set."""
        if self.vault_path is None:
            raise SettingsError(NO_VAULT)
        return self.vault_path

    def vault_dir(self, vault: Path) -> Path:
        """Folder of one vault's index: its name, and 8 hex digits of the sha256 of its resolved path.

        Raises SettingsError when the data folder lies inside the vault, where nothing may be written.
        """
        resolved = vault.expanduser().resolve()
        if self.data_dir.expanduser().resolve().is_relative_to(resolved):
            raise SettingsError(
                f"the data folder {self.data_dir} lies inside the vault {vault}, where nothing is ever written; "
                "set DATA_DIR in config.py or VAULTVEC_DATA to a folder outside it"
            )
        digest = hashlib.sha256(os.path.normcase(unicodedata.normalize("NFC", str(resolved))).encode()).hexdigest()
        slug = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in resolved.name).strip("-")
        return self.data_dir / "vaults" / f"{slug[:40] or 'vault'}-{digest[:8]}"


@dataclass(frozen=True, slots=True)
class Assignment:
    """One `KEY = value` of config.py. `node` spans the value's text."""

    value: Any
    line: int
    node: ast.expr


def load_settings(config_path: Path, environ: Mapping[str, str], *, vault: str | None = None) -> Settings:
    """Settings from config.py, the environment and `--vault`; a missing key takes its default.

    Raises SettingsError with the line of config.py, what was found and what was expected.
    """
    found = {name: row.value for name, row in read_config(config_path).items()}
    values = {key.name.lower(): key.check.convert(found.get(key.name, key.default)) for key in KEYS.values()}
    here = config_path.absolute().parent
    if vault is not None and not vault.strip():
        raise SettingsError("--vault is empty, expected a folder; run: python main.py --help")
    asked = vault or environ.get("VAULTVEC_VAULT")
    values["vault_path"] = _folder(asked, Path.cwd()) or _folder(values["vault_path"], here)
    moved = _folder(environ.get("VAULTVEC_DATA"), Path.cwd())
    values["data_dir"] = moved or _folder(values["data_dir"], here) or _default_data_dir()
    values["embedding_model"] = _model(values["embedding_model"], values["engine"], here)
    settings = Settings(**values, openai_api_key=environ.get("OPENAI_API_KEY", ""))
    if settings.vault_path is not None:
        settings.vault_dir(settings.vault_path)
    return settings


def _folder(text: str | None, base: Path) -> Path | None:
    """An absolute path, "~" expanded, relative to `base`; None for an empty text."""
    if not text or not text.strip():
        return None
    try:
        path = Path(os.path.abspath(base / Path(text).expanduser()))
    except RuntimeError as error:  # "~name" of a user who does not exist
        raise SettingsError(f"{text} names no folder: {error}; write the whole path") from error
    if (shown := str(path).encode("utf-8", "replace").decode()) != str(path):
        raise SettingsError(f"the path {shown} is not valid UTF-8; rename the folder")
    return path


def _model(name: str, engine: str, base: Path) -> str:
    """A model's name as it stands; a folder beside config.py as an absolute path, wherever the program is started from.

    A name of the catalogue stays a name, and so does what a server is asked for, whatever folder bears it too.
    """
    text = name.strip()
    if text == AUTO or engine in SERVER_ENGINES or resolve(text).dim or Path(text).is_absolute():
        return name
    folder = _folder(text, base)
    return str(folder) if folder is not None and os.path.isdir(folder) else name


def decode_source(data: bytes, name: str) -> tuple[str, str]:
    """Text and encoding of a Python file: BOM or coding line, else UTF-8. Line ends are kept."""
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        return data.decode(encoding), encoding
    except (SyntaxError, UnicodeDecodeError) as error:
        raise SettingsError(f"{name} is not UTF-8 text ({error}); save it as UTF-8, or {RESTORE_HINT}") from error


def read_config(path: Path) -> dict[str, Assignment]:
    """Every key of config.py with its checked value and line."""
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = error.strerror or error
        raise SettingsError(f"{path} cannot be read ({reason}); {UNREADABLE_HINT}") from error
    return check_values(parse_source(decode_source(data, path.name)[0], path.name), path.name)


def parse_source(text: str, name: str = "config.py") -> dict[str, Assignment]:
    """The assignments of a config file, values evaluated as literals only, not yet checked.

    Raises SettingsError with the line for anything that is not `KEY = value`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an odd escape in a path is told by its own check
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None) or 1
        reason = getattr(error, "msg", None) or str(error)
        hint = f"{WINDOWS_HINT}; " if "unicodeescape" in reason else ""
        raise SettingsError(f"{name} line {line}: {reason}; {hint}{RESTORE_HINT}") from error
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
        raise SettingsError(
            f"{name} line {node.lineno}: {key} is {shorten(ast.unparse(node))}, expected a plain value; "
            "the file is read, never run"
        ) from error


def check_values(rows: Mapping[str, Assignment], name: str = "config.py") -> dict[str, Assignment]:
    """The rows, every name and value found good against KEYS. Raises SettingsError with the line."""
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
    return dict(rows)
