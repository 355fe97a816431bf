"""Files of finished vectors of entities and relations, in either of two forms, whose ids are Wikidata's.

entity2id.txt, relation2id.txt      ERNIE's and Fast-TransX's: the number of rows in the first line, then id TAB row
entity2vec.vec, relation2vec.vec    a row each, from 0: numbers separated by tabs
vectors.safetensors                 ours: entities, relations [., d] and entity_ids, relation_ids, int64: 42 for Q42

They are read in blocks: the vectors of all of Wikidata are not held.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import polars as pl

from kbench.config.corpus import Vectors
from kbench.errors import DataError, Problem
from kbench.knowledge.readers import _ENTITY, _RELATION, _check_id, _collected, _line, _lines, _number, _split

Files = Mapping[str, Path]
Blocks = Iterator[tuple[int, np.ndarray]]  # first row, and rows [k, d]

PACKED = "vectors.safetensors"
TABLES = ("entity2id.txt", "relation2id.txt", "entity2vec.vec", "relation2vec.vec")
SIDES = {"entities": _ENTITY, "relations": _RELATION}
_BYTES = 1 << 26  # of a table of numbers at a time
_ROWS = 1 << 16  # rows of the packed form at a time
_FLOATS = ("F16", "F32", "F64")
_WHAT = {_ENTITY: "entity", _RELATION: "relation"}


def locate_vectors(vectors: Vectors) -> dict[str, Path]:
    """The files of finished vectors by name; nothing where vectors are trained here.

    Raises:
        DataError: the folder is absent, or holds neither form whole, or both.
    """
    if vectors.path is None:
        return {}
    where, folder = f"knowledge.vectors.path={vectors.path}", Path(vectors.path).expanduser()
    forms = f"it should hold {PACKED}, or {', '.join(TABLES)}; null: vectors are trained here"
    if not folder.is_dir():
        raise DataError(Problem(where, f"there is no folder {folder}", forms))
    tables = {name: folder / name for name in TABLES if (folder / name).is_file()}
    packed = folder / PACKED
    if packed.is_file():
        if tables:
            raise DataError(Problem(where, f"holds {PACKED} and {next(iter(tables))}", "remove one of the two forms"))
        return {PACKED: packed}
    missing = [name for name in TABLES if name not in tables]
    if missing:
        raise DataError(Problem(where, f"holds no {PACKED}, and no {', '.join(missing)}", forms))
    return tables


def read_vectors(files: Files, name: str) -> tuple[Path, np.ndarray, Blocks]:
    """The vectors of one side.

    Args:
        files: as `locate_vectors` finds them.
        name: entities or relations.

    Returns:
        the file of the vectors; the Wikidata number of each row, int64, none twice; the rows, float32, in blocks.

    Raises:
        DataError: a file is not of its form; a bad row, when its block is asked for.
    """
    letter = SIDES[name]
    if PACKED in files:
        return files[PACKED], *_packed(files[PACKED], name, letter)
    what = _WHAT[letter]
    path = files[f"{what}2vec.vec"]
    return path, _ids(files[f"{what}2id.txt"], letter), _rows(path)


def _ids(path: Path, letter: str) -> np.ndarray:
    """Wikidata number of each row, int64."""
    number = _number(pl.col("id"), letter).alias("number")
    found = _lines(path, "line_row").filter(~pl.col("blank")).with_columns(_split("id", "row")).unnest("line")
    frame = _collected(
        path, found.select("line_row", "id", number, pl.col("row").cast(pl.Int64, strict=False), "beyond")
    )
    size, count = frame.height - 1, _count(path, frame["id"][0])
    frame = frame.slice(1)
    good = pl.col("number").is_not_null() & pl.col("row").is_between(0, size - 1) & pl.col("beyond").is_null()
    bad = frame.filter(~good.fill_null(False))["line_row"]
    if len(bad):
        line, fields = _line(path, bad[0])
        where = f"{path}, line {line}"
        if len(fields) != 2:
            raise DataError(Problem(where, f"has {len(fields)} columns", "expected: id, row; separated by a tab"))
        _check_id(where, fields[0], letter)
        raise DataError(Problem(where, f"{fields[1]!r:.40} is no row", f"there are {size:,} of them, from 0"))
    if size != count:
        raise DataError(Problem(f"{path}, line 1", f"says {count:,} rows, {size:,} follow", "fetch it again"))
    for column, told in (("number", "id"), ("row", "row")):
        again = frame.filter(~pl.col(column).is_first_distinct())["line_row"]
        if len(again):
            line, fields = _line(path, again[0])
            raise DataError(Problem(f"{path}, line {line}", f"has the {told} of an earlier line: {' '.join(fields)}"))
    found_ids = np.empty(size, dtype=np.int64)
    found_ids[frame["row"].to_numpy()] = frame["number"].to_numpy()
    return found_ids


def _count(path: Path, text: str) -> int:
    if not (text.isascii() and text.strip().isdigit()):
        hint = "the first line says how many rows follow"
        raise DataError(Problem(f"{path}, line 1", f"{text!r:.40} is no number of rows", hint))
    return int(text)


def _rows(path: Path) -> Blocks:
    """The rows of a table of numbers, float32, some at a time."""
    row, width, rest = 0, 0, b""
    with path.open("rb") as file:
        while chunk := file.read(_BYTES):
            whole, _, rest = (rest + chunk).rpartition(b"\n")
            if whole.strip():
                block = _parsed(path, row, width, whole.rstrip(b"\r\n"))
                yield row, block
                row, width = row + len(block), block.shape[1]
    if rest.strip():
        yield row, _parsed(path, row, width, rest)
    elif not row:
        raise DataError(Problem(str(path), "is empty", "fetch it again"))


def _parsed(path: Path, row: int, width: int, raw: bytes) -> np.ndarray:
    """Rows of numbers [k, d]; `row` is the first one's number, `width` 0 where it is not known yet."""
    plain = raw.replace(b"\r", b"").replace(b"\t\n", b"\n").rstrip(b"\t")  # some end their lines in a tab
    width = width or plain.partition(b"\n")[0].count(b"\t") + 1
    schema = dict.fromkeys(map(str, range(width)), pl.Float32)
    try:
        frame = pl.read_csv(io.BytesIO(plain), separator="\t", has_header=False, schema=schema, quote_char=None)
        if frame.height == plain.count(b"\n") + 1 and not any(frame.null_count().row(0)):
            found = frame.to_numpy()
            if np.isfinite(found).all():
                return found
    except pl.exceptions.PolarsError:
        pass  # which line it is, is found below
    raise DataError(_wrong(path, row, width, raw))


def _wrong(path: Path, row: int, width: int, raw: bytes) -> Problem:
    """What is wrong with the first bad line of a block of numbers."""
    for number, line in enumerate(raw.split(b"\n"), start=row + 1):
        where, fields = f"{path}, line {number}", line.decode(errors="replace").rstrip("\t\r ").split("\t")
        if len(fields) != width:
            return Problem(
                where, f"has {len(fields)} numbers, {'line 1' if number > 1 else 'another line'} has {width}"
            )
        for field in fields:
            try:
                finite = abs(float(field)) <= float(np.finfo(np.float32).max)
            except ValueError:
                return Problem(where, f"{field!r:.40} is no number")
            if not finite:
                return Problem(where, f"{field} is no finite number", "was their training cut off, or did it diverge?")
    return Problem(f"{path}, after line {row}", "cannot be read as rows of numbers separated by tabs")


def _packed(path: Path, name: str, letter: str) -> tuple[np.ndarray, Blocks]:
    """Wikidata number of each row, and the rows, of one side of the packed form."""
    from safetensors import SafetensorError, safe_open

    key = f"{_WHAT[letter]}_ids"
    try:
        with safe_open(path, framework="np") as file:
            missing = [one for one in (name, key) if one not in file.keys()]  # noqa: SIM118
            if missing:
                raise DataError(Problem(str(path), f"holds no {missing[0]}", f"it holds {', '.join(file.keys())}"))
            shapes = [list(file.get_slice(one).get_shape()) for one in (name, key)]
            types = [file.get_slice(one).get_dtype() for one in (name, key)]
            if len(shapes[0]) != 2 or 0 in shapes[0] or shapes[1] != shapes[0][:1]:
                what = f"{name} are {shapes[0]}, {key} {shapes[1]}"
                raise DataError(Problem(str(path), what, "expected: [rows, numbers] and [rows]"))
            if types[0] not in _FLOATS or types[1] != "I64":
                what = f"{name} are of type {types[0]}, {key} of {types[1]}"
                raise DataError(Problem(str(path), what, f"expected: one of {', '.join(_FLOATS)}; and I64"))
            ids: np.ndarray = file.get_tensor(key)
    except SafetensorError as error:
        raise DataError(Problem(str(path), f"is no readable safetensors file: {error}", "fetch it again")) from error
    if (ids < 0).any():
        raise DataError(Problem(f"{path}, {key}", f"{int(ids[ids < 0][0])} is no number of Wikidata"))
    ordered = np.sort(ids)
    again = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(again):
        raise DataError(Problem(f"{path}, {key}", f"{letter}{int(again[0])} stands there twice"))
    return ids, _packed_rows(path, name)


def _packed_rows(path: Path, name: str) -> Blocks:
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        part = file.get_slice(name)
        size = part.get_shape()[0]
        for start in range(0, size, _ROWS):
            block = part[start : min(start + _ROWS, size)].astype(np.float32)
            bad = np.flatnonzero(~np.isfinite(block).all(axis=1))
            if len(bad):
                where = f"{path}, {name}, row {start + int(bad[0])}"
                raise DataError(Problem(where, "holds a number that is not finite", "did its training diverge?"))
            yield start, block
