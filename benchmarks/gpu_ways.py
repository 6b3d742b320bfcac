"""The ways of embedding that gpu_bench.py compares, and what is measured of them."""

from __future__ import annotations

import gc
import multiprocessing
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.gpu_texts import read_spec, say, start_tokenizer, tokenise
from vaultvec.datatypes import Encoded, Vectors
from vaultvec.engines.tokenizer import HfTokenizer
from vaultvec.measure.ceiling import Shapes, read_shapes

TEXTS_A_TASK = 256  # tokenised by one process at a time
WINDOW = 4000  # texts that ours sorts at a time
GUIDE_BATCH = 2000


@dataclass(frozen=True)
class Sizes:
    """How much each way gets."""

    one: int
    usual: int
    guide: int
    ours: int
    rounds: int
    budgets: tuple[int, ...]


FULL = Sizes(200, 4000, 8000, 48_000, 5, (4096, 8192, 16_384, 32_768, 65_536, 131_072, 262_144))
QUICK = Sizes(2, 16, 16, 64, 2, (2048,))


@dataclass
class Way:
    """One way of embedding `count` texts, and what was measured of it."""

    key: str
    label: str
    count: int
    run: Callable[[int], Vectors]
    seconds: list[float] = field(default_factory=list)
    gpu_use: list[float] = field(default_factory=list)
    peak_mb: float = 0.0
    vectors: Vectors | None = None


class GpuUse(threading.Thread):
    """Reads nvidia-smi's utilisation five times a second until closed; silent where there is none."""

    def __init__(self, device: str) -> None:
        super().__init__(daemon=True)
        self.seen: list[tuple[float, float]] = []  # (time, per cent)
        self._process: subprocess.Popen[str] | None = None
        if device == "cuda":
            command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "200"]
            try:
                self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            except OSError:
                return
            self.start()

    def run(self) -> None:
        assert self._process is not None
        for line in self._process.stdout or ():
            if line.strip().isdigit():
                self.seen.append((time.perf_counter(), float(line)))

    def between(self, began: float, ended: float) -> list[float]:
        """What was read between two moments."""
        return [value for moment, value in list(self.seen) if began <= moment <= ended]

    def close(self) -> None:
        """Stop reading."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()


class Bench:
    """The texts, the models and the clock."""

    def __init__(self, folder: Path, texts: list[str], device: str, sizes: Sizes, workers: int) -> None:
        import torch

        self.torch: Any = torch
        self.device, self.sizes = device, sizes
        self.spec = read_spec(folder)
        self.shapes: Shapes | None = read_shapes(folder)
        self.tokenizer = HfTokenizer(folder / "tokenizer.json")
        most = max(sizes.one, sizes.usual, sizes.guide, sizes.ours)
        self.texts = [texts[i % len(texts)] for i in range(most)]
        self.pool = ProcessPoolExecutor(
            workers, multiprocessing.get_context("spawn"), start_tokenizer, (folder / "tokenizer.json",)
        )
        self.workers = workers
        self.ids = list(self.tokenised(most))
        self.lengths = np.array([len(item) for item in self.ids])
        self.gpu = GpuUse(device)

    def tokenised(self, count: int) -> Iterator[Encoded]:
        """Token ids of the first `count` texts as the processes get them done, in order."""
        tasks = [self.texts[i : min(i + TEXTS_A_TASK, count)] for i in range(0, count, TEXTS_A_TASK)]
        index = 0
        for flat, lengths in self.pool.map(tokenise, tasks, [self.spec.max_tokens] * len(tasks)):
            for row in np.split(flat, np.cumsum(lengths)[:-1]):
                yield Encoded(index, "", row)
                index += 1

    def engine(self, **options: Any) -> Any:
        """Ours on the bench's device."""
        from vaultvec.engines.torch_engine import TorchEngine

        options = {"device": self.device, "window": WINDOW, "notify": say, **options}
        return TorchEngine(self.spec, self.tokenizer, **options)

    def sync(self) -> None:
        """Until the device has done all it was given."""
        if self.device == "cuda":
            self.torch.cuda.synchronize()

    def reference(self, half: bool = False) -> Any:
        """sentence-transformers as it comes."""
        from sentence_transformers import SentenceTransformer

        loaded = SentenceTransformer(self.spec.name, device=self.device)
        loaded.max_seq_length = self.spec.max_tokens
        return loaded.half() if half else loaded

    def time(self, way: Way) -> None:
        """One round of one way."""
        cuda = self.torch.cuda if self.device == "cuda" else None
        gc.collect()
        self.sync()
        if cuda:
            cuda.reset_peak_memory_stats()
            before = cuda.memory_allocated()
        began = time.perf_counter()
        way.vectors = way.run(way.count)
        self.sync()
        ended = time.perf_counter()
        way.seconds.append(ended - began)
        way.gpu_use += self.gpu.between(began, ended)
        if cuda:
            way.peak_mb = max(way.peak_mb, (cuda.max_memory_allocated() - before) / 1e6)

    def ways(self) -> list[Way]:
        """Everything that is compared, slowest idea first."""
        sizes, plain = self.sizes, self.reference()
        options = {"normalize_embeddings": True, "show_progress_bar": False}
        ours, compiled, padded = self.engine(), self.engine(compiled=True), self.engine(packed=False)
        found = [
            Way("one", "sentence-transformers, one call per chunk", sizes.one,
                lambda n: np.stack([plain.encode(text, **options) for text in self.texts[:n]])),
            Way("usual", "sentence-transformers, batch 32 (its default)", sizes.usual,
                lambda n: plain.encode(self.texts[:n], batch_size=32, **options)),
            Way("guide_fp32", f"the guide's fast function, {GUIDE_BATCH}, fp32", sizes.guide,
                lambda n: guide_fast(plain, self.texts[:n])),
        ]  # fmt: skip
        if self.device == "cuda":  # a CPU only emulates fp16
            half = self.reference(half=True)
            found.append(
                Way("guide_fp16", f"the guide's fast function, {GUIDE_BATCH}, fp16", sizes.guide,
                    lambda n: guide_fast(half, self.texts[:n]))
            )  # fmt: skip
        return [
            *found,
            Way("padded", f"ours, padded, {padded.precision}", sizes.ours,
                lambda n: embed(padded, self.tokenised(n), n)),
            Way("ours", f"ours, packed, {ours.precision}", sizes.ours,
                lambda n: embed(ours, self.tokenised(n), n)),
            Way("ours_compiled", f"ours, packed, compiled, {compiled.precision}", sizes.ours,
                lambda n: embed(compiled, self.tokenised(n), n)),
            Way("ours_ids", f"ours, packed, {ours.precision}, token ids ready", sizes.ours,
                lambda n: embed(ours, self.ids[:n], n)),
        ]  # fmt: skip

    def stages(self) -> dict[str, float]:
        """Seconds of each step of ours over all texts when nothing overlaps."""
        from vaultvec.engines.torch_device import copy_back

        engine, count = self.engine(), self.sizes.ours
        embed(engine, self.ids[:count], count)
        spent = dict.fromkeys(("tokenise", "plan", "pack and copy", "forward", "gather"), 0.0)

        def lap(name: str, began: float) -> float:
            self.sync()
            now = time.perf_counter()
            spent[name] += now - began
            return now

        now = time.perf_counter()
        items = list(self.tokenised(count))
        now = lap("tokenise", now)
        batches = list(engine.plan(items))
        now = lap("plan", now)
        for batch in batches:
            packed = engine._encoder.pack([item.token_ids for item in batch.items])
            now = lap("pack and copy", now)
            vectors = engine._encoder.run(*packed)
            now = lap("forward", now)
            engine._checked(batch, np.asarray(copy_back(vectors)) if self.device != "cuda" else vectors.cpu().numpy())
            now = lap("gather", now)
        engine.close()
        return {name: round(seconds, 4) for name, seconds in spent.items()}

    def sweep(self) -> list[dict[str, Any]]:
        """Token budgets, with and without torch.compile, on ready token ids."""
        rows = []
        for compiled in (False, True):
            engine = self.engine(compiled=compiled)
            for budget in self.sizes.budgets:
                count = min(len(self.ids), max(1, self.sizes.ours // (4 if budget < 16_384 else 1)))
                engine.token_budget = budget
                taken = []
                for number in range(3):
                    began = time.perf_counter()
                    embed(engine, self.ids[:count], count)
                    if number:  # the first warms up
                        taken.append(time.perf_counter() - began)
                speed = round(count / median(taken), 1)
                rows.append({"budget": budget, "compiled": compiled, "texts_per_second": speed})
                say(f"  budget {budget:>7}  compiled {compiled!s:5}  {speed:>10,.0f} texts/s")
            engine.close()
        return rows

    def checks(self, truth: Vectors) -> dict[str, Any]:
        """fp32 through the other attention, and a real out-of-memory on a GPU: both must give the same vectors."""
        count = len(truth)
        exact = self.engine(precision="fp32")
        found: dict[str, Any] = {
            "fp32_attention": exact._encoder.attend.__name__,
            "fp32_lowest_cosine": cosines(truth, embed(exact, self.ids[:count], count))[0],
        }
        exact.close()
        if self.device == "cuda":
            gc.collect()
            self.torch.cuda.empty_cache()
            total = self.torch.cuda.get_device_properties(0).total_memory
            fraction = (self.torch.cuda.memory_reserved() + 1e9) / total
            tight = self.engine(token_budget=4_000_000, gpu_memory_fraction=fraction)
            tight.window = self.sizes.ours
            vectors = embed(tight, self.ids, len(self.ids))
            found["out_of_memory_count"] = tight.out_of_memory_count
            found["out_of_memory_budget_after"] = tight.token_budget
            found["out_of_memory_device_after"] = tight.device
            found["out_of_memory_lowest_cosine"] = cosines(truth, vectors[:count])[0]
            tight.close()
            self.torch.cuda.set_per_process_memory_fraction(1.0)
        return found

    def ceiling(self) -> dict[str, float]:
        """TFLOP/s of matrix products: a large square one, and the model's own largest."""
        torch = self.torch
        gpu = self.device == "cuda"
        kind = torch.bfloat16 if gpu else torch.float32
        inner, hidden = (self.shapes.inner, self.shapes.hidden) if self.shapes else (1536, 384)
        square = 8192 if gpu else 1024
        shapes = {"square": (square, square, square), "model": (65_536 if gpu else 2048, hidden, inner)}
        found = {}
        for name, (rows, middle, columns) in shapes.items():
            left = torch.randn(rows, middle, dtype=kind, device=self.device)
            right = torch.randn(middle, columns, dtype=kind, device=self.device)
            taken = []
            for _ in range(10):
                self.sync()
                began = time.perf_counter()
                for _ in range(5):
                    left @ right
                self.sync()
                taken.append((time.perf_counter() - began) / 5)
            found[name] = 2 * rows * middle * columns / median(taken[3:]) / 1e12
        return found

    def row(self, way: Way, truth: Vectors, ceiling: dict[str, float]) -> dict[str, Any]:
        """What one way came to."""
        assert way.vectors is not None
        seconds = median(way.seconds)
        tokens = int(self.lengths[: way.count].sum())
        row: dict[str, Any] = {
            "key": way.key, "label": way.label, "texts": way.count,
            "texts_per_second": round(way.count / seconds, 1), "tokens_per_second": round(tokens / seconds),
            "spread": round((max(way.seconds) - min(way.seconds)) / 2 / seconds, 3),
            "gpu_use_percent": round(mean(way.gpu_use), 1) if way.gpu_use else None,
            "peak_gpu_memory_mb": round(way.peak_mb, 1) if self.device == "cuda" else None,
        }  # fmt: skip
        if self.shapes:
            work = self.shapes.flops_per_token(float(self.lengths.mean())) * row["tokens_per_second"] / 1e12
            row["share_of_ceiling"] = {name: round(work / most, 4) for name, most in ceiling.items()}
        count = min(len(truth), way.count)
        lowest, average = cosines(truth[:count], way.vectors[:count])
        return {**row, "lowest_cosine": round(lowest, 6), "mean_cosine": round(average, 6)}


def embed(engine: Any, items: Iterable[Encoded], count: int) -> Vectors:
    """Encoded texts through ours, rows in order."""
    out = np.zeros((count, engine.dim), dtype=np.float32)
    for result in engine.embed_batches(engine.plan(items)):
        out[[item.index for item in result.batch.items]] = result.vectors
    return out


def guide_fast(model: Any, texts: list[str], batch_size: int = GUIDE_BATCH) -> Vectors:
    """GUIDE.md's get_embeddings_batch_fast: no gradients, batches of 2000, a clean-up every ten."""
    import torch

    rows = []
    with torch.no_grad():
        for number, start in enumerate(range(0, len(texts), batch_size), 1):
            batch = texts[start : start + batch_size]
            rows.append(model.encode(batch, batch_size=batch_size, normalize_embeddings=True, show_progress_bar=False))
            if number % 10 == 0:
                gc.collect()
                if model.device.type == "cuda":
                    torch.cuda.empty_cache()
    return np.concatenate(rows).astype(np.float32)


def cosines(truth: Vectors, vectors: Vectors) -> tuple[float, float]:
    """Lowest and mean cosine of the rows."""
    both = np.einsum("ij,ij->i", truth, vectors, dtype=np.float64)
    both /= np.linalg.norm(truth, axis=1) * np.linalg.norm(vectors, axis=1)
    return float(both.min()), float(both.mean())
