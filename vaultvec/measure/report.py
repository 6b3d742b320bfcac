"""A benchmark for people: tables on the screen, and one HTML file with charts that needs no network."""

from __future__ import annotations

import html
import os
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from vaultvec.config_keys import show_value
from vaultvec.measure.results import Decision, Report

BUSY = 0.25  # share of the CPU from which other programs are worth a word
GUIDE_CHUNKS = 1000  # the guide's own figure is the time for 1,000 chunks
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 1rem 0; width: 100%; font-size: 14px; }
th, td { text-align: left; padding: .35rem .6rem; border-bottom: 1px solid #ddd; vertical-align: top; }
th { border-bottom: 2px solid #888; } h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2rem; }
.lead { font-size: 1.15rem; }
"""
# Inline scripts and styles only: a browser that opens the file asks no server for anything.
POLICY = "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:"

Cells = list[list[str]]


def headline(report: Report) -> str:
    """The finding in one line."""
    slow, best = report.rows[0], report.rows[-1 if report.proposal else -2]
    text = (
        f"{best.texts_per_second:.0f} texts/s, {report.times_one:.1f} ± {report.times_one_spread:.1f} times one call per "
        f"chunk (texts/s on {report.used.texts} chunks over texts/s on {slow.texts} of them, round by round)"
    )
    if report.times_one_spread > report.times_one / 2:
        text += "; the rounds differ too much to say more: let the machine rest and measure again"
    if report.proposal:
        return f"{text}; the proposed settings: {report.gain:.2f}x ± {report.gain_spread:.2f} of the present ones"
    return f"{text}; nothing measured better than the present settings"


def row_cells(report: Report) -> Cells:
    """One line a way of embedding."""
    return [
        [
            row.label, f"{row.texts_per_second:.1f} ± {row.spread:.0%}", f"{row.tokens_per_second:,.0f}",
            f"{row.seconds_per_1000:.1f} s", f"+{row.growth_mb:.0f}", _load(row.cpu_share, row.gpu_share),
            f"{row.cosine_low:.5f} / {row.cosine_mean:.5f}", row.note,
        ]
        for row in report.rows
    ]  # fmt: skip


ROW_HEADS = ("way", "texts/s", "tokens/s", "1,000 chunks", "memory MB", "use", "cosine low/mean", "")
PRICE_HEADS = ("bottleneck", "costs here", "how it was found")
TRIAL_HEADS = ("candidate", "times faster", "texts/s", "lowest cosine", "verdict")
KEY_HEADS = ("key", "now", "guide", "proposed", "measured gain", "reason")


def _load(cpu: float, gpu: float | None) -> str:
    return f"CPU {cpu:.0%}" if gpu is None else f"GPU {gpu:.0%}, CPU {cpu:.0%}"


def price_cells(report: Report) -> Cells:
    """One line a bottleneck."""
    return [[p.label, f"{p.verdict} (± {p.spread:.0%})" if p.measured else p.verdict, p.how] for p in report.prices]


def trial_cells(report: Report) -> Cells:
    """One line a candidate."""
    return [
        [t.label, f"{t.ratio:.2f} ± {t.spread:.2f}", f"{t.texts_per_second:.1f}", f"{t.cosine_low:.5f}", t.reason]
        for t in report.trials
    ]


def decision_cells(decisions: Iterable[Decision]) -> Cells:
    """One line a key of config.py."""
    return [
        [
            d.key, show_value(d.present), "" if d.guide is None else show_value(d.guide),
            "as now" if d.proposed == d.present else show_value(d.proposed), d.gain, d.reason,
        ]
        for d in decisions
    ]  # fmt: skip


def facts(report: Report) -> list[str]:
    """What was measured on what, and how close to the ceiling."""
    lines = [
        f"{report.made}, {report.machine}, {report.cores} usable cores",
        f"{report.model}, {report.engine} {report.precision} on {report.device}",
        f"sampled: {report.sampled}",
        f"timed: {report.used}, {report.rows[0].texts} of them one by one",
        f"{report.rows[0].rounds} rounds in turn, medians, ± the round farthest from it",
    ]
    if report.ceiling:
        c = report.ceiling
        lines.append(
            f"ceiling: {c.gflops:.0f} GFLOP/s ({c.how}) over {c.mflop_per_token:.1f} MFLOP a token allows "
            f"{c.tokens_per_second:,.0f} tokens/s; the best stands at {c.share:.0%} of it"
        )
    if report.busy > BUSY:
        lines.append(f"other programs took {report.busy:.0%} of the CPU when this began: close them and measure again")
    if report.agreement is not None:
        lines.append(f"int8: {report.agreement:.1%} of the ten nearest chunks are those of fp32")
    return lines


def print_report(report: Report, console: Console) -> None:
    """Tables for the screen."""
    for title, heads, cells in _sections(report):
        if cells:
            console.print(_table(title, heads, cells))
    for line in [*facts(report), headline(report)]:
        console.print(line, markup=False, highlight=False)


def print_decisions(decisions: Sequence[Decision], console: Console) -> None:
    """The table of choice 1."""
    console.print(_table("config.py", KEY_HEADS, decision_cells(decisions)))


def result_console() -> Console:
    """Standard output; wide enough for the tables when it is not a screen."""
    console = Console()
    return console if console.is_terminal else Console(width=160)


def _sections(report: Report) -> list[tuple[str, Sequence[str], Cells]]:
    shares = [[name, f"{seconds:.2f} s"] for name, seconds in report.time_shares.items()]
    extras = [[e.label, f"{e.texts_per_second:.1f}" if e.texts_per_second else "", e.finding] for e in report.extras]
    return [
        ("Ways of embedding", ROW_HEADS, row_cells(report)),
        ("The guide's five bottlenecks, one thing switched at a time", PRICE_HEADS, price_cells(report)),
        ("Candidates", TRIAL_HEADS, trial_cells(report)),
        ("Where the time of 1,000 chunks goes, config.py as it is", ("part", "seconds"), shares),
        ("The guide's further options", ("option", "texts/s", "finding"), extras),
        ("config.py", KEY_HEADS, decision_cells(report.decisions)),
    ]


def _table(title: str, heads: Sequence[str], cells: Cells) -> Table:
    from rich.text import Text

    table = Table(title=title, title_justify="left", title_style="bold", expand=False)
    for head in heads:
        table.add_column(head, overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    return table


def save_html(report: Report, folder: Path) -> Path:
    """Write the report as bench-YYYYMMDD-HHMMSS.html, charts and their library inside."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"bench-{datetime.fromisoformat(report.made):%Y%m%d-%H%M%S}.html"
    part = path.with_suffix(".part")
    part.write_text(render_html(report), encoding="utf-8")
    os.replace(part, path)
    return path


def render_html(report: Report) -> str:
    """The page. Every text of the machine, the model or the notes is escaped."""
    charts = "".join(
        figure.to_html(full_html=False, include_plotlyjs="inline" if i == 0 else False, config={"displaylogo": False})
        for i, figure in enumerate(figures(report))
    )
    tables = "".join(
        f"<h2>{html.escape(title)}</h2>{_html_table(heads, cells)}"
        for title, heads, cells in _sections(report)
        if cells
    )
    lines = "".join(f"<li>{html.escape(line)}</li>" for line in facts(report))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>vaultvec benchmark</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><style>{STYLE}</style></head><body>'
        f'<h1>Embedding speed on this machine</h1><p class="lead">{html.escape(headline(report))}</p>'
        f"<ul>{lines}</ul>{charts}{tables}</body></html>"
    )


def _html_table(heads: Sequence[str], cells: Cells) -> str:
    top = "".join(f"<th>{html.escape(head)}</th>" for head in heads)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in cells)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def figures(report: Report) -> list[Any]:
    """Before and after, batch size, token budget, bottlenecks, where the time goes."""
    import plotly.graph_objects as go

    rows = report.rows
    made = [
        _figure(
            go.Bar(
                x=[html.escape(row.label) for row in rows], y=[row.texts_per_second for row in rows],
                error_y={"array": [row.spread * row.texts_per_second for row in rows]},
                text=[f"{row.texts_per_second:.1f}" for row in rows],
            ),
            "Before and after", "", "texts/s",
        ),
        _curve(report.batch_sizes, "Throughput over batch size (padded batches)", "texts a batch"),
    ]  # fmt: skip
    if report.budgets:
        made.append(_curve(report.budgets, "Throughput over token budget (fast path)", "padded tokens a batch"))
    prices = [price for price in report.prices if price.measured]
    costs = go.Bar(x=[100 * p.cost for p in prices], y=[html.escape(p.label) for p in prices], orientation="h")
    made.append(_figure(costs, "What each bottleneck costs here", "% more time", ""))
    names = [html.escape(name) for name in report.time_shares]
    shares = go.Bar(x=list(report.time_shares.values()), y=names, orientation="h")
    made.append(_figure(shares, "Where the time goes", f"seconds for {GUIDE_CHUNKS:,} chunks", ""))
    return made


def _curve(points: dict[int, float], title: str, below: str) -> Any:
    import plotly.graph_objects as go

    line = go.Scatter(x=[str(x) for x in points], y=list(points.values()), mode="lines+markers")
    return _figure(line, title, below, "texts/s", kind="category")


def _figure(trace: Any, title: str, below: str, left: str, kind: str | None = None) -> Any:
    import plotly.graph_objects as go

    figure = go.Figure(trace)
    figure.update_layout(title=title, template="plotly_white", height=380, margin={"l": 40, "r": 20, "t": 60, "b": 40})
    figure.update_xaxes(title=below, type=kind, automargin=True)
    figure.update_yaxes(title=left, automargin=True, rangemode="tozero")
    return figure
