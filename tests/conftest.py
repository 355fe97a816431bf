"""What every test may use: a place for outputs, runs in this process, and the real data where it is."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# one thread and no spinning: tests share small machines
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.pop("KBENCH_DATA", None)

REPOSITORY = Path(__file__).parents[1]
SHARED_DATA = REPOSITORY.parent / "shared" / "data"
SHARED_PAPERS = REPOSITORY.parent / "shared" / "papers"

# as small as a run can be: every test that is not about numbers uses it
QUICK = ["data=toy", "data.train_size=96", "data.test_size=48", "train.epochs=2", "teacher.epochs=1", "log_every=1"]


def in_process(overrides: list[str], outputs: Path, **runtime: Any) -> Any:
    """Make a run in this process; gives (run, result)."""
    from kbench.config.compose import compose
    from kbench.engine.runtime import Runtime
    from kbench.runs.execute import execute
    from kbench.runs.prepare import freeze, prepare
    from kbench.runs.reporter import Reporter

    run = prepare(compose([*overrides, f"outputs={outputs}"]))
    freeze(run, overrides)
    hardware = run.config.hardware
    made = Runtime(
        device="cpu",
        micro_batch_size=runtime.get("micro_batch_size", hardware.micro_batch_size),
        eval_batch_size=hardware.eval_batch_size,
        checkpoint_seconds=runtime.get("checkpoint_seconds", 1e9),
    )
    if "stop" in runtime:
        made.stop = runtime["stop"]
    return run, execute(run, made, Reporter(run.folder, out=io.StringIO()))


def command(words: list[str], cwd: Path, timeout: float = 300, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `kbench` as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "kbench", *words],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


@pytest.fixture(scope="session")
def shared_outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outputs that tests share, so that one trains the teachers for all."""
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="session")
def toy(shared_outputs: Path) -> Callable[..., Any]:
    """Make a quick toy run in this process: `toy("method=muki")` gives (run, result)."""
    return lambda *overrides, **more: in_process([*QUICK, *overrides], more.pop("outputs", shared_outputs), **more)


@pytest.fixture
def real_data() -> Path:
    """The folder of real data; the test is skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real data in {SHARED_DATA}")
    return SHARED_DATA
