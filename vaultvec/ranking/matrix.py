"""What a search keeps in memory: which chunk belongs to which note, and all vectors of a model in one array.

Read once, then brought up to date by (chunk id, content hash) pairs: after a commit of a writer only new texts are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vaultvec.datatypes import Vectors
from vaultvec.ledger import Ledger
from vaultvec.sqlite.queues import pages

Ids = NDArray[np.int64]
Keys = NDArray[np.uint64]
ONE_PASS = 4  # when more than one vector in so many is new, one pass over all of them is faster


@dataclass(frozen=True, slots=True)
class ChunkTable:
    """Every chunk, in the order of its id."""

    ids: Ids  # (n,)
    notes: Ids  # (n,) note ids
    slots: Ids  # (n,) position within the note
    siblings: Ids  # (n,) how many chunks its note has
    keys: Keys  # (n,) the first half of each content hash, enough to tell texts apart
    digests: list[bytes]  # (n,) content hashes

    @classmethod
    def empty(cls) -> ChunkTable:
        """No chunks."""
        none = np.empty(0, np.int64)
        return cls(none, none, none, none, np.empty(0, np.uint64), [])

    def positions(self, ids: Ids) -> tuple[Ids, NDArray[np.bool_]]:
        """(row of each chunk id, whether there is one)."""
        if not len(self.ids):
            return np.zeros(len(ids), np.int64), np.zeros(len(ids), np.bool_)
        rows = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return rows, self.ids[rows] == ids


@dataclass(frozen=True, slots=True)
class Matrix:
    """All vectors of one model; row i belongs to row `rows[i]` of the chunk table, ascending."""

    vectors: Vectors  # (m, dim)
    rows: Ids  # (m,)
    keys: Keys  # (m,)

    def positions(self, rows: Ids) -> tuple[Ids, NDArray[np.bool_]]:
        """(where the vector of each table row stands, whether there is one)."""
        if not len(self.rows):
            return np.zeros(len(rows), np.int64), np.zeros(len(rows), np.bool_)
        found = np.minimum(np.searchsorted(self.rows, rows), len(self.rows) - 1)
        return found, self.rows[found] == rows


def read_table(ledger: Ledger) -> ChunkTable:
    """The chunk table, from two covering indexes: no text is read."""
    places = np.array(ledger.db.execute("SELECT id, note, slot FROM chunks").fetchall(), np.int64).reshape(-1, 3)
    places = places[np.argsort(places[:, 0])]
    digests = [row[1] for row in sorted(ledger.db.execute("SELECT id, hash FROM chunks"))]
    keys = np.frombuffer(b"".join(digest[:8].ljust(8, b"\0") for digest in digests), np.uint64)
    _, note, counts = np.unique(places[:, 1], return_inverse=True, return_counts=True)
    siblings = counts.astype(np.int64)[note.reshape(-1)]
    return ChunkTable(places[:, 0], places[:, 1], places[:, 2], siblings, keys, digests)


def read_matrix(ledger: Ledger, model: int, dim: int, table: ChunkTable, old: Matrix | None = None) -> Matrix:
    """Every vector of one model, equal texts sharing one read. What `old` holds already is copied, not read again."""
    unique, first, where = np.unique(table.keys, return_index=True, return_inverse=True)  # (u,), (u,), (n,)
    known = old.vectors if old is not None else np.empty((0, dim), np.float32)
    place = _places(unique, old)
    missing = np.flatnonzero(place < 0)
    fresh, found = _read_vectors(ledger, model, dim, [table.digests[first[i]] for i in missing], len(unique))
    place[missing[found]] = len(known) + np.arange(len(found))
    source = place[where.reshape(-1)]
    rows = np.flatnonzero(source >= 0)
    picked = source[rows]
    if old is not None and not len(found) and np.array_equal(picked, np.arange(len(known))):
        return Matrix(known, rows, old.keys)
    vectors = np.empty((len(rows), dim), np.float32)
    is_old = picked < len(known)
    vectors[is_old] = known[picked[is_old]]
    vectors[~is_old] = fresh[picked[~is_old] - len(known)]
    return Matrix(vectors, rows, table.keys[rows])


def _places(unique: Keys, old: Matrix | None) -> Ids:
    """Where `old` holds each text, -1 where it does not."""
    place = np.full(len(unique), -1, np.int64)
    if old is not None and len(old.keys):
        held, first = np.unique(old.keys, return_index=True)
        slot = np.minimum(np.searchsorted(held, unique), len(held) - 1)
        same = held[slot] == unique
        place[same] = first[slot[same]]
    return place


def _read_vectors(
    ledger: Ledger, model: int, dim: int, wanted: Sequence[bytes], total: int
) -> tuple[Vectors, NDArray[np.int64]]:
    """(vectors (k, dim), which of `wanted` they are). Vectors of a damaged length are left out."""
    vectors = np.empty((len(wanted), dim), np.float32)
    found: list[int] = []
    number = {digest: i for i, digest in enumerate(wanted)}
    if len(wanted) * ONE_PASS > total:
        cursors = [ledger.db.execute("SELECT hash, vector FROM vectors WHERE +model = ?", (model,))]  # + : as they lie
    else:
        cursors = [
            ledger.db.execute(
                f"SELECT hash, vector FROM vectors WHERE model = ? AND hash IN ({','.join('?' * len(page))})",
                (model, *page),
            )
            for page in pages(wanted)
        ]
    for cursor in cursors:
        while rows := cursor.fetchmany(2000):
            good = [row for row in rows if row[0] in number and len(row[1]) == 4 * dim]
            joined = b"".join(blob for _, blob in good)
            vectors[len(found) : len(found) + len(good)] = np.frombuffer(joined, np.float32).reshape(-1, dim)
            found += [number[digest] for digest, _ in good]
    return vectors[: len(found)], np.array(found, np.int64)


def read_vectors_of(ledger: Ledger, model: int, dim: int, ids: Sequence[int]) -> dict[int, Vectors]:
    """The vectors (dim,) of a few chunks, by chunk id."""
    found: dict[int, Vectors] = {}
    for page in pages(ids):
        rows = ledger.db.execute(
            "SELECT chunks.id, vector FROM chunks CROSS JOIN vectors ON model = ? AND vectors.hash = chunks.hash "
            f"WHERE chunks.id IN ({','.join('?' * len(page))})", (model, *page),
        )  # fmt: skip
        found.update((int(i), np.frombuffer(blob, np.float32)) for i, blob in rows if len(blob) == 4 * dim)
    return found


def sample_vectors(ledger: Ledger, model: int, dim: int, n: int) -> Vectors:
    """Some vectors of a model (at most `n`, dim): those of the smallest content hashes, which is as good as chance."""
    rows = ledger.db.execute("SELECT vector FROM vectors WHERE model = ? ORDER BY hash LIMIT ?", (model, n))
    good = [row[0] for row in rows if len(row[0]) == 4 * dim]
    return np.frombuffer(b"".join(good), np.float32).reshape(-1, dim)
