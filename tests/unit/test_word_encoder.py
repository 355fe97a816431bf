"""Word-wise encoding: the same ids as the call on whole sentences, for every kind of tokenizer, and what it adds."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from kbench.data import words as module
from kbench.data.words import WordEncoder
from kbench.errors import BackboneError

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LANGUAGES = ["Arabic-r1.2", "Chinese-GSD", "English-EWT", "German-GSD", "Japanese-GSD", "Korean-GSD", "Spanish-GSD"]


def wordpiece(sentences, cased=False, size=3000):
    """BERT: lower case unless cased; Chinese characters by themselves."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import BertTokenizer

    inner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(lowercase=not cased)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=SPECIAL, show_progress=False, min_frequency=2)
    inner.train_from_iterator(map(" ".join, sentences), trainer)
    return BertTokenizer(vocab=inner.get_vocab(), do_lower_case=not cased)


def bytewise(sentences):
    """RoBERTa, with the space before each word."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaTokenizer

    inner = ByteLevelBPETokenizer(add_prefix_space=True)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    inner.train_from_iterator(map(" ".join, sentences), vocab_size=3000, special_tokens=special, show_progress=False)
    model = json.loads(inner._tokenizer.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    return RobertaTokenizer(vocab=model["vocab"], merges=merges, add_prefix_space=True)


def unigram(sentences):
    """XLM-R: SentencePiece's Unigram over words that begin with ▁."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import XLMRobertaTokenizer

    inner = Tokenizer(models.Unigram())
    inner.normalizer = normalizers.NFKC()
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=3000, special_tokens=special, unk_token="<unk>", show_progress=False, shrinking_factor=0.5
    )
    inner.train_from_iterator(map(" ".join, sentences), trainer)
    pieces = json.loads(inner.to_str())["model"]["vocab"]
    return XLMRobertaTokenizer(vocab=[(piece, score) for piece, score in pieces])


def tiny(sentences):
    """The tokenizer that kbench builds: byte-level BPE between [CLS] and [SEP]."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE(unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=2000, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator(map(" ".join, sentences), trainer)
    inner.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]", pad_token="[PAD]")


KINDS = {
    "uncased": wordpiece,
    "cased": lambda sentences: wordpiece(sentences, cased=True),
    "bytes": bytewise,
    "unigram": unigram,
    "tiny": tiny,
}
WRITTEN = [
    ["The", "rivers", "flow", "under", "old", "bridges", ",", "near", "rivers", "and", "new", "bridges", "."],
    ["Das", "große", "Haus", "steht", "an", "der", "Straße", ",", "über", "der", "Brücke"],
    ["El", "niño", "comió", "1,234.5", "piñas", "(", "¿", "por", "qué", "?", ")"],
    ["北京", "是", "中国", "的", "首都", "。"],
    ["한국어", "모델을", "공유합니다", "."],
    ["e-mail", "don't", "...", "co-operate", "http://example.org/a_b", "U.S."],
    ["word"],
    ["a"] * 40,
]


def whole(tokenizer, sentences, length):
    """The second way: the fast call on sentences, and the first token of each word as it names it."""
    batch = tokenizer(sentences, is_split_into_words=True, truncation=True, max_length=length)
    places = []
    for row, sentence in enumerate(sentences):
        found = batch.word_ids(row)
        places.append([found.index(word) if word in found else -1 for word in range(len(sentence))])
    return batch["input_ids"], places


def assert_same(tokenizer, sentences, length):
    rows, places = WordEncoder(tokenizer, length).encode(sentences)
    wanted_rows, wanted_places = whole(tokenizer, sentences, length)
    for sentence, *found in zip(sentences, rows, places, wanted_rows, wanted_places, strict=True):
        assert found[0].tolist() == found[2], sentence
        assert found[1].tolist() == found[3], sentence
    assert {array.dtype for array in (*rows, *places)} == {np.dtype(np.int32)}


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request):
    return KINDS[request.param](WRITTEN * 5)


@pytest.mark.parametrize("length", [128, 12, 5, 3])
def test_ids_and_places_are_those_of_the_call_on_whole_sentences(tokenizer, length):
    assert_same(tokenizer, WRITTEN, length)


def sentences_of(folder: Path, count: int) -> list[list[str]]:
    """The forms of the first sentences of a treebank's test file; ranges and empty nodes are left out."""
    found: list[list[str]] = [[]]
    with gzip.open(next(folder.glob("*-ud-test.conllu.gz")), "rt", encoding="utf-8") as lines:
        for line in lines:
            fields = line.rstrip("\n").split("\t")
            if fields[0].isdigit():
                found[-1].append(fields[1])
            elif fields == [""]:
                found.append([])
            if len(found) > count:
                break
    return [words for words in found if words]


@pytest.fixture(scope="module")
def treebanks():
    from tests.conftest import SHARED_DATA

    folder = SHARED_DATA / "ud"
    if not folder.is_dir():
        pytest.skip(f"no treebanks in {folder}")
    return {name: sentences_of(folder / f"UD_{name}", 150) for name in LANGUAGES}


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_differs_on_real_sentences_of_seven_languages(treebanks, kind):
    sentences = [words for part in treebanks.values() for words in part]
    assert len(sentences) > 900
    learned = KINDS[kind](sentences[::2])  # half of the sentences hold words it has not seen
    for name, part in treebanks.items():
        encoder = WordEncoder(learned, 64)
        rows, places = encoder.encode(part)
        wanted_rows, wanted_places = whole(learned, part, 64)
        empty = [number for number, found in enumerate(wanted_places) if holes(found)]
        assert not empty, (name, [part[number] for number in empty[:3]])
        assert [row.tolist() for row in rows] == wanted_rows, name
        assert [place.tolist() for place in places] == wanted_places, name
        # else it would be no test: words are cut into pieces, and most of these are known
        assert encoder.total > 1.1 * sum(map(len, part)), name
        assert encoder.unknown < 0.15 * encoder.total, name


def holes(places):
    """Whether a word has no token though a later one has."""
    read = [number for number, place in enumerate(places) if place >= 0]
    return bool(read) and read != list(range(read[-1] + 1))


# what the call on whole sentences does not give


def test_a_word_of_which_nothing_is_made_is_read_at_the_unknown_token():
    learned = wordpiece(WRITTEN * 5)
    sentence = ["the", "\u200b", "rivers", "\u00ad"]
    (row,), (places,) = WordEncoder(learned, 20).encode([sentence])
    _, (wanted,) = whole(learned, [sentence], 20)
    assert wanted[1] == wanted[3] == -1  # it is left out there
    assert (places >= 0).all() and len(set(places)) == 4
    unknown = learned.unk_token_id
    assert row[places].tolist() == [row[1], unknown, row[places[2]], unknown]
    assert row[places[2]] not in (unknown, learned.sep_token_id)


def test_a_tokenizer_without_unknown_token_must_read_every_word():
    learned = tiny(WRITTEN * 5)
    learned.unk_token = None
    encoder = WordEncoder(learned, 20)
    assert len(encoder.encode([["rivers"]])[0][0]) > 2
    with pytest.raises(BackboneError, match="no unknown token"):
        encoder.encode([[""]])


def test_a_sentence_without_words_has_its_special_tokens():
    learned = wordpiece(WRITTEN * 5)
    (row, _), (places, _) = WordEncoder(learned, 20).encode([[], ["word"]])
    assert row.tolist() == [learned.cls_token_id, learned.sep_token_id]
    assert places.tolist() == []


def test_what_is_cut_off_is_neither_read_nor_counted():
    learned = wordpiece(WRITTEN * 5)
    encoder = WordEncoder(learned, 6)
    (row,), (places,) = encoder.encode([["the", "☃", "rivers", "the", "☃", "the"]])
    assert row.tolist()[0] == learned.cls_token_id and row.tolist()[-1] == learned.sep_token_id and len(row) == 6
    assert places.tolist() == [1, 2, 3, 4, -1, -1]
    assert (encoder.unknown, encoder.total) == (1, 4)
    encoder.encode([["☃"]])
    assert (encoder.unknown, encoder.total) == (2, 5)


def test_no_room_for_a_word_is_refused():
    learned = wordpiece(WRITTEN * 5)
    WordEncoder(learned, 3)
    with pytest.raises(ValueError, match="max_length=2"):
        WordEncoder(learned, 2)


class Counting:
    """A tokenizer that writes down which words it was asked for, and how often."""

    def __init__(self, inner):
        self.inner, self.asked = inner, []
        self.unk_token_id = inner.unk_token_id

    def __call__(self, words, **more):
        if more:
            self.asked += words
        return self.inner(words, **more)


def test_each_word_is_tokenized_once_and_the_memory_is_bounded(monkeypatch):
    counting = Counting(wordpiece(WRITTEN * 5))
    encoder = WordEncoder(counting, 20)
    counting.asked.clear()
    first = encoder.encode(WRITTEN)
    distinct = {word for sentence in WRITTEN for word in sentence}
    assert sorted(counting.asked) == sorted(distinct)
    counting.asked.clear()
    again = encoder.encode(WRITTEN)
    assert counting.asked == []
    monkeypatch.setattr(module, "_REMEMBERED", len(distinct) + 1)
    encoder.encode([["newest"]])
    assert len(encoder._known) == len(distinct) + 1
    other = encoder.encode([["newer", "word"]])  # one more than there is room for: emptied, then filled anew
    assert set(encoder._known) == {"newer", "word"}
    after = encoder.encode(WRITTEN)
    for found in (again, after):
        for one, two in zip((*first[0], *first[1]), (*found[0], *found[1]), strict=True):
            assert one.tolist() == two.tolist()
    assert len(other[0][0]) > 2


def test_a_slow_tokenizer_gives_what_it_gives_word_by_word(tmp_path):
    from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy

    vocabulary = wordpiece(WRITTEN * 5).get_vocab()
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(sorted(vocabulary, key=vocabulary.__getitem__)) + "\n", encoding="utf-8")
    slow = BertTokenizerLegacy(str(path))
    assert not slow.is_fast
    rows, places = WordEncoder(slow, 16).encode(WRITTEN)
    for sentence, row, starts in zip(WRITTEN, rows, places, strict=True):
        ids, wanted = [slow.cls_token_id], []
        for word in sentence:
            wanted.append(len(ids) if len(ids) < 15 else -1)
            ids += slow.convert_tokens_to_ids(slow.tokenize(word))
        assert row.tolist() == [*ids[:15], slow.sep_token_id]
        assert starts.tolist() == wanted
