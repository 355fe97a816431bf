"""Options of a probe: how masks are filled, and when the answer counts as right (X-FACTR; KMLM, table 4)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from kbench.config.keys import key
from kbench.errors import Problem


class Decoder(Enum):
    """In which order masks are filled."""

    independent = "independent"
    confidence = "confidence"


class Choose(Enum):
    """By what the number of masks is chosen."""

    sum = "sum"
    mean = "mean"


class Scorer(Enum):
    """When an answer is right."""

    full = "full"
    strict = "strict"


@dataclass
class ProbeOptions:
    """How a masked language model is asked for facts."""

    decoder: Decoder = key(
        "masks are filled independent of each other in one pass, or by confidence: the surest first, then the least "
        "sure is asked again until nothing changes"
    )
    longest: int = key("answers of 1 to this many tokens are tried")
    iterations: int = key("passes through the model at most for one number of masks; independent: 1")
    choose: Choose = key(
        "the number of masks: largest sum of log-probabilities (evaluation script), or mean (probing script)"
    )
    scorer: Scorer = key(
        "full: the answer is a name of a valid object, letter case aside (evaluation script); strict: its tokens are "
        "those of the gold label (probing script)"
    )

    def check(self, where: str = "data.probing") -> list[Problem]:
        """Rules that a type cannot say. `where` is the configuration node."""
        problems = []
        if not 1 <= self.longest <= 100:
            problems.append(Problem(f"{where}.longest", f"must lie between 1 and 100, is {self.longest}"))
        if self.decoder is Decoder.independent and self.iterations != 1:
            what = f"is {self.iterations}; independent masks are filled in 1 pass"
            problems.append(Problem(f"{where}.iterations", what, f"take 1, or {where}.decoder=confidence"))
        elif self.decoder is Decoder.confidence and self.iterations < self.longest:
            what = f"is {self.iterations}; one pass fills one of {self.longest} masks"
            problems.append(Problem(f"{where}.iterations", what, f"take {self.longest} at least"))
        return problems
