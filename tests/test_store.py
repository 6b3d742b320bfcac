"""Chroma on disk: another client opens the collection and finds the same neighbours with its own vectors."""

from __future__ import annotations

from pathlib import Path

import chromadb
import numpy as np
import pytest

from vaultvec.engines import create_engine
from vaultvec.index import current_index
from vaultvec.ledger import Ledger
from vaultvec.lookup import export_rows
from vaultvec.models import L6, resolve
from vaultvec.pipeline import index_vault
from vaultvec.rebuild import rebuild
from vaultvec.settings import Settings

SAMPLE = Path(__file__).resolve().parents[1] / "sample_vault"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = Settings(data_dir=tmp_path_factory.mktemp("data"), embedding_model=L6)
    index_vault(settings, SAMPLE)
    return settings


def collection(settings: Settings) -> chromadb.Collection:
    client = chromadb.PersistentClient(path=str(current_index(settings, SAMPLE) / "chroma"))
    (only,) = client.list_collections()
    return client.get_collection(only.name, embedding_function=None)


def test_another_client_queries_with_its_own_vectors(settings: Settings) -> None:
    engine = create_engine(settings, resolve(L6), settings.models_dir)
    vector = engine.embed_query("three copies of my files on two kinds of media")
    found = collection(settings).query(query_embeddings=vector[None, :], n_results=3)
    assert "Software/Backups 3-2-1.md" in [row["path"] for row in found["metadatas"][0]]


def test_chroma_holds_what_the_ledger_holds(settings: Settings) -> None:
    with Ledger(current_index(settings, SAMPLE) / "ledger.sqlite3", readonly=True) as ledger:
        ids, _, texts, vectors = export_rows(ledger, 1, 384)
    got = collection(settings).get(ids=ids, include=["embeddings", "documents"])
    position = {name: i for i, name in enumerate(got["ids"])}
    order = [position[name] for name in ids]
    assert collection(settings).count() == len(ids)
    assert [got["documents"][i] for i in order] == texts
    assert np.allclose(np.asarray(got["embeddings"])[order], vectors, atol=1e-6)


def test_rebuild_makes_the_same_collection_without_a_model(settings: Settings) -> None:
    before = collection(settings).get(include=["documents"])
    chromadb.api.client.SharedSystemClient.clear_system_cache()
    assert rebuild(settings, SAMPLE) == len(before["ids"])
    chromadb.api.client.SharedSystemClient.clear_system_cache()
    after = collection(settings).get(include=["documents"])
    pairs = [dict(zip(rows["ids"], rows["documents"], strict=True)) for rows in (before, after)]
    assert pairs[0] == pairs[1]
