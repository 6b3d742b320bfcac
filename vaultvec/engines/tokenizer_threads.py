"""How many threads the `tokenizers` library uses. It asks one environment variable at every call."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

_VARIABLE = "TOKENIZERS_PARALLELISM"


def say_aloud() -> None:
    """Set what is the library's default anyway: unsaid, it prints a warning in every forked child, where its threads
    are gone."""
    if os.environ.setdefault(_VARIABLE, "true") == "true" and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=one_thread)


def one_thread() -> None:
    """From now on, in this process."""
    os.environ[_VARIABLE] = "false"


@contextmanager
def one_thread_meanwhile(wanted: bool) -> Iterator[None]:
    """Where a CPU runs the model, threads for the few texts of a note only take its cores: 0.60 s of CPU time for the
    paragraphs of 600 notes, 1.23 s with threads."""
    before = os.environ.get(_VARIABLE)
    if not wanted or before == "false":
        yield
        return
    one_thread()
    try:
        yield
    finally:
        os.environ[_VARIABLE] = before or "true"
