"""Whole commands, timed from start to exit, with the most memory they held."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from benchmarks.environment import REPOSITORY

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "ANONYMIZED_TELEMETRY": "False",
    "LANGSMITH_TRACING": "false",
}


MEMORY_INTERVAL = 0.05  # seconds


@dataclass(frozen=True, slots=True)
class Finished:
    """One command that ended well."""

    seconds: float
    peak_mb: float  # resident memory of all its processes at the highest moment seen, 10^6 bytes
    output: str

    def json(self) -> Any:
        """stdout as JSON."""
        return json.loads(self.output)


def timed(command: Sequence[str], variables: Mapping[str, str]) -> Finished:
    """Run a command from the repository's folder. Raises RuntimeError with its last lines when it fails.

    Memory is looked at every MEMORY_INTERVAL seconds: the kernel's own figure (wait4) also counts what the process
    that starts a command held.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        environ = {**os.environ, **OFFLINE, **variables}
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=REPOSITORY, env=environ, stdout=out, stderr=errors)
        peak = 0
        while process.poll() is None:
            peak = max(peak, _resident(process.pid))
            with suppress(subprocess.TimeoutExpired):
                process.wait(MEMORY_INTERVAL)
        seconds = time.perf_counter() - began
        out.seek(0)
        errors.seek(0)
        output, complaint = out.read().decode(), errors.read().decode(errors="replace")
    if process.returncode:
        raise RuntimeError(f"{' '.join(command[:4])} … ended with {process.returncode}:\n{complaint[-2000:]}")
    return Finished(seconds, peak / 1e6, output)


def _resident(pid: int) -> int:
    """Bytes that a process and those it started hold in memory now."""
    total = 0
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            with suppress(psutil.Error):
                total += one.memory_info().rss
    return total


def ours(command: str, *options: str, vault: Path, data: Path) -> Finished:
    """One command of main.py with a data folder of its own."""
    line = [sys.executable, "main.py", command, *options, "--vault", str(vault), "--json"]
    return timed(line, {"VAULTVEC_DATA": str(data)})


def langchain(vault: Path, data: Path, weights: Path) -> Finished:
    """The usual Python way over a vault."""
    script = REPOSITORY / "benchmarks" / "langchain_way.py"
    return timed([sys.executable, str(script), str(vault), str(data), str(weights)], {})


def spread(seconds: Sequence[float]) -> float:
    """Half the range as a share of the median."""
    return (max(seconds) - min(seconds)) / 2 / median(seconds)
