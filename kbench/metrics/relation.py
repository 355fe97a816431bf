"""Metrics of relation classification as plain functions: no network, no state. Values are shares, 0 to 1.

A label is a relation with its direction, `per:spouse(e1,e2)` or `per:spouse(e2,e1)`, or has none, `no_relation`. F1 is
about relations: a label without a direction is never a hit, but takes part in misses and false alarms.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kbench.metrics.classification import accuracy

METRICS = ("accuracy", "f1", "micro_f1")
_DIRECTIONS = ("(e1,e2)", "(e2,e1)")


def relations(labels: Sequence[str]) -> np.ndarray:
    """The relation of each label [labels], int64, numbered in the labels' order; -1 of one without a direction."""
    numbers: dict[str, int] = {}
    found = []
    for label in labels:
        name, directed = label[: -len(_DIRECTIONS[0])], label.endswith(_DIRECTIONS)
        found.append(numbers.setdefault(name, len(numbers)) if directed else -1)
    return np.array(found, dtype=np.int64)


def relation_scores(predicted: np.ndarray, gold: np.ndarray, relation: np.ndarray) -> dict[str, float]:
    """All metrics of predicted against gold labels, both [rows].

    `accuracy` is over all rows and labels. `f1` is RELX's (Köksal and Özgür 2020, its released script): for each
    relation the micro-averaged F1 of its two directions, 2 tp / (2 tp + fp + fn), then the mean over the relations; one
    that is neither predicted nor present counts 0. `micro_f1` is over the directions of all relations at once.

    Args:
        predicted, gold: label indices.
        relation: the relation of each label, as `relations` gives it.
    """
    count = int(relation.max(initial=-1)) + 1
    right = gold[predicted == gold]
    true, claimed, there = (
        np.bincount(found[found >= 0], minlength=count) for found in map(relation.__getitem__, (right, predicted, gold))
    )
    total = claimed + there
    each = np.divide(2 * true, total, out=np.zeros(count), where=total > 0)
    return {
        "accuracy": accuracy(predicted, gold, len(relation)),
        "f1": float(each.mean()) if count else 0.0,
        "micro_f1": float(2 * true.sum() / total.sum()) if total.sum() else 0.0,
    }
