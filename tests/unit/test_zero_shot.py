"""Data learned in one language and tested in several: slices, groups, parallel subsets, messages, table columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kbench.config.compose import compose
from kbench.config.data import ZeroShot, sliced
from kbench.config.schema import Data
from kbench.data.records import Records, records_stage
from kbench.data.source import locate
from kbench.errors import ConfigError, DataError, Problem
from kbench.stages.store import Store
from kbench.tables import render
from kbench.tables.collect import Cell, Grid, grid
from kbench.tables.spec import Axis, Table
from kbench.tasks.classification import Classification

LABELS = ("contradiction", "entailment", "neutral")
FILES = {"train": "dev-{lang}.tsv*[:4]", "validation": "dev-{lang}.tsv*[4:6]", "test": "dev-{lang}.tsv*[6:]"}


def write(folder: Path, lang: str, rows: int = 12, encoding: str = "utf-8", letter: str = "ä") -> Path:
    """A file of pairs as XTREME has them, labels in turn; texts name language and row."""
    lines = [f"{lang} first {row} {letter}\t{lang} second {row}\t{LABELS[row % 3]}\n" for row in range(rows)]
    path = folder / f"dev-{lang}.tsv"
    path.write_bytes("".join(lines).encode(encoding))
    return path


@pytest.fixture(scope="module")
def composed() -> Data:
    return compose(["method=finetune", "data=xnli_dev"]).data


Load = Callable[..., Records]


@pytest.fixture
def data_of(composed: Data, tmp_path: Path) -> Callable[..., Data]:
    """The data set in a folder, tested in English and German unless told otherwise."""

    def make(tested: tuple[str, ...] = ("en", "de"), **more: Any) -> Data:
        languages = {name: more.pop(name) for name in ("spelt", "encodings", "learned") if name in more}
        spoken = replace(ZeroShot("en", list(tested), None, None), **languages)
        return replace(composed, path=str(tmp_path), zero_shot=spoken, **({"files": dict(FILES)} | more))

    return make


@pytest.fixture
def load(tmp_path: Path) -> Load:
    store = Store(tmp_path / "stages")

    def make(data: Data) -> Records:
        return Records(store.get(records_stage(data, locate(data))))

    return make


def problems_of(call: Callable[[], Any]) -> tuple[Problem, ...]:
    with pytest.raises(DataError) as raised:
        call()
    return tuple(raised.value.problems)


# File patterns.


@pytest.mark.parametrize(
    ("pattern", "glob", "rows"),
    [
        ("dev.tsv*[:1500]", "dev.tsv*", slice(None, 1500)),
        ("dev.tsv*[1500:]", "dev.tsv*", slice(1500, None)),
        ("dev.tsv*[3:5]", "dev.tsv*", slice(3, 5)),
        ("dev.tsv*[:]", "dev.tsv*", slice(None, None)),
        ("dev.tsv*", "dev.tsv*", slice(None)),
        ("dev[12].tsv", "dev[12].tsv", slice(None)),  # a choice of letters, not rows
        ("dev.tsv[12]", "dev.tsv[12]", slice(None)),
        ("[:3]dev.tsv", "[:3]dev.tsv", slice(None)),
    ],
)
def test_a_slice_stands_at_the_end_of_a_pattern(pattern: str, glob: str, rows: slice) -> None:
    assert sliced(pattern) == (glob, rows)


def test_one_file_gives_all_splits_by_slices(data_of: Any, load: Load, tmp_path: Path) -> None:
    write(tmp_path, "en")
    write(tmp_path, "de")
    records = load(data_of())
    assert records.splits == ("train", "validation", "test")
    assert {split: records.rows(split) for split in records.splits} == {"train": 4, "validation": 2, "test": 12}
    assert records.pieces("train")[0] == ["en first 0 ä", "en second 0"]
    assert records.numbers("train").tolist() == [0, 1, 2, 3]
    assert records.numbers("validation").tolist() == [4, 5]
    # row numbers are those of the file, so that a row is found again in every language
    assert records.numbers("test").tolist() == [*range(6, 12)] * 2
    assert records.labels("test").tolist() == [0, 1, 2] * 4
    assert records.texts("test")[0] == "en first 6 ä en second 6" and records.texts("test")[6].startswith("de first 6")


def test_a_slice_counts_over_all_files_of_a_pattern(data_of: Any, load: Load, tmp_path: Path) -> None:
    for part, rows in (("a", 3), ("b", 3), ("c", 3)):
        write(tmp_path, "en", rows).rename(tmp_path / f"dev-en-{part}.tsv")
    files = {split: f"dev-{{lang}}-*.tsv{rows}" for split, rows in (("train", "[:2]"), ("test", "[2:7]"))}
    records = load(data_of(("en",), files=files))
    assert records.texts("train") == [f"en first {row} ä en second {row}" for row in (0, 1)]
    assert [text.split()[2] for text in records.texts("test")] == ["2", "0", "1", "2", "0"]
    assert records.numbers("test").tolist() == [2, 3, 4, 5, 6]


def test_what_a_slice_leaves_out_is_not_checked(data_of: Any, load: Load, tmp_path: Path) -> None:
    path = write(tmp_path, "en", 8)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:7], "a\tb\tunheard\n"]))
    tail = {"train": "dev-en.tsv[:4]", "test": "dev-{lang}.tsv[6:7]"}
    assert load(data_of(("en",), files=tail)).rows("test") == 1
    whole = data_of(("en",), files={**tail, "test": "dev-{lang}.tsv[6:8]"})
    (problem,) = problems_of(lambda: load(whole))
    assert problem.where == f"{path}, line 8" and "unknown label 'unheard'" in problem.what


def test_another_slice_is_another_stage(data_of: Any, load: Load, tmp_path: Path) -> None:
    write(tmp_path, "en")
    first = load(data_of(("en",)))
    second = load(data_of(("en",), files={**FILES, "test": "dev-{lang}.tsv*[7:]"}))
    assert first.folder != second.folder and (first.rows("test"), second.rows("test")) == (6, 5)


def test_a_slice_beyond_the_end_says_so(data_of: Any, load: Load, tmp_path: Path) -> None:
    en, de = write(tmp_path, "en"), write(tmp_path, "de", rows=5)
    (problem,) = problems_of(lambda: load(data_of()))
    assert problem == Problem(str(de), "holds 5 rows, and rows 6 on are asked for", "mend the slice in data.files")
    (problem,) = problems_of(lambda: load(data_of(("en",), files={**FILES, "test": "dev-{lang}.tsv[100:]"})))
    assert problem == Problem(str(en), "holds 12 rows, and rows 100 on are asked for", "mend the slice in data.files")


@pytest.mark.parametrize("rows", ["[5:5]", "[7:5]", "[:0]"])
def test_a_slice_without_rows_is_a_mistake_of_the_configuration(rows: str) -> None:
    words = ["method=finetune", "data=xnli_dev", f"data.files.test='dev-{{lang}}.tsv{rows}'"]
    with pytest.raises(ConfigError) as raised:
        compose(words)
    (problem,) = raised.value.problems
    assert problem.where == "data.files.test" and "takes no rows" in problem.what


# Languages.


def test_groups_are_the_rows_of_each_tested_language(data_of: Any, load: Load, tmp_path: Path) -> None:
    for lang, rows in (("en", 12), ("de", 9), ("vi", 7)):
        write(tmp_path, lang, rows)
    records = load(data_of(("de", "vi", "en")))
    groups = records.groups("test")
    assert list(groups) == ["de", "vi", "en"], "in the order they are named"
    assert {lang: rows.tolist() for lang, rows in groups.items()} == {
        "de": [0, 1, 2],
        "vi": [3],
        "en": [4, 5, 6, 7, 8, 9],
    }
    texts = records.texts("test")
    assert all(texts[row].startswith(f"{lang} first") for lang, rows in groups.items() for row in rows)
    assert records.languages("test") == ["de"] * 3 + ["vi"] + ["en"] * 6
    assert records.languages("test", np.array([9, 3, 0])) == ["en", "vi", "de"]
    # train and validation are in the language that is learned
    assert records.groups("train") == records.groups("validation") == {}
    assert records.languages("train") == ["en"] * 4


def test_what_is_learned_need_not_be_tested(data_of: Any, load: Load, tmp_path: Path) -> None:
    write(tmp_path, "en")
    write(tmp_path, "de")
    records = load(data_of(("de",), learned="en"))
    assert records.texts("train")[0].startswith("en") and list(records.groups("test")) == ["de"]
    other = load(data_of(("de",), learned="de"))
    assert other.texts("train")[0].startswith("de") and other.content != records.content


def test_a_test_size_is_of_each_language_and_keeps_them_parallel(data_of: Any, load: Load, tmp_path: Path) -> None:
    for lang in ("en", "de", "vi"):
        write(tmp_path, lang, 96)
    records = load(data_of(("en", "de", "vi"), test_size=9, train_size=3))
    assert records.rows("test") == 27 and records.rows("train") == 3
    numbers, labels = records.numbers("test").reshape(3, 9), records.labels("test").reshape(3, 9)
    assert (numbers == numbers[0]).all() and (labels == labels[0]).all()
    assert np.bincount(labels[0]).tolist() == [3, 3, 3], "stratified"
    assert numbers[0].tolist() != list(range(6, 15)), "a draw, not the first ones"
    assert {lang: rows.tolist() for lang, rows in records.groups("test").items()} == {
        "en": [*range(9)],
        "de": [*range(9, 18)],
        "vi": [*range(18, 27)],
    }
    assert all(
        text.startswith(lang) for text, lang in zip(records.texts("test"), records.languages("test"), strict=True)
    )


def test_a_test_size_above_the_smallest_language_is_refused(data_of: Any, load: Load, tmp_path: Path) -> None:
    write(tmp_path, "en", 30)
    write(tmp_path, "de", 12)
    (problem,) = problems_of(lambda: load(data_of(test_size=7)))
    assert problem.where == "data.test_size" and problem.hint == "take fewer"
    assert problem.what == f"asks for 7 rows; {tmp_path} has 6 in one language"


def test_a_language_without_a_file_is_named_with_the_way_out(data_of: Any, load: Load, tmp_path: Path) -> None:
    write(tmp_path, "en")
    write(tmp_path, "vi")
    (problem,) = problems_of(lambda: locate(data_of(("en", "de", "vi"))))
    assert problem.where == str(tmp_path) and problem.what == "holds no file dev-de.tsv* for the test split"
    assert problem.hint == "data.zero_shot.tested=[en,vi] leaves them out"
    found = problems_of(lambda: locate(data_of(("en", "de", "vi", "zh"))))
    assert [one.what for one in found] == [f"holds no file dev-{lang}.tsv* for the test split" for lang in ("de", "zh")]
    assert {one.hint for one in found} == {"data.zero_shot.tested=[en,vi] leaves them out"}
    # the way out is one
    assert load(data_of(("en", "vi"))).rows("test") == 12
    # where nothing is there, there is no language to stay with
    found = problems_of(lambda: locate(data_of(("de",))))
    assert [one.hint for one in found] == [""]


def test_the_language_that_is_learned_cannot_be_left_out(data_of: Any, tmp_path: Path) -> None:
    write(tmp_path, "de")
    found = problems_of(lambda: locate(data_of(("de",))))
    assert [(one.what, one.hint) for one in found] == [("holds no file dev-en.tsv* for the train split", "")]


def test_names_of_files_spell_languages_in_their_own_way(data_of: Any, load: Load, tmp_path: Path) -> None:
    write(tmp_path, "en")
    write(tmp_path, "zh-Hans", letter="好")
    spelt = data_of(("en", "zh"), spelt={"zh": "zh-Hans"})
    assert spelt.patterns()["test"] == ["dev-en.tsv*[6:]", "dev-zh-Hans.tsv*[6:]"]
    records = load(spelt)
    assert list(records.groups("test")) == ["en", "zh"] and "好" in records.texts("test")[-1]
    (problem,) = problems_of(lambda: locate(data_of(("en", "zh"))))
    assert "dev-zh.tsv*" in problem.what


def test_each_language_has_an_encoding_of_its_own(data_of: Any, load: Load, tmp_path: Path) -> None:
    write(tmp_path, "en")
    write(tmp_path, "de", encoding="latin-1")
    write(tmp_path, "el", encoding="cp1253", letter="ω")
    tested = ("en", "de", "el")
    records = load(data_of(tested, encodings={"de": "latin-1", "el": "cp1253"}))
    assert [records.texts("test")[row].split()[3] for row in (0, 6, 12)] == ["ä", "ä", "ω"]
    (problem, *_) = problems_of(lambda: load(data_of(tested, encodings={"el": "cp1253"})))
    assert problem.where == f"{tmp_path / 'dev-de.tsv'}, line 1" and "is not UTF-8" in problem.what


def test_another_encoding_is_another_stage(data_of: Any, load: Load, tmp_path: Path) -> None:
    """Read as latin-1, UTF-8 gives other letters and no error: the rows must not be taken for the same."""
    write(tmp_path, "en")
    write(tmp_path, "de")
    wrong = load(data_of(encodings={"de": "latin-1"}))
    right = load(data_of())
    assert "Ã¤" in wrong.texts("test")[-1] and "ä" in right.texts("test")[-1]
    assert wrong.content != right.content


# Generated data and configurations.


def test_generated_rows_follow_the_languages_that_are_asked_for(load: Load) -> None:
    whole = compose(["method=finetune", "data=toy_relx"]).data
    assert whole.zero_shot is not None
    both = load(whole)
    assert {lang: len(rows) for lang, rows in both.groups("test").items()} == {"xa": 400, "xb": 400}
    one = load(replace(whole, zero_shot=replace(whole.zero_shot, tested=["xb"])))
    assert {lang: len(rows) for lang, rows in one.groups("test").items()} == {"xb": 400}
    assert one.texts("test", 0, 5) == both.texts("test", 400, 405)
    other = load(replace(whole, zero_shot=replace(whole.zero_shot, learned="xb")))
    assert other.texts("train", 0, 5) != both.texts("train", 0, 5)
    (problem,) = problems_of(lambda: load(replace(whole, zero_shot=replace(whole.zero_shot, tested=["xa", "de"]))))
    assert problem == Problem("data.zero_shot", "toy_relx has no language de", "there are: xa, xb")


@pytest.mark.parametrize(
    ("words", "where", "what"),
    [
        (["data.zero_shot.tested=[]"], "data.zero_shot.tested", "must name one language at least, each once"),
        (["data.zero_shot.tested=[en,de,en]"], "data.zero_shot.tested", "must name one language at least, each once"),
        (["data.files.test=dev.tsv"], "data.files.test", "names the same files for every language"),
    ],
)
def test_a_configuration_that_cannot_be_meant(words: list[str], where: str, what: str) -> None:
    with pytest.raises(ConfigError) as raised:
        compose(["method=finetune", "data=xnli_dev", *words])
    assert [(one.where, one.what) for one in raised.value.problems] == [(where, what)]


def test_one_tested_language_needs_no_place_for_it_in_the_pattern(data_of: Any, load: Load, tmp_path: Path) -> None:
    write(tmp_path, "en")
    write(tmp_path, "de")
    data = data_of(("de",), files={"train": "dev-en.tsv[:4]", "test": "dev-de.tsv"})
    assert data.check() == [] and load(data).languages("test") == ["de"] * 12


# Metrics of languages.


def test_metrics_are_those_of_each_language_and_their_mean(data_of: Any, load: Load, tmp_path: Path) -> None:
    """The mean is over languages, not over rows: a small one counts as much as a large one."""
    write(tmp_path, "en", 18)
    write(tmp_path, "de", 9)
    records = load(data_of())
    gold = records.labels("test")
    scores = np.eye(3)[gold]
    wrong = [0, 1, 2, 12]  # three of twelve in English, one of three in German
    scores[wrong] = np.eye(3)[(gold[wrong] + 1) % 3]
    task = Classification(list(LABELS), ["accuracy", "macro_f1"])
    found = task.measure(scores, records, "test")
    assert list(found) == ["accuracy", "macro_f1", "accuracy/en", "macro_f1/en", "accuracy/de", "macro_f1/de"]
    assert (found["accuracy/en"], found["accuracy/de"]) == pytest.approx((9 / 12, 2 / 3))
    assert found["accuracy"] == pytest.approx((9 / 12 + 2 / 3) / 2)
    assert found["macro_f1"] == pytest.approx((found["macro_f1/en"] + found["macro_f1/de"]) / 2)


# Columns of tables.

COLUMNS = {
    "en": Axis("English", ("data=toy_relx",), metric="f1/xa"),
    "de": Axis("German", ("data=toy_relx",), metric="f1/xb"),
    "other": Axis("Topics", ("data=toy",)),
    "two": Axis("Average of two", average=True, over=("en", "de")),
    "all": Axis("Average", average=True),
}
TABLE = Table(
    name="paper/languages",
    title="Languages",
    cite="nobody",
    metric="accuracy",
    seeds=(1, 2),
    paper_seeds=1,
    tolerance=0.1,
    columns=COLUMNS,
    rows={"row": Axis("Row", ("method=finetune", "backbone=tiny"))},
    published={},
)


def filled(values: dict[str, list[dict[str, float]]], columns: dict[str, Axis] = COLUMNS) -> Grid:
    """A grid with results as they would be read; values: column -> the metrics of each seed."""
    cells = {}
    for column, metrics in values.items():
        setting = SimpleNamespace(data=column, backbone="tiny", rows={"train": 1, "test": 1}, parts=list)
        results: Any = {
            seed: SimpleNamespace(metrics={"test": one}, setting=setting, diagnostics={})
            for seed, one in enumerate(metrics, start=1)
        }
        runs: Any = {seed: SimpleNamespace(folder=Path("nowhere")) for seed in results}
        metric = columns[column].metric or TABLE.metric
        cells["row", column] = Cell(runs, ("data=x",), metric=metric, results=results)
    return Grid(TABLE, columns, TABLE.rows, cells, ())


def test_a_column_shows_the_metric_of_its_language(tmp_path: Path) -> None:
    found = grid(TABLE, [f"outputs={tmp_path}"])
    assert {column: cell.metric for (_, column), cell in found.cells.items()} == {
        "en": "f1/xa",
        "de": "f1/xb",
        "other": "accuracy",
    }
    keys = {column: next(iter(cell.runs.values())).key for (_, column), cell in found.cells.items()}
    assert keys["en"] == keys["de"] != keys["other"], "languages are columns of one run"


def test_where_data_do_not_have_the_metric_their_main_one_is_shown(tmp_path: Path) -> None:
    table = replace(TABLE, columns={"en": Axis("English", ("data=toy",), metric="f1/xa")})
    cell = next(iter(grid(table, [f"outputs={tmp_path}"]).cells.values()))
    assert cell.metric == "accuracy"


RELX = [
    {"accuracy": 0.9, "f1": 0.5, "f1/xa": 0.6, "f1/xb": 0.4},
    {"accuracy": 0.9, "f1": 0.5, "f1/xa": 0.7, "f1/xb": 0.3},
]


def test_averages_are_over_the_columns_they_name_or_over_all() -> None:
    found = filled({"en": RELX, "de": RELX, "other": [{"accuracy": 0.2}, {"accuracy": 0.5}]})
    about = pytest.approx
    assert found.values("row", "en") == about({1: 60.0, 2: 70.0})
    assert found.values("row", "de") == about({1: 40.0, 2: 30.0})
    assert found.averaged("two") == ["en", "de"] and found.averaged("all") == ["en", "de", "other"]
    assert found.values("row", "two") == about({1: 50.0, 2: 50.0})
    assert found.values("row", "all") == about({1: 40.0, 2: 50.0})


def test_an_average_has_the_seeds_that_all_its_columns_have() -> None:
    found = filled({"en": RELX, "de": RELX[:1], "other": [{"accuracy": 0.2}] * 2})
    assert found.values("row", "two") == pytest.approx({1: 50.0})


def test_an_average_is_missing_where_a_language_was_not_tested() -> None:
    only = [{"accuracy": 0.9, "f1": 0.6, "f1/xa": 0.6}]
    found = filled({"en": only, "de": only, "other": [{"accuracy": 0.2}]})
    assert found.values("row", "en") == pytest.approx({1: 60.0})
    assert found.values("row", "de") == found.values("row", "two") == found.values("row", "all") == {}
    shown = {line.column: (line.ours, line.verdict) for line in render.lines(found)}
    assert shown["two"] == shown["all"] == shown["de"] == (None, "not run") and shown["en"][0] is not None
    text = render.markdown(found)
    average = text.split("## Average of two")[1].splitlines()[4]
    assert [cell.strip() for cell in average.strip("|").split("|")][:4] == ["Row", "-", "-", "0"]
    assert "--" in render.latex(found) and render.as_csv(found).count("not run") == 3


def test_runs_whose_language_was_not_tested_are_listed_without_a_value() -> None:
    only = [{"accuracy": 0.9, "f1": 0.6, "f1/xa": 0.6}]
    lines = render.runs_csv(filled({"en": only, "de": only, "other": [{"accuracy": 0.2}]})).splitlines()
    values = {line.split(",")[1]: line.split(",")[4] for line in lines[1:]}
    assert values == {"en": "0.6", "de": "", "other": "0.2"}


def test_an_average_is_missing_where_a_column_that_it_is_over_is_not_shown() -> None:
    shown = {name: axis for name, axis in COLUMNS.items() if name != "de"}
    found = filled({"en": RELX, "other": [{"accuracy": 0.2}] * 2}, shown)
    assert found.values("row", "two") == {}
    assert found.values("row", "all") == pytest.approx({1: 40.0, 2: 45.0})
