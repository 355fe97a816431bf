"""Fine-tuning: the backbone with a fresh head, trained on the gold labels of all classes.

The supervised row of MUKI's tables (paper, section 3.1), KReader and KResource of KR2's, and the plain baseline of
every other method. On a probe, where nothing is trained, the backbone as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kbench.config.keys import key
from kbench.methods.base import TASKS, Method, Needs

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn


@dataclass
class Config:
    """Options of fine-tuning: none."""

    name: str = key("name of the method")


class Finetune(Method):
    """Cross entropy with the gold label."""

    Config = Config
    needs = Needs(tasks=frozenset(TASKS))
    config: Any

    def columns(self) -> dict[str, np.ndarray]:
        return dict(self.bench.task.columns(self.bench.records, self.bench.encoded("train")))

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return dict(self.bench.task.loss(model, batch))

    def scores(self, split: str) -> np.ndarray:
        return self.bench.probe(split)
