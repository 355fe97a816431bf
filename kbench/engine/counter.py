"""Random numbers that are functions of what they are for: no order, no state, the same on any number of processes.

A *key* is any whole number; `mixed` folds several, or arrays of them, into one well-mixed 64-bit number (SplitMix64,
Steele et al. 2014). So the choice made for sample 7 does not depend on who makes it, or after which others.
"""

from __future__ import annotations

import numpy as np

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_ROUNDS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_FEISTEL = 4


def mixed(*keys: int | np.ndarray) -> np.ndarray:
    """The keys, broadcast against each other, as one number each: uint64, uniform over its 64 bits."""
    found = np.zeros((), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for one in keys:
            array = np.asarray(one)
            number = array.astype(np.uint64) if array.dtype != object else np.uint64(int(one) & (2**64 - 1))
            found = _finished(found + number + _GAMMA)
    return found


def uniform(*keys: int | np.ndarray) -> np.ndarray:
    """Numbers in [0, 1), float64, one for each element of the keys broadcast."""
    return (mixed(*keys) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def below(bound: int | np.ndarray, *keys: int | np.ndarray) -> np.ndarray:
    """Whole numbers in [0, bound), int64; the bound may be an array. Bounds are below 2^31, so the bias is nothing."""
    return (uniform(*keys) * bound).astype(np.int64)


def permuted(positions: np.ndarray, size: int, *keys: int) -> np.ndarray:
    """Where a keyed permutation of `size` things puts some positions, int64, without holding the permutation.

    A Feistel network over the next even number of bits; what falls outside is sent through again.
    """
    half = np.uint64(max(1, (max(size - 1, 1).bit_length() + 1) // 2))
    low = (np.uint64(1) << half) - np.uint64(1)
    found = np.asarray(positions, dtype=np.uint64).copy()
    outside = np.ones(found.shape, dtype=bool)
    while outside.any():
        left, right = found[outside] >> half, found[outside] & low
        for turn in range(_FEISTEL):
            left, right = right, left ^ (mixed(*keys, turn, right) & low)
        found[outside] = (left << half) | right
        outside = found >= size
    return found.astype(np.int64)


def _finished(number: np.ndarray) -> np.ndarray:
    for shift, factor in _ROUNDS:
        number = (number ^ (number >> np.uint64(shift))) * np.uint64(factor)
    return number ^ (number >> np.uint64(31))
