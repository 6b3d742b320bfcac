"""The texts of gpu_bench.py: made from a vault, read from a file, tokenised in processes of their own."""

from __future__ import annotations

import gzip
import json
import os
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vaultvec.datatypes import TokenIds
from vaultvec.engines.tokenizer import HfTokenizer
from vaultvec.models import L6, ModelSpec, resolve, weights_path

_worker: HfTokenizer | None = None


def start_tokenizer(path: Path) -> None:
    """In a process of its own: one tokenizer, one thread."""
    global _worker
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _worker = HfTokenizer(path)


def tokenise(texts: Sequence[str], max_tokens: int) -> tuple[TokenIds, list[int]]:
    """Token ids of some texts one after the other, and their counts: one array travels faster than hundreds."""
    assert _worker is not None
    rows = _worker.encode(texts, max_tokens)
    return np.concatenate(rows), [len(row) for row in rows]


def read_spec(folder: Path) -> ModelSpec:
    """The model of a folder."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    limits = folder / "sentence_bert_config.json"
    limit = json.loads(limits.read_text(encoding="utf-8")).get("max_seq_length") if limits.is_file() else None
    return ModelSpec(str(folder), "transformer", config["hidden_size"], limit or config["max_position_embeddings"])


def read_texts(path: Path) -> list[str]:
    """One JSON string a line, in a mix of lengths that is the same everywhere."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        texts = [json.loads(line) for line in file if line.strip()]
    random.Random(0).shuffle(texts)
    return texts


def make_texts(vault: Path, out: Path) -> int:
    """Write the chunks of a vault as this program would embed them. Gives their number."""
    from vaultvec.chunks import Chunker, ChunkLimits
    from vaultvec.errors import VaultvecError
    from vaultvec.notes import read_note
    from vaultvec.vault import load_exclusions, open_vault, walk

    root = open_vault(vault)
    chunker = Chunker(HfTokenizer(weights_path(resolve(L6)).parent / "tokenizer.json"), ChunkLimits(200, 64, 256))
    texts: dict[str, None] = {}
    for file in walk(root, load_exclusions(root, ())).files:
        try:
            texts.update((chunk.text, None) for chunk in chunker.chunk(read_note(file)[1]))
        except VaultvecError as error:
            say(f"left out: {error}")
    with gzip.GzipFile(out, "wb", mtime=0) as packed:
        packed.write("".join(json.dumps(text, ensure_ascii=False) + "\n" for text in texts).encode())
    return len(texts)


def say(line: str) -> None:
    """Progress goes to stderr."""
    print(line, file=sys.stderr, flush=True)
