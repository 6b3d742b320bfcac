"""Output is UTF-8 wherever a program reads it: a pipe on Windows has the encoding of the country, and notes hold any letter."""

from __future__ import annotations

import io
import sys


def use_utf8() -> None:
    """Make pipes and files UTF-8, and let no character stop a terminal. Call it before anything is written or read; after that it
    changes nothing more."""
    for stream in (sys.stdout, sys.stderr):
        if not isinstance(stream, io.TextIOWrapper) or stream.encoding.lower().replace("-", "") == "utf8":
            continue
        if stream.isatty():
            stream.reconfigure(errors="replace")
        else:
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    if isinstance(sys.stdin, io.TextIOWrapper) and sys.stdin.errors != "replace":
        sys.stdin.reconfigure(errors="replace")  # half a letter, or another encoding: an odd answer, no traceback
