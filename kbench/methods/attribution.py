"""Which neurons of the feed-forward networks carry a piece of knowledge: integrated gradients (TRELM, section 3.4).

    Attr_i = v_i / m * sum over points a of dP/dv_i at a * v,      a = 1/m, 2/m .. 1 (Dai et al., arXiv 2104.08696)

v is the output of a network's activation at some positions, P a probability, the baseline 0. The scores of the scaled
neurons sum to P(1) - P(0) as m grows. `per_layer` scales one layer at a time, as Dai et al. do; `joint` all at once,
several times cheaper and not the same number. What stands below the scaled layer is computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from kbench.methods.routed_ffn import encoder_layers, paused

RULES = ("right", "left", "midpoint")
SCALINGS = ("per_layer", "joint")
# what is scored, and by which name
SITES = {"row": ("neurons",), "path": ("inputs", "neurons", "outputs")}


def attribute(
    forward: Callable[..., Tensor],
    model: Any,
    layers: Sequence[int],
    *,
    steps: int,
    positions: Tensor,
    rule: str = "right",
    scaling: str = "per_layer",
    sites: str = "row",
    together: int = 1,
) -> dict[str, Tensor]:
    """How much each neuron adds to the probability of each sequence's target.

    The model is in eval mode meanwhile, in full precision, without routes or cut; gradients of its parameters, its
    modes and all random states are afterwards what they were.

    Args:
        forward: runs the model on B sequences and gives P [B], each of its own sequence alone. Where several points
            are taken together it is called with `copies=c`, runs c copies of the B, one copy after another, and gives
            P [c * B].
        model: of transformers, the one that `forward` runs.
        layers: numbers of the layers that are scored.
        steps: m, points.
        positions: which tokens are scaled together [B, L], bool.
        rule: where the points are: right j/m, left (j-1)/m, midpoint (j-1/2)/m; j = 1..m.
        scaling: per_layer or joint.
        sites: row: the neurons; path: what goes into the network and comes out of it as well, each scaled on its own.
        together: points in one pass; memory grows with it.

    Returns:
        `neurons` [B, layers, inner width], and with path `inputs` and `outputs` [B, layers, width], float32, summed
        over a sequence's positions.

    Raises:
        ValueError: an option or layer that does not exist.
    """
    for name, value, known in (("rule", rule, RULES), ("scaling", scaling, SCALINGS), ("sites", sites, tuple(SITES))):
        if value not in known:
            raise ValueError(f"{name} is one of {', '.join(known)}, is {value}")
    found = encoder_layers(model)
    if not layers or not 0 <= min(layers) <= max(layers) < len(found):
        raise ValueError(f"layers are 0 to {len(found) - 1}, are {list(layers)}")
    if steps < 1 or together < 1:
        raise ValueError(f"steps and together are at least 1, are {steps} and {together}")
    device = positions.device
    with _as_it_is(model), paused(), torch.enable_grad(), torch.autocast(device.type, enabled=False):
        run = _Run(forward, found, list(layers), positions)
        points = [(j + {"right": 1.0, "left": 0.0, "midpoint": 0.5}[rule]) / steps for j in range(steps)]
        scores = {}
        for site in SITES[sites]:
            if points == [1.0] and scaling == "per_layer":
                scores[site] = run.once(site)
                continue
            groups = [[number] for number in layers] if scaling == "per_layer" else [list(layers)]
            parts = [run.integrated(site, group, points, together) for group in groups]
            scores[site] = torch.cat(parts, 1)
    return scores


class _Run:
    """A batch whose values at every scored layer are known, and passes in which some of them are scaled.

    Attributes:
        values: site -> layer -> its values [B, L, .].
    """

    def __init__(self, forward: Callable[..., Tensor], layers: Sequence[Any], scored: list[int], positions: Tensor):
        self.forward, self.layers, self.scored = forward, layers, scored
        self.rows, self.columns = positions.nonzero(as_tuple=True)
        self.batch = len(positions)
        self.values: dict[str, dict[int, Tensor]] = {}
        self.attended: dict[int, Tensor] = {}
        self.states: dict[int, Tensor] = {}

    def integrated(self, site: str, group: list[int], points: Sequence[float], together: int) -> Tensor:
        """Scores [B, len(group), width] of the layers that are scaled at once."""
        if not self.values:
            with torch.no_grad():
                self._base()
        actual = [self.values[site][number][self.rows, self.columns] for number in group]
        sums = [torch.zeros_like(one) for one in actual]
        for start in range(0, len(points), together):
            some = points[start : start + together]
            scale = torch.tensor(some, device=actual[0].device).view(-1, 1, 1)
            leaves = [(scale * one).flatten(0, 1).requires_grad_() for one in actual]
            with ExitStack() as stack:
                self._replay(stack, min(group), len(some))
                for number, leaf in zip(group, leaves, strict=True):
                    self._scale(stack, site, number, leaf, len(some), alone=len(group) == 1)
                gradients = torch.autograd.grad(self._target(len(some)), leaves)
            for total, gradient in zip(sums, gradients, strict=True):
                total += gradient.unflatten(0, (len(some), -1)).sum(0)
        return self._collected([v * total / len(points) for v, total in zip(actual, sums, strict=True)])

    def once(self, site: str) -> Tensor:
        """Activation times gradient [B, layers, width] of all layers in one ordinary pass: one point, the values."""
        with ExitStack() as stack:
            seen = [_seen(stack, site, self.layers[number]) for number in self.scored]
            target = self._target(1)
            values = [one[0] for one in seen]
            gradients = torch.autograd.grad(target, values)
        each = [(v.detach() * g)[self.rows, self.columns] for v, g in zip(values, gradients, strict=True)]
        return self._collected(each)

    def _base(self) -> None:
        """An ordinary pass; keeps what later ones begin with."""
        with ExitStack() as stack:
            seen = {
                (site, number): _seen(stack, site, self.layers[number])
                for site in SITES["path"]
                for number in self.scored
            }
            below = {n: _output(stack, self.layers[n]) for n in range(max(self.scored))}
            self._target(1)
        self.values = {site: {n: seen[site, n][0].detach() for n in self.scored} for site in SITES["path"]}
        self.states = {number: one[0] for number, one in below.items()}
        self.attended = self.values["inputs"]

    def _target(self, copies: int) -> Tensor:
        target = self.forward() if copies == 1 else self.forward(copies=copies)
        if target.shape != (copies * self.batch,):
            expected = f"[{copies * self.batch}]"
            raise ValueError(f"forward gives one probability a sequence, {expected}, gave {list(target.shape)}")
        return target.float().sum()

    def _replay(self, stack: ExitStack, lowest: int, copies: int) -> None:
        """Let the layers below the lowest give what they gave."""
        for number in range(lowest):
            state = _copies(self.states[number], copies)
            stack.enter_context(_forward(self.layers[number], lambda *a, state=state, **k: state))

    def _scale(self, stack: ExitStack, site: str, number: int, leaf: Tensor, copies: int, *, alone: bool) -> None:
        """Put a leaf in the place of a layer's values at the positions.

        Scaled alone, a layer's other values are those of the ordinary pass, and what makes them need not run again.
        """
        layer = self.layers[number]
        module = {"inputs": layer.intermediate, "neurons": layer.intermediate, "outputs": layer.output.dense}[site]
        before = module.forward
        rows = (self.rows + self.batch * torch.arange(copies, device=leaf.device).unsqueeze(-1)).flatten()
        places = rows, self.columns.repeat(copies)

        def mixed(values: Tensor) -> Tensor:
            return values.index_put(places, leaf.to(values.dtype))

        if not alone:
            changed: Callable[[Tensor], Tensor] = (
                (lambda x: before(mixed(x))) if site == "inputs" else lambda x: mixed(before(x))
            )
            stack.enter_context(_forward(module, changed))
            return
        attended = _copies(self.attended[number], copies)
        stack.enter_context(_forward(layer.attention, lambda *a, **k: (attended, None)))
        whole = mixed(_copies(self.values[site][number], copies))
        if site == "inputs":
            stack.enter_context(_forward(module, lambda x: before(whole)))
        else:
            stack.enter_context(_forward(module, lambda x: whole))
        if site == "outputs":
            neurons = _copies(self.values["neurons"][number], copies)
            stack.enter_context(_forward(layer.intermediate, lambda x: neurons))

    def _collected(self, each: Sequence[Tensor]) -> Tensor:
        """Scores of positions [Q, width] of some layers, summed over each sequence: [B, layers, width]."""
        whole = torch.stack(list(each), 1)
        return whole.new_zeros((self.batch, *whole.shape[1:])).index_add_(0, self.rows, whole)


def _seen(stack: ExitStack, site: str, layer: Any) -> list[Tensor]:
    """A list that will hold a layer's values at a site, ready to be differentiated by."""
    found: list[Tensor] = []
    module = layer.output.dense if site == "outputs" else layer.intermediate
    before = module.forward

    def keep(values: Tensor) -> Tensor:
        if torch.is_grad_enabled() and not values.requires_grad:
            values = values.detach().requires_grad_()
        elif site == "inputs":
            values = values.view_as(values)  # what enters the network, apart from the residual beside it
        found.append(values)
        return values

    changed: Callable[[Tensor], Tensor] = (lambda x: before(keep(x))) if site == "inputs" else lambda x: keep(before(x))
    stack.enter_context(_forward(module, changed))
    return found


def _output(stack: ExitStack, layer: Any) -> list[Tensor]:
    found: list[Tensor] = []
    before = layer.forward

    def call(*arguments: Any, **named: Any) -> Any:
        found.append(before(*arguments, **named))
        return found[0]

    stack.enter_context(_forward(layer, call))
    return found


def _copies(values: Tensor, count: int) -> Tensor:
    return values if count == 1 else values.repeat(count, *[1] * (values.ndim - 1))


@contextmanager
def _forward(module: nn.Module, function: Callable[..., Any]) -> Iterator[None]:
    """Give a module another forward for a while; hooks on it stay."""
    own: Mapping[str, Any] = {name: value for name, value in vars(module).items() if name == "forward"}
    module.forward = function  # type: ignore[method-assign]
    try:
        yield
    finally:
        del module.forward
        for name, value in own.items():
            setattr(module, name, value)


@contextmanager
def _as_it_is(model: nn.Module) -> Iterator[None]:
    """Without dropout; every module's mode is put back, whatever mixture it was."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = False
        yield
    finally:
        for module, mode in modes:
            module.training = mode
