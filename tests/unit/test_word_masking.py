"""Masking of whole words: against a plain loop, and which words it must leave alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from kbench.engine.counter import below, mixed, uniform
from kbench.knowledge.masking import Draw, Masked, Masking, Role, mask_ordinary
from kbench.knowledge.word_masking import mask_words

CLS, SEP, PAD, UNKNOWN, MASK, SIZE = 0, 2, 1, 3, 4, 500
SPECIAL = (CLS, PAD, SEP, UNKNOWN, MASK)
RULES: dict[str, Any] = {"probability": 0.15, "mask": MASK, "vocabulary": SIZE, "special": SPECIAL}


def batch(seed: int, rows: int = 6, width: int = 20) -> dict[str, np.ndarray]:
    """Sequences of random lengths, some tokens unknown, some blocked."""
    random = np.random.default_rng(seed)
    lengths = random.integers(4, width + 1, rows)
    lengths[0] = width
    place = np.arange(width)
    ids = random.integers(5, SIZE, (rows, width))
    ids[random.random(ids.shape) < 0.05] = UNKNOWN
    ids[:, 0] = CLS
    ids[np.arange(rows), lengths - 1] = SEP
    inner = (place > 0) & (place < lengths[:, None] - 1)
    ids[place >= lengths[:, None]] = PAD
    begins = inner & ((random.random(ids.shape) < 0.6) | (place == 1))
    blocked = inner & (random.random(ids.shape) < 0.1)
    attention = (place < lengths[:, None]).astype(np.int64)
    keys = mixed(seed, np.arange(rows))
    return {"ids": ids, "begins": begins, "blocked": blocked, "keys": keys, "attention": attention}


def plain(made: dict[str, np.ndarray], whole_words: bool, probability: float) -> tuple[np.ndarray, list[int]]:
    """Word by word and token by token."""
    found, positions = made["ids"].copy(), []
    rows, width = found.shape
    for row in range(rows):
        key = int(made["keys"][row])
        words: list[list[int]] = []
        for place in range(width):
            token = int(made["ids"][row, place])
            special = token in SPECIAL
            joins = whole_words and not special and not made["begins"][row, place] and place > 0
            if joins and int(made["ids"][row, place - 1]) not in SPECIAL:
                words[-1].append(place)
            else:
                words.append([place])
        for word in words:
            if any(int(made["ids"][row, place]) in SPECIAL or made["blocked"][row, place] for place in word):
                continue
            if uniform(key, Draw.SELECTED, word[0]) >= probability:
                continue
            for place in word:
                positions.append(row * width + place)
                chance = float(uniform(key, Draw.REPLACED, place))
                if chance < 0.8:
                    found[row, place] = MASK
                elif chance < 0.9:
                    found[row, place] = below(SIZE, key, Draw.TOKEN, place)
    return found, positions


def same(one: Masked, ids: np.ndarray, positions: list[int], before: np.ndarray) -> None:
    assert one.input_ids.tolist() == ids.tolist()
    assert one.positions.tolist() == sorted(positions)
    assert one.labels.tolist() == before.reshape(-1)[one.positions].tolist()


def test_against_a_plain_loop() -> None:
    for seed in range(12):
        for probability in (0.15, 0.6):
            for whole_words in (True, False):
                made = batch(seed)
                before = made["ids"].copy()
                found = mask_words(**made, **{**RULES, "probability": probability}, whole_words=whole_words)
                same(found, *plain(made, whole_words, probability), before)
                assert (made["ids"] == before).all()
                assert found.attention_mask.tolist() == made["attention"].tolist()
                types = {found.input_ids.dtype, found.attention_mask.dtype, found.positions.dtype, found.labels.dtype}
                assert types == {np.dtype(np.int64)}


def test_token_by_token_it_masks_as_plain_text_is_masked() -> None:
    made = batch(3)
    roles = np.where(np.isin(made["ids"], SPECIAL), Role.SPECIAL, Role.WORD)
    roles[made["attention"] == 0] = Role.PAD
    wanted = mask_ordinary(made["ids"], roles, made["keys"], Masking(), MASK, SIZE)
    found = mask_words(**{**made, "blocked": np.zeros_like(made["blocked"])}, **RULES, whole_words=False)
    assert found.positions.tolist() == wanted.positions.tolist() and len(found.positions)
    assert found.input_ids.tolist() == wanted.input_ids.tolist()
    assert found.attention_mask.tolist() == wanted.attention_mask.tolist()


def test_a_sample_is_masked_alike_in_every_batch() -> None:
    made = batch(5)
    whole = mask_words(**made, **RULES)
    for row in range(len(made["ids"])):
        length = int(made["attention"][row].sum())
        part = {name: array[row : row + 1] for name, array in made.items()}
        cut = {name: array if name == "keys" else array[:, :length] for name, array in part.items()}
        alone = mask_words(**cut, **RULES)
        assert alone.input_ids[0].tolist() == whole.input_ids[row, :length].tolist()


def test_words_with_a_blocked_token_stay() -> None:
    ids = np.array([[CLS, 10, 11, 12, 13, UNKNOWN, 14, SEP, PAD]])
    begins = np.array([[0, 1, 0, 0, 1, 0, 0, 0, 0]], dtype=bool)
    blocked = np.zeros(ids.shape, dtype=bool)
    made = {"ids": ids, "begins": begins, "keys": mixed(np.arange(1)), "attention": (ids != PAD).astype(np.int64)}
    everything = {**RULES, "probability": 1.0}
    assert mask_words(**made, blocked=blocked, **everything).positions.tolist() == [1, 2, 3, 4, 6]
    blocked[0, 3] = True
    assert mask_words(**made, blocked=blocked, **everything).positions.tolist() == [4, 6]
    assert mask_words(**made, blocked=blocked, **everything, whole_words=False).positions.tolist() == [1, 2, 4, 6]
    assert mask_words(**made, blocked=blocked, **{**RULES, "probability": 0.0}).positions.tolist() == []


def test_shares() -> None:
    random = np.random.default_rng(0)
    shape = 400, 100
    ids = random.integers(5, SIZE, shape)
    ids[:, 0], ids[:, -1] = CLS, SEP
    begins = random.random(shape) < 0.5
    none = np.zeros(shape, dtype=bool)
    ones = np.ones(shape, dtype=np.int64)
    found = mask_words(ids, begins, none, mixed(7, np.arange(shape[0])), attention=ones, **RULES)
    count = len(found.positions)
    assert abs(count / (ids.size - 2 * len(ids)) - 0.15) < 0.01
    after = found.input_ids.reshape(-1)[found.positions]
    assert abs((after == MASK).mean() - 0.8) < 0.02
    assert abs((after == found.labels).mean() - 0.1) < 0.02
    # a word is drawn whole: what continues a drawn token is drawn
    drawn = np.zeros(ids.size, dtype=bool)
    drawn[found.positions] = True
    drawn = drawn.reshape(shape)
    inside = ~begins[:, 2:-1]
    assert (drawn[:, 2:-1] == drawn[:, 1:-2])[inside].all()
