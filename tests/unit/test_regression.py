"""Regression: correlations against scipy and worked examples, records of scores, loss, predictions, and a toy run."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from kbench.config.compose import compose
from kbench.data.records import Records, records_stage
from kbench.data.source import locate
from kbench.data.toy_scores import SIZES, generate
from kbench.errors import ConfigError
from kbench.metrics.regression import METRICS, pearson, ranks, spearman
from kbench.stages.store import Store
from kbench.tasks.regression import Regression

from ..conftest import in_process


def problems(*overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        compose(["method=finetune", *overrides])
    return [f"{p.where} | {p.what} | {p.hint}" for p in caught.value.problems]


def records_of(folder: Path, *overrides: str) -> Records:
    data = compose(["method=finetune", "data=toy_scores", *overrides]).data
    return Records(Store(folder).get(records_stage(data, locate(data))))


# Metrics.


def test_correlations_of_worked_examples() -> None:
    gold = np.array([1.0, 2.0, 3.0, 4.0])
    assert pearson(2 * gold - 7, gold) == pytest.approx(1) and spearman(-gold, gold) == pytest.approx(-1)
    # x - mean = (-1.5, -.5, .5, 1.5), y - mean = (-1, 1, -1, 1): 2 / sqrt(5 x 4)
    assert pearson(gold, np.array([0.0, 2.0, 0.0, 2.0])) == pytest.approx(2 / math.sqrt(20))
    # a curve that only rises keeps the ranks
    assert spearman(np.exp(gold), gold) == pytest.approx(1) and pearson(np.exp(gold), gold) < 0.95
    assert ranks(np.array([5.0, 1.0, 5.0, 9.0])).tolist() == [2.5, 1.0, 2.5, 4.0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("steps", [0, 4])
def test_correlations_equal_scipy(steps: int, dtype: type) -> None:
    rng = np.random.default_rng(steps)
    for rows in (2, 7, 900):
        gold: np.ndarray = rng.random(rows) * 5
        predicted: np.ndarray = (gold + rng.normal(size=rows)).astype(dtype)
        if steps:  # many equal values
            gold, predicted = np.append(np.round(gold), 9), np.append(np.round(predicted), dtype(0))
        assert pearson(predicted, gold) == pytest.approx(stats.pearsonr(predicted, gold)[0], abs=1e-6)
        assert spearman(predicted, gold) == pytest.approx(stats.spearmanr(predicted, gold)[0], abs=1e-9)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("predicted", [[2.0, 2.0, 2.0], [1.0, math.nan, 2.0], [1.0, math.inf, 2.0]])
def test_what_has_no_correlation_counts_as_none(name: str, predicted: list[float]) -> None:
    gold = np.array([1.0, 2.0, 3.0])
    assert METRICS[name](np.array(predicted), gold) == 0.0
    assert METRICS[name](gold, np.full(3, 4.0)) == 0.0


def test_a_large_offset_does_not_spoil_a_correlation() -> None:
    gold = np.random.default_rng(0).random(500)
    assert pearson(gold + 1e6, gold) == pytest.approx(1, abs=1e-6)


# Rows.


def test_toy_rows_are_the_same_everywhere_and_no_text_tells_the_score() -> None:
    rows = {split: list(generate(split)) for split in SIZES}
    assert {split: len(found) for split, found in rows.items()} == SIZES
    scores = np.array([score for _, score in rows["train"]])
    assert scores.min() == 0 and scores.max() == 5
    early = {row for texts, score in rows["train"] if score == 5 for text in texts for row in text.split()}
    late = {row for texts, score in rows["train"] if score == 0 for text in texts for row in text.split()}
    assert early and late and not early & late
    shares = np.array([[np.mean([w in early for w in t.split()]) for t in texts] for texts, _ in rows["train"]])
    for text in (0, 1):
        assert abs(pearson(shares[:, text], scores)) < 0.85
    assert pearson(shares.sum(1), scores) > 0.9
    assert not {tuple(texts) for texts, _ in rows["train"]} & {tuple(texts) for texts, _ in rows["test"]}
    assert rows["train"][0] == (["robe pabe pabe tibe pabe pube", "fabe pebe fobe babe dabe mibe"], 2.0833333333333335)


def test_records_keep_scores_as_they_are(tmp_path: Path) -> None:
    records = records_of(tmp_path)
    expected = [score for _, score in generate("test")]
    assert records.scores("test").tolist() == expected and records.scores("test").dtype == np.float64
    assert records.pieces("test") == [texts for texts, _ in generate("test")]
    assert records.info["classes"] == {"train": {}, "test": {}}


def test_a_subset_keeps_each_rows_score_and_is_other_content(tmp_path: Path) -> None:
    whole, part = records_of(tmp_path), records_of(tmp_path, "data.train_size=50", "data.subset_seed=3")
    numbers = part.numbers("train")
    assert len(numbers) == 50 and not np.array_equal(numbers, np.arange(50))
    assert np.array_equal(part.scores("train"), whole.scores("train")[numbers])
    assert part.content != whole.content


def test_a_score_that_changes_changes_the_content(tmp_path: Path) -> None:
    contents = set()
    for score in ("1.0", "1.001"):
        folder = tmp_path / score
        folder.mkdir()
        for name in ("train.tsv", "dev.tsv"):
            (folder / name).write_text(f"sentence1\tsentence2\tscore\na\tb\t{score}\nc\td\t2\n")
        data = compose(["method=finetune", "data=glue_stsb", "backbone=tiny", f"data.path={folder}"]).data
        records = Records(Store(tmp_path / "stages").get(records_stage(data, locate(data))))
        assert records.scores("train").tolist() == [float(score), 2.0]
        contents.add(records.content)
    assert len(contents) == 2


@pytest.mark.parametrize("labels", ["[]", "[a,b]"])
def test_a_score_has_one_name(labels: str) -> None:
    count = {"[]": 0, "[a,b]": 2}[labels]
    assert problems("data=toy_scores", f"data.labels={labels}") == [
        f"data.labels | has {count} labels | it needs one, its score"
    ]


def test_f1_of_classification_is_of_two_labels() -> None:
    assert problems("data=toy", "data.metrics=[f1]") == [
        "data.metrics | f1 is that of the second of two labels | the mean over all labels is macro_f1"
    ]
    assert compose(["method=finetune", "data=glue_mrpc", "data.metrics=[f1]"]).data.metrics == ["f1"]


def test_a_method_that_needs_classes_refuses_scores() -> None:
    (found,) = problems("data=toy_scores", "method=kd")
    assert "regression" in found


# The task.


@pytest.fixture
def task() -> Regression:
    return Regression(["score"], ["pearson", "spearman"])


def test_the_loss_is_the_mean_squared_error(task: Regression) -> None:
    def model(**given: Any) -> Any:
        assert set(given) == {"input_ids"}
        return SimpleNamespace(logits=torch.tensor([[1.0], [2.5]], dtype=torch.bfloat16, requires_grad=True))

    batch = {"input_ids": torch.zeros(2, 3), "label": torch.tensor([3.0, 2.0])}
    found = task.loss(model, batch)  # type: ignore[arg-type]
    assert list(found) == ["squared_error"] and found["squared_error"].item() == pytest.approx((4 + 0.25) / 2)
    assert found["squared_error"].dtype == torch.float32


def test_scores_predictions_and_explained_variance(task: Regression, tmp_path: Path) -> None:
    records = records_of(tmp_path)
    (gold,) = task.gold(records, "test")
    rows = np.array([7, 2])
    assert task.gold(records, "test", rows)[0].tolist() == gold[rows].tolist()
    column = task.columns(records, None)["label"]
    assert column.dtype == np.float32 and column == pytest.approx(records.scores("train"))
    scores = (3 * gold[:, None] + 1).astype(np.float32)
    assert task.score(scores, gold) == {"pearson": pytest.approx(1), "spearman": pytest.approx(1)}
    assert task.main_score(-scores, gold) == pytest.approx(-1)
    assert task.measure(scores, records, "test") == task.score(scores, gold)
    explained = [task.diagnostics(one[:, None], records, "test") for one in (gold, np.full(len(gold), gold.mean()))]
    assert [one["explained_variance"] for one in explained] == pytest.approx([1, 0])
    assert task.diagnostics(scores, records, "test")["explained_variance"] < 0
    lines = list(task.predictions(scores, records, "test"))
    texts, score = next(generate("test"))
    assert len(lines) == 400 and lines[0] == {
        "row": 0,
        "gold": float(f"{score:.6g}"),
        "predicted": float(f"{3 * score + 1:.6g}"),
        "texts": texts,
    }


def test_a_tiny_model_learns_the_toy_scores(tmp_path: Path) -> None:
    words = ["method=finetune", "data=toy_scores", "train.epochs=3", "backbone.tiny.layers=1", "keep_model=true"]
    run, result = in_process([*words, "train.lr=3e-3"], tmp_path)
    assert list(result.metrics["test"]) == ["pearson", "spearman"]
    assert result.metrics["test"]["pearson"] > 0.9 and result.diagnostics["explained_variance"] > 0.8
    lines = [json.loads(line) for line in (run.folder / "predictions.jsonl").read_text().splitlines()]
    found = stats.pearsonr(*([line[name] for line in lines] for name in ("predicted", "gold")))[0]
    assert found == pytest.approx(result.metrics["test"]["pearson"], abs=1e-4)
    kept = json.loads((run.folder / "model" / "config.json").read_text())
    assert kept["problem_type"] == "regression" and kept["id2label"] == {"0": "score"}
