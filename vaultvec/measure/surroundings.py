"""What stands around the model: the whole pipeline run with an engine that costs nothing, so that the rest is seen.

It prices the settings that the model never notices: Chroma's batch size, the worker processes, the checks after a run.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from vaultvec.config_keys import GUIDE_VALUES
from vaultvec.cores import usable_cores
from vaultvec.datatypes import Batch, Vectors
from vaultvec.engines import load_tokenizer
from vaultvec.engines.base import Engine
from vaultvec.errors import VaultvecError
from vaultvec.measure.decisions import apply_changes
from vaultvec.measure.rounds import Ratio, ratio_of
from vaultvec.models import ModelSpec
from vaultvec.settings import Settings

START_NOTES = 2  # of a run whose time is that of starting and ending one
SHORT_NOTES = 25
MORE_NOTES = 1000
# The guide's keys that the pipeline reads and the engine does not.
GUIDE_KEYS = ("BATCH_SIZE", "MEMORY_CHECK_INTERVAL", "FAST_MODE")


class EmptyEngine(Engine):
    """An engine without a model: a vector is drawn from the text's token ids."""

    name = "none"
    device = "cpu"
    precision = "fp32"

    def _forward(self, batch: Batch) -> Vectors:
        rows = np.empty((len(batch.items), self.dim), dtype=np.float32)
        for row, item in zip(rows, batch.items, strict=True):
            row[:] = np.random.default_rng(np.abs(item.token_ids)).standard_normal(self.dim, dtype=np.float32)
        return rows


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Reading, chunking and storing, without the model. Empty when it could not be measured, then `why` tells."""

    notes: int = 0
    chunks: int = 0
    chunk_seconds: float = 0.0  # of one chunk more, with config.py as it is
    guide: Ratio | None = None  # how many times faster with the guide's values of GUIDE_KEYS; None: it has them already
    alone: Mapping[str, Ratio] = field(default_factory=dict)  # each such key on its own, where all together are faster
    workers: tuple[Any, Ratio] | None = None  # another number of worker processes, and how many times faster
    why: str = ""

    def matter_beside(self, texts_per_second: float, settings: Settings) -> bool:
        """Whether worker processes are worth proposing: set by hand, or the rest takes half as long as the model."""
        return settings.workers is not None or self.chunk_seconds * texts_per_second > 0.5

    def helpful(self, texts_per_second: float) -> dict[str, Any]:
        """The guide's values that make it faster, where it takes half as long as the model with that speed."""
        if self.chunk_seconds * texts_per_second <= 0.5:
            return {}
        return {key: GUIDE_VALUES[key] for key, ratio in self.alone.items() if ratio.better}


def measure_surroundings(
    settings: Settings,
    model: ModelSpec,
    vault: Path | None,
    *,
    rounds: int,
    thorough: bool,
    tick: Callable[[str], None],
) -> Surroundings:
    """Time the pipeline around the model. `thorough`: more notes, and worker processes where there are cores."""
    if vault is None or not model.package:
        return Surroundings(
            why="not measured: " + ("no vault was given" if vault is None else "the model is not bundled")
        )
    limit = MORE_NOTES if thorough else SHORT_NOTES
    variants: dict[str, Settings] = {
        "present": settings,
    }
    differ = {key: GUIDE_VALUES[key] for key in GUIDE_KEYS if getattr(settings, key.lower()) != GUIDE_VALUES[key]}
    if differ:
        variants["guide"] = apply_changes(settings, differ)
    other = "auto" if settings.workers is not None else usable_cores() // 2
    if settings.workers is not None or (usable_cores() >= 4 and thorough):
        variants["workers"] = apply_changes(settings, {"WORKERS": other})
    try:
        seconds, notes, chunks = _in_turn(variants, model, vault, limit, rounds, tick)
        if not chunks:
            return Surroundings(why="not measured: these notes hold no text")
        base = seconds["present"]
        start, started = _start(settings, model, vault, rounds)
        guide = ratio_of(base, seconds["guide"]) if differ else None
        alone = {}
        if guide is not None and guide.better:  # which of them is it?
            single = {"present": settings, **{key: apply_changes(settings, {key: differ[key]}) for key in differ}}
            apart = _in_turn(single, model, vault, limit, rounds, tick)[0]
            alone = {key: ratio_of(apart["present"], apart[key]) for key in differ}
    except (VaultvecError, OSError) as error:
        return Surroundings(why=f"not measured: {error}")
    each = max(0.0, median(base) - start) / max(1, chunks - started)
    tried = (other, ratio_of(base, seconds["workers"])) if "workers" in seconds else None
    return Surroundings(notes, chunks, each, guide, alone, tried)


def _start(settings: Settings, model: ModelSpec, vault: Path, rounds: int) -> tuple[float, int]:
    """Seconds that a run takes whatever it has to do, and the chunks that it made meanwhile."""
    runs = [_run(settings, model, vault, START_NOTES) for _ in range(rounds)]
    return median(seconds for seconds, _, _ in runs), runs[0][2]


def _in_turn(
    variants: Mapping[str, Settings],
    model: ModelSpec,
    vault: Path,
    limit: int,
    rounds: int,
    tick: Callable[[str], None],
) -> tuple[dict[str, list[float]], int, int]:
    """Seconds of every variant, round by round, in turn and in both orders; notes and chunks of one run."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    notes = chunks = 0
    for number in range(rounds + 1):  # the first round imports and warms
        for name in ["present"] if not number else variants if number % 2 else reversed(list(variants)):
            taken, notes, chunks = _run(variants[name], model, vault, limit if number else START_NOTES)
            if number:
                seconds[name].append(taken)
            tick("reading, chunking, storing")
    return seconds, notes, chunks


def _run(settings: Settings, model: ModelSpec, vault: Path, limit: int) -> tuple[float, int, int]:
    """Seconds, notes and chunks of a new index in a folder that is thrown away."""
    from vaultvec.pipeline import Hooks, index_vault

    tokenizer = load_tokenizer(model, settings.models_dir)
    settings.data_dir.mkdir(parents=True, exist_ok=True)

    def build(wanted: Settings, spec: ModelSpec, *_: Any) -> Engine:
        own = tokenizer if spec.name == model.name else load_tokenizer(spec, settings.models_dir)
        return EmptyEngine(spec, own, token_budget=65_536, window=wanted.embedding_batch_size)

    with tempfile.TemporaryDirectory(prefix="bench-", dir=settings.data_dir, ignore_cleanup_errors=True) as folder:
        began = time.perf_counter()
        there = replace(settings, data_dir=Path(folder), embedding_model=model.name)
        done = index_vault(there, vault, limit=limit, hooks=Hooks(engines=build))
        return time.perf_counter() - began, done.notes_indexed, done.chunks_total
