"""What servers with OpenAI's `/v1/embeddings` answer: limits, vectors, refusals, when to come back."""

from __future__ import annotations

import base64
import math
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from vaultvec.engines.server_refusals import RequestRejected

if TYPE_CHECKING:
    import httpx

LLAMA_CONTEXTS = ("n_ctx", "n_ctx_train")  # as started, as trained


def context_of(info: dict[str, Any], entry: dict[str, Any]) -> int:
    """Tokens a text may have, by /info or by the row of /v1/models; 0 when neither tells."""
    meta = entry.get("meta") if isinstance(entry.get("meta"), dict) else {}  # llama.cpp
    told = (info.get("max_input_length"), entry.get("max_model_len"), *((meta or {}).get(k) for k in LLAMA_CONTEXTS))
    return min((value for value in told if isinstance(value, int) and value > 0), default=0)


def json_of(response: httpx.Response) -> Any:
    """The answer. Raises RequestRejected when it is none, such as a web page."""
    try:
        return response.json()
    except ValueError:
        raise RequestRejected("the answer is not JSON") from None


def message_of(response: httpx.Response) -> str:
    """The server's own words: OpenAI's {"error": {"message"}}, vLLM's {"message"}, TEI's {"error"}, or plain text.

    infinity answers {"detail": [{"msg", "input"}]}, where `input` is the texts: those are not repeated.
    """
    try:
        said = response.json()
    except ValueError:
        return response.text
    for key in ("error", "message", "detail"):
        said = said[key] if isinstance(said, dict) and key in said else said
    if isinstance(said, list):
        return "; ".join(sorted({str(row["msg"]) for row in said if isinstance(row, dict) and "msg" in row}))
    return str(said)


def rows_of(answer: Any, count: int) -> list[Any]:
    """Rows in the order of the texts; base64 is float32, little-endian."""
    try:
        data = answer["data"]
        order = [int(row.get("index", i)) for i, row in enumerate(data)]
        rows = {i: _decoded(row["embedding"]) for i, row in zip(order, data, strict=True)}
    except (KeyError, TypeError, ValueError, AttributeError):
        raise RequestRejected("the answer is not what /v1/embeddings sends") from None
    if sorted(order) != list(range(count)):
        raise RequestRejected(f"the server returned {len(order)} vectors for {count} texts")
    return [rows[i] for i in range(count)]


def _decoded(embedding: Any) -> Any:
    return np.frombuffer(base64.b64decode(embedding), dtype="<f4") if isinstance(embedding, str) else embedding


def retry_after(response: httpx.Response) -> float | None:
    """Seconds that Retry-After asks for, given as a number or a date; None without one."""
    value = response.headers.get("retry-after", "")
    try:
        seconds = float(value)
        return seconds if math.isfinite(seconds) else None
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
