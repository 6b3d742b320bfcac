"""What index, status, doctor, models and guide tell a person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from vaultvec.terminal.console import out, plain, say
from vaultvec.terminal.progress import duration

if TYPE_CHECKING:  # what is shown is made elsewhere; a command loads only what it needs of that
    from vaultvec.datatypes import IndexReport
    from vaultvec.findings import Finding
    from vaultvec.phases import Step
    from vaultvec.status import Status


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
    embedded = f"{report.chunks_embedded:,} embedded"
    if report.models_run > 1:
        embedded += f" ({report.vectors_made:,} vectors by {report.models_run} models)"
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
        (report.notes_deleted, "gone from their old place (moved, deleted or excluded)"),
    ]
    rest = report.notes_total - report.notes_indexed - report.notes_unchanged - len(report.notes_failed)
    parts.append((max(0, rest), "beyond --limit"))
    line = ", ".join(f"{n:,} {word}" for n, word in parts if n) or "none"
    return line + (f", {len(report.notes_failed)} failed" if report.notes_failed else "")


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else duration(seconds)


def print_status(status: Status) -> None:
    """What is stored."""
    share = f" ({status.coverage:.1%})" if status.chunks else ""
    stale = "the vault cannot be read" if status.stale_notes is None else "notes changed since"
    _print_fields(
        ("vault", "", status.vault),
        ("notes", f"{status.notes:,}", f"and {status.not_read:,} not read yet" if status.not_read else ""),
        ("chunks", f"{status.chunks:,}", f"{status.embedded:,} embedded{share}"),
        ("stale", "?" if status.stale_notes is None else f"{status.stale_notes:,}", stale),
        ("on disk", f"{status.index_bytes / 1e6:,.1f} MB", ""),
        ("model", "", " + ".join(status.models)),
        ("because", "", status.reason),
        ("folder", "", status.folder),
        *(
            ("also kept", f"{other.bytes / 1e6:,.1f} MB", f"{other.name} ({other.models or 'not readable'})")
            for other in status.other_indexes
        ),
    )
    if any(other.models for other in status.other_indexes):
        say("what is also kept makes changing back free; to free its space, delete that folder beside the one above")
    for path, reason in status.failed:
        say(f"not embedded: {path}: {reason}")
    for line in status.remarks:
        say(line)


def print_models(rows: Sequence[dict[str, Any]]) -> None:
    """The catalogue as a table."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("model", "languages", "dim", "tokens", "MB", "weights", "texts/s here", "agrees with L6"):
        table.add_column(column)
    for row in rows:
        how = f" ({row['measured_with']})" if row["measured_with"] else ""
        speed = f"{row['texts_per_second']:.1f}{how}" if row["texts_per_second"] else "not measured"
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
    say(
        "texts/s: python embedding_speed_fix.py 1 measures the model in use, and with --thorough the guide's that are here"
    )
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
