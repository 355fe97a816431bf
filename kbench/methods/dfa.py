"""DFA, dual-level feature alignment: vanilla KD, and the student's hidden layers follow the teachers' joined ones.

The "DFA" row of MUKI's tables (paper, section 3.1; Luo et al. 2019 without their adversarial part, as released). The
teachers run forward in every step, since the states of all their layers are too large to store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from kbench.backbones.locate import depth_and_width
from kbench.config.keys import key
from kbench.engine.seeding import derive
from kbench.errors import Problem, UserError
from kbench.methods.vanilla_kd import Config as KdConfig
from kbench.methods.vanilla_kd import VanillaKd

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kbench.backbones.locate import Located
    from kbench.config.schema import Backbone, Data


class Train(Enum):
    """What of the alignment blocks is trained."""

    all = "all"
    biases = "biases"


@dataclass
class Config(KdConfig):
    """Options of alignment."""

    layers: int | None = key("layers that are aligned, counted from the last; null: all of the student's")
    align_weight: float = key("weight of the term that draws the student to the teachers")
    reconstruction_weight: float = key("weight of the term that keeps what the teachers' states held")
    align_train: Train = key("all: the alignment blocks learn; biases: their matrices stay random, as released")
    align_lr: float | None = key("peak learning rate of the alignment blocks; null: train.lr")
    mask_padding: bool = key("align words only; false: pad to data.max_length and align padding too, as released")


class Dfa(VanillaKd):
    """Vanilla KD + sum over layers of MSE(A_s h_s, r) and of sum_i MSE(h'_i, h_i), r the joined teachers."""

    Config = Config
    align: ClassVar[str] = "feature"

    @classmethod
    def check(cls, config: Any, data: Data) -> list[Problem]:
        problems = super().check(config, data)
        for name in ("align_weight", "reconstruction_weight"):
            if not 0 <= getattr(config, name) < float("inf"):
                problems.append(Problem(f"method.{name}", f"must not be negative, is {getattr(config, name)}"))
        if config.align_lr is not None and not 0 < config.align_lr < float("inf"):
            problems.append(Problem("method.align_lr", f"must be null or above 0, is {config.align_lr}"))
        if config.layers is not None and config.layers < 1:
            problems.append(Problem("method.layers", f"must be null or at least 1, is {config.layers}"))
        return problems

    @classmethod
    def check_places(cls, config: Any, data: Data, places: Mapping[str, tuple[Backbone, Located]]) -> list[Problem]:
        problems = super().check_places(config, data, places)
        depths = {name: depth_and_width(*place)[0] for name, place in places.items()}
        own = depths.pop("student")
        if (config.layers or 1) > own:
            problems.append(Problem("method.layers", f"is {config.layers}; the student has {own} layers"))
        for name, depth in depths.items():
            if depth < own and config.layers != 1:
                what = f"has {depth} layers, the student {own}: each of the student's needs one of its own"
                problems.append(Problem(name, what, "take a smaller student, or method.layers=1: the last ones"))
        return problems

    def block(self) -> Any:
        """The class of the block that aligns one layer."""
        from kbench.methods.alignment import Features

        return Features

    def student(self, model: nn.Module) -> nn.Module:
        import torch

        from kbench.methods.alignment import Aligned, paired_layers

        shapes: list[Any] = [model.config, *(teacher.config for teacher in self._models)]
        own, *theirs = [shape.num_hidden_layers for shape in shapes]
        self._same_tokens()
        layers = paired_layers(own, theirs, self.config.layers)
        torch.manual_seed(derive(self.bench.seed, "alignment"))
        widths = [shape.hidden_size for shape in shapes[1:]]
        return Aligned(model, self.block(), widths, layers, self.config.align_train is Train.biases)

    def rates(self) -> dict[str, float]:
        return {} if self.config.align_lr is None else {"blocks.": self.config.align_lr}

    def width(self) -> int | None:
        return None if self.config.mask_padding else self.bench.data.max_length

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        import torch

        from kbench.engine.feed import inputs, unit_logits
        from kbench.methods.integration import vanilla_kd

        config, attention = self.config, batch["attention_mask"]
        mask = attention if config.mask_padding else torch.ones_like(attention)
        weight = batch.get("row_units", torch.ones_like(attention[:, 0]))
        output = model(**inputs(batch), teachers=self._states(batch), mask=mask, weight=weight)
        student = unit_logits(output.logits.float(), batch)
        kd = vanilla_kd(self.union, self.batch_logits(batch), student, config.temperature, config.o_merge.value)
        return {
            "kd": kd,
            self.align: config.align_weight * output.terms[self.align],
            "reconstruction": config.reconstruction_weight * output.terms["reconstruction"],
        }

    @cached_property
    def _models(self) -> list[Any]:
        """The teachers on the device, in eval mode, outside of what is trained and saved."""
        return [self.teachers.load(i) for i in range(len(self.teachers))]

    def _states(self, batch: Mapping[str, Tensor]) -> list[Any]:
        """Each teacher's hidden states of a batch, embeddings first."""
        import torch

        from kbench.engine.feed import inputs

        runtime = self.bench.runtime
        assert runtime is not None
        found = []
        with torch.no_grad(), runtime.autocast(self.bench.teacher.precision):
            for teacher in self._models:
                assert not teacher.training
                found.append(teacher.base_model(**inputs(batch), output_hidden_states=True).hidden_states)
        return found

    def _same_tokens(self) -> None:
        """States are aligned position by position, so every teacher must read the student's tokens.

        Raises:
            UserError: a teacher's tokenizer gives others.
        """
        import numpy as np

        own = self.bench.encoded("train")
        for i, bench in enumerate(self.teachers.benches, start=1):
            theirs = bench.encoded("train")
            rows = np.arange(min(1000, len(own)))
            same = np.array_equal(own.lengths, theirs.lengths)
            if not same or not np.array_equal(own.padded(rows, 0)["input_ids"], theirs.padded(rows, 0)["input_ids"]):
                hint = "take teachers and a student of one vocabulary, or a method that reads logits only, such as muki"
                raise UserError(Problem(f"teacher {i}", "has another tokenizer than the student", hint))
