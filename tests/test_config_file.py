"""Rewriting config.py and taking it back."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from vaultvec import config_rewrite
from vaultvec.config_file import ConfigText, read_text, read_values
from vaultvec.config_keys import GUIDE_VALUES, KEYS
from vaultvec.config_rewrite import list_backups, plan_changes, restore, save
from vaultvec.errors import SettingsError

SHIPPED = (Path(__file__).resolve().parent.parent / "config.py").read_text(encoding="utf-8")
ODD = '''# 설정: 이 파일은 사람이 고칩니다
"""문서"""
EXCLUDE = [
    "일기/",  # 매일
    "b",
]
STREAMS: int = 3  # 값
FAST_MODE=False;THREADS = (4)
EMBEDDING_MODEL = "모델"  ; BATCH_SIZE = 64 # 묶음
MAX_TOKENS_PER_BATCH = (
    "au"
    "to"
)
'''


@pytest.fixture
def path(tmp_path: Path) -> Path:
    place = tmp_path / "config.py"
    place.write_bytes(ODD.encode())
    return place


def change(path: Path, changes: dict[str, Any]) -> Path | None:
    before = read_text(path)
    return save(before, plan_changes(before.text, changes))


def test_a_write_protected_file_is_not_written(path: Path) -> None:
    path.chmod(0o444)
    with pytest.raises(SettingsError, match=r"write-protected; .* run first: "):
        change(path, {"STREAMS": 12})
    assert path.read_bytes() == ODD.encode()
    assert not list_backups(path)


def test_only_values_change() -> None:
    changes = {"STREAMS": 12, "FAST_MODE": True, "THREADS": "auto", "BATCH_SIZE": 2000, "MAX_TOKENS_PER_BATCH": 4096}
    expected = (
        ODD.replace("= 3  #", "= 12  #")
        .replace("=False", "=True")
        .replace("(4)", '("auto")')
        .replace("= 64 #", "= 2000 #")
    ).replace('"au"\n    "to"', "4096")
    assert plan_changes(ODD, changes) == expected
    assert plan_changes(ODD.replace("\n", "\r\n"), changes) == expected.replace("\n", "\r\n")
    assert plan_changes(ODD.replace("\n", "\r"), changes) == expected.replace("\n", "\r")


def test_the_shipped_file_takes_the_guides_values_and_nothing_else_moves() -> None:
    new = plan_changes(SHIPPED, GUIDE_VALUES)
    pairs = [(a, b) for a, b in zip(SHIPPED.splitlines(), new.splitlines(), strict=True) if a != b]
    assert [b for _, b in pairs] == [f"{key} = {value!r}" for key, value in GUIDE_VALUES.items()]
    assert plan_changes(new, GUIDE_VALUES) == new


def test_equal_values_are_no_change() -> None:
    assert plan_changes(ODD, {"STREAMS": 3, "THREADS": 4, "WORKERS": "auto", "MEMORY_CHECK_INTERVAL": 2.0}) == ODD


def test_a_missing_key_is_appended_with_a_comment() -> None:
    new = plan_changes("STREAMS = 3", {"WORKERS": 2})
    assert new.startswith("STREAMS = 3\n# Added by config_optimizer.py.")
    assert new.endswith("\nWORKERS = 2\n")
    assert plan_changes("A = 1\r\n".replace("A", "STREAMS"), {"WORKERS": 2}).endswith("\r\nWORKERS = 2\r\n")
    assert plan_changes("", {"WORKERS": 2}).endswith("\nWORKERS = 2\n")


@pytest.mark.parametrize(
    ("text", "changes", "part"),
    [
        ("STREAMS = [", {"THREADS": 2}, "line 1"),
        ('STREAMS = "many"', {"STREAMS": 2}, 'STREAMS is "many"'),
        ("STREAMS = 2", {"STREAMS": "2"}, "expected 1 to 64"),
        ("STREAMS = 2", {"STREAMS": True}, "expected 1 to 64"),
        ("FAST_MODE = False", {"FAST_MODE": 1}, "True or False"),
        ("STREAMS = 2", {"NOTHING": 1}, "NOTHING is no key"),
        ("FAST_MODE = true", {"FAST_MODE": True}, "FAST_MODE is true, expected True or False"),
        ("STREAMS = 1 + 1", {"STREAMS": 3}, "plain value"),
    ],
)
def test_what_cannot_be_rewritten_is_refused(text: str, changes: dict[str, Any], part: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(part)):
        plan_changes(text, changes)


LETTERS = st.text(alphabet="a\"\\'#\n\r\t한é\x0c\u2028", max_size=6)


@hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=50)
@given(
    st.dictionaries(
        st.sampled_from(["STREAMS", "THREADS", "BATCH_SIZE", "EMBEDDING_MODEL", "EXCLUDE"]),
        st.one_of(st.integers(1, 64), LETTERS, st.lists(LETTERS, max_size=3)),
        max_size=3,
    )
)
def test_a_change_reads_back_as_it_was_asked_or_is_refused(changes: dict[str, Any]) -> None:
    if all(KEYS[key].check.accepts(value) for key, value in changes.items()):
        assert read_values(plan_changes(ODD, changes)) == read_values(ODD) | changes
    else:
        with pytest.raises(SettingsError):
            plan_changes(ODD, changes)


def test_encodings_and_byte_order_marks_are_kept(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbf" + ODD.encode())
    change(path, {"STREAMS": 5})
    assert path.read_bytes() == b"\xef\xbb\xbf" + ODD.replace("= 3", "= 5").encode()
    latin = "# -*- coding: latin-1 -*-\n# é\nSTREAMS = 3\n".encode("latin-1")
    path.write_bytes(latin)
    change(path, {"STREAMS": 5})
    assert path.read_bytes() == latin.replace(b"3", b"5")
    before = path.read_bytes()
    with pytest.raises(SettingsError, match="UTF-8"):
        change(path, {"EMBEDDING_MODEL": "모델"})
    assert path.read_bytes() == before


def test_the_original_comes_back_byte_for_byte_after_many_changes(path: Path) -> None:
    original = path.read_bytes()
    for streams in (5, 6, 7):
        change(path, {"STREAMS": streams})
    assert list_backups(path)[0].path.read_bytes() == original
    assert len(list_backups(path)) == 3
    assert restore(path) is not None
    assert path.read_bytes() == original
    assert [row.original for row in list_backups(path)] == [True, False, False, False]
    assert restore(path) is None
    assert len(list_backups(path)) == 4


def test_a_later_state_can_be_chosen(path: Path) -> None:
    change(path, {"STREAMS": 5})
    kept = change(path, {"STREAMS": 6})
    assert kept is not None
    restore(path, kept)
    assert read_values(path.read_text(encoding="utf-8"))["STREAMS"] == 5


def test_nothing_to_change_writes_nothing(path: Path) -> None:
    change(path, {"STREAMS": 5})
    marks = {row.name: row.stat().st_mtime_ns for row in path.parent.iterdir()}
    assert change(path, {"STREAMS": 5}) is None
    assert {row.name: row.stat().st_mtime_ns for row in path.parent.iterdir()} == marks


@pytest.mark.parametrize("broken", [b"STREAMS = [", b"\xff\xfe\x00", b"", None])
def test_a_broken_or_missing_file_is_restored(path: Path, broken: bytes | None) -> None:
    original = path.read_bytes()
    change(path, {"STREAMS": 5})
    if broken is None:
        path.unlink()
    else:
        path.write_bytes(broken)
    assert restore(path) is not None
    assert path.read_bytes() == original
    if broken is not None:
        assert broken in [row.path.read_bytes() for row in list_backups(path)]


def test_nothing_to_restore_is_one_line(path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nothing to restore: there is no config_backup\.py"):
        restore(path)
    assert path.read_bytes() == ODD.encode()


def test_an_edit_made_meanwhile_is_not_overwritten(path: Path) -> None:
    before = read_text(path)
    path.write_bytes(before.data + b"# mine\n")
    with pytest.raises(SettingsError, match="edited meanwhile"):
        save(before, plan_changes(before.text, {"STREAMS": 5}))
    assert path.read_bytes().endswith(b"# mine\n")
    assert list_backups(path) == []


def test_permissions_and_links_are_kept(path: Path) -> None:
    path.chmod(0o640)
    link = path.with_name("linked.py")
    link.symlink_to(path)
    text = read_text(link)
    assert config_rewrite.write_config(link, text.encode(text.text.replace("= 3", "= 5")))
    assert link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert b"= 5" in path.read_bytes()


def test_a_write_that_fails_leaves_the_file_and_no_litter(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SettingsError, match="No space left on device"):
        change(path, {"STREAMS": 5})
    assert path.read_bytes() == ODD.encode()
    assert [row.name for row in path.parent.iterdir()] == ["config.py"]


def test_the_diff_names_what_changes() -> None:
    new = plan_changes(SHIPPED, {"STREAMS": 3})
    text = config_rewrite.diff(SHIPPED, new)
    assert '-STREAMS = "auto"' in text.splitlines()
    assert "+STREAMS = 3" in text.splitlines()
    assert config_rewrite.diff(SHIPPED, SHIPPED) == ""
    assert config_rewrite.changed_lines(read_values(SHIPPED), read_values(new)) == ['STREAMS  "auto" → 3']


def test_two_states_of_one_second_are_both_kept(path: Path) -> None:
    names = {config_rewrite.keep(path, b"STREAMS = %d\n" % i).name for i in range(5)}
    assert len(names) == 5
    assert len(list_backups(path)) == 5
    assert ConfigText(path, b"", "", "utf-8").encode("한") == "한".encode()


def test_going_back_and_forth_keeps_each_state_once(path: Path) -> None:
    for _ in range(3):
        change(path, {"STREAMS": 5})
        restore(path)
    assert len(list_backups(path)) == 2
