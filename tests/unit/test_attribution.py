"""Integrated gradients against a second implementation: hooks, whole passes, one sequence and one point at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from kbench.methods.attribution import RULES, attribute
from kbench.methods.routed import install
from tests.unit.test_routed import INNER, KINDS, LAYERS, WIDTH, batch, small

POSITIONS = torch.zeros(3, 7, dtype=torch.bool)
POSITIONS[0, 1:3] = POSITIONS[1, 5] = POSITIONS[2, 2:5] = True
TARGETS = torch.tensor([7, 20, 33])
OFFSETS = {"right": 1.0, "left": 0.0, "midpoint": 0.5}


def asker(model: Any, given: dict[str, Tensor]) -> Callable[..., Tensor]:
    """P of each sequence's target, of the mean state of its positions."""

    def forward(copies: int = 1) -> Tensor:
        ids, mask = (given[name].repeat(copies, 1) for name in ("input_ids", "attention_mask"))
        states = model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
        where = POSITIONS.repeat(copies, 1).float()
        means = (states * where.unsqueeze(-1)).sum(1) / where.sum(1, keepdim=True)
        logits = means @ model.get_input_embeddings().weight.T
        return (0.3 * logits).softmax(-1).gather(1, TARGETS.repeat(copies).unsqueeze(-1)).squeeze(1)

    return forward


class Naive:
    """The values of a site, read and overwritten by hooks of an untouched model."""

    def __init__(self, model: Any, forward: Callable[..., Tensor]):
        self.model, self.forward = copy.deepcopy(model).eval(), forward

    def _hook(self, site: str, layer: int, change: Callable[[Tensor], Tensor]) -> Any:
        ffn = self.model.base_model.encoder.layer[layer]
        if site == "inputs":
            return ffn.intermediate.register_forward_pre_hook(lambda m, given: (change(given[0]),))
        module = ffn.intermediate if site == "neurons" else ffn.output.dense
        return module.register_forward_hook(lambda m, given, output: change(output))

    def values(self, site: str, layers: list[int]) -> dict[int, Tensor]:
        found: dict[int, Tensor] = {}
        hooks = []
        for layer in layers:
            hooks.append(self._hook(site, layer, lambda v, layer=layer: found.setdefault(layer, v)))
        self.forward()
        for hook in hooks:
            hook.remove()
        return {layer: v.detach() for layer, v in found.items()}

    def scaled(self, site: str, values: dict[int, Tensor], scale: float, row: int) -> tuple[Tensor, dict[int, Tensor]]:
        """P [B] where one sequence's values at its positions are scaled, and the scaled values it depends on."""
        leaves: dict[int, Tensor] = {}
        hooks = []
        for layer, value in values.items():
            leaves[layer] = (value[row, POSITIONS[row]] * scale).requires_grad_()

            def change(now: Tensor, layer: int = layer) -> Tensor:
                changed = now.clone()
                changed[row, POSITIONS[row]] = leaves[layer]
                return changed

            hooks.append(self._hook(site, layer, change))
        found = self.forward()
        for hook in hooks:
            hook.remove()
        return found, leaves

    def scores(self, site: str, layers: list[int], steps: int, rule: str, scaling: str) -> Tensor:
        width = INNER if site == "neurons" else WIDTH
        found = torch.zeros(3, len(layers), width)
        values = self.values(site, layers)
        for group in [[layer] for layer in layers] if scaling == "per_layer" else [layers]:
            for row in range(3):
                for j in range(steps):
                    scale = (j + OFFSETS[rule]) / steps
                    target, leaves = self.scaled(site, {layer: values[layer] for layer in group}, scale, row)
                    for layer, g in zip(group, torch.autograd.grad(target[row], list(leaves.values())), strict=True):
                        each = values[layer][row, POSITIONS[row]] * g / steps
                        found[row, layers.index(layer)] += each.sum(0)
        return found


def pair(kind: str = "bert", dropout: float = 0.0) -> tuple[Any, Callable[..., Tensor], Naive]:
    model = small(kind, dropout)
    naive = Naive(model, None)  # type: ignore[arg-type]
    naive.forward = asker(naive.model, batch(4))
    return model, asker(model, batch(4)), naive


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scaling", ["per_layer", "joint"])
@pytest.mark.parametrize("rule", RULES)
def test_scores_are_those_of_whole_passes_one_point_at_a_time(kind, scaling, rule):
    model, forward, naive = pair(kind, dropout=0.3)
    layers = [2, 0] if rule == "left" else [1, 2]  # in the order that is asked for
    for together in (1, 2, 9):
        found = attribute(
            forward, model, layers, steps=3, positions=POSITIONS, rule=rule, scaling=scaling, together=together
        )
        assert set(found) == {"neurons"}
        expected = naive.scores("neurons", layers, 3, rule, scaling)
        assert expected.abs().max() > 1e-4
        torch.testing.assert_close(found["neurons"], expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("scaling", ["per_layer", "joint"])
@pytest.mark.parametrize("steps", [1, 2])
def test_what_enters_and_leaves_the_network_is_scored_by_the_same_formula(scaling, steps):
    model, forward, naive = pair("roberta")
    found = attribute(forward, model, [0, 2], steps=steps, positions=POSITIONS, scaling=scaling, sites="path")
    assert list(found) == ["inputs", "neurons", "outputs"]
    for site, scores in found.items():
        expected = naive.scores(site, [0, 2], steps, "right", scaling)
        torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scaling", ["per_layer", "joint"])
def test_scores_sum_to_what_the_neurons_add(kind, scaling):
    model, forward, naive = pair(kind)
    layers = list(range(LAYERS))
    scores = attribute(
        forward, model, layers, steps=400, positions=POSITIONS, rule="midpoint", scaling=scaling, together=50
    )["neurons"]
    values = naive.values("neurons", layers)
    largest = 0.0
    for group in [[layer] for layer in layers] if scaling == "per_layer" else [layers]:
        for row in range(3):
            chosen = {layer: values[layer] for layer in group}
            full, none = (naive.scaled("neurons", chosen, scale, row)[0][row].item() for scale in (1.0, 0.0))
            largest = max(largest, abs(full - none))
            assert float(scores[row, group].sum()) == pytest.approx(full - none, abs=2e-6, rel=1e-4)
    assert largest > 1e-3


def test_one_point_is_activation_times_gradient_of_one_ordinary_backward():
    model, forward, naive = pair()
    found = attribute(forward, model, [0, 1, 2], steps=1, positions=POSITIONS)["neurons"]
    values: dict[int, Tensor] = {}
    for layer in range(LAYERS):
        naive._hook("neurons", layer, lambda v, layer=layer: values.setdefault(layer, v))
    gradients = torch.autograd.grad(naive.forward().sum(), list(values.values()))
    products = torch.stack([v.detach() * g for v, g in zip(values.values(), gradients, strict=True)], 1)
    expected = (products * POSITIONS[:, None, :, None]).sum(2)
    assert torch.equal(found, expected) or torch.allclose(found, expected, rtol=1e-6, atol=1e-10)
    # the same as the passes of any other number of points
    single = torch.cat(
        [attribute(forward, model, [n], steps=1, positions=POSITIONS, scaling="joint")["neurons"] for n in range(3)], 1
    )
    torch.testing.assert_close(single, expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("scaling", ["per_layer", "joint"])
@pytest.mark.parametrize("steps", [1, 3])
def test_nothing_of_the_training_is_touched(scaling, steps):
    model, forward, naive = pair(dropout=0.5)
    model.base_model.encoder.layer[1].eval()  # a mixture of modes
    modes = [module.training for module in model.modules()]
    routed = install(model, [1, 2])
    model.requires_grad_(False)
    routed.cut(1)
    given = POSITIONS.clone()
    routed.choose_in_backward(given, 0.2)
    forward().sum().backward()
    kept = [leaf.grad.clone() for leaf in routed.gradients()]
    paths = [one.clone() for one in routed.paths]
    head = model.cls.predictions.transform
    for parameter in head.parameters():
        parameter.requires_grad_(True)
        parameter.grad = torch.ones_like(parameter)
    overrides = [dict(vars(module)).get("forward") for module in model.modules()]
    state = torch.get_rng_state()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        found = attribute(forward, model, [0, 2], steps=steps, positions=POSITIONS, scaling=scaling)["neurons"]
    assert torch.equal(state, torch.get_rng_state())
    assert modes == [module.training for module in model.modules()]
    assert overrides == [dict(vars(module)).get("forward") for module in model.modules()]
    assert all(torch.equal(a, leaf.grad) for a, leaf in zip(kept, routed.gradients(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(paths, routed.paths, strict=True))
    assert all(bool((p.grad == 1).all()) for p in head.parameters())
    assert all(p.grad is None for p in model.base_model.parameters())
    # in float32, without dropout, below the cut too
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, naive.scores("neurons", [0, 2], steps, "right", scaling), rtol=1e-4, atol=1e-7)


def test_a_choice_that_waits_for_a_backward_does_not_take_this_one():
    model, forward, _ = pair()
    routed = install(model, [1, 2])
    routed.choose_in_backward(POSITIONS, 0.2)
    attribute(forward, model, [1, 2], steps=2, positions=POSITIONS)
    assert [len(one) for one in routed.paths] == [0, 0]


def test_a_failure_leaves_the_model_as_it_was():
    model, forward, _ = pair(dropout=0.5)

    def failing(copies: int = 1) -> Tensor:
        if copies > 1:
            raise RuntimeError("out of memory")
        return forward()

    with pytest.raises(RuntimeError):
        attribute(failing, model, [1], steps=4, positions=POSITIONS, together=2)
    assert model.training and all("forward" not in vars(module) for module in model.modules())


def test_sequences_without_positions_score_nothing():
    model, forward, _ = pair()
    none = torch.zeros_like(POSITIONS)
    assert attribute(forward, model, [1], steps=2, positions=none)["neurons"].tolist() == [[[0.0] * INNER]] * 3


def test_bad_input_is_refused():
    model, forward, _ = pair()
    given: dict[str, Any] = {"steps": 2, "positions": POSITIONS}
    with pytest.raises(ValueError, match=r"^rule is one of right, left, midpoint, is both$"):
        attribute(forward, model, [0], rule="both", **given)
    with pytest.raises(ValueError, match=r"^layers are 0 to 2, are \[1, 3\]$"):
        attribute(forward, model, [1, 3], **given)
    with pytest.raises(ValueError, match=r"^steps and together are at least 1, are 0 and 1$"):
        attribute(forward, model, [1], steps=0, positions=POSITIONS)
    with pytest.raises(ValueError, match=r"^forward gives one probability a sequence, \[3\], gave \[\]$"):
        attribute(lambda: forward().sum(), model, [1], **given)
