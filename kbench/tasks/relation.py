"""Relation classification: a sentence with two marked arguments, and which of a closed list of relations they have.

The head is dropout and a linear layer, no pooler: on the last hidden state of the first token, as RELX's is (Köksal and
Özgür 2020, released script), or on those of the first markers of both arguments one after another, as K-Adapter's and
KEPLER's are (released code). That is transformers' token classification, read at these tokens only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kbench.config.relation import Markers, RelationHead, RelationOptions
from kbench.data.records import Records
from kbench.data.relations import with_markers
from kbench.metrics.relation import relation_scores, relations
from kbench.tasks.classification import Classification
from kbench.tasks.heads import give_dropout, joined

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kbench.engine.feed import Feed
    from kbench.engine.recipe import Precision
    from kbench.engine.runtime import Runtime


class Relation(Classification):
    """Head, loss, prediction and metrics of relation classification.

    Args:
        outputs: labels in order, each a relation with its direction, `per:spouse(e1,e2)`, or one without.
        metrics: names of metrics, the main one first.
        options: head, loss, and the label that is not counted.
    """

    options: RelationOptions

    def __init__(self, outputs: Sequence[str], metrics: Sequence[str], options: RelationOptions):
        super().__init__(outputs, metrics, options)
        self.reads = 2 if options.head is RelationHead.starts else 1
        self._relations = relations(self.outputs, options.negative)

    @staticmethod
    def auto() -> Any:
        """The transformers class whose head this task trains."""
        from transformers import AutoModelForTokenClassification

        return AutoModelForTokenClassification

    def columns(self, records: Records, encoded: Any) -> dict[str, np.ndarray]:
        """`label` and `weight` of each training row, once for each token that is read; the weights have mean 1."""
        label = records.labels("train")
        weight = np.ones(len(label))
        if self.options.class_weights:
            weight = class_weights(label, self._relations)[label]
        found = {"label": label, "weight": (weight / weight.mean()).astype(np.float32)}
        return {name: np.repeat(column, self.reads) for name, column in found.items()}

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`cross_entropy`, the mean over the batch's rows of weight times -log p(label).

        The released script divides by the weights in a micro batch of 16 instead of by its rows; weights of mean 1 are
        the same on average, and the loss does not depend on how a batch is cut.
        """
        from torch.nn.functional import cross_entropy

        from kbench.engine.feed import inputs, unit_logits

        if self.options.compat:
            _inner(model).base_model.eval()  # the loop puts all of it in train mode
        logits = joined(unit_logits(model(**inputs(batch)).logits.float(), batch), self.reads)
        each = cross_entropy(logits, batch["label"][:: self.reads], reduction="none")
        return {"cross_entropy": (each * batch["weight"][:: self.reads]).mean()}

    def predict(
        self, model: nn.Module, feed: Feed, runtime: Runtime, precision: Precision, *, may_stop: bool = True
    ) -> np.ndarray:
        """The logits of each row of a feed [rows, labels], float32."""
        found: np.ndarray = joined(super().predict(model, feed, runtime, precision, may_stop=may_stop), self.reads)
        return found

    def adapt(self, model: Any, tokenizer: Any) -> None:
        """Make a model that was just loaded fit the task: embeddings of the tokenizer's new tokens, the head's dropout.

        New embeddings are drawn as the model draws its own, from torch's generator, which loading has seeded.

        Raises:
            BackboneError: the model's head has no dropout that kbench knows.
        """
        if self.options.markers is Markers.relx:
            with_markers(tokenizer)
        if len(tokenizer) > model.get_input_embeddings().num_embeddings:
            model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        give_dropout(model, self.options.head_dropout, kept_on=self.options.compat)

    def score(self, scores: np.ndarray, gold: np.ndarray, ends: np.ndarray) -> dict[str, float]:
        """Metrics of scores [rows, labels] against gold labels [rows]; every row ends after one label."""
        negative = self.options.negative is not None
        found = relation_scores(scores.argmax(axis=1), gold, self._relations, micro=negative)
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
