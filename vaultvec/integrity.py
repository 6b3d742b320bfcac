"""Whether an index is whole: the ledger by itself, against its keyword index, against Chroma, and against the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from vaultvec.chroma_folder import damage, unfinished
from vaultvec.engines.base import Engine
from vaultvec.errors import LedgerError
from vaultvec.findings import Finding, told
from vaultvec.fitting import is_former
from vaultvec.ledger import Ledger
from vaultvec.models import ModelSpec, least_cosine, resolve
from vaultvec.sqlite.donors import is_unit_vector
from vaultvec.store import exists, for_reading

Load = Callable[[ModelSpec, str], Engine]  # a model, and the fingerprint of the vectors that it is to give

SAMPLE = 8  # texts embedded again
LENGTHS = 2000  # vectors whose length is looked at
GRAPH_BYTES = 20_000  # of Chroma's largest graph for each row; a healthy one has about 300, the known fault terabytes
GRAPH_FREE = 100 << 20  # below this size it is no fault


BUSY = Finding(
    "note", "index", "another process is indexing this vault; run python main.py doctor again when it is done"
)


def examine_ledger(ledger: Ledger) -> Iterator[Finding]:
    """SQLite's own check, the keyword index, what waits, and the length of the vectors."""
    found = ledger.check()
    if found:
        yield Finding("wrong", "ledger", f"damaged: {found}; run: python main.py rebuild, then python main.py index")
        return
    counts = ledger.counts()
    for path, (reason, _, _) in list(ledger.unread().items())[:5]:
        yield Finding("note", "not indexed", reason if path in reason else f"{path}: {reason}")
    yield Finding("ok", "ledger", f"{counts.notes:,} notes, {counts.chunks:,} chunks; SQLite finds the file whole")
    missing, orphans = ledger.keyword_differences()
    if missing or orphans:
        yield Finding(
            "wrong", "keyword index", f"{missing} chunks are not in it, {orphans} are gone; run: python main.py rebuild"
        )
    else:
        yield Finding("ok", "keyword index", f"{counts.chunks:,} rows, as many as chunks")
    if missing := ledger.not_read_yet():
        yield Finding("note", "waiting", f"notes that were not read yet: {missing:,}; run: python main.py index")
    if counts.pending > counts.failed:
        yield Finding("note", "waiting", f"{counts.pending} texts wait to be embedded; run: python main.py index")
    if counts.failed:
        path, reason = ledger.failures()[0]
        yield Finding(
            "note",
            "failed texts",
            f"{counts.failed}, for example in {path}: {reason}; tried again by: python main.py index",
        )
    rows = ledger.db.execute(
        "SELECT vector, dim FROM vectors JOIN models ON models.id = model ORDER BY random() LIMIT ?", (LENGTHS,)
    )
    bad = sum(not is_unit_vector(blob, dim) for blob, dim in rows)
    if bad:
        yield Finding(
            "wrong",
            "vectors",
            f"{bad} of a sample are no unit vectors; run: python main.py rebuild, then python main.py index",
        )


def examine_chroma(ledger: Ledger, folder: Path) -> Iterator[Finding]:
    """Chroma's ids against the ledger's, and the size of its graph."""
    waiting = ledger.outbox_size()
    if not exists(folder):
        if waiting and ledger.counts().pending:
            yield Finding("note", "Chroma", "not made yet, a run was interrupted; run: python main.py index")
        elif waiting or any(ledger.row_count(row[0]) for row in ledger.models()):
            yield Finding("wrong", "Chroma", "its folder is missing; run: python main.py rebuild")
        return
    if unfinished(folder):
        line = "a run was killed while it wrote; the next one makes what is torn anew: python main.py index"
        yield Finding("note", "Chroma", line)
        return
    if found := damage(ledger, folder):
        yield Finding("wrong", "Chroma", f"{found}; run: python main.py rebuild")
        return
    models = ledger.models()
    for number, fingerprint, name, dim in models:
        of_model = f" of {name}" if len(models) > 1 else ""
        opened = for_reading(folder, fingerprint, name, dim)
        if opened is None:
            if ledger.row_count(number) and not waiting:
                yield Finding("wrong", "Chroma", f"it has no rows of {name}; run: python main.py rebuild")
            continue
        try:
            differing = opened.differing(ledger, number)
            rows, largest = opened.count(), opened.largest_graph()
            answers = bool(differing or waiting) or opened.answers(ledger, number)
        finally:
            opened.close()
        if differing and waiting:
            yield Finding("note", "Chroma", f"{waiting} rows wait to be written; run: python main.py index")
        elif differing:
            yield Finding(
                "wrong",
                "Chroma",
                f"{len(differing)} of {rows:,} rows{of_model} differ from the ledger; run: python main.py rebuild",
            )
        elif not answers:
            yield Finding(
                "wrong", "Chroma", f"its graph{of_model} does not find what is stored; run: python main.py rebuild"
            )
        else:
            yield Finding("ok", "Chroma", f"{rows:,} rows{of_model}, the same as the ledger's")
        if largest > max(GRAPH_FREE, GRAPH_BYTES * rows):
            yield Finding("wrong", "Chroma", f"its graph takes {largest / 1e9:.1f} GB; run: python main.py rebuild")


def examine_vectors(ledger: Ledger, load: Load) -> Iterator[Finding]:
    """A sample of stored vectors against the model that made them."""
    for number, fingerprint, name, dim in ledger.models():
        rows = ledger.db.execute(
            "SELECT text, vector FROM chunks JOIN vectors USING(hash) WHERE model = ? ORDER BY random() LIMIT ?",
            (number, SAMPLE),
        ).fetchall()
        rows = [(text, blob) for text, blob in rows if is_unit_vector(blob, dim)]  # the others are told above
        if not rows:
            continue
        engine = load(resolve(name), fingerprint)
        try:
            if is_former(engine.model, fingerprint):
                yield Finding(
                    "note", "vectors", f"those of {name} are int8 of an earlier version; run: python main.py index"
                )
                continue
            again = engine.embed_documents([text for text, _ in rows])
        finally:
            engine.close()
        stored = np.stack([np.frombuffer(blob, np.float32) for _, blob in rows])
        lowest = float((again * stored).sum(axis=1).min()) if again.shape == stored.shape else 0.0
        if lowest >= least_cosine(fingerprint):
            yield Finding("ok", "vectors", f"{len(rows)} of {name} recomputed, lowest cosine {lowest:.5f}")
        else:
            yield Finding(
                "wrong", "vectors",
                f"{name} gives other vectors than those stored (cosine {lowest:.4f}); remove the folder "
                f"{ledger.path.parent} and run: python main.py index",
            )  # fmt: skip


def examine_index(folder: Path, load: Load) -> list[Finding]:
    """Everything about one index. No lock is held: where a run began meanwhile, only that is told."""
    try:
        with Ledger(folder / "ledger.sqlite3", readonly=True) as ledger:
            version = ledger.version()
            found = told("ledger", lambda: examine_ledger(ledger))
            if not any(finding.level == "wrong" and finding.topic == "ledger" for finding in found):
                found += told("Chroma", lambda: examine_chroma(ledger, folder / "chroma"))
                found += told("vectors", lambda: examine_vectors(ledger, load))
            return found if ledger.version() == version and ledger.in_place() else [BUSY]
    except LedgerError as error:
        return [Finding("wrong", "ledger", str(error))]
