"""Cycles of length 3, and of length 4 with a chord, in a knowledge graph (KMLM, section 2.2 of the paper).

Two entities that a triple joins, in whichever direction, are a *pair*: an edge of a simple undirected graph. A
*diamond* is a pair, the chord, and two entities joined to both its ends, the apexes. Diamonds cannot all be written
down, their number is the sum of C(t, 2) over pairs on t triangles; of a chord with more than `cycles.per_chord` of them
that many are drawn.

triangles.npy     int32 [T, 6]: entities a < b < c, and the rows of the graph's triples for (a, b), (b, c), (a, c)
diamonds.npy      int32 [D, 9]: chord i < k, apexes p < q, and the triples for p-i, i-q, q-k, p-k, i-k
pairs.npy         int32 [P, 2]: the pairs on triangles that have several triples, and in pair_ends.npy int64 [P] where
                  each one's triples end in pair_triples.npy int32, those of a pair by relation, then direction
cycles.json       counts

Both tables are in ascending order of their entities. What is drawn is a function of the seed and of the numbers that
Wikidata gave what it is drawn for: the same in any order of the triples, beside whichever others, on any number of
processes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from kbench.config.knowledge import CycleKey, Knowledge, Multi
from kbench.engine.counter import below, mixed
from kbench.engine.seeding import derive
from kbench.errors import DataError, Problem
from kbench.knowledge.graph import Graph
from kbench.knowledge.shapes import Chords, triangles_of
from kbench.stages.stage import Stage

# (start, stop) -> the entities [n, k] and the pairs [n, e] of cycles start to stop
Block = Callable[[int, int], tuple[np.ndarray, np.ndarray]]

NODES = {6: 3, 9: 4}  # columns of a table -> how many of them are entities
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Pairs:
    """Pairs of entities, and the triples of each.

    Attributes:
        nodes: int32 [P, 2], the lower entity first; ascending.
        ends: where each pair's triples end in `triples`, int64 [P].
        triples: rows of the graph's triples, int32; those of a pair by relation, then direction, whatever the order of
            the file.
    """

    nodes: np.ndarray
    ends: np.ndarray
    triples: np.ndarray

    @classmethod
    def of(cls, graph: Graph) -> Pairs:
        """All pairs of a graph."""
        head, relation, tail = (np.ascontiguousarray(column) for column in np.asarray(graph.triples).T)
        low, high = np.minimum(head, tail), np.maximum(head, tail)
        frame = pl.DataFrame({"low": low, "high": high, "relation": relation, "back": head > tail})
        kinds, entities = 2 * len(graph.relations), len(graph.entities)
        if entities**2 * kinds < 2**63:
            kind = relation * np.int64(2) + (head > tail)
            frame = pl.DataFrame({"key": (low.astype(np.int64) * entities + high) * kinds + kind})
            del kind
        del head, relation, tail
        order = frame.with_row_index("row").sort(frame.columns)["row"].to_numpy().astype(np.int32)
        del frame
        low, high = low[order], high[order]
        last = np.append((low[1:] != low[:-1]) | (high[1:] != high[:-1]), True)
        ends = np.flatnonzero(last) + 1
        return cls(np.stack([low[last], high[last]], axis=1), ends, order)

    @cached_property
    def counts(self) -> np.ndarray:
        """Triples of each pair [P]."""
        return np.diff(self.ends, prepend=0)

    def only(self, rows: np.ndarray) -> Pairs:
        """Some of the pairs, ascending."""
        counts = self.counts[rows]
        places = np.repeat(self.ends[rows] - np.cumsum(counts), counts) + np.arange(int(counts.sum()))
        return Pairs(self.nodes[rows], np.cumsum(counts), self.triples[places])

    def chosen(self, rows: np.ndarray, keys: np.ndarray, numbers: np.ndarray, multi: Multi, seed: int) -> np.ndarray:
        """One triple of each of some pairs, int32 [N].

        Args:
            rows: the pairs [N].
            keys: the cycles that they are chosen for [N]; a uniform draw is a function of (seed, key, pair).
            numbers: what the draw knows each entity by [entities].
            multi: `first` and `last` go by the order of the graph's triples; not `all`.
        """
        counts, starts = self.counts[rows], self.ends[rows] - self.counts[rows]
        found = self.triples[starts]
        several = np.flatnonzero(counts > 1)
        counts, starts, rows = counts[several], starts[several], rows[several]
        if multi is Multi.uniform:
            drawn = below(counts, seed, np.asarray(keys)[several], *numbers[self.nodes[rows]].T)
            found[several] = self.triples[starts + drawn]
        elif len(several):
            first = np.cumsum(counts) - counts
            theirs = self.triples[np.repeat(starts - first, counts) + np.arange(int(counts.sum()))]
            found[several] = (np.minimum if multi is Multi.first else np.maximum).reduceat(theirs, first)
        return found

    def combined(self, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Every combination of triples of some cycles: cycle [M], and a triple for each of its pairs [M, e].

        Args:
            edges: the pairs of each cycle [N, e].
        """
        counts = self.counts[edges]
        sizes = counts.prod(axis=1)
        cycle = np.repeat(np.arange(len(edges)), sizes)
        rest = np.arange(len(cycle)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        found = np.empty((len(cycle), edges.shape[1]), dtype=np.int32)
        for place in reversed(range(edges.shape[1])):
            rest, digit = np.divmod(rest, counts[cycle, place])
            row = edges[cycle, place]
            found[:, place] = self.triples[self.ends[row] - self.counts[row] + digit]
        return cycle, found


def cycle_key(nodes: np.ndarray) -> np.ndarray:
    """One number for a set of entities, given by places or by numbers. `nodes` [N, k] in any order -> int64 [N]."""
    ordered = np.sort(np.asarray(nodes), axis=1)
    return mixed(*ordered.T).view(np.int64)


def signatures(graph: Graph, cycles: np.ndarray, chord: bool = False) -> np.ndarray:
    """One number for the relations of each cycle, whatever their order. `cycles` [N, 6 or 9] -> int64 [N].

    With `chord`, diamonds are told apart by the relations of the cycle and that of the chord; otherwise by all five
    alike. The paper counts "relation combinations" without saying which.
    """
    relations = np.asarray(graph.triples[:, 1])[cycles[:, NODES[cycles.shape[1]] :]]
    apart = relations[:, 4:] if chord else relations[:, :0]
    ordered = np.sort(relations[:, : relations.shape[1] - apart.shape[1]], axis=1)
    return mixed(*ordered.T, *apart.T).view(np.int64)


def balanced(signature: np.ndarray, keys: np.ndarray, budget: int | None, power: float, seed: int) -> np.ndarray:
    """Rows of the cycles to keep, ascending, so that no signature crowds out the others.

    With power 0 each signature keeps min(n, cap) of its n cycles, with the largest cap that meets the budget; what the
    budget has left is one more for some of them. With power p the share of a signature is n^p, so that power 1 thins
    all alike. The cycles of a signature are taken in the order of hash(seed, key): rows may come in any order, and
    those of a smaller budget are among those of a larger one.

    Args:
        signature: [N].
        keys: [N] int64, different for different cycles of one signature.
        budget: how many to keep; None, or N and more: all.
    """
    size = len(signature)
    if budget is None or budget >= size:
        return np.arange(size)
    drawn = mixed(derive(seed, "balanced"), keys)
    order = np.lexsort((drawn, signature))
    _, first, counts = np.unique(signature[order], return_index=True, return_counts=True)
    rank = np.arange(size) - np.repeat(first, counts)
    # each signature spreads its cycles over the same scale; the budget cuts it somewhere (Webster's apportionment)
    place = (rank + 0.5) / np.repeat(counts.astype(np.float64) ** power, counts)
    taken = np.lexsort((drawn[order], place))[:budget]
    return np.sort(order[taken])


def cycles_stage(graph: Stage, knowledge: Knowledge) -> Stage:
    """The stage that finds the cycles of a graph.

    Raises, when it is built:
        DataError: the graph has no cycle.
    """
    options = knowledge.cycles
    science = {
        "seed": knowledge.seed, "multi": options.multi.value, "unique_by": options.unique_by.value,
        "per_chord": options.per_chord,
    }  # fmt: skip

    def build(work: Path, parents: Mapping[str, Path]) -> None:
        try:
            found = _write(Graph(parents["graph"]), knowledge, work)
        except DataError:
            shutil.rmtree(work)  # another graph has another key: nobody would continue this
            raise
        (work / "cycles.json").write_text(json.dumps(found, indent=1), encoding="utf-8")

    return Stage("cycles", 2, science, build, {"graph": graph}, alone=True)


def _write(graph: Graph, knowledge: Knowledge, work: Path) -> dict[str, int]:
    """Write the tables; gives the counts."""
    options, seed = knowledge.cycles, derive(knowledge.seed, "cycles")
    pairs, numbers = Pairs.of(graph), np.asarray(graph.entities)
    counts = {"pairs": len(pairs.nodes), "pairs_of_several": int((pairs.counts > 1).sum())}
    triangles = triangles_of(pairs.nodes, len(graph.entities))
    if not len(triangles):
        what = f"no three entities are joined in a cycle by its {len(graph.triples):,} triples"
        raise DataError(Problem(f"knowledge={knowledge.name}", what, "take a denser graph, or more of its triples"))
    several = np.zeros(len(pairs.nodes), dtype=bool)
    several[triangles.ravel()] = True
    several &= pairs.counts > 1
    _write_pairs(pairs.only(np.flatnonzero(several)), work)

    def three(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        ab, ac, bc = triangles[start:stop].T
        return np.stack([*pairs.nodes[ab].T, pairs.nodes[bc, 1]], axis=1), np.stack([ab, bc, ac], axis=1)

    table = _Table(work / "triangles.npy", graph, pairs, options.multi, seed)
    table.write(three, len(triangles))
    counts |= {"triangles": len(triangles), "triangle_rows": table.rows, "signatures3": table.different()}

    chords = Chords.of(pairs.nodes, triangles)
    drawn = chords.drawn(mixed(seed, *numbers[pairs.nodes[chords.chord]].T), options.per_chord)
    counts |= {"diamonds": int(chords.diamonds.sum()), "diamonds_drawn": len(drawn)}

    def four(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        place, low, high = chords.split(drawn[start:stop])
        chord, (ip, kp), (iq, kq) = chords.chord[place], chords.sides[low].T, chords.sides[high].T
        nodes = np.stack([*pairs.nodes[chord].T, chords.apex[low], chords.apex[high]], axis=1)
        return nodes, np.stack([ip, iq, kq, kp, chord], axis=1)

    first, counts["node_sets"] = _first_of_sets(four, len(drawn), numbers, seed)
    if options.unique_by is CycleKey.node_set:
        drawn = drawn[first]
    table = _Table(work / "diamonds.npy", graph, pairs, options.multi, seed)
    table.write(four, len(drawn))
    counts["diamond_rows"] = table.rows
    return counts | {"signatures4": table.different(), "signatures4_chord": table.different(chord=True)}


def _write_pairs(pairs: Pairs, work: Path) -> None:
    """For who draws relations again, among those with a name in a language (`cycles.align: per_language`)."""
    for name, array in (("pairs", pairs.nodes), ("pair_ends", pairs.ends), ("pair_triples", pairs.triples)):
        np.save(work / f"{name}.npy", array, allow_pickle=False)


def _first_of_sets(block: Block, size: int, numbers: np.ndarray, seed: int) -> tuple[np.ndarray, int]:
    """Of the diamonds on the same four entities the one with the smallest hash, ascending; how many sets there are."""
    sets, hashes = np.empty(size, dtype=np.int64), np.empty(size, dtype=np.uint64)
    for start in range(0, size, _BLOCK):
        nodes, _ = block(start, min(start + _BLOCK, size))
        sets[start : start + _BLOCK] = cycle_key(nodes)
        hashes[start : start + _BLOCK] = mixed(seed, *numbers[nodes].T)
    frame = pl.DataFrame({"set": sets, "hash": hashes}).with_row_index("row").sort("set", "hash")
    first = np.append(True, np.diff(frame["set"].to_numpy()) != 0) if size else np.zeros(0, dtype=bool)
    return np.sort(frame["row"].to_numpy()[first]), int(first.sum())


class _Table:
    """Writes a table of cycles block by block, and remembers their signatures."""

    def __init__(self, path: Path, graph: Graph, pairs: Pairs, multi: Multi, seed: int):
        self.path, self.graph, self.pairs, self.multi, self.seed = path, graph, pairs, multi, seed
        self.rows = 0
        self.signatures: dict[bool, list[np.ndarray]] = {False: [], True: []}

    def write(self, block: Block, size: int) -> None:
        """`block(start, stop)` gives the entities [n, k] and pairs [n, e] of some of the `size` cycles."""
        nodes, edges = block(0, min(size, 1))
        blocks = [(start, min(start + _BLOCK, size)) for start in range(0, size, _BLOCK)]
        rows = size
        if self.multi is Multi.all:
            rows = sum(int(self.pairs.counts[block(*bounds)[1]].prod(axis=1).sum()) for bounds in blocks)
        shape = (rows, nodes.shape[1] + edges.shape[1])
        if not rows:  # nothing can be mapped into memory
            np.save(self.path, np.zeros(shape, dtype=np.int32), allow_pickle=False)
            return
        table = np.lib.format.open_memmap(self.path, mode="w+", dtype=np.int32, shape=shape)
        for bounds in blocks:
            made = self._rows(*block(*bounds))
            table[self.rows : self.rows + len(made)] = made
            self.rows += len(made)
            for chord in (False, True) if shape[1] == 9 else (False,):
                self.signatures[chord].append(signatures(self.graph, made, chord))
        table.flush()

    def _rows(self, nodes: np.ndarray, edges: np.ndarray) -> np.ndarray:
        if self.multi is Multi.all:
            cycle, triples = self.pairs.combined(edges)
            return np.concatenate([nodes[cycle], triples], axis=1)
        numbers = np.asarray(self.graph.entities)
        keys = cycle_key(numbers[nodes])
        columns = [self.pairs.chosen(column, keys, numbers, self.multi, self.seed) for column in edges.T]
        return np.concatenate([nodes, np.stack(columns, axis=1)], axis=1)

    def different(self, chord: bool = False) -> int:
        """How many signatures there are."""
        found = self.signatures[chord]
        return pl.Series(np.concatenate(found)).n_unique() if found else 0
