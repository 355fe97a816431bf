"""Regression: two texts, one score on a scale, such as how close they are in meaning.

The head is transformers' for sequences, with one output, which is the score as the files give it: STS-B's goes from 0
to 5. (fairseq's script divides it by 5 and transformers' does not; no correlation sees the difference.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from kbench.data.records import Records
from kbench.metrics.regression import METRICS
from kbench.tasks.base import Task

if TYPE_CHECKING:
    from torch import Tensor, nn


class Regression(Task):
    """Head, loss, prediction and metrics of regression; the one output is the score."""

    @staticmethod
    def auto() -> Any:
        """The transformers class whose head this task trains."""
        from transformers import AutoModelForSequenceClassification

        return AutoModelForSequenceClassification

    def adapt(self, model: Any, tokenizer: Any) -> None:
        """Say in the model's configuration that its one output is a score."""
        model.config.problem_type = "regression"

    def columns(self, records: Records, encoded: Any) -> dict[str, np.ndarray]:
        """`label`: the score of each training row [rows], float32."""
        return {"label": records.scores("train").astype(np.float32)}

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`squared_error`, the mean over the batch's rows."""
        from torch.nn.functional import mse_loss

        from kbench.engine.feed import inputs

        return {"squared_error": mse_loss(model(**inputs(batch)).logits.float()[:, 0], batch["label"])}

    def gold(self, records: Records, split: str, rows: np.ndarray | None = None) -> tuple[np.ndarray]:
        """The scores of some rows [rows], float64."""
        found = records.scores(split)
        return (found if rows is None else found[rows],)

    def score(self, scores: np.ndarray, *gold: np.ndarray) -> dict[str, float]:
        """Metrics of predicted scores [rows, 1] against those of the files [rows]: correlations, from -1 to 1."""
        return {name: METRICS[name](scores[:, 0], *gold) for name in self.metrics}

    def predictions(self, scores: np.ndarray, records: Records, split: str) -> Iterator[dict[str, Any]]:
        """One record a row, for a person to read and a paired test to use; scores to six significant digits."""
        numbers, texts = records.numbers(split), records.pieces(split)
        for row, (number, gold, both) in enumerate(zip(numbers, records.scores(split), texts, strict=True)):
            yield {
                "row": int(number),
                "gold": float(f"{gold:.6g}"),
                "predicted": float(f"{scores[row, 0]:.6g}"),
                "texts": both,
            }

    def diagnostics(self, scores: np.ndarray, records: Records, split: str) -> dict[str, float]:
        """`explained_variance`, 1 - mean squared error / variance of the files' scores: what no correlation tells.

        0 where the mean is always predicted, below 0 where that would be better; 0 where all files' scores are equal.
        """
        (gold,) = self.gold(records, split)
        spread = float(np.var(gold))
        return {"explained_variance": 1 - float(np.mean((scores[:, 0] - gold) ** 2)) / spread if spread else 0.0}
