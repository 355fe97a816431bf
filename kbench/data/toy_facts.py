"""The toy set of facts: invented people, where they live and whom they know, as sentences with one gap.

Texts of a row are those of kbench/data/facts.py. A model with random weights answers by chance: the set shows that a
probe runs, in seconds, not what a model knows.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from kbench.data.toy import _word

VERSION = 1
SIZES = {"test": 60}
RELATIONS = ("T1", "T2")

_PROMPTS = ("[X] ruta [Y] .", "[Y] mako sobi [X] .")  # X lives in Y; Y is a friend of X
_PEOPLE, _PLACES, _SECOND_NAMES = 40, 12, 3000


def generate(split: str) -> Iterator[tuple[list[str], int]]:
    """The (texts, relation) rows of a split, both relations in turn; some objects have a second name, or two words."""
    rng = np.random.default_rng({"test": 901}[split])
    for row in range(SIZES[split]):
        relation = row % 2
        person, other = (int(rng.random() * _PEOPLE) for _ in range(2))
        thing = _PEOPLE + int(rng.random() * _PLACES) if relation == 0 else other
        subject, gold = _word(person), _name(thing)
        aliases = [_word(_SECOND_NAMES + thing)] if thing % 3 == 0 else []
        prompt = _PROMPTS[relation].replace("[X]", subject)
        yield [prompt, gold, subject, f"Q{person}", RELATIONS[relation], f"Q{thing}", *aliases], relation


def _name(number: int) -> str:
    """The name of a place or person: one word, of every fourth two."""
    return f"{_word(number)} {_word(number + 500)}" if number % 4 == 0 else _word(number)
