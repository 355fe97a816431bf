"""A knowledge graph as arrays: triples of indices, and the names of every item in each language.

Entities and relations are numbered from 0 in the order of their Wikidata numbers. An *item* is either: entity e is item
e, relation r is item n + r, where n is the number of entities.

graph.json             counts, what was skipped, and a hash of everything
entities.npy           int64 [n], relations.npy int64 [m]: Wikidata numbers, ascending (42 for Q42)
triples.npy            int32 [t, 3]: head, relation, tail; in the files' order, none twice, no self-loops
names/<language>.arrow item, text: sorted by item, the label first, then aliases; none of an item twice
names/<language>.ends.npy  int64 [n + m]: where each item's names end in that table
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from kbench.config.knowledge import Knowledge
from kbench.engine.counter import mixed
from kbench.errors import DataError, Problem
from kbench.knowledge.readers import SOURCES, Files, Source, cleaned
from kbench.stages.stage import Stage

_TABLE = 1 << 28  # up to here, an index is a table with a place for every number (1 GiB), which takes no searching
_SPARSE = 64  # but of few numbers among many, searching takes less than the table
_TEXT_BYTES = (1 << 31) - 1  # of one arrow batch of strings with 32-bit offsets
_NAMES = pa.schema([("item", pa.int32()), ("text", pa.string())])


class Names:
    """The names of all items in one language, memory-mapped."""

    def __init__(self, folder: Path, language: str):
        self.language = language
        self.ends: np.ndarray = np.load(folder / f"{language}.ends.npy", mmap_mode="r", allow_pickle=False)
        table = pa.ipc.open_file(pa.memory_map(str(folder / f"{language}.arrow"))).read_all()
        self.texts: pa.ChunkedArray = table["text"]

    @cached_property
    def first(self) -> np.ndarray:
        """Row of each item's label [items], int64; of an item without a name, the row of the next name there is."""
        return np.concatenate([np.zeros(1, dtype=np.int64), self.ends[:-1]])

    @cached_property
    def counts(self) -> np.ndarray:
        """How many names each item has [items], int64: the label and its aliases."""
        return self.ends - self.first

    @cached_property
    def has(self) -> np.ndarray:
        """Whether an item has a name [items]."""
        return self.counts > 0

    def label(self, item: int) -> str | None:
        """The label of an item, or None where it has no name."""
        return self.texts[int(self.first[item])].as_py() if self.has[item] else None

    def labels(self, items: np.ndarray) -> list[str]:
        """The labels of items that have one.

        Raises:
            ValueError: one of them has none.
        """
        if not self.has[items].all():
            nameless = int(np.asarray(items)[~self.has[items]][0])
            raise ValueError(f"item {nameless} has no name in {self.language}")
        return self.at(self.first[items])

    def at(self, rows: np.ndarray) -> list[str]:
        """The names in some rows of the table."""
        # a table of several chunks would be joined to one at every call
        texts = self.texts.chunk(0) if self.texts.num_chunks == 1 else self.texts
        found: list[str] = texts.take(pa.array(rows)).to_pylist()
        return found


class Graph:
    """A stored graph. Arrays are memory-mapped."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.info: dict[str, Any] = json.loads((folder / "graph.json").read_text(encoding="utf-8"))
        self.entities, self.relations, self.triples = (
            np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in ("entities", "relations", "triples")
        )
        self._names: dict[str, Names] = {}

    @property
    def content(self) -> str:
        """Hash of triples and names."""
        return str(self.info["content"])

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages of the names, in the order they were asked for."""
        return tuple(self.info["languages"])

    @property
    def items(self) -> int:
        """Number of entities and relations."""
        return len(self.entities) + len(self.relations)

    def relation_item(self, relation: Any) -> Any:
        """The item of a relation, or of an array of them."""
        return len(self.entities) + relation

    def names(self, language: str) -> Names:
        """The names in one of `languages`."""
        if language not in self._names:
            self._names[language] = Names(self.folder / "names", language)
        return self._names[language]


def graph_stage(knowledge: Knowledge, files: Files) -> Stage:
    """The stage that makes a `Graph`. `files` as `kbench.knowledge.readers.locate` finds them."""
    source = SOURCES[knowledge.reader](files)
    languages = list(knowledge.languages)
    science = {"reader": knowledge.reader, "languages": languages, "content": source.content()}

    def build(work: Path, parents: Mapping[str, Path]) -> None:
        try:
            _write(source, languages, work)
        except DataError:
            shutil.rmtree(work)  # mended files have another key: nobody would continue this
            raise

    return Stage("graph", 1, science, build, alone=True)


class _Index:
    """Wikidata numbers and their places in ascending order."""

    def __init__(self, *columns: np.ndarray):
        top = max(int(column.max()) for column in columns)
        self._places: np.ndarray | None = None
        if top < min(_TABLE, _SPARSE * sum(map(len, columns))):
            seen = np.zeros(top + 1, dtype=bool)
            for column in columns:
                seen[column] = True
            self.numbers = np.flatnonzero(seen)
            self._places = np.full(top + 1, -1, dtype=np.int32)
            self._places[self.numbers] = np.arange(len(self.numbers), dtype=np.int32)
        else:
            self.numbers = np.unique(np.concatenate(columns))

    def of(self, numbers: np.ndarray) -> np.ndarray:
        """Place of each number, int32; -1 where it is none of them."""
        if self._places is not None:
            places = self._places[np.minimum(numbers, len(self._places) - 1)]
            places[numbers >= len(self._places)] = -1
            return places
        places = np.minimum(np.searchsorted(self.numbers, numbers), len(self.numbers) - 1)
        return np.where(self.numbers[places] == numbers, places, -1).astype(np.int32)


def _write(source: Source, languages: list[str], work: Path) -> None:
    entities, relations, triples, skipped = _triples(source)
    content = hashlib.sha256()
    for name, array in (("entities", entities.numbers), ("relations", relations.numbers), ("triples", triples)):
        np.save(work / f"{name}.npy", array, allow_pickle=False)
        content.update(f"{name} {len(array)}\n".encode())
        content.update(np.ascontiguousarray(array))
    shape, size = triples.shape, len(entities.numbers) + len(relations.numbers)

    (work / "names").mkdir(exist_ok=True)
    _check_languages(source, languages)
    counts, named, empty, elsewhere = {}, np.zeros(size, dtype=bool), 0, 0
    for language in languages:
        content.update(f"{language}\n".encode())
        frame, dropped, foreign = _names(source, language, entities, relations)
        if frame.is_empty():
            raise DataError(_wordless(language, source.languages - {language}))
        ends = np.cumsum(np.bincount(frame["item"].to_numpy(), minlength=size))
        np.save(work / "names" / f"{language}.ends.npy", ends, allow_pickle=False)
        _write_names(frame, work / "names" / f"{language}.arrow", content)
        has = np.diff(ends, prepend=0) > 0
        counts[language] = {"labels": int(has.sum()), "names": frame.height}
        named |= has
        empty, elsewhere = empty + dropped, elsewhere + foreign
        del frame

    head, relation, tail = triples.T
    whole = named[head] & named[tail] & named[len(entities.numbers) + relation]
    if not whole.any():
        hint = "do the files of names belong to these triples? knowledge.files says which are read"
        raise DataError(Problem("knowledge.files", "no triple has a name for each of its three parts", hint))
    skipped |= {"nameless_triples": int((~whole).sum()), "nameless_items": int((~named).sum())}
    skipped |= {"empty_names": empty, "names_of_others": elsewhere}
    info = {"entities": len(entities.numbers), "relations": len(relations.numbers), "triples": shape[0]}
    info |= {"languages": counts, "skipped": skipped, "content": content.hexdigest()}
    (work / "graph.json").write_text(json.dumps(info, indent=1, ensure_ascii=False), encoding="utf-8")


def _triples(source: Source) -> tuple[_Index, _Index, np.ndarray, dict[str, int]]:
    """Entities, relations, triples [t, 3] of their indices, and what was left out."""
    frame = source.triples()
    size = frame.height
    if (frame["head"] == frame["tail"]).any():
        frame = frame.filter(pl.col("head") != pl.col("tail"))
    if frame.is_empty():
        what = "hold nothing but triples of an entity with itself"
        raise DataError(Problem("knowledge.files.triples", what, "a graph needs triples of two different entities"))
    loops = size - frame.height
    columns = {name: frame[name].to_numpy() for name in ("head", "relation", "tail")}
    del frame
    entities = _Index(columns["head"], columns["tail"])
    relations = _Index(columns["relation"])
    triples = np.empty((len(columns["head"]), 3), dtype=np.int32)
    for place, (name, index) in enumerate((("head", entities), ("relation", relations), ("tail", entities))):
        triples[:, place] = index.of(columns.pop(name))
    first = _first_of_equals(triples, len(entities.numbers), len(relations.numbers))
    repeated = len(triples) - int(first.sum())
    return entities, relations, triples[first] if repeated else triples, {"self_loops": loops, "duplicates": repeated}


def _first_of_equals(triples: np.ndarray, entities: int, relations: int) -> np.ndarray:
    """Whether a triple is the first of those equal to it [t]."""
    head, relation, tail = triples.T
    if entities**2 * relations < 2**63:
        keys = pl.Series((head.astype(np.int64) * relations + relation) * entities + tail)
        ordered = keys.sort().to_numpy()
        several = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
        first = np.ones(len(triples), dtype=bool)
        if len(several):  # few, so that telling the first of all of them apart would be a waste
            places = keys.is_in(pl.Series(several).implode()).arg_true()
            first[places.filter(~keys.gather(places).is_first_distinct()).to_numpy()] = False
        return first
    parts = pl.DataFrame({"h": head, "r": relation, "t": tail})
    return parts.select(pl.struct("h", "r", "t").is_first_distinct()).to_series().to_numpy()


def _check_languages(source: Source, languages: list[str]) -> None:
    known = source.languages
    problems = [_wordless(language, known) for language in languages if language not in known]
    if problems:
        raise DataError(*problems)


def _wordless(language: str, others: set[str]) -> Problem:
    what = f"there is not a single name in {language}"
    hint = f"there are names in: {', '.join(sorted(others))}; others are taken from a dump by kbench build names"
    return Problem("knowledge.languages", what, hint)


def _names(source: Source, language: str, entities: _Index, relations: _Index) -> tuple[pl.DataFrame, int, int]:
    """item, text in the order of the table; how many names were empty, and how many of items that no triple has."""
    frame = source.names(language)
    number, relation = frame["number"].to_numpy(), frame["relation"].to_numpy()
    places = relations.of(number)
    items = np.where(relation, np.where(places < 0, -1, places + np.int32(len(entities.numbers))), entities.of(number))
    frame = frame.select(pl.Series("item", items.astype(np.int32)), "rank", "text")
    del number, relation, places, items
    size = frame.height
    frame = frame.filter(pl.col("item") >= 0)
    foreign = size - frame.height
    frame = frame.with_columns(cleaned(frame["text"])).filter(pl.col("text") != "")
    empty = size - foreign - frame.height
    # names that go first stand first; a stable sort keeps them so among those of one rank
    frame = frame.sort("item", "rank", maintain_order=True).drop("rank")
    return _distinct(frame), empty, foreign


def _distinct(frame: pl.DataFrame) -> pl.DataFrame:
    """The names without those that an item has had before."""
    # names that differ have different hashes, all but never; so only items with equal ones are compared in full
    hashes = frame["text"].hash().to_numpy() ^ mixed(frame["item"].to_numpy())
    again = frame.filter(~pl.Series(hashes).is_first_distinct())["item"].unique()
    if again.is_empty():
        return frame
    suspects = frame.select(pl.col("item").is_in(again.implode()).arg_true()).to_series()
    repeated = suspects.filter(~frame[suspects].select(pl.struct("item", "text").is_first_distinct()).to_series())
    kept = np.ones(frame.height, dtype=bool)
    kept[repeated.to_numpy()] = False
    return frame.filter(pl.Series(kept))


def _write_names(frame: pl.DataFrame, path: Path, content: Any) -> None:
    """Write names in as few batches as can be, and add them to the hash."""
    batches = int(frame["text"].str.len_bytes().sum()) // _TEXT_BYTES + 1
    rows = -(-frame.height // batches)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, _NAMES) as writer:
        for start in range(0, frame.height, rows):
            table = frame.slice(start, rows).to_arrow().cast(_NAMES).combine_chunks()
            for batch in table.to_batches():
                writer.write_batch(batch)
                content.update(batch["item"].to_numpy())
                _, offsets, letters = batch["text"].buffers()
                bounds = np.frombuffer(offsets, dtype=np.int32)[batch["text"].offset :][: batch.num_rows + 1]
                content.update((bounds - bounds[0]).tobytes())
                content.update(memoryview(letters)[bounds[0] : bounds[-1]])
