"""What the doctor finds, one line each, and checks that never fail themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from vaultvec.errors import VaultvecError

Level = Literal["ok", "note", "wrong"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `text` is one line; where something is wrong it ends in the command that mends it."""

    level: Level
    topic: str
    text: str

    def as_dict(self) -> dict[str, Any]:
        """`doctor --json`."""
        return asdict(self)


def told(topic: str, check: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """A check's findings; what it raises is a finding too, because a doctor that fails helps nobody."""
    found: list[Finding] = []
    try:
        found.extend(check())
    except VaultvecError as error:
        found.append(Finding("wrong", topic, " ".join(str(error).split())))
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        found.append(
            Finding(
                "wrong", topic, f"could not be checked ({text}); run: make setup, and if that does not help report it"
            )
        )
    return found
