"""The long robustness run (benchmarks/torture.py) at its shortest. Its kills are those of test_kill.py."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.torture import Tally, torture_edits, torture_faults, torture_inputs

SECONDS = 0.1  # a part goes on until its time is over: once at least


@pytest.mark.parametrize("part", [torture_edits, torture_faults, torture_inputs], ids=lambda part: part.__name__)
def test_every_part_does_something_and_loses_nothing(part: Callable[..., None], tmp_path: Path) -> None:
    tally = Tally()
    part(tally, tmp_path, random.Random(1), SECONDS)
    assert tally.lost == []
    assert sum(count for name, count in tally.done.items() if name != "slowest note, ms") > 0
