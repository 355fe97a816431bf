"""Five hand-made sequences with their mentions, a graph of eight entities, and a BERT that has their forty tokens."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from transformers import BertConfig, BertForMaskedLM

from kbench.config.trelm import Cka, Exclude, Inject, Layers, Memory, Mode, Routing, Trainable, Triple, Unit, Words
from kbench.engine.recipe import Precision, Recipe, Schedule, Selection
from kbench.engine.runtime import Runtime
from kbench.knowledge.linked import LINKED, Linked
from kbench.knowledge.neighbours import Neighbours
from kbench.knowledge.noise import Noise
from kbench.methods.banks import RowsBank
from kbench.methods.injecting import Student
from kbench.methods.knowing import route, student_of
from kbench.methods.linked_feed import Knowledge, LinkedFeed, Names
from kbench.methods.steps import KnowledgeHooks, Plan

CPU = torch.device("cpu")
PAD, UNKNOWN, CLS, SEP, MASK, SIZE = 0, 1, 2, 3, 4, 40
VOCABULARY: Any = SimpleNamespace(
    cls=CLS, sep=SEP, mask=MASK, pad=PAD, unknown=UNKNOWN, size=SIZE, special=(0, 1, 2, 3, 4)
)
# one sequence a line: a "+" before each token that goes on with the word before it
TEXTS = ["10 11 +12 13 14 15 16 +17", "20 21 22", "23 +24 25 26", "10 10", "30 31 32 33 34 +35 36 37 38 39"]
# sequence, start, stop, entity; 6 has no vector, 7 neither vector nor triple, 5 a vector and no triple
MENTIONS = [
    (0, 1, 3, 0), (0, 4, 5, 1), (0, 6, 7, 7), (0, 7, 9, 2), (1, 1, 2, -1), (1, 3, 4, 3), (2, 2, 3, 6), (2, 4, 5, 5),
    (4, 1, 2, 4), (4, 2, 4, 0), (4, 6, 7, 3), (4, 8, 10, 2),
]  # fmt: skip
TRIPLES = np.array(
    [[0, 0, 1], [0, 0, 2], [3, 1, 0], [4, 1, 0], [2, 2, 4], [6, 0, 1], [0, 0, 3], [1, 2, 2], [3, 2, 4]], dtype=np.int32
)
# 3 has no name, 2 a long one
NAMES = [[5, 6], [7], [8, 9, 5, 6, 7, 11], [], [12, 5], [6], [13, 14], [15]]
KNOWN = np.array([True] * 6 + [False] * 2)
WORDS = Words(0.5, whole_words=True, in_spans=False)
INJECT = Inject(True, Triple.random, "token", False, Exclude.none)
CKA = Cka("neighbour", "both", "recurrent", 0.5, 4, "dot", 1.0, "unigram", 12, 0.75, True)
EVERY = np.arange(len(TEXTS))


MEMORY = Memory(0.5, 2.0, Unit.epoch, 0.1, False, 16, "actual", 0.1, "name", "running", "all", "none", "rows")
ROUTING = Routing(
    mode=Mode.off, layers=Layers.all, granularity="row", rho=0.25, rho_sites=0.5, select="top_fraction", threshold=0.2,
    scope="batch", every=2, sequences=2, points=3, rule="right", scaling="joint", positions="span",
    optimizer="row_sparse", trainable=Trainable(False, False, False, True),
)  # fmt: skip
RECIPE = Recipe(
    epochs=3, max_steps=None, lr=1e-2, schedule=Schedule.linear, warmup=0.0, warmup_steps=None, adam_epsilon=1e-6,
    adam_beta2=0.98, weight_decay=0.1, clip=1.0, global_batch_size=5, length_pool=0, precision=Precision.fp32,
    eval_every=None, selection=Selection.last, patience=None,
)  # fmt: skip
WIDTH, INNER, DEPTH = 16, 24, 2


def linked_of(folder: Path) -> Linked:
    """The sequences above, written into a folder as `kbench.knowledge.linked` writes them."""
    pieces = [text.split() for text in TEXTS]
    ids = np.array([int(piece) for text in pieces for piece in text], dtype=np.int32)
    ids.tofile(folder / "sequences.ids")
    np.array([not piece.startswith("+") for text in pieces for piece in text], dtype=np.uint8).tofile(
        folder / "sequences.begins"
    )
    np.cumsum([len(text) for text in pieces]).tofile(folder / "sequences.ends")
    mentions = np.zeros(len(MENTIONS), dtype=LINKED)
    for name, column in zip(("sequence", "start", "stop", "entity"), zip(*MENTIONS, strict=True), strict=True):
        mentions[name] = column
    np.save(folder / "mentions.npy", mentions)
    np.save(folder / "mention_ends.npy", np.searchsorted(mentions["sequence"], EVERY, side="right"))
    np.save(folder / "counts.npy", np.bincount(ids, minlength=SIZE))
    (folder / "linked.json").write_text(json.dumps({}))
    return Linked(folder)


def knowledge_of(linked: Linked) -> Knowledge:
    """What the mentions are told of: random vectors, where there are some."""
    generator = np.random.default_rng(0)
    entities, relations = (generator.standard_normal((rows, 3)).astype(np.float32) for rows in (8, 3))
    entities[~KNOWN] = 0
    usable = KNOWN[TRIPLES[:, 0]] & KNOWN[TRIPLES[:, 2]]
    vectors: Any = SimpleNamespace(
        entities=entities, relations=relations, has=KNOWN, usable=lambda triples: usable[: len(triples)]
    )
    lengths = np.array([len(name) for name in NAMES])
    names = Names(np.concatenate([np.array(n, dtype=np.int32) for n in NAMES]), np.cumsum(lengths) - lengths, lengths)
    noise = Noise(linked.counts, "unigram", 0.75, VOCABULARY.special)
    return Knowledge(TRIPLES, Neighbours(TRIPLES, 8, usable), vectors, names, noise)


def feed_of(
    linked: Linked,
    knowledge: Knowledge | None,
    *,
    important: list[int] | None = None,
    members: list[int] | None = None,
    words: Words = WORDS,
    inject: Inject = INJECT,
    cka: Cka = CKA,
    seed: int = 3,
) -> LinkedFeed:
    """A feed; unless said otherwise all mentions of the graph's entities are important, and all but two are kept."""
    entity = linked.mentions["entity"]
    marks = []
    for given, default in ((important, entity >= 0), (members, (entity >= 0) & (entity != 1) & (entity != 4))):
        mark = np.array(default)
        if given is not None:
            mark[:] = False
            mark[given] = True
        marks.append(mark)
    return LinkedFeed(linked, *marks, knowledge, VOCABULARY, words, inject, cka, seed=seed)


def incident(entity: int) -> set[int]:
    """The triples that an entity may be told of."""
    return {
        row for row, (head, _, tail) in enumerate(TRIPLES.tolist())
        if entity in (head, tail) and KNOWN[head] and KNOWN[tail]
    }  # fmt: skip


def knowing_of(**changed: Any) -> Any:
    """TRELM's options, of which some nodes are others."""
    nodes = {"theta": 0.5, "inject": INJECT, "cka": CKA, "memory": MEMORY, "routing": ROUTING}
    return SimpleNamespace(**(nodes | changed))


def model_of(seed: int = 3, dropout: float = 0.0, **more: Any) -> Any:
    """A BERT with random weights, in train mode."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=SIZE, hidden_size=WIDTH, num_hidden_layers=DEPTH, num_attention_heads=2, intermediate_size=INNER,
        max_position_embeddings=20, pad_token_id=PAD, hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout, **more,
    )  # fmt: skip
    return BertForMaskedLM(config).train()


def bank_of(student: Student, feed: LinkedFeed, **more: Any) -> RowsBank:
    """A bank whose rows begin as numbers that say whose they are."""
    return RowsBank(
        feed.entities, WIDTH, lambda some: torch.from_numpy(some).float()[:, None].expand(-1, WIDTH), **more
    )


def hooks_of(
    feed: LinkedFeed,
    knowledge: Knowledge,
    *,
    seed: int = 3,
    dropout: float = 0.0,
    bank: Any = bank_of,
    micro: int = 5,
    plan: Plan | None = None,
    attn_implementation: str | None = None,
    **changed: Any,
) -> KnowledgeHooks:
    """Hooks on a fresh student; `bank` makes the memory, `micro` are the rows of a micro batch."""
    knowing = knowing_of(**changed)
    model = model_of(seed, dropout, attn_implementation=attn_implementation)
    student = student_of(model, knowing, knowledge, seed)
    routed = None if knowing.routing.mode is Mode.off else route(model, knowing)
    runtime = Runtime(device="cpu", micro_batch_size=micro)
    made = None if bank is None else bank(student, feed)
    plan = plan or Plan(total=6, per_epoch=2, snapshots={}, keep=lambda share: None, seed=7)
    return KnowledgeHooks(student, feed, RECIPE, runtime, plan, made, routed, knowing)


def optimizer_of(hooks: KnowledgeHooks) -> torch.optim.Optimizer:
    """What updates all but the path's weights."""
    learns = [parameter for parameter in hooks.student.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(learns, lr=RECIPE.lr, weight_decay=RECIPE.weight_decay)


def one_step(
    hooks: KnowledgeHooks,
    optimizer: torch.optim.Optimizer,
    step: int,
    positions: np.ndarray,
    *,
    epoch: int = 0,
    micro: int = 5,
    idle: bool = False,
) -> dict[str, float]:
    """The step after `step`, as the loop makes it: the terms of its loss. `idle`: one piece more, without rows."""
    feed = hooks.feed
    hooks.begin(step, epoch, positions)
    shared, sums = feed.shared(positions), dict[str, float]()
    pieces = [positions[start : start + micro] for start in range(0, len(positions), micro)]
    for piece in [*pieces, *([positions[:0]] if idle else [])]:
        share = len(piece) / len(positions)
        torch.manual_seed(step)
        batch = feed.batch(piece if len(piece) else positions[:1], CPU)
        terms = hooks.loss(hooks.student, batch | shared | {"step_rows": torch.tensor(len(piece))})
        whole: Any = sum(terms.values())
        (whole * share).backward()
        for name, term in terms.items():
            sums[name] = sums.get(name, 0.0) + float(term.detach()) * share
    hooks.gradients()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    hooks.update(step + 1, RECIPE.lr)
    return sums
