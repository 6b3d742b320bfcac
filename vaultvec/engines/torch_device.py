"""What torch can tell of the hardware: which device, which precision is native, how much memory, what went wrong."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from vaultvec.errors import SettingsError

if TYPE_CHECKING:
    import torch

CPU_TOKEN_BUDGET = 2048  # tokens a batch; tuned on a 2-core server CPU
# A GPU of the H200's class is busy for several milliseconds with this many tokens of a small model, which hides the
# launching of its kernels; smaller batches let the store and the tokeniser overlap better.
GPU_TOKEN_BUDGET = 65_536
LEAST_GPU_TOKEN_BUDGET = 2048
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "bad_alloc", "alloc_failed")
_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def choose_device(wanted: str) -> torch.device:
    """A device from "auto", "cpu", "cuda", "cuda:1", "mps". Raises SettingsError for one that torch does not find."""
    import torch

    if wanted == "auto":
        wanted = "cuda" if cuda_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, index = wanted.partition(":")
    count = {
        "cpu": 1,
        "cuda": torch.cuda.device_count() if cuda_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
    }.get(kind, 0)
    if int(index or 0) >= count:
        raise SettingsError(f"torch {torch.__version__} finds no device {wanted!r}; use auto or cpu")
    return torch.device("cuda", int(index or 0)) if kind == "cuda" else torch.device(kind)


def cuda_available() -> bool:
    """Whether this build of torch and this machine's driver work together."""
    import torch

    return bool(torch.cuda.is_available())


def cuda_devices() -> list[str]:
    """Every CUDA card, as `choose_device` takes it."""
    import torch

    return [f"cuda:{i}" for i in range(torch.cuda.device_count())] if cuda_available() else []


def choose_precision(wanted: str, device: torch.device) -> str:
    """The precision to run in; "auto" is half where it is native. Raises SettingsError for one that is not."""
    best = best_half(device)
    if wanted == "auto":
        return best or "fp32"
    if wanted not in _DTYPES:
        raise SettingsError(
            f"PRECISION is {wanted!r}, the torch engine has auto, {', '.join(_DTYPES)}; set PRECISION to one of those, "
            'or ENGINE to "openvino", in config.py'
        )
    if wanted != "fp32" and device.type == "cpu" and wanted != best:
        raise SettingsError(f"PRECISION is {wanted!r}, which this CPU only emulates, 100 times slower; set it to auto")
    return wanted


def best_half(device: torch.device) -> str | None:
    """The half precision with instructions of its own on this device, or None."""
    import torch

    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "fp16"
    if device.type == "mps":
        return "fp16"
    found: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.11
    return "bf16" if any(found.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16")) else None


def dtype_of(precision: str) -> torch.dtype:
    """fp32, bf16 or fp16 as torch's type."""
    import torch

    dtype: torch.dtype = getattr(torch, _DTYPES[precision])
    return dtype


def limit_memory(device: torch.device, fraction: float) -> None:
    """Let this process use no more than `fraction` of the GPU's memory; what goes beyond is out of memory."""
    import torch

    if device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(fraction, device)
    elif device.type == "mps":
        torch.mps.set_per_process_memory_fraction(fraction)


def free_memory(device: torch.device, fraction: float) -> int:
    """Bytes that this process may still take on a GPU: within its fraction, and not in use by others."""
    import torch

    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return int(min(free, fraction * total - torch.cuda.memory_allocated(device)))
    most = int(fraction * torch.mps.recommended_max_memory())
    return int(most - torch.mps.current_allocated_memory())


def auto_token_budget(device: torch.device, fraction: float, bytes_per_token: int) -> int:
    """Tokens a batch: what fits into half of the free memory, at most what keeps the device busy."""
    if device.type == "cpu":
        return CPU_TOKEN_BUDGET
    fits = free_memory(device, fraction) // 2 // bytes_per_token
    return max(LEAST_GPU_TOKEN_BUDGET, min(GPU_TOKEN_BUDGET, fits))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on whichever device; only CUDA has an error class for it."""
    import torch

    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(sign in text for sign in _OUT_OF_MEMORY)


def free_cache(device: torch.device) -> None:
    """Give unused blocks back, so that a smaller batch finds room in one piece."""
    import torch

    with suppress(RuntimeError):  # a lost device has nothing to give back
        if device.type == "cuda":
            torch.cuda.empty_cache()
        elif device.type == "mps":
            torch.mps.empty_cache()


# What `keep_forever` keeps.
_kept: list[torch.Tensor] = []


def keep_forever(host: torch.Tensor) -> None:
    """Never free a pinned tensor that a failed device was to write.

    Its allocator would record an event on the device, fail, in a destructor, and so abort the process, which is about
    to go on with the CPU (https://github.com/pytorch/pytorch/pull/178154).
    """
    _kept.append(host)


class CudaClock:
    """Two events around a batch: when it is done can be awaited alone, and what it took is the GPU's own time.

    Gaps between two kernels count: the host that launches them too slowly is part of what a batch takes.
    """

    def __init__(self, device: torch.device) -> None:
        import torch

        self._stream = torch.cuda.current_stream(device)
        self._events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]  # type: ignore[no-untyped-call]
        self._running = False

    def start(self) -> None:
        """The batch is packed and its first kernel comes next. Further calls do nothing: a batch may run in parts."""
        if not self._running:
            self._events[0].record(self._stream)
            self._running = True

    def stop(self) -> None:
        """Everything queued since `start` belongs to the batch."""
        self.start()
        self._events[1].record(self._stream)

    def wait(self) -> None:
        """Until the batch is done; batches queued behind it go on. Raises RuntimeError when the device failed."""
        self._events[1].synchronize()

    @property
    def seconds(self) -> float:
        """From the first kernel to the last copy; after `wait`."""
        return float(self._events[0].elapsed_time(self._events[1])) / 1000


def new_clock(device: torch.device) -> CudaClock | None:
    """A clock on CUDA, not yet started; None elsewhere, where `copy_back` waits."""
    return CudaClock(device) if device.type == "cuda" else None


def copy_back(vectors: torch.Tensor) -> torch.Tensor:
    """The vectors on the CPU; on CUDA only queued, into pinned memory that torch keeps and gives out again."""
    import torch

    if vectors.device.type != "cuda":
        return vectors.cpu()
    host = torch.empty(vectors.shape, dtype=torch.float32, pin_memory=True)
    return host.copy_(vectors, non_blocking=True)


def send(host: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor on the device. On CUDA only queued, when it is pinned: torch keeps its memory until the copy is done.

    On MPS a queued copy would read memory that is given out again meanwhile.
    """
    return host.to(device, non_blocking=device.type == "cuda")
