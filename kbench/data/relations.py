"""Sentences with two marked arguments, for relation classification: their files, and their token ids.

A text holds each of `<e1> </e1> <e2> </e2>` once: `<e1> Thom Yorke </e1> of <e2> Radiohead </e2> sings`. An argument
may be empty, as in 110 training sentences of KBP-37: its letters were lost before the release.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kbench.config.relation import RelationOptions
from kbench.data.readers import Row, lines
from kbench.data.words import _plain, _special
from kbench.errors import BackboneError, DataError, Problem

MARKERS = ("<e1>", "</e1>", "<e2>", "</e2>")
_MARKER = re.compile("(" + "|".join(MARKERS) + ")")
_NUMBERED = re.compile(r"\d+\t(?P<text>.*)")
_EXPECTED = 'expected: number, tab, "sentence with <e1> .. </e1> and <e2> .. </e2>"; on the next line its label'
# addresses and lines of asterisks or dashes (RELX's released script)
_NO_WORDS = ("http", "www", "*" * 10, "-" * 7)
# BERT's vocabularies have tokens that no text uses
_UNUSED = tuple(f"[unused{number}]" for number in range(1, 5))


def kbp37(path: Path, encoding: str) -> Iterator[Row]:
    """KBP-37 and RELX, SemEval-2010's form: a line with number and quoted sentence, one with the label, blank ones.

    Quotes inside the sentence are not escaped; blanks around a label are cut off. Blank lines have no meaning, so that
    it does not matter how many there are.

    Raises:
        DataError: a sentence without a label, or whose markers are not each there once, around two separate arguments.
    """
    first, sentence = 0, None
    for number, line in lines(path, encoding):
        begun = _NUMBERED.fullmatch(line.strip())
        if sentence is None:
            if begun is None:
                raise DataError(Problem(f"{path}, line {number}", "begins no example", _EXPECTED))
            first, sentence = number, _sentence(begun["text"], f"{path}, line {number}")
        elif begun is not None:
            break
        else:
            yield first, sentence, line.strip()
            sentence = None
    if sentence is not None:
        raise DataError(Problem(f"{path}, line {first}", "has no label on the line after it", _EXPECTED))


RELATION_READERS: dict[str, Callable[[Path, str], Iterator[Row]]] = {"kbp37": kbp37}


def _sentence(quoted: str, where: str) -> str:
    """The sentence between its quotes, its markers checked."""
    if len(quoted) < 2 or not (quoted.startswith('"') and quoted.endswith('"')):
        raise DataError(Problem(where, "has a sentence that is not between quotes", _EXPECTED))
    found = quoted[1:-1].strip()
    for marker in MARKERS:
        count = found.count(marker)
        if count != 1:
            raise DataError(Problem(where, f"has {marker} {count} times" if count else f"has no {marker}", _EXPECTED))
    _, order = segments(found)
    if order not in ((0, 1, 2, 3), (2, 3, 0, 1)):
        spelt = " ".join(MARKERS[index] for index in order)
        what = f"has its markers in the order {spelt}"
        raise DataError(Problem(where, what, "each argument stands between its own two markers, outside the other"))
    return found


def segments(text: str) -> tuple[list[str], tuple[int, ...]]:
    """What stands before, between and after the markers of a text, and these as indices of MARKERS, in their order."""
    pieces = _MARKER.split(text)
    return pieces[::2], tuple(MARKERS.index(marker) for marker in pieces[1::2])


def with_markers(tokenizer: Any) -> dict[str, int]:
    """The token id of each marker.

    BERT's vocabularies have unused tokens, of which the first four are taken: ids 1 to 4 in multilingual BERT. To any
    other tokenizer the markers are added as special tokens, at its end; doing so again changes nothing. A model then
    needs as many embeddings as the tokenizer has tokens (`Relation.adapt`).

    Raises:
        BackboneError: the tokenizer takes no new tokens.
    """
    vocabulary = tokenizer.get_vocab()
    if all(token in vocabulary for token in _UNUSED):
        return dict(zip(MARKERS, (int(vocabulary[token]) for token in _UNUSED), strict=True))
    tokenizer.add_tokens(list(MARKERS), special_tokens=True)
    found = [int(tokenizer.convert_tokens_to_ids(marker)) for marker in MARKERS]
    if len(set(found)) != len(MARKERS) or tokenizer.unk_token_id in found:
        raise BackboneError(Problem("tokenizer", f"takes no new tokens such as {MARKERS[0]}"))
    return dict(zip(MARKERS, found, strict=True))


class MarkerEncoder:
    """Token ids of marked sentences: each marker is one token, and what stands between them is tokenized by itself.

    Words that are addresses or lines of asterisks or dashes are left out. What is too long is cut, the final special
    token kept; with `options.compat`, as in RELX's released script, a row of max_length tokens or more is cut to
    max_length - 1, the final one not kept.

    Args:
        tokenizer: of transformers; gets the markers where it has no unused tokens.
        max_length: longest row in tokens, special tokens included.
        options: of the data set's task; None: not as the script.

    Attributes:
        sequences: of tokens in a row.
        arrays: beside the ids, over all rows so far: `starts`, int32, the token at which each row is read, its first.
        unknown, total: how many tokens were the unknown one, and how many there were, special ones not counted.
    """

    sequences = 1

    def __init__(self, tokenizer: Any, max_length: int, options: RelationOptions | None = None):
        self.tokenizer, self.max_length = tokenizer, max_length
        self.unknown = self.total = 0
        self.arrays: dict[str, list[np.ndarray]] = {}
        self._compat = options is not None and options.compat
        self._markers = list(with_markers(tokenizer).values())
        self._prefix, self._suffix = _special(tokenizer)

    def encode(self, rows: Sequence[str]) -> list[np.ndarray]:
        """Ids of each text, int32 [tokens]."""
        split = [segments(text) for text in rows]
        texts = [_words(piece) for pieces, _ in split for piece in pieces]
        ids = iter(_plain(self.tokenizer, texts))
        found = []
        for _, order in split:
            row = list(next(ids))
            for marker in order:
                row += [self._markers[marker], *next(ids)]
            found.append(self._cut(row))
        self.arrays.setdefault("starts", []).append(np.zeros(len(found), dtype=np.int32))
        return found

    def _cut(self, row: list[int]) -> np.ndarray:
        whole = [*self._prefix, *row, *self._suffix]
        if self._compat and len(whole) >= self.max_length:
            whole = whole[: self.max_length - 1]
        elif len(whole) > self.max_length:
            whole = [*whole[: self.max_length - len(self._suffix)], *self._suffix]
        self.total += len(whole) - len(self._prefix) - len(self._suffix)
        self.unknown += whole.count(self.tokenizer.unk_token_id)
        return np.array(whole, dtype=np.int32)


def _words(text: str) -> str:
    """A piece of a text without what is no word."""
    return " ".join(word for word in text.split() if not word.startswith(_NO_WORDS))
