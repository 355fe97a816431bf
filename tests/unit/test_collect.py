"""Which runs make a table's cells, and when they count as the paper's."""

from __future__ import annotations

import pytest

from kbench.backbones.load import load_model
from kbench.backbones.tiny import tiny_stage
from kbench.config.compose import compose
from kbench.errors import ConfigError
from kbench.runs.prepare import prepare
from kbench.stages.store import Store
from kbench.tables.collect import grid
from kbench.tables.spec import load

TOY = ["data=toy", "data.labels=[a,b,c,d,e,f,g,h,i,j]", "backbone=tiny"]


@pytest.fixture
def outputs(tmp_path):
    return [f"outputs={tmp_path}"]


def test_other_data_keep_the_columns_own_settings(outputs):
    found = grid(load("muki/table3"), [*TOY, *outputs], rows=["teacher_3"])
    assert list(found.columns) == ["toy_3_teachers", "toy_4_teachers", "toy_5_teachers"]
    teachers = [next(iter(cell.runs.values())).config.method.teachers for cell in found.cells.values()]
    assert teachers == [3, 4, 5]


def test_columns_that_an_override_makes_equal_are_one_and_no_cell_of_it_is_absent(outputs):
    found = grid(load("muki/table3"), [*TOY, *outputs, "method.teachers=5"], rows=["teacher_5"])
    assert list(found.columns) == ["toy"]
    assert all(cell.runs for cell in found.cells.values())


def test_a_cell_that_the_paper_leaves_empty_has_no_run(outputs):
    found = grid(load("muki/table3"), [*TOY, *outputs], rows=["teacher_4"])
    assert [bool(cell.runs) for cell in found.cells.values()] == [False, True, True]
    assert next(iter(found.cells.values())).why == "the paper leaves it empty"


def test_an_option_that_no_row_has_is_refused(outputs):
    with pytest.raises(ConfigError, match="did you mean tau"):
        grid(load("muki/table2"), ["data=toy", "method.taau=1", *outputs])


def test_a_mistake_in_every_cell_is_an_error_and_in_one_a_reason(outputs):
    with pytest.raises(ConfigError, match=r"train\.lr"):
        grid(load("muki/table3"), [*TOY, *outputs, "train.lr=-1"])
    found = grid(load("muki/table3"), ["data=toy", *outputs], rows=["ensemble"])
    reasons = [cell.why for cell in found.cells.values()]
    assert reasons[0] == "" and all("leave one with 1" in why for why in reasons[1:])


def test_weights_from_elsewhere_are_not_the_papers_setting(outputs, tmp_path, real_data, monkeypatch):
    monkeypatch.setenv("KBENCH_DATA", str(real_data))
    run = prepare(compose(["data=toy", *outputs]))
    bench = run.bench(store=Store(tmp_path / "stages"))
    folder = bench.store.get(tiny_stage(run.config.backbone.tiny, bench.records))
    load_model(folder, bench.task.auto(), classes=2, seed=1).save_pretrained(folder)
    table = grid(load("muki/table1"), ["data=google_snippets", f"backbone.path={folder}", *outputs], rows=["ensemble"])
    assert all(cell.runs and not cell.paper_setting for cell in table.cells.values())
