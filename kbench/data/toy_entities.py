"""The toy set of tagged words: sentences of invented words with entities of four types, the same on every machine.

It is hard where integrating taggers is hard. A type of the first half shares some of its words with one of the second,
so that a teacher that knows only one of the two takes the other's for its own; a word before an entity mostly hints at
its type, and hints stand where there is no entity, too.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from kbench.data.toy import _draw

VERSION = 1
SIZES = {"train": 1200, "test": 400}
TYPES = ("PER", "MISC", "ORG", "LOC")

_OWN, _SHARED, _HINTS, _BACKGROUND = 40, 20, 6, 200  # words of a type, of a pair of types, before a type, of none
_FROM_SHARED, _HINTED, _IDLE = 0.35, 0.7, 0.05  # shares: entity words of the pair; entities with a hint; idle hints
_FIRST_OWN = _BACKGROUND
_FIRST_SHARED = _FIRST_OWN + len(TYPES) * _OWN
_FIRST_HINT = _FIRST_SHARED + len(TYPES) // 2 * _SHARED


def _entity(rng: np.random.Generator, number: int) -> tuple[list[str], list[str]]:
    """One to three words of the number-th type, mostly after a hint; and their tags."""
    words, tags = [], []
    if rng.random() < _HINTED:
        words.append(_draw(rng, _FIRST_HINT + number * _HINTS, _HINTS))
        tags.append("O")
    for position in range(1 + int(rng.random() * 3)):
        if rng.random() < _FROM_SHARED:
            words.append(_draw(rng, _FIRST_SHARED + number % (len(TYPES) // 2) * _SHARED, _SHARED))
        else:
            words.append(_draw(rng, _FIRST_OWN + number * _OWN, _OWN))
        tags.append(f"{'I' if position else 'B'}-{TYPES[number]}")
    return words, tags


def _other(rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """A word that belongs to no entity."""
    if rng.random() < _IDLE:
        return [_draw(rng, _FIRST_HINT + int(rng.random() * len(TYPES)) * _HINTS, _HINTS)], ["O"]
    return [_draw(rng, 0, _BACKGROUND)], ["O"]


def generate(split: str) -> Iterator[tuple[list[str], list[str]]]:
    """The (words, IOB2 tags) of a split's sentences: 6 to 14 words with up to three entities."""
    rng = np.random.default_rng({"train": 301, "test": 302}[split])
    for _ in range(SIZES[split]):
        length = 6 + int(rng.random() * 9)
        pieces: list[tuple[list[str], list[str]]] = []
        room = length
        for _ in range(int(rng.random() * 4)):
            piece = _entity(rng, int(rng.random() * len(TYPES)))
            if len(piece[0]) <= room:
                pieces.append(piece)
                room -= len(piece[0])
        for _ in range(room):
            pieces.insert(int(rng.random() * (len(pieces) + 1)), _other(rng))
        yield [word for words, _ in pieces for word in words], [tag for _, tags in pieces for tag in tags]
