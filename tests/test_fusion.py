"""Fusion: a good half is not spoiled by a useless one, long notes gain nothing by their length, scores are 0 to 1."""

from __future__ import annotations

import math
import sqlite3
from contextlib import closing

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultvec.ranking.fusion import (
    BM25_MOST,
    Candidates,
    Fusion,
    Half,
    calibrated,
    idf,
    keyword_weight,
    semantic_scores,
    together,
)

NAN = float("nan")


def half(*scores: float, weight: float = 1.0) -> Half:
    array = np.array(scores, np.float32)
    return Half("half", weight, array, array)


def candidates(notes: list[int], siblings: list[int] | None = None) -> Candidates:
    n = len(notes)
    return Candidates(
        np.arange(n), np.array(notes), np.zeros(n, np.bool_), np.array(siblings or [1] * n), np.zeros(n, np.bool_)
    )


def order(*args: object, per_note: bool = True) -> list[int]:
    return [position for _, position in Fusion(*args, per_note).ranked()]  # type: ignore[arg-type]


def test_a_useless_half_does_not_spoil_a_good_one() -> None:
    models, words = half(0.5, 0.3, 0.1), half(0.02, NAN, 0.04, weight=0.3)
    assert order(candidates([1, 2, 3]), [models], words) == [0, 1, 2]


def test_a_strong_match_of_words_decides_between_equals() -> None:
    assert order(candidates([1, 2]), [half(0.31, 0.30)], half(NAN, 0.8, weight=0.3)) == [1, 0]


def test_each_half_alone() -> None:
    assert order(candidates([1, 2, 3]), [half(0.1, 0.3, 0.2)], None) == [1, 2, 0]
    assert order(candidates([1, 2, 3]), [], half(0.1, 0.3, 0.2)) == [1, 2, 0]
    assert order(candidates([]), [], None) == []


def test_the_best_of_many_chunks_is_high_by_chance() -> None:
    assert order(candidates([1, 2], [40, 1]), [half(0.32, 0.30)], None) == [1, 0]
    assert order(candidates([1, 2], [40, 1]), [half(0.32, 0.30)], None, per_note=False) == [0, 1]


def test_the_script_of_the_query_counts_a_little() -> None:
    n = np.ones(2, np.int64)
    other = Candidates(np.arange(2), np.array([1, 2]), np.zeros(2, np.bool_), n, np.array([True, False]))
    for per_note in (True, False):
        assert order(other, [half(0.34, 0.30)], None, per_note=per_note) == [1, 0]
        assert order(other, [half(0.36, 0.30)], None, per_note=per_note) == [0, 1]
        assert order(other, [], half(0.31, 0.30), per_note=per_note) == [0, 1]


@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.booleans(), st.booleans())
def test_only_the_script_of_contenders_decides_who_is_first(
    seed: int, n: int, per_note: bool, with_words: bool
) -> None:
    random = np.random.default_rng(seed)
    m = int(random.integers(1, 40))

    def scores() -> Half:
        drawn = random.uniform(-0.1, 0.4, m).astype(np.float32)
        drawn[random.random(m) < 0.2] = np.nan
        return Half("half", float(random.choice([0.3, 1.0])), drawn, drawn)

    notes = random.integers(0, m, m)
    foreign = random.random(m) < 0.5
    whole = Candidates(np.arange(m), notes, random.random(m) < 0.3, np.bincount(notes)[notes], foreign)
    halves = ([scores()], scores() if with_words else None)
    able = Fusion(whole, *halves, per_note).contenders(n)
    looked_at = Candidates(whole.rows, whole.notes, whole.opens, whole.siblings, foreign & able)
    assert Fusion(looked_at, *halves, per_note).ranked()[:n] == Fusion(whole, *halves, per_note).ranked()[:n]


def test_those_far_behind_are_no_contenders() -> None:
    fusion = Fusion(candidates([1, 2, 3, 3]), [half(0.9, 0.87, 0.5, 0.88)], None, per_note=True)
    assert fusion.contenders(1).tolist() == [True, True, True, True]  # the third by its note's other chunk
    fusion = Fusion(candidates([1, 2, 3]), [half(0.9, 0.87, 0.5)], None, per_note=True)
    assert fusion.contenders(1).tolist() == [True, True, False]


def test_the_opening_counts_a_little() -> None:
    opens = Candidates(
        np.arange(2), np.array([1, 2]), np.array([False, True]), np.ones(2, np.int64), np.zeros(2, np.bool_)
    )
    assert order(opens, [half(0.31, 0.30)], None) == [1, 0]


def test_one_row_a_note_with_its_best_chunk() -> None:
    found = Fusion(
        candidates([1, 1, 2], [2, 2, 1]), [half(0.1, 0.6, 0.2)], half(0.9, NAN, NAN, weight=0.3), True
    ).ranked()
    assert [position for _, position in found] == [1, 2]
    points = 0.6 + 0.3 * 0.9 - 0.03 * math.log(2)  # the words of the other chunk count for the note
    assert found[0][0] == pytest.approx(points * 2.3 / (1.3 * (points + 1)))


def test_what_the_leading_model_cannot_read_is_left_to_the_second() -> None:
    scores = semantic_scores([half(0.5, NAN, NAN), half(0.2, 0.6, NAN, weight=0.3)])
    assert scores == pytest.approx([(0.5 + 0.3 * 0.2) / 1.3, 0.7 * 0.6, 0.0])


def test_scores_are_0_to_1() -> None:
    found = Fusion(candidates([1, 2, 3]), [half(1.4, -0.9, 1.0)], half(1.0, NAN, 1.0, weight=0.3), True).ranked()
    assert [score for score, _ in found] == pytest.approx([1.0, 1.0, 0.0])


@given(st.lists(st.floats(-0.5, 2.0, width=32), min_size=2, max_size=20), st.booleans())
def test_a_score_grows_with_the_points_and_stays_between_0_and_1(points: list[float], with_bonus: bool) -> None:
    zeros = np.zeros(len(points), np.float32)
    words = Half("keyword", 0.3, zeros, zeros, np.full(len(points), 0.9, np.float32) if with_bonus else None)
    found = Fusion(candidates(list(range(len(points)))), [half(*points)], words, True).ranked()
    scores = [score for score, _ in found]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    assert [points[i] for _, i in found] == pytest.approx(sorted(points, reverse=True), abs=1e-6)


def test_words_that_stand_together_earn_points() -> None:
    yes, no = np.ones(1, np.bool_), np.zeros(1, np.bool_)
    assert together(np.float32([1.0]), 2, no, no, no) == pytest.approx([0.5])
    assert together(np.float32([0.5]), 2, no, no, no) == pytest.approx([0.0625])
    assert together(np.float32([1.0]), 1, no, no, no) == pytest.approx([0.3])
    assert together(np.float32([1.0]), 2, yes, no, no) == pytest.approx([0.7])
    assert together(np.float32([1.0]), 2, yes, yes, yes) == pytest.approx([1.3])
    assert together(np.float32([0.0]), 2, no, yes, no) == pytest.approx([0.3])


def test_calibration() -> None:
    assert calibrated(np.array([0.7, 1.0, 0.6], np.float32), 0.7) == pytest.approx([0.0, 1.0, -1 / 3], abs=1e-6)


def test_korean_words_weigh_more() -> None:
    assert keyword_weight("ko") > keyword_weight("en") == keyword_weight("de")
    assert keyword_weight("ko") == keyword_weight("ja") == keyword_weight("zh")


def test_the_weight_of_a_word_is_the_one_fts5_gives_it() -> None:
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute("CREATE VIRTUAL TABLE t USING fts5(body)")
        db.executemany("INSERT INTO t VALUES(?)", [("apple " * 2000,), *[("pear plum",)] * 99])
        best = -db.execute("SELECT bm25(t) FROM t WHERE t MATCH 'apple'").fetchone()[0]
    assert best <= BM25_MOST * idf(1, 100)
    assert 0 < idf(101, 100) <= idf(99, 100) < 0.01  # of a word that nearly every chunk holds
    assert best == pytest.approx(BM25_MOST * idf(1, 100), rel=0.1)
