"""Sentences given as words, as token ids: one way for all tokenizers, fast and slow.

A slow tokenizer (KoBERT's, BertJapaneseTokenizer) does not say which word a token is of. So each word is tokenized by
itself, without special tokens, and these are put around the sentence once. Words repeat, so each is tokenized once.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Any

import numpy as np

from kbench.errors import BackboneError, Problem

_REMEMBERED = 1_000_000  # words
# pieces that are a space and nothing else, of sentencepiece and of byte-level BPE
_SPACES = ("▁", "Ġ")
_PROBES = ("a", "1", ".")  # one of them is a token of any tokenizer, if only the unknown one


class WordEncoder:
    """Token ids of sentences, and the token at which each word is read.

    A word is read at its first token, or at the second where the first is a lone space that is to be passed over. One
    of which the tokenizer makes nothing, such as a lone control character, is read at an unknown token; a tokenizer
    that is given the whole sentence leaves it out. Nothing else differs.

    Attributes:
        unknown: how many of the tokens given so far are the unknown token; special tokens are not counted.
        total: how many tokens have been given so far, special tokens not counted.
    """

    def __init__(self, tokenizer: Any, max_length: int, nonempty: bool = False):
        """A reader of words.

        Args:
            tokenizer: one of transformers.
            max_length: longest row in tokens, special tokens included.
            nonempty: pass over a first piece that is a lone space, as XLM-R's often is before a Chinese letter.

        Raises:
            BackboneError: the tokenizer puts other than a fixed prefix and suffix around a word.
            ValueError: max_length has no room for a word.
        """
        self.unknown = 0
        self.total = 0
        self._tokenizer = tokenizer
        self._known: dict[str, tuple[int, ...]] = {}
        self._passed = set(tokenizer.convert_tokens_to_ids(list(_SPACES))) if nonempty else set()
        self._passed.discard(tokenizer.unk_token_id)
        self._prefix, self._suffix = _special(tokenizer)
        self._room = max_length - len(self._prefix) - len(self._suffix)
        if self._room < 1:
            raise ValueError(f"max_length={max_length} has no room for a word")

    def encode(self, sentences: list[list[str]]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Ids of each sentence, int32 [tokens], and places of its words' first tokens, int32 [words], -1 if cut off.

        Raises:
            BackboneError: the tokenizer makes nothing of a word and has no unknown token to take its place.
        """
        self._learn(dict.fromkeys(chain.from_iterable(sentences)))
        rows, places = [], []
        for words in sentences:
            pieces = [self._known[word] for word in words]
            inner = list(chain.from_iterable(pieces))[: self._room]
            rows.append(np.array([*self._prefix, *inner, *self._suffix], dtype=np.int32))
            lengths = np.fromiter(map(len, pieces), dtype=np.int32, count=len(pieces))
            starts = np.cumsum(lengths, dtype=np.int32) - lengths
            if self._passed:
                starts += [len(ids) > 1 and ids[0] in self._passed for ids in pieces]
            places.append(np.where(starts < self._room, starts + len(self._prefix), -1).astype(np.int32))
            self.total += len(inner)
            self.unknown += inner.count(self._tokenizer.unk_token_id)
        return rows, places

    def _learn(self, words: Iterable[str]) -> None:
        """Tokenize those words that are not known."""
        words = list(words)
        new = [word for word in words if word not in self._known]
        if len(self._known) + len(new) > _REMEMBERED:
            self._known.clear()
            new = words
        if not new:
            return
        for word, ids in zip(new, _plain(self._tokenizer, new), strict=True):
            self._known[word] = tuple(ids) or (self._unknown(word),)

    def _unknown(self, word: str) -> int:
        found = self._tokenizer.unk_token_id
        if found is None:
            raise BackboneError(Problem("tokenizer", f"makes nothing of {word!r} and has no unknown token"))
        return int(found)


def _plain(tokenizer: Any, words: list[str]) -> list[list[int]]:
    """Ids of each word without special tokens."""
    wanted = {"add_special_tokens": False, "return_attention_mask": False, "return_token_type_ids": False}
    ids: list[list[int]] = tokenizer(words, **wanted)["input_ids"]
    return ids


def _special(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The tokens put before and after a text."""
    for probe in _PROBES:
        bare = _plain(tokenizer, [probe])[0]
        full = tokenizer([probe])["input_ids"][0]
        for start in range(len(full) - len(bare) + 1 if bare else 0):
            if full[start : start + len(bare)] == bare:
                return full[:start], full[start + len(bare) :]
    raise BackboneError(Problem("tokenizer", "changes a word when it puts special tokens around it"))
