"""Types and help of relation classification: a sentence with two marked arguments, and how they are related."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from kbench.config.keys import key
from kbench.errors import Problem
from kbench.registry import near

# readers whose files tell what kinds of things the two arguments are
TYPED_READERS = ("tacred", "toy_tacred")


class RelationHead(Enum):
    """Where a sentence is read."""

    cls = "cls"
    starts = "starts"


class Markers(Enum):
    """How the two arguments are marked."""

    relx = "relx"
    plain = "plain"
    typed = "typed"
    ernie = "ernie"


@dataclass
class RelationOptions:
    """The head of a relation classifier, what it reads, its loss, and what is scored."""

    head_dropout: float = key("dropout before the linear layer")
    class_weights: bool = key(
        "weigh the loss of each row: a relation that is said in one direction or the other gives each of the two its "
        "share of their training rows, a label without directions has 1"
    )
    compat: bool = key(
        "as RELX's released script: the encoder never drops out, the head does so in evaluations, too, and a sentence "
        "that is cut loses its last token"
    )
    head: RelationHead = key(
        "where the sentence is read: cls, at its first token; starts, at the first marker of each argument, the two "
        "states one after another"
    )
    markers: Markers = key(
        "what stands around the arguments: relx, four tokens of their own; plain, @ and #; typed, these and the "
        "argument's type; ernie, # and $"
    )
    negative: str | None = key(
        "the label that says there is no relation: a prediction of it is never a hit or a false alarm, and f1 is micro "
        "F1 over all others; null: RELX's f1, the mean over relations, labels without a direction not counted"
    )

    def check(self, where: str) -> list[Problem]:
        """Rules that a type cannot say. `where` is the configuration node."""
        problems = []
        if not 0 <= self.head_dropout < 1:
            problems.append(Problem(f"{where}.head_dropout", f"must lie in [0, 1), is {self.head_dropout}"))
        if self.compat and (self.head is not RelationHead.cls or self.markers is not Markers.relx):
            hint = f"take {where}.head=cls {where}.markers=relx"
            problems.append(Problem(f"{where}.compat", "is RELX's script, which reads its own markers at [CLS]", hint))
        return problems

    def check_data(self, where: str, labels: Sequence[str], reader: str) -> list[Problem]:
        """Whether they fit a data set's labels and reader. `where` is the configuration node."""
        problems = []
        if self.negative is not None and self.negative not in labels:
            what = f"{self.negative} is no label{near(self.negative, labels)}"
            problems.append(Problem(f"{where}.negative", what, "name one of data.labels, or null"))
        if self.markers is Markers.typed and reader not in TYPED_READERS:
            what = f"files of {reader} tell no types of arguments; those of {', '.join(TYPED_READERS)} do"
            problems.append(Problem(f"{where}.markers", what, f"take {where}.markers=plain"))
        return problems
