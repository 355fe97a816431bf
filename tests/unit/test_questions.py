"""Reading questions with answers in a context: the format, every kind of broken file, and the real files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from kbench.data import toy_questions
from kbench.data.questions import QUESTION_READERS
from kbench.errors import DataError, Problem


def write(path: Path, content: Any, encoding: str = "utf-8") -> Path:
    """A document, or a text as it is; gzipped where the name ends so."""
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False, indent=1)
    raw = text.encode(encoding)
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


def read(path: Path, encoding: str = "utf-8") -> list[tuple[int, list[str], list[int]]]:
    return list(QUESTION_READERS["squad"](path, encoding))


def problem_of(path: Path) -> Problem:
    with pytest.raises(DataError) as raised:
        read(path)
    (problem,) = raised.value.problems
    return problem


CONTEXT = "Ein Bär, 北京, \U0001f43b! Bär."


def asked(*answers: tuple[Any, Any], **more: Any) -> dict[str, Any]:
    texts = [{"text": text, "answer_start": start} for text, start in answers]
    return {"id": "q7", "question": "Wer?", "answers": texts} | more


def document(*questions: Any, context: Any = CONTEXT) -> dict[str, Any]:
    return {"version": "1.1", "data": [{"title": "t", "paragraphs": [{"context": context, "qas": list(questions)}]}]}


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_squad(ending: str, encoding: str, tmp_path: Path) -> None:
    one = document(asked(("Bär", 4), ("Bär, 北京", 4), ("Bär", 16)), asked(("!", 14), question=" Was? "))
    one["data"] += document(asked((" x", 1)), context="\ufeff x")["data"] + [{"paragraphs": []}]
    assert read(write(tmp_path / f"a.json{ending}", one, encoding)) == [
        (1, ["Wer?", CONTEXT, "Bär", "Bär, 北京", "Bär"], [4, 4, 16]),
        (2, [" Was? ", CONTEXT, "!"], [14]),
        (3, ["Wer?", "\ufeff x", " x"], [1]),
    ]


def test_places_are_characters_also_after_one_outside_the_basic_plane(tmp_path: Path) -> None:
    assert CONTEXT.index("!") == 14  # in UTF-16, as in JavaScript, it would be 15
    path = write(tmp_path / "a.json", document(asked(("!", 15))))
    what = "the answer '!' does not stand at character 15 of the context"
    hint = "but at 14; are its places counted in bytes, or in another encoding?"
    assert problem_of(path) == Problem(f"{path}, question 1 (q7)", what, hint)


@pytest.mark.parametrize("content", ["", " \n", '{"data": []}'])
def test_a_file_without_questions_has_no_rows(content: str, tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.json", content)) == []


# Broken files.


@pytest.mark.parametrize(
    ("content", "where", "what"),
    [
        ('{"data":\n [}', ", line 2", "is no JSON: Expecting value, column 3"),
        ('{"data": []}\n{"data": []}\n', ", line 2", "is no JSON: Extra data, column 1"),
        ('{"data": [{"paragraphs": [', ", line 1", "is no JSON: Expecting value, column 27"),
        ("[" * 100_000, "", "is no JSON: maximum recursion depth exceeded"),
        ("[]", "", "is no JSON object: []"),
        ("{}", "", "has no data"),
        ('{"data": {}}', "", "data is no list: {}"),
        ('{"data": [7]}', ", article 1", "is no JSON object: 7"),
        ('{"data": [{"paragraphs": []}, {"title": 1}]}', ", article 2", "has no paragraphs"),
        ('{"data": [{"paragraphs": [{}]}]}', ", article 1, paragraph 1", "has no context, qas"),
        ('{"data": [{"paragraphs": [{"context": "", "qas": []}]}]}', ", article 1, paragraph 1", "context is empty"),
        (
            '{"data": [{"paragraphs": [{"context": 3, "qas": []}]}]}',
            ", article 1, paragraph 1",
            "context is no text: 3",
        ),
        ('{"data": [{"paragraphs": [{"context": "x", "qas": 3}]}]}', ", article 1, paragraph 1", "qas is no list: 3"),
        (
            '{"data": [{"paragraphs": [{"context": "x", "qas": ["q"]}]}]}',
            ", article 1, paragraph 1, qas",
            "is no JSON object: 'q'",
        ),
    ],
)
def test_a_document_that_is_broken(content: str, where: str, what: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", content)
    problem = problem_of(path)
    assert problem.where == f"{path}{where}"
    assert problem.what.startswith(what)


BEAR = ("Bär", 4)
HALF = "holds half a surrogate pair, which is no letter"


@pytest.mark.parametrize(
    ("question", "what"),
    [
        (asked(), "has no answer"),
        (asked(BEAR, answers=7), "answers is no list: 7"),
        ({"id": "q7", "question": "Wer?"}, "has no answers"),
        (asked(BEAR, question=" "), "question is empty"),
        (asked(BEAR, question=None), "question is no text: None"),
        (asked(BEAR, question="\ud83d"), f"question {HALF}, at letter 1"),
        (asked(BEAR, ("Bär", "4")), "answer_start is no whole number: '4'"),
        (asked(BEAR, ("Bär", True)), "answer_start is no whole number: True"),
        (asked(BEAR, ("", 0)), "text is empty"),
        (asked(BEAR, (3, 0)), "text is no text: 3"),
        (asked(BEAR, answers=[{"text": "Bär"}]), "has no answer_start"),
        (asked(("Bär", 5)), "the answer 'Bär' does not stand at character 5 of the context"),
        (asked(("Bär", -20)), "the answer 'Bär' does not stand at character -20 of the context"),
        (asked(("Bär", 99)), "the answer 'Bär' does not stand at character 99 of the context"),
        (asked(("bär", 4)), "the answer 'bär' does not stand at character 4 of the context"),
    ],
)
def test_a_question_that_is_broken_is_named(question: dict[str, Any], what: str, tmp_path: Path) -> None:
    text = json.dumps(document(asked(BEAR, id="first"), question))
    problem = problem_of(write(tmp_path / "a.json", text))
    assert problem.where == f"{tmp_path / 'a.json'}, question 2 (q7)"
    assert problem.what == what


def test_the_nearest_place_of_a_misplaced_answer_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", document(asked(("Bär", 13))))
    assert problem_of(path).hint.startswith("but at 16;")
    path = write(tmp_path / "b.json", document(asked(("bear", 13))))
    assert problem_of(path).hint == "nor anywhere else in it"


def test_a_question_without_an_id_is_named_by_its_place(tmp_path: Path) -> None:
    one = asked(("x", 0))
    del one["id"]
    path = write(tmp_path / "a.json", document(asked(BEAR), one))
    assert problem_of(path).where == f"{path}, question 2, in article 1, paragraph 1"


def test_an_answer_that_is_no_object(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", document(asked(answers=["Bär"])))
    assert problem_of(path).what == "is no JSON object: 'Bär'"


@pytest.mark.parametrize("blank", ["", " "])
def test_blanked_answers_are_told_as_such(blank: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", document(asked((blank, 0)), asked((blank, 0), (blank, 0))))
    problem = problem_of(path)
    assert problem.where == str(path)
    assert problem.what == "its answers are blanked, as XTREME distributes it: there is nothing to score with"
    # one that is there makes it a broken question
    path = write(tmp_path / "b.json", document(asked((blank, 0)), asked(BEAR)))
    assert problem_of(path) == Problem(f"{path}, question 1 (q7)", "text is empty")


def test_a_byte_of_another_encoding(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", '{"data": [\n"é"]}', "latin-1")
    assert problem_of(path).what == "is not UTF-8 (byte 0xe9)"


def test_a_damaged_gzip_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json.gz", document(asked(BEAR)))
    path.write_bytes(path.read_bytes()[:-12])
    assert problem_of(path).what.startswith("is a damaged gzip file")


# The toy set.


def test_toy_questions_are_the_same_every_time_and_their_answers_stand_where_they_say() -> None:
    rows = list(toy_questions.generate("train"))
    assert rows == list(toy_questions.generate("train"))
    assert len(rows) == toy_questions.SIZES["train"]
    assert all(context[start : start + len(answer)] == answer for (_, context, answer), (start,) in rows)
    tests = list(toy_questions.generate("test"))
    assert len(tests) == toy_questions.SIZES["test"]
    known = {tuple(texts[:2]) for texts, _ in rows}
    assert sum(tuple(texts[:2]) in known for texts, _ in tests) < 4


# Real files.

XQUAD = "ar de el en es hi ro ru th tr vi zh"
REAL = {
    **{f"xquad/xquad.{lang}.json.gz": 1190 for lang in XQUAD.split()},
    **{
        f"mlqa/dev/dev-context-{lang}-question-{lang}.json.gz": count
        for lang, count in {"en": 1148, "de": 512, "vi": 511, "ar": 517, "es": 500, "hi": 507, "zh": 504}.items()
    },
    **{
        f"tydiqa-goldp/train/tydiqa.goldp.{lang}.train.json.gz": count
        for lang, count in {"en": 3696, "ko": 1625, "sw": 2755}.items()
    },
}


@pytest.mark.parametrize("name", sorted(REAL))
def test_real_files_have_the_questions_they_should(name: str, real_data: Path) -> None:
    rows = read(real_data / name)
    assert [number for number, _, _ in rows] == list(range(1, REAL[name] + 1))
    for _, (_, context, *answers), starts in rows:
        assert answers and len(answers) == len(starts)
        assert all(context[start : start + len(one)] == one for one, start in zip(answers, starts, strict=True))


def test_real_contexts_keep_the_mark_that_some_begin_with(real_data: Path) -> None:
    marked = {
        context for _, (_, context, *_), _ in read(real_data / "xquad/xquad.ar.json.gz") if context[0] == "\ufeff"
    }
    assert len(marked) == 9


@pytest.mark.parametrize("lang", ["en", "ko"])
def test_real_files_with_blanked_answers_are_refused(lang: str, real_data: Path) -> None:
    path = real_data / f"tydiqa-goldp/dev-unlabelled/tydiqa.goldp.{lang}.dev.json.gz"
    problem = problem_of(path)
    assert problem.where == str(path)
    assert "blanked" in problem.what
