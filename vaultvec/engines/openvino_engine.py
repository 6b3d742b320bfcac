"""Any transformer on the CPU by OpenVINO: batches under a token budget, several at a time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vaultvec.cores import usable_cores
from vaultvec.datatypes import Batch, Vectors
from vaultvec.engines.base import Engine, Notify
from vaultvec.engines.openvino_precision import choose_precision, graph_for
from vaultvec.engines.openvino_runtime import CompiledModel, default_streams
from vaultvec.engines.prepare import Prepared, prepare_graph
from vaultvec.engines.tokenizer import HfTokenizer
from vaultvec.errors import EngineError
from vaultvec.models import ModelSpec

if TYPE_CHECKING:
    from vaultvec.settings import Settings

# Padded tokens a batch. Tuned on two AVX2 cores with all-MiniLM-L6-v2, then padded: 114 of the 125 GFLOP/s these cores can give.
TOKEN_BUDGET = 2048
# Starting a batch costs almost nothing here: batches of 100 tokens ran as fast as batches of 2,000 (same machine), so
# batches of equal lengths are worth more than full ones, to attention and to models that pad throughout.
START_COST = 64


class OpenVinoEngine(Engine):
    """A compiled sentence encoder. `_forward` runs in up to `streams` threads."""

    name = "openvino"
    device = "cpu"
    start_cost = START_COST

    def __init__(
        self,
        prepared: Prepared,
        *,
        precision: str = "fp32",
        floats: str = "fp32",
        streams: int | None = None,
        threads: int | None = None,
        token_budget: int | None = None,
        window: int = 2000,
    ) -> None:
        """None: all usable cores, one stream for each two of them, TOKEN_BUDGET. `precision` must be native; for "int8",
        `floats` is that of the parts which stay floats.
        """
        super().__init__(
            prepared.spec, HfTokenizer(prepared.tokenizer), token_budget=token_budget or TOKEN_BUDGET, window=window
        )
        threads = threads or usable_cores()
        self.precision = precision
        self.streams = streams or default_streams(threads)
        self._prepared = prepared
        self.pads = prepared.first_position is None
        self._compiled: CompiledModel | None = CompiledModel(
            graph_for(prepared, precision), streams=self.streams, threads=threads,
            precision=floats if precision == "int8" else precision, int8=precision == "int8",
            cache_dir=prepared.graph.parent / "cache",
        )  # fmt: skip

    @classmethod
    def build(cls, settings: Settings, model: ModelSpec, models_dir: Path, notify: Notify) -> OpenVinoEngine:
        """The engine as config.py wants it; the model is prepared first if it is not yet.

        Raises ModelError when the weights cannot be had, or the CPU has not got the precision asked for.
        """
        prepared = prepare_graph(model, models_dir, notify)
        precision = choose_precision(settings.precision, prepared, notify)
        return cls(
            prepared,
            precision=precision,
            floats=choose_precision("auto", prepared, notify) if precision == "int8" else precision,
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
        return self._compiled.infer(self._prepared.inputs([item.token_ids for item in batch.items]))
