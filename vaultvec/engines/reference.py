"""sentence-transformers as it comes: the baseline, and the truth that every other engine is compared with."""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from threading import Lock
from typing import Any

from vaultvec.config_keys import WORDS
from vaultvec.engines.model_folder import local_folder
from vaultvec.errors import ModelError
from vaultvec.models import CATALOGUE, L6, ModelSpec

SUPPORTED = ("Transformer", "Pooling", "Dense", "LayerNorm", "Normalize", "Dropout")
MEANT = 0.75  # likeness of two names, as difflib has it, from which one is taken for a slip of the other
_patching = Lock()


def reference_source(model: ModelSpec) -> str:
    """What sentence-transformers loads: the bundled folder, a local one, or the model's name.

    Raises ModelError for a model that it has no form of.
    """
    if model.kind != "transformer":
        raise ModelError(f"{model.name} has no sentence-transformers form; choose for example {L6}")
    return str(local_folder(model) or model.name)


def load_reference(model: ModelSpec, device: str | None = "cpu") -> Any:
    """A SentenceTransformer, cut at the model's token limit; `device` None lets it choose. Takes some 10 s to import.

    On a CPU it is float32, however the weights are stored: half precision is emulated there, five times slower.
    Raises ModelError when the model can be neither found nor downloaded, has modules that no engine runs, or has layers
    that its files hold no weights for.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    source = reference_source(model)
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import get_device_name
    from transformers.utils.logging import disable_progress_bar

    if Path(source).is_dir():
        disable_progress_bar()  # nothing is downloaded, and the benchmark has a bar of its own
    device = device or get_device_name()
    exact = {"dtype": "float32"} if device == "cpu" else {}
    revision = None if Path(source).is_dir() else _commit(model)
    try:
        with _missing_weights() as missing:
            loaded = SentenceTransformer(source, device=device, revision=revision, model_kwargs=exact)
    except Exception as error:  # OSError, ValueError, KeyError, the hub's own: all mean that the model cannot be had
        raise ModelError(
            f"{model.name} cannot be loaded ({_reason(error)}); check the name{near_name(model.name)}, go online once, "
            f"or set EMBEDDING_MODEL to a folder or to {L6}"
        ) from error
    _check_modules(model, loaded)
    _check_weights(model, loaded, missing)
    if model.max_tokens:
        loaded.max_seq_length = model.max_tokens
    return loaded


@contextmanager
def _missing_weights() -> Iterator[list[str]]:
    """Names of the weights that models loaded meanwhile have and their files have not: transformers fills those with
    random numbers and goes on. sentence-transformers has no way of its own to ask for them."""
    from transformers import PreTrainedModel

    missing: list[str] = []
    original = PreTrainedModel.__dict__["from_pretrained"]

    def watched(cls: Any, *args: Any, **kwargs: Any) -> Any:
        told = bool(kwargs.pop("output_loading_info", False))
        loaded, info = original.__func__(cls, *args, output_loading_info=True, **kwargs)
        missing.extend(info["missing_keys"])
        return (loaded, info) if told else loaded

    with _patching:
        PreTrainedModel.from_pretrained = classmethod(watched)
        try:
            yield missing
        finally:
            PreTrainedModel.from_pretrained = original


def _check_modules(model: ModelSpec, loaded: Any) -> None:
    kinds = [type(module).__name__ for module in loaded]
    if kinds[0] == "StaticEmbedding":
        raise ModelError(
            f"{model.name} is a static model (StaticEmbedding), which no engine here runs; choose another model"
        )
    unknown = sorted(set(kinds) - set(SUPPORTED))
    if unknown:
        raise ModelError(
            f"{model.name} has a module {' and a '.join(unknown)}, expected only {', '.join(SUPPORTED)}; choose another model"
        )


def _check_weights(model: ModelSpec, loaded: Any, missing: Sequence[str]) -> None:
    """Raises ModelError for layers that would be random, and for positions that the class leaves out."""
    lost = sorted(name for name in missing if "pooler" not in name.split("."))  # nothing here reads a pooler
    way_out = f"get the model again or, if it needs code of its own (trust_remote_code), set EMBEDDING_MODEL to {L6}"
    if lost:
        more = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
        raise ModelError(f"{model.name} has no weights for {', '.join(lost[:3])}{more}; {way_out}")
    backbone = getattr(loaded[0], "auto_model", None)
    positions = getattr(getattr(backbone, "config", None), "position_embedding_type", None) or "absolute"
    if positions != "absolute" and not _reads_position_type(backbone):
        raise ModelError(
            f"{model.name} has positions of type {positions}, which transformers' {type(backbone).__name__} does not know; "
            f"{way_out}"
        )


def _reads_position_type(backbone: Any) -> bool:
    """Whether the class looks at `position_embedding_type` at all: BERT's has stopped to, ESM's has not."""
    return "position_embedding_type" in inspect.getsource(sys.modules[type(backbone).__module__])


def _commit(model: ModelSpec) -> str | None:
    """The hub's commit that the model was prepared from: a newer one must not mix with it. None before that."""
    return model.revision if re.fullmatch(r"[0-9a-f]{40}", model.revision) else None


def near_name(name: str) -> str:
    """A hint at the word or model of the catalogue that was probably meant; "" where none is near."""
    known = [*WORDS, *(known for spec in CATALOGUE for known in (spec.name, spec.slug))]
    near = [] if name in known else get_close_matches(name, known, n=1, cutoff=MEANT)
    return f' (did you mean "{near[0]}"?)' if near else ""


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:160].rstrip(".")
