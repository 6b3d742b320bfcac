"""Random edits between runs: the index always equals a fresh one, and exactly the new texts are embedded."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from editing import check_rounds
from edits import EDITS, Edit
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

numbers = st.integers(0, 999)
edits = st.tuples(st.sampled_from(EDITS), numbers, numbers)


@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.lists(edits, min_size=1, max_size=8), min_size=1, max_size=3))
def test_any_edits_end_in_the_index_that_a_fresh_run_makes(rounds: list[list[Edit]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check_rounds(Path(folder), rounds)


def test_every_kind_of_edit_on_its_own(tmp_path: Path) -> None:
    named = [(name, 2, 4) for name in EDITS]
    check_rounds(tmp_path, [named[i::4] for i in range(4)], notes=9)


@pytest.mark.parametrize("name", ["exchange", "backdate", "recase"])
def test_the_edits_that_a_look_at_size_and_mtime_misses(name: str, tmp_path: Path) -> None:
    check_rounds(tmp_path, [[(name, 1, 3)], [(name, 1, 3)]], notes=4)
