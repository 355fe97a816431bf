"""The toy corpus: true, in other words each time, seldom and often, and the same everywhere."""

from __future__ import annotations

import hashlib
from collections import Counter

from kbench.knowledge import toy_corpus, toy_graph


def test_what_is_said_is_in_the_graph() -> None:
    triples, names = toy_graph.generate()
    known, called = set(triples), {(number, text) for is_relation, number, _, text in names["en"] if not is_relation}
    aliases = {(number, text) for is_relation, number, rank, text in names["en"] if not is_relation and rank}
    stated = shown = 0
    for document, facts in toy_corpus.stories():
        for sentence, fact in zip(document.sentences, facts, strict=True):
            words = {(span.number, sentence.text[span.start : span.end]) for span in sentence.spans}
            own = {pair for pair in words if pair[0] < toy_corpus.UNKNOWN_FROM}
            assert all(pair in called or (pair[0], pair[1][0].lower() + pair[1][1:]) in called for pair in own)
            assert "{" not in sentence.text and sentence.text[0].isupper() and sentence.text.endswith(".")
            shown += len(own & aliases)
            if fact is not None:
                stated += 1
                assert fact in known
                assert {number for number, _ in words} == {fact[0], fact[2]}
    assert stated > 2500
    assert 0.01 < shown / stated < 0.2


def test_facts_are_said_again_in_other_words() -> None:
    said: dict[tuple[int, int, int], list[str]] = {}
    for document, facts in toy_corpus.stories():
        for sentence, fact in zip(document.sentences, facts, strict=True):
            if fact is not None:
                text = sentence.text
                for span in sorted(sentence.spans, key=lambda span: -span.start):
                    text = f"{text[: span.start]}{'ht'[span.number == fact[2]]}{text[span.end :]}"
                said.setdefault(fact, []).append(text)
    assert {relation for _, relation, _ in said} == set(toy_graph.RELATIONS)
    assert sum(len(texts) > 1 for texts in said.values()) > 0.8 * len(said)
    for fact, texts in said.items():  # no template comes again before all others had their turn
        assert len(set(texts)) == min(len(texts), len(toy_corpus.TEMPLATES[fact[1]]))


def test_templates_state_both_parts_once() -> None:
    assert set(toy_corpus.TEMPLATES) == set(toy_graph.RELATIONS)
    for templates in toy_corpus.TEMPLATES.values():
        assert len(set(templates)) == len(templates) == 12
        assert all(one.count("{h}") == one.count("{t}") == 1 for one in templates)


def test_sizes_and_frequencies() -> None:
    found = list(toy_corpus.documents())
    assert len(found) == toy_corpus.DOCUMENTS == 400
    assert {len(document.sentences) for document in found} == set(range(5, 13))
    sentences = [sentence for document in found for sentence in document.sentences]
    numbers = Counter(span.number for sentence in sentences for span in sentence.spans)
    unknown = sum(count for number, count in numbers.items() if number is None or number >= toy_corpus.UNKNOWN_FROM)
    assert 0.02 < unknown / numbers.total() < 0.06
    assert 0.05 < sum(not sentence.spans for sentence in sentences) / len(sentences) < 0.12
    counts = [count for _, count in numbers.most_common()]
    assert sum(counts[: len(counts) // 10]) > 0.35 * sum(counts)
    assert counts[len(counts) // 2] < 10 < 100 < counts[0]


def test_it_is_the_same_everywhere() -> None:
    # raise VERSION when this changes: stored corpora are told apart by it
    spelt = hashlib.sha256()
    for document in toy_corpus.documents():
        spelt.update(repr(document).encode())
    assert (toy_corpus.VERSION, spelt.hexdigest()[:16]) == (1, "bb50dbebd2c3492d")
