"""Which module draws a figure: `figure` of a table's YAML -> a function of the same name there."""

from __future__ import annotations

from importlib import import_module

from kbench import registry
from kbench.errors import ConfigError, Problem
from kbench.figures.drawing import Drawing
from kbench.tables.collect import Grid

# each module has FIGURES, name -> function of a grid and a column
MODULES = {
    "uncertainties": "muki",
    "supervision": "muki",
    "wrong_choices": "muki",
    "temperatures": "muki",
    "injection_targets": "trelm",
    "losses": "trelm",
    "progress": "trelm",
    "savings": "trelm",
    "theta": "trelm",
    "window": "trelm",
}


def draw(grid: Grid) -> dict[str, Drawing]:
    """The drawing of each column whose runs are there.

    Raises:
        ConfigError: nobody draws such a figure.
    """
    name = grid.table.figure
    if name not in MODULES:
        what = f"names a figure that nobody draws: {name}{registry.near(name, MODULES)}"
        raise ConfigError(Problem(grid.table.name, what, f"there are: {', '.join(MODULES)}"))
    make = import_module(f"kbench.figures.{MODULES[name]}").FIGURES[name]
    return {
        column: make(grid, column)
        for column, axis in grid.columns.items()
        if not axis.average
        and all(cell.runs and len(cell.results) == len(cell.runs) for (_, c), cell in grid.cells.items() if c == column)
    }
