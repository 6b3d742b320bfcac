"""Why a key of config.py is proposed as it is, in one sentence each, with the numbers of this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vaultvec.engines.base import Engine
from vaultvec.measure.rounds import Ratio
from vaultvec.measure.surroundings import Surroundings
from vaultvec.measure.ways import GUIDE_BATCH, padded_tokens
from vaultvec.settings import Settings

Notes = dict[str, tuple[str, str]]  # key → (measured gain, reason)
NO_EFFECT = "no effect here"


def explain(
    settings: Settings,
    engine: Engine,
    lengths: Sequence[int],
    around: Surroundings,
    ratio: Ratio,
    written: Mapping[str, Any],
) -> Notes:
    """Notes for the keys that are not a trial of their own. `lengths`: tokens of every sampled chunk."""
    return {
        "EMBEDDING_BATCH_SIZE": _window_note(settings, engine, lengths, ratio, "EMBEDDING_BATCH_SIZE" in written),
        "WORKERS": _workers_note(around),
        **_choice_notes(settings, engine),
        **_torch_notes(engine),
        **_pipeline_notes(around),
    }


def _window_note(
    settings: Settings, engine: Engine, lengths: Sequence[int], ratio: Ratio, written: bool
) -> tuple[str, str]:
    """Padding at the present window and at the guide's, counted over all sampled chunks."""
    real = sum(lengths)

    def share(window: int) -> float:
        engine.window, kept = window, engine.window
        gathered, engine.window = engine.texts_per_window, kept
        return padded_tokens(lengths, engine.token_budget, gathered, engine.start_cost) / real - 1

    now = settings.embedding_batch_size
    work = (1 + share(now)) / (1 + share(GUIDE_BATCH))
    gain = f"padding {share(now):.1%} at {now}, {share(GUIDE_BATCH):.1%} at {GUIDE_BATCH}: {work:.2f}x"
    reason = "texts sorted by length at a time; what goes through the model at once is the token budget"
    return gain, f"{reason} (all changes together: {ratio})" if written else reason


def _choice_notes(settings: Settings, engine: Engine) -> Notes:
    """What "auto" took, so that nobody has to guess."""
    notes = {"EMBEDDING_MODEL": ("", f"measured with {engine.model.name}; --thorough compares the guide's models")}
    if settings.engine == "auto":
        notes["ENGINE"] = ("", f"auto took {engine.name} on {engine.device}; --thorough tries the others")
    if settings.precision == "auto":
        half = engine.precision in ("bf16", "fp16")
        why = "native here, and its vectors are fp32's" if half else "nothing shorter is native here and as exact"
        notes["PRECISION"] = ("", f"auto took {engine.precision}: {why}")
    return notes


def _workers_note(around: Surroundings) -> tuple[str, str]:
    if not around.chunks:
        return "", around.why
    if around.workers is None:
        return "", f"reading, chunking and storing take {around.chunk_seconds * 1000:.1f} ms a chunk beside the model"
    value, ratio = around.workers
    return f"{ratio} with {value}", "measured on the pipeline without the model"


def _torch_notes(engine: Engine) -> Notes:
    """Keys that only the torch engine reads."""
    if engine.name == "torch":
        share = "share of the GPU's memory; the token budget is sized by it"
        return {"GPU_MEMORY_FRACTION": ("" if engine.device == "cuda" else NO_EFFECT, share)}
    reason = f"only the torch engine reads it, {engine.name} runs here"
    keys = ("GPU_MEMORY_FRACTION", "DISABLE_COMPLEX_GPU_OPTIMIZATION", "TORCH_COMPILE")
    return dict.fromkeys(keys, (NO_EFFECT, reason))


def _pipeline_notes(around: Surroundings) -> Notes:
    """Keys that the model never notices, measured together on the pipeline without it."""
    if around.guide is None:
        return {
            "BATCH_SIZE": ("", f"vectors written to Chroma at a time; {around.why}"),
            "MEMORY_CHECK_INTERVAL": ("", "the checks run in a thread of their own"),
            "FAST_MODE": ("", "leaves out the checks after a run"),
        }
    gain = f"{around.guide} around the model"
    verdict = "does not hurt" if not around.guide.worse else "slower here, so not written"
    measured = f"measured with the guide's other such keys on {around.chunks} chunks: {verdict}"
    return {
        "BATCH_SIZE": (gain, f"vectors written to Chroma at a time; {measured}"),
        "MEMORY_CHECK_INTERVAL": (gain, f"the checks run in a thread of their own; {measured}"),
        "FAST_MODE": (gain, f"leaves out the checks after a run; {measured}"),
    }
