"""config.py, the environment and `--vault` → Settings. The environment is read here and nowhere else."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from platformdirs import user_data_dir

from vaultvec.config_file import read_text, read_values
from vaultvec.config_keys import AUTO, KEYS, SERVERS, WORDS
from vaultvec.errors import SettingsError
from vaultvec.models import resolve

NO_VAULT = 'no vault is set; add --vault DIR, set VAULTVEC_VAULT, or write VAULT_PATH = "..." in config.py'


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

    @property
    def server(self) -> str:
        """The engine where it asks a server; "" for one of this machine."""
        return self.engine if self.engine in SERVERS else ""

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


def load_settings(config_path: Path, environ: Mapping[str, str], *, vault: str | None = None) -> Settings:
    """Settings from config.py, the environment and `--vault`; a missing key takes its default.

    Raises SettingsError with the line of config.py, what was found and what was expected.
    """
    found = read_values(read_text(config_path).text, config_path.name)
    values = {name.lower(): KEYS[name].check.convert(value) for name, value in found.items()}
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
    if text in WORDS or engine in SERVERS or resolve(text).dim or Path(text).is_absolute():
        return name
    folder = _folder(text, base)
    return str(folder) if folder is not None and os.path.isdir(folder) else name
