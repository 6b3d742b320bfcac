"""The whole line: read → chunk → embed → save, overlapped, bounded, resumable.

Three threads over one ledger file. The reader turns files into chunks and queues new texts in the ledger; the caller's
thread takes them from there, a window at a time, and keeps the model busy; the writer, in long runs a process of its
own, brings Chroma up behind. The queues lie on disk, so memory stays flat however large the vault, and a process killed
anywhere goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vaultvec.boilerplate import boilerplate_line, vault_boilerplate
from vaultvec.chunks import CHUNKER_VERSION
from vaultvec.datatypes import IndexReport, NoteFile
from vaultvec.engines import accelerator_present, create_engine, load_tokenizer
from vaultvec.engines.tokenizer_threads import one_thread_meanwhile
from vaultvec.errors import EngineError, VaultError
from vaultvec.index import (
    Choice,
    IndexFolder,
    exclusions_of,
    forbid_mass_deletion,
    has_current,
    index_folder,
    keep_exclusions,
    language_warning,
    precision_class,
    reader_of,
    sample_texts,
    set_current,
    sibling_ledgers,
    writer_lock,
)
from vaultvec.keywords import KEYWORDS_VERSION
from vaultvec.ledger import Ledger, ModelRow, StoredNote
from vaultvec.memory import peak_rss_mb
from vaultvec.models import ModelSpec
from vaultvec.names import vault_root
from vaultvec.notes import READER_VERSION
from vaultvec.settings import Settings
from vaultvec.stages.changes import Changes, find_changes
from vaultvec.stages.embedding import Embedding, Progress, describe
from vaultvec.stages.engine_loading import EngineFactory, EngineLoader
from vaultvec.stages.reading import Reader, chunker_spec, worker_count
from vaultvec.stages.writer_process import PAYS_FROM, WriterProcess
from vaultvec.stages.writing import Writer, WriterTask
from vaultvec.store import due_anew, exists, stamped, unfinished
from vaultvec.vault import open_vault, walk

VERSIONS = {
    "reader_version": str(READER_VERSION),
    "chunker_version": str(CHUNKER_VERSION),
}  # notes read by others are read again
WARN_FROM = 20  # changed notes, from which a run looks again whether the models know the vault's languages
OTHER_CHROMA = "it is not the one that the ledger knows, but a copy from another time"
LONGEST_COMMIT = 30  # seconds that a thread or process is given to end

Notify = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Hooks:
    """How a run talks: `progress` often, `notify` with a line now and then. `engines` builds them (tests inject
    theirs)."""

    progress: Callable[[Progress], None] = lambda _: None
    notify: Notify = lambda _: None
    engines: EngineFactory = create_engine


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
        run.engines.close()


class _Run:
    """One run over one vault; holds what its threads share."""

    def __init__(self, settings: Settings, vault: Path, hooks: Hooks) -> None:
        self.settings = settings
        self.vault = open_vault(vault)
        settings.vault_dir(vault_root(self.vault)[0])  # also of a folder within a vault: the data lie outside all of it
        self.hooks = hooks
        self.report = IndexReport()
        self.started = time.perf_counter()
        self.seen_ns = 0  # when the walk began
        self.place = (0, 0)
        self.accept_deletions = False
        self.arrived = 0  # notes that the ledger does not know
        self.boilerplate: frozenset[str] = frozenset()
        self.beside_mb = 0.0  # the most memory that processes beside this one held
        self.engines = EngineLoader(settings, self.hooks.engines, self.hooks.notify)

    def index(self, full: bool, limit: int | None, accept_deletions: bool) -> IndexReport:
        with writer_lock(self.settings.vault_dir(self.vault)):
            self.seen_ns, self.place, self.accept_deletions = time.time_ns(), self._where(), accept_deletions
            exclusions = exclusions_of(self.settings, self.vault)
            for line in exclusions.warnings:
                self.hooks.notify(line)
            keep_exclusions(self.settings, self.vault, exclusions)
            walked = walk(self.vault, exclusions)
            self.report.warnings += walked.warnings
            if not walked.files and not accept_deletions:
                raise VaultError(
                    f"{self.vault} holds no notes (.md or .canvas); check the path, that its drive is mounted, and "
                    "EXCLUDE in config.py"
                )
            choice = self.engines.choose(self.vault, walked.files, full)
            index = index_folder(self.settings, self.vault, choice.models)
            with self._ledger(index) as ledger, ledger.errors_told():
                if not ledger.meta("vault"):
                    self._warn(choice, walked.files)
                renewed = self._prepare(ledger, index, choice) or full
                if not ledger.has_notes():
                    self.engines.begin(choice.models[0])
                self.boilerplate, changed = vault_boilerplate(ledger, walked.files, renewed)
                if changed and self.boilerplate:
                    self.hooks.notify(boilerplate_line(self.boilerplate))
                stored = ledger.notes()
                changes = find_changes(walked.files, walked.unreadable, stored, full, limit)
                if stored and len(changes.files) >= WARN_FROM:
                    self._warn(choice, walked.files)
                self.arrived = sum(file.path not in stored for file in walked.files)
                self._delete(ledger, stored, changes.gone)
                self._work(ledger, index, choice, changes, stored, full)
                self._finish(ledger, index, changes)
        return self.report

    def _where(self) -> tuple[int, int]:
        """(device, inode) of the vault's folder; another one when a drive is mounted there, or no longer is."""
        try:
            status = self.vault.stat()
        except OSError:
            return 0, 0
        return status.st_dev, status.st_ino

    def _warn(self, choice: Choice, files: Sequence[NoteFile]) -> None:
        """Of notes that no model reads, before an hour is spent."""
        chosen = self.settings.embedding_model == "auto"
        if line := language_warning(choice.models, sample_texts(files), chosen=chosen):
            self.hooks.notify(line)

    def _ledger(self, index: IndexFolder) -> Ledger:
        return Ledger(index.ledger)

    def _prepare(self, ledger: Ledger, index: IndexFolder, choice: Choice) -> bool:
        """A new index gets its facts; one from an older keyword version is brought up to date, and notes that another
        reader or chunker read are marked to be read again. Returns whether they were."""
        older = [key for key, value in VERSIONS.items() if ledger.meta(key) != value]
        if not ledger.meta("vault"):
            with ledger.transaction():
                for key, value in {"reason": choice.reason, **VERSIONS, "vault": str(self.vault)}.items():
                    ledger.set_meta(key, value)
            self.hooks.notify(f"model: {' + '.join(m.name for m in choice.models)} ({choice.reason})")
        if ledger.meta("keywords_version") != str(KEYWORDS_VERSION):
            ledger.rebuild_keywords()
        if not exists(index.chroma):
            due_anew(ledger)  # Chroma's folder is gone, or was never made
        if not has_current(index):
            set_current(index)  # the first index answers while it grows
        if older:
            with ledger.transaction():
                ledger.read_again(ledger.notes())
                for key in older:
                    ledger.set_meta(key, VERSIONS[key])
        return bool(older)

    def _delete(
        self, ledger: Ledger, stored: dict[str, StoredNote], gone: Sequence[str], before: Sequence[str] = ()
    ) -> None:
        """Forget notes that are gone, unless so many are (with those `before`) that the vault itself may be."""
        known = [path for path in gone if path in stored]
        if known and not self.accept_deletions:
            forbid_mass_deletion(len(stored), [*before, *known], self.arrived, self.vault)
        self.report.notes_deleted += ledger.delete_notes(known)

    def _work(
        self,
        ledger: Ledger,
        index: IndexFolder,
        choice: Choice,
        changes: Changes,
        stored: dict[str, StoredNote],
        full: bool,
    ) -> None:
        """Read, embed and store, side by side. Nothing is started when there is nothing to do."""
        models = self._model_rows(ledger, choice.models)
        work = (len(changes.files), ledger.counts().pending, ledger.outbox_size())
        torn = unfinished(index.chroma)
        other = exists(index.chroma) and not stamped(ledger, index.chroma)
        if not (any(work) or torn or other):
            describe(self.report, ledger)
            self.report.model = " + ".join(model.name for model in choice.models)
            return
        with ExitStack() as stack:
            stack.enter_context(one_thread_meanwhile(not accelerator_present()))
            reader = Reader(
                changes.files, {} if full else stored, lambda: self._donating(index),
                chunker_spec(self.settings, choice.models[0], self.boilerplate), models,
                worker_count(self.settings, len(changes.files)), self.seen_ns,
            )  # fmt: skip
            task = WriterTask(
                index.ledger, index.chroma, [row.id for row in models], self.settings.batch_size,
                verify=not self.settings.fast_mode, torn=torn, damage=OTHER_CHROMA if other else "",
            )  # fmt: skip
            # A torn graph crashes the process that opens it: another one then, which is started again with a new graph.
            writer = WriterProcess(task) if torn or other or max(work) >= PAYS_FROM else Writer(task)
            stack.callback(self._stop, reader, writer)
            reader.start()
            writer.start()
            embedding = Embedding(
                ledger, reader, self.report, self.settings.fast_mode, self.hooks.progress,
                lambda: self._check(reader, writer), writer.wake,
            )  # fmt: skip
            for row, model in zip(models, choice.models, strict=True):
                embedding.run(row, model.name, partial(self.engines.engine, model))
            self._join(reader, writer)
            self._delete(ledger, stored, reader.state.vanished, changes.gone)
            self._count(reader)
            writer.finish(embedding.show_storing)
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

    # ── threads and reports ──────────────────────────────────────────────────────────────────────────────────────────

    def _check(self, reader: Reader, writer: Writer | WriterProcess) -> None:
        for thread in (reader, writer):
            if thread.error:
                raise thread.error
        if reader.state.vanished and self._where() != self.place:
            raise VaultError(
                f"{self.vault} vanished while it was read; mount it again and rerun: what was done is kept"
            )

    def _join(self, reader: Reader, writer: Writer | WriterProcess) -> None:
        while reader.is_alive():
            reader.join(0.1)
        self._check(reader, writer)

    def _stop(self, reader: Reader, writer: Writer | WriterProcess) -> None:
        """Also after Ctrl-C: threads end at their next commit, nothing half-done."""
        reader.stop.set()
        writer.stop(LONGEST_COMMIT)
        if reader.is_alive():
            reader.join(LONGEST_COMMIT)
        self.beside_mb = writer.peak_rss_mb + sum(reader.state.workers_mb.values())
        self.report.peak_rss_mb = peak_rss_mb() + self.beside_mb

    def _count(self, reader: Reader) -> None:
        state = reader.state
        self.report.notes_indexed = state.indexed
        self.report.notes_unchanged += state.unchanged
        self.report.notes_deleted += state.refused
        self.report.notes_failed += state.failed
        self.report.warnings += state.warnings
        self.report.chunks_reused = max(0, state.chunks - state.new_texts)

    def _finish(self, ledger: Ledger, index: IndexFolder, changes: Changes) -> None:
        report = self.report
        counts = ledger.counts()
        report.notes_total = changes.total
        report.notes_unchanged += changes.unchanged
        self._keep_unread(ledger, changes)
        report.notes_failed += list(changes.unreadable)
        report.notes_failed += [(path, f"{path}: {reason}") for path, reason in ledger.failures()]
        report.chunks_total = counts.chunks
        if counts.failed * 2 > max(1, counts.chunks):
            raise EngineError(
                f"{report.model} gave no usable vector for {counts.failed} of {counts.chunks} texts "
                f"({ledger.failures()[0][1]}); the index that answered before still does. Run: python main.py doctor"
            )
        if changes.complete and counts.pending == counts.failed:
            set_current(index)
        if changes.complete:  # after --limit, notes that only moved still need their vectors
            ledger.compact()
        report.peak_rss_mb = peak_rss_mb() + self.beside_mb
        report.seconds = time.perf_counter() - self.started

    def _keep_unread(self, ledger: Ledger, changes: Changes) -> None:
        """Which notes could not be read, for whoever asks later."""
        if changes.complete:
            known = {file.path: (file.size, file.mtime_ns) for file in changes.files}
            failed = [*self.report.notes_failed, *changes.unreadable]
            ledger.keep_unread([(path, reason, *known.get(path, (0, 0))) for path, reason in failed])
