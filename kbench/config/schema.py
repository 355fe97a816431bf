"""Types and help of the configuration. Values stand in `conf/`; each method brings its own `Config`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kbench.config.data import (
    Data,
    Hub,
    LabelPiece,
    Layout,
    Rows,
    TrainData,
    Treebanks,
    ZeroShot,
    plain_name,
    sliced,
)
from kbench.config.keys import key, machinery
from kbench.config.knowledge import Knowledge
from kbench.config.readers import GENERATED, JOINED, METRICS, READERS
from kbench.engine.recipe import Recipe
from kbench.errors import Problem

__all__ = [
    "GENERATED", "JOINED", "METRICS", "READERS", "TOKENIZERS", "Backbone", "Config", "Data", "Hardware", "Hub",
    "Knowledge", "LabelPiece", "Layout", "Recipe", "Rows", "Tiny", "Tracker", "TrainData", "Treebanks", "ZeroShot",
    "sliced",
]  # fmt: skip

# kinds of tokenizers that a backbone may have
TOKENIZERS = ("auto", "kobert", "plain")
# what the tokenizer of a backbone that is built here is trained on
TEXTS = ("data", "knowledge", "corpus")


@dataclass
class Tiny:
    """Shape of a small BERT with random weights and a tokenizer trained on the data."""

    layers: int = key("transformer layers")
    width: int = key("hidden size")
    heads: int = key("attention heads")
    vocabulary: int = key("pieces of the byte-level BPE tokenizer")
    positions: int = key("longest input in tokens")
    texts: str = key("what the tokenizer is trained on: training texts of data, names of knowledge, or its corpus")

    def check(self) -> list[Problem]:
        """Rules that a type cannot say."""
        low = {"layers": 1, "width": 1, "heads": 1, "vocabulary": 300, "positions": 8}  # bytes and special tokens: 261
        problems = [
            Problem(f"backbone.tiny.{name}", f"must be at least {least}, is {getattr(self, name)}")
            for name, least in low.items()
            if getattr(self, name) < least
        ]
        if self.texts not in TEXTS:
            hint = f"there are: {', '.join(TEXTS)}"
            problems.append(Problem("backbone.tiny.texts", f"no such texts: {self.texts}", hint))
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
        problems = [*plain_name("backbone.name", self.name)]
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
    knowledge: Knowledge = key("the knowledge graph; read by methods that learn it, and by data made of it")
    pretrain: Recipe = key("continued pre-training; read by methods that pre-train")
    hardware: Hardware = machinery("where it is computed")
    tracker: Tracker = machinery("where metrics are mirrored")
    seed: int = key("seed of a run: initial head, order, dropout, validation split")
    outputs: str = machinery("folder of all results")
    force: bool = machinery("make the run again although its result is there")
    keep_model: bool = machinery("keep the trained model in the run's folder, as transformers loads it")
    keep_scores: list[str] = machinery("splits whose scores are kept, as scores/<split>.npy [units, outputs]")
    log_every: int = machinery("optimiser steps between logged points")
