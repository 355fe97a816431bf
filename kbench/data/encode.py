"""Texts as token ids, ragged and memory-mapped: nothing is padded before it is in a batch.

A row is one *sequence* of tokens, or, where it has several second texts to choose from, one for each of them.

<split>.ids       the ids of all sequences one after another, raw int32
<split>.ends      int64, raw: where each sequence ends in <split>.ids
<split>.types     of pairs: which text each token is of, for models that are told, raw int8
<split>.starts    of sentences: place in its row of each word's first token, raw int32; -1 where it was cut off; of
                  texts with marked entities, the token, or the two, at which they are read
<split>.units     where each row's words end in <split>.starts, raw int64
<split>.row_ends  of questions: where each one's windows end among the sequences, raw int64
<split>.offsets   of questions: characters of the context that each token stands for, raw int32 [tokens, 2]; else -1
<split>.first     of questions: place in each window of the answer's first token, raw int32; <split>.last of its last
<split>.full_from of questions: the tokens of each window whose context is widest there, raw int32; <split>.full_until
encoded.json      sequences of a row; per split its tokens, and how many of them are the unknown one
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kbench.config.identity import science
from kbench.config.probing import ProbeOptions
from kbench.config.schema import LabelPiece, Layout
from kbench.data.units import units_of
from kbench.data.words import WordEncoder
from kbench.stages.stage import Stage

if TYPE_CHECKING:
    from kbench.data.records import Records

_BATCH = 1000


class Encoded:
    """The token ids of one split.

    Attributes:
        sequences: sequences of each row.
        lengths: tokens of each row, over all its sequences [rows].
        unit_ends: where each row's units end [rows]; a text is one unit, a sentence has its words.
        starts: of sentences, token in its row at which a unit is read [units], -1 where it was cut off; None of texts.
        row_ends: of questions, where each one's windows end [questions]; a window is then a unit. None elsewhere.
        unknown: share of the tokens that are the unknown one.
    """

    def __init__(self, folder: Path, split: str):
        info = json.loads((folder / "encoded.json").read_text(encoding="utf-8"))
        self.sequences = int(info["sequences"])
        tokens = info["tokens"][split]
        self.unknown: float = tokens["unknown"] / max(1, tokens["all"])
        self.ends: np.ndarray = np.memmap(folder / f"{split}.ends", dtype=np.int64, mode="r")
        self.sequence_lengths: np.ndarray = np.diff(self.ends, prepend=0).astype(np.int32)
        self.lengths: np.ndarray = self.sequence_lengths.reshape(-1, self.sequences).sum(1, dtype=np.int32)
        self._ids = np.memmap(folder / f"{split}.ids", dtype=np.int32, mode="r")
        self._types: np.ndarray | None = None
        if (folder / f"{split}.types").exists():
            self._types = np.memmap(folder / f"{split}.types", dtype=np.int8, mode="r")
        self.unit_ends: np.ndarray = np.arange(1, len(self) + 1)
        self.starts: np.ndarray | None = None
        if (folder / f"{split}.starts").exists():
            self.unit_ends = np.fromfile(folder / f"{split}.units", dtype=np.int64)
            self.starts = np.memmap(folder / f"{split}.starts", dtype=np.int32, mode="r")
        self.row_ends: np.ndarray | None = None
        if (folder / f"{split}.row_ends").exists():
            self.row_ends = np.fromfile(folder / f"{split}.row_ends", dtype=np.int64)
        self._place = folder, split

    def extra(self, name: str) -> np.ndarray:
        """A further array of the split, memory-mapped, int32: `offsets` [tokens, 2], all others [windows]."""
        folder, split = self._place
        array = np.memmap(folder / f"{split}.{name}", dtype=np.int32, mode="r")
        return array.reshape(-1, 2) if name == "offsets" else array

    def lines(self, rows: np.ndarray) -> np.ndarray:
        """Where some rows of the data set stand here: of questions their windows, of all others themselves."""
        return rows if self.row_ends is None else units_of(self.row_ends, rows)

    def __len__(self) -> int:
        return len(self.lengths)

    def sequences_of(self, rows: np.ndarray) -> np.ndarray:
        """The sequences of some rows [rows * sequences], in the rows' order."""
        return (rows[:, None] * self.sequences + np.arange(self.sequences)).reshape(-1)

    def padded(self, rows: np.ndarray, pad: int, width: int | None = None) -> dict[str, np.ndarray]:
        """Rows as rectangles: `input_ids`, `attention_mask` and, where there are types, `token_type_ids`.

        All int64 [rows, width], or [rows, sequences, width] where a row has several; width is the longest sequence
        unless given.
        """
        chosen = self.sequences_of(rows)
        lengths = self.sequence_lengths[chosen]
        width = int(lengths.max()) if width is None else width
        found = {"input_ids": np.full((len(chosen), width), pad, dtype=np.int64)}
        found["attention_mask"] = (np.arange(width) < lengths[:, None]).astype(np.int64)
        if self._types is not None:
            found["token_type_ids"] = np.zeros((len(chosen), width), dtype=np.int64)
        for line, (end, length) in enumerate(zip(self.ends[chosen], lengths, strict=True)):
            found["input_ids"][line, :length] = self._ids[end - length : end]
            if self._types is not None:
                found["token_type_ids"][line, :length] = self._types[end - length : end]
        if self.sequences == 1:
            return found
        return {name: array.reshape(len(rows), self.sequences, width) for name, array in found.items()}


def encode_stage(
    records: Records,
    tokenizer: Callable[[Path | None], Any],
    backbone: Stage | str,
    max_length: int,
    kind: str = "auto",
    options: Any = None,
) -> Stage:
    """The stage that turns a data set's texts into token ids.

    Args:
        records: the rows.
        tokenizer: gives the tokenizer, from the backbone's stage folder where it has one.
        backbone: the stage that builds the backbone, or the identity of one that stands ready.
        max_length: longest sequence in tokens, special tokens included.
        kind: how the backbone's files are read.
        options: those of the data set's task, where it has some.
    """
    chosen: dict[str, Any] = {"records": records.content, "max_length": max_length, "tokenizer": kind}
    if options is not None:
        chosen["options"] = science(options)
    if isinstance(options, ProbeOptions) and options.content():
        chosen["option_files"] = options.content()
    parents = {"backbone": backbone} if isinstance(backbone, Stage) else {}
    if isinstance(backbone, str):
        chosen["backbone"] = backbone

    def build(work: Path, folders: Mapping[str, Path]) -> None:
        encode = tokenizer(folders.get("backbone"))
        info: dict[str, Any] = {"sequences": 1, "tokens": {}}
        encoders = _encoders()
        for split in records.splits:
            encoder = encoders[records.layout](encode, max_length, options)
            info["tokens"][split] = _encode_split(records, split, encoder, work)
            info["sequences"] = encoder.sequences
        (work / "encoded.json").write_text(json.dumps(info), encoding="utf-8")

    return Stage("encoded", 2, chosen, build, parents)


class TextEncoder:
    """Token ids of rows; beside them, over all rows so far, what a batch needs, and how many tokens were unknown."""

    sequences = 1
    reads = 1  # tokens at which a unit is read

    def __init__(self, tokenizer: Any, max_length: int, options: Any = None):
        self.tokenizer, self.max_length, self.options = tokenizer, max_length, options
        self.unknown = self.total = 0
        self.arrays: dict[str, list[np.ndarray]] = {}

    def encode(self, rows: Sequence[Any]) -> list[np.ndarray]:
        """Ids of each sequence, int32 [tokens]."""
        return self._encoded(list(rows))

    def _encoded(self, *texts: list[str]) -> list[np.ndarray]:
        batch = self.tokenizer(*texts, truncation=True, max_length=self.max_length)
        rows = [np.asarray(row, dtype=np.int32) for row in batch["input_ids"]]
        special = self.tokenizer.num_special_tokens_to_add(pair=len(texts) > 1)
        self.total += sum(map(len, rows)) - special * len(rows)
        self.unknown += sum(int((row == self.tokenizer.unk_token_id).sum()) for row in rows)
        if len(texts) > 1 and "token_type_ids" in batch:
            self.arrays.setdefault("types", []).extend(
                np.asarray(row, dtype=np.int8) for row in batch["token_type_ids"]
            )
        return rows


class PairEncoder(TextEncoder):
    """The same of a first text with each of its second ones."""

    def encode(self, rows: Sequence[Any]) -> list[np.ndarray]:
        self.sequences = len(rows[0]) - 1
        return self._encoded(
            [first for first, *seconds in rows for _ in seconds], [second for _, *seconds in rows for second in seconds]
        )


class SentenceEncoder(TextEncoder):
    """The same of sentences, word by word."""

    def __init__(self, tokenizer: Any, max_length: int, options: Any = None):
        super().__init__(tokenizer, max_length)
        nonempty = options is not None and options.label_piece is LabelPiece.first_nonempty
        self._encoder = WordEncoder(tokenizer, max_length, nonempty)

    def encode(self, rows: Sequence[Any]) -> list[np.ndarray]:
        found, starts = self._encoder.encode(list(rows))
        self.unknown, self.total = self._encoder.unknown, self._encoder.total
        self.arrays.setdefault("starts", []).extend(starts)
        return found


def _encode_split(records: Records, split: str, encoder: Any, work: Path) -> dict[str, int]:
    """Write a split; gives its tokens, special ones left out, and how many of them are the unknown one."""
    count = records.rows(split)
    texts = dict.fromkeys((Layout.text, Layout.marked, Layout.typed), records.texts)
    readers: dict[Layout, Any] = {**texts, Layout.spans: records.answered}
    read = readers.get(records.layout, records.pieces)
    written = 0
    with ExitStack() as files:
        opened: dict[str, Any] = {}

        def append(name: str, array: np.ndarray) -> None:
            if name not in opened:
                opened[name] = files.enter_context((work / f"{split}.{name}").open("wb"))
            array.tofile(opened[name])

        for start in range(0, count, _BATCH):
            rows = encoder.encode(read(split, start, min(start + _BATCH, count)))
            lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
            append("ids", np.concatenate(rows))
            append("ends", written + np.cumsum(lengths))
            written += int(lengths.sum())
            for name, arrays in encoder.arrays.items():
                append(name, np.concatenate(arrays))
                arrays.clear()
    if "starts" in encoder.arrays:
        (records.ends(split) * encoder.reads).tofile(work / f"{split}.units")
    return {"all": encoder.total, "unknown": encoder.unknown}


# layout -> encoder of rows that are texts, words or pairs: what a model on its own reads, too
ENCODERS: dict[Layout, Any] = {
    Layout.text: TextEncoder,
    Layout.words: SentenceEncoder,
    Layout.pairs: PairEncoder,
}


def _encoders() -> dict[Layout, Any]:
    """The encoder of each layout; those of windows and of markers are built upon the ones here."""
    from kbench.data.entities import MentionEncoder
    from kbench.data.relations import MarkerEncoder
    from kbench.data.windows import SpanEncoder

    return ENCODERS | {Layout.marked: MarkerEncoder, Layout.typed: MentionEncoder, Layout.spans: SpanEncoder}
