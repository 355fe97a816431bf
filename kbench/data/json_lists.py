"""Files that are one JSON list of objects, read object by object; errors name line and place in the list."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kbench.data.pairs import _require
from kbench.data.readers import lines
from kbench.errors import DataError, Problem

_SPACE = re.compile(r"\s*")

# where it stands, without the file: "3, item 12"; where it stands, for messages; the object
Item = tuple[str, str, Mapping[str, Any]]


def json_objects(path: Path, encoding: str, keys: Iterable[str]) -> Iterator[Item]:
    """The objects of a file [{..}, {..}], each with the keys; of an empty file none.

    The text of the file is held in memory, its objects are not: that of TACRED's training split is some 100 MB.

    Args:
        path: plain or gzipped.
        encoding: how it spells letters as bytes.
        keys: what every object has.

    Raises:
        DataError: it is no such JSON, or an object lacks a key.
    """
    text = "\n".join(line for _, line in lines(path, encoding, blank=True))
    place = _after_space(text, 0)
    if place == len(text):
        return
    if text[place] != "[":
        raise DataError(Problem(f"{path}, line {_line(text, place)}", "is no JSON list", "expected: [{..}, {..}]"))
    decoder = json.JSONDecoder()
    place = _after_space(text, place + 1)
    line, counted, number = 1, 0, 0
    if text[place : place + 1] == "]":
        place += 1
    else:
        while True:
            number += 1
            line, counted = line + text.count("\n", counted, place), place
            where = f"{path}, line {line}, item {number}"
            try:
                found, place = decoder.raw_decode(text, place)
            except json.JSONDecodeError as error:
                what = f"is no JSON: {error.msg}, line {error.lineno}, column {error.colno}"
                raise DataError(Problem(where, what)) from error
            except (ValueError, RecursionError) as error:
                raise DataError(Problem(where, f"is no JSON: {error}")) from error
            if not isinstance(found, dict):
                raise DataError(Problem(where, "is no JSON object", f"expected: {{...}} with {', '.join(keys)}"))
            _require(found, keys, where)
            yield f"{line}, item {number}", where, found
            place = _after_space(text, place)
            after = text[place : place + 1]
            place = _after_space(text, place + 1)
            if after == "]":
                break
            if after != ",":
                what = f"is followed by {after!r}" if after else "is the last, and the list is not closed"
                raise DataError(Problem(where, what, "is the file complete? expected: [{..}, {..}]"))
    if _after_space(text, place) < len(text):
        raise DataError(Problem(f"{path}, line {_line(text, place)}", "goes on after the end of the list"))


def number_of(row: Mapping[str, Any], key: str, where: str) -> int:
    """A value that must be a whole number.

    Raises:
        DataError: it is none.
    """
    found = row[key]
    if not isinstance(found, int) or isinstance(found, bool):
        raise DataError(Problem(where, f"{key} is no whole number: {found!r:.40}"))
    return found


def texts_of(row: Mapping[str, Any], key: str, where: str) -> list[str]:
    """A value that must be a list of texts that can be stored; it may be empty.

    Raises:
        DataError: it is none.
    """
    found = row[key]
    if not isinstance(found, list):
        raise DataError(Problem(where, f"{key} is no list: {found!r:.40}"))
    for place, one in enumerate(found, start=1):
        if not isinstance(one, str):
            raise DataError(Problem(where, f"{key} holds no text at place {place}: {one!r:.40}"))
        try:
            one.encode()
        except UnicodeEncodeError as error:  # JSON can spell it, but no file can hold it
            what = f"{key} holds half a surrogate pair, which is no letter, at place {place}"
            raise DataError(Problem(where, what)) from error
    return found


def _after_space(text: str, place: int) -> int:
    found = _SPACE.match(text, place)
    return found.end() if found else place


def _line(text: str, place: int) -> int:
    return 1 + text.count("\n", 0, place)
