"""What was found, on stdout: for a person, or as JSON, CSV or Markdown."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence

from rich.text import Text

from vaultvec.datatypes import SearchResult
from vaultvec.terminal.console import out, plain, print_json, say
from vaultvec.terminal.excerpt import excerpt

SNIPPET_CHARS = 240


def print_results(results: Sequence[SearchResult], query: str = "") -> None:
    """Results for a person: clickable title, place, and what they say of the query."""
    for row in results:
        _print_head(row)
        text = excerpt(row.text, query, SNIPPET_CHARS)
        more = "" if row.text.endswith(text.removeprefix("… ")) else "…"
        out.print(Text(f"   {' '.join(plain(text).split())}{more}"))
        if row.explain:
            out.print(Text(f"   {_explained(row)}", style="dim"))
    if not results:
        say("nothing found")


def print_passage(row: SearchResult) -> None:
    """One result whole."""
    _print_head(row)
    out.print(Text(plain(row.text)))


def _print_head(row: SearchResult) -> None:
    """Rank, title and score; then path, line and tags."""
    title = Text(f"{row.rank}. ", style="dim")
    title.append(plain(row.title), style=f"bold link {row.uri}")
    if row.heading:
        title.append(f" › {plain(row.heading)}", style="cyan")
    title.append(f"  {row.score:.3f}", style="green")
    out.print(title)
    tags = "".join(f" #{plain(tag)}" for tag in row.tags)
    out.print(Text(f"   {plain(row.path)}:{row.start_line}{tags}", style="dim"))


def print_rows(results: Sequence[SearchResult], form: str, query: str = "", explain: bool = False) -> None:
    """Results as text, json, csv or md; with `explain` the csv has that column, whatever is in it."""
    if form == "json":
        print_json([row.as_dict() for row in results])
    elif form == "csv":
        _print_csv(results, explain)
    elif form == "md":
        for row in results:
            heading = f" › {plain(row.heading)}" if row.heading else ""
            title = plain(row.title).replace("[", "\\[").replace("]", "\\]")
            explained = f" – {_explained(row)}" if row.explain else ""
            print(f"{row.rank}. [{title}]({row.uri}){heading} ({row.score:.3f}){explained}")
    else:
        print_results(results, query)


def _print_csv(results: Sequence[SearchResult], explain: bool) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")  # Windows makes two characters of it by itself
    names = ["rank", "score", "path", "title", "heading", "start_line", "tags", "uri", "text"]
    writer.writerow([*names, *(["explain"] if explain else [])])
    for row in results:
        cells = [row.path, row.title, row.heading, str(row.start_line), " ".join(row.tags), row.uri, row.text]
        cells += [_explained(row)] if explain else []
        writer.writerow([row.rank, f"{row.score:.6f}", *map(_cell, cells)])


def _explained(row: SearchResult) -> str:
    """The parts that add up to the points, how the score comes of those, then what each half said."""
    parts = {key: value for key, value in row.explain.items() if key.endswith("_part")}
    rest = {key: value for key, value in row.explain.items() if key not in (*parts, "points", "most")}
    if not parts:
        return ""  # a query without a word
    total = " ".join(
        f"{'-' if value < 0 else '+'} {key.removesuffix('_part')} {abs(value):.4f}"
        for key, value in parts.items()
        if value
    ).removeprefix("+ ")
    points, most = row.explain["points"], row.explain["most"]
    earned = min(max(0.0, points), most)
    return (
        f"score {row.score:.4f} = {earned:.4f} × {most + 1:.1f} / ({most:.1f} × {earned + 1:.4f}); "
        f"points {points:.4f} = {total or 0} ({', '.join(f'{key} {value}' for key, value in rest.items())})"
    )


def _cell(text: str) -> str:
    """A spreadsheet must not take a note's text for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def print_pairs(pairs: Sequence[tuple[float, str, str]]) -> None:
    """Unlinked neighbours."""
    for score, a, b in pairs:
        out.print(Text(f"{score:.3f}  {plain(a)}  ↔  {plain(b)}"))
    if not pairs:
        say("no such pairs; a lower --min-score finds more")
