"""Whole commands, timed from start to exit, with the most memory they held."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.environment import REPOSITORY

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "ANONYMIZED_TELEMETRY": "False",
    "LANGSMITH_TRACING": "false",
}


@dataclass(frozen=True, slots=True)
class Finished:
    """One command that ended well."""

    seconds: float
    peak_mb: float  # resident memory at its highest, 10^6 bytes; of `ours`, the sum over its processes
    output: str

    def json(self) -> Any:
        """stdout as JSON."""
        return json.loads(self.output)


def timed(command: Sequence[str], variables: Mapping[str, str]) -> Finished:
    """Run a command from the repository's folder. Raises RuntimeError with its last lines when it fails."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        environ = {**os.environ, **OFFLINE, **variables}
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=REPOSITORY, env=environ, stdout=out, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)  # rusage of this child alone
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        errors.seek(0)
        output, complaint = out.read().decode(), errors.read().decode(errors="replace")
    if process.returncode:
        raise RuntimeError(f"{' '.join(command[:4])} … ended with {process.returncode}:\n{complaint[-2000:]}")
    peak = usage.ru_maxrss / 1e6 if sys.platform == "darwin" else usage.ru_maxrss * 1024 / 1e6
    return Finished(seconds, peak, output)


def ours(command: str, *options: str, vault: Path, data: Path) -> Finished:
    """One command of main.py with a data folder of its own."""
    line = [sys.executable, "main.py", command, *options, "--vault", str(vault), "--json"]
    done = timed(line, {"VAULTVEC_DATA": str(data)})
    report = done.json()
    told = report.get("peak_rss_mb", 0.0) if isinstance(report, dict) else 0.0  # with its writer process
    return replace(done, peak_mb=max(done.peak_mb, told))


def langchain(vault: Path, data: Path, weights: Path) -> Finished:
    """The usual Python way over a vault."""
    script = REPOSITORY / "benchmarks" / "langchain_way.py"
    return timed([sys.executable, str(script), str(vault), str(data), str(weights)], {})


def spread(seconds: Sequence[float]) -> float:
    """Half the range as a share of the median."""
    return (max(seconds) - min(seconds)) / 2 / median(seconds)
