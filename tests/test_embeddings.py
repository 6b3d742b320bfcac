"""embeddings.py: three ways to the same vectors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tiny_model import HIDDEN, TEXTS

import embeddings
from embeddings import EmbeddingModel
from vaultvec.settings import Settings

SAFE_TEXTS = [text for text in TEXTS if "\ud83c" not in text]
WAYS = ("get_embeddings_batch", "get_embeddings_batch_fast")


@pytest.fixture(scope="module")
def model(tiny_bert: Path, models_dir: Path) -> Iterator[EmbeddingModel]:
    settings = Settings(engine="openvino", precision="fp32")
    built = EmbeddingModel(str(tiny_bert), settings=settings, models_dir=models_dir, device="cpu")
    yield built
    built.close()


@pytest.mark.parametrize("way", WAYS)
def test_no_texts_give_no_rows(model: EmbeddingModel, way: str) -> None:
    vectors = getattr(model, way)([])
    assert vectors.shape == (0, HIDDEN)
    assert vectors.dtype == np.float32


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("batch_size", [1, 3, 2000])
def test_all_ways_agree_in_input_order(model: EmbeddingModel, way: str, batch_size: int) -> None:
    expected = model.engine.embed_documents(SAFE_TEXTS)
    vectors = getattr(model, way)(SAFE_TEXTS, batch_size)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(SAFE_TEXTS), HIDDEN)
    assert np.sum(vectors * expected, axis=1).min() >= 0.99999


@pytest.mark.parametrize("way", WAYS)
def test_texts_may_be_an_array_as_export_writes_it_or_a_generator(model: EmbeddingModel, way: str) -> None:
    expected = getattr(model, way)(SAFE_TEXTS)
    for texts in (np.array(SAFE_TEXTS), (text for text in SAFE_TEXTS)):
        assert np.array_equal(getattr(model, way)(texts), expected)


def test_memory_is_tidied_every_ten_windows(model: EmbeddingModel, monkeypatch: pytest.MonkeyPatch) -> None:
    collected = []
    monkeypatch.setattr(embeddings.gc, "collect", lambda: collected.append(1))
    model.get_embeddings_batch_fast(["a text"] * 25, batch_size=1, show_progress=False)
    assert len(collected) == 2


def test_progress_goes_to_stderr_only(model: EmbeddingModel, capsys: pytest.CaptureFixture[str]) -> None:
    model.get_embeddings_batch_fast(SAFE_TEXTS)
    assert capsys.readouterr().out == ""


def test_fast_alone_loads_no_baseline(tiny_bert: Path, models_dir: Path) -> None:
    fast = EmbeddingModel(str(tiny_bert), settings=Settings(engine="openvino"), models_dir=models_dir)
    assert fast.dim == HIDDEN
    assert fast._engine is None
    fast.get_embeddings_batch_fast(["x"], show_progress=False)
    assert fast._reference is None


def test_one_string_is_not_a_list_of_letters(model: EmbeddingModel) -> None:
    with pytest.raises(TypeError, match="list of strings"):
        model.get_embeddings_batch_fast("bread")


@pytest.mark.parametrize("way", WAYS)
def test_what_is_no_string_is_named_by_its_position(model: EmbeddingModel, way: str) -> None:
    with pytest.raises(TypeError, match=r"^texts\[1\] is NoneType, expected a string$"):
        getattr(model, way)(["bread", None, 3])


def test_half_a_character_is_read_alike_by_both_ways(model: EmbeddingModel) -> None:
    texts = ["bread \ud83d", "\udfff"]
    plain = model.get_embeddings_batch(texts)
    fast = model.get_embeddings_batch_fast(texts, show_progress=False)
    assert (plain * fast).sum(axis=1).min() > 0.999


def test_a_batch_of_no_texts_is_refused(model: EmbeddingModel) -> None:
    with pytest.raises(ValueError, match="batch_size is 0"):
        model.get_embeddings_batch(["x"], batch_size=0)


def test_texts_in_a_language_that_the_model_does_not_know_are_warned_of_once(tmp_path: Path) -> None:
    korean = ["고양이가 마당에서 잔다", "주식 시장이 폭락했다"]
    english = EmbeddingModel(models_dir=tmp_path)
    with pytest.warns(UserWarning, match=r"all-MiniLM-L6-v2 does not know the language of these texts \(ko\)"):
        english._look_at(korean)
    english._look_at(korean)  # a second warning would be an error here
    EmbeddingModel("universal-sentence-encoder-multilingual-3", models_dir=tmp_path)._look_at(korean)
    EmbeddingModel(models_dir=tmp_path)._look_at(["a cat sleeps in the yard", "1234", ""])


def test_tidying_loads_no_engine(tmp_path: Path) -> None:
    idle = EmbeddingModel(models_dir=tmp_path)
    idle.tidy()
    assert idle._engine is None
    assert idle._reference is None
