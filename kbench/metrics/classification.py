"""Classification metrics as plain functions: no network, no state. Values are shares, 0 to 1, but for Matthews'."""

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


def matthews(predicted: np.ndarray, gold: np.ndarray, classes: int) -> float:
    """Matthews' correlation, -1 to 1, of any number of classes (Gorodkin 2004, R_K); 0 where either names one only.

    With c right of n units, and p_k and t_k the units predicted and present of class k, it is
    (c n - sum p_k t_k) / sqrt((n^2 - sum p_k^2) (n^2 - sum t_k^2)). Units that predict none are a class of their own.
    """
    claimed, there = (np.bincount(found + 1, minlength=classes + 1).astype(np.float64) for found in (predicted, gold))
    units = float(len(gold))
    spread = (units**2 - (claimed**2).sum()) * (units**2 - (there**2).sum())
    if spread <= 0:
        return 0.0
    return float((float(np.sum(predicted == gold)) * units - (claimed * there).sum()) / np.sqrt(spread))


def f1(predicted: np.ndarray, gold: np.ndarray, classes: int, positive: int = 1) -> float:
    """F1 = 2 tp / (2 tp + fp + fn) of one class, the second unless said; 0 where it is neither predicted nor present.

    For two classes, as GLUE has it for MRPC and QQP.
    """
    claimed, there = predicted == positive, gold == positive
    total = int(claimed.sum() + there.sum())
    return 2 * int((claimed & there).sum()) / total if total else 0.0


METRICS = {"accuracy": accuracy, "macro_f1": macro_f1, "matthews": matthews, "f1": f1}
