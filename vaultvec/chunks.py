"""Note → Chunks: split at headings, small neighbours merged, cut by the model's own tokenizer, tokenised once.

A chunk's text is its context (title and heading path, one line) and its body. Units (paragraphs, or pieces of long
ones) are tokenised once; a chunk's ids are its units' ids in a row, because units are joined by line breaks and such
tokenizers (WordPiece, Unigram) tokenise around white space. Other tokenizers see the finished text once more.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vaultvec.datatypes import Chunk, Note, TokenIds
from vaultvec.markdown.pieces import HEADING_CHARS, Piece, names, pieces
from vaultvec.tokenizing import Tokenizer

# Raise when the same note gives other chunks: notes are then read again (equal texts keep their vectors).
CHUNKER_VERSION = 2
CONTEXT_SHARE = 3  # title and headings take at most 1/3 of a chunk
CHARS_PER_TOKEN = 12  # a chunk's characters are bounded too: one [UNK] can stand for a whole line of base64

# Where a text may be cut, the best first. Chinese and Japanese sentences end without a space.
_BREAKS = (re.compile(r"\n"), re.compile(r"(?<=[.!?…])\s+|(?<=[。！？])(?![。！？」』）”’])"), re.compile(r"\s+"))
_NO_IDS: TokenIds = np.empty(0, dtype=np.int32)


@dataclass(frozen=True, slots=True)
class ChunkLimits:
    """Sizes in tokens, special tokens and context included."""

    target: int  # what a chunk aims at
    minimum: int  # smaller sections are merged with their neighbours
    maximum: int  # the model's own limit

    def clipped(self) -> ChunkLimits:
        """The same, with the target no larger than the model's limit."""
        target = min(self.target, self.maximum)
        return ChunkLimits(target, min(self.minimum, target // 2), self.maximum)


@dataclass(slots=True)
class _Unit:
    """A paragraph, a piece of one, or a heading line."""

    text: str
    line: int  # index into the body's lines
    path: tuple[str, ...]  # headings above it, itself included when it is one
    is_heading: bool
    ids: TokenIds


class Chunker:
    """Cuts notes for one tokenizer. `document_prefix` is put before every text that is embedded, as the model asks."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        limits: ChunkLimits,
        document_prefix: str = "",
        boilerplate: frozenset[str] = frozenset(),
    ) -> None:
        """`boilerplate`: lines, stripped, that are left out where the note says anything else."""
        self.tokenizer = tokenizer
        self.boilerplate = boilerplate
        self.limits = limits.clipped()
        self.document_prefix = document_prefix
        # Without its last space, which belongs to the word after it: alone, some Unigram tokenizers make a token of it.
        prefix = document_prefix.rstrip()
        self._prefix = tokenizer.encode_plain([prefix])[0] if prefix else _NO_IDS
        self._joinable = tokenizer.joinable and (not prefix or prefix != document_prefix)
        self._overhead = len(tokenizer.prefix_ids) + len(tokenizer.suffix_ids) + len(self._prefix)

    def chunk(self, note: Note) -> list[Chunk]:
        """The chunks of a note in reading order; one without text has one chunk, its names. None exceeds the model's token
        limit."""
        found = list(pieces(note, self.boilerplate)) or list(pieces(note, frozenset()))
        title = note.title if found else ""
        units = self._units(found or names(note))
        if not units:
            return []
        context = _Context(self.tokenizer, title, self.limits.target // CONTEXT_SHARE)
        groups = _pack(units, self.limits, self._overhead, context)
        built = (chunk for group in groups for chunk in self._build(note, group, context))
        return [replace(chunk, slot=slot) for slot, chunk in enumerate(built)]

    def _units(self, found: Sequence[Piece]) -> list[_Unit]:
        """Headings and paragraphs of a note, none of them longer than a chunk's body may be."""
        room = self.limits.target - self._overhead - self.limits.target // CONTEXT_SHARE
        ids = self.tokenizer.encode_plain([piece.text for piece in found])
        return [
            _Unit(part, piece.line + offset, piece.path, piece.is_heading, part_ids)
            for piece, row in zip(found, ids, strict=True)
            for part, part_ids, offset in self._fit(piece.text, row, max(8, room))
        ]

    def _fit(self, text: str, ids: TokenIds, room: int) -> Iterator[tuple[str, TokenIds, int]]:
        """Halve a text at line, sentence, word or, at worst, character until each part has at most `room` tokens."""
        stack = [(text, ids, 0)]
        while stack:
            part, row, offset = stack.pop()
            if (len(row) <= room and len(part) <= room * CHARS_PER_TOKEN) or len(part) < 2:
                yield part, row, offset
                continue
            cut, resume = _middle(part)
            left, right = part[:cut].rstrip(), part[resume:]
            left_ids, right_ids = self.tokenizer.encode_plain([left, right])
            stack.append((right, right_ids, offset + part.count("\n", 0, resume)))
            stack.append((left, left_ids, offset))

    def _build(self, note: Note, group: list[_Unit], context: _Context) -> Iterator[Chunk]:
        """The chunk of one group, its slot still 0; a group whose finished text is too long is halved."""
        body = _below_headings(group)
        path = _common_path(body)
        if all(unit.is_heading and unit.path == path for unit in body):
            path = path[:-1]  # a heading with nothing below it is the body
        prefix, prefix_ids, heading = context.of(path)
        if not all(unit.text == unit.path[-1] and unit.text in prefix for unit in group[: len(group) - len(body)]):
            body = group  # the context line was shortened, and does not say these headings
        body_text = "\n".join(unit.text for unit in body)
        text = f"{prefix}\n{body_text}" if prefix else body_text
        plain = [self._prefix, prefix_ids, *(u.ids for u in body)]
        if self._joinable and any(map(len, plain)):  # a text without a token may get one from its tokenizer
            parts = [self.tokenizer.prefix_ids, *plain, self.tokenizer.suffix_ids]
            ids = np.concatenate([np.asarray(part, dtype=np.int32) for part in parts])
        else:
            ids = self.tokenizer.encode([self.document_prefix + text])[0]
        if len(ids) > self.limits.maximum and len(group) > 1:
            middle = len(group) // 2
            yield from self._build(note, group[:middle], context)
            yield from self._build(note, group[middle:], context)
            return
        offset = len(prefix) + 1 if prefix else 0
        if len(ids) > self.limits.maximum:
            ids = self.tokenizer.encode([self.document_prefix + text], self.limits.maximum)[0]
        yield Chunk(note.path, 0, heading, text, offset, note.body_line + group[0].line, ids)


class _Context:
    """The line above a chunk's body: `Title > Heading > Subheading`, shortened from the middle to fit its budget."""

    def __init__(self, tokenizer: Tokenizer, title: str, budget: int) -> None:
        self._tokenizer = tokenizer
        self._title = title
        self._budget = budget
        self._known: dict[tuple[str, ...], tuple[str, TokenIds, str]] = {}
        self._fits = len(tokenizer.encode_plain([title])[0]) <= budget

    def of(self, path: tuple[str, ...]) -> tuple[str, TokenIds, str]:
        """(line, its ids, heading path as shown) for a heading path."""
        if path not in self._known:
            inner = path[1:] if path and path[0] == self._title else path
            # A title that is too long by itself gives way to the nearest heading; it is asked about only once.
            shown = [part for part in (self._title, *inner) if part] if self._fits or not inner else [inner[-1]]
            line, ids = self._fitting(shown)
            self._known[path] = (line, ids, " > ".join(inner)[:HEADING_CHARS])
        return self._known[path]

    def _fitting(self, parts: list[str]) -> tuple[str, TokenIds]:
        while parts:
            line = " > ".join(parts)
            ids = self._tokenizer.encode_plain([line])[0]
            if len(ids) <= self._budget:
                return line, ids
            if len(parts) > 2:
                del parts[1]  # title and the nearest heading say the most
            elif len(parts) == 2:
                del parts[0]
            else:
                shorter = parts[0][: len(parts[0]) * 2 // 3].rstrip()
                parts = [shorter] if shorter and shorter != parts[0] else []
        return "", _NO_IDS

    def cost(self, path: tuple[str, ...]) -> int:
        """Tokens of the line."""
        return len(self.of(path)[1])


def _middle(text: str) -> tuple[int, int]:
    """Where to halve a text: (end of the left part, start of the right), at the best break nearest the middle."""
    middle = len(text) // 2
    low, high = len(text) // 4, len(text) - len(text) // 4
    for pattern in _BREAKS:
        breaks = [m.span() for m in pattern.finditer(text, low, high) if m.start() > 0 and m.end() < len(text)]
        if breaks:
            return min(breaks, key=lambda span: abs(span[0] - middle))
    return middle, middle


def _below_headings(group: list[_Unit]) -> list[_Unit]:
    """A chunk's units without the leading headings that all the rest lies under: its context line already says
    those."""
    shared = group[-1].path
    paths = [shared]  # of the units from each one on
    for unit in reversed(group[:-1]):
        shared = _shared(shared, unit.path)
        paths.append(shared)
    paths.reverse()
    start = 0
    while start + 1 < len(group):
        unit = group[start]
        if not (unit.is_heading and paths[start + 1][: len(unit.path)] == unit.path):
            break
        start += 1
    while start and group[start].is_heading and group[start - 1].path == group[start].path:
        start -= 1  # pieces of one long heading, with no text below them here: they are the body
    return group[start:]


def _common_path(group: Sequence[_Unit]) -> tuple[str, ...]:
    """The longest heading path that every unit of a chunk lies under."""
    shared = group[0].path
    for unit in group[1:]:
        shared = _shared(shared, unit.path)
    return shared


def _shared(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    """The beginning that two paths have in common."""
    length = 0
    for ours, theirs in zip(one, other, strict=False):
        if ours != theirs:
            break
        length += 1
    return one[:length]


def _pack(units: list[_Unit], limits: ChunkLimits, overhead: int, context: _Context) -> list[list[_Unit]]:
    """Group units into chunks: sections stay whole where they fit, small neighbours share a chunk, tails join the
    last."""
    groups: list[list[_Unit]] = []
    sizes: list[int] = []
    chars_limit = limits.target * CHARS_PER_TOKEN
    for section in _sections(units):
        size = sum(len(unit.ids) for unit in section)
        if groups and min(sizes[-1], size) < limits.minimum:
            fixed = overhead + context.cost(_common_path(groups[-1] + section))
            if fixed + sizes[-1] + size <= limits.target and _chars(groups[-1] + section) <= chars_limit:
                groups[-1] = groups[-1] + section
                sizes[-1] += size
                continue
        first = len(groups)
        fixed = overhead + max(context.cost(unit.path) for unit in section)
        current: list[_Unit] = []
        tokens = chars = 0
        for unit in section:
            if current and (fixed + tokens + len(unit.ids) > limits.target or chars + len(unit.text) > chars_limit):
                groups.append(current)
                sizes.append(tokens)
                current, tokens, chars = [], 0, 0
            current.append(unit)
            tokens += len(unit.ids)
            chars += len(unit.text) + 1
        tail_fits = len(groups) > first and fixed + sizes[-1] + tokens <= limits.maximum
        if tail_fits and tokens < limits.minimum:
            groups[-1] = groups[-1] + current
            sizes[-1] += tokens
        else:
            groups.append(current)
            sizes.append(tokens)
    return groups


def _sections(units: list[_Unit]) -> Iterator[list[_Unit]]:
    """Units from one heading to the next; a heading with nothing below it goes with what follows."""
    section: list[_Unit] = []
    has_text = False
    for unit in units:
        if unit.is_heading and has_text:
            yield section
            section, has_text = [], False
        section.append(unit)
        has_text = has_text or not unit.is_heading
    if section:
        yield section


def _chars(group: Sequence[_Unit]) -> int:
    return sum(len(unit.text) + 1 for unit in group)
