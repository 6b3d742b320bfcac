"""What a server means when it does not answer with vectors: later, never with these texts, or nobody is there."""

from __future__ import annotations

OVERLOADED = (408, 409, 425, 429, 503)  # statuses that say: later
# Words of servers that refuse a text for its length; those in the second row refuse it with a status of 500.
TOO_LONG = ("context", "too long", "length", "tokens", "too large")
TOO_LONG_500 = ("too large to process", "larger than the max context")  # llama.cpp


class ServerBusy(Exception):
    """The server may do it later: 429, 5xx, a timeout, a dropped connection. `wait` (s) is its Retry-After.

    `overloaded`: it has too much to do, which is no text's fault; another failure may be.
    """

    def __init__(
        self, reason: str, *, wait: float | None = None, timed_out: bool = False, overloaded: bool = False
    ) -> None:
        super().__init__(reason)
        self.wait = wait
        self.timed_out = timed_out
        self.overloaded = overloaded


class ServerAbsent(ServerBusy):
    """Nobody listens at the address."""


class RequestRejected(Exception):
    """The server will not do it for these texts: 4xx, or an answer that cannot be right."""


def refusal(status: int, reason: str, wait: float | None = None) -> ServerBusy | RequestRejected:
    """What a status says: try again later, or not with these texts."""
    text = reason.lower()
    again = status in OVERLOADED or status >= 500
    if again and not any(words in text for words in TOO_LONG_500):
        return ServerBusy(reason, wait=wait, overloaded=status in OVERLOADED)
    return RequestRejected(reason)


def is_length(reason: str) -> bool:
    """Whether a text was refused for its length."""
    return any(word in reason.lower() for word in TOO_LONG)
