"""Units: what is scored. A text is one; a sentence has one for each word. They stand one row's after another."""

from __future__ import annotations

import numpy as np


def unit_counts(ends: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """How many units each of some rows has. `ends` [all rows] as `Records.ends` gives them."""
    return ends[rows] - np.where(rows > 0, ends[rows - 1], 0)


def units_of(ends: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The units of some rows, in the rows' order."""
    counts = unit_counts(ends, rows)
    shift = ends[rows] - np.cumsum(counts)
    return np.repeat(shift, counts) + np.arange(int(counts.sum()))
