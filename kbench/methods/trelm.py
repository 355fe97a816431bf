"""TRELM: inject what matters, remember it, update only its paths (Yan et al., LREC-COLING 2024, arXiv 2403.11203).

At important mentions of a text, vectors of the graph's triples stand for the token embeddings, mixed with what a memory
bank holds of the entity; the model guesses masked words and decodes the triple's other entity (sections 3.1 and 3.2).
Only neurons of the feed-forward layers that carry such knowledge are updated (section 3.3). The checkpoint is an
ordinary BERT or RoBERTa, one stage that every evaluation shares. No code was released.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbench.backbones.locate import positions_of, shape_of, weights_of
from kbench.config import trelm as options
from kbench.config.keys import key
from kbench.engine.recipe import Precision
from kbench.errors import ConfigError, Problem
from kbench.methods.base import TASKS, Needs
from kbench.methods.finetune import Finetune
from kbench.methods.linked_pretraining import SNAPSHOTS, LinkedPretraining
from kbench.stages.stage import Stage

if TYPE_CHECKING:
    from kbench.backbones.locate import Located
    from kbench.config.schema import Backbone, Data


# whose embeddings, layers and head are known: `injection`, `routed_ffn` and `kbench.backbones.masked_lm`
FAMILIES = ("bert", "roberta", "xlm-roberta", "camembert")
_HEADS = ("cls.predictions.", "lm_head.")  # of their weights


@dataclass
class Config:
    """Options of TRELM."""

    name: str = key("name of the method")
    sample_length: int = key("longest sample of pre-training in tokens; the rest is cut")
    theta: float = key("weight of masked words in the loss; the knowledge loss has the rest")
    mlm: options.Words = key("masked words")
    si: options.Importance = key("semantic importance of mentions")
    select: options.Select = key("important mentions")
    inject: options.Inject = key("what stands in their place")
    cka: options.Cka = key("the knowledge loss")
    memory: options.Memory = key("the memory bank")
    routing: options.Routing = key("which weights learn")
    snapshots: list[float] = key("shares of the pre-training after which the model is kept, too")
    part: float = key("which of them is evaluated; 1: the end")
    pretrain_seed: int = key("seed of the pre-training: it is done once, only fine-tuning is repeated")


class Trelm(Finetune):
    """Fine-tuning, or probing, of a checkpoint that was pre-trained further on text with linked mentions."""

    Config = Config
    needs = Needs(tasks=frozenset(TASKS), pretraining=True, knowledge=True)
    config: Any

    @classmethod
    def check(cls, config: Any, data: Data) -> list[Problem]:
        problems = options.check(config)
        if config.sample_length < 8:
            problems.append(Problem("method.sample_length", f"must be at least 8, is {config.sample_length}"))
        wrong = [share for share in config.snapshots if not 0 < share < 1]
        if wrong or len(set(config.snapshots)) != len(config.snapshots):
            problems.append(Problem("method.snapshots", "must lie between 0 and 1, each once"))
        if config.part != 1 and config.part not in config.snapshots:
            hint = f"it is 1 or one of method.snapshots={config.snapshots}"
            problems.append(Problem("method.part", f"no model is kept at {config.part}", hint))
        if config.inject.exclude is options.Exclude.probe and data.task != "probe":
            what = f"is probe, and {data.name} is none: what would be left out?"
            problems.append(Problem("method.inject.exclude", what, "write none, or take a data set that probes"))
        return problems

    @classmethod
    def check_places(cls, config: Any, data: Data, places: Mapping[str, tuple[Backbone, Located]]) -> list[Problem]:
        backbone, located = places["student"]
        problems, room = [], positions_of(backbone, located)
        if room is not None and config.sample_length > room:
            what = f"is {config.sample_length}; {backbone.name} has {room} positions"
            problems.append(Problem("method.sample_length", what))
        family = "bert" if located.folder is None else shape_of(located).get("model_type")
        if family not in FAMILIES:
            what = f"is of the family {family}, into which nothing can be injected"
            problems.append(Problem(f"backbone={backbone.name}", what, f"it can be into: {', '.join(FAMILIES)}"))
        names = weights_of(located)
        if family in FAMILIES and names and not any(name.startswith(_HEADS) for name in names):
            what, hint = "is an encoder without the head that guesses words", "take a checkpoint that was saved with it"
            problems.append(Problem(f"backbone={backbone.name}", what, hint))
        return problems

    def stages(self) -> dict[str, Stage]:
        self._refuse()
        return {"pretrained": self.pretraining.stage}

    def _refuse(self) -> None:
        """Raise where paths cannot be learned as the recipe and the processes have it."""
        mode, runtime = self.config.routing.mode, self.bench.runtime
        if mode is not options.Mode.off and self.bench.pretrain.precision is Precision.fp16:
            what = "is fp16, whose loss scale the weights of a knowledge path know nothing of"
            raise ConfigError(Problem("pretrain.precision", what, "bf16 or fp32; or method.routing.mode=off"))
        if mode is options.Mode.in_backward and runtime is not None and runtime.processes > 1:
            what = f"is in_backward, and {runtime.processes} processes would choose different paths"
            raise ConfigError(Problem("method.routing.mode", what, "one process, such as hardware=cpu; or amortised"))

    def prepare(self, stages: Mapping[str, Any]) -> None:
        folder = Path(stages["pretrained"])
        part = self.config.part
        self.bench.start = folder if part == 1 else folder / SNAPSHOTS / f"{part:g}"

    def diagnostics(self) -> dict[str, float]:
        return self.bench.leak()

    @cached_property
    def pretraining(self) -> LinkedPretraining:
        """The pre-training of the checkpoint."""
        config = self.config
        return LinkedPretraining(
            self.bench,
            config.sample_length,
            config.mlm,
            config.pretrain_seed,
            config,
            tuple(sorted(config.snapshots)),
        )
