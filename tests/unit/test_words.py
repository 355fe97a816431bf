"""Tokenizers that are given words: a byte-level one puts the space before each that it had in running text."""

from __future__ import annotations

from pathlib import Path

import pytest

from kbench.backbones.load import load_tokenizer

WORDS = ["rivers", "and", "bridges", "near", "rivers"]


@pytest.fixture(scope="module")
def roberta(tmp_path_factory):
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaTokenizer

    folder = tmp_path_factory.mktemp("roberta")
    learned = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    learned.train_from_iterator([" ".join(WORDS)] * 50, vocab_size=400, special_tokens=special, show_progress=False)
    learned.save_model(str(folder))
    RobertaTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)
    return Path(folder)


def test_words_are_read_as_in_running_text(roberta):
    running = load_tokenizer(roberta)(" " + " ".join(WORDS))["input_ids"]
    found = load_tokenizer(roberta, words=True)(WORDS, is_split_into_words=True)
    assert found["input_ids"] == running
    assert [word for word in found.word_ids() if word is not None] == sorted(
        word for word in found.word_ids() if word is not None
    )


def test_without_it_they_would_not_be(roberta):
    running = load_tokenizer(roberta)(" " + " ".join(WORDS))["input_ids"]
    assert load_tokenizer(roberta)(WORDS, is_split_into_words=True)["input_ids"] != running
