"""Injection against a loop over tokens, worked numbers, and the encoders of transformers that it goes into."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForMaskedLM, BertConfig, ElectraConfig, RobertaConfig, XLMRobertaConfig

from kbench.errors import BackboneError
from kbench.methods.injection import (
    Decay,
    Injection,
    embedded,
    inject,
    mixed,
    neighbour_vector,
    refuse_left_padding,
)

WIDTH, KNOWN = 16, 6
PAD = 1
SIZES = {"vocab_size": 60, "hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZES |= {"intermediate_size": 24, "max_position_embeddings": 40, "pad_token_id": PAD, "type_vocab_size": 2}
FAMILIES: dict[str, Any] = {"bert": BertConfig, "roberta": RobertaConfig, "xlm-roberta": XLMRobertaConfig}
LENGTHS = [9, 4, 7]

in_each = pytest.mark.parametrize("family", FAMILIES)


def encoder(family: str, auto: Any = AutoModel) -> Any:
    torch.manual_seed(3)
    return auto.from_config(FAMILIES[family](**SIZES)).eval()


def batch() -> tuple[Tensor, Tensor]:
    """Ids of three texts, padded on the right, and their attention mask."""
    ids = torch.full((len(LENGTHS), max(LENGTHS)), PAD)
    for row, length in enumerate(LENGTHS):
        ids[row, :length] = torch.arange(5 + row, 5 + row + length)
    return ids, (ids != PAD).long()


def spans() -> tuple[Tensor, Tensor, Tensor]:
    """Rows, starts and stops of four mentions."""
    return torch.tensor([0, 0, 2, 1]), torch.tensor([1, 5, 2, 3]), torch.tensor([3, 8, 3, 4])


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# v and h


def test_the_neighbour_of_a_head_is_tail_minus_relation_and_of_a_tail_head_plus_relation():
    head, relation, tail = (torch.tensor([[a, a], [a, 2 * a]]) for a in (1.0, 10.0, 100.0))
    found = neighbour_vector(head, relation, tail, torch.tensor([True, False]))
    assert found.tolist() == [[90.0, 90.0], [11.0, 22.0]]


def test_with_exact_vectors_a_mention_gets_its_own_entity_in_both_directions():
    head, relation = random(5, KNOWN), random(5, KNOWN, seed=1)
    tail = head + relation
    injection = Injection(KNOWN, WIDTH)
    for is_head, own in ((True, head), (False, tail)):
        v = neighbour_vector(head, relation, tail, torch.full((5,), is_head))
        torch.testing.assert_close(injection(v), injection(own), atol=1e-5, rtol=1e-5)


def test_h_has_the_mean_norm_of_the_embeddings():
    embeddings, vectors = 7 * random(60, WIDTH), 0.01 * random(40, KNOWN, seed=2)
    injection = Injection(KNOWN, WIDTH, seed=5).scaled_to(embeddings, vectors)
    wanted = sum(math.sqrt(sum(x * x for x in row)) for row in embeddings.tolist()) / len(embeddings)
    assert injection(vectors).norm(dim=-1).mean().item() == pytest.approx(wanted, rel=1e-5)
    assert not injection.projection.bias.any()


def test_first_weights_are_a_function_of_the_seed_and_draw_from_nothing_else():
    before = torch.get_rng_state()
    one, again, other = (Injection(KNOWN, WIDTH, seed=seed).projection.weight for seed in (1, 1, 2))
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("vectors", [torch.zeros(3, KNOWN), torch.zeros(0, KNOWN)], ids=["zeros", "none"])
def test_nothing_to_scale_by_is_an_error(vectors: Tensor):
    with pytest.raises(ValueError, match="no vector other than 0"):
        Injection(KNOWN, WIDTH).scaled_to(random(4, WIDTH), vectors)


# equation 7


def test_what_is_injected_and_what_is_remembered_are_mixed():
    h, local, overall = (torch.tensor([[a, -a]]) for a in (8.0, 2.0, 4.0))
    assert mixed(h, local, overall, 0.5).tolist() == [[5.5, -5.5]]  # 4 + (2 + 4) / 4
    assert mixed(h, local, overall, 1.0).tolist() == [[3.0, -3.0]]
    assert mixed(h, local * math.nan, overall, 0.0) is h


def test_memories_are_brought_to_the_size_of_h():
    h = torch.tensor([[3.0, 4.0], [0.6, 0.8]])  # norms 5 and 1
    local, overall = torch.tensor([[0.0, 20.0], [0.0, 20.0]]), torch.tensor([[-2.0, 0.0], [0.0, 0.0]])
    found = mixed(h, local, overall, 0.5, "match_norm")
    # half of h, a quarter of (0, |h|) and of (-|h|, 0); a memory of 0 stays 0
    torch.testing.assert_close(found, torch.tensor([[1.5 - 1.25, 2.0 + 1.25], [0.3, 0.4 + 0.25]]))


def test_memories_are_layer_normalised_and_brought_to_the_size_of_h():
    h = torch.tensor([[3.0, 4.0]])
    found = mixed(h, torch.tensor([[10.0, 30.0]]), torch.tensor([[7.0, 1.0]]), 0.5, "layernorm")
    size = 5 / math.sqrt(2)  # (-1, 1) and (1, -1), at h's root mean square
    torch.testing.assert_close(found, h / 2 + 0.25 * size * torch.tensor([[-1.0 + 1.0, 1.0 - 1.0]]), atol=1e-4, rtol=0)
    one = mixed(h, torch.tensor([[10.0, 30.0]]), torch.zeros(1, 2), 0.5, "layernorm")
    torch.testing.assert_close(one, h / 2 + 0.25 * size * torch.tensor([[-1.0, 1.0]]), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("scale", ["none", "match_norm", "layernorm"])
def test_the_gradient_of_h_is_its_share_and_none_reaches_the_memory(scale: str):
    h, local, overall = (random(3, WIDTH, seed=seed).requires_grad_() for seed in range(3))
    mixed(h, local, overall, 0.25, scale).sum().backward()
    torch.testing.assert_close(h.grad, torch.full((3, WIDTH), 0.75))
    assert local.grad is None and overall.grad is None


def test_the_share_of_the_memory_decays_by_epoch():
    shares = [Decay().share(step, total=40, per_epoch=10) for step in range(40)]
    assert shares == [0.5] * 10 + [0.25] * 10 + [0.125] * 10 + [0.0625] * 10
    assert {Decay(beta=1).share(step, 40, 10) for step in range(40)} == {0.5}
    assert Decay(final_zero=True).share(29, 35, 10) == 0.125
    assert Decay(final_zero=True).share(30, 35, 10) == 0.0
    assert Decay(final_zero=True).share(0, 10, 10) == 0.0


@pytest.mark.parametrize("total", [10, 70, 100, 1000])
def test_the_share_of_the_memory_decays_by_fraction_of_the_training(total: int):
    decay = Decay(unit="fraction", every=0.1)
    shares = [decay.share(step, total, per_epoch=total) for step in range(total)]
    assert shares == [0.5 / 2 ** (10 * step // total) for step in range(total)]
    last = [Decay(unit="fraction", every=0.1, final_zero=True).share(step, total, total) for step in range(total)]
    assert last == [0.0 if 10 * step // total == 9 else share for step, share in enumerate(shares)]


# spans


def naive_inject(embeddings: Tensor, rows: Tensor, starts: Tensor, stops: Tensor, vectors: Tensor) -> Tensor:
    found = embeddings.detach().clone()
    for row, start, stop, vector in zip(rows, starts, stops, vectors, strict=True):
        for place in range(start, min(stop, embeddings.shape[1])):
            found[row, place] = vector
    return found


def test_spans_are_overwritten_and_the_rest_stays():
    embeddings, vectors = random(3, 9, WIDTH), random(4, WIDTH, seed=1)
    before = embeddings.clone()
    found = inject(embeddings, *spans(), vectors)
    assert torch.equal(found, naive_inject(embeddings, *spans(), vectors))
    assert torch.equal(embeddings, before)


def test_a_later_span_wins_and_what_is_beyond_the_end_is_nothing():
    embeddings, vectors = random(1, 6, 2), random(3, 2, seed=1)
    where = torch.tensor([0, 0, 0]), torch.tensor([0, 1, 4]), torch.tensor([3, 2, 9])
    found = inject(embeddings, *where, vectors)
    assert torch.equal(found[0], torch.stack([vectors[i] for i in (0, 1, 0)] + [embeddings[0, 3]] + [vectors[2]] * 2))
    assert torch.equal(found, naive_inject(embeddings, *where, vectors))


def test_no_mention_changes_nothing():
    embeddings = random(2, 5, WIDTH)
    none = torch.zeros(0, dtype=torch.int64)
    assert inject(embeddings, none, none, none, torch.zeros(0, WIDTH)) is embeddings


def test_gradients_reach_vectors_through_their_spans_and_embeddings_elsewhere():
    embeddings, vectors = random(3, 9, WIDTH).requires_grad_(), random(4, WIDTH, seed=1).requires_grad_()
    weights = random(3, 9, WIDTH, seed=2)
    (inject(embeddings, *spans(), vectors) * weights).sum().backward()
    free = weights.clone()
    for number, (row, start, stop) in enumerate(zip(*spans(), strict=True)):
        torch.testing.assert_close(vectors.grad[number], weights[row, start:stop].sum(0))
        free[row, start:stop] = 0
    assert torch.equal(embeddings.grad, free)


def test_half_precision_vectors_take_the_embeddings_number_format():
    found = inject(random(3, 9, WIDTH), *spans(), random(4, WIDTH).to(torch.bfloat16))
    assert found.dtype is torch.float32


# encoders


@in_each
def test_embeddings_without_a_mention_give_what_ids_give(family: str):
    model, (ids, attention) = encoder(family), batch()
    none = torch.zeros(0, dtype=torch.int64)
    given = embedded(model, ids, none, none, none, torch.zeros(0, WIDTH))
    with torch.no_grad():
        found = model(inputs_embeds=given, attention_mask=attention).last_hidden_state
        wanted = model(input_ids=ids, attention_mask=attention).last_hidden_state
    real = attention.bool()
    torch.testing.assert_close(found[real], wanted[real], atol=1e-6, rtol=0)


@in_each
def test_embeddings_of_the_same_tokens_injected_give_what_ids_give(family: str):
    model, (ids, attention) = encoder(family, AutoModelForMaskedLM), batch()
    rows, starts, _ = spans()
    table = model.get_input_embeddings().weight
    given = embedded(model, ids, rows, starts, starts + 1, table[ids[rows, starts]])
    with torch.no_grad():
        found = model(inputs_embeds=given, attention_mask=attention).logits
        wanted = model(input_ids=ids, attention_mask=attention).logits
    real = attention.bool()
    torch.testing.assert_close(found[real], wanted[real], atol=1e-6, rtol=0)


@in_each
@pytest.mark.parametrize("typed", [False, True], ids=["one_segment", "segments"])
def test_the_sum_of_embeddings_is_replaced(family: str, typed: bool):
    """Behind the embedding block a span holds its vector, layer-normalised: no position, no segment."""
    model, (ids, attention) = encoder(family), batch()
    types = (torch.arange(ids.shape[1]) > 3).long().expand_as(ids) if typed else None
    vectors = random(4, WIDTH, seed=1)
    given = embedded(model, ids, *spans(), vectors, level="sum", types=types)
    found = model.embeddings(inputs_embeds=given, token_type_ids=types)
    wanted = model.embeddings(input_ids=ids, token_type_ids=types)
    inside = torch.zeros(ids.shape, dtype=torch.bool)
    for vector, row, start, stop in zip(vectors, *spans(), strict=True):
        inside[row, start:stop] = True
        wanted_here = model.embeddings.LayerNorm(vector).expand(stop - start, -1)
        torch.testing.assert_close(found[row, start:stop], wanted_here, atol=1e-5, rtol=1e-5)
    outside = attention.bool() & ~inside
    torch.testing.assert_close(found[outside], wanted[outside], atol=1e-6, rtol=0)


@in_each
def test_no_gradient_of_a_span_reaches_positions_at_the_level_of_the_sum(family: str):
    model, (ids, _) = encoder(family), batch()
    rows, starts, stops = torch.arange(3), torch.zeros(3, dtype=torch.int64), torch.full((3,), 9)
    for level, moved in (("token", True), ("sum", False)):
        model.zero_grad()
        given = embedded(model, ids, rows, starts, stops, random(3, WIDTH), level)
        model.embeddings(inputs_embeds=given).square().sum().backward()
        assert bool(model.embeddings.position_embeddings.weight.grad.abs().max() > 1e-6) is moved


def test_left_padding_is_refused():
    right = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])
    refuse_left_padding(right)
    with pytest.raises(BackboneError) as error:
        refuse_left_padding(right.flip(1))
    assert str(error.value) == (
        "1 problem with the backbone\n"
        "  backbone  its tokenizer pads on the left, where a model that is given embeddings takes padding for tokens\n"
        '            set padding_side to "right" in its tokenizer_config.json'
    )


def test_left_padding_would_be_wrong():
    """Why it is refused: RoBERTa counts positions from the first column of what it is given."""
    model = encoder("roberta")
    ids, attention = (one.flip(1) for one in batch())
    given = model.embeddings.word_embeddings(ids)
    with torch.no_grad():
        found = model(inputs_embeds=given, attention_mask=attention).last_hidden_state
        wanted = model(input_ids=ids, attention_mask=attention).last_hidden_state
    assert (found - wanted)[attention.bool()].abs().max() > 1e-3


def test_a_family_that_is_not_known_is_refused():
    model = AutoModel.from_config(ElectraConfig(**SIZES))
    none = torch.zeros(0, dtype=torch.int64)
    with pytest.raises(BackboneError) as error:
        embedded(model, batch()[0], none, none, none, torch.zeros(0, WIDTH))
    assert str(error.value) == (
        "1 problem with the backbone\n"
        "  backbone  is of the family electra, into which nothing can be injected\n"
        "            of these families it can: bert, roberta, xlm-roberta, camembert"
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mixed(torch.ones(1, 2), torch.ones(1, 2), torch.ones(1, 2), 0.5, "norm"), "scale is none, match_norm"),
        (lambda: Decay(unit="step"), "unit is epoch or fraction, not 'step'"),
        (lambda: embedded(nn.Module(), *batch(), *spans(), "both"), "level is token or sum, not 'both'"),
    ],
    ids=["scale", "unit", "level"],
)
def test_unknown_words_are_errors(call: Any, message: str):
    with pytest.raises(ValueError, match=message):
        call()
