"""The teachers side by side: the largest of all their raw logits decides.

The "Ensemble" row of MUKI's tables (paper, section 3.1). Trains nothing beyond the teachers.
"""

from __future__ import annotations

import numpy as np

from kbench.methods.teachers import TeacherMethod, TeacherOptions


class Ensemble(TeacherMethod):
    """Concatenated logits, not normalised."""

    Config = TeacherOptions
    trained = False

    def scores(self, split: str) -> np.ndarray:
        return self.in_label_order(np.concatenate(self.logits(split), axis=1))
