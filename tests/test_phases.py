"""`main.py guide`: a tick is of this vault, on this machine, and for something."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from fake_engine import FakeEngines, fake_settings

from vaultvec.config_file import read_values
from vaultvec.config_keys import GUIDE_VALUES
from vaultvec.config_rewrite import plan_changes
from vaultvec.measure.sampling import place_of
from vaultvec.phases import Step, checklist
from vaultvec.pipeline import Hooks, index_vault
from vaultvec.settings import Settings

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return Path(shutil.copyfile(ROOT / "config.py", tmp_path / "config.py"))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Of the vault "mine"; "other" stands beside it."""
    for name in ("mine", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.md").write_text("Water the basil in the morning.", encoding="utf-8")
    return replace(fake_settings(tmp_path / "data"), vault_path=tmp_path / "mine")


def measured(settings: Settings, proposal: dict[str, Any], of: str, made: str = "2026-01-02") -> None:
    place = asdict(place_of(settings, settings.data_dir.with_name(of)))
    settings.reports_dir.mkdir(parents=True, exist_ok=True)
    present = read_values((ROOT / "config.py").read_text(encoding="utf-8"))
    report = {
        "made": made,
        "place": place,
        "present": present,
        "proposal": proposal,
        "gain": 2.0,
        "rows": [],
        "extras": [],
    }
    (settings.reports_dir / f"bench-{made}.json").write_text(json.dumps(report), encoding="utf-8")


def step(settings: Settings, config: Path, begins: str) -> Step:
    return next(row for row in checklist(settings, config) if row.text.startswith(begins))


def test_only_an_index_of_the_vault_in_question_counts(settings: Settings, config: Path, tmp_path: Path) -> None:
    index_vault(settings, tmp_path / "other", hooks=Hooks(engines=FakeEngines()))
    assert not step(settings, config, "index the vault").done
    unset = step(replace(settings, vault_path=None), config, "index the vault")
    assert (unset.done, unset.todo) == (False, "python main.py index --vault DIR")
    index_vault(settings, tmp_path / "mine", hooks=Hooks(engines=FakeEngines()))
    assert step(settings, config, "index the vault").done
    shutil.rmtree(tmp_path / "mine")
    assert step(settings, config, "index the vault").done, "it answers all the same"


def test_only_a_measurement_of_this_vault_counts(settings: Settings, config: Path) -> None:
    measured(settings, {}, "other")
    row = step(settings, config, "measure")
    assert (row.done, row.todo) == (False, "python embedding_speed_fix.py 1")
    assert "the measurement of 2026-01-02 is of another place: vault other-" in row.measured
    assert step(settings, config, "apply").measured == ""
    measured(settings, {}, "mine", "2026-01-01")
    assert step(settings, config, "measure").measured == "last run 2026-01-01"
    assert not step(replace(settings, vault_path=None), config, "measure").done


def test_a_vault_that_is_away_leaves_a_checklist(settings: Settings, config: Path, tmp_path: Path) -> None:
    measured(settings, {}, "mine")
    shutil.rmtree(tmp_path / "mine")
    assert "not known (" in step(settings, config, "measure").measured


def test_settings_are_applied_when_there_is_something_to_show_for_it(settings: Settings, config: Path) -> None:
    measured(settings, {}, "mine")
    row = step(settings, config, "apply")
    assert (row.done, row.todo) == (False, "")
    assert "proposes none" in row.measured
    key, value = next(iter(GUIDE_VALUES.items()))
    measured(settings, {key: value}, "mine", "2026-01-03")
    assert step(settings, config, "apply").todo == "python config_optimizer.py 2"
    config.write_text(plan_changes(config.read_text(encoding="utf-8"), {key: value}, config.name), encoding="utf-8")
    row = step(settings, config, "apply")
    assert (row.done, row.todo, row.measured) == (True, "", "they are 2.00x those before")
    other = plan_changes(config.read_text(encoding="utf-8"), {"THREADS": 1}, config.name)
    config.write_text(other, encoding="utf-8")
    assert step(settings, config, "measure").measured == "not yet (the measurement of 2026-01-03 is of other settings)"


def test_a_backup_that_is_there_needs_no_doing(settings: Settings, config: Path) -> None:
    assert step(settings, config, "back up").todo == "made by the first apply"
    shutil.copyfile(config, config.with_name("config_backup.py"))
    assert step(settings, config, "back up").todo == ""
