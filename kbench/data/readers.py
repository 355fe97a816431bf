"""Readers of the original files. Each yields (line, text, label as the file spells it); errors name file and line.

A reader is a function of a path, found by the name that `data.reader` gives. Files may be gzipped.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import string
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from kbench.errors import DataError, Problem

Row = tuple[int, str, str]
Reader = Callable[[Path, str], Iterator[Row]]


def lines(
    path: Path, encoding: str = "utf-8", blank: bool = False, hint: str = "convert the file to UTF-8"
) -> Iterator[tuple[int, str]]:
    """The lines of a file with their numbers, without line ends; blank lines are passed over unless `blank`.

    Args:
        encoding: a codec that keeps ASCII as it is; a mark at the beginning of UTF-8 is removed.
        hint: the way out where the bytes are of another encoding.

    Raises:
        DataError: the encoding is unknown, the bytes are not of it, or the gzip file is damaged.
    """
    codec = _codec(encoding)
    opener = gzip.open if path.suffix == ".gz" else open
    number = 0
    try:
        with opener(path, "rb") as file:
            for number, raw in enumerate(file, start=1):
                text = raw.decode("utf-8-sig" if number == 1 and codec == "utf-8" else codec).rstrip("\r\n")
                if blank or text.strip():
                    yield number, text
    except UnicodeDecodeError as error:
        bad, name = error.object[error.start], "UTF-8" if codec == "utf-8" else encoding
        raise DataError(Problem(f"{path}, line {number}", f"is not {name} (byte 0x{bad:02x})", hint)) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(Problem(f"{path}, after line {number}", f"is a damaged gzip file: {error}")) from error


def ag_csv(path: Path, encoding: str) -> Iterator[Row]:
    """AG News: `"class id","title","description"`; the text is title and description, as in the hub's copy."""
    for number, line in lines(path, encoding):
        try:
            row = next(csv.reader([line]))
        except csv.Error as error:
            raise DataError(Problem(f"{path}, line {number}", f"is no CSV: {error}")) from error
        if len(row) != 3:
            raise _columns(path, number, len(row), "class id, title, description")
        yield number, f"{row[1]} {row[2]}", row[0]


def label_last(path: Path, encoding: str) -> Iterator[Row]:
    """Google Snippets: words separated by spaces, the last of them the label."""
    for number, line in lines(path, encoding):
        text, space, label = line.rstrip().rpartition(" ")
        if not space:
            raise _columns(path, number, 1, "text, label")
        yield number, text, label


def label_first(path: Path, encoding: str) -> Iterator[Row]:
    """cnews: label TAB article; quotes have no meaning."""
    for number, line in lines(path, encoding):
        label, tab, text = line.partition("\t")
        if not tab:
            raise _columns(path, number, 1, "label, text")
        yield number, text, label


def label_tab_last(path: Path, encoding: str) -> Iterator[Row]:
    """THUCNews headlines: headline TAB class id, split at the last tab."""
    for number, line in lines(path, encoding):
        text, tab, label = line.rpartition("\t")
        if not tab:
            raise _columns(path, number, 1, "text, class id")
        yield number, text, label


def file_per_class(path: Path, encoding: str) -> Iterator[Row]:
    """5AbstractsGroup: one file a class, its name the label; one document a line, stripped."""
    label = path.name.split(".", 1)[0]
    for number, line in lines(path, encoding):
        yield number, line.strip(), label


def parquet(path: Path, encoding: str) -> Iterator[Row]:
    """A hub copy: columns `text` and `label`, the label a number from 0 in the order of `data.labels`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        if not {"text", "label"} <= set(file.schema_arrow.names):
            raise DataError(Problem(str(path), f"has columns {', '.join(file.schema_arrow.names)}, not text and label"))
        kind = file.schema_arrow.field("text").type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise DataError(Problem(str(path), f"column text holds {kind}, not text"))
        number = 0
        for batch in file.iter_batches(columns=["text", "label"]):
            for text, label in zip(batch["text"].to_pylist(), batch["label"].to_pylist(), strict=True):
                number += 1
                yield number, text or "", str(label)
    except (OSError, UnicodeDecodeError, pa.ArrowInvalid) as error:
        raise DataError(Problem(str(path), f"is no readable parquet file: {error}", "fetch it again")) from error


READERS: dict[str, Reader] = {
    reader.__name__: reader for reader in (ag_csv, label_last, label_first, label_tab_last, file_per_class, parquet)
}


def _codec(encoding: str) -> str:
    """Python's name of an encoding; one that does not keep ASCII is refused, as lines end at the byte of "\\n"."""
    where = f"data.encoding={encoding}"
    try:
        name = codecs.lookup(encoding).name.removesuffix("-sig")
        ascii_kept = string.printable.encode(name) == string.printable.encode("ascii")
    except (LookupError, ValueError) as error:
        known = "utf-8, latin-1 or cp1252, for instance"
        raise DataError(Problem(where, "is no text encoding that Python knows", known)) from error
    if not ascii_kept:
        raise DataError(Problem(where, "does not keep ASCII, so lines are not found", "convert the file to UTF-8"))
    return name


def _columns(path: Path, number: int, found: int, expected: str) -> DataError:
    noun = "column" if found == 1 else "columns"
    return DataError(Problem(f"{path}, line {number}", f"has {found} {noun}", f"expected: {expected}"))
