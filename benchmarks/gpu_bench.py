"""One GPU (or CPU), one model, the same texts: sentence-transformers, the guide's fast function, and ours, in turn.

    python benchmarks/gpu_bench.py --make-texts VAULT texts.json.gz                  # one text a JSON line
    python benchmarks/gpu_bench.py --make-model FOLDER                               # fp16 weights, to be carried
    python benchmarks/gpu_bench.py --model FOLDER --texts texts.json.gz --out result.json
    python benchmarks/gpu_bench.py --texts texts.json.gz --device cpu --quick        # does it run? numbers mean nothing

Needs torch, sentence-transformers, tokenizers, safetensors and numpy; no store, no other engine. Every way is warmed
up, then all are timed in turn, round by round. A way gets as many texts as keep it busy for about a second on a large
GPU; the texts are shuffled, so that every way gets the same mix of lengths. gpu_ways.py has the ways, gpu_texts.py the
texts and the tokenising processes, gpu_details.py the ceiling, the stages and the checks.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the weights are in a folder; nobody is asked for newer ones

from benchmarks.gpu_details import attentions, ceiling, fp32_check, memory_check, operations, stages, sweep
from benchmarks.gpu_model import expand_weights, halve_weights
from benchmarks.gpu_texts import make_texts, read_texts, say
from benchmarks.gpu_ways import FULL, QUICK, Bench, Way
from vaultvec.cores import usable_cores
from vaultvec.models import L6, resolve, weights_path

TIME_FOR_DETAILS = 180  # seconds kept for what follows the rounds
TOKENS_A_CHUNK = 184  # the aim is 20,000 chunks of so many tokens a second
# Beside the table; all else stands in the JSON.
PRINTED = ("aims", "attention", "stages_seconds", "operations", "fp32", "attentions", "out_of_memory", "failures")


def environment(device: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """What the numbers depend on."""
    import torch

    found: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": options.commit or output_of("git", "rev-parse", "--short", "HEAD"),
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "device": device,
        "weights_sha256": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
        "weights": "fp16, expanded" if options.expanded else "as they are",
        "texts": options.texts.name,
        **{name: installed(name) for name in ("torch", "sentence-transformers", "transformers", "tokenizers", "numpy")},
    }
    if device == "cuda":
        major, minor = torch.cuda.get_device_capability()
        found |= {"gpu": torch.cuda.get_device_name(), "capability": f"{major}.{minor}", "cuda": torch.version.cuda}
        found["driver"] = output_of("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return found


def installed(package: str) -> str | None:
    """Its version, None where it says none: no reason to measure nothing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def output_of(*command: str) -> str | None:
    """A command's answer, None where it has none."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def measure(bench: Bench, keep: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Warm-up, rounds in turn, then where the time goes, token budgets and checks. `keep` gets all that is known after each
    step: a run that is cut off loses one."""
    failures = bench.failures
    result: dict[str, Any] = {
        "mean_tokens": round(float(bench.lengths.mean()), 1),
        "tokenising_processes": bench.workers,
        "failures": failures,
    }
    most = attempt(bench, "ceiling", lambda: ceiling(bench)) or {}
    say(f"ceiling: {', '.join(f'{name} {tflops:.2f} TFLOP/s' for name, tflops in most.items())}")
    result["ceiling_tflops"] = {name: round(tflops, 3) for name, tflops in most.items()}
    keep(result)
    ways = [way for way in bench.ways() if attempt(bench, way.label, partial(warm_up, way))]
    ours = next((way for way in ways if way.key == "ours"), None)
    result["attention"] = ours.engine._encoder.attend.__name__ if ours else None
    for number in range(bench.sizes.rounds):
        if number > 1 and bench.seconds_left() < TIME_FOR_DETAILS:
            say("out of time: fewer rounds")
            break
        for way in ways if number % 2 == 0 else ways[::-1]:
            if bench.lost(way.engine):
                failures[way.label] = f"went on with {way.engine.device}"
            elif attempt(bench, way.label, partial(timed, bench, way)):
                say(f"round {number + 1}: {way.count / way.seconds[-1]:>10,.1f} texts/s  {way.label}")
        result |= compared(bench, ways, most)
        keep(result)
    truth = next((way.vectors for way in ways if way.key == "usual" and way.seconds), None)
    details: dict[str, Callable[[], Any]] = {
        "stages_seconds": lambda: stages(bench),
        "operations": lambda: operations(bench),
    }
    if truth is not None:
        details["fp32"] = lambda: fp32_check(bench, truth)
    details["sweep"] = lambda: sweep(bench)
    details["attentions"] = lambda: attentions(bench)
    if truth is not None:
        details["out_of_memory"] = lambda: memory_check(bench, truth)  # last: it may cost the GPU its good order
    for name, work in details.items():
        result[name] = attempt(bench, name, work)
        keep(result)
    return result


def compared(bench: Bench, ways: list[Way], most: dict[str, float]) -> dict[str, Any]:
    """The rows so far, against sentence-transformers' vectors where it ran."""
    done = [way for way in ways if way.seconds]
    truth = next((way.vectors for way in done if way.key == "usual"), None)
    rows = [bench.row(way, truth, most) for way in done]
    return {"rows": rows, "aims": aims(rows)}


def timed(bench: Bench, way: Way) -> bool:
    """One round."""
    bench.time(way)
    return True


def warm_up(way: Way) -> bool:
    """A quarter of its texts, not timed."""
    say(f"warm-up: {way.label}")
    way.run(max(1, way.count // 4))
    return True


def attempt(bench: Bench, name: str, work: Callable[[], Any]) -> Any:
    """What `work` gives, or None and a line in `failures`: what else was measured must not be lost."""
    if bench.seconds_left() < 0:
        bench.failures[name] = "left out: no time"
        return None
    try:
        return work()
    except Exception as error:  # whatever it is, it is told
        bench.failures[name] = f"{type(error).__name__}: {error}"[:300]
        say(f"{name} failed: {bench.failures[name]}")
        return None


def aims(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """How many times as fast as each other way ours is from text to vector, and chunks of the aimed length a second."""
    speeds = {row["key"]: row["texts_per_second"] for row in rows}
    ours = [
        row
        for row in rows
        if row["key"] in ("ours", "ours_threads") or (row["key"] == "ours_compiled" and row["compiled"])
    ]
    if not ours:
        return {}
    best = max(ours, key=lambda row: row["texts_per_second"])
    others = [key for key in speeds if not key.startswith("ours")]
    return {
        "best": best["key"],
        **{f"ours_over_{key}": round(best["texts_per_second"] / speeds[key], 2) for key in others},
        f"chunks_of_{TOKENS_A_CHUNK}_tokens_per_second": round(best["tokens_per_second"] / TOKENS_A_CHUNK),
    }


def table(result: dict[str, Any]) -> str:
    """The rows as Markdown."""
    lines = [
        "| way | texts/s | ± | tokens/s | of the ceiling (square / model) | GPU use | a batch on it | peak MB | lowest cosine |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in result["rows"]:
        share = " / ".join(f"{100 * part:.1f} %" for part in row.get("share_of_ceiling", {}).values())
        use, busy = (percent(row[name]) for name in ("gpu_use_percent", "batch_on_device_percent"))
        peak, lowest = row["peak_gpu_memory_mb"], row["lowest_cosine"]
        lines.append(
            f"| {row['label']} | {row['texts_per_second']:,.1f} | {100 * row['spread']:.0f} % "
            f"| {row['tokens_per_second']:,} | {share} | {use} | {busy} "
            f"| {'–' if peak is None else f'{peak:,.0f}'} | {'–' if lowest is None else f'{lowest:.6f}'} |"
        )
    return "\n".join(lines)


def percent(value: float | None) -> str:
    """A cell."""
    return "–" if value is None else f"{value:.0f} %"


def arguments() -> argparse.Namespace:
    """What was typed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a sentence-transformers folder (default: the bundled model)")
    parser.add_argument("--texts", type=Path, help="gzip, one JSON string a line")
    parser.add_argument("--out", type=Path, help="where the result is written as JSON")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="under 100 texts, to see that it runs")
    parser.add_argument("--workers", type=int, default=max(1, usable_cores() - 2), help="tokenising processes")
    parser.add_argument("--commit", help="of the code, where there is no git to ask")
    parser.add_argument("--minutes", type=float, default=8, help="after which nothing new is begun")
    parser.add_argument("--make-texts", nargs=2, type=Path, metavar=("VAULT", "OUT"))
    parser.add_argument(
        "--make-model", type=Path, metavar="OUT", help="write the model with fp16 weights, half the size"
    )
    options = parser.parse_args()
    if not (options.texts or options.make_texts or options.make_model):
        parser.error("--texts is missing; make some with --make-texts VAULT OUT")
    return options


def main() -> int:
    """Make texts or a model, or measure, print, write."""
    options = arguments()
    if options.make_texts:
        say(f"{make_texts(*options.make_texts)} texts written")
        return 0
    folder = options.model or weights_path(resolve(L6)).parent
    if options.make_model:
        halve_weights(folder, options.make_model)
        say(f"{options.make_model} written")
        return 0
    expanded = expand_weights(folder)
    options.expanded, folder = expanded is not None, expanded or folder
    sizes = QUICK if options.quick else FULL
    bench = Bench(
        folder, read_texts(options.texts), options.device, sizes, workers=options.workers, minutes=options.minutes
    )
    head = {"environment": environment(options.device, folder, options), "sizes": asdict(sizes)}

    def keep(result: dict[str, Any]) -> None:
        if options.out:
            text = json.dumps(head | result, indent=1, ensure_ascii=False) + "\n"
            options.out.write_text(text, encoding="utf-8")

    try:
        result = head | measure(bench, keep)
    finally:
        bench.gpu.close()
        bench.pool.shutdown(cancel_futures=True)
    print(table(result))
    for name in PRINTED:
        print(f"{name}: {json.dumps(result.get(name))}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
