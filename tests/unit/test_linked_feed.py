"""Batches of linked text against one mention after another: vectors, answers, wrong tokens, masks, what is drawn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from kbench.config.trelm import Triple, Words
from kbench.knowledge.linked import Linked
from kbench.methods.linked_feed import Knowledge, LinkedFeed

from .linked_world import (
    CKA,
    CPU,
    EVERY,
    INJECT,
    KNOWN,
    MENTIONS,
    NAMES,
    PAD,
    TEXTS,
    TRIPLES,
    VOCABULARY,
    WORDS,
    feed_of,
    incident,
    knowledge_of,
    linked_of,
)  # fmt: skip


@pytest.fixture(scope="module")
def linked(tmp_path_factory: pytest.TempPathFactory) -> Linked:
    return linked_of(tmp_path_factory.mktemp("linked"))


@pytest.fixture(scope="module")
def knowledge(linked: Linked) -> Knowledge:
    return knowledge_of(linked)


def each_mention(feed: LinkedFeed, rows: np.ndarray) -> Iterator[tuple[int, int, dict[str, Any], int, bool]]:
    """(line, number, mention, triple, is_head) of all mentions that `told` gives of some rows."""
    told = feed.told(rows)
    for place, number in enumerate(told.mention.tolist()):
        mention = dict(zip(("sequence", "start", "stop", "entity"), MENTIONS[number], strict=True))
        yield int(told.line[place]), number, mention, int(told.triple[place]), bool(told.is_head[place])


@pytest.mark.parametrize("epoch", range(3))
@pytest.mark.parametrize("rows", [[0, 1, 2, 3, 4], [4, 0], [3], [2, 3, 1]])
def test_a_batch_is_what_one_mention_after_another_says(linked: Linked, knowledge: Knowledge, rows, epoch):
    feed, rows = feed_of(linked, knowledge), np.array(rows)
    feed.begin(epoch, rows)
    batch = feed.batch(rows, CPU)
    expected: dict[str, list[Any]] = {name: [] for name in (
        "line", "start", "stop", "kept", "injected", "vector", "remembered", "asked", "relation", "towards_tail",
        "targets", "target_log_q", "removed", "host.kept_entity", "host.kept_mention", "host.injected_entity",
        "host.relation",
    )}  # fmt: skip
    entities, relations = knowledge.vectors.entities, knowledge.vectors.relations
    place = 0
    for line, number, mention, row, is_head in each_mention(feed, rows):
        e = mention["entity"]
        assert rows[line] == mention["sequence"] and e >= 0
        assert row in incident(e) or (row == -1 and not incident(e))
        for name, value in (("line", line), ("start", mention["start"]), ("stop", mention["stop"])):
            expected[name].append(value)
        if e not in (1, 4):
            expected["kept"].append(place)
            expected["host.kept_entity"].append(e)
            expected["host.kept_mention"].append(number)
        if row >= 0:
            head, relation, tail = TRIPLES[row].tolist()
            assert is_head == (head == e)
            vector = entities[tail] - relations[relation] if is_head else entities[head] + relations[relation]
        elif KNOWN[e]:
            vector = entities[e]
        else:
            place += 1
            continue
        for name, value in (("injected", place), ("vector", vector), ("remembered", e not in (1, 4))):
            expected[name].append(value)
        expected["host.injected_entity"].append(e)
        if row >= 0 and NAMES[tail if is_head else head]:
            name = NAMES[tail if is_head else head][:4]
            right = {tuple(t) for t in TRIPLES.tolist() if t[1] == relation and t[0 if is_head else 2] == e}
            others = {t[2 if is_head else 0] for t in right - {(head, relation, tail)}}
            tokens = {token for other in others for token in NAMES[other][:4]}
            expected["asked"].append(place)
            expected["relation"].append(relations[relation])
            expected["towards_tail"].append(is_head)
            expected["targets"].append(name + [-1] * (4 - len(name)))
            chances = [knowledge.noise.log_expected(np.array(token), 12) for token in name]
            expected["target_log_q"].append(chances + [0.0] * (4 - len(name)))
            expected["removed"].append([token in tokens for token in feed.negatives.tolist()])
            expected["host.relation"].append(relation)
        place += 1
    for name, values in expected.items():
        assert batch[name].shape[0] == len(values), name
        if values:
            assert torch.equal(batch[name], torch.tensor(np.array(values)).to(batch[name].dtype)), name
    width = max([stop - start for sequence, start, stop, e in MENTIONS if sequence in rows and e >= 0], default=0)
    assert int(batch["host.longest"]) == width
    assert all(not name.startswith("host.") or tensor.device == CPU for name, tensor in batch.items())


def test_some_question_has_another_right_answer_among_the_wrong_tokens(linked, knowledge):
    """So that the test above is about something: of (0, relation 0, ?) there are three answers."""
    feed = feed_of(linked, knowledge, cka=replace(CKA, negatives=60))
    seen = 0
    for epoch in range(6):
        feed.begin(epoch, EVERY)
        seen += int(feed.batch(EVERY, CPU)["removed"].sum())
    assert seen > 0


def test_every_triple_of_an_entity_comes_and_a_draw_is_a_function_of_epoch_and_mention(linked, knowledge):
    seen: dict[int, set[int]] = {}
    for epoch in range(60):
        feed, other = feed_of(linked, knowledge), feed_of(linked, knowledge, important=[9], members=[])
        for one in (feed, other):
            one.begin(epoch, EVERY)
        found = {number: row for _, number, _, row, _ in each_mention(feed, EVERY)}
        for number, row in found.items():
            seen.setdefault(MENTIONS[number][3], set()).add(row)
        alone = {number: row for _, number, _, row, _ in each_mention(other, np.array([4]))}
        assert alone == {9: found[9]}, "nor does it depend on which other mentions are told of"
    assert seen == {entity: incident(entity) or {-1} for entity in range(8)}


def test_what_is_drawn_does_not_depend_on_the_batch(linked, knowledge):
    feed = feed_of(linked, knowledge)
    feed.begin(2, EVERY)
    whole, lengths = feed.batch(EVERY, CPU), linked.lengths
    assert len(whole["labels"]) > 3
    for row in EVERY.tolist():
        alone = feed.batch(np.array([row]), CPU)
        assert torch.equal(whole["input_ids"][row, : lengths[row]], alone["input_ids"][0])
        assert (whole["input_ids"][row, lengths[row] :] == PAD).all()
        for places, names in (
            (whole["line"] == row, ("start", "stop")),
            (whole["line"][whole["injected"]] == row, ("vector", "remembered")),
            (whole["line"][whole["asked"]] == row, ("relation", "towards_tail", "targets", "target_log_q", "removed")),
            (whole["positions"] // whole["input_ids"].shape[1] == row, ("labels",)),
        ):
            assert all(torch.equal(whole[name][places], alone[name]) for name in names)
        here = whole["positions"][whole["positions"] // whole["input_ids"].shape[1] == row]
        assert torch.equal(here % whole["input_ids"].shape[1], alone["positions"])


def test_counts_of_a_step_are_sums_over_its_rows(linked, knowledge):
    feed = feed_of(linked, knowledge)
    feed.begin(0, EVERY)
    found = {name: int(value) for name, value in feed.shared(EVERY).items()}
    each = [feed.batch(np.array([row]), CPU) for row in EVERY]
    assert found == {
        "step_units": len(EVERY),
        "step_labels": sum(len(one["labels"]) for one in each),
        "step_targets": sum(int((one["targets"] >= 0).sum()) for one in each),
        "step_asked": sum(len(one["asked"]) for one in each),
    }
    assert min(found.values()) > 0


@pytest.mark.parametrize("in_spans", [False, True])
def test_no_token_of_an_injected_mention_is_masked_nor_a_word_that_reaches_into_one(linked, knowledge, in_spans):
    """With every word drawn: 12 goes on with 11, which is inside [1, 3); 17 with 16."""
    feed = feed_of(linked, knowledge, words=Words(1.0, whole_words=True, in_spans=in_spans))
    feed.begin(0, EVERY)
    batch = feed.batch(EVERY, CPU)
    expected = []
    for row, text in enumerate(TEXTS):
        pieces = text.split()
        spans = [(s, e) for sequence, s, e, x in MENTIONS if sequence == row and x >= 0 and (incident(x) or KNOWN[x])]
        inside = [any(start <= place < stop for start, stop in spans) for place in range(1, len(pieces) + 1)]
        words: list[list[int]] = []
        for place, piece in enumerate(pieces):
            words = [*words[:-1], [*words[-1], place]] if piece.startswith("+") else [*words, [place]]
        for word in words:
            if in_spans or not any(inside[place] for place in word):
                expected += [(row, place + 1, int(pieces[place])) for place in word]
    width = batch["input_ids"].shape[1]
    found = [
        (p // width, p % width, label)
        for p, label in zip(batch["positions"].tolist(), batch["labels"].tolist(), strict=True)
    ]
    assert found == expected
    special = batch["special"]
    lengths = torch.from_numpy(linked.lengths.astype(np.int64))
    assert special[:, 0].all() and special[torch.arange(len(TEXTS)), lengths - 1].all()
    assert torch.equal((~special).sum(1), lengths - 2)


def test_a_mention_that_is_not_injected_may_be_masked(linked, knowledge):
    feed = feed_of(linked, knowledge, words=replace(WORDS, probability=1.0), inject=replace(INJECT, enabled=False))
    feed.begin(0, EVERY)
    batch = feed.batch(EVERY, CPU)
    assert len(batch["injected"]) == 0 and len(batch["labels"]) == sum(linked.lengths - 2)
    assert len(batch["asked"]) > 0, "the knowledge loss stays"


def test_only_important_mentions_are_told_and_only_members_are_kept(linked, knowledge):
    feed = feed_of(linked, knowledge, important=[1, 8], members=[8, 11])
    feed.begin(0, EVERY)
    batch = feed.batch(EVERY, CPU)
    told = feed.told(EVERY)
    assert told.mention.tolist() == [1, 8, 11]
    assert batch["injected"].tolist() == [0, 1] and batch["remembered"].tolist() == [False, True]
    assert set(batch["asked"].tolist()) <= {0, 1} and batch["host.kept_mention"].tolist() == [8, 11]
    assert feed.entities.tolist() == [1, 2, 4]


def test_the_first_triple_is_that_of_the_file(linked, knowledge):
    feed = feed_of(linked, knowledge, inject=replace(INJECT, triple=Triple.first))
    for _, _, mention, row, _ in each_mention(feed, EVERY):
        assert row == min(incident(mention["entity"]), default=-1)


@pytest.mark.parametrize("rows", [[0, 1, 2, 3, 4], [4, 2, 0], [3, 1]])
def test_a_partner_is_any_other_entity_of_the_text(linked, knowledge, rows):
    """Also one that is neither important nor kept; without one, it is drawn as ever."""
    feed = feed_of(
        linked, knowledge, important=[1, 9], members=[], inject=replace(INJECT, triple=Triple.partner_in_text)
    )
    plain = feed_of(linked, knowledge, important=[1, 9], members=[])
    rows = np.array(rows)
    for epoch in range(12):
        for one in (feed, plain):
            one.begin(epoch, rows)
        drawn = {number: row for _, number, _, row, _ in each_mention(plain, rows)}
        for _, number, mention, row, is_head in each_mention(feed, rows):
            e, beside = mention["entity"], {m[3] for m in MENTIONS if m[0] == mention["sequence"]} - {mention["entity"]}
            joined = {r for r in incident(e) if set(TRIPLES[r, [0, 2]].tolist()) & beside}
            assert row in joined if joined else row == drawn[number]
            assert is_head == (TRIPLES[row, 0] == e)


def test_one_direction_asks_heads_alone(linked, knowledge):
    feed = feed_of(linked, knowledge, cka=replace(CKA, direction="head_to_tail"))
    both, asked = feed_of(linked, knowledge), 0
    for epoch in range(4):
        for one in (feed, both):
            one.begin(epoch, EVERY)
        told, other = feed.told(EVERY), both.told(EVERY)
        assert np.array_equal(told.asked, other.asked & other.is_head) and np.array_equal(told.injected, other.injected)
        asked += int(other.asked.sum()) - int(told.asked.sum())
    assert asked > 0


def test_a_mention_may_be_decoded_to_its_own_tokens(linked, knowledge):
    feed = feed_of(linked, knowledge, cka=replace(CKA, target="self", longest=1, negatives=60))
    removed = 0
    for epoch in range(6):
        feed.begin(epoch, EVERY)
        batch, told = feed.batch(EVERY, CPU), feed.told(EVERY)
        assert np.array_equal(told.asked, told.triple >= 0), "whatever the names"
        for place, line in enumerate(batch["asked"].tolist()):
            sequence, start, _, e = MENTIONS[int(told.mention[line])]
            head, relation, tail = TRIPLES[told.triple[line]].tolist()
            assert batch["targets"][place].tolist() == [int(TEXTS[sequence].split()[start - 1].strip("+"))]
            side, open_ = (2, 0) if head == e else (0, 2)
            answers = {
                t[open_] for t in TRIPLES.tolist() if t[1] == relation and t[side] == (head, relation, tail)[side]
            }
            tokens = {token for answer in answers - {e} for token in NAMES[answer][:1]}
            assert batch["removed"][place].tolist() == [token in tokens for token in feed.negatives.tolist()]
            removed += int(batch["removed"][place].sum())
    assert removed > 0


def test_wrong_tokens_are_of_the_step_and_never_special(linked, knowledge):
    feed = feed_of(linked, knowledge, cka=replace(CKA, negatives=200))
    drawn = {}
    for epoch, first in ((0, 0), (0, 1), (1, 0)):
        feed.begin(epoch, np.array([first, 2]))
        drawn[epoch, first] = feed.negatives
        assert not set(feed.negatives.tolist()) & set(VOCABULARY.special)
        assert np.array_equal(feed.log_q, knowledge.noise.log_expected(feed.negatives, 200))
    assert len({tuple(one.tolist()) for one in drawn.values()}) == 3
    feed.begin(0, np.array([1, 4, 3]))
    assert np.array_equal(feed.negatives, drawn[0, 1])


def test_epochs_and_seeds_draw_other_masks_and_triples(linked, knowledge):
    made = []
    for epoch, seed in ((0, 3), (1, 3), (0, 4)):
        feed = feed_of(linked, knowledge, seed=seed)
        feed.begin(epoch, EVERY)
        batch = feed.batch(EVERY, CPU)
        made.append((tuple(batch["input_ids"].flatten().tolist()), tuple(feed.told(EVERY).triple.tolist())))
    assert len({ids for ids, _ in made}) == 3 and len({triples for _, triples in made}) == 3


def test_text_alone_tells_of_nothing(linked):
    nobody = np.zeros(len(MENTIONS), dtype=bool)
    feed = LinkedFeed(linked, nobody, nobody, None, VOCABULARY, replace(WORDS, in_spans=True), seed=1)
    feed.begin(0, EVERY)
    batch = feed.batch(EVERY, CPU)
    assert len(batch["line"]) == len(batch["kept"]) == 0 and "vector" not in batch and len(batch["labels"]) > 0
    assert {name: int(value) for name, value in feed.shared(EVERY).items()} == {
        "step_units": 5, "step_labels": len(batch["labels"]), "step_targets": 0, "step_asked": 0,
    }  # fmt: skip
