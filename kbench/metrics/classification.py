"""Classification metrics as plain functions: no network, no state. Values are shares, 0 to 1."""

from __future__ import annotations

import numpy as np


def accuracy(predicted: np.ndarray, gold: np.ndarray, classes: int) -> float:
    """Share of units whose predicted class is the gold one. Both arrays [units], class indices; -1 predicts none."""
    return float(np.mean(predicted == gold))


def macro_f1(predicted: np.ndarray, gold: np.ndarray, classes: int) -> float:
    """Mean over all classes of F1 = 2 tp / (2 tp + fp + fn); a class neither predicted nor present counts 0."""
    true, claimed, there = (
        np.bincount(found, minlength=classes) for found in (gold[predicted == gold], predicted[predicted >= 0], gold)
    )
    total = claimed + there
    return float(np.mean(np.divide(2 * true, total, out=np.zeros(classes), where=total > 0)))


METRICS = {"accuracy": accuracy, "macro_f1": macro_f1}
