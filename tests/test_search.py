"""Search over a small index whose vectors are word counts: what is found, what is said, what never happens."""

from __future__ import annotations

import sqlite3
import time
import unicodedata
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from made_index import DIM, MadeIndex

from vaultvec import lookup
from vaultvec.errors import QueryError
from vaultvec.keywords import parse_query
from vaultvec.ledger import Ledger
from vaultvec.names import obsidian_uri, vault_root
from vaultvec.ranking.filters import Filters
from vaultvec.ranking.matrix import read_matrix, read_table
from vaultvec.ranking.wording import NAMES
from vaultvec.search import Searcher


@pytest.fixture
def index(tmp_path: Path) -> MadeIndex:
    made = MadeIndex(tmp_path)
    made.put("Garden/Basil.md", "basil wants warmth and water from below", tags=["garden/herbs"], day=3)
    made.put(
        "Garden/Roses.md", "prune roses in march, above an outward bud", "feed roses with compost", tags=["garden"]
    )
    made.put(
        "Software/Backups 3-2-1.md", "three copies, one away from home", links=["Basil"], aliases=["Sicherung"], day=9
    )
    made.put("독서/도서관 앱.md", "책을 늦게 돌려주면 예약이 막힌다. 보관함에서 노트를 옮긴다", tags=["독서"])
    made.put("독서/커피 일지.md", "에티오피아 원두는 낮은 온도에서 내린다")
    made.put("Music/Cello 🎻.md", "bow slowly, twenty seconds a note; the C string 🔥 growls")
    return made


@pytest.fixture
def searcher(index: MadeIndex) -> Iterator[Searcher]:
    made = index.searcher()
    yield made
    made.close()


def paths(searcher: Searcher, query: str, mode: str = "hybrid", **options: object) -> list[str]:
    return [row.path for row in searcher.search(query, 10, mode, **options).results]  # type: ignore[arg-type]


# ── words ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ("보관함", "독서/도서관 앱.md"),  # the note has 보관함에서
        ("노트는", "독서/도서관 앱.md"),  # the note has 노트를
        ("책", "독서/도서관 앱.md"),
        ("린", "독서/커피 일지.md"),  # inside a word
        (unicodedata.normalize("NFD", "에티오피아"), "독서/커피 일지.md"),
        ("pruning", "Garden/Roses.md"),  # stemmed
        ("Sicherung", "Software/Backups 3-2-1.md"),  # an alias
        ("herbs", "Garden/Basil.md"),  # a part of a tag
        ("c", "Music/Cello 🎻.md"),
    ],
)
def test_keywords_find(searcher: Searcher, query: str, path: str) -> None:
    assert paths(searcher, query, "keyword")[0] == path


def test_a_korean_word_that_stands_nowhere_as_a_whole_is_found_by_its_parts(searcher: Searcher) -> None:
    assert paths(searcher, "도서관책장", "keyword") == ["독서/도서관 앱.md"]
    assert paths(searcher, "도서관을", "keyword") == ["독서/도서관 앱.md"]


def test_a_note_that_holds_the_words_together_comes_before_one_that_repeats_one_of_them(tmp_path: Path) -> None:
    made = MadeIndex(tmp_path)
    made.put("both.md", "along the river, then tea with an umbrella")
    made.put("one.md", "an umbrella shop sells umbrella after umbrella")
    for number in range(20):
        made.put(f"{number}.md", f"something else {number}")
    search = made.searcher()
    try:
        assert paths(search, "umbrella", "semantic")[0] == "one.md"
        assert paths(search, "umbrella river")[0] == paths(search, "umbrella river", "keyword")[0] == "both.md"
        whole = search.search("tea with an umbrella", explain=True).results[0]
        assert (whole.path, whole.explain["keyword_bonus_part"]) == ("both.md", 0.7)
        part = search.search("tea umbrella", explain=True).results[0]
        assert (part.path, part.explain["keyword_bonus_part"]) == ("both.md", 0.5)
        assert {row.explain["keyword_bonus_part"] for row in search.search("umbrella", 2, explain=True).results} == {
            0.3
        }
        assert "umbrella" in search.search("umbrella").results[1].text
    finally:
        search.close()


def test_a_note_called_as_the_query_says_comes_first(tmp_path: Path) -> None:
    made = MadeIndex(tmp_path)
    made.put("Canvas.md", "a board for cards and arrows")
    made.put("Cards.md", "paint on canvas with a brush", aliases=["Leinwand"])
    search = made.searcher()
    try:
        named, other = search.search("canvas", explain=True).results
        assert (named.path, named.explain["keyword_bonus_part"]) == ("Canvas.md", 0.9)
        assert (other.path, other.explain["keyword_bonus_part"]) == ("Cards.md", 0.3)
        assert search.search("leinwand", explain=True).results[0].explain["keyword_bonus_part"] == 0.9
    finally:
        search.close()


def test_phrases_among_a_few_chunks_are_those_of_the_whole_index(
    searcher: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    searcher.search("basil")
    ids = searcher.words._table.ids
    phrases = [
        "prune roses",
        "pruning rose",
        "FEED Roses",
        "basil",
        "도서관 앱",
        "노트를 옮긴",
        "the C string",
        "three away",
    ]
    asked = [f"{where}{parse_query(text).phrase}" for text in phrases for where in ("", f"{NAMES} : ")]
    few = lookup.matching_phrases(searcher.ledger, asked, ids)
    monkeypatch.setattr(lookup, "FEW", 0)
    whole = lookup.matching_phrases(searcher.ledger, asked, ids)
    np.testing.assert_array_equal(few, whole)
    assert 8 <= np.any(few, axis=1).sum() < len(asked)


def test_words_are_looked_for_while_the_model_reads_the_query(
    searcher: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, counted = searcher.words.shares, Event()

    def shares(*arguments: Any) -> Any:
        counted.set()
        return alone(*arguments)

    def load() -> Any:
        assert counted.wait(30), "the model is loaded before the words are looked for"
        return slot.load()

    slot = searcher.semantic.models[0]
    monkeypatch.setattr(searcher.words, "shares", shares)
    searcher.semantic.models[0] = replace(slot, load=load)
    assert paths(searcher, "basil warmth")[0] == "Garden/Basil.md"


def test_a_title_as_a_whole_comes_before_a_part_of_one(tmp_path: Path) -> None:
    made = MadeIndex(tmp_path)
    for name in ("Simple tables", "A simple theme", "🗂️ Simple", "Simple and simpler"):
        made.put(f"{name}.md", "simple words")
    search = made.searcher()
    try:
        assert paths(search, "simple")[0] == "🗂️ Simple.md"
    finally:
        search.close()


@pytest.mark.parametrize(
    "query",
    [
        "그래프 뷰",
        "그래프 뷰를",
        "그래프 뷰에 대해",
        "그래프 뷰에서는",
        "그래프 뷰란 무엇인가",
        "그래프 뷰는 어떻게 하나요?",
    ],
)
def test_a_korean_title_with_a_particle_is_the_title(tmp_path: Path, query: str) -> None:
    made = MadeIndex(tmp_path)
    made.put("그래프 뷰.md", "점과 선")
    made.put("단축키.md", "그래프 뷰를 연다. 그래프 뷰에서는 된다. 그래프 뷰는 어떻게 하나요?")
    made.put("그래프 뷰 설정.md", "그래프 뷰를 바꾼다")
    search = made.searcher()
    try:
        first = search.search(query, mode="keyword", explain=True).results[0]
        assert (first.path, first.explain["keyword_bonus_part"] >= 0.6) == ("그래프 뷰.md", True)
    finally:
        search.close()


def test_a_korean_word_that_is_nowhere_is_not_held_by_a_part_of_it(tmp_path: Path) -> None:
    made = MadeIndex(tmp_path)
    made.put("버그.md", "버그를 알리는 법")
    made.put("글.md", "늘 푸른 글")
    search = made.searcher()
    try:
        bonus = {row.path: row.explain["keyword_bonus_part"] for row in search.search("에버그린", explain=True).results}
        assert bonus["버그.md"] < 0.01
    finally:
        search.close()


def test_chroma_is_opened_anew_after_a_commit(searcher: Searcher) -> None:
    class Store:
        closed = False

        def close(self) -> None:
            self.closed = True

    searcher.search("basil")
    store = searcher.semantic._stores[1] = Store()  # type: ignore[assignment]
    searcher.semantic.refresh(searcher._table)
    assert store.closed
    assert not searcher.semantic._stores


def test_a_word_counted_a_moment_after_the_chunks_is_weighed(searcher: Searcher) -> None:
    assert paths(searcher, "basil warmth")
    searcher.words._counts['"basil"'] = 10_000  # a writer has committed many more since
    assert paths(searcher, "basil warmth")[0] == "Garden/Basil.md"


def test_of_equals_the_one_in_the_query_script_comes_first(tmp_path: Path) -> None:
    made = MadeIndex(tmp_path)
    made.put("가.md", "사과사과사과")
    made.put("a.md", "apple pear")
    made.put("나.md", "apple 사과사과사과")
    search = made.searcher()
    try:
        assert paths(search, "apple", "semantic")[0] == "a.md"
        made.remove("가.md")
        search._next_refresh = 0.0
        assert paths(search, "apple", "semantic")[0] == "a.md"
        assert paths(search, "apple 바나나바나나", "semantic")[0] == "나.md"
        made.put("best.md", "apple 바나나바나나")
        search._next_refresh = 0.0
        assert paths(search, "apple 바나나바나나", "semantic") == ["best.md", "나.md", "a.md"]
        made.put("apple.md", "apple")
        search._next_refresh = 0.0
        assert paths(search, "apple", "semantic") == ["apple.md", "a.md", "best.md", "나.md"]
    finally:
        search.close()


def test_a_phrase_is_required_in_every_mode(searcher: Searcher) -> None:
    for mode in ("hybrid", "semantic", "keyword"):
        assert paths(searcher, '"outward bud" roses basil', mode) == ["Garden/Roses.md"]
    assert paths(searcher, '"bud outward"') == []


def test_a_phrase_that_stands_nowhere_is_words_where_others_stand_beside_it(searcher: Searcher) -> None:
    answer = searcher.search('what grows an "bud outward" in march')
    assert answer.results[0].path == "Garden/Roses.md"
    assert answer.remarks == ('no passage holds "bud outward" as it is written, so its words were searched for',)
    alone = searcher.search('"bud outward"')
    assert alone.results == []
    assert any("without the marks its words are searched for" in remark for remark in alone.remarks)
    both = searcher.search('grow basil "outward bud" "bud outward"')
    assert [row.path for row in both.results] == ["Garden/Roses.md"], "the one that stands somewhere stays required"
    assert both.remarks == answer.remarks
    found = searcher.search('roses "outward bud"', filters=Filters(folder="Music"))
    assert (found.results, found.remarks) == ([], ()), "a phrase that stands elsewhere stays required"


def test_a_korean_phrase_may_be_followed_by_a_particle(searcher: Searcher) -> None:
    assert paths(searcher, '"늦게 돌려주면 예약"') == ["독서/도서관 앱.md"]
    assert paths(searcher, "“책을 늦게”") == ["독서/도서관 앱.md"]
    assert paths(searcher, '"예약 늦게"') == []


def test_excluded_words_are_absent(searcher: Searcher) -> None:
    assert "Garden/Basil.md" in paths(searcher, "garden water roses basil")
    assert "Garden/Basil.md" not in paths(searcher, "garden water roses -basil")
    assert "독서/도서관 앱.md" not in paths(searcher, "책 노트 커피 -보관함")
    assert "Garden/Roses.md" not in paths(searcher, 'roses basil -"outward bud" -compost')


@pytest.mark.parametrize(
    "query",
    [
        "AND",
        "OR NOT",
        "NEAR(a b, 2)",
        'title:basil*"',
        "^basil",
        "(",
        '"',
        '""',
        "a AND OR (",
        "basil:*^",
        "\x00",
        "\ud800 basil",
    ],
)
@pytest.mark.parametrize("mode", ["hybrid", "keyword", "semantic"])
def test_no_query_is_syntax(searcher: Searcher, query: str, mode: str) -> None:
    if not query.strip(' "\x00'):
        with pytest.raises(QueryError, match="empty"):
            searcher.search(query, mode=mode)
        return
    assert all(0.0 <= row.score <= 1.0 for row in searcher.search(query, mode=mode).results)


def test_a_query_of_ten_thousand_words_is_answered_and_said_to_be_cut(searcher: Searcher) -> None:
    answer = searcher.search("basil " + " ".join(f"word{i}" for i in range(10_000)), mode="keyword")
    assert [row.path for row in answer.results] == ["Garden/Basil.md"]
    assert any("long" in remark for remark in answer.remarks)


def test_a_query_of_function_words_alone_uses_them(searcher: Searcher) -> None:
    assert "Garden/Basil.md" in paths(searcher, "and from", "keyword")


def test_function_words_do_not_count_beside_others(searcher: Searcher) -> None:
    assert paths(searcher, "how and from the basil", "keyword") == ["Garden/Basil.md"]


def test_emoji_and_punctuation_are_looked_for_as_they_stand(index: MadeIndex, searcher: Searcher) -> None:
    answer = searcher.search("🔥")
    assert [row.path for row in answer.results] == ["Music/Cello 🎻.md"]
    assert paths(searcher, "🎻") == ["Music/Cello 🎻.md"]  # in the title
    nothing = searcher.search("!!!")
    assert not nothing.results
    assert any("no word" in remark for remark in nothing.remarks)
    index.put("newer.md", "🔥🔥", day=2)
    searcher._next_refresh = 0.0
    assert paths(searcher, "🔥") == ["newer.md", "Music/Cello 🎻.md"]


def test_a_word_of_boilerplate_is_explained(index: MadeIndex) -> None:
    with Ledger(index.path) as ledger:
        ledger.set_meta("boilerplate", '{"notes": 90, "lines": ["Edit in GitHub"]}')
    searcher = index.searcher()
    assert any("github" in remark for remark in searcher.search("GitHub basil").remarks)
    assert not searcher.search("nowhere basil").remarks
    searcher.close()


@pytest.mark.parametrize(("query", "word"), [("", "empty"), ("  ", "empty"), ("-basil", "excludes")])
def test_queries_that_ask_nothing(searcher: Searcher, query: str, word: str) -> None:
    with pytest.raises(QueryError, match=word):
        searcher.search(query)


# ── languages ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_model_that_cannot_read_the_query_stays_silent(tmp_path: Path) -> None:
    index = MadeIndex(tmp_path, [("en",)])
    index.put("a.md", "basil in the garden")
    searcher = index.searcher()
    answer = searcher.search("바질은 어떻게 키우나")
    assert not answer.results
    assert any("model 0 does not know" in remark and "words alone" in remark for remark in answer.remarks)
    assert any("--mode keyword" in remark for remark in searcher.search("바질은", mode="semantic").remarks)
    assert searcher.search("basil in the garden").results
    searcher.close()


def test_a_model_of_which_nothing_is_known_reads_everything(tmp_path: Path) -> None:
    index = MadeIndex(tmp_path, [()])
    index.put("a.md", "바질 화분")
    searcher = index.searcher()
    assert paths(searcher, "바질 화분", "semantic") == ["a.md"]
    searcher.close()


def test_the_model_made_for_the_language_leads(tmp_path: Path) -> None:
    index = MadeIndex(tmp_path, [("ko", "en", "de"), ("en",)])
    index.put("a.md", "basil in the garden")
    index.put("b.md", "바질 화분", models=[0])
    searcher = index.searcher()
    found = searcher.search("basil in the garden", explain=True).results
    assert [row.path for row in found] == ["a.md", "b.md"]
    assert (found[0].explain["model-1_weight"], found[0].explain["model-0_weight"]) == (1.0, 0.3)
    assert "model-1_score" not in found[1].explain
    assert "model-1_weight" not in searcher.search("바질 화분", explain=True).results[0].explain
    searcher.close()


# ── filters and fields ───────────────────────────────────────────────────────────────────────────────────────────────


def test_filters_choose_notes(searcher: Searcher) -> None:
    assert set(paths(searcher, "roses", filters=Filters(folder="garden"))) == {"Garden/Basil.md", "Garden/Roses.md"}
    assert paths(searcher, "roses", filters=Filters(tags=("garden/herbs",))) == ["Garden/Basil.md"]
    with pytest.raises(QueryError, match="no note has the tag 'gardn'; nearest: garden"):
        searcher.search("roses", filters=Filters(tags=("gardn",)))


def test_a_filter_finds_what_a_thousand_better_matches_hide(tmp_path: Path) -> None:
    index = MadeIndex(tmp_path)
    index.put("crowd.md", *[f"basil basil basil {i}" for i in range(1000)])
    index.put("Garden/one.md", "basil among many other plants of the balcony")
    searcher = index.searcher()
    for mode in ("hybrid", "keyword", "semantic"):
        assert paths(searcher, "basil", mode, filters=Filters(folder="Garden")) == ["Garden/one.md"]
    searcher.close()


def test_a_lowest_score_that_nothing_reaches_is_told(searcher: Searcher) -> None:
    answer = searcher.search("roses", filters=Filters(min_score=0.99))
    assert not answer.results
    assert any("the best result scores" in remark for remark in answer.remarks)
    scores = [row.score for row in searcher.search("roses", filters=Filters(min_score=0.1)).results]
    assert scores
    assert min(scores) >= 0.1


def test_chunks_or_notes(searcher: Searcher) -> None:
    assert paths(searcher, "roses").count("Garden/Roses.md") == 1
    assert paths(searcher, "roses", per_note=False).count("Garden/Roses.md") == 2


def test_explain_tells_each_half(searcher: Searcher) -> None:
    row = searcher.search("prune roses", explain=True).results[0]
    assert row.path == "Garden/Roses.md"
    assert row.explain["model-0_rank"] == row.explain["keyword_rank"] == 1
    assert row.explain["keyword_weight"] == 0.3
    assert row.explain["keyword_bonus_part"] == 0.7  # both words, as they stand
    assert 0 < row.explain["keyword_score"] <= 1
    assert not searcher.search("prune roses").results[0].explain


@pytest.mark.parametrize("mode", ["hybrid", "semantic", "keyword"])
@pytest.mark.parametrize("per_note", [True, False])
@pytest.mark.parametrize("query", ["prune roses", "basil in the garden", "prune trees", "roses"])
def test_the_explained_parts_add_up_to_the_score(searcher: Searcher, query: str, per_note: bool, mode: str) -> None:
    results = searcher.search(query, 5, mode, per_note=per_note, explain=True).results
    assert results
    for row in results:
        points, most = row.explain["points"], row.explain["most"]
        parts = [value for key, value in row.explain.items() if key.endswith("_part")]
        assert sum(parts) == pytest.approx(points, abs=1e-5)
        earned = max(0.0, points)
        assert earned * (most + 1) / (most * (earned + 1)) == pytest.approx(row.score, abs=1e-5)


def test_the_parts_add_up_with_two_models_and_notes_of_many_chunks(tmp_path: Path) -> None:
    index = MadeIndex(tmp_path, [("ko", "en", "de"), ("en",)])
    index.put("a.md", "basil in the garden", "roses and basil", "prune the roses")
    index.put("b.md", "바질 화분", models=[0])
    index.put("c.md", "basil", models=[0])
    searcher = index.searcher()
    for row in searcher.search("basil in the garden", explain=True).results:
        points, most = row.explain["points"], row.explain["most"]
        assert sum(value for key, value in row.explain.items() if key.endswith("_part")) == pytest.approx(
            points, abs=1e-5
        )
        earned = max(0.0, points)
        assert earned * (most + 1) / (most * (earned + 1)) == pytest.approx(row.score, abs=1e-5)
    searcher.close()


# ── links to Obsidian ────────────────────────────────────────────────────────────────────────────────────────────────


LINKED = ("a b.md", "독서/느리게 읽는 법.md", "🍲 soup & more/100 %+?=.md", "v1.2.md", "Board.canvas", "a.b/c.md")


@pytest.mark.parametrize("path", LINKED)
def test_a_link_names_its_note(path: str) -> None:
    link = urlsplit(obsidian_uri(Path("/home/me/내 vault & co"), path))
    fields = parse_qs(link.query, strict_parsing=True)
    assert (link.scheme, link.netloc, fields["vault"]) == ("obsidian", "open", ["내 vault & co"])
    assert fields["file"][0] in (path, path.removesuffix(".md"))
    assert " " not in link.query
    assert fields["file"][0] == path or "." not in path.removesuffix(".md").rpartition("/")[2]


def test_a_name_that_obsidian_would_misread_goes_by_its_path() -> None:
    link = urlsplit(obsidian_uri(Path("/v"), "C# notes.md"))
    assert parse_qs(link.query) == {"path": [str(Path("/v/C# notes.md"))]}


def test_a_folder_inside_a_vault_is_linked_through_the_vault(tmp_path: Path) -> None:
    (tmp_path / "Vault" / ".obsidian").mkdir(parents=True)
    (tmp_path / "Vault" / "Part" / "Deep").mkdir(parents=True)
    assert vault_root(tmp_path / "Vault" / "Part" / "Deep") == (tmp_path / "Vault", "Part/Deep/")
    assert vault_root(tmp_path / "Vault") == (tmp_path / "Vault", "")
    nowhere = tmp_path / ("x" * 300)  # the system refuses to look, as below a folder that may not be entered
    assert vault_root(nowhere) == (nowhere, "")


# ── neighbours ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_related_notes(index: MadeIndex) -> None:
    index.put("Garden/Mint.md", "mint wants warmth and water from below")
    searcher = index.searcher()
    rows = searcher.related("basil", 2)
    assert rows[0].path == "Garden/Mint.md"
    assert len(rows) == 2
    assert [row.rank for row in rows] == [1, 2]
    assert searcher.related("Garden/Basil.md")[0].path == searcher.related("Basil")[0].path
    with pytest.raises(QueryError, match=r"there is no note 'Basl'.*nearest: .*Basil"):
        searcher.related("Basl")
    with pytest.raises(QueryError, match=r"nearest: Cello 🎻$"):  # and not its path, too
        searcher.related("Cello")
    searcher.close()


def test_notes_related_to_one_that_not_every_model_reads(tmp_path: Path) -> None:
    made = MadeIndex(tmp_path, [("en",), ("*",)])
    made.put("a.md", "harbour and lantern")
    made.put("b.md", "granite 등대")
    made.put("나.md", "항구 등대", models=[1])
    made.put("none.md", "harbour", models=[])
    search = made.searcher()
    try:
        assert search.related("나")[0].path == "b.md"
        assert {row.path for row in search.related("a")} == {"b.md"}
        with pytest.raises(QueryError, match=r"no embedded text.* python main.py index"):
            search.related("none")
    finally:
        search.close()


def test_links_are_near_unlinked_and_no_copies(tmp_path: Path) -> None:
    index = MadeIndex(tmp_path)
    index.put("a.md", "one two three four five six")
    index.put("b.md", "one two three four five seven")
    index.put("c.md", "one two three four five eight", links=["a"])
    index.put("copy/a.md", "one two three four five six")
    index.put("far.md", "nothing of that kind")
    searcher = index.searcher()
    pairs = {frozenset((a, b)) for _, a, b in searcher.links(10, 0.3)}
    assert frozenset(("a.md", "b.md")) in pairs
    assert frozenset(("a.md", "c.md")) not in pairs
    assert frozenset(("a.md", "copy/a.md")) not in pairs
    assert not any("far.md" in pair for pair in pairs)
    assert len(searcher.links(1, -1.0)) == 1
    searcher.close()


# ── a writer beside it ───────────────────────────────────────────────────────────────────────────────────────────────


def test_what_a_writer_commits_is_found(index: MadeIndex, searcher: Searcher) -> None:
    garden = Filters(folder="Garden")
    assert "new.md" not in paths(searcher, "zeppelin")
    assert "Garden/Mint.md" not in paths(searcher, "mint", filters=garden)
    index.put("new.md", "a zeppelin over the harbour")
    index.put("Garden/Mint.md", "mint spreads")
    index.remove("Garden/Basil.md")
    searcher._next_refresh = 0.0  # the pause after a refresh is over
    assert paths(searcher, "zeppelin", "keyword") == ["new.md"]
    assert paths(searcher, "mint", filters=garden)[0] == "Garden/Mint.md"
    assert "Garden/Basil.md" not in paths(searcher, "basil")


def test_a_text_replaced_between_two_refreshes_is_not_shown_for_another(index: MadeIndex, searcher: Searcher) -> None:
    assert paths(searcher, "slowly")[0] == "Music/Cello 🎻.md"
    searcher._next_refresh = float("inf")
    index.put("Music/Cello 🎻.md", "something else altogether")  # takes the id of the last chunk
    assert all(row.text != "something else altogether" for row in searcher.search("slowly").results)
    index.remove("Garden/Roses.md")
    assert "Garden/Roses.md" not in paths(searcher, "compost")


def test_a_text_that_came_after_the_last_refresh_is_not_taken_for_another(index: MadeIndex, searcher: Searcher) -> None:
    assert paths(searcher, "slowly")
    searcher._next_refresh = float("inf")
    index.put("later.md", "zeppelin")
    assert paths(searcher, "zeppelin", "keyword") == []


def test_a_vector_of_a_damaged_length_is_left_out(index: MadeIndex, searcher: Searcher) -> None:
    with closing(sqlite3.connect(index.path)) as db:
        db.execute("UPDATE vectors SET vector = x'00' WHERE hash = (SELECT hash FROM chunks WHERE id = 1)")
        db.commit()
    assert "Garden/Basil.md" not in paths(searcher, "warmth", "semantic")
    assert paths(searcher, "warmth", "keyword") == ["Garden/Basil.md"]


def test_a_refreshed_matrix_is_a_fresh_one(index: MadeIndex) -> None:
    with Ledger(index.path, readonly=True) as ledger:
        table = read_table(ledger)
        old = read_matrix(ledger, 1, DIM, table)
        assert read_matrix(ledger, 1, DIM, table, old).vectors is old.vectors
        index.put("Garden/Roses.md", "feed roses with compost", "entirely new")
        index.put("twin.md", "x")
        index.remove("Garden/Basil.md")
        table = read_table(ledger)
        new, fresh = read_matrix(ledger, 1, DIM, table, old), read_matrix(ledger, 1, DIM, table)
    assert np.array_equal(new.rows, fresh.rows)
    assert np.array_equal(new.vectors, fresh.vectors)
    assert len(fresh.rows) == len(table.ids)


def test_what_is_no_word_is_filtered_before_the_newest_are_taken(tmp_path: Path) -> None:
    made = MadeIndex(tmp_path)
    made.put("Old/a.md", "done ✅", "also done ✅", day=1)
    for number in range(450):
        made.put(f"New/{number}.md", f"done ✅ {number}", day=2)
    search = made.searcher()
    try:
        assert paths(search, "✅", filters=Filters(folder="Old")) == ["Old/a.md"]
        assert paths(search, "✅", filters=Filters(folder="Old"), per_note=False) == ["Old/a.md"] * 2
        for mode in ("hybrid", "semantic", "keyword"):
            assert len(search.search("done", 430, mode).results) == 430
    finally:
        search.close()


def test_notes_whose_names_differ_in_case_alone_can_be_named(tmp_path: Path) -> None:
    made = MadeIndex(tmp_path)
    made.put("Note.md", "basil wants warmth")
    made.put("note.md", "roses want sun")
    search = made.searcher()
    try:
        assert search.find_note("note.md").path == "note.md"
        assert search.find_note("Note.md").path == "Note.md"
        with pytest.raises(QueryError, match="names 2 notes"):
            search.find_note("NOTE.md")
    finally:
        search.close()


def test_a_note_is_found_by_its_file_and_by_a_link_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = MadeIndex(tmp_path)
    made.put("Garden/Roses.md", "roses")
    (tmp_path / "My vault" / "Garden").mkdir(parents=True)
    (tmp_path / "My vault" / "Garden" / "Roses.md").write_text("roses")
    (tmp_path / "Roses.txt").write_text("outside")
    search = made.searcher()
    try:
        monkeypatch.chdir(tmp_path)
        for name in (str(tmp_path / "My vault/Garden/Roses.md"), "My vault/Garden/Roses.md", "[[Roses#Pruning|them]]"):
            assert search.find_note(name).path == "Garden/Roses.md", name
        with pytest.raises(QueryError, match=r"no note 'Roses\.txt'"):
            search.find_note("Roses.txt")
        with pytest.raises(QueryError, match="no note"):
            search.find_note("x" * 5000)
    finally:
        search.close()


def test_a_folder_may_be_named_as_a_shell_completes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = MadeIndex(tmp_path)
    made.put("Garden/Roses.md", "roses")
    made.put("Tulips.md", "roses too")
    (tmp_path / "My vault" / "Garden").mkdir(parents=True)
    search = made.searcher()
    try:
        monkeypatch.chdir(tmp_path)
        for name in (str(tmp_path / "My vault/Garden"), "My vault/Garden/", "./Garden", "garden"):
            found = search.search("roses", filters=Filters(folder=name)).results
            assert [row.path for row in found] == ["Garden/Roses.md"], name
        assert len(search.search("roses", filters=Filters(folder=str(tmp_path / "My vault"))).results) == 2
        with pytest.raises(QueryError, match="no note lies in the folder"):
            search.search("roses", filters=Filters(folder=str(tmp_path)))
    finally:
        search.close()


def test_a_link_means_a_file_of_that_name_before_an_alias(tmp_path: Path) -> None:
    made = MadeIndex(tmp_path)
    made.put("Cat.md", "the same words stand here", links=["Jaguar"])
    made.put("Animals/Jaguar.md", "the same words stand here too")
    made.put("Cars/XK.md", "the same words stand here as well", aliases=["Jaguar"])
    search = made.searcher()
    try:
        pairs = {frozenset((a, b)) for _, a, b in search.links(10, -5)}
        assert pairs == {frozenset(("Cat.md", "Cars/XK.md")), frozenset(("Animals/Jaguar.md", "Cars/XK.md"))}
    finally:
        search.close()


def test_relative_links_and_links_in_properties_are_links(tmp_path: Path) -> None:
    made = MadeIndex(tmp_path)
    made.put("A/One.md", "the same words stand here", links=["../B/Two.md"])
    made.put("B/Two.md", "the same words stand here too", links=["C/Three.md"])
    made.put("B/C/Three.md", "the same words stand here as well")
    search = made.searcher()
    try:
        assert {frozenset((a, b)) for _, a, b in search.links(10, 0.3)} == {frozenset(("A/One.md", "B/C/Three.md"))}
    finally:
        search.close()


def test_a_model_that_is_still_loading_is_waited_for_and_closed(searcher: Searcher) -> None:
    ended = []

    def load() -> Any:
        time.sleep(0.3)
        engine = slot.load()
        engine.close = lambda: ended.append(engine)
        return engine

    slot = searcher.semantic.models[0]
    searcher.semantic.models[0] = replace(slot, load=load)
    with pytest.raises(QueryError):
        searcher.search("basil", filters=Filters(folder="nowhere"))
    searcher.close()
    assert len(ended) == 1
