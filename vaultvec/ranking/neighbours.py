"""Notes near a note, and pairs of notes that are near but not linked. Pure arithmetic over one model's vectors."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vaultvec.datatypes import Vectors
from vaultvec.lookup import NoteRow
from vaultvec.names import folded, note_paths, note_titles

RELATED_CHUNKS = 32  # chunks of a note that `related` compares, spread over it
BLOCK = 1024  # notes compared with all others at a time
TWIN = 0.995  # cosine from which two notes are copies, not neighbours


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A note near another: mean over the other's chunks of the best cosine, and the row of its nearest chunk."""

    note: int
    score: float
    row: int


def nearest_notes(vectors: Vectors, notes: NDArray[np.int64], note: int, k: int) -> list[Neighbour]:
    """The `k` notes nearest to one, best first. `notes` (n,): whose vector each row is."""
    own = np.flatnonzero(notes == note)
    if len(own) > RELATED_CHUNKS:
        own = own[np.linspace(0, len(own) - 1, RELATED_CHUNKS).astype(np.int64)]
    scores = vectors @ vectors[own].T  # (n, m)
    order = np.argsort(notes, kind="stable")
    ids, starts = np.unique(notes[order], return_index=True)
    best = np.maximum.reduceat(scores[order], starts).mean(axis=1)  # (notes,)
    mean = scores.mean(axis=1)
    found = []
    for i in np.argsort(-best, kind="stable"):
        if ids[i] != note:
            members = order[starts[i] : starts[i + 1] if i + 1 < len(starts) else None]
            found.append(Neighbour(int(ids[i]), float(best[i]), int(members[np.argmax(mean[members])])))
        if len(found) == k:
            break
    return found


def unlinked_pairs(
    vectors: Vectors, owners: NDArray[np.int64], notes: Mapping[int, NoteRow], k: int, min_score: float
) -> list[tuple[float, int, int]]:
    """(cosine of the mean vectors, note, note) of the `k` nearest pairs that no link joins, best first; copies left out."""
    ids, means = _mean_vectors(vectors, owners, np.array(list(notes), np.int64))
    place = {int(note): i for i, note in enumerate(ids)}
    linked: dict[int, list[int]] = {}
    for a, b in linked_pairs(notes):
        if a in place and b in place:
            linked.setdefault(place[a], []).append(place[b])
            linked.setdefault(place[b], []).append(place[a])
    pairs: list[tuple[float, int, int]] = []
    for start in range(0, len(ids), BLOCK):
        scores = means[start : start + BLOCK] @ means.T  # (block, notes)
        for row in range(len(scores)):
            scores[row, : start + row + 1] = -np.inf  # each pair once
            scores[row, linked.get(start + row, [])] = -np.inf
        scores[scores >= TWIN] = -np.inf
        top = _top(scores.reshape(-1), k)
        found = [(float(scores.reshape(-1)[i]), int(i // len(ids)), int(i % len(ids))) for i in top]
        found = [row for row in found if row[0] > -np.inf]
        pairs += [
            (score, int(ids[start + row]), int(ids[column])) for score, row, column in found if score >= min_score
        ]
        pairs = sorted(pairs, reverse=True)[:k]
    return pairs


def _top(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    if k < len(scores):
        found: NDArray[np.int64] = np.argpartition(-scores, k)[:k]
        return found
    return np.arange(len(scores))


def _mean_vectors(
    vectors: Vectors, owners: NDArray[np.int64], wanted: NDArray[np.int64]
) -> tuple[NDArray[np.int64], Vectors]:
    """(note ids (m,), unit mean vectors (m, dim)) of the wanted notes that have vectors."""
    keep = np.isin(owners, wanted)
    owners, vectors = owners[keep], vectors[keep]
    if not len(owners):
        return owners, vectors
    order = np.argsort(owners, kind="stable")
    ids, starts = np.unique(owners[order], return_index=True)
    sums = np.add.reduceat(vectors[order], starts)
    return ids, sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)


def linked_pairs(notes: Mapping[int, NoteRow]) -> set[tuple[int, int]]:
    """(from, to) of every link that names a note by path (from the vault or from its own folder), file name, title or
    alias."""
    by_name: dict[str, int] = {}
    # As Obsidian has it, a path goes before a file's name, and that before a title or an alias.
    for names in (note_titles, _stem, note_paths):
        for note in notes.values():
            for name in names(note):
                by_name[name] = note.id
    return {
        (note.id, by_name[name])
        for note in notes.values()
        for link in map(folded, note.links)
        for name in (link, _from_folder(note.path, link))
        if by_name.get(name, note.id) != note.id
    }


def _stem(note: NoteRow) -> tuple[str]:
    return (folded(posixpath.splitext(posixpath.basename(note.path))[0]),)


def _from_folder(path: str, link: str) -> str:
    """The path that a link relative to its note's folder means."""
    return posixpath.normpath(f"{folded(path).rpartition('/')[0] or '.'}/{link}")
