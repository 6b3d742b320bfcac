"""Text → terms for the keyword index, and a query → an FTS5 expression.

SQLite's unicode61 keeps a Korean word and its particles in one token, and trigram finds nothing shorter than three
characters. So runs of Hangul, kana and Han go in as overlapping bigrams, plus the last character of each run alone: every
single character then starts some term, and a one-letter query is a prefix query. Other words go in as they are;
the tokenizer (porter over unicode61) folds case, diacritics and English endings.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field

KEYWORDS_VERSION = 1  # raise when the same text gives other terms: the keyword index is then rebuilt
TOKENIZE = "porter unicode61 remove_diacritics 2"
MAX_QUERY_TERMS = 64  # a query of 10,000 words is answered by its first 64 different terms

_CJK = "\u1100-\u11ff\u3041-\u30ff\u3131-\u318e\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003134f"
_RUN = re.compile(f"[{_CJK}]+|[^\\W_{_CJK}]+")
_IS_CJK = re.compile(f"[{_CJK}]")


def index_terms(text: str) -> str:
    """The text as the keyword index sees it: words as they are, CJK runs as bigrams and their last character."""
    return " ".join(term for run in _runs(text) for term in _grams(run))


def _runs(text: str) -> Iterator[str]:
    for match in _RUN.finditer(unicodedata.normalize("NFC", text)):
        yield match.group()


def _grams(run: str) -> list[str]:
    if not _IS_CJK.match(run):
        return [run]
    return [run[i : i + 2] for i in range(len(run) - 1)] + [run[-1]]


@dataclass(frozen=True, slots=True)
class KeywordQuery:
    """A parsed query. `expression` is for FTS5 MATCH ("" matches nothing); phrases must and excluded words must not occur."""

    expression: str
    phrases: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    words: str = ""  # the query without its exclusions: what the semantic half reads
    terms: tuple[str, ...] = field(default=())


_PART = re.compile(r'(-?)"([^"]+)"|(?:(?<=\s)|^)-(\w[^\s"]*)|([^\s"]+)')


def parse_query(query: str) -> KeywordQuery:
    """`word word "exact phrase" -without -"not this"`: words are alternatives ranked by BM25, phrases are required."""
    words: list[str] = []
    phrases: list[str] = []
    excluded: list[str] = []
    for match in _PART.finditer(query):
        minus, quoted, without, word = match.groups()
        if quoted is not None:
            (excluded if minus else phrases).append(quoted)
            if not minus:
                words.append(quoted)
        elif without is not None:
            excluded.append(without)
        else:
            words.append(word)
    terms = _terms(words)
    parts = [" OR ".join(terms)] if terms else []
    required = [phrase for phrase in map(_phrase, phrases) if phrase]
    if required:
        parts = [" AND ".join(required)]  # words beside a phrase rank through the semantic half
    expression = parts[0] if parts else ""
    return KeywordQuery(expression, tuple(phrases), tuple(excluded), " ".join(words), tuple(terms))


def _terms(words: list[str]) -> list[str]:
    """Quoted FTS5 terms of the free words, each once."""
    seen: dict[str, None] = {}
    for word in words:
        for run in _runs(word):
            if not _IS_CJK.match(run):
                seen.setdefault(f'"{run}"')
            elif len(run) == 1:
                seen.setdefault(f'"{run}"*')
            else:
                for i in range(len(run) - 1):
                    seen.setdefault(f'"{run[i : i + 2]}"')
            if len(seen) >= MAX_QUERY_TERMS:
                return list(seen)[:MAX_QUERY_TERMS]
    return list(seen)


def _phrase(text: str) -> str:
    """An FTS5 phrase; in its last CJK run the final character is left open, so that a particle may follow."""
    grams: list[str] = []
    runs = list(_runs(text))
    open_end = ""
    for position, run in enumerate(runs):
        last = position == len(runs) - 1
        found = _grams(run)
        if last and _IS_CJK.match(run):
            if len(run) == 1:
                open_end = "*"
            else:
                found = found[:-1]
        grams.extend(found)
    return f'"{" ".join(grams)}"{open_end}' if grams else ""
