"""A random BERT as a sentence-transformers folder, written without torch; and texts to try engines on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from vaultvec.models import L6, resolve, weights_path

HIDDEN, LAYERS, HEADS, INNER, LIMIT, POSITIONS, VOCABULARY = 32, 2, 2, 64, 40, 64, 30522

TEXTS = (
    "A note about bread.",
    "",
    "볶음밥은 찬밥으로 만들어야 맛있다.",
    "Gradient descent follows the slope of the loss, one small step at a time. " * 12,
    "a",
    "# Heading\n\n- one\n- two\n\n```python\nprint('x')\n```",
    "The quick brown fox jumps over the lazy dog. " * 3,
    "A note about bread.",
    "emoji 🍞 and a lone surrogate \ud83c end",
)


def write_tiny_bert(folder: Path, pooling: str = "mean", model_type: str = "bert") -> Path:
    """Write the folder and return it. The tokenizer is all-MiniLM-L6-v2's."""
    (folder / "1_Pooling").mkdir(parents=True)
    source = weights_path(resolve(L6)).parent
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copyfile(source / name, folder / name)
    architecture = {"bert": "BertModel", "roberta": "RobertaModel"}[model_type]
    config = {
        "architectures": [architecture], "model_type": model_type, "hidden_act": "gelu", "hidden_size": HIDDEN,
        "intermediate_size": INNER, "num_attention_heads": HEADS, "num_hidden_layers": LAYERS, "vocab_size": VOCABULARY,
        "max_position_embeddings": POSITIONS, "type_vocab_size": 2, "pad_token_id": 0, "layer_norm_eps": 1e-12,
    }  # fmt: skip
    _write(folder / "config.json", config)
    types = ("Transformer", "Pooling", "Normalize")
    paths = ("", "1_Pooling", "2_Normalize")
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(zip(types, paths, strict=True))
    ]
    _write(folder / "modules.json", modules)
    _write(folder / "1_Pooling" / "config.json", {
        "word_embedding_dimension": HIDDEN,
        "pooling_mode_cls_token": pooling == "cls", "pooling_mode_mean_tokens": pooling == "mean",
        "pooling_mode_max_tokens": pooling == "max", "pooling_mode_mean_sqrt_len_tokens": False,
    })  # fmt: skip
    _write(folder / "sentence_bert_config.json", {"max_seq_length": LIMIT, "do_lower_case": False})
    _write(folder / "config_sentence_transformers.json", {"prompts": {"query": "find: ", "document": ""}})
    save_file(_weights(), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def _weights() -> dict[str, np.ndarray]:
    """Large random weights: with the usual small ones every text would have nearly the same vector."""
    random = np.random.default_rng(7)

    def matrix(*shape: int) -> np.ndarray:
        return random.normal(0, 0.3, shape).astype(np.float32)

    tensors = {
        "embeddings.word_embeddings.weight": matrix(VOCABULARY, HIDDEN),
        "embeddings.position_embeddings.weight": matrix(POSITIONS, HIDDEN),
        "embeddings.token_type_embeddings.weight": matrix(2, HIDDEN),
    }
    dense = {"attention.self.query": (HIDDEN, HIDDEN), "attention.self.key": (HIDDEN, HIDDEN),
             "attention.self.value": (HIDDEN, HIDDEN), "attention.output.dense": (HIDDEN, HIDDEN),
             "intermediate.dense": (INNER, HIDDEN), "output.dense": (HIDDEN, INNER)}  # fmt: skip
    norms = ["embeddings.LayerNorm"]
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}."
        for name, shape in dense.items():
            tensors[f"{at}{name}.weight"] = matrix(*shape)
            tensors[f"{at}{name}.bias"] = matrix(shape[0])
        norms += [at + "attention.output.LayerNorm", at + "output.LayerNorm"]
    for name in norms:
        tensors[name + ".weight"] = 1 + matrix(HIDDEN)
        tensors[name + ".bias"] = matrix(HIDDEN)
    return tensors
