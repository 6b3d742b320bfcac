"""Which model answers to a name, told by its vector of one fixed text: most servers name no version of their weights.

A vector close to one seen before is the same model's: other rounding, another address or half precision change nothing.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

import numpy as np

from vaultvec.datatypes import Vectors
from vaultvec.models import ModelSpec

SAME_COSINE = 0.999  # two vectors of one text by one model agree at least this well


def revision_of(model: ModelSpec, vector: Vectors, folder: Path | None) -> str:
    """Name of the model that made this unit vector (dim,); the vectors seen so far are kept in a file in `folder`."""
    if folder is None:
        return _name(vector)
    path = folder / f"{model.slug}-{len(vector)}.npy"
    seen = _read(path, len(vector))
    alike = seen @ vector
    if len(alike) and alike.max() >= SAME_COSINE:
        return _name(seen[int(alike.argmax())])
    _write(path, np.concatenate([seen, vector[None]]))
    return _name(vector)


def _name(vector: Vectors) -> str:
    """Rounded to hundredths, so that a lost file mostly costs nothing."""
    return hashlib.sha256(np.round(vector * 100).astype("<i2").tobytes()).hexdigest()[:12]


def _read(path: Path, dim: int) -> Vectors:
    try:
        rows = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        rows = None  # a broken file is a missing one
    if rows is None or rows.ndim != 2 or rows.shape[1] != dim:
        return np.zeros((0, dim), dtype=np.float32)
    return np.asarray(rows, dtype=np.float32)


def _write(path: Path, rows: Vectors) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            np.save(file, rows)
        temporary.replace(path)
    except OSError:  # the name alone must do: a folder that cannot be written is told elsewhere
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
