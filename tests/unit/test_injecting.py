"""The student of TRELM against equations spelt out: what goes in, what is lost, what is noted (facts, tests 2 to 4)."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import BertConfig, BertForMaskedLM, RobertaConfig, RobertaForMaskedLM

from kbench.methods.cka import Decoder
from kbench.methods.injecting import Remembered, Rules, Student
from kbench.methods.injection import Injection, neighbour_vector

B, L, D, K, V = 2, 9, 16, 5, 40


def model_of(family: str):
    sizes = {"hidden_size": D, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    torch.manual_seed(3)
    if family == "bert":
        return BertForMaskedLM(BertConfig(vocab_size=V, pad_token_id=0, **sizes)).eval()
    return RobertaForMaskedLM(RobertaConfig(vocab_size=V, pad_token_id=1, max_position_embeddings=20, **sizes)).eval()


def batch_of(pad: int, injected: int = 2, seed: int = 0) -> dict[str, torch.Tensor]:
    """Two rows, the second padded on the right; mentions at [2, 4) of row 0 and [1, 3) of row 1."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, V, (B, L), generator=generator)
    attention = torch.ones(B, L, dtype=torch.int64)
    ids[1, 6:], attention[1, 6:] = pad, 0
    special = attention == 0
    special[:, 0] = True
    special[0, 8], special[1, 5] = True, True
    some = torch.arange(injected)
    return {
        "input_ids": ids, "attention_mask": attention, "special": special,
        "positions": torch.tensor([5, L + 4]), "labels": torch.tensor([7, 9]),
        "line": torch.tensor([0, 1]), "start": torch.tensor([2, 1]), "stop": torch.tensor([4, 3]),
        "kept": torch.tensor([0, 1]), "injected": some, "vector": torch.randn(injected, K, generator=generator),
        "remembered": torch.tensor([True, False])[:injected], "asked": some,
        "relation": torch.randn(injected, K, generator=generator),
        "towards_tail": torch.tensor([True, False])[:injected],
        "targets": torch.tensor([[6, 8], [11, -1]])[:injected], "target_log_q": torch.zeros(injected, 2),
        "removed": torch.zeros(injected, 4, dtype=torch.bool), "negatives": torch.tensor([12, 13, 14, 15]),
        "log_q": torch.zeros(4),
    }  # fmt: skip


def student_of(model, **rules) -> Student:
    torch.manual_seed(5)
    return Student(model, Injection(K, D, 1), Decoder(D, K), Rules(longest=2, **rules)).eval()


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_without_mentions_it_is_the_model_itself(family):
    model = model_of(family)
    batch = batch_of(model.config.pad_token_id, injected=0)
    student = student_of(model, theta=0.5)
    found = student(batch, None, {"words": 0.5, "knowledge": 1.0}, longest=2, noting=False)
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    plain = cross_entropy(logits.flatten(0, 1)[batch["positions"]], batch["labels"])
    assert found["words"].item() == pytest.approx(0.5 * plain.item(), rel=1e-6)
    assert found["knowledge"].item() == 0.0
    alone = Student(model, None, None, Rules())(batch, None, {"words": 0.5}, longest=0, noting=False)
    assert set(alone) == {"words"} and alone["words"].item() == pytest.approx(plain.item(), rel=1e-6)


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_mention_holds_equation_7_and_all_else_its_embedding(family):
    model = model_of(family)
    batch = batch_of(model.config.pad_token_id)
    student = student_of(model)
    memory = Remembered(torch.randn(2, D), torch.randn(2, D), 0.25)
    found = student._inputs(batch, memory)["inputs_embeds"]
    table = model.get_input_embeddings().weight
    expected = table[batch["input_ids"]].clone()
    h = batch["vector"] @ student.injection.projection.weight.T + student.injection.projection.bias
    expected[0, 2:4] = 0.75 * h[0] + 0.125 * (memory.local[0] + memory.whole[0])
    expected[1, 1:3] = h[1]  # not a member of the memory
    assert torch.allclose(found, expected, atol=1e-6)
    same = found.eq(table[batch["input_ids"]]).all(-1)
    assert same.sum() == B * L - 4


def test_the_vector_of_an_entity_is_its_own_where_head_plus_relation_is_tail():
    """Facts, test 2: a toy graph with exact vectors; in both directions h_e is W_k T[e] + b_k."""
    generator = torch.Generator().manual_seed(1)
    head, relation = torch.randn(3, K, generator=generator), torch.randn(3, K, generator=generator)
    tail = head + relation
    injection = Injection(K, D, 1)
    for is_head, own in ((True, head), (False, tail)):
        v = neighbour_vector(head, relation, tail, torch.full((3,), is_head))
        assert torch.allclose(injection(v), injection(own), atol=1e-6)


def test_the_knowledge_loss_is_that_of_the_decoder_on_the_mean_of_the_span():
    model = model_of("bert")
    batch, student = batch_of(0), student_of(model_of("bert"), theta=0.3)
    found = student(batch, None, {"words": 1.0, "knowledge": 1 / 3}, longest=2, noting=False)
    model = student.lm
    embedded = student._inputs(batch, None)["inputs_embeds"]
    states = model.bert(inputs_embeds=embedded, attention_mask=batch["attention_mask"]).last_hidden_state
    table, total = model.get_input_embeddings().weight, 0.0
    for mention, (row, start, stop) in enumerate(((0, 2, 4), (1, 1, 3))):
        s = states[row, start:stop].mean(0)
        decoder = student.decoder
        state = decoder.norm(torch.nn.functional.gelu(decoder.start.weight @ s))
        sign = 1.0 if mention == 0 else -1.0
        for target in batch["targets"][mention].tolist():
            state = torch.tanh(
                0.5 * sign * (decoder.relation.weight @ batch["relation"][mention]) * (decoder.step.weight @ state)
            )
            if target < 0:
                continue
            wrong = (table[batch["negatives"]] @ state) - batch["log_q"]
            scores = torch.cat([(table[target] @ state)[None], wrong])
            total = total - torch.log_softmax(scores, 0)[0]
    assert found["knowledge"].item() == pytest.approx(0.7 * total.item() / 3, rel=1e-5)


def test_notes_are_means_over_the_window_and_the_first_state():
    model = model_of("bert")
    batch, student = batch_of(0), student_of(model, window=1)
    student(batch, None, {"words": 1.0, "knowledge": 1.0}, longest=2, noting=True)
    states, _ = student.states(batch, None)
    local, first = student.notes
    assert torch.allclose(local[0], states[0, 1:5].mean(0), atol=1e-6)
    assert torch.allclose(local[1], states[1, 1:4].mean(0), atol=1e-6)  # the first token is a special one
    assert torch.allclose(first, states[:, 0], atol=1e-6) and not local.requires_grad and not first.requires_grad


def test_no_gradient_reaches_the_memory():
    student, batch = student_of(model_of("bert")), batch_of(0)
    local = torch.randn(2, D, requires_grad=True)
    terms = student(batch, Remembered(local, local, 0.5), {"words": 1.0, "knowledge": 1.0}, longest=2, noting=True)
    sum(terms.values()).backward()
    assert local.grad is None and student.injection.projection.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("copies", [1, 3])
def test_the_probability_that_paths_are_found_by_is_that_of_the_loss(copies):
    student, batch = student_of(model_of("bert")), batch_of(0)
    chosen = torch.tensor([0, 1])
    with torch.no_grad():
        states, _ = student.states(batch, None)
        _, each = student.knowledge(states, batch, 2)
        found = student.probability(batch, None, chosen, 2)(copies=copies)
    expected = torch.tensor([each[0].mean(), each[1, 0]])
    assert torch.allclose(found, expected.repeat(copies), atol=1e-6)


def test_every_own_weight_has_a_gradient_in_a_batch_without_mentions():
    student = student_of(model_of("bert"))
    terms = student(batch_of(0, injected=0), None, {"words": 1.0, "knowledge": 1.0}, longest=0, noting=False)
    sum(terms.values()).backward()
    assert all(parameter.grad is not None for parameter in student._own())
