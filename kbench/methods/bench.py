"""What a method works with: data, backbone, recipes, processes and the store of one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kbench import registry
from kbench.backbones.locate import Located
from kbench.backbones.tiny import Texts, tiny_stage, train_texts
from kbench.config import schema
from kbench.data.encode import Encoded, encode_stage
from kbench.data.records import Records
from kbench.engine.recipe import Recipe
from kbench.engine.sampler import hold_out
from kbench.engine.seeding import derive
from kbench.errors import DataError, Problem
from kbench.stages.stage import Stage

if TYPE_CHECKING:
    from torch import nn

    from kbench.config.knowledge import Knowledge
    from kbench.engine.feed import Beside, Feed
    from kbench.engine.loop import Report
    from kbench.engine.runtime import Runtime
    from kbench.stages.store import Store

_MANY_UNKNOWN = 0.2  # share of unknown tokens that is worth a warning


@dataclass
class Bench:
    """One run's surroundings. Without `runtime`, `store` and `report` it can name stages but build none.

    Attributes:
        places: backbones beside the run's own, by the name its method gave them (`Method.places`).
        knowledge: the knowledge graph, and `pretrain` the recipe by which it is learned.
        start: folder of the weights that the student starts from; None: the backbone's own.
    """

    data: schema.Data
    backbone: schema.Backbone
    located: Located
    records: Records
    train: Recipe
    teacher: Recipe
    knowledge: Knowledge
    pretrain: Recipe
    seed: int
    log_every: int = 10
    places: Mapping[str, tuple[schema.Backbone, Located]] = field(default_factory=dict)
    runtime: Runtime | None = None
    store: Store | None = None
    report: Report | None = None
    start: Path | None = None

    @cached_property
    def task(self) -> Any:
        """The task of the data set."""
        return registry.load("task", self.data.task)(self.data.outputs(), self.data.metrics, self.data.options())

    def at(self, place: str) -> Bench:
        """The same surroundings with the backbone of a place; this bench where the place is the run's own."""
        if place not in self.places:
            return self
        backbone, located = self.places[place]
        return replace(self, backbone=backbone, located=located)

    @cached_property
    def backbone_stage(self) -> Stage | str:
        """The stage that builds the backbone, or the identity of one that stands ready."""
        if self.located.folder is None:
            assert self.backbone.tiny is not None
            return tiny_stage(self.backbone.tiny, self._tokenizer_texts(self.backbone.tiny.texts))
        return self.located.identity

    def _tokenizer_texts(self, kind: str) -> Texts:
        """What the tokenizer of a tiny backbone is trained on."""
        from kbench.knowledge.texts import corpus_texts, name_texts

        if kind == "knowledge":
            return name_texts(self.graph_stage, self.knowledge.languages)
        return corpus_texts(self.corpus_stage) if kind == "corpus" else train_texts(self.records)

    @cached_property
    def corpus_stage(self) -> Stage:
        """The text with linked mentions of the knowledge node.

        Raises:
            DataError: it has none.
        """
        from kbench.knowledge.corpora import locate_corpus
        from kbench.knowledge.corpus import corpus_stage

        if self.knowledge.corpus is None:
            hint = "take a knowledge node that has one: kbench ls knowledge"
            what = "has no text with linked mentions (knowledge.corpus is null)"
            raise DataError(Problem(f"knowledge={self.knowledge.name}", what, hint))
        return corpus_stage(self.knowledge, locate_corpus(self.knowledge.corpus), self.graph_stage)

    @cached_property
    def graph_stage(self) -> Stage:
        """The knowledge graph."""
        from kbench.knowledge.graph import graph_stage
        from kbench.knowledge.readers import locate as locate_graph

        return graph_stage(self.knowledge, locate_graph(self.knowledge))

    @cached_property
    def encoded_stage(self) -> Stage:
        """The data set as token ids of the backbone's tokenizer."""

        return encode_stage(
            self.records,
            lambda folder: self.tokenizer_of(folder, words=self.records.tagged),
            self.backbone_stage,
            self.data.max_length,
            self.backbone.tokenizer,
            self.data.options(),
        )

    def tokenizer_of(self, folder: Path | None, words: bool = False) -> Any:
        """The backbone's tokenizer from its stage's folder, or from where it stands ready."""
        from kbench.backbones.load import load_tokenizer

        return load_tokenizer(folder or Path(self.located.folder or ""), words=words, kind=self.backbone.tokenizer)

    @cached_property
    def backbone_folder(self) -> Path:
        """The folder of the backbone, built where it has to be."""
        if isinstance(self.backbone_stage, Stage):
            assert self.store is not None
            return self.store.get(self.backbone_stage)
        assert self.located.folder is not None
        return Path(self.located.folder)

    @cached_property
    def tokenizer(self) -> Any:
        """The backbone's tokenizer."""
        return self.tokenizer_of(self.backbone_folder)

    def encoded(self, split: str) -> Encoded:
        """The token ids of a split."""
        assert self.store is not None
        return Encoded(self.store.get(self.encoded_stage), split)

    def check_vocabulary(self) -> None:
        """Tell the user where the backbone's vocabulary does not fit the texts."""
        unknown = {split: self.encoded(split).unknown for split in self.records.splits}
        worst = max(unknown, key=unknown.__getitem__)
        if unknown[worst] > _MANY_UNKNOWN:
            assert self.report is not None
            what = f"{unknown[worst]:.0%} of the tokens of {worst} are unknown to {self.backbone.name}"
            self.report.note(f"{what}: does it know the language?")

    def feed(
        self,
        split: str,
        rows: np.ndarray | None = None,
        columns: Mapping[str, np.ndarray] | None = None,
        beside: Beside | None = None,
    ) -> Feed:
        """Rows of a split as batches; all of them unless `rows` names some. Questions come as their windows."""
        from kbench.engine.feed import Feed

        encoded = self.encoded(split)
        chosen = np.arange(len(encoded)) if rows is None else encoded.lines(rows)
        return Feed(encoded, chosen, self.tokenizer.pad_token_id, columns, beside=beside)

    def lessons(
        self,
        rows: np.ndarray,
        columns: Mapping[str, np.ndarray],
        width: int | None = None,
        unread: np.ndarray | None = None,
        beside: Beside | None = None,
    ) -> Feed:
        """Training rows to learn from, without sentences of which no word is read; arguments as Feed's."""
        from kbench.engine.feed import Feed

        encoded, pad = self.encoded("train"), self.tokenizer.pad_token_id
        rows = encoded.lines(rows)
        some = Feed(encoded, rows, pad, unread=unread).weights > 0
        return Feed(encoded, rows[some], pad, columns, width, unread, beside)

    def gold(self, split: str, rows: np.ndarray | None = None) -> tuple[Any, ...]:
        """What the task compares its scores of a split, or of some rows, with: of most, labels and ends of rows."""
        found: tuple[Any, ...] = self.task.gold(self.records, split, rows)
        return found

    def model(self, classes: int, seed: int) -> nn.Module:
        """The backbone, or what the student starts from, with a fresh head."""
        from kbench.backbones.load import load_model

        folder = self.start or self.backbone_folder
        outputs = classes * self.task.reads
        model = load_model(folder, self.task.auto(), classes=outputs, seed=seed, dropout=self.backbone.dropout)
        self.task.adapt(model, self.tokenizer)
        return model

    def probe(self, split: str) -> np.ndarray:
        """What the backbone, or what the student would start from, says itself of each row of a split."""
        from kbench.backbones.load import load_masked_lm

        assert self.runtime is not None
        folder = self.start or self.backbone_folder
        model = load_masked_lm(folder, seed=derive(self.seed, "head")).to(self.runtime.device).eval()
        found: np.ndarray = self.task.probe(
            model, self.tokenizer, self.records, split, self.runtime, self.train.precision,
            max_length=self.data.max_length,
        )  # fmt: skip
        return found

    def leak(self) -> dict[str, float]:
        """Of a probe, the share of its facts that the knowledge graph holds: what was learned may have been told."""
        if self.task.trained:
            return {}
        from kbench.knowledge.leak import leak

        assert self.store is not None
        return leak(self.store.get(self.graph_stage), self.records)

    def save(self, model: Any, folder: Path, outputs: Sequence[int] | None = None) -> None:
        """Write a trained model and its tokenizer as a folder that transformers loads.

        Args:
            model: with a head over `outputs`.
            folder: made where it is absent.
            outputs: index in `data.outputs()` of each output; all in order unless given.
        """
        names = self.task.outputs
        names = [names[index] for index in (range(len(names)) if outputs is None else outputs)]
        if self.task.reads > 1:
            names = [f"{name} ({read})" for read in range(1, self.task.reads + 1) for name in names]
        model.config.id2label = dict(enumerate(names))
        model.config.label2id = {name: position for position, name in enumerate(names)}
        model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    @cached_property
    def split(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows of train to learn from, and rows held out: none where the data set has a validation split."""
        rows = self.records.rows("train")
        if "validation" in self.records.splits or not self.data.validation_share:
            return np.arange(rows), np.arange(0)
        return hold_out(rows, self.data.validation_share, self.seed)
