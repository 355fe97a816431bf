"""What a task is: head, targets, loss, prediction and metrics; every task of one layout of rows shares the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from kbench.data.records import Records
from kbench.data.units import unit_counts, units_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kbench.data.encode import Encoded
    from kbench.engine.feed import Feed
    from kbench.engine.recipe import Precision
    from kbench.engine.runtime import Runtime


class Task:
    """Base of all tasks.

    Args:
        outputs: names of what a model's head tells apart, in order.
        metrics: names of metrics, the main one first.
        options: those of the task, where it has some (`Data.options`).
    """

    # whether a model is fine-tuned for it; a probe is answered by the pre-trained model itself
    trained: ClassVar[bool] = True
    # tokens of a row that a head reads together; the model has so many times the outputs (kbench/tasks/heads.py)
    reads: int = 1

    def __init__(self, outputs: Sequence[str], metrics: Sequence[str], options: Any = None):
        self.outputs = list(outputs)
        self.metrics = list(metrics)
        self.options = options

    @staticmethod
    def auto() -> Any:
        """The transformers class whose head this task trains."""
        raise NotImplementedError  # abstract

    def adapt(self, model: nn.Module, tokenizer: Any) -> None:
        """Change a model that was just loaded, before anything is trained: nothing, for most tasks."""

    def columns(self, records: Records, encoded: Encoded) -> dict[str, np.ndarray]:
        """The training targets, one line for each unit that the model reads."""
        return {"label": records.labels("train")}

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The terms of the loss of fine-tuning, each a mean over the batch's units: cross entropy with the label."""
        from torch.nn.functional import cross_entropy

        from kbench.engine.feed import inputs, unit_logits

        logits = model(**inputs(batch)).logits
        return {"cross_entropy": cross_entropy(unit_logits(logits.float(), batch), batch["label"])}

    def predict(
        self, model: nn.Module, feed: Feed, runtime: Runtime, precision: Precision, *, may_stop: bool = True
    ) -> np.ndarray:
        """What a trained model says of each unit of a feed: its logits [units, outputs], for most tasks."""
        from kbench.engine.predict import predict

        return predict(model, feed, runtime, precision, may_stop=may_stop)

    def gold(self, records: Records, split: str, rows: np.ndarray | None = None) -> tuple[Any, ...]:
        """What `score` compares with: labels of the units of some rows, and where each of these rows ends."""
        labels, ends = records.labels(split), records.ends(split)
        if rows is None:
            return labels, ends
        return labels[units_of(ends, rows)], np.cumsum(unit_counts(ends, rows))

    def score(self, scores: np.ndarray, *gold: Any) -> dict[str, float]:
        """All metrics, shares from 0 to 1, of what `predict` gave against what `gold` gives."""
        raise NotImplementedError  # abstract

    def main_score(self, scores: np.ndarray, *gold: Any) -> float:
        """The metric that selects weights."""
        return self.score(scores, *gold)[self.metrics[0]]

    def measure(self, scores: np.ndarray, records: Records, split: str) -> dict[str, float]:
        """All metrics of a split; where it has several languages, of each (`accuracy/de`), and their mean."""
        groups = records.groups(split)
        if not groups:
            return self.score(scores, *self.gold(records, split))
        ends = records.ends(split)
        by_lang = {
            lang: self.score(scores[units_of(ends, rows)], *self.gold(records, split, rows))
            for lang, rows in groups.items()
        }
        names = next(iter(by_lang.values()))
        found = {name: sum(one[name] for one in by_lang.values()) / len(by_lang) for name in names}
        return found | {f"{name}/{lang}": value for lang, one in by_lang.items() for name, value in one.items()}

    def predictions(self, scores: np.ndarray, records: Records, split: str) -> Iterator[dict[str, Any]]:
        """One record a row, for a person to read and a paired test to use."""
        raise NotImplementedError  # abstract

    def diagnostics(self, scores: np.ndarray, records: Records, split: str) -> dict[str, float]:
        """Figures that explain the result, stored beside the metrics."""
        return {}
