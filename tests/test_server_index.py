"""The whole way with a server: index, second run, search, a model that was pulled anew, and the benchmark's Ollama row."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_engine import FakeEngines, fake_settings
from protocol_server import DIM, POISON, vector

from vaultvec.doctor import examine
from vaultvec.engines import create_engine
from vaultvec.engines.base import Engine
from vaultvec.engines.openai_engine import OpenAIEngine
from vaultvec.engines.server_patience import Patience
from vaultvec.errors import EngineError, VaultvecError
from vaultvec.index import current_index
from vaultvec.ledger import Ledger
from vaultvec.lookup import export_rows
from vaultvec.measure.extras import Trying, ollama_answers, try_ollama
from vaultvec.models import L6, ModelSpec, resolve
from vaultvec.pipeline import Hooks, index_vault
from vaultvec.session import open_searcher
from vaultvec.settings import Settings
from vaultvec.status import read_status


@contextmanager
def serving(*arguments: str) -> Iterator[str]:
    """A server process and its address."""
    command = [sys.executable, str(Path(__file__).with_name("protocol_server.py")), *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        assert server.stdin is not None
        server.stdin.close()
        server.wait(5)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving() as address:
        yield address


def hasty(settings: Settings, model: ModelSpec, models_dir: Path, notify: Callable[[str], None]) -> Engine:
    """The OpenAI engine, which tries again once and soon."""
    patience = Patience(retries=1, backoff=0.001, load_seconds=5.0)
    return OpenAIEngine.connect(
        model, settings.openai_url, None, window=32, notify=notify, patience=patience, seen=models_dir / "served"
    )


@pytest.fixture
def settings(url: str, tmp_path: Path) -> Settings:
    return Settings(
        data_dir=tmp_path / "data", engine="ollama", ollama_url=url, openai_url=f"{url}/v1",
        embedding_model="nomic-embed-text", fast_mode=False,
    )  # fmt: skip


@pytest.fixture
def vault(tmp_path: Path) -> Path:
    folder = tmp_path / "vault"
    folder.mkdir()
    for name in ("Bread", "Knees", "Boats"):
        (folder / f"{name}.md").write_text(f"# {name}\n\nAll there is to say about {name.lower()}.\n", encoding="utf-8")
    return folder


def test_index_and_search_with_ollama(settings: Settings, vault: Path) -> None:
    report = index_vault(settings, vault)
    assert (report.chunks_embedded, report.engine, report.notes_failed) == (3, "ollama", [])
    again = index_vault(settings, vault)
    assert (again.chunks_embedded, again.notes_unchanged) == (0, 3)
    assert read_status(settings, vault).remarks == [], "the index is the one that config.py asks for"
    assert "vectors were made by ollama" in read_status(replace(settings, engine="auto"), vault).remarks[0]
    with Ledger(current_index(settings, vault) / "ledger.sqlite3", readonly=True) as ledger:
        _, _, texts, vectors = export_rows(ledger, 1, DIM)
    expected = np.array([vector(f"search_document: {text}") for text in texts])
    assert np.allclose(vectors, expected, atol=1e-5), "the model's document prefix is part of what is embedded"
    searcher = open_searcher(settings, vault)
    try:
        assert searcher.search("bread", 3).results[0].title == "Bread"
    finally:
        searcher.close()


def test_a_server_that_dies_loses_nothing_that_it_did(tmp_path: Path) -> None:
    folder = tmp_path / "vault"
    folder.mkdir()
    for i in range(90):
        (folder / f"Note {i}.md").write_text(f"# Note {i}\n\n{'Words to fill it. ' * 20}\n", encoding="utf-8")
    (folder / "z.md").write_text(POISON, encoding="utf-8")  # shortest, so in the last request of a window
    common = Settings(data_dir=tmp_path / "data", engine="openai", embedding_model="plain", streams=1)
    with serving("mortal") as address:
        settings = replace(common, openai_url=f"{address}/v1")
        with pytest.raises(EngineError, match=r"what is embedded is kept.*then repeat the command") as error:
            index_vault(settings, folder, hooks=Hooks(engines=hasty))
    assert "\n" not in str(error.value)
    kept = read_status(settings, folder).embedded
    with serving() as address:  # at another port: the same model, so the same index goes on
        settings = replace(common, openai_url=f"{address}/v1")
        report = index_vault(settings, folder, hooks=Hooks(engines=hasty))
    status = read_status(settings, folder)
    assert 0 < kept < status.chunks == status.embedded
    assert (report.chunks_embedded, len(status.other_indexes)) == (status.chunks - kept, 0)


def test_doctor_asks_the_server(url: str, tmp_path: Path) -> None:
    config = Path(__file__).parents[1] / "config.py"
    there = Settings(data_dir=tmp_path, engine="openai", openai_url=f"{url}/v1", embedding_model="plain")
    [answer, place] = [finding for finding in examine(there, None, config) if finding.topic == "server"]
    assert (answer.level, answer.text) == ("ok", f"plain on {url}/v1: vectors of {DIM}, 512 tokens a text")
    assert "leave this process" in place.text
    [found] = [f for f in examine(replace(there, embedding_model="missing"), None, config) if f.topic == "server"]
    assert (found.level, "set EMBEDDING_MODEL" in found.text) == ("wrong", True)


def test_another_engine_says_what_made_the_index(settings: Settings, vault: Path) -> None:
    index_vault(settings, vault)
    searcher = open_searcher(replace(settings, engine="auto"), vault)
    try:
        with pytest.raises(
            VaultvecError, match=r'made with ENGINE = "ollama", config\.py says ENGINE = "auto"; .*keyword'
        ):
            searcher.search("bread")
        assert searcher.search("bread", mode="keyword").results[0].title == "Bread", "no vector is needed for it"
        assert searcher.related("Bread", 1)[0].title != "Bread"
    finally:
        searcher.close()


def test_an_index_made_here_answers_though_a_server_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "vault").mkdir()
    (tmp_path / "vault" / "a.md").write_text("Water the basil in the morning.", encoding="utf-8")
    here = fake_settings(tmp_path / "data")
    for settings in (here, replace(here, min_chunk_tokens=8)):  # the second embeds nothing, so it notes no engine
        index_vault(settings, tmp_path / "vault", hooks=Hooks(engines=FakeEngines()))
    for asked in (
        settings,
        replace(settings, engine="ollama", ollama_url="http://127.0.0.1:9"),
    ):  # nobody answers there
        searcher = open_searcher(asked, tmp_path / "vault")
        try:
            assert searcher.search("basil").results[0].path == "a.md"
        finally:
            searcher.close()
    assert 'ENGINE is "ollama", the vectors were made here' in read_status(asked, tmp_path / "vault").remarks[0]


def test_an_index_that_does_not_say_what_made_it_still_answers(settings: Settings, vault: Path) -> None:
    """A server's: every vector was another index's, and config.py asks for a third size of chunks by now."""
    for index in (settings, replace(settings, min_chunk_tokens=8)):
        index_vault(index, vault)
    third = replace(settings, min_chunk_tokens=9)
    searcher = open_searcher(third, vault)
    try:
        assert searcher.search("bread", 3).results[0].title == "Bread"
    finally:
        searcher.close()
    assert "MIN_CHUNK_TOKENS 9 is new" in read_status(third, vault).remarks[0]


def test_the_benchmark_has_a_row_for_ollama(tmp_path: Path, url: str) -> None:
    assert ollama_answers(url)
    assert not ollama_answers("http://example.com:11434"), "other machines are not asked"
    local = Settings(data_dir=tmp_path / "data", ollama_url=url)
    engine = create_engine(local, resolve(L6), local.models_dir)
    trying = Trying(local, engine, ["one text", "another text"], create_engine, lambda _: None, lambda _: None)
    row = try_ollama(trying)
    assert row.label == "Ollama"
    assert row.texts_per_second
    assert "fast path" in row.finding
