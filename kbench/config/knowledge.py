"""Types and help of a knowledge graph: where it comes from, and what is made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from kbench.config.corpus import Corpus, Vectors
from kbench.config.keys import key, machinery
from kbench.errors import Problem

# names of the readers of original files, in kbench.knowledge.readers; `toy_graph` makes its own
GRAPH_READERS = ("wikidata5m", "wikidata_tables", "toy_graph")


class Missing(Enum):
    """What becomes of a sentence one of whose parts has no name in the language."""

    english = "english"
    drop = "drop"


class AliasPool(Enum):
    """The aliases that are drawn from."""

    all = "all"
    first_half = "first_half"


class AliasMissing(Enum):
    """What stands for an alias where there is none."""

    label = "label"
    drop = "drop"


class Multi(Enum):
    """Which of several relations between two entities a cycle shows."""

    uniform = "uniform"
    first = "first"
    last = "last"
    all = "all"


class CycleKey(Enum):
    """When two cycles of length 4 are the same."""

    diamond = "diamond"
    node_set = "node_set"


class Align(Enum):
    """Whether all languages show one and the same relation of a pair."""

    shared = "shared"
    per_language = "per_language"


class Exclude(Enum):
    """What a test cycle keeps out of pre-training."""

    exact = "exact"
    superset = "superset"


@dataclass
class Sentences:
    """Code-switched and alias sentences, one of each a triple and language pair."""

    triples: int | None = key("triples drawn for each language pair; null: all of them")
    aliases: bool = key("make the alias sentences, too")
    missing: Missing = key("a part without a name in the language: say it in english, or drop the sentence")
    alias_pool: AliasPool = key("draw aliases from all, or from the first_half (released code)")
    alias_missing: AliasMissing = key("a part without an alias: say its label, or drop the sentence (released code)")
    drop_unswitched: bool = key("leave out sentences of which every part is English")


@dataclass
class Cycles:
    """Cycles of length 3, and of length 4 with a chord."""

    multi: Multi = key("of several relations of two entities: a uniform draw, the first or last of the file, or all")
    align: Align = key("the relation drawn is shared by all languages, or drawn per_language among those with a name")
    unique_by: CycleKey = key("length-4 cycles are told apart by diamond, or by node_set (released code)")
    per_chord: int = key("length-4 cycles drawn on one chord at most")
    missing: Missing = key("a relation without a name in the language: say it in english, or drop the cycle there")
    length3: int | None = key("length-3 samples of each language at most; null: all")
    length4: int | None = key("length-4 samples of each language at most; null: all that were drawn")
    balance: float = key("cut n cycles of one signature to the share n^balance; 1: all alike; 0: to a common cap")
    exclude: Exclude = key("keep out test cycles of XLR: exact, or superset: also length-4 cycles that hold one")


@dataclass
class Xlr:
    """The questions of cross-lingual logical reasoning that are made of the graph."""

    train: int = key("training questions, in English")
    dev: int = key("validation questions, in English")
    test: int = key("test questions; each is asked in every language")
    per_answer: float = key("largest share of a split that one relation may be the answer of")
    per_entity: float = key("largest share of a split in which one entity may stand")
    per_signature: float = key("largest share of a split that one combination of relations may have")


@dataclass
class PlainText:
    """Running text for the plain stream."""

    folder: str | None = machinery("folder of the files under KBENCH_DATA; null: no text, unless path says where")
    path: str | None = machinery("folder of the files; null: KBENCH_DATA")
    files: str = machinery("glob of the files of a language inside the folder; {lang} stands for it")
    languages: list[str] | None = key("languages of the text; null: those of the graph")
    spelt: dict[str, str] | None = machinery("language -> how file names spell it; null: as its code")
    lines: int | None = key("lines of each language at most, drawn by seed; null: all")

    def patterns(self, languages: Sequence[str]) -> dict[str, str]:
        """Language -> glob of its files; empty where there is no text. `languages` are the graph's."""
        if self.folder is None and self.path is None:
            return {}
        spelt, wanted = self.spelt or {}, languages if self.languages is None else self.languages
        return {lang: self.files.replace("{lang}", spelt.get(lang, lang)) for lang in wanted}


@dataclass
class Knowledge:
    """A knowledge graph with names in several languages, and what is made of it."""

    name: str = key("name of the graph")
    reader: str = key("name of the reader of its files (kbench/knowledge/readers)")
    languages: list[str] = key("languages, ISO 639-1; the first is the one that every other is paired with")
    files: dict[str, str] = machinery("part -> glob of its files, gzipped or not, inside the folder")
    folder: str = machinery("folder of the files under KBENCH_DATA")
    path: str | None = machinery("folder of the files; null: KBENCH_DATA")
    seed: int = key("seed of all that is drawn from it")
    sentences: Sentences = key("code-switched sentences")
    cycles: Cycles = key("cycles")
    xlr: Xlr | None = key("questions about cycles, whose test cycles no pre-training sees; null: none are made")
    text: PlainText = key("plain text")
    corpus: Corpus | None = key("text with mentions of the graph's entities; null: none")
    vectors: Vectors = key("vectors of entities and relations; read by methods that inject them")
    licence: str = machinery("terms of use")
    cite: str = machinery("where it comes from")

    def check(self) -> list[Problem]:
        """Rules that a type cannot say."""
        problems = []
        if self.reader not in GRAPH_READERS:
            hint = f"there are: {', '.join(GRAPH_READERS)}"
            problems.append(Problem("knowledge.reader", f"no such reader: {self.reader}", hint))
        least = 2 if self.corpus is None else 1
        if len(self.languages) < least or len(set(self.languages)) != len(self.languages):
            count = "two" if least == 2 else "one"
            problems.append(Problem("knowledge.languages", f"must be {count} at least, each once"))
        for node, names in (("sentences", ("triples",)), ("cycles", ("length3", "length4", "per_chord"))):
            for name in names:
                value = getattr(getattr(self, node), name)
                if value is not None and value < 1:
                    problems.append(Problem(f"knowledge.{node}.{name}", f"must be at least 1, is {value}"))
        shares = [("cycles.balance", self.cycles.balance)]
        if self.xlr is not None:
            for name in ("train", "dev", "test"):
                size = getattr(self.xlr, name)
                if size < 1:
                    problems.append(Problem(f"knowledge.xlr.{name}", f"must be at least 1, is {size}"))
            names = ("per_answer", "per_entity", "per_signature")
            shares += [(f"xlr.{name}", getattr(self.xlr, name)) for name in names]
        for name, share in shares:
            may_be_0 = name == "cycles.balance"
            if not 0 <= share <= 1 or (share == 0 and not may_be_0):
                problems.append(Problem(f"knowledge.{name}", f"is a share, 0 to 1, is {share}"))
        if self.text.lines is not None and self.text.lines < 1:
            problems.append(Problem("knowledge.text.lines", f"must be null or at least 1, is {self.text.lines}"))
        if self.corpus is not None:
            problems += self.corpus.check()
        return problems + self.vectors.check()
