"""Types and help of text with linked mentions, and of the vectors of a graph that are put in their place (TRELM)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from kbench.config.keys import key, machinery
from kbench.errors import Problem

# names of the readers of original files, in kbench.knowledge.corpora; `toy_corpus` makes its own
CORPUS_READERS = ("jsonl", "ernie", "docred", "text", "wikipedia", "toy_corpus")


class Linker(Enum):
    """What links mentions to entities of the graph."""

    prelinked = "prelinked"
    alias = "alias"
    anchors = "anchors"


# reader -> the linkers it goes with: a text that names no entity has to be linked here
LINKERS = {
    "jsonl": (Linker.prelinked, Linker.alias),
    "ernie": (Linker.prelinked,),
    "docred": (Linker.alias,),
    "text": (Linker.alias,),
    "wikipedia": (Linker.anchors, Linker.alias),
    "toy_corpus": (Linker.prelinked, Linker.alias),
}


@dataclass
class AliasOptions:
    """Which names of a graph count as mentions of it, and of whom."""

    shortest: int = key("letters that a name must have at least")
    common_words: int = key("names among so many commonest words of the corpus are not looked for; 0: all are")
    lower_case: bool = key("look for single words in lower case, too")


@dataclass
class Corpus:
    """Text with mentions of entities."""

    name: str = key("name of the corpus")
    reader: str = key("name of the reader of its files (kbench/knowledge/corpora)")
    linker: Linker = key("prelinked: its own links; alias: names of the graph; anchors: the links of a wiki's pages")
    alias: AliasOptions = key("which names the alias linker looks for")
    files: dict[str, str] = machinery("part -> glob of its files, packed or not, inside the folder")
    folder: str = machinery("folder of the files under KBENCH_DATA")
    path: str | None = machinery("folder of the files; null: KBENCH_DATA")
    documents: int | None = key("documents at most, the first ones; null: all")
    pack: bool = key("join the sentences of a document up to the sample length; false: each is a sample of its own")
    min_mentions: int = key("mentions of the graph that a sample must have at least")
    licence: str = machinery("terms of use")
    cite: str = machinery("where it comes from")

    def check(self, where: str = "knowledge.corpus") -> list[Problem]:
        """Rules that a type cannot say. `where` is the configuration node."""
        if self.reader not in CORPUS_READERS:
            hint = f"there are: {', '.join(CORPUS_READERS)}"
            return [Problem(f"{where}.reader", f"no such reader: {self.reader}", hint)]
        problems = []
        able = LINKERS[self.reader]
        if self.linker not in able:
            hint = f"with it go: {', '.join(linker.value for linker in able)}"
            what = f"is {self.linker.value}, which does not go with the reader {self.reader}"
            problems.append(Problem(f"{where}.linker", what, hint))
        least = {"alias.shortest": 1, "alias.common_words": 0, "min_mentions": 0, "documents": 1}
        for name, low in least.items():
            node, _, last = name.rpartition(".")
            value = getattr(getattr(self, node) if node else self, last)
            if value is not None and value < low:
                problems.append(Problem(f"{where}.{name}", f"must be at least {low}, is {value}"))
        return problems


class Norm(Enum):
    """How far head plus relation is from tail."""

    l1 = "l1"
    l2 = "l2"


@dataclass
class Vectors:
    """One vector for each entity and relation of the graph, by TransE: head + relation is near tail."""

    path: str | None = machinery("folder of finished vectors; null: they are trained here")
    dimension: int = key("numbers in a vector")
    epochs: int = key("passes over the triples")
    lr: float = key("Adagrad's learning rate")
    batch_size: int = key("triples in a step")
    negatives: int = key("wrong heads and wrong tails that the triples of a step share")
    margin: float = key("a true triple is to be nearer than a wrong one by this much")
    norm: Norm = key("l1 or l2")
    seed: int = key("seed of first values, order and wrong triples")

    def check(self, where: str = "knowledge.vectors") -> list[Problem]:
        """Rules that a type cannot say. `where` is the configuration node."""
        counts = ("dimension", "epochs", "batch_size", "negatives")
        problems = [
            Problem(f"{where}.{name}", f"must be at least 1, is {getattr(self, name)}")
            for name in counts
            if getattr(self, name) < 1
        ]
        for name in ("lr", "margin"):
            if not getattr(self, name) > 0:
                problems.append(Problem(f"{where}.{name}", f"must be above 0, is {getattr(self, name)}"))
        return problems
