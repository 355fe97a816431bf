"""Continued pre-training: several streams of masked text at once, and the checkpoint that all evaluations share.

    loss = L(plain) + alpha * (L(code-switched) + L(reasoning))                   KMLM, section 3

A *row* of the training is one sample of each stream; streams that are shorter begin again. Which sample a row has, and
what of it is masked, are functions of the row, so that neither processes nor micro batches change them.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from kbench.backbones.masked_lm import logits_at
from kbench.engine.counter import mixed, permuted
from kbench.engine.feed import moved
from kbench.engine.seeding import derive
from kbench.knowledge.masking import Masked

if TYPE_CHECKING:
    from kbench.engine.recipe import Recipe
    from kbench.methods.bench import Bench

_COUNTED = 4096  # samples masked at once where labels are only counted


class Stream(Protocol):
    """Samples of one kind, masked as they are asked for."""

    def __len__(self) -> int: ...

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """Tokens of some samples."""

    def batch(self, rows: np.ndarray, keys: np.ndarray) -> Masked:
        """Some samples, padded and masked; a key is what a sample's draws follow from."""


class StreamFeed:
    """Rows of several streams for the training loop; in the place of `kbench.engine.feed.Feed`.

    Args:
        streams: by name.
        rows: rows there are; one pass over a stream is as many as it has samples.
        seed: of order and masks.
        mean_rows: as `pretrain`'s.
    """

    def __init__(self, streams: Mapping[str, Stream], rows: int, seed: int, mean_rows: int | None):
        self.streams = dict(streams)
        self.seed = seed
        self.mean_rows = mean_rows
        self._rows = rows
        # every row counts for one; no memory for it
        self.weights = np.broadcast_to(np.int64(1), self._rows)
        self.lengths: Any = _Lengths(self)

    def __len__(self) -> int:
        return self._rows

    def samples(self, name: str, rows: np.ndarray) -> np.ndarray:
        """The sample of a stream that each row has: its passes are permutations, each another one."""
        size = len(self.streams[name])
        found = np.empty(len(rows), dtype=np.int64)
        turns = rows // size
        for turn in np.unique(turns):
            own = turns == turn
            found[own] = permuted(rows[own] % size, size, derive(self.seed, "pass", name, int(turn)))
        return found

    def masked(self, name: str, rows: np.ndarray) -> Masked:
        """A stream's samples of some rows, masked."""
        return self.streams[name].batch(self.samples(name, rows), mixed(derive(self.seed, "masks", name), rows))

    def batch(self, positions: np.ndarray, device: torch.device) -> dict[str, Tensor]:
        """For each stream NAME: `NAME.input_ids`, `NAME.attention_mask` [B, L], `NAME.positions`, `NAME.labels` [K]."""
        found = {}
        for name in self.streams:
            masked = self.masked(name, positions)
            for part in ("input_ids", "attention_mask", "positions", "labels"):
                found[f"{name}.{part}"] = moved(torch.from_numpy(getattr(masked, part)), device)
        return found

    def shared(self, positions: np.ndarray) -> dict[str, Tensor]:
        """`step_units`, rows of the global batch; `NAME.step_labels`, where the loss is a mean over all of them."""
        found = {"step_units": torch.tensor(len(positions))}
        if self.mean_rows is None:
            for name in self.streams:
                pieces = [positions[i : i + _COUNTED] for i in range(0, len(positions), _COUNTED)]
                count = sum(len(self.masked(name, piece).labels) for piece in pieces)
                found[f"{name}.step_labels"] = torch.tensor(count)
        return found


class _Lengths:
    """Tokens of rows over all streams, computed where they are asked for."""

    def __init__(self, feed: StreamFeed):
        self._feed = feed

    def __len__(self) -> int:
        return len(self._feed)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        streams = self._feed.streams
        return np.sum([streams[name].lengths(self._feed.samples(name, rows)) for name in streams], axis=0)


class Pretrained(nn.Module):
    """A masked language model that reads all streams in one call, as data-parallel training wants it.

    Args:
        model: of transformers.
        weights: stream -> its weight in the loss.
        mean_rows: as `pretrain`'s.
    """

    def __init__(self, model: nn.Module, weights: Mapping[str, float], mean_rows: int | None):
        super().__init__()
        self.model = model
        self.weights = dict(weights)
        self.mean_rows = mean_rows

    def forward(self, batch: Mapping[str, Tensor], scales: Mapping[str, float]) -> dict[str, Tensor]:
        """The weighted loss of each stream, a mean over the batch's rows.

        Args:
            batch: as `StreamFeed.batch` gives it.
            scales: what a stream's summed loss is multiplied by, where it is a mean over all labels of the step.
        """
        found = {}
        for name, weight in self.weights.items():
            ids, mask = batch[f"{name}.input_ids"], batch[f"{name}.attention_mask"]
            positions, labels = batch[f"{name}.positions"], batch[f"{name}.labels"]
            logits = logits_at(self.model, {"input_ids": ids, "attention_mask": mask}, positions)
            each = cross_entropy(logits.float(), labels, reduction="none")
            if name in scales:
                found[name] = weight * each.sum() * scales[name]
            else:
                assert self.mean_rows is not None
                groups = positions // ids.shape[1] // self.mean_rows
                found[name] = weight * _mean_of_means(each, groups, -(-len(ids) // self.mean_rows))
        return found


def step_loss(student: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The loss of a micro batch; what it is told of its step stays on the host, so that nothing waits for the device.

    The loop takes a mean over rows: what is to be a mean over the step's labels is scaled to be one.
    """
    told = {name: int(value) for name, value in batch.items() if "step_" in name}
    streams = {name: value for name, value in batch.items() if name not in told}
    scales = {}
    for name in told:
        stream, _, what = name.rpartition(".")
        if what == "step_labels":
            scales[stream] = told["step_units"] / len(batch[f"{stream}.input_ids"]) / max(1, told[name])
    found: dict[str, Tensor] = student(streams, scales)
    return found


def _mean_of_means(each: Tensor, groups: Tensor, count: int) -> Tensor:
    """The mean over groups of each group's mean; a group without a label counts as 0, not as no number.

    Args:
        each: losses [K].
        groups: group of each [K].
        count: number of groups.
    """
    sums = each.new_zeros(count).index_add(0, groups, each)
    labels = each.new_zeros(count).index_add(0, groups, torch.ones_like(each))
    return (sums / labels.clamp(min=1)).mean()


def pretrain(
    bench: Bench,
    model: nn.Module,
    streams: Mapping[str, Stream],
    weights: Mapping[str, float],
    recipe: Recipe,
    *,
    mean_rows: int | None,
    seed: int,
    scope: str,
    work: Path,
) -> None:
    """Train a masked language model on streams and save it, with its tokenizer, as a folder that transformers loads.

    Args:
        bench: the run's surroundings.
        model: the masked language model, with its head.
        streams: by name; an epoch is one pass over the first.
        weights: stream -> its weight in the loss.
        recipe: length, optimiser, batch, precision.
        mean_rows: rows over whose labelled tokens the loss is a mean, before the mean over these means is taken
            (released code: its micro batch of 4); None: over all labelled tokens of the global batch.
        seed: of order, masks and dropout.
        scope: name of the training in the log.
        work: the folder; checkpoints stand in it until it is done.
    """
    from kbench.engine.loop import fit

    assert bench.runtime is not None and bench.report is not None
    rows = recipe.epochs * len(next(iter(streams.values())))
    if recipe.max_steps is not None:
        rows = min(rows, recipe.max_steps * recipe.global_batch_size)
    feed: Any = StreamFeed(streams, rows, seed, mean_rows)
    fit(
        Pretrained(model, weights, mean_rows),
        feed,
        step_loss,
        replace(recipe, epochs=1),  # the feed holds them all: each pass has masks of its own
        bench.runtime,
        seed=seed,
        folder=work / "checkpoints",
        report=bench.report,
        scope=scope,
        log_every=bench.log_every,
    )
    if bench.runtime.is_main:
        saved: Any = model
        saved.save_pretrained(work)
        bench.tokenizer.save_pretrained(work)
        shutil.rmtree(work / "checkpoints", ignore_errors=True)
