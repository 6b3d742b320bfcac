"""OpenVINO: the same vectors as sentence-transformers, prepared once and never by halves, in native precision only."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_model import HIDDEN, LIMIT, TEXTS, write_tiny_bert

from vaultvec.datatypes import Vectors
from vaultvec.engines import create_engine, openvino_precision, openvino_runtime, prepare, resolve_model
from vaultvec.engines.build_once import build_once
from vaultvec.engines.convert import write_model
from vaultvec.engines.openvino_engine import OpenVinoEngine
from vaultvec.engines.openvino_int8 import write_int8
from vaultvec.engines.openvino_precision import choose_precision, native_precision
from vaultvec.engines.openvino_runtime import capabilities, check_key
from vaultvec.engines.packing import packed_inputs
from vaultvec.engines.padding import padded_inputs
from vaultvec.engines.prepare import Prepared, prepare_facts, prepare_graph
from vaultvec.engines.reference import load_reference, near_name
from vaultvec.engines.tokenizer import HfTokenizer
from vaultvec.errors import BatchTooLarge, EngineError, ModelError
from vaultvec.fitting import query_precision
from vaultvec.models import L6, ModelSpec, resolve, weights_path
from vaultvec.pipeline import index_vault
from vaultvec.session import open_searcher, query_engine
from vaultvec.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
SAFE_TEXTS = [text for text in TEXTS if "\ud83c" not in text]  # the reference takes no lone surrogates


def reference_vectors(name: str) -> Vectors:
    rows: Vectors = load_reference(resolve(name)).encode(SAFE_TEXTS, prompt="", normalize_embeddings=True)
    return rows


def lowest_cosine(a: Vectors, b: Vectors) -> float:
    return float(np.sum(a * b, axis=1).min())


# ── the vectors ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_bundled_model_agrees_with_sentence_transformers(models_dir: Path) -> None:
    engine = OpenVinoEngine(prepare_graph(resolve(L6), models_dir))
    assert lowest_cosine(engine.embed_documents(SAFE_TEXTS), reference_vectors(L6)) >= 0.99999


@pytest.mark.parametrize(("pooling", "model_type"), [("mean", "bert"), ("cls", "bert"), ("mean", "roberta")])
def test_graph_built_from_weights_agrees(tmp_path: Path, pooling: str, model_type: str) -> None:
    name = str(write_tiny_bert(tmp_path / "tiny", pooling, model_type))
    engine = OpenVinoEngine(prepare_graph(resolve(name), tmp_path / "models"))
    np.testing.assert_allclose(engine.embed_documents(SAFE_TEXTS), reference_vectors(name), atol=2e-5)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_text_without_tokens_has_no_other_texts_vector(tmp_path: Path, pooling: str) -> None:
    name = str(write_tiny_bert(tmp_path / "tiny", pooling))
    prepared = prepare_graph(resolve(name), tmp_path / "models")
    compiled = openvino_runtime.CompiledModel(prepared.graph, streams=1, threads=1)
    row = HfTokenizer(prepared.tokenizer).encode(["bread"], LIMIT)[0]
    vectors = compiled.infer(prepared.inputs([row, row[:0]]))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 0], atol=1e-6)


def test_plain_folder_goes_through_sentence_transformers(tmp_path: Path, tiny_bert: Path, models_dir: Path) -> None:
    """A Hugging Face folder without modules.json: tokens are averaged, and the vectors are those of the direct way."""
    plain = tmp_path / "plain"
    shutil.copytree(tiny_bert, plain)
    for name in ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"):
        (plain / name).unlink()
    engine = OpenVinoEngine(prepare_graph(resolve(str(plain)), tmp_path / "models"))
    assert (engine.dim, engine.model.max_tokens, engine.model.pooling) == (HIDDEN, 64, "mean")
    short = [text for text in SAFE_TEXTS if len(text) < 100]
    direct = OpenVinoEngine(prepare_graph(resolve(str(tiny_bert)), models_dir))
    assert lowest_cosine(engine.embed_documents(short), direct.embed_documents(short)) >= 0.99999


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # the product converts under -W ignore
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_other_modules_are_converted_with_the_model(tmp_path: Path) -> None:
    """Max pooling and a dense layer, which the direct way does not build."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    base = write_tiny_bert(tmp_path / "base")
    modules = [Transformer(str(base), max_seq_length=LIMIT), Pooling(HIDDEN, "max"), Dense(HIDDEN, 16)]
    folder = tmp_path / "dense"
    SentenceTransformer(modules=modules, prompts={"query": "q: ", "passage": "p: "}, device="cpu").save(str(folder))
    model = resolve(str(folder))
    target = tmp_path / "prepared"
    target.mkdir()
    write_model(model, target, graph=True)
    spec = prepare.spec_from(json.loads((target / "prepared.json").read_text(encoding="utf-8"))["spec"])
    assert (spec.dim, spec.max_tokens, spec.pooling) == (16, LIMIT, "max+dense")
    assert (spec.query_prefix, spec.document_prefix) == ("q: ", "p: ")
    engine = OpenVinoEngine(Prepared(target, spec, 0))
    vectors = engine._embed_texts(SAFE_TEXTS)
    assert lowest_cosine(vectors, reference_vectors(str(folder))) >= 0.99999


def test_onnx_model_agrees_with_onnxruntime(models_dir: Path) -> None:
    import onnxruntime

    model = resolve("paraphrase-MiniLM-L3-v2")
    engine = OpenVinoEngine(prepare_graph(model, models_dir))
    inputs = padded_inputs(engine.tokenizer.encode(SAFE_TEXTS, model.max_tokens), 0)
    session = onnxruntime.InferenceSession(str(weights_path(model)), providers=["CPUExecutionProvider"])
    wanted = {port.name: inputs[port.name].astype(np.int64) for port in session.get_inputs()}
    rows = session.run(["461"], wanted)[0]
    expected = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert lowest_cosine(engine.embed_documents(SAFE_TEXTS), expected) >= 0.99999


def test_several_threads_share_one_compiled_model(tiny_bert: Path, models_dir: Path) -> None:
    engine = OpenVinoEngine(prepare_graph(resolve(str(tiny_bert)), models_dir), streams=2)
    inputs = [packed_inputs([np.arange(101, 101 + n, dtype=np.int32)] * 3, 0, 0) for n in range(1, 30)]
    alone = [engine._compiled.infer(each) for each in inputs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(engine._compiled.infer, inputs))
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


# ── preparation ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_model_is_prepared_once(tiny_bert: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    first = prepare_graph(resolve(str(tiny_bert)), tmp_path, lines.append)
    stamp = first.graph.stat().st_mtime_ns
    assert prepare_graph(resolve(str(tiny_bert)), tmp_path, lines.append) == first
    assert first.graph.stat().st_mtime_ns == stamp
    assert lines == [f"preparing {tiny_bert}, once"]
    assert (first.spec.dim, first.spec.max_tokens, first.spec.query_prefix) == (HIDDEN, LIMIT, "find: ")
    assert len(first.spec.revision) == len("folder:") + 64


def test_what_an_earlier_version_prepared_is_cleared(tiny_bert: Path, tmp_path: Path) -> None:
    old, other = (tmp_path / f"{name}-0123456789ab" / "prepared.json" for name in ("tiny-bert", "tiny-bert-large"))
    for path, number in ((old, prepare.FORMAT - 1), (other, prepare.FORMAT)):
        path.parent.mkdir()
        path.write_text(json.dumps({"format": number}), encoding="utf-8")
    prepare.prepare_facts(resolve(str(tiny_bert)), tmp_path)
    assert (old.parent.exists(), other.parent.exists()) == (False, True)


def test_facts_first_and_the_graph_later_give_the_same(tiny_bert: Path, tmp_path: Path) -> None:
    facts = prepare_facts(resolve(str(tiny_bert)), tmp_path)
    assert not facts.graph.exists()
    assert prepare_graph(resolve(str(tiny_bert)), tmp_path) == facts
    assert sorted(path.name for path in facts.folder.iterdir()) == ["openvino", "prepared.json", "tokenizer.json"]
    assert sorted(path.name for path in facts.graph.parent.iterdir()) == ["checks.json", "model.bin", "model.xml"]


def test_a_changed_pooling_is_another_model(tmp_path: Path) -> None:
    folder = write_tiny_bert(tmp_path / "tiny")
    before = resolve_model(resolve(str(folder)), tmp_path / "models")
    config = folder / "1_Pooling" / "config.json"
    text = config.read_text(encoding="utf-8")
    facts = json.loads(text)
    if "pooling_mode" in facts:
        facts["pooling_mode"] = "cls"
    else:
        facts |= {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}
    config.write_text(json.dumps(facts), encoding="utf-8")
    after = resolve_model(resolve(str(folder)), tmp_path / "models")
    assert (before.pooling, after.pooling) == ("mean", "cls")
    assert before.fingerprint("full") != after.fingerprint("full")


def test_a_disk_that_is_full_while_a_model_is_prepared_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_tiny_bert(tmp_path / "tiny")

    def full(*_: object, **__: object) -> None:
        raise RuntimeError("basic_ios::clear: iostream error")

    monkeypatch.setattr(openvino_runtime.openvino(), "save_model", full)
    with pytest.raises(ModelError, match=r"cannot take the prepared model .*make room"):
        prepare_graph(resolve(str(folder)), tmp_path / "models")
    assert list((tmp_path / "models").iterdir()) == []


def test_a_models_folder_that_cannot_be_written_is_one_line(tiny_bert: Path, tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file where the folder should be")
    with pytest.raises(ModelError, match=r"cannot take the prepared model .*set DATA_DIR"):
        prepare.prepare_facts(resolve(str(tiny_bert)), tmp_path / "models")


def test_changed_weights_are_another_model(tmp_path: Path) -> None:
    folder = write_tiny_bert(tmp_path / "tiny")
    before = resolve_model(resolve(str(folder)), tmp_path / "models")
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    os.utime(weights, ns=(1, 1))
    after = resolve_model(resolve(str(folder)), tmp_path / "models")
    assert before.fingerprint("full") != after.fingerprint("full")


def test_a_preparation_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    def fill(target: Path) -> None:
        (target / "half").write_text("made", encoding="utf-8")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_once(tmp_path / "model", fill)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_preparation_left_is_cleared(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    abandoned = tmp_path / f".{dead.pid}-x.tmp"
    at_work = tmp_path / f".{os.getpid()}-x.tmp"
    abandoned.mkdir()
    at_work.mkdir()
    build_once(tmp_path / "model", lambda target: (target / "prepared.json").touch())
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([at_work.name, "model"])


def test_of_two_preparations_at_once_one_wins(tmp_path: Path) -> None:
    both_inside = threading.Barrier(2, timeout=30)

    def build(name: str) -> None:
        def fill(target: Path) -> None:
            (target / "prepared.json").write_text(name, encoding="utf-8")
            both_inside.wait()

        build_once(tmp_path / "model", fill)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(build, ["first", "second"]))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model" / "prepared.json").read_text(encoding="utf-8") in ("first", "second")


def test_a_damaged_prepared_model_says_what_to_delete(tiny_bert: Path, tmp_path: Path) -> None:
    prepared = prepare_facts(resolve(str(tiny_bert)), tmp_path)
    (prepared.folder / "prepared.json").write_text("{", encoding="utf-8")
    with pytest.raises(ModelError, match="delete the folder"):
        prepare_facts(resolve(str(tiny_bert)), tmp_path)


def test_a_damaged_graph_says_what_to_delete(tiny_bert: Path, tmp_path: Path) -> None:
    prepared = prepare_graph(resolve(str(tiny_bert)), tmp_path)
    prepared.graph.write_text("<net>", encoding="utf-8")
    with pytest.raises(ModelError, match="delete the folder"):
        OpenVinoEngine(prepared)


def test_a_damaged_compiled_model_is_compiled_again(tiny_bert: Path, tmp_path: Path) -> None:
    prepared = prepare_graph(resolve(str(tiny_bert)), tmp_path)
    expected = OpenVinoEngine(prepared).embed_documents(TEXTS)
    (blob,) = (prepared.graph.parent / "cache").iterdir()
    content = blob.read_bytes()
    blob.chmod(0o644)
    blob.write_bytes(content[: len(content) // 2])
    np.testing.assert_allclose(OpenVinoEngine(prepared).embed_documents(TEXTS), expected, atol=1e-6)


def test_weights_that_are_not_the_published_ones_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="sha256"):
        prepare_graph(replace(resolve(L6), sha256="0" * 64), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_model_is_one_line_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^nobody/nothing cannot be loaded \(.*\); check the name.*$") as caught:
        prepare_facts(ModelSpec("nobody/nothing", "transformer"), tmp_path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("mixd", ' (did you mean "mixed"?)'),
        ("all-MiniLM-L6", ' (did you mean "all-MiniLM-L6-v2"?)'),
        ("intfloat/multilingal-e5-small", ' (did you mean "intfloat/multilingual-e5-small"?)'),
        ("BAAI/bge-m3", ""),
        ("nobody/nothing", ""),
    ],
)
def test_a_slip_in_a_models_name_is_told_with_what_was_meant(name: str, meant: str) -> None:
    assert near_name(name) == meant


@pytest.mark.parametrize("name", ["./nowhere", "~/nowhere-at-all", "/nowhere/model"])
def test_a_path_without_a_folder_is_not_looked_for_on_the_hub(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"there is no such folder; mend EMBEDDING_MODEL in config\.py$"):
        prepare_facts(ModelSpec(name, "transformer"), tmp_path)


def test_a_damaged_tokenizer_of_a_prepared_model_names_the_folder_to_delete(tiny_bert: Path, tmp_path: Path) -> None:
    prepared = prepare_facts(resolve(str(tiny_bert)), tmp_path)
    prepared.tokenizer.write_text("{", encoding="utf-8")
    with pytest.raises(ModelError, match=rf"delete the folder {re.escape(str(prepared.folder))} and try again$"):
        HfTokenizer(prepared.tokenizer)


def test_the_first_run_of_a_bundled_model_needs_neither_torch_nor_network(tmp_path: Path) -> None:
    code = """
import socket, sys
from dataclasses import replace
from pathlib import Path
def refuse(*args): raise AssertionError(f"network: {args}")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
from vaultvec.engines import create_engine
from vaultvec.models import L6, resolve
from vaultvec.settings import Settings
engine = create_engine(Settings(engine="openvino"), resolve(L6), Path(sys.argv[1]))
assert engine.embed_query("bread").shape == (384,)
heavy = [name for name in ("torch", "transformers", "openvino_telemetry", "chromadb") if sys.modules.get(name)]
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("wanted", "streams"), [(None, 1), (3, 3)])
def test_a_query_has_all_cores_unless_told_otherwise(
    wanted: int | None, streams: int, tiny_bert: Path, tmp_path: Path
) -> None:
    settings = Settings(engine="openvino", data_dir=tmp_path, streams=wanted)
    engine = query_engine(settings, resolve(str(tiny_bert)), lambda _: None)
    assert engine.streams == streams
    assert engine.embed_query("bread").shape == (engine.dim,)


@pytest.mark.parametrize("asked", ["int8", "bf16"])
def test_a_precision_that_cannot_be_had_here_ends_no_search_of_an_index_that_needs_none(
    asked: str, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_precision, "capabilities", lambda: frozenset({"fp32"}))
    vault, settings = tmp_path / "vault", Settings(tmp_path, tmp_path / "data", engine="openvino", workers=0)
    settings = replace(settings, embedding_model=str(tiny_bert), precision="fp32")
    vault.mkdir()
    (vault / "a.md").write_text("bread with butter", encoding="utf-8")
    index_vault(settings, vault)
    searcher = open_searcher(replace(settings, precision=asked), vault)
    try:
        assert searcher.search("bread", mode="semantic").results[0].path == "a.md"
        engine = searcher.semantic.models[0].load()
        assert engine.precision == "fp32"
        engine.close()
    finally:
        searcher.close()


@pytest.mark.parametrize("asked", ["int8", "auto"])
def test_an_int8_index_of_an_earlier_version_answers_until_there_is_a_new_one(
    asked: str, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault, settings = tmp_path / "vault", Settings(tmp_path, tmp_path / "data", engine="openvino", workers=0)
    settings = replace(settings, embedding_model=str(tiny_bert), precision="int8")
    vault.mkdir()
    (vault / "a.md").write_text("bread with butter", encoding="utf-8")
    with monkeypatch.context() as before:
        before.setattr("vaultvec.models.INT8_KIND", "int8")
        index_vault(settings, vault)
    searcher = open_searcher(replace(settings, precision=asked), vault)
    try:
        assert searcher.search("bread", mode="semantic").results[0].path == "a.md"
    finally:
        searcher.close()
    assert index_vault(settings, vault).chunks_embedded == 1  # not taken over from the old one
    assert index_vault(settings, vault).chunks_embedded == 0


@pytest.mark.parametrize(
    ("asked", "made", "taken"),
    [("auto", "int8", "auto"), ("int8", "int8", "int8"), ("bf16", "int8", "auto"), ("int8", "full", "auto"),
     ("fp32", "full", "fp32"), ("fp32", "int8", "fp32")],
)  # fmt: skip
def test_the_precision_of_a_query(asked: str, made: str, taken: str) -> None:
    fingerprint = resolve(L6).fingerprint(made)
    assert query_precision(asked, fingerprint, "openvino") == taken
    assert query_precision(asked, fingerprint, "torch") == ("auto" if taken == "int8" else taken)  # it has no int8


def test_an_int8_index_answers_where_the_engine_has_no_int8(tiny_bert: Path, tmp_path: Path) -> None:
    vault, settings = tmp_path / "vault", Settings(tmp_path, tmp_path / "data", engine="openvino", workers=0)
    settings = replace(settings, embedding_model=str(tiny_bert), precision="int8")
    vault.mkdir()
    (vault / "a.md").write_text("bread with butter", encoding="utf-8")
    index_vault(settings, vault)
    searcher = open_searcher(replace(settings, engine="torch"), vault)
    try:
        assert searcher.search("bread", mode="semantic").results[0].path == "a.md"
    finally:
        searcher.close()


# ── precision and memory ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def tiny(tiny_bert: Path, tmp_path: Path) -> Prepared:
    return prepare_graph(resolve(str(tiny_bert)), tmp_path)


def test_a_native_half_is_checked_once_and_taken(tiny: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_precision, "capabilities", lambda: frozenset({"fp32", "bf16"}))
    lines: list[str] = []
    assert choose_precision("auto", tiny, lines.append) == "bf16"
    assert choose_precision("auto", tiny, lines.append) == "bf16"
    assert lines == ["checking bf16 against fp32, once"]
    checks = json.loads((tiny.graph.parent / "checks.json").read_text(encoding="utf-8"))
    (key,) = checks
    assert key.startswith("bf16, ")  # the processor and OpenVINO's version follow
    assert 0.999 <= checks[key] <= 1.00001


def test_a_native_half_that_changes_vectors_is_not_taken(tiny: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_precision, "capabilities", lambda: frozenset({"fp32", "fp16"}))
    path = tiny.graph.parent / "checks.json"
    path.write_text(json.dumps({check_key("fp16"): 0.99}), encoding="utf-8")
    assert choose_precision("auto", tiny, print) == "fp32"
    path.write_text(json.dumps({"fp16, another processor, OpenVINO 1": 0.99}), encoding="utf-8")
    assert choose_precision("auto", tiny, print) == "fp16"


def test_a_check_that_did_not_fit_or_could_not_be_kept_leaves_nothing(
    tiny: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(precision: str) -> Vectors:
        if precision != "fp32":
            raise BatchTooLarge("no memory for the batch")
        return np.ones((1, 1), np.float32)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(openvino_precision, "capabilities", lambda: frozenset({"fp32", "bf16"}))
    checks = tiny.graph.parent / "checks.json"
    files = sorted(checks.parent.iterdir())
    assert native_precision("auto", checks, check, lambda _: None) == "fp32"
    monkeypatch.setattr("os.replace", full)
    assert choose_precision("auto", tiny, lambda _: None) == "bf16", "memory says nothing of the vectors"
    assert sorted(checks.parent.iterdir()) == files
    assert checks.read_text(encoding="utf-8") == "{}"


def test_a_models_folder_that_may_only_be_read_serves_without_its_checks_and_its_cache(
    tiny: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a read-only share: another processor, or a run that ended before the model was compiled."""

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    for module, name in ((tempfile, "mkstemp"), (Path, "mkdir")):
        monkeypatch.setattr(module, name, refused)
    monkeypatch.setattr(openvino_precision, "capabilities", lambda: frozenset({"fp32", "bf16"}))
    assert choose_precision("auto", tiny, lambda _: None) == "bf16"
    engine = OpenVinoEngine(tiny)
    assert engine.embed_documents(["bread"]).shape == (1, engine.dim)


@pytest.mark.parametrize("wanted", ["bf16", "fp16"])
def test_an_emulated_half_is_refused(tiny: Prepared, monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    monkeypatch.setattr(openvino_precision, "capabilities", lambda: frozenset({"fp32"}))
    assert choose_precision("auto", tiny, print) == "fp32"
    with pytest.raises(ModelError, match="only emulates"):
        choose_precision(wanted, tiny, print)


def test_capabilities_are_named_as_precisions() -> None:
    assert "fp32" in capabilities() <= {"fp32", "bf16", "fp16", "int8"}


def test_int8_is_quantised_once_and_has_its_own_fingerprint(tiny_bert: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    settings = Settings(engine="openvino", precision="int8")
    engine = create_engine(settings, resolve(str(tiny_bert)), tmp_path, lines.append)
    create_engine(settings, resolve(str(tiny_bert)), tmp_path, lines.append)
    once = [line.split()[0] for line in lines]
    assert once == ["preparing", "quantising"] + ["checking"] * (len(once) == 3)  # of a half, where the CPU has one
    exact = create_engine(Settings(engine="openvino", precision="fp32"), resolve(str(tiny_bert)), tmp_path)
    assert "-int8-" in engine.fingerprint != exact.fingerprint
    cosine = lowest_cosine(engine.embed_documents(SAFE_TEXTS), exact.embed_documents(SAFE_TEXTS))
    assert 0.95 < cosine < 0.99999


@pytest.mark.parametrize(("precision", "floats", "asked"), [("int8", "bf16", "bf16"), ("fp32", "bf16", "fp32")])
def test_int8_is_asked_for_where_it_is_wanted(
    tiny: Prepared, precision: str, floats: str, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: list[dict[str, Any]] = []

    class Compiled:
        def __init__(self, _: Path, **given: Any) -> None:
            options.append(given)

    openvino_precision._quantise_once(tiny, print)
    monkeypatch.setattr("vaultvec.engines.openvino_engine.CompiledModel", Compiled)
    OpenVinoEngine(tiny, precision=precision, floats=floats)
    assert [(given["precision"], given["int8"]) for given in options] == [(asked, precision == "int8")]


def test_only_a_graph_that_takes_padded_texts_pads(tiny: Prepared) -> None:
    assert not OpenVinoEngine(tiny).pads
    assert OpenVinoEngine(replace(tiny, first_position=None)).pads


@pytest.mark.parametrize("transposed", [True, False])
def test_int8_weights_are_off_by_half_a_step_at_most(tmp_path: Path, transposed: bool) -> None:
    """Each output's weights lie on 256 steps between its own lowest and highest, zero among them."""
    ov = openvino_runtime.openvino()
    ops = ov.opset13
    weights = np.random.default_rng(0).normal(0, [[1], [0.01], [0]], (3, 8)).astype(np.float32)
    weights[2] = 5  # all of one sign
    source = ops.parameter([-1, 8], np.float32, name="x")
    product = ops.matmul(source, ops.constant(weights if transposed else weights.T.copy()), False, transposed)
    openvino_runtime.save_model(ov.Model([ops.result(product)], [source], "product"), tmp_path / "model.xml")
    (tmp_path / "int8").mkdir()
    write_int8(tmp_path / "model.xml", tmp_path / "int8")
    small = ov.Core().read_model(str(tmp_path / "int8" / "model.xml"))
    kept = [node.data for node in small.get_ops() if node.get_type_name() == "Constant" and node.data.shape == (3, 8)]
    assert [array.dtype for array in kept] == [np.uint8]
    rows = ov.compile_model(small, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(np.eye(8, dtype=np.float32))[0]
    steps = (np.maximum(weights.max(1), 0) - np.minimum(weights.min(1), 0)) / 255
    assert (np.abs(rows.T - weights) <= steps[:, None] * 0.51).all()


def test_a_graph_without_weights_has_no_int8(tmp_path: Path) -> None:
    ov = openvino_runtime.openvino()
    source = ov.opset13.parameter([-1, 8], np.float32, name="x")
    openvino_runtime.save_model(
        ov.Model([ov.opset13.result(ov.opset13.relu(source))], [source], "relu"), tmp_path / "model.xml"
    )
    with pytest.raises(ModelError, match="no weights that could be int8; set PRECISION to auto"):
        write_int8(tmp_path / "model.xml", tmp_path)


class FailingRequest:
    """An inference request that fails with OpenVINO's words."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def infer(self, *_: Any, **__: Any) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("Exception from src/inference:102:\nbad allocation: std::bad_alloc"), BatchTooLarge),
        (RuntimeError("[CPU] Cannot allocate 12345 bytes"), BatchTooLarge),
        (MemoryError(), BatchTooLarge),
        (RuntimeError("Exception from src/inference:102:\nShape mismatch"), EngineError),
    ],
)
def test_failures_are_told_apart(tiny: Prepared, error: Exception, expected: type[Exception]) -> None:
    engine = OpenVinoEngine(tiny, streams=1)
    real = engine._compiled._requests.get()
    engine._compiled._requests.put(FailingRequest(error))
    with pytest.raises(expected) as caught:
        engine._compiled.infer(tiny.inputs([np.array([101, 102], dtype=np.int32)]))
    assert type(caught.value) is expected
    assert engine._compiled._requests.get_nowait() is not real  # the request went back for the next batch


def test_a_closed_engine_says_so(tiny: Prepared) -> None:
    engine = OpenVinoEngine(tiny)
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.embed_documents(["x"])
