"""Sentences with two marked arguments, for relation classification: their files, and their token ids.

A text holds each of `<e1> </e1> <e2> </e2>` once: `<e1> Thom Yorke </e1> of <e2> Radiohead </e2> sings`. An argument
may be empty, as in 110 training sentences of KBP-37: its letters were lost before the release. The first marker of an
argument may tell its type: `<e1:PERSON> Thom Yorke </e1>`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from kbench.config.relation import Markers, RelationHead, RelationOptions
from kbench.data.marked import MarkedEncoder, Pieces
from kbench.data.readers import Row, lines
from kbench.data.tacred import tacred
from kbench.errors import BackboneError, DataError, Problem

MARKERS = ("<e1>", "</e1>", "<e2>", "</e2>")
_MARKER = re.compile("(" + "|".join(MARKERS) + ")")
_TYPE = re.compile(r"(<e[12]):([^<>\s]+)>")
_NUMBERED = re.compile(r"\d+\t(?P<text>.*)")
_EXPECTED = 'expected: number, tab, "sentence with <e1> .. </e1> and <e2> .. </e2>"; on the next line its label'
# addresses and lines of asterisks or dashes (RELX's released script)
_NO_WORDS = ("http", "www", "*" * 10, "-" * 7)
# BERT's vocabularies have tokens that no text uses
_UNUSED = tuple(f"[unused{number}]" for number in range(1, 5))
# words around the two arguments
_WORDS = {
    Markers.plain: ("@", "@", "#", "#"),  # K-Adapter (Wang et al. 2021), released code
    Markers.typed: ("@ * {} *", "@", "# ^ {} ^", "#"),  # Zhou and Chen 2022, typed markers with punctuation
    Markers.ernie: ("#", "#", "$", "$"),  # ERNIE (Zhang et al. 2019), released code
}


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


RELATION_READERS: dict[str, Callable[[Path, str], Iterator[Any]]] = {"kbp37": kbp37, "tacred": tacred}


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
    pieces = _MARKER.split(_TYPE.sub(r"\1>", text))
    return pieces[::2], tuple(MARKERS.index(marker) for marker in pieces[1::2])


def types(text: str) -> dict[str, str]:
    """The type of each argument of a text by its first marker, `<e1` or `<e2`, of those that tell one."""
    return dict(_TYPE.findall(text))


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


class MarkerEncoder(MarkedEncoder):
    """Token ids of marked sentences, and the token, or the two, at which each is read.

    With RELX's markers each is one token, what stands between them is tokenized by itself, words that are addresses or
    lines of asterisks or dashes are left out, and a sentence read at its first token is cut at its end, the final
    special token kept; with `options.compat`, as in RELX's released script, a row of max_length tokens or more is cut
    to max_length - 1, the final one not kept. All other markers are words, the sentence is otherwise as it is, and
    what is cut is never the first marker of an argument.

    Args:
        tokenizer: of transformers; gets RELX's markers where they are asked for and it has no unused tokens.
        max_length: longest row in tokens, special tokens included.
        options: of the data set's task; None: RELX's markers, read at the first token, not as the script.
    """

    def __init__(self, tokenizer: Any, max_length: int, options: RelationOptions | None = None):
        self._spelt = None if options is None else _WORDS.get(options.markers)
        super().__init__(
            tokenizer,
            max_length,
            at_marks=options is not None and options.head is RelationHead.starts,
            spaced=self._spelt is not None,
        )
        self.reads = 2 if self.at_marks else 1
        self._compat = options is not None and options.compat
        self._tokens = [] if self._spelt else list(with_markers(tokenizer).values())

    def split(self, text: str) -> Pieces:
        """A text in pieces, its markers among them."""
        around, order = segments(text)
        marks = self._marks(text)
        found: list[str | int] = [self._piece(around[0])]
        for marker, piece in zip(order, around[1:], strict=True):
            found += [marks[marker], self._piece(piece)]
        place = {marker: 1 + 2 * position for position, marker in enumerate(order)}
        return Pieces(tuple(found), (place[0], place[2]), (place[1], place[3]))

    def cut(self, row: list[int], begins: list[int], stop: int) -> tuple[list[int], list[int]]:
        """A row with its special tokens, cut to the longest, and where the first marker of each argument is then."""
        if self._spelt or self.at_marks:
            return super().cut(row, begins, stop)
        whole = [*self.prefix, *row, *self.suffix]
        if self._compat and len(whole) >= self.max_length:
            whole = whole[: self.max_length - 1]
        elif len(whole) > self.max_length:
            whole = [*whole[: self.max_length - len(self.suffix)], *self.suffix]
        return whole, begins

    def _marks(self, text: str) -> Sequence[str | int]:
        """The markers of a text in the order of MARKERS: tokens, or words with the types of its arguments."""
        if self._spelt is None:
            return self._tokens
        told = types(text)
        spelt = [told.get(start, "").replace("_", " ").lower() for start in ("<e1", "<e2")]
        return [word.format(spelt[place // 2]) for place, word in enumerate(self._spelt)]

    def _piece(self, text: str) -> str:
        """What stands between two markers; without what is no word where the markers are RELX's."""
        return " ".join(text.split()) if self._spelt else _words(text)


def _words(text: str) -> str:
    """A piece of a text without what is no word."""
    return " ".join(word for word in text.split() if not word.startswith(_NO_WORDS))
