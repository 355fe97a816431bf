"""Heads that read a text at one token or at several together: transformers' token classification, dropout as asked.

A linear layer on several states one after another is the sum of a linear layer on each of them. So a head that reads a
text at n tokens has n times its outputs, of the token that is read first those that come first; `joined` adds up what
belongs together. The model stays one that transformers loads. (The biases are added, too: one of them would do.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kbench.engine.seeding import derive
from kbench.errors import BackboneError, Problem

if TYPE_CHECKING:
    from torch import Tensor, nn

# the names that transformers' families give the dropout before the linear layer
_HEAD_DROPOUTS = ("dropout", "drop")


def joined(logits: Any, reads: int) -> Any:
    """The logits of texts [B, C], a tensor or an array, of those of the tokens at which they are read.

    Args:
        logits: [B * reads, reads * C], the tokens of a text in the order in which they are read.
        reads: tokens at which each text is read.
    """
    if reads == 1 or not len(logits):
        return logits
    parts = logits.reshape(-1, reads, reads, logits.shape[-1] // reads)
    return sum(parts[:, place, place] for place in range(reads))


def give_dropout(model: Any, p: float, kept_on: bool = False) -> None:
    """Give the head of a model its dropout.

    Args:
        model: of token classification.
        p: share of the values that are dropped.
        kept_on: in evaluations, too.

    Raises:
        BackboneError: the model's head has no dropout that kbench knows.
    """
    name = next((name for name in _HEAD_DROPOUTS if hasattr(model, name)), None)
    if name is None:
        what = f"{type(model).__name__} has no dropout before its head"
        raise BackboneError(Problem("backbone", what, f"it would be one of: {', '.join(_HEAD_DROPOUTS)}"))
    setattr(model, name, _dropout(p, kept_on))
    model.config.classifier_dropout = p


def _dropout(p: float, kept_on: bool) -> nn.Module:
    """The dropout before the head; where it is `kept_on` it stays on in evaluations.

    There its masks are those of a fixed seed and of how many batches the evaluation has seen, so that a run that was
    killed and continued ends in the same bits.
    """
    import torch

    class KeptOn(torch.nn.Dropout):
        calls = 0

        def train(self, mode: bool = True) -> KeptOn:
            self.calls = 0
            return super().train(mode)

        def forward(self, hidden: Tensor) -> Tensor:
            if self.training or not self.p:
                return super().forward(hidden)
            generator = torch.Generator(hidden.device).manual_seed(derive(0, "head dropout", self.calls))
            self.calls += 1
            kept = torch.rand(hidden.shape, generator=generator, device=hidden.device) >= self.p
            return hidden * kept / (1 - self.p)

    return KeptOn(p) if kept_on else torch.nn.Dropout(p)
