"""The two tuning scripts as a user runs them: by menu, by argument, by piped input."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from timed_engine import MODEL, Clock, TimedReference, factory, words

import config_optimizer
import embedding_speed_fix
from vaultvec.config_file import read_values
from vaultvec.config_keys import GUIDE_VALUES
from vaultvec.config_rewrite import list_backups
from vaultvec.errors import VaultError
from vaultvec.measure import rounds
from vaultvec.measure.bench import Subject, run_benchmark
from vaultvec.measure.measured import Measured
from vaultvec.measure.report import save_html
from vaultvec.measure.results import save_json
from vaultvec.measure.sampling import place_of

ROOT = Path(__file__).resolve().parent.parent
Answer = Callable[..., None]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the shipped config.py; the data folder lies beside it."""
    monkeypatch.setenv("VAULTVEC_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("VAULTVEC_VAULT", raising=False)
    place = tmp_path / "config.py"
    shutil.copyfile(ROOT / "config.py", place)
    return place


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Answer:
    """What the user types, line by line; then the end of input."""

    def typed(*lines: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))

    typed()
    return typed


@pytest.fixture
def setup(config: Path, monkeypatch: pytest.MonkeyPatch) -> config_optimizer.Setup:
    """The real benchmark on an engine whose time is known: two streams are twice as fast."""
    clock = Clock()
    monkeypatch.setattr(rounds, "clock", clock)

    def measure(settings: Any, present: Any, vault: Path, *, thorough: bool, int8: bool) -> Measured:
        del thorough
        build = factory(clock, [], lambda s: {"token_s": 0.0005 if s.streams == 2 else 0.001, "max_tokens": 4096})
        subject = Subject(settings, present, MODEL, words(60), int8=int8, engines=build, seconds=2000,
                          place=place_of(settings, vault),
                          reference=lambda _model, _device: TimedReference(clock))  # fmt: skip
        report = run_benchmark(subject)
        save_json(report, settings.reports_dir)
        return Measured(report, save_html(report, settings.reports_dir))

    return config_optimizer.Setup(config, measure)


def values(config: Path) -> dict[str, Any]:
    return read_values(config.read_text(encoding="utf-8"))


def test_show_before_any_measurement_changes_nothing(
    setup: config_optimizer.Setup, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = config.read_bytes()
    assert config_optimizer.main(["1"], setup) == 0
    out = capsys.readouterr().out
    assert "not measured yet; run: python embedding_speed_fix.py 1" in out
    assert "EMBEDDING_BATCH_SIZE" in out
    assert config.read_bytes() == before
    assert list_backups(config) == []


def test_measure_show_apply_show_restore(
    setup: config_optimizer.Setup, config: Path, answer: Answer, capsys: pytest.CaptureFixture[str]
) -> None:
    original = config.read_bytes()
    assert embedding_speed_fix.main(["1"], setup) == 0
    assert config.read_bytes() == original
    assert "python config_optimizer.py 2" in capsys.readouterr().err

    assert config_optimizer.main(["1", "--json"], setup) == 0
    rows = {row["key"]: row for row in json.loads(capsys.readouterr().out)["decisions"]}
    assert rows["STREAMS"]["proposed"] == 2
    assert rows["EMBEDDING_BATCH_SIZE"] | {"gain": "", "reason": ""} == {
        "key": "EMBEDDING_BATCH_SIZE", "present": 32, "guide": 2000, "proposed": 2000, "gain": "", "reason": "",
    }  # fmt: skip

    answer("y")
    assert config_optimizer.main(["2"], setup) == 0
    out, err = capsys.readouterr()
    assert "+EMBEDDING_BATCH_SIZE = 2000" in out
    assert "[y/N]" in err
    assert values(config)["STREAMS"] == 2
    assert (config.parent / "config_backup.py").read_bytes() == original

    assert config_optimizer.main(["1", "--json"], setup) == 0
    assert all(row["proposed"] == row["present"] for row in json.loads(capsys.readouterr().out)["decisions"])

    assert config_optimizer.main(["3"], setup) == 0
    assert config.read_bytes() == original


def test_a_measurement_of_another_machine_is_neither_shown_nor_applied(
    setup: config_optimizer.Setup, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert embedding_speed_fix.main(["1"], setup) == 0
    report = next((config.parent / "data" / "reports").glob("bench-*.json"))
    found = json.loads(report.read_text(encoding="utf-8"))
    found["place"] |= {"cores": 1000}
    report.write_text(json.dumps(found), encoding="utf-8")
    capsys.readouterr()
    assert config_optimizer.main(["1"], setup) == 0
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith("not measured yet (the measurement of ")
    assert last.endswith("; run: python embedding_speed_fix.py 1")
    assert "1000 cores, now " in last
    assert config_optimizer.main(["1", "--json"], setup) == 0
    shown = json.loads(capsys.readouterr().out)
    assert all(row["proposed"] == row["present"] for row in shown["decisions"])
    assert shown["measured"] is None

    def refuse(*_: Any, **__: Any) -> Measured:
        raise VaultError("measured again")

    for script in (config_optimizer, embedding_speed_fix):  # neither takes a report's word for it
        assert script.main(["2", "--yes"], config_optimizer.Setup(config, refuse)) == 1
        assert "measured again" in capsys.readouterr().err


@pytest.mark.parametrize(("typed", "code"), [(["n"], 0), ([""], 0), ([], 1)])
def test_nothing_is_written_without_a_yes(
    setup: config_optimizer.Setup, config: Path, answer: Answer, typed: list[str], code: int
) -> None:
    before = config.read_bytes()
    answer(*typed)
    assert config_optimizer.main(["2", "--guide"], setup) == code
    assert config.read_bytes() == before
    assert list_backups(config) == []


def test_the_guide_alone_needs_no_measurement_and_twice_is_once(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any, **__: Any) -> Measured:
        raise VaultError("measured although nobody asked")

    only = config_optimizer.Setup(config, refuse)
    before = values(config)
    assert config_optimizer.main(["2", "--guide", "--yes", "--json"], only) == 0
    assert json.loads(capsys.readouterr().out)["changes"] == GUIDE_VALUES
    assert values(config) == before | GUIDE_VALUES
    marks = {row.name: row.stat().st_mtime_ns for row in config.parent.iterdir()}
    assert config_optimizer.main(["2", "--guide", "--yes"], only) == 0
    assert "already" in capsys.readouterr().out
    assert {row.name: row.stat().st_mtime_ns for row in config.parent.iterdir()} == marks
    assert config_optimizer.main(["2", "--yes"], only) == 1
    assert capsys.readouterr().err.strip().splitlines()[-1] == "error: measured although nobody asked"


def test_the_menu_by_piped_input(setup: config_optimizer.Setup, config: Path, answer: Answer) -> None:
    answer("9", "2", "y")
    args = ["--guide"]
    assert config_optimizer.main(args, setup) == 0
    assert values(config)["BATCH_SIZE"] == 2000
    answer("3")
    assert embedding_speed_fix.main([], setup) == 0  # 3 is no entry there, then the input ends
    assert values(config)["BATCH_SIZE"] == 2000
    answer("3")
    assert config_optimizer.main([], setup) == 0
    assert values(config)["BATCH_SIZE"] == 64
    answer("0")
    assert config_optimizer.main([], setup) == 0


def test_a_later_state_is_chosen_from_the_list(
    setup: config_optimizer.Setup, config: Path, answer: Answer, capsys: pytest.CaptureFixture[str]
) -> None:
    config_optimizer.main(["2", "--guide", "--yes"], setup)
    config.write_text(config.read_text(encoding="utf-8").replace('THREADS = "auto"', "THREADS = 1"), encoding="utf-8")
    config_optimizer.main(["2", "--guide", "--yes"], setup)
    config_optimizer.main(["3", "--yes"], setup)
    assert values(config)["THREADS"] == "auto"
    capsys.readouterr()
    answer("7", "2")
    assert config_optimizer.main(["3"], setup) == 0
    assert "THREADS" in capsys.readouterr().err
    assert values(config)["THREADS"] == 1


@pytest.mark.parametrize("broken", ["STREAMS = [\n", 'STREAMS = "many"\n', None])
def test_a_broken_config_is_told_with_its_line_and_restored(
    setup: config_optimizer.Setup, config: Path, capsys: pytest.CaptureFixture[str], broken: str | None
) -> None:
    original = config.read_bytes()
    config_optimizer.main(["2", "--guide", "--yes"], setup)
    if broken is None:
        config.unlink()
    else:
        config.write_text(broken, encoding="utf-8")
    capsys.readouterr()
    for choice in ("1", "2"):
        assert config_optimizer.main([choice], setup) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert len(err.strip().splitlines()) == 1
        assert "config.py" in err
        assert broken is None or "line 1" in err
    assert config_optimizer.main(["3", "--yes"], setup) == 0
    assert config.read_bytes() == original


def test_nothing_to_restore(setup: config_optimizer.Setup, capsys: pytest.CaptureFixture[str]) -> None:
    assert config_optimizer.main(["3"], setup) == 1
    assert "nothing to restore" in capsys.readouterr().err


def test_a_dated_backup_alone_is_restored(
    setup: config_optimizer.Setup, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = config.with_name("config_backup_20260102_030405.py")
    kept.write_text("STREAMS = 3\n", encoding="utf-8")
    older = config.with_name("config_backup_20250102_030405.py")
    older.write_text("STREAMS = 2\n", encoding="utf-8")
    os.utime(older, (1, 1))
    assert config_optimizer.main(["3", "--yes"], setup) == 0
    assert values(config)["STREAMS"] == 3
    assert kept.name in capsys.readouterr().out


def test_an_edit_made_after_an_apply_is_named_and_kept_when_the_original_comes_back(
    setup: config_optimizer.Setup, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config_optimizer.main(["2", "--guide", "--yes"], setup)
    assert "(undo: config_optimizer.py 3)" in capsys.readouterr().out
    edited = config.read_text(encoding="utf-8").replace('VAULT_PATH = ""', 'VAULT_PATH = "/my/notes"')
    edited = edited.replace("BATCH_SIZE = 2000", "BATCH_SIZE = 100")
    config.write_text(edited, encoding="utf-8")
    config_optimizer.main(["2", "--guide", "--yes"], setup)
    told = capsys.readouterr().out
    dated = next(row.path.name for row in list_backups(config) if not row.original)
    assert f"(undo: config_optimizer.py 3, {dated})" in told  # plain 3 would take the original and drop the edit
    config.write_text(edited, encoding="utf-8")
    config_optimizer.main(["3", "--yes", "--json"], setup)
    kept = Path(json.loads(capsys.readouterr().out)["kept"])
    assert kept.read_text(encoding="utf-8") == edited
    config.write_text(edited, encoding="utf-8")
    config_optimizer.main(["3", "--yes"], setup)
    assert f'kept as {kept.name}  (VAULT_PATH  "/my/notes" → ""' in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["2", "--guide", "--yes"], ["2", "--yes"], ["3", "--yes"]])
def test_a_write_protected_config_is_left_alone_in_one_line(
    config: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    def refuse(*_: Any, **__: Any) -> Measured:
        raise VaultError("measured for a minute first")

    if arguments[0] == "3":
        config.with_name("config_backup.py").write_text("STREAMS = 3\n", encoding="utf-8")
    before = {row.name: row.read_bytes() for row in config.parent.glob("*.py")}
    config.chmod(0o444)
    try:
        assert config_optimizer.main(arguments, config_optimizer.Setup(config, refuse)) == 1
    finally:
        config.chmod(0o644)
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1
    assert "config.py is write-protected; nothing was written; run first: " in told[0]
    assert {row.name: row.read_bytes() for row in config.parent.glob("*.py")} == before


def test_an_interrupted_measurement_leaves_the_file(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: Any, **__: Any) -> Measured:
        raise KeyboardInterrupt

    before = config.read_bytes()
    assert config_optimizer.main(["2", "--yes"], config_optimizer.Setup(config, interrupted)) == 130
    assert "as it was" in capsys.readouterr().err
    assert config.read_bytes() == before


def test_wrong_usage_is_2() -> None:
    for script in (config_optimizer, embedding_speed_fix):
        with pytest.raises(SystemExit) as caught:
            script.main(["4"])
        assert caught.value.code == 2


def test_json_of_a_benchmark_is_one_document(setup: config_optimizer.Setup, capsys: pytest.CaptureFixture[str]) -> None:
    assert embedding_speed_fix.main(["1", "--json"], setup) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["proposal"]["STREAMS"] == 2
    assert found["rows"][0]["key"] == "one"


def test_the_script_itself_runs_from_its_own_folder(config: Path) -> None:
    shutil.copyfile(ROOT / "config_optimizer.py", config.parent / "config_optimizer.py")
    script = str(config.parent / "config_optimizer.py")
    done = subprocess.run(
        [sys.executable, script], input="1\n", capture_output=True, text=True, check=False, encoding="utf-8",
        timeout=120, env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"},
    )  # fmt: skip
    assert (done.returncode, "EMBEDDING_BATCH_SIZE" in done.stdout) == (0, True), done.stderr
    assert "restore the original settings" in done.stderr


def test_leaving_is_a_document_too(config: Path, answer: Answer, capsys: pytest.CaptureFixture[str]) -> None:
    answer("0")
    assert config_optimizer.main(["--json"], config_optimizer.Setup(config)) == 0
    assert json.loads(capsys.readouterr().out) == {"written": False}


def test_a_config_that_cannot_be_read_is_replaced_by_the_original(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = config.read_bytes()
    config.with_name("config_backup.py").write_bytes(original)
    config.write_text("BATCH_SIZE = 7\n")
    read = Path.read_bytes
    broken = config.resolve()

    def refuse(path: Path) -> bytes:
        if path.resolve() == broken:
            raise PermissionError(13, "Permission denied")
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refuse)
        assert config_optimizer.main(["3", "--yes"], config_optimizer.Setup(config)) == 0
    assert config.read_bytes() == original
    capsys.readouterr()


@pytest.mark.parametrize("url", ["http://127.0.0.1:114340", "http://localhost:abc", "http://[::1", "http://"])
def test_an_address_that_is_none_is_refused_and_answers_nothing(url: str) -> None:
    from vaultvec.config_keys import URL
    from vaultvec.measure.extras import ollama_answers

    assert not URL.accepts(url)
    assert not ollama_answers(url)


@pytest.mark.parametrize("arguments", [["1", "--guide"], ["3", "--guide"], ["2", "--guide", "--thorough"]])
def test_the_guides_table_is_applied_alone(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        config_optimizer.main(arguments)
    assert error.value.code == 2
    assert "error: --guide" in capsys.readouterr().err
