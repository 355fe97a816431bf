"""Wrong tokens for a sampled softmax: what they are drawn from, how often each is, and those that are right after all.

TRELM (Yan et al., arXiv 2403.11203, equation 3) says no more than that they are drawn from Q. CoLAKE's released code
draws entities by their counts to the power of 0.75, with replacement (`torch.multinomial`), the same for a whole batch;
the tokens here are drawn so, too. With replacement a token w is drawn K q(w) times on average, exactly, which is what
the correction of a sampled softmax subtracts (Bengio and Senecal 2008; Jean et al. 2015).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kbench.engine.counter import uniform

KINDS = ("unigram", "log_uniform", "uniform")


class Noise:
    """The distribution q that wrong tokens are drawn from.

    unigram: by the count to a power; a token that does not occur counts as if it did once, since the name of an entity
    may be made of such tokens, and nothing can be divided by a chance of 0. log_uniform: log((r + 2) / (r + 1)) of the
    token of rank r = 0, 1, ... by falling count, Zipf's law as TensorFlow's sampler of that name has it, whose numbers
    are such ranks; of equal counts the lower id is first. uniform: all alike.

    Args:
        counts: how often each token occurs in the corpus, int [vocabulary].
        kind: one of KINDS.
        power: of a count, where the kind is unigram (CoLAKE's released code: 0.75).
        special: ids that are never drawn.

    Attributes:
        chances: q, float64 [vocabulary], 0 at special ids; their sum is 1.

    Raises:
        ValueError: there is no such kind, or every id is special.
    """

    def __init__(self, counts: np.ndarray, kind: str = "unigram", power: float = 0.75, special: Sequence[int] = ()):
        if kind not in KINDS:
            raise ValueError(f"no such kind of noise: {kind}")
        ordinary = np.ones(len(counts), dtype=bool)
        ordinary[list(special)] = False
        if not ordinary.any():
            raise ValueError("there is no token to draw: all are special")
        weights = np.ones(len(counts))
        if kind == "unigram":
            weights = np.maximum(counts, 1).astype(np.float64) ** power
        elif kind == "log_uniform":
            # special ids stand behind all others, so that they take no rank
            order = np.lexsort((-np.asarray(counts, dtype=np.int64), ~ordinary))
            weights[order] = np.log1p(1 / np.arange(1, len(counts) + 1))
        weights[~ordinary] = 0
        self.chances: np.ndarray = weights / weights.sum()
        self._upto = np.cumsum(self.chances)
        # a special id may be a target, the unknown token of a name; it is given the rarest token's chance
        self._logarithms = np.log(np.where(ordinary, self.chances, self.chances[ordinary].min()))

    def draw(self, count: int, key: int) -> np.ndarray:
        """Some tokens, drawn with replacement, int64 [count]; a function of the key, a smaller count the first ones."""
        # a number below 1 times the last sum is below that sum, also rounded: what is found can be drawn
        chances = uniform(key, np.arange(count)) * self._upto[-1]
        return np.searchsorted(self._upto, chances, side="right").astype(np.int64)

    def log_expected(self, ids: np.ndarray, count: int) -> np.ndarray:
        """log(count * q) of some tokens: how often each is drawn on average, float32 of the ids' shape.

        A special id, which is never drawn, has the value of the rarest token.
        """
        found: np.ndarray = (np.log(count) + self._logarithms[ids]).astype(np.float32)
        return found


def removed(negatives: np.ndarray, answers: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Which of the drawn tokens stand in another true answer to each question, bool [M, K].

    Args:
        negatives: the drawn tokens [K], which may repeat.
        answers: tokens of the other true answers to each question, one after another, int [N].
        ends: where each question's end in `answers`, int64 [M].
    """
    distinct, place = np.unique(negatives, return_inverse=True)
    found = np.zeros((len(ends), len(distinct)), dtype=bool)
    if len(distinct) and len(answers):
        question = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))
        where = np.minimum(np.searchsorted(distinct, answers), len(distinct) - 1)
        hit = distinct[where] == answers
        found[question[hit], where[hit]] = True
    return found[:, place]
