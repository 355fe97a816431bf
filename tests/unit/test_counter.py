"""Counter-based random numbers: uniform, independent of order, and permutations that permute."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chisquare

from kbench.engine.counter import below, mixed, permuted, uniform


def naive(*keys: int) -> int:
    """SplitMix64 in whole numbers of Python."""
    low, found = 2**64 - 1, 0
    for one in keys:
        found = (found + one + 0x9E3779B97F4A7C15) & low
        found = ((found ^ (found >> 30)) * 0xBF58476D1CE4E5B9) & low
        found = ((found ^ (found >> 27)) * 0x94D049BB133111EB) & low
        found ^= found >> 31
    return found


@pytest.mark.parametrize("keys", [(0,), (1,), (2**63 + 5, 7), (3, 1, 2**64 - 1)])
def test_the_numbers_are_those_of_whole_number_arithmetic(keys):
    assert int(mixed(*[np.uint64(key) for key in keys])) == naive(*keys)
    assert int(mixed(*keys)) == naive(*keys)


def test_the_first_number_is_that_of_the_published_generator():
    assert naive(0) == 0xE220A8397B1DCDAF  # SplitMix64's first output from seed 0


def test_an_array_gives_what_each_element_gives():
    keys = np.arange(50, dtype=np.int32)
    assert mixed(4, keys, 9).tolist() == [naive(4, int(key), 9) for key in keys]
    assert mixed(4, keys[::-1], 9).tolist() == mixed(4, keys, 9)[::-1].tolist()


def test_numbers_are_uniform_and_below_their_bounds():
    counts = np.bincount((uniform(1, np.arange(100_000)) * 20).astype(int), minlength=20)
    assert chisquare(counts).pvalue > 1e-3
    counts = np.bincount(below(7, 2, np.arange(70_000)), minlength=7)
    assert len(counts) == 7 and chisquare(counts).pvalue > 1e-3
    bounds = np.array([1, 2, 1000])
    assert (below(bounds, 3, np.arange(3)) < bounds).all()


@pytest.mark.parametrize("size", [1, 2, 3, 5, 64, 65, 1000])
def test_a_permutation_has_everything_once(size):
    found = permuted(np.arange(size), size, 1, 2)
    assert sorted(found.tolist()) == list(range(size))
    assert permuted(np.array([size - 1]), size, 1, 2)[0] == found[-1]


def test_permutations_of_other_keys_are_others_and_look_random():
    first, second = permuted(np.arange(1000), 1000, 1), permuted(np.arange(1000), 1000, 2)
    assert (first == second).mean() < 0.01
    assert abs(np.corrcoef(np.arange(1000), first)[0, 1]) < 0.1
