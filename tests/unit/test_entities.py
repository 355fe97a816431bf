"""Texts with a marked mention: the files with every kind of mistake, the token ids, the toy set, and the real files."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from kbench import registry
from kbench.config.typing import TypingHead, TypingOptions
from kbench.data.entities import MentionEncoder, marked, open_entity
from kbench.data.toy_typing import LABELS, SIZES, generate
from kbench.errors import DataError

from ..conftest import small_bert

ONE = {
    "sent": "On late Monday , it rained .",
    "start": 3,
    "end": 14,
    "labels": ["time"],
    "ents": [["Q105", 8, 14, 0.2]],
}


def read(tmp_path, *objects: Any, name: str = "train") -> list[tuple[str, str, list[str]]]:
    path = tmp_path / f"{name}.json"
    path.write_text(json.dumps(list(objects)), encoding="utf-8")
    return list(open_entity(path, "utf-8"))


# Files.


def test_mentions_are_marked_and_may_have_no_label_or_several(tmp_path):
    first = {"sent": "It\u00e9s x", "start": 0, "end": 4, "labels": []}
    last = {"sent": "a (b)", "start": 3, "end": 4, "labels": ["person", "entity"]}
    assert read(tmp_path, ONE, first, last) == [
        ("1, item 1", "On <e1> late Monday </e1> , it rained .", ["time"]),
        ("1, item 2", "<e1> It\u00e9s </e1> x", []),
        ("1, item 3", "a ( <e1> b </e1> )", ["person", "entity"]),
    ]


def test_marks_have_one_space_around():
    assert marked("ab", 0, 2) == "<e1> ab </e1>"
    assert marked(" a  b ", 2, 5) == "a <e1> b </e1>"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"end": 29}, "has its mention at characters 3 to 29 of 28"),
        ({"end": 3}, "has its mention at characters 3 to 3 of 28"),
        ({"start": -1}, "has its mention at characters -1 to 14 of 28"),
        ({"start": 14, "end": 15}, "has only spaces at characters 14 to 15, where its mention is"),
        ({"start": 3.0}, "start is no whole number: 3.0"),
        ({"end": False}, "end is no whole number: False"),
        ({"sent": "a <e1> late Monday , it"}, "holds <e1>, which marks the mention here"),
        ({"sent": "a late </e1> Monday , it"}, "holds </e1>, which marks the mention here"),
        ({"sent": "  "}, "sent is empty"),
        ({"labels": "time"}, "labels is no list: 'time'"),
        ({"labels": ["time", None]}, "labels holds no text at place 2: None"),
    ],
)
def test_mistakes_name_file_and_item(change, what, tmp_path):
    with pytest.raises(DataError) as raised:
        read(tmp_path, ONE, ONE | change)
    (problem,) = raised.value.problems
    assert (problem.where, problem.what) == (f"{tmp_path / 'train.json'}, line 1, item 2", what)


def test_an_unknown_type_is_told_and_empty_rows_are_kept(tmp_path):
    from kbench.config.compose import compose
    from kbench.data.records import Records, records_stage
    from kbench.data.source import locate
    from kbench.stages.store import Store

    folder = tmp_path / "openentity-general"
    folder.mkdir()
    rows = [ONE, ONE | {"labels": []}, ONE | {"labels": ["person", "time"]}]
    for name in ("train", "dev", "test"):
        read(folder, *rows, name=name)
    words = ["method=finetune", "data=openentity", "backbone=tiny", f"data.path={tmp_path}"]
    data = compose(words).data
    records = Records(Store(tmp_path / "stages").get(records_stage(data, locate(data))))
    index = [data.labels.index(name) for name in ("person", "time")]
    expected = np.zeros((3, 9), dtype=bool)
    expected[0, index[1]] = expected[2, index[0]] = expected[2, index[1]] = True
    found = records.several("test", 9)
    assert found.dtype == bool and (found == expected).all()
    counts = {"person": 1, "time": 2}
    assert records.info["classes"]["test"] == {name: counts.get(name, 0) for name in data.labels}
    assert records.ends("test").tolist() == [1, 2, 3] and records.layout.value == "typed"
    read(folder, ONE | {"labels": ["time", "persn"]})
    with pytest.raises(DataError, match=r"train.json, line 1, item 1  unknown label 'persn'; did you mean person\?"):
        Store(tmp_path / "stages").get(records_stage(data, locate(data)))


# Token ids.


def options(head: str = "cls", marker: str = "@") -> TypingOptions:
    return TypingOptions(TypingHead(head), marker, 0.1)


@pytest.mark.parametrize(("head", "starts"), [("cls", [0, 0]), ("marker_start", [2, 1])])
def test_a_worked_example(head, starts, tmp_path):
    from kbench.backbones.load import load_tokenizer

    tokenizer = load_tokenizer(small_bert(tmp_path, ["a", "b", "c", "@", "."]))
    encoder = MentionEncoder(tokenizer, 16, options(head))
    rows = encoder.encode(["a <e1> b  c </e1> .", "<e1> b </e1>"])
    assert [" ".join(tokenizer.convert_ids_to_tokens(row)) for row in rows] == [
        "[CLS] a @ b c @ . [SEP]",
        "[CLS] @ b @ [SEP]",
    ]
    assert np.concatenate(encoder.arrays["starts"]).tolist() == starts
    assert (encoder.total, encoder.unknown, encoder.reads) == (9, 0, 1)
    (row,) = MentionEncoder(tokenizer, 16, options(head, ".")).encode(["a <e1> b </e1>"])
    assert tokenizer.convert_ids_to_tokens(row) == ["[CLS]", "a", ".", "b", ".", "[SEP]"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({}, []),
        ({"marker": " "}, ["data.typing.marker: must be a word without spaces around it, is ' '"]),
        ({"marker": "@ "}, ["data.typing.marker: must be a word without spaces around it, is '@ '"]),
        ({"head_dropout": 1.0}, ["data.typing.head_dropout: must lie in [0, 1), is 1.0"]),
        ({"head_dropout": float("nan")}, ["data.typing.head_dropout: must lie in [0, 1), is nan"]),
    ],
)
def test_options_are_checked(change, told):
    found = TypingOptions(**{"head": TypingHead.cls, "marker": "@", "head_dropout": 0.0, **change})
    assert [str(problem) for problem in found.check("data.typing")] == told


# The toy set.


@pytest.mark.parametrize(("split", "content"), [("train", "c2497dec7a2b39c6"), ("test", "3308ffca098e732f")])
def test_toy_rows_have_none_one_or_two_types_and_are_the_same_everywhere(split, content):
    rows = list(generate(SimpleNamespace(labels=list(LABELS)), split))  # type: ignore[arg-type]
    assert hashlib.sha256(repr(rows).encode()).hexdigest()[:16] == content
    assert len(rows) == SIZES[split]
    assert all(text.split().count(mark) == 1 for text, _ in rows for mark in ("<e1>", "</e1>"))
    counts = Counter(tuple(labels) for _, labels in rows)
    assert set(counts) == {(), (4,), *((kind,) for kind in range(4)), *((kind, 4) for kind in range(4))}
    assert 0.1 < counts[()] / len(rows) < 0.2


def test_other_toy_labels_are_refused():
    with pytest.raises(DataError, match=r"data\.labels  are not those of toy_typing"):
        next(generate(SimpleNamespace(labels=list(LABELS)[::-1]), "test"))  # type: ignore[arg-type]


# Real files.

EMPTY = {"train": 354, "dev": 386, "test": 400}
SEVERAL = {"train": 251, "dev": 282, "test": 283}
COUNTS = {
    "train": {"person": 824, "organization": 248, "event": 181, "object": 160, "place": 156, "group": 152,
              "location": 131, "time": 62, "entity": 2},
    "test": {"person": 759, "organization": 241, "event": 186, "object": 189, "place": 164, "group": 152,
             "location": 154, "time": 59},
}  # fmt: skip


@pytest.mark.parametrize("name", EMPTY)
def test_real_files(name, real_data):
    rows = list(open_entity(real_data / "openentity" / "openentity-general" / f"{name}.json.gz", "utf-8"))
    labels = yaml.safe_load((registry.conf_root() / "data" / "openentity.yaml").read_text())["labels"]
    assert len(rows) == 1998 and labels == sorted(labels) and len(labels) == 9
    lengths = [len(found) for *_, found in rows]
    assert (lengths.count(0), sum(length > 1 for length in lengths)) == (EMPTY[name], SEVERAL[name])
    counts = Counter(label for *_, found in rows for label in found)
    assert set(counts) <= set(labels)
    if name in COUNTS:
        assert counts == COUNTS[name]
