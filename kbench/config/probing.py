"""Options of a probe: how masks are filled, and when the answer counts as right (X-FACTR; KMLM, table 4; LAMA)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from kbench import registry
from kbench.config.identity import digest
from kbench.config.keys import key, machinery
from kbench.errors import Problem
from kbench.files import hash_file


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


class Words(Enum):
    """The words that an answer is chosen from."""

    model = "model"
    lama = "lama"
    shared = "shared"


@dataclass
class LamaOptions:
    """How LAMA asks: one mask, and an answer out of a list of words that are one token each."""

    vocabulary: Words = key(
        "answers are words that are one token: all that the model has, those of LAMA's common list, or those shared "
        "with other tokenizers; levels of different lists are not comparable"
    )
    vocabulary_file: str | None = machinery(
        "of vocabulary=lama: the list, a word a line; null: common_vocab_cased.txt in the data folder"
    )
    vocabulary_of: list[str] | None = key(
        "of vocabulary=shared: whose tokenizers share the words, as names of conf/backbone, folders or hub ids"
    )
    lower_case: bool = key("objects are compared in lower case: for a tokenizer that knows no other; LAMA's are cased")
    uhn_model: str | None = key(
        "masked language model whose guess from a name makes a fact too easy for LAMA-UHN (bert-base-cased), as "
        "vocabulary_of; null: only facts whose subject holds the answer are left out"
    )

    def check(self, where: str) -> list[Problem]:
        """Rules that a type cannot say. `where` is the configuration node."""
        problems = []
        if self.vocabulary is Words.shared and not self.vocabulary_of:
            what = "is empty; vocabulary=shared needs the tokenizers that share the words"
            problems.append(Problem(f"{where}.vocabulary_of", what, f"{where}.vocabulary_of=[FOLDER,FOLDER]"))
        for name, words in (("vocabulary_of", Words.shared), ("vocabulary_file", Words.lama)):
            if getattr(self, name) is not None and self.vocabulary is not words:
                what = f"is given, and {where}.vocabulary={self.vocabulary.value} does not read it"
                problems.append(Problem(f"{where}.{name}", what, f"leave it out, or {where}.vocabulary={words.value}"))
        return problems

    def content(self) -> dict[str, str]:
        """What stands behind the names: hashes of the files of folders and of the YAML of a named backbone.

        The list of words is not among them: it is read with the data.
        """
        found = {}
        for word in (*(self.vocabulary_of or ()), *([self.uhn_model] if self.uhn_model else ())):
            folder, named = Path(word).expanduser(), registry.conf_root() / "backbone" / f"{word}.yaml"
            if named.is_file():
                found[word] = hash_file(named)
            elif folder.is_dir():
                files = sorted(path for path in folder.iterdir() if path.suffix in _READ and path.is_file())
                found[word] = digest({path.name: hash_file(path) for path in files})
        return found


# files of a folder that decide what a tokenizer or a model says
_READ = (".json", ".txt", ".model", ".safetensors")


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
    lama: LamaOptions | None = key("LAMA's way of asking: one mask, a restricted choice; null: X-FACTR's")

    def content(self) -> dict[str, str]:
        """Hashes of what the options name and do not hold; empty where they name nothing."""
        return {} if self.lama is None else self.lama.content()

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
        if self.lama is not None:
            if (self.longest, self.decoder, self.scorer) != (1, Decoder.independent, Scorer.strict):
                what = "asks with one mask, whose answer is one token"
                hint = f"{where}.longest=1 {where}.decoder=independent {where}.iterations=1 {where}.scorer=strict"
                problems.append(Problem(f"{where}.lama", what, hint))
            problems += self.lama.check(f"{where}.lama")
        return problems
