"""The search for the best settings, on an engine whose best settings are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from timed_engine import Clock, TimedEngine, factory, vector_of, words

from vaultvec.config_file import read_values
from vaultvec.config_keys import KEYS
from vaultvec.errors import SettingsError
from vaultvec.measure import rounds
from vaultvec.measure.decisions import apply_changes, decide
from vaultvec.measure.results import Trial
from vaultvec.measure.rounds import time_in_turn
from vaultvec.measure.tuning import Tuner
from vaultvec.measure.ways import copies_for, fast, padded_tokens
from vaultvec.settings import Settings

TEXTS = words(60)
TRUTH = np.stack([vector_of(text) for text in TEXTS])


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(rounds, "clock", made)
    return made


def tuner(clock: Clock, settings: Settings, traits: Any, **options: Any) -> tuple[Tuner, list[TimedEngine]]:
    made: list[TimedEngine] = []
    build = factory(clock, made, traits)
    engine = build(settings, None, Path(), None)

    def build_one(wanted: Settings) -> Any:
        return build(wanted, None, Path(), None)

    lengths = [len(row) for row in engine.tokenizer.encode(TEXTS)]
    tick = lambda _: None  # noqa: E731
    return Tuner(settings, build_one, engine, TEXTS, lengths, lengths, TRUTH, 2, tick, **options), made


def test_the_fastest_settings_are_found(clock: Clock) -> None:
    found, engines = tuner(clock, Settings(), lambda s: {"token_s": 0.0003 if s.streams == 2 else 0.001, "call_s": 0.2})
    changes, trials, curve = found.search()
    assert changes == {"STREAMS": 2, "MAX_TOKENS_PER_BATCH": 2048}
    assert found.budget == 2048
    assert sorted(curve) == [512, 1024, 2048]
    assert curve[2048] > curve[512]
    assert [trial.kept for trial in trials].count(True) == 2
    assert [trial.label for trial in trials if not trial.changes] == ["as it is", "512 tokens a batch"]
    assert [engine.closed for engine in engines] == [False, False]  # the caller's, and the best


def test_nothing_better_changes_nothing_and_closes_what_was_built(clock: Clock) -> None:
    found, engines = tuner(clock, Settings(max_tokens_per_batch=512), lambda _: {"call_s": 0.0})
    assert found.search()[0] == {}
    assert [engine.closed for engine in engines] == [False, True]
    assert found.engine is engines[0]


def test_a_bad_value_of_the_user_is_undone(clock: Clock) -> None:
    settings = Settings(streams=16, threads=1, max_tokens_per_batch=4096)
    slow = lambda s: {"token_s": 0.01 if s.streams == 16 else 0.001}  # noqa: E731
    changes = tuner(clock, settings, slow)[0].search()[0]
    assert changes["STREAMS"] in ("auto", 1, 2)


def test_vectors_below_the_gate_are_not_kept_however_fast(clock: Clock) -> None:
    blurred = lambda s: {"token_s": 0.0001, "blur": 3.0} if s.streams == 2 else {}  # noqa: E731
    found, _ = tuner(clock, Settings(), blurred)
    changes, trials, _ = found.search()
    assert "STREAMS" not in changes
    base = trials[0]  # what the candidates are held against has a row of its own
    assert (base.label, base.changes, base.ratio, base.kept) == ("as it is", {}, 1.0, False)
    assert base.texts_per_second > 0
    assert "not fp32's" in trials[1].reason


@pytest.mark.parametrize("asked", [True, False])
def test_int8_only_when_it_is_asked_for(clock: Clock, asked: bool) -> None:
    traits = lambda s: (  # noqa: E731
        {"token_s": 0.0001, "blur": 0.3, "precision": "int8"} if s.precision == "int8" else {"call_s": 0.0}
    )
    changes, trials, _ = tuner(clock, Settings(max_tokens_per_batch=512), traits, int8=asked)[0].search()
    assert (changes.get("PRECISION") == "int8") is asked
    assert any("PRECISION" in trial.changes for trial in trials) is asked


def test_what_cannot_be_built_is_told_and_passed_over(clock: Clock) -> None:
    def traits(settings: Settings) -> dict[str, Any]:
        if settings.streams == 2:
            raise SettingsError("no second stream")
        return {"call_s": 0.0}

    changes, trials, _ = tuner(clock, Settings(max_tokens_per_batch=512), traits)[0].search()
    assert changes == {}
    assert "no second stream" in trials[0].reason


def test_the_window_is_tried_where_the_timed_texts_fill_more_than_one(clock: Clock) -> None:
    """A model of 4,096 tokens sorts 32 texts at a time, one of 64 tokens 512: of 60 texts only the first has a choice."""
    for max_tokens, tried in ((4096, True), (64, False)):
        traits = {"call_s": 0.0, "max_tokens": max_tokens}
        changes, trials, _ = tuner(clock, Settings(max_tokens_per_batch=512), lambda _, traits=traits: traits)[
            0
        ].search()
        assert (changes.get("EMBEDDING_BATCH_SIZE") == 2000) is tried
        assert any("EMBEDDING_BATCH_SIZE" in trial.changes for trial in trials) is tried


def test_every_key_gets_a_row_and_a_reason() -> None:
    present = read_values("")
    trial = Trial("STREAMS 2", {"STREAMS": 2}, 1.4, 0.1, 1.0, 1.0, True, "")
    rows = {row.key: row for row in decide(present, {"FAST_MODE": True, "STREAMS": 2}, [trial], {})}
    assert list(rows) == list(KEYS)
    assert all(row.reason for row in rows.values())
    assert (rows["STREAMS"].proposed, rows["STREAMS"].reason) == (2, "the fastest")
    assert rows["STREAMS"].gain.startswith("1.40x")
    assert (rows["FAST_MODE"].proposed, rows["FAST_MODE"].guide) == (True, True)
    dropped = {row.key: row for row in decide(present, {}, [trial], {})}
    assert dropped["STREAMS"].proposed == "auto"
    assert "not when all was timed together" in dropped["STREAMS"].reason


def test_changes_become_settings() -> None:
    changed = apply_changes(Settings(threads=3), {"STREAMS": 2, "THREADS": "auto", "MEMORY_CHECK_INTERVAL": 30})
    assert (changed.streams, changed.threads, changed.memory_check_interval) == (2, None, 30.0)


def test_a_small_budget_is_not_praised_for_the_padding_of_a_few_texts(clock: Clock) -> None:
    """Time is padded tokens alone: what counts is how many all chunks need, not how many the few that were timed."""
    few = words(16, seed=3)
    made = factory(clock, [], lambda _: {"call_s": 0.0})
    engine = made(Settings(max_tokens_per_batch=512), None, Path(), None)
    lengths = [len(row) for row in engine.tokenizer.encode(few)]
    truth = np.stack([vector_of(text) for text in few])
    tick = lambda _: None  # noqa: E731

    def build(settings: Settings) -> Any:
        return made(settings, None, Path(), None)

    found = Tuner(Settings(), build, engine, few, lengths, lengths * 200, truth, 2, tick)
    budgets = [trial for trial in found.search()[1] if "MAX_TOKENS_PER_BATCH" in trial.changes]
    ratios = {trial.changes["MAX_TOKENS_PER_BATCH"]: trial.ratio for trial in budgets}
    work = {budget: padded_tokens(lengths * 200, budget, 2000) for budget in (512, *ratios)}
    assert ratios == pytest.approx({budget: work[512] / work[budget] for budget in ratios})


def test_every_stream_has_work_while_candidates_are_timed(clock: Clock) -> None:
    engine = TimedEngine(clock, budget=10_000)
    engine.streams = 3
    way = fast(engine, "", "", copies=copies_for(engine))
    np.testing.assert_allclose(way.run(TEXTS[:30]), TRUTH[:30], atol=1e-6)
    assert engine.batches == 3
    timing = time_in_turn([way], TEXTS[:30], 100, 1, lambda _: None)[""]
    assert (timing.texts, timing.tokens) == (90, 300)
