"""The contract of the commands, as another program relies on it: streams, JSON keys, exit codes, menu, piped input."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import main
from vaultvec.datatypes import IndexReport, SearchResult
from vaultvec.settings import load_settings
from vaultvec.status import read_status
from vaultvec.terminal import results
from vaultvec.terminal.console import plain
from vaultvec.terminal.summaries import print_report, print_status

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "sample_vault"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data folder with an index of the sample vault, made by the real command."""
    folder = tmp_path_factory.mktemp("data")
    done = command(folder, "index", "--json")
    assert done.returncode == 0, done.stderr
    (folder / "index.json").write_text(done.stdout, encoding="utf-8")
    return folder


def command(
    data: Path, *arguments: str, stdin: str | None = None, vault: Path | None = SAMPLE
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "VAULTVEC_DATA": str(data), "HF_HUB_OFFLINE": "1", "PYTHONUTF8": "1"}
    environment.pop("VAULTVEC_VAULT", None)
    if vault:
        environment["VAULTVEC_VAULT"] = str(vault)
    return subprocess.run(
        [sys.executable, "main.py", *arguments], cwd=ROOT, env=environment, input=stdin, text=True,
        capture_output=True, encoding="utf-8", check=False, timeout=300,
    )  # fmt: skip


@pytest.fixture
def cli(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands within this process, over the same index."""
    monkeypatch.setenv("VAULTVEC_DATA", str(data))
    monkeypatch.setenv("VAULTVEC_VAULT", str(SAMPLE))


INDEX_KEYS = [
    "notes_total",
    "notes_indexed",
    "notes_unchanged",
    "notes_deleted",
    "notes_failed",
    "chunks_total",
    "chunks_embedded",
    "chunks_reused",
    "seconds",
    "texts_per_second",
    "tokens_per_second",
    "model",
    "engine",
    "precision",
    "device",
    "peak_rss_mb",
]


def test_index_json_has_the_contracts_keys_first(data: Path) -> None:
    report = json.loads((data / "index.json").read_text(encoding="utf-8"))
    assert list(report)[: len(INDEX_KEYS)] == INDEX_KEYS
    assert report["notes_total"] == report["notes_indexed"] > 40
    assert report["notes_failed"] == []
    assert report["chunks_total"] >= 100
    assert "all-MiniLM-L6-v2" in report["model"]
    assert "multilingual" in report["model"], "the sample vault is half Korean"


def run_code(code: str, data: Path) -> subprocess.CompletedProcess[str]:
    """Python of its own over the sample vault: what it imports is all that it needs."""
    environment = {**os.environ, "VAULTVEC_DATA": str(data), "VAULTVEC_VAULT": str(SAMPLE)}
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, text=True, capture_output=True)


def test_a_second_run_embeds_nothing_and_loads_no_model(data: Path) -> None:
    code = (
        "import sys, main; code = main.main(['index', '--json']); "
        "heavy = {'torch', 'openvino', 'chromadb', 'sentence_transformers', 'tokenizers'} & set(sys.modules); "
        "print(sorted(heavy), file=sys.stderr); sys.exit(code)"
    )
    done = run_code(code, data)
    report = json.loads(done.stdout)
    assert report["chunks_embedded"] == 0
    assert report["notes_unchanged"] == report["notes_total"]
    assert set(json.loads(done.stderr.strip().splitlines()[-1].replace("'", '"'))) <= {"tokenizers"}


def test_a_command_loads_no_part_that_it_does_not_use(data: Path) -> None:
    code = (
        "import sys, main; main.main(['search', 'backup', '--mode', 'keyword', '--json']); "
        "parts = ('vaultvec.stages', 'vaultvec.measure', 'vaultvec.phases', 'vaultvec.engines.openvino_engine'); "
        "sys.exit(' '.join(name for name in sys.modules if name.startswith(parts)))"
    )
    done = run_code(code, data)
    assert json.loads(done.stdout)
    assert done.stderr.strip() == ""


def test_search_json(cli: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["search", "backups that survive a fire", "-k", "3", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 3
    assert list(rows[0]) == ["rank", "score", "path", "title", "heading", "text", "start_line", "tags", "uri"]
    assert [row["rank"] for row in rows] == [1, 2, 3]
    assert rows[0]["score"] >= rows[1]["score"] >= rows[2]["score"]
    assert len({row["path"] for row in rows}) == 3, "one row a note"
    assert rows[0]["uri"].startswith("obsidian://open?vault=sample_vault&file=")
    assert (SAMPLE / rows[0]["path"]).is_file()


def test_korean_question_finds_the_korean_note(cli: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["search", "바질을 죽이지 않고 키우려면?", "-k", "3", "--json"]) == 0
    assert "텃밭/베란다 허브.md" in [row["path"] for row in json.loads(capsys.readouterr().out)]


@pytest.mark.parametrize("form", ["--csv", "--md"])
def test_other_formats_go_to_stdout(cli: None, capsys: pytest.CaptureFixture[str], form: str) -> None:
    assert main.main(["search", "sourdough", form, "-k", "2"]) == 0
    assert "obsidian://open" in capsys.readouterr().out


def test_status_json(cli: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["status", "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert status["coverage"] == 1.0
    assert status["stale_notes"] == 0
    assert status["index_bytes"] > 100_000
    assert {"model", "fingerprint", "notes_total", "chunks_total"} <= set(status)


def test_status_has_no_percentage_of_nothing(cli: None, capsys: pytest.CaptureFixture[str]) -> None:
    status = read_status(load_settings(ROOT / "config.py", os.environ), SAMPLE)
    print_status(status)
    assert "embedded (100.0%)" in capsys.readouterr().out
    print_status(replace(status, chunks=0, embedded=0))
    out = capsys.readouterr().out
    assert "0 embedded" in out
    assert "%" not in "".join(line for line in out.splitlines() if line.startswith("chunks"))


def test_notes_that_moved_are_not_called_deleted(capsys: pytest.CaptureFixture[str]) -> None:
    print_report(IndexReport(notes_total=6, notes_indexed=6, notes_deleted=6))
    out = " ".join(capsys.readouterr().out.split())
    assert "6 indexed, 6 gone from their old place (moved, deleted or excluded)" in out


def test_related_and_links(cli: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["related", "Backups 3-2-1", "--json", "-k", "3"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 3
    assert main.main(["links", "--json", "-k", "2", "--min-score", "0.1"]) == 0
    pairs = json.loads(capsys.readouterr().out)
    assert len(pairs) == 2
    assert pairs[0]["from"] != pairs[0]["to"]


def test_export(cli: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["export", str(tmp_path / "out.npz")]) == 0
    with np.load(tmp_path / "out.npz") as found:
        n = len(found["ids"])
        assert len(found["paths"]) == len(found["texts"]) == n > 100
        assert found["vectors"].shape == (n, 512)
        assert found["vectors"].dtype == np.float32
        assert np.allclose(np.linalg.norm(found["vectors"], axis=1), 1.0, atol=1e-5)
    assert "--model all-MiniLM-L6-v2" in capsys.readouterr().err, "the second model is not kept quiet"
    assert main.main(["export", str(tmp_path / "second.npz"), "--model", "all-MiniLM-L6-v2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == "sentence-transformers/all-MiniLM-L6-v2"
    with np.load(tmp_path / "second.npz") as found:
        assert found["vectors"].shape == (len(found["ids"]), 384)
        assert 0 < len(found["ids"]) < n, "the notes that it reads"
    assert main.main(["export", str(tmp_path / "none.npz"), "--model", "bge-m3"]) == 1
    assert "--model takes universal" in capsys.readouterr().err
    assert main.main(["export", str(SAMPLE / "out.npz")]) == 1
    assert not (SAMPLE / "out.npz").exists()


def test_models_and_guide_run(cli: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["models", "--json"]) == 0
    names = [row["name"] for row in json.loads(capsys.readouterr().out)]
    assert any("L12" in name for name in names)
    assert main.main(["guide", "--json"]) == 0
    assert {row["phase"][0] for row in json.loads(capsys.readouterr().out)} == {"1", "2", "3"}


BAD = [
    (["index", "--vault", "/nowhere/at/all"], "not found"),
    (["search", "   "], "query is empty"),
    (["search", "-only"], None),
    (["search", "x", "--folder", "Recipse"], "Recipes"),
    (["search", "x", "--tag", "no-such-tag"], "no note has the tag"),
    (["search", "x", "--since", "yesterday"], "2026-01-31"),
    (["search", "x", "--min-score", "7"], "0 to 1"),
    (["links", "--min-score", "5"], "--min-score is 5.0, expected 0 to 1"),
    (["search", "x", "--folder", ""], "expected a folder"),
    (["related", "Backups 3-2"], "Backups 3-2-1"),
    (["export", "vectors.txt"], ".npz"),
    (["export", "~nobody-of-that-name/vectors.npz"], "names no file"),
    (["index", "--limit", "0"], None),
    (["search", "x", "--mode", "psychic"], None),
    (["no-such-command"], None),
]


@pytest.mark.parametrize(("arguments", "says"), BAD, ids=[" ".join(row[0]) for row in BAD])
def test_bad_input_is_one_clear_line(
    cli: None, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str | None
) -> None:
    try:
        code = main.main(arguments)
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    if says is None:
        assert code == 2
        return
    assert code == 1
    assert says in captured.err
    assert len(captured.err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["search", "x", "-k", "abc"], "-k: 'abc' is no whole number from 1 on"),
        (["index", "--limit", "1.5"], "--limit: '1.5' is no whole number"),
        (["links", "--min-score", "nan"], "--min-score: 'nan' is no number"),
        (["watch", "--debounce", "soon"], "--debounce: 'soon' is no number"),
        (["search", "how", "to", "prune"], "between quotes"),
        (["search", "-x", "roses"], "after --"),
        (["search", "-google"], "required: query; one that begins with - comes last, after --"),
        (["--json", "status"], "options stand after the command"),
        (["index", "/some/folder"], "a folder after --vault"),
        (["watch", "--json"], "watch has no --json: it goes on until Ctrl-C"),
    ],
    ids=lambda row: " ".join(row) if isinstance(row, list) else "",
)
def test_wrong_usage_is_told_in_the_users_words(
    capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    with pytest.raises(SystemExit) as error:
        main.main(arguments)
    assert error.value.code == 2
    assert says in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("name", ["obsidian_processor.py", "obsidian_processor_optimized.py"])
def test_the_processors_go_by_their_own_names(name: str) -> None:
    def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, name, *arguments], cwd=ROOT, text=True, capture_output=True, check=False, timeout=300
        )

    assert ask("--help").stdout.startswith(f"usage: {name} [-h]")
    assert ask("/nope").stderr.endswith("unrecognized arguments: /nope; the folder of the vault comes after --vault\n")


def test_more_results_than_sqlite_can_count(cli: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["search", "backups", "-k", "9" * 30, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) > 10


def test_search_says_what_config_and_the_vault_have_become(data: Path, tmp_path: Path) -> None:
    vault = tmp_path / "vault"
    (vault / ".obsidian").mkdir(parents=True)
    mixed = f"{unicodedata.normalize('NFD', '정원')}/{unicodedata.normalize('NFC', '장미')}"  # as sync tools leave them
    (vault / mixed).parent.mkdir()
    for name in ("tulips", "roses", unicodedata.normalize("NFD", "장미"), mixed, "\uf900"):  # the last one is no NFC
        (vault / f"{name}.md").write_text(f"{name} in the garden", encoding="utf-8")
    assert command(data, "index", vault=vault).returncode == 0
    assert command(data, "search", "garden", vault=vault).stderr == ""
    (vault / "tulips.md").unlink()
    (vault / mixed).with_suffix(".md").write_text("pruned in the garden, and watered", encoding="utf-8")
    (vault / ".obsidian" / "app.json").write_text('{"userIgnoreFilters": ["roses.md"]}')
    said = command(data, "search", "garden", vault=vault).stderr
    assert "no longer in the vault: tulips.md; run: python main.py index" in said
    assert "saved again since indexed, what is shown may be old: 정원/장미.md; run: python main.py index" in said
    assert "1 of these 5 notes are left out now" in said
    vault.rename(tmp_path / "away")
    done = command(data, "search", "garden", vault=vault)
    assert done.returncode == 0
    assert "is not there now" in done.stderr


def test_a_command_that_is_advised_names_the_vault_it_was_asked_about(
    cli: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vault = tmp_path / "my $notes"
    vault.mkdir()
    (vault / "note.md").write_text("text", encoding="utf-8")
    assert main.main(["export", "vectors.txt", "--vault", str(vault)]) == 1
    assert f"python main.py export --vault '{vault}' vectors.npz" in capsys.readouterr().err
    assert main.main(["guide", "--vault", str(vault), "--json"]) == 0
    steps = {step["todo"] for step in json.loads(capsys.readouterr().out)}
    assert f"python main.py index --vault '{vault}'" in steps | {step.removesuffix(" --baseline") for step in steps}
    assert main.main(["export", "vectors.txt"]) == 1
    assert "python main.py export vectors.npz" in capsys.readouterr().err, "the environment names it already"


def test_an_empty_vault_is_refused(data: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = command(data, "index", vault=tmp_path / "empty")
    assert done.returncode == 1
    assert "no notes" in done.stderr
    assert done.stdout == ""


def test_searching_before_indexing_says_what_to_run(data: Path, tmp_path: Path) -> None:
    (tmp_path / "note.md").write_text("text", encoding="utf-8")
    done = command(data, "search", "text", vault=tmp_path)
    assert done.returncode == 1
    assert "python main.py index" in done.stderr


def test_menu_by_piped_input(data: Path) -> None:
    done = command(data, stdin="9\n6\n3\nbackups\n1\nm 1\nk 2\n\n2\n0\n")
    assert done.returncode == 0, done.stderr
    assert "not on the menu" in done.stderr
    assert "Backups 3-2-1" in done.stdout
    assert "unchanged" in done.stdout


def test_the_menu_leads_to_the_other_scripts_and_back(data: Path) -> None:
    done = command(data, stdin="5\n1\n4\n0\n6\n0\n")
    assert done.returncode == 0
    assert "the system refused" not in done.stderr
    assert done.stderr.count("choice: ") == 6
    assert "BATCH" in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and descriptors")
def test_closed_streams_and_an_interruption_while_imports_go_on_are_no_traceback(data: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "VAULTVEC_DATA": str(data), "VAULTVEC_VAULT": str(SAMPLE)}
    for closed in (">&-", "<&-", "2>&-"):
        line = f"exec {shlex.quote(sys.executable)} main.py status {closed}"
        done = subprocess.run(["sh", "-c", line], cwd=ROOT, env=environment, capture_output=True, text=True)
        assert "Traceback" not in done.stderr
        assert done.returncode == 0
    (tmp_path / "rich").mkdir()
    # In short sleeps: a signal just before a sleep begins waits for its end.
    slow_import = "import time\nprint('importing', flush=True)\nfor _ in range(12000):\n    time.sleep(0.05)\n"
    (tmp_path / "rich" / "__init__.py").write_text(slow_import)
    command_line = [sys.executable, "main.py", "status"]
    slow = {**environment, "PYTHONPATH": str(tmp_path)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command_line, cwd=ROOT, env=slow, text=True, **pipes) as process:  # type: ignore[call-overload]
        try:
            assert process.stdout.readline() == "importing\n"
            process.terminate()
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, said) == (130, "interrupted before anything was begun\n")


def test_the_menu_takes_the_vault_too(data: Path, tmp_path: Path) -> None:
    done = command(data, "--vault", str(tmp_path / "nowhere"), stdin="6\n0\n")
    assert done.returncode == 1
    assert "there is no folder" in done.stderr
    assert "nowhere" in done.stderr


def test_a_file_is_no_vault(data: Path, tmp_path: Path) -> None:
    note = tmp_path / "note.md"
    note.write_text("text")
    done = command(data, "status", "--vault", str(note))
    assert (done.returncode, done.stderr.strip()) == (1, f"{note} is a file; name the folder of notes")


@pytest.mark.parametrize("before", [True, False])
def test_the_vault_may_stand_before_the_command(data: Path, tmp_path: Path, before: bool) -> None:
    option = ("--vault", str(tmp_path / "nowhere"))
    done = command(data, *(option if before else ()), "status", *(() if before else option))
    assert done.returncode == 1
    assert "nowhere" in done.stderr


@pytest.mark.parametrize("answer", ["0", "q"])
def test_the_question_for_a_vault_leads_back_to_the_menu(data: Path, answer: str) -> None:
    done = command(data, stdin=f"6\n{answer}\n0\n", vault=None)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("0  Quit") == 2
    assert "vault not found" not in done.stderr


def test_the_menu_asks_again_for_a_vault_that_is_not_there(data: Path) -> None:
    done = command(data, stdin=f"6\n/no/such/folder\n{SAMPLE}\n0\n", vault=None)
    assert done.returncode == 0, done.stderr
    assert "vault not found: /no/such/folder; type another folder" in done.stderr
    assert "notes" in done.stdout


def test_input_that_is_no_utf8_is_an_odd_answer(data: Path) -> None:
    environment = {**os.environ, "VAULTVEC_DATA": str(data), "PYTHONIOENCODING": "utf-8:strict"}
    for script in ("main.py", "config_optimizer.py"):
        done = subprocess.run(
            [sys.executable, script],
            cwd=ROOT,
            env=environment,
            input=b"\xff\xfe\n0\n",
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert b"Traceback" not in done.stderr


def test_json_is_one_document_of_every_command_that_ends(
    cli: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["export", str(tmp_path / "v.npz"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["vectors"] > 0
    assert Path(found["file"]).is_file()
    for arguments in (
        ["search", "roses", "--json", "--csv"],
        ["related", "Roses", "--md", "--json"],
        ["watch", "--json"],
    ):
        with pytest.raises(SystemExit) as error:
            main.main(arguments)
        assert error.value.code == 2


def test_excluded_words_are_no_part_of_the_query(cli: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["search", "backups", "--exclude", "#copies", "--exclude", "two kinds of media", "--json"]) == 0
    texts = [row["text"].lower() for row in json.loads(capsys.readouterr().out)]
    assert texts
    assert not any("copies" in text or "two kinds of media" in text for text in texts)
    assert main.main(["search", "backups", "--exclude", "🔥"]) == 1
    assert "has no word in it" in capsys.readouterr().err


def test_csv_has_plain_line_ends_and_the_explanation(cli: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["search", "backups", "--csv", "--explain", "-k", "2"]) == 0
    out = capsys.readouterr().out
    assert "\r" not in out
    assert out.splitlines()[0].endswith(",text,explain")
    assert "keyword_weight" in out
    for nothing in ("qqqqqq", "🦑"):  # no row, or none that has an explanation
        assert main.main(["search", nothing, "--mode", "keyword", "--csv", "--explain"]) == 0
        assert capsys.readouterr().out.splitlines()[0].endswith(",text,explain")


def test_the_explanation_of_a_text_asked_for_as_it_stands() -> None:
    """Its points are more than there can be: a note's opening has some beside those of the same text."""
    parts = {"model_rank": 1, "model_part": 1.0, "opening_part": 0.02, "points": 1.02, "most": 1.0}
    row = SearchResult(1, 1.0, "a.md", "a", "", "text", 1, (), "", parts)
    assert results._explained(row).startswith("score 1.0000 = 1.0000 × 2.0 / (1.0 × 2.0000); points 1.0200 = ")


def test_signs_without_a_shape_are_not_shown_as_control_characters() -> None:
    scotland = "🏴" + "".join(chr(0xE0000 + ord(c)) for c in "gbsct") + "\U000e007f"
    assert plain(f"{scotland} 👩‍👩‍👧\t\u200e12\u200f \ufeffa\u2060b") == f"{scotland} 👩‍👩‍👧\t12 ab"
    assert plain("\x1b[2J \u202egnp.exe \x9b") == "�[2J �gnp.exe �"


def test_menu_without_a_vault_says_so_at_the_end_of_input(data: Path) -> None:
    done = command(data, stdin="1\n", vault=None)
    assert done.returncode == 1
    assert "--vault" in done.stderr


def test_vault_argument_beats_the_environment(data: Path, tmp_path: Path) -> None:
    done = command(data, "status", "--vault", str(tmp_path))
    assert done.returncode == 1
    assert str(tmp_path) in done.stderr


@pytest.mark.parametrize(
    "script",
    [
        "main.py",
        "config_optimizer.py",
        "embedding_speed_fix.py",
        "obsidian_processor.py",
        "obsidian_processor_optimized.py",
    ],
)
def test_an_interpreter_without_the_packages_is_told_in_one_line(script: str) -> None:
    done = subprocess.run([sys.executable, "-S", script, "status"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "lacks the packages of requirements.txt" in done.stderr
    assert len(done.stderr.splitlines()) == 1
