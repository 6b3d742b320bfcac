"""An engine that costs nearly nothing, so that everything around the model is seen: reading, ledger, Chroma, search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vaultvec.datatypes import Batch, Vectors
from vaultvec.engines import load_tokenizer
from vaultvec.engines.base import Engine, Tokenizer
from vaultvec.models import ModelSpec
from vaultvec.settings import Settings

TOKEN_BUDGET = 65_536


class BagEngine(Engine):
    """A vector is the mean of fixed random vectors of its tokens: deterministic, and like texts lie near each other."""

    name = "bag"
    device = "cpu"
    precision = "fp32"

    def __init__(self, model: ModelSpec, tokenizer: Tokenizer, window: int) -> None:
        super().__init__(model, tokenizer, token_budget=TOKEN_BUDGET, window=window)
        self._table = np.random.default_rng(0).standard_normal((1 << 15, model.dim), dtype=np.float32)

    @classmethod
    def build(cls, settings: Settings, model: ModelSpec, models_dir: Path, notify: Any = None) -> BagEngine:
        """What `Hooks(engines=...)` calls."""
        del notify
        return cls(model, load_tokenizer(model, models_dir), settings.embedding_batch_size)

    def _forward(self, batch: Batch) -> Vectors:
        return np.stack([self._table[item.token_ids & 0x7FFF].mean(axis=0) for item in batch.items])
