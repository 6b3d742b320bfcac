"""The benchmark report: `make bench`, or

    python -m benchmarks.run [--vault DIR] [--texts N] [--rounds N] [--limit NOTES] [--only PART ...]
    python -m benchmarks.run --table benchmarks/results/COMMIT.json

Parts: embedding (every way on the same texts), commands (whole commands against LangChain's), savings (work not
done). Writes benchmarks/results/COMMIT.json and prints the README's Markdown. Let nothing else run on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.environment import REPOSITORY, environment
from benchmarks.processes import OFFLINE
from benchmarks.report import markdown
from vaultvec.errors import VaultvecError
from vaultvec.models import L6, resolve, weights_path
from vaultvec.settings import Settings, load_settings

PARTS = ("embedding", "commands", "savings")
SEED = 20_26
RESULTS = REPOSITORY / "benchmarks" / "results"


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    args = _arguments(argv)
    if args.table:
        print(markdown(json.loads(args.table.read_text(encoding="utf-8"))), end="")
        return 0
    os.environ.update(OFFLINE)
    try:
        result = _measure(args)
    except (VaultvecError, RuntimeError) as error:
        _say(str(error))
        return 1
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = args.out or RESULTS / f"{result['environment']['commit']}.json"
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    _say(f"written to {path}")
    print(markdown(result), end="")
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks.run", description="Side by side with other ways, on a real vault."
    )
    parser.add_argument("--vault", help="notes to measure with (else VAULTVEC_VAULT, VAULT_PATH, sample_vault)")
    parser.add_argument("--texts", type=int, default=512, help="chunks that every way embeds (512)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds in turn (3)")
    parser.add_argument("--limit", type=int, help="only the N newest notes in whole commands, for a quick check")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--out", type=Path, help="another result file")
    parser.add_argument(
        "--table", type=Path, metavar="FILE.json", help="print the Markdown of a result file, measure nothing"
    )
    return parser.parse_args(argv)


def _measure(args: argparse.Namespace) -> dict[str, Any]:
    settings = load_settings(REPOSITORY / "config.py", os.environ, vault=args.vault)
    vault = settings.vault_path or REPOSITORY / "sample_vault"
    result: dict[str, Any] = {"environment": environment(), "vault": vault.name}
    with tempfile.TemporaryDirectory(prefix="vaultvec-bench-") as folder:
        # A data folder of its own: nothing prepared earlier helps this run. L6, for every peer can read English.
        settings = replace(settings, data_dir=Path(folder), embedding_model=L6)
        if "embedding" in args.only:
            result["embedding"] = _embedding(settings, vault, args)
        if "savings" in args.only:
            result["savings"] = _savings(settings, vault)
    if "commands" in args.only:
        from benchmarks.commands import measure_commands

        weights = weights_path(resolve(L6)).parent
        result["commands"] = measure_commands(vault, weights, args.rounds, args.limit, _say)
    return result


def _embedding(settings: Settings, vault: Path, args: argparse.Namespace) -> dict[str, Any]:
    from benchmarks.embedding import measure_embedding
    from vaultvec.measure.sampling import sample_chunks

    texts = sample_chunks(settings, vault, args.texts, SEED)
    return measure_embedding(settings, resolve(L6), texts, args.rounds, _say)


def _savings(settings: Settings, vault: Path) -> dict[str, Any]:
    from benchmarks.savings import measure_savings
    from vaultvec.engines.openvino_engine import TOKEN_BUDGET

    _say("counting tokens")
    return measure_savings(settings, resolve(L6), vault, settings.max_tokens_per_batch or TOKEN_BUDGET)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
