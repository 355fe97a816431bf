"""Sequences with the tokens of their mentions: against a plain reading of what the tokenizer says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kbench.errors import BackboneError, DataError
from kbench.knowledge import corpus as corpus_module
from kbench.knowledge import linked as module
from kbench.knowledge.corpora import Document, Sentence, Span
from kbench.knowledge.corpus import CorpusText, _mentions, link_all, store
from kbench.knowledge.linked import LINKED, Linked, linked_stage, write_linked
from kbench.stages.stage import Stage

LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = [
    "ada",
    "knew",
    "charles",
    "babbage",
    "in",
    "london",
    "of",
    "fog",
    "rain",
    "𝔸da",
    "café",
    "naïve",
    "x-ray",
    "ab",
]


@pytest.fixture(scope="module")
def pieces() -> Any:
    """WordPiece: a few words, else their letters; what is no letter is unknown."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    known = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    known += ["ada", "knew", "of", "##bage", "ab", "lon", "##don", "##é", "."]
    inner = Tokenizer(models.WordPiece({piece: place for place, piece in enumerate(known)}, unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer()
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, mask_token="[MASK]", **special)


@pytest.fixture(scope="module", params=[True, False], ids=["trimmed", "with spaces"])
def bytes_(request: pytest.FixtureRequest) -> Any:
    """Byte pairs of the RoBERTa kind, whose tokens begin with the space before them; their offsets may have it, too."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=names, initial_alphabet=alphabet, show_progress=False)
    inner.train_from_iterator([" ".join(WORDS)] * 3, trainer)
    inner.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=request.param)
    special = dict(zip(("cls_token", "pad_token", "sep_token", "unk_token", "mask_token"), names, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=inner, **special)


def corpus_of(folder: Path, documents: list[Document], entities: int = 50) -> CorpusText:
    """A stored corpus whose mentions have the numbers of their spans as entities."""
    folder.mkdir(parents=True, exist_ok=True)
    counts = store(documents, folder)
    link_all(lambda texts, numbers, spans: _mentions(spans, spans["number"], spans["score"]), entities, folder, counts)
    return CorpusText(folder)


def one(text: str, *spans: tuple[int, int, int]) -> Sentence:
    return Sentence(text, [Span(*span) for span in spans])


def random_documents(seed: int, count: int = 12) -> list[Document]:
    """Sentences of some words, a mention now and then, which may begin or end inside a word; some are unknown."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        sentences = []
        for _ in range(int(random.integers(1, 6))):
            text = "  ".join(random.choice(WORDS, int(random.integers(1, 9)))) if random.random() < 0.1 else ""
            text = text or " ".join(random.choice(WORDS, int(random.integers(1, 9)))) + random.choice(["", ".", " "])
            edges = np.sort(random.choice(len(text) + 1, 2 * int(random.integers(0, min(4, len(text) // 2))), False))
            spans = [Span(int(a), int(b), int(random.integers(-1, 50))) for a, b in edges.reshape(-1, 2)]
            sentences.append(Sentence(text, spans))
        found.append(Document("", sentences))
    return found


def plain(corpus: CorpusText, tokenizer: Any, length: int, pack: bool, least: int) -> Iterator[dict[str, Any]]:
    """The sequences, one after another, from the definition: tokens and mentions share a letter that is no space."""
    numbers = corpus.document_of(0, corpus.sentences).tolist()
    byte = tokenizer.mask_token == "<mask>"
    current: dict[str, Any] | None = None
    for row, text in enumerate(corpus.texts(0, corpus.sentences)):
        begun = row == 0 or numbers[row] != numbers[row - 1]
        lead = " " if byte and pack and not begun else ""
        made = tokenizer(f"{lead}{text}", add_special_tokens=False, return_offsets_mapping=True)
        whole, spots = f"{lead}{text}", made["offset_mapping"]
        letters = [{place for place in range(*spot) if not whole[place].isspace()} for spot in spots]
        firsts = [min(own) if own else spot[1] for own, spot in zip(letters, spots, strict=True)]
        words, room = made.word_ids(), length - 2
        begins = [
            not token or words[token] != words[token - 1] or firsts[token] > spots[token - 1][1]
            for token in range(len(words))
        ]
        kept = made["input_ids"][:room]
        fresh = current is None or not pack or begun or len(current["ids"]) + len(kept) > room
        if kept and fresh:
            if current is not None and sum(one[2] >= 0 for one in current["mentions"]) >= least:
                yield current
            current = {"ids": [], "mentions": [], "begins": []}
        if not kept:
            continue
        assert current is not None
        before, taken = len(current["ids"]), -1
        for place in corpus.mentions_of(row, row + 1):
            mention = corpus.mentions[place]
            own = set(range(mention["start"] + len(lead), mention["end"] + len(lead)))
            hit = [token for token in range(len(letters)) if letters[token] & own]
            if hit and hit[-1] < room and hit[0] > taken:
                taken = hit[-1]
                spot = before + hit[0] + 1, before + hit[-1] + 2, int(mention["entity"]), row, int(place)
                current["mentions"].append(spot)
        current["ids"] += kept
        current["begins"] += begins[:room]
    if current is not None and sum(one[2] >= 0 for one in current["mentions"]) >= least:
        yield current


def check(corpus: CorpusText, tokenizer: Any, folder: Path, length: int, pack: bool, least: int) -> Linked:
    folder.mkdir(parents=True)
    write_linked(corpus, tokenizer, length, pack, least, folder)
    linked, wanted = Linked(folder), list(plain(corpus, tokenizer, length, pack, least))
    assert len(linked) == len(wanted) == linked.info["sequences"]
    first = 0
    for row, sequence in enumerate(wanted):
        assert linked.sequence(row).tolist() == sequence["ids"]
        own = linked.mentions[first : linked.mention_ends[row]]
        assert (own["sequence"] == row).all()
        assert own[["start", "stop", "entity", "sentence", "corpus_mention"]].tolist() == sequence["mentions"]
        marks = linked.begins[linked.ends[row] - len(sequence["ids"]) : linked.ends[row]].tolist()
        assert marks == sequence["begins"]
        first = int(linked.mention_ends[row])
    assert first == len(linked.mentions) == linked.info["mentions"]
    ids = [token for sequence in wanted for token in sequence["ids"]]
    assert linked.counts.tolist() == np.bincount(ids, minlength=len(tokenizer)).tolist()
    assert linked.lengths.tolist() == [len(sequence["ids"]) + 2 for sequence in wanted]
    lost = sum(linked.info[f"{name}_mentions"] for name in ("cut", "shared", "dropped"))
    assert len(corpus.mentions) == first + lost + linked.info["mentions_without_token"]
    return linked


@pytest.mark.parametrize("pack", [True, False])
@pytest.mark.parametrize(("length", "least"), [(40, 0), (14, 1), (9, 2)])
def test_against_a_plain_reading(
    pieces: Any, bytes_: Any, pack: bool, length: int, least: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BATCH", 7)
    lost = dict.fromkeys(("cut_mentions", "shared_mentions", "mentions_without_token", "dropped_sequences"), 0)
    for seed in range(3):
        corpus = corpus_of(tmp_path / f"corpus{seed}", random_documents(seed))
        for name, tokenizer in (("pieces", pieces), ("bytes", bytes_)):
            linked = check(corpus, tokenizer, tmp_path / f"{name}{seed}", length, pack, least)
            lost = {kind: count + linked.info[kind] for kind, count in lost.items()}
    assert lost["shared_mentions"] and lost["mentions_without_token"]
    assert bool(lost["dropped_sequences"]) == (least > 0)
    assert bool(lost["cut_mentions"]) == (length < 40)


def test_a_worked_case(pieces: Any, tmp_path: Path) -> None:
    documents = [
        Document(
            "", [one("Ada knew Babbage.", (0, 3, 7), (9, 16, -1)), one("\u200b"), one("Ada of London", (7, 13, 8))]
        ),
        Document("", [one("ab", (0, 1, 5), (1, 2, 6))]),
    ]
    corpus = corpus_of(tmp_path / "corpus", documents)
    folder = tmp_path / "linked"
    folder.mkdir()
    write_linked(corpus, pieces, 20, True, 1, folder)
    linked = Linked(folder)
    spelt = [pieces.convert_ids_to_tokens(linked.sequence(row)) for row in range(len(linked))]
    assert spelt == [["ada", "knew", "b", "##a", "##b", "##bage", ".", "ada", "of", "lon", "##don"], ["ab"]]
    assert linked.begins.tolist() == [1, 1, 1, 0, 0, 0, 1, 1, 1, 1, 0, 1]
    assert linked.mentions.dtype == LINKED
    assert linked.mentions.tolist() == [
        (0, 1, 2, 7, 0, 0), (0, 3, 7, -1, 0, 1), (0, 10, 12, 8, 2, 2), (1, 1, 2, 5, 3, 3),
    ]  # fmt: skip
    assert linked.mention_ends.tolist() == [3, 4]
    found, rows = linked.mentions_of(np.array([1, 0]))
    assert (found.tolist(), rows.tolist()) == ([3, 0, 1, 2], [0, 1, 1, 1])
    assert linked.info == {
        "sequences": 2, "tokens": 12, "unknown": 0, "mentions": 4, "linked": 3, "cut_sentences": 0,
        "sentences_without_token": 1, "cut_mentions": 0, "mentions_without_token": 0, "shared_mentions": 1,
        "dropped_sequences": 0, "dropped_mentions": 0,
    }  # fmt: skip
    ids, attention, begins = linked.padded(np.array([1, 0]), 2, 3, 0)
    assert ids.tolist() == [
        [2, *linked.sequence(1), 3, *[0] * 10],
        [2, *linked.sequence(0), 3],
    ]
    assert attention.tolist() == [[1] * 3 + [0] * 10, [1] * 13]
    assert begins.tolist() == [
        [False, True, *[False] * 11],
        [False, *(bool(mark) for mark in linked.begins[:11]), False],
    ]
    assert (ids.dtype, attention.dtype, begins.dtype) == (np.int64, np.int64, np.bool_)


def test_a_sentence_after_another_begins_with_a_space(bytes_: Any, tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path / "corpus", [Document("", [one("ada", (0, 3, 1)), one("ada", (0, 3, 2))])])
    for pack in (True, False):
        (tmp_path / str(pack)).mkdir()
        write_linked(corpus, bytes_, 20, pack, 0, tmp_path / str(pack))
    packed, single = Linked(tmp_path / "True"), Linked(tmp_path / "False")
    whole, word = (bytes_(text, add_special_tokens=False)["input_ids"] for text in ("ada ada", "ada"))
    assert packed.sequence(0).tolist() == whole != word * 2
    assert packed.mentions["stop"][-1] == len(whole) + 1
    assert [single.sequence(row).tolist() for row in range(2)] == [word, word]


def test_what_spells_a_special_token_is_text(pieces: Any, tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path / "corpus", [Document("", [one("ada [MASK] [SEP] of", (0, 3, 1))])])
    (tmp_path / "linked").mkdir()
    write_linked(corpus, pieces, 50, True, 0, tmp_path / "linked")
    assert not set(Linked(tmp_path / "linked").ids.tolist()) & {0, 2, 3, 4}


def test_very_long_documents_are_packed_in_parts(pieces: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = corpus_of(tmp_path / "corpus", [Document("", [one("ada", (0, 3, row)) for row in range(30)])])
    found = []
    for name, longest in (("whole", 1000), ("parts", 3)):
        monkeypatch.setattr(corpus_module, "_LONGEST", longest)
        monkeypatch.setattr(module, "_BATCH", 2)
        (tmp_path / name).mkdir()
        write_linked(corpus, pieces, 9, True, 0, tmp_path / name)
        found.append(Linked(tmp_path / name))
    assert [linked.lengths.tolist() for linked in found] == [[9, 9, 9, 9, 4], [7] * 6]
    assert all(linked.mentions["entity"].tolist() == list(range(30)) for linked in found)


def test_bad_settings(pieces: Any, tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path / "corpus", [Document("", [one("ada of ada", (0, 3, 1), (4, 6, -1))])])
    folder = tmp_path / "stage"

    def build(least: int, tokenizer: Any = pieces) -> None:
        folder.mkdir(exist_ok=True)
        stage = linked_stage(Stage("corpus", 1, {}, build), lambda _: tokenizer, "x", "bert", 9, True, least)
        stage.build(folder, {"corpus": tmp_path / "corpus"})

    build(1)
    assert Linked(folder).info["mentions"] == 2
    with pytest.raises(DataError) as raised:
        build(2)
    (problem,) = raised.value.problems
    assert problem.where == "knowledge.corpus.min_mentions"
    assert problem.what == "is 2, and no sample of at most 9 tokens has so many"
    assert not folder.exists()
    with pytest.raises(BackboneError, match=r"its tokenizer, object, does not say which characters"):
        build(1, object())
    assert len(corpus.mentions) == 2


def test_the_stage_is_named_by_what_decides_it() -> None:
    def stage(
        backbone: Any = "x", kind: str = "bert", text: str = "a", length: int = 9, pack: bool = True, least: int = 1
    ) -> Stage:
        corpus = Stage("corpus", 1, {"text": text}, lambda work, folders: None)
        return linked_stage(corpus, lambda _: None, backbone, kind, length, pack, least)

    made = Stage("tiny", 1, {}, lambda work, folders: None)
    keys = [stage().key, stage("y").key, stage(made).key, stage(kind="xlmr").key, stage(text="b").key]
    keys += [stage(length=10).key, stage(pack=False).key, stage(least=2).key]
    assert len(set(keys)) == len(keys) and stage().key == stage().key
    assert stage(made).parents.keys() == {"corpus", "backbone"} and stage().alone
    assert json.dumps(dict(stage().science))
