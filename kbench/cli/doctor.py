"""`kbench doctor`: what this machine has, what is missing, and the command that mends it."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from kbench import __version__, registry
from kbench.cli import console
from kbench.config.compose import compose
from kbench.errors import UserError

_LIBRARIES = (
    "torch", "transformers", "accelerate", "datasets", "evaluate", "tokenizers", "hydra-core", "omegaconf",
    "wandb", "tensorboard", "hydra-joblib-launcher", "hydra-submitit-launcher",
)  # fmt: skip
_OPTIONAL = {"tensorboard": "tensorboard", "hydra-joblib-launcher": "joblib", "hydra-submitit-launcher": "submitit"}


def run(argv: list[str]) -> int:
    """Look at the machine; gives exit code 0: absent things are facts, not failures."""
    parser = argparse.ArgumentParser(
        prog="kbench doctor", description="What this machine has, what is missing, the command that mends it."
    )
    parser.add_argument("--json", action="store_true", help="for a program")
    arguments = parser.parse_args(argv)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    found = {
        "machine": _machine(),
        "libraries": {name: _version(name) for name in _LIBRARIES},
        "places": _places(),
        "data": {name: _place("data", name) for name in registry.choices("data")},
        "backbones": {name: _place("backbone", name) for name in registry.choices("backbone")},
    }
    if arguments.json:
        console.as_json(found)
        return 0
    for title, entries in found.items():
        print(title)
        console.table(["", ""], [[name, str(value)] for name, value in entries.items()], indent="  ")
    return 0


def _machine() -> dict[str, str]:
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "kbench": __version__,
        "python": platform.python_version(),
        "cpu": f"{os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads",
        "gpu": ", ".join(gpus) if gpus else "none: hardware=cpu",
        "bf16": "yes" if not gpus or torch.cuda.is_bf16_supported() else "no: train.precision=fp16",
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return (
            f"absent: pip install 'kbench[{_OPTIONAL[name]}]'" if name in _OPTIONAL else f"absent: pip install {name}"
        )


def _places() -> dict[str, str]:
    from huggingface_hub.constants import HF_HUB_CACHE

    free = shutil.disk_usage(Path.cwd()).free
    return {
        "KBENCH_DATA": os.environ.get("KBENCH_DATA", "not set"),
        "hub cache": HF_HUB_CACHE,
        "hub": "offline" if os.environ.get("HF_HUB_OFFLINE", "1") not in ("0", "") else "online",
        "disk": f"{free / 2**30:.1f} GiB free here",
    }


def _place(group: str, name: str) -> str:
    """Where a data set or backbone is, or what is missing and how to get it."""
    from kbench.backbones import locate as backbones
    from kbench.data import source

    config: Any = compose(
        ["method=finetune", f"{group}={name}", *(["data=toy"] if group == "backbone" else ["backbone=tiny"])]
    )
    try:
        if group == "data" and config.data.of_graph:
            return f"made of knowledge={config.knowledge.name}"
        if group == "data":
            place = source.locate(config.data)
            return f"{place.kind}: {place.where}"
        return backbones.locate(config.backbone).where
    except UserError as error:
        first = error.problems[0]
        return f"absent: {(first.hint or first.what).splitlines()[0]}"
