"""The per-file baseline and the whole-vault processor: the same chunk ids, the same vectors."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest

from obsidian_processor import ObsidianProcessor
from obsidian_processor_optimized import OptimizedObsidianProcessor
from vaultvec.datatypes import Chunk, Note
from vaultvec.index import current_index
from vaultvec.ledger import Ledger, ModelRow
from vaultvec.lookup import export_rows
from vaultvec.models import L6
from vaultvec.settings import Settings

SAMPLE = Path(__file__).resolve().parents[1] / "sample_vault"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(data_dir=tmp_path_factory.mktemp("data"), embedding_model=L6, memory_check_interval=3600.0)


def exported(path: Path) -> tuple[list[str], np.ndarray]:
    with Ledger(path, readonly=True) as ledger:
        ids, _, _, vectors = export_rows(ledger, 1, 384)
    return ids, vectors


def test_baseline_and_fast_path_agree(settings: Settings) -> None:
    baseline = ObsidianProcessor(settings, SAMPLE)
    gc.freeze()  # the baseline collects garbage after each chunk: let it not look through the whole test session each time
    try:
        slow = baseline.process_all_files()
    finally:
        gc.unfreeze()
    fast = OptimizedObsidianProcessor(settings, SAMPLE).process_all_files_batch()
    assert slow.notes_indexed == fast.notes_indexed > 40
    assert slow.chunks_embedded == fast.chunks_total > fast.chunks_embedded * 0.9
    slow_ids, slow_vectors = exported(baseline.folder / "ledger.sqlite3")
    fast_ids, fast_vectors = exported(current_index(settings, SAMPLE) / "ledger.sqlite3")
    assert slow_ids == fast_ids
    assert float((slow_vectors * fast_vectors).sum(axis=1).min()) >= 0.999


def test_a_note_that_the_chunker_stumbles_over_costs_the_baseline_only_itself(settings: Settings) -> None:
    class Stumbling:
        def chunk(self, _: Note) -> list[Chunk]:
            raise ValueError("an odd note")

    baseline = ObsidianProcessor(settings, SAMPLE)
    file = OptimizedObsidianProcessor(settings, SAMPLE).files()[0]
    baseline.process_file(file, Stumbling(), None, None, None, None)  # type: ignore[arg-type]
    [(path, reason)] = baseline.report.notes_failed
    assert path == file.path
    assert "an odd note" in reason


def test_the_guides_steps_for_one_file(settings: Settings, tmp_path: Path) -> None:
    processor = OptimizedObsidianProcessor(settings, SAMPLE)
    file = next(file for file in processor.files() if file.path.endswith("Backups 3-2-1.md"))
    chunks, rows = processor._extract_chunks_from_file(file)
    assert [row["path"] for row in rows] == [file.path] * len(chunks)
    assert rows[0]["title"] == "Backups 3-2-1"
    vectors = np.eye(384, dtype=np.float32)[: len(chunks)]
    with Ledger(tmp_path / "ledger.sqlite3") as ledger:
        model = ledger.register_model("test", L6, 384)
        from vaultvec.notes import read_note

        digest, note = read_note(file)
        ledger.apply_note(file, digest, note, chunks, [ModelRow(model, "test", 384)])
        assert processor._save_vectors_batch(ledger, model, chunks, vectors) == len(chunks)
        ids, _, _, stored = export_rows(ledger, model, 384)
    assert ids == [chunk.id for chunk in chunks]
    assert np.array_equal(stored, vectors)
