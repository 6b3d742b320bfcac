"""Whole commands: the first index against LangChain's, then what comes after it, and memory for twice the notes."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.grown_vault import copy_vault, grow_vault
from benchmarks.processes import Finished, langchain, ours, spread
from vaultvec.measure.rounds import ratio_of
from vaultvec.vault import Exclusions, open_vault, walk

REPEATS = 5  # of the short commands; medians
WARM_NOTES = 20
QUERY = "How do I publish my notes as a website?"

Say = Callable[[str], None]


def measure_commands(vault: Path, weights: Path, rounds: int, limit: int | None, say: Say) -> dict[str, Any]:
    """Everything that is timed from start to exit. Raises RuntimeError when a command fails."""
    with tempfile.TemporaryDirectory(prefix="vaultvec-bench-") as name:
        place = Path(name)
        notes = copy_vault(vault, place / "vault", limit)
        first = _first_index(place, weights, rounds, say)
        later = _afterwards(place, say)
        say("twice the notes")
        grow_vault(place / "vault", place / "twice", 2)
        twice = ours("index", vault=place / "twice", data=place / "twice-data")
        once = median(first["ours"]["peak_mb"])
        return {
            "notes": notes,
            "first_index": first,
            "later": later,
            "memory": {
                "peak_mb": round(once, 1), "twice_the_notes_peak_mb": round(twice.peak_mb, 1),
                "growth": round(twice.peak_mb / once, 3), "twice_seconds": round(twice.seconds, 2),
            },
        }  # fmt: skip


def _first_index(place: Path, weights: Path, rounds: int, say: Say) -> dict[str, Any]:
    """Ours, the preparation of the model included, and LangChain's, in turn, each time into an empty folder."""
    copy_vault(place / "vault", place / "warm", WARM_NOTES)
    ours("index", vault=place / "warm", data=place / "warm-data")
    langchain(place / "warm", place / "warm-chroma", weights)
    runs: dict[str, list[Finished]] = {"ours": [], "langchain": []}
    for number in range(rounds):
        for key in ("ours", "langchain") if number % 2 == 0 else ("langchain", "ours"):
            folder = place / f"{key}-data"
            shutil.rmtree(folder, ignore_errors=True)
            if key == "ours":
                runs[key].append(ours("index", vault=place / "vault", data=folder))
            else:
                runs[key].append(langchain(place / "vault", folder, weights))
            say(f"  first index, {key}: {runs[key][-1].seconds:.1f} s")
    ratio = ratio_of([run.seconds for run in runs["langchain"]], [run.seconds for run in runs["ours"]])
    result: dict[str, Any] = {key: _runs(done) for key, done in runs.items()}
    result["ours"]["reports"] = [_short(run.json()) for run in runs["ours"]]
    result["langchain"]["reports"] = [run.json() for run in runs["langchain"]]
    return {**result, "rounds": rounds, "times_faster": round(ratio.median, 2), "spread": round(ratio.spread, 2)}


def _runs(done: list[Finished]) -> dict[str, Any]:
    seconds = [run.seconds for run in done]
    return {
        "seconds": [round(value, 2) for value in seconds],
        "median_s": round(median(seconds), 2),
        "spread": round(spread(seconds), 3),
        "peak_mb": [round(run.peak_mb, 1) for run in done],
    }


def _short(report: dict[str, Any]) -> dict[str, Any]:
    """The numbers of `index --json`; lists as their length."""
    return {key: len(value) if isinstance(value, list) else value for key, value in report.items()}


def _afterwards(place: Path, say: Say) -> dict[str, Any]:
    """What is done every day: nothing changed, one note edited, one question asked."""
    vault, data = place / "vault", place / "ours-data"
    found: dict[str, list[Finished]] = {"unchanged": [], "search": [], "one_edit": []}
    note = walk(open_vault(vault), Exclusions()).files[0].absolute
    for number in range(REPEATS):
        found["unchanged"].append(ours("index", vault=vault, data=data))
        found["search"].append(ours("search", QUERY, vault=vault, data=data))
        with note.open("a", encoding="utf-8") as file:
            file.write(f"\n\nA paragraph that was added for the {number + 1}. time, about kettles and lime scale.\n")
        os.utime(note)
        found["one_edit"].append(ours("index", vault=vault, data=data))
    for run in found["unchanged"]:
        if run.json()["notes_indexed"]:
            raise RuntimeError("a run over unchanged notes read some of them again")
    for run in found["one_edit"]:
        if run.json()["notes_indexed"] != 1:
            raise RuntimeError(f"after one edit {run.json()['notes_indexed']} notes were indexed, expected 1")
    if not all(run.json() for run in found["search"]):
        raise RuntimeError("a search found nothing")
    say("  " + ", ".join(f"{key} {median(r.seconds for r in runs):.2f} s" for key, runs in found.items()))
    return {key: _runs(runs) for key, runs in found.items()}
