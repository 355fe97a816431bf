"""XTREME's pairs of sentences: both forms of each file, those without labels, broken ones, and the real files."""

from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path

import pytest

from kbench.config.compose import compose
from kbench.data.sentences import SENTENCE_READERS
from kbench.data.source import locate
from kbench.data.xtreme import XTREME_READERS
from kbench.errors import DataError, Problem

Rows = list[tuple[int, list[str], str]]


def write(path: Path, content: str) -> Path:
    raw = content.encode()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


def read(reader: str, path: Path) -> Rows:
    return list(XTREME_READERS[reader](path, "utf-8"))


def problem_of(reader: str, path: Path) -> Problem:
    with pytest.raises(DataError) as raised:
        read(reader, path)
    (problem,) = raised.value.problems
    return problem


# Formats.


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_xnli_without_a_header_and_multinli_with_one(ending: str, tmp_path: Path) -> None:
    plain = write(tmp_path / f"dev-de.tsv{ending}", "Er kam.\tSie kam.\tneutral\n\nA\tB\tcontradiction\r\n")
    assert read("xnli_tsv", plain) == [(1, ["Er kam.", "Sie kam."], "neutral"), (3, ["A", "B"], "contradiction")]
    whole = write(tmp_path / f"multinli.train.en.tsv{ending}", "premise\thypo\tlabel\nA .\tB .\tcontradictory\n")
    assert read("xnli_tsv", whole) == [(2, ["A .", "B ."], "contradiction")]
    # the same words as a row
    row = write(tmp_path / f"row.tsv{ending}", "premise\thypo\tentailment\n")
    assert read("xnli_tsv", row) == [(1, ["premise", "hypo"], "entailment")]


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_pawsx_of_xtreme_and_of_the_release(ending: str, tmp_path: Path) -> None:
    expected = [["a b", "b a"], ["c", "d"]]
    xtreme = write(tmp_path / f"dev-en.tsv{ending}", "a b\tb a\t0\nc\td\t1 \n")
    assert read("pawsx_tsv", xtreme) == [(1, expected[0], "0"), (2, expected[1], "1")]
    release = "id\tsentence1\tsentence2\tlabel\n1\ta b\tb a\t0\n12\tc\td\t1\n"
    assert read("pawsx_tsv", write(tmp_path / f"test_2k.tsv{ending}", release)) == [
        (2, expected[0], "0"),
        (3, expected[1], "1"),
    ]


@pytest.mark.parametrize(
    ("spelt", "text"),
    [
        ('"Das ""IPA"" besteht"', 'Das "IPA" besteht'),
        ('"""IPA"" besteht"', '"IPA" besteht'),
        ('"""ja"""', '"ja"'),
        # not as a CSV writer has it: it would have doubled the quotes, or added none
        ('"ja"', '"ja"'),
        ('"er sagte "ja""', '"er sagte "ja""'),
        ('sagt ""', 'sagt ""'),
        ('"', '"'),
        ('""', '""'),
    ],
)
@pytest.mark.parametrize("reader", sorted(XTREME_READERS))
def test_only_the_quotes_that_the_preparation_added_are_taken_off(
    reader: str, spelt: str, text: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.tsv", f"{spelt}\tb\t0\na\t{spelt}\t1\n")
    assert [texts for _, texts, _ in read(reader, path)] == [[text, "b"], ["a", text]]


def test_quotes_are_undone_as_pythons_csv_writer_makes_them(tmp_path: Path) -> None:
    import csv

    texts = ['a "b" c', '"', '""', 'x"', "plain", '"a" and "b"']
    with (tmp_path / "a.tsv").open("w", newline="") as file:
        csv.writer(file, delimiter="\t").writerows([[text, "b", "0"] for text in texts])
    assert [first for _, (first, _), _ in read("pawsx_tsv", tmp_path / "a.tsv")] == texts


# Files that must not be scored, and broken ones.


@pytest.mark.parametrize(
    ("reader", "content", "line"),
    [
        ("xnli_tsv", "a\tb\n", 1),
        ("xnli_tsv", "a\tb\tneutral\n\na\tb\n", 3),
        ("pawsx_tsv", "a\tb\n", 1),
        ("pawsx_tsv", "id\tsentence1\tsentence2\tlabel\n1\ta\tb\n", 2),
    ],
)
def test_a_file_without_labels_is_refused_with_a_way_out(reader: str, content: str, line: int, tmp_path: Path) -> None:
    path = write(tmp_path / "test-de.tsv", content)
    found = problem_of(reader, path)
    assert (found.where, found.what) == (f"{path}, line {line}", "has no labels")
    assert found.hint == "XTREME distributes test files without: take those of the data set's own release"


@pytest.mark.parametrize("reader", sorted(XTREME_READERS))
@pytest.mark.parametrize(
    ("row", "what"),
    [
        ("a\tb\t", "has no label"),
        ("a\tb\t  ", "has no label"),
        ("a", "has 1 column"),
        ("a\tb\t1\t2", "has 4 columns"),
        ("\tb\t1", "premise is empty | sentence1 is empty"),
        ("a\t \t1", "hypothesis is empty | sentence2 is empty"),
    ],
)
def test_broken_rows_are_named(reader: str, row: str, what: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", f"c\td\t0\n{row}\n")
    found = problem_of(reader, path)
    assert found.where == f"{path}, line 2" and found.what in what.split(" | ")


def test_every_reader_is_registered_by_its_name() -> None:
    assert {name: reader.__name__ for name, reader in XTREME_READERS.items()} == {
        "xnli_tsv": "xnli_tsv",
        "pawsx_tsv": "pawsx_tsv",
    }


# The data sets.

SETS = {
    "xnli": 15, "xnli_dev": 15, "pawsx": 7, "pawsx_dev": 7, "wikiann": 10, "wikiann_dev": 6, "conll": 4,
    "xtreme_pos": 33, "relx": 4,
}  # fmt: skip


@pytest.mark.parametrize("name", SETS)
def test_every_set_is_learned_in_english_and_tested_in_its_languages(name: str) -> None:
    data = compose(["method=finetune", f"data={name}", "backbone=tiny"]).data
    assert data.zero_shot is not None and data.zero_shot.learned == "en"
    tested = data.zero_shot.tested
    assert len(tested) == len(set(tested)) == SETS[name]
    assert set(data.languages) == {*tested, "en"}
    patterns = data.patterns()
    assert len(patterns["train"]) == len(patterns["validation"]) == 1
    assert len(set(patterns["test"])) == len(tested) and not any(
        "{" in one for found in patterns.values() for one in found
    )


def test_english_recipes_differ_only_where_the_scripts_do() -> None:
    recipes = {
        name: compose(["method=finetune", f"data={name}", "backbone=tiny"]).train
        for name in ("wikiann", "conll", "xtreme_pos", "xnli", "pawsx")
    }
    assert [(r.epochs, r.eval_every) for r in recipes.values()] == [
        (10, 1000),
        (10, 1000),
        (10, 500),
        (5, 100),
        (5, 200),
    ]
    for recipe in recipes.values():
        assert (recipe.lr, recipe.global_batch_size, recipe.clip, recipe.weight_decay) == (2e-5, 32, 1.0, 0.0)
        assert (recipe.warmup, recipe.warmup_steps, recipe.adam_epsilon) == (0.0, None, 1e-8)
    relx = compose(["method=finetune", "data=relx", "backbone=tiny"]).train
    assert (relx.epochs, relx.lr, relx.schedule.value, relx.weight_decay, relx.clip) == (10, 3e-5, "constant", 0.1, 0.0)
    assert (relx.global_batch_size, relx.adam_epsilon, relx.eval_every) == (64, 1e-6, None)


def test_languages_without_a_labelled_test_file_are_named(real_data: Path) -> None:
    data = compose(["method=finetune", "data=wikiann", "backbone=tiny", f"data.path={real_data / 'wikiann-panx'}"]).data
    with pytest.raises(DataError) as raised:
        locate(data)
    absent = [problem.what for problem in raised.value.problems]
    assert absent == [
        f"holds no file labelled-test/{lang}/test* for the test split" for lang in ("vi", "it", "es", "ja", "ko", "zh")
    ]


# Real files.

XNLI = ("ar", "bg", "de", "el", "en", "es", "fr", "hi", "ru", "sw", "th", "tr", "ur", "vi", "zh")
# how many pairs of PAWS-X mean the same: it differs between languages
SAME = {"de": 831, "en": 863, "es": 847, "fr": 860, "ja": 854, "ko": 840, "zh": 853}


def test_real_xnli_files_are_parallel_and_balanced(real_data: Path) -> None:
    rows = {lang: read("xnli_tsv", real_data / "xnli" / f"dev-{lang}.tsv.gz") for lang in XNLI}
    labels = {lang: [label for _, _, label in found] for lang, found in rows.items()}
    assert set(map(len, labels.values())) == {2490} and all(labels[lang] == labels["en"] for lang in XNLI)
    assert Counter(labels["en"]) == {"neutral": 830, "contradiction": 830, "entailment": 830}
    # so that a cut after 1,500 or 1,800 rows is one between premises
    premises = [texts[0] for _, texts, _ in rows["en"]]
    assert all(premises[row] == premises[row + 1] == premises[row + 2] for row in range(0, 2490, 3))


@pytest.mark.parametrize("lang", sorted(SAME))
def test_real_pawsx_files(lang: str, real_data: Path) -> None:
    rows = read("pawsx_tsv", real_data / "pawsx" / f"dev-{lang}.tsv.gz")
    assert len(rows) == 2000 and Counter(label for *_, label in rows) == {"1": SAME[lang], "0": 2000 - SAME[lang]}


@pytest.mark.parametrize("lang", ["de", "zh"])
def test_real_labelled_test_files_have_the_texts_of_those_without(lang: str, real_data: Path) -> None:
    rows = read("pawsx_tsv", real_data / "pawsx" / "labelled-test" / f"test-{lang}.tsv.gz")
    assert len(rows) == 2000 and {label for *_, label in rows} == {"0", "1"}
    with gzip.open(real_data / "pawsx" / "test-unlabelled" / f"test-{lang}.tsv.gz", "rt", encoding="utf-8") as file:
        bare = [line.rstrip("\n").split("\t") for line in file]
    # they spell quotes in two ways
    for (_, texts, _), without in zip(rows, bare, strict=True):
        assert [text.replace('"', "") for text in texts] == [text.replace('"', "") for text in without]


@pytest.mark.parametrize(
    ("reader", "name"),
    [("xnli_tsv", f"xnli/test-unlabelled/test-{lang}.tsv.gz") for lang in ("de", "en", "zh")]
    + [("pawsx_tsv", f"pawsx/test-unlabelled/test-{lang}.tsv.gz") for lang in sorted(SAME)],
)
def test_real_test_files_without_labels_are_refused(reader: str, name: str, real_data: Path) -> None:
    found = problem_of(reader, real_data / name)
    assert found.where.endswith("line 1") and found.what == "has no labels"


@pytest.mark.parametrize("lang", ["de", "en", "fr", "nl"])
def test_real_labelled_wikiann_tests_are_read_and_the_others_refused(lang: str, real_data: Path) -> None:
    folder = real_data / "wikiann-panx"
    rows = list(SENTENCE_READERS["wikiann"](folder / "labelled-test" / lang / "test.gz", "utf-8"))
    assert len(rows) == 10000 and not any(word.startswith(f"{lang}:") for _, words, _ in rows for word in words)
    with pytest.raises(DataError, match=r"line 1"):
        next(SENTENCE_READERS["wikiann"](folder / f"test-{lang}.tsv.gz", "utf-8"))
