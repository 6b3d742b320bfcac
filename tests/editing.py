"""Run after run over an edited vault, each compared with a fresh index and with the texts that had to be embedded."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from edits import Edit, VaultEdits
from fake_engine import FakeEngines, fake_settings
from index_state import assert_same, state_of
from made_vault import write_vault

from vaultvec.pipeline import Hooks, index_vault


def check_rounds(folder: Path, rounds: Sequence[Sequence[Edit]], notes: int = 6) -> int:
    """Index, then for each round edit and index again. Returns the edits applied."""
    vault = write_vault(folder / "vault", notes, seed=3)
    (vault / "keep.md").write_text("A note that no edit can be the last one of.\n", encoding="utf-8")
    edits, ever = VaultEdits(vault), set[str]()
    count = 0
    for number, batch in enumerate([(), *rounds]):
        for edit in batch:
            edits.apply(edit)
            count += 1
        _check_run(folder / "data", folder / f"fresh {number}", vault, ever)
    return count


def _check_run(data: Path, fresh: Path, vault: Path, ever: set[str]) -> None:
    if not any(vault.rglob("*.md")):
        return
    engines = FakeEngines()
    report = index_vault(fake_settings(data), vault, hooks=Hooks(engines=engines), accept_deletions=True)
    index_vault(fake_settings(fresh), vault, hooks=Hooks(engines=FakeEngines()))
    found = state_of(fake_settings(data), vault)
    assert_same(found, state_of(fake_settings(fresh), vault))
    shutil.rmtree(fresh)
    texts = {row[1] for row in found.chunks.values()}
    assert sorted(engines.texts) == sorted(texts - ever), "embedded: exactly the texts never seen before"
    assert report.chunks_embedded == len(engines.texts)
    ever |= texts
