"""The per-file baseline: the embedder that the guide diagnosed, kept as it was, to measure against and to agree with.

Its five bottlenecks are real: an encode call per chunk, batches of 32, a resource check that blocks the work, caches
cleared once for every 32 chunks, and a store write per file. It keeps an index of its own, apart from the fast one, and embeds
everything each time.
Chunks are cut by the same chunker, so ids and vectors can be compared with obsidian_processor_optimized.py's.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import vaultvec.terminal.starting  # noqa: F401 first: it watches over the other imports

# isort: split
import numpy as np

from embeddings import EmbeddingModel
from vaultvec.boilerplate import find_boilerplate
from vaultvec.choice import choose_models
from vaultvec.chroma_folder import discard
from vaultvec.chunks import Chunker
from vaultvec.datatypes import Chunk, IndexReport, NoteFile, Vectors
from vaultvec.index import exclusions_of, writer_lock
from vaultvec.ledger import Ledger, ModelRow, content_hash
from vaultvec.memory import peak_rss_mb
from vaultvec.models import L6, resolve
from vaultvec.monitor import blocking_check
from vaultvec.settings import Settings
from vaultvec.stages.reading import chunker_spec, read_and_chunk
from vaultvec.store import ChromaStore
from vaultvec.vault import open_vault, walk

BATCH = 32


class ObsidianProcessor:
    """A vault, file by file. Raises VaultError when the vault cannot be opened."""

    def __init__(self, settings: Settings, vault: Path, *, notify: Callable[[str], None] = lambda _: None) -> None:
        self.settings = settings
        self.vault = open_vault(vault)
        self.notify = notify
        self.folder = settings.vault_dir(self.vault) / "baseline"
        self.report = IndexReport(engine="sentence-transformers", precision="fp32")
        self._last_check = 0.0

    def process_all_files(self, limit: int | None = None) -> IndexReport:
        """Every note, newest first, one after the other, from scratch."""
        started = time.perf_counter()
        files = walk(self.vault, exclusions_of(self.settings, self.vault)).files
        model = choose_models(self.settings, self.vault, files).models[0]
        if model.kind != "transformer":
            self.notify(f"the baseline is sentence-transformers, which cannot run {model.name}; it uses {L6}")
            model = resolve(L6)
        embedder = EmbeddingModel(model.name, settings=self.settings, notify=self.notify)
        chunker = chunker_spec(self.settings, model, find_boilerplate(files)).build()
        self.report.model, self.report.device = model.name, str(embedder.reference.device)
        loaded = time.perf_counter()
        with writer_lock(self.settings.vault_dir(self.vault)):
            discard(self.folder)
            with Ledger(self.folder / "ledger.sqlite3") as ledger:
                row = ModelRow(ledger.register_model(model.fingerprint("full"), model.name, model.dim), "", model.dim)
                store = ChromaStore(self.folder / "chroma", model.fingerprint("full"), model.name, model.dim)
                for number, file in enumerate(files[:limit], start=1):
                    self.process_file(file, chunker, embedder, ledger, row, store)
                    if number % 50 == 0:
                        self.notify(f"{number} of {len(files[:limit])} files, {self.report.chunks_embedded} chunks")
                store.close()
        self.report.notes_total = len(files)
        self.report.chunks_total = self.report.chunks_embedded
        ended = time.perf_counter()
        self.report.seconds, self.report.embed_seconds = ended - started, ended - loaded
        self.report.peak_rss_mb = peak_rss_mb()
        return self.report

    def process_file(
        self,
        file: NoteFile,
        chunker: Chunker,
        embedder: EmbeddingModel,
        ledger: Ledger,
        row: ModelRow,
        store: ChromaStore,
    ) -> None:
        """One note: a call per chunk (bottleneck 1), then a write to the store (as many writes as files)."""
        read = read_and_chunk(file, b"", chunker)
        if read.note is None:
            self.report.notes_failed.append((file.path, read.reason))
            return
        vectors = [self._embed(chunk, embedder) for chunk in read.chunks]
        ledger.apply_note(file, read.digest, read.note, read.chunks, [row])
        if vectors:
            ledger.save_vectors(row.id, [content_hash(c.text) for c in read.chunks], np.concatenate(vectors))
            store.sync(ledger, row.id, BATCH)
        self.report.notes_indexed += 1

    def _embed(self, chunk: Chunk, embedder: EmbeddingModel) -> Vectors:
        if time.perf_counter() - self._last_check >= self.settings.memory_check_interval:
            blocking_check()  # bottleneck 3: the work stands still meanwhile
            self._last_check = time.perf_counter()
        vector = embedder.get_embeddings_batch([chunk.text], batch_size=BATCH)  # bottlenecks 1 and 2
        self.report.chunks_embedded += 1
        self.report.vectors_made += 1
        if self.report.chunks_embedded % BATCH == 0:
            embedder.tidy()  # bottlenecks 4 and 5: "optimisation" for every batch, as often as the benchmark prices it
        self.report.tokens += len(chunk.token_ids)
        return vector


if __name__ == "__main__":
    import main
    from vaultvec.terminal.arguments import build_index_parser

    main.leave(main.main(["--baseline", *sys.argv[1:]], build_index_parser("obsidian_processor.py")))
