"""How fast this machine could be at best: a measured matrix product over the model's work per token."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vaultvec.engines.base import Engine
from vaultvec.engines.model_folder import local_folder
from vaultvec.errors import VaultvecError

ROWS = 2048  # of the measured product: a CPU's batch of tokens
GPU_ROWS = 65_536
REPEATS = 7


@dataclass(frozen=True, slots=True)
class Shapes:
    """The sizes of a transformer encoder."""

    layers: int
    hidden: int
    inner: int  # of the feed-forward part

    def flops_per_token(self, lengths: Sequence[int]) -> float:
        """Multiplications and additions for a token, on average over all tokens of texts of these lengths.

        Four hidden x hidden and two hidden x inner products, and attention over the token's own text, in each layer.
        """
        matrices = 4 * self.hidden**2 + 2 * self.hidden * self.inner
        seen = sum(length * length for length in lengths) / max(1, sum(lengths))  # by a token, on average
        return self.layers * (2 * matrices + 4 * seen * self.hidden)


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What the best stands against."""

    gflops: float  # of the matrix product
    how: str
    mflop_per_token: float
    tokens_per_second: float  # that the product alone would allow
    share: float  # of it that was reached, 0 to 1


def read_shapes(folder: Path) -> Shapes | None:
    """The sizes from a model folder's config.json, None where it does not tell."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        hidden = int(config["hidden_size"])
        return Shapes(int(config["num_hidden_layers"]), hidden, int(config.get("intermediate_size", 4 * hidden)))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def model_shapes(engine: Engine) -> Shapes | None:
    """The sizes of an engine's model, where its folder is on this machine."""
    if engine.model.kind != "transformer":
        return None
    try:
        folder = local_folder(engine.model)
    except VaultvecError:
        return None
    return read_shapes(folder) if folder is not None else None


def measure_ceiling(engine: Engine, tokens_per_second: float, lengths: Sequence[int]) -> Ceiling | None:
    """The share of this machine's own matrix speed that was reached on texts of so many tokens each.

    None for models whose sizes are not known, for servers, whose machine is not this one, and for int8, whose
    products are not measured.
    """
    shapes = model_shapes(engine)
    if shapes is None or engine.precision == "int8":
        return None
    seconds, flop, how = _product(engine, shapes)
    gflops = flop / seconds / 1e9
    work = shapes.flops_per_token(lengths)
    most = gflops * 1e9 / work
    return Ceiling(gflops, how, work / 1e6, most, tokens_per_second / most)


def _product(engine: Engine, shapes: Shapes) -> tuple[float, float, str]:
    """Seconds and floating-point operations of the largest product of the model, in the engine's precision."""
    gpu = engine.device != "cpu"
    rows = GPU_ROWS if gpu else ROWS
    flop = 2.0 * rows * shapes.hidden * shapes.inner
    size = f"{rows}x{shapes.hidden}x{shapes.inner}"
    if engine.name == "torch":
        return _torch_seconds(engine, rows, shapes), flop, f"torch {engine.precision} product {size}"
    if engine.name == "openvino" and engine.precision != "fp32":
        # Two products in a row, so that the large middle matrix need not leave the precision.
        return _openvino_seconds(engine, rows, shapes), 2 * flop, f"OpenVINO {engine.precision} products {size}"
    left = np.random.default_rng(0).standard_normal((rows, shapes.hidden), dtype=np.float32)
    right = np.random.default_rng(1).standard_normal((shapes.hidden, shapes.inner), dtype=np.float32)
    return _seconds(lambda: left @ right), flop, f"numpy fp32 product {size}"


def _seconds(run: Any) -> float:
    run()
    taken = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        run()
        taken.append(time.perf_counter() - began)
    return min(taken)  # a ceiling: the best that was seen, not what a busy moment left


def _torch_seconds(engine: Engine, rows: int, shapes: Shapes) -> float:
    torch: Any = sys.modules["torch"]  # the engine has imported it
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[engine.precision]
    left = torch.randn(rows, shapes.hidden, dtype=kind, device=engine.device)
    right = torch.randn(shapes.hidden, shapes.inner, dtype=kind, device=engine.device)
    out = torch.empty(rows, shapes.inner, dtype=kind, device=engine.device)

    def run() -> None:
        with torch.inference_mode():
            torch.matmul(left, right, out=out)
        if engine.device != "cpu":
            getattr(torch, engine.device.split(":")[0]).synchronize()

    return _seconds(run)


def _openvino_seconds(engine: Engine, rows: int, shapes: Shapes) -> float:
    from vaultvec.cores import usable_cores
    from vaultvec.engines.openvino_runtime import CompiledModel, openvino

    ov = openvino()
    ops = ov.opset13
    source = ops.parameter([rows, shapes.hidden], np.float32, name="x")
    draw = np.random.default_rng(0)
    first = draw.standard_normal((shapes.hidden, shapes.inner), dtype=np.float32)
    second = draw.standard_normal((shapes.inner, shapes.hidden), dtype=np.float32)
    product = ops.matmul(ops.matmul(source, ops.constant(first), False, False), ops.constant(second), False, False)
    compiled = CompiledModel(
        ov.Model([product], [source], "product"), streams=1, threads=usable_cores(), precision=engine.precision
    )
    inputs = {next(iter(compiled.input_types)): draw.standard_normal((rows, shapes.hidden), dtype=np.float32)}
    return _seconds(lambda: compiled.infer(inputs))
