"""XLR questions: every row checked by a validator that knows only the graph's files, the balance, the splits."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kbench.cli import build
from kbench.config.knowledge import Knowledge, Missing
from kbench.errors import DataError, UserError
from kbench.knowledge.candidates import Candidates, _in_turns
from kbench.knowledge.cycles import cycle_key
from kbench.knowledge.samples import describe
from kbench.knowledge.xlr import write_xlr

from .test_samples import Names, settings, write_cycles, write_graph

FACTS = tuple[list[Any], Names]


def facts(seed: int = 0, entities: int = 30, triples: int = 190, relations: int = 25, lacking: float = 0.05) -> FACTS:
    """A random dense graph. Some relations are called the same in one language; some pairs have several relations."""
    draw = np.random.default_rng(seed)
    numbers, kinds = draw.choice(900, entities, replace=False) + 1, draw.choice(300, relations, replace=False) + 1
    made: dict[tuple[int, int, int], None] = {}
    while len(made) < triples:
        h, t = draw.choice(numbers, 2, replace=False)
        made[int(h), int(draw.choice(kinds)), int(t)] = None
    names: dict[str, dict[str, list[str]]] = {}
    for language in ("en", "de", "zh"):
        names[language] = {f"Q{n}": [f"{language} Q{n}", "alias"] for n in numbers if draw.random() >= lacking}
        names[language] |= {f"P{r}": [f"{language} P{r}", "alias"] for r in kinds}
        names[language] = {
            one: found
            for one, found in names[language].items()
            if any(one in (f"Q{h}", f"P{r}", f"Q{t}") for h, r, t in made)
        }
    first, second, third, fourth = (f"P{r}" for r in sorted(kinds.tolist())[:4])
    names["en"][second] = [names["en"][first][0].upper()]
    names["zh"][fourth] = names["zh"][third]
    return list(made), names


class World:
    """A graph with its questions, made once."""

    def __init__(self, folder: Path, knowledge: Knowledge, made: FACTS):
        self.triples, self.names = made
        self.knowledge, self.folder = knowledge, folder
        self.graph = write_graph(folder / "graph", *made)
        self.cycles = write_cycles(folder / "cycles", self.graph)
        (folder / "xlr").mkdir()
        self.info = write_xlr(self.graph, self.cycles, knowledge, folder / "xlr")

    def rows(self, split: str, language: str = "en") -> list[dict[str, Any]]:
        text = (self.folder / "xlr" / f"{split}.{language}.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    shares = {"per_answer": 0.2, "per_entity": 0.6, "per_signature": 0.1}
    sizes = {"train": 60, "dev": 20, "test": 25}
    return World(tmp_path_factory.mktemp("xlr"), settings(xlr={**sizes, **shares}), facts())


ROW = {"id", "nodes", "context", "question", "choices", "label", "answer", "lang"}
TOLD = re.compile(r"\((\w+ Q\d+), (.+?), (\w+ Q\d+)\)")
ASKED = re.compile(r"What is the relation between (\w+ Q\d+) and (\w+ Q\d+)\?")


def validate(row: dict[str, Any], world: World, language: str) -> None:
    """Check one row against the triples and names alone."""
    assert set(row) == ROW
    assert row["lang"] == language
    called = {identity: found[0] for identity, found in world.names[language].items()}
    entity = {text: identity for identity, text in called.items() if identity[0] == "Q"}
    facts = {(f"Q{h}", f"P{r}", f"Q{t}") for h, r, t in world.triples}
    matched = ASKED.fullmatch(row["question"])
    assert matched
    head, tail = entity[matched[1]], entity[matched[2]]
    # the answer is true, is at the label, and is the only thing known of the pair
    assert (head, row["answer"], tail) in facts
    assert row["choices"][row["label"]] == called[row["answer"]]
    assert [fact for fact in facts if {fact[0], fact[2]} == {head, tail}] == [(head, row["answer"], tail)]
    assert len(row["choices"]) == 6
    assert len({choice.casefold() for choice in row["choices"]}) == 6
    # the context: the other triples of the cycle, which with the question's go through all nodes
    told = TOLD.findall(row["context"])
    assert row["context"] == " ".join(f"({h}, {r}, {t})" for h, r, t in told)
    assert len(told) == {3: 2, 4: 4}[len(row["nodes"])]
    edges = []
    for h, r, t in told:
        (relation,) = [one for one in called if called[one] == r and (entity[h], one, entity[t]) in facts]
        edges.append((entity[h], relation, entity[t]))
        assert r in row["choices"]
    assert {node for h, _, t in edges for node in (h, t)} == set(row["nodes"])
    pairs = {frozenset((h, t)) for h, _, t in edges} | {frozenset((head, tail))}
    assert len(pairs) == len(edges) + 1
    ends = Counter(node for pair in pairs for node in pair)
    assert sorted(ends.values()) == {3: [2, 2, 2], 4: [2, 2, 3, 3]}[len(row["nodes"])]
    # each choice is of the cycle, or stands at one of the two entities
    near = {r for h, r, t in facts if {h, t} & {head, tail}} | {r for _, r, _ in edges}
    for choice in row["choices"]:
        assert any(called[relation] == choice for relation in near)


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_every_row_is_right(split: str, world: World) -> None:
    size = getattr(world.knowledge.xlr, split)
    for language in world.knowledge.languages if split == "test" else ["en"]:
        rows = world.rows(split, language)
        assert [row["id"] for row in rows] == list(range(size))
        for row in rows:
            validate(row, world, language)


def test_test_rows_are_the_same_in_every_language(world: World) -> None:
    for rows in zip(*(world.rows("test", language) for language in world.knowledge.languages), strict=True):
        assert len({(row["id"], tuple(row["nodes"]), row["label"], row["answer"]) for row in rows}) == 1
        ids = [[re.sub(r"^\w+ ", "", text) for text in row["choices"]] for row in rows]
        # but for the two that in one language are called like another
        assert sum(len(set(choices)) > 1 for choices in zip(*ids, strict=True)) <= 2


def test_splits_share_no_cycle_and_the_keys_are_those_of_the_test(world: World) -> None:
    nodes = {split: [tuple(sorted(row["nodes"])) for row in world.rows(split)] for split in ("train", "dev", "test")}
    every = [one for found in nodes.values() for one in found]
    assert len(set(every)) == len(every) == 105
    place = {f"Q{number}": index for index, number in enumerate(world.graph.entities.tolist())}
    expected = [
        int(cycle_key(np.array([[place[n] for n in found]]))[0]) for found in (r["nodes"] for r in world.rows("test"))
    ]
    keys = np.load(world.folder / "xlr" / "keys.npy", allow_pickle=False)
    assert keys.dtype == np.int64
    assert keys.tolist() == expected


def signature(row: dict[str, Any], world: World) -> tuple[str, ...]:
    called = {found[0]: identity for identity, found in world.names["en"].items()}
    return tuple(sorted([row["answer"], *(called[r] for _, r, _ in TOLD.findall(row["context"]))]))


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_no_answer_entity_or_combination_has_more_than_its_share(split: str, world: World) -> None:
    rows, xlr, told = world.rows(split), world.knowledge.xlr, world.info["splits"][split]
    size = len(rows)
    answers = Counter(row["answer"] for row in rows)
    entities = Counter(node for row in rows for node in row["nodes"])
    signatures = Counter(signature(row, world) for row in rows)
    for counts, share in ((answers, xlr.per_answer), (entities, xlr.per_entity), (signatures, xlr.per_signature)):
        assert max(counts.values()) <= math.ceil(share * size)
    # and the statistics say so
    assert told["questions"] == size
    assert told["answers"] == dict(answers)
    assert told["relation_combinations"] == len(signatures)
    assert told["largest_share"]["entity"] == max(entities.values()) / size
    assert told["length3"] == sum(len(row["nodes"]) == 3 for row in rows)
    assert told["length3"] > 0 < told["length4"]
    test = {signature(row, world) for row in world.rows("test")}
    assert told["combinations_of_test"] == sum(signature(row, world) in test for row in rows)


def test_combinations_of_the_test_are_kept_out_while_there_are_others(world: World) -> None:
    assert world.info["splits"]["train"]["combinations_of_test"] == 0
    assert world.info["splits"]["dev"]["combinations_of_test"] == 0


def test_when_there_are_no_others_combinations_are_shared_and_counted(tmp_path: Path) -> None:
    made = facts(5, 25, 170, 9)
    one = World(tmp_path, settings(xlr={"train": 600, "dev": 15, "test": 100}), made)
    test = {signature(row, one) for row in one.rows("test")}
    shared = sum(signature(row, one) in test for row in one.rows("train"))
    assert shared == one.info["splits"]["train"]["combinations_of_test"] > 0
    # those that are shared come last
    marks = [signature(row, one) in test for row in one.rows("train")]
    assert marks == sorted(marks)
    for row in one.rows("train"):
        validate(row, one, "en")


def test_no_two_entities_of_a_cycle_have_the_same_name(tmp_path: Path) -> None:
    """Context "(Xbox, part of, Microsoft)" of the firm's other Xbox would answer a question about this one."""
    triples, names = facts(lacking=0)
    often = [f"Q{n}" for n, _ in Counter(n for h, _, t in triples for n in (h, t)).most_common(4)]
    names["zh"][often[1]] = [names["zh"][often[0]][0].upper()]
    names["en"][often[3]] = [f" {names['en'][often[2]][0]}  "]
    shares = {"train": 60, "dev": 20, "test": 25, "per_answer": 1.0, "per_entity": 1.0, "per_signature": 1.0}
    world = World(tmp_path, settings(xlr=shares), (triples, names))
    assert not any(set(often[:2]) <= set(row["nodes"]) for row in world.rows("test"))
    assert not any(
        set(often[2:]) <= set(row["nodes"]) for split in ("train", "dev", "test") for row in world.rows(split)
    )
    assert any(set(often[:2]) <= set(row["nodes"]) for row in world.rows("train"))  # they differ in English
    assert world.info["splits"]["test"]["passed_over"]["entities alike"] > 0


def test_answers_stand_at_every_place(world: World) -> None:
    places = Counter(row["label"] for row in world.rows("train"))
    assert set(places) == set(range(6))
    assert [places[place] for place in range(6)] == world.info["splits"]["train"]["labels"]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_same_questions_every_time_and_others_with_another_seed(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kbench.knowledge.candidates._FIRST_BLOCK", 16)  # the size of a block decides nothing
    monkeypatch.setattr("kbench.knowledge.candidates._LARGEST_BLOCK", 64)
    monkeypatch.setattr("kbench.knowledge.candidates._CHUNK", 50)
    (tmp_path / "again").mkdir()
    write_xlr(world.graph, world.cycles, world.knowledge, tmp_path / "again")
    again, before = contents(tmp_path / "again"), contents(world.folder / "xlr")
    told = [json.loads(found.pop("xlr.json")) for found in (again, before)]
    assert again == before
    for info in told:  # how many were tried and passed over depends on the size of a block
        for split in info["splits"].values():
            split.pop("passed_over")
    assert told[0] == told[1]
    (tmp_path / "other").mkdir()
    knowledge = settings(seed=2, xlr={"train": 60, "dev": 20, "test": 25})
    write_xlr(world.graph, world.cycles, knowledge, tmp_path / "other")
    assert contents(tmp_path / "other")["test.en.jsonl"] != before["test.en.jsonl"]


def test_the_question_is_drawn_evenly_among_the_triples_of_a_cycle(tmp_path: Path) -> None:
    made = facts(3, 40, 300, 40, lacking=0)
    graph = write_graph(tmp_path / "graph", *made)
    candidates = Candidates(graph, write_cycles(tmp_path / "cycles", graph), settings())
    pairs = Counter((min(h, t), max(h, t)) for h, _, t in graph.triples.tolist())
    asked: dict[int, Counter[int]] = {3: Counter(), 5: Counter()}
    for block in candidates.blocks(everywhere=False):
        for rows, place in zip(block.rows.tolist(), block.asked.tolist(), strict=True):
            rows = [row for row in rows if row >= 0]
            alone = [pairs[min(h, t), max(h, t)] == 1 for h, _, t in graph.triples[rows].tolist()]
            assert place == -1 if not any(alone) else alone[place]
            if all(alone):
                asked[len(rows)][place] += 1
    for size, limit in ((3, 13.8), (5, 18.5)):  # one in a thousand
        expected = sum(asked[size].values()) / size
        assert expected > 50
        assert sum((asked[size][place] - expected) ** 2 / expected for place in range(size)) < limit


def test_relations_are_drawn_by_how_often_they_stand_there(tmp_path: Path) -> None:
    """An entity with 30 edges of one relation and one of each of ten others: the one is nearly always a choice."""
    triples = [(1, 1, 2), (2, 2, 3), (1, 3, 3)]
    triples += [(1, 4, 100 + n) for n in range(30)] + [(1, 10 + n, 200 + n) for n in range(10)]
    names = {"en": {f"Q{n}": [f"en Q{n}"] for h, _, t in triples for n in (h, t)}}
    names["en"] |= {f"P{r}": [f"en P{r}"] for _, r, _ in triples}
    graph = write_graph(tmp_path / "graph", triples, {**names, "de": names["en"]})
    cycles = write_cycles(tmp_path / "cycles", graph)
    chosen: Counter[int] = Counter()
    for seed in range(300):
        candidates = Candidates(graph, cycles, settings(languages=["en", "de"], seed=seed))
        (block,) = candidates.blocks(everywhere=True)
        around = candidates.around(block, np.array([True]))
        found = candidates.choices(block, 0, around, 6, everywhere=True)
        if block.answers[0] == 1:  # asked about 2 and 3, which have no further relation
            assert found is None
            continue
        assert found is not None
        relations = graph.relations[list(found[0])].tolist()
        assert {1, 2, 3} <= set(relations)
        assert found[0][found[1]] == block.answers[0]
        chosen.update(relations)
    asked = chosen[1]
    assert asked > 150
    # drawn first with 30/40, second with 30/39 of the rest, third with 30/38
    assert abs(chosen[4] / asked - (1 - 10 / 40 * 9 / 39 * 8 / 38)) < 0.03
    assert all(0.08 < chosen[10 + n] / asked < 0.35 for n in range(10))


def test_lengths_take_turns() -> None:
    assert _in_turns(np.arange(3), np.arange(10, 12)).tolist() == [0, 10, 1, 11, 2]
    assert _in_turns(np.arange(0), np.arange(2)).tolist() == [0, 1]


# What there is not enough of.


def problem_of(folder: Path, made: FACTS, **changed: Any) -> Any:
    graph = write_graph(folder / "graph", *made)
    with pytest.raises(DataError) as raised:
        write_xlr(graph, write_cycles(folder / "cycles", graph), settings(**changed), folder)
    (problem,) = raised.value.problems
    return problem


def test_a_graph_that_gives_too_few_questions(tmp_path: Path) -> None:
    problem = problem_of(tmp_path, facts(), xlr={"test": 100_000})
    matched = re.match(r"asks for 100,000 questions; the graph gives ([\d,]+) of ([\d,]+) cycles \(", problem.what)
    assert problem.where == "knowledge.xlr.test"
    assert matched
    given = int(matched[1].replace(",", ""))
    assert 50 < given < int(matched[2].replace(",", ""))
    assert problem.hint == f"knowledge.xlr.test={given}, or fewer"
    assert "no 6 different choices: " in problem.what


def test_shares_that_are_too_small(tmp_path: Path) -> None:
    problem = problem_of(tmp_path, facts(), xlr={"test": 30, "per_entity": 0.01})
    assert problem.where == "knowledge.xlr.test"
    assert re.fullmatch(
        r"a larger knowledge\.xlr\.per_entity=0\.01, for which \d+ cycles were passed over; or another graph",
        problem.hint,
    )


def test_a_language_without_names_of_relations(tmp_path: Path) -> None:
    triples, names = facts()
    names = {**names, "zh": {one: found for one, found in names["zh"].items() if one[0] == "Q"}}
    problem = problem_of(tmp_path / "drop", (triples, names))
    assert "none of its" in problem.what
    assert problem.hint == "take fewer languages, or knowledge.cycles.missing=english"
    knowledge = settings(cycles={"missing": Missing.english})
    (tmp_path / "english").mkdir()
    one = World(tmp_path / "english", knowledge, (triples, names))
    english = {found[0] for identity, found in names["en"].items() if identity[0] == "P"}
    assert all(set(row["choices"]) <= english for row in one.rows("test", "zh"))
    assert all(
        re.fullmatch(r"What is the relation between zh Q\d+ and zh Q\d+\?", r["question"])
        for r in one.rows("test", "zh")
    )


def test_a_graph_without_cycles(tmp_path: Path) -> None:
    names = {language: {one: [f"{language} {one}"] for one in ("Q1", "Q2", "P1")} for language in ("en", "de", "zh")}
    problem = problem_of(tmp_path, ([(1, 1, 2)], names))
    assert problem.what == (
        "asks for 10 questions; the graph gives 0: none of its 0 cycles has names for all its entities and relations "
        "in every language"
    )


# The command.

SMALLER = ["knowledge=toy", "knowledge.xlr.train=80", "knowledge.xlr.dev=20", "knowledge.xlr.test=30"]


def test_the_command_writes_the_questions_and_a_readme(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    to, outputs = tmp_path / "xlr", f"outputs={tmp_path / 'outputs'}"
    assert build.run(["xlr", *SMALLER, outputs, "--to", str(to)]) == 0
    names = {path.name for path in to.iterdir()}
    tests = {f"test.{language}.jsonl" for language in ("en", "xa", "xb", "xc")}
    assert names == tests | {"train.en.jsonl", "dev.en.jsonl", "keys.npy", "xlr.json", "README.md"}
    assert len((to / "train.en.jsonl").read_text().splitlines()) == 80
    page, info = (to / "README.md").read_text(), json.loads((to / "xlr.json").read_text())
    assert f"Made by `kbench build xlr {' '.join(SMALLER)}" in page
    assert all(one in page for one in info["deviations"])
    assert "- seed: 1; languages: en, xa, xb, xc" in page
    assert f"| test | test.<language>.jsonl, 4 of them | 30 | {info['splits']['test']['length3']} |" in page
    assert "test          30 questions" in capsys.readouterr().out
    # again, with fewer languages: nothing of the first remains
    assert build.run(["xlr", *SMALLER, outputs, "--to", str(to), "knowledge.languages=[en,xb]"]) == 0
    assert {path.name for path in to.glob("test.*")} == {"test.en.jsonl", "test.xb.jsonl"}
    # where none is named, it is a folder of the outputs
    assert build.run(["xlr", *SMALLER, outputs]) == 0
    assert (tmp_path / "outputs/xlr/toy/README.md").is_file()


def test_the_command_leaves_a_folder_of_something_else_alone(tmp_path: Path) -> None:
    (tmp_path / "train.en.jsonl").write_text("mine")
    with pytest.raises(UserError, match="is not empty, and holds no XLR questions"):
        build.run(["xlr", *SMALLER, "--to", str(tmp_path)])
    with pytest.raises(UserError, match="is a file"):
        build.run(["xlr", *SMALLER, "--to", str(tmp_path / "train.en.jsonl")])
    for below in ("xlr", "deep/xlr"):
        with pytest.raises(UserError, match="cannot be written: Not a directory"):
            build.run(["xlr", *SMALLER, "--to", str(tmp_path / "train.en.jsonl" / below)])
    assert [path.name for path in tmp_path.iterdir()] == ["train.en.jsonl"]


def test_the_command_counts_the_samples_of_a_graph(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outputs = f"outputs={tmp_path}"
    assert build.run(["graph", *SMALLER, outputs]) == 0
    told = capsys.readouterr().out
    (samples,) = (path for path in (tmp_path / "stages/samples").iterdir() if path.is_dir())
    for name, count in describe(samples).items():
        assert re.search(rf"(samples|       )  {name[2:].replace('_', ' ')} +{count:,}\n", told)
    assert re.search(r"\n +entities +1,040\n", told)
    assert re.search(r"\nen +1,055 +[\d,]+ + [\d,]+ + [\d,]+\n", told)  # labels, aliases, cycles; no sentences
    assert build.run(["graph", *SMALLER, outputs, "knowledge.xlr=null"]) == 0
    assert len([path for path in (tmp_path / "stages/samples").iterdir() if path.is_dir()]) == 2
