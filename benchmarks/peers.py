"""The embedders we are compared with, all from the same weights, all offline."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from vaultvec.datatypes import Vectors
from vaultvec.measure.rounds import Way
from vaultvec.models import ModelSpec

ONNX_NAME = "benchmark/same-weights"
TOKENIZER_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


def sentence_transformers_way(reference: Any) -> Way:
    """`encode` as it comes: batches of 32, sorted by characters."""

    def run(texts: Sequence[str]) -> Vectors:
        return np.asarray(
            # No prompt: the texts are as ours get them, and a model's default prompt would be work that ours does not do.
            reference.encode(list(texts), prompt="", normalize_embeddings=True, show_progress_bar=False),
            dtype=np.float32,
        )

    return Way("sentence_transformers", "sentence-transformers `encode`, its defaults", run)


def fastembed_ways(reference: Any, weights: Path, spec: ModelSpec, folder: Path) -> list[Way]:
    """fastembed at its default batch and at 32, on an ONNX of the same weights. `folder` keeps the ONNX."""
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    if not (folder / "model.onnx").is_file():
        export_onnx(reference, weights, spec, folder)
    TextEmbedding.add_custom_model(
        model=ONNX_NAME, pooling=PoolingType.MEAN, normalization=True, sources=ModelSource(hf=ONNX_NAME),
        dim=spec.dim, model_file="model.onnx",
    )  # fmt: skip
    model = TextEmbedding(ONNX_NAME, specific_model_path=str(folder))

    def call(batch: int) -> Callable[[Sequence[str]], Vectors]:
        return lambda texts: np.stack(list(model.embed(list(texts), batch_size=batch))).astype(np.float32)

    return [
        Way("fastembed_256", "fastembed, its default batch of 256", call(256)),
        Way("fastembed_32", "fastembed, batches of 32", call(32)),
    ]


def export_onnx(reference: Any, weights: Path, spec: ModelSpec, folder: Path) -> None:
    """The transformer without pooling, as fastembed wants it, with its tokenizer cut at the model's limit."""
    import torch

    class Hidden(torch.nn.Module):
        def __init__(self, model: Any) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
            return self.model(
                input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
            ).last_hidden_state

    folder.mkdir(parents=True, exist_ok=True)
    names = ("input_ids", "attention_mask", "token_type_ids")
    example = tuple(torch.ones(2, 16, dtype=torch.int64) for _ in names)
    axes = {name: {0: "batch", 1: "tokens"} for name in (*names, "last_hidden_state")}
    with redirect_stdout(sys.stderr), torch.inference_mode():
        torch.onnx.export(
            Hidden(reference[0].auto_model.eval()), example, str(folder / "model.onnx"), input_names=list(names),
            output_names=["last_hidden_state"], dynamic_axes=axes, opset_version=17, dynamo=False,
        )  # fmt: skip
    for name in TOKENIZER_FILES:
        if (weights / name).is_file():
            shutil.copy(weights / name, folder / name)
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings["model_max_length"] = settings["max_length"] = spec.max_tokens
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def model2vec_way(weights: Path) -> Way:
    """The static extreme: one vector a token, distilled from the same model; made here, not timed."""
    from model2vec.distill import distill_from_model
    from transformers import AutoModel, AutoTokenizer

    with redirect_stdout(sys.stderr):
        static = distill_from_model(
            model=AutoModel.from_pretrained(str(weights)), tokenizer=AutoTokenizer.from_pretrained(str(weights))
        )

    def run(texts: Sequence[str]) -> Vectors:
        rows = np.asarray(static.encode(list(texts), show_progress_bar=False), dtype=np.float32)
        unit: Vectors = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
        return unit

    return Way("model2vec", f"model2vec distilled from the same model, {static.dim} dimensions", run)
