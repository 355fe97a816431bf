"""A corpus as sequences of token ids, with the tokens of each mention.

A sequence holds consecutive sentences of one document, or one sentence. Its special tokens are added when it is read,
yet places count the one in front: the first token of a sequence stands at 1.

sequences.ids      the ids of all sequences one after another, raw int32, no special tokens
sequences.ends     int64, raw: where each ends in them
sequences.begins   uint8, raw, beside the ids: 1 where a token begins a word
mentions.npy       `LINKED` [mentions]: sequence; start, stop: its tokens, half-open; entity of the graph, or -1; the
                   corpus's sentence and the corpus's mention. By sequence and start, no two share a token
mention_ends.npy   int64 [sequences]: where the mentions of each end
counts.npy         int64 [vocabulary]: how often each id occurs
linked.json        counts, and what was left out
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from kbench.errors import BackboneError, DataError, Problem
from kbench.knowledge.corpus import CorpusText
from kbench.knowledge.rows import RowFile
from kbench.knowledge.streams import ragged
from kbench.knowledge.tokens import Vocabulary, _lead, mapped
from kbench.stages.stage import Stage

LINKED = np.dtype(
    [
        ("sequence", "<i8"),
        ("start", "<i4"),
        ("stop", "<i4"),
        ("entity", "<i4"),
        ("sentence", "<i8"),
        ("corpus_mention", "<i8"),
    ]
)
_BATCH = 4096  # sentences
_COUNTED = (
    "sequences", "tokens", "unknown", "mentions", "linked", "cut_sentences", "sentences_without_token",
    "cut_mentions", "mentions_without_token", "shared_mentions", "dropped_sequences", "dropped_mentions",
)  # fmt: skip
_SPACES = np.array([code for code in range(0x3001) if chr(code).isspace()], dtype=np.uint32)


class Linked:
    """Stored sequences, memory-mapped.

    Attributes:
        info: what linked.json says.
        ids: of all sequences one after another, int32.
        ends: where each sequence ends in them, int64 [sequences].
        begins: beside the ids, 1 where a token begins a word, uint8.
        mentions: `LINKED` [mentions].
        mention_ends: where the mentions of each sequence end, int64 [sequences].
        counts: how often each id occurs, int64 [vocabulary].
    """

    def __init__(self, folder: Path):
        self.info: dict[str, Any] = json.loads((folder / "linked.json").read_text(encoding="utf-8"))
        self.ids = mapped(folder / "sequences.ids", np.int32)
        self.ends = mapped(folder / "sequences.ends", np.int64)
        self.begins = mapped(folder / "sequences.begins", np.uint8)
        self.mentions: np.ndarray = np.load(folder / "mentions.npy", mmap_mode="r", allow_pickle=False)
        self.mention_ends: np.ndarray = np.load(folder / "mention_ends.npy", mmap_mode="r", allow_pickle=False)
        self.counts: np.ndarray = np.load(folder / "counts.npy", allow_pickle=False)

    def __len__(self) -> int:
        return len(self.ends)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each sequence with its two special ones, int32 [sequences]."""
        return (np.diff(self.ends, prepend=0) + 2).astype(np.int32)

    def sequence(self, row: int) -> np.ndarray:
        """The ids of one sequence without special tokens, int32."""
        return self.ids[self.ends[row - 1] if row else 0 : self.ends[row]]

    def mentions_of(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The places in `mentions` of those of some sequences, and which of `rows` each is in, int64 [M] both."""
        stops = np.asarray(self.mention_ends[rows])
        starts = np.where(rows > 0, self.mention_ends[np.maximum(rows, 1) - 1], 0)
        return ragged(starts, stops - starts), np.repeat(np.arange(len(rows)), stops - starts)

    def padded(self, rows: np.ndarray, cls: int, sep: int, pad: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Some sequences as a batch, with special tokens, padded on the right.

        Returns:
            ids int64 [B, L]; attention int64 [B, L], 0 at padding; begins bool [B, L], whether a token begins a word,
            which special tokens and padding do not.
        """
        stops = np.asarray(self.ends[rows])
        lengths = np.asarray(self.lengths[rows], dtype=np.int64) - 2
        shape = (len(rows), int(lengths.max(initial=0)) + 2)
        ids, begins = np.full(shape, pad, dtype=np.int64), np.zeros(shape, dtype=bool)
        ids[:, 0] = cls
        ids[np.arange(len(rows)), lengths + 1] = sep
        places = ragged(np.arange(len(rows)) * shape[1] + 1, lengths)
        source = ragged(stops - lengths, lengths)
        ids.reshape(-1)[places] = self.ids[source]
        begins.reshape(-1)[places] = self.begins[source] > 0
        attention = (np.arange(shape[1]) < lengths[:, None] + 2).astype(np.int64)
        return ids, attention, begins


def linked_stage(
    corpus: Stage,
    tokenizer: Callable[[Path | None], Any],
    backbone: Stage | str,
    kind: str,
    length: int,
    pack: bool,
    min_mentions: int,
) -> Stage:
    """The stage that makes a `Linked`.

    Args:
        corpus: the stage of the corpus.
        tokenizer: gives the tokenizer, from the backbone's stage folder where it has one.
        backbone: the stage that builds the backbone, or the identity of one that stands ready.
        kind: how the backbone's files are read.
        length: tokens of a sequence at most, the two special ones included; a longer sentence is cut.
        pack: join the sentences of a document as long as they fit; otherwise each is a sequence of its own.
        min_mentions: mentions of the graph's entities that a sequence must have at least.
    """
    chosen: dict[str, Any] = {"length": length, "pack": pack, "min_mentions": min_mentions, "tokenizer": kind}
    parents = {"corpus": corpus}
    if isinstance(backbone, Stage):
        parents["backbone"] = backbone
    else:
        chosen["backbone"] = backbone

    def build(work: Path, folders: Mapping[str, Path]) -> None:
        text = CorpusText(folders["corpus"])
        try:
            write_linked(text, tokenizer(folders.get("backbone")), length, pack, min_mentions, work)
        except DataError:
            shutil.rmtree(work)  # with other options it has another key: nobody would continue this
            raise

    return Stage("linked_tokens", 1, chosen, build, parents, alone=True)


def write_linked(corpus: CorpusText, tokenizer: Any, length: int, pack: bool, min_mentions: int, folder: Path) -> None:
    """Write a corpus as sequences into a folder; the arguments as of `linked_stage`.

    Raises:
        BackboneError: the tokenizer does not say which characters a token stands for.
        DataError: no sequence has enough mentions.
    """
    if not getattr(tokenizer, "is_fast", False):
        what = f"its tokenizer, {type(tokenizer).__name__}, does not say which characters a token stands for"
        raise BackboneError(Problem("backbone", what, "take one with a fast tokenizer (tokenizer.json)"))
    vocabulary = Vocabulary.of(tokenizer)
    # inside a document a sentence follows a space, which tokens of the RoBERTa kind begin with
    lead = _lead(tokenizer) if pack else ""
    counts = np.zeros(vocabulary.size, dtype=np.int64)
    info = dict.fromkeys(_COUNTED, 0)
    with (
        (folder / "sequences.ids").open("wb") as ids_file,
        (folder / "sequences.ends").open("wb") as ends_file,
        (folder / "sequences.begins").open("wb") as begins_file,
        RowFile(folder / "mentions.npy", LINKED) as mention_rows,
        RowFile(folder / "mention_ends.npy", np.dtype(np.int64)) as mention_ends,
    ):
        for start, stop in corpus.batches(_BATCH):
            documents = corpus.document_of(start, stop)
            first = np.diff(documents, prepend=-1) > 0
            if start and documents[0] == corpus.document_of(start - 1, start)[0]:
                first[0] = False
            texts = corpus.texts(start, stop)
            texts = [text if head else f"{lead}{text}" for text, head in zip(texts, first, strict=True)]
            read = _read(tokenizer, vocabulary, texts)
            places = corpus.mentions_of(start, stop)
            mentions = np.array(corpus.mentions[places])
            mentions["sentence"] -= start
            for edge in ("start", "end"):
                mentions[edge] += np.where(first[mentions["sentence"]], 0, len(lead)).astype(np.int32)
            made = _sequences(read, documents, mentions, length - 2, pack, min_mentions, info)
            made.ids.tofile(ids_file)
            made.begins.tofile(begins_file)
            (info["tokens"] + made.ends).tofile(ends_file)
            mention_ends.append(info["mentions"] + made.mention_ends)
            made.mentions["sequence"] += info["sequences"]
            made.mentions["sentence"] += start
            made.mentions["corpus_mention"] = places[made.mentions["corpus_mention"]]
            mention_rows.append(made.mentions)
            np.add.at(counts, made.ids, 1)
            info["sequences"] += len(made.ends)
            info["tokens"] += len(made.ids)
            info["unknown"] += int((made.ids == vocabulary.unknown).sum())
            info["mentions"] += len(made.mentions)
            info["linked"] += int((made.mentions["entity"] >= 0).sum())
    if not info["sequences"]:
        what = f"is {min_mentions}, and no sample of at most {length} tokens has so many"
        raise DataError(Problem("knowledge.corpus.min_mentions", what, "lower it, or take longer samples"))
    np.save(folder / "counts.npy", counts, allow_pickle=False)
    (folder / "linked.json").write_text(json.dumps(info, indent=1), encoding="utf-8")


@dataclass
class _Tokens:
    """Texts as tokens; characters are counted over all texts one after another.

    Attributes:
        ids: int32 [tokens].
        begins: whether a token begins a word [tokens].
        ends: where each text's tokens end [texts].
        left, right: first character and the one behind the last of each token, ascending [tokens].
        bases: first character of each text [texts].
        following: the next character that is no white space, from each on [characters + 1].
        preceding: the one behind the last character that is none, before each [characters + 1].
    """

    ids: np.ndarray
    begins: np.ndarray
    ends: np.ndarray
    left: np.ndarray
    right: np.ndarray
    bases: np.ndarray
    following: np.ndarray
    preceding: np.ndarray


@dataclass
class _Made:
    """Sequences of a batch, numbered from 0; a mention's `corpus_mention` is its place among those of the batch."""

    ids: np.ndarray
    begins: np.ndarray
    ends: np.ndarray
    mentions: np.ndarray
    mention_ends: np.ndarray


def _read(tokenizer: Any, vocabulary: Vocabulary, texts: list[str]) -> _Tokens:
    """Texts as tokens, without special ones; a text that spells a special token is text, as in `tokenised`."""
    encoded = tokenizer(
        texts,
        add_special_tokens=False,
        split_special_tokens=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        return_offsets_mapping=True,
        verbose=False,
    )
    rows = encoded["input_ids"]
    lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    size = int(lengths.sum())
    ids = np.fromiter(chain.from_iterable(rows), dtype=np.int32, count=size)
    ids[np.isin(ids, vocabulary.special)] = vocabulary.unknown
    pairs = chain.from_iterable(chain.from_iterable(encoded["offset_mapping"]))
    offsets = np.fromiter(pairs, dtype=np.int64, count=2 * size).reshape(-1, 2)
    numbers = chain.from_iterable(encoded.word_ids(row) for row in range(len(rows)))
    words = np.fromiter((-1 if number is None else number for number in numbers), dtype=np.int64, count=size)

    letters = np.frombuffer("".join(texts).encode("utf-32-le"), dtype=np.uint32)
    blank = np.isin(letters, _SPACES)
    sizes = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    bases = np.cumsum(sizes) - sizes
    left, right = (np.maximum.accumulate(one) for one in (offsets + np.repeat(bases, lengths)[:, None]).T)
    # the space before a word, where a token has it, is no letter of the word
    here = np.where(blank, len(letters), np.arange(len(letters)))
    following = np.append(np.minimum.accumulate(here[::-1])[::-1], len(letters))
    inner = np.minimum(following[left], right)
    ends = np.cumsum(lengths)
    begins = np.ones(size, dtype=bool)
    begins[1:] = (words[1:] != words[:-1]) | (inner[1:] > right[:-1])
    begins[(ends - lengths)[lengths > 0]] = True
    there = np.where(blank, 0, np.arange(1, len(letters) + 1))
    preceding = np.append(0, np.maximum.accumulate(there))
    return _Tokens(ids, begins, ends, inner, right, bases, following, preceding)


def _sequences(
    read: _Tokens,
    documents: np.ndarray,
    mentions: np.ndarray,
    room: int,
    pack: bool,
    min_mentions: int,
    info: dict[str, int],
) -> _Made:
    """Sentences as sequences of at most `room` tokens. What is left out is added to `info`."""
    lengths = np.diff(read.ends, prepend=0)
    kept = np.minimum(lengths, room)
    info["cut_sentences"] += int((lengths > room).sum())
    info["sentences_without_token"] += int((lengths == 0).sum())
    sequence, offset, count = _packed(kept.tolist(), documents.tolist(), room, pack)

    sentence = mentions["sentence"]
    first = read.following[read.bases[sentence] + mentions["start"]]
    last = read.preceding[read.bases[sentence] + mentions["end"]]
    start = np.searchsorted(read.right, first, side="right")
    stop = np.where(first < last, np.searchsorted(read.left, last, side="left"), start)
    before = read.ends[sentence] - lengths[sentence]
    there, inside = start < stop, stop - before <= room
    alone = _alone(start, stop, there & inside)
    info["mentions_without_token"] += int((~there).sum())
    info["cut_mentions"] += int((there & ~inside).sum())
    info["shared_mentions"] += int((there & inside & ~alone).sum())
    taken = np.flatnonzero(alone)
    found = np.empty(len(taken), dtype=LINKED)
    found["sequence"] = sequence[sentence[taken]]
    shift = offset[sentence[taken]] + 1 - before[taken]
    found["start"], found["stop"] = start[taken] + shift, stop[taken] + shift
    found["entity"], found["sentence"] = mentions["entity"][taken], sentence[taken]
    found["corpus_mention"] = taken

    enough = np.bincount(found["sequence"][found["entity"] >= 0], minlength=count) >= min_mentions
    info["dropped_sequences"] += int((~enough).sum())
    info["dropped_mentions"] += int((~enough[found["sequence"]]).sum())
    found = found[enough[found["sequence"]]]
    number = np.cumsum(enough) - 1
    found["sequence"] = number[found["sequence"]]
    used = np.flatnonzero((kept > 0) & enough[sequence]) if count else np.zeros(0, dtype=np.int64)
    tokens = ragged((read.ends - lengths)[used], kept[used])
    size = int(enough.sum())
    sizes = np.bincount(number[sequence[used]], kept[used], minlength=size).astype(np.int64)
    own = np.bincount(found["sequence"], minlength=size)
    return _Made(
        read.ids[tokens], read.begins[tokens].astype(np.uint8), np.cumsum(sizes), found, np.cumsum(own).astype(np.int64)
    )


def _packed(lengths: list[int], documents: list[int], room: int, pack: bool) -> tuple[np.ndarray, np.ndarray, int]:
    """Of each sentence its sequence and the tokens before it there, and how many sequences there are.

    A sentence without a token is in the sequence that is open, if any, and adds nothing to it.
    """
    sequence, offset = np.zeros(len(lengths), dtype=np.int64), np.zeros(len(lengths), dtype=np.int64)
    count, used, current = 0, room, -1
    for place, (length, document) in enumerate(zip(lengths, documents, strict=True)):
        if length and (not pack or document != current or used + length > room):
            count, used, current = count + 1, 0, document
        sequence[place], offset[place] = max(0, count - 1), used
        used += length
    return sequence, offset, count


def _alone(start: np.ndarray, stop: np.ndarray, able: np.ndarray) -> np.ndarray:
    """Which of the mentions that are able share no token with one before them that is taken [mentions]."""
    taken = able.copy()
    places = np.flatnonzero(able)
    for crossing in np.flatnonzero(start[places[1:]] < stop[places[:-1]]) + 1:
        before = crossing - 1
        while before >= 0 and not taken[places[before]]:
            before -= 1
        taken[places[crossing]] = before < 0 or start[places[crossing]] >= stop[places[before]]
    return taken
