"""Markdown and canvas → Note: one trap a row."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from vaultvec.datatypes import Note, NoteFile
from vaultvec.errors import VaultError
from vaultvec.markdown.blocks import headings
from vaultvec.markdown.verbatim import shorten_url
from vaultvec.note_file import digest, read_bytes
from vaultvec.notes import parse_note, read_note


def note(text: str, path: str = "folder/My note.md") -> Note:
    return parse_note(path, text.encode())


@pytest.mark.parametrize(
    ("source", "plain"),
    [
        # links and embeds
        ("[[A]] [[A|b]] [[A#H]] [[A#H#I|c]] [[#H]] [[A#^id]]", "A b A > H c H A"),
        (r"| [[A\|b]] | [[C]] |", "b | C"),
        ("![[x.png]]![[y.PDF|300]] ![[N]] ![[N|300]] ![[N#H]]", " N N N > H"),
        ("[t](u.md) ![alt](i.png) ![alt|300x200](i.png) ![300](i.png)", "t alt alt"),
        ('[t](<a b.md> "title") [t](a_(b).md) [a [b] c](u)', "t t a [b] c"),
        ("[![badge](https://a.b/c.svg)](https://a.b)", "badge"),
        ("[text][ref]\n\n[ref]: https://a.b/c", "text\n\n"),
        ("x[0][1]", "x[0][1]"),
        (
            "# H\n[a]: https://a.b/c_(d).\n[b]: <https://a.b/c> 'title'\n [c]: <https://a.b/c d>\n> [d]: https://a",
            "# H\n\n\n\n",
        ),
        ("[a]: Note.md#x\n[b]: y\n[c]: <https://a.b>\n[d]: etc.\n\n[x][a]", "\n[b]: y\n\n[d]: etc.\n\nx"),
        ("[key]: `Ctrl+K` opens the palette", "[key]: `Ctrl+K` opens the palette"),
        ("[a]: $x^2$ squared\n\n[b]: \\* star", "[a]: $x^2$ squared\n\n[b]: * star"),
        ("[Miller]: https://a.b/roses is the best book", "[Miller]: a.b/roses is the best book"),
        ('[a]: https://a.b "title" and more', '[a]: a.b "title" and more'),
        ("in a paragraph\n[a]: https://a.b", "in a paragraph\n[a]: a.b"),
        ("a[^1] b^[inline]\n\n[^1]: note", "a b (inline)\n\n note"),
        ("see https://www.a.com/Some%20Page/x?q=1#f, and", "see a.com/Some Page/x, and"),
        ("<https://a.com/b> <mailto:a@b.c>", "a.com/b a@b.c"),
        ("(https://a.com/b_(c))", "(a.com/b_(c))"),
        ("参考https://a.com/watch?v=abc这篇文章，然后", "参考a.com/watch 这篇文章，然后"),
        ("資料はhttps://a.jp/a#topをご覧ください今日は会議。", "資料はa.jp/a をご覧ください今日は会議。"),
        ("https://a.com/7f3a9c1d2e4b5a6978c0d1e2f3a4b5c6这里写的 https://a.kr/?q=장미", "a.com 这里写的 a.kr 장미"),
        (
            "https://ko.wikipedia.org/wiki/한글_맞춤법 https://한글.kr/가",
            "ko.wikipedia.org/wiki/한글_맞춤법 한글.kr/가",
        ),
        ("请看https://a.com/这个网站20231231235959。", "请看a.com/这个网站20231231235959。"),
        ("[문서](https://a.com/C언어?x=가) <https://a.com/C언어>", "문서 a.com/C언어"),
        # comments, block ids, HTML
        ("a %%b%% c\n%%\nd #t\n%%\ne", "a  c\n\n\n\ne"),
        ("a <!-- b\nc --> d <!-- e", "a\n d <!-- e"),
        ("100 %% sure", "100 %% sure"),
        ("text ^abc-1\n- item ^x\n^own\n2^10 a^b", "text\n- item\n\n2^10 a^b"),
        ("a<br>b <b>c</b><span\nclass='x'>d</span> H<sub>2</sub>O", "a b c\nd H2O"),
        ("a < b, <3, List<String>, 1<2>1", "a < b, <3, List<String>, 1<2>1"),
        ("<style>\np {}\n</style>x", "\n\nx"),
        ("a&nbsp;b &amp; c &lt;d&gt;", "a b & c <d>"),
        ("don&#8217;t caf&eacute; &mdash; &#x27;&CounterClockwiseContourIntegral; `&amp;`", "don’t café — '∳ `&amp;`"),
        ("a&#0;b&#10;c&NewLine;d&#7;e&shy;f&#xD800;", "a\ufffdb c def\ufffd"),
        ("&nope; &notit; &#; R&D; &#35;x &lt;b&gt;", "&nope; &notit; &#; R&D; #x <b>"),
        ("x <p\n\nfirst words\n\nmore> y <p\n \n/>", "x <p\n\nfirst words\n\nmore> y <p\n\n/>"),
        ("<p\n  class=a \n\tid=b\n/>x</p>", "\n\n\nx"),
        ("<!--> a <!-- b --> c <!---> d", " a  c  d"),
        ("<STYLE>\np {}\n</Style>x <Script a>b</SCRIPT >c", "\n\nx c"),
        # emphasis
        ("**a** __b__ ==c== ~~d~~ *e* _f_ ***g*** **a *b* c**", "a b c d e f g a b c"),
        ("snake_case_name 2 * 3 * 4 a == b\n* bullet\n**open", "snake_case_name 2 * 3 * 4 a == b\n* bullet\n**open"),
        (r"\*a\* foo\_bar \# h \[\[n]]", r"*a* foo_bar \# h [[n]]"),
        # lists, quotes, callouts, tables
        ("- [ ] a\n  1. [x] b\n- [/] c", "- a\n  1. b\n- c"),
        ("> [!note]- Title\n> > deep\n> - [ ] t\n> # no heading", "Title\ndeep\n- t\nno heading"),
        ("> quote\n---\nnext", "quote\n\nnext"),
        ("| a | b  |\n|---|:-:|\n| 1 |   2 |", "a | b\n\n1 | 2"),
        ("| a \\| b | c |", "a | b | c"),
        ("key:: value", "key:: value"),
        # code and maths stay
        ("`[[a]] **b** %%c%% #d` [[e]]", "`[[a]] **b** %%c%% #d` e"),
        ("``a ` b`` `c", "``a ` b`` `c"),
        ("[`code`](u) **`x` y**", "`code` `x` y"),
        ("$a_1 *b* [[c]]$ costs $5 or $10 **b**", "$a_1 *b* [[c]]$ costs $5 or $10 b"),
        ("$$\na_1 **b**\n$$ **c**", "$$\na_1 **b**\n$$ c"),
        ("- ```py\n  # **x**\n  ```\n**y**", "- ```py\n  # **x**\n  ```\ny"),
        ("> ```\n> **x**\n**y**", "> ```\n> **x**\ny"),
        ("~~~\n```\n**x**\n~~~~\n**y**", "~~~\n```\n**x**\n~~~~\ny"),
        ("```\n**unclosed**", "```\n**unclosed**"),
        ("%%\n```\n%%\n**x**", "\n\n\nx"),
        ("``` not `a` fence\n**x**", "``` not `a` fence\nx"),
        ("a\n\n    h[n](e) #t %%c%%\n\n\t**x**\n**y**", "a\n\n    h[n](e) #t %%c%%\n\n\t**x**\ny"),
        (
            "a\n\n    b\n\n    - ```\n      **x**\n      ```\n**y**",
            "a\n\n    b\n\n    - ```\n      **x**\n      ```\ny",
        ),
        ("$$\na **b**\n1. ~~~\n   $$\n   ~~~\n**c**", "$$\na b\n1. ~~~\n   $$\n   ~~~\nc"),
        ("a\n\n    ```\n    **x**\n    ```\n    **y**", "a\n\n    ```\n    **x**\n    ```\n    y"),
        # indented, but text: in a list, in a footnote, below a paragraph's line, or by its look
        ("- a\n\n    **b**\n\n- c\n\n\t**d**", "- a\n\n    b\n\n- c\n\n\td"),
        ("1. a\nb\n\n   - c\n\n        **d**\n\ne\n\n    **f**", "1. a\nb\n\n   - c\n\n        d\n\ne\n\n    **f**"),
        ("- ```\n  x\n  ```\n\n    **a**\n\n[^1]: b\n\n    **c**", "- ```\n  x\n  ```\n\n    a\n\n b\n\n    c"),
        ("a\n    **b**\n\n    - **c**\n\n    **d**", "a\n    b\n\n    - c\n\n    d"),
        ("a\n\n    %%b%%\n\n    <b>c</b>\n\n    [[d]]", "a\n\n\n\n    c\n\n    d"),
        # a fence that is not closed ends with its list item
        ("1. a\n   ```sh\n   # b\n\n2. **c**", "1. a\n   \\```sh\n   \\# b\n\n2. c"),
        ("- ```\n  a\n  ~~~\n**b** %%c%%", "- \\```\n  a\n  \\~~~\nb"),
        ("- [>] ```\n  a\n**b**", "- [>] \\```\n  a\nb"),
        ("- a\n\n  ```\n  **b**\n  ```\n\n```\n**c**\n```", "- a\n\n  ```\n  **b**\n  ```\n\n```\n**c**\n```"),
        ("  ```\n**a**\n  ```\nb", "  ```\n**a**\n  ```\nb"),
    ],
)
def test_body(source: str, plain: str) -> None:
    assert note(source).body == plain


@pytest.mark.parametrize(
    ("source", "tags"),
    [
        ("#a #b/c #한글 #y2024 #1984 #kebab-case_x #🎉", ["a", "b/c", "한글", "y2024", "kebab-case_x", "🎉"]),
        ("# heading\n##not\nx#no [[n#h]] `#code` https://a.b/#frag [a](b#c) \\#esc", []),
        ("**#bold** > #q\n- #list, #dot. #dup #dup", ["bold", "q", "list", "dot", "dup"]),
        ("a\n\n    #include <x>\n    [[y]]", []),
        ("%%#hidden%%\n```\n#code\n```\n[[#H|#alias]]", []),
    ],
)
def test_inline_tags(source: str, tags: list[str]) -> None:
    assert list(note(source).tags) == tags


def test_a_tags_words_stay_in_the_text() -> None:
    assert note("#project/한글 is due").body == "project/한글 is due"


def test_links_in_order_without_repeats() -> None:
    text = "![[p.png]] [x](Some%20Note.md#h) [[B#H|b]] [[B]] [web](https://a.b) [m](mailto:a@b.c) [[#own]] [h](#here)"
    assert note(text).links == ("p.png", "Some Note.md", "B")
    assert note("[x][a]\n\n[a]: ../Some%20Note.md#h").links == ("../Some Note.md",)


@pytest.mark.parametrize(
    ("block", "tags", "aliases"),
    [
        ("tags: null", [], []),
        ("tags:\n- \naliases:\n- \n", [], []),
        ("tags: a, b", ["a", "b"], []),
        ("tags: '#a #b'\nalias: One, Two", ["a", "b"], ["One", "Two"]),
        ("Tag: [x, null, 3, 2024-05-01, [y, [z]]]", ["x", "3", "2024-05-01", "y", "z"], []),
        ("ALIASES: ['A, with comma', 가나]", [], ["A, with comma", "가나"]),
        ("tags: {a: b}\naliases: 12", [], ["12"]),
        ("base: &base {tags: x}\n<<: *base", ["x"], []),
        ("tags: &endless [*endless]", [], []),
    ],
)
def test_front_matter(block: str, tags: list[str], aliases: list[str]) -> None:
    parsed = note(f"---\n{block}\n---\nbody")
    assert (list(parsed.tags), list(parsed.aliases), parsed.warnings) == (tags, aliases, ())


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        ("title: {{title}}\ntags: [a]", "not valid YAML (line 2)"),
        ("ok: 1\na: b: c", "not valid YAML (line 3)"),
        ("- a\n- b", "is a list, not a mapping"),
        ("date: !!timestamp 2024-99-99", "not valid YAML (ValueError)"),
        ("a: " + "x" * 300_000, "longer than 256 kB"),
        ("[" * 1000, "nests deeper"),
        ("a: &a x\nb: [" + "*a, " * 40 + "]", "repeats YAML anchors"),
        ("a: !!int 1" + ":1" * 600, "number longer"),
    ],
)
def test_broken_front_matter_keeps_the_body(block: str, reason: str) -> None:
    parsed = note(f"---\n{block}\n---\n# Body")
    assert parsed.body == "# Body"
    assert parsed.body_line == block.count("\n") + 4
    assert len(parsed.warnings) == 1
    assert reason in parsed.warnings[0]
    assert parsed.title == "My note"


@pytest.mark.parametrize("block", ["Dear diary, I was [[here]].", "two\nlines", "1984"])
def test_text_between_two_rules_is_no_front_matter(block: str) -> None:
    parsed = note(f"---\n{block}\n---\nbody")
    assert parsed.body == f"---\n{block}\n---\nbody".replace("[[", "").replace("]]", "")
    said = "what stands between the first two --- is text, not front matter; it is read as text"
    assert (parsed.body_line, parsed.warnings) == (1, (said,))
    assert len(parsed.links) == block.count("[[")


def test_an_index_note_keeps_all_its_links() -> None:
    text = "\n".join(f"[[{i}]]" for i in range(60_000))
    assert len(note(text).links) == 50_000
    listed = "".join(f'  - "[[Note {i}]]"\n' for i in range(5000))
    assert len(note(f"---\nrelated:\n{listed}---\n").links) == 5000
    assert len(note("\n".join(f"#t{i}" for i in range(2000))).tags) == 1000
    cards = [{"type": "text", "text": text}]
    assert len(parse_note("a.canvas", json.dumps({"nodes": cards}).encode()).links) == 50_000


def test_title_and_line_numbers() -> None:
    parsed = note("\ufeff---\r\ntitle:  A   title \r\n---\r\none\r\n\r\n# H\rlast")
    assert parsed.title == "A title"
    assert (parsed.body_line, parsed.body) == (4, "one\n\n# H\nlast")
    assert note("---\ntitle: [x]\n---\n").title == "My note"
    assert note("x", "a/b.c.md").title == "b.c"
    assert note("x", "e\u0301.md").title == "é"
    assert note("---\nnever closed").body == "---\nnever closed"
    assert note("").body == ""


def test_u2028_is_no_line_end_and_text_is_nfc() -> None:
    assert note("a\u2028b\ne\u0301").body == "a\u2028b\né"


@pytest.mark.parametrize(
    ("data", "body", "warned"),
    [
        ("한글 노트".encode(), "한글 노트", False),
        ("한글".encode("utf-8-sig"), "한글", False),
        ("한글".encode("utf-16"), "한글", False),
        (b"\xfe\xff" + "한글".encode("utf-16-be"), "한글", False),
        ("안녕하세요, 노트입니다".encode("cp949"), "안녕하세요, 노트입니다", True),
        ("똠방각하가 먹은 햏햏한 펲시".encode("cp949"), "똠방각하가 먹은 햏햏한 펲시", True),
        ("naïve café".encode("cp1252"), "naïve café", True),
        (
            "I don’t know what it’s about".encode("cp1252"),
            "I don’t know what it’s about",
            True,
        ),
        ("Ärger mit der Änderung".encode("cp1252"), "Ärger mit der Änderung", True),
        ("word—dash, Åsa".encode("cp1252"), "word—dash, Åsa", True),
        ("it’s what they’re sure isn’t ÄÖ".encode("cp1252"), "it’s what they’re sure isn’t ÄÖ", True),
        (b"caf\xe9 \x81", "café \x81", True),
        ("한글 노트 ".encode() * 5 + b"\xff", "한글 노트 " * 5 + "\ufffd", True),
    ],
)
def test_encodings(data: bytes, body: str, warned: bool) -> None:
    parsed = parse_note("a.md", data)
    assert parsed.body == body.rstrip(" ")
    assert bool(parsed.warnings) == warned


def test_binary_is_refused() -> None:
    with pytest.raises(VaultError, match="binary"):
        parse_note("a.md", b"\x89PNG\x00\x01")
    with pytest.raises(VaultError, match="save it as UTF-8"):
        parse_note("a.md", "a note".encode("utf-16-le"))


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("# A\n\n ## B ##\n#C\n####### no\n#\n### D # E", [(0, 1, "A"), (2, 2, "B"), (5, 1, ""), (6, 3, "D # E")]),
        ("A\n===\n\nB\n---\ntext", [(0, 1, "A"), (3, 2, "B")]),
        ("one\ntwo\n---\n\n---\n- item\n---\n", []),
        ("```\n# no\n```\n# yes", [(3, 1, "yes")]),
        ("- ~~~\n  # no\n  ~~~\n    # indented\n   # yes", [(4, 1, "yes")]),
        ("> ```\n> # no\n# yes", [(2, 1, "yes")]),
        ("````\n```\n# no\n````\n# yes\n``` `x`\n# and", [(4, 1, "yes"), (6, 1, "and")]),
    ],
)
def test_headings(body: str, found: list[tuple[int, int, str]]) -> None:
    assert headings(body) == found


@pytest.mark.parametrize(
    ("source", "body"),
    [
        ("| # | Name |\n|---|---|\n| 1 | Alpha |", "\\# | Name\n\n1 | Alpha"),
        ("| # of users | 12 |", "\\# of users | 12"),
        ("text\n| === |", "text\n\\==="),
        ("text\n<b></b>---", "text\n\\---"),
        ("**# x**\n[[x|# y]]\n[## z](u)", "\\# x\n\\# y\n\\## z"),
        ("%%note%% # x\n[^1]: # y", " \\# x\n \\# y"),
        ("<b></b>```\n**x**", "\\```\nx"),
        ("[[x|~~~]]\n**x**", "\\~~~\nx"),
    ],
)
def test_what_markup_leaves_at_a_lines_start_is_no_heading_and_no_fence(source: str, body: str) -> None:
    parsed = note(f"{source}\n\n# End")
    assert parsed.body == f"{body}\n\n# End"
    assert [(level, text) for _, level, text in headings(parsed.body)] == [(1, "End")]


def test_headings_with_markup_stay_headings() -> None:
    parsed = note("# [[A]]\n## **b**  \n\nc *d*\n---\n\n- [ ] ```\n  # **x**\n  ```\n\n$$\n```\n$$\n```\n### e")
    assert headings(parsed.body) == [(0, 1, "A"), (1, 2, "b"), (3, 2, "c d"), (14, 3, "e")]
    assert "- [ ] ```\n  # **x**\n  ```" in parsed.body


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("https://www.example.com/", "example.com"),
        ("https://user:secret@example.com/a", "example.com/a"),
        ("https://ko.wikipedia.org/wiki/%ED%95%9C%EA%B8%80?x=1#y", "ko.wikipedia.org/wiki/한글"),
        ("https://a.b/notes/7f3a9c1d2e4b5a6978c0d1e2f3a4b5c6/12345/x%0Ay", "a.b/notes/x y"),
    ],
)
def test_urls_keep_their_words(url: str, words: str) -> None:
    assert shorten_url(url) == words


def test_canvas_in_reading_order() -> None:
    nodes = [
        {"type": "text", "text": "last **card** #tag", "x": 0, "y": 900},
        {"type": "text", "text": "inside right [[L]]", "x": 150, "y": 120},
        {"type": "text", "text": "inside left", "x": 110, "y": 120},
        {"type": "group", "label": "Group", "x": 100, "y": 100, "width": 200, "height": 200},
        {"type": "file", "file": "N.md", "x": 0, "y": 110},
        {"type": "text", "text": "first ```\n\ud800\x00", "x": "bad", "y": None},
        {"type": "text", "text": "far away", "x": float("nan"), "y": 10**400},
        {"type": "text"},
        "junk",
    ]
    parsed = parse_note("b/Board.canvas", json.dumps({"nodes": nodes}).encode())
    cards = ["first ```\n\ufffd", "far away", "# Group", "inside left", "inside right L", "#", "last card tag"]
    assert parsed.body == "\n\n".join(cards)
    assert (parsed.title, parsed.links, parsed.tags) == ("Board", ("L", "N.md"), ("tag",))
    assert parse_note("a.canvas", b"").body == ""
    picture = {"nodes": [{"type": "link", "url": "data:image/png;base64," + "A" * 100_000}]}
    assert len(parse_note("a.canvas", json.dumps(picture).encode()).body) < 2000


def test_canvas_cards_stand_apart() -> None:
    nodes = [
        {"type": "text", "text": "```py\n# no", "y": 0},
        {"type": "text", "text": "# Own\n\nof the card", "y": 1},
        {"type": "text", "text": "> ```\n> x", "y": 2},
        {"type": "link", "url": "https://www.a.com/some-article?x=1", "y": 3},
        {"type": "group", "label": "Group", "y": 10, "width": 5, "height": 5},
        {"type": "text", "text": "## Sub", "y": 11},
        {"type": "text", "text": "in the group", "y": 12},
        {"type": "text", "text": "outside", "y": 20},
    ]
    edges = [{"label": "leads  to"}, {"label": ""}, {}, "junk"]
    parsed = parse_note("a.canvas", json.dumps({"nodes": nodes, "edges": edges}).encode())
    parts = ["```py\n# no\n```", "# Own\n\nof the card", "#", "> ```\n> x", "a.com/some-article", "# Group", "## Sub"]
    parts += ["# Group", "in the group", "#", "outside", "leads to"]
    assert parsed.body == "\n\n".join(parts)
    found = [text for _, _, text in headings(parsed.body)]
    assert found == ["Own", "", "Group", "Sub", "Group", ""]


@pytest.mark.parametrize("data", [b"{", b"[]", b'{"nodes": 1}', b"[" * 100_000])
def test_broken_canvas(data: bytes) -> None:
    with pytest.raises(VaultError, match="canvas"):
        parse_note("a.canvas", data)


def test_read_note(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_bytes(b"# Hello")
    file = NoteFile("a.md", str(path), 7, 0, 0)
    key, parsed = read_note(file)
    assert parsed.body == "# Hello"
    assert key == digest(b"# Hello") != digest(b"# hello")
    assert len(key) == 16
    assert read_bytes(file, max_bytes=7) == b"# Hello"
    with pytest.raises(VaultError, match="larger than"):
        read_bytes(file, max_bytes=6)
    path.unlink()
    with pytest.raises(VaultError, match="vanished"):
        read_bytes(file)
    os.mkfifo(path)
    with pytest.raises(VaultError, match="regular file"):
        read_bytes(file)


def test_properties_are_taken_as_they_are_written() -> None:
    parsed = note(
        "---\ntitle: 1984\ntags: [no, on, 2024]\naliases: [No, 12:30, 1_000, 1.10, null, ~]\n"
        'related: "[[Tulips]] and [[Garden/Roses#Pruning|roses]]"\nup:\n  - "[[Home]]"\n---\n[[Body]]'
    )
    assert parsed.title == "1984"
    assert parsed.tags == ("no", "on", "2024")
    assert parsed.aliases == ("No", "12:30", "1_000", "1.10")
    assert parsed.links == ("Tulips", "Garden/Roses", "Home", "Body")
