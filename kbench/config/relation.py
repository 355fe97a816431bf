"""Types and help of relation classification: a sentence with two marked arguments, and how they are related."""

from __future__ import annotations

from dataclasses import dataclass

from kbench.config.keys import key
from kbench.errors import Problem


@dataclass
class RelationOptions:
    """The head of a relation classifier and its loss."""

    head_dropout: float = key("dropout before the linear layer")
    class_weights: bool = key(
        "weigh the loss of each row: a relation that is said in one direction or the other gives each of the two its "
        "share of their training rows, a label without directions has 1"
    )
    compat: bool = key(
        "as RELX's released script: the encoder never drops out, the head does so in evaluations, too, and a sentence "
        "that is cut loses its last token"
    )

    def check(self, where: str) -> list[Problem]:
        """Rules that a type cannot say. `where` is the configuration node."""
        if 0 <= self.head_dropout < 1:
            return []
        return [Problem(f"{where}.head_dropout", f"must lie in [0, 1), is {self.head_dropout}")]
