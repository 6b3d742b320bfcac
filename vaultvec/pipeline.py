"""The whole line: read → chunk → embed → save, overlapped, bounded, resumable.

Three threads over one ledger file. The reader turns files into chunks and queues new texts in the ledger; the caller's
thread takes them from there, a window at a time, and keeps the model busy; the writer brings Chroma up behind. The
queues lie on disk, so memory stays flat however large the vault, and a process killed anywhere goes on where it was.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vaultvec.boilerplate import boilerplate_line, find_boilerplate, vault_boilerplate
from vaultvec.chunks import CHUNKER_VERSION
from vaultvec.datatypes import Batch, BatchResult, IndexReport, NoteFile
from vaultvec.engines import SERVERS, create_engine, load_tokenizer
from vaultvec.engines.base import Engine
from vaultvec.errors import EngineError, VaultError
from vaultvec.index import (
    Choice,
    IndexFolder,
    choose_models,
    forbid_mass_deletion,
    has_current,
    index_folder,
    language_warning,
    precision_class,
    reader_of,
    sample_texts,
    server_model,
    set_current,
    sibling_ledgers,
    writer_lock,
)
from vaultvec.keywords import KEYWORDS_VERSION
from vaultvec.ledger import Ledger, ModelRow, StoredNote
from vaultvec.models import ModelSpec, resolve
from vaultvec.notes import READER_VERSION
from vaultvec.reading import Reader, chunker_spec, read_and_chunk, worker_count
from vaultvec.settings import Settings
from vaultvec.vault import load_exclusions, open_vault, walk
from vaultvec.writing import Writer

GATHER_SECONDS = 0.2  # how long a window may wait to fill while the reader is still at work
TIDY_WINDOWS = 10  # windows between two memory clean-ups, as the guide has it; none in FAST_MODE
VERSIONS = {
    "reader_version": str(READER_VERSION),
    "chunker_version": str(CHUNKER_VERSION),
}  # notes read by others are read again
VERIFY_TEXTS = 8  # vectors recomputed after a run; none in FAST_MODE

EngineFactory = Callable[..., Engine]
Notify = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Progress:
    """A moment of a run, for a progress bar."""

    notes_done: int
    notes_total: int
    texts_done: int
    texts_total: int  # known so far; grows while notes are read
    tokens_done: int
    seconds: float  # since the first batch


@dataclass(frozen=True, slots=True)
class Hooks:
    """How a run talks: `progress` often, `notify` with a line now and then. `engines` builds them (tests inject
    theirs)."""

    progress: Callable[[Progress], None] = lambda _: None
    notify: Notify = lambda _: None
    engines: EngineFactory = create_engine


@dataclass(frozen=True, slots=True)
class Changes:
    """What differs between the vault and the ledger."""

    files: tuple[NoteFile, ...]  # to read, newest first
    gone: tuple[str, ...]
    total: int
    unchanged: int
    unreadable: tuple[tuple[str, str], ...]

    @property
    def complete(self) -> bool:
        """Whether every change is among the files to read, not only the newest ones."""
        return len(self.files) + self.unchanged == self.total


def index_vault(
    settings: Settings,
    vault: Path,
    *,
    full: bool = False,
    limit: int | None = None,
    accept_deletions: bool = False,
    hooks: Hooks | None = None,
) -> IndexReport:
    """Bring the index of a vault up to date. `full` reads every note again, known texts keep their vectors;
    `limit` reads only the newest N changed notes.

    Raises VaultError, ModelError, EngineError, LedgerError, LockedError; KeyboardInterrupt after saving what was done.
    """
    run = _Run(settings, vault, hooks or Hooks())
    try:
        return run.index(full, limit, accept_deletions)
    finally:
        run.close()


def sample_chunks(settings: Settings, vault: Path, n: int, seed: int) -> list[str]:
    """`n` chunk texts of a vault, a seeded choice over all notes: what benchmarks embed. Fewer where the vault has
    fewer."""
    files = list(walk(open_vault(vault), load_exclusions(vault, settings.exclude)).files)
    order = np.random.default_rng(seed).permutation(len(files))
    model = choose_models(settings, vault, files).models[0]
    chunker = chunker_spec(settings, model, find_boilerplate(files)).build()
    texts: list[str] = []
    for i in order:
        result = read_and_chunk(files[i], b"", chunker)
        texts.extend(chunk.text for chunk in result.chunks)
        if len(texts) >= 4 * n:  # a long note must not be the whole sample
            break
    picked = np.random.default_rng(seed).permutation(len(texts))[:n]
    return [texts[i] for i in sorted(picked)]


class _Run:
    """One run over one vault; holds what its threads share."""

    def __init__(self, settings: Settings, vault: Path, hooks: Hooks) -> None:
        self.settings = settings
        self.vault = open_vault(vault)
        self.hooks = hooks
        self.report = IndexReport()
        self.started = time.perf_counter()
        self.seen_ns = 0  # when the walk began
        self.place = (0, 0)
        self.accept_deletions = False
        self.boilerplate: frozenset[str] = frozenset()
        self.connected: Engine | None = None  # the server engine, when config.py asks for one
        self.early: Future[Engine] | None = None  # the first model of a new index, loaded while notes are read
        self.first_batch = 0.0
        self.last_batch = 0.0

    def index(self, full: bool, limit: int | None, accept_deletions: bool) -> IndexReport:
        with writer_lock(self.settings.vault_dir(self.vault)):
            self.seen_ns, self.place, self.accept_deletions = time.time_ns(), self._where(), accept_deletions
            walked = walk(self.vault, load_exclusions(self.vault, self.settings.exclude))
            if not walked.files and not accept_deletions:
                raise VaultError(
                    f"{self.vault} holds no notes (.md or .canvas); check the path, that its drive is mounted, and "
                    "EXCLUDE "
                    "in config.py"
                )
            choice = self._choose(walked.files)
            index = index_folder(self.settings, self.vault, choice.models)
            with self._ledger(index) as ledger, ledger.errors_told():
                if not ledger.meta("vault") and (line := language_warning(choice.models, sample_texts(walked.files))):
                    self.hooks.notify(line)  # before an hour is spent
                reread = self._prepare(ledger, index, choice) or full
                if not ledger.has_notes() and not self.connected:
                    self._build_early(choice.models[0])
                self.boilerplate, changed = vault_boilerplate(ledger, walked.files, full)
                reread = reread or changed
                if changed and self.boilerplate:
                    self.hooks.notify(boilerplate_line(self.boilerplate))
                stored = ledger.notes()
                changes = find_changes(walked.files, walked.unreadable, stored, reread, limit)
                self._delete(ledger, stored, changes.gone, 0)
                self._work(ledger, index, choice, changes, stored, reread)
                self._finish(ledger, index, changes)
        return self.report

    def close(self) -> None:
        """Hang up on a server, also when there was nothing to embed."""
        if self.connected:
            self.connected.close()

    def _where(self) -> tuple[int, int]:
        """(device, inode) of the vault's folder; another one when a drive is mounted there, or no longer is."""
        try:
            status = self.vault.stat()
        except OSError:
            return 0, 0
        return status.st_dev, status.st_ino

    def _choose(self, files: Sequence[NoteFile]) -> Choice:
        """The models of this index. A server is asked at once: only it knows its model's dimensions and version."""
        if self.settings.engine not in SERVERS:
            return choose_models(self.settings, self.vault, files)
        model = resolve(server_model(self.settings))
        self.connected = self._build(model)
        return Choice((self.connected.model,), f"config.py asks for {model.name} on {self.connected.device}")

    def _build(self, model: ModelSpec) -> Engine:
        return self.hooks.engines(self.settings, model, self.settings.models_dir, self.hooks.notify)

    def _build_early(self, model: ModelSpec) -> None:
        """Load the model of a new index in a thread: it will be needed, and reading does not need it."""
        loader = ThreadPoolExecutor(1, thread_name_prefix="model")
        self.early = loader.submit(self._build, model)
        loader.shutdown(wait=False)

    def _engine(self, model: ModelSpec) -> Engine:
        """The model, wherever it was loaded first."""
        early, self.early = self.early, None
        return self.connected or (early.result() if early else self._build(model))

    def _ledger(self, index: IndexFolder) -> Ledger:
        return Ledger(index.ledger)

    def _prepare(self, ledger: Ledger, index: IndexFolder, choice: Choice) -> bool:
        """A new index gets its facts; one from an older keyword version is brought up to date. Returns whether every
        note must be read again, because another reader or chunker read them."""
        from vaultvec import store

        if not ledger.meta("vault"):
            with ledger.transaction():
                for key, value in {"reason": choice.reason, **VERSIONS, "vault": str(self.vault)}.items():
                    ledger.set_meta(key, value)
            self.hooks.notify(f"model: {' + '.join(m.name for m in choice.models)} ({choice.reason})")
        if ledger.meta("keywords_version") != str(KEYWORDS_VERSION):
            ledger.rebuild_keywords()
        if not store.exists(index.chroma):
            for number, *_ in ledger.models():
                ledger.fill_outbox(number)  # Chroma's folder is gone, or was never made: all rows are due
        if not has_current(index):
            set_current(index)  # the first index answers while it grows
        return any(ledger.meta(key) != value for key, value in VERSIONS.items())

    def _delete(self, ledger: Ledger, stored: dict[str, StoredNote], gone: Sequence[str], before: int) -> None:
        """Forget notes that are gone, unless so many are (with those `before`) that the vault itself may be."""
        known = [path for path in gone if path in stored]
        if known and not self.accept_deletions:
            forbid_mass_deletion(len(stored), len(known) + before, self.vault)
        self.report.notes_deleted += ledger.delete_notes(known)

    def _work(
        self,
        ledger: Ledger,
        index: IndexFolder,
        choice: Choice,
        changes: Changes,
        stored: dict[str, StoredNote],
        reread: bool,
    ) -> None:
        """Read, embed and store, side by side. Nothing is started when there is nothing to do."""
        models = self._model_rows(ledger, choice.models)
        if not changes.files and not ledger.counts().pending and not ledger.outbox_size():
            self._describe(ledger, choice.models)
            return
        with ExitStack() as stack:
            reader = Reader(
                changes.files, {} if reread else stored, lambda: self._donating(index),
                chunker_spec(self.settings, choice.models[0], self.boilerplate), models,
                worker_count(self.settings, len(changes.files)), self.seen_ns,
            )  # fmt: skip
            verify = not self.settings.fast_mode
            writer = Writer(index, choice.models, [row.id for row in models], self.settings.batch_size, verify=verify)
            stack.callback(self._stop, reader, writer)
            reader.start()
            writer.start()
            for row, model in zip(models, choice.models, strict=True):
                self._embed(ledger, row, model, reader, writer)
            self._join(reader)
            self._delete(ledger, stored, reader.state.vanished, len(changes.gone))
            self._count(reader)
            writer.finish()
            if writer.damage:
                self.hooks.notify(f"Chroma was made anew from the ledger: {writer.damage.partition(';')[0]}")
            if writer.mended:
                self.hooks.notify(f"{writer.mended} rows of Chroma differed from the ledger and were written again")

    def _donating(self, index: IndexFolder) -> Ledger:
        ledger = self._ledger(index)
        ledger.adopt(sibling_ledgers(self.settings, index))
        return ledger

    def _model_rows(self, ledger: Ledger, models: Sequence[ModelSpec]) -> list[ModelRow]:
        rows = []
        for position, model in enumerate(models):
            fingerprint = model.fingerprint(precision_class(self.settings))
            encode = None
            if position:
                tokenizer = load_tokenizer(model, self.settings.models_dir)
                prefix, most = model.document_prefix, model.max_tokens
                encode = lambda texts, t=tokenizer, p=prefix, m=most: t.encode([p + text for text in texts], m)  # noqa: E731
            number = ledger.register_model(fingerprint, model.name, model.dim)
            rows.append(ModelRow(number, fingerprint, model.dim, reader_of(model, position), encode))
        return rows

    # ── embedding ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _embed(self, ledger: Ledger, row: ModelRow, model: ModelSpec, reader: Reader, writer: Writer) -> None:
        """Everything pending for one model. The engine is loaded only when there is something to embed."""
        first = self._first_window(ledger, row, reader)
        if not first:
            if not self.report.model:
                self._describe(ledger, [model])
            return
        engine = self._engine(model)
        try:
            self._describe_engine(ledger, engine)
            engine.warm_up()
            hashes: dict[int, bytes] = {}
            batches = self._batches(ledger, row, engine, reader, hashes)
            gc.freeze()  # what the run knows by now stays to its end; the collector need not look through it again and again
            busy_before = engine.busy_seconds
            began = time.perf_counter()
            self.first_batch = self.first_batch or began
            for result in engine.embed_batches(batches):
                self._check_threads(reader, writer)
                self._save(ledger, row, result, hashes)
                writer.wake()
                self._show(ledger, reader)
            self.last_batch = time.perf_counter()
            self.report.embed_seconds += self.last_batch - began
            self.report.model_busy_share = (engine.busy_seconds - busy_before) / max(1e-9, self.last_batch - began)
            if not self.settings.fast_mode:
                self._verify_vectors(ledger, row, engine)
        finally:
            gc.unfreeze()
            engine.close()

    def _first_window(self, ledger: Ledger, row: ModelRow, reader: Reader) -> bool:
        """Wait until there is something to embed, or until it is certain that there is not."""
        while True:
            alive = reader.is_alive()
            if ledger.take_pending(row.id, 0, 1):
                return True
            if not alive:
                self._raise(reader)
                return False
            self._show(ledger, reader)
            with reader.progress:
                reader.progress.wait(0.05)

    def _batches(
        self, ledger: Ledger, row: ModelRow, engine: Engine, reader: Reader, hashes: dict[int, bytes]
    ) -> Iterator[Batch]:
        """Windows of pending texts, sorted and cut by the token budget. Pulled lazily: nothing is gathered ahead."""
        after = windows = 0
        while True:
            alive = reader.is_alive()
            found = ledger.take_pending(row.id, after, engine.texts_per_window)
            if alive and len(found) < engine.texts_per_window and self._gather(reader):
                found = ledger.take_pending(row.id, after, engine.texts_per_window)
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
            if windows % TIDY_WINDOWS == 0 and not self.settings.fast_mode:
                gc.collect()

    def _gather(self, reader: Reader) -> bool:
        """Give the reader a moment to fill the window."""
        with reader.progress:
            reader.progress.wait(GATHER_SECONDS)
        return True

    def _save(self, ledger: Ledger, row: ModelRow, result: BatchResult, hashes: dict[int, bytes]) -> None:
        """One batch into the ledger, at once: a kill loses at most the batches that are in the model."""
        failed = dict(result.failed)
        good = [i for i in range(len(result.batch.items)) if i not in failed]
        digests = [hashes.pop(item.index) for item in result.batch.items]
        ledger.save_vectors(row.id, [digests[i] for i in good], result.vectors[good])
        for i, reason in failed.items():
            ledger.mark_failed(row.id, digests[i], reason)
        self.report.chunks_embedded += len(good)
        self.report.tokens += result.batch.n_tokens

    def _verify_vectors(self, ledger: Ledger, row: ModelRow, engine: Engine) -> None:
        """Embed a few stored texts once more: what lies on disk must be what the model says."""
        rows = ledger.db.execute(
            "SELECT text, vector FROM chunks JOIN vectors USING(hash) WHERE model = ? AND chunks.id IN "
            "(SELECT id FROM chunks ORDER BY random() LIMIT ?)",
            (row.id, VERIFY_TEXTS),
        ).fetchall()
        if not rows:
            return
        stored = np.stack([np.frombuffer(blob, dtype=np.float32) for _, blob in rows])
        lowest = float((engine.embed_documents([text for text, _ in rows]) * stored).sum(axis=1).min())
        if lowest < 0.999:
            raise EngineError(
                f"stored vectors differ from the model's (cosine {lowest:.4f}, expected ≥ 0.999); run: python main.py "
                "doctor"
            )
        self.report.verified = f"{len(rows)} vectors recomputed, lowest cosine {lowest:.5f}"

    # ── threads and reports ──────────────────────────────────────────────────────────────────────────────────────────

    def _check_threads(self, reader: Reader, writer: Writer) -> None:
        self._raise(reader)
        if writer.error:
            raise writer.error

    def _raise(self, reader: Reader) -> None:
        if reader.error:
            raise reader.error
        if reader.state.vanished and self._where() != self.place:
            raise VaultError(
                f"{self.vault} vanished while it was read; mount it again and rerun: what was done is kept"
            )

    def _join(self, reader: Reader) -> None:
        while reader.is_alive():
            reader.join(0.1)
        self._raise(reader)

    def _stop(self, reader: Reader, writer: Writer) -> None:
        """Also after Ctrl-C: threads end at their next commit, nothing half-done."""
        reader.stop.set()
        writer.stop.set()
        writer.wake()
        for thread in (reader, writer):
            if thread.is_alive():
                thread.join(30)
        self.report.peak_rss_mb = peak_rss_mb()

    def _count(self, reader: Reader) -> None:
        state = reader.state
        self.report.notes_indexed = state.indexed
        self.report.notes_unchanged += state.unchanged
        self.report.notes_deleted += state.refused
        self.report.notes_failed += state.failed
        self.report.warnings = state.warnings
        self.report.chunks_reused = max(0, state.chunks - state.new_texts)

    def _finish(self, ledger: Ledger, index: IndexFolder, changes: Changes) -> None:
        report = self.report
        counts = ledger.counts()
        report.notes_total = changes.total
        report.notes_unchanged += changes.unchanged
        report.notes_failed += list(changes.unreadable)
        report.notes_failed += [(path, f"{path}: {reason}") for path, reason in ledger.failures()]
        report.chunks_total = counts.chunks
        if counts.failed * 2 > max(1, counts.chunks):
            raise EngineError(
                f"{report.model} gave no usable vector for {counts.failed} of {counts.chunks} texts "
                f"({ledger.failures()[0][1]}); the index that answered before still does. Run: python main.py doctor"
            )
        if changes.complete:
            for key, value in VERSIONS.items():
                ledger.set_meta(key, value)
            if counts.pending == counts.failed:
                set_current(index)
        ledger.compact()
        report.peak_rss_mb = peak_rss_mb()
        report.seconds = time.perf_counter() - self.started

    def _describe(self, ledger: Ledger, models: Sequence[ModelSpec]) -> None:
        """What the index was made with, for a run that needed no model."""
        self.report.model = " + ".join(model.name for model in models)
        self.report.engine = ledger.meta("engine")
        self.report.precision = ledger.meta("precision")
        self.report.device = ledger.meta("device")

    def _describe_engine(self, ledger: Ledger, engine: Engine) -> None:
        for key, value in (("engine", engine.name), ("precision", engine.precision), ("device", engine.device)):
            ledger.set_meta(key, value)
        names = [self.report.model] if self.report.model else []
        self.report.model = " + ".join([*names, engine.model.name])
        self.report.engine, self.report.precision, self.report.device = engine.name, engine.precision, engine.device

    def _show(self, ledger: Ledger, reader: Reader) -> None:
        state = reader.state
        done = self.report.chunks_embedded
        self.hooks.progress(
            Progress(
                state.read, len(reader.files), done, done + self._waiting(ledger), self.report.tokens,
                time.perf_counter() - self.first_batch if self.first_batch else 0.0,
            )
        )  # fmt: skip

    def _waiting(self, ledger: Ledger) -> int:
        return int(ledger.db.execute("SELECT count(*) FROM pending").fetchone()[0])


def find_changes(
    files: Sequence[NoteFile],
    unreadable: Sequence[tuple[str, str]],
    stored: dict[str, StoredNote],
    full: bool,
    limit: int | None,
) -> Changes:
    """Which files to read and which notes are gone. Notes below a folder that could not be read are not gone."""
    present = {file.path for file in files}
    hidden = tuple("" if path == "." else f"{path}/" for path, _ in unreadable)
    gone = tuple(
        path for path in stored if path not in present and not path.startswith(hidden) and path not in dict(unreadable)
    )
    changed = [file for file in files if full or file.path not in stored or not stored[file.path].unchanged(file)]
    picked = changed if limit is None else changed[:limit]
    unchanged = len(files) - len(changed)
    return Changes(tuple(picked), gone, len(files), unchanged, tuple(unreadable))


def peak_rss_mb() -> float:
    """The most memory this process has held, in MB (10^6 bytes)."""
    if sys.platform == "win32":
        import psutil

        return float(psutil.Process().memory_info().peak_wset) / 1e6
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
