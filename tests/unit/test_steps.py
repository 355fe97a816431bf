"""What TRELM does inside a step: when memory is read and written, what is counted, that it can be taken up again."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from kbench.config.trelm import Mode
from kbench.knowledge.linked import Linked
from kbench.methods.banks import RowsBank
from kbench.methods.costs import Costs
from kbench.methods.linked_feed import Knowledge
from kbench.methods.steps import KnowledgeHooks, Plan

from .linked_world import (
    CPU,
    EVERY,
    INJECT,
    MEMORY,
    MENTIONS,
    ROUTING,
    WIDTH,
    WORDS,
    bank_of,
    feed_of,
    hooks_of,
    knowledge_of,
    linked_of,
    one_step,
    optimizer_of,
)  # fmt: skip

MODES = ("off", "literal", "amortised", "in_backward", "random", "magnitude")


@pytest.fixture(scope="module")
def linked(tmp_path_factory: pytest.TempPathFactory) -> Linked:
    return linked_of(tmp_path_factory.mktemp("linked"))


@pytest.fixture(scope="module")
def knowledge(linked: Linked) -> Knowledge:
    return knowledge_of(linked)


def routing(mode: str, **more: Any) -> Any:
    return replace(ROUTING, mode=Mode(mode), **more)


class Watched(RowsBank):
    """A bank that says when it was asked, and what it was told."""

    events: list[str]
    told: list[tuple[np.ndarray, np.ndarray]]

    def read(self, entities: np.ndarray) -> Any:
        self.events.append("read")
        return super().read(entities)

    def write(self, entities: np.ndarray, keys: np.ndarray, notes: Any, cls: Any) -> None:
        self.events.append("write")
        self.told.append((entities.copy(), keys.copy()))
        super().write(entities, keys, notes, cls)

    def next_epoch(self) -> None:
        self.events.append("epoch")
        super().next_epoch()


def watched(events: list[str], **more: Any) -> Any:
    def make(student: Any, feed: Any) -> Watched:
        own = student.forward
        student.forward = lambda *a, **k: (events.append("forward"), own(*a, **k))[1]
        bank = Watched(
            feed.entities, WIDTH, lambda some: torch.from_numpy(some).float()[:, None].expand(-1, WIDTH), **more
        )
        bank.events, bank.told = events, []
        return bank

    return make


def rows_of(bank: Any) -> dict[int, tuple[np.ndarray, np.ndarray, int]]:
    """entity -> local, global, count."""
    found = bank.tensors()
    return {
        int(e): (found["local"][i].numpy().copy(), found["global"][i].numpy().copy(), int(found["counts"][i]))
        for i, e in enumerate(found["entities"])
    }


@pytest.mark.parametrize("mode", ["off", "amortised", "random"])
def test_memory_is_read_before_each_forward_pass_and_written_once_after_the_update(linked, knowledge, mode):
    events: list[str] = []
    hooks = hooks_of(feed_of(linked, knowledge), knowledge, bank=watched(events), routing=routing(mode), micro=2)
    optimizer = optimizer_of(hooks)
    for step, epoch in ((0, 0), (1, 0), (2, 1)):
        events.clear()
        one_step(hooks, optimizer, step, EVERY, epoch=epoch, micro=2)
        found = ["epoch"] if epoch and step == 2 else []
        if mode == "amortised" and step % 2 == 0:
            found += ["read"]  # two sequences, one micro batch of them; their forward passes are not the student's own
        assert events == found + ["read", "forward"] * 3 + ["write"]


def test_all_notes_of_a_step_are_written_at_once_and_the_stand_in_of_an_empty_piece_is_not(linked, knowledge):
    events: list[str] = []
    hooks = hooks_of(feed_of(linked, knowledge), knowledge, bank=watched(events))
    order = np.array([4, 0, 2])
    one_step(hooks, optimizer_of(hooks), 0, order, micro=1, idle=True)
    ((entities, keys),) = hooks.bank.told  # type: ignore[union-attr]
    expected = [n for row in order for n, m in enumerate(MENTIONS) if m[0] == row and m[3] not in (1, 4)]
    assert keys.tolist() == expected and entities.tolist() == [MENTIONS[n][3] for n in expected]


@pytest.mark.parametrize("micro", [5, 2])
def test_a_step_writes_equations_4_to_6(linked, knowledge, micro):
    """Against notes that are taken one mention after another, with the memory as it was before the step."""
    feed = feed_of(linked, knowledge)
    hooks = hooks_of(feed, knowledge, memory=replace(MEMORY, window=2))
    optimizer = optimizer_of(hooks)
    one_step(hooks, optimizer, 0, EVERY, micro=micro)
    before, student = rows_of(hooks.bank), copy.deepcopy(hooks.student)
    held = {name: tensor.clone() for name, tensor in hooks.bank.tensors().items()}  # type: ignore[union-attr]
    one_step(hooks, optimizer, 1, EVERY, micro=micro)
    after = rows_of(hooks.bank)
    feed.begin(0, EVERY)
    batch = feed.batch(EVERY, CPU)
    hooks.bank = bank_of(student, feed)
    hooks.bank.restore(held)
    inputs, memory = hooks._read(batch)
    with torch.no_grad():
        states = student.states(inputs, memory)[0].numpy().astype(np.float64)
    notes: dict[int, list[Any]] = {}
    for sequence, start, stop, entity in MENTIONS:
        if entity in (-1, 1, 4):
            continue
        length = linked.lengths[sequence]
        window = states[sequence, max(1, start - 2) : min(length - 1, stop + 2)]
        notes.setdefault(entity, []).append((window.mean(0), states[sequence, 0]))
    assert after.keys() == notes.keys()
    for entity, found in notes.items():
        local, whole, count = before[entity]
        assert after[entity][2] == count + len(found) == 2 * len(found)
        np.testing.assert_allclose(after[entity][0], 0.9 * local + 0.1 * np.mean([n for n, _ in found], 0), atol=1e-5)
        total = whole * count + np.sum([h for _, h in found], 0)
        np.testing.assert_allclose(after[entity][1], total / (2 * len(found)), atol=1e-5)


@pytest.mark.parametrize("mode", ["off", "amortised", "literal"])
def test_micro_batches_and_empty_pieces_change_nothing_but_rounding(linked, knowledge, mode):
    made = []
    for micro, idle in ((5, False), (2, False), (1, True)):
        hooks = hooks_of(feed_of(linked, knowledge), knowledge, routing=routing(mode), micro=micro)
        optimizer = optimizer_of(hooks)
        losses = [one_step(hooks, optimizer, step, EVERY, micro=micro, idle=idle) for step in range(3)]
        weights = torch.cat([parameter.detach().flatten() for parameter in hooks.student.parameters()])
        path = [] if hooks.routed is None else [one.tolist() for one in hooks.routed.paths]
        made.append((losses, weights, rows_of(hooks.bank), path))
    for losses, weights, rows, path in made[1:]:
        for one, other in zip(losses, made[0][0], strict=True):
            assert one == pytest.approx(other, rel=1e-5)
        assert torch.allclose(weights, made[0][1], atol=2e-5)
        assert path == made[0][3]
        for entity, (local, whole, count) in rows.items():
            other = made[0][2][entity]
            assert count == other[2]
            np.testing.assert_allclose(local, other[0], atol=1e-5)
            np.testing.assert_allclose(whole, other[1], atol=1e-5)


def test_without_a_share_memory_is_not_read_but_written(linked, knowledge):
    events: list[str] = []
    memory = replace(MEMORY, final_zero=True)
    hooks = hooks_of(feed_of(linked, knowledge), knowledge, bank=watched(events), memory=memory)
    optimizer = optimizer_of(hooks)
    for step, share in enumerate((0.5, 0.5, 0.25, 0.25, 0.0, 0.0)):
        events.clear()
        one_step(hooks, optimizer, step, EVERY, epoch=step // 2)
        assert hooks.values()["memory_share"] == share
        assert [event for event in events if event != "epoch"] == ["read"] * (share > 0) + ["forward", "write"]


def test_a_bank_is_told_of_every_epoch_that_has_passed(linked, knowledge):
    hooks = hooks_of(feed_of(linked, knowledge), knowledge, bank=lambda s, f: bank_of(s, f, global_mean="per_epoch"))
    optimizer = optimizer_of(hooks)
    for step in range(3):
        one_step(hooks, optimizer, step, EVERY, epoch=min(step, 1))
    assert hooks.bank.epoch == 1  # type: ignore[union-attr]
    counts = {entity: count for entity, (_, _, count) in rows_of(hooks.bank).items()}
    mentions = [m[3] for m in MENTIONS if m[3] not in (-1, 1, 4)]
    assert counts == {entity: 2 * mentions.count(entity) for entity in set(mentions)}, "of two steps since it began"


@pytest.mark.parametrize("mode", MODES)
def test_tokens_and_operations_are_counted(linked, knowledge, mode):
    feed = feed_of(linked, knowledge)
    hooks = hooks_of(feed, knowledge, routing=routing(mode))
    optimizer, before = optimizer_of(hooks), 0.0
    routed = hooks.routed
    costs = Costs(hooks.student.lm.config, hooks._knowing, 3, 0, None if routed is None else routed.layers)
    for step, rows in enumerate((EVERY, np.array([4, 0]), np.array([3, 1]))):
        one_step(hooks, optimizer, step, rows)
        values = hooks.values()
        shared, tokens = feed.shared(rows), int(linked.lengths[rows].sum())
        path = [] if routed is None else [len(one) for one in routed.paths]
        expected = costs.step(len(rows), tokens, int(shared["step_labels"]), int(shared["step_asked"]), path)
        looked_at = {"literal": [3, 2, 1], "amortised": [2, 0, 1], "magnitude": [2, 0, 1]}.get(mode, [0, 0, 0])[step]
        expected += costs.path(looked_at, tokens / len(rows))
        assert values["operations"] - before == pytest.approx(expected)
        before = values["operations"]
        assert values["tokens"] == sum(int(linked.lengths[one].sum()) for one in (EVERY, [4, 0], [3, 1])[: step + 1])
        if mode != "off":
            assert values["path/neurons"] == 12
            assert sum(values[f"path/layer_{layer}"] for layer in range(2)) == pytest.approx(1)
            assert 0 <= values["path/overlap"] <= 1 and 0 <= values["path/share_of_time"] <= 1


@pytest.mark.parametrize("mode", ["in_backward", "literal"])
def test_overlap_is_that_with_the_path_of_the_step_before(linked, knowledge, mode):
    hooks = hooks_of(feed_of(linked, knowledge), knowledge, routing=routing(mode))
    optimizer, before = optimizer_of(hooks), [set(), set()]
    assert hooks.routed is not None
    for step in range(3):
        one_step(hooks, optimizer, step, EVERY)
        now = [set(one.tolist()) for one in hooks.routed.paths]
        common, either = (
            sum(len(f(a, b)) for a, b in zip(now, before, strict=True)) for f in (set.__and__, set.__or__)
        )
        assert hooks.values()["path/overlap"] == pytest.approx(common / either)
        before = now


def test_weights_off_the_path_keep_their_bits_and_rows_on_it_move(linked, knowledge):
    hooks = hooks_of(feed_of(linked, knowledge), knowledge, routing=routing("random", every=100))
    optimizer = optimizer_of(hooks)
    before = {name: tensor.clone() for name, tensor in hooks.student.lm.state_dict().items()}
    for step in range(3):
        one_step(hooks, optimizer, step, EVERY)
    assert hooks.routed is not None
    for layer, path in enumerate(hooks.routed.paths):
        for part, rows in (
            ("intermediate.dense.weight", 0),
            ("output.dense.weight", 1),
            ("intermediate.dense.bias", 0),
        ):
            name = f"bert.encoder.layer.{layer}.{part}"
            after = hooks.student.lm.state_dict()[name]
            moved = (after != before[name]).movedim(rows, 0).flatten(1 if after.ndim > 1 else 0)
            moved = moved.any(-1) if after.ndim > 1 else moved
            assert moved.nonzero().flatten().tolist() == path.tolist()


def test_the_model_is_kept_after_each_part_that_is_asked_for(linked, knowledge):
    kept: list[tuple[int, float]] = []
    steps = [0]
    plan = Plan(6, 2, {0.3: 2, 0.4: 2, 0.5: 3}, lambda share: kept.append((steps[0], share)), 7)
    hooks = hooks_of(feed_of(linked, knowledge), knowledge, plan=plan)
    optimizer = optimizer_of(hooks)
    for step in range(4):
        steps[0] = step + 1
        one_step(hooks, optimizer, step, EVERY, epoch=step // 2)
    assert kept == [(2, 0.3), (2, 0.4), (3, 0.5)]


@pytest.mark.parametrize(
    ("words", "rows"), [(0.0, EVERY), (0.5, np.array([3])), (0.0, np.array([3]))], ids=["no word", "no mention", "none"]
)
@pytest.mark.parametrize("mode", MODES)
def test_a_step_without_labels_or_answers_is_one(linked, knowledge, mode, words, rows):
    feed = feed_of(linked, knowledge, words=replace(WORDS, probability=words))
    hooks = hooks_of(feed, knowledge, routing=routing(mode))
    optimizer = optimizer_of(hooks)
    for step in range(2):
        losses = one_step(hooks, optimizer, step, rows)
        assert all(math.isfinite(value) for value in losses.values())
        assert (losses["words"] == 0) == (words == 0) and (losses["knowledge"] == 0) == (len(rows) == 1)
    assert all(torch.isfinite(parameter).all() for parameter in hooks.student.parameters())
    assert hooks.routed is None or sum(map(len, hooks.routed.paths)) == 12


RESUMED = {
    "off": {"routing": routing("off")},
    "amortised": {"routing": routing("amortised", every=3)},
    "relation": {"routing": routing("amortised", every=3, scope="relation")},
    "in_backward": {"routing": routing("in_backward")},
    "path": {"routing": routing("amortised", every=3, granularity="path")},
    "masked_grad": {"routing": routing("random", every=3, optimizer="masked_grad")},
    "per_epoch": {"bank": lambda s, f: bank_of(s, f, global_mean="per_epoch")},
    "no bank": {"bank": None},
}


@pytest.mark.parametrize("name", RESUMED)
def test_what_a_checkpoint_holds_is_enough_to_go_on_with_the_same_bits(linked, knowledge, name):
    def fresh() -> tuple[KnowledgeHooks, torch.optim.Optimizer]:
        hooks = hooks_of(feed_of(linked, knowledge), knowledge, **RESUMED[name])
        return hooks, optimizer_of(hooks)

    def go(hooks: KnowledgeHooks, optimizer: Any, steps: range) -> list[Any]:
        return [(one_step(hooks, optimizer, step, EVERY, epoch=step // 2), told(hooks)) for step in steps]

    def told(hooks: KnowledgeHooks) -> dict[str, float]:
        return {name: value for name, value in hooks.values().items() if name != "path/share_of_time"}

    hooks, optimizer = fresh()
    hooks.restore(0, {})
    go(hooks, optimizer, range(4))
    held = {name: tensor.clone() for name, tensor in hooks.tensors(4).items()}
    hooks.saved(4)
    weights, moments = copy.deepcopy(hooks.student.state_dict()), copy.deepcopy(optimizer.state_dict())
    expected = go(hooks, optimizer, range(4, 6))

    again, other = fresh()
    again.student.load_state_dict(weights)
    other.load_state_dict(moments)
    again.restore(4, held)
    assert go(again, other, range(4, 6)) == expected
    for key, value in hooks.student.state_dict().items():
        assert torch.equal(value, again.student.state_dict()[key]), key
    ours, theirs = hooks.tensors(6), again.tensors(6)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_without_injection_nothing_is_injected_and_the_knowledge_loss_stays(linked, knowledge):
    hooks = hooks_of(feed_of(linked, knowledge), knowledge, inject=replace(INJECT, enabled=False), bank=None)
    feed = feed_of(linked, knowledge, inject=replace(INJECT, enabled=False))
    hooks.feed = feed
    losses = one_step(hooks, optimizer_of(hooks), 0, EVERY)
    assert hooks.student.injection is None and losses["knowledge"] > 0
