"""The toy graph: people, towns, organisations and works of an invented world, named in English and three more tongues.

Its facts follow rules, with a little noise, so that the relation between two entities can be told from the other facts
of a cycle: who was born in a town is a citizen of the town's country, who works for an organisation lives in the town
it is seated in. A word has one form in each language, from syllables and an alphabet of its own, and the same words
make up the names of many entities: which forms belong together, only the graph tells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from itertools import accumulate, product

import numpy as np

from kbench.engine.counter import below, permuted, uniform
from kbench.engine.seeding import derive

VERSION = 1
LANGUAGES = ("en", "xa", "xb", "xc")

Triple = tuple[int, int, int]  # numbers of head, relation, tail
Name = tuple[bool, int, int, str]  # whether of a relation, its number or the entity's, rank, text

COUNTRY, REGION, CAPITAL, BORN, CITIZEN, LIVES, WORKS, SEAT = 17, 131, 36, 19, 27, 551, 108, 159
MEMBER, SPOUSE, CHILD, SIBLING, AUTHOR, ORIGIN, FIELD = 463, 26, 40, 3373, 50, 495, 101

RELATIONS: dict[int, tuple[str, ...]] = {
    COUNTRY: ("country", "state"),
    REGION: ("located in the region", "in the region"),
    CAPITAL: ("capital",),
    BORN: ("place of birth", "born in"),
    CITIZEN: ("citizen of", "nationality"),
    LIVES: ("residence", "lives in"),
    WORKS: ("employer", "works for"),
    SEAT: ("headquarters", "seated in"),
    MEMBER: ("member of",),
    SPOUSE: ("spouse", "married to"),
    CHILD: ("child",),
    SIBLING: ("sibling",),
    AUTHOR: ("author", "written by"),
    ORIGIN: ("country of origin",),
    FIELD: ("field of work", "field"),
}

# layer -> how many; numbers are given in this order
SIZES = {"country": 10, "region": 30, "town": 120, "class": 24, "organisation": 96, "person": 560, "work": 200}
_KINDS = {"region": "province", "organisation": "company", "work": "book"}  # a second word of the names of a layer
# kind of word -> how many there are, and the first of its numbers
_WORDS = {
    **SIZES, "given": 40, "family": SIZES["person"] // 4, "second": 40, "kind": len(_KINDS), "old": 1,
    "relation": 2 * len(RELATIONS),
}  # fmt: skip
_FIRST_WORD = dict(zip(_WORDS, accumulate(_WORDS.values(), initial=0), strict=False))
_NOISE = 0.06  # share of facts that break their rule
_UNNAMED = 0.08  # share of entities that have no name in a language but English
_ALIASED = 0.3
_SEED = derive(0, "toy graph")

# language -> onsets and vowels of its syllables: Latin, Greek, Cyrillic, Armenian letters
_SOUNDS = {
    "en": ("b d f g k l m n p r s t v z", "a e i o u"),
    "xa": ("β γ δ θ κ λ μ ν π ρ σ τ φ χ", "α ε η ο ω"),
    "xb": ("б в г д ж з к л м н п р с т", "а е и о у"),
    "xc": ("բ գ դ զ թ ժ լ խ կ հ մ ն պ տ", "ա ե ը ի ո"),
}


def generate() -> tuple[list[Triple], dict[str, list[Name]]]:
    """The triples, and language -> its names, the label of an item first (rank 0); the same on every machine."""
    layers, first = {}, 1
    for layer, size in SIZES.items():
        layers[layer] = range(first, first + size)
        first += size
    return _facts(layers), {language: _names(language, layers) for language in LANGUAGES}


def _facts(layers: dict[str, range]) -> list[Triple]:
    """Facts by layer: geography, organisations, families, works; no fact twice."""
    countries, towns = layers["country"], layers["town"]
    found: dict[Triple, None] = {}

    def add(head: int, relation: int, tail: int, wrong: Sequence[int] | None = None) -> None:
        """A fact, now and then with one of the wrong tails."""
        if wrong is not None and _happens("noise", _NOISE, head, relation):
            tail = _one_of(wrong, "wrong", head, relation)
        if head != tail:
            found[head, relation, tail] = None

    region_of = {town: layers["region"][place % SIZES["region"]] for place, town in enumerate(towns)}
    country_of = {region: countries[place % SIZES["country"]] for place, region in enumerate(layers["region"])}
    country_of |= {town: country_of[region] for town, region in region_of.items()}
    for region in layers["region"]:
        add(region, COUNTRY, country_of[region])
    for town in towns:
        add(town, REGION, region_of[town])
        add(town, COUNTRY, country_of[town], countries)
    for place, country in enumerate(countries):
        add(country, CAPITAL, towns[place])

    seat_of, field_of = {}, {}
    for organisation in layers["organisation"]:
        seat_of[organisation] = _one_of(towns, "seat", organisation)
        field_of[organisation] = _one_of(layers["class"], "field", organisation)
        country_of[organisation] = country_of[seat_of[organisation]]
        add(organisation, SEAT, seat_of[organisation])
        add(organisation, FIELD, field_of[organisation])
        add(organisation, COUNTRY, country_of[organisation], countries)

    for place, person in enumerate(layers["person"]):
        home = _one_of(towns, "home", place // 4)
        country_of[person] = country_of[home]
        add(person, BORN, home if place % 4 >= 2 else _near(home, towns, country_of, person), towns)
        add(person, CITIZEN, country_of[person], countries)
        if _happens("employed", 0.75, person):
            employer = _near(home, layers["organisation"], country_of, person)
            field_of[person] = field_of[employer]
            add(person, WORKS, employer)
            add(person, LIVES, seat_of[employer], towns)
            add(person, FIELD, field_of[person], layers["class"])
    for place in range(0, SIZES["person"], 4):
        _family(layers["person"][place : place + 4], layers["organisation"], add)

    for work in layers["work"]:
        author = _one_of(layers["person"], "author", work)
        add(work, AUTHOR, author)
        add(work, ORIGIN, country_of[author], countries)
        if author in field_of:
            add(work, FIELD, field_of[author], layers["class"])
    return list(found)


def _family(members: Sequence[int], organisations: Sequence[int], add: Callable[..., None]) -> None:
    """Two married people of one club, and their two children."""
    parents, children = members[:2], members[2:]
    club = _one_of(organisations, "club", parents[0])
    for parent in parents:
        add(parent, MEMBER, club, organisations)
        for child in children:
            add(parent, CHILD, child)
    for relation, (one, other) in ((SPOUSE, parents), (SIBLING, children)):
        add(one, relation, other)
        if _happens("both ways", 0.5, one):
            add(other, relation, one)


def _near(home: int, things: Sequence[int], country_of: dict[int, int], person: int) -> int:
    """One of the things in the country of a home; any, where there is none."""
    near = [thing for thing in things if country_of[thing] == country_of[home]]
    return _one_of(near or things, "near", person, things[0])


def _one_of(things: Sequence[int], purpose: str, *keys: int) -> int:
    return things[int(below(len(things), derive(_SEED, purpose), *keys))]


def _happens(purpose: str, share: float, *keys: int) -> bool:
    return bool(uniform(derive(_SEED, purpose), *keys) < share)


def _names(language: str, layers: dict[str, range]) -> list[Name]:
    """Every relation's names, and those of the entities that have one in the language."""
    found: list[Name] = []
    for place, (relation, texts) in enumerate(RELATIONS.items()):
        for rank, text in enumerate(texts):
            own = text if language == "en" else _word(language, "relation", place * 2 + rank)
            found.append((True, relation, rank, own))
    for layer, entities in layers.items():
        for place, entity in enumerate(entities):
            if language != "en" and _happens(f"unnamed {language}", _UNNAMED, entity):
                continue
            texts = [_label(language, layer, place)]
            if _happens("aliased", _ALIASED, entity):
                texts.append(_alias(language, layer, place))
            found += [(False, entity, rank, text) for rank, text in enumerate(texts)]
    return found


def _label(language: str, layer: str, place: int) -> str:
    """A person has a given name and the family's, a region, company or book a word of its own and one of its kind."""
    if layer == "person":
        return f"{_word(language, 'given', _given(place))} {_word(language, 'family', place // 4)}"
    own = _word(language, layer, place)
    return f"{own} {_word(language, 'kind', list(_KINDS).index(layer))}" if layer in _KINDS else own


def _alias(language: str, layer: str, place: int) -> str:
    if layer == "person":
        return f"{_word(language, 'given', _given(place))} {_word(language, 'second', place % 40)}"
    return f"{_word(language, 'old', 0)} {_word(language, layer, place)}"


def _given(place: int) -> int:
    """One of 40 given names; the four of a family have different ones."""
    return (place // 4 * 7 + place % 4 * 10) % 40


def _word(language: str, kind: str, number: int) -> str:
    """The number-th word of a kind: two syllables that no other word of the language has."""
    word = _vocabulary(language)[_FIRST_WORD[kind] + number]
    return word if kind in ("kind", "class", "relation") else word.title()


@cache
def _vocabulary(language: str) -> list[str]:
    onsets, vowels = (sounds.split() for sounds in _SOUNDS[language])
    syllables = [onset + vowel for onset, vowel in product(onsets, vowels)]
    places = permuted(np.arange(sum(_WORDS.values())), len(syllables) ** 2, derive(_SEED, language))
    return [syllables[place // len(syllables)] + syllables[place % len(syllables)] for place in places.tolist()]
