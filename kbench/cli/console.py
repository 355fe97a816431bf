"""What every verb prints, in one hand: plain text, aligned, at most one screen wide."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Sequence
from typing import Any

from kbench.runs.launch import Ended
from kbench.runs.prepare import Run
from kbench.runs.result import Result
from kbench.stages.stage import Stage

_FIGURES = 40  # figures that are printed one by one


def width(text: str) -> int:
    """Columns a text takes on a terminal; Chinese characters take two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def pad(text: str, to: int) -> str:
    """A text filled up with spaces."""
    return text + " " * max(0, to - width(text))


def table(head: Sequence[str], rows: Sequence[Sequence[str]], indent: str = "") -> None:
    """Print rows under a head, columns aligned."""
    columns = list(zip(head, *rows, strict=True))
    widths = [max(map(width, column)) for column in columns]
    for row in [head, *rows]:
        print((indent + "  ".join(pad(cell, w) for cell, w in zip(row, widths, strict=True))).rstrip())


def as_json(value: Any) -> None:
    """Print a value for a program."""
    print(json.dumps(value, indent=1, ensure_ascii=False))


def line(kind: str, text: str) -> None:
    """One line of a run's account."""
    print(f"{kind:<8} {text}".rstrip(), flush=True)


def note(text: str) -> None:
    """A line for the user."""
    line("note", text)


def stage(which: Stage, event: str, seconds: float) -> None:
    """What happened to a stage that this process builds itself."""
    if event == "built":
        line("stage", f"{which.name:<16} built      {which.key}   {seconds:.1f} s")
    elif event == "waiting":
        line("stage", f"{which.name:<16} waiting    {which.key}   another run builds it")
    elif event.startswith("damaged"):
        line("stage", f"{which.name:<16} rebuilding {which.key}   {event}")


def percent(value: float) -> str:
    """A share as the papers print it."""
    return f"{100 * value:.2f}"


def result_cells(run: Run) -> list[str]:
    """Main metric and diagnostics of a finished run."""
    result = Result.load(run.folder)
    test = result.metrics["test"]
    main = run.config.data.metrics[0]
    share = result.diagnostics.get("right_teacher_share")
    return [f"{main} {percent(test[main])}", "" if share is None else f"right teacher {percent(share)} %"]


def ended(run: Run, end: Ended, overrides: Sequence[str]) -> int:
    """Say how a run ended; gives the exit code."""
    if end.result is None:
        return end.code
    result = end.result
    print()
    if end.fresh:
        line("done", f"{result.seconds['total']:.1f} s")
    else:
        line("done", "already; force=true makes it again")
    rows = [[split, name, percent(value)] for split, values in result.metrics.items() for name, value in values.items()]
    for split, name, value in rows:
        line(split, f"{name:<42} {value:>8} %")
    figures = result.diagnostics
    if len(figures) > _FIGURES:  # those of all languages or relations would hide the rest
        figures = {name: value for name, value in figures.items() if "/" not in name}
    for name, figure in figures.items():
        told = f"{figure:>8,}" if isinstance(figure, int) else f"{percent(figure):>8} %"
        line("", f"{name.replace('_', ' '):<42} {told}")
    if len(figures) < len(result.diagnostics):
        line("", f"and {len(result.diagnostics) - len(figures)} figures more in result.json")
    setting = result.setting
    parts = setting.parts()
    line("setting", f"{setting.method}, {setting.data}, {setting.backbone}, seed {setting.seed}")
    if parts:
        line("", f"a part of the data: {'; '.join(parts)}")
    line("files", str(run.folder))
    sys.stdout.flush()
    return 0
