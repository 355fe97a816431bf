"""Metrics of scores on a scale as plain functions: no network, no state. Values are correlations, -1 to 1."""

from __future__ import annotations

import numpy as np


def pearson(predicted: np.ndarray, gold: np.ndarray) -> float:
    """Pearson's correlation of two arrays [rows]; 0 where one of them is constant, or holds what is no number."""
    with np.errstate(invalid="ignore", over="ignore"):
        x, y = (values.astype(np.float64) - np.mean(values, dtype=np.float64) for values in (predicted, gold))
        both = float(np.sqrt((x * x).sum() * (y * y).sum()))
        found = float((x * y).sum() / both) if both else 0.0
    return float(np.clip(found, -1.0, 1.0)) if np.isfinite(found) else 0.0


def spearman(predicted: np.ndarray, gold: np.ndarray) -> float:
    """Spearman's correlation of two arrays [rows], that of their ranks; equal values have the mean of their ranks."""
    if not np.isfinite(predicted).all():
        return 0.0
    return pearson(ranks(predicted), ranks(gold))


def ranks(values: np.ndarray) -> np.ndarray:
    """The rank of each value [rows], float64, from 1; equal values have the mean of theirs."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    found: np.ndarray = (last - (count - 1) / 2)[place]
    return found


METRICS = {"pearson": pearson, "spearman": spearman}
