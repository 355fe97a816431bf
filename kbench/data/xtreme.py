"""Readers of XTREME's pairs of sentences. Each yields (line, [first text, second text], label as the file spells it).

The files are TSV as XTREME's preparation writes them, first, second and label without a header, or as the data sets
themselves are released, with one. XTREME distributes its test files without labels; those are refused, never scored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from kbench.data.pairs import PairReader, PairRow
from kbench.data.readers import _columns, lines
from kbench.errors import DataError, Problem

# a field as a CSV writer quotes it: each quote in it is doubled
_QUOTED = re.compile(r'"((?:[^"]|"")*)"')
_XNLI_HEADERS = (("premise", "hypo", "label"), ("premise", "hypothesis", "label"))
_PAWSX_HEADERS = (("id", "sentence1", "sentence2", "label"), ("sentence1", "sentence2", "label"))
# MultiNLI's translation package spells one label in another way
_XNLI_LABELS = {"contradictory": "contradiction"}


def xnli_tsv(path: Path, encoding: str) -> Iterator[PairRow]:
    """XNLI and its English training text, MultiNLI: premise, hypothesis, label.

    `multinli.train.en.tsv` of the release XNLI-MT-1.0 has a header and says `contradictory`, which is read as
    `contradiction`.
    """
    yield from _pairs(path, encoding, _XNLI_HEADERS, _XNLI_LABELS)


def pawsx_tsv(path: Path, encoding: str) -> Iterator[PairRow]:
    """PAWS-X: first sentence, second sentence, label 0 or 1; in the original release after a number, with a header."""
    yield from _pairs(path, encoding, _PAWSX_HEADERS, {})


XTREME_READERS: dict[str, PairReader] = {reader.__name__: reader for reader in (xnli_tsv, pawsx_tsv)}


def _pairs(
    path: Path, encoding: str, headers: tuple[tuple[str, ...], ...], spelt: Mapping[str, str]
) -> Iterator[PairRow]:
    """The rows of a file; where its first line is one of the headers, columns are found by it."""
    columns: tuple[str, ...] = ()
    for number, line in lines(path, encoding):
        row = line.split("\t")
        if not columns:
            named = tuple(column.strip().lower() for column in row)
            columns = named if named in headers else headers[-1]
            if named in headers:
                continue
        where = f"{path}, line {number}"
        if len(row) == len(columns) - 1:
            hint = "XTREME distributes test files without: take those of the data set's own release"
            raise DataError(Problem(where, "has no labels", hint))
        if len(row) != len(columns):
            raise _columns(path, number, len(row), f"{', '.join(columns)}, separated by tabs")
        *texts, label = (_unquoted(field) for field in row[-3:])
        if not label.strip():
            hint = (
                "files that are distributed without labels cannot be scored: take those of the data set's own release"
            )
            raise DataError(Problem(where, "has no label", hint))
        for name, text in zip(columns[-3:], texts, strict=False):
            if not text.strip():
                raise DataError(Problem(where, f"{name} is empty"))
        yield number, texts, spelt.get(label.strip(), label.strip())


def _unquoted(field: str) -> str:
    """A field without the quotes that XTREME's preparation puts around one that holds a quote.

    Only a field with doubled quotes in it can be meant: without any, a CSV writer would not have quoted it.
    """
    found = _QUOTED.fullmatch(field)
    return found[1].replace('""', '"') if found and '""' in found[1] else field
