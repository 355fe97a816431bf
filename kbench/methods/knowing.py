"""The parts of TRELM's pre-training, made of its options: student, memory bank, and what of the model learns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from kbench.config import trelm as options
from kbench.methods.banks import Bank, RowsBank, ShardedBank
from kbench.methods.cka import Decoder
from kbench.methods.injecting import Rules, Student
from kbench.methods.injection import Injection
from kbench.methods.mapped_bank import MappedBank
from kbench.methods.memory import NameMeans
from kbench.methods.routed import Routed, install
from kbench.methods.routed_ffn import encoder_layers

if TYPE_CHECKING:
    from kbench.engine.runtime import Runtime
    from kbench.methods.linked_feed import Knowledge, LinkedFeed, Names

_SAMPLED = 4096  # triples whose vectors the first weights are scaled by


def student_of(model: Any, knowing: Any, knowledge: Knowledge, seed: int) -> Student:
    """The model with its injection and decoder, their first weights drawn from a seed.

    Args:
        model: masked language model of transformers.
        knowing: options of TRELM.
        knowledge: of the graph.
        seed: of the first weights.
    """
    embeddings = model.get_input_embeddings().weight.detach()
    entities, relations = knowledge.vectors.entities, knowledge.vectors.relations
    usable = np.flatnonzero(knowledge.vectors.usable(knowledge.triples))  # of all the graph, its file may be sorted
    triples = knowledge.triples[usable[:: -(-len(usable) // _SAMPLED)]]
    sample = torch.from_numpy(np.ascontiguousarray(entities[triples[:, 2]] - relations[triples[:, 1]]))
    injection = None
    if knowing.inject.enabled:
        injection = Injection(sample.shape[1], embeddings.shape[1], seed).scaled_to(embeddings, sample)
    shared = injection.projection if injection is not None and knowing.inject.share_projection else None
    torch.manual_seed(seed)
    cka = knowing.cka
    decoder = Decoder(embeddings.shape[1], sample.shape[1], cka.delta, cka.decoder, shared)
    decoder.balance(torch.from_numpy(np.array(relations)))
    rules = Rules(
        theta=knowing.theta,
        level=knowing.inject.level,
        scale=knowing.memory.scale,
        similarity=cka.similarity,
        tau=cka.tau,
        correction=cka.correction,
        longest=cka.longest,
        window=knowing.memory.window,
        divisor=knowing.memory.divisor,
    )
    return Student(model, injection, decoder, rules)


def bank_of(
    student: Student,
    feed: LinkedFeed,
    names: Names,
    memory: options.Memory,
    runtime: Runtime,
    folder: Path,
    graph: Path,
) -> Bank:
    """The memory of a training; `folder` is for its files, `graph` is the stage's folder."""
    embeddings = student.lm.get_input_embeddings().weight

    def tokens(entities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ids, lengths = names.of(entities, int(names.lengths.max(initial=1)))
        return ids, np.cumsum(lengths)

    def nothing(entities: np.ndarray) -> torch.Tensor:
        return torch.zeros(len(entities), embeddings.shape[1], device=runtime.device)

    initial = NameMeans(embeddings, tokens) if memory.start == "name" else nothing
    width = embeddings.shape[1]
    common: Any = {"gamma": memory.gamma, "global_mean": memory.global_mean, "device": runtime.device}
    own: Bank
    if memory.store == "mapped":
        place = folder if runtime.processes == 1 else folder / f"{runtime.rank}-of-{runtime.processes}"
        content = json.loads((graph / "graph.json").read_text(encoding="utf-8"))["content"]
        # where rows are kept must not change what they are: all stores hold float32
        own = MappedBank(place, len(names.lengths), width, initial, graph=content, local="float32", **common)
    else:
        own = RowsBank(feed.entities, width, initial, **common)
    if runtime.processes > 1 and memory.store != "rows":
        return ShardedBank(own, runtime.rank, runtime.processes, runtime.gather_rows, runtime.sum)
    return own


def route(model: Any, knowing: Any) -> Routed:
    """Freeze a model but for its head and what `routing.trainable` names, and give its layers paths."""
    routing = knowing.routing
    model.requires_grad_(False)
    layers = encoder_layers(model)
    embeddings = model.get_input_embeddings().weight
    chosen = routing.trainable
    for layer in layers:
        for name, parameter in layer.named_parameters():
            norm = "LayerNorm" in name
            parameter.requires_grad_(chosen.norms if norm else chosen.attention and name.startswith("attention."))
    head = [part for part in model.children() if part is not model.base_model]
    if chosen.embeddings:
        model.base_model.embeddings.requires_grad_(True)
    for part in head:
        for parameter in part.parameters():
            if parameter is not embeddings:
                parameter.requires_grad_(chosen.head)
    first = len(layers) // 2 if routing.layers is options.Layers.upper_half else 0
    routed = install(model, range(first, len(layers)), routing.granularity, optimizer=routing.optimizer)
    # below the paths nothing learns: with a projection that learns from the decoder, too, no gradient has to go there
    still = not (chosen.attention or chosen.norms or chosen.embeddings)
    if first and still and (knowing.inject.share_projection or not knowing.inject.enabled):
        routed.cut(first)
    return routed
