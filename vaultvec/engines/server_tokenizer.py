"""Token counts for a model whose tokenizer sits on a server: an estimate that errs on the long side."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from vaultvec.datatypes import TokenIds

SPECIAL_TOKENS = 2  # [CLS] and [SEP], or a begin and an end mark
# Tokens a character, rounded up for each word. Against all-MiniLM-L6-v2's WordPiece on 448 mostly English notes the
# estimate is 1.17 times the truth (median), and under it on none by more than 1 %. Hangul in an English WordPiece falls
# apart into letters, 1.7 times the estimate: there the engine shortens what the server refuses.
LATIN_COST, ACCENTED_COST, DIGIT_COST, OTHER_COST, ASTRAL_COST = 0.33, 0.5, 0.5, 1.0, 2.0


@cache
def _costs() -> NDArray[np.float32]:
    """Tokens a character by code point: 65,536 of the basic plane, then one for all beyond. White space is 0."""
    costs = np.full(65537, OTHER_COST, dtype=np.float32)
    costs[65536] = ASTRAL_COST  # emoji and rare Han: one or more byte pieces
    costs[0xC0:0x530] = ACCENTED_COST  # accented Latin, Greek, Cyrillic
    costs[ord("0") : ord("9") + 1] = DIGIT_COST
    for first in "aA":
        costs[ord(first) : ord(first) + 26] = LATIN_COST
    costs[[code for code in range(0x3001) if chr(code).isspace()]] = 0.0
    return costs


class ServerTokenizer:
    """Estimates how many tokens a text has; ids are zeros of that length. Additive over words, so it is joinable."""

    prefix_ids: tuple[int, ...] = (0,)
    suffix_ids: tuple[int, ...] = (0,)
    joinable = True

    def encode(self, texts: Sequence[str], max_tokens: int | None = None) -> list[TokenIds]:
        """Zeros, one a token, special tokens included, at most `max_tokens` of them."""
        counts = [self.count(text) + SPECIAL_TOKENS for text in texts]
        return [np.zeros(min(count, max_tokens or count), dtype=np.int32) for count in counts]

    def encode_plain(self, texts: Sequence[str]) -> list[TokenIds]:
        """Zeros, one a token, without special tokens."""
        return [np.zeros(self.count(text), dtype=np.int32) for text in texts]

    def count(self, text: str) -> int:
        """Estimated tokens of a text, without special tokens."""
        return int(_word_counts(_char_costs(text))[1].sum())

    def cut(self, text: str, max_tokens: int) -> str:
        """The longest run of whole words from the start that fits into `max_tokens`, special tokens included."""
        room = max(1, max_tokens - SPECIAL_TOKENS)
        costs = _char_costs(text)
        starts, counts = _word_counts(costs)
        fitting = int(np.searchsorted(np.cumsum(counts), room, side="right"))
        if fitting == len(counts):
            return text
        if fitting == 0:  # the first word alone is too long: a URL, or a line of Chinese
            return text[: int(np.searchsorted(np.cumsum(costs), room, side="right"))]
        return text[: int(starts[fitting])].rstrip()


def _char_costs(text: str) -> NDArray[np.float32]:
    """Tokens of each character, (len(text),)."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    costs: NDArray[np.float32] = _costs()[np.minimum(codes, 65536)]
    return costs


def _word_counts(costs: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Where each word starts, and its tokens: a word is at least one token."""
    solid = costs > 0
    starts = np.flatnonzero(solid & ~np.concatenate([[False], solid[:-1]]))
    if not len(starts):
        return starts, np.zeros(0, dtype=np.int64)
    return starts, np.ceil(np.add.reduceat(costs, starts)).astype(np.int64)
