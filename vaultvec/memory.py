"""The most memory this process has held."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path


def peak_rss_mb() -> float:
    """Highest resident set size of this process so far, in MB (10^6 bytes).

    Source: VmHWM of /proc/self/status; getrusage(2) where there is none, for Linux counts there what the parent held
    when it started this process; psutil on Windows.
    """
    if sys.platform == "win32":
        import psutil

        return float(psutil.Process().memory_info().peak_wset) / 1e6
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
