"""`main.py guide`: the guide's three phases as a checklist for this machine, with what was measured on it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vaultvec.config_file import read_text, read_values
from vaultvec.config_keys import GUIDE_VALUES
from vaultvec.measure.extras import ollama_answers
from vaultvec.settings import Settings

BACKUP = "config_backup.py"


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the guide."""

    phase: str
    text: str
    done: bool
    measured: str  # what it brought here; says so when no run has measured it
    todo: str  # the command to type next; "" when there is nothing left to do

    def as_dict(self) -> dict[str, Any]:
        """`guide --json`."""
        return asdict(self)


def checklist(settings: Settings, config: Path) -> list[Step]:
    """The guide's steps in order. Reads config.py, the newest benchmark, and whether Ollama listens on its port."""
    report = newest_report(settings.reports_dir)
    return [*_first_phase(config, report), *_second_phase(settings, report), *_third_phase(settings, report)]


def newest_report(folder: Path) -> dict[str, Any]:
    """The last benchmark's JSON; {} when there is none."""
    for path in sorted(folder.glob("bench-*.json"), reverse=True):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # a broken report is no report
        if isinstance(found, dict):
            return found
    return {}


def _first_phase(config: Path, report: dict[str, Any]) -> list[Step]:
    phase = "1 · settings (the guide: 5 minutes, 3-5x)"
    values = read_values(read_text(config).text, config.name)
    tuned = bool(report) and report.get("proposal") is not None and _holds(values, report["proposal"])
    guide = sum(values.get(key) == value for key, value in GUIDE_VALUES.items())
    gain = f"the tuned settings are {report['gain']:.2f}x the present ones" if report.get("gain") else ""
    return [
        Step(phase, "measure this machine on your notes", bool(report), f"last run {report['made']}" if report else "",
             "" if report else "python embedding_speed_fix.py 1"),
        Step(phase, "back up config.py", config.with_name(BACKUP).is_file(), "", "made by the first apply"),
        Step(phase, f"apply the settings ({guide} of {len(GUIDE_VALUES)} stand at the guide's value)", tuned, gain,
             "" if tuned else "python config_optimizer.py 2"),
    ]  # fmt: skip


def _holds(values: dict[str, Any], proposal: dict[str, Any]) -> bool:
    return all(values.get(key) == value for key, value in proposal.items())


def _second_phase(settings: Settings, report: dict[str, Any]) -> list[Step]:
    phase = "2 · whole-vault batches (the guide: 10 minutes, 5-10x more)"
    rows = {row["key"]: row["texts_per_second"] for row in report.get("rows", [])}
    gain = ""
    if rows.get("one") and rows.get("present"):
        gain = f"{rows['present'] / rows['one']:.1f}x the per-chunk way: {rows['present']:.0f} against {rows['one']:.0f} texts/s"
    indexed = any(settings.data_dir.glob("vaults/*/current"))
    return [
        Step(phase, "embed with obsidian_processor_optimized.py (main.py does)", True, gain, ""),
        Step(phase, "index the vault", indexed, "", "" if indexed else "python main.py index"),
        Step(phase, "the per-file way stays for comparison", True, "", "python main.py index --baseline"),
    ]


def _third_phase(settings: Settings, report: dict[str, Any]) -> list[Step]:
    phase = "3 · options (the guide: 30 minutes, 2-3x more)"
    extras = {row["label"]: row["finding"] for row in report.get("extras", [])}
    steps = [
        Step(phase, label, True, finding, "") for label, finding in extras.items()
    ] or [
        Step(phase, "another model, torch.compile, processes over files", False, "",
             "python embedding_speed_fix.py 1 --thorough")
    ]  # fmt: skip
    answers = ollama_answers(settings.ollama_url)
    return [
        *steps,
        Step(phase, f"Ollama at {settings.ollama_url}", settings.engine == "ollama",
             "it answers" if answers else "it does not answer here",
             'set ENGINE = "ollama" and measure' if answers else "ollama serve, then ollama pull nomic-embed-text"),
    ]  # fmt: skip
