"""Reader of X-FACTR's facts (Jiang et al. 2020): what a model is asked, and every answer that counts.

A data set of one language is several files of one folder; the reader is given `alias/mTRExf/<lang>.txt` and finds the
others beside it. Any of them may be gzipped:

TREx_prompts.csv             pid, relation, then a column of prompts a language; it gives the order of the relations
mTRExf/sub/P*.jsonl          facts: sub_uri, obj_uri and what English text calls them
alias/mTRExf/<lang>.txt      entity, then its names in alphabetical order, the label among them, unmarked
mTRExf_gender.txt, mTRExf_instanceof.txt, mTRExf_is_cate.txt     what inflection asks of an entity
mTRExf_multi_rel.txt         subject, relation, all valid objects
mTRExf_unicode_escape.txt    labels in all languages; read where it is there
labels/TREx_<language>.txt   labels of some entities; read where it is there

A fact is used in a language where subject and object both have a name in it. The benchmark puts Wikidata's labels into
its prompts; without mTRExf_unicode_escape.txt they are known in part only, and this stands for them, in this order:
labels/TREx_<language>.txt; the name that English texts give it most often, where it is a name in this language too;
the first name that is no code ("FR", "7.5") and has no bracket, in ja, ko and zh one in their own letters; the first.
Where a name stands there with and without accents, it is taken with them.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from kbench.data.nouns import Entity
from kbench.data.pairs import _csv, _objects, _text
from kbench.data.prompts import Prompt
from kbench.data.readers import _columns, lines
from kbench.errors import DataError, Problem

# what a row's texts are; all behind them are names that count as the object's (ALIASES on)
PROMPT, GOLD, SUBJECT, SUBJECT_ID, RELATION, OBJECT_ID, ALIASES = range(7)

FactRow = tuple[int, list[str], str]
FactReader = Callable[[Path, str], Iterator[FactRow]]

_PROMPTS, _FACTS, _MULTI = "TREx_prompts.csv", "mTRExf/sub", "mTRExf_multi_rel.txt"
_GENDER, _INSTANCE, _CATEGORY = "mTRExf_gender.txt", "mTRExf_instanceof.txt", "mTRExf_is_cate.txt"
_LABELS = "mTRExf_unicode_escape.txt"
_LANGUAGES = {"es": "spanish", "fr": "french", "ko": "korean", "vi": "vietnamese"}
_SEXES = ("male", "female", "none")


def xfactr(path: Path, encoding: str) -> Iterator[FactRow]:
    """The facts of a language as (number, texts, relation), relation by relation; numbers are those of all languages.

    Texts are the prompt with the subject filled in and [Y] for the object, the object's label, the subject's label,
    the ids of subject, relation and object, then every other name that counts as the answer: those of the object, and
    of any other object that is valid for subject and relation. Where the English prompt ends in "[Y] .", a name that
    ends in a period counts without it, too, as in the benchmark's evaluation script. The names of all entities, some
    ten thousand, are held in memory.

    Args:
        path: alias/mTRExf/<lang>.txt, or .txt.gz.
        encoding: of all files.

    Raises:
        DataError: a file is missing or broken, or a prompt's inflection cannot be resolved.
    """
    root, language = _root(path), path.name.split(".")[0]
    absent = [one for one in FACT_COMPANIONS(path) if not one.is_file()]
    if absent:
        raise DataError(*(Problem(str(path), f"has no file {one.relative_to(root)} beside it") for one in absent))
    number = 0
    prompts = _prompts(root, encoding, language)
    names = _Names(root, path, encoding, language)
    inflected = _Grammar(root, encoding) if language in ("es", "fr") else _Grammar()
    valid: dict[tuple[str, str], str] = {}
    for _, (subject, relation, objects) in _rows(_file(root, _MULTI), encoding, 3):
        valid[subject, relation] = objects
    for relation, prompt in prompts.items():
        for _, where, row in _objects(_file(root, f"{_FACTS}/{relation}.jsonl"), encoding, ("sub_uri", "obj_uri")):
            number += 1
            subject, gold = _text(row, "sub_uri", where), _text(row, "obj_uri", where)
            if subject not in names or gold not in names:
                continue
            label, answer = names.label(subject), names.label(gold)
            told = prompt.fill(inflected.entity(subject, label), inflected.entity(gold, answer))
            others = [*names.all(gold)]
            for other in valid.get((subject, relation), "").split():
                others += names.all(other)
            if language == "en" and re.search(r"\[Y\] ?\.$", told):
                others += [name[:-1].rstrip() for name in (answer, *others) if name.endswith(".")]
            counted = dict.fromkeys(name for name in others if name and name != answer)
            yield number, [told, answer, label, subject, relation, gold, *counted], relation


def companions(path: Path) -> list[Path]:
    """The files that belong to alias/mTRExf/<lang>.txt; one that is missing is named as it should be."""
    root, language = _root(path), path.name.split(".")[0]
    needed = [_PROMPTS, _MULTI, *((_GENDER, _INSTANCE, _CATEGORY) if language in ("es", "fr") else ())]
    found = [_file(root, name) for name in needed]
    facts = sorted(root.glob(f"{_FACTS}/P*.jsonl*"))
    optional = [_file(root, name) for name in _optional(language)]
    return [*found, *(facts or [root / _FACTS / "P19.jsonl"]), *(one for one in optional if one.is_file())]


FACT_READERS: dict[str, FactReader] = {"xfactr": xfactr}
# a file of names -> the files that belong to it
FACT_COMPANIONS: Callable[[Path], list[Path]] = companions


def _root(path: Path) -> Path:
    """The folder of all: that in which alias/mTRExf/<lang>.txt stands."""
    return path.parent.parent.parent


def _file(root: Path, name: str) -> Path:
    """A file, gzipped where only that is there."""
    plain, zipped = root / name, root / f"{name}.gz"
    return zipped if zipped.is_file() and not plain.is_file() else plain


def _optional(language: str) -> list[str]:
    """Files of labels, the best first."""
    return [_LABELS, *([f"labels/TREx_{_LANGUAGES[language]}.txt"] if language in _LANGUAGES else [])]


def _rows(path: Path, encoding: str, least: int, most: int | None = None) -> Iterator[tuple[str, list[str]]]:
    """(where, columns) of a file of columns separated by tabs; it has `least` of them, or up to `most`."""
    for number, line in lines(path, encoding):
        columns = line.split("\t")
        if len(columns) < least or len(columns) > (most or least):
            raise _columns(path, number, len(columns), f"{least}, separated by tabs")
        yield f"{path}, line {number}", columns


def _prompts(root: Path, encoding: str, language: str) -> dict[str, Prompt]:
    """relation -> its prompt, in the order of the file."""
    path = _file(root, _PROMPTS)
    found = {}
    problems = []
    for number, where, row in _csv(path, encoding, ("pid", language)):
        relation = _text(row, "pid", where)
        if not _file(root, f"{_FACTS}/{relation}.jsonl").is_file():
            problems.append(Problem(where, f"relation {relation} has no file {_FACTS}/{relation}.jsonl"))
            continue
        try:
            found[relation] = Prompt(_text(row, language, where), language, relation, f"{path}, line {number}")
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(*problems)
    return found


class _Names:
    """The names of all entities in one language, and which of them is the label."""

    def __init__(self, root: Path, path: Path, encoding: str, language: str):
        self._latin = language not in ("ja", "ko", "zh")
        self._names: dict[str, list[str]] = {}
        for _, (entity, *names) in _rows(path, encoding, 2, 10**6):
            self._names[entity] = [name.strip() for name in names if name.strip()]
        best, *others = [_file(root, name) for name in _optional(language)]
        self._labels: dict[str, str] = {}
        self._complete = best.is_file()
        if self._complete:
            self._labels = _labels_of(best, encoding, language)
        elif others and others[0].is_file():
            self._labels = {entity: label for _, (entity, label) in _rows(others[0], encoding, 2)}
        self._english = _english(root, encoding) if self._latin and not self._complete else {}

    def __contains__(self, entity: str) -> bool:
        """Whether an entity has a label: where those of all are known one of them, else any name."""
        return entity in self._labels if self._complete else bool(self._names.get(entity))

    def all(self, entity: str) -> list[str]:
        """Every name of an entity; none where it has none in this language."""
        return self._names.get(entity, [])

    def label(self, entity: str) -> str:
        """The name that stands in prompts."""
        names = self._names.get(entity, [])
        if entity in self._labels:
            return self._labels[entity]
        usual = [name for name, _ in self._english.get(entity, Counter()).most_common() if name in names]
        chosen = next((name for name in (*usual, *names) if self._is_word(name)), names[0])
        # of spellings that differ in accents only, the one that has most: an alias often drops them
        alike = [name for name in names if _unaccented(name) == _unaccented(chosen)]
        return max(alike, key=lambda name: len(unicodedata.normalize("NFD", name))) if self._latin else chosen

    def _is_word(self, name: str) -> bool:
        """Whether a name may be a label: no code, no bracket, in ja, ko and zh of their own letters."""
        if not self._latin:
            return any(letter.isalpha() and not letter.isascii() for letter in name) and "(" not in name
        code = (name.isupper() or name.islower()) and name.isascii() and len(name) <= 3
        page = re.match(r"\w+:\w", name)  # of Wikipedia, of a kind: Anexo:Oscar
        return not (code or page or "(" in name) and sum(map(str.isalpha, name)) > len(name) / 2


def _unaccented(name: str) -> str:
    return "".join(letter for letter in unicodedata.normalize("NFD", name) if not unicodedata.combining(letter)).lower()


def _labels_of(path: Path, encoding: str, language: str) -> dict[str, str]:
    """entity -> its label in one language, of a file with those of all: entity TAB "label"@lang TAB ..."""
    found = {}
    for _, (entity, *labels) in _rows(path, encoding, 1, 10**6):
        for label in labels:
            text, at, spoken = label.rpartition("@")
            if at and spoken == language and text.strip('"').strip():
                found[entity] = text.strip('"').strip()
    return found


def _english(root: Path, encoding: str) -> dict[str, Counter[str]]:
    """entity -> how often English text calls it what, in all facts."""
    found: dict[str, Counter[str]] = {}
    for path in sorted(root.glob(f"{_FACTS}/P*.jsonl*")):
        for _, _, row in _objects(path, encoding, ("sub_uri", "obj_uri")):
            for part in ("sub", "obj"):
                label = row.get(f"{part}_label")
                if isinstance(label, str):
                    found.setdefault(str(row[f"{part}_uri"]), Counter())[label] += 1
    return found


@dataclass
class _Grammar:
    """What the files say of entities beside their names; nothing where a language is not inflected."""

    root: Path | None = None
    encoding: str = "utf-8"
    sexes: dict[str, str] = field(default_factory=dict)
    kinds: dict[str, tuple[str, ...]] = field(default_factory=dict)
    categories: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        if self.root is None:
            return
        for where, (entity, sex) in _rows(_file(self.root, _GENDER), self.encoding, 2):
            if sex not in _SEXES:
                raise DataError(Problem(where, f"unknown gender {sex!r}", f"there are: {', '.join(_SEXES)}"))
            self.sexes[entity] = sex
        for _, (entity, *classes) in _rows(_file(self.root, _INSTANCE), self.encoding, 1, 10**6):
            self.kinds[entity] = tuple(one.partition(",")[2] for one in classes if "," in one)
        for where, (entity, flag) in _rows(_file(self.root, _CATEGORY), self.encoding, 2):
            if flag not in ("0", "1"):
                raise DataError(Problem(where, f"{flag!r} is neither 0 nor 1"))
            if flag == "1":
                self.categories.add(entity)

    def entity(self, entity: str, name: str) -> Entity:
        """An entity with its name, as inflection asks for it."""
        sex = self.sexes.get(entity, "none")
        return Entity(name, sex, self.kinds.get(entity, ()), entity in self.categories)
