"""A small server that speaks Ollama's and OpenAI's embedding protocols, faults included. Run: python protocol_server.py

It prints its port, serves until its standard input closes, and never sees the code that it tests. A vector is a pure
function of the text. The model's name says what goes wrong (`MODEL@FAULT`, anything after a `+` makes it unique);
`GET /log/MODEL` returns what was asked of a model, `/flying/MODEL` how many requests for it are under way, and
`/release/x` lets those go that hang. Started with `mortal`, it dies of a poisoned text. Paths under
/old lack /api/embed, those under /moved redirect to the rest, and under /web there is no API at all.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import struct
import sys
import threading
import time
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

DIM = 16
CONTEXT = 512
MODELS = ("nomic-embed-text:latest", "plain:latest")
KEY = "sk-right"
POISON = "POISON"
lock = threading.Lock()
asked: dict[str, list[dict[str, Any]]] = defaultdict(list)
flying: dict[str, int] = defaultdict(int)
away: dict[str, int] = defaultdict(int)  # requests that a model does not answer because it starts again
released = threading.Event()


def vector(text: str) -> list[float]:
    """Unit vector, a pure function of the text."""
    digest = hashlib.shake_256(text.encode()).digest(DIM * 2)
    raw = [value / 32768 - 1 for value in struct.unpack(f"<{DIM}H", digest)]
    norm = sum(x * x for x in raw) ** 0.5
    return [x / norm for x in raw]


class Fail(Exception):
    """An HTTP status with its body and headers."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers


class Protocol(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else every answer waits 40 ms for the client's delayed ACK

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self.answer(None)

    def do_POST(self) -> None:
        self.answer(json.loads(self.rfile.read(int(self.headers["content-length"]))))

    def answer(self, body: dict[str, Any] | None) -> None:
        path = self.path
        self.old = path.startswith("/old/")
        self.openai = "/v1/" in path
        path = path.removeprefix("/old")
        try:
            route = getattr(self, "route" + path.replace("/", "_").replace(".", "_"), None)
            if path.startswith("/moved/"):
                raise Fail(307, "moved", location=path.removeprefix("/moved"))
            if path.startswith("/log/"):
                self.send(200, asked[path.removeprefix("/log/")])
            elif path.startswith("/flying/"):
                self.send(200, flying[path.removeprefix("/flying/")])
            elif path.startswith("/release/"):
                released.set()
                self.send(200, True)
            elif route is None or (self.old and path == "/api/embed"):
                self.send_text(404, "404 page not found")
            else:
                result = route(body)
                if isinstance(result, str):
                    self.send_text(200, result)
                elif result is not None:
                    self.send(200, result)
        except Fail as fail:
            error: Any = {"message": fail.message, "type": "error"} if self.openai else fail.message
            self.send(fail.status, {"error": error}, **fail.headers)

    def send(self, status: int, value: Any, **headers: str) -> None:
        self.send_text(status, json.dumps(value), "application/json", **headers)

    def send_text(self, status: int, text: str, kind: str = "text/plain", **headers: str) -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    # ── Ollama ───────────────────────────────────────────────────────────────────────────────────────────────────────
    def route_api_tags(self, _: Any) -> Any:
        named = [f"{model}:latest" for model in list(asked) if "@" in model]
        return {"models": [{"model": m, "name": m, "digest": f"digest-of-{m}"} for m in (*MODELS, *named)]}

    def route_api_show(self, body: dict[str, Any]) -> Any:
        name = body["model"]
        if "missing" in name:
            raise Fail(404, f"model '{name}' not found")
        info: dict[str, Any] = {"general.architecture": "bert"}
        if "noinfo" not in name:
            info |= {"bert.context_length": CONTEXT, "bert.embedding_length": DIM}
        return {"model_info": info, "parameters": "num_ctx    400" if "num_ctx" in name else "", "details": {}}

    def route_api_embed(self, body: dict[str, Any]) -> Any:
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        rows = self.embed(body, texts)
        return rows if isinstance(rows, str) or rows is None else {"model": body["model"], "embeddings": rows}

    def route_api_embeddings(self, body: dict[str, Any]) -> Any:
        rows = self.embed(body, [body["prompt"]])
        return {"embedding": [7.5 * x for x in rows[0]]}  # not normalised, as old versions do

    # ── OpenAI ───────────────────────────────────────────────────────────────────────────────────────────────────────
    def route_v1_models(self, _: Any) -> Any:
        self.authorise()
        named = [{"id": model} for model in list(asked) if "@" in model and "unlisted" not in model]
        meta = {"n_ctx": 300, "n_ctx_train": 512}  # llama.cpp's words: as started, as trained
        rows = [{"id": "long", "max_model_len": 3000}, {"id": "plain"}, {"id": "org/Renamed-v1", "meta": meta}]
        return {"object": "list", "data": rows + named}

    def route_info(self, _: Any) -> Any:
        return "<html>a page for every address</html>"

    def route_v1_embeddings(self, body: dict[str, Any]) -> Any:
        self.authorise()
        name = body["model"]
        form = body.get("encoding_format", "float")
        if "leaky" in name:
            raise Fail(400, f"cannot read this: {self.headers['authorization']}")
        if "nobase64" in name and form == "base64":
            raise Fail(400, "encoding_format must be 'float'")
        if "echo" in name and POISON in str(body["input"]):  # as infinity does
            detail = [{"type": "string_too_long", "msg": "String is not right", "input": body["input"]}] * 2
            return self.send(422, {"detail": detail})
        rows = self.embed(body, body["input"])
        if isinstance(rows, str) or rows is None:
            return rows
        packed = form == "base64" and "ignores64" not in name
        data = [
            {"index": i, "object": "embedding", "embedding": pack(row) if packed else row} for i, row in enumerate(rows)
        ]
        return {"object": "list", "model": name, "data": data[::-1] if "shuffled" in name else data}

    def authorise(self) -> None:
        given = self.headers.get("authorization", "")
        if given and given != f"Bearer {KEY}":
            raise Fail(401, f"Incorrect API key provided: {given.removeprefix('Bearer ')}")

    # ── both ─────────────────────────────────────────────────────────────────────────────────────────────────────────
    def embed(self, body: dict[str, Any], texts: list[str]) -> Any:
        """Rows for texts, or a fault: a str is sent as it stands, None means that the connection is gone."""
        name = body["model"]
        with lock:
            flying[name] += 1
            record = {key: value for key, value in body.items() if key != "input"}
            asked[name].append(record | {"texts": texts, "flying": flying[name], "at": time.monotonic()})
            turn = len(asked[name])
        try:
            return self.faulty(name.partition("@")[2].partition("+")[0], body, texts, turn)
        finally:
            with lock:
                flying[name] -= 1

    def faulty(self, fault: str, body: dict[str, Any], texts: list[str], turn: int) -> Any:
        poisoned = any(POISON in text for text in texts)
        if "missing" in body["model"]:
            raise Fail(404, f'model "{body["model"]}" not found, try pulling it first')
        if not texts or texts == [""]:
            return []
        if any(len(text) > 4 * CONTEXT for text in texts):
            raise Fail(400, "the input length exceeds the context length")
        if fault == "tight" and any(len(text) > 100 for text in texts):
            raise Fail(400, "the input length exceeds the context length")
        if fault == "tight500" and any(len(text) > 100 for text in texts):  # llama.cpp
            raise Fail(500, "input (999 tokens) is too large to process. increase the physical batch size")
        if fault == "restarts":  # a poisoned text brings it down; it is back after four requests
            down = away[body["model"]]
            away[body["model"]] = down - 1 if down else 4 * poisoned
            if down or poisoned:
                self.close_connection = True
                return None
        if poisoned and "mortal" in asked:
            os._exit(1)
        if poisoned and fault == "hang":
            released.wait()
        if fault == "flaky" and turn % 3:
            raise Fail(500, "do embedding request: EOF")
        if fault == "full" and turn <= 2:
            raise Fail(503, "server busy, please try again. maximum pending requests exceeded")
        if fault == "limited" and turn == 3:
            raise Fail(429, "slow down", retry_after="0.3")
        if fault == "broken":
            raise Fail(500, "llama runner process has terminated")
        if poisoned and fault == "poison":
            raise Fail(400, "invalid input")
        if poisoned and fault == "nan500":
            raise Fail(500, "failed to encode response: json: unsupported value: NaN")
        if poisoned and fault == "slow":
            time.sleep(3)
        if fault == "sleepy":
            time.sleep(0.03)
        if (poisoned and fault == "drop") or (fault == "dropfirst" and turn == 1):
            self.send_response(200)
            self.send_header("content-length", "100000")
            self.end_headers()
            self.wfile.write(b'{"model":')
            self.close_connection = True
            return None
        if poisoned and fault == "notjson":
            return "<html>504</html>"
        rows = [vector(text) for text in texts]
        if fault == "drift" and len(texts) > 1:
            rows = [vector("drifted " + text) for text in texts]
        if fault == "retrained" and turn > 2:
            rows = [vector("retrained " + text) for text in texts]
        if fault == "rounded":
            rows = [[x + 1e-4 * (-1) ** turn for x in row] for row in rows]
        if fault == "narrow" and turn > 1:
            rows = [row[:8] for row in rows]
        if poisoned:
            bad = next(i for i, text in enumerate(texts) if POISON in text)
            rows[bad] = {"nan": [float("nan")] * DIM, "zero": [0.0] * DIM, "hollow": []}.get(fault, rows[bad])
            if fault == "short":
                rows = rows[:-1]
        return rows


def pack(row: list[float]) -> str:
    """Base64 of float32, little-endian."""
    return base64.b64encode(struct.pack(f"<{len(row)}f", *row)).decode()


def main() -> None:
    for model in sys.argv[1:]:  # pulled from the start
        asked[model] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Protocol)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
