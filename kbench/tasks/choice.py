"""Multiple choice: a context, some endings, one of them right; each pair is scored by itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from kbench.data.records import Records
from kbench.tasks.classification import Classification


class Choice(Classification):
    """Head, prediction and metrics of multiple choice; the outputs are the names of the choices."""

    @staticmethod
    def auto() -> Any:
        """The transformers class whose head this task trains: one score a pair."""
        from transformers import AutoModelForMultipleChoice

        return AutoModelForMultipleChoice

    def predictions(self, scores: np.ndarray, records: Records, split: str) -> Iterator[dict[str, Any]]:
        """One record a row, for a person to read and a paired test to use."""
        rows = records.pieces(split)
        for record, (context, *choices) in zip(super().predictions(scores, records, split), rows, strict=True):
            del record["text"]
            yield {**record, "context": context, "choices": dict(zip(self.outputs, choices, strict=True))}
