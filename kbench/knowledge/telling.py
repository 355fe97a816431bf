"""Which cycles can be told in a language, and by which triples."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from kbench.config.knowledge import Knowledge, Missing, Multi
from kbench.engine.counter import below, mixed
from kbench.engine.seeding import derive
from kbench.knowledge.graph import Graph

_EDGES = {3: 3, 4: 5}


def reasoning_type(length: int) -> np.dtype:
    """A row of reasoning samples: the cycle's row, the language's index, the rows of triples to say, in order."""
    return np.dtype([("cycle", "<i4"), ("language", "i1"), ("triples", "<i4", (_EDGES[length],))])


class Pairs:
    """The triples between the same two entities, in either direction, in the order of the file.

    Attributes:
        order: rows of triples, pair by pair [t]; group: the pair of each triple [t]; ends: where pairs end in order.
    """

    def __init__(self, graph: Graph):
        ends = graph.triples[:, [0, 2]]
        keys = ends.min(axis=1).astype(np.int64) * len(graph.entities) + ends.max(axis=1)
        self.order = np.argsort(keys, kind="stable").astype(np.int32)
        new = np.diff(keys[self.order], prepend=-1) != 0
        self.group = np.empty(len(keys), dtype=np.int32)
        self.group[self.order] = np.cumsum(new, dtype=np.int32) - 1
        self.ends = np.append(np.flatnonzero(new)[1:], len(keys))


class _Sayable:
    """Of each pair, the triples whose relation has a name in a language."""

    def __init__(self, pairs: Pairs, named: np.ndarray, relations: np.ndarray):
        good = named[relations[pairs.order]]
        self.rows = pairs.order[good]
        ends = np.cumsum(good)[pairs.ends - 1]
        self.counts = np.diff(ends, prepend=0)
        self.starts = ends - self.counts


class Telling:
    """A language in which cycles are told.

    Args:
        pairs: where each language draws the relations of a pair among those that have a name in it; None: the
            relations are those of the stored cycle.
    """

    def __init__(self, graph: Graph, language: str, knowledge: Knowledge, pairs: Pairs | None):
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
        return [_Sayable(self.pairs, one, relations) for one in named]

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
        group = self.pairs.group[triples]
        key = mixed(self.key, *self.graph.entities[nodes].T)
        found, good = triples.copy(), np.zeros(triples.shape, dtype=bool)
        for sayable in self._sayable:
            count = sayable.counts[group]
            if self.multi is Multi.uniform:
                which = below(count, key[:, None], np.arange(triples.shape[1]))
            else:
                which = count - 1 if self.multi is Multi.last else np.zeros_like(count)
            take = ~good & (count > 0)
            found[take] = sayable.rows[(sayable.starts[group] + which)[take]]
            good |= take
        return found, good.all(axis=1)
