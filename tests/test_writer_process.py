"""The writer in a process of its own: the same index, and every way it can end is one clear line or mended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from fake_engine import FakeEngines, fake_settings
from index_state import IndexState, assert_same, state_of
from made_vault import update_vault, write_vault

import vaultvec.chroma_folder
from vaultvec import pipeline
from vaultvec.chroma_folder import writing_store
from vaultvec.datatypes import Batch, IndexReport, Vectors
from vaultvec.errors import LedgerError, LockedError
from vaultvec.index import current_index
from vaultvec.pipeline import Hooks, index_vault
from vaultvec.settings import Settings
from vaultvec.stages import writer_process

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="ends processes by POSIX signals")


@pytest.fixture
def vault(tmp_path: Path) -> Path:
    return write_vault(tmp_path / "vault", 16, seed=3)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return fake_settings(tmp_path / "data")


@pytest.fixture
def expected(tmp_path: Path, vault: Path) -> IndexState:
    """What a run without the process makes."""
    clean = fake_settings(tmp_path / "clean")
    index_vault(clean, vault, hooks=Hooks(engines=FakeEngines()))
    return state_of(clean, vault)


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch, expected: IndexState) -> None:
    del expected  # was made before
    monkeypatch.setattr(pipeline, "PAYS_FROM", 0)


def writers() -> list[int]:
    """Process ids of the writers that this process has started and that run."""
    return [
        child.pid
        for child in psutil.Process().children()
        if child.status() != psutil.STATUS_ZOMBIE and writer_process._CODE in child.cmdline()
    ]


def run(settings: Settings, vault: Path, when: Callable[[], None] = lambda: None) -> tuple[IndexReport, list[str]]:
    """Index with batches of a few texts; `when` is called before the fourth. Returns the report and what was said."""
    said: list[str] = []
    calls = 0

    def forward(_: Batch, vectors: Vectors) -> Vectors:
        nonlocal calls
        calls += 1
        if calls == 4:
            when()
        return vectors

    engines = FakeEngines(token_budget=256, window=16, forward=forward)
    return index_vault(settings, vault, hooks=Hooks(engines=engines, notify=said.append)), said


def end_by(number: signal.Signals) -> Callable[[], None]:
    """Ends the writer, once it has been started."""

    def act() -> None:
        (pid,) = writers()
        os.kill(pid, number)

    return act


@pytest.mark.usefixtures("apart")
def test_the_index_is_the_same(settings: Settings, vault: Path, expected: IndexState) -> None:
    seen: list[int] = []
    report, _ = run(settings, vault, lambda: seen.extend(writers()))
    assert len(seen) == 1
    assert_same(state_of(settings, vault), expected)
    assert not writers()
    assert report.peak_rss_mb > 50


@pytest.mark.usefixtures("apart")
def test_deletions_and_changes_reach_chroma(settings: Settings, vault: Path, tmp_path: Path) -> None:
    run(settings, vault)
    update_vault(vault, 5)
    run(settings, vault)
    clean = fake_settings(tmp_path / "clean again")
    index_vault(clean, vault, hooks=Hooks(engines=FakeEngines()))
    assert_same(state_of(settings, vault), state_of(clean, vault))


@pytest.mark.usefixtures("apart")
def test_a_run_with_nothing_to_write_starts_no_process(
    settings: Settings, vault: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(settings, vault)
    for path in vault.rglob("*.md"):
        os.utime(path, (1, 1))
    monkeypatch.setattr(writer_process, "_CODE", "raise SystemExit(9)")
    report, _ = run(settings, vault)
    assert report.notes_unchanged == report.notes_total > 0


@pytest.mark.usefixtures("apart")
def test_a_killed_writer_is_told_and_the_next_run_goes_on(
    settings: Settings, vault: Path, expected: IndexState
) -> None:
    with pytest.raises(LedgerError, match=r"ended early \(SIGKILL\); run it again"):
        run(settings, vault, end_by(signal.SIGKILL))
    run(settings, vault)
    assert_same(state_of(settings, vault), expected)


@pytest.mark.usefixtures("apart")
def test_a_writer_that_chroma_brings_down_is_started_with_a_new_chroma(
    settings: Settings, vault: Path, expected: IndexState
) -> None:
    _, said = run(settings, vault, end_by(signal.SIGSEGV))
    assert [line for line in said if "made anew" in line and "SIGSEGV" in line]
    assert_same(state_of(settings, vault), expected)


@pytest.mark.usefixtures("apart")
def test_a_writer_that_is_brought_down_again_and_again_is_told(
    settings: Settings, vault: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_process, "_CODE", "import os; os.abort()")
    with pytest.raises(LedgerError, match=r"ended early \(SIGABRT\)"):
        run(settings, vault)


@pytest.mark.usefixtures("apart")
def test_an_error_there_is_raised_here_as_what_it_is(
    settings: Settings, vault: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "from vaultvec import chroma_folder; chroma_folder.WAIT_FOR_WRITER = 0.2; " + writer_process._CODE
    monkeypatch.setattr(writer_process, "_CODE", code)
    run(settings, vault)
    update_vault(vault, 5)
    with writing_store(current_index(settings, vault) / "chroma"), pytest.raises(LockedError, match="earlier run"):
        run(settings, vault)
    run(settings, vault)


@pytest.mark.usefixtures("apart")
def test_an_unknown_error_there_is_one_line(settings: Settings, vault: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = f"from vaultvec.stages import writing; writing.ChromaStore = lambda *_: 1 / 0; {writer_process._CODE}"
    monkeypatch.setattr(writer_process, "_CODE", code)
    with pytest.raises(LedgerError, match=r"ZeroDivisionError: division by zero.*doctor"):
        run(settings, vault)


@pytest.mark.usefixtures("apart")
def test_ctrl_c_ends_the_writer_too(settings: Settings, vault: Path, expected: IndexState) -> None:
    def interrupt() -> None:
        assert writers()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(settings, vault, interrupt)
    assert not writers()
    run(settings, vault)
    assert_same(state_of(settings, vault), expected)


@pytest.mark.usefixtures("apart")
def test_a_writer_that_hangs_is_killed(settings: Settings, vault: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "LONGEST_COMMIT", 0.5)
    monkeypatch.setattr(writer_process, "_CODE", "import time; time.sleep(600)")

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(settings, vault, interrupt)
    assert not writers()


def test_a_writer_whose_parent_is_gone_ends_by_itself(vault: Path, settings: Settings) -> None:
    index_vault(settings, vault, hooks=Hooks(engines=FakeEngines()))
    index = current_index(settings, vault)
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from vaultvec.stages.writer_process import WriterProcess\n"
        "from vaultvec.stages.writing import WriterTask\n"
        f"task = WriterTask(Path({str(index / 'ledger.sqlite3')!r}), Path({str(index / 'chroma')!r}), [1], 64, True)\n"
        "writer = WriterProcess(task)\n"
        "writer.wake()\n"
        "print(writer._process.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    root = Path(writer_process.__file__).resolve().parents[2]
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    pid = int(parent.stdout.readline())
    assert psutil.pid_exists(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 60
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the writer outlived its parent"
        time.sleep(0.05)


def test_a_store_in_use_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vaultvec.chroma_folder, "WAIT_FOR_WRITER", 0.1)
    with (
        writing_store(tmp_path / "chroma"),
        pytest.raises(LockedError, match="still has"),
        writing_store(tmp_path / "chroma"),
    ):
        pass
