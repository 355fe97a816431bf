"""Classification: one text, one label of a closed list."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from kbench.metrics.classification import METRICS


class Classification:
    """Head, prediction and metrics of classification.

    Args:
        labels: label names in order.
        metrics: names of metrics, the main one first.
    """

    def __init__(self, labels: Sequence[str], metrics: Sequence[str]):
        self.labels = list(labels)
        self.metrics = list(metrics)

    @staticmethod
    def auto() -> Any:
        """The transformers class whose head this task trains."""
        from transformers import AutoModelForSequenceClassification

        return AutoModelForSequenceClassification

    def score(self, scores: np.ndarray, gold: np.ndarray) -> dict[str, float]:
        """Metrics of scores [rows, classes] against gold labels [rows]."""
        predicted = scores.argmax(axis=1)
        return {name: METRICS[name](predicted, gold, len(self.labels)) for name in self.metrics}

    def main_score(self, scores: np.ndarray, gold: np.ndarray) -> float:
        """The metric that selects weights."""
        return METRICS[self.metrics[0]](scores.argmax(axis=1), gold, len(self.labels))

    def predictions(
        self, scores: np.ndarray, gold: np.ndarray, numbers: np.ndarray, texts: Sequence[str]
    ) -> Iterator[dict[str, Any]]:
        """One record a row, for a person to read and a paired test to use; scores to six significant digits."""
        for row, number, text in zip(range(len(scores)), numbers, texts, strict=True):
            yield {
                "row": int(number),
                "gold": self.labels[int(gold[row])],
                "predicted": self.labels[int(scores[row].argmax())],
                "scores": [float(f"{value:.6g}") for value in scores[row]],
                "text": text,
            }
