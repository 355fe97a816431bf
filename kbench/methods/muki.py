"""MUKI, model uncertainty-aware knowledge integration: learn from the teacher that is least uncertain about a text.

Li et al., "From Mimicking to Integrating: Knowledge Integration for Pre-Trained Language Models", Findings of EMNLP
2022.
Several teachers with different label sets become one student over the union, without labels. Monte-Carlo dropout
tells how uncertain each teacher is about a text; the target is the most certain teacher's distribution (hard) or a
mixture weighted by certainty (soft), and a text on which the teachers are about equally certain counts less.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from kbench.config.keys import key
from kbench.data.units import units_of
from kbench.errors import Problem
from kbench.methods.teachers import TeacherMethod, TeacherOptions, check_teachers
from kbench.methods.vanilla_kd import check_temperature
from kbench.stages.stage import Stage

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kbench.config.schema import Data


class Target(Enum):
    """What the student learns from."""

    hard = "hard"
    soft = "soft"


class McMode(Enum):
    """Where a teacher's uncertainty comes from."""

    mc = "mc"
    deterministic = "deterministic"
    single_sample = "single_sample"


class Direction(Enum):
    """Which divergence draws the student S to the target T."""

    target_student = "target_student"
    student_target = "student_target"


class Reduction(Enum):
    """What is made of the divergences of a batch."""

    mean = "mean"
    sum = "sum"


@dataclass
class MonteCarlo:
    """Options of Monte-Carlo dropout."""

    mode: McMode = key("mc: mean of the samples; deterministic: dropout off; single_sample: the first sample")
    samples: int = key("K, dropout samples that are averaged")
    pool: int = key("samples stored once; any K up to it costs no further pass")
    dropout: float | None = key("dropout while sampling; null: as in the teacher's checkpoint")
    seed: int = key("seed of the dropout masks")


@dataclass
class Config(TeacherOptions):
    """Options of MUKI."""

    target: Target = key("hard: the most certain teacher; soft: all, weighted by certainty")
    tau: float = key("temperature of the soft weights: softmax(certainty / tau)")
    reweight: bool = key("weigh each text, or word, by the margin between the two most certain teachers")
    weight_floor: float = key("added to every margin")
    direction: Direction = key("target_student: KL(T || S); student_target: KL(S || T), infinite for a hard target")
    reduction: Reduction = key("mean or sum over the batch; weights are not renormalised")
    renormalise: bool = key("tagging: entropy of the entity tags made to sum to 1; false: a partial sum")
    temperature: float = key("divides teachers' and student's logits in the loss; no squared factor")
    mc: MonteCarlo = key("Monte-Carlo dropout")


class Muki(TeacherMethod):
    """mean of v * KL(T || softmax(s)), T hard or soft, v the margin of certainty."""

    Config = Config

    @classmethod
    def check(cls, config: Any, data: Data) -> list[Problem]:
        problems = check_teachers(config, data) + check_temperature(config.temperature)
        if not 0 < config.tau < float("inf"):
            problems.append(Problem("method.tau", f"must be above 0, is {config.tau}"))
        if not 0 <= config.weight_floor < float("inf"):
            problems.append(Problem("method.weight_floor", f"must not be negative, is {config.weight_floor}"))
        if config.direction is Direction.student_target and config.target is Target.hard:
            what = "KL(S || T) is infinite for a hard target, which is 0 on the other teachers' classes"
            problems.append(Problem("method.direction", what, "take target_student, or method.target=soft"))
        if not 1 <= config.mc.samples <= config.mc.pool:
            problems.append(
                Problem("method.mc.samples", f"must be 1 to method.mc.pool={config.mc.pool}, is {config.mc.samples}")
            )
        if config.mc.dropout is not None and not 0 < config.mc.dropout < 1:
            problems.append(Problem("method.mc.dropout", f"must lie between 0 and 1, is {config.mc.dropout}"))
        return problems

    def stages(self) -> dict[str, Stage]:
        found = super().stages()
        if self.config.mc.mode is not McMode.deterministic:
            mc = self.config.mc
            for i in range(len(self.teachers)):
                found[f"samples_{i}"] = self.teachers.samples(i, mc.pool, mc.dropout, mc.seed)
        return found

    @cached_property
    def certainty(self) -> np.ndarray:
        """c = 1 - u of each teacher on each training row, float32 [rows, N]."""
        import torch

        from kbench.methods.integration import entity_part, mean_distribution, uncertainty

        shared = self.bench.task.shared
        mode = self.config.mc.mode
        used = 1 if mode is McMode.single_sample else self.config.mc.samples
        found = np.empty((len(self.logits("train")[0]), len(self.teachers)), dtype=np.float32)
        for i, columns in enumerate(self.teachers.columns):
            stored = self.stored(f"logits_{i}" if mode is McMode.deterministic else f"samples_{i}", "train")
            for start in range(0, len(stored), 8192):
                part = stored[start : start + 8192]
                part = part[:, None] if mode is McMode.deterministic else part[:, :used]
                logits = torch.from_numpy(part.astype(np.float64))
                p = mean_distribution(logits)
                if shared is not None:
                    p = entity_part(p, columns.index(shared), self.config.renormalise)
                found[start : start + 8192, i] = 1 - uncertainty(p).numpy()
        return found

    @cached_property
    def right_teacher(self) -> np.ndarray:
        """The teacher that knows the gold label of each training unit [units]; -1 of O and of words that were not read.

        For reports only: no loss sees it.
        """
        found: np.ndarray = self.teachers.owner[self.bench.records.labels("train")]
        unread = self.unread("train")
        return found if unread is None else np.where(unread, -1, found)

    def columns(self) -> dict[str, np.ndarray]:
        return super().columns() | {"certainty": self.certainty}

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        from kbench.methods import integration

        config, certainty = self.config, batch["certainty"]
        logits = [z / config.temperature for z in self.batch_logits(batch)]
        if config.target is Target.hard:
            target = integration.hard_target(self.union, logits, certainty)
        else:
            target = integration.soft_target(self.union, logits, certainty, config.tau)
        weight = integration.margin(certainty, config.weight_floor) if config.reweight else None
        student = self.student_logits(model, batch) / config.temperature
        reverse = config.direction is Direction.student_target
        loss = integration.kl(target, student, weight, reverse=reverse)
        return {"integration": loss * batch["step_units"] if config.reduction is Reduction.sum else loss}

    def diagnostics(self) -> dict[str, float]:
        """Beside the teachers' own scores: on the student's training rows, how often the right teacher was chosen.

        Of words, those that belong to an entity count. Gold labels are read for this report only.
        """
        rows, _ = self.bench.split
        units = units_of(self.bench.records.ends("train"), rows)
        units = units[self.right_teacher[units] >= 0]
        certainty, right = self.certainty[units], self.right_teacher[units]
        if not len(units):
            return super().diagnostics()
        wrong = certainty.argmax(1) != right
        top = np.sort(certainty, axis=1)
        margins = top[:, -1] - top[:, -2]
        found = super().diagnostics() | {
            "right_teacher_share": float(1 - wrong.mean()),
            "mean_margin": float(margins.mean()),
        }
        if wrong.any():
            found["mean_margin_where_wrong"] = float(margins[wrong].mean())
        return found
