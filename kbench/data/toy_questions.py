"""A toy set of questions about short texts, generated, the same on every machine.

Words are invented, as in the toy set of topics. A text says something about a few aspects, with filler between them; a
question names one of them, and the answer is what the text says about it, a word or two. Each aspect has words of its
own, so question and text must be read together: every aspect's words are an answer to some question. Some texts are
long and take several windows.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from kbench.data.toy import _draw, _word

VERSION = 1
SIZES = {"train": 1600, "test": 400}

_ASPECTS, _WORDS, _FILLER, _ASKING = 5, 8, 40, 2  # aspects; words of one aspect, of none, of questions
_FIRST_ASPECT = 3000
_FIRST_WORD = _FIRST_ASPECT + _ASPECTS
_FIRST_FILLER = _FIRST_WORD + _ASPECTS * _WORDS
_FIRST_ASKING = _FIRST_FILLER + _FILLER
_LONG, _TWO = 0.15, 0.25  # shares: texts with much filler; answers of two words


def generate(split: str) -> Iterator[tuple[list[str], list[int]]]:
    """The ([question, context, answer], [where the answer begins]) rows of a split; places are characters."""
    rng = np.random.default_rng({"train": 701, "test": 702}[split])
    for _ in range(SIZES[split]):
        aspects = np.argsort(rng.random(_ASPECTS), kind="stable")[: 2 + int(rng.random() * 2)].tolist()
        asked = int(rng.random() * len(aspects))
        filler = 12 if rng.random() < _LONG else 3
        words: list[str] = []
        answer, start = "", 0
        for place, aspect in enumerate(aspects):
            words += [_draw(rng, _FIRST_FILLER, _FILLER) for _ in range(int(rng.random() * filler))]
            count = 2 if rng.random() < _TWO else 1
            said = [_draw(rng, _FIRST_WORD + aspect * _WORDS, _WORDS) for _ in range(count)]
            if place == asked:
                answer, start = " ".join(said), len(" ".join([*words, ""]))
            words += said
        question = f"{_draw(rng, _FIRST_ASKING, _ASKING)} {_word(_FIRST_ASPECT + aspects[asked])} ?"
        yield [question, " ".join([*words, "."]), answer], [start]
