"""Tables of MUKI and KR2 on generated data, from the command to the page: a few rows each, made in this process."""

from __future__ import annotations

import io
import json
import re

import pytest

from kbench.cli.main import main
from kbench.runs.launch import Ended
from kbench.runs.result import Result
from kbench.tables.spec import load

from ..conftest import QUICK, command

LABELS = "data.labels=[a,b,c,d,e,f,g,h,i,j]"
MIXED = "method.backbones=[tiny,tiny_large]"


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """Where all tables of this file stand, so that they share their teachers."""
    return tmp_path_factory.mktemp("tables")


@pytest.fixture
def made(monkeypatch, capsys, outputs):
    """`made("muki/table2", "toy")` reproduces a table; gives its cells, (row, column) -> cell, and its page."""

    def launch(run, overrides, note):
        from kbench.engine.runtime import Runtime
        from kbench.runs.execute import execute
        from kbench.runs.prepare import freeze, thaw
        from kbench.runs.reporter import Reporter

        freeze(run, overrides)
        thawed = thaw(run.folder)
        assert thawed == run, "a worker has nothing but the frozen folder"
        result = execute(thawed, Runtime(), Reporter(run.folder, out=io.StringIO()))
        return Ended(0, result, fresh=True)

    monkeypatch.setattr("kbench.cli.reproduce.launch", launch)

    def make(table, data, *words, rows, runs, seed="1"):
        words = [table, f"data={data}", *QUICK[1:], *words, f"seed={seed}", f"outputs={outputs}"]
        words += ["--rows", ",".join(rows)]
        assert main(["reproduce", *words]) == 0
        page = capsys.readouterr().out
        assert f"runs     {runs}: " in page
        page = page[page.index(f"# {table}") :]
        assert main(["report", *words, "--json"]) == 0
        cells = {(cell["row"], cell["column"]): cell for cell in json.loads(capsys.readouterr().out)}
        assert {row for row, _ in cells} == set(rows)
        for cell in cells.values():
            if cell["why"]:
                assert cell["ours"] is None and cell["verdict"] == "not run"
            else:
                assert cell["ours"]["n"] == 1 and 0 <= cell["ours"]["mean"] <= 100
                assert cell["verdict"] == "other setting"
        folder = outputs / "reports" / table.replace("/", "-")
        assert {path.name for path in folder.iterdir()} == {"table.md", "table.csv", "table.tex", "runs.csv"}
        return cells, page

    return make


def results(outputs, method, data):
    found = (outputs / method / data).glob("*/*/s*/result.json")
    return [Result.load(path.parent) for path in found]


def test_table_2(made, outputs):
    rows = [f"muki_{target}{end}" for target in ("hard", "soft") for end in ("", "_no_mc", "_one_sample")]
    rows += ["muki_hard_no_reweighting", "muki_soft_no_reweighting"]
    cells, page = made("muki/table2", "toy", rows=rows, runs=8)
    assert set(cells) == {(row, "toy") for row in rows}
    assert all(cell["right_teacher"] is not None for cell in cells.values())
    shares = {row: cells[row, "toy"]["right_teacher"] for row in rows}
    for end in ("", "_no_mc", "_one_sample"):
        assert shares[f"muki_hard{end}"] == shares[f"muki_soft{end}"], "who is surest is not a matter of the target"
    assert "MUKI-Soft is above MUKI-Soft w/o Monte-Carlo dropout" in page
    # one set of teachers, one of samples
    assert len(list((outputs / "stages" / "teacher").glob("*/manifest.json"))) == 2
    assert len(list((outputs / "stages" / "teacher_samples").glob("*/manifest.json"))) == 2


def test_table_3(made, outputs):
    before = set((outputs / "stages" / "teacher").glob("*/manifest.json"))
    rows = ["teacher_1", "teacher_4", "teacher_5", "ensemble", "muki_soft"]
    cells, page = made("muki/table3", "toy", LABELS, rows=rows, runs=3 + 2 + 1 + 3 + 3)
    columns = [f"toy_{number}_teachers" for number in (3, 4, 5)]
    assert {column for _, column in cells} == set(columns)
    empty = {cell for cell, found in cells.items() if found["ours"] is None}
    assert empty == {("teacher_4", columns[0]), ("teacher_5", columns[0]), ("teacher_5", columns[1])}
    assert {cells[cell]["why"] for cell in empty} == {"the paper leaves it empty"}
    assert "not run: Teacher 5: the paper leaves it empty" in page
    for number in (3, 4, 5):
        assert f"{number} teachers: toy (not in the paper)" in page
    # 3, 3, 4 classes; 2, 2, 2, 4; 2, 2, 2, 2, 2: equal teachers are trained once
    stages = set((outputs / "stages" / "teacher").glob("*/manifest.json")) - before
    known = [json.loads(path.read_text())["science"]["outputs"] for path in stages]
    assert sorted(map(len, known)) == [2] * 5 + [3, 3, 4]


def test_table_4(made, outputs):
    rows = ["teacher_1", "teacher_2", "vanilla_kd", "dfa", "cfl", "muki_hard"]
    cells, page = made("muki/table4", "toy", MIXED, rows=rows, runs=6)
    assert set(cells) == {(row, "toy") for row in rows}
    assert "backbone tiny (teachers: tiny, tiny_large)" in page and "Teacher 2 (large)" in page
    assert len(results(outputs, "dfa", "toy")) == 1
    large = [
        json.loads((path.parent / "config.json").read_text())["num_hidden_layers"]
        for path in (outputs / "stages" / "teacher").glob("*/manifest.json")
    ]
    assert large.count(4) == 1, "the student and the first teacher are small"


def test_table_5(made, outputs):
    rows = ["teacher_1", "teacher_2", "ensemble", "dfa", "muki_hard"]
    cells, page = made("muki/table5", "toy_pair", rows=rows, runs=5)
    assert set(cells) == {(row, "toy_pair") for row in rows}
    assert "toy_pair: backbone tiny; train 96 of 3,200; test 48 of 1,600" in page
    (found,) = results(outputs, "muki", "toy_pair")
    assert found.setting.source.startswith("joined: ")
    # a teacher alone is right on no row of the other part
    for number, classes in ((1, 6), (2, 4)):
        assert cells[f"teacher_{number}", "toy_pair"]["ours"]["mean"] <= 100 * classes / 10 + 5


def test_table_6(made, outputs):
    rows = ["teacher_1", "teacher_2", "ensemble", "cfl", "uhc", "muki_soft"]
    cells, page = made("muki/table6", "toy_entities", rows=rows, runs=6)
    assert "Metric: f1, percent, test split." in page
    assert (
        "toy_entities: backbone tiny; train 96 of 1,200; test 48 of 400" in page and "metric" not in page.split("##")[0]
    )
    for row, method in (("uhc", "uhc"), ("cfl", "cfl"), ("muki_soft", "muki"), ("ensemble", "ensemble")):
        (found,) = results(outputs, method, "toy_entities")
        assert cells[row, "toy_entities"]["ours"]["mean"] == pytest.approx(100 * found.metrics["test"]["f1"])


def test_a_table_of_texts_on_sentences_shows_their_metric(made):
    cells, page = made("muki/table2", "toy_entities", rows=["muki_hard", "muki_soft"], runs=2)
    assert set(cells) == {("muki_hard", "toy_entities"), ("muki_soft", "toy_entities")}
    assert "; metric f1" in page


def test_several_seeds_share_their_teachers_and_nothing_is_made_twice(made, outputs, capsys):
    words = ["muki/table6", "data=toy_entities", *QUICK[1:], f"outputs={outputs}", "--rows", "uhc,teacher_1"]
    made("muki/table6", "toy_entities", rows=["uhc", "teacher_1"], runs=2)
    teachers = sorted((outputs / "stages" / "teacher").glob("*/manifest.json"))
    assert main(["reproduce", *words, "seed=1,2"]) == 0
    page = capsys.readouterr().out
    assert "runs     3: 2 done, 1 to make" in page, "a teacher has one seed"
    assert sorted((outputs / "stages" / "teacher").glob("*/manifest.json")) == teachers
    assert main(["report", *words, "seed=1,2"]) == 0
    assert page.endswith(capsys.readouterr().out)
    assert main(["report", *words, "seed=1,2", "--json"]) == 0
    found = {cell["row"]: cell["ours"]["n"] for cell in json.loads(capsys.readouterr().out)}
    assert found == {"teacher_1": 1, "uhc": 2}


def test_a_table_of_mixed_teachers_made_by_workers(tmp_path):
    words = ["muki/table4", *QUICK, MIXED, "seed=1", "--rows", "dfa"]
    done = command(["reproduce", *words], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\| DFA .*\| other setting", done.stdout)


ROLES = ["reader=tiny", "resource=tiny_large"]


def test_kr2_table_1(made, outputs):
    rows = list(load("kr2/table1").rows)
    cells, page = made("kr2/table1", "toy_pos", *ROLES, rows=rows, runs=4)
    assert set(cells) == {(row, "toy_pos") for row in rows} and not any(cell["why"] for cell in cells.values())
    assert "## toy_pos (not in the paper)" in page and "reader=tiny resource=tiny_large" in page
    assert "- note: columns of ud_pos are trained on gold trees" in page
    assert "KReader2 is above KReader" in page
    made_with = {found.setting.backbone.split(" ")[0] for found in results(outputs, "finetune", "toy_pos")}
    assert made_with == {"tiny", "tiny_large"}, "the reader, and the resource in its place"
    assert len(results(outputs, "kr2", "toy_pos")) == 2


def test_kr2_table_2(made):
    rows = ["kreader", "layer_0", "layer_3", "layer_11", "average_all", "average_last_4", "trainable"]
    cells, page = made("kr2/table2", "toy_pos", *ROLES, rows=rows, runs=6)
    assert {row for (row, _), cell in cells.items() if cell["why"]} == {"layer_11"}, "the resource has 4 layers"
    assert "not run: KR2, layer 11: " in page


def test_kr2_table_3(made, outputs):
    rows = list(load("kr2/table3").rows)
    cells, page = made("kr2/table3", "toy_pos", *ROLES, rows=rows, runs=6)
    assert set(cells) == {(row, "toy_pos") for row in rows} and not any(cell["why"] for cell in cells.values())
    assert "KR2 (B-A) is above KD (B-A)" in page
    assert {found.setting.backbone.split(" ")[0] for found in results(outputs, "kd", "toy_pos")} == {
        "tiny",
        "tiny_large",
    }


def test_kr2_without_its_data_lists_what_was_not_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["report", "kr2/table1"]) == 0
    page = capsys.readouterr().out
    table = load("kr2/table1")
    blocks = page.split("\n## ")[1:]
    assert [block.splitlines()[0] for block in blocks] == [axis.label for axis in table.columns.values()]
    for block in blocks:
        assert block.count("| not run") == len(table.rows) == block.count("- not run: ")
