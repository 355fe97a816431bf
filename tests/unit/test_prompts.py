"""X-FACTR's prompts: every mark of the French and Spanish columns, on names of each gender, number and kind."""

from __future__ import annotations

import csv
import re
from collections import Counter
from pathlib import Path

import pytest

from kbench.data.nouns import Entity, french, kind_of, spanish
from kbench.data.prompts import REPAIRS, Prompt
from kbench.errors import DataError, Problem

WOMAN, MAN = Entity("Marie Curie", "female", ("human",)), Entity("Albert Camus", "male", ("human",))
PARIS, FRANCE = Entity("Paris", kinds=("capital", "big city")), Entity("France", kinds=("sovereign state", "country"))
COUNTRY = ("sovereign state", "country")


def filled(template: str, language: str, subject: Entity, gold: Entity, relation: str = "P0") -> str:
    """A prompt with both ends as people read it."""
    return Prompt(template, language, relation, "x.csv, line 2").fill(subject, gold).replace("[Y]", gold.name)


def country(name: str) -> Entity:
    return Entity(name, kinds=COUNTRY)


def region(name: str) -> Entity:
    return Entity(name, kinds=("state of the United States",))


def word(name: str, *kinds: str) -> Entity:
    return Entity(name, kinds=kinds, category=True)


# French.


@pytest.mark.parametrize(
    ("entity", "said"),
    [
        (MAN, "né"),
        (WOMAN, "née"),
        (FRANCE, "née"),
        (country("Japon"), "né"),
    ],
)
def test_agreement_with_the_subject(entity: Entity, said: str) -> None:
    template = "[X] est [né;X-Gender=MASC|née;X-Gender=FEM] ici ; [Y] ."
    assert filled(template, "fr", entity, PARIS) == f"{entity.name} est {said} ici ; Paris ."


def test_agreement_with_the_object() -> None:
    template = "[Y] a [venu;Y-Gender=MASC|venue;Y-Gender=FEM] : [X] ."
    assert filled(template, "fr", MAN, WOMAN) == "Marie Curie a venue : Albert Camus ."
    assert filled(template, "fr", WOMAN, MAN) == "Albert Camus a venu : Marie Curie ."


# definite article; de and à with it; where
NOUNS = [
    (country("France"), "la France | de la France | à la France | en France"),
    (country("Japon"), "le Japon | du Japon | au Japon | au Japon"),
    (country("Allemagne"), "l'Allemagne | de l'Allemagne | à l'Allemagne | en Allemagne"),
    (country("Iran"), "l'Iran | de l'Iran | à l'Iran | en Iran"),
    (country("États-Unis"), "les États-Unis | des États-Unis | aux États-Unis | aux États-Unis"),
    (country("Pays-Bas"), "les Pays-Bas | des Pays-Bas | aux Pays-Bas | aux Pays-Bas"),
    (country("pays de Galles"), "le pays de Galles | du pays de Galles | au pays de Galles | au pays de Galles"),
    (country("Mexique"), "le Mexique | du Mexique | au Mexique | au Mexique"),
    (country("Hongrie"), "la Hongrie | de la Hongrie | à la Hongrie | en Hongrie"),
    (country("Yémen"), "le Yémen | du Yémen | au Yémen | au Yémen"),
    (country("Cuba"), "Cuba | de Cuba | à Cuba | à Cuba"),
    (country("Israël"), "Israël | d'Israël | à Israël | en Israël"),
    (region("Californie"), "la Californie | de la Californie | à la Californie | en Californie"),
    (region("comté de Kent"), "le comté de Kent | du comté de Kent | au comté de Kent | dans le comté de Kent"),
    (region("Luzerne County"), "Luzerne County | de Luzerne County | à Luzerne County | à Luzerne County"),
    (PARIS, "Paris | de Paris | à Paris | à Paris"),
    (Entity("Amsterdam", kinds=("capital",)), "Amsterdam | d'Amsterdam | à Amsterdam | à Amsterdam"),
    (Entity("Le Havre", kinds=("city",)), "Le Havre | de Le Havre | à Le Havre | à Le Havre"),
    (MAN, "Albert Camus | d'Albert Camus | à Albert Camus | à Albert Camus"),
    (word("guitare"), "la guitare | de la guitare | à la guitare | à la guitare"),
    (word("piano"), "le piano | du piano | au piano | au piano"),
    (word("harpe"), "la harpe | de la harpe | à la harpe | à la harpe"),
    (word("harmonica"), "l'harmonica | de l'harmonica | à l'harmonica | à l'harmonica"),
    (word("accordéon"), "l'accordéon | de l'accordéon | à l'accordéon | à l'accordéon"),
    (word("mathématiques"), "les mathématiques | des mathématiques | aux mathématiques | aux mathématiques"),
    (word("chimie"), "la chimie | de la chimie | à la chimie | à la chimie"),
    (word("judaïsme"), "le judaïsme | du judaïsme | au judaïsme | au judaïsme"),
    (Entity("français", kinds=("language",)), "le français | du français | au français | au français"),
    (Entity("Union latine"), "l'Union latine | de l'Union latine | à l'Union latine | à l'Union latine"),
    (Entity("Nations unies"), "les Nations unies | des Nations unies | aux Nations unies | aux Nations unies"),
    (Entity("Le Monde", kinds=("newspaper",)), "Le Monde | de Le Monde | à Le Monde | à Le Monde"),
    (Entity("Google", kinds=("business",)), "Google | de Google | à Google | à Google"),
    (Entity("Himalaya", kinds=("mountain range",)), "l'Himalaya | de l'Himalaya | à l'Himalaya | dans l'Himalaya"),
]  # fmt: skip


@pytest.mark.parametrize(("entity", "forms"), NOUNS, ids=[one[0].name for one in NOUNS])
def test_french_articles_and_prepositions(entity: Entity, forms: str) -> None:
    for mark, said in zip(("ARTDEF", "PREPDEF", "PREPDEF-à", "PREPLOC"), forms.split(" | "), strict=True):
        assert filled(f"[X] dit [{mark};Y] [Y] .", "fr", MAN, entity) == f"Albert Camus dit {said} ."
        assert filled(f"[Y] dit [{mark};X] [X] .", "fr", entity, MAN) == f"Albert Camus dit {said} ."


@pytest.mark.parametrize(
    ("entity", "said"),
    [
        (word("actrice", "profession"), "une actrice"),
        (word("acteur", "profession"), "un acteur"),
        (word("pianiste", "musical profession"), "un pianiste"),
        (word("commune"), "une commune"),
        (word("village"), "un village"),
        (word("percussions"), "des percussions"),
    ],
)
def test_french_indefinite_article(entity: Entity, said: str) -> None:
    assert filled("[X] est [ARTIND;Y] [Y] .", "fr", MAN, entity) == f"Albert Camus est {said} ."


def test_an_article_melts_with_the_word_before() -> None:
    member, study = "[X] est membre de [ARTDEF;Y] [Y] .", "[X] étudie à [ARTDEF;Y] [Y] ."
    party, states = Entity("Parti socialiste"), country("États-Unis")
    assert filled(member, "fr", MAN, party) == "Albert Camus est membre du Parti socialiste ."
    assert filled(member, "fr", MAN, states) == "Albert Camus est membre des États-Unis ."
    assert filled(member, "fr", MAN, FRANCE) == "Albert Camus est membre de la France ."
    assert filled(study, "fr", MAN, party) == "Albert Camus étudie au Parti socialiste ."
    assert filled(study, "fr", MAN, states) == "Albert Camus étudie aux États-Unis ."
    # a word that only ends like one of them does not
    assert filled("[X] cède [ARTDEF;Y] [Y] .", "fr", MAN, party) == "Albert Camus cède le Parti socialiste ."


def test_de_before_a_vowel_is_elided() -> None:
    template = "La langue de [X] est [Y] ."
    assert filled(template, "fr", MAN, word("grec")) == "La langue d'Albert Camus est grec ."
    assert filled(template, "fr", WOMAN, word("grec")) == "La langue de Marie Curie est grec ."
    assert filled("[X] parle de [Y] .", "fr", WOMAN, MAN) == "Marie Curie parle d'Albert Camus ."
    assert filled("[X] cède [Y] .", "fr", WOMAN, MAN) == "Marie Curie cède Albert Camus ."


def test_an_article_that_begins_a_sentence_is_large() -> None:
    template = "[ARTDEF;X] [X]  touche  [ARTDEF;Y] [Y] ."
    assert filled(template, "fr", FRANCE, country("Italie")) == "La France touche l'Italie ."
    assert filled(template, "fr", country("Italie"), FRANCE) == "L'Italie touche la France ."
    assert filled(template, "fr", PARIS, FRANCE) == "Paris touche la France ."


def test_words_of_the_released_file_that_are_no_sentence_are_mended() -> None:
    """Only in their relation and language, and only as they stand there."""
    river, citizen = "[ARTDEF;X] [X] est un [ARTIND;Y] [Y] .", "[X] est citoyen [ARTDEF;Y] [Y] ."
    seat = "Le siège [PREPDEF;X] [X] est en [PREPLOC;Y] [Y] ."
    loire = Entity("Loire", kinds=("river",))
    assert filled(river, "fr", loire, word("rivière"), "P31") == "La Loire est une rivière ."
    assert filled(river, "fr", loire, word("rivière"), "P32") == "La Loire est un une rivière ."
    assert filled(citizen, "fr", MAN, FRANCE, "P27") == "Albert Camus est citoyen de la France ."
    assert filled(seat, "fr", MAN, PARIS, "P159") == "Le siège d'Albert Camus est à Paris ."
    owner = "El [dueño;Y-Gender=MASC|dueña;Y-Gender=FEM] de [X] es [Y] ."
    assert filled(owner, "es", PARIS, WOMAN, "P127") == "La dueña de Paris es Marie Curie ."
    assert filled(owner, "es", PARIS, MAN, "P127") == "El dueño de Paris es Albert Camus ."


# Spanish.


@pytest.mark.parametrize(
    ("entity", "the", "a"),
    [
        (word("piano"), "el", "un"),
        (word("guitarra"), "la", "una"),
        (word("arpa"), "el", "un"),  # feminine, with a stressed a
        (word("timbales"), "los", "unos"),
        (word("maracas"), "las", "unas"),
        (word("canción"), "la", "una"),
        (word("ciudad"), "la", "una"),
        (word("sistema"), "el", "un"),
        (word("pianista", "profession"), "el", "un"),
        (word("actriz", "profession"), "la", "una"),
        (Entity("Premio Nobel de la Paz"), "el", "un"),
        (Entity("Orden del Mérito"), "la", "una"),
        (Entity("Apple", kinds=("business",)), "la", "una"),
        (Entity("Andrés", "male", ("human",)), "el", "un"),
    ],
)
def test_spanish_articles(entity: Entity, the: str, a: str) -> None:
    assert filled("[X] toca [DEF;Y] [Y] .", "es", MAN, entity) == f"Albert Camus toca {the} {entity.name} ."
    for slot, subject, gold in (("Y", MAN, entity), ("X", entity, MAN)):
        said = filled(f"Es [ART;{slot}-Gender] [{slot}], [{'XY'[slot == 'X']}] .", "es", subject, gold)
        assert said == f"Es {a} {entity.name}, Albert Camus ."


def test_a_name_with_an_article_of_its_own_gets_no_other() -> None:
    assert filled("[X] lee [DEF;Y] [Y] .", "es", MAN, Entity("El País")) == "Albert Camus lee El País ."
    assert filled("[X] lit [ARTDEF;Y] [Y] .", "fr", WOMAN, word("La Peste")) == "Marie Curie lit La Peste ."


@pytest.mark.parametrize(("before", "melted"), [("de", "del"), ("a", "al"), ("para", "para el")])
def test_the_spanish_article_melts(before: str, melted: str) -> None:
    template = f"[X] habla {before} [DEF;Y] [Y] ."
    assert filled(template, "es", MAN, word("piano")) == f"Albert Camus habla {melted} piano ."
    assert filled(template, "es", MAN, word("guitarra")) == f"Albert Camus habla {before} la guitarra ."


def test_number_goes_before_gender() -> None:
    template = (
        "[X] [está;X-Number=SG|están;X-Number=PL] [visto;X-Gender=MASC|vista;X-Gender=FEM|vistos;X-Number=PL] [Y]."
    )
    band = Entity("Mecano", kinds=("musical group",))
    assert filled(template, "es", band, PARIS) == "Mecano están vistos Paris."
    assert filled(template, "es", WOMAN, PARIS) == "Marie Curie está vista Paris."
    assert filled(template, "es", MAN, PARIS) == "Albert Camus está visto Paris."


# Kinds.


@pytest.mark.parametrize(
    ("kinds", "kind"),
    [
        ((), "name"),
        (("human",), "person"),
        (("human settlement",), "settlement"),
        (("state of Germany", "big city"), "settlement"),
        (("legal state", "sovereign state", "republic"), "country"),
        (("state of the United States",), "region"),
        (("programming language",), "name"),
        (("modern language",), "language"),
        (("rock band",), "group"),
        (("girl group",), "group"),
        (("group or class of chemical compounds",), "name"),
        (("association football club",), "team"),
    ],
)
def test_kinds_of_entities(kinds: tuple[str, ...], kind: str) -> None:
    assert kind_of(Entity("x", kinds=kinds)) == kind
    assert kind_of(Entity("x", "female", kinds)) == "person"


def test_what_is_no_person_has_the_gender_of_its_kind_where_its_name_tells_none() -> None:
    for noun in (french, spanish):
        assert noun(Entity("Google", kinds=("business",))).gender == "FEM"
        assert noun(Entity("Casablanca", kinds=("film",))).gender == "MASC"


# What cannot be resolved.

KNOWN = {
    "fr": "known: [ARTDEF;Y], [ARTIND;Y], [PREPDEF;Y], [PREPDEF-à;Y], [PREPLOC;Y], "
    "[word;X-Gender=MASC|word;X-Gender=FEM], the same of Number=SG and PL",
    "es": "known: [DEF;Y], [ART;Y-Gender], [word;X-Gender=MASC|word;X-Gender=FEM], the same of Number=SG and PL",
    "nl": "kbench inflects es and fr; take a language whose prompts hold only [X] and [Y]",
}


@pytest.mark.parametrize(
    ("language", "mark"),
    [
        ("fr", "PREPWO;Y"),
        ("fr", "ARTDEF;Z"),
        ("fr", "ARTDEF"),
        ("fr", "DEF;Y"),  # Spanish
        ("fr", "Y.Acc"),
        ("fr", ""),
        ("fr", "né;X-Gender=MASC"),  # no form for women
        ("fr", "né;X-Gender=MASC|née"),
        ("fr", "né;X-Gender=MASC|né;X-Gender=MASC"),
        ("fr", "né;X-Gender=MASC|née;Y-Gender=FEM"),
        ("fr", "né;X-Gender=MASC|née;X-Gender=NEUT"),
        ("es", "están;X-Number=PL|visto;X-Gender=MASC"),
        ("es", "ARTDEF;Y"),
        ("es", "ART;Y"),
        ("nl", "DEF;Y"),
        ("nl", "a;X-Gender=MASC|b;X-Gender=FEM"),
    ],
)
def test_a_mark_that_cannot_be_resolved_is_named(language: str, mark: str) -> None:
    with pytest.raises(DataError) as raised:
        Prompt(f"[X] est [{mark}] [Y] .", language, "P19", "a.csv, line 7")
    where = f"a.csv, line 7, relation P19, language {language}"
    assert raised.value.problems == [Problem(where, f"the mark [{mark}] cannot be resolved", KNOWN[language])]


@pytest.mark.parametrize("template", ["[X] est .", "[Y] est .", "[X] [X] est [Y] .", "[Y] [X] [Y]"])
def test_a_prompt_holds_both_ends_once(template: str) -> None:
    with pytest.raises(DataError, match="a prompt holds") as raised:
        Prompt(template, "en", "P19", "a.csv, line 7")
    assert raised.value.problems[0].where == "a.csv, line 7, relation P19, language en"


def test_a_subject_must_not_look_like_the_object() -> None:
    with pytest.raises(DataError, match=r"the subject 'a\[Y\]' holds \[Y\]"):
        Prompt("[X] is [Y] .", "en", "P19", "a.csv, line 7").fill(Entity("a[Y]"), PARIS)


def test_other_languages_are_filled_as_they_are() -> None:
    assert (
        Prompt("[X]は[Y]生まれである。", "ja", "P19", "").fill(Entity("アラン"), PARIS) == "アランは[Y]生まれである。"
    )


# The real file.


def test_every_mark_of_the_real_file_is_resolved(real_data: Path) -> None:
    path = real_data / "xfactr" / "TREx_prompts.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 46
    marks: Counter[str] = Counter()
    nouns = [WOMAN, MAN, PARIS, FRANCE, country("États-Unis"), word("guitare"), Entity("Mecano", kinds=("rock band",))]
    for row in rows:
        for language in ("en", "es", "fr", "nl", "ja", "ko", "vi", "zh"):
            marks[language] += len(re.findall(r"\[[^\]]*\]", row[language])) - 2
            prompt = Prompt(row[language], language, row["pid"], "")
            for one in nouns:
                told = prompt.fill(nouns[0], one), prompt.fill(one, nouns[0])
                assert all(sentence.count("[") == 1 and "[Y]" in sentence for sentence in told)
                assert not any("  " in sentence for sentence in told)
    assert +marks == {"es": 20, "fr": 56}
    for (language, relation), (old, _) in REPAIRS.items():
        assert old in next(row[language] for row in rows if row["pid"] == relation)
