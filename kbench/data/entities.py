"""Texts with one marked mention and the types it has, for entity typing: their files, and their token ids.

A text holds `<e1> </e1>` once, around the mention: `In <e1> May </e1> it rains .`
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kbench.config.typing import TypingHead, TypingOptions
from kbench.data.json_lists import json_objects, number_of, texts_of
from kbench.data.marked import MarkedEncoder, Pieces
from kbench.data.pairs import _text
from kbench.errors import DataError, Problem

BEGIN, END = "<e1>", "</e1>"
_KEYS = ("sent", "start", "end", "labels")

TypedRow = tuple[str, str, list[str]]


def open_entity(path: Path, encoding: str) -> Iterator[TypedRow]:
    """Open Entity with nine types, in ERNIE's form: one JSON list of {sent, start, end, labels, ..}.

    `start` and `end` count characters, Unicode code points; `end` is behind the mention. There may be no label. What
    else an object holds, such as the linked entities `ents`, is not read.

    Raises:
        DataError: it is no such list, or the mention is not in the text.
    """
    for place, where, row in json_objects(path, encoding, _KEYS):
        text = _text(row, "sent", where)
        start, end = number_of(row, "start", where), number_of(row, "end", where)
        if not 0 <= start < end <= len(text):
            what = f"has its mention at characters {start} to {end} of {len(text)}"
            raise DataError(Problem(where, what, "end is the character behind it; are places counted in bytes?"))
        if not text[start:end].strip():
            raise DataError(Problem(where, f"has only spaces at characters {start} to {end}, where its mention is"))
        for mark in (BEGIN, END):
            if mark in text:
                raise DataError(Problem(where, f"holds {mark}, which marks the mention here"))
        yield place, marked(text, start, end), texts_of(row, "labels", where)


TYPING_READERS: dict[str, Callable[[Path, str], Iterator[TypedRow]]] = {"open_entity": open_entity}


def marked(text: str, start: int, end: int) -> str:
    """A text with marks around the mention at characters start to end, and one space around each of them."""
    pieces = (text[:start], BEGIN, text[start:end], END, text[end:])
    return " ".join(piece for piece in map(str.strip, pieces) if piece)


class MentionEncoder(MarkedEncoder):
    """Token ids of texts with a marked mention, and the token at which each is read.

    The mark is a word of the tokenizer, put before and after the mention. Where a text is too long its end is cut
    first, then its beginning; the mark before the mention always stays.

    Args:
        tokenizer: of transformers.
        max_length: longest row in tokens, special tokens included.
        options: mark, and where a text is read.
    """

    def __init__(self, tokenizer: Any, max_length: int, options: TypingOptions):
        super().__init__(tokenizer, max_length, at_marks=options.head is TypingHead.marker_start)
        self._mark = options.marker

    def split(self, text: str) -> Pieces:
        """A text in pieces, the marks among them."""
        before, _, rest = text.partition(BEGIN)
        mention, _, after = rest.partition(END)
        before, mention, after = (" ".join(piece.split()) for piece in (before, mention, after))
        return Pieces((before, self._mark, mention, self._mark, after), (1,), (3,))
