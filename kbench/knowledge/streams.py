"""The streams of a pre-training on a graph: from the ids of samples to masked batches, a whole batch at a time.

A sentence is `HEAD| REL| TAIL.`, and each bar is the mask token. It is put together from the token ids of its parts
(`kbench.knowledge.tokens`), with two arrays beside them that say what each token stands for: its role, and which name
it is of. A reasoning sample is 3 or 5 such sentences. Plain text is one line a sample.

Every stream has rows 0 to n-1 and gives any of them as a batch; which rows, in what order and with which keys is for
the caller to say. A stream opens memory-mapped files and should be opened anew in each process.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kbench.errors import DataError, Problem
from kbench.knowledge.graph import Graph
from kbench.knowledge.masking import LONG, SHORT, Masked, Masking, Role, mask_ordinary, mask_reasoning
from kbench.knowledge.tokens import NameTokens, Vocabulary, mapped

_PARTS = np.array([Role.HEAD, Role.RELATION, Role.TAIL], dtype=np.int8)
_BITS = np.array([1, 2, 4], dtype=np.uint8)  # of a code-switched sample, in the order of the parts
# The edges of a length-4 cycle as they are stored: p-i, i-q, q-k, p-k, and the chord i-k. Released code: the chord
# last; the paper's figure: second.
_CHORDS = {"last": [0, 1, 2, 3, 4], "second": [0, 4, 1, 2, 3]}


@dataclass(frozen=True)
class Assembled:
    """Token ids of a batch before masking, the links already the mask.

    Attributes:
        ids: int64 [B, L].
        roles: `Role` of each token, int8 [B, L].
        spans: 3 * sentence + 0 head, 1 relation, 2 tail; -1 elsewhere, int8 [B, L].
    """

    ids: np.ndarray
    roles: np.ndarray
    spans: np.ndarray


@dataclass(frozen=True)
class Spoken:
    """Names as pieces of token ids: language, first token and tokens of each, int64 [names]."""

    language: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray


class Lexicon:
    """The token ids of the names of a graph's items, in several languages.

    Args:
        graph: folder of the graph.
        tokens: folder of the names' token ids.
        languages: the languages by their index in samples; the first speaks for those that lack a name.
    """

    def __init__(self, graph: Path, tokens: Path, languages: Sequence[str]):
        opened = Graph(graph)
        self.languages = list(languages)
        self.entities = len(opened.entities)
        self.triples = np.asarray(opened.triples)
        self._names = [np.asarray(opened.names(lang).ends) for lang in self.languages]
        self._tokens = [NameTokens(tokens, lang) for lang in self.languages]

    def items(self, triples: np.ndarray) -> np.ndarray:
        """Head, relation and tail of some triples as items, int64 [triples, 3]."""
        return self.triples[triples].astype(np.int64) + np.array([0, self.entities, 0])

    def say(self, language: np.ndarray, items: np.ndarray, aliases: np.ndarray | None = None) -> Spoken:
        """The names of some items [names] in a language each; without one there, in the first language.

        Args:
            language: index of a language.
            items: what is named.
            aliases: which name: 0 the label, k the k-th alias; None: labels.

        Raises:
            DataError: an item has no such name.
        """
        first, counts = self._entries(language, items)
        lacking = np.flatnonzero(counts == 0)
        if len(lacking):
            language = language.copy()
            language[lacking] = 0
            first[lacking], counts[lacking] = self._entries(language[lacking], items[lacking])
        if aliases is not None:
            first += aliases
        wrong = counts <= (0 if aliases is None else aliases)
        if wrong.any():
            raise self._unnamed(int(np.flatnonzero(wrong)[0]), language, items, aliases, counts)
        starts, lengths = np.empty_like(first), np.empty_like(first)
        for index, chosen in _groups(language):
            starts[chosen], lengths[chosen] = _pieces(self._tokens[index].ends, first[chosen])
        return Spoken(language, starts, lengths)

    def ids(self, spoken: Spoken) -> np.ndarray:
        """The token ids of names, one name after another, int32 [tokens]."""
        places = ragged(spoken.starts, spoken.lengths)
        language = np.repeat(spoken.language, spoken.lengths)
        found = np.empty(len(places), dtype=np.int32)
        for index, chosen in _groups(language):
            found[chosen] = self._tokens[index].ids[places[chosen]]
        return found

    def _entries(self, language: np.ndarray, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Row of the label of each item in the table of its language, and how many names it has there."""
        first, counts = np.empty_like(items), np.empty_like(items)
        for index, chosen in _groups(language):
            first[chosen], counts[chosen] = _pieces(self._names[index], items[chosen])
        return first, counts

    def _unnamed(
        self, at: int, language: np.ndarray, items: np.ndarray, aliases: np.ndarray | None, counts: np.ndarray
    ) -> DataError:
        kind = "entity" if items[at] < self.entities else "relation"
        number = int(items[at]) - (0 if kind == "entity" else self.entities)
        lang = self.languages[int(language[at])]
        asked = "a name" if aliases is None else f"name {int(aliases[at])}"
        what = f"a sample says {asked} of {kind} {number} in {lang}, which has {int(counts[at])} there"
        return DataError(Problem("samples", what, "graph, samples and tokens must be of one making"))


def assemble(
    lexicon: Lexicon, spoken: Spoken, sentences: np.ndarray, vocabulary: Vocabulary, max_length: int
) -> Assembled:
    """Sentences from their parts: cut to `max_length` tokens, of which the last is always the final special one.

    Args:
        lexicon: gives the ids.
        spoken: head, relation and tail of each sentence in turn [3 * all sentences].
        sentences: how many each sample has [B], at least 1.
        vocabulary: the ids of the special tokens, the mask and the period.
        max_length: tokens of a sample at most.
    """
    period = np.asarray(vocabulary.period)
    sample = np.repeat(np.arange(len(sentences)), sentences)
    number = ragged(np.zeros_like(sentences), sentences)
    parts = spoken.lengths.reshape(-1, 3)
    lengths = parts.sum(1) + 2 + len(period)
    before = np.cumsum(lengths) - lengths
    begin = 1 + before - np.repeat(before[number == 0], sentences)  # place in its sample of each sentence
    whole = np.bincount(sample, lengths, minlength=len(sentences)).astype(np.int64) + 2
    ends = np.minimum(whole, max_length) - 1  # place of the final special token
    made = _blank(ends, vocabulary)
    limit, row = ends[sample], sample * made.ids.shape[1]

    first_link = begin + parts[:, 0]
    relation = first_link + 1
    tail = relation + parts[:, 1] + 1
    last = tail + parts[:, 2]
    links = np.stack([first_link, tail - 1], 1)
    _put(made, links, row, limit, vocabulary.mask, Role.LINKER)
    _put(made, last[:, None] + np.arange(len(period)), row, limit, period, Role.PERIOD)

    starts = np.stack([begin, relation, tail], 1)
    kept = np.clip(limit[:, None] - starts, 0, parts).reshape(-1)
    places = ragged((row[:, None] + starts).reshape(-1), kept)
    made.ids.reshape(-1)[places] = lexicon.ids(Spoken(spoken.language, spoken.starts, kept))
    spans = (3 * number[:, None] + np.arange(3)).reshape(-1).astype(np.int8)
    made.spans.reshape(-1)[places] = np.repeat(spans, kept)
    made.roles.reshape(-1)[places] = np.repeat(np.tile(_PARTS, len(number)), kept)
    return made


class SwitchedStream:
    """Code-switched and alias sentences, one a sample.

    Args:
        graph: folder of the graph.
        samples: folder of the samples.
        tokens: folder of the names' token ids.
        languages: the languages by their index in the samples, the first of which every other is mixed with.
        vocabulary: ids of the tokenizer.
        max_length: tokens of a sample at most.
        rules: how tokens are masked.
    """

    def __init__(
        self,
        graph: Path,
        samples: Path,
        tokens: Path,
        languages: Sequence[str],
        vocabulary: Vocabulary,
        max_length: int,
        rules: Masking,
    ):
        self.lexicon = Lexicon(graph, tokens, languages)
        self.vocabulary, self.max_length, self.rules = vocabulary, max_length, rules
        self._samples = opened(samples / "switched.npy")

    def __len__(self) -> int:
        return len(self._samples)

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """Tokens of some rows as they stand in a batch, int32 [rows]."""
        return _lengths(self._spoken(rows), np.ones_like(rows), self.vocabulary, self.max_length)

    def assembled(self, rows: np.ndarray) -> Assembled:
        """Some rows before masking."""
        return assemble(self.lexicon, self._spoken(rows), np.ones_like(rows), self.vocabulary, self.max_length)

    def batch(self, rows: np.ndarray, keys: np.ndarray) -> Masked:
        """Some rows int64 [B], masked with keys uint64 [B], in the rows' order."""
        return _ordinary(self.assembled(rows), keys, self.rules, self.vocabulary)

    def _spoken(self, rows: np.ndarray) -> Spoken:
        samples = self._samples[rows]
        switched = (samples["bits"][:, None] & _BITS) > 0
        language = np.where(switched, samples["language"][:, None].astype(np.int64), 0)
        items = self.lexicon.items(samples["triple"])
        return self.lexicon.say(language.reshape(-1), items.reshape(-1), samples["aliases"].reshape(-1))


class ReasoningStream:
    """Cycles of length 3 and 4: first all of length 3, then those of length 4.

    Args:
        graph: folder of the graph.
        samples: folder of the samples.
        tokens: folder of the names' token ids.
        languages: the languages by their index in the samples; the first speaks for those that lack a name.
        vocabulary: ids of the tokenizer.
        max_length: tokens of a sample at most.
        rules: how tokens are masked.
        reasoning: mask relations and entities (KMLM_R of the paper), or tokens as everywhere (KMLM).
        chord: place of the chord's sentence in a length-4 sample: "last" (released code) or "second" (paper's figure).
    """

    def __init__(
        self,
        graph: Path,
        samples: Path,
        tokens: Path,
        languages: Sequence[str],
        vocabulary: Vocabulary,
        max_length: int,
        rules: Masking,
        reasoning: bool = True,
        chord: str = "last",
    ):
        self.lexicon = Lexicon(graph, tokens, languages)
        self.vocabulary, self.max_length, self.rules, self.reasoning = vocabulary, max_length, rules, reasoning
        self._order = np.array(_CHORDS[chord])
        self._short, self._long = opened(samples / "reasoning3.npy"), opened(samples / "reasoning4.npy")

    def __len__(self) -> int:
        return len(self._short) + len(self._long)

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """Tokens of some rows as they stand in a batch, int32 [rows]."""
        return _lengths(self._spoken(rows), self.sentences(rows), self.vocabulary, self.max_length)

    def sentences(self, rows: np.ndarray) -> np.ndarray:
        """Sentences of some rows before they are cut: 3 or 5, int64 [rows]."""
        return np.where(rows < len(self._short), SHORT, LONG)

    def assembled(self, rows: np.ndarray) -> Assembled:
        """Some rows before masking."""
        return assemble(self.lexicon, self._spoken(rows), self.sentences(rows), self.vocabulary, self.max_length)

    def batch(self, rows: np.ndarray, keys: np.ndarray) -> Masked:
        """Some rows int64 [B], masked with keys uint64 [B], in the rows' order."""
        made = self.assembled(rows)
        if not self.reasoning:
            return _ordinary(made, keys, self.rules, self.vocabulary)
        mask = self.vocabulary.mask
        return mask_reasoning(made.ids, made.roles, made.spans, self.sentences(rows), keys, self.rules, mask)

    def _spoken(self, rows: np.ndarray) -> Spoken:
        is_short = rows < len(self._short)
        triples = np.full((len(rows), LONG), -1, dtype=np.int64)
        language = np.empty(len(rows), dtype=np.int64)
        short, long = self._short[rows[is_short]], self._long[rows[~is_short] - len(self._short)]
        triples[is_short, :SHORT], triples[~is_short] = short["triples"], long["triples"][:, self._order]
        language[is_short], language[~is_short] = short["language"], long["language"]
        there = triples >= 0
        spoken = np.repeat(language, 3 * there.sum(1))
        return self.lexicon.say(spoken, self.lexicon.items(triples[there]).reshape(-1))


class PlainStream:
    """Lines of running text, the languages one after another.

    Args:
        tokens: folder of the lines' token ids (`kbench.knowledge.plain`).
        vocabulary: ids of the tokenizer.
        max_length: tokens of a sample at most; what is stored may have been cut before.
        rules: how tokens are masked.
    """

    def __init__(self, tokens: Path, vocabulary: Vocabulary, max_length: int, rules: Masking):
        self.vocabulary, self.max_length, self.rules = vocabulary, max_length, rules
        self.languages = list(json.loads((tokens / "tokens.json").read_text(encoding="utf-8"))["lines"])
        self._ids = [mapped(tokens / f"{lang}.ids", np.int32) for lang in self.languages]
        self._ends = [mapped(tokens / f"{lang}.ends", np.int64) for lang in self.languages]
        self._rows = np.cumsum([len(ends) for ends in self._ends], dtype=np.int64)

    def __len__(self) -> int:
        return sum(map(len, self._ends))

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """Tokens of some rows as they stand in a batch, int32 [rows]."""
        return np.minimum(self._spoken(rows).lengths + 2, self.max_length).astype(np.int32)

    def assembled(self, rows: np.ndarray) -> Assembled:
        """Some rows before masking."""
        spoken = self._spoken(rows)
        kept = np.minimum(spoken.lengths, self.max_length - 2)
        made = _blank(kept + 1, self.vocabulary)
        for index, chosen in _groups(spoken.language):
            places = ragged(chosen * made.ids.shape[1] + 1, kept[chosen])
            made.ids.reshape(-1)[places] = self._ids[index][ragged(spoken.starts[chosen], kept[chosen])]
            made.roles.reshape(-1)[places] = Role.WORD
        return made

    def batch(self, rows: np.ndarray, keys: np.ndarray) -> Masked:
        """Some rows int64 [B], masked with keys uint64 [B], in the rows' order."""
        return _ordinary(self.assembled(rows), keys, self.rules, self.vocabulary)

    def _spoken(self, rows: np.ndarray) -> Spoken:
        language = np.searchsorted(self._rows, rows, side="right")
        starts, lengths = np.empty_like(language), np.empty_like(language)
        for index, chosen in _groups(language):
            before = self._rows[index] - len(self._ends[index])
            starts[chosen], lengths[chosen] = _pieces(self._ends[index], rows[chosen] - before)
        return Spoken(language, starts, lengths)


def ragged(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The places of pieces one after another: start, start + 1, ... of each, int64 [sum of lengths]."""
    ends = np.cumsum(lengths)
    return np.repeat(starts - ends + lengths, lengths) + np.arange(ends[-1] if len(ends) else 0)


def opened(path: Path) -> np.ndarray:
    """An array on disk, memory-mapped where it has rows."""
    found: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return np.asarray(found)


def _pieces(ends: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where some of many pieces that stand one after another start, and how long they are."""
    starts = np.where(rows > 0, ends[rows - 1], 0)
    return starts, ends[rows] - starts


def _groups(language: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """The languages that occur, each with the places where it does."""
    present = np.flatnonzero(np.bincount(language)) if len(language) else ()
    return [(int(index), np.flatnonzero(language == index)) for index in present]


def _blank(ends: np.ndarray, vocabulary: Vocabulary) -> Assembled:
    """Samples with nothing but their special tokens, the final one at `ends`, and padding."""
    shape = (len(ends), int(ends.max(initial=0)) + 1)
    roles = np.where(np.arange(shape[1]) <= ends[:, None], Role.SPECIAL, Role.PAD).astype(np.int8)
    ids = np.full(shape, vocabulary.pad, dtype=np.int64)
    ids[:, 0] = vocabulary.cls
    ids[np.arange(len(ends)), ends] = vocabulary.sep
    return Assembled(ids, roles, np.full(shape, -1, dtype=np.int8))


def _put(
    made: Assembled, places: np.ndarray, row: np.ndarray, limit: np.ndarray, ids: int | np.ndarray, role: Role
) -> None:
    """Write ids at some places of each sentence [sentences, k] that are before its sample's limit."""
    kept = places < limit[:, None]
    flat = (row[:, None] + places)[kept]
    made.ids.reshape(-1)[flat] = np.broadcast_to(ids, places.shape)[kept]
    made.roles.reshape(-1)[flat] = role


def _lengths(spoken: Spoken, sentences: np.ndarray, vocabulary: Vocabulary, max_length: int) -> np.ndarray:
    """Tokens of samples after cutting, from their names' alone, int32 [B]."""
    sample = np.repeat(np.arange(len(sentences)), 3 * sentences)
    names = np.bincount(sample, spoken.lengths, minlength=len(sentences)).astype(np.int64)
    return np.minimum(names + sentences * (2 + len(vocabulary.period)) + 2, max_length).astype(np.int32)


def _ordinary(made: Assembled, keys: np.ndarray, rules: Masking, vocabulary: Vocabulary) -> Masked:
    return mask_ordinary(made.ids, made.roles, keys, rules, vocabulary.mask, vocabulary.size)
