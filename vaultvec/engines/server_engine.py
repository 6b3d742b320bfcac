"""What the engines behind an address share: a character budget, bisection, the check of answers.

A server loses a whole array for one bad text, so a refused array is halved until the bad text stands alone.
"""

from __future__ import annotations

import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import replace
from typing import Any, Self, TypeVar

import numpy as np

from vaultvec.datatypes import Batch, BatchResult, Encoded, Vectors
from vaultvec.engines.base import Engine, Notify
from vaultvec.engines.request_pool import RequestPool
from vaultvec.engines.served_revision import SAME_COSINE
from vaultvec.engines.server_address import Address
from vaultvec.engines.server_models import with_prefixes
from vaultvec.engines.server_patience import Patience, Retries
from vaultvec.engines.server_refusals import RequestRejected, ServerAbsent, ServerBusy, is_length
from vaultvec.engines.server_tokenizer import ServerTokenizer
from vaultvec.errors import EngineError
from vaultvec.models import ModelSpec

T = TypeVar("T")

CHARACTER_BUDGET = 16_000  # characters a request: enough to hide HTTP, little enough to lose when it fails
UNKNOWN_CONTEXT = 512  # tokens, when neither the server nor the catalogue tells: what BERT models take
CONNECT_SECONDS = 10.0
# Harmless text: if the server fails on it too, the fault is not in a note. Its vector tells models apart, and servers
# that cut words otherwise: of one model, llama.cpp and infinity give the same vectors in English, not in Korean.
PROBE = "A note about tea, née 차, written on 3 May. 정원에 대한 노트"


class PartlyFailed(EngineError):
    """Some texts of a batch have no vector; `result` holds the others."""

    def __init__(self, result: BatchResult) -> None:
        super().__init__(f"a text could not be embedded: {result.failed[0][1]}")
        self.result = result


def pack(lengths: Sequence[int], budget: int, max_count: int) -> Iterator[list[int]]:
    """Runs of positions, in order, whose lengths sum to at most `budget`; a longer text is a run of its own."""
    run: list[int] = []
    total = 0
    for position, length in enumerate(lengths):
        if run and (total + length > budget or len(run) >= max_count):
            yield run
            run, total = [], 0
        run.append(position)
        total += length
    if run:
        yield run


class ServerEngine(Engine):
    """A model behind an address. Subclasses read the server's facts and make the one request; `_ask` may run in
    `streams` threads."""

    tokenizer: ServerTokenizer
    setting: str  # name of the address in config.py
    precision = "as served"

    def __init__(
        self, model: ModelSpec, address: Address, *, window: int, max_texts: int, patience: Patience, notify: Notify
    ) -> None:
        spec = replace(with_prefixes(model), kind="server", sha256="", dim=0)
        super().__init__(spec, ServerTokenizer(), token_budget=CHARACTER_BUDGET // 3, window=window)
        self.address = address
        self.device = address.url
        self.max_texts = max_texts  # texts a request
        self.notify = notify
        self._retries = Retries(patience)
        self._agreement_lock = threading.Lock()
        self._agreed = False

    @abstractmethod
    def _read_facts(self) -> None:
        """Fill in the model's revision, context and dim. Raises EngineError, ModelError: one line, what to type."""

    @abstractmethod
    def _ask(self, texts: Sequence[str], timeout: float) -> Any:
        """One request: a row of numbers for each text. Raises ServerBusy, RequestRejected, EngineError."""

    def connected(self) -> Self:
        """The engine, once the server has told its facts; hangs up when it does not."""
        try:
            self._read_facts()
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Requests that nobody waits for any more are not tried again."""
        self._retries.end()

    def cut(self, items: Sequence[Encoded]) -> Iterator[Batch]:
        """One window, longest first, as one batch a request: what a server gets together is about equally long."""
        ordered = sorted(items, key=len, reverse=True)
        for run in pack([len(item.text) for item in ordered], CHARACTER_BUDGET, self.max_texts):
            yield Batch(tuple(ordered[i] for i in run))

    def _pool(self) -> Executor:
        return RequestPool(self.streams)

    def _embed_one(self, batch: Batch) -> BatchResult:
        """One batch; a text that cannot be embedded is reported and loses only itself."""
        try:
            return BatchResult(batch, self._timed_forward(batch))
        except PartlyFailed as error:
            return error.result

    def _forward(self, batch: Batch) -> Vectors:
        texts = [self._prepared(item.text) for item in batch.items]
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        failed = {i: "the text is empty" for i, text in enumerate(texts) if not text}
        full = [i for i, text in enumerate(texts) if text]
        for run in pack([len(texts[i]) for i in full], CHARACTER_BUDGET, self.max_texts):
            positions = [full[i] for i in run]
            rows, reasons = self._embed_group([texts[i] for i in positions])
            vectors[positions] = rows
            failed.update({positions[i]: reason for i, reason in reasons.items()})
        if failed:
            raise PartlyFailed(BatchResult(batch, vectors, tuple(sorted(failed.items()))))
        return vectors

    def _prepared(self, text: str) -> str:
        """The text cut to the model's context; lone surrogates, which JSON cannot carry, become '?'."""
        clean = text.encode("utf-8", "replace").decode("utf-8")
        return "" if clean.isspace() else self.tokenizer.cut(clean, self.model.max_tokens)

    def _embed_group(self, texts: list[str], probed: bool = False) -> tuple[Vectors, dict[int, str]]:
        """Vectors (n, dim) of one request, halved where it is refused, and the reason of each text that has none."""
        try:
            rows = self._try(texts, retries=1 if probed else None)
            return self._agreeing(texts, rows), {}
        except (RequestRejected, ServerBusy) as error:
            reason = str(error)
            if len(texts) == 1:
                self._raise_if_overloaded(error)
            refused_for_count = isinstance(error, RequestRejected) and not is_length(reason)
            away = isinstance(error, ServerBusy) and not error.timed_out
        if not probed:
            self._probe(reason)  # patient: a text may have brought the server down, and it starts again
        elif away and len(texts) == 1:
            self._probe(reason)  # the text before may have: this one waits too, and gets another chance
            with suppress(RequestRejected, ServerBusy):
                return self._try(texts, retries=0), {}
        if len(texts) == 1:
            return self._embed_shortened(texts[0], reason)
        middle = len(texts) // 2
        first, first_failed = self._embed_group(texts[:middle], probed=True)
        second, second_failed = self._embed_group(texts[middle:], probed=True)
        if refused_for_count and not first_failed and not second_failed:
            self.max_texts = min(self.max_texts, len(texts) - middle)  # else every batch to come is refused and halved
        moved = {middle + i: why for i, why in second_failed.items()}
        return np.concatenate([first, second]), first_failed | moved

    def _embed_shortened(self, text: str, reason: str) -> tuple[Vectors, dict[int, str]]:
        """A text refused alone: cut in half, up to four times, if its length is what the server minds; else failed."""
        for _ in range(4):
            if len(text) < 2 or not is_length(reason):
                break
            text = text[: len(text) // 2]
            try:
                return self._try([text], retries=1), {}
            except (RequestRejected, ServerBusy) as error:
                self._raise_if_overloaded(error)
                reason = str(error)
        return np.zeros((1, self.dim), dtype=np.float32), {0: reason}

    def _raise_if_overloaded(self, error: Exception) -> None:
        """A rate limit speaks of tokens too: it must neither cut a text nor fail it."""
        if isinstance(error, ServerBusy) and error.overloaded:
            raise EngineError(
                f"{self.name} at {self.device} takes no more just now ({error}); what is embedded is kept: "
                "repeat the command later, or lower STREAMS in config.py"
            ) from None

    def _probe(self, reason: str) -> None:
        """Raises EngineError when the server fails on a harmless text too: then no text is to blame."""
        try:
            self._try([PROBE])
        except (RequestRejected, ServerBusy) as error:
            raise EngineError(
                f"{self.name} at {self.device} fails on every text ({reason or error}); what is embedded is kept: "
                f"start the server again, or look at its log and at {self.setting} in config.py, "
                "then repeat the command"
            ) from None

    def _first_vector(self, served_name: str, advice: str) -> Vectors:
        """Vector (dim,) of the probe, from a server whose `dim` is not known yet."""
        try:
            row: Vectors = self._try([PROBE])[0]
        except (ServerBusy, RequestRejected) as error:
            raise EngineError(
                f"the server at {self.device} does not embed with {served_name} ({error}); {advice}"
            ) from None
        return row

    def _try(self, texts: Sequence[str], retries: int | None = None) -> Vectors:
        """One request and up to `retries` more: (n, dim), unit rows. Raises ServerBusy, RequestRejected, EngineError."""

        def once() -> Vectors:
            started = time.monotonic()
            vectors = self._unit_rows(self._ask(texts, self._retries.timeout(texts)), len(texts))
            self._retries.took(texts, time.monotonic() - started)
            return vectors

        return self._retries.run(once, retries)

    def _fact(self, request: Callable[[], T], what: str) -> T:
        """What the server says of its model, asked for as patiently as a vector.

        A guess in its place would enter the fingerprint, and the whole vault would be embedded again. Raises ServerAbsent
        where nobody listens, EngineError for a server that stays busy.
        """
        try:
            return self._retries.run(request, running=False)
        except ServerAbsent:
            raise
        except ServerBusy as error:
            raise EngineError(
                f"{self.name} at {self.device} does not tell {what} ({error}); look at the server's log, "
                "then repeat the command"
            ) from None

    def _unit_rows(self, rows: Any, count: int) -> Vectors:
        """Check count, width, finiteness and length of what came back; rows are scaled to unit length."""
        if len(rows) != count:
            raise RequestRejected(f"the server returned {len(rows)} vectors for {count} texts")
        try:
            vectors = np.asarray(rows, dtype=np.float32)
        except (ValueError, TypeError):
            raise RequestRejected("the server returned rows that are not vectors of one length") from None
        if vectors.ndim != 2 or not vectors.shape[1]:
            raise RequestRejected("the server returned an empty vector")
        if self.dim and vectors.shape[1] != self.dim:
            raise EngineError(
                f"{self.name} at {self.device} returned vectors of {vectors.shape[1]} numbers for {self.model.name}, "
                f"expected {self.dim}: the model behind the address has changed; run: python main.py index --full"
            )
        norms = np.linalg.norm(vectors, axis=1)
        if not np.isfinite(norms).all():
            raise RequestRejected("the server returned a vector that is not finite (NaN)")
        if norms.min() <= 1e-6:
            raise RequestRejected("the server returned a zero vector")
        unit: Vectors = vectors / norms[:, None]
        return unit

    def _agreeing(self, texts: list[str], vectors: Vectors) -> Vectors:
        """Once a model: the array's last vector must be that of the text alone, else one text a request from here on.

        Some servers drift with the length of the array (https://github.com/ollama/ollama/issues/6262).
        """
        if len(texts) == 1:
            return vectors
        with self._agreement_lock:
            if not self._agreed:
                cosine = float(self._try(texts[-1:], retries=1)[0] @ vectors[-1])
                self._agreed = True
                if cosine < SAME_COSINE:
                    self.max_texts = 1
                    self.notify(
                        f"{self.name}: {self.model.name} gives other vectors in an array than alone "
                        f"(cosine {cosine:.4f}); texts are sent one at a time, which is slower"
                    )
        if self.max_texts > 1:
            return vectors
        return np.concatenate([self._try([text]) for text in texts])
