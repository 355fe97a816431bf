"""TransE (Bordes et al. 2013): a vector for each entity and relation, so that head + relation is near tail.

A step takes a batch of true triples; wrong tails and wrong heads are drawn uniformly and shared by the whole batch
(GraSH, Kochsiek et al. 2022). The loss is the mean over all wrong ones, but a triple's own, of
max(0, margin + distance of the true triple - distance of the wrong one). Only the rows that a step touches are read,
moved and written: beside the vectors there is one number for each of theirs, Adagrad's sum of squares (Duchi et al.
2011), an element each as in LibKGE, with which GraSH found its rate. After its step a touched entity longer than 1 is
cut to length 1, the constraint of Bordes et al. in the form of Fast-TransX, ERNIE's trainer: without a bound, a margin
loss is lowered by making all vectors longer.

Order, wrong triples and first values are functions of the seed and of the step they are for, so a killed training goes
on at its last saved step and ends in the same bytes. While it is unfinished the folder `work` holds

step-<steps done>/  entities.npy, relations.npy and their sums of squares, float32; state.json: the losses so far
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kbench.engine.counter import below, permuted, uniform
from kbench.engine.seeding import derive
from kbench.knowledge.neighbours import Neighbours

EPSILON = 1e-10  # Adagrad's, of torch and LibKGE
_STATE = "step-"
_SLICE = 1 << 16  # entities that are compared with at a time
_QUERIES = 64
_ROWS = 1 << 14  # rows of first values that are drawn at a time


@dataclass(frozen=True)
class Rules:
    """How the vectors are trained.

    Attributes:
        dimension: numbers in a vector.
        epochs: passes over the triples.
        lr: Adagrad's rate; it does not decay.
        batch_size: triples in a step.
        negatives: wrong heads, and as many wrong tails, that a step draws.
        margin: by how much a true triple is to be nearer than a wrong one.
        norm: 1 or 2: distances are of L1 or L2.
        seed: of all draws.
        bounded: entities are cut to length 1 (L2).
    """

    dimension: int
    epochs: int
    lr: float
    batch_size: int
    negatives: int
    margin: float
    norm: int
    seed: int
    bounded: bool = True


@dataclass
class _State:
    """What a training has made so far: [n, d] and [m, d], and the sums of squares of their gradients."""

    entities: Tensor
    relations: Tensor
    entity_squares: Tensor
    relation_squares: Tensor

    def tensors(self) -> dict[str, Tensor]:
        return dict(vars(self))


class Training:
    """A training that can be saved between any two steps.

    Args:
        triples: head, relation, tail [t, 3].
        entities, relations: how many there are.
        rules: see `Rules`.
        work: folder for what is saved; an unfinished training in it is continued.
        device: where the vectors are held and moved: cpu or cuda.
    """

    def __init__(
        self, triples: np.ndarray, entities: int, relations: int, rules: Rules, work: Path, device: str = "cpu"
    ):
        self.rules, self.work, self.device = rules, work, torch.device(device)
        self.triples, self.entities = triples, entities
        self.steps_an_epoch = -(-len(triples) // rules.batch_size)
        self.steps = rules.epochs * self.steps_an_epoch
        shapes = {"entities": (entities, rules.dimension), "relations": (relations, rules.dimension)}
        self._asked = {**asdict(rules), "triples": len(triples), **{name: list(size) for name, size in shapes.items()}}
        found = self._saved()
        self.step, self.losses = 0, [0.0]
        if found is None:
            first = {name: self._first(name, size) for name, size in shapes.items()}
            first["relations"] /= np.linalg.norm(first["relations"], axis=1, keepdims=True)
            arrays = [*first.values(), *(np.zeros(size, dtype=np.float32) for size in shapes.values())]
        else:
            self.step, self.losses, arrays = found
        self.state = _State(*(torch.from_numpy(array).to(self.device) for array in arrays))
        self._order, self._wrong = (derive(rules.seed, "transe", what) for what in ("order", "wrong"))
        self._loss = torch.tensor(self.losses.pop(), dtype=torch.float64, device=self.device)

    def run(
        self,
        check_stop: Callable[[], None] = lambda: None,
        say: Callable[[str], None] = lambda told: None,
        save_every: float = 120.0,
        say_every: float = 20.0,
    ) -> None:
        """Train to the end.

        Args:
            check_stop: asked before each step; what it raises is passed on after saving.
            say: told how far it is, a line each time.
            save_every, say_every: seconds.
        """
        began = saved = told = time.monotonic()
        first = self.step
        while self.step < self.steps:
            try:
                check_stop()
            except Exception:
                self.save()
                raise
            self.advance()
            now = time.monotonic()
            if now - told > say_every or self.step == self.steps:
                rate = (self.step - first) * self.rules.batch_size / (now - began)
                epoch, told = self.step / self.steps_an_epoch, now
                say(f"epoch {epoch:.2f} of {self.rules.epochs}, loss {self._recent():.4f}, {rate:,.0f} triples/s")
            if now - saved > save_every and self.step < self.steps:
                self.save()
                saved = time.monotonic()

    def advance(self) -> None:
        """One step."""
        epoch, place = divmod(self.step, self.steps_an_epoch)
        start = place * self.rules.batch_size
        positions = np.arange(start, min(start + self.rules.batch_size, len(self.triples)))
        rows = self.triples[permuted(positions, len(self.triples), self._order, epoch)]
        drawn = below(self.entities, self._wrong, self.step, np.arange(2 * self.rules.negatives))
        head, relation, tail = torch.from_numpy(rows.astype(np.int64).T.copy()).to(self.device)
        heads, tails = torch.from_numpy(drawn.reshape(2, -1)).to(self.device)

        state, parts = self.state, (head, tail, heads, tails)
        taken = [state.entities[part].requires_grad_() for part in parts]
        through = state.relations[relation].requires_grad_()
        kept = (heads != head[:, None], tails != tail[:, None])
        of_head, of_tail, *wrong = taken
        true = (of_head, through, of_tail)
        lost, count = hinge(true, (wrong[0], wrong[1]), kept, self.rules.margin, self.rules.norm)
        # of the sum, not the mean: with L1 these are whole numbers, so that what cancels is 0 and not a rounding error,
        # which Adagrad's first step would blow up to its full length
        *gradients, of_relation = (one / count for one in torch.autograd.grad(lost, [*taken, through]))
        moved = adagrad(state.entities, state.entity_squares, torch.cat(parts), torch.cat(gradients), self.rules.lr)
        adagrad(state.relations, state.relation_squares, relation, of_relation, self.rules.lr)
        if self.rules.bounded:
            vectors = state.entities[moved]
            state.entities[moved] = vectors / vectors.norm(dim=1, keepdim=True).clamp_min(1.0)

        self._loss += (lost.detach() / count).double() * len(rows)
        self.step += 1
        if self.step % self.steps_an_epoch == 0:
            self.losses.append(float(self._loss) / len(self.triples))
            self._loss.zero_()

    def save(self) -> None:
        """Write the state, then take older ones away."""
        folder = self.work / f"{_STATE}{self.step:010d}"
        if folder.is_dir():
            return
        self.work.mkdir(parents=True, exist_ok=True)
        fresh = folder.with_suffix(".tmp")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        for name, tensor in self.state.tensors().items():
            with (fresh / f"{name}.npy").open("wb") as file:
                np.save(file, tensor.cpu().numpy(), allow_pickle=False)
                _sync(file)
        state = {"asked": self._asked, "losses": [*self.losses, float(self._loss)]}
        with (fresh / "state.json").open("w", encoding="utf-8") as file:
            json.dump(state, file)
            _sync(file)
        fresh.rename(folder)
        self.forget(but=folder)

    def forget(self, but: Path | None = None) -> None:
        """Remove what is saved."""
        for folder in self.work.glob(f"{_STATE}*"):
            if folder != but:
                shutil.rmtree(folder)

    def vectors(self) -> tuple[np.ndarray, np.ndarray]:
        """Entities [n, d] and relations [m, d], float32."""
        return self.state.entities.cpu().numpy(), self.state.relations.cpu().numpy()

    def _recent(self) -> float:
        """Mean loss of the epoch so far, or of the one that just ended."""
        within = self.step % self.steps_an_epoch * self.rules.batch_size
        return float(self._loss) / within if within else self.losses[-1]

    def _first(self, name: str, size: tuple[int, ...]) -> np.ndarray:
        """Uniform between plus and minus 6 / sqrt(d) (Bordes et al. 2013, algorithm 1)."""
        found = np.empty(size, dtype=np.float32)
        key, bound = derive(self.rules.seed, "transe", name), 6 / np.sqrt(size[1])
        for start in range(0, size[0], _ROWS):
            rows = np.arange(start, min(start + _ROWS, size[0]))
            found[rows] = (2 * uniform(key, rows[:, None], np.arange(size[1])) - 1) * bound
        return found

    def _saved(self) -> tuple[int, list[float], list[np.ndarray]] | None:
        """Steps, losses and arrays of the last state of the same training that was saved whole."""
        for folder in sorted(self.work.glob(f"{_STATE}*[0-9]"), reverse=True):
            state: dict[str, Any] = json.loads((folder / "state.json").read_text(encoding="utf-8"))
            if state["asked"] == self._asked:
                names = ("entities", "relations", "entity_squares", "relation_squares")
                arrays = [np.load(folder / f"{name}.npy", allow_pickle=False) for name in names]
                return int(folder.name.removeprefix(_STATE)), state["losses"], arrays
        return None


def hinge(
    true: tuple[Tensor, Tensor, Tensor],
    wrong: tuple[Tensor, Tensor],
    kept: tuple[Tensor, Tensor],
    margin: float,
    norm: int,
) -> tuple[Tensor, Tensor]:
    """Sum over wrong triples of max(0, margin + d(h + r, t) - d(wrong)), and how many they are, at least 1; scalars.

    Args:
        true: head, relation and tail of the true triples [B, d].
        wrong: heads, and tails, that all triples share [K, d].
        kept: bool [B, K] of wrong heads, and of wrong tails; False where one is the triple's own: it is left out.
        margin: see `Rules`.
        norm: 1 or 2.
    """
    head, relation, tail = true
    reached = head + relation
    near = (reached - tail).norm(p=norm, dim=1, keepdim=True)
    lost = near.new_zeros(())
    for query, others, counted in ((tail - relation, wrong[0], kept[0]), (reached, wrong[1], kept[1])):
        far = torch.cdist(query, others, p=float(norm))
        lost = lost + (torch.relu(margin + near - far) * counted).sum()
    return lost, (kept[0].sum() + kept[1].sum()).clamp_min(1)


def adagrad(vectors: Tensor, squares: Tensor, rows: Tensor, gradients: Tensor, lr: float) -> Tensor:
    """Move some rows in place: s += g^2, v -= lr g / (sqrt(s) + 1e-10), an element each; gives the rows, each once.

    Args:
        vectors, squares: [n, d]; all rows but those named stay as they are.
        rows: int64 [k]; the gradients of one that stands there several times are summed.
        gradients: [k, d].
        lr: the rate.
    """
    # coalescing sums in one order on every device, which adding by index does not
    summed = torch.sparse_coo_tensor(rows[None], gradients, tuple(vectors.shape), check_invariants=False).coalesce()
    rows, gradient = summed.indices()[0], summed.values()
    total = squares[rows] + gradient * gradient
    squares[rows] = total
    vectors[rows] -= lr * gradient / (total.sqrt() + EPSILON)
    return rows


def ranking(
    entities: np.ndarray, relations: np.ndarray, neighbours: Neighbours, rows: np.ndarray, norm: int,
    device: str = "cpu",
) -> dict[str, float]:  # fmt: skip
    """How well vectors know triples: mean reciprocal rank and hits at 10 of their tails and heads.

    A query is (h, r, ?) or (?, r, t), its candidates are all entities, the other true answers left out ("filtered",
    Bordes et al. 2013). Of equal distances half count as better.

    Args:
        entities, relations: the vectors [n, d], [m, d].
        neighbours: of the triples that are true.
        rows: the triples to ask for [k].
        norm: 1 or 2, of the distance.
        device: where it is computed.

    Returns:
        mrr and hits@10, shares, and `queries`, how many they are the mean of: 2 k.
    """
    known = torch.from_numpy(np.array(relations)).to(device)
    ranks = []
    for is_head in (True, False):
        for start in range(0, len(rows), _QUERIES):
            chosen = rows[start : start + _QUERIES]
            head, relation, tail = np.asarray(neighbours.triples[chosen], dtype=np.int64).T
            given, gold = (head, tail) if is_head else (tail, head)
            step = known[torch.from_numpy(relation).to(device)]
            query = torch.from_numpy(entities[given]).to(device) + (step if is_head else -step)
            right = (query - torch.from_numpy(entities[gold]).to(device)).norm(p=norm, dim=1)
            others, ends = neighbours.others(chosen, np.full(len(chosen), is_head), len(entities))
            of = np.repeat(np.arange(len(chosen)), np.diff(ends, prepend=0))
            ranks.append(_ranks(query, right, gold, entities, np.stack([of, others]), norm))
    found = np.concatenate(ranks)
    return {"mrr": float(np.mean(1 / found)), "hits@10": float(np.mean(found <= 10)), "queries": len(found)}


def _ranks(
    query: Tensor, right: Tensor, gold: np.ndarray, entities: np.ndarray, others: np.ndarray, norm: int
) -> np.ndarray:
    """Rank of the gold answer of each query [Q]; `others` [2, k]: query and entity of answers to leave out."""
    better = torch.zeros(len(query), dtype=torch.float64, device=query.device)
    row, places = torch.arange(len(query)), torch.from_numpy(gold)
    order = np.argsort(others[1], kind="stable")
    others = others[:, order]
    for start in range(0, len(entities), _SLICE):
        block = torch.from_numpy(np.array(entities[start : start + _SLICE])).to(query.device)
        mode = "donot_use_mm_for_euclid_dist"  # as exact as the gold answer's, so that equals are equal
        far = torch.cdist(query, block, p=float(norm), compute_mode=mode)
        low, high = np.searchsorted(others[1], [start, start + len(block)])
        skipped = torch.from_numpy(others[:, low:high]).to(query.device)
        far[skipped[0], skipped[1] - start] = torch.inf
        inside = (places >= start) & (places < start + len(block))
        far[row[inside].to(query.device), (places[inside] - start).to(query.device)] = torch.inf
        better += (far < right[:, None]).sum(dim=1) + 0.5 * (far == right[:, None]).sum(dim=1)
    return 1 + better.cpu().numpy()


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
