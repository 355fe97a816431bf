"""The teachers side by side: the largest of all their raw logits decides.

The "Ensemble" row of MUKI's tables (paper, section 3.1). Trains nothing beyond the teachers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from kbench.config.keys import key
from kbench.methods.teachers import TeacherMethod, TeacherOptions


class Merge(Enum):
    """How the logits of a class that several teachers know become one."""

    mean = "mean"
    max = "max"
    logsumexp = "logsumexp"


@dataclass
class Config(TeacherOptions):
    """Options of teachers side by side."""

    o_merge: Merge = key("tagging: how the teachers' logits of O become one: mean, max or logsumexp")


class Ensemble(TeacherMethod):
    """Concatenated logits, not normalised."""

    Config = Config
    trained = False

    def scores(self, split: str) -> np.ndarray:
        found: np.ndarray = self.union.join(self.tensors(split), self.config.o_merge.value).numpy()
        return found
