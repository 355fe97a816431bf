"""The equations of knowledge integration: MUKI (sections 2.2.1 to 2.2.3) and the baselines that mimic the teachers.

N teachers, teacher i with C_i classes of its own; the union of C classes lists teacher 1's first, then teacher 2's,
and so on. z_i [B, C_i] are teacher i's logits with dropout off, s [B, C] the student's. Everything is computed in
float32 or wider, in log space where a probability may underflow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, softmax

# keeps an instance whose two best teachers tie from having no weight at all (released code)
SMALLEST_WEIGHT = 1e-6


def uncertainty(probabilities: Tensor) -> Tensor:
    """u = H(p) / log C of distributions [..., C], in [0, 1] (eq. 5 and 6); 0 log 0 is 0.

    Raises:
        ValueError: one class: its entropy cannot be normalised.
    """
    classes = probabilities.shape[-1]
    if classes < 2:
        raise ValueError("the uncertainty of a teacher with one class is not defined")
    return -torch.special.xlogy(probabilities, probabilities).sum(-1) / math.log(classes)


def mean_distribution(sampled_logits: Tensor) -> Tensor:
    """p = mean over k of softmax(logits under dropout mask k), [..., K, C] -> [..., C] (eq. 5)."""
    return softmax(sampled_logits, -1).mean(-2)


def hard_target(logits: Sequence[Tensor], certainty: Tensor) -> Tensor:
    """T = Pad_j(softmax(z_j)) with j the most certain teacher, ties to the lowest index; [B, C] (eq. 8 and 9).

    Args:
        logits: z_i [B, C_i] of each teacher.
        certainty: c = 1 - u, [B, N].
    """
    return _mixture(logits, torch.nn.functional.one_hot(certainty.argmax(-1), len(logits)))


def soft_target(logits: Sequence[Tensor], certainty: Tensor, tau: float) -> Tensor:
    """T = sum_i w_i Pad_i(softmax(z_i)), w = softmax(c / tau); [B, C] (eq. 10 to 12)."""
    return _mixture(logits, softmax(certainty / tau, -1))


def _mixture(logits: Sequence[Tensor], weights: Tensor) -> Tensor:
    blocks = [softmax(z, -1) * weights[:, i : i + 1].to(z.dtype) for i, z in enumerate(logits)]
    return torch.cat(blocks, dim=-1)


def margin(certainty: Tensor) -> Tensor:
    """v = largest minus second largest c of each instance, plus 1e-6; [B, N] -> [B] (eq. 13; 1e-6: released code)."""
    top = certainty.topk(2, dim=-1).values
    return (top[:, 0] - top[:, 1]).abs() + SMALLEST_WEIGHT


def kl(target: Tensor, student: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean over the batch of weight * KL(T || softmax(s)): the direction of the released code (eq. 7 and 14).

    The paper prints the other direction, which is infinite for a target with zeros.

    Args:
        target: distributions [B, C]; zeros allowed.
        student: logits [B, C].
        weight: of each instance [B]; not renormalised.
    """
    log_student = log_softmax(student, -1)
    each = (torch.special.xlogy(target, target) - target * log_student).sum(-1)
    return (each if weight is None else each * weight).mean()


def vanilla_kd(logits: Sequence[Tensor], student: Tensor, temperature: float) -> Tensor:
    """T^2 * mean KL(softmax([z_1; ..; z_N] / T) || softmax(s / T)): one softmax over the concatenation."""
    target = softmax(torch.cat(list(logits), -1) / temperature, -1)
    return kl(target, student / temperature) * temperature**2


def uhc(logits: Sequence[Tensor], student: Tensor, temperature: float) -> Tensor:
    """T^2 * sum_i mean KL(softmax(z_i / T) || softmax(s restricted to teacher i's classes, / T))."""
    blocks = student.split([z.shape[-1] for z in logits], dim=-1)
    terms = [kl(softmax(z / temperature, -1), s / temperature) for z, s in zip(logits, blocks, strict=True)]
    return torch.stack(terms).sum() * temperature**2


def padded_scores(logits: Sequence[Tensor], teacher: int) -> Tensor:
    """Pad_i(softmax(z_i)): a teacher alone, zero on the classes it does not know; [B, C]."""
    blocks = [softmax(z, -1) if i == teacher else torch.zeros_like(z) for i, z in enumerate(logits)]
    return torch.cat(blocks, dim=-1)
