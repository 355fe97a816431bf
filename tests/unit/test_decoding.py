"""Filling masks against a naive second implementation, and against a model whose answers are written down."""

from __future__ import annotations

from math import exp, log
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    RobertaConfig,
    RobertaForMaskedLM,
    XLMRobertaConfig,
    XLMRobertaForMaskedLM,
)

from kbench.backbones.masked_lm import states_and_head
from kbench.config.probing import Decoder
from kbench.tasks.decoding import ask, fill

VOCABULARY, MASK, PAD = 60, 4, 0
SHAPE = {"vocab_size": VOCABULARY, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 40}


def tiny(family: str = "bert") -> nn.Module:
    """A small model with random weights, large enough for its answers to depend on the text."""
    torch.manual_seed(3)
    more: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "initializer_range": 0.6}
    made = {
        "bert": (BertForMaskedLM, BertConfig(**SHAPE, **more)),
        "roberta": (RobertaForMaskedLM, RobertaConfig(**SHAPE, **more, pad_token_id=PAD)),
        "xlm-roberta": (XLMRobertaForMaskedLM, XLMRobertaConfig(**SHAPE, **more, pad_token_id=PAD)),
        "distilbert": (DistilBertForMaskedLM, DistilBertConfig(**SHAPE, dim=16, hidden_dim=32, initializer_range=0.6)),
    }[family]
    model: nn.Module = made[0](made[1])  # type: ignore[arg-type]
    return model.eval()


def prompts(count: int, masks: int) -> list[tuple[list[int], int]]:
    """(token ids, place of the first mask) of prompts of several lengths."""
    generator = torch.Generator().manual_seed(5)
    found = []
    for row in range(count):
        words = torch.randint(5, VOCABULARY, (4 + row % 5,), generator=generator).tolist()
        place = 1 + row % 3
        found.append(([2, *words[:place], *[MASK] * masks, *words[place:], 3], 1 + place))
    return found


def batch(told: list[tuple[list[int], int]]) -> tuple[Tensor, Tensor, Tensor]:
    width = max(len(ids) for ids, _ in told)
    ids = torch.tensor([ids + [PAD] * (width - len(ids)) for ids, _ in told])
    attention = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in told])
    return ids, attention, torch.tensor([first for _, first in told])


def naive(model: Any, ids: list[int], first: int, masks: int, decoder: Decoder, passes: int) -> tuple[Any, Any]:
    """One prompt, one pass of the whole model at a time, plain loops."""
    now = list(ids)
    sure = [0.0] * masks
    if decoder is Decoder.independent:
        passes = 1
    for _ in range(passes):
        unfilled = [place for place in range(masks) if now[first + place] == MASK]
        asked, again = list(now), None
        if not unfilled:
            again = sure.index(min(sure))
            asked[first + again] = MASK
            unfilled = [again]
        logits = model(input_ids=torch.tensor([asked])).logits[0].double()
        answers = []
        for place in unfilled:
            scores = torch.log_softmax(logits[first + place], 0).tolist()
            scores[MASK] = float("-inf")
            answers.append((max(scores), -place, scores.index(max(scores))))
        if decoder is Decoder.independent:
            for value, place, token in answers:
                now[first - place], sure[-place] = token, value
            break
        value, place, token = max(answers)
        if again is not None and now[first + again] == token:
            break
        now[first - place], sure[-place] = token, value
    return now[first : first + masks], sure


@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta", "distilbert"])
@pytest.mark.parametrize("masks", [1, 2, 4])
@pytest.mark.parametrize(
    ("decoder", "passes"),
    [(Decoder.independent, 1), (Decoder.confidence, 4), (Decoder.confidence, 7), (Decoder.confidence, 20)],
)
def test_against_plain_loops(decoder: Decoder, passes: int, masks: int, family: str) -> None:
    model, told = tiny(family), prompts(9, masks)
    with torch.inference_mode():
        tokens, logprobs = fill(model, *batch(told), masks, MASK, decoder, passes)
        for row, (ids, first) in enumerate(told):
            expected, sure = naive(model, ids, first, masks, decoder, passes)
            assert tokens[row].tolist() == expected
            assert logprobs[row].tolist() == pytest.approx(sure, abs=1e-4)


def test_the_two_ways_and_the_number_of_passes_differ() -> None:
    """So that the comparison above is one of different things."""
    model, told = tiny(), batch(prompts(40, 4))
    with torch.inference_mode():
        ways = [
            fill(model, *told, 4, MASK, *way)[0]
            for way in ((Decoder.independent, 1), (Decoder.confidence, 4), (Decoder.confidence, 12))
        ]
    assert not torch.equal(ways[0], ways[1])
    assert not torch.equal(ways[1], ways[2])


@pytest.mark.parametrize("decoder", list(Decoder))
def test_what_else_is_in_a_batch_changes_nothing(decoder: Decoder) -> None:
    model, told = tiny(), prompts(12, 3)
    with torch.inference_mode():
        tokens, logprobs = fill(model, *batch(told), 3, MASK, decoder, 10)
        for rows in ([0], [7, 2], [11, 5, 0, 3]):
            some, sure = fill(model, *batch([told[row] for row in rows]), 3, MASK, decoder, 10)
            assert torch.equal(some, tokens[rows])
            assert torch.allclose(sure, logprobs[rows], atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta"])
def test_only_masks_are_projected_and_the_logits_are_the_models(family: str) -> None:
    model = tiny(family)
    ids, attention, first = batch(prompts(300, 1))  # more positions than are projected at once
    lines = torch.arange(len(ids))
    with torch.inference_mode():
        assert states_and_head(model, {"input_ids": ids, "attention_mask": attention})[1] is not None
        found, sure = ask(model, ids, attention, lines, first, MASK)
        scores = model(input_ids=ids, attention_mask=attention).logits[lines, first].log_softmax(-1)
        scores[:, MASK] = -torch.inf
    assert torch.equal(found, scores.argmax(-1))
    assert torch.allclose(sure, scores.max(-1).values, atol=1e-5)


class Scripted(nn.Module):
    """A model whose answers are written down: {tokens at the masks: {place: {token: logit}}}."""

    def __init__(self, script: dict[tuple[int, ...], dict[int, dict[int, float]]]):
        super().__init__()
        self.script, self.config, self.asked = script, SimpleNamespace(model_type="scripted"), []

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        logits = torch.zeros(*input_ids.shape, VOCABULARY)
        for row, ids in enumerate(input_ids.tolist()):
            self.asked.append(tuple(ids[1:-1]))
            for place, scores in self.script[tuple(ids[1:-1])].items():
                for token, score in scores.items():
                    logits[row, 1 + place, token] = score
        return SimpleNamespace(logits=logits)


def test_confidence_by_hand() -> None:
    """Place 1 is surest; then place 0 is filled; place 1, the less sure by then, is asked again, changes, and stays."""
    _ = MASK
    model = Scripted(
        {
            (_, _): {0: {10: 5.0}, 1: {20: 6.0}},
            (_, 20): {0: {11: 9.0}},
            (11, _): {1: {21: 8.0, _: 8.5}},  # the mask itself is no answer
        }
    )
    ids, attention, first = torch.tensor([[2, _, _, 3]]), torch.ones(1, 4, dtype=torch.long), torch.tensor([1])
    tokens, logprobs = fill(model, ids, attention, first, 2, _, Decoder.confidence, 10)
    assert model.asked == [(_, _), (_, 20), (11, _), (11, _)]
    assert tokens.tolist() == [[11, 21]]
    totals = [exp(9) + VOCABULARY - 1, exp(8) + exp(8.5) + VOCABULARY - 2]
    by_hand = [9 - log(totals[0]), 8 - log(totals[1])]
    assert logprobs[0].tolist() == pytest.approx(by_hand, abs=1e-5)
    model.asked.clear()
    tokens, _logprobs = fill(model, ids, attention, first, 2, _, Decoder.confidence, 2)
    assert (tokens.tolist(), len(model.asked)) == ([[11, 20]], 2)
    assert fill(model, ids, attention, first, 2, _, Decoder.independent, 1)[0].tolist() == [[10, 20]]
    assert ids.tolist() == [[2, _, _, 3]]
