"""Marked sentences: the files with every kind of mistake, the token ids, the toy set, and the real files."""

from __future__ import annotations

import gzip
import hashlib
import random
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kbench.config.relation import Markers, RelationHead, RelationOptions
from kbench.data.relations import MARKERS, RELATION_READERS, MarkerEncoder, kbp37, segments, types, with_markers
from kbench.data.toy_relations import LABELS, LANGUAGES, SIZES, generate
from kbench.errors import DataError, Problem
from kbench.metrics.relation import relations

from ..conftest import small_bert

BLOCK = '7\t" <e1> Thom " Yorke </e1> of <e2> Radiohead </e2> . "\nper:member(e1,e2) \n\n\n'


def write(path: Path, content: str, encoding: str = "utf-8") -> Path:
    raw = content.encode(encoding)
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


def problem_of(path: Path) -> Problem:
    with pytest.raises(DataError) as raised:
        list(kbp37(path, "utf-8"))
    (problem,) = raised.value.problems
    return problem


# Files.


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_blocks_with_quotes_inside_blanks_around_labels_and_any_number_of_blank_lines(ending, tmp_path):
    content = BLOCK + '8\t"<e2></e2> ist <e1>B</e1>."\r\nno_relation\r\n\n\n\n\n' + BLOCK.rstrip("\n")
    text = '<e1> Thom " Yorke </e1> of <e2> Radiohead </e2> .'
    assert list(kbp37(write(tmp_path / f"train.txt{ending}", content), "utf-8")) == [
        (1, text, "per:member(e1,e2)"),
        (5, "<e2></e2> ist <e1>B</e1>.", "no_relation"),
        (11, text, "per:member(e1,e2)"),
    ]


def test_latin_1_and_an_empty_file(tmp_path):
    path = write(tmp_path / "a.txt", '1\t"<e1>Ñ</e1> <e2>é</e2>"\nx(e1,e2)\n', "latin-1")
    assert list(kbp37(path, "latin-1")) == [(1, "<e1>Ñ</e1> <e2>é</e2>", "x(e1,e2)")]
    assert list(kbp37(write(tmp_path / "b.txt", "\n\n"), "utf-8")) == []


@pytest.mark.parametrize(
    ("content", "line", "what"),
    [
        ('1\t"a </e1> <e2> b </e2>"\nx\n', 1, "has no <e1>"),
        ('1\t"<e1> a </e1> <e2> b </e2> <e2>"\nx\n', 1, "has <e2> 2 times"),
        ('1\t"<e1> a <e2> b </e1> c </e2>"\nx\n', 1, "has its markers in the order <e1> <e2> </e1> </e2>"),
        ('1\t"</e1> a <e1> <e2> c </e2>"\nx\n', 1, "has its markers in the order </e1> <e1> <e2> </e2>"),
        ('1\t"<e1> a <e2> b </e2> c </e1>"\nx\n', 1, "has its markers in the order <e1> <e2> </e2> </e1>"),
        ("1\t<e1> a </e1> <e2> b </e2>\nx\n", 1, "has a sentence that is not between quotes"),
        ('1\t"\nx\n', 1, "has a sentence that is not between quotes"),
        (BLOCK + 'one\t"<e1> a </e1> <e2> b </e2>"\nx\n', 5, "begins no example"),
        (BLOCK + "a second label\n", 5, "begins no example"),
        (BLOCK + BLOCK.split("\n")[0], 5, "has no label on the line after it"),
        (BLOCK.split("\n")[0] + "\n\n\n" + BLOCK, 1, "has no label on the line after it"),
    ],
)
def test_mistakes_name_file_line_and_the_form(content, line, what, tmp_path):
    path = write(tmp_path / "train.txt", content)
    found = problem_of(path)
    assert (found.where, found.what) == (f"{path}, line {line}", what)
    assert "</e2>" in found.hint or "own two markers" in found.hint


def test_every_reader_is_registered_by_its_name():
    assert {name: reader.__name__ for name, reader in RELATION_READERS.items()} == {
        "kbp37": "kbp37", "tacred": "tacred",
    }  # fmt: skip


# Token ids.

PIECES = ["a", "b", "c", "d", "e", ".", "##s", "@", "#", "*", "^", "$", "person", "title", "of", "job"]


def options(head: str = "cls", markers: str = "relx", compat: bool = False) -> RelationOptions:
    return RelationOptions(0.5, True, compat, RelationHead(head), Markers(markers), None)


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Any:
    """A tokenizer with unused tokens."""
    from kbench.backbones.load import load_tokenizer

    return load_tokenizer(small_bert(tmp_path_factory.mktemp("bert"), PIECES))


@pytest.fixture
def other(tmp_path) -> Any:
    """A tokenizer without: byte-level, special tokens `<s>` and twice `</s>`."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    names = ["<s>", "<pad>", "</s>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    inner = Tokenizer(models.BPE(vocab={name: place for place, name in enumerate(names)}, merges=[], unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A </s> </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    special = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, **special)


def ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def test_unused_tokens_become_the_markers(bert):
    size = len(bert)
    found = with_markers(bert)
    assert list(found) == list(MARKERS) and len(bert) == size
    assert [bert.convert_ids_to_tokens(number) for number in found.values()] == [f"[unused{n}]" for n in range(1, 5)]


def test_other_tokenizers_get_new_ones_once(other):
    size = len(other)
    first = with_markers(other)
    assert list(first.items()) == [(marker, size + place) for place, marker in enumerate(MARKERS)]
    assert with_markers(other) == first and len(other) == size + 4


def test_a_worked_example(bert):
    marks = with_markers(bert)
    encoder = MarkerEncoder(bert, 64)
    (row,) = encoder.encode(["a <e1> b c </e1> d <e2> e </e2> ."])
    a, b, c, d, e, dot = (bert.convert_tokens_to_ids(piece) for piece in PIECES[:6])
    cls, sep = bert.cls_token_id, bert.sep_token_id
    expected = [cls, a, marks["<e1>"], b, c, marks["</e1>"], d, marks["<e2>"], e, marks["</e2>"], dot, sep]
    assert row.dtype == np.int32 and row.tolist() == expected
    assert (encoder.total, encoder.unknown, encoder.sequences) == (10, 0, 1)


def naive(tokenizer: Any, text: str, max_length: int, compat: bool) -> list[int]:
    """One text at a time, word by word, as RELX's script describes it."""
    marks = with_markers(tokenizer)
    for marker in MARKERS:
        text = text.replace(marker, f" {marker} ")
    found: list[int] = []
    run: list[str] = []
    for word in [*text.split(), None]:
        if word is None or word in MARKERS:
            found += ids(tokenizer, " ".join(run)) if run else []
            run = []
            found += [] if word is None else [marks[word]]
        elif not any(word.startswith(start) for start in ("http", "www", "**********", "-------")):
            run.append(word)
    full = tokenizer("")["input_ids"]
    before, after = full[:1], full[1:]
    whole = before + found + after
    if compat:
        return whole[: max_length - 1] if len(whole) >= max_length else whole
    return whole if len(whole) <= max_length else (before + found)[: max_length - len(after)] + after


@pytest.mark.parametrize("compat", [False, True])
@pytest.mark.parametrize("kind", ["bert", "other"])
@pytest.mark.parametrize("max_length", [12, 13, 24, 200])
def test_ids_equal_those_of_a_naive_second_implementation(max_length, kind, compat, request):
    tokenizer = request.getfixturevalue(kind)
    rng = random.Random(max_length)
    words = ["a", "bs", "c", "www.a.b", "https://a", "-------a", "-----", "***********", "é", "<e3>"]
    texts = []
    for _ in range(60):
        parts = [" ".join(rng.choices(words, k=rng.randrange(5))) for _ in range(5)]
        order = MARKERS if rng.random() < 0.5 else (*MARKERS[2:], *MARKERS[:2])
        texts.append("".join(part + marker for part, marker in zip(parts, [*order, ""], strict=True)))
    encoder = MarkerEncoder(tokenizer, max_length, options(compat=compat))
    rows = encoder.encode(texts[:25]) + encoder.encode(texts[25:])
    assert [row.tolist() for row in rows] == [naive(tokenizer, text, max_length, compat) for text in texts]
    starts = np.concatenate(encoder.arrays["starts"])
    assert starts.dtype == np.int32 and len(starts) == len(texts) and not starts.any()
    assert encoder.unknown == sum(row.tolist().count(tokenizer.unk_token_id) for row in rows)


def test_a_cut_sentence_keeps_its_final_token_unless_compat(bert):
    text = "a " * 20 + "<e1> b </e1> <e2> c </e2>"
    (row,) = MarkerEncoder(bert, 10).encode([text])
    assert len(row) == 10 and row[-1] == bert.sep_token_id
    (cut,) = MarkerEncoder(bert, 10, options(compat=True)).encode([text])
    assert len(cut) == 9 and bert.sep_token_id not in cut


# Other markers, and where a sentence is read.

TYPED = "a <e2:TITLE_OF_JOB> b  c </e2> d <e1:PERSON> e </e1> ."
SPELT = {
    "relx": "a {e2} b c {/e2} d {e1} e {/e1} .",
    "plain": "a # b c # d @ e @ .",
    "typed": "a # ^ title of job ^ b c # d @ * person * e @ .",
    "ernie": "a $ b c $ d # e # .",
}


@pytest.mark.parametrize("head", ["cls", "starts"])
@pytest.mark.parametrize("markers", SPELT)
def test_arguments_are_marked_as_asked_and_read_at_their_first_markers(markers, head, bert):
    encoder = MarkerEncoder(bert, 64, options(head, markers))
    (row,) = encoder.encode([TYPED])
    tokens = bert.convert_ids_to_tokens(row)
    named = {f"[unused{number}]": f"{{{marker[1:-1]}}}" for number, marker in enumerate(MARKERS, start=1)}
    assert " ".join(named.get(token, token) for token in tokens[1:-1]) == SPELT[markers]
    words = SPELT[markers].split()
    first = {"relx": ("{e1}", "{e2}"), "ernie": ("#", "$")}.get(markers, ("@", "#"))
    starts = [1 + words.index(mark) for mark in first]  # the subject's first
    (found,) = encoder.arrays["starts"]
    assert found.dtype == np.int32 and found.tolist() == ([0] if head == "cls" else starts)
    assert encoder.reads == len(found)


@pytest.mark.parametrize("markers", ["plain", "typed", "ernie"])
def test_words_of_other_markers_stay_and_no_token_is_added(markers, other):
    size = len(other)
    encoder = MarkerEncoder(other, 512, options("starts", markers))
    (row,) = encoder.encode(["www.a.b <e1:X> ----------- </e1> <e2:Y> b </e2>"])
    letters = "".join(other.convert_ids_to_tokens(row))
    assert len(other) == size and "www.a.b" in letters and "-----------" in letters


@pytest.mark.parametrize(("head", "markers"), [("starts", "relx"), ("starts", "plain"), ("cls", "plain")])
def test_a_long_sentence_keeps_the_first_markers_of_its_arguments(head, markers, bert):
    text = "a " * 20 + "<e1:P> b </e1> " + "c " * 30 + "<e2:Q> d </e2>" + " e" * 20
    encoder = MarkerEncoder(bert, 16, options(head, markers))
    (row,) = encoder.encode([text])
    first, second = ("[unused1]", "[unused3]") if markers == "relx" else ("@", "#")
    last = "[unused2]" if markers == "relx" else "@"
    stop = "[unused4]" if markers == "relx" else "#"
    expected = ["[CLS]", first, "b", last, *"cccc", second, "d", stop, *"eeee", "[SEP]"]
    assert bert.convert_ids_to_tokens(row) == expected
    assert encoder.arrays["starts"][0].tolist() == ([0] if head == "cls" else [1, 8])
    assert (encoder.total, encoder.unknown) == (14, 0)


def test_types_are_those_of_the_first_markers_that_tell_one():
    assert types(TYPED) == {"<e1": "PERSON", "<e2": "TITLE_OF_JOB"}
    assert types("<e1> a </e1> <e2:X> b </e2>") == {"<e2": "X"}


def test_segments_are_what_stands_around_the_markers():
    text = "x <e2>y</e2><e1> z </e1>"
    assert segments(text) == (["x ", "y", "", " z ", ""], (2, 3, 0, 1))
    assert segments(text.replace("e2>y", "e2:A>y").replace("<e1>", "<e1:B_C>")) == segments(text)


# The toy set.

TOY = SimpleNamespace(labels=list(LABELS))
HASHES = {
    ("train", "xa"): "8adfa01b4f0569dc",
    ("train", "xb"): "76ea37a90efa6c09",
    ("test", "xa"): "69203ab035e6c96f",
    ("test", "xb"): "b21e70c981e6aa44",
}


def made(split: str, lang: str) -> list[tuple[str, int]]:
    return list(generate(TOY, split, lang))  # type: ignore[arg-type]


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("lang", LANGUAGES)
def test_toy_rows_are_marked_are_the_same_everywhere_and_have_all_labels(lang, split):
    rows = made(split, lang)
    assert rows == made(split, lang) and len(rows) == SIZES[split]
    assert hashlib.sha256(repr(rows).encode()).hexdigest()[:16] == HASHES[split, lang]
    assert all(segments(text)[1] == (0, 1, 2, 3) for text, _ in rows)
    counts = Counter(label for _, label in rows)
    assert set(counts) == set(range(len(LABELS))) and min(counts.values()) > SIZES[split] / 20
    assert len(set(relations(LABELS))) == 4


def test_the_second_toy_language_shares_names_and_half_of_the_telling_words():
    words = {lang: {lang_word for text, _ in made("train", lang) for lang_word in text.split()} for lang in LANGUAGES}
    own, second = words["xa"], words["xb"]
    assert own - second and second - own
    names = {lang: {segments(text)[0][place].strip() for text, _ in made("train", lang) for place in (1, 3)}
             for lang in LANGUAGES}  # fmt: skip
    assert names["xa"] == names["xb"]
    told = [segments(text)[0][2].split() for text, label in made("test", "xb") if label]
    lent = sum(any(word in own for word in between) for between in told) / len(told)
    assert 0.4 < lent < 0.6
    assert not any(word in own - set().union(*names.values()) for text, label in made("test", "xb") if not label
                   for word in segments(text)[0][2].split())  # fmt: skip


@pytest.mark.parametrize(("labels", "lang"), [(list(LABELS), "de"), (list(LABELS)[::-1], "xa")])
def test_other_toy_languages_and_labels_are_refused(labels, lang):
    with pytest.raises(DataError, match=r"no language de|are not those of toy_relx"):
        next(generate(SimpleNamespace(labels=labels), "test", lang))  # type: ignore[arg-type]


# Real files.

ROWS = {"kbp37/train": 15917, "kbp37/dev": 1724, "kbp37/test": 3405} | {f"RELX/RELX_{lang}": 502 for lang in
        ("en", "es", "de", "fr", "tr")}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_real_files(name, real_data):
    import yaml

    from kbench import registry

    rows = list(kbp37(real_data / "relx-kbp37" / f"{name}.txt.gz", "utf-8"))
    labels = yaml.safe_load((registry.conf_root() / "data" / "relx.yaml").read_text())["labels"]
    assert len(rows) == ROWS[name]
    assert {label for _, _, label in rows} <= set(labels)
    assert labels == sorted(labels) and len(labels) == 37 and len(set(relations(labels))) == 19
    if name == "kbp37/train":
        counts = Counter(label for _, _, label in rows)
        assert set(counts) == set(labels)
        assert (counts["no_relation"], counts["per:employee_of(e1,e2)"]) == (1545, 1862)
        assert counts["org:alternate_names(e2,e1)"] == 233  # one of them has a blank at its end
        assert rows[0][0] == 1 and rows[0][1].startswith("<e1> Thom Yorke </e1> of <e2> Radiohead </e2>")
        assert sum(not all(piece.strip() for piece in segments(text)[0][1::2]) for _, text, _ in rows) == 110
