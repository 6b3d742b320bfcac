"""The menu and the commands. `python main.py` asks, `python main.py COMMAND` does; `--help` lists everything."""

from __future__ import annotations

import argparse
import os
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NoReturn

import vaultvec.starting  # first: it watches over the other imports
from vaultvec import advice, console
from vaultvec.arguments import build_parser
from vaultvec.errors import SettingsError, VaultError, VaultvecError
from vaultvec.settings import Settings, load_settings
from vaultvec.streams import use_utf8

CONFIG = Path(__file__).with_name("config.py")
INTERRUPTED = "interrupted; what was done is kept, the next run goes on from there"

NO_VAULT = 'no vault is set; add --vault DIR, set VAULTVEC_VAULT, or write VAULT_PATH = "..." in config.py'

MENU = """
1  Embed the whole vault (reads every note again, embeds no text twice)
2  Embed what is new or changed
3  Search
4  Benchmark this machine on your notes
5  Optimise config.py (show, apply, restore)
6  Status
0  Quit
"""


# ── commands: each takes the settings and the parsed arguments, and returns an exit code ──────────────────────────────


def run_index(settings: Settings, args: argparse.Namespace) -> int:
    """index: bring the index up to date."""
    vault = _vault(settings)
    if args.baseline:
        from obsidian_processor import ObsidianProcessor

        report = ObsidianProcessor(settings, vault, notify=console.say).process_all_files(limit=args.limit)
    else:
        from obsidian_processor_optimized import OptimizedObsidianProcessor

        with console.progress_bar() as progress:
            processor = OptimizedObsidianProcessor(settings, vault, progress=progress, notify=console.say)
            report = processor.process_all_files_batch(
                full=args.full, limit=args.limit, accept_deletions=args.accept_deletions
            )
    if args.json:
        console.print_json(report.as_dict())
    else:
        console.print_report(report)
    return 0


def run_search(settings: Settings, args: argparse.Namespace) -> int:
    """search: answer one question."""
    from vaultvec.filters import parse_filters
    from vaultvec.fitting import difference_line, result_remarks
    from vaultvec.session import coverage_remark, open_searcher

    filters = parse_filters(args.folder, args.tag, args.since, args.until, args.min_score)
    vault = _vault(settings)
    searcher = open_searcher(settings, vault, console.say)
    try:
        answer = searcher.search(
            args.query, args.k, args.mode, filters,
            exclude=args.exclude, per_note=not args.all_chunks, explain=args.explain,
        )  # fmt: skip
        remarks = [*answer.remarks, coverage_remark(searcher), difference_line(settings, vault, searcher.ledger)]
        remarks += result_remarks(settings, vault, answer.results)
    finally:
        searcher.close()
    for remark in filter(None, remarks):
        console.say(remark)
    console.print_rows(answer.results, args.format, args.query, args.explain)
    if not answer.results and args.format == "text":
        console.say("nothing found")
    return 0


def run_related(settings: Settings, args: argparse.Namespace) -> int:
    """related: notes near a note."""
    from vaultvec.fitting import result_remarks
    from vaultvec.session import open_searcher

    vault = _vault(settings)
    searcher = open_searcher(settings, vault, console.say)
    try:
        results = searcher.related(args.note, args.k)
    finally:
        searcher.close()
    for remark in result_remarks(settings, vault, results):
        console.say(remark)
    console.print_rows(results, args.format)
    return 0


def run_links(settings: Settings, args: argparse.Namespace) -> int:
    """links: pairs of notes that are close but not linked."""
    from vaultvec.session import open_searcher

    searcher = open_searcher(settings, _vault(settings), console.say)
    try:
        pairs = searcher.links(args.k, args.min_score)
    finally:
        searcher.close()
    if args.json:
        console.print_json([{"score": round(score, 4), "from": a, "to": b} for score, a, b in pairs])
    else:
        console.print_pairs(pairs)
    return 0


def run_status(settings: Settings, args: argparse.Namespace) -> int:
    """status: what is stored."""
    from vaultvec.session import read_status

    status = read_status(settings, _vault(settings))
    if args.json:
        console.print_json(status.as_dict())
    else:
        console.print_status(status)
    return 0


def run_doctor(settings: Settings, args: argparse.Namespace) -> int:
    """doctor: what is wrong, and the command that mends it."""
    from vaultvec.doctor import examine

    findings = [
        replace(finding, text=advice.with_vault(finding.text))
        for finding in examine(settings, settings.vault_path, CONFIG)
    ]
    if args.json:
        console.print_json([finding.as_dict() for finding in findings])
    else:
        console.print_findings(findings)
    return 1 if any(finding.level == "wrong" for finding in findings) else 0


def run_watch(settings: Settings, args: argparse.Namespace) -> int:
    """watch: index, and again after every change, until Ctrl-C."""
    from vaultvec.watch import watch

    with console.progress_bar() as progress:
        watch(settings, _vault(settings), args.debounce, progress, console.say)
    return 0


def run_export(settings: Settings, args: argparse.Namespace) -> int:
    """export: the vectors as a NumPy file."""
    from vaultvec.export import export
    from vaultvec.names import vault_root

    target = Path(args.file).expanduser()
    if target.suffix != ".npz":
        raise VaultvecError(f"{args.file!r} does not end in .npz; write for example: python main.py export vectors.npz")
    if target.resolve().is_relative_to(vault_root(_vault(settings).expanduser().resolve())[0]):
        raise VaultvecError(f"{target} lies in the vault, where nothing is ever written; choose another folder")
    done = export(settings, _vault(settings), target, args.model)
    if done.pending:
        console.say(f"{done.pending:,} texts wait to be embedded and are not in it; run: python main.py index")
    for name in done.others:
        console.say(f"the index also has vectors of {name}; for those: --model {name.rpartition('/')[2]}")
    if args.json:
        console.print_json({"file": str(target), "vectors": done.vectors, "model": done.model})
    else:
        console.out.print(f"{done.vectors:,} vectors of {done.model} written to {target}", markup=False)
    return 0


def run_rebuild(settings: Settings, args: argparse.Namespace) -> int:
    """rebuild: Chroma and the keyword index anew, without a model."""
    from vaultvec.session import rebuild

    count = rebuild(settings, _vault(settings), console.say)
    if args.json:
        console.print_json({"rows": count})
    else:
        console.out.print(f"{count:,} rows written to Chroma", markup=False)
    return 0


def run_models(settings: Settings, args: argparse.Namespace) -> int:
    """models: the catalogue."""
    from vaultvec.model_list import list_models

    rows = list_models(settings)
    if args.json:
        console.print_json(rows)
    else:
        console.print_models(rows)
    return 0


def run_guide(settings: Settings, args: argparse.Namespace) -> int:
    """guide: the guide's three phases as a checklist for this machine."""
    from vaultvec.phases import checklist

    rows = [
        replace(row, measured=advice.with_vault(row.measured), todo=advice.with_vault(row.todo))
        for row in checklist(settings, CONFIG)
    ]
    if args.json:
        console.print_json([row.as_dict() for row in rows])
    else:
        console.print_checklist(rows)
    return 0


_COMMANDS: dict[str, Callable[[Settings, argparse.Namespace], int]] = {
    "index": run_index,
    "search": run_search,
    "related": run_related,
    "links": run_links,
    "status": run_status,
    "doctor": run_doctor,
    "watch": run_watch,
    "export": run_export,
    "rebuild": run_rebuild,
    "models": run_models,
    "guide": run_guide,
}


def _vault(settings: Settings) -> Path:
    if settings.vault_path is None:
        raise VaultvecError(NO_VAULT)
    return settings.vault_path


# ── the menu ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def menu(parser: argparse.ArgumentParser, vault: str | None = None) -> int:
    """Ask until 0 or the end of input. An error is told and the menu goes on; the exit code is the last one's."""
    code = 0
    while True:
        console.say(MENU.rstrip())
        try:
            choice = console.ask("choice: ")
            if choice in ("0", "q", "quit", "exit"):
                return code
            if choice not in _ENTRIES:
                console.say(f"{choice!r} is not on the menu; type a number from 0 to 6")
                continue
            vault = vault or _ask_vault()
            advice.name_vault(vault)
            code = guarded(partial(_ENTRIES[choice], parser, vault))
        except EOFError:
            return code
        except VaultvecError as error:
            console.complain(str(error))
            return error.exit_code
        if code == 130:
            return code


def _ask_vault() -> str:
    from vaultvec.vault import open_vault

    settings = load_settings(CONFIG, os.environ)
    if settings.vault_path is not None:
        return str(settings.vault_path)
    sample = CONFIG.parent / "sample_vault"
    while True:
        try:
            answer = console.ask(f"folder of your vault (Enter for {sample.name}): ").strip("\"' ") or str(sample)
        except EOFError as error:
            raise VaultvecError(NO_VAULT) from error
        try:
            open_vault(Path(answer))
            return answer
        except VaultError as error:
            console.complain(str(error))


def _index_entry(*options: str) -> Callable[[argparse.ArgumentParser, str], int]:
    return lambda parser, vault: run(parser, ["index", *options, "--vault", vault])


def _search_entry(_: argparse.ArgumentParser, vault: str) -> int:
    from vaultvec.interactive import search_loop

    settings = load_settings(CONFIG, os.environ, vault=vault)
    return search_loop(settings, _vault(settings))


def _script_entry(name: str) -> Callable[[argparse.ArgumentParser, str], int]:
    def entry(_: argparse.ArgumentParser, vault: str) -> int:
        from importlib import import_module

        return int(import_module(name).main(["--vault", vault]))

    return entry


_ENTRIES: dict[str, Callable[[argparse.ArgumentParser, str], int]] = {
    "1": _index_entry("--full"),
    "2": _index_entry(),
    "3": _search_entry,
    "4": _script_entry("embedding_speed_fix"),
    "5": _script_entry("config_optimizer"),
    "6": lambda parser, vault: run(parser, ["status", "--vault", vault]),
}


# ── entry ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def run(parser: argparse.ArgumentParser, argv: Sequence[str]) -> int:
    """One command."""
    args = parser.parse_args(argv)
    advice.name_vault(args.vault)
    if args.command is None:
        return menu(parser, args.vault)
    if getattr(args, "json", False) and hasattr(args, "format"):
        if args.format != "text":
            parser.error(f"--json and --{args.format} exclude each other")
        args.format = "json"
    return _COMMANDS[args.command](_settings(args), args)


def _settings(args: argparse.Namespace) -> Settings:
    """config.py's settings; the doctor, who says what is wrong with config.py, does without them."""
    try:
        return load_settings(CONFIG, os.environ, vault=args.vault)
    except SettingsError:
        if args.command != "doctor":
            raise
        return load_settings(Path(os.devnull), os.environ, vault=args.vault)


def guarded(action: Callable[[], int]) -> int:
    """Errors as one line, interruption as 130, a closed pipe in silence."""
    try:
        return action()
    except VaultvecError as error:
        console.complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        console.say(INTERRUPTED)
        return 130
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            console.complain(f"the system refused something ({error}); run: python main.py doctor")
            return 1
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    vaultvec.starting.listen()
    use_utf8()
    parser = build_parser()
    return guarded(lambda: run(parser, sys.argv[1:] if argv is None else argv))


def leave(code: int) -> NoReturn:
    """End the process. After Ctrl-C a model that is just being loaded in a thread is not waited for."""
    if code == 130 and threading.active_count() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    leave(main())
