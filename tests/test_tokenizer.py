"""tokenizer.json through our own wrapper: specials, cuts, joins, and texts that break others."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from vaultvec.engines import load_tokenizer
from vaultvec.engines.tokenizer import HEAD_CHARACTERS_PER_TOKEN, TOKENIZE_BATCH, HfTokenizer
from vaultvec.errors import ModelError
from vaultvec.models import L6, resolve, weights_path
from vaultvec.tokenizing import AHEAD, encode_ahead

ROOT = Path(__file__).resolve().parents[1]
L6_PATH = weights_path(resolve(L6)).parent / "tokenizer.json"


@pytest.fixture(scope="module")
def tokenizer() -> HfTokenizer:
    return HfTokenizer(L6_PATH)


def test_specials_stand_around_every_text(tokenizer: HfTokenizer) -> None:
    assert (tokenizer.prefix_ids, tokenizer.suffix_ids) == ((101,), (102,))
    empty, hello = tokenizer.encode(["", "hello world"])
    assert empty.tolist() == [101, 102]
    assert hello.tolist() == [101, 7592, 2088, 102]
    assert hello.dtype == np.int32
    assert tokenizer.encode_plain(["hello world"])[0].tolist() == [7592, 2088]
    assert tokenizer.encode([]) == []


def test_a_cut_keeps_the_specials(tokenizer: HfTokenizer) -> None:
    (row,) = tokenizer.encode(["hello world " * 50], 7)
    assert row.tolist() == [101, 7592, 2088, 7592, 2088, 7592, 102]


def test_nothing_is_padded_or_cut_unasked(tokenizer: HfTokenizer) -> None:
    """The file itself asks for padding and cuts at 128."""
    short, long = tokenizer.encode(["hi", "word " * 1000])
    assert len(short) == 3
    assert len(long) == 1002


LONG = ["word, " * 5000, "a.b" * 20_000, " " * 9000 + "end", "x" * 9000 + " end", "한글 " * 9000]


@pytest.mark.parametrize("text", LONG, ids=["words", "no white space", "white space", "one word", "Korean"])
def test_a_long_text_is_cut_as_if_all_of_it_had_been_tokenised(tokenizer: HfTokenizer, text: str) -> None:
    assert len(text) > 32 * HEAD_CHARACTERS_PER_TOKEN
    (cut,) = tokenizer.encode([text], 32)
    assert cut.tolist() == [101, *tokenizer.encode_plain([text])[0][:30].tolist(), 102]


def test_two_megabytes_on_one_line_come_back(tokenizer: HfTokenizer) -> None:
    rows = tokenizer.encode(["a,b" * 700_000, "word " * 400_000], 256)
    assert [len(row) for row in rows] == [256, 256]


def test_rows_of_many_texts_are_those_of_each_alone(tokenizer: HfTokenizer) -> None:
    texts = [f"note {i} " * (i % 90) for i in range(TOKENIZE_BATCH + 40)]
    for limit in (None, 32):
        together = tokenizer.encode(texts, limit)
        assert [row.tolist() for row in together] == [tokenizer.encode([text], limit)[0].tolist() for text in texts]


def test_joined_pieces_are_the_pieces_joined(tokenizer: HfTokenizer) -> None:
    assert tokenizer.joinable
    pieces = ["# Bread", "flour, water.", "밥 먹자"]
    joined = tokenizer.encode_plain(["\n\n".join(pieces)])[0]
    np.testing.assert_array_equal(joined, np.concatenate(tokenizer.encode_plain(pieces)))


def test_a_tokenizer_that_sees_white_space_is_not_joinable(tmp_path: Path) -> None:
    words = ["note", "one", "two", " ", "\n", "a", "b", "[UNK]", "<s>"]
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Split(" ", "isolated")
    raw.normalizer = normalizers.Lowercase()
    raw.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 8)])
    raw.save(str(tmp_path / "tokenizer.json"))
    tokenizer = HfTokenizer(tmp_path / "tokenizer.json")
    assert not tokenizer.joinable
    assert (tokenizer.prefix_ids, tokenizer.suffix_ids) == ((8,), ())


def test_lone_surrogates_and_nulls_are_taken(tokenizer: HfTokenizer) -> None:
    broken, mended = tokenizer.encode(["a \ud83c b\0", "a � b\0"])
    np.testing.assert_array_equal(broken, mended)


def test_parts_are_tokenised_a_bounded_number_ahead(tokenizer: HfTokenizer) -> None:
    pulled: list[int] = []

    def parts() -> Iterator[list[str]]:
        for i in range(6):
            pulled.append(i)
            yield [f"note {i}", "hello world"]

    ahead = encode_ahead(tokenizer, parts(), 8)
    part, rows = next(ahead)
    assert part == ["note 0", "hello world"]
    assert pulled == list(range(AHEAD + 1))
    assert rows[1].tolist() == [101, 7592, 2088, 102]
    assert [rows[0].tolist() for _, rows in ahead] == [tokenizer.encode([f"note {i}"])[0].tolist() for i in range(1, 6)]


def test_a_tokenizer_that_fails_in_its_thread_is_heard() -> None:
    class Broken:
        def encode(self, texts: list[str], max_tokens: int | None) -> list[np.ndarray]:
            raise ModelError(f"{len(texts)} texts, {max_tokens} tokens")

    with pytest.raises(ModelError, match="1 texts, 8 tokens"):
        list(encode_ahead(Broken(), [["a"], ["b"]], 8))  # type: ignore[arg-type]


def test_it_travels_to_another_process(tokenizer: HfTokenizer) -> None:
    again = pickle.loads(pickle.dumps(tokenizer))
    np.testing.assert_array_equal(again.encode(["hello"])[0], tokenizer.encode(["hello"])[0])


@pytest.mark.parametrize("content", ["", "{", json.dumps({"model": 1})])
def test_a_broken_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        HfTokenizer(tmp_path / "tokenizer.json")


def test_a_bundled_tokenizer_loads_without_the_heavy_libraries(tmp_path: Path) -> None:
    code = (
        "import sys, os; from pathlib import Path; from vaultvec.engines import load_tokenizer;"
        "from vaultvec.models import L6, resolve; t = load_tokenizer(resolve(L6), Path(sys.argv[1]));"
        "t.encode(['x'] * 100); loaded = {'torch', 'transformers', 'openvino'} & set(sys.modules);"
        "assert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []


def test_a_prepared_tokenizer_is_the_models_own(tiny_bert: Path, models_dir: Path) -> None:
    tokenizer = load_tokenizer(resolve(str(tiny_bert)), models_dir)
    assert tokenizer.encode(["hello"])[0].tolist() == [101, 7592, 102]
