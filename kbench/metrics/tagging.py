"""Entity metrics by seqeval: an entity counts where its span and its type are exactly right. Values are shares.

conlleval's reading, seqeval's default: an I- tag that continues nothing begins an entity.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

METRICS = ("f1", "precision", "recall")


def entity_scores(predicted: Sequence[Sequence[str]], gold: Sequence[Sequence[str]]) -> dict[str, float]:
    """Micro-averaged precision, recall and F1 over all entities; 0 where there are none to count."""
    from seqeval.metrics import f1_score, precision_score, recall_score

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # seqeval warns of tags and of empty predictions
        found = [measure(gold, predicted, zero_division=0) for measure in (f1_score, precision_score, recall_score)]
    return {name: float(value) for name, value in zip(METRICS, found, strict=True)}
