"""Coverage-guided fuzzing of the reader and the chunker: `python tests/fuzz/fuzz_notes.py [SECONDS]` (60).

Whatever the bytes: only VaultError comes out, the laws of tests/chunk_laws.py hold, and no input takes seconds. Inputs
that break one are kept in tests/fuzz/found/ and their path is printed.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS.parent), str(TESTS)]

try:
    import atheris
except ImportError:
    sys.exit(
        "atheris is not installed; run: pip install -r tests/fuzz/requirements.txt (it has wheels for Linux and "
        "Python 3.11 "
        f"to 3.13 only; this is {sys.platform}, Python {sys.version.partition(' ')[0]})"
    )

with atheris.instrument_imports(include=["vaultvec"]):
    from vaultvec.chunks import Chunker, ChunkLimits
    from vaultvec.engines import load_tokenizer
    from vaultvec.errors import VaultError
    from vaultvec.models import L6, resolve
    from vaultvec.notes import parse_note

from chunk_laws import check_chunks  # noqa: E402

SECONDS_AN_INPUT = 10
MAX_BYTES = 4096
PATHS = ("note.md", "board.canvas")
TOKENIZER = load_tokenizer(resolve(L6), Path())
count = 0


def try_input(data: bytes) -> None:
    """One input: two bytes choose the kind and the sizes, the rest is the file."""
    global count  # told at the end
    count += 1
    if len(data) < 2:
        return
    try:
        note = parse_note(PATHS[data[0] % 2], data[2:])
    except VaultError:
        return
    chunker = Chunker(TOKENIZER, ChunkLimits(32 + data[1], data[0] // 2, 256))
    check_chunks(chunker, note, chunker.chunk(note))


def main() -> None:
    """Seed the corpus with the sample vault, and fuzz."""
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    found = TESTS / "fuzz" / "found"
    found.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as corpus:
        notes = [
            path for path in sorted((TESTS.parent / "sample_vault").rglob("*")) if path.suffix in (".md", ".canvas")
        ]
        for number, path in enumerate(notes):
            kind = bytes([path.suffix == ".canvas", 100])
            (Path(corpus) / str(number)).write_bytes(kind + path.read_bytes()[: MAX_BYTES - 2])
        options = [
            sys.argv[0], corpus, f"-max_total_time={seconds}", f"-timeout={SECONDS_AN_INPUT}", f"-max_len={MAX_BYTES}",
            f"-artifact_prefix={found}/", "-print_final_stats=1", "-verbosity=0",
        ]  # fmt: skip
        atheris.Setup(options, try_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
