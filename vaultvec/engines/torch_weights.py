"""A model's weights as the packed forward wants them: from a folder, or from a loaded SentenceTransformer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaultvec.engines.bert_graph import bare_name, default_pad_id
from vaultvec.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

_ROBERTA = ("roberta", "xlm-roberta", "camembert")  # their positions begin after the id of the padding token
_ACTIVATIONS = {"gelu": "none", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}  # GELU's `approximate`
_POOLINGS = ("mean", "cls")
# What transformers takes where config.json is silent: BERT's and RoBERTa's base size.
_DEFAULTS: dict[str, Any] = {
    "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12,
    "hidden_act": "gelu", "layer_norm_eps": 1e-12, "max_position_embeddings": 512,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Architecture:
    """What config.json and modules.json say, as far as the forward needs it."""

    hidden: int
    inner: int
    heads: int
    layers: int
    eps: float
    gelu: str
    position_offset: int
    max_positions: int
    pooling: str


@dataclass(frozen=True)
class Weights:
    """Tensors by name, without the model's own prefix ("bert.", "roberta."), on the CPU."""

    architecture: Architecture
    state: Mapping[str, Tensor]


def read_folder(folder: Path, pooling: str) -> Weights | None:
    """The weights of a model folder, or None where the packed forward does not know the model.

    `pooling` counts where the folder has no modules.json. Raises ModelError when config.json cannot be read.
    """
    try:
        named = _read_modules(folder)
        if named == "":
            return None
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{folder} is no model folder that can be read ({error}); get the model again") from error
    architecture = _architecture(config, pooling if named is None else named)
    path = folder / "model.safetensors"
    if architecture is None or not path.is_file():
        return None
    from safetensors.torch import load_file

    return Weights(architecture, {bare_name(name): tensor for name, tensor in load_file(path).items()})


def read_loaded(reference: Any) -> Weights | None:
    """The weights of a SentenceTransformer, or None where the packed forward does not know the model."""
    modules = list(reference)
    if not _plain_modules([type(module).__name__ for module in modules]):
        return None
    backbone = modules[0].auto_model
    architecture = _architecture(backbone.config.to_dict(), getattr(modules[1], "pooling_mode", ""))
    if architecture is None:
        return None
    return Weights(architecture, {bare_name(name): tensor for name, tensor in backbone.state_dict().items()})


def _architecture(given: Mapping[str, Any], pooling: str) -> Architecture | None:
    config = _DEFAULTS | {"pad_token_id": default_pad_id(str(given.get("model_type")))}
    config |= {key: value for key, value in given.items() if value is not None}
    known = (
        config.get("model_type") in ("bert", *_ROBERTA)
        and (config.get("position_embedding_type") or "absolute") == "absolute"
        and config.get("hidden_act") in _ACTIVATIONS
        and not config.get("is_decoder")
        and pooling in _POOLINGS
    )
    if not known:
        return None
    return Architecture(
        hidden=config["hidden_size"],
        inner=config["intermediate_size"],
        heads=config["num_attention_heads"],
        layers=config["num_hidden_layers"],
        eps=config["layer_norm_eps"],
        gelu=_ACTIVATIONS[config["hidden_act"]],
        position_offset=config["pad_token_id"] + 1 if config["model_type"] in _ROBERTA else 0,
        max_positions=config["max_position_embeddings"],
        pooling=pooling,
    )


def _read_modules(folder: Path) -> str | None:
    """Pooling that modules.json names; "" for modules beyond Transformer, Pooling, Normalize; None without the file."""
    path = folder / "modules.json"
    if not path.is_file():
        return None
    modules = json.loads(path.read_text(encoding="utf-8"))
    kinds = [str(module["type"]).rsplit(".", 1)[-1] for module in modules]
    if not _plain_modules(kinds) or modules[0]["path"]:
        return ""
    config = json.loads((folder / modules[1]["path"] / "config.json").read_text(encoding="utf-8"))
    if isinstance(config.get("pooling_mode"), str):  # sentence-transformers 6
        return str(config["pooling_mode"])
    asked = [key for key, on in config.items() if key.startswith("pooling_mode_") and on is True]
    return (
        {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}.get(asked[0], "")
        if len(asked) == 1
        else ""
    )


def _plain_modules(kinds: list[str]) -> bool:
    return kinds in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"])
