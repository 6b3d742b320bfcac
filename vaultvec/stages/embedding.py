"""The model's part of a run: windows of pending texts from the ledger, through the model, back into the ledger."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from vaultvec.datatypes import Batch, BatchResult, IndexReport
from vaultvec.engines.base import Engine
from vaultvec.errors import EngineError
from vaultvec.ledger import Ledger, ModelRow
from vaultvec.models import least_cosine
from vaultvec.stages.reading import Reader

GATHER_SECONDS = 0.2  # how long a window may wait to fill while the reader is still at work
TIDY_WINDOWS = 10  # windows between two memory clean-ups, as the guide has it; none in FAST_MODE
VERIFY_TEXTS = 8  # vectors of each model recomputed after a run; none in FAST_MODE
PRECISION = "precision of model "  # and its row: a fact in the ledger
DRAWN = 32  # chunks drawn for each of them: a second model reads only some


@dataclass(frozen=True, slots=True)
class Progress:
    """A moment of a run, for a progress bar."""

    notes_done: int
    notes_total: int
    texts_done: int
    texts_total: int  # known so far; grows while notes are read
    seconds: float  # since the first batch
    rows_waiting: int = 0  # for Chroma, once every text has its vector


@dataclass(slots=True)
class Embedding:
    """Embeds what is pending, one model after another. `check` raises what a thread beside it ran into."""

    ledger: Ledger
    reader: Reader
    report: IndexReport
    fast_mode: bool
    progress: Callable[[Progress], None]
    check: Callable[[], None]
    wake_writer: Callable[[], None]  # called when rows for Chroma are coming, and after each batch in the ledger
    models: int = 1  # that `run` is called for
    first_batch: float = field(default=0.0, init=False)
    busy_seconds: float = field(default=0.0, init=False)
    _embedded: set[bytes] = field(default_factory=set, init=False)  # hashes, to count a text of two models once
    verified: int = field(default=0, init=False)
    lowest: float = field(default=1.0, init=False)  # cosine of a stored vector to the one recomputed

    def run(self, row: ModelRow, name: str, load: Callable[[], Engine]) -> None:
        """Everything pending for one model. It is loaded only when there is something to embed.

        Raises what `load` and `check` raise, and EngineError.
        """
        if not self._anything_pending(row):
            if not self.report.engine:
                describe(self.report, self.ledger)
            self._name(name)
            return
        self.wake_writer()
        engine = load()
        try:
            if engine.dim != row.dim:  # else every later search would be wrong
                raise EngineError(
                    f"{engine.model.name} gives vectors of {engine.dim} dimensions, the index expects {row.dim} of {name}; "
                    "run: python main.py doctor"
                )
            self._describe(row, engine)
            engine.warm_up()
            self._embed(row, engine)
            if not self.fast_mode:
                self._verify(row, engine)
        finally:
            gc.unfreeze()
            engine.close()

    def _embed(self, row: ModelRow, engine: Engine) -> None:
        hashes: dict[int, bytes] = {}
        gc.freeze()  # what the run knows by now stays to its end; the collector need not look through it again and again
        busy_before, began = engine.busy_seconds, time.perf_counter()
        self.first_batch = self.first_batch or began
        for result in engine.embed_batches(self._batches(row, engine, hashes)):
            self.check()
            self._save(row, result, hashes)
            self.wake_writer()
            self._show()
        self.report.embed_seconds += time.perf_counter() - began
        self.busy_seconds += engine.busy_seconds - busy_before
        self.report.model_busy_share = self.busy_seconds / max(1e-9, self.report.embed_seconds)

    def _anything_pending(self, row: ModelRow) -> bool:
        """Wait until there is something to embed, or until it is certain that there is not."""
        while True:
            alive = self.reader.is_alive()
            if self.ledger.has_pending(row.id):
                return True
            if not alive:
                self.check()
                return False
            self._show()
            with self.reader.progress:
                self.reader.progress.wait(0.05)

    def _batches(self, row: ModelRow, engine: Engine, hashes: dict[int, bytes]) -> Iterator[Batch]:
        """Windows of pending texts, sorted and cut by the token budget. Pulled lazily: nothing is gathered ahead."""
        after = windows = 0
        while True:
            alive = self.reader.is_alive()
            found = self.ledger.take_pending(row.id, after, engine.texts_per_window)
            if alive and len(found) < engine.texts_per_window:
                with self.reader.progress:  # a moment to fill the window
                    self.reader.progress.wait(GATHER_SECONDS)
                found = self.ledger.take_pending(row.id, after, engine.texts_per_window)
            if not found:
                if not alive:
                    return
                continue
            after = found[-1][0]
            hashes.update((queue_id, digest) for queue_id, digest, _ in found)
            prefix = engine.model.document_prefix  # in the token ids already; servers read the text
            items = [replace(item, text=prefix + item.text) if prefix else item for _, _, item in found]
            yield from engine.cut(items)
            windows += 1
            if windows % TIDY_WINDOWS == 0 and not self.fast_mode:
                gc.collect()

    def _save(self, row: ModelRow, result: BatchResult, hashes: dict[int, bytes]) -> None:
        """One batch into the ledger, at once: a kill loses at most the batches that are in the model."""
        failed = dict(result.failed)
        good = [i for i in range(len(result.batch.items)) if i not in failed]
        digests = [hashes.pop(item.index) for item in result.batch.items]
        self.ledger.save_vectors(row.id, [digests[i] for i in good], result.vectors[good])
        for i, reason in failed.items():
            self.ledger.mark_failed(row.id, digests[i], reason)
        fresh = {digests[i] for i in good} - self._embedded
        if self.models > 1:
            self._embedded |= fresh
        self.report.chunks_embedded += len(fresh)
        self.report.vectors_made += len(good)
        self.report.tokens += result.batch.n_tokens

    def _verify(self, row: ModelRow, engine: Engine) -> None:
        """Embed a few stored texts once more: what lies on disk must be what the model says."""
        drawn = self.ledger.drawn_chunks(VERIFY_TEXTS * DRAWN)
        rows = self.ledger.db.execute(
            "SELECT text, vector FROM chunks JOIN vectors USING(hash) WHERE model = ? AND chunks.id IN "
            f"({','.join('?' * len(drawn))}) LIMIT ?",
            (row.id, *drawn, VERIFY_TEXTS),
        ).fetchall()
        if not rows:
            return
        stored = np.stack([np.frombuffer(blob, dtype=np.float32) for _, blob in rows])
        lowest = float((engine.embed_documents([text for text, _ in rows]) * stored).sum(axis=1).min())
        least = least_cosine(row.fingerprint)
        if lowest < least:
            raise EngineError(
                f"stored vectors differ from the model's (cosine {lowest:.4f}, expected ≥ {least}); run: python main.py doctor"
            )
        self.verified += len(rows)
        self.lowest = min(self.lowest, lowest)
        self.report.verified = f"{self.verified} vectors recomputed, lowest cosine {self.lowest:.5f}"

    def _describe(self, row: ModelRow, engine: Engine) -> None:
        """What embeds, into the ledger and the report."""
        facts = {"engine": engine.name, "device": engine.device, f"{PRECISION}{row.id}": engine.precision}
        for key, value in facts.items():
            self.ledger.set_meta(key, value)
        self._name(engine.model.name)
        self.report.models_run += 1
        self.report.engine, self.report.device = engine.name, engine.device
        self.report.precision = _precisions(self.ledger)

    def _name(self, model: str) -> None:
        self.report.model += f" + {model}" if self.report.model else model

    def show_storing(self) -> None:
        """Every text has its vector; Chroma still takes rows."""
        self._show(self.ledger.outbox_size())

    def _show(self, rows_waiting: int = 0) -> None:
        state, done = self.reader.state, self.report.vectors_made
        waiting = self.ledger.pending_size()
        seconds = time.perf_counter() - self.first_batch if self.first_batch else 0.0
        self.progress(
            Progress(state.read, len(self.reader.files), done, done + waiting, seconds, rows_waiting)
        )  # fmt: skip


def describe(report: IndexReport, ledger: Ledger) -> None:
    """Into the report: what made the vectors, for a run that needed no model."""
    report.engine, report.device = ledger.meta("engine"), ledger.meta("device")
    report.precision = _precisions(ledger)


def _precisions(ledger: Ledger) -> str:
    """What the models ran in when they embedded last; of two that differ both."""
    told = [ledger.meta(f"{PRECISION}{number}") for number, *_ in ledger.models()]
    return " + ".join(dict.fromkeys(filter(None, told))) or ledger.meta("precision")  # so it was called before
