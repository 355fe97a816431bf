"""kill -9 in every stage, Ctrl-C, a parent that dies: the same command continues and ends in the same bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ..conftest import QUICK, command

# more steps and a checkpoint after each, so that there is something to be killed in
WORDS = ["method=muki", *QUICK, "train.epochs=30", "teacher.epochs=20", "hardware.checkpoint_minutes=0"]


def start(cwd: Path, words=WORDS) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "kbench", *words],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(cwd: Path, pattern: str, process: subprocess.Popen[str], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not list(cwd.glob(pattern)):
        assert process.poll() is None, f"ended before {pattern}: {process.communicate()}"
        assert time.monotonic() < until, f"never saw {pattern}"
        time.sleep(0.01)


def result(cwd: Path) -> tuple[dict, bytes]:
    (path,) = cwd.glob("outputs/muki/toy/tiny/*/s1/result.json")
    found = json.loads(path.read_text())
    kept = {name: found[name] for name in ("metrics", "diagnostics", "training", "hashes", "stages", "key")}
    return kept, (path.parent / "predictions.jsonl").read_bytes()


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    done = command(WORDS, folder)
    assert done.returncode == 0, done.stderr
    return result(folder)


def test_kill_9_in_each_stage_changes_no_byte(tmp_path, expected):
    moments = [
        "outputs/stages/encoded/*.work",
        "outputs/stages/teacher/*.work/checkpoints/step-*",
        "outputs/stages/teacher/*.work/checkpoints/step-0000002*",
        "outputs/stages/teacher_samples/*.work/*",
        "outputs/muki/toy/tiny/*/s1/checkpoints/step-*",
        "outputs/muki/toy/tiny/*/s1/checkpoints/step-0000004*",
    ]
    for moment in moments:
        process = start(tmp_path)
        wait_for(tmp_path, moment, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert not list(tmp_path.glob("outputs/muki/toy/tiny/*/s1/result.json"))
    done = command(WORDS, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "student continues after step" in done.stdout
    assert result(tmp_path) == expected
    (folder,) = tmp_path.glob("outputs/muki/toy/tiny/*/s1")
    curve = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [point["step"] for point in curve if point["scope"] == "student" and "loss" in point]
    assert steps == list(range(1, 91)), "each point of the curve stands once"


def test_ctrl_c_saves_and_the_same_command_continues(tmp_path, expected):
    process = start(tmp_path)
    wait_for(tmp_path, "outputs/muki/toy/tiny/*/s1/checkpoints/step-*", process)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert "the same command continues" in err and "Traceback" not in err
    (status,) = tmp_path.glob("outputs/muki/toy/tiny/*/s1/status.json")
    assert json.loads(status.read_text())["state"] == "interrupted"
    done = command(WORDS, tmp_path)
    assert "continues after step" in done.stdout
    assert result(tmp_path) == expected


def test_a_worker_does_not_outlive_its_command(tmp_path):
    process = start(tmp_path)
    wait_for(tmp_path, "outputs/stages/teacher/*.work/checkpoints/step-*", process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert children
    process.kill()
    process.wait()
    until = time.monotonic() + 10
    while any(_alive(int(child)) for child in children):
        assert time.monotonic() < until, "the worker goes on without its command"
        time.sleep(0.05)


def test_two_commands_at_once_share_the_teachers_and_agree(tmp_path, expected):
    first, second = start(tmp_path), start(tmp_path)
    outs = [process.communicate(timeout=200) for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], outs
    assert result(tmp_path) == expected
    assert "another process is making this run" in outs[0][0] + outs[1][0]


def test_two_methods_at_once_train_each_teacher_once(tmp_path):
    """Both need the same teachers; one builds, the other waits."""
    words = [*QUICK, "teacher.epochs=20"]
    both = [start(tmp_path, [f"method={name}", *words]) for name in ("vanilla_kd", "uhc")]
    outs = [process.communicate(timeout=200)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outs
    assert sum(out.count("teacher          built") for out in outs) == 2
    assert len(list(tmp_path.glob("outputs/stages/teacher/*/model.safetensors"))) == 2


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
