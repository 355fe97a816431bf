"""The curve of a training, kept beside what it made: a stage's loss can be drawn by every run that shares it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from kbench.files import write_atomically

if TYPE_CHECKING:
    from kbench.engine.loop import Report

CURVE = "curve.jsonl"


class Recorded:
    """A report that also writes its points into a file.

    Args:
        report: that it passes everything on to.
        folder: of the stage; points that it holds already are those of an earlier part of the training.
        writes: whether this process does; one of several.
    """

    def __init__(self, report: Report, folder: Path, writes: bool):
        self._report, self._path, self._writes = report, folder / CURVE, writes
        self._seconds, self._last_step = 0.0, 0

    def log(self, scope: str, step: int, values: Mapping[str, float]) -> None:
        """A point of the curve; `seconds` counts the time of all steps so far."""
        self._seconds += values.get("seconds_per_step", 0.0) * (step - self._last_step)
        self._last_step = step
        if self._writes:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, "seconds": round(self._seconds, 3), **values}) + "\n")
        self._report.log(scope, step, values)

    def rewind(self, scope: str, step: int) -> None:
        """Forget the points after `step`."""
        kept = [point for point in read(self._path.parent) if point["step"] <= step]
        self._seconds = kept[-1]["seconds"] if kept else 0.0
        self._last_step = step
        if self._writes and self._path.exists():
            write_atomically(self._path, "".join(json.dumps(point) + "\n" for point in kept))
        self._report.rewind(scope, step)

    def progress(self, scope: str, step: int, total: int, values: Mapping[str, float]) -> None:
        """How far it is."""
        self._report.progress(scope, step, total, values)

    def note(self, text: str) -> None:
        """A line for the user."""
        self._report.note(text)


def read(folder: Path) -> list[dict[str, float]]:
    """The points of a training that wrote its curve into a folder; none where there is no such file."""
    path = folder / CURVE
    if not path.exists():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue  # the half line of a killed process
    return found
