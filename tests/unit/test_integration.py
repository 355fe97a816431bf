"""The equations of knowledge integration against a second, naive implementation in plain floats."""

from __future__ import annotations

import math
import random
from types import SimpleNamespace

import pytest
import torch

from kbench.methods import integration
from kbench.methods.muki import Muki, Target

# classes of each teacher, unequal on purpose
SIZES = {2: (2, 3), 3: (2, 4, 3), 5: (3, 2, 5, 2, 4)}
TEACHERS = sorted(SIZES)
BATCH, SAMPLES = 4, 16

Row = list[float]


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


def naive_certainty(samples: list[Row]) -> float:
    """1 - H(mean of the samples' distributions) / log C."""
    each = [naive_softmax(logits) for logits in samples]
    mean = [math.fsum(column) / len(each) for column in zip(*each, strict=True)]
    entropy = -math.fsum(p * math.log(p) for p in mean if p > 0)
    return 1 - entropy / math.log(len(mean))


def naive_target(logits: list[Row], weights: Row) -> Row:
    """The teachers' distributions one after another, each times its weight."""
    return [weight * q for z, weight in zip(logits, weights, strict=True) for q in naive_softmax(z)]


def naive_hard_weights(certainty: Row) -> Row:
    best = certainty.index(max(certainty))
    return [float(i == best) for i in range(len(certainty))]


def naive_soft_weights(certainty: Row, tau: float) -> Row:
    return naive_softmax([c / tau for c in certainty])


def naive_margin(certainty: Row) -> float:
    first, second = sorted(certainty, reverse=True)[:2]
    return abs(first - second) + 1e-6


def naive_divergence(target: Row, student: Row) -> float:
    """KL(T || softmax(s)); a term with T = 0 is 0."""
    log_student = naive_log_softmax(student)
    return math.fsum(t * (math.log(t) - s) for t, s in zip(target, log_student, strict=True) if t > 0)


def naive_kl(targets: list[Row], students: list[Row], weights: Row | None = None) -> float:
    """Mean over the batch, not divided by the sum of the weights."""
    weights = weights or [1.0] * len(targets)
    each = [w * naive_divergence(t, s) for w, t, s in zip(weights, targets, students, strict=True)]
    return math.fsum(each) / len(each)


def naive_muki(
    logits: list[list[Row]],
    certainty: list[Row],
    students: list[Row],
    *,
    tau: float | None,
    reweight: bool,
    temperature: float = 1.0,
) -> float:
    """The whole loss; logits[b][i] are teacher i's on instance b. tau None: the hard target."""
    targets = [
        naive_target(
            [divided(z, temperature) for z in zs],
            naive_hard_weights(c) if tau is None else naive_soft_weights(c, tau),
        )
        for zs, c in zip(logits, certainty, strict=True)
    ]
    weights = [naive_margin(c) for c in certainty] if reweight else None
    return naive_kl(targets, [divided(s, temperature) for s in students], weights)


def naive_vanilla_kd(logits: list[list[Row]], students: list[Row], temperature: float) -> float:
    targets = [naive_softmax(divided([z for own in zs for z in own], temperature)) for zs in logits]
    return temperature**2 * naive_kl(targets, [divided(s, temperature) for s in students])


def naive_uhc(logits: list[list[Row]], students: list[Row], temperature: float) -> float:
    total, start = 0.0, 0
    for i in range(len(logits[0])):
        size = len(logits[0][i])
        targets = [naive_softmax(divided(zs[i], temperature)) for zs in logits]
        total += naive_kl(targets, [divided(s[start : start + size], temperature) for s in students])
        start += size
    return temperature**2 * total


def divided(logits: Row, temperature: float) -> Row:
    return [z / temperature for z in logits]


# Inputs.


def draw(teachers: int, seed: int = 0, scale: float = 2.0) -> tuple[list[list[Row]], list[Row], list[Row]]:
    """Logits [B][N][C_i], certainty [B][N], student logits [B][C]."""
    rng = random.Random(100 * teachers + seed)
    sizes = SIZES[teachers]
    logits = [[[rng.gauss(0, scale) for _ in range(size)] for size in sizes] for _ in range(BATCH)]
    certainty = [[rng.random() for _ in sizes] for _ in range(BATCH)]
    students = [[rng.gauss(0, scale) for _ in range(sum(sizes))] for _ in range(BATCH)]
    return logits, certainty, students


def tensor(values: list, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype)


def by_teacher(logits: list[list[Row]], dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    """[B][N][C_i] as one tensor [B, C_i] a teacher."""
    return [tensor(list(own), dtype) for own in zip(*logits, strict=True)]


def integrated(
    logits: list[torch.Tensor], certainty: torch.Tensor, student: torch.Tensor, *, tau: float | None, reweight: bool
) -> torch.Tensor:
    """The loss of MUKI put together from the functions under test."""
    if tau is None:
        target = integration.hard_target(logits, certainty)
    else:
        target = integration.soft_target(logits, certainty, tau)
    return integration.kl(target, student, integration.margin(certainty) if reweight else None)


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
def test_uncertainty_where_a_probability_underflows(dtype: torch.dtype) -> None:
    logits = [[200.0, -200.0], [-200.0, 200.0], [200.0, 200.0]]
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


# Targets.


@pytest.mark.parametrize("teachers", TEACHERS)
def test_hard_target_equals_the_naive_one(teachers: int) -> None:
    logits, certainty, _ = draw(teachers)
    found = integration.hard_target(by_teacher(logits), tensor(certainty))
    for row, zs, c in zip(found.tolist(), logits, certainty, strict=True):
        assert row == pytest.approx(naive_target(zs, naive_hard_weights(c)), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
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
def test_a_tie_goes_to_the_lowest_teacher_and_weighs_a_millionth(
    certainty: Row, chosen: int, dtype: torch.dtype
) -> None:
    logits = [torch.zeros(1, 2, dtype=dtype) for _ in certainty]
    found = integration.hard_target(logits, tensor([certainty], dtype))[0].tolist()
    assert found == [0.5 if column // 2 == chosen else 0.0 for column in range(2 * len(certainty))]
    assert integration.margin(tensor([certainty], dtype)).tolist() == pytest.approx([1e-6], rel=1e-6)


def test_a_tie_between_equal_samples() -> None:
    samples = tensor([[[0.3, -1.2], [2.0, 0.4]]], torch.float32)
    certainty = 1 - integration.uncertainty(integration.mean_distribution(samples))
    both = torch.stack([certainty, certainty], dim=-1)
    target = integration.hard_target([torch.zeros(1, 2), torch.zeros(1, 2)], both)
    assert target.tolist() == [[0.5, 0.5, 0.0, 0.0]]
    assert integration.margin(both).item() == pytest.approx(1e-6, rel=1e-6)


def test_soft_target_of_a_worked_example() -> None:
    # c / tau = (3, 2), w = (0.7310586, 0.2689414); q = (1/4, 3/4) and (1/2, 1/2)
    logits = [tensor([[0.0, math.log(3)]]), tensor([[1.0, 1.0]])]
    found = integration.soft_target(logits, tensor([[0.6, 0.4]]), 0.2)
    assert found[0].tolist() == pytest.approx([0.1827646, 0.5482939, 0.1344707, 0.1344707], abs=1e-7)


@pytest.mark.parametrize("tau", [0.05, 0.2, 1.0, 10.0])
@pytest.mark.parametrize("teachers", TEACHERS)
def test_soft_target_equals_the_naive_one(teachers: int, tau: float) -> None:
    logits, certainty, _ = draw(teachers)
    found = integration.soft_target(by_teacher(logits), tensor(certainty), tau)
    assert found.shape == (BATCH, sum(SIZES[teachers]))
    for row, zs, c in zip(found.tolist(), logits, certainty, strict=True):
        assert row == pytest.approx(naive_target(zs, naive_soft_weights(c, tau)), rel=1e-12)
        assert math.fsum(row) == pytest.approx(1.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("teachers", TEACHERS)
def test_soft_target_tends_to_the_hard_one_as_tau_vanishes(teachers: int, dtype: torch.dtype) -> None:
    logits, certainty, _ = draw(teachers)
    soft = integration.soft_target(by_teacher(logits, dtype), tensor(certainty, dtype), 1e-7)
    hard = [naive_target(zs, naive_hard_weights(c)) for zs, c in zip(logits, certainty, strict=True)]
    assert soft.flatten().tolist() == pytest.approx([t for row in hard for t in row], abs=1e-6)


@pytest.mark.parametrize("teachers", TEACHERS)
def test_soft_target_tends_to_equal_weights_as_tau_grows(teachers: int) -> None:
    logits, certainty, _ = draw(teachers)
    soft = integration.soft_target(by_teacher(logits), tensor(certainty), 1e9)
    equal = [naive_target(zs, [1 / teachers] * teachers) for zs in logits]
    assert soft.flatten().tolist() == pytest.approx([t for row in equal for t in row], abs=1e-8)


@pytest.mark.parametrize("teachers", TEACHERS)
def test_targets_have_a_batch_axis_with_one_instance(teachers: int) -> None:
    logits, certainty, _ = draw(teachers)
    one, c = by_teacher(logits[:1]), tensor(certainty[:1])
    assert integration.hard_target(one, c).shape == (1, sum(SIZES[teachers]))
    assert integration.soft_target(one, c, 0.2).shape == (1, sum(SIZES[teachers]))
    assert integration.margin(c).shape == (1,)


# Weight.


@pytest.mark.parametrize(
    ("certainty", "expected"),
    [
        ([0.9, 0.5], 0.400001),
        ([0.5, 0.9], 0.400001),
        ([0.9, 0.5, 0.7], 0.200001),
        ([0.1, 0.8, 0.3, 0.75, 0.2], 0.050001),
        ([0.6, 0.6, 0.1], 0.000001),
    ],
)
def test_margin_of_worked_examples(certainty: Row, expected: float) -> None:
    assert integration.margin(tensor([certainty])).tolist() == pytest.approx([expected], rel=1e-9)


@pytest.mark.parametrize("teachers", TEACHERS)
def test_margin_equals_the_naive_one(teachers: int) -> None:
    _, certainty, _ = draw(teachers)
    assert integration.margin(tensor(certainty)).tolist() == pytest.approx([naive_margin(c) for c in certainty])


# Divergence.


def test_kl_of_a_worked_example_is_that_of_the_target_from_the_student() -> None:
    # T = (1/2, 1/2), S = (1/4, 3/4): KL(T || S) = 1/2 ln 2 + 1/2 ln 2/3 = 0.1438410; KL(S || T) would be 0.1308120
    found = integration.kl(tensor([[0.5, 0.5]]), tensor([[0.0, math.log(3)]]))
    assert found.item() == pytest.approx(0.1438410, abs=1e-7)


def test_kl_of_a_target_with_zeros() -> None:
    # T = (1, 0), S = (1/4, 3/4): ln 4; and a target equal to the student's distribution: 0
    assert integration.kl(tensor([[1.0, 0.0]]), tensor([[0.0, math.log(3)]])).item() == pytest.approx(math.log(4))
    assert integration.kl(tensor([[0.25, 0.75]]), tensor([[0.0, math.log(3)]])).item() == pytest.approx(0.0, abs=1e-15)


def test_kl_weights_each_instance_and_does_not_renormalise() -> None:
    # ln 4 and ln 4/3 from T = (1, 0) and (0, 1): (0.5 * 1.3862944 + 3 * 0.2876821) / 2 = 0.7780967
    target, student = tensor([[1.0, 0.0], [0.0, 1.0]]), tensor([[0.0, math.log(3)]] * 2)
    assert integration.kl(target, student, tensor([0.5, 3.0])).item() == pytest.approx(0.7780967, abs=1e-7)
    assert integration.kl(target, student).item() == pytest.approx(0.8369882, abs=1e-7)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("teachers", TEACHERS)
def test_kl_equals_the_naive_one(teachers: int, weighted: bool) -> None:
    logits, certainty, students = draw(teachers)
    targets = [naive_target(zs, naive_soft_weights(c, 0.3)) for zs, c in zip(logits, certainty, strict=True)]
    weights = [naive_margin(c) for c in certainty] if weighted else None
    found = integration.kl(tensor(targets), tensor(students), None if weights is None else tensor(weights))
    assert found.item() == pytest.approx(naive_kl(targets, students, weights), rel=1e-12)


# The whole loss.


@pytest.mark.parametrize("reweight", [False, True])
@pytest.mark.parametrize("tau", [None, 0.2, 2.0])
@pytest.mark.parametrize("teachers", TEACHERS)
def test_loss_from_samples_equals_the_naive_one(teachers: int, tau: float | None, reweight: bool) -> None:
    rng = random.Random(teachers)
    samples = [
        [[[rng.gauss(0, 2) for _ in range(size)] for _ in range(SAMPLES)] for _ in range(BATCH)]
        for size in SIZES[teachers]
    ]
    certain = [1 - integration.uncertainty(integration.mean_distribution(tensor(own))) for own in samples]
    logits, _, students = draw(teachers)
    found = integrated(by_teacher(logits), torch.stack(certain, dim=-1), tensor(students), tau=tau, reweight=reweight)
    certainty = [[naive_certainty(own[b]) for own in samples] for b in range(BATCH)]
    assert found.item() == pytest.approx(naive_muki(logits, certainty, students, tau=tau, reweight=reweight), rel=1e-9)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("reweight", [False, True])
@pytest.mark.parametrize("target", list(Target))
@pytest.mark.parametrize("teachers", TEACHERS)
def test_loss_of_the_method_equals_the_naive_one(
    teachers: int, target: Target, reweight: bool, temperature: float
) -> None:
    logits, certainty, students = draw(teachers)
    method = SimpleNamespace(
        config=SimpleNamespace(target=target, tau=0.2, reweight=reweight, temperature=temperature),
        batch_logits=lambda batch: by_teacher(logits),
        student_logits=lambda model, batch: tensor(students),
    )
    found = Muki.loss(method, None, {"certainty": tensor(certainty)})
    tau = None if target is Target.hard else 0.2
    expected = naive_muki(logits, certainty, students, tau=tau, reweight=reweight, temperature=temperature)
    assert set(found) == {"integration"}
    assert found["integration"].item() == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("reweight", [False, True])
@pytest.mark.parametrize("tau", [None, 0.2])
@pytest.mark.parametrize("teachers", TEACHERS)
def test_gradient_equals_the_closed_form_and_central_differences(
    teachers: int, tau: float | None, reweight: bool
) -> None:
    logits, certainty, students = draw(teachers)
    student = tensor(students).requires_grad_()
    integrated(by_teacher(logits), tensor(certainty), student, tau=tau, reweight=reweight).backward()
    step = 1e-5
    for b, (zs, c, s) in enumerate(zip(logits, certainty, students, strict=True)):
        target = naive_target(zs, naive_hard_weights(c) if tau is None else naive_soft_weights(c, tau))
        weight = naive_margin(c) if reweight else 1.0
        closed = [weight * (q - t) / BATCH for q, t in zip(naive_softmax(s), target, strict=True)]
        assert student.grad[b].tolist() == pytest.approx(closed, abs=1e-13)
        for column in range(len(s)):
            ends = []
            for change in (step, -step):
                moved = [list(row) for row in students]
                moved[b][column] += change
                ends.append(naive_muki(logits, certainty, moved, tau=tau, reweight=reweight))
            assert student.grad[b, column].item() == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-9)


# Baselines.


def test_vanilla_kd_of_a_worked_example() -> None:
    # one softmax over both: T = (1, 1, 2, 1) / 5, S = 1/4 each: 3/5 ln 4/5 + 2/5 ln 8/5 = 0.0541153
    logits = [tensor([[0.0, 0.0]]), tensor([[math.log(2), 0.0]])]
    assert integration.vanilla_kd(logits, torch.zeros(1, 4), 1.0).item() == pytest.approx(0.0541153, abs=1e-7)


def test_uhc_of_a_worked_example_sums_over_the_teachers() -> None:
    # each teacher alone, S = 1/2 each: T = (2/3, 1/3) twice, 2 * (2/3 ln 4/3 + 1/3 ln 2/3) = 2 * 0.0566330
    logits = [tensor([[math.log(2), 0.0]]), tensor([[0.0, math.log(2)]])]
    assert integration.uhc(logits, torch.zeros(1, 4), 1.0).item() == pytest.approx(0.1132660, abs=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 4.0])
@pytest.mark.parametrize("teachers", TEACHERS)
def test_vanilla_kd_and_uhc_equal_the_naive_ones(teachers: int, temperature: float) -> None:
    logits, _, students = draw(teachers)
    inputs = by_teacher(logits), tensor(students), temperature
    assert integration.vanilla_kd(*inputs).item() == pytest.approx(
        naive_vanilla_kd(logits, students, temperature), rel=1e-11
    )
    assert integration.uhc(*inputs).item() == pytest.approx(naive_uhc(logits, students, temperature), rel=1e-11)


def test_the_scale_of_one_teacher_moves_vanilla_kd_and_not_uhc() -> None:
    logits, _, students = draw(3)
    shifted = [[[z + 5 for z in zs[0]], *zs[1:]] for zs in logits]
    before, after, student = by_teacher(logits), by_teacher(shifted), tensor(students)
    assert integration.uhc(after, student, 1.0).item() == pytest.approx(integration.uhc(before, student, 1.0).item())
    change = integration.vanilla_kd(after, student, 1.0) - integration.vanilla_kd(before, student, 1.0)
    assert change.item() == pytest.approx(
        naive_vanilla_kd(shifted, students, 1.0) - naive_vanilla_kd(logits, students, 1.0)
    )
    assert abs(change.item()) > 0.1


@pytest.mark.parametrize("teachers", TEACHERS)
def test_padded_scores_equal_the_naive_ones(teachers: int) -> None:
    logits, _, _ = draw(teachers)
    for chosen in range(teachers):
        found = integration.padded_scores(by_teacher(logits), chosen)
        for row, zs in zip(found.tolist(), logits, strict=True):
            expected = naive_target(zs, [float(i == chosen) for i in range(teachers)])
            assert row == pytest.approx(expected, rel=1e-12)
            assert row.count(0.0) == len(row) - len(zs[chosen])


def test_padded_scores_of_a_worked_example() -> None:
    logits = [tensor([[0.0, math.log(3)]]), tensor([[0.0, 0.0, math.log(2)]])]
    assert integration.padded_scores(logits, 0)[0].tolist() == pytest.approx([0.25, 0.75, 0, 0, 0])
    assert integration.padded_scores(logits, 1)[0].tolist() == pytest.approx([0, 0, 0.25, 0.25, 0.5])


# Underflow: in float32, exp(-400) is 0 and its logarithm infinite.


def extreme(teachers: int) -> tuple[list[list[Row]], list[Row], list[Row]]:
    """Logits of 200 and -200 for teachers and student, which agree on some classes and not on others."""
    sizes = SIZES[teachers]
    logits = [[[200.0 if k == b % size else -200.0 for k in range(size)] for size in sizes] for b in range(BATCH)]
    students = [[200.0 if k == (2 * b + 1) % sum(sizes) else -200.0 for k in range(sum(sizes))] for b in range(BATCH)]
    _, certainty, _ = draw(teachers)
    return logits, certainty, students


@pytest.mark.parametrize("reweight", [False, True])
@pytest.mark.parametrize("tau", [None, 0.2, 1e-3])
@pytest.mark.parametrize("teachers", TEACHERS)
def test_loss_stays_finite_where_probabilities_underflow(teachers: int, tau: float | None, reweight: bool) -> None:
    logits, certainty, students = extreme(teachers)
    student = tensor(students, torch.float32).requires_grad_()
    found = integrated(
        by_teacher(logits, torch.float32), tensor(certainty, torch.float32), student, tau=tau, reweight=reweight
    )
    found.backward()
    expected = naive_muki(logits, certainty, students, tau=tau, reweight=reweight)
    assert expected > 1
    assert found.item() == pytest.approx(expected, rel=1e-4)
    assert torch.isfinite(student.grad).all()
    assert student.grad.abs().sum() > 0


@pytest.mark.parametrize("teachers", TEACHERS)
def test_baselines_stay_finite_where_probabilities_underflow(teachers: int) -> None:
    logits, _, students = extreme(teachers)
    inputs = by_teacher(logits, torch.float32), tensor(students, torch.float32), 1.0
    assert integration.vanilla_kd(*inputs).item() == pytest.approx(naive_vanilla_kd(logits, students, 1.0), rel=1e-6)
    assert integration.uhc(*inputs).item() == pytest.approx(naive_uhc(logits, students, 1.0), rel=1e-6)
    padded = integration.padded_scores(inputs[0], 0)[0].tolist()
    assert padded == pytest.approx(naive_target(logits[0], [1.0, *[0.0] * (teachers - 1)]))
