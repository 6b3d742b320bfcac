"""Queries made from the notes themselves: a title, a word, a few words, words with strange ones among them, part of a sentence.

People who know what they look for type such queries, where the sets of benchmarks/eval paraphrase. Nobody writes them: they are
drawn from the vault, the same ones every time, so any vault can be measured. "Known-item search" is the field's term.
"""

from __future__ import annotations

import random
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vaultvec.datatypes import Note

NOTES = 100  # drawn of each vault
LEAST_CHARS = 300  # of a note that is drawn
LINE_WORDS = 8  # of a line that is drawn
RARE_SHARE = 20  # words that stand in fewer than one note in so many are drawn, or
RARE_NOTES = 20  # in no more notes than these
WORD_NOTES = (2, 6)  # a word alone stands in so many
STRANGE = 2  # words of other notes among three of this one
SEED = 7

_WORD = re.compile(r"[^\W_]+")
_LETTERS = re.compile(r"[^\W\d_]{2,}")


@dataclass(frozen=True, slots=True)
class KnownItem:
    """A query and the notes that hold what it was made from."""

    query: str
    answers: frozenset[str]


def known_items(notes: Iterable[Note]) -> dict[str, list[KnownItem]]:
    """Kind → queries: "title", "word", "words", "strange" (words among others), "sentence"."""
    texts = {note.path: unicodedata.normalize("NFC", f"{note.title}\n{note.body}") for note in notes}
    titles = {path: text.partition("\n")[0] for path, text in texts.items()}
    flat = {path: f" {' '.join(_WORD.findall(text)).lower()} " for path, text in texts.items()}
    words = {path: frozenset(text.split()) for path, text in flat.items()}
    frequency = Counter(word for found in words.values() for word in found)
    draw = random.Random(SEED)
    paths = sorted(path for path, text in texts.items() if len(text) > LEAST_CHARS)
    draw.shuffle(paths)
    lines = {path: _line(texts[path], draw) for path in paths[:NOTES]}
    strangers = [word for line in lines.values() for word in _WORD.findall(line) if len(word) > 2]
    kinds: dict[str, list[KnownItem]] = {
        "title": [],
        "word": _single(words, frequency),
        "words": [],
        "strange": [],
        "sentence": [],
    }
    most = max(RARE_NOTES, len(texts) // RARE_SHARE)

    def put(kind: str, query: str, path: str, others: Iterable[str]) -> None:
        kinds[kind].append(KnownItem(query, frozenset({path, *others})))

    for path, line in lines.items():
        put("title", titles[path], path, (other for other in titles if titles[other] == titles[path]))
        if not line:
            continue
        running = _WORD.findall(line)
        start = draw.randrange(len(running) - 5)
        part = " ".join(running[start : start + 6])
        put("sentence", part, path, (other for other in flat if f" {part.lower()} " in flat[other]))
        rare = sorted({word for word in _LETTERS.findall(line.lower()) if frequency[word] <= most})
        if len(rare) >= 2:
            picked = draw.sample(rare, min(len(rare), 2 + len(kinds["words"]) % 3))
            put("words", " ".join(picked), path, (other for other in words if words[other].issuperset(picked)))
        if len(rare) >= 3:
            picked = draw.sample(rare, 3)
            mixed = [*picked, *draw.sample(strangers, STRANGE)]
            draw.shuffle(mixed)
            put("strange", " ".join(mixed), path, (other for other in words if words[other].issuperset(picked)))
    return kinds


def _single(words: Mapping[str, frozenset[str]], frequency: Counter[str]) -> list[KnownItem]:
    """Words alone, and the notes that hold them."""
    few, many = WORD_NOTES
    rare = sorted(word for word, notes in frequency.items() if few <= notes <= many and _LETTERS.fullmatch(word))
    drawn = random.Random(SEED).sample(rare, min(NOTES, len(rare)))
    return [KnownItem(word, frozenset(path for path, found in words.items() if word in found)) for word in drawn]


def _line(text: str, draw: random.Random) -> str:
    """A line of prose of a note; "" where there is none."""
    prose = [
        line
        for line in text.splitlines()[1:]
        if len(_LETTERS.findall(line)) >= LINE_WORDS and not any(mark in line for mark in ("http", "|", "[["))
    ]
    return draw.choice(prose) if prose else ""
