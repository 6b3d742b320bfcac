"""How good the answers are: hit@1, hit@5, MRR@10 and nDCG@10 on the question sets in benchmarks/eval.

    python -m benchmarks.evaluate [--vaults DIR] [--data DIR] [--sets NAME ...] [--no-plain] [--model NAME] [--precision P]

The product itself is measured: each vault is indexed as `main.py index` does it, each question goes through the searcher.
Queries of another kind are made from the notes (known_items.py): people also type a title, a few words, part of a sentence.
"plain" is the same model over chunks of 1,000 characters without title or heading, the usual way. The constants of search
were tuned on "tune", so "report" is what to believe. Writes benchmarks/results/evaluation.json, or
evaluation-MODEL-PRECISION.json with what differs from "auto" in its name.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.environment import environment
from benchmarks.known_items import known_items
from vaultvec.datatypes import Note
from vaultvec.errors import VaultvecError
from vaultvec.models import resolve
from vaultvec.note_file import read_bytes
from vaultvec.notes import parse_note
from vaultvec.pipeline import Hooks, index_vault
from vaultvec.search import MODES, Searcher
from vaultvec.session import open_searcher
from vaultvec.settings import Settings, load_settings
from vaultvec.vault import load_exclusions, open_vault, walk

VAULTS = {
    "sample_en": "sample_vault", "sample_ko": "sample_vault", "hub_en": "obsidian-hub-1500",
    "hub_ko_on_en": "obsidian-hub-1500", "help_ko": "obsidian-help-ko", "help_en_on_ko": "obsidian-help-ko",
    "help_de": "obsidian-help-de", "hub_en_2": "obsidian-hub-1500", "help_ko_2": "obsidian-help-ko",
}  # fmt: skip
KNOWN_ITEMS = ("sample_en", "hub_en", "help_ko", "help_de")  # sets whose vault queries are made from: each vault once
UNSEEN = ("hub_en_2", "help_ko_2")  # sets of another writer, all "report": nothing was ever tuned on them
SPLITS = ("tune", "report")
HAIR = 0.02  # of MRR@10, by which hybrid search may fall behind a half
DEPTH = 10  # results that are looked at
PLAIN_CHARS = 1000
WAYS = ("plain", *MODES)

Ask = Callable[[str], list[str]]  # a question → paths of notes, best first, each once


@dataclass(frozen=True, slots=True)
class Question:
    """A question, and the notes any of which answers it."""

    text: str
    answers: frozenset[str]
    split: str


@dataclass(frozen=True, slots=True)
class Quality:
    """Means over questions."""

    hit_1: float
    hit_5: float
    mrr_10: float
    ndcg_10: float


def load_questions(path: Path) -> list[Question]:
    """A set of benchmarks/eval; paths are compared in NFC."""
    rows = json.loads(path.read_text(encoding="utf-8"))
    return [Question(row["question"], frozenset(map(_nfc, row["answers"])), row["split"]) for row in rows]


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def quality(ranked: Sequence[Sequence[str]], answers: Sequence[frozenset[str]]) -> Quality:
    """Of result lists (paths, best first) against their answers. nDCG: each answering note gains 1 (Järvelin 2002)."""
    rows = []
    for paths, right in zip(ranked, answers, strict=True):
        hits = [rank for rank, path in enumerate(paths[:DEPTH], start=1) if _nfc(path) in right]
        first = min(hits, default=0)
        gain = sum(1 / np.log2(rank + 1) for rank in hits)
        ideal = sum(1 / np.log2(rank + 1) for rank in range(1, min(len(right), DEPTH) + 1))
        rows.append((first == 1, 1 <= first <= 5, 1 / first if first else 0.0, gain / ideal))
    means = np.mean(np.array(rows, dtype=np.float64), axis=0) if rows else np.zeros(4)
    return Quality(*(float(value) for value in means))


def product(searcher: Searcher, mode: str) -> Ask:
    """The product's own search."""
    return lambda text: [row.path for row in searcher.search(text, DEPTH, mode).results]


def read_notes(settings: Settings, vault: Path) -> list[Note]:
    """Every note that can be read, in the order of the walk."""
    notes = []
    for file in walk(open_vault(vault), load_exclusions(vault, settings.exclude)).files:
        try:
            notes.append(parse_note(file.path, read_bytes(file)))
        except VaultvecError:
            continue
    return notes


def plain(notes: Sequence[Note], searcher: Searcher) -> Ask:
    """Chunks of 1,000 characters under the same models; of two models the one that reads the question best."""
    paths: list[str] = []
    texts: list[str] = []
    for note in notes:
        pieces = [note.body[i : i + PLAIN_CHARS] for i in range(0, len(note.body), PLAIN_CHARS)]
        texts += [piece for piece in pieces if piece.strip()]
        paths += [note.path] * (len(texts) - len(paths))
    vectors = {}
    for slot in searcher.semantic.models:
        engine = slot.load()
        try:
            vectors[slot.row] = engine.embed_documents(texts)
        finally:
            engine.close()

    def ask(text: str) -> list[str]:
        from vaultvec.languages import language_of

        slot = (searcher.semantic.readers(language_of(text)) or searcher.semantic.models)[0]
        order = np.argsort(-(vectors[slot.row] @ searcher.semantic.embed(slot, text).result()), kind="stable")
        return list(dict.fromkeys(paths[i] for i in order))[:DEPTH]

    return ask


def evaluate(name: str, vault: Path, settings: Settings, with_plain: bool) -> dict[str, dict[str, dict[str, Quality]]]:
    """Set → split → way → quality, over one set and the queries made from its vault."""
    questions = {name: load_questions(ROOT / "benchmarks" / "eval" / f"{name}.json")}
    index_vault(settings, vault, hooks=Hooks(notify=_say))
    notes = read_notes(settings, vault)
    if name in KNOWN_ITEMS:
        questions |= made_questions(vault.name, notes)
    searcher = open_searcher(settings, vault)
    try:
        ways: dict[str, Ask] = {mode: product(searcher, mode) for mode in MODES}
        found = {
            kind: {way: [ask(q.text) for q in asked] for way, ask in ways.items()} for kind, asked in questions.items()
        }
        if with_plain:
            ask_plain = plain(notes, searcher)
            found[name]["plain"] = [ask_plain(q.text) for q in questions[name]]
    finally:
        searcher.close()
    return {kind: qualities(asked, found[kind]) for kind, asked in questions.items()}


def made_questions(vault: str, notes: Sequence[Note]) -> dict[str, list[Question]]:
    """Known items, as sets named "vault: kind", every other one to tune on."""
    return {
        f"{vault}: {kind}": [Question(item.query, item.answers, SPLITS[i % 2]) for i, item in enumerate(items)]
        for kind, items in known_items(notes).items()
    }


def qualities(questions: Sequence[Question], found: dict[str, list[list[str]]]) -> dict[str, dict[str, Quality]]:
    """Split → way → quality; without a split that has no questions."""
    table: dict[str, dict[str, Quality]] = {}
    for split in SPLITS:
        picked = [i for i, question in enumerate(questions) if question.split == split]
        if not picked:
            continue
        answers = [questions[i].answers for i in picked]
        table[split] = {way: quality([found[way][i] for i in picked], answers) for way in WAYS if way in found}
    return table


def spoilt(tables: dict[str, dict[str, dict[str, Quality]]]) -> list[str]:
    """Where hybrid search falls behind one of its halves by more than a hair."""
    lines = []
    for name, table in tables.items():
        for split, ways in table.items():
            best = max(("keyword", "semantic"), key=lambda way: ways[way].mrr_10)
            if ways["hybrid"].mrr_10 < ways[best].mrr_10 - HAIR:
                lines.append(f"{name} ({split}): hybrid {ways['hybrid'].mrr_10:.3f}, {best} {ways[best].mrr_10:.3f}")
    return lines


def markdown(tables: dict[str, dict[str, dict[str, Quality]]]) -> str:
    """The tables as Markdown, the report half first; bold: the best MRR@10 of a set, whichever way it is."""
    lines = []
    for split in reversed(SPLITS):
        lines += ["", f"| {split} half | way | hit@1 | hit@5 | MRR@10 | nDCG@10 |", "|---|---|--:|--:|--:|--:|"]
        for name, table in tables.items():
            best = max((round(q.mrr_10, 3) for q in table.get(split, {}).values()), default=0.0)
            for way, q in table.get(split, {}).items():
                shown = f"**{way}**" if round(q.mrr_10, 3) == best else way
                lines.append(f"| {name} | {shown} | {q.hit_1:.2f} | {q.hit_5:.2f} | {q.mrr_10:.3f} | {q.ndcg_10:.3f} |")
    return "\n".join(lines[1:])


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _vault(name: str, vaults: Path) -> Path | None:
    folder = ROOT / VAULTS[name] if VAULTS[name] == "sample_vault" else vaults / VAULTS[name]
    return folder if folder.is_dir() else None


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--vaults", type=Path, default=ROOT.parent / "shared" / "vaults", help="where the other vaults lie"
    )
    parser.add_argument("--data", type=Path, help="where indexes are kept (else a temporary folder)")
    parser.add_argument("--sets", nargs="+", choices=sorted(VAULTS), default=list(VAULTS))
    parser.add_argument(
        "--no-plain", action="store_true", help="leave the plain chunks out: they are embedded every time"
    )
    parser.add_argument("--model", metavar="NAME", default="auto", help="as EMBEDDING_MODEL in config.py (auto)")
    parser.add_argument(
        "--precision", choices=("auto", "fp32", "bf16", "int8"), default="auto", help="as PRECISION in config.py (auto)"
    )
    parser.add_argument(
        "--out", type=Path, help="where the figures go (benchmarks/results/evaluation[-MODEL][-PRECISION].json)"
    )
    args = parser.parse_args(argv)
    head = environment()  # before the work: the load that was there, the commit that was checked out
    tables: dict[str, dict[str, dict[str, Quality]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        data = str((args.data or Path(temporary)) / args.precision)  # fp32 and bf16 would share an index
        settings = load_settings(ROOT / "config.py", {**os.environ, "VAULTVEC_DATA": data})
        settings = replace(settings, embedding_model=args.model, precision=args.precision)
        for name in args.sets:
            vault = _vault(name, args.vaults)
            if vault is None:
                _say(f"{name}: there is no {VAULTS[name]} in {args.vaults}; left out")
                continue
            _say(f"{name}: {vault.name}")
            tables |= evaluate(name, vault, settings, not args.no_plain)
    print(markdown(tables))
    print("\nhybrid behind one of its halves: " + ("; ".join(spoilt(tables)) or "nowhere"))
    rows = [
        {"set": name, "split": split, "way": way, **{key: round(getattr(q, key), 4) for key in Quality.__slots__}}
        for name, table in tables.items() for split, ways in table.items() for way, q in ways.items()
    ]  # fmt: skip
    model = "auto" if args.model == "auto" else resolve(args.model).slug
    name = "-".join(["evaluation", *(part for part in (model, args.precision) if part != "auto")])
    out = args.out or ROOT / "benchmarks" / "results" / f"{name}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    document = {"environment": head, "model": model, "precision": args.precision, "results": rows}
    out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except VaultvecError as error:
        _say(str(error))
        sys.exit(error.exit_code)
