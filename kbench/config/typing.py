"""Types and help of entity typing: a text with one marked mention, and which of some types it has; it may have none."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from kbench.config.keys import key
from kbench.errors import Problem


class TypingHead(Enum):
    """Where a text is read."""

    cls = "cls"
    marker_start = "marker_start"


@dataclass
class TypingOptions:
    """The head of a typing classifier and what it reads."""

    head: TypingHead = key(
        "where the text is read: cls, at its first token; marker_start, at the mark before the mention"
    )
    marker: str = key("the word put before and after the mention")
    head_dropout: float = key("dropout before the linear layer")

    def check(self, where: str) -> list[Problem]:
        """Rules that a type cannot say. `where` is the configuration node."""
        problems = []
        if not self.marker.strip() or self.marker != self.marker.strip():
            problems.append(Problem(f"{where}.marker", f"must be a word without spaces around it, is {self.marker!r}"))
        if not 0 <= self.head_dropout < 1:
            problems.append(Problem(f"{where}.head_dropout", f"must lie in [0, 1), is {self.head_dropout}"))
        return problems
