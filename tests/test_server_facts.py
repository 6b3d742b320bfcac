"""What a busy server does not tell at once is asked for again: a guess would enter the fingerprint."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from protocol_server import DIM, vector

from vaultvec.engines.ollama_engine import OllamaEngine
from vaultvec.engines.openai_engine import OpenAIEngine
from vaultvec.engines.server_engine import ServerEngine
from vaultvec.engines.server_patience import Patience
from vaultvec.errors import EngineError
from vaultvec.models import ModelSpec

PATIENCE = Patience(retries=3, backoff=0.005, load_seconds=5.0)
SPEC = ModelSpec("m", "transformer")
FACTS = {
    "/v1/models": {"data": [{"id": "m"}]},
    "/info": {"model_id": "m", "model_sha": "abc123", "max_input_length": 400, "max_client_batch_size": 8},
    "/api/tags": {"models": [{"name": "m:latest", "model": "m:latest", "digest": "d1"}]},
    "/api/show": {"model_info": {"bert.context_length": 400, "bert.embedding_length": DIM}, "parameters": ""},
}


class Scripted:
    """A server whose next answers at an address can be set: (path, statuses before the right answer)."""

    def __init__(self) -> None:
        self.before: dict[str, list[int]] = defaultdict(list)
        self.asked: dict[str, int] = defaultdict(int)
        self.sizes: list[int] = []  # texts of each embedding request
        self.most = 1000  # texts of a request that are not refused
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                """Say nothing."""

            def do_GET(self) -> None:
                self.answer({})

            def do_POST(self) -> None:
                self.answer(json.loads(self.rfile.read(int(self.headers["content-length"]))))

            def answer(self, body: dict[str, Any]) -> None:
                outer.asked[self.path] += 1
                status, content = outer.reply(self.path, body)
                data = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def reply(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if self.before[path]:
            return self.before[path].pop(0), {"error": "busy"}
        if path == "/v1/embeddings":
            self.sizes.append(len(body["input"]))
            if len(body["input"]) > self.most:
                return 422, {"error": f"batch size {len(body['input'])} > maximum allowed batch size {self.most}"}
            rows = [{"index": i, "embedding": vector(text)} for i, text in enumerate(body["input"])]
            return 200, {"data": rows}
        return (200, FACTS[path]) if path in FACTS else (404, {"error": "no"})


@pytest.fixture
def server() -> Iterator[Scripted]:
    scripted = Scripted()
    thread = threading.Thread(target=scripted.http.serve_forever, daemon=True)
    thread.start()
    yield scripted
    scripted.http.shutdown()
    scripted.http.server_close()
    thread.join()


def openai(server: Scripted) -> OpenAIEngine:
    return OpenAIEngine.connect(
        SPEC, server.url + "/v1", None, window=100, notify=lambda _: None, patience=PATIENCE, streams=1
    )


def ollama(server: Scripted) -> OllamaEngine:
    return OllamaEngine.connect(SPEC, server.url, window=100, notify=lambda _: None, patience=PATIENCE)


ADDRESSES: list[tuple[Callable[[Scripted], ServerEngine], str]] = [
    (openai, "/v1/models"), (openai, "/info"), (ollama, "/api/tags"), (ollama, "/api/show"),
]  # fmt: skip


@pytest.mark.parametrize(("connect", "path"), ADDRESSES)
@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_moment_does_not_change_the_fingerprint(
    server: Scripted, connect: Callable[[Scripted], ServerEngine], path: str, status: int
) -> None:
    calm = connect(server)
    server.before[path] = [status, status]
    busy = connect(server)
    assert busy.fingerprint == calm.fingerprint
    assert busy.model.max_tokens == 400
    calm.close()
    busy.close()


@pytest.mark.parametrize(("connect", "path"), ADDRESSES)
def test_a_server_that_stays_busy_is_one_line(
    server: Scripted, connect: Callable[[Scripted], ServerEngine], path: str
) -> None:
    server.before[path] = [503] * 99
    with pytest.raises(EngineError, match=r"does not tell .*503") as told:
        connect(server)
    assert "\n" not in str(told.value)
    assert server.asked[path] == 1 + PATIENCE.retries


@pytest.mark.parametrize("status", [400, 404, 405, 501])
def test_an_address_that_a_server_has_not_is_asked_once(server: Scripted, status: int) -> None:
    server.before["/info"] = [status] * 9
    engine = openai(server)
    assert (server.asked["/info"], engine.model.max_tokens) == (1, 512)
    engine.close()


def test_a_limit_of_texts_that_is_not_told_is_learnt(server: Scripted) -> None:
    server.before["/info"] = [404] * 9
    server.most = 4
    engine = openai(server)
    texts = [f"text {i}" for i in range(96)]
    assert engine.embed_documents(texts).shape == (96, DIM)
    assert engine.max_texts == 4
    server.sizes.clear()
    engine.embed_documents(texts)
    assert max(server.sizes) == 4
    engine.close()
