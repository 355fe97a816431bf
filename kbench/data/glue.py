"""Readers of GLUE's tasks, as GLUE distributes them and as the data sets themselves are released.

All files are tab-separated, and quotes have no meaning. Columns are found by the names in the first line; CoLA's have
no such line. Each reader yields (line, text or [first text, second text], label as the file spells it), that of STS-B
its score instead of a label. Files may be gzipped. GLUE keeps the labels of its test sets to itself: those files are
refused, never scored.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kbench.data.readers import Row, _columns, lines
from kbench.errors import DataError, Problem

PairRow = tuple[int, list[str], str]
ScoredRow = tuple[int, list[str], float]

_UNDECIDED = "-"  # MultiNLI's release: the annotators agreed on no label
_HIDDEN = "-1"  # what copies of the hub have in place of a label that is kept secret
_HINT = "GLUE does not release the labels of its test sets: score the development set"
_NLI = ("entailment", "neutral", "contradiction")
# columns of the first text, the second and the label; what a copy of the hub, which has numbers, means by 0, 1, ..
_PAIRS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("question1", "question2", "is_duplicate"), ()),
    (("question1", "question2", "label"), ()),
    (("sentence1", "sentence2", "gold_label"), ()),
    (("premise", "hypothesis", "label"), _NLI),
    (("question", "sentence", "label"), ("entailment", "not_entailment")),
    (("sentence1", "sentence2", "label"), ("entailment", "not_entailment")),
)
_MRPC = ("#1 String", "#2 String", "Quality")
_HIGHEST = 5.0  # STS-B: the same meaning


def glue_cola(path: Path, encoding: str) -> Iterator[Row]:
    """CoLA: source, label 0 or 1, the linguists' mark, sentence; no header. GLUE's files and the release are alike."""
    for number, line in lines(path, encoding):
        row = line.split("\t")
        if len(row) == 2:  # GLUE's test set: number, sentence
            raise DataError(Problem(f"{path}, line {number}", "has no label", _HINT))
        if len(row) != 4:
            raise _columns(path, number, len(row), "source, label, mark, sentence, separated by tabs")
        yield number, row[3].strip(), _label(row[1], f"{path}, line {number}")


def glue_sst2(path: Path, encoding: str) -> Iterator[Row]:
    """SST-2: sentence, label 0 or 1. The space that many sentences end with is removed, as fairseq's encoder does."""
    for number, where, row in _table(path, encoding, (("sentence", "label"),)):
        yield number, row[0].strip(), _label(row[1], where)


def glue_mrpc(path: Path, encoding: str) -> Iterator[PairRow]:
    """MRPC: label, two numbers, two sentences; GLUE's train and dev have the columns of the release."""
    for number, where, row in _table(path, encoding, (_MRPC,)):
        yield number, _texts(row, _MRPC, where), _label(row[2], where)


def glue_pairs(path: Path, encoding: str) -> Iterator[PairRow]:
    """RTE, QNLI, QQP and MNLI, told by their columns; labels that a copy of the hub has as numbers get their names.

    Lines of QQP with too few or too many columns, which its files have, are left out as fairseq's preparation does, and
    its questions may be empty. Pairs of MultiNLI on whose label the annotators did not agree are left out as in GLUE.
    """
    forms = [columns for columns, _ in _PAIRS]
    columns = _form(path, encoding, forms)
    qqp = columns[0] == "question1"
    names = dict(_PAIRS)[columns]
    spelt = {str(index): name for index, name in enumerate(names)}
    for number, where, row in _table(path, encoding, forms, ragged=qqp):
        label = _label(row[2], where)
        if label != _UNDECIDED:
            yield number, list(row[:2]) if qqp else _texts(row, columns, where), spelt.get(label, label)


def glue_stsb(path: Path, encoding: str) -> Iterator[ScoredRow]:
    """STS-B: two sentences and how close they are in meaning, from 0 to 5."""
    columns = ("sentence1", "sentence2", "score")
    for number, where, row in _table(path, encoding, (columns, (*columns[:2], "label"))):
        spelt = _label(row[2], where)
        try:
            score = float(spelt)
        except ValueError:
            score = math.nan
        if not 0 <= score <= _HIGHEST:
            raise DataError(Problem(where, f"score {spelt!r} is no number from 0 to {_HIGHEST:g}"))
        yield number, _texts(row, columns, where), score


GLUE_READERS: dict[str, Any] = {
    reader.__name__: reader for reader in (glue_cola, glue_sst2, glue_mrpc, glue_pairs, glue_stsb)
}


def _form(path: Path, encoding: str, forms: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """The first of some forms, columns of the texts and last that of the label, that a file's first line has all of.

    Raises:
        DataError: it has none of them, or the texts without the label; of an empty file, which has no rows, nothing.
    """
    number, header = next(lines(path, encoding), (0, ""))
    found = [column.strip() for column in header.split("\t")]
    for form in forms:
        if not number or set(form) <= set(found):
            return tuple(form)
    where = f"{path}, line {number}"
    if any(set(form[:-1]) <= set(found) for form in forms):
        raise DataError(Problem(where, "has no column of labels", _HINT))
    names = " or ".join(dict.fromkeys(", ".join(form) for form in forms))
    raise DataError(Problem(where, f"is no header of such a file: {header:.60}", f"expected: {names}"))


def _table(
    path: Path, encoding: str, forms: Sequence[Sequence[str]], ragged: bool = False
) -> Iterator[tuple[int, str, list[str]]]:
    """The (line, where it stands, fields of the form's columns) of a file with a header.

    Args:
        forms: the columns that are looked for; the first form that is there is read.
        ragged: leave out lines with too few or too many columns, in place of refusing them.
    """
    form = _form(path, encoding, forms)
    places: list[int] = []
    width = 0
    for number, line in lines(path, encoding):
        row = line.split("\t")
        if not places:
            names, width = [column.strip() for column in row], len(row)
            places = [names.index(column) for column in form]
        elif len(row) == width:
            yield number, f"{path}, line {number}", [row[place] for place in places]
        elif not ragged:
            raise _columns(path, number, len(row), f"{width}, as in the header")


def _texts(row: Sequence[str], columns: Sequence[str], where: str) -> list[str]:
    """The two texts of a row, neither of them blank."""
    for text, column in zip(row[:2], columns, strict=False):
        if not text.strip():
            raise DataError(Problem(where, f"{column} is empty"))
    return list(row[:2])


def _label(spelt: str, where: str) -> str:
    """A label without the spaces around it."""
    if spelt.strip() in ("", _HIDDEN):
        raise DataError(Problem(where, "has no label", _HINT))
    return spelt.strip()
