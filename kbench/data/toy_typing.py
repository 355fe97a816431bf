"""The toy set of typed mentions: sentences of invented words with one marked name, the same on every machine.

A name is of one of four kinds, told by the word before it; a word behind it may tell that it is old, too, whatever its
kind. So a mention has no, one or two types, as in Open Entity; names of no kind have no word before them.
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
KINDS = ("person", "group", "place", "thing")
LABELS = (*KINDS, "old")

_NAMES, _CUES, _FILLERS = 200, 4, 60  # names of all kinds, words that tell a type, words that tell nothing
_FIRST_CUE, _FIRST_FILLER = 300, 400
_NONE, _OLD = 0.2, 0.25  # shares: names of no kind, old ones


def generate(data: Data, split: str) -> Iterator[tuple[str, list[int]]]:
    """The (marked text, types) rows of a split.

    Raises:
        DataError: other labels than it has.
    """
    if tuple(data.labels) != LABELS:
        raise DataError(Problem("data.labels", "are not those of toy_typing", f"write: {', '.join(LABELS)}"))
    rng = np.random.default_rng(derive(1001, split))
    for _ in range(SIZES[split]):
        kind = int(rng.random() * len(KINDS)) if rng.random() >= _NONE else None
        old = rng.random() < _OLD
        before = [] if kind is None else [_draw(rng, _FIRST_CUE + kind * _CUES, _CUES)]
        behind = [_draw(rng, _FIRST_CUE + len(KINDS) * _CUES, _CUES)] if old else []
        name = [_draw(rng, 0, _NAMES) for _ in range(1 + int(rng.random() * 2))]
        words = [*_fillers(rng, 4), *before, "<e1>", *name, "</e1>", *behind, *_fillers(rng, 4), "."]
        yield " ".join(words), [*([] if kind is None else [kind]), *([len(KINDS)] if old else [])]


def _fillers(rng: np.random.Generator, most: int) -> list[str]:
    """Up to `most` words that tell nothing."""
    return [_draw(rng, _FIRST_FILLER, _FILLERS) for _ in range(int(rng.random() * (most + 1)))]
