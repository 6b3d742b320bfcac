"""How fast is embedding here, and what would make it faster: 1 benchmark · 2 apply what the benchmark found.

    python embedding_speed_fix.py                menu
    python embedding_speed_fix.py 1              measure on chunks of your vault; about a minute; changes nothing
    python embedding_speed_fix.py 1 --thorough   minutes, with the guide's further options
    python embedding_speed_fix.py 2              the same, then write the best settings into config.py, as
                                                 `config_optimizer.py 2` does (undo: `config_optimizer.py 3`)

Results go to stdout, JSON and an HTML report to the data folder; questions and progress go to stderr.
"""

from __future__ import annotations

import vaultvec.terminal.starting  # first: it watches over the other imports

# isort: split
import argparse
import json
import os
import sys
from collections.abc import Sequence

import config_optimizer
from vaultvec.config_file import read_text, read_values
from vaultvec.settings import load_settings
from vaultvec.terminal import console
from vaultvec.terminal.choices import arguments, ask_choice, run
from vaultvec.terminal.streams import use_utf8

MENU = """embedding speed
  1  benchmark the present speed
  2  apply the optimised settings (measures first, a backup is kept)
  0  quit"""


def main(argv: Sequence[str] | None = None, setup: config_optimizer.Setup | None = None) -> int:
    """Run one choice and return the exit code."""
    vaultvec.terminal.starting.listen()
    use_utf8()
    args = arguments("embedding_speed_fix.py", __doc__, ("1", "2"), argv)
    choices = {"1": benchmark, "2": config_optimizer.apply}

    def work() -> int:
        choice = args.choice or ask_choice(MENU, tuple(choices))
        return choices[choice](args, setup or config_optimizer.Setup())

    return run(work, args.json)


def benchmark(args: argparse.Namespace, setup: config_optimizer.Setup) -> int:
    """Measure and report; config.py is not touched."""
    from vaultvec.measure.report import print_report, result_console
    from vaultvec.measure.results import as_dict

    config = setup.config
    settings = load_settings(config, os.environ, vault=args.vault)
    present = read_values(read_text(config).text, config.name)
    vault = config_optimizer.vault_of(settings)
    measured = setup.measure(settings, present, vault, thorough=args.thorough, int8=args.int8)
    if args.json:
        print(json.dumps(as_dict(measured.report), indent=1, ensure_ascii=False))
    else:
        print_report(measured.report, result_console())
        print(f"report: {measured.html_path}")
    if measured.report.proposal:
        console.say("to write the proposed settings: python config_optimizer.py 2")
    return 0


if __name__ == "__main__":
    sys.exit(main())
