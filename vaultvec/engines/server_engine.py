"""What the engines behind an address share: a character budget, retries, bisection, the check of answers.

A server loses a whole array for one bad text, so a refused array is halved until the bad text stands alone.
"""

from __future__ import annotations

import ipaddress
import random
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from vaultvec.batching import windows
from vaultvec.datatypes import Batch, BatchResult, Encoded, Vectors
from vaultvec.engines.base import Engine
from vaultvec.engines.server_tokenizer import ServerTokenizer
from vaultvec.errors import EngineError, SettingsError
from vaultvec.models import ModelSpec

Notify = Callable[[str], None]  # takes one line for the user

CHARACTER_BUDGET = 16_000  # characters a request: enough to hide HTTP, little enough to lose when it fails
SAFE_CONTEXT = 2048  # tokens: Ollama's num_batch; a longer text is refused by some versions whatever the model takes
UNKNOWN_CONTEXT = 512  # tokens, when neither the server nor the catalogue tells: what BERT models take
SAME_COSINE = 0.999  # an array and a single request must agree on a text at least this well
LONGEST_WAIT = 60.0  # seconds that a Retry-After may ask for
PROBE = "warm up"  # harmless text: if the server fails on it too, the fault is not in a note
# Words of servers that refuse a text for its length.
TOO_LONG = ("context", "too long", "length", "tokens", "too large")


class ServerBusy(Exception):
    """The server may do it later: 429, 5xx, a timeout, a dropped connection. `wait` (s) is its Retry-After."""

    def __init__(self, reason: str, *, wait: float | None = None, timed_out: bool = False) -> None:
        super().__init__(reason)
        self.wait = wait
        self.timed_out = timed_out


class RequestRejected(Exception):
    """The server will not do it for these texts: 4xx, or an answer that cannot be right."""


class PartlyFailed(EngineError):
    """Some texts of a batch have no vector; `result` holds the others."""

    def __init__(self, result: BatchResult) -> None:
        super().__init__(f"a text could not be embedded: {result.failed[0][1]}")
        self.result = result


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to try: retries of a request, the first pause (s, doubled each time), and time allowed for the work."""

    retries: int = 5
    backoff: float = 0.5
    load_seconds: float = 120.0  # for every request: the server may have to load the model first
    slowest: float = 20.0  # characters a second of the slowest server worth waiting for (a 4B model on a CPU)


@dataclass(frozen=True, slots=True)
class Address:
    """A server's base address, checked. `local` is true when it is this machine."""

    url: str
    host: str
    local: bool

    @property
    def encrypted(self) -> bool:
        """Whether certificates are needed; loading them takes 30 ms a client, so plain HTTP goes without."""
        return self.url.lower().startswith("https:")


def parse_address(url: str, setting: str) -> Address:
    """Check an address from config.py. Raises SettingsError with one line that names the setting."""
    example = f"expected something like http://127.0.0.1:11434; set {setting} in config.py"
    text = url.strip()
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise SettingsError(f"{setting} is not an address that can be read, {example}") from None
    if parts.username is not None or parts.password is not None:
        raise SettingsError(f"{setting} carries a name or password before '@'; leave it out ({example})")
    if parts.scheme not in ("http", "https") or not host or any(c.isspace() for c in text) or port == 0:
        raise SettingsError(f"{setting} is {url!r}, {example}")
    if parts.query or parts.fragment:
        raise SettingsError(f"{setting} must end before '?' and '#', {example}")
    return Address(text.rstrip("/"), host, _is_local(host))


def _is_local(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return False
    return ip.is_loopback or ip.is_unspecified


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
    """A model behind an address. Subclasses make the one request; `_ask` may run in `streams` threads."""

    tokenizer: ServerTokenizer
    setting: str  # name of the address in config.py
    precision = "as served"

    def __init__(
        self, model: ModelSpec, address: Address, *, window: int, max_texts: int, patience: Patience, notify: Notify
    ) -> None:
        super().__init__(model, ServerTokenizer(), token_budget=CHARACTER_BUDGET // 3, window=window)
        self.address = address
        self.device = address.url
        self.max_texts = max_texts  # texts a request
        self.patience = patience
        self.notify = notify
        self._seconds_per_character = 0.0  # measured; 0 = nothing measured yet
        self._agreement_lock = threading.Lock()
        self._agreed = False

    @abstractmethod
    def _ask(self, texts: Sequence[str], timeout: float) -> Any:
        """One request: a row of numbers for each text. Raises ServerBusy, RequestRejected, EngineError."""

    def plan(self, items: Iterable[Encoded]) -> Iterator[Batch]:
        """Batches under the character budget, in the given order, each sorted longest first."""
        for window in windows(items, self.window):
            for run in pack([len(item.text) for item in window], CHARACTER_BUDGET, self.max_texts):
                yield Batch(tuple(sorted((window[i] for i in run), key=len, reverse=True)))

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
            rows = self._try(texts, retries=1 if probed else self.patience.retries)
            return self._agreeing(texts, rows), {}
        except (RequestRejected, ServerBusy) as error:
            reason = str(error)
        if not probed:
            self._probe(reason)
        if len(texts) == 1:
            return self._embed_shortened(texts[0], reason)
        middle = len(texts) // 2
        first, first_failed = self._embed_group(texts[:middle], probed=True)
        second, second_failed = self._embed_group(texts[middle:], probed=True)
        moved = {middle + i: why for i, why in second_failed.items()}
        return np.concatenate([first, second]), first_failed | moved

    def _embed_shortened(self, text: str, reason: str) -> tuple[Vectors, dict[int, str]]:
        """A text refused alone: cut in half, up to four times, if its length is what the server minds; else failed."""
        for _ in range(4):
            if len(text) < 2 or not any(word in reason.lower() for word in TOO_LONG):
                break
            text = text[: len(text) // 2]
            try:
                return self._try([text], retries=1), {}
            except (RequestRejected, ServerBusy) as error:
                reason = str(error)
        return np.zeros((1, self.dim), dtype=np.float32), {0: reason}

    def _probe(self, reason: str) -> None:
        """Raises EngineError when the server fails on a harmless text too: then no text is to blame."""
        try:
            self._try([PROBE], retries=1)
        except (RequestRejected, ServerBusy) as error:
            raise EngineError(
                f"{self.name} at {self.device} fails on every text ({reason or error}); "
                f"look at the server's log, or check {self.setting} and EMBEDDING_MODEL in config.py"
            ) from None

    def _try(self, texts: Sequence[str], retries: int) -> Vectors:
        """One request with retries. Vectors (n, dim), unit rows. Raises ServerBusy, RequestRejected, EngineError."""
        attempt = 0
        while True:
            started = time.monotonic()
            try:
                rows = self._ask(texts, self._timeout(texts))
                vectors = self._unit_rows(rows, len(texts))
            except ServerBusy as error:
                if attempt >= (min(1, retries) if error.timed_out else retries):
                    raise
                self._pause(attempt, error.wait)
                attempt += 1
            else:
                self._measure(texts, time.monotonic() - started)
                return vectors

    def _pause(self, attempt: int, wait: float | None) -> None:
        """Exponential backoff with jitter, or what Retry-After asks for, up to a minute."""
        pause = self.patience.backoff * 2**attempt * random.uniform(0.75, 1.25) if wait is None else wait
        time.sleep(min(max(pause, 0.0), LONGEST_WAIT))

    def _timeout(self, texts: Sequence[str]) -> float:
        """Seconds allowed: ten times what the measured speed says, or that of the slowest server worth waiting for."""
        characters = sum(map(len, texts))
        per_character = 10 * self._seconds_per_character or 1 / self.patience.slowest
        return self.patience.load_seconds + characters * per_character

    def _measure(self, texts: Sequence[str], seconds: float) -> None:
        measured = seconds / max(1, sum(map(len, texts)))
        self._seconds_per_character = max(measured, 0.9 * self._seconds_per_character)

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
        return np.concatenate([self._try([text], retries=self.patience.retries) for text in texts])
