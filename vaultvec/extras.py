"""The guide's further options, tried: torch.compile, processes on half of the cores, and its three models."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vaultvec.datatypes import Vectors
from vaultvec.engines.base import Engine
from vaultvec.errors import VaultvecError
from vaultvec.models import L6, ModelSpec, resolve, weights_path
from vaultvec.monitor import usable_cpus
from vaultvec.results import Extra
from vaultvec.rounds import Tick, Timing, top_agreement
from vaultvec.settings import Settings

L12 = "sentence-transformers/all-MiniLM-L12-v2"
L3 = "sentence-transformers/paraphrase-MiniLM-L3-v2"
L12_LAYERS = 12
L12_TOKENS = 128  # its own limit


@dataclass(frozen=True, slots=True)
class Trying:
    """What the options are tried on. `present`: the fast path's timing on the same texts."""

    settings: Settings
    engine: Engine
    texts: Sequence[str]
    truth: Vectors
    present: Timing
    engines: Callable[..., Engine]
    notify: Callable[[str], None]
    tick: Tick


def try_extras(trying: Trying) -> list[Extra]:
    """One finding an option; an option that this machine lacks says so."""
    rows: list[Extra] = []
    for label, attempt in (("torch.compile", try_compile), ("multiprocessing over files", try_processes)):
        trying.tick(label)
        try:
            rows.append(attempt(trying))
        except (VaultvecError, RuntimeError, OSError, BrokenProcessPool) as error:
            rows.append(Extra(label, f"not possible here: {str(error).splitlines()[0] if str(error) else error!r}"))
    return rows + try_models(trying)


def _timed(engine: Engine, texts: Sequence[str]) -> tuple[float, Vectors]:
    began = time.perf_counter()
    vectors = engine.embed_documents(texts)
    return time.perf_counter() - began, vectors


def try_compile(trying: Trying) -> Extra:
    """The torch engine with and without torch.compile; the first run, which compiles, is counted."""
    count = len(trying.texts)
    taken: dict[bool, tuple[float, float]] = {}  # compiled? → (loading and first run, second run), seconds
    for compiled in (False, True):
        settings = replace(trying.settings, engine="torch", torch_compile=compiled)
        began = time.perf_counter()
        engine = trying.engines(settings, trying.engine.model, settings.models_dir, trying.notify)
        try:
            _timed(engine, trying.texts)
            first = time.perf_counter() - began
            taken[compiled] = first, _timed(engine, trying.texts)[0]
        finally:
            engine.close()
    (plain_first, plain), (first, later) = taken[False], taken[True]
    gain = plain / later
    pays = ""
    if later < plain:
        pays = f", so it pays after about {max(0.0, first - plain_first) / (plain - later) * count:,.0f} chunks"
    finding = (
        f"{gain:.2f}x of torch without it; loading and first run take {first:.1f} s, not {plain_first:.1f} s{pays}; "
        f"{trying.present.median_s / later:.2f}x of the fast path"
    )
    return Extra("torch.compile", finding, count / later)


def try_processes(trying: Trying) -> Extra:
    """Half of the cores as processes, each with a model of its own, as the guide has it."""
    workers = max(1, usable_cpus() // 2)
    settings = replace(trying.settings, streams=1, threads=max(1, usable_cpus() // workers))
    shares = [list(trying.texts[i::workers]) for i in range(workers)]
    shares = [share for share in shares if share]
    began = time.perf_counter()
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        jobs = [pool.submit(_embed_share, trying.engines, settings, trying.engine.model, share) for share in shares]
        busy = max(job.result() for job in jobs)
    total = time.perf_counter() - began
    count = len(trying.texts)
    finding = (
        f"{workers} processes: {trying.present.median_s / busy:.2f}x of the fast path once they run; "
        f"starting them and loading a model in each took {total - busy:.1f} s more"
    )
    return Extra("multiprocessing over files", finding, count / busy)


def _embed_share(engines: Callable[..., Engine], settings: Settings, model: ModelSpec, texts: list[str]) -> float:
    """In a process of its own: seconds for these texts, loading not counted."""
    engine = engines(settings, model, settings.models_dir, _silent)
    engine.warm_up()
    return _timed(engine, texts)[0]


def _silent(line: str) -> None:
    del line


def try_models(trying: Trying) -> list[Extra]:
    """L6, L12 and L3: speed against L6, and how far their nearest neighbours are L6's."""
    rows: list[Extra] = []
    base: tuple[float, Vectors] | None = None
    for name in (L6, L12, L3):
        spec = resolve(name)
        trying.tick(spec.slug)
        try:
            if _is_here(spec, trying.settings.models_dir):
                seconds, vectors = _measure(trying, spec, trying.settings.models_dir)
            elif name == L12:
                rows.append(_stand_in(trying, base))
                continue
            else:
                rows.append(Extra(spec.slug, f"not on this machine; {spec.size_mb} MB to download"))
                continue
        except (VaultvecError, OSError) as error:
            rows.append(Extra(spec.slug, f"not possible here: {error}"))
            continue
        if name == L6:
            base = seconds, vectors
        rows.append(Extra(spec.slug, _against(base, seconds, vectors), len(trying.texts) / seconds))
    return rows


def _against(base: tuple[float, Vectors] | None, seconds: float, vectors: Vectors) -> str:
    if base is None:
        return "L6 is not here to compare with"
    if vectors is base[1]:
        return "the model that the others are compared with"
    agreement = top_agreement(base[1], vectors)
    return f"{base[0] / seconds:.2f}x the speed of L6; {agreement:.0%} of its ten nearest chunks are L6's"


def _is_here(spec: ModelSpec, models_dir: Path) -> bool:
    """Whether a model needs no download: bundled, or prepared before."""
    if any(models_dir.glob(f"{spec.slug}-*/prepared.json")):
        return True
    try:
        return bool(spec.package) and weights_path(spec).is_file()
    except VaultvecError:
        return False


def _measure(trying: Trying, spec: ModelSpec, models_dir: Path) -> tuple[float, Vectors]:
    settings = replace(trying.settings, engine="auto", embedding_model=spec.name)
    engine = trying.engines(settings, spec, models_dir, trying.notify)
    try:
        _timed(engine, trying.texts)
        return _timed(engine, trying.texts)
    finally:
        engine.close()


def _stand_in(trying: Trying, base: tuple[float, Vectors] | None) -> Extra:
    """L12's speed without L12: L6's layers twice, cut at L12's own limit. Speed does not depend on what weights say."""
    label = resolve(L12).slug
    if base is None:
        return Extra(label, "neither it nor L6 is on this machine")
    # Windows cannot delete a weights file that is still mapped; it lies in the temporary folder then.
    with tempfile.TemporaryDirectory(prefix="vaultvec-", ignore_cleanup_errors=True) as folder:
        built = doubled(weights_path(resolve(L6)).parent, Path(folder) / "L12-shape", L12_LAYERS, L12_TOKENS)
        seconds, _ = _measure(trying, ModelSpec(name=str(built), kind="transformer"), Path(folder) / "models")
        whole = doubled(weights_path(resolve(L6)).parent, Path(folder) / "L12-long", L12_LAYERS, None)
        long, _ = _measure(trying, ModelSpec(name=str(whole), kind="transformer"), Path(folder) / "models")
    finding = (
        f"not on this machine, so its shape was timed (L6's layers twice): {base[0] / long:.2f}x the speed of L6 on "
        f"the same tokens, {base[0] / seconds:.2f}x when it drops what lies beyond its own {L12_TOKENS} tokens"
    )
    if long > base[0]:
        finding += "; the guide calls it the faster one, which it is not"
    return Extra(label, finding, len(trying.texts) / long)


def doubled(source: Path, target: Path, layers: int, max_tokens: int | None) -> Path:
    """A model folder with `layers` layers, those of `source` repeated; cut at `max_tokens` when given."""
    from safetensors.numpy import load_file, save_file

    shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.safetensors", "*.bin", "*.onnx", "*.py"))
    config = _read(source / "config.json")
    count = int(config["num_hidden_layers"])
    tensors: dict[str, Any] = {}
    for name, tensor in load_file(source / "model.safetensors").items():
        tensors[name] = tensor
        head, found, tail = name.partition("encoder.layer.")
        number, _, rest = tail.partition(".")
        if found:
            for layer in range(int(number) + count, layers, count):
                tensors[f"{head}{found}{layer}.{rest}"] = tensor.copy()
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    _write(target / "config.json", config | {"num_hidden_layers": layers})
    if max_tokens is not None:
        limits = target / "sentence_bert_config.json"
        _write(limits, _read(limits) | {"max_seq_length": max_tokens})
    return target


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")
