"""Where a vault's index lies, and who may write it.

    DATA_DIR/vaults/<vault>/lock             one writer
                           /choice.json      what EMBEDDING_MODEL = "auto" chose, and why
                           /current          name of the index that search reads
                           /excluded.json    Obsidian's list of excluded files, as the last run saw it
                           /<index>/ledger.sqlite3, chroma/

An index is named after everything that decides its chunks and vectors, so another model or chunk size gets a folder of
its own and the old index answers until the new one is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vaultvec.advice import quoted
from vaultvec.errors import LedgerError, LockedError, VaultError
from vaultvec.models import ModelSpec
from vaultvec.settings import Settings
from vaultvec.vault import Exclusions, load_exclusions

EXCLUDED = "excluded.json"


@dataclass(frozen=True, slots=True)
class IndexFolder:
    """One index on disk."""

    vault_dir: Path
    name: str

    @property
    def folder(self) -> Path:
        """Everything of this index."""
        return self.vault_dir / self.name

    @property
    def ledger(self) -> Path:
        """The SQLite file."""
        return self.folder / "ledger.sqlite3"

    @property
    def chroma(self) -> Path:
        """Chroma's folder."""
        return self.folder / "chroma"


def precision_class(settings: Settings) -> str:
    """ "int8" changes vectors; fp32, bf16 and fp16 are held to be the same (lowest cosine ≥ 0.999)."""
    return "int8" if settings.precision == "int8" else "full"


def index_folder(settings: Settings, vault: Path, models: Sequence[ModelSpec]) -> IndexFolder:
    """The folder that an index with these models and chunk sizes belongs into."""
    digest = index_digest(settings, [model.fingerprint(precision_class(settings)) for model in models], settings.server)
    name = "+".join(model.slug for model in models)
    return IndexFolder(settings.vault_dir(vault), f"{name}-{digest}")


def index_digest(settings: Settings, fingerprints: Sequence[str], server: str) -> str:
    """What ends an index's name: its models' vectors, the server that makes them ("" for none), and the chunk sizes."""
    parts = [*fingerprints, server, str(settings.chunk_tokens), str(settings.min_chunk_tokens)]
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:10]


def current_index(settings: Settings, vault: Path) -> Path:
    """Folder of the index that answers. Raises LedgerError when the vault was never indexed, VaultError when it is no folder."""
    folder = _current(settings.vault_dir(vault))
    if folder is None:
        if vault.is_file():
            raise VaultError(f"{vault} is a file; name the folder of notes")
        if not vault.is_dir():
            raise VaultError(f"there is no folder {vault}; check the path, and that its drive is mounted")
        raise LedgerError(f"there is no index of {vault} yet; run: python main.py index --vault {quoted(str(vault))}")
    return folder


def set_current(index: IndexFolder) -> None:
    """Let this index answer from now on. Atomic."""
    write_atomically(index.vault_dir / "current", index.name + "\n")


def has_current(index: IndexFolder) -> bool:
    """Whether some index answers for this vault already."""
    return _current(index.vault_dir) is not None


def _current(vault_dir: Path) -> Path | None:
    """The folder that `current` names. One that was cut short by a power failure names none. Raises LedgerError where it may
    not be read."""
    try:
        name = (vault_dir / "current").read_text(encoding="utf-8").strip()
        found = bool(name) and (vault_dir / name / "ledger.sqlite3").is_file()
    except PermissionError as error:
        raise LedgerError(
            f"{vault_dir} cannot be read ({error.strerror}); mend its permissions, or set DATA_DIR in config.py"
        ) from error
    except (OSError, ValueError):
        return None
    return vault_dir / name if found else None


def write_atomically(path: Path, text: str) -> None:
    """Replace a small file so that a reader, or a crash, or a power failure, leaves the old one or the new one.

    Raises LedgerError when that cannot be done.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())  # else the new name may come before the content
        os.replace(temporary, path)
    except OSError as error:
        raise LedgerError(f"{path.parent} cannot be written ({error.strerror}); mend it, or set DATA_DIR") from error


def exclusions_of(settings: Settings, vault: Path) -> Exclusions:
    """What is left out of a vault: while Obsidian's own list cannot be read, the one that the last run saw."""
    try:
        kept = [str(line) for line in json.loads((settings.vault_dir(vault) / EXCLUDED).read_bytes())]
    except (OSError, ValueError, TypeError):
        kept = None
    return load_exclusions(vault, settings.exclude, kept)


def keep_exclusions(settings: Settings, vault: Path, exclusions: Exclusions) -> None:
    """Remember Obsidian's list for a run that cannot read it."""
    path = settings.vault_dir(vault) / EXCLUDED
    if exclusions.listed is not None and (exclusions.listed or path.exists()):
        write_atomically(path, json.dumps(exclusions.listed, ensure_ascii=False))


def sibling_ledgers(settings: Settings, index: IndexFolder) -> list[Path]:
    """Ledgers of other indexes, whose vectors may serve this one: the same text is never embedded twice."""
    return [path for path in sorted(settings.data_dir.glob("vaults/*/*/ledger*.sqlite3")) if path != index.ledger]


@contextmanager
def writer_lock(vault_dir: Path) -> Iterator[None]:
    """Own a vault's index. Raises LockedError at once when another process does, LedgerError where nothing can
    be written; a killed owner leaves no lock behind."""
    from filelock import FileLock, Timeout

    try:
        vault_dir.mkdir(parents=True, exist_ok=True)
        lock = FileLock(vault_dir / "lock", timeout=0)
        lock.acquire()
    except Timeout as error:
        raise LockedError(
            "another process is indexing this vault; wait for it, or stop it (searching works meanwhile)"
        ) from error
    except OSError as error:
        raise LedgerError(
            f"the data folder {vault_dir} cannot be written ({error.strerror}); mend its permissions, "
            "or set DATA_DIR in config.py or VAULTVEC_DATA"
        ) from error
    try:
        yield
    finally:
        lock.release()
