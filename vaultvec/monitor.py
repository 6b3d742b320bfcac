"""Memory, CPU and GPU use while work runs, looked at from a thread of its own. The work never waits for it.

`blocking_check` is the opposite, the check that the guide found in the slow tool; only the baseline and the benchmark
use it, to show what it costs.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from types import TracebackType

import psutil

from vaultvec.cores import usable_cores

BLOCKING_SECONDS = 0.1  # the shortest interval that psutil's documentation recommends for cpu_percent
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Usage:
    """What was used between the start and the end of the watched work."""

    seconds: float = 0.0
    start_rss_mb: float = 0.0
    peak_rss_mb: float = 0.0
    cpu_share: float = 0.0  # of the cores this process may use, 0 to 1
    least_free_mb: float = 0.0
    gpu_share: float | None = None  # mean, 0 to 1; None without a GPU that can be asked
    gpu_peak_mb: float | None = None  # used on the whole GPU, other programs included
    samples: int = 0

    @property
    def growth_mb(self) -> float:
        """High-water mark above the memory at the start."""
        return max(0.0, self.peak_rss_mb - self.start_rss_mb)


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One look at the first GPU."""

    share: float
    used_mb: float


def gpu_probe() -> Callable[[], GpuReading] | None:
    """A function that reads the first NVIDIA GPU (pynvml, else nvidia-smi), or None where there is none to read."""
    for probe in (_pynvml_probe, _smi_probe):
        reader = probe()
        if reader is not None:
            return reader
    return None


def _pynvml_probe() -> Callable[[], GpuReading] | None:
    if find_spec("pynvml") is None:
        return None
    import pynvml

    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    except pynvml.NVMLError:
        return None

    def read() -> GpuReading:
        share = pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
        return GpuReading(share, pynvml.nvmlDeviceGetMemoryInfo(handle).used / MIB)

    return read


def _smi_probe() -> Callable[[], GpuReading] | None:
    command = shutil.which("nvidia-smi")
    if command is None:
        return None
    query = [command, "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits", "-i", "0"]

    def read() -> GpuReading:
        line = subprocess.run(query, capture_output=True, text=True, timeout=5, check=True).stdout.splitlines()[0]
        share, used = (float(part) for part in line.split(","))
        return GpuReading(share / 100, used)

    try:
        read()
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None  # a driver without a card, or a card that does not tell
    return read


class ResourceMonitor:
    """`with ResourceMonitor(2.0) as monitor: …`, then `monitor.usage`, which may also be read meanwhile.

    interval_s: seconds between two looks. children: count the memory and CPU time of living child processes too, which
    costs a walk over all processes at each look.
    """

    def __init__(
        self, interval_s: float, gpu: Callable[[], GpuReading] | None = None, *, children: bool = True
    ) -> None:
        self.interval_s = interval_s
        self._children = children
        self._gpu = gpu
        self._process = psutil.Process()
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._begin = self._end = 0.0
        self._cpu_begin = self._cpu_end = 0.0
        self._start_rss = self._peak_rss = 0
        self._least_free = 0
        self._gpu_shares: list[float] = []
        self._gpu_peak: float | None = None
        self._samples = 0

    def __enter__(self) -> ResourceMonitor:
        self._begin, self._cpu_begin = time.perf_counter(), self._cpu_seconds()
        self._start_rss = self._rss()
        self._least_free = psutil.virtual_memory().available
        self._look(gpu=False)  # asking a GPU may take long: only the watching thread does
        self._thread = threading.Thread(target=self._watch, name="monitor", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end, self._cpu_end = time.perf_counter(), self._cpu_seconds()
        self._done.set()
        self._look(gpu=False)
        if self._thread is not None:
            self._thread.join(timeout=0.2)  # a GPU that answers slowly is not waited for

    @property
    def usage(self) -> Usage:
        """What was used so far, or in all once the work has ended."""
        end, cpu_end = (self._end, self._cpu_end) if self._end else (time.perf_counter(), self._cpu_seconds())
        seconds = max(end - self._begin, 1e-9)
        with self._lock:
            return Usage(
                seconds=seconds,
                start_rss_mb=self._start_rss / MIB,
                peak_rss_mb=self._peak_rss / MIB,
                cpu_share=min(1.0, max(0.0, cpu_end - self._cpu_begin) / seconds / usable_cores()),
                least_free_mb=self._least_free / MIB,
                gpu_share=sum(self._gpu_shares) / len(self._gpu_shares) if self._gpu_shares else None,
                gpu_peak_mb=self._gpu_peak,
                samples=self._samples,
            )

    def _watch(self) -> None:
        while not self._done.wait(self.interval_s):
            self._look()

    def _look(self, *, gpu: bool = True) -> None:
        rss, free = self._rss(), psutil.virtual_memory().available
        reading = self._read_gpu() if gpu else None
        with self._lock:
            self._samples += 1
            self._peak_rss = max(self._peak_rss, rss)
            self._least_free = min(self._least_free, free)
            if reading is not None:
                self._gpu_shares.append(reading.share)
                self._gpu_peak = max(self._gpu_peak or 0.0, reading.used_mb)

    def _read_gpu(self) -> GpuReading | None:
        if self._gpu is None:
            return None
        try:
            return self._gpu()
        except Exception:  # the driver's own errors: a GPU that no longer answers is not the work's trouble
            self._gpu = None
            return None

    def _rss(self) -> int:
        return int(sum(_of_process(row, lambda p: float(p.memory_info().rss)) for row in self._family()))

    def _cpu_seconds(self) -> float:
        times = self._process.cpu_times()
        children = times.children_user + times.children_system if hasattr(times, "children_user") else 0.0
        living = sum(_of_process(row, lambda p: sum(p.cpu_times()[:2])) for row in self._family()[1:])
        return float(times.user + times.system + children + living)

    def _family(self) -> list[psutil.Process]:
        if not self._children:
            return [self._process]
        try:
            return [self._process, *self._process.children(recursive=True)]
        except psutil.Error:
            return [self._process]


def _of_process(process: psutil.Process, read: Callable[[psutil.Process], float]) -> float:
    try:
        return read(process)
    except psutil.Error:  # it ended between the listing and the look
        return 0.0


def blocking_check(seconds: float = BLOCKING_SECONDS) -> float:
    """Look at CPU, memory and GPU the way the guide's slow tool did, in the work's own thread. Seconds it took."""
    began = time.perf_counter()
    psutil.cpu_percent(interval=seconds)
    psutil.virtual_memory()
    psutil.Process().memory_info()
    return time.perf_counter() - began
