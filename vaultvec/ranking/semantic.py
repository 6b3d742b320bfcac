"""The semantic half: the models of an index, their vectors in memory or in Chroma, and the chunks nearest to a query."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vaultvec.choice import knows
from vaultvec.chroma_folder import damage
from vaultvec.datatypes import Vectors
from vaultvec.engines.base import Engine
from vaultvec.ledger import Ledger
from vaultvec.lookup import chunk_numbers
from vaultvec.models import MULTILINGUAL, ModelSpec
from vaultvec.ranking.fusion import Scores
from vaultvec.ranking.matrix import ChunkTable, Ids, Matrix, read_matrix, read_vectors_of, sample_vectors
from vaultvec.store import ChromaStore, for_reading

# Chunks up to which every vector is compared. At 100,000 of 384 dims on two busy cores a warm hybrid query takes 36 ms that way
# and about 100 ms through Chroma (benchmarks/search_latency.py), so HNSW pays late; at 200,000 the vectors take 300 MB.
EXACT_LIMIT = 200_000
SAMPLE_VECTORS = 1000  # that tell what an unrelated text scores, where not all are looked at


@dataclass(frozen=True, slots=True)
class ModelSlot:
    """A model of the index: its row in the ledger, what it is, and how to load its engine."""

    row: int
    spec: ModelSpec
    dim: int
    load: Callable[[], Engine]

    def reads(self, language: str) -> bool:
        """Whether the model knows a language; one of which nothing is known is believed to."""
        return knows(self.spec, language)

    @property
    def breadth(self) -> int:
        """How many languages it shares its attention between."""
        return 1000 if MULTILINGUAL in self.spec.languages else len(self.spec.languages)


@dataclass(frozen=True, slots=True)
class Nearest:
    """What one model says of a query: the best rows of the chunk table, and on request the cosine of any row."""

    rows: Ids  # best first
    cosines: Callable[[Ids], Scores]  # nan where a row has no vector of this model
    median: float  # cosine of an unrelated chunk


class SemanticIndex:
    """The models of one index, loaded when first asked and kept."""

    def __init__(self, ledger: Ledger, models: Sequence[ModelSlot], backend: str, chroma: Path | None) -> None:
        self.models = list(models)
        self._ledger = ledger
        self._backend = backend
        self._chroma = chroma
        self._table = ChunkTable.empty()
        self._matrices: dict[int, Matrix] = {}
        self._samples: dict[int, Vectors] = {}
        self._engines: dict[int, Engine] = {}
        self._stores: dict[int, ChromaStore] = {}
        self._beside = ThreadPoolExecutor(1, "query")

    def close(self) -> None:
        """Release engines and stores."""
        interrupted = isinstance(sys.exc_info()[1], KeyboardInterrupt)
        self._beside.shutdown(wait=not interrupted, cancel_futures=True)  # it may be loading a model, seconds long
        for engine in self._engines.values():
            engine.close()
        for store in self._stores.values():
            store.close()

    def refresh(self, table: ChunkTable) -> None:
        """Take a newer chunk table; of the vectors in memory only new ones are read."""
        self._table = table
        self._samples.clear()
        for store in self._stores.values():  # Chroma does not see what another process has written since it was opened
            store.close()
        self._stores.clear()
        for slot in self.models:
            if slot.row in self._matrices:
                old = self._matrices[slot.row]
                self._matrices[slot.row] = read_matrix(self._ledger, slot.row, slot.dim, table, old)

    def readers(self, language: str) -> list[ModelSlot]:
        """The models that know a language, the one made for it first."""
        return [slot for slot in self.by_breadth() if slot.reads(language)]

    def by_breadth(self) -> list[ModelSlot]:
        """The models, the one of fewest languages first."""
        return sorted(self.models, key=lambda slot: slot.breadth)

    def embed(self, slot: ModelSlot, text: str) -> Future[Vectors]:
        """The vector (dim,) of a query, made beside the caller: its words are looked for meanwhile."""
        return self._beside.submit(self._embed, slot, text)

    def _embed(self, slot: ModelSlot, text: str) -> Vectors:
        if slot.row not in self._engines:
            self._engines[slot.row] = slot.load()
        return self._engines[slot.row].embed_query(text)

    def matrix(self, slot: ModelSlot) -> Matrix:
        """All vectors of a model."""
        if slot.row not in self._matrices:
            self._matrices[slot.row] = read_matrix(self._ledger, slot.row, slot.dim, self._table)
        return self._matrices[slot.row]

    def nearest(self, slot: ModelSlot, vector: Future[Vectors], usable: NDArray[np.bool_] | None, k: int) -> Nearest:
        """The `k` rows nearest to a query vector among the usable ones (None: all)."""
        if self._use_chroma(usable is not None) and (store := self._store(slot)):
            return self._in_chroma(store, slot, vector.result(), k)
        matrix = self.matrix(slot)
        scores: Scores = matrix.vectors @ vector.result()

        def cosines(rows: Ids) -> Scores:
            places, known = matrix.positions(rows)
            found = np.full(len(rows), np.nan, np.float32)
            found[known] = scores[places[known]]
            return found

        masked = scores if usable is None else np.where(usable[matrix.rows], scores, np.float32(-2.0))
        top = _top(masked, k)
        return Nearest(matrix.rows[top[masked[top] > -2.0]], cosines, float(np.median(scores)) if len(scores) else 0.0)

    def _use_chroma(self, restricted: bool) -> bool:
        """HNSW for large indexes without restriction: a filter would leave too few of its candidates."""
        if self._backend == "exact" or self._chroma is None or restricted:
            return False
        return self._backend == "chroma" or len(self._table.ids) > EXACT_LIMIT

    def _in_chroma(self, store: ChromaStore, slot: ModelSlot, vector: Vectors, k: int) -> Nearest:
        names = store.query(vector, k)
        numbers = chunk_numbers(self._ledger, [name for name, _ in names])
        top, found = self._table.positions(np.array([numbers.get(name, -1) for name, _ in names], np.int64))
        if slot.row not in self._samples:
            self._samples[slot.row] = sample_vectors(self._ledger, slot.row, slot.dim, SAMPLE_VECTORS)
        sample = self._samples[slot.row]

        def cosines(rows: Ids) -> Scores:
            ids = self._table.ids[rows].tolist()
            vectors = read_vectors_of(self._ledger, slot.row, slot.dim, ids)
            return np.array([vectors[i] @ vector if i in vectors else np.nan for i in ids], np.float32)

        return Nearest(top[found], cosines, float(np.median(sample @ vector)) if len(sample) else 0.0)

    def _store(self, slot: ModelSlot) -> ChromaStore | None:
        """Chroma's collection; None where there is none to read or it is damaged, and every vector is compared instead."""
        if slot.row not in self._stores:
            folder = self._chroma or Path()
            if damage(self._ledger, folder):
                return None
            fingerprint = next(m[1] for m in self._ledger.models() if m[0] == slot.row)
            opened = for_reading(folder, fingerprint, slot.spec.name, slot.dim)
            if opened is None:
                return None
            self._stores[slot.row] = opened
        return self._stores[slot.row]


def _top(scores: Scores, k: int) -> Ids:
    """Positions of the `k` highest scores, best first."""
    k = min(k, len(scores))
    if k == 0:
        return np.empty(0, dtype=np.int64)
    found = np.argpartition(-scores, k - 1)[:k]
    ordered: Ids = found[np.argsort(-scores[found], kind="stable")]
    return ordered
