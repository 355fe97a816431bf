"""Every method on toy data: finite terms, shared stages, exact resume, options that count, seeds."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import threading
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from seqeval.metrics import f1_score

from kbench import registry
from kbench.config.keys import MACHINERY
from kbench.data.records import Records
from kbench.engine import loop
from kbench.errors import InterruptedRunError
from kbench.runs.result import Result
from kbench.runs.stored import stored_method

from ..conftest import bench_of, points

# dkplm is TRELM with other options, fine-tuned alike; test_trelm.py has both
METHODS = [name for name in registry.choices("method") if name != "dkplm"]
TRAINED = [name for name in METHODS if registry.load("method", name).trained]
DATA = ("toy", "toy_entities")
SCORES = "keep_scores=[test]"
on_both = pytest.mark.parametrize("data", DATA)
# of words with parts of speech, of choices and of pairs: what reads texts in a way of its own
MORE = [(method, data) for method in ("finetune", "kr2", "kd") for data in ("toy_pos", "toy_choice")]
MORE += [("kr2", "toy_inference")]
CASES = [(method, data) for method in METHODS for data in DATA] + MORE
on_all = pytest.mark.parametrize(("method", "data"), CASES)
# pre-trained on text, and what it is tested on: relations, answers and reasoning in several languages, and a probe
PRETRAINED = [name for name in METHODS if registry.load("method", name).needs.pretraining]
STREAMED = [name for name in PRETRAINED if name not in ("trelm", "dkplm")]  # those have tests of their own
ZERO_SHOT = [(method, data) for method in ("finetune", "kmlm") for data in ("toy_relx", "toy_qa", "toy_xlr")]
PROBED = [(method, "toy_probe") for method in ("finetune", "kmlm", "mlm")]
on_trained = pytest.mark.parametrize(("method", "data"), [case for case in CASES if case[0] in TRAINED] + ZERO_SHOT)


def scope_of(method):
    return "student" if registry.load("method", method).needs.teachers else "train"


@on_all
def test_a_run_ends_with_finite_metrics_and_readable_predictions(method, data, toy):
    run, result = toy(f"method={method}", SCORES, data=data)
    assert Result.load(run.folder) == result
    assert list(result.metrics["test"]) == run.config.data.metrics
    assert all(0 <= value <= 1 for value in result.metrics["test"].values())
    assert all(math.isfinite(value) for value in result.diagnostics.values())
    predictions = [json.loads(line) for line in (run.folder / "predictions.jsonl").read_text().splitlines()]
    assert len(predictions) == result.setting.rows["test"] == 48
    outputs = run.config.data.outputs()
    best = [outputs[index] for index in np.load(run.scores("test")).argmax(1)]
    gold, predicted = ([row[name] for row in predictions] for name in ("gold", "predicted"))
    if run.config.data.task in ("classification", "choice"):
        right = sum(map(str.__eq__, gold, predicted))
        assert right / 48 == pytest.approx(result.metrics["test"]["accuracy"])
        assert {*gold, *predicted} <= set(outputs)
        assert predicted == best
    else:
        assert f1_score(gold, predicted, zero_division=0) == pytest.approx(result.metrics["test"]["f1"])
        for row in predictions:
            assert len(row["words"]) == len(row["gold"]) == len(row["predicted"]) > 0
        assert [tag for row in predicted for tag in row] == best
    records = Records(run.records)
    texts = records.texts("test") if data == "toy" else records.pieces("test")
    for row, text in zip(predictions, texts, strict=True):
        if run.config.data.task == "classification":
            assert row["text"] == (text if data == "toy" else " ".join(text)) and len(row["scores"]) == len(outputs)
        elif run.config.data.task == "choice":
            assert [row["context"], *row["choices"].values()] == text
            assert list(row["choices"]) == outputs and len(row["scores"]) == len(outputs) == 4
        else:
            assert row["words"] == text
    if data == "toy_pos":
        words = [one for pair in zip(gold, predicted, strict=True) for one in zip(*pair, strict=True)]
        assert np.mean([a == b for a, b in words]) == pytest.approx(result.metrics["test"]["accuracy"])
        assert {tag for pair in words for tag in pair} <= set(outputs)


def metrics_of(data):
    """The names of metrics of a data set: of several languages their means first."""
    langs = data.zero_shot.tested if data.zero_shot else []
    return [*data.metrics, *(f"{name}/{lang}" for lang in langs for name in data.metrics)]


@pytest.mark.parametrize(("method", "data"), ZERO_SHOT + PROBED)
def test_a_run_in_several_languages_ends_with_finite_metrics_and_readable_predictions(method, data, toy):
    run, result = toy(f"method={method}", SCORES, data=data)
    assert Result.load(run.folder) == result
    found = result.metrics["test"]
    assert list(found) == metrics_of(run.config.data)
    assert all(0 <= value <= 1 for value in found.values())
    assert all(math.isfinite(value) for value in result.diagnostics.values())
    predictions = [json.loads(line) for line in (run.folder / "predictions.jsonl").read_text().splitlines()]
    langs = run.config.data.zero_shot.tested if run.config.data.zero_shot else [None]
    assert [row.get("lang") for row in predictions] == [lang for lang in langs for _ in range(48)]
    assert len(predictions) == result.setting.rows["test"] == len(np.load(run.scores("test")))
    if data == "toy_qa":
        assert found == pytest.approx({name: np.mean([row[name] for row in predictions]) for name in found}, rel=1e-4)
        assert all(row["predicted"] in row["context"] and row["gold"] for row in predictions)
    elif data == "toy_probe":
        assert found["micro"] == pytest.approx(np.mean([row["correct"] for row in predictions if row["used"]]))
        assert {row["relation"] for row in predictions} == {"T1", "T2"} and result.training == {}
    else:
        outputs = run.config.data.outputs()
        best = [outputs[index] for index in np.load(run.scores("test")).argmax(1)]
        assert [row["predicted"] for row in predictions] == best
        for lang in langs:
            right = [row["gold"] == row["predicted"] for row in predictions if row["lang"] == lang]
            assert found[f"accuracy/{lang}"] == pytest.approx(np.mean(right))
        assert found["accuracy"] == pytest.approx(np.mean([found[f"accuracy/{lang}"] for lang in langs]))


@on_trained
def test_every_term_of_the_loss_is_logged_and_finite(method, data, toy):
    run, result = toy(f"method={method}", "force=true", data=data)
    curve = points(run, scope_of(method))
    assert [point["step"] for point in curve] == list(range(1, int(result.training["steps"]) + 1))
    for point in curve:
        terms = [value for name, value in point.items() if name.startswith("loss/")]
        assert terms and all(map(math.isfinite, terms))
        assert math.fsum(terms) == pytest.approx(point["loss"], rel=1e-6)


@on_trained
def test_a_stopped_run_continues_with_the_same_bits(method, data, toy, tmp_path, monkeypatch):
    whole_run, whole = toy(f"method={method}", SCORES, data=data)
    total = int(whole.training["steps"])
    stop, read, logged = threading.Event(), loop._read, []

    def stop_after_third(*arguments):
        logged.append(len(logged))
        if len(logged) == total_teacher_steps + 3:
            stop.set()
        return read(*arguments)

    # the teachers' steps are logged first, where there are teachers: a tagger learns from all sentences, and so does
    # the one teacher of all labels
    teachers = registry.load("method", method).needs.teachers
    total_teacher_steps = 0 if not teachers else 3 if method == "kd" else {"toy": 4, "toy_entities": 6}[data]
    if method in PRETRAINED:  # a test of its own stops the pre-training
        shutil.copytree(Path(whole_run.config.outputs) / "stages", tmp_path / "stages")
    monkeypatch.setattr(loop, "_read", stop_after_third)
    with pytest.raises(InterruptedRunError, match=f"after step 4 of {total}"):
        toy(f"method={method}", SCORES, data=data, outputs=tmp_path, stop=stop)
    monkeypatch.setattr(loop, "_read", read)
    run, resumed = toy(f"method={method}", SCORES, data=data, outputs=tmp_path)
    assert resumed.metrics == whole.metrics
    assert resumed.training == whole.training
    assert (run.folder / "predictions.jsonl").read_bytes() == (whole_run.folder / "predictions.jsonl").read_bytes()
    assert run.scores("test").read_bytes() == whole_run.scores("test").read_bytes()
    assert [point["step"] for point in points(run, scope_of(method))] == list(range(1, total + 1))


@pytest.mark.parametrize("method", STREAMED)
def test_a_stopped_pretraining_continues_with_the_same_bits(method, toy, tmp_path, monkeypatch):
    words = [f"method={method}", "pretrain.max_steps=10", "method.long_steps=0"]
    run, whole = toy(*words)
    stop, read, logged = threading.Event(), loop._read, []

    def stop_in_sixth(*arguments):
        logged.append(len(logged))
        if len(logged) == 5:
            stop.set()
        return read(*arguments)

    monkeypatch.setattr(loop, "_read", stop_in_sixth)
    with pytest.raises(InterruptedRunError, match="after step 6 of 10"):
        toy(*words, outputs=tmp_path, stop=stop)
    monkeypatch.setattr(loop, "_read", read)
    again, resumed = toy(*words, outputs=tmp_path)
    assert resumed.stages == whole.stages
    bits = [(Path(one.config.outputs) / "stages/pretrained" / whole.stages["pretrained"]) for one in (run, again)]
    assert bits[0] != bits[1]
    assert (bits[0] / "model.safetensors").read_bytes() == (bits[1] / "model.safetensors").read_bytes()
    assert (again.folder / "predictions.jsonl").read_bytes() == (run.folder / "predictions.jsonl").read_bytes()
    lines = [json.loads(line) for line in (again.folder / "metrics.jsonl").read_text().splitlines()]
    curve = [line for line in lines if line["scope"] == "pretrain" and "loss" in line]
    assert [line["step"] for line in curve] == list(range(1, 11))
    terms = {"kmlm": {"loss/code_switched", "loss/reasoning"}, "mlm": {"loss/plain"}}[method]
    for line in curve:
        assert {name for name in line if name.startswith("loss/")} == terms
        assert math.isfinite(line["loss"]) and math.fsum(line[name] for name in terms) == pytest.approx(line["loss"])


@pytest.mark.parametrize("method", STREAMED)
def test_a_second_run_finds_the_pretraining_of_the_first(method, toy, tmp_path):
    first, _ = toy(f"method={method}", outputs=tmp_path)
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "stages").glob("*/*/manifest.json")}
    assert len([path for path in made if path.parts[-3].startswith("pretrained")]) == {"kmlm": 1, "mlm": 2}[method]
    second, _ = toy(f"method={method}", "seed=2", "train.lr=5e-4", outputs=tmp_path)
    assert second.folder != first.folder
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "stages").glob("*/*/manifest.json")} == made


def test_pretraining_changes_what_is_fine_tuned_and_what_is_probed(toy):
    for data in ("toy_relx", "toy_probe"):
        scores = [
            np.load(toy(f"method={method}", SCORES, data=data)[0].scores("test")) for method in ("finetune", "kmlm")
        ]
        assert scores[0].shape == scores[1].shape and not np.array_equal(*scores)


@on_both
@pytest.mark.parametrize("method", TRAINED)
def test_two_seeds_differ_and_one_seed_repeats(method, data, toy):
    first_run, _ = toy(f"method={method}", SCORES, data=data)
    first = first_run.scores("test").read_bytes()
    again, _ = toy(f"method={method}", SCORES, "force=true", data=data)
    assert again.scores("test").read_bytes() == first
    other, _ = toy(f"method={method}", SCORES, "seed=2", data=data)
    assert other.scores("test").read_bytes() != first
    assert other.folder.parent == first_run.folder.parent


@on_both
@pytest.mark.parametrize("method", [*TRAINED, "muki reduction=sum", "muki target=hard"])
def test_micro_batches_do_not_change_the_loss(method, data, toy):
    """Without dropout only the order of sums differs; texts and sentences are of different lengths."""
    method, *options = method.split()
    words = [f"method={method}", *(f"method.{option}" for option in options), "backbone.dropout=0", "force=true"]
    words += ["teacher.epochs=6", "teacher.lr=3e-3"]  # surer, so that losses are well above rounding
    found = {}
    for micro in (8, 2):
        run, _ = toy(*words, data=data, micro_batch_size=micro)
        found[micro] = [point["loss"] for point in points(run, scope_of(method))]
    assert len(found[8]) == 6
    assert found[2] == pytest.approx(found[8], rel=1e-4)


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
        "method.weight_floor=0.1",
        "method.direction=student_target",
        "method.reduction=sum",
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


# option -> other values of it, each with what it needs beside
LEARNED = "method.fusion=learned"
KR2 = {
    "resource": ["method.resource=tiny_large"],
    "resource_seed": ["method.resource_seed=2"],
    # of the two layers of `tiny`, the last four are all
    "fusion": ["method.fusion=layer:1", LEARNED, "method.fusion=avg_all method.resource=tiny_large"],
    "fusion_weights": [f"method.fusion_weights=free {LEARNED}"],
    "inject_at": ["method.inject_at=inputs_embeds"],
    "segment": ["method.segment=1"],
    "inject_norm": ["method.inject_norm=layernorm"],
    "inject_dropout": ["method.inject_dropout=0.3"],
    "projection": ["method.projection=mlp"],
    "depth": ["method.depth=1 method.projection=mlp"],
    "drop_special": ["method.drop_special=true"],
    "stored": ["method.stored=bf16"],
}
KD = {
    "teacher": ["method.teacher=tiny_large"],
    "teacher_seed": ["method.teacher_seed=2"],
    "weight": ["method.weight=0.2"],
    "temperature": ["method.temperature=3"],
    "word_pooling": ["method.word_pooling=mean"],
}


@pytest.mark.parametrize(("method", "options"), [("kr2", KR2), ("kd", KD)], ids=["kr2", "kd"])
def test_every_switch_of_reading_changes_the_result(method, options, toy):
    # a vocabulary so small that words have several tokens, of which the first and the mean differ
    words = [f"method={method}", SCORES, "backbone.tiny.vocabulary=330"]
    base, _ = toy(*words, data="toy_pos")
    encoded = bench_of(base).encoded("train")
    assert encoded.lengths.sum() > 1.5 * len(encoded.starts)
    seen = {"base": np.load(base.scores("test"))}
    for switch in (value for values in options.values() for value in values):
        run, _ = toy(*words, *switch.split(), data="toy_pos")
        seen[switch] = np.load(run.scores("test"))
    for (one, ours), (other, theirs) in combinations(seen.items(), 2):
        assert ours.shape == theirs.shape and np.isfinite(ours).all()
        assert not np.array_equal(ours, theirs), f"{one} and {other}"
    # the rest is machinery, as is where another model stands, and one whose gradient is the same
    fields = dataclasses.fields(registry.load("method", method).Config)
    counted = {field.name for field in fields if MACHINERY not in field.metadata}
    places = {"resource", "teacher"}
    assert counted == {"name", *options, *(["soft_loss"] if method == "kd" else [])} - places


def test_where_the_vectors_of_a_resource_are_kept_changes_nothing(toy):
    seen = set()
    for words in (["on"], ["off"], ["auto", "method.cache_gigabytes=0"]):
        cache, *more = words
        run, _ = toy("method=kr2", f"method.cache={cache}", *more, SCORES, "force=true", data="toy_pos")
        seen.add((run.folder, run.scores("test").read_bytes()))
    assert len(seen) == 1


def test_the_two_soft_losses_differ_by_what_no_student_changes(toy):
    runs = [toy("method=kd", f"method.soft_loss={name}", SCORES, data="toy_pos")[0] for name in ("kl", "ce")]
    kl, ce = ([np.array([point[f"loss/{name}"] for name in ("hard", "soft")]) for point in points(run)] for run in runs)
    assert np.array_equal(*(np.load(run.scores("test")) for run in runs))
    assert (runs[0].folder / "predictions.jsonl").read_bytes() == (runs[1].folder / "predictions.jsonl").read_bytes()
    for (hard, soft), (theirs, other) in zip(kl, ce, strict=True):
        assert hard == theirs and 0 <= soft < other


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
    bench = Bench(
        config.data,
        config.backbone,
        run.located,
        Records(run.records),
        config.train,
        config.teacher,
        config.knowledge,
        config.pretrain,
        1,
    )
    stage = Muki(config.method, bench).stages()["samples_0"]
    work = tmp_path / "stages" / stage.name / f"{stage.key}.work"
    work.mkdir(parents=True)
    if harm != "no marks":
        (work / "train.done").write_bytes(b"" if harm == "empty marks" else bytes(6))
    (work / "train.npy").write_bytes(b"half")
    again, _ = toy("method=muki", outputs=tmp_path)
    assert (again.folder / "predictions.jsonl").read_bytes() == (whole_run.folder / "predictions.jsonl").read_bytes()


@on_both
def test_certainty_is_that_of_the_stored_samples(data, toy):
    run, _ = toy("method=muki", data=data)
    method = stored_method(run)
    lines = len(method.bench.records.labels("train"))
    assert method.certainty.shape == (lines, 2) and (lines == 96) == (data == "toy")
    for i, columns in enumerate(method.teachers.columns):
        samples = method.stored(f"samples_{i}", "train")
        assert samples.shape == (lines, 16, len(columns))
        assert not np.array_equal(samples[:, 0], samples[:, 1]), "dropout was off while sampling"
        p = np.exp(samples.astype(np.float64))
        p = (p / p.sum(-1, keepdims=True)).mean(1)
        if data == "toy_entities":
            p = p[:, 1:] / p[:, 1:].sum(-1, keepdims=True)  # without O, which comes first
        certainty = 1 + (p * np.log(p)).sum(-1) / np.log(p.shape[-1])
        assert method.certainty[:, i] == pytest.approx(certainty, abs=1e-6)
