"""What a sentence-transformers folder says of itself, and whether bert_graph can build it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaultvec.engines.bert_graph import BertShape


@dataclass(frozen=True, slots=True)
class Recipe:
    """A sentence-transformers folder that bert_graph can build."""

    shape: BertShape
    pooling: str
    max_tokens: int
    prompts: dict[str, str]


def read_recipe(folder: Path) -> Recipe | None:
    """None when the folder is not a plain BERT of Transformer, Pooling (mean or cls) and perhaps Normalize."""
    if not all((folder / name).is_file() for name in ("model.safetensors", "tokenizer.json", "modules.json")):
        return None
    try:
        shape = BertShape.read(read_json(folder / "config.json"))
        modules = read_json(folder / "modules.json")
        kinds = [module["type"].rsplit(".", 1)[-1] for module in modules]
        pooler = read_json(folder / modules[1]["path"] / "config.json") if len(modules) > 1 else {}
        pooling = _pooling(pooler)
        sentence = read_json(folder / "sentence_bert_config.json")
        prompts = read_json(folder / "config_sentence_transformers.json").get("prompts") or {}
        limit = int(sentence.get("max_seq_length") or read_json(folder / "tokenizer_config.json")["model_max_length"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    plain = kinds in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"])
    if shape is None or not plain or pooling not in ("mean", "cls") or sentence.get("do_lower_case"):
        return None
    if pooler.get("include_prompt") is False:  # convert.py knows whether it matters
        return None
    return Recipe(shape, pooling, min(limit, shape.positions), prompts)


def _pooling(config: dict[str, Any]) -> str:
    """Both spellings of a pooling: the mode by name, or one flag a mode."""
    if isinstance(config.get("pooling_mode"), str):
        return str(config["pooling_mode"])
    flags = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    names = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
    return names.get(flags[0], "") if len(flags) == 1 else ""


def read_json(path: Path) -> Any:
    """The JSON in a file, {} when there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
