"""The cycles that XLR questions can be made of, in a keyed random order, a block at a time.

Of all cycles only a hash and two marks are held; everything else is looked up for a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kbench.config.knowledge import Knowledge, Missing
from kbench.engine.counter import mixed, uniform
from kbench.engine.seeding import derive
from kbench.knowledge.cycles import cycle_key
from kbench.knowledge.graph import Graph

FILES = {3: "triangles.npy", 4: "diamonds.npy"}
_NODES, _EDGES = 4, 5  # of the longer cycles; the shorter ones are filled up with -1
_FIRST_BLOCK, _LARGEST_BLOCK = 1 << 12, 1 << 16
_CHUNK = 1 << 20
_ASKED, _CHOICE, _PLACE = range(3)  # what a number is drawn for

Around = dict[int, tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Block:
    """Cycles in the order of the draw.

    Attributes:
        scores: uint64 [B], the key of everything that is drawn for a cycle.
        keys: int64 [B], of the sets of nodes.
        signatures: int64 [B], of the multisets of relations.
        nodes: int64 [B, 4], rows: rows of triples [B, 5], relations: [B, 5]; -1 where there is none.
        asked: int64 [B], which of the rows is asked about; -1 where every pair of nodes has several relations.
        answers: int64 [B], its relation.
    """

    scores: np.ndarray
    keys: np.ndarray
    signatures: np.ndarray
    nodes: np.ndarray
    rows: np.ndarray
    relations: np.ndarray
    asked: np.ndarray
    answers: np.ndarray


class Speech:
    """What the entities and relations of a graph are called in one language.

    Attributes:
        relations: relation index -> its name in the language, or else in the first one where that is allowed.
    """

    def __init__(self, graph: Graph, language: str, instead: str | None):
        self.graph, self.language = graph, language
        self.relations: dict[int, str] = {}
        for spoken in (instead, language):
            if spoken is not None:
                names = graph.names(spoken)
                own = np.flatnonzero(names.has[len(graph.entities) :])
                labels = names.labels(graph.relation_item(own))
                self.relations |= {int(r): text for r, text in zip(own, labels, strict=True) if text.strip()}

    def entities(self, nodes: set[int]) -> dict[int, str]:
        """The labels of some entities, all of which have one."""
        items = np.array(sorted(nodes), dtype=np.int64)
        return dict(zip(items.tolist(), self.graph.names(self.language).labels(items), strict=True))


class Candidates:
    """All cycles that can be told in the first language, and which of them can be told in every language.

    Attributes:
        cycles: how many there are at all; sayable: in the first language; everywhere: in every language.
    """

    def __init__(self, graph: Graph, cycles: Path, knowledge: Knowledge):
        self.graph, self.seed = graph, derive(knowledge.seed, "xlr")
        self.languages = list(knowledge.languages)
        self._instead = self.languages[0] if knowledge.cycles.missing is Missing.english else None
        self._tables = {
            length: np.load(cycles / name, mmap_mode="r", allow_pickle=False) for length, name in FILES.items()
        }
        self.cycles = sum(map(len, self._tables.values()))
        self._speeches = {language: Speech(graph, language, self._instead) for language in self.languages}
        self._alike = {language: _groups(speech.relations) for language, speech in self._speeches.items()}
        self._alone = _alone(graph.triples, len(graph.entities))
        self._order, self._every = self._ordered()
        self.sayable, self.everywhere = len(self._order), int(self._every.sum())

    def speech(self, language: str) -> Speech:
        """What things are called in a language."""
        return self._speeches[language]

    def blocks(self, everywhere: bool) -> Iterator[Block]:
        """The cycles that can be told in the first language, or `everywhere`, in the order of the draw."""
        start, size = 0, _FIRST_BLOCK
        while start < len(self._order):
            order = self._order[start : start + size]
            order = order[self._every[start : start + size]] if everywhere else order
            if len(order):
                yield self._block(order)
            start, size = start + size, min(2 * size, _LARGEST_BLOCK)

    def triples_of(self, block: Block, place: int) -> list[tuple[int, int, int]]:
        """The triples of a cycle, in its order."""
        rows = block.rows[place]
        return [tuple(triple) for triple in self.graph.triples[rows[rows >= 0]].tolist()]

    def told_apart(self, block: Block, fit: np.ndarray, everywhere: bool) -> tuple[np.ndarray, int]:
        """Which of the fitting cycles are of entities that all have different names, and how many are not.

        Of two entities of one name, a triple of the context about the one would be read as about the other.
        """
        places = np.flatnonzero(fit)
        nodes = block.nodes[places]
        there = nodes >= 0
        cycle = np.repeat(np.arange(len(places)), there.sum(axis=1)).tolist()
        good = np.ones(len(places), dtype=bool)
        for language in self.languages if everywhere else self.languages[:1]:
            seen: set[tuple[int, str]] = set()
            for of, text in zip(cycle, self.graph.names(language).labels(nodes[there]), strict=True):
                one = (of, " ".join(text.casefold().split()))
                good[of] &= one not in seen
                seen.add(one)
        found = fit.copy()
        found[places[~good]] = False
        return found, int((~good).sum())

    def around(self, block: Block, fit: np.ndarray) -> Around:
        """Relations at the entities that fitting cycles ask about: entity -> relations, and how often each is there."""
        places = np.flatnonzero(fit)
        asked = np.unique(self.graph.triples[block.rows[places, block.asked[places]]][:, [0, 2]])
        index = np.full(len(self.graph.entities), -1, dtype=np.int32)
        index[asked] = np.arange(len(asked), dtype=np.int32)
        count = len(self.graph.relations)
        codes, times = np.zeros(0, np.int64), np.zeros(0, np.int64)
        for start in range(0, len(self.graph.triples) if len(asked) else 0, _CHUNK):
            triples = self.graph.triples[start : start + _CHUNK]
            ends = index[triples[:, [0, 2]]]
            found = (ends.astype(np.int64) * count + triples[:, 1, None])[ends >= 0]
            here, often = np.unique(found, return_counts=True)
            codes, back = np.unique(np.concatenate([codes, here]), return_inverse=True)
            times = np.bincount(back, np.concatenate([times, often])).astype(np.int64)
        bounds = np.searchsorted(codes, np.arange(len(asked) + 1) * count).tolist()
        return {
            entity: (codes[bounds[place] : bounds[place + 1]] % count, times[bounds[place] : bounds[place + 1]])
            for place, entity in enumerate(asked.tolist())
        }

    def choices(
        self, block: Block, place: int, around: Around, size: int, everywhere: bool
    ) -> tuple[tuple[int, ...], int] | None:
        """The relations to choose from, shuffled, and which of them is the answer; None where they are too few.

        The answer, the other relations of the cycle, then relations that stand at one of the two entities, drawn
        without replacement by how often they stand there. The pair has one relation only, so no other one is true of
        it. No two may be called the same in a language; those of the cycle that are leave no question.
        """
        answer, score = int(block.answers[place]), block.scores[place]
        cycle = [relation for relation in block.relations[place].tolist() if relation >= 0]
        languages = self.languages if everywhere else self.languages[:1]
        chosen: list[int] = []
        taken: set[tuple[str, int]] = set()
        (ends,) = self.graph.triples[block.rows[place, block.asked[place]]][None, [0, 2]].tolist()
        relations = np.concatenate([around[end][0] for end in ends])
        times = np.concatenate([around[end][1] for end in ends])
        others, back = np.unique(relations, return_inverse=True)
        weights = np.bincount(back, times)
        # Efraimidis and Spirakis, 2006: the largest u^(1/w) are a draw without replacement by weight w
        drawn = np.log(uniform(score, _CHOICE, self.graph.relations[others])) / weights
        own = list(dict.fromkeys([answer, *cycle]))
        for relation in [*own, *others[np.argsort(-drawn, kind="stable")].tolist()]:
            if relation in chosen:
                continue
            if any(relation not in self._alike[language] for language in languages):
                continue  # it has no name that could be shown
            called = {(language, self._alike[language][relation]) for language in languages}
            if called & taken:
                if relation in own:
                    return None
                continue
            chosen.append(relation)
            taken |= called
            if len(chosen) == size:
                break
        if len(chosen) < size:
            return None
        order = np.argsort(mixed(score, _PLACE, np.arange(size)), kind="stable").tolist()
        return tuple(chosen[one] for one in order), order.index(0)

    def _ordered(self) -> tuple[np.ndarray, np.ndarray]:
        """The cycles sayable in the first language as 8 * row + length, in the order of the draw; which are everywhere.

        The two lengths take turns while both last.
        """
        graph = self.graph
        first, every = self._spoken(self.languages[:1]), self._spoken(self.languages)
        orders, marks = [], []
        for length, table in self._tables.items():
            rows, scores, everywhere = [], [], []
            for start in range(0, len(table), _CHUNK):
                part = np.asarray(table[start : start + _CHUNK])
                nodes = part[:, :length]
                items = np.concatenate([nodes, graph.relation_item(graph.triples[part[:, length:], 1])], axis=1)
                here = np.flatnonzero(first[items].all(axis=1))
                rows.append((start + here) * 8 + length)
                scores.append(self._scores(part[here], length))
                everywhere.append(every[items[here]].all(axis=1))
            order = np.argsort(_joined(scores, np.uint64), kind="stable")
            orders.append(_joined(rows, np.int64)[order])
            marks.append(_joined(everywhere, bool)[order])
        return _in_turns(*orders), _in_turns(*marks)

    def _spoken(self, languages: list[str]) -> np.ndarray:
        """Whether an item has a name in all of some languages [items]."""
        found = np.ones(self.graph.items, dtype=bool)
        size = len(self.graph.entities)
        for language in languages:
            found[:size] &= self.graph.names(language).has[:size]
            named = np.zeros(len(self.graph.relations), dtype=bool)
            named[list(self._speeches[language].relations)] = True
            found[size:] &= named
        return found

    def _scores(self, part: np.ndarray, length: int) -> np.ndarray:
        """The key of what is drawn for cycles: from numbers of Wikidata, not from places in a graph."""
        numbers = self.graph.entities[part[:, :length]].T
        relations = self.graph.relations[self.graph.triples[part[:, length:], 1]].T
        return mixed(self.seed, length, *numbers, *relations)

    def _block(self, order: np.ndarray) -> Block:
        nodes = np.full((len(order), _NODES), -1, dtype=np.int64)
        rows = np.full((len(order), _EDGES), -1, dtype=np.int64)
        keys, scores = np.zeros(len(order), np.int64), np.zeros(len(order), np.uint64)
        for length, table in self._tables.items():
            of = np.flatnonzero(order % 8 == length)
            part = np.asarray(table[order[of] // 8])
            nodes[of, :length], rows[of, : part.shape[1] - length] = part[:, :length], part[:, length:]
            keys[of], scores[of] = cycle_key(part[:, :length]), self._scores(part, length)
        there = rows >= 0
        relations = np.where(there, self.graph.triples[rows, 1], -1)
        signatures = mixed(*np.sort(relations, axis=1).T).view(np.int64)
        draw = mixed(scores[:, None], _ASKED, np.arange(_EDGES))
        alone = there & self._alone[rows]
        asked = np.where(alone, draw, np.uint64(2**64 - 1)).argmin(axis=1)
        asked = np.where(alone.any(axis=1), asked, -1)
        answers = np.where(asked >= 0, relations[np.arange(len(order)), asked], -1)
        return Block(scores, keys, signatures, nodes, rows, relations, asked, answers)


def _alone(triples: np.ndarray, entities: int) -> np.ndarray:
    """Whether a triple is the only one between its two entities, in either direction [t]."""
    low, high = np.minimum(triples[:, 0], triples[:, 2]), np.maximum(triples[:, 0], triples[:, 2])
    pairs = low.astype(np.int64) * entities + high
    del low, high
    order = np.argsort(pairs)
    same = pairs[order[1:]] == pairs[order[:-1]]
    found = np.ones(len(pairs), dtype=bool)
    found[order[1:][same]] = False
    found[order[:-1][same]] = False
    return found


def _groups(names: dict[int, str]) -> dict[int, int]:
    """Relation -> a number that those share which are called the same but for case."""
    numbers: dict[str, int] = {}
    return {
        relation: numbers.setdefault(" ".join(name.casefold().split()), len(numbers))
        for relation, name in names.items()
    }


def _joined(parts: list[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype=dtype), *parts])


def _in_turns(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """One of each in turn as long as both last, then the rest of the longer."""
    both = min(len(first), len(second))
    turns = np.stack([first[:both], second[:both]], axis=1).ravel()
    return np.concatenate([turns, first[both:], second[both:]])
