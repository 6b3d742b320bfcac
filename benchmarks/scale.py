"""Time and memory as a vault grows.

    python -m benchmarks.scale [--vault DIR] [--times 1 2 4 8 16] [--limit NOTES]    the real model, whole commands
    python -m benchmarks.scale --notes 10000 100000                                  everything but the model

The larger vaults are made by rewriting notes, so that no text occurs twice. `--notes` runs the real reading, ledger,
Chroma, keyword index and search with an engine that costs nearly nothing: with the real model 100,000 notes take
about an hour on two cores, nearly all of it in the model, which is linear anyway; a step that is not would hide there.
Writes benchmarks/results/scale-*.json and scale.svg.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bag_engine import BagEngine
from benchmarks.chart import line_chart, side_by_side
from benchmarks.environment import REPOSITORY, environment
from benchmarks.grown_vault import grow_vault
from benchmarks.processes import OFFLINE, ours
from benchmarks.report import table
from vaultvec.engines import create_engine
from vaultvec.index import current_index
from vaultvec.ledger import Ledger
from vaultvec.models import L6, resolve
from vaultvec.pipeline import Hooks, index_vault
from vaultvec.ranking.semantic import ModelSlot
from vaultvec.search import Searcher
from vaultvec.settings import Settings, load_settings
from vaultvec.stages.embedding import Progress
from vaultvec.vault import load_exclusions, open_vault, walk

RESULTS = REPOSITORY / "benchmarks" / "results"
QUERIES = 200
SEED = 7


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.scale", description="Time and memory as a vault grows.")
    parser.add_argument("--vault", help="notes to start from (else VAULTVEC_VAULT, VAULT_PATH, sample_vault)")
    parser.add_argument("--times", type=int, nargs="+", default=(1, 2, 4, 8, 16), help="sizes, in vaults (1 2 4 8 16)")
    parser.add_argument(
        "--notes", type=int, nargs="+", help="sizes in notes, without the model, for example 10000 100000"
    )
    parser.add_argument("--limit", type=int, help="only the N newest notes of the vault, for a quick check")
    parser.add_argument("--out", type=Path, help="another result file")
    args = parser.parse_args(argv)
    os.environ.update(OFFLINE)
    settings = load_settings(REPOSITORY / "config.py", os.environ, vault=args.vault)
    vault = settings.vault_path or REPOSITORY / "sample_vault"
    kind = "notes" if args.notes else "times"
    measure = without_model if args.notes else with_model
    result: dict[str, Any] = {"environment": environment(), "vault": vault.name, "rows": []}
    with tempfile.TemporaryDirectory(prefix="vaultvec-scale-") as folder:
        for size in args.notes or args.times:
            result["rows"].append(measure(settings, vault, size, Path(folder) / str(size), args.limit))
            print(json.dumps(result["rows"][-1]), file=sys.stderr, flush=True)
    path = args.out or RESULTS / f"scale-{kind}-{result['environment']['commit']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    path.with_name(f"scale-{kind}.svg").write_text(_chart(result["rows"]), encoding="utf-8")
    print(_growth_table(result["rows"]) if kind == "times" else _table_without_model(result["rows"]))
    return 0


# ── with the model ────────────────────────────────────────────────────────────────────────────────────────────────────


def with_model(settings: Settings, vault: Path, times: int, folder: Path, limit: int | None) -> dict[str, Any]:
    """One whole `main.py index` over a vault `times` as large."""
    del settings
    source = vault
    if limit:
        source = folder / "base"
        grow_vault(vault, source, 1, limit)
    notes = grow_vault(source, folder / "vault", times)
    done = ours("index", vault=folder / "vault", data=folder / "data")
    report = done.json()
    return {
        "times": times, "notes": notes, "chunks": report["chunks_total"], "embedded": report["chunks_embedded"],
        "seconds": round(done.seconds, 2), "index_seconds": report["seconds"], "peak_mb": round(done.peak_mb, 1),
        "texts_per_second": report["texts_per_second"], "tokens_per_second": report["tokens_per_second"],
        "model_busy_share": report["model_busy_share"],
        "index_mb": round(disk_bytes(folder / "data" / "vaults") / 1e6, 1),
    }  # fmt: skip


def _growth_table(rows: list[dict[str, Any]]) -> str:
    each = [row["seconds"] / row["embedded"] for row in rows]
    lines = [
        (
            f"{row['times']}x", f"{row['notes']:,}", f"{row['embedded']:,}", f"{row['seconds']:,.1f} s",
            f"{1000 * one:.1f} ms", f"{one / each[0]:.2f}", f"{row['peak_mb']:,.0f} MB",
            f"{row['model_busy_share']:.1%}", f"{row['index_mb']:,.0f} MB",
        )
        for row, one in zip(rows, each, strict=True)
    ]  # fmt: skip
    head = (
        "vault", "notes", "texts", "whole command", "a text", "against 1x", "peak memory", "model busy",
        "index on disk",
    )  # fmt: skip
    return table(head, lines)


# ── without the model ─────────────────────────────────────────────────────────────────────────────────────────────────


def without_model(settings: Settings, vault: Path, notes: int, folder: Path, limit: int | None) -> dict[str, Any]:
    """Index, unchanged run, one edit and 200 searches over `notes` notes; imports not counted.

    In a process of its own, whose peak memory is not that of making the notes or of the row before.
    """
    files = len(walk(open_vault(vault), load_exclusions(vault, ())).files)
    grow_vault(vault, folder / "vault", -(-notes // min(files, limit or files)), notes)
    settings = replace(settings, data_dir=folder / "data", embedding_model=L6)
    with ProcessPoolExecutor(1, get_context("spawn")) as apart:
        return apart.submit(_measured, settings, notes, folder).result()


def _measured(settings: Settings, notes: int, folder: Path) -> dict[str, Any]:
    trace: list[Progress] = []
    hooks = Hooks(progress=trace.append, engines=BagEngine.build)
    began = time.perf_counter()
    first = index_vault(settings, folder / "vault", hooks=hooks)
    row: dict[str, Any] = {
        "notes": notes, "chunks": first.chunks_total, "index_seconds": round(time.perf_counter() - began, 2),
        "peak_mb": round(first.peak_rss_mb, 1), "embed_seconds": round(first.embed_seconds, 2),
        "last_tenth_against_first": _slowdown(trace),
    }  # fmt: skip
    row["unchanged_seconds"] = _again(settings, folder / "vault", 0)
    note = walk(open_vault(folder / "vault"), load_exclusions(folder / "vault", ())).files[notes // 2].absolute
    with note.open("a", encoding="utf-8") as file:
        file.write("\n\nA paragraph about kettles and lime scale.\n")
    row["one_edit_seconds"] = _again(settings, folder / "vault", 1)
    index = current_index(settings, folder / "vault")
    row |= _searches(settings, folder / "vault", index)
    row["ledger_mb"] = round(sum(path.stat().st_size for path in index.glob("ledger*")) / 1e6, 1)
    row["chroma_mb"] = round(disk_bytes(index / "chroma") / 1e6, 1)
    row["link_lists_apparent_mb"] = round(sum(path.stat().st_size for path in index.rglob("link_lists.bin")) / 1e6, 2)
    return row


def _again(settings: Settings, vault: Path, expected: int) -> float:
    began = time.perf_counter()
    done = index_vault(settings, vault, hooks=Hooks(engines=BagEngine.build))
    if done.notes_indexed != expected:
        raise RuntimeError(f"{done.notes_indexed} notes were indexed again, expected {expected}")
    return round(time.perf_counter() - began, 3)


def _slowdown(trace: list[Progress]) -> float | None:
    """Seconds a text in the last tenth of the run against the first tenth: about 1 where no step is quadratic."""
    total = trace[-1].texts_done if trace else 0
    tenths = [
        next((p.seconds for p in trace if p.texts_done >= total * share), 0.0) for share in (0.05, 0.15, 0.85, 0.95)
    ]
    early, late = tenths[1] - tenths[0], tenths[3] - tenths[2]
    return round(late / early, 2) if early > 0 else None


def _searches(settings: Settings, vault: Path, index: Path) -> dict[str, float]:
    """Milliseconds of a warm searcher; the query's vector is measured apart, with the real model."""
    spec = resolve(L6)
    ledger = Ledger(index / "ledger.sqlite3", readonly=True)
    phrases = _phrases(ledger)
    number, _, _, dim = ledger.models()[0]
    slot = ModelSlot(number, spec, dim, lambda: BagEngine.build(settings, spec, settings.models_dir))
    searcher = Searcher(ledger, [slot], vault, backend=settings.search_backend, chroma=index / "chroma")
    began = time.perf_counter()
    searcher.search(phrases[0])
    cold = time.perf_counter() - began
    found = {"search_first_ms": round(1000 * cold, 1)}
    for mode in ("hybrid", "semantic", "keyword"):
        taken = [_timed(partial(searcher.search, text, mode=mode)) for text in phrases]
        found |= _percentiles(f"search_{mode}", taken)
    searcher.close()
    engine = create_engine(settings, spec, settings.models_dir)
    engine.warm_up()
    found |= _percentiles("query_vector", [_timed(partial(engine.embed_query, text)) for text in phrases[:50]])
    engine.close()
    return found


def _timed(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def _percentiles(name: str, seconds: list[float]) -> dict[str, float]:
    p50, p99 = np.percentile(np.array(seconds) * 1000, (50, 99))
    return {f"{name}_p50_ms": round(float(p50), 1), f"{name}_p99_ms": round(float(p99), 1)}


def _phrases(ledger: Ledger) -> list[str]:
    """Three to six words in a row from chunks all over the index: what people remember of a note."""
    draw = random.Random(SEED)
    most = int(ledger.db.execute("SELECT max(id) FROM chunks").fetchone()[0])
    phrases: list[str] = []
    while len(phrases) < QUERIES:
        row = ledger.db.execute("SELECT text FROM chunks WHERE id >= ? LIMIT 1", (draw.randint(1, most),)).fetchone()
        words = [word for word in row[0].split() if word.isalpha()]
        if len(words) >= 6:
            start = draw.randrange(len(words) - 5)
            phrases.append(" ".join(words[start : start + draw.randint(3, 6)]))
    return phrases


def disk_bytes(folder: Path) -> int:
    """Bytes that a folder takes on disk, holes of sparse files not counted."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def _table_without_model(rows: list[dict[str, Any]]) -> str:
    names = {
        "notes": "notes", "chunks": "chunks", "index_seconds": "index, s",
        "last_tenth_against_first": "last / first tenth",
        "unchanged_seconds": "unchanged, s", "one_edit_seconds": "one edit, s",
        "search_hybrid_p50_ms": "search p50, ms",
        "search_hybrid_p99_ms": "p99, ms", "query_vector_p50_ms": "query vector, ms", "peak_mb": "peak, MB",
        "ledger_mb": "ledger, MB", "chroma_mb": "Chroma, MB",
    }  # fmt: skip
    return table(
        tuple(names.values()), [tuple("" if row[key] is None else f"{row[key]:,}" for key in names) for row in rows]
    )


def _chart(rows: list[dict[str, Any]]) -> str:
    key = "seconds" if "seconds" in rows[0] else "index_seconds"
    return side_by_side([
        line_chart("Time of the first index", "s", [(r["notes"], r[key]) for r in rows], "notes", ideal=True),
        line_chart("Peak memory", "MB", [(r["notes"], r["peak_mb"]) for r in rows], "notes"),
    ])  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
