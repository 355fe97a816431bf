"""Plain masked-LM pre-training on the same text as KMLM, without its knowledge: what more training alone brings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbench.methods.base import TASKS, Needs
from kbench.methods.kmlm import Kmlm, PretrainingOptions
from kbench.stages.stage import Stage

if TYPE_CHECKING:
    from kbench.methods.pretraining import Stream


@dataclass
class Config(PretrainingOptions):
    """Options of masked-LM pre-training."""


class Mlm(Kmlm):
    """Fine-tuning of a checkpoint that was pre-trained further on the plain text of a knowledge node."""

    Config = Config
    needs = Needs(tasks=frozenset(TASKS), pretraining=True, knowledge=True)

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
