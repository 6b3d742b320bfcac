"""The part of a passage that says why it was found: the sentences that hold most of the query's words."""

from __future__ import annotations

import re

from vaultvec.keywords import index_terms, parse_query, shown

_SENTENCE_END = re.compile(r"(?<=[.!?…])\s+|(?<=[。！？])|\n+")
SHARED_START = 6  # letters by which two forms of a word are taken for the same


def excerpt(text: str, query: str, chars: int) -> str:
    """At most `chars` characters from the start of the best sentence on, with "… " before what does not begin the text."""
    wanted = _terms(" ".join(shown(term) for term in parse_query(query).terms))  # no words such as "my"
    starts = [0, *(match.end() for match in _SENTENCE_END.finditer(text) if match.end() < len(text))]
    if not wanted or len(text) <= chars:
        return text[:chars]
    held = [len(wanted & _terms(text[at : at + chars])) for at in starts]
    first = held.index(max(held))
    ends = [*starts[1:], len(text)]
    best = next((at for at, end in zip(starts[first:], ends[first:], strict=True) if wanted & _terms(text[at:end])), 0)
    return text[:chars] if best == 0 else f"… {text[best : best + chars]}"


def _terms(text: str) -> set[str]:
    return {_start(term) for term in index_terms(text).split()}


def _start(term: str) -> str:
    return term.removesuffix("s")[:SHARED_START]
