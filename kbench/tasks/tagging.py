"""Tagging: each word of a sentence has a tag, O or B- or I- of an entity type (IOB2); entities are what is scored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from kbench.data.records import Records
from kbench.metrics.tagging import METRICS, entity_scores
from kbench.tasks.base import Task


class Tagging(Task):
    """Head, prediction and metrics of tagging; the outputs are the tags, O first, as `Data.outputs` gives them."""

    # O is what a teacher says of every entity it does not know
    shared: int | None = 0

    @staticmethod
    def auto() -> Any:
        """The transformers class whose head this task trains."""
        from transformers import AutoModelForTokenClassification

        return AutoModelForTokenClassification

    def known(self, labels: Sequence[int]) -> list[int]:
        """The outputs of a model that knows some entity types: O and their tags."""
        return [0, *(1 + 2 * label + part for label in labels for part in (0, 1))]

    def local(self, columns: Sequence[int]) -> np.ndarray:
        """Output of such a model for each tag of the data set [outputs]; entities it does not know are O."""
        found = np.full(len(self.outputs), list(columns).index(0), dtype=np.int64)
        found[list(columns)] = np.arange(len(columns))
        return found

    def score(self, scores: np.ndarray, gold: np.ndarray, ends: np.ndarray) -> dict[str, float]:
        """Metrics of scores [words, tags] against gold tags [words]; sentences end at `ends`."""
        found = entity_scores(self._tags(scores.argmax(1), ends), self._tags(gold, ends))
        return {name: found[name] for name in self.metrics if name in METRICS}

    def predictions(self, scores: np.ndarray, records: Records, split: str) -> Iterator[dict[str, Any]]:
        """One record a sentence, for a person to read and a paired test to use."""
        ends = records.ends(split)
        predicted, gold = self._tags(scores.argmax(1), ends), self._tags(records.labels(split), ends)
        numbers, words = records.numbers(split), records.pieces(split)
        for number, of_gold, of_ours, sentence in zip(numbers, gold, predicted, words, strict=True):
            yield {"row": int(number), "gold": of_gold, "predicted": of_ours, "words": sentence}

    def _tags(self, labels: np.ndarray, ends: np.ndarray) -> list[list[str]]:
        names = [self.outputs[label] for label in labels]
        return [names[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
