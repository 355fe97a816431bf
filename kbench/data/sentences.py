"""Readers of files of tagged words. Each yields (first line, words, tags in IOB2); errors name file and line.

A reader is a function of a path and its encoding, found by the name that `data.reader` gives. Files may be gzipped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from kbench.data.readers import _columns, lines
from kbench.errors import DataError, Problem

Sentence = tuple[int, list[str], list[str]]
SentenceReader = Callable[[Path, str], Iterator[Sentence]]

_ENCODING = "convert the file to UTF-8 or name its encoding, data.encoding=latin-1 for instance"
_TAG = re.compile(r"O|[BI]-\S+")
_PREFIX = re.compile(r"[a-z][a-z-]{1,11}:")
# (GPE) or (GPE*), (ORG*, *) and *
_BRACKET = re.compile(r"\((?P<whole>[^()*\s]+)\*?\)|\((?P<first>[^()*\s]+)\*|\*(?P<last>\))?")
_WORD, _ENTITY = 3, 10  # columns of a CoNLL-2012 file


def iob2(tags: Sequence[str], where: Callable[[int], str] = lambda index: f"tag {index + 1}") -> list[str]:
    """The tags of a sentence in IOB2: an I-X that continues no entity of type X becomes B-X. Reads IOB1 and IOB2 alike.

    Args:
        where: says where the tag of an index stands.

    Raises:
        DataError: a tag is none of O, B-X and I-X.
    """
    found: list[str] = []
    open_type = ""
    for index, tag in enumerate(tags):
        if not _TAG.fullmatch(tag):
            hint = "IOB1 and IOB2 are read: O, B-TYPE and I-TYPE; convert others, such as IOBES or BILOU"
            raise DataError(Problem(where(index), f"unknown tag {tag!r}", hint))
        entity = tag[2:]
        found.append(f"B-{entity}" if tag.startswith("I-") and entity != open_type else tag)
        open_type = entity
    return found


def conll_columns(path: Path, encoding: str) -> Iterator[Sentence]:
    """CoNLL-2002 and 2003: columns, first the word and last its tag, a blank line between sentences.

    English of 2003 is `word POS chunk tag`, Dutch of 2002 `word POS tag`, Spanish `word tag`. A file whose first word's
    line has a tab is split at tabs, others at runs of spaces: other white space stands inside words. `-DOCSTART-` lines
    are no words and end a sentence.
    """
    width = first = 0
    tabs = False
    for block in _blocks(path, encoding, _is_document_start):
        rows = []
        for number, line in block:
            if not width:
                first, tabs = number, "\t" in line
            row = line.split("\t") if tabs else [column for column in line.split(" ") if column]
            if not width and len(row) < 2:
                raise _columns(path, number, len(row), "at least 2, first the word and last its tag")
            width = width or len(row)
            if len(row) != width:
                by = "tabs" if tabs else "spaces"
                raise _columns(path, number, len(row), f"{width}, as on line {first}, separated by {by}")
            rows.append((number, row[0], row[-1]))
        yield _sentence(path, rows)


def wikiann(path: Path, encoding: str) -> Iterator[Sentence]:
    """WikiAnn: word TAB tag, a blank line between sentences.

    In the original form each word begins with its language, `en:word`; where all words of the first sentence do, the
    file is of that form and the prefix is taken off every word.
    """
    prefix: str | None = None
    first = 0
    for block in _blocks(path, encoding):
        rows = []
        for number, line in block:
            row = line.split("\t")
            if len(row) == 1:
                hint = "XTREME distributes test files without tags; take those of Rahimi et al."
                raise DataError(Problem(f"{path}, line {number}", "has no tag", hint))
            if len(row) != 2:
                raise _columns(path, number, len(row), "word, tag, separated by a tab")
            rows.append((number, row[0], row[1]))
        if prefix is None:
            first, prefix = block[0][0], _shared_prefix([word for _, word, _ in rows])
        for number, word, _ in rows:
            if not word.startswith(prefix):
                hint = f"the words of the first sentence, from line {first} on, all do"
                raise DataError(Problem(f"{path}, line {number}", f"{word!r} does not begin with {prefix!r}", hint))
        yield _sentence(path, [(number, word.removeprefix(prefix), tag) for number, word, tag in rows])


def conll_brackets(path: Path, encoding: str) -> Iterator[Sentence]:
    """CoNLL-2012, OntoNotes 5.0: `*gold_conll` files, a blank line between sentences, columns of white space.

    The word is column 4, its named entity column 11 in brackets: `(ORG*`, `*`, `*)`, `(GPE)`. Documents stand between
    `#begin document` and `#end document` lines. Words are taken as they are spelt, -LRB- too.
    """
    for block in _blocks(path, encoding, _is_document_mark):
        rows = []
        entity, opened = "", 0
        for number, line in block:
            where = f"{path}, line {number}"
            row = re.split(r"[ \t]+", line.strip(" \t"))
            if len(row) <= _ENTITY:
                raise _columns(path, number, len(row), "at least 11, column 4 the word and 11 the named entity")
            if row[_WORD] == "[WORD]":
                hint = "this release leaves them out; first merge them in from the OntoNotes 5.0 release (LDC2013T19)"
                raise DataError(Problem(where, "has [WORD] in place of the word", hint))
            found = _BRACKET.fullmatch(row[_ENTITY])
            if not found:
                hint = "column 11 is the named entity: (TYPE*, *, *) or (TYPE)"
                raise DataError(Problem(where, f"unknown entity {row[_ENTITY]!r}", hint))
            begun = found["whole"] or found["first"]
            if begun and entity:
                raise DataError(
                    Problem(where, f"{begun} begins inside {entity}", f"{entity} is open from line {opened}")
                )
            if found["last"] and not entity:
                raise DataError(Problem(where, "ends an entity that has not begun", "column 11 is *)"))
            tag = f"B-{begun}" if begun else f"I-{entity}" if entity else "O"
            rows.append((number, row[_WORD], tag))
            if found["first"]:
                entity, opened = begun, number
            elif found["last"]:
                entity = ""
        if entity:
            raise DataError(Problem(f"{path}, line {opened}", f"begins {entity}, which its sentence does not end"))
        yield _sentence(path, rows)


SENTENCE_READERS: dict[str, SentenceReader] = {
    reader.__name__: reader for reader in (conll_columns, wikiann, conll_brackets)
}


def _blocks(
    path: Path, encoding: str, between: Callable[[str], bool] = lambda line: False
) -> Iterator[list[tuple[int, str]]]:
    """The (number, line) of each sentence: runs of lines without a blank one or one that stands `between`."""
    block: list[tuple[int, str]] = []
    for number, line in lines(path, encoding, blank=True, hint=_ENCODING):
        if line.strip() and not between(line):
            block.append((number, line))
        elif block:
            yield block
            block = []
    if block:
        yield block


def _sentence(path: Path, rows: list[tuple[int, str, str]]) -> Sentence:
    """The (line, word, tag) rows as a sentence, its tags in IOB2."""
    for number, word, _ in rows:
        if not word.strip():
            raise DataError(Problem(f"{path}, line {number}", "has a tag but no word"))
    tags = iob2([tag for _, _, tag in rows], lambda index: f"{path}, line {rows[index][0]}")
    return rows[0][0], [word for _, word, _ in rows], tags


def _is_document_start(line: str) -> bool:
    return re.split(r"[ \t]", line, maxsplit=1)[0] == "-DOCSTART-"


def _is_document_mark(line: str) -> bool:
    return line.startswith(("#begin document", "#end document"))


def _shared_prefix(words: list[str]) -> str:
    """The language prefix that all words have, or the empty one."""
    found = _PREFIX.match(words[0])
    return found[0] if found and all(word.startswith(found[0]) for word in words) else ""
