"""The header of a result file: which machine, which versions, which commit. No host or user names."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from vaultvec.cores import usable_cores

REPOSITORY = Path(__file__).resolve().parents[1]
FLAGS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
PACKAGES = (
    "torch", "sentence-transformers", "transformers", "tokenizers", "openvino", "onnxruntime", "fastembed",
    "model2vec", "chromadb", "langchain-community", "langchain-huggingface", "langchain-chroma", "numpy",
)  # fmt: skip


def environment() -> dict[str, Any]:
    """Processor, memory, versions, commit and date."""
    processor, flags = _processor()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "changed_files": len(_git("status", "--porcelain", "--untracked-files=no").splitlines()),
        "cpu": processor,
        "cores": usable_cores(),
        "flags": [flag for flag in FLAGS if flag in flags],
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "load_at_start": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
    }


def commit() -> str:
    """Short name of the commit that is checked out."""
    return _git("rev-parse", "--short", "HEAD") or "uncommitted"


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _processor() -> tuple[str, set[str]]:
    """Name and flags, from /proc where there is one."""
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return platform.processor() or platform.machine(), set()
    facts = {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in info.read_text().splitlines())
    }
    return facts.get("model name", platform.machine()), set(facts.get("flags", facts.get("Features", "")).split())
