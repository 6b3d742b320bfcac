"""Command-line filters → Filters."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from vaultvec.errors import QueryError
from vaultvec.search import Filters


def parse_filters(
    folder: str = "", tags: Sequence[str] = (), since: str = "", until: str = "", min_score: float | None = None
) -> Filters:
    """Dates are local days (2026-01-31), `until` included. Raises QueryError for a date or score that cannot be."""
    if min_score is not None and not 0.0 <= min_score <= 1.0:
        raise QueryError(f"--min-score is {min_score}, expected 0 to 1")
    start = _day(since, "--since") if since else None
    end = _day(until, "--until") if until else None
    if start and end and start > end:
        raise QueryError(f"--since {since} is later than --until {until}")
    return Filters(
        folder,
        tuple(tags),
        _nanoseconds(start) if start else None,
        _nanoseconds(end + timedelta(days=1)) if end else None,
        min_score,
    )


def _day(text: str, option: str) -> datetime:
    try:
        return datetime.strptime(text, "%Y-%m-%d")
    except ValueError as error:
        raise QueryError(f"{option} is {text!r}, expected a day such as 2026-01-31") from error


def _nanoseconds(day: datetime) -> int:
    return int(day.timestamp()) * 10**9
