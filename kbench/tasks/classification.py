"""Classification: one text, one label of a closed list."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from kbench.data.records import Records
from kbench.metrics.classification import METRICS
from kbench.tasks.base import Task


class Classification(Task):
    """Head, prediction and metrics of classification; the outputs are the labels."""

    # no class is known to every teacher
    shared: int | None = None

    @staticmethod
    def auto() -> Any:
        """The transformers class whose head this task trains."""
        from transformers import AutoModelForSequenceClassification

        return AutoModelForSequenceClassification

    def known(self, labels: Sequence[int]) -> list[int]:
        """The outputs of a model that knows some labels: these."""
        return list(labels)

    def local(self, columns: Sequence[int]) -> np.ndarray:
        """Output of such a model for each label of the data set [outputs]; -1 where it has none."""
        found = np.full(len(self.outputs), -1, dtype=np.int64)
        found[list(columns)] = np.arange(len(columns))
        return found

    def score(self, scores: np.ndarray, gold: np.ndarray, ends: np.ndarray) -> dict[str, float]:
        """Metrics of scores [rows, classes] against gold labels [rows]; every row ends after one label."""
        predicted = scores.argmax(axis=1)
        return {name: METRICS[name](predicted, gold, len(self.outputs)) for name in self.metrics}

    def main_score(self, scores: np.ndarray, gold: np.ndarray, ends: np.ndarray) -> float:
        """The metric that selects weights."""
        return METRICS[self.metrics[0]](scores.argmax(axis=1), gold, len(self.outputs))

    def predictions(self, scores: np.ndarray, records: Records, split: str) -> Iterator[dict[str, Any]]:
        """One record a row, for a person to read and a paired test to use; scores to six significant digits."""
        gold, numbers, texts = records.labels(split), records.numbers(split), records.texts(split)
        for row, number, text in zip(range(len(scores)), numbers, texts, strict=True):
            yield {
                "row": int(number),
                "gold": self.outputs[int(gold[row])],
                "predicted": self.outputs[int(scores[row].argmax())],
                "scores": [float(f"{value:.6g}") for value in scores[row]],
                "text": text,
            }
