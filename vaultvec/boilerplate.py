"""Lines that a template or a program put into note after note: they say nothing of any one of them, so they are not embedded.

Measured on 1,500 notes of the Obsidian hub, where three lines in ten are of this kind (badges, "Edit in GitHub"): MRR@10 of
60 questions rises from 0.22 to 0.45, because a short note's vector is no longer mostly that of its footer.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from vaultvec.datatypes import NoteFile
from vaultvec.ledger import Ledger
from vaultvec.note_file import read_bytes
from vaultvec.vault import spread

SAMPLE_NOTES = 1000  # notes that are looked at, spread over the vault
LEAST_NOTES = 50  # of those a line must stand in
LEAST_SHARE = 0.10  # of those it must stand in; 1 % to 10 % give the same answers on the hub, and 10 % takes least away
MOST_TEXT = 0.5  # a vault that is mostly repeated lines has no boilerplate: it is its text
_SAYS_SOMETHING = re.compile(r"\w\w")  # fences, rules and table borders stay: they cost nothing


def repeated_lines(bodies: Iterable[str]) -> frozenset[str]:
    """Lines, stripped, that stand in at least LEAST_SHARE of the bodies and in LEAST_NOTES of them."""
    notes: Counter[str] = Counter()
    places: Counter[str] = Counter()
    total = letters = 0
    for body in bodies:
        total += 1
        lines = [line.strip() for line in body.split("\n")]
        letters += sum(map(len, lines))
        places.update(lines)
        notes.update(set(lines))
    least = max(LEAST_NOTES, LEAST_SHARE * total)
    found = frozenset(line for line, count in notes.items() if count >= least and _SAYS_SOMETHING.search(line))
    taken = sum(len(line) * places[line] for line in found)
    return found if taken <= MOST_TEXT * letters else frozenset()


def vault_boilerplate(ledger: Ledger, files: Sequence[NoteFile], renew: bool) -> tuple[frozenset[str], bool]:
    """(lines, whether they changed so that every note must be read again).

    They are found once and kept with the index, so that a note gives the same chunks on every run; looked for again with
    `renew` (every note is read again anyway), and when the vault has doubled. Where they changed, every note is marked to
    be read again.
    """
    known, notes = kept_boilerplate(ledger)
    if not renew and len(files) < 2 * notes:
        return known, False
    found = find_boilerplate(files)
    changed = found != known
    with ledger.transaction():
        if changed and notes:
            ledger.read_again(ledger.notes())
        value = {"notes": len(files), "lines": sorted(found)}
        ledger.set_meta("boilerplate", json.dumps(value, ensure_ascii=False))
    return found, changed


def kept_boilerplate(ledger: Ledger) -> tuple[frozenset[str], int]:
    """(lines, how many notes the vault had when they were found); none and 0 of an index that has not looked."""
    try:
        kept = json.loads(ledger.meta("boilerplate"))
        return frozenset(map(str, kept["lines"])), int(kept["notes"])
    except (ValueError, TypeError, KeyError):
        return frozenset(), 0  # a broken list is a missing one


def boilerplate_line(lines: frozenset[str]) -> str:
    """What the user should hear of it."""
    example = max(sorted(lines), key=len)[:60]
    return f"left out of the index: {len(lines)} lines that at least a tenth of the notes share, such as {example!r}"


def find_boilerplate(files: Sequence[NoteFile]) -> frozenset[str]:
    """The boilerplate of a vault as it is now, in whatever order its files come."""
    return repeated_lines(_bodies(sorted(files, key=lambda file: file.path)))


def _bodies(files: Sequence[NoteFile]) -> Iterator[str]:
    if len(files) < LEAST_NOTES:
        return
    from vaultvec.notes import parse_note  # a search asks for the lines that are known, and parses nothing

    for file in spread(files, SAMPLE_NOTES):
        try:
            yield parse_note(file.path, read_bytes(file)).body
        except Exception:
            continue  # the reader reports it
