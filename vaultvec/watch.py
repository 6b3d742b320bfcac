"""`main.py watch`: index, and again after every change of a note, until Ctrl-C."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from vaultvec.embedding import Progress
from vaultvec.errors import LockedError, SettingsError, VaultError, VaultvecError
from vaultvec.pipeline import Hooks, index_vault
from vaultvec.settings import Settings
from vaultvec.vault import NOTE_SUFFIXES, Exclusions, load_exclusions, open_vault

RETRY_SECONDS = 5.0  # after another process had the lock, or the vault was away

Show = Callable[[Progress], None]
Notify = Callable[[str], None]


def watch(
    settings: Settings,
    vault: Path,
    debounce: float,
    progress: Show,
    notify: Notify,
    *,
    stop: threading.Event | None = None,
    hooks: Hooks | None = None,
    retry_s: float = RETRY_SECONDS,
) -> None:
    """Index once, then after each change, `debounce` seconds after the last of a burst. Returns when `stop` is set.

    What goes wrong in one run is told, and watching goes on; a run that found the index locked or the vault away is
    tried again. Raises VaultError when the vault is not there to begin with, SettingsError for a debounce that cannot
    be.
    """
    if not 0.05 <= debounce <= 3600:
        raise SettingsError(f"--debounce is {debounce:g}, expected 0.05 to 3600 seconds")
    folder = open_vault(vault)
    stop = stop or threading.Event()
    used = hooks or Hooks(progress, notify)
    retry = _run(settings, folder, used)
    notify(f"watching {folder}; Ctrl-C ends it")
    while not stop.is_set():
        for changed in _changes(folder, settings, debounce, stop, retry_s):
            if changed or retry:
                retry = _run(settings, folder, used)
            if stop.is_set():
                return
        if not stop.wait(retry_s):  # the watcher ended: the folder is away
            retry = True


def _run(settings: Settings, vault: Path, hooks: Hooks) -> bool:
    """One run, told in a line. Returns whether it must be tried again without waiting for a change."""
    try:
        report = index_vault(settings, vault, hooks=hooks)
    except (LockedError, VaultError) as error:
        hooks.notify(str(error))
        return True
    except VaultvecError as error:
        hooks.notify(str(error))
        return False
    if report.notes_indexed or report.notes_deleted or report.chunks_embedded:
        hooks.notify(
            f"{report.notes_indexed} notes indexed, {report.notes_deleted} deleted, {report.chunks_embedded} texts "
            "embedded in "
            f"{report.seconds:.1f} s"
        )
    for path, reason in report.notes_failed[:5]:
        hooks.notify(f"not indexed: {reason if path in reason else f'{path}: {reason}'}")
    return False


def _changes(vault: Path, settings: Settings, debounce: float, stop: threading.Event, retry_s: float) -> Iterator[bool]:
    """True after a burst of changes that may concern notes, False every `retry_s` without one. Ends when the vault is
    away."""
    from watchfiles import watch as watch_files

    exclusions = load_exclusions(vault, settings.exclude)

    def concerns(_: object, path: str) -> bool:
        return concerns_notes(vault, Path(path), exclusions)

    try:
        for changes in watch_files(
            vault, watch_filter=concerns, debounce=int(debounce * 1000), step=int(min(debounce, 0.5) * 1000),
            stop_event=stop, rust_timeout=int(retry_s * 1000), yield_on_timeout=True, raise_interrupt=True,
        ):  # fmt: skip
            yield bool(changes)
            if not vault.is_dir():
                return
    except FileNotFoundError:
        return


def concerns_notes(vault: Path, path: Path, exclusions: Exclusions) -> bool:
    """Whether a change of this path can change the index: a note, a folder of notes, or Obsidian's list of excluded
    files."""
    try:
        relative = path.relative_to(vault).as_posix()
    except ValueError:
        return False
    if relative == ".obsidian/app.json":
        return True
    if path.suffix.lower() in NOTE_SUFFIXES:
        return not exclusions.excludes(relative, False)
    # A folder that was renamed or removed is told by its own name alone, and may no longer be there to be asked.
    return not path.is_file() and not path.suffix and not exclusions.excludes(relative, True)
