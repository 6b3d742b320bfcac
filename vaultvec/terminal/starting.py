"""Imported before all else by the scripts: what must hold while the rest is being imported, which takes half a second."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

SCRIPTS = ("main.py", "embedding_speed_fix.py", "config_optimizer.py")
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
    os._exit(130)  # nothing was begun


if Path(getattr(sys.modules["__main__"], "__file__", None) or "").name in SCRIPTS:
    open_closed_streams()
    for _number in SIGNALS:
        if signal.getsignal(_number) is not signal.SIG_IGN:
            signal.signal(_number, _leave)
