"""Metrics of entity typing as plain functions: no network, no state. Values are shares, 0 to 1."""

from __future__ import annotations

import numpy as np

METRICS = ("f1", "precision", "recall")


def typing_scores(predicted: np.ndarray, gold: np.ndarray) -> dict[str, float]:
    """Micro-averaged precision, recall and F1 over all decisions, one a row and type (Open Entity; ERNIE's script).

    A row of which nothing is said misses all its types; one that has none can only bring false alarms. What is divided
    by 0 is 0.

    Args:
        predicted, gold: whether a row has a type [rows, types], bool.
    """
    right = int((predicted & gold).sum())
    claimed, there = int(predicted.sum()), int(gold.sum())
    return {
        "f1": 2 * right / (claimed + there) if claimed + there else 0.0,
        "precision": right / claimed if claimed else 0.0,
        "recall": right / there if there else 0.0,
    }
