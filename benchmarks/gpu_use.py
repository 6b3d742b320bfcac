"""How busy a GPU says it is, read five times a second beside the work."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

INTERVAL = 0.2  # seconds
_COMMAND = ("nvidia-smi", "--id=0", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "200")


class GpuUse(threading.Thread):
    """Reads the first GPU's utilisation until closed: through NVML's Python package, else nvidia-smi, else not at all."""

    def __init__(self, device: str) -> None:
        super().__init__(daemon=True)
        self.seen: list[tuple[float, float]] = []  # (time, per cent)
        self._closing = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._read = _nvml_reader() if device == "cuda" else None
        if device == "cuda" and self._read is None:
            try:
                self._process = subprocess.Popen(_COMMAND, stdout=subprocess.PIPE, text=True)
            except OSError:
                return
        if device == "cuda":
            self.start()

    def run(self) -> None:
        """Thread body."""
        if self._process is not None:
            for line in self._process.stdout or ():
                if line.strip().isdigit():
                    self.seen.append((time.perf_counter(), float(line)))
            return
        assert self._read is not None
        while not self._closing.wait(INTERVAL):
            self.seen.append((time.perf_counter(), self._read()))

    def between(self, began: float, ended: float) -> list[float]:
        """What was read between two moments."""
        return [value for moment, value in list(self.seen) if began <= moment <= ended]

    def close(self) -> None:
        """Stop reading."""
        self._closing.set()
        if self._process is not None:
            self._process.terminate()
            self._process.wait()


def _nvml_reader() -> Callable[[], float] | None:
    try:
        import pynvml

        nvml: Any = pynvml
        nvml.nvmlInit()
        handle = nvml.nvmlDeviceGetHandleByIndex(0)
        nvml.nvmlDeviceGetUtilizationRates(handle)
    except Exception:  # no package, no driver, no permission: each has its own class
        return None
    return lambda: float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
