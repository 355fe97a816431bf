"""Readers of knowledge graphs in their original files: triples, and names of entities and relations by language.

A source is found by the name that `knowledge.reader` gives. Files may be gzipped. Their lines are read by polars; the
row that an error is about is then looked up in the file, so that the message names its line.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import cached_property
from itertools import islice
from pathlib import Path

import polars as pl

from kbench.config.knowledge import Knowledge
from kbench.data.readers import _columns, lines
from kbench.data.source import ENVIRONMENT
from kbench.errors import DataError, Problem
from kbench.files import hash_file
from kbench.knowledge import toy_graph

Files = Mapping[str, tuple[Path, ...]]

PARTS = ("triples", "entities", "relations")
GENERATED = "toy_graph"
NAMES = {"relation": pl.Boolean, "number": pl.Int64, "rank": pl.Int32, "text": pl.String}

_NAME_TABLES = "names"  # the part that may be absent
_ENTITY, _RELATION = "Q", "P"
_TRIPLE = {"head": _ENTITY, "relation": _RELATION, "tail": _ENTITY}
_IDS = "an entity is Q and digits, a relation P and digits"


def locate(knowledge: Knowledge) -> dict[str, tuple[Path, ...]]:
    """Part -> its files in order of their names; nothing for a generated graph.

    Raises:
        DataError: the folder or the files of a part are absent, or `knowledge.files` names an unknown part.
    """
    if knowledge.reader == GENERATED:
        return {}
    known = (*PARTS, _NAME_TABLES)
    unknown = [part for part in knowledge.files if part not in known]
    missing = [part for part in PARTS if part not in knowledge.files]
    if unknown or missing:
        what = f"has unknown parts: {', '.join(unknown)}" if unknown else f"does not say where {missing[0]} are"
        raise DataError(Problem("knowledge.files", what, f"parts: {', '.join(PARTS)}; {_NAME_TABLES} may be absent"))
    if knowledge.path is not None:
        return _found(knowledge, Path(knowledge.path).expanduser(), f"knowledge.path={knowledge.path}")
    root = os.environ.get(ENVIRONMENT)
    if root and not Path(root).is_dir():
        hint = f"set it to the folder that holds {knowledge.folder}, or give knowledge.path"
        raise DataError(Problem(ENVIRONMENT, f"is set to {root}, which is no folder", hint))
    if root and (Path(root) / knowledge.folder).is_dir():
        return _found(knowledge, Path(root) / knowledge.folder, f"{ENVIRONMENT}/{knowledge.folder}")
    ways = [f"from files: knowledge.path=FOLDER with {_expected(knowledge)}"]
    ways.append(f"or {ENVIRONMENT}=ROOT with them in ROOT/{knowledge.folder}" + (f"   (now {root})" if root else ""))
    ways.append(f"source: {knowledge.cite}")
    raise DataError(Problem(f"knowledge={knowledge.name}", "is not on this machine", "\n".join(ways)))


def _found(knowledge: Knowledge, folder: Path, setting: str) -> dict[str, tuple[Path, ...]]:
    if not folder.is_dir():
        raise DataError(Problem(setting, f"there is no folder {folder}", f"it should hold {_expected(knowledge)}"))
    files, problems = {}, []
    for part, pattern in knowledge.files.items():
        paths = tuple(sorted(path for path in folder.glob(pattern) if path.is_file()))
        twice = [path for path in paths if path.with_name(f"{path.name}.gz") in paths]
        problems += [Problem(str(path), "stands beside its own .gz copy", "remove one of them") for path in twice]
        if paths:
            files[part] = paths
        elif part != _NAME_TABLES:
            problems.append(Problem(str(folder), f"holds no file {pattern}", f"knowledge.files.{part}"))
    if problems:
        raise DataError(*problems)
    return files


def _expected(knowledge: Knowledge) -> str:
    return ", ".join(f"{pattern} ({part})" for part, pattern in knowledge.files.items())


class Source:
    """The triples and names of a graph.

    Beside the files that a format has, there may be *name tables*, written by kbench's reader of Wikidata dumps:
    `<language>.tsv[.gz]` with rows id TAB rank TAB text, rank 0 the label. Where both name an item, theirs come first.
    """

    def __init__(self, files: Files):
        self.files = files

    def content(self) -> object:
        """What the graph is, wherever its files stand: plain JSON values."""
        content: dict[str, list] = {part: [hash_file(path) for path in paths] for part, paths in self.files.items()}
        if _NAME_TABLES in content:
            content["languages"] = [_language(path) for path in self.files[_NAME_TABLES]]
        return content

    def triples(self) -> pl.DataFrame:
        """head, relation, tail: Wikidata numbers, Int64, in the order of files and lines.

        Raises:
            DataError: a file is empty, is not UTF-8, or has a line that is not three ids.
        """
        return pl.concat([_triples(path) for path in self.files["triples"]])

    @property
    def languages(self) -> set[str]:
        """The languages that there are names in."""
        return {_language(path) for path in self.files.get(_NAME_TABLES, ())} | self._own_languages

    def names(self, language: str) -> pl.DataFrame:
        """Names in a language, with the columns of `NAMES`, as they are spelt in the files; those that go first, first.

        Raises:
            DataError: a file is empty, is not UTF-8, or has a line that is not of the format.
        """
        tables = [_name_table(path) for path in self.files.get(_NAME_TABLES, ()) if _language(path) == language]
        return pl.concat([pl.DataFrame(schema=NAMES), *tables, *self._own_names(language)])

    @property
    def _own_languages(self) -> set[str]:
        raise NotImplementedError  # abstract

    def _own_names(self, language: str) -> Iterable[pl.DataFrame]:
        raise NotImplementedError  # abstract


class Wikidata5m(Source):
    """Wikidata5M (Wang et al. 2021): head TAB relation TAB tail, and id TAB name TAB alias ..., all in English."""

    _own_languages = frozenset({"en"})

    def _own_names(self, language: str) -> Iterable[pl.DataFrame]:
        if language == "en":
            yield from (_name_lists(path, _ENTITY) for path in self.files["entities"])
            yield from (_name_lists(path, _RELATION) for path in self.files["relations"])


class WikidataTables(Source):
    """Head TAB relation TAB tail, and id TAB language TAB rank TAB text; rank 0 is the label."""

    @cached_property
    def _tables(self) -> dict[str, pl.DataFrame]:
        tables = [_language_table(path, _ENTITY) for path in self.files["entities"]]
        tables += [_language_table(path, _RELATION) for path in self.files["relations"]]
        parts = pl.concat(tables).partition_by("language", as_dict=True, include_key=False)
        return {str(language): table for (language,), table in parts.items()}

    @property
    def _own_languages(self) -> set[str]:
        return set(self._tables)

    def _own_names(self, language: str) -> Iterable[pl.DataFrame]:
        if language in self._tables:
            yield self._tables[language]


class ToyGraph(Source):
    """The generated graph."""

    def content(self) -> object:
        return {GENERATED: toy_graph.VERSION}

    @cached_property
    def _made(self) -> tuple[list[tuple[int, int, int]], dict[str, list[tuple[bool, int, int, str]]]]:
        return toy_graph.generate()

    def triples(self) -> pl.DataFrame:
        return pl.DataFrame(self._made[0], schema=dict.fromkeys(_TRIPLE, pl.Int64), orient="row")

    @property
    def _own_languages(self) -> set[str]:
        return set(self._made[1])

    def _own_names(self, language: str) -> Iterable[pl.DataFrame]:
        yield pl.DataFrame(self._made[1].get(language, []), schema=NAMES, orient="row")


SOURCES: dict[str, type[Source]] = {
    "wikidata5m": Wikidata5m, "wikidata_tables": WikidataTables, GENERATED: ToyGraph,
}  # fmt: skip


def cleaned(texts: pl.Series) -> pl.Series:
    """Names in Unicode form NFC, with one space for control characters and white space, and none at the ends.

    Bars, periods and full-width forms stay. A name of nothing but invisible characters becomes empty.
    """
    # what has only ASCII letters and single spaces inside is clean, and that is most of a large English table
    places = texts.str.contains(r"[^!-~ ]|  |^ | $").arg_true()
    if places.is_empty():
        return texts
    spaced = texts.gather(places).str.replace_all(r"[\s\p{Cc}]+", " ").str.strip_chars()
    visible = spaced.str.contains(r"[^\p{C}\p{Z}]")
    return texts.scatter(places, spaced.str.normalize("NFC").zip_with(visible, pl.Series([""])))


def _language(path: Path) -> str:
    return path.name.partition(".")[0]


def _number(field: pl.Expr, letter: str) -> pl.Expr:
    """The number of an id, or null where it is not the letter and digits."""
    signed = field.str.starts_with(f"{letter}+") | field.str.starts_with(f"{letter}-")
    digits = field.str.slice(1).cast(pl.Int64, strict=False)
    return pl.when(field.str.starts_with(letter) & ~signed).then(digits)


def _lines(path: Path, row: str | None = None) -> pl.LazyFrame:
    """The lines of a file, and whether they are blank: line, blank; and the row, from 0, where it has a name."""
    line = pl.col("line").str.strip_prefix("\ufeff").str.strip_suffix("\r")
    found = pl.scan_lines(path, name="line", row_index_name=row, glob=False)
    return found.with_columns(line, (line.str.strip_chars() == "").alias("blank"))


def _split(*names: str) -> pl.Expr:
    """A line's columns by name; `beyond` is what stands after the last one, null where nothing does."""
    return pl.col("line").str.split_exact("\t", len(names)).struct.rename_fields([*names, "beyond"])


def _collected(path: Path, found: pl.LazyFrame) -> pl.DataFrame:
    try:
        frame = found.collect(engine="streaming")
    except (pl.exceptions.PolarsError, OSError) as error:
        for _ in lines(path):  # says which line is not UTF-8, and where a gzip file ends too early
            pass
        raise DataError(Problem(str(path), f"cannot be read: {error}")) from error
    return _filled(path, frame)


def _filled(path: Path, frame: pl.DataFrame) -> pl.DataFrame:
    if frame.is_empty():
        raise DataError(Problem(str(path), "is empty", "fetch it again"))
    return frame


def _line(path: Path, row: int) -> tuple[int, list[str]]:
    """Line number and columns of a row."""
    _, line = next(islice(lines(path, blank=True), row, None))
    return row + 1, line.split("\t")


def _triples(path: Path) -> pl.DataFrame:
    numbers = [_number(pl.col(name), letter).alias(name) for name, letter in _TRIPLE.items()]
    # no row index and no filter here: they double the time of a large file
    found = _lines(path).with_columns(_split(*_TRIPLE)).unnest("line")
    frame = _collected(path, found.select(*numbers, "blank", pl.col("beyond").is_null()))
    if frame["beyond"].all() and not any(frame[name].null_count() for name in _TRIPLE):
        return frame.select(*_TRIPLE)
    good = pl.all_horizontal("beyond", *(pl.col(name).is_not_null() for name in _TRIPLE))
    bad = frame.select((~good & ~pl.col("blank")).arg_true()).to_series()
    if bad.is_empty():
        return _filled(path, frame.filter(~pl.col("blank"))).select(*_TRIPLE)
    number, fields = _line(path, bad[0])
    if len(fields) == len(_TRIPLE):
        for letter, field in zip(_TRIPLE.values(), fields, strict=True):
            _check_id(f"{path}, line {number}", field, letter)
    raise _columns(path, number, len(fields), f"{', '.join(_TRIPLE)}, separated by tabs")


def _name_lists(path: Path, letter: str) -> pl.DataFrame:
    """Rows id TAB name TAB alias ...; an id without a name has an empty one, which is counted later."""
    line = pl.col("line")
    pieces = pl.when(line.str.contains("\t", literal=True)).then(line).otherwise(line + "\t").str.split("\t")
    found = (
        _lines(path, "row")
        .filter(~pl.col("blank"))
        .select(
            "row",
            pl.lit(letter == _RELATION).alias("relation"),
            _number(pieces.list.first(), letter).alias("number"),
            pieces.list.slice(1).alias("text"),
        )
    )
    ranks = pl.int_ranges(0, pl.col("text").list.len(), dtype=pl.Int32).alias("rank")
    frame = _collected(path, found.with_columns(ranks).explode("rank", "text"))
    bad = frame.filter(pl.col("number").is_null())["row"]
    if len(bad):
        number, fields = _line(path, bad[0])
        _check_id(f"{path}, line {number}", fields[0], letter)
    return frame.select(*NAMES)


def _name_table(path: Path) -> pl.DataFrame:
    """Rows id TAB rank TAB text of entities and relations, in the language that the file's name begins with."""
    return _ranked(path, ("id", "rank", "text"), _ENTITY + _RELATION).select(*NAMES)


def _language_table(path: Path, letter: str) -> pl.DataFrame:
    return _ranked(path, ("id", "language", "rank", "text"), letter).select("language", *NAMES)


def _ranked(path: Path, columns: tuple[str, ...], letters: str) -> pl.DataFrame:
    found = (
        _lines(path, "row")
        .filter(~pl.col("blank"))
        .with_columns(_split(*columns))
        .unnest("line")
        .with_columns(
            pl.col("id").str.starts_with(_RELATION).alias("relation"),
            pl.coalesce(*(_number(pl.col("id"), letter) for letter in letters)).alias("number"),
            pl.col("rank").cast(pl.Int32, strict=False),
            pl.col("beyond").is_null(),
        )
    )
    frame = _collected(path, found.drop("id", "blank"))
    good = pl.col("beyond") & pl.col("number").is_not_null() & (pl.col("rank") >= 0) & pl.col("text").is_not_null()
    if "language" in columns:
        good &= pl.col("language") != ""
    bad = frame.filter(~good.fill_null(False))["row"]
    if bad.is_empty():
        return frame
    number, fields = _line(path, bad[0])
    where = f"{path}, line {number}"
    if len(fields) != len(columns):
        raise _columns(path, number, len(fields), f"{', '.join(columns)}, separated by tabs")
    _check_id(where, fields[0], letters)
    named = dict(zip(columns, fields, strict=True))
    if named.get("language") == "":
        raise DataError(Problem(where, "has no language"))
    raise DataError(Problem(where, f"{named['rank']!r:.40} is no rank", "0 is the label, 1 and on are aliases"))


def _check_id(where: str, field: str, letters: str) -> None:
    digits = field[1:]
    if field[:1] not in tuple(letters) or not (digits.isascii() and digits.isdigit() and len(digits) < 19):
        what = f"{field!r:.40} is no id of {'a relation' if letters == _RELATION else 'an entity'}"
        raise DataError(Problem(where, what, _IDS))
