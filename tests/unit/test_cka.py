"""The decoder and the sampled loss against a second implementation in plain floats, and against full cross entropy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from kbench.knowledge.noise import Noise, removed
from kbench.methods.cka import Decoder, sampled_loss, span_means

WIDTH, KNOWLEDGE, VOCABULARY = 6, 4, 23

Row = list[float]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed))


def decoder(kind: str = "recurrent", shared: nn.Linear | None = None, delta: float = 0.5) -> Decoder:
    torch.manual_seed(3)
    made = Decoder(WIDTH, KNOWLEDGE, delta, kind, shared)
    with torch.no_grad():
        made.norm.weight.uniform_(0.5, 1.5)
        made.norm.bias.normal_()
    return made


# The second implementation: one number at a time.


def times(matrix: Tensor, vector: Row) -> Row:
    return [math.fsum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix.tolist()]


def naive_states(made: Decoder, relation: Tensor, span: Row, vector: Row, to_tail: bool, steps: int) -> list[Row]:
    """h_1, h_2, ... of one mention."""
    start = [x * 0.5 * (1 + math.erf(x / math.sqrt(2))) for x in times(made.start.weight, span)]
    mean = math.fsum(start) / WIDTH
    spread = math.sqrt(math.fsum((x - mean) ** 2 for x in start) / WIDTH + 1e-5)
    weight, bias = made.norm.weight.tolist(), made.norm.bias.tolist()
    state = [(x - mean) / spread * w + b for x, w, b in zip(start, weight, bias, strict=True)]
    h_r = [x if to_tail else -x for x in times(relation, vector)]
    found = []
    for _ in range(steps):
        state = [math.tanh(made.delta * r * x) for r, x in zip(h_r, times(made.step.weight, state), strict=True)]
        found.append(state)
    return found


def naive_loss(
    state: Row, target: int, embeddings: list[Row], negatives: list[int], minus: dict[int, float], f: str, tau: float
) -> float:
    def score(token: int) -> float:
        dot = math.fsum(a * b for a, b in zip(state, embeddings[token], strict=True))
        if f == "cosine":
            dot /= math.hypot(*state) * math.hypot(*embeddings[token])
        return dot / tau - minus.get(token, 0.0)

    total = math.fsum(math.exp(score(token)) for token in [target, *(n for n in negatives if n != target)])
    return -math.log(math.exp(score(target)) / total)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("kind", ["recurrent", "one_step"])
def test_the_decoder_agrees_with_the_equations(kind: str, shared: bool) -> None:
    injection = nn.Linear(KNOWLEDGE, WIDTH)
    made = decoder(kind, injection if shared else None, delta=0.7)
    relation = injection.weight if shared else made.relation.weight  # type: ignore[union-attr]
    spans, vectors = random(5, WIDTH, seed=1), random(5, KNOWLEDGE, seed=2)
    to_tail = torch.tensor([True, False, True, False, False])
    found = made(spans, vectors, to_tail, 4)
    assert found.shape == (5, 4, WIDTH)
    for row in range(5):
        expected = naive_states(made, relation, spans[row].tolist(), vectors[row].tolist(), bool(to_tail[row]), 4)
        if kind == "one_step":
            expected = expected[:1] * 4
        assert torch.allclose(found[row], torch.tensor(expected), atol=1e-5)
    assert torch.allclose(made(spans, vectors, to_tail, 2), found[:, :2], atol=1e-6), "no token knows of later ones"
    assert made(spans[:0], vectors[:0], to_tail[:0], 4).shape == (0, 4, WIDTH)
    assert made(spans, vectors, to_tail, 0).shape == (5, 0, WIDTH)


def test_a_shared_projection_stays_the_injections() -> None:
    injection = nn.Linear(KNOWLEDGE, WIDTH)
    made, own = decoder(shared=injection), decoder()
    names = {"start.weight", "step.weight", "norm.weight", "norm.bias"}
    assert set(dict(made.named_parameters())) == set(made.state_dict()) == names
    assert set(dict(own.named_parameters())) == names | {"relation.weight"}
    made(random(2, WIDTH), random(2, KNOWLEDGE), torch.tensor([True, False]), 3).square().sum().backward()
    assert injection.weight.grad is not None and injection.weight.grad.abs().sum() > 0
    assert injection.bias.grad is None, "the bias would not change its sign with the direction"


def test_the_two_directions_differ() -> None:
    made, spans, vectors = decoder(), random(1, WIDTH), random(1, KNOWLEDGE, seed=1)
    forth, back = (made(spans, vectors, torch.tensor([way]), 2)[0] for way in (True, False))
    assert torch.allclose(forth[0], -back[0]) and torch.allclose(forth[1], back[1]) and forth.abs().min() > 0
    assert torch.allclose(back, made(spans, -vectors, torch.tensor([True]), 2)[0])


@pytest.mark.parametrize("shared", [False, True])
def test_balanced_states_do_not_vanish(shared: bool) -> None:
    torch.manual_seed(1)
    injection = nn.Linear(50, 256)
    with torch.no_grad():
        injection.weight.mul_(0.02)
    made = Decoder(256, 50, 0.5, "recurrent", injection if shared else None)
    relations, spans = random(40, 50, seed=1) * 0.3, random(40, 256, seed=2)
    to_tail = torch.arange(40) % 2 == 0
    before = made(spans, relations, to_tail, 8)[:, -1].square().mean().sqrt()
    direction = made.step.weight / made.step.weight.norm()
    made.balance(relations[:20])
    after = made(spans, relations, to_tail, 8)[:, -1].square().mean().sqrt()
    assert before < 1e-6 and 0.05 < after < 1
    assert torch.allclose(made.step.weight / made.step.weight.norm(), direction), "scaled, not drawn anew"
    kept = made.step.weight.clone()
    made.balance(torch.zeros(3, 50))
    assert torch.equal(made.step.weight, kept), "no size to go by"


def test_span_means_agree_with_a_loop() -> None:
    states = random(3, 9, 5).requires_grad_()
    rows, starts, stops = (torch.tensor(one) for one in ([2, 0, 0, 1, 2], [1, 3, 1, 8, 0], [4, 4, 9, 9, 9]))
    found = span_means(states, rows, starts, stops)
    expected = [states[r, a:b].mean(0) for r, a, b in zip(rows, starts, stops, strict=True)]
    assert torch.allclose(found, torch.stack(expected), atol=1e-6)
    assert torch.equal(span_means(states, rows, starts, stops, longest=9), found)
    (gradient,) = torch.autograd.grad(found[1].sum(), states)
    assert torch.equal(
        gradient.abs().sum(-1) > 0, torch.tensor([[p == 3 and r == 0 for p in range(9)] for r in range(3)])
    )
    assert span_means(states, rows[:0], starts[:0], stops[:0]).shape == (0, 5)


TARGETS = torch.tensor([[4, 9, -1], [7, -1, -1], [0, 22, 4]])
NEGATIVES = torch.tensor([4, 11, 3, 11, 22, 15])


@pytest.mark.parametrize("tau", [1.0, 0.3])
@pytest.mark.parametrize("correction", [True, False])
@pytest.mark.parametrize("f", ["dot", "cosine"])
def test_the_loss_agrees_with_the_equation(f: str, correction: bool, tau: float) -> None:
    h, embeddings = random(3, 3, WIDTH, seed=1), random(VOCABULARY, WIDTH, seed=2)
    noise = Noise(np.arange(VOCABULARY))
    log_q = {token: float(noise.log_expected(np.array(token), 6)) for token in range(VOCABULARY)}
    out = torch.zeros(3, 6, dtype=torch.bool)
    out[0, 2] = out[2, 1] = True
    given = (
        torch.tensor([log_q[t] for t in NEGATIVES.tolist()]),
        torch.from_numpy(noise.log_expected(TARGETS.numpy(), 6)),
    )
    # what stands where there is no target must not be read
    given[1][TARGETS < 0] = float("nan")
    loss, chance = sampled_loss(
        h, TARGETS, embeddings, NEGATIVES, *(given if correction else (None, None)), out, f, tau, correction
    )
    assert loss.shape == chance.shape == (3, 3) and loss.dtype == torch.float32
    for row in range(3):
        kept = [token for place, token in enumerate(NEGATIVES.tolist()) if not out[row, place]]
        for place in range(3):
            target = int(TARGETS[row, place])
            if target < 0:
                assert loss[row, place] == chance[row, place] == 0
                continue
            minus = log_q if correction else {}
            expected = naive_loss(h[row, place].tolist(), target, embeddings.tolist(), kept, minus, f, tau)
            assert float(loss[row, place]) == pytest.approx(expected, abs=1e-5)
            assert float(chance[row, place]) == pytest.approx(math.exp(-expected), abs=1e-6)


@pytest.mark.parametrize("f", ["dot", "cosine"])
def test_with_all_other_tokens_it_is_full_cross_entropy(f: str) -> None:
    h = random(3, 3, WIDTH, seed=4).requires_grad_()
    embeddings = random(VOCABULARY, WIDTH, seed=5).requires_grad_()
    loss, _ = sampled_loss(h, TARGETS, embeddings, torch.arange(VOCABULARY), f=f, correction=False)
    logits = h @ embeddings.T
    if f == "cosine":
        logits = logits / h.norm(dim=-1, keepdim=True) / embeddings.norm(dim=-1)
    expected = cross_entropy(logits.flatten(0, 1), TARGETS.flatten(), ignore_index=-1, reduction="none").view(3, 3)
    assert torch.allclose(loss, expected, atol=1e-5)
    ours, theirs = (torch.autograd.grad(total.sum(), (h, embeddings), retain_graph=True) for total in (loss, expected))
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, atol=1e-5) and one.abs().sum() > 0


def test_gold_is_never_among_its_own_negatives() -> None:
    h, embeddings = random(2, 1, WIDTH), random(VOCABULARY, WIDTH)
    targets, out = torch.tensor([[4], [11]]), torch.zeros(2, 3, dtype=torch.bool)
    with_gold, _ = sampled_loss(h, targets, embeddings, torch.tensor([4, 11, 3]), removed=out, correction=False)
    for row, rest in enumerate(([11, 3], [4, 3])):
        one = slice(row, row + 1)
        without, _ = sampled_loss(h[one], targets[one], embeddings, torch.tensor(rest), correction=False)
        assert torch.allclose(with_gold[row], without[0], atol=1e-6)
    alone, sure = sampled_loss(h[:1], targets[:1], embeddings, torch.tensor([4, 4]), correction=False)
    assert alone.tolist() == [[0.0]] and sure.tolist() == [[1.0]], "nothing else is left to say"


def test_other_true_answers_are_removed() -> None:
    h, embeddings = random(2, 2, WIDTH), random(VOCABULARY, WIDTH)
    targets = torch.tensor([[4, 5], [6, -1]])
    negatives = np.array([1, 2, 3])
    out = torch.from_numpy(removed(negatives, np.array([2, 3, 1]), np.array([2, 3])))
    loss, _ = sampled_loss(h, targets, embeddings, torch.from_numpy(negatives), removed=out, correction=False)
    for row, rest in enumerate(([1], [2, 3])):
        one = slice(row, row + 1)
        expected, _ = sampled_loss(h[one], targets[one], embeddings, torch.tensor(rest), correction=False)
        assert torch.allclose(loss[row], expected[0], atol=1e-6)


def test_corrected_negatives_stand_for_the_whole_vocabulary() -> None:
    """The sum over drawn tokens, each divided by how often it is drawn, is the sum over all on average."""
    h, embeddings = random(1, 1, WIDTH, seed=8), random(VOCABULARY, WIDTH, seed=9)
    target = torch.tensor([[4]])
    for kind in ("unigram", "log_uniform", "uniform"):
        noise = Noise(np.random.default_rng(1).integers(0, 90, VOCABULARY), kind)
        sums = []
        for key in range(300):
            drawn = noise.draw(200, key)
            log_q = torch.from_numpy(noise.log_expected(drawn, 200))
            # its own correction is not the subject: the target counts as it is
            _, chance = sampled_loss(h, target, embeddings, torch.from_numpy(drawn), log_q, torch.zeros(1, 1))
            sums.append(1 / float(chance))
        _, whole = sampled_loss(h, target, embeddings, torch.arange(VOCABULARY), correction=False)
        error = np.std(sums) / math.sqrt(len(sums))
        assert abs(np.mean(sums) - 1 / float(whole)) < 4 * error and error < 0.05 / float(whole)


def test_gradients_reach_everything_and_stay_numbers() -> None:
    made = decoder()
    made.balance(random(9, KNOWLEDGE))
    states = random(2, 8, WIDTH).requires_grad_()
    embeddings = random(VOCABULARY, WIDTH, seed=2).requires_grad_()
    spans = span_means(states, torch.tensor([0, 1, 1]), torch.tensor([1, 2, 5]), torch.tensor([3, 3, 7]))
    h = made(spans, random(3, KNOWLEDGE), torch.tensor([True, False, True]), 3)
    out = torch.ones(3, 6, dtype=torch.bool)
    out[0] = False
    unread = torch.where(TARGETS < 0, torch.nan, 0.0)
    loss, chance = sampled_loss(h, TARGETS, embeddings, NEGATIVES, torch.zeros(6), unread, out)
    (loss.sum() + chance.sum()).backward()
    for tensor in (states, embeddings, *made.parameters()):
        assert tensor.grad is not None and tensor.grad.isfinite().all() and tensor.grad.abs().sum() > 0
    assert states.grad is not None and not states.grad[:, [0, 7]].any()


def test_no_mention_has_no_loss() -> None:
    made, embeddings = decoder(), random(VOCABULARY, WIDTH)
    h = made(torch.zeros(0, WIDTH), torch.zeros(0, KNOWLEDGE), torch.zeros(0, dtype=torch.bool), 2)
    loss, chance = sampled_loss(h, torch.zeros(0, 2, dtype=torch.int64), embeddings, NEGATIVES, correction=False)
    assert loss.shape == chance.shape == (0, 2)
    loss.sum().backward()
    assert all(weight.grad is not None and not weight.grad.any() for weight in made.parameters())


def test_it_learns_which_token_comes_when() -> None:
    """Some steps of training say two names of three tokens, told apart by the relation alone."""
    made = Decoder(32, KNOWLEDGE)
    torch.manual_seed(1)
    relations, spans = random(2, KNOWLEDGE, seed=5), random(1, 32).expand(2, -1)
    made.balance(relations)
    embeddings = random(VOCABULARY, 32, seed=6)
    targets, everything = torch.tensor([[3, 9, 4], [8, 2, 15]]), torch.arange(VOCABULARY)
    optimizer = torch.optim.Adam(made.parameters(), lr=0.01)
    losses = []
    for _ in range(150):
        h = made(spans, relations, torch.tensor([True, True]), 3)
        loss, chance = sampled_loss(h, targets, embeddings, everything, correction=False)
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
        losses.append(float(loss.mean().detach()))
    assert losses[0] > 2 and losses[-1] < 0.2 and chance.min() > 0.7


def test_bf16_autocast_does_not_touch_the_scores() -> None:
    h, embeddings = random(3, 3, WIDTH), random(VOCABULARY, WIDTH)
    plain = sampled_loss(h, TARGETS, embeddings, NEGATIVES, correction=False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = sampled_loss(h, TARGETS, embeddings, NEGATIVES, correction=False)
        states = decoder()(random(2, WIDTH), random(2, KNOWLEDGE), torch.tensor([True, False]), 3)
    assert all(torch.equal(one, other) for one, other in zip(plain, found, strict=True))
    exact = decoder()(random(2, WIDTH), random(2, KNOWLEDGE), torch.tensor([True, False]), 3)
    assert torch.allclose(states.float(), exact, atol=0.05)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="no such decoder: lstm"):
        Decoder(WIDTH, KNOWLEDGE, kind="lstm")
    h, embeddings = random(3, 3, WIDTH), random(VOCABULARY, WIDTH)
    with pytest.raises(ValueError, match="no such similarity: l2"):
        sampled_loss(h, TARGETS, embeddings, NEGATIVES, f="l2")
    with pytest.raises(ValueError, match="the correction needs log_q of the negatives and of the targets"):
        sampled_loss(h, TARGETS, embeddings, NEGATIVES, torch.zeros(6))
