"""The nouns that travel along the pipeline, all frozen: NoteFile → Note → Chunk → Batch → vectors → SearchResult."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]  # (n, dim), unit rows
TokenIds = NDArray[np.int32]  # (n_tokens,)


@dataclass(frozen=True, slots=True)
class NoteFile:
    """A file of the vault that becomes a note, as the walk saw it."""

    path: str  # vault-relative, "/" between folders, NFC
    location: str  # absolute, as the file system spells it; a Path would take three times the memory
    size: int  # bytes
    mtime_ns: int
    ctime_ns: int

    @property
    def absolute(self) -> Path:
        """Where the file lies."""
        return Path(self.location)


@dataclass(frozen=True, slots=True)
class Note:
    """One parsed note. `body` keeps the line structure of the file, so that line numbers can be told."""

    path: str
    title: str
    body: str  # Markdown without front matter, comments, block ids, HTML tags; links show their alias
    body_line: int  # line of the file (from 1) on which `body` begins
    tags: tuple[str, ...] = ()  # without "#", case kept, nested ones as "a/b"
    aliases: tuple[str, ...] = ()
    links: tuple[str, ...] = ()  # link targets as written, without anchor and alias
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of one note, sized for the model. `text` is what is embedded: context line(s), then body."""

    path: str
    slot: int  # position within the note, from 0
    heading: str  # heading path "A > B", without the title
    text: str
    context: int  # characters at the start of `text` that are title and heading, not body
    start_line: int  # line of the file on which the chunk begins, from 1
    token_ids: TokenIds  # of the document prefix and all of `text`, with special tokens: what the engine gets

    @property
    def id(self) -> str:
        """Chunk id: path and slot, the same in the ledger and in Chroma."""
        return chunk_id(self.path, self.slot)


def chunk_id(path: str, slot: int) -> str:
    """`note.md#0003`: sorts in reading order, survives a rename as nothing but an id change."""
    return f"{path}#{slot:04d}"


@dataclass(frozen=True, slots=True)
class Encoded:
    """A text ready for an engine: its position in the caller's list, the text, and its token ids."""

    index: int
    text: str
    token_ids: TokenIds

    def __len__(self) -> int:
        return len(self.token_ids)


@dataclass(frozen=True, slots=True)
class Batch:
    """What goes through the model at once; items sorted by token length, longest first."""

    items: tuple[Encoded, ...]

    @property
    def n_tokens(self) -> int:
        """Real tokens, padding not counted."""
        return sum(len(item) for item in self.items)

    @property
    def max_tokens(self) -> int:
        """Length of the longest item: the width of the padded matrix."""
        return max(len(item) for item in self.items)


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The vectors of one batch, row i for item i. `failed` holds (position in items, reason); such rows are zero."""

    batch: Batch
    vectors: Vectors
    failed: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True, slots=True)
class SearchResult:
    """One row of an answer. `score` is higher-is-better; `text` is the body, without its context line."""

    rank: int
    score: float
    path: str
    title: str
    heading: str
    text: str
    start_line: int
    tags: tuple[str, ...]
    uri: str
    explain: dict[str, float | int] = field(default_factory=dict)  # what each half contributed

    def as_dict(self) -> dict[str, Any]:
        """The keys of `search --json`, in the contract's order."""
        row: dict[str, Any] = {
            "rank": self.rank,
            "score": round(self.score, 6),
            "path": self.path,
            "title": self.title,
            "heading": self.heading,
            "text": self.text,
            "start_line": self.start_line,
            "tags": list(self.tags),
            "uri": self.uri,
        }
        if self.explain:
            row["explain"] = self.explain
        return row


@dataclass(slots=True)
class IndexReport:
    """What one run did; `as_dict` gives the keys of `index --json`."""

    notes_total: int = 0
    notes_indexed: int = 0
    notes_unchanged: int = 0
    notes_deleted: int = 0
    notes_failed: list[tuple[str, str]] = field(default_factory=list)  # (path, reason)
    chunks_total: int = 0
    chunks_embedded: int = 0  # texts that went through a model; of two models that take the same text, once
    vectors_made: int = 0  # the same, once for each model
    models_run: int = 0  # that were loaded for it
    chunks_reused: int = 0  # chunks of read notes whose text was known already
    seconds: float = 0.0
    embed_seconds: float = 0.0  # from the first batch's start to the last one's end
    tokens: int = 0
    model: str = ""
    engine: str = ""
    precision: str = ""
    device: str = ""
    peak_rss_mb: float = 0.0  # most resident memory, 10^6 bytes, summed over this process, its readers and its writer
    model_busy_share: float = 0.0  # of embed_seconds, how long the model had work
    warnings: list[tuple[str, str]] = field(default_factory=list)  # (path, what was odd about a note)
    verified: str = ""

    @property
    def texts_per_second(self) -> float:
        """Texts through the models a second, each model's counted, from first batch to last."""
        return self.vectors_made / self.embed_seconds if self.embed_seconds else 0.0

    @property
    def tokens_per_second(self) -> float:
        """Real tokens a second, padding not counted."""
        return self.tokens / self.embed_seconds if self.embed_seconds else 0.0

    def as_dict(self) -> dict[str, Any]:
        """The contract's keys first, then ours."""
        return {
            "notes_total": self.notes_total,
            "notes_indexed": self.notes_indexed,
            "notes_unchanged": self.notes_unchanged,
            "notes_deleted": self.notes_deleted,
            "notes_failed": [{"path": path, "reason": reason} for path, reason in self.notes_failed],
            "chunks_total": self.chunks_total,
            "chunks_embedded": self.chunks_embedded,
            "chunks_reused": self.chunks_reused,
            "seconds": round(self.seconds, 3),
            "texts_per_second": round(self.texts_per_second, 2),
            "tokens_per_second": round(self.tokens_per_second, 1),
            "model": self.model,
            "engine": self.engine,
            "precision": self.precision,
            "device": self.device,
            "peak_rss_mb": round(self.peak_rss_mb, 1),
            "vectors_made": self.vectors_made,
            "model_busy_share": round(self.model_busy_share, 4),
            "warnings": [{"path": path, "warning": text} for path, text in self.warnings],
            "verified": self.verified,
        }
