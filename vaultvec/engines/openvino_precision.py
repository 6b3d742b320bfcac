"""Which precision OpenVINO computes in: a half the CPU has natively, if the vectors stay the same; int8 if asked."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from vaultvec.cores import usable_cores
from vaultvec.datatypes import Vectors
from vaultvec.engines.base import Notify
from vaultvec.engines.build_once import build_once
from vaultvec.engines.calibration import calibration_texts
from vaultvec.engines.openvino_runtime import CompiledModel, capabilities, check_key, openvino, save_model
from vaultvec.engines.padding import padded_inputs
from vaultvec.engines.prepare import Prepared
from vaultvec.engines.tokenizer import HfTokenizer
from vaultvec.errors import BatchTooLarge, EngineError, ModelError

LOWEST_COSINE = 0.999  # below it a half precision is not "the same vectors"; bf16 on all-MiniLM-L6-v2 has 0.99996
CHECK_TEXTS = 32
LONG_CHECK_TOKENS = 2048  # of one text more, as long as the model takes up to here: errors of position show late
CALIBRATION_TEXTS = 64
HALF = ("bf16", "fp16")
NNCF = "python -m pip install nncf==3.4.0"


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
    return np.concatenate([compiled.infer(padded_inputs(batch, prepared.pad_id)) for batch in batches])


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
    if (_int8_folder(prepared) / "model.xml").is_file():
        return
    if find_spec("nncf") is None:
        raise ModelError(f'PRECISION is "int8", which needs nncf; run: {NNCF}')
    notify(f"quantising {prepared.spec.name} to int8, once (a minute or two)")
    with redirect_stdout(sys.stderr):  # nncf draws its progress and its notes on stdout, which is for results
        build_once(_int8_folder(prepared), lambda target: _quantise(prepared, target))


def _quantise(prepared: Prepared, target: Path) -> None:
    """Post-training quantisation of weights and activations, by NNCF's transformer preset."""
    ov = openvino()  # before nncf, so that its usage statistics find nothing to send with either
    import nncf

    rows = HfTokenizer(prepared.tokenizer).encode(calibration_texts(CALIBRATION_TEXTS), prepared.spec.max_tokens)
    graph = ov.Core().read_model(str(prepared.graph))
    wanted = {port.get_any_name(): port.get_element_type().to_dtype() for port in graph.inputs}
    inputs = [padded_inputs([row], prepared.pad_id) for row in rows]
    samples = [{name: each[name].astype(dtype) for name, dtype in wanted.items()} for each in inputs]
    quantised = nncf.quantize(
        graph, nncf.Dataset(samples), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(samples)
    )
    save_model(quantised, target / "model.xml")
    (target / "checks.json").write_text("{}", encoding="utf-8")
