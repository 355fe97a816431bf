"""Names to components, without importing them.

A component is a YAML in `conf/<group>/`. A method is also a file of the same name in `kbench/methods/` whose class is
the name in CamelCase (`vanilla_kd.py` holds `VanillaKd`); a task likewise in `kbench/tasks/`. Nothing is registered by
hand.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from pathlib import Path

from kbench.errors import ConfigError, Problem

# group of conf/ -> the word used for its members
GROUPS = {
    "method": "method",
    "data": "data set",
    "backbone": "backbone",
    "knowledge": "knowledge graph",
    "train": "training recipe",
    "hardware": "hardware",
    "tracker": "tracker",
}
_PACKAGES = {"method": "kbench.methods", "task": "kbench.tasks"}


def conf_root() -> Path:
    """The folder of the configuration values, in the repository or in the installed package."""
    return Path(str(files("kbench.conf")))


def experiments_root() -> Path:
    """The folder of the published tables."""
    return Path(str(files("kbench.experiments")))


@cache
def choices(group: str) -> tuple[str, ...]:
    """The names that a group of `conf/` offers, sorted."""
    return tuple(sorted(path.stem for path in (conf_root() / group).glob("*.yaml")))


@cache
def tables() -> tuple[str, ...]:
    """The published tables, as `paper/table`."""
    root = experiments_root()
    return tuple(sorted(str(path.relative_to(root).with_suffix("")) for path in root.glob("*/*.yaml")))


def near(name: str, names: Iterable[str]) -> str:
    """`; did you mean X?` for the nearest of `names`, or nothing where none is near.

    A dotted key is compared with its siblings, then by its last part with all: `tau` finds `method.tau`.
    """
    names = list(names)
    parent, _, last = name.rpartition(".")
    siblings = {n.rpartition(".")[2]: n for n in names if n.rpartition(".")[0] == parent}
    ends = {n.rpartition(".")[2]: n for n in reversed(names)}
    for candidates in (siblings, ends):
        found = difflib.get_close_matches(last, candidates, n=1, cutoff=0.6)
        if found and (candidates is siblings or found[0] == last):
            return f"; did you mean {candidates[found[0]]}?"
    return ""


def load(kind: str, name: str) -> type:
    """The class of a method or task.

    Raises:
        ConfigError: no file of that name, or the file does not hold the class.
    """
    package = _PACKAGES[kind]
    class_name = "".join(part.capitalize() for part in name.split("_"))
    try:
        module = importlib.import_module(f"{package}.{name}")
        found = getattr(module, class_name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise ConfigError(
            Problem(f"{kind}={name}", f"{package}.{name} does not hold {class_name}", str(error))
        ) from error
    if not isinstance(found, type):
        raise ConfigError(Problem(f"{kind}={name}", f"{package}.{name}.{class_name} is no class"))
    return found
