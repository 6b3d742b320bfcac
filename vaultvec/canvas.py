"""JSON Canvas (https://jsoncanvas.org, 1.0): text cards in reading order, groups as headings, file cards as links."""

from __future__ import annotations

import json
from typing import Any

from vaultvec.errors import VaultError
from vaultvec.frontmatter import clean_line
from vaultvec.markdown import plain_text

Place = tuple[float, ...]


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
    groups = [card for card in cards if card.get("type") == "group"]
    parts: list[str] = []
    tags: list[str] = []
    links: list[str] = []
    for card in sorted(cards, key=lambda card: _reading_order(card, groups)):
        kind, label = card.get("type"), _text(card, "label")
        if kind == "group" and clean_line(label):
            parts.append(f"# {clean_line(label)}")
        elif kind == "text":
            body, card_tags, card_links = plain_text(_text(card, "text").replace("\r\n", "\n").replace("\r", "\n"))
            parts.append(body.strip("\n"))
            tags += card_tags
            links += card_links
        elif kind == "file":
            links.append(clean_line(_text(card, "file")))
    return "\n\n".join(part for part in parts if part.strip()), tags, links


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


def _reading_order(card: dict[str, Any], groups: list[dict[str, Any]]) -> Place:
    """Top to bottom, then left to right; a card in a group follows that group's label."""
    x, y = _number(card, "x"), _number(card, "y")
    if card.get("type") != "group":
        # The first groups only: a canvas of many thousands would take quadratic time.
        for group in groups[:200]:
            left, top = _number(group, "x"), _number(group, "y")
            if left <= x < left + _number(group, "width") and top <= y < top + _number(group, "height"):
                return (top, left, 1, y, x)
    return (y, x, 0, 0, 0)
