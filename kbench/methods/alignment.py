"""The equations and blocks of DFA and CFL, which align the student's hidden states with the teachers'.

Hidden states h are [B, L, width]; `mask` [B, L] is 1 on positions that count. A term is a mean over positions and
features of each text, then over the texts, so that it does not depend on how a batch is split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, relu

# bandwidths of the five Gaussian kernels, as multiples of the mean squared distance
_BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
_SMALLEST_BANDWIDTH = 1e-6  # where all texts are the same point
_INITIAL_STD = 0.02  # of the projections, as BERT's own


def paired_layers(student: int, teachers: Sequence[int], count: int | None = None) -> list[tuple[int, ...]]:
    """Layers that are aligned, each as (student's, teacher 1's, ...), counted from 1, the last one first.

    Student layer L_s - m goes with teacher layer L_i - m * (L_i // L_s): a teacher of twice the depth gives every
    second layer.

    Args:
        student: layers of the student, L_s.
        teachers: layers of each teacher, L_i, at least L_s.
        count: how many from the last one on; None: all.
    """
    return [
        (student - m, *(layers - m * (layers // student) for layers in teachers))
        for m in range(student if count is None else count)
    ]


def mean_square(x: Tensor, y: Tensor, mask: Tensor, weight: Tensor) -> Tensor:
    """Mean squared difference of hidden states [B, L, F]: over positions and features, then over the texts.

    Args:
        mask: positions that count [B, L], at least one a text.
        weight: what each text counts for in the mean over texts [B].
    """
    each = (x.float() - y.float()).square().mean(-1)
    return _over_texts((each * mask).sum(-1) / mask.sum(-1), weight)


def _over_texts(values: Tensor, weight: Tensor) -> Tensor:
    return (values * weight).sum() / weight.sum()


def mmd(x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    """Squared maximum mean discrepancy of two sets of texts, both [B, L, d], with five Gaussian kernels.

    Each text is one vector of all its positions, of length 1. The bandwidth is the mean squared distance within and
    between the sets, and has no gradient.
    """
    with torch.autocast(x.device.type, enabled=False):  # small distances do not survive 8 bits
        x, y = (normalize((h.float() * mask.unsqueeze(-1)).flatten(1), dim=-1) for h in (x, y))
        xx, yy, xy = _distances(x, x), _distances(y, y), _distances(x, y)
    bandwidth = ((xx + yy + 2 * xy).mean() / 4).detach().clamp_min(_SMALLEST_BANDWIDTH)
    kernels = [torch.stack([torch.exp(-d / (2 * c * bandwidth)) for c in _BANDWIDTHS]).sum() for d in (xx, yy, xy)]
    return ((kernels[0] + kernels[1] - 2 * kernels[2]) / len(x) ** 2).clamp_min(0)


def _distances(x: Tensor, y: Tensor) -> Tensor:
    lengths = x.square().sum(-1)[:, None] + y.square().sum(-1)  # 2, but for a text without any feature
    return (lengths - 2 * x @ y.T).clamp_min(0)


class Features(nn.Module):
    """DFA's block of one layer: the teachers' states to the student's width and back, the student's beside.

    r = A_t [h_1; ..; h_N], [h'_1; ..; h'_N] = A_d r, and A_s h_s shall be r; linear, no activation.
    """

    def __init__(self, student: int, teachers: Sequence[int]):
        super().__init__()
        self.widths = list(teachers)
        self.encode = nn.Linear(sum(teachers), student)
        self.decode = nn.Linear(student, sum(teachers))
        self.student = nn.Linear(student, student)

    def forward(self, student: Tensor, teachers: Sequence[Tensor], mask: Tensor, weight: Tensor) -> dict[str, Tensor]:
        """The terms `feature` and `reconstruction` of one layer."""
        joint = self.encode(torch.cat(list(teachers), -1))
        back = self.decode(joint).split(self.widths, dim=-1)
        lost = [mean_square(restored, h, mask, weight) for restored, h in zip(back, teachers, strict=True)]
        return {
            "feature": mean_square(self.student(student), joint.detach(), mask, weight),
            "reconstruction": torch.stack(lost).sum(),
        }


class CommonFeatures(nn.Module):
    """CFL's block of one layer: student and teachers in one small space where their distributions shall be equal."""

    def __init__(self, student: int, teachers: Sequence[int]):
        super().__init__()
        common = student // 4
        self.student = nn.Linear(student, common)
        self.teachers = nn.ModuleList(nn.Linear(width, common) for width in teachers)
        self.extract = nn.Sequential(nn.Linear(common, common), nn.ReLU(), nn.Linear(common, common))
        self.restore = nn.ModuleList(
            nn.Sequential(nn.Linear(common, width), nn.ReLU(), nn.Linear(width, width)) for width in teachers
        )

    def forward(self, student: Tensor, teachers: Sequence[Tensor], mask: Tensor, weight: Tensor) -> dict[str, Tensor]:
        """The terms `discrepancy` and `reconstruction` of one layer."""
        own = self.extract(relu(self.student(student)))
        found = [self.extract(relu(to(h))) for to, h in zip(self.teachers, teachers, strict=True)]
        lost = [mean_square(back(g), h, mask, weight) for back, g, h in zip(self.restore, found, teachers, strict=True)]
        return {
            "discrepancy": torch.stack([mmd(own, g, mask) for g in found]).sum(),
            "reconstruction": torch.stack(lost).sum(),
        }


class Aligned(nn.Module):
    """A student with alignment blocks beside it; called without teachers' states it is the student alone.

    Args:
        model: the student, of transformers.
        block: Features or CommonFeatures.
        teachers: width of each teacher's states.
        layers: what `paired_layers` gives, one block each.
        biases_only: leave the blocks' matrices as they are drawn, as the released runners do.
    """

    def __init__(
        self, model: Any, block: Any, teachers: Sequence[int], layers: Sequence[tuple[int, ...]], biases_only: bool
    ):
        super().__init__()
        self.model = model
        self.layers = list(layers)
        self.blocks = nn.ModuleList(block(model.config.hidden_size, teachers) for _ in layers)
        for parameter in self.blocks.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=_INITIAL_STD)
                parameter.requires_grad_(not biases_only)
            else:
                nn.init.zeros_(parameter)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        teachers: Sequence[Sequence[Tensor]] | None = None,
        mask: Tensor | None = None,
        weight: Tensor | None = None,
        **others: Tensor,
    ) -> Any:
        """The student's output; with the teachers' states of every layer, also `terms`, summed over the layers.

        Args:
            teachers: for each teacher its hidden states [B, L, width_i], embeddings first, as transformers gives them.
            mask: positions that count [B, L].
            weight: what each text counts for [B].
            others: further inputs of the student, such as token_type_ids.
        """
        given = {"input_ids": input_ids, "attention_mask": attention_mask, **others}
        if teachers is None or mask is None or weight is None:
            return self.model(**given)
        output = self.model(**given, output_hidden_states=True)
        terms: dict[str, Tensor] = {}
        for block, (own, *theirs) in zip(self.blocks, self.layers, strict=True):
            states = [hidden[layer] for hidden, layer in zip(teachers, theirs, strict=True)]
            found: Mapping[str, Tensor] = block(output.hidden_states[own], states, mask, weight)
            terms = {name: terms[name] + term if name in terms else term for name, term in found.items()}
        return SimpleNamespace(logits=output.logits, terms=terms)
