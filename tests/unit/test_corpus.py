"""A corpus as arrays: what is stored, what is left out, and who is meant by a mention."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kbench.config.corpus import AliasOptions, Corpus, Linker
from kbench.config.knowledge import Knowledge
from kbench.errors import DataError
from kbench.knowledge import corpus as module
from kbench.knowledge.corpora import locate_corpus
from kbench.knowledge.corpus import MENTION, CorpusText, corpus_stage, resolved, sentence_batches
from kbench.knowledge.graph import Graph, graph_stage
from kbench.knowledge.readers import locate
from kbench.stages.store import Store

from .test_graph_readers import write_tables

TRIPLES = "Q2\tP3\tQ5\nQ5\tP3\tQ90\n"
NAMES = "Q2\ten\t0\tAda Lovelace\nQ2\ten\t1\tLovelace\nQ5\ten\t0\tCharles Babbage\nQ90\ten\t0\tLondon\n"


def knowledge_of(folder: Path, files: Path, reader: str = "jsonl", linker: str = "prelinked", **more: Any) -> Knowledge:
    """A graph of three entities, with a corpus of the files of a folder."""
    (folder / "graph").mkdir(exist_ok=True)
    graph = write_tables(folder / "graph", triples=TRIPLES, entities=NAMES, relations="P3\ten\t0\tknows\n")
    part = {"jsonl": "text", "text": "text", "docred": "documents"}.get(reader)
    made = Corpus(
        name="mine", reader=reader, linker=Linker(linker), alias=AliasOptions(4, 0, False),
        files={} if part is None else {part: "*"}, folder="x", path=str(files), documents=None, pack=True,
        min_mentions=1, licence="", cite="",
    )  # fmt: skip
    return replace(graph, languages=["en"], corpus=replace(made, **more))


def build(knowledge: Knowledge, folder: Path) -> tuple[CorpusText, Graph]:
    store, graph = Store(folder), graph_stage(knowledge, locate(knowledge))
    assert knowledge.corpus is not None
    made = store.get(corpus_stage(knowledge, locate_corpus(knowledge.corpus), graph))
    # nothing of what was only needed on the way is left
    assert {path.name for path in made.iterdir()} == {
        "corpus.arrow", "corpus.json", "frequency.npy", "mentions.npy", "manifest.json",
    }  # fmt: skip
    return CorpusText(made), Graph(store.get(graph))


def texts(folder: Path, *records: Any) -> Path:
    folder.mkdir(exist_ok=True)
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "a.jsonl").write_text(lines, encoding="utf-8")
    return folder


def at(text: str, *spans: tuple[int, int, int], title: str | None = None, score: float = 1.0) -> dict[str, Any]:
    found = [{"start": start, "end": end, "qid": f"Q{number}", "score": score} for start, end, number in spans]
    return {"text": text, "title": title, "mentions": found}


SOME = (
    at("Ada Lovelace knew Charles Babbage.", (18, 33, 5), (0, 3, 2), (0, 12, 2), title="Ada", score=0.25),
    at("  \t ", title="Ada"),
    at("She lived in London, not Paris.", (13, 19, 90), (25, 30, 1000), title="Ada"),
    at(" ", title="blank"),
    at("Nobody.", title="Nobody"),
    at("In London 𝔸 Ada.", (12, 15, 2), (3, 9, 90), title="More"),
)


def test_sentences_mentions_and_counts(tmp_path: Path) -> None:
    corpus, graph = build(knowledge_of(tmp_path, texts(tmp_path / "texts", *SOME)), tmp_path / "stages")
    assert graph.entities.tolist() == [2, 5, 90]
    assert (corpus.sentences, corpus.documents) == (4, 3)
    assert corpus.texts(0, 4) == [SOME[0]["text"], SOME[2]["text"], "Nobody.", SOME[5]["text"]]
    assert corpus.texts(1, 2) == [SOME[2]["text"]]
    assert corpus.document_of(0, 4).tolist() == [0, 0, 1, 2]
    assert corpus.mentions.dtype == MENTION
    assert corpus.mentions.tolist() == [
        (0, 0, 12, 0, 0.25), (0, 18, 33, 1, 0.25), (1, 13, 19, 2, 1.0), (1, 25, 30, -1, 1.0),
        (3, 3, 9, 2, 1.0), (3, 12, 15, 0, 1.0),
    ]  # fmt: skip
    assert corpus.frequency.tolist() == [2, 1, 2] and corpus.frequency.dtype == np.int64
    assert [corpus.mentions_of(*ends).tolist() for ends in ((0, 1), (1, 3), (2, 3), (0, 4))] == [
        [0, 1], [2, 3], [], [0, 1, 2, 3, 4, 5],
    ]  # fmt: skip
    letters = sum(len(corpus.texts(row, row + 1)[0]) for row in range(4))
    info = {"documents": 3, "sentences": 4, "characters": letters, "blank": 2, "mentions": 6, "linked": 5, "unknown": 1}
    assert corpus.info == {**info, "entities": 3, "overlaps": 1, "content": corpus.content}


def test_a_limit_of_documents_takes_the_first(tmp_path: Path) -> None:
    knowledge = knowledge_of(tmp_path, texts(tmp_path / "texts", *SOME), documents=2)
    corpus, _ = build(knowledge, tmp_path / "stages")
    assert corpus.texts(0, 9) == [SOME[0]["text"], SOME[2]["text"]]  # the second is blank
    assert corpus.documents == 1


def test_batches_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    knowledge = knowledge_of(tmp_path, texts(tmp_path / "texts", *SOME))
    whole, _ = build(knowledge, tmp_path / "stages")
    for name, size in (("_BATCH", 1), ("_CHARACTERS", 3)):
        monkeypatch.setattr(module, name, size)
        found, _ = build(knowledge, tmp_path / name)
        assert found.info == whole.info
        assert found.texts(0, 4) == whole.texts(0, 4)
        assert found.mentions.tolist() == whole.mentions.tolist()
    changed = texts(tmp_path / "texts", *SOME[:-1], at("In London 𝔸 Ada!", (12, 15, 2), (3, 9, 90), title="More"))
    other, _ = build(knowledge_of(tmp_path, changed), tmp_path / "stages")
    assert other.content != whole.content
    assert {**other.info, "content": whole.content} == whole.info


def naive(rows: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Longer spans first, of two as long the earlier; what crosses one that is taken is not."""
    taken: list[tuple[int, int, int]] = []
    for row in sorted(rows, key=lambda row: (row[1] - row[2], row[1])):
        if not any(row[0] == one[0] and row[1] < one[2] and one[1] < row[2] for one in taken):
            taken.append(row)
    return sorted(taken)


def test_overlaps_against_a_plain_search() -> None:
    random = np.random.default_rng(0)
    lost = 0
    for _ in range(300):
        size = int(random.integers(0, 12))
        starts = random.integers(0, 30, size)
        rows = np.zeros(size, dtype=MENTION)
        rows["sentence"], rows["start"] = random.integers(0, 3, size), starts
        rows["end"] = starts + random.integers(1, 8, size)
        found, dropped = resolved(rows)
        wanted = naive([tuple(row) for row in rows[["sentence", "start", "end"]].tolist()])
        assert found[["sentence", "start", "end"]].tolist() == wanted
        assert len(found) + dropped == size
        lost += dropped
    assert lost > 300


def test_of_mentions_alike_the_first_is_taken() -> None:
    rows = np.array([(0, 3, 5, 7, 1.0), (0, 3, 5, 8, 1.0), (0, 0, 2, 9, 1.0)], dtype=MENTION)
    assert resolved(rows)[0]["entity"].tolist() == [9, 7]


def test_documents_stand_in_one_batch_unless_they_are_very_long(monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow as pa

    column = pa.chunked_array([[0, 0, 1, 2], [2, 2, 2, 2, 3]], pa.int32())
    assert list(sentence_batches(column, 2)) == [(0, 2), (2, 8), (8, 9)]
    assert list(sentence_batches(column, 100)) == [(0, 9)]
    monkeypatch.setattr(module, "_LONGEST", 2)
    assert list(sentence_batches(column, 2)) == [(0, 2), (2, 6), (6, 8), (8, 9)]


@pytest.mark.parametrize(
    ("records", "what"),
    [
        ([at(" ")], "has no sentence"),
        ([at("Ada."), at("Paris.", (0, 5, 1000))], "has no mention of an entity of the graph"),
        ([{}], "has not one of text and tokens"),
    ],
)
def test_a_corpus_of_no_use_is_said_to_be_one(records: list[Any], what: str, tmp_path: Path) -> None:
    knowledge = knowledge_of(tmp_path, texts(tmp_path / "texts", *records))
    with pytest.raises(DataError) as raised:
        build(knowledge, tmp_path / "stages")
    assert [problem.what for problem in raised.value.problems] == [what]
    assert not [path for path in (tmp_path / "stages").rglob("*.arrow") if path.name == "corpus.arrow"]


# Linking by names.


def test_names_are_found_in_text_without_links(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("Ada Lovelace saw London.\nThe town, she said, or Berlin.\n\nLovelace left.\n")
    corpus, _ = build(knowledge_of(tmp_path, folder, "text", "alias"), tmp_path / "stages")
    assert corpus.documents == 2
    assert corpus.mentions[["sentence", "start", "end", "entity"]].tolist() == [
        (0, 0, 12, 0), (0, 17, 23, 2), (2, 0, 8, 0),
    ]  # fmt: skip
    assert corpus.info["unknown"] == 0
    # its own links do not count where names are looked for
    texts(tmp_path / "more", at("Ada Lovelace saw London.", (0, 3, 5)))
    corpus, _ = build(knowledge_of(tmp_path, tmp_path / "more", "jsonl", "alias"), tmp_path / "stages")
    assert corpus.mentions["entity"].tolist() == [0, 2]


def test_given_spans_are_looked_up_and_stay_where_they_are_unknown(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    document = {
        "title": "x",
        "sents": [["Ada", "Lovelace", "met", "Menabrea", "in", "London", "."], ["Lovelace", "wrote", "."]],
        "vertexSet": [
            [{"sent_id": 0, "pos": [5, 6]}], [{"sent_id": 1, "pos": [0, 1]}, {"sent_id": 0, "pos": [0, 2]}],
            [{"sent_id": 0, "pos": [3, 4]}],
        ],
    }  # fmt: skip
    (folder / "dev.json").write_text(json.dumps([document]))
    corpus, _ = build(knowledge_of(tmp_path, folder, "docred", "alias"), tmp_path / "stages")
    assert corpus.mentions[["sentence", "start", "end", "entity"]].tolist() == [
        (0, 0, 12, 0), (0, 17, 25, -1), (0, 29, 35, 2), (1, 0, 8, 0),
    ]  # fmt: skip
    assert (corpus.info["linked"], corpus.info["unknown"]) == (3, 1)


# Identity.


def test_the_stage_is_named_by_what_decides_it(tmp_path: Path) -> None:
    knowledge = knowledge_of(tmp_path, texts(tmp_path / "texts", *SOME))

    def key(**more: Any) -> str:
        assert knowledge.corpus is not None
        made = replace(knowledge, corpus=replace(knowledge.corpus, **more))
        return corpus_stage(made, locate_corpus(made.corpus), graph_stage(made, locate(made))).key

    texts(tmp_path / "again", *SOME)
    same = {key(), key(path=str(tmp_path / "again")), key(pack=False), key(min_mentions=3)}
    same |= {key(alias=AliasOptions(5, 0, False)), key(name="x", cite="y")}
    assert len(same) == 1
    texts(tmp_path / "other", *SOME[1:])
    by_name = {"linker": Linker.alias}
    others = [{"documents": 2}, {"path": str(tmp_path / "other")}, by_name]
    others += [{**by_name, "alias": alias} for alias in (AliasOptions(5, 0, False), AliasOptions(4, 9, False))]
    found = [key(**one) for one in others]
    assert len({*found, *same}) == len(found) + 1
    assert "path" not in json.dumps(corpus_stage(knowledge, {}, graph_stage(knowledge, locate(knowledge))).science)
    with pytest.raises(ValueError, match="null"):
        corpus_stage(replace(knowledge, corpus=None), {}, graph_stage(knowledge, locate(knowledge)))
