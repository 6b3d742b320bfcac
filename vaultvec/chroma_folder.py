"""Chroma's folder, told and handled without Chroma: who writes there, whether that ended well, and which ledger it belongs to."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vaultvec.errors import LedgerError, LockedError, StoreDamaged
from vaultvec.ledger import Ledger

WAIT_FOR_WRITER = 60  # seconds; a page of rows takes a few at the most
STAMP = "ledger_stamp"  # a file in Chroma's folder, and a fact in the ledger
GRAPH = "chroma_graph"  # in the ledger: the files of Chroma's graphs with their sizes, as the last writer left them
OTHER = "it is not the one that this ledger was written with"
CUT_SHORT = "files of its graph are missing or cut short"


@contextmanager
def writing_store(folder: Path) -> Iterator[None]:
    """Own Chroma's folder for writing. A killed run can leave its writer (writer_process.py) at its last rows: it is
    waited for.

    Raises LockedError when it does not end.
    """
    from filelock import FileLock, Timeout

    mark = _mark(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(_lock(folder), timeout=WAIT_FOR_WRITER):
            mark.touch()
            try:
                yield
            finally:
                mark.unlink(missing_ok=True)
    except Timeout as error:
        raise LockedError(
            f"the writer of an earlier run still has {folder} after {WAIT_FOR_WRITER} s; wait for it, or end that "
            "process, and run it again"
        ) from error


def unfinished(folder: Path) -> bool:
    """Whether a writer was killed at its work: Chroma's graph may be torn, and opening it then crashes the process."""
    from filelock import FileLock, Timeout

    if not _mark(folder).exists():
        return False
    try:
        with FileLock(_lock(folder), timeout=0):
            return _mark(folder).exists()
    except Timeout:  # at work
        return False
    except OSError:  # a folder that only others may write
        return True


def _mark(folder: Path) -> Path:
    """There while something is written, and after a kill."""
    return folder.with_name(f"{folder.name}.writing")


def _lock(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def due_anew(ledger: Ledger) -> None:
    """Every row is due, and no Chroma is the one that this ledger knows: what is made from here on may be interrupted."""
    for number, *_ in ledger.models():
        ledger.fill_outbox(number)
    if ledger.meta(STAMP):
        ledger.set_meta(STAMP, "")
    begin_writing(ledger)


def put_stamp(ledger: Ledger, folder: Path) -> None:
    """Ledger and Chroma agree: the same word in both says so, until one of them is replaced by a copy from another time.

    Raises LedgerError when the folder cannot be written.
    """
    word = secrets.token_hex(8)
    try:
        (folder / STAMP).write_text(word, encoding="ascii")
    except OSError as error:
        raise store_error(error, folder) from error
    files = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.glob("*/*") if path.is_file()}
    with ledger.transaction():
        ledger.set_meta(STAMP, word)
        ledger.set_meta(GRAPH, json.dumps(files))


def begin_writing(ledger: Ledger) -> None:
    """What is known of the graph's files will not hold: Chroma writes them when it likes."""
    if ledger.meta(GRAPH):
        ledger.set_meta(GRAPH, "")


def damage(ledger: Ledger, folder: Path) -> str:
    """Why this Chroma is not what the last writer left beside this ledger, told without opening it; "" where it is.

    Chroma itself answers with what is left of a graph, as if all were well.
    """
    try:
        word = (folder / STAMP).read_text(encoding="ascii", errors="replace")
    except OSError:
        word = ""
    if word != ledger.meta(STAMP):  # one that never had a stamp agrees with a ledger that knows of none
        return OTHER
    try:
        files = dict(json.loads(ledger.meta(GRAPH) or "{}"))
        whole = all((folder / name).stat().st_size >= size for name, size in files.items())
    except FileNotFoundError:
        whole = False
    except (OSError, ValueError, TypeError):  # nobody can say
        whole = True
    return "" if whole else CUT_SHORT


def discard(folder: Path) -> None:
    """Throw Chroma's folder away; `ledger.fill_outbox` and `sync` make it anew without a model.

    It is renamed first, so that a kill leaves it whole or gone.
    """
    away = folder.with_name(f"{folder.name}-discarded")
    shutil.rmtree(away, ignore_errors=True)
    try:
        folder.rename(away)
    except OSError:  # not there, or held open by another program
        away = folder
    shutil.rmtree(away, ignore_errors=True)


def store_error(error: Exception, folder: Path) -> LedgerError:
    """What Chroma said, and what to do about it."""
    if isinstance(error, LedgerError):
        return error
    text = " ".join(str(error).split())[:200] or type(error).__name__
    if "disk is full" in text or "No space left" in text:
        return LedgerError(
            f"the disk is full at {folder.parent}; free some space and run it again: what was done is kept"
        )
    if "readonly" in text or "Permission" in text or "unable to open" in text:
        return LedgerError(f"{folder} cannot be written ({text}); mend its permissions, or set DATA_DIR in config.py")
    if "I/O error" in text or "os error" in text or "File too large" in text:
        return LedgerError(f"the disk at {folder.parent} refused to read or write ({text}); make room and run it again")
    return store_damaged(text)


def store_damaged(found: str) -> StoreDamaged:
    """The one line for a folder that Chroma cannot use: what was found, and the way on."""
    return StoreDamaged(f"Chroma's folder is damaged ({found}); make it anew without a model: python main.py rebuild")
