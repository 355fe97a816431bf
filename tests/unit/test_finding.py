"""Where paths come from: every mode against what it is made of, one sequence after another."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from kbench.config.trelm import Mode, Trainable
from kbench.engine.counter import mixed, permuted
from kbench.engine.seeding import derive
from kbench.knowledge.linked import Linked
from kbench.methods import paths
from kbench.methods.attribution import attribute
from kbench.methods.linked_feed import Knowledge
from kbench.methods.steps import KnowledgeHooks

from .linked_world import (
    CPU,
    EVERY,
    INNER,
    ROUTING,
    TRIPLES,
    WIDTH,
    feed_of,
    hooks_of,
    knowledge_of,
    linked_of,
    one_step,
    optimizer_of,
)  # fmt: skip

COUNT = round(0.25 * 2 * INNER)


@pytest.fixture(scope="module")
def linked(tmp_path_factory: pytest.TempPathFactory) -> Linked:
    return linked_of(tmp_path_factory.mktemp("linked"))


@pytest.fixture(scope="module")
def knowledge(linked: Linked) -> Knowledge:
    return knowledge_of(linked)


def made(
    linked: Linked, knowledge: Knowledge, mode: str, *, micro: int = 5, warm: bool = True, **more: Any
) -> KnowledgeHooks:
    """Hooks whose memory holds something, at the beginning of step 4."""
    hooks = hooks_of(
        feed_of(linked, knowledge), knowledge, routing=replace(ROUTING, mode=Mode(mode), **more), micro=micro
    )
    if warm:
        one_step(hooks, optimizer_of(hooks), 0, EVERY)
    hooks.feed.begin(2, EVERY)
    return hooks


def told_rows(hooks: KnowledgeHooks, positions: np.ndarray = EVERY) -> np.ndarray:
    return np.array([row for row in positions if hooks.feed.told(np.array([row])).asked.any()])


def chosen(hooks: KnowledgeHooks, step: int, count: int) -> list[int]:
    """The sequences that are looked at, from the keyed permutation of those that tell of something."""
    rows = told_rows(hooks)
    key = int(mixed(derive(7, "path"), step))
    order = permuted(np.arange(len(rows)), len(rows), key)
    return sorted(rows[order[:count]].tolist())


def by_hand(hooks: KnowledgeHooks, rows: list[int], sites: str = "row", **more: Any) -> dict[str, torch.Tensor]:
    """Scores of some sequences, each a batch of its own: of the first mention that is asked for."""
    parts: dict[str, list[torch.Tensor]] = {}
    for row in rows:
        batch = hooks.feed.batch(np.array([row]), CPU)
        inputs, memory = hooks._read(batch)
        mention = int(batch["asked"][0])
        where = torch.zeros(batch["input_ids"].shape, dtype=torch.bool)
        where[0, int(batch["start"][mention]) : int(batch["stop"][mention])] = True
        forward = hooks.student.probability(inputs, memory, torch.tensor([0]), int(batch["host.longest"]))
        options = {"steps": 3, "positions": where, "scaling": "joint", "sites": sites} | more
        hooks.student.eval()
        for site, scores in attribute(forward, hooks.student.lm, [0, 1], **options).items():
            parts.setdefault(site, []).append(scores)
        hooks.student.train()
    return {site: torch.cat(scores) for site, scores in parts.items()}


def lists(path: Any) -> list[list[int]]:
    return [one.tolist() for one in path]


def test_three_of_five_sequences_tell_of_something_in_every_epoch(linked, knowledge):
    """So that tests of what is chosen have something to choose from."""
    hooks = made(linked, knowledge, "random", warm=False)
    for epoch in range(8):
        hooks.feed.begin(epoch, EVERY)
        assert told_rows(hooks).tolist() == [0, 1, 4]


@pytest.mark.parametrize("micro", [1, 5])
@pytest.mark.parametrize("step", [4, 6])
def test_an_amortised_path_is_that_of_the_attribution_of_some_sequences(linked, knowledge, micro, step):
    hooks = made(linked, knowledge, "amortised", micro=micro, sequences=1)
    rows = chosen(hooks, step, 1)
    expected = paths.select(by_hand(hooks, rows)["neurons"], 0.25)
    assert hooks._finder is not None and hooks.routed is not None
    assert hooks._finder.find(step, EVERY) == 1
    assert lists(hooks.routed.paths) == lists(expected) and sum(map(len, expected)) == COUNT
    assert lists(expected) != lists(
        paths.select(by_hand(hooks, [r for r in told_rows(hooks) if r not in rows])["neurons"], 0.25)
    )


def test_other_steps_look_at_other_sequences(linked, knowledge):
    hooks = made(linked, knowledge, "amortised", warm=False)
    assert len({tuple(chosen(hooks, step, 1)) for step in range(12)}) == len(told_rows(hooks))


@pytest.mark.parametrize(
    ("more", "options"),
    [
        ({}, {}),
        ({"rule": "midpoint", "points": 2}, {"rule": "midpoint", "steps": 2}),
        ({"scaling": "per_layer"}, {"scaling": "per_layer"}),
    ],
)
@pytest.mark.parametrize("micro", [1, 2, 5])
def test_a_literal_path_is_that_of_all_sequences_that_tell_of_something(linked, knowledge, micro, more, options):
    hooks = made(linked, knowledge, "literal", micro=micro, **more)
    rows = told_rows(hooks).tolist()
    expected = paths.select(by_hand(hooks, rows, **options)["neurons"], 0.25)
    assert hooks._finder.find(4, EVERY) == len(rows)  # type: ignore[union-attr]
    assert lists(hooks.routed.paths) == lists(expected)  # type: ignore[union-attr]


def test_a_literal_path_has_inputs_and_outputs_where_equation_12_is_taken_at_its_word(linked, knowledge):
    hooks = made(linked, knowledge, "literal", granularity="path")
    scores = by_hand(hooks, told_rows(hooks).tolist(), sites="path")
    expected = paths.select_sites(scores, 0.25)
    hooks._finder.find(4, EVERY)  # type: ignore[union-attr]
    found = hooks.routed.tensors()  # type: ignore[union-attr]
    for side, side_expected in zip(("neurons", "inputs", "outputs"), expected, strict=True):
        assert [found[f"{layer}.{side}"].tolist() for layer in range(2)] == lists(side_expected)


def test_memory_is_part_of_what_is_attributed(linked, knowledge):
    hooks = made(linked, knowledge, "literal")
    rows = told_rows(hooks).tolist()
    with_memory = by_hand(hooks, rows)["neurons"]
    hooks._share = 0.0
    assert not torch.allclose(with_memory, by_hand(hooks, rows)["neurons"])


def test_finding_a_path_leaves_modes_gradients_and_draws_as_they_were(linked, knowledge):
    hooks = made(linked, knowledge, "literal")
    hooks.student.lm.bert.embeddings.eval()
    modes = [module.training for module in hooks.student.lm.modules()]
    state = torch.get_rng_state()
    hooks._finder.find(4, EVERY)  # type: ignore[union-attr]
    assert torch.equal(state, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in hooks.student.parameters())
    assert hooks.student.training and any(modes)


def test_without_a_mention_the_last_path_stays_and_the_first_is_random(linked, knowledge):
    nothing = np.array([3])
    for mode in ("literal", "amortised", "magnitude"):
        hooks = made(linked, knowledge, mode, warm=False)
        assert hooks._finder.find(0, nothing) == 0  # type: ignore[union-attr]
        first = lists(hooks.routed.paths)  # type: ignore[union-attr]
        assert sum(map(len, first)) == COUNT
        assert hooks._finder.find(1, nothing) == 0 and lists(hooks.routed.paths) == first  # type: ignore[union-attr]
        assert hooks._finder.find(2, EVERY) > 0 and lists(hooks.routed.paths) != first  # type: ignore[union-attr]


def test_random_paths_are_functions_of_the_step(linked, knowledge):
    found = []
    for step in (0, 1, 0):
        hooks = made(linked, knowledge, "random", warm=False, granularity="path")
        assert hooks._finder.find(step, EVERY) == 0  # type: ignore[union-attr]
        found.append({name: t.tolist() for name, t in hooks.routed.tensors().items() if name.count(".") == 1})  # type: ignore[union-attr]
    assert found[0] == found[2] != found[1]
    assert sum(len(found[0][f"{layer}.neurons"]) for layer in range(2)) == COUNT
    assert {len(found[0][f"{layer}.{side}"]) for layer in range(2) for side in ("inputs", "outputs")} == {WIDTH // 2}
    assert found[0]["0.inputs"] != found[0]["1.inputs"] != found[0]["1.outputs"]


@pytest.mark.parametrize("micro", [1, 5])
def test_magnitude_takes_the_largest_activations_at_the_mentions(linked, knowledge, micro):
    hooks = made(linked, knowledge, "magnitude", micro=micro, sequences=5)
    expected = torch.zeros(1, 2, INNER)
    for row in told_rows(hooks):
        batch = hooks.feed.batch(np.array([row]), CPU)
        inputs, memory = hooks._read(batch)
        mention, seen = int(batch["asked"][0]), list[torch.Tensor]()
        layers = hooks.student.lm.bert.encoder.layer
        watching = [
            layer.intermediate.register_forward_hook(lambda m, i, o, seen=seen: seen.append(o)) for layer in layers
        ]
        hooks.student.eval()
        with torch.no_grad():
            hooks.student.states(inputs, memory)
        hooks.student.train()
        for one in watching:
            one.remove()
        for layer, values in enumerate(seen):
            expected[0, layer] += values[0, batch["start"][mention] : batch["stop"][mention]].abs().sum(0)
    hooks._finder.find(4, EVERY)  # type: ignore[union-attr]
    assert lists(hooks.routed.paths) == lists(paths.select(expected, 0.25))  # type: ignore[union-attr]


@pytest.mark.parametrize(("mode", "due"), [
    ("literal", [0, 1, 2, 3, 4]), ("amortised", [0, 2, 4]), ("random", [0, 2, 4]), ("magnitude", [0, 2, 4]),
    ("in_backward", []),
])  # fmt: skip
def test_when_a_path_is_due(linked, knowledge, mode, due):
    hooks = made(linked, knowledge, mode, warm=False)
    assert [step for step in range(5) if hooks._finder.due(step)] == due  # type: ignore[union-attr]


def test_which_tokens_are_scaled(linked, knowledge):
    feed = feed_of(linked, knowledge)
    feed.begin(0, EVERY)
    batch = feed.batch(EVERY, CPU)
    some = torch.tensor([0, 2])  # [1, 3) and [6, 7) of the first row
    found = {}
    for positions in ("span", "first", "all"):
        finder = made(linked, knowledge, "literal", warm=False, positions=positions)._finder
        found[positions] = finder.scaled(batch, some)  # type: ignore[union-attr]
    assert found["span"].nonzero().tolist() == [[0, 1], [0, 2], [0, 6]]
    assert found["first"].nonzero().tolist() == [[0, 1], [0, 6]]
    assert torch.equal(found["all"], batch["attention_mask"].bool())


def relations_of(hooks: KnowledgeHooks, rows: Any) -> set[int]:
    told = hooks.feed.told(np.array(rows))
    return set(TRIPLES[told.triple[told.asked], 1].tolist())


def test_with_a_path_for_each_relation_a_step_goes_along_those_of_all_its_relations(linked, knowledge):
    """Also of relations that other steps were attributed for; a relation without a path adds nothing."""
    hooks = made(linked, knowledge, "amortised", scope="relation", sequences=1, warm=False)
    finder, known = hooks._finder, dict[int, list[set[int]]]()
    assert finder is not None and hooks.routed is not None
    unions = 0
    for step in range(8):
        hooks.feed.begin(step, EVERY)
        rows = told_rows(hooks)
        (row,) = chosen(hooks, step, 1)
        batch = hooks.feed.batch(np.array([row]), CPU)
        relation = int(batch["host.relation"][0])
        scores = by_hand(hooks, [row])["neurons"]
        assert finder.find(step, EVERY) == 1
        known[relation] = [set(one.tolist()) for one in paths.select(scores, 0.25)]
        for positions in (EVERY, rows[:1], rows[-1:]):
            before = lists(hooks.routed.paths)
            finder.follow(positions)
            there = [known[one] for one in relations_of(hooks, positions) if one in known]
            union = [sorted(set.union(*(one[layer] for one in there))) for layer in range(2)] if there else before
            assert lists(hooks.routed.paths) == union
            unions += len(there) > 1
    assert len(known) == 3 and unions > 0


def test_trained_embeddings_are_tied_to_the_head_and_learn(linked, knowledge):
    more = {"trainable": Trainable(attention=False, norms=False, embeddings=True, head=True)}
    hooks = made(linked, knowledge, "random", warm=False, **more)
    lm = hooks.student.lm
    assert lm.cls.predictions.decoder.weight is lm.bert.embeddings.word_embeddings.weight
    optimizer, before = optimizer_of(hooks), lm.bert.embeddings.word_embeddings.weight.detach().clone()
    one_step(hooks, optimizer, 0, EVERY)
    assert not torch.equal(before, lm.bert.embeddings.word_embeddings.weight)
    assert lm.cls.predictions.decoder.weight is lm.bert.embeddings.word_embeddings.weight
    frozen = made(linked, knowledge, "random", warm=False).student.lm
    assert not frozen.cls.predictions.decoder.weight.requires_grad and frozen.cls.predictions.bias.requires_grad
