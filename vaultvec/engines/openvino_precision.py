"""Which precision OpenVINO computes in: a half the CPU has natively, if the vectors stay the same; int8 if asked."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from vaultvec.cores import usable_cores
from vaultvec.datatypes import Vectors
from vaultvec.engines.base import Notify
from vaultvec.engines.build_once import build_once
from vaultvec.engines.calibration import calibration_texts
from vaultvec.engines.openvino_int8 import write_int8
from vaultvec.engines.openvino_runtime import CompiledModel, capabilities, check_key
from vaultvec.engines.prepare import Prepared
from vaultvec.engines.tokenizer import HfTokenizer
from vaultvec.errors import BatchTooLarge, EngineError, ModelError

LOWEST_COSINE = 0.999  # below it a half precision is not "the same vectors"; bf16 on all-MiniLM-L6-v2 has 0.99996
CHECK_TEXTS = 32
LONG_CHECK_TOKENS = 2048  # of one text more, as long as the model takes up to here: errors of position show late
HALF = ("bf16", "fp16")


def choose_precision(wanted: str, prepared: Prepared, notify: Notify) -> str:
    """The precision to run: "fp32", "bf16", "fp16" or "int8". Raises ModelError for one this CPU only emulates."""
    if wanted == "int8":
        _quantise_once(prepared, notify)
        return wanted
    checks = prepared.graph.parent / "checks.json"
    return native_precision(wanted, checks, lambda precision: _check_vectors(prepared, precision), notify)


def native_precision(wanted: str, checks: Path, embed: Callable[[str], Vectors], notify: Notify) -> str:
    """`wanted`, or for "auto" a half that this CPU has and that gives fp32's vectors, else fp32.

    `embed` gives the vectors of fixed texts in a precision. How near two of them come is computed once and kept in the
    file `checks`. Raises ModelError for a half that this CPU only emulates.
    """
    native = [name for name in HALF if name in capabilities()]
    if wanted == "auto":
        return next((name for name in native if _lowest_cosine(name, checks, embed, notify) >= LOWEST_COSINE), "fp32")
    if wanted in HALF and wanted not in native:
        raise ModelError(f"PRECISION is {wanted!r}, which this CPU only emulates, about 100 times slower; use auto")
    return wanted


def graph_for(prepared: Prepared, precision: str) -> Path:
    """The model.xml of a precision; halves are made from the fp32 weights when they are compiled."""
    return _int8_folder(prepared) / "model.xml" if precision == "int8" else prepared.graph


def _lowest_cosine(precision: str, checks: Path, embed: Callable[[str], Vectors], notify: Notify) -> float:
    kept = json.loads(checks.read_text(encoding="utf-8"))
    key = check_key(precision)
    if key not in kept:
        notify(f"checking {precision} against fp32, once")
        exact = embed("fp32")
        try:
            cosines = np.sum(embed(precision) * exact, axis=1)
        except BatchTooLarge:  # it says nothing of the vectors: asked again the next time
            return -1.0
        except EngineError:  # a vector that is not finite
            cosines = np.array([np.nan])
        # What is not finite must count as the worst there is, not pass unnoticed as NaN.
        kept[key] = float(np.nan_to_num(cosines, nan=-1.0).min())
        with suppress(OSError):  # a folder that only lets itself be read: then it is computed every time
            _replace_text(checks, json.dumps(kept))
    return float(kept[key])


def _check_vectors(prepared: Prepared, precision: str) -> Vectors:
    compiled = CompiledModel(prepared.graph, streams=1, threads=usable_cores(), precision=precision)
    tokenizer = HfTokenizer(prepared.tokenizer)
    texts = calibration_texts(CHECK_TEXTS)
    rows = tokenizer.encode(texts, prepared.spec.max_tokens)
    batches = [rows[i : i + 8] for i in range(0, len(rows), 8)]
    batches.append(tokenizer.encode(["\n".join(texts)], min(prepared.spec.max_tokens, LONG_CHECK_TOKENS)))
    return np.concatenate([compiled.infer(prepared.inputs(batch)) for batch in batches])


def _replace_text(path: Path, text: str) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    finally:
        with suppress(OSError):  # gone, unless the disk was full or Windows kept the other file
            os.unlink(temporary)


def _int8_folder(prepared: Prepared) -> Path:
    return prepared.folder / "openvino-int8"


def _quantise_once(prepared: Prepared, notify: Notify) -> None:
    if not (_int8_folder(prepared) / "model.xml").is_file():
        notify(f"quantising {prepared.spec.name} to int8, once")
        build_once(_int8_folder(prepared), lambda target: write_int8(prepared.graph, target))
