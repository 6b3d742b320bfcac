"""What must hold for the chunks of any note: nothing lost, no limit exceeded, ids that are the text's."""

from __future__ import annotations

import re

import numpy as np

from vaultvec.chunks import Chunker
from vaultvec.datatypes import Chunk, Note
from vaultvec.markdown.blocks import headings

_SPACE = re.compile(r"\s+")


def squeeze(text: str) -> str:
    """The text without its white space."""
    return _SPACE.sub("", text)


def check_chunks(chunker: Chunker, note: Note, chunks: list[Chunk]) -> None:
    """Raise AssertionError where a law is broken."""
    assert [chunk.slot for chunk in chunks] == list(range(len(chunks)))
    _check_limits(chunker, chunks)
    _check_nothing_lost(note, chunks)
    last = note.body_line
    for chunk in chunks:
        assert chunk.path == note.path
        assert last <= chunk.start_line <= note.body_line + note.body.count("\n")
        last = chunk.start_line
        assert 0 <= chunk.context <= len(chunk.text)
        assert chunk.text[chunk.context :].strip()


def _check_limits(chunker: Chunker, chunks: list[Chunk]) -> None:
    texts = [chunker.document_prefix + chunk.text for chunk in chunks]
    for chunk, ids in zip(chunks, chunker.tokenizer.encode(texts), strict=True):
        assert len(chunk.token_ids) <= chunker.limits.maximum
        np.testing.assert_array_equal(ids, chunk.token_ids, err_msg=repr(chunk.text))


def _check_nothing_lost(note: Note, chunks: list[Chunk]) -> None:
    """Lines in order in the bodies; headings in the bodies or in the line above one."""
    bodies = squeeze("".join(chunk.text[chunk.context :] for chunk in chunks))
    texts = {squeeze(chunk.text) for chunk in chunks}
    lines = note.body.split("\n")
    special: dict[int, str] = {}
    for number, _, text in headings(note.body):
        special[number] = text
        if not lines[number].lstrip().startswith("#"):
            special[number + 1] = ""  # the underline
    position = 0
    for number, line in enumerate(lines):
        wanted = squeeze(special.get(number, line))
        if number in special:
            assert wanted in bodies or any(wanted in text for text in texts), line
        else:
            found = bodies.find(wanted, position)
            assert found >= 0, f"lost: {line!r}"
            position = found + len(wanted)
