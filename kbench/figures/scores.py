"""Scores of a figure's rows over seeds, and what they say of a claim."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kbench.tables.collect import Grid
from kbench.tables.statistics import Estimate, Holds, claim

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SPREAD = "mean ± standard deviation over seeds; all seeds fine-tune one pre-training, so its own spread is not in it"
INTERVAL = "[a, b]: 95 % interval of the difference, paired by seed"
VERDICTS = (
    f"{INTERVAL}; a claim holds where it lies above 0, does not hold where it lies below, and is open where it holds 0 "
    "or there is one seed; of several differences the smallest is shown"
)
_WORDS = {Holds.holds: "holds", Holds.fails: "does not hold", Holds.open: "open"}
_NAMES = {"f1": "F1"}


@dataclass(frozen=True)
class Scores:
    """The metric of a column's rows.

    Attributes:
        metric: its name.
        values: row -> seed -> value in percent; of the rows that have any.
        labels: of these rows.
    """

    metric: str
    values: dict[str, dict[int, float]]
    labels: dict[str, str]

    @classmethod
    def of(cls, grid: Grid, column: str) -> Scores:
        """Those of a column."""
        metric = next(cell.metric for (_, name), cell in grid.cells.items() if name == column)
        found = {row: values for row in grid.rows if (values := grid.values(row, column))}
        return cls(metric, found, {row: grid.rows[row].label for row in found})

    @property
    def name(self) -> str:
        """The metric as it is written."""
        return _NAMES.get(self.metric, self.metric)

    def mean(self, row: str) -> float:
        """The mean over seeds."""
        return math.fsum(self.values[row].values()) / len(self.values[row])

    def deviation(self, row: str) -> float:
        """The standard deviation over seeds; 0 with one."""
        values = list(self.values[row].values())
        return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0

    def facts(self, option: str = "") -> list[tuple[str, str, str]]:
        """A fact of each row; `option` stands before its label, as `theta = `."""
        found = []
        for row, values in self.values.items():
            more = f" ± {self.deviation(row):.2f}, {len(values)} seeds" if len(values) > 1 else ", 1 seed"
            found.append((f"{self.name}, {option}{self.labels[row]}", f"{self.mean(row):.2f}{more}", ""))
        return found

    def lines(self) -> list[list[Any]]:
        """Row, seed and value."""
        return [[row, seed, value] for row, values in self.values.items() for seed, value in values.items()]

    def verdict(self, pairs: Iterable[tuple[str, str]]) -> str | None:
        """What the runs say of a claim that the first row of every pair lies above the second; None: none has runs.

        It holds where it does of all pairs, and does not where it does not of one.
        """
        known = [(better, than) for better, than in pairs if better in self.values and than in self.values]
        found = [one for better, than in known if (one := claim(self.values[better], self.values[than]))]
        if not found:
            return None
        words = {word for _, word in found}
        word = next(word for word in (Holds.fails, Holds.open, Holds.holds) if word in words)
        return f"{_WORDS[word]}: {_signed(min((delta for delta, _ in found), key=lambda one: one.mean))}"

    def draw(self, axes: Axes, at: Mapping[str, float], colour: str, label: str = "", line: bool = True) -> None:
        """Put rows where `at` says: each seed a small point, mean and standard deviation over them."""
        rows = sorted(at, key=at.__getitem__)
        for row in rows:
            own = list(self.values[row].values())
            if len(own) > 1:
                axes.plot([at[row]] * len(own), own, ".", color=colour, alpha=0.35, markersize=5, zorder=1)
        axes.errorbar(
            [at[row] for row in rows],
            [self.mean(row) for row in rows],
            yerr=[self.deviation(row) for row in rows] if any(len(self.values[row]) > 1 for row in rows) else None,
            fmt="o-" if line else "o",
            color=colour,
            capsize=3,
            markersize=4.5,
            linewidth=1.4,
            elinewidth=1,
            label=label or None,
        )


def _signed(value: Estimate) -> str:
    interval = "" if value.half is None else f" [{value.low:+.2f}, {value.high:+.2f}]"
    return f"{value.mean:+.2f}{interval}"
