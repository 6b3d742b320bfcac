"""Boilerplate: lines of a template are left out of chunks, a note's own text never."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_engine import FakeEngines, fake_settings

from vaultvec import boilerplate
from vaultvec.boilerplate import LEAST_NOTES, find_boilerplate, repeated_lines
from vaultvec.datatypes import NoteFile
from vaultvec.ledger import Ledger
from vaultvec.pipeline import Hooks, index_vault

FOOTER = "Edit in GitHub | Copy this note"


def bodies(n: int) -> list[str]:
    return [f"About thing {i}, at some length and in its own words\n\n{FOOTER}\n```" for i in range(n)]


def test_lines_of_many_notes() -> None:
    assert repeated_lines(bodies(LEAST_NOTES)) == {FOOTER}
    assert repeated_lines(bodies(LEAST_NOTES - 1)) == frozenset()
    others = [f"{i} alone" for i in range(9 * LEAST_NOTES + 1)]
    assert repeated_lines(bodies(LEAST_NOTES) + others) == frozenset()  # below a tenth of the notes
    chorus = ["sing along\n" * LEAST_NOTES, *(f"{i} alone, and longer than a song" for i in range(LEAST_NOTES))]
    assert repeated_lines(chorus) == frozenset()  # of one note


def test_the_order_of_the_files_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boilerplate, "SAMPLE_NOTES", LEAST_NOTES)
    files = []
    for i, body in enumerate(bodies(LEAST_NOTES)):
        for name, text in ((f"{i:03d} a.md", body), (f"{i:03d} b.md", f"{i} alone")):
            (tmp_path / name).write_text(text, encoding="utf-8")
            files.append(NoteFile(name, str(tmp_path / name), 1, 1, 1))
    assert find_boilerplate(files) == find_boilerplate(files[1:] + files[:1]) == {FOOTER}


def test_a_vault_of_copies_has_no_boilerplate() -> None:
    assert repeated_lines([f"the same long text everywhere\n{i}" for i in range(100)]) == frozenset()


def test_boilerplate_is_not_indexed_and_kept_with_the_index(tmp_path: Path) -> None:
    vault, engines, said = tmp_path / "vault", FakeEngines(), list[str]()
    vault.mkdir()
    for i, body in enumerate(bodies(LEAST_NOTES)):
        (vault / f"{i}.md").write_text(body, encoding="utf-8")
    (vault / "only.md").write_text(f"{FOOTER}\n", encoding="utf-8")
    settings, hooks = fake_settings(tmp_path / "data"), Hooks(engines=engines, notify=said.append)
    index_vault(settings, vault, hooks=hooks)
    assert sum(FOOTER in text for text in engines.texts) == 1  # the note that is nothing else
    assert any(FOOTER in line for line in said)
    before = len(engines.texts)
    (vault / "new.md").write_text(f"another thing\n\n{FOOTER}\n", encoding="utf-8")
    index_vault(settings, vault, hooks=hooks)
    assert engines.texts[before:] == ["new\nanother thing"]
    index_vault(settings, vault, full=True, hooks=hooks)
    assert len(engines.texts) == before + 1
    ledger_path = next(settings.vault_dir(vault).glob("*/ledger.sqlite3"))
    with Ledger(ledger_path, readonly=True) as ledger:
        assert FOOTER in ledger.meta("boilerplate")


def test_a_vault_that_doubles_is_looked_at_again(tmp_path: Path) -> None:
    vault, engines = tmp_path / "vault", FakeEngines()
    vault.mkdir()
    texts = bodies(LEAST_NOTES)
    settings, hooks = fake_settings(tmp_path / "data"), Hooks(engines=engines)
    for part in (texts[: LEAST_NOTES // 2 - 1], texts):
        for i, body in enumerate(part):
            (vault / f"{i}.md").write_text(body, encoding="utf-8")
        index_vault(settings, vault, hooks=hooks)
    with Ledger(next(settings.vault_dir(vault).glob("*/ledger.sqlite3")), readonly=True) as ledger:
        assert not ledger.db.execute("SELECT 1 FROM chunks WHERE instr(text, ?)", (FOOTER,)).fetchone()
