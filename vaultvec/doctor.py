"""`main.py doctor`: Python, packages, weights, hardware, folders, config.py, the index; one line each, with what mends
it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from vaultvec.choice import asked_for, language_warning, likely_models, read_choice, sample_texts, server_model
from vaultvec.config_file import read_text, read_values
from vaultvec.datatypes import NoteFile
from vaultvec.engines import create_engine, is_ready, resolve_model
from vaultvec.engines.base import Engine
from vaultvec.engines.reference import near_name
from vaultvec.errors import LedgerError, LockedError, ModelError, VaultvecError
from vaultvec.findings import Finding, told
from vaultvec.fitting import difference_line, excluded_line, for_own_vectors, where_made
from vaultvec.index import current_index, exclusions_of, writer_lock
from vaultvec.integrity import BUSY, examine_index
from vaultvec.ledger import Ledger
from vaultvec.machine import gpu, memory, processor
from vaultvec.models import L6, USE, ModelSpec, resolve, verify_weights
from vaultvec.settings import Settings
from vaultvec.vault import open_vault, walk

LEAST_PYTHON = (3, 11)
# Bytes of index for each byte of notes (text, vectors, Chroma, words): measured on 1,000 English notes, and on 173 Korean ones,
# whose vectors are longer and whose words are kept as bigrams.
INDEX_PER_BYTE, MULTILINGUAL_PER_BYTE = 12, 25
INDEX_BASE = 3 * 10**6  # and of the smallest, measured on 52 notes (two models, 3.1 MB) and on 300 (8.4 MB)
MODELS = 200 * 10**6  # bytes of the bundled models as they are prepared, once for all vaults
_PIN = re.compile(r"([A-Za-z0-9_.-]+)==([^\s;#]+)")

Engines = Callable[..., Engine]


def examine(settings: Settings, vault: Path | None, config: Path, engines: Engines = create_engine) -> list[Finding]:
    """Every check, the cheap ones first. Raises nothing: a check that fails is a finding. Writes nothing."""
    found = told("Python", _python)
    found += told("packages", partial(_packages, config.parent / "requirements.txt"))
    found += told("config.py", partial(_config, config))
    topic = "server" if settings.server else "weights"
    found += told(topic, partial(_weights, settings, vault, engines))
    found += told("processor", partial(processor, settings.precision))
    found += told("GPU", gpu)
    found += told("memory", memory)
    found += told("data folder", partial(_data_folder, settings))
    if vault is None:
        found.append(Finding("note", "vault", "none is set; add --vault DIR, or set VAULT_PATH in config.py"))
        return found
    found += told("vault", partial(_vault, settings, vault))
    if not vault.is_dir():
        return found  # of its index there is nothing to say but that
    found += told("index", partial(_fit, settings, vault))
    found += told("index", partial(_index, settings, vault, engines))
    return found


# ── the program ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _python() -> Iterator[Finding]:
    version = platform.python_version()
    if sys.version_info < LEAST_PYTHON:
        yield Finding("wrong", "Python", f"{version}, expected 3.11 or newer; run: make setup PYTHON=python3.12")
    else:
        yield Finding("ok", "Python", f"{version}, {platform.machine()}, {platform.system()}")


def _packages(requirements: Path) -> Iterator[Finding]:
    pins = _PIN.findall(requirements.read_text(encoding="utf-8")) if requirements.is_file() else []
    odd = 0
    for name, wanted in pins:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            odd += 1
            yield Finding("wrong", "packages", f"{name} is not installed; run: make setup")
            continue
        if version.partition("+")[0] != wanted:
            odd += 1
            yield Finding(
                "note", "packages", f"{name} is {version}, this program was tested with {wanted}; run: make setup"
            )
    if not pins:
        yield Finding("note", "packages", f"{requirements.name} is not beside config.py, so versions were not compared")
    elif not odd:
        yield Finding("ok", "packages", f"{len(pins)} installed, as pinned in {requirements.name}")


def _config(config: Path) -> Iterator[Finding]:
    values = read_values(read_text(config).text, config.name)  # raises with the line and what mends it
    if (values["ENGINE"], values["PRECISION"]) == ("torch", "int8"):
        text = 'the torch engine has no int8: set ENGINE or PRECISION to "auto"; index refuses the two together'
        yield Finding("wrong", "config.py", text)
        return
    yield Finding("ok", "config.py", f"{len(values)} keys, all known and in range")


def _weights(settings: Settings, vault: Path | None, engines: Engines) -> Iterator[Finding]:
    if settings.server:
        yield from _server(settings, engines)
        return
    for model in _models(settings, vault):
        if model.package:
            verify_weights(model)
            yield Finding("ok", "weights", f"{model.name}: sha256 as expected")
        elif Path(model.name).is_absolute() and not Path(model.name).is_dir():
            yield Finding(
                "wrong", "weights", f"{model.name}: there is no such folder; mend EMBEDDING_MODEL in config.py"
            )
        else:
            ready = is_ready(model, settings.models_dir)
            once = "" if Path(model.name).is_dir() else ", with one download"
            text = "prepared" if ready else f"not prepared yet; python main.py index does it{once}"
            yield Finding("ok" if ready else "note", "weights", f"{model.name}{near_name(model.name)}: {text}")


def _models(settings: Settings, vault: Path | None, files: Sequence[NoteFile] = ()) -> list[ModelSpec]:
    """The models that are in use, or would be for these notes; without any, all that "auto" may take."""
    if asked := asked_for(settings):
        return asked
    if vault is not None:
        try:
            with Ledger(current_index(settings, vault) / "ledger.sqlite3", readonly=True) as ledger:
                if models := ledger.models():
                    return [resolve(name) for _, _, name, _ in models]
        except LedgerError:
            pass  # told below
        if files:
            return [resolve(name) for name in likely_models(settings, vault, files)]
    return [resolve(L6), resolve(USE)]


def _data_folder(settings: Settings) -> Iterator[Finding]:
    folder = settings.data_dir
    existing = next((path for path in [folder, *folder.parents] if path.exists()), Path(folder.anchor))
    if not existing.is_dir():
        yield Finding("wrong", "data folder", f"{existing} is a file, expected a folder; set DATA_DIR in config.py")
    elif not os.access(existing, os.W_OK | os.X_OK):
        yield Finding(
            "wrong", "data folder", f"{existing} cannot be written; mend its permissions, or set DATA_DIR in config.py"
        )
    else:
        yield Finding("ok", "data folder", str(folder))


# ── the vault and its index ───────────────────────────────────────────────────────────────────────────────────────────


def _vault(settings: Settings, vault: Path) -> Iterator[Finding]:
    folder = open_vault(vault)
    exclusions = exclusions_of(settings, folder)
    walked = walk(folder, exclusions)
    size = sum(file.size for file in walked.files)
    if not walked.files:
        yield Finding(
            "wrong", "vault", f"{folder} holds no notes; check --vault, that its drive is mounted, and EXCLUDE"
        )
        return
    yield Finding("ok", "vault", f"{len(walked.files):,} notes, {size / 1e6:,.1f} MB")
    for path, reason in walked.unreadable[:5]:
        cure = "" if "rename" in reason else "; mend its permissions"
        yield Finding("note", "vault", f"{path} cannot be read: {reason}{cure}")
    for line in (*exclusions.warnings, *(f"{path}: {reason}" for path, reason in walked.warnings[:5])):
        yield Finding("note", "vault", line)
    models = _models(settings, vault, walked.files)
    yield from _disk(settings, size, models)
    yield from _language(settings, vault, walked.files, models)


def _disk(settings: Settings, size: int, models: Sequence[ModelSpec]) -> Iterator[Finding]:
    existing = next(path for path in [settings.data_dir, *settings.data_dir.parents] if path.is_dir())
    each = INDEX_PER_BYTE if [model.name for model in models] == [L6] else MULTILINGUAL_PER_BYTE
    free, need = shutil.disk_usage(existing).free, INDEX_BASE + each * size
    text = (
        f"{free / 1e9:,.1f} GB free, an index of this vault takes up to about {need / 1e6:,.0f} MB; the prepared "
        f"models, once for all vaults, about {MODELS / 1e6:,.0f} MB"
    )
    if free < need + MODELS:
        yield Finding("wrong", "disk", f"{text}; free some space, or set DATA_DIR in config.py to another disk")
    else:
        yield Finding("ok", "disk", text)


def _server(settings: Settings, engines: Engines) -> Iterator[Finding]:
    """The server answers, and with which model. No note is sent, only a sentence of our own."""
    said: list[str] = []
    engine = engines(settings, resolve(server_model(settings)), settings.models_dir, said.append)
    engine.close()
    text = f"{engine.model.name} on {engine.device}: vectors of {engine.dim}, {engine.model.max_tokens} tokens a text"
    yield Finding("ok", "server", text)
    for line in said:
        yield Finding("note", "server", line)


def _language(
    settings: Settings, vault: Path, files: Sequence[NoteFile], models: Sequence[ModelSpec]
) -> Iterator[Finding]:
    command = ""
    if settings.embedding_model == "auto":
        kept, _, notes = read_choice(settings, vault)
        holds = kept == [model.name for model in models] and len(files) < 2 * notes
        command = f"python main.py index{' --full' if holds else ''}"
    if line := language_warning(models, sample_texts(files), choose=command):
        yield Finding("wrong", "language", line)
    elif unknown := [model.name for model in models if not model.languages]:
        yield Finding("note", "language", f"nothing is known of the languages of {' + '.join(unknown)}")
    else:
        yield Finding("ok", "language", f"{' + '.join(model.name for model in models)} knows the notes' languages")


def _fit(settings: Settings, vault: Path) -> Iterator[Finding]:
    """Whether the index is the one that config.py asks for."""
    try:
        with Ledger(current_index(settings, vault) / "ledger.sqlite3", readonly=True) as ledger, ledger.errors_told():
            lines = [difference_line(settings, vault, ledger), excluded_line(settings, vault, ledger.notes())]
    except LedgerError:
        return  # told by the check of the index
    for line in filter(None, lines):
        yield Finding("note", "index", line)


def _index(settings: Settings, vault: Path, engines: Engines) -> Iterator[Finding]:
    try:
        folder = current_index(settings, vault)
    except LedgerError as error:
        yield Finding("note", "index", str(error))
        return

    try:
        with Ledger(folder / "ledger.sqlite3", readonly=True) as ledger, ledger.errors_told():
            settings = where_made(settings, ledger)
    except LedgerError:
        pass  # told below

    def load(model: ModelSpec, fingerprint: str) -> Engine:
        ready = model if settings.server else resolve_model(model, settings.models_dir)
        return engines(for_own_vectors(settings, fingerprint), ready, settings.models_dir, lambda _: None)

    try:
        with writer_lock(folder.parent):
            pass  # nobody writes; a run that begins from here on is not kept waiting
        yield from examine_index(folder, load)
    except LockedError:
        yield BUSY
    except (LedgerError, ModelError) as error:
        yield Finding("wrong", "index", str(error))
    except VaultvecError as error:
        yield Finding("wrong", "index", f"{error}; run: python main.py rebuild")
