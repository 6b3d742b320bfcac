"""How a benchmark spends its time: which texts come first, how many each part embeds, and when a part is over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vaultvec.measure import rounds

SHORT_SECONDS = 46.0  # of a short run; what is left of the minute goes into the imports and the report
THOROUGH_SECONDS = 480.0
LEAST_ROUNDS = 3  # of all ways in turn, on which the verdict rests
PART_ROUNDS = 2  # of candidates and prices
# Of the time that is left when the model is loaded: candidates, prices, all ways in turn; the rest is for extras.
SHORT_SHARES = (0.12, 0.30, 0.56)
THOROUGH_SHARES = (0.18, 0.12, 0.24)
# What a part takes in one round, in passes of the fast path: two stages of candidates; five prices, some of them padded.
TRIAL_PASSES = 5
MORE_TRIAL_PASSES = 14
PRICE_PASSES = 12
LEAST_TEXTS = 12
FULL_BATCH = 32  # least texts of all ways in turn: with fewer there would be no batch of 32
ONE_SHARE = 0.4  # of these texts go one by one
PASS_SECONDS = 0.5  # a pass of the fast path should take about as long, to be timed well
MOST_TIMES = 50


@dataclass(frozen=True, slots=True)
class Rates:
    """Texts a second, roughly, to plan with: the fast path, one call a text, batches."""

    engine: float
    one: float
    batch: float


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a benchmark: how many texts, and how many seconds it may take."""

    texts: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Plan:
    """The three parts that the model runs in; `times`: how often the fast path takes the texts of a pass."""

    trials: Part
    prices: Part
    ways: Part
    times: int

    @property
    def one_by_one(self) -> int:
        """How many of the texts of all ways are embedded one by one."""
        return max(2, int(ONE_SHARE * self.ways.texts))


class Pace:
    """The clock of one benchmark."""

    def __init__(self, thorough: bool, seconds: float | None = None) -> None:
        """`seconds`: time limit; None: SHORT_SECONDS or THOROUGH_SECONDS."""
        self.thorough = thorough
        self.began = rounds.clock()
        self.limit = seconds or (THOROUGH_SECONDS if thorough else SHORT_SECONDS)

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return rounds.clock() - self.began

    def plan(self, rates: Rates, available: int, copies: int) -> Plan:
        """What the rest of the time allows. `copies`: how often a batch of the fast path is run at once."""
        rest = max(1.0, self.limit - self.elapsed)
        trials, prices, ways = (rest * share for share in (THOROUGH_SHARES if self.thorough else SHORT_SHARES))
        fast = copies / rates.engine  # seconds a text
        passes = MORE_TRIAL_PASSES if self.thorough else TRIAL_PASSES

        def part(seconds: float, each: float, rounds: int = PART_ROUNDS, least: int = LEAST_TEXTS) -> Part:
            return Part(min(available, max(least, int(seconds / (rounds * each)))), seconds)

        planned = part(ways, ONE_SHARE / rates.one + 2 / rates.batch + 2 * fast, LEAST_ROUNDS, FULL_BATCH)
        times = max(1, min(MOST_TIMES, int(PASS_SECONDS * rates.engine / planned.texts)))
        return Plan(
            part(trials, passes * fast * times), part(prices, PRICE_PASSES * times / rates.engine, least=FULL_BATCH),
            planned, times,
        )  # fmt: skip


def even_order(lengths: Sequence[int], seed: int = 0) -> list[int]:
    """Positions in an order whose every beginning has about the mix of lengths of the whole.

    The ranks by length are taken in the order of van der Corput's sequence (1935) in base 2, digits shifted by the seed.
    """
    count = len(lengths)
    bits = max(1, (count - 1).bit_length())
    ranks = np.argsort(np.asarray(lengths), kind="stable")
    shift = int(np.random.default_rng(seed).integers(1 << bits))
    turned = (int(format(i, f"0{bits}b")[::-1], 2) ^ shift for i in range(1 << bits))
    return [int(ranks[position]) for position in turned if position < count]
