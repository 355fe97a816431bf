"""Counted floating point operations of a pre-training, step by step, so that methods compare at equal cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kbench.config.trelm import Mode
from kbench.methods import flops


class Costs:
    """Operations of matrix products; real tokens are counted, padding is not.

    Args:
        config: of the model, of transformers.
        knowing: options of TRELM; None: every weight learns, from masked words alone.
        told: numbers of a vector of the graph.
        cut: the layer below which nothing learns; 0: nowhere.
        routed: the layers that have paths; None: every weight learns.
    """

    def __init__(
        self, config: Any, knowing: Any = None, told: int = 0, cut: int = 0, routed: Sequence[int] | None = None
    ):
        self._shape = flops.Shape(
            config.num_hidden_layers, config.hidden_size, config.intermediate_size, config.vocab_size
        )
        self._knowing, self._told, self._cut, self._routed = knowing, told, cut, routed

    def step(self, rows: int, tokens: int, labels: int, asked: int, path: Sequence[int]) -> float:
        """Those of a step.

        Args:
            rows: sequences.
            tokens: of all of them, special ones included.
            labels: masked tokens.
            asked: mentions that are asked for.
            path: neurons of each routed layer; not read where there are none.
        """
        length = tokens / rows
        found = flops.step_flops(self._shape, rows, length, labels, self._trained(path))  # type: ignore[arg-type]
        if self._knowing is None:
            return found
        return found + asked * self._asked()

    def path(self, sequences: int, length: float) -> float:
        """Those of finding a path with some sequences of about one length."""
        if self._knowing is None or self._routed is None:
            return 0.0
        routing = self._knowing.routing
        if routing.mode is Mode.magnitude:
            return flops.step_flops(self._shape, sequences, length) / 3  # type: ignore[arg-type] # forward alone
        if routing.mode not in (Mode.literal, Mode.amortised):
            return 0.0
        sites = ("neurons",) if routing.granularity == "row" else ("inputs", "neurons", "outputs")
        plan = flops.Attribution(list(self._routed), routing.points, routing.scaling, routing.rule, sites)
        return flops.attribution_flops(self._shape, sequences, length, plan)  # type: ignore[arg-type]

    def _asked(self) -> float:
        """Those of one mention's knowledge loss, forward and backward, whatever the length of its answer."""
        width, cka, inject = self._shape.width, self._knowing.cka, self._knowing.inject
        embeddings = self._routed is None or self._knowing.routing.trainable.embeddings
        steps = 1 + (cka.longest if cka.decoder == "recurrent" else 1)  # with the first state
        # what is injected needs no gradient where the backward pass does not come down to it
        vectors = 4 + (2 if self._cut else 4) * inject.enabled
        products = cka.longest * cka.negatives * (6 if embeddings else 4)
        return width * (6 * width * steps + vectors * self._told + products)

    def _trained(self, path: Sequence[int]) -> flops.Trained:
        if self._routed is None:
            return flops.DENSE
        routing, layers = self._knowing.routing, self._shape.layers
        chosen = routing.trainable
        sizes = dict(zip(self._routed, path, strict=True))
        part = None
        if routing.granularity == "path":
            part = [round(routing.rho_sites * self._shape.width)] * layers
        return flops.Trained(
            neurons=[sizes.get(layer, 0) for layer in range(layers)],
            inputs=part,
            outputs=part,
            attention=chosen.attention,
            below=self._knowing.inject.enabled or chosen.embeddings,
            transform=chosen.head,
            decoder=chosen.embeddings,
            cut=self._cut,
        )
