"""Scripts that offer numbered choices, by argument or by menu: both tuning scripts."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence

from vaultvec import advice
from vaultvec.errors import VaultvecError
from vaultvec.terminal import console


def arguments(name: str, text: str | None, choices: tuple[str, ...], argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments of both tuning scripts."""
    made = argparse.ArgumentParser(prog=name, description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("choice", nargs="?", choices=choices, help="menu entry; asked for when left out")
    made.add_argument(
        "--vault", metavar="DIR", help="vault to measure on (else VAULTVEC_VAULT, config.py, sample_vault)"
    )
    made.add_argument("--thorough", action="store_true", help="measure for minutes, the guide's further options too")
    made.add_argument("--int8", action="store_true", help="also try int8, which changes some answers")
    made.add_argument("--guide", action="store_true", help="apply the guide's table alone, without measuring")
    made.add_argument("--yes", action="store_true", help="ask nothing")
    made.add_argument("--json", action="store_true", help="one JSON document on stdout")
    args = made.parse_args(argv)
    if args.guide and args.choice not in (None, "2"):
        made.error("--guide goes with choice 2 alone: it applies the guide's table")
    if args.guide and (args.thorough or args.int8):
        made.error("--guide measures nothing; leave out --thorough and --int8")
    advice.name_vault(args.vault)
    return args


class Quit(Exception):
    """The user chose to leave."""


def run(work: Callable[[], int], as_json: bool = False) -> int:
    """Call `work` and turn its errors into one line and an exit code. Who leaves gets a document too, `as_json`."""
    try:
        return work()
    except Quit:
        if as_json:
            print(json.dumps({"written": False}))
        return 0
    except KeyboardInterrupt:
        console.say("interrupted; config.py is as it was")
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        console.say(f"error: the system refused something ({error}); run: python main.py doctor")
        return 1
    except VaultvecError as error:
        console.say(f"error: {error}")
        return error.exit_code


def ask_choice(menu: str, choices: tuple[str, ...]) -> str:
    """The menu, until one of its entries is given. Raises Quit on 0 or the end of input."""
    console.say(menu)
    while True:
        try:
            answer = console.ask("choice: ")
        except EOFError:
            raise Quit from None
        if answer in ("0", "q"):
            raise Quit
        if answer in choices:
            return answer
        console.say(f'"{answer}" is none of {", ".join(choices)}, 0')
