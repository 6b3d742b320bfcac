"""The parser on any input: only VaultError comes out, line numbers hold, and time grows with length alone."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vaultvec.errors import VaultError
from vaultvec.markdown.blocks import code_lines, headings
from vaultvec.note_file import normalise
from vaultvec.notes import parse_note

# Pieces that begin, end or upset some markup; joined at random they reach states that plain random text never does.
PIECES = [
    "`", "``", "```", "~~~", "\n", "\n\n", "\r\n", "\r", "> ", "- ", "1. ", "%%", "<!--", "-->", "$", "$$",
    "\\", "[[", "]]", "[", "](", ")", "![", "![[", "|", "#", "# ", "#tag", "**", "__", "==", "~~", "*", "_",
    "<div a=\"", "\">", "<b>", "</b>", "<style", "</style>", "https://a.b/c_d?e=f#g", "^id", "[^1]",
    "[^1]: ", "[x]: ", "---", "---\n", "tags: [a]", "{{x}}", "| --- | --- |", "> [!note]- ", "- [ ] ", "한글",
    "e\u0301", "\u2028", "\x85", "\x0b", "\x01", "&nbsp;", "word", " ", "\t", "<https://x.y>", "\ufeff",
    "{", "}", "&a", "*a", ": ", "\n\n    ", "\n   ", "1. ```\n",
]  # fmt: skip
markdown = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=40).map("".join)


@given(st.binary(max_size=400), st.sampled_from(["a.md", "a.canvas"]))
def test_any_bytes_give_a_note_or_a_vault_error(data: bytes, path: str) -> None:
    try:
        note = parse_note(path, data)
    except VaultError:
        return
    for text in (note.title, note.body, *note.tags, *note.aliases, *note.links):
        text.encode("utf-8")


@settings(max_examples=500)
@given(markdown.filter(lambda text: "\x00" not in text))
def test_every_source_line_stays_one_line(text: str) -> None:
    data = text.encode("utf-8", "replace")
    note = parse_note("a.md", data)
    source = normalise(data.decode("utf-8-sig"))
    assert note.body_line + note.body.count("\n") == 1 + source.count("\n")
    assert "\x00" not in note.body
    lines = source.split("\n")[note.body_line - 1 :]
    for line, level, _ in headings(note.body):
        above, below = lines[line].lstrip(" "), "".join(lines[line + 1 : line + 2]).lstrip(" ")
        assert re.match(rf"#{{{level}}}(?!#)", above) or (level < 3 and below.startswith(("==", "--")))


@given(st.lists(st.sampled_from(["# a", "**b**", "```", "[[c]]", "%%d%%", "text", ""]), max_size=20))
def test_code_between_fences_is_verbatim(lines: list[str]) -> None:
    code = [line for line in lines if line != "```"]
    note = parse_note("a.md", "\n".join(["before", "````", *code, "````", "after"]).encode())
    assert note.body.split("\n") == ["before", "````", *code, "````", "after"]
    assert note.links == ()
    assert headings(note.body) == []


# Where code begins and ends is found twice, in the source and in the body: the last line tells whether both agree.
CODE = ["```", "~~~", "````", "- ", "1. ", "- [ ] ", "> ", "   ", "    ", "\t", "\n", "\n\n", "# h", "text", "%%", "$$",
        "<b>", "[[x|", "]]", "[^1]: ", "`"]  # fmt: skip


@settings(max_examples=1000)
@given(st.lists(st.sampled_from(CODE), max_size=22).map("".join))
def test_what_the_reader_kept_as_code_is_code_in_the_body(text: str) -> None:
    lines = parse_note("a.md", f"{text}\n\nlast **line**".encode()).body.split("\n")
    assert (lines[-1] == "last **line**") == code_lines(lines)[-1]


HUGE = 250_000
HOSTILE = [
    "[[", "![[", "[", "![", "](", "[a](", "[a](b ", "[a](b 'c", "[a][", "[^", "^[", "[[a|", "%%", "%", "<!--",
    "<!-- a ", "<div ", "<a b=\"", "<a b ", "<style", "`", "` ", "`` ` ", "\\` ``", "```a\n", "```\n> ",
    "> ```\n", "~~~\n", "$", "$a ", "$$", "$$\n", "$$ a\n\n", "**", "**a ", "***a", "*a ", "_a ", "__a ",
    "== a", "==a ", "~~a ", "> ", "> > \n", "- ", "- - \n", "  \t", " \n", "|", "| - ", "|-", "#", "# ", "# #",
    "#a", "#a/", "^a", "^a ", "http://(", "http://a(b)", "https://", "<https://", "a\n---\n", "===\n",
    "\u0301\u0316", "e\u0301", "한", "\n", "\r", "&nbsp;", "\\", "\\#", "{{", "- [ ] ", "<a\n", "<!--\n",
    "[x]: https://a\n", ">\n---\n", "https://a가", "https://a?가", "https://a?#(", "[x]: https://a",
    "\n\n    ", "\n\n    a", "\n\n    a\n```\n", "\n\n    - a", "- ```\na\n", "1. a\n   ```\nb\n", "\n \n\t",
    "[x]: https://a \"", "x\n[x]: https://a\n", "[x]: <https://a ",
]  # fmt: skip


@pytest.mark.parametrize("piece", HOSTILE, ids=repr)
def test_hostile_repetition_takes_linear_time(piece: str) -> None:
    """No timing assert: in quadratic time one of these would take hours, and the run would be seen to hang."""
    text = "x" + piece * (HUGE // len(piece))
    note = parse_note("a.md", text.encode())
    headings(note.body)
    assert note.body.count("\n") == normalise(text).count("\n")


@pytest.mark.parametrize(
    "block",
    [
        "[" * 200_000,
        "a: " + "{" * 200_000,
        "- " * 100_000,
        "a: " + "9" * 200_000,
        "a: 1" + ":1" * 100_000,
        "tags: &a [*a, x]",
        "a: &b0 {k: v}\n" + "".join(f"c{i}: &b{i + 1}\n  <<: [{', '.join([f'*b{i}'] * 9)}]\n" for i in range(9)),
        "tags: &t [x, x]\n" + "".join(f"t{i}: &t{i} [*t, *t, *t, *t]\n" for i in range(100)),
    ],
    ids=range(8),
)
def test_yaml_bombs_do_not_go_off(block: str) -> None:
    note = parse_note("a.md", f"---\n{block}\n---\nbody".encode())
    assert note.body == "body"
    assert len(note.tags) <= 1000
