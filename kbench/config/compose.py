"""Hydra's part: from overrides to checked configurations. The only module that imports hydra.

`check` finds every mistake of an override list before anything runs and says all of them at once; `hydra_main` then
hands the same words to Hydra, so `-m`, `--cfg job`, `--info`, launchers and completion behave as Hydra documents them.
"""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_module, main
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from kbench import registry
from kbench.config import strict
from kbench.config.schema import Config
from kbench.errors import ConfigError, Problem
from kbench.files import write_atomically

CONFIG_MODULE = "kbench.conf"
_VERSION_BASE = "1.3"


def register() -> None:
    """Put the schemas into Hydra's store: the root, and each method's own."""
    store = ConfigStore.instance()
    store.store(group="schema", name="config", node=Config)
    for name in registry.choices("method"):
        store.store(group="schema/method", name=name, node=registry.load("method", name).Config)  # type: ignore[attr-defined]


def flags(argv: list[str]) -> Any:
    """Hydra's own reading of a command line: `.overrides`, `.multirun`, `.cfg`, `.info`, ..."""
    return get_args_parser().parse_args(argv)


def compose(overrides: list[str], config_dir: str | None = None) -> Config:
    """One typed, checked configuration.

    Raises:
        ConfigError: with every problem found.
    """
    return check(overrides, sweep=False, config_dir=config_dir)[0][1]


def check(overrides: list[str], *, sweep: bool, config_dir: str | None = None) -> list[tuple[list[str], Config]]:
    """The points of an override list, each with its typed configuration.

    Args:
        overrides: Hydra overrides, as on the command line.
        sweep: whether commas and ranges make several points (`-m`).
        config_dir: a further folder of configuration groups (`--config-dir`).

    Raises:
        ConfigError: with every problem of every override and point.
    """
    with _loader(config_dir) as extra:
        parsed, problems = _parse(overrides, sweep)
        values = [o for o in parsed if not _is_group(o) and not _is_hydra(o)]
        extra += [str(o.input_line) for o in parsed if _is_hydra(o) and not o.is_sweep_override()]
        groups = []
        for override in filter(_is_group, parsed):
            wrong = _choice_problems(override, config_dir)
            problems += wrong
            if not wrong:
                groups.append(override)
        points: list[tuple[list[str], DictConfig]] = []
        for choice in itertools.product(*map(_expand, groups)):
            base = _compose_base([*choice, *extra]) if extra else _packaged(tuple(choice))
            known = strict.flat_keys(base)
            texts: list[list[str]] = []
            for override in values:
                texts.append([])
                for text in _expand(override):
                    problem = _value_problem(base, known, text)
                    if problem is None:
                        texts[-1].append(text)
                    elif problem not in problems:
                        problems.append(problem)
            for point in itertools.product(*filter(None, texts)):  # the rest is checked without what was refused
                config = base.copy()
                for text in point:
                    _apply(config, text)
                points.append(([*choice, *point], config))
        checked = []
        for words, config in points:
            try:
                checked.append((words, typed(config)))
            except ConfigError as error:
                problems += [p for p in error.problems if p not in problems]
        if problems:
            raise ConfigError(*problems)
        return checked


def typed(config: DictConfig) -> Config:
    """A composed configuration as typed objects, after every check.

    Raises:
        ConfigError: unknown keys, absent values, broken interpolations, broken rules, a method that does not fit.
    """
    config = config.copy()
    OmegaConf.set_struct(config, False)
    config.pop("hydra", None)
    problems = strict.unknown_keys(config)
    if problems:
        raise ConfigError(*problems)
    try:
        problems = strict.missing_values(config)
        if problems:
            raise ConfigError(*problems)
        OmegaConf.resolve(config)
        objects = OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        raise ConfigError(Problem(str(error.full_key or ""), _first_line(error))) from error
    assert isinstance(objects, Config)
    problems = strict.rules(objects)
    if problems:
        raise ConfigError(*problems)
    return objects


def save(config: Config, path: Path) -> None:
    """Write a configuration as YAML, complete and resolved."""
    write_atomically(path, OmegaConf.to_yaml(OmegaConf.structured(config)))


def load(path: Path) -> Config:
    """Read a configuration that `save` wrote; types are checked again.

    Raises:
        ConfigError: the file was edited into something that is no configuration.
    """
    try:
        raw = OmegaConf.load(path)
        assert isinstance(raw, DictConfig)
        schema = OmegaConf.structured(Config)
        schema.method = OmegaConf.structured(registry.load("method", raw.method.name).Config)  # type: ignore[attr-defined]
        merged = OmegaConf.merge(schema, raw)
    except (OmegaConfBaseException, yaml.YAMLError, AssertionError) as error:
        raise ConfigError(Problem(str(path), f"is no configuration of kbench: {_first_line(error)}")) from error
    assert isinstance(merged, DictConfig)
    return typed(merged)


def job_overrides() -> list[str]:
    """The overrides of the job that Hydra is running."""
    return list(HydraConfig.get().overrides.task)


def hydra_main(job: Callable[[DictConfig], Any], argv: list[str]) -> None:
    """Hand a command line to Hydra. `job` gets each composed configuration."""
    register()
    decorated = main(version_base=_VERSION_BASE, config_path=f"pkg://{CONFIG_MODULE}", config_name="config")(job)
    before, sys.argv = sys.argv, ["kbench", *argv]
    try:
        decorated()
    finally:
        sys.argv = before


@contextmanager
def _loader(config_dir: str | None) -> Iterator[list[str]]:
    """Hydra's configuration loader, initialised; gives the overrides that add `config_dir`."""
    register()
    GlobalHydra.instance().clear()
    if config_dir is not None and not Path(config_dir).is_dir():
        raise ConfigError(Problem(f"--config-dir {config_dir}", "there is no such folder"))
    with initialize_config_module(version_base=_VERSION_BASE, config_module=CONFIG_MODULE):
        yield [] if config_dir is None else [f"hydra.searchpath=[file://{Path(config_dir).resolve()}]"]


def _parse(overrides: list[str], sweep: bool) -> tuple[list[Override], list[Problem]]:
    loader = GlobalHydra.instance().config_loader() if GlobalHydra.instance().is_initialized() else None
    parser = OverridesParser.create(config_loader=loader)
    parsed, problems = [], []
    for text in overrides:
        try:
            (override,) = parser.parse_overrides([text])
            _expand(override)
        except HydraException as error:
            problems.append(Problem(text, f"is no override: {_first_line(error)}", "write key=value"))
            continue
        if override.type == OverrideType.DEL:
            problems.append(Problem(text, "a key cannot be removed", "set it to null where the schema allows it"))
        elif override.type == OverrideType.ADD and override.key_or_group in registry.GROUPS:
            problems.append(Problem(text, "is there already", f"write {text.lstrip('+')}"))
        elif override.is_sweep_override() and not sweep:
            problems.append(Problem(text, "names several values", "a sweep needs -m: kbench -m " + text))
        else:
            parsed.append(override)
    return parsed, problems


def _is_hydra(override: Override) -> bool:
    return override.key_or_group.split(".")[0].split("/")[0] == "hydra"


def _is_group(override: Override) -> bool:
    return override.key_or_group in registry.GROUPS and not _is_hydra(override)


def _expand(override: Override) -> list[str]:
    """The override as one text a value."""
    if not override.is_sweep_override():
        assert override.input_line is not None
        return [override.input_line]
    key = override.get_key_element()
    return [f"{key}={value}" for value in override.sweep_string_iterator()]


def _choice_problems(override: Override, config_dir: str | None) -> list[Problem]:
    group = override.key_or_group
    options = list(registry.choices(group))
    if config_dir is not None:
        options += sorted(path.stem for path in (Path(config_dir) / group).glob("*.yaml"))
    problems = []
    for text in _expand(override):
        name = text.split("=", 1)[1]
        if name not in options:
            noun = registry.GROUPS[group]
            problems.append(
                Problem(
                    f"{group}={name}",
                    f"no such {noun}{registry.near(name, options)}",
                    f"there are: {', '.join(options)}",
                )
            )
    return problems


def _compose_base(groups: list[str]) -> DictConfig:
    try:
        return hydra_compose("config", [g.lstrip("+") for g in groups])
    except HydraException as error:
        raise ConfigError(Problem(" ".join(groups), _first_line(error))) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{mark.name}, line {mark.line + 1}" if mark else "a YAML file"
        raise ConfigError(Problem(where, f"is no YAML: {error.problem}")) from error


@cache
def _packaged(groups: tuple[str, ...]) -> DictConfig:
    """The same of the packaged YAML alone, which does not change while kbench runs; nobody may write into it."""
    return _compose_base(list(groups))


def _key(text: str) -> str:
    return text.split("=", 1)[0].lstrip("+")


def _apply(config: DictConfig, text: str) -> None:
    """Set one `key=value`; its type is checked where the schema has one.

    A mapping whose keys are a user's own, such as `data.files`, is replaced, not overlaid.
    """
    key, value = _key(text), _value(text)
    node = OmegaConf.select(config, key)
    whole = isinstance(value, dict) and isinstance(node, DictConfig) and OmegaConf.get_type(node) is dict
    if whole:
        OmegaConf.set_struct(node, False)
    OmegaConf.update(config, key, value, merge=not whole, force_add=False)


def _value(text: str) -> Any:
    return OverridesParser.create().parse_override(text).value()


def _value_problem(base: DictConfig, known: list[str], text: str) -> Problem | None:
    """What is wrong with one `key=value` on a configuration that has the `known` keys, if anything."""
    key = _key(text)
    part = re.fullmatch(r"data\.parts\.\w+\.(max_length|validation_share|metrics)", key)
    if part:
        return Problem(key, f"is not read: that of the whole is, data.{part[1]}")
    if key in known:
        if text.startswith("+") and not text.startswith("++"):
            return Problem(text, "is there already", f"write {text[1:]}")
        try:
            if isinstance(OmegaConf.select(base, key), bool) and not isinstance(_value(text), bool):
                return Problem(text, "must be true or false")
            _apply(base.copy(), text)
        except (OmegaConfBaseException, ValueError, TypeError, AttributeError) as error:
            return Problem(text, _first_line(error))
        return None
    if key.startswith("method."):
        name = base.method.name
        return Problem(key, f"{name} has no such option{registry.near(key, known)}", f"kbench show method {name}")
    return Problem(key, f"no such key{registry.near(key, known)}", "kbench --cfg job shows all")


def _first_line(error: BaseException) -> str:
    """What an error says, in one line: its first, and the second where the first only announces it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]


def sweep_values(text: str) -> list[Any]:
    """The values of one override: several where it is a sweep, as in `seed=1,2` or `seed=range(1,4)`.

    Raises:
        ConfigError: it is no override.
    """
    parsed, problems = _parse([text], sweep=True)
    if problems:
        raise ConfigError(*problems)
    return [_value(one) for one in _expand(parsed[0])]
