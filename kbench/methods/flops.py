"""What a training step and an attribution cost, counted by formula: floating point operations of matrix products.

A multiply-add is two operations; norms, softmax, gathers and the optimiser are not counted, real devices pay for them.
A token costs a layer of width d, inner width f and L tokens: 4 d^2 (projections) + 2 L d (attention) + 2 d f forward,
the same for the gradient of its input but 4 L d for attention, whose operands both have one, and 4 d^2 + 2 d f for the
gradients of its weights. Equals `torch.utils.flop_counter` on transformers' BERT with eager attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Shape:
    """An encoder's dimensions: `layers`, `width` d, `inner` f, and `vocabulary` of its masked-LM head."""

    layers: int
    width: int
    inner: int
    vocabulary: int = 0


@dataclass(frozen=True)
class Trained:
    """What of a model a step trains.

    Attributes:
        neurons: |J| of each layer; None: the feed-forward networks whole.
        inputs: |I| of each layer; None: all inputs of a neuron.
        outputs: |K| of each layer; None: all outputs of a neuron.
        attention: the projections of attention, in the layers from `cut` on.
        below: something before the first layer, embeddings or what is injected: the gradient must reach it.
        transform: the head's first matrix.
        decoder: its second, the embeddings'.
        cut: the layer at whose input the gradient stops; 0: nowhere.
    """

    neurons: Sequence[int] | None = None
    inputs: Sequence[int] | None = None
    outputs: Sequence[int] | None = None
    attention: bool = True
    below: bool = True
    transform: bool = True
    decoder: bool = True
    cut: int = 0


@dataclass(frozen=True)
class Attribution:
    """How paths are found: `attribution.attribute`'s options.

    Attributes:
        layers: that are scored.
        steps: m.
        scaling: per_layer or joint.
        rule: right, left or midpoint.
        sites: neurons, and with the literal path inputs and outputs.
        decoding: multiply-adds a sequence from the last states to its probability, gradient included.
    """

    layers: Sequence[int]
    steps: int = 20
    scaling: str = "per_layer"
    rule: str = "right"
    sites: Sequence[str] = field(default=("neurons",))
    decoding: float = 0.0


DENSE = Trained()


def step_flops(shape: Shape, batch: int, length: int, head_rows: int = 0, trained: Trained = DENSE) -> float:
    """Operations of forward and backward of a step of masked-LM training.

    Args:
        shape: of the model.
        batch: sequences.
        length: tokens of each, padding included.
        head_rows: tokens of the batch whose logits are computed.
        trained: what gets gradients.
    """
    d, f = shape.width, shape.inner
    neurons = [f] * shape.layers if trained.neurons is None else list(trained.neurons)
    if len(neurons) != shape.layers:
        raise ValueError(f"neurons are one number a layer, {shape.layers}, are {len(neurons)}")
    first = _first(shape, trained, neurons)
    tokens = 0.0
    for layer in range(shape.layers):
        tokens += _forward(shape, length)
        if layer < first:
            continue
        # the gradient goes on below this layer
        onwards = layer > first or (trained.below and not trained.cut)
        attention = trained.attention and layer >= trained.cut
        tokens += d * f  # of the neurons
        if onwards or attention:
            tokens += d * f + d * d + 4 * length * d  # of the network's input, attention's output and its operands
        if onwards:
            tokens += 3 * d * d
        if attention:
            tokens += 4 * d * d
        own = neurons[layer]
        tokens += own * (d if trained.inputs is None else trained.inputs[layer])
        tokens += own * (d if trained.outputs is None else trained.outputs[layer])
    head = d * d + d * shape.vocabulary
    through = head if first < shape.layers else d * shape.vocabulary * trained.transform
    weights = d * d * trained.transform + d * shape.vocabulary * trained.decoder
    return 2 * (batch * length * tokens + head_rows * (head + through + weights))


def attribution_flops(shape: Shape, sequences: int, length: int, plan: Attribution) -> float:
    """Operations of scoring some sequences, each of `length` tokens."""
    d, f = shape.width, shape.inner
    whole = _forward(shape, length)
    both = whole + 4 * d * d + 4 * length * d + 2 * d * f  # forward, and the gradient of its input
    below_site = {"inputs": 0, "neurons": 1, "outputs": 2}  # matrices of the network that stand before it
    scored = list(plan.layers)
    points = plan.steps
    once = plan.steps == 1 and plan.rule == "right" and plan.scaling == "per_layer"
    tokens, passes = (0.0, 0) if once else (shape.layers * whole, 0)
    for site in plan.sites:
        rest = (2 - below_site[site]) * d * f
        if once:
            tokens += shape.layers * whole + (shape.layers - 1 - min(scored)) * (both - whole) + rest
            passes += 1
        elif plan.scaling == "joint" and len(scored) > 1:
            above = shape.layers - 1 - min(scored)
            tokens += points * (whole + rest + above * both)
            passes += points
        else:
            tokens += points * sum(2 * rest + (shape.layers - 1 - layer) * both for layer in scored)
            passes += points * len(scored)
    return 2 * sequences * (length * tokens + passes * plan.decoding)


def rows(shape: Shape, rho: float, layers: Sequence[int]) -> list[int]:
    """|J| of each layer where a share of the neurons of some layers is spread evenly over them."""
    return [round(rho * shape.inner) if layer in set(layers) else 0 for layer in range(shape.layers)]


def _forward(shape: Shape, length: int) -> float:
    d = shape.width
    return 4 * d * d + 2 * length * d + 2 * d * shape.inner


def _first(shape: Shape, trained: Trained, neurons: Sequence[int]) -> int:
    """The first layer that the gradient enters; the number of layers: none."""
    if trained.cut == 0 and trained.below:
        return 0
    for layer in range(trained.cut, shape.layers):
        if trained.attention or neurons[layer]:
            return layer
    return shape.layers
