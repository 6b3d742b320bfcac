"""Search: what the models and the keyword index find, fused into one list; related notes; unlinked neighbours.

The halves are in semantic.py and wording.py, how they become one score in fusion.py, what restricts a search in filters.py, who
is near whom in neighbours.py.
"""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vaultvec.choice import knows
from vaultvec.config_keys import MIXED
from vaultvec.datatypes import SearchResult, Vectors
from vaultvec.errors import QueryError
from vaultvec.keywords import MAX_QUERY_TERMS, KeywordQuery, parse_query
from vaultvec.languages import language_of, script_of
from vaultvec.ledger import Ledger
from vaultvec.lookup import NoteRow, note_rows, openings, passages
from vaultvec.models import USE, resolve
from vaultvec.names import find_note, named_folder, named_note, obsidian_uri, vault_root
from vaultvec.ranking.filters import Filters, passing_notes
from vaultvec.ranking.fusion import (
    SECOND_MODEL_WEIGHT,
    Candidates,
    Explanation,
    Fusion,
    Half,
    calibrated,
    keyword_weight,
)
from vaultvec.ranking.matrix import ChunkTable, Ids, read_table
from vaultvec.ranking.neighbours import nearest_notes, unlinked_pairs
from vaultvec.ranking.semantic import ModelSlot, SemanticIndex
from vaultvec.ranking.wording import WordIndex

CANDIDATES = 400  # chunks of each half that enter the fusion; more for those who ask for hundreds of results
MODES = ("hybrid", "semantic", "keyword")
SPARE = 10  # results fetched beyond those asked for: a writer may have replaced some
SCRIPT_CHARS = 200  # of a chunk, which tell its script
LINKS_NOTES = 20_000  # newest notes that `links` compares pairwise
REFRESH_SHARE = 10  # after a commit of a writer, a refresh that took s seconds is not repeated within 10 s


@dataclass(frozen=True, slots=True)
class Answer:
    """Results, and one-line remarks the user should hear (a model that does not know the query's language, say)."""

    results: list[SearchResult]
    remarks: tuple[str, ...] = ()


class Searcher:
    """A warm index: ask again and again without loading anything twice. Reads only; sees what a writer has committed."""

    def __init__(
        self,
        ledger: Ledger,
        models: Sequence[ModelSlot],
        vault: Path,
        *,
        backend: str = "auto",
        chroma: Path | None = None,
        asked: str = "",
    ) -> None:
        """`backend`: "auto", "exact" or "chroma", whose folder is `chroma`. `asked`: EMBEDDING_MODEL as config.py has it now."""
        self.ledger = ledger
        self.semantic = SemanticIndex(ledger, models, backend, chroma)
        self.words = WordIndex(ledger)
        self._asked = asked
        self._root, self._prefix = vault_root(vault)
        self._version = -1
        self._next_refresh = 0.0
        self._table = ChunkTable.empty()
        self._notes: dict[int, NoteRow] | None = None
        self._scripts: dict[int, str] = {}  # of the chunks that were candidates before, by row of the table

    def close(self) -> None:
        """Release engines and files."""
        self.semantic.close()
        self.ledger.close()

    def search(
        self, query: str, k: int = 10, mode: str = "hybrid", filters: Filters | None = None,
        *, exclude: Sequence[str] = (), per_note: bool = True, explain: bool = False,
    ) -> Answer:  # fmt: skip
        """The `k` best notes (or chunks, with `per_note=False`), best first; scores are 0 to 1, see fusion.py.

        None of the words or phrases to `exclude` stands in a result. Raises QueryError for an empty query, an unknown mode,
        or a filter that no note passes.
        """
        parsed = _checked(query, k, mode, exclude)
        filters = filters or Filters()
        remarks: list[str] = []
        if parsed.cut:
            remarks.append(f"the query is long; its first {MAX_QUERY_TERMS} different words are searched for")
        language = language_of(parsed.text)
        vectors = self._embed(parsed, language, mode, remarks) if mode != "keyword" and parsed.terms else []
        with self.ledger.snapshot():
            self._refresh()
            parsed = self._with_phrases(parsed, remarks)
            usable = self._usable(parsed, filters)
            if not parsed.terms:
                return Answer(self._literal(parsed, usable, k, per_note, remarks), tuple(remarks))
            most = max(CANDIDATES, 2 * (k + SPARE))  # several chunks can be of one note
            fusion = self._fusion(parsed, language, vectors, usable, most, mode != "semantic", per_note)
            if fusion.keyword:
                remarks += [
                    f"{word!r} stands only in lines that a tenth of the notes share; those are not indexed"
                    for word in self.words.left_out(parsed.terms)
                ]
            if fusion.models:
                able = fusion.contenders(k + SPARE)
                fusion.candidates.foreign[able] = self._foreign(fusion.candidates.rows[able], parsed.text)
            results = self._results(fusion, k, filters.min_score, explain, remarks)
        return Answer(results, tuple(remarks))

    def _refresh(self) -> None:
        """Bring what is cached up to date after a commit of a writer; at most a tenth of the time is spent on it."""
        version = int(self.ledger.db.execute("PRAGMA data_version").fetchone()[0])
        if version == self._version or time.monotonic() < self._next_refresh:
            return
        began = time.monotonic()
        self._version = version
        self._notes = None
        self._scripts.clear()
        self._table = read_table(self.ledger)
        self.semantic.refresh(self._table)
        self.words.refresh(self._table)
        now = time.monotonic()
        self._next_refresh = now + REFRESH_SHARE * (now - began)

    def _with_phrases(self, query: KeywordQuery, remarks: list[str]) -> KeywordQuery:
        """The query as it can be answered: a phrase that stands nowhere is only words where others stand beside it."""
        nowhere = [phrase for phrase in query.phrases if not self.words.holding(phrase[1]).any()]
        if not nowhere:
            return query
        named = "no passage holds " + " or ".join(f'"{typed}"' for typed, _ in nowhere) + " as it is written"
        if not query.beside:
            remarks.append(f"{named}; without the marks its words are searched for")
            return query
        remarks.append(f"{named}, so its words were searched for")
        return replace(query, required=" AND ".join(phrase[1] for phrase in query.phrases if phrase not in nowhere))

    def _usable(self, query: KeywordQuery, filters: Filters) -> NDArray[np.bool_] | None:
        """Which rows of the chunk table pass the filters, hold the phrases and none of the excluded words; None: all."""
        masks = []
        if filters.choose_notes:
            folder = filters.folder and named_folder(self._root / self._prefix, filters.folder)
            passed = passing_notes(self.notes().values(), replace(filters, folder=folder))
            masks.append(np.isin(self._table.notes, np.fromiter(passed, np.int64, len(passed))))
        if query.required:
            masks.append(self.words.holding(query.required))
        masks += [~self.words.holding(expression) for expression in query.excluded]
        return np.logical_and.reduce(masks) if masks else None

    def _literal(
        self, query: KeywordQuery, usable: NDArray[np.bool_] | None, k: int, per_note: bool, remarks: list[str]
    ) -> list[SearchResult]:
        """A query without a word, emoji say: the notes that hold it as it stands, newest first."""
        remarks.append("the query has no word in it; it was looked for as it stands")
        rows = self.words.literal(query.text.strip())
        rows = rows if usable is None else rows[usable[rows]]
        if per_note:
            _, first = np.unique(self._table.notes[rows], return_index=True)
            rows = rows[np.sort(first)]
        return self._shown([(1.0, int(row), {}) for row in rows[: k + SPARE]], k)

    def _embed(
        self, query: KeywordQuery, language: str, mode: str, remarks: list[str]
    ) -> list[tuple[ModelSlot, Future[Vectors]]]:
        """The query's vector to be, of each model that knows its language; the one made for it first."""
        readers = self.semantic.readers(language)
        if not readers and self.semantic.models:
            names = ", ".join(slot.spec.name for slot in self.semantic.models)
            instead = "try --mode keyword" if mode == "semantic" else "results rest on its words alone"
            both = knows(resolve(USE), language)
            better = f'= "{MIXED}"' if both else "to a model that knows it"
            change = "" if both and self._asked == MIXED else f"set EMBEDDING_MODEL {better} in config.py and "
            remarks.append(
                f"{names} does not know the language of this query ({language}); {instead}. To search in it by meaning, "
                f"{change}run: python main.py index"
            )
        return [(slot, self.semantic.embed(slot, query.text)) for slot in readers]

    def _fusion(
        self,
        query: KeywordQuery,
        language: str,
        vectors: Sequence[tuple[ModelSlot, Future[Vectors]]],
        usable: NDArray[np.bool_] | None,
        most: int,
        with_words: bool,
        per_note: bool,
    ) -> Fusion:
        """The `most` best rows of every half, and what each half says of all of them."""
        word_rows, shares = np.empty(0, np.int64), np.empty(0, np.float32)
        if with_words:  # first, while the models read the query
            word_rows, shares = self.words.shares(query, usable, most)
        found = [self.semantic.nearest(slot, vector, usable, most) for slot, vector in vectors]
        rows = np.unique(np.concatenate([word_rows, *(near.rows for near in found)]))
        models: list[Half] = []
        for (slot, _), near in zip(vectors, found, strict=True):
            cosines = near.cosines(rows)
            weight = SECOND_MODEL_WEIGHT if models else 1.0
            models.append(Half(slot.spec.slug, weight, calibrated(cosines, near.median), cosines))
        keyword = None
        if with_words:
            share = np.full(len(rows), np.nan, np.float32)
            share[np.searchsorted(rows, word_rows)] = shares
            weight = keyword_weight(language) if models else 1.0
            keyword = Half("keyword", weight, share, share, self.words.together(query, rows))
        table = self._table
        foreign = np.zeros(len(rows), np.bool_)  # looked at later, where it matters
        fields = (table.notes[rows], table.slots[rows] == 0, table.siblings[rows], foreign)
        return Fusion(Candidates(rows, *fields), models, keyword, per_note)

    def _foreign(self, rows: Ids, query: str) -> NDArray[np.bool_]:
        """Which chunks are in another script than the query; without letters a text is in any."""
        fresh = {int(self._table.ids[row]): int(row) for row in rows if int(row) not in self._scripts}
        texts = openings(self.ledger, list(fresh), SCRIPT_CHARS)
        self._scripts.update({row: script_of(texts.get(chunk, "")) for chunk, row in fresh.items()})
        own = (script_of(query), "")
        return np.array([self._scripts[int(row)] not in own for row in rows], np.bool_)

    def _results(
        self, fusion: Fusion, k: int, least: float | None, explain: bool, remarks: list[str]
    ) -> list[SearchResult]:
        ranked = fusion.ranked()
        if least is not None and ranked and ranked[0][0] < least:
            remarks.append(f"the best result scores {ranked[0][0]:.3f}, less than the {least:g} asked for")
        rows = [
            (score, int(fusion.candidates.rows[position]), fusion.explained(position) if explain else {})
            for score, position in ranked[: k + SPARE]
            if least is None or score >= least
        ]
        return self._shown(rows, k)

    def _shown(self, rows: Sequence[tuple[float, int, Explanation]], k: int) -> list[SearchResult]:
        """The first `k` of (score, table row, explanation), without those whose text a writer has replaced meanwhile."""
        chunks = [int(self._table.ids[row]) for _, row, _ in rows]
        texts = passages(self.ledger, chunks)
        notes = note_rows(self.ledger, sorted({passage.note for passage in texts.values()}))
        results: list[SearchResult] = []
        for chunk, (score, row, explain) in zip(chunks, rows, strict=True):
            passage = texts.get(chunk)
            if len(results) == k or passage is None or passage.digest != self._table.digests[row]:
                continue
            note = notes[passage.note]
            body = passage.text[passage.context :]
            uri = obsidian_uri(self._root, self._prefix + note.path)
            place = (note.path, note.title, passage.heading, body, passage.start_line, note.tags, uri)
            results.append(SearchResult(len(results) + 1, score, *place, explain))
        return results

    def notes(self) -> dict[int, NoteRow]:
        """Every note, read once."""
        if self._notes is None:
            self._notes = note_rows(self.ledger)
        return self._notes

    def find_note(self, name: str) -> NoteRow:
        """A note by path (also one of the file system), file name, title, alias or [[link]], case ignored. Raises
        QueryError naming the nearest ones."""
        return find_note(self.notes().values(), named_note(self._root / self._prefix, name))

    def related(self, name: str, k: int = 10) -> list[SearchResult]:
        """Notes whose text is nearest to a note's, best first; score is the mean over its chunks of the best cosine.

        Raises QueryError for a note that is not there, or of which nothing is embedded.
        """
        with self.ledger.snapshot():
            self._refresh()
            note = self.find_note(name)
            for slot in self.semantic.by_breadth():  # the model for the note's own language
                matrix = self.semantic.matrix(slot)
                owners = self._table.notes[matrix.rows]
                if np.any(owners == note.id):
                    found = nearest_notes(matrix.vectors, owners, note.id, k + SPARE)
                    return self._shown([(near.score, int(matrix.rows[near.row]), {}) for near in found], k)
        raise QueryError(f"{note.path} has no embedded text; it is empty, or not indexed yet: python main.py index")

    def links(self, k: int = 20, min_score: float = 0.6) -> list[tuple[float, str, str]]:
        """(cosine of the notes' mean vectors, path, path) of pairs that are close but not linked either way, best first."""
        with self.ledger.snapshot():
            self._refresh()
            notes = self.notes()
            if not self.semantic.models or not notes:
                return []
            matrix = self.semantic.matrix(self.semantic.models[0])
        newest = sorted(notes, key=lambda i: -notes[i].mtime_ns)[:LINKS_NOTES]
        owners = self._table.notes[matrix.rows]
        pairs = unlinked_pairs(matrix.vectors, owners, {i: notes[i] for i in newest}, max(1, k), min_score)
        return [(score, notes[a].path, notes[b].path) for score, a, b in pairs]


def _checked(query: str, k: int, mode: str, exclude: Sequence[str]) -> KeywordQuery:
    if mode not in MODES:
        raise QueryError(f"mode {mode!r} is unknown; use one of {', '.join(MODES)}")
    if k < 1:
        raise QueryError(f"-k is {k}, expected at least 1")
    # Lone surrogates (bytes of an argument that are no text) can neither be stored nor embedded.
    text = unicodedata.normalize("NFC", query.encode("utf-8", "replace").decode()).replace("\x00", " ")
    for word in exclude:
        if not parse_query("", [word]).excluded:
            raise QueryError(f"--exclude {word!r} has no word in it; name a word or a phrase")
    parsed = parse_query(text, exclude)
    if parsed.excluded and not parsed.text.strip():
        raise QueryError("the query only excludes words; say also what to find")
    if not parsed.text.strip():
        raise QueryError('the query is empty; write what you look for, e.g. python main.py search "how to prune roses"')
    return parsed
