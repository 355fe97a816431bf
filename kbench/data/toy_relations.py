"""The toy set of relations: sentences with two marked names in two invented languages, the same on every machine.

Like RELX it is learned in one language and tested in both. Names are the same in both; half of the words that tell a
relation are, too, as loanwords are; all others are the second language's own, so that it is harder, not hopeless.
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
# relation -> the kinds of name of its subject and its object, in this order
RELATIONS = {"works_for": ("person", "firm"), "lives_in": ("person", "place"), "based_in": ("firm", "place")}
LABELS = ("no_relation", *(f"{name}({order})" for name in RELATIONS for order in ("e1,e2", "e2,e1")))
LANGUAGES = ("xa", "xb")

_NAMES, _CUES, _FILLERS = 20, 4, 60  # names of a kind, words that tell a relation, words that tell nothing
_KINDS = ("person", "firm", "place")
_FIRST_NAME, _FIRST_CUE, _FIRST_FILLER, _OTHER = 0, 200, 300, 1000  # _OTHER: where the second language begins
_LOAN, _NONE = 0.5, 0.3  # shares: a relation's words that both languages have; rows without a relation


def generate(data: Data, split: str, lang: str) -> Iterator[tuple[str, int]]:
    """The (marked text, label) rows of a split in a language: e1 is the name that stands first.

    A relation and its direction are told by two words between the names, "leads" or "is led by" as it were, and by the
    kinds of the names. Names without a relation are of any two kinds.

    Raises:
        DataError: another language, or other labels, than it has.
    """
    if lang not in LANGUAGES:
        what = f"toy_relx has no language {lang}"
        raise DataError(Problem("data.zero_shot", what, f"there are: {', '.join(LANGUAGES)}"))
    if tuple(data.labels) != LABELS:
        raise DataError(Problem("data.labels", "are not those of toy_relx", f"write: {', '.join(LABELS)}"))
    rng = np.random.default_rng(derive(701, split, lang))
    for _ in range(SIZES[split]):
        label = int(rng.random() * (len(LABELS) - 1)) + 1 if rng.random() >= _NONE else 0
        kinds, cues = _told(rng, label, lang)
        names = [_draw(rng, _FIRST_NAME + _KINDS.index(kind) * _NAMES, _NAMES) for kind in kinds]
        between = [*_fillers(rng, lang, 1), *cues, *_fillers(rng, lang, 1)]
        words = [*_fillers(rng, lang, 2), "<e1>", names[0], "</e1>", *between, "<e2>", names[1], "</e2>"]
        yield " ".join([*words, *_fillers(rng, lang, 2), "."]), label


def _told(rng: np.random.Generator, label: int, lang: str) -> tuple[tuple[str, str], list[str]]:
    """The kinds of the two names, and the words that tell their relation where they have one."""
    if not label:
        first, second = (_KINDS[int(rng.random() * len(_KINDS))] for _ in range(2))
        return (first, second), []
    number, turned = divmod(label - 1, 2)
    subject, object_ = list(RELATIONS.values())[number]
    # each label has a list of its own; loanwords are those of the first language
    shift = 0 if lang == LANGUAGES[0] or rng.random() < _LOAN else _OTHER
    cues = [_draw(rng, _FIRST_CUE + shift + (label - 1) * _CUES, _CUES) for _ in range(2)]
    return ((object_, subject) if turned else (subject, object_)), cues


def _fillers(rng: np.random.Generator, lang: str, most: int) -> list[str]:
    """Up to `most` words that tell nothing."""
    shift = 0 if lang == LANGUAGES[0] else _OTHER
    return [_draw(rng, _FIRST_FILLER + shift, _FILLERS) for _ in range(int(rng.random() * (most + 1)))]
