"""Any server with OpenAI's `/v1/embeddings`: text-embeddings-inference, vLLM, llama.cpp, LM Studio, infinity, OpenAI.

The request and the answer: https://platform.openai.com/docs/api-reference/embeddings
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from vaultvec.datatypes import Batch, BatchResult
from vaultvec.engines.base import Notify
from vaultvec.engines.openai_answers import context_of, json_of, message_of, retry_after, rows_of
from vaultvec.engines.served_revision import revision_of
from vaultvec.engines.server_address import Address, client_error, parse_address
from vaultvec.engines.server_engine import CONNECT_SECONDS, UNKNOWN_CONTEXT, ServerEngine
from vaultvec.engines.server_models import base_name
from vaultvec.engines.server_patience import Patience
from vaultvec.engines.server_refusals import RequestRejected, ServerAbsent, ServerBusy, refusal
from vaultvec.errors import EngineError, ModelError, SettingsError
from vaultvec.models import ModelSpec

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

    from vaultvec.settings import Settings

MAX_TEXTS = 32  # texts a request: what text-embeddings-inference takes unless told otherwise
LONGEST_CONTEXT = 8192  # tokens; OpenAI's own limit, and more than a chunk ever needs
STREAM_LEVELS = (1, 2, 4, 8)  # requests in flight that are tried, best kept
ROUND_REQUESTS = 2  # requests for each stream and level while they are tried
NOT_IMPLEMENTED = 501  # as clear an answer as 404
WORTHWHILE = 1.1  # a level must be this much faster than the one before


class OpenAIEngine(ServerEngine):
    """A model behind an OpenAI-compatible address. The key lives in the HTTP client's headers and nowhere else."""

    name = "openai"
    setting = "OPENAI_URL"

    def __init__(
        self,
        model: ModelSpec,
        address: Address,
        client: httpx.Client,
        *,
        window: int,
        patience: Patience,
        notify: Notify,
    ) -> None:
        super().__init__(model, address, window=window, max_texts=MAX_TEXTS, patience=patience, notify=notify)
        self._client = client
        self._encoding = "base64"  # half the bytes of decimal numbers, and no parsing; "float" where it is refused
        self._encoding_known = False
        self._tuned = False
        self.served_name = self.model.name
        self.seen: Path | None = None  # folder of the vectors by which models are told apart

    @classmethod
    def build(cls, settings: Settings, model: ModelSpec, models_dir: Path, notify: Notify) -> OpenAIEngine:
        """`connect` with the address from config.py and the key from the environment."""
        return cls.connect(
            model, settings.openai_url, settings.openai_api_key, window=settings.embedding_batch_size, notify=notify,
            streams=settings.streams, seen=models_dir / "served",
        )  # fmt: skip

    @classmethod
    def connect(
        cls,
        model: ModelSpec,
        url: str,
        api_key: str | None,
        *,
        window: int,
        notify: Notify,
        patience: Patience | None = None,
        streams: int | None = None,
        seen: Path | None = None,
    ) -> OpenAIEngine:
        """Say where the texts go, then ask the server for its limits and the length of a vector.

        `streams`: requests in flight, None = measured. `seen`: folder of the vectors by which models are told apart.
        Raises SettingsError (address, key), EngineError (no answer), ModelError (not served): one line.
        """
        address = parse_address(url, cls.setting)
        client = _client(address, api_key)
        notify(_departure(address))
        engine = cls(model, address, client, window=window, patience=patience or Patience(), notify=notify)
        engine.streams, engine._tuned, engine.seen = streams or STREAM_LEVELS[0], streams is not None, seen
        return engine.connected()

    def close(self) -> None:
        """Close the connections."""
        super().close()
        self._client.close()

    def embed_batches(self, batches: Iterable[Batch]) -> Iterator[BatchResult]:
        """As every engine; the first batches try 1, 2, 4, 8 requests in flight and keep the fastest."""
        iterator = iter(batches)
        best = 0.0
        while not self._tuned:
            level = STREAM_LEVELS[0] if not best else STREAM_LEVELS[STREAM_LEVELS.index(self.streams) + 1]
            trial = list(islice(iterator, ROUND_REQUESTS * level))
            if len(trial) < ROUND_REQUESTS * level:  # too few left to judge a level by
                yield from super().embed_batches(trial)
                return
            previous, self.streams = self.streams, level
            busy = self.busy_seconds  # the caller's own work is not in it
            yield from super().embed_batches(trial)
            speed = sum(len(item.text) for batch in trial for item in batch.items) / (self.busy_seconds - busy)
            self._tuned = level == STREAM_LEVELS[-1] or speed < WORTHWHILE * best
            if speed < WORTHWHILE * best:
                self.streams = previous
            best = max(best, speed)
        yield from super().embed_batches(iterator)

    def _read_facts(self) -> None:
        """Context and digest where the server tells them; the length of a vector, and who made it, by a test."""
        entry, names = self._listed()
        info = self._get(f"{self.device.removesuffix('/v1')}/info")  # text-embeddings-inference
        info = info if isinstance(info, dict) else {}
        limit = info.get("max_client_batch_size")
        self.max_texts = min(MAX_TEXTS, limit) if isinstance(limit, int) and limit > 0 else MAX_TEXTS
        context = context_of(info, entry) or self.model.max_tokens or UNKNOWN_CONTEXT
        advice = "check OPENAI_URL and EMBEDDING_MODEL in config.py, then the server's log"
        vector = self._first_vector(self.served_name, advice)
        revision = info.get("model_sha") or revision_of(self.model, vector, self.seen)
        self.model = replace(
            self.model, revision=f"openai:{revision}", max_tokens=min(context, LONGEST_CONTEXT), dim=len(vector)
        )
        if names and not entry:
            self.notify(
                f"the server does not list {self.served_name} but answers, perhaps with another model; "
                f"if so, set EMBEDDING_MODEL in config.py to one that it lists: {', '.join(names[:8])}"
            )

    def _listed(self) -> tuple[dict[str, Any], list[str]]:
        """The model's row of /v1/models, {} without one, and all names there. `served_name` becomes the row's name."""
        listed = self._get(f"{self.device}/models")
        rows = listed.get("data") if isinstance(listed, dict) else None
        rows = [row for row in rows if isinstance(row, dict) and row.get("id")] if isinstance(rows, list) else []
        wanted = self.served_name
        exact = [row for row in rows if row["id"] == wanted]
        alike = exact or [row for row in rows if base_name(str(row["id"])) == base_name(wanted)]
        entry = alike[0] if len(alike) == 1 else {}
        self.served_name = str(entry.get("id", wanted))
        return entry, [str(row["id"]) for row in rows]

    def _get(self, url: str) -> Any:
        """JSON of an address that not every server has, or None where it clearly has not.

        Raises EngineError when there is no server at all, or none that has time to answer.
        """
        try:
            return self._fact(lambda: self._got(url), f"its facts: {url}")
        except ServerAbsent as error:
            raise EngineError(
                f"no server answers at {self.device} ({error}); start it, "
                "or set OPENAI_URL in config.py, expected something like http://127.0.0.1:8080/v1"
            ) from None

    def _got(self, url: str) -> Any:
        import httpx

        try:
            response = self._client.get(url, timeout=CONNECT_SECONDS)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol) as error:
            raise ServerAbsent(self._public(str(error))) from None
        except httpx.TimeoutException:
            raise ServerBusy(f"no answer within {CONNECT_SECONDS:.0f} s", timed_out=True) from None
        except httpx.HTTPError as error:
            raise ServerBusy(f"the connection failed: {self._public(str(error))}") from None
        status = response.status_code
        if status in (401, 403):
            raise self._no_access(status)
        if status != 200:
            again = refusal(status, f"{status}: {self._public(message_of(response))}", retry_after(response))
            if isinstance(again, ServerBusy) and status != NOT_IMPLEMENTED:
                raise again
            return None
        try:
            return json_of(response)
        except RequestRejected:  # a web page: some servers show one at every address they do not know
            return None

    def _ask(self, texts: Sequence[str], timeout: float) -> Any:
        try:
            rows = self._post(texts, timeout)
        except RequestRejected:
            if self._encoding_known or self._encoding == "float":
                raise
            self._encoding = "float"  # an older server may refuse base64; if it refuses this too, it is the texts
            try:
                rows = self._post(texts, timeout)
            except RequestRejected:
                self._encoding = "base64"
                raise
        self._encoding_known = True
        return rows

    def _post(self, texts: Sequence[str], timeout: float) -> Any:
        import httpx

        body = {"model": self.served_name, "input": list(texts), "encoding_format": self._encoding}
        try:
            limit = httpx.Timeout(timeout, connect=CONNECT_SECONDS)
            response = self._client.post(f"{self.device}/embeddings", json=body, timeout=limit)
        except httpx.TimeoutException:
            raise ServerBusy(f"no answer within {timeout:.0f} s", timed_out=True) from None
        except httpx.HTTPError as error:
            raise ServerBusy(f"the connection failed: {self._public(str(error))}") from None
        if response.status_code != 200:
            raise self._refusal(response)
        return rows_of(json_of(response), len(texts))

    def _refusal(self, response: httpx.Response) -> Exception:
        status = response.status_code
        text = self._public(message_of(response))
        if status in (401, 403):
            return self._no_access(status)
        if status == 404 and "model" in text.lower():
            return ModelError(
                f"the server at {self.device} does not serve {self.served_name} ({text}); "
                f"set EMBEDDING_MODEL in config.py to a model it serves: see {self.device}/models"
            )
        if status == 404 or 300 <= status < 400:
            return EngineError(
                f"{self.device}/embeddings is not there ({status}); set OPENAI_URL in config.py, "
                "expected an address that ends in /v1"
            )
        return refusal(status, f"{status}: {text}", retry_after(response))

    def _no_access(self, status: int) -> EngineError:
        return EngineError(
            f"the server at {self.device} refuses access ({status}); set the environment variable OPENAI_API_KEY "
            "to a key that it accepts"
        )

    def _public(self, text: str) -> str:
        """Text of the server without the key, which some servers repeat in their errors."""
        key = self._client.headers.get("authorization", "").removeprefix("Bearer ")
        return " ".join((text.replace(key, "(key)") if key else text).split())[:200]


def _client(address: Address, api_key: str | None) -> httpx.Client:
    """A client that follows no redirect and, on this machine, no proxy: texts go to the named address only."""
    key = (api_key or "").strip()
    if not key.isascii() or any(not c.isprintable() or c.isspace() for c in key):
        raise SettingsError("OPENAI_API_KEY holds characters that no key has; set it again, without quotes or spaces")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        import httpx

        return httpx.Client(
            headers=headers, follow_redirects=False, trust_env=not address.local, verify=address.encrypted
        )
    except (ImportError, ValueError) as error:
        raise client_error(error, 'ENGINE = "openai" needs an HTTP client; run: pip install httpx') from None


def _departure(address: Address) -> str:
    """The line that says where note texts go."""
    if address.local:
        return f"note texts will leave this process: they go to {address.url}, on this machine"
    clear = "" if address.encrypted else ", unencrypted"
    return f"note texts will leave this machine: they go to {address.url}{clear}"
