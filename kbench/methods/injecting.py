"""TRELM's model in pre-training: a masked language model that reads what the graph says of its mentions (section 3).

    input of a mention     (1 - lambda) h_e + lambda / 2 (M_l[e] + M_g[e])                     equation 7
    loss                   theta * masked words + (1 - theta) * the triple's other entity      equation 3

Projections and decoder live in pre-training only; what is saved is the masked language model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from kbench.backbones.masked_lm import states_and_head
from kbench.methods.cka import Decoder, sampled_loss, span_means
from kbench.methods.injection import Injection, embedded, mixed
from kbench.methods.memory import cls_states, local_notes


@dataclass(frozen=True)
class Rules:
    """How losses and inputs are put together; as the options of the same names.

    Attributes:
        theta: weight of the masked words; the knowledge loss has the rest.
        level: what is replaced, the token's embedding or the sum.
        scale: how the memory is added.
        similarity, tau, correction, longest: of the knowledge loss.
        window, divisor: of notes.
    """

    theta: float = 0.5
    level: str = "token"
    scale: str = "none"
    similarity: str = "dot"
    tau: float = 1.0
    correction: bool = True
    longest: int = 8
    window: int = 16
    divisor: str = "actual"


@dataclass(frozen=True)
class Remembered:
    """What the memory holds of a batch's injected mentions: local and global [I, d], and its share, lambda."""

    local: Tensor
    whole: Tensor
    share: float


class Student(nn.Module):
    """A masked language model with what is injected into it.

    Args:
        model: of transformers, with its masked-LM head.
        injection: projection of the graph's vectors; None: nothing is injected.
        decoder: of the knowledge loss; None: there is none.
        rules: how it is put together.
    """

    def __init__(self, model: nn.Module, injection: Injection | None, decoder: Decoder | None, rules: Rules):
        super().__init__()
        self.model, self.injection, self.decoder, self.rules = model, injection, decoder, rules
        self.notes: tuple[Tensor, Tensor] | None = None

    def forward(
        self,
        batch: Mapping[str, Tensor],
        memory: Remembered | None,
        scales: Mapping[str, float],
        *,
        longest: int,
        noting: bool,
    ) -> dict[str, Tensor]:
        """The terms of the loss; leaves `notes`, local ones and first states of the kept mentions, where `noting`.

        Args:
            batch: as `kbench.methods.linked_feed.LinkedFeed.batch` gives it, with `negatives` and `log_q` of the step.
            memory: what is remembered; None: nothing.
            scales: what the summed loss of masked words and that of decoded tokens are multiplied by.
            longest: tokens of the longest mention.
            noting: whether notes are wanted.
        """
        states, head = self.states(batch, memory)
        if noting:
            self.notes = self._notes(states.detach(), batch)
        logits = states.flatten(0, 1)[batch["positions"]]
        logits = logits if head is None else head(logits)
        words = cross_entropy(logits.float(), batch["labels"], reduction="sum")
        weight = self.rules.theta if self.decoder is not None else 1.0
        found = {"words": weight * words * scales["words"]}
        if self.decoder is not None:
            each, _ = self.knowledge(states, batch, longest)
            # every weight takes part in every step, as data-parallel training wants it
            idle = sum(parameter.flatten()[0] * 0.0 for parameter in self._own() if parameter.requires_grad)
            found["knowledge"] = (1 - weight) * each.sum() * scales["knowledge"] + idle
        return found

    def states(self, batch: Mapping[str, Tensor], memory: Remembered | None) -> tuple[Tensor, Any]:
        """Last hidden states [B, L, d] and the head that makes logits of them."""
        return states_and_head(self.model, self._inputs(batch, memory))

    def _inputs(self, batch: Mapping[str, Tensor], memory: Remembered | None) -> dict[str, Tensor]:
        """What the model is called with."""
        inputs: dict[str, Tensor] = {"attention_mask": batch["attention_mask"]}
        if self.injection is None or not len(batch["injected"]):
            return inputs | {"input_ids": batch["input_ids"]}
        some = batch["injected"]
        vectors = self.injection(batch["vector"])
        if memory is not None:
            both = mixed(vectors, memory.local, memory.whole, memory.share, self.rules.scale)
            vectors = torch.where(batch["remembered"][:, None], both.to(vectors.dtype), vectors)
        spans = (batch["line"][some], batch["start"][some], batch["stop"][some])
        found = embedded(self.model, batch["input_ids"], *spans, vectors, level=self.rules.level)
        return inputs | {"inputs_embeds": found}

    def knowledge(self, states: Tensor, batch: Mapping[str, Tensor], longest: int) -> tuple[Tensor, Tensor]:
        """Loss and probability of each target token of the asked mentions, both [A, T], 0 where there is none."""
        some = batch["asked"]
        own = ("relation", "towards_tail", "targets", "target_log_q", "removed", "negatives", "log_q")
        told = {name: batch[name] for name in own} | {name: batch[name][some] for name in ("line", "start", "stop")}
        return self._decoded(states, told, longest)

    def _decoded(self, states: Tensor, told: Mapping[str, Tensor], longest: int) -> tuple[Tensor, Tensor]:
        assert self.decoder is not None
        spans = span_means(states, told["line"], told["start"], told["stop"], longest)
        decoded = self.decoder(spans, told["relation"], told["towards_tail"], self.rules.longest)
        return sampled_loss(
            decoded, told["targets"], self.lm.get_input_embeddings().weight, told["negatives"], told["log_q"],
            told["target_log_q"], told["removed"], self.rules.similarity, self.rules.tau, self.rules.correction,
        )  # fmt: skip

    def probability(
        self, batch: Mapping[str, Tensor], memory: Remembered | None, chosen: Tensor, longest: int
    ) -> Callable[..., Tensor]:
        """What gives the probability of one answer for each row, as `kbench.methods.attribution.attribute` wants it.

        P is the mean over the answer's tokens; wrong tokens are the same in every call.

        Args:
            batch, memory, longest: as of `forward`.
            chosen: for each row the place, among the mentions asked for, of the one that is looked at [B].
        """
        assert self.decoder is not None
        with torch.no_grad():
            inputs = self._inputs(batch, memory)
        rows, some = len(chosen), batch["asked"][chosen]
        own = {name: batch[name][chosen] for name in ("relation", "towards_tail", "targets", "target_log_q", "removed")}
        own |= {name: batch[name][some] for name in ("start", "stop")}
        lines = batch["line"][some]

        def forward(copies: int = 1) -> Tensor:
            several = {name: _repeated(tensor, copies) for name, tensor in inputs.items()}
            states, _ = states_and_head(self.model, several)
            told = {name: _repeated(tensor, copies) for name, tensor in own.items()}
            shift = torch.arange(copies, device=lines.device).repeat_interleave(rows) * rows
            told["line"] = _repeated(lines, copies) + shift
            told |= {name: batch[name] for name in ("negatives", "log_q")}
            _, found = self._decoded(states, told, longest)
            there = told["targets"] >= 0
            return found.sum(1) / there.sum(1)

        return forward

    @property
    def lm(self) -> Any:
        """The masked language model."""
        return self.model

    def _own(self) -> list[nn.Parameter]:
        """The weights that only pre-training has."""
        modules = [module for module in (self.injection, self.decoder) if module is not None]
        return list(dict.fromkeys(parameter for module in modules for parameter in module.parameters()))

    def _notes(self, states: Tensor, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        some = batch["kept"]
        line = batch["line"][some]
        local = local_notes(
            states, batch["attention_mask"], batch["special"], line, batch["start"][some], batch["stop"][some],
            self.rules.window, self.rules.divisor,
        )  # fmt: skip
        return local, cls_states(states, line)


def _repeated(tensor: Tensor, copies: int) -> Tensor:
    return tensor if copies == 1 else tensor.repeat(copies, *[1] * (tensor.ndim - 1))
