"""The menu and the commands. `python main.py` asks, `python main.py COMMAND` does; `--help` lists everything."""

from __future__ import annotations

import vaultvec.terminal.starting  # first: it watches over the other imports

# isort: split
import argparse
import os
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NoReturn

from vaultvec import advice
from vaultvec.errors import SettingsError, VaultvecError
from vaultvec.settings import Settings, load_settings
from vaultvec.terminal import console
from vaultvec.terminal.arguments import build_parser
from vaultvec.terminal.menu import Menu
from vaultvec.terminal.progress import progress_bar
from vaultvec.terminal.results import print_pairs, print_rows
from vaultvec.terminal.streams import use_utf8
from vaultvec.terminal.summaries import print_checklist, print_findings, print_models, print_report, print_status

CONFIG = Path(__file__).with_name("config.py")
INTERRUPTED = "interrupted; what was done is kept, the next run goes on from there"


# ── commands: each takes the settings and the parsed arguments, and returns an exit code ──────────────────────────────


def run_index(settings: Settings, args: argparse.Namespace) -> int:
    """index: bring the index up to date."""
    vault = settings.vault()
    if args.baseline:
        from obsidian_processor import ObsidianProcessor

        if args.full:
            console.say("--baseline embeds every note anew each time; --full adds nothing to it")
        report = ObsidianProcessor(settings, vault, notify=console.say).process_all_files(limit=args.limit)
    else:
        from obsidian_processor_optimized import OptimizedObsidianProcessor

        with progress_bar() as progress:
            processor = OptimizedObsidianProcessor(settings, vault, progress=progress, notify=console.say)
            report = processor.process_all_files_batch(
                full=args.full, limit=args.limit, accept_deletions=args.accept_deletions
            )
    if args.json:
        console.print_json(report.as_dict())
    else:
        print_report(report)
    return 0


def run_search(settings: Settings, args: argparse.Namespace) -> int:
    """search: answer one question."""
    from vaultvec.fitting import difference_line, result_remarks
    from vaultvec.ranking.filters import parse_filters
    from vaultvec.session import coverage_remark, open_searcher

    filters = parse_filters(args.folder, args.tag, args.since, args.until, args.min_score)
    vault = settings.vault()
    searcher = open_searcher(settings, vault, console.say)
    try:
        answer = searcher.search(
            args.query, args.k, args.mode, filters,
            exclude=args.exclude, per_note=not args.all_chunks, explain=args.explain,
        )  # fmt: skip
        remarks = [*answer.remarks, coverage_remark(searcher), difference_line(settings, vault, searcher.ledger)]
        remarks += result_remarks(settings, vault, searcher.ledger, answer.results)
    finally:
        searcher.close()
    for remark in filter(None, remarks):
        console.say(remark)
    print_rows(answer.results, args.format, args.query, args.explain)
    return 0


def run_related(settings: Settings, args: argparse.Namespace) -> int:
    """related: notes near a note."""
    from vaultvec.fitting import result_remarks
    from vaultvec.session import open_searcher

    vault = settings.vault()
    searcher = open_searcher(settings, vault, console.say)
    try:
        results = searcher.related(args.note, args.k)
        remarks = result_remarks(settings, vault, searcher.ledger, results)
    finally:
        searcher.close()
    for remark in remarks:
        console.say(remark)
    print_rows(results, args.format)
    return 0


def run_links(settings: Settings, args: argparse.Namespace) -> int:
    """links: pairs of notes that are close but not linked."""
    from vaultvec.ranking.filters import check_score
    from vaultvec.session import open_searcher

    check_score(args.min_score)
    searcher = open_searcher(settings, settings.vault(), console.say)
    try:
        pairs = searcher.links(args.k, args.min_score)
    finally:
        searcher.close()
    if args.json:
        console.print_json([{"score": round(score, 4), "from": a, "to": b} for score, a, b in pairs])
    else:
        print_pairs(pairs)
    return 0


def run_status(settings: Settings, args: argparse.Namespace) -> int:
    """status: what is stored."""
    from vaultvec.status import read_status

    status = read_status(settings, settings.vault())
    if args.json:
        console.print_json(status.as_dict())
    else:
        print_status(status)
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
        print_findings(findings)
    return 1 if any(finding.level == "wrong" for finding in findings) else 0


def run_watch(settings: Settings, args: argparse.Namespace) -> int:
    """watch: index, and again after every change, until Ctrl-C."""
    from vaultvec.watch import watch

    with progress_bar() as progress:
        watch(settings, settings.vault(), args.debounce, progress, console.say)
    return 0


def run_export(settings: Settings, args: argparse.Namespace) -> int:
    """export: the vectors as a NumPy file."""
    from vaultvec.export import export
    from vaultvec.names import vault_root

    try:
        target = Path(args.file).expanduser()
    except RuntimeError as error:  # "~name" of a user who does not exist
        raise VaultvecError(f"{args.file} names no file: {error} Write the whole path") from error
    if target.suffix != ".npz":
        raise VaultvecError(f"{args.file!r} does not end in .npz; write for example: python main.py export vectors.npz")
    if target.resolve().is_relative_to(vault_root(settings.vault().expanduser().resolve())[0]):
        raise VaultvecError(f"{target} lies in the vault, where nothing is ever written; choose another folder")
    done = export(settings, settings.vault(), target, args.model)
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
    from vaultvec.rebuild import rebuild

    count = rebuild(settings, settings.vault(), console.say)
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
        print_models(rows)
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
        print_checklist(rows)
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


# ── entry ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def run(parser: argparse.ArgumentParser, argv: Sequence[str]) -> int:
    """One command."""
    args = parser.parse_args(argv)
    advice.name_vault(args.vault)
    if args.command is None:
        return Menu(CONFIG, partial(run, parser), guarded).ask(args.vault)
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


def main(argv: Sequence[str] | None = None, parser: argparse.ArgumentParser | None = None) -> int:
    """Entry point, with a `parser` of its own for another script; returns the exit code."""
    vaultvec.terminal.starting.listen()
    use_utf8()
    made = parser or build_parser()
    return guarded(lambda: run(made, sys.argv[1:] if argv is None else argv))


def leave(code: int) -> NoReturn:
    """End the process. After Ctrl-C a model that is just being loaded in a thread is not waited for."""
    if code == 130 and threading.active_count() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    leave(main())
