"""Kill one run at a chosen moment, let the next one finish, and compare with a clean index."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from fake_engine import FakeEngines, fake_settings
from index_state import IndexState, assert_same, state_of
from made_vault import update_vault, write_vault

from vaultvec.pipeline import Hooks, index_vault

CHILD = Path(__file__).with_name("kill_child.py")
DELAY = 0.004  # seconds a batch: so that the work is long enough to be hit anywhere


@dataclass(frozen=True)
class Scene:
    """What is killed: a kind of work on a vault, the data folder it starts from, and what must come out."""

    work: str  # "first", "apart" (the same with a writer process), "update", "rebuild"
    vault: Path
    start: Path  # copied for each kill
    expected: IndexState
    seconds: float  # of a run that is not killed

    @classmethod
    def prepare(cls, folder: Path, work: str, notes: int, seed: int) -> Scene:
        """Make the vault and the index to start from, and the clean index to compare with."""
        vault = write_vault(folder / "vault", notes, seed)
        start = folder / "start"
        start.mkdir()
        if work in ("update", "rebuild"):
            index_vault(fake_settings(start), vault, hooks=Hooks(engines=FakeEngines()))
        if work == "update":
            update_vault(vault, seed)
        clean = folder / "clean"
        index_vault(fake_settings(clean), vault, hooks=Hooks(engines=FakeEngines()))
        trial = folder / "trial"
        shutil.copytree(start, trial)
        child = _start(work, vault, trial, trial / "log")
        began = time.perf_counter()
        assert child.wait(120) == 0
        return cls(work, vault, start, state_of(fake_settings(clean), vault), time.perf_counter() - began)


def _start(work: str, vault: Path, data: Path, log: Path) -> subprocess.Popen[str]:
    """A child that has said "ready"."""
    kind = work if work in ("apart", "rebuild") else "index"
    command = [sys.executable, str(CHILD), kind, str(vault), str(data), str(log), str(DELAY)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    child.stdout.close()
    return child


def kill_once(scene: Scene, data: Path, moment: float) -> bool:
    """Kill at `moment` (0 to 1 of the run), run again, compare. Returns whether the kill came before the end."""
    shutil.copytree(scene.start, data)
    log = data / "embedded.log"
    child = _start(scene.work, scene.vault, data, log)
    time.sleep(moment * scene.seconds)
    child.kill()
    killed = child.wait() != 0
    before = _batches(log)
    engines = FakeEngines(log=log)
    index_vault(fake_settings(data), scene.vault, hooks=Hooks(engines=engines))
    assert_same(state_of(fake_settings(data), scene.vault), scene.expected)
    after = {text for batch in _batches(log)[len(before) :] for text in batch}
    again = after & {text for batch in before for text in batch}
    assert again <= set(before[-1] if before else ()), "more than the batch that was in the model was embedded again"
    shutil.rmtree(data)
    return killed


def _batches(log: Path) -> list[list[str]]:
    return [line.split() for line in log.read_text(encoding="ascii").splitlines()] if log.exists() else []
