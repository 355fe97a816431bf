"""Metrics of relation classification as plain functions: no network, no state. Values are shares, 0 to 1.

A label is a relation with its direction, `per:spouse(e1,e2)` or `per:spouse(e2,e1)`, a relation without one, as all of
TACRED's are, or it says that there is none, `no_relation`. All but accuracy are about relations: a label that is none
is never a hit, but takes part in misses and false alarms.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kbench.metrics.classification import accuracy

METRICS = ("accuracy", "f1", "micro_f1", "precision", "recall", "macro_f1")
_DIRECTIONS = ("(e1,e2)", "(e2,e1)")


def relations(labels: Sequence[str], negative: str | None = None) -> np.ndarray:
    """The relation of each label [labels], int64, numbered in the labels' order; -1 of one that is none.

    Args:
        labels: names.
        negative: the one that says that there is no relation; None: all without a direction do, as in RELX.
    """
    numbers: dict[str, int] = {}
    found = []
    for label in labels:
        directed = label.endswith(_DIRECTIONS)
        name = label[: -len(_DIRECTIONS[0])] if directed else label
        counted = directed if negative is None else label != negative
        found.append(numbers.setdefault(name, len(numbers)) if counted else -1)
    return np.array(found, dtype=np.int64)


def relation_scores(
    predicted: np.ndarray, gold: np.ndarray, relation: np.ndarray, micro: bool = False
) -> dict[str, float]:
    """All metrics of predicted against gold labels, both [rows].

    `accuracy` is over all rows and labels. `precision`, `recall` and `micro_f1` = 2 tp / (2 tp + fp + fn) are over the
    labels of all relations at once: TACRED's (Zhang et al. 2017, its scorer). `macro_f1` is that of SemEval-2010 and
    KBP-37, RELX's, too (Köksal and Özgür 2020, its released script): for each relation the micro-averaged F1 of its two
    directions, then the mean over the relations; one that is neither predicted nor present counts 0. `f1` is one of
    these two. What is divided by 0 is 0.

    Args:
        predicted, gold: label indices.
        relation: the relation of each label, as `relations` gives it.
        micro: `f1` is `micro_f1`; else `macro_f1`.
    """
    count = int(relation.max(initial=-1)) + 1
    right = gold[predicted == gold]
    true, claimed, there = (
        np.bincount(found[found >= 0], minlength=count) for found in map(relation.__getitem__, (right, predicted, gold))
    )
    total = claimed + there
    each = np.divide(2 * true, total, out=np.zeros(count), where=total > 0)
    macro_f1 = float(each.mean()) if count else 0.0
    micro_f1 = _share(2 * true.sum(), total.sum())
    return {
        "accuracy": accuracy(predicted, gold, len(relation)),
        "f1": micro_f1 if micro else macro_f1,
        "micro_f1": micro_f1,
        "precision": _share(true.sum(), claimed.sum()),
        "recall": _share(true.sum(), there.sum()),
        "macro_f1": macro_f1,
    }


def _share(part: int, whole: int) -> float:
    return float(part / whole) if whole else 0.0
