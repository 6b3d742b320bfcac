"""OpenVINO on the CPU: read, compile, infer from several threads. The only module that imports openvino."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from queue import LifoQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaultvec.errors import BatchTooLarge, EngineError, ModelError

_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
# int8: activations that share a scale, when they are rounded. 512 chunks of the Obsidian hub, 2 cores with VNNI: groups of 64 /
# 128 / 192 / 384 kept 96.3 / 95.8 / 95.3 / 93.6 % of the same top ten.
INT8_GROUP = 128
# Kernels are kept for every shape of batch that was ever seen: 90 kB a chunk on a long run, which makes nothing faster.
# So many are enough for one pass through a model. (openvinotoolkit/openvino#23316, #20633) 2,048 of oneDNN's in place of 32
# took 25 MB more for int8 that ran 1.06 times as fast by itself, and no faster in the benchmark; bf16 no faster at all.
PLUGIN_PRIMITIVES = "16"
ONEDNN_PRIMITIVES = "32"
_OUT_OF_MEMORY = ("bad alloc", "bad_alloc", "cannot allocate", "failed to allocate", "out of memory")


def openvino() -> Any:
    """The openvino module. Its usage statistics are cut off: with no `openvino_telemetry` to import it takes a stub.

    Raises ModelError when it cannot be imported.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", ONEDNN_PRIMITIVES)  # read when the first model runs
    try:
        import openvino
    except ImportError as error:
        raise ModelError(f"openvino cannot be imported ({error}); run: pip install openvino, or set ENGINE") from error
    return openvino


def capabilities() -> frozenset[str]:
    """What this CPU computes natively, of "fp32", "bf16", "fp16", "int8"; anything else is emulated, 100x slower."""
    listed = openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return frozenset(name.lower() for name in listed) & frozenset((*_HINTS, "int8"))


def default_streams(threads: int) -> int:
    """Batches in flight: one for each two threads, at least two (the best of 1, 2 and 4 on two AVX2 cores)."""
    return max(2, threads // 2)


class CompiledModel:
    """A model compiled for this CPU. `infer` may be called from `streams` threads at once; further ones wait."""

    def __init__(
        self,
        model: Any,
        *,
        streams: int,
        threads: int,
        precision: str = "fp32",
        int8: bool = False,
        cache_dir: Path | None = None,
        cache_weights: bool = False,
    ) -> None:
        """`model`: the path of a .xml or .onnx file, or an openvino.Model. `precision`: of what is computed in floats;
        `int8`: the weights are 8-bit integers, and what they are multiplied with is rounded to such if the CPU has VNNI. With
        `cache_dir` the next load is short; `cache_weights` puts the weights into the cache too.
        """
        core = openvino().Core()
        options: dict[str, Any] = {
            "NUM_STREAMS": str(streams),
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "CPU_RUNTIME_CACHE_CAPACITY": PLUGIN_PRIMITIVES,
        }
        if int8:
            options["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = str(INT8_GROUP)
        if cache_dir is not None and _made(cache_dir):
            # Without the weights, which lie beside it: 0.4 MB in place of 90, and it loads no slower.
            mode = "OPTIMIZE_SPEED" if cache_weights else "OPTIMIZE_SIZE"
            options |= {"CACHE_DIR": str(cache_dir), "CACHE_MODE": mode}
        source = str(model) if isinstance(model, Path) else model
        try:
            compiled = core.compile_model(source, "CPU", options)
        except RuntimeError as error:
            cure = f"delete the folder {model.parent}" if isinstance(model, Path) else "reinstall openvino"
            raise ModelError(f"OpenVINO cannot compile it ({_first_line(error)}); {cure} and try again") from error
        self.input_types = {port.get_any_name(): port.get_element_type().to_dtype() for port in compiled.inputs}
        self._requests: LifoQueue[Any] = LifoQueue()
        for _ in range(streams):
            self._requests.put(compiled.create_infer_request())

    def infer(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """The first output, as an array of its own. Raises BatchTooLarge when memory does not suffice, else EngineError."""
        cast = {name: np.ascontiguousarray(inputs[name], dtype=dtype) for name, dtype in self.input_types.items()}
        request = self._requests.get()
        try:
            request.infer(cast, share_inputs=True)
            return np.array(request.get_output_tensor(0).data, dtype=np.float32)
        except MemoryError as error:
            raise BatchTooLarge("no memory for the batch") from error
        except RuntimeError as error:
            line = _first_line(error)
            if any(sign in str(error).lower() for sign in _OUT_OF_MEMORY):
                raise BatchTooLarge(line) from error
            raise EngineError(f"OpenVINO failed on a batch ({line}); run: python main.py doctor") from error
        finally:
            self._requests.put(request)


def save_model(model: Any, path: Path) -> None:
    """Write .xml and .bin in full precision. Raises OSError."""
    try:
        openvino().save_model(model, str(path), compress_to_fp16=False)
    except RuntimeError as error:  # a full disk: "basic_ios::clear: iostream error"
        raise OSError(f"{path.parent}: {_first_line(error)}") from error


def check_key(precision: str) -> str:
    """What a check of a precision holds for: another CPU or another OpenVINO may give other vectors."""
    name = openvino().Core().get_property("CPU", "FULL_DEVICE_NAME")
    return f"{precision}, {name}, OpenVINO {openvino().__version__}"


def _made(folder: Path) -> bool:
    """Whether a folder is there or could be made: a data folder that is only read works without a cache."""
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    return folder.is_dir()


def _first_line(error: Exception) -> str:
    """The line of an OpenVINO error that says something: the last one, after the C++ source positions."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__
