"""From a vault to a report: sample, measure with a progress bar, keep the results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from vaultvec.measure.bench import Subject, run_benchmark
from vaultvec.measure.report import save_html
from vaultvec.measure.results import Report, save_json
from vaultvec.measure.sampling import SHORT_SAMPLE, THOROUGH_SAMPLE, place_with, sample_vault
from vaultvec.settings import Settings


@dataclass(frozen=True, slots=True)
class Measured:
    """A report and where people find it."""

    report: Report
    html_path: Path


def measure(
    settings: Settings, present: Mapping[str, Any], vault: Path, *, thorough: bool = False, int8: bool = False
) -> Measured:
    """Benchmark a vault, a progress bar on stderr. `present`: config.py's values.

    Raises VaultError, ModelError, EngineError, SettingsError.
    """
    screen = Console(stderr=True)
    columns = (TextColumn("{task.description:<48}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    with Progress(*columns, TimeElapsedColumn(), console=screen, transient=True) as bar:
        task = bar.add_task("choosing chunks", total=1.0)
        sample = sample_vault(settings, vault, THOROUGH_SAMPLE if thorough else SHORT_SAMPLE)
        if len(sample.models) > 1:
            names = ", ".join(model.slug for model in sample.models)
            bar.console.print(f"this vault uses {names} ({sample.reason}); measuring {sample.model.slug}", markup=False)
        report = run_benchmark(
            Subject(
                settings, present, sample.model, sample.texts, vault, thorough=thorough, int8=int8,
                progress=lambda label, share: bar.update(task, description=label[:48], completed=share),
                notify=lambda line: bar.console.print(line, markup=False),
                place=place_with(settings, vault, sample.model),
            )
        )  # fmt: skip
    save_json(report, settings.reports_dir)
    return Measured(report, save_html(report, settings.reports_dir))
