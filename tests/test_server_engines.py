"""The Ollama and OpenAI engines against a real server process that speaks both protocols, faults included."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import traceback
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from protocol_server import DIM, KEY, POISON, vector

from vaultvec.datatypes import BatchResult, Encoded
from vaultvec.engines import create_engine
from vaultvec.engines.base import Engine
from vaultvec.engines.ollama_engine import OllamaEngine
from vaultvec.engines.openai_answers import retry_after
from vaultvec.engines.openai_engine import OpenAIEngine
from vaultvec.engines.served_revision import revision_of
from vaultvec.engines.server_address import parse_address
from vaultvec.engines.server_engine import CHARACTER_BUDGET, ServerEngine, pack
from vaultvec.engines.server_models import base_name, with_prefixes
from vaultvec.engines.server_patience import Patience
from vaultvec.engines.server_refusals import refusal
from vaultvec.engines.server_tokenizer import ServerTokenizer
from vaultvec.errors import EngineError, ModelError, SettingsError
from vaultvec.models import ModelSpec, resolve
from vaultvec.settings import Settings

HASTY = Patience(retries=3, backoff=0.005, load_seconds=5.0)
BRISK = Patience(retries=3, backoff=0.005, load_seconds=0.5, slowest=1000.0)
FAULTS = (
    *("poison", "nan", "nan500", "zero", "hollow", "short", "drop", "notjson", "slow", "tight", "flaky", "full"),
    *("limited", "broken", "drift", "narrow", "dropfirst", "sleepy", "noinfo", "num_ctx", "nobase64", "ignores64"),
    *("shuffled", "plain", "missing", "tight500", "hang", "retrained", "rounded", "echo", "unlisted"),
    "restarts",
)
_unique = count()


def spec(name: str) -> ModelSpec:
    return ModelSpec(name=name, kind="transformer")


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    command = [sys.executable, str(Path(__file__).with_name("protocol_server.py"))]
    pulled = [f"m@{fault}+{i}" for fault in FAULTS for i in range(60)]
    with subprocess.Popen([*command, *pulled], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield int(server.stdout.readline())
        assert server.stdin is not None
        server.stdin.close()
        server.wait(5)


class Bench:
    """Connects engines to the server and reads the server's log."""

    def __init__(self, port: int) -> None:
        self.root = f"http://127.0.0.1:{port}"
        self.said: list[str] = []
        self.engines: list[Engine] = []

    def ollama(self, name: str, patience: Patience = HASTY, path: str = "") -> OllamaEngine:
        url, notify = self.root + path, self.said.append
        engine = OllamaEngine.connect(spec(name), url, window=100, notify=notify, patience=patience)
        self.engines.append(engine)
        return engine

    def openai(
        self,
        name: str,
        patience: Patience = HASTY,
        key: str | None = None,
        streams: int | None = None,
        seen: Path | None = None,
    ) -> OpenAIEngine:
        url, notify = self.root + "/v1", self.said.append
        engine = OpenAIEngine.connect(
            spec(name), url, key, window=100, notify=notify, patience=patience, streams=streams, seen=seen
        )
        self.engines.append(engine)
        return engine

    def engine(self, kind: str, name: str, patience: Patience = HASTY) -> ServerEngine:
        return self.ollama(name, patience) if kind == "ollama" else self.openai(name, patience)

    def log(self, name: str) -> list[dict[str, object]]:
        return self.get(f"log/{name}")  # type: ignore[no-any-return]

    def get(self, path: str) -> object:
        with urllib.request.urlopen(f"{self.root}/{path}") as answer:
            return json.load(answer)


@pytest.fixture
def bench(port: int) -> Iterator[Bench]:
    bench = Bench(port)
    yield bench
    for engine in bench.engines:
        engine.close()


def fault(name: str) -> str:
    """A model name that no other test uses."""
    return f"m@{name}+{next(_unique) % 60}"


def expected(texts: list[str]) -> np.ndarray:
    return np.array([vector(text) for text in texts], dtype=np.float32)


def run(engine: ServerEngine, texts: list[str]) -> list[BatchResult]:
    rows = engine.tokenizer.encode(texts)
    items = [Encoded(i, text, row) for i, (text, row) in enumerate(zip(texts, rows, strict=True))]
    return list(engine.embed_batches(engine.plan(items)))


BOTH = pytest.mark.parametrize("kind", ["ollama", "openai"])
BAD = f"{POISON} b"
TEXTS = [f"note {i} about gardens" for i in range(12)] + ["한국어 노트", "a"]


# ── the plain way ────────────────────────────────────────────────────────────────────────────────────────────────────
@BOTH
def test_vectors_come_back_in_order_with_unit_rows(bench: Bench, kind: str) -> None:
    engine = bench.engine(kind, "plain")
    vectors = engine.embed_documents(TEXTS)
    assert vectors.dtype == np.float32
    assert np.allclose(vectors, expected(TEXTS), atol=1e-6)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert engine.embed_documents([]).shape == (0, DIM)
    assert engine.busy_seconds > 0
    engine.close()


def test_ollama_facts_and_request(bench: Bench) -> None:
    engine = bench.ollama("nomic-embed-text")
    assert (engine.dim, engine.model.max_tokens, engine.model.revision, engine.model.kind) == (
        DIM, 512, "ollama:digest-of-nomic-embed-text:latest", "server",
    )  # fmt: skip
    assert bench.log("nomic-embed-text") == []  # /api/show told the dim: no test request
    assert np.allclose(engine.embed_query("tea"), vector("search_query: tea"), atol=1e-6)
    assert np.allclose(engine.embed_documents(["tea"]), expected(["search_document: tea"]), atol=1e-6)
    request = bench.log("nomic-embed-text")[0]
    assert (request["keep_alive"], request["truncate"]) == ("30m", False)
    assert bench.said == []  # this machine


def test_ollama_without_model_info_measures_the_dim(bench: Bench) -> None:
    engine = bench.ollama(fault("noinfo"))
    assert (engine.dim, engine.model.max_tokens) == (DIM, 512)
    assert bench.ollama(fault("num_ctx")).model.max_tokens == 400


def test_old_ollama_falls_back_and_is_normalised(bench: Bench) -> None:
    engine = bench.ollama(fault("plain"), path="/old")
    assert np.allclose(engine.embed_documents(TEXTS), expected(TEXTS), atol=1e-6)
    assert len(bench.said) == 1
    assert "too old" in bench.said[0]


def test_requests_keep_to_the_character_budget(bench: Bench) -> None:
    name = fault("sleepy")
    engine = bench.ollama(name)
    texts = [f"{i:04d} " + "word " * 250 for i in range(60)]
    results = run(engine, texts)
    assert sorted(item.index for result in results for item in result.batch.items) == list(range(60))
    log = bench.log(name)
    assert all(sum(map(len, request["texts"])) <= CHARACTER_BUDGET for request in log)  # type: ignore[arg-type]
    assert max(request["flying"] for request in log) == 2  # type: ignore[type-var]
    assert len(log) < 10


def test_fingerprint_is_not_that_of_the_local_model(bench: Bench) -> None:
    served = bench.openai("plain")
    assert served.fingerprint != resolve("plain").fingerprint("full")
    assert served.fingerprint == bench.openai("plain").fingerprint
    again = OpenAIEngine.connect(served.model, served.device, None, window=9, notify=bench.said.append)
    bench.engines.append(again)
    assert again.model == served.model  # connecting with what connecting gave changes nothing
    assert bench.ollama(fault("plain")).fingerprint != bench.ollama(fault("plain")).fingerprint


def test_the_factory_connects_both(bench: Bench, tmp_path: Path) -> None:
    settings = Settings(engine="ollama", ollama_url=bench.root, openai_url=bench.root + "/v1", openai_api_key=KEY)
    bench.engines.append(create_engine(settings, spec("plain"), tmp_path))
    assert bench.engines[0].device == bench.root
    settings = Settings(engine="openai", ollama_url=bench.root, openai_url=bench.root + "/v1", openai_api_key=KEY)
    engine = create_engine(settings, spec("plain"), tmp_path, bench.said.append)
    bench.engines.append(engine)
    assert np.allclose(engine.embed_documents(TEXTS), expected(TEXTS), atol=1e-6)
    assert bench.said == [f"note texts will leave this process: they go to {bench.root}/v1, on this machine"]


# ── one bad text loses only itself ───────────────────────────────────────────────────────────────────────────────────
@BOTH
@pytest.mark.parametrize("what", ["poison", "nan", "nan500", "zero", "hollow", "short", "drop", "notjson", "slow"])
def test_one_bad_text_loses_only_itself(bench: Bench, kind: str, what: str) -> None:
    engine = bench.engine(kind, fault(what), BRISK if what == "slow" else HASTY)
    texts = [*TEXTS[:4], BAD, *TEXTS[4:]]
    if what == "slow":
        texts = texts[3:5]
    results = run(engine, texts)
    failed = [(r.batch.items[p].index, why) for r in results for p, why in r.failed]
    assert [index for index, _ in failed] == [texts.index(BAD)]
    words = {"nan": "not finite", "nan500": "NaN", "zero": "zero", "short": "0 vectors for 1", "slow": "no answer"}
    assert words.get(what, "") in failed[0][1]
    for result in results:
        for item, row in zip(result.batch.items, result.vectors, strict=True):
            wanted = np.zeros(DIM) if POISON in item.text else vector(item.text)
            assert np.allclose(row, wanted, atol=1e-6)


@BOTH
def test_an_empty_text_is_reported_and_not_sent(bench: Bench, kind: str) -> None:
    name = fault("plain")
    results = run(bench.engine(kind, name), ["one", " \n", "two"])
    assert [result.batch.items[p].index for result in results for p, _ in result.failed] == [1]
    assert all("\n" not in text for request in bench.log(name) for text in request["texts"])  # type: ignore[attr-defined]


def test_a_lone_surrogate_does_not_stop_the_batch(bench: Bench) -> None:
    vectors = bench.ollama("plain").embed_documents(["broken \ud83d", "whole"])
    assert np.allclose(vectors, expected(["broken ?", "whole"]), atol=1e-6)


@BOTH
def test_long_texts_are_cut_before_they_are_sent(bench: Bench, kind: str) -> None:
    name = fault("plain")
    engine = bench.engine(kind, name)
    long = "gardening " * 3000
    cut = ServerTokenizer().cut(long, 512)
    assert np.allclose(engine.embed_documents([long, "short"]), expected([cut, "short"]), atol=1e-6)
    assert not any(len(text) > 2048 for request in bench.log(name) for text in request["texts"])  # type: ignore[attr-defined]


def test_what_the_server_still_finds_too_long_is_halved(bench: Bench) -> None:
    text = "x" * 150
    results = run(bench.ollama(fault("tight")), ["short", text])
    assert not any(result.failed for result in results)
    rows = {item.index: row for r in results for item, row in zip(r.batch.items, r.vectors, strict=True)}
    assert np.allclose(rows[1], vector("x" * 75), atol=1e-6)


def test_a_text_refused_for_its_length_with_500_is_not_asked_for_again(bench: Bench) -> None:
    name, text = fault("tight500"), "x" * 150
    assert np.allclose(bench.openai(name).embed_query(text), vector("x" * 75), atol=1e-6)
    assert [request["texts"] for request in bench.log(name)].count([text]) == 1


def test_texts_that_a_server_repeats_in_its_refusal_are_not_shown(bench: Bench) -> None:
    results = run(bench.openai(fault("echo")), ["one", BAD])
    assert [why for result in results for _, why in result.failed] == ["422: String is not right"]


# ── a server in trouble ──────────────────────────────────────────────────────────────────────────────────────────────
@BOTH
@pytest.mark.parametrize("what", ["flaky", "full", "dropfirst"])
def test_passing_trouble_is_waited_out(bench: Bench, kind: str, what: str) -> None:
    engine = bench.engine(kind, fault(what))
    assert np.allclose(engine.embed_documents(TEXTS[:1]), expected(TEXTS[:1]), atol=1e-6)


@pytest.mark.parametrize("value", ["nan", "inf", "soon", ""])
def test_a_retry_after_that_is_no_time_is_none(value: str) -> None:
    assert retry_after(SimpleNamespace(headers={"retry-after": value})) is None  # type: ignore[arg-type]


def test_retry_after_is_obeyed(bench: Bench) -> None:
    name = fault("limited")  # the third request is told to come back after 0.3 s; the engine's own pause is far shorter
    engine = bench.openai(name)
    for text in TEXTS[:2]:
        assert np.allclose(engine.embed_query(text), vector(text), atol=1e-6)
    refused, again = bench.log(name)[-2:]
    assert refused["texts"] == again["texts"]
    assert again["at"] - refused["at"] >= 0.3  # type: ignore[operator]


def test_a_server_that_fails_on_everything_ends_the_run(bench: Bench) -> None:
    name = fault("broken")
    engine = bench.ollama(name)
    with pytest.raises(EngineError, match=r"fails on every text.*llama runner"):
        run(engine, TEXTS)
    assert len(bench.log(name)) < 10  # no bisection of a server that is broken


@BOTH
def test_no_text_is_blamed_for_a_server_that_another_one_brought_down(bench: Bench, kind: str) -> None:
    engine = bench.engine(kind, fault("restarts"))
    engine.streams = 1
    results = run(engine, [*TEXTS[:2], BAD])
    assert [result.batch.items[p].index for result in results for p, _ in result.failed] == [2]
    rows = {item.index: row for r in results for item, row in zip(r.batch.items, r.vectors, strict=True)}
    assert np.allclose([rows[0], rows[1]], expected(TEXTS[:2]), atol=1e-6)


def test_an_array_that_drifts_is_sent_singly(bench: Bench) -> None:
    engine = bench.ollama(fault("drift"))
    assert np.allclose(engine.embed_documents(TEXTS), expected(TEXTS), atol=1e-6)
    assert "one at a time" in bench.said[0]


def test_another_model_behind_the_address_is_noticed(bench: Bench) -> None:
    engine = bench.openai(fault("narrow"))
    with pytest.raises(EngineError, match=r"8 numbers.*expected 16"):
        engine.embed_query("x")


@BOTH
def test_no_server(bench: Bench, kind: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, not listening
        bench.root = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(EngineError, match="ollama serve" if kind == "ollama" else "set OPENAI_URL") as error:
            bench.engine(kind, "plain")
    assert "\n" not in str(error.value)


def test_ollama_model_not_pulled(bench: Bench) -> None:
    with pytest.raises(ModelError, match="run: ollama pull bge-m3"):
        OllamaEngine.connect(resolve("bge-m3"), bench.root, window=9, notify=bench.said.append, patience=HASTY)
    with pytest.raises(ModelError, match=r"run: ollama pull m@missing"):  # listed, then gone
        bench.ollama(fault("missing"))


def test_what_answers_is_not_ollama(bench: Bench) -> None:
    with pytest.raises(EngineError, match="not Ollama"):
        bench.ollama("plain", path="/web")


def test_redirects_are_not_followed(bench: Bench) -> None:
    with pytest.raises(EngineError, match="not Ollama"):
        bench.ollama("plain", path="/moved")
    with pytest.raises(EngineError, match=r"is not there \(307\)"):
        OpenAIEngine.connect(spec("plain"), bench.root + "/moved/v1", None, window=9, notify=bench.said.append)


def test_openai_wrong_path_and_unknown_model(bench: Bench) -> None:
    with pytest.raises(EngineError, match="ends in /v1"):
        OpenAIEngine.connect(spec("plain"), bench.root + "/web", None, window=9, notify=bench.said.append)
    with pytest.raises(ModelError, match="does not serve m@missing"):
        bench.openai(fault("missing"))


# ── requests in flight ───────────────────────────────────────────────────────────────────────────────────────────────
def test_a_request_that_hangs_is_not_waited_for(bench: Bench) -> None:
    name = fault("hang")
    engine = bench.openai(name, Patience(retries=0, load_seconds=60.0), streams=2)
    engine.max_texts = 1
    texts = ["first and longest", "the second", BAD, "x"]
    items = [
        Encoded(i, text, row) for i, (text, row) in enumerate(zip(texts, engine.tokenizer.encode(texts), strict=True))
    ]
    results = engine.embed_batches(engine.plan(items))
    kept = next(results)
    while bench.get(f"flying/{name}") == 0:
        pass
    results.close()  # what Ctrl-C does
    assert bench.get(f"flying/{name}") == 1, "the request is still in flight"
    assert np.allclose(kept.vectors[0], vector(texts[kept.batch.items[0].index]), atol=1e-6)
    bench.get("release/x")


@BOTH
def test_streams_are_requests_in_flight(bench: Bench, kind: str, tmp_path: Path) -> None:
    name = fault("sleepy")
    settings = Settings(engine=kind, ollama_url=bench.root, openai_url=bench.root + "/v1", streams=3)
    engine = create_engine(settings, spec(name), tmp_path)
    bench.engines.append(engine)
    assert isinstance(engine, ServerEngine)
    engine.max_texts = 1
    run(engine, [f"text {i}" for i in range(40)])
    assert engine.streams == 3
    assert max(request["flying"] for request in bench.log(name)) == 3  # type: ignore[type-var]


# ── OpenAI only ──────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(("what", "form"), [("nobase64", "float"), ("ignores64", "base64"), ("shuffled", "base64")])
def test_base64_is_asked_for_and_not_insisted_on(bench: Bench, what: str, form: str) -> None:
    name = fault(what)
    assert np.allclose(bench.openai(name).embed_documents(TEXTS), expected(TEXTS), atol=1e-6)
    assert bench.log(name)[-1]["encoding_format"] == form
    assert len(bench.said) == 1  # where texts go, and nothing about vectors that drift


def test_the_key_is_sent_and_shown_nowhere(bench: Bench) -> None:
    engine = bench.openai("plain", key=KEY)
    assert np.allclose(engine.embed_query("x"), vector("x"), atol=1e-6)
    shown = repr(engine) + repr(vars(engine)) + engine.fingerprint + "".join(bench.said)
    assert KEY not in shown
    wrong = "-".join(["sk", "wrong", "and", "private"])
    with pytest.raises(EngineError, match="OPENAI_API_KEY") as error:
        bench.openai("plain", key=wrong)
    assert wrong not in "".join(traceback.format_exception(error.value))
    with pytest.raises(EngineError, match=r"cannot read this: Bearer \(key\)"):
        bench.openai("leaky", key=KEY)
    with pytest.raises(SettingsError, match="OPENAI_API_KEY") as other:
        bench.openai("plain", key=wrong + "\nHost: x")
    assert wrong not in "".join(traceback.format_exception(other.value))


def test_a_model_is_asked_for_by_the_name_that_the_server_lists(bench: Bench) -> None:
    engine = bench.openai("renamed-V1")
    assert (engine.served_name, engine.model.name, engine.model.max_tokens) == ("org/Renamed-v1", "renamed-V1", 300)
    assert bench.log("org/Renamed-v1")
    assert len(bench.said) == 1


def test_a_name_that_is_not_listed_but_answered_is_told(bench: Bench) -> None:
    name = fault("unlisted")
    assert np.allclose(bench.openai(name).embed_query("x"), vector("x"), atol=1e-6)
    assert bench.said[1].startswith(f"the server does not list {name} but answers")
    assert "set EMBEDDING_MODEL" in bench.said[1]


def test_a_model_is_known_by_its_vectors(bench: Bench, tmp_path: Path) -> None:
    rounded, retrained = fault("rounded"), fault("retrained")
    revisions = [bench.openai(rounded, seen=tmp_path).model.revision for _ in range(4)]
    assert len(set(revisions)) == 1, "rounding is no other model"
    revisions = [bench.openai(retrained, seen=tmp_path).model.revision for _ in range(4)]
    assert revisions[0] == revisions[1] != revisions[2] == revisions[3]


def test_vectors_seen_before(tmp_path: Path) -> None:
    model = spec("org/a model")
    first, other = (np.array(vector(text), dtype=np.float32) for text in ("a", "b"))
    name = revision_of(model, first, tmp_path / "served")
    assert revision_of(model, other, tmp_path / "served") != name
    near = first + np.float32(0.004) * (-1.0) ** np.arange(DIM, dtype=np.float32)
    near /= np.linalg.norm(near)
    assert revision_of(model, near, None) != name, "by itself it rounds to other numbers"
    assert revision_of(model, near, tmp_path / "served") == name
    [file] = (tmp_path / "served").iterdir()
    file.write_bytes(b"broken")
    assert revision_of(model, first, tmp_path / "served") == name
    assert revision_of(model, first, file / "no folder") == name


def test_a_long_context_is_believed(bench: Bench) -> None:
    assert bench.openai("long").model.max_tokens == 3000


def test_requests_in_flight_are_tuned(bench: Bench) -> None:
    name = fault("sleepy")
    engine = bench.openai(name)
    texts = [f"text {i} " + "w" * 8000 for i in range(2 * (2 + 4 + 8 + 16) + 6)]
    engine.model = ModelSpec(name=name, kind="server", dim=DIM, max_tokens=400)
    results = run(engine, texts)
    assert engine.streams > 1  # the server sleeps, so requests side by side are faster
    assert max(request["flying"] for request in bench.log(name)) >= engine.streams  # type: ignore[type-var, operator]
    assert [item.index for r in results for item in sorted(r.batch.items, key=lambda i: i.index)] == list(
        range(len(texts))
    )


@pytest.mark.parametrize("kind", ["OllamaEngine", "OpenAIEngine"])
def test_a_proxy_that_cannot_be_used_is_one_line(kind: str) -> None:
    """In a process of its own: Ollama's client reads the environment when it is imported."""
    code = (
        "from vaultvec.engines import ollama_engine, openai_engine; from vaultvec.models import ModelSpec\n"
        f"engine = getattr(ollama_engine, '{kind}', None) or openai_engine.{kind}\n"
        "key = {} if engine.name == 'ollama' else {'api_key': None}\n"
        "engine.connect(ModelSpec('m', 'server'), 'http://far.example', window=9, notify=lambda _: None, **key)"
    )
    environment = os.environ | {"ALL_PROXY": "gopher://127.0.0.1:9", "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert re.search(r"EngineError: the proxy that the environment names .*gopher.*unset it", done.stderr)


def test_where_texts_go_is_said_first() -> None:
    said: list[str] = []
    address = "http://no-such-host.invalid/v1"
    with pytest.raises(EngineError, match="no server answers"):
        OpenAIEngine.connect(spec("plain"), address, None, window=9, notify=said.append)
    assert said == [f"note texts will leave this machine: they go to {address}, unencrypted"]


# ── pure parts ───────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:11434",
        "ftp://host",
        "http://",
        "http://host:99999",
        "http://a b",
        "http://u:pw@host",
        "http://[::1",
        "http://h?x=1",
    ],
)
def test_bad_addresses(url: str) -> None:
    with pytest.raises(SettingsError, match="OLLAMA_URL") as error:
        parse_address(url, "OLLAMA_URL")
    assert "\n" not in str(error.value)
    assert "pw" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://localhost:1/", True),
        ("http://127.9.9.9", True),
        ("http://[::1]:5", True),
        ("https://api.openai.com/v1", False),
        ("http://192.168.1.5:11434", False),
        ("http://127.0.0.1.evil.example", False),
    ],
)
def test_local_addresses(url: str, local: bool) -> None:
    address = parse_address(url, "OLLAMA_URL")
    assert address.local is local
    assert not address.url.endswith("/")


@pytest.mark.parametrize(
    ("name", "query", "document"),
    [
        ("nomic-ai/nomic-embed-text-v1.5", "search_query: ", "search_document: "),
        ("text-embedding-nomic-embed-text-v1.5", "search_query: ", "search_document: "),
        ("mxbai-embed-large:335m", "Represent this sentence for searching relevant passages: ", ""),
        ("intfloat/multilingual-e5-base", "query: ", "passage: "),
        ("embeddinggemma", "task: search result | query: ", "title: none | text: "),
        ("snowflake-arctic-embed2", "query: ", ""),
        ("all-minilm", "", ""),
        ("bge-m3", "", ""),
        ("bge-large", "Represent this sentence for searching relevant passages: ", ""),
        ("BAAI/bge-large-zh-v1.5", "", ""),
    ],
)
def test_prefixes(name: str, query: str, document: str) -> None:
    model = with_prefixes(spec(name))
    assert (model.query_prefix, model.document_prefix) == (query, document)


def test_instruct_prefixes_and_names() -> None:
    assert with_prefixes(spec("qwen3-embedding:0.6b")).query_prefix.endswith("\nQuery:")
    assert with_prefixes(spec("intfloat/multilingual-e5-large-instruct")).document_prefix == ""
    assert base_name("hf.co/Org/Model-GGUF:Q8") == "model-gguf"


def test_pack_keeps_order_and_budget() -> None:
    assert list(pack([5, 5, 5, 20, 1, 1], 10, 99)) == [[0, 1], [2], [3], [4, 5]]
    assert list(pack([1] * 5, 10, 2)) == [[0, 1], [2, 3], [4]]
    assert list(pack([], 10, 2)) == []


def test_tokenizer_estimates() -> None:
    tokenizer = ServerTokenizer()
    assert [tokenizer.count(text) for text in ("", "the cat", "extraordinary", "가나다", "漢字 one", "a.b")] == [
        0,
        2,
        5,
        3,
        3,
        2,
    ]
    assert len(tokenizer.encode(["the cat"])[0]) == 4
    assert len(tokenizer.encode(["word " * 100], 16)[0]) == 16
    parts = ["One part, here.", "둘째 부분"]
    joined = tokenizer.encode_plain(["\n".join(parts)])[0]
    assert len(joined) == sum(map(len, tokenizer.encode_plain(parts)))
    for text in ("word " * 100, "漢" * 100, "x" * 400, "🙂" * 40):
        cut = tokenizer.cut(text, 20)
        assert text.startswith(cut)
        assert 12 <= tokenizer.count(cut) <= 18
    assert tokenizer.cut("short", 20) == "short"


def test_a_rate_limit_that_speaks_of_tokens_neither_cuts_a_text_nor_fails_it() -> None:
    said = "Rate limit reached on tokens per min (TPM): Limit 1000000, Used 999000. Please try again in 60ms."
    asked: list[str] = []

    class Limited(ServerEngine):
        name, setting, streams = "openai", "OPENAI_URL", 1

        def _read_facts(self) -> None:
            self.model = replace(self.model, dim=4, max_tokens=512)

        def _ask(self, texts: Sequence[str], timeout: float) -> Any:
            del timeout
            if sum(map(len, texts)) > 150:
                raise refusal(429, said)
            asked.extend(texts)
            return [[len(text), 1, 2, 3] for text in texts]

    address = parse_address("http://127.0.0.1:1", "OPENAI_URL")
    engine = Limited(
        ModelSpec("m", "server"), address, window=2000, max_texts=32, patience=Patience(backoff=0.001), notify=print
    ).connected()
    texts = ["word " * 50 for _ in range(4)]
    with pytest.raises(EngineError, match=r"takes no more just now .*repeat the command later"):
        engine.embed_documents(texts)
    assert all(len(text) < 100 for text in asked)  # the probe alone
