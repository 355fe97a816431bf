"""Reading data sets: every original format, every kind of broken file, stratified subsets, and the rows' hash."""

from __future__ import annotations

import gzip
import itertools
import json
import random
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import huggingface_hub
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from kbench.config.compose import compose
from kbench.config.schema import Data
from kbench.data.readers import READERS
from kbench.data.records import Records, records_stage, stratified
from kbench.data.source import ENVIRONMENT, Source, locate
from kbench.errors import DataError, Problem
from kbench.stages.store import Store

# reader -> a file's name, its content, the rows in it; with the oddities of the real files
FORMATS = {
    "ag_csv": (
        "test.csv",
        '"3","Fears for T N pension","Unions say ""no"", at Turner   Newall #39;s"\n'
        '"4","The Race is On (SPACE.com)","A second\\team of &lt;b&gt; rocketeers"\n'
        '"1","","one field is empty"\n',
        [
            (1, 'Fears for T N pension Unions say "no", at Turner   Newall #39;s', "3"),
            (2, "The Race is On (SPACE.com) A second\\team of &lt;b&gt; rocketeers", "4"),
            (3, " one field is empty", "1"),
        ],
    ),
    "label_last": (
        "train.txt",
        "manufacture manufacturer directory- business\nmuseum théâtre culture-arts-entertainment \n",
        [
            (1, "manufacture manufacturer directory-", "business"),
            (2, "museum théâtre", "culture-arts-entertainment"),
        ],
    ),
    "label_first": (
        "cnews.val.txt",
        '体育\t黄蜂vs湖人首发："科比"带伤战保罗\n财经\t前\t后 "未闭合\n',
        [(1, '黄蜂vs湖人首发："科比"带伤战保罗', "体育"), (2, '前\t后 "未闭合', "财经")],
    ),
    "label_tab_last": (
        "dev.txt",
        '体验2D巅峰 倚天屠龙记十大创新概览\t8\n60年铁树开花\t形状似"玉米芯\t5\n',
        [(1, "体验2D巅峰 倚天屠龙记十大创新概览", "8"), (2, '60年铁树开花\t形状似"玉米芯', "5")],
    ),
    "file_per_class": (
        "CSAI.txt",
        " deep  learning for\ttext \nall rights reserved\n",
        [(1, "deep  learning for\ttext", "CSAI"), (2, "all rights reserved", "CSAI")],
    ),
}

# data set -> where its train file goes, and how it writes a row of a class (the classes' names in files by number)
WRITERS: dict[str, tuple[str, Callable[[str, int], str]]] = {
    "agnews": ("train.csv", lambda text, label: f'"{label + 1}","{text}","."\n'),
    "google_snippets": ("train.txt", lambda text, label: f"{text} {['business', 'computers'][label]}\n"),
    "thucnews": ("cnews.train.txt", lambda text, label: f"{['体育', '娱乐'][label]}\t{text}\n"),
    "thucnews_titles": ("train.txt", lambda text, label: f"{text}\t{label}\n"),
}


@pytest.fixture(autouse=True)
def _nothing_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """No data root is set and the hub's cache is empty."""

    def absent(*args: object, **options: object) -> str:
        assert options["local_files_only"]
        raise LocalEntryNotFoundError("not in the cache")

    monkeypatch.delenv(ENVIRONMENT, raising=False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", absent)


def config(folder: Path | None, *overrides: str, data: str = "agnews") -> Data:
    path = [] if folder is None else [f"data.path={folder}"]
    return compose(["method=finetune", f"data={data}", "backbone=tiny", *path, *overrides]).data


def build(folder: Path | None, stages: Path, *overrides: str, data: str = "agnews") -> Records:
    chosen = config(folder, *overrides, data=data)
    return Records(Store(stages).get(records_stage(chosen, locate(chosen))))


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    """A text file, gzipped where its name ends so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = text.encode(encoding)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def ag(rows: list[tuple[str, int]]) -> str:
    return "".join(WRITERS["agnews"][1](text, label) for text, label in rows)


GOOD = [("rain", 0), ("goal", 1), ("bank", 2), ("chip", 3)]


def agnews(folder: Path, train: str, test: str = ag(GOOD)) -> Path:
    write(folder / "train.csv", train)
    write(folder / "test.csv", test)
    return folder


def problems_of(folder: Path, stages: Path, *overrides: str, data: str = "agnews") -> list[Problem]:
    """The problems that reading a folder ends with; nothing is published."""
    with pytest.raises(DataError) as raised:
        build(folder, stages, *overrides, data=data)
    assert not list(stages.rglob("records.json"))
    for problem in raised.value.problems:
        assert problem.where in str(raised.value)
        assert problem.what in str(raised.value)
    return raised.value.problems


# Readers.


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("reader", sorted(FORMATS))
def test_a_reader_gives_the_rows_of_its_format(reader: str, ending: str, tmp_path: Path) -> None:
    name, content, rows = FORMATS[reader]
    assert list(READERS[reader](write(tmp_path / f"{name}{ending}", content), "utf-8")) == rows


@pytest.mark.parametrize("reader", sorted(FORMATS))
def test_a_mark_at_the_beginning_windows_line_ends_and_blank_lines(reader: str, tmp_path: Path) -> None:
    name, content, rows = FORMATS[reader]
    odd = "\r\n" + content.replace("\n", "\r\n\r\n")
    path = write(tmp_path / name, odd, "utf-8-sig")
    assert list(READERS[reader](path, "utf-8")) == [(2 * number, text, label) for number, text, label in rows]


@pytest.mark.parametrize("reader", sorted(FORMATS))
def test_the_last_line_needs_no_end(reader: str, tmp_path: Path) -> None:
    name, content, rows = FORMATS[reader]
    assert list(READERS[reader](write(tmp_path / name, content.removesuffix("\n")), "utf-8")) == rows


def test_other_line_separators_of_unicode_end_no_line(tmp_path: Path) -> None:
    path = write(tmp_path / "dev.txt", "one\u2028two\x85three\x0bfour\t3\n")
    assert list(READERS["label_tab_last"](path, "utf-8")) == [(1, "one\u2028two\x85three\x0bfour", "3")]


def test_parquet_rows_are_numbered_through_row_groups(tmp_path: Path) -> None:
    table = pa.table({"idx": [7, 8, 9], "label": [2, 0, 1], "text": ["c", "a", "b"]})
    pq.write_table(table, tmp_path / "train.parquet", row_group_size=2)
    found = list(READERS["parquet"](tmp_path / "train.parquet", "utf-8"))
    assert found == [(1, "c", "2"), (2, "a", "0"), (3, "b", "1")]


def test_every_reader_is_tested() -> None:
    assert set(READERS) == {*FORMATS, "parquet"}


@pytest.mark.parametrize("reader", sorted(FORMATS))
def test_a_reader_reads_the_encoding_it_is_told(reader: str, tmp_path: Path) -> None:
    name, content, rows = FORMATS[reader]
    path = write(tmp_path / name, content, "gb18030")  # has all letters of the examples, and keeps ASCII
    assert list(READERS[reader](path, "gb18030")) == rows


def test_the_encoding_of_a_data_set_is_a_setting(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write(folder / "train.csv", ag([*GOOD, ("café", 0)]), "latin-1")
    write(folder / "test.csv", ag(GOOD))
    records = build(folder, tmp_path / "out", "data.encoding=latin-1")
    assert records.texts("train", 4) == ["café ."]


# Data sets.


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("data", sorted(WRITERS))
def test_records_of_each_data_set(data: str, ending: str, tmp_path: Path) -> None:
    name, row = WRITERS[data]
    texts = [("one 1", 0), ("two 2", 1), ("three 3", 1)]
    for split in ("train", "test"):
        chosen = texts if split == "train" else texts[1:]
        write(tmp_path / "in" / f"{name.replace('train', split)}{ending}", "".join(row(*one) for one in chosen))
    records = build(tmp_path / "in", tmp_path / "out", data=data)
    expected = [f"{text} ." if data == "agnews" else text for text, _ in texts]
    assert records.splits == ("train", "test")
    assert records.texts("train") == expected
    assert records.texts("train", 1, 2) == expected[1:2]
    assert records.texts("train", 1) == expected[1:]
    assert records.labels("train").tolist() == [0, 1, 1]
    assert records.labels("train").dtype == np.int64
    assert records.numbers("train").tolist() == [0, 1, 2]
    assert (records.texts("test"), records.labels("test").tolist()) == (expected[1:], [1, 1])
    assert (records.rows("train"), records.rows("test")) == (3, 2)
    labels = config(tmp_path / "in", data=data).labels
    assert records.info["classes"]["train"] == dict.fromkeys(labels, 0) | {labels[0]: 1, labels[1]: 2}


def test_a_validation_split_is_read_where_there_is_one(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("dev", 2), ("test", 1)):
        write(tmp_path / "in" / f"{split}.txt", "".join(f"{split} {row}\t{row}\n" for row in range(count)))
    records = build(tmp_path / "in", tmp_path / "out", data="thucnews_titles")
    assert records.splits == ("train", "validation", "test")
    assert records.texts("validation") == ["dev 0", "dev 1"]


def test_files_of_a_split_follow_one_another(tmp_path: Path) -> None:
    write(tmp_path / "in/train.part1.csv", ag(GOOD[:2]))
    write(tmp_path / "in/train.part2.csv.gz", ag(GOOD[2:]))
    write(tmp_path / "in/test.csv", ag(GOOD))
    records = build(tmp_path / "in", tmp_path / "out")
    assert records.labels("train").tolist() == [0, 1, 2, 3]
    assert records.numbers("train").tolist() == [0, 1, 2, 3]


def test_a_plain_file_and_its_gzipped_copy_are_not_both_read(tmp_path: Path) -> None:
    folder = agnews(tmp_path / "in", ag(GOOD))
    write(folder / "train.csv.gz", ag(GOOD))
    try:
        found = build(folder, tmp_path / "out").rows("train")
    except DataError as error:
        assert "train.csv" in str(error)
    else:
        assert found == len(GOOD)


# Where a data set is.


def test_an_absent_folder_is_named_with_what_it_should_hold(tmp_path: Path) -> None:
    folder = tmp_path / "nowhere"
    (problem,) = problems_of(folder, tmp_path / "out")
    assert problem.where == f"data.path={folder}"
    assert str(folder) in problem.what
    assert "train*.csv* (train)" in problem.hint
    assert "test.csv* (test)" in problem.hint


def test_every_absent_split_is_named_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "train.csv").mkdir()  # a folder is no file
    found = problems_of(folder, tmp_path / "out")
    assert [problem.where for problem in found] == [str(folder)] * 2
    assert ["train*.csv*" in found[0].what, "test.csv*" in found[1].what] == [True, True]


def test_a_data_root_holds_data_sets_by_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agnews(tmp_path / "root/ag_news", ag(GOOD))
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "root"))
    found = locate(config(None))
    assert (found.kind, found.where) == ("files", str(tmp_path / "root/ag_news"))
    assert found.files["train"] == (tmp_path / "root/ag_news/train.csv",)
    with pytest.raises(DataError, match="is not on this machine"):
        locate(config(None, data="google_snippets"))


def test_the_path_wins_over_the_data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agnews(tmp_path / "root/ag_news", ag(GOOD))
    agnews(tmp_path / "mine", ag(GOOD))
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "root"))
    assert locate(config(tmp_path / "mine")).where == str(tmp_path / "mine")


def test_a_data_root_that_is_no_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "nowhere"))
    with pytest.raises(DataError) as raised:
        locate(config(None))
    assert raised.value.problems[0].where == ENVIRONMENT
    assert str(tmp_path / "nowhere") in raised.value.problems[0].what


@pytest.mark.parametrize(
    ("data", "ways"),
    [
        ("agnews", ["kbench fetch data=agnews", "fancyzhx/ag_news", "data.path=", f"{ENVIRONMENT}=", "/ag_news"]),
        ("google_snippets", ["data.path=", "train.txt* (train)", f"{ENVIRONMENT}=", "source: Phan"]),
    ],
)
def test_a_data_set_that_is_nowhere_says_the_ways_to_it(data: str, ways: list[str]) -> None:
    with pytest.raises(DataError) as raised:
        locate(config(None, data=data))
    (problem,) = raised.value.problems
    assert (problem.where, problem.what) == (f"data={data}", "is not on this machine")
    assert [way for way in ways if way not in problem.hint] == []
    assert ("kbench fetch" in problem.hint) == (data == "agnews")


# Broken files.


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_an_empty_file_is_named(ending: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"in/train.csv{ending}", "")
    write(tmp_path / "in/test.csv", ag(GOOD))
    assert problems_of(tmp_path / "in", tmp_path / "out") == [Problem(str(path), "is empty")]


def test_a_gzipped_file_of_no_bytes_and_one_of_blank_lines_are_empty(tmp_path: Path) -> None:
    write(tmp_path / "in/test.csv", ag(GOOD))
    path = tmp_path / "in/train.1.csv.gz"
    path.write_bytes(b"")
    blank = write(tmp_path / "in/train.2.csv", "\n \n\n")
    found = problems_of(tmp_path / "in", tmp_path / "out")
    assert found == [Problem(str(path), "is empty"), Problem(str(blank), "is empty")]


@pytest.mark.parametrize(
    ("data", "line", "what", "hint"),
    [
        ("agnews", '"1","only two"', "has 2 columns", "class id, title, description"),
        ("agnews", '"1","a","b","c"', "has 4 columns", "class id, title, description"),
        ("agnews", "1", "has 1 column", "class id, title, description"),
        ("agnews", '"1","a quote that is not closed, "b"', "has 2 columns", "class id, title, description"),
        ("google_snippets", "business", "has 1 column", "text, label"),
        ("thucnews", "体育 没有制表符", "has 1 column", "label, text"),
        ("thucnews_titles", "没有制表符 3", "has 1 column", "text, class id"),
    ],
)
def test_a_row_with_the_wrong_columns_names_file_and_line(
    data: str, line: str, what: str, hint: str, tmp_path: Path
) -> None:
    name, row = WRITERS[data]
    good = row("one", 0) + row("two", 1)
    path = write(tmp_path / "in" / name, f"{good}\n{line}\n{good}")
    write(tmp_path / "in" / name.replace("train", "test"), good)
    (problem,) = problems_of(tmp_path / "in", tmp_path / "out", data=data)
    assert (problem.where, problem.what) == (f"{path}, line 4", what)
    assert hint in problem.hint


@pytest.mark.parametrize(
    ("data", "line", "label", "near"),
    [
        ("agnews", '"5","a","b"', "5", ""),
        ("agnews", '" 2","a","b"', " 2", "2"),
        ("google_snippets", "goal sport", "sport", "sports"),
        ("google_snippets", "goal Politics-Society", "Politics-Society", "politics-society"),
        ("thucnews", "体育类\t文", "体育类", "体育"),
        ("thucnews_titles", "文\tsports", "sports", ""),
    ],
)
def test_an_unknown_label_names_file_line_and_the_nearest(
    data: str, line: str, label: str, near: str, tmp_path: Path
) -> None:
    name, row = WRITERS[data]
    path = write(tmp_path / "in" / name, f"{row('one', 0)}{row('two', 1)}{line}\n")
    write(tmp_path / "in" / name.replace("train", "test"), row("one", 0))
    (problem,) = problems_of(tmp_path / "in", tmp_path / "out", data=data)
    assert problem.where == f"{path}, line 3"
    assert problem.what == f"unknown label {label!r}" + (f"; did you mean {near}?" if near else "")
    assert problem.hint == f"labels: {', '.join(config(None, data=data).source_labels)}"


def test_an_unknown_file_of_a_class_names_the_nearest(tmp_path: Path) -> None:
    for name in ("Busines", "CSAI", "Law", "Sociology", "Trans"):
        write(tmp_path / "in" / f"{name}.txt", "one document\n")
    (problem,) = problems_of(tmp_path / "in", tmp_path / "out", "data.rows.test=1", data="abstracts5")
    assert problem.where == f"{tmp_path / 'in/Busines.txt'}, line 1"
    assert problem.what == "unknown label 'Busines'; did you mean Business?"
    assert problem.hint == "labels: Business, CSAI, Law, Sociology, Trans"


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_a_byte_of_another_encoding_names_file_line_and_byte(ending: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"in/train.csv{ending}", ag([*GOOD, ("café", 0)]), "latin-1")
    write(tmp_path / "in/test.csv", ag(GOOD))
    (problem,) = problems_of(tmp_path / "in", tmp_path / "out")
    assert problem.where == f"{path}, line 5"
    assert problem.what == "is not UTF-8 (byte 0xe9)"
    assert "UTF-8" in problem.hint


def test_a_file_in_utf_16_names_its_first_line(tmp_path: Path) -> None:
    path = write(tmp_path / "in/train.csv", ag(GOOD), "utf-16")
    write(tmp_path / "in/test.csv", ag(GOOD))
    (problem,) = problems_of(tmp_path / "in", tmp_path / "out")
    assert (problem.where, problem.what) == (f"{path}, line 1", "is not UTF-8 (byte 0xff)")


@pytest.mark.parametrize("harm", ["cut", "plain", "appended", "checksum"])
def test_a_damaged_gzip_file_names_the_line_it_is_readable_to(harm: str, tmp_path: Path) -> None:
    rows = [(f"text {row} {random.Random(row).random()}", row % 4) for row in range(2000)]
    whole = gzip.compress(ag(rows).encode())
    path = write(tmp_path / "in/train.csv.gz", "")
    write(tmp_path / "in/test.csv", ag(GOOD))
    path.write_bytes(
        {
            "cut": whole[: len(whole) // 2],
            "plain": ag(rows).encode(),
            "appended": whole + b"more",
            "checksum": whole[:-8] + bytes([whole[-8] ^ 1]) + whole[-7:],
        }[harm]
    )
    (problem,) = problems_of(tmp_path / "in", tmp_path / "out")
    where, _, line = problem.where.rpartition(", after line ")
    assert where == str(path)
    assert "is a damaged gzip file" in problem.what
    low, high = {"cut": (500, 1500), "plain": (0, 0), "appended": (1900, 2000), "checksum": (1900, 2000)}[harm]
    assert low <= int(line) <= high


@pytest.mark.parametrize("text", ["", " ", "\u3000"])
def test_a_row_without_text_names_file_and_line(text: str, tmp_path: Path) -> None:
    path = write(tmp_path / "in/train.txt", f"有字\t1\n{text}\t2\n")
    write(tmp_path / "in/test.txt", "有字\t1\n")
    found = problems_of(tmp_path / "in", tmp_path / "out", data="thucnews_titles")
    assert found == [Problem(f"{path}, line 2", "has no text")]


def test_several_problems_of_a_file_are_reported_together(tmp_path: Path) -> None:
    folder = agnews(tmp_path / "in", ag(GOOD), f'"0","a","b"\n{ag(GOOD)}"1","",""\n"five","a","b"\n')
    path = folder / "test.csv"
    found = problems_of(folder, tmp_path / "out")
    assert [(problem.where, problem.what) for problem in found] == [
        (f"{path}, line 1", "unknown label '0'"),
        (f"{path}, line 6", "has no text"),
        (f"{path}, line 7", "unknown label 'five'"),
    ]


def test_the_first_five_problems_of_a_file_are_enough(tmp_path: Path) -> None:
    folder = agnews(tmp_path / "in", '"9","a","b"\n' * 20000)
    found = problems_of(folder, tmp_path / "out")
    assert [problem.where for problem in found] == [f"{folder / 'train.csv'}, line {line}" for line in range(1, 6)]


@pytest.mark.parametrize("last", ['"1","two columns"\n', '"1","caf\udce9","b"\n'])
def test_problems_before_one_that_ends_the_reading_are_reported_too(last: str, tmp_path: Path) -> None:
    folder = agnews(tmp_path / "in", "")
    (folder / "train.csv").write_bytes(f'"9","a","b"\n{ag(GOOD)}{last}'.encode(errors="surrogateescape"))
    found = problems_of(folder, tmp_path / "out")
    assert [problem.where for problem in found] == [f"{folder / 'train.csv'}, line {line}" for line in (1, 6)]


def test_problems_of_several_splits_are_reported_together(tmp_path: Path) -> None:
    folder = agnews(tmp_path / "in", '"9","a","b"\n', '"8","a","b"\n')
    found = problems_of(folder, tmp_path / "out")
    assert [problem.where for problem in found] == [f"{folder / split}.csv, line 1" for split in ("train", "test")]


def test_a_field_longer_than_the_csv_reader_takes(tmp_path: Path) -> None:
    folder = agnews(tmp_path / "in", ag([*GOOD, ("x" * 140_000, 0)]))
    try:
        found = build(folder, tmp_path / "out").texts("train", 4)
    except DataError as error:
        assert error.problems[0].where == f"{folder / 'train.csv'}, line 5"
    else:
        assert [len(text) for text in found] == [140_002]


def test_a_mended_file_is_read(tmp_path: Path) -> None:
    folder = agnews(tmp_path / "in", '"9","a","b"\n')
    problems_of(folder, tmp_path / "out")
    agnews(folder, ag(GOOD))
    records = build(folder, tmp_path / "out")
    assert records.rows("train") == 4
    names = {path.name for path in records.folder.iterdir()}
    assert names == {"train.arrow", "test.arrow", "records.json", "manifest.json"}


# The hub's copy.


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of AG News in the hub's cache, with a good test split."""
    folder = tmp_path / "snapshot"
    (folder / "data").mkdir(parents=True)

    def cached(name: str, *, revision: str, repo_type: str, local_files_only: bool) -> str:
        assert (name, repo_type, local_files_only) == ("fancyzhx/ag_news", "dataset", True)
        assert len(revision) == 40
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", cached)
    to_parquet(folder, "test", pa.table({"text": [f"{text} ." for text, _ in GOOD], "label": [0, 1, 2, 3]}))
    return folder


def to_parquet(folder: Path, split: str, table: pa.Table, number: int = 0, **options: object) -> Path:
    path = folder / "data" / f"{split}-{number:05}-of-00002.parquet"
    pq.write_table(table, path, **options)
    return path


def test_equal_rows_have_equal_content_wherever_they_come_from(hub: Path, tmp_path: Path) -> None:
    rows = [(f"text {row}", row % 4) for row in range(10)]
    from_files = build(agnews(tmp_path / "plain", ag(rows)), tmp_path / "out")
    write(tmp_path / "gz/train.1.csv.gz", ag(rows[:3]))
    write(tmp_path / "gz/train.2.csv", ag(rows[3:]))
    write(tmp_path / "gz/test.csv.gz", ag(GOOD))
    from_gz = build(tmp_path / "gz", tmp_path / "out")
    for number, part in enumerate((rows[:6], rows[6:])):
        columns = {"text": [f"{text} ." for text, _ in part], "label": [label for _, label in part]}
        to_parquet(hub, "train", pa.table(columns), number, row_group_size=4)
    from_hub = build(None, tmp_path / "out")
    assert (from_hub.info["source"], from_files.info["source"]) == ("hub", "files")
    assert from_hub.texts("train") == from_files.texts("train")
    assert from_hub.content == from_gz.content == from_files.content
    assert len({records.folder for records in (from_hub, from_gz, from_files)}) == 3


@pytest.mark.parametrize("change", ["text", "label", "order", "split", "fewer", "moved", "merged"])
def test_other_rows_have_other_content(change: str, tmp_path: Path) -> None:
    rows = [("ab", 0), ("c", 1), ("d", 2), ("e", 3)]
    before = build(agnews(tmp_path / "before", ag(rows)), tmp_path / "out")
    train, test = list(rows), list(GOOD)
    if change == "text":
        train[0] = ("aB", 0)
    elif change == "label":
        train[0] = ("ab", 1)
    elif change == "order":
        train.reverse()
    elif change == "split":
        train, test = test, train
    elif change == "fewer":
        train.pop()
    elif change == "moved":
        test.insert(0, train.pop())
    else:
        train[:2] = [("ab .1c", 0)]  # as the two rows one after another, label before text
    after = build(agnews(tmp_path / "after", ag(train), ag(test)), tmp_path / "out")
    assert before.content != after.content


def test_content_does_not_depend_on_how_rows_are_stored(tmp_path: Path) -> None:
    rows = [(f"t{row}", row % 4) for row in range(9600)]
    part = build(agnews(tmp_path / "whole", ag(rows)), tmp_path / "out", "data.train_size=8800")
    chosen = [rows[number] for number in part.numbers("train")]
    alone = build(agnews(tmp_path / "part", ag(chosen)), tmp_path / "out")
    assert alone.rows("train") == 8800
    assert alone.content == part.content


def test_a_hub_copy_without_a_training_split_is_no_copy(hub: Path) -> None:
    with pytest.raises(DataError, match="is not on this machine"):
        locate(config(None))


@pytest.mark.parametrize(
    ("columns", "what"),
    [
        ({"sentence": ["a"], "label": [0]}, "has columns sentence, label, not text and label"),
        ({"text": ["a"]}, "has columns text, not text and label"),
        ({"text": pa.array([], pa.string()), "label": pa.array([], pa.int64())}, "is empty"),
    ],
)
def test_a_parquet_file_without_columns_or_rows_is_named(columns: dict, what: str, hub: Path, tmp_path: Path) -> None:
    path = to_parquet(hub, "train", pa.table(columns))
    (problem,) = problems_of(None, tmp_path / "out")
    assert (problem.where, problem.what) == (str(path), what)


@pytest.mark.parametrize(
    ("texts", "labels", "what"),
    [
        (["a", "b", "c"], [0, 1, 4], "unknown label '4'"),
        (["a", "b", "c"], [0, 1, -1], "unknown label '-1'; did you mean 1?"),
        (["a", "b", "c"], [0, 1, None], "unknown label 'None'"),
        (["a", "b", " "], [0, 1, 2], "has no text"),
        (["a", "b", None], [0, 1, 2], "has no text"),
    ],
)
def test_a_bad_row_of_a_parquet_file_names_file_and_row(
    texts: list, labels: list, what: str, hub: Path, tmp_path: Path
) -> None:
    path = to_parquet(hub, "train", pa.table({"text": texts, "label": labels}))
    (problem,) = problems_of(None, tmp_path / "out")
    assert (problem.where, problem.what) == (f"{path}, line 3", what)


def test_a_parquet_text_that_is_a_number_is_named(hub: Path, tmp_path: Path) -> None:
    path = to_parquet(hub, "train", pa.table({"text": [1, 2], "label": [0, 1]}))
    found = problems_of(None, tmp_path / "out")
    assert found[0].where.startswith(str(path))


def test_a_parquet_text_in_another_encoding_is_named(hub: Path, tmp_path: Path) -> None:
    ends = pa.py_buffer(np.array([0, 4], np.int32).tobytes())
    latin = pa.Array.from_buffers(pa.string(), 1, [None, ends, pa.py_buffer("café".encode("latin-1"))])
    path = to_parquet(hub, "train", pa.table({"text": latin, "label": [0]}))
    found = problems_of(None, tmp_path / "out")
    assert found[0].where.startswith(str(path))


@pytest.mark.parametrize("harm", ["none", "half", "text", "page"])
def test_a_damaged_parquet_file_is_named(harm: str, hub: Path, tmp_path: Path) -> None:
    rows = range(5000)
    table = pa.table({"text": [f"words {row * 7919 % 1000} and {row}" for row in rows], "label": [r % 4 for r in rows]})
    path = to_parquet(hub, "train", table, compression="snappy")
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(
        {
            "none": b"",
            "half": whole[:middle],
            "text": b"text,label\na,0\n",
            "page": whole[:middle] + bytes(64) + whole[middle + 64 :],
        }[harm]
    )
    (problem,) = problems_of(None, tmp_path / "out")
    assert problem.where.startswith(str(path))
    assert "parquet file" in problem.what


# Subsets.


def naive_counts(counts: list[int], size: int) -> list[int]:
    """Rows of each class by the largest remainder, in exact fractions; equal remainders: lower class first."""
    exact = [Fraction(count * size, sum(counts)) for count in counts]
    take = [int(share) for share in exact]
    order = sorted(range(len(counts)), key=lambda label: (take[label] - exact[label], label))
    for label in order[: size - sum(take)]:
        take[label] += 1
    return take


def shuffled_labels(counts: list[int]) -> np.ndarray:
    return np.random.default_rng(sum(counts)).permutation(np.repeat(np.arange(len(counts)), counts))


def taken(counts: list[int], size: int, seed: int = 0) -> list[int]:
    labels = shuffled_labels(counts)
    return np.bincount(labels[stratified(labels, size, seed)], minlength=len(counts)).tolist()


@pytest.mark.parametrize(
    ("counts", "size", "expected"),
    [
        ([50, 30, 20], 10, [5, 3, 2]),
        ([7, 7, 7], 10, [4, 3, 3]),  # 3 1/3 each
        ([5, 3, 2], 5, [3, 1, 1]),  # 2 1/2, 1 1/2, 1
        ([1, 99], 10, [0, 10]),  # 0.1, 9.9
        ([3, 3, 3], 1, [1, 0, 0]),
        ([2, 5, 3], 10, [2, 5, 3]),
        ([1252, 1468, 1006, 1072, 1448], 1000, [200, 235, 161, 172, 232]),  # 5AbstractsGroup
    ],
)
def test_stratified_sizes_of_worked_examples(counts: list[int], size: int, expected: list[int]) -> None:
    assert taken(counts, size) == expected
    assert naive_counts(counts, size) == expected


@pytest.mark.parametrize(
    ("counts", "size", "expected"),
    [
        ([1, 4, 25], 10, [1, 1, 8]),  # 1/3, 4/3, 25/3: one row is left, every remainder is 1/3
        ([6, 3, 1], 4, [3, 1, 0]),  # 2.4, 1.2, 0.4: one is left, 0.4 twice
    ],
)
def test_equal_remainders_go_to_the_lower_class(counts: list[int], size: int, expected: list[int]) -> None:
    assert taken(counts, size) == expected
    assert naive_counts(counts, size) == expected


@pytest.mark.parametrize("case", range(40))
def test_stratified_sizes_equal_the_naive_ones(case: int) -> None:
    rng = random.Random(case)
    counts = [rng.randint(1, 60) for _ in range(rng.randint(2, 9))]
    size = rng.randint(1, sum(counts))
    assert taken(counts, size, case) == naive_counts(counts, size)


def test_stratified_rows_ascend_and_stand_once() -> None:
    labels = shuffled_labels([40, 25, 35])
    for size in (1, 10, 99, 100):
        rows = stratified(labels, size, 3)
        assert len(rows) == size
        assert (np.diff(rows) > 0).all()
        assert 0 <= rows[0] <= rows[-1] < 100
    assert stratified(labels, 100, 3).tolist() == list(range(100))


def test_stratified_takes_classes_by_the_numbers_they_have() -> None:
    labels = np.array([2, 7, 2, 7, 2, 7, 2, 7])
    rows = stratified(labels, 4, 1)
    assert sorted(labels[rows].tolist()) == [2, 2, 7, 7]


def test_rows_of_a_class_are_nested() -> None:
    labels = shuffled_labels([60, 30, 10])
    subsets = [stratified(labels, size, 5) for size in (10, 20, 50, 90)]
    for small, large in itertools.pairwise(subsets):
        assert set(small.tolist()) < set(large.tolist())


def test_the_seed_decides_which_rows_are_taken() -> None:
    labels = shuffled_labels([60, 30, 10])
    drawn = [stratified(labels, 20, seed).tolist() for seed in range(4)]
    assert drawn == [stratified(labels, 20, seed).tolist() for seed in range(4)]
    assert all(one != other for one, other in itertools.combinations(drawn, 2))
    assert {tuple(np.bincount(labels[rows])) for rows in drawn} == {(12, 6, 2)}


@pytest.fixture
def folder_of_100(tmp_path: Path) -> Path:
    """AG News with 100 training and 60 test rows; classes 50, 30, 10, 10 and 30, 18, 6, 6."""
    rows = [(f"text {row}", int(label)) for row, label in enumerate(shuffled_labels([50, 30, 10, 10]))]
    test = [(f"test {row}", int(label)) for row, label in enumerate(shuffled_labels([30, 18, 6, 6]))]
    return agnews(tmp_path / "in", ag(rows), ag(test))


def test_subsets_of_a_data_set(folder_of_100: Path, tmp_path: Path) -> None:
    whole = build(folder_of_100, tmp_path / "out")
    part = build(folder_of_100, tmp_path / "out", "data.train_size=20", "data.test_size=10")
    assert (part.rows("train"), part.rows("test")) == (20, 10)
    assert list(part.info["classes"]["train"].values()) == [10, 6, 2, 2]
    assert list(part.info["classes"]["test"].values()) == [5, 3, 1, 1]
    assert part.info["found"] == {"train": 100, "test": 60}
    numbers = part.numbers("train")
    assert part.texts("train") == [whole.texts("train")[number] for number in numbers]
    assert part.labels("train").tolist() == whole.labels("train")[numbers].tolist()
    assert part.content != whole.content


def test_the_subset_seed_draws_other_rows(folder_of_100: Path, tmp_path: Path) -> None:
    drawn = [
        build(folder_of_100, tmp_path / "out", "data.train_size=20", f"data.subset_seed={seed}") for seed in (1, 2)
    ]
    assert drawn[0].numbers("train").tolist() != drawn[1].numbers("train").tolist()
    assert drawn[0].numbers("test").tolist() == drawn[1].numbers("test").tolist() == list(range(60))


def test_a_larger_training_set_leaves_the_test_subset_and_holds_the_smaller(
    folder_of_100: Path, tmp_path: Path
) -> None:
    sizes = (20, 50)
    small, large = (
        build(folder_of_100, tmp_path / "out", f"data.train_size={size}", "data.test_size=10") for size in sizes
    )
    assert set(small.numbers("train").tolist()) < set(large.numbers("train").tolist())
    assert small.numbers("test").tolist() == large.numbers("test").tolist()


def test_sizes_larger_than_the_data_are_refused_together(folder_of_100: Path, tmp_path: Path) -> None:
    found = problems_of(folder_of_100, tmp_path / "out", "data.train_size=101", "data.test_size=2000")
    assert [problem.where for problem in found] == ["data.train_size", "data.test_size"]
    assert found[0].what == f"asks for 101 rows; {folder_of_100} has 100"
    assert found[1].what == f"asks for 2000 rows; {folder_of_100} has 60"


def test_a_size_of_all_rows_is_the_whole(folder_of_100: Path, tmp_path: Path) -> None:
    whole = build(folder_of_100, tmp_path / "out")
    assert build(folder_of_100, tmp_path / "out", "data.train_size=100").content == whole.content


# Keys of the stage.


def test_the_stage_is_that_of_the_files_content_and_not_of_their_place(tmp_path: Path) -> None:
    here, there = agnews(tmp_path / "here", ag(GOOD)), agnews(tmp_path / "there", ag(GOOD))

    def key(folder: Path, *overrides: str) -> str:
        chosen = config(folder, *overrides)
        return records_stage(chosen, locate(chosen)).key

    base = key(here)
    assert key(there) == base
    assert key(here, "data.max_length=64") == base
    others = [key(here, override) for override in ("data.train_size=4", "data.test_size=4", "data.subset_seed=2")]
    agnews(there, ag(GOOD[::-1]))
    assert len({base, key(there), *others}) == 5

    # a draw of test rows is part of the rows only where there is one
    assert key(here, "data.rows.test=3") == key(here)
    split = write(tmp_path / "one/Law.txt", "one\n" * 9).parent
    chosen = [config(split, f"data.rows.test={count}", data="abstracts5") for count in (3, 4)]
    assert len({records_stage(data, locate(data)).key for data in chosen}) == 2


# A data set without splits.


@pytest.fixture
def abstracts(tmp_path: Path) -> Path:
    """5AbstractsGroup with 100 documents: 40, 20, 20, 10, 10."""
    names = {"Business": 40, "CSAI": 20, "Law": 20, "Sociology": 10, "Trans": 10}
    for number, (name, count) in enumerate(names.items()):
        ending = ".gz" if number % 2 else ""
        write(tmp_path / f"in/{name}.txt{ending}", "".join(f" {name} document {row}\n" for row in range(count)))
    return tmp_path / "in"


def drawn(folder: Path, stages: Path, *overrides: str) -> Records:
    return build(folder, stages, "data.rows.test=20", *overrides, data="abstracts5")


def test_a_test_split_is_drawn_where_there_is_none(abstracts: Path, tmp_path: Path) -> None:
    records = drawn(abstracts, tmp_path / "out")
    assert records.splits == ("train", "test")
    assert list(records.info["classes"]["test"].values()) == [8, 4, 4, 2, 2]
    assert list(records.info["classes"]["train"].values()) == [32, 16, 16, 8, 8]
    assert records.info["found"] == {"train": 80, "test": 20}
    numbers = [*records.numbers("train").tolist(), *records.numbers("test").tolist()]
    assert sorted(numbers) == list(range(100))
    assert not set(records.texts("train")) & set(records.texts("test"))
    assert records.texts("train")[0].startswith("Business document ")
    names = ["Business", "CSAI", "Law", "Sociology", "Trans"]
    texts = records.texts("train") + records.texts("test")
    labels = [*records.labels("train").tolist(), *records.labels("test").tolist()]
    assert [text.split()[0] for text in texts] == [names[label] for label in labels]


def test_the_drawn_test_rows_stay_whatever_is_trained_on(abstracts: Path, tmp_path: Path) -> None:
    whole = drawn(abstracts, tmp_path / "out")
    part = drawn(abstracts, tmp_path / "out", "data.train_size=30")
    assert part.rows("train") == 30
    assert part.texts("test") == whole.texts("test")
    assert part.numbers("test").tolist() == whole.numbers("test").tolist()
    assert set(part.numbers("train").tolist()) < set(whole.numbers("train").tolist())
    fewer = drawn(abstracts, tmp_path / "out", "data.test_size=10")
    assert set(fewer.numbers("test").tolist()) < set(whole.numbers("test").tolist())
    assert fewer.numbers("train").tolist() == whole.numbers("train").tolist()


def test_the_subset_seed_draws_other_test_rows(abstracts: Path, tmp_path: Path) -> None:
    one, other = (drawn(abstracts, tmp_path / "out", f"data.subset_seed={seed}") for seed in (1, 2))
    assert one.numbers("test").tolist() != other.numbers("test").tolist()
    assert one.rows("test") == other.rows("test") == 20


@pytest.mark.parametrize("test_rows", [100, 500])
def test_a_data_set_that_is_no_larger_than_its_test_split_is_refused(
    test_rows: int, abstracts: Path, tmp_path: Path
) -> None:
    (problem,) = problems_of(abstracts, tmp_path / "out", f"data.rows.test={test_rows}", data="abstracts5")
    assert problem.where == str(abstracts)
    assert problem.what == f"holds 100 rows; {test_rows} are test"


def test_a_training_size_larger_than_what_the_draw_leaves_is_refused(abstracts: Path, tmp_path: Path) -> None:
    (problem,) = problems_of(abstracts, tmp_path / "out", "data.rows.test=20", "data.train_size=81", data="abstracts5")
    assert (problem.where, problem.what) == ("data.train_size", f"asks for 81 rows; {abstracts} has 80")


# Generated rows.


def test_generated_rows_need_no_file(tmp_path: Path) -> None:
    records = build(None, tmp_path / "out", "data.train_size=60", "data.test_size=30", data="toy")
    assert locate(config(None, data="toy")) == Source("generated", "generated by kbench")
    assert (records.rows("train"), records.rows("test")) == (60, 30)
    assert list(records.info["classes"]["train"].values()) == [10] * 6
    info = json.loads((records.folder / "records.json").read_text(encoding="utf-8"))
    assert info["found"] == {"train": 1600, "test": 800}
    assert all(text.strip() for text in records.texts("train"))
