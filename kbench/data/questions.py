"""Readers of questions with a context and answers that are spans of it.

Each yields (number of the question in the file, [question, context, answers], [where each answer begins in the
context]). A reader is a function of a path and its encoding, found by the name that `data.reader` gives. Files may be
gzipped. Errors name file and question. Places are counted in characters, Unicode code points.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kbench.data.pairs import _require, _text
from kbench.data.readers import lines
from kbench.errors import DataError, Problem

QuestionRow = tuple[int, list[str], list[int]]
QuestionReader = Callable[[Path, str], Iterator[QuestionRow]]


def squad(path: Path, encoding: str) -> Iterator[QuestionRow]:
    """SQuAD 1.1, and XQuAD, MLQA and TyDiQA-GoldP in its format.

    One JSON document: data: [{paragraphs: [{context, qas: [{id, question, answers: [{text, answer_start}]}]}]}]. It is
    read as a whole, SQuAD's own being 30 MB. An answer must stand where the file says, exactly.

    Raises:
        DataError: no such JSON; a key is missing or its value of another kind; a question without an answer; an answer
            that does not stand at its place; answers that are blanked.
    """
    content = "\n".join(line for _, line in lines(path, encoding, blank=True))
    if not content.strip():
        return
    try:
        document = json.loads(content)
    except json.JSONDecodeError as error:
        where = f"{path}, line {error.lineno}"
        raise DataError(Problem(where, f"is no JSON: {error.msg}, column {error.colno}")) from error
    except (ValueError, RecursionError) as error:
        raise DataError(Problem(str(path), f"is no JSON: {error}")) from error
    del content
    for number, (where, context, question) in enumerate(_questions(path, document), start=1):
        identity = question.get("id")
        where = f"{path}, question {number}" + (f" ({identity})" if isinstance(identity, str | int) else where)
        _require(question, ("question", "answers"), where)
        asked = _text(question, "question", where)
        answers = _list(question, "answers", where)
        if not answers:
            raise DataError(Problem(where, "has no answer", "question answering here is of SQuAD 1.1: each has one"))
        texts, starts = [], []
        for answer in answers:
            _require(_object(answer, f"{where}, an answer"), ("text", "answer_start"), where)
            if _blank(answer) and _blanked(path, document):
                raise DataError(
                    Problem(
                        str(path),
                        "its answers are blanked, as XTREME distributes it: there is nothing to score with",
                        "take the file of the data set's own release, or hold out rows of train",
                    )
                )
            texts.append(_text(answer, "text", where))
            starts.append(_place(answer, texts[-1], context, where))
        yield number, [asked, context, *texts], starts


QUESTION_READERS: dict[str, QuestionReader] = {"squad": squad}


def _questions(path: Path, document: Any) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Of each question: where in the document it is, its context, and itself."""
    top = str(path)
    _require(_object(document, top), ("data",), top)
    for article, one in enumerate(_list(document, "data", top), start=1):
        of_article = f"{top}, article {article}"
        _require(_object(one, of_article), ("paragraphs",), of_article)
        for paragraph, part in enumerate(_list(one, "paragraphs", of_article), start=1):
            where = f"{of_article}, paragraph {paragraph}"
            _require(_object(part, where), ("context", "qas"), where)
            context = _text(part, "context", where)
            for question in _list(part, "qas", where):
                yield f", in article {article}, paragraph {paragraph}", context, _object(question, f"{where}, qas")


def _blanked(path: Path, document: Any) -> bool:
    """Whether no question of a document has the text of an answer."""
    lists = (question.get("answers") for _, _, question in _questions(path, document))
    return all(_blank(answer) for answers in lists if isinstance(answers, list) for answer in answers)


def _blank(answer: Any) -> bool:
    """Whether the text of an answer is there, and empty."""
    text = answer.get("text") if isinstance(answer, dict) else None
    return isinstance(text, str) and not text.strip()


def _place(answer: Mapping[str, Any], text: str, context: str, where: str) -> int:
    """Where an answer begins in its context; it must stand there."""
    start = answer["answer_start"]
    if not isinstance(start, int) or isinstance(start, bool):
        raise DataError(Problem(where, f"answer_start is no whole number: {start!r:.40}"))
    if start >= 0 and context.startswith(text, start):
        return start
    what = f"the answer {text!r:.60} does not stand at character {start} of the context"
    places = [place for place in range(len(context)) if context.startswith(text, place)]
    if not places:
        raise DataError(Problem(where, what, "nor anywhere else in it"))
    nearest = min(places, key=lambda place: abs(place - start))
    raise DataError(Problem(where, what, f"but at {nearest}; are its places counted in bytes, or in another encoding?"))


def _object(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise DataError(Problem(where, f"is no JSON object: {value!r:.40}", "expected: the format of SQuAD 1.1"))
    return value


def _list(row: Mapping[str, Any], key: str, where: str) -> list[Any]:
    found = row[key]
    if not isinstance(found, list):
        raise DataError(Problem(where, f"{key} is no list: {found!r:.40}", "expected: the format of SQuAD 1.1"))
    return found
