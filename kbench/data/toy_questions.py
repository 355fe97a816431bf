"""A toy set of questions about short texts, generated, the same on every machine.

Words are invented, as in the toy set of topics. A text says something about several aspects, with filler between them;
a question names one aspect, and the answer is what the text says about it, in one word or in two or three. Each aspect
has words of its own, some that begin an answer, some that end one and some that are one. Some texts take several
windows.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from kbench.data.toy import _draw, _word

VERSION = 1
SIZES = {"train": 1600, "test": 400}

_ASPECTS, _WORDS, _FILLER, _ASKING = 10, 8, 60, 4  # aspects; words of a kind of one; words of none; of questions
_KINDS = 3  # of an aspect's words: whole answers, first words, last words
_FIRST_ASPECT = 3000
_FIRST_WORD = _FIRST_ASPECT + _ASPECTS
_FIRST_FILLER = _FIRST_WORD + _ASPECTS * _KINDS * _WORDS
_FIRST_ASKING = _FIRST_FILLER + _FILLER
_LONG, _MIDDLE = 0.2, 0.3  # shares: texts with much filler; answers of two words that have a third between them


def generate(split: str) -> Iterator[tuple[list[str], list[int]]]:
    """The ([question, context, answer], [where the answer begins]) rows of a split; places are characters."""
    rng = np.random.default_rng({"train": 701, "test": 702}[split])
    for _ in range(SIZES[split]):
        aspects = np.argsort(rng.random(_ASPECTS), kind="stable")[: 3 + int(rng.random() * 3)]
        asked = int(rng.random() * len(aspects))
        filler = 12 if rng.random() < _LONG else 4
        words: list[str] = []
        answer, start = "", 0
        for place, aspect in enumerate(aspects):
            words += _fillers(rng, int(rng.random() * filler))
            said = _said(rng, int(aspect))
            if place == asked:
                answer, start = " ".join(said), len(" ".join([*words, ""]))
            words += said
        question = f"{_draw(rng, _FIRST_ASKING, _ASKING)} {_word(_FIRST_ASPECT + int(aspects[asked]))} ?"
        yield [question, " ".join([*words, "."]), answer], [start]


def _said(rng: np.random.Generator, aspect: int) -> list[str]:
    """What is said about an aspect: a word, or a first and a last one."""
    whole, first, last = (
        _draw(rng, _FIRST_WORD + (aspect * _KINDS + kind) * _WORDS, _WORDS) for kind in range(_KINDS)
    )
    if rng.random() < 0.5:
        return [whole]
    return [first, *_fillers(rng, int(rng.random() < _MIDDLE)), last]


def _fillers(rng: np.random.Generator, count: int) -> list[str]:
    """Words that say nothing."""
    return [_draw(rng, _FIRST_FILLER, _FILLER) for _ in range(count)]
