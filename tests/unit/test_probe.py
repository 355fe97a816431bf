"""The probe: which facts are asked, how prompts become token ids, when an answer is right, and its figures."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from kbench.config.probing import Choose, Decoder, ProbeOptions, Scorer
from kbench.data.records import Records
from kbench.engine.recipe import Precision
from kbench.engine.runtime import Runtime
from kbench.errors import DataError
from kbench.metrics.probing import FACTS, fact_scores
from kbench.tasks.probe import ANSWER, Probe, read

WORDS = [
    "x",
    "lives",
    "in",
    ".",
    "paris",
    "new",
    "york",
    "u",
    "s",
    "rome",
    "berlin",
    "ann",
    "bob",
    "ber",
    "##lin",
    "the",
]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "city"]
OPTIONS = ProbeOptions(Decoder.independent, 3, 1, Choose.sum, Scorer.full, None)
RELATIONS = ["P19", "P20"]


def bert_tokenizer() -> PreTrainedTokenizerFast:
    """WordPiece, as BERT's; lower case."""
    made = Tokenizer(models.WordPiece({word: place for place, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    return PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=40, **special)


def xlmr_tokenizer() -> PreTrainedTokenizerFast:
    """Unigram with a mark for spaces, as XLM-R's; its mask token takes the space before it."""
    pieces = [
        "<s>",
        "<pad>",
        "</s>",
        "<unk>",
        *(f"▁{word}" for word in ("x", "lives", "in", "paris", ".", "")),
        "a",
        "x",
    ]
    vocabulary = [(piece, -float(place)) for place, piece in enumerate([*pieces, "は", "。"])]
    made = Tokenizer(models.Unigram(vocabulary, unk_id=3))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    made.post_processor = processors.BertProcessing(("</s>", 2), ("<s>", 0))
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>"}
    mask = AddedToken("<mask>", lstrip=True, special=True)
    return PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=40, mask_token=mask, **names)


def fact(prompt: str, gold: str, *names: str, subject: str = "Ann", relation: str = "P19") -> list[str]:
    return [prompt, gold, subject, "Q1", relation, "Q2", *names]


def records_of(folder: Path, facts: list[list[str]], groups: dict[str, list[int]] | None = None) -> Records:
    """Facts as the rows of a data set."""
    folder.mkdir(exist_ok=True)
    types = [pa.int64(), pa.list_(pa.string()), pa.int32()]
    columns = [list(range(len(facts))), facts, [RELATIONS.index(one[4]) for one in facts]]
    table = pa.table([pa.array(c, t) for c, t in zip(columns, types, strict=True)], ["row", "text", "label"])
    with pa.OSFile(str(folder / "test.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    info: dict[str, Any] = {"rows": {"test": len(facts)}, "layout": "facts", "content": "0"}
    if groups:
        info["groups"] = {"test": groups}
    (folder / "records.json").write_text(json.dumps(info))
    return Records(folder)


class Answers(nn.Module):
    """A model that fills so many masks with so many words, {number of masks: [(word, logit)]}."""

    def __init__(self, by_count: dict[int, list[tuple[str, float]]]):
        super().__init__()
        self.by_count, self.config, self.seen = by_count, SimpleNamespace(model_type="written"), []
        self.eval()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        logits = torch.zeros(*input_ids.shape, len(VOCABULARY))
        for row, (ids, there) in enumerate(zip(input_ids, attention_mask, strict=True)):
            self.seen.append(ids[there == 1].tolist())
            places = (ids == VOCABULARY.index("[MASK]")).nonzero()[:, 0].tolist()
            for place, (word, logit) in zip(places, self.by_count[len(places)], strict=True):
                logits[row, place, VOCABULARY.index(word)] = logit
        return SimpleNamespace(logits=logits)


def task(**options: Any) -> Probe:
    return Probe(RELATIONS, list(FACTS), dataclasses.replace(OPTIONS, **options))


def probed(model: nn.Module, records: Records, runtime: Any = None, **options: Any) -> np.ndarray:
    ready = runtime or Runtime(eval_batch_size=4)
    return task(**options).probe(model, bert_tokenizer(), records, "test", ready, Precision.fp32)


NEW_YORK = {1: [("paris", 3.0)], 2: [("new", 4.0), ("york", 4.5)], 3: [("the", 3.0), ("u", 3.0), ("s", 3.0)]}


# When an answer is right.


@pytest.mark.parametrize(
    ("gold", "names", "full", "strict"),
    [
        ("New York", [], True, True),
        ("NEW YORK", [], True, True),
        ("Rome", ["Berlin", "new york"], True, False),
        ("Rome", ["York", "New", "New York City", "Paris"], False, False),
    ],
)
def test_an_answer_is_right_if_it_is_a_name(
    gold: str, names: list[str], full: bool, strict: bool, tmp_path: Path
) -> None:
    records = records_of(tmp_path, [fact("Ann lives in [Y] .", gold, *names)])
    for scorer, right in ((Scorer.full, full), (Scorer.strict, strict)):
        (answer,) = probed(Answers(NEW_YORK), records, longest=2, scorer=scorer, choose=Choose.mean)
        assert (answer["text"], answer["tokens"], answer["correct"]) == ("new york", 2, right)


def test_a_name_is_compared_as_the_tokenizer_spells_it(tmp_path: Path) -> None:
    """BERT splits U.S.; both sides are read back from tokens. Names with unknown pieces count for nothing."""
    script = {1: [("[UNK]", 9.0)], 2: [("u", 1.0), (".", 1.0)], 3: [("u", 1.0), (".", 1.0), ("s", 1.0)]}
    records = records_of(
        tmp_path, [fact("Ann lives in [Y]", "Rome", "U.S", "🌍"), fact("Ann lives in [Y]", "Rome", "🌍")]
    )
    unknown = probed(Answers(script), records)
    assert unknown["text"].tolist() == ["[UNK]", "[UNK]"]
    assert not unknown["correct"].any()
    script[1] = [("x", -9.0)]
    script[3] = [("u", 9.0), (".", 9.0), ("s", 9.0)]
    assert probed(Answers(script), records)["correct"].tolist() == [True, False]


def test_sum_and_mean_choose_different_numbers_of_masks(tmp_path: Path) -> None:
    """One token of log-probability -1 has the larger sum, two of -0.7 the larger mean."""
    records = records_of(tmp_path, [fact("Ann lives in [Y] .", "Paris", "New York")])
    size = len(VOCABULARY) - 1

    def logit(logprob: float) -> float:  # of a word among `size` others with logit 0
        share = np.exp(logprob)
        return float(np.log(share * size / (1 - share)))

    script = {1: [("paris", logit(-1.0))], 2: [("new", logit(-0.6)), ("york", logit(-0.8))]}
    for choose, tokens, logprob in ((Choose.sum, 1, -1.0), (Choose.mean, 2, -0.7)):
        (answer,) = probed(Answers(script), records, longest=2, choose=choose)
        assert answer["tokens"] == tokens
        assert answer["logprob"] == pytest.approx(logprob, abs=1e-5)
    # of equal ones the fewest masks
    script = {1: [("paris", logit(-0.5))], 2: [("new", logit(-0.5)), ("york", logit(-0.5))]}
    assert probed(Answers(script), records, longest=2, choose=Choose.mean)["tokens"] == [1]


# Which facts are asked.


def test_facts_with_an_unknown_token_are_not_asked(tmp_path: Path) -> None:
    facts = [
        fact("Ann lives in [Y] .", "Rome"),
        fact("Ann lives in [Y] .", "Roma"),
        fact("Eve lives in [Y] .", "Rome", subject="Eve"),
        fact("Ann wohnt in [Y] .", "Rome"),  # the words of the prompt may be unknown
        fact("Ann [MASK] lives in [Y] .", "Rome", subject="Ann [MASK]"),
        fact("Ann lives in [Y] .", "New York"),
    ]
    answers = probed(Answers(NEW_YORK), records_of(tmp_path, facts))
    assert answers["used"].tolist() == [True, False, False, True, False, True]
    assert answers["unknown"].tolist() == [False, True, True, False, True, False]
    assert answers["single"][answers["used"]].tolist() == [True, True, False]
    assert (answers["tokens"][~answers["used"]] == 0).all()
    with pytest.raises(DataError, match="no fact can be asked"):
        probed(Answers(NEW_YORK), records_of(tmp_path / "none", facts[1:3]))


def test_a_language_of_which_nothing_can_be_asked_is_named(tmp_path: Path) -> None:
    facts = [fact("Ann lives in [Y] .", "Rome"), fact("Ann lives in [Y] .", "Roma"), fact("Ann [Y] .", "Romo")]
    records = records_of(tmp_path, facts, {"en": [0, 1], "it": [1, 3]})
    with pytest.raises(DataError, match=r"no fact in it can be asked: .*\n? *\(?take another backbone") as raised:
        probed(Answers(NEW_YORK), records)
    assert "data.zero_shot.tested" in str(raised.value)


def test_long_prompts_are_cut_but_not_their_masks(tmp_path: Path) -> None:
    facts = [
        fact("Ann lives in [Y] in the city .", "Rome"),
        fact("Ann lives in the city in the city in [Y] .", "Rome"),
        fact("Ann [Y] .", "Rome"),
    ]
    records, model = records_of(tmp_path, facts), Answers(NEW_YORK)
    probe = task()
    runtime = Runtime(eval_batch_size=4)
    answers = probe.probe(model, bert_tokenizer(), records, "test", runtime, Precision.fp32, max_length=9)
    assert answers["used"].tolist() == [True, False, True]
    assert not answers["unknown"].any()
    spelt = [" ".join(VOCABULARY[one] for one in ids) for ids in model.seen]
    assert "[CLS] ann lives in [MASK] in [SEP]" in spelt
    assert "[CLS] ann lives in [MASK] [MASK] [MASK] in [SEP]" in spelt
    assert max(len(ids) for ids in model.seen) == 9
    assert probe.diagnostics(answers, records, "test")["too_long"] == pytest.approx(1 / 3)


# How prompts become token ids.


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("made", [bert_tokenizer, xlmr_tokenizer])
def test_masks_stand_as_in_the_text_of_the_benchmark(made: Any, count: int, tmp_path: Path) -> None:
    """One mask repeated is the text with so many masks and spaces between, for tokenizers like BERT's and XLM-R's."""
    tokenizer = made()
    facts = [
        fact("x lives in [Y] .", "paris", subject="x"),
        fact("[Y] x .", "paris", subject="x"),
        fact("xは[Y]x。", "paris", subject="x"),
        fact("x ' [Y]", "paris", subject="x"),
    ]
    asked = task(longest=count)._asked(tokenizer, records_of(tmp_path, facts), "test", 40)
    ids, attention = asked.batch(np.arange(len(facts)), count, tokenizer.pad_token_id)
    for row, one in enumerate(facts):
        told = one[0].replace("[Y]", " ".join([tokenizer.mask_token] * count))
        assert ids[row][attention[row] == 1].tolist() == tokenizer(told)["input_ids"]
        assert (ids[row][attention[row] == 0] == tokenizer.pad_token_id).all()


def test_tokens_are_read_back_as_text() -> None:
    tokenizer = bert_tokenizer()
    assert read(tokenizer, tokenizer.convert_tokens_to_ids(["ber", "##lin", "new"])) == "berlin new"
    xlmr = xlmr_tokenizer()
    assert read(xlmr, xlmr.convert_tokens_to_ids(["▁in", "a", "▁paris"])) == "ina paris"


# A whole split.


class Part:
    """One of two processes, one after the other: the second gathers what the first has found."""

    def __init__(self, rank: int, board: list[Any]):
        self.rank, self.processes, self.eval_batch_size, self._board = rank, 2, 3, board
        self.device = torch.device("cpu")
        self.autocast = Runtime(eval_batch_size=3).autocast

    def check_stop(self) -> None: ...

    def gather(self, items: list[Any]) -> list[Any]:
        self._board += items
        return list(self._board)


@pytest.fixture(scope="module")
def tiny() -> nn.Module:
    torch.manual_seed(1)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    return BertForMaskedLM(
        BertConfig(vocab_size=len(VOCABULARY), initializer_range=0.9, tie_word_embeddings=False, **shape)
    ).eval()


def split(folder: Path) -> Records:
    """Facts of several lengths and of two languages."""
    places = ["Rome", "Paris", "New York", "Berlin", "the city", "York"]
    facts = []
    for row in range(30):
        subject, middle = ["Ann", "Bob", "x", "u s", "Berlin"][row % 5], "in the city " * (row % 4)
        prompt, names = f"{subject} lives {middle}in [Y] .", (places[row % 6], places[(row + 1) % 6])
        facts.append(fact(prompt, *names, subject=subject, relation=RELATIONS[row % 2]))
    return records_of(folder, facts, {"en": [0, 18], "fr": [18, 30]})


@pytest.mark.parametrize(("decoder", "iterations"), [(Decoder.independent, 1), (Decoder.confidence, 6)])
def test_two_processes_find_what_one_finds(decoder: Decoder, iterations: int, tiny: nn.Module, tmp_path: Path) -> None:
    records = split(tmp_path)
    alone = probed(tiny, records, decoder=decoder, iterations=iterations)
    board: list[Any] = []
    probed(tiny, records, Part(0, board), decoder=decoder, iterations=iterations)
    both = probed(tiny, records, Part(1, board), decoder=decoder, iterations=iterations)
    assert len(set(alone["text"].tolist())) > 3
    for name in ANSWER.names or ():
        if name == "logprob":
            assert both[name] == pytest.approx(alone[name], abs=1e-5)
        else:
            assert (both[name] == alone[name]).all()


def test_one_fact_at_a_time_gives_the_same(tiny: nn.Module, tmp_path: Path) -> None:
    records = split(tmp_path / "all")
    together = probed(tiny, records)
    facts = records.pieces("test")
    for row in (0, 7, 29):
        (alone,) = probed(tiny, records_of(tmp_path / str(row), [facts[row]]))
        assert (alone["text"], alone["tokens"]) == (together[row]["text"], together[row]["tokens"])
        assert alone["logprob"] == pytest.approx(together[row]["logprob"], abs=1e-5)


def test_a_model_in_train_mode_is_refused(tiny: nn.Module, tmp_path: Path) -> None:
    tiny.train()
    try:
        with pytest.raises(ValueError, match="train mode"):
            probed(tiny, split(tmp_path))
    finally:
        tiny.eval()


def test_metrics_predictions_and_diagnostics_of_languages(tmp_path: Path) -> None:
    records = split(tmp_path)
    answers = probed(Answers({1: [("rome", 9.0)], 2: NEW_YORK[2], 3: NEW_YORK[3]}), records)
    gold = np.array([one[1] for one in records.pieces("test")])
    second = np.array([one[6] for one in records.pieces("test")])
    right = (gold == "Rome") | (second == "Rome")
    assert answers["correct"].tolist() == right.tolist()
    probe = task()
    relation = np.arange(30) % 2
    assert probe.gold(records, "test")[0].tolist() == relation.tolist()
    assert probe.gold(records, "test", np.array([1, 4]))[0].tolist() == [1, 0]
    measured = probe.measure(answers, records, "test")
    for lang, rows in (("en", slice(0, 18)), ("fr", slice(18, 30))):
        each = [right[rows][relation[rows] == one].mean() for one in (0, 1)]
        assert measured[f"accuracy/{lang}"] == pytest.approx(np.mean(each))
        assert measured[f"micro/{lang}"] == pytest.approx(right[rows].mean())
    assert measured["accuracy"] == pytest.approx((measured["accuracy/en"] + measured["accuracy/fr"]) / 2)
    figures = probe.diagnostics(answers, records, "test")
    assert (figures["asked"], figures["unknown_token/fr"], figures["too_long/en"]) == (1, 0, 0)
    assert figures["one_token"] == pytest.approx(np.isin(gold, ["Rome", "Paris", "Berlin", "York"]).mean())
    lines = list(probe.predictions(answers, records, "test"))
    assert lines[5] == {
        "row": 5, "relation": "P20", "prompt": "Ann lives in the city in [Y] .", "gold": "York", "predicted": "rome",
        "tokens": 1, "logprob": pytest.approx(answers["logprob"][5]), "correct": True, "used": True,
    }  # fmt: skip
    answers["used"][5] = False
    assert list(probe.predictions(answers, records, "test"))[5]["predicted"] is None


# Metrics by hand.


def test_metrics_by_hand() -> None:
    """Relation 0: 1 of 2 right (a third is not used); 1: 1 of 1; 2 has no facts."""
    correct = np.array([True, False, True, True])
    relation, used = np.array([0, 0, 0, 1]), np.array([True, True, False, True])
    single = np.array([True, False, True, False])
    assert fact_scores(correct, relation, used, single, 3) == {
        "accuracy": pytest.approx(0.75),
        "micro": pytest.approx(2 / 3),
        "single": 1.0,
        "multi": pytest.approx(0.5),  # 0 of relation 0, 1 of relation 1
    }
    assert fact_scores(correct, relation, np.zeros(4, bool), single, 3) == dict.fromkeys(FACTS, 0.0)


# Options.


def test_options_that_go_together_are_no_problem() -> None:
    assert OPTIONS.check() == []
    assert ProbeOptions(Decoder.confidence, 5, 10, Choose.mean, Scorer.strict, None).check() == []


@pytest.mark.parametrize(
    ("options", "where"),
    [
        (ProbeOptions(Decoder.independent, 5, 10, Choose.sum, Scorer.full, None), "iterations"),
        (ProbeOptions(Decoder.confidence, 5, 4, Choose.sum, Scorer.full, None), "iterations"),
        (ProbeOptions(Decoder.independent, 0, 1, Choose.sum, Scorer.full, None), "longest"),
        (ProbeOptions(Decoder.independent, 101, 1, Choose.sum, Scorer.full, None), "longest"),
    ],
)
def test_options_that_do_not(options: ProbeOptions, where: str) -> None:
    (problem,) = options.check("data.probing")
    assert problem.where == f"data.probing.{where}"
