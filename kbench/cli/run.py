"""The bare form, `kbench method=... data=...`: check everything, then run it, or hand a sweep to Hydra."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

from filelock import Timeout
from omegaconf import DictConfig

from kbench.cli import console
from kbench.config import compose, strict
from kbench.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_MISTAKE, ConfigError, Problem, UserError
from kbench.runs.launch import launch
from kbench.runs.prepare import Run, freeze, prepare
from kbench.runs.result import read_status

# flags with which Hydra prints something and runs nothing
_SHOWS = ("cfg", "info")


def run(argv: list[str]) -> int:
    """Run a Hydra command line; gives the exit code."""
    flags = compose.flags(argv)
    if flags.help or flags.hydra_help or flags.shell_completion:
        return _hydra(argv)
    if flags.config_name or flags.config_path:
        raise ConfigError(Problem("--config-name", "kbench has one root configuration", "add groups with --config-dir"))
    points = compose.check(flags.overrides, sweep=bool(flags.multirun), config_dir=flags.config_dir)
    if any(getattr(flags, name) for name in _SHOWS):
        return _hydra(argv)
    overrides = list(flags.overrides)
    if not flags.multirun:
        config = points[0][1]
        for doubt in strict.doubts(config):
            console.note(doubt)
        one = prepare(config, console.stage)
        return console.ended(one, launch(one, overrides, console.note), overrides)
    # every point is found, checked and written before the first one starts
    runs = {}
    for texts, config in points:
        point = prepare(config, console.stage)
        runs.setdefault(point.folder, (point, texts))
    for point, texts in runs.values():
        if not point.done:
            point.folder.mkdir(parents=True, exist_ok=True)
            with suppress(Timeout), point.lock.acquire(timeout=0):  # another process may be making it
                freeze(point, texts)
    done = sum(point.done for point, _ in runs.values())
    print(f"sweep    {len(runs)} runs: {done} done, {len(runs) - done} to make", flush=True)
    code = _hydra(argv)
    return _summary([point for point, _ in runs.values()]) or code


def _hydra(argv: list[str]) -> int:
    try:
        compose.hydra_main(job, argv)
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else EXIT_FAILED
    return 0


def job(config: DictConfig) -> int:
    """One run of a sweep, called by Hydra here or in a launcher's process; gives the exit code."""
    try:
        compose.register()
        point: Run = prepare(compose.typed(config), console.stage)
        overrides = compose.job_overrides()
        code = console.ended(point, launch(point, overrides, console.note), overrides)
    except UserError as error:
        print(f"error: {error.render()}", file=sys.stderr)
        return EXIT_MISTAKE
    if code == EXIT_INTERRUPTED:
        raise KeyboardInterrupt  # who stops a run of a sweep means the sweep
    return code


def _summary(runs: list[Run]) -> int:
    """The table under a sweep; exit code 1 where a run has no result."""
    rows: list[list[str]] = []
    failed = 0
    for point in runs:
        cells: Any = console.result_cells(point) if point.done else None
        if cells is None:
            failed += 1
            status = read_status(point.folder)
            cells = [status["state"], str(status.get("error", "")).splitlines()[0] if status.get("error") else ""]
        rows.append([point.config.method.name, point.config.data.name, f"s{point.config.seed}", *cells, point.key[:8]])
    print()
    console.table(["method", "data", "seed", "test", "", "run"], rows)
    if failed:
        print(f"\n{failed} of {len(runs)} runs have no result; the same command makes only those", file=sys.stderr)
    return EXIT_FAILED if failed else 0
