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

_KEPT = "\n\t\u200c\u200d"  # nested lists have tabs; joiners of Persian words and of emoji
_UNSEEN = "\u00ad\u200b"  # a soft hyphen, a space of no width


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
