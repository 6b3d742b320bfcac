"""Ledger → Chroma: the writing half of the pipeline, behind the model. writer_process.py runs the same beside it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vaultvec.chroma_folder import begin_writing, discard, due_anew, put_stamp, writing_store
from vaultvec.errors import StoreDamaged
from vaultvec.ledger import Ledger
from vaultvec.store import ChromaStore

STORE_POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class WriterTask:
    """What is to be written where."""

    ledger: Path
    chroma: Path
    models: Sequence[int]  # the ledger's ids
    batch_size: int  # rows written at a time
    verify: bool  # at the end, compare Chroma's count with the ledger's
    torn: bool = False  # an earlier writer was killed: whether or not anything waits, look at what it left
    damage: str = ""  # why Chroma must be made anew before anything is written


class Writer(threading.Thread):
    """Brings Chroma up to the ledger whenever a batch of rows waits, and at the end."""

    def __init__(self, task: WriterTask) -> None:
        super().__init__(name="store", daemon=True)
        self.task = task
        self.mended = 0
        self.damage = task.damage  # why Chroma was made anew
        self.error: BaseException | None = None
        self.peak_rss_mb = 0.0  # beside this process's own
        self._stopping = threading.Event()
        self._ending = threading.Event()
        self._work = threading.Event()

    def wake(self) -> None:
        """Rows may be waiting."""
        self._work.set()

    def end(self) -> None:
        """Write the rest, then return from `run`."""
        self._ending.set()
        self._work.set()

    def halt(self) -> None:
        """Return from `run` at the next commit, whatever waits."""
        self._stopping.set()
        self._work.set()

    def finish(self, waiting: Callable[[], None]) -> None:
        """Write the rest and end; `waiting` is called now and then meanwhile. Raises what went wrong in the thread."""
        self.end()
        while self.is_alive():
            waiting()
            self.join(0.1)
        if self.error:
            raise self.error

    def stop(self, seconds: float) -> None:
        """Halt and wait, at most so long."""
        self.halt()
        if self.is_alive():
            self.join(seconds)

    def run(self) -> None:
        """Thread body; an error is kept in `error` for the pipeline to raise."""
        stores: dict[int, ChromaStore] = {}
        try:
            with writing_store(self.task.chroma), Ledger(self.task.ledger) as ledger:
                if self.task.damage:
                    self._start_anew(ledger, stores)
                while not self._stopping.is_set():
                    self._work.wait(STORE_POLL_SECONDS)
                    self._work.clear()
                    ending = self._ending.is_set()
                    try:
                        self._sync(ledger, stores, ending)
                    except StoreDamaged as error:
                        if self.damage:
                            raise
                        self.damage = str(error)
                        self._start_anew(ledger, stores)
                        self._sync(ledger, stores, ending)
                    if ending:
                        if stores and not self._stopping.is_set():
                            put_stamp(ledger, self.task.chroma)
                        return
        except BaseException as error:
            self.error = error
        finally:
            for opened in stores.values():
                opened.close()

    def _sync(self, ledger: Ledger, stores: dict[int, ChromaStore], ending: bool) -> None:
        size = self.task.batch_size
        for row in self.task.models:
            waiting = ledger.outbox_size(row)
            if waiting >= size or (ending and (waiting or self.task.torn)):
                if row not in stores:
                    stores[row] = self._open(ledger, row)
                stores[row].sync(ledger, row, size, self._stopping)
        torn = self.task.torn
        # When it was stopped, what is not written yet is no damage.
        if ending and (self.task.verify or torn) and not self._stopping.is_set():
            self.mended = sum(
                opened.mend(ledger, row, size, self._stopping, torn=torn) for row, opened in stores.items()
            )

    def _start_anew(self, ledger: Ledger, stores: dict[int, ChromaStore]) -> None:
        """Chroma does not write its graph atomically: a kill can leave it unreadable. It is derived, so it is made anew."""
        for opened in stores.values():
            opened.close()
        stores.clear()
        due_anew(ledger)  # before the folder goes: a kill in between leaves the work to the next run
        discard(self.task.chroma)

    def _open(self, ledger: Ledger, row: int) -> ChromaStore:
        begin_writing(ledger)
        fingerprint, name, dim = next((m[1], m[2], m[3]) for m in ledger.models() if m[0] == row)
        return ChromaStore(self.task.chroma, fingerprint, name, dim)
