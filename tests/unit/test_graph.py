"""The graph's arrays and names: against a plain reading, with everything that may stand in a file twice or nowhere."""

from __future__ import annotations

import random
from collections import defaultdict
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from kbench.config.knowledge import Knowledge
from kbench.errors import DataError
from kbench.knowledge import graph as module
from kbench.knowledge import toy_graph
from kbench.knowledge.graph import Graph, _first_of_equals, graph_stage
from kbench.knowledge.readers import locate
from kbench.stages.store import Store

from .test_graph_readers import CONTENT, make_knowledge, write, write_tables


def build(knowledge: Knowledge, folder: Path) -> Graph:
    return Graph(Store(folder).get(graph_stage(knowledge, locate(knowledge))))


def names_of(graph: Graph, language: str) -> list[list[str]]:
    """Every item's names."""
    names = graph.names(language)
    texts = names.texts.to_pylist()
    return [texts[end - count : end] for end, count in zip(names.ends, names.counts, strict=True)]


def test_ids_triples_and_names(tmp_path: Path) -> None:
    triples = "Q90\tP7\tQ5\nQ5\tP3\tQ5\nQ5\tP3\tQ90\nQ90\tP7\tQ5\nQ2\tP3\tQ90\nQ5\tP3\tQ90\n"
    entities = "Q90\ten\t2\tlast\nQ90\ten\t0\tninety\nQ90\ten\t1\t ninety \nQ5\ten\t1\talias\nQ5\tde\t0\tfünf\n"
    entities += "Q1\ten\t0\telsewhere\nQ2\ten\t0\t \nQ2\tde\t0\tzwei\n"
    relations = "P3\ten\t0\tthree\nP7\ten\t0\tseven\n"
    knowledge = write_tables(tmp_path / "files", triples=triples, entities=entities, relations=relations)
    graph = build(knowledge, tmp_path / "stages")
    assert graph.entities.tolist() == [2, 5, 90]
    assert graph.relations.tolist() == [3, 7]
    assert graph.items == 5
    assert graph.relation_item(1) == 4
    assert graph.triples.tolist() == [[2, 1, 1], [1, 0, 2], [0, 0, 2]]
    assert (graph.entities.dtype, graph.triples.dtype) == (np.int64, np.int32)
    assert graph.languages == ("en", "de")
    assert names_of(graph, "en") == [[], ["alias"], ["ninety", "last"], ["three"], ["seven"]]
    assert names_of(graph, "de") == [["zwei"], ["fünf"], [], [], []]
    english = graph.names("en")
    assert english.has.tolist() == [False, True, True, True, True]
    assert (english.label(0), english.label(2)) == (None, "ninety")
    assert english.labels(np.array([4, 2, 2])) == ["seven", "ninety", "ninety"]
    with pytest.raises(ValueError, match="item 0 has no name in en"):
        english.labels(np.array([1, 0]))
    assert graph.info["languages"] == {"en": {"labels": 4, "names": 5}, "de": {"labels": 2, "names": 2}}
    assert graph.info["skipped"] == {
        "self_loops": 1, "duplicates": 2, "nameless_triples": 0, "nameless_items": 0, "empty_names": 1,
        "names_of_others": 1,
    }  # fmt: skip


def test_names_may_hold_anything_visible(tmp_path: Path) -> None:
    entities = "Q1\ten\t0\ta|b. ｜．\nQ1\ten\t1\ta\u2028b\x00c\nQ2\tde\t0\tx\nQ3\tde\t0\t🌎\n"
    graph = build(write_tables(tmp_path / "files", entities=entities), tmp_path / "stages")
    assert names_of(graph, "en")[0] == ["a|b. ｜．", "a b c"]
    assert graph.names("de").label(2) == "🌎"


def test_a_nameless_triple_stays_in_the_graph_and_is_counted(tmp_path: Path) -> None:
    entities = CONTENT["entities.tsv"].replace("Q3", "Q1")
    graph = build(write_tables(tmp_path / "files", entities=entities), tmp_path / "stages")
    assert len(graph.triples) == 2
    assert graph.info["skipped"]["nameless_triples"] == 1
    assert graph.info["skipped"]["nameless_items"] == 1


@pytest.mark.parametrize(
    ("changes", "languages", "where", "words"),
    [
        ({}, ["en", "fr", "de"], "knowledge.languages", "not a single name in fr (there are names in: de, en;"),
        ({"triples": "Q1\tP1\tQ1\n"}, ["en", "de"], "knowledge.files.triples", "nothing but triples of an entity with"),
        ({"triples": "Q7\tP1\tQ8\n"}, ["en", "de"], "knowledge.files", "no triple has a name for each of its three"),
        ({"entities": "Q2\tde\t0\t \n", "relations": "P1\ten\t0\ta\n"}, ["en", "de"], "knowledge.languages", "in de"),
    ],
)
def test_a_graph_that_cannot_be_used(
    changes: dict[str, str], languages: list[str], where: str, words: str, tmp_path: Path
) -> None:
    knowledge = write_tables(tmp_path / "files", **changes)
    knowledge.languages = languages
    with pytest.raises(DataError) as raised:
        build(knowledge, tmp_path / "stages")
    (problem,) = raised.value.problems
    assert problem.where == where
    assert words in str(problem)
    assert not list((tmp_path / "stages").rglob("*.npy"))  # nothing half done is left


def test_the_stage_knows_content_languages_and_reader_but_no_folder(tmp_path: Path) -> None:
    one, other = write_tables(tmp_path / "a"), write_tables(tmp_path / "b", ".gz")
    key = graph_stage(one, locate(one)).key
    same = write_tables(tmp_path / "c")
    same.seed, same.cycles.per_chord = 5, 3
    assert graph_stage(same, locate(same)).key == key
    assert graph_stage(other, locate(other)).key != key
    same.languages = ["de", "en"]
    assert graph_stage(same, locate(same)).key != key
    write(tmp_path / "a" / "triples.tsv", "Q1\tP1\tQ3\n")
    assert graph_stage(one, locate(one)).key != key


def test_the_content_is_that_of_triples_and_names(tmp_path: Path) -> None:
    plain = build(write_tables(tmp_path / "a"), tmp_path / "stages")
    packed = build(write_tables(tmp_path / "b", ".gz"), tmp_path / "stages")
    assert plain.folder != packed.folder
    assert plain.content == packed.content
    entities = CONTENT["entities.tsv"].replace("unit", "Unit")
    other = build(write_tables(tmp_path / "c", entities=entities), tmp_path / "stages")
    assert other.content != plain.content


@pytest.mark.parametrize("table", [True, False])
@pytest.mark.parametrize("batch", [2**31 - 1, 64])
def test_a_random_graph_against_a_plain_reading(
    table: bool, batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SPARSE", 10**9 if table else 0)
    monkeypatch.setattr(module, "_TEXT_BYTES", batch)
    rng = random.Random(7)
    triples = [(rng.randrange(40), rng.randrange(5), rng.randrange(40)) for _ in range(400)]
    words = ["a", "b", " a", "b  b", "", "é", "e\u0301", "ab"]
    rows = [(rng.randrange(50), rng.choice(("en", "de")), rng.randrange(3), rng.choice(words)) for _ in range(300)]
    named = {(0, "en"): ["zero"], (1, "de"): ["eins"]}
    files = {
        "triples": "".join(f"Q{head * 1000}\tP{relation}\tQ{tail * 1000}\n" for head, relation, tail in triples),
        "entities": "".join(f"Q{entity * 1000}\t{language}\t{rank}\t{text}\n" for entity, language, rank, text in rows),
        "relations": "".join(f"P{number}\t{language}\t0\t{text[0]}\n" for (number, language), text in named.items()),
    }
    graph = build(write_tables(tmp_path / "files", **files), tmp_path / "stages")

    kept = list(dict.fromkeys(triple for triple in triples if triple[0] != triple[2]))
    entities = sorted({entity for head, _, tail in kept for entity in (head, tail)})
    relations = sorted({relation for _, relation, _ in kept})
    expected = [[entities.index(h), relations.index(r), entities.index(t)] for h, r, t in kept]
    assert graph.entities.tolist() == [1000 * entity for entity in entities]
    assert graph.triples.tolist() == expected
    for language in ("en", "de"):
        found = defaultdict(list)
        for entity, _, _, text in sorted((row for row in rows if row[1] == language), key=lambda row: row[2]):
            clean = {"é": "é", "e\u0301": "é"}.get(text, " ".join(text.split()))
            if clean and clean not in found[entity]:
                found[entity].append(clean)
        own = [found[entity] for entity in entities] + [named.get((relation, language), []) for relation in relations]
        assert names_of(graph, language) == own
        has = np.flatnonzero(graph.names(language).has)
        assert graph.names(language).labels(has) == [own[item][0] for item in has]
        assert (graph.names(language).texts.num_chunks > 1) == (batch == 64)
    assert graph.info["skipped"]["duplicates"] == len([t for t in triples if t[0] != t[2]]) - len(kept)
    used = [row for row in rows if row[0] in entities]
    assert graph.info["skipped"]["empty_names"] == sum(not text.strip() for *_, text in used)
    assert graph.info["skipped"]["names_of_others"] == len(rows) - len(used)


def test_equal_triples_are_told_without_a_64_bit_key_too() -> None:
    triples = np.random.default_rng(0).integers(0, 4, (200, 3)).astype(np.int32)
    first = [triple not in triples.tolist()[:place] for place, triple in enumerate(triples.tolist())]
    assert _first_of_equals(triples, 4, 4).tolist() == first
    assert _first_of_equals(triples, 2**30, 2**20).tolist() == first
    assert _first_of_equals(triples[:3] * 0 + np.arange(3, dtype=np.int32)[:, None], 4, 4).all()


def test_equal_hashes_do_not_make_names_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pl.DataFrame({"item": [0, 0, 0, 1, 2, 2], "text": ["a", "b", "a", "a", "c", "d"]})
    expected = [(0, "a"), (0, "b"), (1, "a"), (2, "c"), (2, "d")]
    assert module._distinct(frame).rows() == expected
    monkeypatch.setattr(module, "mixed", lambda items: frame["text"].hash().to_numpy())  # every hash becomes 0
    assert module._distinct(frame).rows() == expected


def test_the_toy_graph(tmp_path: Path) -> None:
    graph = build(make_knowledge(languages=list(toy_graph.LANGUAGES)), tmp_path)
    triples, names = toy_graph.generate()
    assert 600 <= len(graph.entities) <= 1500
    numbers = zip(*(table[column] for table, column in zip(
        (graph.entities, graph.relations, graph.entities), graph.triples.T, strict=True)), strict=True)  # fmt: skip
    assert [tuple(map(int, row)) for row in numbers] == triples
    for language in graph.languages:
        relations = [graph.names(language).label(graph.relation_item(r)) for r in range(len(graph.relations))]
        expected = {number: text for of_relation, number, rank, text in names[language] if of_relation and rank == 0}
        assert relations == [expected[number] for number in graph.relations]
    with pytest.raises(DataError, match="there are names in: en, xa, xb, xc"):
        build(make_knowledge(languages=["en", "fr"]), tmp_path)


def test_the_small_real_graph(real_data: Path, tmp_path: Path) -> None:
    files = {"triples": "triples.tsv.gz", "entities": "entities.tsv.gz", "relations": "relations.tsv"}
    folder = real_data / "wikidata-mini"
    languages = ["en", "fr", "nl", "es", "ja", "zh", "de", "ko", "it", "vi"]
    knowledge = make_knowledge(reader="wikidata_tables", languages=languages, files=files, path=str(folder))
    graph = build(knowledge, tmp_path)
    assert (len(graph.entities), len(graph.relations), len(graph.triples)) == (87_451, 71, 277_074)
    assert graph.names("en").has[: len(graph.entities)].sum() == 76_824
    assert graph.names("vi").has[: len(graph.entities)].sum() == 20_038
    assert graph.names("ja").label(int(np.searchsorted(graph.entities, 2))) == "地球"
    assert graph.names("de").label(graph.relation_item(int(np.searchsorted(graph.relations, 17)))) == "Staat"
