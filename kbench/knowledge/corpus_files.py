"""Forms of files of text with linked mentions. Files may be gzipped; none is held as a whole.

Mistakes are gathered over a file, up to five, and each names its line.

jsonl    text: one sentence a line, {"text": "Ada knew Babbage", "title": "Ada", "mentions": [{"start": 0, "end": 3,
         "qid": "Q7259", "score": 0.9}]}; instead of text "tokens", a list, and then start and end count tokens. Title,
         mentions and score may be absent. Lines with one title that follow each other are a document.
ernie    tokens, entities: the same shape, one document a line: number of sentences, then of each the number of its
         pieces and these; pieces as numbers, entities as Q-id or #UNK#, all between tabs. vocabulary: a piece a line
docred   documents: a JSON list of {"title", "sents", "vertexSet"}; its mentions name no entity
text     text: one sentence a line, a blank line ends a document
"""

from __future__ import annotations

import codecs
import gzip
import json
import math
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, groupby, zip_longest
from pathlib import Path
from typing import Any

from kbench.data.readers import lines
from kbench.errors import DataError, Problem
from kbench.knowledge.corpora import Document, Files, Sentence, Span

LONGEST = 10_000  # sentences of a document; what is longer is cut, as a text file may have no blank line at all

_MOST = 5  # problems of a file that are told
_QID = re.compile(r"Q[0-9]{1,18}")
_NONE, _PIECE = "#UNK#", "##"  # ERNIE's: no entity, and what a piece begins with that continues a word
_BLOCK = 1 << 20
_ESCAPE = len("\\ud83d\\ude00")  # the longest sign of JSON, which may be cut at the end of what is read
_REFETCH = "fetch it again, or take it out of knowledge.corpus.files"
_OFFSETS = "start and end count from 0, end is behind the last one"


class _Faults:
    """Problems of one file, gathered until there are enough of them to tell."""

    def __init__(self) -> None:
        self._problems: list[Problem] = []

    def add(self, error: DataError) -> None:
        self._problems += error.problems
        if len(self._problems) >= _MOST:
            self.end()

    def end(self) -> None:
        """Tell what was found."""
        if self._problems:
            raise DataError(*self._problems[:_MOST])


def _bad(where: str, what: str, hint: str = "") -> DataError:
    return DataError(Problem(where, what, hint))


def _empty(path: Path) -> DataError:
    return _bad(str(path), "is empty", _REFETCH)


def _jsonl(files: Files) -> Iterator[Document]:
    for path in files["text"]:
        for title, group in groupby(_records(path), key=lambda one: one[0]):
            yield from _cut(title if isinstance(title, str) else "", (sentence for _, sentence in group))


def _cut(title: str, sentences: Iterator[Sentence]) -> Iterator[Document]:
    """A document, or several where it is too long."""
    found: list[Sentence] = []
    for sentence in sentences:
        found.append(sentence)
        if len(found) == LONGEST:
            yield Document(title, found)
            found = []
    if found:
        yield Document(title, found)


def _records(path: Path) -> Iterator[tuple[str | int, Sentence]]:
    """Title, or where there is none the line's number, and sentence of each line."""
    faults, number = _Faults(), 0
    for number, line in lines(path):
        where = f"{path}, line {number}"
        try:
            title, sentence = _record(where, line)
        except DataError as error:
            faults.add(error)
        else:
            yield (number if title is None else title), sentence
    if not number:
        raise _empty(path)
    faults.end()


def _record(where: str, line: str) -> tuple[str | None, Sentence]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _bad(where, f"is no JSON: {error}") from error
    if not isinstance(record, dict) or ("text" in record) == ("tokens" in record):
        raise _bad(where, "has not one of text and tokens", 'a line is {"text": "...", "mentions": [...]}')
    title, listed = record.get("title"), record.get("mentions", [])
    if title is not None and not isinstance(title, str):
        raise _bad(where, "has a title that is no text")
    if not isinstance(listed, list):
        raise _bad(where, "has mentions that are no list")
    if "text" in record:
        text, unit = record["text"], "characters"
        if not isinstance(text, str):
            raise _bad(where, "has a text that is no text")
        starts, ends = _offsets(list(text) if listed else [], gap=0)
    else:
        tokens, unit = record["tokens"], "tokens"
        if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
            raise _bad(where, "has tokens that are no list of texts")
        text = " ".join(tokens)
        starts, ends = _offsets(tokens)
    _check_text(where, text)
    spans = [_span(f"{where}, mention {place}", one, starts, ends, unit) for place, one in enumerate(listed, start=1)]
    return title, Sentence(text, spans)


def _offsets(words: list[str], gap: int = 1) -> tuple[list[int], list[int]]:
    """Where each word starts in the words joined by spaces, one more for the end; and where the one before it ends."""
    starts, ends, at = [], [0], 0
    for word in words:
        starts.append(at)
        at += len(word)
        ends.append(at)
        at += gap
    return [*starts, at], ends


def _span(where: str, one: Any, starts: Sequence[int], ends: Sequence[int], unit: str) -> Span:
    """A mention of a record; `starts` and `ends` give the characters of its offsets."""
    start, end, qid = (one.get(name) if isinstance(one, dict) else None for name in ("start", "end", "qid"))
    if type(start) is not int or type(end) is not int:
        raise _bad(where, "has no whole numbers start and end", _OFFSETS)
    if not 0 <= start < end < len(ends) or starts[start] >= ends[end]:
        raise _bad(where, f"covers {start} to {end} of {len(ends) - 1} {unit}", _OFFSETS)
    if not isinstance(qid, str) or not _QID.fullmatch(qid):
        raise _bad(where, f"{qid!r:.40} is no id of an entity", "qid is Q and digits")
    score = one.get("score", 1.0)
    if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
        raise _bad(where, f"{score!r:.40} is no score", "a number, or none at all")
    return Span(starts[start], ends[end], int(qid[1:]), float(score))


def _check_text(where: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        what = f"has half a character (\\u{ord(text[error.start]):04x}) at {error.start}"
        raise _bad(where, what, "write such characters in full, or as a pair of escapes") from error


def _ernie(files: Files) -> Iterator[Document]:
    vocabulary = [piece for path in files["vocabulary"] for _, piece in lines(path, blank=True)]
    tokens, entities = files["tokens"], files["entities"]
    if len(tokens) != len(entities):
        what = f"find {len(tokens)} files of tokens and {len(entities)} of entities"
        raise _bad("knowledge.corpus.files", what, "each file of tokens needs one of entities")
    for one, other in zip(tokens, entities, strict=True):
        faults, number = _Faults(), 0
        for number, (left, right) in enumerate(zip_longest(lines(one, blank=True), lines(other, blank=True)), start=1):
            if left is None or right is None:
                long, short = (one, other) if right is None else (other, one)
                raise _bad(f"{short}, line {number}", f"is not there, but in {long.name}", "they belong together")
            try:
                wheres = f"{one}, line {number}", f"{other}, line {number}"
                pieces, marks = _articles(wheres[0], left[1]), _articles(wheres[1], right[1])
                if list(map(len, pieces)) != list(map(len, marks)):
                    what = f"has other numbers of sentences or pieces than {one.name}"
                    raise _bad(wheres[1], what, "the two belong together")
                sentences = list(_aligned(*wheres, pieces, marks, vocabulary))
            except DataError as error:
                faults.add(error)
            else:
                yield from _cut("", iter(sentences))
        if not number:
            raise _empty(one)
        faults.end()


def _articles(where: str, line: str) -> list[list[str]]:
    """The sentences of a line: how many there are, then of each how many fields it has, and the fields."""
    fields = line.rstrip("\t").split("\t")
    hint = "a line is a number of sentences, then for each its number of pieces and the pieces, between tabs"
    found, at = [], 1
    if not fields[0].isdecimal():
        raise _bad(where, f"{fields[0]!r:.40} is no number of sentences", hint)
    for place in range(1, int(fields[0]) + 1):
        if at >= len(fields) or not fields[at].isdecimal():
            what = f"sentence {place} has no number of pieces"
            raise _bad(where, f"{what}: {fields[at]!r:.40}" if at < len(fields) else what, hint)
        size = int(fields[at])
        found.append(fields[at + 1 : at + 1 + size])
        if len(found[-1]) != size:
            raise _bad(where, f"sentence {place} has {len(found[-1])} pieces, but says {size}", hint)
        at += 1 + size
    if at != len(fields):
        raise _bad(where, f"has {len(fields) - at} fields after its last sentence", hint)
    return found


def _aligned(
    where: str, other: str, pieces: list[list[str]], marks: list[list[str]], vocabulary: list[str]
) -> Iterator[Sentence]:
    for place, (ids, qids) in enumerate(zip(pieces, marks, strict=True), start=1):
        for one in ids:
            if not one.isdecimal() or int(one) >= len(vocabulary):
                what = f"{one!r:.40} in sentence {place} is no piece of the vocabulary"
                raise _bad(where, what, f"it has {len(vocabulary):,} lines, the first is piece 0")
        for one in qids:
            if one != _NONE and not _QID.fullmatch(one):
                raise _bad(other, f"{one!r:.40} in sentence {place} is no id of an entity", f"Q and digits, or {_NONE}")
        yield _joined([vocabulary[int(one)] for one in ids], qids)


def _joined(pieces: list[str], marks: list[str]) -> Sentence:
    """Word pieces as words between spaces; a mention covers every word that one of its pieces is of."""
    words: list[str] = []
    word_of = []
    for piece in pieces:
        if piece.startswith(_PIECE) and words:
            words[-1] += piece.removeprefix(_PIECE)
        else:
            words.append(piece)
        word_of.append(len(words) - 1)
    starts, ends = _offsets(words)
    spans: dict[Span, None] = {}  # in order, none twice: a word may hold two runs of one entity
    for mark, run in groupby(range(len(marks)), key=lambda place: marks[place]):
        if mark != _NONE:
            places = list(run)
            spans[Span(starts[word_of[places[0]]], ends[word_of[places[-1]] + 1], int(mark[1:]))] = None
    return Sentence(" ".join(words), list(spans))


def _docred(files: Files) -> Iterator[Document]:
    for path in files["documents"]:
        faults, number = _Faults(), 0
        for number, one in enumerate(_items(path), start=1):
            try:
                found = _paragraph(f"{path}, document {number}", one)
            except DataError as error:
                faults.add(error)
            else:
                yield found
        if not number:
            raise _empty(path)
        faults.end()


def _paragraph(where: str, one: Any) -> Document:
    if not isinstance(one, dict) or not {"sents", "vertexSet"} <= one.keys():
        raise _bad(where, "has no sents or no vertexSet", "is it a file of DocRED?")
    title, sents, vertices = one.get("title", ""), one["sents"], one["vertexSet"]
    if not isinstance(sents, list) or not all(
        isinstance(sent, list) and all(isinstance(token, str) for token in sent) for sent in sents
    ):
        raise _bad(where, "has sents that are no lists of tokens")
    offsets = [_offsets(sent) for sent in sents]
    sentences = [Sentence(" ".join(sent)) for sent in sents]
    for sentence in sentences:
        _check_text(where, sentence.text)
    listed: list[Any] = vertices if isinstance(vertices, list) else [None]
    for place, vertex in enumerate(listed):
        mentions: list[Any] = vertex if isinstance(vertex, list) else [None]
        for mention in mentions:
            try:
                number, (start, end) = mention["sent_id"], mention["pos"]
                inside = 0 <= number < len(sents) and 0 <= start < end <= len(sents[number])
            except (TypeError, KeyError, ValueError) as error:
                raise _bad(where, f"entity {place} has a mention without sent_id and pos") from error
            if not inside:
                what = f"entity {place} has a mention at {start} to {end} of sentence {number}, which is not there"
                raise _bad(where, what, "pos counts the tokens of its sentence from 0, its end is behind the last one")
            starts, ends = offsets[number]
            sentences[number].spans.append(Span(starts[start], ends[end], None))
    return Document(title if isinstance(title, str) else "", sentences)


def _items(path: Path) -> Iterator[Any]:
    """The elements of a file that is one JSON list, without holding all of it."""
    decoder, text, line, begun, wanted = json.JSONDecoder(), "", 1, False, 0

    def broken(what: str, at: int) -> DataError:
        return _bad(f"{path}, line {line + text.count(chr(10), 0, at)}", what, _REFETCH)

    for piece in chain(_decoded(path), [None]):
        text += piece or ""
        if piece is not None and len(text) < wanted:  # a long element is not tried again at every piece
            continue
        at = 0
        while True:
            while at < len(text) and text[at] in " \t\r\n,":
                at += 1
            if at == len(text):
                break
            if not begun:
                if text[at] != "[":
                    raise broken("is no list of documents", at)
                begun, at = True, at + 1
                continue
            if text[at] == "]":
                return
            try:
                found, end = decoder.raw_decode(text, at)
            except RecursionError as error:
                raise broken(f"is no JSON: {error}", at) from error
            except json.JSONDecodeError as error:
                # an element that is not read to its end fails at the end, or in a text that is open there
                if error.pos < len(text) - _ESCAPE and not error.msg.startswith("Unterminated"):
                    raise broken(f"is no JSON: {error.msg}", error.pos) from error
                break
            yield found
            at = end
        wanted = 0 if at else 2 * len(text)
        line, text = line + text.count("\n", 0, at), text[at:]
    if begun:
        raise broken("ends inside the list", len(text))


def _decoded(path: Path) -> Iterator[str]:
    """The text of a file in pieces."""
    decoder, number = codecs.getincrementaldecoder("utf-8-sig")(), 1
    opener: Callable[..., Any] = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            while block := file.read(_BLOCK):
                yield (text := decoder.decode(block))
                number += text.count("\n")
            yield decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        number += error.object.count(b"\n", 0, error.start)
        what = f"is not UTF-8 (byte 0x{error.object[error.start]:02x})"
        raise _bad(f"{path}, line {number}", what, "convert the file to UTF-8") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise _bad(f"{path}, after line {number}", f"is a damaged gzip file: {error}") from error


def _text(files: Files) -> Iterator[Document]:
    for path in files["text"]:
        read = False
        for blank, group in groupby((line.strip() for _, line in lines(path, blank=True)), key=lambda line: not line):
            if not blank:
                read = True
                yield from _cut("", (Sentence(line) for line in group))
        if not read:
            raise _empty(path)


READERS: dict[str, Callable[[Files], Iterator[Document]]] = {
    "jsonl": _jsonl, "ernie": _ernie, "docred": _docred, "text": _text,
}  # fmt: skip
