"""Routed feed-forward networks against ordinary autograd and optimisers, on small models of transformers."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import BertConfig, BertForMaskedLM, RobertaConfig, RobertaForMaskedLM

from kbench.backbones.masked_lm import logits_at
from kbench.errors import BackboneError
from kbench.methods.routed import Routed, install

LAYERS, WIDTH, INNER, VOCABULARY = 3, 16, 24, 60
LR, BETAS, EPS, DECAY = 0.01, (0.9, 0.98), 1e-6, 0.1
ROUTED = [1, 2]
KINDS = {"bert": (BertConfig, BertForMaskedLM), "roberta": (RobertaConfig, RobertaForMaskedLM)}
NAMES = {"w1": "intermediate.dense.weight", "b1": "intermediate.dense.bias"}
NAMES |= {"w2": "output.dense.weight", "b2": "output.dense.bias"}


def small(kind: str = "bert", dropout: float = 0.0, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    config, model = KINDS[kind]
    made = model(
        config(
            vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=2,
            intermediate_size=INNER, max_position_embeddings=32, pad_token_id=1, hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout, initializer_range=0.3, type_vocab_size=1,
        )
    )  # fmt: skip
    for parameter in made.parameters():
        if parameter.ndim == 1:  # a bias of 0 hides what is wrong with it
            parameter.data += 0.1 * torch.randn_like(parameter)
    return made.train()


def batch(seed: int, rows: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, VOCABULARY, (rows, 7), generator=generator)
    mask = torch.ones_like(ids)
    mask[-1, 5:] = 0
    where = torch.arange(0, rows * 7 - 2, 3)
    return {"input_ids": ids.where(mask == 1, 1), "attention_mask": mask, "where": where}


def loss_of(model: Any, given: Mapping[str, Tensor]) -> Tensor:
    inputs = {name: given[name] for name in ("input_ids", "attention_mask")}
    labels = given["input_ids"].flatten()[given["where"]]
    return cross_entropy(logits_at(model, inputs, given["where"]).float(), labels.roll(1))


def path(seed: int, width: int = INNER, share: float = 0.4, layers: int = len(ROUTED)) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randperm(width, generator=generator)[: int(share * width)] for _ in range(layers)]


def paths(granularity: str, seed: int) -> list[list[Tensor]]:
    if granularity == "row":
        return [path(seed)]
    return [path(seed), path(seed + 1, WIDTH), path(seed + 2, WIDTH)]


def weight(model: Any, layer: int, name: str) -> Tensor:
    return model.base_model.encoder.layer[layer].get_parameter(NAMES[name])


def on_path(name: str, neurons: Tensor, inputs: Tensor | None = None, outputs: Tensor | None = None) -> Tensor:
    """Which elements of a weight belong to a path, one by one."""
    i = range(WIDTH) if inputs is None else inputs.tolist()
    k = range(WIDTH) if outputs is None else outputs.tolist()
    shapes = {"w1": (INNER, WIDTH), "b1": (INNER,), "w2": (WIDTH, INNER), "b2": (WIDTH,)}
    found = torch.zeros(shapes[name], dtype=torch.bool)
    for j in neurons.tolist():
        for a in i if name == "w1" else k if name == "w2" else [0]:
            found[(j, a) if name == "w1" else (a, j) if name == "w2" else (j,) if name == "b1" else (0,)] |= (
                name != "b2"
            )
    if name == "b2" and outputs is not None:
        found[outputs] = True
    return found


def freeze_but_ffn(model: Any) -> list[Tensor]:
    """Train the feed-forward weights of the routed layers by ordinary autograd."""
    model.requires_grad_(False)
    found = [weight(model, layer, name) for layer in ROUTED for name in NAMES]
    for one in found:
        one.requires_grad_(True)
    return found


def stepped(routed: Routed, model: Any, *seeds: int) -> None:
    for seed in seeds:
        loss_of(model, batch(seed)).backward()
    routed.step(LR, BETAS, EPS, DECAY)
    routed.zero()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("granularity", ["row", "path"])
@pytest.mark.parametrize("impl", ["sparse", "mask"])
def test_gradients_are_those_of_ordinary_autograd_on_the_path(kind, granularity, impl):
    model = small(kind)
    other = copy.deepcopy(model)
    routed = install(model, ROUTED, granularity, impl)
    given = paths(granularity, 5)
    routed.set_paths(*given)
    names = set(model.state_dict())
    expected, found = loss_of(other, batch(1)), loss_of(model, batch(1))
    assert torch.equal(expected, found) and names == set(other.state_dict())
    expected.backward()
    found.backward()
    loss_of(other, batch(2)).backward()
    loss_of(model, batch(2)).backward()  # a second micro batch adds to it
    squares = 0.0
    for place, layer in enumerate(ROUTED):
        for name in NAMES:
            assert weight(model, layer, name).grad is None and not weight(model, layer, name).requires_grad
            mask = on_path(name, *(side[place] for side in given))
            squares += float((weight(other, layer, name).grad * mask).square().sum())
            block = dict(routed._blocks()).get(f"{layer}.{name}")
            assert (block is None) == (name == "b2" and granularity == "row")
            if block is not None and impl == "sparse":
                expected = weight(other, layer, name).grad[mask]
                torch.testing.assert_close(block.leaf.grad.flatten(), expected, rtol=1e-5, atol=1e-7)
    norm = torch.nn.utils.clip_grad_norm_(routed.gradients(), 1e9)
    assert float(norm) == pytest.approx(squares**0.5, rel=1e-5)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:  # everything else learns as ever
            torch.testing.assert_close(parameter.grad, other.get_parameter(name).grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("granularity", ["row", "path"])
def test_weights_beside_the_path_keep_their_bits(granularity):
    model = small()
    routed = install(model, ROUTED, granularity)
    for turn in range(3):
        given = paths(granularity, turn * 10)
        routed.set_paths(*given)
        for step in range(2):  # the second has moments of the first, and all have decay
            before = {(layer, name): weight(model, layer, name).clone() for layer in range(LAYERS) for name in NAMES}
            stepped(routed, model, turn * 2 + step)
            for (layer, name), old in before.items():
                new = weight(model, layer, name)
                mask = torch.zeros_like(new, dtype=torch.bool)
                if layer in ROUTED:
                    mask = on_path(name, *(side[ROUTED.index(layer)] for side in given))
                assert torch.equal(new[~mask], old[~mask])
                assert (new[mask] != old[mask]).all()


def test_a_path_of_everything_is_dense_adamw():
    model = small("roberta")
    other = copy.deepcopy(model)
    trained = freeze_but_ffn(other)
    groups = [{"params": [p for p in trained if p.ndim > 1]}]
    groups += [{"params": [p for p in trained if p.ndim == 1], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=BETAS, eps=EPS, weight_decay=DECAY)
    routed = install(model, ROUTED, "path")
    everything = [[torch.arange(size)] * 2 for size in (INNER, WIDTH, WIDTH)]
    routed.set_paths(*everything)
    for step in range(5):
        loss_of(other, batch(step)).backward()
        optimizer.step()
        optimizer.zero_grad()
        stepped(routed, model, step)
    for layer in ROUTED:
        for name in NAMES:
            torch.testing.assert_close(weight(model, layer, name), weight(other, layer, name), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("granularity", ["row", "path"])
@pytest.mark.parametrize("optimizer", ["row_sparse", "masked_grad"])
def test_the_slow_twin_takes_the_same_steps(granularity, optimizer):
    models = {"sparse": small(), "mask": small()}
    routes = {impl: install(model, ROUTED, granularity, impl, optimizer) for impl, model in models.items()}
    for turn in range(4):
        given = paths(granularity, turn)
        for impl, routed in routes.items():
            routed.set_paths(*given)
            stepped(routed, models[impl], turn, turn + 50)
    for layer in ROUTED:
        for name in NAMES:
            one, two = (weight(model, layer, name) for model in models.values())
            torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)
            moved = not torch.equal(one, weight(small(), layer, name))
            assert moved == (name != "b2" or granularity == "path")


def test_every_row_has_steps_of_its_own():
    """Against AdamW of one element at a time, whose step count is the number of its own updates."""
    model = small()
    other = copy.deepcopy(model)
    freeze_but_ffn(other)
    routed = install(model, ROUTED, "path")
    states: dict[tuple[int, str, tuple[int, ...]], list[float]] = {}
    for turn in range(4):
        given = paths("path", turn)
        routed.set_paths(*given)
        other.zero_grad()
        loss_of(other, batch(turn)).backward()
        stepped(routed, model, turn)
        for place, layer in enumerate(ROUTED):
            for name in NAMES:
                tensor, gradient = weight(other, layer, name).data, weight(other, layer, name).grad
                for at in map(tuple, on_path(name, *(side[place] for side in given)).nonzero().tolist()):
                    m, v, t = states.setdefault((layer, name, at), [0.0, 0.0, 0])
                    g, w = float(gradient[at]), float(tensor[at])
                    m, v, t = BETAS[0] * m + (1 - BETAS[0]) * g, BETAS[1] * v + (1 - BETAS[1]) * g * g, t + 1
                    states[layer, name, at] = [m, v, t]
                    w *= 1 - LR * DECAY * (tensor.ndim > 1)
                    mean, root = m / (1 - BETAS[0] ** t), (v / (1 - BETAS[1] ** t)) ** 0.5
                    tensor[at] = w - LR * mean / (root + EPS)
    assert len({state[2] for state in states.values()}) > 2
    for layer in ROUTED:
        for name in NAMES:
            torch.testing.assert_close(weight(model, layer, name), weight(other, layer, name), rtol=0, atol=LR / 200)


def test_masked_grad_is_adamw_with_gradients_of_zero_beside_the_path():
    model = small()
    other = copy.deepcopy(model)
    trained = freeze_but_ffn(other)
    # the output's bias is on no path of rows: its gradient is always 0
    groups = [{"params": [p for p in trained if p.ndim > 1]}]
    groups += [{"params": [p for p in trained if p.ndim == 1], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=BETAS, eps=EPS, weight_decay=DECAY)
    routed = install(model, ROUTED, optimizer="masked_grad")
    for turn in range(4):
        given = path(turn)
        if turn == 2:
            given[0] = given[0][:0]  # a layer without a path: its old moments go on
        routed.set_paths(given)
        stepped(routed, model, turn)
        loss_of(other, batch(turn)).backward()
        for place, layer in enumerate(ROUTED):
            for name in NAMES:
                weight(other, layer, name).grad *= on_path(name, given[place])
        optimizer.step()
        optimizer.zero_grad()
    for layer in ROUTED:
        for name in NAMES:
            torch.testing.assert_close(weight(model, layer, name), weight(other, layer, name), rtol=1e-5, atol=1e-6)


def test_a_layer_without_a_path_is_frozen_and_needs_no_backward():
    model = small()
    model.requires_grad_(False)
    routed = install(model, [0, 1, 2])
    assert not loss_of(model, batch(0)).requires_grad
    routed.set_paths([torch.tensor([], dtype=torch.int64), *path(1)])
    assert len(routed.gradients()) == 6  # two matrices and a bias of two layers
    before = weight(model, 0, "w1").clone()
    stepped(routed, model, 0)
    assert torch.equal(before, weight(model, 0, "w1"))
    with torch.no_grad():
        assert not loss_of(model, batch(0)).requires_grad


def test_reduce_averages_over_processes_in_one_buffer():
    models = [small(), small()]
    routes = [install(model, ROUTED) for model in models]
    buffers: list[Tensor] = []
    for process, (routed, model) in enumerate(zip(routes, models, strict=True)):
        routed.set_paths(path(3))
        loss_of(model, batch(process)).backward()
    alone = [[leaf.grad.clone() for leaf in routed.gradients()] for routed in routes]
    for routed in routes:
        routed.reduce(lambda flat: buffers.append(flat) or flat)
    assert len(buffers) == 2 and buffers[0].ndim == 1
    for routed in routes:
        routed.reduce(lambda flat: (buffers[0] + buffers[1]) / 2)
    for routed in routes:
        for leaf, one, two in zip(routed.gradients(), *alone, strict=True):
            torch.testing.assert_close(leaf.grad, (one + two) / 2)
    # a process whose rows have no gradient takes part with zeros
    routes[0].zero()
    routes[0].reduce(lambda flat: flat + 1)
    assert all(bool((leaf.grad == 1).all()) for leaf in routes[0].gradients())


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_leaves_the_path_its_gradients_and_the_rest_none(kind):
    found = []
    for layer in (0, 1):
        model = small(kind)
        model.requires_grad_(False)
        routed = install(model, ROUTED)
        routed.set_paths(path(3))
        routed.cut(layer)
        assert routed.cut_at == layer
        given = batch(1)
        embedded = model.get_input_embeddings()(given["input_ids"]).detach().requires_grad_()
        states = model.base_model(inputs_embeds=embedded, attention_mask=given["attention_mask"]).last_hidden_state
        states.square().sum().backward()
        assert (embedded.grad is None) == (layer == 1)
        found.append([leaf.grad for leaf in routed.gradients()])
    for one, two in zip(*found, strict=True):
        assert torch.equal(one, two)
    routed.cut(0)
    assert routed.cut_at == 0
    routed.remove()
    plain = small(kind)
    assert all("forward" not in vars(module) for module in model.modules())
    assert torch.equal(loss_of(model, batch(1)), loss_of(plain, batch(1)))


def test_a_cut_below_which_something_is_trained_is_refused():
    model = small()
    routed = install(model, ROUTED)
    with pytest.raises(ValueError, match=r"^embeddings is trained: the gradient cannot be cut below layer 1$"):
        routed.cut(1)
    model.requires_grad_(False)
    with pytest.raises(ValueError, match=r"^layer 1 is routed: the gradient cannot be cut below layer 2$"):
        routed.cut(2)


def watched(model: Any, given: Mapping[str, Tensor]) -> dict[tuple[int, str], Tensor]:
    """Value times gradient of the loss at every site of the routed layers, by hooks on an ordinary model."""
    values: dict[tuple[int, str], Tensor] = {}
    hooks = []
    for layer in ROUTED:
        ffn = model.base_model.encoder.layer[layer]

        def enters(module, inputs, layer=layer):
            values[layer, "inputs"] = inputs[0].view_as(inputs[0])
            return (values[layer, "inputs"],)

        def leaves(module, inputs, output, layer=layer, side="neurons"):
            values[layer, side] = output

        hooks.append(ffn.intermediate.register_forward_pre_hook(enters))
        hooks.append(ffn.intermediate.register_forward_hook(leaves))
        hooks.append(
            ffn.output.dense.register_forward_hook(lambda m, i, o, layer=layer: leaves(m, i, o, layer, "outputs"))
        )
    loss = loss_of(model, given)
    gradients = torch.autograd.grad(loss, list(values.values()))
    for hook in hooks:
        hook.remove()
    return {key: (v * g).detach() for (key, v), g in zip(values.items(), gradients, strict=True)}


def naive_choice(products: Tensor, positions: Tensor, count: int) -> list[int]:
    scores = [0.0] * products.shape[-1]
    for row, places in zip(products, positions, strict=True):
        for i in range(len(scores)):
            scores[i] += max(0.0, -float(sum(row[p, i] for p in range(len(row)) if places[p])))
    return sorted(sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:count])


@pytest.mark.parametrize("granularity", ["row", "path"])
@pytest.mark.parametrize("mentions", [True, False])
def test_the_first_backward_of_a_step_chooses_and_the_others_go_along(granularity, mentions):
    model = small("roberta")
    other = copy.deepcopy(model)
    routed = install(model, ROUTED, granularity)
    positions = torch.zeros(3, 7, dtype=torch.bool)
    if mentions:
        positions[0, 2:4] = positions[2, 1] = True
    judged = positions if mentions else torch.ones_like(positions)
    seen = []
    for first in (10, 20):
        expected = watched(other, batch(first))
        for seed in (first, first + 1):
            routed.choose_in_backward(positions, rho=0.25)
            loss_of(model, batch(seed)).backward()
        for layer, ffn in zip(ROUTED, routed._ffns, strict=True):
            assert ffn.neurons.tolist() == naive_choice(expected[layer, "neurons"], judged, 6)
            if granularity == "path":
                assert ffn.inputs.tolist() == naive_choice(expected[layer, "inputs"], judged, 8)
                assert ffn.outputs.tolist() == naive_choice(expected[layer, "outputs"], judged, 8)
        seen.append([one.tolist() for one in routed.paths])
        # the gradient is that of both micro batches, on the path that the first one chose
        other.zero_grad()
        loss_of(other, batch(first)).backward()
        loss_of(other, batch(first + 1)).backward()
        for layer, ffn in zip(ROUTED, routed._ffns, strict=True):
            sides = (ffn.inputs, ffn.outputs) if granularity == "path" else ()
            for name, block in ffn.blocks.items():
                grad = weight(other, layer, name).grad[on_path(name, ffn.neurons, *sides)]
                torch.testing.assert_close(block.leaf.grad.flatten(), grad, rtol=1e-5, atol=1e-7)
        routed.zero()
    assert seen[0] != seen[1]


def test_the_moments_continue_bit_for_bit_from_what_was_stored():
    def train(stop: int | None) -> tuple[Any, Routed]:
        model = small()
        routed = install(model, ROUTED, "path")
        for turn in range(6):
            if turn == stop:
                weights = copy.deepcopy(model.state_dict())
                tensors = {name: value.clone() for name, value in routed.tensors().items()}
                model = small(seed=1)
                model.load_state_dict(weights)
                routed = install(model, ROUTED, "path")
                routed.restore(tensors)
            if turn % 2 == 0:
                routed.set_paths(*paths("path", turn))
            stepped(routed, model, turn)
        return model, routed

    model, routed = train(None)
    for stop in (3, 4):
        other, again = train(stop)
        assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())
        assert set(routed.tensors()) == set(again.tensors())
        assert all(torch.equal(value, again.tensors()[name]) for name, value in routed.tensors().items())


def test_a_state_of_other_layers_is_refused():
    routed = install(small(), ROUTED)
    stored = install(small(), [0, 2]).tensors()
    with pytest.raises(ValueError, match="other layers or another granularity"):
        routed.restore(stored)
    with pytest.raises(ValueError, match="other layers or another granularity"):
        routed.restore(install(small(), ROUTED, "path").tensors())


@pytest.mark.parametrize("impl", ["sparse", "mask"])
def test_mixed_precision_gives_gradients_in_float32(impl):
    model = small()
    other = copy.deepcopy(model)
    routed = install(model, ROUTED, impl=impl)
    routed.set_paths([torch.arange(INNER)] * 2)
    for one in (model, other):
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(one, batch(1))
        loss.backward()
    for layer in ROUTED:
        for name in ("w1", "b1", "w2"):
            found = dict(routed._blocks())[f"{layer}.{name}"].leaf.grad
            assert found.dtype == torch.float32
            expected = weight(other, layer, name).grad
            assert float((found - expected).norm()) <= 0.02 * float(expected.norm())


def test_what_is_saved_is_a_plain_checkpoint(tmp_path):
    model = small("roberta")
    routed = install(model, ROUTED)
    routed.set_paths(path(0))
    stepped(routed, model, 0)
    model.save_pretrained(tmp_path)
    again, notes = RobertaForMaskedLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not notes["missing_keys"] and not notes["unexpected_keys"]
    assert torch.equal(loss_of(again.train(), batch(3)), loss_of(model, batch(3)))


def test_bad_input_is_refused():
    model = small()
    with pytest.raises(BackboneError, match=r"Linear has no encoder whose layers have intermediate.dense"):
        install(torch.nn.Linear(2, 2), [0])
    with pytest.raises(ValueError, match=r"^layers are 0 to 2, are \[3\]$"):
        install(model, [3])
    with pytest.raises(ValueError, match=r"^granularity is one of row, path, is rows$"):
        install(model, ROUTED, "rows")
    routed = install(model, ROUTED)
    with pytest.raises(ValueError, match=r"^the model is routed already$"):
        install(model, ROUTED)
    with pytest.raises(ValueError, match=r"^one index for each of 2 layers, are \[1, 1, 1\]$"):
        routed.set_paths(path(0)[:1])
    for wrong in ([0, 0], [INNER], [-1]):
        with pytest.raises(ValueError, match=r"^a path names each of 0 to 23 at most once$"):
            routed.set_paths([torch.tensor([0]), torch.tensor(wrong)])
    with pytest.raises(ValueError, match=r"^inputs and outputs go with granularity path"):
        routed.set_paths(*paths("path", 0))
    routed.set_paths(path(0))
    loss_of(model, batch(0)).backward()
    with pytest.raises(ValueError, match=r"^the last path has gradients"):
        routed.set_paths(path(1))
    with pytest.raises(ValueError, match=r"^impl mask cannot choose inside a backward"):
        install(small(), ROUTED, impl="mask").choose_in_backward(torch.ones(3, 7, dtype=torch.bool), 0.1)
