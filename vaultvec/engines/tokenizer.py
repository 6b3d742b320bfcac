"""The model's own tokenizer.json, read by the `tokenizers` library: no torch, no transformers, 40 ms to import."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from vaultvec.datatypes import TokenIds
from vaultvec.engines.tokenizer_threads import say_aloud
from vaultvec.errors import ModelError

# A text longer than this many characters for each token wanted is first tried by its head alone: a note of 2 MB
# that will be cut at 256 tokens need not be tokenised to its end. English has about 4.5 characters a token.
HEAD_CHARACTERS_PER_TOKEN = 32
# A head is believed when it has this many tokens more than wanted: the word its end cuts through is then not in use.
SPARE_TOKENS = 128
# Texts tokenised at a time: the library keeps offsets and masks of all of them until they are turned into arrays.
TOKENIZE_BATCH = 512
_PROBE = ("Notes link to other notes", "one two", "three.", "a b")


class HfTokenizer:
    """A tokenizer.json without truncation and padding. Thread-safe; ids are int32."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tokenizer, self._keeps_end = _load(path)
        self._prefix, self._suffix = self._find_specials()
        self._joinable = self._probe_joinable()

    def __reduce__(self) -> tuple[type[HfTokenizer], tuple[Path]]:
        """Travels to another process as its path."""
        return HfTokenizer, (self.path,)

    @property
    def prefix_ids(self) -> tuple[int, ...]:
        """Special tokens before a text, such as [CLS]."""
        return self._prefix

    @property
    def suffix_ids(self) -> tuple[int, ...]:
        """Special tokens after a text, such as [SEP]."""
        return self._suffix

    @property
    def joinable(self) -> bool:
        """True if pieces joined by white space tokenise to the joined pieces' ids (WordPiece, Unigram)."""
        return self._joinable

    def encode(self, texts: Sequence[str], max_tokens: int | None = None) -> list[TokenIds]:
        """Token ids of each text with special tokens, cut to `max_tokens` (specials included) when given."""
        if max_tokens is None:
            return self._rows(texts, None, self._prefix, self._suffix)[0]
        room = max(0, max_tokens - len(self._prefix) - len(self._suffix))
        if self._keeps_end:
            return self._rows(texts, room, self._prefix, self._suffix)[0]
        heads = [_head(text, room * HEAD_CHARACTERS_PER_TOKEN) for text in texts]
        rows, counts = self._rows(heads, room, self._prefix, self._suffix)
        wanted = room + SPARE_TOKENS
        short = [i for i, count in enumerate(counts) if count < wanted and len(heads[i]) < len(texts[i])]
        again, _ = self._rows([texts[i] for i in short], room, self._prefix, self._suffix)
        for i, row in zip(short, again, strict=True):
            rows[i] = row
        return rows

    def encode_plain(self, texts: Sequence[str]) -> list[TokenIds]:
        """Token ids of each text without special tokens, never cut."""
        return self._rows(texts, None)[0]

    def _rows(
        self, texts: Sequence[str], room: int | None, before: tuple[int, ...] = (), after: tuple[int, ...] = ()
    ) -> tuple[list[TokenIds], list[int]]:
        """Ids of each text, cut to `room` and dressed, and how many it had.

        The rows of TOKENIZE_BATCH texts are views of one array: converting ids text by text kept one core from feeding
        a GPU.
        """
        rows: list[TokenIds] = []
        counts: list[int] = []
        for start in range(0, len(texts), TOKENIZE_BATCH):
            batch = [readable(text) for text in texts[start : start + TOKENIZE_BATCH]]
            flat: list[int] = []
            ends = [0]
            for encoding in self._tokenizer.encode_batch_fast(batch, add_special_tokens=False):
                flat += before
                flat += encoding.ids[-room:] if self._keeps_end and room else encoding.ids[:room]
                flat += after
                ends.append(len(flat))
                counts.append(len(encoding))
            together = np.fromiter(flat, dtype=np.int32, count=len(flat))
            rows += [together[first:last] for first, last in pairwise(ends)]
        return rows, counts

    def _find_specials(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What the post-processor puts around a text: found by looking for the plain ids among the dressed ones."""
        plain = self._tokenizer.encode(_PROBE[0], add_special_tokens=False).ids
        dressed = self._tokenizer.encode(_PROBE[0], add_special_tokens=True).ids
        for start in range(len(dressed) - len(plain) + 1):
            if plain and dressed[start : start + len(plain)] == plain:
                return tuple(dressed[:start]), tuple(dressed[start + len(plain) :])
        raise ModelError(f"{self.path} does not keep a text together between its special tokens; choose another model")

    def _probe_joinable(self) -> bool:
        pieces = self.encode_plain(_PROBE)
        return all(
            np.array_equal(self.encode_plain([separator.join(_PROBE)])[0], np.concatenate(pieces))
            for separator in (" ", "\n", "\n\n")
        )


def _load(path: Path) -> tuple[Any, bool]:
    """The library's tokenizer, and whether it cuts a text at its start, as few models want it."""
    say_aloud()
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        prepared = (path.parent / "prepared.json").is_file()  # by this program, once
        cure = f"delete the folder {path.parent} and try again" if prepared else "get the model again"
        raise ModelError(f"{path} is no tokenizer.json that can be read ({error}); {cure}") from error
    keeps_end = (tokenizer.truncation or {}).get("direction", "").lower() == "left"
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer, keeps_end


def _head(text: str, characters: int) -> str:
    """The start of a long text, ending where a word ends if there is any white space."""
    if len(text) <= characters:
        return text
    cut = max(text.rfind(" ", 0, characters), text.rfind("\n", 0, characters))
    return text[: cut if cut > 0 else characters]


def readable(text: str) -> str:
    """Lone surrogates (broken file names, broken emoji) cannot cross into the library; they become U+FFFD."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
