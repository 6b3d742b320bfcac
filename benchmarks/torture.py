"""The long versions of the robustness tests: kills, edits, faults, odd inputs. Prints what was survived and lost.

    python -m benchmarks.torture [--seconds 240] [--seed 1]

Half of the time goes to kills. Everything is made in a temporary folder; the tests' fake engine takes the
model's place.
"""

from __future__ import annotations

import argparse
import random
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS.parent), str(TESTS)]

from chunk_laws import check_chunks
from editing import check_rounds
from edits import EDITS
from fake_engine import FakeEngines, fake_settings
from index_state import assert_same, state_of
from killing import Scene, kill_once
from made_vault import update_vault, write_vault

from vaultvec.chroma_folder import discard
from vaultvec.chunks import Chunker, ChunkLimits
from vaultvec.datatypes import Chunk, Note
from vaultvec.engines import load_tokenizer
from vaultvec.errors import BatchTooLarge, LedgerError, VaultError, VaultvecError
from vaultvec.index import current_index
from vaultvec.integrity import examine_index
from vaultvec.models import L6, USE, resolve
from vaultvec.notes import parse_note
from vaultvec.pipeline import Hooks, index_vault
from vaultvec.rebuild import rebuild
from vaultvec.settings import Settings

WORKS = ("first", "apart", "update", "rebuild")


@dataclass
class Tally:
    """What was done, and what it cost."""

    done: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)

    def attempt(self, name: str, act: Callable[[], int]) -> None:
        """Count what `act` returns; a failed comparison is a loss."""
        try:
            self.done[name] += act()
        except AssertionError as error:
            self.lost.append(f"{name}: {' '.join(str(error).split())[:200]}")


def torture_kills(tally: Tally, folder: Path, rng: random.Random, seconds: float) -> None:
    """SIGKILL at random moments of first indexes, updates and rebuilds."""
    scenes = []
    for work in WORKS:
        (folder / work).mkdir()
        scenes.append(Scene.prepare(folder / work, work, notes=30, seed=rng.randrange(1000)))
    number, deadline = 0, time.monotonic() + seconds
    while time.monotonic() < deadline:
        scene = scenes[number % len(scenes)]
        data = folder / f"data {number}"
        tally.attempt(f"kills survived, {scene.work}", partial(kill_once, scene, data, rng.random()))
        number += 1


def torture_edits(tally: Tally, folder: Path, rng: random.Random, seconds: float) -> None:
    """Random edits between runs, each run compared with a fresh index."""
    number, deadline = 0, time.monotonic() + seconds
    while time.monotonic() < deadline:
        rounds = [
            [(rng.choice(EDITS), rng.randrange(1000), rng.randrange(1000)) for _ in range(rng.randint(1, 12))]
            for _ in range(4)
        ]
        tally.attempt("edits applied", partial(check_rounds, folder / f"edits {number}", rounds))
        number += 1


def torture_faults(tally: Tally, folder: Path, rng: random.Random, seconds: float) -> None:
    """Damaged pages, lost Chroma folders, engines without memory, on one index again and again."""
    vault = write_vault(folder / "vault", 18, rng.randrange(1000))
    settings = fake_settings(folder / "data")
    index_vault(settings, vault, hooks=Hooks(engines=FakeEngines()))
    number, deadline = 0, time.monotonic() + seconds
    while time.monotonic() < deadline:
        number += 1
        fault = (_damage_pages, _cut_short, _lose_chroma, _starve)[number % 4]
        tally.attempt(f"faults injected, {fault.__name__[1:]}", partial(_fault, fault, settings.data_dir, vault, rng))


def _fault(inject: Callable[[Path, random.Random], FakeEngines], data: Path, vault: Path, rng: random.Random) -> int:
    """Inject, update the vault, follow what the error line says, and compare with a clean index."""
    settings = fake_settings(data)
    ledger = current_index(settings, vault) / "ledger.sqlite3"
    sqlite3.connect(ledger).execute("PRAGMA wal_checkpoint(TRUNCATE)").connection.close()
    engines = inject(ledger, rng)
    update_vault(vault, rng.randrange(1000))
    try:
        index_vault(settings, vault, hooks=Hooks(engines=engines), accept_deletions=True)
    except VaultvecError as error:
        line = str(error)
        assert "\n" not in line
        if isinstance(error, LedgerError):
            assert "python main.py rebuild" in line, line
            rebuild(settings, vault)
    for attempt in range(3):
        line = _index_again(settings, vault)
        if not line:
            break
        assert attempt < 2, line
        rebuild(settings, vault)
    with tempfile.TemporaryDirectory() as fresh:
        index_vault(fake_settings(Path(fresh)), vault, hooks=Hooks(engines=FakeEngines()))
        assert_same(state_of(settings, vault), state_of(fake_settings(Path(fresh)), vault))
    return 1


def _index_again(settings: Settings, vault: Path) -> str:
    """A full run, then the doctor. What is wrong, "" when nothing is."""
    try:
        index_vault(settings, vault, hooks=Hooks(engines=FakeEngines()), accept_deletions=True, full=True)
    except LedgerError as error:
        return str(error)
    found = examine_index(current_index(settings, vault), lambda model, _: FakeEngines()(settings, model, Path()))
    return "; ".join(finding.text for finding in found if finding.level == "wrong")


def _damage_pages(ledger: Path, rng: random.Random) -> FakeEngines:
    data = bytearray(ledger.read_bytes())
    page = rng.randrange(len(data) // 4096)
    data[page * 4096 : page * 4096 + 4096] = rng.randbytes(4096)
    ledger.write_bytes(data)
    return FakeEngines()


def _cut_short(ledger: Path, rng: random.Random) -> FakeEngines:
    data = ledger.read_bytes()
    ledger.write_bytes(data[: rng.randrange(100, len(data))])
    return FakeEngines()


def _lose_chroma(ledger: Path, rng: random.Random) -> FakeEngines:
    chroma = ledger.parent / "chroma"
    if rng.random() < 0.5:
        discard(chroma)
    else:
        database = chroma / "chroma.sqlite3"
        data = database.read_bytes()
        database.write_bytes(data[: rng.randrange(len(data))])
    return FakeEngines()


def _starve(_: Path, rng: random.Random) -> FakeEngines:
    def forward(_: object, vectors: object) -> object:
        if rng.random() < 0.5:
            raise BatchTooLarge("injected")
        return vectors

    return FakeEngines(forward=forward)  # type: ignore[arg-type]


def torture_inputs(tally: Tally, _: Path, rng: random.Random, seconds: float) -> None:
    """Random notes through the reader and the chunker, every law checked."""
    chunkers = {name: load_tokenizer(resolve(name), Path()) for name in (L6, USE)}
    pieces = [
        "# ",
        "## x\n",
        "\n",
        "\n\n",
        "===\n",
        "- ",
        "> ",
        "```",
        "[[",
        "]]",
        "%%",
        "<!--",
        "-->",
        "$$",
        "word ",
        "Satz. ",
        "한국어 ",
        "[SEP]",
        "##ing",
        "x" * 200,
        "\u0301",
        "\u2028",
        "\x85",
        "\ufeff",
        "| a |",
        "^id",
        "#tag ",
        "---\n",
    ]
    slowest, deadline = 0.0, time.monotonic() + seconds
    while time.monotonic() < deadline:
        text = "".join(rng.choice(pieces) for _ in range(rng.randint(0, 200)))
        data = text.encode("utf-8") if rng.random() < 0.8 else rng.randbytes(rng.randint(0, 400))
        path = rng.choice(("a.md", "b c.md", "d.canvas"))
        began = time.perf_counter()
        try:
            note = parse_note(path, data)
        except VaultError:
            tally.done["inputs fuzzed"] += 1
            continue
        name = rng.choice((L6, USE))
        size = rng.randint(32, 256)
        chunker = Chunker(chunkers[name], ChunkLimits(size, rng.randint(0, size), resolve(name).max_tokens))
        chunks = chunker.chunk(note)
        slowest = max(slowest, time.perf_counter() - began)
        tally.attempt("inputs fuzzed", partial(_checked, chunker, note, chunks))
    tally.done["slowest note, ms"] = round(1000 * slowest)


def _checked(chunker: Chunker, note: Note, chunks: list[Chunk]) -> int:
    check_chunks(chunker, note, chunks)
    return 1


SHARES = {torture_kills: 0.5, torture_edits: 0.2, torture_faults: 0.2, torture_inputs: 0.1}


def main() -> int:
    """Torture for a while and print the figures; the exit code is 1 when something was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    tally, rng = Tally(), random.Random(args.seed)
    with tempfile.TemporaryDirectory() as name:
        for part, share in SHARES.items():
            folder = Path(name) / part.__name__
            folder.mkdir()
            part(tally, folder, rng, share * args.seconds)
    for what, count in sorted(tally.done.items()):
        print(f"{what}: {count:,}")
    print(f"lost: {len(tally.lost) or 'nothing'}")
    for line in tally.lost:
        print(f"  {line}")
    return 1 if tally.lost else 0


if __name__ == "__main__":
    sys.exit(main())
