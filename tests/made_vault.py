"""A vault of made notes: headings, tags, links, some texts that stand in several notes, some Korean."""

from __future__ import annotations

import random
from pathlib import Path

WORDS = [
    "basil",
    "winter",
    "harbour",
    "kettle",
    "ledger",
    "violin",
    "granite",
    "orchard",
    "lantern",
    "copper",
    "meadow",
    "signal",
    "anchor",
    "timber",
    "velvet",
    "compass",
    "marble",
    "saffron",
    "thunder",
    "whisper",
    "봄날",
    "회의록",
    "바다",
    "나무",
    "편지",
]
SHARED = "This paragraph stands in many notes, word for word, and is embedded only once."


def made_text(rng: random.Random, sections: int | None = None) -> str:
    """A note of a few sections."""
    lines = [f"#{rng.choice(WORDS)} [[{rng.choice(WORDS)}]]", ""]
    for _ in range(sections or rng.randint(1, 5)):
        lines += [f"## {rng.choice(WORDS)} {rng.randint(0, 999)}", ""]
        lines += [" ".join(rng.choices(WORDS, k=rng.randint(10, 90))) + ".", ""]
        if rng.random() < 0.3:
            lines += [SHARED, ""]
    return "\n".join(lines)


def write_vault(folder: Path, notes: int, seed: int) -> Path:
    """`notes` notes in three folders; the same seed gives the same vault."""
    rng = random.Random(seed)
    for number in range(notes):
        path = folder / ("", "Projects", "Journal/2026")[number % 3] / f"note {number:03d}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(made_text(rng), encoding="utf-8")
    return folder


def update_vault(folder: Path, seed: int) -> None:
    """Edit a third of the notes, move some, delete some, add some."""
    rng = random.Random(seed)
    for number, path in enumerate(sorted(folder.rglob("*.md"))):
        if number % 3 == 0:
            path.write_text(path.read_text(encoding="utf-8") + made_text(rng, 1), encoding="utf-8")
        elif number % 7 == 1:
            path.rename(path.with_name(f"moved {path.name}"))
        elif number % 11 == 2:
            path.unlink()
    for number in range(6):
        (folder / f"added {number}.md").write_text(made_text(rng), encoding="utf-8")
