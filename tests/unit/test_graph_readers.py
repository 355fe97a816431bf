"""Reading knowledge graphs: both formats and the name tables, every kind of broken file, and the toy graph."""

from __future__ import annotations

import gzip
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from kbench.config import knowledge as schema
from kbench.config.corpus import Norm, Vectors
from kbench.errors import DataError, Problem
from kbench.knowledge import toy_graph
from kbench.knowledge.readers import SOURCES, Source, ToyGraph, cleaned, locate

TABLES = {"triples": "triples.tsv*", "entities": "entities.tsv*", "relations": "relations.tsv*", "names": "names/*"}
WIKIDATA5M = {
    "triples": "wikidata5m_*_triplet.txt*", "entities": "wikidata5m_entity.txt*",
    "relations": "wikidata5m_relation.txt*", "names": "names/*",
}  # fmt: skip

CONTENT = {
    "triples.tsv": "Q1\tP1\tQ2\nQ2\tP2\tQ3\n",
    "entities.tsv": "Q1\ten\t0\tone\nQ1\ten\t1\tunit\nQ2\tde\t0\tzwei\nQ3\ten\t0\tthree\n",
    "relations.tsv": "P1\ten\t0\tnext to\nP2\ten\t0\tafter\nP1\tde\t0\tneben\n",
}


def make_knowledge(**changes: Any) -> schema.Knowledge:
    """A knowledge graph's configuration; `cycles_multi` is `multi` of its `cycles`, and so on."""
    cycles = schema.Cycles(
        multi=schema.Multi.uniform, align=schema.Align.shared, unique_by=schema.CycleKey.diamond, per_chord=20,
        missing=schema.Missing.english, length3=None, length4=None, balance=1.0, exclude=schema.Exclude.exact,
    )  # fmt: skip
    own = {name.removeprefix("cycles_"): changes.pop(name) for name in list(changes) if name.startswith("cycles_")}
    sentences = schema.Sentences(
        triples=None, aliases=True, missing=schema.Missing.english, alias_pool=schema.AliasPool.all,
        alias_missing=schema.AliasMissing.label, drop_unswitched=False,
    )  # fmt: skip
    basic: dict[str, Any] = {
        "name": "test", "reader": "toy_graph", "languages": ["en", "xa"], "files": {}, "folder": "test", "path": None,
        "seed": 0, "sentences": sentences, "cycles": replace(cycles, **own),
        "xlr": schema.Xlr(train=1, dev=1, test=1, per_answer=1.0, per_entity=1.0, per_signature=1.0),
        "text": schema.PlainText(files={}, folder="", path=None, lines=None), "licence": "",
        "cite": "somewhere", "corpus": None,
        "vectors": Vectors(
            path=None, dimension=8, epochs=1, lr=0.1, batch_size=8, negatives=2, margin=1.0, norm=Norm.l1, seed=1
        ),
    }  # fmt: skip
    return schema.Knowledge(**(basic | changes))


def write(path: Path, content: str | bytes) -> Path:
    """A file, gzipped where its name ends so."""
    raw = content if isinstance(content, bytes) else content.encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


def write_tables(folder: Path, ending: str = "", **changes: str | bytes) -> schema.Knowledge:
    """A graph of three entities in the format of tables, with some of its files changed."""
    for name, content in CONTENT.items():
        write(folder / f"{name}{ending}", changes.get(name.partition(".")[0], content))
    return make_knowledge(reader="wikidata_tables", languages=["en", "de"], files=TABLES, path=str(folder))


def source(knowledge: schema.Knowledge) -> Source:
    return SOURCES[knowledge.reader](locate(knowledge))


def problem_of(knowledge: schema.Knowledge) -> Problem:
    """The one problem that reading everything ends with."""
    with pytest.raises(DataError) as raised:
        found = source(knowledge)
        found.triples()
        for language in knowledge.languages:
            found.names(language)
    (problem,) = raised.value.problems
    return problem


# Formats.


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_tables(ending: str, tmp_path: Path) -> None:
    found = source(write_tables(tmp_path, ending))
    assert found.triples().rows() == [(1, 1, 2), (2, 2, 3)]
    assert found.languages == {"en", "de"}
    entities = [(False, 1, 0, "one"), (False, 1, 1, "unit"), (False, 3, 0, "three")]
    assert found.names("en").rows() == [*entities, (True, 1, 0, "next to"), (True, 2, 0, "after")]
    assert found.names("de").rows() == [(False, 2, 0, "zwei"), (True, 1, 0, "neben")]


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_wikidata5m_of_several_files_and_name_tables(ending: str, tmp_path: Path) -> None:
    write(tmp_path / f"wikidata5m_transductive_valid_triplet.txt{ending}", "Q3\tP9\tQ1\n")
    write(tmp_path / f"wikidata5m_transductive_train_triplet.txt{ending}", "Q1\tP9\tQ2\nQ20\tP9\tQ3")
    write(tmp_path / f"wikidata5m_entity.txt{ending}", "Q1\tone\tI\tunit\nQ2\nQ3\t\tdrei\n")
    write(tmp_path / f"wikidata5m_relation.txt{ending}", "P9\tbeside\n")
    write(tmp_path / f"names/de.tsv{ending}", "Q1\t0\teins\nQ1\t1\tEins\nP9\t0\tneben\n")
    write(tmp_path / f"names/en.tsv{ending}", "Q1\t0\tOne\n")
    knowledge = make_knowledge(reader="wikidata5m", files=WIKIDATA5M, path=str(tmp_path))
    found = source(knowledge)
    assert found.triples().rows() == [(1, 9, 2), (20, 9, 3), (3, 9, 1)]
    assert found.languages == {"en", "de"}
    own = [(False, 1, 0, "one"), (False, 1, 1, "I"), (False, 1, 2, "unit"), (False, 2, 0, "")]
    own += [(False, 3, 0, ""), (False, 3, 1, "drei"), (True, 9, 0, "beside")]
    assert found.names("en").rows() == [(False, 1, 0, "One"), *own]
    assert found.names("de").rows() == [(False, 1, 0, "eins"), (False, 1, 1, "Eins"), (True, 9, 0, "neben")]


def test_blank_lines_windows_line_ends_and_a_mark_at_the_beginning(tmp_path: Path) -> None:
    changes = {
        name.partition(".")[0]: "\ufeff\n" + text.replace("\n", "\r\n\r\n \t\n") for name, text in CONTENT.items()
    }
    plain = source(write_tables(tmp_path / "plain"))
    found = source(write_tables(tmp_path / "windows", **changes))
    assert found.triples().equals(plain.triples())
    assert found.names("en").equals(plain.names("en"))
    assert found.content() != plain.content()


def test_the_content_does_not_depend_on_where_the_files_stand(tmp_path: Path) -> None:
    assert source(write_tables(tmp_path / "a")).content() == source(write_tables(tmp_path / "b")).content()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("a|b. c｜d．e…", "a|b. c｜d．e…"),
        (" a \t b\u3000c\u00a0", "a b c"),
        ("a\x00b\x1fc\x7fd\u0085e", "a b c d e"),
        ("a\u2028b\u2029c\rd", "a b c d"),
        ("a  b", "a b"),
        ("n\u0303", "ñ"),
        ("\u200b\u00ad ", ""),
        (" \t", ""),
        ("", ""),
        ("میخواهم", "میخواهم"),
        ("می\u200cخواهم", "می\u200cخواهم"),
    ],
)
def test_cleaning(text: str, expected: str) -> None:
    assert cleaned(pl.Series([text, "b"])).to_list() == [expected, "b"]
    assert cleaned(pl.Series(["ä", text])).to_list() == ["ä", expected]


# Broken files.


def _at(name: str, line: int) -> str:
    return f"{name}.tsv, line {line}"


IDS = "an entity is Q and digits, a relation P and digits"


@pytest.mark.parametrize("blank", [False, True])
@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize(
    ("part", "row", "what", "hint"),
    [
        ("triples", "Q1\tP1", "has 2 columns", "expected: head, relation, tail, separated by tabs"),
        ("triples", "Q1", "has 1 column", "expected: head, relation, tail, separated by tabs"),
        ("triples", "Q1\tP1\tQ2\tQ3", "has 4 columns", "expected: head, relation, tail, separated by tabs"),
        ("triples", "Q1 P1 Q2", "has 1 column", "expected: head, relation, tail, separated by tabs"),
        ("triples", "Q1\tP1\t", "'' is no id of an entity", IDS),
        ("triples", "Q1\tP1\tP2", "'P2' is no id of an entity", IDS),
        ("triples", "Q1\tQ1\tQ2", "'Q1' is no id of a relation", IDS),
        ("triples", "1\tP1\tQ2", "'1' is no id of an entity", IDS),
        ("triples", "Q+1\tP1\tQ2", "'Q+1' is no id of an entity", IDS),
        ("triples", "Q-1\tP1\tQ2", "'Q-1' is no id of an entity", IDS),
        ("triples", "Q1\tP1\tQ2 ", "'Q2 ' is no id of an entity", IDS),
        ("triples", "Q1\tP٣\tQ2", "'P٣' is no id of a relation", IDS),
        ("triples", "Q1\tP1\tQ" + "9" * 30, "'Q" + "9" * 30 + "' is no id of an entity", IDS),
        ("entities", "Q1\ten\t0", "has 3 columns", "expected: id, language, rank, text, separated by tabs"),
        ("entities", "Q1\ten\t0\ta\tb", "has 5 columns", "expected: id, language, rank, text, separated by tabs"),
        ("entities", "L1\ten\t0\ta", "'L1' is no id of an entity", IDS),
        ("entities", "Q1\ten\tfirst\ta", "'first' is no rank", "0 is the label, 1 and on are aliases"),
        ("entities", "Q1\ten\t-1\ta", "'-1' is no rank", "0 is the label, 1 and on are aliases"),
        ("entities", "Q1\t\t0\ta", "has no language", ""),
        ("relations", "Q1\ten\t0\ta", "'Q1' is no id of a relation", IDS),
    ],
)
def test_a_broken_line_is_named(
    part: str, row: str, what: str, hint: str, ending: str, blank: bool, tmp_path: Path
) -> None:
    content = CONTENT[f"{part}.tsv"]
    number = content.count("\n") + 1 + blank
    knowledge = write_tables(tmp_path, ending, **{part: f"{content}{chr(10) if blank else ''}{row}\n{content}"})
    assert problem_of(knowledge) == Problem(f"{tmp_path / part}.tsv{ending}, line {number}", what, hint)


def test_a_broken_line_of_wikidata5m_and_of_a_name_table_is_named(tmp_path: Path) -> None:
    knowledge = make_knowledge(reader="wikidata5m", files=WIKIDATA5M, path=str(tmp_path))
    write(tmp_path / "wikidata5m_all_triplet.txt", "Q1\tP9\tQ2\n")
    write(tmp_path / "wikidata5m_relation.txt", "P9\tbeside\n")
    entities = write(tmp_path / "wikidata5m_entity.txt", "Q1\tone\tI\n\nQ2\ttwo\nP3\tthree\tdrei\n")
    assert problem_of(knowledge) == Problem(f"{entities}, line 4", "'P3' is no id of an entity", IDS)
    write(entities, "Q1\tone\n")
    names = write(tmp_path / "names/xa.tsv", "Q1\t0\tone\nP1\tone\n")
    hint = "expected: id, rank, text, separated by tabs"
    assert problem_of(knowledge) == Problem(f"{names}, line 2", "has 2 columns", hint)


@pytest.mark.parametrize("part", ["triples", "entities", "relations"])
@pytest.mark.parametrize("content", ["", "\n", "\n \n\r\n"])
def test_an_empty_file_is_named(part: str, content: str, tmp_path: Path) -> None:
    knowledge = write_tables(tmp_path, **{part: content})
    assert problem_of(knowledge) == Problem(f"{tmp_path / part}.tsv", "is empty", "fetch it again")


@pytest.mark.parametrize("part", ["triples", "entities", "relations"])
def test_the_wrong_encoding_is_named(part: str, tmp_path: Path) -> None:
    knowledge = write_tables(
        tmp_path, **{part: CONTENT[f"{part}.tsv"].encode() + "Q1\ten\t0\tGrün\n".encode("latin-1")}
    )
    number = CONTENT[f"{part}.tsv"].count("\n") + 1
    expected = Problem(f"{tmp_path / part}.tsv, line {number}", "is not UTF-8 (byte 0xfc)", "convert the file to UTF-8")
    assert problem_of(knowledge) == expected


def test_a_gzip_file_that_ends_too_early_is_named(tmp_path: Path) -> None:
    knowledge = write_tables(tmp_path, ".gz")
    path = tmp_path / "triples.tsv.gz"
    path.write_bytes(path.read_bytes()[:-9])
    problem = problem_of(knowledge)
    assert problem.where.startswith(str(path))
    assert "damaged gzip file" in problem.what


# Where the files are.


def test_files_by_part_and_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    knowledge = write_tables(tmp_path / "test")
    files = {name.partition(".")[0]: (tmp_path / "test" / name,) for name in CONTENT}
    assert locate(knowledge) == files
    monkeypatch.setenv("KBENCH_DATA", str(tmp_path))
    assert locate(replace(knowledge, path=None)) == files
    assert locate(make_knowledge()) == {}


def test_what_is_absent_is_named_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    knowledge = write_tables(tmp_path / "test")

    def problem(changed: schema.Knowledge) -> Problem:
        with pytest.raises(DataError) as raised:
            locate(changed)
        (found,) = raised.value.problems
        return found

    (tmp_path / "test/relations.tsv").unlink()
    expected = Problem(str(tmp_path / "test"), "holds no file relations.tsv*", "knowledge.files.relations")
    assert problem(knowledge) == expected
    write(tmp_path / "test/relations.tsv", "")
    write(tmp_path / "test/relations.tsv.gz", "")
    assert problem(knowledge).what == "stands beside its own .gz copy"
    assert problem(replace(knowledge, path=str(tmp_path / "no"))).what == f"there is no folder {tmp_path / 'no'}"
    nowhere = problem(replace(knowledge, path=None))
    assert (nowhere.where, nowhere.what) == ("knowledge=test", "is not on this machine")
    assert "knowledge.path=FOLDER" in nowhere.hint
    assert "source: somewhere" in nowhere.hint
    monkeypatch.setenv("KBENCH_DATA", str(tmp_path / "no"))
    assert problem(replace(knowledge, path=None)).where == "KBENCH_DATA"
    unknown = problem(replace(knowledge, files={**TABLES, "texts": "*"}))
    assert (unknown.where, unknown.what) == ("knowledge.files", "has unknown parts: texts")
    assert problem(replace(knowledge, files={"triples": "*"})).what == "does not say where entities are"


# The toy graph.


def test_the_toy_graph_is_the_same_every_time_and_its_files_are_its_version() -> None:
    assert toy_graph.generate() == toy_graph.generate()
    assert ToyGraph({}).content() == {"toy_graph": toy_graph.VERSION}
    assert ToyGraph({}).languages == set(toy_graph.LANGUAGES)


def test_every_toy_relation_has_a_name_in_every_language_and_some_entities_lack_one() -> None:
    triples, names = toy_graph.generate()
    entities = {entity for head, _, tail in triples for entity in (head, tail)}
    relations = {relation for _, relation, _ in triples}
    for language, rows in names.items():
        labels = {(of_relation, number) for of_relation, number, rank, _ in rows if rank == 0}
        assert {number for of_relation, number in labels if of_relation} == relations
        missing = entities - {number for of_relation, number in labels if not of_relation}
        assert bool(missing) == (language != "en")
        assert len(missing) < 0.15 * len(entities)
        aliases = sum(rank > 0 for of_relation, _, rank, _ in rows if not of_relation)
        assert 0.2 * len(entities) < aliases < 0.4 * len(entities)


def test_toy_languages_share_no_letter_and_labels_are_of_one_entity() -> None:
    _, names = toy_graph.generate()
    letters = {language: set("".join(row[3] for row in rows).lower()) - {" "} for language, rows in names.items()}
    for one in letters:
        assert all(not letters[one] & letters[other] for other in letters if other != one)
    for rows in names.values():
        labels = [text for *_, rank, text in rows if rank == 0]
        assert len(labels) == len(set(labels))


def test_a_toy_word_has_one_form_in_each_language() -> None:
    """The words of parallel labels correspond one to one: that is what a model can carry from English to the others."""
    _, names = toy_graph.generate()
    labels = {
        language: {number: text for of_relation, number, rank, text in rows if not of_relation and rank == 0}
        for language, rows in names.items()
    }
    for language in toy_graph.LANGUAGES[1:]:
        forms = defaultdict(set)
        for number, text in labels[language].items():
            for english, own in zip(labels["en"][number].split(), text.split(), strict=True):
                forms[english].add(own)
        assert {len(own) for own in forms.values()} == {1}
        shared = [word for word in forms if sum(word in text.split() for text in labels["en"].values()) > 1]
        assert len(shared) > 100


def test_toy_facts_follow_their_rules_mostly() -> None:
    triples, _ = toy_graph.generate()
    assert len(triples) == len(set(triples))
    tails = defaultdict(set)
    for head, relation, tail in triples:
        tails[head, relation].add(tail)

    def share(relation: int, path: tuple[int, ...], least: int) -> float:
        """How often a fact follows from a path of other facts, where there is such a path."""
        held = total = 0
        for head, found in [(head, found) for (head, one), found in tails.items() if one == relation]:
            reached = {head}
            for step in path:
                reached = {tail for node in reached for tail in tails.get((node, step), ())}
            if reached:
                total, held = total + 1, held + bool(reached & found)
        assert total >= least
        return held / total

    for relation, path, least in (
        (toy_graph.CITIZEN, (toy_graph.BORN, toy_graph.COUNTRY), 500),
        (toy_graph.CITIZEN, (toy_graph.LIVES, toy_graph.COUNTRY), 300),
        (toy_graph.LIVES, (toy_graph.WORKS, toy_graph.SEAT), 300),
        (toy_graph.FIELD, (toy_graph.WORKS, toy_graph.FIELD), 300),
        (toy_graph.ORIGIN, (toy_graph.AUTHOR, toy_graph.CITIZEN), 150),
        (toy_graph.COUNTRY, (toy_graph.REGION, toy_graph.COUNTRY), 100),
        (toy_graph.CHILD, (toy_graph.SPOUSE, toy_graph.CHILD), 150),
        (toy_graph.MEMBER, (toy_graph.SPOUSE, toy_graph.MEMBER), 150),
    ):
        assert 0.8 < share(relation, path, least) <= 1
    assert share(toy_graph.CITIZEN, (toy_graph.BORN, toy_graph.COUNTRY), 500) < 0.95  # there is noise
