"""Watching: a change is indexed, a burst once, other files never; errors are told and do not end it."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fake_engine import FakeEngines, fake_settings

import vaultvec.watch as watching_module
from vaultvec.datatypes import Batch, IndexReport, Vectors
from vaultvec.errors import EngineError, ModelError, SettingsError
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
def watching(settings: Settings, vault: Path, lines: list[str], engines: FakeEngines | None = None) -> Iterator[None]:
    """Watch in a thread; ends it and raises what it raised."""
    stop, errors = threading.Event(), []
    hooks = Hooks(notify=lines.append, engines=engines or FakeEngines())

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


def test_what_changes_before_the_watcher_is_up_is_seen(tmp_path: Path) -> None:
    vault, settings, lines = tmp_path / "vault", fake_settings(tmp_path / "data"), []
    vault.mkdir()
    (vault / "a.md").write_text("first")

    def write_beside(_: Batch, vectors: Vectors) -> Vectors:
        (vault / "b.md").write_text("written during the first run")
        return vectors

    with watching(settings, vault, lines, FakeEngines(forward=write_beside)):
        wait_until(lambda: "b.md" in notes_of(settings, vault))


@pytest.mark.parametrize(
    "refusal",
    [
        RuntimeError("Error creating recommended watcher: Too many open files (os error 24)"),
        OSError('OS file watch limit reached. about ["/v"] (Error { kind: MaxFilesWatch, paths: ["/v"] })'),
        PermissionError('Permission denied (os error 13) about ["/v/private"]'),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_vault_that_the_system_cannot_watch_is_looked_at_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: Exception
) -> None:
    def refuse(*_: object, **__: object) -> Iterator[set[tuple[int, str]]]:
        raise refusal
        yield set()

    monkeypatch.setattr("watchfiles.watch", refuse)
    monkeypatch.setattr(watching_module, "POLL_SECONDS", 0.1)
    vault, settings, lines = tmp_path / "vault", fake_settings(tmp_path / "data"), list[str]()
    vault.mkdir()
    (vault / "a.md").write_text("The first note.", encoding="utf-8")
    (vault / "large.md").write_bytes(b"\x00" * 100)
    with watching(settings, vault, lines):
        (vault / "b.md").write_text("The second note.", encoding="utf-8")
        wait_until(lambda: {"a.md", "b.md"} <= notes_of(settings, vault))
        time.sleep(0.5)
    assert [line for line in lines if "looked at every" in line and "Error {" not in line]
    assert sum("large.md" in line for line in lines) <= 1, lines


def test_a_vault_that_is_only_looked_at_is_no_reason_to_fail_more_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> Iterator[set[tuple[int, str]]]:
        raise RuntimeError("Too many open files (os error 24)")
        yield set()

    def fail(*_: object, **__: object) -> IndexReport:
        began.append(time.monotonic())
        time.sleep(0.3)
        raise ModelError("another model is what you want")

    began: list[float] = []
    monkeypatch.setattr("watchfiles.watch", refuse)
    monkeypatch.setattr(watching_module, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(watching_module, "index_vault", fail)
    (tmp_path / "vault").mkdir()
    with watching(fake_settings(tmp_path / "data"), tmp_path / "vault", []):
        wait_until(lambda: len(began) >= 3)
    assert began[2] - began[1] >= 0.3 * watching_module.RESTS


def test_a_drive_that_goes_away_with_an_error_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a network drive does: whoever asks for it is told that there is no connection."""

    def refuse(*_: object, **__: object) -> Iterator[set[tuple[int, str]]]:
        raise OSError("no notifications on this drive")
        yield set()

    def away(path: object, **options: bool) -> os.stat_result:
        if str(path) == str(vault):
            asked.append(path)
            raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")
        return real(path, **options)  # type: ignore[call-overload,no-any-return]

    real, asked = os.stat, list[object]()
    monkeypatch.setattr("watchfiles.watch", refuse)
    monkeypatch.setattr(watching_module, "POLL_SECONDS", 0.1)
    vault, settings, lines = tmp_path / "vault", fake_settings(tmp_path / "data"), list[str]()
    vault.mkdir()
    (vault / "a.md").write_text("The first note.", encoding="utf-8")
    with watching(settings, vault, lines):
        with monkeypatch.context() as patch:
            patch.setattr(os, "stat", away)
            wait_until(lambda: len(asked) > 3)
            time.sleep(0.5)
        (vault / "b.md").write_text("The second note.", encoding="utf-8")
        wait_until(lambda: {"a.md", "b.md"} <= notes_of(settings, vault))
    told = [line for line in lines if line.startswith(str(vault))]
    assert told == [f"{vault} is not there now; nothing is changed until it is again", f"{vault} is there again"]


def test_a_new_list_of_excluded_files_is_heeded(tmp_path: Path) -> None:
    vault, settings, lines = tmp_path / "vault", fake_settings(tmp_path / "data"), []
    for folder in (".obsidian", "Hidden"):
        (vault / folder).mkdir(parents=True)
    (vault / "a.md").write_text("first")
    excluded = vault / ".obsidian" / "app.json"
    excluded.write_text('{"userIgnoreFilters": ["Hidden/"]}')
    with watching(settings, vault, lines):
        excluded.write_text("{}")
        time.sleep(1)  # the change is heeded; what follows is another one
        (vault / "Hidden" / "b.md").write_text("second")
        wait_until(lambda: "Hidden/b.md" in notes_of(settings, vault))


def test_the_same_failure_is_told_once_and_tried_again_ever_more_rarely(tmp_path: Path) -> None:
    vault, settings, lines = tmp_path / "vault", fake_settings(tmp_path / "data"), []
    vault.mkdir()
    (vault / "a.md").write_text("first")
    with watching(settings, vault, lines):
        (vault / "a.md").unlink()
        wait_until(lambda: any("holds no notes" in line for line in lines))
        time.sleep(2)  # retried after 0.3, 0.6, 1.2 seconds
        assert sum("holds no notes" in line for line in lines) == 1
        (vault / "b.md").write_text("second")
        wait_until(lambda: notes_of(settings, vault) == {"b.md"})


def test_a_failure_that_lasts_is_told_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vault, settings, lines = tmp_path / "vault", fake_settings(tmp_path / "data"), []
    vault.mkdir()
    (vault / "a.md").write_text("first")
    monkeypatch.setattr(watching_module, "LONGEST_RETRY", 0.5)
    with watching(settings, vault, lines):
        (vault / "a.md").unlink()
        wait_until(lambda: sum("holds no notes" in line for line in lines) >= 3)


def test_it_goes_on_when_the_data_folder_can_be_written_again(tmp_path: Path) -> None:
    vault, settings, lines = tmp_path / "vault", fake_settings(tmp_path / "data"), []
    vault.mkdir()
    (vault / "a.md").write_text("first")
    with watching(settings, vault, lines):
        time.sleep(1.0)  # the run for what changed before the watcher was up makes its folder again
        indexes, aside = settings.data_dir / "vaults", tmp_path / "aside"
        indexes.rename(aside)
        indexes.write_text("a file where the folder was")
        (vault / "b.md").write_text("second")
        wait_until(lambda: any("cannot be written" in line for line in lines))
        indexes.unlink()
        aside.rename(indexes)
        wait_until(lambda: any("up to date again" in line for line in lines))
        assert notes_of(settings, vault) == {"a.md", "b.md"}


def test_a_failure_that_takes_long_is_not_tried_again_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> IndexReport:
        time.sleep(0.2)
        raise ModelError("another model is what you want")

    monkeypatch.setattr(watching_module, "index_vault", fail)
    runs = watching_module._Runs(fake_settings(tmp_path / "data"), tmp_path, Hooks(), 0.01)
    runs.run()
    time.sleep(0.1)
    assert not runs.due()
    wait_until(runs.due)


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), EngineError("the server is away")])
def test_a_run_that_fails_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    vault, settings, lines = tmp_path / "vault", fake_settings(tmp_path / "data"), []
    vault.mkdir()
    (vault / "a.md").write_text("first")
    with watching(settings, vault, lines):

        def fail(*_: object, **__: object) -> IndexReport:
            raise failure

        with monkeypatch.context() as patch:
            patch.setattr(watching_module, "index_vault", fail)
            (vault / "b.md").write_text("second")
            wait_until(lambda: any(failure.args[-1] in line for line in lines))
        wait_until(lambda: any("up to date again" in line for line in lines))
        assert notes_of(settings, vault) == {"a.md", "b.md"}


def test_only_notes_and_folders_of_notes_concern_it(tmp_path: Path) -> None:
    (tmp_path / "Dr.House").mkdir()
    (tmp_path / "picture.png").touch()
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
        "1. Projects": True,  # gone: a folder that was renamed
        "v1.2": True,
        "gone.png": False,
        "Dr.House": True,  # there: a folder
    }.items():
        assert concerns_notes(tmp_path, tmp_path / name, exclusions) == expected, name
    assert not concerns_notes(tmp_path, tmp_path.parent / "other.md", exclusions)


def test_a_debounce_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--debounce"):
        watch(fake_settings(tmp_path / "data"), tmp_path, -1.0, lambda _: None, lambda _: None)
