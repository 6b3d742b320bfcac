"""Korean words without what grammar hangs on them: particles after nouns, endings after verbs. No dictionary, no analyser.

What is left is the beginning of the word, so a wrong cut finds too much rather than too little.
"""

from __future__ import annotations

import re

_PARTICLES = """
에서는 에서도 에게서 으로는 으로도 이라는 이라고 이라도 까지도 부터는 만으로 에서 에게 한테 으로 까지 부터 처럼 보다 마다
조차 밖에 이나 라도 라는 라고 에는 에도 와는 과는 만을 은 는 이 가 을 를 에 로 와 과 도 만 의 나
"""
_ENDINGS = """
하려면 하려고 하려는 하고 하는 하면 하기 하게 하지 해서 해야 했던 했지 했더라 했나 했을 했는데 한다 할까 할 한 해 되는 되면
되나 된 될 되지 됐 려면 으려면 려고 으려고 으면 면 으니 니까 으니까 는지 은지 던 았던 었던 았지 었지 였지 였더라 더라 았을
었을 싶어 싶은데 어서 아서 고 기 기가 지 게 나 을까 는 은 을 네 어 아 야 며 면서 으면서 도록 인가 인지 이야 이지 일까
"""
PARTICLES = frozenset(_PARTICLES.split())
ENDINGS = frozenset(_ENDINGS.split())
_TAILS = PARTICLES | ENDINGS | {"이란", "란"}  # what asks for a meaning; alone, 이란 is a country
# Those that hardly any noun ends in, as many do in 도, 의 or 이.
_CLEAR = frozenset(tail for tail in PARTICLES if len(tail) > 1 and tail != "이나") | {*"은는을를에와란", "이란"}
STEM_SYLLABLES = 2  # that stay at least: "회의" (a meeting) is no "회" with a particle
_HANGUL = re.compile("[가-힣]+")
_LONGEST = max(map(len, _TAILS))


def is_korean(word: str) -> bool:
    """Whether a word is all Hangul syllables."""
    return _HANGUL.fullmatch(word) is not None


def stem(word: str) -> str:
    """A word of Hangul without its last particle or ending, and without a particle before that; others as they are."""
    if not is_korean(word):
        return word
    return _without(_without(word, _TAILS), PARTICLES)


def bare(word: str) -> list[str]:
    """The nouns that a word of Hangul may be: what stands before each particle that it may end in. 집에는 → 집에, 집."""
    return [word[:n] for n in range(len(word) - 1, 0, -1) if word[n:] in _CLEAR] if is_korean(word) else []


def _without(word: str, tails: frozenset[str]) -> str:
    """The word without the longest of these tails that leaves enough of it."""
    for length in range(min(_LONGEST, len(word) - STEM_SYLLABLES), 0, -1):
        if word[-length:] in tails:
            return word[:-length]
    return word
