"""A published table as data: rows and columns as overrides, the published values, the paper's claims."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from kbench import registry
from kbench.errors import ConfigError, Problem

# a role in an override of a row, as in `backbone={reader}`
_ROLE = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Axis:
    """A row or a column: what it is called and which overrides make it.

    Attributes:
        one_seed: the paper's value is a single fixed run; so is ours.
        average: the mean of other columns: of those that `over` names, or of all.
        metric: of a column: the metric of the test split that it shows, such as `f1/de`; empty: the table's.
        roles: of a column: name of a part -> what plays it, such as reader -> xlmr_base; rows write `{reader}` for it.
        unlike_paper: of a column: our runs are never in the paper's setting, whatever is run.
    """

    label: str
    overrides: tuple[str, ...] = ()
    one_seed: bool = False
    average: bool = False
    roles: dict[str, str] = field(default_factory=dict)
    unlike_paper: bool = False
    metric: str = ""
    over: tuple[str, ...] = ()


@dataclass(frozen=True)
class Published:
    """A published value, in the table's unit; std None where the paper gives none."""

    mean: float
    std: float | None = None


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper: the row `better` lies above the row `than`."""

    says: str
    better: str
    than: str


@dataclass(frozen=True)
class Table:
    """One published table.

    Attributes:
        name: `paper/table`.
        metric: the metric of the test split that it shows, in percent.
        seeds: seeds of our runs.
        paper_seeds: runs behind a published mean.
        tolerance: largest difference, in points, that still counts as the same.
        published: row -> column -> value.
        absent: (row, column) that the paper leaves empty: there is no such run.
        claims: what the paper concludes.
        figure: name of the drawing, of kbench.figures, where it is a figure: then rows are the runs it needs.
        stated: what the paper's text states of a figure.
        note: what a reader of the numbers must know beside their setting.
    """

    name: str
    title: str
    cite: str
    metric: str
    seeds: tuple[int, ...]
    paper_seeds: int
    tolerance: float
    columns: dict[str, Axis]
    rows: dict[str, Axis]
    published: dict[str, dict[str, Published]]
    absent: frozenset[tuple[str, str]] = frozenset()
    claims: tuple[Claim, ...] = ()
    figure: str = ""
    stated: dict[str, Any] = field(default_factory=dict)
    note: str = ""

    def roles(self) -> list[str]:
        """The names of all roles, in the order of the columns."""
        return list(dict.fromkeys(role for axis in self.columns.values() for role in axis.roles))


def used_roles(overrides: Iterable[str]) -> set[str]:
    """The roles that overrides of rows name."""
    return {role for text in overrides for role in _ROLE.findall(text)}


def words(row: Axis, column: Axis, roles: Mapping[str, str]) -> list[str]:
    """The overrides that make a cell: the row's, its roles filled in, then the column's.

    Args:
        row, column: of the cell.
        roles: those that are not to be the column's own.
    """
    played = {**column.roles, **roles}
    made = [_ROLE.sub(lambda found: played[found[1]], text) for text in row.overrides]
    # a role may be a folder
    return [re.sub(r"^backbone=(.*/.*)", r"backbone.path=\1", text) for text in made] + list(column.overrides)


def load(name: str) -> Table:
    """Read `experiments/<name>.yaml`.

    Raises:
        ConfigError: there is no such table, or its file is inconsistent.
    """
    if name not in registry.tables():
        near = registry.near(name, registry.tables())
        raise ConfigError(Problem(name, f"no such table{near}", "kbench ls tables"))
    path = registry.experiments_root() / f"{name}.yaml"
    raw: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    table = Table(
        name=name,
        title=raw["title"],
        cite=raw["cite"],
        metric=raw["metric"],
        seeds=tuple(raw["seeds"]),
        paper_seeds=raw.get("paper_seeds", 1),
        tolerance=raw.get("tolerance", 0.0),
        columns={key: _axis(value) for key, value in raw["columns"].items()},
        rows={key: _axis(value) for key, value in raw["rows"].items()},
        published={
            row: {column: Published(**value) for column, value in cells.items() if value is not None}
            for row, cells in raw.get("published", {}).items()
        },
        absent=frozenset(
            (row, column)
            for row, cells in raw.get("published", {}).items()
            for column, value in cells.items()
            if value is None
        ),
        claims=tuple(Claim(**claim) for claim in raw.get("claims", ())),
        figure=raw.get("figure", ""),
        stated=raw.get("stated", {}),
        note=raw.get("note", ""),
    )
    named = {(row, column) for row, cells in table.published.items() for column in cells} | table.absent
    strange = [f"{row}/{column}" for row, column in named if row not in table.rows or column not in table.columns]
    strange += [name for axis in table.columns.values() for name in axis.over if name not in table.columns]
    strange += [row for claim in table.claims for row in (claim.better, claim.than) if row not in table.rows]
    if strange:
        raise ConfigError(Problem(str(path), f"names rows or columns it does not have: {', '.join(sorted(strange))}"))
    needed = sorted(used_roles(text for axis in table.rows.values() for text in axis.overrides))
    absent = [
        f"{column} has no {role}"
        for column, axis in table.columns.items()
        if not axis.average
        for role in needed
        if role not in axis.roles
    ]
    if absent:
        raise ConfigError(Problem(str(path), f"rows name roles that not every column has: {', '.join(absent)}"))
    return table


def _axis(raw: dict[str, Any]) -> Axis:
    lists = {name: tuple(raw.get(name, ())) for name in ("overrides", "over")}
    return Axis(**{**raw, **lists})
