"""Every method on the toy data: finite terms, shared stages, exact resume, seeds that differ, runs that repeat."""

from __future__ import annotations

import json
import math
import threading

import numpy as np
import pytest

from kbench import registry
from kbench.data.records import Records
from kbench.engine import loop
from kbench.errors import InterruptedRunError
from kbench.runs.result import Result

METHODS = registry.choices("method")
TRAINED = [name for name in METHODS if registry.load("method", name).trained]


def lines(run):
    return [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("method", METHODS)
def test_a_run_ends_with_finite_metrics_and_readable_predictions(method, toy):
    run, result = toy(f"method={method}")
    assert Result.load(run.folder) == result
    assert 0 <= result.metrics["test"]["accuracy"] <= 1
    assert all(math.isfinite(value) for value in result.diagnostics.values())
    predictions = [json.loads(line) for line in (run.folder / "predictions.jsonl").read_text().splitlines()]
    assert len(predictions) == result.setting.rows["test"] == 48
    right = sum(row["gold"] == row["predicted"] for row in predictions)
    assert right / 48 == pytest.approx(result.metrics["test"]["accuracy"])
    labels = set(run.config.data.labels)
    for row in predictions:
        assert {row["gold"], row["predicted"]} <= labels and row["text"] and len(row["scores"]) == len(labels)


@pytest.mark.parametrize("method", TRAINED)
def test_every_term_of_the_loss_is_logged_and_finite(method, toy):
    run, result = toy(f"method={method}", "force=true")
    points = [line for line in lines(run) if line["scope"] in ("student", "train") and "loss" in line]
    assert [point["step"] for point in points] == list(range(1, int(result.training["steps"]) + 1))
    for point in points:
        terms = [value for name, value in point.items() if name.startswith("loss/")]
        assert terms and all(map(math.isfinite, terms))
        assert math.fsum(terms) == pytest.approx(point["loss"], rel=1e-6)


@pytest.mark.parametrize("method", TRAINED)
def test_a_stopped_run_continues_with_the_same_bits(method, toy, tmp_path, monkeypatch):
    whole_run, whole = toy(f"method={method}")
    total = int(whole.training["steps"])
    stop, read, logged = threading.Event(), loop._read, []

    def stop_after_third(*arguments):
        logged.append(len(logged))
        if len(logged) == total_teacher_steps + 3:
            stop.set()
        return read(*arguments)

    # the teachers' steps are logged first, where there are teachers
    total_teacher_steps = 4 if registry.load("method", method).needs.teachers else 0
    monkeypatch.setattr(loop, "_read", stop_after_third)
    with pytest.raises(InterruptedRunError, match="after step 4 of 6"):
        toy(f"method={method}", outputs=tmp_path, stop=stop)
    monkeypatch.setattr(loop, "_read", read)
    run, resumed = toy(f"method={method}", outputs=tmp_path)
    assert resumed.metrics == whole.metrics
    assert resumed.training == whole.training
    assert (run.folder / "predictions.jsonl").read_bytes() == (whole_run.folder / "predictions.jsonl").read_bytes()
    curve = [line["step"] for line in lines(run) if line["scope"] in ("student", "train") and "loss" in line]
    assert curve == list(range(1, total + 1))


@pytest.mark.parametrize("method", TRAINED)
def test_two_seeds_differ_and_one_seed_repeats(method, toy):
    first_run, _ = toy(f"method={method}")
    first = (first_run.folder / "predictions.jsonl").read_bytes()
    again, _ = toy(f"method={method}", "force=true")
    assert (again.folder / "predictions.jsonl").read_bytes() == first
    other, _ = toy(f"method={method}", "seed=2")
    assert (other.folder / "predictions.jsonl").read_bytes() != first
    assert other.folder.parent == first_run.folder.parent


def test_the_second_method_finds_the_teachers_of_the_first(toy, tmp_path):
    toy("method=uhc", outputs=tmp_path)
    stages = tmp_path / "stages"
    before = {path: path.stat().st_mtime_ns for path in stages.glob("teacher*/*/manifest.json")}
    assert len(before) == 4
    toy("method=vanilla_kd", "seed=2", outputs=tmp_path)
    after = {path: path.stat().st_mtime_ns for path in stages.glob("teacher*/*/manifest.json")}
    assert after == before


def test_a_smaller_k_and_another_tau_cost_no_further_pass(toy, tmp_path):
    toy("method=muki", outputs=tmp_path)
    before = sorted(path.name for path in (tmp_path / "stages").glob("teacher*/*"))
    toy("method=muki", "method.mc.samples=4", "method.tau=1.0", outputs=tmp_path)
    assert sorted(path.name for path in (tmp_path / "stages").glob("teacher*/*")) == before


def test_every_switch_of_muki_changes_the_result(toy):
    base_run, _ = toy("method=muki")
    seen = {"base": (base_run.folder / "predictions.jsonl").read_bytes()}
    switches = [
        "method.target=hard",
        "method.tau=5",
        "method.reweight=false",
        "method.mc.mode=deterministic",
        "method.mc.mode=single_sample",
        "method.mc.samples=2",
        "method.mc.dropout=0.3",
        "method.temperature=3",
        "method.teachers=3",
        "method.split=[[rivers,gardens,harbours],[bridges,orchards,meadows]]",
    ]
    for switch in switches:
        run, _ = toy("method=muki", switch)
        seen[switch] = (run.folder / "predictions.jsonl").read_bytes()
    assert len(set(seen.values())) == len(seen)


def test_a_split_in_another_order_scores_the_right_labels(toy):
    """Teachers whose classes are no blocks in label order: columns must find their way back to the labels."""
    overrides = ["method.split=[[meadows,rivers],[bridges,gardens,orchards,harbours]]", "data.train_size=900"]
    quick = ["teacher.epochs=4", "data.test_size=300"]
    _, teacher = toy("method=teacher", "method.index=1", *overrides, *quick)
    _, ensemble = toy("method=ensemble", *overrides, *quick)
    assert teacher.diagnostics["teacher_1_accuracy_on_own_classes"] > 0.8
    # a teacher alone is right on about its own third; shuffled columns would give a sixth
    assert 0.24 < teacher.metrics["test"]["accuracy"] < 0.35
    assert ensemble.metrics["test"]["accuracy"] > 0.4


@pytest.mark.parametrize("harm", ["empty marks", "short samples", "no marks"])
def test_sampling_survives_files_a_kill_left_half_written(harm, toy, tmp_path):
    whole_run, _ = toy("method=muki")
    run, _ = toy("method=uhc", outputs=tmp_path)  # the teachers, without samples
    from kbench.methods.bench import Bench
    from kbench.methods.muki import Muki

    config = whole_run.config
    bench = Bench(config.data, config.backbone, run.located, Records(run.records), config.train, config.teacher, 1)
    stage = Muki(config.method, bench).stages()["samples_0"]
    work = tmp_path / "stages" / stage.name / f"{stage.key}.work"
    work.mkdir(parents=True)
    if harm != "no marks":
        (work / "train.done").write_bytes(b"" if harm == "empty marks" else bytes(6))
    (work / "train.npy").write_bytes(b"half")
    again, _ = toy("method=muki", outputs=tmp_path)
    assert (again.folder / "predictions.jsonl").read_bytes() == (whole_run.folder / "predictions.jsonl").read_bytes()


def test_certainty_is_that_of_the_stored_samples(toy, shared_outputs):
    run, _ = toy("method=muki")
    for path in (shared_outputs / "stages" / "teacher_samples").glob("*/train.npy"):
        samples = np.load(path)
        assert samples.shape[0] == 96 and samples.shape[1] == 16
        assert not np.array_equal(samples[:, 0], samples[:, 1]), "dropout was off while sampling"
    assert run.config.method.tau >= 0
