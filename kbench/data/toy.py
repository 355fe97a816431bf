"""The toy data set: short texts of invented words about six topics, generated, the same on every machine.

It is hard where integrating teachers is hard. Two words in three say nothing about the topic; topic k of the first half
shares some with topic k of the second, which a teacher that knows only one of the two takes for its own; and some texts
name a second topic in passing.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

VERSION = 3
SIZES = {"train": 1600, "test": 800}

_CONSONANTS = "bdfgklmnprstvz"
_VOWELS = "aeiou"
_OWN, _SHARED, _BACKGROUND = 60, 30, 500  # words of one topic, of a pair of topics, of no topic
_OTHER = 2000  # where the words of the second world begin
_TOPICAL, _FROM_SHARED, _PASSING = (
    0.28,
    0.05,
    0.05,
)  # shares: words on topic; of these from the pair; texts naming another


def _word(number: int) -> str:
    """The number-th invented word: two or three syllables."""
    syllables = []
    number += len(_CONSONANTS) * len(_VOWELS)
    while number:
        number, digit = divmod(number, len(_CONSONANTS) * len(_VOWELS))
        consonant, vowel = divmod(digit, len(_VOWELS))
        syllables.append(_CONSONANTS[consonant] + _VOWELS[vowel])
    return "".join(syllables)


def _draw(rng: np.random.Generator, first: int, count: int) -> str:
    """A word of a list of `count` words from `first` on, the early ones more often (Zipf)."""
    weights = np.cumsum(1.0 / np.arange(1, count + 1))
    return _word(first + int(np.searchsorted(weights, rng.random() * weights[-1])))


def generate(split: str, topics: int = 6, other: bool = False) -> Iterator[tuple[str, int]]:
    """The (text, topic) rows of a split, topics in turn; `other` gives a second world with topics of its own."""
    rng = np.random.default_rng({"train": 101, "test": 102}[split] + (100 if other else 0))
    half = topics // 2
    first = _BACKGROUND + (_OTHER if other else 0)
    own = [first + topic * _OWN for topic in range(topics)]
    shared = [first + topics * _OWN + pair * _SHARED for pair in range(half)]
    for row in range(SIZES[split]):
        topic = row % topics
        other = int(rng.random() * topics) if rng.random() < _PASSING else topic
        words = []
        for _ in range(8 + int(rng.random() * 13)):
            if rng.random() >= _TOPICAL:
                words.append(_draw(rng, 0, _BACKGROUND))
                continue
            named = other if rng.random() < 0.4 else topic
            if rng.random() < _FROM_SHARED:
                words.append(_draw(rng, shared[named % half], _SHARED))
            else:
                words.append(_draw(rng, own[named], _OWN))
        yield " ".join(words), topic
