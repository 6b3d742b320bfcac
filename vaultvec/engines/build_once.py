"""A folder that is there whole or not at all, whoever else makes it and whenever a process is killed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from vaultvec.errors import ModelError


def build_once(target: Path, fill: Callable[[Path], None]) -> None:
    """Fill a temporary folder beside `target` and rename it; if another process was first, its folder stays.

    Raises ModelError where it cannot be written.
    """
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _clear_abandoned(target.parent)
        temporary = Path(tempfile.mkdtemp(prefix=f".{os.getpid()}-", suffix=".tmp", dir=target.parent))
        fill(temporary)
        try:
            temporary.rename(target)
        except OSError:
            if not any(target.glob("*.json")):
                raise
    except OSError as error:
        raise ModelError(
            f"{target.parent} cannot take the prepared model ({error.strerror or error}), which is written there once "
            "and then only read; make room there or mend its permissions for one run, or set DATA_DIR in config.py"
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _clear_abandoned(parent: Path) -> None:
    """Remove what preparations left whose process is gone."""
    import psutil

    for path in parent.glob(".*-*.tmp"):
        pid = path.name[1:].split("-", 1)[0]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(path, ignore_errors=True)
