"""The order of training rows, the cut into batches and chunks, hold-outs, and seeds derived by name."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from kbench.engine.sampler import chunks, epoch_batches, hold_out, steps_per_epoch
from kbench.engine.seeding import derive

SHAPES = [(n, batch, pool) for n, batch, pool in itertools.product((1, 5, 16, 17, 250), (1, 4, 16, 300), (0, 1, 3, 50))]


def lengths_of(n: int) -> np.ndarray:
    """Lengths of n rows, many of them equal."""
    return np.random.default_rng(n).integers(3, 40, n)


def as_lists(batches: list[np.ndarray]) -> list[list[int]]:
    return [batch.tolist() for batch in batches]


@pytest.mark.parametrize(("n", "batch", "pool"), SHAPES)
def test_every_row_stands_in_exactly_one_batch(n: int, batch: int, pool: int) -> None:
    for epoch in range(3):
        batches = epoch_batches(lengths_of(n), seed=1, epoch=epoch, batch=batch, pool=pool)
        assert sorted(itertools.chain(*as_lists(batches))) == list(range(n))


@pytest.mark.parametrize(("n", "batch", "pool"), SHAPES)
def test_one_batch_is_short_where_rows_do_not_divide(n: int, batch: int, pool: int) -> None:
    sizes = [len(rows) for rows in epoch_batches(lengths_of(n), seed=1, epoch=0, batch=batch, pool=pool)]
    short = [n % batch] if n % batch else []
    assert sorted(sizes) == short + [batch] * (n // batch)
    assert steps_per_epoch(n, batch) == len(sizes)
    if not pool:
        assert sizes == [batch] * (n // batch) + short


@pytest.mark.parametrize(("rows", "batch", "steps"), [(100, 10, 10), (101, 10, 11), (1, 32, 1), (120000, 32, 3750)])
def test_steps_per_epoch(rows: int, batch: int, steps: int) -> None:
    assert steps_per_epoch(rows, batch) == steps


@pytest.mark.parametrize("pool", [0, 1, 4])
def test_the_order_is_a_function_of_seed_and_epoch(pool: int) -> None:
    def order(seed: int, epoch: int) -> list[list[int]]:
        return as_lists(epoch_batches(lengths_of(200), seed=seed, epoch=epoch, batch=8, pool=pool))

    first = order(1, 0)
    np.random.seed(5)
    before = np.random.get_state()[1].tolist()
    assert order(1, 0) == first
    assert np.random.get_state()[1].tolist() == before
    orders = [order(seed, epoch) for seed in (1, 2, 3) for epoch in (0, 1, 2)]
    assert all(one != other for one, other in itertools.combinations(orders, 2))


def test_rows_are_shuffled_without_sorting() -> None:
    order = np.concatenate(epoch_batches(np.full(100, 7), seed=1, epoch=0, batch=10, pool=0))
    assert order.tolist() != list(range(100))
    same = np.concatenate(epoch_batches(np.arange(100), seed=1, epoch=0, batch=10, pool=0))
    assert same.tolist() == order.tolist()


@pytest.mark.parametrize(("n", "batch", "pool"), [(64, 4, 2), (67, 4, 3), (250, 16, 5), (10, 4, 50)])
def test_rows_are_sorted_within_pools_of_the_shuffled_order(n: int, batch: int, pool: int) -> None:
    lengths = lengths_of(n)
    shuffled = np.concatenate(epoch_batches(lengths, seed=3, epoch=2, batch=batch, pool=0)).tolist()
    expected = []
    for start in range(0, n, batch * pool):
        rows = sorted(shuffled[start : start + batch * pool], key=lambda row: lengths[row])
        expected += [rows[cut : cut + batch] for cut in range(0, len(rows), batch)]
    found = as_lists(epoch_batches(lengths, seed=3, epoch=2, batch=batch, pool=pool))
    assert sorted(found) == sorted(expected)


def test_sorted_batches_hold_rows_of_like_length_and_are_shuffled() -> None:
    lengths = np.random.default_rng(0).permutation(256)
    orders = []
    for epoch in range(2):
        batches = epoch_batches(lengths, seed=1, epoch=epoch, batch=8, pool=32)
        assert all(np.ptp(lengths[rows]) == 7 for rows in batches)
        orders.append([int(lengths[rows].min()) for rows in batches])
        assert sorted(orders[-1]) == list(range(0, 256, 8))
        assert orders[-1] != sorted(orders[-1])
    assert orders[0] != orders[1]


# Chunks.


def test_chunks_of_a_worked_example() -> None:
    rows = np.arange(10)
    assert as_lists(chunks(rows, 3, 1)) == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]
    assert as_lists(chunks(rows, 3, 2)) == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]
    assert as_lists(chunks(rows, 3, 3)) == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9], [], []]
    assert as_lists(chunks(rows[:2], 4, 4)) == [[0, 1], [], [], []]


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
@pytest.mark.parametrize(("rows", "micro"), [(1, 1), (8, 2), (7, 2), (32, 32), (33, 16), (5, 64)])
def test_processes_share_a_batch_evenly_and_completely(rows: int, micro: int, processes: int) -> None:
    batch = np.random.default_rng(rows).permutation(1000)[:rows]
    found = chunks(batch, micro, processes)
    assert np.concatenate(found).tolist() == batch.tolist()
    assert {len(found[process::processes]) for process in range(processes)} == {len(found) // processes}
    filled = -(-rows // micro)
    assert [len(chunk) > 0 for chunk in found] == [True] * filled + [False] * (len(found) - filled)
    assert len(found) - filled < processes
    assert all(len(chunk) == micro for chunk in found[: filled - 1])
    assert all(chunk.dtype == batch.dtype for chunk in found)


# Hold-out.


@pytest.mark.parametrize(
    ("rows", "share", "held"),
    [
        (100, 0.05, 5),
        (120000, 0.05, 6000),
        (10060, 0.05, 503),
        (1600, 0.1, 160),
        (10, 0.01, 1),  # at least one row is held out
        (2, 0.9, 1),  # and at least one is left
        (3, 0.999, 2),
        (7, 0.5, 4),  # 3.5 is rounded to the even number
    ],
)
def test_hold_out_cuts_rows_in_two(rows: int, share: float, held: int) -> None:
    learn, out = hold_out(rows, share, seed=1)
    assert (len(learn), len(out)) == (rows - held, held)
    assert np.intersect1d(learn, out).size == 0
    assert sorted([*learn.tolist(), *out.tolist()]) == list(range(rows))
    assert (np.diff(learn) > 0).all()
    assert (np.diff(out) > 0).all()


def test_hold_out_is_a_function_of_the_seed() -> None:
    held = [hold_out(1000, 0.05, seed)[1].tolist() for seed in range(5)]
    assert held == [hold_out(1000, 0.05, seed)[1].tolist() for seed in range(5)]
    assert all(one != other for one, other in itertools.combinations(held, 2))
    assert held[0] != list(range(50))


def test_hold_out_and_order_are_drawn_apart() -> None:
    order = np.concatenate(epoch_batches(lengths_of(1000), seed=1, epoch=0, batch=10, pool=0))
    assert hold_out(1000, 0.05, 1)[1].tolist() != np.sort(order[:50]).tolist()


# Seeds.


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        # the first eight bytes of SHA-256 of `1`, `1 US order US 0` and `7 US hold out`, shifted right by one bit
        ((1,), 3874038210105081456),
        ((1, "order", 0), 2585612444217454947),
        ((7, "hold out"), 999873553298042604),
    ],
)
def test_derived_seeds_are_the_same_on_every_machine(arguments: tuple, expected: int) -> None:
    assert derive(*arguments) == expected


def test_derived_seeds_differ_by_seed_and_by_every_name() -> None:
    arguments = [
        (seed, *names)
        for seed in (0, 1, 2, 12)
        for names in ((), ("order",), ("order", 0), ("order", 1), (0, "order"), ("ab", "c"), ("a", "bc"), ("2",))
    ]
    seeds = {derive(*one) for one in arguments}
    assert len(seeds) == len(arguments)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**60
