"""How long a server is waited for, and how often it is asked again."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from vaultvec.engines.server_refusals import ServerAbsent, ServerBusy

T = TypeVar("T")

LONGEST_WAIT = 60.0  # seconds that a Retry-After may ask for


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to try: retries of a request, the first pause (s, doubled each time), and time allowed for the work."""

    retries: int = 5
    backoff: float = 0.5
    load_seconds: float = 120.0  # for every request: the server may have to load the model first
    slowest: float = 20.0  # characters a second of the slowest server worth waiting for (a 4B model on a CPU)


class Retries:
    """The requests to one server: each is made again while it is busy, and given time by what earlier ones took."""

    def __init__(self, patience: Patience) -> None:
        self.patience = patience
        self._ended = threading.Event()
        self._seconds_per_character = 0.0  # measured; 0 = nothing measured yet

    def end(self) -> None:
        """Nobody waits for an answer any more: what fails from here on is not tried again."""
        self._ended.set()

    def run(self, request: Callable[[], T], most: int | None = None, *, running: bool = True) -> T:
        """A request, made again up to `most` times (None: as patience has it) while the server is busy.

        `running`: it was there, so it may be starting again. Raises what the last try raises.
        """
        most = self.patience.retries if most is None else most
        attempt = 0
        while True:
            try:
                return request()
            except ServerBusy as error:
                hopeless = self._ended.is_set() or (isinstance(error, ServerAbsent) and not running)
                if hopeless or attempt >= (min(1, most) if error.timed_out else most):
                    raise
                self._pause(attempt, error.wait)
                attempt += 1

    def _pause(self, attempt: int, wait: float | None) -> None:
        """Exponential backoff with jitter, or what Retry-After asks for, up to a minute."""
        pause = self.patience.backoff * 2**attempt * random.uniform(0.75, 1.25) if wait is None else wait
        self._ended.wait(min(max(pause, 0.0), LONGEST_WAIT))

    def timeout(self, texts: Sequence[str]) -> float:
        """Seconds allowed: ten times what the measured speed says, or that of the slowest server worth waiting for."""
        per_character = 10 * self._seconds_per_character or 1 / self.patience.slowest
        return self.patience.load_seconds + sum(map(len, texts)) * per_character

    def took(self, texts: Sequence[str], seconds: float) -> None:
        """Learn from a request that was answered."""
        measured = seconds / max(1, sum(map(len, texts)))
        self._seconds_per_character = max(measured, 0.9 * self._seconds_per_character)
