"""Texts as token ids, ragged and memory-mapped: nothing is padded before it is in a batch.

<split>.ids       the ids of all rows one after another, raw int32
<split>.ends      int64, raw: where each row ends in <split>.ids
<split>.starts    of sentences: place in its row of each word's first token, raw int32; -1 where it was cut off
<split>.units     of sentences: where each row's words end in <split>.starts, raw int64
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
    """The token ids of one split.

    Attributes:
        lengths: tokens of each row [rows].
        unit_ends: where each row's units end [rows]; a text is one unit, a sentence has its words.
        starts: of sentences, token in its row at which a unit is read [units], -1 where it was cut off; None of texts.
    """

    def __init__(self, folder: Path, split: str):
        self._ends = np.memmap(folder / f"{split}.ends", dtype=np.int64, mode="r")
        self.lengths: np.ndarray = np.diff(self._ends, prepend=0).astype(np.int32)
        self._ids = np.memmap(folder / f"{split}.ids", dtype=np.int32, mode="r")
        self.unit_ends: np.ndarray = np.arange(1, len(self) + 1)
        self.starts: np.ndarray | None = None
        if (folder / f"{split}.starts").exists():
            self.unit_ends = np.fromfile(folder / f"{split}.units", dtype=np.int64)
            self.starts = np.memmap(folder / f"{split}.starts", dtype=np.int32, mode="r")

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
    read = records.words if records.tagged else records.texts
    starts: list[np.ndarray] = []
    with (work / f"{split}.ids").open("wb") as file:
        for start in range(0, count, _BATCH):
            texts = read(split, start, min(start + _BATCH, count))
            batch = tokenizer(texts, truncation=True, max_length=max_length, is_split_into_words=records.tagged)
            rows: Sequence[Sequence[int]] = batch["input_ids"]
            lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
            np.concatenate([np.asarray(row, dtype=np.int32) for row in rows]).tofile(file)
            ends[start : start + len(rows)] = written + np.cumsum(lengths)
            written += int(lengths.sum())
            if records.tagged:
                starts += [_first_tokens(batch.word_ids(row), len(words)) for row, words in enumerate(texts)]
    ends.tofile(work / f"{split}.ends")
    if records.tagged:
        np.concatenate(starts).tofile(work / f"{split}.starts")
        records.ends(split).tofile(work / f"{split}.units")


def _first_tokens(word_ids: Sequence[int | None], words: int) -> np.ndarray:
    """Place of each word's first token [words]; -1 where it was cut off or the tokenizer made nothing of it."""
    found = np.full(words, -1, dtype=np.int32)
    for place in range(len(word_ids) - 1, -1, -1):
        if word_ids[place] is not None:
            found[word_ids[place]] = place
    return found
