"""Relation classification: metrics and class weights against second implementations, head, loss and its switches."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from torch import nn

from kbench.backbones.load import load_model, load_tokenizer, load_trained
from kbench.config.relation import Markers, RelationHead, RelationOptions
from kbench.data.relations import MarkerEncoder, with_markers
from kbench.errors import BackboneError
from kbench.metrics.relation import METRICS, relation_scores, relations
from kbench.tasks.heads import joined
from kbench.tasks.relation import Relation, class_weights

from ..conftest import in_process, small_bert

LABELS = ["no_relation", "a(e1,e2)", "a(e2,e1)", "b(e1,e2)", "b(e2,e1)"]
PLAIN = RelationOptions(
    head_dropout=0.5, class_weights=True, compat=False, head=RelationHead.cls, markers=Markers.relx, negative=None
)


# Metrics.


def test_relations_are_numbered_in_order_and_labels_without_direction_are_none() -> None:
    assert relations(LABELS).tolist() == [-1, 0, 0, 1, 1]
    labels = ["b(e2,e1)", "other", "a(e1,e2)", "b(e1,e2)", "(e1,e2)x"]
    assert relations(labels).tolist() == [0, -1, 1, 0, -1]
    # with a label that says there is none, all others are relations
    assert relations(labels, "other").tolist() == [0, -1, 1, 0, 2]
    assert relations(labels, "b(e1,e2)").tolist() == [0, 1, 2, -1, 3]


def test_a_worked_example() -> None:
    gold = np.array([1, 1, 2, 3, 0, 0])
    predicted = np.array([1, 2, 2, 0, 3, 0])
    # a: right 2, claimed 3 and there 3: 4/6; b: right 0, claimed 1, there 1: 0. Over both: 2 * 2 / (4 + 4)
    found = relation_scores(predicted, gold, relations(LABELS))
    expected = {"accuracy": 3 / 6, "f1": (4 / 6 + 0) / 2, "micro_f1": 4 / 8}
    more = {"precision": 2 / 4, "recall": 2 / 4, "macro_f1": expected["f1"]}
    assert found == pytest.approx(expected | more)
    assert tuple(found) == METRICS
    assert relation_scores(predicted, gold, relations(LABELS), micro=True) == pytest.approx(
        expected | more | {"f1": 4 / 8}
    )


def test_nothing_said_and_nothing_there_is_0_and_all_right_is_1() -> None:
    none, some = np.zeros(3, dtype=int), np.array([1, 2, 3, 4, 0])
    relation = relations(LABELS)
    nothing = dict.fromkeys(METRICS, 0.0) | {"accuracy": 1.0}
    assert relation_scores(none, none, relation) == nothing
    assert relation_scores(some, some, relation) == dict.fromkeys(METRICS, 1.0)
    assert relation_scores(none, none, relations(["x", "y"])) == nothing


@pytest.mark.parametrize("seed", range(8))
def test_metrics_equal_those_of_the_released_script(seed: int) -> None:
    """F1 there: scikit-learn's micro F1 over the labels 2i + 1 and 2i + 2, then the mean over 18 relations."""
    rng = np.random.default_rng(seed)
    labels = ["no_relation", *(f"r{number}({order})" for number in range(18) for order in ("e1,e2", "e2,e1"))]
    gold = rng.integers(0, 37, 400) if seed % 2 else rng.integers(0, 6, 50)
    predicted = np.where(rng.random(len(gold)) < 0.6, gold, rng.integers(0, 37, len(gold)))
    pairs = [[2 * number + 1, 2 * number + 2] for number in range(18)]
    each = [f1_score(gold, predicted, average="micro", labels=pair, zero_division=0) for pair in pairs]
    micro = f1_score(gold, predicted, average="micro", labels=list(range(1, 37)), zero_division=0)
    found = relation_scores(predicted, gold, relations(labels))
    expected = {"accuracy": float(np.mean(gold == predicted)), "f1": sum(each) / 18, "micro_f1": micro}
    assert {name: found[name] for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(6))
def test_tacred_is_scored_as_by_its_scorer(seed: int) -> None:
    """Hits, guesses and gold labels other than no_relation; counting that one, too, gives another number."""
    rng = np.random.default_rng(seed)
    labels = ["no_relation", *(f"per:r{number}" for number in range(41))]
    gold = np.where(rng.random(500) < 0.8, 0, rng.integers(0, 42, 500))
    predicted = np.where(rng.random(500) < 0.7, gold, rng.integers(0, 42, 500))
    hits = guessed = there = 0
    for ours, true in zip(predicted, gold, strict=True):
        guessed += labels[ours] != "no_relation"
        there += labels[true] != "no_relation"
        hits += labels[ours] == labels[true] != "no_relation"
    precision, recall = hits / guessed, hits / there
    found = relation_scores(predicted, gold, relations(labels, "no_relation"), micro=True)
    f1 = 2 * precision * recall / (precision + recall)
    macro = f1_score(gold, predicted, average="macro", labels=list(range(1, 42)), zero_division=0)
    expected = {"precision": precision, "recall": recall, "f1": f1, "micro_f1": f1, "macro_f1": macro}
    assert found == pytest.approx(expected | {"accuracy": float(np.mean(gold == predicted))})
    assert f1_score(gold, predicted, average="micro") > f1 + 0.1


# Class weights.


def test_the_more_frequent_direction_weighs_more() -> None:
    label = np.array([0] * 5 + [1] * 3 + [2] + [3] * 2)
    # a: 3 and 1 of 4; b: 2 and 0 of 2
    assert class_weights(label, relations(LABELS)).tolist() == [1, 0.75, 0.25, 1, 0]


def test_weights_of_kbp_37_are_those_of_the_released_script() -> None:
    rng = np.random.default_rng(0)
    label = rng.choice(37, 2000, p=rng.dirichlet(np.ones(37)))
    labels = ["no_relation", *(f"r{number}({order})" for number in range(18) for order in ("e1,e2", "e2,e1"))]
    expected = [1.0]
    for first in range(1, 37, 2):
        counts = [int((label == one).sum()) for one in (first, first + 1)]
        expected += [count / max(1, sum(counts)) for count in counts]
    assert class_weights(label, relations(labels)) == pytest.approx(expected)


def task(**options: Any) -> Relation:
    return Relation(LABELS, ["f1", "accuracy"], RelationOptions(**{**PLAIN.__dict__, **options}))


def columns(of: Relation, label: np.ndarray) -> dict[str, np.ndarray]:
    return of.columns(SimpleNamespace(labels=lambda split: {"train": label}[split]), None)  # type: ignore[arg-type]


def test_columns_have_weights_of_mean_1_or_none() -> None:
    label = np.array([0, 1, 1, 1, 2, 3])
    found = columns(task(), label)
    assert found["label"].tolist() == label.tolist() and found["weight"].dtype == np.float32
    raw = np.array([1, 0.75, 0.75, 0.75, 0.25, 1])
    assert found["weight"] == pytest.approx(raw / raw.mean())
    assert columns(task(class_weights=False), label)["weight"].tolist() == [1] * 6


# Head and loss.


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_bert(tmp_path_factory.mktemp("bert"), ["a", "b", "c"])


def loaded(folder: Path, of: Relation) -> Any:
    model = load_model(folder, of.auto(), classes=len(LABELS), seed=1)
    of.adapt(model, load_tokenizer(folder))
    return model


def batch(rows: int = 6, width: int = 5) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(rows) % len(LABELS)
    return {
        "input_ids": torch.randint(5, 100, (rows, width), generator=generator),
        "attention_mask": torch.ones(rows, width, dtype=torch.long),
        "units": torch.arange(rows) * width,  # the first token of each row
        "label": label,
        "weight": torch.rand(rows, generator=generator) + 0.5,
    }


def test_the_loss_is_the_weighted_mean_over_rows_at_the_first_token(folder: Path) -> None:
    of = task()
    model = loaded(folder, of).eval()
    given = batch()
    with torch.no_grad():
        hidden = model.base_model(given["input_ids"], attention_mask=given["attention_mask"]).last_hidden_state[:, 0]
        logits = hidden @ model.classifier.weight.T + model.classifier.bias
        expected = 0.0
        for row in range(6):
            share = torch.exp(logits[row] - logits[row].logsumexp(0))[given["label"][row]]
            expected += float(-given["weight"][row] * torch.log(share)) / 6
        (name, found), *more = of.loss(model, given).items()
    assert name == "cross_entropy" and not more
    assert float(found) == pytest.approx(expected, rel=1e-5)
    # it does not matter how a batch is cut
    parts = []
    for rows in (torch.arange(2), torch.arange(2, 6)):
        piece = {name: values[rows] for name, values in given.items()} | {"units": torch.arange(len(rows)) * 5}
        with torch.no_grad():
            parts.append(of.loss(model, piece)["cross_entropy"])
    assert float(parts[0] * 2 + parts[1] * 4) / 6 == pytest.approx(float(found))


def test_the_head_has_its_dropout_and_an_exported_model_says_so(folder: Path, tmp_path: Path) -> None:
    model = loaded(folder, task(head_dropout=0.3))
    assert model.dropout.p == 0.3 and model.config.classifier_dropout == 0.3
    model.save_pretrained(tmp_path)
    assert type(model).from_pretrained(tmp_path).dropout.p == 0.3
    model.eval()
    given = batch()
    with torch.no_grad():
        first, second = (model(given["input_ids"]).logits for _ in range(2))
    assert torch.equal(first, second)


def test_unused_tokens_need_no_new_embeddings_and_new_tokens_do(folder: Path, tmp_path: Path) -> None:
    of = task()
    assert loaded(folder, of).get_input_embeddings().num_embeddings == 120
    tokenizer = load_tokenizer(folder)
    other = SimpleNamespace(
        get_vocab=dict, add_tokens=tokenizer.add_tokens, unk_token_id=1,
        convert_tokens_to_ids=tokenizer.convert_tokens_to_ids,
    )  # fmt: skip
    assert list(with_markers(other).values()) == [120, 121, 122, 123]
    model = load_model(folder, of.auto(), classes=5, seed=1)
    before = model.get_input_embeddings().weight.detach().clone()

    def again() -> torch.Tensor:
        one = load_model(folder, of.auto(), classes=5, seed=1)
        of.adapt(one, tokenizer)
        assert one.config.vocab_size == len(tokenizer) == 124
        return one.get_input_embeddings().weight.detach()

    grown = again()
    assert torch.equal(grown[:120], before) and torch.equal(grown, again())
    assert 0.005 < float(grown[120:].std()) < 0.05
    assert len({float(row[0]) for row in grown[120:]}) == 4


def test_a_model_without_dropout_before_its_head_is_refused(folder: Path) -> None:
    class Bare(nn.Module):
        def get_input_embeddings(self) -> nn.Embedding:
            return nn.Embedding(500, 2)

    with pytest.raises(BackboneError, match="Bare has no dropout before its head"):
        task().adapt(Bare(), load_tokenizer(folder))


# Two tokens that are read together.


def pairs(rows: int = 6, width: int = 7) -> dict[str, torch.Tensor]:
    """A batch that is read at two tokens of each row, the second argument first in some."""
    given = batch(rows, width)
    first, second = torch.arange(rows) % 3 + 1, torch.arange(rows) % 4 + 2
    second = torch.where(second == first, second + 1, second)
    places = torch.arange(rows) * width
    given["units"] = torch.stack([places + first, places + second], dim=1).flatten()
    return given | {name: given[name].repeat_interleave(2) for name in ("label", "weight")}


def test_the_head_on_two_start_states_is_a_linear_layer_on_both_one_after_another(folder: Path) -> None:
    of = task(head=RelationHead.starts, class_weights=False)
    model = load_model(folder, of.auto(), classes=len(LABELS) * of.reads, seed=1)
    of.adapt(model, load_tokenizer(folder))
    model.eval()
    torch.nn.init.normal_(model.classifier.bias)
    given = pairs()
    with torch.no_grad():
        hidden = model.base_model(given["input_ids"], attention_mask=given["attention_mask"]).last_hidden_state
        both = hidden.flatten(0, 1)[given["units"]].reshape(6, 64)
        weight = torch.cat([model.classifier.weight[:5], model.classifier.weight[5:]], dim=1)
        logits = both @ weight.T + model.classifier.bias[:5] + model.classifier.bias[5:]
        each = torch.nn.functional.cross_entropy(logits, given["label"][::2], reduction="none")
        found = of.loss(model, given)["cross_entropy"]
        assert float(found) == pytest.approx(float((each * given["weight"][::2]).mean()), rel=1e-5)
        raw = model(given["input_ids"]).logits.flatten(0, 1)[given["units"]]
    assert torch.allclose(joined(raw, 2), logits, atol=1e-5)
    assert np.allclose(joined(raw.numpy(), 2), logits.numpy(), atol=1e-5)
    assert joined(raw, 1) is raw and joined(np.zeros((0, 0)), 2).shape == (0, 0)


def test_columns_stand_once_for_each_token_that_is_read() -> None:
    label = np.array([0, 1, 1, 1, 2, 3])
    one, two = columns(task(), label), columns(task(head=RelationHead.starts), label)
    for name, column in one.items():
        assert two[name].tolist() == np.repeat(column, 2).tolist()


def test_markers_that_are_words_add_no_tokens(folder: Path) -> None:
    class Counted:
        def __len__(self) -> int:
            return 120

        def __getattr__(self, name: str) -> Any:
            raise AssertionError(name)

    of = task(markers=Markers.plain)
    model = load_model(folder, of.auto(), classes=5, seed=1)
    of.adapt(model, Counted())
    assert model.get_input_embeddings().num_embeddings == 120


@pytest.mark.parametrize("markers", ["plain", "typed"])
def test_a_run_read_at_both_arguments_is_scored_and_exported(markers: str, tmp_path: Path) -> None:
    words = ["method=finetune", "data=toy_tacred", "data.train_size=320", "data.test_size=48", "keep_model=true"]
    words += ["train.epochs=3", "train.lr=3e-3", "train.eval_every=30", f"data.relation.markers={markers}"]
    run, result = in_process(words, tmp_path)
    assert result.metrics["test"]["f1"] > 0
    rows = [json.loads(line) for line in (run.folder / "predictions.jsonl").read_text().splitlines()]
    labels = run.config.data.labels
    gold, ours = ([labels.index(row[name]) for row in rows] for name in ("gold", "predicted"))
    expected = relation_scores(np.array(ours), np.array(gold), relations(labels, "no_relation"), micro=True)
    assert result.metrics["test"] == {name: expected[name] for name in ("f1", "precision", "recall", "macro_f1")}
    # transformers loads it, and the sum of the two halves of its outputs is what was predicted
    model = load_trained(run.folder / "model", Relation.auto())
    assert model.config.num_labels == 10 and model.config.id2label[6] == "works_for (2)"
    encoder = MarkerEncoder(load_tokenizer(run.folder / "model"), 64, run.config.data.relation)
    for text, row in zip([row["text"] for row in rows[:8]], rows, strict=False):
        (ids,) = encoder.encode([text])
        with torch.no_grad():
            logits = model(torch.from_numpy(ids).long()[None]).logits[0]
        first, second = encoder.arrays["starts"][-1].tolist()
        assert (logits[first, :5] + logits[second, 5:]).tolist() == pytest.approx(row["scores"], abs=1e-3)


# As the released script.


def test_compat_has_no_dropout_in_the_encoder_while_it_trains(folder: Path) -> None:
    given = batch()
    found = {}
    for compat in (False, True):
        of = task(head_dropout=0.0, compat=compat)
        model = loaded(folder, of).train()
        losses = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            losses.append(of.loss(model, given)["cross_entropy"].item())
        found[compat] = losses[0] == losses[1]
        assert model.training and model.base_model.training is not compat
    assert found == {False: False, True: True}


def test_compat_drops_out_before_the_head_in_evaluations_and_always_the_same(folder: Path) -> None:
    of = task(compat=True)
    model = loaded(folder, of)
    given = batch(rows=64)

    def evaluated() -> list[torch.Tensor]:
        model.train()
        model.eval()
        torch.manual_seed(int(torch.randint(1 << 30, ()).item()))  # no matter where the generator stands
        with torch.no_grad():
            return [model(given["input_ids"]).logits[:, 0] for _ in range(2)]

    first, second = evaluated()
    assert not torch.equal(first, second)
    assert all(map(torch.equal, evaluated(), (first, second)))
    plain = loaded(folder, task()).eval()
    plain.load_state_dict(model.state_dict())
    with torch.no_grad():
        clean = plain(given["input_ids"]).logits[:, 0]
        mean = torch.stack([model(given["input_ids"]).logits[:, 0] for _ in range(400)]).mean(0)
    assert not torch.allclose(first, clean, atol=1e-3)
    # kept values are scaled by 1 / (1 - p), so that the expectation is the clean score
    assert float((mean - clean).abs().max()) < 0.2 * float((first - clean).abs().max())


# Scores and options.


def test_scores_have_the_metrics_that_are_asked_for_and_the_first_selects() -> None:
    of = task()
    gold = np.array([1, 2, 3, 0])
    scores = np.eye(5)[[1, 1, 3, 0]]
    ends = np.arange(1, 5)
    assert of.score(scores, gold, ends) == pytest.approx({"f1": (0.5 + 1) / 2, "accuracy": 0.75})
    assert of.main_score(scores, gold, ends) == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("dropout", "fine"), [(0.0, True), (0.99, True), (1.0, False), (-0.1, False), (float("nan"), False)]
)
def test_options_are_checked(dropout: float, fine: bool) -> None:
    problems = task(head_dropout=dropout).options.check("data.relation")
    assert [str(problem) for problem in problems] == (
        [] if fine else [f"data.relation.head_dropout: must lie in [0, 1), is {dropout}"]
    )


@pytest.mark.parametrize(("head", "markers"), [("starts", "relx"), ("cls", "plain"), ("starts", "typed")])
def test_the_released_script_has_its_own_head_and_markers(head: str, markers: str) -> None:
    found = task(compat=True, head=RelationHead(head), markers=Markers(markers)).options.check("data.relation")
    assert [str(problem) for problem in found] == [
        "data.relation.compat: is RELX's script, which reads its own markers at [CLS] "
        "(take data.relation.head=cls data.relation.markers=relx)"
    ]


def test_the_label_that_says_there_is_none_and_the_types_must_be_there() -> None:
    one = task(negative="no_relatio", markers=Markers.typed).options
    found = [(problem.where, problem.what) for problem in one.check_data("data.relation", LABELS, "kbp37")]
    assert found == [
        ("data.relation.negative", "no_relatio is no label; did you mean no_relation?"),
        ("data.relation.markers", "files of kbp37 tell no types of arguments; those of tacred, toy_tacred do"),
    ]
    fine = task(negative="no_relation", markers=Markers.typed).options
    assert fine.check_data("data.relation", LABELS, "tacred") == []
    assert task().options.check_data("data.relation", ["a", "b"], "kbp37") == []
