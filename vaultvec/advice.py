"""The commands that messages name: a copied line must work on the vault that the command line named."""

from __future__ import annotations

import os
import re
import shlex

_ON_A_VAULT = re.compile(
    r"python (main\.py (index|search|related|links|status|doctor|watch|export|rebuild)"
    r"|embedding_speed_fix\.py( [12])?|config_optimizer\.py [12])\b(?!( [12])? --vault)(?!\.\w)"
)
_named = ""


def name_vault(vault: str | None) -> None:
    """From here on commands are told with this `--vault`, as it was typed; with none where the user gave none."""
    global _named
    _named = vault or ""


def with_vault(text: str) -> str:
    """A message of ours, `--vault` added to every command in it that takes one and has none."""
    option = f" --vault {quoted(_named)}" if _named else ""
    return _ON_A_VAULT.sub(lambda found: found.group() + option, text)


def quoted(text: str) -> str:
    """A path as a shell takes it."""
    return f'"{text}"' if os.name == "nt" or not set(text) & set('"$`\\!') else shlex.quote(text)
