"""A table beside the paper's as markdown, CSV and LaTeX. Every output holds the setting that made the numbers."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kbench.files import write_atomically
from kbench.tables.collect import Grid
from kbench.tables.spec import Published
from kbench.tables.statistics import Estimate, Verdict, claim, difference, estimate, verdict

_DEFINITIONS = (
    "Ours: mean and 95 % interval (Student's t) over n seeds. Difference: ours minus the paper's, with its 95 % "
    "interval (Welch). reproduced: the interval lies within the tolerance; above, below: it lies on one side of 0; "
    "within noise: it holds 0 but is wider than the tolerance; other setting: not the paper's data, backbone or "
    "recipe, so that the numbers do not compare and only the claims do."
)
_RIGHT_TEACHER = (
    " Right teacher: share of the student's training rows (of sentences: entity words) on which the most certain "
    "teacher is the one that knows the gold class."
)


@dataclass(frozen=True)
class Line:
    """One cell of the table as it is shown; a dash stands for what there is not."""

    column: str
    row: str
    label: str
    paper: Published | None
    ours: Estimate | None
    delta: Estimate | None
    verdict: str
    right_teacher: float | None
    why: str


def lines(grid: Grid) -> list[Line]:
    """Every cell, column by column, rows as printed."""
    table = grid.table
    found = []
    for column in grid.columns:
        for row, axis in grid.rows.items():
            values = list(grid.values(row, column).values())
            paper = table.published.get(row, {}).get(column)
            cell = grid.cells.get((row, column))
            delta = difference(values, paper, table.paper_seeds) if values and paper else None
            shares = [r.diagnostics.get("right_teacher_share") for r in cell.results.values()] if cell else []
            known = [share for share in shares if share is not None]
            found.append(
                Line(
                    column=column,
                    row=row,
                    label=axis.label,
                    paper=paper,
                    ours=estimate(values) if values else None,
                    delta=delta,
                    verdict=_word(grid, row, column, delta, bool(values)),
                    right_teacher=100 * sum(known) / len(known) if known else None,
                    why=cell.why if cell else "",
                )
            )
    return found


def claims(grid: Grid) -> list[tuple[str, str, str]]:
    """(claim, column, what our runs say) for every claim and column."""
    found = []
    for one in grid.table.claims:
        for column, axis in grid.columns.items():
            if one.better not in grid.rows or one.than not in grid.rows:
                continue
            fixed = grid.rows[one.than].one_seed
            outcome = claim(grid.values(one.better, column), grid.values(one.than, column), than_is_fixed=fixed)
            if outcome is None:
                continue
            delta, word = outcome
            found.append((one.says, axis.label, f"{word.value}: {_signed(delta)}"))
    return found


def markdown(grid: Grid) -> str:
    """The table as markdown: a head that names the setting, a block a column, the claims, the definitions."""
    table = grid.table
    text = [f"# {table.name}: {table.title}", "", f"{table.cite}.", f"Metric: {table.metric}, percent, test split.", ""]
    text += [f"- {line}" for line in _setting(grid)]
    cells = lines(grid)
    for column, axis in grid.columns.items():
        own = [line for line in cells if line.column == column]
        shares = any(line.right_teacher is not None for line in own)
        head = ["", "paper", "ours", "n", "difference", "verdict"] + (["right teacher"] if shares else [])
        rows = []
        for line in own:
            row = [line.label, _paper(line.paper), _estimate(line.ours), str(line.ours.n) if line.ours else "0"]
            row += [_signed(line.delta), line.verdict]
            if shares:
                row.append("-" if line.right_teacher is None else f"{line.right_teacher:.1f} %")
            rows.append(row)
        text += ["", f"## {axis.label}", "", *markdown_table(head, rows)]
        reasons = dict.fromkeys(f"{line.label}: {line.why}" for line in own if line.why)
        text += ["", *(f"- not run: {reason}" for reason in reasons)] if reasons else []
    found = claims(grid)
    if found:
        text += ["", "## The paper's claims, in our runs", ""]
        text += markdown_table(["claim", "data", "ours"], [list(row) for row in found])
    right = _RIGHT_TEACHER if any(line.right_teacher is not None for line in cells) else ""
    text += ["", f"{_DEFINITIONS}{right} Tolerance: {table.tolerance} points.", ""]
    return "\n".join(text)


def as_csv(grid: Grid) -> str:
    """The cells as CSV, one a line, full precision."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    head = ["column", "row", "paper_mean", "paper_std", "ours_mean", "ours_half_interval", "n", "difference"]
    writer.writerow([*head, "difference_half_interval", "verdict", "right_teacher_percent", "setting"])
    setting = " | ".join(_setting(grid))
    for line in lines(grid):
        paper, ours, delta = line.paper, line.ours, line.delta
        writer.writerow(
            [
                line.column,
                line.row,
                *((paper.mean, paper.std) if paper else ("", "")),
                *((ours.mean, ours.half, ours.n) if ours else ("", "", 0)),
                *((delta.mean, delta.half) if delta else ("", "")),
                line.verdict,
                "" if line.right_teacher is None else line.right_teacher,
                setting,
            ]
        )
    return out.getvalue()


def runs_csv(grid: Grid) -> str:
    """Every run behind the table, one a line."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["row", "column", "seed", "metric", "value", "backbone", "train_rows", "test_rows", "folder"])
    for (row, column), cell in grid.cells.items():
        for seed, result in cell.results.items():
            # its language may not have been tested, and a probe has nothing to train on
            setting, value = result.setting, result.metrics["test"].get(cell.metric, "")
            sizes = setting.rows.get("train", 0), setting.rows["test"]
            folder = str(cell.runs[seed].folder)
            writer.writerow([row, column, seed, cell.metric, value, setting.backbone, *sizes, folder])
    return out.getvalue()


def latex(grid: Grid) -> str:
    """A document that compiles alone: rows as printed; ours and, in small, the paper's."""
    cells = {(line.row, line.column): line for line in lines(grid)}
    columns = list(grid.columns)
    caption = f"{grid.table.title}: ours (mean and 95 % interval) over the paper's. {'; '.join(_setting(grid))}"
    text = [
        r"\documentclass{article}",
        r"\usepackage{booktabs}",
        r"\begin{document}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_tex(caption)}}}",
        rf"\begin{{tabular}}{{l{'c' * len(columns)}}}",
        r"\toprule",
        " & ".join(["", *(_tex(grid.columns[column].label) for column in columns)]) + r" \\",
        r"\midrule",
    ]
    for row, axis in grid.rows.items():
        ours = [_tex_estimate(cells[row, column].ours) for column in columns]
        paper = [rf"{{\small {_paper(cells[row, column].paper)}}}".replace("±", r"$\pm$") for column in columns]
        text.append(" & ".join([_tex(axis.label), *ours]) + r" \\")
        text.append(" & ".join([r"{\small paper}", *paper]) + r" \\")
    text += [r"\bottomrule", r"\end{tabular}", r"\end{table}", r"\end{document}", ""]
    return "\n".join(text)


def write(grid: Grid, folder: Path) -> list[Path]:
    """Write table.md, table.csv, table.tex and runs.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        "table.md": markdown(grid),
        "table.csv": as_csv(grid),
        "table.tex": latex(grid),
        "runs.csv": runs_csv(grid),
    }
    for name, text in contents.items():
        write_atomically(folder / name, text)
    return [folder / name for name in contents]


def _setting(grid: Grid) -> list[str]:
    """What made the numbers, and the table's note on them."""
    return [*grid.setting(), *([f"note: {grid.table.note}"] if grid.table.note else [])]


def _word(grid: Grid, row: str, column: str, delta: Estimate | None, has_values: bool) -> str:
    if not has_values:
        return Verdict.not_run.value
    if not grid.paper_setting(row, column):
        return Verdict.other_setting.value
    if delta is None:
        return Verdict.no_value.value
    return verdict(delta, grid.table.tolerance).value


def _paper(value: Published | None) -> str:
    if value is None:
        return "-"
    return f"{float(value.mean)}" + (f" ± {value.std:.2f}" if value.std else "")


def _estimate(value: Estimate | None) -> str:
    if value is None:
        return "-"
    return f"{value.mean:.2f}" + ("" if value.half is None else f" ± {value.half:.2f}")


def _signed(value: Estimate | None) -> str:
    if value is None:
        return "-"
    interval = "" if value.half is None else f" [{value.low:+.2f}, {value.high:+.2f}]"
    return f"{value.mean:+.2f}{interval}"


def _tex_estimate(value: Estimate | None) -> str:
    return "--" if value is None else _estimate(value).replace("±", r"$\pm$")


def _tex(text: str) -> str:
    for letter in "&%$#_{}":
        text = text.replace(letter, "\\" + letter)
    return text


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a markdown table, columns aligned."""
    widths = [max(len(cell) for cell in column) for column in zip(head, *rows, strict=True)]

    def text(row: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"

    return [text(head), "|" + "|".join("-" * (width + 2) for width in widths) + "|", *map(text, rows)]
