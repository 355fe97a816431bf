"""The names of a graph, or its corpus, as texts that a small backbone's tokenizer is trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from kbench.backbones.tiny import Texts
from kbench.stages.stage import Stage

_NAMES = 5000  # of each language: enough for a small vocabulary, and quick
_SENTENCES = 20_000  # likewise
_PORTION = 1000


def name_texts(graph: Stage, languages: Sequence[str]) -> Texts:
    """Names of each language, evenly spaced over the entities, and all those of relations."""

    def read(folders: Mapping[str, Path]) -> Iterator[list[str]]:
        from kbench.knowledge.graph import Graph

        opened = Graph(folders["graph"])
        for lang in languages:
            names = opened.names(lang)
            of_entities = int(names.ends[len(opened.entities) - 1])
            some = np.unique(np.linspace(0, max(0, of_entities - 1), _NAMES, dtype=np.int64))
            rows = np.concatenate([some, np.arange(of_entities, len(names.texts))])
            for start in range(0, len(rows), _PORTION):
                yield names.texts.take(rows[start : start + _PORTION]).to_pylist()

    return Texts({"names": _NAMES, "languages": list(languages)}, read, {"graph": graph})


def corpus_texts(corpus: Stage) -> Texts:
    """The first sentences of a corpus."""

    def read(folders: Mapping[str, Path]) -> Iterator[list[str]]:
        from kbench.knowledge.corpus import CorpusText

        opened = CorpusText(folders["corpus"])
        count = min(_SENTENCES, opened.sentences)
        for start in range(0, count, _PORTION):
            yield opened.texts(start, min(start + _PORTION, count))

    return Texts({"sentences": _SENTENCES}, read, {"corpus": corpus})
