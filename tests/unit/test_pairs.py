"""Reading texts that belong together: every format with its copies, every kind of broken file, and the real files."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from kbench.data.pairs import COMPANIONS, PAIR_READERS
from kbench.errors import DataError, Problem

Rows = list[tuple[int, list[str], str]]


def write(path: Path, content: str, encoding: str = "utf-8") -> Path:
    """A file, gzipped where its name ends so."""
    raw = content.encode(encoding)
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


def objects(*rows: Any) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def read(reader: str, path: Path, encoding: str = "utf-8") -> Rows:
    return list(PAIR_READERS[reader](path, encoding))


def problem_of(reader: str, path: Path) -> Problem:
    """The one problem that reading a file ends with."""
    with pytest.raises(DataError) as raised:
        read(reader, path)
    (problem,) = raised.value.problems
    return problem


SNLI = {"gold_label": "neutral", "sentence1": "Two women.", "sentence2": "Zwei Schwestern, 姉妹."}
PIQA = {"goal": "boil butter", "sol1": "pour it", "sol2": "fry it"}
SWAG = {f"ending{place}": f"ends {place}" for place in range(4)} | {"sent1": "A man.", "sent2": "He", "label": 2}
HELLASWAG = {"ctx_a": "A man.", "ctx_b": "he", "ctx": "A man. he", "endings": ["sits", "runs"], "label": 1}
XLR = {"context": "(A, r, B)", "question": "A to B?", "choices": ["r", "s"], "label": 0}
ENDINGS = ["He ends 0", "He ends 1", "He ends 2", "He ends 3"]


def without(row: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in keys}


# Formats.


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_snli_leaves_out_what_has_no_gold_label(ending: str, tmp_path: Path) -> None:
    content = objects({**SNLI, "gold_label": "-"}, SNLI, {**SNLI, "gold_label": "-", "sentence1": ""})
    content += "\n" + objects({**SNLI, "gold_label": "entailment", "pairID": "4r1"})
    texts = ["Two women.", "Zwei Schwestern, 姉妹."]
    path = write(tmp_path / f"file.jsonl{ending}", content)
    assert read("snli", path) == [(2, texts, "neutral"), (5, texts, "entailment")]


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("labels_ending", ["", ".gz"])
def test_piqa_has_its_labels_in_a_file_beside(ending: str, labels_ending: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"train.subset2.jsonl{ending}", objects(PIQA, {**PIQA, "goal": "eat", "id": "a"}))
    labels = write(tmp_path / f"train.subset2-labels.lst{labels_ending}", "1\n0\n")
    assert COMPANIONS["piqa"](path) == labels
    solutions = ["pour it", "fry it"]
    assert read("piqa", path) == [(1, ["boil butter", *solutions], "1"), (2, ["eat", *solutions], "0")]


def test_of_two_label_files_the_plain_one_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "valid.jsonl", objects(PIQA))
    write(tmp_path / "valid-labels.lst.gz", "1\n")
    assert read("piqa", path)[0][2] == "1"
    write(tmp_path / "valid-labels.lst", "0\n")
    assert read("piqa", path)[0][2] == "0"


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_swag_as_json_lines(ending: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"a.jsonl{ending}", objects(SWAG, {**SWAG, "sent2": "", "label": "0"}))
    alone = [text.removeprefix("He ") for text in ENDINGS]
    assert read("swag", path) == [(1, ["A man.", *ENDINGS], "2"), (2, ["A man.", *alone], "0")]


HEADER = ",video-id,fold-ind,startphrase,sent1,sent2,gold-source,ending0,ending1,ending2,ending3,label\n"


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_swag_as_the_official_csv(ending: str, encoding: str, tmp_path: Path) -> None:
    row = '{},v_1,3,A man. He,{},He,gold,ends 0,"ends, ""1""",ends 2,ends 3,{}\n'
    content = HEADER + row.format(0, "A man.", 1) + "\n" + row.format(1, '"A\n\nman."', 0) + row.format(2, "Él", 3)
    endings = ["He ends 0", 'He ends, "1"', "He ends 2", "He ends 3"]
    expected = [(2, ["A man.", *endings], "1"), (4, ["A\n\nman.", *endings], "0"), (7, ["Él", *endings], "3")]
    assert read("swag", write(tmp_path / f"train.csv{ending}", content, encoding)) == expected
    windows = write(tmp_path / f"windows.csv{ending}", content.replace("\n", "\r\n"), encoding)
    assert read("swag", windows) == expected


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_hellaswag_official_and_with_the_context_in_one_piece(ending: str, tmp_path: Path) -> None:
    official = [HELLASWAG, {**HELLASWAG, "ctx_b": "", "label": "0"}]
    content = objects(*official, without(HELLASWAG, "ctx_a", "ctx_b"))
    assert read("hellaswag", write(tmp_path / f"a.jsonl{ending}", content)) == [
        (1, ["A man.", "he sits", "he runs"], "1"),
        (2, ["A man.", "sits", "runs"], "0"),
        (3, ["A man. he", "sits", "runs"], "1"),
    ]


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_xlr_has_the_question_before_each_choice(ending: str, tmp_path: Path) -> None:
    content = objects({**XLR, "id": 7, "lang": "xa"}, {**XLR, "context": "関係 .", "label": 1})
    seconds = ["A to B? r", "A to B? s"]
    path = write(tmp_path / f"test.xa.jsonl{ending}", content)
    assert read("xlr", path) == [(1, ["(A, r, B)", *seconds], "c1"), (2, ["関係 .", *seconds], "c2")]


@pytest.mark.parametrize("reader", sorted(PAIR_READERS))
def test_an_empty_file_has_no_rows(reader: str, tmp_path: Path) -> None:
    write(tmp_path / "valid-labels.lst", "")
    assert read(reader, write(tmp_path / "valid.jsonl", "")) == []


# Broken files.

GOOD = {"snli": SNLI, "piqa": PIQA, "swag": SWAG, "hellaswag": HELLASWAG, "xlr": XLR}
KEYS = {
    "snli": "sentence1, sentence2, gold_label",
    "piqa": "goal, sol1, sol2",
    "swag": "sent1, sent2, ending0, ending1, ending2, ending3, label",
    "hellaswag": "endings, label",
    "xlr": "context, question, choices, label",
}


def broken(reader: str, second: str, folder: Path) -> tuple[Path, Problem]:
    """A file whose third line is broken, after a good row and a blank line; and the problem with it."""
    write(folder / "valid-labels.lst", "1\n0\n")
    path = write(folder / "valid.jsonl", objects(GOOD[reader]) + "\n" + second)
    return path, problem_of(reader, path)


@pytest.mark.parametrize("reader", sorted(PAIR_READERS))
@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("{", "is no JSON: Expecting property name enclosed in double quotes, column 2"),
        ('{"a": 1} x', "is no JSON: Extra data, column 10"),
        ("[" * 100_000, "is no JSON: maximum recursion depth exceeded"),
        ("1" * 5000, "is no JSON: Exceeds the limit"),
    ],
)
def test_a_line_that_is_no_json(line: str, what: str, reader: str, tmp_path: Path) -> None:
    path, problem = broken(reader, line, tmp_path)
    assert problem.where == f"{path}, line 3"
    assert problem.what.startswith(what)


@pytest.mark.parametrize("reader", sorted(PAIR_READERS))
@pytest.mark.parametrize("line", ["[]", '"text"', "null", "1"])
def test_a_line_that_is_no_object(line: str, reader: str, tmp_path: Path) -> None:
    path, problem = broken(reader, line, tmp_path)
    expected = f"expected: {{...}} with {KEYS[reader]}"
    assert problem == Problem(f"{path}, line 3", "is no JSON object", expected)


@pytest.mark.parametrize(
    ("reader", "missing", "expected"),
    [
        ("snli", ("sentence2",), KEYS["snli"]),
        ("snli", ("sentence1", "gold_label"), KEYS["snli"]),
        ("piqa", ("goal", "sol2"), KEYS["piqa"]),
        ("swag", ("ending3",), KEYS["swag"]),
        ("swag", ("label",), KEYS["swag"]),
        ("hellaswag", ("endings", "label"), KEYS["hellaswag"]),
        ("hellaswag", ("ctx_b",), "ctx_a, ctx_b"),
        ("hellaswag", ("ctx",), "ctx"),
        ("xlr", ("question", "label"), KEYS["xlr"]),
    ],
)
def test_keys_that_are_missing_are_named(reader: str, missing: tuple[str, ...], expected: str, tmp_path: Path) -> None:
    gone = ("ctx_a", "ctx_b", "ctx") if missing == ("ctx",) else missing
    path, problem = broken(reader, objects(without(GOOD[reader], *gone)), tmp_path)
    assert problem == Problem(f"{path}, line 3", f"has no {', '.join(missing)}", f"expected: {expected}")


VALUES = [
    *((reader, key) for reader in ("snli", "piqa") for key in GOOD[reader]),
    *(("swag", key) for key in SWAG if key != "label"),
    *(("hellaswag", key) for key in ("ctx_a", "ctx_b")),
    *(("xlr", key) for key in ("context", "question")),
]


@pytest.mark.parametrize(("reader", "key"), [(reader, key) for reader, key in VALUES if key != "gold_label"])
@pytest.mark.parametrize(("value", "shown"), [(7, "7"), (None, "None"), (["a"], "['a']")])
def test_a_value_that_is_no_text(value: Any, shown: str, reader: str, key: str, tmp_path: Path) -> None:
    path, problem = broken(reader, objects({**GOOD[reader], key: value}), tmp_path)
    assert problem == Problem(f"{path}, line 3", f"{key} is no text: {shown}")


@pytest.mark.parametrize(("reader", "key"), [(reader, key) for reader, key in VALUES if key not in ("sent2", "ctx_b")])
@pytest.mark.parametrize("value", ["", " \u3000"])
def test_a_value_that_is_empty(value: str, reader: str, key: str, tmp_path: Path) -> None:
    path, problem = broken(reader, objects({**GOOD[reader], key: value}), tmp_path)
    assert problem == Problem(f"{path}, line 3", f"{key} is empty")


@pytest.mark.parametrize(
    ("endings", "what"),
    [
        ("sits", "endings is no list of texts"),
        ({"0": "sits"}, "endings is no list of texts"),
        ([], "endings is no list of texts"),
        (["sits", 1], "ending 1 is no text: 1"),
        (["sits", ["runs"]], "ending 1 is no text: ['runs']"),
        ([" ", "runs"], "ending 0 is empty"),
    ],
)
def test_endings_that_are_no_list_of_texts(endings: Any, what: str, tmp_path: Path) -> None:
    path, problem = broken("hellaswag", objects({**HELLASWAG, "endings": endings}), tmp_path)
    assert problem == Problem(f"{path}, line 3", what)


@pytest.mark.parametrize(
    ("change", "what", "hint"),
    [
        ({"choices": "r"}, "choices is no list of texts", ""),
        ({"choices": []}, "choices is no list of texts", ""),
        ({"choices": ["r", 1]}, "choice 1 is no text: 1", ""),
        ({"choices": ["r", " "]}, "choice 1 is empty", ""),
        *(
            ({"label": label}, f"label {label!r} is no place among its choices", "expected: 0, 1, ...")
            for label in (2, -1, "0", None, True, 0.0)
        ),
    ],
)
def test_choices_of_xlr_that_are_none(change: Any, what: str, hint: str, tmp_path: Path) -> None:
    path, problem = broken("xlr", objects({**XLR, **change}), tmp_path)
    assert problem == Problem(f"{path}, line 3", what, hint)


@pytest.mark.parametrize(("reader", "key"), [("snli", "gold_label"), ("swag", "label"), ("hellaswag", "label")])
@pytest.mark.parametrize(
    ("value", "what"),
    [("", "is empty"), (1.0, "is no text: 1.0"), (True, "is no text: True"), (None, "is no text: None")],
)
def test_a_label_that_is_none(value: Any, what: str, reader: str, key: str, tmp_path: Path) -> None:
    path, problem = broken(reader, objects({**GOOD[reader], key: value}), tmp_path)
    assert problem == Problem(f"{path}, line 3", f"{key} {what}")


def test_half_a_surrogate_pair_is_no_letter(tmp_path: Path) -> None:
    path, problem = broken("piqa", '{"goal": "so \\ud83d", "sol1": "a", "sol2": "b"}', tmp_path)
    what = "goal holds half a surrogate pair, which is no letter, at letter 4"
    assert problem == Problem(f"{path}, line 3", what)
    whole = write(tmp_path / "b.jsonl", '{"goal": "so \\ud83d\\ude00", "sol1": "a", "sol2": "b"}')
    write(tmp_path / "b-labels.lst", "0")
    assert read("piqa", whole) == [(1, ["so \U0001f600", "a", "b"], "0")]


# Labels of PIQA.


def test_rows_without_a_file_of_labels(tmp_path: Path) -> None:
    path = write(tmp_path / "tests.jsonl", objects(PIQA))
    assert problem_of("piqa", path) == Problem(str(path), "has no file of labels beside it, tests-labels.lst")


@pytest.mark.parametrize(("rows", "labels"), [(2, 3), (3, 2), (1, 0), (0, 1)])
def test_more_rows_than_labels_or_fewer(rows: int, labels: int, tmp_path: Path) -> None:
    path = write(tmp_path / "valid.jsonl.gz", objects(*[PIQA] * rows))
    write(tmp_path / "valid-labels.lst", "1\n" * labels)
    what = f"has {rows} rows, and valid-labels.lst beside it {labels} labels"
    assert problem_of("piqa", path) == Problem(str(path), what, "both files must be of one release")


@pytest.mark.parametrize("label", ["2", "-1", "sol1", "0 1"])
def test_a_label_of_piqa_is_0_or_1(label: str, tmp_path: Path) -> None:
    path = write(tmp_path / "valid.jsonl", objects(PIQA, PIQA))
    labels = write(tmp_path / "valid-labels.lst", f"0\n{label}\n")
    assert problem_of("piqa", path) == Problem(f"{labels}, line 2", f"{label!r} is neither 0 nor 1")


# CSV.


@pytest.mark.parametrize(
    ("content", "line", "what", "hint"),
    [
        (HEADER.replace(",label", ""), 1, "has no label", f"expected: {KEYS['swag']}"),
        ("\n0,v,3,A man. He,A man.,He,gold,a,b,c,d,1\n", 2, "has no " + KEYS["swag"], f"expected: {KEYS['swag']}"),
        (HEADER + "0,v,3,A man. He,A man.,He,gold,a,b,c,d\n", 2, "has 11 columns", "expected: 12, as in the header"),
        (HEADER + '0,v,3,s,"A\nman.",He,gold,a,b,c,d,1\n1,v\n', 4, "has 2 columns", "expected: 12, as in the header"),
        (HEADER + "0,v,3,s,A man.,He,gold,a,b,,d,1\n", 2, "ending2 is empty", ""),
        (HEADER + "0,v,3,s,,He,gold,a,b,c,d,1\n", 2, "sent1 is empty", ""),
        (HEADER + "0,v,3,s,A man.,He,gold,a,b,c,d,\n", 2, "label is empty", ""),
        (HEADER + '\n0,v,3,s,"A man.,He\n\n1,v\n', 3, "is no CSV: unexpected end of data", ""),
        (HEADER + '0,v,3,s,"A" man.,He,gold,a,b,c,d,1\n', 2, "is no CSV: ',' expected after '\"'", ""),
    ],
)
def test_a_csv_file_that_is_broken(content: str, line: int, what: str, hint: str, tmp_path: Path) -> None:
    path = write(tmp_path / "train.csv", content)
    assert problem_of("swag", path) == Problem(f"{path}, line {line}", what, hint)


@pytest.mark.parametrize("reader", sorted(PAIR_READERS))
def test_a_byte_of_another_encoding(reader: str, tmp_path: Path) -> None:
    write(tmp_path / "valid-labels.lst", "1\n")
    path = write(tmp_path / "valid.jsonl", '\n{"é": 1}\n', "latin-1")
    hint = "convert the file to UTF-8"
    assert problem_of(reader, path) == Problem(f"{path}, line 2", "is not UTF-8 (byte 0xe9)", hint)


# Real files.

REAL: dict[str, tuple[str, str, int, dict[str, int]]] = {
    "piqa_train": ("piqa", "piqa/train.subset5600.jsonl.gz", 3, {"0": 2765, "1": 2835}),
    "piqa_validation": ("piqa", "piqa/valid.jsonl", 3, {"0": 910, "1": 928}),
    "snli_validation": (
        "snli",
        "snli/snli_1.0_dev.labelled.jsonl.gz",
        2,
        {"entailment": 3329, "neutral": 3235, "contradiction": 3278},
    ),
    "hellaswag_validation": (
        "hellaswag",
        "hellaswag/hellaswag_val.rebuilt.jsonl.gz",
        5,
        {"0": 2515, "1": 2485, "2": 2584, "3": 2458},
    ),
    "swag_sample": ("swag", "swag/sample10.jsonl", 5, {"0": 3, "1": 2, "3": 5}),
}


@pytest.mark.parametrize("name", sorted(REAL))
def test_real_files_have_the_rows_and_labels_they_should(name: str, real_data: Path) -> None:
    reader, file, texts, labels = REAL[name]
    rows = read(reader, real_data / file)
    assert Counter(label for _, _, label in rows) == labels
    assert [line for line, _, _ in rows] == list(range(1, sum(labels.values()) + 1))
    assert {len(row) for _, row, _ in rows} == {texts}
    # each row is the one of its line
    opener = gzip.open if file.endswith(".gz") else open
    with opener(real_data / file, "rt", encoding="utf-8") as lines:
        spelt = [json.loads(line) for line in lines]
    keys = {"piqa": "goal", "snli": "sentence1", "hellaswag": "ctx", "swag": "sent1"}
    assert [row[0] for _, row, _ in rows] == [one[keys[reader]] for one in spelt]


def test_a_part_of_piqa_does_not_go_with_the_labels_of_the_whole(real_data: Path, tmp_path: Path) -> None:
    for name in ("train.jsonl.gz", "train-labels.lst"):
        of = {"train.jsonl.gz": "train.subset5600.jsonl.gz"}.get(name, name)
        (tmp_path / name).symlink_to(real_data / "piqa" / of)
    problem = problem_of("piqa", tmp_path / "train.jsonl.gz")
    assert problem.what == "has 5600 rows, and train-labels.lst beside it 16113 labels"
