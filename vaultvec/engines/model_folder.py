"""The folder of a model on this machine: which of its files decide a vector, and what names their content."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from vaultvec.engines.recipe import read_json
from vaultvec.errors import ModelError
from vaultvec.models import FOLDER, ModelSpec, file_digest, weights_path

WEIGHT_FILES = ("*.safetensors", "*.bin")
FACT_FILES = ("*.json", "*.txt", "*.model", "*.spm")  # a folder's pooling, limits, prompts and vocabulary
# Of those, what decides a vector; a README, a log or the state of a training does not.
DECIDING_FILES = (
    *("*config*.json", "modules.json", "tokenizer.json", "vocab.*", "merges.txt", "added_tokens.json"),
    *("special_tokens_map.json", "*.model", "*.spm"),
)
TRAINING_FILES = ("training_args.bin", "optimizer.bin", "scheduler.bin")


def local_folder(model: ModelSpec) -> Path | None:
    """The folder of a model that is on this machine, bundled or the user's own; None for a name of a hub. Raises ModelError
    for a path that leads to no folder."""
    if model.package:
        return weights_path(model).parent
    folder = Path(os.path.expanduser(model.name))  # Path.expanduser raises where there is no such user
    if folder.is_dir():
        return folder
    if folder.is_absolute() or model.name.startswith((".", "~")) or "\\" in model.name:  # no hub has such names
        raise ModelError(f"{model.name}: there is no such folder; mend EMBEDDING_MODEL in config.py")
    return None


def folder_revision(folder: Path) -> str:
    """FOLDER and a digest over all that decides a vector: weights, tokenizer and configs, of the modules too.

    Other forms of the model (onnx/, openvino/) and checkpoints lie in folders that are no module's.
    """
    listed = read_json(folder / "modules.json") or []
    places = {folder, *(folder / str(module.get("path", "")) for module in listed)}
    patterns = (*WEIGHT_FILES, *DECIDING_FILES)
    found = {path for place in places for pattern in patterns for path in place.glob(pattern) if path.is_file()}
    files = sorted(path for path in found if path.name not in TRAINING_FILES)
    total = hashlib.sha256()
    for path in files:
        total.update(f"{path.relative_to(folder).as_posix()}\x1f{file_digest(path)}\x1f".encode())
    return FOLDER + total.hexdigest()


def folder_state(folder: Path) -> list[str]:
    """Size and time of every file that a prepared model depends on: quick to read, and others when one was changed."""
    # Of all the modules: a Dense layer keeps its weights in a folder below.
    files = sorted({path for pattern in (*WEIGHT_FILES, *FACT_FILES) for path in folder.rglob(pattern)})
    return [f"{path.relative_to(folder)} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files]
