"""What the terminal shows: results on stdout, everything else on stderr. Text from notes is printed, never obeyed."""

from __future__ import annotations

import csv
import json
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text

from vaultvec.advice import with_vault
from vaultvec.datatypes import IndexReport, SearchResult
from vaultvec.integrity import Finding
from vaultvec.phases import Step
from vaultvec.session import Status
from vaultvec.stages.embedding import Progress as Moment
from vaultvec.terminal.excerpt import excerpt

SNIPPET_CHARS = 240

# A pipe has no width: lines are then never broken, tables as wide as they like.
out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 200)
err = Console(stderr=True, highlight=False, soft_wrap=True)


_KEPT = "\n\u200c\u200d"  # joiners of Persian words and of emoji
_UNSEEN = "\u00ad\u200b"  # a soft hyphen, a space of no width


def plain(text: str) -> str:
    """Text from outside with its control characters made visible, so that no escape sequence reaches the terminal."""
    return "".join(
        c if c in _KEPT or unicodedata.category(c) not in ("Cc", "Cs", "Cf") else "�" for c in text if c not in _UNSEEN
    )


def say(line: str) -> None:
    """A remark for the person, on stderr."""
    err.print(Text(plain(with_vault(line))))


def complain(line: str) -> None:
    """An error: one line on stderr."""
    err.print(Text(plain(with_vault(" ".join(line.split()))), style="red"), soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    json.dump(value, sys.stdout, ensure_ascii=False, indent=2)
    print()


def ask(question: str) -> str:
    """A line of input; the prompt goes to stderr. Raises EOFError at the end of piped input."""
    err.print(Text(question), end="")
    err.file.flush()
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.strip()


@contextmanager
def progress_bar() -> Iterator[Any]:
    """A bar for a run: notes, texts, texts/s, time left. Yields the function that takes its moments."""
    bar = Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=28), TextColumn("{task.fields[figures]}"),
        console=err, transient=True, disable=not err.is_terminal,
    )  # fmt: skip
    with bar:
        task = bar.add_task("reading", total=None, figures="")

        def show(moment: Moment) -> None:
            reading = moment.notes_done < moment.notes_total
            rate = moment.texts_done / moment.seconds if moment.seconds > 0.5 else 0.0
            left = (moment.texts_total - moment.texts_done) / rate if rate else 0.0
            figures = f"notes {moment.notes_done:,}/{moment.notes_total:,} · chunks {moment.texts_done:,}/{moment.texts_total:,}"
            if moment.rows_waiting and not reading:
                bar.update(
                    task,
                    description="storing",
                    completed=None,
                    figures=f"{moment.rows_waiting:,} rows to write to Chroma",
                )
                return
            if rate:
                figures += f" · {rate:,.1f} texts/s" + ("" if reading else f" · {_duration(left)} left")
            bar.update(
                task, description="embedding" if moment.texts_done or not reading else "reading",
                completed=moment.texts_done, total=moment.texts_total or None, figures=figures,
            )  # fmt: skip

        yield show


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def print_report(report: IndexReport) -> None:
    """The closing summary of a run."""
    speed = f"{report.texts_per_second:,.1f} texts/s, {report.tokens_per_second:,.0f} tokens/s"
    made_by = " ".join(filter(None, (report.engine, report.precision, report.device)))
    _print_fields(
        ("notes", f"{report.notes_total:,}", _notes_line(report)),
        ("chunks", f"{report.chunks_total:,}", _chunks_line(report)),
        ("time", _seconds(report.seconds), speed if report.chunks_embedded else ""),
        ("memory", f"{report.peak_rss_mb:,.0f} MB", "at the most"),
        ("model", "", f"{report.model} ({made_by})" if made_by else report.model),
        ("verified", "", report.verified),
    )
    for path, reason in report.notes_failed[:20]:
        say(f"not indexed: {reason if path in reason else f'{path}: {reason}'}")
    if len(report.notes_failed) > 20:
        say(f"… and {len(report.notes_failed) - 20} more; see index --json")
    for path, warning in report.warnings[:10]:
        say(f"note: {path}: {warning}")
    if len(report.warnings) > 10:
        say(f"… and {len(report.warnings) - 10} more remarks; see index --json")


def _chunks_line(report: IndexReport) -> str:
    """Two models make two vectors of a chunk that both can read."""
    models = report.model.count(" + ") + 1
    embedded = f"{report.chunks_embedded:,} embedded" + (f" by {models} models" if models > 1 else "")
    return f"{embedded}, {report.chunks_reused:,} reused"


def _print_fields(*fields: tuple[str, str, str]) -> None:
    """Lines of (name, figure, words); a field with neither is left out."""
    for name, figure, words in fields:
        if figure or words:
            line = Text()
            line.append(f"{name:<14}", style="dim")
            line.append(f"{figure:>10}  " if figure else "", style="bold")
            line.append(plain(words))
            out.print(line)


def _notes_line(report: IndexReport) -> str:
    parts = [
        (report.notes_indexed, "indexed"),
        (report.notes_unchanged, "unchanged"),
        (report.notes_deleted, "deleted"),
    ]
    rest = report.notes_total - report.notes_indexed - report.notes_unchanged - len(report.notes_failed)
    parts.append((max(0, rest), "left for another run"))  # beyond --limit
    line = ", ".join(f"{n:,} {word}" for n, word in parts if n) or "none"
    return line + (f", {len(report.notes_failed)} failed" if report.notes_failed else "")


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else _duration(seconds)


def print_results(results: Sequence[SearchResult], query: str = "") -> None:
    """Results for a person: clickable title, place, and what they say of the query."""
    for row in results:
        title = Text(f"{row.rank}. ", style="dim")
        title.append(plain(row.title), style=f"bold link {row.uri}")
        if row.heading:
            title.append(f" › {plain(row.heading)}", style="cyan")
        title.append(f"  {row.score:.3f}", style="green")
        out.print(title)
        out.print(
            Text(f"   {plain(row.path)}:{row.start_line}" + "".join(f" #{plain(tag)}" for tag in row.tags), style="dim")
        )
        text = excerpt(row.text, query, SNIPPET_CHARS)
        more = "" if row.text.endswith(text.removeprefix("… ")) else "…"
        out.print(Text(f"   {' '.join(plain(text).split())}{more}"))
        if row.explain:
            out.print(Text(f"   {_explained(row)}", style="dim"))


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


def print_status(status: Status) -> None:
    """What is stored."""
    stale = "the vault cannot be read" if status.stale_notes is None else "notes changed since"
    _print_fields(
        ("vault", "", status.vault),
        ("notes", f"{status.notes:,}", ""),
        ("chunks", f"{status.chunks:,}", f"{status.embedded:,} embedded ({status.coverage:.1%})"),
        ("stale", "?" if status.stale_notes is None else f"{status.stale_notes:,}", stale),
        ("on disk", f"{status.index_bytes / 1e6:,.1f} MB", ""),
        ("model", "", " + ".join(status.models)),
        ("because", "", status.reason),
        ("folder", "", status.folder),
        *(("also kept", f"{size / 1e6:,.1f} MB", name) for name, size in status.other_indexes),
    )
    for path, reason in status.failed:
        say(f"not embedded: {path}: {reason}")
    for line in status.remarks:
        say(line)


def print_passage(row: SearchResult) -> None:
    """One result whole."""
    print_results([row])
    out.print(Text(plain(row.text)))


def print_models(rows: Sequence[dict[str, Any]]) -> None:
    """The catalogue as a table."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("model", "languages", "dim", "tokens", "MB", "weights", "texts/s here", "agrees with L6"):
        table.add_column(column)
    for row in rows:
        speed = f"{row['texts_per_second']:.1f}" if row["texts_per_second"] else "not measured"
        agreement = f"{row['agreement']:.0%}" if row["agreement"] is not None else "not measured"
        cells = (
            row["name"],
            row["languages"],
            row["dim"],
            row["max_tokens"],
            row["size_mb"],
            row["here"] or "to download",
        )
        table.add_row(*[Text(str(cell)) for cell in (*cells, speed, agreement)])
    out.print(table)
    for row in rows:
        say(f"{row['name']}: {row['remark']}")


def print_findings(findings: Sequence[Finding]) -> None:
    """What the doctor found, one line each; what is wrong comes last, where it is seen."""
    marks = {"ok": ("✓", "green"), "note": ("·", "yellow"), "wrong": ("✗", "red")}
    for level, (mark, color) in marks.items():
        for finding in findings:
            if finding.level == level:
                line = Text(f"{mark} ", style=color)
                line.append(f"{plain(finding.topic)}: ", style="bold")
                line.append(plain(" ".join(finding.text.split())))
                out.print(line)


def print_checklist(rows: Sequence[Step]) -> None:
    """The guide's phases with their steps."""
    phase = ""
    for row in rows:
        if row.phase != phase:
            phase = row.phase
            out.print(Text(f"\n{phase}", style="bold"))
        line = Text("  ✓ " if row.done else "  · ", style="green" if row.done else "yellow")
        line.append(plain(row.text), style="none")
        out.print(line)
        if row.measured:
            out.print(Text(f"      measured here: {plain(row.measured)}", style="dim"))
        if row.todo:
            out.print(Text(f"      next: {plain(row.todo)}", style="cyan"))
    out.print(
        Text("\nThe guide's figures are its own; only what is marked as measured was measured here.", style="dim")
    )
