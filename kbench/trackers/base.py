"""A tracker mirrors a run's log somewhere. metrics.jsonl is the truth; a tracker that fails never stops a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol


class Tracker(Protocol):
    """Four calls; the vendor's library is imported when the tracker is made, never before."""

    def metrics(self, scope: str, step: int, values: dict[str, float]) -> None:
        """A point of the curve of one training within the run."""

    def finish(self, summary: dict[str, Any], state: str) -> None:
        """The end: final metrics, and how the run ended."""


def make(
    name: str, folder: Path, config: dict[str, Any], *, project: str, entity: str | None, mode: str, tags: list[str]
) -> Tracker:
    """Start a tracker.

    Args:
        name: wandb or tensorboard.
        folder: the run's folder, for the tracker's files.
        config: the run's whole configuration, plain values.
        project, entity, mode, tags: of wandb.

    Raises:
        Exception: whatever the library raises; the caller says so and goes on without it.
    """
    if name == "wandb":
        from kbench.trackers.wandb import Wandb

        return Wandb(folder, config, project=project, entity=entity, mode=mode, tags=tags)
    from kbench.trackers.tensorboard import Tensorboard

    return Tensorboard(folder)
