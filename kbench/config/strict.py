"""Strictness after composing: unknown keys, absent values, rules across fields, all at once.

Hydra lets `+train.lrr=1` through on a structured config; the walk here does not.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from omegaconf import DictConfig, OmegaConf

from kbench import registry
from kbench.config.schema import Config
from kbench.engine.recipe import Selection
from kbench.errors import Problem


def flat_keys(config: DictConfig, prefix: str = "") -> list[str]:
    """Every dotted key of a configuration, nodes included, `hydra` left out."""
    keys: list[str] = []
    for name in config:
        dotted = f"{prefix}{name!s}"
        if dotted == "hydra":
            continue
        keys.append(dotted)
        node = config._get_node(name)
        if isinstance(node, DictConfig) and not node._is_none() and not node._is_missing():
            keys.extend(flat_keys(node, f"{dotted}."))
    return keys


def unknown_keys(config: DictConfig, prefix: str = "") -> list[Problem]:
    """Keys that stand in the configuration but in no schema."""
    problems: list[Problem] = []
    kind = OmegaConf.get_type(config)
    fields = {f.name for f in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else None
    for name in config:
        dotted = f"{prefix}{name!s}"
        if dotted == "hydra":
            continue
        if fields is not None and str(name) not in fields:
            problems.append(Problem(dotted, f"no such key{registry.near(str(name), fields)}"))
            continue
        node = config._get_node(name)
        if isinstance(node, DictConfig) and not node._is_none() and not node._is_missing():
            problems.extend(unknown_keys(node, f"{dotted}."))
    return problems


def missing_values(config: DictConfig) -> list[Problem]:
    """Fields of a schema to which no YAML gives a value."""
    return [
        Problem(key, "has no value", "give one on the command line, or in the YAML of its group")
        for key in sorted(OmegaConf.missing_keys(config))
        if not key.startswith("hydra")
    ]


def rules(config: Config) -> list[Problem]:
    """The rules of each node and those between nodes, for a configuration whose types are right."""
    problems = _names(config) + config.data.check() + config.backbone.check() + config.train.check("train")
    problems += config.hardware.check() + config.tracker.check()
    if config.log_every < 1:
        problems.append(Problem("log_every", f"must be at least 1, is {config.log_every}"))
    for split in config.keep_scores:
        if split not in ("train", "validation", "test"):
            problems.append(Problem("keep_scores", f"no such split: {split}", "there are: train, validation, test"))
    if problems and problems[0].where == "method.name":
        return problems
    unfit = fits(config)
    if unfit:
        return problems + unfit
    method = registry.load("method", config.method.name)
    problems += config.knowledge.check()
    if config.data.of_graph and config.knowledge.xlr is None:
        hint = "take a graph that has them, or data.path=FOLDER with questions"
        problems.append(Problem("knowledge.xlr", f"is null, and {config.data.name} is made of it", hint))
    recipes = {"train": config.train}
    if method.needs.pretraining:  # type: ignore[attr-defined]
        problems += config.pretrain.check("pretrain")
        recipes["pretrain"] = config.pretrain
    if method.needs.teachers:  # type: ignore[attr-defined]
        problems += config.teacher.check("teacher")
        if config.teacher.selection is not Selection.last and not method.selects_teachers:  # type: ignore[attr-defined]
            problems.append(Problem("teacher.selection", "must be last: a teacher has no validation rows of its own"))
        recipes["teacher"] = config.teacher
    problems += method.check(config.method, config.data)  # type: ignore[attr-defined]
    if method.whole_batch and config.hardware.processes > 1:  # type: ignore[attr-defined]
        what = f"{config.method.name} compares all rows of a batch with each other: one process must hold them"
        problems.append(Problem("hardware.processes", what, "take 1"))
    for where, recipe in recipes.items():
        whole = where == "train" and method.whole_batch  # type: ignore[attr-defined]
        problems += _batch(where, recipe.global_batch_size, config, whole)
        if recipe.precision.value == "fp16" and config.hardware.device == "cpu":
            problems.append(Problem(f"{where}.precision", "fp16 needs a GPU", "take bf16 or fp32"))
    if config.backbone.tiny is not None and config.data.max_length > config.backbone.tiny.positions:
        problems.append(Problem("data.max_length", f"{config.data.max_length} exceeds backbone.tiny.positions"))
    return problems


def _names(config: Config) -> list[Problem]:
    """Every name is the one its YAML was chosen by, where kbench has a file of that name."""
    if config.method.name not in registry.choices("method"):
        return [Problem("method.name", f"no such method: {config.method.name}", "write method=NAME")]
    expected = registry.load("method", config.method.name).Config  # type: ignore[attr-defined]
    if type(config.method) is not expected:
        return [Problem("method.name", f"these are not the options of {config.method.name}", "write method=NAME")]
    return []


def _batch(where: str, batch: int, config: Config, whole: bool) -> list[Problem]:
    """The global batch is the invariant: it must split evenly into micro batches over the processes.

    `whole`: a process's share is never split.
    """
    processes = config.hardware.processes
    if min(batch, processes, config.hardware.micro_batch_size) < 1:
        return []  # said elsewhere
    if batch % processes:
        fits = sorted({max(processes, batch - batch % processes), batch - batch % processes + processes})
        return [
            Problem(
                f"{where}.global_batch_size",
                f"{batch} rows do not divide among {processes} processes",
                f"take {' or '.join(map(str, fits))}, or another number of processes",
            )
        ]
    share = batch // processes
    micro = share if whole else min(config.hardware.micro_batch_size, share)
    if share % micro:
        fits = [m for m in range(micro, 0, -1) if share % m == 0][:1]
        fits += [m for m in range(micro, share + 1) if share % m == 0][:1]
        return [
            Problem(
                "hardware.micro_batch_size",
                f"{micro} does not divide the {share} rows a process has of {where}.global_batch_size={batch}",
                f"take {' or '.join(map(str, fits))}",
            )
        ]
    return []


def fits(config: Config) -> list[Problem]:
    """Whether the method can run on this data at all."""
    method: Any = registry.load("method", config.method.name)
    task = config.data.task
    if task in method.needs.tasks:
        return []
    able = [name for name in registry.choices("method") if task in registry.load("method", name).needs.tasks]  # type: ignore[attr-defined]
    what = f"is a {task} data set; {config.method.name} does {', '.join(sorted(method.needs.tasks))}"
    return [Problem(f"data={config.data.name}", what, f"write method=NAME; for {task}: {', '.join(able)}")]


def doubts(config: Config) -> list[str]:
    """What may be meant but seldom is; said before a run, never refused."""
    known = set(config.backbone.languages)
    read = [config.data.lang] if config.data.lang else config.data.languages
    unknown = [code for code in read if code not in known]
    if "any" in known or not unknown:
        return []
    languages = ", ".join(sorted(known))
    return [f"{config.backbone.name} was pre-trained on {languages}; {config.data.name} is in {', '.join(unknown)}"]
