"""The whole line: read → chunk → embed → save, overlapped, bounded, resumable.

Three threads over one ledger file. The reader turns files into chunks and queues new texts in the ledger; the caller's
thread takes them from there, a window at a time, and keeps the model busy; the writer, in long runs a process of its
own, brings Chroma up behind. The queues lie on disk, so memory stays flat however large the vault, and a process killed
anywhere goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vaultvec.boilerplate import boilerplate_line, vault_boilerplate
from vaultvec.choice import Choice, language_warning, reader_of, sample_texts
from vaultvec.chroma_folder import damage, due_anew, unfinished
from vaultvec.chunks import CHUNKER_VERSION
from vaultvec.datatypes import IndexReport, NoteFile, TokenIds
from vaultvec.engines import accelerator_present, create_engine, load_tokenizer
from vaultvec.engines.tokenizer_threads import one_thread_meanwhile
from vaultvec.errors import EngineError, LedgerError, VaultError
from vaultvec.index import (
    IndexFolder,
    exclusions_of,
    has_current,
    index_folder,
    keep_exclusions,
    precision_class,
    set_current,
    sibling_ledgers,
    writer_lock,
)
from vaultvec.keywords import KEYWORDS_VERSION
from vaultvec.ledger import NOTES_SEEN, Ledger, ModelRow, StoredNote
from vaultvec.memory import peak_rss_mb
from vaultvec.models import ModelSpec
from vaultvec.names import vault_root
from vaultvec.notes import READER_VERSION
from vaultvec.settings import Settings
from vaultvec.sqlite.ledger_file import identity
from vaultvec.stages.changes import Changes, find_changes, forbid_mass_deletion
from vaultvec.stages.embedding import Embedding, Progress, describe
from vaultvec.stages.engine_loading import EngineFactory, EngineLoader
from vaultvec.stages.reading import Reader, chunker_spec, worker_count
from vaultvec.stages.writer_process import PAYS_FROM, WriterProcess
from vaultvec.stages.writing import Writer, WriterTask
from vaultvec.store import exists
from vaultvec.vault import WalkResult, open_vault, walk

VERSIONS = {
    "reader_version": str(READER_VERSION),
    "chunker_version": str(CHUNKER_VERSION),
}  # notes read by others are read again
WARN_FROM = 20  # changed notes, from which a run looks again whether the models know the vault's languages
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
    run = _Run(settings, vault, full, accept_deletions, hooks or Hooks())
    try:
        with writer_lock(settings.vault_dir(run.vault)):
            run.index(limit)
    finally:
        run.engines.close()
    return run.report


class _Run:
    """One run over one vault; holds what its parts share."""

    def __init__(self, settings: Settings, vault: Path, full: bool, accept_deletions: bool, hooks: Hooks) -> None:
        self.settings = settings
        self.vault = open_vault(vault)
        settings.vault_dir(vault_root(self.vault)[0])  # also of a folder within a vault: the data lie outside all of it
        self.full = full
        self.accept_deletions = accept_deletions
        self.hooks = hooks
        self.report = IndexReport()
        self.started = time.perf_counter()
        self.seen_ns = time.time_ns()  # what changed later may not have been seen by the walk
        self.place = identity(self.vault)  # another one when a drive is mounted there, or no longer is
        self.boilerplate: frozenset[str] = frozenset()
        self.beside_mb = 0.0  # the most memory that processes beside this one held
        self.engines = EngineLoader(settings, hooks.engines, hooks.notify)

    def index(self, limit: int | None) -> None:
        walked = self._walk()
        choice = self.engines.choose(self.vault, walked.files, self.full)
        index = index_folder(self.settings, self.vault, choice.models)
        with Ledger(index.ledger) as ledger, ledger.errors_told():
            renewed = self._prepare(ledger, index, choice) or self.full
            if not ledger.has_notes():
                ledger.set_meta(NOTES_SEEN, str(len(walked.files)))  # whoever asks before the first note is read
                self.engines.begin(choice.models[0])
            self.boilerplate, changed = vault_boilerplate(ledger, walked.files, renewed)
            if changed and self.boilerplate:
                self.hooks.notify(boilerplate_line(self.boilerplate))
            stored = ledger.notes()
            changes = find_changes(walked.files, walked.unreadable, stored, self.full, limit)
            if not stored or len(changes.files) >= WARN_FROM:
                self._warn(choice, walked.files)
            self._delete(ledger, len(stored), changes, changes.gone)
            if changes.files:
                ledger.set_meta(NOTES_SEEN, str(changes.total))
            self._work(ledger, index, choice, changes, stored)
            self._finish(ledger, index, changes)

    def _walk(self) -> WalkResult:
        """What lies in the vault. Raises VaultError when that is nothing."""
        exclusions = exclusions_of(self.settings, self.vault)
        for line in exclusions.warnings:
            self.hooks.notify(line)
        keep_exclusions(self.settings, self.vault, exclusions)
        walked = walk(self.vault, exclusions)
        self.report.warnings += walked.warnings
        if not walked.files and not self.accept_deletions:
            raise VaultError(
                f"{self.vault} holds no notes (.md or .canvas); check the path, that its drive is mounted, and "
                "EXCLUDE in config.py"
            )
        return walked

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
            if ledger.has_notes():
                self.hooks.notify("keyword index of another version: made anew from the ledger, without the model")
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

    def _warn(self, choice: Choice, files: Sequence[NoteFile]) -> None:
        """Of notes that no model reads, before an hour is spent."""
        choose = "python main.py index --full" if self.settings.embedding_model == "auto" else ""
        if line := language_warning(choice.models, sample_texts(files), choose=choose):
            self.hooks.notify(line)

    def _delete(self, ledger: Ledger, stored: int, changes: Changes, paths: Collection[str]) -> None:
        """Forget these notes, unless so many are gone, with those of before, that the vault itself may be."""
        if paths and not self.accept_deletions:
            forbid_mass_deletion(stored, {*changes.gone, *paths}, changes.arrived, self.vault)
        self.report.notes_deleted += ledger.delete_notes(paths)

    def _work(
        self, ledger: Ledger, index: IndexFolder, choice: Choice, changes: Changes, stored: dict[str, StoredNote]
    ) -> None:
        """Read, embed and store, side by side. Nothing is started when there is nothing to do."""
        models = self._model_rows(ledger, choice.models)
        most = max(len(changes.files), ledger.pending_size(), ledger.outbox_size())
        torn = unfinished(index.chroma)
        damaged = damage(ledger, index.chroma) if exists(index.chroma) else ""
        if not (most or torn or damaged):
            describe(self.report, ledger)
            self.report.model = " + ".join(model.name for model in choice.models)
            return
        reader = Reader(
            changes.files, {} if self.full else stored, lambda: self._donating(index),
            chunker_spec(self.settings, choice.models[0], self.boilerplate), models,
            worker_count(self.settings, len(changes.files)), self.seen_ns,
        )  # fmt: skip
        task = WriterTask(
            index.ledger, index.chroma, [row.id for row in models], self.settings.batch_size,
            verify=not self.settings.fast_mode, torn=torn, damage=damaged,
        )  # fmt: skip
        # A torn graph crashes the process that opens it: another one then, which is started again with a new graph.
        writer = WriterProcess(task) if torn or damaged or most >= PAYS_FROM else Writer(task)
        with one_thread_meanwhile(not accelerator_present()), self._side_by_side(reader, writer):
            check = partial(self._check, ledger, reader, writer)
            embedding = Embedding(
                ledger,
                reader,
                self.report,
                self.settings.fast_mode,
                self.hooks.progress,
                check,
                writer.wake,
                len(models),
            )
            for row, model in zip(models, choice.models, strict=True):
                embedding.run(row, model.name, partial(self.engines.engine, model))
            check()
            self._delete(ledger, len(stored), changes, stored.keys() & reader.state.vanished)
            self._count(reader)
            writer.finish(embedding.show_storing)
            check()
            if writer.damage:
                self.hooks.notify(f"Chroma was made anew from the ledger: {writer.damage.partition(';')[0]}")
            if writer.mended:
                self.hooks.notify(f"{writer.mended} rows of Chroma differed from the ledger and were written again")

    def _donating(self, index: IndexFolder) -> Ledger:
        ledger = Ledger(index.ledger)
        ledger.adopt(sibling_ledgers(self.settings, index))
        return ledger

    def _model_rows(self, ledger: Ledger, models: Sequence[ModelSpec]) -> list[ModelRow]:
        rows = []
        for position, model in enumerate(models):
            fingerprint = model.fingerprint(precision_class(self.settings))
            number = ledger.register_model(fingerprint, model.name, model.dim)
            encode = self._encoder(model) if position else None  # chunks are cut by the first one's tokenizer
            rows.append(ModelRow(number, fingerprint, model.dim, reader_of(model, position), encode))
        return rows

    def _encoder(self, model: ModelSpec) -> Callable[[list[str]], list[TokenIds]]:
        tokenizer = load_tokenizer(model, self.settings.models_dir)
        return lambda texts: tokenizer.encode([model.document_prefix + text for text in texts], model.max_tokens)

    # ── threads and reports ──────────────────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def _side_by_side(self, reader: Reader, writer: Writer | WriterProcess) -> Iterator[None]:
        """Also after Ctrl-C threads end at their next commit, nothing half-done."""
        try:
            reader.start()
            writer.start()
            yield
        finally:
            reader.stop.set()
            writer.stop(LONGEST_COMMIT)
            if reader.is_alive():
                reader.join(LONGEST_COMMIT)
            self.beside_mb = writer.peak_rss_mb + sum(reader.state.workers_mb.values())

    def _check(self, ledger: Ledger, reader: Reader, writer: Writer | WriterProcess) -> None:
        """Raises what a thread ran into, and when the vault or the index was taken away meanwhile."""
        for thread in (reader, writer):
            if thread.error:
                raise thread.error
        if reader.state.vanished and identity(self.vault) != self.place:
            raise VaultError(
                f"{self.vault} vanished while it was read; mount it again and rerun: what was done is kept"
            )
        if not ledger.in_place():
            raise LedgerError(
                f"{ledger.path.parent} was removed or replaced while it was written; run: python main.py index"
            )

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
        report.notes_total = changes.total + len(changes.unreadable)
        report.notes_unchanged += changes.unchanged
        report.notes_failed += changes.unreadable
        known = {file.path: (file.size, file.mtime_ns) for file in changes.files}
        # for whoever asks later; of what --limit left out, what is known of it
        before = [] if changes.complete else [row for row in ledger.unread().items() if row[0] not in known]
        unread = dict(before) | {path: (reason, *known.get(path, (0, 0))) for path, reason in report.notes_failed}
        ledger.keep_unread([(path, *row) for path, row in unread.items()])
        report.notes_failed += ledger.failures()
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
            if ledger.meta(NOTES_SEEN):
                ledger.set_meta(NOTES_SEEN, "")
        report.peak_rss_mb = peak_rss_mb() + self.beside_mb
        report.seconds = time.perf_counter() - self.started
