"""Timing ways of embedding the same texts: in turn, so that a busy moment strikes all of them, and by medians."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean, median

import numpy as np

from vaultvec.datatypes import Vectors
from vaultvec.monitor import GpuReading, ResourceMonitor, Usage

SAMPLE_SECONDS = 0.05  # between two looks at memory while a way runs: its high-water mark, without slowing it
MOST_ROUNDS = 9
NOISE_FLOOR = 0.02  # two rounds that agree to the digit are luck: no difference below 2 % is believed

clock = time.perf_counter  # tests put their own here
Tick = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Way:
    """One way of embedding texts. `run` takes texts and gives their vectors in order.

    copies: how often it embeds each text. A sample of a few batches would leave some of an engine's streams idle, which
    thousands of chunks never do; so each batch is run once for every stream.
    """

    key: str
    label: str
    run: Callable[[Sequence[str]], Vectors]
    note: str = ""
    copies: int = 1


@dataclass(frozen=True, slots=True)
class Timing:
    """What one way took, round by round."""

    way: Way
    texts: int
    tokens: int
    seconds: tuple[float, ...]
    usages: tuple[Usage, ...]
    vectors: Vectors

    @property
    def median_s(self) -> float:
        """Median seconds of a round."""
        return median(self.seconds)

    @property
    def spread(self) -> float:
        """The round farthest from the median, as a share of it."""
        return max(abs(seconds - self.median_s) for seconds in self.seconds) / self.median_s

    @property
    def texts_per_second(self) -> float:
        """Texts a second in the median round."""
        return self.texts / self.median_s

    @property
    def tokens_per_second(self) -> float:
        """Real tokens a second, padding not counted."""
        return self.tokens / self.median_s

    @property
    def growth_mb(self) -> float:
        """Largest high-water mark of a round above its start."""
        return max(usage.growth_mb for usage in self.usages)

    @property
    def peak_mb(self) -> float:
        """Largest memory of the whole process in any round."""
        return max(usage.peak_rss_mb for usage in self.usages)

    @property
    def cpu_share(self) -> float:
        """Mean share of the usable cores, 0 to 1."""
        return mean(usage.cpu_share for usage in self.usages)

    @property
    def gpu_share(self) -> float | None:
        """Mean share of the GPU, None where none was read."""
        shares = [usage.gpu_share for usage in self.usages if usage.gpu_share is not None]
        return mean(shares) if shares else None


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times faster one way is than another: the median of the rounds' own ratios, ± `spread`."""

    median: float
    spread: float

    @property
    def margin(self) -> float:
        """The difference that noise alone can make."""
        return max(self.spread, NOISE_FLOOR)

    @property
    def better(self) -> bool:
        """Faster by more than the noise."""
        return self.median - self.margin > 1

    @property
    def worse(self) -> bool:
        """Slower by more than the noise."""
        return self.median + self.margin < 1

    def __str__(self) -> str:
        return f"{self.median:.2f}x ± {self.spread:.2f}"


def compare(base: Timing, other: Timing) -> Ratio:
    """How many times faster `other` is than `base`, round against round."""
    return ratio_of([s / base.texts for s in base.seconds], [s / other.texts for s in other.seconds])


def ratio_of(base: Sequence[float], other: Sequence[float]) -> Ratio:
    """The same from seconds of rounds that were taken in turn; as many of each."""
    ratios = [a / b for a, b in zip(base, other, strict=True)]
    middle = median(ratios)
    return Ratio(middle, max(abs(ratio - middle) for ratio in ratios))


def time_in_turn(
    ways: Sequence[Way],
    texts: Sequence[str],
    tokens: int,
    rounds: int,
    tick: Tick,
    gpu: Callable[[], GpuReading] | None = None,
    seconds: float = 0.0,
) -> dict[str, Timing]:
    """Time every way over the same texts, each round in another order. Keys are the ways' keys.

    `rounds` at least; further ones, up to MOST_ROUNDS, as long as they fit into `seconds`.
    """
    taken: dict[str, list[float]] = {way.key: [] for way in ways}
    usages: dict[str, list[Usage]] = {way.key: [] for way in ways}
    vectors: dict[str, Vectors] = {}
    start = clock()
    number = 0
    while number < rounds or (number < MOST_ROUNDS and (clock() - start) * (number + 1) / number <= seconds):
        order = ways if number % 2 == 0 else ways[::-1]
        for way in order:
            with ResourceMonitor(SAMPLE_SECONDS, gpu, children=False) as monitor:
                began = clock()
                vectors[way.key] = way.run(texts)
                taken[way.key].append(clock() - began)
            usages[way.key].append(monitor.usage)
            tick(way.label)
        number += 1
    return {
        way.key: Timing(
            way,
            len(texts) * way.copies,
            tokens * way.copies,
            tuple(taken[way.key]),
            tuple(usages[way.key]),
            vectors[way.key],
        )
        for way in ways
    }


def cosines(truth: Vectors, vectors: Vectors) -> tuple[float, float]:
    """Lowest and mean cosine of rows that mean the same text. Both (n, dim), unit rows."""
    rows = np.einsum("ij,ij->i", truth, vectors, dtype=np.float64)
    return float(rows.min()), float(rows.mean())


def top_agreement(truth: Vectors, vectors: Vectors, k: int = 10) -> float:
    """Mean share of each text's `k` nearest other texts that both sets of vectors name. The dims may differ."""
    count = len(truth)
    k = min(k, count - 1)
    if k < 1:
        return 1.0
    shares = [len(a & b) / k for a, b in zip(_nearest(truth, k), _nearest(vectors, k), strict=True)]
    return sum(shares) / count


def _nearest(vectors: Vectors, k: int) -> list[set[int]]:
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    return [set(row.tolist()) for row in np.argpartition(-scores, k - 1, axis=1)[:, :k]]
