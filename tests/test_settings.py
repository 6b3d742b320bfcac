"""config.py as users write and break it."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from vaultvec.config_keys import GUIDE_VALUES, KEYS
from vaultvec.errors import SettingsError
from vaultvec.settings import Settings, load_settings

ROOT = Path(__file__).resolve().parent.parent


def load(tmp_path: Path, text: str, environ: dict[str, str] | None = None, vault: str | None = None) -> Settings:
    path = tmp_path / "config.py"
    path.write_text(text, encoding="utf-8")
    return load_settings(path, environ or {}, vault=vault)


def refused(tmp_path: Path, text: str, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, text, environ)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, "") == Settings()


def test_the_shipped_file_names_every_key_at_its_default() -> None:
    settings = load_settings(ROOT / "config.py", {})
    assert settings == Settings()
    text = (ROOT / "config.py").read_text(encoding="utf-8")
    assert [line.split(" =")[0] for line in text.splitlines() if line[:1].isupper() and " = " in line] == list(KEYS)


def test_every_key_is_a_field_of_settings() -> None:
    assert {key.lower() for key in KEYS} | {"openai_api_key"} == {row.name for row in fields(Settings)}


def test_the_guides_values_are_accepted_by_their_own_checks() -> None:
    assert len(GUIDE_VALUES) == 6
    for key, value in GUIDE_VALUES.items():
        assert KEYS[key].check.accepts(value)
        assert KEYS[key].check.accepts(KEYS[key].default)


def test_values_reach_their_fields(tmp_path: Path) -> None:
    settings = load(
        tmp_path, 'STREAMS: int = 3\nTHREADS = "auto"\nEXCLUDE = ["a/",\n  "b"]\nMEMORY_CHECK_INTERVAL = 30\n'
    )
    assert (settings.streams, settings.threads, settings.exclude) == (3, None, ("a/", "b"))
    assert type(settings.memory_check_interval) is float


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ('\nSTREAMS = "many"', ['config.py line 2: STREAMS is "many", expected 1 to 64 or "auto"']),
        ("STREAMS = 0", ["STREAMS is 0", "1 to 64"]),
        ("STREAMS = True", ["STREAMS is True"]),
        ("EMBEDDING_BATCH_SIZE = 32.0", ["32.0", "a whole number"]),
        ("GPU_MEMORY_FRACTION = 1.5", ["1.5, expected 0.1 to 1.0"]),
        ("GPU_MEMORY_FRACTION = True", ["True, expected 0.1 to 1.0"]),
        ("FAST_MODE = 1", ["FAST_MODE is 1, expected True or False"]),
        ('ENGINE = "fast"', ['"openvino"', '"torch"']),
        ('EXCLUDE = "Templates/"', ["a list of .gitignore patterns"]),
        ('EXCLUDE = ["Archive/", "[z-a]"]', ["line 1", "[z-a]", "a list of .gitignore patterns"]),
        ('OLLAMA_URL = "localhost"', ["http://"]),
        ('EMBEDDING_MODEL = ""', ["EMBEDDING_MODEL"]),
        ('EMBEDDING_MODEL = "Auto"', ["EMBEDDING_MODEL", '"auto"']),
        ("BATCHSIZE = 3", ["line 1", "did you mean BATCH_SIZE?"]),
        ("XYZZY = 3", ["XYZZY is no key"]),
        ("STREAMS = 1\nSTREAMS = 2", ["line 2", "first on line 1"]),
        ("import os", ['"import os"', "never run"]),
        ("THREADS = print(1)", ["THREADS is print(1)", "plain value"]),
        ("STREAMS += 1", ["expected KEY = value"]),
        ("STREAMS = THREADS = 1", ["expected KEY = value"]),
        ("STREAMS: int", ["expected KEY = value"]),
        ("A = [1,\n", ["line 1", "config_optimizer.py 3"]),
        ('x\nVAULT_PATH = "abc', ["line 2", "config_optimizer.py 3"]),
        ('VAULT_PATH = "C:\\Users\\me"', ["C:/Notes"]),
        ('VAULT_PATH = "C:\\notes"', ["C:/Notes"]),
        ("CHUNK_TOKENS = 50", ["MIN_CHUNK_TOKENS is 64, expected at most CHUNK_TOKENS (50)"]),
        ("STREAMS = 1\0", ["config.py line 1"]),
        ("STREAMS = 1\nTHREADS = 1\nDATA_DIR = '\0'\n", ["config.py line 3"]),
    ],
)
def test_a_mistake_is_one_line_that_says_where(tmp_path: Path, text: str, parts: list[str]) -> None:
    message = refused(tmp_path, text)
    for part in parts:
        assert part in message


def test_the_file_is_never_run(tmp_path: Path) -> None:
    refused(tmp_path, f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert not (tmp_path / "ran").exists()


def test_a_missing_file_says_how_to_get_it_back(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"config_optimizer\.py 3"):
        load_settings(tmp_path / "config.py", {})


def test_bytes_that_are_not_text(tmp_path: Path) -> None:
    (tmp_path / "config.py").write_bytes(b'VAULT_PATH = "\xff\xfe"\n')
    with pytest.raises(SettingsError, match="UTF-8"):
        load_settings(tmp_path / "config.py", {})


def test_a_byte_order_mark_and_crlf_are_read(tmp_path: Path) -> None:
    (tmp_path / "config.py").write_bytes("\ufeff# 설정\r\nSTREAMS = 2\r\n".encode())
    assert load_settings(tmp_path / "config.py", {}).streams == 2


def test_the_argument_beats_the_environment_beats_the_file(tmp_path: Path) -> None:
    text = f"VAULT_PATH = {str(tmp_path / 'file')!r}\n"
    environ = {"VAULTVEC_VAULT": str(tmp_path / "environ")}
    assert load(tmp_path, text).vault_path == tmp_path / "file"
    assert load(tmp_path, text, environ).vault_path == tmp_path / "environ"
    assert load(tmp_path, text, environ, vault=str(tmp_path / "argument")).vault_path == tmp_path / "argument"
    assert load(tmp_path, text, {"VAULTVEC_VAULT": ""}).vault_path == tmp_path / "file"
    with pytest.raises(SettingsError, match="--vault is empty"):
        load(tmp_path, text, environ, vault="")


def test_relative_paths_start_at_the_file_and_tilde_is_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    settings = load(tmp_path, 'VAULT_PATH = "notes"\nDATA_DIR = "~/data"\n')
    assert settings.vault_path == tmp_path / "notes"
    assert settings.data_dir == tmp_path / "home" / "data"


def test_the_data_folder_may_be_moved_but_never_into_the_vault(tmp_path: Path) -> None:
    environ = {"VAULTVEC_DATA": str(tmp_path / "data")}
    assert load(tmp_path, 'DATA_DIR = "elsewhere"', environ).data_dir == tmp_path / "data"
    message = refused(tmp_path, 'VAULT_PATH = "."', environ)
    assert "inside the vault" in message
    settings = load(tmp_path, "", environ)
    with pytest.raises(SettingsError, match="inside the vault"):
        settings.vault_dir(tmp_path)


def test_a_link_into_the_vault_is_seen_through(tmp_path: Path) -> None:
    vault = tmp_path / "vault"
    (vault / "inner").mkdir(parents=True)
    (tmp_path / "data").symlink_to(vault / "inner", target_is_directory=True)
    assert "inside the vault" in refused(tmp_path, 'VAULT_PATH = "vault"', {"VAULTVEC_DATA": str(tmp_path / "data")})


def test_folders_of_two_vaults_of_one_name_differ(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    first, second = settings.vault_dir(tmp_path / "a" / "My Notes"), settings.vault_dir(tmp_path / "b" / "My Notes")
    assert first != second
    assert first.name.startswith("My-Notes-")
    assert first == settings.vault_dir(tmp_path / "a" / ".." / "a" / "My Notes")
    assert settings.vault_dir(tmp_path / "노트").name.startswith("vault-")


def test_the_key_of_a_server_is_not_printed(tmp_path: Path) -> None:
    settings = load(tmp_path, "", {"OPENAI_API_KEY": "secret"})
    assert settings.openai_api_key == "secret"
    assert "secret" not in repr(settings)


def test_a_models_folder_is_looked_for_beside_config_py(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models" / "mine").mkdir(parents=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    folder = str(tmp_path / "models" / "mine")
    for written in ("models/mine", "./models/mine/", folder):
        assert load(tmp_path, f'EMBEDDING_MODEL = "{written}"\n').embedding_model == folder


@pytest.mark.parametrize(
    ("name", "engine"),
    [
        ("sentence-transformers/all-MiniLM-L6-v2", "auto"),
        ("all-MiniLM-L6-v2", "torch"),
        ("BAAI/bge-small-en", "auto"),
        ("auto", "auto"),
        ("mixed", "auto"),
        ("mine", "ollama"),
    ],
)
def test_a_models_name_stays_a_name(tmp_path: Path, name: str, engine: str) -> None:
    if name != "BAAI/bge-small-en":  # a hub's name without a folder; the others stay names in spite of theirs
        (tmp_path / name).mkdir(parents=True)
    assert load(tmp_path, f'EMBEDDING_MODEL = "{name}"\nENGINE = "{engine}"\n').embedding_model == name
