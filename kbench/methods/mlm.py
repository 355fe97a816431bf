"""Plain masked-LM pre-training: what more training on the same text brings, without its knowledge.

The text is the plain text of a knowledge node, as KMLM's stream of it; of a node without any, its text with linked
mentions, as TRELM reads it, whole words masked, the mentions like all others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbench.config.trelm import Words
from kbench.methods.base import TASKS, Needs
from kbench.methods.kmlm import Kmlm, PretrainingOptions
from kbench.methods.linked_pretraining import LinkedPretraining
from kbench.stages.stage import Stage

if TYPE_CHECKING:
    from kbench.methods.pretraining import Stream


@dataclass
class Config(PretrainingOptions):
    """Options of masked-LM pre-training."""


class Mlm(Kmlm):
    """Fine-tuning of a checkpoint that was pre-trained further on the text of a knowledge node."""

    Config = Config
    needs = Needs(tasks=frozenset(TASKS), pretraining=True, knowledge=True)

    @cached_property
    def first_phase(self) -> Stage:
        """Pre-training on the text: a folder that transformers loads."""
        if self._text_files or self.bench.knowledge.corpus is None:
            return self._of_streams()
        config = self.config
        words = Words(config.mlm_probability, whole_words=True, in_spans=True)
        return LinkedPretraining(self.bench, config.sample_length, words, config.pretrain_seed).stage

    def diagnostics(self) -> dict[str, float]:
        return {}  # no triple is told

    def _stream_stages(self) -> dict[str, Stage]:
        self._need_text()
        return {"plain": self._plain_stage(self.config.sample_length)}

    def _streams(self, folders: Mapping[str, Path]) -> dict[str, Stream]:
        from kbench.knowledge.streams import PlainStream

        return {"plain": PlainStream(folders["plain"], self._vocabulary, self.config.sample_length, self._rules())}

    def _weights(self, streams: Mapping[str, Stream]) -> dict[str, float]:
        return dict.fromkeys(streams, 1.0)

    def _rules(self) -> Any:
        from kbench.knowledge.masking import Masking

        return Masking(probability=self.config.mlm_probability)
