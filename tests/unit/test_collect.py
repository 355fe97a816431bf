"""Which runs make a table's cells, and when they count as the paper's; what a table's note says."""

from __future__ import annotations

import pytest
import yaml

from kbench import registry
from kbench.backbones.load import load_model
from kbench.backbones.tiny import tiny_stage, train_texts
from kbench.config.compose import compose
from kbench.errors import ConfigError
from kbench.runs.prepare import prepare
from kbench.stages.store import Store
from kbench.tables import render
from kbench.tables.collect import grid
from kbench.tables.spec import Axis, Table, load

TOY = ["data=toy", "data.labels=[a,b,c,d,e,f,g,h,i,j]", "backbone=tiny"]

# columns whose parts are played by different models
PARTS = Table(
    name="paper/parts",
    title="Parts",
    cite="nobody",
    metric="accuracy",
    seeds=(1,),
    paper_seeds=1,
    tolerance=1.0,
    columns={
        "short": Axis("Short", ("data=toy", "data.max_length=32"), roles={"reader": "tiny", "resource": "tiny_large"}),
        "long": Axis("Long", ("data=toy", "data.max_length=48"), roles={"reader": "tiny", "resource": "tiny"}),
        "other": Axis(
            "Other", ("data=toy_other",), roles={"reader": "tiny_large", "resource": "tiny"}, unlike_paper=True
        ),
    },
    rows={
        "reads": Axis("Reads", ("method=finetune", "backbone={reader}")),
        "serves": Axis("Serves", ("method=finetune", "backbone={resource}")),
    },
    published={},
    note="numbers of nobody",
)


def backbones(found):
    return {cell: next(iter(one.runs.values())).config.backbone.name for cell, one in found.cells.items()}


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
    folder = bench.store.get(tiny_stage(run.config.backbone.tiny, train_texts(bench.records)))
    load_model(folder, bench.task.auto(), classes=2, seed=1).save_pretrained(folder)
    table = grid(load("muki/table1"), ["data=google_snippets", f"backbone.path={folder}", *outputs], rows=["ensemble"])
    assert all(cell.runs and not cell.paper_setting for cell in table.cells.values())


def test_an_override_keeps_the_columns_that_say_it_already(outputs):
    found = grid(load("muki/table3"), ["data=thucnews", "method.teachers=4", *outputs], rows=["ensemble"])
    assert list(found.columns) == ["4_teachers"]
    mixed = ["data=agnews", "method.backbones=[tiny,tiny]", *outputs]
    assert list(grid(load("muki/table4"), mixed, rows=["dfa"]).columns) == ["ag_news"], "alone: the paper's stay beside"


def test_a_column_says_what_plays_a_role(outputs):
    found = grid(PARTS, outputs)
    assert backbones(found) == {
        ("reads", "short"): "tiny",
        ("serves", "short"): "tiny_large",
        ("reads", "long"): "tiny",
        ("serves", "long"): "tiny",
        ("reads", "other"): "tiny_large",
        ("serves", "other"): "tiny",
    }
    own = {(row, column): found.paper_setting(row, column) for row, column in found.cells}
    assert own == {cell: cell[1] != "other" for cell in own}, "a column may be unlike the paper whatever is run"


def test_a_user_says_what_plays_a_role_in_every_column(outputs):
    found = grid(PARTS, ["resource=tiny_large", *outputs])
    assert {backbones(found)["serves", column] for column in PARTS.columns} == {"tiny_large"}
    assert found.setting() == [f"overridden: resource=tiny_large {outputs[0]}"]
    assert found.paper_setting("serves", "short"), "it is what the paper has there"
    assert not found.paper_setting("serves", "long")
    assert found.paper_setting("reads", "long"), "the row does not have this part"


def test_columns_of_one_data_set_are_one_where_their_settings_are_overridden(outputs):
    found = grid(PARTS, ["data=toy", *outputs])
    assert list(found.columns) == ["short", "long"]
    found = grid(PARTS, ["data=toy", "data.max_length=32", *outputs])
    assert list(found.columns) == ["short"] and found.paper_setting("serves", "short")
    found = grid(PARTS, ["data=toy", "data.max_length=40", "resource=tiny", *outputs])
    assert [axis.label for axis in found.columns.values()] == ["toy (not in the paper)"]
    assert set(backbones(found).values()) == {"tiny"} and not found.paper_setting("reads", "toy")
    assert next(iter(found.cells["reads", "toy"].runs.values())).config.data.max_length == 40


def test_settings_of_a_columns_own_data_go_with_the_data(outputs):
    found = grid(PARTS, ["data=toy_entities", "reader=tiny", "resource=tiny_large", *outputs])
    assert list(found.columns) == ["toy_entities"]
    assert found.columns["toy_entities"].overrides == ("data=toy_entities",)
    assert backbones(found) == {("reads", "toy_entities"): "tiny", ("serves", "toy_entities"): "tiny_large"}


def test_columns_that_become_one_need_one_model_a_role(outputs):
    with pytest.raises(ConfigError, match=r"reader and resource\s+give reader=\.\.\. resource=\.\.\."):
        grid(PARTS, ["data=toy_entities", *outputs])
    with pytest.raises(ConfigError, match=r"differ in reader\s+give reader=\.\.\."):
        grid(PARTS, ["data=toy_entities", "resource=tiny", *outputs])
    with pytest.raises(ConfigError, match=r"give resource=\.\.\."):
        grid(PARTS, ["data=toy", "data.max_length=40", *outputs])
    found = grid(PARTS, ["data=toy", "data.max_length=40", *outputs], rows=["reads"])
    assert backbones(found) == {("reads", "toy"): "tiny"}, "no row shown has the part that differs"


def test_a_mistyped_role_and_one_model_for_every_role_are_refused(outputs):
    with pytest.raises(ConfigError, match="no such key; did you mean reader"):
        grid(PARTS, ["raeder=tiny", *outputs])
    with pytest.raises(ConfigError, match=r"backbone=tiny .*\s+give reader=\.\.\. resource=\.\.\."):
        grid(PARTS, ["backbone=tiny", *outputs])
    with pytest.raises(ConfigError, match="no such backbone; did you mean tiny"):
        grid(PARTS, ["reader=tinny", "resource=tinny", *outputs])
    with pytest.raises(ConfigError, match=r"reader +no such key"):
        grid(load("muki/table1"), ["data=toy", "reader=tiny", *outputs])


def test_a_row_may_only_name_roles_that_every_column_has(tmp_path, monkeypatch):
    raw = yaml.safe_load((registry.experiments_root() / "kr2" / "table2.yaml").read_text())
    del raw["columns"]["zh"]["roles"]["reader"]
    (tmp_path / "kr2").mkdir()
    (tmp_path / "kr2" / "table2.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    monkeypatch.setattr(registry, "experiments_root", lambda: tmp_path)
    with pytest.raises(ConfigError, match="roles that not every column has: zh has no reader"):
        load("kr2/table2")


def test_a_note_stands_under_the_setting_in_every_output(outputs):
    found = grid(PARTS, outputs)
    assert f"- overridden: {outputs[0]}\n- note: numbers of nobody\n" in render.markdown(found)
    assert all("note: numbers of nobody" in line for line in render.as_csv(found).splitlines()[1:])
    assert "note: numbers of nobody" in render.latex(found)


def test_a_language_that_a_table_has_is_its_column_and_another_is_one(outputs):
    table = load("kr2/table1")
    found = grid(table, ["data=ud_pos", "data.lang=de", *outputs], rows=["kreader"])
    assert list(found.columns) == ["de"] and not found.paper_setting("kreader", "de")
    found = grid(table, ["data=ud_pos", "data.lang=en", *outputs], rows=["kreader"])
    assert [axis.label for axis in found.columns.values()] == ["ud_pos (not in the paper)"]
    with pytest.raises(ConfigError, match=r"differ in resource\s+give resource=\.\.\."):
        grid(table, ["data=ud_pos", "data.lang=en", *outputs], rows=["kr2"])


def test_an_average_of_columns_unlike_the_paper_is_unlike_it(outputs):
    assert not grid(load("kr2/table2"), outputs, rows=["kreader"]).paper_setting("kreader", "average")
