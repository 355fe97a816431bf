"""The figures of TRELM on toy data: their CSV against a second computation from results and stored curves."""

from __future__ import annotations

import csv
import io
import json
import math
import random
import statistics
from pathlib import Path

import pytest
import yaml

from kbench.cli.main import main

from ..conftest import LINKED, QUICK

WORDS = [*LINKED, *QUICK, "base=tiny", "train.max_steps=2", "train.selection=last"]
WORDS += ["knowledge.corpus.documents=20", "method.routing.sequences=2", "method.cka.negatives=20"]
METRIC = "accuracy"


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    return tmp_path_factory.mktemp("trelm_figures")


@pytest.fixture
def here(monkeypatch):
    """Runs are made in this process: a new one for each would import everything again."""

    def launch(run, overrides, note):
        from kbench.engine.runtime import Runtime
        from kbench.runs.execute import execute
        from kbench.runs.launch import Ended
        from kbench.runs.prepare import freeze
        from kbench.runs.reporter import Reporter

        freeze(run, overrides)
        runtime = Runtime(device="cpu", micro_batch_size=32, eval_batch_size=64, checkpoint_seconds=1e9)
        return Ended(0, execute(run, runtime, Reporter(run.folder, out=io.StringIO())), True)

    monkeypatch.setattr("kbench.cli.reproduce.launch", launch)


def reproduce(name, outputs, *words, verb="reproduce"):
    return main([verb, f"trelm/{name}", *WORDS, *words, f"outputs={outputs}"])


def rescored(outputs, name, *words):
    """Make the runs of a figure, give each a score of its own in the place of that of a model that learned nothing."""
    assert reproduce(name, outputs, *words) == 0
    for path in sorted(outputs.glob("*/*/*/*/s*/result.json")):
        result = json.loads(path.read_text())
        result["metrics"]["test"][METRIC] = random.Random(f"{path.parent.relative_to(outputs)}").uniform(0.5, 0.9)
        path.write_text(json.dumps(result))
    assert reproduce(name, outputs, *words, verb="report") == 0


def table(outputs, figure, name):
    (path,) = (outputs / "reports" / f"trelm-{figure}").glob(f"*-{name}.csv")
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def facts(outputs, figure):
    """what -> (ours, paper) of a page."""
    text = (outputs / "reports" / f"trelm-{figure}" / "figure.md").read_text()
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ")]
    return {cells[0].strip(): (cells[1].strip(), cells[2].strip()) for cells in lines}


def runs(outputs):
    """(options of the method, seed, result) of every run there is."""
    found = []
    for path in sorted(outputs.glob("*/*/*/*/s*/result.json")):
        config = yaml.safe_load((path.parent / "config.yaml").read_text())
        found.append((config["method"], int(path.parent.name[1:]), json.loads(path.read_text())))
    return found


def option(method, name):
    """An option of a method; `a__b` is a.b."""
    for part in name.split("__"):
        method = method.get(part)
    return method


def score(outputs, seed, **wanted):
    """The score of the one run with some options, in percent."""
    found = [
        100 * result["metrics"]["test"][METRIC]
        for method, own, result in runs(outputs)
        if own == seed and all(option(method, name) == value for name, value in wanted.items())
    ]
    assert len(found) == 1, wanted
    return found[0]


def curve(outputs, **wanted):
    """The logged points of the pre-training of the runs with some options, and its file."""
    keys = {
        result["stages"]["pretrained"]
        for method, _, result in runs(outputs)
        if all(option(method, name) == value for name, value in wanted.items())
    }
    assert len(keys) == 1, wanted
    path = outputs / "stages/pretrained" / keys.pop() / "curve.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()], path


def written(outputs, figure, *tables):
    """Whether the page, one picture in two forms and these tables are all that is there."""
    folder = outputs / "reports" / f"trelm-{figure}"
    (picture,) = folder.glob("*.png")
    expected = {"figure.md", picture.name, f"{picture.stem}.svg", *(f"{picture.stem}-{name}.csv" for name in tables)}
    return {path.name for path in folder.iterdir()} == expected


def test_figure_3_is_what_the_results_say(outputs, here, capsys):
    rescored(outputs, "figure3", "seed=1,2")
    assert "long-tail above high frequency" in capsys.readouterr().out and written(outputs, "figure3", "runs")
    rules = {"important": "si_above_mean", "long_tail": "long_tail", "high_frequency": "high_frequency", "all": "all"}
    found = {(line["row"], int(line["seed"])): float(line[METRIC]) for line in table(outputs, "figure3", "runs")}
    expected = {
        (row, seed): score(outputs, seed, name="trelm", select__rule=rule, theta=0.5, memory__window=16)
        for row, rule in rules.items()
        for seed in (1, 2)
    }
    assert found == pytest.approx(expected) and len(set(expected.values())) == 8
    said = facts(outputs, "figure3")
    pair = [expected["important", seed] for seed in (1, 2)]
    assert said["accuracy, important (TRELM)"][0] == f"{sum(pair) / 2:.2f} ± {statistics.stdev(pair):.2f}, 2 seeds"
    stated = "long-tail above high frequency; a selected subset above all entities"
    for better, than, what in (
        ("long_tail", "high_frequency", "long-tail above high frequency"),
        ("important", "all", "important (TRELM) above all entities"),
        ("high_frequency", "all", "high frequency above all entities"),
    ):
        differences = [expected[better, seed] - expected[than, seed] for seed in (1, 2)]
        mean = sum(differences) / 2
        half = 12.7062 * statistics.stdev(differences) / math.sqrt(2)  # Student's t, 1 degree of freedom
        word = "open" if abs(mean) <= half else "holds" if mean > 0 else "does not hold"
        interval, paper = said[what]
        assert interval.startswith(f"{word}: {mean:+.2f} [") and paper == stated
        low, high = (float(end) for end in interval[interval.index("[") + 1 : -1].split(","))
        assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.01)


def naive_smoothed(points, weight):
    """Mean of the last 5 % of the steps, point by point; None before there are so many."""
    window = max(1, round(0.05 * points[-1]["step"]))
    found = []
    for i, last in enumerate(points):
        if last["step"] < window:
            found.append(None)
            continue
        total, count = 0.0, 0
        for j in range(i + 1):
            if points[j]["step"] > last["step"] - window:
                steps = points[j]["step"] - (points[j - 1]["step"] if j else 0)
                total, count = total + steps * points[j]["loss/words"] / weight, count + steps
        found.append(total / count)
    return found


def first(points, smoothed, loss):
    for point, value in zip(points, smoothed, strict=True):
        if value is not None and value <= loss:
            return point["seconds"], point["operations"]
    return None


# row of figure 4 -> options that only it has, and the weight of masked words in its loss
PARTS = [0.25, 0.5, 0.75]
FOUR = {
    "trelm": ({"name": "trelm", "snapshots": PARTS, "routing__mode": "amortised", "memory__initial": 0.5}, 0.5),
    "dkplm": ({"name": "dkplm"}, 0.5),
    "random": ({"name": "trelm", "routing__mode": "random"}, 0.5),
    "mlm": ({"name": "mlm"}, 1.0),
}


def test_figure_4_has_the_loss_of_masked_words_without_its_weight(outputs, here):
    rescored(outputs, "figure4")
    assert written(outputs, "figure4", "curves", "reached", "runs")
    lines = table(outputs, "figure4", "curves")
    assert {line["row"] for line in lines} == set(FOUR)
    for row, (wanted, weight) in FOUR.items():
        points, _ = curve(outputs, **wanted)
        own = [line for line in lines if line["row"] == row]
        assert [int(line["step"]) for line in own] == [1, 2, 3, 4]
        for line, point in zip(own, points, strict=True):
            assert float(line["words_loss"]) == pytest.approx(point["loss/words"] / weight)
            assert float(line["seconds"]) == point["seconds"] and float(line["operations"]) == point["operations"]
            if row != "mlm":
                both = 0.5 * float(line["words_loss"]) + 0.5 * float(line["knowledge_loss"])
                assert both == pytest.approx(point["loss"]) == float(line["loss"])
            else:
                assert line["knowledge_loss"] == "" and float(line["words_loss"]) == pytest.approx(point["loss"])
    by_row = {row: [float(x["words_loss"]) for x in lines if x["row"] == row] for row in FOUR}
    # untrained, all of them guess alike: only so if the weight is out
    assert by_row["trelm"][0] == pytest.approx(by_row["mlm"][0], rel=0.05)
    own = score(outputs, 1, **FOUR["mlm"][0])
    assert facts(outputs, "figure4")["accuracy, masked words only"] == (f"{own:.2f}, 1 seed", "")


def long_curve(path, rate, cost, floor, weight, seed):
    """Write a curve of 400 steps, logged at uneven steps, in the place of a stored one; gives what was there."""
    before, draws = path.read_text(), random.Random(seed)
    points, step, seconds = [], 0, 0.0
    while step < 400:
        by = min(400 - step, draws.choice([3, 5, 9]))
        step, seconds = step + by, seconds + by * cost
        words = floor + 7 * math.exp(-rate * step) + draws.gauss(0, 0.1)
        values = {
            "loss": 2 * words,
            "loss/words": words * weight,
            "tokens": step * 50.0,
            "operations": step * cost * 1e9,
        }
        points.append({"step": step, "seconds": round(seconds, 3), **values})
    path.write_text("".join(json.dumps(point) + "\n" for point in points))
    return before, points


def test_figure_4_says_when_the_other_loss_is_reached(outputs, here):
    """With long curves in the place of the stored ones: TRELM falls faster, the text alone never comes so far."""
    kept, points = {}, {}
    courses = {"trelm": (0.02, 0.8, 2.0), "dkplm": (0.008, 1.0, 2.0), "mlm": (0.02, 0.5, 4.0)}
    try:
        for seed, (row, (rate, cost, floor)) in enumerate(courses.items()):
            _, path = curve(outputs, **FOUR[row][0])
            kept[path], points[row] = long_curve(path, rate, cost, floor, FOUR[row][1], seed)
        assert reproduce("figure4", outputs, verb="report") == 0
    finally:
        for path, text in kept.items():
            path.write_text(text)
    smoothed = {row: naive_smoothed(points[row], FOUR[row][1]) for row in points}
    shown = [line for line in table(outputs, "figure4", "curves") if line["row"] == "trelm"]
    assert [line["words_loss_smoothed"] == "" for line in shown] == [value is None for value in smoothed["trelm"]]
    values = [float(line["words_loss_smoothed"]) for line in shown if line["words_loss_smoothed"]]
    assert values == pytest.approx([value for value in smoothed["trelm"] if value is not None])
    loss = smoothed["dkplm"][-1]
    lines = {line["row"]: line for line in table(outputs, "figure4", "reached")}
    assert float(lines["trelm"]["loss"]) == pytest.approx(loss)
    own, other = (first(points[row], smoothed[row], loss) for row in ("trelm", "dkplm"))
    assert (float(lines["trelm"]["seconds"]), float(lines["trelm"]["operations"])) == own
    assert float(lines["trelm"]["share_of_seconds"]) == pytest.approx(own[0] / other[0])
    assert float(lines["trelm"]["share_of_operations"]) == pytest.approx(own[1] / other[1])
    assert float(lines["dkplm"]["share_of_seconds"]) == 1 and own[0] < 0.7 * other[0]
    assert lines["mlm"]["seconds"] == "" == lines["mlm"]["share_of_operations"]
    said = facts(outputs, "figure4")
    assert said["to the final loss of DKPLM-like, masked words only"][0] == "not reached"
    ours, paper = said["to the final loss of DKPLM-like, TRELM"]
    assert ours.startswith(f"{100 * own[0] / other[0]:.1f} % of the time") and paper == "in about 1 day against about 2"


def test_figure_5_has_the_cost_of_each_part(outputs, here):
    rescored(outputs, "figure5", "--rows", "trelm_05,trelm_10,dkplm_05,dkplm_10", "seed=1")
    assert written(outputs, "figure5", "runs")
    lines = table(outputs, "figure5", "runs")
    found = {}
    for line in lines:
        name, part = line["method"], float(line["part"])
        found[name, part] = score(outputs, 1, part=part, **FOUR[name][0])
        assert float(line[METRIC]) == pytest.approx(found[name, part])
        point = curve(outputs, **FOUR[name][0])[0][round(part * 4) - 1]
        assert float(line["seconds"]) == pytest.approx(point["seconds"])
        assert float(line["operations"]) == pytest.approx(point["operations"])
    assert set(found) == {(name, part) for name in ("trelm", "dkplm") for part in (0.5, 1.0)}
    enough = [part for part in (0.5, 1.0) if found["trelm", part] >= found["dkplm", 1.0]]
    said = facts(outputs, "figure5")["smallest part of TRELM with at least the final accuracy of DKPLM-like"]
    assert said[0].startswith(f"{100 * enough[0]:.1f} %: " if enough else "not reached") and "0.75 days" in said[1]


def test_figure_6_races_to_an_early_and_to_the_final_loss(outputs, here):
    rescored(outputs, "figure6", "seed=1")
    assert written(outputs, "figure6", "curves", "reached", "runs")
    own = [x for x in table(outputs, "figure6", "curves") if x["row"] == "neither"]
    values = [float(x["words_loss"]) for x in own]  # four steps: nothing to smooth
    lines = table(outputs, "figure6", "reached")
    assert {(x["row"], float(x["part"])) for x in lines} == {
        (row, part) for row in ("both", "memory", "routing", "neither") for part in (0.25, 1.0)
    }
    for line in lines:
        loss = values[round(float(line["part"]) * 4) - 1]
        assert float(line["loss"]) == pytest.approx(loss)
        if line["row"] == "neither":
            assert line["seconds"] == next(x["seconds"] for x in own if float(x["words_loss"]) <= loss)
    said = facts(outputs, "figure6")
    assert "to the loss of neither after 25.0 %, memory bank only" in said
    assert said["to the final loss of neither, TRELM"][1].startswith("both; memory more in the early part")


def test_figure_7_is_a_line_over_theta(outputs, here):
    rescored(outputs, "figure7", "seed=1,2", "--rows", "theta_3,theta_5,theta_7")
    assert written(outputs, "figure7", "runs")
    lines = table(outputs, "figure7", "runs")
    means = {}
    for line in lines:
        value = score(outputs, int(line["seed"]), name="trelm", theta=float(line["theta"]), part=1.0, snapshots=[],
                   select__rule="si_above_mean", memory__window=16, memory__beta=2.0)  # fmt: skip
        assert float(line[METRIC]) == pytest.approx(value)
        means[line["theta"]] = means.get(line["theta"], 0) + value / 2
    said = facts(outputs, "figure7")
    assert said["accuracy, theta = 0.3"][0].startswith(f"{means['0.3']:.2f} ± ")
    assert said["best theta"] == (max(means, key=means.get), "0.5")
    nearest = min(means["0.5"] - mean for theta, mean in means.items() if theta != "0.5")
    assert f": {nearest:+.2f} [" in said["theta = 0.5 above every other"][0]


def test_figure_8_is_a_line_over_k_and_one_over_beta(outputs, here):
    rescored(outputs, "figure8", "--rows", "k_4,k_16,beta_1,beta_2", "seed=1")
    assert written(outputs, "figure8", "runs")
    for line in table(outputs, "figure8", "runs"):
        k, beta = (float(line["value"]), 2.0) if line["option"] == "k" else (16, float(line["value"]))
        value = score(outputs, 1, name="trelm", theta=0.5, snapshots=[], select__rule="si_above_mean",
                   memory__window=int(k), memory__beta=beta)  # fmt: skip
        assert float(line[METRIC]) == pytest.approx(value)
    said = facts(outputs, "figure8")
    assert said["k = 16 above k = 4"][0].startswith("open: ")  # one seed
    assert said["beta = 1 below every other"][0].startswith("open: ") and "k = 16 above k = 32" not in said


def test_drawing_again_gives_the_same_files(outputs, monkeypatch):
    folder = outputs / "reports" / "trelm-figure6"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr("kbench.cli.reproduce.launch", lambda *_: pytest.fail("a run was made"))
    assert reproduce("figure6", outputs, "seed=1") == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_pretraining_without_a_curve_is_named(outputs, capsys):
    _, path = curve(outputs, name="mlm")
    path.rename(path.with_suffix(".away"))
    try:
        assert reproduce("figure4", outputs, verb="report") == 0
        assert "masked words only: its pre-training kept no curve" in capsys.readouterr().out
        assert {line["row"] for line in table(outputs, "figure4", "curves")} == {"trelm", "dkplm", "random"}
    finally:
        path.with_suffix(".away").rename(path)


def test_a_stage_that_is_gone_is_one_message(outputs, capsys):
    folder = curve(outputs, name="mlm")[1].parent
    folder.rename(folder.with_suffix(".away"))
    try:
        assert reproduce("figure4", outputs, verb="report") == 2
        assert "is gone" in capsys.readouterr().err
    finally:
        folder.with_suffix(".away").rename(folder)


def test_a_figure_without_runs_says_so(tmp_path, capsys):
    rows = {3: "all", 4: "dkplm", 5: "dkplm_10", 6: "neither", 7: "theta_5", 8: "k_16"}
    for figure, row in rows.items():
        assert reproduce(f"figure{figure}", tmp_path, "--rows", row, verb="report") == 0
        assert "not drawn" in capsys.readouterr().out
        assert {path.name for path in Path(tmp_path, "reports", f"trelm-figure{figure}").iterdir()} == {"figure.md"}
