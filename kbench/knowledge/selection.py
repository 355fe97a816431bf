"""Which mentions of a sentence are important, and whose contexts are remembered.

    SI(e)  = 1 / cos(h_o, h_rep)                                    TRELM (arXiv 2403.11203), equation 1
    KLT(e) = 1[Freq(e) < R_freq] * cos(h_o, h_rep) * KC(e)          DKPLM (Zhang et al. 2022)
    KC(e)  = log(1 + degree(e)),   R_freq = mean of Freq over the entities that occur      not stated; ours

h_o is the vector of the text, h_rep of the text without the mention (`kbench.knowledge.importance`). TRELM calls SI a
similarity and takes high values, but prints its inverse: a mention matters where the text moves without it. In KLT a
mention matters where the value is *low*, so there the plain cosine stands.

All of it is within a sentence or of an entity alone, so that it may be asked for a batch at a time, given the batch
holds whole sentences. Mentions of entities that the graph does not know, -1, are never selected and count in no mean.
"""

from __future__ import annotations

import numpy as np

SCORES = ("inverse_cosine", "one_minus_cosine")
RULES = ("si_above_mean", "si_top_k", "klt", "long_tail", "high_frequency", "all", "none")
MEMBERS = ("important", "important+long_tail", "all")

_SMALLEST = 1e-6


def si(cosine: np.ndarray, score: str = "inverse_cosine") -> np.ndarray:
    """The semantic importance of mentions, float32 [M]: 1 of one without which nothing changes, or 0.

    Args:
        cosine: of the text's vectors with and without each mention [M].
        score: inverse_cosine, 1 / cos as printed, 10^6 where cos is no greater than 10^-6; or one_minus_cosine.

    Raises:
        ValueError: there is no such score.
    """
    if score not in SCORES:
        raise ValueError(f"no such score: {score}")
    exact = np.asarray(cosine, dtype=np.float64)
    found = 1 / np.maximum(exact, _SMALLEST) if score == "inverse_cosine" else 1 - exact
    return found.astype(np.float32)


def mean_frequency(frequency: np.ndarray) -> float:
    """R_freq, the mean count of the entities that occur at all; 0 where none does.

    Args:
        frequency: mentions of each entity of the graph in the corpus [n].
    """
    there = int(np.count_nonzero(frequency))
    return float(np.sum(frequency, dtype=np.float64)) / there if there else 0.0


def select(
    rule: str,
    cosine: np.ndarray,
    sentence: np.ndarray,
    entity: np.ndarray,
    frequency: np.ndarray,
    degree: np.ndarray,
    k: int = 1,
    *,
    score: str = "inverse_cosine",
    edge: float | None = None,
) -> np.ndarray:
    """The important mentions, bool [M].

    Args:
        rule: si_above_mean: SI is at least the mean of the sentence (DKPLM's average, in TRELM's direction);
            si_top_k: the k highest of the sentence, of equal ones the earlier; klt: of the mentions whose entity is
            rarer than the mean, those whose KLT is not above the sentence's mean over them; long_tail: entities rarer
            than the mean; high_frequency: the others; all; none. The indicator in KLT makes frequent entities 0,
            which is also "below average", hence the mean over the rare ones alone; a sentence's only rare mention is
            its own mean, and is one of them.
        cosine: of the text's vectors with and without each mention [M]; not read by rules that need none.
        sentence: number of each mention's sentence [M].
        entity: index of its entity in the graph, -1: unknown to it [M].
        frequency: mentions of each entity in the corpus [n].
        degree: how well each entity is connected [n]: its triples, or the entities around it; read by klt alone.
        k: of si_top_k.
        score: as of `si`.
        edge: R_freq where the caller has it; None: `mean_frequency` of `frequency`.

    Raises:
        ValueError: there is no such rule, or a linked mention lacks a cosine that is needed.
    """
    if rule not in RULES:
        raise ValueError(f"no such rule: {rule}")
    known = np.asarray(entity) >= 0
    if rule in ("all", "none"):
        return known if rule == "all" else np.zeros_like(known)
    if rule in ("long_tail", "high_frequency", "klt"):
        tail = rare(entity, frequency, edge)
        if rule != "klt":
            return tail if rule == "long_tail" else known & ~tail
        known = tail
    chosen = np.flatnonzero(known)
    cosine, sentence = np.asarray(cosine)[chosen], np.asarray(sentence)[chosen]
    if np.isnan(cosine).any():
        raise ValueError("a linked mention has no cosine")
    if rule == "klt":
        klt = (cosine.astype(np.float64) * np.log1p(degree[np.asarray(entity)[chosen]])).astype(np.float32)
        kept = klt <= _means(klt, sentence)
    elif rule == "si_top_k":
        kept = _highest(si(cosine, score), sentence, k)
    else:
        value = si(cosine, score)
        kept = value >= _means(value, sentence)
    found = np.zeros(len(known), dtype=bool)
    found[chosen[kept]] = True
    return found


def members(
    kind: str, important: np.ndarray, entity: np.ndarray, frequency: np.ndarray, *, edge: float | None = None
) -> np.ndarray:
    """The mentions whose contexts go into the memory bank, bool [M].

    Args:
        kind: important; important+long_tail, also those of entities rarer than the mean (TRELM, section 3.4); or all.
        important: what `select` gives [M].
        entity, frequency, edge: as of `select`.

    Raises:
        ValueError: there is no such kind.
    """
    if kind not in MEMBERS:
        raise ValueError(f"no such members: {kind}")
    known = np.asarray(entity) >= 0
    if kind == "all":
        return known
    found: np.ndarray = known & np.asarray(important, dtype=bool)
    return found | rare(entity, frequency, edge) if kind == "important+long_tail" else found


def rare(entity: np.ndarray, frequency: np.ndarray, edge: float | None = None) -> np.ndarray:
    """Which mentions are of entities of the graph that the corpus has fewer mentions of than R_freq, bool [M].

    Args:
        entity, frequency, edge: as of `select`.
    """
    known = np.asarray(entity) >= 0
    limit = mean_frequency(frequency) if edge is None else edge
    found = np.zeros(len(known), dtype=bool)
    found[known] = frequency[np.asarray(entity)[known]] < limit
    return found


def _means(values: np.ndarray, sentence: np.ndarray) -> np.ndarray:
    """For each mention the mean of its sentence, float64 [M].

    Sums of float32 values are exact in float64, so that the mean of equal values is that value, and no tie is broken by
    rounding.
    """
    _, group = np.unique(sentence, return_inverse=True)
    sums = np.bincount(group, values.astype(np.float64))
    return (sums / np.bincount(group))[group]


def _highest(values: np.ndarray, sentence: np.ndarray, k: int) -> np.ndarray:
    """Which mentions are among the k highest of their sentence, bool [M]; of equal ones the earlier."""
    order = np.lexsort((-values, sentence))  # stable: equal values stay in their order
    ordered = sentence[order]
    rank = np.arange(len(order)) - np.searchsorted(ordered, ordered, side="left")
    found = np.zeros(len(values), dtype=bool)
    found[order[rank < k]] = True
    return found
