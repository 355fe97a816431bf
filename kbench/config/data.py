"""Types and help of a data set: where its rows come from, what its labels are, how it is cut and scored."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from kbench.config.keys import key, machinery
from kbench.config.probing import ProbeOptions
from kbench.config.readers import GENERATED, JOINED, METRICS, OF_PAIRS, OF_WORDS, READERS
from kbench.config.relation import RelationOptions
from kbench.config.spans import SpanOptions
from kbench.config.typing import TypingOptions
from kbench.errors import Problem
from kbench.registry import near


class Layout(Enum):
    """What a row of a data set holds."""

    text = "text"
    words = "words"
    pairs = "pairs"
    marked = "marked"
    typed = "typed"
    spans = "spans"
    facts = "facts"


# tasks whose rows are of one kind, whatever the reader
_LAYOUTS = {
    "tagging": Layout.words, "pos": Layout.words, "relation": Layout.marked, "typing": Layout.typed,
    "qa": Layout.spans, "probe": Layout.facts,
}  # fmt: skip
# task -> the node of its options
_OPTIONS = {"qa": "spans", "relation": "relation", "typing": "typing", "probe": "probing"}
# the end of a file pattern: rows start:stop of the files, as in `dev.tsv*[:1500]`
_SLICE = re.compile(r"\[(\d*):(\d*)\]$")


class TrainData(Enum):
    """What a data set of several languages is learned from."""

    native = "native"
    translated = "translated"
    english = "english"


@dataclass
class Hub:
    """A place on the Hugging Face hub, pinned to one revision."""

    id: str = key("repository id")
    revision: str = key("full commit hash, 40 hexadecimal digits")


@dataclass
class Rows:
    """Number of rows a data set has when complete."""

    train: int = machinery("rows of the complete training split")
    test: int = machinery("rows of the complete test split")


@dataclass
class Treebanks:
    """The treebanks of one language."""

    names: list[str] = machinery("their folders, in the order in which they are joined")
    rows: Rows = machinery("sentences they have together")


@dataclass
class ZeroShot:
    """The languages of a data set that is learned in one and tested in several."""

    learned: str = key("language of the training and validation rows")
    tested: list[str] = key("languages whose test rows are scored, each by itself")
    spelt: dict[str, str] | None = machinery("language -> how file names spell it; null: as its code")
    encodings: dict[str, str] | None = key("language -> how its files spell letters as bytes; null: as `encoding`")

    def spelling(self, lang: str) -> str:
        """How file names spell a language."""
        return (self.spelt or {}).get(lang, lang)


class LabelPiece(Enum):
    """The piece at which a word is read."""

    first = "first"
    first_nonempty = "first_nonempty"


@dataclass
class WordOptions:
    """How the words of sentences are read."""

    label_piece: LabelPiece = key(
        "read a word at its first piece, or at the first_nonempty one: some tokenizers begin a word with a lone space"
    )


@dataclass
class Data:
    """A data set: where its splits come from, what its labels are, how it is cut."""

    name: str = key("name of the data set")
    task: str = key(
        "what a model must do with it: classification (of texts), regression (a score), tagging (entities), pos (parts "
        "of speech), choice, relation (of two marked entities), typing (of one), qa (a span that answers) or probe "
        "(facts, nothing is trained)"
    )
    languages: list[str] = machinery("ISO 639-1 codes of the texts")
    labels: list[str] = key(
        "classes, entity types, parts of speech, or names of the choices, in order; it decides which teacher gets which"
    )
    source_labels: list[str] | None = key("the labels as the files spell them, in the same order; null: as `labels`")
    metrics: list[str] = key("metrics, the main one first")
    reader: str = key("name of the reader of the original files (a module of kbench/data)")
    encoding: str = key("how the files spell letters as bytes")
    lang: str | None = key("language that is tested, of a data set of several; null: it has one set of rows")
    train_data: TrainData | None = key(
        "of several languages, what is learned: native text, English text translated, or english; null: there is one"
    )
    treebanks: dict[str, Treebanks] | None = machinery("language -> its treebanks, of a data set of several")
    zero_shot: ZeroShot | None = key("of a data set learned in one language and tested in several; null: it is not")
    words: WordOptions = key("of tagging and pos: how words are read")
    spans: SpanOptions | None = key("of qa: windows, and how answers are found and compared")
    relation: RelationOptions | None = key("of relation: head, markers and loss")
    typing: TypingOptions | None = key("of typing: head and mark")
    probing: ProbeOptions | None = key("of probe: how masks are filled and answers compared")
    files: dict[str, str] = machinery(
        "split -> glob of its original files, gzipped or not, inside the folder; {lang} stands for a language, and a "
        "slice at the end takes some rows: dev-{lang}.tsv*[:1500]; a | b: where the folder holds none of a, b"
    )
    folder: str = machinery("folder of the original files under KBENCH_DATA")
    path: str | None = machinery("folder of the original files; null: KBENCH_DATA, then the hub's cache")
    hub: Hub | None = machinery("the same rows on the hub, as parquet; null: none is known")
    parts: dict[str, Data] | None = key("data sets that are joined into this one, by name; null: it is one of its own")
    rows: Rows = machinery("size of the complete data set, to tell a part from the whole")
    train_size: int | None = key("take a stratified subset of this many training rows; null: all")
    validation_size: int | None = key("the same of the data set's own validation split")
    test_size: int | None = key("take a stratified subset of this many test rows; null: all")
    subset_seed: int = key("seed of those subsets, and of the test draw of a data set without splits")
    validation_share: float = key("share of train drawn by the run's seed where there is no validation split")
    max_length: int = key("longest text in tokens, special tokens included; the rest is cut")
    licence: str = machinery("terms of use")
    cite: str = machinery("where it comes from")

    def outputs(self) -> list[str]:
        """What a model's head tells apart: the labels; for tagging O and, of each type, B- and I- (IOB2).

        Of qa, whether an answer starts or ends at a token.
        """
        if self.task == "qa":
            return ["start", "end"]
        if self.task != "tagging":
            return list(self.labels)
        return ["O", *(f"{position}-{label}" for label in self.labels for position in "BI")]

    @property
    def layout(self) -> Layout:
        """What a row holds."""
        return _LAYOUTS.get(self.task, Layout.pairs if self.reader in OF_PAIRS else Layout.text)

    def options(self) -> WordOptions | SpanOptions | RelationOptions | TypingOptions | ProbeOptions | None:
        """The options of its task, of the tasks that have some."""
        of_words: WordOptions | None = self.words if self.task in OF_WORDS else None
        found = {"qa": self.spans, "relation": self.relation, "typing": self.typing, "probe": self.probing}
        return found.get(self.task, of_words)

    def split_language(self, split: str) -> str | None:
        """The language of a split: where the training text is not native it is chosen on English, too."""
        if split == "test" or self.train_data is TrainData.native:
            return self.lang
        return "en" if split == "validation" or self.train_data is TrainData.english else self.lang

    @property
    def of_graph(self) -> bool:
        """Whether its rows are questions that kbench makes of the knowledge graph."""
        return self.reader == "xlr" and self.path is None

    def split_languages(self, split: str) -> list[str]:
        """The languages of a split of a zero-shot data set; of others none."""
        if self.zero_shot is None:
            return []
        return list(self.zero_shot.tested) if split == "test" else [self.zero_shot.learned]

    def patterns(self) -> dict[str, list[str]]:
        """split -> globs of its original files; of several tested languages, one for each, in order."""
        if self.zero_shot is not None:
            return {
                split: [
                    pattern.replace("{lang}", self.zero_shot.spelling(lang)) for lang in self.split_languages(split)
                ]
                for split, pattern in self.files.items()
            }
        if self.treebanks is None or self.lang is None:
            return {split: [pattern] for split, pattern in self.files.items()}
        found = {}
        for split in [split for split in self.files if split != "translated"]:
            translated = split == "train" and self.train_data is TrainData.translated
            pattern = self.files["translated" if translated else split]
            lang = self.split_language(split) or self.lang
            names = self.treebanks[lang].names
            found[split] = list(dict.fromkeys(pattern.format(treebank=name, lang=lang) for name in names))
        return found

    def title(self) -> str:
        """Its name, with the language and what is learned where there are several."""
        if self.lang is None or self.train_data is None:
            return self.name
        learned = "" if self.train_data is TrainData.native else f" ({self.train_data.value})"
        return f"{self.name} {self.lang}{learned}"

    def complete(self) -> Rows:
        """The size of the complete data set: of English training text that of the English treebanks."""
        if self.treebanks is None or self.lang is None:
            return self.rows
        train = self.lang if self.train_data is TrainData.native else "en"
        return Rows(self.treebanks[train].rows.train, self.treebanks[self.lang].rows.test)

    def check(self, where: str = "data") -> list[Problem]:
        """Rules that a type cannot say. `where` is the configuration node."""
        problems = [*plain_name(f"{where}.name", self.name)]
        if self.task not in METRICS:
            known = ", ".join(METRICS)
            return [*problems, Problem(f"{where}.task", f"no such task: {self.task}", f"there are: {known}")]
        readers = (*READERS[self.task], *GENERATED[self.task], JOINED)
        if self.reader not in readers:
            hint = f"there are: {', '.join(readers)}"
            problems.append(
                Problem(f"{where}.reader", f"no such reader: {self.reader}{near(self.reader, readers)}", hint)
            )
        problems += self._check_labels(where)
        unknown = [name for name in self.metrics if name not in METRICS[self.task]]
        if unknown or not self.metrics:
            what = f"no such metric: {', '.join(unknown)}" if unknown else "is empty"
            problems.append(Problem(f"{where}.metrics", what, f"there are: {', '.join(METRICS[self.task])}"))
        fewest = len(self.labels) if self.task == "classification" else 2
        for name in ("train_size", "validation_size", "test_size"):
            size = getattr(self, name)
            if size is not None and size < fewest:
                held = f"{len(self.labels)} classes" if self.task == "classification" else "a training"
                problems.append(Problem(f"{where}.{name}", f"{size} rows cannot hold {held}", "take more, or null"))
        if not 0 <= self.validation_share < 1:
            problems.append(Problem(f"{where}.validation_share", f"must lie in [0, 1), is {self.validation_share}"))
        shortest = 16 if self.layout in (Layout.marked, Layout.typed) else 3  # marks stay where a text is cut
        if self.max_length < shortest:
            problems.append(Problem(f"{where}.max_length", f"must be at least {shortest}, is {self.max_length}"))
        options = self.options()
        if options is not None and not isinstance(options, WordOptions):
            problems += options.check(f"{where}.{_OPTIONS[self.task]}")
        elif self.task in _OPTIONS:
            problems.append(Problem(f"{where}.{_OPTIONS[self.task]}", f"is null; a {self.task} data set needs it"))
        if isinstance(options, RelationOptions):
            problems += options.check_data(f"{where}.relation", self.labels, self.reader)
        problems += [
            Problem(
                f"{where}.files.{split}", f"takes no rows: {pattern}", "a slice is [first:end], rows before the end"
            )
            for split, patterns in self.files.items()
            for pattern in spellings(patterns)
            if not range(10**12)[sliced(pattern)[1]]
        ]
        return problems + self._check_zero_shot(where) + self._check_languages(where) + self._check_parts(where)

    def _check_zero_shot(self, where: str) -> list[Problem]:
        if self.zero_shot is None:
            return []
        tested = self.zero_shot.tested
        problems = []
        if not tested or len(set(tested)) != len(tested):
            problems.append(Problem(f"{where}.zero_shot.tested", "must name one language at least, each once"))
        pattern = self.files.get("test", "{lang}")
        if "{lang}" not in pattern and len(tested) > 1:
            problems.append(Problem(f"{where}.files.test", "names the same files for every language", "write {lang}"))
        return problems

    def _check_languages(self, where: str) -> list[Problem]:
        """A language, and what is learned, belong to a data set of several."""
        chosen = {"lang": self.lang, "train_data": self.train_data}
        if self.treebanks is None:
            return [
                Problem(f"{where}.{name}", f"{self.name} has one set of rows", "leave it out")
                for name, value in chosen.items()
                if value is not None
            ]
        known = ", ".join(self.treebanks)
        problems = [Problem(f"{where}.{name}", "has no value") for name, value in chosen.items() if value is None]
        problems += [
            Problem(f"{where}.treebanks.{lang}.names", "is empty", "name one folder at least")
            for lang, banks in self.treebanks.items()
            if not banks.names
        ]
        for split, pattern in self.files.items():
            try:
                pattern.format(treebank="", lang="")
            except (KeyError, ValueError, IndexError):
                hint = "{treebank} and {lang} may stand in it"
                problems.append(Problem(f"{where}.files.{split}", f"is no pattern: {pattern}", hint))
        if self.lang is not None and self.lang not in self.treebanks:
            problems.append(Problem(f"{where}.lang", f"no such language: {self.lang}", f"there are: {known}"))
        if self.train_data not in (None, TrainData.native) and "en" not in self.treebanks:
            problems.append(Problem(f"{where}.train_data", "needs the treebanks of en", f"there are: {known}"))
        if self.train_data is TrainData.translated and "translated" not in self.files:
            problems.append(Problem(f"{where}.files", "has no pattern for translated training text"))
        return problems

    def _check_labels(self, where: str) -> list[Problem]:
        problems = []
        one = {"tagging": "it needs a type", "probe": "it needs a relation", "regression": "it needs one, its score"}
        fewest, what = (1, one[self.task]) if self.task in one else (2, "a model needs two at least")
        if len(self.labels) < fewest * (self.task != "qa") or (self.task == "regression" and len(self.labels) > 1):
            noun = "label" if len(self.labels) == 1 else "labels"
            problems.append(Problem(f"{where}.labels", f"has {len(self.labels)} {noun}", what))
        if len(set(self.labels)) != len(self.labels):
            problems.append(Problem(f"{where}.labels", "a label stands twice"))
        if self.task == "classification" and "f1" in self.metrics and len(self.labels) > 2:
            hint = "the mean over all labels is macro_f1"
            problems.append(Problem(f"{where}.metrics", "f1 is that of the second of two labels", hint))
        if self.source_labels is not None and len(self.source_labels) != len(self.labels):
            problems.append(Problem(f"{where}.source_labels", f"must be as many as {where}.labels, in the same order"))
        return problems

    def _check_parts(self, where: str) -> list[Problem]:
        if (self.parts is not None) != (self.reader == JOINED):
            return [Problem(f"{where}.parts", f"goes with {where}.reader={JOINED}, and only with it")]
        problems = []
        for name, part in (self.parts or {}).items():
            problems += part.check(f"{where}.parts.{name}")
            if part.parts is not None or {self.task, part.task} != {"classification"} or part.layout is Layout.pairs:
                problems.append(Problem(f"{where}.parts.{name}", "must be a plain data set of texts to classify"))
        count = sum(len(part.labels) for part in (self.parts or {}).values())
        if self.parts is not None and count != len(self.labels):
            problems.append(Problem(f"{where}.labels", f"has {len(self.labels)} labels; the parts have {count}"))
        return problems


def spellings(patterns: str) -> list[str]:
    """What a split's files may be called: `train.tsv* | all.txt*[:90]` is `train.tsv*`, or else `all.txt*[:90]`."""
    return [pattern.strip() for pattern in patterns.split(" | ")]


def sliced(pattern: str) -> tuple[str, slice]:
    """A file pattern without its slice of rows, and that slice: `dev.tsv*[:1500]` is `dev.tsv*` and rows 0 to 1500."""
    found = _SLICE.search(pattern)
    if found is None:
        return pattern, slice(None)
    start, stop = (int(number) if number else None for number in found.groups())
    return pattern[: found.start()], slice(start, stop)


def plain_name(where: str, name: str) -> list[Problem]:
    """A name is a folder of outputs: one plain word."""
    if re.fullmatch(r"\w[\w.-]*", name):
        return []
    return [Problem(where, f"must be one word of letters, digits, _ . and -, is {name!r}")]
