"""SQLite: notes, chunks, vectors by content hash, and the keyword index. The durable truth; Chroma is derived from it.

A note is applied in one transaction, so a reader sees the old one or the new one, whole. A vector is keyed by the hash
of the embedded text and the model's fingerprint: the same text is embedded once, wherever it stands. `pending` holds
what is still to be embedded, token ids included; `outbox` names the chunks whose row in Chroma must be written or
removed. Both are part of the transaction that makes them necessary, so a process killed anywhere resumes where it was.
"""

from __future__ import annotations

import hashlib
import json
import random
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from vaultvec.datatypes import Chunk, Note, NoteFile, TokenIds, chunk_id
from vaultvec.errors import LedgerDamaged
from vaultvec.keywords import KEYWORDS_VERSION, index_terms
from vaultvec.sqlite.donors import Donors, is_unit_vector
from vaultvec.sqlite.queues import Queues, pages
from vaultvec.sqlite.schema import KEYWORDS_TABLE, damaged_line

INSERT_KEYWORDS = "INSERT INTO keywords(rowid, title, heading, tags, body) VALUES(?,?,?,?,?)"
NOTES_SEEN = "notes_seen"  # meta: how many notes the last run saw, "" when it came to all of them
TITLE_CHARS = 500  # of a title, which stands in the keyword row of every chunk of its note
CALLED_CHARS = 1000  # of the tags and aliases there


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


class Ledger(Queues):
    """One connection to a ledger: its notes, chunks, vectors and keyword index, besides its queues."""

    def __init__(self, path: Path, *, readonly: bool = False) -> None:
        super().__init__(path, readonly=readonly)
        self._donors = Donors()

    def close(self) -> None:
        """Close the file; the last connection folds the write-ahead log into it."""
        self._donors.close()
        super().close()

    def adopt(self, ledgers: Iterable[Path]) -> None:
        """Look vectors up in these other ledgers too: the same text was perhaps embedded for another vault or
        setting."""
        self._donors.close()
        self._donors = Donors(ledgers)

    # ── notes ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def notes(self) -> dict[str, StoredNote]:
        """Every stored note by path."""
        rows = self.db.execute("SELECT id, path, size, mtime_ns, ctime_ns, digest FROM notes")
        return {row[1]: StoredNote(*row) for row in rows}

    def has_notes(self) -> bool:
        """Whether anything was ever indexed here."""
        return self.db.execute("SELECT 1 FROM notes LIMIT 1").fetchone() is not None

    def touch(self, file: NoteFile) -> None:
        """The file's size and times changed, its content did not."""
        self.db.execute(
            "UPDATE notes SET size = ?, mtime_ns = ?, ctime_ns = ? WHERE path = ?",
            (file.size, file.mtime_ns, file.ctime_ns, file.path),
        )

    def read_again(self, paths: Iterable[str]) -> None:
        """Let the next run read these notes anew, whatever their times and contents say."""
        with self.transaction():
            sql = "UPDATE notes SET ctime_ns = 0, digest = x'' WHERE path = ?"
            self.db.executemany(sql, [(path,) for path in paths])

    def not_read_yet(self) -> int:
        """Notes that a run saw and did not come to, because it was interrupted or had a limit; 0 after a whole one."""
        seen, failed = self.meta(NOTES_SEEN), self.unread()
        return max(0, int(seen) - self._count("SELECT count(*) FROM notes") - len(failed)) if seen.isdigit() else 0

    def keep_unread(self, notes: Sequence[tuple[str, str, int, int]]) -> None:
        """Remember the notes that could not be read: (path, reason, size, mtime_ns)."""
        self.set_meta("unread", json.dumps(notes, ensure_ascii=False))

    def unread(self) -> dict[str, tuple[str, int, int]]:
        """Path → (reason, size, mtime_ns) of the notes that could not be read when last tried."""
        try:
            return {path: (reason, size, mtime) for path, reason, size, mtime in json.loads(self.meta("unread"))}
        except (ValueError, TypeError):
            return {}  # a broken list is a missing one: the next run writes it

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
            dropped: list[bytes] = []
            if row:
                note_id = int(row[0])
                dropped = self._drop_chunks(note_id, note.path)
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
            added = self._insert_chunks(note_id, note, chunks, models)
            self._drop_unwanted(dropped)
            return added

    def _insert_chunks(self, note_id: int, note: Note, chunks: Sequence[Chunk], models: Sequence[ModelRow]) -> int:
        names = _names(note.path, note.title, note.tags, note.aliases)
        hashes = [content_hash(chunk.text) for chunk in chunks]
        for chunk, digest in zip(chunks, hashes, strict=True):
            cursor = self.db.execute(
                "INSERT INTO chunks(note, slot, heading, text, context, start_line, hash, n_tokens) "
                "VALUES(?,?,?,?,?,?,?,?)",
                (note_id, chunk.slot, chunk.heading, chunk.text, chunk.context, chunk.start_line, digest,
                 len(chunk.token_ids)),
            )  # fmt: skip
            terms = _terms(chunk.slot, names, chunk.heading, chunk.text[chunk.context :])
            self.db.execute(INSERT_KEYWORDS, (cursor.lastrowid, *terms))
        return len(set().union(*(self._enqueue(model, note.path, chunks, hashes) for model in models)))

    def _enqueue(self, model: ModelRow, path: str, chunks: Sequence[Chunk], hashes: Sequence[bytes]) -> set[bytes]:
        """Known texts go to the outbox, new ones to pending. Returns the hashes that were not pending before."""
        wanted = [i for i, chunk in enumerate(chunks) if model.accepts is None or model.accepts(chunk.text)]
        known = self._known(model, [hashes[i] for i in wanted])
        new = [i for i in wanted if hashes[i] not in known]
        ids = model.encode([chunks[i].text for i in new]) if model.encode else [chunks[i].token_ids for i in new]
        insert = "INSERT OR IGNORE INTO pending(model, hash, token_ids) VALUES(?,?,?)"
        added = {
            hashes[i]
            for i, row in zip(new, ids, strict=True)
            if self.db.execute(insert, (model.id, hashes[i], row.astype(np.int32).tobytes())).rowcount > 0
        }
        self._to_outbox(model.id, [chunk_id(path, chunks[i].slot) for i in wanted if hashes[i] in known])
        return added

    def _known(self, model: ModelRow, hashes: Sequence[bytes]) -> set[bytes]:
        """Which texts have a vector, here or with a donor (whose vector is then copied)."""
        known: set[bytes] = set()
        for page in pages(hashes):
            marks = ",".join("?" * len(page))
            found = self.db.execute(
                f"SELECT hash FROM vectors WHERE model = ? AND hash IN ({marks})", (model.id, *page)
            )
            known.update(row[0] for row in found)
            missing = [digest for digest in page if digest not in known]
            given = self._donors.vectors(model.fingerprint, model.dim, missing)
            self.db.executemany(
                "INSERT OR IGNORE INTO vectors VALUES(?,?,?)",
                [(model.id, digest, blob) for digest, blob in given.items()],
            )
            known.update(given)
        return known

    def _drop_chunks(self, note_id: int, path: str) -> list[bytes]:
        """Remove a note's chunks and keyword rows; their rows in Chroma follow by way of the outbox. Returns their
        hashes."""
        rows = self.db.execute("SELECT id, slot, hash FROM chunks WHERE note = ?", (note_id,)).fetchall()
        self.db.executemany("DELETE FROM keywords WHERE rowid = ?", [(row[0],) for row in rows])
        self.db.execute("DELETE FROM chunks WHERE note = ?", (note_id,))
        for model, *_ in self.models():
            self._to_outbox(model, [chunk_id(path, row[1]) for row in rows])
        return [row[2] for row in rows]

    def delete_notes(self, paths: Iterable[str]) -> int:
        """Forget notes that are gone. Their vectors stay until `compact`, so a note that comes back costs nothing."""
        count = 0
        with self.transaction():
            for path in paths:
                row = self.db.execute("SELECT id FROM notes WHERE path = ?", (path,)).fetchone()
                if row:
                    dropped = self._drop_chunks(row[0], path)
                    self.db.execute("DELETE FROM notes WHERE id = ?", (row[0],))
                    self._drop_unwanted(dropped)
                    count += 1
        return count

    def _drop_unwanted(self, hashes: Iterable[bytes]) -> None:
        """Texts that no chunk holds any more need no vector."""
        models = [model for model, *_ in self.models()]
        self.db.executemany(
            "DELETE FROM pending WHERE model = ?1 AND hash = ?2 AND NOT EXISTS (SELECT 1 FROM chunks WHERE hash = ?2)",
            [(model, digest) for digest in hashes for model in models],
        )

    # ── counts and upkeep ────────────────────────────────────────────────────────────────────────────────────────────

    def counts(self) -> Counts:
        """Rows of each kind."""
        one = self._count
        chunks = one("SELECT count(*) FROM chunks")
        waiting = one("SELECT count(*) FROM chunks WHERE hash IN (SELECT hash FROM pending)")
        return Counts(
            notes=one("SELECT count(*) FROM notes"),
            chunks=chunks,
            embedded=chunks - waiting,
            pending=self.pending_size(),
            failed=one("SELECT count(*) FROM pending WHERE failure IS NOT NULL"),
        )

    def distinct_texts(self) -> int:
        """How many different texts the chunks have."""
        return self._count("SELECT count(DISTINCT hash) FROM chunks")

    def drawn_chunks(self, count: int) -> list[int]:
        """Numbers of up to `count` chunks, drawn at random, without looking at the others."""
        first, last = self.db.execute("SELECT (SELECT min(id) FROM chunks), (SELECT max(id) FROM chunks)").fetchone()
        if first is None:
            return []
        marks = {random.randint(first, last) for _ in range(count)}
        return sorted({self._count(f"SELECT min(id) FROM chunks WHERE id >= {mark}") for mark in marks})

    def _count(self, sql: str) -> int:
        return int(self.db.execute(sql).fetchone()[0])

    def drop_damaged_vectors(self) -> int:
        """Delete vectors that no engine wrote (not finite, not of length 1), and have their notes read again by the
        next run, which embeds those texts. Returns how many went."""
        rows = self.db.execute("SELECT model, hash, vector, dim FROM vectors JOIN models ON models.id = model")
        bad = [(model, digest) for model, digest, blob, dim in rows if not is_unit_vector(blob, dim)]
        with self.transaction():
            self.db.executemany("DELETE FROM vectors WHERE model = ? AND hash = ?", bad)
            self.db.executemany(
                "UPDATE notes SET digest = x'', ctime_ns = 0 WHERE id IN (SELECT note FROM chunks WHERE hash = ?)",
                [(digest,) for _, digest in bad],
            )
        return len(bad)

    def compact(self) -> int:
        """Drop the vectors that no chunk uses, once they outnumber those in use. Returns how many went.

        To be asked only when every note was read: those of notes that moved are not in use before."""
        total = int(self.db.execute("SELECT count(*) FROM vectors").fetchone()[0])
        unused = int(
            self.db.execute("SELECT count(*) FROM vectors WHERE hash NOT IN (SELECT hash FROM chunks)").fetchone()[0]
        )
        if unused * 2 <= total or unused < 1000:
            return 0
        with self.transaction():
            self.db.execute("DELETE FROM vectors WHERE hash NOT IN (SELECT hash FROM chunks)")
        with suppress(sqlite3.OperationalError):  # too little room for a second copy: the file merely stays larger
            self.db.execute("VACUUM")
        return unused

    def rebuild_keywords(self) -> int:
        """Write the keyword index anew from the chunks. Returns its rows."""
        with self.transaction():
            self.db.execute("DROP TABLE IF EXISTS keywords")  # a damaged one cannot be emptied row by row
            self.db.execute(KEYWORDS_TABLE)
            rows = self.db.execute(
                "SELECT chunks.id, slot, path, title, tags, aliases, heading, text, context FROM chunks "
                "JOIN notes ON notes.id = note"
            )
            count, last, names = 0, "", ("", "")
            for number, slot, path, title, tags, aliases, heading, text, context in rows:
                if path != last:
                    last, names = path, _names(path, title, from_json(tags), from_json(aliases))
                self.db.execute(INSERT_KEYWORDS, (number, *_terms(slot, names, heading, text[context:])))
                count += 1
            self.set_meta("keywords_version", str(KEYWORDS_VERSION))
        return count

    def keyword_differences(self) -> tuple[int, int]:
        """(chunks that the keyword index lacks, rows of it without a chunk)."""
        rows = "SELECT id FROM keywords_docsize"  # FTS5's own table of rows; the virtual one would read every text
        missing = self._count(f"SELECT count(*) FROM chunks WHERE id NOT IN ({rows})")
        return missing, self._count(f"SELECT count(*) FROM ({rows}) WHERE id NOT IN (SELECT id FROM chunks)")


def _names(path: str, title: str, tags: Sequence[str], aliases: Sequence[str]) -> tuple[str, str]:
    """(title, everything else that a note is called) as terms. A file's name counts where the note has another title."""
    stem = PurePosixPath(path).stem
    called = (*tags, *aliases, *([stem] if stem != title else []))
    return index_terms(title[:TITLE_CHARS]), index_terms(" ".join(called))


def _terms(slot: int, names: tuple[str, str], heading: str, body: str) -> tuple[str, str, str, str]:
    """A chunk's row of the keyword index. Very many tags stand in the note's first row as a whole."""
    title, called = names
    return title, index_terms(heading), called if slot == 0 else called[:CALLED_CHARS], index_terms(body)


def _json(values: Sequence[str]) -> str:
    return json.dumps(values, ensure_ascii=False)


def from_json(value: str) -> tuple[str, ...]:
    """A note's tags, aliases or links. Raises LedgerDamaged for what `_json` did not write."""
    try:
        return tuple(json.loads(value))
    except (ValueError, TypeError) as error:
        raise LedgerDamaged(damaged_line("ledger.sqlite3", "a note's tags, aliases or links cannot be read")) from error
