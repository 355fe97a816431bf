"""Questions and contexts as token ids: a long context is read in windows that overlap, each after the question.

Of a context longer than what a window holds, each window begins `stride` tokens after the one before, until one holds
the end (BERT, Devlin et al. 2019; so do XTREME's scripts). Beside the token ids, over all rows so far:

types       which text each token is of, for models that are told, int8 [tokens]
offsets     characters of the context that a token stands for, from and until, int32 [tokens, 2]; -1, -1 of the question
            and of special tokens; white space around them is left out
full_from   places in the window from which, and until which, it is the window that shows most of what surrounds a
full_until  token, int32 [windows]
first       place of the answer's first token in the window, and of its last one, int32 [windows]; 0, the first special
last        token, in a window that does not hold all of the answer
row_ends    where each row's windows end, int64 [rows]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from kbench.config.spans import SpanOptions
from kbench.errors import BackboneError, DataError, Problem

_PROBES = ("a", "1", ".")  # one of them is a token of any tokenizer, if only the unknown one
_PLAIN = {"add_special_tokens": False, "return_attention_mask": False, "return_token_type_ids": False, "verbose": False}


@dataclass(frozen=True)
class Frame:
    """The special tokens around a question and a context, and the token types of both with them."""

    before: np.ndarray
    between: np.ndarray
    after: np.ndarray
    types: tuple[int, int, int, int, int] | None

    @property
    def size(self) -> int:
        """Special tokens of a window."""
        return len(self.before) + len(self.between) + len(self.after)


@dataclass(frozen=True)
class Context:
    """A context as tokens: ids int32 [n], the characters each stands for int32 [n, 2]."""

    ids: np.ndarray
    offsets: np.ndarray

    def tokens_of(self, start: int, stop: int) -> tuple[int, int]:
        """First and last token that stand for some of the characters; the last before the first where none does."""
        touched = np.flatnonzero((self.offsets[:, 1] > start) & (self.offsets[:, 0] < stop))
        return (int(touched[0]), int(touched[-1])) if len(touched) else (0, -1)


class SpanEncoder:
    """Token ids of questions and contexts, one sequence a window; otherwise as `kbench.data.encode.TextEncoder`."""

    sequences = 1

    def __init__(self, tokenizer: Any, max_length: int, spans: SpanOptions):
        """Args are a fast transformers tokenizer, the longest window in tokens, special ones included, and its options.

        Raises:
            BackboneError: the tokenizer does not say where its tokens stand in the text.
            DataError: a window has no room for context.
        """
        if not getattr(tokenizer, "is_fast", False):
            what = "its tokenizer does not say where in the text a token stands, so no answer could be cut out"
            raise BackboneError(Problem("backbone", what, "take a backbone with a fast tokenizer (tokenizer.json)"))
        self.tokenizer, self.max_length, self.stride, self.max_query = (
            tokenizer, max_length, spans.stride, spans.max_query,
        )  # fmt: skip
        self.unknown = self.total = 0
        self.arrays: dict[str, list[np.ndarray]] = {}
        self._windows = 0
        self._frame = _frame(tokenizer)
        needed = self._frame.size + spans.max_query
        if max_length <= needed:
            what = f"has no room for context: the question and special tokens may take {needed} tokens"
            raise DataError(Problem(f"data.max_length={max_length}", what, "or lower data.spans.max_query"))

    def encode(self, rows: Sequence[tuple[list[str], list[int]]]) -> list[np.ndarray]:
        """Ids of each window, int32 [tokens], row after row.

        Args:
            rows: of each question ([question, context, answers], [where each answer begins in the context]).
        """
        contexts = self._contexts([texts[1] for texts, _ in rows])
        questions = self.tokenizer([texts[0] for texts, _ in rows], **_PLAIN)["input_ids"]
        found: list[np.ndarray] = []
        ends = np.empty(len(rows), dtype=np.int64)
        for row, (texts, starts) in enumerate(rows):
            question = np.asarray(questions[row][: self.max_query], dtype=np.int32)
            answer = (starts[0], starts[0] + len(texts[2])) if starts else (0, 0)
            found += self._row(question, contexts[texts[1]], answer)
            ends[row] = self._windows + len(found)
        self._windows += len(found)
        self._keep("row_ends", ends)
        return found

    def _row(self, question: np.ndarray, context: Context, answer: tuple[int, int]) -> list[np.ndarray]:
        frame, count = self._frame, len(context.ids)
        head = np.concatenate([frame.before, question, frame.between])
        begins = windows(count, self.max_length - frame.size - len(question), self.stride)
        first, last = context.tokens_of(*answer)
        found = []
        for (start, stop), full in zip(begins, fullest(begins), strict=True):
            ids = np.concatenate([head, context.ids[start:stop], frame.after])
            inside = slice(len(head), len(head) + stop - start)
            offsets = np.full((len(ids), 2), -1, dtype=np.int32)
            offsets[inside] = context.offsets[start:stop]
            self._keep("offsets", offsets)
            if frame.types is not None:
                parts = (len(frame.before), len(question), len(frame.between), stop - start, len(frame.after))
                self._keep("types", np.repeat(np.array(frame.types, dtype=np.int8), parts))
            whole = start <= first <= last < stop
            shift = len(head) - start
            places = {"first": first if whole else -shift, "last": last if whole else -shift}
            places |= {"full_from": full[0], "full_until": full[1]}
            for name, place in places.items():
                self._keep(name, np.array([place + shift], dtype=np.int32))
            text = ids[len(frame.before) : len(ids) - len(frame.after)]
            self.total += len(text) - len(frame.between)
            self.unknown += int((text == self.tokenizer.unk_token_id).sum())
            found.append(ids)
        return found

    def _contexts(self, texts: list[str]) -> dict[str, Context]:
        """Each different context as tokens."""
        different = list(dict.fromkeys(texts))
        batch = self.tokenizer(different, return_offsets_mapping=True, **_PLAIN)
        found = {}
        for text, ids, offsets in zip(different, batch["input_ids"], batch["offset_mapping"], strict=True):
            places = np.array(offsets, dtype=np.int32).reshape(-1, 2)
            found[text] = Context(np.array(ids, dtype=np.int32), trimmed(text, places))
        return found

    def _keep(self, name: str, array: np.ndarray) -> None:
        self.arrays.setdefault(name, []).append(array)


def windows(count: int, room: int, stride: int) -> list[tuple[int, int]]:
    """Where windows over `count` tokens begin and end, each of `room` tokens at most; one at least, if an empty one.

    No token is passed over: where a window has less room than the stride, the next one begins at its end.
    """
    step = min(stride, room)
    begins = range(0, max(1, count - room + step), step)
    return [(start, min(start + room, count)) for start in begins]


def fullest(found: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Of each window over one context, the tokens [from, until) around which it shows most; every token is of one.

    What counts is the smaller of the tokens before and after it in the window, and a hundredth of the window's length;
    where two windows show as much, the earlier one is taken (BERT's "maximum context").
    """
    if len(found) == 1:
        return [found[0]]
    best = np.full(found[-1][1], -1.0)
    owner = np.zeros(found[-1][1], dtype=np.int64)
    for index, (start, stop) in enumerate(found):
        place = np.arange(stop - start)
        shown = np.minimum(place, place[::-1]) + 0.01 * len(place)
        better = shown > best[start:stop]
        best[start:stop][better] = shown[better]
        owner[start:stop][better] = index
    # windows end one after the other, so what is of one window is in one piece
    cuts = np.searchsorted(owner, np.arange(len(found) + 1)).tolist()
    return list(pairwise(cuts))


def trimmed(text: str, offsets: np.ndarray) -> np.ndarray:
    """Token offsets [n, 2] without the white space at both ends; of a token that is white space alone, none is left."""
    blank = np.array([character.isspace() for character in text], dtype=bool)
    places = np.arange(len(text))
    # the next character that is no white space, and the end of the one before, at each character and after the last
    following = np.append(np.minimum.accumulate(np.where(blank, len(text), places)[::-1])[::-1], len(text))
    ended = np.insert(np.maximum.accumulate(np.where(blank, 0, places + 1)), 0, 0)
    start = np.minimum(following[offsets[:, 0]], offsets[:, 1])
    stop = np.maximum(ended[offsets[:, 1]], start)
    return np.stack([start, stop], axis=1).astype(np.int32)


def _frame(tokenizer: Any) -> Frame:
    """What a tokenizer puts around two texts."""
    for probe in _PROBES:
        batch = tokenizer([probe], [probe])
        sides = [-1 if side is None else side for side in batch.sequence_ids(0)]
        first, second = (np.flatnonzero(np.array(sides) == side) for side in (0, 1))
        if not len(first) or not len(second):
            continue
        if first[-1] > second[0]:
            break
        ids = np.array(batch["input_ids"][0], dtype=np.int32)
        cuts = (first[0], first[-1] + 1, second[0], second[-1] + 1)
        types = None
        if "token_type_ids" in batch:
            of = batch["token_type_ids"][0]
            places = (0, cuts[0], cuts[1], cuts[2], len(ids) - 1)
            types = tuple(int(of[place]) for place in places)
        return Frame(ids[: cuts[0]], ids[cuts[1] : cuts[2]], ids[cuts[3] :], types)
    raise BackboneError(Problem("backbone", "its tokenizer puts no question before a context"))
