"""Which forward a model gets on which device and in which precision, and whether that precision may stand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from vaultvec.datatypes import TokenIds
from vaultvec.engines.base import Notify, Tokenizer
from vaultvec.engines.reference import load_reference, reference_source
from vaultvec.engines.torch_device import CPU_TOKEN_BUDGET, dtype_of
from vaultvec.engines.torch_packed import PackedEncoder
from vaultvec.engines.torch_padded import PaddedEncoder
from vaultvec.engines.torch_weights import Weights, read_folder, read_loaded
from vaultvec.models import ModelSpec

if TYPE_CHECKING:
    import torch

LOWEST_COSINE = 0.999  # of half precision to fp32, or fp32 it is
GPU_COMPILE_TOKENS = 16_384  # of the first batch through a compiled model: large, but no strain on a small card
CHECK_TEXTS = (
    "Zettelkasten",
    "The index keeps a vector for each chunk, keyed by the hash of its text.",
    "옵시디언 보관함의 노트를 의미로 검색한다.",
    "- [ ] call the bank\n- [x] order paper\n- [ ] 2024-03-01 17:45, room 3.14",
    "def embed(texts):\n    return model.encode(texts, batch_size=32)  # slow",
    "Notes link to other notes, and what they have in common shows only later. " * 12,
)
LONG_CHECK_TOKENS = 2048  # of the check's longest text: rounded positions show late, and a CPU must bear it


class Encoder(Protocol):
    """Token ids → unit vectors on a device; on CUDA they are queued, not awaited."""

    device: torch.device
    compiled: bool  # may be switched off, never on
    pads: bool  # whether it computes over padding

    @property
    def bytes_per_token(self) -> int:
        """Memory that a token of a batch takes while it is in the model."""
        ...

    def pack(self, rows: Sequence[TokenIds]) -> tuple[Any, ...]:
        """Texts with a token at least, as `run` takes them, on their way to the device."""
        ...

    @property
    def run(self) -> Callable[..., torch.Tensor]:
        """What `pack` made → (len(rows), dim) float32."""
        ...

    def encode(self, rows: Sequence[TokenIds]) -> torch.Tensor:
        """`run` over what `pack` makes."""
        ...


@dataclass(frozen=True)
class EncoderSource:
    """How to make one model's encoder, as often as it takes."""

    model: ModelSpec
    tokenizer: Tokenizer
    packed: bool
    notify: Notify

    def open(
        self, device: torch.device, precision: str, *, compiled: bool = False, checked: bool = False
    ) -> tuple[Encoder, str]:
        """Read the weights once, put them on the device. Gives the encoder and its precision, which is fp32 in place of
        a half one whose vectors do not agree with fp32's (`checked`). Raises ModelError when the weights cannot be had.
        """
        loaded = self._load()
        rows = self._check_rows()
        exact = None
        if checked and precision != "fp32":  # first, because a padded model is one object that is cast in place
            exact = self._check_vectors(self._place(loaded, device, "fp32"), rows)
        encoder = self._place(loaded, device, precision, compiled)
        if compiled:
            self._compile(encoder, rows)
        if exact is not None:
            lowest = float((exact * self._check_vectors(encoder, rows)).sum(1).min())
            if not lowest >= LOWEST_COSINE:
                self.notify(f"{precision} changes the vectors (lowest cosine {lowest:.4f}); using fp32")
                return self.open(device, "fp32", compiled=compiled)
        return encoder, precision

    def _load(self) -> Any:
        """Weights that run packed, else a SentenceTransformer, which takes 10 s to import: only where it must be."""
        folder = Path(reference_source(self.model))
        weights = read_folder(folder, self.model.pooling) if self.packed and folder.is_dir() else None
        if weights is not None:
            return weights
        reference = load_reference(self.model)
        return (read_loaded(reference) if self.packed else None) or reference

    def _place(self, loaded: Any, device: torch.device, precision: str, compiled: bool = False) -> Encoder:
        dtype = dtype_of(precision)
        if isinstance(loaded, Weights):
            return PackedEncoder(loaded, device, dtype, compiled=compiled)
        return PaddedEncoder(loaded, device, dtype)

    def _compile(self, encoder: Encoder, rows: Sequence[TokenIds]) -> None:
        """Compile now, so that a failure shows now and costs one line.

        A large batch first: the compiler picks its kernels' shapes by the size it sees first.
        """
        if not encoder.compiled:
            self.notify("torch.compile is for packed tokens; this model runs padded and uncompiled")
            return
        tokens = CPU_TOKEN_BUDGET if encoder.device.type == "cpu" else GPU_COMPILE_TOKENS
        large = [*rows] * (tokens // sum(map(len, rows)) + 1)
        try:
            for some in (large, rows):
                encoder.encode(some).cpu()
        except Exception as error:  # a missing compiler, driver or kernel: each has its own class
            self.notify(f"torch.compile failed ({first_line(error)}); going on without it")
            encoder.compiled = False

    def _check_rows(self) -> list[TokenIds]:
        return self.tokenizer.encode(CHECK_TEXTS, self.model.max_tokens)

    def _check_vectors(self, encoder: Encoder, rows: Sequence[TokenIds]) -> torch.Tensor:
        """Of `rows` and of one text as long as the model takes, alone: the others would be padded to its length."""
        import torch

        limit = min(self.model.max_tokens, LONG_CHECK_TOKENS)
        long_row = self.tokenizer.encode(["\n".join(CHECK_TEXTS) * (limit // 64 + 1)], limit)
        return torch.cat([encoder.encode(part).cpu() for part in (rows, long_row)])


def first_line(error: BaseException) -> str:
    """What an error says, in one line of bearable length."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:160].rstrip(".")
