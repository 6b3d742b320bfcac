"""Interactive search: ask again and again; nothing is loaded twice."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from vaultvec.datatypes import SearchResult
from vaultvec.errors import QueryError, VaultvecError
from vaultvec.fitting import difference_line, result_remarks
from vaultvec.search import MODES, Searcher
from vaultvec.session import coverage_remark, open_searcher
from vaultvec.settings import Settings
from vaultvec.terminal import console
from vaultvec.terminal.results import print_passage, print_results

MOST_RESULTS = 1000
HELP = (
    "Type a question. Then: 3 shows result 3 whole · o 3 opens it in Obsidian · m 3 finds more like it · "
    "mode hybrid|semantic|keyword · k 20 sets how many · empty line or q goes back"
)


def search_loop(settings: Settings, vault: Path) -> int:
    """Ask until an empty line or the end of input. Returns an exit code."""
    searcher = open_searcher(settings, vault, console.say)
    try:
        if line := difference_line(settings, vault, searcher.ledger):
            console.say(line)
        console.say(HELP)
        loop = _Loop(searcher, partial(result_remarks, settings, vault, searcher.ledger))
        while True:
            line = console.ask("search: ")
            if line in ("", "q", "quit", "0"):
                return 0
            try:
                loop.take(line)
            except VaultvecError as error:
                console.complain(str(error))
    except EOFError:
        return 0
    finally:
        searcher.close()


class _Loop:
    """What is remembered between two lines."""

    def __init__(self, searcher: Searcher, remarks: Callable[[list[SearchResult]], list[str]]) -> None:
        self.searcher = searcher
        self.remarks = remarks  # on the notes that were found
        self.mode = "hybrid"
        self.k = 10
        self.results: list[SearchResult] = []

    def take(self, line: str) -> None:
        """One line: a command about the last results, or a new question."""
        word, _, rest = line.partition(" ")
        commands: dict[str, Callable[[str], None]] = {
            "o": self._open,
            "m": self._more,
            "mode": self._mode,
            "k": self._count,
        }
        if line.isdecimal() and int(line[:9]) <= len(self.results):
            self._show(line)
        elif word in commands and (word == "mode" or rest.strip().isdecimal()):
            commands[word](rest.strip())
        else:
            answer = self.searcher.search(line, self.k, self.mode)
            for remark in filter(None, [*answer.remarks, coverage_remark(self.searcher)]):
                console.say(remark)
            self._set(answer.results, line)

    def _set(self, results: list[SearchResult], query: str = "") -> None:
        self.results = results
        for remark in self.remarks(results):
            console.say(remark)
        print_results(results, query)

    def _pick(self, number: str) -> SearchResult:
        if not self.results:
            raise QueryError("there are no results yet; ask something first")
        if not 1 <= int(number[:9]) <= len(self.results):
            raise QueryError(f"there is no result {number}; the last search gave 1 to {len(self.results)}")
        return self.results[int(number) - 1]

    def _show(self, number: str) -> None:
        print_passage(self._pick(number))

    def _open(self, number: str) -> None:
        row = self._pick(number)
        if not open_uri(row.uri):
            console.say(f"Obsidian could not be started from here; the link is {row.uri}")

    def _more(self, number: str) -> None:
        self._set(self.searcher.related(self._pick(number).path, self.k))

    def _mode(self, name: str) -> None:
        if name not in MODES:
            raise QueryError(f"mode {name!r} is unknown; use one of {', '.join(MODES)}")
        self.mode = name
        console.say(f"mode {name}")

    def _count(self, number: str) -> None:
        self.k = min(MOST_RESULTS, max(1, int(number)))
        console.say(f"{self.k} results")


def open_uri(uri: str) -> bool:
    """Hand an obsidian:// link to the system. False where there is nothing to open it with."""
    import os
    import shutil
    import subprocess

    try:
        if sys.platform == "win32":
            os.startfile(uri)
            return True
        opener = shutil.which("open" if sys.platform == "darwin" else "xdg-open")
        if not opener:
            return False
        null = subprocess.DEVNULL  # stdin too: a browser of the terminal would take what is typed next
        return subprocess.run([opener, uri], stdin=null, stdout=null, stderr=null, check=False).returncode == 0
    except OSError:  # no program takes such links
        return False
