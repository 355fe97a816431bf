"""Texts with marked spans as token ids: every piece as it is in running text, the marks kept where a text is cut.

A text is given as pieces, some of them marks. All pieces but the first follow a space, so that their ids are those of
the whole text with the marks as words in it, for byte-level tokenizers, too; and the tokens of each piece are known
without asking the tokenizer for places, which not every one tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from kbench.data.words import _plain, _special
from kbench.errors import BackboneError, Problem


@dataclass(frozen=True)
class Pieces:
    """A text in pieces.

    Attributes:
        pieces: what is tokenized, in order; a number is a token itself.
        begins: which piece is the mark before each span, in the order in which the spans are read.
        ends: which piece is the mark behind each.
    """

    pieces: tuple[str | int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]


class MarkedEncoder:
    """Token ids of texts with marked spans. Subclasses say what the pieces of a text are.

    Args:
        tokenizer: of transformers.
        max_length: longest row in tokens, special tokens included.
        at_marks: a row is read at the mark before each span, not at its first token.
        spaced: a piece follows a space, unless it is the first that is not empty.

    Attributes:
        sequences: of tokens in a row.
        reads: tokens at which a row is read.
        arrays: beside the ids, over all rows so far: `starts`, int32, the tokens at which each row is read.
        unknown, total: how many tokens were the unknown one, and how many there were, special ones not counted.
    """

    sequences = 1

    def __init__(self, tokenizer: Any, max_length: int, at_marks: bool = False, spaced: bool = True):
        self.tokenizer, self.max_length, self.at_marks = tokenizer, max_length, at_marks
        self.reads = 1
        self.unknown = self.total = 0
        self.arrays: dict[str, list[np.ndarray]] = {}
        self.prefix, self.suffix = _special(tokenizer)
        self._spaced = spaced

    def split(self, text: str) -> Pieces:
        """A text in pieces."""
        raise NotImplementedError  # abstract

    def encode(self, rows: Sequence[str]) -> list[np.ndarray]:
        """Ids of each text, int32 [tokens].

        Raises:
            BackboneError: the tokenizer makes nothing of a mark.
            ValueError: `max_length` has no room for the marks.
        """
        split = [self.split(text) for text in rows]
        ids = iter(_plain(self.tokenizer, list(chain.from_iterable(map(self._texts, split)))))
        found, starts = [], []
        for one in split:
            tokens = [[piece] if isinstance(piece, int) else next(ids) for piece in one.pieces]
            for mark in one.begins:
                if not tokens[mark]:
                    raise BackboneError(Problem("tokenizer", f"makes nothing of the mark {one.pieces[mark]!r}"))
            stops = np.cumsum([len(piece) for piece in tokens])
            begins = [int(stops[mark]) - len(tokens[mark]) for mark in one.begins]
            row, places = self.cut(list(chain.from_iterable(tokens)), begins, int(max(stops[list(one.ends)])))
            found.append(np.array(row, dtype=np.int32))
            starts.append(np.array(places if self.at_marks else [0], dtype=np.int32))
            self.total += len(row) - len(self.prefix) - len(self.suffix)
            self.unknown += row.count(self.tokenizer.unk_token_id)
        self.arrays.setdefault("starts", []).extend(starts)
        return found

    def cut(self, row: list[int], begins: list[int], stop: int) -> tuple[list[int], list[int]]:
        """A row with its special tokens, cut to the longest, and where the marks before its spans are then.

        Args:
            row: ids without special tokens.
            begins: where the marks before the spans stand in it.
            stop: where the last mark behind a span ends.
        """
        kept = kept_tokens(len(row), min(begins), max(begins), stop, self._room(len(begins)))
        places = np.searchsorted(kept, begins) + len(self.prefix)
        return [*self.prefix, *(row[place] for place in kept), *self.suffix], places.tolist()

    def _room(self, marks: int) -> int:
        room = self.max_length - len(self.prefix) - len(self.suffix)
        if room < marks:
            raise ValueError(f"max_length={self.max_length} has no room for the marks")
        return room

    def _texts(self, one: Pieces) -> list[str]:
        """The pieces that are tokenized, with the space before them."""
        found, begun = [], False
        for piece in one.pieces:
            if isinstance(piece, int):
                begun = True
                continue
            found.append(f" {piece}" if self._spaced and begun and piece else piece)
            begun = begun or bool(piece)
        return found


def kept_tokens(length: int, first: int, last: int, stop: int, room: int) -> np.ndarray:
    """Which tokens of a row are kept [at most room], int64, ascending; the marks before the spans are among them.

    What goes first is the end behind the last span, then the beginning before the first. Where the spans themselves are
    too far apart, half of the room is for the text from the first mark on and half for that from the last mark on.

    Args:
        length: tokens of the row.
        first, last: where the first and the last mark before a span stand.
        stop: where the last mark behind a span ends.
        room: tokens that may be kept, at least one for each mark.
    """
    if length <= room:
        return np.arange(length)
    if stop - first <= room:
        until = max(room, stop)
        return np.arange(until - room, until)
    if last < first + room:
        return np.arange(first, min(first + room, length))
    half = room // 2
    return np.concatenate([np.arange(first, first + half), np.arange(last, min(last + room - half, length))])
