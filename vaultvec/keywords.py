"""Text → terms for the keyword index, and a query → FTS5 expressions.

SQLite's unicode61 keeps a Korean word and its particles in one token, and trigram finds nothing shorter than three
characters. So runs of Hangul, kana and Han go in as overlapping bigrams, plus the last character of each run alone: every
single character then starts some term, and a one-letter query is a prefix query. Other words go in as they are;
the tokenizer (porter over unicode61) folds case, diacritics and English endings.

A query asks for a Korean word as a whole, without its particle or ending: the pairs of one word, in a row. Over the two Korean
"tune" halves of benchmarks/eval that brings MRR@10 of hybrid search from 0.61 to 0.66, against any of its pairs anywhere. On their
"report" halves, with the script penalty of fusion.py as well, it is 0.61 before and 0.62 after: take it for a small gain.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vaultvec.korean import ENDINGS, PARTICLES, bare, is_korean, stem
from vaultvec.languages import FUNCTION_WORDS, language_of

KEYWORDS_VERSION = 4  # raise when the same text gives other terms: the keyword index is then rebuilt
TOKENIZE = "porter unicode61 remove_diacritics 2 categories ''L* N* Co Mn Mc''"  # a vowel sign is part of its word
MAX_QUERY_TERMS = 64  # a query of 10,000 words is answered by its first 64 different terms

_CJK = (
    "\u1100-\u11ff\u3041-\u30ff\u3131-\u318e\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff"
    "\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003134f"
    "\u0e01-\u0e4e\u0e81-\u0ece\u1000-\u103f\u1780-\u17d3"  # Thai, Lao, Burmese, Khmer: no spaces between words either
)
# Vowel signs that Python's \w leaves out: Latin, Greek and Cyrillic, Arabic and Syriac, the scripts of India, Tibetan.
_MARKS = (
    "\u0300-\u036f\u0483-\u0487\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed\u0711\u0730-\u074a\u0900-\u0963\u0971-\u09e3"
    "\u09fe-\u0dff\u0f18\u0f19\u0f35\u0f37\u0f39\u0f3e\u0f3f\u0f71-\u0f84\u0f86\u0f87\u0f8d-\u0fbc\u1dc0-\u1dff"
)
# What a word is written with or without: the points of Hebrew and Arabic, soft hyphens, joiners.
_POINTS = re.compile(
    "[\u00ad\u200b-\u200d\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u064b-\u065f\u0670]"
)
# The same letters in another dress, as PDFs (ﬁ, ⾼, Arabic forms) and Japanese keyboards (Ａ, ｶ) write them.
_DRESSED = re.compile("[\u2f00-\u2fd5\ufb00-\ufb06\ufb50-\ufdff\ufe70-\ufefc\uff10-\uff9f]+")
# What is written with or without, and SQLite leaves as it is: ё, hamza on alef, the accents of Greek, strokes.
_STROKES = {"đ": "d", "ł": "l", "ø": "o"}
_ACCENTED = re.compile("[ёđłø\u0622\u0623\u0625\u0390\u03ac-\u03b0\u03ca-\u03ce\u1f00-\u1fff]")
# C++, C#: names that their signs tell from C. The signs come first here, as few texts hold one.
_SIGNED = re.compile(r"\+\+(?<=(?<![^\W_])[a-z]\+\+)|#(?![\w#])(?<=(?<![^\W_])[a-z]#)")
_SIGNS = {"++": "\U0010fffc", "#": "\U0010fffd"}  # for private use, so part of a word to SQLite
_RUN = re.compile(f"[{_CJK}]+|(?:[^\\W_{_CJK}]|[{_MARKS}{''.join(_SIGNS.values())}])+")
_IS_CJK = re.compile(f"[{_CJK}]")
_QUOTES = str.maketrans(dict.fromkeys("“”„‟＂«»", '"'))

# Words of a question that say nothing of what is asked. Korean ones are whole runs, particles and endings included.
_ASKING = {
    "ko": "어떻게 어떤 어디 어디서 언제 누가 누구 무엇 무엇을 무슨 뭐 뭘 뭐지 뭐였지 왜 얼마 얼마나 어느 몇"
    " 있을까 있나 있나요 있어 있는 있을 하나 하나요 하면 하려면 하려고 싶어 싶은데 싶다 되나 되나요 되지 될까"
    " 수 것 게 때 좀 내 나 내가 나는 우리 그 이 저 및 등 더 잘 안 못 또 또는 그리고 하지만 방법 방법은 해야"
    " 하지 했지 했더라 했나 대해 대해서 대하여 대한 관해 관해서 관하여 관한 무엇인가 무엇인지 뭐야",
    "en": "me i s t don than then them these those some any all could did shall may might must just into make want need"
    " get got let does doing had been being own myself",
    "de": "mein meine meinen meiner meinem mir mich man was wer wo wann warum soll muss müssen will geht gibt im am vom",
}


def _stop_words(language: str) -> frozenset[str]:
    words = f"{FUNCTION_WORDS.get(language, '')} {_ASKING.get(language, '')}".split()
    return frozenset(words) | PARTICLES | ENDINGS  # also after an English word: ElasticSearch를


def index_terms(text: str) -> str:
    """The text as the keyword index sees it: words as they are, CJK runs as bigrams and their last character."""
    return " ".join(term for run in _runs(text) for term in _grams(run))


def _runs(text: str) -> Iterator[str]:
    """Words and CJK runs, in our own lower case: SQLite's does not know every script that has capitals."""
    for match in _RUN.finditer(_plain(_lower(text))):
        yield match.group()


def _plain(text: str) -> str:
    """The text as all write it who mean the same: composed, without points and dress; C++ and C# as words of their own."""
    if not text.isascii():
        text = _POINTS.sub("", unicodedata.normalize("NFC", text))
        text = _DRESSED.sub(lambda dressed: unicodedata.normalize("NFKC", dressed[0]), text)
        text = _ACCENTED.sub(lambda letter: _STROKES.get(letter[0]) or unicodedata.normalize("NFD", letter[0])[0], text)
    return _SIGNED.sub(lambda sign: f"{_SIGNS[sign[0]]} ", text)


def _grams(run: str) -> list[str]:
    if not _IS_CJK.match(run):
        return [run]
    return [run[i : i + 2] for i in range(len(run) - 1)] + [run[-1]]


@dataclass(frozen=True, slots=True)
class KeywordQuery:
    """A parsed query. `terms`, `required` and `excluded` are FTS5 strings: quoted, so nothing in them is an operator."""

    text: str  # the query without exclusions and quotation marks: what the models read
    terms: tuple[str, ...]  # any of them may match; function words only when there is nothing else
    required: str = ""  # all phrases must match; "" when there are none
    excluded: tuple[str, ...] = ()  # none of these may match
    phrase: str = ""  # all of the query as it stands; "" when it is long or has no word
    names: tuple[str, ...] = ()  # the query without the particle and the words of a question that follow a Korean title
    cut: bool = False  # whether there were more than MAX_QUERY_TERMS terms
    phrases: tuple[tuple[str, str], ...] = ()  # (as it was typed, as FTS5 has it); `required` is all of them
    beside: bool = False  # whether words stand beside the phrases, which may only stress then


_PART = re.compile(r'(-?)"([^"]+)"|(?:(?<=\s)|^)-(?![a-zA-Z](?:\s|$))([^\s"-][^\s"]*)|([^\s"]+)')


def parse_query(query: str, exclude: Sequence[str] = ()) -> KeywordQuery:
    """`word word "exact phrase" -without -"not this"`: words are alternatives, phrases are required.

    `exclude`: words or phrases that may not match either. One Latin letter after a hyphen is an option of a command, as in
    "git commit -m", and is searched for.
    """
    words: list[str] = []
    phrases: list[str] = []
    excluded = list(exclude)
    for match in _PART.finditer(unicodedata.normalize("NFC", query).translate(_QUOTES)):
        minus, quoted, without, word = match.groups()
        if quoted is not None:
            (excluded if minus else phrases).append(quoted)
            if not minus:
                words.append(quoted)
        elif without is not None:
            excluded.append(without)
        else:
            words.append(word)
    text = " ".join(words)
    stop = _stop_words(language_of(text))
    terms, cut = _terms(words, stop)
    if not terms:
        terms, cut = _terms(words, frozenset())
    asked = tuple((phrase, found) for phrase in phrases if (found := _phrase(phrase)))
    required = " AND ".join(found for _, found in asked)
    whole = "" if cut or len(words) > MAX_QUERY_TERMS else _phrase(text)
    names = () if cut else _names(words, stop)
    without = tuple(filter(None, map(_phrase, excluded)))
    return KeywordQuery(text, tuple(terms), required, without, whole, names, cut, asked, len(words) > len(phrases))


def _terms(words: Sequence[str], stop: frozenset[str]) -> tuple[list[str], bool]:
    """Quoted FTS5 terms, each once, and whether there were too many."""
    seen: dict[str, None] = {}
    for word in words:
        for run in _runs(word):
            if not _is_stop(run, stop):
                seen.update(dict.fromkeys(_query_terms(run)))
        if len(seen) > MAX_QUERY_TERMS:
            return list(seen)[:MAX_QUERY_TERMS], True
    return list(seen), False


def _is_stop(run: str, stop: frozenset[str]) -> bool:
    return run in stop or (run != stem(run) and stem(run) in stop)


def _names(words: Sequence[str], stop: frozenset[str]) -> tuple[str, ...]:
    """What the words may call a note: "태그를 어떻게 하나요" asks for 태그. None where that is the words themselves."""
    runs = [run for word in words for run in _runs(word)]
    most = len(runs)
    while runs and is_korean(runs[-1]) and _is_stop(runs[-1], stop):
        runs.pop()
    if not runs:
        return ()
    lasts = [*bare(runs[-1]), *([runs[-1]] if len(runs) < most else [])]
    return tuple(" ".join([*runs[:-1], last]) for last in lasts)


def _query_terms(run: str) -> list[str]:
    """The FTS5 strings that stand for a word or a CJK run."""
    if not _IS_CJK.match(run):
        return [f'"{run}"']
    if len(run) == 1:
        return [f'"{run}"*']
    if not is_korean(run):
        return [f'"{pair}"' for pair in _grams(run)[:-1]]
    whole = f'"{" ".join(_grams(stem(run))[:-1])}"'
    return [whole, f'"{run[0]}"*'] if _one_syllable(run) else [whole]


def _one_syllable(run: str) -> bool:
    """Whether a Korean word may be one syllable and a particle: 책을, 책에서. Of three, 사과는 (an apple) is rather not."""
    return run[1:] in PARTICLES and (run == stem(run) or run[1] in "에으")


def parts(term: str) -> list[str]:
    """A word of several pairs as its pairs, for when it stands nowhere as a whole; any other term as it is."""
    return [f'"{pair}"' for pair in term.strip('"').split()] if " " in term else [term]


def shown(term: str) -> str:
    """A term as a person would write it."""
    first, *rest = term.strip('"*').split()
    for sign, private in _SIGNS.items():
        first = first.replace(private, sign)
    return first + "".join(pair[-1] for pair in rest)


def _lower(text: str) -> str:
    """Lower case, one character for each: `casefold` makes two of an ß, and a Σ depends on what stands beside it."""
    lowered = text.lower()
    if len(lowered) == len(text) and "Σ" not in text:
        return lowered
    return "".join(c.lower() if len(c.lower()) == 1 else c for c in text)


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
