"""How long a warm query takes: p50 and p99 of the search itself and of embedding the query, exact against Chroma.

    python -m benchmarks.search_latency [--chunks N] [--queries N] [--models en|mixed] [--chroma] [--write]

The ledger is made up: notes of Zipf-distributed words and unit vectors around random centres, in a temporary folder. `--write`
adds a writer that commits all the while, and tells what a refresh costs. EXACT_LIMIT and SCORED_ROWS were set by this script.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from vaultvec.datatypes import Chunk, Note, NoteFile, Vectors
from vaultvec.engines.base import Engine
from vaultvec.ledger import Ledger, ModelRow, content_hash
from vaultvec.models import L6, USE, resolve
from vaultvec.ranking.semantic import ModelSlot
from vaultvec.search import Searcher
from vaultvec.session import query_engine
from vaultvec.settings import load_settings
from vaultvec.store import ChromaStore

WORDS = 30_000
WORDS_A_CHUNK = 110
CHUNKS_A_NOTE = 6
CENTRES = 500
QUERY_WORDS = 9


class MadeUp:
    """A vocabulary, and vectors around centres; the same for every run."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(20_26)
        letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
        self.words = ["".join(self.random.choice(letters, size=self.random.integers(2, 10))) for _ in range(WORDS)]
        shares = 1 / np.arange(2, WORDS + 2)
        self.shares = shares / shares.sum()

    def text(self, n: int) -> str:
        """`n` words, frequent ones often."""
        return " ".join(self.words[i] for i in self.random.choice(WORDS, size=n, p=self.shares))

    def vectors(self, n: int, dim: int) -> Vectors:
        """(n, dim) unit rows."""
        centres = self.random.standard_normal((CENTRES, dim))
        rows = centres[self.random.integers(0, CENTRES, n)] + 1.5 * self.random.standard_normal((n, dim))
        unit: Vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        return unit


def fill(folder: Path, chunks: int, names: Sequence[str], made: MadeUp, with_chroma: bool) -> None:
    """A ledger with that many chunks, each embedded by every model, and their rows in Chroma when asked for."""
    ids = np.zeros(1, np.int32)
    with Ledger(folder / "ledger.sqlite3") as ledger:
        specs = [resolve(name) for name in names]
        rows = [ModelRow(ledger.register_model(s.fingerprint("full"), s.name, s.dim), "", s.dim) for s in specs]
        hashes: list[bytes] = []
        with ledger.transaction():
            for number in range(chunks // CHUNKS_A_NOTE):
                path, title = f"folder {number % 40}/note {number}.md", made.text(3)
                texts = [f"{title}\n{made.text(WORDS_A_CHUNK)}" for _ in range(CHUNKS_A_NOTE)]
                pieces = [Chunk(path, i, "", text, len(title) + 1, 1 + i, ids) for i, text in enumerate(texts)]
                file = NoteFile(path, path, 1, number, 1)
                note = Note(path, title, "", 1, tags=(f"tag{number % 30}",))
                ledger.apply_note(file, b"x", note, pieces, rows)
                hashes += [content_hash(text) for text in texts]
            for row in rows:
                ledger.save_vectors(row.id, hashes, made.vectors(len(hashes), row.dim))
        for row, spec in zip(rows, specs, strict=True):
            if with_chroma:
                store = ChromaStore(folder / "chroma", spec.fingerprint("full"), spec.name, spec.dim)
                store.sync(ledger, row.id, store.max_batch)
                store.close()


def slots(folder: Path) -> list[ModelSlot]:
    """The models of the ledger, with their real engines."""
    settings = load_settings(ROOT / "config.py", {})

    def loader(name: str) -> Callable[[], Engine]:
        return lambda: query_engine(settings, resolve(name), lambda line: print(line, file=sys.stderr))

    with Ledger(folder / "ledger.sqlite3", readonly=True) as ledger:
        return [ModelSlot(row, resolve(name), dim, loader(name)) for row, _, name, dim in ledger.models()]


def measure(ask: Callable[[str], object], queries: Sequence[str]) -> tuple[float, float]:
    """(p50, p99) in ms."""
    seconds = []
    for query in queries:
        began = time.perf_counter()
        ask(query)
        seconds.append(time.perf_counter() - began)
    return float(np.percentile(seconds, 50) * 1000), float(np.percentile(seconds, 99) * 1000)


def report(folder: Path, backend: str, queries: Sequence[str]) -> None:
    """Time one backend and print its lines."""
    ledger = Ledger(folder / "ledger.sqlite3", readonly=True)
    searcher = Searcher(ledger, slots(folder), folder, backend=backend, chroma=folder / "chroma")
    began = time.perf_counter()
    searcher.search(queries[0])
    print(f"{backend}: first query {time.perf_counter() - began:.2f} s, the engines' start included")
    for query in queries[:5]:
        searcher.search(query)
    embed = measure(
        lambda query: [searcher.semantic.embed(slot, query).result() for slot in searcher.semantic.models], queries
    )
    print(f"{backend:<8}{'embed the query':<30}p50 {embed[0]:6.1f} ms   p99 {embed[1]:6.1f} ms")
    for mode in ("semantic", "keyword", "hybrid"):
        p50, p99 = measure(lambda query, mode=mode: searcher.search(query, mode=mode), queries)  # type: ignore[misc]
        print(f"{backend:<8}{mode + ', embedding included':<30}p50 {p50:6.1f} ms   p99 {p99:6.1f} ms")
    searcher.close()


def report_refresh(folder: Path, queries: Sequence[str]) -> None:
    """Queries while a writer commits ten times a second."""
    searcher = Searcher(Ledger(folder / "ledger.sqlite3", readonly=True), slots(folder), folder, backend="exact")
    searcher.search(queries[0])
    stop = threading.Event()

    def write() -> None:
        with Ledger(folder / "ledger.sqlite3") as ledger:
            number = 0
            while not stop.wait(0.1):
                number += 1
                text = f"new {number}\nwritten while others read {number}"
                piece = Chunk(f"new {number}.md", 0, "", text, 0, 1, np.zeros(1, np.int32))
                file = NoteFile(piece.path, piece.path, 1, 1, 1)
                ledger.apply_note(file, b"x", Note(piece.path, f"new {number}", "", 1), [piece], [])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        p50, p99 = measure(searcher.search, queries)
    finally:
        stop.set()
        writer.join()
    print(f"exact, while a writer commits ten times a second: p50 {p50:.1f} ms   p99 {p99:.1f} ms")
    searcher.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--models", choices=("en", "mixed"), default="en")
    parser.add_argument("--chroma", action="store_true", help="fill Chroma too, and time it")
    parser.add_argument("--write", action="store_true", help="time queries beside a writer too")
    parser.add_argument("--keep", type=Path, help="make the ledger here, or take the one that lies there")
    args = parser.parse_args(argv)
    made = MadeUp()
    names = [L6] if args.models == "en" else [USE, L6]
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        if not (folder / "ledger.sqlite3").exists():
            folder.mkdir(parents=True, exist_ok=True)
            fill(folder, args.chunks, names, made, args.chroma)
        queries = [made.text(QUERY_WORDS) for _ in range(args.queries)]
        report(folder, "exact", queries)
        if args.chroma:
            report(folder, "chroma", queries)
        if args.write:
            report_refresh(folder, queries)
    return 0


if __name__ == "__main__":
    sys.exit(main())
