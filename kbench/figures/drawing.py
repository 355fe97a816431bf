"""What a figure is made of, and how it is written: numbers as CSV, a picture, and words that say what made both."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbench.files import write_atomically
from kbench.tables.collect import Grid
from kbench.tables.render import markdown_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# colours that stay apart in print and for the colour-blind (Okabe and Ito 2008)
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


@dataclass
class Drawing:
    """A figure of one data set.

    Attributes:
        tables: file name without ending -> (head, rows): the data of the figure.
        facts: (what, ours, what the paper states or an empty string), for the page.
        draw: puts the picture on a matplotlib figure.
        size: of the picture in inches.
    """

    tables: dict[str, tuple[Sequence[str], Sequence[Sequence[Any]]]]
    facts: list[tuple[str, str, str]]
    draw: Callable[[Figure], None]
    size: tuple[float, float] = (8.0, 3.2)
    notes: list[str] = field(default_factory=list)


def write(grid: Grid, drawings: dict[str, Drawing], folder: Path) -> list[Path]:
    """Write figure.md, and for each column its pictures (PNG, SVG) and CSV files."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "figure.md"]
    for column, drawing in drawings.items():
        for name, (head, rows) in drawing.tables.items():
            paths.append(folder / f"{column}-{name}.csv")
            write_atomically(paths[-1], _csv(head, rows))
        # a fixed salt and no date: the same numbers give the same file
        with rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "k"}):
            figure = Figure(figsize=drawing.size, layout="constrained")
            drawing.draw(figure)
            figure.suptitle(f"{grid.columns[column].label}: {_made_by(grid, column)}", fontsize=9)
            for kind, metadata in (("png", {}), ("svg", {"Date": None})):
                picture = io.BytesIO()
                figure.savefig(picture, format=kind, dpi=200, metadata=metadata)
                paths.append(folder / f"{column}.{kind}")
                write_atomically(paths[-1], picture.getvalue())
    write_atomically(paths[0], markdown(grid, drawings))
    return paths


def markdown(grid: Grid, drawings: dict[str, Drawing]) -> str:
    """The page of a figure: the setting, then for each column the picture and its numbers beside the paper's."""
    table = grid.table
    text = [f"# {table.name}: {table.title}", "", f"{table.cite}.", "", *(f"- {line}" for line in grid.setting())]
    for column, axis in grid.columns.items():
        text += ["", f"## {axis.label}", ""]
        if column not in drawings:
            whys = dict.fromkeys(cell.why or "not run" for (_, c), cell in grid.cells.items() if c == column)
            text += [f"- not drawn: {why}" for why in whys]
            continue
        drawing = drawings[column]
        text += [f"![{axis.label}]({column}.png)", ""]
        paper = "paper" if column in table.columns else "paper, on its own data"
        text += markdown_table(["", "ours", paper], [list(fact) for fact in drawing.facts])
        text += ["", *(f"- {note}" for note in drawing.notes)] if drawing.notes else []
    return "\n".join([*text, ""])


def _made_by(grid: Grid, column: str) -> str:
    """The setting in a picture's title: it is often all that travels with it."""
    results = [r for (_, c), cell in grid.cells.items() if c == column for r in cell.results.values()]
    parts = list(dict.fromkeys(part for result in results for part in result.setting.parts()))
    backbones = ", ".join(dict.fromkeys(result.setting.backbone for result in results))
    return "; ".join([backbones, *parts])


def _csv(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return out.getvalue()
