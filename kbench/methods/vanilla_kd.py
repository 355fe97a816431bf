"""Vanilla knowledge distillation: the student mimics the softmax over the teachers' concatenated logits.

The "Vanilla KD" row of MUKI's tables (paper, section 3.1; Hinton et al. 2015).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kbench.config.keys import key
from kbench.errors import Problem
from kbench.methods.ensemble import Merge
from kbench.methods.teachers import TeacherMethod, TeacherOptions, check_teachers

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kbench.config.schema import Data


@dataclass
class Distillation(TeacherOptions):
    """Options of every distillation."""

    temperature: float = key("divides teachers' and student's logits; the loss is scaled by its square")


@dataclass
class Config(Distillation):
    """Options of distillation from all teachers at once."""

    o_merge: Merge = key("tagging: how the teachers' logits of O become one: mean, max or logsumexp")


class VanillaKd(TeacherMethod):
    """T^2 KL(softmax([z_1; ..; z_N] / T) || softmax(s / T))."""

    Config = Config

    @classmethod
    def check(cls, config: Any, data: Data) -> list[Problem]:
        return check_teachers(config, data) + check_temperature(config.temperature)

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        from kbench.methods.integration import vanilla_kd

        student = self.student_logits(model, batch)
        merge = self.config.o_merge.value
        return {"kd": vanilla_kd(self.union, self.batch_logits(batch), student, self.config.temperature, merge)}


def check_temperature(temperature: float) -> list[Problem]:
    """A temperature divides."""
    return (
        [] if 0 < temperature < float("inf") else [Problem("method.temperature", f"must be above 0, is {temperature}")]
    )
