"""Several processes of one run on one machine: torch's elastic launcher starts them, this process watches them."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import time
from pathlib import Path

from kbench.errors import EXIT_FAILED, EXIT_INTERRUPTED
from kbench.runs.prepare import Run
from kbench.runs.result import State, read_status
from kbench.runs.worker import fail, process


def several(run: Run, threads: int) -> int:
    """Compute a run with `hardware.processes` processes of so many threads; gives the exit code."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.disable()  # this process only watches the others; what they do is said in our own words
    hardware = run.config.hardware
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    os.environ["ACCELERATE_USE_CPU"] = "true" if hardware.device == "cpu" else "false"
    logs = run.folder / ".elastic"
    logs.mkdir(exist_ok=True)
    launch = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=hardware.processes,
        run_id=run.key[:8],
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        start_method="spawn",
        monitor_interval=0.1,
        logs_specs=DefaultLogsSpecs(log_dir=str(logs)),
    )
    try:
        return max(elastic_launch(launch, _rank)(run.folder).values())
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if -failure.exitcode in (signal.SIGINT, signal.SIGTERM):
            return _interrupted(run.folder)
        if read_status(run.folder)["state"] == State.running.value:  # it could not say so itself
            fail(run.folder, State.failed, f"process {rank} ended with exit code {failure.exitcode}")
        return failure.exitcode if failure.exitcode > 0 else EXIT_FAILED
    except (KeyboardInterrupt, SignalException):
        return _interrupted(run.folder)
    finally:
        shutil.rmtree(logs, ignore_errors=True)


def _interrupted(folder: Path) -> int:
    fail(folder, State.interrupted, "the same command continues from the last checkpoint")
    return EXIT_INTERRUPTED


def _rank(folder: Path) -> int:
    """One of several processes. A failing one ends at once, so that the launcher ends those that wait for it."""
    code = process(folder)
    if code:
        sys.stdout.flush()
        sys.stderr.flush()
        if os.environ["RANK"] != "0":
            time.sleep(5)  # the main process has failed too, most likely, and is the one that says why
        os._exit(code)
    return code
