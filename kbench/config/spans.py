"""Types and help of question answering: how a context is read, and how an answer is found and compared."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from kbench.config.keys import key
from kbench.errors import Problem

# languages whose articles MLQA's normaliser knows
MLQA_LANGUAGES = ("en", "es", "hi", "vi", "de", "ar", "zh")


class Normaliser(Enum):
    """What counts as the same answer."""

    squad = "squad"
    mlqa = "mlqa"


@dataclass
class SpanOptions:
    """Windows over a context, the search for the best span in them, and the comparison with the gold answers."""

    stride: int = key("tokens of the context from the beginning of one window to that of the next")
    max_query: int = key("longest question in tokens; the rest is cut")
    max_answer: int = key("longest answer in tokens")
    n_best: int = key("first tokens, and last tokens, that are tried in each window")
    normaliser: Normaliser = key("squad: English articles, ASCII punctuation; mlqa: those of each language")

    def check(self, where: str = "data.spans") -> list[Problem]:
        """Rules that a type cannot say. `where` is the configuration node."""
        return [
            Problem(f"{where}.{name}", f"must be at least 1, is {getattr(self, name)}")
            for name in ("stride", "max_query", "max_answer", "n_best")
            if getattr(self, name) < 1
        ]
