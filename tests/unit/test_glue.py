"""GLUE: both forms of each file, those without labels, broken ones, the data sets, the table's average, real files."""

from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kbench.config.compose import compose
from kbench.config.data import OF_PAIRS
from kbench.config.schema import Data
from kbench.data.glue import GLUE_READERS
from kbench.data.records import Records, records_stage
from kbench.data.source import Source, locate
from kbench.errors import DataError, Problem
from kbench.stages.store import Store
from kbench.tables.spec import load

NAMES = ("cola", "sst2", "mrpc", "stsb", "rte", "qnli", "qqp", "mnli_m", "mnli_mm")
HINT = "GLUE does not release the labels of its test sets: score the development set"
MRPC = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
MNLI = "index\tpromptID\tgenre\tsentence1_binary_parse\tsentence1\tsentence2\tlabel1\tgold_label\n"


def write(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = content.encode()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


def read(reader: str, path: Path) -> list[tuple[int, Any, Any]]:
    return list(GLUE_READERS[reader](path, "utf-8"))


def problem_of(reader: str, path: Path) -> Problem:
    with pytest.raises(DataError) as raised:
        read(reader, path)
    (problem,) = raised.value.problems
    return problem


def data_of(name: str, *overrides: str) -> Data:
    return compose(["method=finetune", f"data=glue_{name}", "backbone=tiny", *overrides]).data


def build(folder: Path, data: Data) -> tuple[Source, Records]:
    source = locate(data)
    return source, Records(Store(folder).get(records_stage(data, source)))


# Forms: header or first row, and what is read of the file.

FORMS = [
    ("glue_cola", 'gj04\t1\t\tHe "went .\nc\t0\t*\tMe go. \n', [(1, 'He "went .', "1"), (2, "Me go.", "0")]),
    ("glue_sst2", 'sentence\tlabel\na "b and \t1\n\nc\t0\n', [(2, 'a "b and', "1"), (4, "c", "0")]),
    ("glue_mrpc", MRPC + '1\t7\t8\t"a\tb"\n0\t7\t8\tc\td\n', [(2, ['"a', 'b"'], "1"), (3, ["c", "d"], "0")]),
    # GLUE's RTE, the hub's, QNLI in both
    (
        "glue_pairs",
        "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tentailment\n1\tc\td\tnot_entailment\n",
        [(2, ["a", "b"], "entailment"), (3, ["c", "d"], "not_entailment")],
    ),
    (
        "glue_pairs",
        "sentence1\tsentence2\tlabel\tidx\na\tb\t0\t5\nc\td\t1\t6\n",
        [(2, ["a", "b"], "entailment"), (3, ["c", "d"], "not_entailment")],
    ),
    ("glue_pairs", "index\tquestion\tsentence\tlabel\n0\ta?\tb\tentailment\n", [(2, ["a?", "b"], "entailment")]),
    ("glue_pairs", "question\tsentence\tlabel\tidx\na?\tb\t1\t0\n", [(2, ["a?", "b"], "not_entailment")]),
    # MNLI: the parse and one annotator's label stand beside; the release has pairs without a label; the hub's numbers
    (
        "glue_pairs",
        MNLI + "0\t1\tx\t( a )\ta\tb\tentailment\tneutral\n1\t2\tx\t( c )\tc\td\tneutral\t-\n",
        [(2, ["a", "b"], "neutral")],
    ),
    (
        "glue_pairs",
        "premise\thypothesis\tlabel\tidx\na\tb\t0\t0\nc\td\t1\t1\ne\tf\t2\t2\n",
        [(2, ["a", "b"], "entailment"), (3, ["c", "d"], "neutral"), (4, ["e", "f"], "contradiction")],
    ),
    # QQP: its labels stay numbers; a question that was cut in two is left out, an empty one is not
    (
        "glue_pairs",
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n1\t2\t3\ta\tb\t1\n4\t5\t6\tc\nd\t0\n7\t8\t9\te\t\t0\n",
        [(2, ["a", "b"], "1"), (5, ["e", ""], "0")],
    ),
    ("glue_pairs", "question1\tquestion2\tlabel\tidx\na\tb\t0\t1\n", [(2, ["a", "b"], "0")]),
    (
        "glue_stsb",
        'index\tgenre\tsentence1\tsentence2\tscore\n0\tx\ta "\tb\t5.000\n1\tx\tc\td\t0.25\n',
        [(2, ['a "', "b"], 5.0), (3, ["c", "d"], 0.25)],
    ),
]


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize(("reader", "content", "rows"), FORMS)
def test_every_form_is_read(reader: str, content: str, rows: list[Any], ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"train.tsv{ending}"
    assert read(reader, write(path, content)) == rows
    assert read(reader, write(path, content.replace("\n", "\r\n"))) == rows


# Files that must not be scored, and broken ones.

UNLABELLED = [
    ("glue_cola", "index\tsentence\n0\tHe went.\n", 1, "has no label"),
    ("glue_sst2", "index\tsentence\n0\ta\n", 1, "has no column of labels"),
    ("glue_mrpc", "index\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t1\t2\ta\tb\n", 1, "has no column of labels"),
    ("glue_pairs", "index\tsentence1\tsentence2\n0\ta\tb\n", 1, "has no column of labels"),
    ("glue_pairs", "index\tquestion\tsentence\n0\ta\tb\n", 1, "has no column of labels"),
    ("glue_pairs", "id\tquestion1\tquestion2\n0\ta\tb\n", 1, "has no column of labels"),
    ("glue_pairs", "sentence1\tsentence2\tlabel\tidx\na\tb\t0\t0\na\tb\t-1\t1\n", 3, "has no label"),
    ("glue_pairs", "sentence1\tsentence2\tlabel\na\tb\t\n", 2, "has no label"),
    ("glue_stsb", "index\tsentence1\tsentence2\n0\ta\tb\n", 1, "has no column of labels"),
    ("glue_stsb", "sentence1\tsentence2\tlabel\na\tb\t-1\n", 2, "has no label"),
]


@pytest.mark.parametrize(("reader", "content", "line", "what"), UNLABELLED)
def test_a_file_without_labels_is_refused_with_a_way_out(
    reader: str, content: str, line: int, what: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "test.tsv", content)
    assert problem_of(reader, path) == Problem(f"{path}, line {line}", what, HINT)


PAIR_HEADER = "sentence1\tsentence2\tlabel\n"
BROKEN = [
    ("glue_cola", "a\t1\n", 1, "has no label", HINT),
    ("glue_cola", "a\t1\t\tb\tc\n", 1, "has 5 columns", "expected: source, label, mark, sentence, separated by tabs"),
    ("glue_sst2", "a b\t1\n", 1, "is no header of such a file: a b\t1", "expected: sentence, label"),
    ("glue_sst2", "sentence\tlabel\na\n", 2, "has 1 column", "expected: 2, as in the header"),
    ("glue_mrpc", MRPC + "1\t2\t3\ta\n", 2, "has 4 columns", "expected: 5, as in the header"),
    ("glue_mrpc", MRPC + "1\t2\t3\ta\t \n", 2, "#2 String is empty", ""),
    ("glue_pairs", PAIR_HEADER + "\tb\t0\n", 2, "sentence1 is empty", ""),
    ("glue_pairs", PAIR_HEADER + "a\tb\n", 2, "has 2 columns", "expected: 3, as in the header"),
    ("glue_stsb", "sentence1\tsentence2\tscore\na\tb\t5.1\n", 2, "score '5.1' is no number from 0 to 5", ""),
    ("glue_stsb", "sentence1\tsentence2\tscore\na\tb\tnan\n", 2, "score 'nan' is no number from 0 to 5", ""),
    ("glue_stsb", "sentence1\tsentence2\tscore\na\tb\thigh\n", 2, "score 'high' is no number from 0 to 5", ""),
]


@pytest.mark.parametrize(("reader", "content", "line", "what", "hint"), BROKEN)
def test_broken_files_are_named(reader: str, content: str, line: int, what: str, hint: str, tmp_path: Path) -> None:
    path = write(tmp_path / "train.tsv", content)
    assert problem_of(reader, path) == Problem(f"{path}, line {line}", what, hint)


@pytest.mark.parametrize("content", ["", PAIR_HEADER])
def test_a_file_without_rows_is_empty(content: str, tmp_path: Path) -> None:
    for name in ("train.tsv", "dev.tsv"):
        write(tmp_path / name, content)
    with pytest.raises(DataError) as raised:
        build(tmp_path / "stages", data_of("rte", f"data.path={tmp_path}"))
    assert {problem.what for problem in raised.value.problems} == {"is empty"}


def test_an_unknown_label_is_told_with_those_there_are(tmp_path: Path) -> None:
    for name in ("train.tsv", "dev.tsv"):
        write(tmp_path / name, PAIR_HEADER + "a\tb\tentailement\n")
    with pytest.raises(DataError) as raised:
        build(tmp_path / "stages", data_of("rte", f"data.path={tmp_path}"))
    found = raised.value.problems[0]
    assert found.where == f"{tmp_path / 'train.tsv'}, line 2"
    assert found.what == "unknown label 'entailement'; did you mean entailment?"
    assert found.hint == "labels: entailment, not_entailment"


# Data sets.


@pytest.mark.parametrize("name", NAMES)
def test_every_set_is_scored_and_selected_on_its_development_set(name: str) -> None:
    config = compose(["method=finetune", f"data=glue_{name}"])
    data = config.data
    assert data.files["test"] == data.files["validation"] != data.files["train"]
    assert data.reader in GLUE_READERS and (data.layout.value == "pairs") == (data.reader in OF_PAIRS)
    assert config.backbone.name == "roberta_base" and config.train.selection.value == "best_val"
    large = name in ("sst2", "qnli", "qqp", "mnli_m", "mnli_mm")
    assert config.train.global_batch_size == (32 if large else 16)
    assert config.train.lr == (2e-5 if name in ("rte", "stsb") else 1e-5)
    recipe = (config.train.epochs, config.train.warmup, config.train.weight_decay, config.train.adam_beta2)
    assert recipe == (10, 0.06, 0.1, 0.98)


def test_the_table_shows_a_metric_of_every_set() -> None:
    table = load("trelm/table3")
    assert [name for name, axis in table.columns.items() if not axis.average] == [
        "mnli_m", "mnli_mm", "qqp", "qnli", "sst2", "cola", "stsb", "mrpc", "rte",
    ]  # fmt: skip
    for name, axis in table.columns.items():
        if not axis.average:
            data = compose(["method=finetune", *axis.overrides]).data
            assert data.name == f"glue_{name}" and axis.metric == data.metrics[0]


def test_the_average_of_the_printed_rows_is_the_printed_average() -> None:
    table = load("trelm/table3")
    found = {}
    for row, cells in table.published.items():
        nine = [value.mean for column, value in cells.items() if not table.columns[column].average]
        assert len(nine) == 9
        found[row] = round(sum(nine) / 9, 1)
    assert found == {"roberta": 86.4, "kepler": 84.9, "colake": 86.3, "trelm": 86.7}
    assert found == {row: cells["average"].mean for row, cells in table.published.items()}


def test_files_are_of_one_release_even_where_there_are_two(tmp_path: Path) -> None:
    folder = tmp_path / "MRPC"
    release = MRPC + "".join(f"{row % 2}\t1\t2\ta{row}\tb\n" for row in range(4076))
    write(folder / "msr_paraphrase_train.txt", release)
    data = data_of("mrpc", f"data.path={folder}")
    _, records = build(tmp_path / "stages", data)
    assert [records.rows(split) for split in ("train", "validation", "test")] == [3668, 408, 408]
    assert records.texts("test")[0] == "a3668 b" and records.numbers("test")[-1] == 4075
    assert not {*records.texts("train")} & {*records.texts("test")}

    write(folder / "train.tsv", MRPC + "1\t1\t2\tours\tb\n0\t1\t2\tours\tc\n")
    with pytest.raises(DataError) as raised:  # the release's last rows may be in GLUE's train.tsv
        locate(data)
    assert [problem.what for problem in raised.value.problems] == ["holds no file dev.tsv* for the test split"]
    write(folder / "dev.tsv", MRPC + "1\t1\t2\ttheirs\tb\n0\t1\t2\ttheirs\tc\n")
    _, records = build(tmp_path / "stages", data)
    assert [records.texts(split) for split in ("train", "test")] == [["ours b", "ours c"], ["theirs b", "theirs c"]]


def test_a_folder_that_holds_neither_release_is_told_the_first(tmp_path: Path) -> None:
    write(tmp_path / "readme.txt", "nothing")
    with pytest.raises(DataError) as raised:
        locate(data_of("cola", f"data.path={tmp_path}"))
    assert [problem.what for problem in raised.value.problems] == [
        "holds no file train.tsv* for the train split",
        "holds no file dev.tsv* for the test split",
    ]


def test_alps_files_are_put_together_again(tmp_path: Path) -> None:
    for name, text in {"train": "a", "dev": "b", "test": "c"}.items():
        write(tmp_path / f"alps-{name}.tsv.gz", f"sentence\tlabel\n{text} \t1\n{text}{text} \t0\n")
    _, records = build(tmp_path / "stages", data_of("sst2", f"data.path={tmp_path}"))
    assert records.texts("train") == ["b", "bb", "a", "aa"] and records.texts("test") == ["c", "cc"]


def test_qqps_labels_and_rows_of_mnlis_two_sets(tmp_path: Path) -> None:
    row = "0\t1\tx\t( a )\ta\tb\tentailment\t"
    write(tmp_path / "train.tsv", f"{MNLI}{row}neutral\n{row}entailment\n{row}contradiction\n")
    write(tmp_path / "dev_matched.tsv", f"{MNLI}{row}contradiction\n")
    write(tmp_path / "dev_mismatched.tsv", f"{MNLI}{row}entailment\n{row}-\n{row}neutral\n")
    _, matched = build(tmp_path / "stages", data_of("mnli_m", f"data.path={tmp_path}"))
    _, other = build(tmp_path / "stages", data_of("mnli_mm", f"data.path={tmp_path}"))
    assert matched.labels("train").tolist() == other.labels("train").tolist() == [1, 0, 2]
    assert matched.labels("test").tolist() == [2] and other.labels("test").tolist() == [0, 1]


# Real files.

# rows, and share of the second label, or the mean score, of train and dev
REAL = {
    "cola": ((8551, 1043), (6023 / 8551, 719 / 1043)),
    "sst2": ((67349, 872), (37569 / 67349, 444 / 872)),
    "mrpc": ((3668, 408), (2469 / 3668, 284 / 408)),
    "rte": ((2490, 277), (1241 / 2490, 131 / 277)),
    "stsb": ((5749, 1500), (2.701, 2.364)),
}


@pytest.mark.parametrize("name", REAL)
def test_real_files_have_the_published_rows(name: str, real_data: Path, tmp_path: Path) -> None:
    base = data_of(name)
    _, records = build(tmp_path, data_of(name, f"data.path={real_data / base.folder}"))
    rows, means = REAL[name]
    assert (records.rows("train"), records.rows("test")) == rows == (base.rows.train, base.rows.test)
    get = records.scores if name == "stsb" else records.labels
    assert (get("train").mean(), get("test").mean()) == pytest.approx(means, abs=1e-3)
    texts = records.texts("test")
    assert texts == records.texts("validation") and all(text == text.strip() and text for text in texts)
    if name in ("cola", "sst2"):
        assert len({*texts}) > 0.99 * len(texts)
    else:
        assert {len(pair) for split in ("train", "test") for pair in records.pieces(split)} == {2}


def test_real_qnli_rows(real_data: Path) -> None:
    rows = read("glue_pairs", real_data / "glue" / "QNLI" / "dev.tsv.gz")
    assert Counter(label for *_, label in rows) == {"not_entailment": 2761, "entailment": 2702}
    assert all(len(texts) == 2 and texts[0].strip().endswith("?") for _, texts, _ in rows[:100])


@pytest.mark.parametrize(
    ("reader", "name", "line", "what"),
    [
        ("glue_pairs", "QNLI/test.tsv.gz", 1, "has no column of labels"),
        ("glue_pairs", "RTE/test.tsv.gz", 2, "has no label"),
        ("glue_stsb", "STS-B/test.tsv.gz", 1, "has no column of labels"),
    ],
)
def test_real_test_files_are_refused(reader: str, name: str, line: int, what: str, real_data: Path) -> None:
    path = real_data / "glue" / name
    assert problem_of(reader, path) == Problem(f"{path}, line {line}", what, HINT)


def test_the_release_of_mrpc_has_labels_of_its_test_rows(real_data: Path) -> None:
    rows = read("glue_mrpc", real_data / "glue" / "MRPC" / "msr_paraphrase_test.txt.gz")
    assert Counter(label for *_, label in rows) == {"1": 1147, "0": 578}


def test_real_scores_are_all_read(real_data: Path) -> None:
    scores = np.array([score for *_, score in read("glue_stsb", real_data / "glue" / "STS-B" / "train.tsv.gz")])
    assert (scores.min(), scores.max(), len(np.unique(scores)) > 20) == (0.0, 5.0, True)
