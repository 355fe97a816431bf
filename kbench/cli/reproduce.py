"""`kbench reproduce`: make the runs of a published table that are missing, then show the table beside the paper's."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from kbench.cli import console
from kbench.errors import EXIT_FAILED, EXIT_INTERRUPTED
from kbench.runs.launch import launch
from kbench.tables import render
from kbench.tables.collect import Grid, grid
from kbench.tables.spec import load

EXAMPLES = """examples:
  kbench reproduce muki/table1
  kbench reproduce muki/table1 data=agnews data.train_size=1000 data.test_size=2000 backbone=minilm seed=1,2
  kbench reproduce muki/figure6 data=toy
  kbench reproduce kr2/table1 data=toy_pos reader=tiny resource=tiny_large
  kbench reproduce muki/table1 data=toy --rows supervised,ensemble,muki_soft"""


def run(argv: list[str]) -> int:
    """Make and show a table; gives the exit code: 1 where a run failed."""
    return both("reproduce", argv, make=True)


def both(verb: str, argv: list[str], make: bool) -> int:
    """`reproduce` and `report` are one thing but for the making."""
    what = (
        "make the missing runs of a published table or figure and show it"
        if make
        else "show a published table or figure from what is there"
    )
    parser = argparse.ArgumentParser(
        prog=f"kbench {verb}",
        description=f"{what[0].upper()}{what[1:]} beside the paper's.",
        epilog=EXAMPLES if make else EXAMPLES.replace("reproduce", "report"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("table", help="paper/table or paper/figure; kbench ls tables")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="for every run; seed=1,2 sets the seeds")
    parser.add_argument("--rows", default="", help="only these rows, separated by commas")
    parser.add_argument("--columns", default="", help="only these columns, separated by commas")
    parser.add_argument("--json", action="store_true", help="the cells, for a program")
    arguments = parser.parse_intermixed_args(argv)
    found = grid(load(arguments.table), arguments.overrides, _names(arguments.rows), _names(arguments.columns))
    code = _make(found, sys.stderr if arguments.json else sys.stdout) if make else 0
    found.collect()
    folder = _outputs(found) / "reports" / arguments.table.replace("/", "-")
    if found.table.figure:
        text, cells, paths = _figure(found, folder)
    else:
        paths = render.write(found, folder)
        text, cells = render.markdown(found), [vars(line) | _plain(line) for line in render.lines(found)]
    if arguments.json:
        console.as_json(cells)
        return code
    print(text)
    print("written  " + ", ".join(str(path) for path in paths))
    return code


def _make(found: Grid, out: object) -> int:
    """Run what is missing, one after another; a failed run does not stop the others."""
    points = [
        (row, column, seed, run, [*cell.overrides, f"seed={seed}"])
        for (row, column), cell in found.cells.items()
        for seed, run in cell.runs.items()
        if not run.done or run.config.force
    ]
    unique = {point[3].folder: point for point in points}
    total = sum(len(cell.runs) for cell in found.cells.values())
    print(f"runs     {total}: {total - len(points)} done, {len(points)} to make", file=out, flush=True)  # type: ignore[call-overload]
    code = 0
    for number, (row, column, seed, run, words) in enumerate(unique.values(), start=1):
        print(f"\nrun      {number}/{len(unique)}  {row}, {column}, seed {seed}", file=out, flush=True)  # type: ignore[call-overload]
        end = launch(run, words, console.note)
        if end.code == EXIT_INTERRUPTED:
            return end.code
        code = max(code, EXIT_FAILED if end.code else 0)
    return code


def _figure(found: Grid, folder: Path) -> tuple[str, list[dict[str, Any]], list[Path]]:
    """Draw a figure: its page, its facts for a program, the files written."""
    from kbench.figures import drawing
    from kbench.figures.draw import draw

    drawings = draw(found)
    facts = [
        {"column": column, "what": what, "ours": ours, "paper": paper}
        for column, one in drawings.items()
        for what, ours, paper in one.facts
    ]
    paths = drawing.write(found, drawings, folder)
    return drawing.markdown(found, drawings), facts, paths


def _outputs(found: Grid) -> Path:
    runs = [run for cell in found.cells.values() for run in cell.runs.values()]
    return Path(runs[0].config.outputs).expanduser() if runs else Path("outputs")


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _plain(line: render.Line) -> dict[str, object]:
    """Nested records of a line as plain values."""
    return {name: vars(getattr(line, name)) if getattr(line, name) else None for name in ("paper", "ours", "delta")}
