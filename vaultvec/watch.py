"""`main.py watch`: index, and again after every change of a note, until Ctrl-C."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from vaultvec.errors import SettingsError, VaultvecError
from vaultvec.index import exclusions_of
from vaultvec.pipeline import Hooks, index_vault
from vaultvec.settings import Settings
from vaultvec.stages.embedding import Progress
from vaultvec.vault import NOTE_SUFFIXES, Exclusions, open_vault

RETRY_SECONDS = 5.0  # after a run that failed: another process had the lock, the vault was away, the disk was full
LONGEST_RETRY = 60.0  # seconds; twice as long after each failure in a row, up to this; then it is told again
POLL_SECONDS = 30.0  # between two looks at the notes where the system tells of no changes; one takes 4 s at the most
RESTS = 5  # times as long as it took, at the least: a model that cannot be prepared costs a minute of work each time
APP_JSON = ".obsidian/app.json"  # holds the list of excluded files
_FILE_ENDING = re.compile(r"\.(?=.*[A-Za-z])[A-Za-z0-9]{1,8}")  # of a file; "1. Projects" and "v1.2" are folders

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

    What goes wrong in one run is told, and watching goes on: the run is tried again until it succeeds, which is told
    too. Raises VaultError when the vault is not there to begin with, SettingsError for a debounce that cannot be.
    """
    if not 0.05 <= debounce <= 3600:
        raise SettingsError(f"--debounce is {debounce:g}, expected 0.05 to 3600 seconds")
    folder = open_vault(vault)
    stop = stop or threading.Event()
    runs = _Runs(settings, folder, hooks or Hooks(progress, notify), retry_s)
    runs.run()
    notify(f"watching {folder}; Ctrl-C ends it")
    away = False
    while not stop.is_set():
        unseen = True  # what changed before the watcher was up
        for changed in _changes(folder, settings, debounce, stop, retry_s, notify):
            if stop.is_set():
                return
            away = _tell_away(folder, away, notify)
            if changed or unseen or runs.due(changed is None):
                unseen = False
                runs.run()
        away = _tell_away(folder, away, notify)
        stop.wait(retry_s)  # the watcher ended: the folder is away


def _tell_away(vault: Path, told: bool, notify: Notify) -> bool:
    """Say once that the vault is not there, and once that it is again. Returns whether it is away."""
    away = not os.path.isdir(vault)
    if away and not told:
        notify(f"{vault} is not there now; nothing is changed until it is again")
    elif told and not away:
        notify(f"{vault} is there again")
    return away


class _Runs:
    """One run after another. One that failed is due again, ever more rarely."""

    def __init__(self, settings: Settings, vault: Path, hooks: Hooks, retry_s: float) -> None:
        self._settings = settings
        self._vault = vault
        self._hooks = hooks
        self._retry_s = retry_s
        self._failures = 0
        self._next = 0.0
        self._told = ""
        self._told_at = 0.0
        self._unread: list[tuple[str, str]] = []

    def due(self, perhaps_changed: bool = False) -> bool:
        """Whether the last run failed, long enough ago; where none failed, whether the notes may have changed."""
        return time.monotonic() >= self._next if self._failures else perhaps_changed

    def run(self) -> None:
        """One run, told in a line; the same failure in a row is told once a minute."""
        began = time.monotonic()
        try:
            report = index_vault(self._settings, self._vault, hooks=self._hooks)
        except VaultvecError as error:
            self._fail(str(error), began)
            return
        except OSError as error:
            self._fail(f"the system refused something ({error}); run: python main.py doctor", began)
            return
        if self._failures:
            self._hooks.notify("the index can be kept up to date again")
        self._failures, self._told = 0, ""
        if report.notes_indexed or report.notes_deleted or report.chunks_embedded:
            self._hooks.notify(
                f"{report.notes_indexed} notes indexed, {report.notes_deleted} deleted, {report.chunks_embedded} texts "
                f"embedded in {report.seconds:.1f} s"
            )
        if report.notes_failed == self._unread:
            return
        self._unread = report.notes_failed
        for path, reason in self._unread[:5]:
            self._hooks.notify(f"not indexed: {reason if path in reason else f'{path}: {reason}'}")

    def _fail(self, line: str, began: float) -> None:
        now = time.monotonic()
        rest = min(LONGEST_RETRY, self._retry_s * 2 ** min(self._failures, 10))
        self._next = now + max(rest, RESTS * (now - began))
        self._failures += 1
        if line != self._told or now - self._told_at >= LONGEST_RETRY:
            self._hooks.notify(line)
            self._told, self._told_at = line, now


def _changes(
    vault: Path, settings: Settings, debounce: float, stop: threading.Event, retry_s: float, notify: Notify
) -> Iterator[bool | None]:
    """True after a burst of changes that may concern notes, False every `retry_s` without one; None now and then where
    the system does not tell. Ends when the vault is away."""
    from watchfiles import watch as watch_files

    exclusions = [exclusions_of(settings, vault)]

    def concerns(_: object, path: str) -> bool:
        if Path(path) == vault / APP_JSON:
            exclusions[0] = exclusions_of(settings, vault)
        return concerns_notes(vault, Path(path), exclusions[0])

    try:
        for changes in watch_files(
            vault, watch_filter=concerns, debounce=int(debounce * 1000), step=int(min(debounce, 0.5) * 1000),
            stop_event=stop, rust_timeout=int(retry_s * 1000), yield_on_timeout=True, raise_interrupt=True,
        ):  # fmt: skip
            yield bool(changes)
            if not os.path.isdir(vault):  # Path.is_dir raises for a drive that went away with an error
                return
    except FileNotFoundError:
        return
    except (OSError, RuntimeError) as error:  # a folder that may not be read, no watches left, too many watchers
        reason = str(error).partition(" (Error {")[0]
        notify(f"the system cannot watch this vault ({reason}); it is looked at every {POLL_SECONDS:.0f} s instead")
        while not stop.wait(POLL_SECONDS) and os.path.isdir(vault):
            yield None


def concerns_notes(vault: Path, path: Path, exclusions: Exclusions) -> bool:
    """Whether a change of this path can change the index: a note, a folder of notes, or Obsidian's list of excluded
    files."""
    try:
        relative = path.relative_to(vault).as_posix()
    except ValueError:
        return False
    if relative == APP_JSON:
        return True
    if path.suffix.lower() in NOTE_SUFFIXES:
        return not exclusions.excludes(relative, False)
    # A folder that was renamed or removed is told by its own name alone, and may no longer be there to be asked.
    folder = os.path.isdir(path) or not (os.path.isfile(path) or _FILE_ENDING.fullmatch(path.suffix))
    return folder and not exclusions.excludes(relative, True)
