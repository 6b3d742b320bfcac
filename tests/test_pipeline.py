"""The whole line with a fake engine: what is read, embedded, stored, told; the limits and the reports."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from fake_engine import FakeEngines, fake_settings
from index_state import assert_same, assert_whole, state_of
from made_vault import SHARED, update_vault, write_vault

from vaultvec.datatypes import Batch, NoteFile, Vectors
from vaultvec.errors import EngineError, VaultError
from vaultvec.index import current_index
from vaultvec.ledger import Ledger
from vaultvec.measure.sampling import sample_chunks
from vaultvec.memory import peak_rss_mb
from vaultvec.pipeline import Hooks, find_changes, index_vault
from vaultvec.stages.changes import forbid_mass_deletion
from vaultvec.stages.embedding import Progress
from vaultvec.stages.reading import RACY_NS, settled
from vaultvec.status import read_status
from vaultvec.store import ChromaStore


def test_a_first_run_embeds_each_text_once_and_a_second_nothing(tmp_path: Path) -> None:
    vault, settings = write_vault(tmp_path / "vault", 12, 1), fake_settings(tmp_path / "data")
    engines = FakeEngines()
    report = index_vault(settings, vault, hooks=Hooks(engines=engines))
    state = state_of(settings, vault)
    assert_whole(state)
    assert sorted(engines.texts) == sorted({row[1] for row in state.chunks.values()})
    assert (report.notes_total, report.notes_indexed, report.chunks_total) == (12, 12, len(state.chunks))
    assert report.chunks_embedded + report.chunks_reused == report.chunks_total
    assert report.verified.startswith("8 vectors recomputed, lowest cosine 1.0000")
    again = index_vault(settings, vault, hooks=Hooks(engines=engines))
    assert (again.chunks_embedded, again.notes_indexed, again.notes_unchanged) == (0, 0, 12)
    assert_same(state_of(settings, vault), state)


def test_what_a_limited_run_could_not_read_is_told_later_too(tmp_path: Path) -> None:
    vault, settings = write_vault(tmp_path / "vault", 6, 1), fake_settings(tmp_path / "data")
    for name, age in (("newest.md", 0), ("oldest.md", 10**6)):
        (vault / name).write_bytes(bytes(range(256)))
        os.utime(vault / name, (time.time() - age,) * 2)
    for limit, failed in ((2, ["newest.md"]), (None, ["newest.md", "oldest.md"]), (1, ["newest.md", "oldest.md"])):
        index_vault(settings, vault, limit=limit, hooks=Hooks(engines=FakeEngines()))
        assert sorted(path for path, _ in read_status(settings, vault).failed) == failed
    (vault / "newest.md").write_text("a text again", encoding="utf-8")
    index_vault(settings, vault, limit=1, hooks=Hooks(engines=FakeEngines()))
    assert [path for path, _ in read_status(settings, vault).failed] == ["oldest.md"]


@pytest.mark.parametrize("workers", [0, 2])
def test_processes_read_the_same_as_one_thread(workers: int, tmp_path: Path) -> None:
    vault = write_vault(tmp_path / "vault", 40, 2)
    plain, pooled = fake_settings(tmp_path / "a"), fake_settings(tmp_path / "b", workers=workers)
    index_vault(plain, vault, hooks=Hooks(engines=FakeEngines()))
    report = index_vault(pooled, vault, hooks=Hooks(engines=FakeEngines()))
    assert_same(state_of(pooled, vault), state_of(plain, vault))
    assert (report.peak_rss_mb > peak_rss_mb() + 20) == (workers > 0)  # the processes count too


def test_batch_size_window_and_fast_mode_change_nothing_in_the_index(tmp_path: Path) -> None:
    vault = write_vault(tmp_path / "vault", 12, 3)
    plain = fake_settings(tmp_path / "a")
    odd = fake_settings(tmp_path / "b", batch_size=1, fast_mode=True)
    index_vault(plain, vault, hooks=Hooks(engines=FakeEngines()))
    report = index_vault(odd, vault, hooks=Hooks(engines=FakeEngines(token_budget=64, window=1)))
    assert report.verified == ""
    assert_same(state_of(odd, vault), state_of(plain, vault))


def test_the_newest_notes_come_first_and_limit_takes_only_those(tmp_path: Path) -> None:
    vault, settings = tmp_path / "vault", fake_settings(tmp_path / "data")
    vault.mkdir()
    import os

    for number in range(6):
        path = vault / f"{number}.md"
        path.write_text(f"note {number}")
        os.utime(path, (1_000_000 + number, 1_000_000 + number))
    report = index_vault(settings, vault, limit=2, hooks=Hooks(engines=FakeEngines()))
    assert sorted(state_of(settings, vault).notes) == ["4.md", "5.md"]
    assert report.notes_indexed == 2
    index_vault(settings, vault, hooks=Hooks(engines=FakeEngines()))
    assert len(state_of(settings, vault).notes) == 6


def test_a_new_index_does_not_answer_before_it_holds_every_note(tmp_path: Path) -> None:
    vault, settings = write_vault(tmp_path / "vault", 6, 1), fake_settings(tmp_path / "data")
    index_vault(settings, vault, hooks=Hooks(engines=FakeEngines()))
    whole = current_index(settings, vault)
    other = fake_settings(tmp_path / "data", chunk_tokens=48)
    index_vault(other, vault, limit=2, hooks=Hooks(engines=FakeEngines()))
    assert current_index(settings, vault) == whole
    index_vault(other, vault, hooks=Hooks(engines=FakeEngines()))
    assert current_index(settings, vault) != whole


def test_notes_that_moved_cost_nothing_after_a_limited_run_either(tmp_path: Path) -> None:
    vault, settings = tmp_path / "vault", fake_settings(tmp_path / "data")
    (vault / "old").mkdir(parents=True)
    sentence = "the harbour lies behind the granite and every lantern there is copper, it says here"
    (vault / "old" / "long.md").write_text("".join(f"## Part {n}\n\n{sentence} {n}\n\n" for n in range(1100)))
    index_vault(settings, vault, hooks=Hooks(engines=FakeEngines()))
    (vault / "old").rename(vault / "new")
    (vault / "newest.md").write_text("one more note")
    index_vault(settings, vault, limit=1, hooks=Hooks(engines=FakeEngines()))
    assert list(state_of(settings, vault).notes) == ["newest.md"]
    engines = FakeEngines()
    index_vault(settings, vault, hooks=Hooks(engines=engines))
    assert engines.texts == []
    assert len(state_of(settings, vault).chunks) > 1000


def test_another_vault_with_the_same_texts_embeds_nothing(tmp_path: Path) -> None:
    settings = fake_settings(tmp_path / "data")
    first, second = write_vault(tmp_path / "one", 8, 4), write_vault(tmp_path / "two", 8, 4)
    index_vault(settings, first, hooks=Hooks(engines=FakeEngines()))
    engines = FakeEngines()
    index_vault(settings, second, hooks=Hooks(engines=engines))
    assert engines.texts == []
    assert_whole(state_of(settings, second))


def test_full_reads_every_note_again_and_embeds_nothing_twice(tmp_path: Path) -> None:
    vault, settings = write_vault(tmp_path / "vault", 8, 5), fake_settings(tmp_path / "data")
    index_vault(settings, vault, hooks=Hooks(engines=FakeEngines()))
    engines = FakeEngines()
    report = index_vault(settings, vault, full=True, hooks=Hooks(engines=engines))
    assert report.notes_indexed == 8
    assert engines.texts == []


def test_full_agrees_with_a_fresh_index_when_a_line_became_boilerplate(tmp_path: Path) -> None:
    vault, settings = write_vault(tmp_path / "vault", 60, 6), fake_settings(tmp_path / "data")
    index_vault(settings, vault, hooks=Hooks(engines=FakeEngines()))
    for path in vault.rglob("*.md"):
        path.write_text(path.read_text(encoding="utf-8") + f"\n{SHARED}\n\nEdit this page.\n", encoding="utf-8")
    index_vault(settings, vault, hooks=Hooks(engines=FakeEngines()))
    index_vault(settings, vault, full=True, hooks=Hooks(engines=FakeEngines()))
    fresh = fake_settings(tmp_path / "fresh")
    index_vault(fresh, vault, hooks=Hooks(engines=FakeEngines()))
    assert_same(state_of(settings, vault), state_of(fresh, vault))
    assert not any(SHARED in row[1] for row in state_of(fresh, vault).chunks.values())


def test_ctrl_c_keeps_what_was_done(tmp_path: Path) -> None:
    vault, settings = write_vault(tmp_path / "vault", 12, 7), fake_settings(tmp_path / "data")
    calls = [0]

    def forward(_: Batch, vectors: Vectors) -> Vectors:
        calls[0] += 1
        if calls[0] == 6:
            raise KeyboardInterrupt
        return vectors

    first, second = FakeEngines(token_budget=256, window=16, forward=forward), FakeEngines()
    with pytest.raises(KeyboardInterrupt):
        index_vault(settings, vault, hooks=Hooks(engines=first))
    index_vault(settings, vault, hooks=Hooks(engines=second))
    assert_whole(state_of(settings, vault))
    assert set(first.texts) & set(second.texts) <= set(first.batches[-1])


def test_stored_vectors_that_are_not_the_models_are_noticed(tmp_path: Path) -> None:
    vault, settings = write_vault(tmp_path / "vault", 6, 8), fake_settings(tmp_path / "data")
    index_vault(settings, vault, hooks=Hooks(engines=FakeEngines(forward=lambda _, v: v[:, ::-1].copy())))
    update_vault(vault, 1)
    with pytest.raises(EngineError, match=r"differ from the model's .* doctor"):
        index_vault(settings, vault, hooks=Hooks(engines=FakeEngines()))


def test_an_empty_vault_stops_with_a_line(tmp_path: Path) -> None:
    (tmp_path / "vault").mkdir()
    with pytest.raises(VaultError, match="holds no notes"):
        index_vault(fake_settings(tmp_path / "data"), tmp_path / "vault", hooks=Hooks(engines=FakeEngines()))


def test_progress_and_sample(tmp_path: Path) -> None:
    vault, settings = write_vault(tmp_path / "vault", 8, 9), fake_settings(tmp_path / "data")
    moments = []
    report = index_vault(settings, vault, hooks=Hooks(progress=moments.append, engines=FakeEngines(window=8)))
    assert moments[-1].texts_done == moments[-1].texts_total == report.chunks_embedded
    assert [m.texts_done for m in moments] == sorted(m.texts_done for m in moments)
    assert sample_chunks(settings, vault, 5, 1) == sample_chunks(settings, vault, 5, 1)


def file_of(path: str, mtime: int = 1, ctime: int = 1) -> NoteFile:
    return NoteFile(path, path, 1, mtime, ctime)


def test_notes_below_an_unreadable_folder_are_not_gone() -> None:
    stored = dict.fromkeys(["a/x.md", "ab/y.md", "z.md"])
    for unreadable, gone in (
        (("a", "?"), ("ab/y.md", "z.md")),
        ((".", "?"), ()),
        (("z.md", "?"), ("a/x.md", "ab/y.md")),
    ):
        assert find_changes([], [unreadable], stored, False, None).gone == gone  # type: ignore[arg-type]


def test_how_many_notes_may_be_gone_before_it_is_asked_about(tmp_path: Path) -> None:
    gone = [f"{number}.md" for number in range(20)]
    forbid_mass_deletion(25, gone[:19], 0, tmp_path)  # few
    forbid_mass_deletion(40, gone, 0, tmp_path)  # half
    forbid_mass_deletion(25, gone, 1, tmp_path)  # as many that only moved
    with pytest.raises(VaultError, match="20 of 39 indexed notes are gone"):
        forbid_mass_deletion(39, gone, 0, tmp_path)
    (tmp_path / gone[0]).touch()  # excluded, but there
    forbid_mass_deletion(39, gone, 0, tmp_path)


def test_a_file_that_changed_just_now_is_looked_at_again() -> None:
    now = time.time_ns()
    fresh, old = file_of("a", ctime=now - RACY_NS // 2), file_of("a", ctime=now - 2 * RACY_NS)
    assert settled(fresh, now) == replace(fresh, ctime_ns=0)
    assert settled(old, now) == old


def test_a_note_indexed_right_after_it_was_written_is_not_stale(tmp_path: Path) -> None:
    vault, settings = tmp_path / "vault", fake_settings(tmp_path / "data")
    vault.mkdir()
    (vault / "a.md").write_text("written just now", encoding="utf-8")
    index_vault(settings, vault, hooks=Hooks(engines=FakeEngines()))
    assert read_status(settings, vault).stale_notes == 0
    (vault / "a.md").write_text("rewritten a moment later", encoding="utf-8")
    assert read_status(settings, vault).stale_notes == 1


def test_the_rows_that_chroma_still_takes_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = ChromaStore.sync

    def slow(
        store: ChromaStore, ledger: Ledger, model: int, batch_size: int, stop: threading.Event | None = None
    ) -> int:
        if not shown[-1].rows_waiting:
            time.sleep(0.3)
        return sync(store, ledger, model, batch_size, stop)

    shown: list[Progress] = []
    monkeypatch.setattr(ChromaStore, "sync", slow)
    vault = write_vault(tmp_path / "vault", 12, 1)
    index_vault(
        fake_settings(tmp_path / "data", batch_size=1000), vault,
        hooks=Hooks(progress=shown.append, engines=FakeEngines()),
    )  # fmt: skip
    waiting = [moment for moment in shown if moment.rows_waiting]
    assert waiting
    assert all(moment.texts_done == moment.texts_total for moment in waiting)
