"""Faults at the real boundaries: each ends in one clear line, the old index answers, and the way named goes on."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fake_engine import FakeEngines, fake_settings
from index_state import assert_same, assert_whole, state_of
from made_vault import update_vault, write_vault

import vaultvec.sqlite.ledger_file
import vaultvec.store
from vaultvec.datatypes import Batch, Note, NoteFile, Vectors
from vaultvec.errors import BatchTooLarge, EngineError, LedgerError, StoreDamaged, VaultError, VaultvecError
from vaultvec.index import current_index
from vaultvec.pipeline import Hooks, index_vault
from vaultvec.rebuild import rebuild
from vaultvec.session import open_searcher
from vaultvec.sqlite import schema
from vaultvec.stages import reading
from vaultvec.status import read_status
from vaultvec.store import ChromaStore

CHILD = Path(__file__).with_name("fault_child.py")


class Scene:
    """A vault, its index, and what a clean index of it is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.vault = write_vault(folder / "vault", 24, seed=5)
        self.data = folder / "data"
        self.settings = fake_settings(self.data)
        self.engines = FakeEngines()
        self.index()

    def index(self, engines: FakeEngines | None = None, **options: bool) -> int:
        """Run; the number of texts embedded."""
        used = engines or FakeEngines()
        index_vault(self.settings, self.vault, hooks=Hooks(engines=used), **options)
        return len(used.texts)

    def update(self) -> None:
        update_vault(self.vault, 7)

    def answers(self) -> int:
        """Notes that a keyword search finds."""
        searcher = open_searcher(self.settings, self.vault)
        try:
            return len(searcher.search("basil", 100, "keyword").results)
        finally:
            searcher.close()

    def check(self) -> None:
        """The index is what a clean run makes."""
        clean = fake_settings(self.folder / "clean")
        index_vault(clean, self.vault, hooks=Hooks(engines=FakeEngines()))
        assert_same(state_of(self.settings, self.vault), state_of(clean, self.vault))

    @property
    def index_folder(self) -> Path:
        return current_index(self.settings, self.vault)

    @property
    def ledger(self) -> Path:
        return self.index_folder / "ledger.sqlite3"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Made once, copied for each test that does not touch the vault."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vaultvec.store, "SYNC_THRESHOLD", 24)  # so that Chroma writes its graph
        return Scene(tmp_path_factory.mktemp("made"))


@pytest.fixture
def scene(made: Scene, tmp_path: Path) -> Scene:
    copied = Scene.__new__(Scene)
    copied.folder, copied.vault, copied.data = tmp_path, tmp_path / "vault", tmp_path / "data"
    shutil.copytree(made.vault, copied.vault)
    copied.settings = fake_settings(copied.data)
    (copied.data / "vaults").mkdir(parents=True)
    shutil.copytree(made.settings.vault_dir(made.vault), copied.settings.vault_dir(copied.vault))
    return copied


def one_line(error: BaseException) -> str:
    text = str(error)
    assert text
    assert "\n" not in text
    return text


def told_by(action: Callable[[], int]) -> str:
    """The one line that an action ends in, "" when it succeeds."""
    try:
        action()
    except VaultvecError as error:
        return one_line(error)
    return ""


# ── the disk ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_full_disk_at_any_page_of_the_ledger_loses_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.update()
    pages = scene.ledger.stat().st_size // 4096
    before = scene.answers()
    real = schema.connect
    failed = 0
    for room in (1, 4, 9, 16, 30):

        def cramped(path: Path, readonly: bool, limit: int = pages + room) -> sqlite3.Connection:
            db = real(path, readonly)
            db.execute(f"PRAGMA max_page_count = {limit}")
            return db

        monkeypatch.setattr(vaultvec.sqlite.ledger_file, "connect", cramped)
        line = told_by(scene.index)
        if line:
            failed += 1
            assert "the disk is full" in line
            assert "run it again" in line
        monkeypatch.setattr(vaultvec.sqlite.ledger_file, "connect", real)
        assert scene.answers() > before // 2
    assert failed >= 3
    scene.index()
    scene.check()


@pytest.mark.parametrize("size", [1, 20_000, 100_000, 300_000, 600_000])
def test_no_file_may_grow_beyond(size: int, scene: Scene) -> None:
    scene.update()
    fault = subprocess.run(
        [sys.executable, str(CHILD), f"size:{size}", str(scene.vault), str(scene.data)], capture_output=True, text=True
    )
    assert fault.returncode == 1, fault.stderr
    assert "Traceback" not in fault.stderr
    assert len(fault.stderr.strip().splitlines()) == 1
    assert scene.answers()
    scene.index()
    scene.check()


@pytest.mark.parametrize("log", ["with its log", "without"])
def test_a_data_folder_that_cannot_be_written_still_answers(scene: Scene, log: str) -> None:
    expected = scene.answers()  # a reader that closes last leaves the log
    if log == "without":
        sqlite3.connect(scene.ledger).execute("PRAGMA wal_checkpoint(TRUNCATE)").connection.close()
    assert Path(f"{scene.ledger}-wal").exists() == (log != "without")
    scene.update()
    modes = {path: path.stat().st_mode for path in [scene.data, *scene.data.rglob("*")]}
    for path, mode in modes.items():
        path.chmod(mode & 0o555)
    try:
        found = [
            subprocess.run(
                [sys.executable, str(CHILD), fault, str(scene.vault), str(scene.data)], capture_output=True, text=True
            )
            for fault in ("readonly", "search")
        ]
    finally:
        for path, mode in modes.items():
            path.chmod(mode)
    assert found[0].returncode == 1
    assert "cannot be written" in found[0].stderr
    assert len(found[0].stderr.strip().splitlines()) == 1
    assert (found[1].returncode, found[1].stdout.strip()) == (0, str(expected)), found[1].stderr
    scene.index()
    scene.check()


def test_a_file_in_place_of_the_data_folder(scene: Scene) -> None:
    (scene.folder / "blocked").write_text("not a folder")
    with pytest.raises(LedgerError, match="cannot be written") as caught:
        index_vault(fake_settings(scene.folder / "blocked"), scene.vault, hooks=Hooks(engines=FakeEngines()))
    one_line(caught.value)


@pytest.mark.parametrize("notes", [60, 300], ids=["writer in a thread", "writer in a process"])
def test_an_index_that_is_removed_while_it_is_written_is_told(notes: int, tmp_path: Path) -> None:
    vault, settings = write_vault(tmp_path / "vault", notes, seed=5), fake_settings(tmp_path / "data")
    seen = 0

    def remove(_: Batch, vectors: Vectors) -> Vectors:
        nonlocal seen
        seen += 1
        if seen == 3:
            shutil.rmtree(settings.vault_dir(vault), ignore_errors=True)
        return vectors

    with pytest.raises(LedgerError, match="was removed or replaced while it was written") as caught:
        index_vault(settings, vault, hooks=Hooks(engines=FakeEngines(forward=remove, token_budget=256)))
    one_line(caught.value)
    index_vault(settings, vault, hooks=Hooks(engines=FakeEngines()))
    assert_whole(state_of(settings, vault))


# ── the ledger ────────────────────────────────────────────────────────────────────────────────────────────────────────


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def truncate_oddly(path: Path) -> None:
    os.truncate(path, path.stat().st_size * 3 // 4 + 77)


def no_database(path: Path) -> None:
    path.write_bytes(b"these are not the bytes of a database " * 200)


def no_header(path: Path) -> None:
    path.write_bytes(bytes(100) + path.read_bytes()[100:])


def no_root(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[100:4096] = random.Random(1).randbytes(3996)
    path.write_bytes(data)


def some_pages(path: Path) -> None:
    rng = random.Random(2)
    data = bytearray(path.read_bytes())
    for page in rng.sample(range(12, len(data) // 4096), 6):
        data[page * 4096 : page * 4096 + 4096] = rng.randbytes(4096)
    path.write_bytes(data)


def no_words(path: Path) -> None:
    db = sqlite3.connect(path)
    roots = [row[0] for row in db.execute("SELECT rootpage FROM sqlite_master WHERE name LIKE 'keywords_%'")]
    db.close()
    data = bytearray(path.read_bytes())
    for page in roots:
        data[(page - 1) * 4096 : page * 4096] = random.Random(page).randbytes(4096)
    path.write_bytes(data)


def no_tables(path: Path) -> None:
    path.unlink()
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE stranger(id)")
    db.execute("PRAGMA user_version = 1")
    db.close()


@pytest.mark.parametrize(
    "damage",
    [truncate, truncate_oddly, no_database, no_header, no_root, some_pages, no_words, no_tables],
    ids=lambda f: f.__name__,
)
def test_a_damaged_ledger_is_told_put_aside_and_made_anew(scene: Scene, damage: Callable[[Path], None]) -> None:
    damage(scene.ledger)
    scene.update()
    told = [line for line in map(told_by, (scene.index, scene.answers)) if line]
    assert told, "neither indexing nor searching noticed"
    assert all("python main.py rebuild" in line for line in told)
    lines: list[str] = []
    assert rebuild(scene.settings, scene.vault, lines.append) == 0
    assert "python main.py index" in lines[-1]
    embedded = scene.index()
    state = state_of(scene.settings, scene.vault)
    if damage in (some_pages, no_words, truncate_oddly):
        assert embedded < len({row[1] for row in state.chunks.values()}) - 20, (
            "no vector was taken from the damaged ledger"
        )
    scene.check()


def test_a_damaged_ledger_gives_the_vectors_of_both_its_models(tmp_path: Path) -> None:
    vault, settings = tmp_path / "vault", fake_settings(tmp_path / "data", embedding_model="auto")
    vault.mkdir()
    for i in range(60):
        text = "We read books in the library in winter." if i % 2 else "겨울에는 도서관에서 책을 읽고 편지를 쓴다."
        (vault / f"{i}.md").write_text(f"{text} {i}", encoding="utf-8")
    index_vault(settings, vault, hooks=Hooks(engines=FakeEngines()))
    ledger = current_index(settings, vault) / "ledger.sqlite3"
    db = sqlite3.connect(ledger)
    root = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_vectors_1'").fetchone()[0]
    assert db.execute("SELECT count(*) FROM models").fetchone() == (2,)
    db.close()
    data = bytearray(ledger.read_bytes())
    data[(root - 1) * 4096 : root * 4096] = random.Random(1).randbytes(4096)
    ledger.write_bytes(data)
    rebuild(settings, vault)
    engines = FakeEngines()
    index_vault(settings, vault, hooks=Hooks(engines=engines))
    assert engines.texts == []


@pytest.mark.parametrize("key", ["unread", "boilerplate"])
@pytest.mark.parametrize("junk", ['{"no', "[5]", "5", '{"lines": 5}'])
def test_a_fact_that_cannot_be_read_is_a_missing_one(scene: Scene, key: str, junk: str) -> None:
    db = sqlite3.connect(scene.ledger)
    db.execute("INSERT OR REPLACE INTO meta VALUES(?, ?)", (key, junk))
    db.commit()
    db.close()
    assert scene.answers()
    assert read_status(scene.settings, scene.vault).failed == []
    searcher = open_searcher(scene.settings, scene.vault)
    assert searcher.search("zzz", 3, "keyword").results == []
    searcher.close()
    assert scene.index() == 0
    scene.check()


def test_a_note_s_fields_that_cannot_be_read_are_damage(scene: Scene) -> None:
    db = sqlite3.connect(scene.ledger)
    db.execute("UPDATE notes SET tags = '[' WHERE id = (SELECT min(id) FROM notes)")
    db.commit()
    db.close()
    assert "python main.py rebuild" in told_by(scene.answers)
    lines: list[str] = []
    assert rebuild(scene.settings, scene.vault, lines.append) == 0
    assert "it lies aside" in lines[-2]
    assert scene.index() == 0
    scene.check()


def test_an_empty_file_in_place_of_the_ledger(scene: Scene) -> None:
    scene.ledger.write_bytes(b"")
    with pytest.raises(LedgerError, match="rebuild"):
        scene.answers()
    scene.index()
    scene.check()


def test_vectors_overwritten_within_their_rows_are_not_taken_over(scene: Scene) -> None:
    db = sqlite3.connect(scene.ledger)
    rows = db.execute("SELECT rowid, vector FROM vectors").fetchall()
    for number, blob in rows[::2]:
        db.execute("UPDATE vectors SET vector = ? WHERE rowid = ?", (blob[:200] + b"\x7f" * 64 + blob[264:], number))
    db.commit()
    db.close()
    no_donor = fake_settings(scene.data, chunk_tokens=65)
    engines = FakeEngines()
    index_vault(no_donor, scene.vault, hooks=Hooks(engines=engines))
    assert len(engines.texts) >= len(rows) // 2
    assert_whole(state_of(no_donor, scene.vault))


def test_rebuild_has_vectors_that_cannot_be_right_embedded_again(scene: Scene) -> None:
    db = sqlite3.connect(scene.ledger)
    db.execute("UPDATE vectors SET vector = zeroblob(1536) WHERE rowid IN (SELECT rowid FROM vectors LIMIT 5)")
    db.commit()
    db.close()
    lines: list[str] = []
    rebuild(scene.settings, scene.vault, lines.append)
    assert any("5 vectors" in line for line in lines)
    assert scene.index() == 5
    scene.check()


# ── Chroma ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def remove_folder(chroma: Path) -> None:
    shutil.rmtree(chroma)


def remove_database(chroma: Path) -> None:
    for part in chroma.glob("chroma.sqlite3*"):
        part.unlink()


def overwrite_database(chroma: Path) -> None:
    (chroma / "chroma.sqlite3").write_bytes(b"nothing that Chroma wrote" * 1000)


def truncate_database(chroma: Path) -> None:
    os.truncate(chroma / "chroma.sqlite3", 50_000)


def file_for_folder(chroma: Path) -> None:
    shutil.rmtree(chroma)
    chroma.write_text("a file")


def half_a_graph(chroma: Path) -> None:
    """What a kill leaves in the moment in which Chroma writes its graph."""
    graphs = list(chroma.glob("*/index_metadata.pickle"))
    assert graphs, "Chroma has written no graph yet"
    for path in graphs:
        path.write_bytes(b"")


def forget_rows(chroma: Path) -> None:
    db = sqlite3.connect(chroma / "chroma.sqlite3")
    db.execute("DELETE FROM embeddings WHERE id IN (SELECT id FROM embeddings LIMIT 9)")
    db.commit()
    db.close()


@pytest.mark.parametrize(
    "damage",
    [remove_folder, remove_database, overwrite_database, truncate_database, file_for_folder, half_a_graph, forget_rows],
    ids=lambda f: f.__name__,
)
def test_a_damaged_chroma_is_made_anew(scene: Scene, damage: Callable[[Path], None]) -> None:
    before = scene.answers()
    damage(scene.index_folder / "chroma")
    assert scene.answers() == before
    scene.update()
    scene.index()
    scene.check()


def test_a_chroma_that_stays_damaged_is_told(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise StoreDamaged("Chroma's folder is damaged; make it anew without a model: python main.py rebuild")

    scene.update()
    monkeypatch.setattr(ChromaStore, "sync", refuse)
    with pytest.raises(StoreDamaged, match=r"python main.py rebuild"):
        scene.index()
    monkeypatch.undo()
    rebuild(scene.settings, scene.vault)
    scene.index()
    scene.check()


# ── the engine ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_model_that_returns_nan_stops_the_run(scene: Scene) -> None:
    before = scene.answers()
    scene.update()
    with pytest.raises(EngineError, match="not finite") as caught:
        scene.index(FakeEngines(forward=lambda _, vectors: vectors * np.nan))
    one_line(caught.value)
    assert scene.answers() >= before // 2
    scene.index()
    scene.check()


def test_a_text_that_gives_nan_is_named_and_tried_again(scene: Scene) -> None:
    (scene.vault / "odd.md").write_text("the xylophone breaks the model", encoding="utf-8")

    def forward(batch: Batch, vectors: Vectors) -> Vectors:
        for row, item in zip(vectors, batch.items, strict=True):
            if "xylophone" in item.text:
                row[:] = np.nan
        return vectors

    report = index_vault(scene.settings, scene.vault, hooks=Hooks(engines=FakeEngines(forward=forward)))
    assert [path for path, _ in report.notes_failed] == ["odd.md"]
    assert "not finite" in report.notes_failed[0][1]
    assert report.notes_failed == read_status(scene.settings, scene.vault).failed
    assert scene.index() == 1
    scene.check()


def test_another_model_that_fails_for_most_texts_does_not_take_over(scene: Scene) -> None:
    answering = scene.index_folder

    def forward(batch: Batch, vectors: Vectors) -> Vectors:
        return vectors * np.nan if any(len(item.text) > 20 for item in batch.items) else vectors

    other = fake_settings(scene.data, chunk_tokens=96, fast_mode=True)
    with pytest.raises(EngineError, match=r"no usable vector for .* python main.py doctor"):
        index_vault(other, scene.vault, hooks=Hooks(engines=FakeEngines(forward=forward)))
    assert scene.index_folder == answering
    assert scene.answers()


def test_the_wrong_shape_stops_the_run(scene: Scene) -> None:
    scene.update()
    with pytest.raises(EngineError, match=r"shape .* expected .* doctor") as caught:
        scene.index(FakeEngines(forward=lambda _, vectors: vectors[:, :7]))
    one_line(caught.value)
    scene.index()
    scene.check()


@pytest.mark.parametrize("times", [1, 3])
def test_too_little_memory_now_and_then_only_halves_batches(times: int, scene: Scene) -> None:
    left = [times]

    def forward(_: Batch, vectors: Vectors) -> Vectors:
        if len(vectors) > 1 and left[0]:
            left[0] -= 1
            raise BatchTooLarge("no memory")
        return vectors

    scene.update()
    scene.index(FakeEngines(forward=forward))
    assert left == [0]
    scene.check()


def test_too_little_memory_for_one_text_stops_the_run(scene: Scene) -> None:
    def forward(batch: Batch, vectors: Vectors) -> Vectors:
        if any("compass" in item.text for item in batch.items):
            raise BatchTooLarge("no memory")
        return vectors

    scene.update()
    with pytest.raises(EngineError, match="does not fit into memory") as caught:
        scene.index(FakeEngines(forward=forward))
    one_line(caught.value)
    assert scene.answers()
    scene.index()
    scene.check()


# ── the vault ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def at_read(monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[NoteFile], None]) -> None:
    """Do something to the vault just before the `number`-th note is read."""
    real, count = reading.read_bytes, [0]

    def read(file: NoteFile) -> bytes:
        count[0] += 1
        if count[0] == number:
            act(file)
        return real(file)

    monkeypatch.setattr(reading, "read_bytes", read)


def test_a_note_that_vanishes_while_it_is_read_is_gone(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.update()
    at_read(monkeypatch, 3, lambda file: file.absolute.unlink())
    scene.index()
    scene.check()


def test_a_note_that_the_parser_stumbles_over_costs_only_itself(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.update()
    real = reading.parse_note

    def stumble(path: str, data: bytes) -> Note:
        if path == "Projects/note 001.md":
            raise IndexError("string index out of range")
        return real(path, data)

    (scene.vault / "Projects" / "note 001.md").write_text("basil, and what the parser stumbles over", encoding="utf-8")
    monkeypatch.setattr(reading, "parse_note", stumble)
    report = index_vault(scene.settings, scene.vault, hooks=Hooks(engines=FakeEngines()))
    ((path, reason),) = report.notes_failed
    assert path == "Projects/note 001.md"
    assert "IndexError: string index out of range" in reason
    monkeypatch.undo()
    scene.index()
    scene.check()


def test_a_note_that_changes_while_it_is_read_is_read_again(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.update()
    at_read(monkeypatch, 3, lambda file: file.absolute.write_text("changed under the reader's eyes", encoding="utf-8"))
    scene.index()
    monkeypatch.undo()
    scene.index()
    scene.check()


def test_a_note_that_cannot_be_read_keeps_what_the_index_has(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    before = scene.answers()

    def refuse(_: NoteFile) -> bytes:
        raise VaultError("cannot be read: input/output error")

    for path in scene.vault.rglob("*.md"):
        os.utime(path)
    monkeypatch.setattr(reading, "read_bytes", refuse)
    report = index_vault(scene.settings, scene.vault, hooks=Hooks(engines=FakeEngines()))
    assert len(report.notes_failed) == report.notes_total
    assert scene.answers() == before
    monkeypatch.undo()
    scene.index()
    scene.check()


@pytest.mark.parametrize("in_its_place", [None, "empty folder"])
def test_a_vault_unmounted_half_way(scene: Scene, monkeypatch: pytest.MonkeyPatch, in_its_place: str | None) -> None:
    for path in scene.vault.rglob("*.md"):
        path.write_text(path.read_text(encoding="utf-8") + f"\none line more for {path.stem}\n", encoding="utf-8")
    away = scene.folder / "away"

    def unmount(_: NoteFile) -> None:
        scene.vault.rename(away)
        if in_its_place:
            scene.vault.mkdir()

    before = scene.answers()
    at_read(monkeypatch, 6, unmount)
    with pytest.raises(VaultError, match="vanished while it was read") as caught:
        scene.index()
    one_line(caught.value)
    monkeypatch.undo()
    assert scene.answers() >= before
    with pytest.raises(VaultError):
        scene.index()
    if scene.vault.exists():
        scene.vault.rmdir()
    away.rename(scene.vault)
    scene.index()
    scene.check()


def test_an_empty_mount_point_is_not_an_empty_vault(scene: Scene) -> None:
    scene.vault.rename(scene.folder / "away")
    scene.vault.mkdir()
    before = scene.answers()
    with pytest.raises(VaultError, match="holds no notes") as caught:
        scene.index()
    one_line(caught.value)
    assert scene.answers() == before


def test_most_notes_gone_is_asked_about(scene: Scene) -> None:
    before = scene.answers()
    for path in sorted(scene.vault.rglob("*.md"))[:21]:
        path.unlink()
    with pytest.raises(VaultError, match=r"21 of 24 .* --accept-deletions") as caught:
        scene.index()
    one_line(caught.value)
    assert scene.answers() == before
    scene.index(accept_deletions=True)
    scene.check()


def test_notes_below_a_folder_that_cannot_be_listed_are_kept(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    before = scene.answers()
    real = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("Projects"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    report = index_vault(scene.settings, scene.vault, hooks=Hooks(engines=FakeEngines()))
    monkeypatch.undo()
    assert ("Projects", "permission denied") in report.notes_failed
    assert report.notes_total == report.notes_indexed + report.notes_unchanged + len(report.notes_failed)
    assert report.notes_deleted == 0
    assert scene.answers() == before
