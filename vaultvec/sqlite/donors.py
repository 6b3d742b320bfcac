"""Vectors from other ledgers: the same text was perhaps embedded for another vault, chunk size, or before a damage."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

UNIT_TOLERANCE = 1e-3  # of a vector's length; overwritten bytes do not leave it at 1
GIVE_UP = 2000  # failed attempts in a row to get over a gap: behind it lies nothing any more


class Donors:
    """Ledgers that are only read. A damaged one gives what can still be read of it, and is no reason to stop."""

    def __init__(self, ledgers: Iterable[Path] = ()) -> None:
        self._donors: list[_Donor] = []
        for path in ledgers:
            try:
                self._donors.append(_Donor(path))
            except (sqlite3.Error, OSError):
                continue

    def close(self) -> None:
        """Close the files."""
        for donor in self._donors:
            donor.db.close()

    def vectors(self, fingerprint: str, dim: int, hashes: Sequence[bytes]) -> dict[bytes, bytes]:
        """Vectors by content hash, as they are stored, of those hashes that some donor has."""
        found: dict[bytes, bytes] = {}
        for donor in self._donors:
            missing = [digest for digest in hashes if digest not in found]
            if missing and fingerprint in donor.models:
                rows = donor.read(donor.models[fingerprint], missing)
                found.update((digest, blob) for digest, blob in rows if is_unit_vector(blob, dim))
        return found


class _Donor:
    """One ledger. Its index of hashes is asked first; once that fails, the rows themselves are gone through, once."""

    def __init__(self, path: Path) -> None:
        self.db = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=1)
        try:
            self.db.execute("PRAGMA writable_schema = ON")  # reads a file that is shorter than its header says
            self.models = {str(row[1]): int(row[0]) for row in self.db.execute("SELECT id, fingerprint FROM models")}
        except BaseException:
            self.db.close()
            raise
        self._rows: dict[tuple[int, bytes], int] | None = None  # (model, hash) → row number

    def read(self, model: int, hashes: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
        """(hash, vector) of those that can be read."""
        if self._rows is None:
            try:
                return self.db.execute(
                    f"SELECT hash, vector FROM vectors WHERE model = ? AND hash IN ({','.join('?' * len(hashes))})",
                    (model, *hashes),
                ).fetchall()
            except sqlite3.Error:
                self._rows = self._salvage()
        rows = self._rows
        found = [(digest, self._vector(rows[model, digest])) for digest in hashes if (model, digest) in rows]
        return [(digest, blob) for digest, blob in found if blob]

    def _salvage(self) -> dict[tuple[int, bytes], int]:
        """Every row that can be reached without the index."""
        rows: dict[tuple[int, bytes], int] = {}
        last = failures = 0
        while failures < GIVE_UP:
            before = last
            try:
                cursor = self.db.execute(
                    "SELECT rowid, model, hash FROM vectors NOT INDEXED WHERE rowid > ? ORDER BY rowid", (last,)
                )
                for number, model, digest in cursor:
                    if number > last:  # a broken page shows rows that were not asked for
                        last = int(number)
                        rows[model, digest] = last
                return rows
            except sqlite3.Error:
                failures = 0 if last > before else failures + 1
                last += 1 + failures // 64  # over the gap, in growing steps
        return rows

    def _vector(self, row: int) -> bytes:
        try:
            found = self.db.execute("SELECT vector FROM vectors NOT INDEXED WHERE rowid = ?", (row,)).fetchone()
        except sqlite3.Error:
            return b""
        return found[0] if found and isinstance(found[0], bytes) else b""


def is_unit_vector(blob: object, dim: int) -> bool:
    """Whether stored bytes are a finite vector of `dim` numbers and of length 1."""
    if not isinstance(blob, bytes) or len(blob) != 4 * dim:
        return False
    with np.errstate(all="ignore"):  # of a damaged file the bytes can be any
        length = float(np.linalg.norm(np.frombuffer(blob, np.float32).astype(np.float64)))
    return abs(length - 1.0) < UNIT_TOLERANCE  # False for NaN
