"""`kbench fetch`: bring data sets and backbones into the hub's cache, so that runs need no internet."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from kbench import registry
from kbench.cli import console
from kbench.cli.ls import read
from kbench.config.schema import GENERATED, JOINED
from kbench.errors import EXIT_FAILED, ConfigError, Problem

_MODEL_FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]


def run(argv: list[str]) -> int:
    """Fetch what is named; gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="kbench fetch",
        description="Bring data sets and backbones into the hub's cache (HF_HOME), at their pinned revisions.",
        epilog="examples:\n  kbench fetch data=agnews backbone=bert_base\n  kbench fetch data=agnews,thucnews\n"
        "  kbench fetch backbone=ORG/FINE-TUNED-MODEL@COMMIT   (a teacher for method.models)\n\n"
        "Copy the cache to a cluster without internet and set HF_HOME there.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", nargs="+", metavar="data=NAME|backbone=NAME|backbone=ID[@REVISION]")
    wanted = [_parse(word) for word in parser.parse_args(argv).what]
    problems = [
        Problem(f"{group}={name}", f"no such {registry.GROUPS[group]}{registry.near(name, registry.choices(group))}")
        for group, names in wanted
        for name in names
        if name not in registry.choices(group) and not (group == "backbone" and "/" in name)
    ]
    if problems:
        raise ConfigError(*problems)
    os.environ["HF_HUB_OFFLINE"] = "0"  # asking for the hub is what this verb is for
    return max([_fetch(group, name) for group, names in wanted for name in names])


def _parse(word: str) -> tuple[str, list[str]]:
    group, equals, names = word.partition("=")
    if not equals or group not in ("data", "backbone") or not names:
        raise ConfigError(Problem(word, "is nothing to fetch", "write data=NAME or backbone=NAME"))
    return group, names.split(",")


def _fetch(group: str, name: str) -> int:
    if "/" in name:  # a model of the hub that conf/backbone does not list, such as a finished teacher
        repository, _, revision = name.partition("@")
        found: dict[str, Any] = {"hub": {"id": repository, "revision": revision or "main"}}
    else:
        found = read(group, name)
    hub = found["hub"]
    if hub is None:
        if found.get("install"):
            console.line(name, f"is no hub repository; install it: {found['install']}")
        elif group == "data" and found["reader"] == JOINED:
            parts = [one.split("@")[0] for one in found["defaults"] if isinstance(one, str) and "@parts." in one]
            return max(_fetch(group, part) for part in parts)
        elif group == "data" and found["reader"] not in GENERATED[found["task"]]:
            console.line(name, f"has no pinned hub copy; take the original files: {found['cite']}")
        elif group == "backbone" and not found["tiny"]:
            console.line(name, "is not on the hub; its YAML says where it is from: backbone.path=FOLDER")
        else:
            console.line(name, "is built by kbench: nothing to fetch")
        return 0
    from huggingface_hub import snapshot_download

    kind, patterns = ("dataset", ["*.parquet"]) if group == "data" else ("model", _MODEL_FILES)
    try:
        folder = snapshot_download(hub["id"], revision=hub["revision"], repo_type=kind, allow_patterns=patterns)
    except Exception as error:  # the hub's client raises many kinds; for the user they are one
        reason = str(error).strip().splitlines()[0]
        print(f"error: {hub['id']} could not be fetched: {reason}", file=sys.stderr)
        print("  is there internet? is HF_ENDPOINT right? offline, give data.path or backbone.path", file=sys.stderr)
        return EXIT_FAILED
    console.line(name, folder)
    return 0
