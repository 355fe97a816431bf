"""A finished run read back: its method with its stages, for figures. Nothing is computed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from kbench import registry
from kbench.errors import Problem, UserError
from kbench.methods.base import Method
from kbench.runs.prepare import STAGES, Run
from kbench.stages.store import Store


def stored_method(run: Run, **options: Any) -> Method:
    """The method of a run, standing on the stages that the run left.

    Args:
        run: prepared or thawed.
        options: options of the method to read the stages with, where not the run's own, such as another `tau`.

    Raises:
        UserError: a stage is gone.
    """
    config = run.config
    made_with = dataclasses.replace(config.method, **options)
    store = Store(Path(config.outputs).expanduser() / STAGES)
    method: Method = registry.load("method", config.method.name)(made_with, run.bench(store=store))
    folders = {}
    for name, stage in method.stages().items():
        if not store.has(stage):
            where = str(store.folder(stage))
            raise UserError(Problem(where, "is gone or damaged", "repeat the run with force=true: it makes it again"))
        folders[name] = store.folder(stage)
    method.prepare(folders)
    return method
