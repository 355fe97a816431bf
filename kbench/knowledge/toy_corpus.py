"""Text of the toy graph: short documents about its people, towns, companies and books, with their mentions.

Each sentence states one fact of the graph in one of twelve ways; between them stand sentences that state nothing, and
some that mention things the graph has not got. A few subjects are written about often and most seldom (Zipf's law), and
what is told of one is told again in other words, so that a small model can learn it.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TypeVar

import numpy as np

from kbench.engine.counter import below, permuted, uniform
from kbench.engine.seeding import derive
from kbench.knowledge import toy_graph as graph
from kbench.knowledge.corpora import Document, Sentence, Span
from kbench.knowledge.toy_graph import Triple

_T = TypeVar("_T")

VERSION = 1
DOCUMENTS = 400

_SHORTEST, _LONGEST = 5, 12  # sentences of a document
_SUBJECTS, _STEEPNESS = 320, 0.7  # that documents are about; the n-th is as frequent as 1 / n^steepness
_FACTS = 8  # of a subject that are told
_ALIASED = 0.15  # share of mentions by another name, where there is one
_FILLER, _FOREIGN = 0.1, 0.06  # shares of sentences
_SEED = derive(0, "toy corpus", graph.VERSION)
_PLACE = re.compile(r"\{(.)\}")

# h: head, t: tail
TEMPLATES: dict[int, tuple[str, ...]] = {
    graph.COUNTRY: (
        "{h} is in {t}.", "{h} lies in {t}.", "{h} belongs to {t}.", "{h} is a part of {t}.",
        "{h} is found in {t}.", "The country of {h} is {t}.", "The state around {h} is {t}.", "{t} holds {h}.",
        "Maps of {t} show {h}.", "To visit {h} is to see {t}.", "The laws of {t} hold in {h}.",
        "In {t} there is {h}.",
    ),
    graph.REGION: (
        "{h} is in the region {t}.", "{h} lies in the region of {t}.", "{h} is a town of {t}.", "{h} belongs to {t}.",
        "The region of {h} is {t}.", "The roads of {t} lead to {h}.", "In {t} one finds {h}.", "{t} looks after {h}.",
        "The town of {h} is located in {t}.", "One of the towns of {t} is {h}.", "{h} votes with {t}.",
        "From {h} one sees all of {t}.",
    ),
    graph.CAPITAL: (
        "The capital of {h} is {t}.", "{t} is the capital of {h}.", "{h} is governed from {t}.",
        "{h} has its capital in {t}.", "The parliament of {h} meets in {t}.", "{h} chose {t} as its capital.",
        "{t} is the first town of {h}.", "The government of {h} sits in {t}.", "Laws of {h} are made in {t}.",
        "Envoys to {h} live in {t}.", "The court of {h} stands in {t}.", "All roads of {h} end in {t}.",
    ),
    graph.BORN: (
        "{h} was born in {t}.", "{h} is a native of {t}.", "{h} came into the world in {t}.",
        "The birthplace of {h} is {t}.", "{t} is the birthplace of {h}.", "{h} was born at {t}.",
        "The place of birth of {h} is {t}.", "{h}, born in {t}, left it young.", "In {t} {h} was born.",
        "The first home of {h} was {t}.", "{h} began life in {t}.", "A house in {t} saw the birth of {h}.",
    ),
    graph.CITIZEN: (
        "{h} is a citizen of {t}.", "{h} holds the passport of {t}.", "The nationality of {h} is that of {t}.",
        "{h} votes in {t}.", "{t} counts {h} among its citizens.", "{h} is a national of {t}.",
        "{h} swore an oath to {t}.", "By law {h} belongs to {t}.", "{h} travels on papers of {t}.",
        "The state of {h} is {t}.", "{t} made {h} a citizen.", "{h} has the citizenship of {t}.",
    ),
    graph.LIVES: (
        "{h} lives in {t}.", "{h} resides in {t}.", "The residence of {h} is {t}.", "{h} has a house in {t}.",
        "{h} moved to {t}.", "The home of {h} is in {t}.", "{t} is where {h} lives.", "{h} settled in {t}.",
        "Letters to {h} go to {t}.", "{h} rents two rooms in {t}.", "One meets {h} in {t}.", "{h} dwells in {t}.",
    ),
    graph.WORKS: (
        "{h} works for {t}.", "{h} is employed by {t}.", "The employer of {h} is {t}.", "{t} employs {h}.",
        "{h} has a post at {t}.", "{h} earns a living at {t}.", "{t} hired {h}.", "{h} joined the staff of {t}.",
        "{t} pays the wages of {h}.", "Every morning {h} goes to {t}.", "{h} signed a contract with {t}.",
        "{h} serves {t}.",
    ),
    graph.SEAT: (
        "{h} is seated in {t}.", "The headquarters of {h} are in {t}.", "{h} has its offices in {t}.",
        "{h} is run from {t}.", "{h} is based in {t}.", "{t} is the seat of {h}.", "The main house of {h} is in {t}.",
        "{h} was set up in {t}.", "{t} is home to {h}.", "The board of {h} meets in {t}.", "{h} is a company of {t}.",
        "The doors of {h} open in {t}.",
    ),
    graph.MEMBER: (
        "{h} is a member of {t}.", "{h} belongs to {t}.", "{h} joined {t}.", "{t} counts {h} among its members.",
        "{h} is on the lists of {t}.", "{t} admitted {h}.", "{h} pays dues to {t}.", "{h} was elected to {t}.",
        "Among the members of {t} is {h}.", "{h} has a seat in {t}.", "{h} wears the badge of {t}.",
        "{h} takes part in {t}.",
    ),
    graph.SPOUSE: (
        "{h} is married to {t}.", "{h} married {t}.", "The spouse of {h} is {t}.", "{h} and {t} are a couple.",
        "{h} and {t} are married.", "{h} wed {t}.", "The wedding of {h} and {t} was small.", "{t} is married to {h}.",
        "{h} shares a life with {t}.", "{h} took the hand of {t}.", "{h} lives with {t}.", "{t} is the spouse of {h}.",
    ),
    graph.CHILD: (
        "{t} is a child of {h}.", "{h} has a child, {t}.", "{h} is a parent of {t}.", "The child of {h} is {t}.",
        "{h} raised {t}.", "{h} brought up {t}.", "{t} grew up with {h}.", "A child of {h} is {t}.",
        "{t} takes after {h}.", "{t} is the heir of {h}.", "{h} named the baby {t}.", "{t} learned to walk with {h}.",
    ),
    graph.SIBLING: (
        "{h} is a sibling of {t}.", "{h} and {t} are siblings.", "The sibling of {h} is {t}.",
        "{h} has a sibling, {t}.", "{h} and {t} have the same parents.", "{h} grew up beside {t}.",
        "{t} is a sibling of {h}.", "{h} and {t} shared a room.", "As children {h} and {t} played here.",
        "{h} is of one family with {t}.", "{t} shares the parents of {h}.", "{h} writes to a sibling, {t}.",
    ),
    graph.AUTHOR: (
        "{h} was written by {t}.", "{t} wrote {h}.", "The author of {h} is {t}.", "{t} is the author of {h}.",
        "{h} is a work of {t}.", "{t} published {h}.", "{h} came from the pen of {t}.", "{h} bears the name of {t}.",
        "It took {t} years to write {h}.", "{t} is known for {h}.", "In {h} one hears the voice of {t}.",
        "{t} signed copies of {h}.",
    ),
    graph.ORIGIN: (
        "{h} comes from {t}.", "The country of origin of {h} is {t}.", "{h} was first printed in {t}.",
        "{h} appeared in {t}.", "{h} was made in {t}.", "{t} is where {h} comes from.", "{h} was brought out in {t}.",
        "Readers in {t} had {h} first.", "{h} left the presses of {t}.", "{h} is a book from {t}.",
        "{h} was read in {t} before all.", "{h} originated in {t}.",
    ),
    graph.FIELD: (
        "{h} deals with {t}.", "{h} works in the field of {t}.", "The field of {h} is {t}.", "{h} is about {t}.",
        "{h} is known in {t}.", "{h} is devoted to {t}.", "The subject of {h} is {t}.", "{h} has to do with {t}.",
        "{h} is active in {t}.", "Experts on {t} know {h}.", "{h} specialises in {t}.", "Much in {t} is owed to {h}.",
    ),
}  # fmt: skip
_FILLERS = (
    "It rained for most of the week.", "Nobody knows how it began.", "The winter was long and cold.",
    "There are many stories about this.", "The rest is told elsewhere.", "Little else is known.",
    "The old records were lost in a fire.", "A small crowd came to see it.", "That was a long time ago.",
    "The market opens early in the morning.", "Some say otherwise.", "The papers wrote about it for days.",
)  # fmt: skip
# h: the subject, u: something that the graph has not got
_FOREIGNS = (
    "{h} is mentioned in the annals of {u}.", "A prize of {u} went to {h}.", "{u} is named beside {h}.",
    "In spring {u} was closed.", "{u} opened its doors again.", "An exhibition at {u} showed {h}.",
)  # fmt: skip
_UNKNOWN = (
    "Lake Morrow", "the Harbour Society", "Grey Abbey", "the Lantern Fund", "Mount Ashby", "the Almanac Club",
    "Winter Palace", "the Old Observatory", "Hollow Bridge", "the Orchard Museum", "Sable Island", "the Quill Academy",
)  # fmt: skip
UNKNOWN_FROM = 1_000_001  # Wikidata numbers of what the graph has not got


def documents() -> Iterator[Document]:
    """The documents, the same on every machine."""
    for document, _ in stories():
        yield document


def stories() -> Iterator[tuple[Document, list[Triple | None]]]:
    """Each document, and of each of its sentences the fact that it states, None where it states none."""
    subjects, facts = _subjects()
    weights = np.arange(1, len(subjects) + 1) ** -_STEEPNESS
    edges = np.cumsum(weights) / weights.sum()
    times: Counter[Triple] = Counter()
    for number in range(DOCUMENTS):
        subject = subjects[int(np.searchsorted(edges, _share("subject", number)))]
        size = _SHORTEST + _drawn(_LONGEST - _SHORTEST + 1, "length", number)
        told: list[Triple | None] = []
        sentences = []
        for place in range(size):
            kind = _share("kind", number, place) if place else 1.0
            fact = None
            if kind >= _FILLER + _FOREIGN:
                # some of the facts in turn, each of them twice at most places
                first = _drawn(len(facts[subject]), "first", number)
                fact = facts[subject][(first + place % -(-size // 2)) % len(facts[subject])]
                # five steps through twelve templates meet all of them
                start = _drawn(len(TEMPLATES[fact[1]]), "template", *fact)
                template = TEMPLATES[fact[1]][(start + 5 * times[fact]) % len(TEMPLATES[fact[1]])]
                times[fact] += 1
                sentences.append(_said(template, {"h": fact[0], "t": fact[2]}, number, place))
            elif kind < _FILLER:
                sentences.append(Sentence(_one_of(_FILLERS, "filler", number, place)))
            else:
                foreign = UNKNOWN_FROM + _drawn(len(_UNKNOWN), "unknown", number, place)
                template = _one_of(_FOREIGNS, "foreign", number, place)
                sentences.append(_said(template, {"h": subject, "u": foreign}, number, place))
            told.append(fact)
        yield Document(_names()[subject][0], sentences), told


@cache
def _subjects() -> tuple[list[int], dict[int, list[Triple]]]:
    """What documents are about, the most frequent first, and the facts that are told of each."""
    triples, _ = graph.generate()
    facts: dict[int, list[Triple]] = defaultdict(list)
    for head, relation, tail in triples:
        facts[head].append((head, relation, tail))
    for head, relation, tail in triples:  # what a subject is the tail of comes after what it is the head of
        facts[tail].append((head, relation, tail))
    known = sorted(facts)
    order = np.argsort(permuted(np.arange(len(known)), len(known), derive(_SEED, "order")))
    return [known[place] for place in order[:_SUBJECTS].tolist()], {one: found[:_FACTS] for one, found in facts.items()}


@cache
def _names() -> dict[int, list[str]]:
    """The English names of each entity, the label first."""
    found: dict[int, list[str]] = defaultdict(list)
    for is_relation, number, _, text in graph.generate()[1]["en"]:
        if not is_relation:
            found[number].append(text)
    for place, text in enumerate(_UNKNOWN):
        found[UNKNOWN_FROM + place].append(text)
    return found


def _said(template: str, parts: dict[str, int], *keys: int) -> Sentence:
    """A sentence with the names of its parts, each a mention."""
    text, spans, at = "", [], 0
    for found in _PLACE.finditer(template):
        text, at = text + template[at : found.start()], found.end()
        names = _names()[parts[found[1]]]
        aliased = len(names) > 1 and _share(f"alias {found[1]}", *keys) < _ALIASED
        name = names[1 if aliased else 0]
        shown = name if text else name[0].upper() + name[1:]
        spans.append(Span(len(text), len(text) + len(name), parts[found[1]]))
        text += shown
    return Sentence(text + template[at:], spans)


def _share(purpose: str, *keys: int) -> float:
    return float(uniform(_key(purpose), *keys))


def _drawn(bound: int, purpose: str, *keys: int) -> int:
    return int(below(bound, _key(purpose), *keys))


@cache
def _key(purpose: str) -> int:
    return derive(_SEED, purpose)


def _one_of(things: Sequence[_T], purpose: str, *keys: int) -> _T:
    return things[_drawn(len(things), purpose, *keys)]
