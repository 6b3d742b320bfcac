"""The doctor: one line each for what is wrong, and it names the command that mends it."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fake_engine import FakeEngines, fake_settings
from made_vault import write_vault

import main
from vaultvec import machine
from vaultvec.doctor import _config, _fit, _weights, examine
from vaultvec.engines import resolve_model
from vaultvec.engines.base import Engine
from vaultvec.errors import EngineError
from vaultvec.findings import Finding, told
from vaultvec.fitting import differences
from vaultvec.index import current_index, writer_lock
from vaultvec.ledger import Ledger
from vaultvec.models import L6, USE, resolve
from vaultvec.pipeline import Hooks, index_vault
from vaultvec.settings import Settings
from vaultvec.status import read_status

CONFIG = Path(__file__).resolve().parents[1] / "config.py"


class Patient:
    """An indexed vault."""

    def __init__(self, folder: Path) -> None:
        self.vault = write_vault(folder / "vault", 8, 1)
        for path in self.vault.rglob("*.md"):
            path.write_text("How do you keep the basil alive in the winter? " * 20 + path.stem, encoding="utf-8")
        self.settings = fake_settings(folder / "data")
        index_vault(self.settings, self.vault, hooks=Hooks(engines=FakeEngines()))

    def examine(self, settings: Settings | None = None, config: Path = CONFIG) -> list[Finding]:
        found = examine(settings or self.settings, self.vault, config, FakeEngines())
        assert all("\n" not in finding.text for finding in found)
        return found

    def wrong(self) -> dict[str, str]:
        return {finding.topic: finding.text for finding in self.examine() if finding.level == "wrong"}

    def change(self, sql: str) -> None:
        db = sqlite3.connect(current_index(self.settings, self.vault) / "ledger.sqlite3")
        db.execute(sql)
        db.commit()
        db.close()


@pytest.fixture
def patient(tmp_path: Path) -> Patient:
    return Patient(tmp_path)


def test_a_healthy_index_has_nothing_wrong_and_is_left_as_it_is(patient: Patient) -> None:
    folder = current_index(patient.settings, patient.vault)
    before = (folder / "ledger.sqlite3").read_bytes()
    topics = {finding.topic for finding in patient.examine() if finding.level == "ok"}
    assert patient.wrong() == {}
    assert {"Python", "packages", "config.py", "weights", "GPU", "memory", "data folder", "vault", "disk", "language",
            "ledger", "keyword index", "Chroma", "vectors"} <= topics  # fmt: skip
    assert (folder / "ledger.sqlite3").read_bytes() == before


def test_what_an_index_takes_is_told_apart_from_the_models(patient: Patient) -> None:
    (line,) = [finding.text for finding in patient.examine() if finding.topic == "disk"]
    assert (
        "an index of this vault takes up to about 3 MB; the prepared models, once for all vaults, about 200 MB" in line
    )


def test_before_the_first_index_the_doctor_speaks_of_the_model_that_these_notes_will_get(tmp_path: Path) -> None:
    vault = tmp_path / "vault"
    vault.mkdir()
    (vault / "a.md").write_text("겨울에는 도서관에서 책을 읽고 편지를 쓴다. " * 30_000, encoding="utf-8")  # 1.7 MB
    settings = replace(fake_settings(tmp_path / "data"), embedding_model="auto")
    found = {finding.topic: finding.text for finding in examine(settings, vault, CONFIG, FakeEngines())}
    assert found["language"] == f"{USE} knows the notes' languages"
    assert "takes up to about 49 MB" in found["disk"]
    assert not settings.vault_dir(vault).exists()


def lose_chroma(patient: Patient) -> None:
    shutil.rmtree(current_index(patient.settings, patient.vault) / "chroma")


def add_to_ledger_only(patient: Patient) -> None:
    patient.change("UPDATE chunks SET slot = slot + 100")


def lose_keywords(patient: Patient) -> None:
    patient.change("DELETE FROM keywords WHERE rowid IN (SELECT id FROM chunks LIMIT 3)")


def zero_vectors(patient: Patient) -> None:
    patient.change("UPDATE vectors SET vector = zeroblob(1536)")


def shuffle_vectors(patient: Patient) -> None:
    patient.change("UPDATE vectors SET vector = (SELECT vector FROM vectors ORDER BY hash LIMIT 1)")


def break_ledger(patient: Patient) -> None:
    path = current_index(patient.settings, patient.vault) / "ledger.sqlite3"
    path.write_bytes(path.read_bytes()[:100] + b"\xff" * 60_000)


@pytest.mark.parametrize(
    ("damage", "topic", "command"),
    [
        (lose_chroma, "Chroma", "rebuild"), (add_to_ledger_only, "Chroma", "rebuild"),
        (lose_keywords, "keyword index", "rebuild"), (zero_vectors, "vectors", "rebuild"),
        (shuffle_vectors, "vectors", "index"), (break_ledger, "ledger", "rebuild"),
    ],
)  # fmt: skip
def test_damage_is_found_with_the_command_that_mends_it(
    patient: Patient, damage: Callable[[Patient], None], topic: str, command: str
) -> None:
    damage(patient)
    wrong = patient.wrong()
    assert topic in wrong, wrong
    assert f"python main.py {command}" in wrong[topic]


def test_a_graph_that_was_lost_is_found_though_every_row_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vaultvec.store.SYNC_THRESHOLD", 4)  # rows, from which the graph is on disk
    patient = Patient(tmp_path)
    assert patient.wrong() == {}
    for path in (current_index(patient.settings, patient.vault) / "chroma").iterdir():
        if path.is_dir():
            shutil.rmtree(path)
    missing = "files of its graph are missing or cut short; run: python main.py rebuild"
    assert patient.wrong() == {"Chroma": missing}
    patient.change("DELETE FROM meta WHERE key = 'chroma_graph'")  # as an earlier version leaves it
    assert patient.wrong() == {"Chroma": "its graph does not find what is stored; run: python main.py rebuild"}


def test_what_waits_is_a_note(patient: Patient) -> None:
    patient.change("INSERT INTO pending(model, hash, token_ids) SELECT 1, hash, x'00' FROM chunks LIMIT 1")
    assert patient.wrong() == {}
    assert any(finding.topic == "waiting" and finding.level == "note" for finding in patient.examine())


def test_notes_in_another_language_than_the_models(patient: Patient) -> None:
    for path in list(patient.vault.rglob("*.md"))[:4]:
        path.write_text("겨울에는 도서관에서 책을 읽고 편지를 쓴다. " * 10, encoding="utf-8")
    assert 'EMBEDDING_MODEL = "auto"' in patient.wrong()["language"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"embedding_model": USE}, f"EMBEDDING_MODEL asks for {USE}, not {L6}"),
        ({"chunk_tokens": 100}, "CHUNK_TOKENS 100"),
        ({"min_chunk_tokens": 10}, "MIN_CHUNK_TOKENS 10"),
        ({"precision": "int8"}, 'PRECISION is "int8", the vectors are full'),
        ({"engine": "ollama", "embedding_model": L6}, 'ENGINE is "ollama", the vectors were made here'),
        ({"exclude": ("*",)}, "8 of these 8 notes are left out now"),
    ],
)
def test_an_index_that_does_not_fit_config_is_told(patient: Patient, changes: dict[str, Any], says: str) -> None:
    settings = replace(patient.settings, **changes)
    lines = [finding.text for finding in told("index", partial(_fit, settings, patient.vault))]
    assert len(lines) == 1
    assert says in lines[0]
    assert lines[0].endswith("run: python main.py index")
    assert read_status(settings, patient.vault).remarks == lines
    assert read_status(patient.settings, patient.vault).remarks == []
    assert list(_fit(patient.settings, patient.vault)) == []


def test_a_model_without_an_int8_form_is_the_same_under_int8(patient: Patient) -> None:
    assert resolve(USE).fingerprint("int8") == resolve(USE).fingerprint("full")
    patient.change(f"UPDATE models SET name = '{USE}', fingerprint = '{resolve(USE).fingerprint('int8')}'")
    for precision in ("auto", "int8"):
        asked = replace(patient.settings, embedding_model=USE, precision=precision)
        assert not any("PRECISION" in finding.text for finding in _fit(asked, patient.vault))


def test_int8_of_an_earlier_version_is_told_and_not_held_against_the_model(patient: Patient) -> None:
    patient.change(f"UPDATE models SET fingerprint = '{resolve(L6).former_int8}'")
    asked = replace(patient.settings, precision="int8")
    (line,) = [finding.text for finding in _fit(asked, patient.vault)]
    assert "(int8 is computed in another way now" in line
    found = {finding.topic: finding for finding in patient.examine()}
    assert (found["vectors"].level, found["vectors"].text) == (
        "note", f"those of {L6} are int8 of an earlier version; run: python main.py index",
    )  # fmt: skip


@pytest.mark.parametrize("made", ["int8", "full"])
def test_vectors_are_made_again_in_the_precision_of_the_index(patient: Patient, made: str) -> None:
    """What config.py asks for of the next index is no fault of this one."""
    patient.change(f"UPDATE models SET fingerprint = '{resolve(L6).fingerprint(made)}'")
    asked: list[tuple[str, str]] = []

    def engines(settings: Settings, *args: Any) -> Engine:
        asked.append((settings.precision, settings.engine))
        return FakeEngines()(settings, *args)

    for precision in ("auto", "int8"):
        examine(replace(patient.settings, precision=precision, engine="torch"), patient.vault, CONFIG, engines)
    assert asked == 2 * [("int8", "openvino") if made == "int8" else ("auto", "torch")]


def test_an_index_made_here_is_checked_here_though_a_server_is_asked_for(patient: Patient) -> None:
    asked: list[str] = []

    def engines(settings: Settings, *args: Any) -> Engine:
        if settings.server:
            raise EngineError("no Ollama answers")
        asked.append(settings.engine)
        return FakeEngines()(settings, *args)

    found = examine(replace(patient.settings, engine="ollama"), patient.vault, CONFIG, engines)
    assert asked == ["auto"]
    assert [finding.level for finding in found if finding.topic == "vectors"] == ["ok"]


def test_int8_with_the_engine_that_has_none_is_told_before_index_refuses_it(tmp_path: Path) -> None:
    config = tmp_path / "config.py"
    config.write_text('ENGINE = "torch"\nPRECISION = "int8"\n', encoding="utf-8")
    (finding,) = told("config.py", partial(_config, config))
    assert (finding.level, "the torch engine has no int8" in finding.text) == ("wrong", True)


def test_a_model_that_is_not_here_is_told_with_what_was_meant(patient: Patient) -> None:
    asked = replace(patient.settings, embedding_model="mixd")
    (finding,) = told("weights", partial(_weights, asked, None, FakeEngines()))
    assert finding.text.startswith('mixd (did you mean "mixed"?): not prepared yet')


@pytest.mark.parametrize(
    ("flags", "precision", "level", "says"),
    [
        ("avx2 avx512_bf16 avx512_vnni", "auto", "ok", "AVX-512 with bf16"),
        ("avx2 avx512_vnni", "auto", "ok", "int8 (VNNI) would be about twice as fast"),
        ("avx2", "auto", "ok", "no bf16 and no VNNI"),
        ("avx2", "int8", "note", 'PRECISION = "int8" is no faster here than "auto"'),
        ("avx2 avx_vnni", "int8", "ok", "PRECISION is int8"),
        ("avx2 avx512_bf16", "bf16", "ok", "PRECISION is bf16"),
        ("avx2", "bf16", "wrong", 'index refuses PRECISION = "bf16"; set it to "auto"'),
        ("avx2", "fp16", "wrong", 'index refuses PRECISION = "fp16"'),
        ("sse2", "int8", "note", "no AVX2"),
        ("sse2", "auto", "note", "no AVX2"),
    ],
)
def test_what_the_processor_is_told_to_run_in(
    monkeypatch: pytest.MonkeyPatch, flags: str, precision: str, level: str, says: str
) -> None:
    monkeypatch.setattr(machine, "_cpu_flags", lambda: frozenset(flags.split()))
    monkeypatch.setattr(machine.shutil, "which", lambda _: None)  # a GPU would have its own precisions
    monkeypatch.setattr(machine, "_apple", lambda: False)
    (finding,) = machine.processor(precision)
    assert finding.level == level
    assert says in finding.text


def test_an_index_whose_vectors_another_one_gave_is_not_told_apart(patient: Patient) -> None:
    patient.change("DELETE FROM meta WHERE key = 'engine'")  # nothing was embedded, so no engine was noted
    settings = replace(patient.settings, engine="ollama", embedding_model=L6)
    lines = [finding.text for finding in told("index", partial(_fit, settings, patient.vault))]
    assert len(lines) == 1
    assert "CHUNK_TOKENS" not in lines[0]
    assert 'ENGINE is "ollama", the vectors were made here' in lines[0]


def test_a_moved_model_folder_is_the_same_model(patient: Patient) -> None:
    patient.change("UPDATE models SET name = '/old/place/mine'")
    with Ledger(current_index(patient.settings, patient.vault) / "ledger.sqlite3", readonly=True) as ledger:
        assert not differences(replace(patient.settings, embedding_model="/new/place/mine"), patient.vault, ledger)
        assert differences(replace(patient.settings, embedding_model="/new/place/other"), patient.vault, ledger)


def test_a_running_index_is_not_disturbed(patient: Patient) -> None:
    with writer_lock(patient.settings.vault_dir(patient.vault)):
        found = [finding for finding in patient.examine() if finding.topic == "index"]
    assert [finding.level for finding in found] == ["note"]
    assert "another process" in found[0].text


def test_a_run_is_not_kept_waiting_by_the_doctor(patient: Patient) -> None:
    class Running(FakeEngines):
        def __call__(self, *args: Any) -> Engine:  # the doctor loads a model: someone writes meanwhile
            next(patient.vault.rglob("*.md")).write_text("Of the rosemary nothing is known.", encoding="utf-8")
            index_vault(patient.settings, patient.vault, hooks=Hooks(engines=FakeEngines()))
            return super().__call__(*args)

    found = [f for f in examine(patient.settings, patient.vault, CONFIG, Running()) if f.topic in ("index", "Chroma")]
    assert [finding.level for finding in found] == ["note"]
    assert "another process" in found[0].text
    assert patient.wrong() == {}


def test_the_command_that_chooses_the_model_again_is_the_one_that_does(patient: Patient) -> None:
    auto = replace(patient.settings, embedding_model="auto")
    notes = list(patient.vault.rglob("*.md"))

    def line() -> str:
        return next(finding.text for finding in patient.examine(auto) if finding.topic == "language")

    index_vault(auto, patient.vault, hooks=Hooks(engines=FakeEngines()))  # chooses the model of English notes
    for path in notes[:4]:
        path.write_text("겨울에는 도서관에서 책을 읽고 편지를 쓴다. " * 10, encoding="utf-8")
    assert line().endswith("run: python main.py index --full")
    (auto.vault_dir(patient.vault) / "choice.json").unlink()  # as where a name stood in config.py until now
    assert line().endswith("run: python main.py index")
    index_vault(auto, patient.vault, hooks=Hooks(engines=FakeEngines()))
    assert "knows the notes' languages" in line()


def test_a_half_written_config_is_told_and_everything_else_is_still_checked(
    patient: Patient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.py"
    config.write_text(CONFIG.read_text(encoding="utf-8")[:1500] + '\nENGINE = "open', encoding="utf-8")
    monkeypatch.setattr(main, "CONFIG", config)
    monkeypatch.setenv("VAULTVEC_DATA", str(tmp_path / "data"))
    assert main.main(["status", "--vault", str(patient.vault)]) == 1
    told = capsys.readouterr().err.strip()
    assert len(told.splitlines()) == 1
    assert "config.py line" in told
    assert main.main(["doctor", "--json"]) == 1
    rows = json.loads(capsys.readouterr().out)
    assert any(
        row["topic"] == "config.py" and row["level"] == "wrong" and "config_optimizer.py 3" in row["text"]
        for row in rows
    )
    assert any(row["topic"] == "weights" for row in rows)


def test_a_model_that_is_not_prepared_is_told_and_not_prepared(tmp_path: Path, tiny_bert: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data", embedding_model=str(tiny_bert))
    settings.models_dir.mkdir(parents=True)
    (found,) = (finding for finding in examine(settings, None, CONFIG, FakeEngines()) if finding.topic == "weights")
    assert (found.level, found.text) == ("note", f"{tiny_bert}: not prepared yet; python main.py index does it")
    assert not list(settings.models_dir.iterdir())
    resolve_model(resolve(str(tiny_bert)), settings.models_dir)
    (found,) = (finding for finding in examine(settings, None, CONFIG, FakeEngines()) if finding.topic == "weights")
    assert (found.level, found.text) == ("ok", f"{tiny_bert}: prepared")
    gone = replace(settings, embedding_model=str(tmp_path / "gone"))
    (found,) = (finding for finding in examine(gone, None, CONFIG, FakeEngines()) if finding.topic == "weights")
    assert (found.level, "no such folder" in found.text) == ("wrong", True)


def test_a_data_folder_that_is_a_file_and_a_missing_vault(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = examine(fake_settings(tmp_path / "file" / "data"), tmp_path / "nowhere", CONFIG, FakeEngines())
    wrong = {finding.topic: finding.text for finding in found if finding.level == "wrong"}
    assert "expected a folder" in wrong["data folder"]
    assert "vault not found" in wrong["vault"]


def test_a_missing_package_is_named(patient: Patient, tmp_path: Path) -> None:
    shutil.copy(CONFIG, tmp_path / "config.py")
    (tmp_path / "requirements.txt").write_text("numpy==0.0.1\nno-such-package==1.0  # why\n", encoding="utf-8")
    found = {f.text: f.level for f in patient.examine(config=tmp_path / "config.py") if f.topic == "packages"}
    assert any("no-such-package is not installed; run: make setup" in text for text in found)
    assert any("tested with 0.0.1" in text for text in found)
