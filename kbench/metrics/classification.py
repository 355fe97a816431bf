"""Classification metrics as plain functions: no network, no state. Values are shares, 0 to 1."""

from __future__ import annotations

import numpy as np


def accuracy(predicted: np.ndarray, gold: np.ndarray, classes: int) -> float:
    """Share of rows whose predicted class is the gold one. Both arrays [rows], class indices."""
    return float(np.mean(predicted == gold))


def macro_f1(predicted: np.ndarray, gold: np.ndarray, classes: int) -> float:
    """Mean over all classes of F1 = 2 tp / (2 tp + fp + fn); a class neither predicted nor present counts 0."""
    confusion = np.bincount(gold * classes + predicted, minlength=classes * classes).reshape(classes, classes)
    true = np.diag(confusion)
    total = confusion.sum(axis=0) + confusion.sum(axis=1)
    return float(np.mean(np.divide(2 * true, total, out=np.zeros(classes), where=total > 0)))


METRICS = {"accuracy": accuracy, "macro_f1": macro_f1}
