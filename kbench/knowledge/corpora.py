"""Text with linked mentions in its original files: where they are, and their documents, one after another.

A reader is a function of the files of its parts, found by the name that `knowledge.corpus.reader` gives; the forms of
files are those of `kbench.knowledge.corpus_files`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kbench.config.corpus import Corpus
from kbench.data.source import ENVIRONMENT
from kbench.errors import DataError, Problem
from kbench.files import hash_file

Files = Mapping[str, tuple[Path, ...]]

GENERATED = "toy_corpus"
# reader -> the parts it needs
PARTS = {
    "jsonl": ("text",),
    "ernie": ("tokens", "entities", "vocabulary"),
    "docred": ("documents",),
    "text": ("text",),
    "wikipedia": ("pages", "page_props"),
    GENERATED: (),
}
_PACKED = (".gz", ".bz2")


@dataclass(frozen=True)
class Span:
    """A mention: characters of its sentence, half-open.

    Attributes:
        start: first character.
        end: character behind the last one.
        number: Wikidata number (42 for Q42); None where the source names no entity.
        score: how sure the source is, 0 to 1.
    """

    start: int
    end: int
    number: int | None
    score: float = 1.0


@dataclass
class Sentence:
    """One sentence and the mentions in it."""

    text: str
    spans: list[Span] = field(default_factory=list)


@dataclass
class Document:
    """Consecutive sentences of one source; `title` is empty where the source has none."""

    title: str
    sentences: list[Sentence] = field(default_factory=list)


def locate_corpus(corpus: Corpus) -> dict[str, tuple[Path, ...]]:
    """Part -> its files in order of their names; nothing for a generated corpus.

    Raises:
        DataError: the folder or the files of a part are absent, or `knowledge.corpus.files` has not the reader's parts.
    """
    parts = PARTS[corpus.reader]
    if not parts:
        return {}
    unknown = [part for part in corpus.files if part not in parts]
    missing = [part for part in parts if part not in corpus.files]
    if unknown or missing:
        what = f"has unknown parts: {', '.join(unknown)}" if unknown else f"does not say where {missing[0]} are"
        own = ", ".join(f'{part}: "PATTERN"' for part in parts)
        hint = f"the reader {corpus.reader} has 'knowledge.corpus.files={{{own}}}'"
        raise DataError(Problem("knowledge.corpus.files", what, hint))
    if corpus.path is not None:
        return _found(corpus, Path(corpus.path).expanduser(), f"knowledge.corpus.path={corpus.path}")
    root = os.environ.get(ENVIRONMENT)
    if root and not Path(root).is_dir():
        hint = f"set it to the folder that holds {corpus.folder}, or give knowledge.corpus.path"
        raise DataError(Problem(ENVIRONMENT, f"is set to {root}, which is no folder", hint))
    if root and (Path(root) / corpus.folder).is_dir():
        return _found(corpus, Path(root) / corpus.folder, f"{ENVIRONMENT}/{corpus.folder}")
    ways = [f"from files: knowledge.corpus.path=FOLDER with {_expected(corpus)}"]
    ways.append(f"or {ENVIRONMENT}=ROOT with them in ROOT/{corpus.folder}" + (f"   (now {root})" if root else ""))
    ways.append(f"source: {corpus.cite}")
    raise DataError(Problem(f"the corpus {corpus.name}", "is not on this machine", "\n".join(ways)))


def _found(corpus: Corpus, folder: Path, setting: str) -> dict[str, tuple[Path, ...]]:
    if not folder.is_dir():
        raise DataError(Problem(setting, f"there is no folder {folder}", f"it should hold {_expected(corpus)}"))
    files, problems = {}, []
    for part, pattern in corpus.files.items():
        files[part] = tuple(sorted(path for path in folder.glob(pattern) if path.is_file()))
        copies = [path for path in files[part] for end in _PACKED if path.with_name(f"{path.name}{end}") in files[part]]
        problems += [Problem(str(path), "stands beside its own packed copy", "remove one of them") for path in copies]
        if not files[part]:
            problems.append(Problem(str(folder), f"holds no file {pattern}", f"knowledge.corpus.files.{part}"))
    if problems:
        raise DataError(*problems)
    return files


def _expected(corpus: Corpus) -> str:
    return ", ".join(f"{pattern} ({part})" for part, pattern in corpus.files.items())


def content(reader: str, files: Files) -> object:
    """What a corpus is, wherever its files stand: plain JSON values."""
    if reader == GENERATED:
        from kbench.knowledge import toy_corpus

        return {GENERATED: toy_corpus.VERSION}
    return {part: [hash_file(path) for path in paths] for part, paths in files.items()}


def documents(reader: str, files: Files) -> Iterator[Document]:
    """The documents of a corpus, in order of its files.

    Raises:
        DataError: a file is empty, damaged, of another encoding or not of the reader's form.
    """
    if reader == GENERATED:
        from kbench.knowledge import toy_corpus

        return toy_corpus.documents()
    if reader == "wikipedia":
        from kbench.knowledge import wikipedia

        return wikipedia.documents(files)
    from kbench.knowledge import corpus_files

    return corpus_files.READERS[reader](files)
