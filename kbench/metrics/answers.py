"""How well an answer fits the gold ones: exact match and F1, as the official evaluations define them.

Texts are normalised and cut into tokens. Exact match: the tokens are the same. F1: of the two bags of tokens. Of
several gold answers the best one counts, for each measure by itself. Values are shares.

squad   SQuAD 1.1 (Rajpurkar et al. 2016), which XTREME uses for XQuAD and TyDiQA-GoldP in every language: lower case,
        no ASCII punctuation, no English articles, tokens between white space.
mlqa    MLQA (Lewis et al. 2020): no punctuation of any script, the articles of the language of the answer; in Chinese
        each ideograph is a token.
"""

from __future__ import annotations

import re
import string
import sys
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache

from kbench.config.spans import MLQA_LANGUAGES, Normaliser
from kbench.errors import DataError, Problem

METRICS = ("f1", "exact_match")

# MLQA's articles; Hindi and Chinese have none. Its Arabic pattern has a second branch that can never match, so that the
# two letters go wherever they stand, within words, too
_ARTICLES = {
    "en": r"\b(?:a|an|the)\b",
    "es": r"\b(?:un|una|unos|unas|el|la|los|las)\b",
    "vi": r"\b(?:của|là|cái|chiếc|những)\b",
    "de": r"\b(?:ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b",
    "ar": "ال",
}
_IDEOGRAPH = re.compile("([\u4e00-\u9fa5])")
_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)


@cache
def _punctuation() -> dict[int, None]:
    """What MLQA removes: ASCII's punctuation, its symbols among it, and every character of a category P."""
    found = [point for point in range(sys.maxunicode + 1) if unicodedata.category(chr(point))[0] == "P"]
    return dict.fromkeys([*map(ord, string.punctuation), *found])


def tokens(text: str, normaliser: Normaliser, lang: str | None = None) -> list[str]:
    """The tokens of an answer, normalised.

    Args:
        text: the answer.
        normaliser: whose rules.
        lang: ISO 639-1 code of its language; squad needs none.

    Raises:
        DataError: mlqa has no rules for the language.
    """
    if normaliser is Normaliser.squad:
        return re.sub(_ARTICLES["en"], " ", text.lower().translate(_ASCII_PUNCTUATION)).split()
    if lang not in MLQA_LANGUAGES:
        what, known = f"mlqa has no rules for the language {lang}", ", ".join(MLQA_LANGUAGES)
        raise DataError(Problem("data.spans.normaliser", what, f"there are for {known}; squad needs none"))
    text = text.lower().translate(_punctuation())
    if lang in _ARTICLES:
        text = re.sub(_ARTICLES[lang], " ", text)
    return (_IDEOGRAPH.sub(r" \1 ", text) if lang == "zh" else text).split()


def answer_scores(
    predicted: str, gold: Sequence[str], normaliser: Normaliser, lang: str | None = None
) -> dict[str, float]:
    """F1 and exact match of one answer, 0 to 1; `gold` has one answer at least.

    As in the official scripts, an answer of which nothing is left has F1 0, even where nothing is left of the gold one.

    Raises:
        DataError: as `tokens`.
    """
    ours = tokens(predicted, normaliser, lang)
    theirs = [tokens(one, normaliser, lang) for one in gold]
    return {"f1": max(_f1(ours, one) for one in theirs), "exact_match": float(any(ours == one for one in theirs))}


def _f1(ours: list[str], theirs: list[str]) -> float:
    """Harmonic mean of precision and recall, 2 same / (ours + theirs)."""
    same = (Counter(ours) & Counter(theirs)).total()
    return 2 * same / (len(ours) + len(theirs)) if same else 0.0
