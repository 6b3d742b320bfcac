"""Vaults made from a vault: a copy, or one several times as large in which no text occurs twice."""

from __future__ import annotations

import os
import random
import re
import shutil
from collections import Counter
from pathlib import Path

from vaultvec.datatypes import NoteFile
from vaultvec.vault import load_exclusions, open_vault, walk

_WORD = re.compile(r"(?<![\w#/\[&:.-])[A-Za-z]{4,}(?![\w/:(\]]|\.\w)")  # a word of prose: no tag, link, path or URL
EVERY = 6  # one word of so many is replaced: the text stays text, and no chunk stays the same
LEAST_WORDS = 500


def copy_vault(vault: Path, target: Path, limit: int | None = None) -> int:
    """Copy the notes of a vault (its newest `limit` ones), times kept. Returns how many."""
    files = _files(vault)[:limit]
    for file in files:
        place = target / file.path
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file.absolute, place)
    return len(files)


def grow_vault(vault: Path, target: Path, times: int, limit: int | None = None) -> int:
    """`times` copies of the notes of a vault, each with other words in it, up to `limit` notes. Returns how many.

    The first copy is the vault itself. In every other one word of EVERY is replaced by another word of the same vault,
    drawn with a fixed seed, so length and vocabulary stay and no chunk is like another.
    """
    files = _files(vault)
    words = _vocabulary(files)
    count = 0
    for number in range(times):
        for index, file in enumerate(files):
            if limit is not None and count == limit:
                return count
            place = target / (file.path if number == 0 else f"copy {number:03d}/{file.path}")
            place.parent.mkdir(parents=True, exist_ok=True)
            if number == 0:
                shutil.copy2(file.absolute, place)
            else:
                text = file.absolute.read_text(encoding="utf-8", errors="replace")
                place.write_text(rewritten(text, words, random.Random(number * 1_000_003 + index)), encoding="utf-8")
                os.utime(place, ns=(file.mtime_ns, file.mtime_ns))
            count += 1
    return count


def rewritten(text: str, words: list[str], draw: random.Random) -> str:
    """The text with one prose word of EVERY replaced, front matter and code left alone, and a line that is its own."""
    head, body = _split_front_matter(text)

    def replace(match: re.Match[str]) -> str:
        return draw.choice(words) if draw.randrange(EVERY) == 0 else match[0]

    parts = body.split("```")
    parts[::2] = [_WORD.sub(replace, part) for part in parts[::2]]
    own = " ".join(draw.choice(words) for _ in range(4))
    return f"{head}{own}\n{'```'.join(parts)}"


def _split_front_matter(text: str) -> tuple[str, str]:
    if not text.startswith("---\n"):
        return "", text
    end = text.find("\n---\n", 3)
    return (text[: end + 5], text[end + 5 :]) if end >= 0 else ("", text)


def _vocabulary(files: list[NoteFile]) -> list[str]:
    """Words of the vault as often as it uses them, capped, so that a draw looks like its prose."""
    counts: Counter[str] = Counter()
    for file in files[:1000]:
        counts.update(_WORD.findall(file.absolute.read_text(encoding="utf-8", errors="replace")))
    words = [word for word, count in sorted(counts.items()) for _ in range(min(count, 20))]
    return words if len(words) >= LEAST_WORDS else [f"word{number}" for number in range(LEAST_WORDS)]


def _files(vault: Path) -> list[NoteFile]:
    return list(walk(open_vault(vault), load_exclusions(vault, ())).files)
