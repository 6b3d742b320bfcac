"""Token-budget batches: texts sorted by token length, cut where the padded matrix would outgrow the budget.

The idea is that of text-embeddings-inference's queue (`max_batch_tokens`) and of infinity's length sort. Padding costs as
much as text: a batch counts as longest × count, not as the sum of its tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from vaultvec.datatypes import Batch, Encoded


def plan_batches(lengths: Sequence[int], token_budget: int, max_count: int | None = None) -> list[list[int]]:
    """Cut positions 0..n-1 into batches whose `longest * count` stays within `token_budget` (tokens).

    Longest first, so that the first batch is the largest and memory trouble shows at once. A text longer than the
    budget is a batch of its own. `max_count` limits the texts of a batch. Every position occurs exactly once.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    batches: list[list[int]] = []
    current: list[int] = []
    for i in order:
        width = lengths[current[0]] if current else lengths[i]
        full = current and ((len(current) + 1) * width > token_budget or len(current) == max_count)
        if full:
            batches.append(current)
            current = []
        current.append(i)
    if current:
        batches.append(current)
    return batches


def batch_items(items: Sequence[Encoded], token_budget: int, max_count: int | None = None) -> Iterator[Batch]:
    """`plan_batches` over encoded texts."""
    for plan in plan_batches([len(item) for item in items], token_budget, max_count):
        yield Batch(tuple(items[i] for i in plan))


def windows(items: Iterable[Encoded], size: int) -> Iterator[list[Encoded]]:
    """Gather `size` texts at a time: the stretch within which texts are sorted by length."""
    iterator = iter(items)
    while window := list(islice(iterator, size)):
        yield window


def split_batch(batch: Batch) -> tuple[Batch, Batch]:
    """Two halves of a batch that did not fit. Raises ValueError for a batch of one."""
    if len(batch.items) < 2:
        raise ValueError("a batch of one text cannot be halved")
    middle = len(batch.items) // 2
    return Batch(batch.items[:middle]), Batch(batch.items[middle:])
