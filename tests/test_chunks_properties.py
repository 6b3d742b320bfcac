"""Any note, any tokenizer, any sizes: nothing is lost, no chunk is too long, and time grows with the note alone."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from chunk_laws import check_chunks
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vaultvec.chunks import Chunker, ChunkLimits
from vaultvec.engines import load_tokenizer
from vaultvec.errors import VaultError
from vaultvec.models import L6, USE, resolve
from vaultvec.notes import parse_note
from vaultvec.tokenizing import Tokenizer

TOKENIZERS: dict[str, Tokenizer] = {name: load_tokenizer(resolve(name), Path()) for name in (L6, USE)}
PIECES = [
    "# ",
    "## ",
    "### a\n",
    "\n",
    "\n\n",
    "===\n",
    "---\n",
    "- ",
    "> ",
    "```\n",
    "~~~\n",
    "word ",
    "Satz. ",
    "한국어 문장. ",
    "日本語。",
    "e\u0301",
    "\u200d",
    "👩\u200d👧 ",
    "[CLS]",
    "[SEP]",
    " [MASK] ",
    "##ing",
    "[UNK]",
    "<s>",
    "▁",
    "\u2028",
    "\x85",
    "x" * 120,
    "ab" * 200 + " ",
    "0123456789abcdef" * 30,
    "\t",
    "    ",
    "\u0130",
    "ﬁ",
    "\ufeff",
    "ẞ",
    "\u3000",
    "\xad",
    "\u0345",
]
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=8), max_size=60).map("".join)
sizes = st.tuples(st.integers(32, 300), st.integers(0, 120))


@pytest.mark.parametrize("name", [L6, USE])
@settings(max_examples=50, deadline=None)
@given(
    body=texts,
    title=st.text(max_size=30) | st.sampled_from(PIECES),
    size=sizes,
    prefix=st.sampled_from(["", "passage: "]),
)
@example(body="", title="\u2581", size=(32, 0), prefix="")  # the multilingual tokenizer takes it for white space
def test_the_laws_hold_for_any_note(name: str, body: str, title: str, size: tuple[int, int], prefix: str) -> None:
    data = f"---\ntitle: {title!r}\n---\n{body}".encode("utf-8", "replace")
    try:
        note = parse_note("folder/note.md", data)
    except VaultError:
        return
    chunker = Chunker(TOKENIZERS[name], ChunkLimits(size[0], min(size), resolve(name).max_tokens), prefix)
    check_chunks(chunker, note, chunker.chunk(note))


@pytest.mark.parametrize(
    "piece", ["a", "word ", "# h\n", "## a\nb\n", "\n", "x\n", "가", "한 ", "。", "\u0301", "- [ ] t\n", "===\n", "."]
)
def test_much_of_anything_takes_seconds(piece: str) -> None:
    note = parse_note("a.md", (piece * (150_000 // len(piece.encode()))).encode())
    chunker = Chunker(TOKENIZERS[L6], ChunkLimits(200, 64, 256))
    began = time.process_time()
    chunks = chunker.chunk(note)
    spent = time.process_time() - began
    assert spent < 20, "quadratic time would be minutes"
    assert all(len(chunk.token_ids) <= 256 for chunk in chunks)
