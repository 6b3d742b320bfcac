"""`python main.py` without a command: asks what to do until 0 or the end of input."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path

from vaultvec import advice
from vaultvec.errors import VaultError, VaultvecError
from vaultvec.settings import NO_VAULT, load_settings
from vaultvec.terminal import console

TEXT = """
1  Embed the whole vault (reads every note again, embeds no text twice)
2  Embed what is new or changed
3  Search
4  Benchmark this machine on your notes
5  Optimise config.py (show, apply, restore)
6  Status
0  Quit"""


@dataclass(frozen=True, slots=True)
class Menu:
    """`run` takes a command line and returns its exit code; `guarded` makes one line of an action's error."""

    config: Path
    run: Callable[[Sequence[str]], int]
    guarded: Callable[[Callable[[], int]], int]

    def ask(self, vault: str | None = None) -> int:
        """Choices, one after the other. An error is told and the menu goes on; the exit code is the last one's."""
        entries: dict[str, Callable[[str], int]] = {
            "1": lambda vault: self.run(["index", "--full", "--vault", vault]),
            "2": lambda vault: self.run(["index", "--vault", vault]),
            "3": self._search,
            "4": partial(_script, "embedding_speed_fix"),
            "5": partial(_script, "config_optimizer"),
            "6": lambda vault: self.run(["status", "--vault", vault]),
        }
        code = 0
        while True:
            console.say(TEXT)
            try:
                choice = console.ask("choice: ")
                if choice in ("0", "q", "quit", "exit"):
                    return code
                if choice not in entries:
                    console.say(f"{choice!r} is not on the menu; type a number from 0 to 6")
                    continue
                vault = vault or self._ask_vault()
                if vault is None:
                    continue
                advice.name_vault(vault)
                code = self.guarded(partial(entries[choice], vault))
            except EOFError:
                return code
            except VaultvecError as error:
                console.complain(str(error))
                return error.exit_code
            if code == 130:
                return code

    def _ask_vault(self) -> str | None:
        """The folder that config.py names, else one that is asked for; None: back to the menu."""
        from vaultvec.vault import open_vault

        settings = load_settings(self.config, os.environ)
        if settings.vault_path is not None:
            return str(settings.vault_path)
        sample = self.config.parent / "sample_vault"
        while True:
            try:
                answer = console.ask(f"folder of your vault (Enter for {sample.name}, 0 goes back): ").strip("\"' ")
            except EOFError as error:
                raise VaultvecError(NO_VAULT) from error
            if answer in ("0", "q"):
                return None
            try:
                open_vault(Path(answer or sample), "type another folder")
                return answer or str(sample)
            except VaultError as error:
                console.complain(str(error))

    def _search(self, vault: str) -> int:
        from vaultvec.terminal.interactive import search_loop

        settings = load_settings(self.config, os.environ, vault=vault)
        return search_loop(settings, settings.vault())


def _script(name: str, vault: str) -> int:
    return int(import_module(name).main(["--vault", vault]))
