"""Reader of TACRED (LDC2018T24) and of what has its form, such as Re-TACRED.

One JSON list a split: {id, relation, token, subj_start, subj_end, obj_start, obj_end, subj_type, obj_type, ..}. The
places are those of words, and the last word of a span is part of it. The corpus is licensed and cannot be shipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kbench.data.json_lists import json_objects, number_of, texts_of
from kbench.data.pairs import _text
from kbench.errors import DataError, Problem

_KEYS = ("relation", "token", "subj_start", "subj_end", "obj_start", "obj_end", "subj_type", "obj_type")
# the Penn Treebank's spelling of brackets
_BRACKETS = {"-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]", "-LCB-": "{", "-RCB-": "}"}
_MARKER = re.compile(r"</?e[12](:[^<>\s]+)?>")
_PARTS = {"subj": "subject", "obj": "object"}


def tacred(path: Path, encoding: str) -> Iterator[tuple[str, str, str]]:
    """Sentences whose words stand between spaces, with marked and typed arguments, and their relation.

    The subject is e1, the object e2: `<e1:PERSON> Bill </e1> leads <e2:ORGANIZATION> Acme </e2>`. Brackets, which the
    corpus spells -LRB-, are written as such (ours; what is a word to every tokenizer).

    Raises:
        DataError: it is no such list; a span is outside the sentence, or the two share words; a type is no word.
    """
    for place, where, row in json_objects(path, encoding, _KEYS):
        words = [_BRACKETS.get(word.upper(), word) for word in texts_of(row, "token", where)]
        for word in words:
            if _MARKER.fullmatch(word):
                raise DataError(Problem(where, f"has the word {word}, which marks an argument here"))
        spans = {part: _span(row, part, len(words), where) for part in _PARTS}
        (first, last), (other, until) = spans.values()
        if first <= until and other <= last:
            raise DataError(Problem(where, "has a subject and an object that share words"))
        for number, (part, (start, end)) in enumerate(spans.items(), start=1):
            kind = _text(row, f"{part}_type", where)
            if not re.fullmatch(r"[^<>\s]+", kind):
                raise DataError(Problem(where, f"{part}_type is no word: {kind!r:.40}"))
            words[start] = f"<e{number}:{kind}> {words[start]}"
            words[end] = f"{words[end]} </e{number}>"
        yield place, " ".join(words), _text(row, "relation", where)


def _span(row: Mapping[str, Any], part: str, words: int, where: str) -> tuple[int, int]:
    """The first and the last word of an argument."""
    start, end = (number_of(row, f"{part}_{name}", where) for name in ("start", "end"))
    if not 0 <= start <= end < words:
        what = f"has its {_PARTS[part]} at words {start} to {end} of {words}"
        raise DataError(Problem(where, what, f"{part}_end is the last word of it, counted from 0"))
    return start, end
