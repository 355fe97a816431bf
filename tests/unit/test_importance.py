"""Cosines of texts with and without a mention against one text at a time; stored in pieces, continued, shared out."""

from __future__ import annotations

import json
import math
import threading
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel

from kbench.engine import predict
from kbench.engine.recipe import Precision
from kbench.engine.runtime import Runtime
from kbench.errors import InterruptedRunError
from kbench.knowledge import importance
from kbench.knowledge.importance import POOLINGS, REPLACEMENTS, Replacing, cosines, importance_stage, write_importance
from kbench.knowledge.linked import LINKED, Linked
from kbench.knowledge.tokens import Vocabulary
from kbench.stages.stage import Stage
from kbench.stages.store import Store

CLS, PAD, SEP, UNK, MASK, SIZE = 0, 1, 2, 3, 4, 90
VOCABULARY = Vocabulary(CLS, SEP, MASK, PAD, UNK, (5,), (CLS, PAD, SEP, UNK, MASK), SIZE)
CPU = torch.device("cpu")
LONGEST = 24

Sequence = tuple[list[int], list[tuple[int, int, int]]]  # tokens; start, stop and entity of mentions


def write_linked(folder: Path, sequences: list[Sequence]) -> Linked:
    """Sequences as `kbench.knowledge.linked` stores them; places count the special token in front."""
    ids = [token for tokens, _ in sequences for token in tokens]
    np.array(ids, dtype=np.int32).tofile(folder / "sequences.ids")
    np.cumsum([len(tokens) for tokens, _ in sequences]).astype(np.int64).tofile(folder / "sequences.ends")
    np.ones(len(ids), dtype=np.uint8).tofile(folder / "sequences.begins")
    rows = [(row, *mention, row, 0) for row, (_, mentions) in enumerate(sequences) for mention in mentions]
    np.save(folder / "mentions.npy", np.array(rows, dtype=LINKED))
    np.save(folder / "mention_ends.npy", np.cumsum([len(mentions) for _, mentions in sequences]).astype(np.int64))
    np.save(folder / "counts.npy", np.bincount(ids, minlength=SIZE))
    (folder / "linked.json").write_text("{}")
    return Linked(folder)


def texts(count: int = 40, seed: int = 1) -> list[Sequence]:
    """Sequences of several lengths, of which some have no mention, and some one that the graph does not know."""
    random = np.random.default_rng(seed)
    found: list[Sequence] = [([7, 8], [(1, 3, 4)])]  # nothing but the mention
    for number in range(count):
        tokens = random.integers(6, SIZE, random.integers(6, LONGEST - 1)).tolist()
        starts = range(1, len(tokens) - 2, 5)[: number % 4]
        mentions = [(a, a + int(random.integers(1, 4)), int(random.integers(-1, 6))) for a in starts]
        found.append((tokens, mentions))
    return found


@pytest.fixture(scope="module", params=["bert", "roberta"])
def model(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(2)
    shape: dict[str, Any] = {"vocab_size": SIZE, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    shape |= {"intermediate_size": 48, "max_position_embeddings": 40, "pad_token_id": PAD}
    made = {"bert": BertModel, "roberta": RobertaModel}[request.param]
    config = {"bert": BertConfig, "roberta": RobertaConfig}[request.param]
    # far from 0, so that texts differ
    return made(config(**shape, initializer_range=0.3), add_pooling_layer=False).eval()


@pytest.fixture
def linked(tmp_path: Path) -> Linked:
    folder = tmp_path / "linked"
    folder.mkdir()
    return write_linked(folder, texts())


# The second implementation: one text at a time, in lists.


def naive_vector(model: Any, tokens: list[int], pooling: str) -> np.ndarray:
    with torch.no_grad():
        states = model(input_ids=torch.tensor([[CLS, *tokens, SEP]])).last_hidden_state[0].double().numpy()
    if pooling == "cls":
        return np.asarray(states[0])
    return np.asarray(states[1:-1].mean(0)) if tokens else np.zeros(states.shape[1])


def naive_cosine(model: Any, before: list[int], after: list[int], pooling: str) -> float:
    a, b = (naive_vector(model, tokens, pooling) for tokens in (before, after))
    norms = math.sqrt(a @ a) * math.sqrt(b @ b)
    return float(a @ b / norms) if norms else 0.0


def naive_without(tokens: list[int], start: int, stop: int, replacement: str) -> list[int]:
    middle = {"mask": [MASK] * (stop - start), "unk": [UNK] * (stop - start), "delete": []}[replacement]
    return [*tokens[: start - 1], *middle, *tokens[stop - 1 :]]


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("replacement", ["mask", "unk", "delete"])
def test_cosines_are_those_of_single_texts(replacement: str, pooling: str, model: Any, linked: Linked) -> None:
    everything = np.arange(len(linked.mentions))
    found = cosines(model, VOCABULARY, linked, everything, Replacing(replacement, pooling), CPU)
    assert found.dtype == np.float32 and found.shape == everything.shape
    known = 0
    for mention, cosine in zip(linked.mentions.tolist(), found.tolist(), strict=True):
        sequence, start, stop, entity, *_ = mention
        if entity < 0:
            assert math.isnan(cosine)
            continue
        tokens = linked.sequence(sequence).tolist()
        expected = naive_cosine(model, tokens, naive_without(tokens, start, stop, replacement), pooling)
        assert cosine == pytest.approx(expected, abs=2e-5)
        known += 1
    assert 30 < known < len(found)
    assert np.nanstd(found) > 0.01, "texts differ"
    if (replacement, pooling) == ("delete", "mean"):
        assert found[0] == 0, "nothing is left of the first"
    # in another order, and a part of them
    some = everything[::-3]
    assert np.allclose(
        cosines(model, VOCABULARY, linked, some, Replacing(replacement, pooling), CPU),
        found[some],
        atol=1e-5,
        equal_nan=True,
    )


def test_a_text_that_does_not_change_has_cosine_one(model: Any, tmp_path: Path) -> None:
    same = write_linked(tmp_path, [([9, MASK, MASK, 30, 12], [(2, 4, 5), (4, 5, 1)])])
    for pooling in POOLINGS:
        found = cosines(model, VOCABULARY, same, np.arange(2), Replacing("mask", pooling), CPU)
        assert found[0] == pytest.approx(1, abs=1e-6) and found[1] < 0.9999


def test_another_entitys_mention_stands_there(model: Any, linked: Linked) -> None:
    """Which mention is drawn is taken from the module; that it is drawn right, and put in its place, is checked."""
    rules = Replacing("random_entity", seed=3)
    numbers = np.flatnonzero(linked.mentions["entity"] >= 0)
    drawn = importance._others(linked, linked.mentions["entity"][numbers], numbers, rules.seed)
    assert (drawn >= 0).all() and (linked.mentions["entity"][drawn] >= 0).all()
    assert (linked.mentions["entity"][drawn] != linked.mentions["entity"][numbers]).all()
    found = cosines(model, VOCABULARY, linked, numbers, rules, CPU)
    longest, lengths = int(linked.lengths.max()), set()
    for number, other, cosine in zip(numbers.tolist(), drawn.tolist(), found.tolist(), strict=True):
        mention, donor = linked.mentions[number], linked.mentions[other]
        tokens = linked.sequence(int(mention["sequence"])).tolist()
        theirs = linked.sequence(int(donor["sequence"])).tolist()[donor["start"] - 1 : donor["stop"] - 1]
        changed = [*tokens[: mention["start"] - 1], *theirs, *tokens[mention["stop"] - 1 :]]
        lengths.add(len(changed) - len(tokens))
        assert cosine == pytest.approx(naive_cosine(model, tokens, changed[: longest - 2], "mean"), abs=2e-5)
    assert {-1, 0, 1} <= lengths
    again = cosines(model, VOCABULARY, linked, numbers[5:9], rules, CPU)
    assert np.allclose(again, found[5:9], atol=1e-5), "a function of the mention, not of the batch"
    assert not np.allclose(
        cosines(model, VOCABULARY, linked, numbers, Replacing("random_entity", seed=4), CPU), found, atol=1e-3
    )


def test_a_longer_mention_cuts_the_text(model: Any, tmp_path: Path) -> None:
    donor = list(range(20, 30))
    made = write_linked(
        tmp_path, [([10, 11, 12, 13, 14, 15, 16], [(6, 7, 0)]), (donor, [(1, 11, 1)]), ([10, 11], [(2, 3, 0)])]
    )
    found = cosines(model, VOCABULARY, made, np.arange(3), Replacing("random_entity"), CPU)
    first, last = made.sequence(0).tolist(), made.sequence(2).tolist()
    # ten tokens at most, as the longest has
    assert found[0] == pytest.approx(naive_cosine(model, first, [*first[:5], *donor[:5]], "mean"), abs=2e-5)
    assert found[2] == pytest.approx(naive_cosine(model, last, [10, *donor[:9]], "mean"), abs=2e-5)


def test_where_there_is_no_other_entity_the_mask_stands(model: Any, tmp_path: Path) -> None:
    alone = write_linked(tmp_path, [([9, 8, 7, 30], [(2, 4, 5)]), ([9, 9, 12], [(1, 2, 5), (2, 3, -1)])])
    for_mask, for_other = (
        cosines(model, VOCABULARY, alone, np.arange(3), Replacing(kind), CPU) for kind in ("mask", "random_entity")
    )
    assert np.array_equal(for_mask, for_other, equal_nan=True) and np.isnan(for_mask[2])


def test_mentions_are_drawn_as_often_as_they_occur(tmp_path: Path) -> None:
    sequences: list[Sequence] = [
        ([9] * 6, [(1, 2, 0), (2, 3, 1), (3, 4, 1), (4, 5, 1), (5, 6, -1)]) for _ in range(400)
    ]
    made = write_linked(tmp_path, [*sequences, ([9] * 6, [(1, 2, 2), (2, 3, 3)] * 3)])
    numbers = np.arange(2000)
    drawn = importance._others(made, made.mentions["entity"][numbers], numbers, 1)
    of_unknown = Counter(made.mentions["entity"][drawn[made.mentions["entity"][numbers] == -1]].tolist())
    assert set(of_unknown) <= {0, 1, 2, 3} and 0.68 < of_unknown[1] / 400 < 0.82


def test_the_tokens_of_a_replaced_text(tmp_path: Path) -> None:
    made = write_linked(tmp_path, [([10, 11, 12, 13, 14], [(2, 4, 0)]), ([20, 21, 22], [(1, 4, 1)]), ([9] * 6, [])])

    def rows(replacement: str) -> list[list[int]]:
        replaced = importance._replaced(made, np.asarray(made.mentions), np.arange(2), Replacing(replacement))
        ids, attention = replaced.padded(made, VOCABULARY, np.array([1, 0]))
        assert attention.tolist() == [[int(token != PAD) for token in row] for row in ids.tolist()]
        assert replaced.lengths[[1, 0]].tolist() == attention.sum(1).tolist()
        return ids.tolist()

    assert rows("mask") == [[CLS, MASK, MASK, MASK, SEP, PAD, PAD], [CLS, 10, MASK, MASK, 13, 14, SEP]]
    assert rows("unk") == [[CLS, UNK, UNK, UNK, SEP, PAD, PAD], [CLS, 10, UNK, UNK, 13, 14, SEP]]
    assert rows("delete") == [[CLS, SEP, PAD, PAD, PAD], [CLS, 10, 13, 14, SEP]]
    # the other one's, of two and three tokens; the longest has eight
    assert rows("random_entity") == [[CLS, 11, 12, SEP, PAD, PAD, PAD, PAD], [CLS, 10, 20, 21, 22, 13, 14, SEP]]


def test_nothing_but_padding_stands_behind_a_text(tmp_path: Path) -> None:
    made = write_linked(tmp_path, [([10, 11, 12, 13, 14], [(2, 4, 0), (4, 5, 1)])])
    replaced = importance._replaced(made, np.asarray(made.mentions), np.arange(2), Replacing("delete"))
    ids, attention = replaced.padded(made, VOCABULARY, np.arange(2))
    assert ids.tolist() == [[CLS, 10, 13, 14, SEP, PAD], [CLS, 10, 11, 12, 14, SEP]]
    assert attention.tolist() == [[1, 1, 1, 1, 1, 0], [1] * 6]


def test_it_is_checked_before_every_pass(linked: Linked, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(predict.PASS_TOKENS, "cpu", 1)  # one text each
    calls: list[int] = []
    cosines(model, VOCABULARY, linked, np.arange(8), Replacing(), CPU, check=lambda: calls.append(1))
    known = linked.mentions[:8][linked.mentions["entity"][:8] >= 0]
    assert len(calls) == len(known) + len(np.unique(known["sequence"]))


def test_a_model_in_train_mode_is_refused(model: Any, linked: Linked) -> None:
    model.train()
    try:
        with pytest.raises(ValueError, match="the encoder is in train mode"):
            cosines(model, VOCABULARY, linked, np.arange(2), Replacing(), CPU)
    finally:
        model.eval()


def test_mistakes_are_named() -> None:
    assert Replacing("delete", "cls") and len(REPLACEMENTS) == 4
    with pytest.raises(ValueError, match="no such replacement: drop"):
        Replacing("drop")
    with pytest.raises(ValueError, match="no such pooling: max"):
        Replacing(pooling="max")


# Stored in pieces.


def write(model: Any, linked: Linked, folder: Path, runtime: Any, **more: Any) -> np.ndarray:
    folder.mkdir(exist_ok=True)
    write_importance(linked, model, VOCABULARY, Replacing(), Precision.fp32, runtime, folder, **more)
    return np.asarray(np.load(folder / "cosine.npy"))


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importance, "_BLOCK_TOKENS", 150)
    monkeypatch.setitem(predict.PASS_TOKENS, "cpu", 60)


def test_blocks_hold_every_sequence_once(small_blocks: None, linked: Linked, tmp_path: Path) -> None:
    edges = importance._blocks(linked)
    assert edges[0] == 0 and edges[-1] == len(linked) and len(edges) > 8 and (np.diff(edges) > 0).all()
    counts = np.diff(linked.mention_ends, prepend=0)
    costs = np.where(counts > 0, (counts + 1) * linked.lengths, 0)
    sums = [int(costs[a:b].sum()) for a, b in pairwise(edges.tolist())]
    assert max(sums) < 150 + int(costs.max())
    (tmp_path / "one").mkdir()
    one = write_linked(tmp_path / "one", [([9] * 400, [(1, 2, 0), (3, 4, 0)])])
    assert importance._blocks(one).tolist() == [0, 1]


def test_a_folder_holds_all_cosines_and_what_there_is_to_say(
    small_blocks: None, model: Any, linked: Linked, tmp_path: Path
) -> None:
    told: list[tuple[int, int]] = []
    found = write(model, linked, tmp_path / "work", Runtime(), tell=lambda done, blocks: told.append((done, blocks)))
    blocks = len(importance._blocks(linked)) - 1
    assert told == [(place + 1, blocks) for place in range(blocks)]
    expected = cosines(model, VOCABULARY, linked, np.arange(len(linked.mentions)), Replacing(), CPU)
    assert np.allclose(found, expected, atol=1e-5, equal_nan=True)
    assert {path.name for path in (tmp_path / "work").iterdir()} == {"cosine.npy", "importance.json"}
    info = json.loads((tmp_path / "work" / "importance.json").read_text())
    known = found[~np.isnan(found)]
    assert info["mentions"] == len(found) and info["known"] == len(known) < len(found)
    assert [info[name] for name in ("mean", "lowest", "highest")] == pytest.approx(
        [known.astype(float).mean(), known.min(), known.max()], rel=1e-6
    )


def test_a_stopped_build_continues_with_the_same_bytes(
    small_blocks: None, model: Any, linked: Linked, tmp_path: Path
) -> None:
    whole = write(model, linked, tmp_path / "whole", Runtime())
    runtime, told = Runtime(), []

    def stop_at_third(done: int, blocks: int) -> None:
        told.append(done)
        if done == 3:
            runtime.stop.set()

    with pytest.raises(InterruptedRunError):
        write(model, linked, tmp_path / "work", runtime, tell=stop_at_third)
    assert told == [1, 2, 3]
    runtime = Runtime()
    found = write(model, linked, tmp_path / "work", runtime, tell=lambda done, blocks: told.append(done))
    assert told == list(range(1, len(importance._blocks(linked)))), "no block twice"
    assert found.tobytes() == whole.tobytes()
    for name in ("cosine.npy", "importance.json"):
        assert (tmp_path / "work" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_it_ends_between_passes_where_it_is_asked_to(model: Any, linked: Linked, tmp_path: Path) -> None:
    runtime = Runtime()
    runtime.stop = threading.Event()
    runtime.stop.set()
    with pytest.raises(InterruptedRunError):
        write(model, linked, tmp_path / "work", runtime)


def test_two_processes_write_what_one_writes(small_blocks: None, model: Any, linked: Linked, tmp_path: Path) -> None:
    whole, one = write(model, linked, tmp_path / "whole", Runtime()), Runtime()
    seen: dict[int, list[int]] = {0: [], 1: []}
    meet = threading.Barrier(2)

    def of_rank(rank: int) -> None:
        runtime = SimpleNamespace(
            rank=rank, processes=2, is_main=rank == 0, barrier=meet.wait, device=CPU, stop=threading.Event(),
            autocast=one.autocast, check_stop=lambda: None,
        )  # fmt: skip
        folder = tmp_path / "work"
        rules = (VOCABULARY, Replacing(), Precision.fp32, runtime, folder)
        write_importance(linked, model, *rules, tell=lambda done, blocks: seen[rank].append(done))  # type: ignore[arg-type]

    (tmp_path / "work").mkdir()
    threads = [threading.Thread(target=of_rank, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert np.load(tmp_path / "work" / "cosine.npy").tobytes() == whole.tobytes()
    assert all(done % 2 == 1 for done in seen[0]) and all(done % 2 == 0 for done in seen[1])
    assert len(seen[0]) + len(seen[1]) == len(importance._blocks(linked)) - 1 and seen[1]


def test_without_mentions_there_is_an_empty_file(model: Any, tmp_path: Path) -> None:
    none = write_linked(tmp_path, [([9, 8], []), ([7], [])])
    assert write(model, none, tmp_path / "work", Runtime()).shape == (0,)
    assert json.loads((tmp_path / "work" / "importance.json").read_text()) == {"mentions": 0, "known": 0}


# The stage.


def stage_of(sequences: list[Sequence], model: Any, rules: Replacing, **more: Any) -> Stage:
    def build(work: Path, folders: Mapping[str, Path]) -> None:
        write_linked(work, sequences)

    special = {"cls_token_id": CLS, "bos_token_id": None, "sep_token_id": SEP, "eos_token_id": None}
    special |= {"mask_token_id": MASK, "pad_token_id": PAD, "unk_token_id": UNK}

    class Tokenizer(SimpleNamespace):
        def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
            return {"input_ids": [9 for _ in text.split()]}

        def __len__(self) -> int:
            return SIZE

    tokenizer = Tokenizer(all_special_ids=list(VOCABULARY.special), **special)
    linked = Stage("linked_tokens", 1, {"of": "a test"}, build, alone=True)
    given: dict[str, Any] = {"precision": Precision.fp32, "runtime": Runtime(), **more}
    backbone = given.pop("backbone", "files:abc")
    return importance_stage(linked, backbone, lambda folder: model, lambda folder: tokenizer, rules, **given)


def test_the_stage_holds_what_the_function_gives(model: Any, linked: Linked, tmp_path: Path) -> None:
    model.requires_grad_(True)
    folder = Store(tmp_path / "stages").get(stage_of(texts(), model, Replacing("unk", "cls")))
    expected = cosines(model, VOCABULARY, linked, np.arange(len(linked.mentions)), Replacing("unk", "cls"), CPU)
    assert np.array_equal(np.load(folder / "cosine.npy"), expected, equal_nan=True)
    assert not model.training and not any(weight.requires_grad for weight in model.parameters())


def test_a_stage_is_named_by_all_that_changes_it() -> None:
    def key(rules: Replacing = Replacing(), **more: Any) -> str:  # noqa: B008
        return stage_of([], None, rules, **more).key

    others = [
        key(Replacing("unk")),
        key(Replacing("random_entity")),
        key(Replacing("random_entity", seed=2)),
        key(Replacing(pooling="cls")),
        key(precision=Precision.bf16),
        key(drawn=1),
        key(backbone="files:def"),
        key(backbone=Stage("tiny", 1, {}, lambda work, folders: None)),
    ]
    assert len({key(), *others}) == len(others) + 1
    assert key() == key(Replacing(seed=2)) == key(runtime=None), "the seed is random_entity's alone"
