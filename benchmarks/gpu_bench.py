"""One GPU (or CPU), one model, the same texts: sentence-transformers, the guide's fast function, and ours, in turn.

    python benchmarks/gpu_bench.py --make-texts VAULT texts.json.gz                  # one text a JSON line
    python benchmarks/gpu_bench.py --texts texts.json.gz --device cuda --out result.json
    python benchmarks/gpu_bench.py --texts texts.json.gz --device cpu --quick        # does it run? numbers mean nothing

Needs torch, sentence-transformers, tokenizers, safetensors and numpy; no store, no other engine. Every way is warmed
up, then all are timed in turn, round by round. A way gets as many texts as keep it busy for about a second on a large
GPU; the texts are shuffled, so that every way gets the same mix of lengths. gpu_ways.py has the ways, gpu_texts.py the
texts and the tokenising processes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.gpu_texts import make_texts, read_texts, say
from benchmarks.gpu_ways import FULL, QUICK, Bench
from vaultvec.models import L6, resolve, weights_path

TOKENS_A_CHUNK = 184  # the aim is 20,000 chunks of so many tokens a second


def environment(device: str, folder: Path, texts: Path) -> dict[str, Any]:
    """What the numbers depend on."""
    import torch

    found: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": output_of("git", "rev-parse", "--short", "HEAD"),
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "device": device,
        "weights_sha256": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
        "texts": texts.name,
        **{name: version(name) for name in ("torch", "sentence-transformers", "transformers", "tokenizers", "numpy")},
    }
    if device == "cuda":
        major, minor = torch.cuda.get_device_capability()
        found |= {"gpu": torch.cuda.get_device_name(), "capability": f"{major}.{minor}", "cuda": torch.version.cuda}
        found["driver"] = output_of("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return found


def output_of(*command: str) -> str | None:
    """A command's answer, None where it has none."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def measure(bench: Bench) -> dict[str, Any]:
    """Warm-up, rounds in turn, stages, sweep, checks."""
    ceiling = bench.ceiling()
    say(f"ceiling: {', '.join(f'{name} {tflops:.2f} TFLOP/s' for name, tflops in ceiling.items())}")
    ways = bench.ways()
    for way in ways:
        say(f"warm-up: {way.label}")
        way.run(max(1, way.count // 4))
    for number in range(bench.sizes.rounds):
        for way in ways if number % 2 == 0 else ways[::-1]:
            bench.time(way)
            say(f"round {number + 1}: {way.count / way.seconds[-1]:>10,.1f} texts/s  {way.label}")
    truth = next(way.vectors for way in ways if way.key == "usual")
    assert truth is not None
    rows = [bench.row(way, truth, ceiling) for way in ways]
    speeds = {row["key"]: row["texts_per_second"] for row in rows}
    best = max(speeds["ours"], speeds["ours_compiled"])
    tokens = max(row["tokens_per_second"] for row in rows if row["key"] in ("ours", "ours_compiled"))
    aims = {f"ours_over_{key}": round(best / speeds[key], 2) for key in speeds if not key.startswith("ours")}
    aims[f"chunks_of_{TOKENS_A_CHUNK}_tokens_per_second"] = round(tokens / TOKENS_A_CHUNK)
    return {
        "mean_tokens": round(float(bench.lengths.mean()), 1),
        "tokenising_processes": bench.workers,
        "attention": bench.engine()._encoder.attend.__name__,
        "ceiling_tflops": {name: round(tflops, 3) for name, tflops in ceiling.items()},
        "rows": rows,
        "aims": aims,
        "stages_seconds": bench.stages(),
        "sweep": bench.sweep(),
        "checks": bench.checks(truth),
    }


def table(result: dict[str, Any]) -> str:
    """The rows as Markdown."""
    lines = [
        "| way | texts/s | ± | tokens/s | of the ceiling (square / model) | GPU use | peak MB | lowest cosine |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in result["rows"]:
        share = " / ".join(f"{100 * part:.1f} %" for part in row.get("share_of_ceiling", {}).values())
        use, peak = row["gpu_use_percent"], row["peak_gpu_memory_mb"]
        lines.append(
            f"| {row['label']} | {row['texts_per_second']:,.1f} | {100 * row['spread']:.0f} % "
            f"| {row['tokens_per_second']:,} | {share} | {'–' if use is None else f'{use:.0f} %'} "
            f"| {'–' if peak is None else f'{peak:,.0f}'} | {row['lowest_cosine']:.6f} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Parse, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a sentence-transformers folder (default: the bundled model)")
    parser.add_argument("--texts", type=Path, help="gzip, one JSON string a line")
    parser.add_argument("--out", type=Path, help="where the result is written as JSON")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="under 100 texts, to see that it runs")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 2), help="tokenising processes")
    parser.add_argument("--make-texts", nargs=2, type=Path, metavar=("VAULT", "OUT"))
    options = parser.parse_args()
    if options.make_texts:
        say(f"{make_texts(*options.make_texts)} texts written")
        return 0
    if options.texts is None:
        parser.error("--texts is missing; make some with --make-texts VAULT OUT")
    folder = options.model or weights_path(resolve(L6)).parent
    sizes = QUICK if options.quick else FULL
    bench = Bench(folder, read_texts(options.texts), options.device, sizes, options.workers)
    try:
        result = {"environment": environment(options.device, folder, options.texts), "sizes": asdict(sizes)}
        result |= measure(bench)
    finally:
        bench.gpu.close()
        bench.pool.shutdown()
    if options.out:
        options.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(table(result))
    for name in ("aims", "stages_seconds", "checks"):
        print(f"{name}: {json.dumps(result[name])}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
