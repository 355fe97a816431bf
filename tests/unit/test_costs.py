"""Counted operations of whole steps of the student, and of finding a path, against what torch itself counts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from kbench.config.trelm import Layers, Mode, Trainable
from kbench.methods.costs import Costs
from kbench.methods.steps import KnowledgeHooks

from .linked_world import (
    CKA,
    CPU,
    INJECT,
    MENTIONS,
    ROUTING,
    TEXTS,
    feed_of,
    hooks_of,
    knowledge_of,
    linked_of,
)  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Any:
    linked = linked_of(tmp_path_factory.mktemp("linked"))
    return linked, knowledge_of(linked)


def counted(hooks: KnowledgeHooks, positions: np.ndarray) -> tuple[float, dict[str, int]]:
    """What torch counts of forward and backward of a step, and what the step had."""
    shared = hooks.feed.shared(positions)
    batch = hooks.feed.batch(positions, CPU)
    with FlopCounterMode(display=False) as counter:
        terms = hooks.loss(hooks.student, batch | shared | {"step_rows": torch.tensor(len(positions))})
        sum(terms.values()).backward()  # type: ignore[union-attr]
    return counter.get_total_flops(), dict(hooks._step)


TRAINS = Trainable(attention=False, norms=False, embeddings=False, head=True)
CASES: dict[str, dict[str, Any]] = {
    "dense": {},
    "dense, one step of the decoder": {"cka": replace(CKA, decoder="one_step")},
    "dense, nothing injected": {"inject": replace(INJECT, enabled=False)},
    "rows": {"routing": replace(ROUTING, mode=Mode.random)},
    "rows, embeddings and attention": {
        "routing": replace(ROUTING, mode=Mode.random, trainable=Trainable(True, True, True, True))
    },
    "rows of the upper half, without gradient below": {
        "routing": replace(ROUTING, mode=Mode.random, layers=Layers.upper_half),
        "inject": replace(INJECT, share_projection=True),
    },
    "paths": {"routing": replace(ROUTING, mode=Mode.random, granularity="path")},
    "frozen head": {"routing": replace(ROUTING, mode=Mode.random, trainable=replace(TRAINS, head=False))},
}


@pytest.mark.parametrize("name", CASES)
def test_a_step_is_what_torch_counts(world, name):
    """To the last operation, where all that is injected is asked for, too."""
    linked, knowledge = world
    case = CASES[name]
    own = {key: case[key] for key in ("cka", "inject") if key in case}
    feed = feed_of(linked, knowledge, **own)
    # rows of one length, so that none is padded
    hooks = hooks_of(feed, knowledge, bank=None, attn_implementation="eager", **case)
    positions = np.array([4])
    hooks.begin(0, 0, positions)
    found, step = counted(hooks, positions)
    assert step["asked"] > 1 and step["labels"] > 0
    path = [] if hooks.routed is None else [len(one) for one in hooks.routed.paths]
    assert hooks._costs.step(**step, path=path) == pytest.approx(found, rel=1e-9)


def test_a_step_of_text_alone_is_what_torch_counts(world):
    from kbench.methods.injecting import Rules, Student
    from kbench.methods.linked_feed import LinkedFeed
    from kbench.methods.steps import Plan

    from .linked_world import RECIPE, VOCABULARY, WORDS, Runtime, model_of

    linked, _ = world
    nobody = np.zeros(len(MENTIONS), dtype=bool)
    feed = LinkedFeed(linked, nobody, nobody, None, VOCABULARY, WORDS, seed=1)
    student = Student(model_of(attn_implementation="eager"), None, None, Rules())
    hooks = KnowledgeHooks(student, feed, RECIPE, Runtime(), Plan(1, 1, {}, lambda share: None, 1))
    positions = np.array([4])
    hooks.begin(0, 0, positions)
    found, step = counted(hooks, positions)
    assert hooks._costs.step(**step, path=[]) == pytest.approx(found, rel=1e-9)


@pytest.mark.parametrize("scaling", ["joint", "per_layer"])
@pytest.mark.parametrize("granularity", ["row", "path"])
def test_finding_a_path_is_what_torch_counts_but_for_the_decoder(world, scaling, granularity):
    linked, knowledge = world
    routing = replace(ROUTING, mode=Mode.literal, scaling=scaling, granularity=granularity)
    hooks = hooks_of(feed_of(linked, knowledge), knowledge, bank=None, routing=routing, attn_implementation="eager")
    positions = np.array([4])
    hooks.feed.begin(0, positions)
    # what a decoder adds is many times less in a model of real size; here it is counted apart
    with FlopCounterMode(display=False) as counter:
        hooks._finder.find(0, positions)  # type: ignore[union-attr]
    batch = hooks.feed.batch(positions, CPU)
    inputs, memory = hooks._read(batch)
    passes = {"joint": 1, "per_layer": 2}[scaling] * {"row": 1, "path": 3}[granularity] * routing.points
    with torch.no_grad():
        states, _ = hooks.student.states(inputs, memory)
    states.requires_grad_()
    told = {name: batch[name][:1] for name in ("relation", "towards_tail", "targets", "target_log_q", "removed")}
    some = batch["asked"][:1]
    told |= {name: batch[name][some] for name in ("line", "start", "stop")}
    told |= {name: inputs[name] for name in ("negatives", "log_q")}
    with FlopCounterMode(display=False) as once:
        _, probability = hooks.student._decoded(states, told, 3)
        torch.autograd.grad(probability.sum(), states)
    with FlopCounterMode(display=False) as forward:
        hooks.student._decoded(states.detach(), told, 3)
    decoding = passes * once.get_total_flops() + forward.get_total_flops()
    length = int(hooks.feed.lengths[4])
    assert length == len(TEXTS[4].split()) + 2
    assert hooks._costs.path(1, length) + decoding == pytest.approx(counter.get_total_flops(), rel=1e-3)


def test_modes_that_attribute_nothing_cost_nothing_and_magnitude_a_forward_pass(world):
    """What is injected is not counted there."""
    linked, knowledge = world
    for mode, expected in (("random", 0.0), ("in_backward", 0.0), ("off", 0.0)):
        costs = Costs(
            hooks_of(feed_of(linked, knowledge), knowledge, bank=None).student.lm.config, _knowing(mode), 3, 0, [0, 1]
        )
        assert costs.path(3, 8) == expected
    hooks = hooks_of(
        feed_of(linked, knowledge),
        knowledge,
        bank=None,
        routing=replace(ROUTING, mode=Mode.magnitude),
        attn_implementation="eager",
    )
    hooks.feed.begin(0, np.array([4]))
    with FlopCounterMode(display=False) as counter:
        hooks._finder.find(0, np.array([4]))  # type: ignore[union-attr]
    assert hooks._costs.path(1, int(hooks.feed.lengths[4])) == pytest.approx(counter.get_total_flops(), rel=0.01)


def _knowing(mode: str) -> Any:
    from .linked_world import knowing_of

    return knowing_of(routing=replace(ROUTING, mode=Mode(mode)))
