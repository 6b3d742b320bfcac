"""The torch engine on the CPU: packed against padded against sentence-transformers, and what happens when it fails."""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch._dynamo
from tiny_model import HIDDEN, LIMIT, write_tiny_bert

from vaultvec.datatypes import Batch, Encoded, TokenIds
from vaultvec.engines import torch_packed
from vaultvec.engines.reference import load_reference
from vaultvec.engines.tokenizer import HfTokenizer
from vaultvec.engines.torch_attention import Layout, agrees, attend_grouped, attend_jagged, attend_varlen, cut_groups
from vaultvec.engines.torch_device import choose_device, choose_precision, is_out_of_memory
from vaultvec.engines.torch_encoder import EncoderSource
from vaultvec.engines.torch_engine import TorchEngine
from vaultvec.engines.torch_multi import MultiGpuEngine
from vaultvec.engines.torch_packed import PackedEncoder, pool
from vaultvec.engines.torch_padded import PaddedEncoder
from vaultvec.engines.torch_weights import read_folder, read_loaded
from vaultvec.errors import EngineError, ModelError, SettingsError
from vaultvec.models import L6, ModelSpec, resolve, weights_path

SPEC = resolve(L6)
FOLDER = weights_path(SPEC).parent
CPU = torch.device("cpu")
TEXTS = [
    "",
    "a",
    "Backlinks show which notes point here.",
    "옵시디언은 로컬 마크다운 노트 앱이다.",
    *(f"note {i} " + "about plain text files and links between them " * (i % 5) for i in range(24)),
    "a long note that is cut at the limit of the model " * 60,
]


@pytest.fixture(scope="module")
def tokenizer() -> HfTokenizer:
    return HfTokenizer(FOLDER / "tokenizer.json")


@pytest.fixture(scope="module")
def reference() -> Any:
    return load_reference(SPEC)


@pytest.fixture(scope="module")
def golden(reference: Any) -> np.ndarray:
    return np.asarray(reference.encode(TEXTS, normalize_embeddings=True))


@pytest.fixture
def engine(tokenizer: HfTokenizer) -> Iterator[TorchEngine]:
    built = TorchEngine(SPEC, tokenizer, device="cpu", precision="fp32", token_budget=600)
    yield built
    built.close()


def lowest_cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum(axis=1).min())


def save_tiny(folder: Path, kind: str) -> Any:
    """A small random BERT or XLM-R as a folder, and transformers' own model of it."""
    import transformers

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    torch.manual_seed(1)
    if kind == "bert":
        model: Any = transformers.BertModel(transformers.BertConfig(vocab_size=30522, **sizes))
    else:
        config = transformers.XLMRobertaConfig(
            vocab_size=500, pad_token_id=1, type_vocab_size=1, max_position_embeddings=66, **sizes
        )
        model = transformers.XLMRobertaModel(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn_like(weight) * 0.3)
    model.eval().save_pretrained(folder)
    return model


class Faulty:
    """An encoder that fails as a device does: above `limit` tokens, or from the `after`-th batch on."""

    def __init__(self, inner: Any, fail: Any, *, limit: int = 0, after: int = 0) -> None:
        self.inner, self.fail, self.limit, self.after = inner, fail, limit, after
        self.compiled = False
        self.device = inner.device
        self.bytes_per_token = inner.bytes_per_token
        self.calls = 0

    def pack(self, rows: Sequence[TokenIds]) -> Any:
        self.calls += 1
        tokens = max(map(len, rows)) * len(rows)
        if (self.limit and tokens > self.limit) or (self.after and self.calls >= self.after):
            self.fail()
        return self.inner.pack(rows)

    def run(self, *packed: Any) -> torch.Tensor:
        vectors: torch.Tensor = self.inner.run(*packed)
        return vectors


def allocate_too_much() -> None:
    torch.empty(1 << 50)


def lose_the_device() -> None:
    raise RuntimeError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be reported …")


def test_packed_gives_the_vectors_of_sentence_transformers(engine: TorchEngine, golden: np.ndarray) -> None:
    vectors = engine.embed_documents(TEXTS)
    assert isinstance(engine._encoder, PackedEncoder)
    assert vectors.dtype == np.float32
    assert lowest_cosine(vectors, golden) >= 0.99999
    assert engine.busy_seconds > 0


def test_padded_gives_the_vectors_of_sentence_transformers(tokenizer: HfTokenizer, golden: np.ndarray) -> None:
    engine = TorchEngine(SPEC, tokenizer, device="cpu", precision="fp32", packed=False)
    assert lowest_cosine(engine.embed_documents(TEXTS), golden) >= 0.99999


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("kind", ["bert", "xlm-roberta"])
def test_other_architectures_agree_with_transformers(tmp_path: Path, kind: str, pooling: str) -> None:
    model = save_tiny(tmp_path, kind)
    weights = read_folder(tmp_path, pooling)
    assert weights is not None
    rng = np.random.default_rng(3)
    rows = [rng.integers(5, 400, n).astype(np.int32) for n in (60, 17, 16, 3, 1)]
    ids = torch.full((5, 60), 1)
    mask = torch.zeros((5, 60), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.from_numpy(row)
        mask[i, : len(row)] = 1
    with torch.no_grad():
        hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
    pooled = hidden[:, 0] if pooling == "cls" else (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    expected = torch.nn.functional.normalize(pooled)
    torch.testing.assert_close(PackedEncoder(weights, CPU, torch.float32).encode(rows), expected, atol=2e-5, rtol=0)


def test_a_loaded_model_gives_the_same_weights_as_its_folder(reference: Any) -> None:
    loaded, read = read_loaded(reference), read_folder(FOLDER, "mean")
    assert loaded is not None
    assert read is not None
    assert loaded.architecture == read.architecture
    for name in ("embeddings.word_embeddings.weight", "encoder.layer.5.output.dense.bias"):
        assert torch.equal(loaded.state[name], read.state[name])


@pytest.mark.parametrize("packed", [True, False])
def test_an_engine_says_whether_it_pads(tokenizer: HfTokenizer, packed: bool) -> None:
    engine = TorchEngine(SPEC, tokenizer, device="cpu", precision="fp32", packed=packed)
    assert engine.pads is MultiGpuEngine([engine]).pads is not packed


def test_a_pooling_that_the_packed_forward_lacks_runs_padded(tmp_path: Path, tokenizer: HfTokenizer) -> None:
    spec = ModelSpec(str(write_tiny_bert(tmp_path / "tiny", pooling="max")), "transformer", HIDDEN, LIMIT)
    heard: list[str] = []
    engine = TorchEngine(spec, tokenizer, device="cpu", precision="fp32", compiled=True, notify=heard.append)
    assert isinstance(engine._encoder, PaddedEncoder)
    assert heard == ["torch.compile is for packed tokens; this model runs padded and uncompiled"]
    expected = np.asarray(load_reference(spec).encode(TEXTS, normalize_embeddings=True))
    assert lowest_cosine(engine.embed_documents(TEXTS), expected) >= 0.99999


def test_unknown_architecture_is_left_to_sentence_transformers(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "mpnet", "hidden_act": "gelu"}', encoding="utf-8")
    assert read_folder(tmp_path, "mean") is None
    assert read_folder(FOLDER, "mean") is not None


def test_unreadable_folder_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ModelError, match="no model folder that can be read"):
        read_folder(tmp_path, "mean")


def test_a_text_beyond_the_position_table_is_told_in_one_line() -> None:
    weights = read_folder(FOLDER, "mean")
    assert weights is not None
    with pytest.raises(ModelError, match="600 tokens, the model takes at most 512"):
        PackedEncoder(weights, CPU, torch.float32).encode([np.ones(600, dtype=np.int32)])


def test_groups_cover_every_text_once_and_carry_little_padding() -> None:
    lengths = tuple(sorted(np.random.default_rng(0).integers(1, 256, 200).tolist(), reverse=True))
    groups = cut_groups(lengths)
    assert tuple(n for _, run in groups for n in run) == lengths
    assert [start for start, _ in groups] == [0, *np.cumsum([sum(run) for _, run in groups])[:-1]]
    assert all(sum(run) >= 0.9 * max(run) * len(run) for _, run in groups)
    assert len(groups) < 40


@pytest.mark.parametrize("lengths", [(5, 5, 5), (9, 8, 8, 3, 2, 2), (1,), (2, 30, 2)])
def test_the_ways_of_attention_agree(lengths: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    qkv = torch.randn(sum(lengths), 3, 4, 8)
    layout = Layout(torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32), lengths)
    bounds = layout.offsets.tolist()
    expected = torch.cat(
        [
            torch.nn.functional.scaled_dot_product_attention(*qkv[a:b].permute(1, 2, 0, 3)).transpose(0, 1)
            for a, b in pairwise(bounds)
        ]
    )
    torch.testing.assert_close(attend_grouped(qkv, layout), expected)
    torch.testing.assert_close(attend_jagged(qkv, layout), expected)


def test_an_attention_is_chosen_only_where_it_runs_and_agrees() -> None:
    def wrong(qkv: torch.Tensor, layout: Layout) -> torch.Tensor:
        del layout
        return qkv[:, 2]

    assert agrees(attend_jagged, CPU, torch.float32, 4, 32)
    assert agrees(attend_grouped, CPU, torch.bfloat16, 4, 32)
    assert not agrees(wrong, CPU, torch.float32, 4, 32)
    assert not agrees(attend_varlen, CPU, torch.float32, 4, 32)  # a kernel for CUDA alone


def test_mean_pooling_is_the_mean_in_fp32() -> None:
    x = torch.full((300, 4), 1.001, dtype=torch.bfloat16)
    x[::2] = 3.0
    layout = Layout(torch.tensor([0, 200, 300], dtype=torch.int32), (200, 100))
    expected = torch.stack([x[:200].double().mean(0), x[200:].double().mean(0)]).float()
    torch.testing.assert_close(pool(x, layout, "mean"), expected, atol=1e-6, rtol=0)


def test_batches_queued_ahead_come_back_in_order(engine: TorchEngine, golden: np.ndarray) -> None:
    engine.in_flight = 3
    vectors = engine.embed_documents(TEXTS)
    assert lowest_cosine(vectors, golden) >= 0.99999


def encoded(tokenizer: HfTokenizer, texts: Sequence[str]) -> tuple[Encoded, ...]:
    rows = tokenizer.encode(texts, SPEC.max_tokens)
    return tuple(Encoded(i, text, row) for i, (text, row) in enumerate(zip(texts, rows, strict=True)))


def test_a_result_is_awaited_only_when_others_are_queued_behind_it(engine: TorchEngine, tokenizer: HfTokenizer) -> None:
    pulled: list[int] = []

    def batches() -> Iterator[Batch]:
        for item in encoded(tokenizer, TEXTS[:6]):
            pulled.append(item.index)
            yield Batch((item,))

    engine.in_flight = 2
    results = engine.embed_batches(batches())
    assert next(results).batch.items[0].index == 0
    assert pulled == [0, 1, 2]
    assert [result.batch.items[0].index for result in results] == [1, 2, 3, 4, 5]


def test_a_batch_beyond_the_budget_goes_in_parts_and_keeps_its_order(
    engine: TorchEngine, tokenizer: HfTokenizer, golden: np.ndarray
) -> None:
    result = next(engine.embed_batches([Batch(encoded(tokenizer, TEXTS))]))  # not sorted, the longest text last
    assert lowest_cosine(result.vectors, golden) >= 0.99999


@pytest.mark.parametrize("in_flight", [0, 3])
def test_out_of_memory_halves_the_budget_and_goes_on(engine: TorchEngine, golden: np.ndarray, in_flight: int) -> None:
    engine.in_flight = in_flight
    engine._encoder = Faulty(engine._encoder, allocate_too_much, limit=300)
    assert lowest_cosine(engine.embed_documents(TEXTS), golden) >= 0.99999
    assert engine.out_of_memory_count > 0
    assert engine.token_budget == 256  # half of two texts of 256 tokens
    assert engine.device == "cpu"


@pytest.mark.parametrize("packed", [True, False])
def test_a_text_without_any_token_fails_alone(tokenizer: HfTokenizer, packed: bool) -> None:
    engine = TorchEngine(SPEC, tokenizer, device="cpu", precision="fp32", packed=packed)
    rows = (np.array([101, 7592, 102]), np.zeros(0), np.array([101, 2088, 102]))
    batch = Batch(tuple(Encoded(i, "", row.astype(np.int32)) for i, row in enumerate(rows)))
    result = next(engine.embed_batches([batch]))
    assert result.failed == ((1, "the vector is zero"),)
    np.testing.assert_allclose(np.linalg.norm(result.vectors, axis=1), [1, 0, 1], atol=1e-6)


def test_one_text_that_does_not_fit_is_told_in_one_line(engine: TorchEngine) -> None:
    engine._encoder = Faulty(engine._encoder, allocate_too_much, limit=100)
    with pytest.raises(EngineError, match="one text of 256 tokens does not fit"):
        engine.embed_documents([TEXTS[-1]])


def test_cuda_out_of_memory_is_recognised() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."))
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"))
    assert not is_out_of_memory(RuntimeError("CUDA error: device-side assert triggered"))


@pytest.mark.parametrize("in_flight", [0, 3])
def test_a_failing_gpu_is_left_for_the_cpu(engine: TorchEngine, golden: np.ndarray, in_flight: int) -> None:
    heard: list[str] = []
    engine._notify = heard.append
    engine.in_flight = in_flight
    engine.device, engine.precision = "cuda", "bf16"
    engine._encoder = Faulty(engine._encoder, lose_the_device, after=2)
    assert lowest_cosine(engine.embed_documents(TEXTS), golden) >= 0.99999
    assert (engine.device, engine.precision) == ("cpu", "fp32")
    assert heard == ["the GPU failed (CUDA error: an illegal memory access was encountered); "
                     "going on with the CPU, slower"]  # fmt: skip


def test_a_failure_on_the_cpu_is_one_line(engine: TorchEngine) -> None:
    engine._encoder = Faulty(engine._encoder, lose_the_device, after=1)
    with pytest.raises(EngineError, match=r"failed on the CPU .* run: python main.py doctor"):
        engine.embed_documents(["a"])


def test_several_devices_share_the_batches(tokenizer: HfTokenizer, golden: np.ndarray) -> None:
    both = [TorchEngine(SPEC, tokenizer, device="cpu", precision="fp32", token_budget=600) for _ in range(2)]
    counting = [Faulty(engine._encoder, allocate_too_much) for engine in both]
    for engine, encoder in zip(both, counting, strict=True):
        engine._encoder = encoder
    shared = MultiGpuEngine(both)
    assert lowest_cosine(shared.embed_documents(TEXTS * 3), np.tile(golden, (3, 1))) >= 0.99999
    assert all(encoder.calls > 0 for encoder in counting)


def test_half_precision_stands_only_where_it_agrees(tmp_path: Path, tokenizer: HfTokenizer) -> None:
    heard: list[str] = []
    good = EncoderSource(SPEC, tokenizer, True, heard.append)
    assert good.open(CPU, "bf16", checked=True)[1] == "bf16"
    model = save_tiny(tmp_path, "bert")
    with torch.no_grad():
        model.encoder.layer[0].intermediate.dense.weight.mul_(1e6)  # beyond fp16's 65,504
    model.save_pretrained(tmp_path)
    wild = EncoderSource(ModelSpec(str(tmp_path), "transformer", 32, 64), tokenizer, True, heard.append)
    encoder, precision = wild.open(CPU, "fp16", checked=True)
    assert (precision, encoder.encode([np.array([5, 6], dtype=np.int32)]).isfinite().all()) == ("fp32", True)
    assert heard == ["fp16 changes the vectors (lowest cosine nan); using fp32"]


def test_half_precision_that_fails_on_long_texts_alone_does_not_stand(
    tokenizer: HfTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = PackedEncoder.encode

    def drifting(self: PackedEncoder, rows: Sequence[TokenIds]) -> torch.Tensor:
        late = self._words.dtype != torch.float32 and max(map(len, rows)) == SPEC.max_tokens
        return -encode(self, rows) if late else encode(self, rows)

    monkeypatch.setattr(PackedEncoder, "encode", drifting)
    source = EncoderSource(SPEC, tokenizer, True, lambda _: None)
    assert source.open(CPU, "bf16", checked=True)[1] == "fp32"


def test_rotary_frequencies_stay_exact_in_half_precision(tmp_path: Path) -> None:
    """Rounded to bf16 they put the tokens of a long text in the wrong places."""
    import transformers

    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "head_dim": 16,
    }
    model = transformers.Qwen3Model(transformers.Qwen3Config(vocab_size=30522, num_key_value_heads=2, **sizes))
    model.save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(FOLDER / name, tmp_path / name)
    encoder = PaddedEncoder(load_reference(resolve(str(tmp_path))), CPU, torch.bfloat16)
    assert {weight.dtype for weight in encoder._backbone.parameters()} == {torch.bfloat16}
    frequencies = [buffer for name, buffer in encoder._backbone.named_buffers() if "inv_freq" in name]
    assert frequencies
    assert {buffer.dtype for buffer in frequencies} == {torch.float32}
    assert encoder.encode([np.arange(1000, 1050, dtype=np.int32)]).isfinite().all()


def test_compile_that_fails_costs_one_line(tokenizer: HfTokenizer, golden: np.ndarray) -> None:
    heard: list[str] = []
    with torch._dynamo.config.patch(recompile_limit=0, fail_on_recompile_limit_hit=True):
        engine = TorchEngine(SPEC, tokenizer, device="cpu", precision="fp32", compiled=True, notify=heard.append)
    assert [line.split(" (")[0] for line in heard] == ["torch.compile failed"]
    assert lowest_cosine(engine.embed_documents(TEXTS), golden) >= 0.99999


def test_devices_and_precisions_that_are_not_there_are_told_in_one_line() -> None:
    with pytest.raises(SettingsError, match="finds no device 'tpu'"):
        choose_device("tpu")
    with pytest.raises(SettingsError, match=r"PRECISION is 'int8'.* set PRECISION to one of those"):
        choose_precision("int8", CPU)
    with pytest.raises(SettingsError, match="only emulates"):
        choose_precision("fp16", CPU)


def test_what_a_batch_that_did_not_fit_has_made_is_gone_before_its_halves_are_tried(
    tokenizer: HfTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = TorchEngine(SPEC, tokenizer, device="cpu", precision="fp32", token_budget=1024)
    made: list[weakref.ref[torch.Tensor]] = []
    alive: list[int] = []
    step = torch_packed._layer_step

    def full(mixed: torch.Tensor, x: torch.Tensor, *rest: Any) -> torch.Tensor:
        alive.append(sum(ref() is not None for ref in made))
        if x.shape[0] > 128:
            made.extend((weakref.ref(mixed), weakref.ref(x)))
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        return step(mixed, x, *rest)

    monkeypatch.setattr(torch_packed, "_layer_step", full)
    batch = Batch(tuple(Encoded(i, "", np.full(128, 1000, dtype=np.int32)) for i in range(8)))
    result = built._embed_one(batch)
    assert result.vectors.shape == (8, 384)
    assert len(made) == 14  # 8, 4, 2, 2, 4, 2, 2 texts at a time
    assert set(alive) == {0}
    assert built.out_of_memory_count == 7
