"""What markup removal must not touch (code, maths, escapes, URLs), taken out under marks; comments go for good."""

from __future__ import annotations

import re
from urllib.parse import unquote

from vaultvec.markdown.blocks import keep_blocks
from vaultvec.markdown.code_blocks import BEFORE_FENCE, OpenLists, fence_end, indented_end
from vaultvec.markdown.frontmatter import clean_line

_EVENT = re.compile(
    r"\n[ \t]*+\n(?: {4}| {0,3}\t)[ \t]*+(?=\S)|`++|~{3,}+|%%|<!--(?:-?>)?|(?i:<style\b|<script\b)|\$\$?|\\[!-/:-@\[-^_`{}~]"
    r"|<(?:https?|mailto|obsidian)[:][^\s<>]*+>|https?://"
)
# Scripts that put no space between a URL and the sentence that goes on: Thai to Khmer, Hangul, Kana, Han, full width.
_UNSPACED = (
    r"\u0E00-\u0EFF\u1000-\u109F\u1100-\u11FF\u1780-\u17FF\u2E80-\u9FFF\uA960-\uA97F\uAC00-\uD7FF\uF900-\uFAFF"
    r"\uFE30-\uFE4F\uFF00-\uFFEF\U00020000-\U0003FFFF"
)
_NO_URL = r"\s<>\"'`()\[\]|\x00，。、；：！？」』】）"
_NO_PARENS = r"\s<>\"`()\[\]\x00"
_URL_TARGET = re.compile(rf"https?://(?:[^{_NO_URL}]|\([^{_NO_PARENS}]*+\))++")
# Query and fragment are not shown: nothing of such a script is a part of them. "/wiki/한글" is a path, "/watch한글" may
# be none.
_URL_IN_TEXT = re.compile(
    rf"https?://(?:[^{_NO_URL}?#{_UNSPACED}]|(?<![A-Za-z0-9])(?=[{_UNSPACED}])[^{_NO_URL}]|\([^{_NO_PARENS}]*+\))++"
    rf"(?:[?#](?:[^{_NO_URL}{_UNSPACED}]|\([^{_NO_PARENS}{_UNSPACED}]*+\))*+)?(?P<sentence>(?=[{_UNSPACED}])(?=\w))?"
)
_TICKS = re.compile("`++")
_INLINE_MATH = re.compile(r"\$(?=[^\s$])[^\n$`]*+(?<=\S)\$(?!\d)")
_NO_MATHS = re.compile(rf"\n(?:[ \t>]*+\n|{BEFORE_FENCE.pattern}(?:```|~~~))")  # the paragraph ends: two prices, say
_CLOSERS = {
    "%%": re.compile("%%"),
    "<!--": re.compile("-->"),
    "<style": re.compile(r"</style\s*+>", re.IGNORECASE),
    "<script": re.compile(r"</script\s*+>", re.IGNORECASE),
    "$$": re.compile(r"\$\$"),
}
_KEEP_ESCAPE = frozenset("#-+=~`>")  # without the backslash these would read as headings, lists, fences
# A mark is NUL, its number in base 8 as \x01-\x08, NUL. A note with NUL is refused, so marks cannot be forged.
_MARK = re.compile(r"\x00([\x01-\x08]++)\x00")
_TO_DIGITS = {ord(str(i)): i + 1 for i in range(8)}
_FROM_DIGITS = {i + 1: str(i) for i in range(8)}


class Marks:
    """Pieces taken out of a text, each under a mark."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.urls: set[str] = set()  # the marks that stand for a URL

    def add(self, piece: str) -> str:
        """The mark that stands for `piece`."""
        self.pieces.append(piece)
        return f"\x00{format(len(self.pieces) - 1, 'o').translate(_TO_DIGITS)}\x00"

    def add_url(self, shown: str) -> str:
        """The mark of a URL; `shown` is what the text gets for it."""
        mark = self.add(shown)
        self.urls.add(mark)
        return mark

    def restore(self, text: str) -> str:
        """The text with its pieces back."""
        return _MARK.sub(lambda match: self.pieces[int(match[1].translate(_FROM_DIGITS), 8)], text)


def protect(text: str, marks: Marks) -> str:
    """Marks for code, maths, escapes and URLs; line ends only for comments."""
    out: list[str] = []
    position = line_start = 0
    lists = OpenLists(text)
    same_ticks: dict[int, int] = {}
    missing: set[str] = set()  # closers that do not occur any more: looked for once only
    while match := _EVENT.search(text, position):
        start, end, event = match.start(), match.end(), match[0]
        newline = text.rfind("\n", position, start)
        first = newline >= 0 or line_start == position
        line_start = newline + 1 if newline >= 0 else line_start
        kept, code = start, None
        if event[0] == "\n":
            kept = end - len(event.rpartition("\n")[2])
            code = _indented_code(text, kept, lists, marks)
        elif first and event[:3] in ("```", "~~~"):
            kept, code = line_start, _fenced_code(text, line_start, match, lists, marks)
        if code is None:
            kept, code = start, _replace(text, match, marks, same_ticks, missing)
        end, piece = code
        out += (text[position:kept], piece)
        # Text from `position` on is a line of its own only if it begins one.
        newline = text.rfind("\n", start, end)
        line_start = newline + 1 if newline >= 0 else line_start
        position = end
    out.append(text[position:])
    return "".join(out)


def _indented_code(text: str, start: int, lists: OpenLists, marks: Marks) -> tuple[int, str]:
    """(where the code that begins with the indented line at `start` ends, its mark); nothing of it in a list."""
    lists.read_to(start)
    end = start if lists else indented_end(text, start)
    if end == start:
        return start, ""
    lists.skip_to(end)
    return end, marks.add(text[start:end])


def _fenced_code(
    text: str, line_start: int, match: re.Match[str], lists: OpenLists, marks: Marks
) -> tuple[int, str] | None:
    """(where the code block ends whose opening fence is `match`, its mark); None if that is no fence."""
    start = match.start()
    before = BEFORE_FENCE.fullmatch(text, line_start, start)
    if not before:
        return None
    lists.read_to(line_start)
    item = 0 if before[1] else lists.item_of(before[0])
    end, cut = fence_end(text, start, match[0], bool(before[1]), item)
    if not end:
        return None
    lists.skip_to(end)
    lines = text[line_start:end].split("\n")
    if cut:  # its closing fence is missing: by itself the body could not tell where the code ends
        keep_blocks([""] * len(lines), lines)
    return end, marks.add("\n".join(lines))


def _replace(
    text: str, match: re.Match[str], marks: Marks, same_ticks: dict[int, int], missing: set[str]
) -> tuple[int, str]:
    """(where the event ends, what stands for it) for anything but a fence."""
    start, end, event = match.start(), match.end(), match[0]
    if event[0] == "`":
        if start >= same_ticks.get(-1, 0):  # key -1: how far the pairs are known
            same_ticks.clear()
            same_ticks.update(_pair_ticks(text, start))
        end = same_ticks.get(start) or end  # a run cut by an escape is not known, and is text
        return end, marks.add(text[start:end])
    if event[0] == "\\":
        return end, marks.add(event if event[1] in _KEEP_ESCAPE else event[1])
    if event[0] == "<" and event[-1] == ">":
        return end, marks.add_url(shorten_url(event[1:-1]))
    if event[0] == "h":
        return _replace_url(text, start, end, marks)
    if event == "$":
        math = _INLINE_MATH.match(text, start)
        return (math.end(), marks.add(math[0])) if math else (end, event)
    if event in ("<!-->", "<!--->"):
        return end, ""  # a whole comment
    event = event.lower()
    closer = _CLOSERS.get(event)
    if closer is None or event in missing:
        return end, text[start:end]
    found = closer.search(text, end)
    if not found:
        missing.add(event)
        return end, text[start:end]
    close = found.end()
    if event != "$$":
        return close, "\n" * text.count("\n", start, close)
    if _NO_MATHS.search(text, start, close):
        return end, event
    return close, "\n".join(marks.add(line) for line in text[start:close].split("\n"))


def _replace_url(text: str, start: int, end: int, marks: Marks) -> tuple[int, str]:
    """(where the URL at `start` ends, what stands for it); its scheme ends at `end`."""
    in_text = not text[max(0, start - 2) : start].endswith(("](", '="', "='"))
    match = (_URL_IN_TEXT if in_text else _URL_TARGET).match(text, start)
    if not match:
        return end, text[start:end]
    url = match[0].rstrip(".,;:!?*_~")
    if not in_text:
        return start + len(url), marks.add_url(url)  # a target or an attribute goes anyway: no need to make words of it
    space = " " if url == match[0] and match["sentence"] is not None else ""
    return start + len(url), marks.add_url(shorten_url(url)) + space


def _pair_ticks(text: str, start: int) -> dict[int, int]:
    """For each run of backticks from `start` to the line's end: the end of the next run as long, or 0."""
    newline = text.find("\n", start)
    stop = newline if newline >= 0 else len(text)
    runs = [match.span() for match in _TICKS.finditer(text, start, stop)]
    ends: dict[int, int] = {}
    pairs = {-1: stop}
    for begin, end in reversed(runs):
        pairs[begin] = ends.get(end - begin, 0)
        ends[end - begin] = end
    return pairs


def shorten_url(url: str) -> str:
    """Host and path of a URL in words; query, fragment, escapes and ids mean nothing to a model and cost tokens."""
    scheme, _, rest = url.partition(":")
    if scheme not in ("http", "https"):
        return clean_line(unquote(rest.lstrip("/").partition("?")[0]))
    host, *segments = re.split(r"[?#]", rest.lstrip("/"), maxsplit=1)[0][:2000].split("/")
    words = [word for part in segments[:8] if (word := clean_line(unquote(part))) and _is_word(word)]
    return "/".join([clean_line(host).rpartition("@")[2].removeprefix("www."), *words])


def _is_word(segment: str) -> bool:
    """False for ids and hashes, which are ASCII: longer than a slug's words get, or mostly digits."""
    letters, digits = sum(map(str.isalpha, segment)), sum(map(str.isdigit, segment))
    longest = max(len(part) for part in re.split(r"[\W_]+", segment))
    return letters > 0 and (not segment.isascii() or (letters >= digits and longest <= 24))
