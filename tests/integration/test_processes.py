"""Two processes compute what one computes: `hardware=cpu_x2` against `hardware=cpu`.

Tolerance: 1e-4 in every score. Order, batches and dropout masks are equal by construction (micro batches are equally
large); what differs is the order in which float32 gradients are added.
"""

from __future__ import annotations

import json

import numpy as np

from ..conftest import QUICK, command

TOLERANCE = 1e-4


def test_two_processes_equal_one(tmp_path):
    scores, metrics = {}, {}
    for hardware in ("cpu", "cpu_x2"):
        outputs = tmp_path / hardware  # its own, so that both train the teachers and draw the samples themselves
        done = command(["method=muki", *QUICK, f"hardware={hardware}", f"outputs={outputs}"], tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        (path,) = outputs.glob("muki/toy/tiny/*/s1/result.json")
        result = json.loads(path.read_text())
        assert result["environment"]["processes"] == {"cpu": 1, "cpu_x2": 2}[hardware]
        lines = (path.parent / "predictions.jsonl").read_text().splitlines()
        scores[hardware] = np.array([json.loads(line)["scores"] for line in lines])
        metrics[hardware] = {**result["metrics"]["test"], **result["diagnostics"]}
        assert result["key"][:8] == path.parents[1].name
    np.testing.assert_allclose(scores["cpu_x2"], scores["cpu"], atol=TOLERANCE)
    for name, value in metrics["cpu"].items():
        assert abs(metrics["cpu_x2"][name] - value) <= 1e-3, name
    assert not list((tmp_path / "cpu_x2").rglob(".elastic"))


def test_a_failing_process_ends_the_run_in_words(tmp_path):
    """Both processes diverge: one message, exit code 1, no process left waiting."""
    words = ["method=finetune", *QUICK, "hardware=cpu_x2", "train.lr=1e30", "train.clip=0", "train.warmup=0"]
    done = command(words, tmp_path)
    assert done.returncode == 1
    assert "is no longer a number" in done.stderr
    assert done.stderr.count("error:") == 1
