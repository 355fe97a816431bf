"""The one training loop.

The global batch is the invariant: its rows, their order and the mean of the loss over them do not depend on how many
processes share it. Dropout is drawn per micro batch from (seed, step, micro batch), so it does not either, as long as
micro batches are equally large. Nothing is read back from the device between two logged points.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from kbench.engine import checkpoint as checkpoints
from kbench.engine.feed import Feed
from kbench.engine.hooks import Hooks
from kbench.engine.optimizer import groups, share_of_peak
from kbench.engine.recipe import Precision, Recipe, Selection
from kbench.engine.runtime import Runtime
from kbench.engine.sampler import chunks, epoch_batches, steps_per_epoch
from kbench.engine.seeding import derive
from kbench.errors import DivergedError, InterruptedRunError, Problem

Loss = Callable[[nn.Module, Mapping[str, Tensor]], dict[str, Tensor]]


class Report(Protocol):
    """Where a training says how it goes; a scope is its name within the run."""

    def log(self, scope: str, step: int, values: Mapping[str, float]) -> None:
        """A point of the curve."""

    def progress(self, scope: str, step: int, total: int, values: Mapping[str, float]) -> None:
        """How far it is, for bars and heartbeats; `values` are those of the last logged point."""

    def rewind(self, scope: str, step: int) -> None:
        """Forget the points after `step`: a resumed training makes them again."""

    def note(self, text: str) -> None:
        """A line for the user."""


@dataclass
class Fit:
    """What a training ended with; the model holds the selected weights.

    Attributes:
        steps: optimiser steps of the whole training.
        best_step: step whose weights were selected.
        best_score: their score on validation, None without evaluations.
        seconds: wall-clock time of this process's part, evaluations included.
        tokens: tokens trained on in this process's part, padding not counted, over all processes.
        rows: rows trained on, likewise.
    """

    steps: int
    best_step: int
    best_score: float | None
    seconds: float = 0.0
    tokens: int = 0
    rows: int = 0


@dataclass
class _Best:
    score: float | None = None
    step: int = 0
    since: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)


def fit(
    model: nn.Module,
    feed: Feed,
    loss: Loss,
    recipe: Recipe,
    runtime: Runtime,
    *,
    seed: int,
    folder: Path,
    report: Report,
    scope: str = "train",
    evaluate: Callable[[nn.Module], float] | None = None,
    log_every: int = 10,
    rates: Mapping[str, float] | None = None,
    whole_batch: bool = False,
    hooks: Hooks | None = None,
) -> Fit:
    """Train a model; continue from the newest checkpoint in `folder` where there is one.

    Args:
        model: on any device; holds the selected weights afterwards.
        feed: the training rows.
        loss: gives the terms of the loss, each a mean over the rows of the micro batch it gets.
        recipe: length, optimiser, batch, precision, selection.
        runtime: device and processes.
        seed: of order and dropout.
        folder: for checkpoints.
        report: told of losses and scores.
        scope: name of this training in the log.
        evaluate: score on validation, higher is better, the same on every process; None: the last weights are kept.
        log_every: steps between logged points.
        rates: peak learning rate of parameters by the beginning of their names, where it is not the recipe's.
        whole_batch: never split a process's share of the batch, whatever the micro batch of the hardware.
        hooks: what the method does inside a step beside its loss.

    Raises:
        DivergedError: the loss is no number; the last checkpoint stands.
        InterruptedRunError: the run was asked to stop; a checkpoint was written.
    """
    started = time.monotonic()
    hooks = hooks or Hooks()
    accelerator = runtime.accelerator(recipe.precision)
    plain = model.to(runtime.device)
    optimizer: Any = torch.optim.AdamW(
        groups(plain, recipe, rates or {}),
        lr=recipe.lr,
        betas=(0.9, recipe.adam_beta2),
        eps=recipe.adam_epsilon,
        fused=True,
    )
    peaks = [group["lr"] for group in optimizer.param_groups]
    model, optimizer = accelerator.prepare(plain, optimizer)
    per_epoch = steps_per_epoch(len(feed), recipe.global_batch_size)
    total = recipe.epochs * per_epoch
    if recipe.max_steps is not None:
        total = min(total, recipe.max_steps)
    micro = recipe.global_batch_size // runtime.processes
    if not whole_batch:
        micro = min(runtime.micro_batch_size, micro)

    found, notes = checkpoints.latest(folder) if runtime.is_main else (None, [])
    for line in notes:
        report.note(line)
    found = runtime.broadcast(found)
    best, first = _Best(), 0
    if found is not None:
        first = found.step
        plain.load_state_dict(found.model)
        checkpoints.restore_optimizer(optimizer.optimizer, found.optimizer)
        if accelerator.scaler is not None and "scaler" in found.progress:
            accelerator.scaler.load_state_dict(found.progress["scaler"])
        best = _Best(found.progress["score"], found.progress["best_step"], found.progress["since"], found.best)
        report.note(f"{scope} continues after step {first} of {total}")
        if found.progress["micro_batch_size"] != micro:
            before = found.progress["micro_batch_size"]
            report.note(
                f"micro batches had {before} rows and now have {micro}: from here on other dropout masks are drawn"
            )
    hooks.restore(first, found.method if found is not None else {})
    report.rewind(scope, first)

    def save(step: int) -> None:
        own = hooks.tensors(step)
        if not runtime.is_main:
            return
        progress = {"score": best.score, "best_step": best.step, "since": best.since, "micro_batch_size": micro}
        if accelerator.scaler is not None:
            progress["scaler"] = accelerator.scaler.state_dict()
        checkpoints.save(
            folder,
            checkpoints.Checkpoint(
                step,
                plain.state_dict(),
                checkpoints.optimizer_tensors(optimizer.optimizer),
                best.weights,
                own,
                progress,
            ),
        )
        hooks.saved(step)

    def judge(step: int) -> bool:
        """Evaluate; keep the weights where they are the best; say whether patience is at its end."""
        assert evaluate is not None
        plain.eval()
        score = evaluate(plain)
        plain.train()
        report.log(scope, step, {"validation": score})
        if best.score is None or score > best.score:
            best.score, best.step, best.since = score, step, 0
            best.weights = {name: tensor.detach().cpu().clone() for name, tensor in plain.state_dict().items()}
        else:
            best.since += 1
        return recipe.patience is not None and best.since >= recipe.patience

    selecting = evaluate is not None and recipe.selection is Selection.best_val
    plain.train()
    step, tokens, rows = first, 0, 0
    sums: dict[str, Tensor] = {}
    since_log, logged_at, last_saved = 0, time.monotonic(), time.monotonic()
    batches: list[Any] = []
    epoch = -1
    # patience may have ended it just before the checkpoint it continues from
    stopped = selecting and recipe.patience is not None and best.since >= recipe.patience
    while step < total and not stopped:
        if step // per_epoch != epoch:
            epoch = step // per_epoch
            batches = epoch_batches(
                feed.lengths, seed=seed, epoch=epoch, batch=recipe.global_batch_size, pool=recipe.length_pool
            )
        positions = batches[step % per_epoch]
        pieces = chunks(positions, micro, runtime.processes)
        hooks.begin(step, epoch, positions)
        shared = feed.shared(positions)
        units = int(feed.weights[positions].sum())
        own = range(runtime.rank, len(pieces), runtime.processes)
        rate = share_of_peak(recipe, step, total)
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * rate
        for index in own:
            piece = pieces[index]
            share = int(feed.weights[piece].sum()) / units
            torch.manual_seed(derive(seed, "dropout", step, index))
            last = index + runtime.processes >= len(pieces)
            with nullcontext() if last else accelerator.no_sync(model):
                batch = feed.batch(piece if len(piece) else positions[:1], runtime.device)
                terms = loss(model, batch | shared | {"step_rows": torch.tensor(len(piece))})
                whole: Any = sum(terms.values())
                # DDP averages gradients over processes, the mean we want is over rows
                accelerator.backward(whole * (share * runtime.processes))
            for name, term in terms.items():
                sums[name] = sums.get(name, 0.0) + term.detach() * share
        further = hooks.gradients()
        if recipe.clip:
            norm = accelerator.clip_grad_norm_([*model.parameters(), *further], recipe.clip)
            sums["grad_norm"] = sums.get("grad_norm", 0.0) + norm.detach() / runtime.processes
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        hooks.update(step, recipe.lr * rate)
        since_log += 1
        rows += len(positions)
        tokens += int(feed.lengths[positions].sum())

        stop = runtime.stop.is_set() and runtime.processes == 1
        if step % log_every == 0 or step == total or stop:
            values = _read(sums, since_log, accelerator)
            _check_finite(values, f"{scope}, step {step}", folder, recipe)
            now = time.monotonic()
            values |= {
                "epoch": step / per_epoch,
                "lr": recipe.lr * rate,
                "seconds_per_step": (now - logged_at) / since_log,
            } | hooks.values()
            values = {name: value for name, value in values.items() if math.isfinite(value)}
            sums, since_log, logged_at = {}, 0, now
            report.log(scope, step, values)
            report.progress(scope, step, total, values)
        if selecting and (step % (recipe.eval_every or per_epoch) == 0 or step == total):
            stopped = judge(step)
            logged_at = time.monotonic()
        # saved after the step's evaluation, and only where its loss was just seen to be a number; all processes save,
        # or none: their clocks differ
        due = since_log == 0 and step < total
        if stop or (due and runtime.broadcast(time.monotonic() - last_saved >= runtime.checkpoint_seconds)):
            save(step)
            last_saved = time.monotonic()
        if stop:
            raise InterruptedRunError(f"{scope} stopped after step {step} of {total}; the same command continues")

    if selecting and best.weights:
        plain.load_state_dict(best.weights)
    plain.eval()
    runtime.barrier()
    seconds = time.monotonic() - started
    return Fit(step, best.step if selecting else step, best.score, seconds, tokens, rows)


def _read(sums: Mapping[str, Tensor], steps: int, accelerator: Any) -> dict[str, float]:
    """Means over the steps since the last logged point, over all processes; the one read-back from the device."""
    names = sorted(sums)
    stacked = torch.stack([sums[name].float() for name in names]) / steps
    values = dict(zip(names, accelerator.reduce(stacked, reduction="sum").tolist(), strict=True))
    norm = {"grad_norm": values.pop("grad_norm")} if "grad_norm" in values else {}
    return {"loss": sum(values.values())} | {f"loss/{name}": value for name, value in values.items()} | norm


def _check_finite(values: Mapping[str, float], where: str, folder: Path, recipe: Recipe) -> None:
    """Stop a training whose loss or gradient is no number; with fp16 the loss scale handles gradients."""
    watched = {k: v for k, v in values.items() if k != "grad_norm" or recipe.precision is not Precision.fp16}
    bad = [name for name, value in watched.items() if not math.isfinite(value)]
    if bad:
        raise DivergedError(
            Problem(
                where,
                f"{', '.join(bad)} is no longer a number",
                f"the last checkpoint, if any, stands in {folder}; try a lower learning rate (now {recipe.lr:g})",
            )
        )
