"""Seconds and counted operations as axes and sentences have them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Unit:
    """A unit of an axis: how much of the plain unit it is, and its label."""

    size: float
    label: str


_TIMES = (Unit(1, "s"), Unit(60, "min"), Unit(3600, "h"), Unit(86400, "days"))
_FEW = 2  # of the next unit, before it is used


def time_unit(seconds: Iterable[float]) -> Unit:
    """The unit of an axis up to the largest of some times."""
    largest = max(seconds, default=0.0)
    return next((unit for unit in reversed(_TIMES) if largest >= _FEW * unit.size), _TIMES[0])


def operations_unit(operations: Iterable[float]) -> Unit:
    """The power of a thousand of an axis up to the largest of some counts."""
    largest = max(operations, default=0.0)
    power = 3 * int(math.log10(largest) // 3) if largest >= 1 else 0
    return Unit(10.0**power, f"$10^{{{power}}}$" if power else "1")


def time(seconds: float) -> str:
    """As `4.1 min`."""
    unit = time_unit([seconds])
    return f"{seconds / unit.size:.1f} {unit.label}"


def part_of(seconds: float, whole: float) -> str:
    """As `2.0 of 4.1 min`."""
    unit = time_unit([seconds, whole])
    return f"{seconds / unit.size:.1f} of {whole / unit.size:.1f} {unit.label}"


def percent(share: float) -> str:
    """As `41.2 %`."""
    return f"{100 * share:.1f} %"
