"""A dump of a Wikipedia as documents whose links are mentions: links tell which entity is meant, written by people.

Two files of one date: pages-articles.xml, and page_props.sql with the Wikidata number of each page (`wikibase_item`),
packed with bzip2, gzip or not at all. The pages are read twice from beginning to end and never held: first their
titles, then their text. Of a title 16 bytes are kept, a hash and the number that it leads to.

Only articles are read. A link is a mention of the entity that its target has the number of, over redirects if need be;
links to other namespaces and wikis, or to pages without a number, are plain text. `kbench.knowledge.wikitext` says what
of a page is text, and where sentences end.
"""

from __future__ import annotations

import os
import re
from array import array
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from xml.parsers import expat

import numpy as np

from kbench.errors import DataError, Problem
from kbench.knowledge.corpora import Document, Sentence, Span
from kbench.knowledge.packed import REFETCH, Unpacked
from kbench.knowledge.wikitext import CATEGORY, FILE, Apart, Pages, normal_title, taken_apart, unmarked

Files = Mapping[str, tuple[Path, ...]]

_BLOCK = 1 << 18
_LARGE = 1 << 28  # bytes of a dump from which on several processes are worth their start
_PORTION = 1 << 18  # characters of articles that a process gets at a time
_STEPS = 8  # redirects that are followed one after another
_ITEM = re.compile(rb"\(([0-9]+),'wikibase_item','Q([0-9]{1,18})'")
_TAIL = 128  # bytes of a row of page_props that may be cut in two
_ENGLISH = {"file": FILE, "image": FILE, "category": CATEGORY}  # understood in every wiki


def documents(files: Files, processes: int | None = None) -> Iterator[Document]:
    """The articles of a dump in its order, with those of their links that lead to a page with a Wikidata number.

    Articles without a sentence are left out, and the few that the parser of wikitext gives up. A core takes apart some
    2 MB of articles a second, so all of the English ones keep it busy for a day.

    Args:
        files: pages: pages-articles.xml in one or several files; page_props: page_props.sql.
        processes: how many take articles apart; they come out the same. None: one for each core for a large dump.

    Raises:
        DataError: a file is empty, cut off, damaged or something else; no title leads to a number.
    """
    titles = Titles.of(files)
    if processes is None:
        large = sum(path.stat().st_size for path in files["pages"]) >= _LARGE
        processes = len(os.sched_getaffinity(0)) if large else 1
    for title, sentences, links in _articles(files["pages"], processes):
        if sentences:
            numbers = titles.numbers_of(links)
            yield Document(title, [_sentence(one, numbers) for one in sentences])


def _sentence(marked_one: str, numbers: list[int]) -> Sentence:
    text, links = unmarked(marked_one)
    return Sentence(text, [Span(start, end, numbers[link]) for start, end, link in links if numbers[link] >= 0])


def _articles(paths: tuple[Path, ...], processes: int) -> Iterator[tuple[str, list[str], list[str]]]:
    """The articles, by several processes: a few portions ahead, so that they do not pile up here."""
    portions = chain.from_iterable(_portions(path) for path in paths)
    if processes == 1:
        for pages, namespaces in portions:
            yield from taken_apart(pages, namespaces)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        ahead: deque[Future[Apart]] = deque()
        for portion in portions:
            ahead.append(pool.submit(taken_apart, *portion))
            if len(ahead) >= 4 * processes:
                yield from ahead.popleft().result()
        while ahead:
            yield from ahead.popleft().result()


def _portions(path: Path) -> Iterator[tuple[Pages, dict[str, int]]]:
    """Articles, some at a time, and the namespaces of their wiki."""
    dump, pages, size = _Dump(path), [], 0
    for page in dump.pages():
        if not page.namespace and page.redirect is None:
            pages.append((page.title, page.text))
            size += len(page.text)
        if size >= _PORTION:
            yield pages, dump.namespaces
            pages, size = [], 0
    if pages:
        yield pages, dump.namespaces


class Titles:
    """The Wikidata numbers that titles lead to.

    Args:
        hashes: of the titles, uint64 [t], ascending.
        numbers: of them, int64 [t].
    """

    def __init__(self, hashes: np.ndarray, numbers: np.ndarray):
        self.hashes, self.numbers = hashes, numbers

    @classmethod
    def of(cls, files: Files) -> Titles:
        """Those of a dump; `files` and errors as for `documents`."""
        pages, items = _page_items(files["page_props"])
        hashes, places = array("Q"), array("q")
        sources, targets = array("Q"), array("Q")
        for path in files["pages"]:
            for page in _Dump(path, texts=False).pages():
                if page.namespace:
                    continue
                name = hash_title(normal_title(page.title))
                if page.redirect is None:
                    hashes.append(name)
                    places.append(page.number)
                else:
                    sources.append(name)
                    targets.append(hash_title(normal_title(page.redirect)))
        numbers = _looked_up(pages, items, np.frombuffer(places, dtype=np.int64))
        names, first = np.unique(np.frombuffer(hashes, dtype=np.uint64), return_index=True)
        numbers = numbers[first]
        moved, first = np.unique(np.frombuffer(sources, dtype=np.uint64), return_index=True)
        towards = np.frombuffer(targets, dtype=np.uint64)[first]
        ends = towards.copy()
        for _ in range(_STEPS):
            at = np.minimum(np.searchsorted(moved, ends), max(len(moved) - 1, 0))
            on = moved[at] == ends if len(moved) else np.zeros(0, dtype=bool)
            if not on.any():
                break
            ends[on] = towards[at[on]]
        hashes_of_all = np.concatenate([names, moved])
        numbers_of_all = np.concatenate([numbers, _looked_up(names, numbers, ends)])
        known = numbers_of_all >= 0
        if not known.any():
            where = ", ".join(map(str, files["page_props"]))
            what = "has no number of any article of the pages"
            raise DataError(Problem(where, what, "take both files of one wiki and of one date"))
        hashes_of_all, first = np.unique(hashes_of_all[known], return_index=True)
        return cls(hashes_of_all, numbers_of_all[known][first])

    def __len__(self) -> int:
        return len(self.hashes)

    def numbers_of(self, titles: list[str]) -> list[int]:
        """The number that each title leads to, spelt as by `normal_title`; -1 where none."""
        hashes = np.fromiter(map(hash_title, titles), dtype=np.uint64, count=len(titles))
        found: list[int] = _looked_up(self.hashes, self.numbers, hashes).tolist()
        return found


def hash_title(title: str) -> int:
    """A number of 64 bits for a title; titles that differ have different ones, all but never."""
    return int.from_bytes(blake2b(title.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _looked_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The value of each key, keys in ascending order; -1 where there is no such key."""
    if not len(keys):
        return np.full(len(wanted), -1, dtype=np.int64)
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], -1)


def _page_items(paths: tuple[Path, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Page ids, ascending, and the Wikidata number of each."""
    pages, items = array("q"), array("q")
    for path in paths:
        before, rest = len(pages), b""
        for block in _blocks(path):
            data, end = rest + block, 0
            for found in _ITEM.finditer(data):
                pages.append(int(found[1]))
                items.append(int(found[2]))
                end = found.end()
            rest = data[max(end, len(data) - _TAIL) :]
        if len(pages) == before:
            hint = "it is the table page_props.sql, of the wiki that the pages are of"
            raise DataError(Problem(str(path), "names no wikibase_item", hint))
    numbers, first = np.unique(np.frombuffer(pages, dtype=np.int64), return_index=True)
    return numbers, np.frombuffer(items, dtype=np.int64)[first]


def _blocks(path: Path) -> Iterator[bytes]:
    if not path.stat().st_size:
        raise DataError(Problem(str(path), "is empty", REFETCH))
    with path.open("rb") as file:
        yield from Unpacked(file, path, _BLOCK).blocks(0, 0, 0)


@dataclass
class _Page:
    """A page of a dump; `text` is empty where texts are not read."""

    title: str = ""
    namespace: int = 0
    number: int = -1
    redirect: str | None = None
    text: str = ""


@dataclass
class _Dump:
    """One file of pages.

    Attributes:
        texts: whether the texts are wanted, too.
        namespaces: name of a namespace in lower case -> its number; known once a page is.
    """

    path: Path
    texts: bool = True
    namespaces: dict[str, int] = field(default_factory=lambda: dict(_ENGLISH))

    def pages(self) -> Iterator[_Page]:
        """The pages of all namespaces."""
        self._open: list[str] = []
        self._ready: list[_Page] = []
        self._said: list[str] = []
        self._page, self._key = _Page(), 0
        self._parser = parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler, parser.EndElementHandler = self._starts, self._ends
        parser.EntityDeclHandler = self._declares
        ended = False
        try:
            for block in _blocks(self.path):
                parser.Parse(block, False)
                yield from self._ready
                self._ready.clear()
            ended = True
            parser.Parse(b"", True)
        except expat.ExpatError as error:
            what = f"is no XML: {expat.ErrorString(error.code)}"
            if ended and self._open:
                what = f"is cut off: it ends inside <{self._open[-1]}>"
            raise self._wrong(what, error.lineno, REFETCH) from error

    def _wrong(self, what: str, line: int, hint: str) -> DataError:
        return DataError(Problem(f"{self.path}, line {line}", what, hint))

    def _declares(self, *_: Any) -> None:
        line = self._parser.CurrentLineNumber
        raise self._wrong("declares an entity, which no dump does", line, "fetch it from Wikimedia")

    def _starts(self, name: str, attributes: dict[str, str]) -> None:
        if not self._open and name != "mediawiki":
            what = f"is no dump of a wiki: it begins with <{name}>"
            raise self._wrong(what, self._parser.CurrentLineNumber, "it is pages-articles.xml, not one of abstracts")
        self._open.append(name)
        depth = len(self._open)
        if name == "page":
            self._page = _Page()
        elif name == "redirect" and depth == 3:
            self._page.redirect = attributes.get("title", "")
        elif name == "namespace":
            self._key = int(attributes.get("key", "0"))
        of_page = depth == 3 and name in ("title", "ns", "id")
        if of_page or name == "namespace" or (name == "text" and self.texts):
            self._said = []
            self._parser.CharacterDataHandler = self._said.append

    def _ends(self, name: str) -> None:
        depth = len(self._open)
        self._open.pop()
        if self._parser.CharacterDataHandler is not None:
            self._parser.CharacterDataHandler = None
            said = "".join(self._said)
            if name == "namespace":
                self.namespaces.setdefault(said.lower(), self._key)
            elif name == "text":
                self._page.text = said
            elif name == "title":
                self._page.title = said
            elif said.strip().removeprefix("-").isdecimal():
                setattr(self._page, {"ns": "namespace", "id": "number"}[name], int(said))
        if name == "page" and depth == 2:
            if not self._page.title or self._page.number < 0:
                what = "ends a page without a title or an id"
                raise self._wrong(what, self._parser.CurrentLineNumber, "it is pages-articles.xml")
            self._ready.append(self._page)
