"""The model's folder for gpu_bench.py: with fp16 weights where it must travel, in fp32 again where it is measured."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

WEIGHTS = "model.safetensors"


def halve_weights(folder: Path, target: Path) -> None:
    """Copy a model's folder, its fp32 tensors as fp16."""
    _copy(folder, target, np.float32, np.float16)


def expand_weights(folder: Path) -> Path | None:
    """A temporary copy in fp32 of a folder with fp16 weights, None where they are fp32 already.

    transformers loads weights in the precision they are stored in: the fp32 baselines would run in fp16 unnoticed.
    """
    if not any(tensor.dtype == np.float16 for tensor in load_file(folder / WEIGHTS).values()):
        return None
    target = Path(tempfile.mkdtemp(prefix="gpu-bench-")) / folder.name
    _copy(folder, target, np.float16, np.float32)
    return target


def _copy(folder: Path, target: Path, old: type[np.floating], new: type[np.floating]) -> None:
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns(WEIGHTS, "*.bin", "onnx", "openvino", "__pycache__"))
    tensors = load_file(folder / WEIGHTS)
    changed = {name: tensor.astype(new) if tensor.dtype == old else tensor for name, tensor in tensors.items()}
    save_file(changed, target / WEIGHTS, metadata={"format": "pt"})
    config = target / "config.json"
    if config.is_file():
        text = config.read_text(encoding="utf-8")
        names = {np.float16: "float16", np.float32: "float32"}
        config.write_text(text.replace(f'"{names[old]}"', f'"{names[new]}"'), encoding="utf-8")
