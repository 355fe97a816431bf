"""Rows of a data set as memory-mapped arrow files: read once from the source, checked, cut to size, then shared.

<split>.arrow   row (number in the source split); what the row holds, a text, the words of a sentence, a first text and
                its second ones, a question, its context and answers, or a fact; its label (index into
                data.outputs()) or score, the label of each word, those of a mention, or where each answer begins in
                the context
words.txt       of a probe whose answers are chosen from a list of words, that list, one a line
records.json    rows and labels of each split, what the source held, hash of the content; the rows of each language
                where a split has several
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from kbench.config.identity import science
from kbench.config.schema import Data, Layout
from kbench.data import prompts
from kbench.data.generated import GENERATORS
from kbench.data.lama import read_words
from kbench.data.rows import SHOWN, Row, source_rows
from kbench.data.source import Source
from kbench.engine.seeding import derive
from kbench.errors import DataError, Problem
from kbench.files import hash_file
from kbench.stages.stage import Stage

SPLITS = ("train", "validation", "test")
_BATCH = 8192
_WORDS = "words.txt"
_TEXTS = pa.schema([("row", pa.int64()), ("text", pa.string()), ("label", pa.int32())])
_PIECES = pa.schema([("row", pa.int64()), ("text", pa.list_(pa.string())), ("label", pa.int32())])
_SEVERAL = pa.schema([("row", pa.int64()), ("text", pa.string()), ("label", pa.list_(pa.int32()))])
_LISTS = pa.schema([("row", pa.int64()), ("text", pa.list_(pa.string())), ("label", pa.list_(pa.int32()))])
_SCORED = pa.schema([("row", pa.int64()), ("text", pa.list_(pa.string())), ("label", pa.float64())])
_SCHEMAS = {
    Layout.text: _TEXTS,
    Layout.marked: _TEXTS,
    Layout.typed: _SEVERAL,
    Layout.words: _LISTS,
    Layout.spans: _LISTS,
    Layout.pairs: _PIECES,
    Layout.facts: _PIECES,
}


class Records:
    """The rows of a data set. Texts stay on disk until asked for.

    A row has one *unit*, its text, or several, the words of a sentence; a unit is what has a label.
    """

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

    @property
    def layout(self) -> Layout:
        """What a row holds."""
        return Layout(self.info["layout"])

    @property
    def tagged(self) -> bool:
        """Whether the words of a row have labels of their own."""
        return self.layout is Layout.words

    def words(self) -> list[str] | None:
        """The words that the answers of a probe are chosen from, where the data set has a list of them."""
        path = self.folder / _WORDS
        return path.read_text(encoding="utf-8").splitlines() if path.is_file() else None

    def groups(self, split: str) -> dict[str, np.ndarray]:
        """The rows of each language of a split that has several, in order; empty for others."""
        return {lang: np.arange(*ends) for lang, ends in self.info.get("groups", {}).get(split, {}).items()}

    def languages(self, split: str, rows: np.ndarray | None = None) -> list[str | None]:
        """The language of each row of a split, or of some rows; None of a data set that is not told by language.

        Rows of train and validation are in the language that is learned.
        """
        chosen = np.arange(self.rows(split)) if rows is None else rows
        groups = self.info.get("groups", {}).get(split)
        if groups is None:
            return [self.info.get("learned")] * len(chosen)
        stops = np.array([stop for _, stop in groups.values()], dtype=np.int64)
        names = [*groups, None]
        return [names[index] for index in np.searchsorted(stops, chosen, side="right")]

    def rows(self, split: str) -> int:
        """Number of rows of a split."""
        return int(self.info["rows"][split])

    def table(self, split: str) -> pa.Table:
        """The rows of a split, memory-mapped."""
        return self._tables[split]

    def texts(self, split: str, start: int = 0, stop: int | None = None) -> list[str]:
        """The texts of rows start to stop; of sentences and pairs, their words or texts with spaces between."""
        found = self._slice(split, start, stop)
        return [text if isinstance(text, str) else " ".join(text) for text in found]

    def pieces(self, split: str, start: int = 0, stop: int | None = None) -> list[list[str]]:
        """The words of sentences start to stop; of pairs, the first text and its second ones."""
        return self._slice(split, start, stop)

    def answered(self, split: str, start: int, stop: int) -> list[tuple[list[str], list[int]]]:
        """Of questions start to stop: question, context and answers, and where each answer begins in the context."""
        table = self.table(split).slice(start, stop - start)
        return list(zip(table["text"].to_pylist(), table["label"].to_pylist(), strict=True))

    def labels(self, split: str) -> np.ndarray:
        """Label of each unit [units], int64, index into `data.outputs()`."""
        column = self.table(split)["label"].combine_chunks()
        return (column.flatten() if self.tagged else column).to_numpy().astype(np.int64)

    def scores(self, split: str) -> np.ndarray:
        """Of rows that have a score in place of a label: the score of each [rows], float64."""
        found: np.ndarray = self.table(split)["label"].to_numpy()
        return found

    def several(self, split: str, labels: int) -> np.ndarray:
        """Of rows that may have several labels, or none: whether each has each of them [rows, labels], bool."""
        lists = self.table(split)["label"].combine_chunks()
        found = np.zeros((len(lists), labels), dtype=bool)
        found[np.repeat(np.arange(len(lists)), lists.value_lengths().to_numpy()), lists.flatten().to_numpy()] = True
        return found

    def ends(self, split: str) -> np.ndarray:
        """Where each row's units end in `labels` [rows], int64."""
        if not self.tagged:
            return np.arange(1, self.rows(split) + 1)
        return np.cumsum(self.table(split)["label"].combine_chunks().value_lengths().to_numpy(), dtype=np.int64)

    def numbers(self, split: str) -> np.ndarray:
        """Row numbers in the source split [rows], int64."""
        return self.table(split)["row"].to_numpy()

    def _slice(self, split: str, start: int, stop: int | None) -> list[Any]:
        length = None if stop is None else stop - start
        found: list[Any] = self.table(split)["text"].slice(start, length).to_pylist()
        return found

    @cached_property
    def _tables(self) -> dict[str, pa.Table]:
        return {split: _open(self.folder / f"{split}.arrow") for split in self.splits}


def records_stage(data: Data, source: Source, where: str = "data") -> Stage:
    """The stage that makes `Records` from a source. `where` is the configuration node, for messages."""
    names = {"task", "reader", "encoding", "labels", "source_labels", "subset_seed", *(f"{s}_size" for s in SPLITS)}
    chosen = {name: value for name, value in science(data).items() if name in names}
    parents = {
        name: records_stage(part, source.parts[name], f"{where}.parts.{name}")
        for name, part in (data.parts or {}).items()
    }
    if parents:
        chosen["parts"] = list(parents)  # in order: labels and rows follow it
    if source.kind == "generated":
        chosen["content"] = {data.reader: GENERATORS[data.reader][0]}
    elif not parents:
        chosen["content"] = source.content()
    if data.task == "probe":
        chosen["inflection"] = prompts.VERSION
    if source.words is not None:
        chosen["words"] = hash_file(source.words)
    if source.cut():
        chosen["pieces"] = source.cut()
    elif data.zero_shot is not None:
        chosen["languages"] = {split: data.split_languages(split) for split in ("train", "test")}
    if data.zero_shot is not None and data.zero_shot.encodings is not None:
        chosen["encodings"] = dict(data.zero_shot.encodings)
    if "all" in source.files:
        chosen["test_rows"] = data.rows.test

    def build(work: Path, folders: Mapping[str, Path]) -> None:
        try:
            parts = [Records(folders[name]) for name in data.parts or {}]
            tables, found, groups = (*_joined(data, parts), {}) if parts else _read(data, source, work)
            _check_sizes(data, source, tables, groups, where)
            _write(data, source, tables, found, groups, work)
        except DataError:
            shutil.rmtree(work)  # mended files have another key: nobody would continue this
            raise

    return Stage("records", 4, chosen, build, parents)


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


def _strata(table: pa.Table) -> np.ndarray:
    """The class of each row; sentences, questions and rows with a score are all of one."""
    if table.schema.field("label").type != pa.int32():
        return np.zeros(table.num_rows, dtype=np.int64)
    found: np.ndarray = table["label"].to_numpy()
    return found


# split -> language -> where its rows begin and end
Groups = dict[str, dict[str, tuple[int, int]]]


def _read(data: Data, source: Source, work: Path) -> tuple[dict[str, pa.Table], dict[str, int], Groups]:
    """split -> its rows, what the source held, and the languages of splits that have several."""
    problems: list[Problem] = []
    paths, bounds = {}, {}
    for split, pieces in source_rows(data, source).items():
        paths[split] = work / f"{split}.whole"
        bounds[split] = {}
        try:
            schema = _SCORED if data.task == "regression" else _SCHEMAS[data.layout]
            _write_arrow(paths[split], _in_turn(pieces, bounds[split]), schema)
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(*list(dict.fromkeys(problems))[:SHOWN])
    tables = {split: _open(path) for split, path in paths.items()}
    found = {split: table.num_rows for split, table in tables.items()}
    groups = {split: ends for split, ends in bounds.items() if data.zero_shot is not None and split == "test"}
    if "all" in tables:
        everything = tables.pop("all")
        if everything.num_rows <= data.rows.test:
            raise DataError(Problem(source.where, f"holds {everything.num_rows} rows; {data.rows.test} are test"))
        test = stratified(_strata(everything), data.rows.test, derive(data.subset_seed, "test draw"))
        rest = np.setdiff1d(np.arange(everything.num_rows), test)
        tables = {"train": everything.take(pa.array(rest)), "test": everything.take(pa.array(test))}
        found = {split: table.num_rows for split, table in tables.items()}
    return tables, found, groups


def _in_turn(pieces: Iterable[tuple[str, Iterator[Row]]], bounds: dict[str, tuple[int, int]]) -> Iterator[Row]:
    """The rows of one language after another; notes in `bounds` where each begins and ends."""
    count = 0
    for lang, rows in pieces:
        start = count
        for count, row in enumerate(rows, start=start + 1):  # noqa: B007 - read below
            yield row
        bounds[lang] = (start, count)


def _joined(data: Data, parts: list[Records]) -> tuple[dict[str, pa.Table], dict[str, int]]:
    """The rows of several data sets one after another; labels and row numbers go on where the last one's end.

    A split that one of them lacks is left out.
    """
    tables = {}
    for split in SPLITS:
        if not all(split in part.splits for part in parts):
            continue
        pieces, labels, rows = [], 0, 0
        for part, of in zip(parts, (data.parts or {}).values(), strict=True):
            table = part.table(split)
            for name, shift in (("label", labels), ("row", rows)):
                moved = pa.array(table[name].to_numpy() + shift, _TEXTS.field(name).type)
                table = table.set_column(table.schema.get_field_index(name), _TEXTS.field(name), moved)
            pieces.append(table)
            labels, rows = labels + len(of.labels), rows + part.info["found"][split]
        tables[split] = pa.concat_tables(pieces)
    return tables, {split: table.num_rows for split, table in tables.items()}


def _check_sizes(data: Data, source: Source, tables: dict[str, pa.Table], groups: Groups, where: str) -> None:
    problems = []
    for split, table in tables.items():
        size = getattr(data, f"{split}_size")
        fewest = min((stop - start for start, stop in groups.get(split, {}).values()), default=table.num_rows)
        if size is not None and size > fewest:
            each = " in one language" if split in groups else ""
            what = f"asks for {size} rows; {source.where} has {fewest}{each}"
            problems.append(Problem(f"{where}.{split}_size", what, "take fewer"))
    if data.validation_size is not None and "validation" not in tables:
        hint = f"its share of train is {where}.validation_share"
        problems.append(Problem(f"{where}.validation_size", f"{data.name} has no validation split", hint))
    if problems:
        raise DataError(*problems)


def _write(
    data: Data, source: Source, tables: dict[str, pa.Table], found: dict[str, int], groups: Groups, work: Path
) -> None:
    """Cut every split to the size that is asked for, of each of its languages, and write it."""
    content = hashlib.sha256()
    rows, counts = {}, {}
    for split in [s for s in SPLITS if s in tables]:
        table = tables.pop(split)
        size = getattr(data, f"{split}_size")
        if size is not None:
            strata, seed = _strata(table), derive(data.subset_seed, "subset", split)
            parts = groups.get(split, {"": (0, table.num_rows)})
            # rows that are parallel have equal classes, so they stay parallel
            chosen = [start + stratified(strata[start:stop], size, seed) for start, stop in parts.values()]
            table = table.take(pa.array(np.concatenate(chosen)))
            if split in groups:
                groups[split] = {lang: (size * index, size * (index + 1)) for index, lang in enumerate(parts)}
        with pa.OSFile(str(work / f"{split}.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            for batch in table.to_batches(max_chunksize=_BATCH):
                writer.write_batch(batch)
                content.update(f"{split}\x1e".encode())
                for text, label in zip(batch["text"].to_pylist(), batch["label"].to_pylist(), strict=True):
                    spelt = text if isinstance(text, str) else "\x1d".join(text)
                    content.update(f"{label}\x1f{spelt}\x1e".encode())
        rows[split] = table.num_rows
        counts[split] = _count(data, table)
        del table
    for path in work.glob("*.whole"):
        path.unlink()
    info = {"rows": rows, "classes": counts, "found": found, "source": source.kind, "layout": data.layout.value}
    if groups:
        info |= {"groups": groups, "learned": data.zero_shot.learned if data.zero_shot else None}
        content.update(json.dumps(groups).encode())
    if source.words is not None:
        words = "\n".join(read_words(source.words)) + "\n"
        (work / _WORDS).write_text(words, encoding="utf-8")
        content.update(words.encode())
    info["content"] = content.hexdigest()
    (work / "records.json").write_text(json.dumps(info, indent=1, ensure_ascii=False), encoding="utf-8")


def _count(data: Data, table: pa.Table) -> dict[str, int]:
    """Rows of each class, words of each part of speech, entities or mentions of each type; of the rest nothing."""
    if data.layout is Layout.spans or data.task == "regression":
        return {}
    labels = table["label"].combine_chunks()
    labels = labels.flatten() if data.layout in (Layout.words, Layout.typed) else labels
    counts = np.bincount(labels.to_numpy(), minlength=len(data.outputs()))
    return dict(zip(data.labels, map(int, counts[1::2] if data.task == "tagging" else counts), strict=True))


def _write_arrow(path: Path, rows: Iterable[Row], schema: pa.Schema) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        pending: list[Row] = []
        for row in rows:
            pending.append(row)
            if len(pending) == _BATCH:
                writer.write_batch(_batch(pending, schema))
                pending = []
        if pending:
            writer.write_batch(_batch(pending, schema))


def _batch(rows: list[Row], schema: pa.Schema) -> pa.RecordBatch:
    columns = zip(*rows, strict=True)
    return pa.record_batch([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema)


def _open(path: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
