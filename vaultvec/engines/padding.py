"""Token ids of unequal length as one rectangle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vaultvec.datatypes import TokenIds


def padded_inputs(rows: Sequence[TokenIds], pad_id: int) -> dict[str, TokenIds]:
    """input_ids, attention_mask, token_type_ids (n, longest): the ids, 1 where a token stands, zeros."""
    shape = (len(rows), max((len(row) for row in rows), default=0))
    ids = np.full(shape, pad_id, dtype=np.int32)
    mask = np.zeros(shape, dtype=np.int32)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
        mask[i, : len(row)] = 1
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros(shape, dtype=np.int32)}
