"""`main.py rebuild`: what is derived from the ledger made anew; a ledger that cannot be used put aside."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path

from vaultvec.chroma_folder import discard, due_anew, put_stamp, writing_store
from vaultvec.errors import LedgerDamaged, LedgerError
from vaultvec.index import current_index, writer_lock
from vaultvec.ledger import Ledger
from vaultvec.settings import Settings
from vaultvec.store import ChromaStore, exists

Notify = Callable[[str], None]


def rebuild(settings: Settings, vault: Path, notify: Notify = lambda _: None) -> int:
    """Make Chroma and the keyword index anew from the ledger, without a model. Returns rows written to Chroma.

    A ledger that is damaged or of an unknown schema is put aside, in whichever of the vault's indexes it lies; the
    next index run takes from it every vector that can still be read.
    """
    vault_dir = settings.vault_dir(vault)
    if not any(vault_dir.glob("*/ledger.sqlite3")):
        current_index(settings, vault)  # says that there is none
    with writer_lock(vault_dir):
        aside = 0
        for path in sorted(vault_dir.glob("*/ledger.sqlite3")):
            damage = _damage(path)
            if damage:
                _put_aside(path.parent, damage, notify)
                aside += 1
        if aside:
            notify("now run: python main.py index")
            return 0
        folder = current_index(settings, vault)
        try:
            return _rebuild_index(folder, notify)
        except LedgerDamaged as error:  # what SQLite's quick check did not see
            _put_aside(folder, str(error.__cause__ or error), notify)
            notify("now run: python main.py index")
            return 0


def _rebuild_index(folder: Path, notify: Notify) -> int:
    written = 0
    with Ledger(folder / "ledger.sqlite3") as ledger:
        notify(f"{ledger.rebuild_keywords():,} keyword rows written")
        damaged = ledger.drop_damaged_vectors()
        if damaged:
            notify(f"{damaged} vectors were damaged; their texts are embedded again by: python main.py index")
        due_anew(ledger)  # first: a kill after this leaves the work to the next index run
        with writing_store(folder / "chroma"):
            discard(folder / "chroma")
            for number, fingerprint, name, dim in ledger.models():
                store = ChromaStore(folder / "chroma", fingerprint, name, dim)
                try:
                    written += store.sync(ledger, number, store.max_batch)
                finally:
                    store.close()
            if exists(folder / "chroma"):
                put_stamp(ledger, folder / "chroma")
    return written


def _damage(path: Path) -> str:
    """What is wrong with a ledger's content, "" when nothing is. Raises LedgerError when it cannot be opened at all."""
    try:
        with Ledger(path) as ledger:
            return ledger.check()
    except LedgerDamaged as error:
        return str(error.__cause__ or error)
    except LedgerError as error:
        if "schema" in str(error):
            return "its schema is not this program's"
        raise


def _put_aside(folder: Path, damage: str, notify: Notify) -> None:
    """Move a ledger out of the way; `sibling_ledgers` finds it there."""
    number = next(n for n in count(1) if not (folder / f"ledger-aside-{n}.sqlite3").exists())
    target = folder / f"ledger-aside-{number}.sqlite3"
    try:
        for suffix in ("-wal", "-shm", ""):  # the log first: a ledger without its log is merely older
            part = folder / f"ledger.sqlite3{suffix}"
            if part.exists():
                part.rename(f"{target}{suffix}")
    except OSError as error:
        raise LedgerError(f"{folder} cannot be written ({error.strerror}); mend its permissions") from error
    discard(folder / "chroma")
    notify(f"a ledger could not be used ({damage}); it lies aside as {target}")
