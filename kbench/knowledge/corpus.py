"""A corpus as arrays: its sentences, and their mentions of entities of the graph.

corpus.arrow    document, text: one row a sentence, documents numbered from 0 in order
mentions.npy    `MENTION` [mentions]: sentence; start, end: its characters, half-open; entity of the graph, -1 where the
                graph has not got it; score. By sentence and start, no two overlap
frequency.npy   int64 [entities of the graph]: mentions of each
corpus.json     counts, what was left out, and a hash of sentences and mentions
"""

from __future__ import annotations

import hashlib
import json
import shutil
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from kbench.config.corpus import AliasOptions, Linker
from kbench.config.knowledge import Knowledge
from kbench.errors import DataError, Problem
from kbench.knowledge.corpora import Document, Files, content
from kbench.knowledge.corpora import documents as documents_of
from kbench.knowledge.graph import Graph
from kbench.knowledge.rows import RowFile
from kbench.stages.stage import Stage

MENTION = np.dtype([("sentence", "<i8"), ("start", "<i4"), ("end", "<i4"), ("entity", "<i4"), ("score", "<f4")])
# a mention as a reader gives it, with a Wikidata number; -1 where it gives none
_SPAN = np.dtype([("sentence", "<i8"), ("start", "<i4"), ("end", "<i4"), ("number", "<i8"), ("score", "<f4")])
_SENTENCES = pa.schema([("document", pa.int32()), ("text", pa.string())])
_BATCH = 8192  # sentences
_LONGEST = 16_384  # sentences of a document that are surely looked at together
_CHARACTERS = 1 << 26  # of one arrow batch at most, far below what its 32-bit offsets can hold
_READERS_SPANS = "spans.npy"  # what readers gave, until it is linked

# texts of consecutive sentences, their documents, the reader's spans in them: their mentions; in spans and mentions
# sentences are counted from the first of these
Link = Callable[[list[str], np.ndarray, np.ndarray], np.ndarray]


class CorpusText:
    """A stored corpus, memory-mapped.

    Attributes:
        info: what corpus.json says.
        mentions: `MENTION` [mentions].
        frequency: mentions of each entity of the graph, int64 [entities].
    """

    def __init__(self, folder: Path):
        self.info: dict[str, Any] = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
        self._table = _table(folder)
        self.mentions: np.ndarray = np.load(folder / "mentions.npy", mmap_mode="r", allow_pickle=False)
        self.frequency: np.ndarray = np.load(folder / "frequency.npy", mmap_mode="r", allow_pickle=False)

    @property
    def sentences(self) -> int:
        """Number of sentences."""
        return int(self.info["sentences"])

    @property
    def documents(self) -> int:
        """Number of documents."""
        return int(self.info["documents"])

    def batches(self, size: int) -> Iterator[tuple[int, int]]:
        """Where batches of sentences start and stop; see `sentence_batches`."""
        return sentence_batches(self._table["document"], size)

    @property
    def content(self) -> str:
        """Hash of sentences and mentions."""
        return str(self.info["content"])

    def texts(self, start: int, stop: int) -> list[str]:
        """The texts of consecutive sentences."""
        return _texts(self._table, start, stop)

    def document_of(self, start: int, stop: int) -> np.ndarray:
        """The documents that consecutive sentences stand in, int32 [stop - start], ascending."""
        found: np.ndarray = self._table["document"].slice(start, stop - start).to_numpy()
        return found

    def mentions_of(self, start: int, stop: int) -> np.ndarray:
        """The places in `mentions` of those of consecutive sentences, ascending."""
        return np.arange(*_places(self.mentions, start, stop))


def corpus_stage(knowledge: Knowledge, files: Files, graph: Stage) -> Stage:
    """The stage that makes a `CorpusText`.

    Args:
        knowledge: its `corpus` says what is read, and by what its mentions are linked; its first language is the
            corpus's.
        files: as `kbench.knowledge.corpora.locate_corpus` finds them.
        graph: the stage of the graph.
    """
    corpus = knowledge.corpus
    if corpus is None:
        raise ValueError("knowledge.corpus is null")
    science: dict[str, Any] = {
        "reader": corpus.reader,
        "linker": corpus.linker.value,
        "content": content(corpus.reader, files),
        "documents": corpus.documents,
    }
    alias = corpus.alias
    if corpus.linker is Linker.alias:
        science["language"] = knowledge.languages[0]
        science["alias"] = [alias.shortest, alias.common_words, alias.lower_case]

    def build(work: Path, parents: Mapping[str, Path]) -> None:
        opened = Graph(parents["graph"])
        try:
            given = corpus.linker is not Linker.alias or corpus.reader == "docred"
            counts = store(islice(documents_of(corpus.reader, files), corpus.documents), work, spans=given)
            if corpus.linker is Linker.alias:
                link = _by_alias(opened, knowledge.languages[0], alias, work, given)
            else:
                link = _by_number(opened)
            link_all(link, len(opened.entities), work, counts)
        except DataError:
            shutil.rmtree(work)  # mended files have another key: nobody would continue this
            raise

    return Stage("corpus", 1, science, build, {"graph": graph}, alone=True)


def store(source: Iterable[Document], folder: Path, spans: bool = True) -> dict[str, int]:
    """Write the sentences of documents into a folder, and with `spans` the mentions that they have.

    Returns:
        How many documents, sentences and characters there are, and how many sentences had nothing but white space,
        which are left out.

    Raises:
        DataError: there is no sentence, or what the source raises.
    """
    counts = {"documents": 0, "sentences": 0, "characters": 0, "blank": 0}
    numbers: list[int] = []
    texts: list[str] = []
    found: list[tuple[int, int, int, int, float]] = []
    held = 0

    def flush() -> None:
        table = pa.record_batch([pa.array(numbers, pa.int32()), pa.array(texts, pa.string())], schema=_SENTENCES)
        writer.write_batch(table)
        rows.append(np.array(found, dtype=_SPAN))
        for one in (numbers, texts, found):
            one.clear()

    with (
        pa.OSFile(str(folder / "corpus.arrow"), "wb") as sink,
        pa.ipc.new_file(sink, _SENTENCES) as writer,
        RowFile(folder / _READERS_SPANS, _SPAN) as rows,
    ):
        for document in source:
            before = counts["sentences"]
            for sentence in document.sentences:
                if not sentence.text or sentence.text.isspace():
                    counts["blank"] += 1
                    continue
                if spans:
                    found += [
                        (counts["sentences"], one.start, one.end, -1 if one.number is None else one.number, one.score)
                        for one in sentence.spans
                    ]
                numbers.append(counts["documents"])
                texts.append(sentence.text)
                counts["sentences"] += 1
                held += len(sentence.text)
                if len(texts) == _BATCH or held > _CHARACTERS:
                    counts["characters"], held = counts["characters"] + held, 0
                    flush()
            counts["documents"] += counts["sentences"] > before
        counts["characters"] += held
        flush()
    if not counts["sentences"]:
        raise DataError(Problem("knowledge.corpus", "has no sentence", "are these the files that are meant?"))
    return counts


def link_all(link: Link, entities: int, folder: Path, counts: Mapping[str, int]) -> None:
    """Link what `store` has written, batch by batch, and complete the folder.

    Args:
        link: gives the mentions of consecutive sentences.
        entities: number of entities of the graph.
        folder: where the sentences are.
        counts: what `store` gave; it goes into corpus.json.

    Raises:
        DataError: no mention is of an entity of the graph.
    """
    table, given = _table(folder), np.load(folder / _READERS_SPANS, mmap_mode="r", allow_pickle=False)
    frequency = np.zeros(entities, dtype=np.int64)
    hashes = [hashlib.sha256() for _ in range(4)]  # one for each kind, so that batches make no difference
    found, dropped = {"mentions": 0, "linked": 0, "unknown": 0}, 0
    with RowFile(folder / "mentions.npy", MENTION) as rows:
        for start, stop in sentence_batches(table["document"], _BATCH):
            texts = _texts(table, start, stop)
            documents = table["document"].slice(start, stop - start).to_numpy()
            spans = np.array(given[slice(*_places(given, start, stop))])
            spans["sentence"] -= start
            mentions, overlapping = resolved(link(texts, documents, spans))
            mentions["sentence"] += start
            dropped += overlapping
            known = mentions["entity"][mentions["entity"] >= 0]
            np.add.at(frequency, known, 1)
            found["mentions"] += len(mentions)
            found["linked"] += len(known)
            rows.append(mentions)
            sizes = np.fromiter(map(len, texts), np.int32, len(texts))
            parts = "".join(texts).encode(), sizes.tobytes(), documents.tobytes(), mentions.tobytes()
            for one, part in zip(hashes, parts, strict=True):
                one.update(part)
    if not found["linked"]:
        hint = "do corpus and graph belong together? knowledge.corpus.linker says how mentions are linked"
        raise DataError(Problem("knowledge.corpus", "has no mention of an entity of the graph", hint))
    found["unknown"] = found["mentions"] - found["linked"]
    del given
    (folder / _READERS_SPANS).unlink()
    np.save(folder / "frequency.npy", frequency, allow_pickle=False)
    whole = "".join(one.hexdigest() for one in hashes)
    info: dict[str, Any] = {**counts, **found, "entities": int((frequency > 0).sum()), "overlaps": dropped}
    info["content"] = hashlib.sha256(whole.encode()).hexdigest()
    (folder / "corpus.json").write_text(json.dumps(info, indent=1), encoding="utf-8")


def resolved(mentions: np.ndarray) -> tuple[np.ndarray, int]:
    """Mentions by sentence and start without overlaps, and how many were dropped for one.

    A longer one goes before a shorter, of two as long the earlier, of two alike the first given.
    """
    mentions = mentions[np.lexsort((-mentions["end"], mentions["start"], mentions["sentence"]))]
    base = mentions["sentence"] << 32
    reach = np.maximum.accumulate(base + mentions["end"])
    crossing = np.flatnonzero((base + mentions["start"])[1:] < reach[:-1]) + 1
    kept = np.ones(len(mentions), dtype=bool)
    for sentence in np.unique(mentions["sentence"][crossing]):
        first, last = np.searchsorted(mentions["sentence"], (sentence, sentence + 1))
        starts, ends = mentions["start"][first:last], mentions["end"][first:last]
        taken: list[tuple[int, int]] = []
        for place in np.lexsort((starts, starts - ends)).tolist():
            start, end = int(starts[place]), int(ends[place])
            if any(start < other_end and other < end for other, other_end in taken):
                kept[first + place] = False
            else:
                taken.append((start, end))
    return mentions[kept], int((~kept).sum())


def sentence_batches(documents: pa.ChunkedArray, size: int) -> Iterator[tuple[int, int]]:
    """Where batches of sentences start and stop: `size` of them and the rest of the last one's document.

    A document of more than 16,384 sentences may stand in several.

    Args:
        documents: the document of each sentence.
        size: sentences.
    """
    start = 0
    while start < len(documents):
        ahead = documents.slice(start, size + _LONGEST).to_numpy()
        stop = start + int(np.searchsorted(ahead, ahead[min(size, len(ahead)) - 1], side="right"))
        yield start, stop
        start = stop


def _by_number(graph: Graph) -> Link:
    """The mentions as the reader gives them, their numbers looked up in the graph."""
    numbers = np.asarray(graph.entities)

    def link(texts: list[str], documents: np.ndarray, spans: np.ndarray) -> np.ndarray:
        places = np.minimum(np.searchsorted(numbers, spans["number"]), len(numbers) - 1)
        return _mentions(spans, np.where(numbers[places] == spans["number"], places, -1), spans["score"])

    return link


def _by_alias(graph: Graph, language: str, options: AliasOptions, folder: Path, given: bool) -> Link:
    """Names of the graph: with `given` those of the spans that the reader gives, else wherever they stand."""
    from kbench.knowledge.linkers import AliasLinker, common_words

    table = _table(folder)
    stored = (text for start in range(0, len(table), _BATCH) for text in _texts(table, start, start + _BATCH))
    common = common_words(stored, options.common_words)
    linker = AliasLinker(graph, language, options.shortest, options.lower_case, common)

    def link(texts: list[str], documents: np.ndarray, spans: np.ndarray) -> np.ndarray:
        answers = linker.link(texts, documents)
        return np.array([(place, *one) for place, links in enumerate(answers) for one in links], dtype=MENTION)

    def link_given(texts: list[str], documents: np.ndarray, spans: np.ndarray) -> np.ndarray:
        asked: list[list[tuple[int, int]]] = [[] for _ in texts]
        for sentence, start, end in zip(*(spans[name].tolist() for name in ("sentence", "start", "end")), strict=True):
            asked[sentence].append((start, end))
        answers = list(chain.from_iterable(linker.link_spans(texts, asked, documents)))
        return _mentions(spans, np.array([one[2] for one in answers]), np.array([one[3] for one in answers]))

    return link_given if given else link


def _mentions(spans: np.ndarray, entities: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Spans as mentions of some entities."""
    found = np.empty(len(spans), dtype=MENTION)
    for name in ("sentence", "start", "end"):
        found[name] = spans[name]
    found["entity"], found["score"] = entities, scores
    return found


def _places(rows: np.ndarray, start: int, stop: int) -> tuple[int, int]:
    """Where the rows of some sentences start and stop."""
    column: Any = rows["sentence"]
    return bisect_left(column, start), bisect_left(column, stop)  # numpy's own search would copy the whole column


def _table(folder: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(folder / "corpus.arrow"))).read_all()


def _texts(table: pa.Table, start: int, stop: int) -> list[str]:
    found: list[str] = table["text"].slice(start, stop - start).to_pylist()
    return found
