"""Which models an index takes: EMBEDDING_MODEL = "mixed" is both, whatever the notes are in."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_engine import FakeEngines, fake_settings
from made_index import MadeIndex

from vaultvec.choice import language_warning, server_model
from vaultvec.datatypes import IndexReport
from vaultvec.errors import SettingsError
from vaultvec.fitting import difference_line
from vaultvec.index import current_index
from vaultvec.ledger import Ledger
from vaultvec.models import L6, USE, resolve
from vaultvec.pipeline import Hooks, index_vault
from vaultvec.settings import Settings
from vaultvec.status import read_status
from vaultvec.terminal.summaries import print_status

ENGLISH = "Roses are pruned in late winter, before the buds swell, with a clean and sharp blade."
KOREAN = "장미는 새순이 트기 전인 늦겨울에 깨끗하고 잘 드는 가위로 가지를 자른다."


@pytest.fixture
def vault(tmp_path: Path) -> Path:
    folder = tmp_path / "vault"
    folder.mkdir()
    for i in range(6):
        (folder / f"rose{i}.md").write_text(f"{ENGLISH} {i}\n", encoding="utf-8")
    return folder


def index(settings: Settings, vault: Path) -> IndexReport:
    return index_vault(settings, vault, hooks=Hooks(engines=FakeEngines()))


def vectors(settings: Settings, vault: Path) -> dict[str, int]:
    """Model → how many texts it has embedded."""
    with Ledger(current_index(settings, vault) / "ledger.sqlite3", readonly=True) as ledger:
        query = "SELECT name, count(*) FROM vectors JOIN models ON models.id = model GROUP BY name"
        return dict(ledger.db.execute(query).fetchall())


def test_mixed_takes_both_models_for_english_notes(tmp_path: Path, vault: Path) -> None:
    settings = fake_settings(tmp_path / "data", embedding_model="mixed")
    report = index(settings, vault)
    assert report.model == f"{USE} + {L6}"
    assert vectors(settings, vault) == {USE: 6, L6: 6}
    assert (report.models_run, report.precision) == (2, "fp32")
    with Ledger(current_index(settings, vault) / "ledger.sqlite3") as ledger:
        ledger.set_meta("precision of model 2", "int8")
    again = index(settings, vault)
    assert (again.chunks_embedded, again.models_run, again.precision) == (0, 0, "fp32 + int8")


def test_a_chunk_that_two_models_embed_is_one_chunk_among_those_reused(tmp_path: Path, vault: Path) -> None:
    settings = fake_settings(tmp_path / "data", embedding_model="mixed")
    (vault / "a").mkdir()
    (vault / "a" / "rose0.md").write_bytes((vault / "rose0.md").read_bytes())
    report = index(settings, vault)
    assert (report.chunks_total, report.chunks_embedded, report.chunks_reused, report.vectors_made) == (7, 6, 1, 12)
    (vault / "rose1.md").write_text("Tulips are planted in autumn.\n", encoding="utf-8")
    (vault / "b").mkdir()
    (vault / "rose2.md").rename(vault / "b" / "rose2.md")
    report = index(settings, vault)
    assert (report.notes_indexed, report.chunks_embedded, report.chunks_reused, report.vectors_made) == (2, 1, 1, 2)


def test_notes_that_the_english_model_cannot_read_are_the_others(tmp_path: Path, vault: Path) -> None:
    (vault / "장미.md").write_text(f"{KOREAN}\n", encoding="utf-8")  # too few for "auto" to take a second model
    auto = fake_settings(tmp_path / "auto", embedding_model="auto")
    for i in range(10):
        (vault / f"more{i}.md").write_text(f"{ENGLISH} once more {i}\n", encoding="utf-8")
    index(auto, vault)
    assert set(vectors(auto, vault)) == {L6}
    mixed = fake_settings(tmp_path / "mixed", embedding_model="mixed")
    index(mixed, vault)
    assert vectors(mixed, vault) == {USE: 17, L6: 16}


def test_the_same_two_models_are_the_same_index_however_they_were_chosen(tmp_path: Path, vault: Path) -> None:
    for i in range(4):
        (vault / f"노트{i}.md").write_text(f"{KOREAN} {i}\n", encoding="utf-8")
    index(fake_settings(tmp_path / "data", embedding_model="auto"), vault)
    assert index(fake_settings(tmp_path / "data", embedding_model="mixed"), vault).notes_indexed == 0


def test_an_index_of_one_model_is_told_from_one_of_both(tmp_path: Path, vault: Path) -> None:
    one, both = (fake_settings(tmp_path / "data", embedding_model=name) for name in (L6, "mixed"))
    index(one, vault)
    with Ledger(current_index(one, vault) / "ledger.sqlite3", readonly=True) as ledger:
        assert difference_line(one, vault, ledger) == ""
        assert f"{USE} + {L6}" in difference_line(both, vault, ledger)


def test_what_is_also_kept_says_whose_vectors_it_holds(
    tmp_path: Path, vault: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both, one = (fake_settings(tmp_path / "data", embedding_model=name) for name in ("mixed", L6))
    index(both, vault)
    index(one, vault)
    status = read_status(one, vault)
    (kept,) = status.other_indexes
    assert kept.models == f"{USE} + {L6}"
    assert status.as_dict()["other_indexes"] == [{"name": kept.name, "bytes": kept.bytes, "models": kept.models}]
    print_status(status)
    shown = capsys.readouterr()
    assert f"({USE} + {L6})" in shown.out
    assert "to free its space, delete that folder" in shown.err
    (Path(status.folder).parent / kept.name / "ledger.sqlite3").unlink()
    assert read_status(one, vault).other_indexes[0].models == ""


def test_a_server_runs_one_model() -> None:
    with pytest.raises(SettingsError, match=r'"mixed".*by name'):
        server_model(Settings(engine="openai", embedding_model="mixed"))


@pytest.mark.parametrize(
    ("query", "advised"),
    [("장미는 언제 자르나요", '= "mixed"'), ("गुलाब की छंटाई कब करें", "to a model that knows it")],
)
def test_a_query_that_the_model_cannot_read_names_what_would(tmp_path: Path, query: str, advised: str) -> None:
    made = MadeIndex(tmp_path, [("en",)])
    made.put("a.md", ENGLISH)
    searcher = made.searcher()
    remarks = searcher.search(query).remarks
    searcher.close()
    assert any(f"EMBEDDING_MODEL {advised}" in remark for remark in remarks), remarks
    searcher = made.searcher("mixed")
    (remark,) = searcher.search(query).remarks
    searcher.close()
    if "mixed" in advised:  # config.py has it: only the index is still to be made
        assert remark.endswith("To search in it by meaning, run: python main.py index")
    else:
        assert advised in remark


def test_notes_that_no_model_of_ours_reads_are_not_sent_round_in_a_circle() -> None:
    """Choosing again takes the same models again."""
    vietnamese = "Cách tỉa hoa hồng vào cuối mùa đông với một lưỡi dao sạch và sắc."
    again = "python main.py index --full"
    for models in ([resolve(L6)], [resolve(USE), resolve(L6)]):
        line = language_warning(models, [ENGLISH, vietnamese], choose=again)
        assert line.endswith(
            "(most: vi); set EMBEDDING_MODEL to a model that knows them in config.py and run: python main.py index"
        )
    assert language_warning([resolve(L6)], [KOREAN, vietnamese], choose=again).endswith(f"run: {again}")
