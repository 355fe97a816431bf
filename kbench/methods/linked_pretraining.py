"""Continued pre-training on text with linked mentions: the stages it stands on, and the training itself.

    graph, corpus -> linked tokens -> importance of mentions
    graph -> vectors, names as tokens                           -> pretrained

Without options of knowledge the text alone is learned: that is the baseline of plain masked-LM pre-training.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kbench.config import trelm as options
from kbench.config.identity import science
from kbench.engine.sampler import steps_per_epoch
from kbench.engine.seeding import derive
from kbench.errors import DataError, Problem
from kbench.stages.stage import Stage

if TYPE_CHECKING:
    from kbench.methods.bench import Bench
    from kbench.methods.linked_feed import Knowledge, Names

# rules of selection that are judged by the importance of mentions
_JUDGED = (options.Rule.si_above_mean, options.Rule.si_top_k, options.Rule.klt)
_UNREAD = ("eval_every", "selection", "patience")
SNAPSHOTS = "snapshots"
_BATCH = 1 << 20  # names that are looked through at once


class LinkedPretraining:
    """One pre-training on the corpus of a knowledge node.

    Args:
        bench: the run's surroundings.
        length: tokens of a sample at most.
        words: how words are masked.
        seed: of everything that is drawn.
        knowing: options of knowledge, TRELM's; None: text alone.
        snapshots: shares of the training after which the model is kept, too.
    """

    def __init__(
        self,
        bench: Bench,
        length: int,
        words: options.Words,
        seed: int,
        knowing: Any = None,
        snapshots: tuple[float, ...] = (),
    ):
        self.bench, self.length, self.words, self.knowing = bench, length, words, knowing
        self.seed, self.snapshots = derive(seed, "pretrain"), snapshots

    @cached_property
    def stages(self) -> dict[str, Stage]:
        """The stages that the training reads."""
        from kbench.knowledge.linked import linked_stage

        bench, corpus = self.bench, self.bench.corpus_stage
        text = bench.knowledge.corpus
        assert text is not None
        linked = linked_stage(
            corpus, bench.tokenizer_of, bench.backbone_stage, bench.backbone.tokenizer, self.length,
            text.pack, text.min_mentions,
        )  # fmt: skip
        found = {"corpus": corpus, "linked": linked}
        if self.knowing is not None:
            found |= self._knowledge_stages(linked)
        return found

    def _knowledge_stages(self, linked: Stage) -> dict[str, Stage]:
        from kbench.knowledge.tokens import names_stage
        from kbench.knowledge.vectors import locate_vectors, vectors_stage

        bench, knowledge = self.bench, self.bench.knowledge
        graph = bench.graph_stage
        names = names_stage(
            graph, bench.tokenizer_of, bench.backbone_stage, bench.backbone.tokenizer, knowledge.languages[:1]
        )
        running: Any = {}
        if bench.runtime is not None and bench.report is not None:
            runtime = bench.runtime
            running = {"device": str(runtime.device), "check_stop": runtime.check_stop, "say": bench.report.note}
        vectors = vectors_stage(graph, knowledge.vectors, locate_vectors(knowledge.vectors), **running)
        found = {"graph": graph, "names": names, "vectors": vectors}
        if self.knowing.select.rule in _JUDGED:
            found["importance"] = self._importance_stage(linked)
        return found

    def _importance_stage(self, linked: Stage) -> Stage:
        from kbench.knowledge.importance import Replacing, importance_stage

        bench, si = self.bench, self.knowing.si
        drawn = derive(self.seed, "model") if bench.located.folder is None else None

        def tell(done: int, blocks: int) -> None:
            if bench.report is not None:
                bench.report.progress("importance", done, blocks, {})

        def encoder(folder: Path | None) -> Any:
            from kbench.backbones.load import load_masked_lm

            place = folder or bench.backbone_folder
            model: Any = load_masked_lm(place, seed=derive(self.seed, "model"))
            return model.base_model

        return importance_stage(
            linked, bench.backbone_stage, encoder, bench.tokenizer_of, Replacing(si.replacement, si.pooling),
            precision=bench.pretrain.precision, runtime=bench.runtime, drawn=drawn, tell=tell,
        )  # fmt: skip

    @cached_property
    def stage(self) -> Stage:
        """The checkpoint: a folder that transformers loads."""
        bench = self.bench
        made_of = {
            "backbone": bench.located.identity,
            "dropout": bench.backbone.dropout,
            "recipe": {name: value for name, value in science(bench.pretrain).items() if name not in _UNREAD},
            "words": science(self.words),
            "seed": self.seed,
            "knowing": None if self.knowing is None else self._science(),
            "snapshots": list(self.snapshots),
        }
        return Stage("pretrained", 2, made_of, self._build, self.stages)

    def _science(self) -> dict[str, Any]:
        """The options of knowledge that decide the checkpoint."""
        nodes = ("theta", "si", "select", "inject", "cka", "memory", "routing")
        found = {name: science(getattr(self.knowing, name)) for name in nodes}
        if self.knowing.inject.exclude is options.Exclude.probe:
            found["excluded"] = self.bench.records.content
        return found

    def _build(self, work: Path, folders: Mapping[str, Path]) -> None:
        from kbench.backbones.load import load_masked_lm, set_dropout
        from kbench.engine.loop import fit
        from kbench.methods.curve import Recorded

        bench = self.bench
        assert bench.runtime is not None and bench.report is not None
        runtime, recipe = bench.runtime, bench.pretrain
        model = load_masked_lm(bench.backbone_folder, seed=derive(self.seed, "model"))
        if bench.backbone.dropout is not None:
            set_dropout(model, bench.backbone.dropout)
        feed, knowledge = self._feed(folders)
        hooks = self._hooks(model, feed, knowledge, folders, work)
        fit(
            hooks.student,
            feed,
            hooks.loss,
            recipe,
            runtime,
            seed=self.seed,
            folder=work / "checkpoints",
            report=Recorded(bench.report, work, runtime.is_main),
            scope="pretrain",
            log_every=bench.log_every,
            hooks=hooks,
        )
        if hooks.bank is not None:
            hooks.bank.close()
        runtime.barrier()
        if runtime.is_main:
            self._save(model, work)
            for name in ("checkpoints", "bank"):
                shutil.rmtree(work / name, ignore_errors=True)

    def _save(self, model: Any, folder: Path) -> None:
        model.save_pretrained(folder)
        self.bench.tokenizer.save_pretrained(folder)

    def _feed(self, folders: Mapping[str, Path]) -> tuple[Any, Knowledge | None]:
        """The training rows, and what their mentions are told of."""
        from kbench.knowledge.linked import Linked
        from kbench.knowledge.tokens import Vocabulary
        from kbench.methods.linked_feed import LinkedFeed

        linked, vocabulary = Linked(folders["linked"]), Vocabulary.of(self.bench.tokenizer)
        if self.knowing is None:
            nobody = np.zeros(len(linked.mentions), dtype=bool)
            return LinkedFeed(linked, nobody, nobody, None, vocabulary, self.words, seed=self.seed), None
        knowing = self.knowing
        knowledge = self._knowledge(linked, vocabulary, folders)
        important, members = self._selected(linked, knowledge, folders)
        if self.bench.report is not None:
            counts = f"{np.count_nonzero(important):,} of {len(important):,} mentions are important"
            self.bench.report.note(f"{counts}, {np.count_nonzero(members):,} are remembered")
        feed = LinkedFeed(
            linked, important, members, knowledge, vocabulary, self.words, knowing.inject, knowing.cka, seed=self.seed
        )
        return feed, knowledge

    def _knowledge(self, linked: Any, vocabulary: Any, folders: Mapping[str, Path]) -> Knowledge:
        from kbench.knowledge.graph import Graph
        from kbench.knowledge.neighbours import Neighbours
        from kbench.knowledge.noise import Noise
        from kbench.knowledge.vectors import GraphVectors
        from kbench.methods.linked_feed import Knowledge

        cka = self.knowing.cka
        graph, vectors = Graph(folders["graph"]), GraphVectors(folders["vectors"])
        triples = np.asarray(graph.triples)
        allowed = vectors.usable(triples)
        if not allowed.any():
            where, what = f"knowledge.vectors.path={self.bench.knowledge.vectors.path}", "has vectors for the graph"
            hint = "are they of another version of the graph? null: vectors are trained here"
            raise DataError(Problem(where, f"{what}, but for no triple's three parts", hint))
        if not allowed.all() and self.bench.report is not None:
            have = f"{np.count_nonzero(vectors.has):,} of {len(vectors.has):,} entities of the graph have a vector"
            self.bench.report.note(f"{have}; {np.count_nonzero(allowed):,} of {len(allowed):,} triples can be told")
        if self.knowing.inject.exclude is options.Exclude.probe:
            from kbench.knowledge.leak import leaked_triples

            allowed &= ~leaked_triples(graph, self.bench.records, "test")
        if not allowed.any():
            what, hint = "leaves no triple that may be injected", "the probe asks for every triple of the graph"
            raise DataError(Problem("method.inject.exclude", what, hint))
        return Knowledge(
            triples=triples,
            neighbours=Neighbours(triples, len(graph.entities), allowed),
            vectors=vectors,
            names=_names(graph, folders["names"], self.bench.knowledge.languages[0], vocabulary.unknown),
            noise=Noise(linked.counts, cka.sampler, cka.power, vocabulary.special),
        )

    def _selected(
        self, linked: Any, knowledge: Knowledge, folders: Mapping[str, Path]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Which mentions are important, and which ones the memory keeps, bool [mentions] both."""
        from kbench.knowledge.corpus import CorpusText
        from kbench.knowledge.selection import members, select

        rules = self.knowing.select
        frequency = CorpusText(folders["corpus"]).frequency
        entity, sentence = (np.asarray(linked.mentions[name]) for name in ("entity", "sentence"))
        cosine = np.zeros(len(entity), dtype=np.float32)
        if "importance" in folders:
            cosine = np.load(folders["importance"] / "cosine.npy", allow_pickle=False)
        degree = knowledge.neighbours.reach(rules.hops) if rules.rule is options.Rule.klt else np.zeros(0)
        important = select(
            rules.rule.value, cosine, sentence, entity, frequency, degree, rules.k, score=self.knowing.si.score
        )
        if not self.knowing.memory.initial:
            return important, np.zeros_like(important)
        return important, members(self.knowing.memory.members, important, entity, frequency)

    def _hooks(
        self, model: Any, feed: Any, knowledge: Knowledge | None, folders: Mapping[str, Path], work: Path
    ) -> Any:
        from kbench.methods.injecting import Rules, Student
        from kbench.methods.knowing import bank_of, route, student_of
        from kbench.methods.steps import KnowledgeHooks, Plan

        bench, recipe = self.bench, self.bench.pretrain
        assert bench.runtime is not None
        runtime = bench.runtime
        per_epoch = steps_per_epoch(len(feed), recipe.global_batch_size)
        total = min(recipe.epochs * per_epoch, recipe.max_steps or recipe.epochs * per_epoch)

        def keep(share: float) -> None:
            if runtime.is_main:
                self._save(model, work / SNAPSHOTS / f"{share:g}")

        taken = {share: max(1, round(share * total)) for share in self.snapshots}
        plan = Plan(total, per_epoch, taken, keep, self.seed)
        if self.knowing is None or knowledge is None:
            student = Student(model.to(runtime.device), None, None, Rules())
            return KnowledgeHooks(student, feed, recipe, runtime, plan)
        knowing = self.knowing
        student = student_of(model, knowing, knowledge, derive(self.seed, "decoder")).to(runtime.device)
        routed = None if knowing.routing.mode is options.Mode.off else route(model, knowing)
        bank = None
        if knowing.memory.initial and knowing.inject.enabled:  # it is read by what is injected alone
            bank = bank_of(student, feed, knowledge.names, knowing.memory, runtime, work / "bank", folders["graph"])
        return KnowledgeHooks(student, feed, recipe, runtime, plan, bank, routed, knowing)


def _names(graph: Any, folder: Path, language: str, unknown: int) -> Names:
    """The label of each entity as token ids; one that is nothing but unknown tokens is none."""
    from kbench.knowledge.streams import ragged
    from kbench.knowledge.tokens import NameTokens
    from kbench.methods.linked_feed import Names

    tokens, names = NameTokens(folder, language), graph.names(language)
    count = len(graph.entities)
    if not len(tokens.ends):
        what = f"has no name in {language}, the language of its text"
        raise DataError(Problem("knowledge.languages", what, "name the text's language first"))
    rows = np.minimum(names.first[:count], len(tokens.ends) - 1)
    stops = np.asarray(tokens.ends)[rows]
    starts = np.where(rows > 0, np.asarray(tokens.ends)[np.maximum(rows, 1) - 1], 0)
    lengths = np.where(names.has[:count], stops - starts, 0)
    for first in range(0, count, _BATCH):
        some = slice(first, first + _BATCH)
        known = tokens.ids[ragged(starts[some], lengths[some])] != unknown
        line = np.repeat(np.arange(len(lengths[some])), lengths[some])
        lengths[some][np.bincount(line, known, minlength=len(lengths[some])) == 0] = 0
    return Names(tokens.ids, starts, lengths)
