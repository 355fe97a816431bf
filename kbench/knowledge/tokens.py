"""The names of a graph as token ids: each is tokenised once, and sentences are put together from the pieces.

<lang>.ids     the ids of all names one after another, raw int32
<lang>.ends    int64, raw: where each name ends in <lang>.ids; one for each row of the graph's names/<lang>.arrow
tokens.json    per language its tokens, how many of them are the unknown one, and the names that gave no token
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from kbench.errors import BackboneError, Problem
from kbench.knowledge.graph import Graph
from kbench.stages.stage import Stage

_BATCH = 10_000
# words after which a tokenizer is asked for the ids of a period; one that melts with it is passed over
_PROBES = ("Berlin", "a", "of", "1")


@dataclass(frozen=True)
class Vocabulary:
    """The ids of a tokenizer that batches are made with.

    Attributes:
        cls: begins a sequence; [CLS] of BERT, <s> of XLM-R.
        sep: ends it; [SEP] or </s>.
        mask: the mask, which is also what links the parts of a sentence.
        pad: fills a batch up.
        unknown: stands for a name without a token.
        period: the ids of the period that ends a sentence, attached to its last word.
        special: all special ids, ascending.
        size: number of all ids.
    """

    cls: int
    sep: int
    mask: int
    pad: int
    unknown: int
    period: tuple[int, ...]
    special: tuple[int, ...]
    size: int

    @classmethod
    def of(cls, tokenizer: Any) -> Vocabulary:
        """The ids of a tokenizer of transformers.

        Raises:
            BackboneError: it lacks one of the special tokens.
        """
        ids = {
            "cls": _either(tokenizer.cls_token_id, tokenizer.bos_token_id),
            "sep": _either(tokenizer.sep_token_id, tokenizer.eos_token_id),
            "mask": tokenizer.mask_token_id,
            "pad": tokenizer.pad_token_id,
            "unknown": tokenizer.unk_token_id,
        }
        absent = [name for name, number in ids.items() if number is None]
        if absent:
            what = f"its tokenizer has no {', '.join(absent)} token, which masked language models need"
            raise BackboneError(Problem("backbone", what, "take one of the BERT or XLM-R family"))
        special = tuple(sorted({*tokenizer.all_special_ids, *ids.values()}))
        return cls(**ids, period=_period(tokenizer), special=special, size=len(tokenizer))


class NameTokens:
    """The token ids of the names of one language.

    Attributes:
        ids: of all names one after another, int32, memory-mapped.
        ends: where each row of names/<lang>.arrow ends in `ids` [rows], int64, memory-mapped.
    """

    def __init__(self, folder: Path, lang: str):
        self.ids = mapped(folder / f"{lang}.ids", np.int32)
        self.ends = mapped(folder / f"{lang}.ends", np.int64)


def names_stage(
    graph: Stage,
    tokenizer: Callable[[Path | None], Any],
    backbone: Stage | str,
    kind: str,
    languages: Sequence[str],
) -> Stage:
    """The stage that turns every name of a graph into token ids, the same as it has inside a sentence.

    Args:
        graph: the stage of the graph.
        tokenizer: gives the tokenizer, from the backbone's stage folder where it has one.
        backbone: the stage that builds the backbone, or the identity of one that stands ready.
        kind: how the backbone's files are read.
        languages: those whose names are wanted.
    """
    chosen: dict[str, Any] = {"languages": list(languages), "tokenizer": kind}
    parents = {"graph": graph}
    if isinstance(backbone, Stage):
        parents["backbone"] = backbone
    else:
        chosen["backbone"] = backbone

    def build(work: Path, folders: Mapping[str, Path]) -> None:
        encode = tokenizer(folders.get("backbone"))
        write_names(Graph(folders["graph"]), encode, languages, work)

    return Stage("name_tokens", 1, chosen, build, parents, alone=True)


def write_names(graph: Graph, tokenizer: Any, languages: Sequence[str], folder: Path) -> None:
    """Write the token ids of a graph's names into a folder."""
    vocabulary = Vocabulary.of(tokenizer)
    lead = _lead(tokenizer)
    space = _ids(tokenizer, " ")
    info = {}
    for lang in languages:
        texts = graph.names(lang).texts
        counts = {"all": 0, "unknown": 0, "empty": 0}
        with (folder / f"{lang}.ids").open("wb") as ids_file, (folder / f"{lang}.ends").open("wb") as ends_file:
            for start in range(0, len(texts), _BATCH):
                names = texts.slice(start, _BATCH).to_pylist()
                ids, lengths = tokenised(tokenizer, vocabulary, [f"{lead}{name.strip()}" for name in names])
                blank = _blank(ids, lengths, space)
                ids, lengths = _unknown_for(blank, ids, lengths, vocabulary.unknown)
                counts["empty"] += int(blank.sum())
                ids.tofile(ids_file)
                (counts["all"] + np.cumsum(lengths)).tofile(ends_file)
                counts["all"] += len(ids)
                counts["unknown"] += int((ids == vocabulary.unknown).sum())
        info[lang] = counts
    (folder / "tokens.json").write_text(json.dumps({"names": info}, indent=1), encoding="utf-8")


def tokenised(tokenizer: Any, vocabulary: Vocabulary, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """The ids of texts one after another, int32, and how many each has, int64; no special token is among them.

    A text that spells a special token, "[MASK]", is text: its letters are tokenised, and where a tokenizer insists, it
    becomes the unknown token.
    """
    rows = tokenizer(
        texts,
        add_special_tokens=False,
        split_special_tokens=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )["input_ids"]
    lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    ids = np.fromiter(chain.from_iterable(rows), dtype=np.int32, count=int(lengths.sum()))
    ids[np.isin(ids, vocabulary.special)] = vocabulary.unknown
    return ids, lengths


def mapped(path: Path, dtype: Any) -> np.ndarray:
    """A raw file as an array that stays on disk; an empty file, which cannot be mapped, as an empty array."""
    if not path.stat().st_size:
        return np.zeros(0, dtype=dtype)
    return np.asarray(np.memmap(path, dtype=dtype, mode="r"))


def _blank(ids: np.ndarray, lengths: np.ndarray, space: list[int]) -> np.ndarray:
    """Which texts have no token, or one only, which a lone space has, too [texts]."""
    found = lengths == 0
    if len(space) == 1:
        single = np.flatnonzero(lengths == 1)
        found[single] = ids[np.cumsum(lengths)[single] - 1] == space[0]
    return found


def _unknown_for(
    blank: np.ndarray, ids: np.ndarray, lengths: np.ndarray, unknown: int
) -> tuple[np.ndarray, np.ndarray]:
    """Give the unknown token alone to some texts."""
    ids = ids[~np.repeat(blank, lengths)]
    kept = np.where(blank, 0, lengths)
    return np.insert(ids, np.cumsum(kept)[blank], unknown), np.where(blank, 1, lengths)


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _lead(tokenizer: Any) -> str:
    """What to put before a name so that it gets the ids it has after another word: a space, if anything."""
    whole = _ids(tokenizer, "one| Berlin")
    for lead in (" ", ""):
        alone = _ids(tokenizer, f"{lead}Berlin")
        if whole[-len(alone) :] == alone:
            return lead
    return " "


def _period(tokenizer: Any) -> tuple[int, ...]:
    """The ids of a period that is attached to the word before it."""
    for word in _PROBES:
        alone, ended = _ids(tokenizer, f" {word}"), _ids(tokenizer, f" {word}.")
        if len(ended) > len(alone) and ended[: len(alone)] == alone:
            return tuple(ended[len(alone) :])
    return tuple(_ids(tokenizer, ".")) or (tokenizer.unk_token_id,)


def _either(first: int | None, second: int | None) -> int | None:
    return second if first is None else first
