"""What a method is: its needs, its stages, its loss.

A method is one file here and one YAML in `conf/method/`. The file holds, in this order: a docstring (paper, idea,
source), `Config`, and the class. Files of methods import torch only inside functions, so that a configuration can be
listed, checked and planned without it; the equations stand in a module of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from kbench.errors import Problem
from kbench.stages.stage import Stage

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from kbench.backbones.locate import Located
    from kbench.config.schema import Backbone, Data
    from kbench.engine.feed import Beside
    from kbench.methods.bench import Bench


# all tasks there are
TASKS = ("classification", "regression", "tagging", "pos", "choice", "relation", "typing", "qa", "probe")


@dataclass(frozen=True)
class Needs:
    """What a method asks of the rest; checked before anything starts."""

    tasks: frozenset[str]
    teachers: bool = False
    pretraining: bool = False
    knowledge: bool = False


class Method:
    """Base of all methods.

    A *trained* method gives `loss`, and the engine trains the task's model with it; any other gives `scores`.
    """

    Config: ClassVar[type]
    needs: ClassVar[Needs]
    trained: ClassVar[bool] = True
    # its teachers learn all labels, so they may be chosen on validation
    selects_teachers: ClassVar[bool] = False
    # raised when a change of code changes the results: finished runs are then made once more
    version: ClassVar[int] = 1
    # the loss compares the rows of a batch with each other: the batch must not be split
    whole_batch: ClassVar[bool] = False

    def __init__(self, config: Any, bench: Bench):
        self.config = config
        self.bench = bench

    @classmethod
    def check(cls, config: Any, data: Data) -> list[Problem]:
        """Rules that a type cannot say, for this method's options on this data set."""
        return []

    @classmethod
    def places(cls, config: Any) -> dict[str, Backbone]:
        """Backbones beside the run's own, by name; each is looked for before anything starts."""
        return {}

    @classmethod
    def check_places(cls, config: Any, data: Data, places: Mapping[str, tuple[Backbone, Located]]) -> list[Problem]:
        """Whether the backbones that were found fit the data and each other; `student` is the run's own."""
        return []

    def stages(self) -> dict[str, Stage]:
        """What must exist before training, by name. Cheap: keys only, nothing is computed."""
        return {}

    def prepare(self, stages: Mapping[str, Any]) -> None:
        """Take up the finished stages (name -> folder) before `columns`, `loss` and `scores` are called."""

    def columns(self) -> dict[str, np.ndarray]:
        """Arrays with one line a unit of train; each batch brings its units' lines of them to `loss`."""
        return {}

    def student(self, model: nn.Module) -> nn.Module:
        """What is trained: the task's model, or a module around it whose forward is the model's own for evaluation."""
        return model

    def beside(self, split: str) -> Beside | None:
        """What gives the student further inputs for the rows of a split; None: the text is all."""
        return None

    def save(self, model: nn.Module, folder: Path) -> None:
        """Keep the trained student in a folder that transformers loads. `model` is the task's own, inside it."""
        self.bench.save(model, folder)

    def rates(self) -> dict[str, float]:
        """Peak learning rates of parameters of `student`, by the beginning of their names, where not `train.lr`."""
        return {}

    def width(self) -> int | None:
        """Tokens that every training batch is padded to; None: its longest row."""
        return None

    def unread(self, split: str) -> np.ndarray | None:
        """Words that no student should learn from or be judged by, beside those its own tokenizer cuts off [units]."""
        return None

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The terms of the loss, each a scalar mean over the batch's units; the engine adds and logs them.

        Args:
            model: the student; `model(**inputs(batch)).logits` are its scores.
            batch: the student's inputs; `step_units`, the units of the whole global batch, and `step_rows`, the rows of
                this piece of it (0: it stands in for one without rows, and counts nothing); this method's `columns`;
                of sentences also `units`, `unit_stops` and `row_units` (kbench/engine/feed.py).
        """
        raise NotImplementedError(f"{type(self).__name__} is trained but has no loss")  # abstract

    def scores(self, split: str) -> np.ndarray:
        """Scores [units, outputs] of a split, for a method that trains nothing."""
        raise NotImplementedError(f"{type(self).__name__} is not trained but has no scores")  # abstract

    def diagnostics(self) -> dict[str, float]:
        """Figures that explain the result, stored beside the metrics."""
        return {}
