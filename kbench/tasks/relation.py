"""Relation classification: a sentence with two marked arguments, and which of a closed list of relations they have.

The head is RELX's (Köksal and Özgür 2020, released script): dropout and a linear layer on the last hidden state of
the first token, no pooler. That is transformers' token classification, read at the first token only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kbench.config.relation import RelationOptions
from kbench.data.records import Records
from kbench.data.relations import with_markers
from kbench.engine.seeding import derive
from kbench.errors import BackboneError, Problem
from kbench.metrics.relation import relation_scores, relations
from kbench.tasks.classification import Classification

if TYPE_CHECKING:
    from torch import Tensor, nn

# the names that transformers' families give the dropout before the linear layer
_HEAD_DROPOUTS = ("dropout", "drop")


class Relation(Classification):
    """Head, loss, prediction and metrics of relation classification.

    Args:
        outputs: labels in order, each a relation with its direction, `per:spouse(e1,e2)`, or one without.
        metrics: names of metrics, the main one first.
        options: head and loss.
    """

    def __init__(self, outputs: Sequence[str], metrics: Sequence[str], options: RelationOptions):
        super().__init__(outputs, metrics, options)
        self._relations = relations(self.outputs)

    @staticmethod
    def auto() -> Any:
        """The transformers class whose head this task trains."""
        from transformers import AutoModelForTokenClassification

        return AutoModelForTokenClassification

    def columns(self, records: Records, encoded: Any) -> dict[str, np.ndarray]:
        """`label` and `weight` of each training row [rows]; the weights have mean 1."""
        label = records.labels("train")
        weight = np.ones(len(label))
        if self.options.class_weights:
            weight = class_weights(label, self._relations)[label]
        return {"label": label, "weight": (weight / weight.mean()).astype(np.float32)}

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`cross_entropy`, the mean over the batch's rows of weight times -log p(label).

        The released script divides by the weights in a micro batch of 16 instead of by its rows; weights of mean 1 are
        the same on average, and the loss does not depend on how a batch is cut.
        """
        from torch.nn.functional import cross_entropy

        from kbench.engine.feed import inputs, unit_logits

        if self.options.compat:
            _inner(model).base_model.eval()  # the loop puts all of it in train mode
        logits = unit_logits(model(**inputs(batch)).logits.float(), batch)
        each = cross_entropy(logits, batch["label"], reduction="none")
        return {"cross_entropy": (each * batch["weight"]).mean()}

    def adapt(self, model: Any, tokenizer: Any) -> None:
        """Make a model that was just loaded fit the task: embeddings of the tokenizer's new tokens, the head's dropout.

        New embeddings are drawn as the model draws its own, from torch's generator, which loading has seeded.

        Raises:
            BackboneError: the model's head has no dropout that kbench knows.
        """
        with_markers(tokenizer)
        if len(tokenizer) > model.get_input_embeddings().num_embeddings:
            model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        name = next((name for name in _HEAD_DROPOUTS if hasattr(model, name)), None)
        if name is None:
            what = f"{type(model).__name__} has no dropout before its head"
            raise BackboneError(Problem("backbone", what, f"it would be one of: {', '.join(_HEAD_DROPOUTS)}"))
        setattr(model, name, _dropout(self.options.head_dropout, self.options.compat))
        model.config.classifier_dropout = self.options.head_dropout

    def score(self, scores: np.ndarray, gold: np.ndarray, ends: np.ndarray) -> dict[str, float]:
        """Metrics of scores [rows, labels] against gold labels [rows]; every row ends after one label."""
        found = relation_scores(scores.argmax(axis=1), gold, self._relations)
        return {name: found[name] for name in self.metrics}

    def main_score(self, scores: np.ndarray, gold: np.ndarray, ends: np.ndarray) -> float:
        """The metric that selects weights."""
        return self.score(scores, gold, ends)[self.metrics[0]]


def class_weights(label: np.ndarray, relation: np.ndarray) -> np.ndarray:
    """What a row of each label counts in the loss [labels], as in RELX's released script.

    The two directions of a relation get their shares of its rows, n(e1,e2) / n and n(e2,e1) / n, so that the more
    frequent one counts *more*; a label without a direction has 1. A direction that does not occur has 0, which no row
    meets.

    Args:
        label: of each training row [rows].
        relation: the relation of each label [labels], -1 where it has none.
    """
    counts = np.bincount(label, minlength=len(relation)).astype(np.float64)
    directed = relation >= 0
    whole = np.bincount(relation[directed], counts[directed], minlength=1)
    found = np.ones(len(relation))
    found[directed] = counts[directed] / np.maximum(1, whole[relation[directed]])
    return found


def _inner(model: Any) -> Any:
    """The task's model: the module that several processes share wraps it."""
    return getattr(model, "module", model)


def _dropout(p: float, compat: bool) -> nn.Module:
    """The dropout before the head; with `compat` it stays on in evaluations.

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

    return KeptOn(p) if compat else torch.nn.Dropout(p)
