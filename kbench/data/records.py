"""Rows of a data set as memory-mapped arrow files: read once from the source, checked, cut to size, then shared.

<split>.arrow   row (number in the source split), text, label (index into data.labels)
records.json    rows and classes of each split, what the source held, hash of the content
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from kbench.config.identity import science
from kbench.config.schema import Data
from kbench.data import toy
from kbench.data.readers import READERS
from kbench.data.source import Source
from kbench.engine.seeding import derive
from kbench.errors import DataError, Problem
from kbench.registry import near
from kbench.stages.stage import Stage

SPLITS = ("train", "validation", "test")
_BATCH = 8192
_SHOWN = 5
_SCHEMA = pa.schema([("row", pa.int64()), ("text", pa.string()), ("label", pa.int32())])


class Records:
    """The rows of a data set. Texts stay on disk until asked for."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.info: dict[str, Any] = json.loads((folder / "records.json").read_text(encoding="utf-8"))

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits there are, train first."""
        return tuple(split for split in SPLITS if split in self.info["rows"])

    @property
    def content(self) -> str:
        """Hash of all rows: equal for equal rows, wherever they came from."""
        return str(self.info["content"])

    def rows(self, split: str) -> int:
        """Number of rows of a split."""
        return int(self.info["rows"][split])

    def table(self, split: str) -> pa.Table:
        """The rows of a split, memory-mapped."""
        return self._tables[split]

    def texts(self, split: str, start: int = 0, stop: int | None = None) -> list[str]:
        """The texts of rows start to stop."""
        length = None if stop is None else stop - start
        return self.table(split)["text"].slice(start, length).to_pylist()

    def labels(self, split: str) -> np.ndarray:
        """Label indices [rows], int64."""
        return self.table(split)["label"].to_numpy().astype(np.int64)

    def numbers(self, split: str) -> np.ndarray:
        """Row numbers in the source split [rows], int64."""
        return self.table(split)["row"].to_numpy()

    @cached_property
    def _tables(self) -> dict[str, pa.Table]:
        return {split: _open(self.folder / f"{split}.arrow") for split in self.splits}


def records_stage(data: Data, source: Source) -> Stage:
    """The stage that makes `Records` from a source."""
    names = ("reader", "labels", "source_labels", "train_size", "validation_size", "test_size", "subset_seed")
    chosen = {name: value for name, value in science(data).items() if name in names}
    chosen["content"] = {"toy": toy.VERSION} if source.kind == "generated" else source.content()
    if "all" in source.files:
        chosen["test_rows"] = data.rows.test

    def build(work: Path, parents: Mapping[str, Path]) -> None:
        try:
            _write(data, source, work)
        except DataError:
            shutil.rmtree(work)  # mended files have another key: nobody would continue this
            raise

    return Stage("records", 2, chosen, build)


def stratified(labels: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Rows of a subset that keeps the classes' shares, ascending.

    Each class gets its share of `size` rounded down; what is left goes to the largest remainders, lower class first.

    Args:
        labels: class of each row [n].
        size: rows to take, at most n.
        seed: decides which rows of a class are taken; those of a smaller subset are a prefix of a larger one's.
    """
    classes, counts = np.unique(labels, return_counts=True)
    take, remainder = np.divmod(counts * size, len(labels))
    order = np.lexsort((classes, -remainder))
    take[order[: size - int(take.sum())]] += 1
    chosen = [
        np.random.default_rng(derive(seed, "class", int(label))).permutation(np.flatnonzero(labels == label))[:count]
        for label, count in zip(classes, take, strict=True)
    ]
    return np.sort(np.concatenate(chosen))


def _write(data: Data, source: Source, work: Path) -> None:
    whole = {}
    problems: list[Problem] = []
    for split, rows in _source_rows(data, source).items():
        path = work / f"{split}.whole"
        try:
            _write_arrow(path, rows)
        except DataError as error:
            problems += error.problems
        whole[split] = path
    if problems:
        raise DataError(*problems[:_SHOWN])
    tables = {split: _open(path) for split, path in whole.items()}
    found = {split: table.num_rows for split, table in tables.items()}
    if "all" in tables:
        everything = tables.pop("all")
        if everything.num_rows <= data.rows.test:
            raise DataError(Problem(source.where, f"holds {everything.num_rows} rows; {data.rows.test} are test"))
        labels = everything["label"].to_numpy()
        test = stratified(labels, data.rows.test, derive(data.subset_seed, "test draw"))
        rest = np.setdiff1d(np.arange(len(labels)), test)
        tables = {"train": everything.take(pa.array(rest)), "test": everything.take(pa.array(test))}
        found = {split: table.num_rows for split, table in tables.items()}
    sizes = {"train": data.train_size, "validation": data.validation_size, "test": data.test_size}
    problems = [
        Problem(
            f"data.{split}_size", f"asks for {sizes[split]} rows; {source.where} has {table.num_rows}", "take fewer"
        )
        for split, table in tables.items()
        if (size := sizes[split]) is not None and size > table.num_rows
    ]
    if data.validation_size is not None and "validation" not in tables:
        hint = "its share of train is data.validation_share"
        problems.append(Problem("data.validation_size", f"{data.name} has no validation split", hint))
    if problems:
        raise DataError(*problems)
    content = hashlib.sha256()
    rows, classes = {}, {}
    for split in [s for s in SPLITS if s in tables]:
        table = tables[split]
        size = sizes[split]
        if size is not None:
            chosen = stratified(table["label"].to_numpy(), size, derive(data.subset_seed, "subset", split))
            table = table.take(pa.array(chosen))
        with pa.OSFile(str(work / f"{split}.arrow"), "wb") as sink, pa.ipc.new_file(sink, _SCHEMA) as writer:
            for batch in table.to_batches(max_chunksize=_BATCH):
                writer.write_batch(batch)
                content.update(f"{split}\x1e".encode())
                for text, label in zip(batch["text"].to_pylist(), batch["label"].to_pylist(), strict=True):
                    content.update(f"{label}\x1f{text}\x1e".encode())
        rows[split] = table.num_rows
        counts = np.bincount(table["label"].to_numpy(), minlength=len(data.labels))
        classes[split] = dict(zip(data.labels, map(int, counts), strict=True))
    del tables, table
    for path in whole.values():
        path.unlink()
    info = {"rows": rows, "classes": classes, "found": found, "source": source.kind, "content": content.hexdigest()}
    (work / "records.json").write_text(json.dumps(info, indent=1, ensure_ascii=False), encoding="utf-8")


def _source_rows(data: Data, source: Source) -> dict[str, Iterator[tuple[int, str, int]]]:
    """split -> its (row number, text, label index) rows, checked as they are read."""
    if source.kind == "generated":
        return {
            split: ((row, text, label) for row, (text, label) in enumerate(toy.generate(split, len(data.labels))))
            for split in toy.SIZES
        }
    return {split: _checked(data, source, paths) for split, paths in source.files.items()}


def _checked(data: Data, source: Source, paths: tuple[Path, ...]) -> Iterator[tuple[int, str, int]]:
    if source.kind == "hub":
        reader, names = READERS["parquet"], [str(index) for index in range(len(data.labels))]
    else:
        reader, names = READERS[data.reader], data.source_labels or data.labels
    index = {name: position for position, name in enumerate(names)}
    problems: list[Problem] = []
    row = 0
    for path in paths:
        before = row, len(problems)
        try:
            for line, text, label in reader(path):
                row += 1
                where = f"{path}, line {line}"
                if label not in index:
                    known = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
                    problems.append(Problem(where, f"unknown label {label!r}{near(label, names)}", f"labels: {known}"))
                elif not text.strip():
                    problems.append(Problem(where, "has no text"))
                else:
                    yield row - 1, text, index[label]
                if len(problems) >= _SHOWN:
                    break
        except DataError as error:
            problems += error.problems
        if (row, len(problems)) == before:
            problems.append(Problem(str(path), "is empty"))
        if len(problems) >= _SHOWN:
            break
    if problems:
        raise DataError(*problems)


def _write_arrow(path: Path, rows: Iterator[tuple[int, str, int]]) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, _SCHEMA) as writer:
        pending: list[tuple[int, str, int]] = []
        for row in rows:
            pending.append(row)
            if len(pending) == _BATCH:
                writer.write_batch(_batch(pending))
                pending = []
        if pending:
            writer.write_batch(_batch(pending))


def _batch(rows: list[tuple[int, str, int]]) -> pa.RecordBatch:
    columns = zip(*rows, strict=True)
    return pa.record_batch([pa.array(c, f.type) for c, f in zip(columns, _SCHEMA, strict=True)], schema=_SCHEMA)


def _open(path: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
