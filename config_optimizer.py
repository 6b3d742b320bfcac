"""Measure, tune, undo: 1 show · 2 apply the optimised settings · 3 restore the original config.py.

    python config_optimizer.py             menu
    python config_optimizer.py 1           present, guide's and proposed value of every key; changes nothing
    python config_optimizer.py 2           measure, show what would change, ask, write (a backup is kept)
    python config_optimizer.py 2 --guide   the guide's table alone, without measuring
    python config_optimizer.py 3           give the original config.py back, byte for byte (without one, the newest backup)

Results go to stdout; questions and progress to stderr. Exit codes: 0 done, 1 something to mend, 2 wrong usage,
130 interrupted.
"""

from __future__ import annotations

import vaultvec.terminal.starting  # first: it watches over the other imports

# isort: split
import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaultvec import advice
from vaultvec.config_file import ConfigText, read_text, read_values
from vaultvec.config_keys import GUIDE_VALUES, KEYS
from vaultvec.config_rewrite import (
    Backup,
    changed_lines,
    check_writable,
    diff,
    list_backups,
    plan_changes,
    restore,
    save,
)
from vaultvec.errors import VaultvecError
from vaultvec.measure.results import Decision, Place, last_decisions
from vaultvec.settings import Settings, load_settings
from vaultvec.terminal import console
from vaultvec.terminal.choices import Quit, arguments, ask_choice, run
from vaultvec.terminal.streams import use_utf8

if TYPE_CHECKING:
    from vaultvec.measure.measured import Measured

HERE = Path(__file__).resolve().parent
CONFIG = HERE / "config.py"
SAMPLE_VAULT = HERE / "sample_vault"
MENU = """config.py
  1  show the present, the guide's and the proposed settings
  2  apply the optimised settings (a backup is kept)
  3  restore the original settings
  0  quit"""
NOT_MEASURED = "not measured yet"
MEASURE = "run: python embedding_speed_fix.py 1"


def measure_vault(*args: Any, **options: Any) -> Measured:
    """`vaultvec.measure.measured.measure`, imported when it is needed."""
    from vaultvec.measure.measured import measure

    return measure(*args, **options)


def place_here(settings: Settings) -> Place:
    """`vaultvec.measure.sampling.place_of` of the user's vault, imported when it is needed."""
    from vaultvec.measure.sampling import place_of

    return place_of(settings, settings.vault_path or SAMPLE_VAULT)


@dataclass(frozen=True, slots=True)
class Setup:
    """What a choice works on; tests put their own in."""

    config: Path = CONFIG
    measure: Callable[..., Measured] = measure_vault
    place: Callable[[Settings], Place] = place_here


def main(argv: Sequence[str] | None = None, setup: Setup | None = None) -> int:
    """Run one choice and return the exit code."""
    vaultvec.terminal.starting.listen()
    use_utf8()
    args = arguments("config_optimizer.py", __doc__, ("1", "2", "3"), argv)
    choices = {"1": show, "2": apply, "3": undo}

    def work() -> int:
        choice = args.choice or ask_choice(MENU, tuple(choices))
        return choices[choice](args, setup or Setup())

    return run(work, args.json)


def vault_of(settings: Settings) -> Path:
    """The user's vault, or the sample vault when none is set."""
    if settings.vault_path is None:
        console.say("no vault is set (VAULT_PATH, VAULTVEC_VAULT or --vault): measuring on sample_vault")
    return settings.vault_path or SAMPLE_VAULT


# ── 1 show ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def show(args: argparse.Namespace, setup: Setup) -> int:
    """Every key: present, guide's and proposed value, reason, measured gain."""
    config = setup.config
    settings = load_settings(config, os.environ, vault=args.vault)
    present = read_values(read_text(config).text, config.name)
    found = last_decisions(settings.reports_dir, present, lambda: setup.place(settings))
    rows: Sequence[Decision] = unmeasured(present)
    text, holds = f"{NOT_MEASURED}; {MEASURE}", found is not None and not found.differs
    if found and holds:
        rows, text = found.decisions, f"measured {found.made}"
    elif found:
        text = f"{NOT_MEASURED} (the measurement of {found.made} is of another place: {found.differs}); {MEASURE}"
    if args.json:
        result: dict[str, Any] = {
            "measured": found.made if found and holds else None,
            "decisions": [as_row(row) for row in rows],
        }
        if found and found.differs:
            result["elsewhere"] = {"measured": found.made, "differs": found.differs}
        print(json.dumps(result, indent=1, ensure_ascii=False))
        return 0
    from vaultvec.measure.report import print_decisions, result_console

    print_decisions(rows, result_console())
    print(advice.with_vault(text))
    return 0


def unmeasured(present: Mapping[str, Any]) -> list[Decision]:
    """The rows of choice 1 before any benchmark: nothing is proposed that was not measured."""
    return [Decision(key, present[key], row.after, present[key], "", NOT_MEASURED) for key, row in KEYS.items()]


def as_row(row: Decision) -> dict[str, Any]:
    """A decision as JSON has it."""
    return {name: getattr(row, name) for name in ("key", "present", "guide", "proposed", "gain", "reason")}


# ── 2 apply ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def apply(args: argparse.Namespace, setup: Setup) -> int:
    """Measure (unless --guide), show the diff, ask, write."""
    config = setup.config
    settings = load_settings(config, os.environ, vault=args.vault)
    check_writable(config)
    before = read_text(config)
    present = read_values(before.text, config.name)
    changes = dict(GUIDE_VALUES)
    if not args.guide:
        from vaultvec.measure.report import print_report, result_console

        measured = setup.measure(settings, present, vault_of(settings), thorough=args.thorough, int8=args.int8)
        if not args.json:
            print_report(measured.report, result_console())
            print(f"report: {measured.html_path}")
        changes = measured.report.proposal
    return write(args, before, changes)


def write(args: argparse.Namespace, before: ConfigText, changes: Mapping[str, Any]) -> int:
    """Show the diff, ask, back up, write."""
    name = before.path.name
    after = plan_changes(before.text, changes, name)
    result: dict[str, Any] = {"written": False, "backup": None, "changes": {}}
    if after == before.text:
        return finish(args, result, f"{name} holds these settings already; nothing was written", 0)
    result["changes"] = changes_of(before.text, after, name)
    print(diff(before.text, after, name), file=sys.stderr if args.json else sys.stdout, flush=True)
    if not args.yes:
        try:
            answer = console.ask(f"write {name}? [y/N] ")
        except EOFError:
            return finish(args, result, "no answer, so nothing was written; add --yes to write without asking", 1)
        if answer.lower() not in ("y", "yes", "예", "네", "ㅛ"):
            return finish(args, result, f"{name} is as it was", 0)
    kept = save(before, after)
    result |= {"written": True, "backup": str(kept)}
    backup = kept.name if kept else ""
    back = f"undo: config_optimizer.py 3, {backup}"
    if any(row.path == kept and row.original for row in list_backups(before.path)):
        back = "undo: config_optimizer.py 3"
    text = f"{name} is written, the state before is {backup}; next: python main.py index ({back})"
    return finish(args, result, text, 0)


def changes_of(old: str, new: str, name: str) -> dict[str, Any]:
    """The new values of the keys that differ."""
    before, after = read_values(old, name), read_values(new, name)
    return {key: after[key] for key in KEYS if after[key] != before[key]}


def finish(args: argparse.Namespace, result: Mapping[str, Any], text: str, code: int) -> int:
    """The outcome, for people or for programs."""
    if args.json:
        print(json.dumps(result, indent=1, ensure_ascii=False))
    (console.say if args.json or code else print)(advice.with_vault(text))
    return code


# ── 3 restore ────────────────────────────────────────────────────────────────────────────────────────────────────────


def undo(args: argparse.Namespace, setup: Setup) -> int:
    """Write a kept state back: the original, or one that is chosen from the list."""
    config = setup.config
    backups = list_backups(config)
    chosen: Path | None = None
    if len(backups) > 1 and not args.yes:
        chosen = ask_backup(backups, config)
    restored = restore(config, chosen)
    name = (chosen or backups[0].path).name
    result: dict[str, Any] = {"written": restored is not None, "restored": name, "kept": None}
    if restored is None:
        return finish(args, result, f"{config.name} is that state already ({name}); nothing was written", 0)
    text = f"{config.name} is {name} again, byte for byte"
    if restored.kept is not None:
        result["kept"] = str(restored.kept)
        text += f"; what it was before is kept as {restored.kept.name}{difference(config, restored.kept)}"
    return finish(args, result, text, 0)


def ask_backup(backups: Sequence[Backup], config: Path) -> Path:
    """Which state; Enter or the end of input takes the first: the original, else the newest."""
    for number, row in enumerate(backups, 1):
        label = "the original" if row.original else "kept"
        console.say(f"  {number}  {row.made:%Y-%m-%d %H:%M:%S}  {label}  {row.path.name}{difference(row.path, config)}")
    while True:
        try:
            answer = console.ask("restore which? [1] ") or "1"
        except EOFError:
            return backups[0].path
        if answer in ("0", "q"):
            raise Quit
        if answer.isdecimal() and 1 <= int(answer) <= len(backups):
            return backups[int(answer) - 1].path
        console.say(f'"{answer}" is none of 1 to {len(backups)}, 0 to leave')


def difference(backup: Path, config: Path) -> str:
    """What goes from `config` to `backup`, where both files parse."""
    try:
        lines = changed_lines(read_values(read_text(config).text), read_values(read_text(backup).text))
    except VaultvecError:
        return ""
    shown = "; ".join(lines[:3]) + ("; …" if len(lines) > 3 else "")
    return f"  ({shown})" if lines else "  (the same values as now)"


if __name__ == "__main__":
    sys.exit(main())
