"""Advice names the vault that the command line named, and leaves alone what names one already."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from vaultvec.advice import name_vault, quoted, with_vault


@pytest.fixture(autouse=True)
def vault() -> Iterator[None]:
    name_vault("/my notes")
    yield
    name_vault(None)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("run: python main.py index", 'run: python main.py index --vault "/my notes"'),
        ("python main.py index --full", 'python main.py index --vault "/my notes" --full'),
        (
            "run: python main.py rebuild, then python main.py index (it …)",
            'run: python main.py rebuild --vault "/my notes", then python main.py index --vault "/my notes" (it …)',
        ),
        (
            'python main.py index --vault "/a" --accept-deletions',
            'python main.py index --vault "/a" --accept-deletions',
        ),
        ("python main.py doctor again", 'python main.py doctor --vault "/my notes" again'),
        (
            "python embedding_speed_fix.py 1 --thorough",
            'python embedding_speed_fix.py 1 --vault "/my notes" --thorough',
        ),
        ("python config_optimizer.py 2", 'python config_optimizer.py 2 --vault "/my notes"'),
        ("python config_optimizer.py 3", "python config_optimizer.py 3"),
        ("not embedded: python main.py index.md: binary", "not embedded: python main.py index.md: binary"),
        ("python main.py --help", "python main.py --help"),
        ("python main.py models", "python main.py models"),
    ],
)
def test_commands_are_completed(said: str, expected: str) -> None:
    assert with_vault(said) == expected
    assert with_vault(expected) == expected  # some messages pass through twice


def test_without_a_vault_on_the_command_line_advice_stays_short() -> None:
    name_vault(None)
    assert with_vault("run: python main.py index") == "run: python main.py index"


def test_a_path_with_signs_of_the_shell() -> None:
    assert quoted("/my notes") == '"/my notes"'
    assert quoted("/a $b") == "'/a $b'"
