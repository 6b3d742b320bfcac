"""What each saving brought: tokens that never reach the model, step by step, and padding that is never multiplied."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vaultvec.boilerplate import find_boilerplate
from vaultvec.datatypes import Chunk, NoteFile
from vaultvec.engines import load_tokenizer
from vaultvec.engines.base import Tokenizer, least_window
from vaultvec.engines.openvino_engine import START_COST
from vaultvec.errors import VaultError
from vaultvec.ledger import content_hash
from vaultvec.markdown.frontmatter import read_front_matter
from vaultvec.measure.ways import padded_tokens
from vaultvec.models import ModelSpec
from vaultvec.note_file import decode, normalise, read_bytes
from vaultvec.notes import parse_note
from vaultvec.settings import Settings
from vaultvec.stages.reading import chunker_spec
from vaultvec.vault import load_exclusions, open_vault, walk

USUAL_BATCH = 32
# Simple expressions, one after the other, to say what went where; the real reading is in vaultvec/notes.py.
_STEPS = (
    ("comments (%% and HTML)", re.compile(r"%%.*?%%|<!--.*?-->", re.S)),
    ("HTML tags", re.compile(r"</?[A-Za-z][^<>\n]*>")),
    ("URLs", re.compile(r"\(https?://[^\s)]*\)|https?://[^\s)>\]]*")),
)


def measure_savings(settings: Settings, model: ModelSpec, vault: Path, token_budget: int) -> dict[str, Any]:
    """Tokens (and characters) after each step over a whole vault. `token_budget`: padded tokens a batch."""
    tokenizer = load_tokenizer(model, settings.models_dir)
    files = list(walk(open_vault(vault), load_exclusions(vault, settings.exclude)).files)
    steps = _reading_steps(files, tokenizer)
    boilerplate = find_boilerplate(files)
    chunks = list(_chunks(files, settings, model, boilerplate))
    whole = list(_chunks(files, settings, model, frozenset()))
    tiny = list(_chunks(files, replace(settings, min_chunk_tokens=0), model, boilerplate))
    unique = list({content_hash(chunk.text): len(chunk.token_ids) for chunk in chunks}.values())
    total = sum(len(chunk.token_ids) for chunk in chunks)
    by_characters = [
        len(chunk.token_ids)
        for chunk in sorted({content_hash(chunk.text): chunk for chunk in chunks}.values(), key=lambda c: -len(c.text))
    ]
    raw = steps[0]["tokens"]
    least = least_window(token_budget, model.max_tokens)
    return {
        "notes": len(files),
        "reading": steps,
        "read_share": round(steps[-1]["tokens"] / raw, 3) if raw else None,
        "chunks": len(chunks),
        "chunk_tokens": total,
        "boilerplate_lines": len(boilerplate),
        "with_boilerplate": _size(whole),
        "unmerged": _size(tiny),
        "unique": {"chunks": len(unique), "tokens": sum(unique)},
        "padded": {
            "usual": _padded_by_count(by_characters, USUAL_BATCH),
            "usual_unsorted": _padded_by_count(unique, USUAL_BATCH),
            "ours": padded_tokens(unique, token_budget, max(settings.embedding_batch_size, least), START_COST),
            "ours_wide": padded_tokens(unique, token_budget, 2000, START_COST),
        },
    }


def _reading_steps(files: Sequence[NoteFile], tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """Characters and tokens of the whole files, and after each thing that is taken away."""
    names = [
        "the files as they are",
        "without front matter",
        *(f"without {name}" for name, _ in _STEPS),
        "as we read them",
    ]
    totals = [[0, 0] for _ in names]
    for file in files:
        try:
            data = read_bytes(file)
            text = normalise(decode(data)[0])
            body = parse_note(file.path, data).body
        except VaultError:
            continue
        lines = text.split("\n")
        stages = [text, "\n".join(lines[read_front_matter(lines).lines :])]
        for _, pattern in _STEPS:
            stages.append(pattern.sub("", stages[-1]))
        stages.append(body)
        for total, stage, ids in zip(totals, stages, tokenizer.encode_plain(stages), strict=True):
            total[0] += len(stage)
            total[1] += len(ids)
    return [{"step": name, "characters": c, "tokens": t} for name, (c, t) in zip(names, totals, strict=True)]


def _size(chunks: Sequence[Chunk]) -> dict[str, int]:
    return {"chunks": len(chunks), "tokens": sum(len(chunk.token_ids) for chunk in chunks)}


def _chunks(
    files: Iterable[NoteFile], settings: Settings, model: ModelSpec, boilerplate: frozenset[str]
) -> Iterator[Chunk]:
    chunker = chunker_spec(settings, model, boilerplate).build()
    for file in files:
        try:
            yield from chunker.chunk(parse_note(file.path, read_bytes(file)))
        except VaultError:
            continue


def _padded_by_count(lengths: Sequence[int], count: int) -> int:
    """Tokens through the model when `count` texts at a time are padded to the longest of them."""
    return sum(max(part) * len(part) for part in (lengths[i : i + count] for i in range(0, len(lengths), count)))
