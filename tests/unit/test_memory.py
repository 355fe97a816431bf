"""Notes of mentions against a loop over positions, and the local memory of entities that were not seen."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from kbench.methods.memory import NameMeans, cls_states, local_notes

WIDTH = 4
LENGTH = 12
REAL = [12, 7, 3]  # tokens of three texts; the first and the last of each are special


def batch(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """States, attention and special tokens of the texts, padded on the right."""
    states = torch.randn(len(REAL), LENGTH, WIDTH, generator=torch.Generator().manual_seed(seed))
    place = torch.arange(LENGTH)
    attention = torch.stack([(place < length).long() for length in REAL])
    special = torch.stack([(place == 0) | (place == length - 1) for length in REAL])
    return states, attention, special


def spans() -> tuple[Tensor, Tensor, Tensor]:
    """Rows, starts and stops: at both ends, in the middle, and the only token of its text."""
    return torch.tensor([0, 0, 1, 1, 2]), torch.tensor([1, 5, 3, 1, 1]), torch.tensor([3, 7, 6, 2, 2])


def naive(states: Tensor, attention: Tensor, special: Tensor, mention: tuple[int, ...], k: int, divisor: str) -> Tensor:
    row, start, stop = mention
    found, number = torch.zeros(WIDTH, dtype=torch.float64), 0
    for place in range(start - k, stop + k):
        if 0 <= place < LENGTH and attention[row, place] and not special[row, place]:
            found += states[row, place].double()
            number += 1
    return (found / (number if divisor == "actual" else 2 * k + stop - start)).float()


@pytest.mark.parametrize("divisor", ["actual", "printed"])
@pytest.mark.parametrize("k", [0, 1, 2, 16])
def test_a_note_is_the_mean_of_a_window(k: int, divisor: str):
    found = local_notes(*batch(), *spans(), k, divisor)
    mentions = zip(*(one.tolist() for one in spans()), strict=True)
    wanted = torch.stack([naive(*batch(), mention, k, divisor) for mention in mentions])
    assert found.dtype is torch.float32
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-6)


def test_both_divisors_are_the_same_where_nothing_is_cut_off():
    one = torch.tensor([0]), torch.tensor([5]), torch.tensor([7])
    notes = [local_notes(*batch(), *one, 2, divisor) for divisor in ("actual", "printed")]
    assert torch.equal(*notes)
    notes = [local_notes(*batch(), *one, 5, divisor) for divisor in ("actual", "printed")]
    torch.testing.assert_close(notes[0] * 10, notes[1] * 12)  # 10 tokens are there; 2 * 5 + 2 are printed


def test_worked_numbers():
    states = torch.arange(6.0)[None, :, None]  # token i has state i; the first and the last are special
    special = torch.tensor([[1, 0, 0, 0, 0, 1]])
    mention = torch.tensor([0]), torch.tensor([2]), torch.tensor([4])
    for k, wanted in ((0, 2.5), (1, 2.5), (3, 2.5)):
        assert local_notes(states, torch.ones(1, 6), special, *mention, k).item() == wanted
    mention = torch.tensor([0]), torch.tensor([4]), torch.tensor([5])
    assert local_notes(states, torch.ones(1, 6), special, *mention, 1).item() == 3.5  # 3 and 4; 5 is special
    assert local_notes(states, torch.ones(1, 6), special, *mention, 1, "printed").item() == pytest.approx(7 / 3)


def test_padding_does_not_count_whatever_it_holds():
    states, attention, special = batch()
    wanted = local_notes(states, attention, special, *spans(), 16)
    spoilt = states.masked_fill(attention[..., None] == 0, float("nan"))
    assert torch.equal(local_notes(spoilt, attention, special, *spans(), 16), wanted)
    # the third text without its padding
    one = torch.tensor([0]), torch.tensor([1]), torch.tensor([2])
    assert torch.equal(local_notes(states[2:, :3], attention[2:, :3], special[2:, :3], *one, 16)[0], wanted[4])


def test_large_states_before_a_window_do_not_blur_it():
    states = torch.full((1, 512, 1), 3e4)
    states[0, 500:] = 0.1
    mention = torch.tensor([0]), torch.tensor([505]), torch.tensor([506])
    found = local_notes(states, torch.ones(1, 512), torch.zeros(1, 512), *mention, 2)
    assert found.item() == pytest.approx(0.1, rel=1e-6)


def test_no_gradient_reaches_the_states_and_half_precision_is_taken():
    states, attention, special = batch()
    states.requires_grad_()
    assert not local_notes(states, attention, special, *spans(), 4).requires_grad
    assert not cls_states(states, spans()[0]).requires_grad
    half = states.detach().to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        found = local_notes(half, attention, special, *spans(), 4)
    assert torch.equal(found, local_notes(half.float(), attention, special, *spans(), 4))


def test_the_first_state_of_each_row():
    states = batch()[0]
    assert torch.equal(cls_states(states, spans()[0]), states[[0, 0, 1, 1, 2], 0])


def test_no_mention_gives_no_note():
    none = torch.zeros(0, dtype=torch.int64)
    assert local_notes(*batch(), none, none, none, 4).shape == (0, WIDTH)


def test_a_word_that_is_no_divisor_is_an_error():
    with pytest.raises(ValueError, match="divisor is actual or printed, not 'half'"):
        local_notes(*batch(), *spans(), 4, "half")


# names

NAMES: dict[int, list[int]] = {3: [7], 5: [1, 2, 2], 8: [], 11: [], 12: [4, 9]}


def tokens(entities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    ids = [NAMES[entity] for entity in entities.tolist()]
    return np.array([one for name in ids for one in name], dtype=np.int32), np.cumsum([len(name) for name in ids])


def test_a_local_memory_starts_as_the_mean_embedding_of_the_name():
    table = torch.randn(20, WIDTH, generator=torch.Generator().manual_seed(1))
    found = NameMeans(table, tokens)(np.array([5, 3, 12]))
    wanted = [(table[1] + 2 * table[2]) / 3, table[7], (table[4] + table[9]) / 2]
    torch.testing.assert_close(found, torch.stack(wanted))


def test_an_entity_without_a_name_gets_numbers_of_its_own():
    table = torch.zeros(20, 4000)
    start = NameMeans(table, tokens, seed=1)
    found = start(np.array([8, 3, 11]))
    assert not found[1].any()
    for row in (0, 2):
        assert found[row].mean().item() == pytest.approx(0, abs=0.006)  # 3.8 standard errors
        assert found[row].std().item() == pytest.approx(0.1, rel=0.04)
    assert not torch.equal(found[0], found[2])
    assert torch.equal(start(np.array([11]))[0], found[2])
    assert not torch.equal(NameMeans(table, tokens, seed=2)(np.array([11]))[0], found[2])


def test_it_keeps_the_embeddings_it_began_with():
    table = torch.ones(20, WIDTH)
    start = NameMeans(table, tokens)
    before = start(np.array([5]))
    table.fill_(3)
    assert torch.equal(start(np.array([5])), before)
