"""How notes are cut: at headings, small neighbours together, long paragraphs at sentences, within one note."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from chunk_laws import check_chunks
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from vaultvec.chunks import Chunker, ChunkLimits
from vaultvec.datatypes import Chunk, TokenIds
from vaultvec.engines import load_tokenizer
from vaultvec.engines.tokenizer import HfTokenizer
from vaultvec.models import L6, resolve
from vaultvec.notes import parse_note

TOKENIZER = load_tokenizer(resolve(L6), Path())


def cut(
    text: str, target: int = 64, minimum: int = 16, prefix: str = "", boilerplate: tuple[str, ...] = ()
) -> list[Chunk]:
    note = parse_note("Folder/Basil.md", text.encode())
    chunker = Chunker(TOKENIZER, ChunkLimits(target, minimum, 256), prefix, frozenset(boilerplate))
    chunks = chunker.chunk(note)
    if not boilerplate:
        check_chunks(chunker, note, chunks)
    return chunks


def sentences(word: str, count: int) -> str:
    return " ".join(f"The {word} number {i} stands here." for i in range(count))


def test_a_note_without_text_is_its_names() -> None:
    assert [(chunk.text, chunk.context, chunk.heading) for chunk in cut("")] == [("Basil", 0, "")]
    (named,) = cut("---\naliases: [Ocimum, 바질]\n---\n\n  \n")
    assert named.text == "Basil\nOcimum\n바질"
    (heading,) = cut("# Only")
    assert (heading.text, heading.heading) == ("Basil\nOnly", "")


def test_what_follows_an_underlined_heading_is_text() -> None:
    (chunk,) = cut("First\n===\n\none\ntwo\n\nSecond\n---\nthree")
    assert chunk.text == "Basil > First\none\ntwo\nSecond\nthree"


def test_a_heading_that_the_line_above_cannot_say_stands_in_the_text() -> None:
    long = " ".join(f"word{i}" for i in range(20))
    chunks = cut(f"# {long} one\n\n## {long} two\n\n### {long} three\n\nthe text below\n")
    text = "".join(chunk.text for chunk in chunks)
    assert all(f"{long} {number}" in text for number in ("one", "two", "three"))
    assert max(len(chunk.heading) for chunk in cut(f"# {'y' * 5000}\n\ntext")) == 500


def test_japanese_and_chinese_are_cut_between_sentences() -> None:
    for sentence in ("図書館の利用者カードは窓口で作ることができます。", "种植玫瑰之前需要注意土壤的酸碱度。"):
        chunks = cut(sentence * 60)
        assert len(chunks) > 3
        assert {chunk.text[chunk.context :].replace("\n", "")[-1] for chunk in chunks} == {"。"}


def test_title_and_headings_stand_before_the_body() -> None:
    first, second = cut(f"## Winter\n\n{sentences('pot', 6)}\n\n## Summer\n\n{sentences('leaf', 6)}")
    assert first.text.startswith("Basil > Winter\nThe pot")
    assert second.text.startswith("Basil > Summer\nThe leaf")
    assert (first.heading, second.heading) == ("Winter", "Summer")
    assert first.text[first.context :].startswith("The pot")


def test_nested_headings_give_a_path() -> None:
    chunks = cut(f"# Care\n\n## Water\n\n{sentences('drop', 5)}\n\n# Pests\n\n{sentences('fly', 5)}")
    assert [chunk.heading for chunk in chunks] == ["Care > Water", "Pests"]


def test_small_sections_share_a_chunk() -> None:
    (chunk,) = cut("## A\n\none\n\n## B\n\ntwo\n\n## C\n\nthree")
    assert all(word in chunk.text for word in ("one", "two", "three", "B", "C"))
    (chunk,) = cut(f"## A\n\none\n\n## B\n\n{sentences('b', 4)}")
    assert "one" in chunk.text


def test_a_heading_with_nothing_below_it_goes_with_what_follows() -> None:
    first, second = cut(f"# A\n\n{sentences('a', 5)}\n\n# B\n\n# C\n\n{sentences('c', 5)}", minimum=0)
    assert first.text.endswith("The a number 4 stands here.")
    assert second.text.startswith("Basil\nB\nC\nThe c")


def test_chunks_stay_within_what_the_model_takes_whatever_is_asked_for() -> None:
    cut(sentences("kettle", 100), target=1000)  # the model's limit is 256
    assert len(cut(sentences("tail", 14), minimum=4096)) == 2  # else every tail would join the chunk before
    # The line above all of a chunk is longer here than that of any paragraph in it.
    cut(f"# {'a ' * 83}\n\n{sentences('a', 12)}\n\n## b\n\n## c\n\n{sentences('leaf', 60)}", target=256, minimum=0)
    short = Chunker(TOKENIZER, ChunkLimits(32, 8, 32), "passage " * 40)
    chunks = short.chunk(parse_note("a.md", sentences("a", 4).encode()))
    assert [chunk.text for chunk in chunks] == [f"a\nThe a number {i} stands here." for i in range(4)]
    assert {len(chunk.token_ids) for chunk in chunks} == {32}


def test_a_long_paragraph_is_cut_at_sentences() -> None:
    chunks = cut(sentences("kettle", 40))
    assert len(chunks) > 4
    assert all(chunk.text.rstrip().endswith(".") for chunk in chunks)
    words = {word for chunk in cut("kettle " * 1000) for word in chunk.text[chunk.context :].split()}
    assert words == {"kettle"}


def test_a_word_without_end_is_cut_somewhere() -> None:
    chunks = cut("x" * 5000)
    assert all(len(chunk.text) <= 2 * 64 * 12 + 40 for chunk in chunks)
    sections = cut("\n\n".join(f"# {i}\n\n{'x' * 500}" for i in range(12)))
    assert all(len(chunk.text) <= 64 * 12 + 40 for chunk in sections)


def test_start_lines_are_those_of_the_file() -> None:
    text = f"---\ntags: [a]\n---\n# One\n\n{sentences('a', 8)}\n\n# Two\n\n{sentences('b', 8)}\n"
    assert [chunk.start_line for chunk in cut(text)] == [4, 8]
    lines = [f"line {i} of one paragraph" for i in range(200)]
    chunks = cut("\n".join(lines))
    assert len(chunks) > 5
    for chunk in chunks:
        assert chunk.text[chunk.context :].split("\n")[0] in lines[chunk.start_line - 1]


def test_a_tail_too_small_for_a_chunk_joins_the_last_one() -> None:
    chunks = cut(sentences("word", 9) + "\n\nEnd.", minimum=16)
    assert "End." in chunks[-1].text
    assert len(chunks[-1].token_ids) > 16


@pytest.mark.parametrize("prefix", ["passage: ", "passage:"])
def test_a_tokenizer_that_makes_a_token_of_the_prefixs_last_space_sees_it_before_the_text(
    tmp_path: Path, prefix: str
) -> None:
    pieces = ["<unk>", "\u2581", "\u2581passage", ":", "\u2581Basil", "Basil", "\u2581short", "short"]
    raw = Tokenizer(models.Unigram([(piece, -1.0) for piece in pieces], unk_id=0))
    raw.normalizer = normalizers.Replace(Regex(r"\s+"), " ")
    raw.pre_tokenizer = pre_tokenizers.Metaspace()  # as transformers 5 writes XLM-R's: it alone looks at white space
    raw.save(str(tmp_path / "tokenizer.json"))
    tokenizer = HfTokenizer(tmp_path / "tokenizer.json")
    assert tokenizer.joinable
    (chunk,) = Chunker(tokenizer, ChunkLimits(64, 16, 256), prefix).chunk(parse_note("Basil.md", b"short"))
    assert chunk.token_ids.tolist() == tokenizer.encode([prefix + chunk.text])[0].tolist()


@pytest.mark.parametrize("prefix", ["", "passage: "])
def test_the_models_prefix_is_in_the_ids_and_not_in_the_text(prefix: str) -> None:
    (chunk,) = cut("short", prefix=prefix)
    assert "passage" not in chunk.text
    assert len(chunk.token_ids) == len(TOKENIZER.encode([prefix + chunk.text])[0])


def test_headings_longer_than_a_chunk_lose_nothing() -> None:
    cut("# " + " ".join(f"heading{i}" for i in range(200)) + "\n\ntext")
    cut("# " + "ÿ" * 77 + "~ words " + "ÿ" * 66 + "~" * 23 + "ÿ" * 25 + "for good reasons.", target=132, minimum=0)
    cut("# " + "y" * 3000 + "\n## " + "z" * 3000 + "\n\ntext")


def test_a_title_of_any_length_is_not_read_again_for_every_heading(monkeypatch: pytest.MonkeyPatch) -> None:
    read = [0]
    encode = TOKENIZER.encode_plain

    def count(texts: Sequence[str]) -> list[TokenIds]:
        read[0] += sum(map(len, texts))
        return encode(texts)

    title = "word " * 2000
    headings = "".join(f"# Heading {number}\n\ntext\n\n" for number in range(1000))
    note = parse_note("a.md", f"---\ntitle: {title}\n---\n{headings}".encode())
    monkeypatch.setattr(TOKENIZER, "encode_plain", count)
    Chunker(TOKENIZER, ChunkLimits(64, 16, 256)).chunk(note)
    assert read[0] < 10 * len(title)


def test_boilerplate_is_left_out_unless_it_is_all_there_is() -> None:
    footer = "Edit this page in the Hub."
    assert footer not in cut(f"Something else.\n\n{footer}", boilerplate=(footer,))[0].text
    assert footer in cut(footer, boilerplate=(footer,))[0].text
    (chunk,) = cut("# One\n\nfirst\n\n# Links\n\nsecond", boilerplate=("# Links",))
    assert chunk.text == "Basil\nOne\nfirst\nsecond"


def test_the_same_note_gives_the_same_chunks() -> None:
    text = f"# A\n\n{sentences('a', 30)}"
    assert [c.text for c in cut(text)] == [c.text for c in cut(text)]


def test_an_edit_at_the_end_leaves_the_first_chunks_alone() -> None:
    text = "\n\n".join(f"## Part {i}\n\n{sentences(f'w{i}', 6)}" for i in range(6))
    before, after = cut(text), cut(text + "\n\n## More\n\n" + sentences("new", 6))
    assert [c.text for c in before] == [c.text for c in after][: len(before)]
