"""TACRED's form: lists of objects, sentences with typed arguments, every kind of mistake, the toy set."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from kbench import registry
from kbench.data.json_lists import json_objects
from kbench.data.relations import segments, types
from kbench.data.tacred import tacred
from kbench.data.toy_tacred import LABELS, RELATIONS, SIZES, generate
from kbench.errors import DataError, Problem

ONE = {
    "id": "e7798fb926b9403cfcd2", "docid": "APW_ENG_20101103.0539", "relation": "per:title",
    "token": ["At", "the", "-LRB-", "meeting", "-RRB-", ",", "Tom", "Thabane", "resigned", "as", "chairman", "."],
    "subj_start": 6, "subj_end": 7, "obj_start": 10, "obj_end": 10, "subj_type": "PERSON", "obj_type": "TITLE",
    "stanford_pos": ["IN"],
}  # fmt: skip
TEXT = "At the ( meeting ) , <e1:PERSON> Tom Thabane </e1> resigned as <e2:TITLE> chairman </e2> ."


def read(tmp_path, *objects: Any, name: str = "train.json", **dump: Any) -> list[tuple[str, str, str]]:
    path = tmp_path / name
    raw = json.dumps(list(objects), **dump).encode()
    path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    return list(tacred(path, "utf-8"))


# Lists.


@pytest.mark.parametrize("name", ["train.json", "train.json.gz"])
@pytest.mark.parametrize("indent", [None, 1])
def test_sentences_with_typed_arguments_in_a_list_of_any_form(indent, name, tmp_path):
    turned = ONE | {"subj_start": 10, "subj_end": 10, "obj_start": 0, "obj_end": 1, "relation": "no_relation"}
    rows = read(tmp_path, ONE, turned, name=name, indent=indent)
    assert [row[1:] for row in rows] == [
        (TEXT, "per:title"),
        ("<e2:TITLE> At the </e2> ( meeting ) , Tom Thabane resigned as <e1:PERSON> chairman </e1> .", "no_relation"),
    ]
    assert [row[0] for row in rows] == (["1, item 1", "1, item 2"] if indent is None else ["2, item 1", "30, item 2"])
    assert types(TEXT) == {"<e1": "PERSON", "<e2": "TITLE"}
    assert segments(TEXT)[1] == (0, 1, 2, 3) and segments(rows[1][1])[1] == (2, 3, 0, 1)


def listed(tmp_path, content: str) -> list[Any]:
    path = tmp_path / "a.json"
    path.write_text(content)
    return [row for *_, row in json_objects(path, "utf-8", ("a",))]


@pytest.mark.parametrize("content", ["", " \n\n", "[]", " [ ]\n"])
def test_an_empty_file_and_an_empty_list_have_no_objects(content, tmp_path):
    assert listed(tmp_path, content) == []


@pytest.mark.parametrize(
    ("content", "where", "what"),
    [
        ('{"a": 1}', "line 1", "is no JSON list"),
        ('\n[{"a": 1},\n\n {"a": }]', "line 4, item 2", "is no JSON: Expecting value, line 4, column 8"),
        ('[{"a": 1}, 5]', "line 1, item 2", "is no JSON object"),
        ('[{"b": 1}]', "line 1, item 1", "has no a"),
        ('[{"a": 1},\n{"a": 2}', "line 2, item 2", "is the last, and the list is not closed"),
        ('[{"a": 1} {"a": 2}]', "line 1, item 1", "is followed by '{'"),
        ('[{"a": 1},\n]', "line 2, item 2", "is no JSON: Expecting value, line 2, column 1"),
        ('[{"a": 1}]\n\n[', "line 3", "goes on after the end of the list"),
        ("[] x", "line 1", "goes on after the end of the list"),
        ("[", "line 1, item 1", "is no JSON: Expecting value, line 1, column 2"),
        ("[" + '{"a":' * 200000, "line 1, item 1", "is no JSON: maximum recursion depth exceeded"),
    ],
)
def test_broken_lists_name_line_and_item(content, where, what, tmp_path):
    with pytest.raises(DataError) as raised:
        listed(tmp_path, content)
    (problem,) = raised.value.problems
    assert problem.where == f"{tmp_path / 'a.json'}, {where}" and problem.what.startswith(what)


# Mistakes.


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"obj_end": 12}, "has its object at words 10 to 12 of 12"),
        ({"subj_start": 8}, "has its subject at words 8 to 7 of 12"),
        ({"subj_start": -1}, "has its subject at words -1 to 7 of 12"),
        ({"subj_start": "6"}, "subj_start is no whole number: '6'"),
        ({"obj_end": True}, "obj_end is no whole number: True"),
        ({"obj_start": 7}, "has a subject and an object that share words"),
        ({"obj_start": 5, "obj_end": 8}, "has a subject and an object that share words"),
        ({"token": "At the"}, "token is no list: 'At the'"),
        ({"token": ["At", 5]}, "token holds no text at place 2: 5"),
        ({"token": ["At", "\ud800"]}, "token holds half a surrogate pair, which is no letter, at place 2"),
        ({"token": ["<e1>", *ONE["token"]]}, "has the word <e1>, which marks an argument here"),
        ({"token": ["<e2:X>", *ONE["token"]]}, "has the word <e2:X>, which marks an argument here"),
        ({"subj_type": "A B"}, "subj_type is no word: 'A B'"),
        ({"obj_type": ""}, "obj_type is empty"),
        ({"relation": None}, "relation is no text: None"),
    ],
)
def test_mistakes_name_file_and_item(change, what, tmp_path):
    with pytest.raises(DataError) as raised:
        read(tmp_path, ONE, ONE | change)
    (problem,) = raised.value.problems
    assert (problem.where, problem.what) == (f"{tmp_path / 'train.json'}, line 1, item 2", what)


def test_an_object_without_a_key_is_told(tmp_path):
    with pytest.raises(DataError, match=r"line 1, item 1  has no subj_end, obj_type"):
        read(tmp_path, {key: value for key, value in ONE.items() if key not in ("subj_end", "obj_type")})


def test_the_data_set_has_41_relations_and_none_and_an_unknown_one_is_told(tmp_path, monkeypatch):
    from kbench.config.compose import compose
    from kbench.data.rows import source_rows
    from kbench.data.source import locate

    labels = yaml.safe_load((registry.conf_root() / "data" / "tacred.yaml").read_text())["labels"]
    assert len(labels) == 42 and labels[0] == "no_relation" and labels[1:] == sorted(labels[1:])
    assert Counter(label[:4] for label in labels[1:]) == {"org:": 16, "per:": 25}
    for name in ("train", "dev", "test"):
        read(tmp_path, ONE, ONE | {"relation": "NA"}, ONE | {"relation": "per:titel"}, name=f"{name}.json")
    data = compose(["method=finetune", "data=tacred", "backbone=tiny", f"data.path={tmp_path}"]).data
    ((_, rows),) = source_rows(data, locate(data))["train"]
    assert next(rows) == (0, TEXT, labels.index("per:title"))
    with pytest.raises(DataError) as raised:
        list(rows)
    where = f"{tmp_path / 'train.json'}, line 1, item"
    hint = f"labels: {', '.join(labels[:12])}, ..."
    assert list(raised.value.problems) == [
        Problem(f"{where} 2", "unknown label 'NA'", hint),
        Problem(f"{where} 3", "unknown label 'per:titel'; did you mean per:title?", hint),
    ]


# The toy set.


@pytest.mark.parametrize(("split", "content"), [("train", "b466ac540ad9ffe5"), ("test", "6c63840dd5c30429")])
def test_toy_rows_are_typed_and_the_same_everywhere(split, content):
    rows = list(generate(SimpleNamespace(labels=list(LABELS)), split))  # type: ignore[arg-type]
    assert hashlib.sha256(repr(rows).encode()).hexdigest()[:16] == content
    assert len(rows) == SIZES[split]
    kinds = list(RELATIONS.values())
    for text, label in rows:
        found = (
            tuple(types(text).values()) if text.index("<e1") < text.index("<e2") else tuple(types(text).values())[::-1]
        )
        assert found == kinds[label - 1] if label else found in kinds
    counts = Counter(label for _, label in rows)
    assert set(counts) == set(range(5)) and 0.4 < counts[0] / len(rows) < 0.6
    turned = sum(segments(text)[1] == (2, 3, 0, 1) for text, _ in rows) / len(rows)
    assert 0.3 < turned < 0.5


def test_other_toy_labels_are_refused():
    with pytest.raises(DataError, match=r"data\.labels  are not those of toy_tacred"):
        next(generate(SimpleNamespace(labels=list(LABELS)[::-1]), "test"))  # type: ignore[arg-type]
