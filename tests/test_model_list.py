"""main.py models: what earlier benchmarks measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vaultvec.model_list import list_models
from vaultvec.models import L6, resolve
from vaultvec.settings import Settings
from vaultvec.terminal.summaries import print_models

L12 = "sentence-transformers/all-MiniLM-L12-v2"
USED = resolve(L6).name


def report(speed: float, engine: str = "openvino", **more: Any) -> dict[str, Any]:
    rows = [{"key": "one", "texts_per_second": 1.0}, {"key": "present", "texts_per_second": speed}]
    made_by = {"engine": engine, "precision": "fp32", "device": "cpu"}
    return {"model": USED, **made_by, "rows": rows, "models": [], **more}


def listed(data: Path, *reports: Any) -> dict[str, tuple[float | None, float | None]]:
    settings = Settings(data_dir=data)
    settings.reports_dir.mkdir(parents=True)
    for number, found in enumerate(reports):
        (settings.reports_dir / f"bench-{number}.json").write_text(json.dumps(found))
    return {row["name"]: (row["texts_per_second"], row["agreement"]) for row in list_models(settings)}


def test_every_benchmark_measures_the_model_in_use(tmp_path: Path) -> None:
    assert listed(tmp_path, report(70.0), report(71.5))[USED] == (71.5, None)


def test_a_thorough_benchmark_measures_more_and_a_later_one_keeps_it(tmp_path: Path) -> None:
    models = [
        {"name": USED, "texts_per_second": 60.0, "agreement": 1.0},
        {"name": L12, "texts_per_second": 35.0, "agreement": 0.7},
    ]
    rows = listed(tmp_path, report(70.0, models=models), report(71.5))
    assert (rows[USED], rows[L12]) == ((71.5, 1.0), (35.0, 0.7))


def test_a_speed_says_what_it_was_measured_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = [{"name": L12, "texts_per_second": 35.0, "agreement": 0.7, "measured_with": "openvino int8 cpu"}]
    listed(tmp_path, report(71.5, models=models))
    print_models(list_models(Settings(data_dir=tmp_path)))
    shown = capsys.readouterr().out
    assert "71.5 (openvino fp32 cpu)" in shown
    assert "35.0 (openvino int8 cpu)" in shown


def test_a_servers_speed_and_a_broken_report_say_nothing(tmp_path: Path) -> None:
    assert listed(tmp_path, report(70.0, "ollama"), [], {"rows": 3})[USED] == (None, None)


def test_the_table_says_what_fills_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_models(list_models(Settings(data_dir=tmp_path)))
    assert "python embedding_speed_fix.py 1 measures the model in use" in capsys.readouterr().err
