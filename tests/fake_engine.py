"""An engine without a model: a vector is a pure function of the token ids, and every text is written down."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from vaultvec.datatypes import Batch, Vectors
from vaultvec.engines import load_tokenizer
from vaultvec.engines.base import Engine
from vaultvec.models import L6, ModelSpec
from vaultvec.settings import Settings

Forward = Callable[[Batch, Vectors], Vectors]


def fake_vectors(batch: Batch, dim: int) -> Vectors:
    """(len(batch.items), dim) unit rows, each drawn from its token ids alone."""
    rows = np.empty((len(batch.items), dim), dtype=np.float32)
    for row, item in zip(rows, batch.items, strict=True):
        seed = hashlib.blake2b(item.token_ids.tobytes(), digest_size=8).digest()
        row[:] = np.random.default_rng(int.from_bytes(seed, "little")).standard_normal(dim, dtype=np.float32)
        row /= np.linalg.norm(row)
    return rows


class FakeEngine(Engine):
    """Counts what is embedded for the index; what is embedded to verify, to warm up or to search is not counted."""

    name = "fake"
    device = "cpu"
    precision = "fp32"

    def __init__(self, model: ModelSpec, models_dir: Path, owner: FakeEngines) -> None:
        super().__init__(model, load_tokenizer(model, models_dir), token_budget=owner.token_budget, window=owner.window)
        self._owner = owner
        self._counting = True

    def _embed_texts(self, texts: Sequence[str]) -> Vectors:
        self._counting = False
        try:
            return super()._embed_texts(texts)
        finally:
            self._counting = True

    def _forward(self, batch: Batch) -> Vectors:
        if self._counting:
            self._owner.note(batch)
        return self._owner.forward(batch, fake_vectors(batch, self.dim))


class FakeEngines:
    """The factory for `Hooks(engines=...)`; holds what its engines embedded. `forward` may change or refuse a batch."""

    def __init__(
        self, *, token_budget: int = 2048, window: int = 64, delay: float = 0.0, log: Path | None = None,
        forward: Forward | None = None,
    ) -> None:  # fmt: skip
        self.token_budget, self.window, self.delay, self.log = token_budget, window, delay, log
        self.forward: Forward = forward or (lambda _, vectors: vectors)
        self.batches: list[list[str]] = []

    def __call__(self, _: Settings, model: ModelSpec, models_dir: Path, *__: object) -> Engine:
        return FakeEngine(model, models_dir, self)

    @property
    def texts(self) -> list[str]:
        """Every text embedded so far, in order."""
        return [text for batch in self.batches for text in batch]

    def note(self, batch: Batch) -> None:
        """Write a batch down before it is embedded."""
        texts = [item.text for item in batch.items]
        self.batches.append(texts)
        if self.log:
            names = " ".join(hashlib.blake2b(text.encode(), digest_size=8).hexdigest() for text in texts)
            with self.log.open("a", encoding="ascii") as file:
                file.write(names + "\n")
        if self.delay:
            time.sleep(self.delay)


def fake_settings(data_dir: Path, **values: object) -> Settings:
    """Settings for the fake engine: small chunks, small batches, the bundled model's tokenizer."""
    chosen: dict[str, object] = {
        "embedding_model": L6, "chunk_tokens": 64, "min_chunk_tokens": 16, "batch_size": 16, "workers": 0, **values,
    }  # fmt: skip
    return Settings(data_dir=data_dir, **chosen)  # type: ignore[arg-type]
