"""Reads of the ledger: chunk rows, the matrix of vectors, keyword matches, notes. Nothing here writes."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vaultvec.datatypes import Vectors, chunk_id
from vaultvec.errors import QueryError
from vaultvec.ledger import Ledger, from_json
from vaultvec.sqlite.queues import pages
from vaultvec.sqlite.schema import KEYWORDS_TABLE

# Weight of a match in title, heading, tags and aliases, body (BM25F-like). Tuned on the "tune" half of benchmarks/eval.
KEYWORD_WEIGHTS = (6.0, 3.0, 4.0, 1.0)
FEW = 30  # chunks that are copied to look for phrases among them; 30 take about 3 ms


@dataclass(frozen=True, slots=True)
class ChunkRow:
    """A chunk as Chroma gets it; `vector` (dim,) is None while the text waits to be embedded."""

    id: str
    path: str
    heading: str
    start_line: int
    text: str
    vector: Vectors | None


@dataclass(frozen=True, slots=True)
class NoteRow:
    """A note's fields for results and filters."""

    id: int
    path: str
    title: str
    tags: tuple[str, ...]
    aliases: tuple[str, ...]
    links: tuple[str, ...]
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk's text for a result."""

    chunk: int
    note: int
    slot: int
    heading: str
    text: str
    context: int
    start_line: int
    digest: bytes  # content hash: which text this is


def chunk_rows(ledger: Ledger, model: int, names: Sequence[str]) -> list[ChunkRow]:
    """The chunks of these ids that exist, with their vectors of one model."""
    rows: list[ChunkRow] = []
    for name in names:
        path, _, slot = name.rpartition("#")
        found = ledger.db.execute(
            "SELECT heading, start_line, text, vector FROM notes JOIN chunks ON note = notes.id "
            "LEFT JOIN vectors ON vectors.hash = chunks.hash AND model = ? WHERE path = ? AND slot = ?",
            (model, path, int(slot)),
        ).fetchone()
        if found:
            heading, line, text, blob = found
            vector = None if blob is None else np.frombuffer(blob, dtype=np.float32)
            rows.append(ChunkRow(name, path, heading, line, text, vector))
    return rows


def count_matches(ledger: Ledger, expression: str) -> int:
    """How many chunks an FTS5 expression matches."""
    with _keyword_errors():
        sql = "SELECT count(*) FROM keywords WHERE keywords MATCH ?"
        return int(ledger.db.execute(sql, (expression,)).fetchone()[0])


def matching_chunks(ledger: Ledger, expression: str) -> NDArray[np.int64]:
    """Ids (n,) of the chunks that an FTS5 expression matches, ascending. Raises QueryError, as all keyword reads do."""
    with _keyword_errors():
        rows = ledger.db.execute("SELECT rowid FROM keywords WHERE keywords MATCH ?", (expression,)).fetchall()
    return np.sort(np.array(rows, np.int64).reshape(-1))


def matching_among(ledger: Ledger, expression: str, chunks: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of these chunks an FTS5 expression matches, (len(chunks),)."""
    # The plus keeps SQLite from asking FTS5 for one chunk after the other, which takes ten times as long.
    sql = "SELECT rowid FROM keywords WHERE keywords MATCH ? AND +rowid IN (SELECT value FROM json_each(?))"
    with _keyword_errors():
        rows = ledger.db.execute(sql, (expression, json.dumps(chunks.tolist()))).fetchall()
    return np.isin(chunks, np.array(rows, np.int64).reshape(-1))


def matching_phrases(ledger: Ledger, expressions: Sequence[str], chunks: NDArray[np.int64]) -> list[NDArray[np.bool_]]:
    """For each FTS5 expression, which of these chunks it matches. A few chunks are copied into an index of their own: in the
    whole one a phrase costs what its frequent words cost, in all other chunks too (10 ms and more in 100,000)."""
    if len(chunks) > FEW:
        return [matching_among(ledger, expression, chunks) for expression in expressions]
    columns = "rowid, title, heading, tags, body"
    sql = f"SELECT {columns} FROM keywords WHERE rowid IN (SELECT value FROM json_each(?))"
    with _keyword_errors(), closing(sqlite3.connect(":memory:")) as few:
        few.execute(KEYWORDS_TABLE)
        rows = ledger.db.execute(sql, (json.dumps(chunks.tolist()),)).fetchall()
        few.executemany(f"INSERT INTO keywords({columns}) VALUES(?,?,?,?,?)", rows)
        found = [
            few.execute("SELECT rowid FROM keywords WHERE keywords MATCH ?", (expression,)).fetchall()
            for expression in expressions
        ]
    return [np.isin(chunks, np.array(rows, np.int64).reshape(-1)) for rows in found]


def keyword_matches(ledger: Ledger, expression: str, limit: int) -> list[tuple[int, float]]:
    """(chunk id, BM25 score, higher is better) of the best matches; all of them when `limit` is -1."""
    if not expression:
        return []
    with _keyword_errors():
        rows = ledger.db.execute(
            f"SELECT rowid, bm25(keywords, {','.join(map(str, KEYWORD_WEIGHTS))}) AS score FROM keywords "
            "WHERE keywords MATCH ? ORDER BY score LIMIT ?", (expression, limit),
        ).fetchall()  # fmt: skip
    return [(int(row[0]), -float(row[1])) for row in rows]


def literal_matches(ledger: Ledger, text: str) -> list[int]:
    """Chunk ids whose text or title holds these characters as they stand, newest notes first: for what has no words."""
    sql = (
        "SELECT chunks.id FROM chunks JOIN notes ON notes.id = note WHERE instr(text, ?) OR instr(title, ?) "
        "ORDER BY mtime_ns DESC, chunks.id"
    )
    return [int(row[0]) for row in ledger.db.execute(sql, (text, text))]


@contextmanager
def _keyword_errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise QueryError(f"the keyword index failed ({error}); run: python main.py rebuild") from error


def passages(ledger: Ledger, chunks: Sequence[int]) -> dict[int, Passage]:
    """Texts of chunks by id; chunks that are gone are left out."""
    found: dict[int, Passage] = {}
    for page in pages(chunks):
        rows = ledger.db.execute(
            "SELECT id, note, slot, heading, text, context, start_line, hash FROM chunks "
            f"WHERE id IN ({','.join('?' * len(page))})", page,
        )  # fmt: skip
        found.update((row[0], Passage(*row)) for row in rows)
    return found


def openings(ledger: Ledger, chunks: Sequence[int], chars: int) -> dict[int, str]:
    """The first characters of each chunk's body, by id; chunks that are gone are left out."""
    found: dict[int, str] = {}
    for page in pages(chunks):
        sql = f"SELECT id, substr(text, context + 1, ?) FROM chunks WHERE id IN ({','.join('?' * len(page))})"
        found.update(ledger.db.execute(sql, (chars, *page)))
    return found


def chunk_numbers(ledger: Ledger, names: Sequence[str]) -> dict[str, int]:
    """Ledger ids of chunk ids; names that are gone are left out."""
    found: dict[str, int] = {}
    for name in names:
        path, _, slot = name.rpartition("#")
        row = ledger.db.execute(
            "SELECT chunks.id FROM notes JOIN chunks ON note = notes.id WHERE path = ? AND slot = ?", (path, int(slot))
        ).fetchone()
        if row:
            found[name] = int(row[0])
    return found


def note_rows(ledger: Ledger, notes: Sequence[int] | None = None) -> dict[int, NoteRow]:
    """Notes by id; all of them when `notes` is None."""
    sql = "SELECT id, path, title, tags, aliases, links, mtime_ns FROM notes"
    if notes is None:
        return {row[0]: _note(row) for row in ledger.db.execute(sql)}
    found: dict[int, NoteRow] = {}
    for page in pages(notes):
        rows = ledger.db.execute(f"{sql} WHERE id IN ({','.join('?' * len(page))})", page)
        found.update((row[0], _note(row)) for row in rows)
    return found


def export_rows(ledger: Ledger, model: int, dim: int) -> tuple[list[str], list[str], list[str], Vectors]:
    """(chunk ids, paths, embedded texts, vectors (n, dim)) of every embedded chunk, in the order of path and slot."""
    rows = ledger.db.execute(
        "SELECT path, slot, text, vector FROM notes JOIN chunks ON note = notes.id "
        "JOIN vectors ON vectors.hash = chunks.hash AND model = ? ORDER BY path, slot", (model,),
    ).fetchall()  # fmt: skip
    vectors = np.frombuffer(b"".join(row[3] for row in rows), np.float32).reshape(len(rows), dim)
    return [chunk_id(row[0], row[1]) for row in rows], [row[0] for row in rows], [row[2] for row in rows], vectors


def _note(row: tuple[int, str, str, str, str, str, int]) -> NoteRow:
    number, path, title, tags, aliases, links, mtime = row
    return NoteRow(number, path, title, from_json(tags), from_json(aliases), from_json(links), mtime)
