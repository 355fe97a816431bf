"""How far a text moves when a mention is taken out of it: the cosine that semantic importance is made of.

TRELM (Yan et al., arXiv 2403.11203), equation 1, compares the vector of a text before and after a mention is replaced.
By what, and which vector, it does not say. Here a sequence is read by the frozen encoder that pre-training starts from,
once as it is and once more for every mention of it, and the two vectors are compared. That is done once and stored:

cosine.npy        float32, one for each mention of the linked sequences; nan where the graph does not know the entity
importance.json   mentions, how many of them have a cosine, and its mean, lowest and highest

Sequences are computed in blocks of neighbours, which several processes share and a killed build continues after.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kbench.engine.counter import below
from kbench.engine.recipe import Precision
from kbench.engine.seeding import derive
from kbench.knowledge.linked import Linked
from kbench.knowledge.streams import ragged
from kbench.knowledge.tokens import Vocabulary
from kbench.stages.stage import Stage

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from kbench.engine.runtime import Runtime

REPLACEMENTS = ("mask", "unk", "delete", "random_entity")
POOLINGS = ("mean", "cls")

_BLOCK_TOKENS = 1 << 18  # some minutes of a base-size encoder on one core, a second of a GPU
_TRIES = 16  # draws of another entity's mention
_CHUNK = 1 << 22


@dataclass(frozen=True)
class Replacing:
    """What stands for a mention, and what the vector of a text is.

    Attributes:
        replacement: mask, unk: each token of the mention becomes the mask or the unknown token; delete: they are taken
            out; random_entity: a mention of another entity stands there, drawn from all mentions of the corpus, so a
            frequent entity often; the text is cut where it would become longer than the longest sequence. Other
            mentions stay as they are. None is stated in the paper; mask is ours.
        pooling: mean: of the last states of all tokens but the first and last, special one; cls: the first one's state.
            Not stated either; mean is ours.
        seed: of random_entity.
    """

    replacement: str = "mask"
    pooling: str = "mean"
    seed: int = 1

    def __post_init__(self) -> None:
        for name, known in (("replacement", REPLACEMENTS), ("pooling", POOLINGS)):
            if getattr(self, name) not in known:
                raise ValueError(f"no such {name}: {getattr(self, name)}")


def importance_stage(
    linked: Stage,
    backbone: Stage | str,
    encoder: Callable[[Path | None], Any],
    tokenizer: Callable[[Path | None], Any],
    rules: Replacing,
    *,
    precision: Precision,
    runtime: Runtime | None,
    drawn: int | None = None,
    tell: Callable[[int, int], None] = lambda done, blocks: None,
) -> Stage:
    """The stage that compares every linked sequence with itself without each of its mentions.

    Args:
        linked: the stage of the linked sequences.
        backbone: the stage that builds the backbone, or the identity of one that stands ready.
        encoder: gives the encoder that pre-training starts from, from the backbone's stage folder where it has one.
        tokenizer: gives the tokenizer, likewise.
        rules: what stands for a mention, and the vector of a text.
        precision: number format of the encoder's matrix products.
        runtime: device and processes; None where the stage is only named.
        drawn: seed of the encoder's weights where the backbone has none of its own, else None.
        tell: is given the blocks done and all blocks.
    """
    chosen: dict[str, Any] = {
        "replacement": rules.replacement,
        "pooling": rules.pooling,
        "precision": precision.value,
        "drawn": drawn,
    }
    if rules.replacement == "random_entity":
        chosen["seed"] = rules.seed
    parents = {"linked": linked}
    if isinstance(backbone, Stage):
        parents["backbone"] = backbone
    else:
        chosen["backbone"] = backbone

    def build(work: Path, folders: Mapping[str, Path]) -> None:
        assert runtime is not None
        texts = Linked(folders["linked"])
        vocabulary = Vocabulary.of(tokenizer(folders.get("backbone")))
        write_importance(
            texts, encoder(folders.get("backbone")), vocabulary, rules, precision, runtime, work, tell
        )  # fmt: skip

    return Stage("importance", 1, chosen, build, parents)


def write_importance(
    linked: Linked,
    model: Any,
    vocabulary: Vocabulary,
    rules: Replacing,
    precision: Precision,
    runtime: Runtime,
    folder: Path,
    tell: Callable[[int, int], None] = lambda done, blocks: None,
) -> None:
    """Write the cosines of all mentions into a folder; every process of the group calls this.

    Args:
        linked: the sequences.
        model: an encoder of transformers.
        vocabulary: its ids.
        rules, precision, runtime, tell: as of `importance_stage`.
        folder: what a killed call left there is kept.

    Raises:
        InterruptedRunError: the run was asked to stop; what is done is stored.
        OSError: no room for the file.
    """
    from kbench.engine.spill import Spill

    path, count = folder / "cosine.npy", len(linked.mentions)
    if count:
        model = model.to(runtime.device).requires_grad_(False).eval()
        edges = _blocks(linked)
        spill = Spill(path, (count,), np.dtype(np.float32), len(edges) - 1, runtime)
        for index in spill.left():
            first, stop = (_mentions_before(linked, int(edges[place])) for place in (index, index + 1))
            found = cosines(
                model, vocabulary, linked, np.arange(first, stop), rules, runtime.device,
                autocast=lambda: runtime.autocast(precision), check=runtime.check_stop,
            )  # fmt: skip
            spill.put(first, found)
            tell(index + 1, len(edges) - 1)
        spill.close()
    elif runtime.is_main:
        np.save(path, np.zeros(0, dtype=np.float32))
    if runtime.is_main:
        summary = json.dumps(_summary(np.load(path, mmap_mode="r" if count else None, allow_pickle=False)), indent=1)
        (folder / "importance.json").write_text(summary, encoding="utf-8")
        if count:
            spill.forget()


def cosines(
    model: Any,
    vocabulary: Vocabulary,
    linked: Linked,
    mentions: np.ndarray,
    rules: Replacing,
    device: torch.device,
    *,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    check: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """The cosine of each mention's sequence with and without the mention, float32 [k].

    nan where the graph does not know the entity; 0 where nothing is left of a sequence without it.

    Args:
        model: an encoder of transformers on the device, in eval mode; current weights give current importances.
        vocabulary: its ids.
        linked: the sequences.
        mentions: which of its mentions, int64 [k].
        rules: what stands for a mention, and the vector of a text.
        device: the model's.
        autocast: the number format of a pass.
        check: called between passes; may raise.

    Raises:
        ValueError: the model is in train mode.
    """
    import torch
    from torch.nn.functional import cosine_similarity

    if model.training:
        raise ValueError("the encoder is in train mode: its dropout would be on")
    asked = linked.mentions[mentions]
    known = np.flatnonzero(asked["entity"] >= 0)
    asked, numbers = asked[known], np.asarray(mentions)[known]
    sequences, place = np.unique(asked["sequence"], return_inverse=True)
    whole = _whole(linked, sequences)
    found = np.full(len(mentions), np.nan, dtype=np.float32)
    with torch.inference_mode():
        before: Any = None
        for some in _passes(whole.lengths, device):
            check()
            with autocast():
                vectors = _vectors(model, *whole.padded(linked, vocabulary, some), rules.pooling, device)
            if before is None:
                before = vectors.new_zeros(len(sequences), vectors.shape[-1])
            before[torch.from_numpy(some).to(device)] = vectors
        replaced = _replaced(linked, asked, numbers, rules)
        for some in _passes(replaced.lengths, device):
            check()
            with autocast():
                vectors = _vectors(model, *replaced.padded(linked, vocabulary, some), rules.pooling, device)
            own = before[torch.from_numpy(place[some]).to(device)]
            # doubles: of two vectors that are nearly the same the difference counts
            cosine = cosine_similarity(own.double(), vectors.double(), dim=-1).clamp(-1, 1)
            found[known[some]] = cosine.cpu().numpy()
    return found


@dataclass(frozen=True)
class _Texts:
    """Sequences in which one piece each is replaced; int64 [k] all.

    Attributes:
        rows: the sequences; lengths: tokens that each has afterwards.
        starts, stops: of the piece that goes; equal where none does.
        counts: tokens that come in its place.
        fill: what they are: -1 the mask, -2 the unknown token, else the mention that they are copied from.
    """

    rows: np.ndarray
    lengths: np.ndarray
    starts: np.ndarray
    stops: np.ndarray
    counts: np.ndarray
    fill: np.ndarray

    def padded(self, linked: Linked, vocabulary: Vocabulary, some: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`input_ids` and `attention_mask` of some of them, int64 [B, L]."""
        special = vocabulary.cls, vocabulary.sep, vocabulary.pad
        rows, lengths, counts, fill = self.rows[some], self.lengths[some], self.counts[some], self.fill[some]
        own = linked.padded(rows, *special)[0]
        start, stop = self.starts[some, None], self.stops[some, None]
        new_stop = start + counts[:, None]
        places = np.arange(int(lengths.max()))
        inside = (places >= start) & (places < new_stop)
        # the last token is the sequence's own last one, also where it was cut
        source = np.where(places < start, places, places - new_stop + stop)
        source = np.where(places == lengths[:, None] - 1, linked.lengths[rows][:, None] - 1, source)
        ids = np.take_along_axis(own, np.clip(source, 0, own.shape[1] - 1), axis=1)
        inside &= places < lengths[:, None] - 1
        ids = np.where(inside, np.where(fill == -2, vocabulary.unknown, vocabulary.mask)[:, None], ids)
        copied = np.flatnonzero((fill >= 0) & (counts > 0))
        if len(copied):
            donors = linked.mentions[fill[copied]]
            theirs = linked.padded(donors["sequence"], *special)[0]
            tokens = theirs[np.repeat(np.arange(len(copied)), counts[copied]), ragged(donors["start"], counts[copied])]
            line = np.repeat(copied, counts[copied])
            column = ragged(self.starts[some][copied], counts[copied])
            kept = column < lengths[line] - 1
            ids[line[kept], column[kept]] = tokens[kept]
        attention = (places < lengths[:, None]).astype(np.int64)
        return np.where(attention > 0, ids, vocabulary.pad), attention


def _whole(linked: Linked, rows: np.ndarray) -> _Texts:
    """Sequences as they are."""
    none = np.zeros(len(rows), dtype=np.int64)
    return _Texts(rows, np.asarray(linked.lengths[rows], dtype=np.int64), none, none, none, none - 1)


def _replaced(linked: Linked, asked: np.ndarray, numbers: np.ndarray, rules: Replacing) -> _Texts:
    """The sequence of each of some mentions [k], of these numbers, with something else in its place."""
    rows, starts, stops = (asked[name].astype(np.int64) for name in ("sequence", "start", "stop"))
    counts, fill = stops - starts, np.full(len(asked), -2 if rules.replacement == "unk" else -1)
    if rules.replacement == "delete":
        counts = np.zeros_like(counts)
    elif rules.replacement == "random_entity":
        fill = _others(linked, asked["entity"], numbers, rules.seed)
        drawn = linked.mentions[np.maximum(fill, 0)]
        counts = np.where(fill >= 0, drawn["stop"].astype(np.int64) - drawn["start"], counts)
    longest = max(int(linked.lengths.max()), 2)
    lengths = np.minimum(linked.lengths[rows] - (stops - starts) + counts, longest)
    return _Texts(rows, lengths, starts, stops, counts, fill)


def _others(linked: Linked, entities: np.ndarray, numbers: np.ndarray, seed: int) -> np.ndarray:
    """A mention of another entity for each of some mentions, int64 [k]; -1 where none was found in a few draws."""
    found = np.full(len(numbers), -1, dtype=np.int64)
    key, entity = derive(seed, "another entity"), linked.mentions["entity"]
    for attempt in range(_TRIES):
        left = np.flatnonzero(found < 0)
        drawn = below(len(entity), key, numbers[left], attempt)
        fits = (entity[drawn] != entities[left]) & (entity[drawn] >= 0)
        found[left[fits]] = drawn[fits]
    return found


def _vectors(model: Any, ids: np.ndarray, attention: np.ndarray, pooling: str, device: torch.device) -> Tensor:
    """The vectors of some texts, float32 [B, width]; of one without a token of its own, 0."""
    import torch

    from kbench.engine.feed import moved

    given = {"input_ids": ids, "attention_mask": attention}
    inputs = {name: moved(torch.from_numpy(array), device) for name, array in given.items()}
    states: Tensor = model(**inputs).last_hidden_state.float()
    if pooling == "cls":
        return states[:, 0]
    # by place and not by id: the masks of a replaced mention are read, too
    inner = inputs["attention_mask"][:, 2:]
    total = (states[:, 1:-1] * inner.unsqueeze(-1)).sum(1)
    return total / inner.sum(1, keepdim=True).clamp(min=1)


def _passes(lengths: np.ndarray, device: torch.device) -> Iterator[np.ndarray]:
    """Texts in batches of about as many tokens as the device is given at once, the longest first."""
    from kbench.engine.predict import PASS_TOKENS

    order, start = np.argsort(-lengths, kind="stable"), 0
    while start < len(order):
        size = max(1, PASS_TOKENS[device.type] // int(lengths[order[start]]))
        yield order[start : start + size]
        start += size


def _blocks(linked: Linked) -> np.ndarray:
    """Sequences at which the blocks begin and end, int64 [blocks + 1]: of about so many tokens in all passes."""
    counts = np.diff(linked.mention_ends, prepend=0)
    tokens = np.cumsum(np.where(counts > 0, (counts + 1) * linked.lengths, 0))
    inner = np.searchsorted(tokens, np.arange(_BLOCK_TOKENS, int(tokens[-1]), _BLOCK_TOKENS), side="left") + 1
    found: np.ndarray = np.unique(np.concatenate([[0], inner, [len(tokens)]]))
    return found


def _mentions_before(linked: Linked, sequence: int) -> int:
    return int(linked.mention_ends[sequence - 1]) if sequence else 0


def _summary(cosine: np.ndarray) -> dict[str, Any]:
    """What there is to say about all cosines, read in pieces."""
    known, total, low, high = 0, 0.0, np.inf, -np.inf
    for start in range(0, len(cosine), _CHUNK):
        piece = cosine[start : start + _CHUNK]
        piece = piece[~np.isnan(piece)]
        if len(piece):
            known, total = known + len(piece), total + float(piece.sum(dtype=np.float64))
            low, high = min(low, float(piece.min())), max(high, float(piece.max()))
    values = {"mean": total / known, "lowest": low, "highest": high} if known else {}
    return {"mentions": len(cosine), "known": known, **values}
