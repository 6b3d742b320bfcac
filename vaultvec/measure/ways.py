"""The ways of embedding that the benchmark compares: the guide's, ours, and ours with one thing switched back."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import psutil

from vaultvec.batching import batch_items, plan_batches
from vaultvec.datatypes import Batch, BatchResult, Encoded, Vectors
from vaultvec.engines.base import Engine
from vaultvec.errors import EngineError
from vaultvec.measure.rounds import Way

GUIDE_BATCH = 2000
SMALL_BATCH = 32
MOST_COPIES = 8
# Bytes a padded token takes in a MiniLM while a layer runs: 1,536 + 4 x 384 floats, and 12 heads x 256 scores.
BYTES_PER_PADDED_TOKEN = 24_576

Arrange = Callable[[Sequence[Encoded]], Iterable[Batch]]


def encode(engine: Engine, texts: Sequence[str]) -> list[Encoded]:
    """Texts with the model's prefix, tokenised and cut as the engine itself would."""
    prefixed = [engine.model.document_prefix + text for text in texts]
    rows = engine.tokenizer.encode(prefixed, engine.model.max_tokens or None)
    return [Encoded(i, text, row) for i, (text, row) in enumerate(zip(prefixed, rows, strict=True))]


def free_bytes(device: str) -> int:
    """Memory that is free where the model runs."""
    torch: Any = sys.modules.get("torch")
    if device.startswith("cuda") and torch is not None:
        return int(torch.cuda.mem_get_info()[0])
    return int(psutil.virtual_memory().available)


def safe_count(width: int, device: str = "cpu", wanted: int = GUIDE_BATCH) -> int:
    """Texts of `width` tokens whose padded matrix fits into half of the free memory, at most `wanted`."""
    return max(1, min(wanted, free_bytes(device) // 2 // (BYTES_PER_PADDED_TOKEN * max(width, 1))))


def copies_for(*engines: Engine) -> int:
    """How often each batch must run so that no stream of any of these engines is idle; a GPU needs it not."""
    return min(MOST_COPIES, max(engine.streams if engine.device == "cpu" else 1 for engine in engines))


def fast(
    engine: Engine, key: str, label: str, *, window: int | None = None, budget: int | None = None, copies: int = 1
) -> Way:
    """The engine's own path: sorted within `window` texts, cut at `budget` tokens; None = as the engine has it."""

    def run(texts: Sequence[str]) -> Vectors:
        kept = engine.window, engine.token_budget
        engine.window, engine.token_budget = window or engine.window, budget or engine.token_budget
        try:
            return _embed(engine, texts, engine.plan, copies)
        finally:
            engine.window, engine.token_budget = kept

    return Way(key, label, run, copies=copies)


def repeated(way: Way, times: int) -> Way:
    """The same way on the texts taken `times` over, where one pass would be over in a blink."""
    if times == 1:
        return way
    run = way.run
    return replace(way, run=lambda texts: run(list(texts) * times)[: len(texts)], copies=way.copies * times)


def one_by_one(engine: Engine, key: str = "engine_one", label: str = "one call per chunk") -> Way:
    """The same engine, called once for each text."""
    return Way(key, label, lambda texts: np.concatenate([engine.embed_documents([text]) for text in texts]))


def arranged(
    engine: Engine,
    key: str,
    label: str,
    arrange: Arrange,
    *,
    after: Callable[[], object] | None = None,
    copies: int = 1,
) -> Way:
    """The same engine on other batches; `after` runs when a batch is done."""
    return Way(key, label, lambda texts: _embed(engine, texts, arrange, copies, after), copies=copies)


def _embed(
    engine: Engine, texts: Sequence[str], arrange: Arrange, copies: int, after: Callable[[], object] | None = None
) -> Vectors:
    items = encode(engine, texts)
    out = np.zeros((len(items), engine.dim), dtype=np.float32)
    batches = (batch for batch in arrange(items) for _ in range(copies))
    for result in engine.embed_batches(batches):
        _store(result, out)
        if after is not None:
            after()
    return out


def _store(result: BatchResult, out: Vectors) -> None:
    if result.failed:
        raise EngineError(f"a chunk of the benchmark could not be embedded: {result.failed[0][1]}")
    out[[item.index for item in result.batch.items]] = result.vectors


def by_count(count: int, *, sort: bool = True) -> Arrange:
    """Batches of `count` texts whatever their length, sorted by length first or as they come."""

    def arrange(items: Sequence[Encoded]) -> Iterator[Batch]:
        rows = sorted(items, key=len, reverse=True) if sort else list(items)
        for start in range(0, len(rows), count):
            yield Batch(tuple(sorted(rows[start : start + count], key=len, reverse=True)))

    return arrange


def as_they_come(budget: int) -> Arrange:
    """The token budget kept, the sorting left out: what padding costs. The texts come at random, by a fixed seed."""

    def arrange(items: Sequence[Encoded]) -> Iterator[Batch]:
        current: list[Encoded] = []
        for item in (items[i] for i in np.random.default_rng(0).permutation(len(items))):
            widest = max([len(item), *(len(row) for row in current)])
            if current and widest * (len(current) + 1) > budget:
                yield Batch(tuple(sorted(current, key=len, reverse=True)))
                current = []
            current.append(item)
        if current:
            yield Batch(tuple(sorted(current, key=len, reverse=True)))

    return arrange


def within_budget(engine: Engine, budget: int) -> Arrange:
    """What the engine itself does with one window, at this budget."""
    return lambda items: batch_items(items, budget, start_cost=engine.start_cost)


def clear_caches() -> None:
    """What the slow tool did between batches: collect garbage, give the GPU's cache back."""
    gc.collect()
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def reference_way(reference: Any, prefix: str, batch: int) -> Way:
    """sentence-transformers in batches of so many texts; 1: one call for each."""

    def run(texts: Sequence[str]) -> Vectors:
        rows = [prefix + text for text in texts]
        # prompt: our prefix is in place, the model's default prompt must not come on top
        options: dict[str, Any] = {
            "prompt": "", "normalize_embeddings": True, "convert_to_numpy": True, "show_progress_bar": False,
        }  # fmt: skip
        if batch > 1:
            return np.asarray(reference.encode(rows, batch_size=batch, **options), dtype=np.float32)
        return np.concatenate([np.asarray(reference.encode([row], **options), np.float32) for row in rows])

    return Way(str(batch), f"batches of {batch}", run, "sentence-transformers")


def engine_way(engine: Engine, batch: int) -> Way:
    """The engine in padded batches of so many texts, as they come, for a model that sentence-transformers does not run."""
    if batch == 1:
        return replace(one_by_one(engine, "1"), note="the same engine")
    return replace(
        arranged(engine, str(batch), f"batches of {batch}", by_count(batch, sort=False)), note="the same engine"
    )


def slow_ways(batched: Callable[[int], Way], literal: int) -> list[Way]:
    """The guide's three: one call per chunk, batches of 32, its batch of 2000, which may truly hold `literal` texts."""
    one, small, large = batched(1), batched(SMALL_BATCH), batched(max(2, literal))
    return [
        replace(one, key="one", label="one call per chunk"),
        replace(small, key="batch32"),
        replace(large, key="batch2000", label="the guide's batch of 2000"),
    ]


def literal_note(safe: int, sample: int) -> str:
    """How large the batch of 2000 truly was, where memory holds `safe` texts and there were `sample`."""
    size = min(safe, sample)
    if size >= GUIDE_BATCH:
        return "2000 texts at once"
    why = "all that were timed" if size >= sample else "what memory safely holds"
    return f"{size} texts at once, {why}"


def padded_tokens(lengths: Sequence[int], budget: int, window: int, start_cost: int | None = None) -> int:
    """Tokens that go through the model, padding included."""
    total = 0
    for start in range(0, len(lengths), window):
        part = list(lengths[start : start + window])
        total += sum(part[plan[0]] * len(plan) for plan in plan_batches(part, budget, start_cost=start_cost))
    return total
