"""The ledger's file: schema versions, migrations, queues whose ids are never used twice, and donors."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from fake_engine import FakeEngines, fake_settings
from made_vault import write_vault

from vaultvec import pipeline
from vaultvec.datatypes import Chunk, Note, NoteFile
from vaultvec.errors import LedgerDamaged, LedgerError
from vaultvec.ledger import Ledger, ModelRow, content_hash
from vaultvec.pipeline import Hooks, index_vault
from vaultvec.rebuild import rebuild
from vaultvec.sqlite import schema
from vaultvec.sqlite.donors import Donors

MODEL = ModelRow(1, "model-8", 8)


def note_of(path: str, *texts: str) -> tuple[NoteFile, Note, list[Chunk]]:
    """A note whose chunks are these texts."""
    ids = np.arange(4, dtype=np.int32)
    chunks = [Chunk(path, slot, "", text, 0, 1, ids) for slot, text in enumerate(texts)]
    return NoteFile(path, path, 1, 1, 1), Note(path, path, "", 1), chunks


def put(ledger: Ledger, path: str, *texts: str) -> int:
    file, note, chunks = note_of(path, *texts)
    return ledger.apply_note(file, b"d", note, chunks, [MODEL])


def unit(seed: int) -> np.ndarray:
    row = np.random.default_rng(seed).standard_normal(8).astype(np.float32)
    return row / np.linalg.norm(row)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.sqlite3") as made:
        assert made.register_model(MODEL.fingerprint, "model", 8) == MODEL.id
        yield made


def test_what_is_queued_after_the_queue_ran_empty_is_not_missed(ledger: Ledger) -> None:
    put(ledger, "a.md", "one", "two")
    taken = ledger.take_pending(MODEL.id, 0, 10)
    ledger.save_vectors(MODEL.id, [digest for _, digest, _ in taken], np.stack([unit(1), unit(2)]))
    put(ledger, "b.md", "three")
    after = ledger.take_pending(MODEL.id, taken[-1][0], 10)
    assert [item.text for _, _, item in after] == ["three"]


def test_chunks_are_drawn_from_all_that_are_there(ledger: Ledger) -> None:
    assert ledger.drawn_chunks(5) == []
    put(ledger, "a.md", *(f"text {i}" for i in range(40)))
    put(ledger, "b.md", "last")
    ledger.db.execute("DELETE FROM chunks WHERE id BETWEEN 5 AND 30")
    there = {row[0] for row in ledger.db.execute("SELECT id FROM chunks")}
    assert set(ledger.drawn_chunks(2000)) == there
    assert len(ledger.drawn_chunks(3)) <= 3


def test_a_row_queued_again_while_its_page_is_written_stays_queued(ledger: Ledger) -> None:
    put(ledger, "a.md", "one")
    ledger.save_vectors(MODEL.id, [content_hash("one")], unit(1)[None])
    page = ledger.take_outbox(MODEL.id, 10)
    put(ledger, "a.md", "two")
    ledger.clear_outbox([number for number, _ in page])
    assert [name for _, name in ledger.take_outbox(MODEL.id, 10)] == ["a.md#0000"]


def test_a_row_to_be_removed_stays_queued_when_all_are_written_again(ledger: Ledger) -> None:
    put(ledger, "a.md", "one")
    put(ledger, "b.md", "two")
    ledger.save_vectors(MODEL.id, [content_hash("one"), content_hash("two")], np.stack([unit(1), unit(2)]))
    ledger.clear_outbox([number for number, _ in ledger.take_outbox(MODEL.id, 10)])
    ledger.delete_notes(["b.md"])
    ledger.fill_outbox(MODEL.id)
    assert {name for _, name in ledger.take_outbox(MODEL.id, 10)} == {"a.md#0000", "b.md#0000"}


def test_texts_of_a_replaced_note_do_not_block_the_queue(ledger: Ledger) -> None:
    put(ledger, "a.md", "old one", "old two", "stays")
    put(ledger, "a.md", "stays")
    put(ledger, "b.md", "new")
    assert [item.text for _, _, item in ledger.take_pending(MODEL.id, 0, 2)] == ["stays", "new"]
    assert ledger.counts().pending == 2


def test_the_same_text_is_queued_once_and_serves_every_chunk(ledger: Ledger) -> None:
    assert put(ledger, "a.md", "same", "same") + put(ledger, "b.md", "same") == 1
    assert ledger.save_vectors(MODEL.id, [content_hash("same")], unit(1)[None]) == 3
    assert ledger.row_names(MODEL.id) == {"a.md#0000", "a.md#0001", "b.md#0000"}
    assert ledger.row_count(MODEL.id) == 3


def test_a_page_of_a_queue_costs_the_same_however_much_waits(ledger: Ledger) -> None:
    def steps(take: Callable[[], object]) -> int:
        """How much SQLite does, in hundreds of its instructions."""
        count = [0]
        ledger.db.set_progress_handler(lambda: count.__setitem__(0, count[0] + 1), 100)
        take()
        ledger.db.set_progress_handler(None, 0)
        return count[0]

    def save(texts: list[str]) -> None:
        ledger.save_vectors(MODEL.id, [content_hash(text) for text in texts], np.stack([unit(0)] * len(texts)))

    save(texts := [f"stored {n}" for n in range(40)])
    put(ledger, "c.md", *texts)
    few_stored = steps(lambda: ledger.row_vectors(MODEL.id, 8))
    save(texts := [f"stored too {n}" for n in range(4000)])
    put(ledger, "d.md", *texts)
    assert steps(lambda: ledger.row_vectors(MODEL.id, 8)) < few_stored + 10
    assert len(ledger.row_vectors(MODEL.id, 8)) == 8

    def page() -> tuple[int, int]:
        return steps(lambda: ledger.take_pending(MODEL.id, 0, 8)), steps(lambda: ledger.take_outbox(MODEL.id, 8))

    put(ledger, "a.md", *(f"text {n}" for n in range(20)))
    ledger.requeue(MODEL.id, (f"a.md#{n:04d}" for n in range(20)))
    few = page()
    put(ledger, "b.md", *(f"other text {n}" for n in range(4000)))
    ledger.requeue(MODEL.id, (f"b.md#{n:04d}" for n in range(4000)))
    many = page()
    assert max(many) < max(few) + 10
    other = ledger.register_model("other-model", "other", MODEL.dim)
    assert steps(lambda: ledger.has_pending(other)) <= 1  # whatever waits for the first one
    assert [ledger.has_pending(), ledger.has_pending(MODEL.id), ledger.has_pending(other)] == [True, True, False]


def test_what_is_deleted_waits_for_nothing(ledger: Ledger) -> None:
    put(ledger, "a.md", "one", "two", "stays")
    put(ledger, "b.md", "stays")
    for text in ("one", "two"):
        ledger.mark_failed(MODEL.id, content_hash(text), "the vector is zero")
    counts = ledger.counts()
    assert (counts.notes, counts.chunks, counts.embedded, counts.pending, counts.failed) == (2, 4, 0, 3, 2)
    assert ledger.failures() == [("a.md", "the vector is zero")]
    ledger.delete_notes(["a.md"])
    assert (ledger.counts().pending, ledger.counts().failed, ledger.failures()) == (1, 0, [])
    ledger.save_vectors(MODEL.id, [content_hash("stays")], unit(1)[None])
    assert ledger.counts().embedded == 1
    assert not ledger.has_pending()


def test_two_models_keep_their_texts_and_rows_apart(ledger: Ledger) -> None:
    second = ModelRow(ledger.register_model("second-8", "second", 8), "second-8", 8, lambda text: "english" in text)
    file, note, chunks = note_of("a.md", "english", "한국어")
    ledger.apply_note(file, b"d", note, chunks, [MODEL, second])
    assert (ledger.pending_size(MODEL.id), ledger.pending_size(second.id)) == (2, 1)
    assert [item.text for _, _, item in ledger.take_pending(second.id, 0, 10)] == ["english"]
    ledger.mark_failed(second.id, content_hash("english"), "not finite")
    assert ledger.counts().failed == 1
    ledger.save_vectors(MODEL.id, [content_hash("english"), content_hash("한국어")], np.stack([unit(1), unit(2)]))
    assert (ledger.pending_size(MODEL.id), ledger.pending_size(second.id)) == (0, 1)
    ledger.save_vectors(second.id, [content_hash("english")], unit(3)[None])
    assert (ledger.row_count(MODEL.id), ledger.row_count(second.id)) == (2, 1)
    assert ledger.row_vectors(second.id, 9) == [unit(3).tobytes()]
    for model, left in ((second.id, 2), (MODEL.id, 0)):
        ledger.clear_outbox([number for number, _ in ledger.take_outbox(model, 10)])
        assert ledger.outbox_size() == left
    ledger.fill_outbox(second.id)
    assert (ledger.outbox_size(MODEL.id), ledger.outbox_size(second.id)) == (0, 1)


def test_a_text_that_is_new_to_either_model_is_a_new_one(ledger: Ledger) -> None:
    """Each knows what the other does not: none of the two is one that was there."""
    second = ModelRow(ledger.register_model("second-8", "second", 8), "second-8", 8)
    ledger.save_vectors(MODEL.id, [content_hash("one")], unit(1)[None])
    ledger.save_vectors(second.id, [content_hash("two")], unit(2)[None])
    file, note, chunks = note_of("a.md", "one", "two", "two")
    assert ledger.apply_note(file, b"d", note, chunks, [MODEL, second]) == 2
    assert ledger.apply_note(*(file, b"e", note, chunks, [MODEL, second])) == 0, "they wait already"


def test_a_note_to_be_read_again_is_not_taken_for_unchanged(ledger: Ledger) -> None:
    put(ledger, "a.md", "one")
    put(ledger, "b.md", "two")
    file = note_of("a.md")[0]
    assert ledger.notes()["a.md"].unchanged(file)
    ledger.read_again(["a.md"])
    assert not ledger.notes()["a.md"].unchanged(file)
    assert ledger.notes()["a.md"].digest == b""
    ledger.save_vectors(MODEL.id, [content_hash("two")], unit(2)[None] * 2)
    assert ledger.drop_damaged_vectors() == 1
    assert not ledger.notes()["b.md"].unchanged(note_of("b.md")[0])
    assert ledger.notes()["b.md"].digest == b""


def test_vectors_that_no_chunk_uses_go_once_they_outnumber_the_others(ledger: Ledger) -> None:
    def save(texts: list[str]) -> None:
        put(ledger, "a.md", *texts)
        ledger.save_vectors(MODEL.id, list(map(content_hash, texts)), np.stack([unit(1)] * len(texts)))

    save([f"old {n}" for n in range(999)])
    save(["stays"])
    assert ledger.compact() == 0  # so few are kept for notes that come back
    save([f"older {n}" for n in range(10)])
    save(["stays"])
    assert ledger.compact() == 1009
    assert ledger.db.execute("SELECT hash FROM vectors").fetchall() == [(content_hash("stays"),)]
    assert ledger.row_count(MODEL.id) == 1


def test_the_keyword_index_holds_what_each_note_is_called(ledger: Ledger) -> None:
    ids = np.zeros(1, np.int32)
    aliases = tuple(f"alias{n}" for n in range(500))
    for path, title in (("harbour.md", "Lighthouse"), ("kettle.md", "kettle")):
        chunks = [Chunk(path, slot, "Part", f"{title} > Part\nwords", len(title) + 8, 1, ids) for slot in (0, 1)]
        note = Note(path, title, "", 1, ("sea",), aliases)
        ledger.apply_note(NoteFile(path, path, 1, 1, 1), b"d", note, chunks, [])
    rows = ledger.db.execute("SELECT title, heading, tags, body FROM keywords ORDER BY rowid").fetchall()
    assert [(title, heading, body) for title, heading, _, body in rows] == [("lighthouse", "part", "words")] * 2 + [
        ("kettle", "part", "words")
    ] * 2
    assert [called.startswith("sea alias0 ") for _, _, called, _ in rows] == [True] * 4
    assert [called.endswith("alias499 harbour") for _, _, called, _ in rows] == [True, False, False, False]
    assert [called.endswith("alias499") for _, _, called, _ in rows] == [False, False, True, False]
    ledger.rebuild_keywords()
    assert ledger.db.execute("SELECT title, heading, tags, body FROM keywords ORDER BY rowid").fetchall() == rows


def test_a_failed_transaction_leaves_nothing(ledger: Ledger) -> None:
    put(ledger, "a.md", "one")

    def fail() -> None:
        with ledger.transaction():
            ledger.delete_notes(["a.md"])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(ledger.notes()) == ["a.md"]
    assert ledger.keyword_differences() == (0, 0)


def test_what_fails_half_way_changes_nothing(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    def rows() -> list[list[tuple[object, ...]]]:
        tables = ("notes", "chunks", "keywords", "vectors", "pending", "outbox")
        return [ledger.db.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall() for table in tables]

    def fail(*_: object) -> None:
        raise RuntimeError

    put(ledger, "a.md", "one", "two")
    ledger.save_vectors(MODEL.id, [content_hash("one")], unit(1)[None])
    before = rows()
    monkeypatch.setattr(ledger, "_to_outbox", fail)
    for change in (
        lambda: put(ledger, "a.md", "one", "three"),
        lambda: ledger.delete_notes(["a.md"]),
        lambda: ledger.save_vectors(MODEL.id, [content_hash("two")], unit(2)[None]),
    ):
        with pytest.raises(RuntimeError):
            change()
        assert rows() == before


# ── versions ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_newer_schema_says_so_and_rebuild_puts_it_aside(tmp_path: Path) -> None:
    vault, settings = write_vault(tmp_path / "vault", 4, 1), fake_settings(tmp_path / "data")
    index_vault(settings, vault, hooks=Hooks(engines=FakeEngines()))
    path = next(tmp_path.glob("data/vaults/*/*/ledger.sqlite3"))
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {schema.SCHEMA_VERSION + 1}")
    db.close()
    for readonly in (True, False):
        with pytest.raises(LedgerError, match=r"newer version .* rebuild"):
            Ledger(path, readonly=readonly)
    rebuild(settings, vault)
    assert path.with_name("ledger-aside-1.sqlite3").is_file()
    engines = FakeEngines()
    index_vault(settings, vault, hooks=Hooks(engines=engines))
    assert engines.texts == [], "the vectors of the ledger put aside were not taken over"


def test_an_older_schema_migrates_when_written_and_says_so_when_only_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ledger.sqlite3"
    with Ledger(path) as old:
        old.register_model(MODEL.fingerprint, "model", 8)
        put(old, "a.md", "one")
    version = schema.SCHEMA_VERSION
    monkeypatch.setattr(schema, "SCHEMA_VERSION", version + 2)
    steps = {
        version: ("ALTER TABLE notes ADD COLUMN language TEXT",),
        version + 1: ("UPDATE notes SET language = 'en'",),
    }
    monkeypatch.setattr(schema, "MIGRATIONS", steps)
    with pytest.raises(LedgerError, match=r"older version .* python main.py index"):
        Ledger(path, readonly=True)
    with Ledger(path) as migrated:
        assert migrated.db.execute("SELECT path, language FROM notes").fetchall() == [("a.md", "en")]
        assert migrated.db.execute("PRAGMA user_version").fetchone()[0] == version + 2
    with Ledger(path, readonly=True) as read:
        assert list(read.notes()) == ["a.md"]


def test_a_migration_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ledger.sqlite3"
    Ledger(path).close()
    version = schema.SCHEMA_VERSION
    monkeypatch.setattr(schema, "SCHEMA_VERSION", version + 2)
    monkeypatch.setattr(schema, "MIGRATIONS", {version: ("ALTER TABLE notes ADD COLUMN language TEXT",)})
    with pytest.raises(LedgerError, match=r"no way to .* rebuild"):
        Ledger(path)
    monkeypatch.undo()
    with Ledger(path) as same:
        assert "language" not in [row[1] for row in same.db.execute("PRAGMA table_info(notes)")]


@pytest.mark.parametrize("key", ["reader_version", "chunker_version"])
def test_notes_of_an_older_reader_or_chunker_are_read_again(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault, settings = write_vault(tmp_path / "vault", 6, 1), fake_settings(tmp_path / "data")
    index_vault(settings, vault, hooks=Hooks(engines=FakeEngines()))
    monkeypatch.setattr(pipeline, "VERSIONS", {**pipeline.VERSIONS, key: "next"})
    engines = FakeEngines()
    limited = index_vault(settings, vault, limit=2, hooks=Hooks(engines=engines))
    assert limited.notes_indexed == 2
    again = index_vault(settings, vault, hooks=Hooks(engines=engines))
    assert again.notes_indexed == 4, "the others were read by the limited run"
    assert engines.texts == [], "equal texts keep their vectors"
    assert index_vault(settings, vault, hooks=Hooks(engines=engines)).notes_indexed == 0


def test_no_ledger_at_all_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE stranger(id)")
    db.close()
    with pytest.raises(LedgerDamaged, match="rebuild"):
        Ledger(path)


# ── donors ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_donor_gives_vectors_of_the_same_model_only(ledger: Ledger, tmp_path: Path) -> None:
    put(ledger, "a.md", "one", "two")
    ledger.save_vectors(MODEL.id, [content_hash("one")], unit(1)[None])
    ledger.close()
    with Ledger(tmp_path / "other.sqlite3") as other:
        number = other.register_model(MODEL.fingerprint, "model", 8)
        other.adopt([tmp_path / "ledger.sqlite3", tmp_path / "missing.sqlite3"])
        file, note, chunks = note_of("b.md", "one", "two")
        assert other.apply_note(file, b"d", note, chunks, [ModelRow(number, MODEL.fingerprint, 8)]) == 1
        assert other.apply_note(file, b"d", note, chunks, [ModelRow(9, "another", 8)]) == 2


def test_a_donor_full_of_holes_gives_what_is_left(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    texts = [f"text {i}" for i in range(400)]
    with Ledger(path) as made:
        made.register_model(MODEL.fingerprint, "model", 8)
        put(made, "a.md", *texts)
        made.save_vectors(MODEL.id, list(map(content_hash, texts)), np.stack([unit(i) for i in range(400)]))
    data = bytearray(path.read_bytes())
    with closing(sqlite3.connect(path)) as db:
        index = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_vectors_1'").fetchone()[0]
    data[(index - 1) * 4096 : index * 4096] = b"\xff" * 4096
    path.write_bytes(data)
    donors = Donors([path])
    found = donors.vectors(MODEL.fingerprint, 8, list(map(content_hash, texts)))
    donors.close()
    assert len(found) == 400
    np.testing.assert_array_equal(np.frombuffer(found[content_hash("text 7")], np.float32), unit(7))


def test_a_model_that_was_moved_is_known_by_its_new_place(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite3") as ledger:
        number = ledger.register_model("folder-4-x", "/a/bert", 4)
        assert ledger.register_model("folder-4-x", "/b/bert", 4) == number
        assert [row[2] for row in ledger.models()] == ["/b/bert"]
