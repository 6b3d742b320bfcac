"""What gpu_bench.py looks at beside the speeds: the ceiling, where the time goes, token budgets, and two checks."""

from __future__ import annotations

import gc
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.gpu_texts import say
from benchmarks.gpu_ways import Bench, cosines, embed
from vaultvec.datatypes import Vectors
from vaultvec.engines.torch_attention import attend_grouped, attend_jagged, attend_varlen

SWEEP_FULL_FROM = 16_384  # smaller budgets are slow, and get a quarter of the texts
OPERATIONS = 12  # rows of the profile


def ceiling(bench: Bench) -> dict[str, float]:
    """TFLOP/s of matrix products: a large square one, and the model's own largest."""
    torch = bench.torch
    gpu = bench.device == "cuda"
    kind = torch.bfloat16 if gpu else torch.float32
    inner, hidden = (bench.shapes.inner, bench.shapes.hidden) if bench.shapes else (1536, 384)
    square = 8192 if gpu else 1024
    found = {}
    for name, (rows, middle, columns) in {
        "square": (square, square, square),
        "model": (65_536 if gpu else 2048, hidden, inner),
    }.items():
        left = torch.randn(rows, middle, dtype=kind, device=bench.device)
        right = torch.randn(middle, columns, dtype=kind, device=bench.device)
        taken = []
        for _ in range(10):
            bench.sync()
            began = time.perf_counter()
            for _ in range(5):
                left @ right
            bench.sync()
            taken.append((time.perf_counter() - began) / 5)
        found[name] = 2 * rows * middle * columns / median(taken[3:]) / 1e12
    return found


def stages(bench: Bench) -> dict[str, float]:
    """Seconds of each step of ours over all texts when nothing overlaps."""
    engine, count = bench.engine(), bench.sizes.ours
    embed(engine, bench.ids[:count], count)
    spent = dict.fromkeys(("tokenise", "plan", "pack and copy", "forward", "gather"), 0.0)

    def lap(name: str, began: float) -> float:
        bench.sync()
        now = time.perf_counter()
        spent[name] += now - began
        return now

    now = time.perf_counter()
    items = list(bench.tokenised(count))
    now = lap("tokenise", now)
    batches = list(engine.plan(items))
    now = lap("plan", now)
    for batch in batches:
        packed = engine._encoder.pack([item.token_ids for item in batch.items])
        now = lap("pack and copy", now)
        vectors = engine._encoder.run(*packed)
        now = lap("forward", now)
        engine._checked(batch, vectors.cpu().numpy())
        now = lap("gather", now)
    engine.close()
    return {name: round(seconds, 4) for name, seconds in spent.items()}


def operations(bench: Bench) -> dict[str, Any]:
    """Which operations the device's time goes to, by torch's profiler, over ready token ids; and the share of the time
    without the profiler in which a kernel was at work."""
    from torch.autograd import DeviceType  # type: ignore[attr-defined]  # torch does not say so
    from torch.profiler import ProfilerActivity, profile

    gpu = bench.device == "cuda"
    engine, count = bench.engine(), max(1, bench.sizes.ours // 4)
    embed(engine, bench.ids[:count], count)
    began = time.perf_counter()
    embed(engine, bench.ids[:count], count)
    taken = time.perf_counter() - began
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]) as found:
        embed(engine, bench.ids[:count], count)
        bench.sync()
    engine.close()
    clock = "self_device_time_total" if gpu else "self_cpu_time_total"
    events = [event for event in found.key_averages() if event.device_type == DeviceType.CPU]
    total = sum(getattr(event, clock) for event in events)
    if not total:
        raise RuntimeError("the profiler saw no kernels")
    events.sort(key=lambda event: -getattr(event, clock))
    rows = [
        {"operation": event.key[:60], "calls": event.count, "share": round(getattr(event, clock) / total, 4)}
        for event in events[:OPERATIONS]
    ]
    return {"kernels_busy_percent": round(total / 1e4 / taken, 1) if gpu else None, "rows": rows}


def attentions(bench: Bench) -> dict[str, Any]:
    """Each way of attention on one full batch: ms a layer and the farthest value from the plain product, or why it does
    not run here."""
    torch: Any = bench.torch
    engine = bench.engine()
    layout, *_ = engine._encoder.pack([item.token_ids for item in next(engine.plan(bench.ids)).items])
    sizes, dtype = engine._encoder.architecture, engine._encoder.dtype
    shape = (sum(layout.lengths), 3, sizes.heads, sizes.hidden // sizes.heads)
    qkv = torch.randn(shape, dtype=dtype, device=bench.device)
    found: dict[str, Any] = {}
    with torch.inference_mode():
        plain = attend_grouped(qkv, layout).float()
        for attend in (attend_varlen, attend_jagged, attend_grouped):
            try:
                taken = []
                for _ in range(5):
                    bench.sync()
                    began = time.perf_counter()
                    mixed = attend(qkv, layout)
                    bench.sync()
                    taken.append(time.perf_counter() - began)
                far = float((mixed.float() - plain).abs().max())
                found[attend.__name__] = {"ms": round(1000 * median(taken[1:]), 3), "farthest": round(far, 4)}
            except Exception as error:  # an older card, another torch: each has its own class
                found[attend.__name__] = f"{type(error).__name__}: {error}"[:300]
    engine.close()
    return found


def sweep(bench: Bench) -> list[dict[str, Any]]:
    """Token budgets, with and without torch.compile, on ready token ids, while there is time."""
    rows: list[dict[str, Any]] = []
    for compiled in (False, True):
        engine = bench.engine(compiled=compiled)
        if compiled and not engine._encoder.compiled:
            say("  torch.compile does not work here: its half of the sweep is left out")
            engine.close()
            break
        for budget in bench.sizes.budgets:
            if bench.seconds_left() < 0:
                say("  out of time: the rest of the sweep is left out")
                break
            count = min(len(bench.ids), max(1, bench.sizes.ours // (4 if budget < SWEEP_FULL_FROM else 1)))
            # All texts in one window: in one of WINDOW texts the last batch of a large budget is mostly empty.
            engine.token_budget, engine.window = budget, count
            taken = []
            for number in range(3):
                began = time.perf_counter()
                embed(engine, bench.ids[:count], count)
                if number:  # the first warms up
                    taken.append(time.perf_counter() - began)
            speed = round(count / median(taken), 1)
            rows.append({"budget": budget, "compiled": compiled, "texts_per_second": speed})
            say(f"  budget {budget:>7}  compiled {compiled!s:5}  {speed:>10,.0f} texts/s")
        engine.close()
    return rows


def fp32_check(bench: Bench, truth: Vectors) -> dict[str, Any]:
    """fp32 goes through another attention than half precision: it must give the same vectors."""
    count = len(truth)
    exact = bench.engine(precision="fp32")
    lowest = cosines(truth, embed(exact, bench.ids[:count], count))[0]
    found = {"attention": exact._encoder.attend.__name__, "lowest_cosine": round(lowest, 6)}
    exact.close()
    return found


def memory_check(bench: Bench, truth: Vectors) -> dict[str, Any] | None:
    """A real out-of-memory on a GPU, with 1 GB to work in and batches that want far more."""
    if bench.device != "cuda":
        return None
    cuda = bench.torch.cuda
    gc.collect()
    cuda.empty_cache()
    fraction = (cuda.memory_reserved() + 1e9) / cuda.get_device_properties(0).total_memory
    try:
        tight = bench.engine(token_budget=4_000_000, gpu_memory_fraction=fraction)
        tight.window = bench.sizes.ours
        vectors = embed(tight, bench.ids, len(bench.ids))
        found = {
            "count": tight.out_of_memory_count,
            "budget_after": tight.token_budget,
            "device_after": tight.device,
            "lowest_cosine": round(cosines(truth, vectors[: len(truth)])[0], 6),
        }
        tight.close()
    finally:
        cuda.set_per_process_memory_fraction(1.0)
    return found
