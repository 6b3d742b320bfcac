"""The guide's five bottlenecks, each priced on this machine by switching one thing while all else stays."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median

from vaultvec.batching import plan_batches
from vaultvec.engines.base import Engine
from vaultvec.measure.results import Price
from vaultvec.measure.rounds import NOISE_FLOOR, Tick, Timing, Way, compare, time_in_turn
from vaultvec.measure.surroundings import Surroundings
from vaultvec.measure.ways import (
    SMALL_BATCH,
    arranged,
    as_they_come,
    by_count,
    clear_caches,
    copies_for,
    encode,
    one_by_one,
    padded_tokens,
    within_budget,
)
from vaultvec.monitor import GpuReading, blocking_check

CHECK_EVERY = 2.0  # seconds, as the guide found it
CHECKS = 3
ONE_SHARE = 3  # one in so many texts is enough for one call per text


def measure_prices(
    engine: Engine,
    texts: Sequence[str],
    lengths: Sequence[int],
    literal: int,
    *,
    rounds: int,
    tick: Tick,
    gpu: Callable[[], GpuReading] | None = None,
) -> list[Price]:
    """What each bottleneck costs. `lengths`: tokens of each text; `literal`: texts a batch of 2000 may truly hold.

    Every beginning of `texts` should have the mix of the whole, as `pacing.even_order` makes it.
    """
    few, large = max(2, len(texts) // ONE_SHARE), min(literal, len(texts))
    ways = _ways(engine, few, large)
    found = time_in_turn(ways, texts, sum(lengths), rounds, tick, gpu)
    found["engine_one"] = replace(found["engine_one"], texts=few)
    base, small = found["base"], found["small"]
    batches = len(plan_batches(lengths, engine.token_budget, start_cost=engine.start_cost))
    size = min(SMALL_BATCH, len(texts))
    remedy = [found["large"]] if "large" in found else []
    return [
        _price(base, found["engine_one"], "1 per-file processing: one call for every chunk", "one call per text"),
        _price(
            base, small, f"2 small batches: {SMALL_BATCH} texts each in place of the token budget",
            f"sorted, {size} texts a batch; the budget makes {batches} batches",
        ),
        *(_price(base, t, "2 … and the guide's remedy: 2000 at once", f"sorted, {large} a batch") for t in remedy),
        monitoring_price(),
        _price(
            small, found["clearing"], "4 caches cleared all the time",
            f"the same batches of {size}, garbage collected after each",
        ),
        _price(
            base, found["padding"], "5 padding: texts not sorted by length",
            "the same token budget, as they come" + ("" if engine.pads else "; only attention pads in this engine"),
        ),
    ]  # fmt: skip


def _ways(engine: Engine, few: int, large: int) -> list[Way]:
    """One thing switched in each; the first is the base."""
    one, n = one_by_one(engine), copies_for(engine)
    ways = [
        arranged(
            engine, "base", "sorted, within the token budget", within_budget(engine, engine.token_budget), copies=n
        ),
        replace(one, run=lambda texts: one.run(texts[:few])),
        arranged(engine, "small", f"batches of {SMALL_BATCH}", by_count(SMALL_BATCH), copies=n),
        arranged(
            engine, "clearing", "caches cleared after every batch", by_count(SMALL_BATCH), after=clear_caches, copies=n
        ),
        arranged(engine, "padding", "batches as they come", as_they_come(engine.token_budget), copies=n),
    ]
    if large > SMALL_BATCH:  # with fewer texts it would be the row before it
        ways.append(arranged(engine, "large", f"batches of {large}", by_count(large), copies=n))
    return ways


def _price(base: Timing, other: Timing, label: str, how: str) -> Price:
    """How much longer `other` takes than `base`."""
    ratio = compare(other, base)  # how many times faster the base is
    return Price(other.way.key, label, ratio.median - 1, max(ratio.spread, NOISE_FLOOR), how)


def monitoring_price(check: Callable[[], float] = blocking_check) -> Price:
    """A check that stops the work every 2 s, worked out from what one check takes: a round is too short to be stopped."""
    taken = [check() for _ in range(CHECKS)]
    cost = median(taken) / CHECK_EVERY
    spread = (max(taken) - min(taken)) / 2 / CHECK_EVERY
    return Price(
        "monitoring", f"3 a blocking resource check every {CHECK_EVERY:g} s", cost, spread,
        f"one check takes {median(taken):.2f} s, divided by {CHECK_EVERY:g} s; this program looks from a thread of its own",
        measured=False,
    )  # fmt: skip


def time_shares(
    engine: Engine, texts_per_second: float, texts: Sequence[str], used: Sequence[int], around: Surroundings
) -> dict[str, float]:
    """Seconds per 1,000 chunks: tokenising, the model on text and on padding, and what runs beside it."""
    began = time.perf_counter()
    encode(engine, texts)
    total = len(texts) / texts_per_second
    tokenising = min(total, time.perf_counter() - began)
    padded = sum(used)
    if engine.pads:
        padded = padded_tokens(used, engine.token_budget, engine.texts_per_window, engine.start_cost)
    model = total - tokenising
    scale = 1000 / len(texts)
    shares = {
        "tokenising": tokenising * scale,
        "model: text": model * sum(used) / padded * scale,
        "model: padding": model * (padded - sum(used)) / padded * scale,
    }
    if around.chunks:
        shares["beside the model: reading, chunking, storing"] = around.chunk_seconds * 1000
    return shares
