"""A model made ready once: its tokenizer, its facts and, for OpenVINO, its graph, kept in a folder of the data folder.

    models_dir/<slug>-<digest>/     tokenizer.json, prepared.json
                     └── openvino/  model.xml, model.bin, checks.json, cache/

Each of the two folders is there whole or not at all (build_once.py). Bundled models and plain BERT folders are read directly; all
others go through sentence-transformers, in a process of their own that takes its gigabytes with it when it ends.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from vaultvec.datatypes import TokenIds
from vaultvec.engines.base import Notify
from vaultvec.engines.bert_graph import Weights, build_bert, tensor_header
from vaultvec.engines.build_once import build_once
from vaultvec.engines.model_folder import folder_revision, folder_state, local_folder
from vaultvec.engines.packing import packed_inputs
from vaultvec.engines.padding import padded_inputs
from vaultvec.engines.recipe import Recipe, read_recipe
from vaultvec.engines.server_models import with_prefixes
from vaultvec.errors import ModelError
from vaultvec.models import L6, ModelSpec, resolve, verify_weights, weights_path

FORMAT = 4  # raised when prepared folders of an earlier version can no longer be used


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prepared model. `graph` is there only after `prepare_graph`."""

    folder: Path
    spec: ModelSpec  # dim, max_tokens and revision filled in
    pad_id: int
    first_position: int | None = None  # of a packed graph: where positions begin; None: the graph takes padded texts

    @property
    def tokenizer(self) -> Path:
        """The model's tokenizer.json."""
        return self.folder / "tokenizer.json"

    @property
    def graph(self) -> Path:
        """OpenVINO's model.xml: `inputs` → unit rows (n, dim)."""
        return self.folder / "openvino" / "model.xml"

    def inputs(self, rows: Sequence[TokenIds]) -> dict[str, TokenIds]:
        """What the graph takes for texts of token ids."""
        if self.first_position is None:
            return padded_inputs(rows, self.pad_id)
        return packed_inputs(rows, self.pad_id, self.first_position)


def prepare_facts(model: ModelSpec, models_dir: Path, notify: Notify | None = None) -> Prepared:
    """Tokenizer and facts of a model, prepared if they are not yet. Raises ModelError when it cannot be had."""
    return _prepare(model, models_dir, notify, graph=False)


def prepare_graph(model: ModelSpec, models_dir: Path, notify: Notify | None = None) -> Prepared:
    """Tokenizer, facts and OpenVINO graph of a model. Raises ModelError when it cannot be had."""
    return _prepare(model, models_dir, notify, graph=True)


def is_prepared(model: ModelSpec, models_dir: Path) -> bool:
    """Whether `prepare_facts` has nothing to do but to read."""
    return (_folder(model, models_dir) / "prepared.json").is_file()


def _prepare(model: ModelSpec, models_dir: Path, notify: Notify | None, *, graph: bool) -> Prepared:
    folder = _folder(model, models_dir)
    ready = is_prepared(model, models_dir)
    if ready and (not graph or (folder / "openvino" / "model.xml").is_file()):
        return _read(folder)
    if notify:
        notify(f"preparing {model.name}, once")
    write = _writer(model)
    if ready:
        build_once(folder / "openvino", lambda target: _graph_only(write, target))
    else:
        build_once(folder, lambda target: write(target, graph))
        if graph and not (folder / "openvino" / "model.xml").is_file():  # another process wrote the facts alone
            build_once(folder / "openvino", lambda target: _graph_only(write, target))
        _clear_outdated(models_dir, model)
    return _read(folder)


def _clear_outdated(models_dir: Path, model: ModelSpec) -> None:
    """Remove what an earlier version prepared of the model: nothing reads it any more, and a graph has 90 MB and more."""
    for path in models_dir.glob(f"{glob.escape(model.slug)}-*/prepared.json"):
        try:
            outdated = int(json.loads(path.read_text(encoding="utf-8"))["format"]) < FORMAT
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if outdated:
            shutil.rmtree(path.parent, ignore_errors=True)


def _read(folder: Path) -> Prepared:
    path = folder / "prepared.json"
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        first = stored["first_position"]
        return Prepared(folder, spec_from(stored["spec"]), int(stored["pad_id"]), None if first is None else int(first))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} cannot be read ({error}); delete the folder {folder} and try again") from error


def _folder(model: ModelSpec, models_dir: Path) -> Path:
    """Where a model lies prepared. Its name holds what was asked for and, for a folder, the state of its files: pooling, limits
    and prompts stand in small ones."""
    parts = [str(FORMAT), repr(replace(model, remark="", size_mb=0))]
    local = local_folder(model)
    if local is not None:
        parts.append(str(local.resolve()))
        parts += folder_state(local)
    digest = hashlib.sha256("\x1f".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return models_dir / f"{model.slug}-{digest}"


def _graph_only(write: Callable[[Path, bool], None], target: Path) -> None:
    write(target, True)
    for path in (target / "openvino").iterdir():
        path.rename(target / path.name)
    (target / "openvino").rmdir()
    for name in ("tokenizer.json", "prepared.json"):
        (target / name).unlink()


def _writer(model: ModelSpec) -> Callable[[Path, bool], None]:
    """The cheapest way that can prepare the model, as a function of (folder, with the graph?)."""
    if model.kind == "onnx":
        return lambda target, graph: _write_onnx(model, target, graph)
    if model.kind != "transformer":
        raise ModelError(f"{model.name} is of kind {model.kind!r}, which needs no preparation")
    folder = local_folder(model)
    recipe = read_recipe(folder) if folder is not None else None
    if folder is not None and recipe is not None:
        return lambda target, graph: _write_bert(model, folder, recipe, target, graph)
    return lambda target, graph: _write_elsewhere(model, target, graph)


def _write_bert(model: ModelSpec, folder: Path, recipe: Recipe, target: Path, graph: bool) -> None:
    verify_weights(model)
    spec = complete(model, recipe.shape.hidden, recipe.max_tokens, recipe.pooling, recipe.prompts)
    weights = folder / "model.safetensors"
    words = [
        e["shape"][0] for n, e in tensor_header(weights).items() if n.endswith("embeddings.word_embeddings.weight")
    ]
    check_vocabulary(model, folder / "tokenizer.json", words[0] if words else 0)
    shape = recipe.shape
    write_facts(target, spec.with_revision(model.sha256 or folder_revision(folder)), shape.pad_id, shape.first_position)
    shutil.copyfile(folder / "tokenizer.json", target / "tokenizer.json")
    if graph:
        try:
            built = build_bert(shape, Weights(weights), recipe.pooling)
        except KeyError as error:
            raise ModelError(f"{weights} has no tensor {error}; get the model again") from error
        _save_graph(built, target)


def check_vocabulary(model: ModelSpec, tokenizer: Path, rows: int) -> None:
    """Raises ModelError when the tokenizer knows ids that the embedding table (`rows` long, 0 unknown) has no row for."""
    from tokenizers import Tokenizer

    highest = max(Tokenizer.from_file(str(tokenizer)).get_vocab(with_added_tokens=True).values(), default=0)
    if rows and highest >= rows:
        raise ModelError(
            f"{model.name} has a tokenizer of {highest + 1} tokens and embeddings of {rows}: they belong to different "
            "models; get the model again"
        )


def _write_onnx(model: ModelSpec, target: Path, graph: bool) -> None:
    verify_weights(model)
    write_facts(target, complete(model, model.dim, model.max_tokens, model.pooling, {}).with_revision(model.sha256), 0)
    shutil.copyfile(weights_path(resolve(L6)).parent / "tokenizer.json", target / "tokenizer.json")
    if graph:
        from vaultvec.engines.convert import sentence_graph_of_onnx

        _save_graph(sentence_graph_of_onnx(weights_path(model)), target)


def _save_graph(graph: Any, target: Path) -> None:
    from vaultvec.engines.openvino_runtime import save_model

    (target / "openvino").mkdir()
    save_model(graph, target / "openvino" / "model.xml")
    (target / "openvino" / "checks.json").write_text("{}", encoding="utf-8")


def _write_elsewhere(model: ModelSpec, target: Path, graph: bool) -> None:
    """sentence-transformers in a process of its own: it imports 1 GB of libraries and holds the weights twice."""
    request = json.dumps({"spec": asdict(model), "target": str(target), "graph": graph})
    source = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "vaultvec.engines.convert"],
        input=request, capture_output=True, text=True, encoding="utf-8", errors="replace", check=False,
        env={**os.environ, "PYTHONPATH": path, "PYTHONUTF8": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"},
    )  # fmt: skip
    if done.returncode == 0:
        return
    if done.stdout.startswith("ModelError: "):
        raise ModelError(done.stdout.removeprefix("ModelError: ").strip())
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    reason = lines[-1][:200] if lines else f"exit code {done.returncode}"
    raise ModelError(f"{model.name} could not be converted ({reason}); set ENGINE to torch, or EMBEDDING_MODEL to {L6}")


def complete(model: ModelSpec, dim: int, max_tokens: int, pooling: str, prompts: dict[str, str]) -> ModelSpec:
    """The spec with what loading told; what the catalogue's row says of limits and prefixes stands.

    Prefixes come from the catalogue, else from the model's own prompts, else from its family by its name.
    """
    loaded = replace(model, dim=dim, max_tokens=model.max_tokens or max_tokens, pooling=pooling)
    if model.query_prefix or model.document_prefix:
        return loaded
    query = prompts.get("query") or ""
    document = prompts.get("document") or prompts.get("passage") or prompts.get("corpus") or ""
    if not query and not document:  # sentence-transformers writes "" for what nobody has set
        return with_prefixes(loaded)
    return replace(loaded, query_prefix=query, document_prefix=document)


def write_facts(target: Path, spec: ModelSpec, pad_id: int, first_position: int | None = None) -> None:
    """prepared.json: the spec as it was completed, the id that pads a batch, and `Prepared.first_position`."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {}
    for package in ("openvino", "tokenizers", "sentence-transformers", "torch"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    facts = {
        "format": FORMAT, "spec": asdict(spec), "pad_id": pad_id, "first_position": first_position, "versions": versions
    }  # fmt: skip
    (target / "prepared.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False), encoding="utf-8")


def spec_from(stored: dict[str, Any]) -> ModelSpec:
    """The inverse of `asdict`, after a trip through JSON. Raises TypeError for a key that is none of a spec's."""
    values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in stored.items()}
    return ModelSpec(**values)
