"""The process that computes a run: `python -m kbench.runs.worker RUN_FOLDER`. Reads the frozen folder, never Hydra's.

It ends when its parent does.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from kbench.errors import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_MISTAKE,
    DivergedError,
    InterruptedRunError,
    Problem,
    StageError,
    UserError,
    is_disk_full,
)
from kbench.runs.prepare import Run, thaw
from kbench.runs.result import Result, State, write_status

ERROR = "error.txt"


def main(folder: Path) -> int:
    """Compute the run of a folder; gives the exit code."""
    run = thaw(folder)
    hardware = run.config.hardware
    if hardware.processes == 1:
        return process(folder)
    from kbench.runs.processes import several

    return several(run, threads(run))


def process(folder: Path) -> int:
    """One process of a run, from start to result; says how it ended and gives its exit code."""
    from kbench.engine.runtime import Runtime
    from kbench.runs.execute import execute
    from kbench.runs.reporter import Reporter

    run = thaw(folder)
    hardware = run.config.hardware
    reporter: Reporter | None = None
    runtime: Runtime | None = None
    main_process = int(os.environ.get("RANK", "0")) == 0
    try:
        runtime = Runtime(
            device=hardware.device,
            micro_batch_size=hardware.micro_batch_size,
            eval_batch_size=hardware.eval_batch_size,
            threads=threads(run),
            checkpoint_seconds=hardware.checkpoint_minutes * 60,
        )
        _stop_on_signals(runtime)
        if runtime.is_main:
            (folder / ERROR).unlink(missing_ok=True)
            write_status(folder, State.running)
        reporter = Reporter(folder, _trackers(run) if runtime.is_main else [], runtime.is_main)
        result = execute(run, runtime, reporter)
        _done(folder, result, reporter, runtime.is_main)
        return 0
    except InterruptedRunError as error:
        return _end(folder, reporter, State.interrupted, str(error), EXIT_INTERRUPTED, main_process)
    except KeyboardInterrupt:
        return _end(folder, reporter, State.interrupted, "interrupted", EXIT_INTERRUPTED, main_process)
    except DivergedError as error:
        return _end(folder, reporter, State.diverged, error.render(), EXIT_FAILED, main_process)
    except UserError as error:
        code = EXIT_FAILED if isinstance(error, StageError) else EXIT_MISTAKE
        return _end(folder, reporter, State.failed, error.render(), code, main_process)
    except Exception as error:
        if is_disk_full(error):
            hint = "free some space and repeat the command: it continues"
            text = UserError(Problem(str(folder), "the disk is full", hint)).render()
        else:
            _save_traceback(folder)
            text = f"{type(error).__name__}: {error}\n  traceback: {folder / ERROR}"
        return _end(folder, reporter, State.failed, text, EXIT_FAILED, main_process)
    finally:
        if runtime is not None:
            runtime.close()


def threads(run: Run) -> int:
    """CPU threads of one process."""
    hardware = run.config.hardware
    return hardware.threads or max(1, (os.cpu_count() or 1) // hardware.processes)


def _done(folder: Path, result: Result, reporter: Any, main_process: bool) -> None:
    flat = {f"{split}/{name}": v for split, values in result.metrics.items() for name, v in values.items()}
    reporter.finish(flat | result.diagnostics, State.done)
    if main_process:
        write_status(folder, State.done)


def _end(folder: Path, reporter: Any, state: State, text: str, code: int, main_process: bool) -> int:
    if reporter is not None:
        reporter.finish({}, state)
    if main_process:
        fail(folder, state, text)
    return code


def fail(folder: Path, state: State, text: str) -> None:
    """Say why a run ended without a result, in its status and on the console."""
    with suppress(OSError):  # a full disk: the words below are all that is left
        write_status(folder, state, error=text)
    print(("stopped: " if state is State.interrupted else "error: ") + text, file=sys.stderr, flush=True)


def _save_traceback(folder: Path) -> None:
    try:
        (folder / ERROR).write_text(traceback.format_exc(), encoding="utf-8")
    except OSError:
        traceback.print_exc()


def _trackers(run: Run) -> list[Any]:
    from omegaconf import OmegaConf

    from kbench.trackers.base import make

    chosen = run.config.tracker
    plain: Any = OmegaConf.to_container(OmegaConf.structured(run.config), enum_to_str=True)
    found = []
    for name in chosen.names:
        try:
            found.append(
                make(
                    name,
                    run.folder.resolve(),
                    plain,
                    project=chosen.project,
                    entity=chosen.entity,
                    mode=chosen.mode,
                    tags=list(chosen.tags),
                )
            )
        except Exception as error:
            print(f"note     tracker {name} cannot start and is off: {error}", flush=True)
    return found


def _stop_on_signals(runtime: Any) -> None:
    """SIGTERM and the first Ctrl-C ask to save and stop; a second Ctrl-C ends at once.

    A second SIGTERM says nothing new: a scheduler sends it to the command, which passes it on, and to us.
    """
    if runtime.processes > 1:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # no state can be saved by one of several: end at once
        return

    def ask(number: int, frame: Any) -> None:
        if runtime.stop.is_set():
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        runtime.stop.set()
        print("stopping; a training saves its state first (Ctrl-C again: at once)", file=sys.stderr, flush=True)

    signal.signal(signal.SIGINT, ask)
    signal.signal(signal.SIGTERM, ask)


def _end_with_parent() -> None:
    """The parent holds the other end of our standard input: when it is gone, so are we."""

    def watch() -> None:
        os.read(0, 1)  # nothing is ever written: this returns when the other end closes
        os._exit(EXIT_INTERRUPTED)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    for early in (signal.SIGINT, signal.SIGTERM):  # until there is something to save
        signal.signal(early, lambda number, frame: os._exit(EXIT_INTERRUPTED))
    _end_with_parent()
    sys.exit(main(Path(sys.argv[1])))
