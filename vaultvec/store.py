"""Chroma: the index on disk that search and other programs read. Derived from the ledger; the only chromadb import.

Measured facts behind the settings: one add takes at most `get_max_batch_size()` rows; every add reads the log again
since the last persist, so `sync_threshold` stays within a few batches; `num_threads`, `batch_size` and `resize_factor`
do nothing in the local store. One process writes (the index lock sees to that).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vaultvec.chroma_folder import store_damaged, store_error, unfinished
from vaultvec.datatypes import Vectors
from vaultvec.errors import LedgerError
from vaultvec.ledger import Ledger
from vaultvec.lookup import ChunkRow, chunk_rows
from vaultvec.sqlite.donors import is_unit_vector

HNSW_SPACE = "cosine"
# Rows between two persists of the HNSW graph: with rows written 64 at a time, CPU a row is 1.5 ms, with 5,000 it is 2.7 ms,
# because every write reads the log again since the last persist (benchmarks/chroma_settings.py).
SYNC_THRESHOLD = 1000
SAMPLE = 32  # stored vectors that the graph is asked for
LEAST_FOUND = 0.75  # of them: HNSW finds nearly all, one that was lost or is an older copy few
SAME = 1e-3  # cosine distance of a vector to itself, at the most


class ChromaStore:
    """One collection: the chunks of a vault under one model. Raises LedgerError when Chroma cannot open its folder."""

    def __init__(self, folder: Path, fingerprint: str, model_name: str, dim: int, *, create: bool = True) -> None:
        """`create`: make the folder and the collection where they are missing; a reader must not, see `for_reading`."""
        import chromadb
        from chromadb.config import Settings as ChromaSettings

        self.folder = folder
        self.dim = dim
        try:
            if create:
                folder.mkdir(parents=True, exist_ok=True)
            self._client = chromadb.PersistentClient(
                path=str(folder), settings=ChromaSettings(anonymized_telemetry=False)
            )
            # embedding_function: vectors are always ours; Chroma must not load a model of its own
            self._collection = (
                self._client.get_or_create_collection(
                    fingerprint,
                    embedding_function=None,
                    configuration={"hnsw": {"space": HNSW_SPACE, "sync_threshold": SYNC_THRESHOLD}},
                    metadata={"model": model_name, "dim": dim, "fingerprint": fingerprint},
                )
                if create
                else self._client.get_collection(fingerprint, embedding_function=None)
            )
            self.max_batch = int(self._client.get_max_batch_size())
        except Exception as error:  # Chroma raises many kinds, from its Rust side too
            self._forget_client()
            raise store_error(error, folder) from error

    def _forget_client(self) -> None:
        """Chroma keeps a client that failed to open, and hands it out again for the same folder."""
        from chromadb.api.shared_system_client import SharedSystemClient

        if hasattr(self, "_client"):
            self.close()
        SharedSystemClient._identifier_to_system.pop(str(self.folder), None)

    def sync(self, ledger: Ledger, model: int, batch_size: int, stop: threading.Event | None = None) -> int:
        """Bring Chroma up to the ledger, `batch_size` rows at a time. Returns rows written or removed."""
        done = 0
        while not (stop and stop.is_set()):
            page = ledger.take_outbox(model, min(batch_size, self.max_batch))
            if not page:
                break
            names = [name for _, name in page]
            rows = chunk_rows(ledger, model, names)
            present = [row for row in rows if row.vector is not None]
            gone = set(names) - {row.id for row in present}
            self._write(present, sorted(gone))
            ledger.clear_outbox([number for number, _ in page])
            done += len(page)
        return done

    def _write(self, rows: Sequence[ChunkRow], gone: Sequence[str]) -> None:
        try:
            if gone:
                self._collection.delete(ids=list(gone))
            if rows:
                vectors = np.stack([row.vector for row in rows if row.vector is not None])
                self._collection.upsert(
                    ids=[row.id for row in rows],
                    embeddings=vectors,
                    documents=[row.text for row in rows],
                    metadatas=[
                        {"path": row.path, "heading": row.heading, "start_line": row.start_line} for row in rows
                    ],
                )
        except Exception as error:
            raise store_error(error, self.folder) from error

    def count(self) -> int:
        """Rows in the collection. Raises LedgerError."""
        try:
            return int(self._collection.count())
        except Exception as error:
            raise store_error(error, self.folder) from error

    def ids(self) -> set[str]:
        """Every chunk id in the collection, read page by page. Raises LedgerError."""
        found: set[str] = set()
        while True:
            try:
                got = self._collection.get(limit=self.max_batch, offset=len(found), include=[])["ids"]
            except Exception as error:
                raise store_error(error, self.folder) from error
            if not got:
                return found
            found.update(got)

    def _present(self, names: Sequence[str]) -> set[str]:
        """Which of these chunk ids the collection has."""
        found: set[str] = set()
        try:
            for start in range(0, len(names), self.max_batch):
                page = list(names[start : start + self.max_batch])
                found.update(self._collection.get(ids=page, include=[])["ids"])
        except Exception as error:
            raise store_error(error, self.folder) from error
        return found

    def differing(self, ledger: Ledger, model: int) -> set[str]:
        """Chunk ids that Chroma has and should not, or should have and has not."""
        names = ledger.row_names(model)
        # Asked for by id: to read all that Chroma has, page by page, takes 14 s at 170,000 rows against 1 s.
        missing = names - self._present(sorted(names))
        return missing if self.count() == len(names) - len(missing) else self.ids() ^ names

    def answers(self, ledger: Ledger, model: int) -> bool:
        """Whether the graph finds what is stored. Chroma counts its rows and knows their ids without it. Raises LedgerError."""
        blobs = ledger.row_vectors(model, SAMPLE)
        vectors = [np.frombuffer(blob, np.float32) for blob in blobs if is_unit_vector(blob, self.dim)]
        if not vectors:
            return True
        try:
            answer: Any = self._collection.query(query_embeddings=np.stack(vectors), n_results=1, include=["distances"])
        except Exception as error:
            raise store_error(error, self.folder) from error
        found = sum(bool(row) and float(row[0]) < SAME for row in answer["distances"])
        return bool(found >= LEAST_FOUND * len(vectors))

    def mend(
        self, ledger: Ledger, model: int, batch_size: int, stop: threading.Event | None = None, *, torn: bool = False
    ) -> int:
        """After a sync: count, and where the count is not the ledger's, write what differs. Returns rows mended.

        `torn`: a writer was killed here, so look at every id and at the graph. Raises StoreDamaged when that is no good.
        """
        if not torn and self.count() == ledger.row_count(model):
            return 0
        names = self.differing(ledger, model)
        ledger.requeue(model, names)
        self.sync(ledger, model, batch_size, stop)
        if torn and not (stop and stop.is_set()) and not self.answers(ledger, model):
            raise store_damaged("its graph does not find what is stored")
        return len(names)

    def query(self, vector: Vectors, k: int) -> list[tuple[str, float]]:
        """The `k` nearest chunk ids with their cosine, best first. `vector`: (dim,), unit length. Raises LedgerError."""
        count = self.count()
        if count == 0:
            return []
        k = min(k, count)
        try:
            answer: Any = self._query(vector, k)
        except Exception as error:
            raise store_error(error, self.folder) from error
        return [(name, 1.0 - float(d)) for name, d in zip(answer["ids"][0], answer["distances"][0], strict=True)]

    def _query(self, vector: Vectors, k: int) -> Any:
        """HNSW gives up where its candidate list is smaller than `k`: then ask for fewer."""
        while True:
            try:
                return self._collection.query(query_embeddings=vector[None, :], n_results=k, include=["distances"])
            except Exception as error:
                if k < 20 or "contiguous" not in str(error):
                    raise
                k //= 2

    def largest_graph(self) -> int:
        """Bytes on disk of the largest graph in the folder, holes of sparse files not counted."""
        graphs = [path.stat() for path in self.folder.glob("*/link_lists.bin")]
        return max((getattr(s, "st_blocks", 0) * 512 or s.st_size for s in graphs), default=0)

    def close(self) -> None:
        """Release Chroma's files."""
        close = getattr(self._client, "close", None)
        if close:
            close()


def exists(folder: Path) -> bool:
    """Whether Chroma has written here, told without importing it."""
    return (folder / "chroma.sqlite3").is_file()


def for_reading(folder: Path, fingerprint: str, model_name: str, dim: int) -> ChromaStore | None:
    """The collection as it stands; None where there is none, or where it was left half-written. Makes nothing."""
    from chromadb.errors import NotFoundError

    if not exists(folder) or unfinished(folder):
        return None
    try:
        return ChromaStore(folder, fingerprint, model_name, dim, create=False)
    except LedgerError as error:
        if isinstance(error.__cause__, NotFoundError):
            return None
        raise
