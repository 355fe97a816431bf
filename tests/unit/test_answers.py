"""Comparing answers: worked numbers for every language, and a second, naive implementation of both normalisers."""

from __future__ import annotations

import random
import string
import unicodedata
from collections.abc import Sequence

import pytest

from kbench.config.spans import MLQA_LANGUAGES, Normaliser
from kbench.errors import DataError
from kbench.metrics.answers import answer_scores, tokens

SQUAD, MLQA = Normaliser.squad, Normaliser.mlqa


# Worked examples.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Denver Broncos!", ["denver", "broncos"]),
        ("a man, an apple and the sea", ["man", "apple", "and", "sea"]),
        ("theatre another", ["theatre", "another"]),
        ("the-end", ["theend"]),  # punctuation goes first
        ("a.m.", ["am"]),
        ("$1,000", ["1000"]),
        ("«été»", ["«été»"]),  # no ASCII
        ("l'État", ["létat"]),
        ("北京 大学", ["北京", "大学"]),
        ("the", []),
        ("", []),
        ("x\u00a0the\u3000y", ["x", "y"]),
    ],
)
def test_squad(text: str, expected: list[str]) -> None:
    assert tokens(text, SQUAD) == expected
    assert tokens(text, SQUAD, "de") == expected  # whatever the language


@pytest.mark.parametrize(
    ("lang", "text", "expected"),
    [
        ("en", "The «Denver» Broncos", ["denver", "broncos"]),
        ("en", "der Hund", ["der", "hund"]),
        ("es", "Los niños de la ciudad; una, ¿el uno?", ["niños", "de", "ciudad", "uno"]),
        ("es", "elefante", ["elefante"]),
        ("de", "Der Hund des Mannes, einer von einem", ["hund", "mannes", "von"]),
        ("de", "derselbe", ["derselbe"]),
        ("vi", "Những cái nhà của là tôi", ["nhà", "tôi"]),
        ("hi", "भारत की राजधानी।", ["भारत", "की", "राजधानी"]),
        ("hi", "the a", ["the", "a"]),
        ("ar", "المدينة، القديمة", ["مدينة", "قديمة"]),
        ("ar", "قال", ["ق"]),  # wherever the letters stand
        ("zh", "《北京》大学", ["北", "京", "大", "学"]),
        ("zh", "在1949年 the New York", ["在", "1949", "年", "the", "new", "york"]),
        ("zh", "ａb龦", ["ａb龦"]),  # a full-width letter, and an ideograph beyond MLQA's range
        ("en", "5 + 3 = $8 €9", ["5", "3", "8", "€9"]),  # ASCII's symbols go, others stay
    ],
)
def test_mlqa(lang: str, text: str, expected: list[str]) -> None:
    assert tokens(text, MLQA, lang) == expected


@pytest.mark.parametrize(
    ("normaliser", "lang", "predicted", "gold", "f1", "exact"),
    [
        # 2 of our 3 tokens and 2 of their 2: precision 2/3, recall 1
        (SQUAD, None, "the big red dog", ["red dog"], 4 / 5, 0.0),
        (SQUAD, None, "The dog.", ["dog"], 1.0, 1.0),
        # bags: one "dog" of ours finds one of their two
        (SQUAD, None, "dog", ["dog dog cat"], 2 / 4, 0.0),
        # F1 is of the first answer, the exact match of the second
        (SQUAD, None, "in 1999", ["in 1999 or so", "IN 1999"], 1.0, 1.0),
        (SQUAD, None, "a b c", ["c d", "b c e f g"], 4 / 7, 0.0),
        (SQUAD, None, "x", ["y"], 0.0, 0.0),
        # nothing is left of either: the official scripts give no F1
        (SQUAD, None, "", ["The"], 0.0, 1.0),
        (SQUAD, None, "", ["dog"], 0.0, 0.0),
        # 3 characters of our 4 and of their 3
        (MLQA, "zh", "北京大学", ["北京大"], 6 / 7, 0.0),
        (MLQA, "de", "der Rhein", ["den Rhein"], 1.0, 1.0),
        (MLQA, "en", "der Rhein", ["den Rhein"], 1 / 2, 0.0),
    ],
)
def test_scores(
    normaliser: Normaliser, lang: str | None, predicted: str, gold: list[str], f1: float, exact: float
) -> None:
    found = answer_scores(predicted, gold, normaliser, lang)
    assert found["f1"] == pytest.approx(f1)
    assert found["exact_match"] == exact


@pytest.mark.parametrize("lang", [None, "ko", "EN"])
def test_a_language_that_mlqa_has_no_rules_for(lang: str | None) -> None:
    with pytest.raises(DataError) as raised:
        answer_scores("x", ["x"], MLQA, lang)
    (problem,) = raised.value.problems
    assert problem.where == "data.spans.normaliser"
    assert problem.what == f"mlqa has no rules for the language {lang}"


# A second implementation: character by character, with no pattern and no table.

ARTICLES = {
    "en": "a an the",
    "es": "un una unos unas el la los las",
    "vi": "của là cái chiếc những",
    "de": "ein eine einen einem eines einer der die das den dem des",
}


def without_articles(text: str, articles: str) -> str:
    """Runs of letters, digits and _ that are an article become a space."""
    out, run = "", ""
    for character in [*text, ""]:
        if character and (character.isalnum() or character == "_"):
            run += character
            continue
        out += " " if run in articles.split() else run
        out += character
        run = ""
    return out


def naive_tokens(text: str, normaliser: Normaliser, lang: str | None) -> list[str]:
    kept = ""
    for character in text.lower():
        ascii_mark = character in string.punctuation
        if not ascii_mark and not (normaliser is MLQA and unicodedata.category(character).startswith("P")):
            kept += character
    if normaliser is SQUAD:
        return without_articles(kept, ARTICLES["en"]).split()
    if lang in ARTICLES:
        kept = without_articles(kept, ARTICLES[lang])
    if lang == "ar":
        kept = " ".join(kept.split("ال"))
    if lang == "zh":
        kept = "".join(f" {c} " if 0x4E00 <= ord(c) <= 0x9FA5 else c for c in kept)
    return kept.split()


def naive_scores(predicted: str, gold: Sequence[str], normaliser: Normaliser, lang: str | None) -> tuple[float, float]:
    best, exact = 0.0, 0.0
    ours = naive_tokens(predicted, normaliser, lang)
    for answer in gold:
        theirs = naive_tokens(answer, normaliser, lang)
        exact = max(exact, float(" ".join(ours) == " ".join(theirs)))
        left, same = list(theirs), 0
        for token in ours:
            if token in left:
                left.remove(token)
                same += 1
        if same:
            precision, recall = same / len(ours), same / len(theirs)
            best = max(best, 2 * precision * recall / (precision + recall))
    return best, exact


PIECES = [
    "the", "The", "a", "an", "el", "LA", "los", "der", "einer", "Das", "của", "Những", "ال", "القديم", "قال",
    "北", "京大", "年", "भारत", "की", "dog", "Hund", "1999", "x_y", "é", "İ", "ß", " ", "  ", "\u00a0", "\u3000",
    ".", "-", "'", "$", "€", "«", "»", "،", "।", "。", "《", "_", "№", "\ufeff", "\u0301",
]  # fmt: skip


@pytest.mark.parametrize(("normaliser", "lang"), [(SQUAD, None), *((MLQA, lang) for lang in MLQA_LANGUAGES)])
def test_both_implementations_agree(normaliser: Normaliser, lang: str | None) -> None:
    drawn = random.Random(7)
    different = set()
    for _ in range(2000):
        few = drawn.sample(PIECES, 6)  # so that answers have words in common
        predicted, *gold = (
            drawn.choice(["", " "]).join(drawn.choices(few, k=drawn.randrange(8)))
            for _ in range(1 + drawn.randint(1, 3))
        )
        found = answer_scores(predicted, gold, normaliser, lang)
        f1, exact = naive_scores(predicted, gold, normaliser, lang)
        assert found["f1"] == pytest.approx(f1), (predicted, gold)
        assert found["exact_match"] == exact, (predicted, gold)
        different.add(round(f1, 6))
    assert len(different) > 10
