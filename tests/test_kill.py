"""SIGKILL at any moment of a first index, an update and a rebuild: the next run makes what a clean run makes."""

from __future__ import annotations

from pathlib import Path

import pytest
from killing import Scene, kill_once

KILLS = 4  # of each kind; benchmarks/torture.py does hundreds


@pytest.mark.parametrize("work", ["first", "apart", "update", "rebuild"])
def test_a_killed_run_is_finished_by_the_next_one(work: str, tmp_path: Path) -> None:
    scene = Scene.prepare(tmp_path, work, notes=36, seed=1)
    for number in range(KILLS):
        moment = (number + 0.5) / KILLS
        while not kill_once(scene, tmp_path / f"data {number}", moment):
            moment /= 2  # the run was done before: this machine has become faster than when the scene was timed
