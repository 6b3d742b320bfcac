"""The whole way with a server: index, second run, search, a model that was pulled anew, and the benchmark's Ollama row."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from protocol_server import DIM, vector

from vaultvec.engines import create_engine
from vaultvec.errors import VaultvecError
from vaultvec.index import current_index
from vaultvec.ledger import Ledger
from vaultvec.lookup import export_rows
from vaultvec.measure.extras import Trying, ollama_answers, try_ollama
from vaultvec.models import L6, resolve
from vaultvec.pipeline import index_vault
from vaultvec.session import open_searcher
from vaultvec.settings import Settings


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    command = [sys.executable, str(Path(__file__).with_name("protocol_server.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        assert server.stdin is not None
        server.stdin.close()
        server.wait(5)


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
    with Ledger(current_index(settings, vault) / "ledger.sqlite3", readonly=True) as ledger:
        _, _, texts, vectors = export_rows(ledger, 1, DIM)
    expected = np.array([vector(f"search_document: {text}") for text in texts])
    assert np.allclose(vectors, expected, atol=1e-5), "the model's document prefix is part of what is embedded"
    searcher = open_searcher(settings, vault)
    try:
        assert searcher.search("bread", 3).results[0].title == "Bread"
    finally:
        searcher.close()


def test_another_engine_says_what_made_the_index(settings: Settings, vault: Path) -> None:
    index_vault(settings, vault)
    with pytest.raises(VaultvecError, match="ollama"):
        open_searcher(replace(settings, engine="auto"), vault)


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
