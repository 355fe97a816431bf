"""What every probe has: prompts as token ids with a mask in them, what is known of an answer, tokens read as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# what is known of each fact: the answer, its number of tokens and their log-probability, summed or mean; whether the
# fact was asked, and if not whether a token of its labels is unknown; whether the answer is right; whether the gold
# label is one token
ANSWER = np.dtype(
    [
        ("text", "U160"), ("tokens", "i1"), ("logprob", "f4"), ("used", "?"), ("unknown", "?"), ("correct", "?"),
        ("single", "?"),
    ]
)  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """The prompts of a split as token ids, each with one mask.

    Attributes:
        tokens: of all prompts, one after another, int32.
        starts: where each prompt begins in them [facts].
        lengths: its tokens [facts].
        places: where its mask stands in it [facts].
        answers: the facts [facts], `used`, `unknown` and `single` known.
    """

    tokens: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    places: np.ndarray
    answers: np.ndarray

    def batch(self, rows: np.ndarray, count: int, pad: int) -> tuple[np.ndarray, np.ndarray]:
        """Token ids of some prompts with `count` masks for the one, padded, and 1 where a token is [rows, length]."""
        lengths = self.lengths[rows] + count - 1
        ids = np.full((len(rows), lengths.max()), pad, dtype=np.int64)
        for line, row in enumerate(rows):
            told = self.tokens[self.starts[row] : self.starts[row] + self.lengths[row]]
            place = self.places[row]
            masks = np.repeat(told[place], count)
            ids[line, : lengths[line]] = np.concatenate([told[:place], masks, told[place + 1 :]])
        return ids, (np.arange(ids.shape[1]) < lengths[:, None]).astype(np.int64)


def read(tokenizer: Any, ids: Sequence[int]) -> str:
    """Token ids as text, without the spaces around it."""
    return str(tokenizer.convert_tokens_to_string(tokenizer.convert_ids_to_tokens(list(ids)))).strip()


def ids_of(tokenizer: Any, texts: Sequence[str], special: bool = False) -> list[list[int]]:
    """The token ids of some texts."""
    if not texts:
        return []
    found: list[list[int]] = tokenizer(list(texts), add_special_tokens=special, verbose=False)["input_ids"]
    return found
