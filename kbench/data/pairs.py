"""Readers of texts that belong together. Each yields (line, [first text, second texts], label as the file spells it).

A reader is a function of a path and its encoding, found by the name that `data.reader` gives. Files may be gzipped.
Errors name file and line. How many second texts a row must have is checked with the labels of the data set.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kbench.data.readers import _columns, lines
from kbench.errors import DataError, Problem

PairRow = tuple[int, list[str], str]
PairReader = Callable[[Path, str], Iterator[PairRow]]

_UNDECIDED = "-"  # SNLI: the annotators agreed on no label
_ENDINGS = ("ending0", "ending1", "ending2", "ending3")
_SWAG = ("sent1", "sent2", *_ENDINGS, "label")


def snli(path: Path, encoding: str) -> Iterator[PairRow]:
    """SNLI: JSON lines; pairs on whose label the annotators did not agree are left out, as everyone does."""
    for number, where, row in _objects(path, encoding, ("sentence1", "sentence2", "gold_label")):
        label = _label(row, "gold_label", where)
        if label != _UNDECIDED:
            yield number, [_text(row, "sentence1", where), _text(row, "sentence2", where)], label


def piqa(path: Path, encoding: str) -> Iterator[PairRow]:
    """PIQA: JSON lines, a goal and two solutions; the labels, 0 or 1, are the lines of a file beside it."""
    beside = piqa_labels(path)
    if not beside.is_file():
        raise DataError(Problem(str(path), f"has no file of labels beside it, {beside.name}"))
    labels = []
    for number, line in lines(beside, encoding):
        if line.strip() not in ("0", "1"):
            raise DataError(Problem(f"{beside}, line {number}", f"{line.strip()!r} is neither 0 nor 1"))
        labels.append(line.strip())
    rows = [
        (number, [_text(row, key, where) for key in ("goal", "sol1", "sol2")])
        for number, where, row in _objects(path, encoding, ("goal", "sol1", "sol2"))
    ]
    if len(rows) != len(labels):
        what = f"has {len(rows)} rows, and {beside.name} beside it {len(labels)} labels"
        raise DataError(Problem(str(path), what, "both files must be of one release"))
    for (number, texts), label in zip(rows, labels, strict=True):
        yield number, texts, label


def piqa_labels(path: Path) -> Path:
    """The file of the labels of a file of PIQA: valid-labels.lst of valid.jsonl; gzipped where only that is there."""
    plain = path.with_name(f"{path.name.removesuffix('.gz').removesuffix('.jsonl')}-labels.lst")
    zipped = plain.with_name(f"{plain.name}.gz")
    return zipped if zipped.is_file() and not plain.is_file() else plain


def swag(path: Path, encoding: str) -> Iterator[PairRow]:
    """SWAG: the official CSV, or JSON lines with the same keys; a second text is a begun sentence with an ending."""
    read = _objects if ".jsonl" in path.suffixes else _csv
    for number, where, row in read(path, encoding, _SWAG):
        begun = _text(row, "sent2", where, empty=True)
        endings = [f"{begun} {_text(row, key, where)}".strip() for key in _ENDINGS]
        yield number, [_text(row, "sent1", where), *endings], _label(row, "label", where)


def hellaswag(path: Path, encoding: str) -> Iterator[PairRow]:
    """HellaSwag: JSON lines. The context ends within a sentence, ctx_b, which the endings go on with.

    Copies that have the context in one piece, `ctx`, are read, too; the endings then stand alone.
    """
    for number, where, row in _objects(path, encoding, ("endings", "label")):
        parts = ("ctx_a", "ctx_b") if "ctx_a" in row else ("ctx",)
        _require(row, parts, where)
        begun = _text(row, "ctx_b", where, empty=True) if "ctx_a" in row else ""
        endings = row["endings"]
        if not isinstance(endings, list) or not endings:
            raise DataError(Problem(where, "endings is no list of texts"))
        named = {f"ending {index}": ending for index, ending in enumerate(endings)}
        second = [f"{begun} {_text(named, name, where)}".strip() for name in named]
        yield number, [_text(row, parts[0], where), *second], _label(row, "label", where)


def xlr(path: Path, encoding: str) -> Iterator[PairRow]:
    """Questions of cross-lingual logic reasoning as `kbench build xlr` writes them; a choice follows the question."""
    for number, where, row in _objects(path, encoding, ("context", "question", "choices", "label")):
        choices, label = row["choices"], row["label"]
        if not isinstance(choices, list) or not choices:
            raise DataError(Problem(where, "choices is no list of texts"))
        if not isinstance(label, int) or isinstance(label, bool) or not 0 <= label < len(choices):
            raise DataError(Problem(where, f"label {label!r} is no place among its choices", "expected: 0, 1, ..."))
        named = {f"choice {index}": choice for index, choice in enumerate(choices)}
        question = _text(row, "question", where)
        seconds = [f"{question} {_text(named, name, where)}" for name in named]
        yield number, [_text(row, "context", where), *seconds], f"c{label + 1}"


PAIR_READERS: dict[str, PairReader] = {reader.__name__: reader for reader in (snli, piqa, swag, hellaswag, xlr)}
# reader -> the file that belongs to a file of rows
COMPANIONS: dict[str, Callable[[Path], Path]] = {"piqa": piqa_labels}

Keyed = tuple[int, str, Mapping[str, Any]]


def _objects(path: Path, encoding: str, keys: Iterable[str]) -> Iterator[Keyed]:
    """The (line, where it stands, object) of a file of JSON lines; each object has the keys."""
    for number, line in lines(path, encoding):
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            told = f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
            raise DataError(Problem(where, f"is no JSON: {told}")) from error
        if not isinstance(row, dict):
            raise DataError(Problem(where, "is no JSON object", f"expected: {{...}} with {', '.join(keys)}"))
        _require(row, keys, where)
        yield number, where, row


def _csv(path: Path, encoding: str, keys: Iterable[str]) -> Iterator[Keyed]:
    """The (line, where it stands, row) of a CSV file whose header has the keys; a row may go over several lines."""
    reader = csv.reader((f"{line}\n" for _, line in lines(path, encoding, blank=True)), strict=True)
    header: list[str] = []
    while True:
        number = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise DataError(Problem(f"{path}, line {number}", f"is no CSV: {error}")) from error
        where = f"{path}, line {number}"
        if row is None:
            return
        if not header and row:
            header = row
            _require(dict.fromkeys(header), keys, where)
        elif row and len(row) != len(header):
            raise _columns(path, number, len(row), f"{len(header)}, as in the header")
        elif row:
            yield number, where, dict(zip(header, row, strict=True))


def _require(row: Mapping[str, Any], keys: Iterable[str], where: str) -> None:
    missing = [key for key in keys if key not in row]
    if missing:
        raise DataError(Problem(where, f"has no {', '.join(missing)}", f"expected: {', '.join(keys)}"))


def _text(row: Mapping[str, Any], key: str, where: str, empty: bool = False) -> str:
    """A value that must be text, and not blank unless it may be `empty`."""
    found = row[key]
    if not isinstance(found, str):
        raise DataError(Problem(where, f"{key} is no text: {found!r:.40}"))
    if not (empty or found.strip()):
        raise DataError(Problem(where, f"{key} is empty"))
    try:
        found.encode()
    except UnicodeEncodeError as error:  # JSON can spell it, but no file can hold it
        what = f"{key} holds half a surrogate pair, which is no letter, at letter {error.start + 1}"
        raise DataError(Problem(where, what)) from error
    return found


def _label(row: Mapping[str, Any], key: str, where: str) -> str:
    """A label as text: releases and copies spell the same one as 0 and as "0"."""
    found = row[key]
    if isinstance(found, int) and not isinstance(found, bool):
        return str(found)
    return _text(row, key, where)
