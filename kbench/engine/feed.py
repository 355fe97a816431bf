"""Batches: token ids of some rows, padded to the longest of them, with the columns a method needs beside.

What is scored is a *unit*: a text, or a word of a sentence. Columns and scores have one line a unit, so that everything
above the model is the same for both.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from kbench.data.encode import Encoded
from kbench.data.units import unit_counts, units_of

# what a model is called with; the rest of a batch is for the loss
_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "resource", "resource_mask")


class Beside(Protocol):
    """Further inputs of a model, beside the text."""

    def batch(self, rows: np.ndarray, device: torch.device) -> dict[str, Tensor]:
        """Those of some rows of the split, by the name of the model's argument."""


class Feed:
    """The rows of a training or an evaluation.

    Args:
        encoded: token ids of a whole split.
        rows: the rows of that split to use, in order [n].
        pad: id of the padding token.
        columns: arrays beside the text with one line for each unit of the split, memory-mapped or not.
        width: pad every batch to this many tokens; None: to its longest row.
        unread: units of the split to leave out like words that were cut off [units], bool; None: no others.
        beside: gives the model further inputs; None: the text is all.
    """

    def __init__(
        self,
        encoded: Encoded,
        rows: np.ndarray,
        pad: int,
        columns: Mapping[str, np.ndarray] | None = None,
        width: int | None = None,
        unread: np.ndarray | None = None,
        beside: Beside | None = None,
    ):
        self.rows = rows
        self.encoded = encoded
        self.lengths = encoded.lengths[rows]
        self._starts = encoded.starts
        if unread is not None and encoded.starts is not None:
            self._starts = np.where(unread, -1, encoded.starts)
        self._ends = np.cumsum(unit_counts(encoded.unit_ends, rows))
        self._pad = pad
        self._width = width
        self._beside = beside
        self._columns = dict(columns or {})
        total = int(encoded.unit_ends[-1]) if len(encoded) else 0
        for name, column in self._columns.items():
            if len(column) != total:
                raise ValueError(f"column {name} has {len(column)} lines, the split {total} units")

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def units(self) -> int:
        """All units of all rows."""
        return int(self._ends[-1]) if len(self) else 0

    @cached_property
    def weights(self) -> np.ndarray:
        """How many units the model reads in each row [n]: what the row counts for in a mean."""
        if self._starts is None:
            return np.ones(len(self), dtype=np.int64)
        read = np.concatenate([[0], np.cumsum(self._starts >= 0)])
        ends = self.encoded.unit_ends[self.rows]
        found: np.ndarray = read[ends] - read[ends - unit_counts(self.encoded.unit_ends, self.rows)]
        return found

    def seen(self, positions: np.ndarray) -> np.ndarray:
        """Line among this feed's units of each unit that the model reads in these positions: none that was cut off."""
        if self._starts is None:
            return positions
        units = units_of(self.encoded.unit_ends, self.rows[positions])
        return units_of(self._ends, positions)[self._starts[units] >= 0]

    def batch(self, positions: np.ndarray, device: torch.device) -> dict[str, Tensor]:
        """`input_ids`, `attention_mask` [B, L] and the columns of these positions, on the device.

        Of pairs there is also `token_type_ids` where the model is told; rows with K choices have [B, K, L]. Of
        sentences there is `units` [U], where in the B * L tokens each unit is read, `unit_stops` [U], where its tokens
        have ended, and `row_units` [B], how many of them a row has; columns have U lines.
        """
        rows = self.rows[positions]
        arrays: dict[str, Any] = self.encoded.padded(rows, self._pad, self._width)
        lines = rows
        if self._starts is not None and self.encoded.starts is not None:
            lines = units_of(self.encoded.unit_ends, rows)
            starts = self._starts[lines].astype(np.int64)
            row = np.repeat(np.arange(len(rows)), unit_counts(self.encoded.unit_ends, rows))
            read = starts >= 0
            # a word ends where the next one begins, the last one that was not cut off before the final special token
            following = np.append(self.encoded.starts[lines[1:]], -1)
            following[np.flatnonzero(np.diff(row, append=-1))] = -1
            stops = np.where(following < 0, self.encoded.lengths[rows[row]] - 1, following)
            lines, row, width = lines[read], row[read], arrays["input_ids"].shape[1]
            arrays["units"] = row * width + starts[read]
            arrays["unit_stops"] = row * width + stops[read]
            arrays["row_units"] = np.bincount(row, minlength=len(rows))
        arrays |= {name: np.ascontiguousarray(column[lines]) for name, column in self._columns.items()}
        tensors = {name: moved(torch.from_numpy(array), device) for name, array in arrays.items()}
        return tensors | (self._beside.batch(rows, device) if self._beside else {})

    def shared(self, positions: np.ndarray) -> dict[str, Tensor]:
        """What every micro batch of a step is told of its global batch: `step_units`, all its units."""
        return {"step_units": torch.tensor(int(self.weights[positions].sum()))}

    def by_length(self, size: int) -> list[np.ndarray]:
        """Positions in batches of `size`, longest rows first, so that little is padding and memory peaks at once."""
        order = np.argsort(-self.lengths, kind="stable")
        return [order[start : start + size] for start in range(0, len(order), size)]

    def by_tokens(self, tokens: int) -> list[np.ndarray]:
        """The same in batches of about so many tokens: the longest row's for each, but of one row at least."""
        order = np.argsort(-self.lengths, kind="stable")
        found, start = [], 0
        while start < len(order):
            size = max(1, tokens // int(self.lengths[order[start]]))
            found.append(order[start : start + size])
            start += size
        return found


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on the device, copied while the device works."""
    return tensor if device.type != "cuda" else tensor.pin_memory().to(device, non_blocking=True)


def inputs(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What of a batch a model is called with."""
    return {name: batch[name] for name in _INPUTS if name in batch}


def unit_logits(logits: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    """The logits of a batch's units: [.., B, C] of texts as they are, [.., B, L, C] of sentences to [.., U, C]."""
    if "units" not in batch:
        return logits
    return logits.flatten(-3, -2)[..., batch["units"], :]


def pooled_logits(logits: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    """The mean logits of all tokens of each word of a batch: [B, L, C] to [U, C]."""
    before = torch.nn.functional.pad(logits.flatten(0, 1).double().cumsum(0), (0, 0, 1, 0))
    first, stop = batch["units"], batch["unit_stops"]
    return ((before[stop] - before[first]) / (stop - first)[:, None]).to(logits.dtype)
