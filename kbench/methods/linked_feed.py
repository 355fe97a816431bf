"""Batches of text with linked mentions: which triple each mention tells of, and which tokens must be guessed.

A row is a sequence of `kbench.knowledge.linked`. Triples, masks and wrong tokens are functions of the epoch and of what
they are for, so that neither processes nor micro batches change them. Arrays that the bank needs stay on the host.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from kbench.config.trelm import Cka, Inject, Triple, Words
from kbench.engine.counter import mixed
from kbench.engine.feed import moved
from kbench.engine.seeding import derive
from kbench.knowledge.noise import Noise, removed
from kbench.knowledge.streams import ragged
from kbench.knowledge.word_masking import mask_words

if TYPE_CHECKING:
    from kbench.knowledge.linked import Linked
    from kbench.knowledge.masking import Masked
    from kbench.knowledge.neighbours import Neighbours
    from kbench.knowledge.tokens import Vocabulary
    from kbench.knowledge.vectors import GraphVectors

# what of a batch begins so stays on the host
HOST = "host."
_COUNTED = 4096  # rows that are looked at together where only labels and targets are counted


@dataclass(frozen=True)
class Names:
    """The token ids of one name for each entity: its label.

    Attributes:
        ids: of all names one after another, int32.
        starts, lengths: where each entity's name stands in them [entities], int64; of one without a name length 0.
    """

    ids: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray

    def of(self, entities: np.ndarray, longest: int) -> tuple[np.ndarray, np.ndarray]:
        """Token ids of names one after another, and how many tokens each has, `longest` at most."""
        lengths = np.minimum(self.lengths[entities], longest)
        return self.ids[ragged(self.starts[entities], lengths)].astype(np.int64), lengths


@dataclass(frozen=True)
class Knowledge:
    """What mentions are told of.

    Attributes:
        triples: head, relation, tail [t, 3].
        neighbours: the triples of each entity that may be told.
        vectors: of entities and relations.
        names: of entities.
        noise: where wrong tokens come from.
        others: right answers beside the triple's own that are looked at, at most.
    """

    triples: np.ndarray
    neighbours: Neighbours
    vectors: GraphVectors
    names: Names
    noise: Noise
    others: int = 64


@dataclass(frozen=True)
class Told:
    """The mentions of some rows.

    Attributes:
        line: which of the rows [M].
        mention: its number in the corpus's mentions [M].
        start, stop: its tokens [M].
        entity: [M].
        member: whether the memory keeps it [M].
        injected: whether its embeddings are replaced [M].
        asked: whether it has a knowledge loss [M].
        triple: that it is told of [M]; -1: none.
        is_head: whether the mention is that triple's head [M].
    """

    line: np.ndarray
    mention: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    entity: np.ndarray
    member: np.ndarray
    injected: np.ndarray
    asked: np.ndarray
    triple: np.ndarray
    is_head: np.ndarray


class LinkedFeed:
    """Sequences with their mentions, for the training loop; in the place of `kbench.engine.feed.Feed`.

    Args:
        linked: the sequences.
        important, members: of each mention of `linked`, whether it is told of, and whether the memory keeps it [M].
        knowledge: what they are told of; None: nothing is, and the text alone is learned.
        vocabulary: of the tokenizer.
        words, inject, cka: options.
        seed: of masks, triples and wrong tokens.
    """

    def __init__(
        self,
        linked: Linked,
        important: np.ndarray,
        members: np.ndarray,
        knowledge: Knowledge | None,
        vocabulary: Vocabulary,
        words: Words,
        inject: Inject | None = None,
        cka: Cka | None = None,
        *,
        seed: int,
    ):
        self.linked, self.knowledge, self.vocabulary, self.seed = linked, knowledge, vocabulary, seed
        self.words, self.inject, self.cka = words, inject, cka
        self.lengths = linked.lengths
        self.weights = np.broadcast_to(np.int64(1), len(linked))
        used = np.flatnonzero(important | members)
        self._used = used
        self._important, self._members = important[used], members[used]
        self._ends = np.searchsorted(used, np.asarray(linked.mention_ends))  # of each sequence among those used
        self.epoch = 0
        self.negatives, self.log_q = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)

    def __len__(self) -> int:
        return len(self.linked)

    @property
    def entities(self) -> np.ndarray:
        """The entities of all mentions that are told of or kept, ascending."""
        return np.unique(np.asarray(self.linked.mentions["entity"])[self._used]).astype(np.int64)

    def begin(self, epoch: int, positions: np.ndarray) -> None:
        """Draw the wrong tokens of a step; `positions` are the rows of its global batch."""
        self.epoch = epoch
        if self.knowledge is not None and self.cka is not None:
            noise, count = self.knowledge.noise, self.cka.negatives
            self.negatives = noise.draw(count, int(mixed(derive(self.seed, "noise", epoch), int(positions[0]))))
            self.log_q = noise.log_expected(self.negatives, count).astype(np.float32)

    def told(self, rows: np.ndarray) -> Told:
        """The mentions of some rows that are told of or kept, and the triple of each."""
        stops = self._ends[rows]
        starts = np.where(rows > 0, self._ends[rows - 1], 0)
        places = ragged(starts, stops - starts)
        line = np.repeat(np.arange(len(rows)), stops - starts)
        chosen, important = self._used[places], self._important[places]
        found = self.linked.mentions[chosen]
        entity = found["entity"].astype(np.int64)
        nobody = np.zeros(len(chosen), dtype=bool)
        triple, is_head, injected, asked = np.full(len(chosen), -1, dtype=np.int64), nobody, nobody, nobody
        if self.knowledge is not None and self.cka is not None and self.inject is not None:
            triple, is_head = self._draw(self.knowledge, self.inject.triple, rows, chosen)
            triple[~important] = -1
            asked = (triple >= 0) & (is_head | (self.cka.direction == "both"))
            if self.cka.target != "self":  # its own tokens are there, whatever the graph calls it
                other = np.where(is_head, self.knowledge.triples[triple, 2], self.knowledge.triples[triple, 0])
                asked &= self.knowledge.names.lengths[other] > 0
            vectored = np.asarray(self.knowledge.vectors.has)[entity]
            injected = important & ((triple >= 0) | vectored) & self.inject.enabled
        return Told(
            line, chosen, found["start"].astype(np.int64), found["stop"].astype(np.int64), entity,
            self._members[places], injected, asked, triple, is_head,
        )  # fmt: skip

    def _draw(
        self, knowledge: Knowledge, rule: Triple, rows: np.ndarray, mention: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """A triple for each of some mentions of the rows, and whether the mention is its head."""
        neighbours, entities = knowledge.neighbours, self.linked.mentions["entity"]
        if rule is Triple.first:
            return neighbours.first(entities[mention])
        key = derive(self.seed, "triple", self.epoch)
        if rule is Triple.random:
            return neighbours.draw(entities[mention], mixed(key, mention))
        # partners are all that the text mentions, not only what is told of or kept
        every, line = self.linked.mentions_of(rows)
        triple, is_head = neighbours.partner(entities[every], line, mixed(key, every))
        used = np.isin(every, mention)  # in the same order
        return triple[used], is_head[used]

    def masked(self, rows: np.ndarray, told: Told) -> tuple[Masked, np.ndarray]:
        """Rows with words masked, and 1 where a token is no special one [B, L]."""
        vocabulary = self.vocabulary
        ids, attention, begins = self.linked.padded(rows, vocabulary.cls, vocabulary.sep, vocabulary.pad)
        inner = attention.astype(bool)
        inner[:, 0] = False
        inner[np.arange(len(rows)), self.lengths[rows] - 1] = False
        blocked = ~inner
        if not self.words.in_spans:
            some = np.flatnonzero(told.injected)
            width = told.stop[some] - told.start[some]
            blocked.reshape(-1)[ragged(told.line[some] * ids.shape[1] + told.start[some], width)] = True
        keys = mixed(derive(self.seed, "masks", self.epoch), rows)
        made = mask_words(
            ids, begins, blocked, keys, self.words.probability, vocabulary.mask, vocabulary.size, vocabulary.special,
            self.words.whole_words, attention=attention,
        )  # fmt: skip
        return made, inner

    def shared(self, positions: np.ndarray) -> dict[str, Tensor]:
        """What every micro batch is told of its step.

        `step_units`, rows of the global batch; `step_labels`, its masked tokens; `step_asked`, its mentions that are
        asked for, and `step_targets`, the tokens that they are decoded to.
        """
        labels = targets = asked = 0
        for first in range(0, len(positions), _COUNTED):
            rows = positions[first : first + _COUNTED]
            told = self.told(rows)
            labels += len(self.masked(rows, told)[0].labels)
            targets += int(self._targets(rows, told)[1].sum())
            asked += int(told.asked.sum())
        counts = {"step_units": len(positions), "step_labels": labels, "step_targets": targets, "step_asked": asked}
        return {name: torch.tensor(count) for name, count in counts.items()}

    def batch(self, positions: np.ndarray, device: torch.device) -> dict[str, Tensor]:
        """Rows, their mentions, and what these are told.

        `input_ids`, `attention_mask`, `special` [B, L]; `positions`, `labels` [K]; of the mentions `line`, `start`,
        `stop` [M]; places among them of those kept, injected and asked, `kept` [N], `injected` [I], `asked` [A]; of
        those injected `vector` [I, k] and whether they are kept, `remembered` [I]; of those asked `relation` [A, k],
        `towards_tail` [A], `targets`, `target_log_q` [A, T] and `removed` [A, negatives].

        On the host stay (HOST) entities and numbers of the mentions kept and entities of those injected, relations of
        those asked, and the tokens of the longest mention.
        """
        told = self.told(positions)
        made, inner = self.masked(positions, told)
        kept = np.flatnonzero(told.member)
        arrays: dict[str, Any] = {
            "input_ids": made.input_ids, "attention_mask": made.attention_mask, "special": ~inner,
            "positions": made.positions, "labels": made.labels,
            "line": told.line, "start": told.start, "stop": told.stop, "kept": kept,
        }  # fmt: skip
        host = {
            "host.kept_entity": told.entity[kept],
            "host.kept_mention": told.mention[kept],
            "host.longest": np.array((told.stop - told.start).max(initial=0)),
        }
        if self.knowledge is not None:
            arrays |= self._vectors(told)
            answers, lengths = self._targets(positions, told)
            arrays |= self._answers(told, answers, lengths)
            host["host.injected_entity"] = told.entity[told.injected]
            host["host.relation"] = np.asarray(self.knowledge.triples[told.triple[told.asked], 1], dtype=np.int64)
        found = {name: moved(torch.from_numpy(np.ascontiguousarray(array)), device) for name, array in arrays.items()}
        return found | {name: torch.from_numpy(array) for name, array in host.items()}

    def _vectors(self, told: Told) -> dict[str, np.ndarray]:
        """Vectors of the injected mentions: of the triple's other entity, moved by the relation, or their own."""
        assert self.knowledge is not None
        entities, relations = self.knowledge.vectors.entities, self.knowledge.vectors.relations
        some = np.flatnonzero(told.injected)
        triple = told.triple[some]
        head, relation, tail = self.knowledge.triples[triple].T
        is_head = told.is_head[some][:, None]
        vector = np.where(is_head, entities[tail] - relations[relation], entities[head] + relations[relation])
        alone = triple < 0
        vector[alone] = entities[told.entity[some][alone]]
        return {"injected": some, "vector": vector.astype(np.float32), "remembered": told.member[some]}

    def _targets(self, rows: np.ndarray, told: Told) -> tuple[np.ndarray, np.ndarray]:
        """Tokens that the asked mentions are to be decoded to, one mention after another, and how many each has."""
        if self.knowledge is None or self.cka is None:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        some = np.flatnonzero(told.asked)
        if self.cka.target == "self":
            vocabulary = self.vocabulary
            ids, _, _ = self.linked.padded(rows, vocabulary.cls, vocabulary.sep, vocabulary.pad)
            lengths = np.minimum(told.stop[some] - told.start[some], self.cka.longest)
            return ids.reshape(-1)[ragged(told.line[some] * ids.shape[1] + told.start[some], lengths)], lengths
        head, _, tail = self.knowledge.triples[told.triple[some]].T
        return self.knowledge.names.of(np.where(told.is_head[some], tail, head), self.cka.longest)

    def _answers(self, told: Told, answers: np.ndarray, lengths: np.ndarray) -> dict[str, np.ndarray]:
        assert self.knowledge is not None and self.cka is not None
        knowledge, some = self.knowledge, np.flatnonzero(told.asked)
        triple, is_head = told.triple[some], told.is_head[some]
        place = np.arange(self.cka.longest) < lengths[:, None]
        targets = np.full(place.shape, -1, dtype=np.int64)
        targets[place] = answers
        log_q = np.zeros(place.shape, dtype=np.float32)
        log_q[place] = knowledge.noise.log_expected(answers, self.cka.negatives)
        # of `self` the answer is the mention's own entity: the question leaves that one open
        tails = is_head != (self.cka.target == "self")
        others, ends = knowledge.neighbours.others(triple, tails, knowledge.others)
        ids, widths = knowledge.names.of(others.astype(np.int64), self.cka.longest)
        token_ends = np.concatenate([[0], np.cumsum(widths)])[ends]
        return {
            "asked": some,
            "relation": np.asarray(knowledge.vectors.relations)[knowledge.triples[triple, 1]].astype(np.float32),
            "towards_tail": is_head,
            "targets": targets,
            "target_log_q": log_q,
            "removed": removed(self.negatives, ids, token_ends),
        }
