"""KD: the student learns the gold labels and, word by word, what a teacher that was fine-tuned on them says.

The baseline of KR2's table 3 (paper, appendix B): L_hard + 0.5 L_soft. Where KR2 reads a raw model, this needs a
teacher trained on the task. The tokenizers may differ: both models are read at words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kbench.backbones.locate import named
from kbench.config.keys import key, machinery
from kbench.errors import Problem
from kbench.methods.base import Method, Needs
from kbench.methods.teacher_set import TeacherSet
from kbench.methods.vanilla_kd import check_temperature

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kbench.config.schema import Backbone, Data
    from kbench.stages.stage import Stage


class SoftLoss(Enum):
    """How the student is drawn to the teacher; the gradients are the same."""

    kl = "kl"
    ce = "ce"


class Pooling(Enum):
    """How a word's logits come from those of its tokens."""

    first = "first"
    mean = "mean"


@dataclass
class Config:
    """Options of distillation from one fine-tuned teacher."""

    name: str = key("name of the method")
    # its content is in the keys of the stages, wherever it stands
    teacher: str | None = machinery(
        "what the teacher is fine-tuned from: a name of conf/backbone, a folder, or a hub id; null: the run's backbone"
    )
    teacher_seed: int = key("seed of the teacher: it is trained once, only students are repeated")
    weight: float = key("of the soft loss")
    temperature: float = key("divides teacher's and student's logits; the soft loss is scaled by its square")
    soft_loss: SoftLoss = key("kl: KL(teacher || student); ce: cross entropy with the teacher")
    word_pooling: Pooling = key("words: first: logits of a word's first token; mean: of all its tokens")


class Kd(Method):
    """CE(gold, s) + weight T^2 KL(softmax(z / T) || softmax(s / T)), both means over the words."""

    Config = Config
    needs = Needs(tasks=frozenset({"classification", "tagging", "pos", "choice"}), teachers=True)
    selects_teachers = True
    config: Any

    def __init__(self, config: Any, bench: Any):
        super().__init__(config, bench)
        every = list(range(len(bench.task.outputs)))
        self.teachers = TeacherSet(bench, [every], finished=False, seed=config.teacher_seed, pooled=self._pooled)
        self._folder = Path()

    @classmethod
    def check(cls, config: Any, data: Data) -> list[Problem]:
        problems = check_temperature(config.temperature)
        if not 0 <= config.weight < float("inf"):
            problems.append(Problem("method.weight", f"must not be negative, is {config.weight}"))
        return problems

    @classmethod
    def places(cls, config: Any) -> dict[str, Backbone]:
        return {} if config.teacher is None else {"teacher_1": named(config.teacher, "method.teacher")}

    def stages(self) -> dict[str, Stage]:
        return {"teacher_logits": self.teachers.logits(0)}

    def prepare(self, stages: Mapping[str, Path]) -> None:
        self._folder = stages["teacher_logits"]

    def columns(self) -> dict[str, np.ndarray]:
        return {"label": self.bench.records.labels("train"), "teacher": self._logits("train"), "aligned": self._aligned}

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        from torch.nn.functional import cross_entropy

        from kbench.engine.feed import inputs, pooled_logits, unit_logits

        logits = model(**inputs(batch)).logits.float()
        words = unit_logits(logits, batch)
        soft = pooled_logits(logits, batch) if self._pooled else words
        return {"hard": cross_entropy(words, batch["label"]), "soft": self.config.weight * self._soft(soft, batch)}

    def diagnostics(self) -> dict[str, float]:
        """How good the teacher is: the premise of learning from it."""
        task = self.bench.task
        score = task.main_score(self._logits("test"), *self.bench.gold("test"))
        return {f"teacher_{task.metrics[0]}": score}

    def _soft(self, student: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Mean over the words that both models read, by their share in the training rows (`_aligned`)."""
        temperature = self.config.temperature
        ours = (student / temperature).log_softmax(-1)
        teacher = (batch["teacher"] / temperature).softmax(-1)
        each = -(teacher * ours).sum(-1)
        if self.config.soft_loss is SoftLoss.kl:
            each = each + (teacher * teacher.clamp_min(1e-30).log()).sum(-1)
        found: Tensor = temperature**2 * (each * batch["aligned"]).mean()
        return found

    def _logits(self, split: str) -> np.ndarray:
        """The teacher's logits of a split, memory-mapped [words, outputs]."""
        return np.load(self._folder / f"{split}.npy", mmap_mode="r", allow_pickle=False)

    @property
    def _pooled(self) -> bool:
        return self.config.word_pooling is Pooling.mean and self.bench.records.tagged

    @cached_property
    def _aligned(self) -> np.ndarray:
        """What each unit of train counts for in the soft loss [units]: 0 where the teacher does not read it.

        The others count a little more than 1, so that the mean over the student's words is one over those that both
        read. The share is that of all training rows: how a batch is split does not matter.
        """
        ours, theirs = (bench.encoded("train").starts for bench in (self.bench, self.teachers.benches[0]))
        if ours is None or theirs is None:
            return np.ones(self.bench.records.rows("train"), dtype=np.float32)
        read = theirs >= 0
        share = float(read[ours >= 0].mean())
        found: np.ndarray = (read / share if share else read).astype(np.float32)
        return found
