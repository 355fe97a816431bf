"""The typed record of a finished run, and its state while it is not finished."""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from kbench.errors import Problem, UserError
from kbench.files import write_atomically

SCHEMA = 1
RESULT = "result.json"
STATUS = "status.json"


class State(Enum):
    """What a run is doing, or how it ended."""

    planned = "planned"
    running = "running"
    done = "done"
    failed = "failed"
    diverged = "diverged"
    interrupted = "interrupted"


@dataclass
class Setting:
    """What made the numbers, for the head of a table: nothing here may be left unsaid.

    Attributes:
        method, data, backbone: names.
        seed: of the run.
        source: where the rows came from: files, hub or generated.
        rows: rows of each split that were used.
        complete: rows the complete data set has, train and test.
        backbone_source: address of the backbone.
    """

    method: str
    data: str
    backbone: str
    seed: int
    source: str
    rows: dict[str, int]
    complete: dict[str, int]
    backbone_source: str

    def parts(self) -> list[str]:
        """The splits of which only a part was used, as `train 1,000 of 120,000`."""
        return [
            f"{split} {self.rows[split]:,} of {self.complete[split]:,}"
            for split in ("train", "test")
            if split in self.rows and self.rows[split] != self.complete[split]
        ]


@dataclass
class Result:
    """A finished run.

    Attributes:
        schema: version of this record.
        key: the run's key, a hash of its science, data and backbone.
        setting: what made the numbers.
        metrics: split -> metric -> value; shares from 0 to 1.
        diagnostics: figures that explain the metrics: shares from 0 to 1, and whole numbers, which count something.
        training: steps, step of the selected weights, their validation score; empty where nothing was trained.
        seconds: by phase, of the process that finished the run.
        throughput: tokens and rows a second in training.
        memory: largest resident and device memory, MiB.
        hashes: of configuration (without seed), data and predictions.
        stages: name -> key of the stages it was made from.
        environment: versions, device, processes, threads.
        finished: time of the end, UTC.
    """

    key: str
    setting: Setting
    metrics: dict[str, dict[str, float]]
    diagnostics: dict[str, float]
    training: dict[str, float | int | None]
    seconds: dict[str, float]
    throughput: dict[str, float]
    memory: dict[str, int]
    hashes: dict[str, str]
    stages: dict[str, str]
    environment: dict[str, Any]
    finished: str = field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    schema: int = SCHEMA

    def save(self, folder: Path) -> None:
        """Write `result.json` in one step."""
        text = json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False, sort_keys=True)
        write_atomically(folder / RESULT, text + "\n")

    @classmethod
    def load(cls, folder: Path) -> Result:
        """Read `result.json`.

        Raises:
            UserError: it is damaged, or of a version this kbench does not know.
        """
        path = folder / RESULT
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            version = raw["schema"]
            if version != SCHEMA:
                raise UserError(Problem(str(path), f"has schema {version}; this kbench reads {SCHEMA}"))
            return cls(**{**raw, "setting": Setting(**raw["setting"])})
        except (ValueError, KeyError, TypeError) as error:
            hint = "remove the folder, or repeat the run with force=true"
            raise UserError(Problem(str(path), f"is damaged: {error}", hint)) from error


def write_status(folder: Path, state: State, **more: Any) -> None:
    """Say what a run is doing: `status.json`, with a heartbeat."""
    record = {"state": state.value, "updated": round(time.time(), 1), **more}
    write_atomically(folder / STATUS, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def read_status(folder: Path) -> dict[str, Any]:
    """The last status written; planned where there is none or it is damaged."""
    try:
        found: dict[str, Any] = json.loads((folder / STATUS).read_text(encoding="utf-8"))
        State(found["state"])
        return found
    except (OSError, ValueError, KeyError, TypeError):
        return {"state": State.planned.value}
