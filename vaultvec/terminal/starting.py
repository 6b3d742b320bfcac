"""Imported before all else by the scripts: what must hold while the rest is being imported, which takes half a second."""

from __future__ import annotations

import os
import signal
import sys
from importlib.util import find_spec
from pathlib import Path

SCRIPTS = (
    "main.py",
    "embedding_speed_fix.py",
    "config_optimizer.py",
    "obsidian_processor.py",
    "obsidian_processor_optimized.py",
)
NEEDED = ("numpy", "platformdirs", "rich")  # of requirements.txt, what is imported first
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def listen() -> None:
    """From here on Ctrl-C, and a polite kill, is a KeyboardInterrupt."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)


def open_closed_streams() -> None:
    """A stream that whoever started us has closed is one that has ended, or that nobody reads."""
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")  # noqa: SIM115
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def _leave(*_: object) -> None:
    os.write(2, b"interrupted before anything was begun\n")
    os._exit(130)


def require_packages(script: Path) -> None:
    """End with one line where the interpreter is not the one that `make setup` has prepared."""
    if all(find_spec(name) for name in NEEDED):
        return
    prepared = [
        path for path in (Path(".venv/bin/python"), Path(".venv/Scripts/python.exe")) if (script.parent / path).exists()
    ]
    cure = f"use {prepared[0]} {script.name}, or activate .venv first" if prepared else "run: make setup"
    print(f"{sys.executable} lacks the packages of requirements.txt; in {script.parent}, {cure}", file=sys.stderr)
    sys.exit(1)


if Path(getattr(sys.modules["__main__"], "__file__", None) or "").name in SCRIPTS:
    open_closed_streams()
    require_packages(Path(sys.modules["__main__"].__file__ or "").resolve())
    for _number in SIGNALS:
        if signal.getsignal(_number) is not signal.SIG_IGN:
            signal.signal(_number, _leave)
