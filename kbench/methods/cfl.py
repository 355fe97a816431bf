"""CFL, common feature learning: vanilla KD, and student and teachers meet in one small space of features.

The "CFL" row of MUKI's tables (paper, section 3.1; Luo et al. 2019). There the distributions of their hidden states are
drawn together by their maximum mean discrepancy over the batch. The teachers run forward in every step.
"""

from __future__ import annotations

from typing import Any, ClassVar

from kbench.methods.dfa import Dfa


class Cfl(Dfa):
    """Vanilla KD + sum over layers of sum_i MMD(g_s, g_i) and of sum_i MSE(D_i g_i, h_i)."""

    align: ClassVar[str] = "discrepancy"
    # the discrepancy is one of whole batches
    whole_batch: ClassVar[bool] = True

    def block(self) -> Any:
        from kbench.methods.alignment import CommonFeatures

        return CommonFeatures
