"""Rows a second into Chroma for batch sizes and sync thresholds, and what it takes on disk.

python -m benchmarks.chroma_settings [--rows 20000] [--batches 64 512 2000 5000] [--thresholds 1000 5000 10000]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.environment import REPOSITORY, environment
from benchmarks.processes import OFFLINE
from benchmarks.report import table
from vaultvec.datatypes import Vectors

DIM = 384
TOPICS = 400  # vectors lie around so many centres, as notes do
WORDS = [
    "kettle",
    "lime",
    "scale",
    "harbour",
    "train",
    "paper",
    "oak",
    "winter",
    "letter",
    "garden",
    "metal",
    "song",
    "bread",
    "river",
    "stone",
    "glass",
]


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.chroma_settings")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--batches", type=int, nargs="+", default=(64, 512, 2000, 5000))
    parser.add_argument("--thresholds", type=int, nargs="+", default=(1000, 5000, 10_000))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(argv)
    os.environ.update(OFFLINE)
    vectors, texts = _data(args.rows)
    rows = []
    for threshold in args.thresholds:
        for batch in args.batches:
            for documents in (True, False):
                rows.append(measure(vectors, texts if documents else None, batch, threshold))
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    head = environment()
    result = {"environment": head, "rows": rows}
    path = args.out or REPOSITORY / "benchmarks" / "results" / f"chroma-{head['commit']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(report(rows))
    return 0


def measure(vectors: Vectors, texts: list[str] | None, batch: int, threshold: int) -> dict[str, Any]:
    """One new collection, filled in batches and closed."""
    import chromadb
    from chromadb.config import Settings

    with tempfile.TemporaryDirectory(prefix="vaultvec-chroma-") as folder:
        client = chromadb.PersistentClient(folder, settings=Settings(anonymized_telemetry=False))
        collection = client.create_collection(
            "rows", embedding_function=None, configuration={"hnsw": {"space": "cosine", "sync_threshold": threshold}}
        )
        slowest = 0.0
        began, worked = time.perf_counter(), time.process_time()
        for start in range(0, len(vectors), batch):
            end = min(start + batch, len(vectors))
            before = time.perf_counter()
            collection.upsert(
                ids=[f"folder/note {i // 2}.md#{i % 2:04d}" for i in range(start, end)],
                embeddings=vectors[start:end],
                documents=texts[start:end] if texts else None,
                metadatas=[
                    {"path": f"folder/note {i // 2}.md", "heading": "A > B", "start_line": i} for i in range(start, end)
                ],
            )
            slowest = max(slowest, time.perf_counter() - before)
        seconds, worked = time.perf_counter() - began, time.process_time() - worked
        if collection.count() != len(vectors):
            raise RuntimeError(f"{collection.count()} rows are in Chroma, expected {len(vectors)}")
        client.close()
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        return {
            "batch": batch, "sync_threshold": threshold, "documents": texts is not None, "rows": len(vectors),
            "rows_per_second": round(len(vectors) / seconds, 1), "cpu_ms_a_row": round(1000 * worked / len(vectors), 3),
            "slowest_call_s": round(slowest, 2),
            "disk_mb": round(sum(path.stat().st_blocks * 512 for path in files) / 1e6, 1),
            "apparent_mb": round(sum(path.stat().st_size for path in files) / 1e6, 1),
            "link_lists_kb": round(sum(p.stat().st_size for p in files if p.name == "link_lists.bin") / 1e3, 1),
        }  # fmt: skip


def report(rows: list[dict[str, Any]]) -> str:
    """The table, and of the rows that keep the documents the one that takes least from the model: CPU time a row."""
    lines = [
        (
            f"{row['batch']:,}", f"{row['sync_threshold']:,}", "yes" if row["documents"] else "no",
            f"{row['rows_per_second']:,.0f}", f"{row['cpu_ms_a_row']:.2f} ms", f"{row['slowest_call_s']:.2f} s",
            f"{row['disk_mb']:,.0f} MB",
            f"{row['link_lists_kb']:,.0f} kB",
        )
        for row in rows
    ]  # fmt: skip
    head = ("batch", "sync_threshold", "documents", "rows/s", "CPU a row", "slowest call", "on disk", "link_lists.bin")
    best = min((row for row in rows if row["documents"]), key=lambda row: row["cpu_ms_a_row"])
    picked = f"batch {best['batch']}, sync_threshold {best['sync_threshold']}"
    return f"{table(head, lines)}\n\nLeast work with documents: {picked}."


def _data(count: int) -> tuple[Vectors, list[str]]:
    draw = np.random.default_rng(0)
    centres = draw.standard_normal((TOPICS, DIM), dtype=np.float32)
    vectors = centres[draw.integers(0, TOPICS, count)] + draw.standard_normal((count, DIM), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    texts = [" ".join(WORDS[j] for j in draw.integers(0, len(WORDS), 120)) for _ in range(count)]
    return vectors, texts


if __name__ == "__main__":
    sys.exit(main())
