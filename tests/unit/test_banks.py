"""Memory banks against a loop over mentions, each back end against the others, and banks in files that are killed."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from kbench.engine.counter import below, mixed, uniform
from kbench.errors import DataError, StageError
from kbench.methods import mapped_bank
from kbench.methods.banks import Bank, RowsBank, ShardedBank, averaged, owned
from kbench.methods.mapped_bank import MappedBank

ENTITIES, WIDTH, PROCESSES = 40, 5, 3
Step = tuple[np.ndarray, np.ndarray, Tensor, Tensor]


def initial(entities: np.ndarray) -> Tensor:
    """What an entity is before it was seen: its number, in halves that float16 holds."""
    return torch.from_numpy(entities[:, None] / 2 + np.arange(WIDTH)).float()


def rows_bank(**others: Any) -> RowsBank:
    return RowsBank(np.arange(ENTITIES), WIDTH, initial, **others)


def mapped(folder: Path, **others: Any) -> MappedBank:
    return MappedBank(folder, ENTITIES, WIDTH, initial, **{"graph": "abc", "local": "float32", **others})


def step_of(number: int, mentions: int = 12) -> Step:
    """The mentions of a step: a few entities are there oftener than once."""
    place = np.arange(mentions)
    states = torch.from_numpy(uniform(number, 5, place[:, None, None], np.arange(2)[:, None], np.arange(WIDTH)))
    entities = below(ENTITIES // (1 + below(3, number, 6, place)), number, 7, place)
    return entities, mixed(number, 8, place), states[:, 0].float() * 8 - 4, states[:, 1].float() * 8 - 4


def every(bank: Bank) -> tuple[Tensor, Tensor, Tensor]:
    return bank.read(np.arange(ENTITIES))


def same(first: Bank, second: Bank) -> bool:
    return all(torch.equal(a, b) for a, b in zip(every(first), every(second), strict=True))


class Naive:
    """The equations, one mention at a time, in floats of Python."""

    def __init__(self, gamma: float = 0.1):
        self.gamma = gamma
        self.local: dict[int, list[float]] = {}
        self.seen: dict[int, list[list[float]]] = {}

    def write(self, entities: np.ndarray, _: np.ndarray, notes: Tensor, cls: Tensor) -> None:
        for entity in set(entities.tolist()):
            there = [row for row, one in enumerate(entities.tolist()) if one == entity]
            for place in range(WIDTH):
                note = sum(notes[row, place].item() for row in there) / len(there)
                before = self.local.setdefault(entity, initial(np.array([entity]))[0].tolist())
                before[place] = (1 - self.gamma) * before[place] + self.gamma * note
            self.seen.setdefault(entity, []).extend(cls[row].tolist() for row in there)

    def read(self) -> tuple[Tensor, Tensor, Tensor]:
        local = [self.local.get(entity, initial(np.array([entity]))[0].tolist()) for entity in range(ENTITIES)]
        means = [
            [sum(column) / len(column) for column in zip(*self.seen[entity], strict=True)]
            if entity in self.seen
            else local[entity]
            for entity in range(ENTITIES)
        ]
        counts = [len(self.seen.get(entity, [])) for entity in range(ENTITIES)]
        return torch.tensor(local), torch.tensor(means), torch.tensor(counts)


# the equations


def test_a_bank_follows_the_equations():
    bank, naive = rows_bank(gamma=0.3), Naive(gamma=0.3)
    for number in range(8):
        bank.write(*step_of(number))
        naive.write(*step_of(number))
        for found, wanted in zip(every(bank), naive.read(), strict=True):
            torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    counts = every(bank)[2]
    assert counts.max() > 5 and counts.sum() == 8 * 12  # the test has what it is about


def test_worked_numbers():
    bank = rows_bank(gamma=0.5)
    ones = torch.ones(1, WIDTH)
    local, overall, counts = bank.read(np.array([4, 2]))
    assert local[:, 0].tolist() == [2.0, 1.0] and torch.equal(local, overall) and counts.tolist() == [0, 0]
    bank.write(
        np.array([4, 4]), np.array([1, 2], dtype=np.uint64), torch.cat([ones, 3 * ones]), torch.cat([8 * ones, ones])
    )
    local, overall, counts = bank.read(np.array([4]))
    # half of 2 and half of the notes' mean 2; the mean of 8 and 1
    assert (local[0, 0], overall[0, 0], counts[0]) == (2.0, 4.5, 2)
    bank.write(np.array([4]), np.array([1], dtype=np.uint64), 6 * ones, 3 * ones)
    local, overall, counts = bank.read(np.array([4]))
    assert (local[0, 0], overall[0, 0], counts[0]) == (4.0, 4.0, 3)


def test_gamma_of_1_copies_the_note():
    bank = rows_bank(gamma=1.0)
    entities, keys, notes, cls = step_of(0)
    once, where = np.unique(entities, return_index=True)
    for _ in range(2):
        bank.write(entities[where], keys[where], notes[where], cls[where])
        assert torch.equal(bank.read(once)[0], notes[where])


def test_reading_changes_nothing_and_gives_copies():
    bank = rows_bank()
    bank.write(*step_of(0))
    before = [one.clone() for one in every(bank)]
    for one in every(bank):
        one.zero_()
    assert all(torch.equal(a, b) for a, b in zip(every(bank), before, strict=True))


@pytest.mark.parametrize("kind", ["rows", "mapped", "sharded"])
def test_the_order_of_mentions_does_not_matter(kind: str, tmp_path: Path):
    def written(turn: int) -> Any:
        def play(bank: Bank, rank: int) -> Any:
            for number in range(4):
                entities, keys, notes, cls = step_of(number, 60)
                order = np.random.default_rng([number, turn]).permutation(60)
                if kind == "sharded":
                    order = order[rank::PROCESSES]
                bank.write(entities[order], keys[order], notes[order], cls[order])
            return every(bank)

        if kind == "sharded":
            return together(lambda rank: rows_bank(), play)[0]
        return play(rows_bank() if kind == "rows" else mapped(tmp_path / str(turn)), 0)

    first, second = written(0), written(1)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_mentions_of_one_entity_need_keys_that_differ():
    notes = torch.ones(3, WIDTH)
    with pytest.raises(ValueError, match="two mentions of entity 7 have the same key"):
        averaged(np.array([7, 3, 7]), np.array([1, 1, 1], dtype=np.uint64), notes, notes)
    averaged(np.array([7, 3, 7]), np.array([1, 1, 2], dtype=np.uint64), notes, notes)


def test_keys_are_ordered_as_unsigned_numbers():
    """Sums in floating point show the order: 1e20 + 1 - 1e20 is 0, and 1e20 - 1e20 + 1 is 1."""
    values = torch.tensor([[1e20], [-1e20], [3.0]])
    for keys, wanted in (([0, 1, 2**63 + 1], 1.0), ([0, 2**63 + 1, 1], 0.0)):
        found = averaged(np.zeros(3, dtype=np.int64), np.array(keys, dtype=np.uint64), values, values)
        assert found[2].item() == wanted


def test_a_mean_of_many_does_not_stand_still():
    bank = RowsBank(np.arange(1), 1, lambda entities: torch.zeros(1, 1))
    for number in range(3000):
        value = torch.full((1, 1), 1.0 if number < 2000 else 2.0)
        bank.write(np.array([0]), np.array([0], dtype=np.uint64), value, value)
    assert bank.read(np.array([0]))[1].item() == pytest.approx(4 / 3, rel=1e-5)


def test_no_gradient_reaches_a_bank():
    bank = rows_bank()
    entities, keys, notes, cls = step_of(0)
    bank.write(entities, keys, notes.requires_grad_(), cls.requires_grad_())
    assert not any(one.requires_grad for one in (*every(bank), *bank.tensors().values()))


def test_half_precision_notes_are_kept_in_full(tmp_path: Path):
    entities, keys, notes, cls = step_of(0)
    half, full = rows_bank(), rows_bank()
    half.write(entities, keys, notes.to(torch.bfloat16), cls.to(torch.bfloat16))
    full.write(entities, keys, notes.to(torch.bfloat16).float(), cls.to(torch.bfloat16).float())
    assert same(half, full)


def test_a_mean_of_an_epoch_begins_anew_while_the_local_memory_goes_on():
    bank, running = rows_bank(global_mean="per_epoch"), rows_bank()
    fresh = rows_bank()
    for number in range(6):
        if number == 3:
            bank.next_epoch()
            running.next_epoch()
        for one in (bank, running):
            one.write(*step_of(number))
        if number >= 3:
            fresh.write(*step_of(number))
    local, overall, counts = every(bank)
    assert torch.equal(local, every(running)[0])
    seen = counts > 0
    assert torch.equal(counts, every(fresh)[2]) and torch.equal(overall[seen], every(fresh)[1][seen])
    assert torch.equal(overall[~seen], local[~seen]) and (~seen & (every(running)[2] > 0)).any()
    assert every(running)[2].sum() == 6 * 12


# back ends


def together(make: Callable[[int], Bank], play: Callable[[Bank, int], Any], processes: int = PROCESSES) -> list[Any]:
    """What each of some processes, played by threads, has of a sharded bank."""
    shelf: list[Any] = [None] * processes
    barrier = threading.Barrier(processes, timeout=20)
    found: list[Any] = [None] * processes

    def collective(rank: int, joined: Callable[[list[Tensor]], Tensor]) -> Callable[[Tensor], Tensor]:
        def call(own: Tensor) -> Tensor:
            shelf[rank] = own.clone()
            barrier.wait()
            assert len({tuple(one.shape) for one in shelf}) == 1, "collectives need equal shapes"
            whole = joined(list(shelf))
            barrier.wait()
            return whole

        return call

    def run(rank: int) -> None:
        try:
            gather, reduce = collective(rank, torch.cat), collective(rank, lambda all_: torch.stack(all_).sum(0))
            found[rank] = play(ShardedBank(make(rank), rank, processes, gather, reduce), rank)
        except BaseException as error:
            found[rank] = error
            barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(processes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in found:
        if isinstance(one, BaseException) and not isinstance(one, threading.BrokenBarrierError):
            raise one
    return found


def share(step: Step, rank: int) -> Step:
    """The mentions that a process has of a step: the first has a half of them, the last none of some."""
    cut = [0, len(step[0]) // 2, len(step[0]) - int(step[1][0] % 4 > 0), len(step[0])]
    return tuple(one[cut[rank] : cut[rank + 1]] for one in step)  # type: ignore[return-value]


@pytest.mark.parametrize("back_end", ["rows", "mapped"])
def test_a_sharded_bank_is_one_bank(back_end: str, tmp_path: Path):
    def make(rank: int) -> Bank:
        if back_end == "mapped":
            return mapped(tmp_path / str(rank))
        return RowsBank(owned(np.arange(ENTITIES), rank, PROCESSES), WIDTH, initial)

    def play(bank: Bank, rank: int) -> Any:
        seen = []
        for number in range(5):
            own = share(step_of(number), rank)
            seen.append(bank.read(np.unique(own[0])))
            bank.write(*own)
        return seen, every(bank), bank.tensors()

    found = together(make, play)
    whole = rows_bank()
    for number in range(5):
        for rank in range(PROCESSES):
            wanted = whole.read(np.unique(share(step_of(number), rank)[0]))
            assert all(torch.equal(a, b) for a, b in zip(found[rank][0][number], wanted, strict=True))
        whole.write(*step_of(number))
    for _, state, tensors in found:
        assert all(torch.equal(a, b) for a, b in zip(state, every(whole), strict=True))
        assert not tensors or all(torch.equal(tensors[name], one) for name, one in whole.tensors().items())
        assert bool(tensors) is (back_end == "rows")


def test_one_process_needs_no_collective():
    def refused(_: Tensor) -> Tensor:
        raise AssertionError("asked for another process")

    whole, bank = rows_bank(), ShardedBank(rows_bank(), 0, 1, refused, refused)
    for one in (whole, bank):
        one.write(*step_of(0))
    assert same(whole, bank)
    other = ShardedBank(rows_bank(), 0, 1, refused, refused)
    other.restore(bank.tensors())
    assert same(other, whole)


def test_nobody_has_a_mention():
    none = np.zeros(0, dtype=np.int64)

    def play(bank: Bank, rank: int) -> Any:
        bank.write(none, none.astype(np.uint64), torch.zeros(0, WIDTH), torch.zeros(0, WIDTH))
        return bank.read(none)

    for local, overall, counts in [*together(lambda rank: rows_bank(), play), play(rows_bank(), 0)]:
        assert local.shape == overall.shape == (0, WIDTH) and counts.shape == (0,)


def test_a_bank_of_some_processes_is_taken_up_by_others():
    whole = rows_bank()
    for number in range(3):
        whole.write(*step_of(number))

    def play(bank: Bank, rank: int) -> Any:
        bank.restore(whole.tensors())
        bank.write(*share(step_of(3), rank))
        return every(bank)

    found = together(lambda rank: RowsBank(owned(np.arange(ENTITIES), rank, PROCESSES), WIDTH, initial), play)
    whole.write(*step_of(3))
    assert all(torch.equal(a, b) for a, b in zip(found[1], every(whole), strict=True))


def test_rows_and_files_are_one_bank(tmp_path: Path):
    whole, file, half = rows_bank(), mapped(tmp_path / "full"), mapped(tmp_path / "half", local="float16")
    for number in range(6):
        for bank in (whole, file, half):
            bank.write(*step_of(number))
    assert same(whole, file)
    assert torch.equal(every(whole)[1][every(whole)[2] > 0], every(half)[1][every(half)[2] > 0])
    torch.testing.assert_close(every(half)[0], every(whole)[0], atol=4e-3, rtol=4e-3)
    assert not torch.equal(every(half)[0], every(whole)[0])


def test_a_bank_in_memory_goes_with_the_checkpoint():
    bank = rows_bank(global_mean="per_epoch")
    for number in range(4):
        bank.write(*step_of(number, 3))
        bank.next_epoch()
    tensors = load(save(bank.tensors()))
    assert len(tensors["entities"]) < 12
    other = rows_bank(global_mean="per_epoch")
    other.write(*step_of(9))
    other.restore(tensors)
    for one in (bank, other):
        one.write(*step_of(4))
        one.next_epoch()
        one.write(*step_of(5))
    assert same(bank, other)
    other.restore({})
    assert same(other, rows_bank()) and other.epoch == 0
    assert save(other.tensors()) == save(rows_bank().tensors())


def test_an_entity_without_a_row_is_an_error(tmp_path: Path):
    bank = RowsBank(np.array([9, 3]), WIDTH, initial)
    with pytest.raises(ValueError, match="the bank has no row for entity 4"):
        bank.read(np.array([3, 4]))
    with pytest.raises(ValueError, match="no row for entity 10"):
        bank.write(np.array([10]), np.array([0], dtype=np.uint64), torch.ones(1, WIDTH), torch.ones(1, WIDTH))
    with pytest.raises(ValueError, match="the bank is of entities 0 to 39, not -1 to 3"):
        mapped(tmp_path).read(np.array([3, -1]))
    with pytest.raises(ValueError, match="no row for entity 0"):
        RowsBank(np.zeros(0, dtype=np.int64), WIDTH, initial).read(np.array([0]))


def test_words_that_are_no_choices_are_errors(tmp_path: Path):
    with pytest.raises(ValueError, match="global_mean is running or per_epoch, not 'mean'"):
        rows_bank(global_mean="mean")
    with pytest.raises(ValueError, match="local is float16 or float32, not 'bfloat16'"):
        mapped(tmp_path, local="bfloat16")


# files


def rows_of(folder: Path) -> bytes:
    """All that a bank in files holds of entities."""
    return (folder / "rows").read_bytes() + (folder / "owners").read_bytes()


def train(bank: MappedBank, first: int, last: int, every_: int = 3) -> dict[int, bytes]:
    """Steps first .. last - 1 with checkpoints; gives the rows at each."""
    found = {first: rows_of(bank.folder)}
    for step in range(first, last):
        bank.write(*step_of(step))
        if step == 4:
            bank.next_epoch()
        if (step + 1) % every_ == 0:
            bank.prepare(step + 1)
            found[step + 1] = rows_of(bank.folder)
            bank.commit(step + 1)
    return found


def undo_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("undo*"))


def test_a_bank_in_files_is_rolled_back_to_its_checkpoint(tmp_path: Path):
    bank = mapped(tmp_path, global_mean="per_epoch")
    states = train(bank, 0, 8)
    assert rows_of(tmp_path) != states[6]
    assert undo_files(tmp_path) == ["undo-00000006"]
    bank.close()
    bank = mapped(tmp_path, global_mean="per_epoch")
    bank.rollback(6)
    assert rows_of(tmp_path) == states[6] and bank.epoch == 1
    train(bank, 6, 11)
    straight = mapped(tmp_path / "straight", global_mean="per_epoch")
    train(straight, 0, 11)
    assert rows_of(tmp_path) == rows_of(tmp_path / "straight") and same(bank, straight)


def test_a_checkpoint_that_was_not_written_is_passed_over(tmp_path: Path):
    """Killed between `prepare` and the checkpoint: the one before is asked for, over two undo files."""
    bank = mapped(tmp_path, global_mean="per_epoch")
    states = train(bank, 0, 6, every_=3)
    bank.write(*step_of(6))
    bank.write(*step_of(7))
    bank.prepare(8)
    bank.next_epoch()
    bank.write(*step_of(8))
    bank.write(*step_of(9))
    assert undo_files(tmp_path) == ["undo-00000006", "undo-00000008"]
    again = mapped(tmp_path, global_mean="per_epoch")
    again.rollback(6)
    assert rows_of(tmp_path) == states[6] and again.epoch == 1 and undo_files(tmp_path) == ["undo-00000006"]


def test_a_checkpoint_that_was_written_counts_before_it_is_committed(tmp_path: Path):
    bank = mapped(tmp_path)
    train(bank, 0, 5)
    bank.prepare(5)
    state = rows_of(tmp_path)
    bank.write(*step_of(5))
    again = mapped(tmp_path)
    again.rollback(5)
    assert rows_of(tmp_path) == state and undo_files(tmp_path) == ["undo-00000005"]


def test_without_a_commit_the_last_two_checkpoints_are_kept(tmp_path: Path):
    bank = mapped(tmp_path)
    for step in range(5):
        bank.write(*step_of(step))
        bank.prepare(step + 1)
    assert undo_files(tmp_path) == ["undo-00000004", "undo-00000005"]
    bank.prepare(5)
    assert undo_files(tmp_path) == ["undo-00000004", "undo-00000005"]
    with pytest.raises(ValueError, match="the bank is at a checkpoint of step 5, behind 4"):
        bank.prepare(4)


def test_step_0_is_the_empty_bank_whatever_is_left(tmp_path: Path):
    bank = mapped(tmp_path, global_mean="per_epoch")
    train(bank, 0, 8)
    assert undo_files(tmp_path) == ["undo-00000006"]
    bank = mapped(tmp_path, global_mean="per_epoch")
    bank.rollback(0)
    assert rows_of(tmp_path) == b"" and bank.epoch == 0 and same(bank, rows_bank())
    assert undo_files(tmp_path) == ["undo-00000000"]
    bank.write(*step_of(0))


class Killed(BaseException):
    pass


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Let the n-th change of a file that a bank makes be half done and the last one."""
    left = [10**9]

    def counted(call: Callable[..., Any], half: Callable[..., Any] | None = None) -> Callable[..., Any]:
        def wrapped(*words: Any, **more: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            if left[0] == 0:
                if half is not None:
                    half(*words, **more)
                left[0] = -1
                raise Killed
            return call(*words, **more)

        return wrapped

    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", counted(real, lambda file, row, place: real(file, bytes(row)[:7], place)))
    monkeypatch.setattr(os, "fsync", lambda file: None)  # takes time, changes nothing that another process sees
    monkeypatch.setattr(os, "ftruncate", counted(os.ftruncate))
    monkeypatch.setattr(Path, "unlink", counted(Path.unlink))
    monkeypatch.setattr(mapped_bank, "write_atomically", counted(mapped_bank.write_atomically))
    begin = MappedBank._begin

    def torn(self: MappedBank, step: int) -> None:
        begin(self, step)
        inner = self._undo

        class Torn:
            def write(self, content: bytes) -> None:
                counted(inner.write, lambda content: inner.write(content[: len(content) // 2]))(content)

            def flush(self) -> None:
                inner.flush()

            def close(self) -> None:
                inner.close()

            fileno = inner.fileno

        self._undo = Torn()

    monkeypatch.setattr(MappedBank, "_begin", torn)

    def arm(changes: int) -> None:
        left[0] = changes

    yield arm
    left[0] = 10**9


def test_killed_at_any_change_of_a_file_the_checkpoint_comes_back(tmp_path: Path, killed: Callable[[int], None]):
    """Every change of a file in turn is the last one; what mends it is killed twice, too."""
    states = train(mapped(tmp_path / "straight"), 0, 5, every_=2)
    for changes in range(1, 1000):
        folder = tmp_path / str(changes)
        bank, kills = None, 0
        stands = 0  # step of the last checkpoint that was written
        killed(changes)
        while True:
            try:
                bank = mapped(folder)
                bank.rollback(stands)
                assert rows_of(folder) == states[stands]
                for step in range(stands, 5):
                    bank.write(*step_of(step))
                    if (step + 1) % 2 == 0:
                        bank.prepare(step + 1)
                        assert rows_of(folder) == states[step + 1]
                        stands = step + 1
                        bank.commit(stands)
                break
            except Killed:
                kills += 1
                killed(1 + changes * (2 * kills + 1) % 13 if kills < 3 else 10**9)
        assert rows_of(folder) == rows_of(tmp_path / "straight")
        assert kills in (0, 3)
        if not kills:
            break
    assert 40 < changes < 1000  # the last one was beyond the end


CHILD = """
import sys, time
from pathlib import Path
from tests.unit.test_banks import mapped, rows_of, step_of
folder, start = Path(sys.argv[1]), int(sys.argv[2])
bank = mapped(folder, local="float16")
bank.rollback(start)
for step in range(start, 10**6):
    bank.write(*step_of(step, 30))
    if (step + 1) % 10 == 0:
        bank.prepare(step + 1)
        (folder / f"state-{step + 1}.part").write_bytes(rows_of(folder))
        (folder / f"state-{step + 1}.part").rename(folder / f"state-{step + 1}")
        bank.commit(step + 1)
        print(step + 1, flush=True)
"""


def test_a_killed_process_leaves_a_bank_that_comes_back_to_its_bytes(tmp_path: Path):
    start = 0
    for turn in range(2):
        words = [sys.executable, "-c", CHILD, str(tmp_path), str(start)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as child:
            assert child.stdout is not None
            for _ in range(2 + turn):
                child.stdout.readline()
            threading.Event().wait(0.004 * turn)
            child.send_signal(signal.SIGKILL)
        states = {int(path.name[6:]): path for path in tmp_path.glob("state-*") if path.suffix != ".part"}
        before, start = start, max(states)
        assert start >= before + 10 * (2 + turn)
        bank = mapped(tmp_path, local="float16")
        bank.rollback(start)
        assert rows_of(tmp_path) == states[start].read_bytes()
        bank.close()
    straight = mapped(tmp_path / "straight", local="float16")
    for step in range(start):
        straight.write(*step_of(step, 30))
    assert rows_of(tmp_path / "straight") == rows_of(tmp_path)


def test_a_bank_that_was_found_is_at_no_step(tmp_path: Path):
    mapped(tmp_path).write(*step_of(0))
    bank = mapped(tmp_path)
    for call in (lambda: bank.read(np.array([1])), lambda: bank.write(*step_of(0)), lambda: bank.prepare(1)):
        with pytest.raises(RuntimeError, match=r"at no step: rollback\(step\) comes first"):
            call()


def test_a_durable_bank_holds_the_same(tmp_path: Path):
    states = [train(mapped(tmp_path / str(durable), durable=durable), 0, 7) for durable in (False, True)]
    assert states[0] == states[1]


# mistakes

AGAIN = "remove the folder and the checkpoints of the run: it then starts anew"


def test_a_bank_of_another_graph_is_refused(tmp_path: Path):
    mapped(tmp_path)
    with pytest.raises(DataError) as error:
        MappedBank(tmp_path, 30, WIDTH, initial, graph="abd", local="float32")
    where = str(tmp_path / "bank.json")
    assert [(one.where, one.what, one.hint) for one in error.value.problems] == [
        (where, "is a bank of graph abc, not abd", "remove the folder, or give another"),
        (where, "is a bank of entities 40, not 30", "remove the folder, or give another"),
    ]


@pytest.mark.parametrize("content", ["", "[]", '{"version": 1}', "\x00"], ids=["empty", "list", "short", "zero"])
def test_a_head_that_is_broken_is_named(content: str, tmp_path: Path):
    mapped(tmp_path)
    (tmp_path / "bank.json").write_text(content)
    with pytest.raises(DataError, match="is no head of a memory bank"):
        mapped(tmp_path)


@pytest.mark.parametrize("name", ["rows", "owners"])
def test_files_that_were_cut_or_lost_are_named(name: str, tmp_path: Path):
    train(mapped(tmp_path), 0, 7)
    for spoil in (lambda: os.truncate(tmp_path / name, 90), (tmp_path / name).unlink):
        spoil()
        with pytest.raises(DataError) as error:
            mapped(tmp_path).rollback(6)
        assert str(error.value.problems[0]) == f"{tmp_path / name}: was cut ({AGAIN})"


def test_owners_that_were_changed_are_named(tmp_path: Path):
    train(mapped(tmp_path), 0, 7)
    path = tmp_path / "owners"
    path.write_bytes(b"\xff" * path.stat().st_size)
    with pytest.raises(DataError) as error:
        mapped(tmp_path).rollback(6)
    assert str(error.value.problems[0]) == f"{path}: was changed ({AGAIN})"


def test_a_step_that_is_not_there_is_named(tmp_path: Path):
    bank = mapped(tmp_path)
    train(bank, 0, 7)
    with pytest.raises(DataError) as error:
        bank.rollback(3)
    assert str(error.value.problems[0]) == (f"{tmp_path}: holds no state of step 3; of these it does: 6 ({AGAIN})")
    bank.rollback(6)


@pytest.mark.parametrize("place", [0, 3, 25, 28, 60])
def test_an_undo_file_that_was_changed_is_named(place: int, tmp_path: Path):
    bank = mapped(tmp_path)
    train(bank, 0, 8)
    path = tmp_path / "undo-00000006"
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    words = "is no undo file of a memory bank" if place < 28 else "was changed"
    with pytest.raises(DataError, match=words) as error:
        mapped(tmp_path).rollback(6)
    assert error.value.problems[0].where == str(path)


def test_a_full_disk_is_said_and_the_checkpoint_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    bank = mapped(tmp_path)
    states = train(bank, 0, 6)
    real, left = os.pwrite, [4]

    def full(file: int, row: Any, place: int) -> int:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(file, bytes(row)[: 10 if left[0] == 0 else None], place)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(StageError) as error:
            bank.write(*step_of(6))
    assert str(error.value.problems[0]) == (
        f"{tmp_path}: the disk is full; the last checkpoint stands (free some space and repeat)"
    )
    assert rows_of(tmp_path) != states[6]
    bank = mapped(tmp_path)
    bank.rollback(6)
    assert rows_of(tmp_path) == states[6]


def test_what_the_head_says(tmp_path: Path):
    bank = mapped(tmp_path, local="float16")
    found = json.loads((tmp_path / "bank.json").read_text())
    assert found == {"version": 1, "graph": "abc", "entities": ENTITIES, "width": WIDTH, "local": "float16"}
    bank.write(*step_of(0))
    seen = np.unique(step_of(0)[0])
    assert (tmp_path / "rows").stat().st_size == len(seen) * (8 + 6 * WIDTH)
    assert np.fromfile(tmp_path / "owners", dtype="<i4").tolist() == seen.tolist()


def test_random_steps_checkpoints_and_kills_end_in_the_same_bytes(tmp_path: Path):
    straight = mapped(tmp_path / "straight", global_mean="per_epoch")
    train(straight, 0, 60, every_=7)
    drawn = random.Random(5)
    bank, step = mapped(tmp_path / "killed", global_mean="per_epoch"), 0
    stands, kills = 0, 0
    while step < 60:
        # a checkpoint that does not stand was killed while it was written, or soon after `prepare`
        if drawn.random() < (0.6 if undo_files(tmp_path / "killed")[-1] > f"undo-{stands:08d}" else 0.1):
            bank = mapped(tmp_path / "killed", global_mean="per_epoch")
            bank.rollback(stands)
            step, kills = stands, kills + 1
        bank.write(*step_of(step))
        if step == 4:
            bank.next_epoch()
        step += 1
        if drawn.random() < 0.3 and undo_files(tmp_path / "killed")[-1] == f"undo-{stands:08d}":
            bank.prepare(step)
            if drawn.random() < 0.7:
                stands = step
                if drawn.random() < 0.7:
                    bank.commit(step)
    assert kills > 10
    assert rows_of(tmp_path / "killed") == rows_of(tmp_path / "straight")
