"""TransE: its step against torch's own dense one, its resume bit for bit, its scores against plain ranks."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from kbench.engine.counter import below, permuted
from kbench.engine.seeding import derive
from kbench.knowledge.neighbours import Neighbours
from kbench.knowledge.transe import Rules, Training, adagrad, hinge, ranking

from .test_neighbours import ENTITIES, RELATIONS, random_triples

RULES = Rules(dimension=8, epochs=4, lr=0.1, batch_size=32, negatives=10, margin=1.0, norm=1, seed=3)
NEVER = {"save_every": 1e9, "say_every": 1e9}


def training(folder: Path, rules: Rules = RULES, triples: np.ndarray | None = None) -> Training:
    return Training(random_triples() if triples is None else triples, ENTITIES, RELATIONS, rules, folder)


def made(one: Training) -> bytes:
    return b"".join(array.tobytes() for array in one.vectors())


@pytest.mark.parametrize("norm", [1, 2])
def test_the_loss_against_plain_loops(norm: int) -> None:
    drawn = np.random.default_rng(0)
    head, relation, tail, heads, tails = (drawn.normal(size=(size, 5)) for size in (3, 3, 3, 4, 4))
    not_head, not_tail = drawn.random((3, 4)) < 0.7, drawn.random((3, 4)) < 0.7
    lost = []
    for row in range(3):
        near = np.linalg.norm(head[row] + relation[row] - tail[row], norm)
        for place in range(4):
            if not_tail[row, place]:
                far = np.linalg.norm(head[row] + relation[row] - tails[place], norm)
                lost.append(max(0.0, 1 + near - far))
            if not_head[row, place]:
                far = np.linalg.norm(heads[place] + relation[row] - tail[row], norm)
                lost.append(max(0.0, 1 + near - far))
    tensors = [torch.from_numpy(array) for array in (head, relation, tail, heads, tails, not_head, not_tail)]
    assert 0.0 in lost and max(lost) > 1
    true, wrong, kept = tuple(tensors[:3]), tuple(tensors[3:5]), tuple(tensors[5:])
    total, count = hinge(true, wrong, kept, margin=1.0, norm=norm)
    assert (float(total), int(count)) == (pytest.approx(sum(lost)), len(lost))


def test_a_loss_by_hand() -> None:
    def row(*numbers: float) -> torch.Tensor:
        return torch.tensor([numbers], dtype=torch.float32)

    # the true tail is 1 away, the wrong one 2.5: of a margin of 4, 2.5 is missing; the wrong head is the triple's own
    yes, no = torch.tensor([[True]]), torch.tensor([[False]])
    true, wrong = (row(0, 0), row(1, 0), row(1, 1)), (row(0, 0), row(3.5, 0))
    loss, count = hinge(true, wrong, (no, yes), margin=4.0, norm=1)
    assert (float(loss), int(count)) == (2.5, 1)


def test_adagrad_is_torchs_on_the_rows_and_leaves_the_others() -> None:
    torch.manual_seed(0)
    vectors, squares = torch.randn(20, 4), torch.zeros(20, 4)
    dense = torch.nn.Parameter(vectors.clone())
    optimizer = torch.optim.Adagrad([dense], lr=0.3)
    before = vectors.clone()
    for turn in range(3):
        rows, gradients = torch.tensor([3, 7, 3, turn]), torch.randn(4, 4)
        dense.grad = torch.zeros(20, 4).index_add_(0, rows, gradients)
        optimizer.step()
        assert adagrad(vectors, squares, rows, gradients, 0.3).tolist() == sorted({3, 7, turn})
    assert torch.allclose(vectors, dense.detach(), atol=1e-6)
    assert torch.equal(vectors[8:], before[8:])
    assert not squares[8:].any()


@pytest.mark.parametrize(("norm", "bounded"), [(1, True), (2, True), (1, False)])
def test_steps_against_dense_ones(norm: int, bounded: bool, tmp_path: Path) -> None:
    rules = replace(RULES, norm=norm, bounded=bounded, lr=0.5)
    triples = random_triples()
    one = training(tmp_path, rules)
    first = [torch.nn.Parameter(torch.from_numpy(array.copy())) for array in one.vectors()]
    assert first[0].abs().max() <= 6 / 8**0.5 and first[0].abs().max() > 1.5
    assert torch.allclose(first[1].norm(dim=1), torch.ones(RELATIONS))
    optimizer = torch.optim.Adagrad(first, lr=0.5)
    for step in range(7):  # 5 steps an epoch
        epoch, place = divmod(step, 5)
        positions = np.arange(32 * place, min(32 * place + 32, 160))
        head, relation, tail = triples[permuted(positions, 160, derive(3, "transe", "order"), epoch)].astype(int).T
        wrong = below(ENTITIES, derive(3, "transe", "wrong"), step, np.arange(20))
        total, count = torch.zeros(()), 0
        entities, relations = first
        for h, r, t in zip(head, relation, tail, strict=True):
            near = torch.linalg.vector_norm(entities[h] + relations[r] - entities[t], norm)
            for other in wrong[:10]:
                if other != h:
                    far = torch.linalg.vector_norm(entities[other] + relations[r] - entities[t], norm)
                    total, count = total + torch.relu(1 + near - far), count + 1
            for other in wrong[10:]:
                if other != t:
                    far = torch.linalg.vector_norm(entities[h] + relations[r] - entities[other], norm)
                    total, count = total + torch.relu(1 + near - far), count + 1
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        for one_of in first:
            one_of.grad /= count
        optimizer.step()
        if bounded:
            touched = np.unique(np.concatenate([head, tail, wrong]))
            with torch.no_grad():
                entities[touched] /= entities[touched].norm(dim=1, keepdim=True).clamp_min(1.0)
        one.advance()
    for found, wanted in zip(one.vectors(), first, strict=True):
        assert np.allclose(found, wanted.detach().numpy(), atol=2e-4)
    assert bool((np.linalg.norm(one.vectors()[0], axis=1) > 1.001).any()) is not bounded


class StoppedError(Exception):
    """What a runtime raises that is asked to stop."""


def stop_after(steps: int) -> Callable[[], None]:
    left = iter(range(steps))

    def check() -> None:
        if next(left, None) is None:
            raise StoppedError

    return check


@pytest.mark.parametrize("stops", [[1], [5], [7, 3, 6]])
def test_a_stopped_training_ends_in_the_same_bytes(stops: list[int], tmp_path: Path) -> None:
    whole = training(tmp_path / "whole")
    whole.run(**NEVER)
    assert (whole.step, len(whole.losses)) == (20, 4)
    assert whole.losses[-1] < whole.losses[0]
    done = 0
    for steps in stops:
        with pytest.raises(StoppedError):
            training(tmp_path / "cut").run(stop_after(steps), **NEVER)
        done += steps
        assert [path.name for path in (tmp_path / "cut").iterdir()] == [f"step-{done:010d}"]
    last = training(tmp_path / "cut")
    assert last.step == done
    last.run(**NEVER)
    assert (made(last), last.losses) == (made(whole), whole.losses)
    last.forget()
    assert not list((tmp_path / "cut").iterdir())


def test_a_killed_training_goes_on_from_what_was_saved_whole(tmp_path: Path) -> None:
    whole = training(tmp_path / "whole")
    whole.run(**NEVER)
    cut = training(tmp_path / "cut")
    for _ in range(6):
        cut.advance()
    cut.save()
    cut.advance()  # lost
    half = tmp_path / "cut" / "step-0000000007.tmp"  # killed while it wrote
    half.mkdir()
    (half / "entities.npy").write_bytes(b"half")
    again = training(tmp_path / "cut")
    assert again.step == 6
    again.run(save_every=0.0)
    assert made(again) == made(whole)
    assert [path.name for path in (tmp_path / "cut").iterdir()] == ["step-0000000019"]
    finished = training(tmp_path / "cut")
    finished.run()
    finished.save()
    assert made(training(tmp_path / "cut")) == made(whole)


def test_a_state_of_another_training_is_not_continued(tmp_path: Path) -> None:
    one = training(tmp_path)
    one.advance()
    one.save()
    assert training(tmp_path).step == 1
    assert training(tmp_path, replace(RULES, lr=0.2)).step == 0
    assert training(tmp_path, triples=random_triples(150)).step == 0


def test_seeds_and_what_is_told(tmp_path: Path) -> None:
    told: list[str] = []
    one, same, other = (training(tmp_path / n, replace(RULES, seed=s)) for n, s in (("a", 3), ("b", 3), ("c", 4)))
    for which in (one, same, other):
        which.run(say=told.append)
    assert made(one) == made(same) != made(other)
    assert len(told) == 3
    assert told[0].startswith(f"epoch 4.00 of 4, loss {one.losses[-1]:.4f}, ")


@pytest.mark.parametrize("norm", [1, 2])
def test_ranks_against_plain_ones(norm: int, monkeypatch: pytest.MonkeyPatch) -> None:
    triples = random_triples()
    drawn = np.random.default_rng(1)
    # whole numbers: many distances are equal
    entities, relations = (drawn.integers(-2, 3, (size, 3)).astype(np.float32) for size in (ENTITIES, RELATIONS))
    known = {tuple(row) for row in triples.tolist()}
    ranks = []
    for asks_tail in (True, False):
        for head, relation, tail in triples[5:90].tolist():
            gold, far = tail if asks_tail else head, {}
            for one in range(ENTITIES):
                h, t = (head, one) if asks_tail else (one, tail)
                if one == gold or (h, relation, t) not in known:
                    apart = (entities[h] + relations[relation] - entities[t]).astype(float)
                    far[one] = np.linalg.norm(apart, norm).round(5)
            right = far.pop(gold)
            values = np.array(list(far.values()))
            ranks.append(1 + (values < right).sum() + (values == right).sum() / 2)
    around = Neighbours(triples, ENTITIES)
    for size in (1 << 16, 7):
        monkeypatch.setattr("kbench.knowledge.transe._SLICE", size)
        found = ranking(entities, relations, around, np.arange(5, 90), norm)
        assert found["queries"] == 170 == len(ranks)
        assert found["mrr"] == pytest.approx(np.mean(1 / np.array(ranks)), abs=1e-6)
        assert found["hits@10"] == pytest.approx(np.mean(np.array(ranks) <= 10))
    assert 0.05 < found["mrr"] < 0.9


def test_vectors_of_a_grid_are_learnt(tmp_path: Path) -> None:
    """Places of a grid, one step east or north of each other: head + relation can be tail exactly."""
    east = [(10 * y + x, 0, 10 * y + x + 1) for y in range(10) for x in range(9)]
    north = [(10 * y + x, 1, 10 * y + x + 10) for y in range(9) for x in range(10)]
    triples = np.array(east + north, dtype=np.int32)
    rules = replace(RULES, epochs=120, batch_size=64, negatives=30, dimension=16, margin=0.5)
    one = Training(triples, 100, 2, rules, tmp_path)
    around, rows = Neighbours(triples, 100), np.arange(len(triples))
    before = ranking(*one.vectors(), around, rows, 1)
    one.run()
    after = ranking(*one.vectors(), around, rows, 1)
    assert before["mrr"] < 0.15
    assert after["mrr"] > 0.6 and after["hits@10"] > 0.95, after


def test_what_is_saved_is_plain(tmp_path: Path) -> None:
    one = training(tmp_path)
    one.advance()
    one.save()
    (folder,) = tmp_path.iterdir()
    names = {"entities.npy", "relations.npy", "entity_squares.npy", "relation_squares.npy", "state.json"}
    assert {path.name for path in folder.iterdir()} == names
    state = json.loads((folder / "state.json").read_text())
    assert state["asked"]["entities"] == [ENTITIES, 8] and len(state["losses"]) == 1
    assert np.load(folder / "entity_squares.npy", allow_pickle=False).shape == (ENTITIES, 8)
