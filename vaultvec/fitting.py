"""Whether the index that answers is the one config.py asks for. No model is loaded for it."""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Literal

from vaultvec.choice import asked_for, read_choice, server_model
from vaultvec.config_keys import SERVERS
from vaultvec.datatypes import SearchResult
from vaultvec.errors import VaultvecError
from vaultvec.index import exclusions_of, index_digest, precision_class
from vaultvec.ledger import Ledger
from vaultvec.models import ModelSpec, class_of, resolve
from vaultvec.settings import Settings
from vaultvec.vault import storable

_FORMS: tuple[Literal["NFC", "NFD"], ...] = ("NFC", "NFD")  # notes are known by NFC names, whatever the disk has
NAMED = 3  # notes that a remark names


def differences(settings: Settings, vault: Path, ledger: Ledger) -> list[str]:
    """What config.py asks for and this index is not: model, precision, engine, chunk sizes. One short clause each."""
    models = ledger.models()
    if not models:
        return []
    found = []
    names = [name for _, _, name, _ in models]
    wanted = _wanted_models(settings, vault)
    if wanted and list(map(_comparable, wanted)) != list(map(_comparable, names)):
        found.append(f"EMBEDDING_MODEL asks for {' + '.join(wanted)}, not {' + '.join(names)}")
    precision = precision_class(settings)
    if any(
        class_of(fingerprint) != class_of(resolve(name).fingerprint(precision)) for _, fingerprint, name, _ in models
    ):
        found.append(
            f'PRECISION is "{settings.precision}", the vectors are {"int8" if precision == "full" else "full"}'
        )
    elif any(is_former(resolve(name), fingerprint) for _, fingerprint, name, _ in models):
        found.append("int8 is computed in another way now")
    made_by = _server_in_name(settings, ledger)
    if made_by is None:
        found.append(f"CHUNK_TOKENS {settings.chunk_tokens} or MIN_CHUNK_TOKENS {settings.min_chunk_tokens} is new")
    elif made_by != settings.server:
        found.append(f'ENGINE is "{settings.engine}", the vectors were made {f"by {made_by}" if made_by else "here"}')
    return found


def is_former(model: ModelSpec, fingerprint: str) -> bool:
    """Whether vectors are int8 as an earlier version made them. Of a model from a hub only the loaded one can tell."""
    return fingerprint == model.former_int8 != model.fingerprint("int8")


def query_precision(wanted: str, fingerprint: str, engine: str = "") -> str:
    """PRECISION for the queries of the index with this fingerprint. What config.py asks for of a new index (int8, or a
    half that this machine may not have) ends no search of this one; nor does an `engine` without int8."""
    if wanted == "int8" and engine == "torch":
        return "auto"
    return wanted if wanted in ("auto", "fp32", class_of(fingerprint)) else "auto"


def for_own_vectors(settings: Settings, fingerprint: str) -> Settings:
    """The settings that give the vectors of this index once more; only OpenVINO has int8."""
    if class_of(fingerprint) == "int8" and not settings.server:
        return replace(settings, precision="int8", engine="openvino")
    return replace(settings, precision=query_precision(settings.precision, fingerprint))


def made_by_server(settings: Settings, ledger: Ledger) -> str | None:
    """The server whose vectors an index holds, "" where they were made here; None where nothing tells."""
    named = _server_in_name(settings, ledger)
    if named is None and (engine := ledger.meta("engine")):  # missing where every vector was another index's
        return engine if engine in SERVERS else ""
    return named


def where_made(settings: Settings, ledger: Ledger) -> Settings:
    """The settings under which an index that was made here goes on being read here, though ENGINE asks for a server now."""
    return replace(settings, engine="auto") if settings.server and made_by_server(settings, ledger) == "" else settings


def _server_in_name(settings: Settings, ledger: Ledger) -> str | None:
    """The server that the index was named for, "" for none; None where it was cut into chunks of other sizes."""
    name, fingerprints = ledger.path.parent.name, [fingerprint for _, fingerprint, _, _ in ledger.models()]
    return next(
        (server for server in ("", *SERVERS) if name.endswith(index_digest(settings, fingerprints, server))), None
    )


def difference_line(settings: Settings, vault: Path, ledger: Ledger) -> str:
    """The differences as a remark with the command that ends them; "" without any."""
    found = differences(settings, vault, ledger)
    if not found:
        return ""
    return (
        f"config.py asks for another index than this one ({'; '.join(found)}), which answers until that is made; "
        "run: python main.py index"
    )


def excluded_line(settings: Settings, vault: Path, paths: Collection[str]) -> str:
    """A remark on those of these notes of an index that are left out of the vault now; "" without any."""
    try:
        exclusions = exclusions_of(settings, vault.expanduser().resolve())
    except (VaultvecError, OSError):
        return ""  # a broken EXCLUDE is told by index
    if exclusions.spec is None and not exclusions.prefixes and not exclusions.regexes:
        return ""
    out = sum(exclusions.excludes(path, False) for path in paths)
    if not out:
        return ""
    return (
        f"{out:,} of these {len(paths):,} notes are left out now, by EXCLUDE in config.py or Obsidian's excluded files; "
        "to take them out of the index, run: python main.py index"
    )


def result_remarks(settings: Settings, vault: Path, ledger: Ledger, results: Sequence[SearchResult]) -> list[str]:
    """What the notes that were found have become since they were indexed, a line each."""
    paths = list(dict.fromkeys(row.path for row in results))
    return [line for line in (excluded_line(settings, vault, paths), *_changed_lines(vault, ledger, paths)) if line]


def _changed_lines(vault: Path, ledger: Ledger, paths: Sequence[str]) -> list[str]:
    """Remarks on those of these notes that have gone from the vault, and on those that were saved again."""
    if not os.path.isdir(vault):
        return [f"the vault {vault} is not there now; its index answers all the same"]
    sql = "SELECT path, size, mtime_ns FROM notes WHERE path IN (SELECT value FROM json_each(?))"
    with ledger.errors_told():
        indexed = {row[0]: row[1:] for row in ledger.db.execute(sql, (json.dumps(paths),))}
    gone, edited = [], []
    for path in paths:
        try:
            now = _stat(vault, path)
        except OSError:
            continue  # nobody can say
        if now is None:
            gone.append(path)
        elif indexed.get(path, ()) != (now.st_size, storable(now.st_mtime_ns)):
            edited.append(path)
    lines = []
    if gone:
        lines.append(f"no longer in the vault: {_named(gone)}; run: python main.py index")
    if edited:
        lines.append(
            f"saved again since indexed, what is shown may be old: {_named(edited)}; run: python main.py index"
        )
    return lines


def _named(paths: Sequence[str]) -> str:
    more = len(paths) - NAMED
    return ", ".join(paths[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _stat(vault: Path, path: str) -> os.stat_result | None:
    """The file of a note, in whatever form of its name; None where there is none. Raises OSError where nobody can say."""
    for name in dict.fromkeys((path, *(unicodedata.normalize(form, path) for form in _FORMS))):
        if os.path.lexists(vault / name):
            return os.lstat(vault / name)
    folders = [vault]
    for part in path.split("/"):  # a name in no form at all, or a folder and a file in different ones: part by part
        name, below = unicodedata.normalize("NFC", part), []
        for folder in folders:
            try:
                below += [folder / found for found in os.listdir(folder) if unicodedata.normalize("NFC", found) == name]
            except (FileNotFoundError, NotADirectoryError):
                continue
        folders = below
    return os.lstat(folders[0]) if folders else None


def _wanted_models(settings: Settings, vault: Path) -> list[str]:
    """Names of the models that a run would take; [] where it would look at the notes first."""
    try:
        if settings.server:
            return [resolve(server_model(settings)).name]
        if asked := asked_for(settings):
            return [model.name for model in asked]
        return read_choice(settings, vault)[0]
    except VaultvecError:
        return []  # told by index


def _comparable(name: str) -> str:
    """A model folder that has moved is the same model."""
    return PurePath(name).name if Path(name).is_absolute() else name
