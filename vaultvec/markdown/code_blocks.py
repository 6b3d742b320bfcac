"""Where code blocks of a source text end: fenced ones, in quotes and list items too, and indented ones."""

from __future__ import annotations

import re

BEFORE_FENCE = re.compile(
    r"((?:[ \t]*+>)*+)[ \t]*+(?:(?:[-*+]|\d{1,9}[.)])[ \t]++(?:\[[^\]\n]\][ \t]++)?)*+"  # quotes, list marks, a task box
)
_ITEM = re.compile(r"([ \t]*+(?:[-*+]|\d{1,9}[.)])(?:[ \t]++|$)|\[\^[^\[\]\s]++\]:)")
_INDENT = r"(?: {4}| {0,3}\t)"
# Lines of indented code and blank ones; a fence among them begins a block of its own.
_INDENTED = re.compile(rf"(?:[ \t]*+\n|{_INDENT}(?!{BEFORE_FENCE.pattern}(?:```|~~~))[^\n]*+(?:\n|\Z))++")
# An indented line that begins so may well be meant as text: an item, a quote, a table, HTML, a comment, an embed.
_MEANT_AS_TEXT = re.compile(r"[ \t]*+(?:(?:[-*+]|\d{1,9}[.)])(?:[ \t]|$)|[<>|]|%%|```|~~~|!\[|\[\[\S)")


class OpenLists:
    """Which list items a line may belong to, from reading the lines above it once."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0
        self._after_blank = True
        self._columns: list[int] = []  # where the contents of the open items begin, outermost first

    def read_to(self, end: int) -> None:
        """Read the lines before `end`, which ends one."""
        if end > self._position:
            for line in self._text[self._position : end].removesuffix("\n").split("\n"):
                self._read(line)
            self._position = end

    def skip_to(self, end: int) -> None:
        """Read the next line, which may have list marks before a fence, but not the code up to `end`."""
        self.read_to(_line_end(self._text, self._position))
        self._position, self._after_blank = max(self._position, end), False

    def _read(self, line: str) -> None:
        if not line.strip():
            self._after_blank = True
            return
        indent = _indent(line)
        if match := _ITEM.match(line):
            while self._columns and self._columns[-1] > indent:
                self._columns.pop()
            self._columns.append(4 if "^" in match[0] else _column(match[0]))
        elif not indent and (self._after_blank or line[0] == "#"):
            self._columns.clear()  # any other line may go on with an item's paragraph
        self._after_blank = False

    def item_of(self, prefix: str) -> int:
        """Where the contents begin of the innermost item that holds the line with `prefix`; 0 if none does."""
        if match := _ITEM.match(prefix):
            return _column(match[0])
        column = _column(prefix)
        return max((start for start in self._columns if start <= column), default=0)

    def __bool__(self) -> bool:
        return bool(self._columns)


def fence_end(text: str, start: int, fence: str, quoted: bool, item: int) -> tuple[int, bool]:
    """(end of the code block whose opening `fence` is at `start`, whether it is cut); (0, False) if that is no fence.

    It ends with its closing fence, with the quote it is in, or with the text. A list item, whose contents begin at
    column `item`, cuts it short at the first line that is not in the item.
    """
    end = _line_end(text, start)
    if fence[0] == "`" and "`" in text[start + len(fence) : end]:
        return 0, False
    quote = r"(?:[ \t]*+>)*+" if quoted else ""
    closing = re.compile(rf"{quote}[ \t]*+{fence[0]}{{{len(fence)},}}+[ \t]*+")
    while end < len(text):
        begin = end + 1
        stop = _line_end(text, begin)
        line = text[begin:stop]
        if quoted and not line.lstrip(" \t").startswith(">"):
            return end, False
        if item and line.strip() and _indent(line) < item:
            return end, True
        end = stop
        if closing.fullmatch(line):
            return end, False
    return end, False


def indented_end(text: str, start: int) -> int:
    """End of the indented code that begins with the line at `start`; `start` if that is text, or may be."""
    match = None if _MEANT_AS_TEXT.match(text, start) else _INDENTED.match(text, start)
    return start + len(match[0].rstrip()) if match else start


def _line_end(text: str, start: int) -> int:
    newline = text.find("\n", start)
    return newline if newline >= 0 else len(text)


def _indent(line: str) -> int:
    return _column(line[: len(line) - len(line.lstrip(" \t"))])


def _column(text: str) -> int:
    return len(text.expandtabs(4))
