"""The order of training rows: a function of (seed, epoch), so that resuming is arithmetic and nothing is remembered.

Batches are *global*: the rows of one optimiser step, however many processes share them. Rows are shuffled, then sorted
by length within pools of some global batches, cut, and the batches shuffled; the last batch of an epoch may be short.
"""

from __future__ import annotations

import numpy as np

from kbench.engine.seeding import derive


def epoch_batches(lengths: np.ndarray, *, seed: int, epoch: int, batch: int, pool: int) -> list[np.ndarray]:
    """The global batches of an epoch.

    Args:
        lengths: tokens of each training row [n].
        seed: of the run.
        epoch: from 0.
        batch: rows in a global batch.
        pool: global batches sorted together; 0: no sorting.

    Returns:
        arrays of positions into `lengths`, each at most `batch` long; every row stands in exactly one.
    """
    order = np.random.default_rng(derive(seed, "order", epoch)).permutation(len(lengths))
    if pool:
        size = batch * pool
        pools = [order[start : start + size] for start in range(0, len(order), size)]
        order = np.concatenate([rows[np.argsort(lengths[rows], kind="stable")] for rows in pools])
    batches = [order[start : start + batch] for start in range(0, len(order), batch)]
    if pool:
        shuffle = np.random.default_rng(derive(seed, "batches", epoch)).permutation(len(batches))
        batches = [batches[index] for index in shuffle]
    return batches


def steps_per_epoch(rows: int, batch: int) -> int:
    """Optimiser steps in an epoch."""
    return -(-rows // batch)


def chunks(rows: np.ndarray, micro: int, processes: int) -> list[np.ndarray]:
    """A global batch as micro batches; chunk c belongs to process c mod `processes`.

    Every process gets equally many: where rows run out a chunk is empty, and its process adds nothing.
    """
    found = [rows[start : start + micro] for start in range(0, len(rows), micro)]
    while len(found) % processes:
        found.append(rows[:0])
    return found


def hold_out(rows: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to learn from and rows held out, both ascending; at least one row each.

    Args:
        rows: rows there are, at least 2.
        share: share of them to hold out.
        seed: of the run; each run holds out others, as the paper's seeds do.
    """
    count = min(max(1, round(rows * share)), rows - 1)
    order = np.random.default_rng(derive(seed, "hold out")).permutation(rows)
    return np.sort(order[count:]), np.sort(order[:count])
