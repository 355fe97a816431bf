"""From a published table to our runs and their results."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from kbench import registry
from kbench.config.compose import compose, sweep_values
from kbench.config.schema import Config
from kbench.errors import ConfigError, Problem, UserError
from kbench.runs.prepare import Run, config_hash, prepare
from kbench.runs.result import Result
from kbench.tables.spec import Axis, Table, used_roles, words


@dataclass
class Cell:
    """One cell: the runs behind it, or why there are none.

    Attributes:
        runs: by seed.
        overrides: those that make them, but for the seed.
        why: why nothing can be run; empty otherwise.
        paper_setting: whether the configuration is the table's own, nothing overridden, and that is the paper's.
        metric: what is shown: the table's, or the main one of data that do not have it.
        results: by seed, of the runs that are done.
    """

    runs: dict[int, Run] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    why: str = ""
    paper_setting: bool = True
    metric: str = ""
    results: dict[int, Result] = field(default_factory=dict)

    def values(self) -> dict[int, float]:
        """The metric of the test split by seed, in percent; none where its language was not tested."""
        measured = {seed: result.metrics["test"].get(self.metric) for seed, result in self.results.items()}
        return {seed: 100 * value for seed, value in measured.items() if value is not None}


@dataclass
class Grid:
    """A table's cells under some overrides.

    Attributes:
        table: the published table.
        columns: the columns shown; one that the paper does not have where `data=` names other data.
        cells: (row, column) -> cell; averages have none.
        overrides: what was overridden for every cell.
    """

    table: Table
    columns: dict[str, Axis]
    rows: dict[str, Axis]
    cells: dict[tuple[str, str], Cell]
    overrides: tuple[str, ...]

    def collect(self) -> None:
        """Read the results that are there."""
        for cell in self.cells.values():
            for seed, run in cell.runs.items():
                if run.done:
                    cell.results[seed] = Result.load(run.folder)

    def values(self, row: str, column: str) -> dict[int, float]:
        """Values by seed, in percent; an average where every column it is over has the seed."""
        if not self.columns[column].average:
            return self.cells[row, column].values()
        names = self.averaged(column)
        if set(self.columns[column].over) - set(names):
            return {}  # some are not shown: it would be over others than its name says
        found = [self.cells[row, name].values() for name in names]
        seeds = set.intersection(*(set(values) for values in found)) if len(found) > 1 else set()
        return {seed: math.fsum(values[seed] for values in found) / len(found) for seed in sorted(seeds)}

    def averaged(self, column: str) -> list[str]:
        """The shown columns that an average is over."""
        over = self.columns[column].over
        return [n for n, axis in self.columns.items() if not axis.average and (not over or n in over)]

    def paper_setting(self, row: str, column: str) -> bool:
        """Whether a cell's runs are the paper's: its configuration, on the complete data."""
        names = self.averaged(column) if self.columns[column].average else [column]
        cells = [self.cells[row, name] for name in names]
        return all(
            cell.paper_setting and not any(result.setting.parts() for result in cell.results.values()) for cell in cells
        )

    def setting(self) -> list[str]:
        """Lines that say what made the numbers: overrides, backbones, and parts of data sets."""
        results = [result for cell in self.cells.values() for result in cell.results.values()]
        lines = [f"overridden: {' '.join(self.overrides)}"] if self.overrides else []
        for data in sorted({result.setting.data for result in results}):
            of_data = [result for result in results if result.setting.data == data]
            backbones = ", ".join(sorted({result.setting.backbone for result in of_data}))
            parts = list(dict.fromkeys(part for result in of_data for part in result.setting.parts()))
            rows = [{s: n for s, n in r.setting.rows.items() if s != "validation"} for r in of_data]
            complete = [f"complete ({', '.join(f'{n:,} {split}' for split, n in one.items())})" for one in rows]
            sizes = "; ".join(parts or dict.fromkeys(complete))  # several: languages of one data set
            cells = [c for c in self.cells.values() if any(r.setting.data == data for r in c.results.values())]
            shown = {c.metric.partition("/")[0] for c in cells}
            other = f"; metric {', '.join(sorted(shown))}" if shown != {self.table.metric} else ""
            lines.append(f"{data}: backbone {backbones}; {sizes}{other}")
        return lines


def grid(table: Table, overrides: Sequence[str], rows: Sequence[str] = (), columns: Sequence[str] = ()) -> Grid:
    """The cells of a table under a user's overrides.

    `seed=1,2` sets the seeds; `data=` keeps the columns of that data, or makes one where the paper has none; the name
    of a role, as `reader=tiny`, says what plays it in every column.

    Args:
        table: the published table.
        overrides: Hydra overrides for every cell; they win over the table's own.
        rows, columns: those to keep; all unless given.

    Raises:
        ConfigError: an override is wrong, or a name is unknown.
    """
    seeds = list(table.seeds)
    data, common = None, []
    roles: dict[str, str] = {}
    for text in overrides:
        key, _, value = text.partition("=")
        if key == "seed":
            seeds = _seeds(text)
        elif key == "data":
            data = value
        elif key in table.roles():
            roles[key] = value
        else:
            common.append(text)
    problems = [
        Problem(f"{kind} {name}", f"no such {kind}{registry.near(name, known)}", f"there are: {', '.join(known)}")
        for kind, names, known in (("row", rows, table.rows), ("column", columns, table.columns))
        for name in names
        if name not in known
    ]
    if problems:
        raise ConfigError(*problems)
    chosen_rows = {name: axis for name, axis in table.rows.items() if not rows or name in rows}
    chosen = {name: axis for name, axis in table.columns.items() if not columns or name in columns}
    _refuse_unread(common, chosen_rows)
    _refuse_unmeant(common, table, chosen_rows)
    origin = {name: name for name, axis in chosen.items() if not _overridden(axis, common)}
    if data is not None:
        used = used_roles(text for axis in chosen_rows.values() for text in axis.overrides)
        ungiven = [role for role in table.roles() if role in used and role not in roles]
        chosen, origin = _on_data(chosen, data, common, ungiven)
    cells: dict[tuple[str, str], Cell] = {}
    refused: list[ConfigError] = []
    for column, column_axis in chosen.items():
        if column_axis.average:
            continue
        in_paper = column in table.columns and not column_axis.unlike_paper
        for row, row_axis in chosen_rows.items():
            if (row, origin.get(column)) in table.absent:
                cells[row, column] = Cell(why="the paper leaves it empty")
                continue
            own, given = words(row_axis, column_axis, {}), words(row_axis, column_axis, roles)
            wanted = seeds[:1] if row_axis.one_seed else seeds
            try:
                metric = column_axis.metric or table.metric
                cells[row, column] = _cell(own, given, common, wanted, in_paper, metric)
            except ConfigError as error:
                refused.append(error)
                first = error.problems[0]
                cells[row, column] = Cell(why=f"{first.where} {first.what}")
    if refused and not any(cell.overrides for cell in cells.values()):
        raise refused[0]  # a mistake in what was asked, not one cell that does not fit
    return Grid(table, chosen, chosen_rows, cells, tuple(overrides))


def _on_data(
    columns: dict[str, Axis], data: str, common: list[str], roles: Sequence[str]
) -> tuple[dict[str, Axis], dict[str, str]]:
    """The columns of some data, and the paper's column that each comes from.

    Those of that data stay where `common` says nothing else of them. Where none does, and where the paper has none of
    that data, columns that then say the same are one: settings that `common` does not override stay, such as the number
    of teachers, and those of a column's own data go with it.

    Args:
        columns: the paper's.
        data: the data.
        common: a user's overrides.
        roles: those that some row names and the user did not give.

    Raises:
        ConfigError: columns that would be one differ in such a role.
    """
    matching = {name: axis for name, axis in columns.items() if f"data={data}" in axis.overrides}
    same = {name: axis for name, axis in matching.items() if not _overridden(axis, common)}
    if same:
        return same, {name: name for name in same}
    said = {_key(text) for text in common} | {"data"}
    plain = [axis for axis in columns.values() if not axis.average]
    # columns that are metrics of one data set, precision and recall, are so on other data, too
    one_set = len({text for axis in plain for text in axis.overrides if _key(text) == "data"}) == 1
    metrics = {axis.metric for axis in plain}
    by_metric = one_set and len(metrics) > 1 and not any("/" in metric for metric in metrics)
    groups: dict[tuple[tuple[str, ...], str], list[str]] = {}
    for name, axis in (matching or columns).items():
        others = [text for text in axis.overrides if _key(text) not in said]
        if not matching:
            others = [text for text in others if not text.startswith("data.")]
        if not axis.average:
            groups.setdefault((tuple(others), axis.metric if by_metric else ""), []).append(name)
    made: dict[str, Axis] = {}
    origin: dict[str, str] = {}
    for (settings, metric), names in groups.items():
        first = columns[names[0]]
        if matching and len(names) == 1:
            made[names[0]] = first
            continue
        differing = [role for role in roles if len({columns[name].roles[role] for name in names}) > 1]
        if differing:
            what = f"is one column, and the paper's columns differ in {' and '.join(differing)}"
            raise ConfigError(Problem(f"data={data}", what, f"give {' '.join(f'{role}=...' for role in differing)}"))
        own = f"{data}_{names[0]}" if settings or metric else data
        label = f"{first.label}: {data}" if settings or metric else data
        made[own] = Axis(f"{label} (not in the paper)", (f"data={data}", *settings), roles=first.roles, metric=metric)
        if not _overridden(first, common):
            origin[own] = names[0]
    return made, origin


def _overridden(axis: Axis, common: list[str]) -> bool:
    """Whether a user's override changes what makes a column."""
    own = {_key(text): text for text in axis.overrides}
    return any(text.lstrip("+") != own.get(_key(text), text.lstrip("+")) for text in common)


def _key(text: str) -> str:
    return text.split("=", 1)[0].lstrip("+")


def _refuse_unread(common: list[str], rows: dict[str, Axis]) -> None:
    """An option that no row's method has would be dropped everywhere: that is a mistake."""
    methods = {_method(axis.overrides) for axis in rows.values()} & set(registry.choices("method"))
    names = sorted({name for method in methods for name in _options(method)})
    problems = [
        Problem(_key(text), f"no row has such an option{registry.near(_key(text).split('.')[1], names)}")
        for text in common
        if _key(text).startswith("method.") and _key(text).split(".")[1] not in names
    ]
    if problems:
        raise ConfigError(*problems)


def _refuse_unmeant(common: list[str], table: Table, rows: dict[str, Axis]) -> None:
    """A mistyped role, and an override that would put one thing in the place of every role."""
    roles = table.roles()
    known = {f.name for f in dataclasses.fields(Config)}
    problems = []
    for text in common:
        key = _key(text)
        near = registry.near(key, roles)
        if key.isidentifier() and key not in known and near:
            problems.append(Problem(key, f"no such key{near}", f"roles of {table.name}: {', '.join(roles)}"))
        group = "backbone" if key == "backbone.path" else key
        played = used_roles(one for axis in rows.values() for one in axis.overrides if _key(one) == group)
        if played:
            hint = f"give {' '.join(f'{role}=...' for role in roles if role in played)}"
            problems.append(Problem(text, "would be the same in rows that differ in it", hint))
    if problems:
        raise ConfigError(*problems)


def _method(overrides: Sequence[str]) -> str:
    return next(text.split("=", 1)[1] for text in overrides if text.startswith("method="))


def _options(method: str) -> set[str]:
    return {f.name for f in dataclasses.fields(registry.load("method", method).Config)}  # type: ignore[attr-defined]


def _cell(own: list[str], given: list[str], common: list[str], seeds: list[int], in_paper: bool, metric: str) -> Cell:
    """The cell that `given` makes under a user's overrides; `own` makes the paper's."""
    method = _method(own)
    if method not in registry.choices("method"):
        return Cell(why=f"kbench has no method {method}")
    asked = [*given, *_fitting(common, method)]
    config = compose(asked)
    # weights from elsewhere may be anything, whatever the backbone is called; so may other files of a data set
    elsewhere = config.backbone.path is not None or getattr(config.method, "models", None) is not None
    elsewhere = elsewhere or any(_key(text).startswith("data.files") for text in common)
    paper = (
        in_paper
        and not elsewhere
        and given == own
        and (asked == own or config_hash(config) == config_hash(compose(own)))
    )
    try:
        run = prepare(config)
    except UserError as error:
        first = error.problems[0]
        return Cell(why=f"{first.where} {first.what}", paper_setting=paper)
    # `f1/de` is the metric f1 of one language
    shown = metric if metric.partition("/")[0] in config.data.metrics else config.data.metrics[0]
    return Cell({seed: run.with_seed(seed) for seed in seeds}, tuple(asked), paper_setting=paper, metric=shown)


def _fitting(common: list[str], method: str) -> list[str]:
    """The overrides that apply to a row: `method.tau=` concerns the rows whose method has it."""
    names = _options(method)
    return [t for t in common if not _key(t).startswith("method.") or _key(t).split(".")[1] in names]


def _seeds(text: str) -> list[int]:
    """The seeds of `seed=1,2,3` or `seed=range(1,4)`."""
    found = sweep_values(text)
    if not all(isinstance(value, int) for value in found):
        raise ConfigError(Problem(text, "seeds are whole numbers"))
    return found
