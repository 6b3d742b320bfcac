"""The vectors of an index as a NumPy file, for other programs."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vaultvec.errors import LedgerError, QueryError
from vaultvec.index import current_index
from vaultvec.ledger import Ledger
from vaultvec.lookup import export_rows
from vaultvec.models import resolve
from vaultvec.settings import Settings

BLOCK = 1000  # texts in memory at once, each as long as the longest


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written: how many vectors of which model; and what the file does not hold."""

    vectors: int
    model: str
    others: tuple[str, ...]  # the index's other models
    pending: int  # texts that the model has not embedded yet


def export(settings: Settings, vault: Path, target: Path, model: str = "") -> Exported:
    """Write `ids`, `paths`, `texts`, `vectors` float32 (n, dim) to a .npz file.

    The vectors are those of one `model`, by default of the one that reads every note. Raises LedgerError for an empty
    index and a file that cannot be written, QueryError for a model that the index does not have.
    """
    folder = current_index(settings, vault)
    with Ledger(folder / "ledger.sqlite3", readonly=True) as ledger:
        models = ledger.models()
        if not models:
            raise LedgerError(f"the index of {vault} holds nothing yet; run: python main.py index")
        wanted = model or models[0][2]
        names = [name for _, _, name, _ in models]
        if wanted not in names:
            wanted = resolve(wanted).name  # without its organisation, say
        if wanted not in names:
            raise QueryError(f"the index has no vectors of {wanted}; --model takes {' or '.join(names)}")
        number, _, _, dim = models[names.index(wanted)]
        ids, paths, texts, vectors = export_rows(ledger, number, dim)
        pending = ledger.pending_size(number)
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
    return Exported(len(ids), wanted, tuple(name for name in names if name != wanted), pending)


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
