"""Search: semantic and keyword results fused by rank; filters; related notes; unlinked neighbours.

Semantic search is exact (one matrix product) up to EXACT_LIMIT chunks and Chroma's HNSW above. The halves are fused by
weighted reciprocal rank (Cormack et al. 2009); the weights follow the language of the query, because a model that cannot read
the query spoils the answer.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from vaultvec.datatypes import SearchResult, Vectors
from vaultvec.engines.base import Engine
from vaultvec.errors import QueryError
from vaultvec.keywords import KeywordQuery, index_terms, parse_query
from vaultvec.languages import language_of, readable_by
from vaultvec.ledger import Ledger
from vaultvec.lookup import Matrix, NoteRow, Passage, chunk_numbers, keyword_matches, load_matrix, note_rows, passages
from vaultvec.models import ModelSpec

RRF_K = 60  # Cormack et al.'s constant
EXACT_LIMIT = 50_000  # chunks; a matrix product over them takes about 10 ms, and it misses nothing
CANDIDATES = 200  # chunks of each half that enter the fusion
MODES = ("hybrid", "semantic", "keyword")
RELATED_CHUNKS = 32  # chunks of a note that `related` compares
LINKS_NOTES = 20_000  # newest notes that `links` compares pairwise


@dataclass(frozen=True, slots=True)
class Filters:
    """What a result must satisfy. Empty fields ask for nothing."""

    folder: str = ""  # vault-relative; notes below it too
    tags: tuple[str, ...] = ()  # all of them; "a" also finds "a/b"
    since_ns: int | None = None  # last change of the note
    until_ns: int | None = None
    min_score: float | None = None  # of the fused score, 0 to 1

    @property
    def notes_only(self) -> bool:
        """Whether any filter looks at the note."""
        return bool(self.folder or self.tags or self.since_ns is not None or self.until_ns is not None)


@dataclass(frozen=True, slots=True)
class ModelSlot:
    """A model of the index: its row in the ledger, what it is, and how to load its engine."""

    row: int
    spec: ModelSpec
    dim: int
    load: Callable[[], Engine]


@dataclass(frozen=True, slots=True)
class Answer:
    """Results, and one-line remarks the user should hear (a model that does not know the query's language, say)."""

    results: list[SearchResult]
    remarks: tuple[str, ...] = ()


@dataclass(slots=True)
class _Half:
    """One ranked list: chunk ids best first, with their scores and the list's weight in the fusion."""

    name: str
    weight: float
    chunks: list[int]
    scores: list[float]
    notes: list[int] = field(default_factory=list)


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
    ) -> None:
        self.ledger = ledger
        self.models = list(models)
        self.vault = vault
        self.backend = backend
        self.chroma = chroma
        self._version = -1
        self._matrices: dict[int, Matrix] = {}
        self._notes: dict[int, NoteRow] | None = None
        self._engines: dict[int, Engine] = {}
        self._stores: dict[int, object] = {}

    def close(self) -> None:
        """Release engines and files."""
        for engine in self._engines.values():
            engine.close()
        self.ledger.close()

    # ── search ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def search(
        self, query: str, k: int = 10, mode: str = "hybrid", filters: Filters | None = None,
        *, per_note: bool = True, explain: bool = False,
    ) -> Answer:  # fmt: skip
        """The `k` best notes (or chunks, with `per_note=False`), best first.

        Raises QueryError for an empty query, an unknown mode, or a folder or tag that no note has.
        """
        parsed = _checked(query, k, mode)
        filters = filters or Filters()
        with self.ledger.snapshot():
            self._refresh()
            allowed = self._allowed(filters)
            halves, remarks = self._halves(parsed, mode, allowed)
            fused = self._fuse(halves, per_note)
            results = self._rows(fused, halves, k, parsed, filters, explain)
        return Answer(results, tuple(remarks))

    def _refresh(self) -> None:
        """Forget what is cached when a writer has committed since."""
        version = int(self.ledger.db.execute("PRAGMA data_version").fetchone()[0])
        if version != self._version:
            self._version = version
            self._matrices.clear()
            self._notes = None

    def _halves(self, query: KeywordQuery, mode: str, allowed: set[int] | None) -> tuple[list[_Half], list[str]]:
        language = language_of(query.words)
        remarks: list[str] = []
        halves: list[_Half] = []
        if mode != "keyword":
            halves = self._semantic_halves(query.words, language, allowed, remarks)
        if mode != "semantic" and (mode == "keyword" or query.expression):
            halves.append(self._keyword_half(query, _keyword_weight(language), allowed))
        return halves, remarks

    def _semantic_halves(self, words: str, language: str, allowed: set[int] | None, remarks: list[str]) -> list[_Half]:
        readers = [slot for slot in self.models if readable_by(slot.spec.languages, language or "en")]
        if not readers:
            names = ", ".join(slot.spec.name for slot in self.models)
            remarks.append(
                f"{names} does not know the language of this query ({language}); results rest on keywords. "
                'EMBEDDING_MODEL = "auto" in config.py picks a model for it'
            )
            return []
        halves = []
        for slot in readers:
            weight = _model_weight(slot, readers)
            vector = self._engine(slot).embed_query(words)
            chunks, scores = self._nearest(slot, vector, allowed)
            halves.append(_Half(slot.spec.slug, weight, chunks, scores))
        return halves

    def _nearest(self, slot: ModelSlot, vector: Vectors, allowed: set[int] | None) -> tuple[list[int], list[float]]:
        if self._use_chroma(allowed):
            return self._nearest_in_chroma(slot, vector)
        matrix = self._matrix(slot)
        scores = matrix.vectors @ vector
        if allowed is not None:
            scores = np.where(np.isin(matrix.notes, np.fromiter(allowed, np.int64, len(allowed))), scores, -2.0)
        top = _top(scores, CANDIDATES)
        top = top[scores[top] > -2.0]
        return matrix.chunks[top].tolist(), scores[top].tolist()

    def _use_chroma(self, allowed: set[int] | None) -> bool:
        """HNSW for large indexes without a note filter: a filter would leave too few of its candidates."""
        if self.backend == "exact" or self.chroma is None or allowed is not None:
            return False
        if self.backend == "chroma":
            return True
        return int(self.ledger.db.execute("SELECT count(*) FROM chunks").fetchone()[0]) > EXACT_LIMIT

    def _nearest_in_chroma(self, slot: ModelSlot, vector: Vectors) -> tuple[list[int], list[float]]:
        from vaultvec.store import ChromaStore

        store = self._stores.get(slot.row)
        if not isinstance(store, ChromaStore):
            fingerprint = next(m[1] for m in self.ledger.models() if m[0] == slot.row)
            store = ChromaStore(self.chroma or Path(), fingerprint, slot.spec.name, slot.dim)
            self._stores[slot.row] = store
        found = store.query(vector, CANDIDATES)
        numbers = chunk_numbers(self.ledger, [name for name, _ in found])
        kept = [(numbers[name], score) for name, score in found if name in numbers]
        return [chunk for chunk, _ in kept], [score for _, score in kept]

    def _keyword_half(self, query: KeywordQuery, weight: float, allowed: set[int] | None) -> _Half:
        limit = CANDIDATES if allowed is None else 50 * CANDIDATES
        found = keyword_matches(self.ledger, query.expression, limit)
        if allowed is not None:
            where = self._notes_of([chunk for chunk, _ in found])
            found = [(chunk, score) for chunk, score in found if where.get(chunk) in allowed][:CANDIDATES]
        return _Half("keyword", weight, [chunk for chunk, _ in found], [score for _, score in found])

    def _notes_of(self, chunks: Sequence[int]) -> dict[int, int]:
        return {chunk: row.note for chunk, row in passages(self.ledger, chunks).items()}

    # ── fusion ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _fuse(self, halves: list[_Half], per_note: bool) -> list[tuple[float, int]]:
        """(score 0 to 1, chunk id), best first. 1 means first in every list. One chunk a note when `per_note`."""
        where = self._notes_of([chunk for half in halves for chunk in half.chunks])
        total = sum(half.weight for half in halves)
        points: dict[int, float] = {}
        best: dict[int, tuple[float, int]] = {}
        for half in halves:
            rank = 0
            seen: set[int] = set()
            for chunk in half.chunks:
                if chunk not in where:
                    continue  # replaced between two reads
                key = where[chunk] if per_note else chunk
                if key in seen:
                    continue
                seen.add(key)
                rank += 1
                gain = half.weight * (RRF_K + 1) / (RRF_K + rank) / total
                points[key] = points.get(key, 0.0) + gain
                if key not in best or gain > best[key][0]:
                    best[key] = (gain, chunk)
        return sorted(((points[key], best[key][1]) for key in points), key=lambda item: (-item[0], item[1]))

    def _rows(
        self,
        fused: list[tuple[float, int]],
        halves: list[_Half],
        k: int,
        query: KeywordQuery,
        filters: Filters,
        explain: bool,
    ) -> list[SearchResult]:
        results: list[SearchResult] = []
        position = 0
        while len(results) < k and position < len(fused):
            page = fused[position : position + 2 * k + 10]
            position += len(page)
            texts = passages(self.ledger, [chunk for _, chunk in page])
            notes = note_rows(self.ledger, sorted({row.note for row in texts.values()}))
            for score, chunk in page:
                if len(results) == k or (filters.min_score is not None and score < filters.min_score):
                    return results
                row = texts.get(chunk)
                if row is None or row.note not in notes or _is_excluded(row, notes[row.note], query):
                    continue
                details = _explain(chunk, halves) if explain else {}
                results.append(self._result(len(results) + 1, score, row, notes[row.note], details))
        return results

    def _result(
        self, rank: int, score: float, row: Passage, note: NoteRow, explain: dict[str, float | int]
    ) -> SearchResult:
        body = row.text[row.context :]
        return SearchResult(
            rank, score, note.path, note.title, row.heading, body, row.start_line, note.tags,
            obsidian_uri(self.vault, note.path), explain,
        )  # fmt: skip

    # ── filters ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def notes(self) -> dict[int, NoteRow]:
        """Every note, read once."""
        if self._notes is None:
            self._notes = note_rows(self.ledger)
        return self._notes

    def _allowed(self, filters: Filters) -> set[int] | None:
        """Ids of the notes that pass; None when no filter looks at notes. Raises QueryError when none passes."""
        if not filters.notes_only:
            return None
        notes = self.notes().values()
        passed = {note.id for note in notes if _passes(note, filters)}
        if passed:
            return passed
        folder = _folder(filters.folder)
        if folder and not any(note.path.casefold().startswith(folder) for note in notes):
            known = sorted({str(PurePosixPath(note.path).parent) for note in notes} - {"."})
            raise QueryError(f"no note lies in the folder {filters.folder!r}{_nearest_names(filters.folder, known)}")
        known_tags = sorted({tag for note in notes for tag in note.tags})
        for tag in filters.tags:
            if not any(_has_tag(note, tag) for note in notes):
                raise QueryError(f"no note has the tag {tag!r}{_nearest_names(tag.lstrip('#'), known_tags)}")
        raise QueryError("no note passes these filters together; leave one of them out")

    # ── neighbours ───────────────────────────────────────────────────────────────────────────────────────────────────

    def find_note(self, name: str) -> NoteRow:
        """A note by path, file name, title or alias, case ignored. Raises QueryError naming the nearest ones."""
        wanted = unicodedata.normalize("NFC", name).strip().casefold().replace("\\", "/").removeprefix("./")
        if not wanted:
            raise QueryError("the note's name is empty; give its path, title or alias")
        notes = list(self.notes().values())
        for names in (_paths, _titles):
            found = [note for note in notes if wanted in names(note)]
            if len(found) == 1:
                return found[0]
            if found:
                raise QueryError(
                    f"{name!r} names {len(found)} notes; give the path: {', '.join(n.path for n in found[:5])}"
                )
        known = sorted({name for note in notes for name in (note.path, note.title, *note.aliases)})
        raise QueryError(f"there is no note {name!r} in the index{_nearest_names(name, known)}")

    def related(self, name: str, k: int = 10) -> list[SearchResult]:
        """Notes whose text is nearest to a note's, best first; score is the mean over its chunks of the best cosine."""
        with self.ledger.snapshot():
            self._refresh()
            note = self.find_note(name)
            for slot in reversed(self.models):  # the model for the note's own language comes last
                matrix = self._matrix(slot)
                own = matrix.vectors[matrix.notes == note.id][:RELATED_CHUNKS]
                if len(own):
                    return self._neighbours(matrix, own, note.id, k)
        raise QueryError(f"{note.path} has no embedded text; it is empty, or not indexed yet: python main.py index")

    def _neighbours(self, matrix: Matrix, own: Vectors, note: int, k: int) -> list[SearchResult]:
        scores = matrix.vectors @ own.T  # (n, m)
        order = np.argsort(matrix.notes, kind="stable")
        ids, starts = np.unique(matrix.notes[order], return_index=True)
        by_note = np.maximum.reduceat(scores[order], starts).mean(axis=1)  # (notes,)
        by_note[ids == note] = -2.0
        top = [i for i in _top(by_note, k) if by_note[i] > -2.0]
        mean = scores.mean(axis=1)
        results: list[SearchResult] = []
        rows = note_rows(self.ledger, [int(ids[i]) for i in top])
        for i in top:
            members = np.flatnonzero(matrix.notes == ids[i])
            chunk = int(matrix.chunks[members[np.argmax(mean[members])]])
            row = passages(self.ledger, [chunk]).get(chunk)
            if row and int(ids[i]) in rows:
                results.append(self._result(len(results) + 1, float(by_note[i]), row, rows[int(ids[i])], {}))
        return results

    def links(self, k: int = 20, min_score: float = 0.6) -> list[tuple[float, str, str]]:
        """(cosine of the notes' mean vectors, path, path) of pairs that are close but not linked either way, best first."""
        with self.ledger.snapshot():
            self._refresh()
            matrix, notes = self._matrix(self.models[0]), self.notes()
        newest = sorted(notes, key=lambda i: -notes[i].mtime_ns)[:LINKS_NOTES]
        ids, means = _mean_vectors(matrix, np.asarray(newest, dtype=np.int64))
        linked = _linked_pairs(notes)
        pairs: list[tuple[float, int, int]] = []
        for start in range(0, len(ids), 1024):
            scores = means[start : start + 1024] @ means.T
            rows, columns = np.nonzero(scores >= min_score)
            for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
                a, b = int(ids[start + row]), int(ids[column])
                if start + row < column and (a, b) not in linked and (b, a) not in linked:
                    pairs.append((float(scores[row, column]), a, b))
            pairs = sorted(pairs, reverse=True)[: max(k, 1)]
        return [(score, notes[a].path, notes[b].path) for score, a, b in pairs]

    def _matrix(self, slot: ModelSlot) -> Matrix:
        if slot.row not in self._matrices:
            self._matrices[slot.row] = load_matrix(self.ledger, slot.row, slot.dim)
        return self._matrices[slot.row]

    def _engine(self, slot: ModelSlot) -> Engine:
        if slot.row not in self._engines:
            self._engines[slot.row] = slot.load()
        return self._engines[slot.row]


# Weights of the fusion, tuned on the "tune" half of benchmarks/eval (make eval prints both halves).
KEYWORD_WEIGHT = 0.5
KEYWORD_WEIGHT_CJK = 1.0  # bigrams find Korean well, the multilingual model less so
SECOND_MODEL_WEIGHT = 0.3  # a multilingual model beside one made for the query's language


def _keyword_weight(language: str) -> float:
    return KEYWORD_WEIGHT_CJK if language in ("ko", "ja", "zh") else KEYWORD_WEIGHT


def _model_weight(slot: ModelSlot, readers: Sequence[ModelSlot]) -> float:
    """The model made for the query's language leads; one that reads many languages follows."""
    if len(readers) == 1 or len(slot.spec.languages) == min(len(s.spec.languages) for s in readers):
        return 1.0
    return SECOND_MODEL_WEIGHT


def _checked(query: str, k: int, mode: str) -> KeywordQuery:
    if mode not in MODES:
        raise QueryError(f"mode {mode!r} is unknown; use one of {', '.join(MODES)}")
    if k < 1:
        raise QueryError(f"-k is {k}, expected at least 1")
    if not query.strip():
        raise QueryError('the query is empty; write what you look for, e.g. python main.py search "how to prune roses"')
    parsed = parse_query(unicodedata.normalize("NFC", query))
    if not parsed.words.strip():
        raise QueryError("the query only excludes words; say also what to find")
    return parsed


def _top(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Positions of the `k` highest scores, best first."""
    k = min(k, len(scores))
    if k == 0:
        return np.empty(0, dtype=np.int64)
    found = np.argpartition(-scores, k - 1)[:k]
    ordered: NDArray[np.int64] = found[np.argsort(-scores[found], kind="stable")]
    return ordered


def _is_excluded(row: Passage, note: NoteRow, query: KeywordQuery) -> bool:
    """Whether an excluded word occurs in the chunk or title, or a required phrase is missing."""
    if not query.excluded and not query.phrases:
        return False
    text = unicodedata.normalize("NFC", f"{note.title}\n{row.heading}\n{row.text}").casefold()
    if any(" ".join(phrase.casefold().split()) not in " ".join(text.split()) for phrase in query.phrases):
        return True
    words = f" {index_terms(text)} "
    return any(
        phrase.casefold() in text if not phrase.isascii() or " " in phrase else f" {phrase.casefold()} " in words
        for phrase in query.excluded
    )


def _explain(chunk: int, halves: list[_Half]) -> dict[str, float | int]:
    """Rank and score of a chunk in each half that found it."""
    details: dict[str, float | int] = {}
    for half in halves:
        if chunk in half.chunks:
            position = half.chunks.index(chunk)
            details[f"{half.name}_rank"] = position + 1
            details[f"{half.name}_score"] = round(half.scores[position], 4)
        details[f"{half.name}_weight"] = half.weight
    return details


def _passes(note: NoteRow, filters: Filters) -> bool:
    if filters.folder and not note.path.casefold().startswith(_folder(filters.folder)):
        return False
    if filters.since_ns is not None and note.mtime_ns < filters.since_ns:
        return False
    if filters.until_ns is not None and note.mtime_ns >= filters.until_ns:
        return False
    return all(_has_tag(note, tag) for tag in filters.tags)


def _folder(folder: str) -> str:
    clean = unicodedata.normalize("NFC", folder).replace("\\", "/").removeprefix("./").strip("/").casefold()
    return f"{clean}/" if clean else ""


def _has_tag(note: NoteRow, tag: str) -> bool:
    wanted = unicodedata.normalize("NFC", tag).lstrip("#").strip("/").casefold()
    return any(own.casefold() == wanted or own.casefold().startswith(f"{wanted}/") for own in note.tags)


def _paths(note: NoteRow) -> set[str]:
    path = note.path.casefold()
    return {path, path.removesuffix(".md")}


def _titles(note: NoteRow) -> set[str]:
    stem = PurePosixPath(note.path).stem
    return {name.casefold() for name in (note.title, stem, PurePosixPath(note.path).name, *note.aliases)}


def _nearest_names(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known)[:20_000], n=3, cutoff=0.5)
    return f"; nearest: {', '.join(near)}" if near else ""


def _mean_vectors(matrix: Matrix, wanted: NDArray[np.int64]) -> tuple[NDArray[np.int64], Vectors]:
    """(note ids (m,), unit mean vectors (m, dim)) of the wanted notes that have vectors."""
    keep = np.isin(matrix.notes, wanted)
    notes, vectors = matrix.notes[keep], matrix.vectors[keep]
    if not len(notes):
        return notes, vectors
    order = np.argsort(notes, kind="stable")
    ids, starts = np.unique(notes[order], return_index=True)
    sums = np.add.reduceat(vectors[order], starts)
    return ids, sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)


def _linked_pairs(notes: dict[int, NoteRow]) -> set[tuple[int, int]]:
    """(from, to) of every wikilink that names a note by path, file name or alias."""
    by_name: dict[str, int] = {}
    for note in notes.values():
        for name in (*_titles(note), *_paths(note)):
            by_name.setdefault(name, note.id)
    return {
        (note.id, by_name[target.casefold()])
        for note in notes.values()
        for target in note.links
        if target.casefold() in by_name
    }


def obsidian_uri(vault: Path, path: str) -> str:
    """The link that opens a note in Obsidian (help.obsidian.md, "Obsidian URI")."""
    return f"obsidian://open?vault={quote(vault.name, safe='')}&file={quote(path.removesuffix('.md'), safe='')}"
