"""Readers of Universal Dependencies treebanks. Each yields (first line, words, their universal parts of speech).

The form is CoNLL-U (universaldependencies.org/format.html): ten columns separated by tabs, of which ID, FORM and UPOS
are read. A word that is written as one and analysed as several, German "zum" as "zu dem", has a line before its parts
whose ID is a range: 3-4. A node that stands for no word has a decimal ID, 3.1, and is passed over. Errors name file and
line. Files may be gzipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kbench.data.readers import _columns
from kbench.data.sentences import Sentence, SentenceReader, _blocks
from kbench.errors import DataError, Problem

_FORM, _UPOS, _WIDTH = 1, 3, 10
_HINT = "words are 1, 2, 3; the range 3-4 stands before word 3, nodes without a word, 3.1 and 3.2, after it"


def conllu(path: Path, encoding: str) -> Iterator[Sentence]:
    """CoNLL-U, the words as they are analysed: the parts of a range, not the range."""
    return _sentences(path, encoding, fused=False)


def conllu_fused(path: Path, encoding: str) -> Iterator[Sentence]:
    """CoNLL-U, the words as they are written: the range with the tag of its first part, not its parts."""
    return _sentences(path, encoding, fused=True)


TREEBANK_READERS: dict[str, SentenceReader] = {reader.__name__: reader for reader in (conllu, conllu_fused)}


def _sentences(path: Path, encoding: str, fused: bool) -> Iterator[Sentence]:
    for block in _blocks(path, encoding):
        rows = [(number, line) for number, line in block if not line.startswith("#")]
        if rows:
            yield _sentence(path, rows, fused)


def _sentence(path: Path, rows: list[tuple[int, str]], fused: bool) -> Sentence:
    """The lines of a sentence as its words and their tags."""
    words: list[str] = []
    tags: list[str] = []
    first = word = node = 0  # the line of the first word; the last word's ID; nodes since then that stand for no word
    form, opened, last = "", 0, 0  # of the last range: what is written, its line, the ID of its last part
    for number, line in rows:
        where = f"{path}, line {number}"
        columns = line.split("\t")
        if len(columns) != _WIDTH:
            raise _columns(path, number, len(columns), f"the {_WIDTH} of CoNLL-U, separated by tabs")
        start, mark, end = _place(columns[0], where)
        follows = (start, end) == (word, node + 1) if mark == "." else start == word + 1
        if not follows or (mark == "-" and word < last):
            after = f"after word {word}" if word else "before the first word"
            raise DataError(Problem(where, f"ID {columns[0]} stands {after}", _HINT))
        if mark == ".":
            node = end
            continue
        if not columns[_FORM].strip():
            raise DataError(Problem(where, "has no word", "FORM, column 2, is empty"))
        first = first or number
        if mark == "-":
            form, opened, last = columns[_FORM], number, end
            continue
        if columns[_UPOS] in ("", "_"):
            raise DataError(Problem(where, "has no part of speech", f"UPOS, column 4, is {columns[_UPOS]!r}"))
        word, node = start, 0
        if not fused or form or word > last:
            words.append(form if fused and form else columns[_FORM])
            tags.append(columns[_UPOS])
        form = ""  # the first part has taken it
    if word < last:
        what = f"begins a range up to word {last}; its sentence ends with word {word}"
        raise DataError(Problem(f"{path}, line {opened}", what))
    if not words:
        raise DataError(Problem(f"{path}, line {rows[0][0]}", "begins a sentence without words"))
    return first, words, tags


def _place(spelt: str, where: str) -> tuple[int, str, int]:
    """An ID as (first number, "" or "-" or ".", second number); a word's numbers are the same."""
    # of the package this only: its lines split at double spaces, too, and its errors do not name them
    from conllu.exceptions import ParseException
    from conllu.parser import parse_id_value

    try:
        found = parse_id_value(spelt)
    except ParseException:
        found = None
    if found is None:
        raise DataError(Problem(where, f"unknown ID {spelt!r}", "3, 3-4 and 3.1 are read"))
    return (found, "", found) if isinstance(found, int) else found
