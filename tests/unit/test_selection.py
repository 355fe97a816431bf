"""Important mentions and members of the memory: worked numbers, and plain loops over random sentences."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import pytest

from kbench.knowledge.selection import MEMBERS, RULES, mean_frequency, members, rare, select, si

# entities A..E of a graph: mentions in the corpus and triples; E is never mentioned. Mean of those that occur: 5
FREQUENCY = np.array([14, 3, 2, 1, 0])
DEGREE = np.array([50, 0, 7, 1, 9])
A, B, C, D, E = range(5)
# two sentences, the second without a common entity; -1 is unknown to the graph and has no cosine
SENTENCE = np.array([4, 4, 4, 4, 4, 9, 9])
ENTITY = np.array([A, B, C, -1, D, C, D])
COSINE = np.array([0.8, 0.5, 0.4, np.nan, 1.0, 0.25, 0.5], dtype=np.float32)


def chosen(rule: str, k: int = 1, **more: object) -> list[int]:
    found = select(rule, COSINE, SENTENCE, ENTITY, FREQUENCY, DEGREE, k, **more)  # type: ignore[arg-type]
    assert found.dtype == bool and found.shape == (7,)
    return np.flatnonzero(found).tolist()


def test_semantic_importance() -> None:
    cosine = np.array([1.0, 0.5, 0.0, -0.7, 1e-9])
    assert si(cosine).tolist() == [1, 2, 1e6, 1e6, 1e6], "1 where nothing changes, the cap where all does"
    assert np.allclose(si(cosine, "one_minus_cosine"), [0, 0.5, 1, 1.7, 1])
    positive = np.random.default_rng(1).uniform(0.01, 1, 500)
    assert (np.argsort(si(positive)) == np.argsort(si(positive, "one_minus_cosine"))).all()
    assert np.isnan(si(np.array([np.nan]))).all()
    with pytest.raises(ValueError, match="no such score: cosine"):
        si(cosine, "cosine")


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        # 1.25, 2, 2.5 and 1, mean 1.6875; 4 and 2, mean 3
        ("si_above_mean", [1, 2, 5]),
        ("si_top_k", [2, 5]),
        # 0 (B), 0.4 log 8 = 0.832 (C), log 2 = 0.693 (D), mean 0.508: B; 0.520 and 0.347, mean 0.433: D
        ("klt", [1, 6]),
        ("long_tail", [1, 2, 4, 5, 6]),
        ("high_frequency", [0]),
        ("all", [0, 1, 2, 4, 5, 6]),
        ("none", []),
    ],
)
def test_each_rule_on_two_sentences(rule: str, expected: list[int]) -> None:
    assert chosen(rule) == expected


def test_scores_have_other_means() -> None:
    cosine, same = np.array([0.1, 0.5, 0.6, 0.35]), np.zeros(4, dtype=np.int64)

    def found(score: str) -> list[bool]:
        return select("si_above_mean", cosine, same, same, FREQUENCY, DEGREE, score=score).tolist()

    # 10, 2, 1.67, 2.86: mean 4.1; 0.9, 0.5, 0.4, 0.65: mean 0.61
    assert found("inverse_cosine") == [True, False, False, False]
    assert found("one_minus_cosine") == [True, False, False, True]


def test_top_k_takes_the_earlier_of_equal_ones() -> None:
    assert chosen("si_top_k", 2) == [1, 2, 5, 6]
    assert chosen("si_top_k", 100) == [0, 1, 2, 4, 5, 6]
    equal = select("si_top_k", np.full(5, 0.3), np.array([7, 2, 7, 7, 2]), np.zeros(5, int), FREQUENCY, DEGREE, 2)
    assert equal.tolist() == [True, True, True, False, True]


@pytest.mark.parametrize("size", [1, 3, 7, 49])
def test_equal_mentions_are_all_at_their_mean(size: int) -> None:
    cosine = np.full(size, 0.3, dtype=np.float32)
    sentence, entity = np.zeros(size, dtype=np.int64), np.full(size, D)
    assert select("si_above_mean", cosine, sentence, entity, FREQUENCY, DEGREE).all()
    assert select("klt", cosine, sentence, entity, FREQUENCY, DEGREE).all(), "a lone one is its own average"


def test_klt_reads_the_plain_cosine_and_leaves_the_frequent_out() -> None:
    # two rare mentions of one entity: the one that matters more, with the lower cosine, is taken
    cosine, entity = np.array([0.9, 0.2, 0.01]), np.array([C, C, A])
    sentence = np.zeros(3, dtype=np.int64)
    # with 0 for the frequent one the mean would be 0.37 log 8, and it would be below it itself
    assert select("klt", cosine, sentence, entity, FREQUENCY, DEGREE).tolist() == [False, True, False]
    assert not select("klt", cosine, sentence, np.full(3, A), FREQUENCY, DEGREE).any()


def test_frequency_is_of_those_that_occur() -> None:
    assert mean_frequency(FREQUENCY) == 5
    assert mean_frequency(np.zeros(4, dtype=np.int64)) == 0
    assert mean_frequency(np.zeros(0, dtype=np.int64)) == 0
    assert rare(np.array([A, B, -1]), FREQUENCY).tolist() == [False, True, False]
    assert chosen("long_tail", edge=2.0) == [4, 6] and chosen("high_frequency", edge=2.0) == [0, 1, 2, 5]
    assert chosen("klt", edge=2.0) == [4, 6]


def test_members() -> None:
    important = select("high_frequency", COSINE, SENTENCE, ENTITY, FREQUENCY, DEGREE)
    found = {kind: np.flatnonzero(members(kind, important, ENTITY, FREQUENCY)).tolist() for kind in MEMBERS}
    assert found == {"important": [0], "important+long_tail": [0, 1, 2, 4, 5, 6], "all": [0, 1, 2, 4, 5, 6]}
    none = np.zeros(7, dtype=bool)
    assert np.flatnonzero(members("important+long_tail", none, ENTITY, FREQUENCY, edge=2.0)).tolist() == [4, 6]
    assert np.flatnonzero(members("important", np.ones(7, dtype=bool), ENTITY, FREQUENCY)).tolist() == [
        0,
        1,
        2,
        4,
        5,
        6,
    ]
    with pytest.raises(ValueError, match="no such members: some"):
        members("some", important, ENTITY, FREQUENCY)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="no such rule: rare"):
        chosen("rare")
    without = np.where(np.arange(7) == 2, np.nan, COSINE)
    for rule in ("si_above_mean", "si_top_k", "klt"):
        with pytest.raises(ValueError, match="a linked mention has no cosine"):
            select(rule, without, SENTENCE, ENTITY, FREQUENCY, DEGREE)
    nothing = np.zeros(7) * np.nan
    assert select("long_tail", nothing, SENTENCE, ENTITY, FREQUENCY, DEGREE).sum() == 5


# A second implementation, one sentence at a time.


def naive(
    rule: str, cosine: list[float], entity: list[int], frequency: list[int], degree: list[int], k: int
) -> set[int]:
    occur = [count for count in frequency if count]
    mean = sum(occur) / len(occur)
    known = [place for place, one in enumerate(entity) if one >= 0]
    tail = [place for place in known if frequency[entity[place]] < mean]
    if rule in ("all", "none", "long_tail", "high_frequency"):
        return set({"all": known, "none": [], "long_tail": tail, "high_frequency": set(known) - set(tail)}[rule])
    if rule == "klt":
        value = {place: cosine[place] * math.log(1 + degree[entity[place]]) for place in tail}
        average = math.fsum(value.values()) / max(1, len(value))
        return {place for place, one in value.items() if one <= average + 1e-9}
    value = {place: 1 / max(cosine[place], 1e-6) for place in known}
    if rule == "si_top_k":
        return set(sorted(known, key=lambda place: (-value[place], place))[:k])
    average = math.fsum(value.values()) / max(1, len(value))
    return {place for place, one in value.items() if one >= average - 1e-9}


@pytest.mark.parametrize("rule", RULES)
def test_rules_agree_with_a_loop(rule: str) -> None:
    random = np.random.default_rng(3)
    frequency, degree = random.geometric(0.2, 40) - 1, random.integers(0, 30, 40)
    size = 400
    sentence = random.integers(0, 90, size) + 10**12
    occurring = np.append(np.flatnonzero(frequency), -1)
    entity, cosine = random.choice(occurring, size), random.uniform(-0.1, 1, size).astype(np.float32)
    cosine[entity < 0] = np.nan
    found = select(rule, cosine, sentence, entity, frequency, degree, 2)
    groups = defaultdict(list)
    for place, number in enumerate(sentence.tolist()):
        groups[number].append(place)
    expected = set()
    for places in groups.values():
        own = naive(rule, cosine[places].tolist(), entity[places].tolist(), frequency.tolist(), degree.tolist(), 2)
        expected |= {places[one] for one in own}
    assert set(np.flatnonzero(found).tolist()) == expected
    assert rule in ("none", "all") or 0 < len(expected) < size
    # a batch of whole sentences gives the same
    some = np.flatnonzero(sentence < 10**12 + 40)
    part = select(rule, cosine[some], sentence[some], entity[some], frequency, degree, 2)
    assert (part == found[some]).all()


def test_nothing_is_selected_of_nothing() -> None:
    none = np.zeros(0, dtype=np.int64)
    for rule in RULES:
        assert select(rule, none.astype(np.float32), none, none, FREQUENCY, DEGREE).shape == (0,)
