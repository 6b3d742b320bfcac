"""The process that test_faults.py starves: `python fault_child.py FAULT VAULT DATA`, where FAULT is one of

size:N     no file may grow beyond N bytes
readonly   root's power over permissions is given up
search     the same, and it searches instead of indexing
"""

from __future__ import annotations

import ctypes
import resource
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

from fake_engine import FakeEngines, fake_settings  # noqa: E402

import main  # noqa: E402
from vaultvec.pipeline import Hooks, index_vault  # noqa: E402
from vaultvec.session import open_searcher  # noqa: E402

CAPABILITIES_3 = 0x20080522  # linux/capability.h


def give_up_capabilities() -> None:
    """Permission bits hold for root too from here on; for others this changes nothing."""
    if sys.platform == "linux":
        header = (ctypes.c_uint32 * 2)(CAPABILITIES_3, 0)
        if ctypes.CDLL(None, use_errno=True).capset(header, (ctypes.c_uint32 * 6)()):
            raise OSError(ctypes.get_errno(), "capset")


def act(fault: str, vault: Path, data: Path) -> int:
    """Index or search under the fault."""
    settings = fake_settings(data)
    if fault == "search":
        searcher = open_searcher(settings, vault)
        print(len(searcher.search("basil", 100, "keyword").results))
        searcher.close()
        return 0
    index_vault(settings, vault, hooks=Hooks(engines=FakeEngines()))
    return 0


if __name__ == "__main__":
    fault, vault, data = sys.argv[1:]
    if fault.startswith("size:"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(fault[5:]), resource.RLIM_INFINITY))
    else:
        give_up_capabilities()
    sys.exit(main.guarded(lambda: act(fault, Path(vault), Path(data))))
