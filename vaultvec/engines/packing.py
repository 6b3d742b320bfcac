"""Texts of unequal length as one row of tokens without padding, and where attention finds each text in it.

Only attention needs to know where a text begins, so that all else runs over the tokens as they are; the idea is that of
ByteTransformer (Zhai et al. 2022, arXiv:2210.03052).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vaultvec.datatypes import TokenIds

# OpenVINO makes new kernels for every shape that it has not seen lately, so that sizes are rounded up to multiples of these.
# On 2 cores with bf16 and VNNI, 512 chunks of 84 tokens and 512 of 143: int8 1.05 times as fast as unrounded, bf16 no slower.
# All in all, packed against padded: 1.07 and 1.05 times as fast in bf16, 1.02 in fp32.
TOKENS_STEP = 32
WIDTH_STEP = 16
# A query is so short that 32 tokens in place of 8 would be four times the work: a large model would take longer for it.
QUERY_TOKENS = 64
QUERY_STEP = 8


def packed_inputs(rows: Sequence[TokenIds], pad_id: int, first_position: int) -> dict[str, TokenIds]:
    """What a packed graph (bert_graph.py) takes, for n texts of m tokens in all, the longest of t; all int32.

    input_ids, position_ids (m,); attention_mask (n, t): 1 where a token stands; slots (n, t): the token's row among the m;
    places (m,): its place among the n * t. m and t are rounded up; nothing is made of the tokens that fill them.
    """
    lengths = np.fromiter((len(row) for row in rows), dtype=np.int32, count=len(rows))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    total, width = int(offsets[-1]), int(lengths.max(initial=0))
    size = _round_up(total, TOKENS_STEP if total > QUERY_TOKENS else QUERY_STEP)
    column = np.arange(_round_up(width, WIDTH_STEP), dtype=np.int32)
    mask = column < lengths[:, None]
    ids, positions, places = np.full(size, pad_id, np.int32), np.zeros(size, np.int32), np.zeros(size, np.int32)
    if total:
        np.concatenate(rows, out=ids[:total], casting="same_kind")
        positions[:total] = token_positions(ids[:total], offsets, first_position)
        places[:total] = np.flatnonzero(mask)
    return {
        "input_ids": ids,
        "position_ids": positions,
        "attention_mask": mask.astype(np.int32),
        "slots": np.where(mask, offsets[:-1, None] + column, 0).astype(np.int32),
        "places": places,
    }


def token_positions(ids: TokenIds, offsets: TokenIds, first: int) -> TokenIds:
    """Row of the position table for each token; those before `first` are kept for padding.

    RoBERTa's padding token is not counted, not even one that a note spells out ("<pad>"): it has the row of its id.
    """
    lengths = np.diff(offsets)
    positions: TokenIds = np.arange(len(ids), dtype=np.int32) - np.repeat(offsets[:-1] - np.int32(first), lengths)
    if first and (padding := ids == first - 1).any():
        before = np.concatenate([[0], np.cumsum(padding)])  # padding tokens before each token of the batch
        skipped = before[:-1] - np.repeat(before[offsets[:-1]], lengths)
        positions = np.where(padding, first - 1, positions - skipped).astype(np.int32)
    return positions


def _round_up(number: int, step: int) -> int:
    """To the next multiple of `step`, at least one of them."""
    return max(1, -(-number // step)) * step
