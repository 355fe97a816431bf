"""Which cycles can be told in a language, and by which triples."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np

from kbench.config.knowledge import Knowledge, Missing, Multi
from kbench.engine.counter import below, mixed
from kbench.engine.seeding import derive
from kbench.knowledge.graph import Graph

_EDGES = {3: 3, 4: 5}


def reasoning_type(length: int) -> np.dtype:
    """A row of reasoning samples: the cycle's row, the language's index, the rows of triples to say, in order."""
    return np.dtype([("cycle", "<i4"), ("language", "i1"), ("triples", "<i4", (_EDGES[length],))])


class Several:
    """The pairs of entities that several triples join, as the stage of cycles stores them.

    Attributes:
        keys: int64 [P], the pairs as low * entities + high, ascending.
        rows: rows of triples, pair by pair, those of a pair by relation, then direction; ends: where pairs end in rows.
    """

    def __init__(self, graph: Graph, cycles: Path):
        nodes, ends, self.rows = (
            np.load(cycles / f"{name}.npy", allow_pickle=False) for name in ("pairs", "pair_ends", "pair_triples")
        )
        self.size = len(graph.entities)
        self.keys, self.ends = self._key(nodes[:, 0], nodes[:, 1]), ends.astype(np.int64)

    def of(self, ends: np.ndarray) -> np.ndarray:
        """Which pair two entities are, whatever their order; -1 where one triple joins them. `ends` [..., 2]."""
        if len(self.keys) == 0:
            return np.full(ends.shape[:-1], -1)
        keys = self._key(ends.min(axis=-1), ends.max(axis=-1))
        place = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[place] == keys, place, -1)

    def _key(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        return low.astype(np.int64) * self.size + high


class _Sayable:
    """Of each pair, the triples whose relation has a name in a language; if asked, in the order of the file."""

    def __init__(self, pairs: Several, named: np.ndarray, relations: np.ndarray, in_order: bool):
        good = named[relations[pairs.rows]]
        self.rows = pairs.rows[good]
        ends = np.cumsum(good)[pairs.ends - 1]
        self.counts = np.diff(ends, prepend=0)
        self.starts = ends - self.counts
        if in_order:
            self.rows = self.rows[np.lexsort((self.rows, np.repeat(np.arange(len(ends)), self.counts)))]


class Telling:
    """A language in which cycles are told.

    Args:
        pairs: where each language draws the relations of a pair among those that have a name in it; None: the
            relations are those of the stored cycle.
    """

    def __init__(self, graph: Graph, language: str, knowledge: Knowledge, pairs: Several | None):
        self.graph, self.pairs, self.multi = graph, pairs, knowledge.cycles.multi
        self.key = derive(knowledge.seed, "relations of cycles", language)
        size = len(graph.entities)
        has = graph.names(language).has
        self.entities, self._own = has[:size], has[size:]
        self._either = self._own
        if knowledge.cycles.missing is Missing.english:
            self._either = self._own | graph.names(knowledge.languages[0]).has[size:]

    @cached_property
    def _sayable(self) -> list[_Sayable]:
        """Triples by pair: those with a name in the language; then those with one in the first, the second choice."""
        assert self.pairs is not None
        relations = self.graph.triples[:, 1]
        named = [self._own] if self._either is self._own else [self._own, self._either]
        in_order = self.multi is not Multi.uniform
        return [_Sayable(self.pairs, one, relations, in_order) for one in named]

    def cycles(self, table: np.ndarray, rows: np.ndarray, length: int) -> np.ndarray:
        """The samples of some cycles, in their order; those that cannot be told are left out.

        Args:
            table: all cycles of a length, as stored.
            rows: of the table, ascending.
        """
        part = np.asarray(table[rows])
        told = self.entities[part[:, :length]].all(axis=1)
        rows, part = rows[told], part[told]
        triples = part[:, length:]
        if self.pairs is not None:
            triples, told = self._redrawn(part[:, :length], triples)
        else:
            told = self._either[self.graph.triples[triples, 1]].all(axis=1)
        made = np.zeros(int(told.sum()), dtype=reasoning_type(length))
        made["cycle"], made["triples"] = rows[told], triples[told]
        return made

    def _redrawn(self, nodes: np.ndarray, triples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each edge a triple of its pair that can be said in the language, and whether every edge has one.

        The draw is keyed by the seed, the language, the numbers of the cycle's entities and the edge.
        """
        assert self.pairs is not None
        stored = self.graph.triples[triples]
        pair = self.pairs.of(stored[:, :, [0, 2]])
        key = mixed(self.key, *self.graph.entities[nodes].T)
        found, good = triples.copy(), (pair < 0) & self._either[stored[:, :, 1]]
        for sayable in self._sayable if len(self.pairs.keys) else []:
            count = np.where(pair >= 0, sayable.counts[pair], 0)
            if self.multi is Multi.uniform:
                which = below(count, key[:, None], np.arange(triples.shape[1]))
            else:
                which = count - 1 if self.multi is Multi.last else np.zeros_like(count)
            take = ~good & (count > 0)
            found[take] = sayable.rows[(sayable.starts[pair] + which)[take]]
            good |= take
        return found, good.all(axis=1)
