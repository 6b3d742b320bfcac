"""What a sentence-transformers folder says of itself, and whether bert_graph can build it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaultvec.engines.bert_graph import BertShape

# The names by which sentence-transformers looks for a Transformer module's settings, in its order.
SENTENCE_CONFIGS = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
# What it writes there of a plain encoder; anything else (lower case, a length for documents, arguments) is not plain.
PLAIN: dict[str, Any] = {
    "transformer_task": "feature-extraction",
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "module_output_name": "token_embeddings",
}


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
        sentence: dict[str, Any] = next(filter(None, (read_json(folder / name) for name in SENTENCE_CONFIGS)), {})
        prompts = read_json(folder / "config_sentence_transformers.json").get("prompts") or {}
        tokenizer = read_json(folder / "tokenizer_config.json")
        limit = int(sentence.get("max_seq_length") or tokenizer["model_max_length"])
        kept = _kept_by_transformers(read_json(folder / "tokenizer.json"), tokenizer, shape)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    plain = kinds in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"])
    if shape is None or not plain or pooling not in ("mean", "cls"):
        return None
    if any(PLAIN.get(key) != value for key, value in sentence.items() if value and key != "max_seq_length"):
        return None
    if not kept or pooler.get("include_prompt") is False:  # convert.py knows better
        return None
    return Recipe(shape, pooling, min(limit, shape.positions), prompts)


def _kept_by_transformers(tokenizer: dict[str, Any], config: dict[str, Any], shape: BertShape | None) -> bool:
    """Whether transformers tokenises by tokenizer.json as it is written.

    Of a class that it knows it takes the vocabulary alone, and makes the steps before it anew from tokenizer_config.json
    (its TokenizersBackend.convert_to_native_format). Of those, the two that most BERTs have are compared here.
    """
    usual = "BertTokenizer" if shape and shape.model_type == "bert" else ""
    name = str(config.get("tokenizer_class") or usual).removesuffix("Fast")
    model, before = tokenizer["model"], tokenizer.get("pre_tokenizer") or {}
    if config.get("truncation_side") == "left":
        return False
    if name in ("PreTrainedTokenizer", "TokenizersBackend"):
        return True
    if name == "BertTokenizer":
        return (
            tokenizer.get("normalizer")
            == {
                "type": "BertNormalizer",
                "clean_text": True,
                "handle_chinese_chars": config.get("tokenize_chinese_chars", True),
                "strip_accents": config.get("strip_accents"),
                "lowercase": config.get("do_lower_case", True),
            }
            and before.get("type") == "BertPreTokenizer"
            and (model.get("continuing_subword_prefix"), model.get("max_input_chars_per_word")) == ("##", 100)
        )
    if name == "XLMRobertaTokenizer":
        kinds = [step.get("type") for step in before.get("pretokenizers", ())]
        scheme = [step.get("prepend_scheme", "always") for step in before.get("pretokenizers", ())][1:]
        return (
            (tokenizer.get("normalizer") or {"type": "Precompiled"}).get("type") == "Precompiled"
            and (kinds, scheme) == (["WhitespaceSplit", "Metaspace"], ["always"])
            and config.get("add_prefix_space", True) is True
            and (model.get("unk_id"), model.get("byte_fallback", False)) == (3, False)
        )
    return False


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
