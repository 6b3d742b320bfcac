"""Where reading with processes pays: notes a second of reading and chunking, with none, one and more.

    python -m benchmarks.workers [--vault DIR] [--times 1 8] [--workers 0 1 2] [--rounds 3]

Sets reading.WORKERS_PAY_FROM. The model does not run meanwhile: while it does, it keeps all cores busy, and reading in
processes gains only what the interpreter's lock would cost.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.environment import REPOSITORY, environment
from benchmarks.grown_vault import grow_vault
from benchmarks.processes import OFFLINE
from benchmarks.report import table
from vaultvec.ledger import Ledger
from vaultvec.models import L6, resolve
from vaultvec.settings import load_settings
from vaultvec.stages.reading import ChunkerSpec, Reader, chunker_spec
from vaultvec.vault import load_exclusions, open_vault, walk


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.workers")
    parser.add_argument("--vault", help="notes to read (else VAULTVEC_VAULT, VAULT_PATH, sample_vault)")
    parser.add_argument("--times", type=int, nargs="+", default=[1, 8], help="sizes, in vaults (1 8)")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(argv)
    os.environ.update(OFFLINE)
    settings = load_settings(REPOSITORY / "config.py", os.environ, vault=args.vault)
    vault = settings.vault_path or REPOSITORY / "sample_vault"
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="vaultvec-workers-") as folder:
        spec = chunker_spec(replace(settings, data_dir=Path(folder) / "data"), resolve(L6))
        for times in args.times:
            grow_vault(vault, Path(folder) / str(times), times)
            rows += measure(Path(folder) / str(times), spec, args.workers, args.rounds)
    head = environment()
    result = {"environment": head, "vault": vault.name, "rows": rows}
    path = args.out or REPOSITORY / "benchmarks" / "results" / f"workers-{head['commit']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    lines = [
        (f"{r['notes']:,}", str(r["workers"]), f"{r['seconds']:.2f} s", f"{r['notes_per_second']:,.0f}") for r in rows
    ]
    print(table(("notes", "processes", "read and chunked in", "notes/s"), lines))
    return 0


def measure(vault: Path, spec: ChunkerSpec, workers: Sequence[int], rounds: int) -> list[dict[str, Any]]:
    """Every number of processes in turn, `rounds` times; starting the processes is counted."""
    files = walk(open_vault(vault), load_exclusions(vault, ())).files
    taken: dict[int, list[float]] = {count: [] for count in workers}
    for number in range(rounds):
        for count in list(workers)[:: 1 if number % 2 == 0 else -1]:
            began = time.perf_counter()
            reader = Reader(files, {}, _no_ledger, spec, [], count, time.time_ns())
            chunks = sum(len(result.chunks) for result in reader._results())
            taken[count].append(time.perf_counter() - began)
            print(f"{len(files)} notes, {count} processes: {taken[count][-1]:.2f} s", file=sys.stderr, flush=True)
    return [
        {
            "notes": len(files), "chunks": chunks, "workers": count, "seconds": round(median(seconds), 3),
            "rounds": [round(value, 3) for value in seconds],
            "notes_per_second": round(len(files) / median(seconds), 1),
        }
        for count, seconds in taken.items()
    ]  # fmt: skip


def _no_ledger() -> Ledger:
    raise RuntimeError("reading alone opens no ledger")


if __name__ == "__main__":
    sys.exit(main())
