"""A small searchable index without a model: a text's vector is the sum of its words' vectors, each drawn from the word alone."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vaultvec.datatypes import Chunk, Note, NoteFile, Vectors
from vaultvec.ledger import Ledger, ModelRow, content_hash
from vaultvec.models import ModelSpec
from vaultvec.ranking.semantic import ModelSlot
from vaultvec.search import Searcher

DIM = 64
SECOND_NS = 10**9


def word_vectors(texts: Sequence[str]) -> Vectors:
    """(n, DIM) unit rows."""
    rows = np.zeros((len(texts), DIM), np.float32)
    for row, text in zip(rows, texts, strict=True):
        for word in re.findall(r"\w+", text.casefold()) or [text]:
            seed = hashlib.blake2b(word.encode(), digest_size=8).digest()
            row += np.random.default_rng(int.from_bytes(seed, "little")).standard_normal(DIM, dtype=np.float32)
        row /= np.linalg.norm(row)
    return rows


class WordEngine:
    """What a searcher asks of an engine."""

    def embed_query(self, text: str) -> Vectors:
        """(DIM,)"""
        vector: Vectors = word_vectors([text])[0]
        return vector

    def close(self) -> None:
        """Nothing to release."""


class MadeIndex:
    """A ledger that notes are put into by hand, and searchers over it."""

    def __init__(self, folder: Path, languages: Sequence[tuple[str, ...]] = (("*",),)) -> None:
        self.folder = folder
        self.specs = [ModelSpec(f"model {i}", "made", DIM, 256, codes) for i, codes in enumerate(languages)]
        with Ledger(self.path) as ledger:
            self.rows = [ledger.register_model(spec.name, spec.name, DIM) for spec in self.specs]

    @property
    def path(self) -> Path:
        """The ledger's file."""
        return self.folder / "ledger.sqlite3"

    def put(
        self, path: str, *bodies: str, tags: Sequence[str] = (), links: Sequence[str] = (), aliases: Sequence[str] = (),
        day: int = 1, models: Sequence[int] | None = None,
    ) -> None:  # fmt: skip
        """A note of one chunk a body, changed on that day of January 1970, read by the models at these positions."""
        title = path.rpartition("/")[2].removesuffix(".md")
        ids = np.zeros(1, np.int32)
        texts = [f"{title}\n{body}" for body in bodies]
        chunks = [Chunk(path, i, "", text, len(title) + 1, 1 + i, ids) for i, text in enumerate(texts)]
        note = Note(path, title, "", 1, tuple(tags), tuple(aliases), tuple(links))
        file = NoteFile(path, path, 1, day * 86_400 * SECOND_NS, 1)
        with Ledger(self.path) as ledger:
            picked = [self.rows[i] for i in (range(len(self.rows)) if models is None else models)]
            ledger.apply_note(file, b"x", note, chunks, [ModelRow(row, str(row), DIM) for row in picked])
            for row in picked:
                ledger.save_vectors(row, [content_hash(text) for text in texts], word_vectors(texts))

    def remove(self, path: str) -> None:
        """Delete a note."""
        with Ledger(self.path) as ledger:
            ledger.delete_notes([path])

    def searcher(self, asked: str = "") -> Searcher:
        """A warm index over what was put in. `asked`: EMBEDDING_MODEL."""
        slots = [
            ModelSlot(row, spec, DIM, WordEngine)  # type: ignore[arg-type]
            for row, spec in zip(self.rows, self.specs, strict=True)
        ]
        ledger = Ledger(self.path, readonly=True)
        return Searcher(ledger, slots, self.folder / "My vault", backend="exact", asked=asked)
