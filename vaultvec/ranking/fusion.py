"""What the models and the keyword index say of the same chunks, as one score.

A convex combination of calibrated scores (Bruch et al. 2022, "An Analysis of Fusion Functions for Hybrid Retrieval"), not
reciprocal ranks: a half that finds nothing good then adds little, where its first rank would weigh as much as any other
first rank. MRR@10 over the six sets of benchmarks/eval, "tune" and "report": 0.64 and 0.60, reciprocal ranks 0.56 and 0.48
(at best, with k = 10, 0.61 and 0.55). The size penalty and the opening bonus bring it to 0.67 and 0.65.

All constants were tuned on the "tune" halves, one set of round numbers for every vault.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float32]  # (m,), one for each candidate; nan where a half knows nothing of it
Marks = NDArray[np.bool_]  # (m,)
Explanation = dict[str, float | int]  # see `Fusion.explained`

KEYWORD_WEIGHT = 0.3  # against 1 for the models
KEYWORD_WEIGHT_CJK = 1.0  # a query of bigrams is matched in small part only, and the bundled model is weaker there
SECOND_MODEL_WEIGHT = 0.3  # a multilingual model beside one made for the query's language
ONLY_SECOND_WEIGHT = 0.7  # its word on a chunk that the first model cannot read
OPENING_BONUS = 0.02  # a note's first chunk says what the note is about
# For a chunk in another script than the query's: people ask as they wrote. The Korean "tune" questions on the sample vault, half
# of it English: MRR@10 0.79 without, 0.85 with; the other sets stay as they are.
OTHER_SCRIPT_PENALTY = 0.05
# For a chunk that holds the query's words together. Questions that paraphrase find no such chunk; a few words of the note do.
TOGETHER_BONUS = 0.5  # times the held share of the words' weight, to the power
WORD_BONUS = 0.3  # the same for a query of one word: who types one looks for the notes that hold it
TOGETHER_POWER = 3  # so that half of the words earn little
PHRASE_BONUS = 0.2  # the query as it stands
NAME_BONUS = 0.3  # the query as it stands, in the title or an alias
TITLE_BONUS = 0.3  # the query is the title, or an alias, as a whole
SIZE_PENALTY = 0.03  # times the logarithm of a note's chunks: the best of many is high by chance
BM25_MOST = 2.2  # k1 + 1: what a term's weight is multiplied by at the most


@dataclass(frozen=True, slots=True)
class Half:
    """What one model, or the keyword index, says: scores from about 0 (unrelated) to 1 (the same), and its weight."""

    name: str
    weight: float
    scores: Scores
    raw: Scores  # as shown by --explain: cosine, or the share of the query's weight that was found
    bonus: Scores | None = None  # of the keyword half: points for words that stand together, see `together`

    def of(self, chosen: Marks) -> Half:
        """The same of some of the candidates."""
        bonus = None if self.bonus is None else self.bonus[chosen]
        return replace(self, scores=self.scores[chosen], raw=self.raw[chosen], bonus=bonus)


@dataclass(frozen=True, slots=True)
class Candidates:
    """The chunks that take part: rows of the chunk table, their notes, whether each opens its note, how many chunks the note
    has, whether each is in another script than the query."""

    rows: NDArray[np.int64]
    notes: NDArray[np.int64]
    opens: NDArray[np.bool_]
    siblings: NDArray[np.int64]
    foreign: NDArray[np.bool_]

    def of(self, chosen: Marks) -> Candidates:
        """Some of them."""
        return Candidates(
            self.rows[chosen], self.notes[chosen], self.opens[chosen], self.siblings[chosen], self.foreign[chosen]
        )


def calibrated(cosines: Scores, median: float) -> Scores:
    """0 for a chunk as near as any other, 1 for the query's own text; models differ in what an unrelated text scores."""
    found: Scores = ((cosines - median) / max(1e-3, 1.0 - median)).astype(np.float32)
    return found


def keyword_weight(language: str) -> float:
    """Weight of the keyword half for a query in this language."""
    return KEYWORD_WEIGHT_CJK if language in ("ko", "ja", "zh") else KEYWORD_WEIGHT


def idf(matches: int, total: int) -> float:
    """The weight FTS5's bm25 gives a term that stands in `matches` of `total` chunks."""
    matches = min(matches, total)  # counted a moment later than the chunks, while a writer is at work
    return max(1e-6, math.log((total - matches + 0.5) / (matches + 0.5)))


def together(coverage: Scores, words: int, phrase: Marks, named: Marks, titled: Marks) -> Scores:
    """Points for each chunk that holds the query's words together.

    `coverage`: the share of the words' weight that it holds, however often; `words`: how many were weighed; `phrase`: whether the
    query stands in it as it is; `named`: whether the note's name holds it so; `titled`: whether it is the name.
    """
    held = np.clip(coverage, 0, 1) ** TOGETHER_POWER
    points = held * (TOGETHER_BONUS if words > 1 else WORD_BONUS)
    found: Scores = (points + PHRASE_BONUS * phrase + NAME_BONUS * named + TITLE_BONUS * titled).astype(np.float32)
    return found


def semantic_scores(halves: Sequence[Half]) -> Scores:
    """The models' word on each chunk: the mean by weight, the first one leading. Where none knows it, 0: it is found by its
    words, as a text that is not embedded yet must be."""
    lead = halves[0]
    total: Scores = lead.scores * np.float32(lead.weight)
    rest = np.full(len(total), np.nan, np.float32)
    for half in halves[1:]:
        total = total + np.nan_to_num(half.scores) * np.float32(half.weight)
        rest = np.fmax(rest, half.scores)
    mean = total / np.float32(sum(half.weight for half in halves))
    filled = np.where(np.isnan(lead.scores), np.float32(ONLY_SECOND_WEIGHT) * rest, mean)
    found: Scores = np.nan_to_num(filled).astype(np.float32)
    return found


@dataclass(frozen=True, slots=True)
class Fusion:
    """One search: its candidates, what each half says of them, and whether a note is one result or every chunk is."""

    candidates: Candidates
    models: Sequence[Half]
    keyword: Half | None
    per_note: bool

    def ranked(self) -> list[tuple[float, int]]:
        """(score 0 to 1, position among the candidates), best first; one chunk a note when `per_note`.

        A note's points are those of its best chunk for the models and its best chunk for the keywords, which may differ. Of at
        most m points, p make a score of p (m + 1) / m (p + 1): what the models alone give is not squeezed into the lowest part.
        """
        best, points = self._points()
        order = np.lexsort((self.candidates.rows[best], -points))
        most = self._most()
        earned = np.clip(points.astype(np.float64), 0.0, most)  # in float32 two neighbours could change places
        scores = earned * (most + 1) / (most * (earned + 1)) if most else earned
        return [(float(min(1.0, scores[i])), int(best[i])) for i in order]

    def contenders(self, n: int) -> Marks:
        """Which candidates can be among the first `n`, whatever their script: so that only theirs need be looked at.

        The penalty takes at most OTHER_SCRIPT_PENALTY from any of them, so whoever lies further than that below the n-th
        before it lies below the n-th after it.
        """
        found = np.zeros(len(self.candidates.rows), np.bool_)
        best, points = replace(self, candidates=replace(self.candidates, foreign=found))._points()
        if len(points) <= n:
            return ~found
        least = np.partition(points, -n)[-n] - np.float32(OTHER_SCRIPT_PENALTY + 1e-5)
        able = best[points >= least]
        if self.per_note:
            return np.isin(self.candidates.notes, self.candidates.notes[able])
        found[able] = True
        return found

    def explained(self, position: int) -> Explanation:
        """What makes the score of one result: every "…_part" of its points, their sum "points", and "most", what there can be.

        With points cut to 0 … most, the score is points (most + 1) / most (points + 1). Beside it, of each half that found
        the note (or the chunk): the best raw score of its chunks, its rank among all, and the half's weight.
        """
        found: Explanation = {}
        owners = self.candidates.notes if self.per_note else np.arange(len(self.candidates.rows))
        members = owners == owners[position]
        for half in [*self.models, *([self.keyword] if self.keyword else [])]:
            known = ~np.isnan(half.raw)
            if np.any(known & members):
                best = float(np.nanmax(half.raw[members]))
                better = owners[known & (np.nan_to_num(half.raw, nan=-2.0) > best)]
                found[f"{half.name}_rank"] = len(np.unique(better) if self.per_note else better) + 1
                found[f"{half.name}_score"] = round(best, 4)
            found[f"{half.name}_weight"] = half.weight
        parts = self._only(members)._parts()
        if self.models and self.per_note:
            parts["size"] = -SIZE_PENALTY * math.log(max(1, int(self.candidates.siblings[position])))
        found |= {f"{name}_part": round(part, 6) for name, part in parts.items()}
        return found | {"points": round(sum(parts.values()), 6), "most": round(self._most(), 6)}

    def _only(self, chosen: Marks) -> Fusion:
        """The same search over some of the candidates."""
        keyword = self.keyword and self.keyword.of(chosen)
        return Fusion(self.candidates.of(chosen), [half.of(chosen) for half in self.models], keyword, self.per_note)

    def _parts(self) -> dict[str, float]:
        """What each half's points are made of, on the one of the candidates where they are highest: the sums of `_meaning` and
        `_words` once more, part by part."""
        parts: dict[str, float] = {}
        if self.models:
            chunk = np.argmax(self._meaning())
            scores = {
                half.name: float(half.scores[chunk]) for half in self.models if not math.isnan(half.scores[chunk])
            }
            if self.models[0].name in scores:
                whole = sum(half.weight for half in self.models)
                parts = {
                    half.name: scores[half.name] * half.weight / whole for half in self.models if half.name in scores
                }
            else:
                parts = {
                    name: ONLY_SECOND_WEIGHT * score for name, score in scores.items() if score == max(scores.values())
                }
            parts["script"] = -OTHER_SCRIPT_PENALTY * bool(self.candidates.foreign[chunk])
            if self.per_note:
                parts["opening"] = OPENING_BONUS * bool(self.candidates.opens[chunk])
        if self.keyword:
            chunk = np.argmax(self._words(self.keyword))
            bonus = self.keyword.bonus
            parts["keyword"] = float(np.nan_to_num(self.keyword.scores[chunk])) * self._weight()
            parts["keyword_bonus"] = 0.0 if bonus is None else float(bonus[chunk])
        return parts

    def _most(self) -> float:
        """The points there can be."""
        most = (1.0 if self.models else 0.0) + self._weight()
        if self.keyword and self.keyword.bonus is not None:
            most += TOGETHER_BONUS + PHRASE_BONUS + NAME_BONUS + TITLE_BONUS
        return most

    def _weight(self) -> float:
        """Of the keyword half, against 1 for the models together."""
        return (self.keyword.weight if self.models else 1.0) if self.keyword else 0.0

    def _points(self) -> tuple[NDArray[np.int64], Scores]:
        """(positions: each note's best chunk, or every chunk; their points)."""
        m = len(self.candidates.rows)
        meaning = self._meaning() if self.models else np.zeros(m, np.float32)
        words = self._words(self.keyword) if self.keyword else np.zeros(m, np.float32)
        both = meaning + words
        if not self.per_note:
            return np.arange(m), both
        best, points = _by_note(self.candidates.notes, both, meaning, words)
        if self.models:
            penalty: Scores = (SIZE_PENALTY * np.log(np.maximum(1, self.candidates.siblings[best]))).astype(np.float32)
            points = points - penalty
        return best, points

    def _meaning(self) -> Scores:
        """The models' points for each chunk."""
        points = semantic_scores(self.models)
        points = points - np.float32(OTHER_SCRIPT_PENALTY) * self.candidates.foreign.astype(np.float32)
        if self.per_note:
            points = points + np.float32(OPENING_BONUS) * self.candidates.opens.astype(np.float32)
        return points

    def _words(self, keyword: Half) -> Scores:
        """The keyword half's points for each chunk."""
        points: Scores = np.nan_to_num(keyword.scores) * np.float32(self._weight())
        return points if keyword.bonus is None else points + keyword.bonus


def _by_note(
    notes: NDArray[np.int64], both: Scores, meaning: Scores, words: Scores
) -> tuple[NDArray[np.int64], Scores]:
    """(position of each note's best chunk, the note's score)."""
    order = np.lexsort((-both, notes))
    starts = np.flatnonzero(np.r_[True, np.diff(notes[order]) != 0]) if len(order) else np.empty(0, np.int64)
    if not len(starts):
        return np.empty(0, np.int64), np.empty(0, np.float32)
    points: Scores = np.maximum.reduceat(meaning[order], starts) + np.maximum.reduceat(words[order], starts)
    return order[starts], points
