"""Watching: a change is indexed, a burst once, other files never; errors are told and do not end it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fake_engine import FakeEngines, fake_settings

from vaultvec.errors import SettingsError
from vaultvec.index import current_index, writer_lock
from vaultvec.ledger import Ledger
from vaultvec.pipeline import Hooks
from vaultvec.settings import Settings
from vaultvec.vault import load_exclusions
from vaultvec.watch import concerns_notes, watch

PATIENCE = 60.0  # seconds until a test gives up waiting


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.05)


@contextmanager
def watching(settings: Settings, vault: Path, lines: list[str]) -> Iterator[None]:
    """Watch in a thread; ends it and raises what it raised."""
    stop, errors = threading.Event(), []
    hooks = Hooks(notify=lines.append, engines=FakeEngines())

    def body() -> None:
        try:
            watch(settings, vault, 0.1, lambda _: None, lines.append, stop=stop, hooks=hooks, retry_s=0.3)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    try:
        wait_until(lambda: any(line.startswith("watching") for line in lines) or bool(errors))
        time.sleep(0.3)  # the watcher itself starts after the line
        yield
    finally:
        stop.set()
        thread.join(PATIENCE)
    assert not errors
    assert not thread.is_alive()


def notes_of(settings: Settings, vault: Path) -> set[str]:
    with Ledger(current_index(settings, vault) / "ledger.sqlite3", readonly=True) as ledger:
        return set(ledger.notes())


def test_changes_are_indexed_until_it_is_stopped(tmp_path: Path) -> None:
    vault, settings, lines = tmp_path / "vault", fake_settings(tmp_path / "data"), []
    (vault / "Folder").mkdir(parents=True)
    (vault / "Folder" / "a.md").write_text("first")
    with watching(settings, vault, lines):
        (vault / "b.md").write_text("second")
        wait_until(lambda: any("1 notes indexed" in line for line in lines[2:]))
        (vault / "Folder").rename(vault / "Moved")
        wait_until(lambda: any("1 deleted" in line for line in lines))
        with writer_lock(settings.vault_dir(vault)):
            (vault / "c.md").write_text("third")
            wait_until(lambda: any("another process" in line for line in lines))
        wait_until(lambda: "c.md" in notes_of(settings, vault))
    assert notes_of(settings, vault) == {"Moved/a.md", "b.md", "c.md"}


def test_only_notes_and_folders_of_notes_concern_it(tmp_path: Path) -> None:
    exclusions = load_exclusions(tmp_path, ("Templates/",))
    for name, expected in {
        "a.md": True,
        "Folder/b.canvas": True,
        "Folder": True,
        ".obsidian/app.json": True,
        ".obsidian/workspace.json": False,
        "Templates/t.md": False,
        "picture.png": False,
        ".trash/a.md": False,
        "a.md.part": False,
    }.items():
        assert concerns_notes(tmp_path, tmp_path / name, exclusions) == expected, name
    assert not concerns_notes(tmp_path, tmp_path.parent / "other.md", exclusions)


def test_a_debounce_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--debounce"):
        watch(fake_settings(tmp_path / "data"), tmp_path, -1.0, lambda _: None, lambda _: None)
