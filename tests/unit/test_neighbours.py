"""What stands around an entity: every answer against a plain walk over the triples, every draw against its shares."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from kbench.engine.counter import mixed
from kbench.knowledge import neighbours as module
from kbench.knowledge.neighbours import Neighbours

ENTITIES, RELATIONS, ALONE = 40, 4, 39

# 0 knows 1 twice, 2 once, and is known by 3; 5 is known by 3, too
SMALL = np.array([[0, 0, 1], [3, 1, 0], [0, 1, 1], [0, 0, 2], [3, 1, 5]], dtype=np.int32)


def random_triples(size: int = 160, seed: int = 0, entities: int = ENTITIES) -> np.ndarray:
    """Distinct triples without self-loops, in no order; entity 39 is in none."""
    rng = np.random.default_rng(seed)
    drawn = np.stack([rng.integers(0, top, 4 * size) for top in (entities - 1, RELATIONS, entities - 1)], axis=1)
    drawn = drawn[drawn[:, 0] != drawn[:, 2]]
    _, first = np.unique(drawn, axis=0, return_index=True)
    return drawn[np.sort(first)][:size].astype(np.int32)


def incident(triples: np.ndarray, entity: int) -> list[tuple[int, bool]]:
    """(row, whether the entity is the head) in the order of the file."""
    return [(row, bool(head == entity)) for row, (head, _, tail) in enumerate(triples) if entity in (head, tail)]


def walked(triples: np.ndarray, hops: int) -> list[int]:
    """Entities within so many steps of each."""
    near: list[set[int]] = [set() for _ in range(ENTITIES)]
    for head, _, tail in triples.tolist():
        near[head].add(tail)
        near[tail].add(head)
    found = []
    for entity in range(ENTITIES):
        reached = set(near[entity])
        for _ in range(hops - 1):
            reached |= set().union(*(near[one] for one in reached))
        found.append(len(reached - {entity}))
    return found


@pytest.fixture(params=["one sort", "numbers too large for one"])
def triples(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    if request.param != "one sort":
        monkeypatch.setattr(module, "_LARGEST", 0)
    return random_triples()


def test_degree_and_reach(triples: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    around = Neighbours(triples, ENTITIES)
    assert around.degree.tolist() == [len(incident(triples, entity)) for entity in range(ENTITIES)]
    assert around.reach(1).tolist() == walked(triples, 1)
    assert around.reach(2).tolist() == walked(triples, 2)
    monkeypatch.setattr(module, "_BLOCK", 50)
    assert around.reach(2).tolist() == walked(triples, 2)
    with pytest.raises(ValueError, match="hops must be 1 or 2, is 3"):
        around.reach(3)


def test_two_steps_of_a_large_graph_are_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    size = 3000
    # a hub that half of all know, and a ring
    near = np.arange(size)
    ring = np.stack([near, np.zeros(size, dtype=int), (near + 1) % size], axis=1)
    hub = np.stack([1 + rng.permutation(size - 1)[: size // 2], np.ones(size // 2, dtype=int)], axis=1)
    known = np.concatenate([ring, np.concatenate([hub, np.zeros((size // 2, 1), dtype=int)], axis=1)])
    around = Neighbours(known.astype(np.int32), size)
    exact = around.reach(2)
    assert exact.max() > 2000 and exact.min() == 4
    monkeypatch.setattr(module, "_EXACT", 0)
    for block in (module._SKETCHES, 100):  # the hub has more than 100 neighbours
        monkeypatch.setattr(module, "_SKETCHES", block)
        estimated = around.reach(2)
        large = exact > 1000
        assert np.abs(estimated[large] / exact[large] - 1).max() < 0.27  # three times the error that is promised
        assert np.abs(estimated - exact)[~large].max() <= 3
        assert (estimated == exact)[exact == 4].mean() > 0.9


def test_first(triples: np.ndarray) -> None:
    found, is_head = Neighbours(triples, ENTITIES).first(np.array([*range(ENTITIES), -1]))
    for entity in range(ENTITIES):
        wanted = incident(triples, entity)
        assert (found[entity], is_head[entity]) == (wanted[0] if wanted else (-1, False))
    assert (found[ALONE], found[-1], is_head[-1]) == (-1, -1, False)


def test_a_draw_is_uniform_over_what_is_incident() -> None:
    found, is_head = Neighbours(SMALL, 6).draw(np.zeros(20_000, dtype=int), mixed(7, np.arange(20_000)))
    counts = Counter(zip(found.tolist(), is_head.tolist(), strict=True))
    assert set(counts) == {(0, True), (1, False), (2, True), (3, True)}
    assert all(abs(count / 20_000 - 0.25) < 0.015 for count in counts.values())


def test_a_draw_is_a_function_of_its_key(triples: np.ndarray) -> None:
    around = Neighbours(triples, ENTITIES)
    entities, keys = np.arange(ENTITIES), mixed(1, np.arange(ENTITIES))
    found, is_head = around.draw(entities, keys)
    order = np.random.default_rng(0).permutation(ENTITIES)
    again = around.draw(entities[order], keys[order])
    assert again[0].tolist() == found[order].tolist()
    assert again[1].tolist() == is_head[order].tolist()
    assert around.draw(entities, keys + np.uint64(1))[0].tolist() != found.tolist()
    for entity in entities:
        assert (found[entity], is_head[entity]) in (incident(triples, entity) or [(-1, False)])
    assert found[ALONE] == -1
    assert [part.tolist() for part in around.draw(np.array([-1]), np.array([5]))] == [[-1], [False]]


def test_only_what_is_allowed_is_drawn(triples: np.ndarray) -> None:
    allowed = np.random.default_rng(1).random(len(triples)) < 0.3
    around, every = Neighbours(triples, ENTITIES, allowed), Neighbours(triples, ENTITIES)
    keys = mixed(2, np.arange(200 * ENTITIES))
    entities = np.tile(np.arange(ENTITIES), 200)
    drawn, is_head = around.draw(entities, keys)
    pairs = {(int(e), int(row), bool(side)) for e, row, side in zip(entities, drawn, is_head, strict=True) if row >= 0}
    wanted = {(e, *one) for e in range(ENTITIES) for one in incident(triples, e) if allowed[one[0]]}
    assert pairs == wanted  # 200 draws of a handful each: all of them come up
    first, _ = around.first(np.arange(ENTITIES))
    assert first.tolist() == [
        min((row for e, row, _ in wanted if e == entity), default=-1) for entity in range(ENTITIES)
    ]
    # what is true, and how much stands around an entity, is a matter of the whole graph
    assert around.degree.tolist() == every.degree.tolist()
    rows, sides = np.arange(len(triples)), np.ones(len(triples), dtype=bool)
    assert around.others(rows, sides, 99)[0].tolist() == every.others(rows, sides, 99)[0].tolist()
    none = Neighbours(triples, ENTITIES, np.zeros(len(triples), dtype=bool))
    assert (none.draw(entities, keys)[0] == -1).all()
    assert (none.first(entities)[0] == -1).all()


def test_a_partner_of_the_same_group_goes_first() -> None:
    around = Neighbours(SMALL, 6)
    #            0 with 1, twice named; 3 with 5; 0 with 4, whom it does not know; unknown; alone
    entities = np.array([0, 1, 1, 3, 5, 0, 4, -1, 2])
    groups = np.array([7, 7, 7, 2, 2, 9, 9, 7, 4])
    turns, size = 3000, len(entities)
    keys = mixed(1, np.arange(turns * size))
    apart = (groups + 100 * np.arange(turns)[:, None]).ravel()
    found, is_head = (part.reshape(turns, size) for part in around.partner(np.tile(entities, turns), apart, keys))
    seen = [Counter(zip(found[:, one].tolist(), is_head[:, one].tolist(), strict=True)) for one in range(size)]
    drawn = around.draw(np.tile(entities, turns), keys)[0].reshape(turns, size)
    assert (found[:, 5:] == drawn[:, 5:]).all()
    assert set(seen[0]) == {(0, True), (2, True)}
    assert set(seen[1]) == set(seen[2]) == {(0, False), (2, False)}
    assert abs(seen[0][0, True] / 3000 - 0.5) < 0.04
    assert (set(seen[3]), set(seen[4])) == ({(4, True)}, {(4, False)})
    assert set(seen[5]) == {(0, True), (1, False), (2, True), (3, True)}
    assert (set(seen[6]), set(seen[7]), set(seen[8])) == ({(-1, False)}, {(-1, False)}, {(3, False)})


def test_partners_against_a_plain_search(triples: np.ndarray) -> None:
    rng = np.random.default_rng(5)
    allowed = rng.random(len(triples)) < 0.7
    around = Neighbours(triples, ENTITIES, allowed)
    entities, groups = rng.integers(-1, ENTITIES, 300), rng.integers(0, 50, 300)
    found, is_head = around.partner(entities, groups, mixed(1, np.arange(300)))
    joined = 0
    for place, entity in enumerate(entities):
        mates = set(entities[groups == groups[place]].tolist()) - {-1, entity}
        around_it = [one for one in incident(triples, entity) if entity >= 0 and allowed[one[0]]]
        wanted = [(row, side) for row, side in around_it if mates & set(triples[row, [0, 2]].tolist())]
        joined += bool(wanted)
        assert (found[place], is_head[place]) in (wanted or around_it or [(-1, False)])
    assert joined > 50


@pytest.mark.parametrize("most", [99, 2, 0])
def test_other_answers(triples: np.ndarray, most: int) -> None:
    around = Neighbours(triples, ENTITIES)
    rows = np.concatenate([np.arange(len(triples)), np.arange(len(triples)), [-1, -1]])
    is_head = np.concatenate([np.ones(len(triples)), np.zeros(len(triples)), [1, 0]]).astype(bool)
    found, ends = around.others(rows, is_head, most)
    assert (found.dtype, ends.dtype) == (np.int32, np.int64)
    several = 0
    for place, (row, side) in enumerate(zip(rows, is_head, strict=True)):
        own = found[ends[place - 1] if place else 0 : ends[place]].tolist()
        if row < 0:
            assert own == []
            continue
        given, asked = (0, 2) if side else (2, 0)
        same = (triples[:, given] == triples[row, given]) & (triples[:, 1] == triples[row, 1])
        same[row] = False
        wanted = triples[same, asked].tolist()
        several += len(wanted) > 1
        assert own == wanted[:most]
    assert several > 10


def test_a_graph_on_disk_is_not_copied(tmp_path, triples: np.ndarray) -> None:
    np.save(tmp_path / "triples.npy", triples)
    mapped = np.load(tmp_path / "triples.npy", mmap_mode="r")
    around = Neighbours(mapped, ENTITIES)
    assert around.triples is mapped
    entities, keys = np.arange(ENTITIES), mixed(1, np.arange(ENTITIES))
    assert around.draw(entities, keys)[0].tolist() == Neighbours(triples, ENTITIES).draw(entities, keys)[0].tolist()
