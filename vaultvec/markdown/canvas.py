"""JSON Canvas (https://jsoncanvas.org, 1.0): cards in reading order, groups as headings, file cards as links, then
the labels of edges."""

from __future__ import annotations

import json
from typing import Any

from vaultvec.errors import VaultError
from vaultvec.markdown.blocks import headings, open_fence
from vaultvec.markdown.frontmatter import clean_line
from vaultvec.markdown.inline import plain_text
from vaultvec.markdown.verbatim import shorten_url

Place = tuple[float, ...]
MAX_URL = 2000  # characters: a data: URL may hold a whole picture
MAX_GROUPS = 200  # each card is looked for in each: a canvas of many thousands would take quadratic time


def read_canvas(text: str) -> tuple[str, list[str], list[str]]:
    """(body, tags, links) of a canvas. Raises VaultError if it is not JSON, or not an object with nodes."""
    if not text.strip():
        return "", [], []  # Obsidian writes an empty file for a new canvas
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        where = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        raise VaultError(f"canvas is not valid JSON{where}") from None
    nodes = data.get("nodes", []) if isinstance(data, dict) else None
    if not isinstance(nodes, list):
        raise VaultError("canvas is not an object with a list of nodes")
    cards = [node for node in nodes if isinstance(node, dict)]
    groups = [card for card in cards if card.get("type") == "group"][:MAX_GROUPS]
    body = _Body()
    links: list[str] = []
    tags: list[str] = []
    for card in sorted(cards, key=lambda card: _reading_order(card, groups)):
        kind = card.get("type")
        group = card if kind == "group" else _group_of(card, groups)
        label = clean_line(_text(group, "label")) if group else ""
        if kind == "group":
            body.open_group(label)
        elif kind == "text":
            text, card_tags, card_links = plain_text(_text(card, "text").replace("\r\n", "\n").replace("\r", "\n"))
            body.add(text, label)
            tags += card_tags
            links += card_links
        elif kind == "link":
            body.add(shorten_url(_text(card, "url").strip()[:MAX_URL]), label)
        elif kind == "file":
            links.append(clean_line(_text(card, "file")))
    edges = data.get("edges")
    for edge in edges if isinstance(edges, list) else ():
        body.add(clean_line(_text(edge, "label")) if isinstance(edge, dict) else "", "")
    return "\n\n".join(body.parts), tags, links


class _Body:
    """The cards' texts; each stands below its group's label, and below no heading of another card."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self._heading: str | None = ""  # the group whose label holds here; None below a card's own heading

    def open_group(self, label: str) -> None:
        """A group's label, as a heading; one without a label only ends what was before."""
        if label or self._heading != "":
            self.parts.append(f"# {label}".rstrip())
            self._heading = label

    def add(self, text: str, group: str) -> None:
        """A card's text; its code ends with it."""
        text = text.strip("\n")
        if not text.strip():
            return
        if group != self._heading:
            self.open_group(group)
        lines = text.split("\n")
        fence = open_fence(lines)
        self.parts.append(f"{text}\n{fence}" if fence else text)
        if headings(text):
            self._heading = None


def _text(card: dict[str, Any], key: str) -> str:
    """A string of a card, without what no store takes: NUL and lone surrogates."""
    value = card.get(key)
    if not isinstance(value, str):
        return ""
    return value.replace("\x00", "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _number(card: dict[str, Any], key: str) -> float:
    value = card.get(key)
    usable = isinstance(value, int | float) and -1e9 < value < 1e9  # not NaN, not a bignum
    return float(value) if usable and value is not None else 0.0


def _group_of(card: dict[str, Any], groups: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The first group that a card's corner lies in."""
    x, y = _number(card, "x"), _number(card, "y")
    for group in groups:
        left, top = _number(group, "x"), _number(group, "y")
        if left <= x < left + _number(group, "width") and top <= y < top + _number(group, "height"):
            return group
    return None


def _reading_order(card: dict[str, Any], groups: list[dict[str, Any]]) -> Place:
    """Top to bottom, then left to right; a card in a group follows that group's label."""
    x, y = _number(card, "x"), _number(card, "y")
    group = _group_of(card, groups) if card.get("type") != "group" else None
    return (_number(group, "y"), _number(group, "x"), 1, y, x) if group else (y, x, 0, 0, 0)
