"""One teacher alone: its distribution over its own classes, zero on all others.

The "Original Teacher" rows of MUKI's tables (paper, section 3.1). Trains nothing beyond the teachers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kbench.config.keys import key
from kbench.errors import Problem
from kbench.methods.teachers import TeacherMethod, TeacherOptions, check_teachers

if TYPE_CHECKING:
    from kbench.config.schema import Data


@dataclass
class Config(TeacherOptions):
    """Options of a teacher alone."""

    index: int = key("which teacher, from 1")


class Teacher(TeacherMethod):
    """Pad_i(softmax(z_i))."""

    Config = Config
    trained = False

    @classmethod
    def check(cls, config: Any, data: Data) -> list[Problem]:
        problems = check_teachers(config, data)
        if not 1 <= config.index <= config.teachers:
            problems.append(Problem("method.index", f"must be 1 to {config.teachers}, is {config.index}"))
        return problems

    def scores(self, split: str) -> np.ndarray:
        from kbench.methods.integration import padded_scores

        found: np.ndarray = padded_scores(self.union, self.tensors(split), self.config.index - 1).numpy()
        return found
