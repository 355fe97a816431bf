"""TRELM's memory bank: of every entity a local and a global memory, read before a step and written after it.

    local    M_l[e] <- (1 - gamma) M_l[e] + gamma n(e)    n(e): mean of the notes of e in the step    (equation 5)
    global   M_g[e] <- mean of the first states of all mentions of e so far                           (equation 6)

A bank is training state: no gradient reaches it, it goes with the checkpoint, never with the exported model. What a
write leaves does not depend on the order of its rows, nor on how they are spread over batches and processes: sums are
made in the order of (entity, key). A row begins when it is first written; until then it is what `initial` says.

Three back ends: `RowsBank` in memory, `mapped_bank.MappedBank` in a file, `ShardedBank` over the processes of a run.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kbench.engine.feed import moved

GLOBAL_MEANS = ("running", "per_epoch")

Initial = Callable[[np.ndarray], Tensor]


class Bank(ABC):
    """What a method sees of a bank. On several processes all of them make the same calls.

    Attributes:
        width: d, of a row.
        device: where rows are given.
    """

    width: int
    device: torch.device

    @abstractmethod
    def read(self, entities: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """M_l and M_g [U, d], float32, and how often each was seen, int64 [U]; M_g is M_l while that is 0.

        Args:
            entities: distinct, int64 [U]; U may be 0.
        """

    @abstractmethod
    def write(self, entities: np.ndarray, keys: np.ndarray, notes: Tensor, cls: Tensor) -> None:
        """Remember the mentions of one step, of all its micro batches.

        Args:
            entities: of each mention, int64 [N], also several times; N may be 0.
            keys: a number for each mention, uint64 [N], that no other of the same entity has in this step.
            notes: n(e, x) [N, d].
            cls: the first state of each mention's sequence [N, d].
        """

    @abstractmethod
    def next_epoch(self) -> None:
        """An epoch has ended: with the global mean "per_epoch" it begins anew."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint must hold; empty where the bank keeps its own files."""

    @abstractmethod
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what `tensors` gave; of none: the empty bank."""

    @abstractmethod
    def prepare(self, step: int) -> None:
        """A checkpoint of the state as it is now, after `step` steps, is about to be written."""

    @abstractmethod
    def commit(self, step: int) -> None:
        """The checkpoint of `step` stands: no earlier one will be asked for."""

    @abstractmethod
    def rollback(self, step: int) -> None:
        """Be as at the checkpoint of `step`; 0: empty. Comes before `restore`."""

    def close(self) -> None:  # noqa: B027 - most banks have no files
        """The training has ended: let go of files."""


@dataclass
class Rows:
    """Some rows of a bank.

    Attributes:
        local, overall: M_l and M_g, float32 [U, d] on the bank's device.
        counts: how often each was seen since its mean began, int64 [U].
        stamps: 1 + the epoch in which that was; 0: never written; int64 [U].
    """

    local: Tensor
    overall: Tensor
    counts: np.ndarray
    stamps: np.ndarray


class OwnBank(Bank):
    """The equations, for banks that hold all their rows themselves: they say how rows are taken and put.

    Args:
        width: d, of a row.
        initial: float32 [U, d] of entities [U], the local memory of such as were not seen: always the same.
        gamma: weight of a new note (recalled of TNF: 0.1).
        global_mean: "running": over all that was seen; "per_epoch": over the epoch (facts, ambiguity 17).
        device: of what is read; what is written is brought there.
    """

    def __init__(
        self,
        width: int,
        initial: Initial,
        *,
        gamma: float = 0.1,
        global_mean: str = "running",
        device: torch.device | str = "cpu",
    ):
        if global_mean not in GLOBAL_MEANS:
            raise ValueError(f"global_mean is {' or '.join(GLOBAL_MEANS)}, not {global_mean!r}")
        self.width, self.device = width, torch.device(device)
        self.epoch = 0
        self._initial, self._gamma, self._global_mean = initial, gamma, global_mean

    @abstractmethod
    def _take(self, entities: np.ndarray) -> Rows:
        """The rows of distinct entities; what a row that was never written holds does not matter."""

    @abstractmethod
    def _put(self, entities: np.ndarray, rows: Rows) -> None:
        """Store the rows of distinct entities, ascending."""

    def read(self, entities: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """See `Bank`. Reading changes nothing."""
        rows = self._taken(np.asarray(entities, dtype=np.int64))
        seen = moved(torch.from_numpy(rows.counts > 0), self.device)
        overall = torch.where(seen[:, None], rows.overall, rows.local)
        return rows.local, overall, moved(torch.from_numpy(rows.counts), self.device)

    @torch.no_grad()
    def write(self, entities: np.ndarray, keys: np.ndarray, notes: Tensor, cls: Tensor) -> None:
        """See `Bank`."""
        if not len(entities):
            return
        found, sizes, note, state = averaged(entities, keys, notes.to(self.device), cls.to(self.device))
        rows = self._taken(found)
        counts = rows.counts + sizes
        part = moved(torch.from_numpy((sizes / counts).astype(np.float32)), self.device)[:, None]
        local = (1 - self._gamma) * rows.local + self._gamma * note
        overall = rows.overall + part * (state - rows.overall)
        self._put(found, Rows(local, overall, counts, np.full(len(found), self.epoch + 1)))

    def next_epoch(self) -> None:
        """See `Bank`. Takes no time: a row says of which epoch its mean is."""
        if self._global_mean == "per_epoch":
            self.epoch += 1

    def _taken(self, entities: np.ndarray) -> Rows:
        """The rows as they count now."""
        rows = self._take(entities)
        fresh = np.flatnonzero(rows.stamps == 0)
        if len(fresh):
            place = moved(torch.from_numpy(fresh), self.device)
            rows.local[place] = self._initial(entities[fresh]).to(self.device, torch.float32)
        old = np.flatnonzero(rows.stamps != self.epoch + 1)
        rows.counts[old] = 0
        rows.overall[moved(torch.from_numpy(old), self.device)] = 0
        return rows


class RowsBank(OwnBank):
    """A bank in the memory of the device, with a row for each entity that may come.

    Args:
        entities: those that may come, int64, distinct; others are refused.
        others: as of `OwnBank`.
    """

    def __init__(self, entities: np.ndarray, width: int, initial: Initial, **others: object):
        super().__init__(width, initial, **others)  # type: ignore[arg-type]
        self._entities = np.sort(np.asarray(entities, dtype=np.int64))
        self.restore({})

    def tensors(self) -> dict[str, Tensor]:
        """The rows that were written, by ascending entity."""
        made = np.flatnonzero(self._stamps)
        place = moved(torch.from_numpy(made), self.device)
        return {
            "entities": torch.from_numpy(self._entities[made]),
            "counts": torch.from_numpy(self._counts[made]),
            "stamps": torch.from_numpy(self._stamps[made]),
            "local": self._local[place],
            "global": self._overall[place],
            "epoch": torch.tensor([self.epoch]),
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """See `Bank`; `tensors` may hold fewer entities than the bank, not others."""
        size = len(self._entities)
        self._local = torch.zeros(size, self.width, device=self.device)
        self._overall = torch.zeros(size, self.width, device=self.device)
        self._counts, self._stamps = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.int64)
        self.epoch = 0
        if tensors:
            entities, counts, stamps = (tensors[name].cpu().numpy() for name in ("entities", "counts", "stamps"))
            local, overall = (tensors[name].to(self.device, torch.float32) for name in ("local", "global"))
            self._put(entities, Rows(local, overall, counts, stamps))
            self.epoch = int(tensors["epoch"])

    def prepare(self, step: int) -> None:
        """Nothing: the checkpoint holds the rows."""

    def commit(self, step: int) -> None:
        """Nothing, likewise."""

    def rollback(self, step: int) -> None:
        """Nothing, likewise: `restore` takes them up."""

    def _take(self, entities: np.ndarray) -> Rows:
        slots = self._slots(entities)
        place = moved(torch.from_numpy(slots), self.device)
        return Rows(self._local[place], self._overall[place], self._counts[slots], self._stamps[slots])

    def _put(self, entities: np.ndarray, rows: Rows) -> None:
        slots = self._slots(entities)
        place = moved(torch.from_numpy(slots), self.device)
        self._local[place], self._overall[place] = rows.local, rows.overall
        self._counts[slots], self._stamps[slots] = rows.counts, rows.stamps

    def _slots(self, entities: np.ndarray) -> np.ndarray:
        found = np.searchsorted(self._entities, entities)
        there = self._entities[np.minimum(found, len(self._entities) - 1)] if len(self._entities) else found - 1
        if (strange := entities[there != entities]).size:
            raise ValueError(f"the bank has no row for entity {strange[0]}")
        return found


class ShardedBank(Bank):
    """A bank whose rows are spread over processes: entity e is with process e mod processes.

    Args:
        inner: this process's bank, of any back end; it is asked for its own entities only (`owned`).
        rank: of this process.
        processes: how many there are.
        gather: gives of this process's tensor [n, ..] those of all processes joined in the order of their ranks; n is
            the same on all of them.
        reduce: gives the sum over the processes of a tensor.
    """

    def __init__(
        self,
        inner: Bank,
        rank: int,
        processes: int,
        gather: Callable[[Tensor], Tensor],
        reduce: Callable[[Tensor], Tensor],
    ):
        self.inner, self.width, self.device = inner, inner.width, inner.device
        self._rank, self._processes, self._gather, self._reduce = rank, processes, gather, reduce

    def read(self, entities: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """See `Bank`: every process puts its rows of what any of them asks for, and takes those it asked for."""
        if self._processes == 1:
            return self.inner.read(entities)
        entities = np.asarray(entities, dtype=np.int64)
        asked = np.unique(self._joined(moved(torch.from_numpy(entities), self.device)).cpu().numpy())
        memory = torch.zeros(2, len(asked), self.width, device=self.device)
        counts = torch.zeros(len(asked), dtype=torch.int64, device=self.device)
        if len(asked):
            mine = owned(asked, self._rank, self._processes)
            place = moved(torch.from_numpy(np.searchsorted(asked, mine)), self.device)
            memory[0, place], memory[1, place], counts[place] = self.inner.read(mine)
            memory, counts = self._reduce(memory), self._reduce(counts)
        wanted = moved(torch.from_numpy(np.searchsorted(asked, entities)), self.device)
        return memory[0, wanted], memory[1, wanted], counts[wanted]

    @torch.no_grad()
    def write(self, entities: np.ndarray, keys: np.ndarray, notes: Tensor, cls: Tensor) -> None:
        """See `Bank`: every process gets all mentions and keeps those of its entities."""
        if self._processes == 1:
            return self.inner.write(entities, keys, notes, cls)
        order = np.asarray(keys, dtype=np.uint64).view(np.int64)
        numbers = np.stack([np.asarray(entities, dtype=np.int64), order], 1)
        every = self._joined(moved(torch.from_numpy(numbers), self.device)).cpu().numpy()
        states = self._joined(torch.cat([notes, cls], -1).float().to(self.device))
        kept = np.flatnonzero(every[:, 0] % self._processes == self._rank)
        mine = states[moved(torch.from_numpy(kept), self.device)]
        own, order = every[kept, 0], every[kept, 1].view(np.uint64)
        return self.inner.write(own, order, mine[:, : self.width], mine[:, self.width :])

    def next_epoch(self) -> None:
        """See `Bank`."""
        self.inner.next_epoch()

    def tensors(self) -> dict[str, Tensor]:
        """See `Bank`; the rows of all processes, on every process, as one bank would give them."""
        own = self.inner.tensors()
        if self._processes == 1 or not own:
            return own
        whole = {name: self._joined(own[name].to(self.device)) for name in own if name != "epoch"}
        order = whole["entities"].argsort()
        return {**{name: tensor[order] for name, tensor in whole.items()}, "epoch": own["epoch"]}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """See `Bank`; of the rows of all processes this one keeps its own, however many wrote them."""
        if self._processes > 1 and tensors:
            mine = tensors["entities"] % self._processes == self._rank
            tensors = {name: tensor if name == "epoch" else tensor[mine] for name, tensor in tensors.items()}
        self.inner.restore(tensors)

    def prepare(self, step: int) -> None:
        """See `Bank`."""
        self.inner.prepare(step)

    def commit(self, step: int) -> None:
        """See `Bank`."""
        self.inner.commit(step)

    def rollback(self, step: int) -> None:
        """See `Bank`."""
        self.inner.rollback(step)

    def close(self) -> None:
        """See `Bank`."""
        self.inner.close()

    def _joined(self, own: Tensor) -> Tensor:
        """The rows of all processes, whose numbers differ, in the order of their ranks."""
        sizes = self._gather(torch.tensor([len(own)], device=self.device)).tolist()
        padded = own.new_zeros(max(sizes), *own.shape[1:])
        padded[: len(own)] = own
        if not max(sizes):
            return padded
        every = self._gather(padded).unflatten(0, (self._processes, max(sizes)))
        return torch.cat([every[rank, :size] for rank, size in enumerate(sizes)])


def owned(entities: np.ndarray, rank: int, processes: int) -> np.ndarray:
    """Those entities whose rows are with a process."""
    return entities[entities % processes == rank]


def averaged(
    entities: np.ndarray, keys: np.ndarray, notes: Tensor, cls: Tensor
) -> tuple[np.ndarray, np.ndarray, Tensor, Tensor]:
    """Mentions by entity: (distinct entities, ascending; mentions of each; mean notes; mean cls), float32 [U, d].

    Sums are made in float64 in the order of the keys, one row after another, so that they do not depend on the order
    in which the mentions are given.

    Raises:
        ValueError: two mentions of an entity have the same key.
    """
    entities = np.asarray(entities, dtype=np.int64)
    order = np.lexsort((keys, entities))
    same = (np.diff(entities[order]) == 0) & (keys[order][1:] == keys[order][:-1])
    if same.any():
        raise ValueError(f"two mentions of entity {entities[order][1:][same][0]} have the same key")
    found, sizes = np.unique(entities, return_counts=True)
    place = moved(torch.from_numpy(order), notes.device)
    lengths = moved(torch.from_numpy(sizes), notes.device)

    def mean(rows: Tensor) -> Tensor:
        chosen = rows.detach()[place].double()
        sums = torch.segment_reduce(chosen, "sum", lengths=lengths, axis=0, unsafe=True)
        return (sums / lengths[:, None]).float()

    return found, sizes, mean(notes), mean(cls)
