"""What a vault leaves out, where notes went, and when so many are gone that the drive may be."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from fake_engine import FakeEngines, fake_settings

from vaultvec.datatypes import IndexReport
from vaultvec.errors import SettingsError, VaultError
from vaultvec.pipeline import Hooks, index_vault
from vaultvec.settings import Settings
from vaultvec.status import read_status


def put(vault: Path, **texts: str) -> Path:
    vault.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (vault / f"{name}.md").write_text(text, encoding="utf-8")
    return vault


def index(settings: Settings, vault: Path, engines: FakeEngines | None = None) -> IndexReport:
    return index_vault(settings, vault, hooks=Hooks(engines=engines or FakeEngines()))


def test_a_list_of_excluded_files_that_cannot_be_read_just_now_is_still_heeded(tmp_path: Path) -> None:
    vault, settings = put(tmp_path / "vault", a="the kettle stands on the shelf"), fake_settings(tmp_path / "data")
    lines: list[str] = []
    for path, text in {".obsidian/app.json": '{"userIgnoreFilters": ["Private/"]}', "Private/diary.md": "mine"}.items():
        (vault / path).parent.mkdir(exist_ok=True)
        (vault / path).write_text(text)
    assert index(settings, vault).notes_total == 1
    (vault / ".obsidian" / "app.json").write_text('{"userIgnoreFil')  # half of it has been synced
    (vault / "b.md").write_text("another note")
    hooks = Hooks(engines=FakeEngines(), notify=lines.append)
    assert index_vault(settings, vault, hooks=hooks).notes_total == 2
    assert [line for line in lines if "app.json cannot be read" in line and "those of the last run" in line]
    (vault / ".obsidian" / "app.json").write_text("{}")
    assert index(settings, vault).notes_total == 3


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need a right there")
def test_a_link_that_leaves_the_vault_is_told(tmp_path: Path) -> None:
    vault, settings = put(tmp_path / "vault", a="the kettle stands on the shelf"), fake_settings(tmp_path / "data")
    (tmp_path / "elsewhere").mkdir()
    (vault / "Work").symlink_to(tmp_path / "elsewhere")
    report = index(settings, vault)
    assert [path for path, text in report.warnings if "leaves the vault" in text] == ["Work"]


def test_a_renamed_or_excluded_folder_is_no_lost_drive(tmp_path: Path) -> None:
    vault, data = tmp_path / "vault", tmp_path / "data"
    put(vault / "Notes", **{f"n{i}": f"note number {i}" for i in range(30)})
    put(vault, a="the kettle stands on the shelf")
    index(fake_settings(data), vault)
    (vault / "Notes").rename(vault / "Zettel")
    again = FakeEngines()
    report = index(fake_settings(data), vault, again)
    assert (report.notes_total, report.notes_deleted, again.texts) == (31, 30, [])
    assert index(replace(fake_settings(data), exclude=("Zettel/",)), vault).notes_total == 1
    index(fake_settings(data), vault)
    shutil.rmtree(vault / "Zettel")
    with pytest.raises(VaultError, match=r"30 of 31 .* --vault .* --accept-deletions"):
        index(fake_settings(data), vault)


def test_a_note_that_cannot_be_read_is_told_later_too_and_is_not_stale(tmp_path: Path) -> None:
    vault, settings = put(tmp_path / "vault", a="the kettle stands on the shelf"), fake_settings(tmp_path / "data")
    (vault / "b.md").write_bytes(b"\x00\x01 no text")
    assert [path for path, _ in index(settings, vault).notes_failed] == ["b.md"]
    status = read_status(settings, vault)
    assert ([path for path, _ in status.failed], status.stale_notes) == (["b.md"], 0)
    (vault / "b.md").write_text("now it is text")
    assert read_status(settings, vault).stale_notes == 1
    index(settings, vault)
    status = read_status(settings, vault)
    assert (status.failed, status.stale_notes) == ([], 0)


def test_nothing_is_written_to_a_vault_of_which_a_folder_is_indexed(tmp_path: Path) -> None:
    vault = tmp_path / "vault"
    put(vault / "Sub", a="the kettle stands on the shelf")
    (vault / ".obsidian").mkdir()
    with pytest.raises(SettingsError, match="inside the vault"):
        index(fake_settings(vault / "data"), vault / "Sub")
    assert sorted(path.name for path in vault.iterdir()) == [".obsidian", "Sub"]


def test_both_models_are_named_whatever_had_to_be_embedded(tmp_path: Path) -> None:
    english = "The kettle stands on the shelf and the water in it is warm enough for the tea of the guests."
    korean = "주전자는 선반 위에 있고 그 안의 물은 손님들의 차를 끓이기에 충분히 따뜻하다. 창밖에는 눈이 내린다."
    texts = {f"e{i}": f"{english} {i}" for i in range(4)} | {f"k{i}": f"{korean} {i}" for i in range(4)}
    vault, settings = put(tmp_path / "vault", **texts), fake_settings(tmp_path / "data", embedding_model="auto")
    both = index(settings, vault).model
    assert " + " in both
    (vault / "e0.md").unlink()
    report = index(settings, vault)
    assert (report.model, report.engine) == (both, "fake")
