"""How one model is trained. Free of torch, so that a configuration can be checked without it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from kbench.config.keys import key
from kbench.errors import Problem


class Precision(Enum):
    """Number format of the matrix products; weights and optimiser stay in float32."""

    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class Selection(Enum):
    """Which weights a training ends with."""

    best_val = "best_val"
    last = "last"


class Schedule(Enum):
    """Course of the learning rate after the warm-up."""

    linear = "linear"
    constant = "constant"


@dataclass
class Recipe:
    """One training: length, optimiser, batch, precision, evaluation and selection."""

    epochs: int = key("passes over the training rows")
    max_steps: int | None = key("stop after this many optimiser steps; null: as many as the epochs have")
    lr: float = key("peak learning rate")
    schedule: Schedule = key("linear: down to 0 at the last step; constant")
    warmup: float = key("share of all steps over which the learning rate rises from 0")
    warmup_steps: int | None = key("the same in optimiser steps; null: the share")
    adam_epsilon: float = key("AdamW's epsilon")
    adam_beta2: float = key("AdamW's decay of squared gradients; that of gradients is 0.9")
    weight_decay: float = key("AdamW's decay; biases and layer norms have none")
    clip: float = key("largest norm of the gradient; 0: no clipping")
    global_batch_size: int = key("rows in one optimiser step, over all processes and accumulations")
    length_pool: int = key("global batches sorted by length together, so that little is padding; 0: no grouping")
    precision: Precision = key("fp32, bf16 or fp16 (mixed precision; fp16 needs a GPU)")
    eval_every: int | None = key(
        "optimiser steps between evaluations on validation, the last step is always one; null: an epoch"
    )
    selection: Selection = key("best_val: weights of the best evaluation; last: final weights")
    patience: int | None = key("stop after this many evaluations without a better one; null: never")

    def check(self, where: str) -> list[Problem]:
        """Rules that a type cannot say. `where` is the configuration node, such as `train`."""
        problems = []
        for name in ("lr", "warmup", "weight_decay", "clip", "adam_epsilon", "adam_beta2"):
            if not math.isfinite(getattr(self, name)):
                return [Problem(f"{where}.{name}", f"must be a finite number, is {getattr(self, name)}")]
        for name in ("epochs", "global_batch_size"):
            if getattr(self, name) < 1:
                problems.append(Problem(f"{where}.{name}", f"must be at least 1, is {getattr(self, name)}"))
        for name in ("max_steps", "eval_every"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                problems.append(Problem(f"{where}.{name}", f"must be null or at least 1, is {getattr(self, name)}"))
        for name in ("lr", "adam_epsilon"):
            if not getattr(self, name) > 0:
                problems.append(Problem(f"{where}.{name}", f"must be above 0, is {getattr(self, name)}"))
        if self.warmup_steps is not None and self.warmup_steps < 0:
            problems.append(Problem(f"{where}.warmup_steps", f"must not be negative, is {self.warmup_steps}"))
        if not 0 <= self.adam_beta2 < 1:
            problems.append(Problem(f"{where}.adam_beta2", f"must lie in [0, 1), is {self.adam_beta2}"))
        if not 0 <= self.warmup <= 1:
            problems.append(Problem(f"{where}.warmup", f"is a share of all steps, 0 to 1, is {self.warmup}"))
        for name in ("weight_decay", "clip", "length_pool"):
            if getattr(self, name) < 0:
                problems.append(Problem(f"{where}.{name}", f"must not be negative, is {getattr(self, name)}"))
        if self.patience is not None and self.patience < 1:
            problems.append(Problem(f"{where}.patience", f"must be null or at least 1, is {self.patience}"))
        return problems
