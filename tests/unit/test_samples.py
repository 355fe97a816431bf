"""Samples of a graph: a naive second implementation of the sentences, fair bits, the options, cycles by language."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from kbench.config.knowledge import (
    Align,
    AliasMissing,
    AliasPool,
    CycleKey,
    Cycles,
    Exclude,
    Knowledge,
    Missing,
    Multi,
    PlainText,
    Sentences,
    Xlr,
)
from kbench.engine.counter import below, mixed
from kbench.engine.seeding import derive
from kbench.errors import DataError
from kbench.knowledge.graph import Graph
from kbench.knowledge.rows import RowFile
from kbench.knowledge.samples import SWITCHED, write_switched

LANGUAGES = ("en", "de", "zh")
Names = Mapping[str, Mapping[str, Sequence[str]]]  # language -> id -> label, then aliases


def settings(**nodes: Any) -> Knowledge:
    """A configuration as a graph's YAML would give it; `sentences`, `cycles`, `xlr` replace single keys."""
    sentences = Sentences(None, True, Missing.english, AliasPool.all, AliasMissing.label, False)
    cycles = Cycles(
        multi=Multi.uniform,
        align=Align.shared,
        unique_by=CycleKey.diamond,
        per_chord=20,
        missing=Missing.drop,
        length3=None,
        length4=None,
        balance=1.0,
        exclude=Exclude.exact,
    )
    parts = {"sentences": sentences, "cycles": cycles, "xlr": Xlr(20, 10, 10, 1.0, 1.0, 1.0)}
    for name, changed in nodes.items():
        if name in parts:
            parts[name] = replace(parts[name], **changed)
    return Knowledge(
        name="small",
        reader="wikidata_tables",
        languages=nodes.get("languages", list(LANGUAGES)),
        files={},
        folder="small",
        path=None,
        seed=nodes.get("seed", 1),
        text=PlainText({}, "text", None, None),
        licence="",
        cite="",
        **parts,
    )


def write_graph(folder: Path, triples: Sequence[tuple[int, int, int]], names: Names) -> Graph:
    """A graph's folder written by hand. Triples are of numbers; the ids of names are spelt Q1 and P2."""
    (folder / "names").mkdir(parents=True)
    entities = sorted({number for h, _, t in triples for number in (h, t)})
    relations = sorted({r for _, r, _ in triples})
    place = {f"Q{number}": item for item, number in enumerate(entities)}
    place |= {f"P{number}": len(entities) + item for item, number in enumerate(relations)}
    rows = [(place[f"Q{h}"], place[f"P{r}"] - len(entities), place[f"Q{t}"]) for h, r, t in triples]
    np.save(folder / "entities.npy", np.array(entities, dtype=np.int64))
    np.save(folder / "relations.npy", np.array(relations, dtype=np.int64))
    np.save(folder / "triples.npy", np.array(rows, dtype=np.int32))
    for language, spelt in names.items():
        texts: list[list[str]] = [[] for _ in place]
        for identity, found in spelt.items():
            texts[place[identity]] = list(found)
        flat = [(item, text) for item, found in enumerate(texts) for text in found]
        table = pa.table(
            {"item": pa.array([i for i, _ in flat], pa.int32()), "text": pa.array([t for _, t in flat], pa.string())}
        )
        with pa.OSFile(str(folder / "names" / f"{language}.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as to:
            to.write_table(table)
        np.save(folder / "names" / f"{language}.ends.npy", np.cumsum([len(found) for found in texts]).astype(np.int64))
    info = {"entities": len(entities), "relations": len(relations), "triples": len(rows), "content": "by hand"}
    info |= {"languages": {language: {} for language in names}, "skipped": {}}
    (folder / "graph.json").write_text(json.dumps(info))
    return Graph(folder)


def world(seed: int = 0, entities: int = 40, triples: int = 300, relations: int = 9) -> tuple[list[Any], Names]:
    """A random graph: numbers with gaps, several relations on some pairs, names and aliases that are lacking here and there."""
    draw = np.random.default_rng(seed)
    numbers, kinds = draw.choice(1000, entities, replace=False) + 1, draw.choice(500, relations, replace=False) + 1
    made: dict[tuple[int, int, int], None] = {}
    while len(made) < triples:
        h, t = draw.choice(numbers, 2, replace=False)
        made[int(h), int(draw.choice(kinds)), int(t)] = None
    names: dict[str, dict[str, list[str]]] = {}
    for language, lacking in (("en", 0.1), ("de", 0.25), ("zh", 0.4)):
        used = {f"Q{n}" for h, _, t in made for n in (h, t)} | {f"P{r}" for _, r, _ in made}
        names[language] = {
            identity: [f"{language}-{identity}-{rank}" for rank in range(int(draw.integers(1, 6)))]
            for identity in sorted(used)
            if draw.random() >= lacking
        }
    return list(made), names


# A second, naive implementation of the sentences: one at a time, from dictionaries.


def naive(triples: Sequence[Any], names: Names, knowledge: Knowledge) -> list[tuple[Any, ...]]:
    """(row of the triple, language, three times (language, rank)) of every sentence, in order."""
    options, found = knowledge.sentences, []
    for index, language in enumerate(knowledge.languages[1:], start=1):
        key = derive(knowledge.seed, "language", language)
        bases = [int(mixed(derive(knowledge.seed, "sentences"), *triple)) for triple in triples]
        order = sorted(range(len(triples)), key=lambda row: int(mixed(np.uint64(bases[row]), key, 1)))
        for row in sorted(order[: options.triples]):
            parts = [f"{letter}{number}" for letter, number in zip("QPQ", triples[row], strict=True)]
            top = int(mixed(np.uint64(bases[row]), key, 0)) >> 61
            bits = [bool(top & 1), bool(top & 2), bool(top & 4)]
            tongues = [language if bit and part in names[language] else "en" for bit, part in zip(bits, parts, strict=True)]
            if options.missing is Missing.drop and any(
                bit and tongue == "en" for bit, tongue in zip(bits, tongues, strict=True)
            ):
                continue
            if any(part not in names[tongue] for part, tongue in zip(parts, tongues, strict=True)):
                continue
            if options.drop_unswitched and set(tongues) == {"en"}:
                continue
            found.append((row, index, *((tongue, 0) for tongue in tongues)))
            if not options.aliases:
                continue
            aliased, lacking = [], False
            for place, (part, tongue) in enumerate(zip(parts, tongues, strict=True)):
                pool = names[tongue][part][1:]
                if options.alias_pool is AliasPool.first_half:
                    pool = pool[: len(pool) // 2 + 1]
                lacking = lacking or not pool
                drawn = int(below(len(pool), np.uint64(bases[row]), key, 2 + place)) + 1 if pool else 0
                aliased.append((tongue, drawn))
            if not (lacking and options.alias_missing is AliasMissing.drop):
                found.append((row, index, *aliased))
    return found


def read(rows: np.ndarray, knowledge: Knowledge) -> list[tuple[Any, ...]]:
    """Rows of switched.npy as the naive implementation spells them."""
    spelt = []
    for row in rows:
        language = knowledge.languages[row["language"]]
        tongues = [language if row["bits"] >> place & 1 else "en" for place in range(3)]
        parts = tuple(zip(tongues, row["aliases"].tolist(), strict=True))
        spelt.append((int(row["triple"]), int(row["language"]), *parts))
    return spelt


def switched(graph: Graph, knowledge: Knowledge, folder: Path, chunk: int = 1 << 20) -> tuple[np.ndarray, dict[str, Any]]:
    folder.mkdir(exist_ok=True)
    info = write_switched(graph, knowledge, folder, chunk)
    return np.load(folder / "switched.npy", allow_pickle=False), info


OPTIONS: list[dict[str, Any]] = [
    {},
    {"triples": 100},
    {"aliases": False},
    {"missing": Missing.drop},
    {"alias_pool": AliasPool.first_half},
    {"alias_missing": AliasMissing.drop},
    {"drop_unswitched": True},
    {"triples": 7, "missing": Missing.drop, "alias_missing": AliasMissing.drop, "drop_unswitched": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_sentences_are_those_of_a_naive_implementation(options: dict[str, Any], tmp_path: Path) -> None:
    triples, names = world()
    graph, knowledge = write_graph(tmp_path / "graph", triples, names), settings(sentences=options)
    rows, info = switched(graph, knowledge, tmp_path / "samples")
    expected = naive(triples, names, knowledge)
    assert read(rows, knowledge) == expected
    assert len(expected) > 5
    # every id resolves to a name that is there, of the language that is said
    for row, _, *parts in expected:
        for letter, number, (tongue, rank) in zip("QPQ", triples[row], parts, strict=True):
            assert names[tongue][f"{letter}{number}"][rank]
    assert sum(counts["sentences"] for counts in info.values()) == len(rows)
    for language, counts in info.items():
        of = [one for one in expected if knowledge.languages[one[1]] == language]
        assert counts["sentences"] == len(of) == counts["of_labels"] + counts["of_aliases"]
        assert counts["triples"] == (options.get("triples") or len(triples))
        assert counts["unswitched"] == sum({tongue for tongue, _ in one[2:]} == {"en"} for one in of)
        left = counts["without_first"] + counts["without_name"] + counts["left_unswitched"]
        assert counts["triples"] == counts["of_labels"] + left
        if knowledge.sentences.aliases:
            assert counts["of_labels"] == counts["of_aliases"] + counts["without_alias"]


@pytest.mark.parametrize("options", [OPTIONS[0], OPTIONS[-1]], ids=str)
def test_sentences_do_not_depend_on_the_size_of_a_chunk(options: dict[str, Any], tmp_path: Path) -> None:
    triples, names = world()
    graph, knowledge = write_graph(tmp_path / "graph", triples, names), settings(sentences=options)
    infos = [switched(graph, knowledge, tmp_path / str(chunk), chunk)[1] for chunk in (1, 7, 299, 1000)]
    assert all(info == infos[0] for info in infos)
    contents = {(tmp_path / str(chunk) / "switched.npy").read_bytes() for chunk in (1, 7, 299, 1000)}
    assert len(contents) == 1


def test_sentences_follow_numbers_not_places(tmp_path: Path) -> None:
    """A further triple, which moves every index, and another order of languages change no other sentence."""
    triples, names = world()
    knowledge = settings()
    rows, _ = switched(write_graph(tmp_path / "one", triples, names), knowledge, tmp_path / "a")
    first = {(triples[row], knowledge.languages[lang], *parts) for row, lang, *parts in read(rows, knowledge)}
    more = [(1001, 3, 1002), *triples[::-1]]
    knowledge = settings(languages=["en", "zh", "de"])
    rows, _ = switched(write_graph(tmp_path / "two", more, names), knowledge, tmp_path / "b")
    second = {(more[row], knowledge.languages[lang], *parts) for row, lang, *parts in read(rows, knowledge)}
    assert second == first


def test_smaller_draws_are_part_of_larger_ones_and_differ_by_language(tmp_path: Path) -> None:
    triples, names = world()
    graph = write_graph(tmp_path / "graph", triples, names)
    drawn = {}
    for size in (50, 80):
        rows, _ = switched(graph, settings(sentences={"triples": size}), tmp_path / str(size))
        drawn[size] = {index: set(rows["triple"][rows["language"] == index].tolist()) for index in (1, 2)}
    assert all(drawn[50][index] < drawn[80][index] for index in (1, 2))
    assert drawn[50][1] != drawn[50][2]
    rows, _ = switched(graph, settings(sentences={"triples": 50}, seed=2), tmp_path / "other")
    assert set(rows["triple"][rows["language"] == 1].tolist()) != drawn[50][1]


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, list[Any]]:
    """Sentences of 20,000 triples of which every part has a label and three aliases in every language."""
    triples, _ = world(1, 500, 20_000, 20)
    used = {f"Q{n}" for h, _, t in triples for n in (h, t)} | {f"P{r}" for _, r, _ in triples}
    names = {language: {one: [f"{language} {one} {rank}" for rank in range(4)] for one in used} for language in LANGUAGES}
    folder = tmp_path_factory.mktemp("dense")
    rows, _ = switched(write_graph(folder / "graph", triples, names), settings(), folder / "samples")
    return rows, triples


def chi_square(counts: Sequence[int]) -> float:
    expected = sum(counts) / len(counts)
    return sum((count - expected) ** 2 / expected for count in counts)


def test_bits_are_fair_and_independent(dense: tuple[np.ndarray, list[Any]]) -> None:
    rows, triples = dense
    assert len(rows) == 2 * 2 * len(triples)
    for index in (1, 2):
        of = rows[(rows["language"] == index)]
        labels, aliases = of[::2], of[1::2]
        assert (labels["aliases"] == 0).all()
        assert (labels["bits"] == aliases["bits"]).all()
        counts = Counter(labels["bits"].tolist())
        assert chi_square([counts[bits] for bits in range(8)]) < 24.3  # 7 degrees of freedom, one in a thousand
    # what is drawn for one language says nothing about another
    pairs = Counter(zip(rows["bits"][rows["language"] == 1][::2], rows["bits"][rows["language"] == 2][::2], strict=True))
    assert chi_square([pairs[a, b] for a in range(8) for b in range(8)]) < 103.4  # 63 degrees of freedom


def test_aliases_are_drawn_evenly_for_each_part(dense: tuple[np.ndarray, list[Any]]) -> None:
    rows, _ = dense
    drawn = rows[1::2]["aliases"]
    for place in range(3):
        counts = Counter(drawn[:, place].tolist())
        assert set(counts) == {1, 2, 3}
        assert chi_square([counts[rank] for rank in (1, 2, 3)]) < 13.8  # 2 degrees of freedom, one in a thousand
    both = Counter(map(tuple, drawn.tolist()))
    assert chi_square([both[a, b, c] for a in (1, 2, 3) for b in (1, 2, 3) for c in (1, 2, 3)]) < 54.1


def test_a_triple_without_a_name_in_the_language_is_said_in_english(tmp_path: Path) -> None:
    triples = [(1, 2, number) for number in range(3, 60)]
    names = {"en": {f"Q{n}": [f"e{n}"] for n in range(1, 60) if n != 2} | {"P2": ["is"]}, "de": {"P2": ["ist"]}, "zh": {}}
    rows, info = switched(write_graph(tmp_path / "graph", triples, names), settings(), tmp_path / "samples")
    assert set(rows["bits"][rows["language"] == 1].tolist()) == {0, 2}
    assert set(rows["bits"][rows["language"] == 2].tolist()) == {0}
    assert info["zh"]["unswitched"] == info["zh"]["sentences"] == 2 * 57


def test_the_dtype_is_twelve_bytes_a_sentence() -> None:
    assert SWITCHED.itemsize == 12


def test_a_file_of_rows_is_an_ordinary_npy_file(tmp_path: Path) -> None:
    made = np.zeros(1000, dtype=SWITCHED)
    made["triple"] = np.arange(1000)
    with RowFile(tmp_path / "a.npy", SWITCHED) as file:
        for start in (0, 1, 500, 500):
            file.append(made[start : {0: 1, 1: 500}.get(start, 750)])
    found = np.load(tmp_path / "a.npy", mmap_mode="r", allow_pickle=False)
    assert found.dtype == SWITCHED
    assert found["triple"].tolist() == [*range(750), *range(500, 750)]
    with RowFile(tmp_path / "empty.npy", SWITCHED):
        pass
    assert np.load(tmp_path / "empty.npy", allow_pickle=False).shape == (0,)
