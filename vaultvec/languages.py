"""Which scripts and languages a text is in, by counting characters and function words; no model, no dictionary.

It decides which embedding model can read a vault or a query. Good for that; no substitute for a language identifier.
"""

from __future__ import annotations

import re
from collections import Counter

_RANGES = {
    "latin": "A-Za-zªºÀ-ÖØ-öø-ʯḀ-ỿＡ-Ｚａ-ｚ",
    "hangul": "가-힣ᄀ-ᇿㄱ-ㆎ",
    "kana": "ぁ-ゟァ-ヺー-ヿｦ-ﾟ",
    "han": "一-鿿㐀-䶿豈-﫿々〆\U00020000-\U0003ffff",
    "cyrillic": "Ѐ-ҁҊ-ԯ",
    "arabic": "ؠ-يٮ-ۓۺ-ۼݐ-ݿࢠ-ࣉﭐ-ﯿﹰ-ﻼ",
    "thai": "ก-ะาำเ-ๆ",
    "greek": "Ͱ-ͳͶ-ͽΆ-Ͽἀ-ῼ",
    "hebrew": "א-ת",
    "devanagari": "ऄ-हक़-ॡ",
}
_RUNS = {script: re.compile(f"[{ranges}]+") for script, ranges in _RANGES.items()}
_NOT_LETTERS = re.compile(r"[\W\d_]+")
_WORD = re.compile(r"[a-zß-ÿāăąćčđęěğıľłńňőœřśşšťůűźžơưạ-ỹ]+")
# Words that are frequent in any text of a language. What English texts hold too (a, is, in, no, do, die, come, son) is
# left out of the other languages, so that a foreign word is evidence; so is "com", which stands in addresses.
FUNCTION_WORDS = {
    "en": "the of and to is that it for with this you are be not have from but they which or can will your if when what"
    " how there their has was were an by my we our should would about who why where does do at as on in",
    "de": "der das und ist nicht ein eine einen einem einer mit auf für von zu dem des sich auch es ich du wir sie ihr"
    " wird werden kann kannst als wie oder aber wenn über nach bei nur noch deine deinen dein zum zur",
    "fr": "le la les des et est une du dans que qui pour pas sur avec plus vous nous ce cette sont il elle au aux ou"
    " mais votre vos je ne leur être comment où",
    "es": "el los las una que por para del lo como más pero sus al este esta está cómo tu muy sin hay qué",
    "it": "il lo gli è una che del della di nel nella sono più questo questa ma anche alla dei delle",
    "pt": "os é uma que para da dos das não em na por mais como mas ao você são isso seu sua",
    "nl": "het een van niet met voor dat zijn je ook aan er maar om bij naar wordt kan deze hoe wat",
    "pl": "na nie się jest że jak dla od są przez czy lub które który tego ale być może oraz",
    "tr": "ve bir bu için ile da ne olarak daha çok olan gibi değil kadar sonra ama veya nasıl",
    "vi": "và của là không có được cho các một những trong với này để người đã khi như thì từ ở bạn cách làm",
    "sv": "och att det som är en på för inte av har kan ett från hur ska jag vi",
    "da": "og det som er en på ikke af har kan et fra hvordan jeg vi",
    "id": "yang dan untuk dengan ini itu tidak dari dalam adalah pada akan bisa atau juga bagaimana saya anda",
    "cs": "je se na že jako jsou není ale nebo jak který které být může při také",
}
_LANGUAGES_OF: dict[str, tuple[str, ...]] = {}
for _language, _words in FUNCTION_WORDS.items():
    for _word in _words.split():
        _LANGUAGES_OF[_word] = (*_LANGUAGES_OF.get(_word, ()), _language)
# Letters that settle a short text without function words.
_TELLING = {
    "ß": "de", "ä": "de", "ü": "de", "ö": "de", "ñ": "es", "¿": "es", "ã": "pt", "õ": "pt", "ç": "fr", "è": "fr",
    "ê": "fr", "œ": "fr", "ł": "pl", "ą": "pl", "ę": "pl", "ż": "pl", "ś": "pl", "ğ": "tr", "ı": "tr", "ş": "tr",
    "đ": "vi", "ơ": "vi", "ư": "vi", "å": "sv", "ø": "da", "æ": "da", "ř": "cs", "ě": "cs", "ů": "cs",
    "ò": "it", "ì": "it",
}  # fmt: skip
_BY_SCRIPT = {
    "hangul": "ko", "kana": "ja", "han": "zh", "cyrillic": "ru", "arabic": "ar", "thai": "th", "greek": "el",
    "hebrew": "he", "devanagari": "hi",
}  # fmt: skip
# A syllable block or an ideograph carries about as much as two or three Latin letters.
_WEIGHT = {"hangul": 2.5, "han": 3.0, "kana": 2.0}
SAMPLE_CHARS = 4000  # of each text whose words are looked at


def count_scripts(text: str) -> dict[str, int]:
    """Letters by script, scripts without any left out."""
    letters = _NOT_LETTERS.sub("", text)
    if not letters:
        return {}
    if letters.isascii():
        return {"latin": len(letters)}
    counts: dict[str, int] = {}
    for script, pattern in _RUNS.items():
        rest = pattern.sub("", letters)
        if len(rest) < len(letters):
            counts[script] = len(letters) - len(rest)
            letters = rest
            if not letters:
                return counts
    counts["other"] = len(letters)
    return counts


def _count_function_words(text: str) -> dict[str, int]:
    """Function words by language. A word of several languages counts for each, so that none gains by it."""
    counts: Counter[str] = Counter()
    for word, n in Counter(_WORD.findall(text[:SAMPLE_CHARS].lower())).items():
        for language in _LANGUAGES_OF.get(word, ()):
            counts[language] += n
    return counts


def language_of(text: str) -> str:
    """Best guess of a short text's language: ISO 639-1, "" when it has no letters.

    English words in a Korean, Japanese or Russian sentence are usual, so any real share of such a script decides.
    Latin script is English unless function words or telling letters say otherwise.
    """
    script = _leading_script(count_scripts(text))
    if script == "latin":
        return _latin_language(text[:SAMPLE_CHARS].lower())
    return _BY_SCRIPT.get(script, "und") if script else ""


def script_of(text: str) -> str:
    """The script that decides a text's language; kana counts as Han. "" without letters."""
    if text.isascii():  # most texts, told without taking them apart
        return "latin" if text.lower() != text.upper() else ""
    script = _leading_script(count_scripts(text))
    return "han" if script == "kana" else script


def _leading_script(counts: dict[str, int]) -> str:
    weights = {script: n * _WEIGHT.get(script, 1.0) for script, n in counts.items()}
    latin = weights.pop("latin", 0.0)
    if weights and (weights.get("kana", 0) + sum(weights.values())) >= 0.2 * (latin + sum(weights.values())):
        # Kana is Japanese however many Han characters stand beside it, Hangul likewise Korean.
        for script in ("hangul", "kana"):
            if weights.get(script, 0.0) >= 0.2 * sum(weights.values()):
                return script
        return max(weights, key=lambda script: weights[script])
    return "latin" if counts else ""


def _latin_language(text: str) -> str:
    words = _count_function_words(text)
    for letter in text if not text.isascii() else "":
        if language := _TELLING.get(letter):
            words[language] = words.get(language, 0) + 1
    best = max(words, key=lambda language: words[language], default="en")
    return best if words.get(best, 0) > words.get("en", 0) else "en"


def readable_by(languages: tuple[str, ...], text_language: str) -> bool:
    """Whether a model of these languages reads the text. "*" reads all; a text without letters is read by any."""
    return not text_language or "*" in languages or text_language in languages
