"""An engine whose vectors are a function of the text, and whose time is one of the batch, on a clock of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vaultvec.datatypes import Batch, TokenIds, Vectors
from vaultvec.engines.base import Engine
from vaultvec.models import ModelSpec
from vaultvec.settings import Settings

MODEL = ModelSpec(name="timed", kind="transformer", dim=8, max_tokens=64)


class Clock:
    """Seconds that pass only when somebody works."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class WordTokenizer:
    """One token a word."""

    prefix_ids = (1,)
    suffix_ids = (2,)
    joinable = True

    def encode(self, texts: Sequence[str], max_tokens: int | None = None) -> list[TokenIds]:
        rows = [np.array([1, *(len(word) for word in text.split()), 2], dtype=np.int32) for text in texts]
        return [row[:max_tokens] for row in rows]

    def encode_plain(self, texts: Sequence[str]) -> list[TokenIds]:
        return [row[1:-1] for row in self.encode(texts)]


def vector_of(text: str, dim: int = MODEL.dim) -> Vectors:
    digest = hashlib.sha256(text.encode()).digest()
    row: Vectors = np.random.default_rng(list(digest)).standard_normal(dim).astype(np.float32)
    return row / np.linalg.norm(row)


class TimedEngine(Engine):
    """Counts its batches. `call_s`: seconds a batch, `token_s`: seconds a padded token, `blur`: its vectors' error."""

    device = "cpu"
    precision = "fp32"

    def __init__(
        self, clock: Clock, *, call_s: float = 0.1, token_s: float = 0.001, blur: float = 0.0,
        budget: int = 512, window: int = 32, precision: str = "fp32", tires_after: int = 0, name: str = "openvino",
        max_tokens: int = MODEL.max_tokens, pads: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(replace(MODEL, max_tokens=max_tokens), WordTokenizer(), token_budget=budget, window=window)
        self.clock, self.call_s, self.token_s, self.blur = clock, call_s, token_s, blur
        self.precision, self.name, self.pads = precision, name, pads
        self.tires_after = tires_after  # batches after which each takes ten seconds more; 0 = never
        self.batches = 0
        self.closed = False

    def _forward(self, batch: Batch) -> Vectors:
        self.batches += 1
        self.clock.now += self.call_s + self.token_s * batch.max_tokens * len(batch.items)
        if self.tires_after and self.batches > self.tires_after:
            self.clock.now += 10
        rows = np.stack([vector_of(item.text) for item in batch.items])
        rows[:, 0] += self.blur
        return rows

    def close(self) -> None:
        self.closed = True


class TimedReference:
    """sentence-transformers' `encode`: twice as slow, sorted by nothing, padded to the longest of a batch."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.calls: list[int] = []

    def encode(self, texts: Sequence[str], **_: Any) -> Vectors:
        self.calls.append(len(texts))
        self.clock.now += 0.2 + 0.002 * max(len(text.split()) for text in texts) * len(texts)
        return np.stack([vector_of(text) for text in texts])


def factory(
    clock: Clock, made: list[TimedEngine], traits: Callable[[Settings], dict[str, Any]]
) -> Callable[..., Engine]:
    """A stand-in for create_engine; `traits` gives the engine's for some settings."""

    def build(settings: Settings, model: ModelSpec, models_dir: Path, notify: object) -> Engine:
        del model, models_dir, notify
        budget = settings.max_tokens_per_batch or 512
        engine = TimedEngine(clock, budget=budget, window=settings.embedding_batch_size, **traits(settings))
        made.append(engine)
        return engine

    return build


def words(count: int, seed: int = 0) -> list[str]:
    """Texts of 3 to 40 words, all different."""
    rng = np.random.default_rng(seed)
    return [" ".join(f"w{i}" if k == 0 else "word" for k in range(rng.integers(3, 40))) for i in range(count)]
