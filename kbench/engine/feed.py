"""Batches: token ids of some rows, padded to the longest of them, with the columns a method needs beside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kbench.data.encode import Encoded


class Feed:
    """The rows of a training or an evaluation.

    Args:
        encoded: token ids of a whole split.
        rows: the rows of that split to use, in order [n].
        pad: id of the padding token.
        columns: arrays beside the text with one row for each row of the split, memory-mapped or not.
        width: pad every batch to this many tokens; None: to its longest row.
    """

    def __init__(
        self,
        encoded: Encoded,
        rows: np.ndarray,
        pad: int,
        columns: Mapping[str, np.ndarray] | None = None,
        width: int | None = None,
    ):
        self.rows = rows
        self.lengths = encoded.lengths[rows]
        self._encoded = encoded
        self._pad = pad
        self._width = width
        self._columns = dict(columns or {})
        for name, column in self._columns.items():
            if len(column) != len(encoded):
                raise ValueError(f"column {name} has {len(column)} rows, the split {len(encoded)}")

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, positions: np.ndarray, device: torch.device) -> dict[str, Tensor]:
        """`input_ids`, `attention_mask` [B, L] and the columns of these positions, on the device."""
        rows = self.rows[positions]
        ids, mask = self._encoded.padded(rows, self._pad, self._width)
        arrays: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
        arrays |= {name: np.ascontiguousarray(column[rows]) for name, column in self._columns.items()}
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        if device.type != "cuda":
            return tensors
        return {name: tensor.pin_memory().to(device, non_blocking=True) for name, tensor in tensors.items()}

    def by_length(self, size: int) -> list[np.ndarray]:
        """Positions in batches of `size`, longest rows first, so that little is padding and memory peaks at once."""
        order = np.argsort(-self.lengths, kind="stable")
        return [order[start : start + size] for start in range(0, len(order), size)]
