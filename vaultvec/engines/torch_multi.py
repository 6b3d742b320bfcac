"""Several CUDA cards, one engine each: whichever is free takes the next batch."""

from __future__ import annotations

from collections.abc import Sequence
from queue import SimpleQueue

from vaultvec.datatypes import Batch, Vectors
from vaultvec.engines.base import Engine
from vaultvec.engines.torch_engine import TorchEngine

# Threads that feed one card: while one waits for its vectors, the other has the next batch queued.
THREADS_A_CARD = 2


class MultiGpuEngine(Engine):
    """The same model on several devices. Batches go to the free one; order is kept by the base."""

    name = "torch"

    def __init__(self, engines: Sequence[TorchEngine]) -> None:
        first = engines[0]
        budget = min(engine.token_budget for engine in engines)
        super().__init__(first.model, first.tokenizer, token_budget=budget, window=first.window)
        self.engines = tuple(engines)
        self.device = first.device
        self.precision = first.precision
        self.pads = first.pads
        self.streams = THREADS_A_CARD * len(engines)
        self._free: SimpleQueue[TorchEngine] = SimpleQueue()
        for engine in self.engines * THREADS_A_CARD:
            self._free.put(engine)

    def _forward(self, batch: Batch) -> Vectors:
        engine = self._free.get()
        try:
            return engine._forward(batch)
        finally:
            # A card that failed goes on as a CPU, which would only hold up the others: it steps aside while there are any.
            if engine.device == self.device or all(each.device != self.device for each in self.engines):
                self._free.put(engine)

    def _shrink(self, batch: Batch) -> None:
        """For all cards: batches that are planned already are larger, and each card cuts them to its own budget."""
        super()._shrink(batch)
        for engine in self.engines:
            engine.token_budget = min(engine.token_budget, self.token_budget)

    def close(self) -> None:
        """Release every card."""
        for engine in self.engines:
            engine.close()
