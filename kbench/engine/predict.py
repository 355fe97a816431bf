"""Scores of a model on many rows: inference mode, batches by length, shared among the processes.

`predict` has dropout off. `sample` has it on, the whole model in train mode: attention asks its own flag, so switching
on the dropout layers alone would leave attention dropout off.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from kbench.engine.feed import Feed, inputs, pooled_logits, unit_logits
from kbench.engine.recipe import Precision
from kbench.engine.runtime import Runtime
from kbench.engine.seeding import derive
from kbench.engine.spill import Spill

# tokens in one pass: what fits a CPU's caches, and what keeps a GPU busy; fixed, since sampled masks depend on it
PASS_TOKENS = {"cpu": 1024, "cuda": 32768}


def predict(
    model: nn.Module, feed: Feed, runtime: Runtime, precision: Precision, *, may_stop: bool = True, pooled: bool = False
) -> np.ndarray:
    """The logits [units, classes] of every text or word, float32, in the feed's order, on every process.

    A word that was cut off has zeros: no class before another.

    Args:
        model: on the runtime's device, in eval mode.
        feed: the rows.
        runtime: device and processes.
        precision: number format of the matrix products.
        pooled: read a word at all its tokens, at their mean, instead of the first.
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
            logits = model(**inputs(batch)).logits
            of_units = pooled_logits(logits.float(), batch) if pooled else unit_logits(logits, batch).float()
            found.append((feed.seen(positions), of_units))
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
    `samples` times in one forward pass. A killed call is continued after its finished batches. `tell` is given the
    batches done and all batches.

    Raises:
        OSError: no room for the file; it is reserved in full before the first pass.
    """
    batches = feed.by_tokens(PASS_TOKENS[runtime.device.type] // samples)
    classes = int(model.config.num_labels)
    spill = Spill(path, (feed.units, samples, classes), np.dtype(np.float32), len(batches), runtime)
    was_training = model.training
    model.train()
    try:
        with torch.inference_mode(), runtime.autocast(precision):
            for index in spill.left():
                positions = batches[index]
                batch = feed.batch(positions, runtime.device)
                torch.manual_seed(derive(seed, "dropout masks", index))
                repeated = {name: array.repeat_interleave(samples, 0) for name, array in inputs(batch).items()}
                logits = model(**repeated).logits
                by_sample = logits.float().unflatten(0, (len(positions), samples)).transpose(0, 1)
                spill.array[feed.seen(positions)] = unit_logits(by_sample, batch).transpose(0, 1).cpu().numpy()
                tell(index + 1, len(batches))
    finally:
        model.train(was_training)
    spill.close()
    spill.forget()
