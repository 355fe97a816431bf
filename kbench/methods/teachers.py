"""Teachers of knowledge integration: who knows which labels, and what every method that has them shares.

The teachers are trained here, or finished models are given: any that transformers loads, with any tokenizer, since only
their outputs are used (DFA and CFL read their hidden states too, and ask for the student's tokenizer).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kbench.backbones.locate import named, outputs_of
from kbench.config.keys import key, machinery
from kbench.config.schema import Data
from kbench.errors import Problem
from kbench.methods.base import Method, Needs
from kbench.methods.teacher_set import TeacherSet
from kbench.registry import near
from kbench.stages.stage import Stage

if TYPE_CHECKING:
    from torch import Tensor

    from kbench.backbones.locate import Located
    from kbench.config.schema import Backbone
    from kbench.methods.bench import Bench
    from kbench.methods.integration import Union

# labels a teacher must know: its uncertainty needs two outputs, and an entity type has two tags
_FEWEST = {"classification": 2, "tagging": 1}
_PLACE = "teacher_{}"


@dataclass
class TeacherOptions:
    """Options of every method that has teachers."""

    name: str = key("name of the method")
    teachers: int = key("number of teachers; each knows labels of its own")
    split: list[list[str]] | None = key(
        "label names of each teacher; null: equal blocks in label order, the rest to the last; of joined data, the "
        "parts; of finished models, their own label names"
    )
    backbones: list[str] | None = key(
        "what each teacher is trained from: a name of conf/backbone or a folder; null: the run's backbone"
    )
    # their content is in the keys of the stages, wherever they stand
    models: list[str] | None = machinery(
        "finished teachers instead of trained ones: for each a folder, or a hub id, id@revision; null: train them"
    )
    teacher_seed: int = key("seed of the teachers: they are trained once, only students are repeated")


def blocks(data: Data, teachers: int, split: Sequence[Sequence[str]] | None) -> list[list[int]]:
    """Label indices of each teacher.

    Without `split`, teacher i has the i-th block of C // N labels and the last teacher the rest (paper, appendix A); of
    joined data, each the labels of one part (section 3.4).
    """
    if split is not None:
        return [[data.labels.index(name) for name in names] for names in split]
    if data.parts is not None:
        ends = np.cumsum([len(part.labels) for part in data.parts.values()]).tolist()
    else:
        size = len(data.labels) // teachers
        ends = [size * (i + 1) for i in range(teachers - 1)] + [len(data.labels)]
    return [list(range(start, end)) for start, end in zip([0, *ends], ends, strict=False)]


def check_teachers(config: TeacherOptions, data: Data) -> list[Problem]:
    """What is wrong with a teacher set: unknown, repeated or left-out labels, a teacher with too few."""
    if config.teachers < 2:
        return [Problem("method.teachers", f"must be at least 2, is {config.teachers}")]
    problems = [
        Problem(f"method.{name}", f"has {len(value)} teachers, method.teachers is {config.teachers}")
        for name, value in (("split", config.split), ("backbones", config.backbones), ("models", config.models))
        if value is not None and len(value) != config.teachers
    ]
    if config.models is not None and config.split is not None and data.task == "tagging":
        problems.append(Problem("method.split", "goes with teachers that are trained; tags of models have names"))
    if config.models is not None and config.backbones is not None:
        problems.append(Problem("method.backbones", "goes with teachers that are trained; method.models are finished"))
    if config.split is not None:
        return problems + _check_split(config.split, data)
    if config.models is not None:
        return problems  # their labels are read from their folders
    if data.parts is not None:
        if config.teachers != len(data.parts):
            hint = f"method.teachers={len(data.parts)}, or give method.split"
            problems.append(Problem("method.teachers", f"{data.name} is joined of {len(data.parts)} data sets", hint))
        return problems
    fewest = _FEWEST[data.task]
    least = min(len(block) for block in blocks(data, config.teachers, None))
    if least < fewest:
        way = f"take {len(data.labels) // fewest} or fewer" if len(data.labels) >= 2 * fewest else "take other data"
        needs = "uncertainty needs two classes at least; " if fewest == 2 else ""
        what = f"{len(data.labels)} classes among {config.teachers} teachers leave one with {least}"
        problems.append(Problem("method.teachers", what, needs + way))
    return problems


def _check_split(split: Sequence[Sequence[str]], data: Data) -> list[Problem]:
    problems = []
    names = [name for names in split for name in names]
    for name in dict.fromkeys(names):
        if name not in data.labels:
            what = f"unknown label {name}{near(name, data.labels)}"
            problems.append(Problem("method.split", what, f"labels: {', '.join(data.labels)}"))
        elif names.count(name) > 1:
            problems.append(Problem("method.split", f"{name} stands {names.count(name)} times"))
    absent = [name for name in data.labels if name not in names]
    if absent and not problems:
        problems.append(Problem("method.split", f"no teacher has {', '.join(absent)}"))
    fewest = _FEWEST[data.task]
    for number, own in enumerate(split, start=1):
        if len(own) < fewest:
            noun, least = ("class", "two") if len(own) == 1 else ("classes", "two" if fewest == 2 else "one")
            problems.append(
                Problem("method.split", f"teacher {number} has {len(own)} {noun}; it needs {least} at least")
            )
    return problems


def match_outputs(
    names: Sequence[str], data: Data, where: str, split: Sequence[str] | None
) -> tuple[list[int], list[Problem]]:
    """The output of the data set that each output of a finished model stands for.

    Names are equal, or equal but for case and punctuation, to the data's labels or to their spelling in its files.
    `split` names the outputs, in their order, of a model whose own names say nothing (LABEL_0, LABEL_1); where they do
    say something it must name the same labels.

    Args:
        names: the model's own names.
        data: the data set.
        where: the setting that gave the model, for messages.
        split: the labels of this teacher in `method.split`.
    """
    outputs = data.outputs()
    if split is not None and len(split) != len(names):
        return [], [Problem(where, f"has {len(names)} outputs; method.split names {len(split)}")]
    if split is not None and all(re.fullmatch(r"LABEL_\d+", name) for name in names):
        names = split
    known: dict[str, int] = {}
    for spelling in (data.labels, data.source_labels or data.labels):
        spelt = dict(zip(data.labels, spelling, strict=True))
        for index, output in enumerate(outputs):
            before, dash, label = output.partition("-") if data.task == "tagging" else ("", "", output)
            known.setdefault(_plain(before + dash + spelt.get(label, label)), index)
    columns, problems = [], []
    strange = [name for name in names if _plain(name) not in known]
    if strange:
        what = f"knows {', '.join(strange)}: no label of {data.name}{near(strange[0], outputs)}"
        hint = "method.split names a model's outputs in its order" if data.task == "classification" else ""
        problems.append(Problem(where, what, f"labels: {', '.join(data.labels)}\n{hint}".strip()))
    else:
        columns = [known[_plain(name)] for name in names]
        if split is not None and sorted(columns) != sorted(map(data.labels.index, split)):
            own = ", ".join(names)
            problems.append(Problem(where, f"knows {own}; method.split says {', '.join(split)}", "leave it out"))
    if not problems and data.task == "tagging" and 0 not in columns:
        problems.append(Problem(where, "has no output O", f"its outputs: {', '.join(names)}"))
    if len(set(columns)) < len(columns) and not problems:
        problems.append(Problem(where, "names a label twice", f"its outputs: {', '.join(names)}"))
    return columns, problems


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold() or name


class TeacherMethod(Method):
    """A method that reads its teachers' stored logits; subclasses say what they make of them."""

    needs = Needs(tasks=frozenset({"classification", "tagging"}), teachers=True)
    config: Any

    def __init__(self, config: Any, bench: Bench):
        super().__init__(config, bench)
        self.teachers = TeacherSet(bench, *_who(config, bench), seed=config.teacher_seed)
        self._folders: Mapping[str, Path] = {}

    @classmethod
    def check(cls, config: Any, data: Data) -> list[Problem]:
        return check_teachers(config, data)

    @classmethod
    def places(cls, config: Any) -> dict[str, Backbone]:
        given = config.models or config.backbones or []
        setting = "method.models" if config.models else "method.backbones"
        return {_PLACE.format(i): named(word, setting) for i, word in enumerate(given, start=1)}

    @classmethod
    def check_places(cls, config: Any, data: Data, places: Mapping[str, tuple[Backbone, Located]]) -> list[Problem]:
        if config.models is None:
            return []
        problems: list[Problem] = []
        owner: dict[int, int] = {}
        shared = (0,) if data.task == "tagging" else ()
        for i, model in enumerate(config.models):
            where = f"teacher {i + 1}, {model}"
            names = outputs_of(places[_PLACE.format(i + 1)][1], where)
            columns, wrong = match_outputs(names, data, where, config.split and config.split[i])
            problems += wrong
            if not wrong and len(columns) - len(shared) < 2:
                problems.append(Problem(where, "knows one label; its uncertainty needs two outputs at least"))
            for other in range(i):
                both = [name for c, name in enumerate(data.outputs()) if c in columns and owner.get(c) == other]
                if both:
                    what = f"knows {', '.join(both)}, as teacher {other + 1} does: labels must not overlap"
                    problems.append(Problem(where, what))
            owner |= {column: i for column in columns if column not in (*owner, *shared)}
        absent = [name for c, name in enumerate(data.outputs()) if c not in (*owner, *shared)]
        if absent and not problems:
            problems.append(Problem("method.models", f"no teacher knows {', '.join(absent)}"))
        return problems

    def stages(self) -> dict[str, Stage]:
        return {f"logits_{i}": self.teachers.logits(i) for i in range(len(self.teachers))}

    def prepare(self, stages: Mapping[str, Path]) -> None:
        self._folders = stages

    @cached_property
    def union(self) -> Union:
        """Where each teacher's outputs stand among all."""
        from kbench.methods.integration import Union

        return Union(self.teachers.columns, len(self.bench.task.outputs))

    def unread(self, split: str) -> np.ndarray | None:
        """Words that the student or a teacher does not read [units]; None of texts, which all are read."""
        if not self.bench.records.tagged:
            return None
        starts = [bench.encoded(split).starts for bench in (self.bench, *self.teachers.benches)]
        return np.any([one < 0 for one in starts if one is not None], axis=0)

    def stored(self, name: str, split: str) -> np.ndarray:
        """An array of a finished stage, memory-mapped."""
        return np.load(self._folders[name] / f"{split}.npy", mmap_mode="r", allow_pickle=False)

    def logits(self, split: str) -> list[np.ndarray]:
        """Each teacher's logits of a split, memory-mapped [units, C_i]."""
        return [self.stored(f"logits_{i}", split) for i in range(len(self.teachers))]

    def tensors(self, split: str) -> list[Tensor]:
        """The same in memory."""
        import torch

        return [torch.from_numpy(np.array(z)) for z in self.logits(split)]

    def columns(self) -> dict[str, np.ndarray]:
        return {f"teacher_{i}": logits for i, logits in enumerate(self.logits("train"))}

    def batch_logits(self, batch: Mapping[str, Tensor]) -> list[Tensor]:
        """The teachers' logits of a batch."""
        return [batch[f"teacher_{i}"] for i in range(len(self.teachers))]

    def student_logits(self, model: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """The student's logits of a batch's units [U, C]."""
        from kbench.engine.feed import inputs, unit_logits

        return unit_logits(model(**inputs(batch)).logits.float(), batch)

    def diagnostics(self) -> dict[str, float]:
        """How good each teacher is on test rows of its own labels: the premise of everything built on them."""
        from kbench.methods.integration import padded_scores

        task, union = self.bench.task, self.union
        gold, ends = self.bench.gold("test")
        found = {}
        for i, columns in enumerate(self.teachers.columns):
            local = task.local(columns)[gold]
            own = local >= 0
            scores = padded_scores(union, self.tensors("test"), i).numpy()
            score = task.main_score(scores[own], np.asarray(columns)[local[own]], ends)
            found[f"teacher_{i + 1}_{task.metrics[0]}_on_own_classes"] = score
        return found


def _who(config: Any, bench: Bench) -> tuple[list[list[int]], bool]:
    """The outputs each teacher knows, and whether the teachers are finished models."""
    if config.models is None:
        return [bench.task.known(block) for block in blocks(bench.data, config.teachers, config.split)], False
    found = []
    for i in range(config.teachers):
        names = outputs_of(bench.places[_PLACE.format(i + 1)][1], "")
        columns, problems = match_outputs(names, bench.data, "", config.split and config.split[i])
        assert not problems  # checked before the run started
        found.append(columns)
    return found, True
