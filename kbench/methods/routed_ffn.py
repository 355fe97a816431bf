"""A feed-forward network that learns along a path: its two linear layers, their gradients, their optimiser's state.

A weight is trained for some rows and columns only. Its gradient there is that of a small *leaf* beside it, so that
autograd accumulates it like any other, and asks for it only where it must; the weight itself needs none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.functional import linear

from kbench.errors import BackboneError, Problem

_PAUSED: ContextVar[bool] = ContextVar("paused", default=False)

Index = tuple[Tensor | None, ...]


@contextmanager
def paused() -> Iterator[None]:
    """Forward passes within have no path and no cut: what attribution differentiates is none of the step's business."""
    token = _PAUSED.set(True)
    try:
        yield
    finally:
        _PAUSED.reset(token)


def encoder_layers(model: Any) -> Sequence[Any]:
    """The layers of a model's encoder, each with `intermediate.dense` and `output.dense`.

    Raises:
        BackboneError: a family whose layers are built otherwise.
    """
    layers: Any = getattr(getattr(getattr(model, "base_model", None), "encoder", None), "layer", None)
    known = layers is not None and all(
        isinstance(getattr(getattr(layer, part, None), "dense", None), nn.Linear)
        for layer in layers
        for part in ("intermediate", "output")
    )
    if not known:
        kind = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
        what = f"{kind} has no encoder whose layers have intermediate.dense and output.dense"
        raise BackboneError(Problem("backbone", what, "routing works on BERT, RoBERTa, XLM-R and CamemBERT"))
    return layers


def without_gradient(forward: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """What `forward` gives, with nothing to differentiate; within `paused` as ever."""
    if _PAUSED.get():
        return forward(*arguments, **named)
    with torch.no_grad():
        return forward(*arguments, **named)


class RoutedWeight:
    """One weight of a feed-forward network: where the path cuts it, its gradient there, its optimiser's state.

    Attributes:
        index: what the path takes of each dimension; None: all of it.
        leaf: whose `.grad` is the gradient; its own values are 0 and mean nothing. None: nothing of it is trained.
        state: exp_avg, exp_avg_sq and count (steps), made at the first step.
    """

    def __init__(self, linear_layer: nn.Linear, name: str, per_element: bool):
        self.layer, self.name = linear_layer, name
        self.per_element = per_element
        self.index: Index = (None,) * self.weight.ndim
        self.leaf: Tensor | None = None
        self.state: dict[str, Tensor] = {}

    @property
    def weight(self) -> Tensor:
        """The model's own, without its history."""
        return getattr(self.layer, self.name).detach()

    def make_room(self, sizes: Sequence[int | None], dense: bool) -> None:
        """Make a leaf for a path of so many rows and columns, None: all of them; a `dense` leaf has them all."""
        whole = self.weight.shape
        shape = whole if dense else [own if size is None else size for own, size in zip(whole, sizes, strict=True)]
        active = math.prod(shape) > 0 and 0 not in sizes
        self.leaf = self.weight.new_zeros(shape, dtype=torch.float32).requires_grad_() if active else None

    def added(self) -> Tensor | None:
        """0 everywhere, with a gradient on the path: what the slow twin adds to the weight."""
        if self.leaf is None:
            return None
        ones: Any = 1.0
        for dimension, index in enumerate(self.index):
            line = torch.ones(self.leaf.shape[dimension], device=self.leaf.device)
            if index is not None:
                line = torch.zeros_like(line).index_fill_(0, index, 1.0)
            ones = ones * (line.unsqueeze(-1) if dimension == 0 and self.leaf.ndim == 2 else line)
        return self.leaf * ones

    def update(self, lr: float, betas: tuple[float, float], eps: float, decay: float, *, whole: bool) -> None:
        """One step of AdamW on the path, or on the whole weight with a gradient of 0 beside the path."""
        weight, index = self.weight, self.index
        gradient = None if self.leaf is None else self.leaf.grad
        if whole:
            if gradient is None:
                gradient = torch.zeros_like(weight)
            elif gradient.shape != weight.shape:
                gradient = _put(torch.zeros_like(weight), index, gradient)
            index = (None,) * weight.ndim
        elif gradient is None:
            return
        elif gradient.shape == weight.shape:
            gradient = _taken(gradient, index)
        if not self.state:
            self.state = {name: torch.zeros_like(weight) for name in ("exp_avg", "exp_avg_sq")}
            shape = [
                own if self.per_element or whole or part is not None else 1
                for own, part in zip(weight.shape, self.index, strict=True)
            ]
            self.state["count"] = weight.new_zeros(shape, dtype=torch.float32)
        value, first, second, count = (_taken(one, index) for one in (weight, *self.state.values()))
        # a weight that joins the path late has moments of 0: with the number of steps of the training its first
        # update would be several times the learning rate, so its correction follows from its own
        count.add_(1)
        begun, squared = (1 - beta ** count.double() for beta in betas)
        if weight.ndim > 1:
            value.mul_(1 - lr * decay)
        first.lerp_(gradient, 1 - betas[0])
        second.mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
        bound = second.sqrt().div_(squared.sqrt().float()).add_(eps)
        value.addcdiv_(first / begun.float(), bound, value=-lr)
        for kept, changed in zip((weight, *self.state.values()), (value, first, second, count), strict=True):
            _put(kept, index, changed)


class RoutedFfn:
    """A routed feed-forward network, and the choice of its path inside a backward.

    Args:
        layer: of an encoder, see `encoder_layers`.
        path: inputs and outputs belong to the path too.
        dense: by ordinary autograd, times 0 or 1.

    Attributes:
        neurons, inputs, outputs: J, I and K, ascending.
        sizes: of the three; None: the path takes all.
        chosen: False: the next backward chooses.
        positions: tokens that it judges by [B, L].
    """

    def __init__(self, layer: Any, path: bool, dense: bool):
        self.path, self.dense = path, dense
        self.first, self.second = layer.intermediate.dense, layer.output.dense
        parts = [(self.first, "weight"), (self.first, "bias"), (self.second, "weight"), (self.second, "bias")]
        made = [RoutedWeight(*part, path) for part in parts]
        self.blocks = dict(zip(("w1", "b1", "w2", "b2"), made, strict=True))
        if not path:
            del self.blocks["b2"]  # no neuron of the path owns the output's bias
        self.neurons = self.inputs = self.outputs = torch.empty(0, dtype=torch.int64)
        self.sizes: tuple[int, int | None, int | None] = (0, None, None)
        self.chosen = True
        self.positions: Tensor | None = None

    def follow(self, sizes: tuple[int, int | None, int | None]) -> None:
        """Make room for the gradients of a path of so many neurons, inputs and outputs."""
        self._point()
        if sizes == self.sizes:
            return
        self.sizes = n, i, k = sizes
        shapes: dict[str, tuple[int | None, ...]] = {"w1": (n, i), "b1": (n,), "w2": (k, n), "b2": (k if n else 0,)}
        for name, block in self.blocks.items():
            block.make_room(shapes[name], self.dense)

    def _point(self) -> None:
        j = self.neurons
        i, k = (self.inputs, self.outputs) if self.path else (None, None)
        found: dict[str, Index] = {"w1": (j, i), "b1": (j,), "w2": (k, j), "b2": (k,)}
        for name, block in self.blocks.items():
            block.index = found[name]

    def choose_neurons(self, h: Tensor, gradient: Tensor, y: Tensor, of_y: Tensor) -> None:
        """The path's neurons and outputs, from the first backward that comes through."""
        self.neurons = self._top(h, gradient, self.sizes[0])
        if self.sizes[2] is not None:
            self.outputs = self._top(y, of_y, self.sizes[2])
        self._point()

    def choose_inputs(self, x: Tensor, gradient: Tensor) -> None:
        """The path's inputs; with them the choice is made."""
        if self.sizes[1] is not None:
            self.inputs = self._top(x, gradient, self.sizes[1])
        self.chosen = True
        self._point()

    def _top(self, values: Tensor, gradient: Tensor, count: int) -> Tensor:
        where = self.positions
        assert where is not None
        where = where | ~where.any()  # a batch without a mention is judged by all its tokens
        # a falling loss is a rising probability, hence the sign; as many as the path has, ties to the lowest
        each = -(values.float() * gradient.float() * where.unsqueeze(-1)).sum(1).clamp(max=0).sum(0)
        return each.sort(descending=True, stable=True).indices[:count].sort().values

    def project(self, second: bool, x: Tensor) -> Tensor:
        """x W^T + b of one of the two linear layers, [.., in] -> [.., out]."""
        own = self.second if second else self.first
        weight, bias = (self.blocks.get(name + ("2" if second else "1")) for name in ("w", "b"))
        assert weight is not None
        if _PAUSED.get() or not torch.is_grad_enabled():
            return linear(x, own.weight, own.bias)
        if self.dense:
            added, beside = weight.added(), None if bias is None else bias.added()
            return linear(
                x,
                own.weight if added is None else own.weight + added,
                own.bias if beside is None else own.bias + beside,
            )
        leaves = [None if block is None else block.leaf for block in (weight, bias)]
        found: Tensor = _Linear.apply(x, own.weight, own.bias, *leaves, self, second)
        return found


class _Linear(Function):
    """A linear layer whose weights get gradients on the path only."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, of_weight: Any, of_bias: Any, ffn: RoutedFfn, second: bool
    ) -> Tensor:
        """[.., in] -> [.., out], in the number format that autocast asks for."""
        kind = x.device.type
        form = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        x, weight = x.to(form), weight.to(form)
        y = linear(x, weight, bias.to(form))
        ctx.choosing = not ffn.chosen and of_weight is not None
        ctx.ffn, ctx.second, ctx.bias = ffn, second, of_bias is not None
        ctx.index = ffn.blocks["w2" if second else "w1"].index
        kept: list[Tensor | None] = [None, None]
        if ctx.choosing:
            kept = [x, y if second else None]
        elif of_weight is not None:
            kept[0] = x if ctx.index[1] is None else x.index_select(-1, ctx.index[1])
        ctx.save_for_backward(*kept, weight)
        ctx.trained = of_weight is not None
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        """The input's gradient whole, the weights' for rows and columns of the path."""
        x, y, weight = ctx.saved_tensors
        ffn = ctx.ffn
        choosing = ctx.choosing and not ffn.chosen
        wanted = ctx.needs_input_grad[0] or (choosing and ffn.sizes[1] is not None)
        of_x = gradient @ weight if wanted else None
        if choosing and ctx.second:
            ffn.choose_neurons(x, of_x, y, gradient)
        elif choosing:
            ffn.choose_inputs(x, of_x)
        of_weight = of_bias = None
        if ctx.trained or ctx.bias:
            rows, columns = ffn.blocks["w2" if ctx.second else "w1"].index if ctx.choosing else ctx.index
            flat = gradient.flatten(0, -2)
            flat = flat if rows is None else flat.index_select(1, rows)
            if ctx.trained:
                if ctx.choosing and columns is not None:
                    x = x.index_select(-1, columns)
                of_weight = (flat.T @ x.flatten(0, -2)).float()
            if ctx.bias:
                of_bias = flat.sum(0).float()
        return of_x if ctx.needs_input_grad[0] else None, None, None, of_weight, of_bias, None, None


def _taken(tensor: Tensor, index: Index) -> Tensor:
    for dimension, one in enumerate(index):
        if one is not None and tensor.shape[dimension] != 1:
            tensor = tensor.index_select(dimension, one)
    return tensor


def _put(tensor: Tensor, index: Index, values: Tensor) -> Tensor:
    """Write what `_taken` gave back; where nothing was cut out it is there already."""
    cut = [(d, one) for d, one in enumerate(index) if one is not None and tensor.shape[d] != 1]
    if len(cut) == 2:
        tensor[cut[0][1].unsqueeze(-1), cut[1][1]] = values
    elif cut:
        tensor.index_copy_(cut[0][0], cut[0][1], values)
    return tensor
