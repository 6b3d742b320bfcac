"""`main.py guide`: the guide's three phases as a checklist for this machine, with what was measured on it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vaultvec.config_file import read_text, read_values
from vaultvec.config_keys import GUIDE_VALUES
from vaultvec.errors import VaultvecError
from vaultvec.index import current_index
from vaultvec.measure.extras import ollama_answers
from vaultvec.measure.results import Place
from vaultvec.measure.sampling import place_of
from vaultvec.settings import Settings

BACKUP = "config_backup.py"
SAMPLE = "sample_vault"


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
    vault = settings.vault_path or config.with_name(SAMPLE)  # as the scripts measure
    values = read_values(read_text(config).text, config.name)
    report, elsewhere = newest_report(settings.reports_dir, values, lambda: place_of(settings, vault))
    return [*_first_phase(settings, config, values, report, elsewhere), *_second_phase(settings, report),
            *_third_phase(settings, report)]  # fmt: skip


def newest_report(folder: Path, present: Mapping[str, Any], here: Callable[[], Place]) -> tuple[dict[str, Any], str]:
    """The last benchmark's JSON that was made `here` with these values of config.py, or that proposed them, and ""; where
    there is none, {} and what stands in its way."""
    now = json.loads(json.dumps(present))
    place: Place | None = None
    elsewhere = ""
    for path in sorted(folder.glob("bench-*.json"), reverse=True):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            made, kept = found["made"], found.get("place")
            then = Place(**kept) if kept else None
            fits = now in (found["present"], found["present"] | found["proposal"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # a broken report is no report
        try:
            place = place or here()
        except VaultvecError as error:
            return {}, f"not known ({error})"
        differs = then.differences(place) if then else "it does not say of which vault"
        if not differs and fits:
            return found, ""
        of = f"another place: {differs}" if differs else "other settings"
        elsewhere = elsewhere or f"not yet (the measurement of {made} is of {of})"
    return {}, elsewhere


def _first_phase(
    settings: Settings, config: Path, values: Mapping[str, Any], report: dict[str, Any], elsewhere: str
) -> list[Step]:
    phase = "1 · settings (the guide: 5 minutes, 3-5x)"
    proposal = report.get("proposal")
    holds = proposal is not None and all(values.get(key) == value for key, value in proposal.items())
    guide = sum(values.get(key) == value for key, value in GUIDE_VALUES.items())
    gain = ""
    if report.get("gain"):
        times = f"{report['gain']:.2f}x"
        gain = f"they are {times} those before" if holds else f"the tuned settings are {times} the present ones"
    backed_up = config.with_name(BACKUP).is_file()
    if proposal == {}:
        gain = "the last run proposes none but those that config.py has"
    measured = bool(report) and settings.vault_path is not None
    made = f"last run {report['made']}{'' if measured else f', on {SAMPLE}: no vault is set'}" if report else elsewhere
    return [
        Step(phase, "measure this machine on your notes", measured, made,
             "" if measured else f"python embedding_speed_fix.py 1{_which(settings)}"),
        Step(phase, "back up config.py", backed_up, "", "" if backed_up else "made by the first apply"),
        Step(phase, f"apply the settings ({guide} of {len(GUIDE_VALUES)} stand at the guide's value)",
             holds and bool(proposal or guide), gain, "" if holds else "python config_optimizer.py 2"),
    ]  # fmt: skip


def _which(settings: Settings) -> str:
    """What a command needs besides while no vault is set."""
    return " --vault DIR" if settings.vault_path is None else ""


def _indexed(settings: Settings) -> bool:
    try:
        return settings.vault_path is not None and current_index(settings, settings.vault_path).is_dir()
    except VaultvecError:
        return False


def _second_phase(settings: Settings, report: dict[str, Any]) -> list[Step]:
    phase = "2 · whole-vault batches (the guide: 10 minutes, 5-10x more)"
    rows = {row["key"]: row["texts_per_second"] for row in report.get("rows", [])}
    gain = ""
    if rows.get("one") and rows.get("present"):
        gain = f"{rows['present'] / rows['one']:.1f}x the per-chunk way: {rows['present']:.0f} against {rows['one']:.0f} texts/s"
    indexed = _indexed(settings)
    return [
        Step(phase, "embed with obsidian_processor_optimized.py (main.py does)", True, gain, ""),
        Step(phase, "index the vault", indexed, "", "" if indexed else f"python main.py index{_which(settings)}"),
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
