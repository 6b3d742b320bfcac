"""Which models a run embeds with, and their engines: loaded when first needed, a new index's first one while notes are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from vaultvec.choice import Choice, choose_models, server_model
from vaultvec.datatypes import NoteFile
from vaultvec.engines.base import Engine
from vaultvec.models import ModelSpec, resolve
from vaultvec.settings import Settings

EngineFactory = Callable[..., Engine]


class EngineLoader:
    """The engines of one run. `build` makes one: (settings, model, models folder, notify) → Engine."""

    def __init__(self, settings: Settings, build: EngineFactory, notify: Callable[[str], None]) -> None:
        self._settings = settings
        self._factory = build
        self._notify = notify
        self.connected: Engine | None = None  # the server engine, when config.py asks for one
        self._early: tuple[ModelSpec, Future[Engine]] | None = None

    def choose(self, vault: Path, files: Sequence[NoteFile], again: bool) -> Choice:
        """The models of this index. A server is asked at once: only it knows its model's dimensions and version."""
        if not self._settings.server:
            return choose_models(self._settings, vault, files, again=again)
        model = resolve(server_model(self._settings))
        self.connected = self._build(model)
        return Choice((self.connected.model,), f"config.py asks for {model.name} on {self.connected.device}")

    def begin(self, model: ModelSpec) -> None:
        """Load a model in a thread: it will be needed, and reading does not need it."""
        if not self.connected:
            loader = ThreadPoolExecutor(1, thread_name_prefix="model")
            self._early = model, loader.submit(self._build, model)
            loader.shutdown(wait=False)

    def engine(self, model: ModelSpec) -> Engine:
        """The model, wherever it was loaded first. The first one is not asked for where its texts were all known."""
        if self.connected:
            return self.connected
        if self._early and self._early[0] == model:
            early, self._early = self._early[1], None
            return early.result()
        return self._build(model)

    def close(self) -> None:
        """Hang up on a server, also when there was nothing to embed; let go of a model that was not needed."""
        if self.connected:
            self.connected.close()
        if self._early and self._early[1].done() and not self._early[1].exception():
            self._early[1].result().close()

    def _build(self, model: ModelSpec) -> Engine:
        return self._factory(self._settings, model, self._settings.models_dir, self._notify)
