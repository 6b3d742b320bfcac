"""Texts a second of every way on the same chunks, with the distance to fp32 and the share of the machine's ceiling."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from statistics import mean, median
from typing import Any

from benchmarks.peers import fastembed_ways, model2vec_way, sentence_transformers_way
from vaultvec.datatypes import Vectors
from vaultvec.engines import create_engine
from vaultvec.engines.base import Engine
from vaultvec.engines.reference import load_reference
from vaultvec.measure.ceiling import measure_ceiling
from vaultvec.measure.rounds import Timing, Way, compare, cosines, time_in_turn, top_agreement
from vaultvec.models import ModelSpec, weights_path
from vaultvec.settings import Settings

WIDE_WINDOW = 2000  # the guide's EMBEDDING_BATCH_SIZE
BASE = "sentence_transformers"
INT8 = "ours_int8"
WARM_TEXTS = 32

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Sample:
    """What every way embeds."""

    texts: list[str]
    lengths: list[int]  # of each text in tokens

    @property
    def tokens(self) -> int:
        """Of all texts."""
        return sum(self.lengths)


def measure_embedding(settings: Settings, model: ModelSpec, texts: list[str], rounds: int, say: Say) -> dict[str, Any]:
    """Time all ways in turn over `texts`. Raises ModelError, EngineError."""
    with ExitStack() as stack:
        ways, engine = _ways(settings, model, stack, say)
        sample = Sample(texts, [len(row) for row in engine.tokenizer.encode(texts, model.max_tokens)])
        for way in ways:
            say(f"warming {way.label}")
            way.run(texts[:WARM_TEXTS])
        ceilings: list[float] = []  # GFLOP/s, measured right after our own way in every round

        def tick(label: str) -> None:
            say(f"  timed {label}")
            if label == ways[1].label and (found := measure_ceiling(engine, 1.0, sample.lengths)):
                ceilings.append(found.gflops)

        timings = time_in_turn(ways, texts, sample.tokens, rounds, tick)
        ceiling = measure_ceiling(engine, 1.0, sample.lengths)
        most = 0.0
        if ceiling and ceilings:
            most = median(ceilings) * 1e6 / ceiling.mflop_per_token / 1e3
        truth = timings[BASE].vectors
        rows = [_row(timing, timings[BASE], truth, most) for timing in timings.values()]
        return {
            "texts": len(texts), "tokens": sample.tokens, "mean_tokens": round(sample.tokens / len(texts), 1), "rounds": rounds,
            "model": model.name, "engine": engine.name, "precision": engine.precision, "rows": rows,
            "ceiling": {
                "how": ceiling.how if ceiling else "", "gflops": [round(value, 1) for value in ceilings],
                "mflop_per_token": round(ceiling.mflop_per_token, 2) if ceiling else None,
                "tokens_per_second": round(most),
            },
        }  # fmt: skip


def _ways(settings: Settings, model: ModelSpec, stack: ExitStack, say: Say) -> tuple[list[Way], Engine]:
    """sentence-transformers, ours as it comes, ours with a wide window, fastembed, model2vec, ours in int8."""
    say("loading sentence-transformers")
    reference = load_reference(model)
    weights = weights_path(model).parent
    engine = create_engine(settings, model, settings.models_dir, say)
    stack.callback(engine.close)
    wide = create_engine(replace(settings, embedding_batch_size=WIDE_WINDOW), model, settings.models_dir, say)
    stack.callback(wide.close)
    kind = f"{engine.name} {engine.precision}"
    ways = [
        sentence_transformers_way(reference),
        _engine_way("ours", f"ours, {kind}, config.py as it comes", engine),
        _engine_way("ours_wide", f"ours, {kind}, EMBEDDING_BATCH_SIZE = {WIDE_WINDOW}", wide),
    ]
    say("exporting an ONNX for fastembed")
    ways += fastembed_ways(reference, weights, model, settings.data_dir / "bench-onnx")
    say("distilling model2vec")
    ways.append(model2vec_way(weights))
    if engine.name == "openvino":
        small = create_engine(replace(settings, precision="int8"), model, settings.models_dir, say)
        stack.callback(small.close)
        ways.append(_engine_way(INT8, f"ours, {small.name} int8, only when asked for", small))
    return ways, engine


def _engine_way(key: str, label: str, engine: Engine) -> Way:
    return Way(key, label, engine.embed_documents)


def _row(timing: Timing, base: Timing, truth: Vectors, most: float) -> dict[str, Any]:
    ratio = compare(base, timing)
    lowest = average = None
    if timing.vectors.shape == truth.shape:
        lowest, average = (round(value, 5) for value in cosines(truth, timing.vectors))
    return {
        "key": timing.way.key,
        "label": timing.way.label,
        "seconds": [round(value, 3) for value in timing.seconds],
        "texts_per_second": round(timing.texts_per_second, 1),
        "tokens_per_second": round(timing.tokens_per_second),
        "spread": round(timing.spread, 3),
        "times_base": round(ratio.median, 2),
        "times_base_spread": round(ratio.spread, 2),
        # The ceiling is that of floats: int8 has another, which is not measured.
        "share_of_ceiling": round(timing.tokens_per_second / most, 3) if most and timing.way.key != INT8 else None,
        "lowest_cosine": lowest,
        "mean_cosine": average,
        "top10_agreement": round(top_agreement(truth, timing.vectors), 4),
        "dimensions": int(timing.vectors.shape[1]),
        "cpu_share": round(mean(usage.cpu_share for usage in timing.usages), 2),
        "growth_mb": round(timing.growth_mb, 1),
    }
