"""Words of sentences as units: records, first tokens, batches, scores, means over words, what was cut off, metrics."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from kbench import registry
from kbench.backbones.load import load_tokenizer
from kbench.config.compose import compose
from kbench.data.encode import Encoded, encode_stage
from kbench.data.records import Records, records_stage
from kbench.data.source import locate
from kbench.data.units import unit_counts, units_of
from kbench.engine.feed import Feed, unit_logits
from kbench.engine.loop import fit
from kbench.engine.predict import predict, sample
from kbench.engine.recipe import Precision, Recipe, Schedule, Selection
from kbench.engine.runtime import Runtime
from kbench.metrics.tagging import entity_scores
from kbench.runs.prepare import prepare
from kbench.runs.stored import stored_method
from kbench.stages.store import Store
from kbench.tasks.tagging import Tagging

from ..conftest import bench_of, in_process, points, small_bert

# Records.

FILES = {
    "eng.train": "-DOCSTART- -X- -X- O\n\nJo NNP I-NP I-PER\nSmith NNP I-NP I-PER\nsaw VBD I-VP O\n"
    "Paris NNP I-NP I-LOC\n\nno DT O O\n\nUN NNP I-NP I-ORG\nUN NNP I-NP B-ORG\n",
    "eng.testa": "Rome NNP I-NP I-LOC\n",
    "eng.testb": "a DT O O\nb DT O I-MISC\n",
}


def read(folder: Path, *overrides: str, **files: str) -> Records:
    """The records of CoNLL 2003 made of a few sentences."""
    place = folder / "in"
    place.mkdir(exist_ok=True)
    for name, text in (FILES | files).items():
        (place / name).write_text(text)
    data = compose(["method=finetune", "data=conll2003", "backbone=tiny", f"data.path={place}", *overrides]).data
    return Records(Store(folder / "out").get(records_stage(data, locate(data))))


def test_labels_of_sentences_are_flat_and_ends_say_where_each_ends(tmp_path: Path) -> None:
    records = read(tmp_path)
    assert records.tagged and records.info["layout"] == "words" and records.splits == ("train", "validation", "test")
    assert records.pieces("train") == [["Jo", "Smith", "saw", "Paris"], ["no"], ["UN", "UN"]]
    assert records.pieces("train", 1, 2) == [["no"]]
    assert records.texts("train") == ["Jo Smith saw Paris", "no", "UN UN"]
    # O, B-PER, I-PER, B-MISC, I-MISC, B-ORG, I-ORG, B-LOC, I-LOC; the files are IOB1
    assert records.labels("train").tolist() == [1, 2, 0, 7, 0, 5, 5]
    assert records.labels("train").dtype == records.ends("train").dtype == np.int64
    assert records.ends("train").tolist() == [4, 5, 7]
    assert records.numbers("train").tolist() == [0, 1, 2]
    assert (records.labels("test").tolist(), records.ends("test").tolist()) == ([0, 3], [2])
    assert records.info["classes"]["train"] == {"PER": 1, "MISC": 0, "ORG": 2, "LOC": 1}


def test_a_subset_of_sentences_keeps_words_and_labels_together(tmp_path: Path) -> None:
    whole, part = read(tmp_path), read(tmp_path, "data.train_size=2")
    chosen = part.numbers("train")
    assert part.rows("train") == len(chosen) == 2
    assert part.pieces("train") == [whole.pieces("train")[row] for row in chosen]
    assert part.labels("train").tolist() == whole.labels("train")[units_of(whole.ends("train"), chosen)].tolist()


def test_other_words_tags_or_sentence_ends_have_other_content(tmp_path: Path) -> None:
    texts = ["a b O\nc O\n", "a O\nb c O\n", "a O\nb O\nc O\n", "a O\nb O\n\nc O\n", "a O\nb O\nc B-LOC\n"]
    texts = [text.replace(" O", "\tO").replace(" B", "\tB") for text in texts]
    found = [read(tmp_path, **{"eng.train": text}).content for text in texts]
    assert len(set(found)) == len(texts)


def naive_units(ends: list[int], rows: list[int]) -> list[int]:
    found = []
    for row in rows:
        start = ends[row - 1] if row else 0
        found += range(start, ends[row])
    return found


@pytest.mark.parametrize("case", range(30))
def test_units_of_rows_equal_the_naive_ones(case: int) -> None:
    rng = random.Random(case)
    counts = [rng.randint(0 if case % 2 else 1, 6) for _ in range(rng.randint(1, 12))]
    ends = np.cumsum(counts)
    rows = np.array([rng.randrange(len(counts)) for _ in range(rng.randint(0, 20))], dtype=np.int64)
    assert unit_counts(ends, rows).tolist() == [counts[row] for row in rows]
    assert units_of(ends, rows).tolist() == naive_units(ends.tolist(), rows.tolist())


def test_a_text_is_one_unit() -> None:
    ends, rows = np.arange(1, 6), np.array([4, 0, 2])
    assert unit_counts(ends, rows).tolist() == [1, 1, 1]
    assert units_of(ends, rows).tolist() == [4, 0, 2]


# First tokens.


@pytest.mark.parametrize("longest", [64, 12, 4])
def test_a_word_is_read_at_its_first_token_and_a_word_that_was_cut_off_nowhere(longest: int, tmp_path: Path) -> None:
    # more rows than are encoded at once
    sizes = ["data.train_size=1100", "data.test_size=20", "backbone.tiny.vocabulary=330"]
    words = ["method=finetune", "data=toy_entities", *sizes, f"data.max_length={longest}", f"outputs={tmp_path}"]
    bench = bench_of(prepare(compose(words)))
    encoded, sentences = bench.encoded("train"), bench.records.pieces("train")
    assert encoded.starts is not None and len(encoded) == 1100
    assert np.array_equal(encoded.unit_ends, bench.records.ends("train"))
    assert encoded.lengths.max() <= longest
    padded = encoded.padded(np.arange(len(encoded)), 0)
    assert set(padded) == {"input_ids", "attention_mask"}
    ids, mask = padded["input_ids"], padded["attention_mask"]
    pieces = cut = 0
    for row, sentence in enumerate(sentences):
        starts = encoded.starts[encoded.unit_ends[row] - len(sentence) : encoded.unit_ends[row]].tolist()
        last = int(mask[row].sum()) - 1  # [SEP]
        kept = [start for start in starts if start >= 0]
        assert starts == kept + [-1] * (len(sentence) - len(kept)), "what is cut off is at the end"
        assert kept[0] == 1 and kept == sorted(set(kept)) and kept[-1] < last
        for word, start, stop in zip(sentence, kept, [*kept[1:], last], strict=False):
            spelt = bench.tokenizer.decode(ids[row, start:stop].tolist()).strip()
            assert spelt == word or (stop == last and len(kept) <= len(sentence) and word.startswith(spelt))
            pieces += stop - start
        if len(kept) < len(sentence):
            assert encoded.lengths[row] == longest
            cut += 1
        else:
            assert len(kept) == len(sentence)
    assert pieces > (1.5 if longest > 4 else 1.2) * (encoded.starts >= 0).sum(), "words have several tokens"
    assert (cut > 0) == (longest < 64)


def test_a_word_of_which_the_tokenizer_makes_nothing_is_read_at_an_unknown_token(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(small_bert(tmp_path / "model", ["a", "##b", "c"]))
    # zero-width letters are taken away
    records = read(tmp_path, **{"eng.train": "abb O\n\u200b O\nc B-LOC\nxyz O\n\n\u200b O\n\u200d O\n\nc O\n"})
    folder = Store(tmp_path / "out").get(encode_stage(records, lambda _: tokenizer, "a tokenizer", 16))
    encoded = Encoded(folder, "train")
    assert encoded.starts is not None
    ids = [[2, 5, 6, 6, 1, 7, 1, 3], [2, 1, 1, 3] + [0] * 4, [2, 7, 3] + [0] * 5]
    assert encoded.padded(np.arange(3), 0)["input_ids"].tolist() == ids
    assert encoded.starts.tolist() == [1, 4, 5, 6, 1, 2, 1]
    assert encoded.unknown == 4 / 9, "special tokens are not counted"
    feed = Feed(encoded, np.arange(3), 0)
    assert feed.weights.tolist() == [4, 2, 1]
    assert feed.units == 7
    assert feed.batch(np.array([1, 2]), torch.device("cpu"))["row_units"].tolist() == [2, 1]
    # like any other word it may be cut off
    short = Encoded(Store(tmp_path / "out").get(encode_stage(records, lambda _: tokenizer, "a tokenizer", 5)), "train")
    assert short.starts is not None and short.starts.tolist() == [1, -1, -1, -1, 1, 2, 1]
    assert Feed(short, np.arange(3), 0).weights.tolist() == [1, 2, 1]


# Batches and scores.

Rows = list[tuple[int, list[int]]]  # tokens of a row, place of each word's first token


def made(folder: Path, rows: Rows) -> Encoded:
    """Rows whose token ids say where they stand: 1000 * (row + 1) + place."""
    folder.mkdir(exist_ok=True)
    ids = [1000 * (row + 1) + place for row, (length, _) in enumerate(rows) for place in range(length)]
    np.array(ids, dtype=np.int32).tofile(folder / "train.ids")
    np.cumsum([length for length, _ in rows]).astype(np.int64).tofile(folder / "train.ends")
    np.array([start for _, starts in rows for start in starts], dtype=np.int32).tofile(folder / "train.starts")
    np.cumsum([len(starts) for _, starts in rows]).astype(np.int64).tofile(folder / "train.units")
    (folder / "encoded.json").write_text(
        json.dumps({"sequences": 1, "tokens": {"train": {"all": len(ids), "unknown": 0}}})
    )
    return Encoded(folder, "train")


@pytest.fixture
def rows() -> Rows:
    """40 sentences; of some the last words were cut off, of some a word in the middle was not read, of three all."""
    rng = random.Random(7)
    found = []
    for row in range(40):
        words = rng.randint(1, 9)
        starts, place = [], 1
        for _ in range(words):
            nothing = rng.random() < 0.1 or row in (5, 6, 30)
            starts.append(-1 if nothing else place)
            place += 0 if nothing else rng.randint(1, 4)
        if rng.random() < 0.3:
            cut = rng.randint(1, words)
            starts[-cut:] = [-1] * cut
        found.append((place + 1, starts))
    return found


def expected(rows: Rows, chosen: list[int]) -> list[int]:
    """The id of the token at which each word is read, 0 where it is not."""
    return [1000 * (row + 1) + start if start >= 0 else 0 for row in chosen for start in rows[row][1]]


class Places(nn.Module):
    """A model whose scores say at which token of which row they were read, and, in train mode, something random."""

    config = SimpleNamespace(num_labels=3)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        assert input_ids.shape == attention_mask.shape
        noise = torch.rand(input_ids.shape) if self.training else torch.zeros(input_ids.shape)
        return SimpleNamespace(logits=torch.stack([input_ids.float(), input_ids.float() % 1000, noise], -1))


CHOSEN = [31, 2, 5, 39, 0, 17, 30, 8, 9, 21, 4]


def test_a_batch_has_a_line_for_each_word_that_is_read(rows: Rows, tmp_path: Path) -> None:
    encoded = made(tmp_path / "e", rows)
    units = np.arange(int(encoded.unit_ends[-1]))
    feed = Feed(encoded, np.array(CHOSEN), 0, {"unit": units, "pair": np.stack([units, -units], 1)})
    weights = [sum(start >= 0 for start in rows[row][1]) for row in CHOSEN]
    assert feed.weights.tolist() == weights
    assert feed.units == sum(len(rows[row][1]) for row in CHOSEN)
    for positions in (np.array([3]), np.array([2, 0, 6, 10]), np.arange(11), np.array([2, 6])):
        batch = feed.batch(positions, torch.device("cpu"))
        picked = [CHOSEN[position] for position in positions]
        read = [i for i, place in enumerate(expected(rows, picked)) if place]
        tokens = [place for place in expected(rows, picked) if place]
        assert batch["input_ids"].flatten()[batch["units"]].tolist() == tokens
        assert batch["row_units"].tolist() == [weights[position] for position in positions]
        own = naive_units(encoded.unit_ends.tolist(), picked)
        assert batch["unit"].tolist() == [own[i] for i in read]
        assert batch["pair"].tolist() == [[own[i], -own[i]] for i in read]
        logits = Places().eval()(batch["input_ids"], batch["attention_mask"]).logits
        assert unit_logits(logits, batch)[:, 0].tolist() == tokens
        # and with an axis of samples in front
        assert unit_logits(torch.stack([logits, -logits]), batch)[1, :, 0].tolist() == [-token for token in tokens]
        lines = naive_units(np.cumsum([len(rows[row][1]) for row in CHOSEN]).tolist(), positions.tolist())
        assert feed.seen(positions).tolist() == [lines[i] for i in read]


def test_a_column_with_a_line_for_each_row_is_refused(rows: Rows, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"column label has 40 lines, the split \d+ units"):
        Feed(made(tmp_path / "e", rows), np.arange(40), 0, {"label": np.zeros(40)})


def test_words_may_be_left_out_as_if_they_were_cut_off(rows: Rows, tmp_path: Path) -> None:
    encoded = made(tmp_path / "e", rows)
    unread = np.random.default_rng(0).random(int(encoded.unit_ends[-1])) < 0.4
    chosen, units = np.array(CHOSEN), iter(unread)
    cut = [(length, [-1 if next(units) else start for start in starts]) for length, starts in rows]
    harmed = Feed(made(tmp_path / "c", cut), chosen, 0)
    feed = Feed(encoded, chosen, 0, unread=unread)
    assert feed.weights.tolist() == harmed.weights.tolist() != Feed(encoded, chosen, 0).weights.tolist()
    for positions in (np.arange(11), np.array([4, 1, 7])):
        assert feed.seen(positions).tolist() == harmed.seen(positions).tolist()
        ours, theirs, every = (
            one.batch(positions, torch.device("cpu")) for one in (feed, harmed, Feed(encoded, chosen, 0))
        )
        assert set(ours) == set(theirs)
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs if name != "unit_stops")
        # a word ends where it ended: the tokens of one left out are not its neighbour's
        stops = dict(zip(every["units"].tolist(), every["unit_stops"].tolist(), strict=True))
        assert ours["unit_stops"].tolist() == [stops[unit] for unit in ours["units"].tolist()]


@pytest.mark.parametrize("size", [1, 3, 16, 64])
def test_predictions_stand_on_the_line_of_their_word_whatever_the_batch(size: int, rows: Rows, tmp_path: Path) -> None:
    encoded = made(tmp_path / "e", rows)
    for chosen in (list(range(40)), CHOSEN):
        feed = Feed(encoded, np.array(chosen), 0)
        scores = predict(Places().eval(), feed, Runtime(eval_batch_size=size), Precision.fp32)
        places = expected(rows, chosen)
        assert scores.shape == (len(places), 3) and scores.dtype == np.float32
        assert scores[:, 0].tolist() == places, "zeros where a word was cut off"
        assert scores[:, 1].tolist() == [place % 1000 for place in places]


def test_samples_stand_on_the_line_of_their_word(rows: Rows, tmp_path: Path) -> None:
    encoded = made(tmp_path / "e", rows)
    for chosen in (list(range(40)), CHOSEN):
        feed = Feed(encoded, np.array(chosen), 0)
        options: Any = {"samples": 5, "seed": 3, "path": tmp_path / "train.npy", "tell": lambda done, total: None}
        model = Places().eval()
        sample(model, feed, Runtime(), Precision.fp32, **options)
        assert not model.training
        found = np.load(tmp_path / "train.npy")
        places = np.array(expected(rows, chosen))
        assert found.shape == (len(places), 5, 3)
        assert (found[:, :, 0] == places[:, None]).all()
        assert (found[places == 0] == 0).all()
        noise = found[places > 0, :, 2]
        assert len(np.unique(noise)) == noise.size, "a mask of its own for each word and sample"
        (tmp_path / "train.npy").unlink()


# The mean over words.

RECIPE = Recipe(
    epochs=2,
    max_steps=None,
    lr=0.05,
    schedule=Schedule.constant,
    warmup=0.0,
    warmup_steps=None,
    adam_epsilon=1e-8,
    adam_beta2=0.999,
    weight_decay=0.0,
    clip=1.0,
    global_batch_size=8,
    length_pool=0,
    precision=Precision.fp32,
    eval_every=100,
    selection=Selection.last,
    patience=None,
)


class Tagger(nn.Module):
    """An embedding, what the whole row says, one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(97, 8)
        self.out = nn.Linear(16, 5)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        states = self.embedding(input_ids % 97)
        mask = attention_mask[..., None]
        mean = (states * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True)
        return SimpleNamespace(logits=self.out(torch.cat([states, mean.expand_as(states)], -1)))


def tagger_loss(model: nn.Module, batch: Any) -> dict[str, torch.Tensor]:
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return {"cross_entropy": cross_entropy(unit_logits(logits, batch), batch["label"])}


class Notes:
    """A report that remembers the losses."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def log(self, scope: str, step: int, values: Any) -> None:
        self.losses.append(values["loss"])

    def progress(self, scope: str, step: int, total: int, values: Any) -> None: ...

    def rewind(self, scope: str, step: int) -> None: ...

    def note(self, text: str) -> None: ...


def trained(feed: Feed, folder: Path, micro: int, recipe: Recipe = RECIPE) -> tuple[nn.Module, list[float]]:
    torch.manual_seed(0)
    model, notes = Tagger(), Notes()
    runtime = Runtime(micro_batch_size=micro, checkpoint_seconds=1e9)
    fit(model, feed, tagger_loss, recipe, runtime, seed=1, folder=folder, report=notes, log_every=1)
    return model, notes.losses


def learnable(rows: Rows, encoded: Encoded) -> Feed:
    labels = np.random.default_rng(0).integers(0, 5, int(encoded.unit_ends[-1]))
    read = np.array([any(start >= 0 for start in starts) for _, starts in rows])
    assert 0 < (~read).sum() < 12
    return Feed(encoded, np.flatnonzero(read), 0, {"label": labels})


def test_the_loss_is_the_mean_over_words_whatever_the_micro_batch(rows: Rows, tmp_path: Path) -> None:
    feed = learnable(rows, made(tmp_path / "e", rows))
    (whole, losses), *others = [trained(feed, tmp_path / str(micro), micro) for micro in (8, 2, 3, 1)]
    assert len(set(feed.weights.tolist())) > 4
    for model, found in others:
        assert found == pytest.approx(losses, rel=1e-5)
        for name, weight in model.state_dict().items():
            assert torch.allclose(weight, whole.state_dict()[name], atol=1e-4), name


def test_the_loss_of_a_step_is_that_of_all_its_words_at_once(rows: Rows, tmp_path: Path) -> None:
    feed = learnable(rows, made(tmp_path / "e", rows))
    once = replace(RECIPE, global_batch_size=len(feed), max_steps=1)
    _, (loss,) = trained(feed, tmp_path / "c", 4, once)
    torch.manual_seed(0)
    whole = tagger_loss(Tagger(), feed.batch(np.arange(len(feed)), torch.device("cpu")))["cross_entropy"]
    assert loss == pytest.approx(float(whole.detach()), rel=1e-5)


# What was cut off.


@pytest.mark.parametrize(
    "method",
    [["method=finetune", "train.max_steps=1"], ["method=vanilla_kd"], ["method=ensemble"], ["method=teacher"]],
    ids=lambda words: words[0],
)
def test_words_that_were_cut_off_are_o(method: list[str], toy: Callable) -> None:
    run, _ = toy(*method, "data.max_length=8", data="toy_entities")
    bench = bench_of(run)
    starts = bench.encoded("test").starts
    lines = [json.loads(line) for line in (run.folder / "predictions.jsonl").read_text().splitlines()]
    assert [line["words"] for line in lines] == bench.records.pieces("test")
    predicted = np.array([tag for line in lines for tag in line["predicted"]])
    gold = np.array([tag for line in lines for tag in line["gold"]])
    assert (starts < 0).any() and (predicted[starts < 0] == "O").all()
    assert (gold[starts < 0] != "O").any() and (predicted[starts >= 0] != "O").any()


def test_words_that_were_cut_off_are_no_part_of_the_share_of_right_teachers(toy: Callable) -> None:
    run, result = toy("method=muki", "data.max_length=8", data="toy_entities")
    method: Any = stored_method(run)
    bench = bench_of(run)
    units = units_of(bench.records.ends("train"), bench.split[0])
    own = method.teachers.owner[bench.records.labels("train")[units]]
    read = (own >= 0) & (bench.encoded("train").starts[units] >= 0)
    assert 0 < read.sum() < (own >= 0).sum()
    right = method.certainty[units[read]].argmax(1) == own[read]
    assert result.diagnostics["right_teacher_share"] == pytest.approx(right.mean())


@pytest.mark.parametrize("method", ["finetune", "uhc", "muki", "dfa"])
def test_a_sentence_of_which_no_word_is_read_is_not_learnt_from(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone in a micro batch it would have a loss that is no number."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name in FILES:
        sentences = [f"a O\n{'b' * n} I-{kind}\n" for n, kind in enumerate(["PER", "MISC", "ORG", "LOC"], start=1)]
        (folder / name).write_text("\n".join([*sentences, "a I-PER\n", "b O\na O\n"]))
    model = small_bert(tmp_path / "model", ["a", "b", "##b"])
    words = [f"method={method}", "data=conll2003", f"data.path={folder}", f"backbone.path={model}"]
    words += ["train=quick", "train@teacher=quick_teacher", "train.epochs=2", "teacher.epochs=1", "log_every=1"]
    words += ["train.global_batch_size=2", "teacher.global_batch_size=2", "hardware.micro_batch_size=1"]
    # no tokenizer cuts off a first word: the method says that it cannot use these
    unread = np.arange(11) >= 8
    monkeypatch.setattr(registry.load("method", method), "unread", lambda self, split: unread)
    run, result = in_process(words, tmp_path / "out")
    assert result.training["steps"] == 2 * 2, "4 of 6 sentences"
    losses = [point["loss"] for point in points(run, "train" if method == "finetune" else "student")]
    assert len(losses) == 4 and np.isfinite(losses).all()
    predicted = [json.loads(line)["predicted"] for line in (run.folder / "predictions.jsonl").read_text().splitlines()]
    assert [len(tags) for tags in predicted] == [2, 2, 2, 2, 1, 2], "what is judged is what it was"
    bench = bench_of(run)
    labels = {"label": bench.records.labels("train")}
    assert bench.lessons(np.arange(6), labels).rows.tolist() == list(range(6))
    feed = bench.lessons(np.arange(6), labels, unread=unread)
    assert feed.rows.tolist() == [0, 1, 2, 3] and feed.weights.tolist() == [2, 2, 2, 2]
    # of a sentence of which some words are read, these are learnt
    some = bench.lessons(np.array([5, 4, 0]), labels, unread=unread & (np.arange(11) != 10))
    assert some.rows.tolist() == [5, 0] and some.weights.tolist() == [1, 2]
    assert some.batch(np.array([0]), torch.device("cpu"))["label"].tolist() == [labels["label"][10]]


# Metrics.


def spans(tags: list[str]) -> set[tuple[int, int, str]]:
    """The entities of a sentence, as conlleval reads them: an I- that continues nothing begins one."""
    found, start, kind = set(), 0, ""
    for place, tag in enumerate([*tags, "O"]):
        if kind and (tag == "O" or tag[0] == "B" or tag[2:] != kind):
            found.add((start, place, kind))
            kind = ""
        if tag != "O" and not kind:
            start, kind = place, tag[2:]
    return found


def counted(predicted: list[list[str]], gold: list[list[str]]) -> dict[str, float]:
    pairs = [(spans(p), spans(g)) for p, g in zip(predicted, gold, strict=True)]
    right, ours, theirs = (sum(map(len, column)) for column in zip(*((p & g, p, g) for p, g in pairs), strict=True))
    precision, recall = right / ours if ours else 0.0, right / theirs if theirs else 0.0
    f1 = 2 * precision * recall / (precision + recall) if right else 0.0
    return {"f1": f1, "precision": precision, "recall": recall}


def test_entity_scores_of_a_worked_example() -> None:
    gold = [["B-PER", "I-PER", "O", "B-LOC"], ["B-ORG", "O"], ["O"]]
    # the person is right, the place is missed, an I- begins the organisation; one entity is invented
    predicted = [["B-PER", "I-PER", "O", "O"], ["I-ORG", "O"], ["B-LOC"]]
    scores = entity_scores(predicted, gold)
    assert scores == pytest.approx({"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3})
    # too long, too short, of another type: all wrong
    assert entity_scores([["B-PER", "I-PER", "I-PER"]], [["B-PER", "I-PER", "O"]])["f1"] == 0
    assert entity_scores([["B-PER", "O"]], [["B-PER", "I-PER"]])["f1"] == 0
    assert entity_scores([["B-LOC", "I-LOC"]], [["B-PER", "I-PER"]])["f1"] == 0


def test_entity_scores_where_there_is_nothing() -> None:
    nothing = {"f1": 0.0, "precision": 0.0, "recall": 0.0}
    assert entity_scores([["O", "O"]], [["O", "O"]]) == nothing
    assert entity_scores([["B-PER", "O"]], [["O", "O"]]) == nothing
    assert entity_scores([["O", "O"]], [["B-PER", "O"]]) == nothing


OUTPUTS = ["O", "B-PER", "I-PER", "B-MISC", "I-MISC", "B-ORG", "I-ORG"]


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize("case", range(10))
def test_entity_scores_equal_seqeval_and_a_count_by_hand(case: int) -> None:
    from seqeval.metrics import f1_score, precision_score, recall_score

    rng = np.random.default_rng(case)
    ends = np.cumsum(rng.integers(1, 12, size=25))
    gold = rng.integers(0, len(OUTPUTS), int(ends[-1])) * (rng.random(int(ends[-1])) < 0.6)
    guess = np.where(rng.random(len(gold)) < 0.7, gold, rng.integers(0, len(OUTPUTS), len(gold)))
    scores = np.eye(len(OUTPUTS))[guess] + 0.1 * rng.random((len(gold), len(OUTPUTS)))
    task = Tagging(OUTPUTS, ["f1", "precision", "recall"])
    found = task.score(scores, gold, ends)

    def sentences(labels: np.ndarray) -> list[list[str]]:
        return [[OUTPUTS[label] for label in part] for part in np.split(labels, ends[:-1])]

    tags: Callable = sentences
    assert found == pytest.approx(counted(tags(guess), tags(gold)), abs=1e-12)
    for name, measure in {"f1": f1_score, "precision": precision_score, "recall": recall_score}.items():
        assert found[name] == measure(tags(gold), tags(guess))
    assert task.main_score(scores, gold, ends) == found["f1"]
    assert Tagging(OUTPUTS, ["recall"]).score(scores, gold, ends) == {"recall": found["recall"]}
    # as one long sentence, entities would run on over its end
    assert task.score(scores, gold, ends[-1:]) != found


def test_a_tagger_of_some_types_calls_the_others_o() -> None:
    task = Tagging(OUTPUTS, ["f1"])
    assert task.known([0, 2]) == [0, 1, 2, 5, 6] and task.known([1]) == [0, 3, 4]
    assert task.local([0, 3, 4]).tolist() == [0, 0, 0, 1, 2, 0, 0]


def test_a_finished_tagger_may_have_o_anywhere() -> None:
    task = Tagging(OUTPUTS, ["f1"])
    assert task.local([4, 3, 0]).tolist() == [2, 2, 2, 1, 0, 2, 2]
