"""Triangles of a large simple graph, and diamonds: two triangles on one edge. No relations here, only pairs of nodes.

Edges are given as rows of `pairs` [P, 2], node a < node b, in ascending order; a result names edges by their row there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from kbench.engine.counter import mixed

_BLOCK = 1 << 22  # wedges, or pairs of apexes, worked on at a time: decides memory, not the result
_ROUNDS = 4
_SPREAD = np.uint64(0x9E3779B97F4A7C15)


def triangles_of(pairs: np.ndarray, size: int) -> np.ndarray:
    """Every triangle of nodes a < b < c once, as rows of its edges (a, b), (a, c), (b, c): int32 [T, 3], ascending.

    An edge leads from its end of lower degree to the other, so that few lead out of any node, however many neighbours
    it has; two edges out of one node are half of a triangle where an edge joins their ends.

    Args:
        pairs: [P, 2] int32.
        size: number of nodes.
    """
    place = np.empty(size, dtype=np.int64)
    place[np.argsort(np.bincount(pairs.ravel(), minlength=size), kind="stable")] = np.arange(size)
    ends = place[pairs]
    edges = pl.DataFrame({"key": ends.min(axis=1) * size + ends.max(axis=1)}).with_row_index("row").sort("key")
    del place, ends
    key, row = edges["key"].to_numpy(), edges["row"].to_numpy()
    low, high = key // size, key % size
    out = np.bincount(low, minlength=size)
    # later edges out of the same node, where the edge leads to a node that others lead out of
    later = np.where(out[high] > 0, np.cumsum(out)[low] - np.arange(1, len(low) + 1), 0)
    del low, out

    bits = max(10, (8 * len(key)).bit_length())
    seen = np.zeros(1 << bits, dtype=bool)
    seen[_spread(key, bits)] = True
    found = []
    for start, stop in _blocks(later):
        first = np.repeat(np.arange(start, stop), later[start:stop])
        second = first + 1 + _within(later[start:stop])
        wanted = high[first] * size + high[second]
        likely = seen[_spread(wanted, bits)]  # eight in nine of those that no edge joins end here
        found.append(pl.DataFrame({"key": wanted[likely], "first": first[likely], "second": second[likely]}))
    del seen, later, high
    edges = edges.with_row_index("third")
    closed = pl.concat(found).join(edges.select("key", "third"), on="key") if found else edges.clear()
    del found, edges, key
    if closed.is_empty():
        return np.zeros((0, 3), dtype=np.int32)
    table = np.stack([row[closed[name].to_numpy()] for name in ("first", "second", "third")], axis=1)
    table.sort(axis=1)
    table = table.astype(np.int32)
    return table[pl.Series(table[:, 0] * np.int64(len(pairs)) + table[:, 1]).arg_sort().to_numpy()]


@dataclass(frozen=True)
class Chords:
    """The triangles on each edge: a row an (edge, apex), in the order of edge, then apex.

    Attributes:
        apex: int32 [3 T].
        sides: rows of the edges from the chord's lower and higher end to the apex, int32 [3 T, 2].
        chord: rows of the edges that are on a triangle, int32 [C].
        counts: triangles on each of them, int64 [C].
    """

    apex: np.ndarray
    sides: np.ndarray
    chord: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, pairs: np.ndarray, triangles: np.ndarray) -> Chords:
        """Args: pairs [P, 2], and triangles [T, 3] as `triangles_of` gives them."""
        ab, ac, bc = triangles.T
        a, b, c = pairs[ab, 0], pairs[ab, 1], pairs[bc, 1]
        size = int(pairs.max()) + 1
        parts = [
            pl.DataFrame({"key": chord.astype(np.int64) * size + apex, "low": low, "high": high})
            for chord, apex, low, high in ((ab, c, ac, bc), (ac, b, ab, bc), (bc, a, ab, ac))
        ]
        table = pl.concat(parts).sort("key")
        del parts, a, b, c
        key = table["key"].to_numpy()
        chords, counts = np.unique_counts(key // size)
        return cls(
            (key % size).astype(np.int32), table.select("low", "high").to_numpy(), chords.astype(np.int32), counts
        )

    @cached_property
    def first(self) -> np.ndarray:
        """Row of the first apex of each chord [C]."""
        return np.cumsum(self.counts) - self.counts

    @cached_property
    def diamonds(self) -> np.ndarray:
        """Diamonds on each chord [C], int64."""
        return self.counts * (self.counts - 1) // 2

    def drawn(self, keys: np.ndarray, most: int) -> np.ndarray:
        """All diamonds of a chord that has `most` of them or fewer, else as many different ones, drawn by its key.

        Args:
            keys: uint64 [C].

        Returns:
            x * 3 T + y, int64 [D], ascending: rows x < y of the two apexes (`split` takes them apart).
        """
        found = [np.zeros(0, dtype=np.int64)]
        wanted = np.minimum(self.diamonds, most)
        for start, stop in _blocks(wanted):
            of = np.repeat(np.arange(start, stop), wanted[start:stop])
            number = _within(wanted[start:stop])
            drawn = self.diamonds[of] > most
            number[drawn] = _permuted(number[drawn], self.diamonds[of[drawn]], keys[of[drawn]])
            low, high = _pair(number)
            found.append((self.first[of] + low) * len(self.apex) + self.first[of] + high)
        return pl.Series(np.concatenate(found)).sort().to_numpy()

    def split(self, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Chord [N] (place in `chord`) and the rows [N] of the lower and the higher apex, of what `drawn` gives."""
        low, high = np.divmod(drawn, len(self.apex))
        return np.searchsorted(self.first, low, side="right") - 1, low, high


def _pair(number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The number-th pair x < y of (0, 1), (0, 2), (1, 2), (0, 3), ...: number = y (y - 1) / 2 + x."""
    high = ((1 + np.sqrt(8.0 * number + 1)) / 2).astype(np.int64)
    high -= high * (high - 1) // 2 > number  # the root may be rounded up
    high += high * (high + 1) // 2 <= number
    return number - high * (high - 1) // 2, high


def _permuted(places: np.ndarray, sizes: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Where keyed permutations put places, each of a size and key of its own: `counter.permuted` for many at once."""
    half = np.maximum(1, (np.frexp(np.maximum(sizes - 1, 1).astype(np.float64))[1] + 1) // 2).astype(np.uint64)
    found = places.astype(np.uint64)
    outside = np.arange(len(found))
    while len(outside):
        bits, key = half[outside], keys[outside]
        mask = (np.uint64(1) << bits) - np.uint64(1)
        left, right = found[outside] >> bits, found[outside] & mask
        for turn in range(_ROUNDS):
            left, right = right, left ^ (mixed(key ^ np.uint64(turn), right) & mask)
        found[outside] = (left << bits) | right
        outside = outside[found[outside] >= sizes[outside].astype(np.uint64)]
    return found.astype(np.int64)


def _spread(keys: np.ndarray, bits: int) -> np.ndarray:
    """A place of 2^bits for each key."""
    return (keys.astype(np.uint64) * _SPREAD) >> np.uint64(64 - bits)


def _within(counts: np.ndarray) -> np.ndarray:
    """0, 1, ... for each count, one after the other."""
    return np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)


def _blocks(counts: np.ndarray) -> Iterator[tuple[int, int]]:
    """Ranges of rows with about `_BLOCK` things together; a row of more stands alone."""
    ends = np.cumsum(counts)
    start = 0
    while start < len(counts):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _BLOCK, side="right")))
        yield start, stop
        start = stop
