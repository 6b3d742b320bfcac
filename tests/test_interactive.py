"""Interactive search: one index, many questions; results by number; mistakes end no session."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from made_index import MadeIndex

from vaultvec.settings import Settings
from vaultvec.terminal import interactive


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> object:
    index = MadeIndex(tmp_path)
    index.put("Basil.md", "basil " * 40 + "and, at the very end, water")
    index.put("Mint.md", "mint wants warmth too")
    index.put("Roses.md", "prune roses in march")
    index.put("List.md", "- pepper\n\t- grows slowly")
    opened: list[str] = []
    monkeypatch.setattr(interactive, "open_searcher", lambda *_: index.searcher())
    monkeypatch.setattr(interactive, "open_uri", lambda uri: not opened.append(uri))

    def run(*lines: str) -> tuple[int, str, str, list[str]]:
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        code = interactive.search_loop(Settings(data_dir=tmp_path), tmp_path)
        out, err = capsys.readouterr()
        return code, out, err, opened

    return run


def test_questions_and_what_follows(ask) -> None:  # type: ignore[no-untyped-def]
    code, out, _, opened = ask("basil", "1", "o 1", "m 1", "", "never asked")
    assert code == 0
    assert out.count("at the very end, water") == 1  # a snippet is too short for it, the whole passage is not
    assert out.count("prune roses in march") == 2  # found, and more like it
    assert opened == ["obsidian://open?vault=My%20vault&file=Basil"]


def test_a_passage_is_shown_once_and_its_tabs_are_no_control_characters(ask) -> None:  # type: ignore[no-untyped-def]
    _, out, _, _ = ask("pepper", "1")
    assert out.count("grows slowly") == 2  # in the answer, and in the passage asked for
    assert "- pepper - grows slowly" in out
    assert "�" not in out


def test_mistakes_are_told_and_the_next_question_is_answered(ask) -> None:  # type: ignore[no-untyped-def]
    code, out, err, _ = ask("o 1", "mode psychic", "-only", "basil", "o 99", "roses")
    assert code == 0
    for line in ("ask something first", "'psychic' is unknown", "only excludes", "there is no result 99"):
        assert line in err
    assert "Roses" in out


def test_mode_and_number_of_results(ask) -> None:  # type: ignore[no-untyped-def]
    _, out, err, _ = ask("k 1", "mode keyword", "wants", "2026", "q")
    assert "mode keyword" in err
    assert out.count("wants warmth too") == 1
    assert "nothing found" in err  # a number that is no result is a question


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX programs")
@pytest.mark.parametrize(("script", "opened"), [("#!/bin/sh\ncat", True), ("#!/bin/sh\nexit 3", False), ("", False)])
def test_a_link_that_nothing_opens_ends_no_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, opened: bool
) -> None:
    program = tmp_path / "opener"
    program.write_text(script)
    program.chmod(0o755)
    if not script:
        program = tmp_path / "gone since it was looked for"
    monkeypatch.setattr("shutil.which", lambda _: str(program))
    assert interactive.open_uri("obsidian://open?vault=v&file=f") is opened
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert not interactive.open_uri("obsidian://open?vault=v&file=f")
