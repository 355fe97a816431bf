"""Checkpoints: everything a training needs to continue with the same bits, verified when read.

    <folder>/step-00000120/   model, optimizer, best and method.safetensors, state.json
    <folder>/corrupt-.../     one that did not verify, set aside

There is no random state to save: order and dropout are functions of (seed, step).
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from kbench.errors import Problem, StageError, is_disk_full
from kbench.files import hash_file

_STATE = "state.json"


@dataclass
class Checkpoint:
    """The state of a training after `step` optimiser steps.

    Attributes:
        step: optimiser steps done.
        model: trainable weights and buffers.
        optimizer: the optimiser's state, tensors only, by `parameter index.name`.
        best: weights of the best evaluation so far; empty where none is kept.
        method: what the method holds beside its model (`kbench.engine.hooks`); empty where it holds nothing.
        progress: plain JSON values: best score, evaluations, loss scale.
    """

    step: int
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    best: dict[str, Tensor] = field(default_factory=dict)
    method: dict[str, Tensor] = field(default_factory=dict)
    progress: dict[str, Any] = field(default_factory=dict)


def save(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint beside the last, then remove the last. Killed anywhere, one whole checkpoint remains.

    Raises:
        StageError: the disk is full.
    """
    target = folder / f"step-{checkpoint.step:08d}"
    work = folder / f".{target.name}.tmp"
    shutil.rmtree(work, ignore_errors=True)
    try:
        work.mkdir(parents=True)
        files = {"model": checkpoint.model, "optimizer": checkpoint.optimizer, "best": checkpoint.best}
        files["method"] = checkpoint.method
        hashes = {}
        tied = _tied(checkpoint.model)
        files["model"] = {key: tensor for key, tensor in checkpoint.model.items() if key not in tied}
        for name, tensors in files.items():
            path = work / f"{name}.safetensors"
            save_file({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}, path)
            with path.open("rb") as file:
                os.fsync(file.fileno())
            hashes[path.name] = hash_file(path)
        state = {"step": checkpoint.step, "progress": checkpoint.progress, "files": hashes, "tied": tied}
        (work / _STATE).write_text(json.dumps(state, indent=1), encoding="utf-8")
        if target.exists():
            shutil.rmtree(target)
        work.rename(target)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(work, ignore_errors=True)
        if is_disk_full(error):
            raise StageError(
                Problem(str(folder), "the disk is full; the last checkpoint stands", "free some space and repeat")
            ) from error
        raise
    for other in folder.glob("step-*"):
        if other != target:
            shutil.rmtree(other)
    return target


def latest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest whole checkpoint, or None, and a line for each that did not verify."""
    notes = []
    for path in sorted(folder.glob("step-*"), reverse=True):
        try:
            return _read(path), notes
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            aside = path.with_name(f"corrupt-{path.name}")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
            notes.append(f"checkpoint {path.name} is corrupt ({error}); set aside as {aside.name}")
    return None, notes


def _read(path: Path) -> Checkpoint:
    state = json.loads((path / _STATE).read_text(encoding="utf-8"))
    for name, expected in state["files"].items():
        if hash_file(path / name) != expected:
            raise ValueError(f"{name} was changed")
    tensors = {name: load_file(path / f"{name}.safetensors") for name in ("model", "optimizer", "best", "method")}
    tensors["model"] |= {key: tensors["model"][first] for key, first in state["tied"].items()}
    return Checkpoint(step=int(state["step"]), progress=state["progress"], **tensors)


def _tied(tensors: dict[str, Tensor]) -> dict[str, str]:
    """Names of weights that are another's, as an output projection is the embeddings': name -> the first's name."""
    first: dict[tuple[Any, ...], str] = {}
    found = {}
    for name, tensor in tensors.items():
        place = (tensor.data_ptr(), tensor.shape, tensor.stride())
        if tensor.numel() and first.setdefault(place, name) != name:
            found[name] = first[place]
    return found


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's state as named tensors."""
    state = optimizer.state_dict()["state"]
    return {f"{index}.{name}": value for index, values in state.items() for name, value in values.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put the state of `optimizer_tensors` back."""
    whole = optimizer.state_dict()
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": whole["param_groups"]})
