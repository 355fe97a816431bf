"""Texts as token ids, ragged and memory-mapped: nothing is padded before it is in a batch.

<split>.ids       the ids of all rows one after another, raw int32
<split>.ends      int64, raw: where each row ends in <split>.ids
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kbench.data.records import Records
from kbench.stages.stage import Stage

_BATCH = 1000


class Encoded:
    """The token ids of one split."""

    def __init__(self, folder: Path, split: str):
        self._ends = np.memmap(folder / f"{split}.ends", dtype=np.int64, mode="r")
        self.lengths: np.ndarray = np.diff(self._ends, prepend=0).astype(np.int32)
        self._ids = np.memmap(folder / f"{split}.ids", dtype=np.int32, mode="r")

    def __len__(self) -> int:
        return len(self.lengths)

    def padded(self, rows: np.ndarray, pad: int, width: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Rows as a rectangle: ids and mask, both int64 [rows, width]; width is the longest row unless given."""
        lengths = self.lengths[rows]
        width = int(lengths.max()) if width is None else width
        ids = np.full((len(rows), width), pad, dtype=np.int64)
        mask = np.arange(width) < lengths[:, None]
        for line, (end, length) in enumerate(zip(self._ends[rows], lengths, strict=True)):
            ids[line, :length] = self._ids[end - length : end]
        return ids, mask.astype(np.int64)


def encode_stage(
    records: Records, tokenizer: Callable[[Path | None], Any], backbone: Stage | str, max_length: int
) -> Stage:
    """The stage that turns a data set's texts into token ids.

    Args:
        records: the rows.
        tokenizer: gives the tokenizer, from the backbone's stage folder where it has one.
        backbone: the stage that builds the backbone, or the identity of one that stands ready.
        max_length: longest row in tokens, special tokens included.
    """
    chosen: dict[str, Any] = {"records": records.content, "max_length": max_length}
    parents = {"backbone": backbone} if isinstance(backbone, Stage) else {}
    if isinstance(backbone, str):
        chosen["backbone"] = backbone

    def build(work: Path, folders: Mapping[str, Path]) -> None:
        encode = tokenizer(folders.get("backbone"))
        for split in records.splits:
            _encode_split(records, split, encode, max_length, work)

    return Stage("encoded", 1, chosen, build, parents)


def _encode_split(records: Records, split: str, tokenizer: Any, max_length: int, work: Path) -> None:
    count = records.rows(split)
    ends = np.empty(count, dtype=np.int64)
    written = 0
    with (work / f"{split}.ids").open("wb") as file:
        for start in range(0, count, _BATCH):
            texts = records.texts(split, start, min(start + _BATCH, count))
            rows: Sequence[Sequence[int]] = tokenizer(texts, truncation=True, max_length=max_length)["input_ids"]
            lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
            np.concatenate([np.asarray(row, dtype=np.int32) for row in rows]).tofile(file)
            ends[start : start + len(rows)] = written + np.cumsum(lengths)
            written += int(lengths.sum())
    ends.tofile(work / f"{split}.ends")
