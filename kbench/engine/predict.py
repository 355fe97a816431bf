"""Scores of a model on many rows: inference mode, batches by length, shared among the processes.

`predict` has dropout off. `sample` has it on, the whole model in train mode: attention asks its own flag, so switching
on the dropout layers alone would leave attention dropout off.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from kbench.engine.feed import Feed, unit_logits
from kbench.engine.recipe import Precision
from kbench.engine.runtime import Runtime
from kbench.engine.seeding import derive

# tokens in one sampled pass: what fits a CPU's caches, and what keeps a GPU busy; fixed, since masks depend on it
_TOKENS = {"cpu": 1024, "cuda": 32768}
_FLUSH_SECONDS = 20.0


def predict(
    model: nn.Module, feed: Feed, runtime: Runtime, precision: Precision, *, may_stop: bool = True
) -> np.ndarray:
    """The logits [units, classes] of every text or word, float32, in the feed's order, on every process.

    A word that was cut off has zeros: no class before another.

    Args:
        model: on the runtime's device, in eval mode.
        feed: the rows.
        runtime: device and processes.
        precision: number format of the matrix products.
        may_stop: end between batches where the run was asked to stop; not within a training, which saves first.
    """
    if model.training:
        raise ValueError("the model is in train mode: its dropout would be on")
    batches = feed.by_length(runtime.eval_batch_size)[runtime.rank :: runtime.processes]
    found = []
    with torch.inference_mode(), runtime.autocast(precision):
        for positions in batches:
            if may_stop:
                runtime.check_stop()
            batch = feed.batch(positions, runtime.device)
            logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
            found.append((feed.seen(positions), unit_logits(logits, batch).float()))
    pieces = runtime.gather([(units, logits.cpu().numpy()) for units, logits in found])
    if not pieces:
        return np.zeros((0, 0), dtype=np.float32)
    scores = np.zeros((feed.units, pieces[0][1].shape[1]), dtype=np.float32)
    for units, logits in pieces:
        scores[units] = logits
    return scores


def sample(
    model: nn.Module,
    feed: Feed,
    runtime: Runtime,
    precision: Precision,
    *,
    samples: int,
    seed: int,
    path: Path,
    tell: Callable[[int, int], None],
) -> None:
    """Write the logits under `samples` dropout masks of every unit to a .npy file, float32 [units, samples, classes].

    Masks are drawn anew for every row and sample from (seed, batch), whatever the number of processes. A text stands
    `samples` times in one forward pass. A killed call leaves its finished batches in `path` and `path`.done; the next
    one continues after them. `tell` is given the batches done and all batches.

    Raises:
        OSError: no room for the file; it is reserved in full before the first pass.
    """
    batches = feed.by_tokens(_TOKENS[runtime.device.type] // samples)
    classes = int(model.config.num_labels)
    marks_path = path.with_suffix(".done")
    shape = (feed.units, samples, classes)
    if runtime.is_main and not _reserved(path, shape, marks_path, len(batches)):
        marks_path.unlink(missing_ok=True)
        _reserve(path, shape)
        fresh = marks_path.with_suffix(".new")
        fresh.write_bytes(bytes(len(batches)))
        fresh.replace(marks_path)
    runtime.barrier()
    out = np.lib.format.open_memmap(path, mode="r+")
    marks = np.memmap(marks_path, dtype=np.uint8, mode="r+")
    pending: list[int] = []
    flushed = time.monotonic()

    def flush() -> None:
        out.flush()
        marks[pending] = 1
        marks.flush()
        pending.clear()

    was_training = model.training
    model.train()
    try:
        with torch.inference_mode(), runtime.autocast(precision):
            for index in range(runtime.rank, len(batches), runtime.processes):
                if marks[index]:
                    continue
                positions = batches[index]
                batch = feed.batch(positions, runtime.device)
                torch.manual_seed(derive(seed, "dropout masks", index))
                logits = model(
                    input_ids=batch["input_ids"].repeat_interleave(samples, 0),
                    attention_mask=batch["attention_mask"].repeat_interleave(samples, 0),
                ).logits
                by_sample = logits.float().unflatten(0, (len(positions), samples)).transpose(0, 1)
                out[feed.seen(positions)] = unit_logits(by_sample, batch).transpose(0, 1).cpu().numpy()
                pending.append(index)
                tell(index + 1, len(batches))
                if runtime.stop.is_set() or time.monotonic() - flushed > _FLUSH_SECONDS:
                    flush()
                    flushed = time.monotonic()
                    runtime.check_stop()
    finally:
        model.train(was_training)
    flush()
    runtime.barrier()
    if runtime.is_main:
        marks_path.unlink()


def _reserved(path: Path, shape: tuple[int, ...], marks: Path, batches: int) -> bool:
    """Whether an earlier call left both files whole."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False).shape == shape and marks.stat().st_size == batches
    except (OSError, ValueError):
        return False


def _reserve(path: Path, shape: tuple[int, ...]) -> None:
    """Make a .npy file and all its blocks: a full disk shows here, not as a bus error in the middle."""
    np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape).flush()
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
