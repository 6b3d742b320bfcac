"""Which chunks of a vault a benchmark embeds, and with which of its models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vaultvec.boilerplate import find_boilerplate
from vaultvec.choice import choose_models, reader_of
from vaultvec.cores import usable_cores
from vaultvec.engines import accelerator_present
from vaultvec.errors import VaultError
from vaultvec.index import exclusions_of
from vaultvec.measure.results import Place, machine_name
from vaultvec.models import ModelSpec
from vaultvec.settings import Settings
from vaultvec.stages.reading import chunker_spec, read_and_chunk
from vaultvec.vault import open_vault, walk

SEED = 2026
SHORT_SAMPLE = 400
THOROUGH_SAMPLE = 3000


@dataclass(frozen=True, slots=True)
class Sample:
    """Chunks in a seeded random order, and the model that embeds them. `models`: all that the vault uses."""

    texts: tuple[str, ...]
    model: ModelSpec
    models: tuple[ModelSpec, ...]
    reason: str


def sample_vault(settings: Settings, vault: Path, count: int, seed: int = SEED) -> Sample:
    """Up to `count` chunks. Of several models the transformer is measured, on the texts that it reads.

    Raises VaultError for a vault without two chunks, ModelError, SettingsError.
    """
    folder = open_vault(vault)
    choice = choose_models(settings, folder, walk(folder, exclusions_of(settings, folder)).files)
    position = _measured(choice.models)
    texts = sample_chunks(settings, folder, count, seed)
    reads = reader_of(choice.models[position], position)
    kept = [text for text in texts if reads is None or reads(text)]
    if len(kept) < 2:
        raise VaultError(f"{vault} has {len(kept)} chunks to measure, expected at least 2; choose a larger vault")
    order = np.random.default_rng(seed).permutation(len(kept))
    return Sample(tuple(kept[i] for i in order), choice.models[position], choice.models, choice.reason)


def place_of(settings: Settings, vault: Path) -> Place:
    """This machine, this vault and the model that a benchmark of it would measure. Raises VaultError, ModelError."""
    folder = open_vault(vault)
    choice = choose_models(settings, folder, walk(folder, exclusions_of(settings, folder)).files)
    return place_with(settings, folder, choice.models[_measured(choice.models)])


def place_with(settings: Settings, vault: Path, model: ModelSpec) -> Place:
    """The same where the model is known."""
    return Place(machine_name(), usable_cores(), accelerator_present(), model.name, settings.vault_dir(vault).name)


def _measured(models: Sequence[ModelSpec]) -> int:
    """Position of the model that is measured: the first transformer."""
    return next((i for i, model in enumerate(models) if model.kind == "transformer"), 0)


def sample_chunks(settings: Settings, vault: Path, n: int, seed: int) -> list[str]:
    """`n` chunk texts of a vault, a seeded choice over all notes: what benchmarks embed. Fewer where the vault has
    fewer."""
    files = list(walk(open_vault(vault), exclusions_of(settings, vault)).files)
    order = np.random.default_rng(seed).permutation(len(files))
    model = choose_models(settings, vault, files).models[0]
    chunker = chunker_spec(settings, model, find_boilerplate(files)).build()
    texts: list[str] = []
    for i in order:
        result = read_and_chunk(files[i], b"", chunker)
        texts.extend(chunk.text for chunk in result.chunks)
        if len(texts) >= 4 * n:  # a long note must not be the whole sample
            break
    picked = np.random.default_rng(seed).permutation(len(texts))[:n]
    return [texts[i] for i in sorted(picked)]
