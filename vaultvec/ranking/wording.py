"""The keyword half: how much of a query's words each chunk holds, from SQLite's FTS5."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vaultvec.boilerplate import kept_boilerplate
from vaultvec.keywords import KeywordQuery, index_terms, parts, shown
from vaultvec.ledger import Ledger
from vaultvec.lookup import (
    count_matches,
    keyword_matches,
    literal_matches,
    matching_among,
    matching_chunks,
    matching_phrases,
    note_rows,
)
from vaultvec.ranking.fusion import BM25_MOST, Scores, idf, together
from vaultvec.ranking.matrix import ChunkTable, Ids

SCORED_ROWS = 10_000  # chunks whose words are weighed; a query's most frequent words are left out beyond
COVERED_ROWS = 10_000  # matches gone through to tell which chunks hold the words together; likewise
NAMES = "{title tags}"  # the columns that hold a note's title and aliases


class WordIndex:
    """The keyword index of one ledger. Remembers how frequent the words asked for are, until `refresh`."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._table = ChunkTable.empty()
        self._counts: dict[str, int] = {}

    def refresh(self, table: ChunkTable) -> None:
        """Take a newer chunk table."""
        self._table = table
        self._counts.clear()

    def shares(self, query: KeywordQuery, usable: NDArray[np.bool_] | None, k: int) -> tuple[Ids, NDArray[np.float32]]:
        """(the `k` best rows, how much of the query's weight their words hold, 0 to 1); rare words weigh more."""
        total = len(self._table.ids)
        counts = {term: self._count(term) for term in query.terms}
        whole = BM25_MOST * sum(idf(count, total) for count in counts.values())
        matches = keyword_matches(self._ledger, self._expression(query, counts), k if usable is None else -1)
        rows, found = self._table.positions(np.array([chunk for chunk, _ in matches], np.int64))
        scores = np.array([score for _, score in matches], np.float32) / max(whole, 1e-9)
        if usable is not None:
            found = found & usable[rows] if len(rows) else found
        return rows[found][:k], np.minimum(scores[found][:k], np.float32(1.0))

    def together(self, query: KeywordQuery, rows: Ids) -> Scores:
        """Points for each of these rows that holds the query's words together, or as they stand, or in its note's name."""
        ids = self._table.ids[rows]
        coverage, weighed = self._coverage(query.terms, ids)
        phrase, named, titled = np.zeros((3, len(ids)), np.bool_)
        # Only these can hold the phrase: a title stands in the row of each of its note's chunks.
        whole = coverage > 1 - 1e-4
        if query.phrase and whole.any():
            asked = [f"{NAMES} : {query.phrase}", *([query.phrase] if weighed > 1 else [])]
            named[whole], *standing = matching_phrases(self._ledger, asked, ids[whole])
            if standing:
                phrase[whole] = standing[0]
            titled[named] = self._titled([query.text], self._table.notes[rows[named]])
        if query.names and not titled.any():
            titled = self._titled(query.names, self._table.notes[rows])
            named |= titled
            coverage[titled] = 1.0  # the other words only ask
        return together(coverage, weighed, phrase, named, titled)

    def _titled(self, names: Sequence[str], notes: Ids) -> NDArray[np.bool_]:
        """Which of these notes have one of the names, and nothing else, as their title or an alias."""
        wanted = set(map(index_terms, names))
        found = note_rows(self._ledger, sorted(set(notes.tolist())))
        titles = {number: map(index_terms, (note.title, *note.aliases)) for number, note in found.items()}
        return np.isin(notes, [number for number, terms in titles.items() if not wanted.isdisjoint(terms)])

    def _coverage(self, terms: Sequence[str], ids: Ids) -> tuple[Scores, int]:
        """(the share of the terms' weight that each chunk holds, 0 to 1; how many terms were weighed)."""
        held = np.zeros(len(ids), np.float32)
        whole, walked, weighed = 0.0, 0, 0
        for term in sorted(terms, key=self._count):
            walked += self._count(term)
            if weighed and walked > COVERED_ROWS:
                break  # so frequent that they tell little
            weighed += 1
            whole += self._weight(term)
            held += np.float32(self._weight(term)) * self._held(term, ids)
        return held / np.float32(max(whole, 1e-9)), weighed

    def _held(self, term: str, ids: Ids) -> Scores:
        """1 for each chunk that holds the term; of a Korean word that stands nowhere as a whole, its pairs' share."""
        if self._count(term):
            return matching_among(self._ledger, term, ids).astype(np.float32)
        held = np.zeros(len(ids), np.float32)
        pairs = parts(term)
        for part in pairs:
            if self._count(part):
                held += np.float32(self._weight(part)) * matching_among(self._ledger, part, ids)
        return held / np.float32(sum(map(self._weight, pairs)))

    def _weight(self, term: str) -> float:
        return idf(self._count(term), len(self._table.ids))

    def _expression(self, query: KeywordQuery, counts: dict[str, int]) -> str:
        """Any of the words, rarest first while they are few enough to weigh quickly; all phrases when there are some."""
        known = {term: self._count(term) for word in query.terms for term in ([word] if counts[word] else parts(word))}
        picked: list[str] = []
        rows = 0
        for term in sorted((term for term in known if known[term]), key=lambda term: known[term]):
            rows += known[term]
            if picked and rows > SCORED_ROWS:
                break
            picked.append(term)
        if not query.required:
            return " OR ".join(picked)
        return f"({query.required}) AND ({' OR '.join([f'({query.required})', *picked])})"

    def holding(self, expression: str) -> NDArray[np.bool_]:
        """Which rows of the chunk table, (n,), an FTS5 expression matches."""
        return np.isin(self._table.ids, matching_chunks(self._ledger, expression))

    def literal(self, text: str) -> Ids:
        """The rows that hold these characters as they stand, newest notes first."""
        rows, found = self._table.positions(np.array(literal_matches(self._ledger, text), np.int64))
        return rows[found]

    def left_out(self, terms: Sequence[str]) -> list[str]:
        """The words that stand nowhere but in the vault's boilerplate, which is not indexed."""
        missing = [term for term in terms if not self._count(term)]
        lines = kept_boilerplate(self._ledger)[0] if missing else frozenset()
        known = {term for line in lines for term in index_terms(line.casefold()).split()}
        return [shown(term) for term in missing if known.issuperset(term.strip('"*').split())]

    def _count(self, term: str) -> int:
        if term not in self._counts:
            self._counts[term] = count_matches(self._ledger, term)
        return self._counts[term]
