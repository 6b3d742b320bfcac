"""benchmarks/gpu_bench.py without a GPU: what it needs, what it makes of its rows, and that a failure costs one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.gpu_bench import aims, attempt, table
from benchmarks.gpu_texts import make_texts, read_texts
from benchmarks.gpu_ways import cosines

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
        "gpu_use_percent": None, "model_busy_percent": 12.0, "peak_gpu_memory_mb": None, "lowest_cosine": 1.0,
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
    failures: dict[str, str] = {}

    def broken() -> None:
        raise RuntimeError("no kernel image")

    assert attempt(failures, "sweep", broken) is None
    assert attempt(failures, "stages", lambda: 3) == 3
    assert failures == {"sweep": "RuntimeError: no kernel image"}
    assert capsys.readouterr().err == "sweep failed: RuntimeError: no kernel image\n"


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
