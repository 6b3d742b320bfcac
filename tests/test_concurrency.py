"""Two at once: one writer, any number of readers, and no reader ever sees half a note."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path

import pytest
from fake_engine import FakeEngines, fake_settings
from index_state import assert_whole, state_of

import main
from vaultvec.datatypes import Batch, Vectors
from vaultvec.errors import LedgerError, LockedError
from vaultvec.index import current_index, writer_lock
from vaultvec.pipeline import Hooks, index_vault
from vaultvec.session import open_searcher
from vaultvec.settings import Settings

NOTES, SECTIONS, VERSIONS = 12, 4, 5


def write_version(vault: Path, version: int) -> None:
    """Every note in one version: each of its sections says which."""
    vault.mkdir(exist_ok=True)
    for number in range(NOTES):
        sections = [
            f"## Part {i}\n\nbasil version{version} note{number} part{i} " + "filler words " * 30
            for i in range(SECTIONS)
        ]
        (vault / f"note {number}.md").write_text("\n\n".join(sections), encoding="utf-8")


def versions_seen(settings: Settings, vault: Path) -> dict[str, set[str]]:
    """Path → the versions that one search shows of it."""
    searcher = open_searcher(settings, vault)
    try:
        found: dict[str, set[str]] = {}
        for row in searcher.search("basil", 500, "keyword", per_note=False).results:
            found.setdefault(row.path, set()).update(re.findall(r"version\d+", row.text))
        return found
    finally:
        searcher.close()


def test_readers_search_during_an_index_and_see_whole_notes_only(tmp_path: Path) -> None:
    vault, settings = tmp_path / "vault", fake_settings(tmp_path / "data")
    write_version(vault, 0)
    index_vault(settings, vault, hooks=Hooks(engines=FakeEngines()))
    stop, seen, errors = threading.Event(), [0], []

    def read() -> None:
        while not stop.is_set():
            try:
                found = versions_seen(settings, vault)
                assert len(found) == NOTES
                assert all(len(versions) == 1 for versions in found.values()), found
                seen[0] += 1
            except BaseException as error:
                errors.append(error)
                return

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for version in range(1, VERSIONS):
        write_version(vault, version)
        index_vault(settings, vault, hooks=Hooks(engines=FakeEngines(delay=0.002)))
    stop.set()
    for reader in readers:
        reader.join()
    assert not errors
    assert seen[0] > VERSIONS
    assert_whole(state_of(settings, vault))


def test_one_search_is_one_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that finishes in the middle of a search does not show in that search."""
    vault, settings = tmp_path / "vault", fake_settings(tmp_path / "data")
    write_version(vault, 0)
    index_vault(settings, vault, hooks=Hooks(engines=FakeEngines()))
    searcher = open_searcher(settings, vault)
    real = type(searcher)._refresh

    def refresh(self: object) -> None:
        real(self)  # type: ignore[arg-type]
        if not done:
            done.append(True)
            write_version(vault, 1)
            index_vault(settings, vault, hooks=Hooks(engines=FakeEngines()))

    done: list[bool] = []
    monkeypatch.setattr(type(searcher), "_refresh", refresh)
    rows = searcher.search("basil", 500, "keyword", per_note=False).results
    assert done
    assert {word for row in rows for word in re.findall(r"version\d+", row.text)} == {"version0"}
    time.sleep(0.1)
    rows = searcher.search("basil", 500, "keyword", per_note=False).results
    searcher.close()
    assert {word for row in rows for word in re.findall(r"version\d+", row.text)} == {"version1"}


def test_search_works_from_the_first_second(tmp_path: Path) -> None:
    """While the model is still at its first batch, words are found already."""
    vault, settings = tmp_path / "vault", fake_settings(tmp_path / "data")
    write_version(vault, 0)
    found: list[int] = []

    def forward(_: Batch, vectors: Vectors) -> Vectors:
        deadline = time.monotonic() + 10
        while not found or (found[-1] < NOTES and time.monotonic() < deadline):
            found.append(len(versions_seen(settings, vault)))
        return vectors

    index_vault(settings, vault, hooks=Hooks(engines=FakeEngines(forward=forward)))
    assert found[-1] == NOTES


def test_a_second_writer_gets_one_line_and_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    vault = tmp_path / "vault"
    write_version(vault, 0)
    settings = fake_settings(tmp_path / "data")
    monkeypatch.setenv("VAULTVEC_DATA", str(tmp_path / "data"))
    with writer_lock(settings.vault_dir(vault)):
        with pytest.raises(LockedError):
            index_vault(settings, vault, hooks=Hooks(engines=FakeEngines()))
        code = []
        thread = threading.Thread(target=lambda: code.append(main.guarded(lambda: _index(settings, vault))))
        thread.start()
        thread.join()
    assert code == [1]
    out, err = capfd.readouterr()
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert "another process is indexing" in err
    assert _index(settings, vault) == 0


def _index(settings: Settings, vault: Path) -> int:
    index_vault(settings, vault, hooks=Hooks(engines=FakeEngines()))
    return 0


def test_another_chunk_size_answers_only_once_it_is_whole(tmp_path: Path) -> None:
    vault = tmp_path / "vault"
    write_version(vault, 0)
    first, second = fake_settings(tmp_path / "data"), fake_settings(tmp_path / "data", chunk_tokens=100)
    index_vault(first, vault, hooks=Hooks(engines=FakeEngines()))
    answering = current_index(first, vault)

    def fail(batch: Batch, vectors: Vectors) -> Vectors:
        if any("note7" in item.text for item in batch.items):
            raise LedgerError("stopped half-way")
        return vectors

    with pytest.raises(LedgerError):
        index_vault(second, vault, hooks=Hooks(engines=FakeEngines(forward=fail)))
    assert current_index(second, vault) == answering
    index_vault(second, vault, limit=3, hooks=Hooks(engines=FakeEngines()))
    assert current_index(second, vault) == answering, "an index of the three newest notes took over"
    index_vault(second, vault, hooks=Hooks(engines=FakeEngines()))
    assert current_index(second, vault) != answering
    assert_whole(state_of(second, vault))
    assert (answering / "ledger.sqlite3").is_file()
    index_vault(first, vault, hooks=Hooks(engines=FakeEngines()))
    assert current_index(first, vault) == answering
