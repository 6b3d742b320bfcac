"""Texts to vectors, two ways: as the guide found it, and fast.

Both return (n, dim) float32, unit rows, in input order; `[]` gives (0, dim). They agree with one another.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from vaultvec.choice import OTHER_SHARE, knows
from vaultvec.datatypes import Encoded, Vectors
from vaultvec.engines import create_engine, ignore, resolve_model
from vaultvec.engines.base import Engine
from vaultvec.engines.tokenizer import readable
from vaultvec.errors import EngineError
from vaultvec.languages import language_of
from vaultvec.models import L6, USE, ModelSpec, resolve
from vaultvec.settings import Settings
from vaultvec.tokenizing import encode_ahead

TIDY_EVERY = 10  # windows
LOOKED_AT = 100  # texts, for their language


class EmbeddingModel:
    """One model. The engine and the baseline are each loaded on first use, so that one never pays for the other."""

    def __init__(
        self,
        model_name: str = L6,
        *,
        settings: Settings | None = None,
        models_dir: Path | None = None,
        device: str | None = None,
        notify: Callable[[str], None] = ignore,
    ) -> None:
        """`notify` hears what a user should know, a line at a time; without it, of that the weightiest comes as a warning.

        `device` is the baseline's: "cpu", "cuda" or "mps"; None lets sentence-transformers choose."""
        self.settings = settings or Settings()
        self.models_dir = models_dir or self.settings.models_dir
        self.device = device
        self._notify = notify
        self._asked = resolve(model_name)
        self._engine: Engine | None = None
        self._reference: Any = None
        self._heard = False  # whether a first text was looked at

    @property
    def engine(self) -> Engine:
        """The engine behind `get_embeddings_batch_fast`."""
        if self._engine is None:
            self._engine = create_engine(self.settings, self._asked, self.models_dir, self._notify)
        return self._engine

    @property
    def model(self) -> ModelSpec:
        """The model, its dim and token limit known."""
        return self._engine.model if self._engine else resolve_model(self._asked, self.models_dir)

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self.model.dim

    @property
    def reference(self) -> Any:
        """The SentenceTransformer behind the baseline. Raises ModelError for a model that it cannot run."""
        if self._reference is None:
            from vaultvec.engines.reference import load_reference

            self._reference = load_reference(self.model, self.device)
        return self._reference

    def close(self) -> None:
        """Release engine and baseline; the next call loads them again."""
        if self._engine is not None:
            self._engine.close()
        self._engine = self._reference = None

    def get_embeddings_batch(self, texts: Sequence[str], batch_size: int = 32) -> Vectors:
        """The guide's "before": sentence-transformers' own `encode`, padded batches of `batch_size` texts.

        Vectors (n, dim) float32, unit rows, in the texts' order.
        A model that sentence-transformers has no form of runs in its own engine, `batch_size` texts a call.
        """
        texts = _checked(texts, batch_size)
        if not texts:
            return np.zeros((0, self.dim), dtype=np.float32)
        self._look_at(texts)
        if self._asked.kind != "transformer":
            return np.concatenate([self.engine.embed_documents(part) for part in _slices(texts, batch_size)])
        return self._encode(texts, batch_size)

    def get_embeddings_batch_fast(
        self, texts: Sequence[str], batch_size: int = 2000, show_progress: bool = True
    ) -> Vectors:
        """Vectors (n, dim) float32, unit rows, in the texts' order.

        `batch_size` texts are gathered and sorted by length at a time, then cut by token budget.
        No gradients, the fastest device and native precision; memory is tidied every ten windows.
        Raises EngineError when a text cannot be embedded.
        """
        texts = _checked(texts, batch_size)
        if not texts:
            return np.zeros((0, self.dim), dtype=np.float32)
        self._look_at(texts)
        engine = self.engine
        engine.window = batch_size
        out = np.zeros((len(texts), engine.dim), dtype=np.float32)
        with _progress(show_progress) as progress:
            task = progress.add_task("embedding", total=len(texts))
            for result in engine.embed_batches(engine.plan(self._items(texts, batch_size))):
                if result.failed:
                    raise EngineError(f"{engine.model.name} could not embed a text: {result.failed[0][1]}")
                out[[item.index for item in result.batch.items]] = result.vectors
                progress.advance(task, len(result.batch.items))
        return out

    def _look_at(self, texts: Sequence[str]) -> None:
        """Say once, to `notify` or as a warning, that the model does not know the language of the first texts."""
        if self._heard:
            return
        self._heard = True
        languages = [code for code in map(language_of, texts[:LOOKED_AT]) if code]
        foreign = [code for code in languages if not knows(self._asked, code)]
        if len(foreign) > OTHER_SHARE * len(languages):
            most = max(sorted(set(foreign)), key=foreign.count)
            better = (
                f'EmbeddingModel("{USE}")' if knows(resolve(USE), most) else "another model (python main.py models)"
            )
            line = f"{self._asked.name} does not know the language of these texts ({most}): their vectors tell next to nothing"
            if self._notify is ignore:
                warnings.warn(f"{line}; take {better}", stacklevel=3)
            else:
                self._notify(line)

    def _items(self, texts: Sequence[str], batch_size: int) -> Iterator[Encoded]:
        """Token ids, one window at a time, made in a thread while those before are in the engine."""
        spec = self.engine.model
        parts = ([spec.document_prefix + text for text in part] for part in _slices(texts, batch_size))
        index = 0
        for window, (part, rows) in enumerate(encode_ahead(self.engine.tokenizer, parts, spec.max_tokens), start=1):
            for text, row in zip(part, rows, strict=True):
                yield Encoded(index, text, row)
                index += 1
            if window % TIDY_EVERY == 0:
                self.tidy()

    def tidy(self) -> None:
        """Collect garbage, and give the device's unused memory back."""
        gc.collect()
        loaded = self._engine or self._reference  # neither is loaded for this
        if loaded is not None and str(loaded.device).startswith("cuda"):
            from vaultvec.engines.torch_device import choose_device, free_cache

            free_cache(choose_device(str(loaded.device)))

    def _encode(self, texts: Sequence[str], batch_size: int) -> Vectors:
        rows: Vectors = self.reference.encode(
            [readable(self.model.document_prefix + text) for text in texts],  # as the engines do
            prompt="",  # our prefix is in place: the model's default prompt must not come on top
            batch_size=batch_size, normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False,
        )  # fmt: skip
        vectors: Vectors = np.asarray(rows, dtype=np.float32)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)  # a GPU may have made them in half precision
        vectors /= np.maximum(norms, np.float32(1e-12))
        return vectors


def _slices(texts: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(texts), size):
        yield texts[start : start + size]


def _checked(texts: Iterable[str], batch_size: int) -> list[str]:
    """As a list: a NumPy array, as `export` writes it, has no truth value, and a generator ends after one look."""
    if isinstance(texts, str):
        raise TypeError("texts is one string, expected a list of strings")
    texts = list(texts)
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"texts[{position}] is {type(text).__name__}, expected a string")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, expected 1 or more")
    return texts


def _progress(show: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=not show)
