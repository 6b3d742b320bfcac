"""Which chunks of a vault a benchmark embeds, and with which of its models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vaultvec.errors import VaultError
from vaultvec.index import choose_models, reader_of
from vaultvec.models import ModelSpec
from vaultvec.pipeline import sample_chunks
from vaultvec.settings import Settings
from vaultvec.vault import load_exclusions, open_vault, walk

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
    choice = choose_models(settings, folder, walk(folder, load_exclusions(folder, settings.exclude)).files)
    position = next((i for i, model in enumerate(choice.models) if model.kind == "transformer"), 0)
    texts = sample_chunks(settings, folder, count, seed)
    reads = reader_of(choice.models[position], position)
    kept = [text for text in texts if reads is None or reads(text)]
    if len(kept) < 2:
        raise VaultError(f"{vault} has {len(kept)} chunks to measure, expected at least 2; choose a larger vault")
    order = np.random.default_rng(seed).permutation(len(kept))
    return Sample(tuple(kept[i] for i in order), choice.models[position], choice.models, choice.reason)
