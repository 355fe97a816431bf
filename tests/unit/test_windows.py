"""Windows over contexts: against the tokenizers' own, against naive definitions, and answers found again in them."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kbench.config.spans import Normaliser, SpanOptions
from kbench.data.questions import squad
from kbench.data.windows import SpanEncoder, fullest, trimmed, windows
from kbench.errors import BackboneError, DataError
from tests.unit.test_word_encoder import bytewise, tiny, unigram, wordpiece

TEXTS = [
    "Die Königin von Saba reiste mit großem Gefolge nach Jerusalem und stellte Salomo viele Fragen .",
    "the quick brown fox jumps over the lazy dog while 42 other foxes watch it from a hill",
    "北京 大学 位于 中国 北京 海淀区",
]
KINDS: dict[str, Callable[[list[list[str]]], Any]] = {
    "bert": wordpiece,
    "roberta": bytewise,
    "xlmr": unigram,
    "tiny": tiny,
}


@pytest.fixture(scope="module", params=sorted(KINDS))
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return KINDS[request.param]([text.split() for text in TEXTS for _ in range(20)])


def options(stride: int = 5, max_query: int = 6) -> SpanOptions:
    return SpanOptions(stride=stride, max_query=max_query, max_answer=30, n_best=20, normaliser=Normaliser.squad)


def encoded(encoder: SpanEncoder, rows: list[tuple[list[str], list[int]]]) -> dict[str, np.ndarray]:
    """All that an encoder gives for some rows, each array in one piece; the windows as `ids`, their ends as `ends`."""
    found = encoder.encode(rows)
    arrays = {name: np.concatenate(pieces) for name, pieces in encoder.arrays.items()}
    return arrays | {"ids": np.concatenate(found), "ends": np.cumsum([len(ids) for ids in found])}


# Where windows begin and what they show.


@pytest.mark.parametrize(
    ("count", "room", "stride", "expected"),
    [
        (0, 4, 2, [(0, 0)]),
        (3, 4, 2, [(0, 3)]),
        (4, 4, 2, [(0, 4)]),
        (5, 4, 2, [(0, 4), (2, 5)]),
        (6, 4, 2, [(0, 4), (2, 6)]),
        (7, 4, 2, [(0, 4), (2, 6), (4, 7)]),
        (9, 4, 9, [(0, 4), (4, 8), (8, 9)]),
        (8, 4, 4, [(0, 4), (4, 8)]),
    ],
)
def test_windows(count: int, room: int, stride: int, expected: list[tuple[int, int]]) -> None:
    assert windows(count, room, stride) == expected


def naive_windows(count: int, room: int, stride: int) -> list[tuple[int, int]]:
    """BERT's loop: step on by the stride until a window holds the end."""
    found, start = [], 0
    while True:
        length = min(count - start, room)
        found.append((start, start + length))
        if start + length == count:
            return found
        start += min(length, stride)


def naive_fullest(found: list[tuple[int, int]], token: int) -> int:
    """BERT's maximum context: the window of a token."""
    best, chosen = None, -1
    for index, (start, stop) in enumerate(found):
        if start <= token < stop:
            score = min(token - start, stop - 1 - token) + 0.01 * (stop - start)
            if best is None or score > best:
                best, chosen = score, index
    return chosen


def test_windows_are_those_of_the_loop_and_share_the_tokens_as_it_does() -> None:
    drawn = random.Random(3)
    several = 0
    for _ in range(600):
        room = drawn.choice([1, 2, drawn.randint(3, 12), drawn.randint(100, 400)])
        count, stride = drawn.randint(0, 5 * room), drawn.randint(1, room + 3)
        found = windows(count, room, stride)
        assert found == naive_windows(count, room, stride), (count, room, stride)
        owners = [index for index, (start, stop) in enumerate(fullest(found)) for _ in range(start, stop)]
        assert owners == [naive_fullest(found, token) for token in range(count)], (count, room, stride)
        several += len(found) > 2
    assert several > 200


def test_white_space_is_no_part_of_a_token() -> None:
    drawn = random.Random(5)
    for _ in range(300):
        text = "".join(drawn.choices("ab \n\u3000", k=drawn.randrange(9)))
        pairs = [sorted((drawn.randint(0, len(text)), drawn.randint(0, len(text)))) for _ in range(6)]
        found = trimmed(text, np.array(pairs, dtype=np.int32).reshape(-1, 2))
        for (start, stop), (since, until) in zip(pairs, found.tolist(), strict=True):
            assert start <= since <= until <= stop
            assert text[since:until] == text[start:stop].strip()


# Against the tokenizers.

QUESTION = "Wer reiste nach Jerusalem , the fox ?"


def contexts() -> list[str]:
    drawn = random.Random(11)
    words = " ".join(TEXTS).split()
    return ["  ".join(drawn.choices(words, k=count)) + drawn.choice(["", " "]) for count in (1, 2, 9, 30, 70)]


@pytest.mark.parametrize("stride", [3, 16])
def test_windows_are_those_that_the_tokenizer_makes_of_the_pair(tokenizer: Any, stride: int) -> None:
    asked = tokenizer([QUESTION], add_special_tokens=False)["input_ids"][0]
    encoder = SpanEncoder(tokenizer, 60, options(stride, max_query=len(asked)))
    special = tokenizer.num_special_tokens_to_add(pair=True)
    for context in contexts():
        start = len(encoder.arrays.get("offsets", []))
        found = encoder.encode([([QUESTION, context, "x"], [0])])
        # the tokenizer is told how much windows overlap
        theirs = tokenizer(
            [QUESTION],
            [context],
            truncation="only_second",
            max_length=60,
            stride=60 - special - len(asked) - stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        assert [ids.tolist() for ids in found] == theirs["input_ids"]
        if "token_type_ids" in theirs:
            assert [one.tolist() for one in encoder.arrays["types"][start:]] == theirs["token_type_ids"]
        for window, offsets in enumerate(encoder.arrays["offsets"][start:]):
            sides = theirs.sequence_ids(window)
            for (since, until), side, (first, last) in zip(
                offsets.tolist(), sides, theirs["offset_mapping"][window], strict=True
            ):
                assert (since >= 0) == (side == 1)
                if side == 1:
                    assert context[since:until] == context[first:last].strip()
    assert len(found) > 2


def test_an_answer_is_found_again_in_every_window_that_holds_it(tokenizer: Any) -> None:
    drawn = random.Random(13)
    encoder, wide = SpanEncoder(tokenizer, 40, options()), SpanEncoder(tokenizer, 4000, options())
    rows, empty = [], 0
    for context in contexts() * 8:
        words = context.split()
        first = drawn.randrange(len(words))
        start = len("  ".join([*words[:first], ""]))
        stop = len("  ".join(words[: first + drawn.randint(1, 3)]))
        rows.append(([QUESTION, context, context[start:stop]], [start]))
    found = encoded(encoder, rows)
    wide.encode(rows)
    window = 0
    for row, ((texts, (start,)), row_end) in enumerate(zip(rows, found["row_ends"], strict=True)):
        stop = start + len(texts[2])
        holding = 0
        all_touched = sum(a >= 0 and b > start and a < stop for a, b in wide.arrays["offsets"][row].tolist())
        while window < row_end:
            since = found["ends"][window - 1] if window else 0
            offsets = found["offsets"][since : found["ends"][window]]
            first, last = int(found["first"][window]), int(found["last"][window])
            touched = [place for place, (a, b) in enumerate(offsets.tolist()) if a >= 0 and b > start and a < stop]
            if first:
                assert (first, last) == (touched[0], touched[-1]) and len(touched) == all_touched
                assert texts[1][offsets[first, 0] : offsets[last, 1]] == texts[2]
                holding += 1
            else:  # some token of the answer is not there
                assert last == 0 and len(touched) < all_touched
                empty += 1
            window += 1
        assert holding
    assert empty > 20


def test_rows_go_on_from_one_call_to_the_next(tokenizer: Any) -> None:
    rows = [([QUESTION, context, "x"], [0]) for context in contexts()]
    whole = encoded(SpanEncoder(tokenizer, 40, options()), rows)
    encoder = SpanEncoder(tokenizer, 40, options())
    encoder.encode(rows[:2])
    encoder.encode(rows[2:])
    assert {name: np.concatenate(one).tolist() for name, one in encoder.arrays.items()} == {
        name: array.tolist() for name, array in whole.items() if name not in ("ids", "ends")
    }
    assert whole["row_ends"].dtype == np.int64 and whole["row_ends"][-1] == len(whole["ends"])
    of_context = int((whole["offsets"][:, 0] >= 0).sum())
    assert encoder.total > of_context and 0 <= encoder.unknown < encoder.total


def test_every_token_of_a_context_is_fullest_in_one_window(tokenizer: Any) -> None:
    context = contexts()[-1]
    found = encoded(SpanEncoder(tokenizer, 40, options()), [([QUESTION, context, "x"], [0])])
    shown: list[tuple[int, int]] = []
    for window, end in enumerate(found["ends"]):
        offsets = found["offsets"][found["ends"][window - 1] if window else 0 : end]
        shown += map(tuple, offsets[found["full_from"][window] : found["full_until"][window]].tolist())
    bare = tokenizer([context], add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"][0]
    assert shown == list(map(tuple, trimmed(context, np.array(bare, dtype=np.int32)).tolist()))
    assert len(found["ends"]) > 3


def test_a_long_question_is_cut(tokenizer: Any) -> None:
    encoder = SpanEncoder(tokenizer, 40, options(max_query=2))
    (ids,) = encoder.encode([([QUESTION, "fox", "fox"], [0])])
    asked = tokenizer([QUESTION], add_special_tokens=False)["input_ids"][0]
    bare = tokenizer(["fox"], add_special_tokens=False)["input_ids"][0]
    assert len(ids) == 2 + len(bare) + tokenizer.num_special_tokens_to_add(pair=True)
    assert asked[:2] == [one for one in ids.tolist() if one in asked[:2]][:2]


def test_no_room_for_context(tokenizer: Any) -> None:
    special = tokenizer.num_special_tokens_to_add(pair=True)
    SpanEncoder(tokenizer, 7 + special, options(max_query=6))
    with pytest.raises(DataError, match="has no room for context"):
        SpanEncoder(tokenizer, 6 + special, options(max_query=6))


def test_a_slow_tokenizer_is_refused() -> None:
    class Slow:
        is_fast = False

    with pytest.raises(BackboneError, match="does not say where in the text a token stands"):
        SpanEncoder(Slow(), 40, options())


@pytest.mark.parametrize("name", ["stride", "max_query", "max_answer", "n_best"])
def test_options_must_be_positive(name: str) -> None:
    chosen = options()
    assert chosen.check("data.spans") == []
    setattr(chosen, name, 0)
    (problem,) = chosen.check("data.spans")
    assert problem.where == f"data.spans.{name}"


# Real files.


def test_answers_of_real_questions_are_found_again(real_data: Path, tokenizer: Any) -> None:
    """In tokens that a real vocabulary is not needed for: every answer is held, whole, by a window."""
    for name in ("xquad/xquad.ar.json.gz", "xquad/xquad.th.json.gz", "mlqa/dev/dev-context-zh-question-zh.json.gz"):
        rows = [(texts, starts) for _, texts, starts in squad(real_data / name, "utf-8")][:120]
        found = encoded(SpanEncoder(tokenizer, 384, options(128, 64)), rows)
        assert len(found["row_ends"]) == len(rows)
        window = 0
        for (texts, (start, *_)), row_end in zip(rows, found["row_ends"], strict=True):
            spans = []
            while window < row_end:
                begin = found["ends"][window - 1] if window else 0
                first, last = int(found["first"][window]), int(found["last"][window])
                if first:
                    spans.append((found["offsets"][begin + first, 0], found["offsets"][begin + last, 1]))
                window += 1
            assert spans
            # a token may be longer than the answer; of the answer nothing is left out but what a tokenizer drops
            for since, until in spans:
                left = texts[1][start : max(start, since)] + texts[1][max(since, until) : start + len(texts[2])]
                assert all(unicodedata.category(character)[0] in "MCZ" for character in left)
