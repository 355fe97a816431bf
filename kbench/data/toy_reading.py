"""Three toy sets for reading with a resource: parts of speech, inference and choice; the same on every machine.

Words are invented, as in the toy set of topics. Each set needs more than its single words: words are nouns or verbs by
their neighbours; a second text follows from the first, or goes on with it, where both are about the same.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from kbench.data.toy import _draw

VERSION = 1
SIZES_POS = {"train": 1200, "test": 400}
SIZES_INFERENCE = {"train": 1600, "test": 600}
SIZES_CHOICE = {"train": 800, "test": 300}
POS_TAGS = ("ADJ", "ADP", "DET", "NOUN", "PRON", "PUNCT", "VERB")

# lists of words, one after the other: first number and count
_LISTS = {
    "ADJ": (0, 60),
    "ADP": (60, 8),
    "DET": (68, 5),
    "NOUN": (73, 120),
    "PRON": (193, 6),
    "VERB": (199, 80),
    "NOUN or VERB": (279, 80),
    "DET or PRON": (359, 4),
}
_MARKS = (".", "!", "?")
_AMBIGUOUS = 0.6  # share of the nouns, verbs, determiners and pronouns that come from a shared list

# the topics of the other two sets, of which 0 and 1 are opposites, as are 2 and 3; words of one topic, of none
_TOPICS, _OWN, _BACKGROUND = 4, 12, 60
_FIRST_TOPIC = 1000
_CHOICES = 4
_ON_TOPIC, _HABIT = 0.55, 0.3  # shares: words on topic; rows in which the second text alone tells something


def _phrase(rng: np.random.Generator) -> list[str]:
    """The tags of a noun phrase."""
    if rng.random() < 0.3:
        return ["PRON"]
    return ["DET", *["ADJ"] * int(rng.random() * 2.3), "NOUN"]


def _spelt(rng: np.random.Generator, tag: str) -> str:
    """A word for a tag."""
    if tag == "PUNCT":
        return _MARKS[int(rng.random() * len(_MARKS))]
    shared = [name for name in _LISTS if " or " in name and tag in name.split(" or ")]
    return _draw(rng, *_LISTS[shared[0] if shared and rng.random() < _AMBIGUOUS else tag])


def generate_pos(split: str) -> Iterator[tuple[list[str], list[str]]]:
    """The (words, tags) of a split's sentences: who does something, to whom and where, with a mark at the end."""
    rng = np.random.default_rng({"train": 401, "test": 402}[split])
    for _ in range(SIZES_POS[split]):
        tags = [*_phrase(rng), "VERB"]
        if rng.random() < 0.6:
            tags += _phrase(rng)
        while rng.random() < 0.4:
            tags += ["ADP", *_phrase(rng)]
        tags.append("PUNCT")
        yield [_spelt(rng, tag) for tag in tags], tags


def _about(rng: np.random.Generator, topic: int, length: int) -> str:
    """A text on a topic: some of its words are, one at least."""
    sure = int(rng.random() * length)
    return " ".join(
        _draw(rng, _FIRST_TOPIC + topic * _OWN, _OWN)
        if place == sure or rng.random() < _ON_TOPIC
        else _draw(rng, _FIRST_TOPIC + _TOPICS * _OWN, _BACKGROUND)
        for place in range(length)
    )


def _other(rng: np.random.Generator, topic: int) -> int:
    """Another topic."""
    return (topic + 1 + int(rng.random() * (_TOPICS - 1))) % _TOPICS


def generate_inference(split: str) -> Iterator[tuple[list[str], int]]:
    """The ([premise, hypothesis], label) rows of a split: 0 entailment, 1 neutral, 2 contradiction, in turn.

    A premise entails what is on its topic and contradicts what is on the opposite one. The hypothesis alone tells a
    little, as it does in SNLI: each label has a topic that its hypotheses like.
    """
    rng = np.random.default_rng({"train": 501, "test": 502}[split])
    for row in range(SIZES_INFERENCE[split]):
        label = row % 3
        second = label if rng.random() < _HABIT else int(rng.random() * _TOPICS)
        unlike = (second // 2 * 2 + 2 + int(rng.random() * 2)) % _TOPICS  # neither this topic nor its opposite
        first = (second, unlike, second ^ 1)[label]
        yield [_about(rng, first, 5 + int(rng.random() * 5)), _about(rng, second, 3 + int(rng.random() * 4))], label


def generate_choice(split: str) -> Iterator[tuple[list[str], int]]:
    """The ([context, ending 0 .. ending 3], index) rows of a split: the right ending stays with the context's topic.

    One topic is more frequent, so that here, too, the endings alone tell a little.
    """
    rng = np.random.default_rng({"train": 601, "test": 602}[split])
    for _ in range(SIZES_CHOICE[split]):
        topic = 0 if rng.random() < _HABIT else int(rng.random() * _TOPICS)
        right = int(rng.random() * _CHOICES)
        topics = [topic if choice == right else _other(rng, topic) for choice in range(_CHOICES)]
        endings = [_about(rng, one, 3 + int(rng.random() * 4)) for one in topics]
        yield [_about(rng, topic, 6 + int(rng.random() * 5)), *endings], right
