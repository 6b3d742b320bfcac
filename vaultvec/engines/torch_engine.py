"""torch on CUDA, MPS and the CPU: half precision where native, packed tokens, batches queued ahead of their results.

The caller tokenises in its own threads. On CUDA a batch is packed, copied, run and copied back without a wait: while
the device works on one, the next ones are queued behind it, and a result is awaited only when it is handed out.
"""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from vaultvec.batching import plan_batches
from vaultvec.datatypes import Batch, BatchResult, TokenIds, Vectors
from vaultvec.engines import torch_device as hardware
from vaultvec.engines.base import Engine, Notify, Tokenizer, ignore
from vaultvec.engines.torch_encoder import Encoder, EncoderSource, first_line
from vaultvec.errors import BatchTooLarge, EngineError
from vaultvec.models import ModelSpec

if TYPE_CHECKING:
    import torch

    from vaultvec.settings import Settings

CUDA_IN_FLIGHT = 3  # batches queued on a CUDA device while the oldest is awaited


@dataclass(frozen=True)
class _Flight:
    """A batch under way. `host` fills while nobody waits; None if it could not be started."""

    batch: Batch
    host: torch.Tensor | None = None
    clock: hardware.CudaClock | None = None
    order: tuple[int, ...] = ()  # item of each row of `host`; () when they are in order
    host_seconds: float = 0.0

    def wait(self) -> Vectors:
        """The vectors, in the order of the batch."""
        assert self.host is not None, "a flight that could not start is run again instead"
        if self.clock is not None:
            try:
                self.clock.wait()
            except RuntimeError:
                hardware.keep_forever(self.host)
                raise
        rows: Vectors = self.host.numpy()
        if not self.order:
            return rows
        vectors = np.empty_like(rows)
        vectors[list(self.order)] = rows
        return vectors

    @property
    def seconds(self) -> float:
        """What the model took, waiting in the queue not counted; after `wait`."""
        return self.host_seconds if self.clock is None else self.clock.seconds


def cuda_available() -> bool:
    """Whether this build of torch and this machine's driver work together."""
    return hardware.cuda_available()


class TorchEngine(Engine):
    """A sentence-transformers model on one device. Packed tokens where the architecture is known, else padded."""

    name = "torch"

    def __init__(
        self,
        model: ModelSpec,
        tokenizer: Tokenizer,
        *,
        device: str = "auto",
        precision: str = "auto",
        token_budget: int | None = None,
        window: int = 2000,
        gpu_memory_fraction: float = 0.7,
        packed: bool = True,
        compiled: bool = False,
        threads: int | None = None,
        notify: Notify = ignore,
    ) -> None:
        """Load `model` (its `dim` and `max_tokens` known). `token_budget` None goes by the free memory.

        Raises SettingsError for a device or a precision that is not there, ModelError when the weights are not.
        """
        import torch

        if threads is not None:
            torch.set_num_threads(threads)
        super().__init__(model, tokenizer, token_budget=token_budget or hardware.CPU_TOKEN_BUDGET, window=window)
        self._notify = notify
        self._source = EncoderSource(model, tokenizer, packed, notify)
        self._move_lock = Lock()
        self._device = hardware.choose_device(device)
        self.device = self._device.type
        self.precision = hardware.choose_precision(precision, self._device)
        self.in_flight = CUDA_IN_FLIGHT if self.device == "cuda" else 0
        try:
            hardware.limit_memory(self._device, gpu_memory_fraction)
            self._encoder: Encoder
            self._encoder, self.precision = self._source.open(
                self._device, self.precision, compiled=compiled, checked=precision == "auto"
            )
            if token_budget is None:
                needed = self._encoder.bytes_per_token
                self.token_budget = hardware.auto_token_budget(self._device, gpu_memory_fraction, needed)
        except RuntimeError as error:
            if self.device == "cpu":
                raise EngineError(
                    f"{model.name} does not load ({first_line(error)}); run: python main.py doctor"
                ) from error
            self._move_to_cpu(error)
        self.pads = self._encoder.pads

    @classmethod
    def build(cls, settings: Settings, model: ModelSpec, models_dir: Path, notify: Notify) -> Engine:
        """The engine as config.py asks for it; several CUDA cards share the batches."""
        from vaultvec.engines import load_tokenizer, resolve_model

        model = resolve_model(model, models_dir)
        tokenizer = load_tokenizer(model, models_dir)

        def on(device: str) -> TorchEngine:
            return cls(
                model,
                tokenizer,
                device=device,
                precision=settings.precision,
                token_budget=settings.max_tokens_per_batch,
                window=settings.embedding_batch_size,
                gpu_memory_fraction=settings.gpu_memory_fraction,
                packed=not settings.disable_complex_gpu_optimization,
                compiled=settings.torch_compile,
                threads=settings.threads,
                notify=notify,
            )

        devices = hardware.cuda_devices()
        if len(devices) > 1:
            from vaultvec.engines.torch_multi import MultiGpuEngine

            return MultiGpuEngine([on(device) for device in devices])
        return on("auto")

    def close(self) -> None:
        """Release the model and its memory on the device."""
        self.__dict__.pop("_encoder", None)
        hardware.free_cache(self._device)

    def embed_batches(self, batches: Iterable[Batch]) -> Iterator[BatchResult]:
        """Queue up to `in_flight` batches ahead of the one that is awaited; results in order of submission."""
        flights: deque[_Flight] = deque()
        for batch in batches:
            flight = self._try_start(batch)
            flights.append(flight)
            # A batch that could not start waits until those before it have left their memory.
            ahead = self.in_flight if flight.host is not None else 0
            while len(flights) > ahead:
                yield self._land(flights.popleft())
        while flights:
            yield self._land(flights.popleft())

    def _try_start(self, batch: Batch) -> _Flight:
        try:
            return self._start(batch, self._encoder)
        except RuntimeError:  # `_land` runs it again, meets the error again, and deals with it
            return _Flight(batch)

    def _land(self, flight: _Flight) -> BatchResult:
        if flight.host is None:
            return self._embed_one(flight.batch)
        try:
            vectors = flight.wait()
            with self._lock:
                self._busy += flight.seconds
        except RuntimeError:
            return self._embed_one(flight.batch)
        return self._checked(flight.batch, vectors)

    def _forward(self, batch: Batch) -> Vectors:
        while True:
            encoder = self._encoder
            try:
                return self._start(batch, encoder).wait()
            except RuntimeError as error:
                self._recover(error, encoder, alone=len(batch.items) == 1)

    def _start(self, batch: Batch, encoder: Encoder) -> _Flight:
        """Queue one batch and the copy of its vectors. What is beyond the budget (it may have shrunk) goes in parts."""
        import torch

        begun = perf_counter()
        clock = hardware.new_clock(encoder.device)
        rows = [item.token_ids for item in batch.items]
        order: tuple[int, ...] = ()
        lengths = [len(row) for row in rows]
        if max(lengths) * len(rows) <= self.token_budget:
            vectors = self._encode(encoder, rows, clock)
        else:
            plan = plan_batches(lengths, self.token_budget)
            order = tuple(i for part in plan for i in part)
            vectors = torch.cat([self._encode(encoder, [rows[i] for i in part], clock) for part in plan])
        host = hardware.copy_back(vectors)
        if clock is not None:
            clock.stop()
        return _Flight(batch, host, clock, order, perf_counter() - begun)

    def _encode(self, encoder: Encoder, rows: Sequence[TokenIds], clock: hardware.CudaClock | None) -> torch.Tensor:
        """A text without any token, which a tokenizer without special tokens makes of "", has a zero vector: it alone fails."""
        import torch

        full = [i for i, row in enumerate(rows) if len(row)]
        packed = encoder.pack([rows[i] for i in full]) if full else None
        if clock is not None:  # packing is the host's work: the device may have had nothing to do meanwhile
            clock.start()
        if packed is not None and len(full) == len(rows):
            return encoder.run(*packed)
        vectors = torch.zeros((len(rows), self.dim), device=encoder.device)
        if packed is not None:
            vectors[full] = encoder.run(*packed)
        return vectors

    def _recover(self, error: RuntimeError, encoder: Encoder, *, alone: bool) -> None:
        """Make another try worth while: uncompiled, or on the CPU. Raises BatchTooLarge or EngineError if it is not.

        A GPU whose memory does not hold even one text (`alone`) has failed.
        """
        if encoder is not self._encoder:  # another thread has dealt with it
            return
        full = hardware.is_out_of_memory(error)
        if full and not (alone and self.device != "cpu"):
            traceback.clear_frames(error.__traceback__)  # what the failed forward made, else the next ones find no room
            hardware.free_cache(self._device)
            raise BatchTooLarge(first_line(error))
        if encoder.compiled and not full:
            self._notify(f"the compiled model failed ({first_line(error)}); going on without torch.compile")
            encoder.compiled = False
        elif self.device == "cpu":
            raise EngineError(
                f"{self.model.name} failed on the CPU ({first_line(error)}); run: python main.py doctor"
            ) from error
        else:
            self._move_to_cpu(error)

    def _move_to_cpu(self, error: RuntimeError) -> None:
        """Load the model anew on the CPU: what lies on a failed GPU cannot be read any more."""
        import torch

        with self._move_lock:
            if self.device == "cpu":  # another thread was first
                return
            self._notify(f"the GPU failed ({first_line(error)}); going on with the CPU, slower")
            self._device = torch.device("cpu")
            self.precision = "fp32"
            self.token_budget = min(self.token_budget, hardware.CPU_TOKEN_BUDGET)
            self.in_flight = 0
            self._encoder, _ = self._source.open(self._device, "fp32")
            self.device = "cpu"
