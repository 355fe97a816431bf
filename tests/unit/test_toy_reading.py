"""The generated sets for reading: what they promise, that they stay the same, and what single words do not tell."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from kbench.data.toy import _word
from kbench.data.toy_reading import (
    _FIRST_TOPIC,
    _OWN,
    _TOPICS,
    POS_TAGS,
    SIZES_CHOICE,
    SIZES_INFERENCE,
    SIZES_POS,
    generate_choice,
    generate_inference,
    generate_pos,
)

SETS: dict[str, tuple[Callable[[str], Iterable[Any]], dict[str, int]]] = {
    "pos": (generate_pos, SIZES_POS),
    "inference": (generate_inference, SIZES_INFERENCE),
    "choice": (generate_choice, SIZES_CHOICE),
}
HASHES = {
    "pos": ("9b6aabb0bd028897", "cceed291657c7d0c"),
    "inference": ("d445fdf55c1edb51", "78700a0c246f3dc9"),
    "choice": ("a72edd5296fa3d80", "c77960ed278e531e"),
}


@pytest.mark.parametrize("name", sorted(SETS))
def test_rows_are_the_same_everywhere_and_differ_between_splits(name: str) -> None:
    generate, sizes = SETS[name]
    rows = {split: list(generate(split)) for split in ("train", "test")}
    assert {split: len(found) for split, found in rows.items()} == sizes
    hashes = tuple(hashlib.sha256(repr(found).encode()).hexdigest()[:16] for found in rows.values())
    assert hashes == HASHES[name]
    train = {repr(content) for content, _ in rows["train"]}
    assert len(train) > 0.99 * sizes["train"]
    assert sum(repr(content) in train for content, _ in rows["test"]) < 0.02 * sizes["test"]


def most_frequent(counts: Counter[Any]) -> Any:
    return counts.most_common(1)[0][0]


def test_sentences_have_a_tag_for_each_word_and_all_tags() -> None:
    rows = list(generate_pos("train"))
    assert all(len(words) == len(tags) and words and all(words) for words, tags in rows)
    assert all(tags.count("PUNCT") == 1 and tags[-1] == "PUNCT" for _, tags in rows)
    counts = Counter(tag for _, tags in rows for tag in tags)
    assert sorted(counts) == list(POS_TAGS)
    assert min(counts.values()) > 0.05 * sum(counts.values())
    # hardly a word of the test split is unknown
    known = {word for words, _ in rows for word in words}
    test = [word for words, _ in generate_pos("test") for word in words]
    assert sum(word in known for word in test) > 0.99 * len(test)


def test_words_alone_decide_most_tags_and_their_neighbours_the_rest() -> None:
    by_word: defaultdict[str, Counter[str]] = defaultdict(Counter)
    by_tags: defaultdict[tuple[str, str, frozenset[str]], Counter[str]] = defaultdict(Counter)
    for words, tags in generate_pos("train"):
        for word, tag in zip(words, tags, strict=True):
            by_word[word][tag] += 1
    tags_of = {word: frozenset(counts) for word, counts in by_word.items()}
    ambiguous = {word for word, tags in tags_of.items() if len(tags) > 1}
    assert {tags_of[word] for word in ambiguous} == {frozenset({"NOUN", "VERB"}), frozenset({"DET", "PRON"})}
    assert len(ambiguous) > 60

    right: Counter[str] = Counter()
    total = 0
    for split in ("train", "test"):
        for words, tags in generate_pos(split):
            sets = [frozenset(), *(tags_of.get(word, frozenset()) for word in words), frozenset()]
            for place, (word, tag) in enumerate(zip(words, tags, strict=True)):
                around = by_tags[tuple(sets[place : place + 3])]  # type: ignore[index]
                if split == "train":
                    around[tag] += 1
                    continue
                total += 1
                right["word"] += bool(by_word.get(word)) and most_frequent(by_word[word]) == tag
                right["around"] += bool(around) and most_frequent(around) == tag
    assert 0.8 < right["word"] / total < 0.9
    assert right["around"] / total > right["word"] / total + 0.05


def topic_words() -> list[set[str]]:
    """The words of each topic."""
    firsts = [_FIRST_TOPIC + topic * _OWN for topic in range(_TOPICS)]
    return [{_word(first + place) for place in range(_OWN)} for first in firsts]


def topic(text: str, topics: list[set[str]]) -> int:
    counts = [sum(word in own for word in text.split()) for own in topics]
    assert sorted(counts)[-2] == 0  # a text is on one topic
    return counts.index(max(counts))


def test_a_label_follows_from_both_topics() -> None:
    topics = topic_words()
    for split in SIZES_INFERENCE:
        seen: Counter[int] = Counter()
        for (premise, hypothesis), label in generate_inference(split):
            assert 5 <= len(premise.split()) <= 9
            assert 3 <= len(hypothesis.split()) <= 6
            pair = topic(premise, topics), topic(hypothesis, topics)
            assert label == (0 if pair[0] == pair[1] else 2 if pair[0] ^ 1 == pair[1] else 1)
            seen[label] += 1
        assert max(seen.values()) - min(seen.values()) <= 1
        assert sorted(seen) == [0, 1, 2]


def test_the_right_ending_is_on_the_topic_of_the_context() -> None:
    topics = topic_words()
    for split, size in SIZES_CHOICE.items():
        rights: Counter[int] = Counter()
        for (context, *endings), right in generate_choice(split):
            assert len(endings) == 4
            assert 6 <= len(context.split()) <= 10
            assert all(3 <= len(ending.split()) <= 6 for ending in endings)
            on = topic(context, topics)
            assert [topic(ending, topics) == on for ending in endings] == [place == right for place in range(4)]
            rights[right] += 1
        assert len(rights) == 4
        assert min(rights.values()) > 0.2 * size


@pytest.mark.parametrize("side", [0, 1])
def test_one_text_alone_tells_a_little_of_the_label(side: int) -> None:
    topics = topic_words()
    counts: defaultdict[int, Counter[int]] = defaultdict(Counter)
    for texts, label in generate_inference("train"):
        counts[topic(texts[side], topics)][label] += 1
    rows = list(generate_inference("test"))
    share = sum(most_frequent(counts[topic(texts[side], topics)]) == label for texts, label in rows) / len(rows)
    assert 0.36 < share < 0.6


def test_endings_alone_tell_a_little_of_the_choice() -> None:
    topics = topic_words()
    right_topics: Counter[int] = Counter()
    for (_, *endings), right in generate_choice("train"):
        right_topics[topic(endings[right], topics)] += 1
    rows = list(generate_choice("test"))
    share = sum(
        max(range(4), key=lambda place: right_topics[topic(endings[place], topics)]) == right
        for (_, *endings), right in rows
    ) / len(rows)
    assert 0.3 < share < 0.6
