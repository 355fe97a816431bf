"""Which entities and relations of a dump are wanted: those of a graph."""

from __future__ import annotations

import gzip
import hashlib
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kbench.errors import DataError, Problem

_IDS = {kind: re.compile(rb"(?<!\S)" + kind + rb"([0-9]{1,10})(?!\S)") for kind in (b"Q", b"P")}
_LARGEST = 2**31  # no id of Wikidata is near it; a larger number is no id
_PIECE = 1 << 24


@dataclass
class Wanted:
    """Ids of items and properties, one bit for each."""

    items: bytes
    properties: bytes
    count: int
    content: str

    def has(self, kind: bytes, number: int) -> bool:
        """Whether an id, such as (b"Q", 42), is wanted."""
        bits = self.items if kind == b"Q" else self.properties
        return number >> 3 < len(bits) and bool(bits[number >> 3] >> (number & 7) & 1)

    @classmethod
    def of(cls, *paths: Path) -> Wanted:
        """All ids, Q42 or P31, that stand alone in a column of some files: lists of ids, or files of triples.

        Args:
            paths: files, gzipped or not; or folders such as Wikidata5M's, of which the files of triples are read.

        Raises:
            DataError: a file is absent or damaged or holds no id; a folder has no file of triples.
        """
        found = {kind: np.zeros(0, dtype=bool) for kind in _IDS}
        for path in [file for given in paths for file in _files(given)]:
            some = False
            for text in _pieces(path):
                for kind, pattern in _IDS.items():
                    numbers = np.array(pattern.findall(text), dtype="S10").astype(np.int64)
                    some = some or len(numbers) > 0
                    found[kind] = _marked(found[kind], numbers, path)
            if not some:
                hint = "expected: an id such as Q42 or P31 a line, or triples, head TAB relation TAB tail"
                raise DataError(Problem(str(path), "holds no id of Wikidata", hint))
        items, properties = (np.packbits(found[kind], bitorder="little").tobytes() for kind in _IDS)
        content = hashlib.sha256(items.rstrip(b"\0") + b"|" + properties.rstrip(b"\0")).hexdigest()
        return cls(items, properties, int(sum(marks.sum() for marks in found.values())), content)


def _files(path: Path) -> list[Path]:
    """The files to look for ids in."""
    if not path.is_dir():
        return [path]
    found = sorted(file for pattern in ("*triplet*.txt*", "triples*") for file in path.glob(pattern) if file.is_file())
    if not found:
        raise DataError(Problem(str(path), "holds no file of triples", "expected: wikidata5m_*_triplet.txt"))
    return found


def _pieces(path: Path) -> Iterable[bytes]:
    """A file in pieces that end with a line."""
    rest = b""
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            while data := file.read(_PIECE):
                whole, end, rest = (rest + data).rpartition(b"\n")
                yield whole + end
    except FileNotFoundError:
        raise DataError(Problem(str(path), "there is no such file")) from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(Problem(str(path), f"is a damaged gzip file: {error}")) from error
    yield rest


def _marked(marks: np.ndarray, numbers: np.ndarray, path: Path) -> np.ndarray:
    """The marks with those of some numbers set; grown where they are too few."""
    if len(numbers) == 0:
        return marks
    largest = int(numbers.max())
    if largest >= _LARGEST:
        raise DataError(Problem(str(path), f"{largest} is too large to be the number of an id"))
    if largest >= len(marks):
        marks = np.concatenate([marks, np.zeros(largest + 1 - len(marks), dtype=bool)])
    marks[numbers] = True
    return marks
