"""One file of the vault → its bytes, their digest, and their text in NFC. Nothing is written, nothing is resolved."""

from __future__ import annotations

import codecs
import hashlib
import os
import re
import stat
import unicodedata

from vaultvec.datatypes import NoteFile
from vaultvec.errors import VaultError

MAX_BYTES = 16 << 20
# Normalising sorts runs of combining marks in quadratic time; UAX #15 (Stream-Safe Text) allows 30.
_MARK_RUN = re.compile(r"[^\w\s\x00-\x7f]{31,}+")
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_bytes(file: NoteFile, max_bytes: int = MAX_BYTES) -> bytes:
    """The file's bytes. Raises VaultError if it is gone, no regular file, unreadable, or larger than `max_bytes`."""
    try:
        # What was a file in the walk may be a pipe by now, and to open that would block.
        if not stat.S_ISREG(os.lstat(file.absolute).st_mode):
            raise VaultError("no longer a regular file")
        with open(file.absolute, "rb") as stream:
            data = stream.read(max_bytes + 1)
    except FileNotFoundError:
        raise VaultError("vanished while the vault was read") from None
    except OSError as error:
        raise VaultError(f"cannot be read: {(error.strerror or str(error)).lower()}") from None
    if len(data) > max_bytes:
        raise VaultError(f"larger than {max_bytes / (1 << 20):g} MB, the most a note may have")
    return data


def digest(data: bytes) -> bytes:
    """16 bytes that tell one content from another (BLAKE2b)."""
    return hashlib.blake2b(data, digest_size=16).digest()


def decode(data: bytes) -> tuple[str, list[str]]:
    """(text, warnings). UTF-8, UTF-16 and UTF-32 with a mark, CP949, CP1252, in this order. VaultError for binary."""
    text, warnings = _decode(data)
    if "\x00" in text:
        raise VaultError("binary, or UTF-16 without its mark: holds NUL bytes; if it is text, save it as UTF-8")
    return text, warnings


def _decode(data: bytes) -> tuple[str, list[str]]:
    for bom, encoding in _BOMS:
        if data.startswith(bom):
            text = data.decode(encoding, "replace").removeprefix("\ufeff")
            return text, ["some bytes could not be decoded"] if "\ufffd" in text else []
    try:
        return data.decode("utf-8"), []
    except UnicodeDecodeError:
        pass
    text = data.decode("utf-8", "replace")
    bad = text.count("\ufffd")
    # A damaged UTF-8 note stays UTF-8: reading it as anything else would turn all its Korean to mojibake.
    if _count_non_ascii(text) - bad >= 4 * bad:
        return text, [f"{bad} places are not valid UTF-8"]
    try:
        korean = data.decode("cp949")
        if 2 * _count_common_hangul(korean) > _count_non_ascii(korean):
            return korean, ["read as CP949 (Korean), not UTF-8"]
    except UnicodeDecodeError:
        pass
    try:
        return data.decode("cp1252"), ["read as CP1252 (Western European), not UTF-8"]
    except UnicodeDecodeError:
        return data.decode("latin-1"), ["read as Latin-1, not UTF-8"]


def _count_common_hangul(text: str) -> int:
    """How many of the 2,350 syllables of KS X 1001 stand in a text, repeats counted: all but a few of any Korean one.

    The 8,822 that CP949 adds prove nothing: an accented letter or a curly quote of CP1252 and the ASCII letter after
    it make one of them.
    """
    # In KS X 1001 both bytes are 0xA1 or more.
    common = {c for c in set(text) if "가" <= c <= "힣" and min(c.encode("cp949")) >= 0xA1}
    return sum(c in common for c in text)


def _count_non_ascii(text: str) -> int:
    return len(text) - len(text.encode("ascii", "ignore"))


def normalise(text: str) -> str:
    """NFC, with "\\n" for every line end that Obsidian knows (CRLF, CR, LF; not U+2028)."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if text.isascii():
        return text
    return unicodedata.normalize("NFC", _MARK_RUN.sub(_cap_marks, text))


def _cap_marks(match: re.Match[str]) -> str:
    """At most 30 combining marks in a row."""
    kept: list[str] = []
    run = 0
    for c in match[0]:
        run = run + 1 if unicodedata.combining(c) else 0
        if run <= 30:
            kept.append(c)
    return "".join(kept)
