"""What of a passage is shown."""

from __future__ import annotations

import pytest

from vaultvec.terminal.excerpt import excerpt

LONG = "Nothing is said here. " * 40


@pytest.mark.parametrize(
    ("end", "query"),
    [
        ("The needle lies in the marmalade, they say. And more.", "needle in marmalade"),
        ("Backups are made at night. And more.", "backup"),
        ("보관함에서 노트를 옮긴다. 그리고", "보관함 노트"),
        ("図書館の本。そして", "図書館"),
    ],
)
def test_the_sentence_that_holds_the_words_is_shown(end: str, query: str) -> None:
    assert excerpt(LONG + end, query, 60) == f"… {end}"[:62]


def test_words_that_say_nothing_choose_no_sentence() -> None:
    text = "My tea is here. It is my day. " * 20 + "The archive goes to a rented box."
    assert excerpt(text, "is my archive", 60) == "… The archive goes to a rented box."


def test_the_beginning_is_shown_where_nothing_is_held_or_all_fits() -> None:
    assert excerpt(LONG, "unicorn", 60) == LONG[:60]
    assert excerpt(LONG, "", 60) == LONG[:60]
    assert excerpt("One. Two needles.", "needle", 60) == "One. Two needles."
