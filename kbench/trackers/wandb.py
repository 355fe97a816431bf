"""Weights & Biases. Offline by default: no account, no network; `wandb sync` sends the folder later."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


class Wandb:
    """One wandb run for one kbench run; group is the run without its seed, job type the method."""

    def __init__(
        self, folder: Path, config: dict[str, Any], *, project: str, entity: str | None, mode: str, tags: list[str]
    ):
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        names = folder.parts[-5:]  # method, data, backbone, key, seed
        self._run = wandb.init(
            project=project,
            entity=entity,
            mode=mode,  # type: ignore[arg-type]
            tags=tags,
            dir=str(folder),
            config=config,
            name="/".join(names),
            group="/".join(names[:-1]),
            job_type=names[0],
        )
        self._run.define_metric("step/*")

    def metrics(self, scope: str, step: int, values: dict[str, float]) -> None:
        # scopes follow one another and each counts from 0, so every scope has a step axis of its own
        self._run.log({f"{scope}/{name}": value for name, value in values.items()} | {f"step/{scope}": step})

    def finish(self, summary: dict[str, Any], state: str) -> None:
        self._run.summary.update({**summary, "state": state})
        self._run.finish(exit_code=0 if state == "done" else 1)
