"""Reading treebanks: words as analysed and as written, every kind of broken file, and the real files."""

from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path

import conllu
import pytest

from kbench.data.treebanks import TREEBANK_READERS
from kbench.errors import DataError, Problem

Rows = list[tuple[int, list[str], list[str]]]

SEQUENCE = "words are 1, 2, 3; the range 3-4 stands before word 3, nodes without a word, 3.1 and 3.2, after it"


def row(place: str, form: str = "w", tag: str = "X") -> str:
    return "\t".join([place, form, "lemma", tag, "_", "Case=Nom|Number=Sing", "0", "root", "_", "SpaceAfter=No"])


def sentence(*lines: str) -> str:
    """Remarks, and lines given as "ID FORM UPOS"."""
    return "".join(f"{line if line.startswith('#') else row(*line.split())}\n" for line in lines) + "\n"


GERMAN = (
    sentence("# sent_id = 1", "# text = Er geht zum Haus.", "1 Er PRON", "2 geht VERB", "3-4 zum _", "3 zu ADP",
             "4 dem DET", "5 Haus NOUN", "5.1 _ _", "6 . PUNCT")
    + sentence("# text = Im Mai", "0.1 da ADV", "0.2 _ _", "1-2 Im _", "1 in ADP", "1.1 _ _", "2 dem DET", "# a remark",
               "3 Mai PROPN")
    + sentence("1-1 _ _", "1 _ SYM", "2-3 ab _", "2 a X", "3 b NUM", "4-5 cd _", "4 c ADJ", "5 d PART",
               "5.1 _ _", "5.2 _ _", "5.3 _ _")
)  # fmt: skip
SPLIT: Rows = [
    (3, ["Er", "geht", "zu", "dem", "Haus", "."], ["PRON", "VERB", "ADP", "DET", "NOUN", "PUNCT"]),
    (15, ["in", "dem", "Mai"], ["ADP", "DET", "PROPN"]),
    (22, ["_", "a", "b", "c", "d"], ["SYM", "X", "NUM", "ADJ", "PART"]),
]
FUSED: Rows = [
    (3, ["Er", "geht", "zum", "Haus", "."], ["PRON", "VERB", "ADP", "NOUN", "PUNCT"]),
    (15, ["Im", "Mai"], ["ADP", "PROPN"]),
    (22, ["_", "ab", "cd"], ["SYM", "X", "ADJ"]),
]


def write(path: Path, content: str | bytes, encoding: str = "utf-8") -> Path:
    """A file, gzipped where its name ends so."""
    raw = content if isinstance(content, bytes) else content.encode(encoding)
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


def read(reader: str, path: Path, encoding: str = "utf-8") -> Rows:
    return list(TREEBANK_READERS[reader](path, encoding))


def problem_of(reader: str, path: Path) -> Problem:
    """The one problem that reading a file ends with."""
    with pytest.raises(DataError) as raised:
        read(reader, path)
    (problem,) = raised.value.problems
    return problem


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize(("reader", "rows"), [("conllu", SPLIT), ("conllu_fused", FUSED)])
def test_words_as_they_are_analysed_and_as_they_are_written(
    reader: str, rows: Rows, ending: str, tmp_path: Path
) -> None:
    # a sentence begins at its first word or range, not at a remark or a node that is no word
    assert read(reader, write(tmp_path / f"file{ending}", GERMAN)) == rows


@pytest.mark.parametrize("reader", sorted(TREEBANK_READERS))
def test_odd_but_right_files(reader: str, tmp_path: Path) -> None:
    expected = [(2, ["nhà báo", "#", "\xa0x"], ["NOUN", "SYM", "X"]), (6, ["a  b"], ["X"])]
    odd = ["# one", row("1", "nhà báo", "NOUN"), row("2", "#", "SYM"), row("3", "\xa0x"), " ", row("1", "a  b")]
    windows = "\r\n".join([*odd, "", "# no words", "# at all"])
    assert read(reader, write(tmp_path / "windows", windows, "utf-8-sig")) == expected
    assert read(reader, write(tmp_path / "no_end", "\n".join(odd))) == expected
    assert read(reader, write(tmp_path / "latin", row("1", "é"), "latin-1"), "latin-1") == [(1, ["é"], ["X"])]
    assert read(reader, write(tmp_path / "empty", "")) == []


@pytest.mark.parametrize("reader", sorted(TREEBANK_READERS))
@pytest.mark.parametrize(
    ("lines", "line", "what", "hint"),
    [
        (["1 w _ X _ _ 0 root _ _"], 1, "has 1 column", "expected: the 10 of CoNLL-U, separated by tabs"),
        (["# one", "1\tw\t_\tX"], 2, "has 4 columns", "expected: the 10 of CoNLL-U, separated by tabs"),
        ([row("1"), row("2") + "\t"], 2, "has 11 columns", "expected: the 10 of CoNLL-U, separated by tabs"),
        *(
            ([row("1"), row(odd)], 2, f"unknown ID {odd!r}", "3, 3-4 and 3.1 are read")
            for odd in ("_", "", "a", "02", "3-2", "2-", "1.0", "2 ", "-2", "1-2-3", "２")
        ),
        ([row("1"), row("2", "")], 2, "has no word", "FORM, column 2, is empty"),
        ([row("1"), row("2", " \xa0")], 2, "has no word", "FORM, column 2, is empty"),
        ([row("1-2", ""), row("1"), row("2")], 1, "has no word", "FORM, column 2, is empty"),
        ([row("1"), row("2", tag="_")], 2, "has no part of speech", "UPOS, column 4, is '_'"),
        ([row("1-2"), row("1"), row("2", tag="")], 3, "has no part of speech", "UPOS, column 4, is ''"),
        ([row("0")], 1, "ID 0 stands before the first word", SEQUENCE),
        ([row("2")], 1, "ID 2 stands before the first word", SEQUENCE),
        ([row("1"), row("3")], 2, "ID 3 stands after word 1", SEQUENCE),
        ([row("1"), row("2"), row("2")], 3, "ID 2 stands after word 2", SEQUENCE),
        ([row("1"), "", row("2")], 3, "ID 2 stands before the first word", SEQUENCE),
        ([row("1"), row("3-4")], 2, "ID 3-4 stands after word 1", SEQUENCE),
        ([row("1"), row("1-2"), row("2")], 2, "ID 1-2 stands after word 1", SEQUENCE),
        ([row("1-3"), row("1"), row("2-3"), row("2")], 3, "ID 2-3 stands after word 1", SEQUENCE),
        ([row("1"), row("1.2")], 2, "ID 1.2 stands after word 1", SEQUENCE),
        ([row("1"), row("1.1"), row("1.1")], 3, "ID 1.1 stands after word 1", SEQUENCE),
        ([row("1"), row("1.1"), row("2"), row("2.2")], 4, "ID 2.2 stands after word 2", SEQUENCE),
        ([row("1"), row("2.1")], 2, "ID 2.1 stands after word 1", SEQUENCE),
        (["", row("1"), row("2-4"), row("2")], 3, "begins a range up to word 4; its sentence ends with word 2", ""),
        ([row("1"), "", "# one", row("0.1")], 4, "begins a sentence without words", ""),
    ],
)
def test_a_broken_line_is_named(lines: list[str], line: int, what: str, hint: str, reader: str, tmp_path: Path) -> None:
    path = write(tmp_path / "file", "\n".join(lines))
    assert problem_of(reader, path) == Problem(f"{path}, line {line}", what, hint)


def test_a_byte_of_another_encoding_and_sentences_before_a_broken_one(tmp_path: Path) -> None:
    path = write(tmp_path / "file", sentence("1 w X").encode() + row("1", "é").encode("latin-1"))
    reader = TREEBANK_READERS["conllu"](path, "utf-8")
    assert next(reader) == (1, ["w"], ["X"])
    with pytest.raises(DataError) as raised:
        next(reader)
    hint = "convert the file to UTF-8 or name its encoding, data.encoding=latin-1 for instance"
    assert raised.value.problems == [Problem(f"{path}, line 3", "is not UTF-8 (byte 0xe9)", hint)]


# file -> sentences and words, as the READMEs of the real data give them
COUNTS = {
    "ud/UD_English-EWT/en_ewt-ud-train": (12544, 204577),
    "ud/UD_Korean-GSD/ko_gsd-ud-train": (4400, 56687),
    "ud/UD_Chinese-r1.4/zh-ud-dev": (500, 12663),
    "ud/UD_Japanese-r1.4/ja-ud-test": (299, 2760),
    "ud/UD_Japanese-GSD/ja_gsd-ud-test": (543, 13034),
    "ud/UD_Arabic-r1.2/ar-ud-test": (704, 28268),
}


@pytest.mark.parametrize("name", sorted(COUNTS))
def test_real_treebanks_have_the_sentences_and_words_they_should(name: str, real_data: Path) -> None:
    rows = read("conllu", real_data / f"{name}.conllu.gz")
    assert all(len(words) == len(tags) for _, words, tags in rows)
    assert (len(rows), sum(len(words) for _, words, _ in rows)) == COUNTS[name]


@pytest.mark.parametrize("name", ["ud/UD_German-GSD/de_gsd-ud-test", "ud/UD_Spanish-GSD/es_gsd-ud-test"])
def test_both_readers_agree_with_the_package_on_real_ranges(name: str, real_data: Path) -> None:
    path = real_data / f"{name}.conllu.gz"
    content = gzip.decompress(path.read_bytes()).decode()
    split, fused = [], []
    for parsed in conllu.parse(content):
        words = [token for token in parsed if isinstance(token["id"], int)]
        split.append(([token["form"] for token in words], [token["upos"] for token in words]))
        ranges = {token["id"][0]: token for token in parsed if isinstance(token["id"], tuple)}
        inside = {part for one in ranges.values() for part in range(one["id"][0] + 1, one["id"][2] + 1)}
        kept = [token for token in words if token["id"] not in inside]
        forms = [ranges.get(token["id"], token)["form"] for token in kept]
        fused.append((forms, [token["upos"] for token in kept]))
    assert len(split) > 400
    assert split != fused
    assert [(words, tags) for _, words, tags in read("conllu", path)] == split
    assert [(words, tags) for _, words, tags in read("conllu_fused", path)] == fused


def test_real_words_with_spaces_inside(real_data: Path) -> None:
    rows = read("conllu", real_data / "ud-treebanks" / "vi_vtb-ud-train.conllu.gz")
    assert len(rows) == 1400
    spaces = Counter(" " in word for _, words, _ in rows for word in words)
    assert spaces == {True: 4535, False: 20215 - 4535}
