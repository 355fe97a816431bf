"""Teachers of knowledge integration: who knows which classes, and the stages every method shares.

    teacher -> logits (dropout off, all splits)  -> students, ensemble, single teachers
            -> samples (dropout on, train)       -> uncertainty

Teacher i learns its own classes only, on all training rows that have them, and keeps its last weights (released code).
A teacher's outputs are constants: they are computed once and serve every method, seed and sweep.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kbench.config.identity import science
from kbench.config.keys import key
from kbench.engine.seeding import derive
from kbench.errors import Problem
from kbench.methods.base import Method, Needs
from kbench.registry import near
from kbench.stages.stage import Stage

if TYPE_CHECKING:
    from torch import Tensor

    from kbench.config.schema import Data
    from kbench.methods.bench import Bench


_UNREAD = ("eval_every", "selection", "patience")  # a teacher is not evaluated while it trains


@dataclass
class TeacherOptions:
    """Options of every method that has teachers."""

    name: str = key("name of the method")
    teachers: int = key("number of teachers; each knows classes of its own")
    split: list[list[str]] | None = key(
        "label names of each teacher; null: equal blocks in label order, the rest to the last"
    )
    teacher_seed: int = key("seed of the teachers: they are trained once, only students are repeated")


def blocks(labels: Sequence[str], teachers: int, split: Sequence[Sequence[str]] | None) -> list[list[int]]:
    """Label indices of each teacher.

    Without `split`, teacher i has the i-th block of C // N classes and the last teacher the rest (paper, appendix A).
    """
    if split is not None:
        return [[labels.index(name) for name in names] for names in split]
    size = len(labels) // teachers
    ends = [size * (i + 1) for i in range(teachers - 1)] + [len(labels)]
    return [list(range(start, end)) for start, end in zip([0, *ends], ends, strict=False)]


def check_teachers(config: TeacherOptions, data: Data) -> list[Problem]:
    """What is wrong with a teacher set: unknown, repeated or left-out labels, a teacher with a single class."""
    problems = []
    if config.teachers < 2:
        return [Problem("method.teachers", f"must be at least 2, is {config.teachers}")]
    if config.split is None:
        sizes = [len(block) for block in blocks(data.labels, config.teachers, None)]
        if min(sizes) < 2:
            problems.append(
                Problem(
                    "method.teachers",
                    f"{len(data.labels)} classes among {config.teachers} teachers leave one with {min(sizes)}",
                    "uncertainty needs two classes at least; "
                    + (f"take {len(data.labels) // 2} or fewer" if len(data.labels) > 3 else "take other data"),
                )
            )
        return problems
    if len(config.split) != config.teachers:
        problems.append(
            Problem("method.split", f"has {len(config.split)} teachers, method.teachers is {config.teachers}")
        )
    named = [name for names in config.split for name in names]
    for name in dict.fromkeys(named):
        if name not in data.labels:
            problems.append(
                Problem(
                    "method.split",
                    f"unknown label {name}{near(name, data.labels)}",
                    f"labels: {', '.join(data.labels)}",
                )
            )
        elif named.count(name) > 1:
            problems.append(Problem("method.split", f"{name} stands {named.count(name)} times"))
    absent = [name for name in data.labels if name not in named]
    if absent and not problems:
        problems.append(Problem("method.split", f"no teacher has {', '.join(absent)}"))
    for number, names in enumerate(config.split, start=1):
        if len(names) < 2:
            problems.append(Problem("method.split", f"teacher {number} has {len(names)} class; it needs two at least"))
    return problems


class TeacherSet:
    """The teachers of one run and their stages."""

    def __init__(self, bench: Bench, config: TeacherOptions):
        self.bench = bench
        self.seed = config.teacher_seed
        self.blocks = blocks(bench.data.labels, config.teachers, config.split)

    def __len__(self) -> int:
        return len(self.blocks)

    @property
    def order(self) -> np.ndarray:
        """Label index of each column of the teachers' concatenated logits [C]."""
        return np.concatenate(self.blocks)

    @cached_property
    def owner(self) -> np.ndarray:
        """Teacher of each label index [C]."""
        found = np.empty(len(self.bench.data.labels), dtype=np.int64)
        for teacher, block in enumerate(self.blocks):
            found[block] = teacher
        return found

    def teacher(self, i: int) -> Stage:
        """The trained teacher i: a transformers folder."""
        bench, block = self.bench, self.blocks[i]
        chosen = {
            "backbone": bench.located.identity,
            "dropout": bench.backbone.dropout,
            "classes": block,
            "recipe": {k: v for k, v in science(bench.teacher).items() if k not in _UNREAD},
            "seed": self.seed,
        }

        def build(work: Path, parents: Mapping[str, Path]) -> None:
            _train(bench, block, derive(self.seed, "teacher", *block), f"teacher_{i + 1}", work)

        return Stage("teacher", 1, chosen, build, {"encoded": bench.encoded_stage})

    def logits(self, i: int) -> Stage:
        """Teacher i's logits with dropout off, of all splits: `<split>.npy`, float32 [rows, C_i]."""
        bench = self.bench

        def build(work: Path, parents: Mapping[str, Path]) -> None:
            from kbench.backbones.load import load_trained
            from kbench.engine.predict import predict

            assert bench.runtime is not None
            model = load_trained(parents["teacher"], bench.task.auto()).to(bench.runtime.device)
            for split in bench.records.splits:
                scores = predict(model, bench.feed(split), bench.runtime, bench.teacher.precision)
                if bench.runtime.is_main:
                    np.save(work / f"{split}.npy", scores, allow_pickle=False)

        return Stage("teacher_logits", 1, {}, build, {"teacher": self.teacher(i), "encoded": bench.encoded_stage})

    def samples(self, i: int, pool: int, dropout: float | None, seed: int) -> Stage:
        """Teacher i's logits of every training row under dropout masks: `train.npy`, float32 [rows, pool, C_i]."""
        bench = self.bench
        chosen = {"pool": pool, "dropout": dropout, "seed": seed}

        def build(work: Path, parents: Mapping[str, Path]) -> None:
            from kbench.backbones.load import load_trained, set_dropout
            from kbench.engine.predict import sample

            assert bench.runtime is not None and bench.report is not None
            report = bench.report
            model = load_trained(parents["teacher"], bench.task.auto()).to(bench.runtime.device)
            if dropout is not None:
                set_dropout(model, dropout)
            sample(
                model,
                bench.feed("train"),
                bench.runtime,
                bench.teacher.precision,
                samples=pool,
                seed=derive(seed, "samples", *self.blocks[i]),
                path=work / "train.npy",
                tell=lambda done, total: report.progress(f"samples_{i + 1}", done, total, {}),
            )

        return Stage("teacher_samples", 1, chosen, build, {"teacher": self.teacher(i), "encoded": bench.encoded_stage})


class TeacherMethod(Method):
    """A method that reads its teachers' stored logits; subclasses say what they make of them."""

    needs = Needs(tasks=frozenset({"classification"}), teachers=True)
    config: Any

    def __init__(self, config: Any, bench: Bench):
        super().__init__(config, bench)
        self.teachers = TeacherSet(bench, config)
        self._folders: Mapping[str, Path] = {}

    @classmethod
    def check(cls, config: Any, data: Data) -> list[Problem]:
        return check_teachers(config, data)

    def stages(self) -> dict[str, Stage]:
        return {f"logits_{i}": self.teachers.logits(i) for i in range(len(self.teachers))}

    def prepare(self, stages: Mapping[str, Path]) -> None:
        self._folders = stages

    def stored(self, name: str, split: str) -> np.ndarray:
        """An array of a finished stage, memory-mapped."""
        return np.load(self._folders[name] / f"{split}.npy", mmap_mode="r", allow_pickle=False)

    def logits(self, split: str) -> list[np.ndarray]:
        """Each teacher's logits of a split, memory-mapped [rows, C_i]."""
        return [self.stored(f"logits_{i}", split) for i in range(len(self.teachers))]

    def columns(self) -> dict[str, np.ndarray]:
        return {f"teacher_{i}": logits for i, logits in enumerate(self.logits("train"))}

    def batch_logits(self, batch: Mapping[str, Tensor]) -> list[Tensor]:
        """The teachers' logits of a batch."""
        return [batch[f"teacher_{i}"] for i in range(len(self.teachers))]

    def in_label_order(self, scores: np.ndarray) -> np.ndarray:
        """Scores [rows, C] whose columns follow the teachers, with columns in the order of the labels."""
        found = np.empty_like(scores)
        found[:, self.teachers.order] = scores
        return found

    def student_logits(self, model: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """The student's logits [B, C], columns in the order of the teachers' classes."""
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.float()
        return logits[:, self.teachers.order]

    def diagnostics(self) -> dict[str, float]:
        """How good each teacher is on test rows of its own classes: the premise of everything built on them."""
        gold = self.bench.records.labels("test")
        found = {}
        for i, logits in enumerate(self.logits("test")):
            own = self.teachers.owner[gold] == i
            predicted = np.asarray(self.teachers.blocks[i])[logits[own].argmax(1)]
            found[f"teacher_{i + 1}_accuracy_on_own_classes"] = float(np.mean(predicted == gold[own]))
        return found


def _train(bench: Bench, block: Sequence[int], seed: int, scope: str, work: Path) -> None:
    """Train a teacher of some classes and save it as a transformers folder."""
    from torch.nn.functional import cross_entropy

    from kbench.engine.loop import fit

    assert bench.runtime is not None and bench.report is not None
    labels = bench.records.labels("train")
    local = np.full(len(bench.data.labels), -1, dtype=np.int64)
    local[list(block)] = np.arange(len(block))
    rows = np.flatnonzero(local[labels] >= 0)
    model = bench.model(len(block), derive(seed, "head"))

    def loss(model: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        return {"cross_entropy": cross_entropy(logits.float(), batch["label"])}

    fit(
        model,
        bench.feed("train", rows, {"label": local[labels]}),
        loss,
        bench.teacher,
        bench.runtime,
        seed=seed,
        folder=work / "checkpoints",
        report=bench.report,
        scope=scope,
        log_every=bench.log_every,
    )
    if bench.runtime.is_main:
        bench.save(model, work, block)
        shutil.rmtree(work / "checkpoints", ignore_errors=True)
