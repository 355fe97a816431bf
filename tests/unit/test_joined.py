"""Data sets that are joined: whose rows, which labels, what a size cuts, who teaches what, what is part of the key."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from kbench import registry
from kbench.config.compose import check, compose
from kbench.data.records import Records, records_stage
from kbench.data.source import locate
from kbench.data.toy import SIZES, generate
from kbench.errors import ConfigError, DataError
from kbench.methods.teachers import blocks
from kbench.runs.prepare import config_hash, prepare
from kbench.stages.store import Store

LABELS = [
    "rivers",
    "bridges",
    "harbours",
    "gardens",
    "orchards",
    "meadows",
    "deserts",
    "canyons",
    "glaciers",
    "islands",
]


def build(folder: Path, *overrides: str, data: str = "toy_pair") -> Records:
    config = compose(["method=finetune", f"data={data}", "backbone=tiny", *overrides]).data
    return Records(Store(folder).get(records_stage(config, locate(config))))


def problems(*overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        compose(list(overrides))
    return [f"{p.where} | {p.what} | {p.hint}" for p in caught.value.problems]


def test_rows_follow_one_another_and_labels_go_on(tmp_path: Path) -> None:
    records = build(tmp_path)
    assert not records.tagged and records.splits == ("train", "test")
    for split, size in SIZES.items():
        first, second = list(generate(split, 6)), list(generate(split, 4, other=True))
        assert records.rows(split) == 2 * size
        assert records.texts(split) == [text for text, _ in first + second]
        topics = [topic for _, topic in first] + [6 + topic for _, topic in second]
        assert records.labels(split).tolist() == topics
        assert records.numbers(split).tolist() == list(range(2 * size))
        assert records.ends(split).tolist() == list(range(1, 2 * size + 1))
    assert records.info["found"] == {"train": 3200, "test": 1600}
    assert list(records.info["classes"]["train"]) == LABELS


def test_sizes_of_parts_cut_the_parts(tmp_path: Path) -> None:
    records = build(tmp_path, "data.parts.toy.train_size=60", "data.parts.toy_other.test_size=20")
    assert (records.rows("train"), records.rows("test")) == (60 + 1600, 800 + 20)
    first = build(tmp_path, "data.train_size=60", data="toy")
    assert records.texts("train", 0, 60) == first.texts("train")
    numbers = records.numbers("train")
    assert numbers[:60].tolist() == first.numbers("train").tolist()
    # row numbers stay those of the parts' sources, so they stand once
    assert numbers[60:].tolist() == list(range(1600, 3200))
    last = build(tmp_path, "data.test_size=20", data="toy_other")
    assert records.texts("test", 800) == last.texts("test")
    assert records.numbers("test")[800:].tolist() == (800 + last.numbers("test")).tolist()
    for split in records.splits:
        assert len(set(records.numbers(split).tolist())) == records.rows(split)


def test_a_size_of_the_whole_cuts_all_parts_alike(tmp_path: Path) -> None:
    whole, part = build(tmp_path), build(tmp_path, "data.train_size=120", "data.test_size=30")
    assert (part.rows("train"), part.rows("test")) == (120, 30)
    chosen = part.numbers("train")
    assert len(set(chosen.tolist())) == 120
    assert part.texts("train") == [whole.texts("train")[row] for row in chosen]
    assert part.labels("train").tolist() == whole.labels("train")[chosen].tolist()
    assert np.bincount(part.labels("train")).tolist() == [10] * 6 + [15] * 4
    both = build(tmp_path, "data.parts.toy.train_size=60", "data.train_size=120")
    assert np.bincount(both.labels("train") >= 6).tolist() == [4, 116]  # 60 and 1600 in 120 rows: 4.3 and 115.7


def test_a_size_beyond_the_parts_is_refused_where_it_was_said(tmp_path: Path) -> None:
    with pytest.raises(DataError) as raised:
        build(tmp_path, "data.train_size=3201")
    assert [(p.where, p.what.split(";")[0]) for p in raised.value.problems] == [
        ("data.train_size", "asks for 3201 rows")
    ]
    with pytest.raises(DataError) as raised:
        build(tmp_path, "data.parts.toy_other.test_size=801")
    assert [p.where for p in raised.value.problems] == ["data.parts.toy_other.test_size"]


@pytest.fixture
def news(tmp_path: Path) -> list[str]:
    """AG News without a validation split beside headlines with one, a few rows of each."""
    ag = "".join(f'"{row % 4 + 1}","title","news {row}"\n' for row in range(12))
    titles = "".join(f"题 {row}\t{row % 10}\n" for row in range(20))
    for name, text in {"ag/train.csv": ag, "ag/test.csv": ag, "titles/train.txt": titles, "titles/test.txt": titles,
                       "titles/dev.txt": titles}.items():  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    group = tmp_path / "mine" / "data"
    group.mkdir(parents=True)
    raw = yaml.safe_load((registry.conf_root() / "data" / "agnews_thucnews.yaml").read_text())
    parts = ["agnews@parts.agnews", "thucnews_titles@parts.titles"]
    raw |= {"defaults": ["/parts/data@_here_", *parts, "_self_"], "name": "news"}
    (group / "news.yaml").write_text("# AG News and headlines.\n" + yaml.safe_dump(raw, allow_unicode=True))
    return ["data=news", f"data.parts.agnews.path={tmp_path}/ag", f"data.parts.titles.path={tmp_path}/titles"]


def test_a_split_that_one_part_lacks_is_left_out(news: list[str], tmp_path: Path) -> None:
    words = ["method=finetune", "backbone=tiny", *news]
    ((_, config),) = check(words, sweep=False, config_dir=str(tmp_path / "mine"))
    source = locate(config.data)
    assert source.kind == "joined" and set(source.parts) == {"agnews", "titles"}
    assert "agnews from files" in source.where and "titles from files" in source.where
    records = Records(Store(tmp_path / "out").get(records_stage(config.data, source)))
    assert records.splits == ("train", "test")
    assert records.texts("train", 11, 13) == ["title news 11", "题 0"]
    assert records.labels("train")[11:13].tolist() == [3, 4]
    assert records.numbers("train").tolist() == list(range(32))
    # alone, the headlines have one
    part = config.data.parts["titles"]
    assert Records(Store(tmp_path / "out").get(records_stage(part, locate(part)))).splits[1] == "validation"


def test_sentences_are_joined_or_refused_in_words(tmp_path: Path) -> None:
    raw = yaml.safe_load((registry.conf_root() / "data" / "toy_pair.yaml").read_text())
    raw["defaults"] = ["/parts/data@_here_", "toy_entities@parts.one", "toy_entities@parts.other", "_self_"]
    raw |= {"name": "pair", "task": "tagging", "metrics": ["f1"], "labels": list("ABCDEFGH")}
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "pair.yaml").write_text("# Sentences twice.\n" + yaml.safe_dump(raw))
    words = ["method=finetune", "data=pair", "backbone=tiny", "train=quick"]
    try:
        ((_, config),) = check(words, sweep=False, config_dir=str(tmp_path))
    except ConfigError as error:
        assert [problem.where for problem in error.problems] == ["data.parts.one", "data.parts.other"]
        return
    records = Records(Store(tmp_path / "out").get(records_stage(config.data, locate(config.data))))
    assert records.rows("train") == 2400 and records.labels("train").max() == 16


def test_absent_parts_are_named_together(news: list[str], tmp_path: Path) -> None:
    words = ["method=finetune", "backbone=tiny", *news, "data.parts.agnews.path=/nowhere/a"]
    words.append("data.parts.titles.path=/nowhere/b")
    ((_, config),) = check(words, sweep=False, config_dir=str(tmp_path / "mine"))
    with pytest.raises(DataError) as raised:
        locate(config.data)
    assert ["/nowhere/a" in str(raised.value), "/nowhere/b" in str(raised.value)] == [True, True]


def test_teachers_are_split_by_part() -> None:
    data = compose(["method=uhc", "data=toy_pair"]).data
    assert blocks(data, 2, None) == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9]]
    split = [LABELS[:2], LABELS[2:]]
    assert blocks(data, 2, split) == [[0, 1], list(range(2, 10))]


def test_another_number_of_teachers_is_refused_with_the_way_out() -> None:
    (found,) = problems("method=muki", "data=toy_pair", "method.teachers=3")
    where, what, hint = found.split(" | ")
    assert (where, what) == ("method.teachers", "toy_pair is joined of 2 data sets")
    assert hint == "method.teachers=2, or give method.split"
    split = "[[rivers,bridges,harbours],[gardens,orchards,meadows],[deserts,canyons,glaciers,islands]]"
    compose(["method=muki", "data=toy_pair", "method.teachers=3", f"method.split={split}"])


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("data.reader=toy", "data.parts | goes with data.reader=joined, and only with it"),
        ("data.labels=[a,b]", "data.labels | has 2 labels; the parts have 10"),
        ("data.parts.toy.labels=[a,b]", "data.labels | has 10 labels; the parts have 6"),
        ("data.parts.toy.train_size=3", "data.parts.toy.train_size | 3 rows cannot hold 6 classes"),
        ("data.parts.toy.task=tagging", "data.parts.toy"),
        ("data.parts.toy.max_lenth=3", "data.parts.toy.max_lenth | no such key"),
        ("data.parts=null", "data.parts | goes with data.reader=joined, and only with it"),
    ],
)
def test_a_mistake_in_a_joined_data_set_is_named(override: str, expected: str) -> None:
    found = problems("method=finetune", "data=toy_pair", override)
    assert any(line.startswith(expected) for line in found), found


def test_a_plain_data_set_is_not_joined_of_nothing() -> None:
    (found,) = problems("method=finetune", "data=toy", "data.reader=joined")
    assert found.startswith("data.parts | goes with data.reader=joined")


def test_what_a_part_is_cut_to_is_part_of_the_key_and_where_it_stands_is_not(tmp_path: Path) -> None:
    base = ["method=finetune", "data=toy_pair", f"outputs={tmp_path}"]

    def key(*overrides: str) -> str:
        return prepare(compose([*base, *overrides])).key

    cut = ["data.parts.toy.train_size=60", "data.parts.toy_other.train_size=60", "data.train_size=60"]
    assert len({key(), *(key(override) for override in cut)}) == 4
    part = "data.parts.toy."
    hashes = [config_hash(compose([*base, *more])) for more in ([], [f"{part}path=x"], [f"{part}rows.train=5"])]
    assert len(set(hashes)) == 1
    assert config_hash(compose([*base, f"{part}subset_seed=2"])) != hashes[0]


def test_a_run_has_a_teacher_for_each_part(toy: Callable) -> None:
    run, result = toy("method=ensemble", "data.train_size=400", "teacher.epochs=4", data="toy_pair")
    stages = Path(run.config.outputs) / "stages" / "teacher"
    found = {tuple(json.loads((path / "config.json").read_text())["id2label"].values()) for path in stages.iterdir()
             if (path / "config.json").is_file()}  # fmt: skip
    assert {tuple(LABELS[:6]), tuple(LABELS[6:])} <= found
    assert result.setting.rows == {"train": 400, "test": 48} and result.setting.source.startswith("joined: toy from")
    assert {name.rpartition("_on_")[0] for name in result.diagnostics} == {"teacher_1_accuracy", "teacher_2_accuracy"}


def test_the_order_of_the_parts_is_part_of_the_key() -> None:
    data = compose(["data=toy_pair"]).data
    assert data.parts is not None
    turned = replace(data, parts=dict(reversed(data.parts.items())))
    assert records_stage(turned, locate(turned)).key != records_stage(data, locate(data)).key


def test_an_option_of_a_part_that_nothing_reads_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.parts\.toy\.max_length +is not read"):
        compose(["data=toy_pair", "data.parts.toy.max_length=4"])
