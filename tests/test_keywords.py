"""Terms and queries: every word that is stored is found, in any script, and nothing typed is an operator."""

from __future__ import annotations

import sqlite3

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vaultvec.keywords import MAX_QUERY_TERMS, index_terms, parse_query, parts, shown
from vaultvec.sqlite.schema import KEYWORDS_TABLE


def matches(text: str, expression: str) -> bool:
    """Whether FTS5 finds `text` by `expression`."""
    db = sqlite3.connect(":memory:")
    try:
        db.execute(KEYWORDS_TABLE)
        db.execute("INSERT INTO keywords(body) VALUES(?)", (index_terms(text),))
        return bool(db.execute("SELECT 1 FROM keywords WHERE keywords MATCH ?", (expression,)).fetchall())
    finally:
        db.close()


def found(text: str, query: str) -> bool:
    terms = parse_query(query).terms
    return bool(terms) and matches(text, " OR ".join(terms))


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("회의록은 어디에", "회의록"),
        ("도서관에서 책을", "책"),
        ("도서관에서 책을", "도서관까지"),
        ("책이 늦다", "책을"),
        ("책이 늦다", "책에서"),
        ("책이 늦다", "책에는"),
        ("회의가 길다", "회의"),
        ("大韓民國의 역사", "大韓民國"),
        ("日本語の文章", "文章"),
        ("東京都", "京"),
        ("바다", "다"),
        ("Running shoes", "run"),
        ("Café au lait", "cafe"),
        ("Ångström", "angstrom"),
        ("naïve", "NAIVE"),
        ("C3PO x2", "x2"),
        ("e\u0301tude", "étude"),
        ("ΑΒΓ", "αβγ"),
        ("привет мир", "МИР"),
        ("snake_case_name", "case"),
        ("Straße", "straße"),
        ("İstanbul", "İSTANBUL"),
        ("ＰＤＦ ファイル", "pdf"),
        ("PDF", "ＰＤＦ"),
        ("ｶﾞｲﾄﾞ", "ガイド"),
        ("the oﬃce of ﬁnance", "office"),
        ("⾼速", "高速"),
        ("ﺍﻟﺴﻼﻡ", "السلام"),
        ("أحمد", "احمد"),
        ("Ёлка", "елка"),
        ("еще", "ещё"),
        ("μηχανική", "ΜΗΧΑΝΙΚΗ"),
        ("Đà Nẵng", "da"),
        ("Łódź", "lodz"),
        ("C++20 templates", "c++"),
        ("C/C++", "C"),
        ("in C#.", "c#"),
    ],
)
def test_found(text: str, query: str) -> None:
    assert found(text, query)


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("회의록", "의회"),
        ("관서 도서 서관", "도서관"),
        ("회사", "회의록"),
        ("東京", "京都"),
        ("running", "jump"),
        ("basil", "bas"),
        ("사람", "사과는"),
        ("vitamin C", "C++"),
        ("C++", "C#"),
        ("see #tag", "e#"),
        ("мой", "мои"),
    ],
)
def test_not_found(text: str, query: str) -> None:
    assert not found(text, query)


def test_a_phrase_leaves_room_for_a_particle_and_for_nothing_else() -> None:
    required = parse_query('"도서관 책"').required
    assert matches("도서관 책을 읽다", required)
    assert not matches("도서관 새 책을 읽다", required)


def test_what_only_asks_is_no_term_unless_there_is_nothing_else() -> None:
    assert parse_query("태그를 바꾸려면 어떻게 하려면").terms == ('"태그"', '"바꾸"')
    assert parse_query("하려면").terms


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("그래프 뷰를", {"그래프 뷰"}),
        ("그래프 뷰를 어떻게 하나요?", {"그래프 뷰", "그래프 뷰를"}),
        ("그래프 뷰에 대해", {"그래프 뷰", "그래프 뷰에"}),
        ("플러그인이란 무엇인가", {"플러그인", "플러그인이", "플러그인이란"}),
        ("홈에서", {"홈"}),
        ("집에는", {"집", "집에"}),
        ("API를", {"api"}),
        ("ElasticSearch를", {"elasticsearch"}),
        ("그래프", set()),
        ("한국어", set()),
        ("만족도", set()),
        ("물가", set()),
        ("어떻게 하나요", set()),
        ("what is it", set()),
    ],
)
def test_the_names_in_a_korean_question(query: str, names: set[str]) -> None:
    assert set(parse_query(query).names) == names


def test_a_particle_after_an_english_word_is_no_term() -> None:
    assert parse_query("ElasticSearch를").terms == ('"elasticsearch"',)


def test_iran_is_a_country_and_an_ending() -> None:
    assert parse_query("이란 여행").terms == ('"이란"', '"여행"')


def test_a_word_in_pairs_can_be_taken_apart_and_written_again() -> None:
    (term,) = parse_query("도서관에서").terms
    assert (term, parts(term), shown(term)) == ('"도서 서관"', ['"도서"', '"서관"'], "도서관")
    assert shown(*parse_query("C++").terms) == "c++"
    assert (parts('"basil"'), shown('"basil"')) == (['"basil"'], "basil")


def test_exclusions_and_phrases_are_told_apart() -> None:
    query = parse_query('basil -winter "exact phrase" -"not this" well-known')
    assert query.text == "basil exact phrase well-known"
    assert query.required == '"exact phrase"'
    assert query.excluded == ('"winter"', '"not this"')


def test_an_option_of_a_command_is_no_exclusion() -> None:
    query = parse_query("git commit -m message -책")
    assert query.text == "git commit -m message"
    assert '"m"' in query.terms
    assert len(query.excluded) == 1


def test_a_very_long_query_is_cut_and_says_so() -> None:
    query = parse_query(" ".join(f"word{i}" for i in range(10_000)))
    assert len(query.terms) == MAX_QUERY_TERMS
    assert query.cut


@given(st.text(max_size=60))
def test_nothing_that_can_be_typed_breaks_the_query_language(text: str) -> None:
    query = parse_query(text.replace("\x00", " "))
    for expression in (*query.terms, query.required, *query.excluded):
        if expression:
            matches("some text", expression)


@example("𐒰")  # Osage: it has capitals that SQLite does not fold
@example("ΟΔΟΣ")
@given(st.text(alphabet=st.characters(categories=("L", "N")), min_size=1, max_size=12))
def test_a_stored_word_is_found_by_itself(word: str) -> None:
    query = parse_query(word)
    if query.terms and index_terms(word):
        assert matches(f"before {word} after", " OR ".join(query.terms))


@pytest.mark.parametrize(
    ("text", "query", "found"),
    [
        ("हिन्दी में खोज", "हिन्दी", True),
        ("ह न द", "हिन्दी", False),
        ("ผมชอบกินข้าวผัด", "ข้าว", True),
        ("กบ ข า ว", "ข้าว", False),
        ("مُحَمَّد", "محمد", True),
        ("שלום", "שָׁלוֹם", True),
        ("co\u00adoperate", "cooperate", True),
    ],
)
def test_vowel_signs_belong_to_their_word(text: str, query: str, found: bool) -> None:
    assert matches(text, " AND ".join(parse_query(query).terms)) is found
