"""One GPU (or CPU), one model, the same texts: sentence-transformers, the guide's fast function, and ours, in turn.

    python benchmarks/gpu_bench.py --make-texts VAULT texts.json.gz                  # one text a JSON line
    python benchmarks/gpu_bench.py --texts texts.json.gz --device cuda --out result.json
    python benchmarks/gpu_bench.py --texts texts.json.gz --device cpu --quick        # does it run? numbers mean nothing

Needs torch, sentence-transformers, tokenizers, safetensors and numpy; no store, no other engine. Every way is warmed up,
then all are timed in turn, round by round. A way gets as many texts as keep it busy for about a second on a large GPU;
the texts are shuffled, so that every way gets the same mix of lengths.
"""

from __future__ import annotations

import argparse
import gc
import gzip
import hashlib
import json
import multiprocessing
import os
import platform
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vaultvec.ceiling import Shapes, read_shapes
from vaultvec.datatypes import Encoded, TokenIds, Vectors
from vaultvec.engines.tokenizer import HfTokenizer
from vaultvec.models import L6, ModelSpec, resolve, weights_path

TOKENS_A_CHUNK = 184  # the aim is 20,000 chunks of so many tokens a second
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
QUICK = Sizes(4, 32, 32, 96, 2, (1024, 2048))


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


_worker: HfTokenizer | None = None


def start_tokenizer(path: Path) -> None:
    """In a process of its own: one tokenizer, one thread."""
    global _worker
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _worker = HfTokenizer(path)


def tokenise(texts: Sequence[str], max_tokens: int) -> tuple[TokenIds, list[int]]:
    """Token ids of some texts one after the other, and their counts: one array travels faster than hundreds."""
    assert _worker is not None
    rows = _worker.encode(texts, max_tokens)
    return np.concatenate(rows), [len(row) for row in rows]


def read_spec(folder: Path) -> ModelSpec:
    """The model of a folder."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    limits = folder / "sentence_bert_config.json"
    limit = json.loads(limits.read_text(encoding="utf-8")).get("max_seq_length") if limits.is_file() else None
    return ModelSpec(str(folder), "transformer", config["hidden_size"], limit or config["max_position_embeddings"])


def read_texts(path: Path) -> list[str]:
    """One JSON string a line, in a mix of lengths that is the same everywhere."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        texts = [json.loads(line) for line in file if line.strip()]
    random.Random(0).shuffle(texts)
    return texts


def make_texts(vault: Path, out: Path) -> int:
    """Write the chunks of a vault as this program would embed them. Gives their number."""
    from vaultvec.chunks import Chunker, ChunkLimits
    from vaultvec.errors import VaultvecError
    from vaultvec.notes import read_note
    from vaultvec.vault import load_exclusions, open_vault, walk

    root = open_vault(vault)
    chunker = Chunker(HfTokenizer(weights_path(resolve(L6)).parent / "tokenizer.json"), ChunkLimits(200, 64, 256))
    texts: dict[str, None] = {}
    for file in walk(root, load_exclusions(root, ())).files:
        try:
            texts.update((chunk.text, None) for chunk in chunker.chunk(read_note(file)[1]))
        except VaultvecError as error:
            say(f"left out: {error}")
    with gzip.GzipFile(out, "wb", mtime=0) as file:
        file.write("".join(json.dumps(text, ensure_ascii=False) + "\n" for text in texts).encode())
    return len(texts)


def environment(device: str, folder: Path, texts: Path) -> dict[str, Any]:
    """What the numbers depend on."""
    import torch

    found: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": output_of("git", "rev-parse", "--short", "HEAD"),
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "device": device,
        "weights_sha256": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
        "texts": texts.name,
        **{name: version(name) for name in ("torch", "sentence-transformers", "transformers", "tokenizers", "numpy")},
    }
    if device == "cuda":
        major, minor = torch.cuda.get_device_capability()
        found |= {"gpu": torch.cuda.get_device_name(), "capability": f"{major}.{minor}", "cuda": torch.version.cuda}
        found["driver"] = output_of("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return found


def output_of(*command: str) -> str | None:
    """A command's answer, None where it has none."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def say(line: str) -> None:
    """Progress goes to stderr."""
    print(line, file=sys.stderr, flush=True)


def measure(bench: Bench) -> dict[str, Any]:
    """Warm-up, rounds in turn, stages, sweep, checks."""
    ceiling = bench.ceiling()
    say(f"ceiling: {', '.join(f'{name} {tflops:.2f} TFLOP/s' for name, tflops in ceiling.items())}")
    ways = bench.ways()
    for way in ways:
        say(f"warm-up: {way.label}")
        way.run(max(1, way.count // 4))
    for number in range(bench.sizes.rounds):
        for way in ways if number % 2 == 0 else ways[::-1]:
            bench.time(way)
            say(f"round {number + 1}: {way.count / way.seconds[-1]:>10,.1f} texts/s  {way.label}")
    truth = next(way.vectors for way in ways if way.key == "usual")
    assert truth is not None
    rows = [bench.row(way, truth, ceiling) for way in ways]
    speeds = {row["key"]: row["texts_per_second"] for row in rows}
    best = max(speeds["ours"], speeds["ours_compiled"])
    tokens = max(row["tokens_per_second"] for row in rows if row["key"] in ("ours", "ours_compiled"))
    aims = {f"ours_over_{key}": round(best / speeds[key], 2) for key in speeds if not key.startswith("ours")}
    aims[f"chunks_of_{TOKENS_A_CHUNK}_tokens_per_second"] = round(tokens / TOKENS_A_CHUNK)
    return {
        "mean_tokens": round(float(bench.lengths.mean()), 1),
        "tokenising_processes": bench.workers,
        "attention": bench.engine()._encoder.attend.__name__,
        "ceiling_tflops": {name: round(tflops, 3) for name, tflops in ceiling.items()},
        "rows": rows,
        "aims": aims,
        "stages_seconds": bench.stages(),
        "sweep": bench.sweep(),
        "checks": bench.checks(truth),
    }


def table(result: dict[str, Any]) -> str:
    """The rows as Markdown."""
    lines = [
        "| way | texts/s | ± | tokens/s | of the ceiling (square / model) | GPU use | peak MB | lowest cosine |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in result["rows"]:
        share = " / ".join(f"{100 * part:.1f} %" for part in row.get("share_of_ceiling", {}).values())
        use, peak = row["gpu_use_percent"], row["peak_gpu_memory_mb"]
        lines.append(
            f"| {row['label']} | {row['texts_per_second']:,.1f} | {100 * row['spread']:.0f} % "
            f"| {row['tokens_per_second']:,} | {share} | {'–' if use is None else f'{use:.0f} %'} "
            f"| {'–' if peak is None else f'{peak:,.0f}'} | {row['lowest_cosine']:.6f} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Parse, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a sentence-transformers folder (default: the bundled model)")
    parser.add_argument("--texts", type=Path, help="gzip, one JSON string a line")
    parser.add_argument("--out", type=Path, help="where the result is written as JSON")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="about 100 texts, to see that it runs")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 2), help="tokenising processes")
    parser.add_argument("--make-texts", nargs=2, type=Path, metavar=("VAULT", "OUT"))
    options = parser.parse_args()
    if options.make_texts:
        say(f"{make_texts(*options.make_texts)} texts written")
        return 0
    if options.texts is None:
        parser.error("--texts is missing; make some with --make-texts VAULT OUT")
    folder = options.model or weights_path(resolve(L6)).parent
    sizes = QUICK if options.quick else FULL
    bench = Bench(folder, read_texts(options.texts), options.device, sizes, options.workers)
    try:
        result = {"environment": environment(options.device, folder, options.texts), "sizes": asdict(sizes)}
        result |= measure(bench)
    finally:
        bench.gpu.close()
        bench.pool.shutdown()
    if options.out:
        options.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(table(result))
    for name in ("aims", "stages_seconds", "checks"):
        print(f"{name}: {json.dumps(result[name])}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
