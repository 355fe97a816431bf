"""KR2's reader against a second implementation: both parts joined by hand, masks and sums in plain loops."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMultipleChoice,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BertConfig,
    ElectraConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

from kbench.backbones.load import load_encoder
from kbench.methods.reading import Reader, Weights, features_of, read_mask
from kbench.methods.resource import fused_layers

WIDTH = 32
SIZES = {"vocab_size": 60, "hidden_size": WIDTH, "num_attention_heads": 2, "intermediate_size": 48}
SIZES |= {"max_position_embeddings": 40, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
FAMILIES: dict[str, Any] = {
    "bert": BertConfig,
    "roberta": RobertaConfig,
    "xlm-roberta": XLMRobertaConfig,
    "electra": ElectraConfig,
}
HEADS: dict[str, Any] = {
    "classes": AutoModelForSequenceClassification,
    "tags": AutoModelForTokenClassification,
    "choices": AutoModelForMultipleChoice,
    "none": AutoModel,
}
OWN = [7, 3, 5, 6]  # tokens of four texts, or of two questions with two choices each
THEIRS = [4, 6, 1, 5]  # the resource's of the same

of_each = pytest.mark.parametrize("head", ["classes", "tags", "choices"])
in_each = pytest.mark.parametrize("family", FAMILIES)


def shape_of(family: str, **more: Any) -> Any:
    own = {"bert": {}, "electra": {"embedding_size": WIDTH}}.get(family, {"type_vocab_size": 1})
    return FAMILIES[family](**{"num_hidden_layers": 2, "num_labels": 3, **SIZES, **own, **more})


def model_of(family: str, head: str = "none", seed: int = 3, **more: Any) -> Any:
    """Weights so large that positions, segments, biases and norms all show."""
    torch.manual_seed(seed)
    model = HEADS[head].from_config(shape_of(family, **more))
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape) * 0.2)
    return model.eval()


def batch_of(family: str, head: str, width: int = WIDTH, states: int = 0) -> dict[str, Tensor]:
    """Four sequences, both parts padded; what stands in the padding is no zero."""
    torch.manual_seed(5)
    own, theirs = len(OWN), max(THEIRS)
    pad = 1 if "roberta" in family else 0
    found = {
        "input_ids": torch.full((own, max(OWN)), pad),
        "attention_mask": torch.zeros(own, max(OWN), dtype=torch.long),
        "resource": torch.randn(own, theirs, *([states] if states else []), width),
        "resource_mask": torch.zeros(own, theirs, dtype=torch.long),
    }
    types = torch.zeros(own, max(OWN), dtype=torch.long)
    for row, (length, other) in enumerate(zip(OWN, THEIRS, strict=True)):
        found["input_ids"][row, :length] = torch.randint(5, 60, (length,))
        found["attention_mask"][row, :length] = 1
        found["resource_mask"][row, :other] = 1
        types[row, length // 2 : length] = 1
    if family in ("bert", "electra"):
        found["token_type_ids"] = types
    if head == "choices":
        found = {name: tensor.unflatten(0, (2, 2)) for name, tensor in found.items()}
    return found


def text_of(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """What a plain model is called with."""
    return {name: tensor for name, tensor in batch.items() if "resource" not in name}


def flat(batch: dict[str, Tensor], head: str) -> SimpleNamespace:
    """The batch by sequence, without an axis of choices."""
    found = {name: tensor.flatten(0, 1) if head == "choices" else tensor for name, tensor in batch.items()}
    found.setdefault("token_type_ids", torch.zeros_like(found["input_ids"]))
    return SimpleNamespace(**found)


# The second implementation.


def additive(mask: list[list[int]]) -> Tensor:
    """What is added to the attention's scores [B, 1, T, T]: nothing at a token, the lowest number at padding."""
    found = torch.zeros(len(mask), 1, len(mask[0]), len(mask[0]))
    for row, counts in enumerate(mask):
        for asking in range(len(counts)):
            for asked, count in enumerate(counts):
                if not count:
                    found[row, 0, asking, asked] = torch.finfo(torch.float32).min
    return found


def naive_norm(layer: nn.LayerNorm, vector: Tensor) -> Tensor:
    mean = vector.sum() / len(vector)
    variance = ((vector - mean) ** 2).sum() / len(vector)
    return (vector - mean) / math.sqrt(float(variance) + layer.eps) * layer.weight + layer.bias


def naive_linear(layer: nn.Linear, vector: Tensor) -> Tensor:
    sums = [(row * vector).sum() + bias for row, bias in zip(layer.weight, layer.bias, strict=True)]
    return torch.stack(sums)


def naive_gelu(vector: Tensor) -> Tensor:
    return torch.tensor([x * 0.5 * (1 + math.erf(x / math.sqrt(2))) for x in vector.tolist()])


def naive_embedding(block: Any, word: Tensor, position: int, segment: int) -> Tensor:
    """One token's vector behind the embedding block."""
    whole = word + block.position_embeddings.weight[position] + block.token_type_embeddings.weight[segment]
    return naive_norm(block.LayerNorm, whole)


def naive_head(model: Any, family: str, head: str, states: Tensor) -> Tensor:
    """Logits of states [sequences, tokens, width] that are the reader's own."""
    if head == "tags":
        return torch.stack([torch.stack([naive_linear(model.classifier, state) for state in row]) for row in states])
    found = []
    for row in states:
        if head == "classes" and family == "electra":
            found.append(
                naive_linear(model.classifier.out_proj, naive_gelu(naive_linear(model.classifier.dense, row[0])))
            )
        elif head == "classes" and family != "bert":
            found.append(
                naive_linear(model.classifier.out_proj, torch.tanh(naive_linear(model.classifier.dense, row[0])))
            )
        elif family == "electra":
            pooled = naive_gelu(naive_linear(model.sequence_summary.summary, row[0]))
            found.append(naive_linear(model.classifier, pooled))
        else:
            pooled = torch.tanh(naive_linear(model.base_model.pooler.dense, row[0]))
            found.append(naive_linear(model.classifier, pooled))
    logits = torch.stack(found)
    return logits.reshape(2, 2) if head == "choices" else logits


def naive(model: Any, family: str, head: str, batch: dict[str, Tensor], given: Tensor | None = None) -> Tensor:
    """encoder([E ; G]), where E is the embedding block's output, and the head on the reader's own positions."""
    rows = flat(batch, head)
    embedded = model.base_model.embeddings(input_ids=rows.input_ids, token_type_ids=rows.token_type_ids)
    return encoded(model, family, head, rows, embedded, rows.resource if given is None else given)


def naive_before(
    model: Any, family: str, head: str, batch: dict[str, Tensor], segment: int = 0, padded: bool = False
) -> Tensor:
    """The same with G before the block: its positions go on where the row's own tokens end, or its padding ends."""
    rows, block = flat(batch, head), model.base_model.embeddings
    first = 2 if "roberta" in family else 0
    width = rows.input_ids.shape[1]
    own, theirs = [], []
    for row, ids in enumerate(rows.input_ids):
        length = width if padded else int(rows.attention_mask[row].sum())
        words = [block.word_embeddings.weight[token] for token in ids]
        own.append([
            naive_embedding(block, word, first + place, int(rows.token_type_ids[row, place]))
            for place, word in enumerate(words)
        ])  # fmt: skip
        theirs.append([
            naive_embedding(block, vector, first + length + place, segment)
            for place, vector in enumerate(rows.resource[row])
        ])  # fmt: skip
    parts = [torch.stack([torch.stack(vectors) for vectors in part]) for part in (own, theirs)]
    return encoded(model, family, head, rows, *parts)


def encoded(model: Any, family: str, head: str, rows: Any, own: Tensor, theirs: Tensor) -> Tensor:
    whole = torch.stack([torch.stack([*a, *b]) for a, b in zip(own, theirs, strict=True)])
    mask = [[*a, *b] for a, b in zip(rows.attention_mask.tolist(), rows.resource_mask.tolist(), strict=True)]
    states = model.base_model.encoder(whole, attention_mask=additive(mask)).last_hidden_state
    return naive_head(model, family, head, torch.stack([row[: rows.input_ids.shape[1]] for row in states]))


def read(model: Any, batch: dict[str, Tensor], **options: Any) -> Tensor:
    """The logits of a reader around a copy of a model."""
    torch.manual_seed(7)
    reader = Reader(copy.deepcopy(model), batch["resource"].shape[-1], **options).eval()
    logits: Tensor = reader(**batch).logits
    return logits


def close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, atol=1e-5, rtol=1e-5)


# The reader.


@of_each
@in_each
@torch.no_grad()
def test_the_encoder_reads_both_parts_and_the_head_the_readers_own(family: str, head: str) -> None:
    model, batch = model_of(family, head), batch_of(family, head)
    found = read(model, batch)
    assert found.shape == {"classes": (4, 3), "tags": (4, 7, 3), "choices": (2, 2)}[head]
    assert close(found, naive(model, family, head, batch))
    assert not close(found, model(**text_of(batch)).logits)


@of_each
@in_each
@torch.no_grad()
def test_a_batch_says_of_each_sequence_what_is_said_of_it_alone(family: str, head: str) -> None:
    model, batch = model_of(family, head), batch_of(family, head)
    found = read(model, batch).flatten(0, 1) if head == "choices" else read(model, batch)
    for row, (own, theirs) in enumerate(zip(OWN, THEIRS, strict=True)):
        rows = flat(batch, head)
        embedded = model.base_model.embeddings(
            input_ids=rows.input_ids[row : row + 1, :own], token_type_ids=rows.token_type_ids[row : row + 1, :own]
        )
        whole = torch.cat([embedded, rows.resource[row : row + 1, :theirs]], 1)
        states = model.base_model.encoder(whole).last_hidden_state[:, :own]
        if head == "choices":  # the head wants whole questions
            alone = naive_head(model, family, head, states.expand(4, -1, -1))[0, :1]
            assert close(found[row : row + 1], alone)
        else:
            alone = naive_head(model, family, head, states)[0]
            assert close(found[row, :own] if head == "tags" else found[row], alone)


@pytest.mark.parametrize("before", [False, True])
@of_each
@in_each
@torch.no_grad()
def test_what_is_masked_off_says_nothing(family: str, head: str, before: bool) -> None:
    model, batch = model_of(family, head), batch_of(family, head)
    nothing = batch | {"resource_mask": torch.zeros_like(batch["resource_mask"])}
    real = batch["attention_mask"].bool() if head == "tags" else ...
    plain = model(**text_of(batch)).logits
    assert close(read(model, nothing, with_embeddings=before)[real], plain[real])
    found, on = read(model, batch, with_embeddings=before), batch["resource_mask"].bool()
    off = batch["resource"].masked_fill(~on[..., None], 17.0)
    assert close(read(model, batch | {"resource": off}, with_embeddings=before), found)
    other = batch["resource"].clone()
    other[on] = other[on].flip(0)
    assert not close(read(model, batch | {"resource": other}, with_embeddings=before), found)


@of_each
@in_each
@torch.no_grad()
def test_before_the_block_positions_go_on_where_the_own_tokens_end(family: str, head: str) -> None:
    model, batch = model_of(family, head), batch_of(family, head)
    real = batch["attention_mask"].bool() if head == "tags" else ...
    found = read(model, batch, with_embeddings=True)[real]
    assert close(found, naive_before(model, family, head, batch)[real])
    assert not close(found, naive_before(model, family, head, batch, padded=True)[real])
    assert not close(found, naive(model, family, head, batch)[real])


@of_each
@torch.no_grad()
def test_a_segment_adds_its_embedding(head: str) -> None:
    model, batch = model_of("bert", head), batch_of("bert", head)
    real = batch["attention_mask"].bool() if head == "tags" else ...
    found = read(model, batch)
    for segment in (0, 1):
        vector = model.base_model.embeddings.token_type_embeddings.weight[segment]
        behind = read(model, batch, segment=segment)
        assert close(behind, naive(model, "bert", head, batch, flat(batch, head).resource + vector))
        assert not close(behind, found)
        before = read(model, batch, segment=segment, with_embeddings=True)[real]
        assert close(before, naive_before(model, "bert", head, batch, segment)[real])
    assert not close(before, read(model, batch, with_embeddings=True)[real])


@torch.no_grad()
def test_a_second_batch_is_not_read_with_the_first_ones_vectors() -> None:
    model, batch = model_of("bert", "tags"), batch_of("bert", "tags")
    reader = Reader(copy.deepcopy(model), WIDTH).eval()
    first = reader(**batch).logits
    short = {name: tensor[1:2, : {7: 3, 6: 6}[tensor.shape[1]]] for name, tensor in batch.items()}
    assert close(reader(**short).logits, first[1:2, :3])
    assert close(reader(**batch).logits, first)
    with pytest.raises(AssertionError, match="called through its Reader"):
        reader.model(**text_of(batch))


@torch.no_grad()
def test_a_narrow_embedding_block_is_read_or_refused() -> None:
    """ELECTRA's small models embed in 128 numbers and project these to 256 before the encoder."""
    model, batch = model_of("electra", "tags", embedding_size=20), batch_of("electra", "tags")
    rows = flat(batch, "tags")
    block = model.base_model.embeddings(input_ids=rows.input_ids, token_type_ids=rows.token_type_ids)
    embedded = model.base_model.embeddings_project(block)
    expected = encoded(model, "electra", "tags", rows, embedded, rows.resource)
    try:
        reader = Reader(copy.deepcopy(model), WIDTH).eval()
    except ValueError:
        return
    assert close(reader(**batch).logits, expected)


# Fusion.


def naive_states(model: Any, rows: Any) -> list[Tensor]:
    """Hidden states 0 (the embedding block's output, token by token) to the last layer's."""
    block = model.base_model.embeddings
    first = 2 if "roberta" in model.config.model_type else 0
    embedded = [
        torch.stack([
            naive_embedding(block, block.word_embeddings.weight[token], first + place, int(types[place]))
            for place, token in enumerate(ids)
        ])
        for ids, types in zip(rows.input_ids, rows.token_type_ids, strict=True)
    ]  # fmt: skip
    found = [torch.stack(embedded)]
    for layer in model.base_model.encoder.layer:
        found.append(layer(found[-1], additive(rows.attention_mask.tolist())))
    return found


def said(model: Any, batch: dict[str, Tensor], fusion: str, stored: str = "fp32") -> Tensor:
    layers = fused_layers(fusion, model.config.num_hidden_layers)
    return features_of(model, text_of(batch), layers, fusion != "learned", stored)


@in_each
@torch.no_grad()
def test_states_are_counted_from_the_embedding_block(family: str) -> None:
    model, batch = model_of(family, num_hidden_layers=3), batch_of(family, "tags")
    real = batch["attention_mask"].bool()
    states = naive_states(model, flat(batch, "tags"))
    assert len(states) == 4
    for layer, state in enumerate(states):
        assert close(said(model, batch, f"layer:{layer}")[real], state[real]), layer


@pytest.mark.parametrize("head", ["tags", "choices"])
@pytest.mark.parametrize("depth", [2, 3, 5])
@torch.no_grad()
def test_fixed_fusions_are_means(depth: int, head: str) -> None:
    model, batch = model_of("bert", num_hidden_layers=depth), batch_of("bert", head)
    states, real = naive_states(model, flat(batch, head)), flat(batch, head).attention_mask.bool()
    last, every = torch.zeros_like(states[0]), torch.zeros_like(states[0])
    for state in states[-4:]:
        last += state / min(4, depth + 1)
    for state in states:
        every += state / (depth + 1)
    for fusion, expected in (("avg_last4", last), ("avg_all", every)):
        found = said(model, batch, fusion)
        assert found.shape == (*batch["input_ids"].shape, WIDTH)
        assert close(found.reshape(expected.shape)[real], expected[real])
    assert close(last[real], every[real]) == (depth <= 3)
    learned = said(model, batch, "learned")
    assert learned.shape == (*batch["input_ids"].shape, depth + 1, WIDTH)
    for layer, state in enumerate(states):
        assert close(learned[..., layer, :].reshape(state.shape)[real], state[real])


@torch.no_grad()
def test_features_have_the_number_format_they_are_stored_in() -> None:
    model, batch = model_of("bert"), batch_of("bert", "tags")
    exact = said(model, batch, "avg_all")
    for stored, dtype, error in (("fp16", torch.float16, 2**-11), ("bf16", torch.bfloat16, 2**-8)):
        found = said(model, batch, "avg_all", stored)
        assert found.dtype == dtype
        worst = ((found.float() - exact).abs() / exact.abs().clamp_min(1e-3)).max()
        assert error / 8 < worst <= error


def test_layers_of_a_fusion() -> None:
    cases = [("layer:0", 12, [0]), ("layer:12", 12, [12]), ("layer:7", 12, [7]), ("avg_last4", 12, [9, 10, 11, 12])]
    cases += [("avg_last4", 3, [0, 1, 2, 3]), ("avg_last4", 2, [0, 1, 2]), ("avg_last4", 4, [1, 2, 3, 4])]
    cases += [("avg_all", 3, [0, 1, 2, 3]), ("learned", 2, [0, 1, 2])]
    for fusion, depth, layers in cases:
        assert fused_layers(fusion, depth) == layers, fusion


@pytest.mark.parametrize("fusion", ["layer:13", "layer:-1", "layer:", "layer:1.0", "layer", "last4", "", "avg_last40"])
def test_a_fusion_that_is_none_is_refused(fusion: str) -> None:
    with pytest.raises(ValueError, match="there is no layer 13: the resource has 12" if "13" in fusion else "must be"):
        fused_layers(fusion, 12)


def naive_softmax(scores: Sequence[float]) -> list[float]:
    powers = [math.exp(score) for score in scores]
    return [power / math.fsum(powers) for power in powers]


@pytest.mark.parametrize("free", [False, True])
def test_a_learned_fusion_starts_at_the_mean(free: bool) -> None:
    states = torch.randn(3, 5, 4, 6)
    weights = Weights(4, free)
    assert weights.weights().tolist() == pytest.approx([0.25] * 4)
    assert close(weights(states), sum(states[:, :, layer] / 4 for layer in range(4)))
    scores = [0.3, -1.0, 2.0, 0.5]
    weights.scores.data = torch.tensor(scores)
    expected = scores if free else naive_softmax(scores)
    assert close(weights(states), sum(states[:, :, layer] * expected[layer] for layer in range(4)))


@pytest.mark.parametrize("head", ["tags", "choices"])
@pytest.mark.parametrize("free", [False, True])
def test_gradients_of_a_learned_fusion_are_those_of_finite_differences(free: bool, head: str) -> None:
    model, batch = model_of("bert", head), batch_of("bert", head, states=3)
    reader = Reader(copy.deepcopy(model), WIDTH, states=3, free=free).eval()
    scores = [0.4, -0.2, 0.1]

    def loss(at: list[float]) -> Tensor:
        reader.fusion.scores.data = torch.tensor(at)
        total: Tensor = (reader(**batch).logits.double() ** 2).sum()
        return total

    loss(scores).backward()
    found, expected = reader.fusion.scores.grad.tolist(), []
    for layer in range(3):
        above, below = (
            loss([a + sign * 0.01 * (layer == other) for other, a in enumerate(scores)]).item() for sign in (1, -1)
        )
        expected.append((above - below) / 0.02)
    largest = max(map(abs, expected))
    assert found == pytest.approx(expected, rel=0.02, abs=0.01 * largest)
    assert largest > 0.03


@torch.no_grad()
def test_a_learned_fusion_is_read_as_its_sum() -> None:
    model, batch = model_of("roberta", "choices"), batch_of("roberta", "choices", states=3)
    reader = Reader(copy.deepcopy(model), WIDTH, states=3).eval()
    reader.fusion.scores.data = torch.tensor([1.0, 0.0, -2.0])
    given = torch.zeros(4, 6, WIDTH)
    for layer, weight in enumerate(naive_softmax([1.0, 0.0, -2.0])):
        given += weight * batch["resource"].flatten(0, 1)[:, :, layer]
    assert close(reader(**batch).logits, naive(model, "roberta", "choices", batch, given))


# Projection, norm, dropout.


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize(("depth", "width"), [(0, WIDTH), (1, 20), (2, 20), (2, WIDTH), (3, 48)])
@torch.no_grad()
def test_vectors_are_projected_and_normed(depth: int, width: int, norm: bool) -> None:
    model, batch = model_of("bert", "tags"), batch_of("bert", "tags", width)
    torch.manual_seed(11)
    reader = Reader(copy.deepcopy(model), width, depth=depth, norm=norm).eval()
    for weight in reader.inject.parameters():
        weight.add_(torch.randn(weight.shape) * 0.2)
    linear = [module for module in reader.inject.modules() if isinstance(module, nn.Linear)]
    shapes = [(layer.in_features, layer.out_features) for layer in linear]
    assert shapes == [(width, WIDTH), *[(WIDTH, WIDTH)] * (depth - 1)][:depth]
    norms = [module for module in reader.inject.modules() if isinstance(module, nn.LayerNorm)]
    assert len(norms) == norm
    given = torch.zeros(4, 6, WIDTH)
    for row in range(4):
        for place, vector in enumerate(batch["resource"][row]):
            for index, layer in enumerate(linear):
                vector = naive_linear(layer, naive_gelu(vector) if index else vector)
            given[row, place] = naive_norm(norms[0], vector) if norm else vector
    assert close(reader(**batch).logits, naive(model, "bert", "tags", batch, given))


def test_unequal_widths_need_a_projection() -> None:
    with pytest.raises(ValueError, match="have width 20, the reader's 32: they need a projection"):
        Reader(model_of("bert", "tags"), 20)


@torch.no_grad()
def test_dropout_falls_on_the_resources_vectors_in_training_only() -> None:
    model, batch = model_of("bert", "tags"), batch_of("bert", "tags")  # without any dropout of its own
    reader = Reader(copy.deepcopy(model), WIDTH, dropout=0.4)
    assert close(reader.eval()(**batch).logits, naive(model, "bert", "tags", batch))
    torch.manual_seed(13)
    kept = nn.functional.dropout(batch["resource"], 0.4)
    assert 0.3 < float((kept == 0).float().mean()) < 0.5
    torch.manual_seed(13)
    assert close(reader.train()(**batch).logits, naive(model, "bert", "tags", batch, kept))
    nothing = batch | {"resource_mask": torch.zeros_like(batch["resource_mask"])}
    assert close(reader(**nothing).logits, naive(model, "bert", "tags", nothing))


# What is trained, and what is not.


def reached(module: nn.Module) -> set[str]:
    return {name for name, weight in module.named_parameters() if weight.grad is not None and weight.grad.any()}


@pytest.mark.parametrize("before", [False, True])
@of_each
@in_each
def test_gradients_reach_what_fine_tuning_reaches_and_the_extra_weights(family: str, head: str, before: bool) -> None:
    model, batch = model_of(family, head), batch_of(family, head, 20, states=3)
    plain = copy.deepcopy(model)
    (plain(**text_of(batch)).logits ** 2).sum().backward()
    options: dict[str, Any] = {"states": 3, "depth": 2, "norm": True, "with_embeddings": before}
    reader = Reader(model, 20, **options)
    (reader(**batch).logits ** 2).sum().backward()
    extra = {"fusion.scores", "inject.0.0.weight", "inject.0.0.bias", "inject.0.2.weight", "inject.0.2.bias"}
    extra |= {"inject.1.weight", "inject.1.bias"}
    assert len(reached(plain)) > 30
    assert reached(reader) == {f"model.{name}" for name in reached(plain)} | extra
    names = {name for name, _ in model.named_parameters()}
    assert {name for name, _ in reader.named_parameters()} == {f"model.{name}" for name in names} | extra
    assert set(reader.state_dict()) == {f"model.{name}" for name in model.state_dict()} | extra
    assert set(reader.extra()) == extra


def test_a_plain_reader_has_no_weights_of_its_own() -> None:
    model = model_of("bert", "tags")
    reader = Reader(model, WIDTH)
    assert reader.extra() == {} and set(reader.state_dict()) == {f"model.{name}" for name in model.state_dict()}


def test_the_resource_gets_no_gradient_and_has_no_dropout_while_the_reader_trains() -> None:
    resource = model_of("bert", hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
    model, batch = model_of("bert", "tags", seed=4), batch_of("bert", "tags")
    reader = Reader(model, WIDTH).train()
    found, again = (said(resource, batch, "avg_all") for _ in range(2))
    assert torch.equal(found, again) and not found.requires_grad and not resource.training
    reader(**text_of(batch), resource=found, resource_mask=batch["attention_mask"]).logits.sum().backward()
    assert reached(resource) == set()
    with pytest.raises(AssertionError):
        said(resource.train(), batch, "avg_all")


# A shortened resource.


def all_read(model: Any, batch: dict[str, Tensor], layers: int) -> list[Tensor]:
    """Each hidden state up to a layer, as a fusion of this one layer reads it."""
    return [features_of(model, batch, [layer], True, "fp32") for layer in range(layers + 1)]


@in_each
@torch.no_grad()
def test_an_encoder_without_its_upper_layers_has_the_same_states(family: str, tmp_path: Path) -> None:
    narrow = {"embedding_size": 20} if family == "electra" else {}
    whole, batch = model_of(family, num_hidden_layers=3, **narrow), text_of(batch_of(family, "tags"))
    whole.save_pretrained(tmp_path / "whole")
    states = whole(**batch, output_hidden_states=True).hidden_states
    assert len(states) == 4
    for layers, kept in ((None, 3), (3, 3), (2, 2), (1, 1), (0, 0)):
        model: Any = load_encoder(tmp_path / "whole", layers=layers)
        assert not model.training and not any(weight.requires_grad for weight in model.parameters())
        assert len(model.encoder.layer) == model.config.num_hidden_layers == kept
        model.save_pretrained(tmp_path / str(layers))
        for read_back in (model, load_encoder(tmp_path / str(layers))):
            for ours, theirs in zip(all_read(read_back, batch, kept), states, strict=False):
                assert close(ours, theirs)


@torch.no_grad()
def test_an_encoder_that_is_drawn_here_is_the_same_however_many_layers_are_read(tmp_path: Path) -> None:
    shape_of("bert", num_hidden_layers=3).save_pretrained(tmp_path)
    batch = text_of(batch_of("bert", "tags"))
    torch.manual_seed(9)
    whole = AutoModel.from_config(AutoConfig.from_pretrained(tmp_path)).eval()
    states = whole(**batch, output_hidden_states=True).hidden_states
    for layers in (3, 2, 1, 0):
        model: Any = load_encoder(tmp_path, seed=9, layers=layers)
        for ours, theirs in zip(all_read(model, batch, layers), states, strict=False):
            assert close(ours, theirs)
    other: Any = load_encoder(tmp_path, seed=10)
    assert not close(all_read(other, batch, 0)[0], states[0])


def test_special_tokens_are_masked_off_and_unknown_ones_are_not() -> None:
    tokenizer = SimpleNamespace(all_special_ids=[0, 1, 2, 3, 4], unk_token_id=1)
    ids = torch.tensor([[[2, 8, 1, 3, 9, 3], [2, 1, 3, 3, 0, 0]]])
    tokens = {"input_ids": ids, "attention_mask": torch.tensor([[[1] * 6, [1, 1, 1, 1, 0, 0]]])}
    assert read_mask(tokens, tokenizer, drop_special=True).tolist() == [[[0, 1, 1, 0, 1, 0], [0, 1, 0, 0, 0, 0]]]
    assert torch.equal(read_mask(tokens, tokenizer, drop_special=False), tokens["attention_mask"])
