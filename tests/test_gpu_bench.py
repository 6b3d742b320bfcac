"""benchmarks/gpu_bench.py without a GPU: what it needs, what it makes of its rows, and that a failure costs one line."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from benchmarks.gpu_bench import aims, attempt, measure, table
from benchmarks.gpu_details import attentions, operations, sweep
from benchmarks.gpu_model import expand_weights, halve_weights
from benchmarks.gpu_texts import make_texts, read_texts
from benchmarks.gpu_ways import QUICK, Bench, Way, cosines, embed
from benchmarks.peers import sentence_transformers_way

ROOT = Path(__file__).resolve().parents[1]


def test_it_needs_neither_the_store_nor_another_engine() -> None:
    blocked = "import sys; sys.modules.update(dict.fromkeys(('chromadb', 'openvino', 'psutil', 'rich', 'frontmatter')))"
    code = (
        f"{blocked}; import benchmarks.gpu_bench, vaultvec.engines.torch_engine, vaultvec.engines.torch_padded;"
        "early = {'torch', 'sentence_transformers', 'transformers'} & set(sys.modules); assert not early, early"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")


def row(key: str, speed: float) -> dict[str, object]:
    return {
        "key": key, "label": key, "texts_per_second": speed, "tokens_per_second": round(speed * 184), "spread": 0.01,
        "gpu_use_percent": None, "batch_on_device_percent": 12.0, "peak_gpu_memory_mb": None, "lowest_cosine": 1.0,
        "share_of_ceiling": {"square": 0.1},
    }  # fmt: skip


def test_the_aims_count_the_best_way_from_text_to_vector() -> None:
    rows = [
        row("one", 10.0),
        row("usual", 100.0),
        row("ours", 900.0),
        row("ours_threads", 1000.0),
        row("ours_ids", 9e9),
    ]
    found = aims(rows)
    assert found == {
        "best": "ours_threads",
        "ours_over_one": 100.0,
        "ours_over_usual": 10.0,
        "chunks_of_184_tokens_per_second": 1000,
    }
    assert aims(rows[:2]) == {}
    assert "| ours_threads | 1,000.0 | 1 % | 184,000 | 10.0 % | – | 12 % | – | 1.000000 |" in table({"rows": rows})


def test_what_fails_is_told_and_the_rest_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    bench: Any = SimpleNamespace(failures={}, seconds_left=lambda: left[0])
    left = [10.0]

    def broken() -> None:
        raise RuntimeError("no kernel image")

    assert attempt(bench, "sweep", broken) is None
    assert attempt(bench, "stages", lambda: 3) == 3
    left[0] = -1.0
    assert attempt(bench, "late", lambda: 3) is None
    assert bench.failures == {"sweep": "RuntimeError: no kernel image", "late": "left out: no time"}
    assert capsys.readouterr().err == "sweep failed: RuntimeError: no kernel image\n"


def test_ours_that_leaves_its_device_is_not_measured_on() -> None:
    class Moving:
        device, dim = "cuda", 2

        def plan(self, items: list[int]) -> list[int]:
            return items

        def embed_batches(self, batches: list[int]) -> Iterator[Any]:
            for number in batches:
                self.device = "cuda" if number == 0 else "cpu"
                items = (SimpleNamespace(index=number),)
                yield SimpleNamespace(batch=SimpleNamespace(items=items), vectors=np.ones((1, 2), np.float32))

    with pytest.raises(RuntimeError, match="went on with cpu"):
        embed(Moving(), [0, 1, 2], 3)  # type: ignore[list-item]


def test_every_round_is_kept_and_a_way_that_fails_costs_only_itself() -> None:
    kept: list[dict[str, Any]] = []
    ways = [
        Way("usual", "usual", 2, lambda n: np.eye(2, dtype=np.float32)[:n]),
        Way("guide_fp32", "guide", 2, lambda n: np.ones((n, 3), np.float32) if n == 2 else 1 / 0),
    ]

    class Stub(Bench):
        def __init__(self) -> None:
            self.failures, self.sizes, self.device, self.workers = {}, QUICK, "cpu", 1
            self.lengths, self.shapes, self.gpu = np.array([3, 4]), None, SimpleNamespace(between=lambda *_: [])
            self._deadline, self.torch = time.perf_counter() + 1000, torch

        def ways(self) -> list[Way]:
            return ways

    measure(Stub(), lambda result: kept.append(json.loads(json.dumps(result))))
    assert [row["key"] for row in kept[1]["rows"]] == ["usual"]  # kept[0]: the ceiling
    assert kept[-1]["failures"]["guide"].startswith("ZeroDivisionError")
    assert {"stages_seconds", "operations", "fp32", "sweep", "out_of_memory"} <= set(kept[-1])


def test_a_baseline_that_cannot_be_loaded_costs_only_its_own_rows() -> None:
    kept: list[dict[str, Any]] = []

    class Stub(Bench):
        def __init__(self) -> None:
            self.failures, self.sizes, self.device, self.workers = {}, QUICK, "cpu", 1
            self.lengths, self.shapes, self.gpu = np.array([3, 4]), None, SimpleNamespace(between=lambda *_: [])
            self._deadline, self.torch, self.texts = time.perf_counter() + 1000, torch, ["a", "b"]

        def reference(self, half: bool = False) -> Any:  # noqa: ARG002
            raise RuntimeError("CUDA out of memory")

        def our_ways(self) -> list[Way]:
            encoder = SimpleNamespace(attend=len, compiled=False)
            engine = SimpleNamespace(device="cpu", busy_seconds=0.0, _encoder=encoder)
            return [Way("ours", "ours", 2, lambda n: np.eye(2, dtype=np.float32)[:n], engine=engine)]

        def engine(self, **_: Any) -> Any:
            raise RuntimeError("none here")

    ours = Stub()
    result = measure(ours, lambda found: kept.append(json.loads(json.dumps(found))))
    assert kept[0]["ceiling_tflops"]["square"] > 0  # before anything is loaded
    assert result["failures"]["sentence-transformers"] == "RuntimeError: CUDA out of memory"
    assert [(row["key"], row["lowest_cosine"]) for row in kept[-1]["rows"]] == [("ours", None)]
    assert "| ours |" in table(result)


def test_every_budget_of_the_sweep_sorts_all_its_texts_at_once() -> None:
    seen: list[tuple[int, int]] = []

    class Counting:
        device, dim, token_budget, window = "cpu", 2, 0, 7
        _encoder = SimpleNamespace(compiled=True)

        def plan(self, items: list[int]) -> list[int]:  # noqa: ARG002
            seen.append((self.token_budget, self.window))
            return []

        def embed_batches(self, _: list[int]) -> list[Any]:
            return []

        def close(self) -> None: ...

    sizes = SimpleNamespace(budgets=(2048, 262_144), ours=40)
    bench: Any = SimpleNamespace(engine=lambda **_: Counting(), sizes=sizes, ids=[0] * 40, seconds_left=lambda: 1)
    sweep(bench)
    assert set(seen) == {(2048, 10), (262_144, 40)}


def test_a_sweep_without_a_compiler_measures_nothing_twice(capsys: pytest.CaptureFixture[str]) -> None:
    class Uncompiled:
        device, dim, token_budget, window = "cpu", 2, 0, 7
        _encoder = SimpleNamespace(compiled=False)

        def plan(self, _: list[int]) -> list[int]:
            return []

        embed_batches = plan

        def close(self) -> None: ...

    sizes = SimpleNamespace(budgets=(2048,), ours=40)
    bench: Any = SimpleNamespace(engine=lambda **_: Uncompiled(), sizes=sizes, ids=[0] * 40, seconds_left=lambda: 1)
    assert [row["compiled"] for row in sweep(bench)] == [False]
    assert "torch.compile does not work here" in capsys.readouterr().err


def test_the_baselines_run_without_a_prompt_and_in_the_precision_they_are_named_for() -> None:
    asked: list[Any] = []

    class Baseline:
        device = torch.device("cpu")

        def encode(self, texts: Any, **options: Any) -> Any:
            asked.append(options["prompt"])
            return np.ones(2) if isinstance(texts, str) else np.ones((len(texts), 2))

    class Stub(Bench):
        def __init__(self) -> None:
            self.failures, self.sizes, self.device, self.texts = {}, QUICK, "cpu", ["a", "b"] * 8

        def reference(self, half: bool = False) -> Any:  # noqa: ARG002
            return Baseline()

        def our_ways(self) -> list[Way]:
            return []

    for way in Stub().ways():
        way.run(way.count)
    sentence_transformers_way(Baseline()).run(["a"])
    assert set(asked) == {""}
    assert len(asked) >= 4


def test_weights_travel_in_half_the_size_and_are_whole_again_where_they_are_measured(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    weights = {"a": np.array([[0.5, -0.25]], np.float32), "ids": np.arange(3)}
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text('{"torch_dtype": "float32"}')
    assert expand_weights(folder) is None
    halve_weights(folder, tmp_path / "half")
    half = load_file(tmp_path / "half" / "model.safetensors")
    assert (half["a"].dtype, half["ids"].dtype) == (np.float16, np.int64)
    whole = expand_weights(tmp_path / "half")
    assert whole is not None
    found = load_file(whole / "model.safetensors")
    assert found["a"].dtype == np.float32
    assert found["a"].tolist() == weights["a"].tolist()
    assert json.loads((whole / "config.json").read_text()) == {"torch_dtype": "float32"}


@pytest.fixture
def small_bench(tiny_bert: Path) -> Iterator[Bench]:
    bench = Bench(tiny_bert, ["a note", "another note about bread"], "cpu", QUICK, workers=1, minutes=1)
    yield bench
    bench.pool.shutdown(cancel_futures=True)


def test_processes_that_cannot_start_cost_only_the_ways_that_use_them(
    small_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise BrokenProcessPool("a child process terminated abruptly")

    monkeypatch.setattr(small_bench.pool, "map", refused)
    ways = {way.key: way for way in small_bench.our_ways()}
    assert attempt(small_bench, "ours", lambda: ways["ours"].run(8)) is None
    np.testing.assert_allclose(ways["ours_ids"].run(8), ways["ours_threads"].run(8), atol=1e-6)


def test_a_way_of_attention_that_does_not_run_says_why(small_bench: Bench) -> None:
    found = attentions(small_bench)
    assert isinstance(found["attend_varlen"], str)  # needs a GPU
    assert found["attend_grouped"]["farthest"] == 0


def test_a_profile_without_kernels_is_told_and_no_zero(small_bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    blind = nullcontext(SimpleNamespace(key_averages=list))
    monkeypatch.setattr("torch.profiler.profile", lambda **_: blind)
    with pytest.raises(RuntimeError, match="saw no kernels"):
        operations(small_bench)


def test_texts_of_a_vault_come_back_in_one_order(tmp_path: Path) -> None:
    count = make_texts(ROOT / "sample_vault", tmp_path / "texts.json.gz")
    texts = read_texts(tmp_path / "texts.json.gz")
    assert len(texts) == len(set(texts)) == count > 50
    assert texts == read_texts(tmp_path / "texts.json.gz")


def test_the_lowest_cosine_is_found() -> None:
    truth = np.eye(3, dtype=np.float32)
    vectors = truth.copy()
    vectors[2] = [0, 0.6, 0.8]
    assert cosines(truth, vectors) == pytest.approx((0.8, 2.8 / 3))
