"""`kbench export`: a pre-trained checkpoint out of the store, as a plain folder that transformers loads."""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
from pathlib import Path
from typing import Any

from kbench import registry
from kbench.cli import console
from kbench.config.compose import compose
from kbench.config.schema import Config
from kbench.errors import Problem, UserError
from kbench.files import write_atomically
from kbench.runs.prepare import STAGES, prepare
from kbench.stages.store import MANIFEST, Store, manifest

EXAMPLES = """examples:
  kbench export method=kmlm data=toy_xlr --to models/kmlm-toy
  kbench export method=kmlm data=xlr knowledge=wikidata_mini backbone=xlmr_base --to models/kmlm-xlmr"""


def run(argv: list[str]) -> int:
    """Copy the checkpoint that a run's overrides name; gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="kbench export",
        description="Copy a pre-trained checkpoint to a folder of its own, with a card. Give the overrides of its run.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("overrides", nargs="+", metavar="KEY=VALUE", help="those of a run of method=kmlm or mlm")
    parser.add_argument("--to", type=Path, required=True, help="the new folder")
    arguments = parser.parse_intermixed_args(argv)
    config = compose(arguments.overrides)
    kind: Any = registry.load("method", config.method.name)
    if not kind.needs.pretraining:
        able = [name for name in registry.choices("method") if _pretrains(name)]
        raise UserError(
            Problem(f"method={config.method.name}", "pre-trains nothing", f"these do: {', '.join(able)}"),
        )
    to: Path = arguments.to
    if to.exists() and not (to.is_dir() and not any(to.iterdir())):
        raise UserError(Problem(f"--to {to}", "is there already", "name a new folder"))
    planned = prepare(config, console.stage)
    stage = list(kind(config.method, planned.bench()).stages().values())[-1]
    store = Store(Path(config.outputs).expanduser() / STAGES)
    if not store.has(stage):
        hint = f"make it first: kbench {shlex.join(arguments.overrides)}"
        raise UserError(Problem(f"{stage.name} {stage.key}", "is not made yet", hint))
    folder = store.folder(stage)
    work = to.with_name(f".{to.name}.tmp")
    shutil.rmtree(work, ignore_errors=True)
    try:
        shutil.copytree(folder, work, ignore=shutil.ignore_patterns(MANIFEST))
        write_atomically(work / "README.md", card(config, folder, arguments.overrides))
        if to.exists():
            to.rmdir()
        work.rename(to)
    except OSError as error:
        shutil.rmtree(work, ignore_errors=True)
        raise UserError(Problem(f"--to {to}", f"cannot be written: {error.strerror}")) from error
    console.line("files", str(to))
    return 0


def card(config: Config, folder: Path, overrides: list[str]) -> str:
    """What a stranger must know of the checkpoint, as markdown."""
    made = manifest(folder)
    knowledge = config.knowledge
    return "\n".join(
        [
            f"# {config.backbone.name}, pre-trained further by {config.method.name}",
            "",
            f"- made by: `kbench {shlex.join(overrides)}`, stage {made['stage']} {made['key']}",
            f"- started from: {config.backbone.name} ({config.backbone.licence})",
            f"- knowledge: {knowledge.name}, languages {', '.join(knowledge.languages)} ({knowledge.licence})",
            f"- seconds: {made['seconds']:.0f}, on {made['made_on'].get('device', 'unknown')}",
            "",
            "It is a masked language model: `AutoModelForMaskedLM.from_pretrained(FOLDER)`, or "
            "`backbone.path=FOLDER` for any method of kbench.",
            "",
            "What decided it:",
            "",
            "```json",
            json.dumps(made["science"], indent=1, ensure_ascii=False),
            "```",
            "",
        ]
    )


def _pretrains(name: str) -> bool:
    method: Any = registry.load("method", name)
    return bool(method.needs.pretraining)
