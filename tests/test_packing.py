"""Packing: every token stands once, where attention looks for it; what fills a batch up is nobody's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultvec.engines.packing import QUERY_STEP, QUERY_TOKENS, TOKENS_STEP, WIDTH_STEP, packed_inputs, token_positions

PAD = 0
ROWS = st.lists(st.lists(st.integers(5, 99), max_size=40), min_size=1, max_size=12)


@given(ROWS)
def test_every_token_is_found_again_by_its_text_and_by_its_row(texts: list[list[int]]) -> None:
    rows = [np.array(text, dtype=np.int32) for text in texts]
    made = packed_inputs(rows, PAD, 0)
    total = sum(map(len, texts))
    mask = made["attention_mask"].astype(bool)
    found = made["input_ids"][made["slots"]]
    assert [row[real].tolist() for row, real in zip(found, mask, strict=True)] == texts
    # Out of the (n, t) places and back again, each token is where it was.
    spread = made["input_ids"][made["slots"]].reshape(-1)[made["places"][:total]]
    assert spread.tolist() == made["input_ids"][:total].tolist()
    assert made["position_ids"][:total].tolist() == [i for text in texts for i in range(len(text))]


@given(ROWS)
def test_sizes_are_rounded_up_and_never_zero(texts: list[list[int]]) -> None:
    made = packed_inputs([np.array(text, dtype=np.int32) for text in texts], PAD, 0)
    total, longest = sum(map(len, texts)), max(map(len, texts))
    (size,), (count, width) = made["input_ids"].shape, made["slots"].shape
    step = TOKENS_STEP if total > QUERY_TOKENS else QUERY_STEP
    assert (size % step, width % WIDTH_STEP, count) == (0, 0, len(texts))
    assert max(total, 1) <= size < total + step + (total == 0)
    assert max(longest, 1) <= width < longest + WIDTH_STEP + (longest == 0)
    assert {name: array.dtype for name, array in made.items()} == dict.fromkeys(made, np.dtype(np.int32))
    assert set(made["input_ids"][total:].tolist()) <= {PAD}


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([7, 8, 9, 7, 8], [2, 3, 4, 2, 3]),  # two texts, of three tokens and of two
        ([7, 1, 9, 1, 8], [2, 1, 3, 1, 2]),  # the padding token spelled out has its own row and is not counted
    ],
)
def test_positions_of_a_roberta(ids: list[int], expected: list[int]) -> None:
    offsets = np.array([0, 3, 5], dtype=np.int32)
    assert token_positions(np.array(ids, dtype=np.int32), offsets, 2).tolist() == expected
