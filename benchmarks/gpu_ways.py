"""The ways of embedding that gpu_bench.py compares, and what is measured of them."""

from __future__ import annotations

import gc
import multiprocessing
import sys
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
from benchmarks.gpu_use import GpuUse
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
    engine: Any = None  # ours
    busy: float = 0.0  # seconds with a batch of ours on the device, by its own clock; gaps between kernels are in it
    peak_mb: float = 0.0
    vectors: Vectors | None = None


class Bench:
    """The texts, the models and the clock."""

    def __init__(
        self, folder: Path, texts: list[str], device: str, sizes: Sizes, *, workers: int, minutes: float
    ) -> None:
        self._deadline = time.perf_counter() + 60 * minutes
        import torch  # from a cold disk it may take a minute

        self.failures: dict[str, str] = {}
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
        # Not by the processes: where they cannot be started, only the ways that use them are lost.
        rows = self.tokenizer.encode(self.texts, self.spec.max_tokens)
        self.ids = [Encoded(index, "", row) for index, row in enumerate(rows)]
        self.lengths = np.array([len(row) for row in rows])
        self.gpu = GpuUse(device)

    def tokenised(self, count: int) -> Iterator[Encoded]:
        """Token ids of the first `count` texts as the processes get them done, in order."""
        tasks = [self.texts[i : min(i + TEXTS_A_TASK, count)] for i in range(0, count, TEXTS_A_TASK)]
        index = 0
        for flat, lengths in self.pool.map(tokenise, tasks, [self.spec.max_tokens] * len(tasks)):
            start = 0
            for length in lengths:
                yield Encoded(index, "", flat[start : start + length])
                start += length
                index += 1

    def engine(self, **options: Any) -> Any:
        """Ours on the bench's device."""
        from vaultvec.engines.torch_engine import TorchEngine

        options = {"device": self.device, "window": WINDOW, "notify": say, **options}
        return TorchEngine(self.spec, self.tokenizer, **options)

    def seconds_left(self) -> float:
        """Until nothing new should be begun."""
        return self._deadline - time.perf_counter()

    def sync(self) -> None:
        """Until the device has done all it was given."""
        if self.device == "cuda":
            self.torch.cuda.synchronize()

    def reference(self, half: bool = False) -> Any:
        """sentence-transformers as it comes, in fp32 or fp16 whatever the weights are stored in."""
        from sentence_transformers import SentenceTransformer

        loaded = SentenceTransformer(self.spec.name, device=self.device)
        loaded.max_seq_length = self.spec.max_tokens
        return loaded.half() if half else loaded.float()

    def time(self, way: Way) -> None:
        """One round of one way."""
        cuda = self.torch.cuda if self.device == "cuda" else None
        gc.collect()
        self.sync()
        if cuda:
            cuda.reset_peak_memory_stats()
            before = cuda.memory_allocated()
        busy = way.engine.busy_seconds if way.engine else 0.0
        began = time.perf_counter()
        way.vectors = way.run(way.count)
        self.sync()
        ended = time.perf_counter()
        way.busy += way.engine.busy_seconds - busy if way.engine else 0.0
        way.seconds.append(ended - began)
        way.gpu_use += self.gpu.between(began, ended)
        if cuda:
            way.peak_mb = max(way.peak_mb, (cuda.max_memory_allocated() - before) / 1e6)

    def ways(self) -> list[Way]:
        """Everything that is compared, slowest idea first."""
        sizes, plain = self.sizes, self.tried("sentence-transformers", self.reference)
        options = {"prompt": "", "normalize_embeddings": True, "show_progress_bar": False}
        found: list[Way] = []
        if plain is not None:
            found += [
                Way("one", "sentence-transformers, one call per chunk", sizes.one,
                    lambda n: np.stack([plain.encode(text, **options) for text in self.texts[:n]])),
                Way("usual", "sentence-transformers, batch 32 (its default)", sizes.usual,
                    lambda n: plain.encode(self.texts[:n], batch_size=32, **options)),
                Way("guide_fp32", f"the guide's fast function, {GUIDE_BATCH}, fp32", sizes.guide,
                    lambda n: guide_fast(plain, self.texts[:n])),
            ]  # fmt: skip
        # A CPU only emulates fp16.
        half = (
            self.tried("sentence-transformers, fp16", lambda: self.reference(half=True))
            if self.device == "cuda"
            else None
        )
        if half is not None:
            found.append(
                Way("guide_fp16", f"the guide's fast function, {GUIDE_BATCH}, fp16", sizes.guide,
                    lambda n: guide_fast(half, self.texts[:n]))
            )  # fmt: skip
        return [*found, *self.our_ways()]

    def tried(self, key: str, build: Callable[[], Any]) -> Any:
        """What `build` gives, None and a line in `failures` where it fails: the rest is still measured."""
        try:
            return build()
        except Exception as error:  # whatever it is, it is told
            self.failures[key] = f"{type(error).__name__}: {error}"[:300]
            return None

    def opened(self, key: str, **options: Any) -> Any:
        """An engine on the bench's device, None and a line in `failures` where there is none."""
        engine = self.tried(key, lambda: self.engine(**options))
        if self.lost(engine):
            self.failures[key] = f"went on with {engine.device}"
            return None
        return engine

    def lost(self, engine: Any) -> bool:
        """Whether ours has left the device that is measured: on a CPU its texts would take hours."""
        return engine is not None and engine.device != self.device

    def our_ways(self) -> list[Way]:
        """Ours: from texts by way of processes or of threads, padded, compiled, and from ready token ids."""
        found: list[Way] = []
        ours = self.opened("ours")
        padded = self.opened("padded", packed=False)
        compiled = self.opened("ours_compiled", compiled=True)
        count = self.sizes.ours
        if padded:
            found.append(Way("padded", f"ours, padded, {padded.precision}", count,
                             lambda n: embed(padded, self.tokenised(n), n), engine=padded))  # fmt: skip
        if ours:
            found.append(Way("ours", f"ours, packed, {ours.precision}", count,
                             lambda n: embed(ours, self.tokenised(n), n), engine=ours))  # fmt: skip
        if compiled:
            found.append(Way("ours_compiled", f"ours, packed, compiled, {compiled.precision}", count,
                             lambda n: embed(compiled, self.tokenised(n), n), engine=compiled))  # fmt: skip
        if ours:
            found += [
                Way("ours_threads", f"ours, packed, {ours.precision}, one process: embed_documents", count,
                    lambda n: ours.embed_documents(self.texts[:n]), engine=ours),
                Way("ours_ids", f"ours, packed, {ours.precision}, token ids ready", count,
                    lambda n: embed(ours, self.ids[:n], n), engine=ours),
            ]  # fmt: skip
        return found

    def row(self, way: Way, truth: Vectors | None, ceiling: dict[str, float]) -> dict[str, Any]:
        """What one way came to. Without `truth` it has no cosines."""
        assert way.vectors is not None
        seconds = median(way.seconds)
        tokens = int(self.lengths[: way.count].sum())
        row: dict[str, Any] = {
            "key": way.key, "label": way.label, "texts": way.count,
            "device": way.engine.device if way.engine else self.device,  # ours goes on with the CPU when a GPU fails
            "compiled": bool(way.engine) and bool(way.engine._encoder.compiled),  # it goes on without where that fails
            "texts_per_second": round(way.count / seconds, 1), "tokens_per_second": round(tokens / seconds),
            "spread": round((max(way.seconds) - min(way.seconds)) / 2 / seconds, 3),
            "batch_on_device_percent": round(100 * way.busy / sum(way.seconds), 1) if way.engine else None,
            "gpu_use_percent": round(mean(way.gpu_use), 1) if way.gpu_use else None,
            "peak_gpu_memory_mb": round(way.peak_mb, 1) if self.device == "cuda" else None,
        }  # fmt: skip
        if self.shapes:
            work = self.shapes.flops_per_token(self.lengths.tolist()) * row["tokens_per_second"] / 1e12
            row["share_of_ceiling"] = {name: round(work / most, 4) for name, most in ceiling.items()}
        if truth is None:
            return {**row, "lowest_cosine": None, "mean_cosine": None}
        count = min(len(truth), way.count)
        lowest, average = cosines(truth[:count], way.vectors[:count])
        return {**row, "lowest_cosine": round(lowest, 6), "mean_cosine": round(average, 6)}


def embed(engine: Any, items: Iterable[Encoded], count: int) -> Vectors:
    """Encoded texts through ours, rows in order. Raises RuntimeError when it leaves its device: a CPU would take hours."""
    out = np.zeros((count, engine.dim), dtype=np.float32)
    device = engine.device
    for result in engine.embed_batches(engine.plan(items)):
        if engine.device != device:
            raise RuntimeError(f"it went on with {engine.device}")
        out[[item.index for item in result.batch.items]] = result.vectors
    return out


def guide_fast(model: Any, texts: list[str], batch_size: int = GUIDE_BATCH) -> Vectors:
    """GUIDE.md's get_embeddings_batch_fast: no gradients, batches of 2000, a clean-up every ten."""
    import torch

    rows = []
    with torch.no_grad():
        for number, start in enumerate(range(0, len(texts), batch_size), 1):
            batch = texts[start : start + batch_size]
            rows.append(
                model.encode(
                    batch, prompt="", batch_size=batch_size, normalize_embeddings=True, show_progress_bar=False
                )
            )
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
