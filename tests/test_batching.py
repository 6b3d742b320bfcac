"""Token-budget batches: nothing lost, nothing twice, within the budget."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultvec.batching import batch_items, plan_batches, split_batch, windows
from vaultvec.datatypes import Encoded

lengths = st.lists(st.integers(0, 300), max_size=60)


@given(lengths, st.integers(1, 1000))
def test_every_position_occurs_once_and_batches_keep_the_budget(sizes: list[int], budget: int) -> None:
    batches = plan_batches(sizes, budget)
    assert sorted(i for batch in batches for i in batch) == list(range(len(sizes)))
    for batch in batches:
        assert len(batch) == 1 or max(sizes[i] for i in batch) * len(batch) <= budget


@given(lengths, st.integers(1, 1000))
def test_texts_go_longest_first_and_batches_are_full(sizes: list[int], budget: int) -> None:
    batches = plan_batches(sizes, budget)
    assert [sizes[i] for batch in batches for i in batch] == sorted(sizes, reverse=True)
    for batch in batches[:-1]:
        assert (len(batch) + 1) * sizes[batch[0]] > budget


@given(lengths, st.integers(1, 1000), st.integers(0, 500))
def test_cheapest_cuts_keep_every_promise_and_cost_no_more(sizes: list[int], budget: int, start_cost: int) -> None:
    def cost(batches: list[list[int]]) -> int:
        return sum(max(sizes[i] for i in batch) * len(batch) + start_cost for batch in batches)

    cheap = plan_batches(sizes, budget, start_cost=start_cost)
    assert [sizes[i] for batch in cheap for i in batch] == sorted(sizes, reverse=True)
    assert sorted(i for batch in cheap for i in batch) == list(range(len(sizes)))
    for batch in cheap:
        assert len(batch) == 1 or max(sizes[i] for i in batch) * len(batch) <= budget
    assert cost(cheap) <= cost(plan_batches(sizes, budget))


def test_cheapest_cuts_put_equal_lengths_together() -> None:
    sizes = [100, 20, 100, 20, 20]
    assert plan_batches(sizes, 500) == [[0, 2, 1, 3, 4]]
    assert plan_batches(sizes, 500, start_cost=64) == [[0, 2], [1, 3, 4]]


def test_no_texts_give_no_batches() -> None:
    assert plan_batches([], 100) == []


def test_a_text_longer_than_the_budget_is_alone() -> None:
    assert plan_batches([500, 3, 4], 10) == [[0], [2, 1]]


def test_equal_lengths_keep_their_order() -> None:
    assert plan_batches([5, 5, 5, 5], 10) == [[0, 1], [2, 3]]


def test_batches_carry_the_items_and_count_their_tokens() -> None:
    items = _items(2, 9, 4)
    first, second = batch_items(items, 10)
    assert [item.index for item in first.items] == [1]
    assert [item.index for item in second.items] == [2, 0]
    assert (second.n_tokens, second.max_tokens) == (6, 4)


def test_windows_are_pulled_lazily() -> None:
    pulled = []

    def source() -> object:
        for item in _items(1, 1, 1, 1, 1):
            pulled.append(item.index)
            yield item

    iterator = windows(source(), 2)  # type: ignore[arg-type]
    assert [item.index for item in next(iterator)] == [0, 1]
    assert pulled == [0, 1]
    assert [len(window) for window in iterator] == [2, 1]


def test_a_batch_is_halved_in_order() -> None:
    (batch,) = batch_items(_items(5, 4, 3), 100)
    first, second = split_batch(batch)
    assert [item.index for item in first.items + second.items] == [0, 1, 2]
    with pytest.raises(ValueError, match="one text"):
        split_batch(first)


def _items(*sizes: int) -> list[Encoded]:
    return [Encoded(i, "x" * size, np.zeros(size, dtype=np.int32)) for i, size in enumerate(sizes)]
