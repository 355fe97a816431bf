"""UHC, unifying heterogeneous classifiers: the student mimics each teacher on that teacher's own classes.

The "UHC" row of MUKI's tables (paper, section 3.1; Vongkulbhisal et al. 2019). No term ties the blocks together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from kbench.methods.vanilla_kd import Distillation, VanillaKd

if TYPE_CHECKING:
    from torch import Tensor, nn


class Uhc(VanillaKd):
    """T^2 sum_i KL(softmax(z_i / T) || softmax(s on teacher i's classes / T))."""

    Config = Distillation

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        from kbench.methods.integration import uhc

        student = self.student_logits(model, batch)
        return {"kd": uhc(self.union, self.batch_logits(batch), student, self.config.temperature)}
