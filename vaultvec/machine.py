"""What the doctor says of the machine: its processor, its GPU, its memory."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from vaultvec.findings import Finding

# As /proc/cpuinfo calls them, on x86 and on Arm.
BF16 = frozenset({"amx_bf16", "avx512_bf16", "bf16"})
FP16 = frozenset({"avx512_fp16", "amx_fp16", "fphp", "asimdhp"})
VNNI = frozenset({"avx512_vnni", "avx_vnni"})
LEAST_MEMORY = 1 << 30  # bytes: a model, its batches and Chroma


def processor(precision: str = "auto") -> Iterator[Finding]:
    """Which precision it runs in, and whether the one that config.py names suits it."""
    flags = _cpu_flags()
    vnni = bool(flags & VNNI)
    native = {"bf16": bool(flags & BF16), "fp16": bool(flags & FP16)}.get(precision, True)
    if not flags:
        yield Finding("note", "processor", f"{platform.machine()}: its instruction set is not told here")
    elif not flags & {"avx2", "asimd"}:
        yield Finding("note", "processor", "no AVX2: embedding will be slow here")
    elif not native and not (shutil.which("nvidia-smi") or _apple()):
        text = f'it has no {precision} of its own, so index refuses PRECISION = "{precision}"; set it to "auto" in config.py'
        yield Finding("wrong", "processor", text)
    elif precision == "int8" and not vnni and "avx2" in flags:
        yield Finding("note", "processor", 'no VNNI: PRECISION = "int8" is no faster here than "auto" and less exact')
    elif precision != "auto":
        yield Finding("ok", "processor", f"PRECISION is {precision}")
    elif flags & BF16:
        unit = "AMX" if "amx_bf16" in flags else "AVX-512" if "avx512_bf16" in flags else "Arm"
        yield Finding(
            "ok", "processor", f"{unit} with bf16: PRECISION = auto runs in bf16, about twice as fast as fp32"
        )
    elif vnni:
        yield Finding(
            "ok",
            "processor",
            "no bf16, so PRECISION = auto runs in fp32; int8 (VNNI) would be about twice as fast and a little less exact",
        )
    else:
        yield Finding("ok", "processor", "no bf16 and no VNNI: PRECISION = auto runs in fp32")


def _cpu_flags() -> frozenset[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    line = next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), "")
    return frozenset(line.partition(":")[2].split())


def gpu() -> Iterator[Finding]:
    """Whether there is one, and whether torch can use it."""
    command = shutil.which("nvidia-smi")
    if command is None:
        yield Finding("ok", "GPU", "Apple's, by way of MPS" if _apple() else "none found; the processor does the work")
        return
    query = [command, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        lines = (
            subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout.strip().splitlines()
        )
    except (OSError, subprocess.SubprocessError):
        lines = []
    if not lines:
        yield Finding("note", "GPU", 'nvidia-smi finds no card that works; mend the driver, or set ENGINE = "openvino"')
        return
    if "+cpu" in importlib.metadata.version("torch"):
        yield Finding(
            "note",
            "GPU",
            f"{lines[0]}, but torch is a CPU build; run: pip install --force-reinstall torch (from pytorch.org)",
        )
    else:
        yield Finding("ok", "GPU", f"{lines[0]} (name, driver, memory)")


def _apple() -> bool:
    return sys.platform == "darwin" and platform.machine() == "arm64"


def memory() -> Iterator[Finding]:
    """Whether enough is free."""
    import psutil

    free = psutil.virtual_memory()
    text = f"{free.available / 1e9:.1f} GB of {free.total / 1e9:.1f} GB free"
    if free.available < LEAST_MEMORY:
        yield Finding("wrong", "memory", f"{text}, expected at least 1 GB; close other programs")
    else:
        yield Finding("ok", "memory", text)
