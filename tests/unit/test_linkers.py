"""The alias linker: its rules one by one, and all together against a plain search of every name at every place."""

from __future__ import annotations

import random
import unicodedata
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from kbench.cli import build
from kbench.errors import ConfigError
from kbench.knowledge import word_hashes
from kbench.knowledge.graph import Graph, graph_stage
from kbench.knowledge.linkers import AliasLinker, common_words
from kbench.knowledge.readers import locate
from kbench.knowledge.word_hashes import HashedText, HashFilter
from kbench.stages.store import Store

from .test_graph_readers import write_tables

# 1 is in four triples, 2 in two, 3 to 5 in fewer
TRIPLES = [(1, 2), (1, 3), (1, 6), (1, 7), (2, 8), (4, 9), (5, 9), (10, 11), (12, 10), (13, 11), (14, 11), (15, 16)]


def make(folder: Path, names: dict[int, list[str]], triples: list[tuple[int, int]] = TRIPLES) -> Graph:
    """A graph of one relation whose entities have some names, the first one their label."""
    rows = [f"Q{head}\tP1\tQ{tail}\n" for head, tail in triples]
    # every entity has a name, some one that is in no text
    texts = {number: names.get(number, [f"~{number}~"]) for pair in triples for number in pair}
    told = [f"Q{number}\ten\t{rank}\t{text}\n" for number, some in texts.items() for rank, text in enumerate(some)]
    files = {"triples": "".join(rows), "entities": "".join(told), "relations": "P1\ten\t0\trelation\n"}
    knowledge = replace(write_tables(folder / "files", **files), languages=["en"])
    return Graph(Store(folder / "stages").get(graph_stage(knowledge, locate(knowledge))))


def found(linker: AliasLinker, graph: Graph, text: str) -> list[tuple[str, int]]:
    """The mentions of a text as they are written, with Wikidata numbers."""
    (links,) = linker.link([text])
    assert all(one[1] <= two[0] for one, two in pairwise(links))
    return [(text[start:end], int(graph.entities[entity])) for start, end, entity, _ in links]


NAMES = {
    1: ["New York", "Big Apple", "NYC"], 2: ["York"], 3: ["Battle of Hastings"], 4: ["Hastings United"],
    5: ["machine learning"], 6: ["The Who", "Who"], 7: ["WHO", "apple", "World Health Organization"],
    8: ["Apple"], 9: ["iPhone"], 10: ["Yahoo!"], 11: ["(500) Days"], 12: ["Île-de-France"], 13: ["1984"], 14: ["Bath"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "links"),
    [
        ("From York to New York.", [("York", 2), ("New York", 1)]),  # the longest
        ("New Yorker, Yorkshire, NewYork", []),  # whole words
        ('New York\'s, "New York"-based', [("New York", 1), ("New York", 1)]),
        ("New  York", [("York", 2)]),
        ("the Battle of Hastings United", [("Battle of Hastings", 3)]),  # of two that overlap the longer
        ("NEW YORK, new york, new York", [("NEW YORK", 1), ("York", 2)]),  # as many capitals as the name
        ("Machine learning and machine learning", [("Machine learning", 5), ("machine learning", 5)]),
        ("the who, The who, The Who, THE WHO", [("The Who", 6), ("THE WHO", 6)]),
        ("Iphone, iphone, iPhone, IPHONE", [("Iphone", 9), ("iPhone", 9), ("IPHONE", 9)]),
        ("Apple, apple, APPLE", [("Apple", 8), ("APPLE", 8)]),  # "apple" is a single word in lower case
        ("NYC and Who", []),  # fewer than 4 letters
        ("in 1984", []),  # no letters at all
        ("Yahoo! and Yahoo", [("Yahoo!", 10)]),
        ("See(500) Days", [("(500) Days", 11)]),
        ("Île-de-France, île-de-France, E\u0301le-de-France", [("Île-de-France", 12)]),
        ("Bath bath", [("Bath", 14)]),
        ("", []),
    ],
)
def test_rules(text: str, links: list[tuple[str, int]], tmp_path: Path) -> None:
    graph = make(tmp_path, NAMES)
    assert found(AliasLinker(graph, "en"), graph, text) == links


def test_options(tmp_path: Path) -> None:
    graph = make(tmp_path, NAMES)
    default = AliasLinker(graph, "en")
    short = AliasLinker(graph, "en", shortest=3)
    assert found(short, graph, "NYC, Who, WHO") == [("NYC", 1), ("Who", 6), ("WHO", 7)]
    lower = AliasLinker(graph, "en", lower_case=True)
    assert found(lower, graph, "An apple and Apple, a BATH, no bath") == [("apple", 7), ("Apple", 8), ("BATH", 14)]
    common = AliasLinker(graph, "en", common={"bath", "york"})
    assert found(common, graph, "Bath, York, New York") == [("New York", 1)]
    assert (default.names, short.names, lower.names, common.names) == (14, 16, 14, 12)


def test_an_ambiguous_name_is_the_best_connected_entitys(tmp_path: Path) -> None:
    graph = make(tmp_path, {1: ["Paris"], 2: ["Paris", "PARIS"], 9: ["Paris"], 8: ["Berlin"], 4: ["Bonn"]})
    linker = AliasLinker(graph, "en")
    degree = Counter(number for pair in TRIPLES for number in pair)
    whole = degree[1] + degree[2] + degree[9]
    assert linker.link(["Paris", "Berlin"]) == [[(0, 5, 0, pytest.approx(degree[1] / whole))], [(0, 6, 7, 1.0)]]
    # 2 and 8 share a triple, 9 and 4 do, too; what is written just so goes before that
    assert found(linker, graph, "Paris and Berlin") == [("Paris", 2), ("Berlin", 8)]
    assert found(linker, graph, "Bonn, Paris") == [("Bonn", 4), ("Paris", 9)]
    assert found(linker, graph, "Bonn, PARIS") == [("Bonn", 4), ("PARIS", 2)]
    assert linker.link(["Paris and", "Berlin"])[0][0][2] == 0
    assert linker.link(["Paris and", "Berlin"], [5, 5])[0][0][2] == 1  # of one document
    assert linker.link(["Paris and", "Berlin"], [5, 6])[0][0][2] == 0


def test_equally_connected_entities_are_told_apart_by_number(tmp_path: Path) -> None:
    graph = make(tmp_path, {15: ["Same"], 16: ["Same"]})
    assert found(AliasLinker(graph, "en"), graph, "Same") == [("Same", 15)]


def test_given_spans_are_looked_up_whole(tmp_path: Path) -> None:
    graph = make(tmp_path, NAMES)
    linker = AliasLinker(graph, "en", common={"bath"})
    texts = ["In NYC, bath and apple of Yorkshire", "", "the WHO"]
    spans = [[(3, 6), (17, 22), (8, 12), (3, 12), (26, 30)], [], [(4, 7)]]
    links = linker.link_spans(texts, spans)
    assert [[one[:2] for one in found] for found in links] == spans
    numbers = [[int(graph.entities[one[2]]) if one[2] >= 0 else None for one in found] for found in links]
    # a name is one, however short, and wherever it is said to stand
    assert numbers == [[1, 7, 14, None, 2], [], [7]]
    assert [one[3] for one in links[0]] == [1.0, 1.0, 1.0, 0.0, 1.0]
    assert linker.link_spans(["Paris"], [[]]) == [[]]
    assert linker.link_spans([], []) == []
    assert linker.link([]) == []


LETTERS = "aAbBcÉé. -1"


def words_at(text: str, start: int, end: int) -> bool:
    """Whether a piece begins and ends where a word does."""

    def inside(place: int) -> bool:
        return 0 < place < len(text) and all(
            one == "_" or unicodedata.category(one)[0] in "LMN" for one in text[place - 1 : place + 1]
        )

    return not inside(start) and not inside(end)


def naive(names: list[tuple[int, str]], degree: Counter[int], text: str, shortest: int, lower: bool) -> list[tuple]:
    """All names at all places, one after another."""

    def capitals(piece: str) -> int:
        return sum(one != one.lower() for one in piece)

    able = [
        (number, name)
        for number, name in names
        if sum(map(str.isalpha, name)) >= shortest and (lower or capitals(name) or " " in name)
    ]
    hits: dict[tuple[int, int], list[tuple[int, str]]] = {}
    for start in range(len(text)):
        for number, name in able:
            piece = text[start : start + len(name)]
            same = piece.lower() == name.lower() and capitals(piece) >= capitals(name)
            if same and words_at(text, start, start + len(name)):
                hits.setdefault((start, start + len(name)), []).append((number, name))
    taken: list[tuple] = []
    for (start, end), candidates in sorted(hits.items(), key=lambda one: (one[0][0] - one[0][1], one[0])):
        if all(end <= other[0] or start >= other[1] for other in taken):
            spelt_so = {number for number, name in candidates if name == text[start:end]}
            numbers = spelt_so or {number for number, _ in candidates}
            best = min(numbers, key=lambda number: (-degree[number], number))
            taken.append((start, end, best, degree[best] / sum(degree[number] for number in numbers)))
    return sorted(taken)


@pytest.mark.parametrize("lower", [False, True])
def test_random_names_and_texts_against_a_plain_search(
    lower: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(3)

    def drawn(most: int) -> str:
        return " ".join("".join(rng.choices(LETTERS, k=rng.randint(1, most))).split()).strip()

    # the entities that have names share no triple with each other: the text around tells nothing
    triples = [(number, 1000 + rng.randint(0, 20)) for number in range(1, 61) for _ in range(rng.randint(1, 4))]
    triples = list(dict.fromkeys(triples))
    names = {number: [name for name in dict.fromkeys(drawn(5) for _ in range(6)) if name] for number in range(1, 61)}
    graph = make(tmp_path, names, triples)
    degree = Counter(number for pair in triples for number in pair)
    texts = [drawn(60) for _ in range(400)]
    monkeypatch.setattr("kbench.knowledge.linkers.PORTION", 500)  # several portions
    links = AliasLinker(graph, "en", shortest=2, lower_case=lower).link(texts)
    listed = [(number, name) for number, found in names.items() for name in found]
    wanted = [naive(listed, degree, text, 2, lower) for text in texts]
    numbers = [[(start, end, int(graph.entities[one]), score) for start, end, one, score in found] for found in links]
    assert numbers == wanted
    assert sum(map(len, wanted)) > 300
    assert any(score < 1 for found in wanted for *_, score in found)


def test_common_words_are_those_in_lower_case() -> None:
    texts = ["The apple, the Pear and London", "an apple of London 7th", "London the_end Éclair éclair"]
    assert common_words(texts, 2) == {"the", "apple"}
    assert common_words(texts, 4) == {"the", "apple", "an", "and"}  # equally common ones by the alphabet
    assert common_words(texts, 100) == {"the", "apple", "an", "and", "of", "th", "end", "éclair"}
    assert common_words(texts, 0) == set()


def test_common_words_of_a_text_with_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kbench.knowledge.linkers._WORDS", 100)
    letters = "abcdefghijklmnopqrst"
    rare = [one + two + three for one in letters for two in letters for three in letters]
    texts = [f"usual {word} often usual" for word in rare] + ["often"]
    assert common_words(texts, 1) == {"usual"}
    assert common_words(iter(texts), 2) == {"usual", "often"}


def test_hashes_tell_pieces_apart_wherever_they_stand() -> None:
    texts = ["ab Ab", "", "\ud800x ab", "É"]
    piece = HashedText(texts)
    joined = "\n".join(texts)
    assert [joined[begin:end] for begin, end in zip(piece.begins, piece.ends, strict=True)] == texts
    assert [joined[start:stop] for start, stop in zip(piece.starts, piece.stops, strict=True)] == [
        "ab", "Ab", "\ud800", "x", "ab", "É",
    ]  # fmt: skip
    whole, written = piece.hashes(piece.starts, piece.stops), piece.spelt(piece.starts, piece.stops)
    assert whole[0] == whole[1] == whole[4]
    assert written[0] == written[4] != written[1]
    assert len(set(whole.tolist())) == 4
    # the same in another text, and with the powers of the base made anew for a longer one
    word_hashes._held.clear()
    other = HashedText(["x" * (3 * word_hashes.PORTION) + " aB"])
    assert other.hashes(other.starts, other.stops)[-1] == whole[0]


def test_a_filter_has_what_is_in_it_and_little_else() -> None:
    numbers = word_hashes._numbers()[:20_000]
    filtered = HashFilter(numbers[:10_000])
    assert filtered.may_have(numbers[:10_000]).all()
    assert filtered.may_have(numbers[10_000:]).mean() < 1 / 12
    assert not HashFilter(np.empty(0, dtype=np.uint64)).may_have(numbers).any()


def test_build_corpus_prints_counts_and_sentences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build.run(["corpus", "knowledge=toy", f"outputs={tmp_path}", "knowledge.corpus.documents=20"]) == 0
    told = capsys.readouterr().out
    assert "corpus   toy, linked by prelinked\n" in told
    assert f"{'documents':<56} {20:>15,}" in told
    shown = [line for line in told.splitlines() if line.startswith("text ")]
    assert 1 < len(shown) <= 10
    assert all("|Q" in line or "|?" in line for line in shown)


def test_build_corpus_of_a_graph_without_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        build.run(["corpus", "knowledge=wikidata_mini", f"outputs={tmp_path}"])
    (problem,) = raised.value.problems
    assert str(problem) == (
        "knowledge.corpus: is null: wikidata_mini has no text with mentions "
        "(take another graph, such as knowledge=redocred)"
    )
