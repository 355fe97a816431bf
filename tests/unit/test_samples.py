"""Samples of a graph: a naive second implementation of the sentences, fair bits, the options, cycles by language."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from kbench.config.knowledge import (
    AliasMissing,
    AliasPool,
    Align,
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
from kbench.knowledge.cycles import cycle_key, cycles_stage
from kbench.knowledge.graph import Graph
from kbench.knowledge.rows import RowFile
from kbench.knowledge.samples import SWITCHED, describe, samples_stage, write_reasoning, write_switched
from kbench.knowledge.telling import reasoning_type
from kbench.stages.stage import Stage
from kbench.stages.store import Store

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
        with (
            pa.OSFile(str(folder / "names" / f"{language}.arrow"), "wb") as sink,
            pa.ipc.new_file(sink, table.schema) as to,
        ):
            to.write_table(table)
        np.save(folder / "names" / f"{language}.ends.npy", np.cumsum([len(found) for found in texts]).astype(np.int64))
    info = {"entities": len(entities), "relations": len(relations), "triples": len(rows), "content": "by hand"}
    info |= {"languages": {language: {} for language in names}, "skipped": {}}
    (folder / "graph.json").write_text(json.dumps(info))
    return Graph(folder)


def world(seed: int = 0, entities: int = 40, triples: int = 300, relations: int = 9) -> tuple[list[Any], Names]:
    """A random graph: numbers with gaps, several relations on some pairs, and names lacking here and there."""
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
            tongues = [
                language if bit and part in names[language] else "en" for bit, part in zip(bits, parts, strict=True)
            ]
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


def switched(
    graph: Graph, knowledge: Knowledge, folder: Path, chunk: int = 1 << 20
) -> tuple[np.ndarray, dict[str, Any]]:
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
    names = {
        language: {one: [f"{language} {one} {rank}" for rank in range(4)] for one in used} for language in LANGUAGES
    }
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
    pairs = Counter(
        zip(rows["bits"][rows["language"] == 1][::2], rows["bits"][rows["language"] == 2][::2], strict=True)
    )
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
    names = {
        "en": {f"Q{n}": [f"e{n}"] for n in range(1, 60) if n != 2} | {"P2": ["is"]},
        "de": {"P2": ["ist"]},
        "zh": {},
    }
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


# Cycles to reason about.


def write_cycles(folder: Path, graph: Graph) -> Path:
    """All triangles and diamonds of a small graph, found by trying; of several triples of a pair, the last is shown."""
    folder.mkdir()
    pairs: dict[tuple[int, int], list[int]] = {}
    for row, (h, _, t) in enumerate(graph.triples.tolist()):
        pairs.setdefault((min(h, t), max(h, t)), []).append(row)
    beside: dict[int, set[int]] = {}
    for a, b in pairs:
        beside.setdefault(a, set()).add(b)
        beside.setdefault(b, set()).add(a)

    def of(a: int, b: int) -> int:
        return pairs[min(a, b), max(a, b)][-1]

    triangles, diamonds = [], []
    for a, b in sorted(pairs):
        both = sorted(beside[a] & beside[b])
        triangles += [[a, b, c, of(a, b), of(b, c), of(a, c)] for c in both if c > b]
        diamonds += [[a, b, p, q, of(p, a), of(a, q), of(q, b), of(p, b), of(a, b)] for p, q in combinations(both, 2)]
    several = sorted(pair for pair, rows in pairs.items() if len(rows) > 1)
    tables: dict[str, tuple[Any, Any, tuple[int, ...]]] = {
        "triangles": (triangles, np.int32, (-1, 6)),
        "diamonds": (diamonds, np.int32, (-1, 9)),
        "pairs": (several, np.int32, (-1, 2)),
        "pair_triples": ([row for pair in several for row in pairs[pair]], np.int32, (-1,)),
        "pair_ends": (np.cumsum([len(pairs[pair]) for pair in several]), np.int64, (-1,)),
    }
    for name, (values, dtype, shape) in tables.items():
        np.save(folder / f"{name}.npy", np.array(values, dtype=dtype).reshape(shape))
    return folder


class Small:
    """A dense random graph with several relations on many pairs, its cycles, and what the files say in plain words."""

    def __init__(self, folder: Path):
        triples, self.names = world(4, 24, 220, 9)
        self.triples = triples
        self.graph = write_graph(folder / "graph", triples, self.names)
        self.cycles = write_cycles(folder / "cycles", self.graph)
        self.tables = {
            length: np.load(self.cycles / f"{name}.npy") for length, name in ((3, "triangles"), (4, "diamonds"))
        }
        self.pairs: dict[frozenset[int], list[int]] = {}
        for row, (h, _, t) in enumerate(self.graph.triples.tolist()):
            self.pairs.setdefault(frozenset((h, t)), []).append(row)

    def has(self, language: str, row: int) -> bool:
        """Whether the relation of a triple has a name in a language."""
        return f"P{self.triples[row][1]}" in self.names[language]

    def usable(self, length: int, language: str, english: bool) -> dict[int, list[int]]:
        """Cycle -> its rows of triples, of the cycles that can be told in a language as they are stored."""
        found = {}
        for place, cycle in enumerate(self.tables[length].tolist()):
            nodes = [f"Q{self.graph.entities[node]}" for node in cycle[:length]]
            rows = cycle[length:]
            if all(node in self.names[language] for node in nodes) and all(
                self.has(language, row) or (english and self.has("en", row)) for row in rows
            ):
                found[place] = rows
        return found


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return Small(tmp_path_factory.mktemp("small"))


NONE = np.zeros(0, dtype=np.int64)


def reasoning(
    small: Small, folder: Path, keys: np.ndarray = NONE, chunk: int = 1 << 20, **cycles: Any
) -> tuple[dict[int, np.ndarray], dict[str, Any]]:
    folder.mkdir(exist_ok=True)
    info = write_reasoning(small.graph, small.cycles, keys, settings(cycles=cycles), folder, chunk)
    return {length: np.load(folder / f"reasoning{length}.npy", allow_pickle=False) for length in (3, 4)}, info


@pytest.mark.parametrize("missing", list(Missing))
@pytest.mark.parametrize("length", [3, 4])
def test_a_cycle_is_told_where_all_of_it_has_a_name(
    length: int, missing: Missing, small: Small, tmp_path: Path
) -> None:
    rows, info = reasoning(small, tmp_path / "a", missing=missing)
    found, of = rows[length], info[str(length)]
    assert found.dtype == reasoning_type(length)
    assert of["cycles"] == len(small.tables[length]) > 100
    lengths = set()
    for index, language in enumerate(LANGUAGES):
        expected = small.usable(length, language, english=missing is Missing.english)
        told = found[found["language"] == index]
        assert dict(zip(told["cycle"].tolist(), told["triples"].tolist(), strict=True)) == expected
        assert told["cycle"].tolist() == sorted(expected)
        counts = of["languages"][language]
        assert counts["usable"] == counts["samples"] == len(expected) > 0
        relations = {tuple(sorted(small.graph.triples[cycle, 1].tolist())) for cycle in expected.values()}
        assert counts["signatures"] == len(relations)
        lengths.add(len(expected))
    assert len(lengths) == 3
    assert found["language"].tolist() == sorted(found["language"].tolist())


@pytest.mark.parametrize("multi", [Multi.uniform, Multi.first, Multi.last])
@pytest.mark.parametrize("missing", list(Missing))
def test_each_language_draws_among_the_relations_it_has_names_for(
    multi: Multi, missing: Missing, small: Small, tmp_path: Path
) -> None:
    rows, _ = reasoning(small, tmp_path / "a", missing=missing, multi=multi, align=Align.per_language)
    drawn: Counter[int] = Counter()
    for length in (3, 4):
        for index, language in enumerate(LANGUAGES):
            told = rows[length][rows[length]["language"] == index]
            chosen = dict(zip(told["cycle"].tolist(), told["triples"].tolist(), strict=True))
            for place, cycle in enumerate(small.tables[length].tolist()):
                nodes, stored = cycle[:length], cycle[length:]
                pools = []
                for row in stored:
                    h, _, t = small.graph.triples[row].tolist()
                    every = small.pairs[frozenset((h, t))]
                    own = [one for one in every if small.has(language, one)]
                    other = [one for one in every if small.has("en", one)] if missing is Missing.english else []
                    pools.append(own or other)
                named = all(f"Q{small.graph.entities[node]}" in small.names[language] for node in nodes)
                assert (place in chosen) == (named and all(pools))
                for row, pool in zip(chosen.get(place, ()), pools, strict=place in chosen):
                    assert row in pool
                    if multi is not Multi.uniform:
                        assert row == pool[0 if multi is Multi.first else -1]
                    elif len(pool) == 2:
                        drawn[pool.index(row)] += 1
    if multi is Multi.uniform:
        assert abs(drawn[0] - drawn[1]) < 4 * sum(drawn.values()) ** 0.5
        assert sum(drawn.values()) > 300


def test_a_draw_of_a_language_is_the_same_in_any_order_of_the_file(tmp_path: Path) -> None:
    """Told as ids of Wikidata, the samples of two files that differ in the order of their lines are the same."""
    drawn: dict[str, set[tuple[Any, ...]]] = {}
    triples = [(1, 1, 2), (1, 2, 2), (2, 3, 1), (2, 1, 3), (3, 2, 2), (3, 3, 2), (1, 1, 3), (3, 2, 1), (1, 3, 3)]
    names = {
        lang: {**{f"Q{n}": [f"{lang}{n}"] for n in (1, 2, 3)}, **{f"P{n}": [f"p{n}"] for n in (1, 2, 3)}}
        for lang in LANGUAGES
    }
    for name, order in (("one", triples), ("other", triples[::-1])):
        graph = write_graph(tmp_path / name / "graph", order, names)
        work = tmp_path / name / "cycles"
        work.mkdir()
        cycles_stage(Stage("graph", 1, {}, lambda *_: None), settings()).build(work, {"graph": graph.folder})
        for seed in range(8):
            knowledge = settings(seed=seed, cycles={"align": Align.per_language})
            write_reasoning(graph, work, NONE, knowledge, tmp_path / name)
            rows = np.load(tmp_path / name / "reasoning3.npy", allow_pickle=False)
            told = {(seed, row["language"].item(), str(graph.triples[row["triples"]].tolist())) for row in rows}
            drawn[name] = drawn.get(name, set()) | told
    assert drawn["one"] == drawn["other"]
    assert len({said for *_, said in drawn["one"]}) > 5


def test_all_relations_of_a_pair_are_not_drawn_again(small: Small, tmp_path: Path) -> None:
    shared, _ = reasoning(small, tmp_path / "a", multi=Multi.all)
    drawn, _ = reasoning(small, tmp_path / "b", multi=Multi.all, align=Align.per_language)
    assert all((shared[length] == drawn[length]).all() for length in (3, 4))


def keys_of(table: np.ndarray, length: int, rows: Sequence[int]) -> np.ndarray:
    return cycle_key(table[list(rows), :length])


@pytest.mark.parametrize("exclude", list(Exclude))
def test_cycles_of_the_test_are_kept_out_of_every_language(exclude: Exclude, small: Small, tmp_path: Path) -> None:
    triangles, diamonds = small.tables[3], small.tables[4]
    keys = np.concatenate([keys_of(triangles, 3, range(0, len(triangles), 9)), keys_of(diamonds, 4, [5, 60])])
    out3 = {frozenset(nodes) for nodes in triangles[::9, :3].tolist()}
    out4 = {frozenset(nodes) for nodes in diamonds[[5, 60], :4].tolist()}

    def kept_out(nodes: list[int]) -> bool:
        if len(nodes) == 3:
            return frozenset(nodes) in out3
        inside = [frozenset((*nodes[:2], nodes[2])), frozenset((*nodes[:2], nodes[3]))]
        return frozenset(nodes) in out4 or (exclude is Exclude.superset and any(one in out3 for one in inside))

    before, _ = reasoning(small, tmp_path / "a", exclude=exclude)
    after, info = reasoning(small, tmp_path / "b", keys, exclude=exclude)
    for length in (3, 4):
        nodes = small.tables[length][:, :length].tolist()
        expected = [row for row in before[length].tolist() if not kept_out(nodes[row[0]])]
        assert [tuple(row[:2]) for row in after[length].tolist()] == [row[:2] for row in expected]
        excluded = sum(map(kept_out, nodes))
        assert info[str(length)]["excluded"] == excluded
        assert 0 < excluded < len(nodes)
    assert (info["4"]["excluded"] > 30) == (exclude is Exclude.superset)


def test_a_budget_is_kept_for_each_language(small: Small, tmp_path: Path) -> None:
    whole, _ = reasoning(small, tmp_path / "a")
    rows, info = reasoning(small, tmp_path / "b", length3=40, length4=70, balance=0.0)
    for length, budget in ((3, 40), (4, 70)):
        for index, language in enumerate(LANGUAGES):
            every = whole[length][whole[length]["language"] == index]["cycle"].tolist()
            kept = rows[length][rows[length]["language"] == index]["cycle"].tolist()
            assert len(kept) == min(budget, len(every)) == info[str(length)]["languages"][language]["samples"]
            assert set(kept) <= set(every)
    assert info["3"]["languages"]["en"]["usable"] > 40


@pytest.mark.parametrize("align", list(Align))
def test_cycles_do_not_depend_on_the_size_of_a_chunk(align: Align, small: Small, tmp_path: Path) -> None:
    made = {}
    for chunk in (1, 13, 5000):
        options = {"length3": 60, "length4": 100, "balance": 0.5, "align": align}
        _, info = reasoning(small, tmp_path / str(chunk), keys_of(small.tables[3], 3, [4]), chunk, **options)
        files = [(tmp_path / str(chunk) / f"reasoning{length}.npy").read_bytes() for length in (3, 4)]
        made[chunk] = (files, info)
    assert made[1] == made[13] == made[5000]


def test_no_cycle_in_any_language(small: Small, tmp_path: Path) -> None:
    every = np.concatenate([keys_of(small.tables[n], n, range(len(small.tables[n]))) for n in (3, 4)])
    with pytest.raises(DataError, match="cycles are test questions of XLR"):
        reasoning(small, tmp_path / "a", every)
    names = {
        language: {one: found for one, found in small.names[language].items() if one[0] == "Q"}
        for language in LANGUAGES
    }
    graph = write_graph(tmp_path / "nameless", small.triples, names)
    (tmp_path / "b").mkdir()
    with pytest.raises(DataError, match=r"not one of its .* cycles has names") as raised:
        write_reasoning(graph, small.cycles, NONE, settings(), tmp_path / "b")
    assert "knowledge.cycles.missing=english" in raised.value.problems[0].hint


def test_a_language_may_have_no_cycles(small: Small, tmp_path: Path) -> None:
    names = {**small.names, "zh": {}}
    graph = write_graph(tmp_path / "graph", small.triples, names)
    (tmp_path / "a").mkdir()
    info = write_reasoning(graph, small.cycles, NONE, settings(), tmp_path / "a")
    assert info["3"]["languages"]["zh"] == {"usable": 0, "samples": 0, "signatures": 0}
    assert info["3"]["languages"]["de"]["samples"] > 0


# The stage.


def test_the_stage_and_its_totals(small: Small, tmp_path: Path) -> None:
    def copied(of: Path) -> Any:
        return lambda work, parents: shutil.copytree(of, work, dirs_exist_ok=True)

    def keys(work: Path, parents: Any) -> None:
        np.save(work / "keys.npy", keys_of(small.tables[3], 3, range(20)))

    graph, cycles = (
        Stage(name, 1, {}, copied(of)) for name, of in (("graph", small.graph.folder), ("cycles", small.cycles))
    )
    xlr = Stage("xlr", 1, {}, keys, {"graph": graph, "cycles": cycles})
    stages = {chunk: samples_stage(graph, cycles, xlr, settings(), chunk) for chunk in (7, 1 << 20)}
    assert stages[7].key == stages[1 << 20].key  # the size of a chunk decides nothing
    folders = [Store(tmp_path / str(chunk)).get(stage) for chunk, stage in stages.items()]
    for name in ("switched.npy", "reasoning3.npy", "reasoning4.npy", "samples.json"):
        first, second = ((folder / name).read_bytes() for folder in folders)
        assert first == second
    rows = {name: np.load(folders[0] / f"{name}.npy") for name in ("switched", "reasoning3", "reasoning4")}
    assert not set(range(20)) & set(rows["reasoning3"]["cycle"].tolist())
    relations = [
        {tuple(sorted(small.graph.triples[row, 1].tolist())) for row in rows[f"reasoning{length}"]["triples"]}
        for length in (3, 4)
    ]
    assert describe(folders[0]) == {
        "n_languages": 3,
        "n_code_switched_sentences": len(rows["switched"]),
        "n_cycle3_relation_combinations": len(relations[0]),
        "n_cycle3_samples": len(rows["reasoning3"]),
        "n_cycle4_relation_combinations": len(relations[1]),
        "n_cycle4_samples": len(rows["reasoning4"]),
    }
    others = [{"seed": 2}, {"sentences": {"triples": 5}}, {"cycles": {"exclude": Exclude.superset}}]
    keys_made = {samples_stage(graph, cycles, xlr, settings(**one)).key for one in others}
    keys_made |= {samples_stage(graph, cycles, None, settings()).key, stages[7].key}
    assert len(keys_made) == 5
