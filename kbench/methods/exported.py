"""A reader of KR2 outside of kbench's runs: written with its resource, read back, and asked.

model/                      the reader and its tokenizer, as transformers loads them
model/kr2.json              how the resource enters it
model/kr2.safetensors       weights of the projection, norm and fusion, where there are any
model/resource/             the resource and its tokenizer, as transformers loads them
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from kbench import registry
from kbench.backbones.load import load_encoder, load_tokenizer, load_trained
from kbench.config.schema import Layout
from kbench.data.encode import ENCODERS
from kbench.engine.recipe import Precision
from kbench.errors import BackboneError, Problem
from kbench.methods.reading import Reader, features_of, read_mask
from kbench.methods.resource import Resource

OPTIONS = "kr2.json"
WEIGHTS = "kr2.safetensors"
RESOURCE = "resource"
_ROWS = 64  # at once


def save_resource(
    reader: Reader, options: dict[str, Any], resource: Resource, tokenizers: Sequence[str], folder: Path
) -> None:
    """Write what a reader needs beside the task's model.

    Args:
        reader: the trained reader.
        options: what it was made with.
        resource: what it reads.
        tokenizers: kinds of the reader's and the resource's.
        folder: the task's model's.
    """
    bench = resource.bench
    resource.model.save_pretrained(folder / RESOURCE)  # type: ignore[operator]
    bench.tokenizer.save_pretrained(folder / RESOURCE)
    extra = {name: tensor.contiguous() for name, tensor in reader.extra().items()}
    if extra:
        save_file(extra, folder / WEIGHTS)
    record = {
        "reader": options,
        "layers": resource.layers,
        "stored": resource.stored,
        "drop_special": resource.drop_special,
        "max_length": bench.data.max_length,
        "layout": bench.records.layout.value,
        "task": bench.data.task,
        "precision": bench.train.precision.value,
        "tokenizers": tokenizers,
    }
    (folder / OPTIONS).write_text(json.dumps(record, indent=1), encoding="utf-8")


class Exported:
    """A reader with its resource, read from a folder and ready to be asked.

    Args:
        folder: what `keep_model=true` left in a run's folder.

    Raises:
        BackboneError: the folder is no reader of KR2, or a file is missing or broken.
    """

    def __init__(self, folder: Path):
        try:
            self._load(folder)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            short = str(error).strip().splitlines()[0]
            raise BackboneError(Problem(str(folder), f"is no whole reader of KR2: {short}")) from error

    def _load(self, folder: Path) -> None:
        record = json.loads((folder / OPTIONS).read_text(encoding="utf-8"))
        extra = load_file(folder / WEIGHTS) if (folder / WEIGHTS).exists() else {}
        self.layout = Layout(record["layout"])
        task: Any = registry.load("task", record["task"])
        model: Any = load_trained(folder, task.auto())
        self.labels = [model.config.id2label[index] for index in range(len(model.config.id2label))]
        self._record = record
        self._resource: Any = load_encoder(folder / RESOURCE)
        self._reader = Reader(model, self._resource.config.hidden_size, **record["reader"]).eval()
        self._reader.load_state_dict({**{f"model.{k}": v for k, v in model.state_dict().items()}, **extra})
        words = self.layout is Layout.words
        self._tokenizers = [
            load_tokenizer(place, words=words, kind=kind)
            for place, kind in zip((folder, folder / RESOURCE), record["tokenizers"], strict=True)
        ]

    def predict(self, rows: Sequence[Any]) -> list[Any]:
        """The label of each text or pair [first, second, ..], or the labels of each sentence's words.

        Sentences are lists of words; a word that was cut off has the label None.
        """
        scores = self.scores(rows)
        if self.layout is not Layout.words:
            return [self.labels[index] for index in scores.argmax(1)]
        found = [self.labels[row.argmax()] if row.any() else None for row in scores]
        ends = np.cumsum([len(row) for row in rows])
        return [found[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]

    def scores(self, rows: Sequence[Any]) -> np.ndarray:
        """Logits [units, labels], float32; zeros for a word that was cut off."""
        found = [self._scored(rows[start : start + _ROWS]) for start in range(0, len(rows), _ROWS)]
        return np.concatenate(found) if found else np.zeros((0, len(self.labels)), dtype=np.float32)

    @torch.no_grad()
    def _scored(self, rows: Sequence[Any]) -> np.ndarray:
        record = self._record
        (own, starts), (theirs, _) = (self._padded(tokenizer, rows) for tokenizer in self._tokenizers)
        half = record["precision"] == Precision.bf16.value
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            fused = not record["reader"]["states"]
            features = features_of(self._resource, theirs, record["layers"], fused, record["stored"])
            mask = read_mask(theirs, self._tokenizers[1], record["drop_special"])
            logits = self._reader(**own, resource=features, resource_mask=mask).logits.float()
        if not starts:
            return np.asarray(logits)
        line = torch.repeat_interleave(torch.arange(len(rows)), torch.tensor([len(words) for words in rows]))
        place = torch.from_numpy(np.concatenate(starts)).long()
        return np.asarray(logits[line, place.clamp_min(0)] * (place >= 0)[:, None])

    def _padded(self, tokenizer: Any, rows: Sequence[Any]) -> tuple[dict[str, Tensor], list[np.ndarray]]:
        """The rows as a model's inputs [.., L], and of sentences where each word is read."""
        encoder = ENCODERS[self.layout](tokenizer, self._record["max_length"])
        ids = [torch.from_numpy(row).long() for row in encoder.encode(rows)]
        found = {
            "input_ids": pad_sequence(ids, True, tokenizer.pad_token_id),
            "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], True),
        }
        if "types" in encoder.arrays:
            types = [torch.from_numpy(row).long() for row in encoder.arrays["types"]]
            found["token_type_ids"] = pad_sequence(types, True)
        if encoder.sequences > 1:
            found = {name: tensor.unflatten(0, (len(rows), encoder.sequences)) for name, tensor in found.items()}
        return found, encoder.arrays.get("starts", [])
