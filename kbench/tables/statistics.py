"""Means, intervals and verdicts. Every word of a verdict has one definition, here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from scipy.stats import t as student_t

from kbench.tables.spec import Published

CONFIDENCE = 0.95


class Verdict(Enum):
    """What a cell says of the published value; the interval is that of ours minus the paper's."""

    reproduced = "reproduced"  # the whole interval lies within the tolerance
    above = "above"  # the whole interval lies above 0, and not within the tolerance
    below = "below"  # the whole interval lies below 0, and not within the tolerance
    within_noise = "within noise"  # the interval holds 0 but is wider than the tolerance: more seeds needed
    needs_seeds = "needs 2 seeds"  # one run has no interval
    other_setting = "other setting"  # not the paper's data, backbone or recipe: the numbers do not compare
    not_run = "not run"
    no_value = "paper value absent"


class Holds(Enum):
    """What our runs say of a claim `A above B`; the interval is that of A minus B, paired by seed."""

    holds = "holds"  # the interval lies above 0
    fails = "fails"  # the interval lies below 0
    open = "open"  # the interval holds 0, or there is one seed only


@dataclass(frozen=True)
class Estimate:
    """A mean and half the width of its 95 % interval; None with one value."""

    mean: float
    half: float | None
    n: int

    @property
    def low(self) -> float:
        """Lower end; minus infinity without an interval."""
        return -math.inf if self.half is None else self.mean - self.half

    @property
    def high(self) -> float:
        """Upper end; infinity without an interval."""
        return math.inf if self.half is None else self.mean + self.half


def estimate(values: Sequence[float]) -> Estimate:
    """Mean with Student's t interval over seeds."""
    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return Estimate(mean, None, n)
    error = _std(values, mean) / math.sqrt(n)
    return Estimate(mean, error * float(student_t.ppf((1 + CONFIDENCE) / 2, n - 1)), n)


def difference(values: Sequence[float], paper: Published, paper_n: int) -> Estimate:
    """Ours minus the paper's mean, with Welch's interval.

    A published std of 0 or none is a single fixed run: its error is unknown and taken as 0, so the interval is ours.
    """
    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return Estimate(mean - paper.mean, None, n)
    ours = _std(values, mean) ** 2 / n
    theirs = (paper.std or 0.0) ** 2 / paper_n
    total = ours + theirs
    if total == 0:
        return Estimate(mean - paper.mean, 0.0, n)
    freedom = total**2 / (ours**2 / (n - 1) + theirs**2 / max(1, paper_n - 1))
    half = math.sqrt(total) * float(student_t.ppf((1 + CONFIDENCE) / 2, freedom))
    return Estimate(mean - paper.mean, half, n)


def verdict(delta: Estimate, tolerance: float) -> Verdict:
    """The word for a difference, in a run of the paper's setting."""
    if delta.half is None:
        return Verdict.needs_seeds
    if -tolerance <= delta.low and delta.high <= tolerance:
        return Verdict.reproduced
    if delta.low > 0:
        return Verdict.above
    if delta.high < 0:
        return Verdict.below
    return Verdict.within_noise


def claim(
    better: dict[int, float], than: dict[int, float], *, than_is_fixed: bool = False
) -> tuple[Estimate, Holds] | None:
    """A claim that one row lies above another, from values by seed; None where a row has none.

    Rows are paired by seed; a row that is a single fixed run is compared with every seed of the other.
    """
    if not better or not than:
        return None
    if than_is_fixed:
        pairs = [value - next(iter(than.values())) for value in better.values()]
    else:
        pairs = [better[seed] - than[seed] for seed in sorted(better.keys() & than.keys())]
    if not pairs:
        return None
    found = estimate(pairs)
    if found.half is None or found.low <= 0 <= found.high:
        return found, Holds.open
    return found, Holds.holds if found.low > 0 else Holds.fails


def _std(values: Sequence[float], mean: float) -> float:
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
