"""Korean stems: what grammar adds goes, what belongs to a word stays, and a stem is always the beginning of its word."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultvec.korean import STEM_SYLLABLES, stem


@pytest.mark.parametrize(
    ("word", "stemmed"),
    [
        ("보관함에서", "보관함"),
        ("보관함에서는", "보관함"),
        ("플러그인을", "플러그인"),
        ("설정하려면", "설정"),
        ("돌려주면", "돌려주"),
        ("회의", "회의"),  # not 회 and a particle
        ("나이", "나이"),
        ("노트", "노트"),
        ("책", "책"),
        ("basil", "basil"),
        ("", ""),
        ("大韓民國은", "大韓民國은"),
    ],
)
def test_stem(word: str, stemmed: str) -> None:
    assert stem(word) == stemmed


@given(st.text(st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3), max_size=12))
def test_a_stem_is_the_beginning_of_its_word(word: str) -> None:
    found = stem(word)
    assert word.startswith(found)
    assert len(found) >= min(len(word), STEM_SYLLABLES)
