"""Which facts of a probe a graph holds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from kbench.data.records import Records
from kbench.knowledge import leak as module
from kbench.knowledge.graph import Graph
from kbench.knowledge.leak import leak, leaked_triples

ENTITIES, RELATIONS = [2, 5, 7, 40, 90], [19, 27, 36]
# Q5 was born in Q40, Q7 too; Q5 is a citizen of Q90, Q90's capital is Q40, and a triple the other way round
TRIPLES = [(5, 19, 40), (7, 19, 40), (5, 27, 90), (90, 36, 40), (40, 19, 5)]
FACTS = [
    ("Q5", "P19", "Q40"),  # there
    ("Q40", "P36", "Q90"),  # only the other way round
    ("Q5", "P27", "Q40"),  # all three are known, not so the fact
    ("Q5", "P20", "Q40"),  # no such relation
    ("Q6", "P19", "Q40"),  # no such entity
    ("Q5", "P27", "Q90"),  # there
    ("Q7", "place_of_birth", "Q40"),  # there, as P19
    ("", "place_of_birth", "Q40"),
    ("Q7", "date_of_birth", ""),
    ("", "squad", ""),
]


@pytest.fixture
def graph(tmp_path: Path) -> Graph:
    folder = tmp_path / "graph"
    folder.mkdir()
    triples = [(ENTITIES.index(h), RELATIONS.index(r), ENTITIES.index(t)) for h, r, t in TRIPLES]
    for name, array in (("entities", ENTITIES), ("relations", RELATIONS)):
        np.save(folder / f"{name}.npy", np.array(array, dtype=np.int64))
    np.save(folder / "triples.npy", np.array(triples, dtype=np.int32))
    (folder / "graph.json").write_text(json.dumps({"content": "0", "languages": {}}))
    return Graph(folder)


def records_of(folder: Path, facts: list[tuple[str, str, str]]) -> Records:
    folder.mkdir()
    texts = [["[Y] .", "a", "b", subject, relation, thing] for subject, relation, thing in facts]
    table = pa.table({"row": range(len(texts)), "text": texts, "label": [0] * len(texts)})
    with pa.OSFile(str(folder / "test.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    (folder / "records.json").write_text(json.dumps({"rows": {"test": len(texts)}, "layout": "facts", "content": "0"}))
    return Records(folder)


@pytest.mark.parametrize("block", [1, 2, 100])
def test_facts_that_are_triples_by_hand(
    block: int, graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six facts of T-REx, two of them there; three of Google-RE, one of them with ids; one of SQuAD without."""
    monkeypatch.setattr(module, "_BLOCK", block)
    records = records_of(tmp_path / "records", FACTS)
    assert leak(graph.folder, records) == {
        "leak": pytest.approx(3 / 7),
        "no_ids": pytest.approx(3 / 10),
        "leak/google_re": 1.0,
        "no_ids/google_re": pytest.approx(2 / 3),
        "leak/t_rex": pytest.approx(2 / 6),
        "no_ids/t_rex": 0.0,
        "leak/squad": 0.0,
        "no_ids/squad": 1.0,
    }
    assert leaked_triples(graph, records).tolist() == [True, True, True, False, False]


def test_nothing_leaks_where_no_fact_is_of_the_graph(graph: Graph, tmp_path: Path) -> None:
    records = records_of(tmp_path / "records", [("Q999", "P19", "Q40"), ("Qx", "P19", "Q40"), ("Q5", "P9", "Q40")])
    assert leak(graph.folder, records)["leak"] == 0.0
    assert leak(graph.folder, records)["no_ids"] == pytest.approx(1 / 3)
    assert not leaked_triples(graph, records).any()


def test_against_sets_of_triples(tmp_path: Path) -> None:
    """A second way, in Python's sets, on a graph of many triples."""
    rng = np.random.default_rng(1)
    folder = tmp_path / "graph"
    folder.mkdir()
    entities, relations = np.arange(60) * 3 + 1, np.array([19, 20, 27])
    triples = np.unique(rng.integers(0, (60, 3, 60), size=(4000, 3)), axis=0).astype(np.int32)
    for name, array in (("entities", entities), ("relations", relations), ("triples", triples)):
        np.save(folder / f"{name}.npy", array)
    (folder / "graph.json").write_text(json.dumps({"content": "0", "languages": {}}))
    named = {(f"Q{entities[h]}", f"P{relations[r]}", f"Q{entities[t]}") for h, r, t in triples.tolist()}
    drawn = rng.integers(0, (190, 29, 190), size=(900, 3)).tolist() + [[1 + 3 * n, 27, 4 + 3 * n] for n in range(59)]
    facts = [(f"Q{h}", f"P{r}", f"Q{t}") for h, r, t in drawn]
    records = records_of(tmp_path / "records", facts)
    there = [one in named for one in facts]
    assert 5 < sum(there) < len(facts) - 5
    assert leak(folder, records)["leak"] == pytest.approx(np.mean(there))
    found = leaked_triples(Graph(folder), records)
    asked = set(facts)
    expected = [(f"Q{entities[h]}", f"P{relations[r]}", f"Q{entities[t]}") in asked for h, r, t in triples.tolist()]
    assert found.tolist() == expected
