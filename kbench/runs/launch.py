"""Start a run in a process of its own and wait for it: one path for one CPU and for eight GPUs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from filelock import Timeout

from kbench.errors import EXIT_FAILED, EXIT_INTERRUPTED
from kbench.runs.prepare import CHECKPOINTS, Run, freeze
from kbench.runs.result import RESULT, Result, State, read_status, write_status


@dataclass(frozen=True)
class Ended:
    """How a run ended: exit code, and its result where there is one."""

    code: int
    result: Result | None
    fresh: bool


def launch(run: Run, overrides: list[str], note: Callable[[str], None]) -> Ended:
    """Give a run's result: from its folder where it is done, else from a worker process.

    Args:
        run: the prepared run.
        overrides: words of the command, for the record.
        note: told when another process is already making this run.
    """
    force = run.config.force
    if run.done and not force:
        return Ended(0, Result.load(run.folder), fresh=False)
    run.folder.mkdir(parents=True, exist_ok=True)
    lock = run.lock
    try:
        lock.acquire(timeout=0.2)
    except Timeout:
        note(f"another process is making this run; waiting for {run.folder}")
        lock.acquire()
        force = False
    try:
        if run.done and not force:
            return Ended(0, Result.load(run.folder), fresh=False)
        freeze(run, overrides)
        if (run.folder / RESULT).is_file():
            # made again from the start; a forced run that was stopped has no result and continues
            shutil.rmtree(run.folder / CHECKPOINTS, ignore_errors=True)
            (run.folder / RESULT).unlink()
        code = _work(run)
    finally:
        lock.release()
    return Ended(code, Result.load(run.folder) if code == 0 and run.done else None, fresh=True)


def _work(run: Run) -> int:
    environment = {
        # offline unless the user says otherwise: a hub call without network hangs for half a minute
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "false",
        # threads that wait actively make a shared machine ten times slower
        "OMP_WAIT_POLICY": "PASSIVE",
        **os.environ,
    }
    command = [sys.executable, "-m", "kbench.runs.worker", str(run.folder)]
    # the pipe is the worker's sign that we live
    process = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment)
    with _passing_on(signal.SIGTERM, process):
        while True:
            try:
                code = process.wait()
                break
            except KeyboardInterrupt:
                continue  # the terminal sent it to the worker too, which saves and stops
    if code < 0:
        _killed(run, -code)
        return EXIT_INTERRUPTED if -code in (signal.SIGINT, signal.SIGTERM) else EXIT_FAILED
    return code


@contextmanager
def _passing_on(number: signal.Signals, process: subprocess.Popen[bytes]) -> Iterator[None]:
    """A signal to this process goes to the worker, which saves and stops; then we end with it."""
    if threading.current_thread() is not threading.main_thread():
        yield  # handlers belong to the main thread; a launcher's thread leaves them alone
        return
    before = signal.signal(number, lambda *_: process.send_signal(number))
    try:
        yield
    finally:
        signal.signal(number, before)


def _killed(run: Run, number: int) -> None:
    """A worker that a signal ended could not say so itself."""
    why = "; the machine may be out of memory" if number == 9 else ""
    text = f"the worker was ended by signal {number}{why}; the same command continues"
    status = read_status(run.folder)
    if status["state"] == State.running.value:
        write_status(run.folder, State.failed, error=text)
    print(f"error: {text}", file=sys.stderr)
