"""Which models an index uses: those that config.py names, or, for "auto", those that read the vault's languages.

Two stand side by side where notes are mixed: one reads every note, the other the English ones, which it knows better.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vaultvec.config_keys import AUTO, MIXED, WORDS
from vaultvec.datatypes import NoteFile
from vaultvec.engines import resolve_model
from vaultvec.errors import SettingsError, VaultError
from vaultvec.index import write_atomically
from vaultvec.languages import language_of, readable_by
from vaultvec.models import L6, USE, ModelSpec, resolve
from vaultvec.note_file import decode
from vaultvec.settings import Settings
from vaultvec.vault import spread

CHOICE = "choice.json"
BOTH = (USE, L6)
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


def choose_models(settings: Settings, vault: Path, files: Sequence[NoteFile], *, again: bool = False) -> Choice:
    """The models that config.py names, or, for "auto", those that read the vault's languages.

    That choice is kept with the index; it is made `again` on demand, and when the vault has doubled since.
    """
    if asked := asked_for(settings):
        models = tuple(resolve_model(model, settings.models_dir) for model in asked)
        return Choice(models, f'asked for by EMBEDDING_MODEL = "{settings.embedding_model}"')
    names, reason, notes = read_choice(settings, vault)
    if not names or again or len(files) >= 2 * notes:
        names, reason, spoken = _by_language(sample_texts(files))
        facts = {"models": names, "reason": reason, "notes": len(files) if spoken else 0}
        kept = settings.vault_dir(vault) / CHOICE
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(kept, json.dumps(facts, ensure_ascii=False, indent=1) + "\n")
    return Choice(tuple(resolve_model(resolve(name), settings.models_dir) for name in names), reason)


def asked_for(settings: Settings) -> list[ModelSpec]:
    """The models that EMBEDDING_MODEL names, as the catalogue has them; none for "auto"."""
    if settings.embedding_model == AUTO:
        return []
    return [resolve(name) for name in (BOTH if settings.embedding_model == MIXED else [settings.embedding_model])]


def server_model(settings: Settings) -> str:
    """The model a server is asked for. Ollama has a default, the guide's. Raises SettingsError where another must be told."""
    asked = settings.embedding_model
    if asked not in WORDS:
        return asked
    if settings.engine == "ollama":
        return OLLAMA_DEFAULT
    raise SettingsError(
        f'EMBEDDING_MODEL is "{asked}", but the server at OPENAI_URL must be asked for a model by name; '
        'set it in config.py, e.g. EMBEDDING_MODEL = "bge-m3"'
    )


def read_choice(settings: Settings, vault: Path) -> tuple[list[str], str, int]:
    """(models, why, how many notes the vault had then) of the last choice; no models where there is none."""
    try:
        kept = json.loads((settings.vault_dir(vault) / CHOICE).read_text(encoding="utf-8"))
        return [str(name) for name in kept["models"]], str(kept["reason"]), max(1, int(kept["notes"]))
    except (OSError, ValueError, KeyError, TypeError):
        return [], "", 0  # a broken file is a missing one


def likely_models(settings: Settings, vault: Path, files: Sequence[NoteFile]) -> list[str]:
    """What "auto" has chosen for a vault, or would choose for these notes. Nothing is kept."""
    return read_choice(settings, vault)[0] or _by_language(sample_texts(files))[0]


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
        return [*BOTH], f"the notes are mixed ({shares}): one model reads them all, the other the English ones", notes
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
    better = '= "auto"'
    if served:
        better = "to a multilingual model that the server has"
    elif not any(knows(resolve(USE), code) for code in foreign):  # nothing that could be chosen would change it
        choose, better = "", "to a model that knows them"
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
