"""Distillation from one fine-tuned teacher, against a naive implementation and worked numbers."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from kbench.engine.feed import pooled_logits
from kbench.methods.kd import Kd, Pooling, SoftLoss

# two sentences of 6 tokens: words at tokens 1-2, 3 and 4; at 1, of the second's, which is padded from 4 on, and 2-3
WORDS = [(0, 1, 3), (0, 3, 4), (0, 4, 5), (1, 1, 2), (1, 2, 4)]
TAGS = 3


def method(**options: Any) -> Any:
    made = Kd.__new__(Kd)
    usual = {"weight": 0.5, "temperature": 1.0, "soft_loss": SoftLoss.kl, "word_pooling": Pooling.first}
    made.config = SimpleNamespace(**(usual | options))
    made.bench = SimpleNamespace(records=SimpleNamespace(tagged=True))
    return made


def batch(aligned: list[float], seed: int = 0) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 6, TAGS, generator=generator)
    found = {
        "input_ids": torch.zeros(2, 6, dtype=torch.long),
        "attention_mask": torch.ones(2, 6, dtype=torch.long),
        "units": torch.tensor([6 * row + first for row, first, _ in WORDS]),
        "unit_stops": torch.tensor([6 * row + stop for row, _, stop in WORDS]),
        "label": torch.tensor([0, 2, 1, 1, 0]),
        "teacher": torch.randn(len(WORDS), TAGS, generator=generator),
        "aligned": torch.tensor(aligned),
    }
    return found, logits


def softmax(values: list[float], temperature: float) -> list[float]:
    powers = [math.exp(value / temperature) for value in values]
    return [power / sum(powers) for power in powers]


def naive(found: dict[str, torch.Tensor], logits: torch.Tensor, options: Any) -> tuple[float, float]:
    hard = soft = 0.0
    for word, (row, first, stop) in enumerate(WORDS):
        own = logits[row, first].tolist()
        hard -= math.log(softmax(own, 1.0)[int(found["label"][word])]) / len(WORDS)
        if options.word_pooling is Pooling.mean:
            own = [sum(logits[row, t, c].item() for t in range(first, stop)) / (stop - first) for c in range(TAGS)]
        ours = softmax(own, options.temperature)
        theirs = softmax(found["teacher"][word].tolist(), options.temperature)
        each = -sum(p * math.log(q) for p, q in zip(theirs, ours, strict=True))
        if options.soft_loss is SoftLoss.kl:
            each += sum(p * math.log(p) for p in theirs)
        soft += options.temperature**2 * each * found["aligned"][word].item() / len(WORDS)
    return hard, options.weight * soft


@pytest.mark.parametrize("options", [
    {}, {"weight": 2.0}, {"temperature": 3.0}, {"soft_loss": SoftLoss.ce, "temperature": 0.5},
    {"word_pooling": Pooling.mean}, {"word_pooling": Pooling.mean, "soft_loss": SoftLoss.ce, "weight": 0.1},
])  # fmt: skip
@pytest.mark.parametrize("aligned", [[1.0] * 5, [1.25, 0.0, 1.25, 1.25, 1.25]])
def test_the_loss_is_the_naive_one(options: dict[str, Any], aligned: list[float]) -> None:
    made = method(**options)
    found, logits = batch(aligned)
    terms = made.loss(lambda **given: SimpleNamespace(logits=logits), found)
    hard, soft = naive(found, logits, made.config)
    assert terms["hard"].item() == pytest.approx(hard, rel=1e-5)
    assert terms["soft"].item() == pytest.approx(soft, rel=1e-5)


def test_a_student_that_says_what_the_teacher_says_has_no_soft_loss_and_no_gradient_of_it() -> None:
    made = method()
    found, logits = batch([1.0] * 5)
    logits.requires_grad_(True)
    found["teacher"] = logits.detach().flatten(0, 1)[found["units"]]
    terms = made.loss(lambda **given: SimpleNamespace(logits=logits), found)
    assert terms["soft"].item() == pytest.approx(0, abs=1e-6)
    terms["soft"].backward()
    assert logits.grad is not None and logits.grad.abs().max() < 1e-6


def test_worked_numbers() -> None:
    """One word, two tags: the student says 3 to 1, the teacher 1 to 1."""
    made = method(weight=0.5)
    found = {"label": torch.tensor([0]), "aligned": torch.ones(1), "teacher": torch.zeros(1, 2)}
    found |= {"units": torch.tensor([0]), "unit_stops": torch.tensor([1])}
    logits = torch.tensor([[[math.log(3.0), 0.0]]])
    terms = made.loss(lambda **given: SimpleNamespace(logits=logits), found)
    assert terms["hard"].item() == pytest.approx(math.log(4 / 3), rel=1e-6)
    # 0.5 * (ln(1/2) - (ln(3/4) + ln(1/4)) / 2)
    assert terms["soft"].item() == pytest.approx(0.5 * (math.log(0.5) - math.log(3 / 16) / 2), rel=1e-5)


def test_pooled_logits_are_the_mean_of_a_words_tokens() -> None:
    found, logits = batch([1.0] * 5)
    pooled = pooled_logits(logits, found)
    for word, (row, first, stop) in enumerate(WORDS):
        assert torch.allclose(pooled[word], logits[row, first:stop].mean(0), atol=1e-6)


def test_words_that_the_teacher_cut_off_count_for_nothing_and_the_others_for_more() -> None:
    made = method()
    starts = {"own": np.array([1, 2, 3, 4, -1]), "theirs": np.array([1, 2, -1, 3, -1])}
    own, theirs = (SimpleNamespace(encoded=lambda split, s=s: SimpleNamespace(starts=s)) for s in starts.values())
    own.records = SimpleNamespace(tagged=True)
    made.bench, made.teachers = own, SimpleNamespace(benches=[theirs])
    weights = made._aligned
    assert weights.tolist() == pytest.approx([4 / 3, 4 / 3, 0, 4 / 3, 0])
    # over the four words that the student reads, the mean is that over the three that both read
    values = np.array([5.0, 1.0, 9.0, 3.0])
    assert (values * weights[:4]).mean() == pytest.approx((5 + 1 + 3) / 3)
