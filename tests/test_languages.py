"""Scripts and languages: what decides which model can read a vault or a query."""

from __future__ import annotations

import pytest

from vaultvec.languages import count_scripts, language_of, readable_by, script_of


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("", ""),
        ("123 — !? 🎉", ""),
        ("how do I link two notes", "en"),
        ("sync", "en"),
        ("GitHub: https://github.com/somebody Website: somebody.com", "en"),
        ("naïve Bayes in a café", "en"),
        ("노트에 태그를 추가하는 방법", "ko"),
        ("Obsidian Sync 설정", "ko"),
        ("python asyncio 사용법", "ko"),
        ("大韓民國의 역사", "ko"),
        ("日本語のノートを検索する", "ja"),
        ("ノート", "ja"),
        ("如何同步笔记", "zh"),
        ("как связать заметки", "ru"),
        ("كيف أكتب ملاحظة", "ar"),
        ("วิธีเขียนบันทึก", "th"),
        ("πώς γράφω", "el"),
        ("איך לכתוב", "he"),
        ("कैसे लिखें", "hi"),
        ("გამარჯობა", "und"),
        ("Wie füge ich einem Hinweisblock Tags hinzu?", "de"),
        ("wann werden die Notizen auf dem Server und nicht nur hier gespeichert", "de"),
        ("comment créer une note dans le dossier", "fr"),
        ("cómo crear una nota en la carpeta", "es"),
        ("come creare una nota nella cartella", "it"),
        ("como criar uma nota na pasta com você", "pt"),
        ("hoe maak je een notitie aan", "nl"),
        ("jak utworzyć notatkę, która nie jest pusta", "pl"),
        ("yeni bir not nasıl eklenir", "tr"),
        ("làm thế nào để tạo ghi chú", "vi"),
    ],
)
def test_language_of(text: str, language: str) -> None:
    assert language_of(text) == language


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("", ""),
        ("12 — 🎉", ""),
        ("café", "latin"),
        ("Obsidian Sync 설정하기", "hangul"),
        ("ノートを検索する", "han"),
        ("笔记", "han"),
        ("заметки", "cyrillic"),
    ],
)
def test_script_of(text: str, script: str) -> None:
    assert script_of(text) == script


def test_letters_are_counted_by_script() -> None:
    found = count_scripts("abc 가나다 12 _ かな 漢字 где გ")
    assert found == {"latin": 3, "hangul": 3, "kana": 2, "han": 2, "cyrillic": 3, "other": 1}
    assert count_scripts("1 2 3") == count_scripts("") == {}


def test_combining_marks_do_not_move_a_script() -> None:
    assert set(count_scripts("कि")) == {"devanagari"}
    assert set(count_scripts("ที่นี่")) == {"thai"}


def test_korean_with_english_words_is_korean() -> None:
    assert script_of("Obsidian Sync 플러그인을 설치한 다음 Settings 메뉴에서 동기화를 켜세요.") == "hangul"


def test_readable_by() -> None:
    assert readable_by(("en",), "en")
    assert not readable_by(("en",), "ko")
    assert readable_by(("*",), "ko")
    assert readable_by(("en",), "")
    assert not readable_by((), "en")
