"""What TRELM does inside a step beside its loss: memory is read before and written after, paths are found and updated.

Order within a step: the path, where it is time for one; of each micro batch what is remembered of its mentions, the
losses, the notes; then the update of the path's weights, and of the memory by all notes of the step at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from kbench.config.trelm import Mode
from kbench.engine.feed import moved
from kbench.engine.hooks import Hooks
from kbench.methods import paths
from kbench.methods.banks import ShardedBank
from kbench.methods.costs import Costs
from kbench.methods.finding import Finder
from kbench.methods.injecting import Remembered, Student
from kbench.methods.injection import Decay
from kbench.methods.linked_feed import HOST

if TYPE_CHECKING:
    from kbench.engine.recipe import Recipe
    from kbench.engine.runtime import Runtime
    from kbench.methods.banks import Bank
    from kbench.methods.linked_feed import LinkedFeed
    from kbench.methods.routed import Routed


@dataclass(frozen=True)
class Plan:
    """The course of a training.

    Attributes:
        total: optimiser steps of it.
        per_epoch: of an epoch.
        snapshots: share of the training -> step after which the model is kept.
        keep: keeps the model as it is, by that share.
        seed: of what paths are found with.
    """

    total: int
    per_epoch: int
    snapshots: Mapping[float, int]
    keep: Callable[[float], None]
    seed: int


class KnowledgeHooks(Hooks):
    """Memory and paths of a training.

    Args:
        student: what is trained, on the runtime's device.
        feed: its rows.
        recipe: of the optimiser.
        runtime: device and processes.
        plan: the course.
        bank: the memory; None: there is none.
        routed: the feed-forward layers with paths; None: everything learns.
        knowing: options of TRELM; None: nothing is known, the text alone is learned.
    """

    def __init__(
        self,
        student: Student,
        feed: LinkedFeed,
        recipe: Recipe,
        runtime: Runtime,
        plan: Plan,
        bank: Bank | None = None,
        routed: Routed | None = None,
        knowing: Any = None,
    ):
        self.student, self.feed, self.bank, self.routed = student, feed, bank, routed
        self._recipe, self._runtime, self._plan, self._knowing = recipe, runtime, plan, knowing
        self._finder: Finder | None = None
        if routed is not None:
            assert feed.knowledge is not None
            relations = len(feed.knowledge.vectors.relations)
            self._finder = Finder(student, feed, routed, knowing.routing, self._read, runtime, relations, plan.seed)
        if bank is not None:
            memory = knowing.memory
            self._decay = Decay(memory.initial, memory.beta, memory.unit.value, memory.every, memory.final_zero)
        self._epoch, self._share = 0, 0.0
        self._notes: list[tuple[np.ndarray, np.ndarray, Tensor, Tensor]] = []
        cut = routed.cut_at if routed is not None else 0
        told = 0 if feed.knowledge is None else feed.knowledge.vectors.entities.shape[1]
        self._costs = Costs(student.lm.config, knowing, told, cut, None if routed is None else routed.layers)
        self._since, self._finding, self._overlap = time.monotonic(), 0.0, 1.0
        self._before: list[Tensor] = []  # the path when the step began
        self._tokens, self._operations = 0, 0.0
        self._step: dict[str, int] = {}

    def begin(self, step: int, epoch: int, positions: np.ndarray) -> None:
        """Draw wrong tokens, weigh the memory, find a path where it is time for one."""
        self.feed.begin(epoch, positions)
        self._step = {"rows": len(positions), "tokens": int(self.feed.lengths[positions].sum())}
        self._tokens += self._step["tokens"]
        if self.bank is not None:
            self._share = self._decay.share(step, self._plan.total, self._plan.per_epoch)
            for _ in range(epoch - self._epoch):
                self.bank.next_epoch()
        self._epoch = epoch
        if self.routed is not None and self._finder is not None:
            began, self._before = time.monotonic(), list(self.routed.paths)
            if self._finder.due(step):
                looked_at = self._finder.find(step, positions)
                self._operations += self._costs.path(looked_at, self._step["tokens"] / len(positions))
            self._finder.follow(positions)
            if any(own is not other for own, other in zip(self.routed.paths, self._before, strict=True)):
                self._overlap = paths.overlap(self.routed.paths, self._before)
            self._finding += time.monotonic() - began

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The terms of the loss of a micro batch; keeps its notes."""
        told = {name: int(value) for name, value in batch.items() if name.startswith("step_")}
        rows = told["step_units"] / len(batch["input_ids"])
        scales = {"words": rows / max(1, told["step_labels"]), "knowledge": rows / max(1, told["step_targets"])}
        self._step |= {name: told[f"step_{name}"] for name in ("labels", "asked")}
        inputs, memory = self._read(batch)
        if self.routed is not None and self._finder is not None and self._knowing.routing.mode is Mode.in_backward:
            routing = self._knowing.routing
            scaled = self._finder.scaled(inputs, inputs["asked"])
            self.routed.choose_in_backward(scaled, routing.rho, routing.rho_sites, routing.rho_sites)
        found: dict[str, Tensor] = model(
            inputs, memory, scales, longest=int(batch[f"{HOST}longest"]), noting=self.bank is not None
        )
        if self.student.notes is not None and told["step_rows"]:
            entity, mention = (batch[f"{HOST}kept_{name}"].numpy() for name in ("entity", "mention"))
            self._notes.append((entity, mention, *self.student.notes))
        self.student.notes = None
        return found

    def gradients(self) -> list[Tensor]:
        """Gradients of the path's weights, the mean over all processes."""
        if self.routed is None:
            return []
        if self._runtime.processes > 1:
            self.routed.reduce(self._runtime.mean)
        return self.routed.gradients()

    def update(self, step: int, rate: float) -> None:
        """Update the path's weights and the memory; keep the model where that is asked for."""
        path = [] if self.routed is None else [len(one) for one in self.routed.paths]
        self._operations += self._costs.step(**self._step, path=path)
        if self.routed is not None:
            recipe = self._recipe
            self.routed.step(rate, (0.9, recipe.adam_beta2), recipe.adam_epsilon, recipe.weight_decay)
            self.routed.zero()
        if self.bank is not None:
            self._write(self.bank)
        for share, at in self._plan.snapshots.items():
            if step == at:
                self._plan.keep(share)

    def values(self) -> dict[str, float]:
        """Figures of the steps so far: tokens, counted operations, the memory's share; of paths size, spread, cost."""
        now = time.monotonic()
        passed, self._since = max(now - self._since, 1e-9), now
        found = {"tokens": float(self._tokens)}
        if self.bank is not None:
            found["memory_share"] = self._share
        if self.routed is not None:
            sizes = paths.shares(self.routed.paths)
            if self._knowing.routing.mode is Mode.in_backward:  # chosen since the step began
                self._overlap = paths.overlap(self.routed.paths, self._before)
            found |= {"path/neurons": float(sum(map(len, self.routed.paths))), "path/overlap": self._overlap}
            layers = zip(self.routed.layers, sizes, strict=True)
            found |= {f"path/layer_{layer}": share for layer, share in layers}
            found["path/share_of_time"] = self._finding / passed
            self._finding = 0.0
        return found | {"operations": self._operations}

    def tensors(self, step: int) -> dict[str, Tensor]:
        """Memory, paths and their moments."""
        counts = [self._epoch, self._tokens, self._operations, self._overlap]
        found = {"counts": torch.tensor(counts, dtype=torch.float64)}
        if self.routed is not None and self._finder is not None:
            found |= {f"routed.{name}": tensor for name, tensor in self.routed.tensors().items()}
            found |= {f"finder.{name}": tensor for name, tensor in self._finder.tensors().items()}
        if self.bank is not None:
            self.bank.prepare(step)
            found |= {f"bank.{name}": tensor for name, tensor in self.bank.tensors().items()}
        return found

    def saved(self, step: int) -> None:
        """The bank may forget how it was before this checkpoint."""
        if self.bank is not None:
            self.bank.commit(step)

    def restore(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Take up memory and paths."""
        parts: dict[str, dict[str, Tensor]] = {"routed": {}, "finder": {}, "bank": {}}
        for name, tensor in tensors.items():
            part, _, own = name.partition(".")
            if own:
                parts[part][own] = tensor
        if tensors:
            epoch, tokens, self._operations, self._overlap = tensors["counts"].tolist()
            self._epoch, self._tokens = int(epoch), int(tokens)
            if self.routed is not None and self._finder is not None:
                self.routed.restore(parts["routed"])
                self._finder.restore(parts["finder"])
        if self.bank is not None:
            self.bank.rollback(step)
            self.bank.restore(parts["bank"])

    def _read(self, batch: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Remembered | None]:
        """What the student gets: a batch with the step's wrong tokens, and what is remembered of its mentions.

        In a sharded bank all processes must ask, whatever they ask for.
        """
        device = batch["input_ids"].device
        inputs = {name: value for name, value in batch.items() if not name.startswith((HOST, "step_"))}
        for name in ("negatives", "log_q"):
            inputs[name] = moved(torch.from_numpy(getattr(self.feed, name)), device)
        if self.bank is None or not self._share:
            return inputs, None
        distinct, place = np.unique(batch[f"{HOST}injected_entity"].numpy(), return_inverse=True)
        local, whole, _ = self.bank.read(distinct)
        index = moved(torch.from_numpy(place), local.device)
        return inputs, Remembered(local[index], whole[index], self._share)

    def _write(self, bank: Bank) -> None:
        """Write the notes of the step; a bank of one process gets those of all processes."""
        size = self.student.lm.config.hidden_size
        nothing = torch.zeros(0, size, device=self._runtime.device)
        entity, mention = (
            np.concatenate([np.zeros(0, dtype=np.int64), *(one[part] for one in self._notes)]) for part in (0, 1)
        )
        local, first = (torch.cat([nothing, *(one[part] for one in self._notes)]) for part in (2, 3))
        self._notes = []
        runtime = self._runtime
        if runtime.processes > 1 and not isinstance(bank, ShardedBank):
            entity, mention = (
                runtime.gather_rows(torch.from_numpy(part).to(runtime.device)).cpu().numpy()
                for part in (entity, mention)
            )
            local, first = runtime.gather_rows(local), runtime.gather_rows(first)
        bank.write(entity, mention.astype(np.uint64), local, first)
