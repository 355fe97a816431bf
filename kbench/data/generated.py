"""Data sets whose rows kbench makes itself: by reader, the version, the rows of each split, and what makes a split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kbench.config.schema import Data
from kbench.data import (
    toy,
    toy_entities,
    toy_facts,
    toy_lama,
    toy_questions,
    toy_reading,
    toy_relations,
    toy_scores,
    toy_tacred,
    toy_typing,
)

# reader -> version, rows of each split, and what makes the (content, label, labels or score) of a split
GENERATORS: dict[str, tuple[int, Mapping[str, int], Any]] = {
    "toy": (toy.VERSION, toy.SIZES, lambda data, split: toy.generate(split, len(data.labels))),
    "toy_other": (toy.VERSION, toy.SIZES, lambda data, split: toy.generate(split, len(data.labels), other=True)),
    "toy_entities": (
        toy_entities.VERSION, toy_entities.SIZES, lambda data, split: _named(data, toy_entities.generate(split)),
    ),
    "toy_pos": (
        toy_reading.VERSION, toy_reading.SIZES_POS, lambda data, split: _named(data, toy_reading.generate_pos(split)),
    ),
    "toy_inference": (
        toy_reading.VERSION, toy_reading.SIZES_INFERENCE, lambda data, split: toy_reading.generate_inference(split),
    ),
    "toy_choice": (
        toy_reading.VERSION, toy_reading.SIZES_CHOICE, lambda data, split: toy_reading.generate_choice(split),
    ),
    "toy_relx": (toy_relations.VERSION, toy_relations.SIZES, toy_relations.generate),
    "toy_scores": (toy_scores.VERSION, toy_scores.SIZES, lambda data, split: toy_scores.generate(split)),
    "toy_tacred": (toy_tacred.VERSION, toy_tacred.SIZES, toy_tacred.generate),
    "toy_typing": (toy_typing.VERSION, toy_typing.SIZES, toy_typing.generate),
    "toy_qa": (toy_questions.VERSION, toy_questions.SIZES, lambda data, split: toy_questions.generate(split)),
    "toy_probe": (toy_facts.VERSION, toy_facts.SIZES, lambda data, split: toy_facts.generate(split)),
    "toy_lama": (toy_lama.VERSION, toy_lama.SIZES, toy_lama.generate),
}  # fmt: skip


def _named(data: Data, made: Iterator[tuple[list[str], list[str]]]) -> Iterator[tuple[list[str], list[int]]]:
    """Generated sentences with indices in place of the tags' names."""
    index = {name: position for position, name in enumerate(data.outputs())}
    return ((words, [index[tag] for tag in tags]) for words, tags in made)
