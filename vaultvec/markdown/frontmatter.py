"""Front matter: the YAML block at the top of a note → title, tags, aliases."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import frontmatter as python_frontmatter
import yaml

MAX_CHARS = 256 * 1024  # of the block; real ones stay below 10 kB
MAX_ALIASES = 32  # YAML anchors used again (`*x`): nested ones grow exponentially
MAX_DEPTH = 50  # libyaml recurses in C: some 2,000 levels end the process
MAX_NUMBER = 1000  # characters; YAML's base-60 numbers (1:2:3) take quadratic time
SAFE_CHARS = 500  # a block this short cannot nest deep enough to matter
MAX_VALUES = 1000  # tags or aliases taken from one note
MAX_LINKS = 50_000  # links taken from one note; an index of a vault has some thousands
PLAIN_TEXT = "what stands between the first two --- is text, not front matter; it is read as text"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_WIKILINK = re.compile(r"\[\[([^\[\]|#]+)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_NUMERIC = re.compile(r"[-+]?[0-9][0-9_:]{99}")
_FENCE = re.compile(r"---[ \t]*")


class _AsWritten(_LOADER):  # type: ignore[misc, valid-type]
    """Scalars stay as they are written, but for null: YAML 1.1 reads `no` as False, 12:30 as 750, 1_000 as 1000."""


_KEPT = ("tag:yaml.org,2002:null", "tag:yaml.org,2002:merge")
_AsWritten.yaml_implicit_resolvers = {
    first: [row for row in rows if row[0] in _KEPT] for first, rows in _LOADER.yaml_implicit_resolvers.items()
}


@dataclass(frozen=True, slots=True)
class FrontMatter:
    """What is known from front matter. `lines`: source lines it takes, both fences included; 0 = none."""

    lines: int = 0
    title: str = ""
    tags: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    links: tuple[str, ...] = ()  # targets of wikilinks in any property
    warnings: tuple[str, ...] = ()


def read_front_matter(lines: list[str]) -> FrontMatter:
    """Parse the block that begins on the first line. What YAML cannot take is a warning; the body is never lost.

    Plain sentences between two rules are body too.
    """
    if not lines or not _FENCE.fullmatch(lines[0]):
        return FrontMatter()
    end = next((i for i in range(1, len(lines)) if lines[i].startswith("---") and _FENCE.fullmatch(lines[i])), 0)
    if not end:
        return FrontMatter()  # Obsidian shows an unclosed block as text
    block = "\n".join(lines[1:end])
    try:
        data = _load(block)
    except _Refused as error:
        return FrontMatter(end + 1, warnings=(f"front matter {error}; its tags and aliases are ignored",))
    if data is None:
        return FrontMatter(warnings=(PLAIN_TEXT,))
    tags: list[str] = []
    aliases: list[str] = []
    links: list[str] = []
    for key, value in data.items():
        links += [clean_line(target) for text in _texts(value) for target in _WIKILINK.findall(text)]
        name = str(key).strip().lower() if isinstance(key, str) else ""
        if name in ("tag", "tags"):
            tags += [tag.lstrip("#").strip("/") for text in _texts(value) for tag in re.split(r"[,\s]+", text)]
        elif name in ("alias", "aliases"):
            aliases += _texts(value) if isinstance(value, list) else _split_commas(value)
    title = data.get("title")
    plain = clean_line(title) if isinstance(title, str) else ""
    return FrontMatter(end + 1, plain, unique(tags), unique(aliases), unique(links, MAX_LINKS))


def clean_line(text: str) -> str:
    """One line that any store takes: no control characters, no lone surrogates, single spaces."""
    if not text.isprintable():  # a surrogate is not printable either; joiners of emoji and Persian stay
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        text = _CONTROL.sub(" ", text)
    return " ".join(text.split())


def unique(values: list[str], most: int = MAX_VALUES) -> tuple[str, ...]:
    """The values in order, each once, none empty, at most `most`."""
    return tuple(list(dict.fromkeys(value for value in values if value))[:most])


class _Refused(Exception):
    """Why a block was not taken; completes the sentence "front matter …"."""


def _load(block: str) -> dict[Any, Any] | None:
    """The block as a mapping; empty is an empty one; None if it is plain text."""
    if len(block) > MAX_CHARS:
        raise _Refused(f"is longer than {MAX_CHARS // 1024} kB")
    try:
        if len(block) > SAFE_CHARS or ("*" in block and "&" in block):
            _check_size(block)
        data = python_frontmatter.YAMLHandler().load(block, Loader=_AsWritten)
    except yaml.MarkedYAMLError as error:
        line = f" (line {error.problem_mark.line + 2})" if error.problem_mark else ""
        raise _Refused(f"is not valid YAML{line}") from None
    except _Refused:
        raise
    except Exception as error:  # constructors of dates and numbers raise what they like; no note may stop a run
        raise _Refused(f"is not valid YAML ({type(error).__name__})") from None
    if data is None:
        return {}
    if isinstance(data, str):
        return None
    if not isinstance(data, dict):  # tags without their name, as a rule
        raise _Refused(f"is a {type(data).__name__}, not a mapping of names to values")
    return data


def _check_size(block: str) -> None:
    """Refuse what would nest or grow without bound, by a pass over the events, which builds nothing."""
    depth = anchors_used = 0
    for event in yaml.parse(block, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.AliasEvent):
            anchors_used += 1
        elif isinstance(event, yaml.ScalarEvent) and len(event.value) > MAX_NUMBER and _NUMERIC.match(event.value):
            raise _Refused(f"has a number longer than {MAX_NUMBER} characters")
        if depth > MAX_DEPTH:
            raise _Refused(f"nests deeper than {MAX_DEPTH} levels")
        if anchors_used > MAX_ALIASES:
            raise _Refused(f"repeats YAML anchors more than {MAX_ALIASES} times")


def _texts(value: object) -> list[str]:
    """Texts in a scalar or nested list; null and mappings give none."""
    return [text for scalar in _scalars(value) if (text := clean_line(scalar))]


def _split_commas(value: object) -> list[str]:
    return [text for part in _texts(value) for piece in part.split(",") if (text := piece.strip())]


def _scalars(value: object) -> Iterator[str]:
    """Depth first, without recursion, bounded: a list may hold itself through an anchor."""
    stack = [value]
    for _ in range(2 * MAX_LINKS):
        if not stack:
            return
        item = stack.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, int | float | datetime.date):
            try:
                yield str(item)
            except ValueError:  # an integer of more than 4300 digits, e.g. written in hexadecimal
                continue
        elif isinstance(item, list):
            stack.extend(reversed(item[:MAX_LINKS]))
