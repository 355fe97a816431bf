"""Types and help of the configuration. Values stand in `conf/`; each method brings its own `Config`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Any

from kbench.config.keys import key, machinery
from kbench.engine.recipe import Recipe
from kbench.errors import Problem
from kbench.registry import near

# task -> names of its metrics in kbench.metrics; a test holds the two together
METRICS = {
    "classification": ("accuracy", "macro_f1"),
    "tagging": ("f1", "precision", "recall"),
    "pos": ("accuracy", "macro_f1", "f1"),
    "choice": ("accuracy",),
}
# task -> names of its readers in kbench.data, likewise
READERS = {
    "classification": ("ag_csv", "label_last", "label_first", "label_tab_last", "file_per_class", "parquet", "snli"),
    "tagging": ("conll_columns", "conll_brackets", "wikiann"),
    "pos": ("conllu", "conllu_fused"),
    "choice": ("swag", "piqa", "hellaswag"),
}
# readers that make the rows themselves, likewise
GENERATED = {
    "classification": ("toy", "toy_other", "toy_inference"),
    "tagging": ("toy_entities",),
    "pos": ("toy_pos",),
    "choice": ("toy_choice",),
}
# the reader of a data set that is made of others
JOINED = "joined"
# tasks whose units are the words of a sentence; readers whose rows are a first text and one or several second ones
OF_WORDS = ("tagging", "pos")
OF_PAIRS = ("snli", "toy_inference", *READERS["choice"], *GENERATED["choice"])

# kinds of tokenizers that a backbone may have
TOKENIZERS = ("auto", "kobert", "plain")


class Layout(Enum):
    """What a row of a data set holds."""

    text = "text"
    words = "words"
    pairs = "pairs"


class TrainData(Enum):
    """What a data set of several languages is learned from."""

    native = "native"
    translated = "translated"
    english = "english"


def _plain_name(where: str, name: str) -> list[Problem]:
    """A name is a folder of outputs: one plain word."""
    if re.fullmatch(r"\w[\w.-]*", name):
        return []
    return [Problem(where, f"must be one word of letters, digits, _ . and -, is {name!r}")]


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
class Data:
    """A data set: where its splits come from, what its labels are, how it is cut."""

    name: str = key("name of the data set")
    task: str = key(
        "what a model must do with it: classification (of texts), tagging (entities), pos (parts of speech) or choice"
    )
    languages: list[str] = machinery("ISO 639-1 codes of the texts")
    labels: list[str] = key(
        "classes, entity types, parts of speech, or names of the choices, in order; it decides which teacher gets which"
    )
    source_labels: list[str] | None = key("the labels as the files spell them, in the same order; null: as `labels`")
    metrics: list[str] = key("metrics, the main one first")
    reader: str = key("name of the reader of the original files (kbench/data: readers, sentences, treebanks, pairs)")
    encoding: str = key("how the files spell letters as bytes")
    lang: str | None = key("language that is tested, of a data set of several; null: it has one set of rows")
    train_data: TrainData | None = key(
        "of several languages, what is learned: native text, English text translated, or english; null: there is one"
    )
    treebanks: dict[str, Treebanks] | None = machinery("language -> its treebanks, of a data set of several")
    files: dict[str, str] = machinery("split -> glob of its original files, gzipped or not, inside the folder")
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
        """What a model's head tells apart: the labels; for tagging O and, of each type, B- and I- (IOB2)."""
        if self.task != "tagging":
            return list(self.labels)
        return ["O", *(f"{position}-{label}" for label in self.labels for position in "BI")]

    @property
    def layout(self) -> Layout:
        """What a row holds."""
        if self.task in OF_WORDS:
            return Layout.words
        return Layout.pairs if self.reader in OF_PAIRS else Layout.text

    def split_language(self, split: str) -> str | None:
        """The language of a split: where the training text is not native it is chosen on English, too."""
        if split == "test" or self.train_data is TrainData.native:
            return self.lang
        return "en" if split == "validation" or self.train_data is TrainData.english else self.lang

    def patterns(self) -> dict[str, list[str]]:
        """split -> globs of its original files."""
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
        problems = [*_plain_name(f"{where}.name", self.name)]
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
        if not 0 < self.validation_share < 1:
            problems.append(
                Problem(f"{where}.validation_share", f"must lie between 0 and 1, is {self.validation_share}")
            )
        if self.max_length < 3:
            problems.append(Problem(f"{where}.max_length", f"must be at least 3, is {self.max_length}"))
        return problems + self._check_languages(where) + self._check_parts(where)

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
        fewest, what = (1, "it needs a type") if self.task == "tagging" else (2, "a model needs two at least")
        if len(self.labels) < fewest:
            noun = "label" if len(self.labels) == 1 else "labels"
            problems.append(Problem(f"{where}.labels", f"has {len(self.labels)} {noun}", what))
        if len(set(self.labels)) != len(self.labels):
            problems.append(Problem(f"{where}.labels", "a label stands twice"))
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


@dataclass
class Tiny:
    """Shape of a small BERT with random weights and a tokenizer trained on the data."""

    layers: int = key("transformer layers")
    width: int = key("hidden size")
    heads: int = key("attention heads")
    vocabulary: int = key("pieces of the byte-level BPE tokenizer")
    positions: int = key("longest input in tokens")

    def check(self) -> list[Problem]:
        """Rules that a type cannot say."""
        low = {"layers": 1, "width": 1, "heads": 1, "vocabulary": 300, "positions": 8}  # bytes and special tokens: 261
        problems = [
            Problem(f"backbone.tiny.{name}", f"must be at least {least}, is {getattr(self, name)}")
            for name, least in low.items()
            if getattr(self, name) < least
        ]
        if not problems and self.width % self.heads:
            problems.append(Problem("backbone.tiny.width", f"{self.width} is not divisible by {self.heads} heads"))
        return problems


@dataclass
class Backbone:
    """Encoder and tokenizer: from the hub, a local folder, an installed package, or built small."""

    name: str = key("name of the backbone")
    hub: Hub | None = key("hub repository; null: not on the hub")
    package: str | None = machinery("folder inside an installed package, as `module/folder`; null: none")
    install: str | None = machinery("command that installs that package; null: none")
    sha256: str | None = key("expected hash of the package's model.safetensors; null: not checked")
    path: str | None = machinery("local folder with config, tokenizer and model.safetensors; null: none")
    tokenizer: str = key("how its files are read: auto, kobert, or plain: KoBERT's as if they were a BERT's")
    tiny: Tiny | None = key("shape of a model built here; null: pre-trained")
    dropout: float | None = key("dropout everywhere; null: as in the checkpoint")
    languages: list[str] = machinery("ISO 639-1 codes the pre-training covered; [any]: learns from the data alone")
    licence: str = machinery("terms of use")

    def check(self) -> list[Problem]:
        """Rules that a type cannot say."""
        problems = [*_plain_name("backbone.name", self.name)]
        if self.dropout is not None and not 0 <= self.dropout < 1:
            problems.append(Problem("backbone.dropout", f"must lie in [0, 1), is {self.dropout}"))
        if self.tokenizer not in TOKENIZERS:
            hint = f"there are: {', '.join(TOKENIZERS)}"
            problems.append(Problem("backbone.tokenizer", f"no such tokenizer: {self.tokenizer}", hint))
        if self.tiny is not None:
            problems += self.tiny.check()
        return problems


@dataclass
class Hardware:
    """Where a run is computed. Never part of its identity; recorded in its result."""

    device: str = machinery("cpu or cuda")
    processes: int = machinery("processes, one a GPU")
    micro_batch_size: int = machinery("rows one process handles at once; accumulation follows from it")
    eval_batch_size: int = machinery("rows at once where nothing is trained")
    threads: int | None = machinery("CPU threads a process; null: all cores over the processes")
    checkpoint_minutes: float = machinery("minutes between checkpoints")

    def check(self) -> list[Problem]:
        """Rules that a type cannot say."""
        problems = []
        if self.device not in ("cpu", "cuda"):
            problems.append(Problem("hardware.device", f"must be cpu or cuda, is {self.device}"))
        for name in ("processes", "micro_batch_size", "eval_batch_size"):
            if getattr(self, name) < 1:
                problems.append(Problem(f"hardware.{name}", f"must be at least 1, is {getattr(self, name)}"))
        if self.threads is not None and self.threads < 1:
            problems.append(Problem("hardware.threads", f"must be null or at least 1, is {self.threads}"))
        if self.checkpoint_minutes < 0:
            problems.append(Problem("hardware.checkpoint_minutes", "must not be negative"))
        return problems


@dataclass
class Tracker:
    """Where metrics are mirrored; the console and metrics.jsonl always have them."""

    names: list[str] = machinery("trackers beside console and metrics.jsonl: wandb, tensorboard")
    project: str = machinery("wandb project")
    entity: str | None = machinery("wandb team or user; null: the default one")
    mode: str = machinery("wandb mode: offline (no account needed, sync later), online or disabled")
    tags: list[str] = machinery("wandb tags")

    def check(self) -> list[Problem]:
        """Rules that a type cannot say."""
        known = ("wandb", "tensorboard")
        problems = [
            Problem("tracker.names", f"no such tracker: {name}", f"there are: {', '.join(known)}")
            for name in self.names
            if name not in known
        ]
        if self.mode not in ("offline", "online", "disabled"):
            problems.append(Problem("tracker.mode", f"must be offline, online or disabled, is {self.mode}"))
        return problems


@dataclass
class Config:
    """One run."""

    method: Any = key("what is compared; each method has a schema of its own")
    data: Data = key("the data set")
    backbone: Backbone = key("the pre-trained encoder")
    train: Recipe = key("training of the model that is evaluated")
    teacher: Recipe = key("training of a teacher; read by methods that have teachers")
    hardware: Hardware = machinery("where it is computed")
    tracker: Tracker = machinery("where metrics are mirrored")
    seed: int = key("seed of a run: initial head, order, dropout, validation split")
    outputs: str = machinery("folder of all results")
    force: bool = machinery("make the run again although its result is there")
    keep_model: bool = machinery("keep the trained model in the run's folder, as transformers loads it")
    keep_scores: list[str] = machinery("splits whose scores are kept, as scores/<split>.npy [units, outputs]")
    log_every: int = machinery("optimiser steps between logged points")
