"""Entity typing: metrics against second implementations, head and loss, and runs whose predictions can be read."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, precision_score, recall_score

from kbench.backbones.load import load_model
from kbench.config.typing import TypingHead, TypingOptions
from kbench.metrics.typing import METRICS, typing_scores
from kbench.tasks.typing import Typing

from ..conftest import in_process, small_bert

LABELS = ["event", "person", "place"]


# Metrics.


def test_a_worked_example_with_a_row_of_which_nothing_is_said():
    gold = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 0], [0, 1, 0]], dtype=bool)
    predicted = np.array([[0, 0, 0], [0, 1, 0], [1, 0, 0], [0, 1, 1]], dtype=bool)
    # right 2; claimed 4; there 4: the empty first row misses one, the third, which has none, brings a false alarm
    assert typing_scores(predicted, gold) == {"f1": 2 / 4, "precision": 2 / 4, "recall": 2 / 4}
    # nothing said of the last row: claimed 2, right 1. Falling back to a best type would change all three
    predicted[3] = False
    assert typing_scores(predicted, gold) == pytest.approx({"f1": 2 / 6, "precision": 1 / 2, "recall": 1 / 4})


def test_nothing_said_or_nothing_there_is_0():
    none, some = np.zeros((2, 3), dtype=bool), np.eye(2, 3, dtype=bool)
    assert typing_scores(none, none) == typing_scores(none, some) == typing_scores(some, none)
    assert typing_scores(none, some) == dict.fromkeys(METRICS, 0.0)
    assert typing_scores(some, some) == dict.fromkeys(METRICS, 1.0)


@pytest.mark.parametrize("seed", range(5))
def test_metrics_equal_those_of_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    gold, predicted = rng.random((80, 9)) < 0.15, rng.random((80, 9)) < 0.2
    gold[:10], predicted[5:15] = False, False
    second = {
        name: float(measure(gold, predicted, average="micro"))
        for name, measure in zip(METRICS, (f1_score, precision_score, recall_score), strict=True)
    }
    assert typing_scores(predicted, gold) == pytest.approx(second)


# Head, loss and scores.


def task(metrics: tuple[str, ...] = METRICS) -> Typing:
    return Typing(LABELS, metrics, TypingOptions(TypingHead.cls, "@", 0.3))


def records(gold: np.ndarray) -> Any:
    return SimpleNamespace(
        several=lambda split, labels: {"train": gold, "test": gold}[split],
        numbers=lambda split: np.arange(len(gold)),
        texts=lambda split: [f"<e1> {row} </e1>" for row in range(len(gold))],
    )


def test_the_loss_is_the_mean_over_rows_and_types_at_the_token_that_is_read(tmp_path):
    of = task()
    model: Any = load_model(small_bert(tmp_path, ["a"]), of.auto(), classes=3, seed=1)
    of.adapt(model, None)
    assert model.dropout.p == 0.3 and model.config.classifier_dropout == 0.3
    gold = torch.tensor([[True, False, True], [False, False, False]])
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 100, (2, 4), generator=generator)
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "units": torch.tensor([2, 5]), "label": gold}
    model.eval()
    with torch.no_grad():
        (name, found), *more = of.loss(model, given).items()
        logits = torch.stack([model(ids).logits[0, 2], model(ids).logits[1, 1]])
    shares = 1 / (1 + torch.exp(-logits.double()))
    expected = -torch.where(gold, shares, 1 - shares).log().sum() / 6
    assert name == "binary_cross_entropy" and not more and float(found) == pytest.approx(float(expected), rel=1e-5)


def test_a_type_is_predicted_above_0_and_nothing_where_none_is():
    gold = np.array([[1, 0, 0], [0, 0, 0], [0, 1, 1]], dtype=bool)
    scores = np.array([[2.0, 0.0, -1], [-1, -2, -3], [0.1, 3.14159265, -0.1]])
    of, given = task(("precision", "f1")), records(gold)
    found = of.score(scores, *of.gold(given, "test"))
    assert list(found) == ["precision", "f1"] and found == pytest.approx({"precision": 2 / 3, "f1": 4 / 6})
    assert of.main_score(scores, *of.gold(given, "test")) == pytest.approx(2 / 3)
    assert of.main_score(scores[2:], *of.gold(given, "test", np.array([2]))) == pytest.approx(1 / 2)
    assert of.columns(given, None)["label"] is gold
    rows = list(of.predictions(scores, given, "test"))
    assert [(row["gold"], row["predicted"]) for row in rows] == [
        (["event"], ["event"]), ([], []), (["person", "place"], ["event", "person"]),
    ]  # fmt: skip
    assert rows[2] == {"row": 2, "gold": ["person", "place"], "predicted": ["event", "person"],
                       "scores": [0.1, 3.14159, -0.1], "text": "<e1> 2 </e1>"}  # fmt: skip
    assert of.diagnostics(scores, given, "test") == pytest.approx({"predicted_empty": 1 / 3, "gold_empty": 1 / 3})


# Runs.


def predictions(run: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.folder / "predictions.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("head", "epochs", "rows"), [("cls", 1, 96), ("marker_start", 4, 1600)])
def test_a_run_learns_and_says_what_it_predicts(head: str, epochs: int, rows: int, tmp_path: Path) -> None:
    words = ["method=finetune", "data=toy_typing", f"data.train_size={rows}", "data.test_size=48"]
    words += [f"train.epochs={epochs}", "train.lr=3e-3", "train.eval_every=1000", "backbone.tiny.layers=1"]
    run, result = in_process([*words, f"data.typing.head={head}", "keep_scores=[test]"], tmp_path)
    assert result.metrics["test"]["f1"] > 0.6 or rows == 96
    told = predictions(run)
    gold, ours = (np.array([[name in row[which] for name in run.config.data.labels] for row in told])
                  for which in ("gold", "predicted"))  # fmt: skip
    assert result.metrics["test"] == typing_scores(ours, gold)
    assert (ours == (np.load(run.scores("test")) > 0)).all()
    assert result.diagnostics["gold_empty"] == np.mean([not row["gold"] for row in told]) > 0
    assert all(row["text"].count("<e1>") == 1 for row in told)


def test_open_entity_runs_on_the_real_files(real_data: Path, tmp_path: Path) -> None:
    words = ["method=finetune", "data=openentity", "backbone=tiny", "train=quick", "train.max_steps=2"]
    words += ["data.train_size=40", "data.validation_size=20", "data.test_size=50"]
    run, result = in_process([*words, f"data.path={real_data / 'openentity'}"], tmp_path)
    assert result.setting.rows == {"train": 40, "validation": 20, "test": 50}
    assert run.config.data.complete().test == 1998
    rows = predictions(run)
    assert len(rows) == 50 and {name for row in rows for name in row["gold"]} <= set(run.config.data.labels)
