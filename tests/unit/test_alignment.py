"""The equations and blocks of DFA and CFL against a second, naive implementation in plain floats."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kbench.methods.alignment import Aligned, CommonFeatures, Features, mean_square, mmd, paired_layers
from kbench.methods.cfl import Cfl
from kbench.methods.dfa import Dfa, Train
from kbench.methods.ensemble import Merge
from kbench.methods.integration import Union
from tests.unit.test_integration import naive_vanilla_kd

Row = list[float]
Texts = list[list[Row]]  # hidden states [B][L][F]
Mask = list[list[int]]

MULTIPLES = (1 / 4, 1 / 2, 1, 2, 4)
WIDTH = 16
THEIRS = [16, 12]  # widths of two teachers' states

# three texts of 4, 2 and 1 tokens
LENGTHS = [4, 2, 1]
PADDED: Mask = [[int(position < length) for position in range(4)] for length in LENGTHS]
FULL: Mask = [[1] * 4 for _ in LENGTHS]
EQUAL, UNEQUAL = [1.0, 1.0, 1.0], [3.0, 1.0, 2.0]


# The second implementation: one number at a time.


def naive_mean_square(x: Texts, y: Texts, mask: Mask, weight: Row) -> float:
    """Mean over positions that count and features of each text, then the weighted mean over the texts."""
    each = []
    for own, other, counts in zip(x, y, mask, strict=True):
        squares = [
            (a - b) ** 2
            for of_own, of_other, count in zip(own, other, counts, strict=True)
            if count
            for a, b in zip(of_own, of_other, strict=True)
        ]
        each.append(math.fsum(squares) / len(squares))
    return math.fsum(w * value for w, value in zip(weight, each, strict=True)) / math.fsum(weight)


def vectors(texts: Texts, mask: Mask) -> list[Row]:
    """Each text's positions one after another, of length 1."""
    found = []
    for text, counts in zip(texts, mask, strict=True):
        flat = [value * count for position, count in zip(text, counts, strict=True) for value in position]
        length = math.sqrt(math.fsum(value * value for value in flat))
        found.append([value / length for value in flat])
    return found


def distances(x: list[Row], y: list[Row]) -> list[Row]:
    return [[math.fsum((a - b) ** 2 for a, b in zip(one, other, strict=True)) for other in y] for one in x]


def total(values: list[Row]) -> float:
    return math.fsum(value for row in values for value in row)


def naive_bandwidth(x: Texts, y: Texts, mask: Mask) -> float:
    """sigma^2, the mean over all B x B entries of (XX + YY + 2 XY) / 4."""
    own, other = vectors(x, mask), vectors(y, mask)
    whole = total(distances(own, own)) + total(distances(other, other)) + 2 * total(distances(own, other))
    return whole / 4 / len(x) ** 2


def naive_mmd(x: Texts, y: Texts, mask: Mask, bandwidth: float | None = None) -> float:
    """Five kernels exp(-D / (2 c sigma^2)); a given bandwidth is a constant."""
    own, other = vectors(x, mask), vectors(y, mask)
    sigma2 = naive_bandwidth(x, y, mask) if bandwidth is None else bandwidth
    sums = [
        math.fsum(math.exp(-d / (2 * c * sigma2)) for c in MULTIPLES for row in found for d in row)
        for found in (distances(own, own), distances(other, other), distances(own, other))
    ]
    return max(0.0, (sums[0] + sums[1] - 2 * sums[2]) / len(x) ** 2)


def naive_linear(layer: nn.Linear, texts: Texts) -> Texts:
    matrix, bias = layer.weight.tolist(), layer.bias.tolist()
    return [
        [
            [math.fsum(w * h for w, h in zip(row, state, strict=True)) + b for row, b in zip(matrix, bias, strict=True)]
            for state in text
        ]
        for text in texts
    ]


def naive_relu(texts: Texts) -> Texts:
    return [[[max(0.0, value) for value in state] for state in text] for text in texts]


def side_by_side(teachers: list[Texts]) -> Texts:
    """[h_1; ..; h_N] on the feature axis."""
    return [
        [[value for state in states for value in state] for states in zip(*texts, strict=True)]
        for texts in zip(*teachers, strict=True)
    ]


def naive_features(block: Features, student: Texts, teachers: list[Texts], mask: Mask, weight: Row) -> dict[str, float]:
    joint = naive_linear(block.encode, side_by_side(teachers))
    back = naive_linear(block.decode, joint)
    lost, start = 0.0, 0
    for h in teachers:
        end = start + len(h[0][0])
        restored = [[state[start:end] for state in text] for text in back]
        lost += naive_mean_square(restored, h, mask, weight)
        start = end
    return {
        "feature": naive_mean_square(naive_linear(block.student, student), joint, mask, weight),
        "reconstruction": lost,
    }


def naive_common(
    block: CommonFeatures, student: Texts, teachers: list[Texts], mask: Mask, weight: Row
) -> dict[str, float]:
    def extract(to: nn.Linear, h: Texts) -> Texts:
        a = naive_relu(naive_linear(to, h))
        return naive_linear(block.extract[2], naive_relu(naive_linear(block.extract[0], a)))

    own = extract(block.student, student)
    terms = {"discrepancy": 0.0, "reconstruction": 0.0}
    for i, h in enumerate(teachers):
        g = extract(block.teachers[i], h)
        restored = naive_linear(block.restore[i][2], naive_relu(naive_linear(block.restore[i][0], g)))
        terms["discrepancy"] += naive_mmd(own, g, mask)
        terms["reconstruction"] += naive_mean_square(restored, h, mask, weight)
    return terms


# Inputs.


def states(seed: int, width: int, lengths: Sequence[int] = (4, 4, 4)) -> Texts:
    rng = random.Random(seed)
    return [[[rng.gauss(0, 1) for _ in range(width)] for _ in range(length)] for length in lengths]


def block_inputs(widths: Sequence[int] = (WIDTH, *THEIRS)) -> tuple[Texts, list[Texts]]:
    student, *teachers = [states(seed, width) for seed, width in enumerate(widths)]
    return student, teachers


def tensor(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


def drawn(block: nn.Module, seed: int = 5, std: float = 0.3) -> Any:
    """A block with weights and biases that are all of some size."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(std=std)
    return block


def call(
    block: nn.Module, student: Any, teachers: list[Any], mask: Mask = PADDED, weight: Row = UNEQUAL
) -> dict[str, Tensor]:
    return block(
        student if isinstance(student, Tensor) else tensor(student),
        [h if isinstance(h, Tensor) else tensor(h) for h in teachers],
        tensor(mask),
        tensor(weight),
    )


def values(terms: dict[str, Tensor]) -> dict[str, float]:
    return {name: term.item() for name, term in terms.items()}


def reached(loss: Tensor, parameters: dict[str, Tensor]) -> set[str]:
    """Names of the tensors with a gradient that is not zero."""
    found = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True, allow_unused=True)
    return {name for name, gradient in zip(parameters, found, strict=True) if gradient is not None and gradient.any()}


# Which layers.


@pytest.mark.parametrize(
    ("student", "teachers", "count", "expected"),
    [
        (12, [12, 12], None, [(12 - m, 12 - m, 12 - m) for m in range(12)]),
        (12, [12, 24], None, [(12 - m, 12 - m, 24 - 2 * m) for m in range(12)]),
        (12, [24, 12], 1, [(12, 24, 12)]),
        (6, [12, 24], 2, [(6, 12, 24), (5, 10, 20)]),
        (4, [6, 11], None, [(4, 6, 11), (3, 5, 9), (2, 4, 7), (1, 3, 5)]),  # 6 // 4 = 1, 11 // 4 = 2
        (2, [2], None, [(2, 2), (1, 1)]),
    ],
)
def test_paired_layers(student: int, teachers: list[int], count: int | None, expected: list[tuple[int, ...]]) -> None:
    found = paired_layers(student, teachers, count)
    assert [tuple(pair) for pair in found] == expected
    assert min(min(pair) for pair in found) >= 1  # never the embeddings


def test_a_teacher_of_twice_the_depth_gives_every_second_layer() -> None:
    assert [pair[1] for pair in paired_layers(12, [24])] == [24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2]


# Mean squared difference.


def test_mean_square_of_a_worked_example() -> None:
    # text 1: differences 1, 1 | 2, 0, mean (1 + 1 + 4 + 0) / 4 = 1.5; text 2: 3, 1 | not counted, mean 5
    x = tensor([[[1.0, 1.0], [2.0, 0.0]], [[3.0, 1.0], [9.0, 9.0]]])
    mask = tensor([[1, 1], [1, 0]])
    y = torch.zeros(2, 2, 2)
    assert mean_square(x, y, mask, tensor([1.0, 1.0])).item() == pytest.approx(3.25)
    # texts of 3 words and of 1: (3 * 1.5 + 5) / 4
    assert mean_square(x, y, mask, tensor([3.0, 1.0])).item() == pytest.approx(2.375)


@pytest.mark.parametrize("weight", [EQUAL, UNEQUAL])
@pytest.mark.parametrize("mask", [FULL, PADDED])
def test_mean_square_equals_the_naive_one(mask: Mask, weight: Row) -> None:
    x, y = states(1, 5), states(2, 5)
    found = mean_square(tensor(x), tensor(y), tensor(mask), tensor(weight))
    assert found.item() == pytest.approx(naive_mean_square(x, y, mask, weight), rel=1e-5)


def test_mean_square_of_whole_texts_is_that_of_torch() -> None:
    x, y = tensor(states(1, 5)), tensor(states(2, 5))
    expected = nn.functional.mse_loss(x, y).item()
    for weight in (EQUAL, [0.3] * 3):
        assert mean_square(x, y, tensor(FULL), tensor(weight)).item() == pytest.approx(expected, rel=1e-6)
    assert mean_square(x, y, tensor(FULL), tensor(UNEQUAL)).item() != pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("pieces", [[[0], [1], [2]], [[0, 2], [1]], [[2, 1], [0]]])
@pytest.mark.parametrize("weight", [EQUAL, UNEQUAL])
def test_mean_square_does_not_depend_on_the_split_of_a_batch(weight: Row, pieces: list[list[int]]) -> None:
    # the loop weighs a micro batch by its share of the units
    x, y, mask, of = tensor(states(1, 5)), tensor(states(2, 5)), tensor(PADDED), tensor(weight)
    whole = mean_square(x, y, mask, of).item()
    parts = [mean_square(x[p], y[p], mask[p], of[p]).item() * sum(weight[k] for k in p) / sum(weight) for p in pieces]
    assert math.fsum(parts) == pytest.approx(whole, rel=1e-6)


def test_mean_square_does_not_see_padding_that_is_masked() -> None:
    x, y = states(1, 5), states(2, 5)
    before = mean_square(tensor(x), tensor(y), tensor(PADDED), tensor(UNEQUAL)).item()
    for a, b in zip(x, y, strict=True):
        a += [[7.0] * 5] * 3
        b += [[-7.0] * 5] * 3
    mask = [row + [0] * 3 for row in PADDED]
    assert mean_square(tensor(x), tensor(y), tensor(mask), tensor(UNEQUAL)).item() == pytest.approx(before, rel=1e-6)
    seen = mean_square(tensor(x), tensor(y), torch.ones(3, 7), tensor(UNEQUAL)).item()
    assert seen == pytest.approx(naive_mean_square(x, y, [[1] * 7] * 3, UNEQUAL), rel=1e-5)
    assert seen > 10 * before


def test_mean_square_of_half_precision_is_of_full_precision() -> None:
    # 256 and 258 in steps of 2, the closest bfloat16 knows there: the square 4 and its mean are exact in float32
    x, y = torch.full((1, 3, 1), 258.0, dtype=torch.bfloat16), torch.full((1, 3, 1), 256.0, dtype=torch.bfloat16)
    found = mean_square(x, y, torch.ones(1, 3, dtype=torch.long), torch.ones(1, dtype=torch.long))
    assert found.dtype is torch.float32
    assert found.item() == 4.0


# Maximum mean discrepancy.


def test_mmd_of_a_worked_example() -> None:
    # x = e1, e2 and y = e1, e1. XX: 0, 2, 2, 0; YY: 0; XY: 0, 0, 2, 2. sigma^2 = (4 + 0 + 2 * 4) / 4 / 4 = 0.75.
    # k(2) = sum of exp(-4 / 3c) = 0.0048280 + 0.0694835 + 0.2635971 + 0.5134171 + 0.7165313 = 1.5678570, k(0) = 5
    # (10 + 2 k + 20 - 2 (10 + 2 k)) / 4 = (10 - 2 k) / 4
    x, y = tensor([[[2.0, 0.0]], [[0.0, 5.0]]]), tensor([[[1.0, 0.0]], [[0.5, 0.0]]])
    assert mmd(x, y, torch.ones(2, 1)).item() == pytest.approx(1.7160715, abs=1e-6)
    assert naive_mmd(x.tolist(), y.tolist(), [[1], [1]]) == pytest.approx(1.7160715, abs=1e-6)


def test_mmd_of_one_text_each() -> None:
    # XX = YY = 0, XY = 2: sigma^2 = 1,
    # k(2) = sum of exp(-1 / c) = 0.0183156 + 0.1353353 + 0.3678794 + 0.6065307 + 0.7788008
    x, y = tensor([[[3.0, 0.0]]]), tensor([[[0.0, 1.0]]])
    assert mmd(x, y, torch.ones(1, 1)).item() == pytest.approx(10 - 2 * 1.9068618, abs=1e-6)


@pytest.mark.parametrize("mask", [FULL, PADDED])
def test_mmd_equals_the_naive_one(mask: Mask) -> None:
    for seed in range(5):
        x, y = states(seed, 3), states(seed + 50, 3)
        found = mmd(tensor(x), tensor(y), tensor(mask)).item()
        assert found == pytest.approx(naive_mmd(x, y, mask), rel=1e-4)
        assert found > 0.01


def test_mmd_of_equal_sets_is_zero() -> None:
    x = tensor(states(1, 3))
    assert mmd(x, x.clone(), tensor(PADDED)).item() == pytest.approx(0.0, abs=1e-6)
    assert mmd(x, x[[2, 0, 1]], tensor(FULL)).item() == pytest.approx(0.0, abs=1e-6)  # sets have no order
    assert mmd(x, 7 * x, tensor(FULL)).item() == pytest.approx(0.0, abs=1e-6)  # nor length


def test_mmd_is_never_negative_by_rounding() -> None:
    found = [mmd(x := tensor(states(seed, 3)), x[[1, 2, 0]], tensor(FULL)).item() for seed in range(30)]
    assert min(found) >= 0
    assert max(found) < 1e-5


def test_mmd_is_symmetric() -> None:
    x, y = tensor(states(1, 3)), tensor(states(2, 3))
    assert mmd(x, y, tensor(PADDED)).item() == pytest.approx(mmd(y, x, tensor(PADDED)).item(), rel=1e-6)


def test_mmd_does_not_see_padding_that_is_masked() -> None:
    x, y = states(1, 3), states(2, 3)
    before = mmd(tensor(x), tensor(y), tensor(PADDED)).item()
    for a, b in zip(x, y, strict=True):
        a += [[7.0] * 3] * 2
        b += [[-7.0] * 3] * 2
    after = mmd(tensor(x), tensor(y), tensor([[*row, 0, 0] for row in PADDED])).item()
    assert after == pytest.approx(before, rel=1e-5)
    assert mmd(tensor(x), tensor(y), torch.ones(3, 6)).item() != pytest.approx(before, rel=1e-2)


@pytest.mark.parametrize("mask", [FULL, PADDED])
def test_mmd_draws_on_both_sides_and_its_bandwidth_is_a_constant(mask: Mask) -> None:
    x, y = states(1, 2), states(2, 2)
    sides = [tensor(x).requires_grad_(), tensor(y).requires_grad_()]
    mmd(*sides, tensor(mask)).backward()
    constant = naive_bandwidth(x, y, mask)
    step, moves = 1e-5, []
    for side, gradient in enumerate(one.grad for one in sides):
        for text in range(3):
            for position in range(4):
                for feature in range(2):
                    ends: dict[bool, Row] = {True: [], False: []}
                    for change in (step, -step):
                        moved = [states(1, 2), states(2, 2)]
                        moved[side][text][position][feature] += change
                        ends[True].append(naive_mmd(*moved, mask, constant))
                        ends[False].append(naive_mmd(*moved, mask))
                    held, free = [(ends[key][0] - ends[key][1]) / (2 * step) for key in (True, False)]
                    assert gradient[text, position, feature].item() == pytest.approx(held, abs=2e-5)
                    moves.append(abs(held - free))
        assert gradient.abs().max() > 0.01
    assert max(moves) > 1e-3  # a bandwidth with a gradient would have been seen


# Blocks.


@pytest.mark.parametrize("weight", [EQUAL, UNEQUAL])
@pytest.mark.parametrize("mask", [FULL, PADDED])
def test_terms_of_dfa_equal_the_naive_ones(mask: Mask, weight: Row) -> None:
    student, teachers = block_inputs()
    block = drawn(Features(WIDTH, THEIRS))
    expected = naive_features(block, student, teachers, mask, weight)
    assert values(call(block, student, teachers, mask, weight)) == pytest.approx(expected, rel=1e-4)
    assert min(expected.values()) > 0.1


@pytest.mark.parametrize("weight", [EQUAL, UNEQUAL])
@pytest.mark.parametrize("mask", [FULL, PADDED])
def test_terms_of_cfl_equal_the_naive_ones(mask: Mask, weight: Row) -> None:
    student, teachers = block_inputs()
    block = drawn(CommonFeatures(WIDTH, THEIRS))
    expected = naive_common(block, student, teachers, mask, weight)
    assert values(call(block, student, teachers, mask, weight)) == pytest.approx(expected, rel=1e-3)
    assert min(expected.values()) > 0.01


def test_the_common_space_is_a_quarter_of_the_student() -> None:
    block = CommonFeatures(WIDTH, THEIRS)
    assert block.student.weight.shape == (4, 16)
    assert [to.weight.shape for to in block.teachers] == [(4, 16), (4, 12)]
    assert [layer.weight.shape for layer in block.extract if hasattr(layer, "weight")] == [(4, 4), (4, 4)]
    assert [[layer.weight.shape for layer in back if hasattr(layer, "weight")] for back in block.restore] == [
        [(16, 4), (16, 16)],
        [(12, 4), (12, 12)],
    ]


def test_reconstruction_of_dfa_of_a_worked_example() -> None:
    # widths 1 and 3, r = h_1, h'_1 = 2 r, h'_2 = 0: MSE 1 of teacher 1, (1 + 4 + 9) / 3 of teacher 2; not one mean of 4
    block = Features(1, [1, 3])
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.zero_()
        block.encode.weight[0, 0] = 1.0
        block.decode.weight[0, 0] = 2.0
        block.student.weight[0, 0] = 3.0
    terms = call(block, [[[1.0]]], [[[[1.0]]], [[[1.0, 2.0, 3.0]]]], [[1]], [1.0])
    assert values(terms) == pytest.approx({"feature": 4.0, "reconstruction": 1 + 14 / 3})


def test_what_the_terms_of_dfa_train() -> None:
    student, teachers = (tensor(states(seed, width)).requires_grad_() for seed, width in ((0, WIDTH), (1, 28)))
    theirs = list(teachers.split(THEIRS, -1))
    block = drawn(Features(WIDTH, THEIRS))
    tensors = dict(block.named_parameters()) | {"h_s": student, "h_t": teachers}
    terms = call(block, student, theirs)
    # r is a constant for the student to follow
    assert reached(terms["feature"], tensors) == {"student.weight", "student.bias", "h_s"}
    assert reached(terms["reconstruction"], tensors) == {
        "encode.weight",
        "encode.bias",
        "decode.weight",
        "decode.bias",
        "h_t",
    }


def test_what_the_terms_of_cfl_train() -> None:
    student, theirs = tensor(states(0, WIDTH)).requires_grad_(), [tensor(states(1, 16)), tensor(states(2, 12))]
    block = drawn(CommonFeatures(WIDTH, THEIRS))
    tensors = dict(block.named_parameters()) | {"h_s": student}
    terms = call(block, student, theirs)
    own = {"student.weight", "student.bias", "h_s"}
    restore = {name for name in tensors if name.startswith("restore.")}
    assert reached(terms["discrepancy"], tensors) == set(tensors) - restore
    assert reached(terms["reconstruction"], tensors) == set(tensors) - own
    assert len(restore) == 8


@pytest.mark.parametrize("block", [Features, CommonFeatures])
def test_terms_of_one_text_and_one_teacher(block: Any) -> None:
    made = drawn(block(WIDTH, [16]))
    student, teacher = states(0, WIDTH, [3]), states(1, 16, [3])
    naive = naive_features if block is Features else naive_common
    expected = naive(made, student, [teacher], [[1, 1, 1]], [2.0])
    assert values(call(made, student, [teacher], [[1, 1, 1]], [2.0])) == pytest.approx(expected, rel=1e-3)


# A student with blocks beside it.


def config(**changes: Any) -> Any:
    from transformers import BertConfig

    usual = {
        "vocab_size": 40,
        "hidden_size": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "max_position_embeddings": 16,
        "initializer_range": 0.3,
        "num_labels": 5,
    }
    return BertConfig(**(usual | changes))


def bert(tagging: bool = False, **changes: Any) -> Any:
    from transformers import BertForSequenceClassification, BertForTokenClassification

    torch.manual_seed(len(changes) + 1)
    return (BertForTokenClassification if tagging else BertForSequenceClassification)(config(**changes)).eval()


DEEP = {"num_hidden_layers": 4, "hidden_size": 12, "intermediate_size": 20, "num_labels": 3}
FLAT = {"num_labels": 2}


@pytest.fixture
def text_batch() -> dict[str, Tensor]:
    return {
        "input_ids": torch.tensor([[2, 5, 6, 3], [2, 7, 0, 0], [9, 0, 0, 0]]),
        "attention_mask": torch.tensor(PADDED),
    }


class Watched:
    """What each layer of a model gives, counted from 1, embeddings 0, by hooks and not by the model's own report."""

    def __init__(self, model: Any):
        self.layers: dict[int, Tensor] = {}
        encoder = model.base_model
        modules = [encoder.embeddings, *encoder.encoder.layer]
        self._hooks = [module.register_forward_hook(self._keep(i)) for i, module in enumerate(modules)]

    def _keep(self, i: int) -> Any:
        def keep(module: nn.Module, given: Any, output: Any) -> None:
            self.layers[i] = (output[0] if isinstance(output, tuple) else output).detach()

        return keep

    def close(self) -> None:
        for hook in self._hooks:
            hook.remove()


def watch(model: Any, batch: dict[str, Tensor]) -> tuple[Any, list[Texts]]:
    """Logits and hidden states, embeddings first, as lists."""
    watched = Watched(model)
    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    watched.close()
    return logits, [watched.layers[i].tolist() for i in sorted(watched.layers)]


def hidden(model: Any, batch: dict[str, Tensor]) -> Sequence[Tensor]:
    with torch.no_grad():
        return model.base_model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], output_hidden_states=True
        ).hidden_states


@pytest.mark.parametrize("block", [Features, CommonFeatures])
def test_without_teachers_it_is_the_student_alone(block: Any, text_batch: dict[str, Tensor]) -> None:
    student = bert()
    aligned = drawn(Aligned(student, block, THEIRS, [(2, 2, 4)], False)).eval()
    expected = student(**text_batch)
    assert torch.equal(aligned(**text_batch).logits, expected.logits)
    assert not hasattr(aligned(**text_batch), "terms")
    with torch.no_grad():  # nor does a block move it
        for parameter in aligned.blocks.parameters():
            parameter.fill_(math.nan)
    assert torch.equal(aligned(**text_batch).logits, expected.logits)


@pytest.mark.parametrize("count", [1, None])
@pytest.mark.parametrize(("block", "naive"), [(Features, naive_features), (CommonFeatures, naive_common)])
def test_terms_are_summed_over_the_layers(
    block: Any, naive: Any, count: int | None, text_batch: dict[str, Tensor]
) -> None:
    student, teachers = bert(), [bert(**FLAT), bert(**DEEP)]
    layers = [(2, 2, 4), (1, 1, 2)][:count]
    aligned = Aligned(student, block, THEIRS, layers, False).eval()
    drawn(aligned.blocks)
    theirs = [hidden(teacher, text_batch) for teacher in teachers]
    found = aligned(**text_batch, teachers=theirs, mask=tensor(PADDED), weight=tensor(UNEQUAL))
    logits, own = watch(student, text_batch)
    watched = [watch(teacher, text_batch)[1] for teacher in teachers]
    expected: dict[str, float] = {}
    for made, (layer, *others) in zip(aligned.blocks, layers, strict=True):
        chosen = [of[other] for of, other in zip(watched, others, strict=True)]
        for name, term in naive(made, own[layer], chosen, PADDED, UNEQUAL).items():
            expected[name] = expected.get(name, 0.0) + term
    assert torch.allclose(found.logits, logits, atol=1e-6)
    assert values(found.terms) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("biases_only", [False, True])
@pytest.mark.parametrize("block", [Features, CommonFeatures])
def test_blocks_are_drawn_as_bert_is(block: Any, biases_only: bool) -> None:
    student = bert(hidden_size=64)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    torch.manual_seed(3)
    aligned = Aligned(student, block, [64, 48], [(2, 2, 4), (1, 1, 2)], biases_only)
    matrices = [p for p in aligned.blocks.parameters() if p.ndim > 1]
    biases = [p for p in aligned.blocks.parameters() if p.ndim == 1]
    assert len(matrices) == len(biases) == len(aligned.blocks) * (3 if block is Features else 9)
    for matrix in matrices:
        assert matrix.std().item() == pytest.approx(0.02, rel=0.2)
        assert matrix.mean().item() == pytest.approx(0.0, abs=0.005)
    assert torch.cat([m.flatten() for m in matrices]).std().item() == pytest.approx(0.02, rel=0.03)
    assert not any(bias.any() for bias in biases)
    after = student.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())  # the student is left as it is


@pytest.mark.parametrize("biases_only", [False, True])
@pytest.mark.parametrize("block", [Features, CommonFeatures])
def test_biases_only_leaves_the_matrices_of_the_blocks(
    block: Any, biases_only: bool, text_batch: dict[str, Tensor]
) -> None:
    aligned = Aligned(bert(), block, THEIRS, [(2, 2, 4)], biases_only).eval()
    trained = {name for name, parameter in aligned.named_parameters() if parameter.requires_grad}
    blocks = {name for name, _ in aligned.named_parameters() if name.startswith("blocks.0.")}
    biases = {name for name in blocks if name.endswith(".bias")}
    assert 0 < len(biases) < len(blocks)
    assert {name for name in trained if name in blocks} == (biases if biases_only else blocks)
    assert {name for name, _ in aligned.named_parameters() if name.startswith("model.")} <= trained
    # and no more is moved by a step
    before = {name: value.clone() for name, value in aligned.state_dict().items()}
    theirs = [hidden(teacher, text_batch) for teacher in (bert(**FLAT), bert(**DEEP))]
    found = aligned(**text_batch, teachers=theirs, mask=tensor(PADDED), weight=tensor(EQUAL))
    sum(found.terms.values()).backward()
    torch.optim.SGD([p for p in aligned.parameters() if p.requires_grad], lr=1.0).step()
    moved = {name for name, value in aligned.state_dict().items() if not torch.equal(value, before[name])}
    assert bool(moved & (blocks - biases)) is not biases_only
    assert moved & biases
    assert any(name.startswith("model.") for name in moved)


@pytest.mark.parametrize("block", [Features, CommonFeatures])
def test_half_precision_gives_terms_of_full_precision(block: Any, text_batch: dict[str, Tensor]) -> None:
    student, teachers = bert(), [bert(**FLAT), bert(**DEEP)]
    aligned = Aligned(student, block, THEIRS, [(2, 2, 4)], False).eval()
    drawn(aligned.blocks)
    mask, weight = text_batch["attention_mask"], torch.ones(3, dtype=torch.long)
    exact = aligned(**text_batch, teachers=[hidden(t, text_batch) for t in teachers], mask=mask, weight=weight).terms
    with torch.autocast("cpu", dtype=torch.bfloat16):
        theirs = [[h.bfloat16() for h in hidden(teacher, text_batch)] for teacher in teachers]
        found = aligned(**text_batch, teachers=theirs, mask=mask, weight=weight)
        sum(found.terms.values()).backward()
    assert {term.dtype for term in found.terms.values()} == {torch.float32}
    assert values(found.terms) == pytest.approx(values(exact), rel=0.1)
    assert all(torch.isfinite(p.grad).all() for p in aligned.blocks.parameters())


def test_a_difference_that_half_precision_loses_is_kept() -> None:
    # texts that differ by 1 part in 100: their distances are about 1e-4, the steps of 8 bits near 2 are 1e-2
    rng = random.Random(4)
    x = [[[rng.gauss(0, 1) for _ in range(32)]] for _ in range(3)]
    for text in x[1:]:
        text[0] = [a + 0.01 * rng.gauss(0, 1) for a in x[0][0]]
    y = [[[a + 0.01 * rng.gauss(0, 1) for a in text[0]]] for text in x]
    mask = [[1]] * 3
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = mmd(tensor(x), tensor(y), tensor(mask))
    assert found.item() == pytest.approx(naive_mmd(x, y, mask), rel=0.02)


# The whole loss.


COLUMNS = {False: [[0, 4], [3, 1, 2]], True: [[0, 2, 1], [4, 0, 3]]}
TAGGING = pytest.mark.parametrize("tagging", [False, True], ids=["texts", "words"])
METHODS = pytest.mark.parametrize("kind", [Dfa, Cfl])


def options(**changes: Any) -> SimpleNamespace:
    """Those of the released code, the blocks trained."""
    usual = {
        "name": "dfa",
        "temperature": 1.0,
        "o_merge": Merge.mean,
        "layers": None,
        "align_weight": 1.0,
        "reconstruction_weight": 1.0,
        "align_train": Train.all,
        "align_lr": 1e-3,
        "mask_padding": True,
    }
    return SimpleNamespace(**(usual | changes))


class Whole:
    """A method without its bench: models that are drawn, rows made up."""

    def __init__(self, kind: Any, tagging: bool, **changes: Any):
        sizes = [len(columns) for columns in COLUMNS[tagging]]
        self.tagging = tagging
        self.columns = COLUMNS[tagging]
        self.teachers = [
            bert(tagging, **shape | {"num_labels": size}) for shape, size in zip((FLAT, DEEP), sizes, strict=True)
        ]
        self.kind = kind
        self.method = SimpleNamespace(
            config=options(**changes),
            bench=SimpleNamespace(
                seed=1,
                data=SimpleNamespace(max_length=9),
                runtime=SimpleNamespace(autocast=lambda precision: nullcontext()),
                teacher=SimpleNamespace(precision=None),
            ),
            union=Union(self.columns, 5),
            align=kind.align,
            block=lambda: kind.block(None),
            batch_logits=lambda batch: [batch["teacher_0"], batch["teacher_1"]],
            _models=self.teachers,
            _states=lambda batch: kind._states(self.method, batch),
            _same_tokens=lambda: None,
        )
        self.student = bert(tagging)
        self.aligned = kind.student(self.method, self.student).eval()
        drawn(self.aligned.blocks)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return self.kind.loss(self.method, self.aligned, batch)

    def batch(self, rows: Sequence[int] = (0, 1, 2), extra: int = 0) -> dict[str, Tensor]:
        """Rows of 4, 2 and 1 tokens, of 3, 1 and 1 words where they are sentences; `extra` tokens of padding."""
        ids = [[2, 5, 6, 3], [2, 7, 0, 0], [9, 0, 0, 0]]
        words = [[0, 2, 3], [1], [0]]
        logits = [[states(70 + i, len(own), [3, 1, 1])[row] for row in rows] for i, own in enumerate(self.columns)]
        length = 4 + extra
        found = {
            "input_ids": torch.tensor([ids[row] + [0] * extra for row in rows]),
            "attention_mask": torch.tensor([PADDED[row] + [0] * extra for row in rows]),
        }
        if self.tagging:
            found["units"] = torch.tensor([line * length + at for line, row in enumerate(rows) for at in words[row]])
            found["row_units"] = torch.tensor([len(words[row]) for row in rows])
        for i, own in enumerate(logits):
            lines = [unit for row in own for unit in row] if self.tagging else [row[0] for row in own]
            found[f"teacher_{i}"] = tensor(lines)
        return found

    def naive(self, batch: dict[str, Tensor], pairs: list[tuple[int, ...]]) -> dict[str, float]:
        """Each term by itself, in plain floats from what hooks saw."""
        settings = self.method.config
        logits, own = watch(self.student, batch)
        theirs = [watch(teacher, batch)[1] for teacher in self.teachers]
        scores, weight = logits.tolist(), [1.0] * len(logits)
        if self.tagging:
            length = batch["input_ids"].shape[1]
            scores = [scores[unit // length][unit % length] for unit in batch["units"].tolist()]
            weight = batch["row_units"].tolist()
        mask = batch["attention_mask"].tolist()
        if not settings.mask_padding:
            mask = [[1] * len(row) for row in mask]
        zs = [list(pair) for pair in zip(batch["teacher_0"].tolist(), batch["teacher_1"].tolist(), strict=True)]
        terms = {
            "kd": naive_vanilla_kd(self.columns, zs, scores, settings.temperature, settings.o_merge.value),
            self.kind.align: 0.0,
            "reconstruction": 0.0,
        }
        naive = naive_features if self.kind is Dfa else naive_common
        for block, (layer, *others) in zip(self.aligned.blocks, pairs, strict=True):
            chosen = [of[other] for of, other in zip(theirs, others, strict=True)]
            found = naive(block, own[layer], chosen, mask, weight)
            terms[self.kind.align] += settings.align_weight * found[self.kind.align]
            terms["reconstruction"] += settings.reconstruction_weight * found["reconstruction"]
        return terms


# the student has 2 layers, the teachers 2 and 4
PAIRS = [(2, 2, 4), (1, 1, 2)]


@pytest.mark.parametrize(
    ("changes", "layers"),
    [
        ({}, 2),
        ({"layers": 1}, 1),
        ({"mask_padding": False}, 2),
        ({"align_weight": 0.5, "reconstruction_weight": 3.0, "temperature": 2.0, "o_merge": Merge.max}, 2),
    ],
    ids=["all layers", "last layer", "padding too", "weights"],
)
@TAGGING
@METHODS
def test_loss_equals_the_naive_sum(kind: Any, tagging: bool, changes: dict[str, Any], layers: int) -> None:
    whole = Whole(kind, tagging, **changes)
    batch = whole.batch(extra=1)
    found = whole.loss(batch)
    expected = whole.naive(batch, PAIRS[:layers])
    assert values(found) == pytest.approx(expected, rel=1e-3)
    assert sum(found.values()).item() == pytest.approx(math.fsum(expected.values()), rel=1e-3)
    assert min(expected.values()) > 0.01


@TAGGING
@METHODS
def test_masked_loss_does_not_depend_on_padding(kind: Any, tagging: bool) -> None:
    for masked in (True, False):
        whole = Whole(kind, tagging, mask_padding=masked)
        before, after = values(whole.loss(whole.batch())), values(whole.loss(whole.batch(extra=3)))
        assert after["kd"] == pytest.approx(before["kd"], rel=1e-4)
        assert (after == pytest.approx(before, rel=1e-3)) is masked


@TAGGING
def test_loss_of_dfa_does_not_depend_on_the_split_of_a_batch(tagging: bool) -> None:
    whole = Whole(Dfa, tagging)
    expected = values(whole.loss(whole.batch()))
    units = [3, 1, 1] if tagging else [1, 1, 1]
    found = dict.fromkeys(expected, 0.0)
    for rows in ([0], [2, 1]):
        share = sum(units[row] for row in rows) / sum(units)
        for name, value in values(whole.loss(whole.batch(rows))).items():
            found[name] += share * value
    assert found == pytest.approx(expected, rel=1e-4)
    assert not Dfa.whole_batch
    assert Cfl.whole_batch  # whose discrepancy compares texts


@METHODS
def test_loss_trains_student_and_blocks_and_no_teacher(kind: Any) -> None:
    whole = Whole(kind, False)
    sum(whole.loss(whole.batch()).values()).backward()
    assert all(p.grad is None for teacher in whole.teachers for p in teacher.parameters())
    assert all(p.grad is not None for p in whole.aligned.parameters())
    assert not any("teacher" in name for name in whole.aligned.model.state_dict())


def test_a_teacher_in_train_mode_is_refused() -> None:
    whole = Whole(Dfa, False)
    whole.teachers[1].train()
    with pytest.raises(AssertionError):
        whole.loss(whole.batch())


# What the options become.


@pytest.fixture
def dfa() -> Iterator[Whole]:
    yield Whole(Dfa, False)


def test_options_of_the_student(dfa: Whole) -> None:
    made = Dfa.student(dfa.method, dfa.student)
    assert made.layers == PAIRS
    assert [block.widths for block in made.blocks] == [[16, 12], [16, 12]]
    assert all(p.requires_grad for p in made.parameters())
    dfa.method.config = options(layers=1, align_train=Train.biases)
    made = Dfa.student(dfa.method, dfa.student)
    assert made.layers == PAIRS[:1]
    assert {name for name, p in made.blocks.named_parameters() if not p.requires_grad} == {
        "0.encode.weight",
        "0.decode.weight",
        "0.student.weight",
    }
    assert isinstance(Whole(Cfl, False).aligned.blocks[0], CommonFeatures)


def test_blocks_depend_on_the_seed_of_the_run_alone(dfa: Whole) -> None:
    found = []
    for seed, noise in ((1, 0), (1, 5), (2, 0)):
        dfa.method.bench.seed = seed
        torch.manual_seed(noise)
        found.append(Dfa.student(dfa.method, dfa.student).blocks[0].encode.weight)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize(
    ("layers", "depth", "refused"),
    [(None, 2, None), (None, 4, None), (1, 1, None), (None, 1, "teacher_2"), (3, 4, "method.layers")],
)
def test_layers_that_cannot_be_paired_are_refused_before_anything_starts(
    layers: int | None, depth: int, refused: str | None
) -> None:
    def place(layers: int) -> tuple[SimpleNamespace, SimpleNamespace]:
        return SimpleNamespace(tiny=SimpleNamespace(layers=layers, width=8)), SimpleNamespace(folder=None)

    places = {"student": place(2), "teacher_1": place(2), "teacher_2": place(depth)}
    found = Dfa.check_places(options(layers=layers, models=None), None, places)  # type: ignore[arg-type]
    assert [problem.where for problem in found] == ([refused] if refused else [])


def test_rate_of_the_blocks_and_width_of_the_batches(dfa: Whole) -> None:
    (start, rate), *rest = Dfa.rates(dfa.method).items()
    assert (rate, rest) == (1e-3, [])
    names = {name for name, _ in dfa.aligned.named_parameters() if name.startswith(start)}
    assert names == {f"blocks.{name}" for name, _ in dfa.aligned.blocks.named_parameters()}
    assert Dfa.width(dfa.method) is None
    dfa.method.config = options(align_lr=None, mask_padding=False)
    assert Dfa.rates(dfa.method) == {}
    assert Dfa.width(dfa.method) == 9
