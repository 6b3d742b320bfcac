"""Whole-vault batch processing, as the guide asks: collect every chunk, embed in large sorted batches, save in one go.

`process_all_files_batch` is what `main.py` runs. It goes through the pipeline (vaultvec/pipeline.py), where the guide's
three steps overlap and survive a kill; `_extract_chunks_from_file` and `_save_vectors_batch` are the same steps for one
file and one batch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import vaultvec.terminal.starting  # noqa: F401 first: it watches over the other imports
from vaultvec.boilerplate import find_boilerplate
from vaultvec.choice import choose_models
from vaultvec.chunks import Chunker
from vaultvec.datatypes import Chunk, IndexReport, NoteFile, Vectors
from vaultvec.errors import VaultError
from vaultvec.index import exclusions_of
from vaultvec.ledger import Ledger, content_hash
from vaultvec.pipeline import Hooks, index_vault
from vaultvec.settings import Settings
from vaultvec.stages.embedding import Progress
from vaultvec.stages.reading import chunker_spec, read_and_chunk
from vaultvec.vault import open_vault, walk


class OptimizedObsidianProcessor:
    """A vault and its settings. Raises VaultError when the vault cannot be opened."""

    def __init__(
        self,
        settings: Settings,
        vault: Path,
        *,
        progress: Callable[[Progress], None] = lambda _: None,
        notify: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.settings = settings
        self.vault = open_vault(vault)
        self.hooks = Hooks(progress, notify)
        self._chunker: Chunker | None = None

    def process_all_files_batch(
        self, *, full: bool = False, limit: int | None = None, accept_deletions: bool = False
    ) -> IndexReport:
        """Bring the whole vault's index up to date; see `pipeline.index_vault` for the errors."""
        return index_vault(
            self.settings, self.vault, full=full, limit=limit, accept_deletions=accept_deletions, hooks=self.hooks
        )

    def files(self) -> list[NoteFile]:
        """The notes of the vault, newest first."""
        return walk(self.vault, exclusions_of(self.settings, self.vault)).files

    def _extract_chunks_from_file(self, file: NoteFile) -> tuple[list[Chunk], list[dict[str, Any]]]:
        """Chunks of one file and a metadata row for each. Raises VaultError when the file is no note."""
        if self._chunker is None:
            files = self.files()
            model = choose_models(self.settings, self.vault, files).models[0]
            self._chunker = chunker_spec(self.settings, model, find_boilerplate(files)).build()
        result = read_and_chunk(file, b"", self._chunker)
        if result.note is None:
            raise VaultError(result.reason)
        rows = [
            {"path": c.path, "title": result.note.title, "heading": c.heading, "start_line": c.start_line}
            for c in result.chunks
        ]
        return list(result.chunks), rows

    def _save_vectors_batch(self, ledger: Ledger, model: int, chunks: Sequence[Chunk], vectors: Vectors) -> int:
        """Vectors (n, dim) of `chunks` into the ledger in one transaction. Returns how many chunks they serve."""
        return ledger.save_vectors(model, [content_hash(chunk.text) for chunk in chunks], vectors)


if __name__ == "__main__":
    import main
    from vaultvec.terminal.arguments import build_index_parser

    main.leave(main.main(sys.argv[1:], build_index_parser("obsidian_processor_optimized.py")))
