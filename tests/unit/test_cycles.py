"""Cycles against worked counts, brute force and a plain reading of the specification; draws in any order."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations, pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kbench.config.knowledge import Align, CycleKey, Knowledge, Multi
from kbench.engine.counter import mixed
from kbench.errors import DataError
from kbench.knowledge import cycles as module
from kbench.knowledge import shapes
from kbench.knowledge.cycles import Pairs, balanced, cycle_key, cycles_stage, signatures
from kbench.knowledge.graph import Graph, graph_stage
from kbench.knowledge.readers import locate
from kbench.knowledge.shapes import Chords, _pair, _permuted, triangles_of
from kbench.stages.stage import Stage
from kbench.stages.store import Store

from .test_graph_readers import make_knowledge

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "graph.py"
MANY = 10**6


def save_graph(triples: Iterable[tuple[int, int, int]], folder: Path, size: int | None = None) -> Path:
    """A stored graph without names, of indices as they are."""
    table = np.array(list(triples), dtype=np.int32).reshape(-1, 3)
    folder.mkdir(parents=True)
    np.save(folder / "triples.npy", table)
    np.save(folder / "entities.npy", np.arange(size or int(table[:, [0, 2]].max()) + 1))
    np.save(folder / "relations.npy", np.arange(int(table[:, 1].max()) + 1))
    (folder / "graph.json").write_text(json.dumps({"languages": {}, "content": ""}))
    return folder


@dataclass
class Found:
    folder: Path
    graph: Graph
    triangles: np.ndarray
    diamonds: np.ndarray
    counts: dict[str, int]


def find(triples: Iterable[tuple[int, int, int]], folder: Path, size: int | None = None, **options: Any) -> Found:
    """The cycles of a graph."""
    settings = {"cycles_per_chord": MANY, **options}
    place = folder / f"case{len(list(folder.iterdir())) if folder.is_dir() else 0}"
    graph = save_graph(triples, place / "graph", size)
    work = place / "cycles"
    work.mkdir()
    cycles_stage(Stage("graph", 1, {}, lambda *_: None), make_knowledge(**settings)).build(work, {"graph": graph})
    tables = (np.load(work / f"{name}.npy", allow_pickle=False) for name in ("triangles", "diamonds"))
    return Found(work, Graph(graph), *tables, json.loads((work / "cycles.json").read_text()))


def edges(*pairs: tuple[int, int]) -> list[tuple[int, int, int]]:
    return [(head, 0, tail) for head, tail in pairs]


def complete(size: int) -> list[tuple[int, int, int]]:
    return edges(*combinations(range(size), 2))


def book(pages: int) -> list[tuple[int, int, int]]:
    return edges((0, 1), *((spine, 2 + page) for page in range(pages) for spine in (0, 1)))


def random_graph(seed: int, nodes: int = 14, triples: int = 90, relations: int = 4) -> list[tuple[int, int, int]]:
    """Triples without self-loops and duplicates, in a drawn order; the first nodes have many neighbours."""
    rng = np.random.default_rng(seed)
    heads = (nodes * rng.random(triples) ** 2).astype(int)
    drawn = zip(heads.tolist(), rng.integers(0, relations, triples), rng.integers(0, nodes, triples), strict=True)
    drawn = [(head, int(relation), int(tail)) for head, relation, tail in drawn]
    return [triple for triple in dict.fromkeys(drawn) if triple[0] != triple[2]]


def brute_force(triples: list[tuple[int, int, int]]) -> tuple[set[tuple[int, ...]], set[tuple[int, ...]]]:
    """Triangles (a, b, c) and diamonds (i, k, p, q), by trying all sets of nodes."""
    joined = {frozenset((head, tail)) for head, _, tail in triples}
    nodes = sorted({node for pair in joined for node in pair})
    triangles = {
        three for three in combinations(nodes, 3) if all(frozenset(two) in joined for two in combinations(three, 2))
    }
    diamonds = set()
    for four in combinations(nodes, 4):
        for chord in combinations(four, 2):
            apexes = tuple(node for node in four if node not in chord)
            if all(frozenset(two) in joined for two in [chord, *product(chord, apexes)]):
                diamonds.add(chord + apexes)
    return triangles, diamonds


# The table of the specification.


@pytest.mark.parametrize(
    ("triples", "triangles", "diamonds", "node_sets"),
    [
        (complete(3), 1, 0, 0),
        (edges((0, 1), (1, 2), (2, 3), (3, 0), (0, 2)), 2, 1, 1),
        (complete(4), 4, 6, 1),
        (complete(5), 10, 30, 5),
        (edges((0, 1), (1, 2), (2, 0), (0, 3), (3, 4), (4, 0)), 2, 0, 0),
        (book(7), 7, 21, 21),
        (book(40), 40, 780, 780),
        (edges((0, 1), (1, 2), (2, 0)), 1, 0, 0),
        (edges((0, 1), (1, 0), (1, 2), (2, 0)), 1, 0, 0),
    ],
)
def test_worked_counts(
    triples: list[tuple[int, int, int]], triangles: int, diamonds: int, node_sets: int, tmp_path: Path
) -> None:
    found = find(triples, tmp_path)
    assert (len(found.triangles), len(found.diamonds)) == (triangles, diamonds)
    names = ("triangles", "triangle_rows", "diamonds", "diamonds_drawn", "diamond_rows", "node_sets")
    assert [found.counts[name] for name in names] == [triangles, triangles, diamonds, diamonds, diamonds, node_sets]
    assert len(find(triples, tmp_path, cycles_unique_by=CycleKey.node_set).diamonds) == node_sets


@pytest.mark.parametrize(
    "triples",
    [edges((0, 1), (1, 2), (2, 3), (3, 0)), edges(*((0, leaf) for leaf in range(1, 9))), edges((0, 1), (1, 0))],
    ids=["square", "star", "pair"],
)
def test_a_graph_without_cycles(triples: list[tuple[int, int, int]], tmp_path: Path) -> None:
    with pytest.raises(DataError) as raised:
        find(triples, tmp_path)
    (problem,) = raised.value.problems
    assert problem.where == "knowledge=test"
    assert problem.what == f"no three entities are joined in a cycle by its {len(triples)} triples"
    assert problem.hint


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("block", [1 << 20, 16])
def test_random_graphs_against_brute_force(
    seed: int, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BLOCK", block)
    monkeypatch.setattr(shapes, "_BLOCK", block)
    triples = random_graph(seed)
    triangles, diamonds = brute_force(triples)
    found = find(triples, tmp_path, size=20)
    assert [tuple(row) for row in found.triangles[:, :3].tolist()] == sorted(triangles)
    assert [tuple(row) for row in found.diamonds[:, :4].tolist()] == sorted(diamonds)
    assert found.counts["node_sets"] == len({frozenset(row) for row in diamonds})
    pairs = Counter(frozenset((head, tail)) for head, _, tail in triples)
    assert found.counts["pairs"] == len(pairs)
    assert found.counts["pairs_of_several"] == sum(count > 1 for count in pairs.values())


def ends_of(found: Found, rows: np.ndarray) -> list[list[tuple[int, int]]]:
    """The entities of the triples of cycles, the lower first."""
    table = np.sort(found.graph.triples[rows][..., [0, 2]], axis=-1)
    return [[tuple(edge) for edge in cycle] for cycle in table.tolist()]


@pytest.mark.parametrize("multi", list(Multi))
def test_the_triples_are_those_of_the_edges_in_the_order_of_a_sample(multi: Multi, tmp_path: Path) -> None:
    found = find(random_graph(3), tmp_path, cycles_multi=multi)
    for row, ends in zip(found.triangles.tolist(), ends_of(found, found.triangles[:, 3:]), strict=True):
        a, b, c = row[:3]
        assert ends == [(a, b), (b, c), (a, c)]
    for row, ends in zip(found.diamonds.tolist(), ends_of(found, found.diamonds[:, 4:]), strict=True):
        i, k, p, q = row[:4]
        assert ends == [tuple(sorted(edge)) for edge in ((p, i), (i, q), (q, k), (p, k), (i, k))]


def test_the_same_in_any_order_of_the_triples(tmp_path: Path) -> None:
    triples = random_graph(5)
    order = np.random.default_rng(0).permutation(len(triples))
    for options in ({"cycles_per_chord": 2}, {"cycles_unique_by": CycleKey.node_set}):
        one = find(triples, tmp_path, **options)
        other = find([triples[place] for place in order], tmp_path, **options)
        assert one.counts == other.counts
        for name, nodes in (("triangles", 3), ("diamonds", 4)):
            first, second = getattr(one, name), getattr(other, name)
            assert np.array_equal(first[:, :nodes], second[:, :nodes])
            said, again = one.graph.triples[first[:, nodes:]], other.graph.triples[second[:, nodes:]]
            assert np.array_equal(said, again)


def test_the_counts_are_the_same_under_other_numbers(tmp_path: Path) -> None:
    triples = random_graph(6)
    number = np.random.default_rng(1).permutation(14)
    renumbered = [(int(number[head]), relation, int(number[tail])) for head, relation, tail in triples]
    for options in ({"cycles_multi": Multi.first}, {"cycles_multi": Multi.all}):
        assert find(triples, tmp_path, **options).counts == find(renumbered, tmp_path, **options).counts


def test_the_same_beside_other_entities(tmp_path: Path) -> None:
    """Draws know entities by their numbers: an entity that joins the graph moves places, and changes no draw."""
    triples = random_graph(7)
    one = find(triples, tmp_path, cycles_per_chord=2)
    place = tmp_path / "moved"
    moved = [(head + 1, relation, tail + 1) for head, relation, tail in triples]
    graph = save_graph([*moved, (0, 0, 3)], place / "graph")
    np.save(graph / "entities.npy", np.arange(-1, 14) + 100 * (np.arange(-1, 14) >= 0))
    np.save(one.folder.parent / "graph" / "entities.npy", np.arange(14) + 100)
    works = {}
    for name, folder in (("one", one.folder.parent / "graph"), ("other", graph)):
        works[name] = place / name
        works[name].mkdir()
        knowledge = make_knowledge(cycles_per_chord=2)
        cycles_stage(Stage("graph", 1, {}, lambda *_: None), knowledge).build(works[name], {"graph": folder})
    for table, nodes in (("triangles", 3), ("diamonds", 4)):
        first, second = (np.load(work / f"{table}.npy", allow_pickle=False) for work in works.values())
        assert np.array_equal(first[:, :nodes] + 1, second[:, :nodes])
        assert np.array_equal(first[:, nodes:], second[:, nodes:])


def test_the_same_bytes_whatever_the_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    triples = random_graph(2, nodes=30, triples=300)
    one = find(triples, tmp_path, cycles_per_chord=3)
    monkeypatch.setattr(module, "_BLOCK", 7)
    monkeypatch.setattr(shapes, "_BLOCK", 7)
    other = find(triples, tmp_path, cycles_per_chord=3)
    for path in one.folder.iterdir():
        assert path.read_bytes() == (other.folder / path.name).read_bytes()
    again = find(triples, tmp_path, cycles_per_chord=3, seed=1)
    assert not np.array_equal(one.diamonds, again.diamonds)


# Several relations of a pair.

PARALLEL = [(0, 0, 1), (1, 1, 0), (1, 0, 2), (0, 2, 2), (0, 0, 2), (2, 0, 0)]  # two, one and three on a triangle


def test_all_combinations(tmp_path: Path) -> None:
    found = find(PARALLEL, tmp_path, cycles_multi=Multi.all)
    rows = {tuple(row) for row in found.triangles.tolist()}
    assert len(found.triangles) == len(rows) == 6
    assert rows == {(0, 1, 2, ab, 2, ac) for ab in (0, 1) for ac in (3, 4, 5)}
    assert found.counts["triangles"] == 1
    assert found.counts["triangle_rows"] == 6
    assert found.counts["signatures3"] == 4  # 0 0 0 twice, 0 0 1 twice, 0 0 2, 0 1 2


def test_all_combinations_of_random_graphs(tmp_path: Path) -> None:
    triples = random_graph(9)
    rows = defaultdict(list)
    for row, (head, _, tail) in enumerate(triples):
        rows[frozenset((head, tail))].append(row)
    triangles, diamonds = brute_force(triples)
    expected3 = {
        (a, b, c, *chosen)
        for a, b, c in triangles
        for chosen in product(rows[frozenset((a, b))], rows[frozenset((b, c))], rows[frozenset((a, c))])
    }
    expected4 = {
        (i, k, p, q, *chosen)
        for i, k, p, q in diamonds
        for chosen in product(*(rows[frozenset(edge)] for edge in ((p, i), (i, q), (q, k), (p, k), (i, k))))
    }
    found = find(triples, tmp_path, cycles_multi=Multi.all)
    assert len(expected3) == len(found.triangles)
    assert {tuple(row) for row in found.triangles.tolist()} == expected3
    assert len(expected4) == len(found.diamonds)
    assert {tuple(row) for row in found.diamonds.tolist()} == expected4
    relation = [one for _, one, _ in triples]
    multisets = {tuple(sorted(relation[row] for row in cycle[4:])) for cycle in expected4}
    chorded = {(*sorted(relation[row] for row in cycle[4:8]), relation[cycle[8]]) for cycle in expected4}
    assert found.counts["signatures4"] == len(multisets) < found.counts["signatures4_chord"] == len(chorded)
    assert found.counts["signatures3"] == len({tuple(sorted(relation[row] for row in one[3:])) for one in expected3})


def test_first_and_last_follow_the_file(tmp_path: Path) -> None:
    assert find(PARALLEL, tmp_path, cycles_multi=Multi.first).triangles.tolist() == [[0, 1, 2, 0, 2, 3]]
    assert find(PARALLEL, tmp_path, cycles_multi=Multi.last).triangles.tolist() == [[0, 1, 2, 1, 2, 5]]
    back = PARALLEL[::-1]
    assert find(back, tmp_path, cycles_multi=Multi.first).triangles.tolist() == [[0, 1, 2, 4, 3, 0]]


def test_uniform_is_uniform_and_independent_over_cycles_and_pairs(tmp_path: Path) -> None:
    """A book of which the spine has three triples and each page's two edges have two."""
    pages = 3000
    triples = [(0, 0, 1), (1, 0, 0), (0, 1, 1)]
    triples += [(spine, relation, 2 + page) for page in range(pages) for spine in (0, 1) for relation in (0, 1)]
    found = find(triples, tmp_path, cycles_per_chord=1)
    relation = found.graph.triples[:, 1]
    columns = found.triangles[:, 3], relation[found.triangles[:, 4]], relation[found.triangles[:, 5]]
    drawn = Counter(zip(*(column.tolist() for column in columns), strict=True))
    assert len(drawn) == 12
    expected = pages / 12
    chi_square = sum((count - expected) ** 2 / expected for count in drawn.values())
    assert chi_square < 31.3  # 0.1 % of samples of 11 degrees of freedom are above


def test_pairs_of_several_on_triangles_are_stored_with_their_triples_by_relation(tmp_path: Path) -> None:
    triples = [*random_graph(4), (0, 0, 20), (20, 1, 0)]  # the last two are a pair that is on no triangle
    found = find(triples, tmp_path)
    rows = defaultdict(list)
    for row, (head, relation, tail) in enumerate(triples):
        rows[tuple(sorted((head, tail)))].append((relation, head > tail, row))
    joined = {edge for cycle in ends_of(found, found.triangles[:, 3:]) for edge in cycle}
    names = ("pairs", "pair_ends", "pair_triples")
    nodes, ends, stored = (np.load(found.folder / f"{name}.npy", allow_pickle=False).tolist() for name in names)
    expected = sorted(pair for pair, of in rows.items() if len(of) > 1 and pair in joined)
    assert [tuple(pair) for pair in nodes] == expected
    assert [stored[start:end] for start, end in pairwise([0, *ends])] == [
        [row for _, _, row in sorted(rows[pair])] for pair in expected
    ]
    assert 0 < len(expected) < sum(len(of) > 1 for of in rows.values())


# Drawing diamonds.


def test_of_a_chord_with_many_diamonds_so_many_are_drawn(tmp_path: Path) -> None:
    triples = random_graph(2, nodes=30, triples=300)
    on = Counter(row[:2] for row in brute_force(triples)[1])
    for most in (1, 3, 20):
        found = find(triples, tmp_path, cycles_per_chord=most)
        drawn = [tuple(row) for row in found.diamonds[:, :4].tolist()]
        assert len(set(drawn)) == len(drawn)
        assert drawn == sorted(drawn)
        assert set(drawn) <= brute_force(triples)[1]
        assert Counter(row[:2] for row in drawn) == {chord: min(count, most) for chord, count in on.items()}
        assert found.counts["diamonds"] == sum(on.values())
        assert found.counts["diamonds_drawn"] == len(drawn)


def test_pages_of_a_book_are_drawn_uniformly() -> None:
    """Over keys, each of the 45 pairs of ten pages is drawn equally often."""
    pairs = np.array([(0, 1), *((spine, 2 + page) for spine in (0, 1) for page in range(10))], dtype=np.int32)
    chords, seeds = Chords.of(pairs, triangles_of(pairs, 12)), 1000
    drawn = Counter()
    for seed in range(seeds):
        _, low, high = chords.split(chords.drawn(mixed(seed, chords.chord), 5))
        drawn.update(zip(chords.apex[low].tolist(), chords.apex[high].tolist(), strict=True))
    assert sum(drawn.values()) == 5 * seeds
    expected = 5 * seeds / 45
    assert len(drawn) == 45
    # five of 45 without replacement: the variance is 8/9 of that of a multinomial, 44 degrees of freedom
    assert sum((count - expected) ** 2 / expected for count in drawn.values()) < 78.8


def test_of_one_node_set_one_diamond_stays_whichever_the_seed_says(tmp_path: Path) -> None:
    chords = Counter()
    for seed in range(60):
        (row,) = find(complete(4), tmp_path, seed=seed, cycles_unique_by=CycleKey.node_set).diamonds
        chords[tuple(row[:2].tolist())] += 1
    assert len(chords) == 6
    assert max(chords.values()) < 25


def test_pairs_are_numbered_without_a_gap_and_exactly() -> None:
    low, high = _pair(np.arange(45))
    assert list(zip(low.tolist(), high.tolist(), strict=True)) == [(x, y) for y in range(10) for x in range(y)]
    ys = np.arange(2, 5_000_000, 37)
    for step in (-1, 0):  # both sides of where the larger one changes, up to 1.2e13
        numbers = ys * (ys - 1) // 2 + step
        low, high = _pair(numbers)
        assert np.array_equal(high, ys + step)
        assert np.array_equal(high * (high - 1) // 2 + low, numbers)


@pytest.mark.parametrize("size", [1, 2, 3, 16, 17, 64, 65, 1000])
def test_places_are_permuted(size: int) -> None:
    sizes, keys = np.full(size, size), mixed(np.full(size, 7))
    assert sorted(_permuted(np.arange(size), sizes, keys).tolist()) == list(range(size))
    places, several = np.arange(3), np.array([3, 10**12, 5])
    alone = [_permuted(places[[n]], several[[n]], mixed(np.array([n])))[0] for n in range(3)]
    assert _permuted(places, several, mixed(places)).tolist() == alone


# Keys, signatures, balance.


def test_a_key_is_that_of_the_set() -> None:
    keys = cycle_key(np.array([[1, 2, 3], [3, 1, 2], [1, 2, 4]]))
    assert keys.dtype == np.int64
    assert keys[0] == keys[1] != keys[2]
    assert cycle_key(np.array([[1, 2, 3, 4]]))[0] not in keys
    assert cycle_key(np.array([[1, 2, 3]], dtype=np.int32))[0] == keys[0]
    every = cycle_key(np.array(list(combinations(range(30), 3))))
    assert len(set(every.tolist())) == 4060


def test_signatures_go_by_relations_in_any_order(tmp_path: Path) -> None:
    triples = [(0, relation, 1) for relation in range(4)]
    graph = Graph(save_graph(triples, tmp_path / "graph"))
    shown = ((0, 1, 2, 2, 3), (2, 1, 2, 0, 3), (3, 1, 2, 2, 0), (0, 1, 1, 2, 3))
    diamonds = np.array([[0, 0, 0, 0, *rows] for rows in shown])
    plain, chorded = signatures(graph, diamonds).tolist(), signatures(graph, diamonds, chord=True).tolist()
    assert plain[0] == plain[1] == plain[2] != plain[3]
    assert chorded[0] == chorded[1] != chorded[2]
    triangles = np.array([[0, 0, 0, *rows] for rows in ((0, 1, 1), (1, 0, 1), (0, 0, 1))])
    found = signatures(graph, triangles).tolist()
    assert found[0] == found[1] != found[2]


def capped(sizes: list[int], budget: int) -> tuple[list[int], int]:
    """min(n, cap) with the largest cap that meets the budget, and what is left of the budget."""
    cap = max(cap for cap in range(max(sizes) + 1) if sum(min(n, cap) for n in sizes) <= budget)
    found = [min(n, cap) for n in sizes]
    return found, budget - sum(found)


@pytest.mark.parametrize("budget", [1, 4, 5, 30, 77, 150, 200, 255])
def test_a_common_cap_meets_the_budget(budget: int) -> None:
    sizes = [1, 2, 40, 7, 205]
    signature = np.random.default_rng(0).permutation(np.repeat(np.arange(5), sizes))
    keys = cycle_key(np.arange(255)[:, None])
    kept = balanced(signature, keys, budget, 0.0, 3)
    assert len(kept) == budget
    counts = np.bincount(signature[kept], minlength=5).tolist()
    floor, left = capped(sizes, budget)
    assert sum(np.subtract(counts, floor)) == left
    assert all(0 <= more - least <= 1 for more, least in zip(counts, floor, strict=True))
    score = mixed(module.derive(3, "balanced"), keys)
    for one in range(5):
        own = np.flatnonzero(signature == one)
        assert set(kept) & set(own) == set(own[np.argsort(score[own])][: counts[one]])


def test_a_power_scales_the_shares() -> None:
    sizes = np.array([100, 400, 2500])
    signature = np.repeat(np.arange(3), sizes)
    keys = cycle_key(np.arange(3000)[:, None])
    for power in (0.25, 0.5, 1.0):
        share = sizes**power / (sizes**power).sum()
        counts = np.bincount(signature[balanced(signature, keys, 150, power, 0)], minlength=3)
        assert np.abs(counts - 150 * share).max() <= 1


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_balance_is_nested_free_of_order_and_keyed(power: float) -> None:
    rng = np.random.default_rng(1)
    signature, keys = (rng.random(500) ** 4 * 9).astype(np.int64), cycle_key(np.arange(500)[:, None])
    kept = [set(balanced(signature, keys, budget, power, 0).tolist()) for budget in range(0, 501, 20)]
    assert all(small < large for small, large in pairwise(kept))
    order = rng.permutation(500)
    shuffled = balanced(signature[order], keys[order], 120, power, 0)
    assert set(order[shuffled].tolist()) == kept[6]
    assert set(balanced(signature, keys, 120, power, 1).tolist()) != kept[6]
    for budget in (None, 500, 501):
        assert balanced(signature, keys, budget, power, 0).tolist() == list(range(500))
    assert balanced(signature[:0], keys[:0], 5, power, 0).tolist() == []


# Whole graphs.


def test_the_stage_knows_what_decides_its_tables() -> None:
    graph = Stage("graph", 1, {}, lambda *_: None)
    key = cycles_stage(graph, make_knowledge()).key
    for change in (
        {"cycles_length3": 5},
        {"cycles_balance": 0.0},
        {"cycles_align": Align.per_language},
        {"name": "other"},
    ):
        assert cycles_stage(graph, make_knowledge(**change)).key == key
    for change in ({"seed": 1}, {"cycles_per_chord": 5}, {"cycles_multi": Multi.last}):
        assert cycles_stage(graph, make_knowledge(**change)).key != key
    assert cycles_stage(graph, make_knowledge(cycles_unique_by=CycleKey.node_set)).key != key
    assert cycles_stage(Stage("graph", 1, {"a": 1}, lambda *_: None), make_knowledge()).key != key


def stored(knowledge: Knowledge, folder: Path) -> tuple[Path, dict[str, int]]:
    place = Store(folder).get(cycles_stage(graph_stage(knowledge, locate(knowledge)), knowledge))
    return place, json.loads((place / "cycles.json").read_text())


def test_the_toy_graph_has_thousands_of_cycles_of_many_kinds(tmp_path: Path) -> None:
    _, counts = stored(make_knowledge(), tmp_path)
    assert counts["triangles"] > 3000
    assert counts["node_sets"] > 5000
    assert counts["signatures3"] >= 30
    assert counts["signatures4"] > 150


def test_the_small_real_graph(real_data: Path, tmp_path: Path) -> None:
    files = {"triples": "triples.tsv.gz", "entities": "entities.tsv.gz", "relations": "relations.tsv"}
    knowledge = make_knowledge(
        reader="wikidata_tables", languages=["en", "zh"], files=files, path=str(real_data / "wikidata-mini"),
    )  # fmt: skip
    place, counts = stored(knowledge, tmp_path)
    exact = {"pairs": 266_739, "pairs_of_several": 9_631, "triangles": 145_286, "diamonds": 15_974_093}
    assert {name: counts[name] for name in exact} == exact
    graph = Graph(Store(tmp_path).get(graph_stage(knowledge, locate(knowledge))))
    stored_pairs = Pairs.of(graph)
    head, relation, tail = graph.triples.T
    kinds = np.unique(np.stack([np.minimum(head, tail), np.maximum(head, tail), relation], axis=1), axis=0)
    _, different = np.unique(kinds[:, :2], axis=0, return_counts=True)  # relations of each pair, whichever direction
    triangles = triangles_of(stored_pairs.nodes, len(graph.entities))
    assert different[triangles].prod(axis=1).sum() == 180_632
    table = np.load(place / "diamonds.npy", mmap_mode="r", allow_pickle=False)
    assert len(table) == counts["diamond_rows"] == counts["diamonds_drawn"]


def test_the_benchmark_runs_at_a_small_size() -> None:
    spec = importlib.util.spec_from_file_location("benchmark_graph", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    benchmark = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = benchmark
    spec.loader.exec_module(benchmark)
    found = benchmark.measure(60_000, 15_000)
    assert 59_000 < found["graph"]["triples"] <= 60_000
    assert found["cycles"]["triangles"] > 10_000
    assert found["largest degree"] > 3_000
    assert found["cycles"]["diamonds"] > 100 * found["cycles"]["diamonds_drawn"]  # hubs: not to be enumerated
