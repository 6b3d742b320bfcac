"""The evaluation's own arithmetic, and its question sets."""

from __future__ import annotations

import json
import math
import unicodedata
from pathlib import Path

import pytest

from benchmarks import evaluate
from benchmarks.evaluate import SPLITS, UNSEEN, VAULTS, Quality, load_questions, markdown, quality, spoilt
from benchmarks.known_items import known_items
from vaultvec.datatypes import Note
from vaultvec.settings import Settings

ROOT = Path(__file__).resolve().parents[1]


def test_quality() -> None:
    ranked = [["a", "b"], ["x", "a", "b"], ["x"] * 9 + ["a"], ["x"] * 10 + ["a"]]
    answers = [frozenset("a"), frozenset("ab"), frozenset("a"), frozenset("a")]
    found = quality(ranked, answers)
    assert found.hit_1 == 0.25
    assert found.hit_5 == 0.5
    assert found.mrr_10 == pytest.approx((1 + 1 / 2 + 1 / 10 + 0) / 4)
    second = (1 / math.log2(3) + 1 / math.log2(4)) / (1 + 1 / math.log2(3))
    assert found.ndcg_10 == pytest.approx((1 + second + 1 / math.log2(11) + 0) / 4)
    assert quality([], []) == Quality(0.0, 0.0, 0.0, 0.0)


def test_paths_are_compared_in_nfc() -> None:
    name = "독서/느리게.md"
    assert quality([[unicodedata.normalize("NFD", name)]], [frozenset([name])]).hit_1 == 1


@pytest.mark.parametrize("name", sorted(VAULTS))
def test_question_sets(name: str) -> None:
    questions = load_questions(ROOT / "benchmarks" / "eval" / f"{name}.json")
    assert {question.split for question in questions} == ({"report"} if name in UNSEEN else set(SPLITS))
    assert all(question.text.strip() and question.answers for question in questions)
    if VAULTS[name] == "sample_vault":
        vault = ROOT / "sample_vault"
        notes = {unicodedata.normalize("NFC", file.relative_to(vault).as_posix()) for file in vault.rglob("*.md")}
        assert {path for question in questions for path in question.answers} <= notes


def test_the_table_has_the_report_half_first() -> None:
    good = Quality(1.0, 1.0, 1.0, 1.0)
    worse = Quality(1.0, 1.0, 0.9, 1.0)
    ways = {"plain": worse, "keyword": good, "hybrid": worse}
    lines = markdown({"hybrid": {"report": ways, "tune": {**ways, "hybrid": good}}}).splitlines()
    assert lines[0].startswith("| report")
    bold = [line.split(" | ")[1] for line in lines if "**" in line]
    assert bold == ["**keyword**", "**keyword**", "**hybrid**"]  # the best of the set in each half, also where two are
    assert "| hybrid | hybrid | 1.00 | 1.00 | 0.900 | 1.000 |" in lines


def test_a_result_file_says_what_it_was_made_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = Quality(1.0, 1.0, 1.0, 1.0)
    ways = dict.fromkeys(("keyword", "semantic", "hybrid"), good)
    asked: list[tuple[str, str]] = []

    def made(name: str, _: Path, settings: Settings, __: bool) -> dict[str, object]:
        asked.append((settings.embedding_model, settings.precision))
        return {name: dict.fromkeys(SPLITS, ways)}

    monkeypatch.setattr(evaluate, "evaluate", made)
    monkeypatch.setattr(evaluate, "ROOT", tmp_path)
    (tmp_path / "config.py").write_text("")
    (tmp_path / "sample_vault").mkdir()
    chosen = ["--model", "BAAI/bge-m3", "--precision", "int8"]
    assert evaluate.main(["--sets", "sample_en", "--data", str(tmp_path), *chosen]) == 0
    out = tmp_path / "benchmarks" / "results" / "evaluation-bge-m3-int8.json"
    found = json.loads(out.read_text(encoding="utf-8"))
    assert asked == [("BAAI/bge-m3", "int8")]
    assert (found["model"], found["precision"]) == ("bge-m3", "int8")
    assert {"commit", "date", "cpu", "cores", "versions"} <= set(found["environment"])
    assert len(found["results"]) == 6


def test_where_a_half_is_spoilt_is_told() -> None:
    good, worse = Quality(1.0, 1.0, 1.0, 1.0), Quality(0.0, 1.0, 0.5, 0.6)
    ways = {"keyword": good, "semantic": worse, "hybrid": good}
    assert spoilt({"a": {"tune": ways}}) == []
    assert spoilt({"a": {"tune": ways, "report": {**ways, "hybrid": worse}}}) == [
        "a (report): hybrid 0.500, keyword 1.000"
    ]


def test_known_items_come_from_the_notes() -> None:
    words = [
        "river",
        "lantern",
        "orchard",
        "pebble",
        "saddle",
        "timber",
        "violin",
        "walnut",
        "yarrow",
        "zephyr",
        "anchor",
        "basket",
    ]
    notes = [
        Note(f"{name}.md", name, f"{' '.join(words[i:] + words[:i])}\n" + "an ordinary ending of the note " * 12, 1)
        for i, name in enumerate(("One", "Two", "Three"))
    ]
    made = known_items(notes)
    assert made == known_items(notes)
    assert {kind: len(items) for kind, items in made.items()} == {
        "title": 3,
        "word": 18,
        "words": 3,
        "strange": 3,
        "sentence": 3,
    }
    text = {note.path: f"{note.title} {note.body}".lower() for note in notes}
    assert all(item.answers == {f"{item.query}.md"} for item in made["title"])
    assert all(item.query.lower() in text[path] for item in made["sentence"] for path in item.answers)
    for item in made["words"]:
        assert 2 <= len(item.query.split()) <= 4
        assert item.answers == {note.path for note in notes}  # all three hold the same words
    assert all(len(item.query.split()) == 5 for item in made["strange"])
    assert known_items([]) == {"title": [], "word": [], "words": [], "strange": [], "sentence": []}
