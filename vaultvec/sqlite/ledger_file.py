"""The ledger's file: opening it, transactions, its errors in one line, and the facts and models it remembers."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from vaultvec.sqlite.schema import connect, ledger_error


class LedgerFile:
    """One connection to a ledger file. Each thread opens its own."""

    def __init__(self, path: Path, *, readonly: bool = False) -> None:
        self.path = path
        self.readonly = readonly
        self.db = connect(path, readonly)
        self._file = identity(path)

    def close(self) -> None:
        """Close the file; the last connection folds the write-ahead log into it."""
        self.db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self.close()
        if isinstance(error, sqlite3.Error):
            raise ledger_error(error, self.path) from error

    def in_place(self) -> bool:
        """Whether the file that was opened still lies under its name. SQLite goes on writing to one that was removed."""
        return identity(self.path) == self._file

    def version(self) -> int:
        """Another number once another connection has written to the file."""
        return int(self.db.execute("PRAGMA data_version").fetchone()[0])

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing. Takes the write lock at once, so that two writers wait instead of failing."""
        if self.db.in_transaction:
            yield
            return
        with self.errors_told():
            try:
                self.db.execute("BEGIN IMMEDIATE")
                yield
                self.db.execute("COMMIT")
            except BaseException:
                self._rollback()
                raise

    def _rollback(self) -> None:
        if self.db.in_transaction:  # SQLite has rolled back by itself when the disk was full
            self.db.execute("ROLLBACK")

    @contextmanager
    def errors_told(self) -> Iterator[None]:
        """SQLite's errors as LedgerError and LedgerDamaged, one line each, with the way on."""
        try:
            yield
        except sqlite3.Error as error:
            raise ledger_error(error, self.path) from error

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """One consistent view for several reads, whatever a writer does meanwhile."""
        with self.errors_told():
            self.db.execute("BEGIN")
            try:
                self.db.execute("SELECT count(*) FROM sqlite_master").fetchone()  # BEGIN alone sees nothing yet
                yield
            finally:
                self._rollback()  # nothing was written

    # ── meta and models ──────────────────────────────────────────────────────────────────────────────────────────────

    def meta(self, key: str) -> str:
        """A remembered fact about this index, "" where there is none."""
        row = self.db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return str(row[0]) if row else ""

    def set_meta(self, key: str, value: str) -> None:
        """Remember a fact."""
        self.db.execute(
            "INSERT INTO meta VALUES(?, ?) ON CONFLICT(key) DO UPDATE SET value = excluded.value", (key, value)
        )

    def register_model(self, fingerprint: str, name: str, dim: int) -> int:
        """Id of a model within this ledger."""
        with self.transaction():
            self.db.execute(
                "INSERT INTO models(fingerprint, name, dim) VALUES(?, ?, ?) "
                "ON CONFLICT(fingerprint) DO UPDATE SET name = excluded.name",  # a model folder may have been moved
                (fingerprint, name, dim),
            )
            return int(self.db.execute("SELECT id FROM models WHERE fingerprint = ?", (fingerprint,)).fetchone()[0])

    def models(self) -> list[tuple[int, str, str, int]]:
        """(id, fingerprint, name, dim) of every model."""
        return list(self.db.execute("SELECT id, fingerprint, name, dim FROM models ORDER BY id"))

    def check(self) -> str:
        """ "" when SQLite finds the file whole, else what it found."""
        try:
            found = str(self.db.execute("PRAGMA quick_check(1)").fetchone()[0])
        except sqlite3.Error as error:
            return str(error)
        return "" if found == "ok" else " ".join(found.split())


def identity(path: Path) -> tuple[int, int] | None:
    """(device, inode) of a file or folder, None when there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
