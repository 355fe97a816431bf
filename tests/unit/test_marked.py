"""Texts with marks as token ids: as the whole text has them, and cut so that the marks stay."""

from __future__ import annotations

import itertools
import random
from typing import Any

import numpy as np
import pytest

from kbench.data.marked import MarkedEncoder, Pieces, kept_tokens
from kbench.errors import BackboneError

from ..conftest import small_bert

PIECES = ["a", "b", "c", "d", "e", ".", "##s", "@", "#", "*", "^", "$", "person"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Any:
    from kbench.backbones.load import load_tokenizer

    return load_tokenizer(small_bert(tmp_path_factory.mktemp("bert"), PIECES))


@pytest.fixture(scope="module", params=[False, True])
def byte_level(request) -> Any:
    """Of RoBERTa's kind, with and without a space put before the text; merges join the space to some letters."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    merges = [("Ġ", "a"), ("Ġ", "@"), ("b", "s"), ("Ġ", "bs")]
    names = ["<s>", "<pad>", "</s>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet()), *map("".join, merges)]
    vocabulary = {name: place for place, name in enumerate(names)}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=request.param)
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A </s> </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    special = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, **special)


class Around(MarkedEncoder):
    """`@` around what stands between brackets."""

    mark = "@"

    def split(self, text: str) -> Pieces:
        before, rest = text.split("[")
        mention, after = rest.split("]")
        return Pieces((before.strip(), self.mark, mention.strip(), self.mark, after.strip()), (1,), (3,))


# What is kept.


def test_worked_examples_of_what_is_kept():
    assert kept_tokens(5, 1, 1, 3, 5).tolist() == [0, 1, 2, 3, 4]
    assert kept_tokens(9, 1, 3, 5, 6).tolist() == [0, 1, 2, 3, 4, 5]  # the end goes
    assert kept_tokens(9, 4, 5, 8, 6).tolist() == [2, 3, 4, 5, 6, 7]  # the end, then the beginning
    assert kept_tokens(9, 4, 5, 8, 4).tolist() == [4, 5, 6, 7]
    assert kept_tokens(9, 1, 3, 8, 4).tolist() == [1, 2, 3, 4]  # the last span is cut
    assert kept_tokens(9, 0, 6, 8, 5).tolist() == [0, 1, 6, 7, 8]  # too far apart
    assert kept_tokens(9, 0, 8, 9, 5).tolist() == [0, 1, 8]
    assert kept_tokens(9, 0, 8, 9, 2).tolist() == [0, 8]


def test_what_is_kept_fits_has_the_marks_and_loses_spans_only_where_it_must():
    for length in range(2, 9):
        for first, last in itertools.combinations(range(length), 2):
            for stop, room in itertools.product(range(last + 1, length + 1), range(2, length + 2)):
                kept = kept_tokens(length, first, last, stop, room)
                assert len(kept) <= room and (np.diff(kept) > 0).all()
                assert {first, last} <= set(kept.tolist()) <= set(range(length))
                if stop - first <= room:
                    assert set(range(first, stop)) <= set(kept.tolist()) and len(kept) == min(room, length)
                    # nothing of the beginning is lost while there is an end to lose
                    assert kept[0] == 0 or kept[-1] == stop - 1


# Ids.


def texts(count: int = 60) -> list[str]:
    rng = random.Random(5)
    words = ["a", "bs", "c", "é", "a,b", "(", "b's"]
    parts = [[" ".join(rng.choices(words, k=rng.randrange(low, 5))) for low in (0, 1, 0)] for _ in range(count)]
    return [f"{before} [{mention}] {after}" for before, mention, after in parts]


def check_ids(tokenizer: Any) -> None:
    encoder = Around(tokenizer, 200, at_marks=True)
    rows = encoder.encode(texts(40)) + encoder.encode(texts()[40:])
    for text, row, (start,) in zip(texts(), rows, encoder.arrays["starts"], strict=True):
        whole = " ".join(text.replace("[", " @ ").replace("]", " @ ").split())
        expected = tokenizer(whole)["input_ids"]
        assert row.dtype == np.int32 and row.tolist() == expected
        before = whole[: whole.index("@")]
        length = len(tokenizer(before.strip(), add_special_tokens=False)["input_ids"]) if before else 0
        assert start == 1 + length
    assert encoder.total == sum(len(row) for row in rows) - len(rows) * len(tokenizer("")["input_ids"])


def test_ids_are_those_of_the_whole_text(bert):
    check_ids(bert)
    encoder = Around(bert, 64)
    (row,) = encoder.encode(["a q [b] ."])
    assert bert.convert_ids_to_tokens(row) == ["[CLS]", "a", "[UNK]", "@", "b", "@", ".", "[SEP]"]
    assert (encoder.unknown, encoder.total, encoder.reads) == (1, 6, 1)
    assert encoder.arrays["starts"][0].tolist() == [0]


def test_ids_are_those_of_the_whole_text_for_byte_level_tokenizers(byte_level):
    check_ids(byte_level)


@pytest.mark.parametrize("max_length", [8, 11, 17])
def test_a_long_text_keeps_its_mark_and_special_tokens(max_length, bert, byte_level):
    for tokenizer in (bert, byte_level):
        encoder = Around(tokenizer, max_length, at_marks=True)
        whole = Around(tokenizer, 1000, at_marks=True)
        mark = whole.encode(["a [b]"])[0][int(whole.arrays["starts"][0][0])]
        for row, (start,), full in zip(
            encoder.encode(texts()), encoder.arrays["starts"], whole.encode(texts()), strict=True
        ):
            assert len(row) == min(len(full), max_length)
            suffix = len(encoder.suffix)
            assert row[0] == full[0] and row[-suffix:].tolist() == full[-suffix:].tolist()
            if row[start] != mark:  # at the very beginning there is no space before it
                assert start == 1 and tokenizer.convert_ids_to_tokens(int(row[start])) in ("@", "Ġ")


def test_a_mark_that_is_nothing_is_refused(byte_level):
    class Empty(Around):
        mark = ""

    with pytest.raises(BackboneError, match="makes nothing of the mark ''"):
        Empty(byte_level, 20).encode(["a [b]"])
    with pytest.raises(ValueError, match="max_length=2 has no room for the marks"):
        Around(byte_level, 2).encode(["a [b]"])
