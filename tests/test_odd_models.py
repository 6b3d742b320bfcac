"""Model folders that are not what they seem: lost layers, unusual modules, half-precision files, sparse configs."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_model import HIDDEN, POSITIONS, TEXTS, write_tiny_bert

from embeddings import EmbeddingModel
from vaultvec.datatypes import Batch, Encoded
from vaultvec.engines import convert, create_engine, load_tokenizer, prepare, resolve_model
from vaultvec.engines.bert_graph import Weights, mean_pool, unit_rows
from vaultvec.engines.openvino_runtime import openvino
from vaultvec.engines.prepare import complete
from vaultvec.engines.recipe import read_recipe
from vaultvec.engines.reference import load_reference
from vaultvec.errors import ModelError
from vaultvec.models import CATALOGUE, ModelSpec, resolve
from vaultvec.settings import Settings

SAFE_TEXTS = [text for text in TEXTS if "\ud83c" not in text]  # the reference takes no lone surrogates
ENGINES = ("openvino", "torch")


@pytest.fixture(autouse=True)
def _converted_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else every model here costs ten seconds of imports; test_openvino_engine.py goes through the other process."""

    def write(model: ModelSpec, target: Path, graph: bool) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as the other process is told to
            convert.write_model(model, target, graph)

    monkeypatch.setattr(prepare, "_write_elsewhere", write)


@pytest.fixture
def folder(tmp_path: Path, tiny_bert: Path) -> Path:
    """The tiny BERT, to be changed at will."""
    return Path(shutil.copytree(tiny_bert, tmp_path / "odd"))


def edit(path: Path, **values: Any) -> None:
    """Set keys of a JSON file; None takes one away."""
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    content = {key: value for key, value in (content | values).items() if value is not None}
    path.write_text(json.dumps(content), encoding="utf-8")


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def engine_vectors(folder: Path, models_dir: Path, engine: str, texts: list[str] = SAFE_TEXTS) -> np.ndarray:
    built = create_engine(Settings(engine=engine, precision="fp32"), resolve(str(folder)), models_dir)
    try:
        return np.asarray(built.embed_documents(texts))
    finally:
        built.close()


def lowest_cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sum(a * b, axis=1).min())


# ── weights that do not fit ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_layer_without_weights_is_told_and_not_made_up(folder: Path, tmp_path: Path) -> None:
    """As jina-embeddings-v2 comes: BERT by name, but with positions and a feed-forward that BERT has not."""

    def like_jina(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {
            name.replace("intermediate.dense", "mlp.gated_layers"): tensor
            for name, tensor in tensors.items()
            if "position_embeddings" not in name
        }

    change_weights(folder, like_jina)
    edit(folder / "config.json", position_embedding_type="alibi")
    expected = r"has no weights for embeddings.position_embeddings.weight, .* and 2 more"
    with pytest.raises(ModelError, match=expected) as told:
        resolve_model(resolve(str(folder)), tmp_path / "models")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_lost_layer_of_a_plain_bert_is_one_line(folder: Path, tmp_path: Path, engine: str) -> None:
    change_weights(folder, lambda tensors: {n: t for n, t in tensors.items() if "layer.1.output.dense" not in n})
    with pytest.raises(ModelError, match=r"layer\.1\.output\.dense\.weight"):
        engine_vectors(folder, tmp_path / "models", engine)


def test_a_missing_pooler_is_no_loss(folder: Path) -> None:
    """Sentence models are often saved without it, and nothing here reads it."""
    assert not [name for name in load_file(folder / "model.safetensors") if "pooler" in name]
    load_reference(resolve(str(folder)))


def test_positions_that_the_class_leaves_out_are_refused(folder: Path) -> None:
    edit(folder / "config.json", position_embedding_type="relative_key")
    with pytest.raises(ModelError, match="positions of type relative_key, which transformers' BertModel does not know"):
        load_reference(resolve(str(folder)))


# ── modules ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def saved(folder: Path, *modules: Any) -> ModelSpec:
    from sentence_transformers import SentenceTransformer

    SentenceTransformer(modules=list(modules), device="cpu").save(str(folder))
    return resolve(str(folder))


def test_routes_for_queries_and_documents_are_refused_by_name(folder: Path, tmp_path: Path) -> None:
    from sentence_transformers.base.modules import Dense, Router, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    router = Router.for_query_document([Dense(HIDDEN, HIDDEN)], [Dense(HIDDEN, HIDDEN)])
    model = saved(tmp_path / "routes", Transformer(str(folder)), Pooling(HIDDEN, "mean"), router)
    with pytest.raises(ModelError, match="has a module Router, expected only Transformer, Pooling"):
        resolve_model(model, tmp_path / "models")


def test_a_static_model_is_refused_for_what_it_is(folder: Path, tmp_path: Path) -> None:
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    model = saved(tmp_path / "static", StaticEmbedding(tokenizer, embedding_dim=8))
    with pytest.raises(ModelError, match="is a static model"):
        resolve_model(model, tmp_path / "models")


# ── weights in half precision ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_baseline_on_a_cpu_is_float32_with_unit_rows(folder: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    change_weights(folder, lambda tensors: {name: tensor.to(dtype) for name, tensor in tensors.items()})
    edit(folder / "config.json", dtype=str(dtype).removeprefix("torch."))
    model = EmbeddingModel(str(folder), models_dir=tmp_path / "models", device="cpu")
    assert {weight.dtype for weight in model.reference.parameters()} == {torch.float32}
    norms = np.linalg.norm(model.get_embeddings_batch(SAFE_TEXTS), axis=1)
    np.testing.assert_allclose(norms, 1, atol=1e-6)


# ── what a folder's fingerprint is made of ───────────────────────────────────────────────────────────────────────────


def fingerprint(folder: Path | str, models_dir: Path) -> str:
    return resolve_model(resolve(str(folder)), models_dir).fingerprint("full")


def lower_case_off(folder: Path) -> None:
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    tokenizer["normalizer"]["lowercase"] = False
    path.write_text(json.dumps(tokenizer), encoding="utf-8")


CHANGES: dict[str, Callable[[Path], None]] = {
    "tokenizer": lower_case_off,
    "heads": lambda folder: edit(folder / "config.json", num_attention_heads=4),
    "lower case": lambda folder: edit(folder / "sentence_bert_config.json", do_lower_case=True),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_that_decides_vectors_is_another_model(folder: Path, tmp_path: Path, what: str) -> None:
    before = fingerprint(folder, tmp_path / "models")
    CHANGES[what](folder)
    assert fingerprint(folder, tmp_path / "models") != before


def test_another_activation_of_a_dense_layer_is_another_model(folder: Path, tmp_path: Path) -> None:
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    dense = tmp_path / "dense"
    saved(dense, Transformer(str(folder)), Pooling(HIDDEN, "mean"), Dense(HIDDEN, 16))
    before = fingerprint(dense, tmp_path / "models")
    edit(dense / "2_Dense" / "config.json", activation_function="torch.nn.modules.activation.ReLU")
    assert fingerprint(dense, tmp_path / "models") != before


def test_files_that_decide_nothing_change_nothing(folder: Path, tmp_path: Path) -> None:
    before = fingerprint(folder, tmp_path / "models")
    (folder / "README.md").write_text("read", encoding="utf-8")
    (folder / "train_results.json").write_text("{}", encoding="utf-8")
    (folder / "training_args.bin").write_bytes(b"x")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "config.json").write_text("{}", encoding="utf-8")
    assert fingerprint(folder, tmp_path / "models") == before


def test_one_model_has_one_fingerprint_wherever_its_folder_lies(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fingerprint(folder, tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    assert fingerprint(f"{folder}/", tmp_path / "models") == before
    assert fingerprint("./odd", tmp_path / "models") == before
    shutil.move(folder, tmp_path / "elsewhere")
    assert fingerprint("elsewhere", tmp_path / "models") == before


def test_a_folder_written_as_a_path_is_named_by_its_absolute_path(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert {resolve(name).name for name in ("./odd", f"{folder}/", "../" + tmp_path.name + "/odd")} == {str(folder)}
    assert resolve("odd").name == "odd"  # on a server it may be a model's name
    assert resolve("nobody/nothing").name == "nobody/nothing"


def test_a_home_folder_that_nobody_has_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no such folder"):
        resolve_model(resolve("~no-such-user/model"), tmp_path / "models")


def test_the_bundled_models_keep_the_fingerprints_of_the_indexes_made_with_them(tmp_path: Path) -> None:
    kept = {
        "all-MiniLM-L6-v2": "all-MiniLM-L6-v2-384-full-c6c9896c37bb",
        "universal-sentence-encoder-multilingual-3": "universal-sentence-encoder-multilingual-3-512-full-46c2f9766d8f",
        "paraphrase-MiniLM-L3-v2": "paraphrase-MiniLM-L3-v2-384-full-a434cc265cd7",
    }
    assert {name: fingerprint(name, tmp_path) for name in kept} == kept


# ── files that both ways of reading a model must understand ──────────────────────────────────────────────────────────


def reference_vectors(folder: Path, texts: list[str] = SAFE_TEXTS) -> np.ndarray:
    return np.asarray(load_reference(resolve(str(folder))).encode(texts, prompt="", normalize_embeddings=True))


@pytest.mark.parametrize("engine", ENGINES)
def test_weights_in_bfloat16_are_read_right(folder: Path, tmp_path: Path, engine: str) -> None:
    change_weights(folder, lambda tensors: {name: tensor.bfloat16() for name, tensor in tensors.items()})
    vectors = engine_vectors(folder, tmp_path / "models", engine)
    assert lowest_cosine(vectors, reference_vectors(folder)) >= 0.99999


@pytest.mark.parametrize("engine", ENGINES)
def test_what_a_config_leaves_out_is_what_transformers_takes(tmp_path: Path, engine: str) -> None:
    folder = write_tiny_bert(tmp_path / "roberta", model_type="roberta")
    edit(folder / "config.json", pad_token_id=None, layer_norm_eps=None)
    vectors = engine_vectors(folder, tmp_path / "models", engine)
    assert lowest_cosine(vectors, reference_vectors(folder)) >= 0.99999


@pytest.mark.parametrize("engine", ENGINES)
def test_norms_by_their_old_names_are_read(folder: Path, tmp_path: Path, engine: str) -> None:
    """Google's own BERT files, and what was trained from them, say gamma and beta."""
    expected = reference_vectors(folder)

    def renamed(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        old = {".LayerNorm.weight": ".LayerNorm.gamma", ".LayerNorm.bias": ".LayerNorm.beta"}
        for today, before in old.items():
            tensors = {name.replace(today, before): tensor for name, tensor in tensors.items()}
        return tensors

    change_weights(folder, renamed)
    assert lowest_cosine(engine_vectors(folder, tmp_path / "models", engine), expected) >= 0.99999


@pytest.mark.parametrize("engine", ENGINES)
def test_special_tokens_that_a_note_spells_out(tmp_path: Path, engine: str) -> None:
    """RoBERTa does not count a padding token, wherever it stands."""
    folder = write_tiny_bert(tmp_path / "roberta", model_type="roberta")
    texts = ["of [PAD] and [SEP] in a note", "[PAD]", "[MASK] [CLS] [PAD] [PAD] end", *SAFE_TEXTS]
    vectors = engine_vectors(folder, tmp_path / "models", engine, texts)
    assert lowest_cosine(vectors, reference_vectors(folder, texts)) >= 0.99999


@pytest.mark.parametrize("engine", ENGINES)
def test_an_old_layout_runs_in_both_engines(folder: Path, tmp_path: Path, engine: str) -> None:
    expected = reference_vectors(folder)
    inner = folder / "0_Transformer"
    inner.mkdir()
    for path in [
        path for path in folder.iterdir() if path.is_file() and not path.name.startswith(("modules", "config_"))
    ]:
        path.rename(inner / path.name)
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    modules[0]["path"] = "0_Transformer"
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    assert lowest_cosine(engine_vectors(folder, tmp_path / "models", engine), expected) >= 0.99999


@pytest.mark.parametrize("plain", [True, False])
def test_a_tokenizer_with_more_tokens_than_the_model_is_one_line(folder: Path, tmp_path: Path, plain: bool) -> None:
    def cut(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        name = "embeddings.word_embeddings.weight"
        return tensors | {name: tensors[name][:30000].clone()}

    change_weights(folder, cut)
    edit(folder / "config.json", vocab_size=30000)
    if not plain:
        (folder / "modules.json").unlink()
    with pytest.raises(ModelError, match="a tokenizer of 30522 tokens and embeddings of 30000"):
        resolve_model(resolve(str(folder)), tmp_path / "models")


def _words_alone(table: np.ndarray) -> Any:
    """A graph of the right inputs and outputs, which leaves out all that comes after a token's embedding."""
    ov = openvino()
    ops = ov.opset13
    inputs = [ops.parameter([-1, -1], np.int32, name=name) for name in ("input_ids", "attention_mask")]
    for node in inputs:
        node.output(0).set_names({node.friendly_name})
    words = ops.gather(ops.constant(table), inputs[0], np.int64(0))
    return unit_rows(ov, mean_pool(ops, words, ops.convert(inputs[1], "f32")), inputs)


def test_a_graph_that_gives_other_vectors_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = _words_alone(Weights(folder / "model.safetensors")["embeddings.word_embeddings.weight"])
    (folder / "modules.json").unlink()
    monkeypatch.setattr(convert, "_trace", lambda _: graph)
    with pytest.raises(ModelError, match=r"gives other vectors in OpenVINO .*set ENGINE to torch"):
        engine_vectors(folder, tmp_path / "models", "openvino")
    monkeypatch.setattr(convert, "_trace", lambda _: 1 / 0)
    with pytest.raises(
        ModelError, match=r"cannot be made a graph for OpenVINO \(division by zero\); set ENGINE to torch"
    ):
        engine_vectors(folder, tmp_path / "models", "openvino")


def test_padding_that_sees_nothing_spoils_no_text(folder: Path, tmp_path: Path) -> None:
    """In a window of 8 tokens, the padding behind a short text has no token to look at."""
    from transformers import ModernBertConfig, ModernBertModel

    config = ModernBertConfig(
        vocab_size=30522, hidden_size=HIDDEN, intermediate_size=HIDDEN, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=POSITIONS, local_attention=8, pad_token_id=0, bos_token_id=101, eos_token_id=102,
        cls_token_id=101, sep_token_id=102,
    )  # fmt: skip
    torch.manual_seed(0)
    ModernBertModel(config).save_pretrained(folder)
    engine = create_engine(Settings(engine="openvino", precision="fp32"), resolve(str(folder)), tmp_path / "models")
    rows = engine.tokenizer.encode(SAFE_TEXTS, engine.model.max_tokens)
    together = Batch(tuple(Encoded(i, "", row) for i, row in enumerate(rows)))
    assert together.max_tokens > 30
    assert lowest_cosine(engine._forward(together), reference_vectors(folder)) >= 0.9999
    engine.close()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("plain", [True, False])
def test_padding_on_the_left_moves_no_positions(folder: Path, tmp_path: Path, engine: str, plain: bool) -> None:
    """sentence-transformers gives a short text of such a BERT another vector beside a longer one than alone."""
    edit(folder / "tokenizer_config.json", padding_side="left", tokenize_chinese_chars=plain)
    assert (read_recipe(folder) is not None) == plain
    alone = np.concatenate([reference_vectors(folder, [text]) for text in SAFE_TEXTS])
    assert lowest_cosine(reference_vectors(folder), alone) < 0.99
    assert lowest_cosine(engine_vectors(folder, tmp_path / "models", engine), alone) >= 0.99999


def write_xlnet(folder: Path) -> None:
    from transformers import XLNetConfig, XLNetModel

    XLNetModel(XLNetConfig(vocab_size=30522, d_model=HIDDEN, n_layer=1, n_head=2, d_inner=64)).save_pretrained(folder)


def write_bart(folder: Path) -> None:
    from transformers import BartConfig, BartModel

    config = BartConfig(
        vocab_size=30522, d_model=HIDDEN, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=POSITIONS,
        pad_token_id=0, bos_token_id=101, eos_token_id=102, decoder_start_token_id=101,
    )  # fmt: skip
    BartModel(config).save_pretrained(folder)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("write", [write_xlnet, write_bart])
def test_architectures_that_are_no_plain_encoders(
    folder: Path, tmp_path: Path, engine: str, write: Callable[[Path], None]
) -> None:
    """XLNet has -1 positions, and a traced BART two names for its token ids."""
    torch.manual_seed(0)
    write(folder)
    vectors = engine_vectors(folder, tmp_path / "models", engine)
    assert lowest_cosine(vectors, reference_vectors(folder)) >= 0.9999


# ── tokenizers that transformers builds otherwise than tokenizer.json has it ─────────────────────────────────────────


def ids_of_both(folder: Path, models_dir: Path) -> tuple[list[list[int]], list[list[int]]]:
    """Ours and transformers', of all texts, cut at the model's limit."""
    model = resolve(str(folder))
    ours = load_tokenizer(model, models_dir).encode(SAFE_TEXTS, resolve_model(model, models_dir).max_tokens)
    return [row.tolist() for row in ours], load_reference(model).tokenizer(SAFE_TEXTS, truncation=True)["input_ids"]


@pytest.mark.parametrize(
    "setting",
    [
        {"do_lower_case": False},
        {"strip_accents": False},
        {"tokenize_chinese_chars": False},
        {"truncation_side": "left"},
        {"tokenizer_class": "XLMRobertaTokenizer"},
        {"tokenizer_class": None},
    ],
    ids=lambda setting: next(iter(setting)),
)
def test_the_tokenizer_is_the_one_that_transformers_makes_of_the_files(
    folder: Path, tmp_path: Path, setting: dict[str, Any]
) -> None:
    if setting.get("tokenizer_class"):
        write_unigram(folder)
    edit(folder / "tokenizer_config.json", **setting)
    ours, theirs = ids_of_both(folder, tmp_path / "models")
    assert ours == theirs


def write_unigram(folder: Path, *, split: bool = False) -> None:
    """A tokenizer as transformers 5 writes it or, with `split`, as XLM-RoBERTa's own class makes it."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    letters = sorted(set("".join(SAFE_TEXTS)) - {" "})
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -3.0), ("▁a", -3.5), ("▁note", -4.0)]
    tokenizer = Tokenizer(models.Unigram([*pieces, *((letter, -5.0) for letter in letters)], unk_id=3))
    space = pre_tokenizers.Metaspace()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), space]) if split else space
    ends = [("<s>", 0), ("</s>", 2)]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "unk_token": "<unk>"}
    edit(folder / "tokenizer_config.json", **names, pad_token="<pad>", mask_token=None)
    for name in ("vocab.txt", "special_tokens_map.json"):
        (folder / name).unlink()


def test_a_tokenizer_that_stays_as_it_is_needs_no_conversion(folder: Path) -> None:
    assert read_recipe(folder) is not None
    write_unigram(folder, split=True)
    edit(folder / "tokenizer_config.json", tokenizer_class="XLMRobertaTokenizer")
    assert read_recipe(folder) is not None
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    content["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"}
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    assert read_recipe(folder) is None
    edit(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    assert read_recipe(folder) is not None


# ── prompts ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_pooling_without_the_prompt_is_refused_where_there_is_one(folder: Path, tmp_path: Path) -> None:
    edit(folder / "1_Pooling" / "config.json", include_prompt=False)
    with pytest.raises(ModelError, match="include_prompt is false"):
        resolve_model(resolve(str(folder)), tmp_path / "models")
    edit(folder / "config_sentence_transformers.json", prompts={"query": "", "document": ""})
    assert resolve_model(resolve(str(folder)), tmp_path / "models").dim == HIDDEN


@pytest.mark.parametrize(
    ("name", "query", "document"),
    [
        ("e5-base-v2", "query: ", "passage: "),
        ("bge-large-en-v1.5", "Represent this sentence for searching relevant passages: ", ""),
        ("bge-large-zh-v1.5", "", ""),
        ("all-mpnet-base-v2", "", ""),
    ],
)
def test_a_model_without_prompts_has_those_of_its_family(
    folder: Path, tmp_path: Path, name: str, query: str, document: str
) -> None:
    edit(folder / "config_sentence_transformers.json", prompts={"query": "", "document": ""})
    model = resolve_model(resolve(str(folder.rename(tmp_path / name))), tmp_path / "models")
    assert (model.query_prefix, model.document_prefix) == (query, document)


def test_a_models_own_prompts_come_before_its_familys(folder: Path, tmp_path: Path) -> None:
    model = resolve_model(resolve(str(folder.rename(tmp_path / "e5-base-v2"))), tmp_path / "models")
    assert (model.query_prefix, model.document_prefix) == ("find: ", "")


@pytest.mark.parametrize("spec", CATALOGUE, ids=lambda spec: spec.slug)
def test_the_table_of_families_adds_nothing_to_the_catalogue(spec: ModelSpec) -> None:
    done = complete(spec, 8, 8, "mean", {})
    assert (done.query_prefix, done.document_prefix) == (spec.query_prefix, spec.document_prefix)


# ── limits ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_positions_kept_for_padding_are_no_tokens(tmp_path: Path) -> None:
    """Without a limit of its own a RoBERTa takes what its position table holds after the padding's rows."""
    folder = write_tiny_bert(tmp_path / "roberta", model_type="roberta")
    for name in ("modules.json", "sentence_bert_config.json"):
        (folder / name).unlink()
    edit(folder / "tokenizer_config.json", model_max_length=None)
    edit(folder / "config.json", pad_token_id=1)
    assert resolve_model(resolve(str(folder)), tmp_path / "models").max_tokens == POSITIONS - 2


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("sentence_roberta_config.json", {"max_seq_length": 20}),
        ("sentence_xlm-roberta_config.json", {"max_seq_length": 20}),
        ("sentence_bert_config.json", {"max_seq_length": 40, "processor_kwargs": {"model_max_length": 20}}),
    ],
    ids=lambda value: str(value)[:32],
)
def test_a_limit_is_found_wherever_sentence_transformers_looks_for_it(
    folder: Path, tmp_path: Path, name: str, settings: dict[str, Any]
) -> None:
    (folder / "sentence_bert_config.json").unlink()
    edit(folder / name, **settings)
    limit = load_reference(resolve(str(folder))).max_seq_length
    assert resolve_model(resolve(str(folder)), tmp_path / "models").max_tokens == limit == 20


def test_the_commit_of_a_hub_model_is_that_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    place = tmp_path / "models--someone--tiny"
    for path, text in {"refs/main": "c0ffee", "snapshots/c0ffee/config.json": "{}"}.items():
        (place / path).parent.mkdir(parents=True)
        (place / path).write_text(text)
    assert convert._cached_commit("someone/tiny") == "c0ffee"
    assert convert._cached_commit("someone/else") is None
