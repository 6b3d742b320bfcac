"""Token-budget batches: texts sorted by token length, cut where the padded matrix would outgrow the budget.

The idea is that of text-embeddings-inference's queue (`max_batch_tokens`) and of infinity's length sort. A batch counts as
longest x count, not as the sum of its tokens: so much goes through a model that pads, and through attention in any.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise
from math import inf

from vaultvec.datatypes import Batch, Encoded


def plan_batches(lengths: Sequence[int], token_budget: int, *, start_cost: int | None = None) -> list[list[int]]:
    """Cut positions 0..n-1 into batches whose `longest * count` stays within `token_budget` (tokens).

    Longest first, so that the first batch is the largest and memory trouble shows at once. A text longer than the
    budget is a batch of its own. Every position occurs exactly once.
    `start_cost` is what starting a batch costs, in tokens: then the cuts are those with the least padding and starts in all;
    None fills each batch.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)  # equal ones stay in their order
    sizes = [lengths[i] for i in order]
    cuts = _full(sizes, token_budget)
    if start_cost is not None:
        cuts = _cheapest(sizes, token_budget, start_cost)
    return [order[start:end] for start, end in pairwise(cuts)]


def _full(sizes: Sequence[int], token_budget: int) -> list[int]:
    """Where batches begin (and the end) when each takes as many texts as fit. `sizes` descend."""
    cuts = [0]
    for i in range(1, len(sizes)):
        if (i - cuts[-1] + 1) * sizes[cuts[-1]] > token_budget:
            cuts.append(i)
    return [*cuts, len(sizes)] if sizes else [0]


def _cheapest(sizes: Sequence[int], token_budget: int, start_cost: int) -> list[int]:
    """The cuts of least cost, by dynamic programming: a batch costs longest * count + start_cost. `sizes` descend."""
    best = [0.0] + [inf] * len(sizes)  # cost of the first i texts
    last = [0] * (len(sizes) + 1)  # where the last batch of the first i texts begins
    for start in range(len(sizes)):
        width, base = sizes[start], best[start] + start_cost
        most = max(1, token_budget // width) if width else len(sizes)
        for end in range(start + 1, min(len(sizes), start + most) + 1):
            cost = base + width * (end - start)
            if cost < best[end]:
                best[end], last[end] = cost, start
    cuts = [len(sizes)]
    while cuts[-1]:
        cuts.append(last[cuts[-1]])
    return cuts[::-1]


def batch_items(items: Sequence[Encoded], token_budget: int, *, start_cost: int | None = None) -> Iterator[Batch]:
    """`plan_batches` over encoded texts."""
    for plan in plan_batches([len(item) for item in items], token_budget, start_cost=start_cost):
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
