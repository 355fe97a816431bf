"""Entity typing: a text with one marked mention, and which of some types it has: none, one or several.

The head is dropout and a linear layer on the last hidden state of one token, the first or the mark before the mention,
with one output a type. That is transformers' token classification, read at that token only. A type is predicted where
its output is above 0; nothing is predicted where none is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from kbench.data.records import Records
from kbench.metrics.typing import typing_scores
from kbench.tasks.base import Task
from kbench.tasks.heads import give_dropout

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kbench.config.typing import TypingOptions


class Typing(Task):
    """Head, loss, prediction and metrics of entity typing; the outputs are the types."""

    options: TypingOptions

    @staticmethod
    def auto() -> Any:
        """The transformers class whose head this task trains."""
        from transformers import AutoModelForTokenClassification

        return AutoModelForTokenClassification

    def adapt(self, model: Any, tokenizer: Any) -> None:
        """Give the head of a model that was just loaded its dropout.

        Raises:
            BackboneError: the model's head has no dropout that kbench knows.
        """
        give_dropout(model, self.options.head_dropout)

    def columns(self, records: Records, encoded: Any) -> dict[str, np.ndarray]:
        """`label`: whether each training row has each type [rows, types], bool."""
        return {"label": records.several("train", len(self.outputs))}

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`binary_cross_entropy` of each type being there, the mean over the batch's rows and the types."""
        from torch.nn.functional import binary_cross_entropy_with_logits

        from kbench.engine.feed import inputs, unit_logits

        logits = unit_logits(model(**inputs(batch)).logits.float(), batch)
        return {"binary_cross_entropy": binary_cross_entropy_with_logits(logits, batch["label"].float())}

    def gold(self, records: Records, split: str, rows: np.ndarray | None = None) -> tuple[np.ndarray]:
        """Whether some rows have each type [rows, types], bool."""
        found = records.several(split, len(self.outputs))
        return (found if rows is None else found[rows],)

    def score(self, scores: np.ndarray, *gold: np.ndarray) -> dict[str, float]:
        """Metrics of scores [rows, types] against the gold types [rows, types]."""
        found = typing_scores(scores > 0, *gold)
        return {name: found[name] for name in self.metrics}

    def predictions(self, scores: np.ndarray, records: Records, split: str) -> Iterator[dict[str, Any]]:
        """One record a row, for a person to read and a paired test to use; scores to six significant digits."""
        (gold,) = self.gold(records, split)
        numbers, texts = records.numbers(split), records.texts(split)
        for row, number, text in zip(range(len(scores)), numbers, texts, strict=True):
            yield {
                "row": int(number),
                "gold": self._names(gold[row]),
                "predicted": self._names(scores[row] > 0),
                "scores": [float(f"{value:.6g}") for value in scores[row]],
                "text": text,
            }

    def diagnostics(self, scores: np.ndarray, records: Records, split: str) -> dict[str, float]:
        """Share of the rows of which nothing is predicted, and of those that have no type."""
        (gold,) = self.gold(records, split)
        rows = max(1, len(gold))
        empty = {"predicted_empty": ~(scores > 0).any(axis=1), "gold_empty": ~gold.any(axis=1)}
        return {name: float(found.sum() / rows) for name, found in empty.items()}

    def _names(self, chosen: np.ndarray) -> list[str]:
        return [self.outputs[index] for index in np.flatnonzero(chosen)]
