"""The benchmark: real chunks, warmed up, all ways in turn, medians; what each bottleneck costs, and what to change."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from vaultvec.datatypes import Vectors
from vaultvec.engines import SERVERS, create_engine
from vaultvec.engines.base import Engine
from vaultvec.engines.reference import load_reference
from vaultvec.errors import ModelError, VaultError
from vaultvec.measure.ceiling import measure_ceiling
from vaultvec.measure.extras import Trying, attempt, ollama_answers, try_extras, try_ollama
from vaultvec.measure.prices import measure_prices, time_shares
from vaultvec.measure.reasons import explain
from vaultvec.measure.results import FIDELITY_GATE, Extra, Mix, ModelRow, Report, Row, Trial, machine_name
from vaultvec.measure.rounds import Ratio, Timing, Way, compare, cosines, time_in_turn, top_agreement
from vaultvec.measure.surroundings import measure_surroundings
from vaultvec.measure.tuning import Changes, Tuner, confirm, decide, guide_changes
from vaultvec.measure.ways import (
    copies_for,
    encode,
    engine_baseline_ways,
    fast,
    literal_note,
    reference_ways,
    safe_count,
)
from vaultvec.models import ModelSpec
from vaultvec.monitor import gpu_probe, usable_cpus
from vaultvec.settings import Settings

SHORT_SECONDS = 54.0  # of a short run; what is left of the minute is the report
THOROUGH_SECONDS = 480.0
LEAST_TEXTS = 24
WIDE_TEXTS = 48  # at least, for the guide's batch of 2000: with fewer it would be no larger than 32
PART = 0.4  # of the texts go into trials and prices
LEAST_PART = 12
TRIED_TEXTS = 6  # embedded first, to know how many texts the time allows
PASS_SECONDS = 0.5  # a pass of the fast path should take about as long, to be timed well
MOST_TIMES = 50
PART_PASSES = 12  # over a part in every round: trials and prices
FINAL_TIMES = 2.5  # as many texts for present against best as for the slow ways: windows of 32 need many to show
MOST_FINAL_TEXTS = 2000

Progress = Callable[[str, float], None]


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
    seconds: float | None = None  # time limit; None: SHORT_SECONDS or THOROUGH_SECONDS
    progress: Progress = lambda _label, _share: None
    notify: Callable[[str], None] = lambda _line: None
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
class _Rates:
    """Texts a second, roughly, to plan with."""

    engine: float
    one: float
    batch: float


class _Run:
    """One benchmark under way, phase by phase."""

    def __init__(self, subject: Subject, stack: ExitStack) -> None:
        self.subject = subject
        self.began = time.perf_counter()
        self.limit = subject.seconds or (THOROUGH_SECONDS if subject.thorough else SHORT_SECONDS)
        self.rounds = 4 if subject.thorough else 2
        self.gpu = gpu_probe()
        self.busy = psutil.cpu_percent(interval=0.3) / 100  # other programs' share, before ours begins
        self._tick("loading the model")
        self.engine = subject.build(subject.settings)
        stack.callback(self.engine.close)
        self.stack = stack
        self.lengths = [len(item) for item in encode(self.engine, subject.texts)]
        self.literal = safe_count(max(self.lengths), self.engine.device)
        self.slow_ways = self._baseline()

    def report(self) -> Report:
        """Plan, time the slow ways, tune, time present and best, price the bottlenecks, decide."""
        subject, engine = self.subject, self.engine
        rates = self._rates()
        around = measure_surroundings(
            subject.settings, engine.model, subject.vault, rounds=self.rounds, thorough=subject.thorough,
            tick=self._tick,
        )  # fmt: skip
        count = self._affordable(rates)
        part = min(count, max(LEAST_PART, int(PART * count)))
        texts, used = subject.texts[:count], self.lengths[:count]
        slow = self._time([*self.slow_ways[:2], fast(engine, "now", "fast path")], texts, used)
        truth = self._truth(slow, texts)
        wide = max(count, min(WIDE_TEXTS, len(subject.texts)))
        large = self._time([self._noted(wide)], subject.texts[:wide], self.lengths[:wide])["batch2000"]
        # A GPU is through with these in a blink: then the fast path takes them several times over.
        now = slow["now"].texts_per_second
        times = max(1, min(MOST_TIMES, int(PASS_SECONDS * now / count)))
        some, some_used = list(texts[:part]) * times, used[:part] * times
        tuner, tuned, trials, budgets = self._tune(some, some_used, np.tile(truth[:part], (times, 1)))
        guide = {k: v for k, v in guide_changes(subject.present, trials).items() if k not in around.hurts}
        if around.workers and around.workers[1].better and around.matter_beside(now, subject.settings):
            tuned["WORKERS"] = around.workers[0]
        prices = measure_prices(
            engine, some, some_used, self.literal, rounds=self.rounds, tick=self._tick, gpu=self.gpu
        )
        many = max(count, self._rest(now) // times)
        chosen, budget = tuner.engine, tuner.budget
        final = self._final(chosen, budget, guide | tuned, many, times)
        ratio, low = self._verdict(final, truth)
        if tuned.keys() - {"WORKERS"} and (ratio.worse or not ratio.better or low < FIDELITY_GATE):
            # What won its trial does not win here: is the guide's part of it worth writing alone?
            kept = confirm(ratio, low, tuned, guide, int8=chosen.precision == "int8")[0]
            if kept.keys() != tuned.keys():
                tuned, chosen = kept, engine
                final = self._final(engine, None, guide, many, times)
                ratio, low = self._verdict(final, truth)
        tuned, guide = confirm(ratio, low, tuned, guide, int8=chosen.precision == "int8")
        best = max((final["present"], final["best"]), key=lambda timing: timing.texts_per_second)
        self._tick("measuring this machine's ceiling")
        ceiling = measure_ceiling(chosen, best.tokens_per_second, sum(used) / count)
        extras, models = self._extras(texts)
        rows = [Row.of(timing, truth) for timing in (slow["one"], slow["batch32"], large, *final.values())]
        notes = explain(subject.settings, engine, self.lengths, around, ratio, guide | tuned)
        int8 = chosen.precision == "int8"
        return Report(
            made=datetime.now().isoformat(timespec="seconds"), machine=machine_name(), cores=usable_cpus(),
            model=engine.model.name, engine=engine.name, precision=engine.precision, device=engine.device,
            thorough=subject.thorough, seconds=time.perf_counter() - self.began, present=dict(subject.present),
            sampled=Mix.of(self.lengths), used=Mix.of(used), rows=tuple(rows), prices=tuple(prices),
            trials=tuple(trials), gain=1.0 if ratio.worse or not (tuned or guide) else ratio.median,
            gain_spread=ratio.margin,
            decisions=tuple(decide(subject.present, guide, tuned, trials, notes)), ceiling=ceiling,
            time_shares=time_shares(engine, now, texts, used, around), budgets=budgets,
            batch_sizes={1: rows[0].texts_per_second, min(32, count): rows[1].texts_per_second}
            | {min(self.literal, wide): rows[2].texts_per_second},
            extras=tuple(extras), models=tuple(models), busy=self.busy,
            agreement=top_agreement(truth, final["best"].vectors[:count]) if int8 else None,
        )  # fmt: skip

    def _tick(self, label: str) -> None:
        self.subject.progress(label, min(0.99, (time.perf_counter() - self.began) / self.limit))

    def _time(self, ways: Sequence[Way], texts: Sequence[str], used: Sequence[int]) -> dict[str, Timing]:
        return time_in_turn(ways, texts, sum(used), self.rounds, self._tick, self.gpu)

    def _baseline(self) -> list[Way]:
        """The slow tool's ways: sentence-transformers where it runs the model, else the same engine used like it."""
        subject, engine = self.subject, self.engine
        if subject.reference is not None and engine.model.kind == "transformer" and engine.name not in SERVERS:
            self._tick("loading sentence-transformers")
            try:
                device = engine.device if engine.device in ("cuda", "mps") else "cpu"
                reference = subject.reference(engine.model, device)
                return reference_ways(reference, engine.model.document_prefix, self.literal)
            except ModelError as error:
                subject.notify(f"without sentence-transformers: {error}")
        return engine_baseline_ways(engine, self.literal)

    def _noted(self, count: int) -> Way:
        """The guide's batch of 2000, with its true size told."""
        way = self.slow_ways[2]
        return replace(way, note=f"{way.note}, {literal_note(self.literal, count)}")

    def _rates(self) -> _Rates:
        """Warm every way up, then time each once on a few texts."""
        tried = self.subject.texts[:TRIED_TEXTS]
        ways = [fast(self.engine, "engine", "warming up"), *self.slow_ways[:2]]
        for way in ways:
            way.run(tried)
            self._tick("warming up")
        rates = []
        for way in ways:
            began = time.perf_counter()
            way.run(tried)
            rates.append(len(tried) / max(time.perf_counter() - began, 1e-6))
        return _Rates(*rates)

    def _affordable(self, rates: _Rates) -> int:
        """How many texts the rest of the time allows, all ways and rounds counted."""
        rest = self.limit - (time.perf_counter() - self.began)
        engine_passes = 1 + 2 * FINAL_TIMES + PART * PART_PASSES
        each = self.rounds * (1 / rates.one + 1 / rates.batch + engine_passes / rates.engine)
        wide = self.rounds / rates.batch  # seconds a text of the batch of 2000
        count = (rest - wide * WIDE_TEXTS) / each
        if count > WIDE_TEXTS:
            count = rest / (each + wide)
        return min(len(self.subject.texts), max(LEAST_TEXTS, int(count)))

    def _truth(self, slow: Mapping[str, Timing], texts: Sequence[str]) -> Vectors:
        """fp32 vectors: sentence-transformers' own, else those of the same engine in fp32."""
        engine = self.engine
        if "sentence-transformers" in self.slow_ways[0].note or engine.precision == "fp32" or engine.name in SERVERS:
            return slow["batch32"].vectors
        full = self.subject.build(replace(self.subject.settings, precision="fp32"))
        try:
            return full.embed_documents(texts)
        finally:
            full.close()

    def _tune(
        self, texts: Sequence[str], used: Sequence[int], truth: Vectors
    ) -> tuple[Tuner, Changes, list[Trial], dict[int, float]]:
        subject = self.subject
        tuner = Tuner(
            subject.settings, subject.build, self.engine, texts, used, self.lengths, truth, self.rounds, self._tick,
            self.gpu, subject.thorough, subject.int8,
        )  # fmt: skip
        tuned, trials, budgets = tuner.search()
        if tuner.engine is not self.engine:
            self.stack.callback(tuner.engine.close)
        return tuner, tuned, trials, budgets

    def _rest(self, texts_per_second: float) -> int:
        """Texts that present and best may have in a round: what time allows, as windows of texts need many."""
        rest = self.limit - (time.perf_counter() - self.began)
        share = 0.5 if self.subject.thorough else 1.0  # the further options come after it
        passes = 2 * self.rounds * copies_for(self.engine)
        return min(MOST_FINAL_TEXTS, int(share * rest * texts_per_second / passes))

    def _verdict(self, final: Mapping[str, Timing], truth: Vectors) -> tuple[Ratio, float]:
        """How much faster the best is than config.py as it is, and its lowest cosine to fp32."""
        low = cosines(truth, final["best"].vectors[: len(truth)])[0]
        return compare(final["present"], final["best"]), low

    def _final(self, engine: Engine, budget: int | None, changes: Changes, count: int, times: int) -> dict[str, Timing]:
        """config.py as it is against the best found, on `count` texts taken `times` over."""
        texts, used = list(self.subject.texts[:count]) * times, self.lengths[:count] * times
        window = changes.get("EMBEDDING_BATCH_SIZE")
        copies = copies_for(self.engine, engine)
        present = fast(self.engine, "present", "fast path, config.py as it is", copies=copies)
        best = fast(engine, "best", "fast path, best settings found", window=window, budget=budget, copies=copies)
        best.run(texts[:TRIED_TEXTS])
        return self._time([present, best], texts, used)

    def _extras(self, texts: Sequence[str]) -> tuple[list[Extra], list[ModelRow]]:
        subject = self.subject
        trying = Trying(subject.settings, self.engine, texts, subject.engines, subject.notify, self._tick)
        answers = ollama_answers(subject.settings.ollama_url)
        rows = [attempt("Ollama", try_ollama, trying)] if answers else []
        if not subject.thorough:
            return rows, []
        found, models = try_extras(trying)
        return found + rows, models
