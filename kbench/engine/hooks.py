"""What a method does inside a step of the training loop, beyond giving a loss; nothing, unless it says so."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor


class Hooks:
    """A method's own state in a training, called by the loop in this order in every step.

    `begin`, the loss of each micro batch, `gradients`, the optimiser's update, `update`.
    """

    def begin(self, step: int, epoch: int, positions: np.ndarray) -> None:
        """Before the micro batches of the step after `step`; `positions` are the rows of its whole global batch."""

    def gradients(self) -> list[Tensor]:
        """Leaf tensors beside the model's parameters, their `.grad` whole over all processes: clipped with the rest."""
        return []

    def update(self, step: int, rate: float) -> None:
        """After the optimiser's update, the `step`-th; `rate` is the learning rate it had."""

    def values(self) -> dict[str, float]:
        """Figures of the steps since the last logged point, for the log."""
        return {}

    def tensors(self, step: int) -> dict[str, Tensor]:
        """The state that a checkpoint of `step` needs; called on every process, kept by the main one."""
        return {}

    def saved(self, step: int) -> None:
        """The checkpoint of `step` stands."""

    def restore(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Take up the state of the checkpoint of `step`; on a fresh start step 0 and no tensors."""
