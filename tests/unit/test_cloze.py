"""LAMA's way of asking: which words count, which facts are asked, the restricted answer, LAMA-UHN, and its metrics."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from kbench.config.compose import compose
from kbench.config.probing import Choose, Decoder, LamaOptions, ProbeOptions, Scorer, Words
from kbench.data.records import Records
from kbench.engine.recipe import Precision
from kbench.engine.runtime import Runtime
from kbench.errors import DataError, UserError
from kbench.metrics.probing import FACTS, METRICS, lama_scores
from kbench.tasks.cloze import choices, folder_of, masked, own_words, told, word_ids
from kbench.tasks.guessing import guessed
from kbench.tasks.probe import Probe

OUTPUTS = ["place_of_birth", "date_of_birth", "P19", "P27", "P36", "P31", "squad"]
WORDS = ["Rome", "Oslo", "Paris", "London", "Italy", "France", "city", "was", "born", "in", "the", "Ann", "Jean", "Bo"]
WORDS += ["is", "a", "common", "name", "following", "country", "1941", "citizen", "capital", "of", "The"]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, ".", ":", "(", ")", "Ber", "##lin", "##don", "-"]
VOCABULARY += [f"[unused{number}]" for number in range(120 - len(VOCABULARY))]
MODEL = LamaOptions(Words.model, None, None, False, None)


def bert_tokenizer() -> PreTrainedTokenizerFast:
    """WordPiece, cased, as that of bert-base-cased."""
    made = Tokenizer(models.WordPiece({word: place for place, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    return PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=40, **special)


def byte_tokenizer(as_roberta: bool, texts: list[str] | None = None) -> PreTrainedTokenizerFast:
    """Byte-level BPE: RoBERTa's way, whose mask takes the space before it, or as kbench builds it for tiny."""
    names = ["<s>", "<pad>", "</s>", "<unk>"]
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=not as_roberta)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=names, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator(texts or [f"x {word} (born {word})." for word in WORDS], trainer)
    made.post_processor = (
        processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
        if as_roberta
        else processors.BertProcessing(("</s>", 2), ("<s>", 0))
    )
    special = {"bos_token": "<s>", "cls_token": "<s>", "pad_token": "<pad>", "sep_token": "</s>", "unk_token": "<unk>"}
    mask = AddedToken("<mask>", lstrip=as_roberta, special=True)
    return PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=40, mask_token=mask, **special)


def fact(prompt: str, gold: str, subject: str, relation: str) -> list[str]:
    return [prompt, gold, subject, "Q1", relation, "Q2"]


def records_of(folder: Path, facts: list[list[str]], words: list[str] | None = None) -> Records:
    folder.mkdir(exist_ok=True)
    types = [pa.int64(), pa.list_(pa.string()), pa.int32()]
    columns = [list(range(len(facts))), facts, [OUTPUTS.index(one[4]) for one in facts]]
    table = pa.table([pa.array(c, t) for c, t in zip(columns, types, strict=True)], ["row", "text", "label"])
    with pa.OSFile(str(folder / "test.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    (folder / "records.json").write_text(json.dumps({"rows": {"test": len(facts)}, "layout": "facts", "content": "0"}))
    if words is not None:
        (folder / "words.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    return Records(folder)


class Says(nn.Module):
    """A model that gives words logits at the mask, by a word of its prompt: {word: {answer: logit}}."""

    def __init__(self, by_word: dict[str, dict[str, float]]):
        super().__init__()
        self.by_word, self.config, self.seen = by_word, SimpleNamespace(model_type="written"), []
        self.eval()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        logits = torch.zeros(*input_ids.shape, len(VOCABULARY))
        for row, ids in enumerate(input_ids.tolist()):
            self.seen.append([VOCABULARY[one] for one in ids if one])
            (place,) = [place for place, one in enumerate(ids) if one == VOCABULARY.index("[MASK]")]
            for word, answers in self.by_word.items():
                if word in self.seen[-1]:
                    for answer, logit in answers.items():
                        logits[row, place, VOCABULARY.index(answer)] = logit
        return SimpleNamespace(logits=logits)


def options(lama: LamaOptions = MODEL) -> ProbeOptions:
    return ProbeOptions(Decoder.independent, 1, 1, Choose.sum, Scorer.strict, lama)


def task(*metrics: str, lama: LamaOptions = MODEL) -> Probe:
    return Probe(OUTPUTS, list(metrics or ("google_re", "t_rex", "uhn_google_re", "uhn_t_rex")), options(lama))


def probed(probe: Probe, model: nn.Module, records: Records, **more: Any) -> np.ndarray:
    ready = more.pop("runtime", None) or Runtime(eval_batch_size=3)
    tokenizer = more.pop("tokenizer", None) or bert_tokenizer()
    return probe.probe(model, tokenizer, records, "test", ready, Precision.fp32, **more)


# Which words count.


def test_words_of_bert_are_whole_pieces_with_a_letter_or_digit() -> None:
    tokenizer = bert_tokenizer()
    assert list(own_words(tokenizer)) == [*WORDS, "Ber"]
    assert word_ids(tokenizer, ["Rome", "rome", "Berlin", "New York", ".", "[MASK]", "##lin"]).tolist() == [
        VOCABULARY.index("Rome"), -1, -1, -1, VOCABULARY.index("."), -1, -1,
    ]  # fmt: skip


@pytest.mark.parametrize("as_roberta", [True, False])
def test_words_of_byte_level_tokenizers_begin_with_their_space(as_roberta: bool) -> None:
    tokenizer = byte_tokenizer(as_roberta)
    (found,) = word_ids(tokenizer, ["London"]).tolist()
    assert tokenizer.convert_ids_to_tokens(found) == "ĠLondon"
    own = own_words(tokenizer)
    assert set(WORDS) <= set(own)
    assert all(tokenizer.convert_ids_to_tokens(one).startswith("Ġ") for one in own.values())


def test_a_lower_casing_tokenizer_keeps_no_name() -> None:
    """It reads London back as london: the gold label would be another word."""
    tokenizer = byte_tokenizer(True, ["x london rome"])
    from tokenizers import normalizers

    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    assert word_ids(tokenizer, ["London", "london"])[0] == -1
    assert word_ids(tokenizer, ["London", "london"])[1] >= 0


def test_answers_come_from_the_model_the_list_or_what_tokenizers_share(tmp_path: Path) -> None:
    tokenizer = bert_tokenizer()

    def named(vocabulary: Words, words: list[str] | None = None, of: list[str] | None = None) -> list[str]:
        ids = choices(tokenizer, LamaOptions(vocabulary, None, of, False, None), words)
        assert ids.tolist() == sorted(ids.tolist())
        return [VOCABULARY[one] for one in ids]

    assert named(Words.model) == [*WORDS, "Ber"]
    assert named(Words.lama, ["Oslo", "Berlin", "Rome", "Vienna"]) == ["Rome", "Oslo"]
    byte_tokenizer(True).save_pretrained(tmp_path / "first")
    byte_tokenizer(True, ["x Rome Oslo Paris Ber"]).save_pretrained(tmp_path / "second")
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    assert named(Words.shared, of=[first]) == WORDS  # Ber is two of its tokens
    assert named(Words.shared, of=[second]) == ["Rome", "Oslo", "Paris", "Ber"]
    both = ["Rome", "Oslo", "Paris"]
    assert named(Words.shared, of=[first, second]) == named(Words.shared, of=[second, first]) == both


def test_a_tokenizer_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match=r"data\.probing\.lama\.vocabulary_of.*no folder, no hub id"):
        folder_of("bert_bsae", "vocabulary_of", weights=False)
    with pytest.raises(DataError, match="tiny is built from the data and knows no words"):
        folder_of("tiny", "vocabulary_of", weights=False)


# How prompts become token ids.

PROMPTS = ["Ann was born in [Y] .", "Ann (born [Y]).", "The capital of [Y] is Rome .", "Rome was in [Y]."]


@pytest.mark.parametrize("made", [bert_tokenizer, lambda: byte_tokenizer(True)])
def test_masks_stand_as_in_a_text_with_the_mask(made: Any) -> None:
    """With BERT's and RoBERTa's tokenizers the text of the template gives the same, as LAMA's code has it."""
    tokenizer = made()
    names = ["Oslo", "1941", "Italy", "Rome"]
    found = told(tokenizer, PROMPTS, names, word_ids(tokenizer, names).tolist())
    texts = [prompt.replace("[Y]", tokenizer.mask_token) for prompt in PROMPTS]
    assert found == [tokenizer(text)["input_ids"] for text in texts]
    assert found == [tokenizer(masked(tokenizer, prompt))["input_ids"] for prompt in PROMPTS]


def test_roberta_has_no_space_before_its_mask_and_one_before_the_full_stop() -> None:
    tokenizer = byte_tokenizer(True)
    (ids,) = told(tokenizer, ["x born in [Y] ."], ["Rome"], word_ids(tokenizer, ["Rome"]).tolist())
    spelt = tokenizer.convert_ids_to_tokens(ids)
    assert spelt[spelt.index("<mask>") - 1] == "Ġin"
    assert "".join(spelt[spelt.index("<mask>") + 1 : -1]) == "Ġ."


def test_what_follows_a_mask_is_spelt_as_in_running_text() -> None:
    """kbench's own tokenizers would put a space before it in a text with a mask."""
    tokenizer = byte_tokenizer(False)
    names = ["Oslo", "1941", "Italy", "Rome"]
    found = told(tokenizer, PROMPTS, names, word_ids(tokenizer, names).tolist())
    for prompt, name, ids in zip(PROMPTS, names, found, strict=True):
        full = tokenizer(prompt.replace("[Y]", name))["input_ids"]
        (place,) = [place for place, one in enumerate(ids) if one == tokenizer.mask_token_id]
        assert tokenizer.convert_ids_to_tokens(full[place]) == f"Ġ{name}"
        assert full == [*ids[:place], full[place], *ids[place + 1 :]]
    # where the object is no single token there, the text's own mask stands in the place
    (ids,) = told(tokenizer, ["[Y] was in Rome"], ["Oslo Rome"], [-1])
    assert ids == tokenizer("<mask> was in Rome")["input_ids"]


# Which facts are asked, and what is answered.

FACTS_ASKED = [
    fact("Ann was born in [Y] .", "Rome", "Ann", "place_of_birth"),
    fact("Bo was born in [Y] .", "Oslo", "Bo", "place_of_birth"),
    fact("Ann (born [Y]).", "1941", "Ann", "date_of_birth"),
    fact("Jean Rome was born in [Y] .", "Rome", "Jean Rome", "P19"),
    fact("Jean was born in [Y] .", "Paris", "Jean", "P19"),
    fact("Bo is a citizen of [Y] .", "Berlin", "Bo", "P27"),
    fact("The capital of France is [Y] .", "Paris", "France", "P36"),
    fact("The capital of Italy is [Y] .", "Oslo", "Italy", "P36"),
    fact("The city is in [Y] .", "gold", "Squad", "squad"),
]
SAYS = {
    "Ann": {".": 9.0, "Rome": 5.0, "[MASK]": 7.0, "##lin": 8.0, "Oslo": 4.0},
    "Bo": {"Rome": 3.0},
    "Jean": {"Paris": 3.0, "Rome": 2.0},
    "France": {"Paris": 1.0},
    "Italy": {"Rome": 1.0},
}


def test_a_split_by_hand(tmp_path: Path) -> None:
    """Berlin is two tokens and gold none; dots, masks and ends of words are no answers, however probable they are."""
    probe, model = task(), Says(SAYS)
    records = records_of(tmp_path, FACTS_ASKED)
    answers = probed(probe, model, records)
    assert answers["used"].tolist() == [True, True, True, True, True, False, True, True, False]
    assert answers["text"].tolist() == ["Rome", "Rome", "Rome", "Paris", "Paris", "", "Paris", "Rome", ""]
    assert answers["correct"].tolist() == [True, False, False, False, True, False, True, False, False]
    assert ["[CLS]", "Ann", "(", "born", "[MASK]", ")", ".", "[SEP]"] in model.seen and len(model.seen) == 7
    # among all tokens: e^5 against e^9, e^8, e^7, e^5, e^4 and 115 others
    total = np.log(sum(np.exp([9.0, 8, 7, 5, 4])) + len(VOCABULARY) - 5)
    assert answers["logprob"][0] == pytest.approx(5 - total, abs=1e-5)
    # Google-RE: births 1 of 2, dates 0 of 1; T-REx: P19 1 of 2, P36 1 of 2, P27 has none that is asked
    # without Jean Rome, whose name holds the answer, P19 is 1 of 1
    found = probe.measure(answers, records, "test")
    assert found == {"google_re": 0.25, "t_rex": 0.5, "uhn_google_re": 0.25, "uhn_t_rex": 0.75}
    lines = list(probe.predictions(answers, records, "test"))
    assert lines[3] == {
        "row": 3, "relation": "P19", "prompt": "Jean Rome was born in [Y] .", "gold": "Rome", "predicted": "Paris",
        "tokens": 1, "logprob": pytest.approx(answers["logprob"][3]), "correct": False, "used": True, "easy": True,
    }  # fmt: skip
    assert lines[5]["predicted"] is None and not lines[5]["easy"]


def test_numbers_of_facts_by_hand(tmp_path: Path) -> None:
    probe, records = task(), records_of(tmp_path, FACTS_ASKED)
    found = probe.diagnostics(probed(probe, Says(SAYS), records), records, "test")
    assert found["choices"] == len(WORDS) + 1 and found["uhn_filters"] == 1
    whole = {"of": 9, "kept": 7, "not_single": 2, "not_listed": 0, "not_one_mask": 0, "uhn_of": 8, "uhn_kept": 6}
    assert {name: found[name] for name in whole} == whole
    assert {name: found[f"{name}/t_rex"] for name in ("of", "kept", "uhn_of")} == {"of": 5, "kept": 4, "uhn_of": 4}
    assert {name: found[f"{name}/P19"] for name in ("of", "kept", "uhn_kept")} == {"of": 2, "kept": 2, "uhn_kept": 1}
    assert (found["of/P27"], found["kept/P27"], "precision/P27" in found) == (1, 0, False)
    assert found["precision/place_of_birth"] == 0.5
    # of relations without facts those are named whose corpus is measured
    assert found["missing"] == 1 and found["missing/P31"] == 1
    assert all(isinstance(value, int) for name, value in found.items() if not name.startswith("precision"))


def test_a_list_restricts_facts_and_answers(tmp_path: Path) -> None:
    """Without Rome on the list Ann's second word is the answer, and facts about Rome are not asked."""
    lama = LamaOptions(Words.lama, None, None, False, None)
    probe = task("accuracy", "micro", lama=lama)
    records = records_of(tmp_path, FACTS_ASKED, words=["Oslo", "1941", "Paris", "Vienna"])
    answers = probed(probe, Says(SAYS), records)
    assert answers["used"].tolist() == [False, True, True, False, True, False, True, True, False]
    assert answers["text"].tolist() == ["", "Oslo", "Oslo", "", "Paris", "", "Paris", "Oslo", ""]
    assert probe.diagnostics(answers, records, "test")["not_listed"] == 2
    # of equally probable words the one of the lowest id, here Oslo, which is right for Bo and for Italy
    assert probe.measure(answers, records, "test") == {"accuracy": pytest.approx((1 + 0 + 1 + 1) / 4), "micro": 0.8}


def test_long_prompts_are_cut_but_not_their_mask(tmp_path: Path) -> None:
    facts = [fact("Ann was born in the city in the [Y] .", "Rome", "Ann", "P19"), *FACTS_ASKED[3:5]]
    probe, records = task("t_rex"), records_of(tmp_path, facts)
    answers = probed(probe, Says(SAYS), records, max_length=8)
    assert answers["used"].tolist() == [False, True, True]
    assert probe.diagnostics(answers, records, "test")["not_one_mask"] == 1


def test_a_fact_with_two_masks_is_not_asked(tmp_path: Path) -> None:
    facts = [fact("Ann [MASK] was born in [Y] .", "Rome", "Ann [MASK]", "P19"), *FACTS_ASKED[3:5]]
    facts += [fact("[Y] is in [Y] .", "Rome", "Squad", "squad")]
    assert probed(task("t_rex"), Says(SAYS), records_of(tmp_path, facts))["used"].tolist() == [False, True, True, False]


# Metrics that nothing can be said about.


@pytest.mark.parametrize(
    ("metrics", "facts", "what"),
    [
        (["t_rex", "squad"], FACTS_ASKED[:5], "squad has no facts: there are none of squad"),
        (["google_re", "t_rex"], FACTS_ASKED[:3], "t_rex has no facts: there are none of t_rex"),
        (["t_rex"], FACTS_ASKED[5:6], "t_rex has no facts: no object of theirs is among the words"),
        (["t_rex", "uhn_t_rex"], FACTS_ASKED[3:4], "uhn_t_rex has no facts: .* or each is easy to guess"),
    ],
)
def test_a_metric_over_no_fact_is_refused(metrics: list[str], facts: Any, what: str, tmp_path: Path) -> None:
    model = Says(SAYS)
    with pytest.raises(DataError, match=what) as raised:
        probed(task(*metrics), model, records_of(tmp_path, facts))
    assert [problem.where for problem in raised.value.problems] == ["data.metrics"]
    assert not model.seen, "it is said before the model is asked"


def test_lamas_metrics_are_not_for_facts_asked_another_way(tmp_path: Path) -> None:
    plain = ProbeOptions(Decoder.independent, 1, 1, Choose.sum, Scorer.full, None)
    with pytest.raises(DataError, match="t_rex is LAMA's"):
        probed(Probe(OUTPUTS, ["accuracy", "t_rex"], plain), Says(SAYS), records_of(tmp_path, FACTS_ASKED))


def test_metrics_against_a_second_way() -> None:
    rng = np.random.default_rng(3)
    relation = rng.integers(0, len(OUTPUTS), 400)
    correct, used, easy = (rng.random(400) < share for share in (0.4, 0.7, 0.3))
    used &= relation != OUTPUTS.index("P31")
    found = lama_scores(correct, relation, used, easy, OUTPUTS)
    corpora = {"google_re": OUTPUTS[:2], "t_rex": OUTPUTS[2:6], "squad": OUTPUTS[6:]}
    for begin, names in corpora.items():
        for uhn in (False, True):
            right, there = Counter[str](), Counter[str]()
            for row, index in enumerate(relation.tolist()):
                if used[row] and not (uhn and easy[row]):
                    there[OUTPUTS[index]] += 1
                    right[OUTPUTS[index]] += int(correct[row])
            shares = [right[name] / there[name] for name in names if there[name]]
            if f"{'uhn_' * uhn}{begin}" in METRICS:
                assert found.pop(f"{'uhn_' * uhn}{begin}") == pytest.approx(sum(shares) / len(shares))
    assert found == {}
    assert lama_scores(correct, relation, used & False, easy, OUTPUTS) == {}


# LAMA-UHN's second filter.


def test_facts_that_a_model_guesses_from_a_word_of_the_name(tmp_path: Path) -> None:
    """Among the three best answers, for the relation's own noun, for either word, and for no other relation."""
    model = Says({"Jean": {"France": 5.0, "Paris": 4.0, "Oslo": 3.0, "Rome": 2.0}, "Bo": {"Oslo": 1.0}})
    facts = [
        fact("Jean Bo was born in [Y] .", "Oslo", "Jean Bo", "P19"),
        fact("Ann Bo was born in [Y] .", "Oslo", "Ann Bo", "place_of_birth"),
        fact("Jean was born in [Y] .", "Rome", "Jean", "P19"),  # the fourth
        fact("Jean is a citizen of [Y] .", "France", "Jean", "P27"),
        fact("The capital of Jean is [Y] .", "Oslo", "Jean", "P36"),
        fact("Jean (born [Y]).", "1941", "Jean", "date_of_birth"),
        fact("Jean was born in [Y] .", "Berlin", "Jean", "P19"),
    ]
    found = guessed(model, bert_tokenizer(), records_of(tmp_path, facts), "test", Runtime(eval_batch_size=2))
    assert found.tolist() == [True, True, False, True, False, False, False]
    told = [" ".join(one) for one in model.seen]
    assert "[CLS] Jean is a common name in the following city : [MASK] . [SEP]" in told
    assert "[CLS] Jean is a common name in the following country : [MASK] . [SEP]" in told
    assert len(told) == len(set(told)) == 4  # Jean twice, Bo and Ann once


def masked_model(folder: Path) -> Path:
    """A folder with a small masked language model and the tokenizer of these tests."""
    torch.manual_seed(2)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertForMaskedLM(
        BertConfig(vocab_size=len(VOCABULARY), initializer_range=0.9, tie_word_embeddings=False, **shape)
    ).save_pretrained(folder)
    bert_tokenizer().save_pretrained(folder)
    return folder


def test_both_filters_together_with_a_model_from_a_folder(tmp_path: Path) -> None:
    folder = masked_model(tmp_path / "guesser")
    names = ["Rome", "Oslo", "Paris", "London", "Italy", "France", "city", "was", "Bo", "is", "The", "born"]
    facts = [fact(f"Ann was born in [Y] . {name}", name, "Ann Jean", "P19") for name in names]
    facts += [fact("Jean Rome was born in [Y] .", "Rome", "Jean Rome", "P36")]
    records = records_of(tmp_path / "records", facts)
    lama = LamaOptions(Words.model, None, None, False, str(folder))
    probe = task("t_rex", "uhn_t_rex", lama=lama)
    answers = probed(probe, Says(SAYS), records)
    model = BertForMaskedLM.from_pretrained(folder).eval()
    best = set()
    for word in ("Ann", "Jean"):
        ids = bert_tokenizer()(f"{word} is a common name in the following city : [MASK] .", return_tensors="pt")
        place = ids["input_ids"][0].tolist().index(VOCABULARY.index("[MASK]"))
        logits = model(**ids).logits[0, place]
        best |= {VOCABULARY[one] for one in logits.argsort(descending=True)[:3].tolist()}
    assert answers["easy"].tolist() == [2 * (name in best) for name in names] + [1]
    found = probe.diagnostics(answers, records, "test")
    assert (found["uhn_filters"], found["easy_held"]) == (2, 1)
    assert found["easy_guessed"] == sum(name in best for name in names)
    # what the filters leave is what a model of another folder leaves
    plain = probed(task("t_rex", "uhn_t_rex"), Says(SAYS), records)
    assert plain["text"].tolist() == answers["text"].tolist() and plain["easy"].tolist() == [0] * 12 + [1]


# A whole split.


class Part:
    """One of two processes, one after the other: the second gathers what the first has found."""

    def __init__(self, rank: int, boards: list[list[Any]]):
        self.rank, self.processes, self.eval_batch_size = rank, 2, 3
        self.boards, self._turn = boards, 0
        self.device = torch.device("cpu")
        self.autocast = Runtime().autocast

    def check_stop(self) -> None: ...

    def gather(self, items: list[Any]) -> list[Any]:
        if self.rank == 0:
            self.boards.append(items)
        else:
            items = self.boards[self._turn] + items
        self._turn += 1
        return items


def test_two_processes_and_any_batch_find_the_same(tmp_path: Path) -> None:
    folder = masked_model(tmp_path / "model")
    model = BertForMaskedLM.from_pretrained(folder).eval()
    facts = [
        fact(f"{'the city in ' * (row % 4)}{WORDS[11 + row % 3]} was born in [Y] .", WORDS[row % 6], "Ann Bo", "P19")
        for row in range(25)
    ]
    records, lama = records_of(tmp_path / "records", facts), LamaOptions(Words.model, None, None, False, str(folder))
    alone = probed(task("t_rex", lama=lama), model, records, runtime=Runtime(eval_batch_size=7))
    single = probed(task("t_rex", lama=lama), model, records, runtime=Runtime(eval_batch_size=1))
    boards: list[list[Any]] = []
    # the first process knows only its own part of what is easy when it goes on to ask
    probed(task("t_rex", lama=lama), model, records, runtime=Part(0, boards))
    both = probed(task("t_rex", lama=lama), model, records, runtime=Part(1, boards))
    assert len(set(alone["text"].tolist())) > 1
    for other in (single, both):
        assert other["logprob"] == pytest.approx(alone["logprob"], abs=1e-4)
        for name in ("text", "correct", "used", "easy", "why", "among"):
            assert (other[name] == alone[name]).all(), name


# Options.


@pytest.mark.parametrize(
    ("words", "where"),
    [
        (["vocabulary=shared"], "lama.vocabulary_of"),
        (["vocabulary_of=[roberta_base]"], "lama.vocabulary_of"),
        (["vocabulary_file=x.txt"], "lama.vocabulary_file"),
    ],
)
def test_options_that_do_not_go_together(words: list[str], where: str) -> None:
    with pytest.raises(UserError) as raised:
        compose(["method=finetune", "data=toy_lama", *(f"data.probing.lama.{one}" for one in words)])
    assert [problem.where for problem in raised.value.problems] == [f"data.probing.{where}"]


def test_lama_asks_with_one_mask() -> None:
    assert options().check() == []
    several = ProbeOptions(Decoder.independent, 3, 1, Choose.sum, Scorer.strict, MODEL)
    (problem,) = several.check()
    assert (problem.where, problem.what) == ("data.probing.lama", "asks with one mask, whose answer is one token")


def test_files_behind_the_options_are_part_of_what_a_run_is(tmp_path: Path) -> None:
    assert options().content() == {}
    folder = masked_model(tmp_path / "model")
    lama = LamaOptions(Words.shared, None, ["roberta_base", str(folder)], False, "google-bert/bert-base-cased")
    before = options(lama).content()
    assert set(before) == {"roberta_base", str(folder)}  # of a hub id the name alone
    text = (folder / "tokenizer.json").read_text(encoding="utf-8")
    (folder / "tokenizer.json").write_text(text.replace('"Rome"', '"Roma"'), encoding="utf-8")
    after = options(lama).content()
    assert after[str(folder)] != before[str(folder)] and after["roberta_base"] == before["roberta_base"]


def test_there_is_a_metric_of_each_name() -> None:
    assert set(FACTS) < set(METRICS) and len(METRICS) == 9
