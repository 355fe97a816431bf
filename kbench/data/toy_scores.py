"""The toy set of scored pairs: two texts of invented words and one score, the same on every machine.

Each word is of one of two sides. The score of a pair is how much of both texts together is of the first side, from 0 to
5 as in STS-B. Neither text tells it by itself: they are drawn apart.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from kbench.data.toy import _draw
from kbench.engine.seeding import derive

VERSION = 1
SIZES = {"train": 1600, "test": 400}

_SIDE, _WORDS, _HIGHEST = 40, 6, 5.0  # words of a side, words of a text, score of texts all of the first side


def generate(split: str) -> Iterator[tuple[list[str], float]]:
    """The ([first text, second text], score) rows of a split."""
    rng = np.random.default_rng(derive(1101, split))
    for _ in range(SIZES[split]):
        first, second = (int(rng.random() * (_WORDS + 1)) for _ in range(2))
        yield [_text(rng, first), _text(rng, second)], _HIGHEST * (first + second) / (2 * _WORDS)


def _text(rng: np.random.Generator, leaning: int) -> str:
    """A text of which so many words are of the first side, in any order."""
    sides = np.argsort(rng.random(_WORDS)) < leaning
    return " ".join(_draw(rng, 0 if side else _SIDE, _SIDE) for side in sides)
