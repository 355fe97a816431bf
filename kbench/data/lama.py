"""Reader of LAMA's facts (Petroni et al. 2019) as queries: a sentence with a gap for each subject and object.

Files are those of the release, any of them gzipped, and a relation is a file:

Google_RE/<relation>_test.jsonl   pred, sub_label, obj_label, judgments, sub_w and obj_w (Wikidata's ids, or null)
TREx/P*.jsonl                     predicate_id, sub_label, obj_label, sub_uri, obj_uri
Squad/test.jsonl                  masked_sentences, a list of one with [MASK]; sub_label, obj_label, id
relations.jsonl                   relation, template: of T-REx; in the folder above, or beside the facts
common_vocab_cased.txt            LAMA's list of words, one a line; in the folder above. Read where it is asked for

Of a fact with judgements one is left out that more raters denied than affirmed, as in LAMA's code. The sentence is the
relation's template, which stands for all the sentences that the files give as evidence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kbench.data.facts import FactReader, FactRow
from kbench.data.pairs import _objects, _text
from kbench.data.prompts import OBJECT, SUBJECT
from kbench.data.readers import lines
from kbench.errors import DataError, Problem

WORDS = "common_vocab_cased.txt"
# Google-RE's templates stand in LAMA's code, not in relations.jsonl
TEMPLATES = {
    "place_of_birth": f"{SUBJECT} was born in {OBJECT} .",
    "date_of_birth": f"{SUBJECT} (born {OBJECT}).",
    "place_of_death": f"{SUBJECT} died in {OBJECT} .",
}
SQUAD = "squad"
_MASK = "[MASK]"
_KINDS = "place_of_birth_test.jsonl and its like, P19.jsonl and its like, Squad/test.jsonl"


def lama(path: Path, encoding: str) -> Iterator[FactRow]:
    """The queries of a relation as (line of the file, texts, relation); of equal ones the first.

    Texts are those of kbench/data/facts.py: the sentence with the subject filled in and [Y] for the object, the
    object's label, the subject's, the ids of subject, relation and object. Ids are empty where the file has none, and
    the relation is LAMA's name: P19, place_of_birth or squad. There are no other names that count.

    Raises:
        DataError: the file is none of LAMA's or broken, its relation has no template, or relations.jsonl is not there.
    """
    name = path.name.removesuffix(".gz").removesuffix(".jsonl")
    relation = name.removesuffix("_test")
    if path.parent.name.lower() == SQUAD and name == "test":
        yield from _squad(path, encoding)
    elif relation in TEMPLATES:
        yield from _queries(path, encoding, relation, TEMPLATES[relation], ("sub_w", "obj_w"), judged=True)
    elif re.fullmatch(r"P\d+", relation):
        yield from _queries(path, encoding, relation, _template(path, encoding, relation), ("sub_uri", "obj_uri"))
    else:
        raise DataError(Problem(str(path), "is no file of LAMA's facts", f"they are called {_KINDS}"))


def companions(path: Path) -> list[Path]:
    """The file of templates that a file of T-REx needs; of others none. Where it is missing, as it should be."""
    return [_templates(path)] if re.match(r"P\d+\.jsonl", path.name) else []


def words_file(folder: Path) -> Path:
    """Where LAMA's list of words is expected in the folder of its data."""
    plain, zipped = folder / WORDS, folder / f"{WORDS}.gz"
    return zipped if zipped.is_file() and not plain.is_file() else plain


def read_words(path: Path) -> list[str]:
    """The words of a list, one a line, each once.

    Raises:
        DataError: a line has several words, or there are none.
    """
    found: dict[str, None] = {}
    for number, line in lines(path):
        word = line.strip()
        if len(word.split()) != 1:
            what = f"has several words: {word!r:.60}"
            raise DataError(Problem(f"{path}, line {number}", what, "a list of words has one a line"))
        found[word] = None
    if not found:
        raise DataError(Problem(str(path), "is empty", "a list of words has one a line"))
    return list(found)


LAMA_READERS: dict[str, FactReader] = {"lama": lama}


def _queries(
    path: Path, encoding: str, relation: str, template: str, keys: tuple[str, str], judged: bool = False
) -> Iterator[FactRow]:
    """The queries of a relation that has a template. `keys`: of both ids; `judged`: whether raters judged the facts."""
    seen = set()
    labels = ("sub_label", "obj_label")
    for number, where, row in _objects(path, encoding, (*labels, *keys, *(("judgments",) if judged else ()))):
        if judged and not _affirmed(row, where):
            continue
        subject, gold = (_text(row, key, where).strip() for key in labels)
        if (subject, gold) in seen:
            continue
        seen.add((subject, gold))
        if OBJECT in subject:
            raise DataError(Problem(where, f"the subject {subject!r} holds {OBJECT}", "rename it"))
        ids = ["" if row[key] is None else _text(row, key, where) for key in keys]
        yield number, [template.replace(SUBJECT, subject), gold, subject, ids[0], relation, ids[1]], relation


def _squad(path: Path, encoding: str) -> Iterator[FactRow]:
    """SQuAD's questions as sentences that people wrote: they have no template, and equal ones are kept, as in LAMA.

    A few have two gaps, and are rows that are not asked.
    """
    for number, where, row in _objects(path, encoding, ("masked_sentences", "obj_label", "sub_label", "id")):
        told = row["masked_sentences"]
        if not isinstance(told, list) or len(told) != 1 or not isinstance(told[0], str):
            raise DataError(Problem(where, "masked_sentences is no list of one sentence"))
        if _MASK not in told[0] or OBJECT in told[0]:
            raise DataError(Problem(where, f"{told[0]!r:.80} holds no {_MASK}, or {OBJECT}"))
        gold, subject = (_text(row, key, where).strip() for key in ("obj_label", "sub_label"))
        yield number, [told[0].replace(_MASK, OBJECT), gold, subject, "", SQUAD, ""], SQUAD


def _affirmed(row: Mapping[str, Any], where: str) -> bool:
    """Whether no more raters denied a fact than affirmed it."""
    judgments = row["judgments"]
    said = [one.get("judgment") if isinstance(one, dict) else None for one in judgments or ()]
    if not isinstance(judgments, list) or not all(isinstance(one, str) for one in said):
        raise DataError(Problem(where, "judgments is no list of {judgment: yes or no}"))
    return said.count("no") <= said.count("yes")


def _templates(path: Path) -> Path:
    """relations.jsonl of a file of T-REx: in the folder above as in the release, else beside it, gzipped or not."""
    places = [folder / f"relations.jsonl{end}" for folder in (path.parent.parent, path.parent) for end in ("", ".gz")]
    return next((one for one in places if one.is_file()), places[0])


def _template(path: Path, encoding: str, relation: str) -> str:
    """The template of a relation of T-REx."""
    file = _templates(path)
    if not file.is_file():
        raise DataError(Problem(str(path), f"has no file {file.name} in the folder above, which holds its template"))
    for _, where, row in _objects(file, encoding, ("relation", "template")):
        if row["relation"] != relation:
            continue
        template = _text(row, "template", where).strip()
        for slot in (SUBJECT, OBJECT):
            if template.count(slot) != 1:
                what = f"has {slot} {template.count(slot)} times: {template!r}"
                raise DataError(Problem(where, what, "a template holds [X] and [Y] once each"))
        return template
    raise DataError(Problem(str(file), f"has no template of {relation}, which {path.name} needs"))
