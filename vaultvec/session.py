"""Opening the index that answers for a vault, to search it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from vaultvec.engines import choose_engine, create_engine, resolve_model
from vaultvec.engines.base import Engine
from vaultvec.errors import LedgerError
from vaultvec.fitting import made_by_server, query_precision, where_made
from vaultvec.index import current_index
from vaultvec.keywords import KEYWORDS_VERSION
from vaultvec.ledger import Ledger
from vaultvec.models import ModelSpec, resolve
from vaultvec.ranking.semantic import ModelSlot
from vaultvec.search import Searcher
from vaultvec.settings import Settings

Notify = Callable[[str], None]


def open_searcher(settings: Settings, vault: Path, notify: Notify = lambda _: None) -> Searcher:
    """A searcher over the index that answers for a vault. No model is loaded before the first query needs one: then a
    LedgerError is raised where a server made the vectors and ENGINE does not ask for it.

    Raises LedgerError where there is no index.
    """
    folder = current_index(settings, vault)
    ledger = Ledger(folder / "ledger.sqlite3", readonly=True)
    try:
        slots = _slots(settings, ledger, notify)
    except BaseException:
        ledger.close()
        raise
    return Searcher(
        ledger, slots, vault,
        backend=settings.search_backend, chroma=folder / "chroma", asked=settings.embedding_model,
    )  # fmt: skip


def _slots(settings: Settings, ledger: Ledger, notify: Notify) -> list[ModelSlot]:
    """The models of an index, in the engine that made their vectors: one of this machine goes on whatever ENGINE asks for."""
    with ledger.errors_told():
        made_by, models = made_by_server(settings, ledger), ledger.models()
        settings = where_made(settings, ledger)
    elsewhere = ""
    if made_by not in (None, settings.server):
        elsewhere = (
            f'the vectors of this index were made with ENGINE = "{made_by}", config.py says ENGINE = "{settings.engine}"; '
            "set it back, add --mode keyword, or run: python main.py index"
        )
    return [_slot(settings, row, notify, elsewhere) for row in models]


def _slot(settings: Settings, row: tuple[int, str, str, int], notify: Notify, elsewhere: str) -> ModelSlot:
    number, fingerprint, name, dim = row
    spec = resolve(name)

    def load() -> Engine:
        if elsewhere:
            raise LedgerError(elsewhere)
        model = spec if settings.server else resolve_model(spec, settings.models_dir)
        precision = query_precision(settings.precision, fingerprint, choose_engine(settings.engine, model))
        engine = query_engine(replace(settings, precision=precision), model, notify)
        if fingerprint not in {
            engine.model.fingerprint("full"),
            engine.model.fingerprint("int8"),
            engine.model.former_int8,
        }:
            engine.close()
            raise LedgerError(
                f"the index was made by another version of {name} ({fingerprint}, {dim} dimensions) than "
                f"{engine.name} has "
                f"now ({engine.fingerprint}); run: python main.py index"
            )
        return engine

    return ModelSlot(number, spec, dim, load)


def query_engine(settings: Settings, model: ModelSpec, notify: Notify) -> Engine:
    """The engine for queries. A query is one text: with a stream for each two cores it would have but some of them (two cores:
    10.1 ms with two streams, 5.7 ms with one)."""
    alone = settings.streams is None and not settings.server
    return create_engine(replace(settings, streams=1) if alone else settings, model, settings.models_dir, notify)


def coverage_remark(searcher: Searcher) -> str:
    """A line when search cannot find everything yet; "" when it can."""
    if searcher.ledger.meta("keywords_version") != str(KEYWORDS_VERSION):
        return "the keyword index is of another version of this program; to find every word, run: python main.py index"
    remarks = []
    if missing := searcher.ledger.not_read_yet():
        remarks.append(
            f"{missing:,} {'note is' if missing == 1 else 'notes are'} not read yet, and nothing finds them."
        )
    if searcher.ledger.has_pending():
        counts = searcher.ledger.counts()
        remarks.append(
            f"{counts.embedded:,} of {counts.chunks:,} chunks are embedded so far; keyword search alone finds the others."
        )
    return " ".join([*remarks, "To finish: python main.py index"]) if remarks else ""
