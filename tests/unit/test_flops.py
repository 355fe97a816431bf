"""Counted operations against what torch itself counts, and against the table of the facts sheet."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertForMaskedLM

from kbench.backbones.masked_lm import logits_at
from kbench.methods.attribution import attribute
from kbench.methods.flops import Attribution, Shape, Trained, attribution_flops, rows, step_flops
from kbench.methods.routed import install

BASE = Shape(12, 768, 3072)
TINY = Shape(4, 16, 40, 50)
BATCH, LENGTH = 3, 8
WHERE = torch.tensor([1, 9, 17, 20, 22])


def tiny() -> Any:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=40,
        max_position_embeddings=16, attn_implementation="eager", tie_word_embeddings=False,
    )  # fmt: skip
    return BertForMaskedLM(config).train()


def inputs(copies: int = 1) -> dict[str, torch.Tensor]:
    ids = torch.arange(5, 5 + BATCH * LENGTH).view(BATCH, LENGTH).repeat(copies, 1)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def counted(model: Any) -> int:
    with FlopCounterMode(display=False) as counter:
        logits_at(model, inputs(), WHERE).sum().backward()
    return counter.get_total_flops()


def test_a_dense_step_is_what_torch_counts():
    assert counted(tiny()) == step_flops(TINY, BATCH, LENGTH, len(WHERE))


@pytest.mark.parametrize("transform", [True, False])
@pytest.mark.parametrize("below", [True, False])
@pytest.mark.parametrize("attention", [True, False])
def test_a_routed_step_is_what_torch_counts(transform, below, attention):
    neurons = [0, 3, 0, 7]
    model = tiny()
    model.requires_grad_(False)
    model.cls.predictions.transform.requires_grad_(transform)
    model.get_input_embeddings().requires_grad_(below)
    for layer in model.bert.encoder.layer:
        layer.attention.requires_grad_(attention)
    routed = install(model, range(4))
    routed.set_paths([torch.arange(count) for count in neurons])
    trained = Trained(neurons, attention=attention, below=below, transform=transform, decoder=False)
    assert counted(model) == step_flops(TINY, BATCH, LENGTH, len(WHERE), trained)


@pytest.mark.parametrize("attention", [True, False])
def test_a_step_with_a_cut_and_a_literal_path_is_what_torch_counts(attention):
    neurons, wide, out = [0, 0, 5, 7], [0, 0, 3, 4], [0, 0, 2, 9]
    model = tiny()
    model.requires_grad_(False)
    for layer in model.bert.encoder.layer[2:]:
        layer.attention.requires_grad_(attention)
    routed = install(model, [2, 3], "path")
    routed.set_paths(*([torch.arange(count) for count in side[2:]] for side in (neurons, wide, out)))
    routed.cut(2)
    trained = Trained(neurons, wide, out, attention=attention, transform=False, decoder=False, cut=2)
    assert counted(model) == step_flops(TINY, BATCH, LENGTH, len(WHERE), trained)


def test_a_step_that_trains_the_head_alone_is_what_torch_counts():
    model = tiny()
    model.requires_grad_(False)
    model.cls.predictions.decoder.requires_grad_(True)
    nothing = Trained([0] * 4, attention=False, below=False, transform=False)
    assert counted(model) == step_flops(TINY, BATCH, LENGTH, len(WHERE), nothing)


@pytest.mark.parametrize("layers", [[0, 1, 2, 3], [2, 3], [1]])
@pytest.mark.parametrize("scaling", ["per_layer", "joint"])
@pytest.mark.parametrize(("steps", "rule"), [(1, "right"), (1, "midpoint"), (3, "right")])
@pytest.mark.parametrize("sites", ["row", "path"])
def test_an_attribution_is_what_torch_counts(layers, scaling, steps, rule, sites):
    model = tiny()
    positions = torch.zeros(BATCH, LENGTH, dtype=torch.bool)
    positions[:, 2:4] = True

    def forward(copies: int = 1) -> torch.Tensor:
        return model.bert(**inputs(copies)).last_hidden_state.tanh().mean((1, 2))

    with FlopCounterMode(display=False) as counter:
        attribute(
            forward, model, layers, steps=steps, positions=positions, rule=rule, scaling=scaling, sites=sites,
            together=2,
        )  # fmt: skip
    scored = ("neurons",) if sites == "row" else ("inputs", "neurons", "outputs")
    plan = Attribution(layers, steps, scaling, rule, scored)
    assert counter.get_total_flops() == attribution_flops(TINY, BATCH, LENGTH, plan)


ALL, UPPER, TOP = range(12), range(6, 12), range(8, 12)


@pytest.mark.parametrize(
    ("rho", "layers", "cut", "units"),
    [
        (1.0, ALL, 0, 0.89),
        (0.2, ALL, 0, 0.72),
        (0.1, ALL, 0, 0.70),
        (0.02, ALL, 0, 0.68),
        (0.1, UPPER, 6, 0.50),
        (0.1, TOP, 8, 0.44),
    ],
)
def test_the_table_of_training_steps(rho, layers, cut, units):
    """In units of a dense step, printed to two decimals; the encoder alone."""
    trained = Trained(rows(BASE, rho, layers), attention=False, cut=cut)
    found = step_flops(BASE, 1, 128, 0, trained) / step_flops(BASE, 1, 128)
    assert found == pytest.approx(units, abs=0.005)


@pytest.mark.parametrize(
    ("layers", "scaling", "steps", "units", "tolerance"),
    [
        (ALL, "per_layer", 20, 79, 0.01),
        (ALL, "joint", 20, 13.5, 0.01),
        (TOP, "per_layer", 20, 8.6, 0.01),
        # the table's is two thirds of a step; the gradient need not go below the first layer's neurons
        (ALL, "per_layer", 1, 0.67, 0.025),
    ],
)
def test_the_table_of_attributions(layers, scaling, steps, units, tolerance):
    plan = Attribution(layers, steps, scaling)
    found = attribution_flops(BASE, 1, 128, plan) / step_flops(BASE, 1, 128)
    assert found == pytest.approx(units, rel=tolerance)


def test_amortised_overhead():
    """n_a C / (B N): 3.4 % joint and 20 % per layer at B 32, n_a 4, N 50."""
    step = 32 * 50 * step_flops(BASE, 1, 128)
    for scaling, share in (("joint", 0.034), ("per_layer", 0.20)):
        found = attribution_flops(BASE, 4, 128, Attribution(ALL, scaling=scaling)) / step
        assert found == pytest.approx(share, rel=0.02)


def test_decoding_is_counted_for_every_pass():
    plain, added = (
        attribution_flops(BASE, 2, 128, Attribution([3, 4], steps=5, decoding=decoding)) for decoding in (0.0, 10.0)
    )
    assert added - plain == 2 * 2 * 5 * 2 * 10


def test_neurons_are_one_number_a_layer():
    with pytest.raises(ValueError, match=r"^neurons are one number a layer, 12, are 2$"):
        step_flops(BASE, 1, 128, 0, Trained([1, 2]))
