"""Paths from scores, by worked numbers and against plain sorting."""

from __future__ import annotations

import pytest
import torch

from kbench.methods.paths import (
    Magnitude,
    RelationPaths,
    magnitude,
    overlap,
    random_paths,
    select,
    select_sites,
    shares,
)
from tests.unit.test_routed import INNER, batch, loss_of, small

# two sequences, two layers, five neurons; the sums of the positive parts are [3 1 0 2 0] and [0 4 2 0 0.5]
SCORES = torch.tensor(
    [
        [[3.0, 1.0, -9.0, 1.0, 0.0], [-1.0, 4.0, 1.0, -2.0, 0.0]],
        [[-5.0, 0.0, -1.0, 1.0, -2.0], [0.0, -3.0, 1.0, -1.0, 0.5]],
    ]
)


def lists(path):
    return [one.tolist() for one in path]


@pytest.mark.parametrize(
    ("rho", "expected"),
    [
        (0.1, [[], [1]]),
        (0.2, [[0], [1]]),
        (0.3, [[0, 3], [1]]),  # 2 stands twice: the lower layer is first
        (0.4, [[0, 3], [1, 2]]),
        (0.7, [[0, 1, 2, 3], [1, 2, 4]]),  # the number is fixed: a zero is taken where nothing else is left
        (1.0, [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]),
        (0.001, [[], [1]]),  # at least one
    ],
)
def test_top_fraction_takes_a_fixed_number_over_all_layers(rho, expected):
    found = select(SCORES, rho)
    assert lists(found) == expected and all(one.dtype == torch.int64 for one in found)


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [(0.2, [[0, 1, 3], [1, 2]]), (0.25, [[0, 1, 3], [1, 2]]), (0.26, [[0, 3], [1, 2]]), (1.0, [[], [1]])],
)
def test_threshold_is_a_share_of_the_largest(threshold, expected):
    assert lists(select(SCORES, 0.5, "threshold", threshold)) == expected


def test_threshold_takes_one_neuron_where_nothing_helps():
    assert lists(select(-SCORES.abs(), 0.5, "threshold")) == [[0], []]


def test_per_layer_takes_the_share_of_each():
    assert lists(select(SCORES, 0.4, per_layer=True)) == [[0, 3], [1, 2]]
    assert lists(select(SCORES, 0.2, per_layer=True)) == [[0], [1]]


def test_all_processes_choose_the_same():
    parts = [SCORES[:1], SCORES[1:], SCORES[:0]]  # the third has nothing attributed
    buffers: list[torch.Tensor] = []
    for part in parts:
        select(part, 0.4, reduce=lambda t: buffers.append(t) or t)
    found = [lists(select(part, 0.4, reduce=lambda t: sum(buffers))) for part in parts]
    assert found == [lists(select(SCORES, 0.4))] * 3


def test_ties_go_to_the_lowest_index_however_many():
    for width in (7, 5000):
        found = select(torch.ones(2, 3, width), 0.5)
        assert torch.cat([one + layer * width for layer, one in enumerate(found)]).tolist() == list(
            range(round(1.5 * width))
        )


def test_sites_are_chosen_each_by_its_rule():
    scores = {"neurons": SCORES, "inputs": SCORES[..., :4], "outputs": -SCORES[..., :4]}
    neurons, inputs, outputs = select_sites(scores, 0.2, rho_in=0.5, rho_out=0.25)
    assert lists(neurons) == [[0], [1]]
    assert lists(inputs) == [[0, 3], [1, 2]]
    assert lists(outputs) == [[2], [1]]  # positive parts of minus the scores: [5 0 10 0] and [1 3 0 3]


def test_random_paths_are_a_function_of_the_key():
    found = random_paths(3, 40, 0.1, key=5)
    assert sum(map(len, found)) == 12 and all(bool((one.diff() > 0).all()) for one in found)
    assert lists(found) == lists(random_paths(3, 40, 0.1, key=5)) != lists(random_paths(3, 40, 0.1, key=6))
    # every neuron is as likely as every other
    counts = torch.zeros(3, 40)
    for key in range(1500):
        for layer, one in enumerate(random_paths(3, 40, 0.1, key)):
            counts[layer, one] += 1
    assert counts.sum() == 1500 * 12 and counts.min() > 100 and counts.max() < 200


def test_magnitude_is_the_mean_absolute_activation_of_the_tokens_that_count():
    model = small().eval()
    given = batch(1)
    values = {}
    hooks = [
        model.base_model.encoder.layer[n].intermediate.register_forward_hook(
            lambda m, i, o, n=n: values.setdefault(n, o.detach())
        )
        for n in (0, 2)
    ]
    with magnitude(model, [0, 2], given["attention_mask"]) as found, torch.no_grad():
        loss_of(model, given)
    for hook in hooks:
        hook.remove()
    means = torch.stack([values[n][given["attention_mask"] == 1].abs().mean(0) for n in (0, 2)])
    scores = found.scores()
    assert scores.shape == (1, 2, INNER)
    torch.testing.assert_close(scores[0] / scores.sum(), means / means.sum())
    largest = means.flatten().argsort(descending=True)[: round(0.25 * 2 * INNER)].sort().values
    chosen = torch.cat([one + place * INNER for place, one in enumerate(select(scores, 0.25))])
    assert torch.equal(chosen, largest)
    loss_of(model, given)
    assert torch.equal(scores, found.scores())  # it has stopped watching


def test_magnitude_without_a_pass_says_so():
    with pytest.raises(ValueError, match=r"^no forward pass was seen"):
        Magnitude(2).scores()


def test_each_relation_keeps_its_path_and_a_batch_takes_the_union():
    paths = RelationPaths(4, 2, 5)
    assert lists(paths.union(torch.tensor([0, 1]))) == [[], []]
    paths.update(SCORES, torch.tensor([1, 3]), rho=0.2)
    assert lists(paths.union(torch.tensor([1]))) == [[0], [1]]
    assert lists(paths.union(torch.tensor([3, 3]))) == [[3], [2]]
    assert lists(paths.union(torch.tensor([3, 0, 1]))) == [[0, 3], [1, 2]]
    assert paths.known(torch.tensor([0, 3, 1])).tolist() == [False, True, True]
    # both sequences of one relation: its path is that of both, and others keep theirs
    paths.update(SCORES, torch.tensor([1, 1]), rho=0.3)
    assert lists(paths.union(torch.tensor([1]))) == [[0, 3], [1]]
    assert lists(paths.union(torch.tensor([3]))) == [[3], [2]]
    again = RelationPaths(4, 2, 5)
    again.restore(paths.tensors())
    assert all(torch.equal(a, b) for a, b in zip(paths.tensors().values(), again.tensors().values(), strict=True))
    with pytest.raises(ValueError, match=r"^stored paths are \[4, 2, 5\], should be \[3, 2, 5\]$"):
        RelationPaths(3, 2, 5).restore(paths.tensors())


def test_relations_of_other_processes_are_taken_up():
    """Two processes with a relation each, and one in common, hold the same paths as one with all."""
    whole = RelationPaths(4, 2, 5)
    relations = [torch.tensor([2]), torch.tensor([2])]
    whole.update(SCORES, torch.cat(relations), rho=0.2)
    two = [RelationPaths(4, 2, 5) for _ in range(2)]
    sent: list[list[torch.Tensor]] = [[], []]
    for turn in range(3):  # the first turns gather what each sends, the last has the sums
        for rank, own in enumerate(two):
            calls = iter(range(2))

            def reduce(tensor, rank=rank, calls=calls, turn=turn):
                at = next(calls)
                if turn < 2 and len(sent[rank]) == at:
                    sent[rank].append(tensor.clone())
                return sent[0][at] + sent[1][at] if turn == 2 else tensor

            own.update(SCORES[rank : rank + 1], relations[rank], 0.2, reduce=reduce)
    for own in two:
        assert torch.equal(own.tensors()["marked"], whole.tensors()["marked"])
    # the union is over all processes' batches
    found = two[0].union(torch.tensor([0]), reduce=lambda t: t + torch.tensor([0.0, 0, 1, 0]))
    assert lists(found) == lists(whole.union(torch.tensor([2])))


def test_overlap_and_shares():
    one = [torch.tensor([0, 1, 2]), torch.tensor([4])]
    two = [torch.tensor([1, 2, 3]), torch.tensor([], dtype=torch.int64)]
    assert overlap(one, two) == 2 / 5 and overlap(one, one) == 1.0
    assert shares(one) == [0.75, 0.25] and shares(two) == [1.0, 0.0]
    assert overlap(two[1:], two[1:]) == 1.0 and shares(two[1:]) == [0.0]


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match=r"^rule is one of top_fraction, threshold, is top$"):
        select(SCORES, 0.1, "top")
