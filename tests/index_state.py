"""Everything that an index says, read from its files: what must be equal when two indexes are the same."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vaultvec.datatypes import Vectors, chunk_id
from vaultvec.index import current_index
from vaultvec.settings import Settings
from vaultvec.store import ChromaStore


@dataclass(frozen=True)
class IndexState:
    """One index. Rows are keyed by path or chunk id, never by a row number."""

    notes: dict[str, tuple[Any, ...]]
    chunks: dict[str, tuple[Any, ...]]
    vectors: dict[str, bytes]
    keywords: dict[str, tuple[str, ...]]
    pending: int
    outbox: int
    chroma: dict[str, tuple[Any, ...]]
    chroma_vectors: dict[str, Vectors]


def state_of(settings: Settings, vault: Path) -> IndexState:
    """The index that answers for a vault."""
    folder = current_index(settings, vault)
    db = sqlite3.connect(folder / "ledger.sqlite3")
    try:
        notes = {row[0]: row[1:] for row in db.execute(
            "SELECT path, title, size, mtime_ns, digest, tags, aliases, links, warnings FROM notes")}  # fmt: skip
        rows = db.execute(
            "SELECT path, slot, heading, text, context, start_line, hash, n_tokens, chunks.id FROM chunks "
            "JOIN notes ON notes.id = note"
        ).fetchall()
        names = {row[8]: chunk_id(row[0], row[1]) for row in rows}
        stored = dict(db.execute("SELECT hash, vector FROM vectors"))
        keywords = {
            names.get(row[0], f"orphan {row[0]}"): row[1:]
            for row in db.execute("SELECT rowid, title, heading, tags, body FROM keywords")
        }
        fingerprint, name, dim = db.execute("SELECT fingerprint, name, dim FROM models").fetchone()
        pending, outbox = (db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("pending", "outbox"))
        assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    finally:
        db.close()
    store = ChromaStore(folder / "chroma", fingerprint, name, dim)
    try:
        got = store._collection.get(include=["documents", "metadatas", "embeddings"])
        count = store.count()
    finally:
        store.close()
    assert count == len(got["ids"])
    return IndexState(
        notes=notes,
        chunks={names[row[8]]: row[2:8] for row in rows},
        vectors={names[row[8]]: stored[row[6]] for row in rows if row[6] in stored},
        keywords=keywords,
        pending=pending,
        outbox=outbox,
        chroma={
            name: (text, *sorted(metadata.items()))
            for name, text, metadata in zip(got["ids"], got["documents"], got["metadatas"], strict=True)
        },
        chroma_vectors={name: np.asarray(row) for name, row in zip(got["ids"], got["embeddings"], strict=True)},
    )


def assert_whole(state: IndexState) -> None:
    """Nothing waits, and ledger, keyword index and Chroma hold the same chunks."""
    assert (state.pending, state.outbox) == (0, 0)
    assert state.vectors.keys() == state.chunks.keys()
    assert state.keywords.keys() == state.chunks.keys()
    assert state.chroma.keys() == state.chunks.keys()
    assert {name: row[0] for name, row in state.chroma.items()} == {name: row[1] for name, row in state.chunks.items()}
    for name, vector in state.chroma_vectors.items():
        np.testing.assert_allclose(vector, np.frombuffer(state.vectors[name], np.float32), atol=1e-5)


def assert_same(found: IndexState, expected: IndexState) -> None:
    """Equal in everything a reader can see."""
    assert_whole(expected)
    assert_whole(found)
    assert found.notes == expected.notes
    assert found.chunks == expected.chunks
    assert found.vectors == expected.vectors
    assert found.keywords == expected.keywords
    assert found.chroma == expected.chroma
