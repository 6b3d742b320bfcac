"""Any sentence-transformers model, and ONNX files, as one OpenVINO graph from token ids to unit rows.

`python -m vaultvec.engines.convert` reads one JSON request on stdin and fills a folder (prepare.py starts it); a model
that cannot be had gives "ModelError: …" on stdout and exit code 1.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vaultvec.cores import usable_cores
from vaultvec.datatypes import TokenIds, Vectors
from vaultvec.engines.bert_graph import mean_pool, unit_rows
from vaultvec.engines.calibration import calibration_texts
from vaultvec.engines.model_folder import folder_revision, local_folder
from vaultvec.engines.openvino_runtime import CompiledModel, openvino, save_model
from vaultvec.engines.padding import padded_inputs
from vaultvec.engines.prepare import check_vocabulary, complete, spec_from, write_facts
from vaultvec.engines.reference import load_reference
from vaultvec.engines.tokenizer import HfTokenizer
from vaultvec.errors import ModelError
from vaultvec.models import ModelSpec

CHECK_TEXTS = 6
LONG_CHECK_TOKENS = 512  # of one text more, which is cut at the limit or here: a large model needs seconds for it
LOWEST_COSINE = 0.999
MASKED = np.float32(-3e4)  # no token's share beside any other's, and finite in fp16 too


def sentence_graph_of_onnx(path: Path) -> Any:
    """openvino.Model of an ONNX encoder: its sentence output if it has one, else its token output, mean-pooled.

    input_ids, attention_mask (n, t) → unit rows (n, dim). Raises ModelError for a graph with other inputs or without such outputs.
    """
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
    rows, expected = _checked_rows(model, loaded, HfTokenizer(target / "tokenizer.json"), spec.max_tokens)
    if graph:
        path = target / "openvino" / "model.xml"
        path.parent.mkdir()
        save_model(_traced(model, loaded), path)
        _check_graph(model, path, [padded_inputs(batch, pad_id) for batch in (rows[:-1], rows[-1:])], expected())
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


def _checked_rows(
    model: ModelSpec, loaded: Any, tokenizer: HfTokenizer, max_tokens: int
) -> tuple[list[TokenIds], Callable[[], Vectors]]:
    """Token ids of some texts, and what makes sentence-transformers' vectors of them.

    Raises ModelError when the tokenizer that was written does not give the ids that transformers gives.
    """
    texts = calibration_texts(CHECK_TEXTS)
    limit = min(max_tokens, LONG_CHECK_TOKENS)
    texts.append("\n".join(texts) * (1 + limit // 64))
    rows = tokenizer.encode(texts, limit)
    theirs = loaded.tokenizer(texts, truncation=True, max_length=limit)["input_ids"]
    if any(row.tolist() != list(other) for row, other in zip(rows, theirs, strict=True)):
        raise ModelError(
            f"{model.name} has a tokenizer that tokenizer.json alone does not describe; choose another model"
        )

    def expected() -> Vectors:
        loaded.max_seq_length = limit
        # Alone: beside a longer text, a model that pads on the left moves the positions of a shorter one.
        options = {"prompt": "", "batch_size": 1, "normalize_embeddings": True, "show_progress_bar": False}
        vectors: Vectors = loaded.encode(texts, **options)
        return vectors

    return rows, expected


def _check_graph(model: ModelSpec, path: Path, batches: list[dict[str, TokenIds]], expected: Vectors) -> None:
    """Raises ModelError when the graph gives other vectors than the model: it was traced on one example, and whatever
    that one decided (a length, a mask, a table of positions) stands in it for ever."""
    compiled = CompiledModel(path, streams=1, threads=usable_cores())
    vectors = np.concatenate([compiled.infer(batch) for batch in batches])
    lowest = float(np.nan_to_num(np.sum(vectors * expected, axis=1), nan=-1.0).min())
    if lowest < LOWEST_COSINE:
        raise ModelError(
            f"{model.name} gives other vectors in OpenVINO than in sentence-transformers (lowest cosine {lowest:.4f}); "
            "set ENGINE to torch in config.py"
        )


def _traced(model: ModelSpec, loaded: Any) -> Any:
    try:
        return _trace(loaded)
    except Exception as error:  # of torch's tracer, of a layer's own code, of OpenVINO: each has its own class
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(
            f"{model.name} cannot be made a graph for OpenVINO ({reason[0][:160].rstrip('.')}); "
            "set ENGINE to torch in config.py"
        ) from error


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
    positions = int(getattr(backbone.config, "max_position_embeddings", 0) or 0)
    positions = positions if positions > 0 else 512  # XLNet says -1
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
        port.set_names(port.names & set(example))  # BART's ids have a second name
    _keep_finite(model)
    model.validate_nodes_and_infer_types()
    return model


def _keep_finite(graph: Any) -> None:
    """Make masks that say "nowhere" to a token say "hardly" instead.

    With sliding windows (ModernBERT, Mistral) a padding token far behind its text sees padding alone. torch gives zeros
    for it, OpenVINO NaN, which pooling carries into the vector: 0 times NaN is NaN.
    """
    ov = openvino()
    ops = ov.opset13
    finite: dict[tuple[str, int], Any] = {}
    for node in graph.get_ops():
        if node.get_type_name() != "ScaledDotProductAttention" or node.get_input_size() < 4:
            continue
        mask = node.input_value(3)
        key = (mask.get_node().get_name(), mask.get_index())
        if key not in finite:
            boolean = mask.get_element_type() == ov.Type.boolean
            finite[key] = (
                ops.select(mask, np.float32(0), MASKED)
                if boolean
                else ops.maximum(mask, ops.convert_like(MASKED, mask))
            )
        node.input(3).replace_source_output(finite[key].output(0))


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
