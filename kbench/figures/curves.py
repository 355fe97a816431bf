"""Curves of pre-trainings for figures: how far the loss of masked words has come, at which time and cost.

Losses compare where they are of one kind. A logged loss of masked words holds its weight, theta where knowledge is
learned beside it and 1 where nothing else is: it is taken out. Two trainings are compared by what they need until the
smoothed loss is first as low as asked; that holds for the one that sets the loss, too, so that equals score 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from kbench.errors import Problem, UserError
from kbench.methods.curve import read
from kbench.runs.prepare import STAGES
from kbench.stages.store import manifest
from kbench.tables.collect import Grid

# share of a training's steps that a smoothed point is the mean of
WINDOW = 0.05
HEAD = ("step", "seconds", "operations", "tokens", "loss", "words_loss", "words_loss_smoothed", "knowledge_loss")


@dataclass(frozen=True)
class Needed:
    """What a training needed until some point of it: seconds and counted floating point operations."""

    seconds: float
    operations: float

    def share_of(self, other: Needed) -> Needed:
        """Both as shares of another's; not a number where that needed nothing."""
        parts = ((self.seconds, other.seconds), (self.operations, other.operations))
        return Needed(*(own / whole if whole else float("nan") for own, whole in parts))


@dataclass(frozen=True)
class Curve:
    """The logged points of a pre-training; a point is a mean over the steps since the one before.

    Attributes:
        label: of its row.
        made_on: what it was trained on.
        steps: step of each point, int [n], rising; the others are float [n].
        seconds, operations, tokens: so far.
        loss: as it was logged, all terms.
        words: mean cross-entropy of a masked word's token.
        knowledge: the same of the knowledge loss, without its weight 1 - theta; not a number where there is none.
    """

    label: str
    made_on: str
    steps: np.ndarray
    seconds: np.ndarray
    operations: np.ndarray
    tokens: np.ndarray
    loss: np.ndarray
    words: np.ndarray
    knowledge: np.ndarray

    @cached_property
    def smoothed(self) -> np.ndarray:
        """Mean of `words` over the last WINDOW of the training at each point; not a number before so much is there."""
        window = max(1, round(WINDOW * int(self.steps[-1])))
        of_point = np.diff(self.steps, prepend=0)
        sums = np.cumsum(np.concatenate([[0.0], self.words * of_point]))
        counts = np.concatenate([[0], self.steps])
        first = np.searchsorted(self.steps, self.steps - window, side="right")
        last = np.arange(1, len(self.steps) + 1)
        means = (sums[last] - sums[first]) / (counts[last] - counts[first])
        return np.where(self.steps >= window, means, np.nan)

    @property
    def final(self) -> float:
        """The smoothed loss at the end."""
        return float(self.smoothed[-1])

    @property
    def whole(self) -> Needed:
        """What all of it needed."""
        return Needed(float(self.seconds[-1]), float(self.operations[-1]))

    @property
    def roughness(self) -> float:
        """Standard deviation of a point about the trend in the last half: of neighbours' differences, over root 2."""
        late = self.words[self.steps > self.steps[-1] / 2]
        return float(np.sqrt(np.mean(np.diff(late) ** 2) / 2)) if len(late) > 1 else float("nan")

    def level(self, part: float) -> float:
        """The smoothed loss after a part of the steps, at the first point there that has one."""
        there = np.flatnonzero((self.steps >= part * self.steps[-1]) & np.isfinite(self.smoothed))
        return float(self.smoothed[there[0]])

    def reaches(self, loss: float) -> Needed | None:
        """What it needed until its smoothed loss was first as low; None: it never was."""
        there = np.flatnonzero(self.smoothed <= loss)
        return Needed(float(self.seconds[there[0]]), float(self.operations[there[0]])) if len(there) else None

    def at(self, part: float) -> Needed:
        """What a part of the steps needed, as snapshots count them, between points in proportion."""
        step = max(1, round(part * int(self.steps[-1])))
        steps = np.concatenate([[0], self.steps])
        values = (np.interp(step, steps, np.concatenate([[0.0], one])) for one in (self.seconds, self.operations))
        return Needed(*(float(value) for value in values))

    def lines(self) -> list[list[Any]]:
        """Its points as lines under HEAD; an empty field where there is no number."""
        columns = (self.seconds, self.operations, self.tokens, self.loss, self.words, self.smoothed, self.knowledge)
        return [
            [step, *(value if np.isfinite(value) else "" for value in values)]
            for step, *values in zip(self.steps.tolist(), *(column.tolist() for column in columns), strict=True)
        ]


def curves(grid: Grid, column: str) -> tuple[dict[str, Curve], list[str]]:
    """The curve of each row's pre-training, and notes on rows that have none.

    Seeds share a pre-training: it is that of the first.

    Raises:
        UserError: the stage of a run is gone.
    """
    found, notes = {}, []
    for row, axis in grid.rows.items():
        cell = grid.cells[row, column]
        seed, result = next(iter(cell.results.items()))
        config: Any = cell.runs[seed].config
        folder = Path(config.outputs).expanduser() / STAGES / "pretrained" / result.stages["pretrained"]
        if not folder.is_dir():
            raise UserError(Problem(str(folder), "is gone", "repeat the run with force=true: it makes it again"))
        theta = getattr(config.method, "theta", 1.0)
        points = [point for point in read(folder) if "loss/words" in point and "operations" in point]
        if not points:
            notes.append(f"{axis.label}: its pre-training kept no curve")
        elif not theta:
            notes.append(f"{axis.label}: with theta = 0 nothing is learned of masked words, and no loss is logged")
        else:
            found[row] = _curve(axis.label, points, theta, _made_on(folder))
    return found, notes


def _curve(label: str, points: list[dict[str, float]], theta: float, made_on: str) -> Curve:
    def column(name: str, weight: float = 1.0) -> np.ndarray:
        return np.array([point.get(name, float("nan")) / weight for point in points])

    steps = np.array([point["step"] for point in points], dtype=np.int64)
    knowledge = column("loss/knowledge", 1 - theta) if theta < 1 else np.full(len(points), np.nan)
    return Curve(
        label=label,
        made_on=made_on,
        steps=steps,
        seconds=column("seconds"),
        operations=column("operations"),
        tokens=column("tokens"),
        loss=column("loss"),
        words=column("loss/words", theta),
        knowledge=knowledge,
    )


def _made_on(folder: Path) -> str:
    """The machine of a stage, as far as its speed depends on it."""
    made = manifest(folder).get("made_on", {})
    counts = [f"{name} {made[name]}" for name in ("processes", "threads") if made.get(name)]
    return ", ".join([str(made.get("device", "unknown")), *counts])
