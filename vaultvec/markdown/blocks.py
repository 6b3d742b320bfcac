"""The lines of a body that are more than text: headings, and what stands in a code block."""

from __future__ import annotations

import re

_HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]++([^\n]*+))?")
_CLOSING_MARKS = re.compile(r"(?:^|(?<=[ \t]))#++$")
_SETEXT = re.compile(r" {0,3}(={2,}+|-{2,}+)[ \t]*+")
_FENCE = re.compile(
    r"((?:[ \t]*+>)*+)[ \t]*+(?:(?:[-*+]|\d{1,9}[.)])[ \t]++(?:\[[^\]\n]\][ \t]++)?)*+(`{3,}+(?=[^`]*+$)|~{3,}+)"
)
_BLOCK_START = re.compile(r"[ \t]*+(?:[-*+>|]|\d{1,9}[.)])(?:[ \t]|$|(?<=[>|]))| {4}|\t")


def headings(body: str) -> list[tuple[int, int, str]]:
    """(line of `body` from 0, level 1-6, text) of each heading outside code.

    ATX headings as in CommonMark. An underlined heading counts when its paragraph is one line.
    """
    found: list[tuple[int, int, str]] = []
    if "#" not in body and "==" not in body and "--" not in body:
        return found
    lines = body.split("\n")
    paragraph = ""  # the line above, if it is a paragraph of one line so far
    in_paragraph = False
    for i, in_code in enumerate(code_lines(lines)):
        line = lines[i]
        if in_code or not line.strip():
            paragraph, in_paragraph = "", False
        elif match := _HEADING.fullmatch(line):
            text = _CLOSING_MARKS.sub("", (match[2] or "").rstrip()).rstrip()
            found.append((i, len(match[1]), text))
            paragraph, in_paragraph = "", False
        elif paragraph and (match := _SETEXT.fullmatch(line)):
            found.append((i - 1, 1 if match[1][0] == "=" else 2, paragraph.strip()))
            paragraph, in_paragraph = "", False
        else:
            starts = not in_paragraph and not _BLOCK_START.match(line) and not _SETEXT.fullmatch(line)
            paragraph, in_paragraph = (line if starts else ""), True
    return found


def code_lines(lines: list[str]) -> list[bool]:
    """Whether each line of a body belongs to a fenced code block, fences included."""
    return _read_fences(lines)[0]


def open_fence(lines: list[str]) -> str:
    """The fence that would close the code block the lines end in; empty if they end in none."""
    return _read_fences(lines)[1]


def _read_fences(lines: list[str]) -> tuple[list[bool], str]:
    """(whether each line belongs to code, the fence still open at the end)."""
    inside: list[bool] = []
    fence, quoted = "", False
    for line in lines:
        if fence and quoted and not line.lstrip(" \t").startswith(">"):
            fence = ""  # the quote ended, and the code in it
        if fence:
            inside.append(True)
            mark = (line.lstrip("> \t") if quoted else line.lstrip(" \t")).rstrip(" \t")
            if len(mark) >= len(fence) and mark == fence[0] * len(mark):
                fence = ""
        elif ("```" in line or "~~~" in line) and (match := _FENCE.match(line)):
            inside.append(True)
            fence, quoted = match[2], ">" in match[1]
        else:
            inside.append(False)
    return inside, "" if quoted else fence


def keep_blocks(source: list[str], lines: list[str]) -> None:
    """Put a backslash where removing markup made a line of `lines` begin like a heading, an underline or a fence.

    Both lists are line for line the same note. The cell of `| # | Name |` heads a column, not a section.
    """
    for i, line in enumerate(lines):
        if line != source[i] and (start := _new_block(source[i], line, bool(i and lines[i - 1].strip()))) >= 0:
            lines[i] = f"{line[:start]}\\{line[start:]}"


def _new_block(source: str, line: str, below_text: bool) -> int:
    """Where a heading, an underline or a fence begins that `source` has not; -1 if there is none."""
    if match := _HEADING.fullmatch(line):
        same = _HEADING.fullmatch(source)
        return -1 if same and same[1] == match[1] else match.start(1)
    if below_text and (match := _SETEXT.fullmatch(line)):
        return -1 if _SETEXT.fullmatch(source) else match.start(1)
    if match := _FENCE.match(line):
        return match.start(2)  # code is never changed, so this line is none
    return -1
