"""The bar that a run shows on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from vaultvec.terminal.console import err

if TYPE_CHECKING:
    from vaultvec.stages.embedding import Progress as Moment


@contextmanager
def progress_bar() -> Iterator[Callable[[Moment], None]]:
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
                figures += f" · {rate:,.1f} texts/s" + ("" if reading else f" · {duration(left)} left")
            bar.update(
                task, description="embedding" if moment.texts_done or not reading else "reading",
                completed=moment.texts_done, total=moment.texts_total or None, figures=figures,
            )  # fmt: skip

        yield show


def duration(seconds: float) -> str:
    """As people say it, to the second."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
