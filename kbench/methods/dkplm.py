"""DKPLM-like pre-training: knowledge is injected into long-tail mentions and decoded; no memory, everything learns.

After Zhang et al., "DKPLM: Decomposable Knowledge-enhanced Pre-trained Language Model" (AAAI 2022), as TRELM builds
upon it: the same code with other options (conf/method/dkplm.yaml). Its text encoder of descriptions is not here:
vectors of the graph stand for it. So it is TRELM's ablation, not a reproduction of DKPLM.
"""

from __future__ import annotations

from dataclasses import dataclass

from kbench.methods.trelm import Config as TrelmConfig
from kbench.methods.trelm import Trelm


@dataclass
class Config(TrelmConfig):
    """Options of the DKPLM-like baseline."""


class Dkplm(Trelm):
    """TRELM without memory and routing."""

    Config = Config
