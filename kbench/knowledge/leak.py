"""Which facts of a probe are triples of a graph: what a model was shown in training is not knowledge that it had.

A fact is a triple where subject and object are named by Wikidata's ids and its relation is one of Wikidata's. T-REx's
facts are; of Google-RE's few have ids, and its dates have none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kbench.data.facts import OBJECT_ID, RELATION, SUBJECT_ID
from kbench.knowledge.graph import Graph
from kbench.metrics.probing import CORPORA, corpus_of

if TYPE_CHECKING:
    from kbench.data.records import Records

# Google-RE's relations -> Wikidata's
WIKIDATA = {"place_of_birth": "P19", "date_of_birth": "P569", "place_of_death": "P20"}
_CHUNK = 1024  # facts whose texts are in memory at once
_BLOCK = 1 << 22  # triples that are compared at once


@dataclass(frozen=True)
class _Facts:
    """The facts of a split as the graph numbers them [facts].

    Attributes:
        head, relation, tail: indexes in the graph, int64; -1 where the graph does not have it.
        known: whether the fact names all three by ids, bool.
        corpus: the corpus of LAMA that it is of.
    """

    head: np.ndarray
    relation: np.ndarray
    tail: np.ndarray
    known: np.ndarray
    corpus: np.ndarray


def leak(folder: Path, records: Records, split: str = "test") -> dict[str, float]:
    """The share of a probe's facts that are triples of a graph, in this direction.

    `leak` is of the facts that have ids, and `no_ids` the share of all facts that have none: whether these are in the
    graph is not known. Both again for each corpus of LAMA there is, as in `leak/t_rex`. 0 where no fact has ids.

    Args:
        folder: of the graph.
        records: facts, as kbench/data/facts.py lays them out.
        split: theirs.
    """
    graph = Graph(folder)
    facts = _facts(graph, records, split)
    there, _ = _shared(graph, facts)
    found = {}
    groups = {"": np.ones(len(there), dtype=bool), **{f"/{name}": facts.corpus == name for name in CORPORA}}
    for name, rows in groups.items():
        if rows.any():
            known = rows & facts.known
            found[f"leak{name}"] = float(there[known].mean()) if known.any() else 0.0
            found[f"no_ids{name}"] = float(1 - known.sum() / rows.sum())
    return found


def leaked_triples(graph: Graph, records: Records, split: str = "test") -> np.ndarray:
    """Whether a triple of a graph is a fact that a probe asks for [t], bool: what has to be left out of training."""
    return _shared(graph, _facts(graph, records, split))[1]


def _facts(graph: Graph, records: Records, split: str) -> _Facts:
    """The facts of a split, in the graph's numbers."""
    ids = np.full((records.rows(split), 3), -1, dtype=np.int64)
    corpus = np.empty(len(ids), dtype=f"U{max(map(len, CORPORA))}")
    for start in range(0, len(ids), _CHUNK):
        for row, fact in enumerate(records.pieces(split, start, start + _CHUNK), start=start):
            named = WIKIDATA.get(fact[RELATION], fact[RELATION])
            ids[row] = _number(fact[SUBJECT_ID], "Q"), _number(named, "P"), _number(fact[OBJECT_ID], "Q")
            corpus[row] = corpus_of(fact[RELATION])
    numbers = (graph.entities, graph.relations, graph.entities)
    head, relation, tail = (_places(of, ids[:, part]) for part, of in enumerate(numbers))
    return _Facts(head, relation, tail, np.asarray((ids >= 0).all(1)), corpus)


def _number(spelt: str, letter: str) -> int:
    """The number of Q42 or P19; -1 of what is none."""
    digits = spelt[1:]
    return int(digits) if spelt[:1] == letter and digits.isascii() and digits.isdigit() and len(digits) < 18 else -1


def _places(numbers: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The index of each wanted number among ascending ones, int64; -1 of one that is not there."""
    places = np.minimum(np.searchsorted(numbers, wanted), len(numbers) - 1)
    return np.where(numbers[places] == wanted, places, -1)


def _shared(graph: Graph, facts: _Facts) -> tuple[np.ndarray, np.ndarray]:
    """Which facts are triples of the graph [facts], and which triples are facts [t].

    Only triples whose head, relation and tail all stand in some fact are compared: they are told apart by their places
    among the heads, relations and tails of the facts, so that no number grows with the graph.
    """
    parts = [part[(facts.head >= 0) & (facts.relation >= 0) & (facts.tail >= 0)] for part in _columns(facts)]
    triples = np.zeros(len(graph.triples), dtype=bool)
    there = np.zeros(len(facts.head), dtype=bool)
    if not len(parts[0]):
        return there, triples
    names = [np.unique(part) for part in parts]
    asked = np.unique(_keys(names, parts))
    met = np.zeros(len(asked), dtype=bool)
    for start in range(0, len(triples), _BLOCK):
        block = np.asarray(graph.triples[start : start + _BLOCK])
        rows = np.arange(len(block))
        for column in (1, 0, 2):  # few relations are asked for, so most triples go at once
            rows = rows[_places(names[column], block[rows, column]) >= 0]
        keys = _keys(names, [block[rows, column] for column in range(3)])
        places = _places(asked, keys)
        triples[start + rows[places >= 0]] = True
        met[places[places >= 0]] = True
    whole = np.stack([_places(name, part) for name, part in zip(names, _columns(facts), strict=True)])
    inside = (whole >= 0).all(0)
    there[inside] = met[_places(asked, _keys(names, [part[inside] for part in _columns(facts)]))]
    return there, triples


def _columns(facts: _Facts) -> Iterator[np.ndarray]:
    yield from (facts.head, facts.relation, facts.tail)


def _keys(names: list[np.ndarray], parts: list[np.ndarray]) -> np.ndarray:
    """One number for each head, relation and tail, all of which are among the names."""
    head, relation, tail = (np.searchsorted(name, part) for name, part in zip(names, parts, strict=True))
    return (head * len(names[1]) + relation) * len(names[2]) + tail
