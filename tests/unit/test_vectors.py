"""Vectors of a graph: trained and stored, read in both forms, and every kind of broken file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from kbench.config.corpus import Norm, Vectors
from kbench.errors import DataError, InterruptedRunError, Problem
from kbench.knowledge import vector_files
from kbench.knowledge.graph import Graph, graph_stage
from kbench.knowledge.readers import locate
from kbench.knowledge.transe import Training
from kbench.knowledge.vectors import GraphVectors, export, locate_vectors, vectors_readme, vectors_stage
from kbench.stages.stage import Stage
from kbench.stages.store import Store

from .test_graph_readers import make_knowledge, write, write_tables

CONFIG = Vectors(
    path=None, dimension=6, epochs=2, lr=0.1, batch_size=512, negatives=16, margin=1.0, norm=Norm.l1, seed=1
)

# the graph: Q1 -P1-> Q2 -P2-> Q3; Q77 and P9 are none of it
IDS = {"entity2id.txt": "4\nQ3\t2\nQ1\t0\nQ77\t1\nQ2\t3\n", "relation2id.txt": "2\nP2\t0\nP1\t1\n"}
ROWS = {
    "entity2vec.vec": "1.5\t-2\t\n9\t9\t\n0.25\t1e-1\t\n4\t5\t\n",
    "relation2vec.vec": "7\t8\n-7\t-8\n",
}
TABLES = IDS | ROWS
ENTITIES = [[1.5, -2.0], [4.0, 5.0], [0.25, 0.1]]


def toy() -> Stage:
    knowledge = make_knowledge(corpus=None, vectors=CONFIG)
    return graph_stage(knowledge, locate(knowledge))


def three(folder: Path) -> Stage:
    """The graph of three entities."""
    knowledge = write_tables(folder / "graph")
    return graph_stage(knowledge, locate(knowledge))


def tables(folder: Path, **changes: str | None) -> Path:
    """A folder of vectors in ERNIE's form, with some of its files changed or left out."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in TABLES.items():
        content = changes.get(name.partition(".")[0], content)
        if content is not None:
            write(folder / name, content)
    return folder


def packed(folder: Path, **changes: Any) -> Path:
    """The same vectors in our form."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {
        "entities": np.array([[1.5, -2], [9, 9], [0.25, 0.1], [4, 5]], dtype=np.float32),
        "relations": np.array([[7, 8], [-7, -8]], dtype=np.float32),
        "entity_ids": np.array([1, 77, 3, 2]),
        "relation_ids": np.array([2, 1]),
    }
    arrays |= {name: array for name, array in changes.items() if array is not None}
    save_file({name: array for name, array in arrays.items() if changes.get(name, 0) is not None},
              folder / "vectors.safetensors")  # fmt: skip
    return folder


def read(folder: Path, stages: Path) -> GraphVectors:
    config = replace(CONFIG, path=str(folder))
    return GraphVectors(Store(stages).get(vectors_stage(three(stages), config, locate_vectors(config))))


def problem_of(folder: Path, stages: Path) -> Problem:
    with pytest.raises(DataError) as raised:
        read(folder, stages)
    (problem,) = raised.value.problems
    assert not list(stages.glob("stages/vectors/*.work"))
    return problem


# Trained.


def test_they_are_trained_scored_and_stored(tmp_path: Path) -> None:
    graph, store, told = toy(), Store(tmp_path), []
    stage = vectors_stage(graph, replace(CONFIG, epochs=8, dimension=16), {}, say=told.append)
    vectors, arrays = GraphVectors(store.get(stage)), Graph(store.get(graph))
    assert vectors.entities.shape == (len(arrays.entities), 16)
    assert vectors.relations.shape == (len(arrays.relations), 16)
    assert (vectors.entities.dtype, vectors.has.dtype) == (np.float32, bool)
    assert vectors.has.all() and vectors.has_relation.all() and vectors.usable(arrays.triples).all()
    info = vectors.info
    assert info["trained"] | {"dimension": 16, "epochs": 8, "norm": "l1"} == info["trained"]
    assert len(info["losses"]) == 8 and info["losses"][-1] < info["losses"][0]
    assert info["scores"]["queries"] == 1000
    assert info["scores"]["hits@10"] > 5 * 10 / len(arrays.entities)  # 5 times chance
    assert (info["usable_triples"], info["entities_without"]) == (len(arrays.triples), 0)
    names = {"entities.npy", "relations.npy", "has.npy", "has_relations.npy", "vectors.json", "manifest.json"}
    assert {path.name for path in vectors.folder.iterdir()} == names
    assert told[-1].startswith("epoch 8.00 of 8, loss ")


def test_a_stopped_stage_continues_to_the_same_bytes(tmp_path: Path) -> None:
    graph, steps = toy(), iter(range(7))

    def stop() -> None:
        if next(steps, None) is None:
            raise InterruptedRunError

    whole = GraphVectors(Store(tmp_path / "whole").get(vectors_stage(graph, CONFIG, {})))
    with pytest.raises(InterruptedRunError):
        Store(tmp_path / "cut").get(vectors_stage(graph, CONFIG, {}, check_stop=stop))
    (state,) = (tmp_path / "cut").rglob("step-*")
    assert state.name == "step-0000000007"
    cut = GraphVectors(Store(tmp_path / "cut").get(vectors_stage(graph, CONFIG, {})))
    assert cut.info == whole.info
    assert cut.entities.tobytes() == whole.entities.tobytes()


def test_a_finished_training_is_not_made_again_where_its_scores_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = toy()

    def killed(*given: Any, **named: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("kbench.knowledge.transe.ranking", killed)
        Store(tmp_path).get(vectors_stage(graph, CONFIG, {}))
    monkeypatch.setattr(Training, "advance", killed)
    assert GraphVectors(Store(tmp_path).get(vectors_stage(graph, CONFIG, {}))).info["losses"]


def test_what_the_stage_is_made_of(tmp_path: Path) -> None:
    graph = three(tmp_path)
    key = vectors_stage(graph, CONFIG, {}).key
    assert vectors_stage(graph, replace(CONFIG, path="elsewhere"), {}, device="cuda").key == key
    changed: dict[str, Any] = {"dimension": 7, "epochs": 3, "lr": 0.2, "batch_size": 9, "negatives": 3, "margin": 2.0}
    changed |= {"norm": Norm.l2, "seed": 2}
    keys = {vectors_stage(graph, replace(CONFIG, **{name: value}), {}).key for name, value in changed.items()}
    assert len(keys | {key}) == 9
    files = [locate_vectors(replace(CONFIG, path=str(tables(tmp_path / name)))) for name in "ab"]
    keys = {vectors_stage(graph, replace(CONFIG, seed=seed), one).key for seed, one in enumerate(files)}
    assert len(keys) == 1  # content counts, folder and rules of a training do not
    write(tmp_path / "a" / "relation2vec.vec", "1\t2\n3\t4\n")
    assert vectors_stage(graph, CONFIG, files[0]).key not in keys


# Read.


@pytest.mark.parametrize("form", [tables, packed])
@pytest.mark.parametrize("block", [1, 1 << 26])
def test_both_forms(form: Any, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_files, "_BYTES", block)
    monkeypatch.setattr(vector_files, "_ROWS", block)
    vectors = read(form(tmp_path / "vectors"), tmp_path)
    assert np.allclose(vectors.entities, ENTITIES)
    assert vectors.relations.tolist() == [[-7, -8], [7, 8]]
    assert vectors.has.all() and vectors.has_relation.all()
    assert vectors.info["vectors_of_others"] == {"entities": 1, "relations": 0}
    assert (vectors.info["dimension"], vectors.info["usable_triples"]) == (2, 2)


def test_line_ends_and_halves(tmp_path: Path) -> None:
    windows = {name.partition(".")[0]: content.replace("\n", "\r\n") for name, content in TABLES.items()}
    assert np.allclose(read(tables(tmp_path / "windows", **windows), tmp_path / "a").entities, ENTITIES)
    ended = {"entity2vec": TABLES["entity2vec.vec"] + "\n", "relation2vec": TABLES["relation2vec.vec"].strip()}
    assert np.allclose(read(tables(tmp_path / "ended", **ended), tmp_path / "b").entities, ENTITIES)
    half = packed(tmp_path / "half", entities=np.array([[1.5, -2], [9, 9], [0.25, 0.1], [4, 5]], dtype=np.float16))
    assert np.allclose(read(half, tmp_path / "c").entities, ENTITIES, atol=1e-3)


def test_what_has_no_vector(tmp_path: Path) -> None:
    ids = {"entity2id": "4\nQ5\t2\nQ1\t0\nQ77\t1\nQ2\t3\n", "relation2id": "2\nP8\t0\nP1\t1\n"}
    vectors = read(tables(tmp_path / "vectors", **ids), tmp_path)
    assert vectors.has.tolist() == [True, True, False]
    assert vectors.has_relation.tolist() == [True, False]
    assert vectors.entities[2].tolist() == vectors.relations[1].tolist() == [0, 0]
    triples = np.array([[0, 0, 1], [1, 1, 0], [1, 0, 2], [2, 0, 1]])
    assert vectors.usable(triples).tolist() == [True, False, False, False]
    told = {name: vectors.info[name] for name in ("entities", "entities_without", "relations_without")}
    assert told == {"entities": 2, "entities_without": 1, "relations_without": 1}
    assert vectors.info["vectors_of_others"] == {"entities": 2, "relations": 1}


@pytest.mark.parametrize(
    ("changes", "where", "words"),
    [
        ({"entity2id": "4\nQ3\t2\nQ1\t0\nx7\t1\nQ2\t3\n"}, "entity2id.txt, line 4", "'x7' is no id of an entity"),
        ({"relation2id": "2\nP2\t0\nQ1\t1\n"}, "relation2id.txt, line 3", "'Q1' is no id of a relation"),
        ({"entity2id": "5" + IDS["entity2id.txt"][1:]}, "entity2id.txt, line 1", "says 5 rows, 4 follow"),
        ({"entity2id": "Q3\t2\nQ1\t0\n"}, "entity2id.txt, line 1", "'Q3' is no number of rows"),
        ({"entity2id": "2\nQ3\t2\nQ1\t0\n"}, "entity2id.txt, line 2", "'2' is no row (there are 2 of them, from 0)"),
        ({"entity2id": "2\nQ3\t0\nQ1 1\n"}, "entity2id.txt, line 3", "has 1 columns (expected: id, row; separated by"),
        ({"entity2id": "2\nQ3\t0\nQ1\t0\n"}, "entity2id.txt, line 3", "has the row of an earlier line: Q1 0"),
        ({"entity2id": "2\nQ3\t0\nQ3\t1\n"}, "entity2id.txt, line 3", "has the id of an earlier line: Q3 1"),
        ({"entity2vec": "1\t2\n3\t4\n"}, "entity2vec.vec", "has 2 rows of entities, there are 4 ids of them"),
        ({"entity2vec": "1\t2\n" * 5}, "entity2vec.vec", "has more than 4 rows of entities, there are 4 ids"),
        ({"entity2vec": ""}, "entity2vec.vec", "is empty (fetch it again)"),
        ({"entity2vec": "1\t2\n3\t4\n5\n6\t7\n"}, "entity2vec.vec, line 3", "has 1 numbers, line 1 has 2"),
        ({"entity2vec": "1\t2\n3\t4\n5\t6\t7\n6\t7\n"}, "entity2vec.vec, line 3", "has 3 numbers, line 1 has 2"),
        ({"entity2vec": "1\t2\n3\tx4\n5\t6\n6\t7\n"}, "entity2vec.vec, line 2", "'x4' is no number"),
        ({"entity2vec": "1\t2\n3\t\t\n5\t6\n6\t7\n"}, "entity2vec.vec, line 2", "has 1 numbers, line 1 has 2"),
        ({"entity2vec": "1\t2\n3\tnan\n5\t6\n6\t7\n"}, "entity2vec.vec, line 2", "nan is no finite number"),
        ({"entity2vec": "1\t2\n3\t4\n5\t1e99\n6\t7\n"}, "entity2vec.vec, line 3", "1e99 is no finite number"),
    ],
)
def test_broken_tables(changes: dict[str, str], where: str, words: str, tmp_path: Path) -> None:
    problem = problem_of(tables(tmp_path / "vectors", **changes), tmp_path)
    assert problem.where == str(tmp_path / "vectors" / where)
    assert words in str(problem)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"relation2vec": "1\t2\t3\n4\t5\t6\n"}, "entities have 2 numbers, relations 3 (head + relation is to be near"),
        ({"entity2id": IDS["entity2id.txt"].replace("Q", "Q10")}, "there is no vector for any of the graph's entities"),
        (
            {"relation2id": "2\nP3\t0\nP4\t1\n"},
            "no vector for any of the graph's relations (the graph has 2",
        ),
        ({"relation2vec": None, "entity2id": None}, "holds no vectors.safetensors, and no entity2id.txt, relation2vec"),
    ],
)
def test_vectors_that_do_not_go_together(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    problem = problem_of(tables(tmp_path / "vectors", **changes), tmp_path)
    assert problem.where == f"knowledge.vectors.path={tmp_path / 'vectors'}"
    assert words in str(problem)


@pytest.mark.parametrize(
    ("changes", "where", "words"),
    [
        ({"entity_ids": None}, "", "holds no entity_ids (it holds entities, relation_ids, relations)"),
        ({"entity_ids": np.array([1, 2, 3])}, "", "entities are [4, 2], entity_ids [3] (expected: [rows, numbers]"),
        ({"entity_ids": np.array([1, 2, 3, 2])}, ", entity_ids", "Q2 stands there twice"),
        ({"relation_ids": np.array([-1, 2])}, ", relation_ids", "-1 is no number of Wikidata"),
        ({"relation_ids": np.array([1, 2], dtype=np.int32)}, "", "relations are of type F32, relation_ids of I32"),
        ({"entities": np.ones((4, 2), dtype=np.int64)}, "", "entities are of type I64, entity_ids of I64"),
        ({"relations": np.array([[1, 2], [np.nan, 3]], dtype=np.float32)}, ", relations, row 1", "that is not finite"),
    ],
)
def test_broken_packed_vectors(changes: dict[str, Any], where: str, words: str, tmp_path: Path) -> None:
    problem = problem_of(packed(tmp_path / "vectors", **changes), tmp_path)
    assert problem.where == f"{tmp_path / 'vectors' / 'vectors.safetensors'}{where}"
    assert words in str(problem)


def test_a_damaged_file_and_folders_that_hold_none(tmp_path: Path) -> None:
    folder = packed(tmp_path / "cut")
    whole = (folder / "vectors.safetensors").read_bytes()
    (folder / "vectors.safetensors").write_bytes(whole[:-5])
    assert "is no readable safetensors file" in str(problem_of(folder, tmp_path))
    both = packed(tables(tmp_path / "both"))
    assert "holds vectors.safetensors and entity2id.txt (remove one of the two forms)" in str(
        problem_of(both, tmp_path)
    )
    absent = problem_of(tmp_path / "absent", tmp_path)
    assert (absent.where, absent.what) == (
        f"knowledge.vectors.path={tmp_path / 'absent'}", f"there is no folder {tmp_path / 'absent'}",
    )  # fmt: skip


# Exported.


def test_what_is_exported_is_read_again(tmp_path: Path) -> None:
    ids = {"entity2id": "4\nQ5\t2\nQ1\t0\nQ77\t1\nQ2\t3\n"}
    vectors = read(tables(tmp_path / "vectors", **ids), tmp_path)
    graph, to = Graph(Store(tmp_path).get(three(tmp_path))), tmp_path / "to"
    to.mkdir()
    export(vectors, graph, to)
    assert load_file(to / "vectors.safetensors")["entity_ids"].tolist() == [1, 2]
    assert [path.name for path in to.iterdir()] == ["vectors.safetensors"]
    again = read(to, tmp_path)
    assert again.info["content"] == vectors.info["content"]
    assert again.entities.tolist() == vectors.entities.tolist()
    page = vectors_readme(vectors.info, "three", graph.info, "`kbench build vectors` (kbench 1)", "CC0")
    assert "for each of 2 entities and 2 relations, read from entity2id.txt, entity2vec.vec," in page
    assert f"| {vectors.info['scores']['mrr']:.3f} | {vectors.info['scores']['hits@10']:.3f} |" in page


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from kbench.cli.build import run

    monkeypatch.chdir(tmp_path)
    words = ["vectors", "knowledge=toy", "knowledge.vectors.epochs=2", "knowledge.vectors.dimension=8"]
    words += ["knowledge.vectors.negatives=20", "outputs=out"]
    assert run([*words, "--to", "here"]) == 0
    said = capsys.readouterr().out
    assert {path.name for path in Path("here").iterdir()} == {"vectors.safetensors", "README.md"}
    info = json.loads(next(Path("out").rglob("vectors.json")).read_text())
    assert f"mean reciprocal rank {info['scores']['mrr']:.3f}, hits at 10 {info['scores']['hits@10']:.3f}" in said
    page = Path("here/README.md").read_text()
    assert "trained by TransE" in page and "knowledge=toy knowledge.vectors.epochs=2" in page
    assert run(["vectors", "knowledge=toy", "knowledge.vectors.path=here", "outputs=out"]) == 0
    assert len(list(Path("out").rglob("vectors.json"))) == 2
    Path("full").mkdir()
    Path("full/mine").touch()
    from kbench.errors import UserError

    with pytest.raises(UserError, match="is not empty, and holds no vectors"):
        run([*words, "--to", "full"])
