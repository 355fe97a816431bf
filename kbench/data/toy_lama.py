"""The toy set in LAMA's form: facts of the toy graph as sentences with a gap that one word fills.

Six relations: where people were born, stands for Google-RE's place of birth, and five of Wikidata's stand for T-REx's.
Texts of a row are those of kbench/data/facts.py, with the ids of the graph, so that a model that was trained on the
graph or on text about it can be asked, and it can be told which facts it was shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from kbench.data import toy_graph
from kbench.data.prompts import OBJECT, SUBJECT
from kbench.engine.counter import mixed
from kbench.engine.seeding import derive
from kbench.errors import DataError, Problem

if TYPE_CHECKING:
    from kbench.config.schema import Data

# 100 times that of the graph, whose facts they are, and its own
VERSION = 100 * toy_graph.VERSION + 1
# LAMA's name of a relation -> its number in the graph, and the sentence
RELATIONS = {
    "place_of_birth": (toy_graph.BORN, f"{SUBJECT} was born in {OBJECT}."),
    "P27": (toy_graph.CITIZEN, f"{SUBJECT} is a citizen of {OBJECT}."),
    "P551": (toy_graph.LIVES, f"{SUBJECT} lives in {OBJECT}."),
    "P159": (toy_graph.SEAT, f"The headquarters of {SUBJECT} are in {OBJECT}."),
    "P495": (toy_graph.ORIGIN, f"{SUBJECT} was made in {OBJECT}."),
    "P101": (toy_graph.FIELD, f"{SUBJECT} works in the field of {OBJECT}."),
}
_FACTS = 80  # of a relation
SIZES = {"test": _FACTS * len(RELATIONS)}


def generate(data: Data, split: str) -> Iterator[tuple[list[str], int]]:
    """The (texts, relation) rows of a split, relation by relation; which facts are asked is a keyed draw.

    Raises:
        DataError: other labels than it has.
    """
    if split not in SIZES:
        raise ValueError(f"no such split: {split}")
    if list(data.labels) != list(RELATIONS):
        raise DataError(Problem("data.labels", "are not those of toy_lama", f"write: {', '.join(RELATIONS)}"))
    triples, names = toy_graph.generate()
    labels = {number: text for relation, number, rank, text in names["en"] if not relation and rank == 0}
    for index, (name, (number, template)) in enumerate(RELATIONS.items()):
        facts = np.array([(head, tail) for head, relation, tail in triples if relation == number])
        order = np.argsort(mixed(derive(0, "toy lama"), number, facts[:, 0], facts[:, 1]), kind="stable")
        for head, tail in facts[np.sort(order[:_FACTS])].tolist():
            prompt = template.replace(SUBJECT, labels[head])
            yield [prompt, labels[tail], labels[head], f"Q{head}", name, f"Q{tail}"], index
