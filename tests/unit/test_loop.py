"""The loop on a model small enough to follow: accumulation, dropout, schedule, selection, patience, no number."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from kbench.data.encode import Encoded
from kbench.engine import loop
from kbench.engine.checkpoint import latest
from kbench.engine.feed import Feed
from kbench.engine.optimizer import share_of_peak
from kbench.engine.recipe import Precision, Recipe, Schedule, Selection
from kbench.engine.runtime import Runtime
from kbench.errors import DivergedError

RECIPE = Recipe(
    epochs=2,
    max_steps=None,
    lr=0.05,
    schedule=Schedule.linear,
    warmup=0.1,
    warmup_steps=None,
    adam_epsilon=1e-8,
    adam_beta2=0.999,
    weight_decay=0.01,
    clip=1.0,
    global_batch_size=8,
    length_pool=2,
    precision=Precision.fp32,
    eval_every=2,
    selection=Selection.best_val,
    patience=None,
)


class Bag(nn.Module):
    """Mean of embeddings, dropout, one layer."""

    def __init__(self, dropout: float = 0.2):
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(16, 3)

    def forward(self, input_ids, attention_mask):
        states = self.dropout(self.embedding(input_ids)) * attention_mask[..., None]
        return SimpleNamespace(logits=self.out(states.sum(1) / attention_mask.sum(1, keepdim=True)))


class Notes:
    """A report that remembers."""

    def __init__(self):
        self.points: list[tuple[int, dict]] = []
        self.notes: list[str] = []

    def log(self, scope, step, values):
        self.points.append((step, dict(values)))

    def progress(self, scope, step, total, values): ...

    def rewind(self, scope, step): ...

    def note(self, text):
        self.notes.append(text)


@pytest.fixture
def feed(tmp_path):
    generator = np.random.default_rng(0)
    lengths = generator.integers(2, 12, size=27)
    np.cumsum(lengths).astype(np.int64).tofile(tmp_path / "train.ends")
    generator.integers(1, 50, size=int(lengths.sum())).astype(np.int32).tofile(tmp_path / "train.ids")
    tokens = {"train": {"all": int(lengths.sum()), "unknown": 0}}
    (tmp_path / "encoded.json").write_text(json.dumps({"sequences": 1, "tokens": tokens}))
    labels = generator.integers(0, 3, size=27)
    return Feed(Encoded(tmp_path, "train"), np.arange(27), 0, {"label": labels})


def loss(model, batch):
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return {"cross_entropy": cross_entropy(logits, batch["label"])}


def train(feed, folder, recipe=RECIPE, *, micro=8, dropout=0.2, loss=loss, evaluate=None, seconds=1e9, report=None):
    torch.manual_seed(3)
    model = Bag(dropout)
    runtime = Runtime(micro_batch_size=micro, checkpoint_seconds=seconds)
    done = loop.fit(
        model,
        feed,
        loss,
        recipe,
        runtime,
        seed=1,
        folder=folder,
        report=report or Notes(),
        evaluate=evaluate,
        log_every=1,
    )
    return model.state_dict(), done


def equal(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def test_steps_cover_every_epoch_and_the_short_last_batch(feed, tmp_path):
    _, done = train(feed, tmp_path / "c")
    assert done.steps == 2 * math.ceil(27 / 8)
    assert done.rows == 2 * 27
    assert done.tokens == 2 * int(feed.lengths.sum())


def test_accumulation_gives_the_gradient_of_the_whole_batch(feed, tmp_path):
    """27 rows in batches of 8 and micro batches of 8, 4, 3, 1: without dropout only the order of sums differs."""
    whole, _ = train(feed, tmp_path / "8", micro=8, dropout=0.0)
    for micro in (4, 3, 1):
        parts, _ = train(feed, tmp_path / str(micro), micro=micro, dropout=0.0)
        for name in whole:
            torch.testing.assert_close(parts[name], whole[name], rtol=1e-4, atol=1e-6)


def test_the_first_steps_are_adamw_on_the_batch_mean(feed, tmp_path):
    """Against a loop written out: plain AdamW with decay on matrices only, clipping, HF's linear warm-up and decay."""
    from kbench.engine.sampler import epoch_batches

    recipe = replace(RECIPE, epochs=1, selection=Selection.last)
    ours, _ = train(feed, tmp_path / "c", recipe, dropout=0.0)
    torch.manual_seed(3)
    model = Bag(0.0).train()
    matrices = [model.embedding.weight, model.out.weight]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.01}, {"params": [model.out.bias], "weight_decay": 0.0}], lr=0.05
    )
    for step, rows in enumerate(epoch_batches(feed.lengths, seed=1, epoch=0, batch=8, pool=2)):
        # 4 steps, of which ceil(0.4) = 1 warm-up: 0, then 3/3, 2/3, 1/3 of the peak
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * [0.0, 1.0, 2 / 3, 1 / 3][step]
        loss(model, feed.batch(rows, torch.device("cpu")))["cross_entropy"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(ours[name], value, rtol=1e-5, atol=1e-7)


def test_best_weights_are_kept_and_the_last_step_is_evaluated(feed, tmp_path):
    scores = iter([0.1, 0.9, 0.3, 0.2])
    kept = []

    def evaluate(model):
        assert not model.training
        kept.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return next(scores)

    weights, done = train(feed, tmp_path / "c", evaluate=evaluate)
    assert len(kept) == 4  # steps 2, 4, 6 and 8, the last
    assert done.best_step == 4 and done.best_score == 0.9
    assert equal(weights, kept[1]) and not equal(weights, kept[3])


def test_patience_ends_a_training_that_no_longer_improves(feed, tmp_path):
    scores = iter([0.5, 0.4, 0.4, 0.9])
    _, done = train(feed, tmp_path / "c", replace(RECIPE, patience=2), evaluate=lambda model: next(scores))
    assert done.steps == 6 and done.best_step == 2


def test_a_killed_training_continues_with_the_same_bits(feed, tmp_path, monkeypatch):
    """6 + 2 steps equal 8, dropout on; the checkpoint of step 6 is all that the second part has."""
    expected, _ = train(feed, tmp_path / "whole", replace(RECIPE, selection=Selection.last))

    class KilledError(Exception):
        pass

    class Killer(Notes):
        def log(self, scope, step, values):
            if step == 7:
                raise KilledError

    with pytest.raises(KilledError):
        train(feed, tmp_path / "c", replace(RECIPE, selection=Selection.last), seconds=0, report=Killer())
    found, _ = latest(tmp_path / "c")
    assert found.step == 6
    notes = Notes()
    resumed, done = train(feed, tmp_path / "c", replace(RECIPE, selection=Selection.last), report=notes)
    assert equal(resumed, expected)
    assert done.steps == 8 and [step for step, _ in notes.points] == [7, 8]
    assert any("continues after step 6 of 8" in note for note in notes.notes)


@pytest.mark.parametrize("killed_after", [2, 4, 5, 6, 8])
def test_a_resumed_training_has_every_evaluation(feed, tmp_path, killed_after):
    """Evaluations at 2, 4, 6, 8; a checkpoint after each step; the best step may stand on either side of the kill."""

    def score(model):
        return float(
            model.out.weight.detach().abs().sum()
        )  # a function of the weights, so that resumes can be compared

    expected, whole = train(feed, tmp_path / "whole", evaluate=score)

    class KilledError(Exception):
        pass

    real = loop.checkpoints.save

    def save_then_die(folder, state):
        real(folder, state)
        if state.step == killed_after:
            raise KilledError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.checkpoints, "save", save_then_die)
        if killed_after < 8:
            with pytest.raises(KilledError):
                train(feed, tmp_path / "c", evaluate=score, seconds=0)
    resumed, done = train(feed, tmp_path / "c", evaluate=score, seconds=0)
    assert equal(resumed, expected)
    assert (done.best_step, done.best_score) == (whole.best_step, whole.best_score)


def test_a_corrupt_checkpoint_is_set_aside_and_said(feed, tmp_path):
    recipe = replace(RECIPE, selection=Selection.last)
    expected, _ = train(feed, tmp_path / "whole", recipe)
    train(feed, tmp_path / "c", recipe, seconds=0)
    newest = sorted((tmp_path / "c").glob("step-*"))[-1]
    raw = bytearray((newest / "model.safetensors").read_bytes())
    raw[-3] ^= 255
    (newest / "model.safetensors").write_bytes(raw)
    notes = Notes()
    weights, _ = train(feed, tmp_path / "c", recipe, report=notes)
    assert equal(weights, expected)
    assert any("is corrupt" in note for note in notes.notes)
    assert list((tmp_path / "c").glob("corrupt-*"))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_state(feed, tmp_path, bad):
    calls = []

    def turns_bad(model, batch):
        calls.append(1)
        term = loss(model, batch)["cross_entropy"]
        return {"cross_entropy": term * bad if len(calls) > 5 else term}

    with pytest.raises(DivergedError, match=r"step 6.*\n?.*cross_entropy") as caught:
        train(feed, tmp_path / "c", loss=turns_bad, seconds=0)
    assert "lower learning rate" in caught.value.problems[0].hint
    found, _ = latest(tmp_path / "c")
    assert found.step == 5
    assert all(bool(torch.isfinite(tensor).all()) for tensor in found.model.values())


def test_bf16_trains_and_keeps_float32_weights(feed, tmp_path):
    weights, _ = train(feed, tmp_path / "c", replace(RECIPE, precision=Precision.bf16))
    plain, _ = train(feed, tmp_path / "d")
    assert all(tensor.dtype == torch.float32 for tensor in weights.values())
    assert not equal(weights, plain)
    for name in plain:
        torch.testing.assert_close(weights[name], plain[name], rtol=0.2, atol=0.2)


def test_the_logged_loss_is_the_mean_over_the_rows_of_the_batch(feed, tmp_path):
    """Micro batches of 3 of a batch of 8: 3, 3 and 2 rows count by their number."""
    one, other = Notes(), Notes()
    train(feed, tmp_path / "a", micro=8, dropout=0.0, report=one)
    train(feed, tmp_path / "b", micro=3, dropout=0.0, report=other)
    for (_, a), (_, b) in zip(one.points, other.points, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-3)


@pytest.mark.parametrize(("step", "expected"), [(0, 0.0), (5, 0.5), (10, 1.0), (55, 0.5), (99, 1 / 90)])
def test_the_schedule_of_100_steps_with_a_tenth_of_warm_up(step, expected):
    assert share_of_peak(RECIPE, step, 100) == pytest.approx(expected)
    assert share_of_peak(replace(RECIPE, schedule=Schedule.constant), step, 100) == pytest.approx(
        min(expected * 1e9, 1) if step >= 10 else expected
    )
