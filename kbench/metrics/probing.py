"""Metrics of a probe for facts as plain functions: no network, no state. Values are shares, 0 to 1."""

from __future__ import annotations

import numpy as np

METRICS = ("accuracy", "micro", "single", "multi")


def fact_scores(
    correct: np.ndarray, relation: np.ndarray, used: np.ndarray, single: np.ndarray, relations: int
) -> dict[str, float]:
    """All metrics of the facts that are used (X-FACTR's evaluation; KMLM, table 4).

    `accuracy` is the mean, over the relations that have facts, of the share of right answers; `micro` the share among
    all facts; `single` and `multi` are as `accuracy`, of the facts whose gold label is one token of the model and of
    the others. The benchmark's script counts a relation without such facts as 0, here it is left out. 0 where there are
    no facts at all.

    Args:
        correct, used, single: of each fact [facts], bool.
        relation: its index [facts].
        relations: number of relations.
    """
    return {
        "accuracy": _macro(correct, relation, used, relations),
        "micro": float(correct[used].mean()) if used.any() else 0.0,
        "single": _macro(correct, relation, used & single, relations),
        "multi": _macro(correct, relation, used & ~single, relations),
    }


def _macro(correct: np.ndarray, relation: np.ndarray, chosen: np.ndarray, relations: int) -> float:
    """Mean over the relations that have chosen facts of the share of right ones."""
    there = np.bincount(relation[chosen], minlength=relations)
    right = np.bincount(relation[chosen & correct], minlength=relations)
    return float((right[there > 0] / there[there > 0]).mean()) if there.any() else 0.0
