"""What a tokenizer is to the chunker and to the engines."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from vaultvec.datatypes import TokenIds

AHEAD = 2  # parts of the texts that are tokenised before they are asked for


class Tokenizer(Protocol):
    """The model's own tokenizer, safe to use from several threads. Nothing is padded."""

    def encode(self, texts: Sequence[str], max_tokens: int | None = None) -> list[TokenIds]:
        """Token ids of each text with special tokens, cut to `max_tokens` (specials included) when given."""
        ...

    def encode_plain(self, texts: Sequence[str]) -> list[TokenIds]:
        """Token ids of each text without special tokens, never cut."""
        ...

    @property
    def prefix_ids(self) -> tuple[int, ...]:
        """Special tokens before a text, such as [CLS]."""
        ...

    @property
    def suffix_ids(self) -> tuple[int, ...]:
        """Special tokens after a text, such as [SEP]."""
        ...

    @property
    def joinable(self) -> bool:
        """True if pieces joined by white space tokenise to the joined pieces' ids (WordPiece, Unigram)."""
        ...


def encode_ahead(
    tokenizer: Tokenizer, parts: Iterable[Sequence[str]], max_tokens: int | None = None
) -> Iterator[tuple[Sequence[str], list[TokenIds]]]:
    """Each part of the texts with its token ids, made in a thread while the caller works on the part before.

    The thread is at most AHEAD parts in front. The tokenizer must be thread-safe; its library tokenises on all cores
    and outside of Python's lock, so that the thread which feeds a GPU is hardly held up.
    """
    waiting: deque[tuple[Sequence[str], Future[list[TokenIds]]]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="tokenizer") as pool:
        try:
            for part in parts:
                waiting.append((part, pool.submit(tokenizer.encode, part, max_tokens)))
                if len(waiting) > AHEAD:
                    ready, rows = waiting.popleft()
                    yield ready, rows.result()
            while waiting:
                ready, rows = waiting.popleft()
                yield ready, rows.result()
        finally:
            for _, rows in waiting:
                rows.cancel()
