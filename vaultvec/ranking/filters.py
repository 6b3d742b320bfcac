"""What a result must satisfy: folder, tags, dates, a lowest score. From the command line, and as a choice of notes."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import PurePosixPath

from vaultvec.errors import QueryError
from vaultvec.lookup import NoteRow
from vaultvec.names import nearest_names

TAGS_NAMED = 5  # where none is near the one asked for


@dataclass(frozen=True, slots=True)
class Filters:
    """What a result must satisfy. Empty fields ask for nothing."""

    folder: str = ""  # vault-relative; notes below it too
    tags: tuple[str, ...] = ()  # all of them; "a" also finds "a/b"
    since_ns: int | None = None  # last change of the note
    until_ns: int | None = None
    min_score: float | None = None  # 0 (nothing in common) to 1 (the same text and every word); see fusion.py

    @property
    def choose_notes(self) -> bool:
        """Whether anything but the score is asked for, which is known only after the search."""
        return replace(self, min_score=None) != Filters()


LATEST = datetime(9000, 1, 1)  # people write 9999-12-31 for "no end"; the day after it is none that Python knows


def parse_filters(
    folder: str | None = None,
    tags: Sequence[str] = (),
    since: str | None = None,
    until: str | None = None,
    min_score: float | None = None,
) -> Filters:
    """Dates are local days (2026-01-31), `until` included. Raises QueryError for a folder, tag, date or score that cannot
    be."""
    check_score(min_score)
    if folder is not None and not folder.strip():
        raise QueryError(f"--folder is {folder!r}, expected a folder of the vault such as Projects or Projects/Garden")
    for tag in tags:
        if not _tag(tag):
            raise QueryError(f"--tag is {tag!r}, expected a tag such as project or project/garden")
    start = _day(since, "--since") if since is not None else None
    end = _day(until, "--until") if until is not None else None
    if start and end and start > end:
        raise QueryError(f"--since {since} is later than --until {until}")
    return Filters(
        folder or "",
        tuple(tags),
        _nanoseconds(start, "--since") if start else None,
        _nanoseconds(end + timedelta(days=1), "--until") if end else None,
        min_score,
    )


def check_score(least: float | None) -> None:
    """Raises QueryError for a lowest score that is no score."""
    if least is not None and not 0.0 <= least <= 1.0:
        raise QueryError(f"--min-score is {least}, expected 0 to 1")


def _day(text: str, option: str) -> datetime:
    try:
        day = datetime.strptime(text.strip(), "%Y-%m-%d")
    except ValueError as error:
        raise QueryError(f"{option} is {text!r}, expected a day such as 2026-01-31") from error
    if day.year < 1970:
        raise QueryError(f"{option} is {text!r}, expected a day from 1970 on")
    return min(day, LATEST)


def _nanoseconds(day: datetime, option: str) -> int:
    try:
        return int(day.timestamp()) * 10**9
    except (OverflowError, OSError, ValueError) as error:  # Windows knows no time before 1970
        raise QueryError(f"{option} is {day:%Y-%m-%d}, which this system cannot tell the time of") from error


def passing_notes(notes: Collection[NoteRow], filters: Filters) -> set[int]:
    """Ids of the notes that pass. Raises QueryError when none does, naming the filter and what comes nearest."""
    passed = {note.id for note in notes if _passes(note, filters)}
    if passed:
        return passed
    folder = _folder(filters.folder)
    if folder and not any(note.path.casefold().startswith(folder) for note in notes):
        near = nearest_names(filters.folder, _folders(notes))
        raise QueryError(f"no note lies in the folder {filters.folder!r}{near}")
    for tag in filters.tags:
        if not any(_has_tag(note, tag) for note in notes):
            known = Counter(part for note in notes for own in note.tags for part in _with_parents(own))
            most = ", ".join(name for name, _ in known.most_common(TAGS_NAMED))
            other = f"; the most used: {most}" if most else "; the indexed notes have no tags, leave --tag out"
            raise QueryError(f"no note has the tag {tag!r}{nearest_names(tag.lstrip('#'), known) or other}")
    if notes and not replace(filters, since_ns=None, until_ns=None).choose_notes:  # only the dates were asked for
        newest = datetime.fromtimestamp(max(note.mtime_ns for note in notes) / 1e9)
        oldest = datetime.fromtimestamp(min(note.mtime_ns for note in notes) / 1e9)
        raise QueryError(
            f"no note was changed in that time; the notes' dates go from {oldest:%Y-%m-%d} to {newest:%Y-%m-%d}"
        )
    raise QueryError("no note passes these filters together; leave one of them out")


def _passes(note: NoteRow, filters: Filters) -> bool:
    if filters.folder and not note.path.casefold().startswith(_folder(filters.folder)):
        return False
    if filters.since_ns is not None and note.mtime_ns < filters.since_ns:
        return False
    if filters.until_ns is not None and note.mtime_ns >= filters.until_ns:
        return False
    return all(_has_tag(note, tag) for tag in filters.tags)


def _folder(folder: str) -> str:
    clean = unicodedata.normalize("NFC", folder).replace("\\", "/").removeprefix("./").strip("/ ").casefold()
    return f"{clean}/" if clean and clean != "." else ""


def _folders(notes: Collection[NoteRow]) -> set[str]:
    """Every folder that holds a note, at whatever depth."""
    return {str(parent) for note in notes for parent in PurePosixPath(note.path).parents} - {"."}


def _tag(tag: str) -> str:
    return unicodedata.normalize("NFC", tag).strip().lstrip("#").strip("/").casefold()


def _has_tag(note: NoteRow, tag: str) -> bool:
    wanted = _tag(tag)
    return any(own.casefold() == wanted or own.casefold().startswith(f"{wanted}/") for own in note.tags)


def _with_parents(tag: str) -> list[str]:
    parts = tag.split("/")
    return ["/".join(parts[: i + 1]) for i in range(len(parts))]
