"""The OpenVINO graph of a BERT or RoBERTa sentence encoder over packed tokens, built straight from its safetensors file.

It spares a first run the 13 s that importing torch, transformers and sentence-transformers takes. The architecture is
that of Devlin et al. 2019 (arXiv:1810.04805), post-norm; pooling is Reimers & Gurevych 2019 (arXiv:1908.10084). Padding
meets attention alone; see packing.py.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaultvec.engines.openvino_runtime import openvino

MODEL_TYPES = ("bert", "roberta", "xlm-roberta")


@dataclass(frozen=True, slots=True)
class BertShape:
    """What the graph needs of config.json."""

    model_type: str
    layers: int
    heads: int
    hidden: int
    epsilon: float
    pad_id: int
    position_rows: int

    @property
    def first_position(self) -> int:
        """Row of the position table that the first token uses: RoBERTa keeps those up to its padding id to itself."""
        return 0 if self.model_type == "bert" else self.pad_id + 1

    @property
    def positions(self) -> int:
        """Tokens that the position table has rows for."""
        return self.position_rows - self.first_position

    @staticmethod
    def read(config: dict[str, Any]) -> BertShape | None:
        """None for a variant that this module does not build."""
        plain = (
            config.get("model_type") in MODEL_TYPES
            and config.get("hidden_act") == "gelu"
            and config.get("position_embedding_type", "absolute") == "absolute"
            and not config.get("is_decoder", False)
        )
        if not plain:
            return None
        pad_id = config.get("pad_token_id")
        return BertShape(
            config["model_type"], config["num_hidden_layers"], config["num_attention_heads"], config["hidden_size"],
            config.get("layer_norm_eps", 1e-12), default_pad_id(config["model_type"]) if pad_id is None else pad_id,
            config["max_position_embeddings"],
        )  # fmt: skip


def default_pad_id(model_type: str) -> int:
    """transformers' own where config.json names none; RoBERTa counts its positions from it."""
    return 0 if model_type == "bert" else 1


def bare_name(name: str) -> str:
    """A tensor's name without the model's own prefix, in today's words: Google's own BERT files call a norm's weight
    gamma and its bias beta."""
    plain = name.removeprefix("bert.").removeprefix("roberta.")
    return plain.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


class Weights:
    """Tensors of a safetensors file by their name without the "bert." or "roberta." in front, as float32."""

    def __init__(self, path: Path) -> None:
        from safetensors.numpy import load_file

        half = any(entry["dtype"] == "BF16" for entry in tensor_header(path).values())
        raw = _read_bfloat16(path) if half else load_file(path)
        self._tensors = {bare_name(name): array for name, array in raw.items()}

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        return np.ascontiguousarray(self._tensors[name], dtype=np.float32)

    def node(self, name: str) -> Any:
        """A tensor as a constant of the graph. (Arrays handed to an operation go through Python lists: 20x slower.)"""
        return openvino().opset13.constant(self[name])


def tensor_header(path: Path) -> dict[str, dict[str, Any]]:
    """dtype, shape and data_offsets of each tensor (https://github.com/huggingface/safetensors#format)."""
    with path.open("rb") as file:
        header: dict[str, dict[str, Any]] = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    header.pop("__metadata__", None)
    return header


def _read_bfloat16(path: Path) -> dict[str, NDArray[Any]]:
    """The tensors of a file with bfloat16, which numpy has not: it is the upper half of a float32."""
    kinds = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}  # others are tables of indices, not weights
    tensors: dict[str, NDArray[Any]] = {}
    with path.open("rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        for name, entry in tensor_header(path).items():
            if entry["dtype"] not in kinds:
                continue
            first, last = entry["data_offsets"]
            file.seek(start + first)
            array = np.frombuffer(file.read(last - first), dtype=kinds[entry["dtype"]]).reshape(entry["shape"])
            tensors[name] = (array.astype("<u4") << 16).view("<f4") if entry["dtype"] == "BF16" else array
    return tensors


def build_bert(shape: BertShape, weights: Weights, pooling: str) -> Any:
    """openvino.Model: what `packing.packed_inputs` makes → unit rows (n, hidden) fp32; `pooling`: mean or cls."""
    ov = openvino()
    ops = ov.opset13
    sizes = {"input_ids": [-1], "position_ids": [-1], "attention_mask": [-1, -1], "slots": [-1, -1], "places": [-1]}
    inputs = {name: ops.parameter(ov.PartialShape(size), ov.Type.i32, name=name) for name, size in sizes.items()}
    for name, node in inputs.items():
        node.output(0).set_names({name})
    real = ops.convert(inputs["attention_mask"], "f32")  # (n, t), 1 for a token, 0 for padding
    bias = ops.multiply(ops.subtract(real, np.float32(1)), np.float32(1e9))  # 0 for a token, -1e9 for padding
    bias = ops.unsqueeze(bias, np.array([1, 2]))  # (n, 1, 1, t)
    layout = Layout(inputs["slots"], inputs["places"], bias)
    x = _embed(ops, shape, weights, inputs["input_ids"], inputs["position_ids"])  # (m, hidden)
    for layer in range(shape.layers):
        x = _layer(ops, shape, weights, f"encoder.layer.{layer}.", x, layout)
    tokens = _rows(ops, x, layout.slots)  # (n, t, hidden)
    pooled = first_token(ops, tokens, real) if pooling == "cls" else mean_pool(ops, tokens, real)
    return unit_rows(ov, pooled, list(inputs.values()))


class Layout(NamedTuple):
    """Where attention finds the n texts, of at most t tokens, among the m tokens of a batch."""

    slots: Any  # (n, t): a token's row
    places: Any  # (m,): a row's token
    bias: Any  # (n, 1, 1, t)


def first_token(ops: Any, tokens: Any, real: Any) -> Any:
    """(n, t, h) and (n, t) → (n, h); zeros for a text without any, whose slots are another text's."""
    at, axis = np.int64(0), np.int64(1)
    return ops.multiply(ops.gather(tokens, at, axis), ops.unsqueeze(ops.gather(real, at, axis), axis))


def mean_pool(ops: Any, tokens: Any, real: Any) -> Any:
    """(n, t, h) and (n, t) → (n, h): the mean over real tokens."""
    weighted = ops.squeeze(ops.matmul(ops.unsqueeze(real, np.int64(1)), tokens, False, False), np.int64(1))
    count = ops.reduce_sum(real, np.int64(1), keep_dims=True)
    return ops.divide(weighted, ops.maximum(count, np.float32(1e-9)))


def unit_rows(ov: Any, vectors: Any, parameters: list[Any]) -> Any:
    """The model that ends in `vectors` (n, h), brought to unit length."""
    normed = ov.opset13.normalize_l2(vectors, np.array([1]), 1e-12, "max")
    normed.output(0).set_names({"embeddings"})
    return ov.Model([ov.opset13.result(normed)], parameters, "sentence-encoder")


def _embed(ops: Any, shape: BertShape, weights: Weights, ids: Any, positions: Any) -> Any:
    # Every token is of type 0, so its row joins the position table once and for all.
    table = weights["embeddings.position_embeddings.weight"] + weights["embeddings.token_type_embeddings.weight"][0]
    words = _rows(ops, weights.node("embeddings.word_embeddings.weight"), ids)
    return _norm(
        ops, shape, weights, "embeddings.LayerNorm.", ops.add(words, _rows(ops, ops.constant(table), positions))
    )


def _layer(ops: Any, shape: BertShape, weights: Weights, at: str, x: Any, layout: Layout) -> Any:
    query, key, value = (
        _heads(ops, shape, _rows(ops, _linear(ops, weights, f"{at}attention.self.{part}.", x), layout.slots))
        for part in ("query", "key", "value")
    )
    context = ops.scaled_dot_product_attention(query, key, value, layout.bias)  # (n, heads, t, d)
    context = ops.transpose(context, np.array([0, 2, 1, 3]))
    context = ops.reshape(context, np.array([-1, shape.hidden]), False)  # (n * t, hidden)
    context = _rows(ops, context, layout.places)  # (m, hidden)
    x = ops.add(_linear(ops, weights, at + "attention.output.dense.", context), x)
    x = _norm(ops, shape, weights, at + "attention.output.LayerNorm.", x)
    inner = ops.gelu(_linear(ops, weights, at + "intermediate.dense.", x), "erf")
    inner = ops.add(_linear(ops, weights, at + "output.dense.", inner), x)
    return _norm(ops, shape, weights, at + "output.LayerNorm.", inner)


def _rows(ops: Any, table: Any, indices: Any) -> Any:
    return ops.gather(table, indices, np.int64(0))


def _linear(ops: Any, weights: Weights, at: str, x: Any) -> Any:
    return ops.add(ops.matmul(x, weights.node(at + "weight"), False, True), weights.node(at + "bias"))


def _heads(ops: Any, shape: BertShape, x: Any) -> Any:
    """(n, t, hidden) → (n, heads, t, d)."""
    split = ops.reshape(x, np.array([0, 0, shape.heads, shape.hidden // shape.heads]), True)
    return ops.transpose(split, np.array([0, 2, 1, 3]))


def _norm(ops: Any, shape: BertShape, weights: Weights, at: str, x: Any) -> Any:
    x = ops.mvn(x, ops.constant(np.array([-1])), True, shape.epsilon, "inside_sqrt")
    return ops.add(ops.multiply(x, weights.node(at + "weight")), weights.node(at + "bias"))
