"""The monolingual models of KR2: a small random model of each kind is found, loaded and reads words of its language.

What each has that others have not is tested with it: GottBERT's spaces, BETO's capitals, ERNIE's 513 positions,
KoBERT's and the Japanese tokenizers, OSCAR's image weights.
"""

from __future__ import annotations

import gzip
import json
import random
import re
import sys
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForTokenClassification, BertConfig, BertModel, BertTokenizer

from kbench.backbones.load import load_model, load_tokenizer
from kbench.backbones.locate import locate, named
from kbench.config.schema import Backbone
from kbench.data.words import WordEncoder
from kbench.errors import BackboneError
from kbench.runs.prepare import _check_length
from tests.conftest import SHARED_DATA

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
TAGS = 17


def write_vocabulary(folder: Path, pieces: list[str], **settings: object) -> int:
    """vocab.txt and tokenizer_config.json as the hub's older repositories have them; gives the number of pieces."""
    pieces = list(dict.fromkeys([*SPECIAL, *pieces]))
    pieces += [f"[unused{number}]" for number in range(120 - len(pieces))]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return len(pieces)


def write_bert(folder: Path, vocabulary: int, **shape: object) -> None:
    torch.manual_seed(1)
    BertModel(BertConfig(vocab_size=vocabulary, **(SIZES | shape))).save_pretrained(folder)


def found(name: str, folder: Path) -> tuple[Backbone, Path]:
    """The backbone of conf/backbone with its files in a folder, as `backbone=NAME backbone.path=FOLDER` finds it."""
    backbone = replace(named(name, "backbone"), path=str(folder))
    located = locate(backbone)
    assert located.identity.startswith("files:") and located.folder == str(folder.resolve())
    return backbone, Path(located.folder)


def read(name: str, folder: Path, words: list[str]) -> tuple[object, list[list[str]]]:
    """Load what is found, run it on a sentence; gives the tokenizer and the pieces of each word."""
    backbone, place = found(name, folder)
    tokenizer = load_tokenizer(place, words=True, kind=backbone.tokenizer)
    model = load_model(place, AutoModelForTokenClassification, classes=TAGS, seed=0).eval()
    assert len(tokenizer) == model.config.vocab_size
    saved = AutoModel.from_pretrained(place).state_dict()
    for key, value in model.base_model.state_dict().items():
        assert torch.equal(value, saved[key]), key
    (row,), (starts,) = WordEncoder(tokenizer, 32).encode([words])
    with torch.no_grad():
        ids = torch.from_numpy(row.astype(np.int64))[None]
        logits = model(input_ids=ids).logits[0, torch.from_numpy(starts.astype(np.int64))]
    assert (starts > 0).all() and len(set(starts.tolist())) == len(words)
    assert logits.shape == (len(words), TAGS) and torch.isfinite(logits).all()
    assert logits.std(dim=0).min() > 0  # each word is read by itself
    ends = [*starts[1:].tolist(), len(row) - 1]
    pieces = tokenizer.convert_ids_to_tokens(row.tolist())
    return tokenizer, [pieces[start:end] for start, end in zip(starts, ends, strict=True)]


# German: RoBERTa with byte-level BPE, whose words begin with a space


def test_gottbert_reads_words_with_the_space_before_them(tmp_path):
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaConfig, RobertaModel

    words = ["Die", "Brücke", "führt", "über", "die", "Spree"]
    learned = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    learned.train_from_iterator([" ".join(words)] * 9, vocab_size=600, special_tokens=special, show_progress=False)
    learned.save_model(str(tmp_path))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "RobertaTokenizer"}', encoding="utf-8")
    shape = RobertaConfig(vocab_size=learned.get_vocab_size(), max_position_embeddings=514, type_vocab_size=1, **SIZES)
    RobertaModel(shape).save_pretrained(tmp_path)
    _, pieces = read("gottbert", tmp_path, words)
    assert [piece[0][0] for piece in pieces] == ["Ġ"] * len(words)
    assert pieces[2] == ["ĠfÃ¼hrt"]


# Spanish: capitals and accents are kept


def test_beto_keeps_capitals_and_accents(tmp_path):
    vocabulary = write_vocabulary(tmp_path, ["El", "el", "niño", "nino", "com", "##ió", "."], do_lower_case=False)
    write_bert(tmp_path, vocabulary)
    _, pieces = read("beto", tmp_path, ["El", "niño", "comió", "."])
    assert pieces == [["El"], ["niño"], ["com", "##ió"], ["."]]


# Arabic


def test_arabic_bert_reads_arabic_words(tmp_path):
    vocabulary = write_vocabulary(tmp_path, ["ال", "##كتاب", "على", "الطاول", "##ة"], do_lower_case=False)
    write_bert(tmp_path, vocabulary)
    _, pieces = read("arabic_bert", tmp_path, ["الكتاب", "على", "الطاولة"])
    assert pieces == [["ال", "##كتاب"], ["على"], ["الطاول", "##ة"]]


# Chinese: 513 positions, and a type of its own


@pytest.fixture(params=["bert", "ernie"])
def ernie(request, tmp_path):
    vocabulary = write_vocabulary(tmp_path, list("北京是中国的首都。"), do_lower_case=True)
    if request.param == "bert":
        write_bert(tmp_path, vocabulary, max_position_embeddings=513)
    else:
        from transformers import ErnieConfig, ErnieModel

        shape = ErnieConfig(vocab_size=vocabulary, max_position_embeddings=513, **SIZES)
        ErnieModel(shape).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == request.param
    return tmp_path


def test_ernie_reads_chinese_words_by_characters(ernie):
    _, pieces = read("ernie", ernie, ["北京", "是", "中国", "的", "首都", "。"])
    assert pieces == [["北", "京"], ["是"], ["中", "国"], ["的"], ["首", "都"], ["。"]]


@pytest.mark.parametrize("length", [512, 513])
def test_ernie_reads_all_its_positions(ernie, length):
    backbone, place = found("ernie", ernie)
    assert check(backbone, length) == []
    (row,), (starts,) = WordEncoder(load_tokenizer(place), length).encode([["中国"] * 400])
    assert len(row) == length and (starts >= 0).sum() == (length - 1) // 2
    model = load_model(place, AutoModelForTokenClassification, classes=TAGS, seed=0).eval()
    ids = torch.from_numpy(row.astype(np.int64))[None]
    with torch.no_grad():
        assert model(input_ids=ids).logits.shape == (1, length, TAGS)


def test_ernie_has_no_514th_position(ernie):
    backbone, place = found("ernie", ernie)
    (problem,) = check(backbone, 514)
    assert "514" in str(problem) and "ernie has 513" in str(problem)
    model = load_model(place, AutoModelForTokenClassification, classes=TAGS, seed=0).eval()
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, 514), 5))


def check(backbone, length):
    """What prepare says of the longest text."""
    from types import SimpleNamespace

    return _check_length(SimpleNamespace(data=SimpleNamespace(max_length=length)), backbone, locate(backbone))


# Korean: a SentencePiece model, and ids of its own


def korean() -> list[str]:
    """A few hundred Korean texts: a treebank's, or made of written words where there is none."""
    path = SHARED_DATA / "ud" / "UD_Korean-GSD" / "ko_gsd-ud-dev.conllu.gz"
    if path.is_file():
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            return [line.split(" = ", 1)[1].strip() for line in lines if line.startswith("# text = ")][:600]
    stems = re.findall("..", "언어모델도시다리학교사람나라음악바다하늘시간이름친구영화역사문제세계노래공원서점")
    ends = ["을", "를", "은", "는", "이", "가", "에서", "으로", "도", "만", "의", "까지"]
    drawn = random.Random(0)
    return [
        " ".join(drawn.choice(stems) + drawn.choice(ends) for _ in range(8)) + f" {number}." for number in range(400)
    ]


@pytest.fixture(scope="module")
def kobert(tmp_path_factory):
    """A folder as monologg/kobert has it: its own SentencePiece model, and vocab.txt in another order."""
    trainer = pytest.importorskip("sentencepiece").SentencePieceTrainer
    folder = tmp_path_factory.mktemp("kobert")
    prefix = folder / "tokenizer_78b3253a26"
    trainer.train(
        sentence_iterator=iter(korean()), model_prefix=str(prefix), vocab_size=1200, minloglevel=2,
        hard_vocab_limit=False, user_defined_symbols=["1,", "▁2,"],
    )  # fmt: skip
    pieces = [line.split("\t")[0] for line in prefix.with_suffix(".vocab").read_text(encoding="utf-8").splitlines()]
    prefix.with_suffix(".vocab").unlink()
    pieces = [piece for piece in pieces if piece not in ("<unk>", "<s>", "</s>")]
    random.Random(1).shuffle(pieces)
    special = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]"]
    known = pieces[len(pieces) // 60 :]  # some pieces of the model are in no line, as in a vocabulary cut later
    vocabulary = list(dict.fromkeys([*special, *known, ","]))
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    write_bert(folder, len(vocabulary))
    return folder


def naive_kobert(folder: Path, text: str) -> list[int]:
    """KoBERT's ids, written anew from its description; one text, no special tokens."""
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor()
    model.Load(str(folder / "tokenizer_78b3253a26.model"))
    lines = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")
    text = " ".join(text.split()).replace("``", '"').replace("''", '"')
    text = "".join(c for c in unicodedata.normalize("NFKD", text) if unicodedata.combining(c) == 0)
    ids = []
    for piece in model.EncodeAsPieces(text):
        parts = [piece]
        if len(piece) >= 2 and piece.endswith(",") and piece[-2].isdigit():
            parts = model.EncodeAsPieces(piece[:-1].replace("▁", ""))
            if piece[0] != "▁":
                parts = [part for part in [parts[0].removeprefix("▁"), *parts[1:]] if part]
            parts.append(",")
        ids += [lines.index(part) if part in lines else lines.index("[UNK]") for part in parts]
    return ids


ODD = ["1,234,567 명이  2,\t왔다", "``인용''", "café ☃ 한국어", "", "２０１８년 ①", "[CLS]"]


def test_kobert_gives_the_ids_of_its_vocabulary(kobert):
    tokenizer = load_tokenizer(kobert, kind="kobert")
    texts = [*korean()[:100], *ODD[:-1]]
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
    assert ids == [naive_kobert(kobert, text) for text in texts]
    flat = [piece for row in ids for piece in row]
    own = [piece for text in texts for piece in tokenizer._cutter.encode(text)]
    assert flat != own  # SentencePiece's own ids are others
    assert 0 < flat.count(tokenizer.unk_token_id) < 0.1 * len(flat)


def test_kobert_cuts_the_comma_off_a_number(kobert):
    tokenizer = load_tokenizer(kobert, kind="kobert")
    assert "1," in tokenizer._cutter.encode("11,", out_type=str)
    for text in ("11,", "1,", "2, 1"):
        pieces = tokenizer.tokenize(text)
        assert "," in pieces and not any(len(piece) > 1 and piece[-1] == "," for piece in pieces), pieces
        assert tokenizer.convert_tokens_to_string(pieces).replace(" ", "") == text.replace(" ", "")


def test_kobert_behaves_as_the_tokenizers_of_transformers_do(kobert, tmp_path):
    tokenizer = load_tokenizer(kobert, kind="kobert")
    lines = (kobert / "vocab.txt").read_text(encoding="utf-8").splitlines()
    assert len(tokenizer) == tokenizer.vocab_size == len(lines)
    assert not tokenizer.is_fast and tokenizer.padding_side == "right"
    ids = {"unk": 0, "pad": 1, "cls": 2, "sep": 3, "mask": 4}
    assert {name: getattr(tokenizer, f"{name}_token_id") for name in ids} == ids
    assert tokenizer.model_input_names == ["input_ids", "token_type_ids", "attention_mask"]
    one, two = korean()[:2]
    first, second = tokenizer([one, two], add_special_tokens=False)["input_ids"]
    pair = tokenizer(one, two)
    assert pair["input_ids"] == [2, *first, 3, *second, 3]
    assert pair["token_type_ids"] == [0] * (len(first) + 2) + [1] * (len(second) + 1)
    short = tokenizer([one, two], truncation=True, max_length=7, padding="max_length", return_tensors="pt")
    assert short["input_ids"].tolist() == [[2, *first[:5], 3], [2, *second[:5], 3]]
    assert tokenizer(["[CLS]"], add_special_tokens=False)["input_ids"] == [[2]]
    padded = tokenizer(["", one], padding=True)
    assert padded["input_ids"][0] == [2, 3] + [1] * len(first) and sum(padded["attention_mask"][0]) == 2
    tokenizer.save_pretrained(tmp_path)
    again = load_tokenizer(tmp_path, kind="kobert")
    assert again(korean()[:20])["input_ids"] == tokenizer(korean()[:20])["input_ids"]
    again.save_pretrained(tmp_path)  # over itself
    assert (tmp_path / "vocab.txt").read_bytes() == (kobert / "vocab.txt").read_bytes()


def test_kobert_reads_korean_words_where_the_plain_tokenizer_does_not(kobert):
    words = korean()[0].split()[:12]
    tokenizer, pieces = read("kobert", kobert, words)
    assert all(piece[0].startswith("▁") or piece[0] == "[UNK]" for piece in pieces)
    sentences = [text.split() for text in korean()[:100]]
    auto = load_tokenizer(kobert, kind="plain")
    assert isinstance(auto, BertTokenizer)
    ours, plain = WordEncoder(tokenizer, 128), WordEncoder(auto, 128)
    ours.encode(sentences)
    plain.encode(sentences)
    assert ours.unknown < 0.1 * ours.total
    assert plain.unknown > 0.5 * plain.total


def test_kobert_says_what_it_misses(kobert, tmp_path, monkeypatch):
    (tmp_path / "vocab.txt").write_bytes((kobert / "vocab.txt").read_bytes())
    with pytest.raises(BackboneError, match=r"no tokenizer_78b3253a26\.model"):
        load_tokenizer(tmp_path, kind="kobert")
    (tmp_path / "tokenizer_78b3253a26.model").write_bytes(b"no model")
    with pytest.raises(BackboneError, match="cannot be read"):
        load_tokenizer(tmp_path, kind="kobert")
    (tmp_path / "tokenizer_78b3253a26.model").write_bytes((kobert / "tokenizer_78b3253a26.model").read_bytes())
    assert len(load_tokenizer(tmp_path, kind="kobert")) > 100
    lines = (kobert / "vocab.txt").read_text(encoding="utf-8").splitlines()
    (tmp_path / "vocab.txt").write_text("\n".join(lines[1:]), encoding="utf-8")
    with pytest.raises(BackboneError, match=r"lacks \[UNK\]"):
        load_tokenizer(tmp_path, kind="kobert")
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(BackboneError, match=r"needs sentencepiece\n.*pip install 'kbench\[resources\]'"):
        load_tokenizer(kobert, kind="kobert")


def test_there_are_no_other_kinds(kobert):
    with pytest.raises(ValueError, match="mecab"):
        load_tokenizer(kobert, kind="mecab")


# Japanese: MeCab cuts words, and only a slow tokenizer exists


def japanese(folder: Path, **settings: object) -> Path:
    usual = {"do_lower_case": False, "word_tokenizer_type": "mecab", "subword_tokenizer_type": "wordpiece"}
    pieces = ["東京", "##大学", "で", "研究", "を", "し", "て", "いる"]
    write_bert(folder, write_vocabulary(folder, pieces, **(usual | settings)))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tokenizer_class": "BertJapaneseTokenizer"}))
    return folder


def test_bert_japanese_gives_each_word_its_first_token(tmp_path):
    pytest.importorskip("fugashi")
    pytest.importorskip("ipadic")
    tokenizer, pieces = read("bert_japanese", japanese(tmp_path), ["東京大学", "で", "研究", "をして", "いる", "☃"])
    assert type(tokenizer).__name__ == "BertJapaneseTokenizer"
    # MeCab cuts をして again, WordPiece 東京大学
    assert pieces == [["東京", "##大学"], ["で"], ["研究"], ["を", "し", "て"], ["いる"], ["[UNK]"]]


def test_bert_japanese_keeps_the_dictionary_that_it_names(tmp_path):
    pytest.importorskip("fugashi")
    pytest.importorskip("ipadic")
    folder = japanese(tmp_path, mecab_kwargs={"mecab_dic": "ipadic", "normalize_text": False})
    assert load_tokenizer(folder).mecab_kwargs == {"mecab_dic": "ipadic", "normalize_text": False}
    silent = japanese(tmp_path, mecab_kwargs={"normalize_text": False})
    assert load_tokenizer(silent).mecab_kwargs == {"mecab_dic": "ipadic", "normalize_text": False}


@pytest.mark.parametrize(("package", "named_so"), [("fugashi", "fugashi"), ("ipadic", "ipadic")])
def test_bert_japanese_says_what_it_misses(tmp_path, monkeypatch, package, named_so):
    pytest.importorskip("fugashi")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(BackboneError, match=rf"{named_so}[^\n]*\n.*pip install 'kbench\[resources\]'"):
        load_tokenizer(japanese(tmp_path))


# English: the text encoder of a model that was trained with images


def oscar(folder: Path, left_out: str = "", **settings: object) -> dict[str, torch.Tensor]:
    """A folder as OSCAR's checkpoint gives it once it is saved as safetensors; gives its weights."""
    from safetensors.torch import save_file
    from transformers import BertForPreTraining

    vocabulary = write_vocabulary(folder, ["a", "man", "rides", "horse", "##s"])
    (folder / "tokenizer_config.json").unlink()
    torch.manual_seed(2)
    whole = BertForPreTraining(BertConfig(vocab_size=vocabulary, **SIZES)).state_dict()
    weights = {key: value.clone() for key, value in whole.items() if key != left_out}
    weights |= {"bert.img_embedding.weight": torch.ones(32, 2054), "bert.img_embedding.bias": torch.ones(32)}
    weights |= {"bert.LayerNorm.weight": torch.ones(32), "img_projection.weight": torch.ones(4, 4)}
    save_file(weights, folder / "model.safetensors")
    shape = {
        **SIZES, "vocab_size": vocabulary, "max_position_embeddings": 512, "type_vocab_size": 2, "hidden_act": "gelu",
        "img_feature_dim": 2054, "img_feature_type": "faster_r-cnn", "use_img_layernorm": 1, "finetuning_task": None,
        "num_labels": 2, "output_attentions": False, "pruned_heads": {}, "torchscript": False,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(shape | settings), encoding="utf-8")
    return weights


def test_oscar_gives_its_text_encoder(tmp_path):
    weights = oscar(tmp_path, model_type="bert")
    _, pieces = read("oscar_base", tmp_path, ["A", "man", "rides", "horses"])
    assert pieces == [["a"], ["man"], ["rides"], ["horse", "##s"]]
    model = load_model(tmp_path, AutoModelForTokenClassification, classes=TAGS, seed=0)
    state = model.base_model.state_dict()
    assert len(state) == 5 + 2 * 16  # embeddings and two layers: nothing of images, and no head
    for key, value in state.items():
        assert torch.equal(value, weights[f"bert.{key}"]), key


def test_oscar_without_a_textual_weight_is_refused(tmp_path):
    oscar(tmp_path, left_out="bert.encoder.layer.1.output.dense.weight", model_type="bert")
    with pytest.raises(BackboneError, match=r"lacks 1 weights, such as encoder\.layer\.1\.output\.dense\.weight"):
        load_model(tmp_path, AutoModelForTokenClassification, classes=TAGS, seed=0)


def test_oscar_as_it_comes_says_what_to_add(tmp_path):
    oscar(tmp_path)
    for load in (load_tokenizer, lambda folder: load_model(folder, AutoModelForTokenClassification, classes=2, seed=0)):
        with pytest.raises(BackboneError, match=r'add "model_type" to its config\.json'):
            load(tmp_path)


def test_oscar_as_a_pickle_is_not_read(tmp_path):
    oscar(tmp_path, model_type="bert")
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(BackboneError, match="save the model with safetensors"):
        found("oscar_base", tmp_path)
