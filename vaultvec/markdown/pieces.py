"""Note → pieces: each heading and each paragraph, with the headings it lies under. What no tokenizer is needed for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from vaultvec.datatypes import Note
from vaultvec.markdown.blocks import headings

SEGMENT_CHARS = 2000  # longer lines are cut before they are tokenised, so that time stays linear
HEADING_CHARS = 500  # of a heading in a heading path, which every chunk below it repeats; its own line stays whole
MOST_NAMES = 20  # aliases that stand for a note without text

_SEGMENT_END = re.compile(r"\s|[。！？]")


class Piece(NamedTuple):
    """A heading, or a paragraph or a segment of one."""

    text: str
    line: int  # index into the body's lines
    path: tuple[str, ...]  # headings above it, itself included when it is one
    is_heading: bool


def pieces(note: Note, boilerplate: frozenset[str]) -> Iterator[Piece]:
    """The headings and paragraphs of a note in reading order; `boilerplate`: lines, stripped, that are left out."""
    found = {line: (level, text) for line, level, text in headings(note.body)}
    stack: list[tuple[int, str]] = []  # (level, text) of the headings that are open
    path: tuple[str, ...] = ()
    paragraph: list[str] = []
    start = 0

    def flush() -> Iterator[Piece]:
        yield from (Piece(part, start + offset, path, False) for part, offset in _segments("\n".join(paragraph)))
        paragraph.clear()

    skip_underline = False
    for index, line in enumerate(note.body.split("\n")):
        if index in found:
            yield from flush()
            level, text = found[index]
            while stack and stack[-1][0] >= level:
                stack.pop()
            stack.append((level, text))
            path = tuple(heading[:HEADING_CHARS] for _, heading in stack if heading)
            if text and line.strip() not in boilerplate:
                yield Piece(text, index, path, True)
            skip_underline = not line.lstrip().startswith("#")
        elif skip_underline:
            skip_underline = False  # the === or --- below a setext heading
        elif not line.strip() or line.strip() in boilerplate:
            yield from flush()
        else:
            if not paragraph:
                start = index
            paragraph.append(line.rstrip())
    yield from flush()


def names(note: Note) -> list[Piece]:
    """What a note without text is called: it is found by that."""
    return [Piece(name, 0, (), False) for name in (note.title, *note.aliases[:MOST_NAMES]) if name.strip()]


def _segments(text: str) -> Iterator[tuple[str, int]]:
    """Cut a paragraph into stretches of at most SEGMENT_CHARS, at white space or a full stop where there is some."""
    position = line = 0
    while position < len(text):
        end = min(len(text), position + SEGMENT_CHARS)
        if end < len(text):
            ends = [match.end() for match in _SEGMENT_END.finditer(text, position + 1, end)]
            end = ends[-1] if ends else end
        part = text[position:end]
        if part.strip():
            yield part.strip("\n").rstrip(), line
        line += part.count("\n")
        position = end
