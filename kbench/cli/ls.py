"""`kbench ls`: what there is."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from kbench import registry
from kbench.cli import console
from kbench.config.schema import GENERATED, JOINED

Rows = list[dict[str, Any]]


def run(argv: list[str]) -> int:
    """List components; gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="kbench ls",
        description="What there is.",
        epilog="examples:\n  kbench ls\n  kbench ls data\n  kbench ls tables --json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kind", nargs="?", choices=list(KINDS), help="what to list; nothing: the number of each")
    parser.add_argument("--json", action="store_true", help="for a program")
    arguments = parser.parse_args(argv)
    if arguments.kind is None:
        rows = [
            {"kind": kind, "number": str(len(names())), "names": ", ".join(names())}
            for kind, (names, _) in KINDS.items()
        ]
    else:
        rows = KINDS[arguments.kind][1]()
    if arguments.json:
        console.as_json(rows)
    else:
        head = list(rows[0])
        console.table(head, [[str(row[name]) for name in head] for row in rows])
    return 0


def read(group: str, name: str) -> dict[str, Any]:
    """A YAML of `conf/` as plain values with those of the files it is built upon; its own defaults list included."""
    found: dict[str, Any] = {}
    for path in [*parts(group, name), registry.conf_root() / group / f"{name}.yaml"]:
        _overlay(found, yaml.safe_load(path.read_text(encoding="utf-8")))
    return found


def _overlay(values: dict[str, Any], later: dict[str, Any]) -> None:
    for key, value in later.items():
        if isinstance(value, dict) and isinstance(values.get(key), dict):
            _overlay(values[key], value)
        else:
            values[key] = value


def parts(group: str, name: str) -> list[Path]:
    """The files that a YAML's defaults list builds upon, first the deepest: shared parts, and others of its group."""
    raw: dict[str, Any] = yaml.safe_load((registry.conf_root() / group / f"{name}.yaml").read_text(encoding="utf-8"))
    found: list[Path] = []
    for entry in raw.get("defaults", []):
        if isinstance(entry, str) and entry.startswith("/parts/"):
            found.append(registry.conf_root() / f"{entry.removeprefix('/').split('@')[0]}.yaml")
        elif isinstance(entry, str) and entry in registry.choices(group):
            found += [*parts(group, entry), registry.conf_root() / group / f"{entry}.yaml"]
    return found


def headline(group: str, name: str) -> str:
    """The first comment line of a YAML."""
    text = (registry.conf_root() / group / f"{name}.yaml").read_text(encoding="utf-8")
    return text.splitlines()[0].lstrip("# ").rstrip(".") if text.startswith("#") else ""


def _methods() -> Rows:
    rows = []
    for name in registry.choices("method"):
        method: Any = registry.load("method", name)
        module = inspect.getmodule(method)
        idea = (module.__doc__ or "").splitlines()[0].rstrip(".")
        rows.append({"method": name, "tasks": ", ".join(sorted(method.needs.tasks)), "idea": idea})
    return rows


def _data() -> Rows:
    rows = []
    for name in registry.choices("data"):
        data = read("data", name)
        several = data["treebanks"]
        size = several[data["lang"]]["rows"] if several else data["rows"]
        rows.append(
            {
                "data": name,
                "task": data["task"],
                "language": _languages(list(several or data["languages"])),
                "labels": len(data["labels"]),
                "train": size["train"],
                "test": size["test"],
                "from": _where(data),
            }
        )
    return rows


def _where(data: dict[str, Any]) -> str:
    if data["reader"] == JOINED:
        return "its parts"
    if data["reader"] in GENERATED[data["task"]]:
        return "generated"
    if data["reader"] == "xlr":
        return "its graph"
    return "hub or files" if data["hub"] else "files"


def _languages(codes: list[str]) -> str:
    return ", ".join(codes) if len(codes) <= 4 else f"{len(codes)} languages"


def _backbones() -> Rows:
    rows = []
    for name in registry.choices("backbone"):
        backbone = read("backbone", name)
        hub = backbone["hub"]
        place = (
            f"hub: {hub['id']}" if hub else backbone["install"] or ("built here" if backbone["tiny"] else "a folder")
        )
        rows.append({"backbone": name, "language": _languages(backbone["languages"]), "from": place})
    return rows


def _knowledge() -> Rows:
    rows = []
    for name in registry.choices("knowledge"):
        graph = read("knowledge", name)
        place = "files" if graph["files"] else "generated"
        languages = ", ".join(graph["languages"])
        rows.append({"knowledge": name, "languages": languages, "from": place, "what": headline("knowledge", name)})
    return rows


def _tables() -> Rows:
    rows = []
    for name in registry.tables():
        text = (registry.experiments_root() / f"{name}.yaml").read_text(encoding="utf-8")
        spec = yaml.safe_load(text)
        shape = "figure" if "figure" in spec else f"{len(spec['rows'])} x {len(spec['columns'])}"
        rows.append({"table": name, "rows x columns": shape, "title": spec["title"]})
    return rows


def _plain(group: str) -> Callable[[], Rows]:
    return lambda: [{group: name, "what": headline(group, name)} for name in registry.choices(group)]


def _names(group: str) -> Callable[[], tuple[str, ...]]:
    return lambda: registry.choices(group)


# kind -> its names, and its rows
KINDS: dict[str, tuple[Callable[[], tuple[str, ...]], Callable[[], Rows]]] = {
    "methods": (_names("method"), _methods),
    "data": (_names("data"), _data),
    "backbones": (_names("backbone"), _backbones),
    "knowledge": (_names("knowledge"), _knowledge),
    "tables": (registry.tables, _tables),
    "train": (_names("train"), _plain("train")),
    "hardware": (_names("hardware"), _plain("hardware")),
    "trackers": (_names("tracker"), _plain("tracker")),
}
