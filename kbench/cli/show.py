"""`kbench show`: one component in full, with the source of each value."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import typing
from typing import Any

from kbench import registry
from kbench.cli import console
from kbench.cli.ls import KINDS, parts, read
from kbench.config import schema
from kbench.config.keys import HELP
from kbench.engine.recipe import Recipe
from kbench.errors import ConfigError, Problem

_SCHEMAS: dict[str, type] = {
    "data": schema.Data,
    "backbone": schema.Backbone,
    "knowledge": schema.Knowledge,
    "train": Recipe,
    "hardware": schema.Hardware,
    "tracker": schema.Tracker,
}


def run(argv: list[str]) -> int:
    """Show a component; gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="kbench show",
        description="One component in full: idea, options with their help, values with their source.",
        epilog="examples:\n  kbench show method muki\n  kbench show data agnews\n  kbench show table muki/table1",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kind", choices=[*registry.GROUPS, "table"])
    parser.add_argument("name")
    parser.add_argument("--json", action="store_true", help="values only, for a program")
    arguments = parser.parse_args(argv)
    names = registry.tables() if arguments.kind == "table" else registry.choices(arguments.kind)
    if arguments.name not in names:
        listing = f"kbench ls {_plural(arguments.kind)}"
        what = f"no such {registry.GROUPS.get(arguments.kind, 'table')}{registry.near(arguments.name, names)}"
        raise ConfigError(Problem(f"{arguments.kind} {arguments.name}", what, listing))
    if arguments.kind == "table":
        return _file(registry.experiments_root() / f"{arguments.name}.yaml", arguments.json)
    if arguments.json:
        console.as_json(read(arguments.kind, arguments.name))
        return 0
    node = _SCHEMAS.get(arguments.kind)
    if arguments.kind == "method":
        method: Any = registry.load("method", arguments.name)
        print(inspect.getdoc(inspect.getmodule(method)), "\n")
        node = method.Config
    assert node is not None
    print("options")
    console.table(["key", "what it does"], list(_options(node, f"{arguments.kind}.")), indent="  ")
    print(f"\nconf/{arguments.kind}/{arguments.name}.yaml")
    print(_text(arguments.kind, arguments.name))
    return 0


def _plural(kind: str) -> str:
    return next(k for k in KINDS if k.rstrip("s") == kind or k == kind)


def _options(node: type, prefix: str) -> list[list[str]]:
    """Key and help of every field of a schema, nodes inside it included."""
    rows = []
    hints = typing.get_type_hints(node)
    for field in dataclasses.fields(node):
        inner = [t for t in (hints[field.name], *typing.get_args(hints[field.name])) if dataclasses.is_dataclass(t)]
        rows.append([prefix + field.name, str(field.metadata[HELP])])
        for kind in inner:
            rows += _options(typing.cast(type, kind), f"{prefix}{field.name}.")
    return rows


def _text(group: str, name: str) -> str:
    """A YAML with its comments, followed by the parts its defaults list names."""
    path = registry.conf_root() / group / f"{name}.yaml"
    text = path.read_text(encoding="utf-8").rstrip()
    for part in parts(group, name):
        text += f"\n\nconf/{part.relative_to(registry.conf_root())}\n{part.read_text(encoding='utf-8').rstrip()}"
    return "\n".join("  " + line if line else "" for line in text.splitlines())


def _file(path: Any, as_json: bool) -> int:
    if as_json:
        import yaml

        console.as_json(yaml.safe_load(path.read_text(encoding="utf-8")))
    else:
        print(path.read_text(encoding="utf-8").rstrip())
    return 0
