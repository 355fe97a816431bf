"""The equations of knowledge integration against a second, naive implementation in plain floats."""

from __future__ import annotations

import math
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from kbench.methods import integration
from kbench.methods.ensemble import Ensemble, Merge
from kbench.methods.integration import Union
from kbench.methods.muki import Direction, McMode, Muki, Reduction, Target
from kbench.methods.teacher import Teacher
from kbench.methods.uhc import Uhc
from kbench.methods.vanilla_kd import VanillaKd

Row = list[float]
Columns = list[list[int]]

# Where each teacher's classes stand among all; numbers of classes unequal on purpose.
BLOCKS: dict[str, Columns] = {
    "2 blocks": [[0, 1], [2, 3, 4]],
    "3 blocks": [[0, 1], [2, 3, 4, 5], [6, 7, 8]],
    "5 blocks": [[0, 1, 2], [3, 4], [5, 6, 7, 8, 9], [10, 11], [12, 13, 14, 15]],
}
SCATTERED: dict[str, Columns] = {
    "2 reversed": [[4, 3, 2], [1, 0]],
    "3 scattered": [[7, 2], [0, 8, 3, 5], [6, 1, 4]],
}
# tags: column 0 is O, known to all, and need not be a teacher's first
TAGS: dict[str, Columns] = {
    "2 taggers": [[0, 1, 2], [0, 3, 4, 5, 6]],
    "3 taggers, O anywhere": [[2, 1, 0], [3, 0, 6, 5, 4], [8, 7, 0]],
}
TEXTS = BLOCKS | SCATTERED
LAYOUTS = TEXTS | TAGS
MERGES = ["mean", "max", "logsumexp"]
BATCH, SAMPLES = 4, 16

each_layout = pytest.mark.parametrize("columns", LAYOUTS.values(), ids=LAYOUTS)
each_of_texts = pytest.mark.parametrize("columns", TEXTS.values(), ids=TEXTS)
each_of_tags = pytest.mark.parametrize("columns", TAGS.values(), ids=TAGS)
each_merge = pytest.mark.parametrize("merge", MERGES)


def union_of(columns: Columns) -> Union:
    return Union(columns, size_of(columns))


def size_of(columns: Columns) -> int:
    return len({column for own in columns for column in own})


# The second implementation: one instance at a time, lists of floats.


def exponentials(logits: Row) -> tuple[Row, float]:
    powers = [math.exp(z - max(logits)) for z in logits]
    return powers, math.fsum(powers)


def naive_softmax(logits: Row) -> Row:
    powers, total = exponentials(logits)
    return [power / total for power in powers]


def naive_log_softmax(logits: Row) -> Row:
    total = exponentials(logits)[1]
    return [z - max(logits) - math.log(total) for z in logits]


def naive_logsumexp(values: Row) -> float:
    return max(values) + math.log(math.fsum(math.exp(value - max(values)) for value in values))


def naive_entropy(probabilities: Row) -> float:
    return -math.fsum(p * math.log(p) for p in probabilities if p > 0)


def naive_mean(samples: list[Row]) -> Row:
    each = [naive_softmax(logits) for logits in samples]
    return [math.fsum(column) / len(each) for column in zip(*each, strict=True)]


def naive_certainty(samples: list[Row]) -> float:
    """1 - H(mean of the samples' distributions) / log C."""
    mean = naive_mean(samples)
    return 1 - naive_entropy(mean) / math.log(len(mean))


def naive_tag_certainty(samples: list[Row], outside: int, renormalise: bool) -> float:
    """The same over a teacher's entity tags, two a type; `outside` is where O stands among its tags."""
    mean = naive_mean(samples)
    entities = [p for tag, p in enumerate(mean) if tag != outside]
    types = len(entities) // 2
    whole = math.fsum(entities) if renormalise else 1.0
    return 1 - naive_entropy([p / whole for p in entities]) / math.log(2 * types)


def naive_log_target(columns: Columns, logits: list[Row], weights: Row) -> Row:
    """log sum_i w_i Pad_i(q_i), one class after another."""
    found = []
    for column in range(size_of(columns)):
        shares = [
            math.log(weight) + naive_log_softmax(z)[own.index(column)]
            for own, z, weight in zip(columns, logits, weights, strict=True)
            if column in own and weight > 0
        ]
        found.append(naive_logsumexp(shares) if shares else -math.inf)
    return found


def naive_target(columns: Columns, logits: list[Row], weights: Row) -> Row:
    return [math.exp(t) for t in naive_log_target(columns, logits, weights)]


def naive_hard_weights(certainty: Row) -> Row:
    best = certainty.index(max(certainty))
    return [float(i == best) for i in range(len(certainty))]


def naive_soft_weights(certainty: Row, tau: float) -> Row:
    return naive_softmax([c / tau for c in certainty])


def naive_weights(certainty: Row, tau: float | None) -> Row:
    return naive_hard_weights(certainty) if tau is None else naive_soft_weights(certainty, tau)


def naive_margin(certainty: Row, floor: float) -> float:
    first, second = sorted(certainty, reverse=True)[:2]
    return abs(first - second) + floor


def naive_divergence(log_target: Row, student: Row) -> float:
    """KL(T || softmax(s)); a term with T = 0 is 0."""
    pairs = zip(log_target, naive_log_softmax(student), strict=True)
    return math.fsum(math.exp(t) * (t - s) for t, s in pairs if t > -math.inf)


def naive_reverse(log_target: Row, student: Row) -> float:
    """KL(softmax(s) || T)."""
    pairs = zip(log_target, naive_log_softmax(student), strict=True)
    return math.fsum(math.exp(s) * (s - t) for t, s in pairs)


def naive_kl(targets: list[Row], students: list[Row], weights: Row | None = None, *, reverse: bool = False) -> float:
    """Mean over the batch, not divided by the sum of the weights; targets are logarithms."""
    weights = weights or [1.0] * len(targets)
    divergence = naive_reverse if reverse else naive_divergence
    each = [w * divergence(t, s) for w, t, s in zip(weights, targets, students, strict=True)]
    return math.fsum(each) / len(each)


def naive_muki(
    columns: Columns,
    logits: list[list[Row]],
    certainty: list[Row],
    students: list[Row],
    *,
    tau: float | None,
    reweight: bool,
    floor: float = 1e-6,
    temperature: float = 1.0,
    reverse: bool = False,
) -> float:
    """The whole loss; logits[b][i] are teacher i's on instance b. tau None: the hard target."""
    targets = [
        naive_log_target(columns, [divided(z, temperature) for z in zs], naive_weights(c, tau))
        for zs, c in zip(logits, certainty, strict=True)
    ]
    weights = [naive_margin(c, floor) for c in certainty] if reweight else None
    return naive_kl(targets, [divided(s, temperature) for s in students], weights, reverse=reverse)


def naive_join(columns: Columns, logits: list[Row], merge: str = "mean") -> Row:
    """One teacher's logit for each class; of a class that several know, one made of theirs."""
    found = []
    for column in range(size_of(columns)):
        known = [z[own.index(column)] for own, z in zip(columns, logits, strict=True) if column in own]
        if merge == "mean":
            found.append(math.fsum(known) / len(known))
        else:
            found.append(max(known) if merge == "max" else naive_logsumexp(known))
    return found


def naive_vanilla_kd(
    columns: Columns, logits: list[list[Row]], students: list[Row], temperature: float, merge: str = "mean"
) -> float:
    targets = [naive_log_softmax(divided(naive_join(columns, zs, merge), temperature)) for zs in logits]
    return temperature**2 * naive_kl(targets, [divided(s, temperature) for s in students])


def naive_uhc(columns: Columns, logits: list[list[Row]], students: list[Row], temperature: float) -> float:
    total = 0.0
    for i, own in enumerate(columns):
        targets = [naive_log_softmax(divided(zs[i], temperature)) for zs in logits]
        total += naive_kl(targets, [divided([s[column] for column in own], temperature) for s in students])
    return temperature**2 * total


def divided(logits: Row, temperature: float) -> Row:
    return [z / temperature for z in logits]


# Inputs.


def draw(columns: Columns, seed: int = 0, scale: float = 2.0) -> tuple[list[list[Row]], list[Row], list[Row]]:
    """Logits [B][N][C_i], certainty [B][N], student logits [B][C]."""
    rng = random.Random(100 * size_of(columns) + seed)
    logits = [[[rng.gauss(0, scale) for _ in own] for own in columns] for _ in range(BATCH)]
    certainty = [[rng.random() for _ in columns] for _ in range(BATCH)]
    students = [[rng.gauss(0, scale) for _ in range(size_of(columns))] for _ in range(BATCH)]
    return logits, certainty, students


def tensor(values: list, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype)


def by_teacher(logits: list[list[Row]], dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    """[B][N][C_i] as one tensor [B, C_i] a teacher."""
    return [tensor(list(own), dtype) for own in zip(*logits, strict=True)]


def integrated(
    columns: Columns,
    logits: list[torch.Tensor],
    certainty: torch.Tensor,
    student: torch.Tensor,
    *,
    tau: float | None,
    reweight: bool,
    floor: float = 1e-6,
    reverse: bool = False,
) -> torch.Tensor:
    """The loss of MUKI put together from the functions under test."""
    union = union_of(columns)
    if tau is None:
        target = integration.hard_target(union, logits, certainty)
    else:
        target = integration.soft_target(union, logits, certainty, tau)
    weight = integration.margin(certainty, floor) if reweight else None
    return integration.kl(target, student, weight, reverse=reverse)


# Uncertainty.


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [
        ([0.5, 0.5], 1.0),
        ([1.0, 0.0], 0.0),
        ([0.5, 0.25, 0.125, 0.125], 0.875),  # 1/2 + 1/2 + 3/8 + 3/8 = 1.75 bits of at most 2
        ([0.75, 0.25], 0.811278),  # 2 - 3/4 * log2(3) bits of at most 1
        ([0.5, 0.5, 0.0], 0.630930),  # log 2 / log 3
    ],
)
def test_uncertainty_of_worked_examples(probabilities: Row, expected: float) -> None:
    assert integration.uncertainty(tensor([probabilities])).tolist() == pytest.approx([expected], abs=1e-6)


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_uncertainty_equals_the_naive_one(classes: int) -> None:
    rng = random.Random(classes)
    logits = [[rng.gauss(0, 3) for _ in range(classes)] for _ in range(6)]
    found = integration.uncertainty(tensor([naive_softmax(z) for z in logits]))
    assert found.tolist() == pytest.approx([1 - naive_certainty([z]) for z in logits], rel=1e-12)


def test_uncertainty_keeps_leading_axes() -> None:
    found = integration.uncertainty(torch.full((2, 3, 4), 0.25, dtype=torch.float64))
    assert found.shape == (2, 3)
    assert found.flatten().tolist() == pytest.approx([1.0] * 6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [200.0, 1e4])
def test_uncertainty_where_a_probability_underflows(size: float, dtype: torch.dtype) -> None:
    logits = [[size, -size], [-size, size], [size, size]]
    found = integration.uncertainty(integration.mean_distribution(tensor([[z] for z in logits], dtype)))
    assert found.tolist() == pytest.approx([0.0, 0.0, 1.0], abs=1e-7)


@pytest.mark.parametrize("shape", [(1,), (3, 1)])
def test_uncertainty_of_one_class_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="one class"):
        integration.uncertainty(torch.ones(shape))


def test_mean_distribution_averages_distributions_and_not_logits() -> None:
    # softmax(0, ln 3) = (1/4, 3/4), softmax(0, 0) = (1/2, 1/2); the softmax of the mean logits would begin with 0.366
    found = integration.mean_distribution(tensor([[[0.0, math.log(3)], [0.0, 0.0]]]))
    assert found.shape == (1, 2)
    assert found[0].tolist() == pytest.approx([0.375, 0.625], rel=1e-12)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_certainty_from_samples_equals_the_naive_one(classes: int) -> None:
    rng = random.Random(classes)
    samples = [[[rng.gauss(0, 2) for _ in range(classes)] for _ in range(SAMPLES)] for _ in range(BATCH)]
    found = 1 - integration.uncertainty(integration.mean_distribution(tensor(samples)))
    assert found.tolist() == pytest.approx([naive_certainty(own) for own in samples], rel=1e-10)


# Uncertainty over entity tags.


@pytest.mark.parametrize(
    ("tags", "outside"), [([0.5, 0.125, 0.375], 0), ([0.125, 0.5, 0.375], 1), ([0.125, 0.375, 0.5], 2)]
)
def test_entity_part_of_a_worked_example(tags: Row, outside: int) -> None:
    # without O (1/8, 3/8), of sum 1/2; made to sum to 1 again (1/4, 3/4), 0.811278 bits of at most 1
    p = tensor([tags])
    whole = integration.entity_part(p, outside, renormalise=True)
    assert whole[0].tolist() == pytest.approx([0.25, 0.75])
    assert integration.uncertainty(whole).tolist() == pytest.approx([0.811278], abs=1e-6)
    # as it is: 3/8 + 3/8 * (3 - log2(3)) = 0.905639 bits
    part = integration.entity_part(p, outside, renormalise=False)
    assert part[0].tolist() == [0.125, 0.375]
    assert integration.uncertainty(part).tolist() == pytest.approx([0.905639], abs=1e-6)


@pytest.mark.parametrize("renormalise", [True, False])
@pytest.mark.parametrize("types", [1, 2, 9])
def test_uncertainty_of_tags_is_one_where_all_entity_tags_are_as_likely(types: int, renormalise: bool) -> None:
    # over 2 * types entity tags: log(2 * types) at most; with half the mass on O, half of it and of log 2 on top
    p = tensor([[0.5, *[0.25 / types] * (2 * types)]])
    found = integration.uncertainty(integration.entity_part(p, 0, renormalise)).item()
    partial = 0.5 * (math.log(2 * types) + math.log(2)) / math.log(2 * types)
    assert found == pytest.approx(1.0 if renormalise else partial)


@pytest.mark.parametrize("renormalise", [True, False])
@pytest.mark.parametrize("outside", [0, 2, 4])
def test_certainty_of_tags_equals_the_naive_one(outside: int, renormalise: bool) -> None:
    rng = random.Random(outside)
    samples = [[[rng.gauss(0, 2) for _ in range(5)] for _ in range(SAMPLES)] for _ in range(BATCH)]
    p = integration.entity_part(integration.mean_distribution(tensor(samples)), outside, renormalise)
    assert p.shape == (BATCH, 4)
    expected = [naive_tag_certainty(own, outside, renormalise) for own in samples]
    assert (1 - integration.uncertainty(p)).tolist() == pytest.approx(expected, rel=1e-10)


class Teachers:
    """Stands in for a set of teachers."""

    def __init__(self, columns: Columns):
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns)


@pytest.mark.parametrize("mode", list(McMode))
@pytest.mark.parametrize("renormalise", [True, False])
@each_layout
def test_certainty_of_the_method_equals_the_naive_one(columns: Columns, renormalise: bool, mode: McMode) -> None:
    rng = random.Random(size_of(columns))
    pool, used, shared = 6, 4, 0 if columns in TAGS.values() else None
    samples = [[[[rng.gauss(0, 2) for _ in own] for _ in range(pool)] for _ in range(BATCH)] for own in columns]
    logits = [[[rng.gauss(0, 2) for _ in own] for _ in range(BATCH)] for own in columns]
    stored = {f"samples_{i}": own for i, own in enumerate(samples)} | {f"logits_{i}": z for i, z in enumerate(logits)}
    method = SimpleNamespace(
        bench=SimpleNamespace(task=SimpleNamespace(shared=shared)),
        config=SimpleNamespace(renormalise=renormalise, mc=SimpleNamespace(mode=mode, samples=used, pool=pool)),
        teachers=Teachers(columns),
        logits=lambda split: [np.array(z, dtype=np.float32) for z in logits],
        stored=lambda name, split: np.array(stored[name], dtype=np.float32),
    )
    found = Muki.certainty.func(method)
    assert found.shape == (BATCH, len(columns))
    for i, own in enumerate(columns):
        for row in range(BATCH):
            if mode is McMode.deterministic:
                seen = [logits[i][row]]
            else:
                seen = samples[i][row][: 1 if mode is McMode.single_sample else used]
            if shared is None:
                expected = naive_certainty(seen)
            else:
                expected = naive_tag_certainty(seen, own.index(shared), renormalise)
            assert found[row, i] == pytest.approx(expected, abs=1e-6)


# The union.


def test_pad_and_part_put_each_class_where_it_stands() -> None:
    union = Union([[4, 0], [3, 1, 2]], 5)
    assert union.pad(tensor([[1.0, 2.0]]), 0)[0].tolist() == [2.0, 0.0, 0.0, 0.0, 1.0]
    assert union.pad(tensor([[1.0, 2.0, 3.0]]), 1, -math.inf)[0].tolist() == [-math.inf, 2.0, 3.0, 1.0, -math.inf]
    values = tensor([[[10.0, 11.0, 12.0, 13.0, 14.0]]])
    assert union.part(values, 0).tolist() == [[[14.0, 10.0]]]
    assert union.part(values, 1).tolist() == [[[13.0, 11.0, 12.0]]]


@each_layout
def test_part_undoes_pad(columns: Columns) -> None:
    union, (logits, _, _) = union_of(columns), draw(columns)
    for i, z in enumerate(by_teacher(logits)):
        padded = union.pad(z, i, 7.0)
        assert torch.equal(union.part(padded, i), z)
        assert (padded == 7.0).sum() == BATCH * (size_of(columns) - len(columns[i]))


@each_merge
def test_join_of_texts_is_the_logits_side_by_side(merge: str) -> None:
    logits = [tensor([[1.0, 2.0]]), tensor([[3.0, 4.0, 5.0]])]
    assert Union([[0, 1], [2, 3, 4]], 5).join(logits, merge)[0].tolist() == pytest.approx([1, 2, 3, 4, 5])
    assert Union([[4, 2], [1, 0, 3]], 5).join(logits, merge)[0].tolist() == pytest.approx([4, 3, 2, 5, 1])


@pytest.mark.parametrize(("merge", "outside"), [("mean", 2.0), ("max", 3.0), ("logsumexp", 3.126928)])
def test_join_of_a_worked_example_of_tags(merge: str, outside: float) -> None:
    # O is 1 and 3: mean 2, max 3, ln(e + e^3) = 3 + ln(1 + e^-2) = 3.126928; every other tag is one teacher's
    logits = [tensor([[1.0, 5.0]]), tensor([[6.0, 3.0]])]
    found = Union([[0, 2], [1, 0]], 3).join(logits, merge)
    assert found[0].tolist() == pytest.approx([outside, 6.0, 5.0], abs=1e-6)


@each_merge
@each_layout
def test_join_equals_the_naive_one(columns: Columns, merge: str) -> None:
    logits, _, _ = draw(columns)
    found = union_of(columns).join(by_teacher(logits), merge)
    for row, zs in zip(found.tolist(), logits, strict=True):
        assert row == pytest.approx(naive_join(columns, zs, merge), rel=1e-12)


# Targets.


def test_targets_of_a_worked_example() -> None:
    # q = (1/4, 3/4) and (1/2, 1/2); c = (0.6, 0.4), c / tau = (3, 2), w = (0.7310586, 0.2689414)
    union, logits = Union([[0, 1], [2, 3]], 4), [tensor([[0.0, math.log(3)]]), tensor([[1.0, 1.0]])]
    certainty = tensor([[0.6, 0.4]])
    hard = integration.hard_target(union, logits, certainty).exp()
    assert hard[0].tolist() == pytest.approx([0.25, 0.75, 0.0, 0.0], abs=1e-12)
    soft = integration.soft_target(union, logits, certainty, 0.2).exp()
    assert soft[0].tolist() == pytest.approx([0.1827646, 0.5482939, 0.1344707, 0.1344707], abs=1e-7)


def test_targets_of_a_worked_example_of_tags() -> None:
    # O, B, I of teacher 1: q = (1/2, 1/4, 1/4); of teacher 2, as B, O, I: (1/8, 3/4, 1/8); w = (3/4, 1/4)
    union = Union([[0, 1, 2], [3, 0, 4]], 5)
    logits = [tensor([[math.log(2), 0.0, 0.0]]), tensor([[0.0, math.log(6), 0.0]])]
    certainty = tensor([[math.log(3), 0.0]])
    soft = integration.soft_target(union, logits, certainty, 1.0).exp()
    # O: 3/4 * 1/2 + 1/4 * 3/4 = 9/16
    assert soft[0].tolist() == pytest.approx([9 / 16, 3 / 16, 3 / 16, 1 / 32, 1 / 32], rel=1e-12)
    hard = integration.hard_target(union, logits, certainty.flip(-1)).exp()
    assert hard[0].tolist() == pytest.approx([3 / 4, 0.0, 0.0, 1 / 8, 1 / 8], abs=1e-12)


@each_layout
def test_hard_target_equals_the_naive_one(columns: Columns) -> None:
    logits, certainty, _ = draw(columns)
    found = integration.hard_target(union_of(columns), by_teacher(logits), tensor(certainty))
    for row, zs, c in zip(found.tolist(), logits, certainty, strict=True):
        assert row == pytest.approx(naive_log_target(columns, zs, naive_hard_weights(c)), rel=1e-12)
        assert row.count(-math.inf) == size_of(columns) - len(columns[c.index(max(c))])
        assert math.fsum(math.exp(t) for t in row) == pytest.approx(1.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("floor", [0.0, 1e-6])
@pytest.mark.parametrize(
    ("certainty", "chosen"),
    [
        ([0.5, 0.5], 0),
        ([0.1, 0.7, 0.7], 1),
        ([0.7, 0.1, 0.7], 0),
        ([0.2, 0.7, 0.7, 0.1, 0.7], 1),
        ([0.0, 0.0, 0.0, 0.0, 0.0], 0),
    ],
)
def test_a_tie_goes_to_the_lowest_teacher_and_weighs_the_floor(
    certainty: Row, chosen: int, floor: float, dtype: torch.dtype
) -> None:
    union = Union([[2 * i, 2 * i + 1] for i in range(len(certainty))], 2 * len(certainty))
    logits = [torch.zeros(1, 2, dtype=dtype) for _ in certainty]
    found = integration.hard_target(union, logits, tensor([certainty], dtype)).exp()[0].tolist()
    assert found == pytest.approx([0.5 if column // 2 == chosen else 0.0 for column in range(2 * len(certainty))])
    assert integration.margin(tensor([certainty], dtype), floor).tolist() == pytest.approx([floor], rel=1e-6)


def test_a_tie_between_equal_samples() -> None:
    samples = tensor([[[0.3, -1.2], [2.0, 0.4]]], torch.float32)
    certainty = 1 - integration.uncertainty(integration.mean_distribution(samples))
    both = torch.stack([certainty, certainty], dim=-1)
    target = integration.hard_target(Union([[0, 1], [2, 3]], 4), [torch.zeros(1, 2), torch.zeros(1, 2)], both).exp()
    assert target[0].tolist() == pytest.approx([0.5, 0.5, 0.0, 0.0])
    assert integration.margin(both, 1e-6).item() == pytest.approx(1e-6, rel=1e-6)


@pytest.mark.parametrize("tau", [0.05, 0.2, 1.0, 10.0])
@each_layout
def test_soft_target_equals_the_naive_one(columns: Columns, tau: float) -> None:
    logits, certainty, _ = draw(columns)
    found = integration.soft_target(union_of(columns), by_teacher(logits), tensor(certainty), tau)
    assert found.shape == (BATCH, size_of(columns))
    for row, zs, c in zip(found.tolist(), logits, certainty, strict=True):
        assert row == pytest.approx(naive_log_target(columns, zs, naive_soft_weights(c, tau)), rel=1e-12)
        assert math.fsum(math.exp(t) for t in row) == pytest.approx(1.0)


@pytest.mark.parametrize("tau", [0.2, 1.0])
@each_of_tags
def test_the_masses_of_o_add_up(columns: Columns, tau: float) -> None:
    logits, certainty, _ = draw(columns)
    soft = integration.soft_target(union_of(columns), by_teacher(logits), tensor(certainty), tau).exp()
    hard = integration.hard_target(union_of(columns), by_teacher(logits), tensor(certainty)).exp()
    for b, (zs, c) in enumerate(zip(logits, certainty, strict=True)):
        outside = [naive_softmax(z)[own.index(0)] for own, z in zip(columns, zs, strict=True)]
        weighted = math.fsum(w * o for w, o in zip(naive_soft_weights(c, tau), outside, strict=True))
        assert soft[b, 0].item() == pytest.approx(weighted, rel=1e-12)
        assert hard[b, 0].item() == pytest.approx(outside[c.index(max(c))], rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@each_layout
def test_soft_target_tends_to_the_hard_one_as_tau_vanishes(columns: Columns, dtype: torch.dtype) -> None:
    logits, certainty, _ = draw(columns)
    soft = integration.soft_target(union_of(columns), by_teacher(logits, dtype), tensor(certainty, dtype), 1e-7).exp()
    hard = [naive_target(columns, zs, naive_hard_weights(c)) for zs, c in zip(logits, certainty, strict=True)]
    assert soft.flatten().tolist() == pytest.approx([t for row in hard for t in row], abs=1e-6)


@each_layout
def test_soft_target_tends_to_equal_weights_as_tau_grows(columns: Columns) -> None:
    logits, certainty, _ = draw(columns)
    soft = integration.soft_target(union_of(columns), by_teacher(logits), tensor(certainty), 1e9).exp()
    equal = [naive_target(columns, zs, [1 / len(columns)] * len(columns)) for zs in logits]
    assert soft.flatten().tolist() == pytest.approx([t for row in equal for t in row], abs=1e-8)


@each_layout
def test_targets_have_a_batch_axis_with_one_instance(columns: Columns) -> None:
    logits, certainty, _ = draw(columns)
    union, one, c = union_of(columns), by_teacher(logits[:1]), tensor(certainty[:1])
    assert integration.hard_target(union, one, c).shape == (1, size_of(columns))
    assert integration.soft_target(union, one, c, 0.2).shape == (1, size_of(columns))
    assert integration.margin(c, 1e-6).shape == (1,)


# Weight.


@pytest.mark.parametrize(
    ("certainty", "floor", "expected"),
    [
        ([0.9, 0.5], 1e-6, 0.400001),
        ([0.5, 0.9], 1e-6, 0.400001),
        ([0.5, 0.9], 0.0, 0.4),
        ([0.9, 0.5, 0.7], 1e-6, 0.200001),
        ([0.1, 0.8, 0.3, 0.75, 0.2], 1e-6, 0.050001),
        ([0.6, 0.6, 0.1], 1e-6, 0.000001),
        ([0.6, 0.6, 0.1], 0.0, 0.0),
    ],
)
def test_margin_of_worked_examples(certainty: Row, floor: float, expected: float) -> None:
    assert integration.margin(tensor([certainty]), floor).tolist() == pytest.approx([expected], rel=1e-9)


@pytest.mark.parametrize("floor", [0.0, 1e-6])
@each_layout
def test_margin_equals_the_naive_one(columns: Columns, floor: float) -> None:
    _, certainty, _ = draw(columns)
    found = integration.margin(tensor(certainty), floor)
    assert found.tolist() == pytest.approx([naive_margin(c, floor) for c in certainty], rel=1e-12)


# Divergence.


def test_kl_of_a_worked_example_in_both_directions() -> None:
    # T = (1/2, 1/2), S = (1/4, 3/4): KL(T || S) = 1/2 ln 2 + 1/2 ln 2/3 = 0.1438410;
    # KL(S || T) = 1/4 ln 1/2 + 3/4 ln 3/2 = 0.1308120
    target, student = tensor([[0.5, 0.5]]).log(), tensor([[0.0, math.log(3)]])
    assert integration.kl(target, student).item() == pytest.approx(0.1438410, abs=1e-7)
    assert integration.kl(target, student, reverse=True).item() == pytest.approx(0.1308120, abs=1e-7)


def test_kl_of_a_target_with_zeros() -> None:
    # T = (1, 0), S = (1/4, 3/4): ln 4; and a target equal to the student's distribution: 0
    student = tensor([[0.0, math.log(3)]])
    assert integration.kl(tensor([[1.0, 0.0]]).log(), student).item() == pytest.approx(math.log(4))
    assert integration.kl(tensor([[0.25, 0.75]]).log(), student).item() == pytest.approx(0.0, abs=1e-15)
    assert integration.kl(tensor([[1.0, 0.0]]).log(), student, reverse=True).item() == math.inf


def test_kl_weights_each_instance_and_does_not_renormalise() -> None:
    # ln 4 and ln 4/3 from T = (1, 0) and (0, 1): (0.5 * 1.3862944 + 3 * 0.2876821) / 2 = 0.7780967
    target, student = tensor([[1.0, 0.0], [0.0, 1.0]]).log(), tensor([[0.0, math.log(3)]] * 2)
    assert integration.kl(target, student, tensor([0.5, 3.0])).item() == pytest.approx(0.7780967, abs=1e-7)
    assert integration.kl(target, student).item() == pytest.approx(0.8369882, abs=1e-7)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@each_layout
def test_kl_equals_the_naive_one(columns: Columns, weighted: bool, reverse: bool) -> None:
    logits, certainty, students = draw(columns)
    targets = [
        naive_log_target(columns, zs, naive_soft_weights(c, 0.3)) for zs, c in zip(logits, certainty, strict=True)
    ]
    weights = [naive_margin(c, 1e-6) for c in certainty] if weighted else None
    given = None if weights is None else tensor(weights)
    found = integration.kl(tensor(targets), tensor(students), given, reverse=reverse)
    assert found.item() == pytest.approx(naive_kl(targets, students, weights, reverse=reverse), rel=1e-12)


@each_layout
def test_reverse_kl_is_finite_for_soft_and_infinite_for_hard(columns: Columns) -> None:
    logits, certainty, students = draw(columns)
    inputs = columns, by_teacher(logits), tensor(certainty)
    student = tensor(students).requires_grad_()
    soft = integrated(*inputs, student, tau=0.2, reweight=True, reverse=True)
    soft.backward()
    assert math.isfinite(soft.item())
    assert torch.isfinite(student.grad).all()
    assert integrated(*inputs, student, tau=None, reweight=True, reverse=True).item() == math.inf


# The whole loss.


@pytest.mark.parametrize(
    ("tau", "reweight", "reverse", "expected"),
    [
        # hard: T = (1/4, 3/4, 0, 0), S = 1/4 each: 1/4 ln 1 + 3/4 ln 3 = 0.8239592
        (None, False, False, 0.8239592),
        (None, True, False, 0.1647918),  # times the margin 0.2
        # soft: T = (0.1827646, 0.5482939, 0.1344707, 0.1344707):
        # sum of T ln 4T = -0.0572532 + 0.4306030 - 2 * 0.0833872
        (0.2, False, False, 0.2065753),
        (0.2, True, False, 0.0413151),
        # KL(S || T) = -1/4 (ln 4T_1 + .. + ln 4T_4) = -1/4 (-0.3132617 + 0.7853506 - 2 * 0.6201145)
        (0.2, False, True, 0.1920350),
    ],
)
def test_loss_of_a_worked_example(tau: float | None, reweight: bool, reverse: bool, expected: float) -> None:
    logits = [tensor([[0.0, math.log(3)]]), tensor([[1.0, 1.0]])]
    found = integrated(
        [[0, 1], [2, 3]],
        logits,
        tensor([[0.6, 0.4]]),
        torch.zeros(1, 4),
        tau=tau,
        reweight=reweight,
        floor=0.0,
        reverse=reverse,
    )
    assert found.item() == pytest.approx(expected, abs=2e-7)


@pytest.mark.parametrize("reweight", [False, True])
@pytest.mark.parametrize("tau", [None, 0.2, 2.0])
@each_of_texts
def test_loss_from_samples_equals_the_naive_one(columns: Columns, tau: float | None, reweight: bool) -> None:
    rng = random.Random(size_of(columns))
    samples = [[[[rng.gauss(0, 2) for _ in own] for _ in range(SAMPLES)] for _ in range(BATCH)] for own in columns]
    certain = [1 - integration.uncertainty(integration.mean_distribution(tensor(own))) for own in samples]
    logits, _, students = draw(columns)
    found = integrated(
        columns, by_teacher(logits), torch.stack(certain, dim=-1), tensor(students), tau=tau, reweight=reweight
    )
    certainty = [[naive_certainty(own[b]) for own in samples] for b in range(BATCH)]
    expected = naive_muki(columns, logits, certainty, students, tau=tau, reweight=reweight)
    assert found.item() == pytest.approx(expected, rel=1e-9)


def method_of(columns: Columns, logits: list[torch.Tensor], student: torch.Tensor, **config: object) -> SimpleNamespace:
    """Stands in for the method; the options are those of the released code."""
    usual = {
        "target": Target.soft,
        "tau": 0.2,
        "reweight": True,
        "weight_floor": 1e-6,
        "direction": Direction.target_student,
        "reduction": Reduction.mean,
        "temperature": 1.0,
    }
    return SimpleNamespace(
        config=SimpleNamespace(**(usual | config)),
        union=union_of(columns),
        batch_logits=lambda batch: logits,
        student_logits=lambda model, batch: student,
    )


def loss_of(method: SimpleNamespace, certainty: torch.Tensor, step_units: int = BATCH) -> torch.Tensor:
    found = Muki.loss(method, None, {"certainty": certainty, "step_units": torch.tensor(step_units)})
    assert set(found) == {"integration"}
    return found["integration"]


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize(("reweight", "floor"), [(False, 1e-6), (True, 1e-6), (True, 0.0)])
@pytest.mark.parametrize(
    ("target", "direction"),
    [
        (Target.hard, Direction.target_student),
        (Target.soft, Direction.target_student),
        (Target.soft, Direction.student_target),
    ],
)
@each_layout
def test_loss_of_the_method_equals_the_naive_one(
    columns: Columns, target: Target, direction: Direction, reweight: bool, floor: float, temperature: float
) -> None:
    logits, certainty, students = draw(columns)
    certainty[0] = [0.5] * len(columns)  # a tie, which the floor alone keeps
    method = method_of(
        columns,
        by_teacher(logits),
        tensor(students),
        target=target,
        direction=direction,
        reweight=reweight,
        weight_floor=floor,
        temperature=temperature,
    )
    expected = naive_muki(
        columns,
        logits,
        certainty,
        students,
        tau=None if target is Target.hard else 0.2,
        reweight=reweight,
        floor=floor,
        temperature=temperature,
        reverse=direction is Direction.student_target,
    )
    assert loss_of(method, tensor(certainty)).item() == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("floor", [0.0, 1e-6])
def test_a_tie_is_kept_by_the_floor_alone(floor: float) -> None:
    # hard target as above: KL 0.8239592 times the floor
    logits = [tensor([[0.0, math.log(3)]]), tensor([[1.0, 1.0]])]
    student = torch.zeros(1, 4, dtype=torch.float64, requires_grad=True)
    method = method_of([[0, 1], [2, 3]], logits, student, target=Target.hard, weight_floor=floor)
    found = loss_of(method, tensor([[0.5, 0.5]]))
    found.backward()
    assert found.item() == pytest.approx(0.8239592 * floor, rel=1e-6)
    assert student.grad[0].tolist() == pytest.approx([0.0, -0.5 * floor, 0.25 * floor, 0.25 * floor], abs=1e-18)


@pytest.mark.parametrize("step_units", [1, BATCH, 32])
@pytest.mark.parametrize("target", list(Target))
@each_layout
def test_a_sum_is_the_mean_times_the_units_of_the_step(columns: Columns, target: Target, step_units: int) -> None:
    logits, certainty, students = draw(columns)
    found = []
    for reduction in (Reduction.mean, Reduction.sum):
        method = method_of(columns, by_teacher(logits), tensor(students), target=target, reduction=reduction)
        found.append(loss_of(method, tensor(certainty), step_units).item())
    assert found[1] == pytest.approx(found[0] * step_units, rel=1e-12)


def test_a_sum_over_micro_batches_is_the_sum_over_the_batch() -> None:
    # the loop weighs a micro batch by its share of the step's units
    columns = LAYOUTS["3 scattered"]
    logits, certainty, students = draw(columns)
    total = 0.0
    for part in (slice(0, 3), slice(3, 4)):
        zs, s = by_teacher(logits[part]), tensor(students[part])
        method = method_of(columns, zs, s, reduction=Reduction.sum)
        total += loss_of(method, tensor(certainty[part])).item() * len(s) / BATCH
    each = [
        naive_muki(columns, logits[b : b + 1], certainty[b : b + 1], students[b : b + 1], tau=0.2, reweight=True)
        for b in range(BATCH)
    ]
    assert total == pytest.approx(math.fsum(each), rel=1e-11)


@pytest.mark.parametrize("reweight", [False, True])
@pytest.mark.parametrize("tau", [None, 0.2])
@each_layout
def test_gradient_equals_the_closed_form_and_central_differences(
    columns: Columns, tau: float | None, reweight: bool
) -> None:
    logits, certainty, students = draw(columns)
    student = tensor(students).requires_grad_()
    integrated(columns, by_teacher(logits), tensor(certainty), student, tau=tau, reweight=reweight).backward()
    step = 1e-5
    for b, (zs, c, s) in enumerate(zip(logits, certainty, students, strict=True)):
        target = naive_target(columns, zs, naive_weights(c, tau))
        weight = naive_margin(c, 1e-6) if reweight else 1.0
        closed = [weight * (q - t) / BATCH for q, t in zip(naive_softmax(s), target, strict=True)]
        assert student.grad[b].tolist() == pytest.approx(closed, abs=1e-13)
        for column in range(len(s)):
            ends = []
            for change in (step, -step):
                moved = [list(row) for row in students]
                moved[b][column] += change
                ends.append(naive_muki(columns, logits, certainty, moved, tau=tau, reweight=reweight))
            assert student.grad[b, column].item() == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-9)


# Baselines.


def test_vanilla_kd_of_a_worked_example() -> None:
    # one softmax over both: T = (1, 1, 2, 1) / 5, S = 1/4 each: 3/5 ln 4/5 + 2/5 ln 8/5 = 0.0541153
    union, logits = Union([[0, 1], [2, 3]], 4), [tensor([[0.0, 0.0]]), tensor([[math.log(2), 0.0]])]
    assert integration.vanilla_kd(union, logits, torch.zeros(1, 4), 1.0).item() == pytest.approx(0.0541153, abs=1e-7)
    # logits twice as large at temperature 2: the same, times 4
    doubled = [2 * z for z in logits]
    found = integration.vanilla_kd(union, doubled, torch.zeros(1, 4), 2.0)
    assert found.item() == pytest.approx(0.2164611, abs=1e-6)


@pytest.mark.parametrize(("merge", "expected"), [("mean", 0.1483417), ("max", 0.4984462), ("logsumexp", 0.5325265)])
def test_vanilla_kd_of_a_worked_example_of_tags(merge: str, expected: float) -> None:
    # O is ln 1 and ln 9, the tag of either 0, S = 1/3 each; merged O is ln 3, ln 9, ln 10, T = (o, 1, 1) / (o + 2)
    # mean: 3/5 ln 9/5 + 2/5 ln 3/5; max: 9/11 ln 27/11 + 2/11 ln 3/11; logsumexp: 10/12 ln 30/12 + 2/12 ln 3/12
    union = Union([[0, 1], [0, 2]], 3)
    logits = [tensor([[0.0, 0.0]]), tensor([[math.log(9), 0.0]])]
    found = integration.vanilla_kd(union, logits, torch.zeros(1, 3), 1.0, merge)
    assert found.item() == pytest.approx(expected, abs=1e-7)


def test_uhc_of_a_worked_example_sums_over_the_teachers() -> None:
    # each teacher alone, S = 1/2 each: T = (2/3, 1/3) twice, 2 * (2/3 ln 4/3 + 1/3 ln 2/3) = 2 * 0.0566330
    union, logits = Union([[0, 1], [2, 3]], 4), [tensor([[math.log(2), 0.0]]), tensor([[0.0, math.log(2)]])]
    assert integration.uhc(union, logits, torch.zeros(1, 4), 1.0).item() == pytest.approx(0.1132660, abs=1e-6)
    doubled = [2 * z for z in logits]
    assert integration.uhc(union, doubled, torch.zeros(1, 4), 2.0).item() == pytest.approx(0.4530640, abs=1e-6)


def test_uhc_of_a_worked_example_of_tags_has_o_in_each_block() -> None:
    # S restricted to (O, B1) and (O, B2), s = (ln 3, 0, 0): (3/4, 1/4) twice; T = (1/2, 1/2) twice: 2 * 0.1438410
    union, student = Union([[0, 1], [2, 0]], 3), tensor([[math.log(3), 0.0, 0.0]]).requires_grad_()
    found = integration.uhc(union, [tensor([[0.0, 0.0]]), tensor([[0.0, 0.0]])], student, 1.0)
    found.backward()
    assert found.item() == pytest.approx(0.2876821, abs=1e-7)
    # S - T of either block: O is pulled twice
    assert student.grad[0].tolist() == pytest.approx([0.5, -0.25, -0.25])


@each_merge
@pytest.mark.parametrize("temperature", [1.0, 0.5, 4.0])
@each_layout
def test_vanilla_kd_equals_the_naive_one(columns: Columns, temperature: float, merge: str) -> None:
    logits, _, students = draw(columns)
    found = integration.vanilla_kd(union_of(columns), by_teacher(logits), tensor(students), temperature, merge)
    assert found.item() == pytest.approx(naive_vanilla_kd(columns, logits, students, temperature, merge), rel=1e-11)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 4.0])
@each_layout
def test_uhc_equals_the_naive_one(columns: Columns, temperature: float) -> None:
    logits, _, students = draw(columns)
    found = integration.uhc(union_of(columns), by_teacher(logits), tensor(students), temperature)
    assert found.item() == pytest.approx(naive_uhc(columns, logits, students, temperature), rel=1e-11)


@each_layout
def test_the_order_of_columns_is_that_of_the_union(columns: Columns) -> None:
    # the classes renamed, in the teachers' columns and in the student's: no loss may move
    logits, certainty, students = draw(columns)
    order = random.Random(3).sample(range(size_of(columns)), size_of(columns))  # old column -> new
    renamed = [[order[column] for column in own] for own in columns]
    moved = [[s[order.index(column)] for column in range(len(s))] for s in students]
    assert moved != students
    zs, c = by_teacher(logits), tensor(certainty)
    for tau in (None, 0.2):
        before = integrated(columns, zs, c, tensor(students), tau=tau, reweight=True)
        after = integrated(renamed, zs, c, tensor(moved), tau=tau, reweight=True)
        assert after.item() == pytest.approx(before.item(), rel=1e-12)
    for one in (integration.vanilla_kd, integration.uhc):
        before = one(union_of(columns), zs, tensor(students), 1.0)
        assert one(union_of(renamed), zs, tensor(moved), 1.0).item() == pytest.approx(before.item(), rel=1e-12)


def test_the_scale_of_one_teacher_moves_vanilla_kd_and_not_uhc() -> None:
    columns = LAYOUTS["3 blocks"]
    logits, _, students = draw(columns)
    shifted = [[[z + 5 for z in zs[0]], *zs[1:]] for zs in logits]
    union, before, after, student = union_of(columns), by_teacher(logits), by_teacher(shifted), tensor(students)
    uhc = [integration.uhc(union, zs, student, 1.0).item() for zs in (before, after)]
    assert uhc[1] == pytest.approx(uhc[0])
    change = integration.vanilla_kd(union, after, student, 1.0) - integration.vanilla_kd(union, before, student, 1.0)
    expected = naive_vanilla_kd(columns, shifted, students, 1.0) - naive_vanilla_kd(columns, logits, students, 1.0)
    assert change.item() == pytest.approx(expected)
    assert abs(change.item()) > 0.1


@each_layout
def test_padded_scores_equal_the_naive_ones(columns: Columns) -> None:
    logits, _, _ = draw(columns)
    for chosen, own in enumerate(columns):
        found = integration.padded_scores(union_of(columns), by_teacher(logits), chosen)
        for row, zs in zip(found.tolist(), logits, strict=True):
            expected = naive_target(columns, zs, [float(i == chosen) for i in range(len(columns))])
            assert row == pytest.approx(expected, rel=1e-12)
            assert row.count(0.0) == len(row) - len(own)


def test_padded_scores_of_a_worked_example() -> None:
    union = Union([[0, 1], [4, 2, 3]], 5)
    logits = [tensor([[0.0, math.log(3)]]), tensor([[0.0, 0.0, math.log(2)]])]
    assert integration.padded_scores(union, logits, 0)[0].tolist() == pytest.approx([0.25, 0.75, 0, 0, 0])
    assert integration.padded_scores(union, logits, 1)[0].tolist() == pytest.approx([0, 0, 0.25, 0.5, 0.25])


@each_merge
@pytest.mark.parametrize("temperature", [1.0, 2.5])
@each_of_tags
def test_the_baselines_are_the_equations_with_their_options(columns: Columns, temperature: float, merge: str) -> None:
    logits, _, students = draw(columns)
    method = method_of(
        columns, by_teacher(logits), tensor(students), temperature=temperature, o_merge=Merge(merge), index=2
    )
    method.tensors = lambda split: by_teacher(logits) if split == "test" else None
    kd, uhc = VanillaKd.loss(method, None, {}), Uhc.loss(method, None, {})
    assert {name: loss.item() for name, loss in kd.items()} == pytest.approx(
        {"kd": naive_vanilla_kd(columns, logits, students, temperature, merge)}
    )
    assert {name: loss.item() for name, loss in uhc.items()} == pytest.approx(
        {"kd": naive_uhc(columns, logits, students, temperature)}
    )
    joined, alone = Ensemble.scores(method, "test"), Teacher.scores(method, "test")
    for b, zs in enumerate(logits):
        assert joined[b].tolist() == pytest.approx(naive_join(columns, zs, merge))
        assert alone[b].tolist() == pytest.approx(naive_target(columns, zs, [0.0, 1.0, 0.0][: len(columns)]))


# Underflow: in float32, exp(-400) is 0 and its logarithm infinite.


def extreme(columns: Columns, size: float) -> tuple[list[list[Row]], list[Row], list[Row]]:
    """Logits of plus and minus `size` for teachers and student, which agree on some classes and not on others."""
    classes = size_of(columns)
    logits = [
        [[size if k == b % len(own) else -size for k in range(len(own))] for own in columns] for b in range(BATCH)
    ]
    students = [[size if k == (2 * b + 1) % classes else -size for k in range(classes)] for b in range(BATCH)]
    _, certainty, _ = draw(columns)
    return logits, certainty, students


each_size = pytest.mark.parametrize("size", [200.0, 1e4])


@pytest.mark.parametrize("reweight", [False, True])
@pytest.mark.parametrize(
    ("tau", "reverse"),
    [(None, False), (0.2, False), (1e-3, False), (0.2, True)],
    ids=["hard", "soft", "cold", "reverse"],
)
@each_size
@each_layout
def test_loss_stays_finite_where_probabilities_underflow(
    columns: Columns, size: float, tau: float | None, reverse: bool, reweight: bool
) -> None:
    logits, certainty, students = extreme(columns, size)
    student = tensor(students, torch.float32).requires_grad_()
    found = integrated(
        columns,
        by_teacher(logits, torch.float32),
        tensor(certainty, torch.float32),
        student,
        tau=tau,
        reweight=reweight,
        reverse=reverse,
    )
    found.backward()
    expected = naive_muki(columns, logits, certainty, students, tau=tau, reweight=reweight, reverse=reverse)
    assert expected > 1
    assert found.item() == pytest.approx(expected, rel=1e-4)
    assert torch.isfinite(student.grad).all()
    if not reverse:  # a student that is sure of one class has no gradient of its own entropy
        assert student.grad.abs().sum() > 0


@each_merge
@each_size
@each_layout
def test_baselines_stay_finite_where_probabilities_underflow(columns: Columns, size: float, merge: str) -> None:
    logits, _, students = extreme(columns, size)
    union, zs, student = union_of(columns), by_teacher(logits, torch.float32), tensor(students, torch.float32)
    student.requires_grad_()
    kd = integration.vanilla_kd(union, zs, student, 1.0, merge)
    uhc = integration.uhc(union, zs, student, 1.0)
    assert kd.item() == pytest.approx(naive_vanilla_kd(columns, logits, students, 1.0, merge), rel=1e-6)
    assert uhc.item() == pytest.approx(naive_uhc(columns, logits, students, 1.0), rel=1e-6)
    for loss in (kd, uhc):
        (gradient,) = torch.autograd.grad(loss, student, retain_graph=True)
        assert torch.isfinite(gradient).all()
        assert gradient.abs().sum() > 0
    padded = integration.padded_scores(union, zs, 0)[0].tolist()
    assert padded == pytest.approx(naive_target(columns, logits[0], [1.0, *[0.0] * (len(columns) - 1)]))
