"""Files → notes → chunks → ledger: the reading half of the pipeline, in one thread, with processes beside it for large
vaults."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from vaultvec.chunks import Chunker, ChunkLimits
from vaultvec.cores import usable_cores
from vaultvec.datatypes import Chunk, Note, NoteFile
from vaultvec.engines import accelerator_present, load_tokenizer
from vaultvec.engines.tokenizer_threads import one_thread
from vaultvec.errors import VaultError
from vaultvec.ledger import Ledger, ModelRow, StoredNote
from vaultvec.memory import peak_rss_mb
from vaultvec.models import ModelSpec
from vaultvec.note_file import digest, read_bytes
from vaultvec.notes import parse_note
from vaultvec.settings import Settings

WORKERS_PAY_FROM = 4000  # notes to read; below, starting processes costs more than it brings (benchmarks/workers.py)
WORKERS_PAY_FROM_GPU = 500  # one process reads about 400 notes a second, fewer than a GPU embeds
COMMIT_NOTES = 32  # notes of one transaction: a reader of the index sees them appear together
COMMIT_CHUNKS = (
    2000  # and the most chunks, so that no transaction lasts long and no page of large notes fills the memory
)
RACY_NS = 2 * 10**9  # the coarsest clock of a file system in use (FAT: 2 s)
CHUNK_OF_WORK = 16  # notes sent to a process at a time


@dataclass(frozen=True, slots=True)
class ChunkerSpec:
    """What a process needs to build the chunker: sent instead of the tokenizer."""

    model: ModelSpec
    models_dir: Path
    limits: ChunkLimits
    boilerplate: frozenset[str] = frozenset()

    def build(self) -> Chunker:
        """Load the tokenizer, no model."""
        tokenizer = load_tokenizer(self.model, self.models_dir)
        return Chunker(tokenizer, self.limits, self.model.document_prefix, self.boilerplate)


def chunker_spec(settings: Settings, model: ModelSpec, boilerplate: frozenset[str] = frozenset()) -> ChunkerSpec:
    """The chunker for a model and config.py's chunk sizes; `boilerplate` lines are left out."""
    limits = ChunkLimits(settings.chunk_tokens, settings.min_chunk_tokens, model.max_tokens)
    return ChunkerSpec(model, settings.models_dir, limits, boilerplate)


@dataclass(frozen=True, slots=True)
class ReadNote:
    """A file read: `note` is None when its content is what the ledger has; `reason` when it could not be read.

    Only bytes that were read and are no note (`refused`) take the place of what the index has of that file.
    """

    file: NoteFile
    digest: bytes = b""
    note: Note | None = None
    chunks: tuple[Chunk, ...] = ()
    reason: str = ""
    vanished: bool = False
    refused: bool = False


def read_and_chunk(file: NoteFile, known_digest: bytes, chunker: Chunker) -> ReadNote:
    """One file to its chunks. Whatever is wrong with one note is told in the result, never raised."""
    try:
        data = read_bytes(file)
    except VaultError as error:
        return ReadNote(file, reason=str(error), vanished=not os.path.lexists(file.absolute))
    except MemoryError:
        return ReadNote(file, reason="there is too little memory to read it")
    found = digest(data)
    if found == known_digest:
        return ReadNote(file, found)
    try:
        note = parse_note(file.path, data)
        return ReadNote(file, found, note, tuple(chunker.chunk(note)))
    except VaultError as error:
        return ReadNote(file, found, reason=str(error), refused=True)
    except Exception as error:  # a fault of ours, of YAML's or of the tokenizer's: it costs one note, not the run
        return ReadNote(file, reason=f"could not be parsed ({type(error).__name__}: {error}); please report it")


def settled(file: NoteFile, seen_ns: int) -> NoteFile:
    """The file as the ledger keeps it. One that changed just before it was seen at `seen_ns` may change again within
    the same tick of the file system's clock, unseen: it is kept without its ctime, so the next run compares its
    content."""
    return replace(file, ctime_ns=0) if file.ctime_ns > seen_ns - RACY_NS else file


def _page(results: Iterator[ReadNote]) -> Iterator[ReadNote]:
    """What is committed together: COMMIT_NOTES notes, or fewer once they have COMMIT_CHUNKS chunks."""
    chunks = 0
    for result in islice(results, COMMIT_NOTES):
        yield result
        chunks += len(result.chunks)
        if chunks >= COMMIT_CHUNKS:
            return


@dataclass(slots=True)
class ReaderState:
    """What the reader has done so far; written by its thread alone."""

    read: int = 0
    indexed: int = 0
    unchanged: int = 0
    vanished: list[str] = field(default_factory=list)  # paths; the pipeline decides whether that is believed
    refused: int = 0
    chunks: int = 0
    new_texts: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[tuple[str, str]] = field(default_factory=list)
    workers_mb: dict[int, float] = field(default_factory=dict)  # process id → the most memory it held, 10^6 bytes


class Reader(threading.Thread):
    """Reads files in the order given and applies them to the ledger, over its own connection, until done or stopped."""

    def __init__(
        self,
        files: Sequence[NoteFile],
        stored: dict[str, StoredNote],
        ledger: Callable[[], Ledger],
        spec: ChunkerSpec,
        models: Sequence[ModelRow],
        workers: int,
        seen_ns: int,
    ) -> None:
        super().__init__(name="reader", daemon=True)
        self.files = files
        self.state = ReaderState()
        self.stop = threading.Event()
        self.error: BaseException | None = None
        self.progress = threading.Condition()
        self._stored = stored
        self._open_ledger = ledger
        self._spec = spec
        self._models = models
        self._workers = workers
        self._seen_ns = seen_ns

    def run(self) -> None:
        """Thread body; an error is kept in `error` for the pipeline to raise."""
        try:
            with self._open_ledger() as ledger:
                results = self._results()
                while page := list(_page(results)):
                    with ledger.transaction():
                        for result in page:
                            self._apply(ledger, result)
                    with self.progress:
                        self.progress.notify_all()
        except BaseException as error:  # the pipeline raises it in its own thread
            self.error = error
        finally:
            with self.progress:
                self.progress.notify_all()

    def _digest(self, file: NoteFile) -> bytes:
        known = self._stored.get(file.path)
        return known.digest if known else b""

    def _results(self) -> Iterator[ReadNote]:
        if self._workers > 0:
            yield from self._in_processes()
            return
        chunker = self._spec.build()
        for file in self.files:
            if self.stop.is_set():
                return
            yield read_and_chunk(file, self._digest(file), chunker)

    def _in_processes(self) -> Iterator[ReadNote]:
        """The same by a pool of processes, in order, a bounded number of notes ahead."""
        context = multiprocessing.get_context("spawn")
        work = [self.files[i : i + CHUNK_OF_WORK] for i in range(0, len(self.files), CHUNK_OF_WORK)]
        with ProcessPoolExecutor(self._workers, context, _start_worker, (self._spec,)) as pool:
            waiting: list[Future[_Work]] = []
            try:
                for files in work:
                    if self.stop.is_set():
                        return
                    waiting.append(pool.submit(_work, [(file, self._digest(file)) for file in files]))
                    if len(waiting) > 2 * self._workers:
                        yield from self._results_of(waiting.pop(0))
                for future in waiting:
                    yield from self._results_of(future)
            except BrokenProcessPool as error:
                raise VaultError("a reading process died (out of memory?); set WORKERS = 0 in config.py") from error
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _results_of(self, work: Future[_Work]) -> list[ReadNote]:
        done = work.result()
        self.state.workers_mb[done.process] = done.peak_rss_mb
        return done.results

    def _apply(self, ledger: Ledger, result: ReadNote) -> None:
        state = self.state
        state.read += 1
        path = result.file.path
        file = settled(result.file, self._seen_ns)
        if result.vanished:
            state.vanished.append(path)
        elif result.reason:
            state.failed.append((path, result.reason))
            if result.refused:
                state.refused += ledger.delete_notes([path])  # what the index has of it is no longer in the file
        elif result.note is None:
            ledger.touch(file)
            state.unchanged += 1
        else:
            state.new_texts += ledger.apply_note(file, result.digest, result.note, result.chunks, self._models)
            state.indexed += 1
            state.chunks += len(result.chunks)
            state.warnings.extend((path, warning) for warning in result.note.warnings)


_worker_chunker: Chunker | None = None


def _start_worker(spec: ChunkerSpec) -> None:
    global _worker_chunker  # one chunker a process, built once
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to hear: it stops its readers in good order
    threading.Thread(target=_end_with_parent, daemon=True).start()
    one_thread()
    _worker_chunker = spec.build()


def _end_with_parent() -> None:
    """A parent that was killed tells nobody: its readers would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@dataclass(frozen=True, slots=True)
class _Work:
    """What a reading process sends back."""

    results: list[ReadNote]
    process: int
    peak_rss_mb: float


def _work(files: list[tuple[NoteFile, bytes]]) -> _Work:
    if _worker_chunker is None:
        raise RuntimeError("the worker was not started by Reader")
    results = [read_and_chunk(file, digest, _worker_chunker) for file, digest in files]
    return _Work(results, os.getpid(), peak_rss_mb())


def worker_count(settings: Settings, files: int) -> int:
    """Processes to read with: config.py's number, or for "auto" half the cores where that pays."""
    if settings.workers is not None:
        return settings.workers if files > CHUNK_OF_WORK else 0
    cores = usable_cores()
    pays = WORKERS_PAY_FROM_GPU if accelerator_present() else WORKERS_PAY_FROM
    return cores // 2 if files >= pays and cores >= 4 else 0
