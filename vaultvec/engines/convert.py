"""Any sentence-transformers model, and ONNX files, as one OpenVINO graph from token ids to unit rows.

`python -m vaultvec.engines.convert` reads one JSON request on stdin and fills a folder (prepare.py starts it); a model
that cannot be had gives "ModelError: …" on stdout and exit code 1.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from vaultvec.engines.bert_graph import mean_pool, unit_rows
from vaultvec.engines.openvino_runtime import openvino, save_model
from vaultvec.engines.prepare import check_vocabulary, complete, folder_revision, local_folder, spec_from, write_facts
from vaultvec.engines.reference import load_reference
from vaultvec.errors import ModelError
from vaultvec.models import ModelSpec


def sentence_graph_of_onnx(path: Path) -> Any:
    """openvino.Model of an ONNX encoder: its sentence output if it has one, else its token output, mean-pooled."""
    ov = openvino()
    model = ov.Core().read_model(str(path))
    inputs = {port.get_any_name(): port for port in model.inputs}
    if "input_ids" not in inputs or "attention_mask" not in inputs:
        raise ModelError(f"{path.name} takes {', '.join(inputs)}, expected input_ids and attention_mask")
    floats = [port.get_node().input_value(0) for port in model.outputs if port.get_element_type() == ov.Type.f32]
    by_rank = {port.get_partial_shape().rank.get_length(): port for port in floats}
    if 2 in by_rank:
        rows = by_rank[2]
    elif 3 in by_rank:
        real = ov.opset13.convert(inputs["attention_mask"].get_node(), "f32")
        rows = mean_pool(ov.opset13, by_rank[3], real)
    else:
        raise ModelError(f"{path.name} gives neither token nor sentence embeddings; choose another model")
    return unit_rows(ov, rows, model.get_parameters())


def write_model(model: ModelSpec, target: Path, graph: bool) -> None:
    """Load a model by sentence-transformers; write tokenizer.json, prepared.json and, if asked, the graph."""
    loaded = load_reference(model)
    _write_tokenizer(model, loaded, target)
    check_vocabulary(model, target / "tokenizer.json", _embedding_rows(loaded))
    dim = int(loaded.get_embedding_dimension())
    limit = _token_limit(model, loaded)
    prompts = {name: prompt for name, prompt in (loaded.prompts or {}).items() if isinstance(prompt, str)}
    spec = complete(model, dim, limit, _pooling(loaded), prompts)
    _check_prompt(spec, loaded)
    pad_id = getattr(loaded.tokenizer, "pad_token_id", 0) or 0
    write_facts(target, spec.with_revision(_revision(model, loaded)), pad_id)
    if graph:
        (target / "openvino").mkdir()
        save_model(_trace(loaded), target / "openvino" / "model.xml")
        (target / "openvino" / "checks.json").write_text("{}", encoding="utf-8")


def _write_tokenizer(model: ModelSpec, loaded: Any, target: Path) -> None:
    backend = getattr(loaded.tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ModelError(f"{model.name} has no fast tokenizer (tokenizer.json); choose another model")
    if getattr(loaded[0], "do_lower_case", False):
        from tokenizers.normalizers import Lowercase, Sequence

        backend.normalizer = Sequence([Lowercase(), *([backend.normalizer] if backend.normalizer else [])])
    backend.no_truncation()
    if loaded.tokenizer.truncation_side == "left":  # the side is kept, the length is the engine's
        backend.enable_truncation(512, direction="left")
    backend.save(str(target / "tokenizer.json"))


def _embedding_rows(loaded: Any) -> int:
    """Tokens that the model has embeddings for, 0 where its class does not tell."""
    try:
        return int(loaded[0].auto_model.get_input_embeddings().weight.shape[0])
    except (AttributeError, NotImplementedError, TypeError):
        return 0


def _check_prompt(spec: ModelSpec, loaded: Any) -> None:
    """Raises ModelError for a pooling that leaves a prompt's tokens out: to the engines they are tokens like others."""
    prompted = spec.query_prefix or spec.document_prefix
    if prompted and not all(getattr(module, "include_prompt", True) for module in loaded):
        raise ModelError(
            f"{spec.name} pools without the tokens of its prompts (include_prompt is false), which no engine here does; "
            "choose another model"
        )


def _token_limit(model: ModelSpec, loaded: Any) -> int:
    """The model's own limit, or its position table's where it names none (a tokenizer's "no limit" is 1e30)."""
    backbone = loaded[0].auto_model
    positions = int(getattr(backbone.config, "max_position_embeddings", 0) or 512)
    table = getattr(getattr(backbone, "embeddings", None), "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    if padding is not None:  # RoBERTa and its kin: a text's positions begin after the padding's
        positions -= padding + 1
    limit = int(min(loaded.max_seq_length or positions, 1_000_000))
    return model.max_tokens or min(limit, positions)


def _pooling(loaded: Any) -> str:
    """All that stands between tokens and vector, as a name: it is part of the fingerprint."""
    modes = [str(getattr(module, "pooling_mode", "")) for module in loaded if hasattr(module, "pooling_mode")]
    extra = [type(module).__name__.lower() for module in loaded if type(module).__name__ in ("Dense", "LayerNorm")]
    return "+".join([*modes, *extra]) or "model"


def _revision(model: ModelSpec, loaded: Any) -> str:
    """Commit of the hub, or the digest of a folder's content."""
    folder = local_folder(model)
    if folder is not None:
        return folder_revision(folder)
    commit = getattr(loaded[0].auto_model.config, "_commit_hash", None) or _cached_commit(model.name)
    return str(commit or "unknown")


def _cached_commit(name: str) -> str | None:
    """The commit that lies in the hub's cache: transformers 5.23 no longer tells which one it loaded."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json")
    return Path(found).parent.name if isinstance(found, str) else None


def _trace(loaded: Any) -> Any:
    """openvino.Model of all the modules: input_ids, attention_mask (n, t) int64 → unit rows (n, dim)."""
    import torch

    class Sentence(torch.nn.Module):
        """token ids and mask → unit rows, without the dictionary that sentence-transformers passes around."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = loaded

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            features = {"input_ids": input_ids, "attention_mask": attention_mask}
            if "token_type_ids" in loaded.tokenizer.model_input_names:
                features["token_type_ids"] = torch.zeros_like(input_ids)
            rows = self.inner(features)["sentence_embedding"]
            return torch.nn.functional.normalize(rows.float(), dim=1)

    ov = openvino()
    ids = torch.from_numpy(np.full((2, 8), loaded.tokenizer.unk_token_id or 1, dtype=np.int64))
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0  # a mask of ones alone would be traced away
    example = {"input_ids": ids, "attention_mask": mask}
    with torch.inference_mode():
        model = ov.convert_model(Sentence().float().eval(), example_input=example)
    for port in model.inputs:
        port.get_node().set_partial_shape(ov.PartialShape([-1, -1]))
    model.validate_nodes_and_infer_types()
    return model


def main() -> int:
    """One request on stdin; 0 done, 1 the model cannot be had."""
    request = json.loads(sys.stdin.read())
    try:
        write_model(spec_from(request["spec"]), Path(request["target"]), bool(request["graph"]))
    except ModelError as error:
        print(f"ModelError: {error}")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
