"""What once went wrong out of sight: the wrong model's vectors, a torn graph, a halt that wrote on, a model that no longer fits."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import psutil
import pytest
from fake_engine import FakeEngine, FakeEngines, fake_settings
from index_state import assert_same, state_of
from made_vault import write_vault

from vaultvec import pipeline
from vaultvec.chroma_folder import store_error, unfinished, writing_store
from vaultvec.datatypes import NoteFile
from vaultvec.errors import EngineError, LedgerError, SettingsError
from vaultvec.export import _write_texts, export
from vaultvec.index import current_index
from vaultvec.integrity import examine_chroma, examine_ledger
from vaultvec.ledger import NOTES_SEEN, Ledger
from vaultvec.models import L6, USE, ModelSpec, resolve
from vaultvec.pipeline import Hooks, index_vault
from vaultvec.rebuild import rebuild
from vaultvec.session import coverage_remark, open_searcher
from vaultvec.settings import Settings, load_settings
from vaultvec.stages.writer_process import WriterProcess
from vaultvec.stages.writing import Writer, WriterTask
from vaultvec.status import read_status
from vaultvec.store import ChromaStore, exists
from vaultvec.vault import spread

ENGLISH = "The kettle stands on the shelf and the water in it is warm enough for the tea of the guests."
KOREAN = "주전자는 선반 위에 있고 그 안의 물은 손님들의 차를 끓이기에 충분히 따뜻하다. 창밖에는 눈이 내린다."


def put(vault: Path, **texts: str) -> Path:
    vault.mkdir(exist_ok=True)
    for name, text in texts.items():
        (vault / f"{name}.md").write_text(text, encoding="utf-8")
    return vault


def index(settings: Settings, vault: Path, engines: FakeEngines | None = None, **options: bool) -> list[str]:
    """One run; returns what was said."""
    said: list[str] = []
    index_vault(settings, vault, hooks=Hooks(notify=said.append, engines=engines or FakeEngines()), **options)
    return said


def ledger_of(settings: Settings, vault: Path) -> Path:
    return current_index(settings, vault) / "ledger.sqlite3"


def lose_graph(chroma: Path) -> None:
    """As in a copy that was made half-way: the rows are there, what finds them is not."""
    for path in chroma.iterdir():
        if path.is_dir():
            shutil.rmtree(path)


def lengths(settings: Settings, vault: Path) -> dict[str, set[int]]:
    """Model → the lengths of its vectors in the ledger."""
    with Ledger(ledger_of(settings, vault), readonly=True) as ledger:
        rows = ledger.db.execute("SELECT name, length(vector) / 4 FROM vectors JOIN models ON models.id = model")
        found: dict[str, set[int]] = {}
        for name, length in rows:
            found.setdefault(name, set()).add(length)
        return found


# ── the right model ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_model_that_was_loaded_early_and_not_needed_is_not_taken_for_the_next(tmp_path: Path) -> None:
    texts = {f"en{i}": f"{ENGLISH} {i}" for i in range(4)} | {f"ko{i}": f"{KOREAN} {i}" for i in range(4)}
    vault = put(tmp_path / "vault", **texts)
    index(fake_settings(tmp_path / "data", embedding_model=USE), vault)
    both = fake_settings(tmp_path / "data", embedding_model="auto")
    index(both, vault)  # every vector of the first model is known
    assert lengths(both, vault) == {USE: {512}, L6: {384}}


def test_an_engine_of_other_dimensions_stores_nothing(tmp_path: Path) -> None:
    vault, settings = put(tmp_path / "vault", a=ENGLISH), fake_settings(tmp_path / "data")
    index(settings, vault)
    put(vault, b=f"{ENGLISH} again")

    class Other(FakeEngines):
        def __call__(self, _: Settings, __: ModelSpec, models_dir: Path, *___: object) -> FakeEngine:
            return FakeEngine(resolve(USE), models_dir, self)

    with pytest.raises(EngineError, match="512 dimensions, the index expects 384"):
        index(settings, vault, Other())
    assert lengths(settings, vault) == {L6: {384}}


def test_the_choice_is_made_again_when_the_vault_has_doubled(tmp_path: Path) -> None:
    vault, settings = put(tmp_path / "vault", Welcome=ENGLISH), fake_settings(tmp_path / "data", embedding_model="auto")
    index(settings, vault)
    assert set(lengths(settings, vault)) == {L6}
    put(vault, **{f"노트{i}": f"{KOREAN} {i}" for i in range(12)})
    index(settings, vault)
    assert set(lengths(settings, vault)) == {USE}


def test_the_choice_is_made_again_on_demand_and_said_to_be_due(tmp_path: Path) -> None:
    vault, settings = tmp_path / "vault", fake_settings(tmp_path / "data", embedding_model="auto")
    put(vault, **{f"note{i}": f"{ENGLISH} {i}" for i in range(60)})
    index(settings, vault)
    put(vault, **{f"노트{i}": f"{KOREAN} {i}" for i in range(30)})
    said = index(settings, vault)
    assert any("33% of the notes" in line and line.endswith("run: python main.py index --full") for line in said), said
    assert set(lengths(settings, vault)) == {L6}
    index(settings, vault, full=True)
    assert set(lengths(settings, vault)) == {USE, L6}


def test_a_vault_without_text_has_not_been_chosen_for(tmp_path: Path) -> None:
    vault, settings = tmp_path / "vault", fake_settings(tmp_path / "data", embedding_model="auto")
    put(vault, **{f"{i}": "" for i in range(9)})
    index(settings, vault)
    put(vault, **{"0": KOREAN, "1": KOREAN})
    index(settings, vault)
    assert set(lengths(settings, vault)) == {USE}


@pytest.mark.parametrize("content", [b"", b"\x00" * 30, b"\xff\xfe\xfd", b"no such index\n"])
def test_a_note_of_the_current_index_that_says_nothing_is_written_anew(content: bytes, tmp_path: Path) -> None:
    vault, settings = put(tmp_path / "vault", a=ENGLISH), fake_settings(tmp_path / "data")
    index(settings, vault)
    folder = current_index(settings, vault)
    (folder.parent / "current").write_bytes(content)
    with pytest.raises(LedgerError, match=r"run: python main\.py index"):
        current_index(settings, vault)
    engines = FakeEngines()
    index(settings, vault, engines)
    assert (current_index(settings, vault), engines.texts) == (folder, [])


# ── Chroma ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_writer_leaves_its_mark_until_it_has_ended_well(tmp_path: Path) -> None:
    chroma = tmp_path / "chroma"
    with writing_store(chroma):
        assert (tmp_path / "chroma.writing").exists()
        assert not unfinished(chroma)  # it is at work
    assert not unfinished(chroma)
    (tmp_path / "chroma.writing").touch()
    assert unfinished(chroma)


@pytest.mark.skipif(sys.platform == "win32", reason="told by POSIX signals")
def test_a_graph_torn_by_a_kill_is_made_anew_by_the_next_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vaultvec.store.SYNC_THRESHOLD", 40)  # rows, from which the graph is on disk
    rows = 60
    text = "\n".join(f"## Heading {i}\n{ENGLISH} {i} {ENGLISH} {i} {ENGLISH} {i}\n" for i in range(rows))
    vault, settings = put(tmp_path / "vault", long=text), fake_settings(tmp_path / "data")
    index(settings, vault)
    chroma = current_index(settings, vault) / "chroma"
    (header,) = chroma.glob("*/header.bin")
    os.truncate(header, header.stat().st_size // 2)
    (chroma.parent / "chroma.writing").touch()
    put(vault, other=f"{ENGLISH} once more")
    said = index(settings, vault)
    assert any("Chroma was made anew" in line for line in said), said
    assert not unfinished(chroma)
    clean = fake_settings(tmp_path / "clean")
    index(clean, vault)
    assert_same(state_of(settings, vault), state_of(clean, vault))


@pytest.mark.parametrize("lost", [False, True])
def test_what_a_killed_writer_left_is_looked_at_though_nothing_waits(
    lost: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vaultvec.store.SYNC_THRESHOLD", 20)  # rows, from which the graph is on disk
    vault, settings = write_vault(tmp_path / "vault", 24, 5), fake_settings(tmp_path / "data")
    index(settings, vault)
    before = state_of(settings, vault)
    chroma = current_index(settings, vault) / "chroma"
    if lost:
        lose_graph(chroma)
    (chroma.parent / "chroma.writing").touch()
    said = index(settings, vault)
    assert any("files of its graph are missing or cut short" in line for line in said) == lost, said
    assert not unfinished(chroma)
    assert_same(state_of(settings, vault), before)


@pytest.mark.parametrize(
    ("name", "removed"), [("index_metadata.pickle", True), ("data_level0.bin", False), ("header.bin", True)]
)
def test_a_graph_without_some_of_its_files_is_not_believed(
    name: str, removed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chroma itself goes on with what is left, without a word: it finds a few of the chunks."""
    monkeypatch.setattr("vaultvec.store.SYNC_THRESHOLD", 20)  # rows, from which the graph is on disk
    vault = write_vault(tmp_path / "vault", 24, 5)
    settings = fake_settings(tmp_path / "data", search_backend="chroma")
    index(settings, vault)
    before, folder = state_of(settings, vault), current_index(settings, vault)

    def found() -> list[str]:
        searcher = open_searcher(settings, vault)
        try:
            return [row.path for row in searcher.search("the kettle of the north", mode="semantic").results]
        finally:
            searcher.close()

    answers = found()
    (file,) = (folder / "chroma").glob(f"*/{name}")
    if removed:
        file.unlink()
    else:
        os.truncate(file, file.stat().st_size // 2)
    assert found() == answers
    with Ledger(folder / "ledger.sqlite3", readonly=True) as ledger:
        (finding,) = examine_chroma(ledger, folder / "chroma")
    assert (finding.level, finding.text) == (
        "wrong", "files of its graph are missing or cut short; run: python main.py rebuild",
    )  # fmt: skip
    assert (
        index(settings, vault)[-1]
        == "Chroma was made anew from the ledger: files of its graph are missing or cut short"
    )
    assert_same(state_of(settings, vault), before)
    assert index(settings, vault)[-1:] != [
        "Chroma was made anew from the ledger: files of its graph are missing or cut short"
    ]


@pytest.mark.parametrize("older", ["chroma", "ledger.sqlite3"])
def test_a_copy_from_another_time_is_not_taken_for_what_the_ledger_knows(older: str, tmp_path: Path) -> None:
    """Chroma's rows are then as many as they should be, and some of them of texts that are gone."""
    vault, settings = write_vault(tmp_path / "vault", 12, 6), fake_settings(tmp_path / "data")
    put(vault, moving=ENGLISH, edited=f"{ENGLISH} before")
    index(settings, vault)
    part, copy = current_index(settings, vault) / older, tmp_path / "copy"
    take = shutil.copytree if part.is_dir() else shutil.copy
    take(part, copy)
    (vault / "moving.md").rename(vault / "moved.md")
    put(vault, edited=f"{ENGLISH} after")
    index(settings, vault)
    if part.is_dir():
        shutil.rmtree(part)
    take(copy, part)
    said = index(settings, vault)
    assert any(
        "Chroma was made anew" in line and "not the one that this ledger was written with" in line for line in said
    ), said
    clean = fake_settings(tmp_path / "clean")
    index(clean, vault)
    assert_same(state_of(settings, vault), state_of(clean, vault))
    assert index(settings, vault) == []


def test_only_a_torn_store_or_much_work_has_a_process_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault, settings = put(tmp_path / "vault", a=ENGLISH), fake_settings(tmp_path / "data")
    made: list[str] = []

    class Apart(WriterProcess):
        def __init__(self, task: WriterTask) -> None:
            made.append("process")
            super().__init__(task)

    monkeypatch.setattr(pipeline, "WriterProcess", Apart)
    index(settings, vault)
    assert made == []
    (current_index(settings, vault) / "chroma.writing").touch()
    put(vault, b=f"{ENGLISH} again")
    index(settings, vault)
    assert made == ["process"]
    put(vault, c=f"{ENGLISH} again and again")
    index(settings, vault)
    assert made == ["process"]


def test_a_halt_leaves_what_is_not_written_to_the_next_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vault, settings = write_vault(tmp_path / "vault", 12, 4), fake_settings(tmp_path / "data")
    index(settings, vault)
    folder = current_index(settings, vault)
    with Ledger(folder / "ledger.sqlite3") as ledger:
        (row,) = (model[0] for model in ledger.models())
        ledger.fill_outbox(row)
        waiting = ledger.outbox_size()
    assert waiting > 8
    writer = Writer(WriterTask(folder / "ledger.sqlite3", folder / "chroma", [row], 4, verify=True))
    write = ChromaStore._write

    def halt_after(store: ChromaStore, rows: Sequence[object], gone: Sequence[str]) -> None:
        write(store, rows, gone)  # type: ignore[arg-type]
        writer.halt()

    monkeypatch.setattr(ChromaStore, "_write", halt_after)
    monkeypatch.setattr(ChromaStore, "count", lambda _: 0)  # differs from the ledger's, as after a halted first run
    writer.end()
    writer.run()
    assert writer.error is None
    with Ledger(folder / "ledger.sqlite3", readonly=True) as ledger:
        assert ledger.outbox_size() == waiting - 4
    assert writer.mended == 0


@pytest.mark.parametrize("way", ["damaged", "lost", "rebuild"])
def test_chroma_made_anew_in_two_runs_is_not_taken_for_a_copy(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault, settings = write_vault(tmp_path / "vault", 12, 4), fake_settings(tmp_path / "data")
    index(settings, vault)
    before, folder = state_of(settings, vault), current_index(settings, vault)
    write = ChromaStore._write

    def interrupt_after(store: ChromaStore, rows: Sequence[object], gone: Sequence[str]) -> None:
        write(store, rows, gone)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ChromaStore, "_write", interrupt_after)
        if way == "damaged":
            writer = Writer(
                WriterTask(folder / "ledger.sqlite3", folder / "chroma", [1], 4, True, damage="a torn graph")
            )
            writer.end()
            writer.run()
            assert isinstance(writer.error, KeyboardInterrupt)
        elif way == "lost":
            shutil.rmtree(folder / "chroma")
            with pytest.raises(KeyboardInterrupt):
                index(settings, vault)
        else:
            with pytest.raises(KeyboardInterrupt):
                rebuild(settings, vault)
    assert exists(folder / "chroma")
    assert index(settings, vault) == []
    assert_same(state_of(settings, vault), before)


def test_a_search_makes_no_chroma(tmp_path: Path) -> None:
    vault, settings = (
        put(tmp_path / "vault", a=ENGLISH, b=KOREAN),
        fake_settings(tmp_path / "data", search_backend="chroma"),
    )
    index(settings, vault)
    chroma = current_index(settings, vault) / "chroma"
    chroma.rename(tmp_path / "away")
    searcher = open_searcher(settings, vault)
    try:
        assert searcher.search("kettle").results[0].path == "a.md"  # every vector is compared instead
    finally:
        searcher.close()
    assert not chroma.exists()
    index(settings, vault)
    assert exists(chroma)
    state = state_of(settings, vault)
    assert (state.outbox, len(state.chroma)) == (0, len(state.chunks))


def test_notes_that_no_run_came_to_are_told(tmp_path: Path) -> None:
    settings = fake_settings(tmp_path / "data")
    vault = put(tmp_path / "vault", a=ENGLISH, b=KOREAN, c=ENGLISH)

    def told() -> tuple[str, list[str]]:
        searcher = open_searcher(settings, vault)
        try:
            found = [f.text for f in examine_ledger(searcher.ledger) if f.topic == "waiting"]
            return coverage_remark(searcher), found
        finally:
            searcher.close()

    index_vault(settings, vault, limit=1, hooks=Hooks(engines=FakeEngines()))
    assert told() == (
        "2 notes are not read yet, and nothing finds them. To finish: python main.py index",
        ["notes that were not read yet: 2; run: python main.py index"],
    )
    status = read_status(settings, vault)
    told_by = status.as_dict()
    assert (told_by["notes_total"], told_by["notes_indexed"], told_by["notes_not_read_yet"]) == (3, 1, 2)
    assert told_by["coverage"] == pytest.approx(1 / 3, abs=1e-3), "of the vault, not of what was read of it"
    index(settings, vault)
    assert told() == ("", [])
    assert (read_status(settings, vault).coverage, read_status(settings, vault).total) == (1.0, 3)
    (vault / "d.md").write_text(ENGLISH, encoding="utf-8")  # as a run leaves it that was killed before it read the note
    with Ledger(ledger_of(settings, vault)) as ledger:
        ledger.set_meta(NOTES_SEEN, "4")
    assert told()[0].startswith("1 note is not read yet")
    index(settings, vault)
    assert told() == ("", [])


def test_a_run_that_read_nothing_yet_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while the model is prepared: the index is there, and empty."""
    settings, vault = fake_settings(tmp_path / "data"), put(tmp_path / "vault", a=ENGLISH, b=KOREAN)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "vault_boilerplate", interrupt)
        with pytest.raises(KeyboardInterrupt):
            index(settings, vault)
    status = read_status(settings, vault)
    assert (status.total, status.notes, status.not_read, status.coverage) == (2, 0, 2, 0.0)
    searcher = open_searcher(settings, vault)
    try:
        assert coverage_remark(searcher).startswith("2 notes are not read yet")
    finally:
        searcher.close()
    index(settings, vault)
    assert read_status(settings, vault).coverage == 1.0


def test_the_status_counts_what_index_counts(tmp_path: Path) -> None:
    settings = fake_settings(tmp_path / "data")
    vault = put(tmp_path / "vault", a=ENGLISH, b=KOREAN, c=f"{ENGLISH} again")
    (vault / "sub").mkdir()
    shutil.copy(vault / "c.md", vault / "sub" / "c.md")
    report = index_vault(settings, vault, hooks=Hooks(engines=FakeEngines())).as_dict()
    status = read_status(settings, vault).as_dict()
    same = ("notes_total", "notes_indexed", "notes_deleted", "chunks_total", "chunks_reused")
    assert {key: status[key] for key in same} == {key: report[key] for key in same}
    assert (status["chunks_reused"], status["notes_unchanged"], status["stale_notes"]) == (1, 4, 0)
    (vault / "a.md").unlink()
    put(vault, b=f"{KOREAN} {KOREAN}", d=ENGLISH)
    status = read_status(settings, vault).as_dict()
    assert (status["notes_unchanged"], status["notes_deleted"], status["stale_notes"]) == (2, 1, 3)


def test_the_status_of_a_vault_that_is_away_says_so(tmp_path: Path) -> None:
    settings, vault = fake_settings(tmp_path / "data"), put(tmp_path / "vault", a=ENGLISH)
    index(settings, vault)
    vault.rename(tmp_path / "elsewhere")
    status = read_status(settings, vault)
    assert status.stale_notes is None
    assert any("how many notes have changed is not known: vault not found: " in line for line in status.remarks)
    assert (status.unchanged, status.gone) == (None, None)


def test_an_index_that_may_not_be_read_is_not_one_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, vault = fake_settings(tmp_path / "data"), put(tmp_path / "vault", a=ENGLISH)
    index(settings, vault)

    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(LedgerError, match=r"cannot be read \(Permission denied\); mend its permissions"):
        current_index(settings, vault)


def test_a_keyword_index_of_another_version_is_told_and_made_anew(tmp_path: Path) -> None:
    settings = fake_settings(tmp_path / "data")
    vault = put(tmp_path / "vault", tree="Ёлка")

    def told() -> str:
        searcher = open_searcher(settings, vault)
        try:
            return coverage_remark(searcher)
        finally:
            searcher.close()

    index(settings, vault)
    assert told() == ""
    with Ledger(ledger_of(settings, vault)) as ledger, ledger.transaction():
        ledger.set_meta("keywords_version", "3")
    assert told().endswith("run: python main.py index")
    engines, lines = FakeEngines(), list[str]()
    index_vault(settings, vault, hooks=Hooks(engines=engines, notify=lines.append))
    assert (told(), engines.texts) == ("", [])
    assert ["keyword index" in line for line in lines] == [True]


def test_only_a_full_disk_is_called_one(tmp_path: Path) -> None:
    named = Exception("Validation error: name: Expected a name, got ----sbert-384-full-0123")
    assert "is damaged" in str(store_error(named, tmp_path))
    assert "disk is full" in str(store_error(Exception("database or disk is full"), tmp_path))
    assert "disk is full" in str(store_error(Exception("No space left on device"), tmp_path))


@pytest.mark.parametrize(
    "name", ["/models/한국어-sbert", "한국어", "a/.model-", "sentence-transformers/all-MiniLM-L6-v2"]
)
def test_chroma_takes_the_name_of_every_model(name: str, tmp_path: Path) -> None:
    model = ModelSpec(name, "transformer", 8, 256, ("*",))
    fingerprint = model.fingerprint("full")
    store = ChromaStore(tmp_path / "chroma", fingerprint, name, 8)
    store.close()
    assert fingerprint[0].isalnum()


# ── notes ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_date_far_in_the_future_stops_nothing(tmp_path: Path) -> None:
    vault, settings = put(tmp_path / "vault", a=ENGLISH, b=KOREAN), fake_settings(tmp_path / "data")
    os.utime(vault / "a.md", ns=(10_413_792_000 * 10**9,) * 2)  # the year 2300
    index(settings, vault)
    status = read_status(settings, vault)
    assert (status.notes, status.stale_notes) == (2, 0)
    again = FakeEngines()
    index(settings, vault, again)
    assert not again.batches


def test_a_note_that_could_not_be_read_again_is_read_by_a_later_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault, settings = put(tmp_path / "vault", a=ENGLISH, b=KOREAN), fake_settings(tmp_path / "data")
    index(settings, vault)
    read = pipeline.Reader._digest.__globals__["read_bytes"]

    def refuse(file: object) -> bytes:
        if getattr(file, "path", "") == "a.md":
            raise pipeline.VaultError("a.md: input/output error")
        return read(file)

    monkeypatch.setitem(pipeline.VERSIONS, "reader_version", "another")
    with monkeypatch.context() as patch:
        patch.setitem(pipeline.Reader._digest.__globals__, "read_bytes", refuse)
        index(settings, vault)
    report = index_vault(settings, vault, hooks=Hooks(engines=FakeEngines()))
    assert (report.notes_indexed, report.notes_unchanged) == (1, 1)


def test_an_index_that_holds_nothing_yet_cannot_be_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vault, settings = put(tmp_path / "vault", a=ENGLISH), fake_settings(tmp_path / "data")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "vault_boilerplate", interrupt)
    with pytest.raises(KeyboardInterrupt):
        index(settings, vault)
    with pytest.raises(LedgerError, match="holds nothing yet"):
        export(settings, vault, tmp_path / "out.npz")


def test_a_vault_whose_path_is_no_text_is_refused_with_a_line(tmp_path: Path) -> None:
    config = tmp_path / "config.py"
    config.write_text("")
    with pytest.raises(SettingsError, match="not valid UTF-8; rename"):
        load_settings(config, {}, vault=os.fsdecode(b"/vault-\xff"))


# ── processes and streams ────────────────────────────────────────────────────────────────────────────────────────────

READERS = """
import sys, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from vaultvec.chunks import ChunkLimits
from vaultvec.models import L6, resolve
from vaultvec.stages.reading import ChunkerSpec, _start_worker
import os
if __name__ == "__main__":
    spec = ChunkerSpec(resolve(L6), Path(sys.argv[1]), ChunkLimits(64, 16, 256))
    pool = ProcessPoolExecutor(1, get_context("spawn"), _start_worker, (spec,))
    print(pool.submit(os.getpid).result(), flush=True)
    time.sleep(600)
"""


def wait_until(true: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.05)


@pytest.mark.skipif(sys.platform == "win32", reason="ends processes by POSIX signals")
def test_readers_end_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    script = tmp_path / "readers.py"
    script.write_text(READERS)
    root = str(Path(__file__).resolve().parents[1])
    command = [sys.executable, str(script), str(tmp_path / "models")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True, env={**os.environ, "PYTHONPATH": root}
    ) as parent:
        assert parent.stdout
        worker = int(parent.stdout.readline())
        os.kill(worker, signal.SIGINT)  # Ctrl-C reaches the whole group; readers leave it to their parent
        time.sleep(0.3)
        assert psutil.pid_exists(worker)
        parent.kill()
    wait_until(lambda: not psutil.pid_exists(worker) or psutil.Process(worker).status() == psutil.STATUS_ZOMBIE)


def test_pipes_are_utf8_whatever_the_country(tmp_path: Path) -> None:
    vault, root = put(tmp_path / "vault", 노트=KOREAN), Path(__file__).resolve().parents[1]
    variables = {**os.environ, "VAULTVEC_DATA": str(tmp_path / "data"), "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    for arguments in (["index", "--json"], ["search", "주전자", "--json"], ["search", "주전자"]):
        done = subprocess.run(
            [sys.executable, root / "main.py", *arguments, "--vault", vault],
            env=variables,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        text = done.stdout.decode("utf-8")
        if "--json" in arguments:
            json.loads(text)
        if arguments[0] == "search":
            assert "주전자는 선반 위에" in text


LOADING = """
import sys, time
sys.path.insert(0, sys.argv[1])
import main
from vaultvec.stages import engine_loading

def load(*_):
    print("loading", flush=True)
    time.sleep(600)

engine_loading.EngineLoader._build = load
sys.stdout = sys.stderr
main.leave(main.main(["index", "--vault", sys.argv[2]]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="interrupts by POSIX signals")
def test_ctrl_c_does_not_wait_for_a_model_that_is_being_loaded(tmp_path: Path) -> None:
    vault, root = put(tmp_path / "vault", a=ENGLISH), str(Path(__file__).resolve().parents[1])
    variables = {**os.environ, "VAULTVEC_DATA": str(tmp_path / "data")}
    command = [sys.executable, "-c", LOADING, root, str(vault)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=variables) as process:
        assert process.stderr
        assert any(line.strip() == "loading" for line in iter(process.stderr.readline, ""))
        time.sleep(0.5)
        process.terminate()  # heard as Ctrl-C; SIGINT itself is ignored by whoever was started in the background
        try:
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
        assert process.returncode == 130
    assert "interrupted" in said
    assert "Traceback" not in said


def test_an_export_is_not_blown_up_by_one_long_text(tmp_path: Path) -> None:
    target, texts = tmp_path / "texts.npz", ["y" * 5000, *(f"{KOREAN} {i}" for i in range(1200)), ""]
    with zipfile.ZipFile(target, "w") as file:
        _write_texts(file, "texts", texts)
        _write_texts(file, "none", [])
    with np.load(target) as arrays:
        assert arrays["texts"].tolist() == texts
        assert arrays["none"].shape == (0,)
    assert target.stat().st_size < 500_000  # np.savez: 24 million


def test_an_export_is_a_plain_numpy_file(tmp_path: Path) -> None:
    vault, settings = put(tmp_path / "vault", a=ENGLISH, b="", c=KOREAN), fake_settings(tmp_path / "data")
    index(settings, vault)
    n = export(settings, vault, tmp_path / "out.npz").vectors
    with np.load(tmp_path / "out.npz") as arrays:
        shapes = {name: arrays[name].shape for name in arrays}
        assert shapes == {"ids": (n,), "paths": (n,), "texts": (n,), "vectors": (n, 384)}
        assert arrays["vectors"].dtype == np.float32
        assert any(KOREAN[:9] in text for text in arrays["texts"])
    assert list(tmp_path.glob("*.tmp")) == []


def test_the_sample_of_notes_is_spread_over_all(tmp_path: Path) -> None:
    files = [NoteFile(str(i), str(i), 1, 1, 1) for i in range(399)]
    picked = [int(file.path) for file in spread(files, 200)]
    assert len(picked) == len(set(picked)) == 200
    assert picked[-1] > 390
    assert spread(files[:3], 200) == files[:3]
    assert spread([], 200) == []
    vault, settings = tmp_path / "vault", fake_settings(tmp_path / "data", embedding_model="auto")
    put(vault, **{f"en{i}": f"{ENGLISH} {i}" for i in range(200)}, **{f"노트{i}": f"{KOREAN} {i}" for i in range(199)})
    for i in range(199):
        os.utime(vault / f"노트{i}.md", (1, 1))  # the older half
    index(settings, vault)
    assert set(lengths(settings, vault)) == {USE, L6}
