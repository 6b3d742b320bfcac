"""The process that test_kill.py kills: says "ready", then indexes or rebuilds with the fake engine.

python kill_child.py index|apart|rebuild VAULT DATA LOG DELAY     apart: with the writer in a process of its own
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

import chromadb  # noqa: E402, F401 - imported before "ready", so that the kill falls into the work and not into the import
from fake_engine import FakeEngines, fake_settings  # noqa: E402

from vaultvec import pipeline, store  # noqa: E402
from vaultvec.pipeline import Hooks, index_vault  # noqa: E402
from vaultvec.rebuild import rebuild  # noqa: E402
from vaultvec.stages import writer_process  # noqa: E402

SYNC_THRESHOLD = 24  # rows between two writes of Chroma's graph: small, so that kills fall into them too


def main() -> None:
    """Do the work once."""
    work, vault, data, log, delay = sys.argv[1:]
    store.SYNC_THRESHOLD = SYNC_THRESHOLD
    if work == "apart":
        pipeline.PAYS_FROM = 0
        writer_process._CODE = (
            f"from vaultvec import store; store.SYNC_THRESHOLD = {SYNC_THRESHOLD}; {writer_process._CODE}"
        )
    engines = FakeEngines(token_budget=256, window=16, delay=float(delay), log=Path(log))
    settings = fake_settings(Path(data))
    print("ready", flush=True)
    if work == "rebuild":
        rebuild(settings, Path(vault))
    else:
        index_vault(settings, Path(vault), hooks=Hooks(engines=engines))


if __name__ == "__main__":
    main()
