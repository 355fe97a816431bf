"""Masking: every rule against a plain loop over one sample, and against its probabilities over many."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from kbench.engine.counter import below, mixed, uniform
from kbench.knowledge.masking import LONG, SHORT, Draw, Masked, Masking, Role, mask_ordinary, mask_reasoning

CLS, SEP, MASK, PAD, PERIOD, FIRST, SIZE = 2, 3, 4, 0, 5, 10, 1000
MANY = 20_000
COMPAT = Masking(linkers="compat", period_loss=True)

Sample = tuple[list[int], list[int], list[int]]  # ids, roles, spans


def sample(sentences: int, lengths: list[int], width: int = 128) -> Sample:
    """A sample whose names have some tokens, lengths used in turn; cut to `width` tokens."""
    ids, roles, spans = [CLS], [int(Role.SPECIAL)], [-1]
    for sentence in range(sentences):
        for part, role in enumerate((Role.HEAD, Role.RELATION, Role.TAIL)):
            span = 3 * sentence + part
            length = lengths[span % len(lengths)]
            ids += [FIRST + span * 10 + place for place in range(length)]
            roles += [int(role)] * length
            spans += [span] * length
            ids.append(MASK if part < 2 else PERIOD)
            roles.append(int(Role.LINKER if part < 2 else Role.PERIOD))
            spans.append(-1)
    ids, roles, spans = ids[: width - 1], roles[: width - 1], spans[: width - 1]
    return [*ids, SEP], [*roles, int(Role.SPECIAL)], [*spans, -1]


def padded(samples: list[Sample], width: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    width = max(width, *(len(ids) for ids, _, _ in samples))
    fills = (PAD, int(Role.PAD), -1)
    ids, roles, spans = (
        np.array([one[index] + [fill] * (width - len(one[index])) for one in samples])
        for index, fill in enumerate(fills)
    )
    return ids, roles.astype(np.int8), spans.astype(np.int8)


def keys_of(count: int, seed: int = 1) -> np.ndarray:
    return mixed(seed, np.arange(count))


def labels_of(found: Masked) -> np.ndarray:
    """The labels as a rectangle, -100 where there is none."""
    labels = np.full(found.input_ids.size, -100)
    labels[found.positions] = found.labels
    return labels.reshape(found.input_ids.shape)


def ordinary(samples: list[Sample], rules: Masking, seed: int = 1) -> tuple[np.ndarray, np.ndarray, Masked]:
    """(ids, roles, what was made of them)"""
    ids, roles, _ = padded(samples)
    return ids, roles, mask_ordinary(ids, roles, keys_of(len(samples), seed), rules, MASK, SIZE)


def reasoning(samples: list[Sample], sentences: int, rules: Masking) -> tuple[np.ndarray, np.ndarray, Masked]:
    """(roles, spans, what was made of them)"""
    ids, roles, spans = padded(samples)
    counts = np.full(len(samples), sentences)
    return roles, spans, mask_reasoning(ids, roles, spans, counts, keys_of(len(samples)), rules, MASK)


def hidden(spans: np.ndarray, found: Masked) -> list[frozenset[int]]:
    """The spans of each sample with a label in them; each must be labelled as a whole."""
    labelled = labels_of(found) != -100
    sets = []
    for row, marks in zip(spans, labelled, strict=True):
        here = frozenset(row[marks].tolist())
        assert -1 not in here
        assert all(marks[row == span].all() for span in here)
        sets.append(here)
    return sets


# A second implementation, one sample and one token at a time.


def naive_ordinary(one: Sample, key: int, rules: Masking) -> tuple[list[int], list[int]]:
    """(input ids, labels) by the list of the facts: select, free the links of their label, 80/10/10."""
    ids, roles, _ = one
    inputs, labels = [], []
    for place, (token, role) in enumerate(zip(ids, roles, strict=True)):
        drawn = role != Role.SPECIAL
        if rules.linkers == "strict":
            drawn = drawn and role != Role.LINKER and (rules.period_loss or role != Role.PERIOD)
        if not drawn or float(uniform(key, Draw.SELECTED, place)) >= rules.probability:
            inputs.append(token)
            labels.append(-100)
            continue
        chance = float(uniform(key, Draw.REPLACED, place))
        if chance < 0.8:
            inputs.append(MASK)
        elif chance < 0.9:
            inputs.append(int(below(SIZE, key, Draw.TOKEN, place)))
        else:
            inputs.append(token)
        scored = role in (Role.HEAD, Role.RELATION, Role.TAIL, Role.WORD) or (role == Role.PERIOD and rules.period_loss)
        labels.append(token if scored else -100)
    return inputs, labels


def naive_reasoning(one: Sample, sentences: int, key: int, rules: Masking) -> tuple[list[int], list[int]]:
    ids, roles, spans = one
    if rules.length == "linkers":
        links = roles.count(int(Role.LINKER))
        sentences = 0 if links < 6 else SHORT if links == 6 else LONG
    chosen: set[int] = set()
    if sentences == SHORT:
        chosen = {[1, 4, 7][int(below(3, key, Draw.RELATION))]}
    elif sentences == LONG and float(uniform(key, Draw.WHOLE)) < rules.sentence_probability:
        start = 3 * int(below(5, key, Draw.SENTENCE))
        chosen = {start, start + 2}
    elif sentences == LONG:
        chosen = {[1, 4, 7, 10, 13][int(below(5, key, Draw.RELATION))]}
        places = [0, 2, 3, 5, 6, 8, 9, 11, 12, 14]
        chosen.add(places.pop(int(below(10, key, Draw.FIRST))))
        if int(below(2, key, Draw.ENTITIES)):
            chosen.add(places.pop(int(below(9, key, Draw.SECOND))))
    hit = [span in chosen for span in spans]
    inputs = [MASK if masked else token for token, masked in zip(ids, hit, strict=True)]
    return inputs, [token if masked else -100 for token, masked in zip(ids, hit, strict=True)]


LENGTHS = [[1, 1, 1], [3, 2, 4], [1, 5, 2, 7], [9, 1, 12]]
RULES = [
    Masking(),
    COMPAT,
    Masking(period_loss=True),
    Masking(linkers="compat"),
    Masking(probability=0.9, sentence_probability=0.7, length="linkers"),
]


@pytest.mark.parametrize("rules", RULES, ids=str)
@pytest.mark.parametrize("width", [128, 24, 9, 4])
def test_both_rules_equal_a_loop_over_one_sample(rules: Masking, width: int) -> None:
    sentences = [1, SHORT, LONG] * 40
    samples = [sample(count, LENGTHS[number % 4], width) for number, count in enumerate(sentences)]
    keys = keys_of(len(samples))
    found = ordinary(samples, rules)[2]
    ids, roles, spans = padded(samples)
    cycles = mask_reasoning(ids, roles, spans, np.array(sentences), keys, rules, MASK)
    for row, (one, count, key) in enumerate(zip(samples, sentences, keys.tolist(), strict=True)):
        size = len(one[0])
        for made, (inputs, labels) in (
            (found, naive_ordinary(one, key, rules)),
            (cycles, naive_reasoning(one, count if count > 1 else 0, key, rules)),
        ):
            if made is cycles and count == 1 and rules.length == "own":
                labels = [-100] * size
            assert made.input_ids[row, :size].tolist() == inputs
            assert labels_of(made)[row, :size].tolist() == labels
            assert made.attention_mask[row].tolist() == [1] * size + [0] * (ids.shape[1] - size)
            assert set(made.input_ids[row, size:].tolist()) <= {PAD}


def test_a_batch_has_the_promised_form() -> None:
    _, _, found = ordinary([sample(1, [2]), sample(SHORT, [3])], Masking(probability=0.5))
    assert [found.input_ids.ndim, found.attention_mask.shape] == [2, found.input_ids.shape]
    assert {array.dtype for array in (found.input_ids, found.attention_mask)} == {np.dtype(np.int64)}
    assert found.positions.dtype == found.labels.dtype == np.int64
    assert len(found.positions) == len(found.labels) > 0
    assert (np.diff(found.positions) > 0).all()


# The tests of the facts, 1.8.


def test_links_are_the_mask_without_a_label() -> None:
    samples = [sample(1, [2, 1, 3])] * MANY
    _, roles, found = ordinary(samples, Masking())
    links = roles == Role.LINKER
    assert links.sum() == 2 * MANY
    assert (found.input_ids[links] == MASK).all()
    assert (labels_of(found)[links] == -100).all()


def test_compat_makes_some_links_a_random_token_but_never_a_label() -> None:
    samples = [sample(1, [2, 1, 3])] * MANY
    _, roles, found = ordinary(samples, COMPAT)
    links = roles == Role.LINKER
    other = (found.input_ids[links] != MASK).mean()
    assert 1 - other >= 0.98
    assert other == pytest.approx(0.15 * 0.1, abs=0.003)  # 0.15 selected, a tenth of them random
    assert (labels_of(found)[links] == -100).all()


def test_of_a_short_cycle_one_relation_is_hidden_each_as_often() -> None:
    _, spans, found = reasoning([sample(SHORT, [2, 3, 1])] * MANY, SHORT, Masking())
    counts = Counter(hidden(spans, found))
    assert set(counts) == {frozenset({1}), frozenset({4}), frozenset({7})}
    assert all(count / MANY == pytest.approx(1 / 3, abs=0.015) for count in counts.values())


def test_of_a_long_cycle_a_sentence_or_a_relation_with_entities_is_hidden() -> None:
    _, spans, found = reasoning([sample(LONG, [2, 1, 1])] * MANY, LONG, Masking())
    relations, entities = {1, 4, 7, 10, 13}, {0, 2, 3, 5, 6, 8, 9, 11, 12, 14}
    whole: Counter[frozenset[int]] = Counter()
    relation: Counter[int] = Counter()
    ones: Counter[int] = Counter()
    twos: Counter[frozenset[int]] = Counter()
    for chosen in hidden(spans, found):
        if not chosen & relations:
            whole[chosen] += 1
            continue
        (named,) = chosen & relations
        relation[named] += 1
        places = chosen & entities
        assert len(places) in (1, 2)
        if len(places) == 1:
            ones[min(places)] += 1
        else:
            twos[places] += 1
    assert whole.total() / MANY == pytest.approx(0.2, abs=0.01)
    assert set(whole) == {frozenset({start, start + 2}) for start in (0, 3, 6, 9, 12)}
    rest = relation.total()
    assert whole.total() + rest == MANY
    assert ones.total() / rest == pytest.approx(0.5, abs=0.015)
    even = ((whole, 5), (relation, 5), (ones, 10), (twos, 45))
    for counts, kinds in even:
        assert len(counts) == kinds
        # chi-square with kinds - 1 degrees of freedom: mean kinds - 1, variance 2 (kinds - 1); 5 deviations
        expected = counts.total() / kinds
        chi = sum((count - expected) ** 2 / expected for count in counts.values())
        assert chi < kinds - 1 + 5 * (2 * (kinds - 1)) ** 0.5
    assert set(twos) == {frozenset(pair) for pair in combinations(sorted(entities), 2)}


def test_the_sentence_and_the_places_of_a_long_cycle_do_not_hang_together() -> None:
    _, spans, found = reasoning([sample(LONG, [1])] * MANY, LONG, Masking(sentence_probability=0))
    pairs = Counter(
        (min(chosen & {1, 4, 7, 10, 13}), min(chosen - {1, 4, 7, 10, 13})) for chosen in hidden(spans, found)
    )
    # the masked relation's own sentence is as likely as any other to give the entity
    own = sum(count for (relation, entity), count in pairs.items() if entity // 3 == relation // 3)
    by_chance = sum(
        sum(n for (r, _), n in pairs.items() if r // 3 == sentence)
        * sum(n for (_, e), n in pairs.items() if e // 3 == sentence)
        for sentence in range(5)
    )
    assert own / MANY == pytest.approx(by_chance / MANY**2, abs=0.015)


@pytest.mark.parametrize("sentences", [SHORT, LONG])
def test_what_is_to_be_guessed_of_a_cycle_is_always_the_mask(sentences: int) -> None:
    roles, _, found = reasoning([sample(sentences, [2, 3, 1])] * 2000, sentences, Masking())
    assert (found.input_ids.reshape(-1)[found.positions] == MASK).all()
    assert found.labels.min() >= FIRST
    rest = np.setdiff1d(np.flatnonzero(roles != Role.LINKER), found.positions)
    assert MASK not in found.input_ids.reshape(-1)[rest]


def test_of_ordinary_tokens_15_percent_are_selected_80_10_10() -> None:
    samples = [sample(1, [6, 4, 7])] * MANY
    ids, roles, found = ordinary(samples, Masking())
    words = np.isin(roles, (Role.HEAD, Role.RELATION, Role.TAIL))
    assert len(found.positions) / words.sum() == pytest.approx(0.15, abs=0.003)
    now, before = found.input_ids.reshape(-1)[found.positions], found.labels
    assert (before == ids.reshape(-1)[found.positions]).all()
    masked, same = now == MASK, now == before
    assert masked.mean() == pytest.approx(0.8, abs=0.01)
    assert same.mean() == pytest.approx(0.1, abs=0.01)
    random = now[~masked & ~same]
    assert len(random) / len(now) == pytest.approx(0.1, abs=0.01)
    # uniform over the whole vocabulary, special tokens included
    assert [random.min(), random.max()] == [0, SIZE - 1]
    tenths = np.bincount(random * 10 // SIZE, minlength=10) / len(random)
    assert tenths == pytest.approx(np.full(10, 0.1), abs=0.015)
    # every place of a sample is as likely as every other
    shares = (labels_of(found) != -100).mean(0)[words[0]]
    assert shares == pytest.approx(np.full(words[0].sum(), 0.15), abs=0.015)


@pytest.mark.parametrize("rules", RULES[:4], ids=str)
def test_no_label_stands_on_a_token_that_is_not_guessed(rules: Masking) -> None:
    samples = [sample(1 + number % 3, LENGTHS[number % 4]) for number in range(4000)]
    ids, roles, found = ordinary(samples, rules)
    labelled = Counter(roles.reshape(-1)[found.positions].tolist())
    spoken = {Role.HEAD, Role.RELATION, Role.TAIL} | ({Role.PERIOD} if rules.period_loss else set())
    assert set(labelled) == spoken
    kept = np.isin(roles, (Role.SPECIAL, Role.PAD))
    assert (found.input_ids[kept] == ids[kept]).all()
    if rules.period_loss:
        assert labelled[Role.PERIOD] / (roles == Role.PERIOD).sum() == pytest.approx(0.15, abs=0.02)


def test_plain_text_is_masked_wherever_it_is_no_special_token() -> None:
    roles = np.array([[0, 6, 6, 6, 6, 0, -1]] * MANY, dtype=np.int8)
    ids = np.array([[CLS, 11, 12, 13, PERIOD, SEP, PAD]] * MANY)
    found = mask_ordinary(ids, roles, keys_of(MANY), Masking(), MASK, SIZE)
    shares = (labels_of(found) != -100).mean(0)
    assert shares[1:5] == pytest.approx(np.full(4, 0.15), abs=0.015)
    assert shares[[0, 5, 6]].tolist() == [0, 0, 0]


def test_a_batch_without_labels_gives_a_loss_of_0_and_finite_gradients() -> None:
    torch = pytest.importorskip("torch")
    # a cycle of length 4 that was cut after two links: nothing to guess by the rules of the released code
    ids, roles, spans = padded([sample(LONG, [2], 10)] * 3)
    found = mask_reasoning(ids, roles, spans, np.full(3, LONG), keys_of(3), Masking(length="linkers"), MASK)
    assert found.positions.shape == found.labels.shape == (0,)
    states = torch.randn(*found.input_ids.shape, 8, requires_grad=True)
    head = torch.nn.Linear(8, SIZE)
    scores = head(states.reshape(-1, 8)[torch.from_numpy(found.positions)])
    summed = torch.nn.functional.cross_entropy(scores, torch.from_numpy(found.labels), reduction="sum")
    loss = summed / max(1, len(found.labels))
    loss.backward()
    assert loss.item() == 0
    assert torch.isfinite(states.grad).all() and torch.isfinite(head.weight.grad).all()


# Cutting.


def test_what_was_cut_off_is_not_masked() -> None:
    # 12 tokens hold the first sentence of 5, 3 x 2 names, links and period, and head and link of the second
    one = sample(LONG, [2], 14)
    assert set(one[2]) == {-1, 0, 1, 2, 3}
    _, spans, found = reasoning([one] * 3000, LONG, Masking())
    sets = Counter(hidden(spans, found))
    assert set().union(*sets) == {0, 1, 2, 3}
    nothing = sets[frozenset()] / 3000  # the chosen parts are all among those that are gone
    assert 0.2 < nothing < 0.8


@pytest.mark.parametrize(
    ("width", "links", "sizes"),
    [(128, 10, {2, 3}), (51, 10, {1, 2, 3}), (27, 6, {1}), (26, 6, {1}), (24, 5, {0}), (4, 0, {0})],
)
def test_the_released_code_goes_by_the_links_that_are_left(width: int, links: int, sizes: set[int]) -> None:
    one = sample(LONG, [2], width)
    assert one[1].count(int(Role.LINKER)) == links
    _, spans, found = reasoning([one] * 2000, LONG, Masking(length="linkers"))
    sets = hidden(spans, found)
    assert {len(chosen) for chosen in sets} <= sizes
    if links == 6:
        assert set(sets) == {frozenset({1}), frozenset({4}), frozenset({7})}
    if links < 6:
        assert set(sets) == {frozenset()}


# A sample is masked alike wherever it stands.


@pytest.mark.parametrize("rules", RULES, ids=str)
def test_a_sample_is_masked_alike_in_any_batch(rules: Masking) -> None:
    sentences = [SHORT, LONG] * 20
    samples = [sample(count, LENGTHS[number % 4]) for number, count in enumerate(sentences)]
    keys, counts = keys_of(40), np.array(sentences)
    ids, roles, spans = padded(samples)
    together = [
        mask_ordinary(ids, roles, keys, rules, MASK, SIZE),
        mask_reasoning(ids, roles, spans, counts, keys, rules, MASK),
    ]
    for row in range(40):
        size = len(samples[row][0])
        ids, roles, spans = padded([samples[row]], width=size + row % 3)  # alone, and padded otherwise
        chosen = slice(row, row + 1)
        alone = [
            mask_ordinary(ids, roles, keys[chosen], rules, MASK, SIZE),
            mask_reasoning(ids, roles, spans, counts[chosen], keys[chosen], rules, MASK),
        ]
        for one, all_of_them in zip(alone, together, strict=True):
            assert (one.input_ids[0, :size] == all_of_them.input_ids[row, :size]).all()
            assert (labels_of(one)[0, :size] == labels_of(all_of_them)[row, :size]).all()


def test_another_key_masks_otherwise_and_the_arguments_stay_as_they_are() -> None:
    samples = [sample(SHORT, [3])] * 50
    ids, _, first = ordinary(samples, Masking(), seed=1)
    _, _, second = ordinary(samples, Masking(), seed=2)
    assert first.positions.tolist() != second.positions.tolist()
    rows = {tuple(row) for row in labels_of(first).tolist()}
    assert len(rows) > 40  # samples of one text differ, too
    assert (ids == padded(samples)[0]).all()


@pytest.mark.parametrize("wrong", [{"linkers": "bars"}, {"length": "six"}])
def test_an_unknown_rule_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Masking(**wrong)
