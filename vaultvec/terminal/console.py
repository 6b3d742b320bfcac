"""The two streams of a terminal: results on stdout, everything else on stderr. Text from notes is printed, never obeyed."""

from __future__ import annotations

import json
import sys
import unicodedata
from typing import Any

from rich.console import Console
from rich.text import Text

from vaultvec.advice import with_vault

# A pipe has no width: lines are then never broken, tables as wide as they like.
out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 200)
err = Console(stderr=True, highlight=False, soft_wrap=True)

# Nested lists have tabs; joiners make Persian words and families of emoji, tags the flag of Scotland.
_KEPT = frozenset("\n\t\u200c\u200d") | {chr(code) for code in range(0xE0020, 0xE0080)}
_UNSEEN = frozenset("\u00ad\u200b\u200e\u200f\u2060\ufeff")  # a soft hyphen, spaces of no width, marks of direction


def plain(text: str) -> str:
    """Text from outside with its control characters made visible, so that no escape sequence reaches the terminal."""
    return "".join(
        c if c in _KEPT or unicodedata.category(c) not in ("Cc", "Cs", "Cf") else "�" for c in text if c not in _UNSEEN
    )


def say(line: str) -> None:
    """A remark for the person, on stderr."""
    err.print(Text(plain(with_vault(line))))


def complain(line: str) -> None:
    """An error: one line on stderr."""
    err.print(Text(plain(with_vault(" ".join(line.split()))), style="red"), soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    json.dump(value, sys.stdout, ensure_ascii=False, indent=2)
    print()


def ask(question: str) -> str:
    """A line of input; the prompt goes to stderr. Raises EOFError at the end of piped input."""
    err.print(Text(question), end="")
    err.file.flush()
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.strip()
