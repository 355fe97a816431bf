"""The rows of a source, one after another, each checked as it is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kbench.config.schema import Data, Layout
from kbench.data.entities import TYPING_READERS
from kbench.data.facts import FACT_READERS
from kbench.data.generated import GENERATORS
from kbench.data.glue import GLUE_READERS
from kbench.data.lama import LAMA_READERS
from kbench.data.pairs import PAIR_READERS
from kbench.data.questions import QUESTION_READERS
from kbench.data.readers import READERS
from kbench.data.relations import RELATION_READERS
from kbench.data.sentences import SENTENCE_READERS
from kbench.data.source import Piece, Source
from kbench.data.treebanks import TREEBANK_READERS
from kbench.data.xtreme import XTREME_READERS
from kbench.errors import DataError, Problem
from kbench.registry import near

# problems that are told at once
SHOWN = 5
_READERS: dict[str, Any] = {
    **READERS, **SENTENCE_READERS, **TREEBANK_READERS, **PAIR_READERS, **XTREME_READERS, **RELATION_READERS,
    **QUESTION_READERS, **FACT_READERS, **TYPING_READERS, **LAMA_READERS, **GLUE_READERS,
}  # fmt: skip

# its number in the source split, text or words or texts, label, labels or score
Row = tuple[int, Any, Any]


def source_rows(data: Data, source: Source) -> dict[str, list[tuple[str, Iterator[Row]]]]:
    """split -> the rows of each of its languages, checked as they are read; of most data sets one, of no name."""
    if source.kind == "generated":
        _, sizes, generate = GENERATORS[data.reader]
        langs = {split: data.split_languages(split) or [""] for split in sizes}
        return {split: [(lang, _generated(generate, data, split, lang)) for lang in langs[split]] for split in sizes}
    return {
        split: [(piece.lang or "", _checked(data, source, piece)) for piece in source.pieces(split)]
        for split in source.files
    }


def _generated(generate: Any, data: Data, split: str, lang: str) -> Iterator[Row]:
    made = generate(data, split, lang) if lang else generate(data, split)
    return ((row, *content) for row, content in enumerate(made))


def _checked(data: Data, source: Source, piece: Piece) -> Iterator[Row]:
    names = data.source_labels or data.labels
    read: Any = _READERS["parquet" if source.kind == "hub" else data.reader]
    if source.kind == "hub":
        names = [str(index) for index in range(len(data.labels))]
    spelt = ["O", *(f"{position}-{name}" for name in names for position in "BI")] if data.task == "tagging" else names
    index = {name: position for position, name in enumerate(spelt)}
    encoding = data.encoding
    if data.zero_shot is not None and data.zero_shot.encodings is not None:
        encoding = data.zero_shot.encodings.get(piece.lang or "", encoding)
    problems: list[Problem] = []
    row, given = 0, 0
    wanted = range(10**12)[piece.rows]
    for path in piece.paths:
        before = row, len(problems)
        try:
            for line, text, label in read(path, encoding):
                row += 1
                if row > wanted.stop:
                    break
                if row <= wanted.start:
                    continue
                where = f"{path}, line {line}"
                unknown = None
                if data.layout is not Layout.spans and not isinstance(label, float):
                    labels = [label] if isinstance(label, str) else label
                    unknown = next((one for one in labels if one not in index), None)
                if unknown is not None:
                    known = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
                    wrong = unknown.partition("-")[2] if data.task == "tagging" else unknown
                    problems.append(Problem(where, f"unknown label {wrong!r}{near(wrong, names)}", f"labels: {known}"))
                elif isinstance(text, str) and not text.strip():
                    problems.append(Problem(where, "has no text"))
                elif data.task == "choice" and len(text) != 1 + len(names):
                    hint = f"a row of {data.name} has {len(names)}: {', '.join(data.labels)}"
                    problems.append(Problem(where, f"has {len(text) - 1} choices", hint))
                else:
                    given += 1
                    yield row - 1, text, _indices(label, index)
                if len(problems) >= SHOWN:
                    break
        except DataError as error:
            problems += error.problems
        if (row, len(problems)) == before:
            problems.append(Problem(str(path), "is empty"))
        if len(problems) >= SHOWN or row >= wanted.stop:
            break
    if not problems and not given:
        what = f"holds {row} rows, and rows {wanted.start} on are asked for"
        problems.append(Problem(str(piece.paths[0]), what, "mend the slice in data.files"))
    if problems:
        raise DataError(*problems)


def _indices(label: Any, index: Mapping[str, int]) -> Any:
    """Names as indices; numbers, a score or those of a question's answers, as they are."""
    if isinstance(label, float):
        return label
    if isinstance(label, str):
        return index[label]
    return [one if isinstance(one, int) else index[one] for one in label]
