"""The reader of LAMA's facts, its list of words, the toy set in its form, and the real files."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from kbench.config.compose import compose
from kbench.data import toy_graph
from kbench.data.facts import GOLD, OBJECT_ID, PROMPT, RELATION, SUBJECT, SUBJECT_ID
from kbench.data.lama import LAMA_READERS, TEMPLATES, companions, read_words
from kbench.data.records import Records, records_stage
from kbench.data.source import locate
from kbench.data.toy_lama import RELATIONS, SIZES, generate
from kbench.errors import DataError, Problem
from kbench.stages.store import Store


def put(path: Path, *rows: Any) -> Path:
    """A file of JSON lines; a row that is text is a line as it stands."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def birth(subject: str, place: str, said: str = "yyn", **ids: str | None) -> dict[str, Any]:
    """A fact of Google-RE with its judgements."""
    judgments = [{"rater": "1", "judgment": {"y": "yes", "n": "no", "s": "skip"}[one]} for one in said]
    row = {"pred": "/people/person/place_of_birth", "sub": "/m/1", "sub_label": subject, "obj_label": place}
    return {**row, "sub_w": None, "obj_w": None, "judgments": judgments, **ids}


def fact(subject: str, name: str, ids: str = "Q1 Q2") -> dict[str, Any]:
    """A fact of T-REx."""
    sub, obj = ids.split()
    return {"predicate_id": "P19", "sub_label": subject, "obj_label": name, "sub_uri": sub, "obj_uri": obj}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small folder laid out like the release."""
    births = [birth("Ann Lee", "Rome"), birth("Ann Lee", "Rome", "yyy"), birth("Ann Lee", "Paris", "ynn")]
    births += [birth("Bo", "Oslo", "ynsss", obj_w="Q585"), birth("Al", "Rome", "")]
    put(tmp_path / "Google_RE/place_of_birth_test.jsonl", *births)
    put(tmp_path / "TREx/P19.jsonl", fact("Ann Lee", " Rome"), fact("Ann Lee", "Rome", "Q9 Q8"), fact("Bo", "Rome"))
    put(tmp_path / "TREx/P176.jsonl", fact("Iron X", "Apple", "Q5 Q6"))
    templates = [("P19", "[X] was born in [Y] ."), ("P176", "[X] is produced by [Y] .")]
    put(tmp_path / "relations.jsonl", *({"relation": name, "template": told} for name, told in templates))
    told = {"masked_sentences": ["The [MASK] color was used."], "obj_label": "gold", "sub_label": "Squad", "id": "1"}
    put(tmp_path / "Squad/test.jsonl", told, told)
    return tmp_path


def read(path: Path) -> list[tuple[int, list[str], str]]:
    return list(LAMA_READERS["lama"](path, "utf-8"))


def data(folder: Path, *words: str) -> Any:
    return compose(["method=finetune", "data=lama", "backbone=tiny", f"data.path={folder}", *words]).data


# Rows.


def test_google_re_without_denied_and_repeated_facts(folder: Path) -> None:
    """Two denials of three are too many, one of two is not; a fact that nobody judged is kept."""
    assert read(folder / "Google_RE/place_of_birth_test.jsonl") == [
        (1, ["Ann Lee was born in [Y] .", "Rome", "Ann Lee", "", "place_of_birth", ""], "place_of_birth"),
        (4, ["Bo was born in [Y] .", "Oslo", "Bo", "", "place_of_birth", "Q585"], "place_of_birth"),
        (5, ["Al was born in [Y] .", "Rome", "Al", "", "place_of_birth", ""], "place_of_birth"),
    ]


def test_t_rex_has_the_templates_of_its_file(folder: Path) -> None:
    rows = [
        (1, ["Ann Lee was born in [Y] .", "Rome", "Ann Lee", "Q1", "P19", "Q2"], "P19"),
        (3, ["Bo was born in [Y] .", "Rome", "Bo", "Q1", "P19", "Q2"], "P19"),
    ]
    assert read(folder / "TREx/P19.jsonl") == rows
    (folder / "relations.jsonl").rename(folder / "TREx/relations.jsonl")
    assert read(folder / "TREx/P19.jsonl") == rows
    for name in ("relations.jsonl", "P19.jsonl"):
        path = folder / "TREx" / name
        path.with_name(f"{name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert read(folder / "TREx/P19.jsonl.gz") == rows
    assert companions(folder / "TREx/P19.jsonl.gz") == [folder / "TREx/relations.jsonl.gz"]
    assert companions(folder / "Google_RE/place_of_birth_test.jsonl") == []


def test_squad_is_asked_in_its_own_sentences(folder: Path) -> None:
    texts = ["The [Y] color was used.", "gold", "Squad", "", "squad", ""]
    assert read(folder / "Squad/test.jsonl") == [(1, texts, "squad"), (2, texts, "squad")]


def test_templates_of_google_re_are_those_of_the_code() -> None:
    assert list(TEMPLATES.values()) == ["[X] was born in [Y] .", "[X] (born [Y]).", "[X] died in [Y] ."]


# Broken files.


@pytest.mark.parametrize(
    ("name", "rows", "line", "what"),
    [
        ("TREx/P19.jsonl", [fact("Ann [Y]", "Rome")], 1, "the subject 'Ann [Y]' holds [Y]"),
        ("TREx/P19.jsonl", [fact("Ann", "Rome"), fact("Ann", " ")], 2, "obj_label is empty"),
        ("TREx/P19.jsonl", [{"sub_label": "Ann", "obj_label": "Rome"}], 1, "has no sub_uri, obj_uri"),
        ("TREx/P19.jsonl", ["{"], 1, "is no JSON: Expecting property name enclosed in double quotes, column 2"),
        ("relations.jsonl", [{"relation": "P19", "template": "[X] was"}], 1, "has [Y] 0 times: '[X] was'"),
        ("Squad/test.jsonl", [{"masked_sentences": []}], 1, "has no obj_label, sub_label, id"),
        (
            "Squad/test.jsonl",
            [{"masked_sentences": ["It was."], "obj_label": "a", "sub_label": "Squad", "id": "1"}],
            1,
            "'It was.' holds no [MASK], or [Y]",
        ),
        (
            "Google_RE/place_of_birth_test.jsonl",
            [{**birth("Ann", "Rome"), "judgments": ["yes"]}],
            1,
            "judgments is no list of {judgment: yes or no}",
        ),
    ],
)
def test_a_broken_line_is_named(name: str, rows: list[Any], line: int, what: str, folder: Path) -> None:
    path = put(folder / name, *rows)
    with pytest.raises(DataError) as raised:
        read(folder / "TREx/P19.jsonl" if name == "relations.jsonl" else path)
    (problem,) = raised.value.problems
    assert (problem.where, problem.what) == (f"{path}, line {line}", what)


def test_a_file_that_is_none_of_lamas_is_named(folder: Path) -> None:
    path = put(folder / "TREx/relations_test.jsonl", {})
    with pytest.raises(DataError, match="is no file of LAMA's facts"):
        read(path)
    put(folder / "TREx/P5.jsonl", fact("Ann", "Rome"))
    with pytest.raises(DataError) as raised:
        read(folder / "TREx/P5.jsonl")
    what = "has no template of P5, which P5.jsonl needs"
    assert raised.value.problems == [Problem(str(folder / "relations.jsonl"), what)]


# Where the files are.


def test_the_files_of_both_corpora_are_found_and_squads_on_demand(folder: Path) -> None:
    source = locate(data(folder))
    names = ["place_of_birth_test.jsonl", "P176.jsonl", "P19.jsonl"]
    assert [path.name for path in source.files["test"]] == names
    assert [path.name for path in source.beside["test"]] == ["relations.jsonl"] * 2
    more = locate(data(folder, "data.files.test='[GST]*/*.jsonl*'"))
    assert [path.parent.name for path in more.files["test"]] == ["Google_RE", "Squad", "TREx", "TREx"]


def test_templates_that_are_missing_are_told_once(folder: Path) -> None:
    (folder / "relations.jsonl").unlink()
    with pytest.raises(DataError) as raised:
        locate(data(folder))
    assert raised.value.problems == [Problem(str(folder / "TREx/P176.jsonl"), "has no file relations.jsonl beside it")]


def test_a_folder_without_facts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no file \[GT\]\*/\*\.jsonl\* for the test split"):
        locate(data(tmp_path))


# The list of words.


def test_the_list_of_words_is_found_or_given_and_decides_what_the_data_are(folder: Path) -> None:
    store, found = Store(folder / "stages"), {}
    lama = "data.probing.lama.vocabulary=lama"

    def records(*words: str) -> Records:
        chosen = data(folder, *words)
        return Records(store.get(records_stage(chosen, locate(chosen))))

    with pytest.raises(DataError) as raised:
        records(lama)
    (problem,) = raised.value.problems
    assert problem.where == "data.probing.lama.vocabulary_file"
    assert problem.what == f"is null, and {folder} holds no common_vocab_cased.txt"
    found["model"] = records()
    (folder / "common_vocab_cased.txt").write_text("Rome\nOslo\n\nRome\n", encoding="utf-8")
    found["there"] = records(lama)
    (folder / "words.txt").write_text("Rome\n", encoding="utf-8")
    given = f"data.probing.lama.vocabulary_file={folder / 'words.txt'}"
    found["given"] = records(lama, given)
    assert [one.words() for one in found.values()] == [None, ["Rome", "Oslo"], ["Rome"]]
    assert records().content == found["model"].content
    assert len({one.content for one in found.values()}) == 3
    with pytest.raises(DataError, match=f"there is no file {folder}/none"):
        records(lama, f"data.probing.lama.vocabulary_file={folder}/none")
    toy = compose(["method=finetune", "data=toy_lama", lama, given]).data
    assert Records(store.get(records_stage(toy, locate(toy)))).words() == ["Rome"]
    with pytest.raises(DataError, match="is null, and toy_lama holds no common_vocab_cased"):
        locate(compose(["method=finetune", "data=toy_lama", lama]).data)


def test_a_list_of_words_has_one_a_line(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("Rome\nNew York\n", encoding="utf-8")
    with pytest.raises(DataError, match="line 2  has several words: 'New York'"):
        read_words(path)
    path.write_text("\n", encoding="utf-8")
    with pytest.raises(DataError, match="is empty"):
        read_words(path)


# The toy set.


def test_the_toy_set_asks_facts_of_the_toy_graph() -> None:
    chosen = compose(["method=finetune", "data=toy_lama"]).data
    rows = list(generate(chosen, "test"))
    assert rows == list(generate(chosen, "test"))
    assert len(rows) == SIZES["test"] == chosen.rows.test
    assert set(Counter(label for _, label in rows).values()) == {80}
    triples, names = toy_graph.generate()
    labels = {number: text for relation, number, rank, text in names["en"] if not relation and rank == 0}
    for texts, label in rows:
        head, tail = int(texts[SUBJECT_ID][1:]), int(texts[OBJECT_ID][1:])
        assert (head, RELATIONS[texts[RELATION]][0], tail) in triples
        assert list(RELATIONS)[label] == texts[RELATION]
        assert (texts[SUBJECT], texts[GOLD]) == (labels[head], labels[tail])
        assert texts[PROMPT].count("[Y]") == 1 and texts[SUBJECT] in texts[PROMPT]
        assert " " not in texts[GOLD] and len(texts) == 6
    with pytest.raises(DataError, match="are not those of toy_lama"):
        list(generate(compose(["method=finetune", "data=toy_lama", "data.labels=[P27]"]).data, "test"))


# The real files.


def test_real_facts_are_as_many_as_published(real_data: Path) -> None:
    """Facts of Google-RE, those of T-REx at hand, and what LAMA-UHN's first filter leaves of both."""
    questions = read(real_data / "lama/Squad/test.jsonl.gz")
    assert len(questions) == 305 and sum(texts[PROMPT].count("[Y]") > 1 for _, texts, _ in questions) == 3
    paths = sorted((real_data / "lama").glob("[GT]*/*.jsonl*"))
    counts, left = Counter[str](), Counter[str]()
    for path in paths:
        for _, texts, relation in read(path):
            counts[relation] += 1
            left[relation] += texts[GOLD].lower() not in texts[SUBJECT].lower()
            assert texts[PROMPT].count("[Y]") == 1
    google = {name: counts.pop(name) for name in TEMPLATES}
    assert google == {"place_of_birth": 2937, "date_of_birth": 1825, "place_of_death": 765}
    assert {name: left.pop(name) for name in TEMPLATES} == {**google, "place_of_birth": 2934}
    assert (len(counts), counts.total(), left.total()) == (28, 22867, 20255)
    assert (counts["P176"], left["P176"], counts["P138"], left["P138"]) == (973, 191, 642, 160)
