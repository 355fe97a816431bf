"""kbench's metrics as `evaluate.Metric` objects, for users of that library. Needs no network; importing costs 5 s."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate
import numpy as np

from kbench.metrics.classification import METRICS


class ClassificationMetric(evaluate.Metric):
    """One of `kbench.metrics.classification` behind evaluate's `add_batch` and `compute`.

    `ClassificationMetric("accuracy")`; `compute` takes `classes` where it cannot be read from the references.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=f"kbench's {self.config_name}",
            citation="",
            features=datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}),
        )

    def _compute(self, predictions: Any, references: Any, classes: int | None = None) -> dict[str, float]:
        predicted, gold = np.asarray(predictions), np.asarray(references)
        classes = classes or int(max(predicted.max(), gold.max())) + 1
        return {self.config_name: METRICS[self.config_name](predicted, gold, classes)}
