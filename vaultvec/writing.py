"""Ledger → Chroma: the writing half of the pipeline, in a thread of its own behind the model."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from vaultvec.errors import StoreDamaged
from vaultvec.index import IndexFolder
from vaultvec.ledger import Ledger
from vaultvec.models import ModelSpec
from vaultvec.store import ChromaStore, discard

STORE_POLL_SECONDS = 0.2


class Writer(threading.Thread):
    """Brings Chroma up to the ledger whenever a batch of rows waits, and at the end. Never makes the model wait."""

    def __init__(
        self, index: IndexFolder, models: Sequence[ModelSpec], rows: Sequence[int], batch_size: int, *, verify: bool
    ) -> None:
        super().__init__(name="store", daemon=True)
        self.verify = verify  # at the end, compare Chroma's count with the ledger's
        self.mended = 0
        self.damage = ""  # why Chroma was made anew
        self.index = index
        self.models = list(zip(rows, models, strict=True))
        self.batch_size = batch_size
        self.stop = threading.Event()
        self.error: BaseException | None = None
        self._ending = threading.Event()
        self._work = threading.Event()

    def wake(self) -> None:
        """Rows may be waiting."""
        self._work.set()

    def finish(self) -> None:
        """Write the rest and end. Raises what went wrong in the thread."""
        self._ending.set()
        self.wake()
        while self.is_alive():
            self.join(0.1)
        if self.error:
            raise self.error

    def run(self) -> None:
        """Thread body."""
        stores: dict[int, ChromaStore] = {}
        try:
            with Ledger(self.index.ledger) as ledger:
                while not self.stop.is_set():
                    self._work.wait(STORE_POLL_SECONDS)
                    self._work.clear()
                    ending = self._ending.is_set()
                    try:
                        self._sync(ledger, stores, ending)
                    except StoreDamaged as error:
                        self._start_anew(ledger, stores, error)
                        self._sync(ledger, stores, ending)
                    if ending:
                        return
        except BaseException as error:  # raised again by the pipeline
            self.error = error
        finally:
            for opened in stores.values():
                opened.close()

    def _sync(self, ledger: Ledger, stores: dict[int, ChromaStore], ending: bool) -> None:
        for row, _ in self.models:
            waiting = ledger.outbox_size(row)
            if waiting >= self.batch_size or (ending and waiting):
                if row not in stores:
                    stores[row] = self._open(ledger, row)
                stores[row].sync(ledger, row, self.batch_size, self.stop)
        if ending and self.verify:
            self.mended = sum(opened.mend(ledger, row, self.batch_size) for row, opened in stores.items())

    def _start_anew(self, ledger: Ledger, stores: dict[int, ChromaStore], error: StoreDamaged) -> None:
        """Chroma does not write its graph atomically: a kill can leave it unreadable. It is derived, so it is made anew."""
        if self.damage:
            raise error
        self.damage = str(error)
        for opened in stores.values():
            opened.close()
        stores.clear()
        for row, *_ in ledger.models():
            ledger.fill_outbox(row)  # before the folder goes: a kill in between leaves the work to the next run
        discard(self.index.chroma)

    def _open(self, ledger: Ledger, row: int) -> ChromaStore:
        fingerprint, name, dim = next((m[1], m[2], m[3]) for m in ledger.models() if m[0] == row)
        return ChromaStore(self.index.chroma, fingerprint, name, dim)
