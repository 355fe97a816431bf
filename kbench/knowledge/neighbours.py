"""What stands around each entity of a graph: its triples, how many there are, and which other answers are true.

The triples are held twice as order only, int32: once by (head, relation), once by (tail, relation), rows that are equal
in both in the order of the file. An entity's incident triples are its rows in the two. At 20 M triples this is built in
seconds and takes 0.25 GB beside the triples, so it is no stage.

All of the graph counts for `degree`, `reach` and `others`; only triples that are `allowed` are ever drawn.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from kbench.engine.counter import below, mixed

_TRIPLE, _PARTNER = 1, 2  # what a draw is for
_EXACT = 1 << 29  # paths of two steps that are followed in all; of graphs with more, `reach` is estimated
_BLOCK = 1 << 22  # paths that are followed at a time
_REGISTERS = 128
_LARGEST = 2**63 - 1
_SKETCHES = 1 << 18  # sketches that are joined at a time


class Neighbours:
    """The triples around each entity.

    Args:
        triples: int32 [t, 3]: head, relation, tail; none twice, no self-loops. Kept, not copied.
        entities: number of entities, n.
        allowed: whether a triple may be drawn [t]; None: all may.
    """

    def __init__(self, triples: np.ndarray, entities: int, allowed: np.ndarray | None = None):
        self.triples, self.entities = triples, entities
        self._relations = int(triples[:, 1].max()) + 1 if len(triples) else 1
        # by side, 0: as head, 1: as tail
        self._orders = [self._sorted(side) for side in (0, 2)]
        self._ends = [np.cumsum(self._counted(triples[:, side])) for side in (0, 2)]
        self.degree = np.diff(self._ends[0], prepend=0) + np.diff(self._ends[1], prepend=0)
        self._drawn, self._drawn_ends = self._orders, self._ends
        if allowed is not None and not allowed.all():
            self._drawn = [order[allowed[order]] for order in self._orders]
            self._drawn_ends = [np.cumsum(self._counted(triples[allowed, side])) for side in (0, 2)]
        self._allowed = allowed

    def draw(self, entities: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A triple of each entity, uniform over its allowed ones.

        Args:
            entities: [M]; -1 for one that is unknown.
            keys: whole numbers [M]: a draw is a function of its key.

        Returns:
            the triples, int64 [M], -1 where there is none; and whether the entity is its head, bool [M].
        """
        entities = np.asarray(entities, dtype=np.int64)
        starts, counts = self._places(entities)
        drawn = below(counts.sum(axis=0), _TRIPLE, keys)
        is_head = drawn < counts[0]
        found = np.full(len(entities), -1, dtype=np.int64)
        for side, chosen in enumerate((is_head, ~is_head & (counts[1] > 0))):
            within = drawn[chosen] - (counts[0][chosen] if side else 0)
            found[chosen] = self._drawn[side][starts[side][chosen] + within]
        return found, is_head & (found >= 0)

    def first(self, entities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The first allowed triple of each entity in the order of the file; returns what `draw` does."""
        entities = np.asarray(entities, dtype=np.int64)
        known = entities >= 0
        firsts = self._first[:, np.where(known, entities, 0)]
        found = firsts.min(axis=0)
        absent = ~known | (found == len(self.triples))
        return np.where(absent, -1, found), (firsts[0] <= firsts[1]) & ~absent

    def partner(self, entities: np.ndarray, groups: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A triple of each entity with another of its group, uniform over these; where there is none, as `draw`.

        Args:
            entities: [M]; -1 for one that is unknown.
            groups: whole numbers [M], such as the sequence that a mention stands in.
            keys: whole numbers [M].

        Returns:
            what `draw` does.
        """
        entities, groups = np.asarray(entities, dtype=np.int64), np.asarray(groups)
        found, is_head = self.draw(entities, keys)
        one, other = _mates(entities, groups)
        low, high = np.minimum(entities[one], entities[other]), np.maximum(entities[one], entities[other])
        pairs = low * self.entities + high
        keyed, order = self._pairs
        starts = np.searchsorted(keyed, pairs, side="left")
        counts = np.searchsorted(keyed, pairs, side="right") - starts
        sums = np.bincount(one, counts, minlength=len(entities)).astype(np.int64)
        # pairs stand by mention: what is drawn is a place among all triples that join it to its group
        drawn = below(sums, _PARTNER, keys) + np.cumsum(sums) - sums
        pair = np.searchsorted(np.cumsum(counts), drawn, side="right")
        rows = np.flatnonzero(sums)
        chosen = pair[rows]
        within = drawn[rows] - (np.cumsum(counts) - counts)[chosen]
        found[rows] = order[starts[chosen] + within]
        is_head[rows] = np.asarray(self.triples[found[rows], 0]) == entities[rows]
        return found, is_head

    def others(self, triples: np.ndarray, is_head: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
        """The other true answers to the question that a triple answers, its own left out.

        Args:
            triples: rows of the triples [M]; -1 for none, which has no answers.
            is_head: whether the head is given, so that tails are asked for: (h, r, ?); else (?, r, t) [M].
            most: answers of one question at most, the first ones of the file.

        Returns:
            the answers one after another, int32, and where those of each question end, int64 [M].
        """
        triples, is_head = np.asarray(triples, dtype=np.int64), np.asarray(is_head, dtype=bool)
        starts, counts = np.zeros((2, len(triples)), dtype=np.int64)
        own = np.zeros(len(triples), dtype=np.int64)
        for side, chosen in enumerate((is_head & (triples >= 0), ~is_head & (triples >= 0))):
            rows = triples[chosen]
            given, relation = (np.asarray(self.triples[rows, column], dtype=np.int64) for column in (2 * side, 1))
            end = self._ends[side][given]
            begin = np.where(given > 0, self._ends[side][given - 1], 0)
            low = self._bisect(side, begin, end, relation, self._relation_of)
            high = self._bisect(side, low, end, relation + 1, self._relation_of)
            starts[chosen], counts[chosen] = low, high - low
            own[chosen] = self._bisect(side, low, high, rows, lambda order: order) - low
        taken = np.minimum(np.maximum(counts - 1, 0), most)
        ends = np.cumsum(taken)
        within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - taken, taken)
        within += within >= np.repeat(own, taken)  # past the triple's own
        places, tails = np.repeat(starts, taken) + within, np.repeat(is_head, taken)
        found = np.empty(len(places), dtype=np.int32)
        for side, chosen in enumerate((tails, ~tails)):
            found[chosen] = self.triples[self._orders[side][places[chosen]], 2 - 2 * side]
        return found, ends

    def reach(self, hops: int) -> np.ndarray:
        """How many other entities are within so many steps of each, 1 or 2, int64 [n].

        Two steps are counted exactly where there are at most 2^29 paths of two steps. In larger graphs each set is
        estimated from a sketch of 128 registers (HyperLogLog, Flajolet et al. 2007): its standard error is 9 %.
        """
        if hops not in (1, 2):
            raise ValueError(f"hops must be 1 or 2, is {hops}")
        near = self._adjacent
        counts = np.diff(near[1], prepend=0)
        if hops == 1:
            return counts
        steps = _sums(counts[near[0]], near[1])
        exact = int(steps.sum()) <= _EXACT
        return self._counted_paths(*near, steps) if exact else self._estimated(*near)

    @cached_property
    def _first(self) -> np.ndarray:
        """Row of the first allowed triple as head and as tail, int64 [2, n]; t where there is none."""
        found = np.full((2, self.entities), len(self.triples), dtype=np.int64)
        for side in (0, 1):
            ends = self._drawn_ends[side]
            starts = ends - np.diff(ends, prepend=0)
            has = starts < ends
            if has.any():
                found[side, has] = np.minimum.reduceat(self._drawn[side], starts[has])
        return found

    @cached_property
    def _pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower entity * n + higher of every allowed triple, ascending, int64; and its row, int32."""
        rows = np.arange(len(self.triples)) if self._allowed is None else np.flatnonzero(self._allowed)
        keyed = self._joined(self.triples if self._allowed is None else self.triples[rows])
        order = np.argsort(keyed, kind="stable")
        return keyed[order], rows[order].astype(np.int32)

    @cached_property
    def _adjacent(self) -> tuple[np.ndarray, np.ndarray]:
        """The distinct neighbours of all entities one after another, int32, and where those of each end, int64 [n]."""
        keyed = self._joined(self.triples)
        keyed.sort()
        distinct = keyed[np.append(True, keyed[1:] != keyed[:-1])] if len(keyed) else keyed
        low, high = np.divmod(distinct, self.entities)
        both = np.concatenate([distinct, high * self.entities + low])
        both.sort()
        counts = self._counted(low) + self._counted(high)
        return (both % self.entities).astype(np.int32), np.cumsum(counts)

    def _joined(self, triples: np.ndarray) -> np.ndarray:
        head, tail = triples[:, 0].astype(np.int64), triples[:, 2].astype(np.int64)
        return np.minimum(head, tail) * self.entities + np.maximum(head, tail)

    def _counted(self, column: np.ndarray) -> np.ndarray:
        return np.bincount(column, minlength=self.entities)

    def _sorted(self, column: int) -> np.ndarray:
        """Rows of the triples by (entity of the column, relation), then as in the file, int32 [t]."""
        size = len(self.triples)
        keyed = self.triples[:, column].astype(np.int64) * self._relations + self.triples[:, 1]
        if self.entities * self._relations * size > _LARGEST:
            return np.argsort(keyed, kind="stable").astype(np.int32)
        keyed *= size
        keyed += np.arange(size)
        keyed.sort()  # with the row inside, sorting values is twice as fast as sorting places
        return (keyed % size).astype(np.int32) if size else np.zeros(0, dtype=np.int32)

    def _places(self, entities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the allowed triples of each entity begin, and how many there are, as head and as tail: int64 [2, M]."""
        ends = np.stack([ends[entities] for ends in self._drawn_ends])
        starts = np.stack([np.where(entities > 0, ends[entities - 1], 0) for ends in self._drawn_ends])
        return starts, np.where(entities >= 0, ends - starts, 0)

    def _relation_of(self, rows: np.ndarray) -> np.ndarray:
        found: np.ndarray = self.triples[rows, 1]
        return found

    def _bisect(self, side: int, low: np.ndarray, high: np.ndarray, wanted: np.ndarray, value: object) -> np.ndarray:
        """First place of each range of an order whose value is not below what is wanted; else where the range ends."""
        low, high = low.copy(), high.copy()
        while (low < high).any():
            middle = (low + high) // 2
            open_ = low < high
            smaller = np.zeros(len(low), dtype=bool)
            smaller[open_] = value(self._orders[side][middle[open_]]) < wanted[open_]  # type: ignore[operator]
            low = np.where(smaller, middle + 1, low)
            high = np.where(open_ & ~smaller, middle, high)
        return low

    def _counted_paths(self, near: np.ndarray, ends: np.ndarray, steps: np.ndarray) -> np.ndarray:
        found = np.zeros(self.entities, dtype=np.int64)
        for start, stop in _blocks(steps, _BLOCK):
            first, last = ends[start - 1] if start else 0, ends[stop - 1]
            of = np.repeat(np.arange(stop - start), np.diff(ends[start:stop], prepend=first))
            middle = near[first:last]
            counts = ends[middle] - np.where(middle > 0, ends[middle - 1], 0)
            places = np.repeat(ends[middle] - np.cumsum(counts), counts) + np.arange(int(counts.sum()))
            reached = np.concatenate(
                [np.repeat(of, counts) * self.entities + near[places], of * self.entities + middle]
            )
            reached.sort()
            row, entity = np.divmod(
                reached[np.append(True, reached[1:] != reached[:-1])[: len(reached)]], self.entities
            )
            found[start:stop] = np.bincount(row[entity != row + start], minlength=stop - start)
        return found

    def _estimated(self, near: np.ndarray, ends: np.ndarray) -> np.ndarray:
        hashes = mixed(np.arange(self.entities))
        register = (hashes % np.uint64(_REGISTERS)).astype(np.int64)
        # place of the highest bit set in what is left of the hash, from its top
        rest = (hashes >> np.uint64(7)).astype(np.float64)
        ranks = (57 - np.floor(np.log2(np.maximum(rest, 1)))).astype(np.uint8)
        counts = np.diff(ends, prepend=0)
        sketches = np.zeros((self.entities, _REGISTERS), dtype=np.uint8)
        of = np.repeat(np.arange(self.entities, dtype=np.int32), counts)
        for rank in range(1, int(ranks.max()) + 1):  # ascending, so that the highest of a register is what stays
            chosen = np.flatnonzero(ranks[near] == rank)
            sketches[of[chosen], register[near[chosen]]] = rank
        del of
        found = np.zeros(self.entities, dtype=np.int64)
        for start, stop in _blocks(counts, _SKETCHES):
            joined = sketches[start:stop].copy()
            first, last = int(ends[start - 1] if start else 0), int(ends[stop - 1])
            has = np.flatnonzero(counts[start:stop])
            for begin in range(first, last, _SKETCHES):  # several turns only where one entity has so many neighbours
                part = sketches[near[begin : min(begin + _SKETCHES, last)]]
                if stop - start == 1:
                    np.maximum(joined[0], part.max(axis=0), out=joined[0])
                else:
                    starts = (ends[start:stop] - counts[start:stop])[has] - first
                    joined[has] = np.maximum(joined[has], np.maximum.reduceat(part, starts, axis=0))
            found[start:stop] = np.rint(_size(joined)) - 1  # among those two steps away is the entity itself
        return np.maximum(found, counts)


def _mates(entities: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every ordered pair of mentions of one group with different, known entities; by the first, then the second.

    An entity that a group mentions several times counts once, with its first mention.
    """
    known = np.flatnonzero(entities >= 0)
    order = known[np.lexsort((known, groups[known]))]
    _, firsts = np.unique(np.stack([groups[order], entities[order]], axis=1), axis=0, return_index=True)
    members = order[np.sort(firsts)]
    names = np.unique(groups[known])
    sizes = np.bincount(np.searchsorted(names, groups[members]), minlength=len(names))
    starts = np.cumsum(sizes) - sizes
    group = np.searchsorted(names, groups[known])
    counts = sizes[group]
    one = np.repeat(known, counts)
    places = (
        np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(starts[group], counts)
    )
    other = members[places]
    apart = entities[one] != entities[other]
    return one[apart], other[apart]


def _blocks(sizes: np.ndarray, most: int) -> list[tuple[int, int]]:
    """Ranges of neighbouring rows whose sizes add up to at most so much, or of one row."""
    ends, found, start = np.cumsum(sizes), [], 0
    while start < len(sizes):
        base = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, base + most, side="right")))
        found.append((start, stop))
        start = stop
    return found


def _sums(values: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Sums of neighbouring values, those of each range."""
    total = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(values, dtype=np.int64)])
    return np.diff(total[ends], prepend=0)


def _size(sketches: np.ndarray) -> np.ndarray:
    """Estimates of HyperLogLog, with linear counting of small sets."""
    registers = sketches.shape[1]
    raw = 0.7213 / (1 + 1.079 / registers) * registers**2 / np.exp2(-sketches.astype(np.float32)).sum(axis=1)
    empty = (sketches == 0).sum(axis=1)
    linear = registers * np.log(registers / np.maximum(empty, 1))
    return np.where((raw <= 2.5 * registers) & (empty > 0), linear, raw)
