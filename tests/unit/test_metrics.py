"""Metrics against scikit-learn and worked examples; the same numbers behind `evaluate.Metric`, without a network."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from kbench.metrics.classification import METRICS, accuracy, f1, macro_f1, matthews


def sklearn_macro_f1(predicted: np.ndarray, gold: np.ndarray, classes: int) -> float:
    return f1_score(gold, predicted, labels=range(classes), average="macro", zero_division=0)


def sklearn_accuracy(predicted: np.ndarray, gold: np.ndarray, classes: int) -> float:
    return accuracy_score(gold, predicted)


def sklearn_matthews(predicted: np.ndarray, gold: np.ndarray, classes: int) -> float:
    return matthews_corrcoef(gold, predicted)


def sklearn_f1(predicted: np.ndarray, gold: np.ndarray, classes: int) -> float:
    return f1_score(gold, predicted, labels=[1], average="macro", zero_division=0)


SECOND = {
    "accuracy": sklearn_accuracy, "macro_f1": sklearn_macro_f1, "matthews": sklearn_matthews, "f1": sklearn_f1,
}  # fmt: skip


@pytest.mark.parametrize(
    ("predicted", "gold", "classes", "share", "f1"),
    [
        ([0, 1, 2], [0, 1, 2], 3, 1.0, 1.0),
        ([1, 0], [0, 1], 2, 0.0, 0.0),
        # class 0: tp 1, fp 0, fn 1: 2/3; class 1: tp 1, fp 1, fn 0: 2/3
        ([0, 1, 1], [0, 1, 0], 2, 2 / 3, 2 / 3),
        # the same, and a class 2 that is neither predicted nor present: (2/3 + 2/3 + 0) / 3
        ([0, 1, 1], [0, 1, 0], 3, 2 / 3, 4 / 9),
        # one class predicted for all: tp 3, fp 1, fn 0: 6/7; the other: 0
        ([0, 0, 0, 0], [0, 0, 0, 1], 2, 0.75, 3 / 7),
        # class 0: tp 2, fn 1: 4/5; class 1: tp 1, fp 1, fn 1: 1/2; class 2: tp 1, fp 1: 2/3
        ([0, 0, 1, 1, 2, 2], [0, 0, 0, 1, 1, 2], 3, 4 / 6, (4 / 5 + 1 / 2 + 2 / 3) / 3),
    ],
)
def test_metrics_of_worked_examples(
    predicted: list[int], gold: list[int], classes: int, share: float, f1: float
) -> None:
    arrays = np.array(predicted), np.array(gold)
    assert accuracy(*arrays, classes) == pytest.approx(share)
    assert macro_f1(*arrays, classes) == pytest.approx(f1)


def test_matthews_and_f1_of_worked_examples() -> None:
    # tp 2, tn 1, fp 1, fn 1: (2 x 1 - 1 x 1) / sqrt(3 x 3 x 2 x 2)
    predicted, gold = np.array([1, 1, 1, 0, 0]), np.array([1, 1, 0, 1, 0])
    assert matthews(predicted, gold, 2) == pytest.approx(1 / 6)
    assert matthews(1 - predicted, gold, 2) == pytest.approx(-1 / 6)
    assert f1(predicted, gold, 2) == pytest.approx(4 / 6) and f1(predicted, gold, 2, positive=0) == pytest.approx(2 / 4)
    # all of one class, predicted or present: no correlation
    assert matthews(np.ones(5, dtype=int), gold, 2) == matthews(predicted, np.ones(5, dtype=int), 2) == 0.0
    assert f1(np.zeros(5, dtype=int), np.zeros(5, dtype=int), 2) == 0.0
    # none predicted is a class of its own, as scikit-learn has it
    some = np.array([1, -1, 1, 0, -1])
    assert matthews(some, gold, 2) == pytest.approx(matthews_corrcoef(gold, some))


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize(("classes", "used"), [(2, 2), (4, 4), (10, 10), (10, 6), (6, 1)])
@pytest.mark.parametrize("name", sorted(METRICS))
def test_metrics_equal_scikit_learn(name: str, classes: int, used: int, dtype: type) -> None:
    rng = np.random.default_rng(classes + used)
    for rows in (1, 7, 500):
        gold = rng.integers(0, used, rows).astype(dtype)
        predicted = np.where(rng.random(rows) < 0.6, gold, rng.integers(0, classes, rows)).astype(dtype)
        found = METRICS[name](predicted, gold, classes)
        assert isinstance(found, float)
        assert found == pytest.approx(SECOND[name](predicted, gold, classes), abs=1e-12)


def test_every_metric_has_a_second_implementation() -> None:
    assert set(METRICS) == set(SECOND)


def test_metrics_need_neither_evaluate_nor_datasets() -> None:
    program = (
        "import sys, kbench.metrics.classification as found\n"
        "assert found.METRICS\n"
        "print(*sorted({'evaluate', 'datasets', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every attempt to reach another machine fails the test."""

    def refuse(*args: object, **options: object) -> None:
        raise AssertionError(f"asked the network: {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def metric(offline: None, tmp_path: Path) -> Callable:
    """Makes the metric of a name, as users of evaluate would."""
    from kbench.metrics.adapter import ClassificationMetric

    return lambda name: ClassificationMetric(name, cache_dir=str(tmp_path))


@pytest.mark.parametrize("name", sorted(METRICS))
def test_the_adapter_gives_the_same_numbers(name: str, metric: Callable) -> None:
    rng = np.random.default_rng(0)
    gold, predicted = rng.integers(0, 5, 200), rng.integers(0, 5, 200)
    found = metric(name).compute(predictions=predicted, references=gold)
    assert found == {name: pytest.approx(METRICS[name](predicted, gold, 5), abs=1e-12)}


@pytest.mark.parametrize("name", sorted(METRICS))
def test_the_adapter_collects_batches_and_starts_afresh(name: str, metric: Callable) -> None:
    rng = np.random.default_rng(1)
    gold, predicted = rng.integers(0, 4, 90), rng.integers(0, 4, 90)
    one = metric(name)
    for rows in np.split(np.arange(90), [32, 64]):
        one.add_batch(predictions=predicted[rows], references=gold[rows])
    assert one.compute()[name] == pytest.approx(SECOND[name](predicted, gold, 4), abs=1e-12)
    assert one.compute(predictions=[0, 1], references=[0, 1]) == {name: 1.0}


def test_the_adapter_takes_the_number_of_classes(metric: Callable) -> None:
    rows = {"predictions": [0, 1, 1], "references": [0, 1, 0]}
    assert metric("macro_f1").compute(**rows) == {"macro_f1": pytest.approx(2 / 3)}
    assert metric("macro_f1").compute(**rows, classes=3) == {"macro_f1": pytest.approx(4 / 9)}


def test_the_adapter_counts_a_class_that_is_predicted_only(metric: Callable) -> None:
    # class 0: tp 1, fn 1: 2/3; class 1: nothing: 0; class 2: fp 1: 0
    assert metric("macro_f1").compute(predictions=[0, 2], references=[0, 0]) == {"macro_f1": pytest.approx(2 / 9)}
