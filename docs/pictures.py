"""The README's pictures: the real program in a pseudo-terminal, its output as SVG.

Run it from the repository's root: .venv/bin/python docs/pictures.py
"""

from __future__ import annotations

import os
import pty
import re
import select
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = 110
# What a person types, in order, each after the given prompt has appeared.
MENU = [("choice:", "6"), ("choice:", "0")]
RUN: list[tuple[str, str]] = []


def record(arguments: list[str], answers: list[tuple[str, str]], environment: dict[str, str]) -> str:
    """Everything a terminal would have received."""
    child, master = pty.fork()
    if child == 0:
        os.chdir(ROOT)
        os.execve(sys.executable, [sys.executable, "main.py", *arguments], {**os.environ, **environment})
    seen, pending = "", list(answers)
    while True:
        ready, _, _ = select.select([master], [], [], 120)
        try:
            data = os.read(master, 65536) if ready else b""
        except OSError:
            break
        if not data:
            break
        seen += data.decode("utf-8", "replace")
        if pending and seen.rstrip().endswith(pending[0][0]):
            os.write(master, (pending.pop(0)[1] + "\n").encode())
    os.waitpid(child, 0)
    return seen


def final_screen(raw: str) -> str:
    """The lines that stay: a progress bar that was drawn over is gone, and no path of this machine is shown."""
    raw = re.sub(r"\x1b\[\?25[lh]", "", raw).replace("\r\n", "\n")
    lines = []
    for line in raw.split("\n"):
        kept = line.rsplit("\r", 1)[-1]
        if not re.search(r"\x1b\[2K|\x1b\[1A", kept):
            lines.append(kept)
        else:
            lines.append(re.sub(r".*(\x1b\[2K|\x1b\[1A)", "", kept))
    return re.sub(re.escape(str(ROOT)), "~/vaultvec", "\n".join(lines))


def save(name: str, title: str, screens: list[str]) -> None:
    """One SVG under docs/."""
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"))  # noqa: SIM115
    for screen in screens:
        console.print(Text.from_ansi(screen))
    console.save_svg(str(ROOT / "docs" / name), title=title)


def pictures() -> None:
    """menu.svg and run.svg."""
    with tempfile.TemporaryDirectory() as data:
        environment = {
            "VAULTVEC_DATA": data, "VAULTVEC_VAULT": str(ROOT / "sample_vault"), "TERM": "xterm-256color",
            "COLUMNS": str(COLUMNS), "COLORTERM": "truecolor",
        }  # fmt: skip
        index = record(["index"], RUN, environment)
        question = "How do I make sure that my files survive a house fire?"
        english = record(["search", question, "-k", "2"], [], environment)
        korean_question = "바질을 죽이지 않고 키우려면?"
        korean = record(["search", korean_question, "-k", "2"], [], environment)
        menu = record([], MENU, environment)
    hide = [(data, "~/.local/share/vaultvec")]
    screens = [final_screen(text) for text in (index, english, korean, menu)]
    for old, new in hide:
        screens = [screen.replace(old, new) for screen in screens]
    typed = ["index", f'search "{question}" -k 2', f'search "{korean_question}" -k 2', ""]
    shown = [f"$ python main.py {line}\n{screen}" for line, screen in zip(typed, screens, strict=True)]
    save("run.svg", "vaultvec", shown[:3])
    save("menu.svg", "vaultvec", shown[3:])


if __name__ == "__main__":
    pictures()
