"""The ledger's two queues: texts that wait for a model, and rows that wait for Chroma."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import numpy as np

from vaultvec.datatypes import Encoded, Vectors, chunk_id
from vaultvec.sqlite.ledger_file import LedgerFile

PAGE = 500  # ids of one SQL statement; SQLite allows 32,766 variables, some builds 999
T = TypeVar("T")


class Queues(LedgerFile):
    """`pending` holds texts with their token ids; `outbox` names the chunks whose row in Chroma must be written or
    removed.

    The plus in `+model` keeps SQLite in the order of the ids: by the index of (model, hash) it would read and sort the
    whole queue for each page, 270 ms a page when 160,000 texts wait.
    """

    # ── the queue of texts ───────────────────────────────────────────────────────────────────────────────────────────

    def has_pending(self, model: int | None = None) -> bool:
        """Whether any text waits for this model, or for any."""
        clause, values = _of(model)  # by the index: whatever waits for another model is not looked at
        return self.db.execute(f"SELECT 1 FROM pending{clause} LIMIT 1", values).fetchone() is not None

    def pending_size(self, model: int | None = None) -> int:
        """Texts that wait for this model, or for any."""
        clause, values = _of(model)
        return int(self.db.execute(f"SELECT count(*) FROM pending{clause}", values).fetchone()[0])

    def take_pending(self, model: int, after: int, limit: int) -> list[tuple[int, bytes, Encoded]]:
        """The next texts to embed, oldest request first: (queue id, content hash, text with token ids)."""
        rows = self.db.execute(
            "SELECT p.id, p.hash, p.token_ids, (SELECT text FROM chunks c WHERE c.hash = p.hash LIMIT 1) FROM pending "
            "p WHERE +model = ? AND p.id > ? AND EXISTS (SELECT 1 FROM chunks c WHERE c.hash = p.hash) ORDER BY p.id "
            "LIMIT ?",
            (model, after, limit),
        )
        return [
            (queue_id, digest, Encoded(queue_id, text, np.frombuffer(ids, dtype=np.int32)))
            for queue_id, digest, ids, text in rows
        ]

    def save_vectors(self, model: int, hashes: Sequence[bytes], vectors: Vectors) -> int:
        """Store vectors, take their texts off the queue, and note which rows Chroma must get. Returns chunks served."""
        served = 0
        with self.transaction():
            self.db.executemany(
                "INSERT OR REPLACE INTO vectors VALUES(?,?,?)",
                [(model, digest, row.tobytes()) for digest, row in zip(hashes, vectors, strict=True)],
            )
            self.db.executemany(
                "DELETE FROM pending WHERE model = ? AND hash = ?", [(model, digest) for digest in hashes]
            )
            for page in pages(hashes):
                rows = self.db.execute(
                    "SELECT path, slot FROM chunks JOIN notes ON notes.id = note "
                    f"WHERE hash IN ({','.join('?' * len(page))})", page,
                ).fetchall()  # fmt: skip
                self._to_outbox(model, [chunk_id(*row) for row in rows])
                served += len(rows)
        return served

    def mark_failed(self, model: int, digest: bytes, reason: str) -> None:
        """A text the engine could not embed; it is tried again by the next run."""
        self.db.execute("UPDATE pending SET failure = ? WHERE model = ? AND hash = ?", (reason, model, digest))

    def failures(self) -> list[tuple[str, str]]:
        """(path, reason) for every note of which some text could not be embedded."""
        return list(
            self.db.execute(
                "SELECT DISTINCT path, failure FROM pending JOIN chunks USING(hash) JOIN notes ON notes.id = note "
                "WHERE failure IS NOT NULL ORDER BY path"
            )
        )

    # ── the queue of rows for Chroma ─────────────────────────────────────────────────────────────────────────────────

    def outbox_size(self, model: int | None = None) -> int:
        """Rows of Chroma that must still be written or removed."""
        clause, values = _of(model)
        return int(self.db.execute(f"SELECT count(*) FROM outbox{clause}", values).fetchone()[0])

    def take_outbox(self, model: int, limit: int) -> list[tuple[int, str]]:
        """(outbox id, chunk id), oldest first."""
        rows = self.db.execute("SELECT id, chunk FROM outbox WHERE +model = ? ORDER BY id LIMIT ?", (model, limit))
        return [(int(row[0]), str(row[1])) for row in rows]

    def clear_outbox(self, ids: Sequence[int]) -> None:
        """These rows are in Chroma now. A chunk that changed meanwhile has a new outbox id and stays."""
        with self.transaction():
            self.db.executemany("DELETE FROM outbox WHERE id = ?", [(i,) for i in ids])

    def fill_outbox(self, model: int) -> None:
        """Every chunk that has a vector goes to Chroma again. Rows that wait to be removed stay in the queue."""
        with self.transaction():
            self.db.execute(
                "INSERT OR REPLACE INTO outbox(model, chunk) SELECT model, path || '#' || printf('%04d', slot) FROM chunks "
                "JOIN notes ON notes.id = note JOIN vectors USING(hash) WHERE model = ? ORDER BY chunks.id", (model,),
            )  # fmt: skip

    def row_count(self, model: int) -> int:
        """How many chunks Chroma must hold for a model."""
        sql = "SELECT count(*) FROM chunks JOIN vectors USING(hash) WHERE model = ?"
        return int(self.db.execute(sql, (model,)).fetchone()[0])

    def row_names(self, model: int) -> set[str]:
        """Ids of the chunks that Chroma must hold for a model: those that have a vector."""
        rows = self.db.execute(
            "SELECT path, slot FROM chunks JOIN notes ON notes.id = note JOIN vectors USING(hash) WHERE model = ?",
            (model,),
        )
        return {chunk_id(*row) for row in rows}

    def row_vectors(self, model: int, limit: int) -> list[bytes]:
        """Vectors that Chroma must hold for a model: those of the smallest content hashes, which is as good as chance."""
        sql = (
            "SELECT vector FROM chunks JOIN vectors ON vectors.hash = chunks.hash AND model = ? "
            "ORDER BY vectors.hash LIMIT ?"  # in the order of their own index: by the chunks' it would read and sort them all
        )
        return [row[0] for row in self.db.execute(sql, (model, limit))]

    def requeue(self, model: int, names: Iterable[str]) -> None:
        """Have these rows of Chroma written, or removed, again."""
        with self.transaction():
            self._to_outbox(model, names)

    def _to_outbox(self, model: int, chunks: Iterable[str]) -> None:
        self.db.executemany("INSERT OR REPLACE INTO outbox(model, chunk) VALUES(?, ?)", [(model, c) for c in chunks])


def _of(model: int | None) -> tuple[str, tuple[int, ...]]:
    return ("", ()) if model is None else (" WHERE model = ?", (model,))


def pages(values: Iterable[T]) -> Iterator[tuple[T, ...]]:
    """As many as one SQL statement takes at a time."""
    iterator = iter(values)
    while page := tuple(islice(iterator, PAGE)):
        yield page
