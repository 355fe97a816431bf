"""From scores of neurons to a knowledge path (TRELM, section 3.4, which gives no rule: these are ours).

Scores are [B, layers, width]: how much each neuron adds to the target of each sequence. A path is one index tensor a
layer, int64, ascending. Scores of several processes are summed before anything is chosen, so all choose the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kbench.engine.counter import permuted
from kbench.methods.routed_ffn import encoder_layers

RULES = ("top_fraction", "threshold")

Reduce = Callable[[Tensor], Tensor]


def select(
    scores: Tensor,
    rho: float,
    rule: str = "top_fraction",
    threshold: float = 0.2,
    reduce: Reduce | None = None,
    *,
    per_layer: bool = False,
) -> list[Tensor]:
    """The path of a batch: neurons whose scores, positive parts summed over the sequences, are the largest.

    Args:
        scores: of this process's sequences [B, layers, width]; B may be 0 where others have some.
        rho: share of all neurons of all layers that top_fraction takes: a fixed number, at least 1, ties to the lowest
            layer and index; how many fall on a layer is open.
        rule: top_fraction, or threshold: positive scores of at least `threshold` times the largest (Dai et al.), at
            least 1.
        threshold: see there.
        reduce: the sum over processes of a tensor; None: there is one process.
        per_layer: take the share, or the threshold, in each layer by itself.
    """
    return _chosen(_positive(scores, reduce), rho, rule, threshold, per_layer=per_layer)


def select_sites(
    scores: Mapping[str, Tensor],
    rho: float,
    rule: str = "top_fraction",
    threshold: float = 0.2,
    reduce: Reduce | None = None,
    *,
    rho_in: float = 0.5,
    rho_out: float = 0.5,
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """The literal path of eq. 12: J over all layers; I and K, shares of each layer's inputs and outputs.

    Args:
        scores: `neurons`, `inputs` and `outputs` as `attribution.attribute` gives them.
        rho: as `select`'s, as are `rule`, `threshold` and `reduce`.
        rho_in: share of each layer's inputs.
        rho_out: share of each layer's outputs.
    """
    neurons = select(scores["neurons"], rho, rule, threshold, reduce)
    inputs = select(scores["inputs"], rho_in, reduce=reduce, per_layer=True)
    outputs = select(scores["outputs"], rho_out, reduce=reduce, per_layer=True)
    return neurons, inputs, outputs


def random_paths(layers: int, width: int, rho: float, key: int, device: torch.device | None = None) -> list[Tensor]:
    """A control: as many neurons as top_fraction takes, drawn without replacement; a function of the key."""
    count = _count(rho, layers * width)
    drawn = permuted(np.arange(count), layers * width, key)
    marked = torch.zeros(layers * width, dtype=torch.bool)
    marked[torch.from_numpy(drawn)] = True
    return [one.to(device or "cpu") for one in _indices(marked.view(layers, width))]


class Magnitude:
    """A control: the mean |activation| of each neuron, over all tokens it saw; no gradient is taken."""

    def __init__(self, layers: int):
        self._sums: list[Tensor | None] = [None] * layers

    def add(self, layer: int, values: Tensor, positions: Tensor) -> None:
        """Count a layer's activations [B, L, width] at some positions [B, L]."""
        found = (values.detach().float().abs() * positions.unsqueeze(-1)).sum((0, 1))
        before = self._sums[layer]
        self._sums[layer] = found if before is None else before + found

    def scores(self) -> Tensor:
        """[1, layers, width], to be selected from like any other; sums, since the number of tokens is all neurons'.

        Raises:
            ValueError: nothing was run.
        """
        sums = [one for one in self._sums if one is not None]
        if not self._sums or len(sums) < len(self._sums):
            raise ValueError("no forward pass was seen: the model must be run within `magnitude`")
        return torch.stack(sums).unsqueeze(0)


@contextmanager
def magnitude(model: Any, layers: Sequence[int], positions: Tensor) -> Iterator[Magnitude]:
    """Watch the activations of some layers in the forward passes within.

    Args:
        model: of transformers.
        layers: numbers of the layers.
        positions: tokens that count [B, L], such as the attention mask.
    """
    found = Magnitude(len(layers))
    modules = encoder_layers(model)

    def watch(place: int) -> Callable[..., None]:
        return lambda module, inputs, output: found.add(place, output, positions)

    hooks = [modules[n].intermediate.register_forward_hook(watch(place)) for place, n in enumerate(layers)]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


class RelationPaths:
    """A path for each relation, kept while others are attributed; a batch goes along the union of its relations'.

    A mark a neuron and relation: 30 MB at 822 relations and 12 layers of 3072 neurons.
    """

    def __init__(self, relations: int, layers: int, width: int, device: torch.device | None = None):
        self._marked = torch.zeros((relations, layers, width), dtype=torch.bool, device=device)
        self._known = torch.zeros(relations, dtype=torch.bool, device=device)

    def update(
        self,
        scores: Tensor,
        relations: Tensor,
        rho: float,
        rule: str = "top_fraction",
        threshold: float = 0.2,
        reduce: Reduce | None = None,
    ) -> None:
        """Choose the paths of the relations of a batch anew.

        Args:
            scores: as `select`'s, as are `rho`, `rule`, `threshold` and `reduce`.
            relations: of each sequence [B].
        """
        present = self._present(relations, reduce)
        places = torch.searchsorted(present, relations.to(present.device))
        sums = scores.new_zeros((len(present), *scores.shape[1:])).index_add_(0, places, scores.clamp(min=0))
        if reduce is not None:
            sums = reduce(sums)
        for relation, summed in zip(present.tolist(), sums, strict=True):
            self._marked[relation] = False
            for layer, index in enumerate(_chosen(summed, rho, rule, threshold, per_layer=False)):
                self._marked[relation, layer, index] = True
            self._known[relation] = True

    def union(self, relations: Tensor, reduce: Reduce | None = None) -> list[Tensor]:
        """The path of a batch, over all processes; empty where none of its relations was attributed yet."""
        present = self._present(relations, reduce)
        return _indices(self._marked[present].any(0))

    def known(self, relations: Tensor) -> Tensor:
        """Which of some relations have a path [B], bool."""
        return self._known[relations.to(self._known.device)]

    def tensors(self) -> dict[str, Tensor]:
        """All paths, for a checkpoint."""
        return {"marked": self._marked.to(torch.uint8), "known": self._known.to(torch.uint8)}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put what `tensors` gave back."""
        for name, own in (("marked", self._marked), ("known", self._known)):
            if tensors[name].shape != own.shape:
                raise ValueError(f"stored paths are {list(tensors[name].shape)}, should be {list(own.shape)}")
            own.copy_(tensors[name].bool())

    def _present(self, relations: Tensor, reduce: Reduce | None) -> Tensor:
        counts = torch.zeros(len(self._known), device=self._known.device)
        counts[relations.to(counts.device)] = 1.0
        return (counts if reduce is None else reduce(counts)).nonzero().flatten()


def overlap(path: Sequence[Tensor], previous: Sequence[Tensor]) -> float:
    """Neurons of both paths over neurons of either, over all layers (Jaccard); two empty paths are the same: 1."""
    common = sum(int(torch.isin(own, other).sum()) for own, other in zip(path, previous, strict=True))
    either = sum(len(own) + len(other) for own, other in zip(path, previous, strict=True)) - common
    return common / either if either else 1.0


def shares(path: Sequence[Tensor]) -> list[float]:
    """What part of a path lies in each layer."""
    total = sum(len(one) for one in path)
    return [len(one) / total if total else 0.0 for one in path]


def _positive(scores: Tensor, reduce: Reduce | None) -> Tensor:
    summed = scores.float().clamp(min=0).sum(0)
    return summed if reduce is None else reduce(summed)


def _chosen(summed: Tensor, rho: float, rule: str, threshold: float, *, per_layer: bool) -> list[Tensor]:
    """A path from summed scores [layers, width]."""
    if rule not in RULES:
        raise ValueError(f"rule is one of {', '.join(RULES)}, is {rule}")
    lines = summed if per_layer else summed.view(1, -1)
    # a stable sort: topk leaves open which of equal scores it takes, and processes must not differ
    ordered, order = lines.sort(dim=1, descending=True, stable=True)
    taken = torch.zeros_like(lines, dtype=torch.bool)
    if rule == "top_fraction":
        taken[:, : _count(rho, lines.shape[1])] = True
    else:
        taken = (ordered > 0) & (ordered >= threshold * ordered[:, :1])
        taken[:, 0] = True
    marked = torch.zeros_like(taken).scatter_(1, order, taken)
    return _indices(marked.view_as(summed))


def _count(rho: float, neurons: int) -> int:
    return min(neurons, max(1, round(rho * neurons)))


def _indices(marked: Tensor) -> list[Tensor]:
    return [layer.nonzero().flatten() for layer in marked]
