"""Metrics of a probe for facts as plain functions: no network, no state. Values are shares, 0 to 1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

FACTS = ("accuracy", "micro", "single", "multi")
# LAMA's corpora, and what begins the name of the same over facts that are not easy to guess
CORPORA = ("google_re", "t_rex", "squad")
UHN = "uhn_"
METRICS = (*FACTS, *CORPORA, "uhn_google_re", "uhn_t_rex")
# LAMA's names of relations that are not of T-REx, whose are Wikidata's
GOOGLE_RE = ("place_of_birth", "date_of_birth", "place_of_death")
SQUAD = "squad"


def fact_scores(
    correct: np.ndarray, relation: np.ndarray, used: np.ndarray, single: np.ndarray, relations: int
) -> dict[str, float]:
    """All metrics of the facts that are used (X-FACTR's evaluation; KMLM, table 4).

    `accuracy` is the mean, over the relations that have facts, of the share of right answers; `micro` the share among
    all facts; `single` and `multi` are as `accuracy`, of the facts whose gold label is one token of the model and of
    the others. The benchmark's script counts a relation without such facts as 0, here it is left out. 0 where there are
    no facts at all.

    Args:
        correct, used, single: of each fact [facts], bool.
        relation: its index [facts].
        relations: number of relations.
    """
    return {
        "accuracy": _macro(correct, relation, used, relations),
        "micro": float(correct[used].mean()) if used.any() else 0.0,
        "single": _macro(correct, relation, used & single, relations),
        "multi": _macro(correct, relation, used & ~single, relations),
    }


def corpus_of(relation: str) -> str:
    """The corpus of LAMA that a relation belongs to."""
    return "google_re" if relation in GOOGLE_RE else "squad" if relation == SQUAD else "t_rex"


def lama_scores(
    correct: np.ndarray, relation: np.ndarray, used: np.ndarray, easy: np.ndarray, relations: Sequence[str]
) -> dict[str, float]:
    """Precision at 1 of LAMA's corpora (Petroni et al. 2019), and of LAMA-UHN (Poerner et al. 2020).

    Of each corpus the mean, over its relations that have facts, of the share of right answers; `uhn_` over the facts
    that are not easy. A corpus of which no fact is used has no value.

    Args:
        correct, used: of each fact [facts], bool.
        relation: its index [facts].
        easy: whether it can be guessed from the subject's name [facts], bool.
        relations: their names, in the order of the indices.
    """
    corpus = np.array([corpus_of(name) for name in relations])[relation]
    found = {}
    for name in CORPORA:
        for begin, left in (("", used), (UHN, used & ~easy)):
            chosen = left & (corpus == name)
            if begin + name in METRICS and chosen.any():
                found[begin + name] = _macro(correct, relation, chosen, len(relations))
    return found


def _macro(correct: np.ndarray, relation: np.ndarray, chosen: np.ndarray, relations: int) -> float:
    """Mean over the relations that have chosen facts of the share of right ones."""
    there = np.bincount(relation[chosen], minlength=relations)
    right = np.bincount(relation[chosen & correct], minlength=relations)
    return float((right[there > 0] / there[there > 0]).mean()) if there.any() else 0.0
