"""The toy set in TACRED's form: sentences with a marked subject and object and their types, the same everywhere.

Unlike those of the toy set of relations a label has no direction: the subject is e1 wherever it stands, and the words
between the names tell both the relation and which of them comes first.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from kbench.data.toy import _draw
from kbench.engine.seeding import derive
from kbench.errors import DataError, Problem

if TYPE_CHECKING:
    from kbench.config.schema import Data

VERSION = 1
SIZES = {"train": 1600, "test": 400}
# relation -> types of its subject and its object
RELATIONS = {
    "works_for": ("PERSON", "FIRM"), "lives_in": ("PERSON", "PLACE"), "based_in": ("FIRM", "PLACE"),
    "lies_in": ("PLACE", "PLACE"),
}  # fmt: skip
LABELS = ("no_relation", *RELATIONS)
TYPES = ("PERSON", "FIRM", "PLACE")

_NAMES, _CUES, _FILLERS = 20, 4, 60  # names of a type, words that tell a relation, words that tell nothing
_FIRST_CUE, _FIRST_FILLER = 200, 300
_NONE, _TURNED = 0.5, 0.4  # shares: rows without a relation, rows whose object stands first


def generate(data: Data, split: str) -> Iterator[tuple[str, int]]:
    """The (marked text, label) rows of a split; a row without a relation has two names of types that could have one.

    Raises:
        DataError: other labels than it has.
    """
    if tuple(data.labels) != LABELS:
        raise DataError(Problem("data.labels", "are not those of toy_tacred", f"write: {', '.join(LABELS)}"))
    rng = np.random.default_rng(derive(1002, split))
    for _ in range(SIZES[split]):
        number = int(rng.random() * len(RELATIONS))
        related, turned = rng.random() >= _NONE, rng.random() < _TURNED
        arguments = [
            f"<e{place}:{kind}> {_draw(rng, TYPES.index(kind) * _NAMES, _NAMES)} </e{place}>"
            for place, kind in enumerate(list(RELATIONS.values())[number], start=1)
        ]
        cues = [_draw(rng, _FIRST_CUE + (2 * number + turned) * _CUES, _CUES) for _ in range(2 * related)]
        first, second = arguments[::-1] if turned else arguments
        words = [*_fillers(rng, 2), first, *_fillers(rng, 1), *cues, *_fillers(rng, 1), second, *_fillers(rng, 2), "."]
        yield " ".join(words), 1 + number if related else 0


def _fillers(rng: np.random.Generator, most: int) -> list[str]:
    """Up to `most` words that tell nothing."""
    return [_draw(rng, _FIRST_FILLER, _FILLERS) for _ in range(int(rng.random() * (most + 1)))]
