"""Where a vault's index lies, which models it uses, and who may write it.

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
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vaultvec.advice import quoted
from vaultvec.datatypes import NoteFile
from vaultvec.engines import SERVERS, resolve_model
from vaultvec.errors import LedgerError, LockedError, SettingsError, VaultError
from vaultvec.languages import language_of, readable_by
from vaultvec.models import L6, USE, ModelSpec, resolve
from vaultvec.notes import decode
from vaultvec.settings import Settings
from vaultvec.vault import Exclusions, load_exclusions, spread

CHOICE = "choice.json"
EXCLUDED = "excluded.json"
SAMPLE_NOTES = 200  # notes read to find the vault's languages
SAMPLE_BYTES = 4000  # of each
OTHER_SHARE = 0.10  # of notes in other languages: from here on a vault is not an English one
OLLAMA_DEFAULT = "nomic-embed-text"
ENGLISH_SHARE = 0.10  # of notes in English: from here on such a vault is a mixed one


@dataclass(frozen=True, slots=True)
class Choice:
    """The models of an index, the one that reads every note first, and why they were chosen."""

    models: tuple[ModelSpec, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class IndexFolder:
    """One index on disk."""

    vault_dir: Path
    name: str
    models: tuple[ModelSpec, ...]

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
    server = settings.engine if settings.engine in SERVERS else ""
    digest = index_digest(settings, [model.fingerprint(precision_class(settings)) for model in models], server)
    name = "+".join(model.slug for model in models)
    return IndexFolder(settings.vault_dir(vault), f"{name}-{digest}", tuple(models))


def index_digest(settings: Settings, fingerprints: Sequence[str], server: str) -> str:
    """What ends an index's name: its models' vectors, the server that makes them ("" for none), and the chunk sizes."""
    parts = [*fingerprints, server, str(settings.chunk_tokens), str(settings.min_chunk_tokens)]
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:10]


def current_index(settings: Settings, vault: Path) -> Path:
    """Folder of the index that answers. Raises LedgerError when the vault was never indexed."""
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
    """The folder that `current` names. One that was cut short by a power failure names none."""
    try:
        name = (vault_dir / "current").read_text(encoding="utf-8").strip()
        found = bool(name) and (vault_dir / name / "ledger.sqlite3").is_file()
    except (OSError, ValueError):
        return None
    return vault_dir / name if found else None


def write_atomically(path: Path, text: str) -> None:
    """Replace a small file so that a reader, or a crash, or a power failure, leaves the old one or the new one."""
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
    """Own a vault's index. Raises LockedError at once when another process does; a killed owner leaves no lock
    behind."""
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


def choose_models(settings: Settings, vault: Path, files: Sequence[NoteFile], *, again: bool = False) -> Choice:
    """The models that config.py names, or, for "auto", those that read the vault's languages.

    That choice is kept with the index; it is made `again` on demand, and when the vault has doubled since.
    """
    if settings.embedding_model != "auto":
        model = resolve(settings.embedding_model)
        return Choice((resolve_model(model, settings.models_dir),), f"config.py asks for {model.name}")
    kept = settings.vault_dir(vault) / CHOICE
    names, reason, notes = read_choice(kept)
    if not names or again or len(files) >= 2 * notes:
        names, reason, spoken = _by_language(sample_texts(files))
        facts = {"models": names, "reason": reason, "notes": len(files) if spoken else 0}
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(kept, json.dumps(facts, ensure_ascii=False, indent=1) + "\n")
    return Choice(tuple(resolve_model(resolve(name), settings.models_dir) for name in names), reason)


def server_model(settings: Settings) -> str:
    """The model a server is asked for. Ollama has a default, the guide's; other servers must be told."""
    if settings.embedding_model != "auto":
        return settings.embedding_model
    if settings.engine == "ollama":
        return OLLAMA_DEFAULT
    raise SettingsError(
        'EMBEDDING_MODEL is "auto", but the server at OPENAI_URL must be asked for a model by name; '
        'set it in config.py, e.g. EMBEDDING_MODEL = "bge-m3"'
    )


def read_choice(path: Path) -> tuple[list[str], str, int]:
    """(models, why, how many notes the vault had then)."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return [str(name) for name in kept["models"]], str(kept["reason"]), max(1, int(kept["notes"]))
    except (OSError, ValueError, KeyError, TypeError):
        return [], "", 0  # a broken file is a missing one


def _by_language(texts: Iterable[str]) -> tuple[list[str], str, int]:
    """Model names for a vault's languages, the reason in words, how many notes told. Each counts as one, in its main
    language."""
    languages = Counter(language for language in map(language_of, texts) if language)
    notes = languages.total()
    if not notes:
        return [L6], "the vault has no text yet", 0
    shares = ", ".join(f"{count / notes:.0%} {language}" for language, count in languages.most_common(3))
    english = languages["en"] / notes
    if 1.0 - english < OTHER_SHARE:
        return [L6], f"the notes are English ({shares})", notes
    if english >= ENGLISH_SHARE:
        return [USE, L6], f"the notes are mixed ({shares}): one model reads them all, the other the English ones", notes
    return [USE], f"the notes are not English ({shares})", notes


def sample_texts(files: Sequence[NoteFile]) -> Iterator[str]:
    """The beginnings of notes spread evenly over the vault."""
    for file in spread(files, SAMPLE_NOTES):
        try:
            with file.absolute.open("rb") as stream:
                begun = stream.read(SAMPLE_BYTES)
            yield decode(begun[: len(begun) // 4 * 4])[0]  # UTF-16 and UTF-32 are cut between characters
        except (OSError, VaultError):
            continue  # the reader reports it


def language_warning(models: Sequence[ModelSpec], texts: Iterable[str], *, choose: str) -> str:
    """One line when a real share of the notes is in languages that none of the models knows; "" when all is well.

    `choose`: where EMBEDDING_MODEL is "auto" already, the command that makes the choice anew; else "".
    """
    languages = [language for language in map(language_of, texts) if language]
    foreign = [code for code in languages if not any(knows(model, code) for model in models)]
    if len(foreign) <= OTHER_SHARE * len(languages):
        return ""
    most = max(sorted(set(foreign)), key=foreign.count)
    names = " + ".join(model.name for model in models)
    served = any(model.kind == "server" for model in models)  # nothing can be chosen for a server
    better = "to a multilingual model that the server has" if served else '= "auto"'
    cure = (
        f"to choose the model again, run: {choose}"
        if choose and not served
        else f"set EMBEDDING_MODEL {better} in config.py and run: python main.py index"
    )
    return f"{len(foreign) / len(languages):.0%} of the notes are in languages that {names} does not know (most: {most}); {cure}"


def knows(model: ModelSpec, language: str) -> bool:
    """Whether a model knows a language; one of which nothing is known is believed to."""
    return not model.languages or readable_by(model.languages, language or "en")


def reader_of(model: ModelSpec, position: int) -> Callable[[str], bool] | None:
    """Which texts a model of an index embeds: the first one all, the others those in a language they know."""
    if position == 0:
        return None
    return lambda text: knows(model, language_of(text))


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
