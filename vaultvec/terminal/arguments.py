"""The arguments of main.py: every command, every option, and its help."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import NoReturn

Add = Callable[[str, str], argparse.ArgumentParser]
MOST = 10**9  # notes or results that can be asked for; SQLite counts no further than 2**63
INDEX = "index the vault; a second run does only what changed"


class _Parser(argparse.ArgumentParser):
    """Says what is most likely meant by arguments that nobody asked for."""

    words = "the words of a query go between quotes, a folder after --vault"
    options = "options stand after the command, a query that begins with - comes last, after --"

    def error(self, message: str) -> NoReturn:
        said, colon, rest = message.partition("unrecognized arguments: ")
        if colon and not said:
            message += f"; {self.options if rest.startswith('-') else self.words}"
        if message.endswith((" required: query", " required: note")):
            message += "; one that begins with - comes last, after --"
        super().error(message)


class _IndexParser(_Parser):
    words = "the folder of the vault comes after --vault"
    options = "--help lists the options"


class _NoJson(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        parser.error("watch has no --json: it goes on until Ctrl-C, so there is no document; index has one")


def build_parser() -> argparse.ArgumentParser:
    """Parses to `command` (None without one), `vault`, and what the command takes."""
    parser = _Parser(
        prog="main.py", description="Turn an Obsidian vault into a search index, fast. Without a command: a menu."
    )
    _add_vault(parser, None)
    on_vault = _Parser(add_help=False)
    _add_vault(on_vault, argparse.SUPPRESS)  # keeps one said before it
    with_json = _Parser(add_help=False, parents=[on_vault])
    _add_json(with_json)
    commands = parser.add_subparsers(metavar="COMMAND", title="commands", dest="command")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        shared = on_vault if name == "watch" else with_json  # it never ends by itself, so it has no document
        return commands.add_parser(name, help=text, description=text, parents=[shared])

    _add_index_options(add("index", INDEX))
    _add_search(add)
    _add_neighbours(add)
    _add_rest(add)
    return parser


def build_index_parser(script: str) -> argparse.ArgumentParser:
    """Of a script that does what the command `index` does; parses to the same."""
    parser = _IndexParser(prog=script, description=INDEX)
    _add_vault(parser, None)
    _add_json(parser)
    _add_index_options(parser)
    parser.set_defaults(command="index")
    return parser


def _add_vault(parser: argparse.ArgumentParser, default: str | None) -> None:
    text = "the vault (else VAULTVEC_VAULT, else VAULT_PATH in config.py)"
    parser.add_argument("--vault", metavar="DIR", default=default, help=text)


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")


def _add_index_options(index: argparse.ArgumentParser) -> None:
    index.add_argument("--full", action="store_true", help="read every note again (known texts keep their vectors)")
    index.add_argument(
        "--limit", type=_positive, metavar="N", help="only the N most recently edited notes that changed"
    )
    index.add_argument(
        "--baseline", action="store_true", help="the guide's slow per-file way, for comparison, in an index apart"
    )
    index.add_argument("--accept-deletions", action="store_true", help="believe that most notes were deleted")


def _add_search(add: Add) -> None:
    search = add("search", "search by meaning and by words")
    search.add_argument("query", help='what you look for; "exact phrase" and -without work too')
    search.add_argument("-k", type=_positive, default=10, metavar="N", help="how many results (10)")
    search.add_argument(
        "--mode",
        choices=("hybrid", "semantic", "keyword"),
        default="hybrid",
        help="by both, by meaning alone, or by words alone (hybrid)",
    )
    search.add_argument("--folder", metavar="F", help="only notes in this folder of the vault")
    search.add_argument(
        "--tag", action="append", default=[], metavar="T", help="only notes with this tag, nested ones too"
    )
    search.add_argument("--since", metavar="DATE", help="only notes changed on or after 2026-01-31")
    search.add_argument("--until", metavar="DATE", help="only notes changed on or before this day")
    search.add_argument("--exclude", action="append", default=[], metavar="WORD", help="no results with this word")
    search.add_argument("--min-score", type=_number, metavar="S", help="only results from this score on (0 to 1)")
    search.add_argument("--all-chunks", action="store_true", help="several rows a note")
    search.add_argument("--explain", action="store_true", help="what the score is made of")
    _add_formats(search)


def _add_neighbours(add: Add) -> None:
    related = add("related", "notes near a note")
    related.add_argument("note", help="path, title, alias or [[link]]")
    related.add_argument("-k", type=_positive, default=10, metavar="N", help="how many notes (10)")
    _add_formats(related)

    links = add("links", "pairs of notes that are close but not linked to each other")
    links.add_argument("-k", type=_positive, default=20, metavar="N", help="how many pairs (20)")
    links.add_argument("--min-score", type=_number, default=0.6, metavar="S", help="lowest cosine, 0 to 1 (0.6)")


def _add_rest(add: Add) -> None:
    add("status", "what is stored, and how far it is behind the notes")
    add("doctor", "find what is wrong, and say what mends it")
    watch = add("watch", "keep the index up to date until Ctrl-C")
    watch.add_argument("--json", action=_NoJson, nargs=0, default=False, help=argparse.SUPPRESS)
    watch.add_argument("--debounce", type=_number, default=2.0, metavar="S", help="seconds of quiet before a run (2)")
    export = add("export", "write ids, paths, texts and vectors to a .npz file")
    export.add_argument("file", metavar="FILE.npz")
    export.add_argument(
        "--model",
        default="",
        metavar="NAME",
        help="whose vectors, of an index with two (the one that reads every note)",
    )
    add("rebuild", "make Chroma and the keyword index anew, without a model")
    add("models", "the models this program knows")
    add("guide", "the guide's three phases, as a checklist for this machine")


def _add_formats(command: argparse.ArgumentParser) -> None:
    group = command.add_mutually_exclusive_group()
    group.add_argument("--csv", dest="format", action="store_const", const="csv", help="rows as CSV")
    group.add_argument("--md", dest="format", action="store_const", const="md", help="a Markdown list with links")
    command.set_defaults(format="text")


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return min(number, MOST)


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text!r} is no number")
    return number
