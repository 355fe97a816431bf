"""How a run says what it does: metrics.jsonl, which is the truth; trackers that mirror it; a bar or plain lines."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from kbench.files import write_atomically
from kbench.runs.result import State, write_status
from kbench.stages.stage import Stage
from kbench.trackers.base import Tracker

METRICS = "metrics.jsonl"
_EVERY = 15.0  # seconds between plain lines
_HEARTBEAT = 5.0


class Reporter:
    """The voice of one run. Processes other than the main one are silent.

    Args:
        folder: the run's folder.
        trackers: mirrors of the log; one that fails is dropped with a note and never stops the run.
        main: whether this is the main process.
        out: where people read.
    """

    def __init__(self, folder: Path, trackers: Sequence[Tracker] = (), main: bool = True, out: TextIO | None = None):
        self.folder = folder
        self.main = main
        self._out = out or sys.stdout
        self._trackers = list(trackers)
        self.stages: dict[str, int] = {}
        self._bar: Any = None
        self._tasks: dict[str, Any] = {}
        self._starts: dict[str, tuple[float, int]] = {}
        self._spoke = self._beat = 0.0

    def log(self, scope: str, step: int, values: Mapping[str, float]) -> None:
        """A point of a curve, into metrics.jsonl and the trackers."""
        if not self.main:
            return
        record = {"scope": scope, "step": step, "time": round(time.time(), 3), **values}
        with (self.folder / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        self._each("metrics", scope, step, dict(values))

    def rewind(self, scope: str, step: int) -> None:
        """Take the points of a scope after `step` out of metrics.jsonl: they are made again."""
        path = self.folder / METRICS
        if not self.main or not path.exists():
            return
        kept = []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue  # the half line of a killed process
            if record["scope"] != scope or record["step"] <= step:
                kept.append(line + "\n")
        write_atomically(path, "".join(kept))

    def progress(self, scope: str, step: int, total: int, values: Mapping[str, float]) -> None:
        """Move the bar, or write a plain line every so often; keep the heartbeat."""
        if not self.main:
            return
        now = time.monotonic()
        began, first = self._starts.setdefault(scope, (now, step))
        if now - self._beat > _HEARTBEAT or step == total:
            self._beat = now
            left = (now - began) / (step - first) * (total - step) if step > first else None
            seconds = None if left is None else round(left, 1)
            write_status(self.folder, State.running, scope=scope, step=step, total=total, seconds_left=seconds)
        if self._out.isatty():
            self._move_bar(scope, step, total, values)
        elif now - self._spoke > _EVERY:
            self._spoke = now
            self._line("step", scope, f"{step}/{total}   {_loss(values)}")

    def stage(self, stage: Stage, event: str, seconds: float) -> None:
        """What happens to a stage."""
        if event in ("found", "built"):
            self.stages[event] = self.stages.get(event, 0) + 1
        if not self.main or event in ("building", "found"):
            return
        if event == "built":
            detail = f"built      {stage.key}   {seconds:.1f} s"
        elif event == "waiting":
            detail = f"waiting    {stage.key}   another run builds it"
        else:
            detail = f"rebuilding {stage.key}   {event}"
        self._line("stage", stage.name, detail)

    def stages_ready(self) -> None:
        """Say in one line how many stages were shared."""
        counts = " and ".join(f"{count} {event}" for event, count in sorted(self.stages.items()))
        if self.main:
            self._line("stages", counts or "none needed", "")

    def note(self, text: str) -> None:
        """A line for the user."""
        if self.main:
            self._line("note", text, "")

    def finish(self, summary: Mapping[str, Any], state: State) -> None:
        """Close the bar and the trackers."""
        self._close_bar()
        self._each("finish", dict(summary), state.value)

    def _line(self, kind: str, name: str, detail: str) -> None:
        self._close_bar()
        try:
            print(f"{kind:<8} {name:<16} {detail}".rstrip(), file=self._out, flush=True)
        except BrokenPipeError:  # who was reading has gone; the run goes on
            self._out = Path(os.devnull).open("w")  # noqa: SIM115 - open until the process ends

    def _move_bar(self, scope: str, step: int, total: int, values: Mapping[str, float]) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        if self._bar is None:
            self._bar = Progress(
                TextColumn("step     {task.description:<16}"),
                BarColumn(bar_width=28),
                MofNCompleteColumn(),
                TextColumn("{task.fields[loss]}"),
                TimeRemainingColumn(),
                console=Console(file=self._out),
                transient=True,
            )
            self._bar.start()
        if scope not in self._tasks:
            self._tasks[scope] = self._bar.add_task(scope, total=total, loss="")
        self._bar.update(self._tasks[scope], completed=step, loss=_loss(values))

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
            self._tasks.clear()

    def _each(self, call: str, *arguments: Any) -> None:
        for tracker in list(self._trackers):
            try:
                getattr(tracker, call)(*arguments)
            except Exception as error:
                self._trackers.remove(tracker)
                self.note(f"tracker {type(tracker).__name__} failed and is off: {error}")


def _loss(values: Mapping[str, float]) -> str:
    return f"loss {values['loss']:.4g}" if "loss" in values else ""
