"""Why a key of config.py is proposed as it is, in one sentence each, with the numbers of this machine."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from vaultvec.engines.base import Engine
from vaultvec.measure.surroundings import Surroundings
from vaultvec.measure.ways import GUIDE_BATCH, padded_tokens
from vaultvec.settings import Settings

Notes = dict[str, tuple[str, str]]  # key → (measured gain, reason)
NO_EFFECT = "no effect here"


def explain(
    settings: Settings,
    present: Engine,
    last: Engine,
    lengths: Sequence[int],
    around: Surroundings,
    written: Collection[str],
) -> Notes:
    """Notes for the keys that are not a trial of their own. `present` runs now, `last` with what is proposed.

    `lengths`: tokens of every sampled chunk.
    """
    return {
        "EMBEDDING_BATCH_SIZE": _window_note(settings, last, lengths),
        "WORKERS": _workers_note(around),
        **_choice_notes(settings, present),
        **_torch_notes(last),
        **_pipeline_notes(around, written),
    }


def _window_note(settings: Settings, engine: Engine, lengths: Sequence[int]) -> tuple[str, str]:
    """Padding at the present window and at the guide's, counted over all sampled chunks where it was not timed."""
    real = sum(lengths)

    def at(window: int) -> tuple[int, float]:
        engine.window, kept = window, engine.window
        gathered, engine.window = engine.texts_per_window, kept
        return gathered, padded_tokens(lengths, engine.token_budget, gathered, engine.start_cost) / real - 1

    now = settings.embedding_batch_size
    (least, here), (wide, there) = at(now), at(GUIDE_BATCH)
    if least == wide or min(least, wide) >= len(lengths):
        return NO_EFFECT, f"{least} texts are sorted by length at a time whatever it says, for full batches"
    if not engine.pads:
        padded = "the server decides what is padded" if settings.server else "the model runs without padding here"
        return NO_EFFECT, f"texts sorted by length at a time; {padded}, so little hangs on it"
    gain = f"padding {here:.1%} at {now}, {there:.1%} at {GUIDE_BATCH}: {(1 + here) / (1 + there):.2f}x, counted"
    return gain, "texts sorted by length at a time; too few were timed for the two to differ, so it stays"


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
        share = "how much memory may be taken, not a speed: the token budgets above were tried themselves"
        return {"GPU_MEMORY_FRACTION": ("" if engine.device == "cuda" else NO_EFFECT, share)}
    reason = f"only the torch engine reads it, {engine.name} runs here; it stays"
    keys = ("GPU_MEMORY_FRACTION", "DISABLE_COMPLEX_GPU_OPTIMIZATION", "TORCH_COMPILE")
    return dict.fromkeys(keys, (NO_EFFECT, reason))


PIPELINE = {
    "BATCH_SIZE": "vectors written to Chroma at a time",
    "MEMORY_CHECK_INTERVAL": "the checks run in a thread of their own",
    "FAST_MODE": "leaves out the checks after a run",
}


def _pipeline_notes(around: Surroundings, written: Collection[str]) -> Notes:
    """Keys that the model never notices, measured on the pipeline without it: together, then one by one if that helps."""
    return {key: _pipeline_note(around, key, what, key in written) for key, what in PIPELINE.items()}


def _pipeline_note(around: Surroundings, key: str, what: str, written: bool) -> tuple[str, str]:
    if around.guide is None:
        return "", f"{what}; {around.why}" if around.why else what
    if key in around.alone:
        ratio = around.alone[key]
        faster = "faster" if written else "faster, but little beside the model, so it stays"
        slower = "slower on its own, so it stays" if ratio.worse else "no faster on its own, so it stays"
        verdict = faster if ratio.better else slower
        return f"{ratio} around the model", f"{what}; the guide's value alone, on {around.chunks} chunks: {verdict}"
    verdict = "slower here" if around.guide.worse else "no faster"
    measured = f"the guide's such keys together, on {around.chunks} chunks: {verdict}, so it stays"
    return f"{around.guide} around the model", f"{what}; {measured}"
