"""The benchmark: real chunks, warmed up, all ways in turn, medians; what each bottleneck costs, and what to change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from vaultvec.config_keys import SERVERS
from vaultvec.cores import usable_cores
from vaultvec.datatypes import Vectors
from vaultvec.engines import create_engine
from vaultvec.engines.base import Engine
from vaultvec.engines.reference import load_reference
from vaultvec.errors import ModelError, VaultError
from vaultvec.measure import rounds
from vaultvec.measure.ceiling import Ceiling, measure_ceiling
from vaultvec.measure.decisions import NOT_SLOWER, Changes, confirm, decide
from vaultvec.measure.extras import Trying, attempt, ollama_answers, try_extras, try_ollama
from vaultvec.measure.pacing import LEAST_ROUNDS, PART_ROUNDS, Pace, Plan, Rates, even_order
from vaultvec.measure.prices import measure_prices, time_shares
from vaultvec.measure.reasons import explain
from vaultvec.measure.results import FIDELITY_GATE, Extra, Mix, ModelRow, Place, Price, Report, Row, Trial, machine_name
from vaultvec.measure.rounds import Ratio, Timing, Way, compare, cosines, time_in_turn, top_agreement
from vaultvec.measure.surroundings import Surroundings, measure_surroundings
from vaultvec.measure.tuning import WINDOW_KEY, Tuner
from vaultvec.measure.ways import (
    copies_for,
    encode,
    engine_way,
    fast,
    literal_note,
    reference_way,
    repeated,
    safe_count,
    slow_ways,
)
from vaultvec.models import ModelSpec
from vaultvec.monitor import gpu_probe
from vaultvec.settings import Settings

CURVE_SIZES = (8, 128, 512)  # beside 1, 32 and 2000: batch sizes of a thorough run's chart
AROUND_ROUNDS = 2  # of the pipeline without the model: a whole index of some notes each
TRIED_TEXTS = 4  # embedded first, to know how many texts the time allows

Progress = Callable[[str, float], None]
_Candidate = tuple[str, Changes, Engine, int | None]  # key, changes, engine, token budget


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured, and how it is told. `texts`: chunks of the vault in a seeded order, at least 2."""

    settings: Settings
    present: Mapping[str, Any]  # config.py's values
    model: ModelSpec
    texts: Sequence[str]
    vault: Path | None = None  # for what surrounds the model: reading, chunking, storing
    thorough: bool = False
    int8: bool = False
    seconds: float | None = None  # time limit; None: that of a short or a thorough run
    progress: Progress = lambda _label, _share: None
    notify: Callable[[str], None] = lambda _line: None
    place: Place | None = None  # where its proposal holds
    engines: Callable[..., Engine] = create_engine
    reference: Callable[[ModelSpec, str], Any] | None = load_reference

    def build(self, settings: Settings) -> Engine:
        """An engine for these settings."""
        return self.engines(settings, self.model, self.settings.models_dir, self.notify)


def run_benchmark(subject: Subject) -> Report:
    """Measure everything. Raises VaultError for fewer than two texts, ModelError, EngineError."""
    if len(subject.texts) < 2:
        raise VaultError(
            f"found {len(subject.texts)} chunks to measure, expected at least 2; choose a vault with notes"
        )
    with ExitStack() as stack:
        return _Run(subject, stack).report()


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What remains when everything was timed in turn: what may be written, and how much faster that is."""

    rows: tuple[Timing, ...]
    truth: Vectors  # fp32, one row for each text that was timed
    ratio: Ratio
    tuned: Changes  # of what the engine reads; exactly what the last row was timed with, or nothing
    engine: Engine
    best: Timing

    @property
    def gain(self) -> float:
        """Of the proposal over config.py as it is; 1 where nothing is proposed that the engine reads."""
        slower = self.ratio.worse or self.ratio.median < NOT_SLOWER
        return 1.0 if slower or not self.tuned else self.ratio.median


@dataclass(frozen=True, slots=True)
class _Found:
    """What was measured beside the ways."""

    around: Surroundings
    prices: Sequence[Price]
    trials: Sequence[Trial]
    budgets: dict[int, float]
    sizes: dict[int, float]
    ceiling: Ceiling | None
    extras: Sequence[Extra]
    models: Sequence[ModelRow]


class _Run:
    """One benchmark under way, phase by phase."""

    def __init__(self, subject: Subject, stack: ExitStack) -> None:
        self.subject, self.stack = subject, stack
        self.pace = Pace(subject.thorough, subject.seconds)
        self.part_rounds = LEAST_ROUNDS if subject.thorough else PART_ROUNDS
        self.gpu = gpu_probe()
        self.busy = psutil.cpu_percent(interval=0.3) / 100  # other programs' share, before ours begins
        self._tick("loading the model")
        self.engine = subject.build(subject.settings)
        stack.callback(self.engine.close)
        lengths = [len(item) for item in encode(self.engine, subject.texts)]
        order = even_order(lengths)
        self.texts, self.lengths = [subject.texts[i] for i in order], [lengths[i] for i in order]
        self.literal = safe_count(max(lengths), self.engine.device)
        self.batched = self._baseline()
        self.slow_ways = slow_ways(self.batched, self.literal)

    def report(self) -> Report:
        """Warm up, tune, price the bottlenecks, time all ways in turn, decide."""
        subject, engine = self.subject, self.engine
        rates = self._rates()
        around = measure_surroundings(
            subject.settings, engine.model, subject.vault, rounds=AROUND_ROUNDS, thorough=subject.thorough,
            tick=self._tick,
        )  # fmt: skip
        plan = self.pace.plan(rates, len(self.texts), copies_for(engine))
        truth = self._truth(plan.trials.texts)
        tuner, tuned, trials, budgets = self._tune(plan, truth)
        prices = self._prices(plan)
        outcome = self._outcome(plan, tuner, tuned)
        beside: Changes = around.helpful(outcome.best.texts_per_second)
        if around.workers and around.workers[1].better and around.matter_beside(rates.engine, subject.settings):
            beside["WORKERS"] = around.workers[0]
        self._tick("measuring this machine's ceiling")
        used = self.lengths[: plan.ways.texts]
        ceiling = measure_ceiling(outcome.engine, outcome.best.tokens_per_second, used)
        sizes = self._curve(used)
        found = _Found(around, prices, trials, budgets, sizes, ceiling, *self._extras(self.texts[: plan.ways.texts]))
        return self._written(outcome, beside, found, used)

    def _written(self, outcome: _Outcome, beside: Changes, found: _Found, used: Sequence[int]) -> Report:
        subject, engine, around = self.subject, self.engine, found.around
        rows = [Row.of(timing, outcome.truth) for timing in outcome.rows]
        one, small, large, present = rows[:4]
        written = outcome.tuned | beside
        last = outcome.engine if outcome.tuned else engine  # the one that runs with what is written
        notes = explain(subject.settings, engine, last, self.lengths, around, written)
        best = outcome.rows[-1].vectors[: len(used)]
        over_one = compare(outcome.rows[0], outcome.rows[-1 if written else -2])  # of what will run
        return Report(
            made=datetime.now().isoformat(timespec="seconds"), machine=machine_name(), cores=usable_cores(),
            model=engine.model.name, engine=engine.name, precision=engine.precision, device=engine.device,
            thorough=subject.thorough, seconds=self.pace.elapsed, present=dict(subject.present),
            sampled=Mix.of(self.lengths), used=Mix.of(used), rows=tuple(rows), prices=tuple(found.prices),
            trials=tuple(found.trials), gain=outcome.gain, gain_spread=outcome.ratio.margin,
            decisions=tuple(decide(subject.present, written, found.trials, notes)),
            ceiling=found.ceiling,
            time_shares=time_shares(engine, present.texts_per_second, self.texts[: len(used)], used, around),
            budgets=found.budgets,
            batch_sizes=dict(sorted({
                1: one.texts_per_second, min(32, len(used)): small.texts_per_second,
                min(self.literal, len(used)): large.texts_per_second, **found.sizes,
            }.items())),
            extras=tuple(found.extras), models=tuple(found.models), busy=self.busy,
            agreement=top_agreement(outcome.truth, best) if outcome.engine.precision == "int8" else None,
            place=subject.place, times_one=over_one.median, times_one_spread=over_one.spread,
        )  # fmt: skip

    def _tick(self, label: str) -> None:
        self.subject.progress(label, min(0.99, self.pace.elapsed / self.pace.limit))

    def _baseline(self) -> Callable[[int], Way]:
        """The slow tool in batches of any size: sentence-transformers where it runs the model, else the same engine."""
        subject, engine = self.subject, self.engine
        if subject.reference is not None and engine.model.kind == "transformer" and engine.name not in SERVERS:
            self._tick("loading sentence-transformers")
            try:
                device = engine.device if engine.device in ("cuda", "mps") else "cpu"
                reference = subject.reference(engine.model, device)
                return partial(reference_way, reference, engine.model.document_prefix)
            except ModelError as error:
                subject.notify(f"without sentence-transformers: {error}")
        return partial(engine_way, engine)

    def _rates(self) -> Rates:
        """Warm every way up, then time each once on a few texts."""
        tried = self.texts[:TRIED_TEXTS]
        ways = [fast(self.engine, "engine", "warming up"), *self.slow_ways[:2]]
        for way in ways:
            way.run(tried)
            self._tick("warming up")
        rates = []
        for way in ways:
            began = rounds.clock()
            way.run(tried)
            rates.append(len(tried) / max(rounds.clock() - began, 1e-6))
        return Rates(*rates)

    def _truth(self, count: int) -> Vectors:
        """fp32 vectors of the first texts, to judge candidates by."""
        self._tick("vectors to compare with")
        engine, texts = self.engine, self.texts[:count]
        if engine.precision == "fp32" or engine.name in SERVERS:
            return engine.embed_documents(texts)
        full = self.subject.build(replace(self.subject.settings, precision="fp32"))
        try:
            return full.embed_documents(texts)
        finally:
            full.close()

    def _tune(self, plan: Plan, truth: Vectors) -> tuple[Tuner, Changes, list[Trial], dict[int, float]]:
        subject, count, times = self.subject, plan.trials.texts, plan.times
        tuner = Tuner(
            subject.settings, subject.build, self.engine, self.texts[:count] * times, self.lengths[:count] * times,
            self.lengths, np.tile(truth[:count], (times, 1)), self.part_rounds, self._tick, self.gpu, subject.thorough,
            subject.int8,
        )  # fmt: skip
        tuned, trials, budgets = tuner.search()
        if tuner.engine is not self.engine:
            self.stack.callback(tuner.engine.close)
        return tuner, tuned, trials, budgets

    def _prices(self, plan: Plan) -> list[Price]:
        count, times = plan.prices.texts, plan.times
        # On one stream nothing idles beside a batch, so that a few dozen texts tell what thousands would.
        alone = self.subject.build(replace(self.subject.settings, streams=1)) if copies_for(self.engine) > 1 else None
        try:
            return measure_prices(
                alone or self.engine, self.texts[:count] * times, self.lengths[:count] * times, self.literal,
                rounds=self.part_rounds, tick=self._tick, gpu=self.gpu,
            )  # fmt: skip
        finally:
            if alone:
                alone.close()

    def _outcome(self, plan: Plan, tuner: Tuner, tuned: Changes) -> _Outcome:
        """All ways in turn, and what may be written after it: the best found, else its window alone, if it helps."""
        count, window = plan.ways.texts, {key: value for key, value in tuned.items() if key == WINDOW_KEY}
        candidates = [("best", tuned, tuner.engine, tuner.budget)]
        if window and tuned != window:
            candidates.append(("window", window, self.engine, None))
        timings = self._timings(plan, candidates)
        present = timings["present"]
        exact = "sentence-transformers" in self.slow_ways[0].note or self.engine.precision == "fp32"
        truth = timings["batch32"].vectors if exact else self._truth(count)
        for key, changes, engine, _ in candidates:
            tuned, best, int8 = changes, timings[key], engine.precision == "int8"
            ratio, low = compare(present, best), cosines(truth, best.vectors[:count])[0]
            if ratio.better and (int8 or low >= FIDELITY_GATE):
                break
        written = confirm(ratio, low, tuned, int8=int8)
        rows = (*(timings[name] for name in ("one", "batch32", "batch2000")), present, best)
        return _Outcome(rows, truth, ratio, written, engine, max(present, best, key=lambda t: t.texts_per_second))

    def _timings(self, plan: Plan, candidates: Sequence[_Candidate]) -> dict[str, Timing]:
        """The slow tool's ways, config.py as it is and the candidates as they would be written, in turn."""
        count, copies = plan.ways.texts, copies_for(self.engine, *(engine for _, _, engine, _ in candidates))
        one, small, large = self.slow_ways
        ways = [fast(self.engine, "present", "fast path, config.py as it is", copies=copies)]
        for key, changes, engine, budget in candidates:
            window = changes.get(WINDOW_KEY)
            label = "fast path, best settings found"
            ways.append(fast(engine, key, label, window=window, budget=budget, copies=copies))
        large = replace(large, note=f"{large.note}, {literal_note(self.literal, count)}")
        few, run_one = plan.one_by_one, one.run
        one = replace(one, run=lambda texts: run_one(texts[:few]))
        ways = [one, small, large, *(repeated(way, plan.times) for way in ways)]
        for way in ways[2:]:
            way.run(self.texts[:TRIED_TEXTS])
        found = time_in_turn(
            ways, self.texts[:count], sum(self.lengths[:count]), LEAST_ROUNDS, self._tick, self.gpu, plan.ways.seconds
        )
        return found | {"one": replace(found["one"], texts=few, tokens=sum(self.lengths[:few]))}

    def _curve(self, used: Sequence[int]) -> dict[int, float]:
        """Texts/s of further batch sizes, in a thorough run."""
        sizes = [size for size in CURVE_SIZES if self.subject.thorough and size <= min(self.literal, len(used))]
        ways = [self.batched(size) for size in sizes]
        found = time_in_turn(ways, self.texts[: len(used)], sum(used), LEAST_ROUNDS, self._tick, self.gpu)
        return {int(key): timing.texts_per_second for key, timing in found.items()}

    def _extras(self, texts: Sequence[str]) -> tuple[list[Extra], list[ModelRow]]:
        subject = self.subject
        trying = Trying(subject.settings, self.engine, texts, subject.engines, subject.notify, self._tick)
        answers = ollama_answers(subject.settings.ollama_url)
        rows = [attempt("Ollama", try_ollama, trying)] if answers else []
        if not subject.thorough:
            return rows, []
        found, models = try_extras(trying)
        return found + rows, models
