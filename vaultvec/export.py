"""The vectors of an index as a NumPy file, for other programs."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vaultvec.errors import LedgerError
from vaultvec.index import current_index
from vaultvec.ledger import Ledger
from vaultvec.lookup import export_rows
from vaultvec.settings import Settings

BLOCK = 1000  # texts in memory at once, each as long as the longest


def export(settings: Settings, vault: Path, target: Path) -> int:
    """Write `ids`, `paths`, `texts`, `vectors` float32 (n, dim) to a .npz file. Returns n. Raises LedgerError."""
    folder = current_index(settings, vault)
    with Ledger(folder / "ledger.sqlite3", readonly=True) as ledger:
        models = ledger.models()
        if not models:
            raise LedgerError(f"the index of {vault} holds nothing yet; run: python main.py index")
        number, _, _, dim = models[0]
        ids, paths, texts, vectors = export_rows(ledger, number, dim)
    temporary = target.with_name(target.name + ".tmp")
    try:
        with zipfile.ZipFile(temporary, "w") as file:
            for name, column in (("ids", ids), ("paths", paths), ("texts", texts)):
                _write_texts(file, name, column)
            with file.open(_member("vectors", zipfile.ZIP_STORED), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, vectors)
        temporary.replace(target)
    except OSError as error:
        raise LedgerError(f"{target} cannot be written ({error.strerror}); choose another file") from error
    finally:
        temporary.unlink(missing_ok=True)
    return len(ids)


def _write_texts(file: zipfile.ZipFile, name: str, texts: Sequence[str]) -> None:
    """An array of texts as np.savez writes one, but block by block and deflated: each row is as long as the longest."""
    kind = np.dtype(f"<U{max([1, *map(len, texts)])}")
    header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": (len(texts),)}
    with file.open(_member(name, zipfile.ZIP_DEFLATED), "w", force_zip64=True) as member:
        np.lib.format.write_array_header_2_0(member, header)
        for start in range(0, len(texts), BLOCK):
            member.write(np.array(texts[start : start + BLOCK], kind).tobytes())


def _member(name: str, compression: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(f"{name}.npy")
    info.compress_type = compression
    info.external_attr = 0o644 << 16  # readable by those who unzip it by hand
    return info
