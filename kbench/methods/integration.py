"""The equations of knowledge integration: MUKI (sections 2.2.1 to 2.2.3) and the baselines that mimic the teachers.

N teachers; teacher i tells C_i classes apart, the union has C. z_i [B, C_i] are teacher i's logits with dropout off, s
[B, C] the student's; B counts texts, or words of sentences. Everything is computed in float32 or wider, distributions
as their logarithms, so that no probability underflows on the way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, one_hot, softmax


class Union:
    """Where each teacher's classes stand among all.

    Classes of texts belong to one teacher each; of the tags of words, O is known to all.

    Args:
        columns: for each teacher, index in the union of each of its classes.
        classes: number of classes of the union, C.
    """

    def __init__(self, columns: Sequence[Sequence[int]], classes: int):
        self.columns = [list(one) for one in columns]
        self.classes = classes
        self._indices: dict[torch.device, list[Tensor]] = {}

    def _index(self, teacher: int, device: torch.device) -> Tensor:
        """A teacher's columns on a device: copied there once, since a copy in every step would stop the GPU."""
        if device not in self._indices:
            self._indices[device] = [torch.tensor(one, device=device) for one in self.columns]
        return self._indices[device][teacher]

    def part(self, values: Tensor, teacher: int) -> Tensor:
        """A teacher's classes of values over the union: [.., C] -> [.., C_i]."""
        return values[..., self._index(teacher, values.device)]

    def pad(self, values: Tensor, teacher: int, fill: float = 0.0) -> Tensor:
        """Pad_i: a teacher's values over the union, `fill` on the classes it does not know: [.., C_i] -> [.., C]."""
        whole = values.new_full((*values.shape[:-1], self.classes), fill)
        whole[..., self._index(teacher, values.device)] = values
        return whole

    def join(self, logits: Sequence[Tensor], merge: str = "mean") -> Tensor:
        """All teachers' logits side by side, [B, C].

        Args:
            logits: z_i [B, C_i] of each teacher.
            merge: how the logits of a class that several teachers know become one: mean, max or logsumexp.
        """
        padded = torch.stack([self.pad(z, i, -math.inf) for i, z in enumerate(logits)])
        if merge == "max":
            return padded.amax(0)
        if merge == "logsumexp":
            return padded.logsumexp(0)
        known = padded.isfinite()
        return padded.where(known, 0.0).sum(0) / known.sum(0)


def uncertainty(probabilities: Tensor) -> Tensor:
    """u = H(p) / log C of distributions [..., C], in [0, 1] (eq. 5 and 6); 0 log 0 is 0.

    Raises:
        ValueError: one class: its entropy cannot be normalised.
    """
    classes = probabilities.shape[-1]
    if classes < 2:
        raise ValueError("the uncertainty of a teacher with one class is not defined")
    return -torch.special.xlogy(probabilities, probabilities).sum(-1) / math.log(classes)


def entity_part(probabilities: Tensor, outside: int, renormalise: bool) -> Tensor:
    """Tag distributions [..., 1 + T] without O: [..., T] (section 3.4: "over the tags of entity types").

    Args:
        probabilities: of O and the T tags of a teacher's entity types.
        outside: where O stands among them.
        renormalise: make them sum to 1 again; a word that is surely O would be of low entropy otherwise.
    """
    entities = torch.cat([probabilities[..., :outside], probabilities[..., outside + 1 :]], -1)
    if not renormalise:
        return entities
    return entities / entities.sum(-1, keepdim=True).clamp_min(torch.finfo(entities.dtype).tiny)


def mean_distribution(sampled_logits: Tensor) -> Tensor:
    """p = mean over k of softmax(logits under dropout mask k), [..., K, C] -> [..., C] (eq. 5)."""
    return softmax(sampled_logits, -1).mean(-2)


def hard_target(union: Union, logits: Sequence[Tensor], certainty: Tensor) -> Tensor:
    """log T, T = Pad_j(softmax(z_j)) with j the most certain teacher, ties to the lowest index; [B, C] (eq. 8 and 9).

    Args:
        union: the teachers' classes.
        logits: z_i [B, C_i] of each teacher.
        certainty: c = 1 - u, [B, N].
    """
    return _log_mixture(union, logits, one_hot(certainty.argmax(-1), len(logits)).log())


def soft_target(union: Union, logits: Sequence[Tensor], certainty: Tensor, tau: float) -> Tensor:
    """log T, T = sum_i w_i Pad_i(softmax(z_i)), w = softmax(c / tau); [B, C] (eq. 10 to 12)."""
    return _log_mixture(union, logits, log_softmax(certainty / tau, -1))


def _log_mixture(union: Union, logits: Sequence[Tensor], log_weights: Tensor) -> Tensor:
    parts = [
        union.pad(log_softmax(z, -1) + log_weights[:, i : i + 1].to(z.dtype), i, -math.inf)
        for i, z in enumerate(logits)
    ]
    return torch.stack(parts).logsumexp(0)


def margin(certainty: Tensor, floor: float) -> Tensor:
    """v = largest minus second largest c of each instance, plus `floor`; [B, N] -> [B] (eq. 13).

    The released code adds 1e-6, which keeps an instance whose two best teachers tie; the paper adds nothing.
    """
    top = certainty.topk(2, dim=-1).values
    return (top[:, 0] - top[:, 1]).abs() + floor


def kl(log_target: Tensor, student: Tensor, weight: Tensor | None = None, *, reverse: bool = False) -> Tensor:
    """Mean over the batch of weight * KL(T || softmax(s)), the direction of the released code (eq. 7 and 14).

    Args:
        log_target: log T [B, C]; minus infinity where T is 0.
        student: logits [B, C].
        weight: of each instance [B]; not renormalised.
        reverse: KL(softmax(s) || T), the direction the paper prints; infinite where T has zeros.
    """
    log_student = log_softmax(student, -1)
    if reverse:
        each = (log_student.exp() * (log_student - log_target)).sum(-1)
    else:
        target = log_target.exp()
        each = (target * (log_target.where(target > 0, 0.0) - log_student)).sum(-1)
    return (each if weight is None else each * weight).mean()


def vanilla_kd(
    union: Union, logits: Sequence[Tensor], student: Tensor, temperature: float, merge: str = "mean"
) -> Tensor:
    """T^2 * mean KL(softmax([z_1; ..; z_N] / T) || softmax(s / T)): one softmax over all teachers' logits."""
    target = log_softmax(union.join(logits, merge) / temperature, -1)
    return kl(target, student / temperature) * temperature**2


def uhc(union: Union, logits: Sequence[Tensor], student: Tensor, temperature: float) -> Tensor:
    """T^2 * sum_i mean KL(softmax(z_i / T) || softmax(s restricted to teacher i's classes, / T))."""
    terms = [kl(log_softmax(z / temperature, -1), union.part(student, i) / temperature) for i, z in enumerate(logits)]
    return torch.stack(terms).sum() * temperature**2


def padded_scores(union: Union, logits: Sequence[Tensor], teacher: int) -> Tensor:
    """Pad_i(softmax(z_i)): a teacher alone, zero on the classes it does not know; [B, C]."""
    return union.pad(softmax(logits[teacher], -1), teacher)
