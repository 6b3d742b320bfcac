"""The walk: which files are notes, what is left out, and what is said about it."""

from __future__ import annotations

import os
import shutil
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

import vaultvec.vault
from vaultvec.errors import SettingsError, VaultError
from vaultvec.vault import Exclusions, load_exclusions, open_vault, walk


def put(vault: Path, *names: str) -> None:
    for name in names:
        (vault / name).parent.mkdir(parents=True, exist_ok=True)
        (vault / name).write_text(name)


def paths(vault: Path, patterns: tuple[str, ...] = ()) -> list[str]:
    return sorted(file.path for file in walk(vault, load_exclusions(vault, patterns)).files)


def obsidian_filters(vault: Path, text: str) -> None:
    (vault / ".obsidian").mkdir(exist_ok=True)
    (vault / ".obsidian" / "app.json").write_text(text)


@pytest.fixture
def vault(tmp_path: Path) -> Path:
    return open_vault(tmp_path)


def test_open_vault_names_what_is_wrong(tmp_path: Path) -> None:
    put(tmp_path, "file.md")
    with pytest.raises(VaultError, match=r"not found: .*; check the path, or name another with --vault$"):
        open_vault(tmp_path / "nothing")
    with pytest.raises(VaultError, match="not a folder"):
        open_vault(tmp_path / "file.md")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(VaultError, match="cannot be read"):
        open_vault(tmp_path / "loop")


def test_notes_and_canvases_only_and_no_hidden_ones(vault: Path) -> None:
    put(vault, "a.md", "B.MD", "c/d.canvas", "e.txt", "f.md.bak", ".hidden.md", ".obsidian/x.md", ".trash/y.md")
    put(vault, "node_modules/z.md", "c/.git/z.md", "c/node_modules/z.md", "한글/노트.md")
    assert paths(vault) == ["B.MD", "a.md", "c/d.canvas", "한글/노트.md"]


def test_newest_first_then_by_path(vault: Path) -> None:
    put(vault, "old.md", "b.md", "a.md", "new.md")
    for name, second in (("old.md", 1), ("a.md", 5), ("b.md", 5), ("new.md", 9)):
        os.utime(vault / name, (second, second))
    files = walk(vault, Exclusions()).files
    assert [file.path for file in files] == ["new.md", "a.md", "b.md", "old.md"]
    assert files[0].size == 6
    assert files[0].mtime_ns == 9 * 10**9
    assert files[0].absolute == vault / "new.md"


def test_config_patterns_follow_gitignore(vault: Path) -> None:
    put(vault, "Templates/a.md", "x/Templates/b.md", "draw.excalidraw.md", "keep.md", "logs/1.md", "logs/keep.md")
    assert paths(vault, ("Templates/", "*.excalidraw.md", "logs/*", "!logs/keep.md")) == ["keep.md", "logs/keep.md"]
    with pytest.raises(SettingsError, match="EXCLUDE"):
        load_exclusions(vault, ("!",))


def test_obsidians_own_list(vault: Path) -> None:
    put(vault, "Archive/a.md", "archive2.md", "x/Archive/b.md", "draft-1.md", "drafts/keep.md", "k.md")
    obsidian_filters(vault, r'{"userIgnoreFilters": ["archive/", "/(?<word>DRAFT)-\\d/", "/Archive$/"]}')
    assert paths(vault) == ["archive2.md", "drafts/keep.md", "k.md", "x/Archive/b.md"]


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("{", "app.json cannot be read"),
        ('{"userIgnoreFilters": "x"}', "not a list"),
        ('{"userIgnoreFilters": ["/(/"]}', "not a regular expression"),
    ],
)
def test_a_broken_list_is_a_warning(vault: Path, text: str, warning: str) -> None:
    put(vault, "a.md")
    obsidian_filters(vault, text)
    exclusions = load_exclusions(vault, ())
    assert len(exclusions.warnings) == 1
    assert warning in exclusions.warnings[0]
    assert [file.path for file in walk(vault, exclusions).files] == ["a.md"]


def test_excludes_answers_for_any_path(vault: Path) -> None:
    exclusions = load_exclusions(vault, ("Templates/",))
    assert exclusions.excludes("Templates", True)
    assert not exclusions.excludes("Templates", False)
    assert exclusions.excludes("Templates/deep/a.md", False)
    assert exclusions.excludes("a/.b/c.md", False)
    assert not exclusions.excludes("a.b/c.md", False)


def test_links_are_not_followed(vault: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    put(outside, "secret.md", "picture.png")
    put(vault, "a/b.md")
    (vault / "a" / "loop").symlink_to(vault)
    (vault / "twin.md").symlink_to(vault / "a" / "b.md")
    (vault / "out").symlink_to(outside)
    (vault / "out.md").symlink_to(outside / "secret.md")
    (vault / "out.png").symlink_to(outside / "picture.png")
    (vault / "dangling.md").symlink_to(vault / "nothing.md")
    result = walk(vault, Exclusions())
    assert [file.path for file in result.files] == ["a/b.md"]
    assert [path for path, _ in result.warnings] == ["out", "out.md"]


def test_pipes_are_never_opened(vault: Path) -> None:
    os.mkfifo(vault / "pipe.md")
    (vault / "folder.md").mkdir()
    put(vault, "folder.md/inside.md")
    assert paths(vault) == ["folder.md/inside.md"]


def test_names_are_nfc_and_twins_stay_apart(vault: Path) -> None:
    nfd, nfc = unicodedata.normalize("NFD", "각"), "각"
    put(vault, f"{nfd}.md")
    assert paths(vault) == [f"{nfc}.md"]
    put(vault, f"{nfc}.md")
    files = walk(vault, Exclusions()).files
    if len(list(vault.iterdir())) == 2:  # macOS takes the two names for one file
        assert {file.path for file in files} == {f"{nfc}.md", f"{nfd}.md"}
        assert all(file.absolute.name == file.path for file in files)


def test_a_name_that_is_not_utf8_is_reported(vault: Path) -> None:
    os.close(os.open(os.fsencode(vault) + b"/\xff.md", os.O_CREAT))
    result = walk(vault, Exclusions())
    assert result.files == []
    assert [reason for _, reason in result.unreadable] == ["the file name is not valid UTF-8; rename it"]


@pytest.fixture
def breaking_scandir(monkeypatch: pytest.MonkeyPatch) -> dict[str, OSError]:
    """Folder → the error that listing it raises. Permissions do not bind root, who runs tests in containers."""
    broken: dict[str, OSError] = {}
    scandir = os.scandir

    def scan(path: str | Path) -> object:
        if str(path) in broken:
            raise broken[str(path)]
        return scandir(path)

    monkeypatch.setattr(vaultvec.vault.os, "scandir", scan)
    return broken


def test_an_unreadable_folder_is_reported_and_the_rest_goes_on(
    vault: Path, breaking_scandir: dict[str, OSError]
) -> None:
    put(vault, "a/x.md", "b/y.md", "c/z.md")
    breaking_scandir[str(vault / "a")] = PermissionError(13, "Permission denied")
    breaking_scandir[str(vault / "c")] = FileNotFoundError(2, "No such file or directory")
    result = walk(vault, Exclusions())
    assert [file.path for file in result.files] == ["b/y.md"]
    assert result.unreadable == [("a", "permission denied")]


def test_a_vault_that_vanishes_is_not_an_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "v", "a.md")
    vault = open_vault(tmp_path / "v")
    entries = vaultvec.vault._entries

    def unmount(folder: str) -> Iterator[os.DirEntry[str]]:
        yield from entries(folder)
        shutil.move(vault, tmp_path / "elsewhere")
        vault.mkdir()  # the empty mount point that is left

    monkeypatch.setattr(vaultvec.vault, "_entries", unmount)
    with pytest.raises(VaultError, match="vanished"):
        walk(vault, Exclusions())
    vault.rmdir()
    with pytest.raises(VaultError, match="vanished"):
        walk(vault, Exclusions())
