"""The tables of TRELM's paper on the toy world: every row that kbench has is made, the average is that printed."""

from __future__ import annotations

import json

import pytest

from kbench.cli.main import main
from kbench.tables.spec import load

from ..conftest import LINKED, QUICK

TABLES = {
    "table1": ("toy_lama", ["base=tiny"], 3),
    "table2": ("toy_lama", ["base=tiny"], 2),
    "table3": ("toy_inference", ["base=tiny"], 2),
    "table4": ("toy_typing", ["base=tiny", "bert=tiny"], 4),
    "table5": ("toy_tacred", ["base=tiny", "bert=tiny"], 4),
    "table6": ("toy_typing", ["base=tiny"], 4),
}
# the options of `method` are TRELM's: rows that have none are left as they are
FAST = [word for word in (*LINKED, *QUICK[1:]) if not word.startswith("teacher")]


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_made_on_the_toy_world(name, shared_outputs, capsys):
    data, roles, rows = TABLES[name]
    words = ["reproduce", f"trelm/{name}", f"data={data}", *roles, *FAST, "seed=1", f"outputs={shared_outputs}/{data}"]
    assert main([*words, "--json"]) == 0
    cells = json.loads(capsys.readouterr().out)
    made = [cell for cell in cells if cell["ours"]]
    columns = {cell["column"] for cell in cells}
    assert len(made) == rows * len(columns)
    assert all(0 <= cell["ours"]["mean"] <= 100 for cell in made)
    assert {cell["verdict"] for cell in made} == {"other setting"}


def test_the_average_of_glue_is_that_of_all_nine_numbers():
    """Facts, 4d: 86.4, 84.9, 86.3 and 86.7 follow from the printed rows."""
    table = load("trelm/table3")
    for cells in table.published.values():
        nine = [cells[column].mean for column, axis in table.columns.items() if not axis.average]
        assert len(nine) == 9 and round(sum(nine) / 9, 1) == cells["average"].mean
