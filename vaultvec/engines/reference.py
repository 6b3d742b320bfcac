"""sentence-transformers as it comes: the baseline, and the truth that every other engine is compared with."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from vaultvec.errors import ModelError
from vaultvec.models import L6, ModelSpec, weights_path


def reference_source(model: ModelSpec) -> str:
    """What sentence-transformers loads: the bundled folder, a local one, or the model's name."""
    if model.kind != "transformer":
        raise ModelError(f"{model.name} has no sentence-transformers form; choose for example {L6}")
    if model.package:
        return str(weights_path(model).parent)
    folder = Path(model.name).expanduser()
    return str(folder) if folder.is_dir() else model.name


def load_reference(model: ModelSpec, device: str | None = "cpu") -> Any:
    """A SentenceTransformer, cut at the model's token limit; `device` None lets it choose. Takes some 10 s to import.

    Raises ModelError when the model can be neither found nor downloaded.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    source = reference_source(model)
    from sentence_transformers import SentenceTransformer
    from transformers.utils.logging import disable_progress_bar

    if Path(source).is_dir():
        disable_progress_bar()  # nothing is downloaded, and the benchmark has a bar of its own
    try:
        loaded = SentenceTransformer(source, device=device, revision=None if Path(source).is_dir() else _commit(model))
    except Exception as error:  # OSError, ValueError, KeyError, the hub's own: all mean that the model cannot be had
        raise ModelError(
            f"{model.name} cannot be loaded ({_reason(error)}); check the name, go online once, "
            f"or set EMBEDDING_MODEL to a folder or to {L6}"
        ) from error
    if model.max_tokens:
        loaded.max_seq_length = model.max_tokens
    return loaded


def _commit(model: ModelSpec) -> str | None:
    """The hub's commit that the model was prepared from: a newer one must not mix with it. None before that."""
    return model.revision if re.fullmatch(r"[0-9a-f]{40}", model.revision) else None


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:160].rstrip(".")
