"""Parts of speech: each word of a sentence has one tag of a closed list; words are what is scored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from kbench.data.records import Records
from kbench.metrics.classification import METRICS
from kbench.metrics.tagging import entity_scores
from kbench.tasks.classification import Classification

_CUT_OFF = "_"  # UD's sign for nothing


class Pos(Classification):
    """Head, prediction and metrics of part-of-speech tagging.

    A word that was cut off has no scores, so it has no tag and counts as wrong.
    """

    @staticmethod
    def auto() -> Any:
        """The transformers class whose head this task trains."""
        from transformers import AutoModelForTokenClassification

        return AutoModelForTokenClassification

    def score(self, scores: np.ndarray, gold: np.ndarray, ends: np.ndarray) -> dict[str, float]:
        """Metrics of scores [words, tags] against gold tags [words]; sentences end at `ends`."""
        return {name: self._measure(name, scores, gold, ends) for name in self.metrics}

    def main_score(self, scores: np.ndarray, gold: np.ndarray, ends: np.ndarray) -> float:
        """The metric that selects weights."""
        return self._measure(self.metrics[0], scores, gold, ends)

    def predictions(self, scores: np.ndarray, records: Records, split: str) -> Iterator[dict[str, Any]]:
        """One record a sentence, for a person to read and a paired test to use; `_` for a word that was cut off."""
        ends = records.ends(split)
        predicted, gold = self._tags(self.decided(scores), ends), self._tags(records.labels(split), ends)
        numbers, words = records.numbers(split), records.pieces(split)
        for number, of_gold, of_ours, sentence in zip(numbers, gold, predicted, words, strict=True):
            yield {"row": int(number), "gold": of_gold, "predicted": of_ours, "words": sentence}

    @staticmethod
    def decided(scores: np.ndarray) -> np.ndarray:
        """The best tag of each word [words]; -1 where it was cut off."""
        found: np.ndarray = np.where(scores.any(axis=1), scores.argmax(axis=1), -1)
        return found

    def _measure(self, name: str, scores: np.ndarray, gold: np.ndarray, ends: np.ndarray) -> float:
        predicted = self.decided(scores)
        if name == "f1":  # as XTREME has it: neighbours with one tag are a span, spans are scored by seqeval
            return entity_scores(self._tags(predicted, ends), self._tags(gold, ends))["f1"]
        return METRICS[name](predicted, gold, len(self.outputs))

    def _tags(self, labels: np.ndarray, ends: np.ndarray) -> list[list[str]]:
        names = [self.outputs[label] if label >= 0 else _CUT_OFF for label in labels]
        return [names[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
