"""The Markdown of a result file: every ratio with its ±, and what each side had to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.report import markdown
from vaultvec.measure.rounds import ratio_of

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"


@pytest.fixture
def result() -> dict[str, Any]:
    """A result as a run left it."""
    found: dict[str, Any] = json.loads((RESULTS / "2a523ca.json").read_text(encoding="utf-8"))
    return found


def test_the_whole_index_says_how_many_chunks_each_embedded(result: dict[str, Any]) -> None:
    first = result["commands"]["first_index"]
    first["ours"]["reports"][-1]["chunks_embedded"], first["langchain"]["reports"][-1]["chunks"] = 400, 1000
    first["ours"]["seconds"], first["langchain"]["seconds"] = [10.0, 10.0, 10.0], [50.0, 50.0, 60.0]
    text = markdown(result)
    assert "Of the same notes ours embeds 400 chunks, LangChain 1,000." in text
    assert (
        "LangChain embeds 1,000 chunks of these notes, ours 400; a chunk takes LangChain 2.00x ± 0.40 as long" in text
    )
    first["langchain"]["reports"][-1]["chunks"] = 400
    assert "less work" not in markdown(result)


def test_every_ratio_of_rounds_has_its_spread(result: dict[str, Any]) -> None:
    rows = {row["key"]: row for row in result["embedding"]["rows"]}
    text = markdown(result)
    for row in rows.values():
        assert f"| {row['times_base']:.2f}x ± {row['times_base_spread']:.2f} |" in text
    ratio = ratio_of(rows["fastembed_32"]["seconds"], rows["ours"]["seconds"])
    assert f"| times fastembed | {ratio.median:,.5g} ± {ratio.spread:.2f} |" in text
    static = ratio_of(rows["ours"]["seconds"], rows["model2vec"]["seconds"])
    assert f"embeds {static.median:,.1f} ± {static.spread:,.1f} times as many texts" in text


def test_the_wide_window_has_a_row_where_it_was_measured(result: dict[str, Any]) -> None:
    assert "EMBEDDING_BATCH_SIZE = 2000 |" in markdown(result)
    result["embedding"]["rows"] = [row for row in result["embedding"]["rows"] if row["key"] != "ours_wide"]
    assert "EMBEDDING_BATCH_SIZE = 2000 |" not in markdown(result)
