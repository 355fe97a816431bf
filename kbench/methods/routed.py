"""Knowledge routing: a step that updates the knowledge path of the feed-forward networks alone (TRELM, eq. 9 to 12).

    z = x W1^T + b1,  h = act(z),  y = h W2^T + b2          the path J is a set of intermediate neurons

A step changes W1[J, :], b1[J] and W2[:, J] ("row"); the literal reading of eq. 12 ("path") restricts both further:
W1[J, I], b1[J], W2[K, J] and b2[K]. Forward and the gradient of the input are dense and exact; gradients, moments and
updates exist for the path only. The model stays the one that transformers made: the two linear layers of a feed-forward
network get another `forward` each, so the names and values of its weights, and hooks on it, are as ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from kbench.methods.routed_ffn import RoutedFfn, RoutedWeight, encoder_layers, without_gradient

GRANULARITIES = ("row", "path")
IMPLEMENTATIONS = ("sparse", "mask")
OPTIMIZERS = ("row_sparse", "masked_grad")


class Routed:
    """A model whose feed-forward networks learn along a path; made by `install`.

    A step: `set_paths` where the path changes (or `choose_in_backward`), backward of all micro batches, `reduce`,
    clipping over `gradients()` and the ordinary parameters, `step`, `zero`. Weights beside the path keep their bits.

    Attributes:
        layers: numbers of the routed layers, ascending.
        granularity: row or path.
        implementation: sparse; mask: its slow twin, ordinary autograd times 0 or 1.
        cut_at: the layer at whose input the gradient stops; 0: nowhere.
    """

    def __init__(self, model: Any, layers: Sequence[int], granularity: str, implementation: str, optimizer: str):
        for name, value, known in (
            ("granularity", granularity, GRANULARITIES),
            ("impl", implementation, IMPLEMENTATIONS),
            ("optimizer", optimizer, OPTIMIZERS),
        ):
            if value not in known:
                raise ValueError(f"{name} is one of {', '.join(known)}, is {value}")
        found = encoder_layers(model)
        self.layers = sorted(set(layers))
        if not self.layers or not 0 <= self.layers[0] <= self.layers[-1] < len(found):
            raise ValueError(f"layers are 0 to {len(found) - 1}, are {list(layers)}")
        self.model = model
        self.granularity, self.implementation, self.optimizer = granularity, implementation, optimizer
        self.cut_at = 0
        self._cut: list[tuple[nn.Module, Any]] = []
        self._ffns = [
            RoutedFfn(found[number], granularity == "path", implementation == "mask") for number in self.layers
        ]
        for ffn in self._ffns:
            for second, own in enumerate((ffn.first, ffn.second)):
                if "forward" in vars(own):
                    raise ValueError("the model is routed already")
                own.requires_grad_(False)
                own.forward = partial(ffn.project, bool(second))

    def remove(self) -> None:
        """Make the model what it was before, with the weights it has now; they are trained again."""
        self.cut(0)
        for ffn in self._ffns:
            for own in (ffn.first, ffn.second):
                del own.forward
                own.requires_grad_(True)

    def cut(self, layer: int) -> None:
        """Stop the gradient at the input of a layer: all below runs without one. 0: nowhere.

        What is injected into the embeddings gets no gradient either.

        Raises:
            ValueError: something below is trained.
        """
        self.cut_at = 0
        for module, forward in self._cut:
            del module.forward
            if forward is not None:
                module.forward = forward
        self._cut = []
        if not layer:
            return
        base = self.model.base_model
        below = {"embeddings": base.embeddings, **{f"layer {i}": base.encoder.layer[i] for i in range(layer)}}
        for where, module in below.items():
            if any(parameter.requires_grad for parameter in module.parameters()):
                raise ValueError(f"{where} is trained: the gradient cannot be cut below layer {layer}")
        if self.layers[0] < layer:
            raise ValueError(f"layer {self.layers[0]} is routed: the gradient cannot be cut below layer {layer}")
        for module in below.values():
            self._cut.append((module, vars(module).get("forward")))
            module.forward = partial(without_gradient, module.forward)
        self.cut_at = layer

    def set_paths(
        self,
        neurons: Sequence[Tensor],
        inputs: Sequence[Tensor] | None = None,
        outputs: Sequence[Tensor] | None = None,
    ) -> None:
        """Train another path from now on.

        Args:
            neurons: J of each routed layer, int64; may be empty.
            inputs: I of each, with granularity path.
            outputs: K of each, likewise.

        Raises:
            ValueError: gradients of the last path wait for their step; or an index that is out of range, or is twice.
        """
        if any(leaf.grad is not None for leaf in self.gradients()):
            raise ValueError("the last path has gradients: step, or drop them with zero(), before another is set")
        if (inputs is None) != (self.granularity == "row") or (inputs is None) != (outputs is None):
            raise ValueError("inputs and outputs go with granularity path, and only with it")
        given = [neurons, neurons if inputs is None else inputs, neurons if outputs is None else outputs]
        if {len(one) for one in given} != {len(self._ffns)}:
            raise ValueError(f"one index for each of {len(self._ffns)} layers, are {[len(one) for one in given]}")
        paths = []
        for ffn, j, i, k in zip(self._ffns, *given, strict=True):
            width, inner = ffn.second.out_features, ffn.first.out_features
            bounds = (inner, width, width) if inputs is not None else (inner,) * 3
            paths.append([_checked(one, bound, ffn.first.weight) for one, bound in zip((j, i, k), bounds, strict=True)])
        for ffn, (j, i, k) in zip(self._ffns, paths, strict=True):
            ffn.neurons, ffn.chosen = j, True
            if inputs is not None:
                ffn.inputs, ffn.outputs = i, k
            ffn.follow((len(j), len(i), len(k)) if inputs is not None else (len(j), None, None))

    def choose_in_backward(self, positions: Tensor, rho: float, rho_in: float = 0.5, rho_out: float = 0.5) -> None:
        """Let the step's own backward choose: in each layer the share `rho` of neurons with the largest -h dLoss/dh.

        Summed over a sequence's positions, positive parts over sequences: attribution with one point, of the whole
        loss. The first backward of a step chooses, its other micro batches go along until `zero()`; so this may be
        called before each. One process only: several would choose different paths.

        Args:
            positions: of the injected mentions [B, L], bool; without any, all positions count.
            rho: share of the intermediate neurons.
            rho_in: share of the inputs, with granularity path.
            rho_out: share of the outputs, likewise.
        """
        if self.implementation == "mask":
            raise ValueError("impl mask cannot choose inside a backward: its gradients exist before the choice")
        if any(leaf.grad is not None for leaf in self.gradients()):
            return
        where = positions.to(self._ffns[0].first.weight.device)
        for ffn in self._ffns:
            width, inner = ffn.second.out_features, ffn.first.out_features
            if self.granularity == "path":
                ffn.follow((_share(rho, inner), _share(rho_in, width), _share(rho_out, width)))
            else:
                ffn.follow((_share(rho, inner), None, None))
            ffn.chosen, ffn.positions = False, where

    @property
    def paths(self) -> list[Tensor]:
        """J of each routed layer, ascending."""
        return [ffn.neurons for ffn in self._ffns]

    def gradients(self) -> list[Tensor]:
        """Leaves whose `.grad` are the path's gradients, to be clipped with the ordinary parameters."""
        return [block.leaf for _, block in self._blocks() if block.leaf is not None]

    def zero(self) -> None:
        """Drop the gradients; the path stays, and the next step may choose another."""
        for leaf in self.gradients():
            leaf.grad = None

    def reduce(self, mean: Callable[[Tensor], Tensor]) -> None:
        """Average the gradients over processes, in one buffer; all must have the same path.

        Args:
            mean: the mean over processes of a flat float32 tensor.
        """
        leaves = self.gradients()
        if not leaves:
            return
        parts = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]
        flat = mean(torch.cat([part.flatten() for part in parts]))
        for leaf, part in zip(leaves, flat.split([leaf.numel() for leaf in leaves]), strict=True):
            leaf.grad = part.view_as(leaf)

    def step(self, lr: float, betas: tuple[float, float], eps: float, decay: float) -> None:
        """One step of AdamW with decoupled decay, of matrices only.

        row_sparse: weights, moments and step counts of the path and nothing else (moments beside it do not fade).
        masked_grad: all weights, with a gradient of 0 beside the path, so that old moments and decay move them on.
        """
        for _, block in self._blocks():
            block.update(lr, betas, eps, decay, whole=self.optimizer == "masked_grad")

    def tensors(self) -> dict[str, Tensor]:
        """Moments, step counts and the current path, by name; between two steps."""
        found = {f"{key}.{name}": value for key, block in self._blocks() for name, value in block.state.items()}
        for number, ffn in zip(self.layers, self._ffns, strict=True):
            sides = ("neurons", "inputs", "outputs") if self.granularity == "path" else ("neurons",)
            found |= {f"{number}.{side}": getattr(ffn, side) for side in sides}
        return found

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put what `tensors` gave back.

        Raises:
            ValueError: they are of other layers, or of another granularity.
        """
        sides = ("neurons", "inputs", "outputs") if self.granularity == "path" else ("neurons",)
        paths = {f"{number}.{side}" for number in self.layers for side in sides}
        if {name for name in tensors if name.count(".") == 1} != paths:
            raise ValueError(f"the stored path is of other layers or another granularity than {self.layers}")
        self.zero()
        self.set_paths(*([tensors[f"{number}.{side}"] for number in self.layers] for side in sides))
        for key, block in self._blocks():
            device = block.weight.device
            names = ("exp_avg", "exp_avg_sq", "count")
            found = {name: tensors[f"{key}.{name}"] for name in names if f"{key}.{name}" in tensors}
            block.state = {name: value.to(device).clone() for name, value in found.items()}

    def _blocks(self) -> Iterator[tuple[str, RoutedWeight]]:
        for number, ffn in zip(self.layers, self._ffns, strict=True):
            for name, block in ffn.blocks.items():
                yield f"{number}.{name}", block


def install(
    model: Any, layers: Sequence[int], granularity: str = "row", impl: str = "sparse", optimizer: str = "row_sparse"
) -> Routed:
    """Route the feed-forward networks of some layers of a masked language model; until a path is set they are frozen.

    Args:
        model: of transformers.
        layers: numbers of the layers, from 0.
        granularity: row or path.
        impl: sparse, or its slow twin mask.
        optimizer: row_sparse or masked_grad, see `Routed.step`.

    Raises:
        BackboneError: a family whose layers are built otherwise.
        ValueError: an option or layer that does not exist; a model that is routed already.
    """
    return Routed(model, layers, granularity, impl, optimizer)


def _share(rho: float, count: int) -> int:
    return min(count, max(1, round(rho * count)))


def _checked(index: Tensor, bound: int, like: Tensor) -> Tensor:
    found = index.to(device=like.device, dtype=torch.int64).unique()
    if len(found) != len(index) or (len(found) and not 0 <= int(found[0]) <= int(found[-1]) < bound):
        raise ValueError(f"a path names each of 0 to {bound - 1} at most once")
    return found
