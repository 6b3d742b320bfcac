"""Ollama: `/api/embed` with arrays, through the official client; `/api/embeddings`, one text at a time, on old servers.

Facts about the server: https://github.com/ollama/ollama/blob/main/docs/api.md
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vaultvec.engines.base import Notify
from vaultvec.engines.server_address import Address, client_error, parse_address
from vaultvec.engines.server_engine import CONNECT_SECONDS, UNKNOWN_CONTEXT, ServerEngine
from vaultvec.engines.server_models import OLLAMA_NAMES
from vaultvec.engines.server_patience import Patience
from vaultvec.engines.server_refusals import RequestRejected, ServerAbsent, ServerBusy, refusal
from vaultvec.errors import EngineError, ModelError
from vaultvec.models import ModelSpec

if TYPE_CHECKING:
    from pathlib import Path

    import ollama

    from vaultvec.settings import Settings

KEEP_ALIVE = "30m"  # so that the model is not unloaded while a long note is read; Ollama's own default is 5m
SAFE_CONTEXT = 2048  # tokens: Ollama's num_batch; a longer text is refused by some versions whatever the model takes
MAX_TEXTS = 256  # texts a request, when they are short
STREAMS = 2  # Ollama embeds one text at a time whatever comes in: the second request only hides HTTP


class OllamaEngine(ServerEngine):
    """A model that Ollama serves."""

    name = "ollama"
    setting = "OLLAMA_URL"
    streams = STREAMS

    def __init__(self, model: ModelSpec, address: Address, *, window: int, patience: Patience, notify: Notify) -> None:
        super().__init__(model, address, window=window, max_texts=MAX_TEXTS, patience=patience, notify=notify)
        self.served_name = OLLAMA_NAMES.get(model.name.lower(), model.name)
        self._clients: dict[float, ollama.Client] = {}  # one a timeout: the client takes it only when it is made
        self._clients_lock = threading.Lock()
        self._single = False  # an old server without /api/embed

    @classmethod
    def build(cls, settings: Settings, model: ModelSpec, models_dir: Path, notify: Notify) -> OllamaEngine:
        """`connect` with the address from config.py; nothing is kept in `models_dir`."""
        del models_dir
        window, streams = settings.embedding_batch_size, settings.streams
        return cls.connect(model, settings.ollama_url, window=window, notify=notify, streams=streams)

    @classmethod
    def connect(
        cls,
        model: ModelSpec,
        url: str,
        *,
        window: int,
        notify: Notify,
        patience: Patience | None = None,
        streams: int | None = None,
    ) -> OllamaEngine:
        """Ask the server for the model's digest, context and dim.

        Raises SettingsError (address), EngineError (not running), ModelError (not pulled): one line, what to type.
        """
        address = parse_address(url, cls.setting)
        if not address.local:
            notify(f"note texts will leave this machine: they go to Ollama at {address.url}")
        engine = cls(model, address, window=window, patience=patience or Patience(), notify=notify)
        engine.streams = streams or STREAMS
        return engine.connected()

    def close(self) -> None:
        """Close the connections. The server unloads the model by itself, after KEEP_ALIVE."""
        super().close()
        while self._clients:
            http: Any = self._clients.popitem()[1]
            http.close()

    def _read_facts(self) -> None:
        digest = self._digest()
        context, dim = self._shape()
        self.model = replace(
            self.model, revision=f"ollama:{digest}", dim=dim, max_tokens=min(context or UNKNOWN_CONTEXT, SAFE_CONTEXT)
        )
        if not dim:
            advice = "choose an embedding model, e.g.: ollama pull nomic-embed-text"
            self.model = replace(self.model, dim=len(self._first_vector(self.served_name, advice)))

    def _digest(self) -> str:
        """Digest of the pulled model, from /api/tags."""
        try:
            models = self._fact(
                lambda: self._call(lambda client: client.list().models, CONNECT_SECONDS), "which models it has"
            )
        except ServerAbsent as error:
            raise self._not_running(error) from None
        except RequestRejected:
            raise EngineError(
                f"what answers at {self.device} is not Ollama; set OLLAMA_URL in config.py, "
                "expected something like http://127.0.0.1:11434"
            ) from None
        wanted = self.served_name if ":" in self.served_name else f"{self.served_name}:latest"
        for entry in models:
            if (entry.model or "").lower() == wanted.lower():
                return entry.digest or ""
        raise self._not_pulled([entry.model or "" for entry in models])

    def _not_running(self, error: Exception) -> EngineError:
        return EngineError(
            f"no Ollama answers at {self.device} ({error}); start it with: ollama serve (or set OLLAMA_URL in config.py)"
        )

    def _not_pulled(self, pulled: Sequence[str] = ()) -> ModelError:
        has = f" (it has: {', '.join(pulled[:8])})" if pulled else ""
        return ModelError(
            f"Ollama at {self.device} has no model {self.served_name!r}{has}; run: ollama pull {self.served_name}"
        )

    def _shape(self) -> tuple[int, int]:
        """Context (tokens) and dim from /api/show; 0 for what an old server leaves out."""
        try:
            shown = self._fact(
                lambda: self._call(lambda client: client.show(self.served_name), self._retries.patience.load_seconds),
                f"the context of {self.served_name}",
            )
        except ServerAbsent as error:
            raise self._not_running(error) from None
        except RequestRejected:
            return 0, 0
        info = shown.modelinfo or {}
        context = _number(info, ".context_length")
        setting = re.search(r"^num_ctx\s+(\d+)", shown.parameters or "", re.MULTILINE)
        if setting:
            context = min(context or int(setting[1]), int(setting[1]))
        return context, _number(info, ".embedding_length")

    def _ask(self, texts: Sequence[str], timeout: float) -> Any:
        if self._single:
            return [self._ask_old(text, timeout) for text in texts]
        rows = self._call(lambda client: self._embed(client, texts), timeout)
        if rows is None:
            self._single = True
            self.notify("this Ollama is too old for /api/embed: texts go one at a time; update it for more speed")
            return [self._ask_old(text, timeout) for text in texts]
        return rows

    def _embed(self, client: ollama.Client, texts: Sequence[str]) -> Any:
        """Rows of /api/embed, None where there is no such address. Too long a text is to be refused, not cut."""
        import ollama

        try:
            answer = client.embed(self.served_name, list(texts), truncate=False, keep_alive=KEEP_ALIVE)
        except ollama.ResponseError as error:
            if error.status_code == 404 and "model" not in str(error.error).lower():
                return None
            raise
        return answer.embeddings

    def _ask_old(self, text: str, timeout: float) -> Any:
        return self._call(
            lambda client: client.embeddings(self.served_name, text, keep_alive=KEEP_ALIVE).embedding, timeout
        )

    def _call(self, request: Any, timeout: float) -> Any:
        """Run a request; every failure becomes ServerBusy, RequestRejected, EngineError or ModelError."""
        client = self._client(timeout)
        import ollama

        try:
            return request(client)
        except ollama.ResponseError as error:
            raise self._refusal(error.status_code, str(error.error).strip()[:200]) from None
        except ConnectionError:
            raise ServerAbsent("the connection was refused") from None
        except Exception as error:  # the client lets its HTTP library's errors through, and pydantic's
            kinds = {kind.__name__ for kind in type(error).__mro__}
            if "TimeoutException" in kinds:
                raise ServerBusy(f"no answer within {timeout:.0f} s", timed_out=True) from None
            if "TransportError" in kinds:
                raise ServerBusy(f"the connection broke off: {error}") from None
            if kinds & {"ValueError", "TypeError", "AttributeError", "KeyError"}:
                raise RequestRejected("the answer is not what Ollama sends") from None
            raise

    def _refusal(self, status: int, text: str) -> Exception:
        reason = f"{status}: {text}"
        if status == 404 and "model" in text.lower():
            return self._not_pulled()
        if status in (401, 403):
            return EngineError(f"{self.device} refuses access ({status}); check OLLAMA_URL in config.py")
        if "nan" in re.findall(r"[a-z]+", text.lower()):  # 500 in older versions, but trying again brings the same
            return RequestRejected(reason)
        return refusal(status, reason)

    def _client(self, timeout: float) -> ollama.Client:
        """A client with at least this timeout (s), in powers of two, so that few are made."""
        try:
            import ollama  # makes a client of its own at once, with the environment's proxy
        except (ImportError, ValueError) as error:
            raise client_error(error, 'ENGINE = "ollama" needs its client; run: pip install ollama') from None
        allowed = 0.125
        while allowed < timeout:
            allowed *= 2
        with self._clients_lock:
            if allowed not in self._clients:
                # No redirects and, on this machine, no proxy: texts go to the named address and nowhere else.
                self._clients[allowed] = ollama.Client(
                    self.address.url,
                    timeout=(CONNECT_SECONDS, allowed, allowed, allowed),
                    follow_redirects=False,
                    trust_env=not self.address.local,
                    verify=self.address.encrypted,
                )
            return self._clients[allowed]


def _number(info: Any, ending: str) -> int:
    """First whole number under a key with this ending, e.g. `bert.context_length`; 0 when there is none."""
    return next((int(value) for key, value in info.items() if key.endswith(ending) and isinstance(value, int)), 0)
