"""What a tokenizer is to the chunker and to the engines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from vaultvec.datatypes import TokenIds


class Tokenizer(Protocol):
    """The model's own tokenizer. Ids carry the special tokens; nothing is padded."""

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
