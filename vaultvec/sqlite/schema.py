"""The ledger's file: what is in it, how it is opened and brought up to date, and what SQLite's errors mean."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from vaultvec.errors import LedgerDamaged, LedgerError
from vaultvec.keywords import KEYWORDS_VERSION, TOKENIZE

SCHEMA_VERSION = 1
# Version → the statements that bring a ledger of that version to the next one, in one transaction.
MIGRATIONS: dict[int, tuple[str, ...]] = {}

KEYWORDS_TABLE = f"CREATE VIRTUAL TABLE keywords USING fts5(title, heading, tags, body, tokenize='{TOKENIZE}')"
# AUTOINCREMENT: the queues never use an id twice. "Everything after id n" must not miss what is queued later, and a row
# that is queued again while its page is written must not be cleared with that page.
SCHEMA = f"""
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE models(id INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL UNIQUE, name TEXT NOT NULL, dim INTEGER NOT NULL);
CREATE TABLE notes(id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, title TEXT NOT NULL, size INTEGER NOT NULL,
  mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL, digest BLOB NOT NULL, tags TEXT NOT NULL, aliases TEXT NOT NULL,
  links TEXT NOT NULL, warnings TEXT NOT NULL);
CREATE TABLE chunks(id INTEGER PRIMARY KEY, note INTEGER NOT NULL REFERENCES notes(id) ON DELETE CASCADE,
  slot INTEGER NOT NULL, heading TEXT NOT NULL, text TEXT NOT NULL, context INTEGER NOT NULL,
  start_line INTEGER NOT NULL, hash BLOB NOT NULL, n_tokens INTEGER NOT NULL, UNIQUE(note, slot));
CREATE INDEX chunks_hash ON chunks(hash);
CREATE TABLE vectors(model INTEGER NOT NULL, hash BLOB NOT NULL, vector BLOB NOT NULL, PRIMARY KEY(model, hash));
CREATE TABLE pending(id INTEGER PRIMARY KEY AUTOINCREMENT, model INTEGER NOT NULL, hash BLOB NOT NULL,
  token_ids BLOB NOT NULL, failure TEXT, UNIQUE(model, hash));
CREATE TABLE outbox(id INTEGER PRIMARY KEY AUTOINCREMENT, model INTEGER NOT NULL, chunk TEXT NOT NULL,
  UNIQUE(model, chunk));
{KEYWORDS_TABLE};
"""
TABLES = frozenset(("meta", "models", "notes", "chunks", "vectors", "pending", "outbox", "keywords"))


def connect(path: Path, readonly: bool) -> sqlite3.Connection:
    """An open ledger of this program's schema; a new or older file is brought there unless `readonly`.

    Raises LedgerDamaged, LedgerError.
    """
    try:
        if readonly:
            return _connect_reader(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(path, isolation_level=None, timeout=60)
        try:
            db.execute("PRAGMA foreign_keys = ON")
            db.execute("PRAGMA cache_size = -16000")  # 16 MB
            version = _version(db)
            db.execute("PRAGMA journal_mode = WAL")
            # Safe against a killed process; a power cut loses the last commits.
            db.execute("PRAGMA synchronous = NORMAL")
            if version < SCHEMA_VERSION or not version:
                _upgrade(db)
            _check_tables(db)
        except BaseException:
            db.close()
            raise
        return db
    except (sqlite3.Error, OSError) as error:
        raise ledger_error(error, path) from error


def _connect_reader(path: Path) -> sqlite3.Connection:
    """Read only. Where the folder cannot be written, SQLite can open a file without a log only as an immutable one."""
    uri = f"{path.resolve().as_uri()}?mode=ro"
    db = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=30)
    try:
        try:
            version = _version(db)
        except sqlite3.OperationalError:
            log = Path(f"{path}-wal")
            if not path.is_file() or (log.is_file() and log.stat().st_size):
                raise
            db.close()
            db = sqlite3.connect(f"{uri}&immutable=1", uri=True, isolation_level=None)
            version = _version(db)
        db.execute("PRAGMA cache_size = -16000")
        if 0 < version < SCHEMA_VERSION:
            raise LedgerError(
                f"the index was written by an older version (schema {version}, this program has {SCHEMA_VERSION}); "
                "run: python main.py index (it brings the index up to date)"
            )
        _check_tables(db)
    except BaseException:
        db.close()
        raise
    return db


def _version(db: sqlite3.Connection) -> int:
    """Schema of the file; 0 = none yet. Raises LedgerError when it is newer than this program."""
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    if version > SCHEMA_VERSION:
        raise LedgerError(
            f"the index was written by a newer version (schema {version}, this program knows {SCHEMA_VERSION}); "
            "update this program, or put that index aside and start anew: python main.py rebuild, then python main.py index"
        )
    return version


def _upgrade(db: sqlite3.Connection) -> None:
    """Make the tables, or run the migrations; all of it or nothing."""
    db.execute("BEGIN IMMEDIATE")
    try:
        version = _version(db)  # another process may have been first
        if version == 0 and not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            for statement in SCHEMA.split(";\n"):
                db.execute(statement)
            db.execute("INSERT INTO meta VALUES('keywords_version', ?)", (str(KEYWORDS_VERSION),))
        elif version:
            for step in range(version, SCHEMA_VERSION):
                if step not in MIGRATIONS:
                    raise LedgerError(
                        f"the index has schema {step}, from which there is no way to {SCHEMA_VERSION}; put it aside "
                        "and start anew: python main.py rebuild, then python main.py index (known vectors are kept)"
                    )
                for statement in MIGRATIONS[step]:
                    db.execute(statement)
        else:
            raise LedgerDamaged(damaged_line("ledger.sqlite3", "it has tables but no schema version"))
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _check_tables(db: sqlite3.Connection) -> None:
    missing = TABLES - {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if missing:
        raise LedgerDamaged(damaged_line("ledger.sqlite3", f"no table {', '.join(sorted(missing))}"))


def damaged_line(name: str, found: str) -> str:
    """The one line for a damaged ledger: what was found, and the way on."""
    return (
        f"the index file {name} is damaged ({found}); put it aside: python main.py rebuild, then run: python main.py "
        "index (every vector that can still be read is kept)"
    )


def ledger_error(error: Exception, path: Path) -> LedgerError:
    """What SQLite said, and what to do about it."""
    if isinstance(error, LedgerError):
        return error
    text = str(error)
    if isinstance(error, sqlite3.DatabaseError) and any(
        word in text
        for word in ("malformed", "not a database", "corrupt", "no such table", "no such column", "vtable constructor")
    ):
        return LedgerDamaged(damaged_line(path.name, text))
    if "full" in text:
        return LedgerError(
            f"the disk is full at {path.parent}; free some space and run it again: what was done is kept"
        )
    if "disk I/O error" in text:
        return LedgerError(
            f"the disk at {path.parent} refused to read or write ({text}); is it full or failing? What was done is "
            "kept: make room and run it again, or run: python main.py doctor"
        )
    if "readonly" in text or "unable to open" in text or isinstance(error, OSError):
        return LedgerError(
            f"{path.parent} cannot be written or read ({text}); mend its permissions, or set DATA_DIR in config.py"
        )
    if "locked" in text:
        return LedgerError(f"the index at {path.parent} is in use by another program ({text}); run it again")
    return LedgerError(f"the index at {path.parent} failed ({text}); run: python main.py doctor")
