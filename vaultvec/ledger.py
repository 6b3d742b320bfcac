"""SQLite: notes, chunks, vectors by content hash, and the keyword index. The durable truth; Chroma is derived from it.

A note is applied in one transaction, so a reader sees the old one or the new one, whole. A vector is keyed by the hash of the
embedded text and the model's fingerprint: the same text is embedded once, wherever it stands. `pending` holds what is still
to be embedded, token ids included; `outbox` names the chunks whose row in Chroma must be written or removed. Both are part
of the transaction that makes them necessary, so a process killed anywhere resumes where it was.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from vaultvec.datatypes import Chunk, Encoded, Note, NoteFile, TokenIds, Vectors, chunk_id
from vaultvec.errors import LedgerError
from vaultvec.keywords import KEYWORDS_VERSION, TOKENIZE, index_terms

SCHEMA_VERSION = 1
PAGE = 500  # ids of one SQL statement; SQLite allows 32,766 variables, some builds 999

_SCHEMA = f"""
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE models(id INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL UNIQUE, name TEXT NOT NULL, dim INTEGER NOT NULL);
CREATE TABLE notes(id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, title TEXT NOT NULL, size INTEGER NOT NULL,
  mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL, digest BLOB NOT NULL, tags TEXT NOT NULL, aliases TEXT NOT NULL,
  links TEXT NOT NULL, warnings TEXT NOT NULL);
CREATE TABLE chunks(id INTEGER PRIMARY KEY, note INTEGER NOT NULL REFERENCES notes(id) ON DELETE CASCADE,
  slot INTEGER NOT NULL, heading TEXT NOT NULL, text TEXT NOT NULL, context INTEGER NOT NULL, start_line INTEGER NOT NULL,
  hash BLOB NOT NULL, n_tokens INTEGER NOT NULL, UNIQUE(note, slot));
CREATE INDEX chunks_hash ON chunks(hash);
CREATE TABLE vectors(model INTEGER NOT NULL, hash BLOB NOT NULL, vector BLOB NOT NULL, PRIMARY KEY(model, hash));
CREATE TABLE pending(id INTEGER PRIMARY KEY, model INTEGER NOT NULL, hash BLOB NOT NULL, token_ids BLOB NOT NULL,
  failure TEXT, UNIQUE(model, hash));
CREATE TABLE outbox(id INTEGER PRIMARY KEY, model INTEGER NOT NULL, chunk TEXT NOT NULL, UNIQUE(model, chunk));
CREATE VIRTUAL TABLE keywords USING fts5(title, heading, tags, body, tokenize='{TOKENIZE}');
"""


def content_hash(text: str) -> bytes:
    """Key of an embedded text: 16 bytes of BLAKE2b."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class StoredNote:
    """What the ledger knows of a note without its text."""

    id: int
    path: str
    size: int
    mtime_ns: int
    ctime_ns: int
    digest: bytes

    def unchanged(self, file: NoteFile) -> bool:
        """Same size and times. ctime too: sync tools put an old mtime on new content, but cannot set ctime."""
        return (self.size, self.mtime_ns, self.ctime_ns) == (file.size, file.mtime_ns, file.ctime_ns)


@dataclass(frozen=True, slots=True)
class ModelRow:
    """A model whose vectors this ledger keeps. `accepts` says which texts it can read (None: all)."""

    id: int
    fingerprint: str
    dim: int
    accepts: Callable[[str], bool] | None = None
    encode: Callable[[list[str]], list[TokenIds]] | None = None  # None: the chunk's own ids fit this model


@dataclass(frozen=True, slots=True)
class Counts:
    """What is stored, in rows."""

    notes: int
    chunks: int
    embedded: int  # chunks that have a vector of every model that accepts them
    pending: int
    failed: int


class Ledger:
    """One connection to a ledger file. Each thread opens its own."""

    def __init__(self, path: Path, *, readonly: bool = False) -> None:
        self.path = path
        self.readonly = readonly
        self._donors: list[sqlite3.Connection] = []
        try:
            if readonly:
                self.db = sqlite3.connect(
                    f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=30
                )
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                self.db = sqlite3.connect(path, isolation_level=None, timeout=60)
            self._open()
        except (sqlite3.Error, OSError) as error:
            raise _ledger_error(error, path) from error

    def _open(self) -> None:
        db = self.db
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("PRAGMA cache_size = -16000")  # 16 MB
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise LedgerError(
                f"the index was written by a newer version (schema {version}, this program knows {SCHEMA_VERSION}); "
                "update this program, or start afresh: python main.py index --fresh"
            )
        if self.readonly:
            return
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(
            "PRAGMA synchronous = NORMAL"
        )  # WAL: safe against a killed process; a power cut loses the last commits
        if version == 0:
            with self.transaction():
                if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
                    for statement in _SCHEMA.split(";\n"):
                        db.execute(statement)
                    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
                    self.set_meta("keywords_version", str(KEYWORDS_VERSION))

    def close(self) -> None:
        """Close the file; the last connection folds the write-ahead log into it."""
        for donor in self._donors:
            donor.close()
        self.db.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing. Takes the write lock at once, so that two writers wait instead of failing."""
        if self.db.in_transaction:
            yield
            return
        try:
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")
                raise
            self.db.execute("COMMIT")
        except sqlite3.Error as error:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            raise _ledger_error(error, self.path) from error

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """One consistent view for several reads, whatever a writer does meanwhile."""
        self.db.execute("BEGIN")
        try:
            yield
        finally:
            self.db.execute("COMMIT")

    # ── meta and models ──────────────────────────────────────────────────────────────────────────────────────────────

    def meta(self, key: str, default: str = "") -> str:
        """A remembered fact about this index."""
        row = self.db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return str(row[0]) if row else default

    def set_meta(self, key: str, value: str) -> None:
        """Remember a fact."""
        self.db.execute(
            "INSERT INTO meta VALUES(?, ?) ON CONFLICT(key) DO UPDATE SET value = excluded.value", (key, value)
        )

    def register_model(self, fingerprint: str, name: str, dim: int) -> int:
        """Id of a model within this ledger."""
        with self.transaction():
            self.db.execute(
                "INSERT OR IGNORE INTO models(fingerprint, name, dim) VALUES(?, ?, ?)", (fingerprint, name, dim)
            )
            return int(self.db.execute("SELECT id FROM models WHERE fingerprint = ?", (fingerprint,)).fetchone()[0])

    def models(self) -> list[tuple[int, str, str, int]]:
        """(id, fingerprint, name, dim) of every model."""
        return list(self.db.execute("SELECT id, fingerprint, name, dim FROM models ORDER BY id"))

    def adopt(self, ledgers: Iterable[Path]) -> None:
        """Look vectors up in these other ledgers too: the same text was perhaps embedded for another vault or setting."""
        for path in ledgers:
            try:
                donor = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=1)
                donor.execute("SELECT vector FROM vectors LIMIT 1").fetchall()
            except sqlite3.Error:
                continue  # a damaged stranger is no reason to stop
            self._donors.append(donor)

    # ── notes ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def notes(self) -> dict[str, StoredNote]:
        """Every stored note by path."""
        rows = self.db.execute("SELECT id, path, size, mtime_ns, ctime_ns, digest FROM notes")
        return {row[1]: StoredNote(*row) for row in rows}

    def touch(self, file: NoteFile) -> None:
        """The file's size and times changed, its content did not."""
        self.db.execute(
            "UPDATE notes SET size = ?, mtime_ns = ?, ctime_ns = ? WHERE path = ?",
            (file.size, file.mtime_ns, file.ctime_ns, file.path),
        )

    def apply_note(
        self, file: NoteFile, digest: bytes, note: Note, chunks: Sequence[Chunk], models: Sequence[ModelRow]
    ) -> int:
        """Put a note in place of what stood under its path. Returns how many texts are new and wait to be embedded."""
        fields = (
            note.title, file.size, file.mtime_ns, file.ctime_ns, digest,
            _json(note.tags), _json(note.aliases), _json(note.links), _json(note.warnings),
        )  # fmt: skip
        with self.transaction():
            row = self.db.execute("SELECT id FROM notes WHERE path = ?", (note.path,)).fetchone()
            if row:
                note_id = int(row[0])
                self._drop_chunks(note_id, note.path)
                self.db.execute(
                    "UPDATE notes SET title=?, size=?, mtime_ns=?, ctime_ns=?, digest=?, tags=?, aliases=?, links=?, "
                    "warnings=? WHERE id = ?", (*fields, note_id),
                )  # fmt: skip
            else:
                cursor = self.db.execute(
                    "INSERT INTO notes(path, title, size, mtime_ns, ctime_ns, digest, tags, aliases, links, warnings) "
                    "VALUES(?,?,?,?,?,?,?,?,?,?)", (note.path, *fields),
                )  # fmt: skip
                note_id = int(cursor.lastrowid or 0)
            return self._insert_chunks(note_id, note, chunks, models)

    def _insert_chunks(self, note_id: int, note: Note, chunks: Sequence[Chunk], models: Sequence[ModelRow]) -> int:
        labels = index_terms(" ".join((*note.tags, *note.aliases)))
        title = index_terms(note.title)
        hashes = [content_hash(chunk.text) for chunk in chunks]
        for chunk, digest in zip(chunks, hashes, strict=True):
            cursor = self.db.execute(
                "INSERT INTO chunks(note, slot, heading, text, context, start_line, hash, n_tokens) VALUES(?,?,?,?,?,?,?,?)",
                (note_id, chunk.slot, chunk.heading, chunk.text, chunk.context, chunk.start_line, digest,
                 len(chunk.token_ids)),
            )  # fmt: skip
            terms = (
                cursor.lastrowid,
                title,
                index_terms(chunk.heading),
                labels,
                index_terms(chunk.text[chunk.context :]),
            )
            self.db.execute("INSERT INTO keywords(rowid, title, heading, tags, body) VALUES(?,?,?,?,?)", terms)
        return sum(self._enqueue(model, note.path, chunks, hashes) for model in models)

    def _enqueue(self, model: ModelRow, path: str, chunks: Sequence[Chunk], hashes: Sequence[bytes]) -> int:
        """Known texts go to the outbox, new ones to pending."""
        wanted = [i for i, chunk in enumerate(chunks) if model.accepts is None or model.accepts(chunk.text)]
        known = self._known(model, [hashes[i] for i in wanted])
        new = [i for i in wanted if hashes[i] not in known]
        ids = model.encode([chunks[i].text for i in new]) if model.encode else [chunks[i].token_ids for i in new]
        before = self.db.total_changes
        self.db.executemany(
            "INSERT OR IGNORE INTO pending(model, hash, token_ids) VALUES(?,?,?)",
            [(model.id, hashes[i], row.astype(np.int32).tobytes()) for i, row in zip(new, ids, strict=True)],
        )
        added = self.db.total_changes - before
        self._to_outbox(model.id, [chunk_id(path, chunks[i].slot) for i in wanted if hashes[i] in known])
        return added

    def _known(self, model: ModelRow, hashes: Sequence[bytes]) -> set[bytes]:
        """Which texts have a vector, here or with a donor (whose vector is then copied)."""
        known: set[bytes] = set()
        for page in _pages(hashes, PAGE):
            marks = ",".join("?" * len(page))
            found = self.db.execute(
                f"SELECT hash FROM vectors WHERE model = ? AND hash IN ({marks})", (model.id, *page)
            )
            known.update(row[0] for row in found)
            for donor in self._donors:
                missing = [digest for digest in page if digest not in known]
                if not missing:
                    break
                rows = donor.execute(
                    "SELECT hash, vector FROM vectors JOIN models ON models.id = vectors.model "
                    f"WHERE fingerprint = ? AND hash IN ({','.join('?' * len(missing))})", (model.fingerprint, *missing),
                ).fetchall()  # fmt: skip
                rows = [row for row in rows if len(row[1]) == 4 * model.dim]
                self.db.executemany("INSERT OR IGNORE INTO vectors VALUES(?,?,?)", [(model.id, *row) for row in rows])
                known.update(row[0] for row in rows)
        return known

    def _drop_chunks(self, note_id: int, path: str) -> None:
        """Remove a note's chunks and keyword rows; their rows in Chroma follow by way of the outbox."""
        rows = self.db.execute("SELECT id, slot FROM chunks WHERE note = ?", (note_id,)).fetchall()
        self.db.executemany("DELETE FROM keywords WHERE rowid = ?", [(row[0],) for row in rows])
        self.db.execute("DELETE FROM chunks WHERE note = ?", (note_id,))
        for model, *_ in self.models():
            self._to_outbox(model, [chunk_id(path, row[1]) for row in rows])

    def _to_outbox(self, model: int, chunks: Iterable[str]) -> None:
        self.db.executemany("INSERT OR REPLACE INTO outbox(model, chunk) VALUES(?, ?)", [(model, c) for c in chunks])

    def delete_notes(self, paths: Iterable[str]) -> int:
        """Forget notes that are gone. Their vectors stay until `compact`, so a note that comes back costs nothing."""
        count = 0
        with self.transaction():
            for path in paths:
                row = self.db.execute("SELECT id FROM notes WHERE path = ?", (path,)).fetchone()
                if row:
                    self._drop_chunks(row[0], path)
                    self.db.execute("DELETE FROM notes WHERE id = ?", (row[0],))
                    count += 1
            self._drop_unwanted()
        return count

    def _drop_unwanted(self) -> None:
        """Texts that no chunk holds any more need no vector."""
        self.db.execute("DELETE FROM pending WHERE hash NOT IN (SELECT hash FROM chunks)")

    # ── the queue of texts ───────────────────────────────────────────────────────────────────────────────────────────

    def take_pending(self, model: int, after: int, limit: int) -> list[tuple[int, bytes, Encoded]]:
        """The next texts to embed, oldest request first: (queue id, content hash, text with token ids)."""
        rows = self.db.execute(
            "SELECT p.id, p.hash, p.token_ids, (SELECT text FROM chunks c WHERE c.hash = p.hash LIMIT 1) FROM pending p "
            "WHERE model = ? AND p.id > ? ORDER BY p.id LIMIT ?", (model, after, limit),
        )  # fmt: skip
        return [
            (queue_id, digest, Encoded(queue_id, text, np.frombuffer(ids, dtype=np.int32)))
            for queue_id, digest, ids, text in rows
            if text is not None
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
            for page in _pages(hashes, PAGE):
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
        clause, values = ("", ()) if model is None else (" WHERE model = ?", (model,))
        return int(self.db.execute(f"SELECT count(*) FROM outbox{clause}", values).fetchone()[0])

    def take_outbox(self, model: int, limit: int) -> list[tuple[int, str]]:
        """(outbox id, chunk id), oldest first."""
        rows = self.db.execute("SELECT id, chunk FROM outbox WHERE model = ? ORDER BY id LIMIT ?", (model, limit))
        return [(int(row[0]), str(row[1])) for row in rows]

    def clear_outbox(self, ids: Sequence[int]) -> None:
        """These rows are in Chroma now. A chunk that changed meanwhile has a new outbox id and stays."""
        with self.transaction():
            self.db.executemany("DELETE FROM outbox WHERE id = ?", [(i,) for i in ids])

    def fill_outbox(self, model: int) -> None:
        """Every chunk that has a vector goes to Chroma again."""
        with self.transaction():
            self.db.execute("DELETE FROM outbox WHERE model = ?", (model,))
            self.db.execute(
                "INSERT INTO outbox(model, chunk) SELECT model, path || '#' || printf('%04d', slot) FROM chunks "
                "JOIN notes ON notes.id = note JOIN vectors USING(hash) WHERE model = ? ORDER BY chunks.id", (model,),
            )  # fmt: skip

    # ── counts and upkeep ────────────────────────────────────────────────────────────────────────────────────────────

    def counts(self) -> Counts:
        """Rows of each kind."""
        one = lambda sql: int(self.db.execute(sql).fetchone()[0])  # noqa: E731
        chunks = one("SELECT count(*) FROM chunks")
        waiting = one("SELECT count(*) FROM chunks WHERE hash IN (SELECT hash FROM pending)")
        return Counts(
            notes=one("SELECT count(*) FROM notes"),
            chunks=chunks,
            embedded=chunks - waiting,
            pending=one("SELECT count(*) FROM pending"),
            failed=one("SELECT count(*) FROM pending WHERE failure IS NOT NULL"),
        )

    def compact(self) -> int:
        """Drop the vectors that no chunk uses, once they outnumber those in use. Returns how many went."""
        total = int(self.db.execute("SELECT count(*) FROM vectors").fetchone()[0])
        unused = int(
            self.db.execute("SELECT count(*) FROM vectors WHERE hash NOT IN (SELECT hash FROM chunks)").fetchone()[0]
        )
        if unused * 2 <= total or unused < 1000:
            return 0
        with self.transaction():
            self.db.execute("DELETE FROM vectors WHERE hash NOT IN (SELECT hash FROM chunks)")
        self.db.execute("VACUUM")
        return unused

    def rebuild_keywords(self) -> int:
        """Write the keyword index anew from the chunks. Returns its rows."""
        with self.transaction():
            self.db.execute("DELETE FROM keywords")
            rows = self.db.execute(
                "SELECT chunks.id, title, heading, tags, aliases, text, context FROM chunks JOIN notes ON notes.id = note"
            )
            count = 0
            while page := list(islice(rows, 1000)):
                self.db.executemany(
                    "INSERT INTO keywords(rowid, title, heading, tags, body) VALUES(?,?,?,?,?)",
                    [
                        (i, index_terms(title), index_terms(heading),
                         index_terms(" ".join(json.loads(tags) + json.loads(aliases))), index_terms(text[context:]))
                        for i, title, heading, tags, aliases, text, context in page
                    ],
                )  # fmt: skip
                count += len(page)
            self.set_meta("keywords_version", str(KEYWORDS_VERSION))
        return count

    def check(self) -> str:
        """ "" when SQLite finds the file whole, else what it found."""
        try:
            found = str(self.db.execute("PRAGMA quick_check(1)").fetchone()[0])
        except sqlite3.Error as error:
            return str(error)
        return "" if found == "ok" else found


def _json(values: Sequence[str]) -> str:
    return json.dumps(values, ensure_ascii=False)


def _pages(values: Sequence[bytes], size: int) -> Iterator[tuple[bytes, ...]]:
    iterator = iter(values)
    while page := tuple(islice(iterator, size)):
        yield page


def _ledger_error(error: Exception, path: Path) -> LedgerError:
    """What SQLite said, and what to do about it."""
    text = str(error)
    if isinstance(error, LedgerError):
        return error
    if "malformed" in text or "not a database" in text or "corrupt" in text:
        return LedgerError(
            f"the index file {path.name} is damaged ({text}); start afresh: python main.py index --fresh "
            "(the damaged file is kept beside it)"
        )
    if "full" in text:
        return LedgerError(
            f"the disk is full at {path.parent}; free some space and run it again: what was done is kept"
        )
    if "readonly" in text or "unable to open" in text or isinstance(error, PermissionError):
        return LedgerError(
            f"{path.parent} cannot be written or read ({text}); mend its permissions, or set DATA_DIR in config.py"
        )
    return LedgerError(f"the index at {path.parent} failed ({text}); run: python main.py doctor")
