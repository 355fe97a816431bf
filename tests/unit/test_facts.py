"""The reader of X-FACTR's facts: rows, names, what is missing or broken, and the real files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from kbench.data.facts import ALIASES, FACT_COMPANIONS, FACT_READERS, GOLD, PROMPT, SUBJECT
from kbench.data.toy_facts import RELATIONS, SIZES, generate
from kbench.errors import DataError, Problem

PROMPTS = (
    "pid,relation,en,fr,ja,nl\n"
    'P19,place of birth,[X] was born in [Y] .,"[X] est [né;X-Gender=MASC|née;X-Gender=FEM] [PREPLOC;Y] [Y] .",'
    "[X]は[Y]生まれである。,[X] werd geboren in [Y] .\n"
    "P108,employer,[Y] employs [X] .,[Y] emploie [X] .,[Y]は[X]を雇う。,[X] werkt bij [Y] .\n"
)
FILES = {
    "TREx_prompts.csv": PROMPTS,
    "mTRExf_gender.txt": "Q1\tfemale\nQ2\tnone\nQ3\tnone\nQ4\tnone\n",
    "mTRExf_instanceof.txt": "Q1\tQ5,human\nQ2\tQ6,sovereign state\tQ7\nQ3\tQ8,business\nQ4\t\n",
    "mTRExf_is_cate.txt": "Q1\t0\nQ2\t0\nQ3\t0\nQ4\t1\n",
    "mTRExf_multi_rel.txt": "Q1\tP19\tQ2 Q4\nQ1\tP20\tQ3\n",
    "alias/mTRExf/en.txt": "Q1\tAda\tAda Bee\nQ2\tFR\tFrance\nQ3\tAcme Corp.\tACME\nQ4\tLand\n",
    "alias/mTRExf/fr.txt": "Q1\tAda Bée\tAda Bee\tAda\nQ2\tFR\tFrance\nQ3\tAcme\n",
    "alias/mTRExf/ja.txt": "Q1\tAda\tエイダ\nQ2\tFrance\t仏\tフランス (国)\tフランス\n",
    "alias/mTRExf/nl.txt": "Q2\tFRA\tAnexo:Frankrijk\tFrankrijk (land)\tFrankrijk\tLa France\nQ1\t7.5\tAdá\tAda\n",
}


def fact(subject: str, relation: str, gold: str, **labels: str) -> str:
    return json.dumps({"sub_uri": subject, "obj_uri": gold, "predicate_id": relation, **labels}) + "\n"


FACTS = {
    "P19": fact("Q1", "P19", "Q2", sub_label="Ada Bee", obj_label="French") + fact("Q1", "P19", "Q9"),
    "P108": fact("Q1", "P108", "Q3", sub_label="Ada Bee", obj_label="Acme Corp.") + fact("Q4", "P108", "Q2"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small folder laid out like the benchmark's."""
    for name, content in {**FILES, **{f"mTRExf/sub/{key}.jsonl": facts for key, facts in FACTS.items()}}.items():
        put(tmp_path / name, content)
    return tmp_path


def put(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def read(folder: Path, language: str, ending: str = "") -> list[tuple[int, list[str], str]]:
    return list(FACT_READERS["xfactr"](folder / f"alias/mTRExf/{language}.txt{ending}", "utf-8"))


def problems_of(folder: Path, language: str = "fr") -> list[Problem]:
    with pytest.raises(DataError) as raised:
        read(folder, language)
    return raised.value.problems


# Rows.


def test_english_facts_with_all_names_that_count(folder: Path) -> None:
    """Names of other valid objects count, too; the period rule is not for a prompt that ends otherwise."""
    assert read(folder, "en") == [
        (1, ["Ada Bee was born in [Y] .", "France", "Ada Bee", "Q1", "P19", "Q2", "FR", "Land"], "P19"),
        (3, ["[Y] employs Ada Bee .", "Acme Corp.", "Ada Bee", "Q1", "P108", "Q3", "ACME"], "P108"),
        (4, ["[Y] employs Land .", "France", "Land", "Q4", "P108", "Q2", "FR"], "P108"),
    ]


def test_a_final_period_is_not_asked_for_twice_in_english(folder: Path) -> None:
    path = folder / "TREx_prompts.csv"
    path.write_text(PROMPTS.replace("[Y] employs [X] .", "[X] works at [Y] ."), encoding="utf-8")
    assert read(folder, "en")[1][1][PROMPT:] == [
        "Ada Bee works at [Y] .", "Acme Corp.", "Ada Bee", "Q1", "P108", "Q3", "ACME", "Acme Corp",
    ]  # fmt: skip
    assert read(folder, "nl") == [
        (1, ["Adá werd geboren in [Y] .", "Frankrijk", "Adá", "Q1", "P19", "Q2", *NL_NAMES], "P19"),
    ]


NL_NAMES = ["FRA", "Anexo:Frankrijk", "Frankrijk (land)", "La France"]


def test_french_facts_are_inflected_and_numbered_as_the_english_ones(folder: Path) -> None:
    rows = read(folder, "fr")
    assert [(number, relation) for number, _, relation in rows] == [(1, "P19"), (3, "P108")]
    assert rows[0][1] == ["Ada Bée est née en [Y] .", "France", "Ada Bée", "Q1", "P19", "Q2", "FR"]


def test_japanese_names_are_written_in_japanese(folder: Path) -> None:
    (row,) = read(folder, "ja")
    assert row[1] == [
        "エイダは[Y]生まれである。",
        "仏",
        "エイダ",
        "Q1",
        "P19",
        "Q2",
        "France",
        "フランス (国)",
        "フランス",
    ]


def test_labels_of_the_benchmark_go_before_all(folder: Path) -> None:
    put(folder / "labels/TREx_french.txt", "Q2\tla République\n")
    assert read(folder, "fr")[0][1][GOLD] == "la République"
    # with the labels of all entities a fact is used where both have one, whatever other names there are
    put(folder / "mTRExf_unicode_escape.txt", 'Q1\t"Ada"@en\t"Ada "B" @ Bée"@fr\nQ2\t"Frankreich"@de\nQ9\t"Neuf"@fr\n')
    (row,) = read(folder, "fr")
    assert row == (
        2,
        ['Ada "B" @ Bée est née à [Y] .', "Neuf", 'Ada "B" @ Bée', "Q1", "P19", "Q9", "FR", "France"],
        "P19",
    )


def test_a_name_that_only_codes_is_better_than_none(folder: Path) -> None:
    put(folder / "alias/mTRExf/nl.txt", "Q1\t7.5\tA\nQ2\tFR\n")
    assert read(folder, "nl")[0][1][PROMPT : SUBJECT + 1] == ["7.5 werd geboren in [Y] .", "FR", "7.5"]


def test_every_file_may_be_gzipped(folder: Path) -> None:
    plain = read(folder, "fr")
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert read(folder, "fr", ".gz") == plain
    assert all(path.suffix == ".gz" for path in FACT_COMPANIONS(folder / "alias/mTRExf/fr.txt.gz"))


# What a run's key must know.


def test_the_files_that_belong_to_a_file_of_names(folder: Path) -> None:
    put(folder / "labels/TREx_french.txt", "Q2\tFrance\n")
    put(folder / "mTRExf_unicode_escape.txt", 'Q1\t"Ada"@fr\n')
    path = folder / "alias/mTRExf"
    always = ["TREx_prompts.csv", "mTRExf_multi_rel.txt", "mTRExf/sub/P108.jsonl", "mTRExf/sub/P19.jsonl"]
    french = ["mTRExf_gender.txt", "mTRExf_instanceof.txt", "mTRExf_is_cate.txt", "labels/TREx_french.txt"]
    everything = {str(one.relative_to(folder)) for one in FACT_COMPANIONS(path / "fr.txt")}
    assert everything == {*always, *french, "mTRExf_unicode_escape.txt"}
    assert {str(one.relative_to(folder)) for one in FACT_COMPANIONS(path / "ja.txt")} == {
        *always,
        "mTRExf_unicode_escape.txt",
    }


@pytest.mark.parametrize("name", [*(name for name in FILES if "alias" not in name)])
def test_a_file_that_is_missing_is_named(name: str, folder: Path) -> None:
    (folder / name).unlink()
    path = folder / "alias/mTRExf/fr.txt"
    assert problems_of(folder) == [Problem(str(path), f"has no file {name} beside it")]
    assert folder / name in FACT_COMPANIONS(path)


def test_facts_that_are_missing_are_named(folder: Path) -> None:
    (folder / "mTRExf/sub/P108.jsonl").unlink()
    where, what = f"{folder / 'TREx_prompts.csv'}, line 3", "relation P108 has no file mTRExf/sub/P108.jsonl"
    assert problems_of(folder) == [Problem(where, what)]
    (folder / "mTRExf/sub/P19.jsonl").unlink()
    what = "has no file mTRExf/sub/P19.jsonl beside it"
    assert problems_of(folder) == [Problem(str(folder / "alias/mTRExf/fr.txt"), what)]


# Broken files.


def test_a_prompt_that_cannot_be_inflected_is_named(folder: Path) -> None:
    path = folder / "TREx_prompts.csv"
    path.write_text(PROMPTS.replace("[PREPLOC;Y]", "[PREPWO;Y]").replace("emploie [X]", "emploie"), encoding="utf-8")
    first, second = problems_of(folder)
    assert (first.where, first.what) == (
        f"{path}, line 2, relation P19, language fr",
        "the mark [PREPWO;Y] cannot be resolved",
    )
    assert first.hint.startswith("known: [ARTDEF;Y], ")
    assert second.where == f"{path}, line 3, relation P108, language fr"
    assert second.what == "has [X] 0 times: '[Y] emploie .'"
    assert len(read(folder, "en")) == 3  # another language's prompts are not looked at


def test_a_language_without_prompts_is_named(folder: Path) -> None:
    (folder / "alias/mTRExf/sv.txt").write_text("Q1\tAda\n", encoding="utf-8")
    problem = Problem(f"{folder / 'TREx_prompts.csv'}, line 1", "has no sv", "expected: pid, sv")
    assert problems_of(folder, "sv") == [problem]


@pytest.mark.parametrize(
    ("name", "content", "line", "what"),
    [
        ("mTRExf_gender.txt", "Q1\tmale\nQ2\tneuter\n", 2, "unknown gender 'neuter'"),
        ("mTRExf_gender.txt", "Q1\n", 1, "has 1 column"),
        ("mTRExf_is_cate.txt", "Q1\t2\n", 1, "'2' is neither 0 nor 1"),
        ("mTRExf_multi_rel.txt", "Q1\tP19\tQ2\nQ1\tP19\tQ2\tQ3\n", 2, "has 4 columns"),
        ("alias/mTRExf/fr.txt", "Q1\tAda\nQ2\n", 2, "has 1 column"),
        ("mTRExf/sub/P19.jsonl", "{}\n", 1, "has no sub_uri, obj_uri"),
        ("mTRExf/sub/P19.jsonl", '{"sub_uri": 1, "obj_uri": "Q2"}\n', 1, "sub_uri is no text: 1"),
        ("TREx_prompts.csv", PROMPTS + "P2,x,[X] y [Y]\n", 4, "has 3 columns"),
        ("TREx_prompts.csv", PROMPTS.replace("[Y] emploie [X] .", ""), 3, "fr is empty"),
    ],
)
def test_a_broken_line_is_named(name: str, content: str, line: int, what: str, folder: Path) -> None:
    (folder / name).write_text(content, encoding="utf-8")
    (problem,) = problems_of(folder)
    assert (problem.where, problem.what) == (f"{folder / name}, line {line}", what)


# The toy set.


def test_toy_facts_are_the_same_every_time_and_laid_out_like_real_ones() -> None:
    rows = list(generate("test"))
    assert rows == list(generate("test"))
    assert len(rows) == SIZES["test"]
    for texts, relation in rows:
        assert texts[4] == RELATIONS[relation]
        assert texts[PROMPT].count("[Y]") == 1
        assert texts[SUBJECT] in texts[PROMPT]
        assert texts[GOLD] not in texts[ALIASES:]
    assert {relation for _, relation in rows} == {0, 1}
    assert any(texts[ALIASES:] for texts, _ in rows)
    assert any(" " in texts[GOLD] for texts, _ in rows)


# The real files.

COUNTS = {"en": 45945, "fr": 40327, "nl": 38377, "es": 37117, "ja": 25553, "zh": 23280, "ko": 16511, "vi": 13682}


@pytest.mark.parametrize("language", ["fr", "es", "vi"])
def test_real_facts(language: str, real_data: Path) -> None:
    """Counts of the data set's own notes; one sentence of each as people write it."""
    rows = read(real_data / "xfactr", language, ".gz")
    assert len(rows) == COUNTS[language]
    assert len({relation for _, _, relation in rows}) == 46
    sentences = {texts[PROMPT].replace("[Y]", texts[GOLD]) for _, texts, _ in rows}
    assert all(texts[PROMPT].count("[") == texts[SUBJECT].count("[") + 1 for _, texts, _ in rows)
    assert SENTENCES[language] <= sentences


SENTENCES: dict[str, set[str]] = {
    "fr": {
        "Liam Kyle Sullivan est né à Norfolk .",
        "Floyd Cramer joue du piano .",
        "Leon Breeden joue de la clarinette .",
        "La Russie entretient des relations diplomatiques avec l'Australie .",
        "Cooper Brannan est citoyen des États-Unis .",
        "Gorm l'Ancien est citoyen du Danemark .",
        "La capitale du Qatar est Doha .",
        "La langue maternelle d'Albina Dzhanabaeva est le russe .",
    },
    "es": {
        "Ralph Sauer toca el trombón .",
        "Pushpa Devi Singh es miembra del partido Congreso Nacional Indio .",
        "Asanami es un ejemplo de una estación de ferrocarril .",
        "The Front Bottoms tocan musica de indie rock .",
    },
    "vi": {"Gerrots nằm ở Pháp ."},
}
