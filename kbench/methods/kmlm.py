"""KMLM: a knowledge-based multilingual language model (Liu et al., arXiv 2111.10962, early version).

A multilingual model is pre-trained further on three streams at once: plain text; sentences made of a knowledge graph's
triples whose parts change languages; and cycles of the graph, of which whole relations and entities are masked so that
they follow from the rest (section 3). The checkpoint is one stage, which every evaluation shares; it is then fine-tuned
like any other, in English, and tested in every language. Released code: github.com/ntunlp/kmlm at afafed6.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbench.backbones.locate import positions_of
from kbench.config.identity import science
from kbench.config.keys import key
from kbench.engine.recipe import Recipe
from kbench.engine.seeding import derive
from kbench.errors import DataError, Problem
from kbench.methods.base import TASKS, Needs
from kbench.methods.finetune import Finetune
from kbench.stages.stage import Stage

if TYPE_CHECKING:
    from kbench.backbones.locate import Located
    from kbench.config.schema import Backbone, Data
    from kbench.methods.pretraining import Stream

# nobody evaluates while pre-training
_UNREAD = ("eval_every", "selection", "patience")


class Reasoning(Enum):
    """How reasoning samples are masked."""

    rules = "rules"
    ordinary = "ordinary"


class Linkers(Enum):
    """What may become of the tokens between the parts of a sentence."""

    strict = "strict"
    compat = "compat"


class Length(Enum):
    """What tells a cycle of length 3 from one of length 4."""

    own = "own"
    linkers = "linkers"


class Chord(Enum):
    """Where a length-4 sample has the sentence of its chord."""

    last = "last"
    second = "second"


@dataclass
class PretrainingOptions:
    """Options of every method that pre-trains on text."""

    name: str = key("name of the method")
    mlm_probability: float = key("share of tokens that are selected, where masking is ordinary")
    sample_length: int = key("longest sample of pre-training in tokens; the rest is cut")
    mean_rows: int | None = key(
        "samples over whose labelled tokens the loss is a mean, before the mean over such means is taken; null: over "
        "all labelled tokens of a stream's global batch"
    )
    long_steps: int = key("optimiser steps of a second phase on long plain text alone; 0: there is none")
    long_length: int = key("longest sample of the second phase in tokens")
    long_batch_size: int = key("samples in an optimiser step of the second phase")
    pretrain_seed: int = key("seed of the pre-training: it is done once, only fine-tuning is repeated")


@dataclass
class Config(PretrainingOptions):
    """Options of KMLM."""

    reasoning: Reasoning = key("rules: reasoning samples have masks of their own (KMLM_R); ordinary: they have not")
    alpha: float = key("weight of the losses of code-switched and of reasoning samples")
    sentence_probability: float = key("how often a length-4 sample loses both entities of a sentence")
    period_loss: bool = key("periods are drawn and have loss, too (released code)")
    linkers: Linkers = key("strict: links stay masks; compat: one that is drawn may become a random word")
    told_by: Length = key("a sample is masked by its own length, or by the linkers left of it (released code)")
    chord: Chord = key("place of the chord's sentence in a length-4 sample: last (released code), second (figure)")


class Kmlm(Finetune):
    """Fine-tuning of a checkpoint that was pre-trained further."""

    Config = Config
    needs = Needs(tasks=frozenset(TASKS), pretraining=True, knowledge=True)
    config: Any

    @classmethod
    def check(cls, config: Any, data: Data) -> list[Problem]:
        problems = []
        for name in ("mlm_probability", "sentence_probability"):
            share = getattr(config, name, 0.0)
            if not 0 <= share <= 1:
                problems.append(Problem(f"method.{name}", f"is a share, 0 to 1, is {share}"))
        for name, least in (("sample_length", 8), ("long_length", 8), ("long_batch_size", 1), ("long_steps", 0)):
            if getattr(config, name) < least:
                problems.append(Problem(f"method.{name}", f"must be at least {least}, is {getattr(config, name)}"))
        if config.mean_rows is not None and config.mean_rows < 1:
            problems.append(Problem("method.mean_rows", f"must be null or at least 1, is {config.mean_rows}"))
        if getattr(config, "alpha", 0.0) < 0:
            problems.append(Problem("method.alpha", f"must not be negative, is {config.alpha}"))
        return problems

    @classmethod
    def check_places(cls, config: Any, data: Data, places: Mapping[str, tuple[Backbone, Located]]) -> list[Problem]:
        room = positions_of(*places["student"])
        lengths = ["sample_length"] + ["long_length"] * bool(config.long_steps)
        return [
            Problem(f"method.{name}", f"is {getattr(config, name)}; {places['student'][0].name} has {room} positions")
            for name in lengths
            if room is not None and getattr(config, name) > room
        ]

    def stages(self) -> dict[str, Stage]:
        found = {"pretrained": self.first_phase}
        if self.config.long_steps and self._text_files:
            found["pretrained_long"] = self.second_phase
        return found

    def prepare(self, stages: Mapping[str, Any]) -> None:
        self.bench.start = stages.get("pretrained_long", stages["pretrained"])

    def diagnostics(self) -> dict[str, float]:
        return self.bench.leak()

    @cached_property
    def first_phase(self) -> Stage:
        """Pre-training on all streams: a folder that transformers loads."""
        return self._of_streams()

    def _of_streams(self) -> Stage:
        parents = self._stream_stages()

        def build(work: Path, folders: Mapping[str, Path]) -> None:
            streams = self._streams(folders)
            self._train(self.bench.backbone_folder, streams, self.bench.pretrain, "pretrain", work)

        chosen = {"options": self._options(), "streams": sorted(parents)}
        return Stage("pretrained", 1, {**self._made_of(), **chosen}, build, parents)

    @cached_property
    def second_phase(self) -> Stage:
        """Pre-training on long plain text alone."""
        config = self.config
        recipe = replace(
            self.bench.pretrain,
            max_steps=config.long_steps,
            # as many passes as its steps need
            epochs=config.long_steps * config.long_batch_size,
            global_batch_size=config.long_batch_size,
        )
        parents = {"first": self.first_phase, "plain": self._plain_stage(config.long_length)}

        def build(work: Path, folders: Mapping[str, Path]) -> None:
            from kbench.knowledge.streams import PlainStream

            stream = PlainStream(folders["plain"], self._vocabulary, config.long_length, self._rules())
            self._train(folders["first"], {"plain": stream}, recipe, "pretrain_long", work)

        chosen = {"steps": config.long_steps, "batch": config.long_batch_size, "length": config.long_length}
        return Stage("pretrained_long", 1, chosen, build, parents)

    def _stream_stages(self) -> dict[str, Stage]:
        """The stages that the streams read, by name."""
        bench, knowledge = self.bench, self.bench.knowledge
        from kbench.knowledge.cycles import cycles_stage
        from kbench.knowledge.samples import samples_stage
        from kbench.knowledge.tokens import names_stage
        from kbench.knowledge.xlr import xlr_stage

        graph = bench.graph_stage
        cycles = cycles_stage(graph, knowledge)
        names = names_stage(
            graph, bench.tokenizer_of, bench.backbone_stage, bench.backbone.tokenizer, knowledge.languages
        )
        questions = None if knowledge.xlr is None else xlr_stage(graph, cycles, knowledge)
        found = {"graph": graph, "samples": samples_stage(graph, cycles, questions, knowledge), "names": names}
        if self._text_files:
            found["plain"] = self._plain_stage(self.config.sample_length)
        return found

    def _streams(self, folders: Mapping[str, Path]) -> dict[str, Stream]:
        """The streams, the one that counts epochs first: plain text where there is some."""
        from kbench.knowledge.streams import PlainStream, ReasoningStream, SwitchedStream

        config, languages = self.config, self.bench.knowledge.languages
        common = folders["graph"], folders["samples"], folders["names"], languages, self._vocabulary
        rules, length = self._rules(), config.sample_length
        by_rules = config.reasoning is Reasoning.rules
        found: dict[str, Stream] = {}
        if "plain" in folders:
            found["plain"] = PlainStream(folders["plain"], self._vocabulary, length, rules)
        found["code_switched"] = SwitchedStream(*common, length, rules)
        reasoning = ReasoningStream(*common, length, rules, by_rules, config.chord.value)
        if len(reasoning):
            found["reasoning"] = reasoning
        return found

    def _weights(self, streams: Mapping[str, Stream]) -> dict[str, float]:
        return {name: 1.0 if name == "plain" else self.config.alpha for name in streams}

    def _rules(self) -> Any:
        from kbench.knowledge.masking import Masking

        config = self.config
        return Masking(
            probability=config.mlm_probability,
            linkers=config.linkers.value,
            period_loss=config.period_loss,
            sentence_probability=config.sentence_probability,
            length=config.told_by.value,
        )

    def _train(self, start: Path, streams: Mapping[str, Stream], recipe: Recipe, scope: str, work: Path) -> None:
        from kbench.backbones.load import load_masked_lm, set_dropout
        from kbench.methods.pretraining import pretrain

        seed = derive(self.config.pretrain_seed, scope)
        model = load_masked_lm(start, seed=seed)
        if self.bench.backbone.dropout is not None:
            set_dropout(model, self.bench.backbone.dropout)
        pretrain(
            self.bench, model, streams, self._weights(streams), recipe,
            mean_rows=self.config.mean_rows, seed=seed, scope=scope, work=work,
        )  # fmt: skip

    def _made_of(self) -> dict[str, Any]:
        """What names a checkpoint, beside its streams."""
        bench = self.bench
        return {
            "backbone": bench.located.identity,
            "dropout": bench.backbone.dropout,
            "recipe": {name: value for name, value in science(bench.pretrain).items() if name not in _UNREAD},
        }

    def _options(self) -> dict[str, Any]:
        """The options that change the first phase."""
        long = ("name", "long_steps", "long_length", "long_batch_size")
        return {name: value for name, value in science(self.config).items() if name not in long}

    def _plain_stage(self, length: int) -> Stage:
        from kbench.knowledge.plain import plain_stage

        bench = self.bench
        return plain_stage(
            bench.knowledge,
            self._text_files,
            bench.tokenizer_of,
            bench.backbone_stage,
            bench.backbone.tokenizer,
            length,
        )

    @cached_property
    def _text_files(self) -> Any:
        """The files of plain text by language; empty where the knowledge has none."""
        from kbench.knowledge.plain import locate

        return locate(self.bench.knowledge)

    @cached_property
    def _vocabulary(self) -> Any:
        from kbench.knowledge.tokens import Vocabulary

        return Vocabulary.of(self.bench.tokenizer)

    def _need_text(self) -> None:
        """Raise where there is no plain text."""
        if not self._text_files:
            knowledge = self.bench.knowledge
            hint = "give knowledge.text.path=FOLDER with a file LANGUAGE.txt for each language"
            what = f"has no plain text, which {self.config.name} is trained on"
            raise DataError(Problem(f"knowledge={knowledge.name}", what, hint))
