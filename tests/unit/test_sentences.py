"""Reading files of tagged words: every format with its oddities, every kind of broken file, and the real files."""

from __future__ import annotations

import gzip
import hashlib
import random
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from kbench.data.readers import lines
from kbench.data.sentences import SENTENCE_READERS, iob2
from kbench.data.toy_entities import SIZES, TYPES, generate
from kbench.errors import DataError, Problem

Rows = list[tuple[int, list[str], list[str]]]

# name -> reader, content, sentences
FORMATS: dict[str, tuple[str, str, Rows]] = {
    "english": (
        "conll_columns",
        "-DOCSTART- -X- O O\n\n"
        "EU NNP I-NP I-ORG\nrejects VBZ I-VP O\nGerman JJ I-NP I-MISC\ncall NN I-NP O\n\n"
        # two entities of a type side by side, and two of different ones
        "Britain NNP I-NP I-LOC\nFrance NNP B-NP B-LOC\nWest NNP I-NP I-LOC\nEU NNP I-NP I-ORG\n\n"
        "-DOCSTART- -X- O O\n\n"
        "Peter NNP I-NP I-PER\nBlackburn NNP I-NP I-PER\n",
        [
            (3, ["EU", "rejects", "German", "call"], ["B-ORG", "O", "B-MISC", "O"]),
            (8, ["Britain", "France", "West", "EU"], ["B-LOC", "B-LOC", "I-LOC", "B-ORG"]),
            (15, ["Peter", "Blackburn"], ["B-PER", "I-PER"]),
        ],
    ),
    "spanish": (
        "conll_columns",
        "Melbourne B-LOC\n( O\nAustralia B-LOC\n) O\n\nEl O\nAbogado B-PER\nGeneral I-PER\n",
        [
            (1, ["Melbourne", "(", "Australia", ")"], ["B-LOC", "O", "B-LOC", "O"]),
            (6, ["El", "Abogado", "General"], ["O", "B-PER", "I-PER"]),
        ],
    ),
    "dutch": (
        "conll_columns",
        "-DOCSTART- -DOCSTART- O\nDe Art O\nItalië N B-LOC\n. Punc O\n\n-DOCSTART- -DOCSTART- O\nPicqué N B-PER\n",
        [(2, ["De", "Italië", "."], ["O", "B-LOC", "O"]), (7, ["Picqué"], ["B-PER"])],
    ),
    "wikiann": (
        "wikiann",
        "New York\tB-LOC\nre:Invent\tO\n\n東\tI-LOC\n京\tI-LOC\nu\xa0v\tO\n",
        [(1, ["New York", "re:Invent"], ["B-LOC", "O"]), (4, ["東", "京", "u\xa0v"], ["B-LOC", "I-LOC", "O"])],
    ),
    "wikiann_original": (
        "wikiann",
        "zh-min-nan:Tâi\tB-LOC\nzh-min-nan:a:b\tO\n\nzh-min-nan:zh-min-nan:\tO\n",
        [(1, ["Tâi", "a:b"], ["B-LOC", "O"]), (4, ["zh-min-nan:"], ["O"])],
    ),
    "brackets": (
        "conll_brackets",
        "#begin document (nw/wsj/00/wsj_0020); part 000\n"
        "nw/wsj/00/wsj_0020   0   0   The   DT   (TOP(S(NP*   -   -   -   -   (WORK_OF_ART*   (ARG0*   (3\n"
        "nw/wsj/00/wsj_0020   0   1   U.S.   NNP   *   -   -   -   A.B.   *   *   -\n"
        "nw/wsj/00/wsj_0020   0   2   -LRB-   -LRB-   *)   -   -   -   -   *)   *)   3)\n"
        "nw/wsj/00/wsj_0020   0   3   Taiwan   NNP   (NP*)   -   -   -   -   (GPE)   *   -\n"
        "nw/wsj/00/wsj_0020   0   4   Sony   NNP   (NP*)   -   -   -   -   (ORG*)   *   -\n"
        "nw/wsj/00/wsj_0020   0   5   .   .   *))   -   -   -   -   *   *   -\n"
        "\n"
        "nw/wsj/00/wsj_0020   0   0   Right   UH   (TOP*)   -   -   -   -   *   -\n"
        "\n"
        "#end document\n"
        "#begin document (nw/wsj/00/wsj_0020); part 001\n"
        "nw/wsj/00/wsj_0020\t1\t0\tIn\tIN\t(TOP*\t-\t-\t-\t-\t*\t-\n"
        "nw/wsj/00/wsj_0020\t1\t1\tlate\tJJ\t*\t-\t-\t-\t-\t(DATE*\t-\n"
        "nw/wsj/00/wsj_0020\t1\t2\t1990\tCD\t*)\t-\t-\t-\t-\t*)\t-\n"
        "#end document\n",
        [
            (
                2,
                ["The", "U.S.", "-LRB-", "Taiwan", "Sony", "."],
                ["B-WORK_OF_ART", "I-WORK_OF_ART", "I-WORK_OF_ART", "B-GPE", "B-ORG", "O"],
            ),
            (9, ["Right"], ["O"]),
            (13, ["In", "late", "1990"], ["O", "B-DATE", "I-DATE"]),
        ],
    ),
}

# file of CoNLL-2002 -> sentences and words, as the README of the real data gives them
CONLL = {
    "esp.train": (8323, 264715),
    "esp.testa": (1915, 52923),
    "esp.testb": (1517, 51533),
    "ned.train": (15806, 202644),
    "ned.testa": (2895, 37687),
    "ned.testb": (5195, 68875),
}


def write(path: Path, content: str | bytes, encoding: str = "utf-8") -> Path:
    """A file, gzipped where its name ends so."""
    raw = content if isinstance(content, bytes) else content.encode(encoding)
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


def read(reader: str, path: Path, encoding: str = "utf-8") -> Rows:
    return list(SENTENCE_READERS[reader](path, encoding))


def problem_of(reader: str, path: Path, encoding: str = "utf-8") -> Problem:
    """The one problem that reading a file ends with."""
    with pytest.raises(DataError) as raised:
        read(reader, path, encoding)
    (problem,) = raised.value.problems
    return problem


# Formats.


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("name", sorted(FORMATS))
def test_a_reader_gives_the_sentences_of_its_format(name: str, ending: str, tmp_path: Path) -> None:
    reader, content, rows = FORMATS[name]
    assert read(reader, write(tmp_path / f"file{ending}", content)) == rows


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_windows_line_ends_a_mark_at_the_beginning_and_more_blank_lines(name: str, tmp_path: Path) -> None:
    reader, content, rows = FORMATS[name]
    odd = "\n \t\n" + content.replace("\n\n", "\n\n\n\u3000\n")
    path = write(tmp_path / "file", odd.replace("\n", "\r\n"), "utf-8-sig")
    found = read(reader, path)
    assert [row[1:] for row in found] == [row[1:] for row in rows]
    assert all(words[0] in odd.split("\n")[line - 1] for line, words, _ in found)
    assert found[0][0] == rows[0][0] + (4 if content.startswith("-DOCSTART- -X-") else 2)
    assert read(reader, path, "utf-8-sig") == found


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_the_last_sentence_needs_no_end(name: str, tmp_path: Path) -> None:
    reader, content, rows = FORMATS[name]
    short = content.removesuffix("#end document\n").removesuffix("\n")
    assert read(reader, write(tmp_path / "file", short)) == rows
    assert read(reader, write(tmp_path / "file", f"{short}\n\n\n")) == rows


def test_a_file_in_latin_1(tmp_path: Path) -> None:
    reader, content, rows = FORMATS["dutch"]
    path = write(tmp_path / "ned.train.gz", content, "latin-1")
    assert read(reader, path, "latin-1") == read(reader, path, "ISO-8859-1") == rows


@pytest.mark.parametrize("space", ["\xa0", "\u3000", "\u2028", "\x85", "\x0b", "\x0c", "\x1c", "\r"])
@pytest.mark.parametrize("by", [" ", "\t"])
def test_other_white_space_stands_inside_words(space: str, by: str, tmp_path: Path) -> None:
    path = write(tmp_path / "file", f"10{space}000{by}CD{by}O\nEU{by}NNP{by}B-ORG\n")
    assert read("conll_columns", path) == [(1, [f"10{space}000", "EU"], ["O", "B-ORG"])]
    path = write(tmp_path / "file", f"10{space}000\tO\n")
    assert read("wikiann", path) == [(1, [f"10{space}000"], ["O"])]
    row = ["nw/1", "0", "0", f"10{space}000", "CD", "(TOP*)", "-", "-", "-", "-", "(CARDINAL)", "-"]
    path = write(tmp_path / "file", by.join(row))
    assert read("conll_brackets", path) == [(1, [f"10{space}000"], ["B-CARDINAL"])]


def test_columns_are_split_at_tabs_or_at_runs_of_spaces(tmp_path: Path) -> None:
    path = write(tmp_path / "file", " EU   NNP  B-ORG \nrejects VBZ O\n")
    assert read("conll_columns", path) == [(1, ["EU", "rejects"], ["B-ORG", "O"])]
    path = write(tmp_path / "file", "-DOCSTART-\tO\n\nNew York\tB-LOC\n5 1/2\tO\n")
    assert read("conll_columns", path) == [(3, ["New York", "5 1/2"], ["B-LOC", "O"])]


def test_a_document_start_may_have_any_columns_and_needs_no_blank_line(tmp_path: Path) -> None:
    path = write(tmp_path / "file", "-DOCSTART-\nEU B-ORG\n-DOCSTART- -X- O O\n-DOCSTART-s O\n-DOCSTART-\n")
    assert read("conll_columns", path) == [(2, ["EU"], ["B-ORG"]), (4, ["-DOCSTART-s"], ["O"])]


def test_only_a_prefix_that_all_words_of_the_first_sentence_have_is_one(tmp_path: Path) -> None:
    for words in (["en:EU", "de:EU"], ["en:EU", "EU"], ["EN:EU"], ["e:EU"], [f"e{'n' * 12}:EU"], [":EU"], ["en-EU"]):
        path = write(tmp_path / "file", "".join(f"{word}\tO\n" for word in words))
        assert read("wikiann", path) == [(1, words, ["O"] * len(words))]


@pytest.mark.parametrize("reader", sorted(SENTENCE_READERS))
def test_a_file_without_words_has_no_sentences(reader: str, tmp_path: Path) -> None:
    marks = {"conll_columns": "-DOCSTART- O\n", "conll_brackets": "#begin document (a)\n#end document\n"}
    for content in ("", "\n \n", marks.get(reader, "")):
        assert read(reader, write(tmp_path / "file", content)) == []


def test_every_reader_is_tested() -> None:
    assert set(SENTENCE_READERS) == {reader for reader, _, _ in FORMATS.values()}


# Tags.


def spans_of(tags: list[str]) -> list[tuple[int, int, str]]:
    """The (first, end, type) of entities, as the shared tasks' scorer finds them in IOB1 and IOB2."""
    spans, start = [], None
    for index, tag in enumerate([*tags, "O"]):
        before = tags[index - 1] if index else "O"
        ends = before != "O" and (tag == "O" or tag[0] == "B" or tag[2:] != before[2:])
        begins = tag != "O" and (before == "O" or tag[0] == "B" or tag[2:] != before[2:])
        if ends:
            spans.append((start, index, before[2:]))
        if begins:
            start = index
    return spans


def spelt(spans: Iterable[tuple[int, int, str]], length: int, iob1: bool) -> list[str]:
    """Tags of spans; in IOB1 an entity begins with B- only straight after one of its type."""
    tags = ["O"] * length
    for start, end, kind in spans:
        after_its_like = start > 0 and tags[start - 1][2:] == kind
        first = "I" if iob1 and not after_its_like else "B"
        tags[start:end] = [f"{first}-{kind}"] + [f"I-{kind}"] * (end - start - 1)
    return tags


def test_worked_examples_of_tags() -> None:
    assert iob2([]) == []
    assert iob2(["I-PER", "I-PER", "B-PER", "I-PER"]) == ["B-PER", "I-PER", "B-PER", "I-PER"]
    assert iob2(["O", "I-PER", "I-ORG", "O", "I-ORG"]) == ["O", "B-PER", "B-ORG", "O", "B-ORG"]
    assert iob2(["B-PER", "I-ORG", "I-ORG"]) == ["B-PER", "B-ORG", "I-ORG"]


@pytest.mark.parametrize("seed", range(20))
def test_tags_of_random_entities_are_read_from_iob1_and_iob2(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(50):
        spans, at = [], 0
        while at < 20:
            size = rng.randint(1, 3)
            if rng.random() < 0.6:
                spans.append((at, at + size, rng.choice(["PER", "ORG", "WORK_OF_ART", "X-Y"])))
            at += size
        expected = spelt(spans, at, iob1=False)
        assert iob2(spelt(spans, at, iob1=True)) == iob2(expected) == expected
        assert spans_of(expected) == spans


@pytest.mark.parametrize("seed", range(20))
def test_any_sequence_becomes_iob2_with_the_entities_of_the_scorer(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(50):
        tags = rng.choices(["O", "B-A", "I-A", "B-B", "I-B"], k=rng.randint(0, 12))
        found = iob2(tags)
        assert found == spelt(spans_of(tags), len(tags), iob1=False)
        assert iob2(found) == found


@pytest.mark.parametrize(
    "tag", ["S-PER", "E-PER", "L-PER", "U-PER", "PER", "B", "I-", "b-PER", "o", "", "B-PER ", "B_PER"]
)
def test_other_tags_are_named_with_the_schemes_that_are_read(tag: str) -> None:
    with pytest.raises(DataError) as raised:
        iob2(["O", "B-PER", tag])
    (problem,) = raised.value.problems
    assert (problem.where, problem.what) == ("tag 3", f"unknown tag {tag!r}")
    assert problem.hint == "IOB1 and IOB2 are read: O, B-TYPE and I-TYPE; convert others, such as IOBES or BILOU"


# Broken files.


@pytest.mark.parametrize("reader", ["conll_columns", "wikiann"])
def test_an_unknown_tag_names_file_and_line(reader: str, tmp_path: Path) -> None:
    path = write(tmp_path / "file", "a\tO\n\nb\tB-PER\nc\tE-PER\n")
    problem = problem_of(reader, path)
    assert (problem.where, problem.what) == (f"{path}, line 4", "unknown tag 'E-PER'")
    assert "IOB1 and IOB2 are read" in problem.hint


@pytest.mark.parametrize(
    ("content", "line", "what", "hint"),
    [
        ("EU\n", 1, "has 1 column", "expected: at least 2, first the word and last its tag"),
        ("-DOCSTART- O\n\nEU\n", 3, "has 1 column", "expected: at least 2, first the word and last its tag"),
        ("a DT O\n\nb NN I-NP O\n", 3, "has 4 columns", "expected: 3, as on line 1, separated by spaces"),
        ("-DOCSTART-\na DT O\nb O\n", 3, "has 2 columns", "expected: 3, as on line 2, separated by spaces"),
        ("a b\tO\nc d e\n", 2, "has 1 column", "expected: 2, as on line 1, separated by tabs"),
        ("a\tO\nb\tO\t\n", 2, "has 3 columns", "expected: 2, as on line 1, separated by tabs"),
        ("a O\nb\tO\n", 2, "has 1 column", "expected: 2, as on line 1, separated by spaces"),
    ],
)
def test_other_columns_than_the_first_line_has(content: str, line: int, what: str, hint: str, tmp_path: Path) -> None:
    path = write(tmp_path / "file", content)
    assert problem_of("conll_columns", path) == Problem(f"{path}, line {line}", what, hint)


@pytest.mark.parametrize(("line", "what"), [("b", "has no tag"), ("b O", "has no tag"), ("b\tNN\tO", "has 3 columns")])
def test_a_line_of_wikiann_has_two_columns(line: str, what: str, tmp_path: Path) -> None:
    path = write(tmp_path / "file", f"a\tO\n\n{line}\n")
    found = problem_of("wikiann", path)
    assert (found.where, found.what) == (f"{path}, line 3", what)
    assert ("XTREME distributes" in found.hint) == (what == "has no tag")


def test_a_word_without_the_prefix_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "file", "\nen:a\tO\nen:b\tO\n\nen:c\tO\nde:d\tO\n")
    hint = "the words of the first sentence, from line 2 on, all do"
    assert problem_of("wikiann", path) == Problem(f"{path}, line 6", "'de:d' does not begin with 'en:'", hint)


@pytest.mark.parametrize(
    ("reader", "content"),
    [
        ("conll_columns", "a\tO\n\n\tB-PER\n"),
        ("conll_columns", "a O\n\n\xa0 B-PER\n"),
        ("wikiann", "a\tO\n\n \tB-PER\n"),
        ("wikiann", "en:a\tO\n\nen:\tB-PER\n"),
    ],
)
def test_a_tag_without_a_word(reader: str, content: str, tmp_path: Path) -> None:
    path = write(tmp_path / "file", content)
    assert problem_of(reader, path) == Problem(f"{path}, line 3", "has a tag but no word")


def brackets(*entities: str, word: str = "w") -> str:
    """A document of one sentence; its first word is on line 2."""
    rows = "".join(f"nw/1 0 {row} {word} NN * - - - - {entity} -\n" for row, entity in enumerate(entities))
    return f"#begin document (nw/1); part 000\n{rows}\n#end document\n"


@pytest.mark.parametrize(
    ("entities", "line", "what", "hint"),
    [
        (["(ORG*", "*"], 2, "begins ORG, which its sentence does not end", ""),
        (["*", "*)"], 3, "ends an entity that has not begun", "column 11 is *)"),
        (["(GPE)", "*)"], 3, "ends an entity that has not begun", "column 11 is *)"),
        (["(ORG*", "(GPE)", "*)"], 3, "GPE begins inside ORG", "ORG is open from line 2"),
        (["(ORG*", "*", "(GPE*", "*)"], 4, "GPE begins inside ORG", "ORG is open from line 2"),
        *(
            (["*", odd], 3, f"unknown entity {odd!r}", "column 11 is the named entity: (TYPE*, *, *) or (TYPE)")
            for odd in ("-", "(ORG", "ORG*)", "((ORG*", "*))", "()", "(*)", "O", "(A(B*", "(A*)*)")
        ),
    ],
)
def test_brackets_that_do_not_pair(entities: list[str], line: int, what: str, hint: str, tmp_path: Path) -> None:
    path = write(tmp_path / "wsj.gold_conll", brackets(*entities))
    assert problem_of("conll_brackets", path) == Problem(f"{path}, line {line}", what, hint)


def test_an_entity_does_not_go_on_over_the_end_of_a_document(tmp_path: Path) -> None:
    path = write(tmp_path / "wsj.gold_conll", brackets("(ORG*").replace("\n\n", "\n") + brackets("*)"))
    assert problem_of("conll_brackets", path).where == f"{path}, line 2"


def test_a_release_without_words_says_what_to_do_first(tmp_path: Path) -> None:
    path = write(tmp_path / "wsj.gold_skel", brackets("(ORG)", word="[WORD]"))
    problem = problem_of("conll_brackets", path)
    assert (problem.where, problem.what) == (f"{path}, line 2", "has [WORD] in place of the word")
    assert "merge them in from the OntoNotes 5.0 release" in problem.hint


def test_columns_too_few_for_named_entities(tmp_path: Path) -> None:
    path = write(tmp_path / "file", "#begin document (nw/1); part 000\nEU NNP I-NP I-ORG\n")
    hint = "expected: at least 11, column 4 the word and 11 the named entity"
    assert problem_of("conll_brackets", path) == Problem(f"{path}, line 2", "has 4 columns", hint)


def test_sentences_before_a_broken_line_are_given(tmp_path: Path) -> None:
    reader = SENTENCE_READERS["conll_columns"](write(tmp_path / "file", "a O\n\nb O\nc S-X\n"), "utf-8")
    assert next(reader) == (1, ["a"], ["O"])
    with pytest.raises(DataError):
        next(reader)


# Encodings.


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("reader", sorted(SENTENCE_READERS))
def test_a_byte_of_another_encoding_names_file_line_byte_and_the_way_out(
    reader: str, ending: str, tmp_path: Path
) -> None:
    content = next(content for of, content, _ in FORMATS.values() if of == reader)
    path = write(tmp_path / f"file{ending}", content.encode() + b"\nItali\xeb\tO\n")
    number = content.count("\n") + 2
    hint = "convert the file to UTF-8 or name its encoding, data.encoding=latin-1 for instance"
    assert problem_of(reader, path) == Problem(f"{path}, line {number}", "is not UTF-8 (byte 0xeb)", hint)


def test_a_byte_that_an_encoding_does_not_have(tmp_path: Path) -> None:
    path = write(tmp_path / "file", b"a O\n\xe9\x81 O\n")
    problem = problem_of("conll_columns", path, "cp1252")
    assert (problem.where, problem.what) == (f"{path}, line 2", "is not cp1252 (byte 0x81)")
    assert "data.encoding=latin-1" in problem.hint


@pytest.mark.parametrize(
    "encoding", ["latin-99", "", "utf-88", "base64", "rot13", "undefined", "idna", "a\0b", "\udc80"]
)
def test_an_unknown_encoding_is_named(encoding: str, tmp_path: Path) -> None:
    path = write(tmp_path / "file", "a O\n")
    hint = "utf-8, latin-1 or cp1252, for instance"
    expected = Problem(f"data.encoding={encoding}", "is no text encoding that Python knows", hint)
    assert problem_of("conll_columns", path, encoding) == expected


@pytest.mark.parametrize("encoding", ["utf-16", "UTF-32", "utf-16-le", "cp037", "utf-7"])
def test_an_encoding_with_other_line_ends_is_refused(encoding: str, tmp_path: Path) -> None:
    path = write(tmp_path / "file", "a O\n", encoding)
    expected = Problem(
        f"data.encoding={encoding}", "does not keep ASCII, so lines are not found", "convert the file to UTF-8"
    )
    assert problem_of("conll_columns", path, encoding) == expected


def test_lines_pass_over_blank_ones_unless_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "file", "one\r\n\n \ntwo", "utf-8-sig")
    assert list(lines(path)) == [(1, "one"), (4, "two")]
    assert list(lines(path, blank=True)) == [(1, "one"), (2, ""), (3, " "), (4, "two")]


def test_a_damaged_gzip_file_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "file.gz", "a O\n" * 5)
    path.write_bytes(path.read_bytes()[:-4])
    problem = problem_of("conll_columns", path)
    assert problem.where == f"{path}, after line 5"
    assert "is a damaged gzip file" in problem.what


# Real files.


def counts(rows: Rows) -> tuple[int, int]:
    assert all(len(words) == len(tags) for _, words, tags in rows)
    return len(rows), sum(len(words) for _, words, _ in rows)


def entities_read(rows: Rows) -> Counter[str]:
    return Counter(tag[2:] for _, _, tags in rows for tag in tags if tag.startswith("B-"))


def entities_counted(raw: bytes) -> Counter[str]:
    """Entities of each type by the tags at the ends of lines."""
    found: Counter[str] = Counter()
    before = b"O"
    for line in raw.split(b"\n"):
        tag = re.split(rb"[ \t]", line)[-1] or b"O"
        if tag.startswith(b"B-") or (tag.startswith(b"I-") and tag[2:] != before[2:]):
            found[tag[2:].decode()] += 1
        before = tag
    return found


@pytest.mark.parametrize("name", [name for name in CONLL if name.startswith("esp")])
def test_real_spanish_files(name: str, real_data: Path) -> None:
    path = real_data / "conll2002" / f"{name}.gz"
    rows = read("conll_columns", path)
    assert counts(rows) == CONLL[name]
    assert entities_read(rows) == entities_counted(gzip.decompress(path.read_bytes()))
    assert set(entities_read(rows)) == {"PER", "ORG", "LOC", "MISC"}


@pytest.mark.parametrize("name", [name for name in CONLL if name.startswith("ned")])
def test_real_dutch_files(name: str, real_data: Path, tmp_path: Path) -> None:
    # This copy was once taken for Shift-JIS: a letter that is none there became 0x81 E together with the byte after it,
    # at the end of a word the space. Such a file is refused; with the spaces put back it is read.
    path = real_data / "conll2002" / f"{name}.gz"
    raw = gzip.decompress(path.read_bytes())
    found = raw.split(b"\n")
    harmed = [number for number, line in enumerate(found, start=1) if line.count(b" ") == 1]
    problem = problem_of("conll_columns", path, "latin-1")
    assert (problem.where, problem.what) == (f"{path}, line {harmed[0]}", "has 2 columns")
    for number in harmed:
        word, cut, rest = found[number - 1].rpartition(b"\x81E")
        assert cut
        found[number - 1] = word + cut + b" " + rest
    mended = write(tmp_path / name, b"\n".join(found))
    rows = read("conll_columns", mended, "latin-1")
    assert counts(rows) == CONLL[name]
    assert entities_read(rows) == entities_counted(raw)
    problem = problem_of("conll_columns", mended)
    assert problem.what.startswith("is not UTF-8 (byte 0x")


def test_real_wikiann_files(real_data: Path) -> None:
    folder = real_data / "wikiann-panx"
    for name, sentences in (("train-en.tsv.gz", 20000), ("labelled-test/en/test.gz", 10000)):
        rows = read("wikiann", folder / name)
        assert counts(rows)[0] == sentences
        assert entities_read(rows) == entities_counted(gzip.decompress((folder / name).read_bytes()))
        assert set(entities_read(rows)) == {"PER", "ORG", "LOC"}
    # the words of the labelled test, without their prefix, are those of the test without tags
    raw = gzip.decompress((folder / "test-en.tsv.gz").read_bytes()).decode().split("\n")
    assert [word for _, words, _ in rows for word in words] == [word for word in raw if word]
    assert problem_of("wikiann", folder / "test-en.tsv.gz").what == "has no tag"


def test_real_wikiann_files_with_entities_that_begin_with_i(real_data: Path) -> None:
    path = real_data / "wikiann-panx" / "dev-ja.tsv.gz"
    raw = gzip.decompress(path.read_bytes())
    rows = read("wikiann", path)
    assert entities_read(rows) == entities_counted(raw)
    assert sum(entities_read(rows).values()) == len(re.findall(rb"\tB-", raw)) + 501


# Generated sentences.


def test_generated_sentences_are_of_the_promised_kind() -> None:
    for split, size in SIZES.items():
        rows = list(generate(split))
        assert len(rows) == size
        assert all(len(words) == len(tags) and 6 <= len(words) <= 14 for words, tags in rows)
        assert all(iob2(tags) == tags for _, tags in rows)
        spans = [span for _, tags in rows for span in spans_of(tags)]
        assert {end - start for start, end, _ in spans} == {1, 2, 3}
        assert abs(len(spans) / size - 1.5) < 0.15
        by_type = Counter(kind for _, _, kind in spans)
        assert set(by_type) == set(TYPES)
        assert min(by_type.values()) > 0.8 * max(by_type.values())


def test_generated_types_share_words_only_with_their_partner_in_the_other_half() -> None:
    types: dict[str, set[str]] = {}
    for words, tags in generate("train"):
        for word, tag in zip(words, tags, strict=True):
            if tag != "O":
                types.setdefault(word, set()).add(tag[2:])
    shared = Counter(frozenset(found) for found in types.values() if len(found) > 1)
    assert set(shared) == {frozenset({"PER", "ORG"}), frozenset({"MISC", "LOC"})}
    assert min(shared.values()) >= 15
    idle = {word for words, tags in generate("train") for word, tag in zip(words, tags, strict=True) if tag == "O"}
    assert not idle & set(types)


def test_generated_sentences_are_the_same_everywhere_and_differ_between_splits() -> None:
    hashes = {
        split: hashlib.sha256(repr(list(generate(split))).encode()).hexdigest()[:16] for split in ("train", "test")
    }
    assert hashes == {"train": "4f4851537a148457", "test": "e4167fafb9b5ceaf"}
    train = {tuple(words) for words, _ in generate("train")}
    assert len(train) == SIZES["train"]
    assert not train & {tuple(words) for words, _ in generate("test")}
