"""What may be written into config.py after a benchmark, key by key, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from vaultvec.config_keys import KEYS
from vaultvec.measure.results import FIDELITY_GATE, Decision, Trial
from vaultvec.measure.rounds import Ratio
from vaultvec.settings import Settings

Changes = dict[str, Any]  # keys of config.py with other values
NOT_SLOWER = 0.95  # of the present speed: below it nothing is written, even where the noise could explain it


def apply_changes(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """Settings with config.py's values put in."""
    return replace(settings, **{key.lower(): KEYS[key].check.convert(value) for key, value in changes.items()})


def describe(changes: Mapping[str, Any]) -> str:
    """`STREAMS 4, THREADS auto`."""
    return ", ".join(f"{key} {value}" for key, value in changes.items())


def confirm(ratio: Ratio, low: float, tuned: Changes, *, int8: bool) -> Changes:
    """What of the tuned changes may be written after they were timed together against config.py as it is.

    All of them where they are faster beyond the noise with vectors above the gate, else none.
    """
    slower = ratio.worse or ratio.median < NOT_SLOWER
    return tuned if ratio.better and not slower and (int8 or low >= FIDELITY_GATE) else {}


def decide(
    present: Mapping[str, Any],
    written: Changes,
    trials: Sequence[Trial],
    notes: Mapping[str, tuple[str, str]],
) -> list[Decision]:
    """One decision a key. `notes`: key → (gain, reason) where the benchmark knows more than the trials tell."""
    rows: list[Decision] = []
    for key in KEYS:
        proposed = written.get(key, present[key])
        gain, reason = notes.get(key, ("", ""))
        told = [t for t in trials if key in t.changes and t.ratio]
        if told:
            best = max(told, key=lambda t: (t.kept, t.ratio))
            gain = f"{best.ratio:.2f}x ± {best.spread:.2f} with {best.changes[key]}"
            if best.kept:
                reason = "the fastest" if key in written else "faster in its trial, but not when all was timed together"
            else:
                reason = f"tried {_tried(told, key)}: none faster"
        rows.append(
            Decision(key, present[key], KEYS[key].after, proposed, gain, reason or "yours to choose; not tuned")
        )
    return rows


def _tried(trials: Sequence[Trial], key: str) -> str:
    return ", ".join(str(trial.changes[key]) for trial in trials)
