"""Obsidian Markdown → plain text for a model: line for line, markup gone, code and maths as they are.

Two passes. The first (verbatim.py) puts a mark in the place of what must not be touched: code, maths, escapes, URLs;
comments go. The second, here, removes markup by bounded, possessive expressions, none of which crosses a line. So every
source line stays one line, and time grows with the length of the note, whatever it holds.
"""

from __future__ import annotations

import re
from html import unescape
from html.entities import html5
from urllib.parse import unquote

from vaultvec.markdown.blocks import keep_blocks
from vaultvec.markdown.frontmatter import clean_line
from vaultvec.markdown.verbatim import Marks, protect

_MEDIA_SUFFIXES = """
png jpg jpeg gif bmp svg webp avif heic tiff pdf mp3 wav m4a ogg oga opus flac 3gp webm mp4 ogv mov mkv avi
"""
_INLINE_NAMES = """
a abbr b bdi bdo big cite code data del dfn em font i ins kbd mark q s samp small span strike strong sub sup time tt u
var wbr
"""
_BLOCK_NAMES = """
address article aside audio blockquote body br button canvas caption center col colgroup dd details dialog div dl dt
embed fieldset figcaption figure footer form frame g h1 h2 h3 h4 h5 h6 head header hr html iframe img input label legend
li link main map meta nav noscript object ol optgroup option output p path picture pre progress script section select
source style summary svg table tbody td template textarea tfoot th thead title tr track ul video
"""
MEDIA = frozenset(_MEDIA_SUFFIXES.split())
INLINE_HTML = frozenset(_INLINE_NAMES.split())  # goes without a trace; any other element of HTML leaves a space
HTML = INLINE_HTML | frozenset(_BLOCK_NAMES.split())

# Possessive quantifiers and classes that end at the next opener keep every expression linear.
_QUOTE = re.compile(r"(?m)^[ \t]*+>(?:[ \t]*+>)*+[ \t]?(?:\[![^\]\n]*+\][+-]?[ \t]*+)?(?:#{1,6}[ \t]++)?")
_RULE_AFTER_QUOTE = re.compile(r"(?m)(^[ \t]*+>[^\n]*+\n)[ \t]*+(?:[-=][ \t]*+)++$")
# White space in a tag holds one line end at most: an empty line ends the paragraph.
_HTML = re.compile(
    r"</?([A-Za-z][A-Za-z0-9]*+)"
    r"(?:(?=\s)[^\S\n]*+\n?[^\S\n]*+[\w:@.-]++(?:[ \t]*+=[ \t]*+(?:\"[^\"<\n]*+\"|'[^'<\n]*+'|[^\s\"'<>=]++))?)*+"
    r"[^\S\n]*+\n?[^\S\n]*+/?>"
)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[Xx][0-9A-Fa-f]{1,6}|([A-Za-z][A-Za-z0-9]{1,31}));")
_LINK = re.compile(
    r"(!?)\[\[([^\[\]\n]++)\]\]"
    r"|(!?)\[((?:[^\[\]\n]++|\[[^\[\]\n]*+\](?:\([^()\n]*+\))?)*+)\]"
    r"\([ \t]*+(<[^<>\n]*+>|(?:[^\s()<>]++|\([^\s()]*+\))*+)"
    r"(?:[ \t]++(?:\"[^\"\n]*+\"|'[^'\n]*+'|\([^()\n]*+\)))?[ \t]*+\)"
)
_SIZE = re.compile(r"\|?\d{1,5}(?:x\d{1,5})?")
# `[label]: URL "title"`, and nothing after it; a URL is a mark by then, ASCII that it did not take may follow.
_DEFINITION = re.compile(
    r"(?m)^ {0,3}\[(?!\^)[^\[\]\n]++\]:[ \t]*+"
    r"(?:<(\x00[\x01-\x08]++\x00)[^<>\n]*+>|(\x00[\x01-\x08]++\x00)[\x00-\x08!-~]*+|([!-~]++))"
    r"(?:[ \t]++(?:\"[^\"\n]*+\"|'[^'\n]*+'|\([^()\n]*+\)))?[ \t]*+$"
)
_FILE = re.compile(r"\.{0,2}/|[^#]+?\.[A-Za-z]\w{0,4}+(?:#|$)")  # "Note.md", "../a"; "[key]: value" may be text
# What a definition may follow: nothing, a heading, a rule, a block of code. In a paragraph it is text.
_NO_PARAGRAPH = re.compile(r"[ \t]*+(?:#{1,6}[ \t][^\n]*+|\x00[\x01-\x08]++\x00|[-*_=][-*_= \t]*+)?")
_REFERENCE = re.compile(r"!?\[([^\[\]\n]++)\]\[[^\[\]\n]*+\]")
_FOOTNOTE = re.compile(r"\[\^[^\[\]\s]++\]:?")
_INLINE_NOTE = re.compile(r"\^\[([^\[\]\n]++)\]")
_EMPHASIS = (
    ("**", re.compile(r"\*\*(?=\*?[^\s*])((?:[^*\n]++|\*(?!\*))++)(?<=\S)\*\*")),
    ("__", re.compile(r"(?<!\w)__(?=\S)((?:[^_\n]++|_(?!_))++)(?<=\S)__(?!\w)")),
    ("==", re.compile(r"==(?=[^\s=])((?:[^=\n]++|=(?!=))++)(?<=\S)==(?!=)")),
    ("~~", re.compile(r"~~(?=[^\s~])((?:[^~\n]++|~(?!~))++)(?<=\S)~~(?!~)")),
    ("*", re.compile(r"(?<![\w*])\*(?=[^\s*])([^*\n]++)(?<=\S)\*(?![\w*])")),
    ("_", re.compile(r"(?<![\w_])_(?=[^\s_])([^_\n]++)(?<=\S)_(?![\w_])")),
)
_TASK = re.compile(r"(?m)^([ \t]*+(?:[-*+]|\d{1,9}[.)])[ \t]++)\[[^\]\n]\][ \t]")
_TABLE_RULE = re.compile(r"(?m)^[ \t]*+(?=[^\n]*\|)(?=[^\n]*-)[|: \t-]++$")
_TABLE_ROW = re.compile(r"(?m)^[ \t]*+\|([^\n]*+)$")
_BLOCK_ID = re.compile(r"(?m)(?:(?<=[ \t])|^)\^[A-Za-z0-9-]++[ \t]*+$")
# Obsidian's own class of characters that end a tag, and East Asian punctuation; U+200D joins emoji.
_NO_TAG = (
    r"\u2000-\u200C\u200E-\u206F\u2E00-\u2E7F\u3000-\u303F\uFF00-\uFF0F\uFF1A-\uFF20"
    r"'!\"#$%&()*+,.:;<=>?@^`{|}~\[\]\\\s\x00-\x08"
)
_TAG = re.compile(rf"(?<!\S)#([^{_NO_TAG}]++)")


def plain_text(text: str) -> tuple[str, list[str], list[str]]:
    """(text without markup, tags, link targets), tags and targets in order of appearance, with repeats.

    `text` has "\\n" line ends and no NUL; the result has as many lines.
    """
    marks = Marks()
    source = text
    text = protect(source, marks)
    tags: list[str] = []
    links: list[str] = []
    if ">" in text:
        text = _RULE_AFTER_QUOTE.sub(r"\1", text)
        text = _QUOTE.sub("", text)
    if "<" in text:
        text = _HTML.sub(_strip_html, text)
    if "[" in text:
        text = _strip_brackets(text, marks, links)
    for marker, pattern in _EMPHASIS:
        if marker in text:
            text = pattern.sub(r"\1", text)
    if "|" in text:
        text = _TABLE_RULE.sub("", text)
        text = _TABLE_ROW.sub(_strip_row, text)
    if "^" in text:
        text = _BLOCK_ID.sub("", text)
    if "#" in text:
        text = _TAG.sub(lambda match: _take_tag(match, tags), text)
    if "&" in text:
        text = _ENTITY.sub(_read_entity, text)
    lines = marks.restore("\n".join([line.rstrip() for line in text.split("\n")])).split("\n")
    keep_blocks(source.split("\n"), lines)
    return "\n".join(lines), tags, links


def _strip_html(match: re.Match[str]) -> str:
    name = match[1].lower()
    if name not in HTML:
        return match[0]  # a placeholder or a type parameter, as in List<String>
    return "\n" * match[0].count("\n") or ("" if name in INLINE_HTML else " ")


def _read_entity(match: re.Match[str]) -> str:
    """The character meant; a space for white space, nothing for what is not seen: the note must stay line for line."""
    if match[1] and f"{match[1]};" not in html5:
        return match[0]
    found = unescape(match[0])
    return found if found.isprintable() else " " * found.isspace()


def _strip_brackets(text: str, marks: Marks, links: list[str]) -> str:
    """Links, embeds, references, footnotes and task boxes."""
    hash_mark = marks.add("#")  # a "#" in a link's words begins no tag

    def replace(match: re.Match[str]) -> str:
        if match[2] is not None:
            target, _, alias = match[2].partition("|")
            return _wikilink(match[1] == "!", marks.restore(target), alias, links).replace("#", hash_mark)
        if not match[5].startswith(("\x00", "<\x00")):  # a mark here is a URL
            _add_relative(marks.restore(match[5]), links)
        words: str = match[4]
        if match[3]:
            head, bar, size = words.rpartition("|")
            words = (head if bar else "") if _SIZE.fullmatch(size) else words
        elif "[" in words:
            words = _LINK.sub(replace, words)
        return words.replace("#", hash_mark)

    text = _LINK.sub(replace, text)
    if "]:" in text:
        without = _strip_definitions(text, marks, links)
        text = _REFERENCE.sub(r"\1", without) if without != text else text
    if "^" in text:
        text = _FOOTNOTE.sub("", text)
        text = _INLINE_NOTE.sub(r" (\1)", text)
    return _TASK.sub(r"\1", text)


def _strip_definitions(text: str, marks: Marks, links: list[str]) -> str:
    """The text with an empty line for each link definition."""
    last_end = -1  # of the definition before: one may follow another

    def replace(match: re.Match[str]) -> str:
        nonlocal last_end
        above_end = match.start() - 1
        above = text[text.rfind("\n", 0, max(0, above_end)) + 1 : max(0, above_end)]
        if above_end != last_end and not _NO_PARAGRAPH.fullmatch(above):
            return match[0]
        last_end = match.end()
        if match[3] and _FILE.match(match[3]):
            _add_relative(match[3], links)
            return ""
        return "" if (match[1] or match[2]) in marks.urls else match[0]

    return _DEFINITION.sub(replace, text)


def _wikilink(embed: bool, target: str, alias: str, links: list[str]) -> str:
    """What Obsidian shows for `[[target|alias]]`: the alias, or "Target > Heading"; nothing for embedded media."""
    name, *anchors = target.rstrip("\\").split("#")
    name = clean_line(name)
    if name:
        links.append(name)
    if embed and name.rpartition(".")[2].lower() in MEDIA:
        return ""
    if alias.strip() and not (embed and _SIZE.fullmatch(alias.strip())):
        return alias.strip()
    headings = [anchor.strip() for anchor in anchors if anchor.strip() and not anchor.startswith("^")]
    return " > ".join([name, *headings] if name else headings)


def _add_relative(target: str, links: list[str]) -> None:
    """Keep the target of a Markdown link that stays in the vault."""
    path = target.strip("<>").partition("#")[0]
    if path and not re.match(r"[A-Za-z][A-Za-z0-9+.-]*+:", path):
        links.append(clean_line(unquote(path)))


def _strip_row(match: re.Match[str]) -> str:
    cells = match[1].replace("\\|", "|").rstrip().removesuffix("|").split("|")
    return " | ".join(cell.strip() for cell in cells)


def _take_tag(match: re.Match[str], tags: list[str]) -> str:
    tag = match[1].strip("/")
    if not tag or tag.replace("/", "").isdigit():
        return match[0]
    tags.append(tag)
    return match[1]
