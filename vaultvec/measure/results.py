"""What a benchmark finds, as frozen rows that become JSON, a table and charts."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from vaultvec.datatypes import Vectors
from vaultvec.measure.ceiling import Ceiling
from vaultvec.measure.rounds import Timing, cosines

FORMAT = 1  # of the JSON; other numbers are not read
FIDELITY_GATE = 0.999  # lowest cosine to fp32 that full-precision vectors must keep


@dataclass(frozen=True, slots=True)
class Mix:
    """The token lengths of the sampled chunks."""

    texts: int
    tokens: int
    shortest: int
    quarter: int
    middle: int
    three_quarters: int
    longest: int

    @classmethod
    def of(cls, lengths: Sequence[int]) -> Mix:
        """`lengths`: tokens of each text, special ones included."""
        low, quarter, middle, three_quarters, high = (int(v) for v in np.percentile(lengths, [0, 25, 50, 75, 100]))
        return cls(len(lengths), sum(lengths), low, quarter, middle, three_quarters, high)

    def __str__(self) -> str:
        spread = f"{self.shortest} / {self.quarter} / {self.middle} / {self.three_quarters} / {self.longest}"
        return f"{self.texts} chunks, {self.tokens / self.texts:.0f} tokens on average (0/25/50/75/100 %: {spread})"


@dataclass(frozen=True, slots=True)
class Row:
    """One way of embedding, measured. Speeds are medians; `spread`: the round farthest from it, as a share of it."""

    key: str
    label: str
    note: str
    texts: int
    rounds: int
    texts_per_second: float
    tokens_per_second: float
    spread: float
    seconds_per_1000: float
    growth_mb: float
    peak_mb: float
    cpu_share: float
    gpu_share: float | None
    cosine_low: float
    cosine_mean: float

    @classmethod
    def of(cls, timing: Timing, truth: Vectors, note: str = "") -> Row:
        """`truth`: fp32 vectors of the same texts, or of the first ones."""
        both = min(len(truth), len(timing.vectors))
        low, mean = cosines(truth[:both], timing.vectors[:both])
        return cls(
            timing.way.key, timing.way.label, note or timing.way.note, timing.texts, len(timing.seconds),
            timing.texts_per_second, timing.tokens_per_second, timing.spread, 1000 / timing.texts_per_second,
            timing.growth_mb, timing.peak_mb, timing.cpu_share, timing.gpu_share, low, mean,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Price:
    """What one bottleneck costs: the extra time, as a share of the time without it, with one thing switched."""

    key: str
    label: str
    cost: float  # 0.25 = a quarter longer; below 0 = it helps here
    spread: float
    how: str
    measured: bool = True  # False: worked out, nothing was run with it

    @property
    def verdict(self) -> str:
        """What the number says, in words."""
        if not self.measured:
            return f"{self.cost:+.0%} time by calculation, not run"
        if abs(self.cost) <= self.spread:
            return "no difference beyond the noise"
        return f"{self.cost:+.0%} time" if self.cost > 0 else f"{-self.cost:.0%} less time: it helps here"


@dataclass(frozen=True, slots=True)
class Trial:
    """A candidate and how many times faster it was than the best before it; or that best itself, without changes."""

    label: str
    changes: dict[str, Any]
    ratio: float
    spread: float
    texts_per_second: float
    cosine_low: float
    kept: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Decision:
    """One key of config.py: what it is, what the guide says, what is proposed and why."""

    key: str
    present: Any
    guide: Any
    proposed: Any
    gain: str
    reason: str


@dataclass(frozen=True, slots=True)
class Extra:
    """One of the guide's further options, tried or told why not."""

    label: str
    finding: str
    texts_per_second: float | None = None


@dataclass(frozen=True, slots=True)
class ModelRow:
    """A model on this machine: its speed, and how many of its ten nearest chunks are all-MiniLM-L6-v2's."""

    name: str
    texts_per_second: float
    agreement: float | None
    measured_with: str = ""  # engine, precision and device


@dataclass(frozen=True, slots=True)
class Place:
    """What a proposal holds for beside config.py's values."""

    machine: str
    cores: int
    gpu: bool  # whether torch would find one
    model: str
    vault: str  # name and hash of its path, as its index's folder is called

    def differences(self, now: Place) -> str:
        """Where the two differ, in words; "" where they do not."""
        words = {False: "no GPU", True: "a GPU"}
        rows = (
            ("", self.machine, now.machine), ("", f"{self.cores} cores", f"{now.cores} cores"),
            ("", words[self.gpu], words[now.gpu]), ("model ", self.model, now.model), ("vault ", self.vault, now.vault),
        )  # fmt: skip
        return "; ".join(f"{name}{then}, now {here}" for name, then, here in rows if then != here)


@dataclass(frozen=True, slots=True)
class Found:
    """The newest report that is of use. `differs`: why its decisions are not this machine's, then there are none."""

    decisions: tuple[Decision, ...]
    made: str
    differs: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """Everything one benchmark found."""

    made: str
    machine: str
    cores: int
    model: str
    engine: str
    precision: str
    device: str
    thorough: bool
    seconds: float
    present: dict[str, Any]  # config.py's values when it ran
    sampled: Mix
    used: Mix
    rows: tuple[Row, ...]
    prices: tuple[Price, ...]
    trials: tuple[Trial, ...]
    gain: float  # proposed over present
    gain_spread: float
    decisions: tuple[Decision, ...]
    ceiling: Ceiling | None
    time_shares: dict[str, float]
    budgets: dict[int, float]  # token budget → texts/s
    batch_sizes: dict[int, float]  # batch size → texts/s
    extras: tuple[Extra, ...] = ()
    models: tuple[ModelRow, ...] = ()  # what `main.py models` shows
    busy: float = 0.0  # share of the CPU that other programs took when it began
    agreement: float | None = None  # int8: share of the top ten that is fp32's
    place: Place | None = None
    times_one: float = 0.0  # texts/s of what will run over those of one call per chunk, median of the rounds' ratios
    times_one_spread: float = 0.0
    format: int = FORMAT

    @property
    def proposal(self) -> dict[str, Any]:
        """The keys to write, with their values."""
        return {row.key: row.proposed for row in self.decisions if row.proposed != row.present}


def machine_name() -> str:
    """System and processor, as far as they tell."""
    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        processor = names[0] if names else processor
    return f"{platform.system()} {platform.machine()}, {processor}"


def save_json(report: Report, folder: Path) -> Path:
    """Write the report as bench-YYYYMMDD-HHMMSS.json; the folder is made when it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"bench-{datetime.fromisoformat(report.made):%Y%m%d-%H%M%S}.json"
    part = path.with_suffix(".part")
    part.write_text(json.dumps(as_dict(report), indent=1, ensure_ascii=False), encoding="utf-8")
    os.replace(part, path)
    return path


def as_dict(report: Report) -> dict[str, Any]:
    """The report as JSON has it, the proposal added."""
    return {**asdict(report), "proposal": report.proposal}


def last_decisions(folder: Path, present: Mapping[str, Any], here: Callable[[], Place]) -> Found | None:
    """The decisions of the newest report that still holds; of one that was made elsewhere only why not; else None.

    A report holds for the values it was made with, and for those that it proposed: then nothing more is proposed. It
    holds `here` alone, which is asked only where a report has these values. Raises what `here` raises.
    """
    now = json.loads(json.dumps(present))
    place: Place | None = None
    elsewhere: Found | None = None
    for path in sorted(folder.glob("bench-*.json"), reverse=True):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if found["format"] != FORMAT or now not in (found["present"], found["present"] | found["proposal"]):
                continue
            rows = tuple(replace(Decision(**row), present=now[row["key"]]) for row in found["decisions"])
            made, kept = str(found["made"]), found.get("place")
            then = Place(**kept) if kept else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # a report cut short is no report
        place = place or here()
        differs = then.differences(place) if then else "it does not say of which vault"
        if not differs:
            return Found(rows, made)
        elsewhere = elsewhere or Found((), made, differs)
    return elsewhere
