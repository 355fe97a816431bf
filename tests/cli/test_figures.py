"""Figures from one command: numbers against a second computation from the stored files, and no run when drawn again."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from kbench.cli.main import main

from ..conftest import QUICK


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    return tmp_path_factory.mktemp("figures")


def reproduce(name, outputs, *words, verb="reproduce"):
    return main([verb, f"muki/{name}", *QUICK, *words, f"outputs={outputs}"])


def rows(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def stages(outputs, kind):
    return sorted(path for path in (outputs / "stages" / kind).iterdir() if path.is_dir())


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def entropy(p):
    return -(p * np.log(p)).sum(-1) / np.log(p.shape[-1])


def teachers_of(outputs):
    """Stored logits and samples of each teacher, in order, from the stages that the muki run names."""
    (result,) = outputs.glob("muki/toy/tiny/*/s1/result.json")
    keys = json.loads(result.read_text())["stages"]
    folder = outputs / "stages"
    logits = [np.load(folder / "teacher_logits" / keys[f"logits_{i}"] / "train.npy").astype(float) for i in (0, 1)]
    samples = [np.load(folder / "teacher_samples" / keys[f"samples_{i}"] / "train.npy").astype(float) for i in (0, 1)]
    return logits, samples


def gold_of(outputs, run):
    """Gold classes of the training rows, by name, from the records."""
    from kbench.data.records import Records

    inputs = json.loads((run / "inputs.json").read_text())
    return Records(Path(inputs["records"])).labels("train")


def test_figure_2_is_what_the_stored_outputs_say(outputs, capsys):
    assert reproduce("figure2", outputs) == 0
    assert "AUROC" in capsys.readouterr().out
    found = rows(outputs / "reports" / "muki-figure2" / "toy-instances.csv")
    assert len(found) == 96  # all there are, of the thousand that are asked for
    logits, samples = teachers_of(outputs)
    gold = gold_of(outputs, next(outputs.glob("muki/toy/tiny/*/s1")))
    plain = np.stack([entropy(softmax(z)) for z in logits], 1)
    sampled = np.stack([entropy(softmax(s).mean(1)) for s in samples], 1)
    right = (gold >= 3).astype(int)
    for row, line in enumerate(found):
        assert int(line["right_teacher"]) == right[row] + 1
        own, other = right[row], 1 - right[row]
        for name, u in (("entropy", plain), ("monte_carlo", sampled)):
            assert float(line[f"right_{name}"]) == pytest.approx(u[row, own], abs=1e-5)
            assert float(line[f"wrong_{name}"]) == pytest.approx(u[row, other], abs=1e-5)


def test_figure_4_is_what_the_stored_scores_say(outputs):
    assert reproduce("figure4", outputs) == 0
    (scores,) = outputs.glob("finetune/toy/tiny/*/s1/scores/train.npy")
    gold = softmax(np.load(scores).astype(float))
    logits, samples = teachers_of(outputs)
    c = 1 - np.stack([entropy(softmax(s).mean(1)) for s in samples], 1)
    w = softmax(c / 0.2)
    soft = np.concatenate([w[:, i : i + 1] * softmax(z) for i, z in enumerate(logits)], 1)
    kd = softmax(np.concatenate(logits, 1))
    found = rows(outputs / "reports" / "muki-figure4" / "toy-instances.csv")
    for name, target in (("kl_vanilla_kd", kd), ("kl_muki_soft", soft)):
        expected = (gold * np.log(gold / target)).sum(1)
        assert [float(line[name]) for line in found] == pytest.approx(expected.tolist(), abs=1e-4)
    groups = {(line["supervision"], line["group"]): line for line in rows(scores_folder(outputs) / "toy-groups.csv")}
    far = np.abs(c[:, 0] - c[:, 1]) >= 0.5
    assert int(groups["MUKI-Soft", "v ≥ 0.5"]["instances"]) == far.sum()
    assert int(groups["MUKI-Soft", "v < 0.5"]["instances"]) == (~far).sum()


def scores_folder(outputs):
    return outputs / "reports" / "muki-figure4"


def test_figure_5_counts_what_the_runs_predicted(outputs):
    assert reproduce("figure5", outputs) == 0
    folder = outputs / "reports" / "muki-figure5"
    _, samples = teachers_of(outputs)
    u = np.stack([entropy(softmax(s).mean(1)) for s in samples], 1)
    gold = gold_of(outputs, next(outputs.glob("muki/toy/tiny/*/s1")))
    right = (gold >= 3).astype(int)
    wrong = u[np.arange(96), right] > u[np.arange(96), 1 - right]
    found = rows(folder / "toy-classes.csv")
    assert [int(line["wrong_teacher"]) for line in found] == [int((wrong & (gold == k)).sum()) for k in range(6)]
    assert [int(line["instances"]) for line in found] == [16] * 6
    run = max(outputs.glob("finetune/toy/tiny/*/s1"), key=lambda path: path.stat().st_mtime)
    predictions = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    confusion = rows(folder / "toy-confusion.csv")
    for line in confusion:
        for name in [key for key in line if key != "gold"]:
            count = sum(p["gold"] == line["gold"] and p["predicted"] == name for p in predictions)
            assert int(line[name]) == count


def test_figure_6_needs_no_teacher_twice_and_shows_the_results(outputs, capsys):
    before = {kind: stages(outputs, kind) for kind in ("teacher", "teacher_logits", "teacher_samples")}
    assert reproduce("figure6", outputs, "seed=1,2", "--rows", "tau_0.1,tau_0.2,tau_1") == 0
    assert {kind: stages(outputs, kind) for kind in before} == before
    assert "best tau" in capsys.readouterr().out
    found = rows(outputs / "reports" / "muki-figure6" / "toy-runs.csv")
    assert len(found) == 6
    for line in found:
        results = [json.loads(path.read_text()) for path in outputs.glob(f"muki/*/*/*/s{line['seed']}/result.json")]
        values = [100 * result["metrics"]["test"]["accuracy"] for result in results]
        assert float(line["accuracy"]) in [pytest.approx(value) for value in values]


def test_drawing_again_makes_no_run_and_the_same_files(outputs, monkeypatch):
    folder = outputs / "reports" / "muki-figure2"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {"figure.md", "toy.png", "toy.svg", "toy-instances.csv"} == set(before)
    monkeypatch.setattr("kbench.cli.reproduce.launch", lambda *_: pytest.fail("a run was made"))
    assert reproduce("figure2", outputs) == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_figure_without_runs_says_so(tmp_path, capsys):
    assert reproduce("figure4", tmp_path, verb="report") == 0
    assert "not drawn" in capsys.readouterr().out


def test_a_figure_whose_stage_is_gone_says_so(outputs, capsys):
    stage = stages(outputs, "teacher_samples")[0]
    (stage / "train.npy").rename(stage / "elsewhere")
    try:
        assert reproduce("figure2", outputs, verb="report") == 2
        assert "is gone or damaged" in capsys.readouterr().err
    finally:
        (stage / "elsewhere").rename(stage / "train.npy")
