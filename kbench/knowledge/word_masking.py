"""Whole words of running text to guess, as in BERT, but never inside spans that hold something else.

A word is a token that begins one and those behind it that do not. Words are drawn, and each token of a word drawn
becomes the mask, a random token or stays (BERT: 80, 10, 10 in a hundred). A word is drawn whole or not at all
(whole word masking of BERT's authors, 2019), and one that reaches into a blocked span is not drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kbench.engine.counter import below, uniform
from kbench.knowledge.masking import Draw, Masked

_MASKED, _KEPT_RANDOM = 0.8, 0.5  # of what is drawn; of what is not masked one half is replaced by a random token


def mask_words(
    ids: np.ndarray,
    begins: np.ndarray,
    blocked: np.ndarray,
    keys: np.ndarray,
    probability: float,
    mask: int,
    vocabulary: int,
    special: Sequence[int],
    whole_words: bool = True,
    *,
    attention: np.ndarray,
) -> Masked:
    """Mask words. All draws are functions of the sample's key and the token's position.

    Args:
        ids: token ids with special tokens and padding [B, L].
        begins: whether a token begins a word [B, L].
        blocked: whether a token may be neither masked nor scored [B, L].
        keys: one number for each sample, uint64 [B].
        probability: how often a word is drawn (BERT: 0.15).
        mask: id of the mask.
        vocabulary: number of ids a random one is drawn from.
        special: ids that are never masked nor scored; each is a word of its own.
        whole_words: draw words; otherwise each token by itself, and only blocked tokens are blocked.
        attention: 1 at tokens and 0 at padding, int64 [B, L].
    """
    width = ids.shape[1]
    apart = np.isin(ids, special) | (attention == 0)
    starts = begins | apart if whole_words else np.ones(ids.shape, dtype=bool)
    starts[:, 1:] |= apart[:, :-1]
    starts[:, 0] = True
    firsts = np.flatnonzero(starts)
    word = np.cumsum(starts.reshape(-1)) - 1
    free = np.bincount(word, (apart | blocked).reshape(-1), len(firsts)) == 0
    row, column = np.divmod(firsts, width)
    drawn = free & (uniform(keys[row], Draw.SELECTED, column) < probability)
    selected = np.flatnonzero(drawn[word])
    sample, place = np.divmod(selected, width)
    chance = uniform(keys[sample], Draw.REPLACED, place)
    random = below(vocabulary, keys[sample], Draw.TOKEN, place)
    before = ids.reshape(-1)[selected].astype(np.int64)
    edge = _MASKED + (1 - _MASKED) * _KEPT_RANDOM
    found = ids.astype(np.int64)
    found.reshape(-1)[selected] = np.where(chance < _MASKED, mask, np.where(chance < edge, random, before))
    return Masked(found, attention.astype(np.int64), selected, before)
