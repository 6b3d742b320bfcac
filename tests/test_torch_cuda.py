"""What runs on CUDA alone, as far as a machine without a GPU can tell: shapes, types and arguments by fake tensors, and
what happens to memory and threads when a device fails."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from types import FunctionType
from typing import Any

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from vaultvec.datatypes import Batch, Encoded
from vaultvec.engines import base, torch_device, torch_encoder, torch_packed
from vaultvec.engines.tokenizer import HfTokenizer
from vaultvec.engines.torch_attention import Layout, attend_varlen
from vaultvec.engines.torch_engine import TorchEngine, _Flight
from vaultvec.engines.torch_multi import MultiGpuEngine
from vaultvec.engines.torch_packed import PackedEncoder
from vaultvec.engines.torch_weights import read_folder
from vaultvec.models import L6, resolve, weights_path

varlen = pytest.importorskip("torch.nn.attention.varlen")  # torch 2.10
GPU = torch.device("cuda", 0)
SPEC = resolve(L6)
FOLDER = weights_path(SPEC).parent
TOKENIZER = HfTokenizer(FOLDER / "tokenizer.json")
TEXTS = ["a", "Backlinks show which notes point here.", *(f"note {i} about links " * (i + 1) for i in range(12))]
LENGTHS = (5, 4, 3)


def on_gpu(mode: FakeTensorMode, *shape: int, dtype: torch.dtype) -> torch.Tensor:
    """A tensor that says it lies on a GPU and has no content."""
    return FakeTensor(mode, torch.empty(shape, dtype=dtype, device="meta"), GPU)


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The arguments of every call of varlen_attn, bound to the signature of the torch that is installed."""
    real, calls = varlen.varlen_attn, []

    def spy(*args: Any) -> torch.Tensor:
        calls.append(inspect.signature(real).bind(*args).arguments)
        out: torch.Tensor = real(*args)
        return out

    monkeypatch.setattr(varlen, "varlen_attn", spy)
    return calls


def test_the_packed_forward_on_cuda(monkeypatch: pytest.MonkeyPatch, called: list[dict[str, Any]]) -> None:
    weights = read_folder(FOLDER, "mean")
    assert weights is not None
    mode = FakeTensorMode()
    state = {name: mode.from_tensor(tensor) for name, tensor in weights.state.items()}
    monkeypatch.setattr(torch_packed, "choose_attention", lambda *_: attend_varlen)
    monkeypatch.setattr(PackedEncoder, "_put", lambda self, t: on_gpu(mode, *t.shape, dtype=self.dtype))
    with mode:
        encoder = PackedEncoder(replace(weights, state=state), GPU, torch.bfloat16)
        total = sum(LENGTHS)
        ids, positions = (on_gpu(mode, total, dtype=torch.int32) for _ in range(2))
        offsets = on_gpu(mode, len(LENGTHS) + 1, dtype=torch.int32)
        out = encoder.run(Layout(offsets, LENGTHS), ids, positions)
    assert (out.shape, out.dtype, out.device) == ((3, 384), torch.float32, GPU)
    assert len(called) == 6  # layers
    for arguments in called:
        assert [arguments[name] for name in ("max_q", "max_k")] == [5, 5]
        for name in ("query", "key", "value"):
            tensor = arguments[name]
            assert (tensor.dtype, tensor.shape, tensor.stride(-1)) == (torch.bfloat16, (total, 12, 32), 1)
        for name in ("cu_seq_q", "cu_seq_k"):
            tensor = arguments[name]
            assert (tensor.dtype, tensor.shape, tensor.is_contiguous()) == (torch.int32, (4,), True)


def cpu_engine(**options: Any) -> TorchEngine:
    return TorchEngine(SPEC, TOKENIZER, **{"device": "cpu", "precision": "fp32", "token_budget": 64, **options})


class Failing:
    """An encoder on a device where everything raises `error`."""

    compiled = False

    def __init__(self, inner: Any, error: RuntimeError) -> None:
        self.device, self.bytes_per_token, self.error = inner.device, inner.bytes_per_token, error

    def pack(self, rows: Sequence[Any]) -> tuple[torch.Tensor, ...]:
        del rows
        raise self.error


def fail(engine: TorchEngine, error: RuntimeError) -> TorchEngine:
    """An engine on the CPU that takes itself for one on a GPU that fails."""
    engine.device = "cuda"
    engine._encoder = Failing(engine._encoder, error)
    return engine


def test_a_gpu_too_full_for_one_text_is_left_for_the_cpu() -> None:
    heard: list[str] = []
    expected = cpu_engine().embed_documents(TEXTS)
    engine = fail(
        cpu_engine(notify=heard.append), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 MiB")
    )
    np.testing.assert_allclose(engine.embed_documents(TEXTS), expected, atol=1e-6)
    assert engine.device == "cpu"
    assert len(heard) == 1


def test_a_card_that_failed_leaves_the_batches_to_the_others() -> None:
    engines = [cpu_engine(), fail(cpu_engine(), RuntimeError("CUDA error: unspecified launch failure"))]
    engines[0].device = "cuda"  # and works
    shared = MultiGpuEngine(engines)
    expected = cpu_engine().embed_documents(TEXTS)
    np.testing.assert_allclose(shared.embed_documents(TEXTS), expected, atol=1e-6)
    assert engines[1].device == "cpu"
    free = [shared._free.get() for _ in range(shared._free.qsize())]
    assert free == [engines[0]] * 2


def test_the_last_card_that_failed_goes_on_as_a_cpu() -> None:
    engines = [fail(cpu_engine(), RuntimeError("CUDA error: unspecified launch failure")) for _ in range(2)]
    vectors = MultiGpuEngine(engines).embed_documents(TEXTS)
    np.testing.assert_allclose(vectors, cpu_engine().embed_documents(TEXTS), atol=1e-6)


def test_all_cards_cut_batches_that_were_planned_before_memory_ran_out() -> None:
    engines = [cpu_engine(token_budget=600) for _ in range(2)]
    shared = MultiGpuEngine(engines)
    items = tuple(Encoded(i, "", row) for i, row in enumerate(TOKENIZER.encode(["note"] * 40, 256)))
    shared._shrink(Batch(items))
    assert [engine.token_budget for engine in (shared, *engines)] == [256] * 3  # never below one long text


def test_what_a_failed_device_was_to_write_is_never_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lost:
        seconds = 0.0

        def wait(self) -> None:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch_device, "_kept", [])
    host = torch.zeros(1, 4)
    with pytest.raises(RuntimeError, match="illegal memory"):
        _Flight(Batch(()), host, Lost()).wait()  # type: ignore[arg-type]
    assert [kept is host for kept in torch_device._kept] == [True]


def test_the_clock_of_a_batch_starts_when_it_is_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    """On an idle device the time of packing would count as the model's."""
    engine, order = cpu_engine(), []

    class Clock:
        seconds = 1.0

        def __getattr__(self, name: str) -> Any:
            return lambda: order.append(name)

    class Watched:
        compiled, device = False, engine._encoder.device

        def pack(self, rows: Sequence[Any]) -> Any:
            order.append("pack")
            return engine_encoder.pack(rows)

        def run(self, *packed: Any) -> torch.Tensor:
            order.append("run")
            return engine_encoder.run(*packed)

    engine_encoder = engine._encoder
    engine._encoder = Watched()  # type: ignore[assignment]
    monkeypatch.setattr(torch_device, "new_clock", lambda _: Clock())
    engine.embed_documents(["a note"])
    assert order == ["pack", "start", "run", "stop", "wait"]


@pytest.mark.parametrize(("kind", "queued"), [("cuda", True), ("mps", False), ("cpu", False)])
def test_a_copy_is_queued_only_where_torch_keeps_its_memory(kind: str, queued: bool) -> None:
    class Host:
        def to(self, device: torch.device, *, non_blocking: bool) -> tuple[str, bool]:
            return device.type, non_blocking

    assert torch_device.send(Host(), torch.device(kind)) == (kind, queued)  # type: ignore[arg-type, comparison-overlap]


def test_one_compilation_serves_every_number_of_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    step = torch_packed._layer_step
    again = FunctionType(step.__code__.replace(), step.__globals__)  # dynamo remembers what other tests did to the code
    monkeypatch.setattr(torch_packed, "_layer_step", again)
    counters.clear()
    heard: list[str] = []
    engine = cpu_engine(compiled=True, token_budget=100, notify=heard.append)
    vectors = engine.embed_documents(TEXTS)
    assert heard == []
    assert counters["stats"]["unique_graphs"] == 1
    np.testing.assert_allclose(vectors, cpu_engine().embed_documents(TEXTS), atol=1e-6)


def test_the_weights_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Any] = []
    monkeypatch.setattr(torch_encoder, "read_folder", lambda *a: read.append(a) or read_folder(*a))
    source = torch_encoder.EncoderSource(SPEC, TOKENIZER, True, lambda _: None)
    assert source.open(torch.device("cpu"), "bf16", checked=True, compiled=False)[1] == "bf16"
    assert len(read) == 1


def test_more_texts_than_a_window_are_tokenised_ahead_and_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "MOST_GATHERED", 16)
    engine = cpu_engine(window=16)
    many = TEXTS * 6
    assert len(many) > engine.texts_per_window
    np.testing.assert_allclose(engine.embed_documents(many), np.tile(engine.embed_documents(TEXTS), (6, 1)), atol=1e-6)
