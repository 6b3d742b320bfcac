"""Filters: what is asked on the command line, which notes pass, and one line when none does."""

from __future__ import annotations

import unicodedata
from datetime import datetime

import pytest

from vaultvec.errors import QueryError
from vaultvec.lookup import NoteRow
from vaultvec.ranking.filters import Filters, parse_filters, passing_notes


def note(number: int, path: str, tags: tuple[str, ...] = (), day: str = "2026-01-10") -> NoteRow:
    changed = int(datetime.fromisoformat(f"{day}T12:00").timestamp()) * 10**9
    return NoteRow(number, path, path, tags, (), (), changed)


NOTES = [
    note(1, "Recipes/Soup.md", ("recipe/soup", "Korean")),
    note(2, "Recipes/Old/Bread.md", ("recipe",), "2025-12-31"),
    note(3, "일기/봄.md", ("일기/봄",), "2026-02-01"),
    note(4, "Recipesque.md", ("recipes",)),
]


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        (Filters(folder="recipes"), {1, 2}),
        (Filters(folder="./Recipes/Old/"), {2}),
        (Filters(folder="Recipes\\Old"), {2}),
        (Filters(folder=unicodedata.normalize("NFD", "일기")), {3}),
        (Filters(folder="."), {1, 2, 3, 4}),
        (Filters(tags=("recipe",)), {1, 2}),
        (Filters(tags=("#RECIPE/soup", "korean")), {1}),
        (Filters(tags=("일기",)), {3}),
        (parse_filters(since="2026-01-10"), {1, 3, 4}),
        (parse_filters(until="2026-01-10"), {1, 2, 4}),
        (parse_filters(since="2026-01-01", until="2026-01-31", folder="Recipes"), {1}),
    ],
)
def test_which_notes_pass(filters: Filters, ids: set[int]) -> None:
    assert passing_notes(NOTES, filters) == ids


def test_a_day_is_from_midnight_to_midnight() -> None:
    seconds = [int(datetime.fromisoformat(day).timestamp()) for day in ("2026-01-10", "2026-01-11")]
    notes = [NoteRow(i, "a", "a", (), (), (), at * 10**9) for i, at in enumerate(seconds)]
    assert passing_notes(notes, parse_filters(since="2026-01-10", until="2026-01-10")) == {0}


@pytest.mark.parametrize(
    ("filters", "line"),
    [
        (Filters(folder="Recipe"), r"no note lies in the folder 'Recipe'; nearest: Recipes"),
        (Filters(folder="Old"), r"nearest: Recipes/Old"),
        (Filters(tags=("soup",)), r"no note has the tag 'soup'; nearest: recipe/soup"),
        (Filters(tags=("recipe", "zzzz")), r"no note has the tag 'zzzz'; the most used: recipe, "),
        (Filters(folder="일기", tags=("recipe",)), r"no note passes these filters together"),
        (parse_filters(since="2030-01-01"), r"the notes' dates go from 2025-12-31 to 2026-02-01"),
    ],
)
def test_none_passes(filters: Filters, line: str) -> None:
    with pytest.raises(QueryError, match=line):
        passing_notes(NOTES, filters)


def test_the_last_day_that_can_be_written_is_no_end() -> None:
    assert passing_notes(NOTES, parse_filters(until="9999-12-31")) == passing_notes(NOTES, parse_filters())


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"since": "yesterday"}, "expected a day such as 2026-01-31"),
        ({"until": "2026-02-30"}, "expected a day"),
        ({"since": ""}, "expected a day"),
        ({"since": "0001-01-01"}, "from 1970 on"),
        ({"since": "2026-02-02", "until": "2026-02-01"}, "later than"),
        ({"min_score": 1.5}, "0 to 1"),
        ({"min_score": float("nan")}, "0 to 1"),
        ({"tags": ["#"]}, "expected a tag"),
        ({"folder": " "}, "expected a folder"),
    ],
)
def test_filters_that_cannot_be(options: dict[str, object], line: str) -> None:
    with pytest.raises(QueryError, match=line):
        parse_filters(**options)  # type: ignore[arg-type]


def test_a_tag_asked_for_where_no_note_has_one() -> None:
    with pytest.raises(QueryError, match=r"the indexed notes have no tags, leave --tag out$"):
        passing_notes([note(1, "a.md")], Filters(tags=("soup",)))


def test_no_filter_looks_at_no_note() -> None:
    assert not any(parse_filters(min_score=score).choose_notes for score in (0.0, 0.5, 1.0))
    assert parse_filters(tags=["a"]).choose_notes
