"""The guide's further options, tried: torch.compile, processes on half of the cores, and its three models."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from vaultvec.choice import OLLAMA_DEFAULT
from vaultvec.cores import usable_cores
from vaultvec.engines.base import Engine, ignore
from vaultvec.errors import VaultvecError
from vaultvec.measure.results import Extra, ModelRow
from vaultvec.measure.rounds import Tick, Timing, compare, ratio_of, time_in_turn, top_agreement
from vaultvec.measure.ways import encode, fast
from vaultvec.models import L6, ModelSpec, resolve, weights_path
from vaultvec.settings import Settings

L12 = "sentence-transformers/all-MiniLM-L12-v2"
L3 = "sentence-transformers/paraphrase-MiniLM-L3-v2"
L12_LAYERS = 12
L12_TOKENS = 128  # its own limit
ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Trying:
    """What the options are tried on: the fast path's engine and settings, and texts."""

    settings: Settings
    engine: Engine
    texts: Sequence[str]
    engines: Callable[..., Engine]
    notify: Callable[[str], None]
    tick: Tick


def try_extras(trying: Trying) -> tuple[list[Extra], list[ModelRow]]:
    """One finding an option, and the models that were measured; an option that this machine lacks says so."""
    rows = [
        attempt("torch.compile", try_compile, trying),
        attempt("multiprocessing over files", try_processes, trying),
    ]
    found, models = try_models(trying)
    return rows + found, models


def attempt(label: str, option: Callable[[Trying], Extra], trying: Trying) -> Extra:
    """One option; where it fails, the finding says why."""
    trying.tick(label)
    try:
        return option(trying)
    except (VaultvecError, RuntimeError, OSError, BrokenProcessPool) as error:  # torch's compiler raises RuntimeErrors
        reason = str(error).strip().splitlines()
        return Extra(label, f"not possible here: {reason[0] if reason else type(error).__name__}")


def _in_turn(trying: Trying, *engines: Engine) -> list[Timing]:
    """Warm engines on the same texts, in turn."""
    ways = [fast(engine, str(i), engine.model.slug) for i, engine in enumerate(engines)]
    for way in ways:
        way.run(trying.texts[:4])
    tokens = sum(len(item) for item in encode(trying.engine, trying.texts))
    return list(time_in_turn(ways, trying.texts, tokens, ROUNDS, trying.tick).values())


def try_compile(trying: Trying) -> Extra:
    """The torch engine with and without torch.compile; the first run, which compiles, is counted."""
    engines: list[Engine] = []
    firsts: list[float] = []
    try:
        for compiled in (False, True):
            settings = replace(trying.settings, engine="torch", torch_compile=compiled)
            began = time.perf_counter()
            engines.append(trying.engines(settings, trying.engine.model, settings.models_dir, trying.notify))
            engines[-1].embed_documents(trying.texts)
            firsts.append(time.perf_counter() - began)
        present, plain, later = _in_turn(trying, trying.engine, *engines)
    finally:
        for engine in engines:
            engine.close()
    gain = compare(plain, later)
    saved = (plain.median_s - later.median_s) / len(trying.texts)
    pays = f", so it pays after about {max(0.0, firsts[1] - firsts[0]) / saved:,.0f} chunks" if gain.better else ""
    finding = (
        f"{gain} of torch without it; loading and first run take {firsts[1]:.1f} s, not {firsts[0]:.1f} s{pays}; "
        f"{compare(present, later)} of the fast path"
    )
    return Extra("torch.compile", finding, later.texts_per_second)


def try_processes(trying: Trying) -> Extra:
    """Half of the cores as processes, each with a model of its own, as the guide has it."""
    workers = max(1, usable_cores() // 2)
    settings = replace(trying.settings, streams=1, threads=max(1, usable_cores() // workers))
    shares = [share for share in (list(trying.texts[i::workers]) for i in range(workers)) if share]
    before = _seconds(trying.engine, trying.texts)
    began = time.perf_counter()
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        jobs = [pool.submit(_embed_share, trying.engines, settings, trying.engine.model, share) for share in shares]
        busy = max(job.result() for job in jobs)
    total = time.perf_counter() - began
    ratio = ratio_of([before, _seconds(trying.engine, trying.texts)], [busy, busy])
    finding = (
        f"{workers} process(es): {ratio} of the fast path once they run; "
        f"starting them and loading a model in each took {total - busy:.1f} s more"
    )
    return Extra("multiprocessing over files", finding, len(trying.texts) / busy)


def try_ollama(trying: Trying) -> Extra:
    """The guide's hope that Ollama "may be faster", answered by measurement where a server answers."""
    settings = replace(trying.settings, engine="ollama")
    asked = trying.settings.embedding_model if trying.settings.engine == "ollama" else OLLAMA_DEFAULT
    engine = trying.engines(settings, resolve(asked), settings.models_dir, trying.notify)
    try:
        engine.warm_up()
        present, ollama = _in_turn(trying, trying.engine, engine)
    finally:
        engine.close()
    finding = f"{asked}: {compare(present, ollama)} of the fast path; another model, so its vectors are not compared"
    return Extra("Ollama", finding, ollama.texts_per_second)


def ollama_answers(url: str) -> bool:
    """Whether something listens there. Only this machine is asked: nothing goes out unless ENGINE says so."""
    try:
        parts = urlsplit(url)
        if parts.hostname not in ("127.0.0.1", "localhost", "::1"):
            return False
        with socket.create_connection((parts.hostname, parts.port or 80), timeout=0.3):
            return True
    except (OSError, ValueError):  # ValueError: an address that is none
        return False


def _seconds(engine: Engine, texts: Sequence[str]) -> float:
    began = time.perf_counter()
    engine.embed_documents(texts)
    return time.perf_counter() - began


def _embed_share(engines: Callable[..., Engine], settings: Settings, model: ModelSpec, texts: list[str]) -> float:
    """In a process of its own: seconds for these texts, loading not counted."""
    engine = engines(settings, model, settings.models_dir, ignore)
    engine.warm_up()
    return _seconds(engine, texts)


def try_models(trying: Trying) -> tuple[list[Extra], list[ModelRow]]:
    """L12 and L3 against L6: speed, and how far their nearest neighbours are L6's."""
    try:
        base = _load(trying, resolve(L6), trying.settings.models_dir)
    except (VaultvecError, OSError) as error:
        return [Extra(resolve(L6).slug, f"not possible here: {error}")], []
    rows: list[Extra] = []
    models: list[ModelRow] = []
    try:
        for name in (L12, L3):
            spec = resolve(name)
            here = _is_here(spec, trying.settings.models_dir)
            try:
                if not here:
                    rows.append(_stand_in(trying, base) if name == L12 else Extra(spec.slug, "not on this machine"))
                    continue
                row, found = _against(trying, base, spec)
            except (VaultvecError, OSError) as error:
                rows.append(Extra(spec.slug, f"not possible here: {error}"))
                continue
            rows.append(row)
            models += found if not models else found[1:]  # L6 itself once
    finally:
        base.close()
    return rows, models


def _load(trying: Trying, spec: ModelSpec, models_dir: Path) -> Engine:
    settings = replace(trying.settings, engine="auto", embedding_model=spec.name)
    return trying.engines(settings, spec, models_dir, trying.notify)


def _against(trying: Trying, base: Engine, spec: ModelSpec) -> tuple[Extra, tuple[ModelRow, ModelRow]]:
    """A model against L6, in turn."""
    engine = _load(trying, spec, trying.settings.models_dir)
    try:
        first, second = _in_turn(trying, base, engine)
    finally:
        engine.close()
    agreement = top_agreement(first.vectors, second.vectors)
    finding = f"{compare(first, second)} the speed of L6; {agreement:.0%} of its ten nearest chunks are L6's"
    known = (
        ModelRow(L6, first.texts_per_second, 1.0, _made_by(base)),
        ModelRow(spec.name, second.texts_per_second, agreement, _made_by(engine)),
    )
    return Extra(spec.slug, finding, second.texts_per_second), known


def _made_by(engine: Engine) -> str:
    return f"{engine.name} {engine.precision} {engine.device}"


def _stand_in(trying: Trying, base: Engine) -> Extra:
    """L12's speed without L12: L6's layers twice, cut at L12's own limit. Speed does not depend on what weights say."""
    source = weights_path(resolve(L6)).parent
    # Windows cannot delete a weights file that is still mapped; it lies in the temporary folder then.
    with tempfile.TemporaryDirectory(prefix="vaultvec-", ignore_cleanup_errors=True) as folder:
        built = [
            doubled(source, Path(folder) / "all-MiniLM-L12-shape", L12_LAYERS, None),
            doubled(source, Path(folder) / f"all-MiniLM-L12-shape-{L12_TOKENS}", L12_LAYERS, L12_TOKENS),
        ]
        engines = [_load(trying, ModelSpec(str(path), "transformer"), Path(folder) / "models") for path in built]
        try:
            six, whole, cut = _in_turn(trying, base, *engines)
        finally:
            for engine in engines:
                engine.close()
    ratio = compare(six, whole)
    finding = (
        f"not on this machine, so its shape was timed (L6's layers twice): {ratio} the speed of L6 on "
        f"the same tokens, {compare(six, cut)} when it drops what lies beyond its own {L12_TOKENS} tokens"
    )
    if ratio.worse:
        finding += "; the guide calls it the faster one, which it is not"
    return Extra(resolve(L12).slug, finding, whole.texts_per_second)


def _is_here(spec: ModelSpec, models_dir: Path) -> bool:
    """Whether a model needs no download: prepared before, or bundled."""
    if any(models_dir.glob(f"{spec.slug}-*/prepared.json")):
        return True
    try:
        return bool(spec.package) and weights_path(spec).is_file()
    except VaultvecError:
        return False


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
