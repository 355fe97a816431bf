"""Parameter groups and the course of the learning rate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import nn

from kbench.engine.recipe import Recipe, Schedule


def groups(model: nn.Module, recipe: Recipe, rates: Mapping[str, float]) -> list[dict[str, Any]]:
    """Parameter groups by learning rate; biases and layer norms (the vectors) without decay."""
    made: dict[tuple[float, bool], list[nn.Parameter]] = {(recipe.lr, True): [], (recipe.lr, False): []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            rate = next((rate for start, rate in rates.items() if name.startswith(start)), recipe.lr)
            made.setdefault((rate, parameter.ndim > 1), []).append(parameter)
    return [
        {"params": found, "lr": rate, "weight_decay": recipe.weight_decay if matrix else 0.0}
        for (rate, matrix), found in made.items()
        if found
    ]


def share_of_peak(recipe: Recipe, step: int, total: int) -> float:
    """Share of the peak learning rate at a step, from 0: linear rise over the warm-up, then the schedule."""
    warm = math.ceil(recipe.warmup * total) if recipe.warmup_steps is None else recipe.warmup_steps
    if step < warm:
        return step / warm
    if recipe.schedule is Schedule.constant:
        return 1.0
    return (total - step) / max(1, total - warm)
