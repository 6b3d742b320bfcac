"""How many CPU cores this process may use: its affinity, and the quota of its container."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """At least 1. `docker --cpus=2` leaves all cores in sight, but gives two cores' time: more threads only wait."""
    seen = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota(CGROUPS)
    return max(1, min(seen, math.ceil(quota))) if quota else seen


def cpu_quota(root: Path) -> float | None:
    """Cores' worth of time that the control group grants, as the container sees it; None without a limit.

    Version 2 has `cpu.max` ("200000 100000", or "max …"), version 1 two files; see the kernel's cgroup-v2.rst.
    """
    try:
        granted, period = (root / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        try:
            granted, period = (
                (root / "cpu" / f"cpu.cfs_{name}_us").read_text(encoding="ascii").strip()
                for name in ("quota", "period")
            )
        except (OSError, ValueError):
            return None
    try:
        cores = float(granted) / float(period)
    except (ValueError, ZeroDivisionError):  # "max"
        return None
    return cores if cores > 0 else None
