"""Where the knowledge path of a step comes from: attribution of decoded tokens, or a control (TRELM, section 3.4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from kbench.config.trelm import Mode, Routing
from kbench.engine.counter import mixed, permuted
from kbench.engine.sampler import chunks
from kbench.engine.seeding import derive
from kbench.methods import paths
from kbench.methods.attribution import attribute
from kbench.methods.linked_feed import HOST

if TYPE_CHECKING:
    from kbench.engine.runtime import Runtime
    from kbench.methods.injecting import Remembered, Student
    from kbench.methods.linked_feed import LinkedFeed
    from kbench.methods.routed import Routed

# (batch on the host and the device) -> what goes to the student, and what is remembered of its mentions
Reading = Callable[[Mapping[str, Tensor]], tuple[dict[str, Tensor], "Remembered | None"]]


class Finder:
    """Finds paths by one of the modes of `method.routing`.

    Args:
        student: what is trained.
        feed: its rows.
        routed: the layers with paths.
        routing: options.
        read: makes a batch ready.
        runtime: device and processes.
        relations: of the graph.
        seed: of the sequences that are looked at, and of random paths.
    """

    def __init__(
        self,
        student: Student,
        feed: LinkedFeed,
        routed: Routed,
        routing: Routing,
        read: Reading,
        runtime: Runtime,
        relations: int,
        seed: int,
    ):
        self._student, self._feed, self._routed, self._routing = student, feed, routed, routing
        self._read, self._runtime, self._seed = read, runtime, seed
        self._sites = routing.granularity
        config: Any = student.lm.config
        self._width, self._inner = config.hidden_size, config.intermediate_size
        self._by_relation: paths.RelationPaths | None = None
        if routing.scope == "relation":
            self._by_relation = paths.RelationPaths(relations, len(routed.layers), self._inner, runtime.device)

    def due(self, step: int) -> bool:
        """Whether the step after `step` begins with a new path."""
        mode = self._routing.mode
        if mode is Mode.in_backward:
            return False
        return mode is Mode.literal or step % self._routing.every == 0

    def find(self, step: int, positions: np.ndarray) -> int:
        """Find the path that is learned from here on; gives how many sequences were looked at.

        Without one that tells of something the last path stays. Where each relation has its own, `follow` sets it.
        """
        mode, key = self._routing.mode, int(mixed(derive(self._seed, "path"), step))
        if mode is Mode.random:
            self._set_random(key)
            return 0
        chosen = self._told(positions)
        if mode is not Mode.literal:
            order = permuted(np.arange(len(chosen)), len(chosen), key) if len(chosen) else chosen
            chosen = chosen[np.sort(order[: self._routing.sequences])]
        if not len(chosen):
            if not any(len(path) for path in self._routed.paths):
                self._set_random(key)
            return 0
        self._set(self._scores(chosen))
        return len(chosen)

    def follow(self, positions: np.ndarray) -> None:
        """With a path for each relation: go along those of all relations that a step's rows are asked by.

        Where none of them has one yet the last path stays.
        """
        if self._by_relation is None:
            return
        assert self._feed.knowledge is not None
        told = self._feed.told(positions)
        relations = np.unique(self._feed.knowledge.triples[told.triple[told.asked], 1]).astype(np.int64)
        union = self._by_relation.union(torch.from_numpy(relations))
        if any(len(one) for one in union):
            self._routed.set_paths(union)

    def scaled(self, batch: Mapping[str, Tensor], some: Tensor) -> Tensor:
        """The tokens of some mentions whose neurons are scaled [B, L], by `routing.positions`."""
        shape = batch["input_ids"].shape
        if self._routing.positions == "all":
            return batch["attention_mask"].bool()
        place = torch.arange(shape[1], device=batch["input_ids"].device)
        start, stop = batch["start"][some][:, None], batch["stop"][some][:, None]
        inside = place == start if self._routing.positions == "first" else (place >= start) & (place < stop)
        found = torch.zeros(shape, dtype=torch.int64, device=place.device)
        return found.index_add(0, batch["line"][some], inside.long()) > 0

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint must hold beside the current path."""
        return {} if self._by_relation is None else self._by_relation.tensors()

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put what `tensors` gave back."""
        if self._by_relation is not None:
            self._by_relation.restore(tensors)

    def _told(self, positions: np.ndarray) -> np.ndarray:
        """Those of some rows with a mention that is asked for."""
        told = self._feed.told(positions)
        return positions[np.unique(told.line[told.asked])]

    def _scores(self, rows: np.ndarray) -> tuple[dict[str, Tensor], Tensor]:
        """site -> scores of this process's share of some rows, and the relation that each is asked by."""
        runtime, student = self._runtime, self._student
        micro = max(1, min(runtime.micro_batch_size, -(-len(rows) // runtime.processes)))
        pieces = chunks(rows, micro, runtime.processes)
        sizes = {"neurons": self._inner, "inputs": self._width, "outputs": self._width}
        layers = self._routed.layers
        wanted = ("neurons",) if self._sites == "row" else tuple(sizes)
        found = {site: [torch.zeros(0, len(layers), sizes[site], device=runtime.device)] for site in wanted}
        relations = [torch.zeros(0, dtype=torch.int64)]
        training = student.training
        student.eval()
        for index in range(runtime.rank, len(pieces), runtime.processes):
            piece = pieces[index]
            batch = self._feed.batch(piece if len(piece) else rows[:1], runtime.device)
            inputs, memory = self._read(batch)
            if not len(piece):
                continue
            first = self._first_asked(batch, inputs)
            scaled = self.scaled(inputs, inputs["asked"][first])
            if self._routing.mode is Mode.magnitude:
                with paths.magnitude(student.lm, layers, scaled) as seen, torch.no_grad():
                    student.states(inputs, memory)
                made = {"neurons": seen.scores()}
                relation = batch[f"{HOST}relation"][first.cpu()][:1]
            else:
                made = attribute(
                    student.probability(inputs, memory, first, int(batch[f"{HOST}longest"])),
                    student.lm,
                    layers,
                    steps=self._routing.points,
                    positions=scaled,
                    rule=self._routing.rule,
                    scaling=self._routing.scaling,
                    sites=self._sites,
                    together=max(1, min(self._routing.points, runtime.micro_batch_size // len(piece))),
                )
                relation = batch[f"{HOST}relation"][first.cpu()]
            for site in wanted:
                # magnitudes of inputs and outputs are none of the control's business: all alike, the first are taken
                found[site].append(made.get(site, torch.ones(1, len(layers), sizes[site], device=runtime.device)))
            relations.append(relation)
        student.train(training)
        return {site: torch.cat(parts) for site, parts in found.items()}, torch.cat(relations)

    def _first_asked(self, batch: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> Tensor:
        """Of each row the place, among the mentions asked for, of its first one [B]."""
        lines = inputs["line"][inputs["asked"]].cpu().numpy()
        _, first = np.unique(lines, return_index=True)
        return torch.from_numpy(first).to(inputs["line"].device)

    def _set(self, found: tuple[dict[str, Tensor], Tensor]) -> None:
        scores, relations = found
        routing, reduce = self._routing, self._runtime.sum
        rho, rule, threshold = routing.rho, routing.select, routing.threshold
        if self._by_relation is not None:  # what is gone along, `follow` says
            self._by_relation.update(scores["neurons"], relations, rho, rule, threshold, reduce)
        elif self._sites == "path":
            share = routing.rho_sites
            sides = paths.select_sites(scores, rho, rule, threshold, reduce, rho_in=share, rho_out=share)
            self._routed.set_paths(*sides)
        else:
            self._routed.set_paths(paths.select(scores["neurons"], rho, rule, threshold, reduce))

    def _set_random(self, key: int) -> None:
        layers, device = len(self._routed.layers), self._runtime.device
        neurons = paths.random_paths(layers, self._inner, self._routing.rho, key, device)
        if self._sites == "row":
            self._routed.set_paths(neurons)
            return
        sides = []
        for side in ("inputs", "outputs"):
            each = (derive(key, side, layer) for layer in range(layers))
            sides.append([paths.random_paths(1, self._width, self._routing.rho_sites, k, device)[0] for k in each])
        self._routed.set_paths(neurons, *sides)
