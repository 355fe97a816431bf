"""Streams as training rows, the loss of a step against a naive one, and the head at labelled positions only."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    XLMRobertaConfig,
    XLMRobertaForMaskedLM,
)

from kbench.backbones.masked_lm import logits_at
from kbench.knowledge.masking import Masked
from kbench.methods.pretraining import Pretrained, StreamFeed, step_loss

VOCABULARY, MASK = 120, 4
SHAPE = {"vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
SHAPE |= {"intermediate_size": 32, "max_position_embeddings": 40}


class Numbers:
    """A stream whose sample i is i % 6 + 3 tokens long; whether a token is masked follows from key and place."""

    def __init__(self, size: int, first: int, share: float = 0.4):
        self.size, self.first, self.share = size, first, share

    def __len__(self) -> int:
        return self.size

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        return (rows % 6 + 3).astype(np.int32)

    def batch(self, rows: np.ndarray, keys: np.ndarray) -> Masked:
        lengths = self.lengths(rows)
        width = int(lengths.max())
        ids = np.full((len(rows), width), 1)
        positions, labels = [], []
        for line, (row, key, length) in enumerate(zip(rows, keys, lengths, strict=True)):
            generator = np.random.default_rng(int(key))
            ids[line, :length] = self.first + (row + np.arange(length)) % 50
            for place in np.flatnonzero(generator.random(length) < self.share):
                positions.append(line * width + place)
                labels.append(ids[line, place])
                ids[line, place] = MASK
        mask = (np.arange(width) < lengths[:, None]).astype(np.int64)
        return Masked(ids, mask, np.array(positions, dtype=np.int64), np.array(labels, dtype=np.int64))


def feed(mean_rows: int | None = 4, **streams: Numbers) -> StreamFeed:
    given = streams or {"plain": Numbers(10, 5), "reasoning": Numbers(7, 60)}
    return StreamFeed(given, 20, 3, mean_rows)


def model(kind=BertForMaskedLM, config=BertConfig, **more):
    torch.manual_seed(0)
    return kind(config(**{**SHAPE, **more})).eval()


MODELS = {
    "bert": lambda: model(),
    "xlm_roberta": lambda: model(XLMRobertaForMaskedLM, XLMRobertaConfig, pad_token_id=1),
    "distilbert": lambda: model(
        DistilBertForMaskedLM, DistilBertConfig, dim=16, n_layers=2, n_heads=2, hidden_dim=32
    ),
}  # fmt: skip


def test_a_pass_has_every_sample_once_and_the_next_another_order():
    found = feed().samples("reasoning", np.arange(20))
    assert sorted(found[:7]) == sorted(found[7:14]) == list(range(7))
    assert found[:7].tolist() != found[7:14].tolist()


def test_lengths_are_those_of_all_streams_together():
    rows = np.array([3, 17, 0])
    made = feed()
    batch = made.batch(rows, torch.device("cpu"))
    expected = batch["plain.attention_mask"].sum(1) + batch["reasoning.attention_mask"].sum(1)
    assert made.lengths[rows].tolist() == expected.tolist()
    assert len(made.lengths) == 20 and made.weights[rows].sum() == 3


def test_what_a_row_has_does_not_depend_on_its_batch():
    made = feed()
    together = made.batch(np.array([2, 9]), torch.device("cpu"))
    alone = made.batch(np.array([9]), torch.device("cpu"))
    length = int(alone["plain.attention_mask"].sum())
    assert together["plain.input_ids"][1, :length].tolist() == alone["plain.input_ids"][0].tolist()
    again = made.batch(np.array([9]), torch.device("cpu"))
    assert all(torch.equal(alone[name], again[name]) for name in alone)


def test_masks_of_another_pass_are_others():
    one = feed(plain=Numbers(1, 5, share=0.5))  # its single sample stands in every pass
    masked = [one.masked("plain", np.array([row])) for row in range(2)]
    assert masked[0].input_ids.tolist() != masked[1].input_ids.tolist()


def naive_loss(student, batch, name: str, mean_rows: int | None) -> float:
    """One sample at a time, the head on every token: mean over groups of the means over their labelled tokens."""
    ids, mask = batch[f"{name}.input_ids"], batch[f"{name}.attention_mask"]
    target = torch.full_like(ids, -100)
    target.reshape(-1)[batch[f"{name}.positions"]] = batch[f"{name}.labels"]
    sums, counts = [], []
    for line in range(len(ids)):
        length = int(mask[line].sum())
        logits = student(input_ids=ids[line : line + 1, :length]).logits[0]
        sums.append(float(cross_entropy(logits, target[line, :length], ignore_index=-100, reduction="sum")))
        counts.append(int((target[line] != -100).sum()))
    if mean_rows is None:
        return sum(sums) / sum(counts)
    means = [
        sum(sums[start : start + mean_rows]) / max(1, sum(counts[start : start + mean_rows]))
        for start in range(0, len(ids), mean_rows)
    ]
    return sum(means) / len(means)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("mean_rows", [4, 1, None])
def test_the_loss_is_that_of_a_naive_implementation(kind, mean_rows):
    student, made, rows = MODELS[kind](), feed(mean_rows), np.arange(8)
    batch = made.batch(rows, torch.device("cpu")) | made.shared(rows)
    with torch.no_grad():
        found = step_loss(Pretrained(student, {"plain": 1.0, "reasoning": 0.3}, mean_rows), batch)
        for name, weight in (("plain", 1.0), ("reasoning", 0.3)):
            assert found[name] == pytest.approx(weight * naive_loss(student, batch, name, mean_rows), rel=1e-5)


def test_accumulation_does_not_change_a_mean_over_all_labels():
    """As the loop does it: each micro batch's loss times its share of the rows."""
    made, rows = feed(None), np.arange(8)
    student = Pretrained(MODELS["bert"](), {"plain": 1.0, "reasoning": 0.3}, None)
    with torch.no_grad():
        shared = made.shared(rows)
        whole = step_loss(student, made.batch(rows, torch.device("cpu")) | shared)
        parts = [step_loss(student, made.batch(piece, torch.device("cpu")) | shared) for piece in (rows[:5], rows[5:])]
    for name in whole:
        assert float(whole[name]) == pytest.approx(
            5 / 8 * float(parts[0][name]) + 3 / 8 * float(parts[1][name]), rel=1e-5
        )


@pytest.mark.parametrize("mean_rows", [4, None])
def test_a_batch_without_a_label_gives_no_loss_and_finite_gradients(mean_rows):
    made, rows = feed(mean_rows, plain=Numbers(10, 5, share=0.0)), np.arange(4)
    student = Pretrained(MODELS["bert"]().train(), {"plain": 1.0}, mean_rows)
    loss = step_loss(student, made.batch(rows, torch.device("cpu")) | made.shared(rows))["plain"]
    assert loss.item() == 0.0
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in student.parameters() if p.grad is not None)


@pytest.mark.parametrize("kind", MODELS)
def test_logits_at_positions_are_those_of_the_whole_head(kind):
    student = MODELS[kind]()
    ids = torch.arange(20).reshape(2, 10) + 5
    positions = torch.tensor([0, 7, 19])
    with torch.no_grad():
        whole = student(input_ids=ids).logits.flatten(0, 1)[positions]
        assert torch.allclose(logits_at(student, {"input_ids": ids}, positions), whole, atol=1e-6)
        assert logits_at(student, {"input_ids": ids}, positions[:0]).shape == (0, VOCABULARY)
