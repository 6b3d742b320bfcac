"""One file of the vault → Note: front matter, plain body. Nothing is written, nothing is resolved."""

from __future__ import annotations

import unicodedata

from vaultvec.datatypes import Note, NoteFile
from vaultvec.markdown.canvas import read_canvas
from vaultvec.markdown.frontmatter import MAX_LINKS, read_front_matter, unique
from vaultvec.markdown.inline import plain_text
from vaultvec.note_file import MAX_BYTES, decode, digest, normalise, read_bytes

READER_VERSION = 3  # raise when the same bytes give another Note: the pipeline then reads every note again


def read_note(file: NoteFile, max_bytes: int = MAX_BYTES) -> tuple[bytes, Note]:
    """(digest of the bytes, note). Raises VaultError with the reason, without the path, which the caller has."""
    data = read_bytes(file, max_bytes)
    return digest(data), parse_note(file.path, data)


def parse_note(path: str, data: bytes) -> Note:
    """The note in `data`; `path` (vault-relative) gives its kind and title. Raises VaultError if it is not text."""
    text, warnings = decode(data)
    stem, _, suffix = path.rpartition("/")[2].rpartition(".")
    stem = unicodedata.normalize("NFC", stem or suffix)
    text = normalise(text)
    if suffix.lower() == "canvas":
        body, tags, links = read_canvas(text)
        return Note(path, stem, body, 1, unique(tags), (), unique(links, MAX_LINKS), tuple(warnings))
    lines = text.split("\n")
    head = read_front_matter(lines)
    body, tags, links = plain_text("\n".join(lines[head.lines :]) if head.lines else text)
    return Note(
        path=path,
        title=head.title or stem,
        body=body,
        body_line=head.lines + 1,
        tags=unique([*head.tags, *tags]),
        aliases=head.aliases,
        links=unique([*head.links, *links], MAX_LINKS),
        warnings=(*warnings, *head.warnings),
    )
