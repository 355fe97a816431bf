"""What a method is: its needs, its stages, its loss.

A method is one file here and one YAML in `conf/method/`. The file holds, in this order: a docstring (paper, idea,
source), `Config`, and the class. Files of methods import torch only inside functions, so that a configuration can be
listed, checked and planned without it; the equations stand in a module of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from kbench.errors import Problem
from kbench.stages.stage import Stage

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from kbench.config.schema import Data
    from kbench.methods.bench import Bench


@dataclass(frozen=True)
class Needs:
    """What a method asks of the rest; checked before anything starts."""

    tasks: frozenset[str]
    teachers: bool = False


class Method:
    """Base of all methods.

    A *trained* method gives `loss`, and the engine trains the task's model with it; any other gives `scores`.
    """

    Config: ClassVar[type]
    needs: ClassVar[Needs]
    trained: ClassVar[bool] = True

    def __init__(self, config: Any, bench: Bench):
        self.config = config
        self.bench = bench

    @classmethod
    def check(cls, config: Any, data: Data) -> list[Problem]:
        """Rules that a type cannot say, for this method's options on this data set."""
        return []

    def stages(self) -> dict[str, Stage]:
        """What must exist before training, by name. Cheap: keys only, nothing is computed."""
        return {}

    def prepare(self, stages: Mapping[str, Any]) -> None:
        """Take up the finished stages (name -> folder) before `columns`, `loss` and `scores` are called."""

    def columns(self) -> dict[str, np.ndarray]:
        """Arrays with one row a training row; each batch brings its rows of them to `loss`."""
        return {}

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The terms of the loss, each a scalar mean over the batch's rows; the engine adds and logs them.

        Args:
            model: the student; `model(input_ids=, attention_mask=).logits` are its scores.
            batch: `input_ids`, `attention_mask` [B, L]; `label` [B]; this method's `columns`.
        """
        raise NotImplementedError(f"{type(self).__name__} is trained but has no loss")  # abstract

    def scores(self, split: str) -> np.ndarray:
        """Scores [rows, classes] of a split, for a method that trains nothing."""
        raise NotImplementedError(f"{type(self).__name__} is not trained but has no scores")  # abstract

    def diagnostics(self) -> dict[str, float]:
        """Figures that explain the result, stored beside the metrics."""
        return {}
